"""Two crowds: what flow matching shows a network, and what it should answer."""

from __future__ import annotations

import math
from typing import Any

import torch

from flowcourse.explorables import (
    DOTS,
    LINE,
    PLAY,
    RESET,
    RING,
    Explorable,
    Panel,
    encode16,
    legend_entries,
    range_control,
    require,
    row,
    table,
)
from flowcourse.scenes.averaging import ARROW
from flowcourse.scenes.flow import described_field
from flowcourse.scenes.solver import require_start
from flowlib.fields import Field
from flowlib.mixtures import MarginalVelocity
from flowlib.solvers import RK4

SHAFT = '<path d="M0 6h17" stroke="currentColor" stroke-width="1.6"/><path d="M24 6L15 2.5v7z" fill="currentColor"/>'


def crowds_explorer(
    field: Field,
    *,
    walkers: int = 320,
    place: tuple[float, float] = (-0.6, -0.7),
    radius: float = 0.5,
    time: float = 0.5,
    window: float = 4.2,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Two crowds that set out from the same noises, and a place where the reader asks who passes and where to:

        straight:  x_t = (1 - t) x_0 + t x_1,  pairs drawn at random;      following:  x' = E[x_1 - x_0 | x_t = x].

    The reader points at a place, in either plane. In the first one, arrows show the velocities x_1 - x_0 of the walkers
    within a radius of it; the large arrow is the average over all who could pass there, in closed form. The second
    crowd follows that average, by RK4 with 40 steps. The text line gives it beside the mean of those who do pass.

    Args:
        field: the marginal velocity of the linear path from N(0, I) to a Gaussian mixture in the plane.
        walkers: how many there are in each crowd.
        place: where the reader looks at first.
        radius: who is so near to it passes.
        time: the time at which the figure opens.
        window: half the height of what is seen of the plane, in its units.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        TypeError: another field.
        ValueError: no walkers, or a place, radius, time or window out of range.
    """
    described = described_field("field", field)
    if not isinstance(field, MarginalVelocity):
        raise TypeError(
            "crowds are those of GaussianMixture(...).marginal_velocity(linear) only, "
            f"got the field {field!r}"
        )
    require(walkers >= 1, f"need at least one walker, got {walkers}")
    require(0 < window < math.inf, f"window must be positive, got {window}")
    require_start(place, window)
    require(0 < radius <= window, f"radius must be in (0, {window}], got {radius}")
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    generator = torch.Generator().manual_seed(0)
    noises = torch.randn(walkers, 2, generator=generator)
    data = field.mixture.sample(walkers, generator=generator)
    if description is None:
        description = (
            f"Two crowds of {walkers} points at the same time t, on their way from noise to data. One walks in "
            "straight lines between random pairs, and its tails cross everywhere; the other follows the average "
            "velocity, and its tails bend apart. The clouds look alike."
        )
    first = (
        f"{description} Here is the first crowd. In a ring about a place arrows show the velocities of those who pass, "
        "in many directions, and one large arrow their average. Arrow keys move the place, with Shift by larger steps."
    )
    second = "The second crowd, which follows the average. In the ring at the same place there is one arrow."
    square: dict[str, Any] = {"wide": (354, 354), "narrow": (354, 272)}
    return Explorable(
        "crowds",
        {
            "mixture": {key: described[key] for key in ("weights", "means", "covariances")},
            "reference": table(RK4),
            "pairs": [encode16(noises), encode16(data)],
            "place": list(place),
            "radius": radius,
            "window": window,
        },
        [row(PLAY, range_control("t", "Time", "t", time), RESET)],
        description,
        panels=[
            [
                Panel(first, **square, name="<b>What the network is shown</b>", drawable=True),
                Panel(second, **square, name="<b>What it should answer</b>"),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("path", DOTS, "walkers at t = 0, on their way, at t = 1"),
            ("path", LINE, "where they come from"),
            ("ink", RING, "the place"),
            ("path", SHAFT, "velocities of those who pass"),
            ("truth", ARROW, "average over all who could pass"),
        ),
        caption=caption,
        lines=2,
    )
