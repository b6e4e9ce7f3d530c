"""Claims, graders and the page: what must pass passes, and every known mistake is named."""

import itertools
import math
import re
import time
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from flowcourse import (
    ClaimError,
    GradeError,
    budget,
    check,
    claim,
    device,
    generator,
    hint,
    hints,
    lab,
    labs,
    quiz,
    slider,
)
from flowcourse.exercises import Option, choice, find
from flowcourse.figures import scatter, show
from flowlib.solvers import RK4, odeint

# Claims


@pytest.mark.parametrize(
    ("measured", "relation", "bound"),
    [
        (1, "<", 2),
        (torch.tensor(1.0), "<=", 1),
        (np.float32(3), ">", torch.tensor(2)),
        (torch.ones(1, 1), ">=", np.int64(1)),
        (4, "==", 4.0),
        (torch.tensor(True), "==", True),
        (2.0, "in", (2, 3)),
        (3.0, "in", [2, 3]),
        (-math.inf, "<", 0),
    ],
)
def test_true_claims_print_one_line(measured, relation, bound, capsys):
    claim("it holds", measured, relation, bound)
    assert re.fullmatch(r"✓ it holds: \S+ (<|<=|>|>=|==|in) .+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("measured", "relation", "bound"),
    [
        (2, "<", 2),
        (1.1, "<=", 1),
        (2, ">", 2),
        (0.9, ">=", 1),
        (4, "==", 5),
        (3.001, "in", (2, 3)),
        (1.999, "in", (2, 3)),
        *((math.nan, relation, 1.0) for relation in ("<", "<=", ">", ">=", "==")),
        (math.nan, "in", (0, 1)),
        (math.nan, "==", math.nan),
        (1.0, "<", math.nan),
    ],
)
def test_false_claims_raise_and_print_nothing(measured, relation, bound, capsys):
    with pytest.raises(ClaimError):
        claim("it holds", measured, relation, bound)
    assert capsys.readouterr().out == ""


def test_a_failing_claim_tells_the_whole_story():
    with pytest.raises(AssertionError) as caught:
        claim("the error falls as h²", 1.2345678, "in", (1.95, 2.05))
    for part in ("the error falls as h²", "1.235", "in", "[1.95, 2.05]"):
        assert part in str(caught.value)


def test_printed_digits_never_contradict_the_verdict(capsys):
    claim("just below", 0.99999999, "<", 1)
    assert "0.99999999 < 1" in capsys.readouterr().out
    with pytest.raises(ClaimError, match=r"1\.00000001 <= 1"):
        claim("just above", 1.00000001, "<=", 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(3), "<", 1), TypeError, r"\(3,\)"),
        ((torch.ones(0), "<", 1), TypeError, r"\(0,\)"),
        ((1, "<", np.ones((2, 2))), TypeError, r"\(2, 2\)"),
        (("1", "<", 1), TypeError, "str"),
        ((None, "<", 1), TypeError, "NoneType"),
        ((1j, "==", 1), TypeError, "complex"),
        ((1, "≈", 1), ValueError, "≈"),
        ((1, "in", 2), TypeError, "interval"),
        ((1, "in", (2, 1)), ValueError, "empty"),
        ((1, "in", (math.nan, 1)), ValueError, "empty"),
    ],
)
def test_bad_claims_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        claim("it holds", *arguments)


# Budgets


def test_the_budget_follows_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")
    assert budget(cpu="small", gpu="large") == "small"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() == torch.device("cuda")
    assert budget(cpu="small", gpu="large") == "large"


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    a, b = (torch.randn(3, generator=generator(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


# Chapter 1: right answers


def flow_map(v, x, t0, t1, steps):
    h = (t1 - t0) / steps
    for n in range(steps):
        t = t0 + n * h
        x = x + h * v(x + h / 2 * v(x, t), t + h / 2)
    return x


def derivatives(log_prob, v, x, t):
    """p, dp/dt, grad p, v, and the Jacobian of v (B, i, j), by automatic differentiation."""
    x, t = x.clone().requires_grad_(), t.clone().requires_grad_()
    p = log_prob(x, t).exp()
    rate, grad = torch.autograd.grad(p.sum(), (t, x))
    u = v(x, t)
    rows = [torch.autograd.grad(u[:, i].sum(), (x, t), retain_graph=True) for i in range(2)]
    jacobian = torch.stack([row[0] for row in rows], 1)
    du_dt = torch.stack([row[1] for row in rows], 1)
    return p.detach(), rate, grad, u.detach(), jacobian, du_dt


def residual(log_prob, v, x, t):
    p, rate, grad, u, jacobian, _ = derivatives(log_prob, v, x, t)
    return rate + (grad * u).sum(1) + p * jacobian.diagonal(dim1=1, dim2=2).sum(1)


def residual_by_flux(log_prob, v, x, t):
    x, t = x.detach().requires_grad_(), t.detach().requires_grad_()
    p = log_prob(x, t).exp()
    (total,) = torch.autograd.grad(p.sum(), t, retain_graph=True)
    flux = p[:, None] * v(x, t)
    for i in range(2):
        total = total + torch.autograd.grad(flux[:, i].sum(), x, retain_graph=True)[0][:, i]
    return total


def residual_by_differences(log_prob, v, x, t, h=1e-4):
    def flux(x, i):
        return log_prob(x, t).exp() * v(x, t)[:, i]

    total = (log_prob(x, t + h).exp() - log_prob(x, t - h).exp()) / (2 * h)
    for i, e in enumerate(h * torch.eye(2, dtype=x.dtype)):
        total = total + (flux(x + e, i) - flux(x - e, i)) / (2 * h)
    return total


QUARTER = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)

RIGHT = [
    ("1.1", "b"),
    ("1.1", " (B) "),
    ("1.2", "a"),
    ("1.3", lambda t: math.exp(2 * math.sin(t))),
    ("1.3", lambda t: torch.exp(2 * torch.sin(t))),
    ("1.3", lambda t: np.exp(np.sin(float(t))) ** 2),
    ("1.4", flow_map),
    ("1.5", residual),
    ("1.5", residual_by_flux),
    ("1.5", residual_by_differences),
    ("1.6", lambda x, S: x @ (QUARTER @ S.inverse()).T),
    ("1.6", lambda x, S: -3 * torch.linalg.solve(S, x.T).T @ QUARTER.T),
    ("1.6", lambda x, S: S.det().sqrt() * x @ (QUARTER @ S.inverse()).T),
    (
        "1.6",
        lambda x, S: ((x @ S.inverse()) * x).sum(1, keepdim=True) * (x @ (QUARTER @ S.inverse()).T),
    ),  # faster outside
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_right_answers_pass_in_a_second(number, answer, capsys):
    start = time.perf_counter()
    check(number, answer)
    assert time.perf_counter() - start < 1
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {number} ")
    assert len(out) > 60  # it says what the answer shows


# Chapter 1: wrong answers, each with words that its diagnosis must hold


def stepper(rule):
    """A flow map from a rule (v, x, t, h) -> x, written here independently of the grader's own."""

    def wrong(v, x, t0, t1, steps):
        h, t = (t1 - t0) / steps, t0
        for _ in range(steps):
            x = rule(v, x, t, h)
            t = t + h
        return x

    return wrong


def in_place(v, x, t0, t1, steps):
    h = (t1 - t0) / steps
    for n in range(steps):
        t = t0 + n * h
        x += h * v(x + h / 2 * v(x, t), t + h / 2)
    return x


def trajectory(v, x, t0, t1, steps):
    return torch.stack([x] + [flow_map(v, x, t0, t0 + (t1 - t0) * n / steps, n) for n in range(1, steps + 1)])


def only_forwards(v, x, t0, t1, steps):
    h, t = (t1 - t0) / steps, t0
    while t < t1 - 1e-9:
        x = x + h * v(x + h / 2 * v(x, t), t + h / 2)
        t += h
    return x


def with_abs(v, x, t0, t1, steps):
    return flow_map(v, x, t0, t0 + abs(t1 - t0), steps)


def with_linspace(v, x, t0, t1, steps):
    times = torch.linspace(t0, t1, steps, dtype=x.dtype)
    for t, s in itertools.pairwise(times):
        x = x + (s - t) * v(x + (s - t) / 2 * v(x, t), t + (s - t) / 2)
    return x


def one_step_too_many(v, x, t0, t1, steps):
    h = (t1 - t0) / steps
    for n in range(steps + 1):
        x = x + h * v(x + h / 2 * v(x, t0 + n * h), t0 + n * h + h / 2)
    return x


def one_step_too_few(v, x, t0, t1, steps):
    h = (t1 - t0) / steps
    for n in range(1, steps):
        x = x + h * v(x + h / 2 * v(x, t0 + (n - 1) * h), t0 + (n - 1) * h + h / 2)
    return x


def ralston(v, x, t, h):  # a right solver of order 2 for another exercise
    k = v(x, t)
    return x + h * (k / 4 + 3 / 4 * v(x + 2 / 3 * h * k, t + 2 / 3 * h))


def half_field(v, x, t0, t1, steps):
    return flow_map(lambda x, t: 0.5 * v(x, t), x, t0, t1, steps)


def from_parts(combine):
    """A residual from p, dp/dt, grad p . v, div v and the rest."""

    def wrong(log_prob, v, x, t):
        p, rate, grad, u, jacobian, du_dt = derivatives(log_prob, v, x, t)
        div = jacobian.diagonal(dim1=1, dim2=2).sum(1)
        return combine(
            p=p, rate=rate, moved=(grad * u).sum(1), div=div, grad=grad, u=u, jacobian=jacobian, du_dt=du_dt
        )

    return wrong


WRONG = [
    # 1.1, 1.2: every other option, and answers that are none
    ("1.1", "a", "space-time"),
    ("1.1", "c", "unique"),
    ("1.1", "d", "backwards"),
    ("1.1", "e", "one letter"),
    ("1.1", 2, "one letter"),
    ("1.2", "b", "derivative at t = 0"),
    ("1.2", "c", "substitute"),
    ("1.2", "d", "starting point"),
    ("1.2", "", "one letter"),
    # 1.3
    ("1.3", lambda t: math.exp(math.sin(t)), "standard deviation"),
    ("1.3", lambda t: math.exp(2 * t * math.cos(t)), "integral of a"),
    ("1.3", lambda t: math.exp(t * math.cos(t)), "integral of a"),
    ("1.3", lambda t: math.exp(2 * math.cos(t)), "not a itself"),
    ("1.3", lambda t: math.exp(-2 * math.sin(t)), "time runs backwards"),
    ("1.3", lambda t: math.exp(2 - 2 * math.cos(t)), "integrated sin"),
    ("1.3", lambda t: 2 * math.sin(t), "logarithm"),
    ("1.3", lambda t: math.expm1(2 * math.sin(t)), "not 0"),
    ("1.3", lambda t: 1 + 2 * math.sin(t), "first order"),
    ("1.3", lambda t: math.exp(2 * t), "constant a"),
    ("1.3", lambda t: 3.0, "at t = 0 nothing has moved"),
    ("1.3", lambda t: 1.0, "V' = 2 cos"),
    ("1.3", lambda t: math.nan, "nan"),
    ("1.3", lambda t: torch.ones(5), "a number"),
    ("1.3", lambda: 1.0, "TypeError"),
    ("1.3", math.e, "function variance"),
    # 1.4
    ("1.4", stepper(lambda v, x, t, h: x + h * v(x, t)), "order 1 instead of 2"),
    ("1.4", stepper(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h))), "Heun"),
    ("1.4", stepper(lambda v, x, t, h: x + h / 2 * v(x, t)), "half a step"),
    ("1.4", stepper(lambda v, x, t, h: x + h / 2 * v(x + h / 2 * v(x, t), t + h / 2)), "half a step"),
    ("1.4", stepper(lambda v, x, t, h: flow_map(v, x + h / 2 * v(x, t), t, t + h, 1)), "another equation"),
    (
        "1.4",
        stepper(lambda v, x, t, h: x + h / 2 * v(x, t) + h * v(x + h / 2 * v(x, t), t + h / 2)),
        "starts again from x",
    ),
    ("1.4", stepper(lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t)), r"t \+ h/2, not to t"),
    ("1.4", stepper(lambda v, x, t, h: x + h * v(x, t + h / 2)), "half a step ahead, not to x"),
    ("1.4", stepper(lambda v, x, t, h: x + h * v(x + h * v(x, t), t + h)), "a whole step ahead"),
    ("1.4", stepper(lambda v, x, t, h: x + h * v(x - h / 2 * v(x, t), t + h / 2)), "x - h/2 v"),
    ("1.4", stepper(ralston), "observed order 2.0"),
    ("1.4", lambda v, x, a, b, n: odeint(v, x, t0=a, t1=b, steps=n, method=RK4), "observed order 4.0"),
    ("1.4", half_field, "another equation"),
    ("1.4", lambda v, x, a, b, n: flow_map(lambda y, t: v(y, a), x, a, b, n), "as if the field stood still"),
    ("1.4", lambda v, x, a, b, n: x + (b - a) * v(x, a), "observed order|another equation"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, a - (b - a), n), "time runs backwards"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, b, a, n), "time runs backwards"),
    ("1.4", lambda v, x, a, b, n: flow_map(lambda y, t: -v(y, t), x, a, b, n), "time runs backwards"),
    ("1.4", lambda v, x, a, b, n: flow_map(lambda y, t: v(y, a + b - t), x, a, b, n), "time runs backwards"),
    ("1.4", one_step_too_many, "N \\+ 1 steps"),
    ("1.4", one_step_too_few, "N - 1 steps"),
    ("1.4", with_linspace, "linspace"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, b, n + 1), "N \\+ 1 shorter steps"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, a + b, n), "t1 / N"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, a + 1, n), "1 / N"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, 0.0, b - a, n), "clock starts at t0"),
    ("1.4", in_place, "in place"),
    ("1.4", trajectory, "trajectory"),
    ("1.4", lambda *a: list(trajectory(*a)), "trajectory"),
    ("1.4", only_forwards, "do not move at all"),
    ("1.4", with_abs, "for t1 < t0 it fails"),
    ("1.4", lambda v, x, a, b, n: x, "nothing moved"),
    ("1.4", lambda v, x, a, b, n: None, "NoneType"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, b, n).float(), "float64"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, b, n)[:1], "shape"),
    ("1.4", lambda v, x, a, b, n: x / 0, "NaN or infinity"),
    ("1.4", lambda v, x: x, "TypeError"),
    ("1.4", "x + h v", "function flow_map"),
    # 1.5
    ("1.5", from_parts(lambda p, rate, moved, div, **_: rate - moved - p * div), "sign error"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: -rate + moved + p * div), "sign error in ∂p/∂t"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: rate - moved + p * div), "sign error in ∇p · v"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: rate + moved - p * div), "sign error in p ∇·v"),
    ("1.5", from_parts(lambda p, rate, div, **_: rate + p * div), "∇p · v is missing"),
    ("1.5", from_parts(lambda p, div, **_: p * div), "∇p · v is missing"),
    ("1.5", from_parts(lambda p, rate, div, **_: rate / p + div), "∇p · v is missing"),
    ("1.5", from_parts(lambda rate, div, **_: rate + div), "without the density"),
    ("1.5", from_parts(lambda div, **_: div), "without the density"),
    ("1.5", from_parts(lambda rate, moved, **_: rate + moved), "p ∇·v is missing"),
    ("1.5", from_parts(lambda rate, moved, div, **_: rate + moved + div), "p must multiply"),
    ("1.5", from_parts(lambda p, moved, div, **_: moved + p * div), "∂p/∂t is missing"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: (rate + moved) / p + div), "divided by p"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: (rate + moved) / p + p.log() * div), "log p is none"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: rate + moved / p + p * div), "∇log p stands"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: rate / p + moved + p * div), "∂log p/∂t stands"),
    (
        "1.5",
        from_parts(lambda p, rate, moved, jacobian, **_: rate + moved + p * jacobian.sum((1, 2))),
        "every entry of the Jacobian",
    ),
    (
        "1.5",
        from_parts(lambda p, rate, moved, du_dt, **_: rate + moved + p * du_dt.sum(1)),
        "wrong variable.*in space",
    ),
    (
        "1.5",
        from_parts(lambda p, grad, moved, div, **_: grad.sum(1) + moved + p * div),
        "wrong variable.*in time",
    ),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: 2 * (rate + moved + p * div)), "the terms are"),
    ("1.5", lambda log_prob, v, x, t: residual(log_prob, v, x, t).mean(), r"shape \(7,\), not \(\)"),
    ("1.5", lambda log_prob, v, x, t: torch.autograd.grad(v(x, t).sum(), x)[0], "RuntimeError"),
    ("1.5", None, "function residual"),
    # 1.6
    ("1.6", lambda x, S: x @ QUARTER.T, "isotropic"),
    ("1.6", lambda x, S: -2 * x @ QUARTER.T, "isotropic"),
    ("1.6", lambda x, S: x @ (S.inverse() @ QUARTER).T, "turn the gradient"),
    ("1.6", lambda x, S: x @ (QUARTER @ S.inverse()), "x @ A is its transpose"),
    ("1.6", lambda x, S: x @ S.inverse(), "across the ellipses"),
    ("1.6", lambda x, S: -x @ S.inverse(), "across the ellipses"),
    ("1.6", lambda x, S: x @ (QUARTER @ S).T, "J Σ x up to a constant"),
    ("1.6", lambda x, S: 0 * x, "nothing moves"),
    ("1.6", lambda x, S: x, "must vanish"),
    ("1.6", lambda x, S: torch.ones_like(x), "must vanish"),
    ("1.6", lambda x, S: x @ (QUARTER @ torch.linalg.cholesky(S)).T, "must vanish"),
    ("1.6", lambda x, S: x @ torch.tensor([[0.6, 2.0], [-0.5, -0.6]], dtype=x.dtype), "must vanish"),
    ("1.6", lambda x, S: x[:, 0], "shape"),
    ("1.6", lambda x: x, "TypeError"),
]


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    WRONG,
    ids=[f"{i} {number} {words}" for i, (number, _, words) in enumerate(WRONG)],
)
def test_wrong_answers_are_diagnosed(number, answer, words):
    start = time.perf_counter()
    with pytest.raises(GradeError, match=words) as caught:
        check(number, answer)
    assert time.perf_counter() - start < 1
    assert len(str(caught.value)) > 25


def test_graders_leave_global_randomness_alone():
    before = torch.get_rng_state()
    check("1.5", residual)
    check("1.6", lambda x, S: x @ (QUARTER @ S.inverse()).T)
    assert torch.equal(before, torch.get_rng_state())


def test_a_notebook_shows_the_diagnosis_without_a_stack():
    with pytest.raises(GradeError) as caught:
        check("1.2", "b")
    assert caught.value._render_traceback_() == [f"✗ {caught.value}"]
    assert isinstance(caught.value, AssertionError)


# The registry


@pytest.mark.parametrize("number", ["1.99", "77.1", "one", ""])
def test_an_unknown_exercise_is_named(number):
    with pytest.raises(ValueError, match="no exercise"):
        check(number, "a")


def test_a_question_needs_exactly_one_right_option():
    for right in (0, 2):
        options = [Option(str(i), "because", right=i < right) for i in range(3)]
        with pytest.raises(ValueError, match=f"not {right}"):
            choice("0.1", "title", "question?", *options, hints=("a", "b", "c"))


NUMBERS = ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6"]


@pytest.mark.parametrize("number", NUMBERS)
def test_three_different_hints_without_tex(number, capsys):
    assert len(set(find(number).hints)) == 3
    for step in (1, 2, 3, 3):
        hint(number)
        assert f"Hint {step} of 3: {find(number).hints[step - 1]}" in capsys.readouterr().out
    hint(number, 2)
    assert "Hint 2 of 3" in capsys.readouterr().out
    assert not re.search(r"\\[a-z]|\$", " ".join(find(number).hints))
    with pytest.raises(ValueError, match="4"):
        hint(number, 4)


# The page


class Reader(HTMLParser):
    """Collects tags, the text of the page, and notices tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "input":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.mark.parametrize("number", ["1.1", "1.2"])
def test_a_quiz_holds_what_check_knows(number):
    page = quiz(number)
    assert page.html == quiz(number).html
    reader, options = read(page.html), find(number).options
    inputs = [attributes for tag, attributes in reader.tags if tag == "input"]
    assert [i["data-feedback"] for i in inputs] == [option.feedback for option in options]
    assert {i["type"] for i in inputs} == {"radio"}
    for i, option in zip(inputs, options, strict=True):
        if option.right:
            assert i["data-right"] == "1"
            check(number, i["value"])
        else:
            assert i["data-right"] == "0"
            with pytest.raises(GradeError, match=re.escape(option.feedback)):
                check(number, i["value"])
        assert option.text in reader.text
        assert option.feedback not in reader.text
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("fieldset") == tags.count("legend") == 1
    assert tags.count("label") == len(options)
    assert ("p", {"role": "status"}) in reader.tags
    assert not any("id" in attributes for _, attributes in reader.tags)  # nothing to clash
    assert not re.search(r"https?:|src=", page.html)


def test_a_quiz_answers_in_its_own_form(browser):
    """Two quizzes, run twice: each form listens once, and says what is right in its own line."""
    told = browser(
        """(() => {
          const element = (found) => {
            const heard = {};
            const addEventListener = (name, call) => (heard[name] ??= []).push(call);
            return { dataset: {}, heard, addEventListener, querySelector: (selector) => found[selector] ?? null };
          };
          const forms = ["1", "0"].map((right) => {
            const option = { dataset: { right, feedback: `feedback ${right}` } };
            const parts = { button: { disabled: true }, "[role=status]": { dataset: {} }, "input:checked": option };
            return { parts, form: element(parts) };
          });
          const ready = () => forms.map(({ form }) => form).filter((form) => !("ready" in form.dataset));
          globalThis.document = { querySelectorAll: ready };
          flowcourse.quiz.open();
          flowcourse.quiz.open();
          for (const { form } of forms) for (const call of form.heard.submit) call({ preventDefault() {} });
          return forms.map(({ form, parts }) => {
            const status = parts["[role=status]"];
            return [form.heard.submit.length, status.dataset.verdict, status.textContent];
          });
        })()"""
    )
    assert told == [[1, "right", "✓ Right. feedback 1"], [1, "wrong", "✗ Not quite. feedback 0"]]
    html = [quiz(n).html for n in ("1.1", "1.2")]
    assert html[0].split("<script")[1:] == html[1].split("<script")[1:]  # a page keeps one


def test_only_choices_make_quizzes():
    with pytest.raises(ValueError, match="not a multiple-choice"):
        quiz("1.4")


@pytest.mark.parametrize("number", NUMBERS)
def test_hints_unfold_one_inside_the_other(number):
    reader = read(hints(number).html)
    assert [tag for tag, _ in reader.tags if tag in ("details", "summary")] == ["details", "summary"] * 3
    assert all("open" not in attributes for tag, attributes in reader.tags if tag == "details")
    positions = [reader.text.index(text) for text in find(number).hints]
    assert positions == sorted(positions)
    assert not any(text in hints(number).text for text in find(number).hints)


# Live labs


def picture(steps=4, role="data"):
    fig, ax = plt.subplots()
    scatter(ax, torch.full((1, 2), float(steps)), role)
    return show(fig, alt=f"One point whose two coordinates both equal the number of steps, {steps}.")


CONTROLS = {
    "steps": slider("Euler steps", "N", (1, 2, 4), default=4),
    "role": slider("role", "r", ("data", "source")),
}


def test_a_live_lab_is_sliders_that_draw(monkeypatch):
    monkeypatch.setattr(labs, "is_static", lambda: False)
    drawn = []

    def draw(**values):
        drawn.append(values)
        return picture(**values)

    box = lab(draw, **CONTROLS)
    steps, role, _ = box.children
    assert (steps.description, role.description) == ("Euler steps, N", "role, r")
    assert (steps.options, steps.value, role.value) == ((1, 2, 4), 4, "data")
    steps.value = 2
    role.value = "source"
    assert drawn == [
        {"steps": 4, "role": "data"},
        {"steps": 2, "role": "data"},
        {"steps": 2, "role": "source"},
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lab(picture), ValueError, "needs a control"),
        (lambda: lab(picture, steps=(1, 2)), TypeError, "slider"),
        (lambda: lab(lambda steps: "nothing", steps=CONTROLS["steps"]), TypeError, "str"),
        (lambda: slider("Steps", "N", (1,)), ValueError, r"two values.*\(1,\)"),
        (lambda: slider("Steps", "N", ()), ValueError, r"two values.*\(\)"),
        (lambda: slider("Steps", "N", (1, 2), default=3), ValueError, "default"),
    ],
)
def test_bad_labs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_static_lab_turns_over_pictures_of_its_first_control():
    page = lab(picture, **CONTROLS)
    html = page._repr_html_()
    assert set(page._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert html == lab(picture, **CONTROLS)._repr_html_()
    assert [int(n) for n in re.findall(r'<div[^>]*aria-label="[^"]*number of steps, (\d)\."', html)] == [
        4,
        1,
        2,
        4,
    ]
    assert html.count('<input type="range"') == 1
    assert "role, r = data" in html  # what the other control was set to


NOTEBOOK = """
import torch, matplotlib.pyplot as plt
from flowcourse import check, lab, slider
from flowcourse.figures import scatter, show, use
use()
def draw(N):
    fig, ax = plt.subplots()
    scatter(ax, torch.full((1, 2), float(N)), "data")
    return show(fig, alt=f"One point whose two coordinates both equal the number of steps, {N}.")
lab(draw, N=slider("Euler steps", "N", (1, 2, 4)))
"""


@pytest.mark.parametrize("static", [True, False], ids=["static", "live"])
def test_a_lab_in_a_real_notebook(static, monkeypatch):
    """A kernel that builds the book emits no widget; one that a reader started does, and shows diagnoses bare."""
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setenv("FLOWLIB_STATIC", "1" if static else "0")
    cells = [nbformat.v4.new_code_cell(NOTEBOOK), nbformat.v4.new_code_cell("check('1.2', 'b')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, allow_errors=True, timeout=60).execute()
    shown, failed = (cell.outputs for cell in notebook.cells)
    kinds = {kind for output in shown for kind in output.get("data", {})}
    html = "".join(output.get("data", {}).get("text/html", "") for output in shown)
    assert not [output.evalue for output in shown if output.output_type == "error"]
    if static:
        assert not [kind for kind in kinds if "widget" in kind]
        assert "widgets" not in notebook.metadata
        for N in (1, 2, 4):
            assert f"the number of steps, {N}." in html
    else:
        assert "application/vnd.jupyter.widget-view+json" in kinds
    assert failed[0].ename == "GradeError"
    assert failed[0].traceback == [f"✗ {failed[0].evalue}"]
