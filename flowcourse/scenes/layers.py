"""Layers: points, and a grid, that a trained normalizing flow carries from noise to data, one layer after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowcourse.explorables import (
    DOTS,
    LINE,
    PLAY,
    RESET,
    Explorable,
    Panel,
    boxes_control,
    encode16,
    legend_entries,
    range_control,
    require,
    row,
)

MOST = 24  # layers
COLUMNS = 10  # small pictures in a row, at most


def layers_explorer(
    states: Tensor,
    *,
    grid: Tensor | None = None,
    labels: Sequence[str] | None = None,
    layer: float | None = None,
    window: float | None = None,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Points on their way through the K layers of a normalizing flow, from noise to data.

    A slider k goes from 0 to K; between two whole numbers a layer is at work, and the picture interpolates linearly
    between what went into it and what comes out. Thin lines show how the layer at work moves the points, small
    pictures show all K + 1 states, and the text line says how far the layer moves the points along each axis.

    Args:
        states: where B points are after 0, 1, ..., K layers, (K + 1, B, 2), sent in float16.
        grid: G polylines of N corners each, carried along, (K + 1, G, N, 2), sent in float16.
        labels: what each layer is called, K texts, or K + 1 with what the first state is called before them.
        layer: k at first; None opens in the middle.
        window: half the height of what is seen, in the plane's units; None shows nearly all points.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: states, a grid or labels of the wrong shape or number, numbers that are not finite in float16, or a
            layer or window out of range.
    """
    require(
        states.ndim == 3 and states.shape[2] == 2 and 2 <= len(states) <= MOST + 1 and states.shape[1] > 0,
        f"states must have shape (K + 1, B, 2) with 1 to {MOST} layers K, got {tuple(states.shape)}",
    )
    K = len(states) - 1
    if grid is not None:
        good = grid.ndim == 4 and len(grid) == K + 1 and grid.shape[2] > 1 and grid.shape[3] == 2
        require(good, f"the grid must have shape ({K + 1}, G, N, 2), got {tuple(grid.shape)}")
    for sent in (states, grid):
        finite = sent is None or bool(sent.to(torch.float16).isfinite().all())
        require(finite, "states and grid must be finite, and below 65504 in size")
    require(
        labels is None or len(labels) in (K, K + 1),
        f"labels must be {K} texts, or {K + 1} with one for the first state, got {len(labels or ())}",
    )
    names = [""] * (K + 1) if labels is None else [*[""] * (K + 1 - len(labels)), *labels]
    names[0] = names[0] or "start"
    k = math.floor(K / 2) + 0.5 if layer is None else float(layer)
    require(0 <= k <= K, f"layer must be in [0, {K}], got {layer}")
    if window is None:
        far = states.detach().abs().double().flatten().sort().values
        window = max(0.1, math.ceil(10.5 * far[min(len(far) - 1, int(0.997 * len(far)))].item()) / 10)
    require(0 < window < math.inf, f"window must be positive, got {window}")
    if description is None:
        carried = f"{states.shape[1]} points in the plane" + ("" if grid is None else " and a grid")
        described = ", ".join(dict.fromkeys(name for name in names[1:] if name))
        description = (
            f"{carried}, carried from noise to data by the {K} layers of a normalizing flow"
            f"{f' ({described})' if described else ''}, with the layer chosen by the reader."
        )
    strip = (
        f"Small pictures of the points before the first layer and after each of the {K}. "
        "Arrow keys go from one to the next."
    )
    columns = min(K + 1, COLUMNS)
    rows = math.ceil((K + 1) / columns)
    wide, narrow = ((width, round(width * rows / columns)) for width in (720, 354))
    spec = {"labels": names, "states": encode16(states), "window": window, "columns": columns}
    boxes = {"moves": True}
    legend = [
        ("path", DOTS, "points before, between and after"),
        ("path", LINE, "moves of the layer at work"),
    ]
    if grid is not None:
        spec |= {"grid": encode16(grid), "length": grid.shape[2]}
        boxes["grid"] = True
        legend.append(("muted", LINE, "grid"))
    return Explorable(
        "layers",
        spec,
        [
            row(PLAY, range_control("t", "Layer", "k", k, top=K, moments=K), RESET),
            boxes_control("Show", boxes),
        ],
        description,
        panels=[
            [Panel(description)],
            [Panel(strip, wide=wide, narrow=narrow, drawable=True, framed=False)],
        ],
        title=title,
        legend=legend_entries(*legend),
        caption=caption,
    )
