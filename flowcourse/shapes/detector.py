"""The exact detector: which scene a picture shows (chapter 10).

It makes no errors on what `render` draws, so that whatever it finds wrong in a generated picture is the generator's. It
is plain arithmetic on arrays, with the five thresholds below:

1. the background is the median color of the border;
2. pixels that differ from it by more than `DIFFERENT`, in some channel, are foreground, and those that touch, also by a
   corner, are one object; fewer than `SPECK` of them are none;
3. an object has the known color nearest to the mean of its core: the pixels that differ at least `CORE` times as much
   as the one that differs most; no color if all are farther than `OFF`;
4. that color against the background says how much of each pixel is covered, and that is compared with the drawing of
   each shape and size at nine centers; the best has the greatest overlap, intersection over union of coverages, and
   below `OVERLAP` it is no shape.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor

from flowcourse.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIDE,
    SIZES,
    Object,
    Palette,
    Scene,
    coverage,
    signed_distance,
)

DIFFERENT = 0.25
SPECK = 6
CORE = 0.8
OFF = 0.3
OVERLAP = 0.6
UNKNOWN = "unknown"  # the shape, size or color of what is none

HALF = 10  # half the side of the window in which coverages are compared: large objects fit, and nine centers
KINDS = [*itertools.product(SHAPES, SIZES)]
STEPS = [*itertools.product((-1, 0, 1), (-1, 0, 1))]  # (y, x)


@cache
def templates() -> Tensor:
    """Coverages (kinds * steps, 4 HALF^2) of each kind around each center near the middle of a window."""
    at = torch.arange(-HALF, HALF) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    drawn = [
        coverage(signed_distance(shape, SIZES[size], x - dx, y - dy))
        for (shape, size), (dy, dx) in itertools.product(KINDS, STEPS)
    ]
    return torch.stack(drawn).flatten(1)


@torch.no_grad()
def detect(pictures: Tensor, *, palette: Palette = COLORS) -> list[Scene]:
    """The scenes that pictures (B, 3, SIDE, SIDE) show, in RGB from 0 to 1, in colors of the palette."""
    if pictures.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"pictures must have shape (B, 3, {SIDE}, {SIDE}), got {tuple(pictures.shape)}")
    x = pictures.float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()  # (B, SIDE, SIDE, 3)
    border = np.concatenate([x[:, 0], x[:, -1], x[:, 1:-1, 0], x[:, 1:-1, -1]], axis=1)
    backgrounds = np.median(border, axis=1)  # (B, 3)
    different = np.abs(x - backgrounds[:, None, None]).max(3)
    touching = np.zeros((3, 3, 3), dtype=int)
    touching[1] = 1  # neighbors in a picture, not from one picture to the next
    parts, _ = label(different > DIFFERENT, structure=touching)
    objects: list[list[Object]] = [[] for _ in x]
    owners, colors, centers, covers = [], [], [], []
    for part, (picture, rows, columns) in enumerate(find_objects(parts) if len(x) else [], start=1):
        inside = parts[picture, rows, columns][0] == part
        if inside.sum() < SPECK:
            continue
        owners.append(n := picture.start)
        pixels, difference = x[n, rows, columns], different[n, rows, columns] * inside
        name, color = _nearest(pixels[difference >= CORE * difference.max()].mean(0), palette)
        colors.append(name)
        away = color - backgrounds[n]
        cover = np.zeros((SIDE, SIDE))
        share = (pixels - backgrounds[n]) @ away / max(away @ away, 1e-9)
        cover[rows, columns] = share.clip(0, 1) * inside
        covers.append(cover)
        centers.append(((columns.start + columns.stop) // 2, (rows.start + rows.stop) // 2))
    matches = _matched(covers, centers)
    for n, hue, (x_c, y_c), (shape, size, (dy, dx)) in zip(owners, colors, centers, matches, strict=True):
        objects[n].append(Object(shape, hue, size, (x_c + dx, y_c + dy)))
    names = [_nearest(background, BACKGROUNDS)[0] for background in backgrounds]
    return [Scene(name, tuple(found)) for name, found in zip(names, objects, strict=True)]


def _nearest(color: np.ndarray, known: Palette) -> tuple[str, np.ndarray]:
    """The name and the values of the known color nearest to this; if all are far, unknown and the color itself."""
    name = min(known, key=lambda name: float(np.square(color - known[name]).sum()))
    value = np.array(known[name])
    return (name, value) if np.linalg.norm(color - value) <= OFF else (UNKNOWN, color)


def _matched(
    covers: list[np.ndarray], centers: list[tuple[int, int]]
) -> list[tuple[str, str, tuple[int, int]]]:
    """Each object's shape, size, and step (y, x) to its center from that of its box, from its coverage (SIDE, SIDE)."""
    if not covers:
        return []
    padded = np.pad(covers, ((0, 0), (HALF, HALF), (HALF, HALF)))
    around = [c[y : y + 2 * HALF, x : x + 2 * HALF] for c, (x, y) in zip(padded, centers, strict=True)]
    windows = torch.from_numpy(np.stack(around)).float().flatten(1)
    totals = torch.from_numpy(np.sum(covers, axis=(1, 2))).float()
    answers = []
    for window, total in zip(windows.split(256), totals.split(256), strict=True):
        both = torch.minimum(window[:, None], templates()).sum(2)  # (n, kinds * steps)
        overlap, best = (both / (total[:, None] + templates().sum(1) - both)).max(1)
        for value, k in zip(overlap.tolist(), best.tolist(), strict=True):
            kind = KINDS[k // len(STEPS)] if value >= OVERLAP else (UNKNOWN, UNKNOWN)
            answers.append((*kind, STEPS[k % len(STEPS)]))
    return answers
