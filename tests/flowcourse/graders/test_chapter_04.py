"""Chapter 4: right answers pass, and every known mistake is named."""

import math
import re

import pytest
import torch

from flowcourse import GradeError, check
from flowcourse.exercises import find
from flowlib.data import Empirical
from flowlib.matching import cfm_loss
from flowlib.paths import linear
from flowlib.solvers import RK4, odeint

# Right answers


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


RIGHT = [
    ("4.1", "c"),
    ("4.2", "c"),
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
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_right_answers_pass(number, answer, capsys):
    before = torch.get_rng_state()
    check(number, answer)
    assert torch.equal(before, torch.get_rng_state())
    out = capsys.readouterr().out
    assert out.startswith(f"✓ {number} ")
    assert len(out) > 60


# Wrong answers, each with words that its diagnosis must hold


def coin(mean):
    return lambda x, t: (mean(x, t) - x) / (1 - t)


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


def finite(log_weights=None, weights=None):
    def wrong(x, t, points):
        t = t[:, None]
        apart = (x[:, None] - t[..., None] * points).square().sum(2)
        w = log_weights(apart, t).softmax(1) if log_weights else weights(apart, t)
        return (w @ points - x) / (1 - t)

    return wrong


def clamped(x, t, points):
    return exact_velocity(x, t.clamp(max=0.99), points)


def rounded(x, t, points):
    return exact_velocity(x.float(), t.float(), points.float()).double()


def divides_by_t(x, t, points):  # v = (x - E[x_0|x]) / t
    e_1 = x + (1 - t[:, None]) * exact_velocity(x, t, points)
    e_0 = (x - t[:, None] * e_1) / (1 - t[:, None])
    return (x - e_0) / t[:, None]


WRONG = [
    ("4.1", "a", "floor plus the squared field error"),
    ("4.1", "b", "no network removes it"),
    ("4.1", "d", "same plateau"),
    ("4.1", "z", "one letter"),
    ("4.2", "a", "never shown that law"),
    ("4.2", "b", "single Euler step"),
    ("4.2", "d", "exactly"),
    # 4.3
    ("4.3", lambda x, t: torch.tanh(t * x / (1 - t) ** 2), "a place"),
    ("4.3", lambda x, t: torch.tanh(t * x / (1 - t) ** 2) - x, "time left is missing"),
    ("4.3", lambda x, t: torch.tanh(t * x / (1 - t) ** 2) - x / (1 - t), "the whole way"),
    ("4.3", lambda x, t: torch.tanh(t * x / (1 - t) ** 2) / (1 - t) - x, "the whole way"),
    ("4.3", coin(lambda x, t: torch.tanh(t * x / (1 - t))), "not 1 - t"),
    ("4.3", coin(lambda x, t: torch.tanh(x / (1 - t) ** 2)), "not at ±1"),
    ("4.3", coin(lambda x, t: torch.tanh(t * x)), "noise shrinks"),
    ("4.3", coin(lambda x, t: torch.tanh(2 * t * x / (1 - t) ** 2)), "half of them"),
    ("4.3", coin(lambda x, t: torch.tanh(t * x / 2 / (1 - t) ** 2)), "exponent"),
    ("4.3", coin(lambda x, t: torch.sigmoid(2 * t * x / (1 - t) ** 2)), "probability of"),
    ("4.3", coin(lambda x, t: x.sign()), "likelier"),
    ("4.3", coin(lambda x, t: 0 * x), "arrows of t = 0"),
    ("4.3", lambda x, t: x.sign() - x, "likelier"),
    ("4.3", lambda x, t: -x, "arrows of t = 0"),
    ("4.3", lambda x, t: 0 * x, "over everybody"),
    ("4.3", lambda x, t: (1 + t) * torch.tanh(t * x / (1 - t) ** 2) - x, "for x₀"),
    ("4.3", lambda x, t: -velocity(x, t), "x₀ - x₁"),
    ("4.3", lambda x, t: 2 * velocity(x, t), "yours is"),
    ("4.3", lambda x, t: velocity(x, t).sum(), r"shape \(5,\)"),
    ("4.3", lambda x, t: velocity(x, t).float(), "float64"),
    ("4.3", lambda x, t: (1 / torch.tanh(x / t) - x) / (1 - t), "yours is"),
    ("4.3", lambda x: x, "TypeError"),
    ("4.3", 0.5, "function velocity"),
    # 4.4
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) + x_1 - x_0)),
        "runs backwards",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v(s * x_0 + (1 - s) * x_1, t) - (x_0 - x_1))),
        "t = 0 is noise",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) - x_1)),
        "x_1 alone is a place",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) - x_0)),
        "the noise x_0",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) - (1 - s) * (x_1 - x_0))),
        "the way that is left",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t) - s * (x_1 - x_0))),
        "t times it",
    ),
    ("4.4", loss_from(lambda v, x_0, x_1, t, s: square(v((1 - s) * x_0 + s * x_1, t))), "target is missing"),
    ("4.4", lambda v, x_1, g: cfm_loss(v, x_1, generator=g), "sum over the 3 dimensions"),
    ("4.4", lambda v, x_1, g: len(x_1) * right_loss(v, x_1, g), "this is the sum"),
    ("4.4", lambda v, x_1, g: right_loss(v, x_1, g).sqrt(), "root"),
    ("4.4", lambda v, x_1, g: right_loss(v, x_1, g) / 2, "factor 1/2"),
    (
        "4.4",
        loss_from(
            lambda v, x_0, x_1, t, s: (
                (v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)).flatten(1).norm(dim=1).mean()
            )
        ),
        "median",
    ),
    (
        "4.4",
        loss_from(
            lambda v, x_0, x_1, t, s: (
                (v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)).abs().flatten(1).sum(1).mean()
            )
        ),
        "median",
    ),
    (
        "4.4",
        loss_from(lambda v, x_0, x_1, t, s: (v((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)).abs().mean()),
        "absolute value, averaged",
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
    # 4.5
    (
        "4.5",
        lambda x, t, points: x + (1 - t[:, None]) * exact_velocity(x, t, points),
        "a place",
    ),
    (
        "4.5",
        lambda x, t, points: (1 - t[:, None]) * exact_velocity(x, t, points),
        r"1 / \(1 - t\) is missing",
    ),
    ("4.5", lambda x, t, points: -exact_velocity(x, t, points), "runs backwards"),
    ("4.5", finite(lambda q, t: -q / (2 * (1 - t))), "not 1 - t"),
    ("4.5", finite(lambda q, t: -q / (1 - t) ** 2), "has a 1/2"),
    ("4.5", finite(lambda q, t: -q / 2), "weights sharpen"),
    ("4.5", finite(lambda q, t: -q.sqrt() / (2 * (1 - t) ** 2)), "squared"),
    ("4.5", finite(lambda q, t: q / (2 * (1 - t) ** 2)), "near points must weigh more"),
    ("4.5", finite(lambda q, t: 0 * q), "equal weights"),
    ("4.5", finite(weights=lambda q, t: (-q / (2 * (1 - t) ** 2)).exp()), "divided by their sum"),
    ("4.5", finite(weights=lambda q, t: (-q / (2 * (1 - t) ** 2)).softmax(0)), "wrong axis"),
    (
        "4.5",
        finite(weights=lambda q, t: torch.nn.functional.one_hot(q.argmin(1), q.shape[1]).to(q)),
        "likeliest point alone",
    ),
    (
        "4.5",
        lambda x, t, points: (
            ((-torch.cdist(x, points).square() / (2 * (1 - t[:, None]) ** 2)).softmax(1) @ points - x)
            / (1 - t[:, None])
        ),
        "centered at t yᵢ",
    ),
    (
        "4.5",
        finite(
            weights=lambda q, t: (
                (-q / (2 * (1 - t) ** 2)).exp() / (-q / (2 * (1 - t) ** 2)).exp().sum(1, keepdim=True)
            )
        ),
        "0 / 0 is NaN",
    ),
    (
        "4.5",
        finite(
            weights=lambda q, t: (
                (-q / (2 * (1 - t) ** 2)).exp()
                / ((-q / (2 * (1 - t) ** 2)).exp().sum(1, keepdim=True) + 1e-12)
            )
        ),
        "outweighs",
    ),
    (
        "4.5",
        lambda x, t, points: exact_velocity(x, t, points) * (1 - t[:, None]) / (1 - t[:, None] + 1e-5),
        "small number added",
    ),
    ("4.5", divides_by_t, "NaN or infinity at t = 0"),
    ("4.5", clamped, "clamped"),
    ("4.5", rounded, "rounded"),
    ("4.5", lambda x, t, points: 3 * exact_velocity(x, t, points), "yours is"),
    ("4.5", lambda x, t, points: exact_velocity(x, t, points)[:, 0], "shape"),
    ("4.5", lambda x, t: x, "TypeError"),
    ("4.5", "softmax", "function exact_velocity"),
    # 4.6
    ("4.6", lambda a, s: math.pi / 2 * s, "answer for a = 1"),
    ("4.6", lambda a, s: math.pi / 2 * (a * s) ** 2, "not variances"),
    ("4.6", lambda a, s: a**2 + s**2, "nobody knows before looking"),
    ("4.6", lambda a, s: 4 * (a * s) ** 2 / (a**2 + s**2), "integrand at t = 1/2"),
    ("4.6", lambda a, s: math.pi * a * s, "arctan gains π/2"),
    ("4.6", lambda a, s: math.pi / 4 * a * s, "not π/4"),
    ("4.6", lambda a, s: a * s, "is π/2, not 1"),
    ("4.6", lambda a, s: 0.0, "no field has loss 0"),
    ("4.6", lambda a, s: math.sqrt(math.pi / 2 * a * s), "root of the floor"),
    ("4.6", lambda a, s: math.pi / 2 * s / a, "not a / s"),
    ("4.6", lambda a, s: math.pi / 2 * s * a**2, "missing from Var xₜ"),
    ("4.6", lambda a, s: a + s, "yours is"),
    ("4.6", lambda a, s: math.nan, "nan"),
    ("4.6", lambda a, s: "much", "a number"),
    ("4.6", lambda s: s, "TypeError"),
    ("4.6", 1.5, "function floor"),
]


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    WRONG,
    ids=[f"{i} {number} {words}" for i, (number, _, words) in enumerate(WRONG)],
)
def test_wrong_answers_are_diagnosed(number, answer, words):
    before = torch.get_rng_state()
    with pytest.raises(GradeError, match=words) as caught:
        check(number, answer)
    assert torch.equal(before, torch.get_rng_state())  # even those who draw from it
    assert len(str(caught.value)) > 25


@pytest.mark.parametrize("number", [f"4.{k}" for k in range(1, 7)])
def test_three_different_hints_without_tex(number):
    assert len(set(find(number).hints)) == 3
    assert not re.search(r"\\[a-z]|\$", " ".join(find(number).hints))


# The mathematics that the chapter states


def test_the_graders_field_carries_noise_to_the_points():
    """The right answer of 4.5, integrated, ends in the data: each point gets its share within 5 standard errors."""
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = odeint(
        lambda x, t: exact_velocity(x, t.expand(len(x)), points), noise, t1=0.99, steps=100, method=RK4
    )
    distance, which = torch.cdist(ends, points).min(1)
    assert distance.median() < 0.05
    shares = torch.bincount(which, minlength=3) / 2000
    assert ((shares - 1 / 3).abs() < 5 * (2 / 9 / 2000) ** 0.5).all()


@pytest.mark.parametrize(("a", "s"), [(1.0, 1.0), (0.5, 1.7), (3.0, 0.2)])
def test_the_floor_between_gaussians_is_the_loss_of_the_exact_field(a, s):
    """pi a s / 2 against a midpoint rule for the integral of a^2 s^2 / Sigma, and against samples."""
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert math.isclose(
        (a**2 * s**2 / (t**2 * s**2 + (1 - t) ** 2 * a**2)).mean(), math.pi * a * s / 2, rel_tol=1e-6
    )
    x_0, x_1 = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x_0, x_1 = a * x_0, s * x_1
    x_t, u = (1 - t) * x_0 + t * x_1, x_1 - x_0
    v = (t * s**2 - (1 - t) * a**2) / (t**2 * s**2 + (1 - t) ** 2 * a**2) * x_t
    loss = (v - u).square()
    assert abs(loss.mean() - math.pi * a * s / 2) < 5 * loss.std() / 100_000**0.5
