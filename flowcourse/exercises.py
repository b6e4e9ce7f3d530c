"""Exercises that grade themselves, with answers that diagnose instead of saying "wrong".

Each chapter has a module `chapter_NN` that declares its exercises with `choice` (pick one statement) and `exercise` (a
number, a formula or code, with the mistakes that can be made). Readers call `check`, `hint`, `hints` and `quiz` with
the number of an exercise.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowcourse.grading import Answer, GradeError, Grader, Mistake, Probe

__all__ = ["Exercise", "ExerciseError", "GradeError", "Option", "check", "choice", "exercise", "find", "hint"]


class ExerciseError(ValueError):
    """There is no such exercise or hint. Notebooks show the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Option:
    """One statement of a multiple-choice question and what picking it tells."""

    text: str
    feedback: str
    right: bool = False


@dataclass(frozen=True)
class Exercise:
    """What `check`, `hint` and `quiz` know of one exercise.

    Args:
        number: chapter and exercise, such as "1.4".
        title: a few words.
        grade: takes the answer; returns nothing if it is right and raises GradeError with a diagnosis if it is not.
        hints: three, each giving away more than the last.
        insight: what the right answer shows, in a sentence.
        right: a right answer.
        mistakes: wrong answers, each with its diagnosis.
        question: the question of a multiple-choice exercise, else None.
        options: its statements, exactly one of them right.
    """

    number: str
    title: str
    grade: Callable[[Any], None]
    hints: tuple[str, str, str]
    insight: str
    right: Any
    mistakes: tuple[tuple[str, Any], ...]
    question: str | None = None
    options: tuple[Option, ...] = ()


_EXERCISES: dict[str, Exercise] = {}
_HINTS_GIVEN: dict[str, int] = {}


def exercise(
    number: str,
    title: str,
    signature: str,
    *probes: Probe,
    right: Answer,
    mistakes: Sequence[Mistake],
    hints: tuple[str, str, str],
    insight: str,
) -> None:
    """Declare an exercise whose answer is the function `signature`, measured by the probes one after the other."""
    grade = Grader(signature, probes, right, mistakes)
    _EXERCISES[number] = Exercise(number, title, grade, hints, insight, right, tuple(mistakes))


def choice(number: str, title: str, question: str, *options: Option, hints: tuple[str, str, str]) -> None:
    """Declare a multiple-choice exercise; its answer is a letter, "a" for the first option.

    Raises:
        ValueError: the number of right options is not one.
    """
    letters = {chr(ord("a") + i): option for i, option in enumerate(options)}
    right = [letter for letter, option in letters.items() if option.right]
    if len(right) != 1:
        raise ValueError(f"question {number} needs exactly one right option, not {len(right)}")

    def diagnose(answer: Any) -> None:
        letter = re.sub(r"[^a-z]", "", answer.lower()) if isinstance(answer, str) else ""
        if letter not in letters:
            raise GradeError(
                f'the answer is one letter of {", ".join(letters)}, such as "a"; this is {answer!r}'
            )
        if not letters[letter].right:
            raise GradeError(letters[letter].feedback)

    mistakes = tuple((option.feedback, letter) for letter, option in letters.items() if not option.right)
    insight = letters[right[0]].feedback
    _EXERCISES[number] = Exercise(
        number, title, diagnose, hints, insight, right[0], mistakes, question, options
    )


def exercises(chapter: int) -> list[Exercise]:
    """The exercises of a chapter in their order; none if it has no graders."""
    module = f"flowcourse.graders.chapter_{chapter:02d}"
    if importlib.util.find_spec(module):
        importlib.import_module(module)
    return [found for number, found in _EXERCISES.items() if number.startswith(f"{chapter}.")]


def find(number: str) -> Exercise:
    """The exercise of that number.

    Raises:
        ExerciseError: there is none.
    """
    number = str(number)
    known = exercises(int(number.split(".")[0])) if re.fullmatch(r"\d+\.\d+", number) else []
    if number not in _EXERCISES:
        numbers = ", ".join(each.number for each in known) or "none of that chapter"
        raise ExerciseError(f"there is no exercise {number!r}; known are {numbers}")
    return _EXERCISES[number]


def check(number: str, answer: Any) -> None:
    """Grade an answer: prints what it shows if it is right, else raises GradeError with a diagnosis.

    >>> check("1.2", "a")
    ✓ 1.2 The velocity of a flow: ...
    """
    found = find(number)
    found.grade(answer)
    print(f"✓ {found.number} {found.title}: {found.insight}")


def hint(number: str, step: int | None = None) -> None:
    """Print the next of three hints, or hint `step` (1, 2 or 3).

    Raises:
        ExerciseError: step is not 1, 2 or 3.
    """
    found = find(number)
    if step is None:
        step = min(_HINTS_GIVEN.get(found.number, 0) + 1, 3)
        _HINTS_GIVEN[found.number] = step
    if step not in (1, 2, 3):
        raise ExerciseError(f"hints are numbered 1, 2 and 3, got {step!r}")
    print(f"Hint {step} of 3: {found.hints[step - 1]}")
