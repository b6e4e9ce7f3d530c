"""Captions: what a sentence demands of a scene, the sentences that training sees, and the prompts of the evaluation.

The grammar, in 31 words and at most 12 of them:

    caption := things ["on" background]
    things  := thing | thing "and" thing | thing relation thing | number [size] [color] plural
    thing   := ("a" | "an") [size] [color] shape
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator

from flowcourse.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    DISTINCT,
    HELD_OUT_KINDS,
    HELD_OUT_PAIRS,
    KINDS,
    SHAPES,
    SIZES,
    Kind,
    Object,
    Scene,
)

# The direction (x, y) from the second object to the first: y points down.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
APART = 4  # pixels along that direction, at least, for a relation to hold
NUMBERS = {2: "two", 3: "three"}
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
WORDS = (
    *("a", "an", *NUMBERS.values(), "and", "on"),
    *dict.fromkeys(word for relation in RELATIONS for word in relation.split()),
    *SIZES,
    *COLORS,
    *BACKGROUNDS,
    *SHAPES,
    *PLURALS.values(),
)
LONGEST = 12  # words: "a small red circle left of a large blue square on black"


@dataclass(frozen=True)
class Thing:
    """A shape as a sentence names it; color and size may be left open."""

    shape: str
    color: str | None = None
    size: str | None = None

    def fits(self, found: Object) -> bool:
        """Whether the object is such a thing."""
        return (
            self.shape == found.shape
            and self.color in (None, found.color)
            and self.size in (None, found.size)
        )


@dataclass(frozen=True)
class Demand:
    """What a caption asks for: exactly these things, the first in this relation to the second, on this background."""

    things: tuple[Thing, ...]
    relation: str | None = None
    background: str | None = None

    def __str__(self) -> str:
        """The caption."""
        first, *others = self.things
        if not others:
            said = _one(first)
        elif len(self.things) == 2 and (self.relation or first != others[0]):
            said = f"{_one(first)} {self.relation or 'and'} {_one(others[0])}"
        else:
            words = (NUMBERS[len(self.things)], first.size, first.color, PLURALS[first.shape])
            said = " ".join(filter(None, words))
        return f"{said} on {self.background}" if self.background else said


def _one(thing: Thing) -> str:
    words = [*filter(None, (thing.size, thing.color, thing.shape))]
    return " ".join(["an" if words[0] == "orange" else "a", *words])


def holds(relation: str, first: Object, second: Object) -> bool:
    """Whether the first object lies so of the second: by at least `APART` pixels between their centers."""
    offset = (a - b for a, b in zip(first.center, second.center, strict=True))
    return sum(d * o for d, o in zip(RELATIONS[relation], offset, strict=True)) >= APART


def judge(scene: Scene, demand: Demand) -> bool:
    """Whether the scene is what the caption demands: no thing less and none more, in some order that satisfies all."""
    if len(scene.objects) != len(demand.things) or demand.background not in (None, scene.background):
        return False
    return any(
        all(thing.fits(o) for thing, o in zip(demand.things, order, strict=True))
        and (demand.relation is None or holds(demand.relation, order[0], order[1]))
        for order in itertools.permutations(scene.objects)
    )


def parse(caption: str) -> Demand:
    """What the caption demands; the inverse of `str`.

    Raises:
        ValueError: a word is unknown, and which known one is nearest; or the sentence is none of the grammar.

    >>> parse("a red circle left of a small square on black").relation
    'left of'
    """
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1, cutoff=0)[0]
            raise ValueError(f"{word!r} is not among the {len(WORDS)} words; the nearest is {near!r}")
    reader = _Reader(words)
    demand = reader.caption()
    if reader.words:
        raise ValueError(f"expected the caption to end before {' '.join(reader.words)!r}")
    return demand


class _Reader:
    """The words that are left of a caption, and the rules of the grammar, each of which takes its own."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def maybe(self, options: Sequence[str]) -> str | None:
        """The next words, if they are one of these."""
        for option in options:
            said = option.split()
            if self.words[: len(said)] == said:
                del self.words[: len(said)]
                return option
        return None

    def need(self, options: Sequence[str]) -> str:
        found = self.maybe(options)
        if found is None:
            came = repr(self.words[0]) if self.words else "the end"
            raise ValueError(f"expected {' or '.join(map(repr, options))}, got {came}")
        return found

    def caption(self) -> Demand:
        opening = self.need(("a", "an", *NUMBERS.values()))
        many = {word: n for n, word in NUMBERS.items()}.get(opening, 1)
        things, relation = [self.thing(many)] * many, None
        if many == 1 and (relation := self.maybe(("and", *RELATIONS))):
            self.need(("a", "an"))
            things.append(self.thing(1))
        background = self.need((*BACKGROUNDS,)) if self.maybe(("on",)) else None
        return Demand(tuple(things), None if relation == "and" else relation, background)

    def thing(self, many: int) -> Thing:
        size, color = self.maybe((*SIZES,)), self.maybe((*COLORS,))
        shapes = {PLURALS[shape] if many > 1 else shape: shape for shape in SHAPES}
        return Thing(shapes[self.need((*shapes,))], color, size)


def describe(scenes: Sequence[Scene], *, generator: Generator | None = None) -> list[Demand]:
    """A true caption for each scene, as training shows it: what it mentions, and in which order, is drawn.

    Colors are named for all objects (6 in 10), for none (3 in 10) or for one; a size is named 1 time in 4, the
    background 1 in 5; two kinds are joined by a relation that holds or, half the time, by a bare "and". Two of one
    shape are always told apart by their colors.
    """
    draws = torch.rand(len(scenes), 8, generator=generator, dtype=torch.float64).tolist()
    return [_describe(scene, *u) for scene, u in zip(scenes, draws, strict=True)]


def _describe(
    scene: Scene, colors: float, which: float, one: float, other: float, back: float, order: float,
    joined: float, relation: float,
) -> Demand:  # fmt: skip
    background = scene.background if back < 0.2 else None
    objects = scene.objects if order < 0.5 else scene.objects[::-1]
    alike = all(o == replace(objects[0], center=o.center) for o in objects)
    named = [True, True] if colors < 0.6 else [False, False] if colors < 0.9 else [which < 0.5, which >= 0.5]
    if not alike and objects[0].shape == objects[1].shape:
        named = [True, True]
    things = [
        Thing(o.shape, o.color if color else None, o.size if size < 0.25 else None)
        for o, color, size in zip(objects, named, (one, other), strict=False)
    ]
    if alike:
        return Demand((things[0],) * len(objects), None, background)
    true = [name for name in RELATIONS if holds(name, objects[0], objects[1])]
    return Demand(
        tuple(things), true[int(relation * len(true))] if true and joined < 0.5 else None, background
    )


# The evaluation: for every skill all its prompts.


def _things(kinds: Sequence[Kind]) -> list[Thing]:
    return [Thing(shape, color) for shape, color in kinds]


def _pairs(pairs: Sequence[tuple[Kind, Kind]], relations: Sequence[str | None]) -> Iterator[Demand]:
    for pair, relation in itertools.product(pairs, relations):
        for things in (_things(pair), _things(pair[::-1])):
            yield Demand(tuple(things), relation)


_SHAPES = [Thing(shape) for shape in SHAPES]
_TRAINED = [pair for pair in DISTINCT if pair not in HELD_OUT_PAIRS]
PROMPTS: dict[str, tuple[Demand, ...]] = {
    "one object": tuple(Demand((thing,)) for thing in _SHAPES),
    "color": tuple(Demand((thing,)) for thing in _things(KINDS)),
    "size": tuple(Demand((replace(thing, size=size),)) for thing in _SHAPES for size in SIZES),
    "background": tuple(Demand((thing,), None, back) for thing in _things(KINDS) for back in BACKGROUNDS),
    "two objects": tuple(Demand(pair) for pair in itertools.permutations(_SHAPES, 2)),
    "count": tuple(Demand((thing,) * n) for thing in (*_SHAPES, *_things(KINDS)) for n in NUMBERS),
    "relation": tuple(
        Demand(pair, relation) for pair in itertools.permutations(_SHAPES, 2) for relation in RELATIONS
    ),
    "attribute binding": tuple(_pairs(_TRAINED, (None,))),
    "relation with colors": tuple(_pairs(_TRAINED, (*RELATIONS,))),
    "held-out kinds": tuple(Demand((thing,)) for thing in _things(HELD_OUT_KINDS)),
    "held-out pairs": tuple(_pairs(HELD_OUT_PAIRS, (None, *RELATIONS))),
}


def prompts(skill: str, n: int, *, generator: Generator | None = None) -> list[Demand]:
    """n prompts of a skill, in random order: all of them before one comes again."""
    if skill not in PROMPTS:
        raise ValueError(f"skill must be one of {', '.join(PROMPTS)}, got {skill!r}")
    known = PROMPTS[skill]
    rounds = [torch.randperm(len(known), generator=generator) for _ in range(-(-n // len(known)))]
    return [known[k] for k in torch.cat(rounds)[:n].tolist()]
