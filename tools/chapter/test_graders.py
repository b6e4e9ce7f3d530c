"""The exercises of chapter {{number}}: right answers pass, and every known mistake gets its own diagnosis."""

import pytest

from flowcourse import GradeError, check


def point(x_0, x_1, t):
    return (1 - t[:, None]) * x_0 + t[:, None] * x_1


@pytest.mark.parametrize(("number", "answer"), [("{{number}}.1", "b"), ("{{number}}.2", point)])
def test_right_answers_pass(number, answer):
    check(number, answer)


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("{{number}}.1", "a", "backwards"),
        ("{{number}}.2", lambda x_0, x_1, t: point(x_1, x_0, t), "backwards"),
        ("{{number}}.2", lambda x_0, x_1, t: point(x_0, x_1, t) - x_0, "where it started"),
        ("{{number}}.2", lambda x_0, x_1, t: x_0, "the result is not"),
    ],
)
def test_wrong_answers_are_diagnosed(number, answer, words):
    with pytest.raises(GradeError, match=words):
        check(number, answer)
