"""What bad arguments are told, check by check."""

import math

import numpy as np
import pytest
import torch

from flowlib import checks


@pytest.mark.parametrize(
    ("size", "expected", "fits"),
    [
        ((3, 2), ("B", 2), True),
        ((3, 2), ("B", 3), False),
        ((2, 3), (2, "d"), True),
        ((3, 2), ("B", "d", 1), False),
        ((3, 2, 1), ("B", 2), False),
        ((3,), ("B", "*D"), True),
        ((3, 4, 5), ("B", "*D"), True),
        ((3, 4, 5), (2, "*D"), False),
        ((), ("B", "*D"), False),
        ((3, 2, 5, 5), ("B", 2, "*D"), True),
        ((3, 4, 5, 5), ("B", 2, "*D"), False),
        ((3,), ("B", 2, "*D"), False),
        ((), (), True),
        ((0, 2), ("B", 2), True),
    ],
)
def test_a_shape_fits_what_was_expected_or_both_are_named(size, expected, fits):
    if fits:
        checks.shaped("x", torch.zeros(size), *expected)
        return
    form = ", ".join(map(str, expected))
    with pytest.raises(ValueError) as refused:
        checks.shaped("x", torch.zeros(size), *expected)
    assert f"x must have shape ({form})" in str(refused.value)
    assert f"got {size}" in str(refused.value)


def test_a_shape_of_one_axis_is_written_as_a_tuple():
    with pytest.raises(ValueError, match=r"shape \(B,\), got \(2, 2\)"):
        checks.shaped("t", torch.zeros(2, 2), "B")


@pytest.mark.parametrize(
    ("size", "dimension", "fits"),
    [
        ((5, 2), None, True),
        ((2,), None, True),
        ((), None, False),
        ((5, 2), 2, True),
        ((5, 2), 5, False),
        ((2, 5), 2, False),
    ],
)
def test_points_have_their_dimension_last(size, dimension, fits):
    if fits:
        checks.points(torch.zeros(size), dimension)
        return
    with pytest.raises(ValueError, match=rf"shape \(\.\.\., {dimension or 'd'}\)"):
        checks.points(torch.zeros(size), dimension)


@pytest.mark.parametrize("bad", [0, -1.0, math.inf, math.nan])
def test_positive_numbers_are_positive_and_finite(bad):
    checks.positive(a=1e-300, b=None, c=7)
    with pytest.raises(ValueError, match=f"a, b must be positive and finite, got a=1, b={bad}"):
        checks.positive(a=1, b=bad)


@pytest.mark.parametrize("bad", [True, False, 1.0, 1.5, "2", 0, -3, None])
def test_whole_numbers_are_integers_and_large_enough(bad):
    checks.whole(a=1, b=np.int64(3))
    checks.whole(0, a=0)
    with pytest.raises(ValueError, match=f"a, b must be whole and at least 1, got a=2, b={bad}"):
        checks.whole(a=2, b=bad)
    with pytest.raises(ValueError, match="at least 5"):
        checks.whole(5, a=4)


def test_the_extent_of_numbers_is_read_where_reading_does_not_wait():
    assert checks.extent(0.5) == (0.5, 0.5)
    assert checks.extent(torch.tensor([0.25, 1.0, -2.0])) == (-2.0, 1.0)
    assert checks.extent(torch.tensor(0.25)) == (0.25, 0.25)
    assert math.isnan(checks.extent(torch.tensor([0.0, math.nan]))[0])
    assert checks.extent(torch.zeros(0)) is None
    assert checks.extent(torch.zeros(2, device="meta")) is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.complex64])
def test_integers_are_neither_truth_values_nor_fractions(dtype):
    checks.integers("labels", torch.ones(2, dtype=torch.uint8))
    checks.integers("labels", torch.ones(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=f"labels must be integers, got {dtype}"):
        checks.integers("labels", torch.ones(2, dtype=dtype))
    with pytest.raises(TypeError, match="labels must be integers, got list"):
        checks.integers("labels", [1, 2])
