"""Affine paths: ends, derivatives, dtypes and refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import jvp

from flowlib.mixtures import GaussianMixture
from flowlib.paths import AffinePath, conical, cosine, linear, variance_preserving
from flowlib.solvers import DOPRI5, odeint

PATHS = [
    linear,
    cosine,
    conical(),
    conical(0.2),
]  # variance_preserving, which starts elsewhere, has its own tests below
by_name = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def points(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@by_name
def test_starts_at_the_source(path: AffinePath):
    x_0, x_1 = points(5, 3), points(5, 3, seed=1)
    torch.testing.assert_close(path.sample(x_0, x_1, 0.0)[0], x_0, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("path", "left_over"), [(linear, 0.0), (cosine, 0.0), (conical(0.2), 0.2), (conical(), 1e-4)]
)
def test_ends_at_the_data(path: AffinePath, left_over: float):
    x_0, x_1 = points(5, 3), points(5, 3, seed=1)
    torch.testing.assert_close(path.sample(x_0, x_1, 1.0)[0], x_1 + left_over * x_0, rtol=0, atol=1e-15)


@by_name
def test_u_is_the_derivative_of_x(path: AffinePath):
    x_0, x_1, t = points(7, 2), points(7, 2, seed=1), torch.linspace(0, 1, 7, dtype=torch.float64)
    x_t, derivative = jvp(lambda s: path.sample(x_0, x_1, s)[0], (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.sample(x_0, x_1, t), (x_t, derivative), rtol=0, atol=1e-15)


def test_the_target_of_the_linear_path_is_exactly_the_difference():
    x_0, x_1 = points(64, 3, dtype=torch.float32), points(64, 3, dtype=torch.float32, seed=1)
    assert torch.equal(linear.sample(x_0, x_1, 0.3)[1], x_1 - x_0)


def test_cosine_keeps_unit_variance():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(
        cosine.alpha(t) ** 2 + cosine.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-15
    )
    assert cosine.alpha_dot(t)[0] == math.pi / 2


def test_conical_without_a_minimum_is_linear():
    x_0, x_1, t = (
        points(6, 2),
        points(6, 2, seed=1),
        torch.rand(6, generator=torch.Generator().manual_seed(2)),
    )
    torch.testing.assert_close(conical(0).sample(x_0, x_1, t), linear.sample(x_0, x_1, t), rtol=0, atol=1e-15)


def test_linears_short_form_is_the_general_one():
    x_0, x_1 = points(500, 3), points(500, 3, seed=1)
    for t in (0.0, 0.3, 1.0, torch.rand(500, generator=torch.Generator().manual_seed(2))):
        general = AffinePath.sample(AffinePath(**vars(linear)), x_0, x_1, t)
        torch.testing.assert_close(linear.sample(x_0, x_1, t), general, rtol=0, atol=2e-15)


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_one_time_for_each_point_of_any_shape(shape: list[int]):
    x_0, x_1, t = points(*shape), points(*shape, seed=1), torch.linspace(0, 1, shape[0], dtype=torch.float64)
    x_t, u_t = cosine.sample(x_0, x_1, t)
    rows = [cosine.sample(a, b, float(s)) for a, b, s in zip(x_0, x_1, t, strict=True)]
    torch.testing.assert_close(x_t, torch.stack([row[0] for row in rows]), rtol=0, atol=1e-15)
    torch.testing.assert_close(u_t, torch.stack([row[1] for row in rows]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.3, torch.tensor([0.1, 0.4, 0.9])])
def test_results_keep_the_dtype_and_are_rounded_once(dtype: torch.dtype, t: torch.Tensor | float):
    x_0, x_1 = points(3, 2, dtype=dtype), points(3, 2, dtype=dtype, seed=1)
    x_t, u_t = cosine.sample(x_0, x_1, t)
    working = torch.promote_types(dtype, torch.float32)
    expected = cosine.sample(x_0.to(working), x_1.to(working), t)
    assert x_t.dtype == u_t.dtype == dtype
    assert torch.equal(x_t, expected[0].to(dtype))
    assert torch.equal(u_t, expected[1].to(dtype))


@given(
    shapes=st.tuples(*[st.lists(st.integers(1, 3), min_size=1, max_size=3)] * 2).filter(
        lambda s: s[0] != s[1]
    )
)
def test_ends_of_two_shapes_are_refused_with_both_named(shapes: tuple[list[int], list[int]]):
    with pytest.raises(ValueError, match="x_0 must be like x_1") as error:
        linear.sample(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 0.5)
    assert all(str(tuple(shape)) in str(error.value) for shape in shapes)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1,)])
def test_times_that_fit_no_batch_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=rf"{shape[0]}"):
        linear.sample(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_times_in_half_precision_are_refused(dtype: torch.dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        linear.sample(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.int64, torch.int64)])
def test_ends_of_unfit_dtypes_are_refused(dtypes: tuple[torch.dtype, torch.dtype]):
    with pytest.raises(TypeError, match=f"got {dtypes[0]}"):
        linear.sample(torch.zeros(3, 2, dtype=dtypes[0]), torch.zeros(3, 2, dtype=dtypes[1]), 0.5)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.1, math.nan])
def test_conical_refuses_a_minimum_outside_the_unit_interval(sigma_min: float):
    with pytest.raises(ValueError, match=str(sigma_min)):
        conical(sigma_min)


# Variance preserving


@pytest.mark.parametrize("rates", [(0.1, 20.0), (0.5, 5.0), (1.0, 1.0)])
def test_variance_preserving_solves_the_diffusion_it_comes_from(rates: tuple[float, float]):
    """With s = 1 - t: d alpha / ds = -beta alpha / 2, d sigma^2 / ds = beta (1 - sigma^2), from (1, 0) at the data."""
    path = variance_preserving(*rates)
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, t)
    beta = rates[0] + (1 - t) * (rates[1] - rates[0])
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-15)
    torch.testing.assert_close(alpha_dot, beta * alpha / 2)
    torch.testing.assert_close(2 * sigma * sigma_dot, -beta * (1 - sigma**2))
    assert alpha[-1] == 1
    assert sigma[-1] < 3e-16
    # and the rates add up: alpha(0) = exp(-1/2 of the mean rate over the unit interval)
    assert alpha[0].item() == pytest.approx(math.exp(-(rates[0] + rates[1]) / 4), rel=1e-14)


def test_variance_preserving_derivatives_are_those_of_its_coefficients():
    path, t = variance_preserving(), torch.linspace(0, 1 - 1e-6, 50, dtype=torch.float64)
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        torch.testing.assert_close(jvp(value, (t,), (torch.ones_like(t),))[1], derivative(t))


def test_variance_preserving_does_not_quite_reach_noise():
    zero = torch.zeros((), dtype=torch.float64)
    assert variance_preserving().alpha(zero).item() == pytest.approx(0.00657, abs=1e-5)
    assert 1 - variance_preserving().sigma(zero).item() == pytest.approx(2.2e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variance_preserving_keeps_its_digits_near_the_data(dtype: torch.dtype):
    s = torch.tensor([2.0**-20, 2.0**-10], dtype=dtype)  # 1 - s is exact
    B = 0.1 * s.double() + 9.95 * s.double() ** 2
    exact = torch.sqrt(B * (1 - B / 2 + B**2 / 6))
    torch.testing.assert_close(
        variance_preserving().sigma(1 - s).double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-13
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_exact_velocity_on_the_variance_preserving_path_is_finite_at_the_data(dtype: torch.dtype):
    """There v = beta_min (x + score) / 2, the probability flow of the diffusion, although sigma' is infinite."""
    p = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=dtype), [0.25, 0.5])
    x = points(20, 2, dtype=dtype)
    v = p.marginal_velocity(variance_preserving())
    torch.testing.assert_close(v(x, 1.0), 0.05 * (x + p.score(x)), rtol=1e-4, atol=1e-5)
    end = odeint(v, x, method=DOPRI5)
    back = odeint(v, end, t0=1.0, t1=0.0, method=DOPRI5)
    torch.testing.assert_close(back, x, rtol=0, atol=2e-3)


@pytest.mark.parametrize("rates", [(0.0, 20.0), (-0.1, 20.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_variance_preserving_refuses_rates_that_are_none(rates: tuple[float, float]):
    with pytest.raises(ValueError, match=f"beta_min <= beta_max.*{rates[0]} and {rates[1]}"):
        variance_preserving(*rates)
