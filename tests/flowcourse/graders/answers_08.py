"""Answers to the exercises of chapter 8: right ones in several ways, and wrong ones that no declared mistake covers."""

import torch
from torch.func import jvp, vmap

from flowcourse.family import NOISE_TO_EIGHT
from flowlib.flow_maps import average_velocity, lagrangian_residual, shortcut_residual
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import EULER, MIDPOINT, odeint


def size(t, tau):
    return ((1 - t) ** 2 + (tau * t) ** 2).sqrt()


def average(x, s, t, tau):
    return x * ((1 + tau**2) * (s + t) - 2) / (size(s, tau) * (size(s, tau) + size(t, tau)))


def by_solver(x, s, t, tau):
    law = GaussianMixture([[0.0, 0.0]], [tau**2])
    return average_velocity(law.marginal_velocity(linear), x, s[:, 0], t[:, 0])


def divided(x, s, t, tau):  # 0 / 0 at s = t
    return x * (size(t, tau) / size(s, tau) - 1) / (t - s)


def for_two(x, s, t, tau):
    return average(x, s, t, 2.0)


@torch.no_grad()
def target(u, x, s, t):
    m = s + (t - s) / 2
    a = u(x, s, m)
    return a / 2 + u(x + (m - s).unsqueeze(1) * a, m, t) / 2


def target_by_residual(u, x, s, t):
    return (u(x, s, t) - shortcut_residual(u, x, s, t)).detach()


def target_with_gradient(u, x, s, t):
    return u(x, s, t) - shortcut_residual(u, x, s, t)


def end_loss(u, v, x, s, t):
    return lagrangian_residual(u, v, x, s, t).square().sum(1).mean()


def end_loss_by_points(u, v, x, s, t):
    def one(x, s, t):
        place = lambda t: x + (t - s) * u(x[None], s[None], t[None])[0]  # noqa: E731
        end, speed = jvp(place, (t,), (torch.ones_like(t),))
        return (speed - v(end[None], t[None])[0]).square().sum()

    return vmap(one)(x, s, t).mean()


def half_detached(u, v, x, s, t):
    end, speed = jvp(lambda t: x + (t - s)[:, None] * u(x, s, t), (t,), (torch.ones_like(t),))
    return (speed - v(end.detach(), t)).square().sum(1).mean()


def exactly(x_0):
    return odeint(NOISE_TO_EIGHT.velocity(), x_0, steps=64, method=MIDPOINT)


def nearest_center(x_0):
    centers = NOISE_TO_EIGHT.target.means
    return centers[torch.cdist(x_0, centers).argmin(1)]


RIGHT = [
    ("8.3", average),
    ("8.3", by_solver),
    ("8.4", target),
    ("8.4", target_by_residual),
    ("8.5", end_loss),
    ("8.5", end_loss_by_points),
    ("8.6", exactly),
]

# each with words that its diagnosis must hold
WRONG = [
    ("8.1", "e", "one letter"),
    ("8.3", divided, "cancel t - s"),
    ("8.3", for_two, "not for tau = 1"),
    ("8.3", lambda x, s, t, tau: 3 * average(x, s, t, tau), "everybody comes home"),
    ("8.3", lambda x, s, t, tau: average(x, s, t, tau)[:, 0], "shape"),
    ("8.3", lambda x, s, t: x, "TypeError"),
    ("8.4", target_with_gradient, "a gradient flows through it"),
    ("8.4", lambda u, x, s, t: 3 * target(u, x, s, t), "that constant"),
    ("8.4", lambda u, x, s, t: target(u, x, s, t).float(), "float64"),
    ("8.4", lambda u, x, s, t: u(x, s), "TypeError"),
    ("8.5", half_detached, "something is detached"),
    ("8.5", lambda *a: end_loss(*a).detach(), "something is detached"),
    ("8.5", lambda *a: 3 * end_loss(*a), "the loss should be"),
    ("8.5", lambda *a: end_loss(*a).item(), "not float"),
    ("8.6", lambda x_0: x_0, "the noise itself"),
    (
        "8.6",
        lambda x_0: odeint(NOISE_TO_EIGHT.velocity(), x_0, steps=1, method=EULER),
        "heap near the middle",
    ),
    ("8.6", lambda x_0: exactly(x_0) - x_0, "you return the velocity"),
    ("8.6", lambda x_0: exactly(x_0).flip(0), "depends on the other points"),
    ("8.6", nearest_center, "both ends in their places"),
    ("8.6", lambda x_0: exactly(x_0) + 0.18, "you are on the way"),
    ("8.6", lambda x_0: exactly(x_0)[:, 0], "shape"),
]
