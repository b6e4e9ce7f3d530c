"""Distances between two samples, and how large they are between samples of one law (all chapters).

All are exact functions of samples x (n, *D) and y (m, *D), in the units of x, computed in float64 and after division by
a power of two near their extent, so that neither the size of the clouds nor their place costs digits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from flowlib import checks


def wasserstein2(x: Tensor, y: Tensor, *, iterations: int = 100_000_000) -> float:
    """The 2-Wasserstein distance between two samples:

        W2 = sqrt(min_P sum_ij P_ij |x_i - y_j|^2),   P with row sums 1 / n and column sums 1 / m.

    On the CPU: a second for 2000 points. If n = m the best plan is a permutation (Crouse 2016); else the package POT is
    needed, whose network simplex (Bonneel et al. 2011) may take so many `iterations`, or raises RuntimeError. Like all
    distances between finite samples it is not zero for samples of one law: see `noise_floor`.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> wasserstein2(x, x.flip(0) + torch.tensor([3.0, 4.0]))
    5.0
    """
    x, y, unit = _points(x, y)
    cost = _distances(x.cpu(), y.cpu()).square().numpy()
    if len(x) == len(y):
        rows, columns = linear_sum_assignment(cost)
        return unit * math.sqrt(cost[rows, columns].mean())
    return unit * math.sqrt(_transport(cost, iterations))


def _transport(cost: np.ndarray, iterations: int) -> float:
    """The least cost of moving equal shares of n points to equal shares of m others."""
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "optimal transport between samples of different sizes needs the package POT: pip install pot"
        ) from error
    n, m = cost.shape
    shares = math.lcm(n, m)  # in whole numbers of these the simplex moves mass without rounding
    masses = np.full(n, shares / n), np.full(m, shares / m)
    bound = cost.max()
    while bound > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the log says the same
            plan, log = ot.emd(*masses, np.minimum(cost / bound, 1), numItermax=iterations, log=True)
        if log["warning"] is not None:
            raise RuntimeError(f"optimal transport of {n} to {m} points: {log['warning']}")
        total = float((plan * cost).sum())
        # The simplex is blind below some 1e-16 of the largest cost. No share of the best plan pays more than the total:
        # what costs more may be cut, and it sees the others better.
        if total > bound / 10:
            return total / shares
        bound = total
    return 0.0


def sliced_wasserstein2(
    x: Tensor, y: Tensor, *, directions: int = 500, generator: Generator | None = None
) -> float:
    """The root of the mean square W2 over projections to random lines, for samples of one size; n log n, on x's device.

    The lines are uniform on the sphere, from the generator, on the device of x.

    Source: Bonneel et al. (2015), equation 10.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_wasserstein2(x, x.flip(0) + 3)
    3.0
    """
    x, y, unit = _points(x, y)
    checks.require(
        len(x) == len(y), f"slicing compares samples of one size, got {len(x)} and {len(y)} points"
    )
    checks.require(directions >= 1, f"directions must be positive, got {directions}")
    middle = torch.cat([x, y]).median(0).values
    theta = torch.randn(directions, x.shape[1], generator=generator, dtype=x.dtype, device=x.device)
    theta = theta / theta.norm(dim=1, keepdim=True)
    offset = ((x - middle) @ theta.T).sort(dim=0).values - ((y - middle) @ theta.T).sort(dim=0).values
    return unit * math.sqrt(float(offset.square().mean()))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, without bias, from at least two points of each.

    Zero on average for samples of one law (and so below zero for half of them), positive for any two others.

    Source: Szekely & Rizzo (2013), equation 2.1.

    >>> energy_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]]))
    4.0
    """
    x, y, unit = _points(x, y)
    checks.require(
        min(len(x), len(y)) >= 2, f"pairs of different points are needed, got {len(x)} and {len(y)} points"
    )
    within = torch.pdist(x).mean() + torch.pdist(y).mean()
    return unit * float(2 * _distances(x, y).mean() - within)


def noise_floor(
    distance: Callable[[Tensor, Tensor], float],
    sample: Callable[..., Tensor],
    n: int,
    *,
    repeats: int = 5,
    generator: Generator | None = None,
) -> float:
    """The mean distance between two independent samples of n points of one law: what a perfect model scores on average.

    Args:
        distance: such as `wasserstein2`.
        sample: the law, called as sample(n, generator=generator) -> (n, *D).
        n: the size at which models are compared.
        repeats: how many pairs of samples are averaged.
        generator: the source of randomness.

    >>> from flowlib.data import moons
    >>> 0 < noise_floor(wasserstein2, moons().sample, 200, generator=Generator().manual_seed(0)) < 0.3
    True
    """
    checks.require(
        n >= 1 and repeats >= 1, f"n and repeats must be positive, got n={n} and repeats={repeats}"
    )
    draws = [[sample(n, generator=generator) for _ in range(2)] for _ in range(repeats)]
    return math.fsum(distance(x, y) for x, y in draws) / repeats


def _points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Both samples as rows (n, d) and (m, d) in units of a power of two near their extent, and this unit."""
    checks.require(
        x.ndim >= 2 and x.shape[1:] == y.shape[1:] and 0 not in (x.numel(), y.numel()),
        f"expected points (n, *D) and (m, *D), got {tuple(x.shape)} and {tuple(y.shape)}",
    )
    checks.require(
        not (x.is_complex() or y.is_complex()), f"points must be real, got {x.dtype} and {y.dtype}", TypeError
    )
    x, y = (z.detach().flatten(1).to(x.device, torch.float64) for z in (x, y))
    checks.finite("points", x)
    checks.finite("points", y)
    both = torch.cat([x, y]) / 2  # so that no difference overflows
    extent = float((both.amax(0) - both.amin(0)).max())
    unit = math.ldexp(1.0, min(max(math.frexp(extent)[1], -1000), 1000)) if extent else 1.0
    return x / unit, y / unit, unit


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| (n, m), by differences: a matrix product would lose them beside the points."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
