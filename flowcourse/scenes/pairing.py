"""Noises and data in pairs: what the best pairing within a batch saves, and what swaps are left between batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from flowcourse.explorables import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SQUARE,
    Explorable,
    Panel,
    encode16,
    legend_entries,
    range_control,
    require,
    row,
    stops_control,
)
from flowcourse.scenes.solver import PLANE
from flowlib.data import eight_gaussians

CHART: dict[str, Any] = {"wide": (280, 384), "narrow": (354, 300)}
MOST = 64  # pairs
SWAP = '<path d="M1 6h22" stroke="currentColor" stroke-width="2" stroke-dasharray="5 4"/>'


def pairing_board(
    law: Any = None,
    *,
    sizes: Sequence[int] = (1, 2, 4, 8, 24),
    size: int = 1,
    draws: int = 6,
    time: float = 0.5,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Draws of N(0, I) and of data, joined in straight pairs: the reader sets the batch size and drags the points.

        min over permutations s of each batch of  sum_j |x_1j - x_0s(j)|^2,      pairs j and k would swap if
        <x_0s(j) - x_0s(k), x_1j - x_1k> < 0.

    Batches of 1 are independent pairs, and the largest size holds all points. Every batch lies within one of the next
    size, so the cost can only fall from size to size. The point that the hand is on marks its pair, and those that
    would swap with it. In time the points move along their pairs.

    Args:
        law: of the data, in the plane, with `sample(n, generator=...)`; `eight_gaussians()` if None.
        sizes: the batch sizes to choose from, each a multiple of the one before; the last is the number of pairs, at
            most 64.
        size: the one at first.
        draws: how many draws of all points there are to choose from; with one there is no choice.
        time: t at first.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: sizes that do not hold one another, another size, no draws, a time out of range, or samples that
            are not finite points of the plane.
    """
    sizes = list(sizes)
    require(
        len(sizes) >= 2
        and sizes[0] >= 1
        and sizes[-1] <= MOST
        and all(a < b and b % a == 0 for a, b in pairwise(sizes)),
        f"sizes must be two or more up to {MOST}, each a multiple of the one before, got {sizes}",
    )
    require(size in sizes, f"size must be one of {sizes}, got {size}")
    require(draws >= 1, f"need at least one draw, got {draws}")
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    pairs, law, generator = sizes[-1], law or eight_gaussians(), torch.Generator().manual_seed(0)
    dealt = []
    for _ in range(draws):
        noises = torch.randn(pairs, 2, generator=generator)
        data = law.sample(pairs, generator=generator)
        require(
            data.shape == noises.shape and bool(data.isfinite().all()),
            f"samples of the law must be finite points ({pairs}, 2), got {tuple(data.shape)}",
        )
        dealt.append((noises, data))
    window = math.ceil(10 * max(float(x.abs().max()) for both in dealt for x in both) + 3) / 10
    if description is None:
        description = (
            f"{pairs} noises and {pairs} data in the plane, joined in pairs by straight lines. Independent pairs are "
            "a tangle; the larger the batch within which the pairs are the best, the shorter they are and the fewer "
            "would cost less with partners swapped, until at the largest batch none would."
        )
    chart = (
        f"Two rows of bars for the batch sizes {', '.join(map(str, sizes))}: the mean cost of a pair, which falls to "
        "that of the best pairs, a dotted line, and the number of swaps that would cost less, which falls to 0."
    )
    keys = (
        "Arrow keys move the marked point, with Shift by larger steps; Enter marks the next one, Backspace the one "
        "before."
    )
    controls = [
        row(PLAY, range_control("t", "Time", "t", time), RESET),
        stops_control("size", "Batch size", "B", sizes, size),
    ]
    if draws > 1:
        controls.append(stops_control("draw", "Draw", "", range(1, draws + 1), 1))
    return Explorable(
        "pairing",
        {
            "draws": [[encode16(noises), encode16(data)] for noises, data in dealt],
            "pairs": pairs,
            "sizes": sizes,
            "window": window,
        },
        controls,
        description,
        panels=[
            [
                Panel(
                    f"{description} {keys}",
                    **PLANE,
                    name="<b>Pairs</b>: drag a point",
                    drawable=True,
                ),
                Panel(chart, **CHART, name="<b>Every batch size</b>: tap one"),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("source", DOT, "noise x₀"),
            ("data", SQUARE, "datum x₁"),
            ("path", LINE, "pair, and the point on its way"),
            ("error", SWAP, "would swap with the marked pair"),
            ("truth", DASHES, "cost of the best pairs"),
        ),
        caption=caption,
        lines=2,
    )
