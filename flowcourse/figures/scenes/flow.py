"""The flow explorer: a plane that a field carries along, with its grid, points, trajectories and arrows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    CLEAR,
    DASHES,
    DOTS,
    LINE,
    PLAY,
    RESET,
    RING,
    SHADE,
    Explorable,
    boxes_control,
    dots,
    encode16,
    haze,
    legend_entries,
    panel,
    polylines,
    range_control,
    rounded16,
    select_control,
    stops_control,
    stroke,
    table,
)
from flowlib.data import GaussianMixture, MarginalVelocity
from flowlib.fields import Field, LinearField, TravelingVortex
from flowlib.paths import linear
from flowlib.solvers import EULER, MIDPOINT, RK4, Tableau, trajectory

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
        fields: the fields to choose from, by name: `LinearField`, `TravelingVortex`, or the marginal velocity of the
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
    described = {name: described_field(name, field) for name, field in fields.items()}
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
    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", time)}{RESET}{CLEAR}</div>'
    if len(fields) > 1:
        controls += select_control("field", "Field", fields)
    if len(methods) > 1:
        controls += select_control("method", "Solver", names)
        controls += stops_control("steps", "Steps", "N", sorted({*STEPS, steps}), steps)
    if extra:
        controls += range_control("swirl", "Swirl", "c", 0.0, low=-2.0, top=2.0, digits=1)
    if not two:
        controls += boxes_control("Show", {layer: layer in show for layer in layers})

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
        stage = panel(
            _svg(left, window, description),
            f"The flow. {description} {hint}",
            "<b>Flow</b> <i>ϕ<sub>t</sub></i>: where they are",
            drawable=True,
        )
        stage += panel(
            _svg(right, window, "Arrows of the velocity field."),
            "The velocity field at the same time, as arrows.",
            "<b>Vector field</b> <i>v<sub>t</sub></i>: where they are going",
        )
    else:
        stage = panel(_svg(left + right, window, description), f"{description} {hint}", drawable=True)
    spec = {
        "fields": described,
        "methods": {m.name: table(m) for m in methods},
        "reference": table(RK4),
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
        legend_entries(legend),
        caption,
    )


def described_field(name: str, field: Field) -> dict[str, Any]:
    """The field as `fields` of numerics.js takes it."""
    if isinstance(field, LinearField) and len(field.matrix) == 2:
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
        f"the browser cannot compute the field {name!r}: {field!r}. It knows LinearFields of the plane, "
        "TravelingVortex, and GaussianMixture(...).marginal_velocity(linear) in the plane with the source N(0, I)"
    )


def _svg(content: str, window: float, alt: str) -> str:
    w, h = round(160 * window), round(100 * window)
    return (
        f'<svg class="flow-still" viewBox="{-w} {-h} {2 * w} {2 * h}" preserveAspectRatio="xMidYMid slice" role="img" '
        f'aria-label="{escape(alt)}" fill="none" stroke-linecap="round" stroke-linejoin="round">{content}</svg>'
    )


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
        return trajectory(field, x, steps=steps, method=method)[1]

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
            back += stroke("muted", 1, polylines(image), ' opacity=".6"')
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
        strands = polylines(torch.stack([x - v / 2, tip], 1)) + polylines(
            torch.stack([neck + side, tip, neck - side], 1)
        )
        arrows = stroke("truth", 1.2, strands, f' opacity="{0.85 if two else 0.5}"')
    if len(points):
        states = carried(points)
        paths = states[torch.linspace(0, steps, min(steps, 16) + 1).round().long()].transpose(0, 1)
        if "trajectories" in show:
            faint = f' opacity="{min(1, (50 / len(points)) ** 0.5):.2g}"'
            front += stroke("path", 1.5, polylines(paths), faint)
            if choice and len(points) <= 50:
                exact = trajectory(field, points, steps=64, method=RK4)[1][::2].transpose(0, 1)
                front += stroke("truth", 1, polylines(exact), ' stroke-dasharray="2 5" opacity=".7"')
            front += stroke("source", 7 if len(points) <= 50 else 3, dots(points))
        front += stroke("path", 10 if len(points) <= 50 else 5, dots(at(states)))
    return back + ("" if two else arrows) + front, arrows if two else ""


def _shading(law: GaussianMixture, window: float) -> str:
    """The density as an image, from clear to gray at its peak."""
    w, h = 1.6 * window, window
    across, down = torch.linspace(-w, w, 80).double(), torch.linspace(h, -h, 50).double()
    log = law.log_prob(torch.cartesian_prod(down, across).flip(1).to(law.means)).reshape(50, 80)
    return haze(log, f'x="{-100 * w:g}" y="{-100 * h:g}" width="{200 * w:g}" height="{200 * h:g}"')
