"""Finite data: the field of perfect training, held against nearly-atomic mixtures, Monte Carlo and its own density."""

import copy
import math
import pickle

import mpmath
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flowlib.data import Empirical, GaussianMixture, eight_gaussians
from flowlib.derivatives import continuity_residual
from flowlib.empirical import _Place
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


@pytest.mark.parametrize("path", PATHS[:2] + PATHS[3:], ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("method", ["__call__", "data", "weights", "log_prob", "score"])
def test_no_noise_means_no_density_in_any_dtype(path, dtype, method):
    v = Empirical(Y.to(dtype)).marginal_velocity(path)
    for t in (1, 1.0, torch.tensor(1.0), torch.ones(40)):
        with pytest.raises(ValueError, match="sigma = 0"):
            getattr(v, method)(X.to(dtype), t)
    assert getattr(v, method)(X[:0].to(dtype), torch.ones(0)).shape[0] == 0


def exactly(points: Tensor, x: Tensor, t: float) -> dict[str, list[float]]:
    """All that the field of the linear path says at one point, with 60 digits."""
    with mpmath.workdps(60):
        alpha, sigma = mpmath.mpf(t), 1 - mpmath.mpf(t)
        rows, x = (
            [[mpmath.mpf(c) for c in row] for row in part.double().tolist()] for part in (points, x[None])
        )
        x = x[0]
        square = [sum((a - alpha * b) ** 2 for a, b in zip(x, y, strict=True)) for y in rows]
        least = min(square)
        w = [mpmath.exp((least - s) / (2 * sigma**2)) for s in square]
        total = sum(w)
        E_1 = [sum(a * y[k] for a, y in zip(w, rows, strict=True)) / total for k in range(len(x))]
        E_0 = [(a - alpha * e) / sigma for a, e in zip(x, E_1, strict=True)]
        log_prob = mpmath.log(total / len(rows)) - least / (2 * sigma**2)
        log_prob -= len(x) * mpmath.log(2 * mpmath.pi * sigma**2) / 2
        return {
            "__call__": [float(a - b) for a, b in zip(E_1, E_0, strict=True)],
            "data": [float(e) for e in E_1],
            "weights": [float(a / total) for a in w],
            "log_prob": float(log_prob),
            "score": [float(-e / sigma) for e in E_0],
        }


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7])
@pytest.mark.parametrize("sigma", [0.5, 1e-2, 2**-20, 2**-27])
@pytest.mark.parametrize("given", ["number", "times"])
def test_digits_stay_near_the_data_and_far_from_the_origin(offset, sigma, given):
    """Two of the data share each posterior: they lie a few sigma apart."""
    t, y = 1 - sigma, torch.cat([Y, Y.mean(0, keepdim=True)]) + offset  # one is in the very middle
    y = torch.cat([y, y + sigma * torch.tensor([1.0, -0.5])])
    x = t * y[:5] + sigma * torch.randn(5, 2, generator=seeded(3), dtype=DOUBLE)
    v = Empirical(y).marginal_velocity(linear)
    rounding = offset * 1e-16 / sigma + 1e-16 / sigma  # of x itself, in units of the noise
    for method in ("__call__", "data", "weights", "log_prob", "score"):
        found = getattr(v, method)(x, t if given == "number" else torch.full((5,), t, dtype=DOUBLE))
        expected = torch.tensor([exactly(y, row, t)[method] for row in x], dtype=DOUBLE)
        scale = 1 / sigma if method == "score" else 1.0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=scale * (20 * rounding + 1e-9))


def test_a_time_in_float64_is_not_rounded_to_the_dtype_of_the_points():
    v = Empirical(Y).marginal_velocity(linear)
    t = 1 - 1e-9  # which float32 rounds to 1
    x = Y[:3].float()
    expected = torch.tensor([exactly(Y, row, t)["__call__"] for row in x])
    torch.testing.assert_close(v(x, t), expected, rtol=1e-4, atol=0)


def test_an_outlier_does_not_cost_the_others_their_digits():
    y = torch.cat([Y, torch.full((1, 2), 1e7, dtype=DOUBLE)])
    v, w = (Empirical(z).marginal_velocity(linear) for z in (y, Y))
    torch.testing.assert_close(v(X, 0.9), w(X, 0.9), rtol=1e-7, atol=1e-7)


# Values that stay, and values that are learned


@pytest.mark.parametrize("source", SOURCES, ids=["noise", "mixture"])
def test_a_law_does_not_follow_what_it_was_made_from(source):
    points = Y.clone()
    law = Empirical(points)
    v = law.marginal_velocity(linear, source)
    before, drawn = v(X, 0.5), law.sample(5, generator=seeded())
    points += 1
    law.points[0] = 100.0
    with pytest.raises(AttributeError):
        law.points += 1
    for field in (v, law.marginal_velocity(linear, source), copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        assert torch.equal(field(X, 0.5), before)
        assert torch.equal(field.law.sample(5, generator=seeded()), drawn)


def test_points_that_require_grad_are_followed():
    points = Y.clone().requires_grad_()
    v = Empirical(points).marginal_velocity(linear)
    for _ in range(2):
        v(X, 0.5).square().sum().backward()
    with torch.no_grad():
        points += 1
    torch.testing.assert_close(v(X, 0.5), Empirical(Y + 1).marginal_velocity(linear)(X, 0.5))
    with torch.random.fork_rng():
        field = lambda y: Empirical(y).marginal_velocity(linear)(X[:3], 0.5)  # noqa: E731
        assert torch.autograd.gradcheck(field, points)


def test_a_law_made_without_gradients_can_be_differentiated_through():
    with torch.inference_mode():
        v = Empirical(Y.clone()).marginal_velocity(linear)
    x = X.clone().requires_grad_()
    v(x, 0.5).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("source", SOURCES, ids=["noise", "mixture"])
def test_no_field_and_no_sampler_waits_for_a_gpu(source):
    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            assert op is not torch.ops.aten._local_scalar_dense.default
            return op(*args, **(kwargs or {}))

    law, x, t = Empirical(Y), torch.zeros(5, 2, device="meta"), torch.zeros(5, device="meta")
    with NoReads():
        v = law.marginal_velocity(linear, source)
        for method in (v, v.data, v.score):
            assert (method(x, t).device.type, method(x, t).shape) == ("meta", (5, 2))
        assert v.weights(x, t).shape == (5, 7)
        assert v.log_prob(x, t).shape == (5,)
        assert law.sample(3, device="meta").shape == (3, 2)
    assert v(x, 0.5).device.type == "meta"


def test_times_that_are_not_read_give_nan_where_there_is_no_density(monkeypatch):
    """Those on a GPU, here a tensor that says it is elsewhere."""

    class Remote(Tensor):
        @property
        def device(self):
            return torch.device("meta")

    t = torch.ones(40, dtype=DOUBLE).as_subclass(Remote)
    v = Empirical(Y).marginal_velocity(linear)
    place = lambda t: _Place(v, X, t)  # noqa: E731
    assert place(t).least == 0.0
    assert place(torch.zeros(40)).least == 1.0
    assert v.law._radius > 0
    for method in (v, v.data, v.weights, v.log_prob, v.score):
        assert Tensor(method(X, t).as_subclass(Tensor)).isnan().all()


def test_images_keep_their_digits_near_the_data():
    """Differences are taken a few axes at a time: 40 of them are three lots."""
    images = torch.rand(5, 1, 8, 5, generator=seeded(), dtype=DOUBLE)
    v, t = Empirical(images).marginal_velocity(linear), 1 - 1e-5
    x = t * images + 1e-5 * torch.randn(images.shape, generator=seeded(1), dtype=DOUBLE)
    for i in range(2):
        expected = exactly(images.flatten(1), x[i].flatten(), t)
        assert v.log_prob(x, t)[i] == pytest.approx(expected["log_prob"], rel=1e-9)
        torch.testing.assert_close(
            v(x, t)[i].flatten(), torch.tensor(expected["__call__"], dtype=DOUBLE), rtol=1e-8, atol=1e-8
        )


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
