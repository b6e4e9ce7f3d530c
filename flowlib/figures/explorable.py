"""Explorables: figures that the reader operates in the page, with no kernel, no network and no widget manager.

An `Explorable` displays as one piece of HTML: a still picture (for print and where scripts do not run), native
controls, a line of text that says what the numbers are, a caption, and one module script made of `js/numerics.js`,
`js/engine.js` and a scene from `js/scenes/`. Equal inputs give equal HTML, so executed books can be reproduced.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from flowlib.data import GaussianMixture, MarginalVelocity
from flowlib.fields import Field, Linear, TravelingVortex
from flowlib.figures.palette import LIGHT, css
from flowlib.figures.svg import STYLE, Shown
from flowlib.paths import linear
from flowlib.solvers import EULER, MIDPOINT, RK4, Tableau, odeint

__all__ = ["Explorable", "encode16", "flow_explorer", "frames_explorable", "spacetime_explorer"]


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
    """The module of one scene: what it imports, the engine and itself in one piece, compacted."""
    sources = files("flowlib.figures") / "js"
    text = (sources / "scenes" / f"{scene}.js").read_text(encoding="utf-8")
    for name in ("engine", "numerics"):  # in reverse, for each is put before the rest
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
    """JavaScript without comments and idle spaces. It must hold no regular expressions and no text with ' //'."""

    def shorter(token: re.Match[str]) -> str:
        return token["string"] or token["open"] or token["close"] or token["sign"] or "\n"

    return TOKEN.sub(shorter, re.sub(r"(^|\s)//[^\n]*", "\n", source)).strip()


@cache
def _style() -> str:
    text = (files("flowlib.figures") / "js" / "explorable.css").read_text(encoding="utf-8")
    return re.sub(r"\s*([{};:,])\s*", r"\1", text.replace("\n", "")).replace(";}", "}")


def encode16(points: Tensor | np.ndarray) -> str:
    """The numbers as base64 of little-endian float16, of 3 digits; `decode16` of numerics.js is the inverse."""
    return base64.b64encode(np.asarray(points, dtype="<f2").tobytes()).decode()


def rounded16(points: Tensor) -> Tensor:
    """Points as the reader's browser has them: rounded to float16, in float64."""
    return points.detach().cpu().to(torch.float16).double()


# Controls


def _range(
    name: str, label: str, symbol: str, value: float, *, top: float = 1.0, low: float = 0.0, digits: int = 2
) -> str:
    step = 10**-digits
    return _slider(
        name, label, symbol, f'min="{low:g}" max="{top:g}" step="{step:g}" value="{value:g}"', digits
    )


def _stops(name: str, label: str, symbol: str, values: Sequence[Any], value: Any) -> str:
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


def _select(name: str, label: str, options: Iterable[str]) -> str:
    items = "".join(f"<option>{escape(option)}</option>" for option in options)
    select = f'<select data-control="{name}">{items}</select>'
    return f'<div class="flow-control"><label><span>{label}</span>{select}</label></div>'


def _boxes(label: str, options: Mapping[str, bool]) -> str:
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


def _panel(still: str, label: str, name: str = "", *, drawable: bool = False) -> str:
    kind = 'tabindex="0" role="application"' if drawable else 'role="img"'
    heading = f'<p class="flow-name">{name}</p>' if name else ""
    canvas = f'<canvas {kind} aria-label="{escape(label)}"></canvas>'
    return f'<div class="flow-panel">{heading}<div class="flow-paper">{still}{canvas}</div></div>'


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
    described = {name: _described(name, field) for name, field in fields.items()}
    mixtures = [name for name, d in described.items() if d["kind"] == "mixture"]
    if extra not in (None, "swirl"):
        raise ValueError(f'extra must be None or "swirl", got {extra!r}')
    if extra and len(mixtures) < len(fields):
        raise ValueError(
            f"a swirl can be added to mixtures' fields only, not to {sorted(set(fields) - set(mixtures))}"
        )
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
    left, right = _still_flow(
        next(iter(fields.values())),
        rounded16(points),
        methods[0],
        steps,
        show,
        two,
        window,
        time,
        len(methods) > 1,
    )
    if two:
        stage = _panel(
            _svg(left, window, description),
            f"The flow. {description} {hint}",
            "<b>Flow</b> <i>ϕ<sub>t</sub></i>: where they are",
            drawable=True,
        )
        stage += _panel(
            _svg(right, window, "Arrows of the velocity field."),
            "The velocity field at the same time, as arrows.",
            "<b>Vector field</b> <i>v<sub>t</sub></i>: where they are going",
        )
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
    legend = [("path", DOTS, "points at t = 0, on their way, at t = 1")]
    if not two:
        legend = [
            ("source", RING, "start x₀"),
            ("path", LINE, "trajectory"),
            ("path", DOTS, "point at time t, from 0 to 1"),
        ]
    if extra:
        legend.append(("muted", SHADE, "density"))
    if not two and len(methods) > 1:
        legend.append(("truth", DASHES, "exact, where the solver is visibly off"))
    return Explorable(
        "flow",
        spec,
        f'<div class="flow-stage{" flow-two" * two}">{stage}</div>',
        controls,
        description,
        title,
        _legend(legend),
        caption,
    )


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


def _legend(entries: Iterable[tuple[str, str, str]]) -> tuple[tuple[str, str], ...]:
    """Samples in their role's color, and what they stand for."""
    box = '<svg viewBox="0 0 24 12" style="color:var(--flow-{})" aria-hidden="true">{}</svg>'
    return tuple((box.format(role, sample), words) for role, sample, words in entries)


def _table(method: Tableau) -> dict[str, Any]:
    return {"a": method.a, "b": method.b, "c": method.c}


def _described(name: str, field: Field) -> dict[str, Any]:
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
        f"the browser cannot compute the field {name!r}: {field!r}. It knows Linear fields of the plane, "
        "TravelingVortex, and GaussianMixture(...).marginal_velocity(linear) in the plane with the source N(0, I)"
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


def _dots(points: Tensor) -> str:
    """One SVG path of points (B, 2): segments of length zero, which round caps make dots."""
    return "".join(f"M{x} {-y}h0" for x, y in (100 * points).round().long().tolist())


def _stroke(role: str, width: float, path: str, more: str = "") -> str:
    return f'<path stroke="var(--flow-{role})" stroke-width="{width:g}" d="{path}"{more}/>'


def _still_flow(
    field: Field,
    points: Tensor,
    method: Tableau,
    steps: int,
    show: Sequence[str],
    two: bool,
    window: float,
    time: float,
    choice: bool,
) -> tuple[str, str]:
    """What the scene draws at first: SVG of the left panel's layers and of the arrows."""

    def carried(x: Tensor) -> Tensor:
        return odeint(field, x, steps=steps, method=method, trajectory=True)[1]

    def at(states: Tensor) -> Tensor:
        n = min(int(time * steps), steps - 1)
        return torch.lerp(states[n], states[n + 1], time * steps - n)

    back, front = "", ""
    if "density" in show and isinstance(field, MarginalVelocity):
        back += _shading(field.mixture.marginal(linear, time), window)
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
        ticks = torch.arange(0.25 - 2 * math.ceil(window), 2 * window, 0.5, dtype=torch.float64)
        x = torch.cartesian_prod(ticks[ticks.abs() < 1.6 * window], ticks[ticks.abs() < window])
        v = field(x, time)
        v = v * (0.5 / v.norm(dim=1).quantile(0.9)).clamp(max=1e9)
        v = v * (0.9 / v.norm(dim=1, keepdim=True).clamp(min=0.9))
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
        tip = x + v / 2
        back_of_head = v * (0.13 / v.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=0.4)
        neck, side = tip - back_of_head, 0.45 * back_of_head @ turn
        strands = _polylines(torch.stack([x - v / 2, tip], 1)) + _polylines(
            torch.stack([neck + side, tip, neck - side], 1)
        )
        arrows = _stroke("truth", 1.2, strands, f' opacity="{0.85 if two else 0.5}"')
    if len(points):
        states = carried(points)
        paths = states[torch.linspace(0, steps, min(steps, 16) + 1).round().long()].transpose(0, 1)
        if "trajectories" in show:
            faint = f' opacity="{min(1, (50 / len(points)) ** 0.5):.2g}"'
            front += _stroke("path", 1.5, _polylines(paths), faint)
            if choice and len(points) <= 50:
                exact = odeint(field, points, steps=64, method=RK4, trajectory=True)[1][::2].transpose(0, 1)
                front += _stroke("truth", 1, _polylines(exact), ' stroke-dasharray="2 5" opacity=".7"')
            front += _stroke("source", 7 if len(points) <= 50 else 3, _dots(points))
        front += _stroke("path", 10 if len(points) <= 50 else 5, _dots(at(states)))
    return back + ("" if two else arrows) + front, arrows if two else ""


def _shading(law: GaussianMixture, window: float) -> str:
    """The density as an image, from clear to gray at its peak."""
    w, h = 1.6 * window, window
    across, down = torch.linspace(-w, w, 80).double(), torch.linspace(h, -h, 50).double()
    log = law.log_prob(torch.cartesian_prod(down, across).flip(1).to(law.means)).reshape(50, 80)
    alpha = (150 * (log - log.max()).exp()).round().to(torch.uint8).numpy()
    rgb = np.array([int(LIGHT["muted"][i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    pixels = np.dstack([np.broadcast_to(rgb, (50, 80, 3)), alpha])
    buffer = io.BytesIO()
    plt.imsave(buffer, pixels, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    box = f'x="{-100 * w:g}" y="{-100 * h:g}" width="{200 * w:g}" height="{200 * h:g}"'
    return f'<image href="data:image/png;base64,{data}" {box} preserveAspectRatio="none"/>'


# Space-time


def _forced(x: Tensor, t: Tensor | float) -> Tensor:
    return 2 * math.sin(3 * float(t)) - x


SCALARS: dict[str, tuple[str, float, float, Field]] = {  # label, the two starts, velocity
    "forced": ("x′ = 2 sin 3t − x", 1.5, -1.0, _forced),
    "root": ("x′ = √|x|", 0.0, -0.5, lambda x, t: x.abs().sqrt()),
    "square": ("x′ = x²", 1.0, -0.5, lambda x, t: x.square()),
}


def spacetime_explorer(
    fields: Sequence[str] = ("forced", "root", "square"),
    *,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Solutions of x' = v(x, t) on the line against time, from two starts that the reader drags.

    Args:
        fields: which to choose from. "forced" is x' = 2 sin 3t - x, Lipschitz: solutions exist, are unique and never
            meet. "root" is x' = sqrt|x|, not Lipschitz at 0: solutions meet there, and may wait until any time tau.
            "square" is x' = x^2, Lipschitz only locally: the solution from x_0 > 0 ends at t* = 1 / x_0.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: no field, or an unknown one.
    """
    if not fields or set(fields) - set(SCALARS):
        raise ValueError(f"fields can hold {', '.join(SCALARS)}, got {list(fields)}")
    end, low, high, time = 3.0, -1.5, 2.5, 1.0
    if description is None:
        description = (
            "Time t runs to the right and position x upwards, with short arrows for the slope of solutions "
            "everywhere. Two curves start at t = 0, a circle and a square, at heights that the reader chooses."
        )
    _, a, b, v = SCALARS[fields[0]]
    controls = f'<div class="flow-time">{PLAY}{_range("t", "Time", "t", time, top=end)}{RESET}</div>'
    if len(fields) > 1:
        controls += _select("field", "Field", [SCALARS[name][0] for name in fields])
    controls += _range("a", "Circle starts at", "x₀", a, low=low, top=high)
    controls += _range("b", "Square starts at", "x₀", b, low=low, top=high)
    if "root" in fields:
        controls += _range("tau", "Waiting until", "τ", 1.0, top=end)

    # The still picture lies in the panel without its margin, which it fills: t and x need no common scale.
    places = torch.cartesian_prod(torch.arange(0.1, end, 0.2), torch.arange(low + 0.1, high, 0.2)).double()
    slopes = torch.stack([v(x[None], t)[0] for t, x in places])
    directions = torch.nn.functional.normalize(torch.stack([torch.ones_like(slopes), slopes], dim=1)) / 16
    drawn = _stroke("ink", 1, f"M0 {-100 * high:g}V{-100 * low:g}H{100 * end:g}", ' opacity=".6"')
    drawn += _stroke("muted", 1, _polylines(torch.stack([places - directions, places + directions], dim=1)))
    start = torch.tensor([[a], [b]], dtype=torch.float64)
    times, states = odeint(v, start, t1=0.99 * end, steps=90, method=RK4, trajectory=True)
    for role, x in zip(("source", "data"), states.squeeze(-1).T, strict=True):
        curve = torch.stack([times, x], dim=1)[x < 2 * high][None, ::3]
        cap = ' stroke-linecap="square"' * (role == "data")
        drawn += _stroke(role, 3, _polylines(curve)) + _stroke(role, 16, f"M0 {-100 * x[0]:.0f}h0", cap)
    still = (
        f'<svg class="flow-still flow-inset" viewBox="0 {-100 * high:g} {100 * end:g} {100 * (high - low):g}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(description)}" fill="none" '
        f'stroke-linecap="round">{drawn}</svg>'
    )
    legend = [("source", DOT, "from the circle"), ("data", SQUARE, "from the square")]
    if "root" in fields:
        legend.append(("path", LINE, "other solutions from the same start"))
    if "square" in fields:
        legend.append(("error", DASHES, "where a solution ends"))
    described = {
        SCALARS[name][0]: {"kind": name, "a": SCALARS[name][1], "b": SCALARS[name][2]} for name in fields
    }
    return Explorable(
        "spacetime",
        {"fields": described, "end": end, "low": low, "high": high},
        f'<div class="flow-stage">{_panel(still, description)}</div>',
        controls,
        description,
        title,
        _legend(legend),
        caption,
    )


# Frames


class Choice(Protocol):
    """What a slider over listed values is: `flowlib.course.slider` makes one."""

    @property
    def label(self) -> str:
        """What it chooses, in words."""

    @property
    def symbol(self) -> str:
        """Its letter in the text."""

    @property
    def values(self) -> Sequence[Any]:
        """Numbers or texts, in order."""

    @property
    def default(self) -> Any:
        """The value to start with."""


def frames_explorable(
    choice: Choice, frames: Sequence[Shown], *, title: str | None = None, caption: str | None = None
) -> Explorable:
    """Pictures made in advance, one for each value of a slider.

    Args:
        choice: the slider: its label, its symbol, its values (numbers or texts) and the one to start with.
        frames: for each value what `show` returned, with its description.
        title, caption: texts above and below; without a caption, that of the first frame.

    Raises:
        ValueError: not one frame for each value.
        TypeError: a frame that does not come from `show`.
    """
    if len(frames) != len(choice.values):
        raise ValueError(f"need one frame for each of the {len(choice.values)} values, got {len(frames)}")
    for frame in frames:
        if not isinstance(frame, Shown):
            raise TypeError(f"frames must be what show(figure, alt=...) returns, got {type(frame).__name__}")
    first = list(choice.values).index(choice.default)
    pictures = [
        f'<div class="flow-panels" role="img" aria-label="{escape(frame.alt)}">{"".join(frame.svgs)}</div>'
        for frame in frames
    ]
    shared = re.findall(r"<path\b[^>]*? d=\"([^\"]*)\"", pictures[first])  # one for each path, in order
    waiting = "".join(f"<template>{_without(shared, picture)}</template>" for picture in pictures)
    return Explorable(
        "frames",
        {"symbol": choice.symbol, "values": list(choice.values), "first": first},
        f'<style>{STYLE}</style><div class="flow-frames">{pictures[first]}{waiting}</div>',
        _stops("frame", choice.label, choice.symbol, choice.values, choice.default),
        f"{choice.label}, {choice.symbol} = {choice.default}: {frames[first].alt}",
        title,
        (),
        caption or frames[0].caption,
    )


def _without(shared: list[str], picture: str) -> str:
    """The picture, with paths that are among the shared ones named by their number."""

    def shorter(path: re.Match[str]) -> str:
        return f' data-same="{shared.index(path[1])}"' if len(path[1]) > 40 and path[1] in shared else path[0]

    return re.sub(r' d="([^"]*)"', shorter, picture)
