"""Distances between two samples, and how large they are between samples of one law (all chapters)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Generator, Tensor


def wasserstein2(x: Tensor, y: Tensor, *, iterations: int = 100_000_000) -> float:
    """The 2-Wasserstein distance between two samples, exactly, in the units of x:

        W2 = sqrt(min_P sum_ij P_ij |x_i - y_j|^2),   P with row sums 1 / n and column sums 1 / m.

    In float64 on the CPU: a second for 2000 points, and n m numbers of memory. Like every distance between finite
    samples it is not zero for samples of one law: see `noise_floor`.

    Args:
        x, y: points (n, *D) and (m, *D).
        iterations: how many steps the network simplex may take; POT's own limit stops short from n = 2000 on.

    Raises:
        ValueError: samples that are empty, not finite, or of different dimensions.
        RuntimeError: the solver stopped before it found the optimum.
        ModuleNotFoundError: POT is not installed.

    Source: Peyre & Cuturi (2019), equation 2.11 and section 3.5; Bonneel et al. (2011) for the solver.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> wasserstein2(x, x.flip(0) + torch.tensor([3.0, 4.0]))
    5.0
    """
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("exact optimal transport needs the package POT: pip install pot") from error
    x, y = _points(x, y)
    x, y = x.double().cpu(), y.double().cpu()
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    weights = [torch.full((len(z),), 1 / len(z), dtype=torch.float64).numpy() for z in (x, y)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the log says the same
        square, log = ot.emd2(*weights, cost, numItermax=iterations, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport of {len(x)} to {len(y)} points: {log['warning']}")
    return math.sqrt(max(0.0, float(square)))


def sliced_wasserstein2(
    x: Tensor, y: Tensor, *, directions: int = 500, generator: Generator | None = None
) -> float:
    """The root of the mean square W2 over projections to random lines, in the units of x; on x's device, n log n.

    Args:
        x, y: points (n, *D), as many of the one as of the other.
        directions: how many lines, uniform on the sphere.
        generator: their source, on the device of x.

    Raises:
        ValueError: samples that are empty, not finite, or of different shapes.

    Source: Bonneel et al. (2015), equation 10.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_wasserstein2(x, x.flip(0) + 3)
    3.0
    """
    x, y = _points(x, y)
    if len(x) != len(y):
        raise ValueError(f"slicing compares samples of one size, got {len(x)} and {len(y)} points")
    theta = torch.randn(directions, x.shape[1], generator=generator, dtype=x.dtype, device=x.device)
    theta = theta / theta.norm(dim=1, keepdim=True)
    offset = (x @ theta.T).sort(dim=0).values - (y @ theta.T).sort(dim=0).values
    return math.sqrt(float(offset.square().mean()))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, without bias, in the units of x.

    Zero on average for samples of one law (and so below zero for half of them), positive for any two others.

    Args:
        x, y: points (n, *D) and (m, *D), at least two of each.

    Raises:
        ValueError: samples of fewer than two points, not finite, or of different dimensions.

    Source: Szekely & Rizzo (2013), equation 2.1.

    >>> energy_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]]))
    4.0
    """
    x, y = _points(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"pairs of different points are needed, got {len(x)} and {len(y)} points")
    between = 2 * torch.cdist(x, y).mean()
    within = sum(torch.pdist(z).mean() for z in (x, y))
    return float(between - within)


def noise_floor(
    distance: Callable[[Tensor, Tensor], float],
    sample: Callable[..., Tensor],
    n: int,
    *,
    repeats: int = 5,
    generator: Generator | None = None,
) -> float:
    """The mean distance between two independent samples of n points of one law: no model can expect to do better.

    Args:
        distance: such as `wasserstein2`.
        sample: the law, called as sample(n, generator=generator) -> (n, *D).
        n: the size at which models are compared.
        repeats: how many pairs of samples are averaged.
        generator: the source of randomness.

    Raises:
        ValueError: n or repeats below 1.

    >>> from flowlib.data import moons
    >>> 0 < noise_floor(wasserstein2, moons().sample, 200, generator=Generator().manual_seed(0)) < 0.3
    True
    """
    if n < 1 or repeats < 1:
        raise ValueError(f"n and repeats must be positive, got n={n} and repeats={repeats}")
    draws = [[sample(n, generator=generator) for _ in range(2)] for _ in range(repeats)]
    return math.fsum(distance(x, y) for x, y in draws) / repeats


def _points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both samples as rows (n, d) and (m, d), without gradients, in float32 at least."""
    if x.ndim < 2 or x.shape[1:] != y.shape[1:] or 0 in (x.numel(), y.numel()):
        raise ValueError(f"expected points (n, *D) and (m, *D), got {tuple(x.shape)} and {tuple(y.shape)}")
    dtype = torch.promote_types(torch.float32, torch.promote_types(x.dtype, y.dtype))
    x, y = (z.detach().flatten(1).to(x.device, dtype) for z in (x, y))
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("points must be finite, got infinite or NaN coordinates")
    return x, y
