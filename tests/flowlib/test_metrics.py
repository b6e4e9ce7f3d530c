"""Distances between samples, against closed forms and brute force."""

import itertools
import math
import sys

import pytest
import torch
from torch import Generator, Tensor

from flowlib.data import GaussianMixture
from flowlib.metrics import energy_distance, noise_floor, sliced_wasserstein2, wasserstein2


def points(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


# Exact W2


def test_w2_is_the_best_of_all_matchings():
    x, y = points(6, 3), points(6, 3, seed=1)
    best = min((x - y[list(order)]).square().sum(1).mean() for order in itertools.permutations(range(6)))
    assert wasserstein2(x, y) == pytest.approx(math.sqrt(best), rel=1e-12)


def test_w2_of_a_shift_is_its_length_and_not_the_square():
    x, shift = points(300, 2, 4), points(2, 4, seed=1)
    assert wasserstein2(x, (x + shift).flip(0)) == pytest.approx(float(shift.norm()), rel=1e-12)


def test_w2_of_a_sample_with_itself_is_zero():
    assert wasserstein2(points(50, 2) + 1e6, points(50, 2).flip(0) + 1e6) == 0


def test_w2_on_the_line_sorts():
    x, y = points(400, 1), 2 * points(400, 1, seed=1) + 1
    sorted_offset = x.sort(dim=0).values - y.sort(dim=0).values
    assert wasserstein2(x, y) == pytest.approx(float(sorted_offset.square().mean().sqrt()), rel=1e-12)
    assert sliced_wasserstein2(x, y, generator=Generator().manual_seed(0)) == pytest.approx(
        wasserstein2(x, y), rel=1e-12
    )


def test_w2_weighs_samples_of_different_sizes():
    x = torch.tensor([[0.0], [3.0]])
    y = torch.tensor([[0.0], [0.0], [3.0]])  # a sixth of the mass travels 3
    assert wasserstein2(x, y) == pytest.approx(math.sqrt(9 / 6), rel=1e-12)


def test_w2_says_when_the_solver_stops_short():
    with pytest.raises(RuntimeError, match="200 to 200"):
        wasserstein2(points(200, 2), points(200, 2, seed=1), iterations=3)


def test_w2_without_its_solver_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pot"):
        wasserstein2(points(2, 2), points(2, 2))


# The others


def test_sliced_w2_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    x, shift, count = points(100, 5), points(5, seed=1), 20_000
    measured = sliced_wasserstein2(x, x + shift, directions=count, generator=Generator().manual_seed(0))
    # (theta . e)^2 has mean 1 / d and variance 2 (d - 1) / (d^2 (d + 2)) for theta uniform on the sphere
    square, spread = float(shift.square().sum()), math.sqrt(2 * 4 / (25 * 7) / count)
    assert measured**2 == pytest.approx(square / 5, abs=4 * square * spread)


def test_energy_distance_of_two_gaussians():
    # |X - Y| is a folded normal variable of standard deviation sqrt(2)
    n, m = 3000, 1.5
    folded = 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    expected = 2 * folded - 4 / math.sqrt(math.pi)
    assert energy_distance(points(n, 1), points(n, 1, seed=1) + m) == pytest.approx(expected, abs=0.1)


def test_energy_distance_has_no_bias():
    values = torch.tensor(
        [energy_distance(points(10, 2, seed=2 * k), points(10, 2, seed=2 * k + 1)) for k in range(400)]
    )
    assert values.mean().abs() < 4 * values.std() / 20
    assert (values < 0).any()


def test_the_floor_falls_with_the_size_of_the_sample():
    # On the line the mean square of W2 between two uniform samples of n points is 1 / (3 (n + 1)): each order statistic
    # has variance k (n + 1 - k) / ((n + 1)^2 (n + 2)), which averages to 1 / (6 (n + 1)), and two are compared.
    def sample(n: int, *, generator: Generator) -> Tensor:
        return torch.rand(n, 1, generator=generator, dtype=torch.float64)

    def square(x: Tensor, y: Tensor) -> float:
        return wasserstein2(x, y) ** 2

    for n in (10, 100):
        floor = noise_floor(square, sample, n, repeats=400, generator=Generator().manual_seed(0))
        assert floor == pytest.approx(1 / (3 * (n + 1)), rel=0.2)


def test_the_floor_draws_two_samples_from_the_generator():
    law, g, again = (
        GaussianMixture([[0.0, 0.0]], [1.0]),
        Generator().manual_seed(5),
        Generator().manual_seed(5),
    )
    x, y = law.sample(20, generator=again), law.sample(20, generator=again)
    assert noise_floor(wasserstein2, law.sample, 20, repeats=1, generator=g) == wasserstein2(x, y) > 0


# Refusals


@pytest.mark.parametrize("distance", [wasserstein2, sliced_wasserstein2, energy_distance])
def test_samples_that_cannot_be_compared_are_refused(distance):
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        distance(points(4, 2), points(4, 3))
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        distance(points(4, 2), points(0, 2))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        distance(points(4), points(4))
    with pytest.raises(ValueError, match="NaN"):
        distance(points(4, 2), points(4, 2) * math.nan)


def test_sizes_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="4 and 5 points"):
        sliced_wasserstein2(points(4, 2), points(5, 2))
    with pytest.raises(ValueError, match="1 and 5 points"):
        energy_distance(points(1, 2), points(5, 2))
    with pytest.raises(ValueError, match="repeats=0"):
        noise_floor(wasserstein2, points, 3, repeats=0)
