"""Layers: points, and a grid, that a trained normalizing flow carries from noise to data, one layer after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    DOTS,
    LINE,
    PLAY,
    RESET,
    Explorable,
    boxes_control,
    dots,
    encode16,
    legend_entries,
    panel,
    polylines,
    range_control,
    rounded16,
    stroke,
)
from flowcourse.palette import hue

MOST = 24  # layers
COLUMNS = 10  # small pictures in a row, at most
FEW = 120  # points in a still small picture, at most


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
    if states.ndim != 3 or states.shape[2] != 2 or not 2 <= len(states) <= MOST + 1 or not states.shape[1]:
        raise ValueError(
            f"states must have shape (K + 1, B, 2) with 1 to {MOST} layers K, got {tuple(states.shape)}"
        )
    K = len(states) - 1
    if grid is not None and (grid.ndim != 4 or len(grid) != K + 1 or grid.shape[2] < 2 or grid.shape[3] != 2):
        raise ValueError(f"the grid must have shape ({K + 1}, G, N, 2), got {tuple(grid.shape)}")
    points, lines = rounded16(states), None if grid is None else rounded16(grid)
    if not points.isfinite().all() or (lines is not None and not lines.isfinite().all()):
        raise ValueError("states and grid must be finite, and below 65504 in size")
    if labels is not None and len(labels) not in (K, K + 1):
        raise ValueError(
            f"labels must be {K} texts, or {K + 1} with one for the first state, got {len(labels)}"
        )
    names = [""] * (K + 1) if labels is None else [*[""] * (K + 1 - len(labels)), *labels]
    names[0] = names[0] or "start"
    k = math.floor(K / 2) + 0.5 if layer is None else float(layer)
    if not 0 <= k <= K:
        raise ValueError(f"layer must be in [0, {K}], got {layer}")
    if window is None:
        far = points.abs().flatten().sort().values
        window = max(0.1, math.ceil(10.5 * far[min(len(far) - 1, int(0.997 * len(far)))].item()) / 10)
    if not 0 < window < math.inf:
        raise ValueError(f"window must be positive, got {window}")
    if description is None:
        carried = f"{points.shape[1]} points in the plane" + ("" if lines is None else " and a grid")
        described = ", ".join(dict.fromkeys(name for name in names[1:] if name))
        description = (
            f"{carried}, carried from noise to data by the {K} layers of a normalizing flow"
            f"{f' ({described})' if described else ''}, with the layer chosen by the reader."
        )
    strip = (
        f"Small pictures of the points before the first layer and after each of the {K}. "
        "Arrow keys go from one to the next."
    )
    boxes = {"moves": True} | ({} if lines is None else {"grid": True})
    slider = range_control("t", "Layer", "k", k, top=K).replace(
        " data-digits", f' data-moments="{K}" data-digits'
    )
    controls = f'<div class="flow-time">{PLAY}{slider}{RESET}</div>{boxes_control("Show", boxes)}'
    legend = [
        ("path", DOTS, "points before, between and after"),
        ("path", LINE, "moves of the layer at work"),
    ]
    if lines is not None:
        legend.append(("muted", LINE, "grid"))
    columns = min(K + 1, COLUMNS)
    rows = math.ceil((K + 1) / columns)
    spec = {
        "labels": names,
        "states": encode16(states.detach().cpu()),
        "window": window,
        "columns": columns,
    }
    if grid is not None:
        spec |= {"grid": encode16(grid.detach().cpu()), "length": grid.shape[2]}
    stage = panel(_still(points, lines, k, window, description), description)
    small = panel(_strip(points, columns, rows, window, strip), strip, drawable=True)
    shape = f"{columns / rows:.3g}"
    return Explorable(
        "layers",
        spec,
        f'<div class="flow-stage">{stage}</div>'
        f'<div class="flow-stage flow-strip" style="--flow-shape:{shape}">{small}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )


def _still(points: Tensor, grid: Tensor | None, k: float, window: float, alt: str) -> str:
    """What the scene draws at first, as SVG."""
    n = min(max(0, math.ceil(k) - 1), len(points) - 2)
    now = torch.lerp(points[n], points[n + 1], k - n)
    drawn = ""
    if grid is not None:
        drawn += stroke("muted", 1, polylines(torch.lerp(grid[n], grid[n + 1], k - n)), ' opacity=".55"')
    drawn += stroke("path", 1, polylines(torch.stack([points[n], now], dim=1)), ' opacity=".6"')
    drawn += stroke("path", 1, polylines(torch.stack([now, points[n + 1]], dim=1)), ' opacity=".25"')
    role = "source" if k == 0 else "data" if k == len(points) - 1 else "path"
    drawn += stroke(role, 5.5, dots(now))
    w, h = round(160 * window), round(100 * window)
    return (
        f'<svg class="flow-still" viewBox="{-w} {-h} {2 * w} {2 * h}" preserveAspectRatio="xMidYMid slice" role="img" '
        f'aria-label="{escape(alt)}" fill="none" stroke-linecap="round" stroke-linejoin="round">{drawn}</svg>'
    )


def _strip(points: Tensor, columns: int, rows: int, window: float, alt: str) -> str:
    """The small pictures of all states, in squares of side 100 that are 8 apart."""
    drawn = ""
    for k, state in enumerate(points):
        x, y = 108 * (k % columns), 108 * (k // columns)
        some = state[:FEW]
        some = some[some.abs().amax(dim=1) < window] / (2 * window)
        place = some + torch.tensor([x / 100 + 0.5, -y / 100 - 0.5], dtype=some.dtype)
        drawn += f'<path stroke="{hue(k / (len(points) - 1))}" stroke-width="2.5" d="{dots(place)}"/>'
        drawn += (
            f'<rect x="{x}" y="{y}" width="100" height="100" rx="7" stroke="var(--flow-muted)" opacity=".5"/>'
        )
    return (
        f'<svg class="flow-still" viewBox="-1 -1 {108 * columns - 6} {108 * rows - 6}" role="img" '
        f'aria-label="{escape(alt)}" fill="none" stroke-linecap="round">{drawn}</svg>'
    )
