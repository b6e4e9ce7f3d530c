"""Answers to the exercises of chapter 2: right ones in several ways, and wrong ones that no declared mistake covers."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from flowlib.normalizing import AffineCoupling, Flow, StandardNormal, bits_per_dimension, dequantize


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


RIGHT = [
    ("2.3", kl),
    ("2.3", kl_by_torch),
    ("2.3", kl_by_quadrature),
    ("2.4", right_coupling),
    ("2.4", coupling_by_autograd),
    ("2.4", coupling_by_flowlib),
    ("2.5", right_bits),
    ("2.5", bits_by_flowlib),
]

# each with words that its diagnosis must hold
WRONG = [
    ("2.1", "e", "one letter of a, b, c, d"),
    ("2.3", lambda m1, s1, m2, s2: (m1 - m2) ** 2, "yours is 0, as it must be"),
    ("2.3", lambda m1, s1, m2, s2: torch.ones_like(m1), "is not 0"),
    ("2.3", lambda *a: kl(*a).mean(), "shape"),
    ("2.3", lambda *a: 1.0, "float"),
    ("2.3", lambda m, s: m, "TypeError"),
    ("2.3", 0.5, "function kl"),
    ("2.4", halves_exchanged, "halves are exchanged"),
    ("2.4", coupling(lambda det, **_: det), "the sum of s is"),
    ("2.4", lambda y, net: log_normal(y), "the sum of s is"),
    ("2.4", lambda y, net: net(y)[0].sum(-1), "given shape \\(7, 4\\)"),
    ("2.4", in_place, "in place"),
    ("2.4", lambda y, net: right_coupling(y, net).sum(), "shape"),
    ("2.4", lambda y, net: right_coupling(y, net).float(), "float64"),
    ("2.4", lambda y: y, "TypeError"),
    ("2.4", None, "function coupling_log_prob"),
    (
        "2.5",
        lambda f, x, n, g: -f((x + torch.rand(x.shape, generator=g)) / n) / (3 * LOG2) + math.log2(n),
        "u drawn in torch.float64",
    ),
    ("2.5", lambda *a: right_bits(*a).mean(), "do not average over the batch"),
    ("2.5", lambda *a: right_bits(*a) + 1, "asked at values from 0"),
    ("2.5", lambda f, x, n, g: torch.zeros(len(x)), "never called"),
    ("2.5", lambda *a: right_bits(*a).tolist(), "list"),
    ("2.5", lambda f, x: x, "TypeError"),
    ("2.5", 4.09, "function bpd"),
    ("2.3", lambda m1, s1, m2, s2: kl(m1, s1, m2.sub_(m1), s2), "m2 was modified in place"),
    (
        "2.4",
        lambda y, net: right_coupling(y, lambda a: (net(a)[0], net(a)[1].clamp(-1, 1))),
        "the sum of s is",
    ),
    (
        "2.5",
        lambda f, x, n, g: right_bits(f, x, n, torch.Generator().manual_seed(0)),
        "one call of torch.rand",
    ),
    ("2.5", lambda f, x, n, g: right_bits(f, x, n, None), "global generator"),
]
