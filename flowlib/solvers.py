"""Runge-Kutta solvers for dx/dt = v(x, t): a method is a table, and one loop serves them all (chapters 1 and 5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from flowlib.fields import Field


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge-Kutta method, written as its Butcher tableau (a | b | c).

    One step of length h from (x, t) evaluates the slopes k_i and combines them:

        k_i = v(x + h sum_{j<i} a_ij k_j, t + c_i h),        x(t + h) ~ x + h sum_i b_i k_i.

    Args:
        name: what figures and messages call the method.
        a: row i holds the i - 1 weights of the earlier slopes, so row 1 is empty.
        b: the weights of the slopes in the step; they sum to 1.
        c: when each slope is taken, as a fraction of the step; c_i = sum_j a_ij.
        order: the exponent of h in the global error.

    Raises:
        ValueError: the table is not explicit, or breaks sum(b) = 1 or c_i = sum_j a_ij.

    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.1.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        stages = len(self.b)
        if (
            len(self.a) != stages
            or len(self.c) != stages
            or any(len(row) != i for i, row in enumerate(self.a))
        ):
            rows = [len(row) for row in self.a]
            raise ValueError(
                f"{self.name}: an explicit method with {stages} weights b needs {stages} times c and rows of a "
                f"of lengths {list(range(stages))}; got {len(self.c)} times and rows of lengths {rows}"
            )
        if not math.isclose(sum(self.b), 1.0) or not all(
            math.isclose(sum(row), c, abs_tol=1e-12) for row, c in zip(self.a, self.c, strict=True)
        ):
            raise ValueError(
                f"{self.name}: the weights b must sum to 1 and each c_i must be the sum of row i of a"
            )

    @property
    def stages(self) -> int:
        """Evaluations of the field in one step."""
        return len(self.b)


EULER = Tableau("Euler", a=((),), b=(1.0,), c=(0.0,), order=1)
MIDPOINT = Tableau("midpoint", a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2)
HEUN = Tableau("Heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2)
# Kutta's classical method; libraries also call his 3/8 rule "rk4".
RK4 = Tableau(
    "RK4",
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)


@overload
def odeint(
    v: Field,
    x: Tensor,
    *,
    t0: float = ...,
    t1: float = ...,
    steps: int | None = ...,
    times: Sequence[float] | Tensor | None = ...,
    method: Tableau = ...,
    trajectory: Literal[False] = ...,
    **cond: object,
) -> Tensor: ...
@overload
def odeint(
    v: Field,
    x: Tensor,
    *,
    t0: float = ...,
    t1: float = ...,
    steps: int | None = ...,
    times: Sequence[float] | Tensor | None = ...,
    method: Tableau = ...,
    trajectory: Literal[True],
    **cond: object,
) -> tuple[Tensor, Tensor]: ...
def odeint(
    v: Field,
    x: Tensor,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    steps: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    method: Tableau = MIDPOINT,
    trajectory: bool = False,
    **cond: object,
) -> Tensor | tuple[Tensor, Tensor]:
    """Solve dx/dt = v(x, t) from x(t0) = x, and return x(t1).

    The solver evaluates the field exactly `steps * method.stages` times, at 0-dimensional times of dtype
    promote_types(float32, x.dtype). Gradients flow through the steps by ordinary back-propagation.

    Args:
        v: the field, called as v(x, t, **cond).
        x: starting points (B, *D), floating point.
        t0: time at which x stands.
        t1: time at which the solution is wanted; t1 < t0 runs the flow backwards, which inverts it.
        steps: how many equal steps to take from t0 to t1.
        times: instead of `steps`, an explicit grid t_0, ..., t_N, strictly monotone, in place of t0 and t1.
        method: a Runge-Kutta table such as EULER, MIDPOINT, HEUN or RK4.
        trajectory: return every state on the way as well.
        **cond: passed on to the field, such as a class label.

    Returns:
        x(t1) of shape (B, *D); with `trajectory`, the times (N + 1,) and the states (N + 1, B, *D).

    Raises:
        ValueError: neither or both of `steps` and `times`; a grid that is not strictly monotone; a field whose
            output has another shape than x.
        TypeError: x is not a floating-point tensor, or the field answers in another dtype.
        FloatingPointError: the state became infinite or NaN; the message gives the step and its time.

    >>> rotate = lambda x, t: torch.stack([-x[:, 1], x[:, 0]], dim=1)
    >>> odeint(rotate, torch.tensor([[1.0, 0.0]]), t1=math.pi / 6, steps=20, method=RK4)
    tensor([[0.8660, 0.5000]])
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(
            f"x must be a floating-point tensor (B, *D), got {getattr(x, 'dtype', type(x).__name__)}"
        )
    grid = _grid(x, t0, t1, steps, times)
    states, sums = [x], []
    for t, t_next in itertools.pairwise(grid):
        x = _step(v, x, t, t_next, method, cond)
        # A sum is finite if all its terms are, and costs a fifth of asking each of them.
        sums.append(x.detach().sum(dtype=grid.dtype))
        if trajectory:
            states.append(x)
    _raise_unless_finite(torch.stack(sums), grid, method)
    return (grid, torch.stack(states)) if trajectory else x


def _step(v: Field, x: Tensor, t: Tensor, t_next: Tensor, method: Tableau, cond: dict[str, object]) -> Tensor:
    """One step of the method, from t to t_next."""
    h = t_next - t
    slopes: list[Tensor] = []
    for row, c in zip(method.a, method.c, strict=True):
        t_i = torch.lerp(t, t_next, c)  # exactly t_next at c = 1, where t + h may round past the end
        k = v(_combine(x, h, row, slopes), t_i, **cond)
        if k.shape != x.shape:
            raise ValueError(
                f"the field must answer like x: expected shape {tuple(x.shape)}, got {tuple(k.shape)}"
            )
        if k.dtype != x.dtype:
            raise TypeError(f"the field must answer like x: expected {x.dtype}, got {k.dtype}")
        slopes.append(k)
    return _combine(x, h, method.b, slopes)


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, without touching the slopes whose weight is zero."""
    for weight, k in zip(weights, slopes, strict=True):
        if weight:
            x = torch.addcmul(x, k, (weight * h).to(x.dtype))
    return x


def _grid(
    x: Tensor, t0: float, t1: float, steps: int | None, times: Sequence[float] | Tensor | None
) -> Tensor:
    """The times (N + 1,) at which the solution is computed."""
    dtype = torch.promote_types(torch.float32, x.dtype)
    if (steps is None) == (times is None):
        raise ValueError(f"give either steps= or times=, got steps={steps!r} and times={times!r}")
    if times is None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
        # spaced in float64, so that float32 times are the rounded exact ones
        return torch.linspace(float(t0), float(t1), steps + 1, dtype=torch.float64, device="cpu").to(
            x.device, dtype
        )
    grid = torch.as_tensor(times, dtype=dtype, device=x.device)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"times must be a grid of at least two times, got shape {tuple(grid.shape)}")
    widths = grid.diff()
    if not (bool((widths > 0).all()) or bool((widths < 0).all())):
        raise ValueError(
            f"times must increase or decrease strictly, got {[round(float(s), 6) for s in grid]}"
        )
    if (t0, t1) != (0.0, 1.0) and (t0, t1) != (float(grid[0]), float(grid[-1])):
        raise ValueError(
            f"times runs from {grid[0]:g} to {grid[-1]:g}, but t0={t0} and t1={t1} were given as well"
        )
    return grid


def _raise_unless_finite(sums: Tensor, grid: Tensor, method: Tableau) -> None:
    # Asked once, after the last step: a question inside the loop would make a GPU wait at every step.
    finite = sums.isfinite()
    if not bool(finite.all()):
        n = int(finite.long().argmin())
        raise FloatingPointError(
            f"{method.name}: the state is no longer finite after step {n + 1} of {len(sums)}, "
            f"from t = {grid[n]:g} to {grid[n + 1]:g}. Either the solution blows up, the step is too long for this "
            f"field (take more steps), or the field is singular at a time that the method evaluates"
        )
