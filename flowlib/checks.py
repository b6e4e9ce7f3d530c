"""What a bad argument is told: one line for each check, with a message that names what came and what was expected."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def require(holds: bool | Tensor, message: str, error: type[Exception] = ValueError) -> None:
    """Raise the error with this message unless the condition holds.

    The message is made at every call: put no number into it that must first be read from a GPU.
    """
    if not holds:
        raise error(message)


def floating(name: str, x: Tensor) -> None:
    """TypeError unless x is a floating-point tensor."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        raise TypeError(
            f"{name} must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}"
        )


def precise(name: str, x: Tensor) -> None:
    """TypeError unless x is a tensor in float32 or float64."""
    if not (isinstance(x, Tensor) and x.dtype in (torch.float32, torch.float64)):
        raise TypeError(f"{name} must be float32 or float64, got {getattr(x, 'dtype', type(x).__name__)}")


def integers(name: str, x: Tensor) -> None:
    """TypeError unless x is a tensor of integers; truth values are none."""
    if not isinstance(x, Tensor) or x.dtype == torch.bool or x.is_floating_point() or x.is_complex():
        raise TypeError(f"{name} must be integers, got {getattr(x, 'dtype', type(x).__name__)}")


def finite(name: str, x: Tensor) -> None:
    """ValueError unless all of x is finite. On a GPU this waits: not for hot paths."""
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite, got infinite or NaN entries")


def shaped(name: str, x: Tensor, *expected: int | str) -> None:
    """ValueError unless x has these sizes; a text such as "B" stands for any size, and a last "*D" for any others."""
    sizes = expected[:-1] if expected[-1:] == ("*D",) else expected
    fits = x.ndim >= len(sizes) if len(sizes) < len(expected) else x.ndim == len(sizes)
    if not fits or any(isinstance(e, int) and e != n for e, n in zip(sizes, x.shape, strict=False)):
        form = f"({', '.join(map(str, expected))}{',' * (len(expected) == 1)})"
        raise ValueError(f"{name} must have shape {form}, got {tuple(x.shape)}")


def points(x: Tensor, dimension: int | None = None) -> None:
    """TypeError unless x is in float32 or float64, ValueError unless it holds points (..., d), of this d if given."""
    precise("points", x)
    if x.ndim == 0 or dimension not in (None, x.shape[-1]):
        raise ValueError(f"points must have shape (..., {dimension or 'd'}), got {tuple(x.shape)}")


def like(name: str, x: Tensor, other: str, reference: Tensor) -> None:
    """ValueError unless x has the shape of the reference, TypeError unless it has its dtype."""
    if x.shape != reference.shape:
        raise ValueError(
            f"{name} must be like {other}: expected shape {tuple(reference.shape)}, got {tuple(x.shape)}"
        )
    if x.dtype != reference.dtype:
        raise TypeError(f"{name} must be like {other}: expected {reference.dtype}, got {x.dtype}")


def extent(t: Tensor | float) -> tuple[float, float] | None:
    """The least and greatest of these numbers, NaN if one is; None where reading them would wait, or cannot be done.

    That is on a GPU, for fake and meta tensors, under torch.compile, inside vmap, and where there are none.
    """
    if not isinstance(t, Tensor):
        return t, t
    if t.device.type != "cpu" or t.numel() == 0 or torch.compiler.is_compiling():
        return None
    try:
        if t.ndim == 0:
            return t.item(), t.item()
        low, high = t.detach().aminmax()
        return low.item(), high.item()
    except RuntimeError:
        return None


def positive(**numbers: float | None) -> None:
    """ValueError unless every number that is not None is positive and finite."""
    if not all(n is None or 0 < n < float("inf") for n in numbers.values()):
        given = ", ".join(f"{name}={n}" for name, n in numbers.items())
        raise ValueError(f"{', '.join(numbers)} must be positive and finite, got {given}")


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """ValueError unless the value is one of the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def whole(least: int = 1, **numbers: Any) -> None:
    """ValueError unless every number is an integer, and at least this one."""
    if any(n is True or n is False or not isinstance(n, Integral) or n < least for n in numbers.values()):
        given = ", ".join(f"{name}={n}" for name, n in numbers.items())
        raise ValueError(f"{', '.join(numbers)} must be whole and at least {least}, got {given}")
