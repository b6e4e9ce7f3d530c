"""`claim`: a number of the text, held against a bound where the reader can see it.

The prose of the book never prints a digit that depends on a run. It states a bound, and a cell holds the measured
number against that bound. When the book is tested a claim that fails stops the run.
"""

from __future__ import annotations

import math
import os
from typing import Any

MARK = "\N{INVISIBLE SEPARATOR}"  # before a claim that holds, while the book is built: so its pages know it

RELATIONS = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "==": lambda value, bound: value == bound,
    "in": lambda value, bound: bound[0] <= value <= bound[1],
}


class ClaimError(AssertionError):
    """A claim does not hold; the message is the whole story, since test runners hide what a cell printed."""


def scalar(value: Any, what: str) -> int | float | bool:
    """A Python number from a number, a numpy scalar or a tensor of one element.

    Raises TypeError, naming the shape, for anything that holds several numbers or none.
    """
    shape = getattr(value, "shape", ())
    if math.prod(shape) != 1:
        raise TypeError(f"{what} must be one number, not an array of shape {tuple(shape)}; reduce it first")
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, int | float):
        raise TypeError(f"{what} must be a real number, not {type(number).__name__} {number!r}")
    return number


def claim(statement: str, measured: Any, relation: str, bound: Any) -> None:
    """Print `✓ statement: measured relation bound` if the relation holds, else raise ClaimError.

    `measured` and `bound` are numbers, numpy scalars or tensors of one element; relation is one of
    `<`, `<=`, `>`, `>=`, `==` and `in`, for which the bound is a closed interval (low, high). NaN never passes.

    >>> claim("halving the step quarters the error", 3.98, "in", (3.9, 4.1))
    ✓ halving the step quarters the error: 3.98 in [3.9, 4.1]

    Raises ClaimError (an AssertionError) if the claim fails, ValueError for an unknown relation or an empty
    interval, TypeError for anything that is not one real number.
    """
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}; expected one of {', '.join(RELATIONS)}")
    value = scalar(measured, "the measured value")
    limit: Any
    if relation == "in":
        if not isinstance(bound, tuple | list) or len(bound) != 2:
            raise TypeError(f"the bound of 'in' must be an interval (low, high), not {bound!r}")
        limit = (scalar(bound[0], "the lower bound"), scalar(bound[1], "the upper bound"))
        if not limit[0] <= limit[1]:
            raise ValueError(f"the interval [{limit[0]:g}, {limit[1]:g}] is empty")
        shown_bound = f"[{limit[0]:.6g}, {limit[1]:.6g}]"
    else:
        limit = scalar(bound, "the bound")
        shown_bound = f"{limit}" if isinstance(limit, bool | int) else f"{limit:.6g}"

    holds = bool(RELATIONS[relation](value, limit))  # every comparison with NaN is false
    line = f"{statement}: {_digits(value, relation, limit, holds)} {relation} {shown_bound}"
    if not holds:
        raise ClaimError(f"claim fails: {line}")
    mark = MARK if os.environ.get("FLOWLIB_STATIC") == "1" else ""
    print(f"{mark}✓ {line}")


def _digits(value: float | bool, relation: str, limit: Any, holds: bool) -> str:
    """Four digits, or as many more as it takes for the printed number to stand on the same side of the bound."""
    if isinstance(value, bool | int):
        return str(value)
    for digits in range(4, 17):
        text = f"{value:.{digits}g}"
        if bool(RELATIONS[relation](float(text), limit)) == holds:
            return text
    return repr(value)
