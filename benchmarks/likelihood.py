"""What an exact log-likelihood costs beside bare evaluations of the field, and beside the peers that are installed.

    python benchmarks/likelihood.py          # one CPU thread
    python benchmarks/likelihood.py --device cuda

The field is a network (3 hidden layers of 64, SiLU) fitted to a mixture of five Gaussians in d dimensions. The first
table times one evaluation of velocity and exact divergence, in turn with a bare evaluation of the velocity, round
after round: the median of the ratio, with its quartiles. The second solves for log p of 250 of these points with
Dormand-Prince at tolerance 1e-5 and gives, for each contender, the evaluations of the field, the root mean square and
the largest error of log p in nats (the reference is float64 at tolerance 1e-9), and the time of an evaluation over
that of a bare one. Optional peers: `pip install zuko flow_matching`.

On Linux the script starts itself again with glibc told to keep freed memory, as benchmarks/sampling.py does.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowlib.continuous import log_prob
from flowlib.derivatives import rademacher, velocity_and_divergence
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.training import fit

TOLERANCE = 1e-5


def problem(d: int, points: int, device: str) -> tuple[VelocityMLP, Tensor]:
    """A fitted field, and points of its data."""
    generator = torch.Generator().manual_seed(0)
    law = GaussianMixture(2 * torch.randn(5, d, generator=generator), torch.full((5,), 0.25))
    net = VelocityMLP(d, generator=generator)

    def loss(v: Callable[..., Tensor], generator: torch.Generator) -> Tensor:
        return cfm_loss(v, law.sample(256, generator=generator), generator=generator)

    fit(net, loss, steps=1500, lr=3e-3, generator=generator, progress=False)
    return net.to(device).eval(), law.sample(points, generator=generator).to(device)


def likelihoods(v: Callable[..., Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The ways to compute log p of points (B, d)."""

    def normal(x: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)

    runs: dict[str, Callable[[Tensor], Tensor]] = {
        "flowlib": lambda x: log_prob(v, x, rtol=TOLERANCE, atol=TOLERANCE)
    }
    if importlib.util.find_spec("zuko"):
        from zuko.transforms import FreeFormJacobianTransform

        def zuko(x: Tensor) -> Tensor:
            flow = FreeFormJacobianTransform(
                lambda t, x: v(x, t), 1.0, 0.0, atol=TOLERANCE, rtol=TOLERANCE, exact=True
            )
            x_0, log_det = flow.call_and_ladj(x)
            return normal(x_0) + log_det

        runs["zuko"] = zuko
    if importlib.util.find_spec("flow_matching"):
        from flow_matching.solver import ODESolver

        def flow_matching(x: Tensor) -> Tensor:
            return ODESolver(lambda x, t: v(x, t)).compute_likelihood(
                x,
                normal,
                step_size=None,
                method="dopri5",
                atol=TOLERANCE,
                rtol=TOLERANCE,
                exact_divergence=True,
            )[1]

        runs["flow_matching"] = flow_matching
    return runs


def seconds(run: Callable[[], object], device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def quartiles(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:8.2f}   {low:.2f}-{high:.2f}"


def evaluation(v: VelocityMLP, x: Tensor, device: str, rounds: int) -> None:
    t, noise = torch.tensor(0.5, device=x.device), rademacher(x, torch.Generator(x.device).manual_seed(0))
    ways: dict[str, Callable[[], object]] = {
        "exact": lambda: velocity_and_divergence(v, x, t),
        "Hutchinson": lambda: velocity_and_divergence(v, x, t, noise=noise),
    }
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    repeats = max(1, 5000 // x.numel())
    for n in range(rounds + 1):
        bare = seconds(lambda: [v(x, t) for _ in range(10 * repeats)], device) / 10
        for name, way in ways.items():
            ratio = seconds(lambda: [way() for _ in range(repeats)], device) / bare  # noqa: B023
            ratios[name] += [ratio] if n else []  # the first round warms up
    for name in ways:
        print(f"{x.shape[1]:4d} {len(x):7d}  {name:12s}{quartiles(ratios[name])}")


def solve(v: VelocityMLP, x: Tensor, device: str, rounds: int) -> None:
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v(x, t)

    reference = log_prob(copy.deepcopy(v).double(), x.double(), rtol=1e-9, atol=1e-9)
    t = torch.tensor(0.5, device=x.device)
    for name, run in likelihoods(counted).items():
        calls = 0
        error = run(x).double() - reference
        evaluations, ratios = calls, []
        for _ in range(rounds):
            bare = seconds(lambda: [v(x, t) for _ in range(50)], device) / 50
            ratios.append(seconds(lambda: run(x), device) / evaluations / bare)  # noqa: B023
        print(
            f"{x.shape[1]:4d} {len(x):7d}  {name:14s}{evaluations:6d} {error.square().mean().sqrt():10.1e} "
            f"{error.abs().max():9.1e} {quartiles(ratios)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problems = [problem(d, 1000, arguments.device) for d in (2, 16, 64)]
    with torch.no_grad():
        print("   d  points  divergence     ratio   quartiles")
        for v, x in problems:
            evaluation(v, x, arguments.device, arguments.rounds)
        print("   d  points  contender   evaluations  rms error  largest    ratio   quartiles")
        for v, x in problems:
            solve(v, x[:250], arguments.device, max(3, arguments.rounds // 3))


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        keep = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    main()
