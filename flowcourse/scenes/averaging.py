"""How conditional velocities are averaged: a point of space-time, and what every datum asks of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowcourse.explorables import (
    DOT,
    LINE,
    PLAY,
    RESET,
    RING,
    SHADE,
    Explorable,
    Panel,
    layers_control,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
)
from flowcourse.scenes.paths import described_paths
from flowlib.paths import AffinePath, cosine, linear

MOST = 12  # data
LAST = 0.99  # the latest time: at t = 1 the weights are singular
ARROW = '<path d="M0 6h15" stroke="currentColor" stroke-width="3.5"/><path d="M24 6L13 0.5v11z" fill="currentColor"/>'


def averaging_explorer(
    data: Tensor | Sequence[float],
    *,
    paths: Sequence[AffinePath] = (linear, cosine),
    point: tuple[float, float] = (0.5, 0.0),
    show: Sequence[str] = ("conditional paths", "marginal trajectory", "density"),
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """What is averaged at a point (t, x), for the source N(0, 1) on the line and finitely many data y_i:

        u_i = alpha' y_i + sigma' (x - alpha y_i) / sigma,      w_i ~ exp(-(x - alpha y_i)^2 / (2 sigma^2)).

    Every datum has one conditional path through (t, x), with the velocity u_i and the posterior weight w_i there. The
    mean sum_i w_i u_i is the marginal velocity, and the reader drags the point. Time carries it along the trajectory of
    the mean, from where the reader put it; the text line gives the standard deviation of the u_i under the weights,
    which is the error that no regression on conditional velocities can avoid at (t, x).

    Args:
        data: y_1, ..., y_n on the line, at most 12.
        paths: the affine paths to choose from; with one there is no choice.
        point: (t, x) at first, with t in [0, 0.99].
        show: what is shown at first, of "conditional paths", "marginal trajectory" and "density" (of p_t, against its
            peak at each t).
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a path that the browser cannot compute.
        ValueError: no path, no data, too many, or data that are not finite or not on the line; a point outside of the
            picture; or something unknown to show.
    """
    y = torch.as_tensor(data).detach().cpu().double()
    require(
        y.ndim == 1 and 1 <= len(y) <= MOST and bool(y.isfinite().all()),
        f"data must be 1 to {MOST} finite numbers, got shape {tuple(y.shape)}: {y.tolist()}",
    )
    described = described_paths(paths)
    reach = max(3.0, float((y.abs().max() + 0.5).ceil()))
    t, x = map(float, point)
    require(
        0 <= t <= LAST and abs(x) <= reach,
        f"the point must have t in [0, {LAST}] and x in [-{reach:g}, {reach:g}], got {(t, x)}",
    )
    if description is None:
        listed = ", ".join(f"{value:g}" for value in y.tolist())
        description = (
            f"Time t runs to the right from 0 to {LAST} and position x upwards. Through a point that the reader moves "
            f"pass the conditional paths to the data {listed}, thicker where they weigh more, an arrow for their mean "
            "velocity, and the marginal trajectory; bars at the right give the weights."
        )
    return Explorable(
        "averaging",
        {"data": y.tolist(), "paths": described, "reach": reach, "last": LAST},
        [
            row(PLAY, range_control("t", "Time", "t", t, top=LAST), RESET),
            range_control("x", "Position", "x", x, low=-reach, top=reach),
            select_control("path", "Path", described),
            layers_control(show, ("conditional paths", "marginal trajectory", "density")),
        ],
        description,
        panels=[[Panel(f"{description} Arrow keys move the point.", drawable=True)]],
        title=title,
        legend=legend_entries(
            ("path", LINE, "conditional paths, as thick as they weigh"),
            ("source", RING, "noise x₀"),
            ("data", DOT, "data y and weights w"),
            ("truth", ARROW, "mean velocity"),
            ("truth", LINE, "marginal trajectory"),
            ("muted", SHADE, "density"),
        ),
        caption=caption,
    )
