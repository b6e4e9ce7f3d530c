"""Scenes of shapes and their pictures: areas, places, gaps, and what training never shows."""

import math
from collections import Counter
from itertools import combinations, product

import pytest
import torch
from torch import Generator

from flowcourse.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    DISTINCT,
    GAP,
    HELD_OUT_KINDS,
    HELD_OUT_PAIRS,
    KINDS,
    MARGIN,
    PAIRS,
    SHAPES,
    SIDE,
    SIZES,
    Object,
    Scene,
    render,
    sample,
    signed_distance,
)

AREAS = {  # at radius 1
    "circle": math.pi,
    "square": 4 * 0.88**2,
    "triangle": 3 * 3**0.5 * 0.66**2,
    "cross": 2 * 4 * 0.34 - 4 * 0.34**2,
    "ring": math.pi * (1 - 0.48**2),
}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def covered(shape: str, size: str, center: tuple[int, int] = (16, 16), color: str = "red") -> torch.Tensor:
    """How much of each pixel of a picture the object covers."""
    picture = render([Scene("black", (Object(shape, color, size, center),))])[0]
    ground, paint = torch.tensor(BACKGROUNDS["black"]), torch.tensor(COLORS[color])
    return (picture[0] - ground[0]) / (paint[0] - ground[0])


@pytest.mark.parametrize(("shape", "size"), [*product(SHAPES, SIZES)])
def test_the_covered_area_is_that_of_the_shape(shape: str, size: str):
    assert float(covered(shape, size).sum()) == pytest.approx(AREAS[shape] * SIZES[size] ** 2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_signed_distance_has_slope_one_and_changes_its_sign_at_the_edge(shape: str):
    p = (20 * torch.rand(2000, 2, generator=generator(), dtype=torch.float64) - 10).requires_grad_()
    distance = signed_distance(shape, 5.0, p[:, 0], p[:, 1])
    (slope,) = torch.autograd.grad(distance.sum(), p)
    assert (slope.norm(dim=1) - 1).abs().quantile(0.99) < 1e-9  # but on the few ridges that points may hit
    assert 0 < (distance < 0).double().mean() < 0.25
    inside = (distance < 0).double().mean() * 400
    assert float(inside) == pytest.approx(25 * AREAS[shape], rel=0.2)  # 2000 points: 5 deviations


def test_moving_the_center_moves_the_picture():
    for shape in SHAPES:
        there = covered(shape, "small", (20, 10))
        assert torch.equal(there, covered(shape, "small").roll((-6, 4), (0, 1)))


def test_shapes_lie_upright_around_their_centers():
    for shape, size in product(SHAPES, SIZES):
        cover = covered(shape, size)
        torch.testing.assert_close(cover, cover.flip(1), rtol=0, atol=1e-6)  # left and right
        rows = cover.amax(1).nonzero()
        assert int(rows.min() + rows.max()) == SIDE - 1  # the bounding box is centered
    triangle = covered("triangle", "large").sum(1)
    assert triangle[:16].sum() < triangle[16:].sum()  # point up
    assert covered("ring", "small")[15:17, 15:17].sum() == 0 < covered("circle", "small")[15, 15]


def test_colors_and_backgrounds_are_exact_where_nothing_is_mixed():
    for color, background in product(COLORS, BACKGROUNDS):
        picture = render([Scene(background, (Object("square", color, "large", (10, 20)),))])[0]
        assert picture[:, 20, 10].tolist() == pytest.approx(COLORS[color])
        assert picture[:, 0, 0].tolist() == pytest.approx(BACKGROUNDS[background])


def test_objects_keep_their_gap_and_stay_off_the_border():
    scenes = sample(400, generator=generator())
    pictures = render(scenes)
    for scene, picture in zip(scenes, pictures, strict=True):
        edge = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1)
        assert torch.equal(edge, torch.tensor(BACKGROUNDS[scene.background])[:, None].expand_as(edge))
        at = torch.arange(SIDE) + 0.5
        y, x = torch.meshgrid(at, at, indexing="ij")
        inside = []
        for o in scene.objects:
            assert all(c % 2 == 0 and MARGIN[o.size] <= c <= SIDE - MARGIN[o.size] for c in o.center)
            distance = signed_distance(o.shape, SIZES[o.size], x - o.center[0], y - o.center[1])
            inside.append(torch.stack([x, y], -1)[distance < 0])
        for a, b in combinations(inside, 2):
            assert torch.cdist(a, b).min() >= GAP  # pixels' centers inside are no closer than the shapes


def test_what_is_held_out_is_never_drawn_and_all_else_is():
    scenes = sample(20_000, generator=generator())
    kinds = Counter((o.shape, o.color) for scene in scenes for o in scene.objects)
    assert set(kinds) == set(KINDS) and not set(kinds) & set(HELD_OUT_KINDS)
    drawn = {
        tuple((o.shape, o.color) for o in scene.objects)
        for scene in scenes
        if len({(o.shape, o.color) for o in scene.objects}) == 2
    }
    assert drawn == set(PAIRS)
    held_out = {frozenset(pair) for pair in HELD_OUT_PAIRS}
    assert not held_out & {frozenset(pair) for pair in drawn}
    assert len(HELD_OUT_PAIRS) == len(DISTINCT) // 10
    for shape, color in KINDS:  # each is met in training beside others
        assert sum((shape, color) in pair for pair in HELD_OUT_PAIRS) <= 5


def test_the_mix_is_as_told():
    scenes = sample(4000, generator=generator(), mix={"one": 1, "count": 3})
    sizes = Counter(len(scene.objects) for scene in scenes)
    for n, share in ((1, 0.25), (2, 0.375), (3, 0.375)):
        assert sizes[n] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)
    assert all(len({(o.shape, o.color, o.size) for o in scene.objects}) == 1 for scene in scenes)
    with pytest.raises(ValueError, match="one, pair, count, got many"):
        sample(1, mix={"many": 1})


def test_a_lone_center_is_uniform():
    scenes = sample(6000, generator=generator(), mix={"one": 1})
    small = [o.center for scene in scenes for o in scene.objects if o.size == "small"]
    counts = Counter(small)
    expected = len(small) / 11**2
    assert len(counts) == 11**2
    chi_squared = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_squared < 120 + 4 * math.sqrt(2 * 120)


def test_the_generator_alone_decides():
    assert sample(20, generator=generator(1)) == sample(20, generator=generator(1))
    assert sample(20, generator=generator(1)) != sample(20, generator=generator(2))
    assert render([]).shape == (0, 3, SIDE, SIDE)
