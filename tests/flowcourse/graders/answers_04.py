"""Answers to the exercises of chapter 4: right ones in several ways, and wrong ones that no declared mistake covers."""

import math

import torch

from flowlib.data import Empirical
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.paths import linear
from flowlib.training import cosine_decay, fit


def velocity(x, t):
    return (torch.tanh(t * x / (1 - t) ** 2) - x) / (1 - t)


def velocity_by_sigmoid(x, t):
    return (2 * torch.sigmoid(2 * t * x / (1 - t) ** 2) - 1 - x) / (1 - t)


def columns(t, x):
    return t.reshape(-1, *[1] * (x.ndim - 1))


def draws(x_1, generator):
    x_0 = torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype)
    return x_0, torch.rand(len(x_1), generator=generator, dtype=x_1.dtype)


def loss_from(combine):
    """A loss from x_0, x_1, t (B,), t like x, v: each wrong one differs from the right one in a single place."""

    def fm_loss(v, x_1, generator):
        x_0, t = draws(x_1, generator)
        return combine(v=v, x_0=x_0, x_1=x_1, t=t, s=columns(t, x_1))

    return fm_loss


def square(a):
    return a.square().flatten(1).sum(1).mean()


right_loss = loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)))


def times_first(v, x_1, generator):  # another order of the draws, and float32 times
    t = torch.rand(x_1.shape[0], generator=generator)
    x_0 = torch.empty_like(x_1).normal_(generator=generator)
    x_t = torch.lerp(x_0, x_1, columns(t, x_1).to(x_1.dtype))
    return torch.sum((x_1 - x_0 - v(x_t, t=t)) ** 2) / len(x_1)


def by_flowlib(v, x_1, generator):
    return x_1[0].numel() * cfm_loss(v, x_1, generator=generator)


def exact_velocity(x, t, points):
    t = t[:, None]
    apart = (x[:, None] - t[..., None] * points).square().sum(2)
    return ((-apart / (2 * (1 - t) ** 2)).softmax(1) @ points - x) / (1 - t)


def with_largest_subtracted(x, t, points):
    t = t[:, None]
    log_w = -(x[:, None] - t[..., None] * points).square().sum(2) / (2 * (1 - t) ** 2)
    w = (log_w - log_w.max(1, keepdim=True).values).exp()
    return (w @ points / w.sum(1, keepdim=True) - x) / (1 - t)


def global_noise(v, x_1, generator):
    x_0 = torch.randn_like(x_1)
    t = torch.rand(len(x_1), generator=generator, dtype=x_1.dtype)
    return square(v((1 - columns(t, x_1)) * x_0 + columns(t, x_1) * x_1, t) - (x_1 - x_0))


def own_generator(v, x_1, generator):
    return right_loss(v, x_1, torch.Generator().manual_seed(0))


ENTROPY = iter(range(1000, 10_000))


def other_randomness(v, x_1, generator):  # repeats nothing, though torch's global generator rests
    return right_loss(v, x_1, torch.Generator().manual_seed(next(ENTROPY)))


def one_time(v, x_1, generator):
    x_0, _ = draws(x_1, generator)
    t = torch.rand(1, generator=generator, dtype=x_1.dtype)
    return square(v((1 - t) * x_0 + t * x_1, t) - (x_1 - x_0))


def one_time_expanded(v, x_1, generator):
    x_0, _ = draws(x_1, generator)
    t = torch.rand(1, generator=generator, dtype=x_1.dtype)
    return square(v((1 - t) * x_0 + t * x_1, t.expand(len(x_1))) - (x_1 - x_0))


def only_vectors(v, x_1, generator):  # t[:, None] on images
    x_0, t = draws(x_1, generator)
    s = t[:, None]
    return square(v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0))


def no_column(v, x_1, generator):
    x_0, t = draws(x_1, generator)
    return square(v((1 - t) * x_0 + t * x_1, t) - (x_1 - x_0))


def point_by_point(v, x_1, generator):
    x_0, t = draws(x_1, generator)
    x_t = (1 - columns(t, x_1)) * x_0 + columns(t, x_1) * x_1
    rows = [v(x_t[i : i + 1], t[i : i + 1]) for i in range(len(x_1))]
    return square(torch.cat(rows) - (x_1 - x_0))


def with_noise(make):
    def fm_loss(v, x_1, generator):
        x_0, t = make(x_1, generator), torch.rand(len(x_1), generator=generator, dtype=x_1.dtype)
        s = columns(t, x_1)
        return square(v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0))

    return fm_loss


def with_times(make):
    def fm_loss(v, x_1, generator):
        x_0, t = draws(x_1, generator)[0], make(x_1, generator)
        s = columns(t, x_1) if t.ndim == 1 else t
        return square(v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0))

    return fm_loss


late_times = with_times(lambda x, g: torch.rand(len(x), generator=g, dtype=x.dtype).sqrt())


def divides_by_t(x, t, points):  # v = (x - E[x_0|x]) / t
    e_1 = x + (1 - t[:, None]) * exact_velocity(x, t, points)
    e_0 = (x - t[:, None] * e_1) / (1 - t[:, None])
    return (x - e_0) / t[:, None]


def half_detached(v, x_0, x_1, t, s):
    d = v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)
    return (d * d.detach()).flatten(1).sum(1).mean()


def trained(points, steps, lr=5e-3):
    generator = torch.Generator().manual_seed(0)

    def loss(v, g):
        rows = torch.randint(len(points), (256,), generator=g)
        return cfm_loss(v, points[rows], generator=g)

    net = VelocityMLP(2, generator=generator)
    fit(net, loss, steps=steps, lr=lr, schedule=cosine_decay, generator=generator, progress=False)
    return net.requires_grad_(False)


def with_times_for_each(points):  # works in training, and fails in a solver
    v = trained(points, 20)
    return lambda x, t: v(x, t[:, None].flatten())


def without_graph(points):
    v = trained(points, 800)
    return torch.no_grad()(lambda x, t: v(x, t))


def best_gaussian(points):
    return GaussianMixture(points.mean(0)[None], torch.cov(points.T)[None]).marginal_velocity(linear)


RIGHT = [
    ("4.3", velocity),
    ("4.3", velocity_by_sigmoid),
    ("4.4", right_loss),
    ("4.4", times_first),
    ("4.4", by_flowlib),
    ("4.5", exact_velocity),
    ("4.5", with_largest_subtracted),
    ("4.5", lambda x, t, points: Empirical(points).marginal_velocity(linear)(x, t)),
    ("4.6", lambda a, s: math.pi / 2 * a * s),
    ("4.6", lambda a, s: torch.tensor(a * s) * torch.pi / 2),
    ("4.7", lambda points: trained(points, 800)),
]

# each with words that its diagnosis must hold
WRONG = [
    ("4.1", "z", "one letter"),
    ("4.3", lambda x, t: 2 * velocity(x, t), "yours is"),
    ("4.3", lambda x, t: velocity(x, t).sum(), r"shape \(5,\)"),
    ("4.3", lambda x, t: velocity(x, t).float(), "float64"),
    ("4.3", lambda x, t: (1 / torch.tanh(x / t) - x) / (1 - t), "yours is"),
    ("4.3", lambda x: x, "TypeError"),
    ("4.3", 0.5, "function velocity"),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(s * x_0 + (1 - s) * x_1, t) - (x_0 - x_1))),
        "t = 0 is noise",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(x_1 + 0 * s, t) - (x_1 - x_0))),
        "asked at the data",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(x_0 + 0 * s, t) - (x_1 - x_0))),
        "asked at the noise",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(x_0 + s**2 * (x_1 - x_0), t) - (x_1 - x_0))),
        "another weight",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, 1000 * t) - (x_1 - x_0))),
        "count to 1000",
    ),
    ("4.4", with_times(lambda x, g: torch.randn(len(x), generator=g, dtype=x.dtype)), "yours run from -"),
    ("4.4", with_times(lambda x, g: 2 * torch.rand(len(x), generator=g, dtype=x.dtype)), "yours run from"),
    (
        "4.4",
        with_times(lambda x, g: torch.rand(x.shape, generator=g, dtype=x.dtype)),
        "each number of a point",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1) - (x_1 - x_0))),
        "points and their times",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(t, (1 - s) * x_0 + s * x_1) - (x_1 - x_0))),
        "points first",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, s) - (x_1 - x_0))),
        r"shape \(B,\)",
    ),
    (
        "4.4",
        loss_from(
            lambda v, x_0, x_1, t, s: (v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)).square().flatten(1).sum(1)
        ),
        r"shape \(\), one number",
    ),
    ("4.4", lambda v, x_1, g: right_loss(v, x_1, g).item(), "float"),
    ("4.4", lambda v, x_1, g: right_loss(v, x_1, g).detach(), "lost its gradient"),
    ("4.4", one_time, "one time for the whole batch"),
    ("4.4", one_time_expanded, "one time for the whole batch"),
    ("4.4", only_vectors, "wrong axis|wrong axes"),
    ("4.4", no_column, r"RuntimeError|wrong axes"),
    ("4.4", point_by_point, "512 times"),
    ("4.4", global_noise, "global generator"),
    ("4.4", own_generator, "generator is ignored"),
    ("4.4", other_randomness, "drawn elsewhere"),
    ("4.4", with_noise(lambda x, g: 0 * x), "x_0 is zero"),
    (
        "4.4",
        with_noise(lambda x, g: torch.randn(1, *x.shape[1:], generator=g, dtype=x.dtype).expand_as(x)),
        "one x_0 for the whole batch",
    ),
    (
        "4.4",
        with_noise(lambda x, g: columns(torch.randn(len(x), generator=g, dtype=x.dtype), x).expand_as(x)),
        "one number of noise",
    ),
    ("4.4", with_noise(lambda x, g: torch.rand(x.shape, generator=g, dtype=x.dtype)), r"N\(0, I\)"),
    ("4.4", with_noise(lambda x, g: 2 * torch.randn(x.shape, generator=g, dtype=x.dtype)), r"N\(0, I\)"),
    ("4.4", late_times, "uniform"),
    ("4.4", lambda v, x_1, g: torch.zeros(()), "never called"),
    ("4.4", lambda v, x_1: x_1, "TypeError"),
    ("4.4", None, "function fm_loss"),
    (
        "4.5",
        lambda x, t, points: exact_velocity(x, t, points) * (1 - t[:, None]) / (1 - t[:, None] + 1e-5),
        "small number added",
    ),
    ("4.5", divides_by_t, "NaN or infinity at t = 0"),
    ("4.5", lambda x, t, points: 3 * exact_velocity(x, t, points), "yours is"),
    ("4.5", lambda x, t, points: exact_velocity(x, t, points)[:, 0], "shape"),
    ("4.5", lambda x, t: x, "TypeError"),
    ("4.5", "softmax", "function exact_velocity"),
    ("4.6", lambda a, s: a + s, "yours is"),
    ("4.6", lambda a, s: math.nan, "NaN"),
    ("4.6", lambda a, s: "much", "a number"),
    ("4.6", lambda s: s, "TypeError"),
    ("4.6", 1.5, "function floor"),
    ("4.3", lambda x, t: velocity(x, t.clamp(max=0.8)), "wrong at t = 0.95"),
    ("4.3", lambda x, t: velocity(x, t.clamp(min=1e-3)), "at t = 0 the velocity"),
    ("4.3", lambda x, t: (velocity(x, t) * (1 - t)) / (1 - t + 1e-3), "yours is"),
    ("4.3", lambda x, t: (velocity(x, t) * (1 - t)) / (1 - t + 1e-5), "small number added"),
    ("4.4", loss_from(half_detached), "a part of it is detached"),
    ("4.5", lambda x, t, points: exact_velocity(x, t, points.add_(1)), "points was modified in place"),
    ("4.6", lambda a, s: math.pi / 4 * (a * a + s * s), "yours is"),
    ("4.7", lambda points: trained(points, 20), "W2 to fresh points|nothing has been learned"),
    ("4.7", lambda points: best_gaussian(points), "W2 to fresh points is 0.3"),
    ("4.7", lambda points: trained(points, 400, lr=2e-3), "but the mean of -log p over fresh points"),
    ("4.7", lambda points: (lambda v: lambda x, t: -v(x, t))(trained(points, 200)), "fly away"),
    ("4.7", lambda points: trained(points - points.mean(0), 800), "not shifted back"),
    ("4.7", without_graph, "torch.no_grad nor detach"),
    ("4.7", with_times_for_each, "t.expand"),
    ("4.7", lambda points: lambda x, t: x[:, 0], "one velocity for each point"),
    ("4.7", lambda points: lambda x, t: x / 0 - x / 0, "NaN or infinity"),
    ("4.7", lambda points: lambda x: x, "v\\(x, t\\), called with"),
    ("4.7", lambda points: points, "function v"),
]
