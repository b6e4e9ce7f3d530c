"""Laws of training times against their own densities, and what a shift does to a grid."""

import itertools
import math
import pickle

import pytest
import torch

from flowlib.solvers import EULER, odeint
from flowlib.times import TimeLaw, logit_normal, mode, resolution_shift, shift, uniform
from tests.flowlib.known import generator

MOST = 2 / (math.pi - 2)
LAWS = [
    uniform,
    logit_normal(),
    logit_normal(0.7, 0.5),
    logit_normal(-1.2, 1.6),
    mode(0.0),
    mode(1.29),
    mode(-0.8),
]
EVENLY = (torch.arange(1, 1000, dtype=torch.float64) / 1000).requires_grad_()


def distance(law: TimeLaw, t: torch.Tensor) -> float:
    """The largest difference between the empirical distribution of the times and the law's own (Kolmogorov-Smirnov)."""
    cdf, n = law.cdf(t.double().sort().values), len(t)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum(cdf - steps[:-1], steps[1:] - cdf).max())


def named(law: TimeLaw) -> str:
    return law.name


# Laws


@pytest.mark.parametrize("law", LAWS, ids=named)
def test_times_have_their_law(law: TimeLaw):
    n = 50_000
    t = law(n, generator=generator(1))
    assert t.shape == (n,) and t.dtype == torch.float32 and t.min() >= 0 and t.max() <= 1
    assert distance(law, t) < 1.95 / math.sqrt(n)  # exceeded once in a thousand seeds


@pytest.mark.parametrize("mean", [0.7, -1.2])
def test_the_mean_counts_towards_the_data(mean: float):
    """The law of 1 - t, which Stable Diffusion 3 calls sigma, has the other mean."""
    t = logit_normal(mean, 0.8)(50_000, generator=generator(1))
    assert float((t > 0.5).float().mean() - 0.5) * mean > 0
    assert distance(logit_normal(-mean, 0.8), t) > 0.2
    assert distance(logit_normal(-mean, 0.8), 1 - t.double()) < 1.95 / math.sqrt(50_000)


@pytest.mark.parametrize("law", LAWS, ids=named)
def test_quantiles_distribution_and_density_are_one_law(law: TimeLaw):
    t = law.quantile(EVENLY)
    torch.testing.assert_close(law.cdf(t.detach()), EVENLY.detach(), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(t.sum(), EVENLY)
    torch.testing.assert_close(law.log_density(t.detach()), -slope.log(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=named)
def test_at_the_ends(law: TimeLaw):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(law.quantile(ends), ends, rtol=0, atol=1e-15)
    torch.testing.assert_close(law.cdf(ends), ends, rtol=0, atol=1e-15)
    scale = float(law.name[5:-1]) if law.name.startswith("mode") else 0.0
    expected = 0.0 if "logit" in law.name else 1 / (1 + scale)
    torch.testing.assert_close(law.log_density(ends).exp(), torch.full_like(ends, expected))


@pytest.mark.parametrize("scale", [-1.0, 0.6, MOST])
def test_the_mode_law_is_that_of_the_paper_and_symmetric(scale: float):
    u, law = EVENLY.detach(), mode(scale)
    sigma = 1 - u - scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    torch.testing.assert_close(law.quantile(u), 1 - sigma, rtol=0, atol=1e-15)
    torch.testing.assert_close(law.quantile(u), 1 - law.quantile(1 - u), rtol=0, atol=1e-12)
    assert (law.quantile(u).diff() > 0).all()
    at_half = float(law.log_density(torch.tensor(0.49, dtype=torch.float64)))
    assert math.copysign(1, at_half) == math.copysign(1, scale)


def test_a_density_is_a_weight_of_the_loss_but_not_both():
    """E_p[loss] = E_uniform[p loss] with another variance, and E_p[p loss] is something else."""
    law, u = logit_normal(0.5, 0.8), (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    loss = lambda t: 1 + t**2  # noqa: E731
    p = lambda t: law.log_density(t).exp()  # noqa: E731
    drawn, weighed, both = loss(law.quantile(u)), p(u) * loss(u), p(law.quantile(u)) * loss(law.quantile(u))
    torch.testing.assert_close(drawn.mean(), weighed.mean(), rtol=1e-6, atol=0)
    assert weighed.var() > 5 * drawn.var()
    assert both.mean() > 1.3 * drawn.mean()


@pytest.mark.parametrize("law", LAWS, ids=named)
def test_laws_can_be_sent_to_another_process_and_work_on_any_device(law: TimeLaw):
    copy = pickle.loads(pickle.dumps(law))
    assert torch.equal(copy(5, generator=generator()), law(5, generator=generator()))
    assert law(5, device="meta").is_meta and law.log_density(torch.empty(3, device="meta")).is_meta


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: logit_normal(math.inf), "mean must be finite, got inf"),
        (lambda: logit_normal(math.nan), "mean must be finite, got nan"),
        (lambda: logit_normal(0.0, 0.0), "std must be positive and finite, got std=0"),
        (lambda: logit_normal(0.0, -1.0), "got std=-1"),
        (lambda: mode(1.76), r"scale must be from -1 to 2 / \(pi - 2\) = 1.7519, got 1.76"),
        (lambda: mode(-1.01), "got -1.01"),
        (lambda: mode(math.nan), "got nan"),
        (lambda: resolution_shift(0, 64), "pixels, reference must be positive"),
        (lambda: shift(torch.zeros(3), 0.0), "s must be positive and finite, got s=0"),
        (lambda: shift(torch.zeros(3), math.inf), "got s=inf"),
        (lambda: shift(torch.tensor([0.5, 1.5]), 3.0), r"must be in \[0, 1\], got 0.5 to 1.5"),
        (lambda: shift(torch.tensor([0.5, math.nan]), 3.0), "got nan to nan"),
    ],
)
def test_what_is_no_law_and_no_shift_is_refused(make, match: str):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("t", [0.5, torch.zeros(3, dtype=torch.int64), torch.zeros(3).bfloat16()], ids=str)
def test_only_precise_times_are_shifted(t: object):
    with pytest.raises(TypeError, match="times must be float32 or float64"):
        shift(t, 3.0)


# The shift


@pytest.mark.parametrize("s", [0.3, 1.0, 3.0, 17.0])
def test_a_shift_moves_the_logit(s: float):
    t = EVENLY.detach()
    torch.testing.assert_close(shift(t, s).logit(), t.logit() - math.log(s), rtol=0, atol=1e-9)
    sigma = 1 - t
    torch.testing.assert_close(1 - shift(t, s), s * sigma / (1 + (s - 1) * sigma), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_stay_for_every_shift(dtype: torch.dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    for s in torch.logspace(-4, 4, 101).tolist():
        assert torch.equal(shift(ends, s), ends)


def test_shifts_compose_by_multiplication():
    t = EVENLY.detach()
    torch.testing.assert_close(shift(shift(t, 3.0), 0.5), shift(t, 1.5), rtol=0, atol=1e-14)
    torch.testing.assert_close(shift(shift(t, 3.0), 1 / 3.0), t, rtol=0, atol=1e-14)
    assert (shift(shift(t, 3.0), 3.0) - shift(t, 3.0)).abs().max() > 0.2  # what shifting twice does


def test_shifted_logit_normal_times_are_logit_normal():
    u = EVENLY.detach()
    shifted = shift(logit_normal(0.4, 0.9).quantile(u), 3.0)
    expected = logit_normal(0.4 - math.log(3.0), 0.9).quantile(u)
    torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-12)


def test_a_larger_image_is_as_uncertain_at_the_shifted_time():
    """sigma / (alpha sqrt(pixels)) is what the mean of a constant image is known up to."""
    t, m, n = EVENLY.detach(), 96 * 160, 64 * 64
    shifted = shift(t, resolution_shift(m, n))
    before, after = (1 - t) / (t * math.sqrt(n)), (1 - shifted) / (shifted * math.sqrt(m))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=0)


def test_solvers_take_a_shifted_grid():
    grid = shift(torch.linspace(0, 1, 6), 3.0)
    x = odeint(lambda x, t: torch.ones_like(x) * t, torch.zeros(2, 1), times=grid, method=EULER)
    expected = sum(float(t * (t_next - t)) for t, t_next in itertools.pairwise(grid))
    torch.testing.assert_close(x, torch.full((2, 1), expected))
