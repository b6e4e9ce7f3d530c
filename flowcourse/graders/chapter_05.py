"""The exercises of chapter 5, The midpoint method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import (
    GradeError,
    Option,
    agree,
    call,
    choice,
    diagnose,
    exercise,
    require_tensor,
)
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4

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


@exercise(
    "5.3",
    "The best second reading",
    hints=(
        "The two conditions of order 2 are b₁ + b₂ = 1 and b₁ c₁ + b₂ c₂ = 1/2, and c₁ = 0.",
        "For v = f(t) the exact step is the integral of f: h f + h²/2 f' + h³/6 f'' + ... The method's step is "
        "h b₁ f(t) + h b₂ f(t + θ h); expand the second term up to h² inside.",
        "The method's h³ term is b₂ θ²/2 f'', with b₂ = 1/(2θ). Subtract it from 1/6 f''.",
    ),
    insight="midpoint's e is 1/24, Heun's -1/12, and θ = 2/3 (Ralston's method) makes it vanish.",
)
def grade_theta(theta_method: Any) -> None:
    """theta_method(theta) -> (1 - 1/(2 theta), 1/(2 theta), 1/6 - theta/4), as three numbers."""
    signature = "theta_method(theta)"
    thetas = (0.5, 1.0, 2 / 3, 0.4)
    rows = []
    for theta in thetas:
        value = call(theta_method, theta, signature=signature)
        try:
            row = [float(number) for number in value]
        except (TypeError, ValueError):
            raise GradeError(
                f"{signature} must return three numbers (b_1, b_2, e), not {type(value).__name__}"
            ) from None
        if len(row) != 3:
            raise GradeError(f"{signature} must return three numbers (b_1, b_2, e), not {len(row)}")
        rows.append(row)
    result = torch.tensor(rows, dtype=torch.float64)
    t = torch.tensor(thetas, dtype=torch.float64)
    b_1, b_2, e = 1 - 1 / (2 * t), 1 / (2 * t), 1 / 6 - t / 4

    weights = [
        ("b₁ and b₂ are swapped: the late reading, at θ, has the weight 1/(2θ)", (b_2, b_1)),
        ("b₂ θ must be 1/2, not 1: that is sum b c = 1/2", (1 - 1 / t, 1 / t)),
        ("b₂ θ² is not the condition: it is b₂ θ = 1/2", (1 - 1 / (2 * t * t), 1 / (2 * t * t))),
        ("b₂ = θ/2 is upside down: b₂ θ = 1/2 gives b₂ = 1/(2θ)", (1 - t / 2, t / 2)),
        ("equal weights are right for θ = 1 (Heun) only", (0 * t + 0.5, 0 * t + 0.5)),
        (
            "all the weight on the second reading is right for θ = 1/2 (midpoint) only",
            (0 * t, 0 * t + 1),
        ),
    ]
    mine = result[:, :2]
    if not agree(mine, torch.stack([b_1, b_2], 1)):
        for diagnosis, pair in weights:
            if agree(mine, torch.stack(pair, 1)):
                raise GradeError(diagnosis)
        sums, moments = mine.sum(1), mine[:, 1] * t
        bad = int((sums - 1).abs().nan_to_num(math.inf).argmax())
        if not agree(sums, torch.ones_like(t)):
            raise GradeError(
                f"for θ = {thetas[bad]:.3g} your weights sum to {sums[bad]:.4g}; without b₁ + b₂ = 1 a constant "
                "velocity is not followed"
            )
        bad = int((moments - 0.5).abs().nan_to_num(math.inf).argmax())
        raise GradeError(f"for θ = {thetas[bad]:.3g}, b₁ + b₂ = 1 but b₂ θ is {moments[bad]:.4g}, not 1/2")
    mistakes = [
        ("the weights are right; e has the wrong sign: it is truth minus method", -e),
        (
            "the weights are right; in e the Taylor term of f(t + θ h) is θ² h²/2 f'': the 1/2 is missing",
            1 / 6 - t / 2,
        ),
        ("the weights are right; in e the second reading must be weighted by b₂", 1 / 6 - t * t / 2),
        (
            "the weights are right; the exact step has h³/6 f'', from the third Taylor term, not h³/2",
            1 / 2 - t / 4,
        ),
        ("the weights are right; the exact step has h³/6 f'', not h³/3", 1 / 3 - t / 4),
        ("the weights are right; this is the method's own h³ term: subtract it from 1/6", t / 4),
        ("the weights are right; this is the exact h³ term: subtract the method's", 0 * t + 1 / 6),
        ("the weights are right; the method's h³ term is b₂ θ²/2 = θ/4 and so depends on θ", 0 * t + 1 / 24),
    ]
    at = int((result[:, 2] - e).abs().nan_to_num(math.inf).argmax())
    otherwise = (
        f"the weights are right; for θ = {thetas[at]:.3g} e should be {e[at]:.4f}, yours is {result[at, 2]:.4f}: "
        "1/6 less b₂ θ²/2"
    )
    diagnose(result[:, 2], e, mistakes, otherwise)


# 5.4 Each wrong builder below makes one mistake; the grader runs it beside the reader's on tables that tell all apart.


def _swirl(x: Tensor, t: Any) -> Tensor:
    """Nonlinear, time-dependent and without symmetry, so that no two mistakes look alike."""
    return torch.stack([torch.sin(x[:, 1] + 3 * t), x[:, 0] * (0.5 + t * t)], dim=1)


Table = tuple[Sequence[Sequence[float]], Sequence[float], Sequence[float]]
# Order 3, by Heun (1900): every entry that a mistake could confuse has a value of its own.
_TABLES: dict[str, Table] = {
    "Heun's third-order table": (((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4), (0.0, 1 / 3, 2 / 3)),
    "Ralston's third-order table": (((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9), (0.0, 1 / 2, 3 / 4)),
    "Kutta's third-order table": (((), (1 / 2,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6), (0.0, 1 / 2, 1.0)),
    **{m.name: (m.a, m.b, m.c) for m in (EULER, MIDPOINT, HEUN, RK4)},
}


def _step(
    table: Table,
    v: Field,
    x: Tensor,
    t: float,
    h: float,
    *,
    clock: Callable[[float], float] = lambda c: c,
    reach: Callable[[float], float] = lambda a: a,
    only_last: bool = False,
    chained: bool = False,
    weights: Callable[[Sequence[float]], Sequence[float]] = lambda b: b,
    move: float = 1.0,
) -> Tensor:
    """One Runge-Kutta step, with a place for every common mistake."""
    a, b, c = table
    k: list[Tensor] = []
    y = x
    for row, c_i in zip(a, c, strict=True):
        y = y if chained else x
        terms = list(zip(row, k, strict=True))
        for a_ij, k_j in terms[-1:] if only_last else terms:
            y = y + h * reach(a_ij) * k_j
        k.append(v(y, t + clock(c_i) * h))
    for b_i, k_i in zip(weights(b), k, strict=True):
        x = x + move * h * b_i * k_i
    return x


def _wrong_steps(table: Table, v: Field, x: Tensor, t: float, h: float) -> list[tuple[str, Tensor]]:
    b = table[1]

    def run(**mistake: Any) -> Tensor:
        return _step(table, v, x, t, h, **mistake)

    rows = [run(weights=lambda b, i=i: [float(j == i) for j in range(len(b))]) for i in range(len(b))]
    return [
        ("every slope is read at time t; slope i belongs to time t + c_i h", run(clock=lambda c: 0.0)),
        (
            "slope i is read at time t + c_i; the fraction c_i is of the step: t + c_i h",
            run(clock=lambda c: c / h),
        ),
        ("every slope is read at time t + h; slope i belongs to time t + c_i h", run(clock=lambda c: 1.0)),
        (
            "every slope is read at x itself; a_ij says how far along the earlier slopes to go",
            run(reach=lambda a: 0.0),
        ),
        ("the stages move by a_ij k_j; the step length h is missing there", run(reach=lambda a: a / h)),
        (
            "the stage must add all the earlier slopes, sum_j a_ij k_j, not the last one alone",
            run(only_last=True),
        ),
        ("each stage starts again from x: yours starts from the stage before", run(chained=True)),
        ("the stages move by h a_ij k_j: yours contain h twice", run(reach=lambda a: a * h)),
        ("the step adds h sum b k: yours contains h twice", run(move=h)),
        ("the stages step backwards: x + h a k, not x - h a k", run(reach=lambda a: -a)),
        ("the stage weights are a_ij, and you used c_i for each earlier slope", _with_c(table, v, x, t, h)),
        ("all slopes are averaged alike; the weights are b", run(weights=lambda b: [1 / len(b)] * len(b))),
        ("the weights b are read from the wrong end", run(weights=lambda b: list(b)[::-1])),
        ("the step adds sum b k without the factor h", run(move=1 / h)),
        ("only half a step: the point moves by h sum b k", run(move=0.5)),
        ("the sign is wrong: the point moves by + h sum b k", run(move=-1.0)),
        ("this moves along the last slope alone; b combines them", rows[-1]),
        ("this moves along the first slope alone, which is Euler's step; b combines them", rows[0]),
        ("nothing moved: this is x itself", x),
        ("this is the increment h sum b k; the step returns x plus it", run() - x),
    ]


def _with_c(table: Table, v: Field, x: Tensor, t: float, h: float) -> Tensor:
    a, b, c = table
    return _step(([[c_i] * len(row) for row, c_i in zip(a, c, strict=True)], b, c), v, x, t, h)


@exercise(
    "5.4",
    "A table becomes a solver",
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
def grade_runge_kutta(runge_kutta: Any) -> None:
    """runge_kutta(a, b, c) -> step(v, x, t, h), one step of the method for x (B, 2)."""
    signature = "step(v, x, t, h)"
    x = torch.tensor([[0.3, -0.7], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64)
    t, h = 0.2, 0.4
    for name, table in _TABLES.items():
        step = call(runge_kutta, *table, signature="runge_kutta(a, b, c)")
        if not callable(step):
            raise GradeError(
                f"runge_kutta(a, b, c) must return the function {signature}, not {type(step).__name__}"
            )
        calls = 0

        def counted(y: Tensor, s: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return _swirl(y, s)

        mine = x.clone()
        result = require_tensor(call(step, counted, mine, t, h, signature=signature), x, signature)
        if not torch.equal(mine, x):
            raise GradeError("x was modified in place: write x_i = x_i + ..., not x_i += ...")
        right = _step(table, _swirl, x, t, h)
        otherwise = (
            f"with {name} one step from t = {t} with h = {h} should bring the first point to ({right[0, 0]:.4f}, "
            f"{right[0, 1]:.4f}); yours is at ({result[0, 0]:.4f}, {result[0, 1]:.4f}), after {calls} evaluations of "
            f"v, where the table has {len(table[1])} stages"
        )
        diagnose(result, right, _wrong_steps(table, _swirl, x, t, h), otherwise)
        if calls != len(table[1]):
            raise GradeError(
                f"the result is right, but {name} has {len(table[1])} stages and you evaluate v {calls} times: keep "
                "each slope in a list and use it again"
            )
        again = require_tensor(call(step, _swirl, right, t + h, h, signature=signature), x, signature)
        if not agree(again, _step(table, _swirl, right, t + h, h)):
            raise GradeError(
                "the first step is right and the second is not: something is carried over from one call to the next. "
                "The list of slopes must start empty inside step"
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
    early: bool = False,
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
        k_2 = v(x + step * k_1, t if early else t + step)
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


_WRONG_ADAPTIVE: list[tuple[str, dict[str, Any]]] = [
    (
        "every step is accepted: a step whose estimate exceeds tol must be tried again, shorter",
        {"reject": False},
    ),
    (
        "the last step goes past t1: cut h to at most t1 - t before each step",
        {"cut": False},
    ),
    ("Euler's result is kept; the better one, Heun's, costs nothing more", {"keep": lambda k_1, k_2: k_1}),
    (
        "the accepted result moves along the mean of both slopes; yours along k_2 alone",
        {"keep": lambda k_1, k_2: k_2},
    ),
    ("the exponent is 1/2, since the estimate is of size h²: yours is 1", {"exponent": 1.0}),
    (
        "the exponent is 1/2, since the estimate is of size h²: yours is 1/3, for an estimate of size h³",
        {"exponent": 1 / 3},
    ),
    ("the safety factor 0.9 is missing: half of the steps would just fail", {"safety": 1.0}),
    ("the ratio is upside down: a large error must make the next step short", {"upside_down": True}),
    (
        "h is multiplied after rejected steps only: it can shrink and never grow",
        {"adjust": lambda accepted: not accepted},
    ),
    ("h is never changed: multiply it after every step", {"reject": False, "adjust": lambda accepted: False}),
    (
        "after a rejected step h is multiplied by the same factor as after an accepted one; yours halves it",
        {"halve": True},
    ),
    ("t moves on by the new h: it must move by the h of the step just made", {"new_h": True}),
    ("the first h is a tenth of t1 - t0; yours is 0.1", {"first": lambda length: 0.1}),
    ("the first h is a tenth of t1 - t0; yours is all of it", {"first": lambda length: length}),
    ("h is not limited from above: it must not grow by more than a factor of 5", {"most": math.inf}),
    ("h is not limited from below: it must not shrink by more than a factor of 5", {"least": 0.0}),
    ("h may grow up to a factor of 5: yours never grows", {"most": 1.0}),
    (
        "the root mean square averages over all entries; you took the largest entry",
        {"size": lambda d: float(d.abs().max())},
    ),
    (
        "the root mean square averages over all entries; you took the norm, which grows with the batch",
        {"size": lambda d: float(d.norm())},
    ),
    ("the root mean square, not the mean of absolute values", {"size": lambda d: float(d.abs().mean())}),
    (
        "the root mean square over all entries: you averaged the points' norms",
        {"size": lambda d: float(d.norm(dim=1).mean())},
    ),
    ("the root is missing: this is the mean square", {"size": lambda d: float(d.square().mean())}),
    ("the two results differ by h/2 (k_2 - k_1): the 1/2 is missing", {"estimate": lambda h: h}),
    ("the two results differ by h/2 (k_2 - k_1): the factor h is missing", {"estimate": lambda h: 0.5}),
    ("the estimate is h/2 (k_2 - k_1): you compare the slopes themselves", {"estimate": lambda h: 1.0}),
    ("k_2 belongs to time t + h, not to t", {"early": True}),
    ("a rejected step must leave x where it was", {"ignore": True}),
]


def _pulse(x: Tensor, t: Any) -> Tensor:
    """A field that is in a hurry around t = 1: steps must shrink before it, some of them rejected, and grow again."""
    hurry = 6 / (1 + 2500 * (t - 1.0) ** 2)
    return torch.stack([torch.sin(x[:, 1] + t) / 8 + hurry, x[:, 0] * (0.1 - hurry)], dim=1)


def _idle(x: Tensor, t: Any) -> Tensor:
    """A field that hardly changes, so that a step may grow by all that is allowed."""
    return torch.stack([torch.sin(x[:, 1] + t) / 80, x[:, 0] / 100 + 1], dim=1)


@exercise(
    "5.5",
    "A solver that chooses its steps",
    hints=(
        "Keep t, x and h, and loop while t < t1. In each round: cut h, read two slopes, estimate, decide, adjust h. "
        "Only an accepted step changes t and x.",
        "The estimate is one number for the whole batch: (h / 2 * (k_2 - k_1)).square().mean().sqrt().item().",
        "h *= min(5, max(0.2, 0.9 * (tol / eps) ** 0.5)), after accepted and rejected steps alike. So that rounding "
        "cannot keep t below t1, set t = t1 after a step that was cut to t1 - t.",
    ),
    insight="short steps where the field is in a hurry, long ones elsewhere, and nobody had to choose N.",
)
def grade_adaptive(adaptive: Any) -> None:
    """adaptive(v, x, t0, t1, tol) -> (x at t1, accepted times), Heun with Euler inside, as the exercise prescribes."""
    x = torch.tensor([[0.3, -0.7], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64)
    for field in (_pulse, _idle):
        _compare_adaptive(adaptive, field, x, 0.2, 2.1, 0.01)


def _compare_adaptive(adaptive: Any, v: Field, x: Tensor, t0: float, t1: float, tol: float) -> None:
    signature = "adaptive(v, x, t0, t1, tol)"
    calls, early, limit = 0, 0, 4_000

    def counted(y: Tensor, t: Any) -> Tensor:
        nonlocal calls, early
        calls, early = calls + 1, early + (float(t) == t0)
        if calls > limit and early > limit / 3:
            raise GradeError(f"after {limit:,} evaluations no step has been accepted: eps <= tol must accept")
        if calls > limit:
            raise GradeError(
                f"after {limit:,} evaluations t1 is not reached; is the ratio tol / eps upside down? h must shrink "
                "after a large error and grow after a small one"
            )
        return v(y, t)

    mine = x.clone()
    value = call(adaptive, counted, mine, t0, t1, tol, signature=signature)
    if not torch.equal(mine, x):
        raise GradeError("x was modified in place: write x = x + ..., not x += ...")
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise GradeError(
            f"{signature} must return two things, the points at t1 and the list of accepted times, "
            f"not {type(value).__name__}"
        )
    end = require_tensor(value[0], x, "the points at t1")
    try:
        times = [float(t) for t in value[1]]
    except (TypeError, ValueError):
        raise GradeError(
            f"the accepted times must be a list of numbers, not {type(value[1]).__name__}"
        ) from None
    right_end, right = _adapt(v, x, t0, t1, tol)

    def same(times_: Sequence[float], end_: Tensor) -> bool:
        crumb = len(times) > 2 and 0 < times[-1] - times[-2] < 1e-12  # t + h may round to just below t1
        merged = [*times[:-2], times[-1]] if crumb else times
        return (
            len(merged) == len(times_)
            and all(abs(s - t) < 1e-6 for s, t in zip(merged, times_, strict=True))
            and agree(end, end_)
        )

    if same(right, right_end):
        return
    for diagnosis, mistake in _WRONG_ADAPTIVE:
        wrong_end, wrong = _adapt(v, x, t0, t1, tol, **mistake)
        if same(wrong, wrong_end):
            raise GradeError(diagnosis)
    if not times or abs(times[0] - t0) > 1e-6:
        raise GradeError(f"the accepted times must begin with t0 = {t0}")
    if times[-1] < t1 - 1e-6 and agree(end, right_end):
        raise GradeError(
            f"the points are right, but the last time must be t1 = {t1}, and yours is {times[-1]:.6g}: list it too"
        )
    if abs(times[-1] - t1) > 1e-6:
        raise GradeError(
            f"the last time must be t1 = {t1}, and yours is {times[-1]:.6g}: cut h to at most t1 - t"
        )
    if any(t <= s for s, t in itertools.pairwise(times)):
        raise GradeError("the accepted times must increase: a rejected step adds none")
    first = next((i for i, (s, t) in enumerate(zip(times, right, strict=False)) if abs(s - t) > 1e-6), None)
    where = (
        f"the first step that differs ends at t = {times[first]:.6f}, where it should end at {right[first]:.6f}"
        if first is not None
        else f"you accept {len(times) - 1} steps, and {len(right) - 1} are expected"
    )
    if len(times) == len(right) and first is None:
        where = "the times are right and the points are not: the accepted result is x + h/2 (k_1 + k_2)"
    raise GradeError(where)
