"""Chapter 5's exercises: right answers pass, and every known mistake is named."""

import math
import re
from functools import cache

import pytest
import torch

from flowcourse import GradeError, check, quiz
from flowcourse.exercises import find
from flowlib.solvers import HEUN, MIDPOINT, odeint

# Right answers


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


def adaptive(v, x, t0, t1, tol):
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
        h = h * min(5.0, max(0.2, 0.9 * math.sqrt(tol / max(eps, 1e-300))))
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


RIGHT = [
    ("5.1", "b"),
    ("5.2", "(c)"),
    ("5.3", theta_method),
    ("5.3", lambda theta: torch.tensor(theta_method(theta))),
    ("5.4", build),
    ("5.5", adaptive),
    ("5.5", adaptive_in_tensors),
    ("5.5", lambda *a: (adaptive(*a)[0], torch.tensor(adaptive(*a)[1], dtype=torch.float32))),
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_right_answers_pass(number, answer, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {number} ")
    assert len(out) > 60  # it says what the answer shows


# Wrong answers, each with words that its diagnosis must hold


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


WRONG = [
    # 5.1, 5.2: every other option
    ("5.1", "a", "order 0"),
    ("5.1", "c", "every field that moves"),
    ("5.1", "d", "two continuous derivatives"),
    ("5.1", "e", "one letter"),
    ("5.2", "a", "not even the two ends"),
    ("5.2", "b", "without looking"),
    ("5.2", "d", "no trajectory of v"),
    # 5.3
    ("5.3", lambda s: (1 / (2 * s), 1 - 1 / (2 * s), 1 / 6 - s / 4), "swapped"),
    ("5.3", lambda s: (1 - 1 / s, 1 / s, 1 / 6 - s / 4), "1/2, not 1"),
    ("5.3", lambda s: (1 - 1 / (2 * s * s), 1 / (2 * s * s), 1 / 6 - s / 4), "not the condition"),
    ("5.3", lambda s: (1 - s / 2, s / 2, 1 / 6 - s / 4), "upside down"),
    ("5.3", lambda s: (0.5, 0.5, 1 / 6 - s / 4), "Heun"),
    ("5.3", lambda s: (0.0, 1.0, 1 / 6 - s / 4), "midpoint"),
    ("5.3", lambda s: (1.0, 1 / (2 * s), 0.0), "sum to"),
    ("5.3", lambda s: (0.75, 0.25, 0.0), "not 1/2"),
    ("5.3", lambda s: (*theta_method(s)[:2], s / 4 - 1 / 6), "wrong sign"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 6 - s / 2), "1/2 is missing"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 6 - s * s / 2), "weighted by b₂"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 2 - s / 4), "not h³/2"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 3 - s / 4), "not h³/3"),
    ("5.3", lambda s: (*theta_method(s)[:2], s / 4), "subtract it"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 6), "subtract the method's"),
    ("5.3", lambda s: (*theta_method(s)[:2], 1 / 24), "depends on θ"),
    ("5.3", lambda s: (*theta_method(s)[:2], 7.0), "yours is 7"),
    ("5.3", lambda s: theta_method(s)[:2], "three numbers"),
    ("5.3", lambda s: None, "NoneType"),
    ("5.3", 0.5, "function theta_method"),
    # 5.4
    ("5.4", builder(lambda x, y, k, row, t, h, c: (place(x, k, row, h), t)), "read at time t;"),
    (
        "5.4",
        builder(lambda x, y, k, row, t, h, c: (place(x, k, row, h), t + c)),
        "fraction c_i is of the step",
    ),
    ("5.4", builder(lambda x, y, k, row, t, h, c: (place(x, k, row, h), t + h)), "read at time t \\+ h"),
    ("5.4", builder(lambda x, y, k, row, t, h, c: (x, t + c * h)), "read at x itself"),
    ("5.4", builder(lambda x, y, k, row, t, h, c: (place(x, k, row, 1.0), t + c * h)), "h is missing there"),
    (
        "5.4",
        builder(lambda x, y, k, row, t, h, c: (x + h * row[-1] * k[-1] if k else x, t + c * h)),
        "not the last one alone",
    ),
    ("5.4", builder(lambda x, y, k, row, t, h, c: (place(y, k, row, h), t + c * h)), "starts again from x"),
    (
        "5.4",
        builder(lambda x, y, k, row, t, h, c: (place(x, k, row, h * h), t + c * h)),
        "yours contain h twice",
    ),
    ("5.4", finishing(lambda x, k, b, h: x + h * h * weighted(b, k)), "yours contains h twice"),
    ("5.4", builder(lambda x, y, k, row, t, h, c: (place(x, k, row, -h), t + c * h)), "backwards"),
    (
        "5.4",
        builder(lambda x, y, k, row, t, h, c: (place(x, k, [c] * len(row), h), t + c * h)),
        "used c_i",
    ),
    ("5.4", finishing(lambda x, k, b, h: x + h * sum(k) / len(k)), "averaged alike"),
    ("5.4", finishing(lambda x, k, b, h: x + h * weighted(b[::-1], k)), "wrong end"),
    ("5.4", finishing(lambda x, k, b, h: x + weighted(b, k)), "without the factor h"),
    ("5.4", finishing(lambda x, k, b, h: x + h / 2 * weighted(b, k)), "half a step"),
    ("5.4", finishing(lambda x, k, b, h: x - h * weighted(b, k)), "sign is wrong"),
    ("5.4", finishing(lambda x, k, b, h: x + h * k[-1]), "last slope alone"),
    ("5.4", finishing(lambda x, k, b, h: x + h * k[0]), "Euler's step"),
    ("5.4", finishing(lambda x, k, b, h: h * weighted(b, k)), "increment"),
    ("5.4", finishing(lambda x, k, b, h: x), "nothing moved"),
    ("5.4", finishing(lambda x, k, b, h: x + 3 * h * weighted(b, k)), "should bring the first point"),
    ("5.4", shared_slopes, "should bring the first point|starts? empty"),
    ("5.4", evaluated_twice, "keep each slope"),
    ("5.4", in_place, "in place"),
    ("5.4", lambda a, b, c: build(MIDPOINT.a, MIDPOINT.b, MIDPOINT.c), "should bring|stages"),
    ("5.4", lambda a, b, c: None, "must return the function"),
    ("5.4", lambda a, b, c: lambda v, x, t, h: x.float(), "float64"),
    ("5.4", lambda a, b, c: lambda v, x, t, h: x[0], "shape"),
    ("5.4", lambda a, b, c: lambda v, x: x, "TypeError"),
    ("5.4", "a table", "function runge_kutta"),
    # 5.5
    ("5.5", control(accept=lambda eps, tol: True), "every step is accepted"),
    ("5.5", control(cut=False), "past t1"),
    ("5.5", control(keep=lambda x, k_1, k_2, h: x + h * k_1), "Euler's result is kept"),
    ("5.5", control(after=limited(lambda eps, tol: 0.9 * tol / eps)), "yours is 1$"),
    ("5.5", control(after=limited(lambda eps, tol: 0.9 * (tol / eps) ** (1 / 3))), "yours is 1/3"),
    ("5.5", control(after=limited(lambda eps, tol: (tol / eps) ** 0.5)), "safety"),
    ("5.5", control(after=limited(lambda eps, tol: 0.9 * (eps / tol) ** 0.5)), "upside down"),
    (
        "5.5",
        control(after=lambda eps, tol, accepted: 1 if accepted else max(0.2, 0.9 * (tol / eps) ** 0.5)),
        "never grow",
    ),
    ("5.5", control(after=lambda eps, tol, accepted: max(0.2, 0.9 * (tol / eps) ** 0.5)), "from above"),
    ("5.5", control(after=lambda eps, tol, accepted: min(5, 0.9 * (tol / eps) ** 0.5)), "from below"),
    (
        "5.5",
        control(after=lambda eps, tol, accepted: min(1, max(0.2, 0.9 * (tol / eps) ** 0.5))),
        "never grows",
    ),
    ("5.5", control(accept=lambda eps, tol: True, after=lambda eps, tol, accepted: 1), "never changed"),
    (
        "5.5",
        control(after=lambda eps, tol, ok: min(5, max(0.2, 0.9 * (tol / eps) ** 0.5)) if ok else 0.5),
        "yours halves it",
    ),
    ("5.5", new_length, "h of the step just made"),
    ("5.5", control(first=0.1 / 1.9), "yours is 0.1$"),
    ("5.5", control(first=1), "all of it"),
    ("5.5", control(measure=lambda d: d.abs().max().item()), "largest entry"),
    ("5.5", control(measure=lambda d: d.norm().item()), "grows with the batch"),
    ("5.5", control(measure=lambda d: d.abs().mean().item()), "absolute values"),
    ("5.5", control(measure=lambda d: d.norm(dim=1).mean().item()), "points' norms"),
    ("5.5", control(measure=lambda d: d.square().mean().item()), "root is missing"),
    ("5.5", control(difference=lambda h, k_1, k_2: h * (k_2 - k_1)), "the 1/2 is missing"),
    ("5.5", control(difference=lambda h, k_1, k_2: (k_2 - k_1) / 2), "factor h is missing"),
    ("5.5", control(difference=lambda h, k_1, k_2: k_2 - k_1), "slopes themselves"),
    ("5.5", control(late=lambda t, h: t), "belongs to time t \\+ h"),
    ("5.5", control(moves=lambda accepted: True), "leave x where it was"),
    ("5.5", control(keep=lambda x, k_1, k_2, h: x + h * k_2), "mean of both slopes"),
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
]


@cache
def diagnosis(i):
    """What the grader says to the i-th wrong answer; None if it passes."""
    number, answer, _ = WRONG[i]
    try:
        check(number, answer)
    except GradeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("i", range(len(WRONG)), ids=lambda i: f"{i} {WRONG[i][0]} {WRONG[i][2]}")
def test_wrong_answers_are_diagnosed(i):
    said = diagnosis(i)
    assert said is not None
    assert re.search(WRONG[i][2], said)
    assert len(said) > 25


def test_every_wrong_answer_has_its_own_diagnosis():
    for i, (number, _, words) in enumerate(WRONG):
        twins = [j for j in range(i) if WRONG[j][0] == number and diagnosis(i) == diagnosis(j)]
        assert not twins, (number, words, twins)


def test_graders_leave_global_randomness_alone():
    before = torch.get_rng_state()
    for number, answer in RIGHT:
        check(number, answer)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("number", ["5.1", "5.2", "5.3", "5.4", "5.5"])
def test_three_different_hints_without_tex(number):
    hints = find(number).hints
    assert len(set(hints)) == 3
    assert not re.search(r"\\[a-z]|\$", " ".join(hints))


@pytest.mark.parametrize("number", ["5.1", "5.2"])
def test_quizzes_have_one_right_option_and_no_tex(number):
    options = find(number).options
    assert sum(option.right for option in options) == 1
    assert not re.search(r"\\[a-z]|\$", quiz(number).html.split("<fieldset>")[1].split("</fieldset>")[0])
