"""The detector: no errors on what is drawn, chance on what is said of others, and what it calls unknown."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from flowcourse.shapes.captions import describe, judge
from flowcourse.shapes.detector import DIFFERENT, SPECK, UNKNOWN, detect
from flowcourse.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    MAGENTA,
    SHAPES,
    SIZES,
    Object,
    Scene,
    render,
    sample,
)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def known(scene: Scene) -> tuple[str, frozenset[Object]]:
    return scene.background, frozenset(scene.objects)


def errors(scenes: list[Scene], pictures: Tensor) -> int:
    return sum(known(a) != known(b) for a, b in zip(detect(pictures), scenes, strict=True))


SCENES = sample(3000, generator=generator())
PICTURES = render(SCENES)


def test_it_makes_no_errors_on_what_is_drawn():
    assert errors(SCENES, PICTURES) == 0


def test_it_tells_everything_apart_everywhere():
    scenes = [
        Scene(background, (Object(shape, color, size, center),))
        for background, shape, color, size in product(BACKGROUNDS, SHAPES, COLORS, SIZES)
        for center in ((8, 8), (24, 18), (14, 24))
    ]
    assert errors(scenes, render(scenes)) == 0


def test_a_color_that_a_larger_palette_knows_is_found_and_one_that_it_lacks_is_not():
    larger = COLORS | MAGENTA
    repainted = [
        replace(
            scene,
            objects=tuple(replace(o, color="magenta") if o.color == "red" else o for o in scene.objects),
        )
        for scene in SCENES[:500]
    ]
    pictures = render(repainted, palette=larger)
    for scene, found in zip(repainted, detect(pictures, palette=larger), strict=True):
        assert known(found) == known(scene)
    assert "magenta" in {o.color for scene in repainted for o in scene.objects}
    assert "magenta" not in {o.color for scene in detect(pictures) for o in scene.objects}
    with pytest.raises(KeyError, match="magenta"):
        render([Scene("white", (Object("ring", "magenta", "small", (8, 8)),))])


def test_it_forgives_a_twentieth_of_noise():
    noise = 0.05 * torch.randn(PICTURES[:500].shape, generator=generator(1))
    assert errors(SCENES[:500], PICTURES[:500] + noise) == 0


def test_true_captions_are_obeyed_and_shuffled_ones_by_chance():
    said = describe(SCENES, generator=generator(1))
    found = detect(PICTURES)
    assert all(map(judge, found, said))
    other = torch.randperm(len(said), generator=generator(2)).tolist()
    assert sum(judge(found[k], demand) for k, demand in zip(other, said, strict=True)) < 0.03 * len(said)


def alone(object: Object) -> Tensor:
    return render([Scene("white", (object,))])


def test_objects_that_touch_are_one_that_is_unknown():
    pictures = render(
        [
            Scene(
                "white",
                (Object("square", "red", "large", (10, 16)), Object("square", "red", "large", (20, 16))),
            )
        ]
    )
    (scene,) = detect(pictures)
    assert [o.shape for o in scene.objects] == [UNKNOWN] and scene.objects[0].color == "red"


def test_a_speck_is_nothing_and_a_blot_is_unknown():
    picture = alone(Object("circle", "blue", "large", (20, 20)))
    picture[0, :, 4, 2 : 2 + SPECK - 1] = 0.0
    (scene,) = detect(picture)
    assert len(scene.objects) == 1
    picture[0, :, 4, 2 : 2 + SPECK] = 0.0
    (scene,) = detect(picture)
    assert sorted(o.shape for o in scene.objects) == ["circle", UNKNOWN]


def test_a_color_between_all_is_unknown():
    picture = alone(Object("circle", "blue", "large", (20, 20)))
    ink = torch.tensor(COLORS["blue"])[:, None, None]
    brown = torch.tensor([0.3, 0.25, 0.1])[:, None, None]
    share = (1 - picture[0]).sum(0) / (1 - ink).sum()
    (scene,) = detect((1 + share * (brown - 1))[None])
    assert [(o.shape, o.color) for o in scene.objects] == [("circle", UNKNOWN)]


def test_faint_stains_are_background():
    picture = torch.ones(1, 3, 32, 32)
    picture[0, :, 10:20, 10:20] -= DIFFERENT - 0.01
    assert detect(picture) == [Scene("white", ())]
    picture[0, :, 10:20, 10:20] -= 0.02
    assert len(detect(picture)[0].objects) == 1


def test_a_background_of_no_name_is_unknown():
    assert detect(torch.full((1, 3, 32, 32), 0.5)) == [Scene(UNKNOWN, ())]


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\), got \(1, 3, 64, 64\)"):
        detect(torch.zeros(1, 3, 64, 64))
    assert detect(torch.zeros(0, 3, 32, 32)) == []
