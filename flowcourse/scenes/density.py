"""The density along a trajectory: what a small square of area tells of it, and what the divergence adds up to."""

from __future__ import annotations

import math

from flowcourse.explorables import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SHADE,
    SQUARE,
    Explorable,
    Panel,
    boxes_control,
    legend_entries,
    range_control,
    require,
    row,
    table,
)
from flowcourse.scenes.flow import described_field
from flowcourse.scenes.solver import CHART, PLANE, require_start
from flowlib.fields import Field
from flowlib.mixtures import MarginalVelocity
from flowlib.solvers import RK4


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
    require(0 < window < math.inf, f"window must be positive, got {window}")
    require_start(start, window)
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    require(0 < side <= window, f"side must be in (0, {window}], got {side}")
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
    return Explorable(
        "density",
        {
            "mixture": {key: described[key] for key in ("weights", "means", "covariances")},
            "reference": table(RK4),
            "start": list(start),
            "window": window,
            "side": side,
        },
        [
            row(PLAY, range_control("t", "Time", "t", time), RESET),
            boxes_control("Show", {"density": True, "arrows": arrows}),
        ],
        description,
        panels=[
            [
                Panel(
                    f"{description} Arrow keys move the start, with Shift by larger steps.",
                    **PLANE,
                    name="<b>Plane</b>: the point, and area about it",
                    drawable=True,
                ),
                Panel(chart, **CHART, name="<b>log <i>p</i></b> along the trajectory"),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("source", DOT, "start x₀: drag it"),
            ("path", LINE, "trajectory"),
            ("data", SQUARE, "area carried along"),
            ("muted", SHADE, "density pₜ"),
            ("truth", LINE, "log pₜ where the point is"),
            ("path", DASHES, "log p₀(x₀) − ∫ div v dt"),
        ),
        caption=caption,
        lines=2,
    )
