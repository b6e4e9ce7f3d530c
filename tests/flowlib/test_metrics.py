"""Distances between samples, against closed forms and brute force."""

import itertools
import math
import sys

import mpmath
import pytest
import scipy.optimize
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
    with pytest.raises(RuntimeError, match="200 to 201"):
        wasserstein2(points(200, 2), points(201, 2, seed=1), iterations=3)


def test_w2_without_its_solver_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    assert wasserstein2(points(2, 2), points(2, 2)) == 0
    with pytest.raises(ModuleNotFoundError, match="pip install pot"):
        wasserstein2(points(2, 2), points(3, 2))


def best_matching(x: Tensor, y: Tensor) -> float:
    """W2 by an exact assignment between as many copies of the points as make both samples one size."""
    n = math.lcm(len(x), len(y))
    x, y = (z.double().numpy().repeat(n // len(z), axis=0) for z in (x, y))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    return math.sqrt(math.fsum(cost[rows, columns]) / n)


SIZES = [(60, 60), (40, 60)]


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("size", [1e-150, 1e-7, 1.0, 1e9, 1e150])
def test_w2_of_any_size_is_that_of_a_matching(n: int, m: int, size: float):
    x, y = points(n, 2), points(m, 2, seed=1)
    assert wasserstein2(size * x, size * y) == pytest.approx(size * best_matching(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12])
def test_points_far_away_in_both_clouds_do_not_blind_w2(n: int, m: int, far: float):
    x, y = points(n, 2), points(m, 2, seed=1)
    x[: n // 20] = far  # a twentieth of both: so much can travel nowhere else
    y[-(m // 20) :] = far
    near = best_matching(x[n // 20 :], y[: -(m // 20)])
    assert wasserstein2(x, y) == pytest.approx(near * math.sqrt(0.95), rel=1e-9)
    assert wasserstein2(y, x) == pytest.approx(near * math.sqrt(0.95), rel=1e-9)


def test_w2_of_large_clouds_of_small_size():
    x, y = points(700, 2), points(700, 2, seed=1)
    expected = best_matching(x, y)
    assert wasserstein2(1e-7 * x, 1e-7 * y) == pytest.approx(1e-7 * expected, rel=1e-9)
    assert 0.1 < expected < 0.4


def test_w2_of_points_that_coincide_is_zero():
    same = torch.full((3, 2), 1e4)
    assert wasserstein2(same, same) == wasserstein2(same, same[:2]) == sliced(same, same) == 0
    assert energy_distance(same, same) == 0
    x = points(3, 2)
    assert wasserstein2(x, x.repeat(2, 1)) == 0


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


# Digits


def sliced(x: Tensor, y: Tensor) -> float:
    return sliced_wasserstein2(x, y, generator=Generator().manual_seed(0))


each_distance = pytest.mark.parametrize("distance", [wasserstein2, sliced, energy_distance])


@each_distance
@pytest.mark.parametrize("size", [1e-150, 1e-30, 1e-7, 1e7, 1e30, 1e150, 2.0**-1000, 2.0**1000])
def test_a_change_of_units_changes_nothing_else(distance, size: float):
    x, y = points(40, 3), points(40, 3, seed=1) + 0.5
    assert distance(size * x, size * y) == pytest.approx(size * distance(x, y), rel=1e-12)


@each_distance
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_where_the_clouds_are_changes_nothing(distance, dtype: torch.dtype, offset: float):
    x, y = ((z * 8).round() / 8 for z in (points(40, 3), points(40, 3, seed=1)))  # so that no sum rounds
    moved = distance((x + offset).to(dtype), (y + offset).to(dtype))
    assert moved == pytest.approx(distance(x, y), rel=1e-9)


@each_distance
def test_a_difference_much_smaller_than_the_clouds(distance):
    x = points(60, 2)
    y = x.flip(0) + torch.tensor([3e-9, 4e-9])
    expected = {wasserstein2: 5e-9, energy_distance: energy_by_sums(x, y)}.get(distance)
    if distance is sliced:
        theta = torch.randn(500, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
        expected = float(
            (theta @ torch.tensor([3e-9, 4e-9]).double() / theta.norm(dim=1)).square().mean().sqrt()
        )
    assert distance(x, y) == pytest.approx(expected, rel=1e-6)


def energy_by_sums(x: Tensor, y: Tensor) -> float:
    """The energy distance in 40 digits."""
    with mpmath.workdps(40):
        x, y = ([[mpmath.mpf(c) for c in row] for row in z.double().tolist()] for z in (x, y))
        d = lambda a, b: mpmath.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))  # noqa: E731
        between = sum(d(a, b) for a in x for b in y) / (len(x) * len(y))
        within = sum(sum(d(a, b) for a in z for b in z) / (len(z) * (len(z) - 1)) for z in (x, y))
        return float(2 * between - within)


@pytest.mark.parametrize("far", [None, 1e3, 1e9])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_energy_distance_is_its_sum(far: float | None, offset: float):
    x, y = (points(30, 2) + offset).float(), (points(35, 2, seed=1) + offset).float()
    if far is not None:
        x[0] = y[-1] = far
    assert energy_distance(x, y) == pytest.approx(energy_by_sums(x, y), rel=1e-9)


def test_slices_do_not_lose_the_clouds_beside_a_far_point():
    x, y = points(40, 2), points(40, 2, seed=1)
    far_x, far_y = (torch.cat([torch.full((1, 2), 1e6, dtype=torch.float64), z]) for z in (x, y))
    assert sliced(far_x, far_y) == pytest.approx(sliced(x, y) * math.sqrt(40 / 41), rel=1e-7)


@each_distance
def test_two_dtypes_meet_in_the_better_one(distance):
    x, y = points(20, 2), points(20, 2, seed=1)
    for low in (torch.float32, torch.float16, torch.bfloat16):
        rounded = y.to(low)
        expected = distance(x, rounded.double())
        assert distance(x, rounded) == distance(x.requires_grad_(False), rounded) == expected
        assert distance(x.clone().requires_grad_(), rounded) == expected
    whole = (10 * y).long()
    assert distance(x, whole) == distance(x, whole.double())
    with pytest.raises(TypeError, match="complex64"):
        distance(x, y.to(torch.complex64))


@each_distance
def test_distances_are_symmetric_and_blind_to_order(distance):
    x, y = points(20, 2), points(20, 2, seed=1) + 1
    assert distance(x, y) == pytest.approx(distance(y.flip(0), x), rel=1e-12)


# Refusals


@pytest.mark.parametrize("distance", [wasserstein2, sliced_wasserstein2, energy_distance])
def test_samples_that_cannot_be_compared_are_refused(distance):
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        distance(points(4, 2), points(4, 3))
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        distance(points(4, 2), points(0, 2))
    with pytest.raises(ValueError, match=r"\(4, 0\)"):
        distance(points(4, 0), points(4, 0))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        distance(points(4), points(4))
    with pytest.raises(ValueError, match="infinite"):
        distance(points(4, 2) / 0, points(4, 2))
    with pytest.raises(ValueError, match="NaN"):
        distance(points(4, 2), points(4, 2) * math.nan)


def test_sizes_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="4 and 5 points"):
        sliced_wasserstein2(points(4, 2), points(5, 2))
    with pytest.raises(ValueError, match="1 and 5 points"):
        energy_distance(points(1, 2), points(5, 2))
    with pytest.raises(ValueError, match="repeats=0"):
        noise_floor(wasserstein2, points, 3, repeats=0)
    with pytest.raises(ValueError, match="n=0"):
        noise_floor(wasserstein2, points, 0)
    with pytest.raises(ValueError, match="directions"):
        sliced_wasserstein2(points(4, 2), points(4, 2), directions=0)
