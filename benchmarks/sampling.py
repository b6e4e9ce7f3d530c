"""What a fixed-step solve costs beside a bare hand-written loop, and beside the peers that are installed.

    python benchmarks/sampling.py            # one CPU thread
    python benchmarks/sampling.py --device cuda

Every contender makes the same evaluations of the same network (3 hidden layers of 64, SiLU) on 10,000 points, in
turn, round after round. The table gives the median over rounds of the ratio to the hand-written loop in that round,
with its quartiles. The adaptive rows count evaluations and compare with as many bare evaluations of the network.
Optional peer: `pip install torchdiffeq`.

On Linux the script starts itself again with glibc told to keep freed memory: otherwise every layer's output may be
returned to the system and faulted in anew, which costs up to a third of the time, at random among the contenders.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowlib.solvers import DOPRI5, EULER, MIDPOINT, RK4, odeint

STEPS = 20


class Velocity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [3, 64, 64, 64]
        hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t.expand(len(x), 1)], dim=1))


def hand_euler(v: Velocity, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        x = x + h * v(x, torch.tensor(n * h, device=x.device))
    return x


def hand_midpoint(v: Velocity, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        t = torch.tensor(n * h, device=x.device)
        x = x + h * v(x + h / 2 * v(x, t), t + h / 2)
    return x


def hand_rk4(v: Velocity, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        t = torch.tensor(n * h, device=x.device)
        k1 = v(x, t)
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        k4 = v(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def contenders(v: Velocity, x: Tensor) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """For each method, the ways to run it; the first is the bare loop."""
    table: dict[str, dict[str, Callable[[], Tensor]]] = {}
    for method, hand in ((EULER, hand_euler), (MIDPOINT, hand_midpoint), (RK4, hand_rk4)):
        table[method.name] = {
            "hand": lambda hand=hand: hand(v, x),  # type: ignore[misc]
            "flowlib": lambda method=method: odeint(v, x, steps=STEPS, method=method),  # type: ignore[misc]
        }
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint as peer

        ends = torch.tensor([0.0, 1.0], device=x.device)
        for method, theirs in ((EULER, "euler"), (MIDPOINT, "midpoint")):  # its "rk4" is the 3/8 rule

            def run(theirs: str = theirs) -> Tensor:
                return peer(lambda t, y: v(y, t), x, ends, method=theirs, options={"step_size": 1 / STEPS})[
                    -1
                ]

            table[method.name]["torchdiffeq"] = run
    return table


def adaptive(v: Velocity, x: Tensor, device: str, rounds: int) -> None:
    """Evaluations of adaptive Dormand-Prince at tolerance 1e-5, and the time of one over a bare evaluation."""
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v(x, t)

    runs = {"flowlib": lambda: odeint(counted, x, method=DOPRI5)}
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint as peer

        ends = torch.tensor([0.0, 1.0], device=x.device)
        runs["torchdiffeq"] = lambda: peer(lambda t, y: counted(y, t), x, ends, rtol=1e-5, atol=1e-5)[-1]
    t = torch.tensor(0.5, device=x.device)
    for name, run in runs.items():
        calls = 0
        run()
        evaluations = calls
        ratios = []
        for _ in range(rounds):
            whole = seconds(run, device)
            bare = seconds(lambda n=evaluations: [v(x, t) for _ in range(n)][-1], device)  # type: ignore[misc]
            ratios.append(whole / bare)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"adaptive  {name:14s}{middle:7.3f}   {low:.3f}-{high:.3f}   {evaluations} evaluations")


def seconds(run: Callable[[], Tensor], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    run()
    return time.process_time() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    v, x = Velocity().to(arguments.device), torch.randn(10_000, 2, device=arguments.device)
    print(f"{'method':10s}{'contender':14s}{'ratio':>7s}   quartiles   largest difference from hand")
    for method, runs in contenders(v, x).items():
        reference = runs["hand"]()
        difference = {
            name: float((run() - reference).abs().max()) for name, run in runs.items()
        }  # and warm-up
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(seconds(run, arguments.device))
        for name in runs:
            ratios = [ours / hand for ours, hand in zip(times[name], times["hand"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{method:10s}{name:14s}{middle:7.3f}   {low:.3f}-{high:.3f}   {difference[name]:.1e}")
    adaptive(v, x, arguments.device, arguments.rounds)


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        keep = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)
    main()
