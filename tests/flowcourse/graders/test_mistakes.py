"""Answers that graders declare, and those that they do not: right ones pass, and each wrong one is named."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from flowcourse import GradeError, check, graders
from flowcourse.exercises import ExerciseError, exercises, find

CHAPTERS = [int(file.stem[-2:]) for file in sorted(Path(graders.__path__[0]).glob("chapter_*.py"))]
EXERCISES = [exercise for chapter in CHAPTERS for exercise in exercises(chapter)]
ANSWERS = [runpy.run_path(str(file)) for file in sorted(Path(__file__).parent.glob("answers_*.py"))]
RIGHT = [
    *((exercise.number, exercise.right) for exercise in EXERCISES),
    *(answer for chapter in ANSWERS for answer in chapter["RIGHT"]),
]
MISTAKES = [
    (exercise.number, answer, diagnosis) for exercise in EXERCISES for diagnosis, answer in exercise.mistakes
]
WRONG = [answer for chapter in ANSWERS for answer in chapter["WRONG"]]


def numbered(answers):
    return [f"{number}-{i}" for i, (number, *_) in enumerate(answers)]


@pytest.fixture(autouse=True)
def _global_randomness_is_left_alone():
    """Even by answers that draw from it, which the fixture for all tests would blame on the grader."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=numbered(RIGHT))
def test_right_answers_pass_and_tell_what_they_show(number, answer, capsys):
    check(number, answer)
    assert capsys.readouterr().out == f"✓ {number} {find(number).title}: {find(number).insight}\n"


@pytest.mark.parametrize(("number", "answer", "diagnosis"), MISTAKES, ids=numbered(MISTAKES))
def test_every_declared_mistake_gets_its_own_diagnosis(number, answer, diagnosis):
    """And so no two with different diagnoses look alike to the probes, and each wrong option says its own feedback."""
    with pytest.raises(GradeError) as caught:
        check(number, answer)
    assert str(caught.value) == diagnosis


@pytest.mark.parametrize(("number", "answer", "words"), WRONG, ids=numbered(WRONG))
def test_wrong_answers_that_no_mistake_covers_are_diagnosed(number, answer, words):
    with pytest.raises(GradeError, match=words) as caught:
        check(number, answer)
    assert len(str(caught.value)) > 25


@pytest.mark.parametrize("answer", [None, 0.5, "x", [1.0], torch.zeros(3), {}], ids=repr)
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.number)
def test_what_is_no_answer_at_all_is_said_so(exercise, answer):
    with pytest.raises(GradeError, match="one letter" if exercise.options else "hand in the function"):
        check(exercise.number, answer)


NO_FUNCTIONS = {
    "takes no arguments": (lambda: 1.0, "raised TypeError"),
    "raises": (lambda *_: {}["a"], r"raised KeyError: 'a'. It came up in line \d+ of your code: "),
    "returns nothing": (lambda *_: None, "NoneType"),
    "returns a text": (lambda *_: "much", "str"),
    "returns NaN": (lambda *_: float("nan"), "NaN|tensor|two things|three numbers|two numbers|function"),
}


@pytest.mark.parametrize("kind", NO_FUNCTIONS)
@pytest.mark.parametrize(
    "exercise", [each for each in EXERCISES if not each.options], ids=lambda exercise: exercise.number
)
def test_functions_of_the_wrong_kind_are_told(exercise, kind):
    answer, words = NO_FUNCTIONS[kind]
    with pytest.raises(GradeError) as caught:
        check(exercise.number, answer)
    if "never called" not in str(caught.value):
        assert re.search(words, str(caught.value))
    assert {*re.findall(r"\bmy_\w+(?=\()", str(caught.value))} <= {exercise.grade.signature.split("(")[0]}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.number)
def test_three_different_hints_without_tex(exercise):
    assert len(set(exercise.hints)) == 3
    texts = [*exercise.hints, exercise.insight, *(diagnosis for diagnosis, _ in exercise.mistakes)]
    texts += [option.text for option in exercise.options]
    assert not re.search(r"\\[a-z]|\$", " ".join(texts))


@pytest.mark.parametrize(
    "exercise", [each for each in EXERCISES if each.options], ids=lambda exercise: exercise.number
)
def test_each_of_four_options_has_its_own_feedback(exercise):
    assert len({option.feedback for option in exercise.options}) == len(exercise.options) == 4
    assert all(len(option.feedback) > 60 for option in exercise.options)


@pytest.mark.parametrize("answer", ["B", " (b) ", "b."])
def test_a_letter_may_be_written_in_several_ways(answer, capsys):
    check("1.1", answer)
    assert capsys.readouterr().out.startswith("✓ 1.1 ")


@pytest.mark.parametrize("answer", [["b"], ("b",), {"b"}, 2, None, len], ids=repr)
def test_what_is_no_letter_is_told_what_the_answer_is(answer):
    with pytest.raises(GradeError, match=r'the answer is one letter of a, b, c, d, such as "a"; this is '):
        check("1.1", answer)


@pytest.mark.parametrize(
    ("number", "known"),
    [("2.99", "2.1, 2.2"), (2.99, "2.1, 2.2"), ("99.1", "none"), ("two", "none"), (["1.1"], "none")],
    ids=repr,
)
def test_an_exercise_that_is_not_there_is_told_which_ones_are(number, known):
    with pytest.raises(ExerciseError, match=f"there is no exercise .*; known are {known}") as told:
        check(number, len)
    assert told.value._render_traceback_() == [str(told.value)]  # which notebooks show alone
