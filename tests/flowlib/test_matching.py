"""The conditional flow matching loss: its value, its minimizer and its floor against exact laws."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from flowlib.couplings import independent
from flowlib.data import three_arms
from flowlib.fields import expand_time
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.paths import AffinePath, conical, cosine, linear
from flowlib.times import uniform

each_path = pytest.mark.parametrize("path", [linear, cosine, conical(0.2)], ids=lambda path: path.name)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def damped(x: Tensor, t: Tensor) -> Tensor:
    """Some field that depends on the point and the time."""
    return -x * expand_time(t, x)


# Its value


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_value_is_the_mean_square_over_points_and_dimensions(shape: list[int]):
    x_1 = torch.randn(shape, generator=generator(1))
    g = generator()
    x_0, t = torch.randn(shape, generator=g), torch.rand(shape[0], generator=g)
    squares = []
    for a, b, s in zip(x_0, x_1, t, strict=True):
        velocity = -s * (s * b + (1 - s) * a)
        squares.append((velocity - (b - a)).square().flatten())
    loss = cfm_loss(damped, x_1, generator=generator())
    assert loss.shape == () and loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.cat(squares).mean(), rtol=1e-5, atol=1e-6)


def test_the_source_the_coupling_and_the_times_are_those_given():
    x_0, x_1 = torch.randn(2, 5, 3, generator=generator(1), dtype=torch.float64)
    seen = []

    def backwards(x_0: Tensor, x_1: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        seen.append(generator)
        return x_0.flip(0), x_1

    def at_a_quarter(n: int, *, generator: Generator, device: torch.device) -> Tensor:
        seen.append(generator)
        return torch.full((n,), 0.25, device=device)

    g = generator()
    loss = cfm_loss(damped, x_1, x_0=x_0, coupling=backwards, times=at_a_quarter, generator=g)
    x_t = 0.25 * x_1 + 0.75 * x_0.flip(0)
    expected = (-0.25 * x_t - (x_1 - x_0.flip(0))).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    assert seen == [g, g]


def test_conditions_reach_the_field():
    labels = torch.arange(4)
    x_1 = torch.zeros(4, 2)
    seen = {}

    def v(x: Tensor, t: Tensor, **cond: object) -> Tensor:
        seen.update(cond)
        return x

    cfm_loss(v, x_1, generator=generator(), labels=labels, scale=2)
    assert seen == {"labels": labels, "scale": 2}


def test_randomness_is_that_of_the_generator():
    x_1 = torch.randn(6, 2, generator=generator(1))
    state = torch.get_rng_state()
    once, again, other = (cfm_loss(damped, x_1, jitter=0.1, generator=generator(seed)) for seed in (3, 3, 4))
    assert once == again != other
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(uniform(9, generator=generator(5)), torch.rand(9, generator=generator(5)))


@pytest.mark.parametrize(
    ("dtype", "answer", "precise"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_times_and_loss_are_never_in_half_precision(
    dtype: torch.dtype, answer: torch.dtype, precise: torch.dtype
):
    n = 20_000  # of which bfloat16 would round about 40 to t = 1
    seen = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.dtype, t.dtype, float(t.max())))
        return torch.full_like(x, 1.0, dtype=answer)

    x_1 = torch.full((n, 1), 4.0, dtype=dtype)
    loss = cfm_loss(v, x_1, x_0=torch.zeros_like(x_1), generator=generator())
    assert loss.dtype == precise and loss == 9
    assert seen[0][:2] == (dtype, precise) and seen[0][2] < 1


def test_gradients_are_those_of_the_mean_square():
    x_1, scale = torch.randn(7, 2, generator=generator(1)), torch.tensor(0.5, requires_grad=True)
    loss = cfm_loss(lambda x, t: scale * x, x_1, generator=generator())
    g = generator()
    x_0, t = torch.randn(7, 2, generator=g), torch.rand(7, 1, generator=g)
    x_t = t * x_1 + (1 - t) * x_0
    (gradient,) = torch.autograd.grad(loss, scale)
    expected = (2 * (0.5 * x_t - (x_1 - x_0)) * x_t).mean()
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


# Its minimizer


def z_scores(v, path: AffinePath, jitter: float = 0.0) -> Tensor:
    """The gradient of the loss in the coefficients of a perturbation A (x, t, 1) + c v, in its own standard errors."""
    law, batches, g = three_arms(), 60, generator()
    gradients = []
    for _ in range(batches):
        A, c = torch.zeros(2, 4, requires_grad=True), torch.zeros(1, requires_grad=True)

        def perturbed(x: Tensor, t: Tensor, A: Tensor = A, c: Tensor = c) -> Tensor:
            features = torch.cat([x, t[:, None], torch.ones_like(t)[:, None]], dim=1)
            return (1 + c) * v(x, t) + features @ A.T

        loss = cfm_loss(perturbed, law.sample(5000, generator=g), path=path, jitter=jitter, generator=g)
        gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, (A, c))]))
    sample = torch.stack(gradients)
    return sample.mean(0) / (sample.std(0) / math.sqrt(batches))


@each_path
def test_the_marginal_velocity_is_stationary_and_a_field_two_percent_off_is_not(path: AffinePath):
    exact = three_arms().marginal_velocity(path)
    assert z_scores(exact, path).abs().max() < 4
    assert z_scores(lambda x, t: 1.02 * exact(x, t), path).abs().max() > 8


# Its floor


@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
def test_for_a_gaussian_on_the_line_the_floor_is_pi_s_over_2(s: float):
    # Var(u_t | x_t) = s^2 / ((1 - t)^2 + s^2 t^2), whose integral over t is, with z = t / (1 - t), that of
    # s^2 / (1 + s^2 z^2) over z from 0 to infinity.
    law = GaussianMixture([[0.7]], [s**2])
    assert_floor(law, linear, math.pi * s / 2)


@each_path
def test_for_a_mixture_the_floor_is_the_conditional_variance(path: AffinePath):
    law = GaussianMixture(torch.tensor([[-1.5], [1.0]], dtype=torch.float64), [0.2**2, 0.5**2], [0.3, 0.7])
    second_moment = float(law.weights @ (law.means[:, 0] ** 2 + law.covariances))
    v = law.marginal_velocity(path)
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    floor = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        _, _, alpha_dot, sigma_dot = path.coefficients(float(t), x)
        density = law.marginal(path, float(t)).log_prob(x).exp()
        explained = float(torch.trapezoid(density * v(x, float(t))[:, 0] ** 2, x[:, 0]))
        # E Var(u | x_t) = E u^2 - E v^2, where x_0 and x_1 are independent
        floor += weight * float(alpha_dot**2 * second_moment + sigma_dot**2 - explained)
    assert_floor(law, path, floor)


def assert_floor(law: GaussianMixture, path: AffinePath, floor: float) -> None:
    v, g = law.marginal_velocity(path), generator()
    losses = torch.stack(
        [cfm_loss(v, law.sample(4000, generator=g), path=path, generator=g) for _ in range(50)]
    )
    error = float(losses.std()) / math.sqrt(50)
    assert error < 0.02 * floor  # or else the comparison would be idle
    assert float(losses.mean()) == pytest.approx(floor, abs=4 * error)


def test_jitter_blurs_the_points_and_not_the_targets():
    s, jitter, t, n = 0.5, 0.4, 0.6, 400_000
    x_1 = s * torch.randn(n, 1, generator=generator(1))
    variance = (1 - t) ** 2 + (s * t) ** 2 + jitter**2
    covariance = t * s**2 - (1 - t)  # of u and x_t
    slope = covariance / variance  # E[u | x_t] = slope x_t
    floor = 1 + s**2 - slope**2 * variance
    loss = partial(
        cfm_loss, x_1=x_1, jitter=jitter, times=lambda n, **_: torch.full((n,), t), generator=generator()
    )
    unblurred = covariance / (variance - jitter**2)
    for guess in (slope, unblurred):  # the mean of n squares of a Gaussian is off by sqrt(2 / n) of itself
        expected = floor + (guess - slope) ** 2 * variance
        assert float(loss(lambda x, t, guess=guess: guess * x)) == pytest.approx(
            expected, rel=4 * math.sqrt(2 / n)
        )
    assert (unblurred - slope) ** 2 * variance > 0.05 * floor


# Refusals


def test_a_field_that_answers_in_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 2\), got \(4,\)"):
        cfm_loss(lambda x, t: x[:, 0], torch.zeros(4, 2), generator=generator())


@pytest.mark.parametrize(
    ("error", "match", "x_1", "options"),
    [
        (TypeError, "int64", torch.zeros(4, 2, dtype=torch.int64), {}),
        (ValueError, r"\(0, 2\)", torch.zeros(0, 2), {}),
        (ValueError, "-0.1", torch.zeros(4, 2), {"jitter": -0.1}),
        (ValueError, "nan", torch.zeros(4, 2), {"jitter": math.nan}),
        (ValueError, r"expected shape \(4, 2\), got \(3, 2\)", torch.zeros(4, 2), {"x_0": torch.zeros(3, 2)}),
        (TypeError, "float64", torch.zeros(4, 2), {"x_0": torch.zeros(4, 2, dtype=torch.float64)}),
        (ValueError, r"\(3,\)", torch.zeros(4, 2), {"times": lambda n, **_: torch.zeros(3)}),
        (TypeError, "bfloat16", torch.zeros(4, 2), {"times": lambda n, **_: torch.zeros(n).bfloat16()}),
    ],
)
def test_bad_arguments_are_refused_by_name(error: type[Exception], match: str, x_1: Tensor, options: dict):
    with pytest.raises(error, match=match):
        cfm_loss(damped, x_1, generator=generator(), **options)


def test_the_independent_coupling_returns_what_it_was_given():
    x_0, x_1 = torch.zeros(3, 2), torch.ones(3, 2)
    pair = independent(x_0, x_1, generator=generator())
    assert pair[0] is x_0 and pair[1] is x_1
