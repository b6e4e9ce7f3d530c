"""What a step of flow matching training costs beside a bare hand-written loop, and beside the peer that is installed.

    python benchmarks/training.py            # one CPU thread
    python benchmarks/training.py --device cuda

Every contender trains the same network (3 hidden layers of 64, SiLU, time concatenated) on batches of 256 points of the
plane with Adam, in turn, round after round. The table gives the median over rounds of the ratio to the hand-written
loop in that round, with its quartiles, and how far the mean loss of its last steps lies from the hand-written loop's:
all draw different noise. "flowlib" has our loss, network and optimizer in that same loop; "fit" is `fit` as it comes,
which also averages the weights and checks every loss, so that it does more. Optional peer: `pip install torchcfm`.

On Linux the script starts itself again with glibc told to keep freed memory, as benchmarks/sampling.py does.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowlib.data import eight_gaussians
from flowlib.matching import cfm_loss
from flowlib.nets import VelocityMLP
from flowlib.training import fit

STEPS, BATCH = 500, 256


class Velocity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden = [nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t], dim=1))


def batch(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return x[torch.randint(len(x), (BATCH,), device=x.device, generator=generator)]


def loop(v: nn.Module, loss: Callable[[], Tensor], fused: bool = False) -> float:
    """The bare loop; returns the mean of its last losses."""
    optimizer = torch.optim.Adam(v.parameters(), lr=1e-3, fused=fused)
    losses = []
    for _ in range(STEPS):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return float(torch.stack(losses[-50:]).mean())


def hand(x: Tensor, fused: bool = False) -> float:
    v = Velocity()

    def loss() -> Tensor:
        x_1 = batch(x)
        x_0, t = torch.randn_like(x_1), torch.rand(BATCH, 1)
        return ((v(t * x_1 + (1 - t) * x_0, t) - (x_1 - x_0)) ** 2).mean()

    return loop(v, loss, fused)


def flowlib(x: Tensor) -> float:
    v = VelocityMLP(2, width=64, depth=3)
    return loop(v, lambda: cfm_loss(v, batch(x)), fused=True)


def flowlib_fit(x: Tensor) -> float:
    def loss(v: VelocityMLP, generator: torch.Generator) -> Tensor:
        return cfm_loss(v, batch(x, generator), generator=generator)

    return float(
        fit(VelocityMLP(2, width=64, depth=3), loss, steps=STEPS, progress=False).history[-50:].mean()
    )


def torchcfm(x: Tensor) -> float:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    v, matcher = Velocity(), ConditionalFlowMatcher(sigma=0.0)

    def loss() -> Tensor:
        x_1 = batch(x)
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
        return torch.mean((v(x_t, t[:, None]) - u_t) ** 2)

    return loop(v, loss)


def seconds(run: Callable[[], float], device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    run()  # ends by reading a loss, and so waits for the device
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.device != "cpu":  # a default device, even the CPU, costs time in every call
        torch.set_default_device(arguments.device)
    torch.manual_seed(0)
    x = eight_gaussians().sample(10_000, device=arguments.device)
    runs: dict[str, Callable[[], float]] = {
        "hand": lambda: hand(x),
        "hand, fused": lambda: hand(x, fused=True),
        "flowlib": lambda: flowlib(x),
        "fit": lambda: flowlib_fit(x),
    }
    if importlib.util.find_spec("torchcfm"):
        runs["torchcfm"] = lambda: torchcfm(x)
    losses = {name: run() for name, run in runs.items()}  # and warm-up
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, arguments.device))
    print(f"{'contender':14s}{'ratio':>7s}   quartiles     ms a step   difference of the loss from hand")
    for name in runs:
        ratios = [mine / bare for mine, bare in zip(times[name], times["hand"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        step = 1e3 * statistics.median(times[name]) / STEPS
        difference = losses[name] - losses["hand"]
        print(f"{name:14s}{middle:7.3f}   {low:.3f}-{high:.3f}   {step:9.3f}   {difference:+.3f}")


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        keep = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    main()
