"""Runge-Kutta solvers for dx/dt = v(x, t): a method is a table, and one loop serves them all (chapters 1 and 5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
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
        error: for adaptive steps, b minus the weights of an embedded method of one order less. The difference of the
            two results, h sum_i error_i k_i, estimates the error of a step. It has one weight more than b, for the
            slope at the end of the step, v(x(t + h), t + h): the next step starts with that slope anyway.

    Raises:
        ValueError: the table is not explicit, or breaks sum(b) = 1, c_i = sum_j a_ij or sum(error) = 0.

    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, sections II.1 and II.4.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int
    error: tuple[float, ...] | None = None

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
        if self.error is not None and (len(self.error) != stages + 1 or abs(sum(self.error)) > 1e-12):
            raise ValueError(
                f"{self.name}: error needs {stages + 1} weights, the last for the slope at the end of the step, "
                f"with sum 0; got {len(self.error)} with sum {sum(self.error):g}"
            )

    @property
    def stages(self) -> int:
        """Evaluations of the field in one step, fixed or adaptive."""
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
# Dormand & Prince (1980), RK5(4)7M. The seventh row of the published table is b itself: the slope at the end of the
# step, which only the error estimate needs and which fixed steps therefore do not evaluate. The embedded weights are
# Shampine's (1986), whose estimate is two thirds of the one published first.
DOPRI5 = Tableau(
    "Dormand-Prince",
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    order=5,
    error=(71 / 86400, 0.0, -142 / 50085, 71 / 2880, -17253 / 508800, 44 / 1575, -1 / 60),
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
    rtol: float = ...,
    atol: float = ...,
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
    rtol: float = ...,
    atol: float = ...,
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
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trajectory: bool = False,
    **cond: object,
) -> Tensor | tuple[Tensor, Tensor]:
    """Solve dx/dt = v(x, t) from x(t0) = x, and return x(t1).

    With `steps` or `times` the solver evaluates the field exactly N * method.stages times. Without them, a method that
    estimates its error (DOPRI5) chooses its own steps, one length for the whole batch, so that each step's estimate is
    within the tolerance on average: sqrt(mean((error / (atol + rtol max(|x|, |x_next|)))^2)) <= 1.
    Times are 0-dimensional, of dtype promote_types(float32, x.dtype). Gradients flow through the steps by ordinary
    back-propagation; lengths of adaptive steps count as constants.

    Args:
        v: the field, called as v(x, t, **cond).
        x: starting points (B, *D), floating point.
        t0: time at which x stands.
        t1: time at which the solution is wanted; t1 < t0 runs the flow backwards, which inverts it.
        steps: how many equal steps to take from t0 to t1.
        times: instead of `steps`, an explicit grid t_0, ..., t_N, strictly monotone, in place of t0 and t1.
        method: a Runge-Kutta table such as EULER, MIDPOINT, HEUN, RK4 or DOPRI5.
        rtol: for adaptive steps, the error allowed in a step relative to the size of the state.
        atol: the error allowed beside it, in the units of x.
        trajectory: return every state on the way as well, those after accepted steps if adaptive.
        **cond: passed on to the field, such as a class label.

    Returns:
        x(t1) of shape (B, *D); with `trajectory`, the times (N + 1,) and the states (N + 1, B, *D).

    Raises:
        ValueError: both of `steps` and `times`, or neither for a method that estimates no error; a grid that is not
            strictly monotone; tolerances that are negative or finer than x's dtype resolves; a field whose output has
            another shape than x.
        TypeError: x is not a floating-point tensor, or the field answers in another dtype.
        FloatingPointError: the state became infinite or NaN, or no step is short enough for the tolerance; the message
            gives the time, the step and what to do.

    Source: Hairer, Norsett & Wanner I, sections II.4 (error norm, first step) and II.5 (DOPRI5); Hairer & Wanner II,
    section IV.2, and Gustafsson (1991) for the proportional-integral step size control.

    >>> rotate = lambda x, t: torch.stack([-x[:, 1], x[:, 0]], dim=1)
    >>> odeint(rotate, torch.tensor([[1.0, 0.0]]), t1=math.pi / 6, steps=20, method=RK4)
    tensor([[0.8660, 0.5000]])
    >>> times, states = odeint(rotate, torch.tensor([[1.0, 0.0]]), t1=1.0, method=DOPRI5, trajectory=True)
    >>> states[-1], times[-1]
    (tensor([[0.5403, 0.8415]]), tensor(1.))
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(
            f"x must be a floating-point tensor (B, *D), got {getattr(x, 'dtype', type(x).__name__)}"
        )
    t0, t1 = float(t0), float(t1)
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ValueError(f"t0 and t1 must be finite, got t0={t0} and t1={t1}")

    def slope(x: Tensor, t: Tensor) -> Tensor:
        k = v(x, t, **cond)
        if k.shape != x.shape:
            raise ValueError(
                f"the field must answer like x: expected shape {tuple(x.shape)}, got {tuple(k.shape)}"
            )
        if k.dtype != x.dtype:
            raise TypeError(f"the field must answer like x: expected {x.dtype}, got {k.dtype}")
        return k

    states = [x]
    if steps is None and times is None and method.error is not None:
        accepted = [t0]
        for at, state in _adaptive(slope, x, t0, t1, method, method.error, rtol, atol):
            x = state
            if trajectory:
                accepted.append(at)
                states.append(x)
        grid = _clock(accepted, x)
    else:
        grid = _grid(x, t0, t1, steps, times, method)
        sums = []
        for t, t_next in itertools.pairwise(grid):
            x = _step(slope, x, t, t_next, method)[0]
            # A sum is finite if all its terms are, and costs a fifth of asking each of them.
            sums.append(x.detach().sum(dtype=grid.dtype))
            if trajectory:
                states.append(x)
        _raise_unless_finite(torch.stack(sums), grid, method)
    return (grid, torch.stack(states)) if trajectory else x


def _step(
    slope: Field, x: Tensor, t: Tensor, t_next: Tensor, method: Tableau, first: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """One step of the method, from t to t_next, and its slopes; `first` is the slope at t, where that is known."""
    h = t_next - t
    slopes = [] if first is None else [first]
    for row, c in list(zip(method.a, method.c, strict=True))[len(slopes) :]:
        t_i = torch.lerp(t, t_next, c)  # exactly t_next at c = 1, where t + h may round past the end
        slopes.append(slope(_combine(x, h, row, slopes), t_i))
    return _combine(x, h, method.b, slopes), slopes


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, without touching the slopes whose weight is zero."""
    for weight, k in zip(weights, slopes, strict=True):
        if weight:
            x = torch.addcmul(x, k, (weight * h).to(x.dtype))
    return x


def _adaptive(
    slope: Field,
    x: Tensor,
    t0: float,
    t1: float,
    method: Tableau,
    weights: tuple[float, ...],
    rtol: float,
    atol: float,
) -> Iterator[tuple[float, Tensor]]:
    """The accepted times and states after t0; `weights` are those that estimate the error of a step."""
    resolution = torch.finfo(x.dtype).eps / 10  # of a step, not of the state: steps are finer than their sum
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf and max(rtol, atol) >= resolution):
        raise ValueError(
            f"rtol and atol must be finite and not negative, one of them at least {resolution:.1e} for {x.dtype}"
            f"; got rtol={rtol} and atol={atol}"
        )
    if t0 == t1:
        return

    def size(error: Tensor, x: Tensor, x_next: Tensor) -> float:
        """The root mean square of the error, in units of the tolerance."""
        tolerance = atol + rtol * torch.maximum(x.abs(), x_next.abs())
        relative = error / (tolerance + torch.finfo(x.dtype).tiny)  # 0 / 0 is no error
        relative = relative + 0 * x_next  # NaN where x_next is infinite: any error looks small beside it
        return float(torch.linalg.vector_norm(relative)) / math.sqrt(max(1, x.numel()))

    t, k = t0, slope(x, _clock(t0, x))
    h = _first_length(slope, x, t0, t1, k, method.order, size)
    before, growth = 1e-4, 10.0  # the last accepted error; by how much the next step may grow
    while t != t1:
        # Below ten units in the last place of t, times would repeat. Written so that NaN fails.
        now = _clock(t, x)
        if not abs(h) > 10 * torch.finfo(now.dtype).eps * max(abs(t), 1e-8 * abs(t1 - t0)):
            raise FloatingPointError(
                f"{method.name}: at t = {t:.9g} no step meets the tolerance, not even one of {h:.1e}. The solution "
                f"blows up or the field is singular or not finite there (end before it: t1 = ...), or rtol={rtol} and "
                f"atol={atol} ask for more than {x.dtype} resolves (loosen them, or use float64)"
            )
        # A tenth more than h is likely to pass as well, and leaves no crumb to the last step.
        t_next = t1 if abs(t1 - t) <= 1.1 * abs(h) else t + h
        then = _clock(t_next, x)
        x_next, slopes = _step(slope, x, now, then, method, first=k)
        slopes.append(slope(x_next, then))
        with torch.no_grad():
            error = size(_combine(torch.zeros_like(x), then - now, weights, slopes), x, x_next)
        # Proportional-integral control: the error of a step goes as h^order, and its trend damps the next length.
        ratio = 0.9 * max(error, 1e-10) ** (-0.85 / method.order) * before ** (0.2 / method.order)
        h = (t_next - t) * (min(max(ratio, 0.2), growth) if math.isfinite(error) else 0.2)
        growth = 1.0  # after a failure the next step must not grow
        if error <= 1:
            t, x, k = t_next, x_next, slopes[-1]
            before, growth = max(error, 1e-4), 10.0
            yield t, x


@torch.no_grad()
def _first_length(
    slope: Field,
    x: Tensor,
    t0: float,
    t1: float,
    k: Tensor,
    order: int,
    size: Callable[[Tensor, Tensor, Tensor], float],
) -> float:
    """A first step, signed, short enough for the first two derivatives: Hairer, Norsett & Wanner, end of II.4."""
    state, speed = size(x, x, x), size(k, x, x)
    if not math.isfinite(speed):
        return math.nan
    probe = min(0.01 * state / speed if min(state, speed) >= 1e-5 else 1e-6, abs(t1 - t0))
    h = math.copysign(probe, t1 - t0)
    bend = size(slope(x + h * k, _clock(t0 + h, x)) - k, x, x) / probe
    if not math.isfinite(bend):
        return h
    fastest = max(speed, bend)
    # where nothing moves yet, 1e-6 would be less than float32 times near 1 resolve
    length = (0.01 / fastest) ** (1 / order) if fastest > 1e-15 else 100 * probe
    return math.copysign(min(100 * probe, length), t1 - t0)


def _clock(t: float | list[float], x: Tensor) -> Tensor:
    """Times as a tensor beside x, of dtype promote_types(float32, x.dtype)."""
    return torch.tensor(t, dtype=torch.promote_types(torch.float32, x.dtype), device=x.device)


def _grid(
    x: Tensor,
    t0: float,
    t1: float,
    steps: int | None,
    times: Sequence[float] | Tensor | None,
    method: Tableau,
) -> Tensor:
    """The times (N + 1,) at which the solution is computed."""
    dtype = torch.promote_types(torch.float32, x.dtype)
    if (steps is None) == (times is None):
        hint = "" if method.error or steps else f", since {method.name} does not estimate its error"
        raise ValueError(f"give either steps= or times={hint}; got steps={steps!r} and times={times!r}")
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
