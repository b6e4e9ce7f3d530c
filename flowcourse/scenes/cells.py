"""Semidiscrete transport in the plane: the cells from which noise goes to each data point, and how they grow equal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowcourse.explorables import (
    DOT,
    PLAY,
    RESET,
    Explorable,
    Panel,
    boxes_control,
    legend_entries,
    range_control,
    require,
    row,
    stops_control,
)
from flowcourse.scenes.averaging import ARROW

DATA = ((0.2, 0.3), (1.7, 1.6), (-0.8, 2.0), (-2.4, 0.5), (-1.7, -1.6), (0.8, -1.9), (2.4, -0.4))
STEPS = 400  # of the ascent; the slider counts them in hundreds, so that four seconds play them
BATCH = 64  # noises in a step
NOISES = 1500
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
CELL = (
    '<path d="M2 1h20v10H2z" fill="var(--flow-data)" opacity=".35"/>'
    '<path d="M2 1h20v10H2z" fill="none" stroke="currentColor" stroke-width="1.2"/>'
)


def power_diagram(
    data: Tensor | Sequence[Sequence[float]] = DATA,
    *,
    rate: float = 0.01,
    step: int = 0,
    noise: tuple[float, float] = (0.85, -0.45),
    window: float = 2.7,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """The power diagram of a few data points y_j, and stochastic ascent on its potentials g, which start at 0:

        x goes to argmin_j |x - y_j|^2 - g_j,      g_j <- g_j + rate s (1 - n P(x goes to j)).

    A cell has more color the more noise it holds of N(0, I), of which 1,500 evenly spread points are seen. Steps are
    those of `fit_semidiscrete`, each with 64 of them, but step 0 is the Voronoi diagram: every noise goes to its
    nearest point. At the end all cells hold about the same share, and x -> y_j(x) is the optimal transport. The reader
    plays the steps, drags data, and puts down a noise of their own, which an arrow joins to where it goes.

    Args:
        data: y, (n, 2), from 2 to 12 points.
        rate: of the first step, one of 0.003, 0.01, 0.03, 0.1 and 0.3; it falls along half a cosine.
        step: the step at which the figure opens, of 400.
        noise: where the reader's noise lies at first.
        window: half the height of what is seen, in the plane's units.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: data of another shape or outside of the picture, or another value out of its range.
    """
    y = torch.as_tensor(data, dtype=torch.float64).detach().cpu()
    require(
        y.ndim == 2 and y.shape[1] == 2 and 2 <= len(y) <= 12 and bool(y.isfinite().all()),
        f"data must be 2 to 12 finite points (n, 2), got shape {tuple(y.shape)}",
    )
    require(0 < window < math.inf, f"window must be positive, got {window}")
    require(bool((y.abs() <= window).all()), f"data must lie within the window of {window}, got {y.tolist()}")
    require(rate in RATES, f"rate must be one of {RATES}, got {rate}")
    require(0 <= step <= STEPS, f"step must be in [0, {STEPS}], got {step}")
    require(
        len(noise) == 2 and all(abs(x) <= window for x in noise),
        f"noise must be two numbers within the window of {window}, got {noise}",
    )
    if description is None:
        description = (
            f"{len(y)} data points in the plane over a round cloud of noise, and the cell of each, from which noise "
            "goes to it, with straight borders and its share of the noise. At step 0 each noise goes to its nearest "
            "data point, and shares differ widely; as potentials are learned, borders move until shares are equal."
        )
    keys = (
        "Arrow keys move the marked point, first your noise, with Shift by larger steps; Enter marks the next, "
        "Backspace the one before."
    )
    return Explorable(
        "cells",
        {
            "data": y.tolist(),
            "probe": list(noise),
            "window": window,
            "noises": NOISES,
            "steps": STEPS,
            "batch": BATCH,
        },
        [
            row(PLAY, range_control("t", "Steps, in hundreds", "", step / 100, top=STEPS / 100), RESET),
            stops_control("rate", "Rate", "", RATES, rate),
            boxes_control("Show", {"noise": True, "pairs": False}),
        ],
        description,
        panels=[[Panel(f"{description} {keys}", drawable=True)]],
        title=title,
        legend=legend_entries(
            ("data", DOT, "data point yⱼ: drag it"),
            ("ink", CELL, "its cell, in more color the more noise it holds"),
            ("source", DOT, "noise; the large one is yours"),
            ("path", ARROW, "where your noise goes"),
        ),
        caption=caption,
        lines=2,
    )
