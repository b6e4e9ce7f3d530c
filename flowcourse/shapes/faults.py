"""What is wrong with a scene that does not obey its caption, in a word (chapter 10)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from flowcourse.shapes.captions import Demand, judge
from flowcourse.shapes.detector import UNKNOWN
from flowcourse.shapes.scenes import Scene

FAULTS = (
    *(
        "too few objects",
        "too many objects",
        "unreadable",
        "wrong relation",
        "wrong background",
        "wrong size",
    ),
    *("exchanged colors", "wrong color", "wrong shape", "several"),
)


def fault(scene: Scene, demand: Demand) -> str | None:
    """The first of FAULTS that the scene has; None if it is what the caption demands.

    A scene with the right number of objects, all readable, has a wrong relation, say, if it is what the demand without
    its relation demands, and so for background, size, color and shape; if no one of them is to be blamed, several are.

    >>> from flowcourse.shapes.captions import parse
    >>> from flowcourse.shapes.scenes import Object
    >>> fault(Scene("white", (Object("ring", "red", "small", (8, 8)),)), parse("a blue ring"))
    'wrong color'
    """
    if judge(scene, demand):
        return None
    if len(scene.objects) != len(demand.things):
        return "too few objects" if len(scene.objects) < len(demand.things) else "too many objects"
    if any(UNKNOWN in (o.shape, o.color, o.size) for o in scene.objects):
        return "unreadable"
    things = demand.things
    if judge(scene, replace(demand, relation=None)):
        return "wrong relation"
    if judge(scene, replace(demand, background=None)):
        return "wrong background"
    if judge(scene, replace(demand, things=tuple(replace(thing, size=None) for thing in things))):
        return "wrong size"
    if judge(scene, replace(demand, things=tuple(replace(thing, color=None) for thing in things))):
        right = Counter(o.color for o in scene.objects) == Counter(thing.color for thing in things)
        return "exchanged colors" if right else "wrong color"
    if judge(_as_one(scene), replace(demand, things=tuple(replace(thing, shape="any") for thing in things))):
        return "wrong shape"
    return "several"


def _as_one(scene: Scene) -> Scene:
    """The scene as one sees it who does not tell shapes apart."""
    return replace(scene, objects=tuple(replace(o, shape="any") for o in scene.objects))
