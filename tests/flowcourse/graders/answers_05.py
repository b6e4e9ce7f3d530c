"""Answers to the exercises of chapter 5: right ones in several ways, and wrong ones that no declared mistake covers."""

import math

import torch

from flowlib.solvers import DOPRI5, EULER, HEUN, MIDPOINT, RK4, odeint


def theta_method(theta):
    b_2 = 1 / (2 * theta)
    return 1 - b_2, b_2, 1 / 6 - theta / 4


def build(a, b, c):
    def step(v, x, t, h):
        k = []
        for row, c_i in zip(a, c, strict=True):
            x_i = x + h * sum(a_ij * k_j for a_ij, k_j in zip(row, k, strict=True))
            k.append(v(x_i, t + c_i * h))
        return x + h * sum(b_i * k_i for b_i, k_i in zip(b, k, strict=True))

    return step


def adaptive(v, x, t0, t1, tol, floor=1e-300):
    t, h, times = t0, (t1 - t0) / 10, [t0]
    while t < t1:
        last = h >= t1 - t
        h = min(h, t1 - t)
        k_1 = v(x, t)
        k_2 = v(x + h * k_1, t + h)
        eps = (h / 2 * (k_2 - k_1)).square().mean().sqrt().item()
        if eps <= tol:
            x = x + h / 2 * (k_1 + k_2)
            t = t1 if last else t + h
            times.append(t)
        h = h * min(5.0, max(0.2, 0.9 * math.sqrt(tol / max(eps, floor))))
    return x, times


def adaptive_in_tensors(v, x, t0, t1, tol):
    """The same with times as tensors, and with the sum t + h in place of t1, which may leave a crumb of a step."""
    t = torch.tensor(t0, dtype=x.dtype)
    h, times = (t1 - t0) / 10, [t]
    while t < t1 - 1e-14:
        h = torch.as_tensor(min(h, t1 - t), dtype=x.dtype)
        k_1 = v(x, t)
        difference = h / 2 * (v(x + h * k_1, t + h) - k_1)
        eps = difference.norm() / difference.numel() ** 0.5
        if eps <= tol:
            x, t = x + h * k_1 + difference, t + h
            times.append(t)
        h = h * torch.clamp(0.9 * (tol / eps) ** 0.5, 0.2, 5)
    return x, torch.stack(times)


def builder(stage, finish=None):
    """A wrong runge_kutta from stage(x, y, k, row, h) -> place and c -> time, written independently of the grader's."""

    def build(a, b, c):
        def step(v, x, t, h):
            k, y = [], x
            for row, c_i in zip(a, c, strict=True):
                y, time = stage(x, y, k, row, t, h, c_i)
                k.append(v(y, time))
            if finish:
                return finish(x, k, b, h)
            return x + h * sum(b_i * k_i for b_i, k_i in zip(b, k, strict=True))

        return step

    return build


def place(x, k, row, h):
    return x + h * sum(a * k_j for a, k_j in zip(row, k, strict=True))


def honest(x, y, k, row, t, h, c):
    return place(x, k, row, h), t + c * h


def finishing(finish):
    return builder(honest, finish)


def weighted(b, k):
    return sum(b_i * k_i for b_i, k_i in zip(b, k, strict=True))


def shared_slopes(a, b, c):
    k = []

    def step(v, x, t, h):
        for row, c_i in zip(a, c, strict=True):
            k.append(v(place(x, k[: len(row)], row, h), t + c_i * h))
        return x + h * weighted(b, k[: len(b)])

    return step


def evaluated_twice(a, b, c):
    def step(v, x, t, h):
        v(x, t)
        return build(a, b, c)(v, x, t, h)

    return step


def in_place(a, b, c):
    def step(v, x, t, h):
        x += build(a, b, c)(v, x, t, h) - x
        return x

    return step


def control(
    accept=lambda eps, tol: eps <= tol,
    after=lambda eps, tol, accepted: min(5.0, max(0.2, 0.9 * math.sqrt(tol / eps))),
    measure=lambda d: d.square().mean().sqrt().item(),
    keep=lambda x, k_1, k_2, h: x + h / 2 * (k_1 + k_2),
    difference=lambda h, k_1, k_2: h / 2 * (k_2 - k_1),
    late=lambda t, h: t + h,
    cut=True,
    first=0.1,
    record=lambda times, t, accepted: [*times, t] if accepted else times,
    moves=lambda accepted: accepted,
):
    """An adaptive solver with one part exchanged, written independently of the grader's."""

    def solve(v, x, t0, t1, tol):
        t, h, times = t0, first * (t1 - t0), [t0]
        while t1 - t > 1e-12:
            h = min(h, t1 - t) if cut else h
            k_1 = v(x, t)
            k_2 = v(x + h * k_1, late(t, h))
            eps = max(measure(difference(h, k_1, k_2)), 1e-300)
            accepted = accept(eps, tol)
            if moves(accepted):
                x = keep(x, k_1, k_2, h)
            if accepted:
                t = t + h
            times = record(times, t, accepted)
            h = h * after(eps, tol, accepted)
        return x, times

    return solve


def new_length(v, x, t0, t1, tol):
    """The clock moves on by the length of the step to come."""
    t, h, times = t0, (t1 - t0) / 10, [t0]
    while t < t1:
        h = min(h, t1 - t)
        k_1 = v(x, t)
        k_2 = v(x + h * k_1, t + h)
        eps = (h / 2 * (k_2 - k_1)).square().mean().sqrt().item()
        made, h = h, h * min(5.0, max(0.2, 0.9 * math.sqrt(tol / eps)))
        if eps <= tol:
            x, t = x + made / 2 * (k_1 + k_2), t + h
            times.append(t)
    return x, times


def limited(factor):
    return lambda eps, tol, accepted: min(5.0, max(0.2, factor(eps, tol)))


def divides_by_zero(*arguments):
    return adaptive(*arguments, floor=0.0)


def plan(method, steps, power=1.0):
    """Steps that get shorter toward the end, for powers above 1."""
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return lambda n: (method, 1 - (1 - even) ** power)


RIGHT = [
    ("5.6", plan(MIDPOINT, 12, 2.2)),
    ("5.6", plan(RK4, 6, 2.0)),
    ("5.6", lambda n: [MIDPOINT, plan(MIDPOINT, 12, 2.0)(24)[1].tolist()]),
    ("5.3", theta_method),
    ("5.3", lambda theta: torch.tensor(theta_method(theta))),
    ("5.4", build),
    ("5.5", adaptive),
    ("5.5", adaptive_in_tensors),
    ("5.5", lambda *a: (adaptive(*a)[0], torch.tensor(adaptive(*a)[1], dtype=torch.float32))),
]

# each with words that its diagnosis must hold
WRONG = [
    ("5.6", plan(MIDPOINT, 12), "Even steps cannot"),
    ("5.6", plan(RK4, 6), "Even steps cannot"),
    ("5.6", plan(MIDPOINT, 13, 2.0), "only 24 readings"),
    ("5.6", plan(MIDPOINT, 100, 2.0), "only 24 readings"),
    ("5.6", plan(DOPRI5, 4, 2.0), "steps of its own"),
    ("5.6", plan(MIDPOINT, 12, 0.5), "last step is no shorter"),
    (
        "5.6",
        lambda n: (MIDPOINT, (1 - torch.cos(torch.linspace(0, math.pi, 13))) / 2),
        "last step is no shorter",
    ),
    ("5.6", plan(MIDPOINT, 6, 2.0), "readings left"),
    ("5.6", plan(EULER, 24, 2.0), "higher order pays"),
    ("5.6", plan(HEUN, 12, 2.0), "Shorten some steps"),
    ("5.6", lambda n: MIDPOINT, "two things"),
    ("5.6", lambda n: plan(MIDPOINT, 12, 2.0)(24)[::-1], "the times are the second"),
    ("5.6", lambda n: (MIDPOINT, "soon"), "list of numbers"),
    ("5.6", lambda n: (MIDPOINT, [0.5]), "at least two numbers"),
    ("5.6", lambda n: (MIDPOINT, [0.0, 0.7, 0.6, 1.0]), "must increase"),
    ("5.6", lambda n: (MIDPOINT, [0.0, 0.5]), "from 0 to 1, and yours go from 0 to 0.5"),
    ("5.1", "e", "one letter"),
    ("5.3", lambda s: (1.0, 1 / (2 * s), 0.0), "sum to"),
    ("5.3", lambda s: (0.75, 0.25, 0.0), "not 1/2"),
    ("5.3", lambda s: (*theta_method(s)[:2], 7.0), "yours is 7"),
    ("5.3", lambda s: theta_method(s)[:2], "three numbers"),
    ("5.3", lambda s: None, "NoneType"),
    ("5.3", 0.5, "function theta_method"),
    ("5.4", finishing(lambda x, k, b, h: x + 3 * h * weighted(b, k)), "should bring the point"),
    ("5.4", shared_slopes, "should bring the first point|starts? empty"),
    ("5.4", evaluated_twice, "keep each slope"),
    ("5.4", in_place, "in place"),
    ("5.4", lambda a, b, c: build(MIDPOINT.a, MIDPOINT.b, MIDPOINT.c), "should bring|stages"),
    ("5.4", lambda a, b, c: None, "must return the function"),
    ("5.4", lambda a, b, c: lambda v, x, t, h: x.float(), "float64"),
    ("5.4", lambda a, b, c: lambda v, x, t, h: x[0], "shape"),
    ("5.4", lambda a, b, c: lambda v, x: x, "TypeError"),
    ("5.4", "a table", "function runge_kutta"),
    ("5.5", control(after=limited(lambda eps, tol: 0.9 * (eps / tol) ** 0.5)), "upside down"),
    ("5.5", new_length, "h of the step just made"),
    ("5.5", control(first=0.05), "first step that differs"),
    ("5.5", control(record=lambda times, t, accepted: [*times, t]), "rejected step adds none"),
    ("5.5", control(record=lambda times, t, accepted: [*times, t][-2:]), "begin with t0"),
    ("5.5", control(accept=lambda eps, tol: False), "no step has been accepted"),
    (
        "5.5",
        lambda v, x, t0, t1, tol: (odeint(v, x, t0=t0, t1=t1, steps=100, method=HEUN), [t0, t1]),
        "first step that differs",
    ),
    ("5.5", lambda *a: adaptive(*a)[0], "two things"),
    ("5.5", lambda *a: (adaptive(*a)[0], None), "list of numbers"),
    ("5.5", lambda *a: (adaptive(*a)[0][:1], adaptive(*a)[1]), "shape"),
    ("5.5", lambda *a: (adaptive(*a)[0], adaptive(*a)[1][:-1]), "last time must be t1.*list it too"),
    ("5.5", lambda v, x, t0, t1, tol: adaptive(v, x.add_(1), t0, t1, tol), "in place"),
    ("5.5", lambda v: v, "TypeError"),
    ("5.5", None, "function adaptive"),
    ("5.3", lambda s: (*theta_method(s), 0.0), "three numbers .*, not 4"),
    ("5.5", divides_by_zero, r"eps is exactly 0.*ZeroDivisionError.*line \d+ of your code"),
    ("5.5", lambda v, x, t0, t1, tol: (x, [t0, math.nan]), "must increase"),
]
