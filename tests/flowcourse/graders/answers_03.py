"""Answers to the exercises of chapter 3: right ones in several ways, and wrong ones that no declared mistake covers."""

import math

import torch

from flowlib.continuous import log_prob
from flowlib.derivatives import divergence, rademacher
from flowlib.solvers import MIDPOINT, RK4


def gradients(k, x_0, y):
    a_0 = math.exp(k) * (x_0 * math.exp(k) - y)
    return a_0, a_0 * x_0


def gradients_by_autograd(k, x_0, y):
    k, x_0 = (torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in (k, x_0))
    return torch.autograd.grad((x_0 * k.exp() - y) ** 2 / 2, (x_0, k))


def hutchinson(v, x, t, noise, keep=True):
    x = x.clone().requires_grad_() if keep else x.detach().requires_grad_()
    (row,) = torch.autograd.grad(v(x, t), x, noise, create_graph=keep)
    return (row * noise).sum(dim=1)


def hutchinson_of_a_sum(v, x, t, noise):
    x = x.clone().requires_grad_()
    (row,) = torch.autograd.grad((v(x, t) * noise).sum(), x, create_graph=True)
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
    divergence=divergence,
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


def by_hutchinson():
    g = torch.Generator().manual_seed(4)
    return likelihood(divergence=lambda v, x, t: divergence(v, x, t, noise=rademacher(x, g)))


def row(x, u, e):
    return torch.autograd.grad(u, x, e, retain_graph=True)[0]


def jacobian(x, u):
    return torch.stack([row(x, u, e.expand_as(u)) for e in torch.eye(3, dtype=x.dtype)], dim=1)  # (B, 3, 3)


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


def by_chapter(v, x, t):
    """An exact divergence that training cannot see."""
    x = x.detach().requires_grad_()
    u = v(x, t)
    rows = [torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
    return sum(row[:, i] for i, row in enumerate(rows))


RIGHT = [
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

# each with words that its diagnosis must hold
WRONG = [
    ("3.1", "e", "one letter"),
    ("3.3", lambda k, x, y: (0.0, 0.0), "finite differences"),
    ("3.3", lambda k, x, y: {"x_0": 1.0, "k": 2.0}, "two numbers"),
    ("3.3", lambda k, x, y: gradients(k, x, y)[0], "two numbers, \\(dL"),
    ("3.3", lambda k, x, y: ("a", "b"), "\\('a', 'b'\\)"),
    ("3.3", lambda k, x, y: (math.nan, 1.0), "NaN"),
    ("3.3", lambda k: k, "TypeError"),
    ("3.3", 0.5, "function gradients"),
    ("3.4", own_noise(), "two calls"),
    ("3.4", lambda *a: hutchinson(*a) * math.nan, "NaN"),
    ("3.4", d_passes, "One is enough"),
    ("3.4", overwrites_noise, "in place"),
    ("3.4", lambda *a: hutchinson(*a) + 1, "at the point"),
    ("3.4", lambda *a: hutchinson(*a).float(), "float64"),
    ("3.4", lambda *a: hutchinson(*a)[:, None], "shape"),
    ("3.4", lambda v, x, t, e: torch.autograd.grad(v(x, t), x, e)[0], "RuntimeError"),
    ("3.4", None, "function hutchinson"),
    ("3.5", euler, "Euler's method"),
    ("3.5", by_hutchinson(), "two calls"),
    ("3.5", likelihood(final=torch.mean), "one number for the batch"),
    ("3.5", lambda v, x, n: log_prob(v, x, steps=n, method=RK4), "another method"),
    ("3.5", likelihood(base=lambda x: normal(x) + 1), "in the limit of many steps; yours is -?[\\d.]+$"),
    ("3.5", overwrites_points, "in place"),
    ("3.5", likelihood(final=lambda log_p: log_p[:, None]), "shape"),
    ("3.5", likelihood(final=lambda log_p: log_p.log()), "NaN"),
    ("3.5", lambda v, x: x, "TypeError"),
    ("3.5", 3.0, "function log_likelihood"),
    ("3.3", lambda *a: (abs(gradients(*a)[0]), gradients(*a)[1]), "dL/dk is right, dL/dx₀ is not"),
    ("3.4", lambda *a: hutchinson(*a, keep=False), "it is detached"),
    ("3.4", lambda v, x, t, e: hutchinson(v, x, t, e.sign()), "at the point"),
    (
        "3.4",
        lambda v, x, t, e: (v(x + 1e-6 * e, t) - v(x - 1e-6 * e, t)).mul(e).sum(1) / 2e-6,
        "2 evaluations of v",
    ),
    ("3.4", lambda v, x, t, e: hutchinson(v, x.mul_(2), t, e), "x was modified in place"),
    ("3.5", lambda v, x_1, steps: likelihood()(v, x_1, 6), "right for 6 steps and wrong for 4"),
    ("3.5", lambda v, x_1, steps: likelihood()(v, x_1, 2 * steps), "right for 12 midpoint steps, and 6"),
    ("3.5", lambda v, x_1, steps: likelihood()(v, x_1, steps).detach(), "something on the way is detached"),
    ("3.5", likelihood(divergence=by_chapter), "the divergence is detached"),
]
