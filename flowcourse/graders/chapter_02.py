"""The exercises of chapter 2, Normalizing flows and change of variables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import Answer, GradeError, Probe, from_parts, on, show, worst

LOG_2, LOG_2PI = math.log(2), math.log(2 * math.pi)

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
        "The other way around: you have described the inverse autoregressive flow, whose mᵢ and sᵢ depend on x. Here "
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


@from_parts
def _kl(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> dict[str, Any]:
    log, shift, spread = (s2 / s1).log(), (m1 - m2) ** 2 / (2 * s2**2), s1**2 / (2 * s2**2)
    right = log + spread + shift - 0.5
    return locals()


_right_kl = _kl(lambda p: p.right)
GAUSSIANS = torch.tensor(  # m1, s1, m2, s2
    [[0.0, 1.0, -0.5, 2.0], [1.0, 0.5, 2.0, 1.5], [1.0, -1.0, 0.3, 2.5], [2.0, 0.7, 1.2, 0.4]],
    dtype=torch.float64,
)


def _kl_off(result: Tensor, right: Tensor, kl: Answer) -> str:
    at = worst(result, right)
    m1, s1, m2, s2 = GAUSSIANS[:, at].tolist()
    zero = kl(*GAUSSIANS[[0, 1, 0, 1]])
    equal = isinstance(zero, Tensor) and bool((zero.abs() < 1e-9).all())
    return (
        f"for m₁ = {m1:g}, s₁ = {s1:g}, m₂ = {m2:g}, s₂ = {s2:g} the divergence is {right[at]:.4f}, and yours is "
        f"{result[at]:.4f}; for two equal Gaussians yours {'is 0, as it must be' if equal else 'is not 0'}"
    )


exercise(
    "2.3",
    "The divergence of two Gaussians",
    "kl_gaussians(m1, s1, m2, s2)",
    Probe(on(*GAUSSIANS), _kl_off),
    right=_right_kl,
    mistakes=[
        (
            "the two arguments are exchanged: this is KL(N(m2, s2²) | N(m1, s1²)), the average over the second",
            lambda m1, s1, m2, s2: _right_kl(m2, s2, m1, s1),
        ),
        (
            "the logarithm is upside down: -log s₁ + log s₂ comes from log p₁ - log p₂, so it is log(s₂/s₁)",
            _kl(lambda p: p.right - 2 * p.log),
        ),
        (
            "-1/2 is missing: -E(X - m₁)²/(2 s₁²) is -1/2, and two equal Gaussians must give 0",
            _kl(lambda p: p.right + 0.5),
        ),
        (
            "log(s₂/s₁) is missing: the densities are normalized by different constants",
            _kl(lambda p: p.right - p.log),
        ),
        (
            "the log of the variances, log(s₂²/s₁²), is twice that of the deviations; it enters once",
            _kl(lambda p: p.right + p.log),
        ),
        ("half of log(s₂/s₁) is lost: log(s₂²/s₁²) / 2 is log(s₂/s₁)", _kl(lambda p: p.right - p.log / 2)),
        ("-E(X - m₁)²/(2 s₁²) is -1/2, and you subtract 1", _kl(lambda p: p.right - 0.5)),
        ("the means never enter: E(X - m₂)² is s₁² + (m₁ - m₂)²", _kl(lambda p: p.right - p.shift)),
        ("E(X - m₂)² is s₁² plus (m₁ - m₂)², and you subtract", _kl(lambda p: p.right - 2 * p.shift)),
        (
            "the difference of the means is squared, (m₁ - m₂)², not m₁² - m₂²",
            _kl(lambda p: p.right - p.shift + (p.m1**2 - p.m2**2) / (2 * p.s2**2)),
        ),
        (
            "the denominator is 2 s₂², a variance, and you divide by 2 s₂",
            _kl(lambda p: p.right + (p.s2 - 1) * (p.spread + p.shift)),
        ),
        ("the first variance is missing: E(X - m₂)² is s₁² + (m₁ - m₂)²", _kl(lambda p: p.right - p.spread)),
        (
            "a factor 2 is missing in the denominator: the exponent of a Gaussian is (x - m)²/(2 s²)",
            _kl(lambda p: p.right + p.spread + p.shift),
        ),
        ("a factor 2 is missing: this is twice the divergence", _kl(lambda p: 2 * p.right)),
        (
            "a factor 2 is missing below the means: (m₁ - m₂)² is divided by 2 s₂²",
            _kl(lambda p: p.right + p.shift),
        ),
        (
            "`/ 2 * s2**2` multiplies by s₂²: the denominator needs its parentheses, `/ (2 * s2**2)`",
            _kl(lambda p: p.right + (p.s2**4 - 1) * (p.spread + p.shift)),
        ),
        (
            "the constant has the wrong sign: it is -1/2, and two equal Gaussians must give 0",
            _kl(lambda p: p.right + 1),
        ),
        (
            "s₁ must be squared: E(X - m₂)² is the variance s₁² plus (m₁ - m₂)²",
            _kl(lambda p: p.right - p.spread + p.s1 / (2 * p.s2**2)),
        ),
        (
            "s₁ and s₂ are exchanged in the fraction, not in the logarithm: it is (s₁² + (m₁ - m₂)²)/(2 s₂²)",
            _kl(lambda p: p.log + (p.s2**2 + (p.m1 - p.m2) ** 2) / (2 * p.s1**2) - 0.5),
        ),
        (
            "divided by s₁² where s₂² belongs: (X - m₂)² is measured in the second Gaussian's deviations",
            _kl(lambda p: p.log + (p.s1**2 + (p.m1 - p.m2) ** 2) / (2 * p.s1**2) - 0.5),
        ),
        (
            "s is used as if it were the variance: here s₁ and s₂ are standard deviations",
            lambda m1, s1, m2, s2: _right_kl(m1, s1.sqrt(), m2, s2.sqrt()),
        ),
        ("the sign is wrong: a divergence is never negative", _kl(lambda p: -p.right)),
        ("this is in bits; the exercise asks for nats", _kl(lambda p: p.right / LOG_2)),
        (
            "the difference of the means must be squared",
            _kl(lambda p: p.right - p.shift + (p.m1 - p.m2) / (2 * p.s2**2)),
        ),
        (
            "this is the expected negative log-likelihood, the divergence plus the entropy of the first Gaussian",
            _kl(lambda p: p.right + 0.5 + p.s1.log() + LOG_2PI / 2),
        ),
        (
            "this is the symmetric sum of both divergences; the average over the first Gaussian alone is asked for",
            lambda m1, s1, m2, s2: _right_kl(m1, s1, m2, s2) + _right_kl(m2, s2, m1, s1),
        ),
    ],
    hints=(
        "Write the logarithm of the quotient of the two densities. Which averages over X ~ N(m₁, s₁²) do you need?",
        "log(s₂/s₁) - (X - m₁)²/(2 s₁²) + (X - m₂)²/(2 s₂²): average each term over X.",
        "E(X - m₁)² = s₁² and E(X - m₂)² = s₁² + (m₁ - m₂)².",
    ),
    insight="zero exactly when the Gaussians agree, and not symmetric: a narrow model of wide data costs far more "
    "than a wide model of narrow data.",
)

POINTS = torch.randn(7, 4, generator=Generator().manual_seed(2), dtype=torch.float64)
MIX = torch.tensor([[0.7, -1.1, 0.4, 0.9], [0.3, 0.8, -0.9, 0.2]], dtype=torch.float64)


def _net(a: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[-1] != 2:
        raise GradeError(
            f"net takes the two coordinates that stay, (B, 2), and was given shape {tuple(a.shape)}"
        )
    m, s = torch.sin(a @ MIX + 0.3).split(2, dim=-1)
    return 2 * m, 1.5 * s


def _log_normal(*halves: Tensor) -> Tensor:
    x = torch.cat(halves, dim=-1)
    return -x.square().sum(-1) / 2 - x.shape[-1] / 2 * LOG_2PI


@from_parts
def _coupling(y: Tensor, net: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    a, b = y.split(2, dim=-1)
    (m, s), (m_b, s_b) = net(a), net(b)
    x_b, total, log_q = (b - m) * (-s).exp(), s.sum(-1), _log_normal
    right = log_q(a, x_b) - total
    return locals()


def _coupling_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    log_q, total = (
        _coupling(part)(POINTS, _net)[at] for part in (lambda p: p.log_q(p.a, p.x_b), lambda p: p.total)
    )
    return (
        f"at the point {show(POINTS[at])} log q(x) = {log_q:.4f} and the sum of s is {total:.4f}, so that the "
        f"log-density is {right[at]:.4f}; yours is {result[at]:.4f}"
    )


WRONG_WAY = "the wrong direction: y is data, so it must go back to the noise, x_b = (y_b - m) e^{-s}"
CONSTANT = "the constant of the Gaussian is wrong: in four dimensions it is -2 log(2π)"
LOG_SCALE = "s is the logarithm of the scale: divide by e^s, not by s"

exercise(
    "2.4",
    "One affine coupling",
    "coupling_log_prob(y, net)",
    Probe(on(POINTS, _net), _coupling_off),
    right=_coupling(lambda p: p.right),
    mistakes=[
        (
            "the sign of the log-determinant is wrong: going back divides by e^s, so it is minus the sum of s",
            _coupling(lambda p: p.right + 2 * p.total),
        ),
        (
            "the log-determinant is missing: this is only the noise's log-density at x",
            _coupling(lambda p: p.right + p.total),
        ),
        (WRONG_WAY, _coupling(lambda p: p.log_q(p.a, p.m + p.s.exp() * p.b) + p.total)),
        (
            f"{WRONG_WAY}; and its log-determinant has the other sign",
            _coupling(lambda p: p.log_q(p.a, p.m + p.s.exp() * p.b) - p.total),
        ),
        (WRONG_WAY, _coupling(lambda p: p.log_q(p.a, p.m + p.s.exp() * p.b))),
        (
            "x is missing: this is the noise's density at y itself, plus a log-determinant",
            _coupling(lambda p: p.log_q(p.y) - p.total),
        ),
        (
            "the halves are exchanged: the first two coordinates stay and go into net, the last two are moved",
            _coupling(lambda p: p.log_q((p.a - p.m_b) * (-p.s_b).exp(), p.b) - p.s_b.sum(-1)),
        ),
        (
            "net is given the half that moves, and needs the one that stays, y_a",
            _coupling(lambda p: p.log_q(p.a, (p.b - p.m_b) * (-p.s_b).exp()) - p.s_b.sum(-1)),
        ),
        (
            "the order is wrong: y_b = m + e^s x_b is undone by subtracting m first, then dividing by e^s",
            _coupling(lambda p: p.log_q(p.a, p.b * (-p.s).exp() - p.m) - p.total),
        ),
        (
            "m + e^{-s} y_b is not the inverse of m + e^s x_b: solve for x_b, (y_b - m) e^{-s}",
            _coupling(lambda p: p.log_q(p.a, p.m + p.b * (-p.s).exp()) - p.total),
        ),
        (
            "m and s are exchanged: net returns first the shift m, then the log-scale s",
            _coupling(lambda p: p.log_q(p.a, (p.b - p.s) * (-p.m).exp()) - p.m.sum(-1)),
        ),
        (
            "m must be subtracted on the way back, and you add it",
            _coupling(lambda p: p.log_q(p.a, (p.b + p.m) * (-p.s).exp()) - p.total),
        ),
        (
            "on the way back, b - m is divided by e^s, and you multiply",
            _coupling(lambda p: p.log_q(p.a, (p.b - p.m) * p.s.exp()) - p.total),
        ),
        (
            "on the way back, b - m is multiplied by e^s, with its log-determinant",
            _coupling(lambda p: p.log_q(p.a, (p.b - p.m) * p.s.exp()) + p.total),
        ),
        (LOG_SCALE, _coupling(lambda p: p.log_q(p.a, (p.b - p.m) / p.s) - p.s.abs().log().sum(-1))),
        (LOG_SCALE, _coupling(lambda p: p.log_q(p.a, (p.b - p.m) / p.s) - p.total)),
        (f"{CONSTANT}, and it is missing here", _coupling(lambda p: p.right + 2 * LOG_2PI)),
        (f"{CONSTANT}: -log(2π)/2 for each coordinate", _coupling(lambda p: p.right + 1.5 * LOG_2PI)),
        (f"{CONSTANT}, and this is that of two", _coupling(lambda p: p.right + LOG_2PI)),
        (f"{CONSTANT}: half of log(2π) for each coordinate", _coupling(lambda p: p.right - 2 * LOG_2PI)),
        (f"{CONSTANT}, with a minus", _coupling(lambda p: p.right + 4 * LOG_2PI)),
        (
            "the determinant multiplies the density: its logarithm is added, and you add the determinant itself",
            _coupling(lambda p: p.right + p.total + (-p.total).exp()),
        ),
        ("this is the density; its logarithm is asked for", _coupling(lambda p: p.right.exp())),
        ("this is the negative log-density, the loss", _coupling(lambda p: -p.right)),
        (
            "x_a is forgotten: the density of all four coordinates of x counts, the two that stayed as well",
            _coupling(lambda p: p.log_q(p.x_b) - p.total),
        ),
        (
            "the log-determinant is the sum of s over the coordinates, not the mean",
            _coupling(lambda p: p.right + p.total / 2),
        ),
        (
            "each point has its own log-determinant: sum s over the coordinates, not the batch",
            _coupling(lambda p: p.right + p.total - p.s.sum()),
        ),
        (
            "the log-determinant sums s; e^s are the diagonal entries themselves",
            _coupling(lambda p: p.right + p.total - p.s.exp().sum(-1)),
        ),
        (
            "log |e^s| is s itself, negative where it is: no absolute value of s",
            _coupling(lambda p: p.right + p.total - p.s.abs().sum(-1)),
        ),
        (
            "the exponent of the Gaussian is -|x|²/2, and the norm is not squared here",
            _coupling(
                lambda p: (
                    p.right
                    + (p.a.square() + p.x_b.square()).sum(-1) / 2
                    - torch.cat([p.a, p.x_b], dim=-1).norm(dim=-1) / 2
                )
            ),
        ),
        (
            "the four log-densities of the coordinates of x add up, and you average them",
            _coupling(lambda p: p.log_q(p.a, p.x_b) / 4 - p.total),
        ),
        (
            "the square of x needs its factor 1/2",
            _coupling(lambda p: p.right - (p.a.square() + p.x_b.square()).sum(-1) / 2),
        ),
    ],
    hints=(
        "A density at y asks where y came from: compute x first. Which half of y gives you m and s?",
        "x_b = (y_b - m(y_a)) e^{-s(y_a)}, and the log-determinant of this inverse is minus the sum of s.",
        "log N(x; 0, I) in four dimensions is -|x|²/2 - 2 log(2π); add the log-determinant of the inverse.",
    ),
    insight="two subtractions, an exponential and a sum: no matrix was inverted, and net could be any network.",
)


LEVELS, PIXELS = 6, torch.tensor([[0, 5, 2], [3, 3, 0], [1, 4, 5], [5, 0, 1]])


def _asked(bpd: Answer) -> tuple[Any, Tensor]:
    """What the answer returns, and where it asked for the density 1/2 + v in each coordinate."""
    asked: list[Tensor] = []

    def log_prob(v: Tensor) -> Tensor:
        asked.append(v.detach().clone())
        return (0.5 + v.abs()).log().sum(-1)

    result = bpd(log_prob, PIXELS, LEVELS, Generator().manual_seed(3))
    if not asked:
        raise GradeError("log_prob was never called: the model's density decides the cost")
    return result, asked[0]


def _bits(bpd: Answer) -> Any:
    result, v = _asked(bpd)
    if isinstance(result, Tensor) and result.ndim == 0:
        raise GradeError("one number for each point is asked for, (B,): do not average over the batch")
    if isinstance(result, Tensor) and v.dtype != torch.float64:
        raise GradeError(
            f"log_prob was asked at values in {v.dtype}: use (x + u) / levels with u drawn in torch.float64"
        )
    return result


def _bits_off(result: Tensor, right: Tensor, bpd: Answer) -> str:
    at, v = worst(result, right), _asked(bpd)[1]
    return (
        f"for the point {PIXELS[at].tolist()} log p(v) = {_bpd(lambda p: p.nats)(*_bits_arguments())[at]:.4f} nats, "
        f"which makes {right[at]:.4f} bits per dimension; yours are {result[at]:.4f}. log_prob was asked at values "
        f"from {v.min():.2f} to {v.max():.2f}, and the noise is one call of torch.rand with the generator"
    )


def _bits_arguments() -> tuple[Any, ...]:
    return lambda v: (0.5 + v).log().sum(-1), PIXELS, LEVELS, Generator().manual_seed(3)


@from_parts
def _bpd(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, levels: int, generator: Generator
) -> dict[str, Any]:
    state, log_levels, d = generator.get_state(), math.log(levels), x.shape[1]
    u = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    nats = log_prob((x + u) / levels)

    def cost(v: Tensor) -> Tensor:  # of the point v of the unit cube
        return -(log_prob(v) - d * log_levels) / (d * LOG_2)

    def again(*shape: int) -> Tensor:  # the first numbers of the same generator, in another shape
        return torch.rand(shape, generator=generator.set_state(state), dtype=torch.float64)

    right = -(nats - d * log_levels) / (d * LOG_2)
    return locals()


FORGOTTEN = "the noise is forgotten: "
UNSCALED = "v must lie in [0, 1]^d: divide x + u by levels"

exercise(
    "2.5",
    "Bits per dimension",
    "bpd(log_prob, x, levels, generator)",
    Probe(_bits, _bits_off),
    right=_bpd(lambda p: p.right),
    mistakes=[
        (
            f"{FORGOTTEN}a density at whole numbers bounds no probability; draw u and use x + u",
            _bpd(lambda p: p.cost(p.x.double() / p.levels)),
        ),
        (
            f"{FORGOTTEN}(x + 1/2) / levels is always the middle of a cell, and a flow can learn a spike there",
            _bpd(lambda p: p.cost((p.x.double() + 0.5) / p.levels)),
        ),
        (
            "x / levels + u spreads the noise over [0, 1), not over one cell: divide x + u",
            _bpd(lambda p: p.cost(p.x / p.levels + p.u)),
        ),
        (UNSCALED, _bpd(lambda p: p.cost(p.x + p.u))),
        (
            f"{UNSCALED}, not by levels - 1: there are levels cells",
            _bpd(lambda p: p.cost((p.x + p.u) / (p.levels - 1))),
        ),
        (
            f"{UNSCALED}, with log(levels) likewise, and not by levels - 1: there are levels cells",
            _bpd(
                lambda p: (
                    -(p.log_prob((p.x + p.u) / (p.levels - 1)) - p.d * math.log(p.levels - 1)) / (p.d * LOG_2)
                )
            ),
        ),
        (
            "d is the number of coordinates of a point, x.shape[1], and you take the number of points",
            _bpd(lambda p: -(p.nats / len(p.x) - p.log_levels) / LOG_2),
        ),
        (
            "the noise is centered, u - 1/2, so that x = 0 leaves [0, 1]: u is uniform on [0, 1)",
            _bpd(lambda p: p.cost((p.x + p.u - 0.5) / p.levels)),
        ),
        (
            "the noise is that of a Gaussian, which leaves the cell: u is uniform on [0, 1), torch.rand",
            _bpd(
                lambda p: p.cost(
                    (p.x + torch.randn(p.x.shape, generator=p.generator.set_state(p.state), dtype=p.u.dtype))
                    / p.levels
                )
            ),
        ),
        (
            "all points share one noise: draw u of the shape of x",
            _bpd(lambda p: p.cost((p.x + p.again(1, p.d)) / p.levels)),
        ),
        (
            "all coordinates of a point share one number of noise: draw u of the shape of x",
            _bpd(lambda p: p.cost((p.x + p.again(len(p.x), 1)) / p.levels)),
        ),
        (
            "the volume of a cell is missing: log P(x) is about log p(v) - d log(levels)",
            _bpd(lambda p: -p.nats / (p.d * LOG_2)),
        ),
        (
            "the volume of a cell has the wrong sign: log P(x) is about log p(v) minus d log(levels)",
            _bpd(lambda p: -(p.nats + p.d * p.log_levels) / (p.d * LOG_2)),
        ),
        (
            "the cell has the volume levels^{-d}, one factor for each coordinate: multiply log(levels) by d",
            _bpd(lambda p: -(p.nats - p.log_levels) / (p.d * LOG_2)),
        ),
        ("these are nats per dimension: divide by log 2", _bpd(lambda p: p.right * LOG_2)),
        ("this is the cost of the whole point: divide by the dimension", _bpd(lambda p: p.right * p.d)),
        ("this is the cost of the whole point, in nats", _bpd(lambda p: p.right * p.d * LOG_2)),
        ("the sign is wrong: bits are a cost, minus the log-probability", _bpd(lambda p: -p.right)),
        (
            "log₂(levels) is already in bits, and is divided by log 2 once more",
            _bpd(lambda p: -(p.nats - p.d * p.log_levels / LOG_2) / (p.d * LOG_2)),
        ),
        (
            "only part of it is divided by log 2: log(levels) is in nats as well",
            _bpd(lambda p: -p.nats / (p.d * LOG_2) + p.log_levels),
        ),
        (
            "log p is in nats too: divide it by log 2, as you did with log(levels)",
            _bpd(lambda p: p.log_levels / LOG_2 - p.nats / p.d),
        ),
        (
            "divided by the numbers in the whole batch: each point has only d of them",
            _bpd(lambda p: p.right / len(p.x)),
        ),
        ("multiplied by log 2 where nats must be divided by it", _bpd(lambda p: p.right * LOG_2**2)),
    ],
    hints=(
        "Three steps: make the whole numbers continuous, ask for the log-density, and change the unit.",
        "v = (x + u) / levels lies in [0, 1)^d, and one cell has the volume levels^{-d}: so log P(x) is at least "
        "log p(v) - d log(levels), on average.",
        "Change the sign, divide by d for each dimension and by log 2 for bits.",
    ),
    insight="with no knowledge at all, log p = 0, it costs log₂(levels) bits; every bit below that was learned.",
)
