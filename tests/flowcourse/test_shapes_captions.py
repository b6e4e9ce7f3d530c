"""Captions: the grammar and its inverse, what is true of a scene, and what training and evaluation say."""

from dataclasses import replace

import pytest
from torch import Generator

from flowcourse.shapes.captions import (
    LONGEST,
    PROMPTS,
    RELATIONS,
    WORDS,
    Demand,
    Thing,
    describe,
    holds,
    judge,
    parse,
    prompts,
)
from flowcourse.shapes.scenes import HELD_OUT_KINDS, HELD_OUT_PAIRS, Object, Scene, sample


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


RED_CIRCLE = Object("circle", "red", "small", (8, 10))
BLUE_SQUARE = Object("square", "blue", "large", (22, 12))
SCENE = Scene("white", (RED_CIRCLE, BLUE_SQUARE))
RINGS = Scene("black", tuple(Object("ring", "blue", "small", (x, 16)) for x in (6, 16, 26)))


@pytest.mark.parametrize(
    "caption",
    [
        "a circle and a square",
        "a blue square and a red circle",  # in any order
        "a small circle left of a large blue square on white",
        "a square right of a circle",
    ],
)
def test_true_captions_are_obeyed(caption: str):
    assert judge(SCENE, parse(caption))


@pytest.mark.parametrize(
    "caption",
    [
        "a circle",  # one too many
        "two circles",
        "a blue circle and a red square",  # bound the wrong way
        "a circle right of a square",
        "a circle above a square",  # by two pixels only
        "a circle and a square on black",
        "a large circle and a square",
        "a circle and a ring",
    ],
)
def test_false_captions_are_not(caption: str):
    assert not judge(SCENE, parse(caption))


def test_counts_are_exact():
    assert judge(RINGS, parse("three blue rings on black"))
    assert not judge(RINGS, parse("two blue rings"))
    assert not judge(replace(RINGS, objects=RINGS.objects[:2]), parse("three rings"))
    other = replace(RINGS.objects[0], color="red")
    mixed = replace(RINGS, objects=(other, *RINGS.objects[1:]))
    assert judge(mixed, parse("three rings")) and not judge(mixed, parse("three blue rings"))


def test_either_of_two_likes_may_be_the_first():
    """A relation holds if some order of the objects satisfies it with all attributes."""
    pair = Scene("white", (replace(RED_CIRCLE, center=(22, 10)), Object("circle", "blue", "small", (8, 10))))
    assert judge(pair, parse("a circle left of a red circle"))
    assert not judge(pair, parse("a red circle left of a circle"))


def test_relations_need_four_pixels():
    def at(x: int, y: int) -> Object:
        return replace(RED_CIRCLE, center=(x, y))

    assert holds("left of", at(10, 10), at(14, 30)) and not holds("left of", at(10, 10), at(12, 10))
    assert holds("above", at(10, 10), at(10, 14)) and not holds("below", at(10, 10), at(10, 14))
    for name, opposite in (("left of", "right of"), ("above", "below")):
        for a, b in ((at(6, 8), at(20, 26)), (at(20, 8), at(6, 26))):
            assert holds(name, a, b) == holds(opposite, b, a) != holds(opposite, a, b)


def test_the_grammar_inverts_what_demands_say():
    demands = [demand for skill in PROMPTS.values() for demand in skill]
    demands += describe(sample(2000, generator=generator()), generator=generator(1))
    for demand in demands:
        caption = str(demand)
        assert parse(caption) == demand
        assert len(caption.split()) <= LONGEST and set(caption.split()) <= set(WORDS)
    assert len(WORDS) == len(set(WORDS)) == 31
    assert str(parse("An orange circle, on black.")) == "an orange circle on black"


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a red cirlce", "'cirlce' is not among the 31 words; the nearest is 'circle'"),
        ("", "got the end"),
        ("red circle", "expected 'a' or 'an' or 'two' or 'three', got 'red'"),
        ("a red", "got the end"),
        ("two circle", "'circles'"),
        ("a circle on square", "expected 'white' or 'black', got 'square'"),
        ("a circle and", "got the end"),
        ("two circles and a square", "expected the caption to end before 'and a square'"),
        ("a red small circle", "got 'small'"),
    ],
)
def test_what_is_no_caption_is_told_why(caption: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse(caption)


def test_captions_of_training_are_true():
    scenes = sample(3000, generator=generator())
    assert all(map(judge, scenes, describe(scenes, generator=generator(1))))


def form(demand: Demand) -> tuple:
    """What a sentence says, but for which shapes, colors and places."""
    things = tuple((thing.color is None, thing.size is None) for thing in demand.things)
    alike = len(things) > 1 and demand.relation is None and len(set(demand.things)) == 1
    return things, alike, demand.relation, demand.background is None


def test_training_says_every_form_that_is_evaluated():
    scenes = sample(4000, generator=generator())
    said = {form(demand) for demand in describe(scenes, generator=generator(1))}
    for skill, demands in PROMPTS.items():
        assert {form(demand) for demand in demands} <= said, skill


def test_only_the_held_out_skills_ask_for_what_is_held_out():
    kinds = {Thing(*kind) for kind in HELD_OUT_KINDS}
    pairs = {frozenset(Thing(*kind) for kind in pair) for pair in HELD_OUT_PAIRS}
    for skill, demands in PROMPTS.items():
        if skill == "held-out kinds":
            assert all(set(demand.things) <= kinds for demand in demands)
        elif skill == "held-out pairs":
            assert {frozenset(demand.things) for demand in demands} == pairs
        else:
            for demand in demands:
                assert not set(demand.things) & kinds and frozenset(demand.things) not in pairs


def test_prompts_come_once_before_they_come_again():
    drawn = prompts("one object", 13, generator=generator())
    assert [drawn.count(prompt) for prompt in PROMPTS["one object"]].count(3) == 3
    assert set(drawn[:5]) == set(drawn[5:10]) == set(PROMPTS["one object"])
    assert {d.relation for d in PROMPTS["relation"]} == set(RELATIONS)
    with pytest.raises(ValueError, match="skill must be one of one object, "):
        prompts("drawing", 3)
