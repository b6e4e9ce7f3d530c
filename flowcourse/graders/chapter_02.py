"""The exercises of chapter 2, Normalizing flows and change of variables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from flowcourse.exercises import (
    GradeError,
    Option,
    call,
    choice,
    diagnose,
    exercise,
    require_tensor,
)

choice(
    "2.1",
    "Where does the Gaussian go?",
    "Half of the data come from N(-10, 1) and half from N(10, 1). You fit a single Gaussian by maximum likelihood to "
    "very many samples. Where does it go?",
    Option(
        "It sits on one of the two clusters, N(-10, 1) or N(10, 1), depending on the start.",
        "That is the reverse divergence, which averages over the model's samples. Likelihood averages over the data: "
        "half of them would be 20 standard deviations away, at a cost of about 200 nats each.",
    ),
    Option(
        "It covers both clusters: mean 0, variance 101.",
        "Maximum likelihood minimizes the forward divergence, and among Gaussians its minimizer has the mean and the "
        "variance of the data: 0, and 1 + 10². It even peaks at 0, where there are no data.",
        right=True,
    ),
    Option(
        "It lies between them, N(0, 1), as a compromise.",
        "The mean is right. But with deviation 1 every datum is about 10 standard deviations away and costs about 50 "
        "nats; a wider Gaussian costs less than 4 on average.",
    ),
    Option(
        "The likelihood has no maximum: the Gaussian narrows without end on one sample.",
        "A single Gaussian must explain all samples: narrowing on one makes the others infinitely unlikely. "
        "(A mixture of two Gaussians can do what you describe.)",
    ),
    hints=(
        "Which of the two divergences can be estimated from samples of the data alone?",
        "A Gaussian's log-likelihood depends on the data through their mean and their mean square only.",
        "The variance of the data is that within the clusters plus that of their centers.",
    ),
)

choice(
    "2.2",
    "The cost of a direction",
    "A flow for images of 64 pixels has 5 masked autoregressive layers, yᵢ = mᵢ + exp(sᵢ) xᵢ with mᵢ and sᵢ functions "
    "of y₁, ..., yᵢ₋₁, from noise to data. How many passes of a layer's network does it take to compute one "
    "likelihood, and how many to draw one sample?",
    Option(
        "5 and 5",
        "That holds for couplings. In a sample from a masked autoregressive layer, y₂ must wait for y₁, y₃ for y₂, and "
        "so on.",
    ),
    Option(
        "320 and 5",
        "The other way round: you have described the inverse autoregressive flow, whose mᵢ and sᵢ depend on x. Here "
        "they depend on y, all of which is known when a likelihood is asked for.",
    ),
    Option(
        "5 and 320",
        "Given y, one pass yields every mᵢ and sᵢ of a layer. To find y, each layer goes through its 64 coordinates "
        "one after the other: 5 · 64 = 320.",
        right=True,
    ),
    Option(
        "320 and 320",
        "The masks see to it that a single pass computes all mᵢ and sᵢ at once, each from its own y₁, ..., yᵢ₋₁. If y "
        "is known that is all it takes.",
    ),
    hints=(
        "Which of x and y is given when you compute a likelihood, and which when you draw a sample?",
        "The network takes y. What does it need to know before it can compute m₂?",
        "Likelihood: y is known, so one pass for each layer. Sample: one pass for each coordinate of each layer.",
    ),
)


@exercise(
    "2.3",
    "The divergence of two Gaussians",
    hints=(
        "Write the logarithm of the quotient of the two densities. Which averages over X ~ N(m₁, s₁²) do you need?",
        "log(s₂/s₁) - (X - m₁)²/(2 s₁²) + (X - m₂)²/(2 s₂²): average each term over X.",
        "E(X - m₁)² = s₁² and E(X - m₂)² = s₁² + (m₁ - m₂)².",
    ),
    insight="zero exactly when the Gaussians agree, and not symmetric: a narrow model of wide data costs far more "
    "than a wide model of narrow data.",
)
def grade_kl(kl: Any) -> None:
    """kl_gaussians(m1, s1, m2, s2) = KL(N(m1, s1²) | N(m2, s2²)), for tensors (B,)."""
    signature = "kl_gaussians(m1, s1, m2, s2)"
    m1, s1, m2, s2 = torch.tensor(
        [[0.0, 1.0, -0.5, 2.0], [1.0, 0.5, 2.0, 1.5], [1.0, -1.0, 0.3, 2.5], [2.0, 0.7, 1.2, 0.4]],
        dtype=torch.float64,
    )

    def right(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
        return (s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5

    log, shift, spread = (s2 / s1).log(), (m1 - m2) ** 2 / (2 * s2**2), s1**2 / (2 * s2**2)
    true = right(m1, s1, m2, s2)
    mistakes = [
        (
            "the two arguments are exchanged: this is KL(N(m2, s2²) | N(m1, s1²)), the average over the second",
            right(m2, s2, m1, s1),
        ),
        (
            "the logarithm is upside down: -log s₁ + log s₂ comes from log p₁ - log p₂, so it is log(s₂/s₁)",
            true - 2 * log,
        ),
        ("-1/2 is missing: -E(X - m₁)²/(2 s₁²) is -1/2, and two equal Gaussians must give 0", true + 0.5),
        ("log(s₂/s₁) is missing: the densities are normalized by different constants", true - log),
        (
            "the log of the variances, log(s₂²/s₁²), is twice that of the deviations; it enters once",
            true + log,
        ),
        ("half of log(s₂/s₁) is lost: log(s₂²/s₁²) / 2 is log(s₂/s₁)", true - log / 2),
        ("-E(X - m₁)²/(2 s₁²) is -1/2, and you subtract 1", true - 0.5),
        ("the means never enter: E(X - m₂)² is s₁² + (m₁ - m₂)²", true - shift),
        ("E(X - m₂)² is s₁² plus (m₁ - m₂)², and you subtract", true - 2 * shift),
        (
            "the difference of the means is squared, (m₁ - m₂)², not m₁² - m₂²",
            true - shift + (m1**2 - m2**2) / (2 * s2**2),
        ),
        ("the denominator is 2 s₂², a variance, and you divide by 2 s₂", true + (s2 - 1) * (spread + shift)),
        ("the first variance is missing: E(X - m₂)² is s₁² + (m₁ - m₂)²", true - spread),
        (
            "a factor 2 is missing in the denominator: the exponent of a Gaussian is (x - m)²/(2 s²)",
            log + 2 * spread + 2 * shift - 0.5,
        ),
        (
            "a factor 2 is missing: this is twice the divergence",
            2 * true,
        ),
        (
            "divided by s₁² where s₂² belongs: (X - m₂)² is measured in the second Gaussian's deviations",
            log + (s1**2 + (m1 - m2) ** 2) / (2 * s1**2) - 0.5,
        ),
        (
            "s is used as if it were the variance: here s₁ and s₂ are standard deviations",
            right(m1, s1.sqrt(), m2, s2.sqrt()),
        ),
        ("the sign is wrong: a divergence is never negative", -true),
        ("this is in bits; the exercise asks for nats", true / math.log(2)),
        ("the difference of the means must be squared", true - shift + (m1 - m2) / (2 * s2**2)),
        (
            "this is the expected negative log-likelihood, the divergence plus the entropy of the first Gaussian",
            true + 0.5 + s1.log() + math.log(2 * math.pi) / 2,
        ),
    ]
    result = call(kl, *(a.clone() for a in (m1, s1, m2, s2)), signature=signature)
    result = require_tensor(result, true, signature)
    at = int((result - true).abs().argmax())
    zero = call(kl, m1.clone(), s1.clone(), m1.clone(), s1.clone(), signature=signature)
    equal = isinstance(zero, Tensor) and bool((zero.abs() < 1e-9).all())
    otherwise = (
        f"for m₁ = {m1[at]:g}, s₁ = {s1[at]:g}, m₂ = {m2[at]:g}, s₂ = {s2[at]:g} the divergence is {true[at]:.4f}, and "
        f"yours is {result[at]:.4f}; for two equal Gaussians yours {'is 0, as it must be' if equal else 'is not 0'}"
    )
    diagnose(result, true, mistakes, otherwise)


@exercise(
    "2.4",
    "One affine coupling",
    hints=(
        "A density at y asks where y came from: compute x first. Which half of y gives you m and s?",
        "x_b = (y_b - m(y_a)) e^{-s(y_a)}, and the log-determinant of this inverse is minus the sum of s.",
        "log N(x; 0, I) in four dimensions is -|x|²/2 - 2 log(2π); add the log-determinant of the inverse.",
    ),
    insight="two subtractions, an exponential and a sum: no matrix was inverted, and net could be any network.",
)
def grade_coupling(log_prob: Any) -> None:
    """coupling_log_prob(y, net), (B,), for y (B, 4) and net(a) -> m, s, (B, 2) each, on the noise N(0, I)."""
    signature = "coupling_log_prob(y, net)"
    y = torch.randn(7, 4, generator=Generator().manual_seed(2), dtype=torch.float64)
    mix = torch.tensor([[0.7, -1.1, 0.4, 0.9], [0.3, 0.8, -0.9, 0.2]], dtype=torch.float64)
    asked: list[Tensor] = []

    def net(a: Tensor) -> tuple[Tensor, Tensor]:
        if a.shape[-1] != 2:
            raise GradeError(
                f"net takes the two coordinates that stay, (B, 2), and was given shape {tuple(a.shape)}"
            )
        asked.append(a.detach().clone())
        m, s = torch.sin(a @ mix + 0.3).split(2, dim=-1)
        return 2 * m, s

    def parts(a: Tensor) -> tuple[Tensor, Tensor]:
        m, s = torch.sin(a @ mix + 0.3).split(2, dim=-1)
        return 2 * m, s

    def log_q(x: Tensor) -> Tensor:
        return -x.square().sum(-1) / 2 - x.shape[-1] / 2 * math.log(2 * math.pi)

    a, b = y.split(2, dim=-1)
    m, s = parts(a)
    x = torch.cat([a, (b - m) * (-s).exp()], dim=-1)
    total = s.sum(-1)
    true = log_q(x) - total
    forth = torch.cat([a, m + s.exp() * b], dim=-1)  # the wrong direction
    m_b, s_b = parts(b)
    other = torch.cat([(a - m_b) * (-s_b).exp(), b], dim=-1)
    late = torch.cat([a, b * (-s).exp() - m], dim=-1)
    plus = torch.cat([a, (b + m) * (-s).exp()], dim=-1)
    grown = torch.cat([a, (b - m) * s.exp()], dim=-1)
    divided = torch.cat([a, (b - m) / s], dim=-1)
    wrong_way = "the wrong direction: y is data, so it must go back to the noise, x_b = (y_b - m) e^{-s}"
    sign = "the sign of the log-determinant is wrong: going back divides by e^s, so it is minus the sum of s"
    constant = "the constant of the Gaussian is wrong: in four dimensions it is -2 log(2π)"
    mistakes = [
        (sign, log_q(x) + total),
        ("the log-determinant is missing: this is only the noise's log-density at x", log_q(x)),
        (wrong_way, log_q(forth) + total),
        (f"{wrong_way}; and its log-determinant has the other sign", log_q(forth) - total),
        (wrong_way, log_q(forth)),
        ("x is missing: this is the noise's density at y itself, plus a log-determinant", log_q(y) - total),
        (
            "the halves are exchanged: the first two coordinates stay and go into net, the last two are moved",
            log_q(other) - s_b.sum(-1),
        ),
        (
            "the order is wrong: y_b = m + e^s x_b is undone by subtracting m first, then dividing by e^s",
            log_q(late) - total,
        ),
        (
            "m + e^{-s} y_b is not the inverse of m + e^s x_b: solve for x_b, (y_b - m) e^{-s}",
            log_q(torch.cat([a, m + b * (-s).exp()], dim=-1)) - total,
        ),
        (
            "m and s are exchanged: net returns first the shift m, then the log-scale s",
            log_q(torch.cat([a, (b - s) * (-m).exp()], dim=-1)) - m.sum(-1),
        ),
        ("m must be subtracted on the way back, and you add it", log_q(plus) - total),
        ("on the way back, b - m is divided by e^s, and you multiply", log_q(grown) - total),
        ("on the way back, b - m is multiplied by e^s, with its log-determinant", log_q(grown) + total),
        (
            "s is the logarithm of the scale: divide by e^s, not by s",
            log_q(divided) - s.abs().log().sum(-1),
        ),
        ("s is the logarithm of the scale: divide by e^s, not by s", log_q(divided) - total),
        (f"{constant}, and it is missing here", true + 2 * math.log(2 * math.pi)),
        (f"{constant}: -log(2π)/2 for each coordinate", true + 1.5 * math.log(2 * math.pi)),
        (f"{constant}, and this is that of two", true + math.log(2 * math.pi)),
        (f"{constant}: half of log(2π) for each coordinate", true - 2 * math.log(2 * math.pi)),
        (
            "the determinant multiplies the density: its logarithm is added, and you add the determinant itself",
            log_q(x) + (-total).exp(),
        ),
        ("this is the density; its logarithm is asked for", true.exp()),
        ("this is the negative log-density, the loss", -true),
        (
            "x_a is forgotten: the density of all four coordinates of x counts, the two that stayed as well",
            log_q(x[:, 2:]) - total,
        ),
        ("the log-determinant is the sum of s over the coordinates, not the mean", log_q(x) - s.mean(-1)),
        (
            "each point has its own log-determinant: sum s over the coordinates, not the batch",
            log_q(x) - s.sum(),
        ),
        ("the log-determinant sums s; e^s are the diagonal entries themselves", log_q(x) - s.exp().sum(-1)),
        ("log |e^s| is s itself, negative where it is: no absolute value of s", log_q(x) - s.abs().sum(-1)),
        ("the square of x needs its factor 1/2", log_q(x) - x.square().sum(-1) / 2 - total),
    ]
    mine = y.clone()
    result = call(log_prob, mine, net, signature=signature)
    if not torch.equal(mine, y):
        raise GradeError("y was modified in place: write b = (b - m) * ..., not b -= m")
    result = require_tensor(result, true, signature)
    otherwise = (
        f"at the first point log q(x) = {log_q(x)[0]:.4f} and the sum of s is {total[0]:.4f}, so that the log-density "
        f"is {true[0]:.4f}; yours is {result[0]:.4f}"
    )
    diagnose(result, true, mistakes, otherwise)
    if not asked:
        raise GradeError("net was never called, so this cannot depend on it")


@exercise(
    "2.5",
    "Bits per dimension",
    hints=(
        "Three steps: make the whole numbers continuous, ask for the log-density, and change the unit.",
        "v = (x + u) / levels lies in [0, 1)^d, and one cell has the volume levels^{-d}: so log P(x) is at least "
        "log p(v) - d log(levels), on average.",
        "Change the sign, divide by d for each dimension and by log 2 for bits.",
    ),
    insight="with no knowledge at all, log p = 0, it costs log₂(levels) bits; every bit below that was learned.",
)
def grade_bits(bpd: Any) -> None:
    """bpd(log_prob, x, levels, generator), (B,), for whole numbers x (B, d) and log_prob a density of [0, 1]^d."""
    signature = "bpd(log_prob, x, levels, generator)"
    levels, d = 6, 3
    x = torch.tensor([[0, 5, 2], [3, 3, 0], [1, 4, 5], [5, 0, 1]])
    seen: list[Tensor] = []

    def log_prob(v: Tensor) -> Tensor:  # the density 1/2 + v in each coordinate
        seen.append(v.detach().clone())
        return (0.5 + v.abs()).log().sum(-1)

    def density(v: Tensor) -> Tensor:
        return (0.5 + v.abs()).log().sum(-1)

    u = torch.rand(x.shape, generator=Generator().manual_seed(3), dtype=torch.float64)
    nats = density((x + u) / levels)

    def formula(nats: Tensor, volume: float = math.log(levels)) -> Tensor:
        return -(nats - d * volume) / (d * math.log(2))

    true = formula(nats)
    unscaled = "v must lie in [0, 1]^d: divide x + u by levels"
    mistakes = [
        (
            "the noise is forgotten: a density at whole numbers bounds no probability; draw u and use x + u",
            formula(density(x.double() / levels)),
        ),
        (
            "the noise is forgotten: (x + 1/2) / levels is always the middle of a cell, and a flow can learn a spike "
            "there",
            formula(density((x + 0.5) / levels)),
        ),
        (
            "x / levels + u spreads the noise over [0, 1), not over one cell: divide x + u",
            formula(density(x / levels + u)),
        ),
        (unscaled, formula(density(x + u))),
        (f"{unscaled}, not by levels - 1: there are levels cells", formula(density((x + u) / (levels - 1)))),
        (
            "the noise is centered, u - 1/2, so that x = 0 leaves [0, 1]: u is uniform on [0, 1)",
            formula(density((x + u - 0.5) / levels)),
        ),
        (
            "the volume of a cell is missing: log P(x) is about log p(v) - d log(levels)",
            formula(nats, 0.0),
        ),
        (
            "the volume of a cell has the wrong sign: log P(x) is about log p(v) minus d log(levels)",
            formula(nats, -math.log(levels)),
        ),
        (
            "the cell has the volume levels^{-d}, one factor for each coordinate: multiply log(levels) by d",
            formula(nats, math.log(levels) / d),
        ),
        ("these are nats per dimension: divide by log 2", true * math.log(2)),
        ("this is the cost of the whole point: divide by the dimension", true * d),
        ("this is the cost of the whole point, in nats", true * d * math.log(2)),
        ("the sign is wrong: bits are a cost, minus the log-probability", -true),
        (
            "log₂(levels) is already in bits, and is divided by log 2 once more",
            formula(nats, math.log(levels) / math.log(2)),
        ),
        (
            "only part of it is divided by log 2: log(levels) is in nats as well",
            -nats / (d * math.log(2)) + math.log(levels),
        ),
        (
            "log p is in nats too: divide it by log 2, as you did with log(levels)",
            math.log2(levels) - nats / d,
        ),
        ("divided by the numbers in the whole batch: each point has only d of them", true / len(x)),
        ("multiplied by log 2 where nats must be divided by it", true * math.log(2) ** 2),
    ]
    result = call(bpd, log_prob, x.clone(), levels, Generator().manual_seed(3), signature=signature)
    if not seen:
        raise GradeError("log_prob was never called: the model's density decides the cost")
    if isinstance(result, Tensor) and result.ndim == 0:
        raise GradeError("one number for each point is asked for, (B,): do not average over the batch")
    if isinstance(result, Tensor) and seen[0].dtype != torch.float64:
        raise GradeError(
            f"log_prob was asked at values in {seen[0].dtype}: use (x + u) / levels with u drawn in torch.float64"
        )
    result = require_tensor(result, true, signature)
    v = seen[0]
    where = f"log_prob was asked at values from {v.min():.2f} to {v.max():.2f}"
    otherwise = (
        f"for the first point log p(v) = {nats[0]:.4f} nats, which makes {true[0]:.4f} bits per dimension; yours are "
        f"{result[0]:.4f}. {where}, and the noise is one call of torch.rand with the generator"
    )
    diagnose(result, true, mistakes, otherwise)
