"""The exercises of chapter 5, The midpoint method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import (
    START,
    Answer,
    Counted,
    GradeError,
    Probe,
    agree,
    from_parts,
    guarded,
    numbers,
    require,
    show,
    swirl,
    worst,
)
from flowlib.data import eight_gaussians
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import DOPRI5, EULER, HEUN, MIDPOINT, RK4, Tableau, odeint

Field = Callable[[Tensor, Any], Tensor]

choice(
    "5.1",
    "An order as a symptom",
    "A colleague's midpoint solver has observed order 2.0 on a rotation, whose field does not depend on time, and 1.0 "
    "on a vortex that travels. Everything is in float64. What is the most likely mistake?",
    Option(
        "It moves by half a step: x + h/2 · k₂ instead of x + h · k₂.",
        "Then the points would travel at half the speed on both fields, and no number of steps would bring them to the "
        "right end: order 0, on the rotation too.",
    ),
    Option(
        "It reads the second slope at the midpoint's place but at the old time t.",
        "A field that does not depend on time cannot tell. One that does is read h/2 too early, an error of size h in "
        "the velocity and h² in the step: order 1.",
        right=True,
    ),
    Option(
        "Its grid has N points instead of N + 1, so that the trip ends one step early.",
        "That leaves an error of size h on every field that moves at t = 1. The rotation would show order 1 as well.",
    ),
    Option(
        "Nothing: the midpoint method has order 2 only on fields that do not depend on time.",
        "Its order conditions hold for all fields with two continuous derivatives, in x and in t. The theorem does not "
        "ask the field to stand still.",
    ),
    hints=(
        "The two fields differ in one respect. Which variable of v(x, t) does not matter for the rotation?",
        "For each suspect, ask what it would do to the rotation. Two of them would spoil it as well.",
        "Something in the table is wrong that only a time-dependent field notices: look at the column c.",
    ),
)

choice(
    "5.2",
    "What the target is",
    "Flow matching with independent draws x₀ (noise) and x₁ (data) regresses a network at (xₜ, t), with "
    "xₜ = (1 - t) x₀ + t x₁, on the target x₁ - x₀. What is that target, seen from the field v that is being learned?",
    Option(
        "The velocity of v at t = 1/2, by the midpoint rule with h = 1.",
        "A rule with an error of size h² says little at h = 1; and x₀ and x₁ are not even the two ends of one "
        "trajectory of v.",
    ),
    Option(
        "The mean velocity of v along its trajectory that starts at x₀.",
        "That would be φ₁(x₀) - x₀. But x₁ was drawn without looking at x₀, so it is not φ₁(x₀).",
    ),
    Option(
        "A random vector whose mean, among all pairs with the same xₜ = x, is v(x, t).",
        "It is an unbiased, noisy observation of the velocity at the place and time where it is used. The regression "
        "averages the noise away, at every t.",
        right=True,
    ),
    Option(
        "Exactly v(xₜ, t), because the line from x₀ to x₁ is straight.",
        "The line is straight, but it is no trajectory of v: other lines pass through the same place at the same time "
        "with other velocities, and a field has one value there.",
    ),
    hints=(
        "How were x₀ and x₁ drawn? Does any trajectory of v connect them?",
        "How many different pairs (x₀, x₁) have a line through one given x at one given time t?",
        "What does a regression with squared error learn, if the same input comes with many different targets?",
    ),
)


@from_parts
def _theta(theta: float) -> dict[str, Any]:
    b_2, e = 1 / (2 * theta), 1 / 6 - theta / 4
    return locals()


def _weighted(weights: Callable[[float], tuple[float, float]]) -> Answer:
    return lambda theta: (*weights(theta), 1 / 6 - theta / 4)


THETAS = (0.5, 1.0, 2 / 3, 0.4)
_triples = numbers("theta_method(theta)", [(theta,) for theta in THETAS], "three numbers (b_1, b_2, e)", 3)


def _weights_off(result: Tensor, right: Tensor, _: Answer) -> str:
    sums, moments = result.sum(1), result[:, 1] * torch.tensor(THETAS, dtype=torch.float64)
    at = worst(sums, torch.ones_like(sums))
    if not agree(sums, torch.ones_like(sums)):
        return (
            f"for θ = {THETAS[at]:.3g} your weights sum to {sums[at]:.4g}; without b₁ + b₂ = 1 a constant velocity is "
            "not followed"
        )
    at = worst(moments, torch.full_like(moments, 0.5))
    return f"for θ = {THETAS[at]:.3g}, b₁ + b₂ = 1 but b₂ θ is {moments[at]:.4g}, not 1/2"


def _rest_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"the weights are right; for θ = {THETAS[at]:.3g} e should be {right[at]:.4f}, yours is {result[at]:.4f}: "
        "1/6 less b₂ θ²/2"
    )


FINE = "the weights are right; "

exercise(
    "5.3",
    "The best second reading",
    "theta_method(theta)",
    Probe(lambda theta_method: _triples(theta_method)[:, :2], _weights_off),
    Probe(lambda theta_method: _triples(theta_method)[:, 2], _rest_off),
    right=_theta(lambda p: (1 - p.b_2, p.b_2, p.e)),
    mistakes=[
        (
            "b₁ and b₂ are swapped: the late reading, at θ, has the weight 1/(2θ)",
            _theta(lambda p: (p.b_2, 1 - p.b_2, p.e)),
        ),
        ("b₂ θ must be 1/2, not 1: that is sum b c = 1/2", _weighted(lambda t: (1 - 1 / t, 1 / t))),
        (
            "b₂ θ² is not the condition: it is b₂ θ = 1/2",
            _weighted(lambda t: (1 - 1 / (2 * t * t), 1 / (2 * t * t))),
        ),
        ("b₂ = θ/2 is upside down: b₂ θ = 1/2 gives b₂ = 1/(2θ)", _weighted(lambda t: (1 - t / 2, t / 2))),
        ("b₂ is not θ: b₂ θ = 1/2 gives b₂ = 1/(2θ)", _weighted(lambda t: (1 - t, t))),
        ("equal weights are right for θ = 1 (Heun) only", _weighted(lambda t: (0.5, 0.5))),
        (
            "all the weight on the second reading is right for θ = 1/2 (midpoint) only",
            _weighted(lambda t: (0.0, 1.0)),
        ),
        (f"{FINE}e has the wrong sign: it is truth minus method", _theta(lambda p: (1 - p.b_2, p.b_2, -p.e))),
        (
            f"{FINE}in e the Taylor term of f(t + θ h) is θ² h²/2 f'': the 1/2 is missing",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 6 - p.theta / 2)),
        ),
        (
            f"{FINE}in e the second reading must be weighted by b₂",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 6 - p.theta**2 / 2)),
        ),
        (
            f"{FINE}the exact step has h³/6 f'', from the third Taylor term, not h³/2",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 2 - p.theta / 4)),
        ),
        (
            f"{FINE}the exact step has h³/6 f'', not h³/3",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 3 - p.theta / 4)),
        ),
        (
            f"{FINE}this is the method's own h³ term: subtract it from 1/6",
            _theta(lambda p: (1 - p.b_2, p.b_2, p.theta / 4)),
        ),
        (
            f"{FINE}this is the exact h³ term: subtract the method's",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 6)),
        ),
        (
            f"{FINE}the method's h³ term is b₂ θ²/2 = θ/4 and so depends on θ",
            _theta(lambda p: (1 - p.b_2, p.b_2, 1 / 24)),
        ),
    ],
    hints=(
        "The two conditions of order 2 are b₁ + b₂ = 1 and b₁ c₁ + b₂ c₂ = 1/2, and c₁ = 0.",
        "For v = f(t) the exact step is the integral of f: h f + h²/2 f' + h³/6 f'' + ... The method's step is "
        "h b₁ f(t) + h b₂ f(t + θ h); expand the second term up to h² inside.",
        "The method's h³ term is b₂ θ²/2 f'', with b₂ = 1/(2θ). Subtract it from 1/6 f''.",
    ),
    insight="midpoint's e is 1/24, Heun's -1/12, and θ = 2/3 (Ralston's method) makes it vanish.",
)


# 5.4 A step with a place for every common mistake, on tables that tell all of them apart.


Table = tuple[Sequence[Sequence[float]], Sequence[float], Sequence[float]]
# Order 3, by Heun (1900): every entry that a mistake could confuse has a value of its own.
_TABLES: dict[str, Table] = {
    "Heun's third-order table": (((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4), (0.0, 1 / 3, 2 / 3)),
    "Ralston's third-order table": (((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9), (0.0, 1 / 2, 3 / 4)),
    "Kutta's third-order table": (((), (1 / 2,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6), (0.0, 1 / 2, 1.0)),
    "a made-up table, whose c are not the sums of the rows of a,": (
        ((), (1 / 3,), (1 / 4, 1 / 2)),
        (0.2, 0.3, 0.5),
        (0.1, 0.4, 0.8),
    ),
    **{m.name: (m.a, m.b, m.c) for m in (EULER, MIDPOINT, HEUN, RK4)},
}


def _step(
    table: Table,
    v: Field,
    x: Tensor,
    t: float,
    h: float,
    *,
    clock: Callable[[float, float], float] = lambda c, h: c,
    reach: Callable[[float, float], float] = lambda a, h: a,
    only_last: bool = False,
    chained: bool = False,
    moved: bool = False,
    weights: Callable[[Sequence[float]], Sequence[float]] = lambda b: b,
    move: Callable[[float], float] = lambda h: 1.0,
) -> Tensor:
    """One Runge-Kutta step, with a place for every common mistake."""
    a, b, c = table
    k: list[Tensor] = []
    y = x
    for row, c_i in zip(a, c, strict=True):
        y = y if chained else x
        if moved:
            y = x + h * sum(b_j * k_j for b_j, k_j in zip(b, k, strict=False))
        terms = list(zip(row, k, strict=True))
        for a_ij, k_j in terms[-1:] if only_last else terms:
            y = y + h * reach(a_ij, h) * k_j
        k.append(v(y, t + clock(c_i, h) * h))
    for b_i, k_i in zip(weights(b), k, strict=True):
        x = x + move(h) * h * b_i * k_i
    return x


def _method(**mistake: Any) -> Answer:
    """runge_kutta(a, b, c) with one part exchanged."""
    return lambda a, b, c: lambda v, x, t, h: _step((a, b, c), v, x, t, h, **mistake)


def _with_c(a: Any, b: Any, c: Any) -> Answer:
    return _method()([[c_i] * len(row) for row, c_i in zip(a, c, strict=True)], b, c)


def _increment(a: Any, b: Any, c: Any) -> Answer:
    return lambda v, x, t, h: _step((a, b, c), v, x, t, h) - x


TIME, LENGTH = 0.2, 0.4


def _stepper(runge_kutta: Answer, table: Table) -> Answer:
    step = runge_kutta(*table)
    if not callable(step):
        raise GradeError(
            f"runge_kutta(a, b, c) must return the function step(v, x, t, h), not {type(step).__name__}"
        )
    return guarded(step, "step(v, x, t, h)")


def _first_step(name: str) -> Probe:
    table = _TABLES[name]

    def evaluations(runge_kutta: Answer) -> Tensor:
        v = Counted(swirl)
        _stepper(runge_kutta, table)(v, START, TIME, LENGTH)
        return torch.tensor(v.calls)

    def told(result: Tensor, right: Tensor, runge_kutta: Answer) -> str:
        at = worst(result, right)
        return (
            f"with {name} one step from t = {TIME} with h = {LENGTH} should bring the point {show(START[at])} to "
            f"{show(right[at])}; yours is at {show(result[at])}, after {evaluations(runge_kutta)} evaluations of v, "
            f"where the table has {len(table[1])} stages"
        )

    return Probe(
        lambda runge_kutta: _stepper(runge_kutta, table)(Counted(swirl), START, TIME, LENGTH),
        told,
        what="step(v, x, t, h)",
    )


def _evaluations(runge_kutta: Answer) -> Tensor:
    """How often each table's step asks the field."""
    calls = []
    for table in _TABLES.values():
        v = Counted(swirl)
        _stepper(runge_kutta, table)(v, START, TIME, LENGTH)
        calls.append(v.calls)
    return torch.tensor(calls)


def _evaluations_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"the result is right, but {list(_TABLES)[at]} has {right[at]} stages and you evaluate v {result[at]} times: "
        "keep each slope in a list and use it again"
    )


def _second_step(runge_kutta: Answer) -> Any:
    """A step with each of two methods in turn, after both have made one."""
    steps = [
        _stepper(runge_kutta, _TABLES[name])
        for name in ("Kutta's third-order table", "Heun's third-order table")
    ]
    for step in steps:
        step(swirl, START, TIME, LENGTH)
    return [step(swirl, START - 0.1, TIME + LENGTH, LENGTH / 2) for step in steps]


exercise(
    "5.4",
    "A table becomes a solver",
    "runge_kutta(a, b, c)",
    *(_first_step(name) for name in _TABLES),
    Probe(_evaluations, _evaluations_off),
    Probe(
        _second_step,
        "the first step is right and the second is not: something is carried over from one call to the next. The list "
        "of slopes must start empty inside step",
    ),
    right=_method(),
    mistakes=[
        ("every slope is read at time t; slope i belongs to time t + c_i h", _method(clock=lambda c, h: 0.0)),
        (
            "slope i is read at time t + c_i; the fraction c_i is of the step: t + c_i h",
            _method(clock=lambda c, h: c / h),
        ),
        (
            "every slope is read at time t + h; slope i belongs to time t + c_i h",
            _method(clock=lambda c, h: 1.0),
        ),
        (
            "every slope is read at x itself; a_ij says how far along the earlier slopes to go",
            _method(reach=lambda a, h: 0.0),
        ),
        (
            "the stages move by a_ij k_j; the step length h is missing there",
            _method(reach=lambda a, h: a / h),
        ),
        (
            "the stage must add all the earlier slopes, sum_j a_ij k_j, not the last one alone",
            _method(only_last=True),
        ),
        ("each stage starts again from x: yours starts from the stage before", _method(chained=True)),
        (
            "each stage starts from x as it was at the start of the step: yours starts from a point that b has moved",
            _method(moved=True),
        ),
        (
            "slope i belongs to time t + c_i h, counted from the start of the step: yours adds up the c",
            lambda a, b, c: _method()(a, b, list(itertools.accumulate(c))),
        ),
        ("the stages move by h a_ij k_j: yours contain h twice", _method(reach=lambda a, h: a * h)),
        ("the step adds h sum b k: yours contains h twice", _method(move=lambda h: h)),
        ("the stages step backwards: x + h a k, not x - h a k", _method(reach=lambda a, h: -a)),
        ("the stage weights are a_ij, and you used c_i for each earlier slope", _with_c),
        (
            "all slopes are averaged alike; the weights are b",
            _method(weights=lambda b: [1 / len(b)] * len(b)),
        ),
        ("the weights b are read from the wrong end", _method(weights=lambda b: list(b)[::-1])),
        ("the step adds sum b k without the factor h", _method(move=lambda h: 1 / h)),
        ("only half a step: the point moves by h sum b k", _method(move=lambda h: 0.5)),
        ("the sign is wrong: the point moves by + h sum b k", _method(move=lambda h: -1.0)),
        (
            "this moves along the last slope alone; b combines them",
            _method(weights=lambda b: [0.0] * (len(b) - 1) + [1.0]),
        ),
        (
            "this moves along the first slope alone, which is Euler's step; b combines them",
            _method(weights=lambda b: [1.0] + [0.0] * (len(b) - 1)),
        ),
        (
            "slope i belongs to time t + c_i h: yours goes by the sum of row i of a, which need not be c_i",
            lambda a, b, c: _method()(a, b, [sum(row) for row in a]),
        ),
        ("nothing moved: this is x itself", lambda a, b, c: lambda v, x, t, h: x),
        ("this is the increment h sum b k; the step returns x plus it", _increment),
    ],
    hints=(
        "runge_kutta returns a function. Inside it, keep the slopes in a list that starts empty, and fill it stage by "
        "stage.",
        "Stage i: start from x, add h a_ij k_j for the slopes that are already in the list, read v there at time "
        "t + c_i h, append. zip(row, k) pairs each weight with its slope.",
        "At the end: return x + h * sum(b_i * k_i for b_i, k_i in zip(b, k)). For the first row, which is empty, the "
        "inner sum has no terms.",
    ),
    insight="a new method is a new table: you now have every explicit Runge-Kutta method there is.",
)


# 5.5 The text prescribes every decision of the solver, so that its times can be compared one by one.


def _adapt(
    v: Field,
    x: Tensor,
    t0: float,
    t1: float,
    tol: float,
    *,
    reject: bool = True,
    cut: bool = True,
    keep: Callable[[Tensor, Tensor], Tensor] = lambda k_1, k_2: (k_1 + k_2) / 2,
    exponent: float = 0.5,
    safety: float = 0.9,
    least: float = 0.2,
    most: float = 5.0,
    adjust: Callable[[bool], bool] = lambda accepted: True,
    size: Callable[[Tensor], float] = lambda d: float(d.square().mean().sqrt()),
    estimate: Callable[[float], float] = lambda h: h / 2,
    upside_down: bool = False,
    late: Callable[[float], float] = lambda h: h,
    ignore: bool = False,
    first: Callable[[float], float] = lambda length: length / 10,
    halve: bool = False,
    new_h: bool = False,
) -> tuple[Tensor, list[float]]:
    t, h, times = t0, first(t1 - t0), [t0]
    for _ in range(2000):
        if not t < t1 - 1e-12:
            break
        last = h >= t1 - t
        step = t1 - t if last and cut else h
        k_1 = v(x, t)
        k_2 = v(x + step * k_1, t + late(step))
        error = max(size(estimate(step) * (k_2 - k_1)), 1e-300)
        accepted = error <= tol or not reject
        if accepted or ignore:  # `ignore` moves the point of a rejected step, and not the clock
            x = x + step * keep(k_1, k_2)
        h = step
        if adjust(accepted):
            ratio = error / tol if upside_down else tol / error
            h = step * min(most, max(least, safety * ratio**exponent))
        if halve and not accepted:
            h = step / 2
        if accepted:
            t = t + h if new_h else t1 if last and cut else t + step
            times.append(t)
    return x, times


def _pulse(x: Tensor, t: Any) -> Tensor:
    """A field that is in a hurry around t = 1: steps must shrink before it, some of them rejected, and grow again."""
    hurry = 6 / (1 + 2500 * (t - 1.0) ** 2)
    return torch.stack([torch.sin(x[:, 1] + t) / 8 + hurry, x[:, 0] * (0.1 - hurry)], dim=1)


def _idle(x: Tensor, t: Any) -> Tensor:
    """A field that hardly changes, so that a step may grow by all that is allowed."""
    return torch.stack([torch.sin(x[:, 1] + t) / 80, x[:, 0] / 100 + 1], dim=1)


def _still(x: Tensor, t: Any) -> Tensor:
    """A field that does not change at all: the estimate is exactly 0."""
    return torch.tensor([1.0, -0.5], dtype=x.dtype).expand_as(x)


def _solver(**mistake: Any) -> Answer:
    """adaptive(v, x, t0, t1, tol) with one part exchanged."""
    return lambda v, x, t0, t1, tol: _adapt(v, x, t0, t1, tol, **mistake)


T0, T1, TOL = 0.2, 2.1, 0.01
LIMIT = 4_000


def _trip(field: Field) -> Callable[[Answer], list[Tensor]]:
    """Measure the points at t1 and the accepted times."""

    def measure(adaptive: Answer) -> list[Tensor]:
        calls, early = 0, 0

        def counted(y: Tensor, t: Any) -> Tensor:
            nonlocal calls, early
            calls, early = calls + 1, early + (float(t) == T0)
            if calls > LIMIT and early > LIMIT / 3:
                raise GradeError(
                    f"after {LIMIT:,} evaluations no step has been accepted: eps <= tol must accept"
                )
            if calls > LIMIT:
                raise GradeError(
                    f"after {LIMIT:,} evaluations t1 is not reached; is the ratio tol / eps upside down? h must shrink "
                    "after a large error and grow after a small one"
                )
            return field(y, t)

        value = adaptive(counted, START, T0, T1, TOL)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise GradeError(
                "adaptive(v, x, t0, t1, tol) must return two things, the points at t1 and the list of accepted times, "
                f"not {type(value).__name__}"
            )
        require(value[0], START, "the points at t1")
        try:
            times = [float(t) for t in value[1]]
        except (TypeError, ValueError, RuntimeError):
            raise GradeError(
                f"the accepted times must be a list of numbers, not {type(value[1]).__name__}"
            ) from None
        if len(times) > 2 and 0 < times[-1] - times[-2] < 1e-12:  # t + h may round to just below t1
            del times[-2]
        return [value[0], torch.tensor(times, dtype=torch.float64)]

    return measure


def _trip_off(result: list[Tensor], right: list[Tensor], _: Answer) -> str:
    end, times, expected = result[0], result[1].tolist(), right[1].tolist()
    if not times or abs(times[0] - T0) > 1e-6:
        return f"the accepted times must begin with t0 = {T0}"
    if times[-1] < T1 - 1e-6 and agree(end, right[0]):
        return f"the points are right, but the last time must be t1 = {T1}, and yours is {times[-1]:.6g}: list it too"
    if abs(times[-1] - T1) > 1e-6:
        return f"the last time must be t1 = {T1}, and yours is {times[-1]:.6g}: cut h to at most t1 - t"
    if not all(t > s for s, t in itertools.pairwise(times)):
        return "the accepted times must increase: a rejected step adds none"
    for mine, other in zip(times, expected, strict=False):
        if abs(mine - other) > 1e-6:
            return f"the first step that differs ends at t = {mine:.6f}, where it should end at {other:.6f}"
    if len(times) != len(expected):
        return f"you accept {len(times) - 1} steps, and {len(expected) - 1} are expected"
    return "the times are right and the points are not: the accepted result is x + h/2 (k_1 + k_2)"


ZERO = (
    "right, but not where the field is constant: there eps is exactly 0, and tol / eps divides by it. Write "
    "eps = max(eps, 1e-300)"
)

exercise(
    "5.5",
    "A solver that chooses its steps",
    "adaptive(v, x, t0, t1, tol)",
    Probe(_trip(_pulse), _trip_off),
    Probe(_trip(_idle), _trip_off),
    Probe(_trip(_still), ZERO),
    right=_solver(),
    mistakes=[
        (
            "every step is accepted: a step whose estimate exceeds tol must be tried again, shorter",
            _solver(reject=False),
        ),
        (
            "the last step goes past t1: cut h to at most t1 - t before each step",
            _solver(cut=False),
        ),
        (
            "Euler's result is kept; the better one, Heun's, costs nothing more",
            _solver(keep=lambda k_1, k_2: k_1),
        ),
        (
            "the accepted result moves along the mean of both slopes; yours along k_2 alone",
            _solver(keep=lambda k_1, k_2: k_2),
        ),
        ("the exponent is 1/2, since the estimate is of size h²: yours is 1", _solver(exponent=1.0)),
        (
            "the exponent is 1/2, since the estimate is of size h²: yours is 1/3, for an estimate of size h³",
            _solver(exponent=1 / 3),
        ),
        ("the safety factor 0.9 is missing: half of the steps would just fail", _solver(safety=1.0)),
        ("the factor 0.9 stands before the root, not inside it", _solver(safety=math.sqrt(0.9))),
        (
            "the limits 0.2 and 5 hold for the whole factor: multiply by 0.9 before you limit it",
            _solver(least=0.18, most=4.5),
        ),
        ("the ratio is upside down: a large error must make the next step short", _solver(upside_down=True)),
        (
            "h is multiplied after rejected steps only: it can shrink and never grow",
            _solver(adjust=lambda accepted: not accepted),
        ),
        (
            "h is never changed: multiply it after every step",
            _solver(reject=False, adjust=lambda accepted: False),
        ),
        (
            "after a rejected step h is multiplied by the same factor as after an accepted one; yours halves it",
            _solver(halve=True),
        ),
        ("t moves on by the new h: it must move by the h of the step just made", _solver(new_h=True)),
        ("the first h is a tenth of t1 - t0; yours is 0.1", _solver(first=lambda length: 0.1)),
        ("the first h is a tenth of t1 - t0; yours is all of it", _solver(first=lambda length: length)),
        ("h is not limited from above: it must not grow by more than a factor of 5", _solver(most=math.inf)),
        ("h is not limited from below: it must not shrink by more than a factor of 5", _solver(least=0.0)),
        ("h may grow up to a factor of 5: yours never grows", _solver(most=1.0)),
        (
            "the root mean square averages over all entries; you took the largest entry",
            _solver(size=lambda d: float(d.abs().max())),
        ),
        (
            "the root mean square averages over all entries; you took the norm, which grows with the batch",
            _solver(size=lambda d: float(d.norm())),
        ),
        (
            "the root mean square, not the mean of absolute values",
            _solver(size=lambda d: float(d.abs().mean())),
        ),
        (
            "the root mean square over all entries: you averaged the points' norms",
            _solver(size=lambda d: float(d.norm(dim=1).mean())),
        ),
        (
            "the root mean square averages over all entries, not over the points: divide by B d",
            _solver(size=lambda d: float(d.square().sum(dim=1).mean().sqrt())),
        ),
        ("the root is missing: this is the mean square", _solver(size=lambda d: float(d.square().mean()))),
        ("the two results differ by h/2 (k_2 - k_1): the 1/2 is missing", _solver(estimate=lambda h: h)),
        (
            "the two results differ by h/2 (k_2 - k_1): the factor h is missing",
            _solver(estimate=lambda h: 0.5),
        ),
        (
            "the estimate is h/2 (k_2 - k_1): you compare the slopes themselves",
            _solver(estimate=lambda h: 1.0),
        ),
        ("k_2 belongs to time t + h, not to t", _solver(late=lambda h: 0.0)),
        ("k_2 belongs to time t + h, not to t + h/2", _solver(late=lambda h: h / 2)),
        ("a rejected step must leave x where it was", _solver(ignore=True)),
    ],
    hints=(
        "Keep t, x and h, and loop while t < t1. In each round: cut h, read two slopes, estimate, decide, adjust h. "
        "Only an accepted step changes t and x.",
        "The estimate is one number for the whole batch: (h / 2 * (k_2 - k_1)).square().mean().sqrt().item().",
        "h *= min(5, max(0.2, 0.9 * (tol / eps) ** 0.5)), after accepted and rejected steps alike. So that rounding "
        "cannot keep t below t1, set t = t1 after a step that was cut to t1 - t.",
    ),
    insight="short steps where the field is in a hurry, long ones elsewhere, and nobody had to choose N.",
)


# 5.6 A plan of the reader's own: what is measured are samples that it delivers.

READINGS, CLOSE = 24, 1e-3


@cache
def _narrow() -> tuple[Answer, Tensor, Tensor]:
    """The exact field to eight narrow Gaussians, points of noise, and where the flow takes them."""
    law = GaussianMixture(eight_gaussians("ffjord").means, [1e-4] * 8)
    v = law.marginal_velocity(linear)
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return v, x, odeint(v, x, method=DOPRI5, rtol=1e-10, atol=1e-10)


def _planned(my_plan: Answer) -> tuple[Tableau, Tensor]:
    """The method and the times, if that is what my_plan returns."""
    value = my_plan(READINGS)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise GradeError(
            f"my_plan(n) must return two things, a method and the times of its steps, not {type(value).__name__}"
        )
    method, times = value
    if not isinstance(method, Tableau):
        raise GradeError(
            "the first thing must be a method, a table such as MIDPOINT of flowlib, not "
            f"{type(method).__name__}; the times are the second"
        )
    try:
        times = torch.as_tensor(times, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise GradeError(f"the times must be a list of numbers, not {type(times).__name__}") from None
    if times.ndim != 1 or len(times) < 2:
        raise GradeError(
            f"the times must be a list of at least two numbers, not of shape {tuple(times.shape)}"
        )
    if not (times[1:] > times[:-1]).all():
        raise GradeError("the times must increase from one to the next")
    if abs(times[0]) > 1e-9 or abs(times[-1] - 1) > 1e-9:
        raise GradeError(
            f"the times must go from 0 to 1, and yours go from {times[0]:.4g} to {times[-1]:.4g}"
        )
    return method, times


def _own_plan(my_plan: Answer) -> Tensor:
    method, times = _planned(my_plan)
    v, x, truth = _narrow()
    counted = Counted(v)
    miss = float((odeint(counted, x, times=times, method=method) - truth).square().sum(1).mean().sqrt())
    told = (
        f"{method.name} with {len(times) - 1} steps reads {counted.calls} velocities and misses by {miss:.2g}"
    )
    if counted.calls > READINGS:
        more = " (it chooses steps of its own between your times)" if method.error else ""
        raise GradeError(
            f"{told}: only {READINGS} readings are allowed, {method.stages} of them for a step{more}"
        )
    steps = times.diff()
    if miss < CLOSE:
        return torch.tensor(1.0)
    if steps.max() < 1.001 * steps.min():
        raise GradeError(f"{told}. Even steps cannot reach {CLOSE:g}: where is this field in a hurry?")
    if steps[-1] > 0.999 * steps[0]:
        raise GradeError(
            f"{told}, and {CLOSE:g} is wanted. Your last step is no shorter than your first, and the points must stop "
            "within a hundredth of a unit at the end"
        )
    if counted.calls <= READINGS - method.stages:
        raise GradeError(
            f"{told}, and {CLOSE:g} is wanted. You have {READINGS - counted.calls} readings left"
        )
    if method.order == 1:
        raise GradeError(f"{told}, and {CLOSE:g} is wanted. With steps as short as these a higher order pays")
    raise GradeError(
        f"{told}, and {CLOSE:g} is wanted. Shorten some steps, lengthen others, and look at the number"
    )


exercise(
    "5.6",
    "Twenty-four readings",
    "my_plan(n)",
    Probe(_own_plan, "the plan must reach the bound"),
    right=lambda n: (MIDPOINT, 1 - (1 - torch.linspace(0, 1, n // 2 + 1, dtype=torch.float64)) ** 2),
    mistakes=[],
    hints=(
        "Two things are yours to choose: a method, which fixes how many steps 24 readings buy, and where they "
        "lie. Start with an even grid and read the diagnosis.",
        "The figure of accepted steps shows where an adaptive solver hurries on this field. Put short steps there.",
        "A smooth function of an even grid u in [0, 1] makes a grid: it must take 0 to 0 and 1 to 1, and be flat where "
        "steps should be short.",
    ),
    insight="the same 24 readings, placed well, are worth four times as many placed evenly.",
)
