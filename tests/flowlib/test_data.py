"""The toys of the plane: each has the law that its docstring states, and the entropy."""

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from sklearn.datasets import make_moons, make_s_curve
from torch import Tensor

from flowlib.data import (
    GaussianMixture,
    Toy,
    checkerboard,
    eight_gaussians,
    five_clouds,
    four_corners,
    moons,
    pinwheel,
    s_curve,
    three_arms,
)

TOYS = [
    *(moons(law) for law in ("sklearn", "ffjord", "tutorial")),
    *(eight_gaussians(law) for law in ("ffjord", "tutorial")),
    checkerboard(),
    pinwheel(),
    s_curve(),
    three_arms(),
    five_clouds(),
    four_corners(),
]
MIXTURES = [toy for toy in TOYS if isinstance(toy, GaussianMixture)]
each_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
each_mixture = pytest.mark.parametrize("toy", MIXTURES, ids=lambda toy: toy.name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_mean(values: Tensor, expected: float, deviations: float = 5) -> None:
    """The mean of independent values is the expected one, up to `deviations` of its own standard errors."""
    values = values.double()
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) < deviations * error, f"{values.mean()} is not {expected} +- {error}"


def in_float64(make: Callable[[], GaussianMixture]) -> GaussianMixture:
    """A toy made while float64 is the default dtype, so that its parameters are exact."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return make()
    finally:
        torch.set_default_dtype(default)


# One interface


@each_toy
def test_every_toy_has_one_interface(toy: GaussianMixture | Toy):
    x = toy.sample(100, generator=generator(1))
    assert x.shape == (100, 2)
    assert x.dtype == torch.get_default_dtype()
    assert x.isfinite().all()
    assert torch.equal(x, toy.sample(100, generator=generator(1), device="cpu"))
    assert not torch.equal(x, toy.sample(100, generator=generator(2)))
    assert toy.sample(0, generator=generator()).shape == (0, 2)
    assert toy.name
    with pytest.raises(ValueError, match="n = -3"):
        toy.sample(-3)


def test_toys_are_told_apart_by_their_names():
    assert len({toy.name for toy in TOYS}) == len(TOYS)


@pytest.mark.parametrize("toy", [pinwheel(), moons("tutorial")], ids=lambda toy: toy.name)
def test_unknown_densities_say_so(toy: Toy):
    assert toy.entropy is None
    with pytest.raises(NotImplementedError, match=toy.name):
        toy.log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize("make", [moons, eight_gaussians])
def test_unknown_laws_are_refused_with_the_known_ones(make):
    with pytest.raises(ValueError, match="ffjord, tutorial, got 'swiss'"):
        make("swiss")


# Entropies


@each_mixture
def test_entropies_of_mixtures_by_quadrature(toy: GaussianMixture):
    """The trapezoidal rule on a grid of half a standard deviation: exact to 8 digits for so smooth a density."""
    variances = torch.linalg.eigvalsh(toy.covariances) if toy.covariances.ndim == 3 else toy.covariances
    deviation, widest = float(variances.min()) ** 0.5, float(variances.max()) ** 0.5
    low, high = toy.means.min(0).values - 8 * widest, toy.means.max(0).values + 8 * widest
    axes = (
        torch.arange(float(a), float(b), deviation / 2, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    )
    log_prob = toy.log_prob(torch.cartesian_prod(*axes))
    cell = (deviation / 2) ** 2
    assert log_prob.exp().sum() * cell == pytest.approx(1, abs=1e-6)
    assert -(log_prob.exp() * log_prob).sum() * cell == pytest.approx(toy.entropy, abs=2e-6)


@pytest.mark.parametrize("toy", [t for t in TOYS if t.entropy is not None], ids=lambda toy: toy.name)
def test_entropies_by_monte_carlo(toy: GaussianMixture | Toy):
    log_prob = toy.log_prob(toy.sample(5000, generator=generator(3)).double())
    if log_prob.std() < 1e-9:  # uniform
        assert -log_prob.mean() == pytest.approx(toy.entropy, abs=1e-9)
    else:
        assert_mean(-log_prob, toy.entropy)


# Mixtures along curves


def moon_density(x: np.ndarray, deviation: float) -> float:
    def kernel(a: float, upper: bool) -> float:
        center = (math.cos(a), math.sin(a)) if upper else (1 - math.cos(a), 0.5 - math.sin(a))
        return math.exp(-((x[0] - center[0]) ** 2 + (x[1] - center[1]) ** 2) / (2 * deviation**2))

    total = sum(
        quad(kernel, 0, math.pi, args=(upper,), epsabs=0, epsrel=1e-11, limit=200)[0]
        for upper in (True, False)
    )
    return total / (2 * math.pi) / (2 * math.pi * deviation**2)


def test_moons_have_the_density_of_the_blurred_half_circles():
    """At the gap, on the ridge, beyond the tips and five deviations off, against adaptive quadrature."""
    x = torch.tensor(
        [[0.5, 0.25], [0.0, 1.0], [-1.0, -0.2], [2.3, 0.5], [0.0, 1.5], [0.0, 0.5]], dtype=torch.float64
    )
    expected = torch.tensor([math.log(moon_density(row.numpy(), 0.1)) for row in x], dtype=torch.float64)
    torch.testing.assert_close(in_float64(moons).log_prob(x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(moons().log_prob(x), expected, rtol=0, atol=1e-5)  # nodes rounded to float32


def test_nodes_along_a_curve_are_dense_enough():
    """In float64 the density over 30 nodes to a unit of length is that over 60."""
    a, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(400))
    a = math.pi / 2 * (a + 1)
    moon = torch.cat([torch.stack([a.cos(), a.sin()], 1), torch.stack([1 - a.cos(), 0.5 - a.sin()], 1)])
    b = 1.5 * a
    letter = torch.stack([b.sin(), b.cos() - 1], 1)
    for make, points in zip((moons, s_curve), (moon, torch.cat([letter, -letter])), strict=True):
        p = in_float64(make)
        finer = GaussianMixture(points, [0.01] * 800, torch.cat([w, w]) / 4)
        x = p.sample(500, generator=generator())
        x = torch.cat([x, x + 0.4 * torch.randn(500, 2, generator=generator(1), dtype=torch.float64)])
        torch.testing.assert_close(p.log_prob(x), finer.log_prob(x), rtol=0, atol=1e-8)
        torch.testing.assert_close(p.score(x), finer.score(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("law", ["sklearn", "ffjord"])
def test_moons_are_those_of_scikit_learn(law: str):
    x, upper = make_moons(10_000, noise=0.1, random_state=0)
    x = torch.from_numpy(x if law == "sklearn" else 2 * x + np.array([-1, -0.2]))
    p = moons(law)
    ours, labels = p.sample_labeled(10_000, generator=generator(4))
    is_upper = labels < len(p.means) // 2
    assert_mean(is_upper, 0.5)
    for theirs, mine in ((x[upper == 0], ours[is_upper].double()), (x[upper == 1], ours[~is_upper].double())):
        for statistic in (lambda z: z, lambda z: z**2, lambda z: z.prod(1, keepdim=True), lambda z: z**3):
            s, r = statistic(theirs), statistic(mine)
            error = (s.var(0) / len(s) + r.var(0) / len(r)).sqrt()
            assert ((s.mean(0) - r.mean(0)).abs() < 5 * error).all()
    assert_mean(-p.log_prob(x), p.entropy)


def test_s_curve_is_that_of_scikit_learn():
    x = torch.from_numpy(make_s_curve(10_000, noise=0.1, random_state=0)[0][:, [0, 2]])
    p = s_curve()
    assert_mean(-p.log_prob(x), p.entropy)
    ours = p.sample(10_000, generator=generator(5)).double()
    for statistic in (lambda z: z, lambda z: z**2, lambda z: z.prod(1, keepdim=True), lambda z: z**4):
        s, r = statistic(x), statistic(ours)
        error = (s.var(0) / len(s) + r.var(0) / len(r)).sqrt()
        assert ((s.mean(0) - r.mean(0)).abs() < 5 * error).all()


# The other laws


@pytest.mark.parametrize(
    ("law", "radius", "deviation"), [("ffjord", 2.829, 0.3536), ("tutorial", 5.0, 0.5623)]
)
def test_eight_gaussians_stand_on_their_circle(law: str, radius: float, deviation: float):
    p = eight_gaussians(law)
    assert p.means.norm(dim=1).tolist() == pytest.approx([radius] * 8, rel=1e-4)
    assert p.covariances.sqrt().tolist() == pytest.approx([deviation] * 8, rel=1e-4)
    angles = torch.atan2(p.means[:, 1], p.means[:, 0]) % (2 * math.pi)
    torch.testing.assert_close(angles, torch.arange(8) * math.pi / 4, rtol=0, atol=1e-6)
    x, labels = p.sample_labeled(800, balanced=True, generator=generator())
    assert labels.bincount().tolist() == [100] * 8
    assert_mean((x - p.means[labels]).square().sum(1) / 2, deviation**2)


def test_tutorial_moons_lie_on_shifted_half_circles():
    """Undo 3 x - 1; then some shift u in [0, 0.2] along (1, 1) ends on a half circle, which is solved for."""
    n = 20_000
    x = (moons("tutorial").sample(n, generator=generator(6)).double() + 1) / 3
    on_arc = []
    for center, side in (((0.0, 0.0), 1), ((1.0, 0.5), -1)):
        y = x - torch.tensor(center)
        total, discriminant = y.sum(1), 2 - (y[:, 0] - y[:, 1]) ** 2  # |y - u (1, 1)| = 1
        for sign in (1, -1):
            u = (total + sign * discriminant.clamp(min=0).sqrt()) / 2
            on_arc.append((discriminant > -1e-5) & (u > -1e-3) & (u < 0.201) & (side * (y[:, 1] - u) > -1e-3))
    assert torch.stack(on_arc).any(0).all()
    upper = on_arc[0] | on_arc[1]
    # E[cos a] = 0, E[sin a] = 2 / pi and E[u] = 0.1
    assert_mean(x[:, 0], 0.6)
    assert_mean(x[:, 1], 0.35)
    assert_mean(x[:, 0] ** 2, (1 / 2 + 3 / 2) / 2 + 2 * 0.5 * 0.1 + 0.04 / 3)
    assert_mean(x[:, 0] - x[:, 1], 0.25)  # the shift is common to both axes, and so cancels:
    assert_mean((x[:, 0] - x[:, 1]) ** 2, (1 + (1 / 4 + 1 + 2 / math.pi)) / 2)
    assert 0.4 < upper.double().mean() < 0.7


def test_checkerboard_is_uniform_on_eight_squares():
    n = 16_000
    x = checkerboard().sample(n, generator=generator(7))
    squares, counts = (x / 2).floor().unique(dim=0, return_counts=True)
    assert len(squares) == 8
    assert squares.abs().max() == 2
    assert (squares.sum(1) % 2 == 0).all()
    assert ((counts / n - 1 / 8).abs() < 5 * math.sqrt(1 / 8 * 7 / 8 / n)).all()
    for inside in (x / 2 - (x / 2).floor()).T:
        assert_mean(inside, 1 / 2)
        assert_mean(inside**2, 1 / 3)


def test_checkerboard_density_integrates_to_one():
    ticks = torch.arange(-6, 6, 0.5) + 0.25
    density = checkerboard().log_prob(torch.cartesian_prod(ticks, ticks)).exp()
    assert density.sum() * 0.25 == pytest.approx(1)
    on_board, off_board = checkerboard().log_prob(torch.tensor([[1.0, 1.0], [9.0, 9.0]]))
    assert on_board == pytest.approx(-math.log(32))
    assert off_board == -math.inf


def test_pinwheel_has_its_law():
    """Its Fourier coefficients are those of an independent draw in complex numbers."""
    n = 20_000
    g = np.random.default_rng(0)
    r, s = 1 + 0.3 * g.standard_normal(n), 0.1 * g.standard_normal(n)
    z = 2 * (r + 1j * s) * np.exp(-1j * (2 * np.pi * g.integers(5, size=n) / 5 + np.exp(r) / 4))
    theirs = torch.from_numpy(np.stack([z.real, z.imag], 1))
    ours = pinwheel().sample(n, generator=generator(8)).double()
    mirrored = ours * torch.tensor([1.0, -1.0])
    seen = 0.0
    for frequency in torch.cartesian_prod(torch.arange(-3, 4), torch.arange(1, 4)).double():
        for wave in (torch.cos, torch.sin):
            a, b, c = (wave(x @ frequency) for x in (ours, theirs, mirrored))
            error = ((a.var() + b.var()) / n).sqrt()
            assert abs(a.mean() - b.mean()) < 5 * error
            seen = max(seen, float(abs(c.mean() - b.mean()) / error))
    assert seen > 10, "arms that wind the other way would pass"
    assert_mean(ours.square().sum(1), 4 * (1 + 0.3**2 + 0.1**2))


def test_balanced_toys_hold_as_many_points_on_each_piece():
    x = checkerboard().sample(800, balanced=True, generator=generator())
    squares = (4 * (x[:, 0] / 2).floor() + (x[:, 1] / 2).floor()).long()
    assert squares.unique(return_counts=True)[1].tolist() == [100] * 8
    x = (
        moons("tutorial").sample(800, balanced=True, generator=generator()) + 1
    ) / 3  # without scale and shift
    shifted = x[:, None] - 0.2 * torch.linspace(0, 1, 201)[:, None]  # undo every possible shift
    upper = ((shifted.norm(dim=2) - 1).abs() + (shifted[..., 1] < -1e-6)).min(1).values < 2e-3
    lower = shifted - torch.tensor([1.0, 0.5])
    lower = ((lower.norm(dim=2) - 1).abs() + (lower[..., 1] > 1e-6)).min(1).values < 2e-3
    assert (upper ^ lower).all() and int(upper.sum()) == 400
    with pytest.raises(ValueError, match="multiple of 8, got n = 7"):
        checkerboard().sample(7, balanced=True)


@pytest.mark.parametrize("toy", [moons("tutorial"), checkerboard(), pinwheel()], ids=lambda toy: toy.name)
def test_balanced_toys_keep_their_law(toy: Toy):
    n = 40_000
    many, free = (toy.sample(n, balanced=b, generator=generator()) for b in (True, False))
    for moment in (lambda x: x, lambda x: x.square(), lambda x: x.prod(1, keepdim=True)):
        error = moment(free).std(0) * (2 / n) ** 0.5
        assert ((moment(many).mean(0) - moment(free).mean(0)).abs() < 4 * error).all()


# Points and numbers that do not fit


@each_toy
@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 1), (2, 2, 1), (), (4, 0)])
def test_points_that_do_not_lie_in_the_plane_are_refused(toy: GaussianMixture | Toy, shape: tuple[int, ...]):
    if toy.entropy is not None:
        with pytest.raises(ValueError, match=r"\(B, 2\)") as error:
            toy.log_prob(torch.zeros(shape))
        assert str(shape) in str(error.value)


@each_toy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_points_of_other_dtypes_are_refused(toy: GaussianMixture | Toy, dtype: torch.dtype):
    if toy.entropy is not None:
        with pytest.raises(TypeError, match=str(dtype)):
            toy.log_prob(torch.zeros(2, 2, dtype=dtype))


@pytest.mark.parametrize("toy", [t for t in TOYS if t.entropy is not None], ids=lambda toy: toy.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_answer_in_kind(toy: GaussianMixture | Toy, dtype: torch.dtype):
    x = torch.tensor([[0.5, 0.5], [math.nan, 0.5], [0.5, math.nan], [9.0, math.nan]], dtype=dtype)
    log_prob = toy.log_prob(x)
    assert log_prob.dtype == dtype
    assert log_prob.isnan().tolist() == [False, True, True, True]
    assert toy.log_prob(x[:0]).shape == (0,)


def test_the_edges_of_the_checkerboard():
    """A square holds its lower and left edge; nothing lies at 4, even where the next square would be filled."""
    on = [[-4.0, -4.0], [-2.0, -2.0], [0.0, 0.0], [2.0, -2.0], [3.999, 2.0]]
    off = [
        [-4.0, 4.0],
        [4.0, 4.0],
        [4.0, -4.0],
        [4.001, 1.0],
        [-4.001, -3.0],
        [math.inf, 0.0],
        [0.0, -math.inf],
    ]
    log_prob = checkerboard().log_prob(torch.tensor(on + off, dtype=torch.float64))
    assert log_prob.tolist() == [-math.log(32)] * len(on) + [-math.inf] * len(off)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_no_draw_rounds_into_the_next_square(default: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    largest = 1 - torch.finfo(default).eps / 2  # the largest number that torch.rand may give
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, **_: torch.full(shape, largest, dtype=dtype))
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        x = checkerboard().sample(200, generator=generator())
        assert x.dtype == default
        assert checkerboard().log_prob(x).isfinite().all()
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("toy", [moons("tutorial"), checkerboard(), pinwheel()], ids=lambda toy: toy.name)
def test_toys_never_draw_in_half_precision(toy: Toy):
    expected = toy.sample(20, generator=generator())
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = toy.sample(20, generator=generator())
        with pytest.raises(TypeError, match="bfloat16"):
            eight_gaussians()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)


@each_toy
@pytest.mark.parametrize("n", [2.0, (2, 3), "2", None])
def test_the_number_of_points_is_whole(toy: GaussianMixture | Toy, n: object):
    with pytest.raises(TypeError, match="whole"):
        toy.sample(n)


@each_toy
def test_toys_travel_to_other_processes_and_other_devices(toy: GaussianMixture | Toy):
    again = pickle.loads(pickle.dumps(toy))
    assert torch.equal(again.sample(5, generator=generator()), toy.sample(5, generator=generator()))
    assert toy.sample(4, device="meta").device.type == "meta"
    if toy.entropy is not None:
        assert toy.log_prob(torch.zeros(3, 2, device="meta")).device.type == "meta"
