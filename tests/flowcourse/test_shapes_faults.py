"""What is wrong with a scene, in a word."""

import pytest
from torch import Generator

from flowcourse.shapes.captions import describe, judge, parse
from flowcourse.shapes.detector import UNKNOWN
from flowcourse.shapes.faults import FAULTS, fault
from flowcourse.shapes.scenes import Object, Scene, sample

RED = Object("circle", "red", "small", (8, 16))
BLUE = Object("square", "blue", "large", (22, 16))


def scene(*objects: Object) -> Scene:
    return Scene("black", objects)


@pytest.mark.parametrize(
    ("shown", "caption", "expected"),
    [
        (scene(RED, BLUE), "a red circle left of a large blue square on black", None),
        (scene(RED), "a red circle and a blue square", "too few objects"),
        (scene(RED, BLUE), "a red circle", "too many objects"),
        (scene(Object(UNKNOWN, "red", "small", (8, 8))), "a red circle", "unreadable"),
        (scene(RED, BLUE), "a red circle right of a blue square", "wrong relation"),
        (scene(RED), "a red circle on white", "wrong background"),
        (scene(RED), "a large red circle", "wrong size"),
        (scene(RED, BLUE), "a blue circle left of a red square", "exchanged colors"),
        (scene(RED, BLUE), "a red circle left of a green square", "wrong color"),
        (scene(RED, BLUE), "a red ring left of a blue square", "wrong shape"),
        (scene(RED), "a large blue circle", "several"),
    ],
)
def test_each_fault_has_its_name(shown: Scene, caption: str, expected: str | None):
    assert fault(shown, parse(caption)) == expected
    assert expected is None or expected in FAULTS


def test_there_is_a_fault_exactly_where_the_judge_sees_one():
    g = Generator().manual_seed(0)
    scenes = sample(300, generator=g)
    demands = describe(scenes, generator=g)
    assert [fault(s, d) for s, d in zip(scenes, demands, strict=True)] == [None] * 300
    for s, d in zip(scenes, demands[1:] + demands[:1], strict=True):
        assert (fault(s, d) is None) == judge(s, d)
