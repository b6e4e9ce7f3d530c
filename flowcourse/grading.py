"""How an answer that is a function is graded: it runs beside the right answer and the known mistakes, on probes.

A mistake is a diagnosis and a function that makes it, with the reader's signature. A probe measures a function: what it
returns for some arguments, how often it asks a field, what gradient it lets through. An answer whose measurement is not
that of the right answer is told the diagnosis of the mistake that measures the same.
"""

from __future__ import annotations

import math
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor

import flowlib

Answer = Callable[..., Any]
Mistake = tuple[str, Answer]

STEPS = 600_000  # of Python's, some ten to a line of the reader's code, that one call may take
EVALUATIONS = 5_000  # of a field by one answer


class GradeError(AssertionError):
    """An answer is not right yet; the message says what it does instead. Notebooks show the message alone."""

    def _render_traceback_(
        self,
    ) -> list[str]:  # IPython asks for this: no reader needs to see the grader's own stack
        return [f"✗ {self}"]


@dataclass(frozen=True)
class Probe:
    """One thing to measure of an answer.

    Args:
        measure: takes a function with the reader's signature; returns a tensor or a sequence of tensors, or raises
            GradeError. Whatever it returns is compared with the same measurement of the right answer.
        otherwise: the diagnosis where no mistake measures the same, as a text or from (result, right result, answer).
        tolerance: of the comparison, relative to the largest entry.
        beside: how the right answer and the mistakes are measured, from (function, the reader's result), if not alike.
        what: the name of what is measured, where it is not what the answer itself returns.
    """

    measure: Callable[[Answer], Any]
    otherwise: str | Callable[[Any, Any, Answer], str]
    tolerance: float = 1e-6
    beside: Callable[[Answer, Any], Any] | None = None
    what: str = ""


class Grader:
    """Grades answers that are functions: `Grader(...)(answer)` returns if the answer is right on each probe.

    Raises:
        GradeError: when called with an answer that is not right, with a diagnosis.
    """

    def __init__(
        self, signature: str, probes: Sequence[Probe], right: Answer, mistakes: Sequence[Mistake]
    ) -> None:
        self.signature, self.probes, self.mistakes = signature, probes, mistakes
        self.known = [guarded(function, signature) for function in (right, *(wrong for _, wrong in mistakes))]
        self.measured: dict[tuple[int, int], Any] = {}

    def __call__(self, answer: Any) -> None:
        """Grade one answer."""
        mine = guarded(answer, self.signature)
        for i, probe in enumerate(self.probes):
            reason = probe.otherwise if isinstance(probe.otherwise, str) else ""
            try:
                result = probe.measure(mine)
            except GradeError as error:
                raise GradeError(f"{reason} ({error})") if i and reason else error from error.__cause__
            if alike(result, right := self.measure(i, 0, result), probe.tolerance):
                continue
            for j, (diagnosis, _) in enumerate(self.mistakes, 1):
                if alike(result, self.measure(i, j, result), probe.tolerance) and self.right_before(i, j):
                    raise GradeError(diagnosis)
            if isinstance(right, Tensor):
                try:
                    require(result, right, probe.what or self.signature)
                except GradeError as error:
                    raise GradeError(f"{reason} ({error})") if reason else error from None
            raise GradeError(
                probe.otherwise if isinstance(probe.otherwise, str) else probe.otherwise(result, right, mine)
            )

    def measure(self, i: int, j: int, result: Any) -> Any:
        """What probe i says of the right answer, j = 0, or of a mistake; without `beside` it is measured only once."""
        probe = self.probes[i]
        if probe.beside or (i, j) not in self.measured:
            try:
                value = probe.beside(self.known[j], result) if probe.beside else probe.measure(self.known[j])
            except Exception:  # a mistake may fail where the reader's answer does not
                if j == 0:
                    raise
                value = NotImplemented  # is like nothing
            self.measured[i, j] = value
        return self.measured[i, j]

    def right_before(self, i: int, j: int) -> bool:
        """Whether mistake j is right on all probes before the i-th, as the reader's answer was."""
        return all(
            alike(self.measure(k, j, None), self.measure(k, 0, None), probe.tolerance)
            for k, probe in enumerate(self.probes[:i])
            if not probe.beside
        )


# Calling what a reader wrote


def guarded(function: Any, signature: str) -> Answer:
    """The function, such that what goes wrong inside is told in the reader's terms, and its arguments stay as they are.

    Raises:
        GradeError: when called, if the function raises an error, does not end, or changes one of its arguments.
    """
    if not callable(function):
        raise GradeError(f"hand in the function {signature} itself, not {type(function).__name__}")
    names = signature.partition("(")[2].rstrip(")").split(", ")

    def call(*arguments: Any) -> Any:
        mine, state = [_copy(argument) for argument in arguments], torch.get_rng_state()
        try:
            result = _watched(function, *mine)
            drawn = not torch.equal(state, torch.get_rng_state())
        except GradeError:
            raise
        except Exception as error:
            shapes = [tuple(a.shape) for a in arguments if isinstance(a, Tensor)]
            at = f", called with tensors of shapes {shapes}" if shapes else ""
            raise GradeError(
                f"{signature}{at}, raised {type(error).__name__}: {str(error).rstrip('.')}{_line(error)}"
            ) from error
        finally:
            torch.set_rng_state(state)
        for name, given, left in zip(names, arguments, mine, strict=False):
            if isinstance(given, Tensor) and not torch.equal(given, left.detach()):
                raise GradeError(
                    f"{name} was modified in place, or a part of it, and the caller needs it again: "
                    f"write {name} = {name} + ..., not {name} += ... (nor a method whose name ends in an underscore)"
                )
        if drawn and "generator" in names:
            raise GradeError(
                "torch's global generator was used: give generator=generator to every randn and rand, or no run can be "
                "repeated"
            )
        return result

    return call


def _copy(argument: Any) -> Any:
    if isinstance(argument, Generator):
        return Generator().set_state(argument.get_state())
    return argument.clone() if isinstance(argument, Tensor) else argument


_LIBRARIES = (
    *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(str(Path(file).parent) for file in (__file__, str(flowlib.__file__), torch.__file__)),
)


@cache
def _by_the_reader(file: str) -> bool:
    return not file.startswith((*_LIBRARIES, "<frozen"))


def _watched(function: Answer, *arguments: Any) -> Any:
    """function(*arguments), given up after so many steps of the reader's code that it would never end."""
    if sys.gettrace():  # a debugger is watching already
        return function(*arguments)
    left = STEPS

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not _by_the_reader(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        left -= event == "opcode"
        if left < 0:
            raise GradeError(
                f"after {STEPS:,} steps your code has not come to an end: is there a loop that never stops, or one "
                f"with far more rounds than are needed? It was in "
                f"line {frame.f_lineno} of your code"
            )
        return watch

    sys.settrace(watch)
    try:
        return function(*arguments)
    finally:
        sys.settrace(None)


def _line(error: Exception) -> str:
    """The reader's own line in which the error came up, if there is one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _by_the_reader(frame.filename):
            return f". It came up in line {frame.lineno} of your code: {frame.line}"
    return ""


class Counted:
    """A field v(x, t) that counts its evaluations, and gives up on an answer that never ends."""

    def __init__(self, v: Callable[[Tensor, Any], Tensor]) -> None:
        self.v, self.calls = v, 0

    def __call__(self, x: Tensor, t: Any) -> Tensor:
        """The velocity, if this looks like points and a time."""
        self.calls += 1
        if not isinstance(x, Tensor) or (isinstance(t, Tensor) and t.ndim > x.ndim):
            raise GradeError("a field takes the points first and their time second: v(x, t)")
        if isinstance(t, Tensor) and t.ndim > 1:
            raise GradeError(f"a field takes one time, or times of shape (B,), not {tuple(t.shape)}: v(x, t)")
        if self.calls > EVALUATIONS:
            raise GradeError(f"after {EVALUATIONS:,} evaluations of v your loop has not come to an end")
        return self.v(x, t)


START = torch.tensor(
    [[0.3, -0.7], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64
)  # points for solvers to move


def swirl(x: Tensor, t: Any) -> Tensor:
    """A field for solvers: nonlinear, time-dependent and without symmetry, so that no two mistakes look alike."""
    return torch.stack([torch.sin(x[:, 1] + 3 * t), x[:, 0] * (0.5 + t * t)], dim=1)


# Measuring


def on(*arguments: Any) -> Callable[[Answer], Any]:
    """Measure what the function returns for these arguments."""
    return lambda function: function(*arguments)


def numbers(
    signature: str, cases: Sequence[tuple[Any, ...]], wanted: str = "a number", length: int = 0
) -> Callable[[Answer], Tensor]:
    """Measure the number, or the `length` numbers, that the function returns in each case; `wanted` names them."""

    def measure(function: Answer) -> Tensor:
        rows = []
        for case in cases:
            value = function(*case)
            try:
                row = [float(number) for number in value] if length else float(value)
            except (TypeError, ValueError, RuntimeError):
                raise GradeError(f"{signature} must return {wanted}, not {_short(value)}") from None
            if length and len(row) != length:  # type: ignore[arg-type]
                raise GradeError(f"{signature} must return {wanted}, not {len(row)}")  # type: ignore[arg-type]
            rows.append(row)
        return torch.tensor(rows, dtype=torch.float64)

    return measure


def gradient(loss: Any, parameter: Tensor) -> Tensor:
    """The derivative of a loss in a parameter of the field; 0 where the loss does not hang on it at all."""
    if isinstance(loss, Tensor) and loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, parameter, allow_unused=True)
        if slope is not None:
            return slope
    return torch.zeros_like(parameter.detach())


def _short(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) < 60 else type(value).__name__


# Comparing and telling


def agree(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether a and b differ by less than `tolerance` relative to the larger of them."""
    if not a.numel():
        return True
    scale = torch.maximum(a.abs().max(), b.abs().max()).clamp(min=1e-12)
    return bool((a - b).abs().max() <= tolerance * scale) and bool(scale.isfinite())


def alike(a: Any, b: Any, tolerance: float = 1e-6) -> bool:
    """Whether two measurements agree: tensors of the same shape and dtype, or as many of them in the same order."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and agree(a.detach(), b.detach(), tolerance)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(alike(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return a is None and b is None


def require(result: Any, like: Tensor, what: str) -> None:
    """Raise GradeError if result is not a finite tensor of the shape and dtype of `like`."""
    if not isinstance(result, Tensor):
        raise GradeError(f"{what} must be a tensor of shape {tuple(like.shape)}, not {_short(result)}")
    if result.shape != like.shape:
        raise GradeError(f"{what} must have shape {tuple(like.shape)}, not {tuple(result.shape)}")
    if result.dtype != like.dtype:
        raise GradeError(f"{what} must keep the precision of the points, {like.dtype}, not {result.dtype}")
    if not result.isfinite().all():
        raise GradeError(f"{what} holds NaN or infinity")


def worst(result: Tensor, right: Tensor) -> int:
    """The row in which two measurements differ most: the one to show."""
    gap = (result - right).detach().abs().nan_to_num(math.inf)
    return int(gap.reshape(len(gap), -1).amax(1).argmax())


def show(value: Tensor) -> str:
    """A number or a point with four decimals."""
    text = ", ".join(f"{number:.4f}" for number in value.detach().reshape(-1).tolist())
    return f"({text})" if value.ndim else text


# Making answers


def from_parts(parts: Callable[..., dict[str, Any]]) -> Callable[[Callable[[Any], Any]], Answer]:
    """A maker of answers that differ in one place: `make(lambda p: p.a + p.b)`, with the parts computed from arguments.

    Args:
        parts: takes the arguments of the exercise and returns locals(), all that an answer could be made of.

    >>> energy = from_parts(lambda m, v: {"m": m, "square": v * v})
    >>> right, wrong = energy(lambda p: p.m * p.square / 2), energy(lambda p: p.m * p.square)
    >>> right(1.0, 2.0), wrong(1.0, 2.0)
    (2.0, 4.0)
    """

    def make(combine: Callable[[Any], Any]) -> Answer:
        return lambda *arguments: combine(SimpleNamespace(**parts(*arguments)))

    return make
