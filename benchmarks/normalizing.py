"""What a step of maximum likelihood costs with a spline flow, and how close to the entropy 1000 such steps come.

    python benchmarks/normalizing.py             # the cost, on one CPU thread
    python benchmarks/normalizing.py --device cuda
    python benchmarks/normalizing.py --quality   # the likelihoods: some ten minutes more

Every contender is the same flow of the plane: 6 couplings whose networks have 2 hidden layers of 64, with 8 bins on
[-5, 5], behind a learned affine map that starts by standardizing the data, trained on batches of 512 points. The cost
is measured in turn, round after round; the table gives the median over rounds of the ratio to the hand-written loop
in that round, with its quartiles. "flowlib" has our flow in that same loop, with the same optimizer; "fit" is `fit`
as it comes, with the fused Adam, and also averages the weights and checks every loss. Optional peers: `pip install
zuko nflows`.

The likelihoods are those of 1000 steps of `fit` at a learning rate of 0.01 with cosine decay, for every contender,
estimated on 100,000 fresh points as the entropy plus the mean of log p - log q, over 3 seeds.

On Linux the script starts itself again with glibc told to keep freed memory, as benchmarks/sampling.py does.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad, softmax, softplus

from flowlib.data import checkerboard, eight_gaussians, moons
from flowlib.normalizing import ActNorm, Flow, SplineCoupling, StandardNormal
from flowlib.training import cosine_decay, fit

STEPS, BATCH, LAYERS, WIDTH, BINS, BOUND = 100, 512, 6, 64, 8, 5.0
LAWS = [moons(), checkerboard(), eight_gaussians()]


def perceptron(outputs: int) -> nn.Sequential:
    hidden = [nn.Linear(1, WIDTH), ACTIVATION(), nn.Linear(WIDTH, WIDTH), ACTIVATION()]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, outputs))


def hand_spline(
    x: Tensor, raw_widths: Tensor, raw_heights: Tensor, raw_slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """x (B,), the others (B, K) and (B, K - 1): the spline as one writes it down from the paper."""
    knots_x = BOUND * (2 * pad(softmax(raw_widths, -1).cumsum(-1), (1, 0)) - 1)
    knots_y = BOUND * (2 * pad(softmax(raw_heights, -1).cumsum(-1), (1, 0)) - 1)
    slopes = pad(1e-3 + softplus(raw_slopes), (1, 1), value=1.0)
    inside = (x > -BOUND) & (x < BOUND)
    z = x.clamp(-BOUND, BOUND)
    k = torch.searchsorted(knots_x[:, 1:-1].detach().contiguous(), z.detach()[:, None], right=True)
    x_0, x_1 = knots_x.gather(1, k)[:, 0], knots_x.gather(1, k + 1)[:, 0]
    y_0, y_1 = knots_y.gather(1, k)[:, 0], knots_y.gather(1, k + 1)[:, 0]
    d_0, d_1 = slopes.gather(1, k)[:, 0], slopes.gather(1, k + 1)[:, 0]
    s = (y_1 - y_0) / (x_1 - x_0)
    xi = (z - x_0) / (x_1 - x_0)
    denominator = s + (d_0 + d_1 - 2 * s) * xi * (1 - xi)
    y = y_0 + (y_1 - y_0) * (s * xi**2 + d_0 * xi * (1 - xi)) / denominator
    slope = s**2 * (d_1 * xi**2 + 2 * s * xi * (1 - xi) + d_0 * (1 - xi) ** 2) / denominator**2
    return torch.where(inside, y, x), torch.where(inside, slope.log(), 0.0)


class Standardized(nn.Module):
    """A flow behind a learned affine map that starts by standardizing the points."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.mean, self.log_scale = nn.Parameter(x.mean(0)), nn.Parameter(x.std(0).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.log_prob((x - self.mean) * torch.exp(-self.log_scale)) - self.log_scale.sum()


class Hand(Standardized):
    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self.nets = nn.ModuleList(perceptron(3 * BINS - 1) for _ in range(LAYERS))

    def log_prob(self, x: Tensor) -> Tensor:
        a, b = x[:, 0], x[:, 1]
        total = 0.0
        for net in self.nets:
            b, log_slope = hand_spline(b, *net(a[:, None]).split([BINS, BINS, BINS - 1], dim=1))
            a, b, total = b, a, total + log_slope
        return -(a**2 + b**2) / 2 - math.log(2 * math.pi) + total


class Zuko(Standardized):
    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        from zuko.distributions import DiagNormal
        from zuko.flows import Flow, GeneralCouplingTransform, UnconditionalDistribution
        from zuko.transforms import MonotonicRQSTransform

        couplings = [
            GeneralCouplingTransform(
                2,
                mask=[k % 2, 1 - k % 2],
                univariate=MonotonicRQSTransform,
                shapes=[(BINS,), (BINS,), (BINS - 1,)],
                hidden_features=(WIDTH, WIDTH),
                activation=ACTIVATION,
            )
            for k in range(LAYERS)
        ]
        base = UnconditionalDistribution(DiagNormal, torch.zeros(2), torch.ones(2), buffer=True)
        self.flow = Flow(couplings, base)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x)


class Nflows(Standardized):
    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform

        class Net(nn.Module):
            hidden_features = WIDTH  # it divides by its root

            def __init__(self, inputs: int, outputs: int) -> None:
                super().__init__()
                self.net = perceptron(outputs)

            def forward(self, x: Tensor, context: None = None) -> Tensor:
                return self.net(x)

        couplings = [
            PiecewiseRationalQuadraticCouplingTransform(
                [k % 2, 1 - k % 2], Net, num_bins=BINS, tails="linear", tail_bound=BOUND
            )
            for k in range(LAYERS)
        ]
        self.flow = Flow(CompositeTransform(couplings), StandardNormal([2]))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


def ours(x: Tensor) -> Flow:
    couplings = [
        SplineCoupling(2, bins=BINS, bound=BOUND, flip=bool(k % 2), width=WIDTH) for k in range(LAYERS)
    ]
    flow = Flow(StandardNormal(2), [*couplings, ActNorm(2)]).to(x)
    flow.initialize(x)
    return flow


ACTIVATION = type(SplineCoupling(2).net[1])  # the one that our couplings have


def loop(flow: nn.Module, x: Tensor) -> float:
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        value = -flow(x[torch.randint(len(x), (BATCH,), device=x.device)]).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return float(torch.stack(losses[-20:]).mean())


def with_fit(flow: nn.Module, x: Tensor) -> float:
    def loss(v: nn.Module, generator: Generator) -> Tensor:
        return -v(x[torch.randint(len(x), (BATCH,), device=x.device, generator=generator)]).mean()

    return float(fit(flow, loss, steps=STEPS, progress=False).history[-20:].mean())


def seconds(run: Callable[[], float], device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    run()  # ends by reading a loss, and so waits for the device
    return clock() - start


def cost(contenders: dict[str, Callable[[Tensor], nn.Module]], device: str, rounds: int) -> None:
    x = eight_gaussians().sample(10_000, device=device)
    runs = {name: lambda make=make: loop(make(x).to(device), x) for name, make in contenders.items()}
    runs["fit"] = lambda: with_fit(ours(x), x)
    losses = {name: run() for name, run in runs.items()}  # and warm-up
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    print(f"{'contender':14s}{'ratio':>7s}   quartiles     ms a step   loss after {STEPS} steps")
    for name in runs:
        ratios = [mine / bare for mine, bare in zip(times[name], times["hand"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        step = 1e3 * statistics.median(times[name]) / STEPS
        print(f"{name:14s}{middle:7.3f}   {low:.3f}-{high:.3f}   {step:9.3f}   {losses[name]:.3f}")


def quality(contenders: dict[str, Callable[[Tensor], nn.Module]], seeds: int = 3, steps: int = 1000) -> None:
    print(f"\nnats after {steps} steps: mean and standard deviation over {seeds} seeds")
    print(f"{'contender':14s}" + "".join(f"{law.name + f' [{law.entropy:.4f}]':>28s}" for law in LAWS))
    for name, make in contenders.items():
        print(f"{name:14s}", end="")
        for law in LAWS:
            test = law.sample(100_000, generator=Generator().manual_seed(1234))
            nats = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                flow, generator = make(law.sample(5000)), Generator().manual_seed(seed)

                def loss(v: nn.Module, generator: Generator, law=law) -> Tensor:
                    return -v(law.sample(BATCH, generator=generator)).mean()

                fit(
                    flow,
                    loss,
                    steps=steps,
                    lr=1e-2,
                    schedule=cosine_decay,
                    generator=generator,
                    progress=False,
                )
                with torch.no_grad():
                    nats.append(law.entropy + float((law.log_prob(test) - flow(test)).mean()))
            print(f"{statistics.mean(nats):>20.4f} +-{statistics.stdev(nats):.4f}", end="", flush=True)
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quality", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    contenders: dict[str, Callable[[Tensor], nn.Module]] = {"hand": Hand, "flowlib": ours}
    contenders |= {
        name: make
        for name, make in {"zuko": Zuko, "nflows": Nflows}.items()
        if importlib.util.find_spec(name)
    }
    cost(contenders, arguments.device, arguments.rounds)
    if arguments.quality:
        quality(contenders)


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        keep = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    main()
