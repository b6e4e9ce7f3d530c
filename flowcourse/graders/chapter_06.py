"""The exercises of chapter 6, Conditional flow matching."""

from __future__ import annotations

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
        "That weight depends on z: the minimizer becomes E[|x₁| uₜ | xₜ] / E[|x₁| | xₜ], the velocity towards another "
        "law, in which far data are more frequent.",
    ),
    Option(
        "Use the absolute error |v - uₜ|, which is less sensitive to outliers.",
        "Its minimizer is a median of the conditional velocities. Fluxes add up, so means are what is needed; the "
        "cross term of the proof vanishes for squares alone.",
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


@exercise(
    "6.3",
    "The velocity of a Gaussian path",
    hints=(
        "Every member of the path is at x = μₜ + σₜ ε with a fixed ε. Differentiate in t, then express ε by x.",
        "u = μ' + (σ'/σ)(x - μ), with μ = t z and σ = (1 - t)². What is σ'/σ?",
        "σ' = -2 (1 - t), so σ'/σ = -2/(1 - t); and μ' = z.",
    ),
    insight="with this σ the velocity is a legal one, and not the one that stands beside it in the notes: "
    "σ and u belong together.",
)
def grade_gaussian_velocity(u: Any) -> None:
    """u(x, t, z) for x, z (B, d) and t (B, 1): z - 2 (x - t z) / (1 - t)."""
    signature = "u(x, t, z)"
    g = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 6, 3, generator=g, dtype=torch.float64)
    t = 0.1 + 0.8 * torch.rand(6, 1, generator=g, dtype=torch.float64)
    s, gap = 1 - t, x - t * z
    right = z - 2 / s * gap
    mistakes = [
        ("the sign of σ'/σ is wrong: σ shrinks, so points are drawn towards the center", z + 2 / s * gap),
        (
            "this is the velocity for σ = 1 - t, the conical path; here σ = (1 - t)² shrinks twice as fast",
            (z - x) / s,
        ),
        (
            "this is the notes' velocity, (x - z)/(1 - t): it points away from the data and belongs to no such path",
            (x - z) / s,
        ),
        (
            "σ'/σ is the derivative of log σ = 2 log(1 - t); you used the derivative of log σ² = 4 log(1 - t)",
            z - 4 / s * gap,
        ),
        ("σ' = -2 (1 - t) must be divided by σ: it acts on ε = (x - μ)/σ", z - 2 * s * gap),
        ("the center moves too: μ' = z is missing", -2 / s * gap),
        ("σ'/σ multiplies x - μ, the way from the center, not x", z - 2 / s * x),
        ("the center at time t is μ = t z, not z", z - 2 / s * (x - z)),
        (
            "μ' is the derivative of t z, which is z; μ itself is a place, not a velocity",
            t * z - 2 / s * gap,
        ),
        ("divide by 1 - t once: σ'/σ = -2 (1 - t)/(1 - t)²", z - 2 / s**2 * gap),
        ("your σ' is -1, the derivative of 1 - t; that of (1 - t)² is -2 (1 - t)", z - 1 / s**2 * gap),
        (
            "this is the velocity as a function of ε; u is asked for the place x, so ε = (x - μ)/σ",
            z - 2 * s * x,
        ),
        (
            "twice the conical velocity: only the pull to the center doubles, while the center moves with μ' = z",
            2 * (z - x) / s,
        ),
        (
            "this is the conical velocity with σ = (1 - t)² in the place of its 1 - t; derive anew, from μ and σ",
            (z - x) / s**2,
        ),
        ("divide by σ = (1 - t)², not by 1 - t: σ'/σ = -2 (1 - t)/(1 - t)²", z - 2 * gap),
        ("σ' acts on ε = (x - μ)/σ, which is missing", z - 2 * s),
    ]
    result = require_tensor(call(u, x.clone(), t.clone(), z.clone(), signature=signature), x, signature)
    otherwise = (
        f"at t = {t[0, 0]:.3f} with z = ({z[0, 0]:.3f}, ...) and x = ({x[0, 0]:.3f}, ...) the first coordinate should "
        f"be {right[0, 0]:.4f}; yours is {result[0, 0]:.4f}. Check it at the center, x = t z, where u must be z: yours "
        f"gives {_first(u, t * z, t, z)} for z = {z[0, 0]:.4f}"
    )
    diagnose(result, right, mistakes, otherwise)


def _equals(answer: Any, right: Tensor) -> bool:
    """Whether an answer that may be anything is the right tensor."""
    fits = isinstance(answer, Tensor) and answer.shape == right.shape and bool(answer.isfinite().all())
    return fits and agree(answer, right)


def _first(u: Any, *arguments: Tensor) -> str:
    """The first coordinate of an answer that may be anything, for a message."""
    try:
        return f"{float(u(*arguments)[0, 0]):.4f}"
    except Exception:
        return "no number"


@exercise(
    "6.4",
    "A loss for every affine path",
    hints=(
        "xₜ = α x₁ + σ x₀ and uₜ = α' x₁ + σ' x₀. What is missing is α' and σ' at each time.",
        "torch.func.jvp(alpha, (t,), (torch.ones_like(t),)) returns the pair (α(t), α'(t)), both (B,).",
        "Times are (B,) and points (B, d): write a[:, None] * x_1. Then sum the squares over dim=1 and average.",
    ),
    insight="any two functions α and σ make a path, and the same line trains it.",
)
def grade_loss(loss: Any) -> None:
    """affine_loss(v, x_0, x_1, t, alpha, sigma) = mean over B of |v(x_t, t) - u_t|^2, for points (B, d) and t (B,)."""
    signature = "affine_loss(v, x_0, x_1, t, alpha, sigma)"
    g = torch.Generator().manual_seed(1)
    x_0, x_1 = torch.randn(2, 7, 3, generator=g, dtype=torch.float64)
    x_1 = x_1 + 0.7
    t = 0.1 + 0.8 * torch.rand(7, generator=g, dtype=torch.float64)

    def alpha(t: Tensor) -> Tensor:
        return torch.sin(1.3 * t) + 0.2 * t**2

    def sigma(t: Tensor) -> Tensor:
        return torch.cos(1.1 * t) - 0.1 * t

    a, s = alpha(t)[:, None], sigma(t)[:, None]
    a_dot = (1.3 * torch.cos(1.3 * t) + 0.4 * t)[:, None]
    s_dot = (-1.1 * torch.sin(1.1 * t) - 0.1)[:, None]

    def v(x: Tensor, t: Tensor) -> Tensor:
        time = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
        return torch.sin(x + 2 * time) * torch.tensor([1.0, 2.0, -0.5], dtype=x.dtype) + time

    x_t, u_t = a * x_1 + s * x_0, a_dot * x_1 + s_dot * x_0

    def square(x: Tensor, u: Tensor) -> Tensor:
        return (v(x, t) - u).square().sum(1)

    right = square(x_t, u_t).mean()
    swapped, swapped_dot = a * x_0 + s * x_1, a_dot * x_0 + s_dot * x_1
    mistakes = [
        (
            "the mean is over the batch alone: sum the squares over the d coordinates (yours is d times too small)",
            right / 3,
        ),
        ("take the mean over the batch, not the sum", right * 7),
        (
            "the target is that of the linear path, x₁ - x₀: differentiate alpha and sigma",
            square(x_t, x_1 - x_0).mean(),
        ),
        (
            "x_t is that of the linear path, while the target is not: use alpha and sigma for both",
            square(t[:, None] * x_1 + (1 - t[:, None]) * x_0, u_t).mean(),
        ),
        (
            "this is the loss of the linear path: alpha and sigma are not used",
            square(t[:, None] * x_1 + (1 - t[:, None]) * x_0, x_1 - x_0).mean(),
        ),
        (
            "α multiplies the data x₁ and σ the noise x₀; yours are swapped",
            square(swapped, swapped_dot).mean(),
        ),
        ("in x_t α multiplies x₁ and σ multiplies x₀; yours are swapped there", square(swapped, u_t).mean()),
        (
            "in the target α' multiplies x₁ and σ' multiplies x₀; yours are swapped there",
            square(x_t, swapped_dot).mean(),
        ),
        ("the target is not differentiated: α x₁ + σ x₀ is the place x_t itself", square(x_t, x_t).mean()),
        (
            "the sign of σ' is wrong: it is negative already, so α' x₁ and σ' x₀ are added",
            square(x_t, a_dot * x_1 - s_dot * x_0).mean(),
        ),
        ("the term σ' x₀ is missing in the target", square(x_t, a_dot * x_1).mean()),
        ("the term α' x₁ is missing in the target", square(x_t, s_dot * x_0).mean()),
        (
            "this compares lengths, |v| with |u|; the error is the length of the difference",
            (v(x_t, t).norm(dim=1) - u_t.norm(dim=1)).square().mean(),
        ),
        ("square the length: this is the mean of |v - u|", square(x_t, u_t).sqrt().mean()),
        ("this is the root of the loss: leave it squared", right.sqrt()),
        (
            "absolute errors have the median as minimizer: square them",
            (v(x_t, t) - u_t).abs().sum(1).mean(),
        ),
        (
            "the field is asked at x₁: it must answer at x_t, where it will be used",
            (v(x_1, t) - u_t).square().sum(1).mean(),
        ),
        (
            "the field is asked at x₀: it must answer at x_t, where it will be used",
            (v(x_0, t) - u_t).square().sum(1).mean(),
        ),
        (
            "all pairs got the slopes of the whole batch, summed: jvp with a tangent of ones gives each time its own",
            square(x_t, a_dot.sum() * x_1 + s_dot.sum() * x_0).mean(),
        ),
        (
            "your slopes are t α' and t σ': the tangent given to jvp must be ones, not t",
            square(x_t, t[:, None] * u_t).mean(),
        ),
    ]
    ends = x_0.clone(), x_1.clone()
    result = call(loss, v, *ends, t.clone(), alpha, sigma, signature=signature)
    if isinstance(result, Tensor) and result.shape == (7,):
        raise GradeError("this is one loss for each pair, (B,); take their mean, so that it can be minimized")
    if isinstance(result, Tensor) and result.shape == (3,):
        raise GradeError(
            "this is one loss for each coordinate, (d,); sum the squares over dim=1 before the mean"
        )
    if not (torch.equal(ends[0], x_0) and torch.equal(ends[1], x_1)):
        raise GradeError("x_0 or x_1 was modified in place: the caller's points must survive")
    result = require_tensor(result, right, signature)
    otherwise = (
        f"for the test pairs, d = 3, the loss should be {float(right):.4f}; yours is {float(result):.4f}. Compare x_t "
        "and u_t with path.sample of flowlib.paths for α = sin(πt/2), σ = cos(πt/2)"
    )
    diagnose(result, right, mistakes, otherwise)

    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value = call(loss, lambda x, t: theta * v(x, t), x_0, x_1, t, alpha, sigma, signature=signature)
    if not (isinstance(value, Tensor) and value.requires_grad):
        raise GradeError(
            "the value is right, but no gradient flows from the loss to the network: something detaches it "
            "(no_grad, .item(), .detach() or torch.tensor of a result)"
        )


@exercise(
    "6.5",
    "A marginal velocity from samples",
    hints=(
        "The zⱼ are drawn from ν, so a mean over them is an integral against ν. Which two integrals are there?",
        "uₜ(x) = E_z[u p] / E_z[p]: the weights are p(x|zⱼ) / Σₖ p(x|zₖ), one set for each point x.",
        "exp(log_p) over its sum over the z is log_p.softmax(dim=1), which shifts by the largest first.",
    ),
    insight="posterior weights are a softmax of log-likelihoods over the z: the same formula as attention.",
)
def grade_marginal(marginal: Any) -> None:
    """marginal(log_p, u) for log_p (B, n) and u (B, n, d): sum_j softmax_j(log_p) u_j, (B, d)."""
    signature = "marginal(log_p, u)"
    g = torch.Generator().manual_seed(2)
    log_p = 1.5 * torch.randn(4, 5, generator=g, dtype=torch.float64) - 1
    u = torch.randn(4, 5, 2, generator=g, dtype=torch.float64)
    p = log_p.exp()

    def average(weights: Tensor) -> Tensor:
        return (weights[:, :, None] * u).sum(1)

    right = average(log_p.softmax(1))
    best = u.gather(1, log_p.argmax(1)[:, None, None].expand(-1, 1, 2))[:, 0]
    mistakes = [
        (
            "these are equal weights, those of the prior: a z that can hardly lead to x must count less there",
            u.mean(1),
        ),
        (
            "the mean of u p is the flux; divide by the mean of p, the density, to get a velocity",
            average(p / 5),
        ),
        ("the sum of u p must be divided by the sum of p over the z", average(p)),
        (
            "the weights of the z must sum to 1 at each point x: normalize over dim=1, the z, not over the points",
            average(log_p.softmax(0)),
        ),
        (
            "the weights must sum to 1 at each point x: you normalized over all points and z together",
            average(p / p.sum()),
        ),
        ("log p is no weight: take the exponential first", average(log_p / log_p.sum(1, keepdim=True))),
        ("log p is no weight: take the exponential first", average(log_p)),
        (
            "softmax takes the exponential itself: give it log_p, not p",
            average(p.softmax(1)),
        ),
        ("the weights are inverted: a z with a large p(x|z) must count more", average((-log_p).softmax(1))),
        (
            "this is the velocity of the likeliest z alone; the others can have led to x too",
            best,
        ),
        (
            "the weights are squared: p(x|z) counts once, since the zⱼ come from ν already",
            average((2 * log_p).softmax(1)),
        ),
        (
            "the weighted velocities must be summed, not averaged: the weights sum to 1 already",
            right / 5,
        ),
        (
            "these are log-probabilities, log_softmax; the weights are softmax",
            average(log_p.log_softmax(1)),
        ),
    ]
    result = call(marginal, log_p.clone(), u.clone(), signature=signature)
    if isinstance(result, Tensor) and result.shape == (4, 5, 2):
        raise GradeError("these are the weighted velocities of every z, (B, n, d); sum them over the z")
    result = require_tensor(result, right, signature)
    otherwise = (
        f"at the first point the weights of the z are ({', '.join(f'{w:.3f}' for w in log_p.softmax(1)[0])}) and the "
        f"velocity is ({right[0, 0]:.4f}, {right[0, 1]:.4f}); yours is ({result[0, 0]:.4f}, {result[0, 1]:.4f})"
    )
    diagnose(result, right, mistakes, otherwise)

    for shift, what in ((-2000.0, "underflows to 0"), (2000.0, "overflows")):
        far = call(marginal, log_p + shift, u.clone(), signature=signature)
        if not _equals(far, right):
            raise GradeError(
                f"right, but not for log_p around {shift:g}, where exp(log_p) {what}: subtract the largest log_p "
                "of each point first, or let softmax do it"
            )
    apart = torch.tensor([[0.0], [-2000.0], [2000.0], [-4000.0]], dtype=log_p.dtype)
    if not _equals(call(marginal, log_p + apart, u.clone(), signature=signature), right):
        raise GradeError(
            "right, but not when one point is much farther out than another: subtract the largest log_p of each "
            "point (over dim=1), not that of the whole batch"
        )


@exercise(
    "6.6",
    "From velocity to score",
    hints=(
        "The score is -E₀/σ, with E₀ = E[x₀|xₜ = x]. So find E₀ from v and x.",
        "x = t E₁ + (1 - t) E₀ and v = E₁ - E₀. Eliminate E₁.",
        "E₀ = x - t v, and σ = 1 - t.",
    ),
    insight="a trained velocity is a trained score, as long as the noise is Gaussian and independent of the data.",
)
def grade_score(score: Any) -> None:
    """velocity_to_score(v, x, t) = (t v - x) / (1 - t), for v, x (B, d) and t (B, 1)."""
    signature = "velocity_to_score(v, x, t)"
    g = torch.Generator().manual_seed(3)
    v, x = torch.randn(2, 6, 2, generator=g, dtype=torch.float64)
    t = 0.1 + 0.8 * torch.rand(6, 1, generator=g, dtype=torch.float64)
    s = 1 - t
    right = (t * v - x) / s
    mistakes: list[tuple[str, Tensor]] = [
        (
            "the sign is wrong: the score is minus E₀/σ, since p rises where the noise gets smaller",
            -right,
        ),
        ("this is -E₀, the noise with its sign; divide by σ = 1 - t to get the score", t * v - x),
        ("this is E₀, the noise; the score is -E₀/σ", x - t * v),
        ("this is E₁, the data; the score needs E₀", x + s * v),
        (
            "divide by σ once: -E₀/σ. The σ² belongs to -(x - t E₁)/σ²",
            right / s,
        ),
        ("the noise counts as E₀/σ: multiply by 1/σ, not by σ", right * s**2),
        ("time runs backwards: σ = 1 - t is the share of noise, t that of the data", (s * v - x) / t),
        ("E₀ = x - t v: at time t the way t v has been walked, not (1 - t) v", (s * v - x) / s),
        ("E₀ = x - t v: your sign of v is that of the way ahead", -(t * v + x) / s),
        ("that is the score of x₁ = E₁ under N(0, I), not of xₜ under pₜ", -(x + s * v)),
        (
            "this is the score of one Gaussian N(0, (1 - t)² I): pₜ is a mixture, and v tells about it",
            -x / s**2,
        ),
        ("this is the score of N(0, I): right at t = 0 only", -x),
        ("the score is no multiple of the velocity: solve for E₀ first", -v / s),
        (
            "this is v/(1 - t), which is -(x - E₁)/σ²: given x₁ the mean of xₜ is t x₁, not x₁",
            v / s,
        ),
        ("the score is not the velocity itself", v.clone()),
        (
            "divide t v - x by σ = 1 - t, the size of the noise, not by t (if yours is v - x/t: it lacks the factor "
            "α/(σD) = t/(1 - t))",
            (t * v - x) / t,
        ),
        ("v - x/t must be multiplied by α/(σD) = t/(1 - t), not by its inverse", (v - x / t) * s / t),
        ("the whole of t v - x is divided by σ = 1 - t: mind the brackets", t * v - x / s),
        ("x is missing: E₀ = x - t v", t * v / s),
    ]
    result = require_tensor(
        call(score, v.clone(), x.clone(), t.clone(), signature=signature), x, f"{signature}"
    )
    otherwise = (
        f"at t = {t[0, 0]:.3f} with v = ({v[0, 0]:.3f}, ...) and x = ({x[0, 0]:.3f}, ...) the first coordinate should "
        f"be {right[0, 0]:.4f}; yours is {result[0, 0]:.4f}. Test it on x₁ = 0, where xₜ is N(0, (1 - t)² I) and "
        "v = -x/(1 - t)"
    )
    diagnose(result, right, mistakes, otherwise)

    zero = call(score, v.clone(), x.clone(), torch.zeros_like(t), signature=signature)
    if not _equals(zero, -x):
        raise GradeError(
            "right for t > 0, but at t = 0 the score must be -x, that of the noise: do not divide by t on the way"
        )
