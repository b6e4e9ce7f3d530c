"""Chapter 2: right answers pass, and every known mistake is named."""

import math
import re

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from flowcourse import GradeError, check
from flowcourse.exercises import find
from flowlib.normalizing import AffineCoupling, Flow, StandardNormal, bits_per_dimension, dequantize

# Right answers


def kl(m1, s1, m2, s2):
    return (s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5


def kl_by_torch(m1, s1, m2, s2):
    return kl_divergence(Normal(m1, s1), Normal(m2, s2))


def kl_by_quadrature(m1, s1, m2, s2):
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    x = m1 + s1 * z
    gap = Normal(m1, s1).log_prob(x) - Normal(m2, s2).log_prob(x)
    return torch.trapezoid(torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * gap, z, dim=0)


def log_normal(x):
    return -x.square().sum(-1) / 2 - x.shape[-1] / 2 * math.log(2 * math.pi)


def coupling(combine):
    """A log-density from the parts of a coupling: each wrong one differs from the right one in a single place."""

    def log_prob(y, net):
        a, b = y[:, :2], y[:, 2:]
        m, s = net(a)
        return combine(y=y, a=a, b=b, m=m, s=s, det=s.sum(-1))

    return log_prob


def joined(a, b):
    return log_normal(torch.cat([a, b], dim=1))


right_coupling = coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) - det)


def coupling_by_autograd(y, net):
    def inverse(y):
        m, s = net(y[:2])
        return torch.cat([y[:2], (y[2:] - m) * (-s).exp()])

    jacobian = torch.stack([torch.autograd.functional.jacobian(inverse, point) for point in y])
    return log_normal(torch.stack([inverse(point) for point in y])) + torch.linalg.slogdet(jacobian).logabsdet


def coupling_by_flowlib(y, net):  # flowlib softly bounds s: undo that, so that the two agree
    def theta(a):
        m, s = net(a)
        return torch.stack([m, 5 * torch.atanh(s / 5)], dim=-1).flatten(-2)

    layer = AffineCoupling(4, generator=torch.Generator())
    layer.net = torch.nn.Module()
    layer.net.forward = theta
    return Flow(StandardNormal(4), [layer]).log_prob(y)


def halves_exchanged(y, net):
    a, b = y[:, :2], y[:, 2:]
    m, s = net(b)
    return joined((a - m) * (-s).exp(), b) - s.sum(-1)


def in_place(y, net):
    m, s = net(y[:, :2])
    y[:, 2:] -= m
    y[:, 2:] *= (-s).exp()
    return log_normal(y) - s.sum(-1)


def bits(combine):
    """Bits per dimension from log_prob, x, u, levels and d, with the noise drawn once."""

    def bpd(log_prob, x, levels, generator):
        u = torch.rand(x.shape, generator=generator, dtype=torch.float64)
        return combine(log_prob=log_prob, x=x, u=u, levels=levels, d=x.shape[1], log_levels=math.log(levels))

    return bpd


LOG2 = math.log(2)
right_bits = bits(
    lambda log_prob, x, u, levels, d, log_levels: -(log_prob((x + u) / levels) - d * log_levels) / (d * LOG2)
)


def bits_by_flowlib(log_prob, x, levels, generator):
    v = dequantize(x.double(), levels, generator)
    return bits_per_dimension(log_prob(v), x.shape[1], levels)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("2.1", "b"),
        ("2.1", "(B)"),
        ("2.2", "c"),
        ("2.3", kl),
        ("2.3", kl_by_torch),
        ("2.3", kl_by_quadrature),
        ("2.4", right_coupling),
        ("2.4", coupling_by_autograd),
        ("2.4", coupling_by_flowlib),
        ("2.5", right_bits),
        ("2.5", bits_by_flowlib),
    ],
)
def test_right_answers_pass(number, answer, capsys):
    check(number, answer)
    assert f"✓ {number} {find(number).title}: {find(number).insight}" in capsys.readouterr().out


# Wrong answers

WRONG = [
    ("2.1", "a", "reverse divergence"),
    ("2.1", "c", "10 standard deviations"),
    ("2.1", "d", "must explain all samples"),
    ("2.1", "e", "one letter of a, b, c, d"),
    ("2.2", "a", "holds for couplings"),
    ("2.2", "b", "other way round"),
    ("2.2", "d", "single pass"),
    # 2.3
    ("2.3", lambda m1, s1, m2, s2: kl(m2, s2, m1, s1), "exchanged"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) + 2 * (s1 / s2).log(), "upside down"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) + 0.5, "-1/2 is missing"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) - (s2 / s1).log(), "normalized by different"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) + (s2 / s1).log(), "twice that of the deviations"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m1, s2), "means never enter"),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (m1 - m2) ** 2 / (2 * s2**2) - 0.5,
        "first variance is missing",
    ),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / s2**2 - 0.5,
        "factor 2 is missing in the denominator",
    ),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) - (s2 / s1).log() / 2, "half of log"),
    ("2.3", lambda *a: kl(*a) - 0.5, "you subtract 1"),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (s1**2 - (m1 - m2) ** 2) / (2 * s2**2) - 0.5,
        "and you subtract$",
    ),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (s1**2 + m1**2 - m2**2) / (2 * s2**2) - 0.5,
        "not m₁² - m₂²",
    ),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / (2 * s2) - 0.5,
        "divide by 2 s₂$",
    ),
    ("2.3", lambda *a: 2 * kl(*a), "twice the divergence"),
    (
        "2.3",
        lambda m1, s1, m2, s2: (s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / (2 * s1**2) - 0.5,
        "s₂² belongs",
    ),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1.sqrt(), m2, s2.sqrt()), "standard deviations"),
    ("2.3", lambda *a: -kl(*a), "never negative"),
    ("2.3", lambda *a: kl(*a) / LOG2, "bits"),
    (
        "2.3",
        lambda m1, s1, m2, s2: kl(m1, s1, m1, s2) + (m1 - m2) / (2 * s2**2),
        "must be squared",
    ),
    (
        "2.3",
        lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) + 0.5 + s1.log() + math.log(2 * math.pi) / 2,
        "plus the entropy",
    ),
    ("2.3", lambda m1, s1, m2, s2: (m1 - m2) ** 2, "yours is 0, as it must be"),
    ("2.3", lambda m1, s1, m2, s2: torch.ones_like(m1), "is not 0"),
    ("2.3", lambda *a: kl(*a).mean(), "shape"),
    ("2.3", lambda *a: 1.0, "float"),
    ("2.3", lambda m, s: m, "TypeError"),
    ("2.3", 0.5, "function kl"),
    # 2.4
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) + det), "sign of the log"),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) * (-s).exp())),
        "log-determinant is missing",
    ),
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, m + s.exp() * b) + det), "wrong direction"),
    (
        "2.4",
        coupling(lambda a, b, m, s, det, **_: joined(a, m + s.exp() * b) - det),
        "wrong direction.*other sign",
    ),
    ("2.4", coupling(lambda a, b, m, s, **_: joined(a, m + s.exp() * b)), "wrong direction"),
    ("2.4", coupling(lambda y, det, **_: log_normal(y) - det), "x is missing"),
    ("2.4", halves_exchanged, "halves are exchanged"),
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, b * (-s).exp() - m) - det), "order is wrong"),
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, (b + m) * (-s).exp()) - det), "you add it"),
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * s.exp()) - det), "you multiply"),
    (
        "2.4",
        coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * s.exp()) + det),
        "multiplied by e\\^s",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) / s) - s.abs().log().sum(-1)),
        "not by s",
    ),
    ("2.4", coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) / s) - det), "not by s"),
    (
        "2.4",
        coupling(
            lambda a, b, m, s, det, **_: -torch.cat([a, (b - m) * (-s).exp()], 1).square().sum(1) / 2 - det
        ),
        "missing here",
    ),
    (
        "2.4",
        coupling(
            lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) + 1.5 * math.log(2 * math.pi) - det
        ),
        "for each coordinate",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) + math.log(2 * math.pi) - det),
        "that of two",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) + (-det).exp()),
        "determinant itself",
    ),
    ("2.4", lambda y, net: right_coupling(y, net).exp(), "this is the density"),
    ("2.4", lambda y, net: -right_coupling(y, net), "the loss"),
    ("2.4", coupling(lambda b, m, s, det, **_: log_normal((b - m) * (-s).exp()) - det), "x_a is forgotten"),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) * (-s).exp()) - s.mean(-1)),
        "not the mean",
    ),
    (
        "2.4",
        coupling(
            lambda a, b, m, s, det, **_: (
                joined(a, (b - m) * (-s).exp())
                - torch.cat([a, (b - m) * (-s).exp()], 1).square().sum(1) / 2
                - det
            )
        ),
        "factor 1/2",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, det, **_: joined(a, m + b * (-s).exp()) - det),
        "is not the inverse",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - s) * (-m).exp()) - m.sum(-1)),
        "m and s are exchanged",
    ),
    (
        "2.4",
        coupling(
            lambda a, b, m, s, det, **_: joined(a, (b - m) * (-s).exp()) - det - 2 * math.log(2 * math.pi)
        ),
        "half of log\\(2π\\)",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) * (-s).exp()) - s.sum()),
        "not the batch",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) * (-s).exp()) - s.exp().sum(-1)),
        "diagonal entries themselves",
    ),
    (
        "2.4",
        coupling(lambda a, b, m, s, **_: joined(a, (b - m) * (-s).exp()) - s.abs().sum(-1)),
        "no absolute value",
    ),
    ("2.4", coupling(lambda det, **_: det), "the sum of s is"),
    ("2.4", lambda y, net: log_normal(y), "the sum of s is"),
    ("2.4", lambda y, net: net(y)[0].sum(-1), "given shape \\(7, 4\\)"),
    ("2.4", in_place, "in place"),
    ("2.4", lambda y, net: right_coupling(y, net).sum(), "shape"),
    ("2.4", lambda y, net: right_coupling(y, net).float(), "float64"),
    ("2.4", lambda y: y, "TypeError"),
    ("2.4", None, "function coupling_log_prob"),
    # 2.5
    (
        "2.5",
        bits(
            lambda log_prob, x, levels, d, log_levels, **_: (
                -(log_prob(x.double() / levels) - d * log_levels) / (d * LOG2)
            )
        ),
        "noise is forgotten: a density",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, levels, d, log_levels, **_: (
                -(log_prob((x.double() + 0.5) / levels) - d * log_levels) / (d * LOG2)
            )
        ),
        "middle of a cell",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -(log_prob(x / levels + u) - d * log_levels) / (d * LOG2)
            )
        ),
        "not over one cell",
    ),
    (
        "2.5",
        bits(lambda log_prob, x, u, d, log_levels, **_: -(log_prob(x + u) - d * log_levels) / (d * LOG2)),
        "divide x \\+ u by levels",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -(log_prob((x + u) / (levels - 1)) - d * log_levels) / (d * LOG2)
            )
        ),
        "not by levels - 1",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -(log_prob((x + u - 0.5) / levels) - d * log_levels) / (d * LOG2)
            )
        ),
        "centered",
    ),
    (
        "2.5",
        bits(lambda log_prob, x, u, levels, d, **_: -log_prob((x + u) / levels) / (d * LOG2)),
        "volume of a cell is missing",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -(log_prob((x + u) / levels) + d * log_levels) / (d * LOG2)
            )
        ),
        "volume of a cell has the wrong sign",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -(log_prob((x + u) / levels) - log_levels) / (d * LOG2)
            )
        ),
        "multiply log\\(levels\\) by d",
    ),
    ("2.5", lambda *a: right_bits(*a) * LOG2, "nats per dimension"),
    ("2.5", lambda f, x, n, g: right_bits(f, x, n, g) * x.shape[1], "divide by the dimension"),
    ("2.5", lambda f, x, n, g: right_bits(f, x, n, g) * x.shape[1] * LOG2, "whole point, in nats"),
    ("2.5", lambda *a: -right_bits(*a), "sign is wrong"),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, **_: (
                -(log_prob((x + u) / levels) - d * math.log2(levels)) / (d * LOG2)
            )
        ),
        "once more",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: (
                -log_prob((x + u) / levels) / (d * LOG2) + log_levels
            )
        ),
        "only part of it",
    ),
    (
        "2.5",
        bits(
            lambda log_prob, x, u, levels, d, log_levels: log_levels / LOG2 - log_prob((x + u) / levels) / d
        ),
        "log p is in nats too",
    ),
    ("2.5", lambda f, x, n, g: right_bits(f, x, n, g) / len(x), "whole batch"),
    (
        "2.5",
        lambda f, x, n, g: -f((x + torch.rand(x.shape, generator=g)) / n) / (3 * LOG2) + math.log2(n),
        "u drawn in torch.float64",
    ),
    ("2.5", lambda *a: right_bits(*a) * LOG2**2, "multiplied by log 2"),
    ("2.5", lambda *a: right_bits(*a).mean(), "do not average over the batch"),
    ("2.5", lambda *a: right_bits(*a) + 1, "asked at values from 0"),
    ("2.5", lambda f, x, n, g: torch.zeros(len(x)), "never called"),
    ("2.5", lambda *a: right_bits(*a).tolist(), "list"),
    ("2.5", lambda f, x: x, "TypeError"),
    ("2.5", 4.09, "function bpd"),
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


def test_graders_leave_global_randomness_alone():
    before = torch.get_rng_state()
    check("2.3", kl)
    check("2.4", right_coupling)
    check("2.5", right_bits)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("number", ["2.1", "2.2", "2.3", "2.4", "2.5"])
def test_three_different_hints_without_tex(number):
    assert len(set(find(number).hints)) == 3
    assert not re.search(r"\\[a-z]|\$", " ".join(find(number).hints))


@pytest.mark.parametrize("number", ["2.1", "2.2"])
def test_each_wrong_option_has_its_own_feedback(number):
    options = find(number).options
    assert len({option.feedback for option in options}) == len(options) == 4
