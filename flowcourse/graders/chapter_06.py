"""The exercises of chapter 6, Conditional flow matching."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from flowcourse.exercises import Option, choice, exercise
from flowcourse.family import NOISE_TO_EIGHT
from flowcourse.grading import (
    Answer,
    Counted,
    GradeError,
    Probe,
    alike,
    from_parts,
    gradient,
    on,
    show,
    worst,
)
from flowlib.metrics import wasserstein2
from flowlib.paths import AffinePath
from flowlib.solvers import EULER, odeint

choice(
    "6.1",
    "What the network sees",
    "A colleague trains a flow model of dog and cat pictures by conditional flow matching with z = (x₀, x₁), without "
    "labels. How does she make the trained network draw a dog?",
    Option(
        "She passes a picture of a dog as z: that is what the model is conditioned on.",
        "The network has no input for z. It was called with xₜ and t alone; z made the training target and was then "
        "forgotten.",
    ),
    Option(
        "She cannot choose: the network knows x and t, not z, and samples dogs as often as the data hold them.",
        "Conditional flow matching conditions the loss, not the model. To choose she needs a label y as a further "
        "input of the network, which is a different kind of conditioning.",
        right=True,
    ),
    Option(
        "She starts from the x₀ that was paired with a dog in training.",
        "Pairs were drawn anew in every step, and the flow does not keep them: where the lines cross, travelers swap "
        "destinations. A noise that was paired with a dog may well end as a cat.",
    ),
    Option(
        "She averages the velocities x₁ - x₀ of all pairs that end in dogs, with equal weights, and follows it.",
        "Equal weights are prior weights: the average is one constant arrow, which carries the whole cloud of noise, "
        "as it is, to the mean of the dogs. Posterior weights over the dogs would do, but that is the exact field of a "
        "data set of dogs, and the trained network has no part in it.",
    ),
    hints=(
        "Write down the line of code that calls the network. What are its arguments?",
        "Where does z appear in the loss, and what is left of it at sampling time?",
        "Being conditional on z and being conditional on a label y are two things; only y is an input.",
    ),
)

choice(
    "6.2",
    "A harmless change",
    "Four changes to the loss E|v(xₜ, t) - uₜ|². Which one leaves the minimizer at the marginal velocity, whatever the "
    "data?",
    Option(
        "Weigh each draw by |x₁|, so that data far out count more.",
        "That weight depends on z: the minimizer becomes E[|x₁| uₜ | xₜ] / E[|x₁| | xₜ], the velocity toward another "
        "law, in which far data are more frequent.",
    ),
    Option(
        "Use the absolute error |v - uₜ|, which is less sensitive to outliers.",
        "Its minimizer is a median of the conditional velocities. Fluxes add up, so means are what is needed; the "
        "cross term of the proof vanishes for errors whose gradient is linear in the target, such as squares.",
    ),
    Option(
        "Draw xₜ from the cosine path and keep the target x₁ - x₀, since both have the same ends.",
        "The minimizer is E[x₁ - x₀ | xₜ] along the cosine path. That does not generate the cosine path, whose "
        "velocity combines E[x₁|xₜ] and E[x₀|xₜ] with other coefficients, and in general it does not end in the data.",
    ),
    Option(
        "Weigh each draw by 1 + |xₜ|², so that points far out count more.",
        "Given t and xₜ this weight is a constant, so the conditional mean stays the minimizer at each point. The "
        "weight only says where a small network should spend its capacity.",
        right=True,
    ),
    hints=(
        "The proof conditions on t and Xₜ. Which of the changes can be pulled out of that conditional expectation?",
        "Ask of each change what the best constant answer is at one place xₜ and one time t.",
        "A weight that is known once t and xₜ are known multiplies the whole problem at that place by one number.",
    ),
)


@from_parts
def _velocity(x: Tensor, t: Tensor, z: Tensor) -> dict[str, Any]:
    s, gap = 1 - t, x - t * z
    return locals()


_generator = torch.Generator().manual_seed(0)
X, Z = torch.randn(2, 6, 3, generator=_generator, dtype=torch.float64)
T = 0.1 + 0.8 * torch.rand(6, 1, generator=_generator, dtype=torch.float64)


def _velocity_off(result: Tensor, right: Tensor, u: Answer) -> str:
    at = worst(result, right)
    told = (
        f"at t = {T[at, 0]:.3f} with z = {show(Z[at])} and x = {show(X[at])} the velocity should be {show(right[at])}; "
        f"yours is {show(result[at])}. "
    )
    center, factor = u(T * Z, T, Z), (result - Z) / (X - T * Z)
    if not alike(center, Z):
        shown = show(center[at]) if isinstance(center, Tensor) else center
        return f"{told}Check it at the center, x = t z, where u must be z: yours gives {shown} for z = {show(Z[at])}"
    if alike(factor, factor[:, :1].expand_as(factor)):
        return (
            f"{told}At the center, x = t z, it is z, as it must be; but x - t z is multiplied by {factor[at, 0]:.4f}, "
            f"and σ'/σ is {-2 / (1 - T[at, 0]):.4f}"
        )
    return f"{told}At the center, x = t z, it is z, as it must be; away from it u must grow linearly with x - t z"


exercise(
    "6.3",
    "The velocity of a Gaussian path",
    "my_u(x, t, z)",
    Probe(on(X, T, Z), _velocity_off),
    right=_velocity(lambda p: p.z - 2 / p.s * p.gap),
    mistakes=[
        (
            "the sign of σ'/σ is wrong: σ shrinks, so points are drawn toward the center",
            _velocity(lambda p: p.z + 2 / p.s * p.gap),
        ),
        (
            "this is the velocity for σ = 1 - t, the conical path; here σ = (1 - t)² shrinks twice as fast",
            _velocity(lambda p: (p.z - p.x) / p.s),
        ),
        (
            "this is (x - z)/(1 - t): it points away from the data and belongs to no such path",
            _velocity(lambda p: (p.x - p.z) / p.s),
        ),
        (
            "σ'/σ is the derivative of log σ = 2 log(1 - t); you used the derivative of log σ² = 4 log(1 - t)",
            _velocity(lambda p: p.z - 4 / p.s * p.gap),
        ),
        (
            "σ' = -2 (1 - t) must be divided by σ: it acts on ε = (x - μ)/σ",
            _velocity(lambda p: p.z - 2 * p.s * p.gap),
        ),
        ("the center moves too: μ' = z is missing", _velocity(lambda p: -2 / p.s * p.gap)),
        ("σ'/σ multiplies x - μ, the way from the center, not x", _velocity(lambda p: p.z - 2 / p.s * p.x)),
        ("the center at time t is μ = t z, not z", _velocity(lambda p: p.z - 2 / p.s * (p.x - p.z))),
        (
            "μ' is the derivative of t z, which is z; μ itself is a place, not a velocity",
            _velocity(lambda p: p.t * p.z - 2 / p.s * p.gap),
        ),
        ("divide by 1 - t once: σ'/σ = -2 (1 - t)/(1 - t)²", _velocity(lambda p: p.z - 2 / p.s**2 * p.gap)),
        (
            "your σ' is -1, the derivative of 1 - t; that of (1 - t)² is -2 (1 - t)",
            _velocity(lambda p: p.z - 1 / p.s**2 * p.gap),
        ),
        (
            "this is the velocity as a function of ε; u is asked for the place x, so ε = (x - μ)/σ",
            _velocity(lambda p: p.z - 2 * p.s * p.x),
        ),
        (
            "twice the conical velocity: only the pull to the center doubles, while the center moves with μ' = z",
            _velocity(lambda p: 2 * (p.z - p.x) / p.s),
        ),
        (
            "this is the conical velocity with σ = (1 - t)² in the place of its 1 - t; derive anew, from μ and σ",
            _velocity(lambda p: (p.z - p.x) / p.s**2),
        ),
        (
            "divide by σ = (1 - t)², not by 1 - t: σ'/σ = -2 (1 - t)/(1 - t)²",
            _velocity(lambda p: p.z - 2 * p.gap),
        ),
        ("σ' acts on ε = (x - μ)/σ, which is missing", _velocity(lambda p: p.z - 2 * p.s)),
        ("Python reads 2 / 1 - t: put 1 - t in brackets", _velocity(lambda p: p.z - 2 / 1 - p.t * p.gap)),
    ],
    hints=(
        "Every member of the path is at x = μₜ + σₜ ε with a fixed ε. Differentiate in t, then express ε by x.",
        "u = μ' + (σ'/σ)(x - μ), with μ = t z and σ = (1 - t)². What is σ'/σ?",
        "σ' = -2 (1 - t), so σ'/σ = -2/(1 - t); and μ' = z.",
    ),
    insight="with this σ the velocity is a legal one, and not that of the conical path: σ and u belong together.",
)


def _alpha(t: Tensor) -> Tensor:
    return torch.sin(1.3 * t) + 0.2 * t**2


def _sigma(t: Tensor) -> Tensor:
    return torch.cos(1.1 * t) - 0.1 * t


def _field(x: Tensor, t: Tensor) -> Tensor:
    time = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
    return torch.sin(x + 2 * time) * torch.tensor([1.0, 2.0, -0.5], dtype=x.dtype) + time


@from_parts
def _loss(v: Answer, x_0: Tensor, x_1: Tensor, t: Tensor, alpha: Answer, sigma: Answer) -> dict[str, Any]:
    (a, a_dot), (s, s_dot) = (
        (value[:, None] for value in jvp(f, (t,), (torch.ones_like(t),))) for f in (alpha, sigma)
    )
    time = t[:, None]
    x_t, u_t = a * x_1 + s * x_0, a_dot * x_1 + s_dot * x_0
    swapped, swapped_dot = a * x_0 + s * x_1, a_dot * x_0 + s_dot * x_1

    def square(x: Tensor, u: Tensor) -> Tensor:
        return (v(x, t) - u).square().sum(1)

    right = square(x_t, u_t).mean()
    return locals()


_generator = torch.Generator().manual_seed(1)
X_0, X_1 = torch.randn(2, 7, 3, generator=_generator, dtype=torch.float64)
X_1 = X_1 + 0.7
TIMES = 0.1 + 0.8 * torch.rand(7, generator=_generator, dtype=torch.float64)


def _slope(affine_loss: Answer) -> Tensor:
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    return gradient(affine_loss(lambda x, t: theta * _field(x, t), X_0, X_1, TIMES, _alpha, _sigma), theta)


def _loss_off(result: Tensor, right: Tensor, _: Answer) -> str:
    told = f"for the test pairs, d = 3, the loss should be {right:.5f}; yours is {result:.5f}. "
    if abs(result / right - 1) < 1e-3:
        return f"{told}So near, it looks like slopes by finite differences: jvp has them exactly"
    return f"{told}Compare x_t and u_t with cosine.sample(x_0, x_1, t) of flowlib, for α = sin(πt/2), σ = cos(πt/2)"


DETACHED = (
    "the value is right, but no gradient flows from the loss to the network, or not all of it: something detaches it "
    "(no_grad, .item(), .detach() or torch.tensor of a result)"
)

exercise(
    "6.4",
    "A loss for every affine path",
    "affine_loss(v, x_0, x_1, t, alpha, sigma)",
    Probe(
        lambda affine_loss: affine_loss(Counted(_field), X_0, X_1, TIMES, _alpha, _sigma),
        _loss_off,
    ),
    Probe(_slope, lambda *_: DETACHED),
    right=_loss(lambda p: p.right),
    mistakes=[
        (
            "the mean is over the batch alone: sum the squares over the d coordinates (yours is d times too small)",
            _loss(lambda p: p.right / p.x_0.shape[1]),
        ),
        ("take the mean over the batch, not the sum", _loss(lambda p: p.square(p.x_t, p.u_t).sum())),
        (
            "the target is that of the linear path, x₁ - x₀: differentiate alpha and sigma",
            _loss(lambda p: p.square(p.x_t, p.x_1 - p.x_0).mean()),
        ),
        (
            "x_t is that of the linear path, while the target is not: use alpha and sigma for both",
            _loss(lambda p: p.square(p.time * p.x_1 + (1 - p.time) * p.x_0, p.u_t).mean()),
        ),
        (
            "this is the loss of the linear path: alpha and sigma are not used",
            _loss(lambda p: p.square(p.time * p.x_1 + (1 - p.time) * p.x_0, p.x_1 - p.x_0).mean()),
        ),
        (
            "α multiplies the data x₁ and σ the noise x₀; yours are swapped",
            _loss(lambda p: p.square(p.swapped, p.swapped_dot).mean()),
        ),
        (
            "in x_t α multiplies x₁ and σ multiplies x₀; yours are swapped there",
            _loss(lambda p: p.square(p.swapped, p.u_t).mean()),
        ),
        (
            "in the target α' multiplies x₁ and σ' multiplies x₀; yours are swapped there",
            _loss(lambda p: p.square(p.x_t, p.swapped_dot).mean()),
        ),
        (
            "the target is not differentiated: α x₁ + σ x₀ is the place x_t itself",
            _loss(lambda p: p.square(p.x_t, p.x_t).mean()),
        ),
        (
            "the sign of σ' is wrong: it is negative already, so α' x₁ and σ' x₀ are added",
            _loss(lambda p: p.square(p.x_t, p.a_dot * p.x_1 - p.s_dot * p.x_0).mean()),
        ),
        ("the term σ' x₀ is missing in the target", _loss(lambda p: p.square(p.x_t, p.a_dot * p.x_1).mean())),
        ("the term α' x₁ is missing in the target", _loss(lambda p: p.square(p.x_t, p.s_dot * p.x_0).mean())),
        (
            "this compares lengths, |v| with |u|; the error is the length of the difference",
            _loss(lambda p: (p.v(p.x_t, p.t).norm(dim=1) - p.u_t.norm(dim=1)).square().mean()),
        ),
        (
            "square the length: this is the mean of |v - u|",
            _loss(lambda p: p.square(p.x_t, p.u_t).sqrt().mean()),
        ),
        ("this is the root of the loss: leave it squared", _loss(lambda p: p.right.sqrt())),
        (
            "absolute errors have the median as minimizer: square them",
            _loss(lambda p: (p.v(p.x_t, p.t) - p.u_t).abs().sum(1).mean()),
        ),
        (
            "the field is asked at x₁: it must answer at x_t, where it will be used",
            _loss(lambda p: (p.v(p.x_1, p.t) - p.u_t).square().sum(1).mean()),
        ),
        (
            "the field is asked at x₀: it must answer at x_t, where it will be used",
            _loss(lambda p: (p.v(p.x_0, p.t) - p.u_t).square().sum(1).mean()),
        ),
        (
            "all pairs got the slopes of the whole batch, summed: jvp with a tangent of ones gives each time its own",
            _loss(lambda p: p.square(p.x_t, p.a_dot.sum() * p.x_1 + p.s_dot.sum() * p.x_0).mean()),
        ),
        (
            "your slopes are t α' and t σ': the tangent given to jvp must be ones, not t",
            _loss(lambda p: p.square(p.x_t, p.time * p.u_t).mean()),
        ),
        (
            "this is one loss for each pair, (B,); take their mean, so that it can be minimized",
            _loss(lambda p: p.square(p.x_t, p.u_t)),
        ),
        (
            "this is one loss for each coordinate, (d,); sum the squares over dim=1 before the mean",
            _loss(lambda p: (p.v(p.x_t, p.t) - p.u_t).square().mean(0)),
        ),
        ("no factor 1/2: the loss is the mean square itself", _loss(lambda p: p.right / 2)),
        (
            "jvp returns the value first and the slope second; yours are exchanged",
            _loss(lambda p: p.square(p.u_t, p.x_t).mean()),
        ),
        ("the error is v - u: you have added the target", _loss(lambda p: p.square(p.x_t, -p.u_t).mean())),
        (
            "σ'/σ multiplies x_t - α x₁, which is σ x₀, not x_t",
            _loss(lambda p: p.square(p.x_t, p.a_dot * p.x_1 + p.s_dot / p.s * p.x_t).mean()),
        ),
    ],
    hints=(
        "xₜ = α x₁ + σ x₀ and uₜ = α' x₁ + σ' x₀. What is missing is α' and σ' at each time.",
        "torch.func.jvp(alpha, (t,), (torch.ones_like(t),)) returns the pair (α(t), α'(t)), both (B,).",
        "Times are (B,) and points (B, d): write a[:, None] * x_1. Then sum the squares over dim=1 and average.",
    ),
    insight="any two functions α and σ make a path, and the same line trains it.",
)


@from_parts
def _marginal(log_p: Tensor, u: Tensor) -> dict[str, Any]:
    p = log_p.exp()

    def average(weights: Tensor) -> Tensor:
        return (weights[:, :, None] * u).sum(1)

    right = average(log_p.softmax(1))
    best = u.gather(1, log_p.argmax(1)[:, None, None].expand(-1, 1, u.shape[2]))[:, 0]
    return locals()


_generator = torch.Generator().manual_seed(2)
LOG_P = 1.5 * torch.randn(4, 5, generator=_generator, dtype=torch.float64) - 1
U = torch.randn(4, 5, 2, generator=_generator, dtype=torch.float64)
APART = torch.tensor([[0.0], [-2000.0], [2000.0], [-4000.0]], dtype=torch.float64)


def _marginal_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"at the point {at} of 4 the weights of the z are {show(LOG_P.softmax(1)[at])} and the velocity is "
        f"{show(right[at])}; yours is {show(result[at])}"
    )


def _beyond(shift: float, what: str) -> str:
    return (
        f"right, but not for log_p around {shift:g}, where exp(log_p) {what}: subtract the largest log_p of each point "
        "first, or let softmax do it"
    )


exercise(
    "6.5",
    "A marginal velocity from samples",
    "marginal(log_p, u)",
    Probe(on(LOG_P, U), _marginal_off),
    Probe(on(LOG_P - 2000, U), _beyond(-2000, "underflows to 0")),
    Probe(on(LOG_P + 2000, U), _beyond(2000, "overflows")),
    Probe(
        on(LOG_P + APART, U),
        "right, but not when one point is much farther out than another: subtract the largest log_p of each point "
        "(over dim=1), not that of the whole batch",
    ),
    right=_marginal(lambda p: p.right),
    mistakes=[
        (
            "these are equal weights, those of the prior: a z that can hardly lead to x must count less there",
            _marginal(lambda p: p.u.mean(1)),
        ),
        (
            "the mean of u p is the flux; divide by the mean of p, the density, to get a velocity",
            _marginal(lambda p: p.average(p.p / 5)),
        ),
        ("the sum of u p must be divided by the sum of p over the z", _marginal(lambda p: p.average(p.p))),
        (
            "the weights of the z must sum to 1 at each point x: normalize over dim=1, the z, not over the points",
            _marginal(lambda p: p.average(p.log_p.softmax(0))),
        ),
        (
            "the weights must sum to 1 at each point x: you normalized over all points and z together",
            _marginal(lambda p: p.average(p.p / p.p.sum())),
        ),
        (
            "to subtract the largest log_p does not normalize: divide by the sum over the z as well",
            _marginal(lambda p: p.average((p.log_p - p.log_p.amax(1, keepdim=True)).exp())),
        ),
        (
            "log p is no weight: take the exponential first",
            _marginal(lambda p: p.average(p.log_p / p.log_p.sum(1, keepdim=True))),
        ),
        ("log p is no weight: take the exponential first", _marginal(lambda p: p.average(p.log_p))),
        (
            "softmax takes the exponential itself: give it log_p, not p",
            _marginal(lambda p: p.average(p.p.softmax(1))),
        ),
        (
            "the weights are inverted: a z with a large p(x|z) must count more",
            _marginal(lambda p: p.average((-p.log_p).softmax(1))),
        ),
        (
            "this is the velocity of the likeliest z alone; the others can have led to x too",
            _marginal(lambda p: p.best),
        ),
        (
            "the weights are squared: p(x|z) counts once, since the zⱼ come from ν already",
            _marginal(lambda p: p.average((2 * p.log_p).softmax(1))),
        ),
        (
            "the weighted velocities must be summed, not averaged: the weights sum to 1 already",
            _marginal(lambda p: p.right / 5),
        ),
        (
            "these are log-probabilities, log_softmax; the weights are softmax",
            _marginal(lambda p: p.average(p.log_p.log_softmax(1))),
        ),
        (
            "these are the weighted velocities of every z, (B, n, d); sum them over the z",
            _marginal(lambda p: p.log_p.softmax(1)[:, :, None] * p.u),
        ),
        (
            "these are the weighted velocities summed over the points, (n, d); sum over the z, dim=1",
            _marginal(lambda p: (p.log_p.softmax(1)[:, :, None] * p.u).sum(0)),
        ),
    ],
    hints=(
        "The zⱼ are drawn from ν, so a mean over them is an integral against ν. Which two integrals are there?",
        "uₜ(x) = E_z[u p] / E_z[p]: the weights are p(x|zⱼ) / Σₖ p(x|zₖ), one set for each point x.",
        "exp(log_p) over its sum over the z is log_p.softmax(dim=1), which shifts by the largest first.",
    ),
    insight="posterior weights are a softmax of log-likelihoods over the z: the same formula as attention.",
)


@from_parts
def _score(v: Tensor, x: Tensor, t: Tensor) -> dict[str, Any]:
    s = 1 - t
    right = (t * v - x) / s
    return locals()


_generator = torch.Generator().manual_seed(3)
V, PLACES = torch.randn(2, 6, 2, generator=_generator, dtype=torch.float64)
MOMENTS = 0.1 + 0.8 * torch.rand(6, 1, generator=_generator, dtype=torch.float64)


def _score_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"at t = {MOMENTS[at, 0]:.3f} with v = {show(V[at])} and x = {show(PLACES[at])} the score should be "
        f"{show(right[at])}; yours is {show(result[at])}. Test it on x₁ = 0, where xₜ is N(0, (1 - t)² I) and "
        "v = -x/(1 - t)"
    )


exercise(
    "6.6",
    "From velocity to score",
    "velocity_to_score(v, x, t)",
    Probe(on(V, PLACES, MOMENTS), _score_off),
    Probe(
        on(V, PLACES, 0 * MOMENTS),
        "right for t > 0, but at t = 0 the score must be -x, that of the noise: do not divide by t on the way",
    ),
    right=_score(lambda p: p.right),
    mistakes=[
        (
            "the sign is wrong: the score is minus E₀/σ, since p rises where the noise gets smaller",
            _score(lambda p: -p.right),
        ),
        (
            "this is -E₀, the noise with its sign; divide by σ = 1 - t to get the score",
            _score(lambda p: p.t * p.v - p.x),
        ),
        ("this is E₀, the noise; the score is -E₀/σ", _score(lambda p: p.x - p.t * p.v)),
        ("this is E₁, the data; the score needs E₀", _score(lambda p: p.x + p.s * p.v)),
        ("divide by σ once: -E₀/σ. The σ² belongs to -(x - t E₁)/σ²", _score(lambda p: p.right / p.s)),
        ("the noise counts as E₀/σ: multiply by 1/σ, not by σ", _score(lambda p: p.right * p.s**2)),
        (
            "time runs backwards: σ = 1 - t is the share of noise, t that of the data",
            _score(lambda p: (p.s * p.v - p.x) / p.t),
        ),
        (
            "E₀ = x - t v: at time t the way t v has been walked, not (1 - t) v",
            _score(lambda p: (p.s * p.v - p.x) / p.s),
        ),
        ("E₀ = x - t v: your sign of v is that of the way ahead", _score(lambda p: -(p.t * p.v + p.x) / p.s)),
        (
            "that is the score of x₁ = E₁ under N(0, I), not of xₜ under pₜ",
            _score(lambda p: -(p.x + p.s * p.v)),
        ),
        (
            "this is the score of one Gaussian N(0, (1 - t)² I): pₜ is a mixture, and v tells about it",
            _score(lambda p: -p.x / p.s**2),
        ),
        ("this is the score of N(0, I): right at t = 0 only", _score(lambda p: -p.x)),
        ("the score is no multiple of the velocity: solve for E₀ first", _score(lambda p: -p.v / p.s)),
        (
            "this is v/(1 - t), which is -(x - E₁)/σ²: given x₁ the mean of xₜ is t x₁, not x₁",
            _score(lambda p: p.v / p.s),
        ),
        ("the score is not the velocity itself", _score(lambda p: p.v.clone())),
        (
            "divide t v - x by σ = 1 - t, the size of the noise, not by t (if yours is v - x/t: it lacks the factor "
            "α/(σD) = t/(1 - t))",
            _score(lambda p: (p.t * p.v - p.x) / p.t),
        ),
        (
            "v - x/t must be multiplied by α/(σD) = t/(1 - t), not by its inverse",
            _score(lambda p: (p.v - p.x / p.t) * p.s / p.t),
        ),
        (
            "the whole of t v - x is divided by σ = 1 - t: mind the brackets",
            _score(lambda p: p.t * p.v - p.x / p.s),
        ),
        ("x is missing: E₀ = x - t v", _score(lambda p: p.t * p.v / p.s)),
        ("the factor t of v is missing: E₀ = x - t v", _score(lambda p: (p.v - p.x) / p.s)),
        (
            "x + (1 - t) v is E₁, the data; the noise is E₀ = x - t v",
            _score(lambda p: -(p.x + p.s * p.v) / p.s),
        ),
        (
            "E₁ = x + (1 - t) v, not x + v: 1 - t is the time that is left",
            _score(lambda p: -(p.x - p.t * (p.x + p.v)) / p.s**2),
        ),
        (
            "Python divides by 1 and subtracts t: put 1 - t in brackets",
            _score(lambda p: p.t * p.v - p.x - p.t),
        ),
    ],
    hints=(
        "The score is -E₀/σ, with E₀ = E[x₀|xₜ = x]. So find E₀ from v and x.",
        "x = t E₁ + (1 - t) E₀ and v = E₁ - E₀. Eliminate E₁.",
        "E₀ = x - t v, and σ = 1 - t.",
    ),
    insight="a trained velocity is a trained score, as long as the noise is Gaussian and independent of the data.",
)


# 6.7 A path of the reader's own: what is measured are samples of its exact flow, so no two right answers are alike.


def _coefficients(my_path: Answer, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at the times t, if that is what my_path returns."""
    value = my_path(t)
    if not isinstance(value, tuple | list) or len(value) != 2:
        found = f"{len(value)} of them" if isinstance(value, tuple | list) else type(value).__name__
        raise GradeError(f"my_path(t) must return two tensors, alpha(t) and sigma(t), not {found}")
    for name, coefficient in zip(("alpha", "sigma"), value, strict=True):
        if not isinstance(coefficient, Tensor) or coefficient.shape != t.shape:
            shape = (
                tuple(coefficient.shape) if isinstance(coefficient, Tensor) else type(coefficient).__name__
            )
            raise GradeError(f"{name} must be a tensor of the shape of t, {tuple(t.shape)}, not {shape}")
    return value[0], value[1]


def _slopes(my_path: Answer, t: Tensor) -> tuple[Tensor, ...]:
    """alpha, sigma and their derivatives at the times t."""
    both = [jvp(lambda s, i=i: _coefficients(my_path, s)[i], (t,), (torch.ones_like(t),)) for i in (0, 1)]
    return both[0][0], both[1][0], both[0][1], both[1][1]


def _complete(my_path: Answer) -> None:
    """Raise GradeError where the path is not complete, as the chapter defines it."""
    ends = _coefficients(my_path, torch.tensor([0.0, 1.0], dtype=torch.float64))
    found = [[float(c) for c in coefficient] for coefficient in ends]
    for i, (at, wanted) in enumerate((("t = 0", (0.0, 1.0)), ("t = 1", (1.0, 0.0)))):
        here = (found[0][i], found[1][i])
        if not all(abs(a - b) < 1e-6 for a, b in zip(here, wanted, strict=True)):
            reverse = all(abs(a - b) < 1e-6 for a, b in zip(here, wanted[::-1], strict=True))
            more = (
                ": alpha belongs to the data and sigma to the noise, yours are exchanged" if reverse else ""
            )
            raise GradeError(
                f"at {at} a path must have (alpha, sigma) = {wanted}, and yours has "
                f"({here[0]:.4g}, {here[1]:.4g}){more}"
            )
    t = torch.linspace(0, 1, 401, dtype=torch.float64)[1:-1]
    alpha, sigma, alpha_dot, sigma_dot = _slopes(my_path, t)
    if not all(c.isfinite().all() for c in (alpha, sigma, alpha_dot, sigma_dot)):
        raise GradeError("a coefficient or its derivative is not finite for some t between 0 and 1")
    short, names = 1e-5, ("alpha", "sigma")
    later, before = _coefficients(my_path, t + short), _coefficients(my_path, t - short)
    for name, slope, a, b in zip(names, (alpha_dot, sigma_dot), later, before, strict=True):
        if ((a - b) / (2 * short) - slope).abs().median() > 1e-3 * (1 + slope.abs().median()):
            raise GradeError(
                f"the derivative of {name} is lost on the way: compute it from t by PyTorch functions alone, without "
                "detach, item or numpy"
            )
    if (sigma <= 0).any():
        raise GradeError(f"sigma must be positive before t = 1; yours is not at t = {t[sigma <= 0][0]:.3f}")
    turn = alpha_dot * sigma - alpha * sigma_dot
    if (turn <= 0).any():
        raise GradeError(
            f"at t = {t[turn <= 0][0]:.3f} D = alpha' sigma - alpha sigma' is {turn[turn <= 0][0]:.4g}: "
            "alpha / sigma must rise all the way, or the path walks back"
        )


def _four_steps(coefficients: Answer) -> float:
    """W2 to the eight Gaussians after four Euler steps on the exact field of the path."""
    task = NOISE_TO_EIGHT
    parts = [lambda t, i=i: _slopes(coefficients, t)[i] for i in range(4)]
    path = AffinePath("mine", parts[0], parts[1], parts[2], parts[3])
    x_0, x_1 = (
        law(2048, generator=torch.Generator().manual_seed(seed), balanced=True)
        for seed, law in ((4, task.start), (5, task.goal))
    )
    try:
        end = odeint(task.velocity(path), x_0.double(), steps=4, method=EULER)
    except (FloatingPointError, ValueError) as error:
        raise GradeError(
            "Euler's method stops, since a derivative is infinite at t = 0, 1/4, 1/2 or 3/4: "
            f"{str(error).partition('. ')[0]}"
        ) from None
    return wasserstein2(end, x_1.double())


@cache
def _to_beat() -> tuple[float, float]:
    """W2 after four steps on the linear and on the cosine path."""

    def by_angle(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(math.pi / 2 * t), torch.cos(math.pi / 2 * t)

    return _four_steps(lambda t: (t, 1 - t)), _four_steps(by_angle)


def _own_path(my_path: Answer) -> Tensor:
    _complete(my_path)
    mine = _four_steps(my_path)
    line, angle = _to_beat()
    told = f"four Euler steps on your path end at W2 = {mine:.3f} from the data; "
    if mine > line * 0.999:
        raise GradeError(
            f"{told}the linear path has {line:.3f}. Where does the field change fastest? Walk slowly there"
        )
    if mine > angle * 1.001:
        raise GradeError(
            f"{told}that beats the linear path, {line:.3f}, and not yet the cosine path, {angle:.3f}. Both have one "
            "endpoint map, so only clock and scale can help"
        )
    if mine > 0.9 * angle:
        raise GradeError(
            f"{told}the cosine path has {angle:.3f}, and a tenth less is wanted, {0.9 * angle:.3f}. You are on the way"
        )
    return torch.tensor(1.0)


exercise(
    "6.7",
    "A path of your own",
    "my_path(t)",
    Probe(_own_path, "the path must be complete and do better than the cosine path"),
    right=lambda t: (
        torch.sin(math.pi / 2 * (1 - (1 - t) ** 1.5)),
        torch.cos(math.pi / 2 * (1 - (1 - t) ** 1.5)),
    ),
    mistakes=[],
    hints=(
        "Start from a path that you know, hand it in, and read the number. Then change one thing: the clock (t is "
        "replaced by a function of t) or the scale (alpha and sigma are multiplied by the same function).",
        "The clusters part late. A clock that runs fast early and slowly late spends the four steps where they count; "
        "it must still take 0 to 0 and 1 to 1.",
        "Of the linear path keep the quotient t / (1 - t) and change the size: what does the curve (sigma, alpha) look "
        "like between (1, 0) and (0, 1), and does it help if it bulges?",
    ),
    insight="you made a path for four steps; by the theorem of the one map its exact flow is that of every other.",
)
