"""A few steps: where the same particles land after 1, 2, 4 or 8 evaluations of each method, beside the exact flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flowcourse.explorables import (
    DOT,
    LINE,
    PLAY,
    RESET,
    SHADE,
    Explorable,
    Panel,
    encode16,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
    stops_control,
)
from flowlib.fields import Field
from flowlib.flow_maps import AverageVelocity
from flowlib.mixtures import GaussianMixture
from flowlib.solvers import RK4, trajectory

COUNTS = (1, 2, 4, 8)
SIZES: dict[str, Any] = {"wide": (354, 354), "narrow": (354, 332)}


@torch.no_grad()
def jumps(u: AverageVelocity, x: Tensor, steps: int) -> Tensor:
    """The places (steps + 1, B, 2) between the jumps of an average velocity, as `flowlib.jump` makes them."""
    states = [x]
    for s, t in itertools.pairwise(torch.linspace(0, 1, steps + 1)):
        states.append(states[-1] + (t - s).to(x.dtype) * u(states[-1], s, t))
    return torch.stack(states)


def flow_map_explorer(
    methods: Mapping[str, AverageVelocity],
    target: GaussianMixture,
    exact: Field,
    start: Tensor,
    *,
    window: float = 3.6,
    time: float = 1.0,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """The reader chooses a method and a number of steps, and sees where the particles land and where they should.

    All that is drawn is computed here, with flowlib, and sent in float16.

    Args:
        methods: average velocities u(x, s, t) by name; a field v as lambda x, s, t: v(x, s), which is Euler's method.
        target: the law of the data, whose density lies under the particles.
        exact: the field whose flow is the truth.
        start: where the particles start, (B, 2).
        window: half the height of what is seen, in the plane's units.
        time: the time at which the figure opens.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: no methods, or numbers out of range.
    """
    require(bool(methods), "a flow-map explorer needs at least one method, got none")
    require(0 < window < math.inf, f"window must be positive, got {window}")
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    require(
        start.ndim == 2 and start.shape[1] == 2 and len(start) > 0,
        f"start must have shape (B, 2), got {tuple(start.shape)}",
    )
    if description is None:
        description = (
            f"{len(start)} particles go from noise to data in N straight steps of a method that the reader chooses "
            f"({', '.join(methods)}); at the end a line joins each to the place where the exact flow takes it."
        )
    with torch.no_grad():
        truth = trajectory(exact, start, steps=32, method=RK4)[1]
    spec = {
        "methods": {
            name: {str(N): encode16(jumps(u, start, N)) for N in COUNTS} for name, u in methods.items()
        },
        "truth": encode16(truth),
        "mixture": {
            "weights": target.weights.double().tolist(),
            "means": target.means.double().tolist(),
            "covariances": _matrices(target),
        },
        "window": window,
    }
    return Explorable(
        "flow_map",
        spec,
        [
            row(PLAY, range_control("t", "Time", "t", time), RESET),
            select_control("method", "Method", methods),
            stops_control("steps", "Evaluations", "N", COUNTS, 1),
        ],
        description,
        panels=[
            [
                Panel(description, **SIZES, name="<b>N evaluations</b>"),
                Panel(
                    "The same particles on the exact flow, on bent trajectories, and the density of the data.",
                    **SIZES,
                    name="<b>The exact flow</b>",
                ),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("model", DOT, "particles of the method"),
            ("truth", DOT, "on the exact flow"),
            ("error", LINE, "from landing to true end"),
            ("muted", SHADE, "data"),
        ),
        caption=caption,
        lines=2,
    )


def _matrices(law: GaussianMixture) -> list[list[list[float]]]:
    """The covariances as 2 x 2 matrices."""
    covariances = law.covariances.double()
    if covariances.ndim == 1:
        covariances = covariances[:, None, None] * torch.eye(2, dtype=torch.float64)
    elif covariances.ndim == 2:
        covariances = torch.diag_embed(covariances)
    matrices: list[list[list[float]]] = covariances.tolist()
    return matrices
