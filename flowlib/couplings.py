"""Couplings of source and data: which x_0 travels to which x_1 (chapters 6 and 7); layers are in `coupling_layers`.

All re-pair within a batch, by the cost |x_0 - x_1|^2 summed over all dimensions of a point. `semidiscrete` and `pairs`
go past the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import lap
import numpy as np
import torch
from torch import Generator, Tensor

from flowlib import checks

# Any callable (x_0, x_1, *, generator=None) -> (x_0 re-paired, x_1 untouched), so that whatever belongs to x_1, such as
# its label, stays beside it.
Coupling = Callable[..., tuple[Tensor, Tensor]]

_ONE_AT_A_TIME = Lock()
# Up to so many dimensions partitions serve; from so many on augmenting paths beat the network simplex.
_PLANE, _HIGH = 3, 8


def independent(x_0: Tensor, x_1: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """The pairs as they were drawn: x_0 knows nothing of x_1."""
    return x_0, x_1


def exact(x_0: Tensor, x_1: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """The permutation of x_0 of the least mean cost |x_0 - x_1|^2: optimal transport between the two batches.

    Computed on the CPU, in a time that grows a little faster than B^2: by the network simplex in few dimensions
    (Bonneel et al. 2011), by shortest augmenting paths in many (Jonker & Volgenant 1987).

    Source: Pooladian et al. (2023), section 3; Tong et al. (2024), section 3.2.

    >>> x_0, x_1 = torch.tensor([[3.0], [1.0]]), torch.tensor([[0.0], [5.0]])
    >>> exact(x_0, x_1)[0].T
    tensor([[1., 3.]])
    """
    coarse = x_0.ndim > 1 and x_0[:1].numel() >= _HIGH and x_0.dtype != torch.float64
    a, b = _clouds(x_0, x_1, dtype=torch.float32 if coarse else torch.float64)
    return x_0[_assignment(_costs(a, b), a.shape[1])], x_1


def partition(
    x_0: Tensor, x_1: Tensor, *, plans: int = 8, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A permutation of x_0 that is nearly optimal in few dimensions, in a time that grows like B log B.

    Each of the `plans` halves both batches along one random line after the other; of all of them together one better
    pairing is made. Its cost at 2,048 points of the plane is within 1% of `exact`'s. The same generator gives the same
    pairs where OpenMP has the same number of threads.

    Source: the solver `ot.bsp` of the package POT.
    """
    checks.whole(plans=plans)
    a, b = _clouds(x_0, x_1)
    if len(a) < 2:
        return x_0, x_1
    from ot.bsp import compute_bspot_bijection

    seed = int(
        torch.randint(2**31 - 1, (), generator=generator, device=generator.device if generator else None)
    )
    # The solver's generator is a thread's own, and seeded when the thread first needs it: so each call gets a thread.
    with _ONE_AT_A_TIME, ThreadPoolExecutor(1) as fresh:
        solved = fresh.submit(compute_bspot_bijection, b.numpy(), a.numpy(), n_plans=plans, seed=seed)
    order = solved.result()[1]
    return x_0[torch.as_tensor(np.asarray(order), dtype=torch.long, device=x_0.device)], x_1


def sinkhorn(
    x_0: Tensor,
    x_1: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 5000,
    tolerance: float = 0.01,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """For each x_1 one x_0 drawn from the entropic plan, on the device of the points; an x_0 may be drawn twice.

    Args:
        x_0, x_1: points (B, *D).
        epsilon, iterations, tolerance: of the plan, see `sinkhorn_plan`.
        generator: the source of the draw, on the device of the points.

    Source: Cuturi (2013); Pooladian et al. (2023), section 3.
    """
    a, b = _clouds(x_0, x_1, x_0.device)
    plan = sinkhorn_plan(_costs(a, b).float(), epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    return x_0[torch.multinomial(plan.T, 1, generator=generator)[:, 0]], x_1


def sinkhorn_plan(
    costs: Tensor, *, epsilon: float = 0.05, iterations: int = 5000, tolerance: float = 0.01
) -> Tensor:
    r"""The plan P (n, m) of given marginals 1/n and 1/m that is least in cost and entropy together:

        min_P sum_ij P_ij C_ij + e sum_ij P_ij log P_ij,    P_ij = exp((f_i + g_j - C_ij) / e).

    f and g are found in turns, each so that its own marginal is met, in the log domain. Column sums are exact; the
    rows are looked at every 50 turns.

    Args:
        costs: C, (n, m).
        epsilon: e, in units of the standard deviation of the costs: from a permutation near 0 to independence.
        iterations: the most turns.
        tolerance: the share of mass that may still miss its row.

    Raises:
        FloatingPointError: more misses its row after all the iterations.

    Source: Cuturi (2013), algorithm 1; Peyre & Cuturi (2019), remark 4.23.

    >>> sinkhorn_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.2)
    tensor([[4.9998e-01, 2.2699e-05],
            [2.2699e-05, 4.9998e-01]])
    """
    checks.precise("costs", costs)
    checks.shaped("costs", costs, "n", "m")
    checks.positive(epsilon=epsilon, tolerance=tolerance)
    checks.whole(iterations=iterations)
    n, m = costs.shape
    spread = costs - costs.min()  # equal costs make 0 / tiny
    scaled = -spread / (epsilon * costs.std(correction=0)).clamp(min=torch.finfo(costs.dtype).tiny)
    f, g = scaled.new_zeros(n, 1), scaled.new_zeros(1, m)
    for turn in range(1, iterations + 1):
        f = -(scaled + g).logsumexp(1, keepdim=True) - np.log(n)
        g = -(scaled + f).logsumexp(0, keepdim=True) - np.log(m)
        if turn % 50 == 0 or turn == iterations:
            plan = (f + g + scaled).exp()
            missed = float((plan.sum(1) - 1 / n).abs().sum() / 2)
            if missed <= tolerance:
                return plan / plan.sum(0, keepdim=True) / m
    raise FloatingPointError(
        f"after {iterations} turns {missed:.2g} of the mass still misses its row, more than {tolerance}: "
        f"raise iterations, or epsilon from {epsilon}"
    )


def sharpness(plan: Tensor) -> float:
    """How far a plan (n, n) of equal marginals is from independence: 0 there, 1 where it is a permutation.

        s = 2 - H(P) / log n,    H(P) = -sum_ij P_ij log P_ij, from log n (a permutation) to 2 log n (independent).

    Source: Zhang et al. (2025), section 3, whose renormalized entropy is 1 - s.

    >>> sharpness(torch.eye(4) / 4), sharpness(torch.ones(4, 4) / 16)
    (1.0, 0.0)
    """
    checks.require(
        plan.ndim == 2 and plan.shape[0] == plan.shape[1] >= 2,
        f"plan must have shape (n, n) with n of 2 or more, got {tuple(plan.shape)}",
    )
    return 2 - float(torch.special.entr(plan.double()).sum() / np.log(len(plan)))


def conditional(
    x_0: Tensor,
    x_1: Tensor,
    *,
    labels: Tensor,
    ratio: float = 0.01,
    coupling: Coupling = exact,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Optimal pairs that leave x_0 independent of the label (C2OT). Bind the labels: partial(conditional, labels=y).

    Each x_0 takes over the label of the x_1 that it came with, which it knows nothing of. Integer labels stay: x_0 is
    re-paired within its class, by `coupling`. Others are kept nearly: `exact` pairs at the cost

        |x_0i - x_1j|^2 + w |y_i - y_j|^2,    w such that a share `ratio` of all (i, j) costs no more than (j, j) does.

    Args:
        x_0, x_1: points (B, *D).
        labels: y, of x_1: integers (B,), or floating point (B, *E).
        ratio: the share, in (0, 1).
        coupling: what pairs the points of one class.
        generator: passed on to it.

    Source: Cheng & Schwing (2025), section 3.3.

    >>> x_0, x_1 = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[0.0], [5.0], [6.0]])
    >>> conditional(x_0, x_1, labels=torch.tensor([0, 0, 1]))[0].T  # the third keeps its pair
    tensor([[1., 3., 2.]])
    """
    checks.require(
        isinstance(labels, Tensor) and labels.shape[:1] == x_1.shape[:1],
        f"labels must be a tensor ({len(x_1)}, ...), one for each x_1, got {getattr(labels, 'shape', labels)}",
    )
    checks.require(0 < ratio < 1, f"ratio must lie between 0 and 1, got {ratio}")
    if not labels.is_floating_point():
        checks.integers("labels", labels)
        checks.shaped("labels", labels, "B")
        paired = x_0.clone()
        for label in labels.unique():
            members = (labels == label).nonzero()[:, 0].to(x_0.device)
            paired[members] = coupling(x_0[members], x_1[members], generator=generator)[0]
        return paired, x_1
    a, b = _clouds(x_0, x_1)
    y = labels.detach().reshape(len(labels), -1).to("cpu", torch.float64)
    checks.finite("labels", y)
    costs, apart = _costs(a, b), _costs(y, y)
    # (i, j) costs no more than (j, j) for all w up to this bound, of which w is a quantile.
    bounds = ((costs.diagonal() - costs) / apart)[apart > 0]
    total = costs.numel()
    rank = len(bounds) - round(ratio * total)  # those of equal labels are not asked
    w = float(bounds.kthvalue(min(max(rank, 1), len(bounds))).values.clamp(min=0)) if len(bounds) else 0.0
    return x_0[_assignment(costs + w * apart, a.shape[1])], x_1


@dataclass(frozen=True)
class Choice:
    """A coupling, and why it was chosen."""

    coupling: Coupling
    reason: str


def choose(x_0: Tensor, x_1: Tensor, *, labels: Tensor | None = None) -> Choice:
    """The coupling that serves such batches best, and the reason; `optimal` uses it.

    >>> choose(torch.zeros(256, 2), torch.zeros(256, 2)).reason
    '256 points in 2 dimensions: partition, nearly optimal in a small part of the time of exact'
    """
    _check(x_0, x_1)
    n, d = len(x_0), x_0[0].numel() if len(x_0) else 1
    what = f"{n} points in {d} dimensions"
    found: Coupling
    if d <= _PLANE and n >= 64:
        found, why = partition, "partition, nearly optimal in a small part of the time of exact"
    elif n <= 4096:
        found, why = exact, "exact"
    else:
        found, why = sinkhorn, "sinkhorn, on the device, since exact would take tens of seconds"
    if labels is None:
        return Choice(found, f"{what}: {why}")
    if labels.is_floating_point():
        return Choice(partial(conditional, labels=labels), f"{what} with conditions: conditional, exact")
    return Choice(
        partial(conditional, labels=labels, coupling=found), f"{what} with labels: within each label {why}"
    )


def optimal(
    x_0: Tensor, x_1: Tensor, *, labels: Tensor | None = None, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Optimal pairs, by the coupling that `choose` names."""
    return choose(x_0, x_1, labels=labels).coupling(x_0, x_1, generator=generator)


def swap_violations(x_0: Tensor, x_1: Tensor) -> float:
    """The share of all pairs of pairs that would cost less if they swapped partners.

        |x_0i - x_1i|^2 + |x_0j - x_1j|^2 > |x_0j - x_1i|^2 + |x_0i - x_1j|^2   if and only if
        <x_0i - x_0j, x_1i - x_1j> < 0.

    Derived at eq-swap. None does where the pairs are optimal.

    >>> swap_violations(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [4.0], [6.0]]))
    0.3333333333333333
    """
    a, b = _clouds(x_0, x_1, x_0.device)
    checks.require(len(a) >= 2, f"swaps need at least two pairs, got {len(a)}")
    products = a @ b.T
    own = products.diagonal()
    worse = own[:, None] + own < products + products.T
    return float(worse.double().sum() / (len(a) * (len(a) - 1)))


def _check(x_0: Tensor, x_1: Tensor) -> None:
    checks.floating("x_0", x_0)
    checks.floating("x_1", x_1)
    checks.require(
        x_0.ndim >= 2 and x_0.shape == x_1.shape,
        f"x_0 and x_1 must be batches (B, *D) of one shape, got {tuple(x_0.shape)} and {tuple(x_1.shape)}",
    )


def _clouds(
    x_0: Tensor, x_1: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Both as rows in this dtype, about their means: shifts change no pairing, and cost digits."""
    _check(x_0, x_1)
    a, b = (x.detach().flatten(1).to(device, dtype) for x in (x_0, x_1))
    checks.finite("x_0", a)
    checks.finite("x_1", b)
    return a - a.mean(0), b - b.mean(0)


def _costs(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 (n, m)."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(squares, a, b.T, alpha=-2).clamp(min=0)


def _assignment(costs: Tensor, dimension: int) -> Tensor:
    """For each column the row that it is given, by an assignment of the least cost."""
    n = len(costs)
    if n < 2:
        return torch.arange(n)
    if dimension >= _HIGH:
        found: Any = lap.lapjvs(costs.T.float().contiguous().numpy(), return_cost=False)  # rows in order
        return torch.as_tensor(found[1])
    import ot

    masses = np.ones(
        n
    )  # in whole units the simplex moves mass without rounding, so that the plan is a permutation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the log says the same
        scaled = costs.numpy() / max(float(costs.max()), 1e-300)  # its thresholds are absolute
        plan, log = ot.emd(masses, masses, scaled, numItermax=1_000_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"the optimal pairs of {n} points were not found: {log['warning']}")
    return torch.as_tensor(plan.argmax(0))
