"""Explorables: figures that the reader operates in the page, with no kernel, no network and no widget manager.

An `Explorable` displays as one piece of HTML: a still picture (for print and where scripts do not run), native
controls, a line of text that says what the numbers are, a caption, and one module script made of `js/numerics.js`,
`js/engine.js` and a scene from `js/scenes/`. Equal inputs give equal HTML, so executed books can be reproduced.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flowlib.data import MarginalVelocity
from flowlib.fields import Field, Linear, TravelingVortex
from flowlib.figures.palette import css
from flowlib.figures.svg import Shown
from flowlib.paths import linear
from flowlib.solvers import EULER, MIDPOINT, RK4, Tableau, odeint

__all__ = ["Explorable", "encode16", "flow_explorer"]


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
        spec = json.dumps(self.spec, separators=(",", ":"), ensure_ascii=False).replace("</", r"<\/")
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
    """The module of one scene: numerics, engine and scene in a row, without comments, indentation, imports, exports."""
    sources = files("flowlib.figures") / "js"
    parts = [sources / "numerics.js", sources / "engine.js", sources / "scenes" / f"{scene}.js"]
    text = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    text = re.sub(r"^import .*$|^export (?=\w)", "", text, flags=re.MULTILINE)
    text = re.sub(r"(^|\s)//.*$", "", text, flags=re.MULTILINE)  # no string of ours holds " //"
    return re.sub(r"\s*\n\s*", "\n", text).strip()


@cache
def _style() -> str:
    text = (files("flowlib.figures") / "js" / "explorable.css").read_text(encoding="utf-8")
    return re.sub(r"\s*([{};:,])\s*", r"\1", text.replace("\n", "")).replace(" :", ":").replace(";}", "}")


def encode16(points: Tensor | np.ndarray) -> str:
    """The numbers as base64 of little-endian float16 (3 digits, 2 bytes each); `decode16` of numerics.js is the inverse."""
    return base64.b64encode(np.asarray(points, dtype="<f2").tobytes()).decode()


def rounded16(points: Tensor) -> Tensor:
    """Points as the reader's browser has them: rounded to float16, in float64."""
    return points.detach().cpu().to(torch.float16).double()


# Controls


def _range(name: str, label: str, symbol: str, value: float, *, top: float = 1.0, low: float = 0.0, digits: int = 2) -> str:
    step = 10**-digits
    return _slider(name, label, symbol, f'min="{low:g}" max="{top:g}" step="{step:g}" value="{value:g}"', digits)


def _stops(name: str, label: str, symbol: str, values: Sequence[Any], value: Any) -> str:
    """A slider that stops at listed values."""
    listed = escape(json.dumps(list(values)))
    return _slider(name, label, symbol, f'max="{len(values) - 1}" value="{list(values).index(value)}" data-values="{listed}"', 0)


def _slider(name: str, label: str, symbol: str, attributes: str, digits: int) -> str:
    return (
        f'<div class="flow-control"><label><span>{escape(label)} <i>{escape(symbol)}</i></span>'
        f'<input type="range" data-control="{name}" data-digits="{digits}" {attributes}></label>'
        '<output aria-hidden="true"></output></div>'
    )


def _select(name: str, label: str, options: Iterable[str], chosen: str | None = None) -> str:
    items = "".join(f"<option{' selected' * (o == chosen)}>{escape(o)}</option>" for o in options)
    return f'<div class="flow-control"><label><span>{label}</span><select data-control="{name}">{items}</select></label></div>'


def _boxes(label: str, options: Mapping[str, bool]) -> str:
    items = "".join(
        f'<label><input type="checkbox" data-control="{name}"{" checked" * shown}>{name}</label>'
        for name, shown in options.items()
    )
    return f'<fieldset class="flow-control flow-show"><legend>{label}</legend>{items}</fieldset>'


PLAY = '<button type="button" class="flow-play"><svg viewBox="0 0 18 18" aria-hidden="true"><path d="M4 2l12 7-12 7z"/><path d="M3 2h4v14H3zM11 2h4v14h-4z"/></svg></button>'
RESET = '<button type="button" class="flow-reset">Reset</button>'
CLEAR = '<button type="button" class="flow-clear">Clear</button>'


def _panel(still: str, label: str, name: str = "", *, drawable: bool = False) -> str:
    kind = 'tabindex="0" role="application"' if drawable else 'role="img"'
    heading = f'<p class="flow-name">{name}</p>' if name else ""
    return f'<div class="flow-panel">{heading}<div class="flow-paper">{still}<canvas {kind} aria-label="{escape(label)}"></canvas></div></div>'


# The flow explorer

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def flow_explorer(
    fields: Mapping[str, Field],
    *,
    points: Tensor | None = None,
    methods: Sequence[Tableau] = (EULER, MIDPOINT, RK4),
    steps: int = 8,
    panels: str = "one",
    extra: str | None = None,
    show: Sequence[str] | None = None,
    window: float = 3.0,
    time: float = 0.5,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """A plane that a field carries along: its grid, its points, their trajectories, the arrows.

    A tap drops a point and a stroke sprays a cloud of them, at the place where they are at the time shown. At time t a
    point is where `steps` steps of the method over [0, 1] bring it, on the straight line between two steps; the errors
    in the text line are those at t = 1, against RK4 with 256 steps. The figure opens at `time`, and the first Play
    starts from 0.

    Args:
        fields: the fields to choose from, by name: `Linear`, `TravelingVortex`, or the marginal velocity of the
            linear path from N(0, I) to a Gaussian mixture in the plane. With one there is no choice.
        points: where points start at t = 0, (B, 2), sent in float16; a small crowd if None.
        methods: the solvers to choose from. With one, neither it nor the number of steps is a control.
        steps: how many equal steps the method takes from t = 0 to t = 1, at first.
        panels: "one", or "two" for the flow (grid and points) beside the field (arrows) at the same time.
        extra: None, or "swirl" for a slider c that adds c J grad log p_t to the field of a mixture, with J the
            rotation by 90 degrees: other trajectories, the same densities.
        show: what is shown at first, of "grid", "arrows", "trajectories" and, for mixtures, "density".
        window: half the height of what is seen, in the plane's units.
        time: the time at which the figure opens.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a field that the browser cannot compute; the message names it.
        ValueError: no fields or methods, points that are not (B, 2), or an unknown option.
    """
    if not fields or not methods:
        raise ValueError(f"a flow explorer needs a field and a method, got {len(fields)} and {len(methods)}")
    if panels not in ("one", "two"):
        raise ValueError(f'panels must be "one" or "two", got {panels!r}')
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 64:
        raise ValueError(f"steps must be a whole number from 1 to 64, got {steps!r}")
    if not 0 <= time <= 1:
        raise ValueError(f"time must be in [0, 1], got {time}")
    if points is None:
        points = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape (B, 2), got {tuple(points.shape)}")
    described = {name: _describe(name, field) for name, field in fields.items()}
    mixtures = [name for name, d in described.items() if d["kind"] == "mixture"]
    if extra not in (None, "swirl"):
        raise ValueError(f'extra must be None or "swirl", got {extra!r}')
    if extra and len(mixtures) < len(fields):
        raise ValueError(f"a swirl can be added to mixtures' fields only, not to {sorted(set(fields) - set(mixtures))}")
    layers = ("grid", "arrows", "trajectories", *["density"] * bool(mixtures))
    if show is None:
        show = ("density", "trajectories") if extra else ("grid", "arrows") if panels == "two" else layers[:3]
    if unknown := set(show) - set(layers):
        raise ValueError(f"show can hold {', '.join(layers)}, got {sorted(unknown)}")

    two = panels == "two"
    names = [m.name for m in methods]
    controls = f'<div class="flow-time">{PLAY}{_range("t", "Time", "t", time)}{RESET}{CLEAR}</div>'
    if len(fields) > 1:
        controls += _select("field", "Field", fields)
    if len(methods) > 1:
        controls += _select("method", "Solver", names)
        controls += _stops("steps", "Steps", "N", sorted({*STEPS, steps}), steps)
    if extra:
        controls += _range("swirl", "Swirl", "c", 0.0, low=-2.0, top=2.0, digits=1)
    if not two:
        controls += _boxes("Show", {layer: layer in show for layer in layers})

    if description is None:
        description = (
            f"{len(points)} points and a square grid in the plane, carried from t = 0 to t = 1 by a velocity field "
            f"({', '.join(fields)}), with its arrows, at any time t that the reader chooses."
        )
    hint = "Arrow keys move a crosshair, Enter drops a point, Delete clears all points."
    left, right = _still_flow(next(iter(fields.values())), rounded16(points), methods[0], steps, show, two, window, time)
    if two:
        stage = _panel(_svg(left, window, description), f"The flow. {description} {hint}", "<b>Flow</b> <i>ϕ<sub>t</sub></i>: where they are", drawable=True)
        stage += _panel(_svg(right, window, "Arrows of the velocity field."), "The velocity field at the same time, as arrows.", "<b>Vector field</b> <i>v<sub>t</sub></i>: where they are going")
    else:
        stage = _panel(_svg(left + right, window, description), f"{description} {hint}", drawable=True)
    spec = {
        "fields": described,
        "methods": {m.name: _table(m) for m in methods},
        "reference": _table(RK4),
        "steps": steps,
        "window": window,
        "points": encode16(points),
    }
    legend = [("source", RING, "start x₀"), ("path", LINE, "trajectory"), ("path", DOT, "where it is at time t"), ("truth", DASHES, "exact, where the solver is visibly off")]
    legend = [] if two else legend[: 3 if len(methods) == 1 else 4]
    return Explorable(
        "flow",
        spec,
        f'<div class="flow-stage{" flow-two" * two}">{stage}</div>',
        controls,
        description,
        title,
        tuple((f'<svg viewBox="0 0 24 12" style="color:var(--flow-{role})" aria-hidden="true">{sample}</svg>', words) for role, sample, words in legend),
        caption,
    )


RING = '<circle cx="12" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2"/>'
DOT = '<circle cx="12" cy="6" r="5" fill="currentColor"/>'
SQUARE = '<path d="M7 1h10v10H7z" fill="currentColor"/>'
LINE = '<path d="M1 6h22" stroke="currentColor" stroke-width="2"/>'
DASHES = '<path d="M1 6h22" stroke="currentColor" stroke-width="2" stroke-dasharray="2 4"/>'


def _table(method: Tableau) -> dict[str, Any]:
    return {"a": method.a, "b": method.b, "c": method.c}


def _describe(name: str, field: Field) -> dict[str, Any]:
    """The field as `fields` of numerics.js takes it."""
    if isinstance(field, Linear) and len(field.matrix) == 2:
        return {"kind": "linear", "matrix": field.matrix}
    if isinstance(field, TravelingVortex):
        return {"kind": "vortex", **vars(field)}
    if isinstance(field, MarginalVelocity) and field.path == linear and field.source is None:
        mixture = field.mixture
        K, d = mixture.means.shape
        if d == 2:
            S = mixture.covariances.double()
            full = S if S.ndim == 3 else torch.diag_embed(S.reshape(K, -1).expand(K, 2))
            return {
                "kind": "mixture",
                "weights": mixture.weights.double().tolist(),
                "means": mixture.means.double().tolist(),
                "covariances": full.tolist(),
            }
    raise TypeError(
        f"the browser cannot compute the field {name!r}: {field!r}. It knows Linear fields of the plane, TravelingVortex, and "
        "GaussianMixture(...).marginal_velocity(linear) in the plane with the source N(0, I)"
    )


# Still pictures: SVG in hundredths of the plane's unit, y pointing down


def _svg(content: str, window: float, alt: str) -> str:
    w, h = round(160 * window), round(100 * window)
    return (
        f'<svg class="flow-still" viewBox="{-w} {-h} {2 * w} {2 * h}" preserveAspectRatio="xMidYMid slice" role="img" '
        f'aria-label="{escape(alt)}" fill="none" stroke-linecap="round" stroke-linejoin="round">{content}</svg>'
    )


def _polylines(strands: Tensor) -> str:
    """One SVG path of polylines (B, N, 2)."""
    corners = (100 * strands * torch.tensor([1.0, -1.0], dtype=strands.dtype)).round().long()
    parts = []
    for strand in corners:
        steps = strand.diff(dim=0).flatten().tolist()
        parts.append(f"M{strand[0, 0]} {strand[0, 1]}l{' '.join(map(str, steps))}".replace(" -", "-"))
    return "".join(parts)


def _stroke(role: str, width: float, path: str, more: str = "") -> str:
    return f'<path stroke="var(--flow-{role})" stroke-width="{width:g}" d="{path}"{more}/>'


def _still_flow(
    field: Field, points: Tensor, method: Tableau, steps: int, show: Sequence[str], two: bool, window: float, time: float
) -> tuple[str, str]:
    """What the scene draws at first: SVG of the left panel's layers and of the arrows."""

    def carried(x: Tensor) -> Tensor:
        return odeint(field, x, steps=steps, method=method, trajectory=True)[1]

    def at(states: Tensor) -> Tensor:
        n = min(int(time * steps), steps - 1)
        return torch.lerp(states[n], states[n + 1], time * steps - n)

    back, front = "", ""
    wide = window if two else 1.5 * window
    if "grid" in show:
        across, up = (torch.arange(-w, w + 0.01, 0.25, dtype=torch.float64) for w in (wide, window))
        upright = torch.cartesian_prod(across[::2], up).reshape(-1, len(up), 2)
        level = torch.cartesian_prod(up[::2], across).flip(1).reshape(-1, len(across), 2)
        for lines in (upright, level):
            image = at(carried(lines.reshape(-1, 2))).reshape(lines.shape)
            back += _stroke("muted", 1, _polylines(image), ' opacity=".6"')
    arrows = ""
    if "arrows" in show:
        side = torch.arange(0.25 - 2 * window, 2 * window, 0.5, dtype=torch.float64)
        x = torch.cartesian_prod(side[side.abs() < 1.6 * window], side[side.abs() < window])
        v = field(x, time)
        v = v * (0.5 / v.norm(dim=1).quantile(0.9)).clamp(max=1e9)
        v = v * (0.9 / v.norm(dim=1, keepdim=True).clamp(min=0.9))
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
        tip = x + v / 2
        arrows = _polylines(torch.stack([x - v / 2, tip], 1))
        arrows += _polylines(torch.stack([tip - 0.3 * v + 0.15 * v @ turn, tip, tip - 0.3 * v - 0.15 * v @ turn], 1))
        arrows = _stroke("truth", 1.2, arrows, ' opacity=".6"')
    if len(points):
        states = carried(points)
        if "trajectories" in show:
            front += _stroke("path", 1.5, _polylines(states.transpose(0, 1)), f' opacity="{max(0.25, min(1, 60 / len(points))):.2g}"')
        dots = (100 * at(states)).round().long().tolist()
        front += _stroke("path", 10 if len(points) <= 120 else 5, "".join(f"M{x} {-y}h0" for x, y in dots))
    return back + ("" if two else arrows) + front, arrows if two else ""
