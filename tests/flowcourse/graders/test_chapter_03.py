"""Chapter 3's exercises: right answers pass, and every known mistake is named."""

import math
import re
from functools import cache

import pytest
import torch

from flowcourse import GradeError, check, quiz
from flowcourse.exercises import find
from flowlib.continuous import log_prob
from flowlib.derivatives import divergence
from flowlib.solvers import MIDPOINT, RK4

# Right answers


def gradients(k, x_0, y):
    a_0 = math.exp(k) * (x_0 * math.exp(k) - y)
    return a_0, a_0 * x_0


def gradients_by_autograd(k, x_0, y):
    k, x_0 = (torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in (k, x_0))
    return torch.autograd.grad((x_0 * k.exp() - y) ** 2 / 2, (x_0, k))


def hutchinson(v, x, t, noise):
    x = x.detach().requires_grad_()
    (row,) = torch.autograd.grad(v(x, t), x, noise)
    return (row * noise).sum(dim=1)


def hutchinson_of_a_sum(v, x, t, noise):
    x = x.detach().requires_grad_()
    (row,) = torch.autograd.grad((v(x, t) * noise).sum(), x)
    return torch.einsum("bi,bi->b", row, noise)


def forward_mode(v, x, t, noise):
    return (torch.func.jvp(lambda y: v(y, t), (x,), (noise,))[1] * noise).sum(dim=1)


def normal(x):
    return -(x.square() + math.log(2 * math.pi)).sum(dim=1) / 2


def likelihood(
    base=normal,
    place="middle",
    when=lambda t, h: t + h / 2,
    clock=lambda n, h: 1 + n * h,
    direction=-1,
    weight=lambda h: -h,
    sign=-1,
    reach=0.5,
    delay=0.5,
    final=lambda log_p: log_p,
    end=lambda x_0, x_1: x_0,
):
    """A midpoint solver with one part exchanged, written independently of the grader's."""

    def log_likelihood(v, x_1, steps):
        h, x, integral = direction / steps, x_1, 0.0
        for n in range(steps):
            t = clock(n, h)
            middle = x + reach * h * v(x, t)
            new = x + h * v(middle, t + delay * h)
            at = {"middle": middle, "start": x, "end": new}[place]
            integral = integral + weight(h) * divergence(v, at, when(t, h))
            x = new
        return final(base(end(x, x_1)) + sign * integral)

    return log_likelihood


RIGHT = [
    ("3.1", "b"),
    ("3.2", "(c)"),
    ("3.3", gradients),
    ("3.3", gradients_by_autograd),
    ("3.3", lambda *a: torch.tensor(gradients(*a))),
    ("3.3", lambda *a: torch.tensor(gradients(*a)).numpy()),
    ("3.4", hutchinson),
    ("3.4", hutchinson_of_a_sum),
    ("3.4", forward_mode),
    ("3.5", likelihood()),
    ("3.5", lambda v, x_1, steps: log_prob(v, x_1, steps=steps, method=MIDPOINT)),
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_right_answers_pass(number, answer, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {number} ")
    assert len(out) > 60  # it says what the answer shows


# Wrong answers, each with words that its diagnosis must hold


def pair(first=lambda k, x, y: gradients(k, x, y)[0], second=lambda k, x, y: gradients(k, x, y)[1]):
    return lambda k, x, y: (first(k, x, y), second(k, x, y))


def miss(k, x, y):
    return x * math.exp(k) - y


def from_row(finish):
    """A wrong hutchinson from what it does with x that wants gradients, v(x), t and the noise."""

    def answer(v, x, t, noise):
        x = x.detach().requires_grad_()
        return finish(x, v(x, t), noise)

    return answer


def row(x, u, e):
    return torch.autograd.grad(u, x, e, retain_graph=True)[0]


def jacobian(x, u):
    return torch.stack([row(x, u, e.expand_as(u)) for e in torch.eye(3, dtype=x.dtype)], dim=1)  # (B, 3, 3)


def diagonal(x, u):
    return jacobian(x, u).diagonal(dim1=1, dim2=2)


def own_noise():
    g = torch.Generator().manual_seed(3)

    def answer(v, x, t, noise):
        return hutchinson(v, x, t, torch.randn(x.shape, generator=g, dtype=x.dtype))

    return answer


def d_passes(v, x, t, noise):
    x = x.detach().requires_grad_()
    return torch.einsum("bi,bij,bj->b", noise, jacobian(x, v(x, t)), noise)


def overwrites_noise(v, x, t, noise):
    result = hutchinson(v, x, t, noise.clone())
    noise.zero_()
    return result


def euler(v, x_1, steps):
    x, total = x_1, 0.0
    for n in range(steps):
        t = 1 - n / steps
        total = total + divergence(v, x, t) / steps
        x = x - v(x, t) / steps
    return normal(x) - total


def overwrites_points(v, x_1, steps):
    result = likelihood()(v, x_1.clone(), steps)
    x_1.zero_()
    return result


WRONG = [
    # 3.1, 3.2: every other option
    ("3.1", "a", "first half is right"),
    ("3.1", "c", "serves all steps"),
    ("3.1", "d", "diagonal of J exact"),
    ("3.1", "e", "one letter"),
    ("3.2", "a", "Half a turn"),
    ("3.2", "b", "way around"),
    ("3.2", "d", "L = 14"),
    # 3.3
    ("3.3", lambda *a: gradients(*a)[::-1], "wrong order"),
    (
        "3.3",
        pair(
            lambda k, x, y: math.exp(-k) * miss(k, x, y),
            lambda k, x, y: x * miss(k, x, y) * math.exp(-k) * math.expm1(2 * k) / (2 * k),
        ),
        "Yours is divided by it",
    ),
    ("3.3", pair(lambda k, x, y: math.exp(-k) * miss(k, x, y)), "gives exp"),
    ("3.3", pair(miss), "carry it back"),
    ("3.3", pair(second=lambda k, x, y: miss(k, x, y) * math.expm1(k) / k), "without the state"),
    ("3.3", pair(second=lambda k, x, y: x * miss(k, x, y) * math.expm1(k) / k), "one of the two fixed"),
    ("3.3", lambda *a: [2 * g for g in gradients(*a)], "twice as large"),
    ("3.3", pair(second=lambda *a: -gradients(*a)[1]), "dL/dk has the wrong sign"),
    ("3.3", lambda *a: [-g for g in gradients(*a)], "both have the wrong sign"),
    (
        "3.3",
        pair(second=lambda k, x, y: gradients(k, x, y)[1] * math.exp(k)),
        "multiplied a\\(0\\) by x\\(1\\)",
    ),
    ("3.3", pair(second=lambda k, x, y: miss(k, x, y) * x), "took a\\(1\\) x₀"),
    ("3.3", lambda *a: gradients(*a)[:1] * 2, "you integrated a\\(0\\)"),
    ("3.3", lambda k, x, y: [g * miss(k, x, y) / 2 for g in gradients(k, x, y)], "the loss itself"),
    ("3.3", lambda k, x, y: gradients(k, x, 0.0), "without the target"),
    (
        "3.3",
        lambda k, x, y: (math.exp(k) * (x - y), x * math.exp(k) * (x - y)),
        "compared it with the start",
    ),
    ("3.3", lambda k, x, y: (0.0, 0.0), "finite differences"),
    ("3.3", lambda k, x, y: {"x_0": 1.0, "k": 2.0}, "two numbers"),
    ("3.3", lambda k, x, y: gradients(k, x, y)[0], "two numbers, \\(dL"),
    ("3.3", lambda k, x, y: ("a", "b"), "not \\('a'"),
    ("3.3", lambda k, x, y: (math.nan, 1.0), "NaN"),
    ("3.3", lambda k: k, "TypeError"),
    ("3.3", 0.5, "function gradients"),
    # 3.4
    ("3.4", from_row(row), "dot product with e is missing$"),
    ("3.4", from_row(lambda x, u, e: row(x, u, e) * e), "sum over the coordinates is missing"),
    ("3.4", from_row(lambda x, u, e: torch.einsum("bij,bj->bi", jacobian(x, u), e)), "this is J e"),
    ("3.4", from_row(lambda x, u, e: row(x, u, e) @ e.T), "pairs every point"),
    ("3.4", from_row(lambda x, u, e: (row(x, u, e) * e).sum()), "one number for the whole batch"),
    ("3.4", from_row(lambda x, u, e: (row(x, u, e) * e).sum(1).mean()), "mean over the batch"),
    ("3.4", from_row(lambda x, u, e: (row(x, u, e) * e).sum(0)), "not dim=0"),
    ("3.4", from_row(lambda x, u, e: diagonal(x, u).sum(1)), "exact trace"),
    ("3.4", from_row(lambda x, u, e: row(x, u, e).sum(1)), "this is eᵀ J 1"),
    ("3.4", from_row(lambda x, u, e: (row(x, u, torch.ones_like(e)) * e).sum(1)), "this is 1ᵀ J e"),
    ("3.4", from_row(lambda x, u, e: row(x, u, torch.ones_like(e)).sum(1)), "all entries of J"),
    ("3.4", from_row(lambda x, u, e: (diagonal(x, u) * e).sum(1)), "must enter twice"),
    ("3.4", from_row(lambda x, u, e: (diagonal(x, u) * e * e).sum(1)), "only the diagonal"),
    ("3.4", from_row(lambda x, u, e: (u * e).sum(1)), "without any derivative"),
    ("3.4", lambda v, x, t, e: hutchinson(v, x, 0.0, e), "pass the time t on"),
    ("3.4", lambda *a: -hutchinson(*a), "sign is wrong: this is -eᵀ"),
    ("3.4", lambda *a: hutchinson(*a) / 3, "mean over the coordinates"),
    ("3.4", own_noise(), "two calls"),
    ("3.4", d_passes, "One is enough"),
    ("3.4", overwrites_noise, "changed in place"),
    ("3.4", lambda *a: hutchinson(*a) + 1, "at the first point"),
    ("3.4", lambda *a: hutchinson(*a).float(), "float64"),
    ("3.4", lambda *a: hutchinson(*a)[:, None], "shape"),
    ("3.4", lambda v, x, t, e: torch.autograd.grad(v(x, t), x, e)[0], "RuntimeError"),
    ("3.4", None, "function hutchinson"),
    # 3.5
    ("3.5", likelihood(sign=1), "sign on the way back"),
    ("3.5", likelihood(weight=lambda h: h), "sign on the way back"),
    ("3.5", likelihood(sign=0), "divergence is missing"),
    ("3.5", likelihood(base=lambda x: 0 * normal(x)), "p₀\\(x₀\\) is missing"),
    ("3.5", likelihood(end=lambda x_0, x_1: x_1), "at the data point"),
    (
        "3.5",
        likelihood(direction=1, clock=lambda n, h: n * h, weight=lambda h: h),
        "at t = 0 to 1|from t = 0 to 1",
    ),
    (
        "3.5",
        likelihood(direction=1, clock=lambda n, h: n * h, weight=lambda h: h, sign=1),
        "flipped with it",
    ),
    ("3.5", likelihood(clock=lambda n, h: n * h), "clock starts at t = 0"),
    ("3.5", lambda v, x, n: likelihood()(lambda x, t: v(x, 1 - t), x, n), "clock runs the wrong way"),
    ("3.5", euler, "Euler's method"),
    ("3.5", likelihood(place="start", when=lambda t, h: t), "costs an order"),
    ("3.5", likelihood(place="start"), "old place"),
    ("3.5", likelihood(when=lambda t, h: 0.0), "at t = 0 throughout"),
    ("3.5", likelihood(when=lambda t, h: t), "time of the step's start"),
    ("3.5", likelihood(place="end", when=lambda t, h: t + h), "at the end of each step"),
    ("3.5", likelihood(reach=1), "a whole one"),
    ("3.5", likelihood(reach=-0.5), "wrong side of x"),
    ("3.5", likelihood(delay=0, when=lambda t, h: t), "there at t"),
    ("3.5", likelihood(clock=lambda n, h: 1 + (n + 1) * h), "one step ahead"),
    (
        "3.5",
        likelihood(base=lambda x: normal(x) + x.shape[1] * math.log(2 * math.pi)),
        "has the wrong sign: it is",
    ),
    ("3.5", likelihood(base=lambda x: -x.square().sum(1) / 2), "constant -d/2 log\\(2π\\) of"),
    (
        "3.5",
        likelihood(base=lambda x: -(x.square().sum(1) + math.log(2 * math.pi)) / 2),
        "that of one dimension",
    ),
    ("3.5", likelihood(base=lambda x: normal(x) - x.square().sum(1) / 2), "half is missing"),
    ("3.5", likelihood(weight=lambda h: 1.0), "step's length"),
    ("3.5", likelihood(final=torch.exp), "this is the density"),
    ("3.5", likelihood(final=torch.neg), "negative log-likelihood"),
    ("3.5", likelihood(final=torch.mean), "one number for the batch"),
    ("3.5", lambda v, x, n: log_prob(v, x, steps=n, method=RK4), "another method"),
    ("3.5", likelihood(base=lambda x: normal(x) + 1), "in the limit of many steps; yours is -?[\\d.]+$"),
    ("3.5", overwrites_points, "in place"),
    ("3.5", likelihood(final=lambda log_p: log_p[:, None]), "shape"),
    ("3.5", likelihood(final=lambda log_p: log_p.log()), "NaN"),
    ("3.5", lambda v, x: x, "TypeError"),
    ("3.5", 3.0, "function log_likelihood"),
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
        twins = [j for j in range(i) if (WRONG[j][0], diagnosis(j)) == (number, diagnosis(i))]
        assert all(WRONG[j][2] == words for j in twins), (
            number,
            words,
            twins,
        )  # one mistake, written in two ways


def test_graders_leave_global_randomness_alone():
    before = torch.get_rng_state()
    for number, answer in RIGHT:
        check(number, answer)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("number", ["3.1", "3.2", "3.3", "3.4", "3.5"])
def test_three_different_hints_without_tex(number):
    hints = find(number).hints
    assert len(set(hints)) == 3
    assert not re.search(r"\\[a-z]|\$", " ".join(hints))


@pytest.mark.parametrize("number", ["3.1", "3.2"])
def test_quizzes_have_one_right_option_and_no_tex(number):
    options = find(number).options
    assert sum(option.right for option in options) == 1
    assert not re.search(r"\\[a-z]|\$", quiz(number).html.split("<fieldset>")[1].split("</fieldset>")[0])


def test_the_adjoint_exercise_agrees_with_automatic_differentiation():
    exact = gradients_by_autograd(0.7, 1.3, -0.4)
    assert gradients(0.7, 1.3, -0.4) == pytest.approx([float(g) for g in exact], rel=1e-12)


def test_the_jacobian_of_the_graders_field_is_that_of_autograd():
    from flowcourse.graders.chapter_03 import _field, _jacobian

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    by_autograd = torch.func.vmap(torch.func.jacrev(lambda y: _field(y[None], 0.4)[0]))(x)
    torch.testing.assert_close(_jacobian(x, 0.4), by_autograd)
