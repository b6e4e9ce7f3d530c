"""Exercises that grade themselves, with answers that diagnose instead of saying "wrong".

Each chapter has a module `chapter_NN` that declares its exercises with `choice` (pick one statement) and `exercise` (a
grader for a number, a formula or code). Readers call `check`, `hint`, `hints` and `quiz` with the exercise's number.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class GradeError(AssertionError):
    """An answer is not right yet; the message says what it does instead. Notebooks show the message alone."""

    def _render_traceback_(
        self,
    ) -> list[str]:  # IPython asks for this: no reader needs to see the grader's own stack
        return [f"✗ {self}"]


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
        question: the question of a multiple-choice exercise, else None.
        options: its statements, exactly one of them right.
    """

    number: str
    title: str
    grade: Callable[[Any], None]
    hints: tuple[str, str, str]
    insight: str
    question: str | None = None
    options: tuple[Option, ...] = ()


_EXERCISES: dict[str, Exercise] = {}
_HINTS_GIVEN: dict[str, int] = {}


def exercise(
    number: str, title: str, *, hints: tuple[str, str, str], insight: str
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Declare the decorated function to be the grader of exercise `number`."""

    def declare(grade: Callable[[Any], None]) -> Callable[[Any], None]:
        _EXERCISES[number] = Exercise(number, title, grade, hints, insight)
        return grade

    return declare


def choice(number: str, title: str, question: str, *options: Option, hints: tuple[str, str, str]) -> None:
    """Declare a multiple-choice exercise; its answer is a letter, "a" for the first option.

    Raises:
        ValueError: the number of right options is not one.
    """
    right = [option for option in options if option.right]
    if len(right) != 1:
        raise ValueError(f"question {number} needs exactly one right option, not {len(right)}")
    letters = {chr(ord("a") + i): option for i, option in enumerate(options)}

    def grade(answer: Any) -> None:
        letter = re.sub(r"[^a-z]", "", answer.lower()) if isinstance(answer, str) else answer
        if letter not in letters:
            raise GradeError(
                f'the answer is one letter of {", ".join(letters)}, such as "a"; this is {answer!r}'
            )
        if not letters[letter].right:
            raise GradeError(letters[letter].feedback)

    _EXERCISES[number] = Exercise(number, title, grade, hints, right[0].feedback, question, options)


def find(number: str) -> Exercise:
    """The exercise of that number.

    Raises:
        ValueError: there is none.
    """
    number = str(number)
    if re.fullmatch(r"\d+\.\d+", number) and number not in _EXERCISES:
        module = f"flowcourse.graders.chapter_{int(number.split('.')[0]):02d}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    if number not in _EXERCISES:
        known = ", ".join(_EXERCISES) or "none of that chapter"
        raise ValueError(f"there is no exercise {number!r}; known are {known}")
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
        ValueError: step is not 1, 2 or 3.
    """
    found = find(number)
    if step is None:
        step = min(_HINTS_GIVEN.get(found.number, 0) + 1, 3)
        _HINTS_GIVEN[found.number] = step
    if step not in (1, 2, 3):
        raise ValueError(f"hints are numbered 1, 2 and 3, got {step!r}")
    print(f"Hint {step} of 3: {found.hints[step - 1]}")


# What graders share


def call(function: Callable[..., Any], *arguments: Any, signature: str) -> Any:
    """function(*arguments), where what goes wrong inside is told in terms of the exercise."""
    if not callable(function):
        raise GradeError(f"hand in the function {signature} itself, not {type(function).__name__}")
    try:
        return function(*arguments)
    except GradeError:
        raise
    except Exception as error:
        shapes = [tuple(a.shape) for a in arguments if isinstance(a, Tensor)]
        at = f", called with tensors of shapes {shapes}" if shapes else ""
        raise GradeError(f"{signature}{at}, raised {type(error).__name__}: {error}") from error


def require_tensor(result: Any, like: Tensor, what: str) -> Tensor:
    """The result, if it is a finite tensor of the shape and dtype of `like`."""
    if not isinstance(result, Tensor):
        raise GradeError(f"{what} must be a tensor of shape {tuple(like.shape)}, not {type(result).__name__}")
    if result.shape != like.shape:
        raise GradeError(f"{what} must have shape {tuple(like.shape)}, not {tuple(result.shape)}")
    if result.dtype != like.dtype:
        raise GradeError(f"{what} must keep the precision of the points, {like.dtype}, not {result.dtype}")
    if not result.isfinite().all():
        raise GradeError(f"{what} holds NaN or infinity")
    return result.detach()


def agree(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether a and b differ by less than `tolerance` relative to the larger of them."""
    return bool(
        (a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()).clamp(min=1e-12)
    )


def diagnose(
    result: Tensor,
    right: Tensor,
    mistakes: Sequence[tuple[str, Tensor]],
    otherwise: str,
    tolerance: float = 1e-6,
) -> None:
    """Return if result is right, else raise GradeError: the diagnosis of the mistake it equals, or `otherwise`."""
    if agree(result, right, tolerance):
        return
    for diagnosis, value in mistakes:
        if agree(result, value, tolerance):
            raise GradeError(diagnosis)
    raise GradeError(otherwise)
