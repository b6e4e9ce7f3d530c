"""The density along a trajectory: what a small square of area tells of it, and what the divergence adds up to."""

from __future__ import annotations

import math
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SHADE,
    SQUARE,
    Explorable,
    boxes_control,
    dots,
    haze,
    legend_entries,
    panel,
    polylines,
    range_control,
    stroke,
    table,
)
from flowcourse.figures.explorable import arrows as arrow_paths
from flowcourse.figures.scenes.flow import described_field
from flowlib.fields import Field
from flowlib.mixtures import MarginalVelocity
from flowlib.solvers import RK4, trajectory

STEPS = 128  # of RK4 from t = 0 to t = 1


def density_explorer(
    field: Field,
    *,
    start: tuple[float, float] = (1.2, 0.5),
    time: float = 0.5,
    window: float = 3.2,
    side: float = 0.5,
    arrows: bool = True,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """A point that a field carries, the density where it is, and a small square of area about it:

        d/dt log p_t(x) = -div v_t(x),      d/dt F = Dv_t(x) F,      p_t(x) det F = p_0(x_0).

    In the plane the reader drags the start x_0. The square is carried by the linearized flow F. The chart shows
    log p_t(x), from the mixture's formula, under log p_0(x_0) - int div v dt, which together with F and x is
    integrated by RK4 with 128 steps and the exact Jacobian matrix of the field.

    Args:
        field: the marginal velocity of the linear path from N(0, I) to a Gaussian mixture in the plane.
        start: where the trajectory starts at first.
        time: the time at which the figure opens.
        window: half the height of what is seen of the plane, in its units.
        side: of the square at t = 0.
        arrows: whether the field's arrows are shown at first.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        TypeError: another field.
        ValueError: a start, time, window or side out of range.
    """
    described = described_field("field", field)
    if not isinstance(field, MarginalVelocity):
        raise TypeError(
            "the densities are those of GaussianMixture(...).marginal_velocity(linear) only, "
            f"got the field {field!r}"
        )
    if not 0 < window < math.inf:
        raise ValueError(f"window must be positive, got {window}")
    if len(start) != 2 or not all(abs(x) <= window for x in start):
        raise ValueError(f"start must be two numbers within the window of {window}, got {start}")
    if not 0 <= time <= 1:
        raise ValueError(f"time must be in [0, 1], got {time}")
    if not 0 < side <= window:
        raise ValueError(f"side must be in (0, {window}], got {side}")
    if description is None:
        description = (
            "A point of the plane on its trajectory from a round cloud to a mixture, with a small square that the flow "
            "turns into a parallelogram, over the density at the same time t. Where the density at the point grows, "
            "the area shrinks."
        )
    chart = (
        "log p along the trajectory against t, a solid line, under a dashed line for the logarithm of the density at "
        "the start minus the integral of the divergence: the two coincide."
    )
    states = carried(field, torch.tensor(start, dtype=torch.float64))
    hint = "Arrow keys move the start, with Shift by larger steps."
    stage = panel(
        _plane(field, states, window, time, side, arrows, description),
        f"{description} {hint}",
        "<b>Plane</b>: the point, and area about it",
        drawable=True,
    )
    stage += panel(_chart(field, states, time, chart), chart, "<b>log <i>p</i></b> along the trajectory")
    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", time)}{RESET}</div>'
    controls += boxes_control("Show", {"density": True, "arrows": arrows})
    legend = [
        ("source", DOT, "start x₀: drag it"),
        ("path", LINE, "trajectory"),
        ("data", SQUARE, "area carried along"),
        ("muted", SHADE, "density pₜ"),
        ("truth", LINE, "log pₜ where the point is"),
        ("path", DASHES, "log p₀(x₀) − ∫ div v dt"),
    ]
    mixture = {key: described[key] for key in ("weights", "means", "covariances")}
    return Explorable(
        "density",
        {
            "mixture": mixture,
            "reference": table(RK4),
            "start": list(start),
            "window": window,
            "side": side,
        },
        f'<div class="flow-stage flow-solver">{stage}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )


def carried(field: Field, start: Tensor) -> Tensor:
    """The states (x_1, x_2, F_11, F_12, F_21, F_22, -int div v dt) (STEPS + 1, 7) from a start (2,), with F from
    central differences of the flow and the integral as log det F.
    """
    near = 1e-4 * torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], dtype=start.dtype)
    states = trajectory(field, start + near, steps=STEPS, method=RK4)[1]
    F = ((states[:, 1:3] - states[:, 3:]) / 2e-4).mT
    return torch.cat([states[:, 0], F.flatten(1), -F.det().log()[:, None]], dim=1)


def _plane(
    field: MarginalVelocity, states: Tensor, window: float, time: float, side: float, arrows: bool, alt: str
) -> str:
    """What the plane shows at first, as SVG."""
    w, h = 1.2 * window, window
    across, down = torch.linspace(-w, w, 60).double(), torch.linspace(h, -h, 50).double()
    places = torch.cartesian_prod(down, across).flip(1)
    log = field.log_prob(places, time).reshape(50, 60)
    drawn = haze(log, f'x="{-100 * w:g}" y="{-100 * h:g}" width="{200 * w:g}" height="{200 * h:g}"')
    if arrows:
        ticks = torch.arange(-6.5, 7, dtype=torch.float64) * (window / 5)
        x = torch.cartesian_prod(ticks, ticks[1:-1])
        v = field(x, time)
        v = v * (window / 5) / (2 + v.norm(dim=1, keepdim=True))
        drawn += stroke("truth", 1.1, arrow_paths(x - v / 2, v), ' opacity=".5"')
    n = min(int(time * STEPS), STEPS - 1)
    now = torch.lerp(states[n], states[n + 1], time * STEPS - n)
    corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], dtype=torch.float64) * side / 2

    def square(state: Tensor) -> str:
        return polylines((state[:2] + corners @ state[2:6].reshape(2, 2).T)[None])

    drawn += stroke(
        "path", 2.5, polylines(torch.cat([now[None, :2], states[n + 1 :, :2]])[None]), ' opacity=".4"'
    )
    drawn += stroke("path", 2.5, polylines(torch.cat([states[: n + 1, :2], now[None, :2]])[None]))
    drawn += stroke("source", 1.5, square(states[0]), ' stroke-dasharray="3 4"')
    drawn += f'<path fill="var(--flow-data)" opacity=".3" d="{square(now)}"/>' + stroke(
        "data", 2, square(now)
    )
    drawn += stroke("source", 14, dots(states[:1, :2])) + stroke("path", 10, dots(now[None, :2]))
    size = round(100 * window)
    return (
        f'<svg class="flow-still" viewBox="{-1.2 * size:g} {-size} {2.4 * size:g} {2 * size}" '
        f'preserveAspectRatio="xMidYMid slice" role="img" aria-label="{escape(alt)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round">{drawn}</svg>'
    )


def _chart(field: MarginalVelocity, states: Tensor, time: float, alt: str) -> str:
    """What the chart shows at first, as SVG, in pixels."""
    times = torch.linspace(0, 1, STEPS + 1).tolist()
    exact = [field.log_prob(x[None], t).item() for x, t in zip(states[:, :2], times, strict=True)]
    found = (exact[0] + states[:, 6]).tolist()
    low = math.floor(min(*found, *exact) - 0.2)
    high = max(low + 3, math.ceil(max(*found, *exact) + 0.2))
    width, height, margin = 290.0, 380.0, 34.0

    def place(t: float, y: float) -> tuple[float, float]:
        return margin + (t + 0.03) / 1.08 * (width - margin), (high - y) / (high - low) * (height - margin)

    def line(values: list[float]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in map(place, times[::4], values[::4]))

    def text(words: str, x: float, y: float, anchor: str = "middle") -> str:
        words = words.replace("-", "−")
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="var(--flow-muted)">{words}</text>'

    drawn = stroke("ink", 1, f"M{margin:g} 0V{height - margin:g}H{width:g}", ' opacity=".6"')
    for k in range(low + 1, high, math.ceil((high - low) / 9)):
        drawn += text(str(k), 28, place(0, k)[1] + 4, "end")
    for t, label in ((0, "0"), (0.5, "½"), (1, "1")):
        drawn += text(label, place(t, low)[0], height - 16)
    drawn += text("t", place(0.75, low)[0], height - 16)
    now = place(time, found[round(time * STEPS)])
    drawn += stroke("muted", 1.5, f"M{now[0]:.1f} 0V{height - margin:g}", ' stroke-dasharray="2 4"')
    drawn += stroke("truth", 5, line(exact), ' opacity=".4"')
    drawn += stroke("path", 2.5, line(found), ' stroke-dasharray="7 6"')
    first = place(0, found[0])
    drawn += stroke("source", 11, f"M{first[0]:.1f} {first[1]:.1f}h0")
    drawn += stroke("path", 10, f"M{now[0]:.1f} {now[1]:.1f}h0")
    return (
        f'<svg class="flow-still" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alt)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round" font-size="12" font-family="system-ui, sans-serif">'
        f"{drawn}</svg>"
    )
