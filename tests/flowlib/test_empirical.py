"""Finite data: the field of perfect training, held against nearly-atomic mixtures, Monte Carlo and its own density."""

import math

import pytest
import torch

from flowlib.data import Empirical, GaussianMixture, eight_gaussians
from flowlib.derivatives import continuity_residual
from flowlib.matching import cfm_loss
from flowlib.paths import conical, cosine, linear, variance_preserving
from flowlib.solvers import DOPRI5, odeint

DOUBLE = torch.float64
PATHS = [linear, cosine, conical(0.1), variance_preserving()]
SOURCES = [None, eight_gaussians("tutorial")]
TIMES = [0.0, 0.3, 0.8, 0.99]


def seeded(n=0):
    return torch.Generator().manual_seed(n)


Y = torch.randn(7, 2, generator=seeded(), dtype=DOUBLE)
X = torch.randn(40, 2, generator=seeded(1), dtype=DOUBLE)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("source", SOURCES, ids=["noise", "mixture"])
@pytest.mark.parametrize("t", TIMES)
def test_it_is_the_limit_of_a_mixture_of_ever_narrower_components(path, source, t):
    v = Empirical(Y).marginal_velocity(path, source)
    narrow = GaussianMixture(Y, torch.full((7,), 1e-14, dtype=DOUBLE)).marginal_velocity(path, source)
    torch.testing.assert_close(v(X, t), narrow(X, t), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(v.log_prob(X, t), narrow.log_prob(X, t), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(v.score(X, t), narrow.score(X, t), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("source", SOURCES, ids=["noise", "mixture"])
def test_the_field_generates_its_density_whose_gradient_is_the_score(path, source):
    v = Empirical(Y).marginal_velocity(path, source)
    assert continuity_residual(v.log_prob, v, X, 0.6).abs().max() < 1e-9
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(v.log_prob(x, 0.6).sum(), x)
    torch.testing.assert_close(v.score(X, 0.6), gradient, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_the_conditional_mean_by_monte_carlo():
    n, t, width = 400_000, 0.5, 0.05
    g = seeded(2)
    x_1 = Empirical(Y).sample(n, generator=g)
    x_0 = torch.randn(n, 2, generator=g, dtype=DOUBLE)
    x_t, u_t = linear.sample(x_0, x_1, t)
    v = Empirical(Y).marginal_velocity(linear)
    for center in (torch.zeros(2), torch.tensor([0.5, -0.4])):
        near = (x_t - center).norm(dim=1) < width
        sample = u_t[near] - v(x_t[near], t)  # its mean is zero, whatever the law of x_t inside the disk
        error = sample.std(0) / math.sqrt(int(near.sum()))
        assert int(near.sum()) > 300
        assert (sample.mean(0).abs() < 4 * error).all()


def test_it_is_a_stationary_point_of_the_loss_on_its_data():
    law = Empirical(Y)
    v = law.marginal_velocity(linear)
    x_1 = law.sample(200_000, generator=seeded(3))

    def loss(scale):
        times = lambda n, **kw: 0.95 * torch.rand(n, **kw)  # noqa: E731
        return cfm_loss(lambda x, t: scale * v(x, t), x_1, times=times, generator=seeded(4))

    # E L(1 + e) = L(1) + e^2 E|v|^2 / d: the slope at 1 is zero within its standard error, about 2 / sqrt(n d)
    assert abs(float(loss(1.01) - loss(0.99)) / 0.02) < 0.03
    assert loss(1.2) > loss(1.0) + 0.01


def test_its_flow_ends_in_the_data():
    v = Empirical(Y).marginal_velocity(linear)
    x = odeint(v, torch.randn(200, 2, generator=seeded(5), dtype=DOUBLE), t1=1 - 1e-4, method=DOPRI5)
    distances = torch.cdist(x, Y).min(1).values
    assert distances.max() < 1e-3  # sigma is 1e-4 there
    assert len(torch.cdist(x, Y).argmin(1).unique()) == len(Y)


def test_images_have_the_field_of_their_pixels():
    images, x = torch.rand(5, 1, 4, 4, generator=seeded()), torch.randn(3, 1, 4, 4, generator=seeded(1))
    t = torch.tensor([0.0, 0.5, 0.9])
    square, flat = Empirical(images), Empirical(images.flatten(1))
    v, w = square.marginal_velocity(linear), flat.marginal_velocity(linear)
    assert square.sample(2, generator=seeded()).shape == (2, 1, 4, 4)
    torch.testing.assert_close(v(x, t), w(x.flatten(1), t).reshape(x.shape))
    torch.testing.assert_close(v.score(x, t), w.score(x.flatten(1), t).reshape(x.shape))
    torch.testing.assert_close(v.log_prob(x, t), w.log_prob(x.flatten(1), t))
    for i in range(3):  # each point has its own time
        torch.testing.assert_close(v(x, t)[i], v(x[i : i + 1], float(t[i]))[0])


def test_single_precision_keeps_its_digits_near_the_data():
    v = Empirical(Y).marginal_velocity(linear)
    x = Y + 1e-3 * torch.randn(7, 2, generator=seeded(6), dtype=DOUBLE)
    t = 0.999
    torch.testing.assert_close(v.weights(x.float(), t), v.weights(x, t).float(), atol=1e-3, rtol=0)
    assert v(x.float(), t).dtype == torch.float32


def test_at_the_start_the_field_points_to_the_mean_and_weights_are_equal():
    v = Empirical(Y).marginal_velocity(linear)
    torch.testing.assert_close(v(X, 0.0), Y.mean(0) - X)
    torch.testing.assert_close(v.weights(X, 0.0), torch.full((40, 7), 1 / 7, dtype=DOUBLE))
    torch.testing.assert_close(v.weights(X, 0.7).sum(1), torch.ones(40, dtype=DOUBLE))


@pytest.mark.parametrize("method", ["__call__", "data", "weights", "log_prob", "score"])
def test_where_there_is_no_density_every_method_says_so(method):
    v = Empirical(Y).marginal_velocity(linear)
    with pytest.raises(ValueError, match="sigma = 0"):
        getattr(v, method)(X, 1.0)
    with pytest.raises(ValueError, match="sigma = 0"):
        getattr(v, method)(X, torch.linspace(0, 1, 40))


@pytest.mark.parametrize(
    ("points", "error", "match"),
    [
        (torch.zeros(3), ValueError, r"\(n, \*D\), got \(3,\)"),
        (torch.zeros(0, 2), ValueError, r"got \(0, 2\)"),
        (torch.tensor([[math.nan]]), ValueError, "finite"),
        (torch.zeros(3, 2).half(), TypeError, "float16"),
        (torch.zeros(3, 2).long(), TypeError, "int64"),
    ],
)
def test_bad_data_are_refused(points, error, match):
    with pytest.raises(error, match=match):
        Empirical(points)


def test_unfit_points_and_sources_are_refused():
    law = Empirical(Y)
    with pytest.raises(ValueError, match=r"\(B, 2\), got \(4, 3\)"):
        law.marginal_velocity(linear)(torch.zeros(4, 3), 0.5)
    with pytest.raises(TypeError, match="float16"):
        law.marginal_velocity(linear).weights(torch.zeros(4, 2).half(), 0.5)
    with pytest.raises(ValueError, match=r"dimension, got 1 and \(2,\)"):
        law.marginal_velocity(linear, GaussianMixture([[0.0]], [1.0]))
    assert "n=7" in repr(law)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees():
    v, w = (Empirical(Y.to(device)).marginal_velocity(linear) for device in ("cpu", "cuda"))
    torch.testing.assert_close(v(X, 0.6), w(X.cuda(), 0.6).cpu())
    torch.testing.assert_close(v.score(X, 0.6), w.score(X.cuda(), 0.6).cpu())
