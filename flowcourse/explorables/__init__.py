"""Explorables: figures that the reader operates in the page, with no kernel, no network and no widget manager.

An `Explorable` displays as one piece of HTML: panels to draw in, native controls, a line of text that says what the
numbers are, a caption, and the scripts of the engine (`engine.js`) and of its scene (in `flowcourse/scenes`). Where V8
is installed it also holds a still picture of every panel, the scene's own first one, for print and where scripts do
not run. Equal inputs give equal HTML, so executed books can be reproduced.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowcourse import assets
from flowcourse.explorables import still
from flowlib.solvers import Tableau

Size = tuple[int, int]


@dataclass(frozen=True)
class Panel:
    """A canvas of an explorable.

    Args:
        label: what it shows, for who cannot see it.
        wide, narrow: its size in pixels where text is 720 wide, and on a phone; elsewhere it keeps the shape.
        name: a heading in HTML.
        drawable: whether the reader's hand does something on it; then the Tab key finds it.
        framed: whether it has an edge.
        later: whether it stands after the controls on a phone, and the legend after it.
    """

    label: str
    wide: Size = (720, 450)
    narrow: Size = (354, 332)
    name: str = ""
    drawable: bool = False
    framed: bool = True
    later: bool = False

    def html(self, pictures: tuple[str, str] | None) -> str:
        """The canvas over its still pictures, wide and narrow."""
        kind = 'tabindex="0" role="application"' if self.drawable else 'role="img"'
        label = f'aria-label="{escape(self.label)}"'
        heading = f'<p class="flow-name">{self.name}</p>' if self.name else ""
        shapes = ";".join(
            f"--flow-{at}:{w}/{h}" for at, (w, h) in (("wide", self.wide), ("narrow", self.narrow))
        )
        drawn = ""
        if pictures:
            for at, (w, h), picture in zip(
                ("wide", "narrow"), (self.wide, self.narrow), pictures, strict=True
            ):
                box = f'viewBox="0 0 {still.FINE * w} {still.FINE * h}" aria-hidden="true"'
                drawn += f'<svg class="flow-at-{at}" {box}>{picture}</svg>'
            drawn = f'<div class="flow-still" role="img" {label}>{drawn}</div>'
        framed = " flow-framed" if self.framed else ""
        paper = (
            f'<div class="flow-paper{framed}" style="{shapes}">{drawn}<canvas {kind} {label}></canvas></div>'
        )
        later = " flow-later" if self.later else ""
        return f'<div class="flow-panel{later}">{heading}{paper}</div>'


@dataclass(frozen=True)
class Control:
    """HTML of one or more controls, and the values with which they start."""

    html: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explorable:
    """An interactive figure, which a notebook displays.

    Args:
        scene: the name of its file and function in `flowcourse/scenes`.
        spec: what the scene is told; JSON.
        controls: what the reader turns.
        description: what a reader who cannot see the figure should know.
        panels: rows of panels.
        stage: HTML before them.
        title: a short heading above it.
        legend: pairs of a sample (SVG) and what it stands for.
        caption: an invitation to try something, and what will be seen.
        lines: how many lines of text the numbers take on a wide page; 0 if the stage has a place for them.
    """

    scene: str
    spec: Mapping[str, Any]
    controls: Sequence[Control]
    description: str
    panels: Sequence[Sequence[Panel]] = ()
    stage: str = ""
    title: str | None = None
    legend: Iterable[tuple[str, str]] = ()
    caption: str | None = None
    lines: int = 1

    @property
    def values(self) -> dict[str, Any]:
        """The values of all controls at first, by name."""
        return {name: value for control in self.controls for name, value in control.values.items()}

    def stills(self) -> tuple[list[tuple[str, str]], str] | None:
        """The wide and the narrow picture of every panel, and the line of text; None where V8 is missing."""
        flat = [panel for row in self.panels for panel in row]
        if not flat or not still.available():
            return None
        wide, narrow = (
            still.recorded(self.scene, _json(self.spec), _json(self.values), _json(sizes))
            for sizes in ([panel.wide for panel in flat], [panel.narrow for panel in flat])
        )
        return list(zip(wide[0], narrow[0], strict=True)), wide[1]

    def _repr_html_(self) -> str:
        pictures, said = self.stills() or ([], "")
        left = iter(pictures)
        rows = self.stage + "".join(
            f'<div class="flow-stage" style="--flow-columns:{" ".join(f"{panel.wide[0]}fr" for panel in row)}">'
            f"{''.join(panel.html(next(left, None)) for panel in row)}</div>"
            for row in self.panels
        )
        title = f'<p class="flow-title">{escape(self.title)}</p>' if self.title else ""
        legend = "".join(f"<span>{sample}{escape(words)}</span>" for sample, words in self.legend)
        legend = f'<p class="flow-legend">{legend}</p>' if legend else ""
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        readout = ""
        if self.lines:
            said = escape(said)
            readout = (
                f'<p class="flow-readout" style="--flow-lines:{self.lines}" aria-hidden="true">{said}</p>'
            )
        body = (
            f"{title}{rows}{legend}"
            f'<div class="flow-controls">{"".join(control.html for control in self.controls)}</div>'
            f'{readout}<p class="flow-heard" aria-live="polite"></p>{caption}'
        )
        spec = _json(self.spec).replace("<", r"\u003c")
        name = hashlib.sha256(f"{self.scene}{body}{spec}".encode()).hexdigest()[:10]
        mount = f'flowcourse.engine.mount("{name}", flowcourse.{self.scene}.{self.scene}, {spec});'
        return (
            assets.style("explorables/explorable.css", ".flow-explorable")
            + f'<figure class="flow-explorable" data-flow-explorable="{name}">{body}</figure>'
            + assets.scripts("explorables/engine.js", f"scenes/{self.scene}.js", then=mount)
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": f"[Interactive figure: {self.description}]"}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def encode16(points: Tensor | np.ndarray) -> str:
    """The numbers as base64 of little-endian float16, of 3 digits; `decode16` of numerics.js is the inverse."""
    return base64.b64encode(
        np.asarray(torch.as_tensor(points).detach().cpu(), dtype="<f2").tobytes()
    ).decode()


def table(method: Tableau) -> dict[str, Any]:
    """A method as `advance` of numerics.js takes it."""
    return {"a": method.a, "b": method.b, "c": method.c}


def require(good: bool, message: str) -> None:
    """Raise ValueError unless it is good."""
    if not good:
        raise ValueError(message)


# Controls


def range_control(
    name: str,
    label: str,
    symbol: str,
    value: float,
    *,
    top: float = 1.0,
    low: float = 0.0,
    digits: int = 2,
    moments: int | None = None,
) -> Control:
    """A slider over [low, top], which a scene reads as `values[name]`.

    Who asked for less motion goes through it in so many moments, or in eight.
    """
    attributes = (
        f'data-digits="{digits}" min="{low:g}" max="{top:g}" step="{10**-digits:g}" value="{value:g}"'
    )
    if moments:
        attributes += f' data-moments="{moments}"'
    return _slider(name, label, symbol, attributes, round(value, digits))


def stops_control(name: str, label: str, symbol: str, values: Sequence[Any], value: Any) -> Control:
    """A slider that stops at listed values."""
    listed = escape(json.dumps(list(values)))
    attributes = f'max="{len(values) - 1}" value="{list(values).index(value)}" data-values="{listed}"'
    return _slider(name, label, symbol, attributes, value)


def _slider(name: str, label: str, symbol: str, attributes: str, value: Any) -> Control:
    lettered = f"{escape(label)} <i>{escape(symbol)}</i>" if symbol else escape(label)
    html = (
        f'<div class="flow-control"><label><span>{lettered}</span>'
        f'<input type="range" data-control="{name}" {attributes}></label><output aria-hidden="true"></output></div>'
    )
    return Control(html, {name: value})


def select_control(name: str, label: str, options: Iterable[str]) -> Control:
    """A list to choose from; the first is chosen at first. With one there is no choice, and nothing to see."""
    options = list(options)
    if len(options) < 2:
        return Control("")
    items = "".join(f"<option>{escape(option)}</option>" for option in options)
    select = f'<select data-control="{name}">{items}</select>'
    html = f'<div class="flow-control flow-list"><label><span>{label}</span>{select}</label></div>'
    return Control(html, {name: options[0]})


def boxes_control(label: str, options: Mapping[str, bool]) -> Control:
    """A group of boxes to tick: names, and which are ticked at first."""
    items = "".join(
        f'<label><input type="checkbox" data-control="{name}"{" checked" * shown}>{name}</label>'
        for name, shown in options.items()
    )
    html = f'<div class="flow-control flow-show" role="group" aria-label="{label}"><span>{label}</span>{items}</div>'
    return Control(html, options)


def row(*controls: Control) -> Control:
    """Controls in a row of their own."""
    html = "".join(control.html for control in controls)
    values = {name: value for control in controls for name, value in control.values.items()}
    return Control(f'<div class="flow-time">{html}</div>', values)


def layers_control(shown: Sequence[str], layers: Sequence[str]) -> Control:
    """Boxes for the layers of a picture, of which some are shown at first.

    Raises:
        ValueError: a layer that there is not.
    """
    unknown = sorted(set(shown) - set(layers))
    require(not unknown, f"show can hold {', '.join(layers)}, got {unknown}")
    return boxes_control("Show", {layer: layer in shown for layer in layers})


PLAY = Control(
    '<button type="button" class="flow-play"><svg viewBox="0 0 18 18" aria-hidden="true">'
    '<path d="M4 2l12 7-12 7z"/><path d="M3 2h4v14H3zM11 2h4v14h-4z"/></svg></button>'
)
RESET = Control('<button type="button" class="flow-reset">Reset</button>')
CLEAR = Control('<button type="button" class="flow-clear">Clear</button>')


# Legends

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


def legend_entries(*entries: tuple[str, str, str]) -> tuple[tuple[str, str], ...]:
    """Samples in their role's color, and what they stand for."""
    box = '<svg viewBox="0 0 24 12" style="color:var(--flow-{})" aria-hidden="true">{}</svg>'
    return tuple((box.format(role, sample), words) for role, sample, words in entries)
