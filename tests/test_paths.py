"""Affine paths: ends, derivatives, dtypes and refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import jvp

from flowlib.paths import AffinePath, conical, cosine, linear

PATHS = [linear, cosine, conical(), conical(0.2)]
by_name = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def points(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@by_name
def test_starts_at_the_source(path: AffinePath):
    x_0, x_1 = points(5, 3), points(5, 3, seed=1)
    torch.testing.assert_close(path.sample(x_0, x_1, 0.0)[0], x_0, rtol=0, atol=0)


@pytest.mark.parametrize(("path", "left_over"), [(linear, 0.0), (cosine, 0.0), (conical(0.2), 0.2)])
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
    torch.testing.assert_close(conical(0).sample(x_0, x_1, t), linear.sample(x_0, x_1, t), rtol=0, atol=0)


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
    with pytest.raises(ValueError, match="one shape") as error:
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
    with pytest.raises(TypeError, match=f"{dtypes[0]} and {dtypes[1]}"):
        linear.sample(torch.zeros(3, 2, dtype=dtypes[0]), torch.zeros(3, 2, dtype=dtypes[1]), 0.5)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.1, math.nan])
def test_conical_refuses_a_minimum_outside_the_unit_interval(sigma_min: float):
    with pytest.raises(ValueError, match=str(sigma_min)):
        conical(sigma_min)
