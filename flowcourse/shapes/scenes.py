"""Scenes of colored shapes, and their pictures: 32 x 32 pixels, anti-aliased by signed distance (chapter 10).

A picture has x from left to right and y from top to bottom, in pixels; the pixel (i, j) has its center at
(x, y) = (j + 1/2, i + 1/2). Centers of objects lie on even numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Generator, Tensor

SIDE = 32  # pixels
GAP = 2.0  # the least distance between two objects, in pixels: one background pixel stays between them
OBJECTS = 3  # at most
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = {"small": 3.8, "large": 5.6}  # radius in pixels
MARGIN = {"small": 6, "large": 8}  # the least distance of a center from the border
COLORS = {
    "red": (0.88, 0.12, 0.18),
    "orange": (0.97, 0.52, 0.08),
    "yellow": (0.97, 0.88, 0.12),
    "green": (0.10, 0.62, 0.25),
    "blue": (0.12, 0.35, 0.90),
    "purple": (0.62, 0.18, 0.78),
}
MAGENTA = {"magenta": (0.92, 0.15, 0.60)}  # in no scene of any training: a color for a model to learn later
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.06, 0.06, 0.06)}

Palette = dict[str, tuple[float, float, float]]
T = TypeVar("T")
Kind = tuple[str, str]  # shape and color


@dataclass(frozen=True)
class Object:
    """A shape of one color around its center (x, y)."""

    shape: str
    color: str
    size: str
    center: tuple[int, int]


@dataclass(frozen=True)
class Scene:
    """Objects on a background."""

    background: str
    objects: tuple[Object, ...]


# What training never shows: five shapes in a color that the others wear, and a tenth of the pairs of the rest.
HELD_OUT_KINDS: tuple[Kind, ...] = (
    ("circle", "purple"),
    ("square", "orange"),
    ("triangle", "blue"),
    ("cross", "yellow"),
    ("ring", "green"),
)
KINDS: tuple[Kind, ...] = tuple(
    kind for kind in itertools.product(SHAPES, COLORS) if kind not in HELD_OUT_KINDS
)


def _by_turns(pairs: Sequence[tuple[Kind, Kind]], every: int) -> set[tuple[Kind, Kind]]:
    """Every tenth pair, say, in an order that shuffles shapes and colors."""
    shuffled = sorted(range(len(pairs)), key=lambda k: (k * 89) % 997)
    return {pairs[k] for k in shuffled[::every]}


# Unordered pairs that differ in shape and in color, and among them the held-out ones.
DISTINCT: tuple[tuple[Kind, Kind], ...] = tuple(
    (a, b) for a, b in itertools.combinations(KINDS, 2) if a[0] != b[0] and a[1] != b[1]
)
HELD_OUT_PAIRS = tuple(sorted(_by_turns(DISTINCT, 10)))
PAIRS: tuple[tuple[Kind, Kind], ...] = tuple(  # ordered, of two different kinds
    (a, b)
    for a, b in itertools.permutations(KINDS, 2)
    if (a, b) not in HELD_OUT_PAIRS and (b, a) not in HELD_OUT_PAIRS
)

# How often a scene holds one object, two of different kinds, or two or three of one kind and size.
MIX = {"one": 0.25, "pair": 0.55, "count": 0.20}


def signed_distance(shape: str, radius: float, x: Tensor, y: Tensor) -> Tensor:
    """The distance from the shape around the origin, negative inside.

    At the corners of triangles it is the distance from the nearest side's line, which keeps them sharp.
    """

    def box(half_width: float, half_height: float) -> Tensor:
        a, b = x.abs() - half_width, y.abs() - half_height
        return torch.hypot(a.clamp(min=0), b.clamp(min=0)) + torch.maximum(a, b).clamp(max=0)

    r = radius
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "square":
        return box(0.88 * r, 0.88 * r)
    if shape == "triangle":  # equilateral and upright, its bounding box around the origin
        half = 0.99 * r  # of its height, three times the radius of its inscribed circle
        return torch.maximum((3**0.5 * x.abs() - (y + half)) / 2, y - half)
    if shape == "cross":
        return torch.minimum(box(r, 0.34 * r), box(0.34 * r, r))
    if shape == "ring":
        return (torch.hypot(x, y) - 0.74 * r).abs() - 0.26 * r
    raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")


@cache
def _fields() -> Tensor:
    """Signed distances (shapes * sizes + 1, 2 SIDE, 2 SIDE) at pixels around a center in the middle; the last is that
    of no object.
    """
    at = torch.arange(-SIDE, SIDE) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    shapes = [signed_distance(shape, radius, x, y) for shape in SHAPES for radius in SIZES.values()]
    return torch.stack([*shapes, torch.full_like(x, torch.inf)])


REACH = SIDE // 2 - min(
    MARGIN.values()
)  # the greatest difference of two centers along an axis, in steps of 2


@cache
def _gaps() -> Tensor:
    """The distance between two kinds, rows of `_fields`, at each difference of their centers: (rows, rows, y, x)."""
    fields, near = _fields(), SIDE // 2 - 4  # all that matters is near the first
    first = fields[:, None, SIDE - near : SIDE + near, SIDE - near : SIDE + near]
    steps = range(-2 * REACH, 2 * REACH + 1, 2)

    def gap(x: int, y: int) -> Tensor:
        rows, columns = (slice(SIDE - near - d, SIDE + near - d) for d in (y, x))
        return (first + fields[None, :, rows, columns]).amin((2, 3))

    return torch.stack([torch.stack([gap(x, y) for x in steps], -1) for y in steps], -2)


def _windows(kinds: Tensor, centers: Tensor) -> Tensor:
    """Signed distances (n, SIDE, SIDE) in the picture, of kinds (n,), rows of `_fields`, at centers (n, 2)."""
    x, y = (SIDE + torch.arange(SIDE) - centers[..., None]).unbind(-2)
    return _fields()[kinds[:, None, None], y[:, :, None], x[:, None, :]]


def _row(shape: str, size: str) -> int:
    return len(SIZES) * SHAPES.index(shape) + list(SIZES).index(size)


def coverage(distance: Tensor) -> Tensor:
    """How much of a pixel lies inside, from the signed distance at its center: exact for straight edges along axes."""
    return (0.5 - distance).clamp(0, 1)


def render(scenes: Sequence[Scene], *, palette: Palette = COLORS) -> Tensor:
    """The pictures (B, 3, SIDE, SIDE) of the scenes, in RGB from 0 to 1, painted with the colors of the palette."""
    backgrounds = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes]).reshape(-1, 3)
    pictures = backgrounds[:, :, None, None].repeat(1, 1, SIDE, SIDE)
    for k in range(max((len(scene.objects) for scene in scenes), default=0)):
        rows = [n for n, scene in enumerate(scenes) if len(scene.objects) > k]
        objects = [scenes[n].objects[k] for n in rows]
        kinds = torch.tensor([_row(o.shape, o.size) for o in objects])
        alpha = coverage(_windows(kinds, torch.tensor([o.center for o in objects])))[:, None]
        colors = torch.tensor([palette[o.color] for o in objects])[:, :, None, None]
        pictures[rows] = torch.lerp(pictures[rows], colors, alpha)
    return pictures


def sample(n: int, *, generator: Generator | None = None, mix: dict[str, float] | None = None) -> list[Scene]:
    """n scenes that training may show: without the held-out kinds and pairs.

    Attributes are uniform; centers are uniform too, among the even ones at which no two objects come closer than `GAP`
    and none than a pixel to the border.

    Args:
        n: how many.
        generator: the source of randomness, on the CPU.
        mix: how often each sort of scene comes, instead of `MIX`.
    """
    mix = MIX if mix is None else mix
    if mix.keys() - MIX.keys():
        raise ValueError(f"mix may name {', '.join(MIX)}, got {', '.join(mix)}")
    weights = torch.tensor([mix.get(sort, 0.0) for sort in MIX])
    sorts = torch.multinomial(weights, n, replacement=True, generator=generator).tolist()
    draws = torch.rand(n, 5, generator=generator, dtype=torch.float64).tolist()
    drawn = [_objects([*MIX][sort], *u[1:]) for sort, u in zip(sorts, draws, strict=True)]
    centers = _place([[(kind[0], size) for kind, size in objects] for objects in drawn], generator).tolist()
    return [
        Scene(
            _pick((*BACKGROUNDS,), u[0]),
            tuple(Object(*kind, size, (x, y)) for (kind, size), (x, y) in zip(objects, at, strict=False)),
        )
        for u, objects, at in zip(draws, drawn, centers, strict=True)
    ]


def _pick(options: Sequence[T], u: float) -> T:
    return options[int(u * len(options))]


def _objects(sort: str, which: float, one: float, other: float, many: float) -> list[tuple[Kind, str]]:
    """The kinds and sizes of a scene of this sort, from four numbers uniform on [0, 1)."""
    sizes = _pick((*SIZES,), one), _pick((*SIZES,), other)
    if sort == "pair":
        return [*zip(_pick(PAIRS, which), sizes, strict=True)]
    return [(_pick(KINDS, which), sizes[0])] * (1 if sort == "one" else _pick((2, 3), many))


def _place(objects: Sequence[Sequence[tuple[str, str]]], generator: Generator | None) -> Tensor:
    """Centers (n, OBJECTS, 2) for shapes of these sizes: 32 tries at a time, until nothing is too close."""
    absent = len(SHAPES) * len(SIZES)
    rows = torch.tensor([[_row(*o) for o in row] + [absent] * (OBJECTS - len(row)) for row in objects])
    margins = torch.tensor([*MARGIN.values()] * len(SHAPES) + [SIDE // 2])[rows]
    centers, left = torch.zeros(*rows.shape, 2, dtype=torch.long), torch.arange(len(rows))
    while len(left):
        row, margin = rows[left], margins[left, None, :, None]
        u = torch.rand(len(left), 32, OBJECTS, 2, generator=generator)
        tried = margin + 2 * (u * ((SIDE - 2 * margin) // 2 + 1)).long()
        fine = torch.ones(tried.shape[:2], dtype=torch.bool)
        for a, b in itertools.combinations(range(OBJECTS), 2):
            x, y = ((tried[:, :, b] - tried[:, :, a]) // 2 + REACH).unbind(-1)
            fine &= _gaps()[row[:, None, a], row[:, None, b], y, x] >= GAP
        centers[left] = tried[torch.arange(len(left)), fine.long().argmax(1)]
        left = left[~fine.any(1)]
    return centers
