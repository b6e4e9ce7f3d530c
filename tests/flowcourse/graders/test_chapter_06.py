"""The exercises of chapter 6: right answers pass, and every known mistake gets its own diagnosis."""

import math

import pytest
import torch
from torch.func import grad, jvp, vmap

from flowcourse import GradeError, check
from flowcourse.exercises import find
from flowlib.conversions import convert
from flowlib.paths import linear


def velocity(x, t, z):
    return z - 2 / (1 - t) * (x - t * z)


def velocity_by_autodiff(x, t, z):
    """mu' + (log sigma)' (x - mu), without a formula for either derivative."""
    one = torch.ones_like(t)
    mu, mu_dot = jvp(lambda t: t * z, (t,), (one,))
    rate = jvp(lambda t: ((1 - t) ** 2).log(), (t,), (one,))[1]
    return mu_dot + rate * (x - mu)


def at(alpha, t):
    """The coefficient and its slope, each (B, 1)."""
    return [c[:, None] for c in jvp(alpha, (t,), (torch.ones_like(t),))]


def loss(v, x_0, x_1, t, alpha, sigma):
    (a, a_dot), (s, s_dot) = at(alpha, t), at(sigma, t)
    return (v(a * x_1 + s * x_0, t) - (a_dot * x_1 + s_dot * x_0)).square().sum(1).mean()


def loss_by_pairs(v, x_0, x_1, t, alpha, sigma):
    a_dot, s_dot = (vmap(grad(c))(t)[:, None] for c in (alpha, sigma))
    x_t = alpha(t)[:, None] * x_1 + sigma(t)[:, None] * x_0
    return torch.nn.functional.mse_loss(v(x_t, t), a_dot * x_1 + s_dot * x_0) * x_0.shape[1]


def from_parts(combine, average=True):
    """A loss from the coefficients, their slopes and the ends, written here independently of the grader's own."""

    def wrong(v, x_0, x_1, t, alpha, sigma):
        (a, a_dot), (s, s_dot) = at(alpha, t), at(sigma, t)
        x_t, u_t = combine(a=a, s=s, a_dot=a_dot, s_dot=s_dot, x_0=x_0, x_1=x_1, t=t[:, None])
        squares = (v(x_t, t) - u_t).square().sum(1)
        return squares.mean() if average else squares

    return wrong


def right_parts(a, s, a_dot, s_dot, x_0, x_1, t):
    return a * x_1 + s * x_0, a_dot * x_1 + s_dot * x_0


def residual(f):
    """A loss that is another function of the right v - u_t and v, u_t."""

    def wrong(v, x_0, x_1, t, alpha, sigma):
        (a, a_dot), (s, s_dot) = at(alpha, t), at(sigma, t)
        return f(v(a * x_1 + s * x_0, t), a_dot * x_1 + s_dot * x_0)

    return wrong


def asked_at(which):
    def wrong(v, x_0, x_1, t, alpha, sigma):
        (_, a_dot), (_, s_dot) = at(alpha, t), at(sigma, t)
        return (v((x_0, x_1)[which], t) - (a_dot * x_1 + s_dot * x_0)).square().sum(1).mean()

    return wrong


def summed_slopes(v, x_0, x_1, t, alpha, sigma):
    a_dot, s_dot = (torch.autograd.functional.jacobian(c, t).sum() for c in (alpha, sigma))
    x_t = alpha(t)[:, None] * x_1 + sigma(t)[:, None] * x_0
    return (v(x_t, t) - (a_dot * x_1 + s_dot * x_0)).square().sum(1).mean()


def overwriting(v, x_0, x_1, t, alpha, sigma):
    value = loss(v, x_0, x_1, t, alpha, sigma)
    x_1 *= alpha(t)[:, None]
    return value


def detached(*arguments):
    return loss(*arguments).detach()


def marginal(log_p, u):
    return (log_p.softmax(1)[:, :, None] * u).sum(1)


def marginal_by_hand(log_p, u):
    p = (log_p - log_p.max(1, keepdim=True).values).exp()
    return torch.einsum("bn,bnd->bd", p, u) / p.sum(1, keepdim=True)


def unstable(log_p, u):
    p = log_p.exp()
    return (p[:, :, None] * u).sum(1) / p.sum(1, keepdim=True)


def clamped(log_p, u):  # survives below, not above
    p = log_p.exp().clamp(min=1e-300)
    return (p[:, :, None] * u).sum(1) / p.sum(1, keepdim=True)


def one_shift(log_p, u):  # survives a common shift, not points at different distances
    return unstable(log_p - log_p.max(), u)


def weighted(weights):
    return lambda log_p, u: (weights(log_p)[:, :, None] * u).sum(1)


def score(v, x, t):
    return (t * v - x) / (1 - t)


def score_by_flowlib(v, x, t):
    return convert(v, x, t[:, 0], linear, given="velocity", wanted="score")


RIGHT = [
    ("6.1", "b"),
    ("6.2", "d"),
    ("6.3", velocity),
    ("6.3", lambda x, t, z: ((1 + t) * z - 2 * x) / (1 - t)),
    ("6.3", velocity_by_autodiff),
    ("6.4", loss),
    ("6.4", loss_by_pairs),
    ("6.4", from_parts(right_parts)),
    ("6.5", marginal),
    ("6.5", marginal_by_hand),
    ("6.6", score),
    ("6.6", score_by_flowlib),
    ("6.6", lambda v, x, t: -(x - t * (x + (1 - t) * v)) / (1 - t) ** 2),
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_right_answers_pass(number, answer, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {number} ")
    assert len(out) > 60


WRONG = [
    ("6.1", "a", "no input for z"),
    ("6.1", "c", "swap destinations"),
    ("6.1", "d", "prior weights"),
    ("6.1", "e", "one letter"),
    ("6.2", "a", "another law"),
    ("6.2", "b", "median"),
    ("6.2", "c", "along the cosine path"),
    # 6.3
    ("6.3", lambda x, t, z: z + 2 / (1 - t) * (x - t * z), "sign of σ'/σ"),
    ("6.3", lambda x, t, z: (z - x) / (1 - t), "conical path"),
    ("6.3", lambda x, t, z: (x - z) / (1 - t), "the notes' velocity"),
    ("6.3", lambda x, t, z: z - 4 / (1 - t) * (x - t * z), "log σ²"),
    ("6.3", lambda x, t, z: z - 2 * (1 - t) * (x - t * z), "divided by σ"),
    ("6.3", lambda x, t, z: -2 / (1 - t) * (x - t * z), "μ' = z is missing"),
    ("6.3", lambda x, t, z: z - 2 / (1 - t) * x, "x - μ"),
    ("6.3", lambda x, t, z: z - 2 / (1 - t) * (x - z), "μ = t z, not z"),
    ("6.3", lambda x, t, z: t * z - 2 / (1 - t) * (x - t * z), "not a velocity"),
    ("6.3", lambda x, t, z: z - 2 / (1 - t) ** 2 * (x - t * z), "once"),
    ("6.3", lambda x, t, z: z - (x - t * z) / (1 - t) ** 2, "your σ' is -1"),
    ("6.3", lambda x, t, z: z - 2 * (1 - t) * x, "function of ε"),
    ("6.3", lambda x, t, z: 2 * (z - x) / (1 - t), "twice the conical"),
    ("6.3", lambda x, t, z: (z - x) / (1 - t) ** 2, "derive anew"),
    ("6.3", lambda x, t, z: z - 2 * (x - t * z), "not by 1 - t"),
    ("6.3", lambda x, t, z: z - 2 * (1 - t), "which is missing"),
    ("6.3", lambda x, t, z: 2 * velocity(x, t, z), "u must be z"),
    ("6.3", lambda x, t, z: x, "u must be z"),
    ("6.3", lambda x, t, z: velocity(x, t, z)[:, 0], "shape"),
    ("6.3", lambda x, t, z: velocity(x, t, z).float(), "float64"),
    ("6.3", lambda x, t, z: z / 0, "NaN or infinity"),
    ("6.3", lambda x, t: x, "TypeError"),
    ("6.3", "z - 2 (x - tz)/(1 - t)", "the function u"),
    # 6.4
    ("6.4", lambda *a: loss(*a) / 3, "batch alone"),
    ("6.4", lambda *a: 7 * loss(*a), "not the sum"),
    (
        "6.4",
        from_parts(lambda a, s, x_0, x_1, **_: (a * x_1 + s * x_0, x_1 - x_0)),
        "differentiate alpha and sigma",
    ),
    (
        "6.4",
        from_parts(
            lambda a_dot, s_dot, x_0, x_1, t, **_: (t * x_1 + (1 - t) * x_0, a_dot * x_1 + s_dot * x_0)
        ),
        "while the target is not",
    ),
    (
        "6.4",
        from_parts(lambda x_0, x_1, t, **_: (t * x_1 + (1 - t) * x_0, x_1 - x_0)),
        "are not used",
    ),
    (
        "6.4",
        from_parts(lambda x_0, x_1, **rest: right_parts(x_0=x_1, x_1=x_0, **rest)),
        "yours are swapped$",
    ),
    (
        "6.4",
        from_parts(lambda a, s, a_dot, s_dot, x_0, x_1, t: (a * x_0 + s * x_1, a_dot * x_1 + s_dot * x_0)),
        "in x_t α multiplies",
    ),
    (
        "6.4",
        from_parts(lambda a, s, a_dot, s_dot, x_0, x_1, t: (a * x_1 + s * x_0, a_dot * x_0 + s_dot * x_1)),
        "in the target α' multiplies",
    ),
    ("6.4", from_parts(lambda a, s, x_0, x_1, **_: 2 * (a * x_1 + s * x_0,)), "not differentiated"),
    (
        "6.4",
        from_parts(lambda a, s, a_dot, s_dot, x_0, x_1, t: (a * x_1 + s * x_0, a_dot * x_1 - s_dot * x_0)),
        "negative already",
    ),
    ("6.4", from_parts(lambda a, s, a_dot, x_0, x_1, **_: (a * x_1 + s * x_0, a_dot * x_1)), "σ' x₀ is"),
    ("6.4", from_parts(lambda a, s, s_dot, x_0, x_1, **_: (a * x_1 + s * x_0, s_dot * x_0)), "α' x₁ is"),
    ("6.4", residual(lambda v, u: (v.norm(dim=1) - u.norm(dim=1)).square().mean()), "compares lengths"),
    ("6.4", residual(lambda v, u: (v - u).norm(dim=1).mean()), "mean of |v - u|".replace("|", r"\|")),
    ("6.4", residual(lambda v, u: (v - u).square().sum(1).mean().sqrt()), "root"),
    ("6.4", residual(lambda v, u: (v - u).abs().sum(1).mean()), "median"),
    ("6.4", asked_at(1), "asked at x₁"),
    ("6.4", asked_at(0), "asked at x₀"),
    ("6.4", summed_slopes, "whole batch"),
    (
        "6.4",
        from_parts(
            lambda a, s, a_dot, s_dot, x_0, x_1, t: (a * x_1 + s * x_0, t * (a_dot * x_1 + s_dot * x_0))
        ),
        "must be ones",
    ),
    ("6.4", from_parts(right_parts, average=False), "one loss for each pair"),
    ("6.4", residual(lambda v, u: (v - u).square().mean(0)), "for each coordinate"),
    ("6.4", overwriting, "modified in place"),
    ("6.4", detached, "no gradient flows"),
    ("6.4", lambda *a: 5 * loss(*a), "should be"),
    ("6.4", lambda *a: loss(*a).item(), "not float"),
    ("6.4", lambda v, x_0, x_1, t, alpha, sigma: alpha(t) * x_1, "RuntimeError"),
    ("6.4", None, "the function affine_loss"),
    # 6.5
    ("6.5", lambda log_p, u: u.mean(1), "prior"),
    ("6.5", lambda log_p, u: (log_p.exp()[:, :, None] * u).mean(1), "flux"),
    ("6.5", lambda log_p, u: (log_p.exp()[:, :, None] * u).sum(1), "divided by the sum of p"),
    ("6.5", weighted(lambda log_p: log_p.softmax(0)), "not over the points"),
    ("6.5", weighted(lambda log_p: log_p.exp() / log_p.exp().sum()), "all points and z together"),
    ("6.5", weighted(lambda log_p: log_p / log_p.sum(1, keepdim=True)), "exponential first"),
    ("6.5", weighted(lambda log_p: log_p), "exponential first"),
    ("6.5", weighted(lambda log_p: log_p.exp().softmax(1)), "not p"),
    ("6.5", weighted(lambda log_p: (-log_p).softmax(1)), "inverted"),
    ("6.5", lambda log_p, u: u[torch.arange(len(u)), log_p.argmax(1)], "likeliest"),
    ("6.5", weighted(lambda log_p: (2 * log_p).softmax(1)), "squared"),
    ("6.5", lambda log_p, u: (log_p.softmax(1)[:, :, None] * u).mean(1), "not averaged"),
    ("6.5", weighted(lambda log_p: log_p.log_softmax(1)), "log_softmax"),
    ("6.5", unstable, "underflows"),
    ("6.5", clamped, "underflows"),
    ("6.5", one_shift, "whole batch"),
    ("6.5", lambda log_p, u: marginal(log_p.clamp(max=100), u), "overflows"),
    ("6.5", lambda log_p, u: log_p.softmax(1)[:, :, None] * u, "sum them over the z"),
    ("6.5", lambda log_p, u: 2 * marginal(log_p, u), "the velocity is"),
    ("6.5", lambda log_p, u: log_p.softmax(1), "shape"),
    ("6.5", lambda log_p, u: log_p.softmax(1) * u, "RuntimeError"),
    # 6.6
    ("6.6", lambda v, x, t: (x - t * v) / (1 - t), "sign is wrong"),
    ("6.6", lambda v, x, t: t * v - x, "divide by σ = 1 - t to get"),
    ("6.6", lambda v, x, t: x - t * v, "this is E₀"),
    ("6.6", lambda v, x, t: x + (1 - t) * v, "this is E₁"),
    ("6.6", lambda v, x, t: (t * v - x) / (1 - t) ** 2, "once"),
    ("6.6", lambda v, x, t: (t * v - x) * (1 - t), "not by σ"),
    ("6.6", lambda v, x, t: ((1 - t) * v - x) / t, "time runs backwards"),
    ("6.6", lambda v, x, t: ((1 - t) * v - x) / (1 - t), "has been walked"),
    ("6.6", lambda v, x, t: -(t * v + x) / (1 - t), "sign of v"),
    ("6.6", lambda v, x, t: -(x + (1 - t) * v), "x₁ = E₁"),
    ("6.6", lambda v, x, t: -x / (1 - t) ** 2, "one Gaussian"),
    ("6.6", lambda v, x, t: -x, "t = 0 only"),
    ("6.6", lambda v, x, t: -v / (1 - t), "no multiple"),
    ("6.6", lambda v, x, t: v / (1 - t), "not x₁"),
    ("6.6", lambda v, x, t: v, "not the velocity itself"),
    ("6.6", lambda v, x, t: (t * v - x) / t, "not by t"),
    ("6.6", lambda v, x, t: v - x / t, "lacks the factor"),
    ("6.6", lambda v, x, t: (v - x / t) * (1 - t) / t, "inverse"),
    ("6.6", lambda v, x, t: t * v - x / (1 - t), "brackets"),
    ("6.6", lambda v, x, t: t * v / (1 - t), "x is missing"),
    ("6.6", lambda v, x, t: t / (1 - t) * (v - x / t), "at t = 0"),
    ("6.6", lambda v, x, t: score(v, x, t) + 1, "Test it on x₁ = 0"),
    ("6.6", lambda v, x, t: score(v, x, t).sum(1), "shape"),
    ("6.6", lambda v, x: v, "TypeError"),
]


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    WRONG,
    ids=[f"{i} {number} {words}" for i, (number, _, words) in enumerate(WRONG)],
)
def test_wrong_answers_are_diagnosed(number, answer, words):
    with pytest.raises(GradeError, match=words) as caught:
        check(number, answer)
    assert len(str(caught.value)) > 25


@pytest.mark.parametrize("number", ["6.1", "6.2", "6.3", "6.4", "6.5", "6.6"])
def test_three_different_hints_without_tex(number):
    hints = find(number).hints
    assert len(set(hints)) == 3
    assert not any("$" in hint or "\\" in hint for hint in hints)


def test_the_answers_of_the_chapter_are_true():
    """The formulas that the graders hold for right, against an independent computation."""
    g = torch.Generator().manual_seed(5)
    # 6.3: a point that keeps its epsilon moves with u
    z, e = torch.randn(2, 50, 2, generator=g, dtype=torch.float64)
    t = torch.rand(50, 1, generator=g, dtype=torch.float64) * 0.9
    x, x_dot = jvp(lambda t: t * z + (1 - t) ** 2 * e, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(velocity(x, t, z), x_dot)
    # 6.6: x_1 ~ N(m, 4 I), so that x_t is Gaussian with a known score and velocity
    m = torch.tensor([1.0, -2.0], dtype=torch.float64)
    variance = 4 * t**2 + (1 - t) ** 2
    gain = (4 * t - (1 - t)) / variance  # Cov(x_1 - x_0, x_t) / Var(x_t)
    v = m + gain * (x - t * m)
    torch.testing.assert_close(score(v, x, t), -(x - t * m) / variance)
    # 6.5: many samples of z ~ N(0, 1) on the conical path in one dimension give the velocity of N(0, t^2 + (1-t)^2)
    z = torch.randn(200_000, 1, generator=g, dtype=torch.float64)
    x, s = torch.tensor([[0.4]], dtype=torch.float64), 0.4
    log_p = -((x - 0.6 * z.T) ** 2) / (2 * s**2)
    estimate = marginal(log_p, ((z - x) / s)[None])
    exact = (0.6 - 0.4) / (0.36 + 0.16) * 0.4
    weights = log_p.softmax(1)[0]
    error = math.sqrt(float((weights**2 * ((z - x) / s - exact)[:, 0] ** 2).sum()))  # of the ratio estimate
    assert error < 0.01
    assert abs(float(estimate) - exact) < 5 * error


def test_graders_leave_global_randomness_alone():
    before = torch.get_rng_state()
    for number, answer in RIGHT:
        check(number, answer)
    assert torch.equal(before, torch.get_rng_state())
