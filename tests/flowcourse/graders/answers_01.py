"""Answers to the exercises of chapter 1: right ones in several ways, and wrong ones that no declared mistake covers."""

import itertools
import math

import numpy as np
import torch

from flowlib.solvers import RK4, odeint


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


def with_linspace(v, x, t0, t1, steps):
    times = torch.linspace(t0, t1, steps, dtype=x.dtype)
    for t, s in itertools.pairwise(times):
        x = x + (s - t) * v(x + (s - t) / 2 * v(x, t), t + (s - t) / 2)
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


RIGHT = [
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
    ),
]

# each with words that its diagnosis must hold
WRONG = [
    ("1.1", "e", "one letter"),
    ("1.1", 2, "one letter"),
    ("1.2", "", "one letter"),
    ("1.3", lambda t: 3.0, "at t = 0 nothing has moved"),
    ("1.3", lambda t: 1.0, "V' = 2 cos"),
    ("1.3", lambda t: math.nan, "NaN"),
    ("1.3", lambda t: torch.ones(5), "a number"),
    ("1.3", lambda: 1.0, "TypeError"),
    ("1.3", math.e, "function variance"),
    ("1.4", stepper(lambda v, x, t, h: flow_map(v, x + h / 2 * v(x, t), t, t + h, 1)), "another equation"),
    ("1.4", stepper(ralston), "observed order 2.0"),
    ("1.4", lambda v, x, a, b, n: odeint(v, x, t0=a, t1=b, steps=n, method=RK4), "observed order 4.0"),
    ("1.4", half_field, "another equation"),
    (
        "1.4",
        stepper(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h / 2 * v(x, t), t + h / 2))),
        "observed order 1.0",
    ),
    ("1.4", lambda v, x, a, b, n: x + (b - a) * v(x, a), "observed order|another equation"),
    ("1.4", with_linspace, "linspace"),
    ("1.4", in_place, "in place"),
    ("1.4", trajectory, "trajectory"),
    ("1.4", lambda *a: list(trajectory(*a)), "trajectory"),
    ("1.4", lambda v, x, a, b, n: None, "NoneType"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, b, n).float(), "float64"),
    ("1.4", lambda v, x, a, b, n: flow_map(v, x, a, b, n)[:1], "shape"),
    ("1.4", lambda v, x, a, b, n: x / 0, "NaN or infinity"),
    ("1.4", lambda v, x: x, "TypeError"),
    ("1.4", "x + h v", "function flow_map"),
    ("1.5", from_parts(lambda p, rate, moved, div, **_: 2 * (rate + moved + p * div)), "the terms are"),
    ("1.5", lambda log_prob, v, x, t: residual(log_prob, v, x, t).mean(), r"shape \(7,\), not \(\)"),
    ("1.5", lambda log_prob, v, x, t: torch.autograd.grad(v(x, t).sum(), x)[0], "RuntimeError"),
    ("1.5", None, "function residual"),
    ("1.6", lambda x, S: 0 * x, "nothing moves"),
    ("1.6", lambda x, S: x, "must vanish"),
    ("1.6", lambda x, S: torch.ones_like(x), "must vanish"),
    ("1.6", lambda x, S: x @ (QUARTER @ torch.linalg.cholesky(S)).T, "must vanish"),
    ("1.6", lambda x, S: x @ torch.tensor([[0.6, 2.0], [-0.5, -0.6]], dtype=x.dtype), "must vanish"),
    ("1.6", lambda x, S: x[:, 0], "shape"),
    ("1.6", lambda x: x, "TypeError"),
    ("1.4", lambda v, x, t0, t1, steps: flow_map(v, x, t0, t1, 4), "t1 < t0 it fails"),
    ("1.5", lambda *a: residual(*a).abs(), "the terms are"),
    ("1.5", lambda log_prob, v, x, t: residual(log_prob, v, x.zero_(), t), "x was modified in place"),
    ("1.6", lambda x, S: (x[:, :1] > 0) * (x @ (QUARTER @ S.inverse()).T), "every point but 0"),
    ("1.6", lambda x, S: x.norm() * (x @ (QUARTER @ S.inverse()).T), "that point alone"),
    ("1.6", lambda x, S: torch.nn.functional.normalize(x @ (QUARTER @ S.inverse()).T), "must vanish"),
]
