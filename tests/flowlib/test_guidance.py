"""Guidance and its correctors: closed forms on mixtures, in float64, and laws of what is sampled."""

import re

import pytest
import torch
from torch import Generator, Tensor

from flowlib.conversions import convert
from flowlib.correctors import effective_sample_size, feynman_kac, resample
from flowlib.data import three_arms
from flowlib.derivatives import continuity_residual
from flowlib.guidance import (
    classifier_free,
    classifier_guided,
    drop_labels,
    extrapolate,
    guided,
    interval,
    rescaled,
    zero_init,
    zero_star,
)
from flowlib.mixtures import GaussianMixture
from flowlib.paths import cosine, linear, variance_preserving
from flowlib.solvers import DOPRI5, EULER, odeint

ARMS = three_arms()
ALL = GaussianMixture(ARMS.means.double(), ARMS.covariances.double(), ARMS.weights.double())
ARM = GaussianMixture(ALL.means[1:2], ALL.covariances[1:2])
SHARE = ALL.weights[1]
PATHS = [linear, cosine, variance_preserving()]
TIMES = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def points(n: int = 64) -> Tensor:
    return 1.5 * torch.randn(n, 2, dtype=torch.float64, generator=generator())


def log_density(law: GaussianMixture, path, x: Tensor, t: Tensor) -> Tensor:
    """log p_t(x) of alpha x_1 + sigma x_0, less a constant, at times (B,) that derivatives can follow."""
    alpha, sigma, total = path.alpha(t), path.sigma(t), []
    for mean, covariance, weight in zip(law.means, law.covariances, law.weights, strict=True):
        a, s = alpha[:, None, None], sigma[:, None, None]
        matrix = a**2 * covariance + s**2 * torch.eye(2, dtype=torch.float64)
        away = x - alpha[:, None] * mean
        far = (away[:, None] @ matrix.inverse() @ away[:, :, None]).flatten()
        total.append(weight.log() - far / 2 - matrix.logdet() / 2)
    return torch.stack(total).logsumexp(0)


def log_posterior(path):
    """log p_t(y|x) of the arm."""
    return lambda x, t: SHARE.log() + log_density(ARM, path, x, t) - log_density(ALL, path, x, t)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_perfect_classifier_makes_the_conditional_velocity_at_every_time(path):
    v = classifier_guided(ALL.marginal_velocity(path), log_posterior(path), 1.0, path=path)
    truth, x = ARM.marginal_velocity(path), points()
    for t in TIMES:
        torch.testing.assert_close(v(x, t), truth(x, t), rtol=1e-6, atol=1e-6)
    mixed = torch.rand(len(x), dtype=torch.float64, generator=generator())
    mixed[:8] = 0
    torch.testing.assert_close(v(x, mixed), truth(x, mixed), rtol=1e-6, atol=1e-6)


def test_at_pure_noise_the_classifier_says_how_far_the_mean_of_its_class_is():
    v, x = ALL.marginal_velocity(linear), points()
    led = classifier_guided(v, log_posterior(linear), 2.5)(x, 0.0) - v(x, 0.0)
    mean = (ALL.weights[:, None] * ALL.means).sum(0)
    torch.testing.assert_close(led, (2.5 * (ARM.means[0] - mean)).expand(64, 2), rtol=1e-6, atol=1e-6)


def test_a_classifier_guides_where_gradients_are_off_and_can_itself_be_differentiated():
    v = classifier_guided(ALL.marginal_velocity(linear), log_posterior(linear), 2.0)
    with torch.no_grad():
        end = odeint(v, points(8), steps=4)
    assert not end.requires_grad
    x = points(8).requires_grad_()
    v(x, 0.5).sum().backward()
    assert x.grad.isfinite().all()


class Told(torch.nn.Module):
    """The exact velocities of all three arms and of each, by label; 3 is null. It counts its calls and their rows."""

    def __init__(self) -> None:
        super().__init__()
        laws = [GaussianMixture(ALL.means[k : k + 1], ALL.covariances[k : k + 1]) for k in range(3)]
        self.fields, self.rows = [law.marginal_velocity(linear) for law in [*laws, ALL]], []

    def forward(self, x: Tensor, t: Tensor, *, label: Tensor) -> Tensor:
        self.rows.append(len(x))
        every = torch.stack([field(x, t) for field in self.fields])
        return every[label, torch.arange(len(x))]


@pytest.mark.parametrize(
    "scale", [0.0, 0.5, 3.0, torch.linspace(0, 5, 64), lambda t: 1 + t, interval(4, 0.2, 0.6)]
)
@pytest.mark.parametrize(
    "combine", [extrapolate, zero_star, rescaled(0.5)], ids=["plain", "zero", "rescaled"]
)
def test_one_batched_pass_is_two_fields(scale, combine):
    net, x = Told(), points()
    label = torch.arange(64) % 3
    both = classifier_free(net, scale, cond={"label": label}, null={"label": 3}, combine=combine)
    apart = guided(
        lambda x, t: net(x, t, label=torch.full((64,), 3)),
        lambda x, t: net(x, t, label=label),
        scale,
        combine=combine,
    )
    for t in (0.0, 0.4, 0.9, torch.rand(64, dtype=torch.float64, generator=generator())):
        net.rows.clear()
        found = both(x, t)
        assert len(net.rows) == 1
        torch.testing.assert_close(found, apart(x, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "t", "rows"), [(1.0, 0.5, 64), (2.0, 0.5, 128), (interval(3, 0.2, 0.6), 0.9, 64)]
)
def test_the_unconditional_half_is_left_out_where_it_counts_for_nothing(scale, t, rows):
    net, x = Told(), points()
    classifier_free(net, scale, cond={"label": torch.zeros(64).long()}, null={"label": 3})(x, t)
    assert net.rows == [rows]


def test_what_is_extrapolated_is_across_u_under_zero_star_and_of_the_size_of_c_when_rescaled():
    u, c = torch.randn(2, 32, 3, 8, 8, dtype=torch.float64, generator=generator())
    w = torch.tensor(4.0).double()
    across = zero_star(u, c, w) - c  # (w - 1) (c - s u), which has nothing along u
    assert (across * u).flatten(1).sum(1).abs().max() < 1e-10
    torch.testing.assert_close(zero_star(c, c, w), c)
    sizes = [x.flatten(1).std(1) for x in (rescaled(1.0)(u, c, w), c, extrapolate(u, c, w))]
    torch.testing.assert_close(sizes[0], sizes[1])
    assert (sizes[2] > 2 * sizes[1]).all()
    torch.testing.assert_close(rescaled(0.0)(u, c, w), extrapolate(u, c, w))
    for combine in (zero_star, rescaled(0.7)):
        assert combine(torch.zeros_like(u), c, w).isfinite().all()


def test_before_its_time_zero_init_stands_still():
    v = zero_init(lambda x, t: x, 0.1)
    assert torch.equal(
        v(torch.ones(3, 2), torch.tensor([0.0, 0.05, 0.1])), torch.tensor([[0.0] * 2] * 2 + [[1.0] * 2])
    )


def test_labels_are_dropped_each_for_itself():
    labels = torch.arange(10).repeat(10_000)
    dropped = drop_labels(labels, 10, 0.1, generator=generator()) == 10
    assert abs(dropped.double().mean() - 0.1) < 4 * (0.09 / 1e5) ** 0.5
    runs = dropped[:-1] & dropped[1:]  # two in a row: independent ones, .01
    assert abs(runs.double().mean() - 0.01) < 4 * (0.01 / 1e5) ** 0.5
    assert torch.equal(drop_labels(labels, 10, 0.0, generator=generator()), labels)
    assert (drop_labels(labels, 10, 1.0, generator=generator()) == 10).all()


# The tilted density


@pytest.mark.parametrize("path", [linear, cosine], ids=lambda path: path.name)
@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_the_guided_flow_misses_the_tilted_path_by_the_correctors_rate(path, w):
    u, c = ALL.marginal_velocity(path), ARM.marginal_velocity(path)
    x, t = points(), torch.full((64,), 0.6, dtype=torch.float64)

    def tilted(x: Tensor, t: Tensor) -> Tensor:  # up to a constant of each time
        return (1 - w) * log_density(ALL, path, x, t) + w * log_density(ARM, path, x, t)

    missed = continuity_residual(tilted, guided(u, c, w), x, t)
    scores = [convert(v(x, t), x, t, path, given="velocity", wanted="score") for v in (u, c)]
    rate = w * (w - 1) * ((c(x, t) - u(x, t)) * (scores[1] - scores[0])).sum(1)
    constant = missed - rate  # -d/dt log Z_t, the same at all points
    torch.testing.assert_close(constant, constant[:1].expand(64), rtol=1e-6, atol=1e-6)
    assert (rate >= 0).all() == (w * (w - 1) >= 0)


GAUSSIAN = GaussianMixture([[0.0]], [1.0])
NARROW = GaussianMixture([[1.0]], [0.25])


def tilted_gaussian(w: float) -> tuple[float, float]:
    """Mean and variance of p^(1 - w) p(.|y)^w: precisions add up, weighted."""
    precision = (1 - w) * 1 + w * 4
    return w * 4 / precision, 1 / precision


@pytest.mark.parametrize("w", [0.5, 2.0, 4.0])
def test_corrected_particles_have_the_tilted_law_and_guided_ones_have_not(w):
    u, c = GAUSSIAN.marginal_velocity(linear), NARROW.marginal_velocity(linear)
    n, (mean, variance) = 10_000, tilted_gaussian(w)
    start = torch.randn(n, 1, dtype=torch.float64, generator=generator())
    run = feynman_kac(u, c, w, start, generator=generator(1))
    x = resample(run.x, run.log_weights, generator=generator(2))
    noise = 4 * (variance / (run.effective.min() * n)) ** 0.5
    assert abs(x.mean() - mean) < noise + 0.01 * abs(mean)
    assert x.var() == pytest.approx(variance, rel=0.1)
    plain = odeint(guided(u, c, w), start, method=DOPRI5)
    assert abs(plain.var() / variance - 1) > 0.2


def test_without_a_tilt_nothing_is_weighed_and_without_noise_it_is_euler():
    u, c = GAUSSIAN.marginal_velocity(linear), NARROW.marginal_velocity(linear)
    start = torch.randn(100, 1, generator=generator())
    for w, v in ((0.0, u), (1.0, c)):
        run = feynman_kac(u, c, w, start, steps=20, noise=lambda t: 0.0, generator=generator())
        assert run.resampled == 0 and run.effective.min() == pytest.approx(1)
        torch.testing.assert_close(run.x, odeint(v, start, steps=20, method=EULER))


def test_weights_of_a_flow_without_noise_are_those_of_a_change_of_variables():
    u, c = GAUSSIAN.marginal_velocity(linear), NARROW.marginal_velocity(linear)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    run = feynman_kac(u, c, 2.0, start, steps=1000, noise=lambda t: 0.0, threshold=0.0, generator=generator())
    mean, variance = tilted_gaussian(2.0)
    # both flows are affine, so the end is affine in the start, and log q_1 - log p(end) is known
    slope = (run.x[-1] - run.x[0]) / (start[-1] - start[0])
    made = -start.square() / 2 - slope.log()
    wanted = -(run.x - mean).square() / (2 * variance)
    expected = (wanted - made).flatten()
    torch.testing.assert_close(
        run.log_weights - run.log_weights[4], expected - expected[4], rtol=8e-3, atol=8e-3
    )


def test_copies_are_as_many_as_weights_say():
    x = torch.arange(5.0)[:, None]
    weights = torch.tensor([0.05, 0.4, 0.0, 0.3, 0.25])
    counts = torch.zeros(5)
    for seed in range(400):
        drawn = resample(x, weights.log(), generator=generator(seed)).flatten().long()
        once = torch.bincount(drawn, minlength=5)
        assert ((once - 5 * weights).abs() < 1).all()
        counts += once
    torch.testing.assert_close(counts / 2000, weights, atol=0.02, rtol=0)
    assert effective_sample_size(weights.log()) == pytest.approx(1 / weights.square().sum().item())


X = torch.zeros(4, 2)
FIELD = ALL.marginal_velocity(linear)


def told(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier_free(told, 2.0, cond={"label": X}, null={"labels": 0}), "the same names"),
        (lambda: classifier_free(told, 2.0, cond={}, null={}), "got [] and []"),
        (
            lambda: classifier_free(told, 2.0, cond={"label": torch.zeros(3)}, null={"label": 0})(X, 0.5),
            "a row for each of the 4 points, got (3,)",
        ),
        (lambda: classifier_free(told, 2.0, cond={"label": 3}, null={"label": 0})(X, 0.5), "a row for each"),
        (lambda: guided(FIELD, FIELD, torch.ones(3))(X, 0.5), "one time for each of the 4 points"),
        (lambda: classifier_guided(FIELD, lambda x, t: x, 1.0)(X, 0.5), "log_prob(x, t)"),
        (lambda: interval(2.0, 0.6, 0.4), "0 <= low < high <= 1"),
        (lambda: rescaled(1.5), "share must be in [0, 1]"),
        (lambda: zero_init(FIELD, 1.0), "until must be in [0, 1)"),
        (lambda: drop_labels(torch.zeros(3).long(), 3, 1.5), "probability must be in [0, 1]"),
        (lambda: drop_labels(torch.zeros(3), 3), "labels"),
        (lambda: feynman_kac(FIELD, FIELD, 2.0, X, steps=0), "steps"),
        (lambda: feynman_kac(FIELD, FIELD, 2.0, X, threshold=2.0), "threshold must be in [0, 1]"),
        (
            lambda: feynman_kac(
                FIELD,
                ARM.marginal_velocity(linear),
                30.0,
                torch.randn(1000, 2, generator=generator()),
                steps=8,
                generator=generator(),
            ),
            "take more steps",
        ),
        (lambda: resample(X, torch.zeros(3)), "log_weights"),
    ],
)
def test_what_cannot_be_guided_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make()


def test_the_noise_is_what_the_steps_can_bear_where_data_has_no_spread():
    """All data in one point: the last steps must not blow up, at any number of steps (with e^2 / 2 = 8 b_t they do)."""
    field = GaussianMixture([[1.0, -1.0]], [1e-12]).marginal_velocity(linear)
    for steps, spread in ((50, 0.05), (400, 0.01)):
        noise = torch.randn(500, 2, generator=generator(31))
        run = feynman_kac(field, field, 1.0, noise, steps=steps, generator=generator(32))
        assert run.x.std(0).max() < spread
        torch.testing.assert_close(run.x.mean(0), torch.tensor([1.0, -1.0]), atol=0.01, rtol=0)


def test_a_small_crowd_of_which_one_is_left_is_refused():
    near, far = (
        GaussianMixture([[2 * k, 0.0]], [v]).marginal_velocity(linear) for k, v in ((0, 1.0), (1, 0.01))
    )
    with pytest.raises(ValueError, match="lost their weight"):
        feynman_kac(
            near, far, 8.0, torch.randn(20, 2, generator=generator(33)), steps=8, generator=generator(34)
        )


def test_equal_weights_keep_every_particle_at_any_offset(monkeypatch):
    x = torch.arange(8.0)[:, None]
    for offset in (0.0, 0.5, 1 - 1e-7):
        monkeypatch.setattr(torch, "rand", lambda *a, offset=offset, **k: torch.tensor(offset))
        assert torch.equal(resample(x, torch.zeros(8)), x)
        heavy = resample(x, torch.tensor([-1e9, *[0.0] * 7]))
        assert 0.0 not in heavy
