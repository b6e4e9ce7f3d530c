"""What solvers take: Runge-Kutta steps along a grid, and steps whose length follows the error (chapter 5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowlib.fields import Field
from flowlib.tableaus import Tableau


def _stages(
    slope: Field, x: Tensor, t: Tensor, t_next: Tensor, method: Tableau, first: Tensor | None = None
) -> list[Tensor]:
    """The slopes k_i of one step from t to t_next; `first` is the slope at t, where that is known."""
    h, slopes = t_next - t, [] if first is None else [first]
    tracked = not x.is_inference()  # tensors made in inference mode do not count the writes to them
    made = [k._version for k in slopes] if tracked else []
    for row, c in zip(method.a[len(slopes) :], method.c[len(slopes) :], strict=True):
        if tracked:
            _require_intact(slopes, made, row)
        t_i = torch.lerp(t, t_next, c)  # exactly t_next at c = 1, where t + h may round past the end
        k = slope(_combine(x, h, row, slopes), t_i)
        slopes.append(k)
        if tracked:
            made.append(k._version)
    if tracked:
        _require_intact(slopes, made, method.error or method.b)
    return slopes


def _require_intact(slopes: list[Tensor], made: list[int], weights: tuple[float, ...]) -> None:
    """Refuse slopes that have been written to since they were made, but for those that do not count."""
    now = [k._version for k in slopes]
    if now != made and any(w and n != m for w, n, m in zip(weights, now, made, strict=False)):
        raise RuntimeError(
            "the field wrote its answer over an earlier one, which the step still needs: let it return a new tensor"
        )


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, without touching the slopes whose weight is zero."""
    for weight, k in zip(weights, slopes, strict=True):
        if weight:
            x = torch.addcmul(x, k, weight * h)
    return x


def fixed_steps(slope: Field, x: Tensor, grid: Tensor, method: Tableau) -> Iterator[tuple[Tensor, Tensor]]:
    """The times and states after each step from one time of the grid to the next."""
    lost = torch.zeros_like(x) if len(grid) > 1000 else None  # what rounding took from the sum (Kahan)
    sums = []
    for t, t_next in itertools.pairwise(grid):
        h = t_next - t
        if lost is None:
            x = _combine(x, h, method.b, _stages(slope, x, t, t_next, method))
        else:
            increment = _combine(-lost, h, method.b, _stages(slope, x, t, t_next, method))
            x_next = x + increment
            lost = ((x_next - x) - increment).detach()
            x = x_next
        # A sum is finite if all its terms are, and costs a fifth of asking each of them.
        sums.append(x.detach().sum())
        yield t_next, x
    # Asked once, after the last step: a question inside the loop would make a GPU wait at every step.
    finite = torch.stack(sums).isfinite() if sums else torch.ones(1)
    if not bool(finite.all()):
        n = int(finite.long().argmin())
        raise FloatingPointError(
            f"{method.name}: the state is no longer finite after step {n + 1} of {len(sums)}, "
            f"from t = {grid[n]:g} to {grid[n + 1]:g}. Either the solution blows up, the step is too long for this "
            f"field (take more steps), or the field is singular at a time that the method evaluates"
        )


@dataclass(frozen=True)
class Tolerance:
    """How large an error of a step may be."""

    rtol: float
    atol: float
    norm: Callable[[Tensor], Tensor]

    def resolved(self, dtype: torch.dtype) -> bool:
        """Whether errors that small can be told apart from rounding: of a step, not of the state, which is coarser."""
        least = torch.finfo(dtype).eps / 10
        return 0 <= self.rtol < math.inf and 0 <= self.atol < math.inf and max(self.rtol, self.atol) >= least

    def size(self, error: Tensor, x: Tensor, x_next: Tensor) -> float:
        """The norm of an error in units of the tolerance; NaN if x_next is not finite, beside which all looks small."""
        allowed = self.atol + self.rtol * torch.maximum(x.abs(), x_next.abs())
        relative = error / (allowed + torch.finfo(x.dtype).tiny)  # 0 / 0 is no error
        return float(self.norm(relative + 0 * x_next))


def adaptive_steps(
    slope: Field, x: Tensor, stops: list[float], method: Tableau, tolerance: Tolerance, every: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The times and states at the stops after the first, or, with `every`, after each accepted step."""

    def clock(t: float) -> Tensor:
        return torch.tensor(t, dtype=x.dtype, device=x.device)

    t, *later = stops
    if not later:
        return
    k = slope(x, clock(t))
    h = _first_length(slope, x, t, later[-1], k, method.order, tolerance.size)
    h = math.copysign(max(abs(h), 20 * torch.finfo(x.dtype).eps * abs(t)), later[-1] - t)  # NaN stays
    before, growth = 1e-4, 10.0  # the last accepted error; by how much the next step may grow
    for stop in later:
        while t != stop:
            # Below ten units in the last place of t, times would repeat. Written so that NaN fails.
            now = clock(t)
            if not abs(h) > 10 * torch.finfo(now.dtype).eps * max(abs(t), 1e-8 * abs(later[-1] - stops[0])):
                raise FloatingPointError(
                    f"{method.name}: at t = {t:.9g} no step meets the tolerance, not even one of {h:.1e}. The solution "
                    f"blows up or the field is singular or not finite there (end before it: t1 = ...), or "
                    f"rtol={tolerance.rtol} and atol={tolerance.atol} ask for more than {x.dtype} resolves (loosen "
                    f"them, or use float64)"
                )
            # A tenth more than h is likely to pass as well, and leaves no crumb to the last step.
            last = abs(stop - t) <= 1.1 * abs(h)
            t_next = stop if last else t + h
            then = clock(t_next)
            slopes = _stages(slope, x, now, then, method, first=k)
            x_next = _combine(x, then - now, method.b, slopes)
            slopes.append(slope(x_next, then))
            with torch.no_grad():
                estimate = _combine(torch.zeros_like(x), then - now, method.error or (), slopes)
                error = tolerance.size(estimate, x, x_next)
            # Proportional-integral control: the error of a step goes as h^order, and its trend damps the next length.
            ratio = 0.9 * max(error, 1e-10) ** (-0.85 / method.order) * before ** (0.2 / method.order)
            wanted = (t_next - t) * (min(max(ratio, 0.2), growth) if math.isfinite(error) else 0.2)
            growth = 1.0  # after a failure the next step must not grow
            if error <= 1:
                # a step that a stop cut short says little of the next: it may be as long as was planned
                h = max(h, wanted, key=abs) if last else wanted
                t, x, k = t_next, x_next, slopes[-1]
                before, growth = max(error, 1e-4), 10.0
                if every or last:
                    yield then, x
            else:
                h = wanted


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
    later = torch.tensor(t0 + h, dtype=x.dtype, device=x.device)
    bend = size(slope(x + h * k, later) - k, x, x) / probe
    if not math.isfinite(bend):
        return h
    fastest = max(speed, bend)
    # where nothing moves yet, 1e-6 would be less than float32 times near 1 resolve
    length = (0.01 / fastest) ** (1 / order) if fastest > 1e-15 else 100 * probe
    return math.copysign(min(100 * probe, length), t1 - t0)
