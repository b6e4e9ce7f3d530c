"""What exact pairs cost beside POT's `ot.emd`, and that they cost the same to travel.

    python benchmarks/pairing.py

Standard normal noise and a mixture of two Gaussians, in 2 and in 784 dimensions. Both start from the points, and so
count the matrix of costs. The table gives the median over rounds of the ratio of `exact` to `ot.emd` in that round,
with its quartiles, and by how much the two mean costs differ.
"""

from __future__ import annotations

import statistics

import numpy as np
import ot
import torch
from timing import arguments, in_turn, ratio, steady
from torch import Generator, Tensor

from flowlib.couplings import exact


def clouds(n: int, d: int) -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(0)
    sides = torch.randint(2, (n, 1), generator=g)
    return torch.randn(n, d, generator=g), 0.5 * torch.randn(n, d, generator=g) + sides


def simplex(x_0: Tensor, x_1: Tensor) -> np.ndarray:
    a, b = x_0.double().numpy(), x_1.double().numpy()
    weights = np.full(len(a), 1 / len(a))
    return ot.emd(weights, weights, ot.dist(a, b), numItermax=100_000_000)


def main() -> None:
    options = arguments(__doc__, rounds=5)
    print(f"{'d':>4s}{'n':>6s}{'ratio':>7s}{'quartiles':>14s}   ms of emd   difference")
    for d in (2, 784):
        for n in (256, 512, 1024, 2048):
            x_0, x_1 = clouds(n, d)
            times = in_turn(
                {"exact": lambda a=x_0, b=x_1: exact(a, b), "emd": lambda a=x_0, b=x_1: simplex(a, b)},
                "cpu",
                options.rounds,
            )
            costs = torch.cdist(x_0.double(), x_1.double()).square()
            theirs = float((torch.as_tensor(simplex(x_0, x_1)) * costs).sum())
            ours = float((exact(x_0, x_1)[0].double() - x_1.double()).square().sum(1).mean())
            base = 1e3 * statistics.median(times["emd"])
            print(
                f"{d:4d}{n:6d}{ratio(times['exact'], times['emd'])}{base:12.1f}   {ours / theirs - 1:10.1e}"
            )


if __name__ == "__main__":
    steady()
    main()
