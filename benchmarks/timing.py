"""How the benchmarks measure: contenders in turn, round after round, each beside the first of its own round."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch

Run = Callable[[], object]


def steady() -> None:
    """On Linux, start the script again with glibc told to keep freed memory: otherwise every large tensor may be
    returned to the system and faulted in anew, which costs up to a third of the time, at random among contenders.
    """
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        keep = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | keep)


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """The command line of a benchmark; one thread from here on."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=rounds, help="at least 2")
    torch.set_num_threads(1)
    return parser.parse_args()


def seconds(run: Run, device: str) -> float:
    """The time that the process computes; on a GPU, until all its work is done."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Run], device: str, rounds: int) -> dict[str, list[float]]:
    """The seconds of every contender in every round. Each round has an order of its own, since what ran before leaves
    its traces in caches and memory.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds):
        for name in random.Random(n).sample(list(runs), len(runs)):
            times[name].append(seconds(runs[name], device))
    return times


def ratio(mine: list[float], bare: list[float], per: float = 1.0) -> str:
    """The median over the rounds of mine / bare / per, and its quartiles, as columns of 7 and 14 characters."""
    low, middle, high = statistics.quantiles([a / b / per for a, b in zip(mine, bare, strict=True)], n=4)
    return f"{middle:7.3f}{f'{low:.3f}-{high:.3f}':>14s}"
