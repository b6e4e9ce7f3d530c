"""Solvers for dx/dt = v(x, t): fixed and adaptive steps with any Runge-Kutta table (chapters 1 and 5)."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowlib import checks
from flowlib.fields import Field
from flowlib.steps import Tolerance, adaptive_steps, fixed_steps
from flowlib.tableaus import DOPRI5, EULER, HEUN, MIDPOINT, RK4, Tableau

__all__ = [
    "DOPRI5",
    "EULER",
    "HEUN",
    "MIDPOINT",
    "RK4",
    "Tableau",
    "odeint",
    "root_mean_square",
    "trajectory",
    "worst_point",
]


def root_mean_square(error: Tensor) -> Tensor:
    """The norm of an error (B, *D) that keeps the average point within the tolerance; a single one may miss it."""
    return torch.linalg.vector_norm(error) / math.sqrt(max(1, error.numel()))


def worst_point(error: Tensor) -> Tensor:
    """The norm of an error (B, *D) that keeps every point within the tolerance: the largest root mean square of one."""
    rows = error.reshape(len(error), error.shape[1:].numel())
    norms = torch.linalg.vector_norm(rows, dim=1) / math.sqrt(max(1, rows.shape[1]))
    return norms.amax() if len(rows) else error.new_zeros(())


def odeint(
    v: Field,
    x: Tensor,
    *,
    t0: float | None = None,
    t1: float | None = None,
    steps: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    method: Tableau = MIDPOINT,
    rtol: float | None = None,
    atol: float | None = None,
    norm: Callable[[Tensor], Tensor] | None = None,
    observe: Callable[[Tensor, Tensor], object] | None = None,
    **cond: object,
) -> Tensor:
    """Solve dx/dt = v(x, t) from x(t0) = x, and return x(t1).

    With `steps` the solver evaluates the field exactly steps * method.stages times. Without it, a method that estimates
    its error (DOPRI5) chooses its own steps, of one length for the whole batch, such that

        norm(error / (atol + rtol max(|x|, |x_next|))) <= 1        in each step.

    Between steps the state is kept in dtype promote_types(float32, x.dtype), like the times, and the field is called in
    x's own; from 1,000 steps on the rounding errors of the sum are compensated. Gradients flow through the steps by
    ordinary back-propagation, to x and to what the field depends on; lengths of adaptive steps count as constants.

    Args:
        v: the field, called as v(x, t, **cond). It must leave x as it is, and answer in a tensor that later answers do
            not overwrite: both are noticed, but for writes that bypass torch (numpy) or under inference mode.
        x: starting points (B, *D), floating point.
        t0: time at which x stands; 0 if None.
        t1: time at which the solution is wanted, 1 if None; t1 < t0 runs the flow backwards, which inverts it.
        steps: how many equal steps to take.
        times: in place of t0 and t1, strictly monotone times (N + 1,). A method without error estimate takes one step
            from each to the next; DOPRI5 takes adaptive steps between them, and stops at each.
        method: a Runge-Kutta table such as EULER, MIDPOINT, HEUN, RK4 or DOPRI5.
        rtol: for adaptive steps, the error allowed in a step relative to the size of the state; 1e-5 if None.
        atol: the error allowed beside it, in the units of x; 1e-5 if None.
        norm: for adaptive steps, of an error in units of the tolerance. `root_mean_square`, if None, averages over all
            points; `worst_point` guards every single one, and takes as many steps as the hardest of them needs.
        observe: called as observe(t, x) with the start, and after each step, or with adaptive steps at each of `times`.
        **cond: passed on to the field, such as a class label.

    Returns:
        x(t1), like x.

    Raises:
        ValueError, TypeError: arguments that do not fit each other, tolerances finer than x's dtype resolves, a time
            that requires gradients, a field that does not answer like x, a condition like a misspelled option.
        FloatingPointError: the state became infinite or NaN, or no step is short enough for the tolerance; the message
            gives the time, the step and what to do.
        RuntimeError: the field changed x, or an earlier answer, in place.

    Source: Hairer, Norsett & Wanner I, sections II.4 (error norm, first step) and II.5 (DOPRI5); Hairer & Wanner II,
    section IV.2, and Gustafsson (1991) for the proportional-integral step size control; Kahan (1965) for the sum.

    >>> rotate = lambda x, t: torch.stack([-x[:, 1], x[:, 0]], dim=1)
    >>> odeint(rotate, torch.tensor([[1.0, 0.0]]), t1=math.pi / 6, steps=20, method=RK4)
    tensor([[0.8660, 0.5000]])
    """
    checks.floating("x", x)
    _refuse_misspelled(cond)
    dtype = torch.promote_types(torch.float32, x.dtype)
    adaptive = steps is None and method.error is not None
    if not adaptive and (steps is None) == (times is None):
        hint = "" if method.error or steps else f", since {method.name} does not estimate its error"
        raise ValueError(f"give either steps= or times={hint}; got steps={steps!r} and times={times!r}")
    checks.require(
        adaptive or (rtol is None and atol is None and norm is None),
        f"rtol, atol and norm belong to adaptive steps; steps={steps} with method={method.name} takes fixed ones",
    )
    grid = _grid(dtype, t0, t1, steps, times)
    slope = _guarded(v, x, dtype, cond)
    state = x.to(dtype, copy=True)  # a field that writes into its argument must not change the caller's x
    if observe:
        observe(grid[0].to(x.device), x)
    if adaptive:
        tolerance = Tolerance(
            1e-5 if rtol is None else rtol, 1e-5 if atol is None else atol, norm or root_mean_square
        )
        checks.require(
            tolerance.resolved(x.dtype),
            f"rtol and atol must be finite and not negative, one of them at least {torch.finfo(x.dtype).eps / 10:.1e} "
            f"for {x.dtype}; got rtol={tolerance.rtol} and atol={tolerance.atol}",
        )
        reached = adaptive_steps(slope, state, grid.tolist(), method, tolerance, every=times is None)
    else:
        reached = fixed_steps(slope, state, grid.to(x.device), method)
    for t, state in reached:
        if observe:
            observe(t, state.to(x.dtype))
    return state.to(x.dtype)


def trajectory(v: Field, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The solution on the way: the times (N + 1,) and the states (N + 1, B, *D) at them; see `odeint` for the options.

    The times are those between fixed steps, or those that `times` asks for, or else those between accepted steps.

    >>> rotate = lambda x, t: torch.stack([-x[:, 1], x[:, 0]], dim=1)
    >>> times, states = trajectory(rotate, torch.tensor([[1.0, 0.0]]), times=[0.0, 0.5, 1.0], method=DOPRI5)
    >>> times, states[:, 0]
    (tensor([0.0000, 0.5000, 1.0000]), tensor([[1.0000, 0.0000],
            [0.8776, 0.4794],
            [0.5403, 0.8415]]))
    """
    seen: list[tuple[Tensor, Tensor]] = []
    odeint(v, x, observe=lambda t, x: seen.append((t, x)), **options)
    times, states = zip(*seen, strict=True)
    return torch.stack(times), torch.stack(states)


def _refuse_misspelled(cond: dict[str, object]) -> None:
    """A name that is nearly an option's would vanish among the conditions that the field is free to ignore."""
    for name in cond:
        if name == "trajectory":
            raise TypeError(
                "odeint returns x(t1) alone; for the states on the way call trajectory(v, x, ...)"
            )
        options = [
            option for option in inspect.signature(odeint).parameters if option not in ("v", "x", "cond")
        ]
        if near := difflib.get_close_matches(name, options, n=1, cutoff=0.75):
            raise TypeError(f"odeint has no option {name!r}: did you mean {near[0]!r}?")


def _guarded(v: Field, x: Tensor, kept: torch.dtype, cond: dict[str, object]) -> Field:
    """The field at states that are kept in another dtype than x, with its answers checked."""
    dtype, same, tracked = x.dtype, x.dtype == kept, not torch.is_inference_mode_enabled()

    def slope(state: Tensor, t: Tensor) -> Tensor:
        x = state if same else state.to(dtype)
        before = x._version if tracked else 0
        k = v(x, t, **cond)
        if k.shape != x.shape or k.dtype != dtype:
            checks.like("the field's answer", k, "x", x)
        if tracked and x._version != before:
            raise RuntimeError("the field changed its points x in place: let it work on x.clone()")
        return k if same else k.to(kept)

    return slope


def _grid(
    dtype: torch.dtype,
    t0: float | None,
    t1: float | None,
    steps: int | None,
    times: Sequence[float] | Tensor | None,
) -> Tensor:
    """The times between steps, or at which adaptive steps must stop, on the CPU; spaced before they are rounded."""
    for name, given in (("t0", t0), ("t1", t1), ("times", times)):
        if isinstance(given, Tensor) and given.requires_grad:
            raise TypeError(
                f"{name} must not require gradients, which odeint does not give it; solve dx/ds = (t1 - t0) "
                f"v(x, t0 + s (t1 - t0)) over s from 0 to 1 instead, where t0 and t1 are parameters of the field"
            )
    if times is None:
        checks.require(
            steps is None or (type(steps) is int and steps >= 1),
            f"steps must be a whole number of at least 1, got {steps!r}",
        )
        ends = [0.0 if t0 is None else float(t0), 1.0 if t1 is None else float(t1)]
        checks.require(
            math.isfinite(ends[0]) and math.isfinite(ends[1]),
            f"t0 and t1 must be finite, got t0={ends[0]} and t1={ends[1]}",
        )
        if ends[0] == ends[1]:
            return torch.tensor(ends[:1], dtype=dtype)
        exact = torch.linspace(ends[0], ends[1], (steps or 1) + 1, dtype=torch.float64)
        if abs(ends[1] - ends[0]) / (steps or 1) > 4 * torch.finfo(dtype).eps * max(map(abs, ends)):
            return exact.to(dtype)
    else:
        exact = torch.as_tensor(times, dtype=torch.float64, device="cpu")
        checks.require(
            exact.ndim == 1 and len(exact) >= 2,
            f"times must be a grid of at least two times, got shape {tuple(exact.shape)}",
        )
        for name, given, end in (("t0", t0, exact[0]), ("t1", t1, exact[-1])):
            checks.require(
                given is None or torch.tensor(float(given), dtype=dtype) == end.to(dtype),
                f"times runs from {exact[0]:g} to {exact[-1]:g}, but {name}={given} was given as well",
            )
    grid = exact.to(dtype)
    widths = grid.diff()
    if not bool((widths.isfinite() & (widths > 0 if exact[-1] > exact[0] else widths < 0)).all()):
        shown = [float(f"{t:.9g}") for t in exact[:9]]
        raise ValueError(
            f"times must increase or decrease strictly in {dtype}, got {shown}{' and so on' * (len(exact) > 9)}"
        )
    return grid
