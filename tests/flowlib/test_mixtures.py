"""Gaussian mixtures: density, score and marginal velocity against independent truths."""

import copy
import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from flowlib import mixtures
from flowlib.derivatives import divergence
from flowlib.mixtures import GaussianMixture, MarginalVelocity
from flowlib.paths import AffinePath, conical, cosine, linear
from flowlib.solvers import RK4, odeint

D = 3  # in two dimensions an orthogonal matrix of eigenvectors is symmetric, and hides a lost transpose


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(
    kind: str, d: int = D, K: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
) -> GaussianMixture:
    """A mixture with unequal weights, whose covariances are `round`, `axes` or `full`."""
    g = generator(seed)
    means = 1.5 * torch.randn(K, d, generator=g, dtype=torch.float64)
    root = torch.randn(K, d, d, generator=g, dtype=torch.float64) / math.sqrt(d)
    full = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    covariances = {"round": full[:, 0, 0], "axes": full.diagonal(dim1=1, dim2=2), "full": full}[kind]
    weights = torch.arange(1, K + 1, dtype=torch.float64) / (K * (K + 1) / 2)
    return GaussianMixture(means.to(dtype), covariances, weights)


MIXTURES = {kind: mixture(kind) for kind in ("round", "axes", "full")}
NOISE = GaussianMixture(torch.zeros(1, D, dtype=torch.float64), [1.0])
SOURCES = {"noise": None, "round": mixture("round", K=2, seed=5), "full": mixture("full", K=2, seed=5)}
PATHS = {"linear": linear, "cosine": cosine, "conical": conical(0.1)}
each_kind = pytest.mark.parametrize("kind", MIXTURES)
each_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def as_matrices(p: GaussianMixture) -> Tensor:
    K, d = p.means.shape
    return (
        p.covariances
        if p.covariances.ndim == 3
        else torch.diag_embed(p.covariances.reshape(K, -1).expand(K, d))
    )


def moments(p: GaussianMixture) -> tuple[Tensor, Tensor]:
    mean = p.weights @ p.means
    offset = p.means - mean
    second = as_matrices(p) + offset[:, :, None] * offset[:, None]
    return mean, (p.weights[:, None, None] * second).sum(0)


# Density and score


@each_kind
@pytest.mark.parametrize("d", [1, 2, 7])
def test_log_prob_is_that_of_torch_distributions(kind: str, d: int):
    p = mixture(kind, d)
    components = torch.distributions.MultivariateNormal(p.means, as_matrices(p))
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(p.weights), components)
    x = 3 * torch.randn(50, d, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(x), reference.log_prob(x), rtol=1e-12, atol=1e-12)


@each_kind
def test_score_is_the_gradient_of_log_prob(kind: str):
    p, x = MIXTURES[kind], 3 * torch.randn(50, D, generator=generator(), dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(p.log_prob(x).sum(), x)
    torch.testing.assert_close(p.score(x), gradient, rtol=1e-12, atol=1e-12)


def test_far_away_densities_underflow_to_nothing_but_their_logarithms_do_not():
    p = GaussianMixture([[0.0, 0.0], [1.0, 0.0]], [0.01, 0.01])
    x = torch.tensor([[100.0, 0.0]])
    assert p.log_prob(x) == pytest.approx(
        -(99**2) / 0.02 - math.log(2 * math.pi * 0.01) - math.log(2), rel=1e-6
    )
    torch.testing.assert_close(p.score(x), torch.tensor([[-9900.0, 0.0]]))


# Samples


@each_kind
def test_samples_have_the_law(kind: str):
    p, n = MIXTURES[kind], 100_000
    x, labels = p.sample_labeled(n, generator=generator(1))
    counts = labels.bincount(minlength=3) / n
    assert ((counts - p.weights).abs() < 5 * (p.weights * (1 - p.weights) / n).sqrt()).all()
    for k in range(3):
        mine = x[labels == k] - p.means[k]
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(as_matrices(p)[k]), mine.T, upper=False)
        # means of m independent values of variance 1, and products of variance at most 2
        assert white.mean(1).abs().max() < 5 / math.sqrt(len(mine))
        assert (white @ white.T / len(mine) - torch.eye(D)).abs().max() < 5 * math.sqrt(2 / len(mine))


def test_balanced_samples_hold_the_exact_number_of_each_component_in_random_order():
    p = GaussianMixture(torch.eye(3), [0.1] * 3, [0.5, 0.3, 0.2])
    x, labels = p.sample_labeled(1000, balanced=True, generator=generator())
    assert labels.bincount().tolist() == [500, 300, 200]
    assert (labels[:500] == 0).sum() == pytest.approx(250, abs=5 * 250**0.5)
    assert ((x - p.means[labels]).std(0) / 0.1**0.5 - 1).abs().max() < 5 / math.sqrt(2000)


def test_balanced_refuses_fractions_of_points():
    p = GaussianMixture(torch.eye(8), [0.1] * 8)
    p.sample(800, balanced=True, generator=generator())
    with pytest.raises(ValueError, match="n = 1001"):
        p.sample(1001, balanced=True)


def test_samples_come_from_the_generator_alone():
    p, state = MIXTURES["full"], torch.get_rng_state()
    first, second = (p.sample(20, generator=generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert p.sample(0, generator=generator()).shape == (0, D)
    with pytest.raises(ValueError, match="n = -1"):
        p.sample(-1)


# The marginal law


@each_path
@each_source
@each_kind
def test_marginals_have_the_moments_of_a_sum_of_independent_variables(
    kind: str, source: GaussianMixture | None, path: AffinePath
):
    p, t = MIXTURES[kind], torch.tensor(0.3, dtype=torch.float64)
    mean_1, covariance_1 = moments(p)
    mean_0, covariance_0 = moments(source or NOISE)
    mean, covariance = moments(p.marginal(path, 0.3, source))
    torch.testing.assert_close(mean, path.alpha(t) * mean_1 + path.sigma(t) * mean_0, rtol=1e-12, atol=1e-12)
    expected = path.alpha(t) ** 2 * covariance_1 + path.sigma(t) ** 2 * covariance_0
    torch.testing.assert_close(covariance, expected, rtol=1e-12, atol=1e-12)


@each_source
@each_kind
def test_marginals_at_the_ends_are_source_and_target(kind: str, source: GaussianMixture | None):
    p, x = MIXTURES[kind], torch.randn(20, D, generator=generator(), dtype=torch.float64)
    start, end = (p.marginal(linear, t, source).log_prob(x) for t in (0.0, 1.0))
    torch.testing.assert_close(start, (source or NOISE).log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, p.log_prob(x), rtol=1e-12, atol=1e-12)


@each_source
@each_kind
def test_the_field_knows_the_density_and_the_score_at_every_time(kind: str, source: GaussianMixture | None):
    p, t = MIXTURES[kind], torch.linspace(0, 1, 6, dtype=torch.float64)
    x = torch.randn(6, D, generator=generator(), dtype=torch.float64).requires_grad_()
    v = p.marginal_velocity(cosine, source)
    one_by_one = torch.cat([p.marginal(cosine, float(t[i]), source).log_prob(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(v.log_prob(x, t), one_by_one, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(one_by_one.sum(), x)
    torch.testing.assert_close(v.score(x, t), gradient, rtol=1e-11, atol=1e-11)


# The marginal velocity


@each_path
@each_source
@each_kind
def test_velocity_is_the_conditional_mean(kind: str, source: GaussianMixture | None, path: AffinePath):
    """Importance sampling of x_1 given x_t = x, with weights p_0((x - alpha x_1) / sigma), from its own error."""
    p, t, n = MIXTURES[kind], 0.4, 100_000
    x = p.marginal(path, t, source).sample(4, generator=generator(1))
    x_1 = p.sample(n, generator=generator(2))
    alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, x_1)
    x_0 = (x[:, None] - alpha * x_1) / sigma  # (4, n, D)
    log_weight = (
        -x_0.square().sum(-1) / 2 if source is None else source.log_prob(x_0.reshape(-1, D)).reshape(4, n)
    )
    weight = log_weight.softmax(1)[..., None]
    target = alpha_dot * x_1 + sigma_dot * x_0
    estimate = (weight * target).sum(1)
    error = (weight * (target - estimate[:, None])).square().sum(1).sqrt()
    assert error.max() < 0.05, "the estimator is too noisy to test anything"
    torch.testing.assert_close(
        (p.marginal_velocity(path, source)(x, t) - estimate) / error, 0 * x, rtol=0, atol=5
    )


def continuity_residual(p: GaussianMixture, path: AffinePath, source, v, x: Tensor, t: float) -> Tensor:
    """dp/dt + div(p v) at points x, with a central difference of fourth order in t."""
    density = lambda x, t: p.marginal(path, t, source).log_prob(x).exp()  # noqa: E731
    h = 1e-3
    dp_dt = (8 * (density(x, t + h) - density(x, t - h)) - density(x, t + 2 * h) + density(x, t - 2 * h)) / (
        12 * h
    )
    return dp_dt + divergence(lambda x, t: density(x, t)[:, None] * v(x, t), x, t)


@each_path
@each_source
@each_kind
def test_velocity_satisfies_the_continuity_equation(
    kind: str, source: GaussianMixture | None, path: AffinePath
):
    p = MIXTURES[kind]
    v = p.marginal_velocity(path, source)
    for t in (0.1, 0.5, 0.9):
        x = p.marginal(path, t, source).sample(10, generator=generator(1))
        assert continuity_residual(p, path, source, v, x, t).abs().max() < 1e-7
        wrong = lambda x, t: 1.01 * v(x, t)  # noqa: E731
        assert continuity_residual(p, path, source, wrong, x, t).abs().max() > 1e-5


@each_kind
def test_velocity_at_both_ends_of_time(kind: str):
    p, x = MIXTURES[kind], torch.randn(20, D, generator=generator(), dtype=torch.float64)
    mean = moments(p)[0].expand_as(x)
    v = p.marginal_velocity(linear)
    torch.testing.assert_close(v(x, 0.0), mean - x, rtol=0, atol=1e-12)  # x_0 = x, and x_1 is unknown
    torch.testing.assert_close(v(x, 1.0), x, rtol=0, atol=1e-12)  # x_1 = x, and E[x_0] = 0
    turning = p.marginal_velocity(cosine)
    torch.testing.assert_close(turning(x, 0.0), math.pi / 2 * mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(turning(x, 1.0), 0 * x, rtol=0, atol=1e-12)


@each_source
def test_velocity_needs_no_clamp(source: GaussianMixture | None):
    p = GaussianMixture([[5.0, 0.0, 1.0], [-5.0, 0.0, 1.0]], [[1e-4, 1e-2, 1.0], [1e-2, 1e-4, 1.0]])
    v, x = p.marginal_velocity(linear, source), 10 * torch.randn(100, D, generator=generator())
    for t in (0.0, 1e-6, 1 - 2**-24, 1.0):
        assert v(x, t).isfinite().all()


def test_the_flow_of_one_gaussian_is_the_affine_map_between_square_roots():
    p = mixture("full", K=1)
    x_0 = torch.randn(16, D, generator=generator(), dtype=torch.float64)
    eigenvalues, Q = torch.linalg.eigh(p.covariances[0])
    for t in (0.3, 1.0):  # x_t = t mu + (t^2 S + (1 - t)^2 I)^(1/2) x_0
        root = Q @ torch.diag((t**2 * eigenvalues + (1 - t) ** 2).sqrt()) @ Q.T
        x_t = odeint(p.marginal_velocity(linear), x_0, t1=t, steps=50, method=RK4)
        torch.testing.assert_close(x_t, t * p.means + x_0 @ root, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "source"),
    [("round", None), ("full", None), ("axes", SOURCES["full"])],
    ids=["round", "full", "pairs"],
)
def test_the_flow_carries_the_density_of_the_source_to_that_of_the_target(
    kind: str, source: GaussianMixture | None
):
    p = MIXTURES[kind]
    v = p.marginal_velocity(linear, source)
    x_0 = (source or NOISE).sample(32, generator=generator(4))

    def with_log_density(y: Tensor, t: Tensor | float) -> Tensor:  # d log p/dt = -div v along the flow
        return torch.cat([v(y[:, :D], t), -divergence(v, y[:, :D], t)[:, None]], dim=1)

    start = torch.cat([x_0, (source or NOISE).log_prob(x_0)[:, None]], dim=1)
    end = odeint(with_log_density, start, steps=50, method=RK4)
    torch.testing.assert_close(end[:, D], p.log_prob(end[:, :D]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("source", ["noise", "round", "axes", "full"])
def test_one_law_in_three_shapes_of_covariance(source: str):
    x, t = (
        torch.randn(9, D, generator=generator(), dtype=torch.float64),
        torch.linspace(0, 1, 9, dtype=torch.float64),
    )
    p, q = MIXTURES["round"], None if source == "noise" else mixture(source, K=2, seed=5)
    shapes = [p.covariances, p.covariances[:, None].expand(3, D), as_matrices(p)]
    results = []
    for covariances in shapes:
        same = GaussianMixture(p.means, covariances, p.weights)
        results.append(
            torch.cat([same.marginal_velocity(cosine, q)(x, t), same.score(x), same.log_prob(x)[:, None]], 1)
        )
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[2], results[0], rtol=1e-12, atol=1e-12)


@each_source
@each_kind
def test_standard_noise_is_the_default_source_and_times_may_differ(kind: str, source: GaussianMixture | None):
    p, t = MIXTURES[kind], torch.linspace(0, 1, 6, dtype=torch.float64)
    x = torch.randn(6, D, generator=generator(), dtype=torch.float64)
    v = p.marginal_velocity(linear, source)
    one_by_one = torch.cat([v(x[i : i + 1], float(t[i])) for i in range(6)])
    torch.testing.assert_close(v(x, t), one_by_one, rtol=1e-12, atol=1e-12)
    written_out = GaussianMixture(torch.zeros(2, D), torch.eye(D).expand(2, D, D))
    torch.testing.assert_close(
        p.marginal_velocity(linear, written_out)(x, t),
        p.marginal_velocity(linear)(x, t),
        rtol=1e-12,
        atol=1e-12,
    )


# Differentiation, dtypes, devices


@each_source
def test_velocity_can_be_differentiated_twice_and_transformed(source: GaussianMixture | None):
    v, x = (
        MIXTURES["full"].marginal_velocity(linear, source),
        torch.randn(3, D, generator=generator()).double(),
    )
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    with torch.random.fork_rng():
        assert torch.autograd.gradcheck(v, (x.clone().requires_grad_(), t.clone().requires_grad_()))
        assert torch.autograd.gradgradcheck(lambda x: v(x, t), (x.clone().requires_grad_(),))
    jacobian = vmap(jacrev(lambda x, t: v(x[None], t)[0]), in_dims=(0, 0))(x, t)
    torch.testing.assert_close(
        jacobian.diagonal(dim1=1, dim2=2).sum(1), divergence(v, x, t), rtol=1e-12, atol=1e-12
    )
    tangent = jvp(lambda t: v(x, t), (t,), (torch.ones_like(t),))[1]
    h = 1e-6
    torch.testing.assert_close(tangent, (v(x, t + h) - v(x, t - h)) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
@pytest.mark.parametrize("asked", [torch.float32, torch.float64])
def test_results_take_the_dtype_of_the_points(stored: torch.dtype, asked: torch.dtype):
    p = mixture("full", dtype=stored)
    x = torch.randn(50, D, generator=generator(), dtype=torch.float64)
    exact = p.marginal_velocity(linear)(x, 0.5)
    results = p.marginal_velocity(linear)(x.to(asked), 0.5), p.score(x.to(asked)), p.log_prob(x.to(asked))
    assert {r.dtype for r in results} == {asked}
    assert p.sample(1, generator=generator()).dtype == stored
    tolerance = 1e-4 if asked == torch.float32 else 0
    torch.testing.assert_close(results[0].double(), exact, rtol=tolerance, atol=tolerance)


def test_results_are_made_where_the_points_are():
    """The meta device computes shapes alone, and refuses to mix with another device."""
    x = torch.zeros(5, D, device="meta")
    for kind, p in MIXTURES.items():
        for source in SOURCES.values():
            assert p.marginal_velocity(linear, source)(x, torch.zeros(5)).device.type == "meta", kind
        assert p.log_prob(x).device.type == p.score(x).device.type == "meta", kind


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_kind
def test_a_gpu_agrees(kind: str):
    p, x = MIXTURES[kind], torch.randn(50, D, generator=generator(), dtype=torch.float64)
    on_gpu = p.marginal_velocity(linear, SOURCES["full"])(x.cuda(), torch.linspace(0, 1, 50))
    torch.testing.assert_close(
        on_gpu.cpu(), p.marginal_velocity(linear, SOURCES["full"])(x, torch.linspace(0, 1, 50))
    )
    assert p.sample(8, generator=torch.Generator("cuda")).is_cuda


class NoReads(TorchDispatchMode):
    """Refuses whatever makes a GPU wait: a number read by the host, or a shape that depends on data."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        assert op not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), op
        return op(*args, **(kwargs or {}))


@each_kind
def test_no_field_and_no_sampler_waits_for_a_gpu(kind: str):
    p, x = MIXTURES[kind], torch.zeros(5, D, device="meta")
    v, t = p.marginal_velocity(linear, SOURCES["full"]), torch.zeros(5, device="meta")
    with NoReads():
        assert v(x, t).shape == v.score(x, t).shape == (5, D)
        assert v.log_prob(x, t).shape == p.log_prob(x).shape == (5,)
        for balanced in (False, True):
            y, labels = p.sample_labeled(12, balanced=balanced, device="meta")
            assert (y.device.type, y.shape, labels.shape) == ("meta", (12, D), (12,))


def test_to_wait_or_not_makes_no_difference():
    matrices, labels = torch.randn(3, 2, 2, generator=generator()), torch.tensor([0, 2, 1, 2])
    x = torch.randn(4, 2, generator=generator(1))
    expected = torch.stack([matrices[k] @ row for k, row in zip(labels, x, strict=True)])
    for wait in (False, True):
        found = mixtures._each_by_its_own(matrices, labels, x.clone(), wait=wait)
        torch.testing.assert_close(found, expected)


# Values that stay, and values that are learned


@each_kind
def test_a_law_does_not_follow_what_it_was_made_from(kind: str):
    q = MIXTURES[kind]
    parts = q.means, q.covariances, q.weights
    p, x = GaussianMixture(*parts), torch.randn(5, D, generator=generator(), dtype=torch.float64)
    v, before, drawn = p.marginal_velocity(linear), p.log_prob(x), p.sample(4, generator=generator())
    for part in (*parts, p.means, p.covariances, p.weights):
        part += 3
    with pytest.raises(AttributeError):
        p.means += 3
    for law in (p, pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert torch.equal(law.log_prob(x), before)
        assert torch.equal(law.sample(4, generator=generator()), drawn)
    assert torch.equal(v.log_prob(x, 1.0), before)
    assert torch.equal(p.means, q.means)
    assert v(x, 0.5).is_contiguous() and p.score(x).is_contiguous()
    array = np.zeros((1, 2))
    r = GaussianMixture(array, [1.0])
    array += 1
    assert r.log_prob(torch.zeros(1, 2)).item() == pytest.approx(-math.log(2 * math.pi))


@pytest.mark.parametrize("made", ["once", "anew"])
def test_gradient_descent_fits_a_mixture(made: str):
    x = GaussianMixture([[-2.0], [3.0]], [0.25, 1.0], [0.25, 0.75]).sample(2000, generator=generator())
    means = torch.tensor([[-1.0], [1.0]], requires_grad=True)
    log_variances, logits = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    learned = [means] if made == "once" else [means, log_variances, logits]
    optimizer = torch.optim.Adam(learned, lr=0.1)
    p = GaussianMixture(means, [0.25, 1.0], [0.25, 0.75])
    v = p.marginal_velocity(linear)
    for _ in range(150):
        if made == "anew":
            p = GaussianMixture(means, log_variances.exp(), logits.softmax(0))
        optimizer.zero_grad()
        (-p.log_prob(x).mean()).backward()
        optimizer.step()
    assert (means.flatten() - torch.tensor([-2.0, 3.0])).abs().max() < 0.15
    if made == "once":
        fixed = GaussianMixture(means.detach(), [0.25, 1.0], [0.25, 0.75])
        for law in (p, v.mixture):
            torch.testing.assert_close(law.log_prob(x), fixed.log_prob(x))
            assert torch.equal(law.sample(4, generator=generator()), fixed.sample(4, generator=generator()))
        torch.testing.assert_close(v(x, 0.3), fixed.marginal_velocity(linear)(x, 0.3))
        v(x, 0.3).sum().backward()
    else:
        assert (p.covariances - torch.tensor([0.25, 1.0])).abs().max() < 0.15
        assert (p.weights - torch.tensor([0.25, 0.75])).abs().max() < 0.05


def test_all_parameters_have_exact_gradients():
    x, t = torch.randn(3, D, generator=generator(), dtype=torch.float64), 0.4
    noise = mixture("round", K=2, seed=5)

    def outputs(means: Tensor, variances: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        p = GaussianMixture(means, variances, weights)
        v = p.marginal_velocity(linear, noise)
        back = noise.marginal_velocity(linear, p)
        return p.log_prob(x), v(x, t), v.score(x, t), back(x, t), p.marginal(linear, t).log_prob(x)

    q = MIXTURES["axes"]
    parts = tuple(part.requires_grad_() for part in (q.means, q.covariances))
    logits = q.weights.log().requires_grad_()
    with torch.random.fork_rng():
        assert torch.autograd.gradcheck(lambda m, c, w: outputs(m, c, w.softmax(0)), (*parts, logits))
    with pytest.raises(ValueError, match="learn variances"):
        GaussianMixture(q.means, as_matrices(q).requires_grad_(), q.weights)


def test_a_law_made_without_gradients_can_be_differentiated_through():
    with torch.inference_mode():
        p = GaussianMixture(torch.zeros(1, 2), torch.eye(2)[None])
        v = p.marginal_velocity(linear)
        v(torch.zeros(1, 2), 0.5)
    x = torch.ones(1, 2, requires_grad=True)
    (p.log_prob(x).sum() + v(x, 0.0).sum()).backward()
    torch.testing.assert_close(x.grad, torch.full((1, 2), -2.0))


# Digits


@pytest.mark.parametrize("shape", ["round", "axes", "full", "narrow"])
@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 1e6])
def test_single_precision_laws_keep_their_digits_at_every_size(shape: str, size: float):
    """Against arithmetic of 50 digits, at points some deviations from a mean that is large beside them."""
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=generator(), dtype=torch.float64)).Q
    full = size**2 * (
        rotation @ torch.tensor([1.0, 1e-6 if shape == "narrow" else 0.25]).diag().double() @ rotation.T
    )
    covariance = {
        "round": torch.tensor([size**2]),
        "axes": torch.tensor([[size**2, size**2 / 100]]),
        "full": full[None],
        "narrow": full[None],
    }
    p = GaussianMixture(torch.tensor([[3.0, 1.0]]), covariance[shape].double())
    x = torch.tensor([[3.0, 1.0], [3.0, 1.0 + 2**-23], [3.0 + size, 1.0]])
    for t in (0.7, 1 - 1e-6, 1.0):
        S, alpha, sigma = mpmath.matrix(2, 2), mpmath.mpf(t), 1 - mpmath.mpf(t)
        exact = torch.atleast_3d(covariance[shape].double())
        for i in range(2):
            for j in range(2):
                entry = (
                    full[i, j]
                    if covariance[shape].ndim == 3
                    else (exact.flatten()[min(i, exact.numel() - 1)] if i == j else 0.0)
                )
                S[i, j] = alpha**2 * mpmath.mpf(float(entry)) + (sigma**2 if i == j else 0)
        with mpmath.workdps(50):
            scale = mpmath.sqrt(mpmath.det(S))
            for row in x:
                z = mpmath.matrix([mpmath.mpf(float(row[0])) - alpha * 3, mpmath.mpf(float(row[1])) - alpha])
                expected = float(-(z.T * S**-1 * z)[0] / 2 - mpmath.log(2 * mpmath.pi * scale))
                found = [p.marginal(linear, t).log_prob(row[None])]
                if t == 1:  # the others are rounded as times in float32
                    found.append(p.marginal_velocity(linear).log_prob(row[None], t))
                assert [float(f) for f in found] == pytest.approx([expected] * len(found), rel=1e-5, abs=1e-4)
    assert p.marginal(linear, 0.5).sample(2, generator=generator()).dtype == torch.float32


def test_parameters_keep_the_digits_they_came_with():
    p = GaussianMixture(torch.zeros(1, 1), [0.1])
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert p.log_prob(x).item() == pytest.approx(-0.5 * math.log(2 * math.pi * 0.1), rel=1e-15)
    assert p.covariances.dtype == p.means.dtype == p.weights.dtype == torch.float32


def test_covariances_of_any_size_are_judged_alike():
    skew = torch.tensor([[[1.0, 0.5], [0.4, 1.0]]], dtype=torch.float64)
    round_off = torch.tensor([[[1e6, 1e-3], [0.0, 1.0]]], dtype=torch.float64)
    flat = torch.tensor([[[1.0, 2.0], [2.0, 4.0]]], dtype=torch.float64) / 3
    for scale in (1e-150, 1e-9, 1.0, 1e9, 1e150):
        with pytest.raises(ValueError, match="symmetric"):
            GaussianMixture(torch.zeros(1, 2).double(), scale * skew)
        with pytest.raises(ValueError, match="positive definite"):
            GaussianMixture(torch.zeros(1, 2).double(), scale * flat)
        GaussianMixture(torch.zeros(1, 2).double(), scale * round_off)
    almost = torch.tensor([[[1.0, 1 - 1e-9], [1 - 1e-9, 1.0]]], dtype=torch.float64)
    p = GaussianMixture(torch.zeros(1, 2), almost)  # singular in float32
    assert p.sample(100, generator=generator()).isfinite().all()
    assert p.log_prob(torch.zeros(1, 2)).item() == pytest.approx(
        -math.log(2 * math.pi) - math.log(2e-9) / 2, rel=1e-4
    )


def test_components_of_very_different_sizes_are_judged_one_by_one():
    sizes = torch.tensor([1e20, 1e-20], dtype=torch.float64)
    p = GaussianMixture(torch.zeros(2, 2).double(), sizes[:, None, None] * torch.eye(2))
    alone = GaussianMixture(torch.zeros(1, 2).double(), sizes[1:])
    x = torch.tensor([[1e-10, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(x), alone.log_prob(x) - math.log(2), rtol=1e-12, atol=0)


def test_a_large_balanced_sample_is_whole_or_refused():
    p = GaussianMixture([[0.0], [1.0]], [1.0, 1.0], [0.5000005, 0.4999995])
    with pytest.raises(ValueError, match="n = 1000000"):
        p.sample(1_000_000, balanced=True)
    tens = GaussianMixture(torch.arange(3.0)[:, None], torch.full((3,), 1e-6), torch.tensor([0.7, 0.2, 0.1]))
    _, labels = tens.sample_labeled(100_000, balanced=True, generator=generator())
    assert labels.bincount().tolist() == [70_000, 20_000, 10_000]


# Refusals


@given(K=st.integers(1, 4), d=st.integers(1, 4), shape=st.lists(st.integers(1, 4), max_size=4).map(tuple))
def test_covariances_that_do_not_fit_are_refused_with_both_shapes(K: int, d: int, shape: tuple[int, ...]):
    assume(shape not in ((K,), (K, d), (K, d, d)))
    with pytest.raises(ValueError, match="covariances") as error:
        GaussianMixture(torch.zeros(K, d), torch.ones(shape))
    assert str((K, d)) in str(error.value)
    assert str(shape) in str(error.value)


@given(shape=st.lists(st.integers(0, 4), max_size=3).map(tuple))
def test_points_that_do_not_fit_are_refused(shape: tuple[int, ...]):
    assume(len(shape) != 2 or shape[1] != D)
    p = MIXTURES["round"]
    for method in (p.log_prob, p.score, lambda x: p.marginal_velocity(linear)(x, 0.5)):
        with pytest.raises(ValueError, match=rf"\(B, {D}\)") as error:
            method(torch.zeros(shape))
        assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), torch.ones(3)), r"\(K, d\), got \(3,\)"),
        ((torch.zeros(0, 2), torch.ones(0)), r"\(K, d\), got \(0, 2\)"),
        ((torch.zeros(2, 1), [1.0, -1.0]), "eigenvalue -1"),
        ((torch.zeros(2, 1), [1.0, math.nan]), "covariances must be finite"),
        ((torch.zeros(1, 2), torch.ones(1, 2, 2)), "positive definite"),
        ((torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])), "symmetric"),
        ((torch.zeros(2, 1), torch.ones(2), [0.5, 0.25, 0.25]), r"\(2,\), got \(3,\)"),
        ((torch.zeros(2, 1), torch.ones(2), [0.5, 0.6]), "sum to 1"),
        ((torch.zeros(2, 1), torch.ones(2), [1.5, -0.5]), "positive"),
        ((torch.tensor([[math.inf]]), torch.ones(1)), "means must be finite"),
        ((torch.zeros(2, 1), [1.0, math.inf]), "covariances must be finite"),
        ((torch.zeros(2, 1), [1.0, 1e-50]), "eigenvalue 1e-50"),
        ((torch.zeros(2, 1), torch.ones(2), [0.55, 0.55]), "sum to 1"),
        ((torch.zeros(2, 1), torch.ones(2), [0.49999, 0.49999]), "sum to 1"),
    ],
)
def test_bad_mixtures_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match="float16"):
        GaussianMixture(torch.zeros(1, 2, dtype=torch.float16), [1.0])
    p = MIXTURES["round"]
    for method in (p.log_prob, p.score, lambda x: p.marginal_velocity(linear)(x, 0.5)):
        with pytest.raises(TypeError, match="bfloat16"):
            method(torch.zeros(3, D, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="times"):
        p.marginal_velocity(linear)(torch.zeros(3, D), torch.zeros(3, dtype=torch.bfloat16))


def test_unfit_sources_and_times_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 3\)"):
        MarginalVelocity(MIXTURES["round"], linear, mixture("round", d=5))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        MIXTURES["round"].marginal(linear, torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        MIXTURES["round"].marginal_velocity(linear)(torch.zeros(3, D), torch.zeros(2))


def test_numbers_may_be_whole_and_reprs_are_short():
    p = GaussianMixture([[0, 1], [2, 3]], [1, 1], name="pair")
    assert p.means.dtype == torch.get_default_dtype()
    assert repr(p) == "GaussianMixture('pair', K=2, d=2)"


@pytest.mark.parametrize("n", [2.0, (2, 3), "2", None])
def test_the_number_of_points_is_whole(n: object):
    with pytest.raises(TypeError, match="whole"):
        MIXTURES["round"].sample(n)
    assert MIXTURES["round"].sample(np.int64(2), generator=generator()).shape == (2, D)


@each_kind
def test_no_points_have_no_answers(kind: str):
    p, none = MIXTURES[kind], torch.zeros(0, D)
    v = p.marginal_velocity(linear, SOURCES["full"])
    for t in (0.3, torch.zeros(0)):
        assert v(none, t).shape == v.score(none, t).shape == p.score(none).shape == (0, D)
        assert v.log_prob(none, t).shape == p.log_prob(none).shape == (0,)
    with pytest.raises(ValueError, match=r"got \(4, 0\)"):
        p.log_prob(torch.zeros(4, 0))


def test_complex_and_whole_points_are_refused():
    with pytest.raises(TypeError, match="complex64"):
        GaussianMixture(torch.zeros(1, 2, dtype=torch.complex64), [1.0])
    with pytest.raises(TypeError, match="int64"):
        MIXTURES["round"].log_prob(torch.zeros(2, D, dtype=torch.int64))
    assert MIXTURES["round"].log_prob(torch.full((1, D), math.nan)).isnan().all()
