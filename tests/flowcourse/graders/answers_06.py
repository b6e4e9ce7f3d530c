"""Answers to the exercises of chapter 6: right ones in several ways, and wrong ones that no declared mistake covers."""

import torch
from torch.func import grad, jvp, vmap

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


def summed_slopes(v, x_0, x_1, t, alpha, sigma):
    a_dot, s_dot = (torch.autograd.functional.jacobian(c, t).sum() for c in (alpha, sigma))
    x_t = alpha(t)[:, None] * x_1 + sigma(t)[:, None] * x_0
    return (v(x_t, t) - (a_dot * x_1 + s_dot * x_0)).square().sum(1).mean()


def by_differences(v, x_0, x_1, t, alpha, sigma, h=1e-3):
    a_dot, s_dot = ((c(t + h) - c(t))[:, None] / h for c in (alpha, sigma))
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


def score(v, x, t):
    return (t * v - x) / (1 - t)


def score_by_flowlib(v, x, t):
    return convert(v, x, t[:, 0], linear, given="velocity", wanted="score")


def by_angle(t):
    return torch.sin(torch.pi / 2 * t), torch.cos(torch.pi / 2 * t)


def slowed(t):
    return by_angle(1 - (1 - t) ** 1.6)


def rescaled(t):
    size = (t**5 + (1 - t) ** 5) ** 0.2
    return t / size, (1 - t) / size


def forth_and_back(t):
    return by_angle(t + 0.3 * torch.sin(2 * torch.pi * t))


RIGHT = [
    ("6.7", slowed),
    ("6.7", rescaled),
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

# each with words that its diagnosis must hold
WRONG = [
    ("6.7", by_angle, "not yet the cosine path|tenth less is wanted"),
    ("6.7", lambda t: (t, 1 - t), "linear path has .* Walk slowly"),
    ("6.7", lambda t: by_angle(t)[::-1], "yours are exchanged"),
    ("6.7", lambda t: (t, torch.sqrt(1 - 0.5 * t**2)), "at t = 1 a path must have"),
    ("6.7", lambda t: by_angle(t + 0.01 * (1 - t)), "at t = 0 a path must have"),
    ("6.7", forth_and_back, "walks back"),
    ("6.7", lambda t: (t.detach() + 0 * t, 1 - t), "derivative of alpha is lost"),
    ("6.7", lambda t: by_angle(t.sqrt()), "derivative is infinite at t = 0"),
    ("6.7", lambda t: (3 * t * t - 2 * t, (1 - t) * (1 - 3 * t)), "sigma must be positive|walks back"),
    ("6.7", lambda t: t, "two tensors, alpha.*not Tensor"),
    ("6.7", lambda t: (t, 1 - t, t), "3 of them"),
    ("6.7", lambda t: (t, 0.5), "sigma must be a tensor of the shape of t.*not float"),
    ("6.7", lambda t: (t.float(), (1 - t)[:, None]), r"shape of t"),
    ("6.1", "e", "one letter"),
    ("6.3", lambda x, t, z: 2 * velocity(x, t, z), "u must be z"),
    ("6.3", lambda x, t, z: x, "u must be z"),
    ("6.3", lambda x, t, z: velocity(x, t, z)[:, 0], "shape"),
    ("6.3", lambda x, t, z: velocity(x, t, z).float(), "float64"),
    ("6.3", lambda x, t, z: z / 0, "NaN or infinity"),
    ("6.3", lambda x, t: x, "TypeError"),
    ("6.3", "z - 2 (x - tz)/(1 - t)", "the function my_u"),
    ("6.4", summed_slopes, "whole batch"),
    ("6.4", by_differences, "finite differences"),
    ("6.4", overwriting, "modified in place"),
    ("6.4", detached, "no gradient flows"),
    ("6.4", lambda *a: 5 * loss(*a), "should be .* cosine.sample"),
    ("6.4", lambda *a: loss(*a).item(), "not float"),
    ("6.4", lambda v, x_0, x_1, t, alpha, sigma: alpha(t) * x_1, "RuntimeError"),
    ("6.4", None, "the function affine_loss"),
    ("6.5", unstable, "underflows"),
    ("6.5", clamped, "underflows"),
    ("6.5", one_shift, "whole batch"),
    ("6.5", lambda log_p, u: marginal(log_p.clamp(max=100), u), "overflows"),
    ("6.5", lambda log_p, u: 2 * marginal(log_p, u), "the velocity is"),
    ("6.5", lambda log_p, u: log_p.softmax(1), "shape"),
    ("6.5", lambda log_p, u: log_p.softmax(1) * u, "RuntimeError"),
    ("6.6", lambda v, x, t: t / (1 - t) * (v - x / t), "at t = 0"),
    ("6.6", lambda v, x, t: score(v, x, t) + 1, "Test it on x₁ = 0"),
    ("6.6", lambda v, x, t: score(v, x, t).sum(1), "shape"),
    ("6.6", lambda v, x: v, "TypeError"),
    ("6.3", lambda x, t, z: z - 3 / (1 - t) * (x - t * z), "but x - t z is multiplied by -27"),
    ("6.3", lambda x, t, z: z - 2 / (1 - t) * (x - t * z) ** 3, "grow linearly"),
    ("6.3", lambda x, t, z: velocity(x, t.add_(0.1), z), "t was modified in place"),
    ("6.4", lambda v, *a: loss(lambda x, t: v(x, t[:, None]), *a), r"not \(7, 1\)"),
    ("6.4", lambda v, *a: loss(lambda x, t: v(x, t.mean()), *a), "should be"),
    ("6.4", lambda v, *a: loss(lambda x, t: (v(x, t) + v(x, t).detach()) / 2, *a), "or not all of it"),
    ("6.5", lambda log_p, u: marginal(log_p.sub_(log_p.max()), u), "log_p was modified in place"),
    ("6.6", lambda v, x, t: score(v.mul_(1), x.sub_(1), t), "x was modified in place"),
    ("6.6", lambda v, x, t: (t * v - x) / (1 - t + 1e-5), "Test it on"),
]
