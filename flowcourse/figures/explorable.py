"""Explorables: figures that the reader operates in the page, with no kernel, no network and no widget manager.

An `Explorable` displays as one piece of HTML: a still picture (for print and where scripts do not run), native
controls, a line of text that says what the numbers are, a caption, and one module script made of `js/engine.js`, a
scene from `js/scenes/` and what that imports from `js/`. Equal inputs give equal HTML, so executed books can be
reproduced.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from flowcourse.palette import LIGHT, css
from flowlib.solvers import Tableau


@dataclass(frozen=True)
class Explorable:
    """An interactive figure, which a notebook displays.

    Args:
        scene: the scene's function and file, `js/scenes/<scene>.js`.
        spec: what the scene is told; JSON.
        stage: HTML of the panels, each with its still picture.
        controls: HTML of the controls.
        description: what a reader who cannot see the figure should know.
        title: a short heading above it.
        legend: pairs of a sample (SVG) and what it stands for.
        caption: an invitation to try something, and what will be seen.
    """

    scene: str
    spec: Mapping[str, Any]
    stage: str
    controls: str
    description: str
    title: str | None = None
    legend: tuple[tuple[str, str], ...] = ()
    caption: str | None = None

    def _repr_html_(self) -> str:
        title = f'<p class="flow-title">{escape(self.title)}</p>' if self.title else ""
        legend = "".join(f"<span>{sample}{escape(words)}</span>" for sample, words in self.legend)
        legend = f'<p class="flow-legend">{legend}</p>' if legend else ""
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        body = (
            f"<style>{css('.flow-explorable')}{_style()}</style>{title}{self.stage}{legend}"
            f'<div class="flow-controls">{self.controls}</div><p class="flow-readout" aria-hidden="true"></p>'
            '<p class="flow-heard" aria-live="polite"></p>'
        )
        spec = json.dumps(self.spec, separators=(",", ":"), ensure_ascii=False).replace("<", r"\u003c")
        name = hashlib.sha256(f"{body}{caption}{spec}{script(self.scene)}".encode()).hexdigest()[:10]
        module = f'{script(self.scene)}\nmount("{name}",{self.scene},{spec});'
        return (
            f'<figure class="flow-explorable" data-flow-explorable="{name}">{body}'
            f'<script type="module">{module}</script>{caption}</figure>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": f"[Interactive figure: {self.description}]"}


@cache
def script(scene: str) -> str:
    """The module of one scene: the engine, the parts that it imports and itself in one piece, compacted."""
    sources = files("flowcourse.figures") / "js"
    text = (sources / "scenes" / f"{scene}.js").read_text(encoding="utf-8")
    # in reverse, for each is put before the rest
    for name in ("engine", "drawing", "affine", "handles", "numerics"):
        if name == "engine" or f'"../{name}.js"' in text:
            text = (sources / f"{name}.js").read_text(encoding="utf-8") + text
    text = re.sub(r"^import .*$|^export (?=\w)", "", text, flags=re.MULTILINE)
    return compact(text)


# Strings are taken whole, so that nothing inside them is mistaken for code.
TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`)|\s*(?P<open>[{(\[,;:?=<>&|*/%])\s*|\s*(?P<close>[)\]}])"""
    r"""|[ ](?P<sign>[-+])[ ](?![-+])|(?P<line>\s*\n\s*)"""
)


def compact(source: str) -> str:
    """JavaScript without comments and idle spaces. It must hold no regular expressions, no template
    within a template and no text with ' //'.
    """

    def shorter(token: re.Match[str]) -> str:
        return token["string"] or token["open"] or token["close"] or token["sign"] or "\n"

    return TOKEN.sub(shorter, re.sub(r"(^|\s)//[^\n]*", "\n", source)).strip()


@cache
def _style() -> str:
    text = (files("flowcourse.figures") / "js" / "explorable.css").read_text(encoding="utf-8")
    return re.sub(r"\s*([{};:,])\s*", r"\1", text.replace("\n", "")).replace(";}", "}")


def encode16(points: Tensor | np.ndarray) -> str:
    """The numbers as base64 of little-endian float16, of 3 digits; `decode16` of numerics.js is the inverse."""
    return base64.b64encode(np.asarray(points, dtype="<f2").tobytes()).decode()


def rounded16(points: Tensor) -> Tensor:
    """Points as the reader's browser has them: rounded to float16, in float64."""
    return points.detach().cpu().to(torch.float16).double()


# Controls


def range_control(
    name: str, label: str, symbol: str, value: float, *, top: float = 1.0, low: float = 0.0, digits: int = 2
) -> str:
    """A slider over [low, top], which a scene reads as `values[name]`."""
    step = 10**-digits
    return _slider(
        name, label, symbol, f'min="{low:g}" max="{top:g}" step="{step:g}" value="{value:g}"', digits
    )


def stops_control(name: str, label: str, symbol: str, values: Sequence[Any], value: Any) -> str:
    """A slider that stops at listed values."""
    listed = escape(json.dumps(list(values)))
    return _slider(
        name,
        label,
        symbol,
        f'max="{len(values) - 1}" value="{list(values).index(value)}" data-values="{listed}"',
        0,
    )


def _slider(name: str, label: str, symbol: str, attributes: str, digits: int) -> str:
    return (
        f'<div class="flow-control"><label><span>{escape(label)} <i>{escape(symbol)}</i></span>'
        f'<input type="range" data-control="{name}" data-digits="{digits}" {attributes}></label>'
        '<output aria-hidden="true"></output></div>'
    )


def select_control(name: str, label: str, options: Iterable[str]) -> str:
    """A list to choose from."""
    items = "".join(f"<option>{escape(option)}</option>" for option in options)
    select = f'<select data-control="{name}">{items}</select>'
    return f'<div class="flow-control"><label><span>{label}</span>{select}</label></div>'


def boxes_control(label: str, options: Mapping[str, bool]) -> str:
    """A group of boxes to tick: names, and which are ticked at first."""
    items = "".join(
        f'<label><input type="checkbox" data-control="{name}"{" checked" * shown}>{name}</label>'
        for name, shown in options.items()
    )
    return f'<div class="flow-control flow-show" role="group" aria-label="{label}"><span>{label}</span>{items}</div>'


PLAY = (
    '<button type="button" class="flow-play"><svg viewBox="0 0 18 18" aria-hidden="true">'
    '<path d="M4 2l12 7-12 7z"/><path d="M3 2h4v14H3zM11 2h4v14h-4z"/></svg></button>'
)
RESET = '<button type="button" class="flow-reset">Reset</button>'
CLEAR = '<button type="button" class="flow-clear">Clear</button>'


def panel(still: str, label: str, name: str = "", *, drawable: bool = False) -> str:
    """A canvas over its still picture; `drawable` puts it into the order of the Tab key."""
    kind = 'tabindex="0" role="application"' if drawable else 'role="img"'
    heading = f'<p class="flow-name">{name}</p>' if name else ""
    canvas = f'<canvas {kind} aria-label="{escape(label)}"></canvas>'
    return f'<div class="flow-panel">{heading}<div class="flow-paper">{still}{canvas}</div></div>'


# Legends and tables

RING = '<circle cx="12" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2"/>'
DOT = '<circle cx="12" cy="6" r="5" fill="currentColor"/>'
DOTS = "".join(
    f'<circle cx="{x}" cy="6" r="3.6" fill="var(--flow-{r})"/>'
    for x, r in ((4, "source"), (12, "path"), (20, "data"))
)
SHADE = '<path d="M1 1h22v10H1z" fill="currentColor" opacity=".45"/>'
SQUARE = '<path d="M7 1h10v10H7z" fill="currentColor"/>'
LINE = '<path d="M1 6h22" stroke="currentColor" stroke-width="2"/>'
DASHES = '<path d="M1 6h22" stroke="currentColor" stroke-width="2" stroke-dasharray="2 4"/>'


def legend_entries(entries: Iterable[tuple[str, str, str]]) -> tuple[tuple[str, str], ...]:
    """Samples in their role's color, and what they stand for."""
    box = '<svg viewBox="0 0 24 12" style="color:var(--flow-{})" aria-hidden="true">{}</svg>'
    return tuple((box.format(role, sample), words) for role, sample, words in entries)


def table(method: Tableau) -> dict[str, Any]:
    """A method as `advance` of numerics.js takes it."""
    return {"a": method.a, "b": method.b, "c": method.c}


# Still pictures: SVG in hundredths of the plane's unit, y pointing down


def polylines(strands: Tensor) -> str:
    """One SVG path of polylines (B, N, 2)."""
    corners = (100 * strands * torch.tensor([1.0, -1.0], dtype=strands.dtype)).round().long()
    parts = []
    for strand in corners:
        steps = strand.diff(dim=0).flatten().tolist()
        parts.append(f"M{strand[0, 0]} {strand[0, 1]}l{' '.join(map(str, steps))}".replace(" -", "-"))
    return "".join(parts)


def dots(points: Tensor) -> str:
    """One SVG path of points (B, 2): segments of length zero, which round caps make dots."""
    return "".join(f"M{x} {-y}h0" for x, y in (100 * points).round().long().tolist())


def arrows(tails: Tensor, along: Tensor) -> str:
    """Arrows from points (B, 2) along vectors (B, 2), as one SVG path."""
    tips, turn = tails + along, torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    head = along * (0.09 / along.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=0.4)
    side = 0.45 * head @ turn
    return polylines(torch.stack([tails, tips], 1)) + polylines(
        torch.stack([tips - head + side, tips, tips - head - side], 1)
    )


def stroke(role: str, width: float, path: str, more: str = "") -> str:
    """An SVG path in a role's color."""
    return f'<path stroke="var(--flow-{role})" stroke-width="{width:g}" d="{path}"{more}/>'


def haze(log: Tensor, box: str, color: str = LIGHT["muted"]) -> str:
    """A density as an image, from clear to dim at its peak.

    Args:
        log: its logarithm on a grid (rows, columns), from the top left.
        box: where the image lies, as the attributes x, y, width and height.
        color: as "#rrggbb".
    """
    alpha = (150 * (log - log.max()).exp()).round().to(torch.uint8).numpy()
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    pixels = np.dstack([np.broadcast_to(rgb, (*alpha.shape, 3)), alpha])
    buffer = io.BytesIO()
    plt.imsave(buffer, pixels, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<image href="data:image/png;base64,{data}" {box} preserveAspectRatio="none"/>'
