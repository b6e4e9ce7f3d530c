"""Record what chapter 7 tells of couplings and is too long to run in it: flowcourse/couplings.json.

    python -m benchmarks.couplings            # all parts, about half an hour on one CPU thread
    python -m benchmarks.couplings plane      # one part: plane, conditions or seconds

A run that is recorded is not run again: delete its row, or the file, to repeat it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowcourse.budgets import generator
from flowcourse.family import BATCH, EIGHT_TO_MOONS, POINTS, Task, learn
from flowlib.couplings import Coupling, conditional, exact, independent, partition, sinkhorn
from flowlib.data import eight_gaussians, moons, s_curve
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.metrics import noise_floor
from flowlib.nets import VelocityMLP
from flowlib.pairs import Pairs
from flowlib.solvers import DOPRI5, EULER, odeint, trajectory

DATA = Path(__file__).resolve().parent.parent / "flowcourse" / "couplings.json"
SEEDS = range(5)
STEPS = 3_000


class Told(nn.Module):
    """A perceptron on the plane that is told one number c of each point: v(x, t, c=c), with c (B, 1) or none."""

    def __init__(self, told: bool, generator: Generator) -> None:
        super().__init__()
        self.net = VelocityMLP(2 + told, generator=generator)

    def forward(self, x: Tensor, t: Tensor | float, *, c: Tensor | None = None) -> Tensor:
        return self.net(x if c is None else torch.cat([x, c], dim=1), t)[:, :2]


def trained(net: nn.Module, pairs: Pairs, seed: int) -> nn.Module:
    """The network after the family's recipe on this stream of pairs, and of conditions where it has them."""
    stream = iter(pairs)

    def loss(v: Field, g: Generator) -> Tensor:
        x_0, x_1, *told = next(stream)
        return cfm_loss(v, x_1, x_0=x_0, generator=g, **({"c": told[0]} if told else {}))

    return learn(net, loss, generator=generator(seed), steps=STEPS, progress=False).net


# Four tasks of the plane, two couplings: the benchmark of Tong et al. (2024), section 5.1


class Curve(Task):
    """A target of unequal pieces, from which balanced draws cannot be had."""

    def goal(self, n: int, *, generator: Generator | None = None, balanced: bool = False) -> Tensor:
        return super().goal(n, generator=generator)


PLANE = (
    Task("noise to 8 Gaussians", eight_gaussians("tutorial")),
    EIGHT_TO_MOONS,
    Task("noise to moons", moons("tutorial")),
    Curve("noise to s-curve", s_curve()),
)
COUPLINGS: dict[str, Coupling] = {"independent": independent, "optimal": partition}


@torch.no_grad()
def plane(task: Task, coupling: str, seed: int) -> dict[str, Any]:
    def draw(n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        x_1 = task.goal(n, generator=generator)
        return task.start(n, generator=generator), x_1

    stream = Pairs(draw, BATCH, coupling=COUPLINGS[coupling], generator=generator(seed))
    with torch.enable_grad():
        v = trained(VelocityMLP(2, generator=generator(seed)), stream, seed)
    g = generator(1000 + seed)
    x_0, x_1 = (law(POINTS, generator=g, balanced=True) for law in (task.start, task.goal))
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v(x, t)

    end = odeint(counted, x_0, method=DOPRI5)
    times, states = trajectory(v, x_0, steps=100)
    speeds = torch.stack([v(x, t).square().sum(1).mean() for x, t in zip(states, times, strict=True)])
    least = task.squared_distance
    return {
        "W2 at 1": _squared(odeint(v, x_0, steps=1, method=EULER), x_1) ** 0.5,
        "W2": _squared(end, x_1) ** 0.5,
        "nfe": calls,
        "npe": abs(float(torch.trapezoid(speeds, times)) - least) / least,
    }


# One condition, three couplings: figure 1 of Cheng & Schwing (2025)

MANY = 4096


def sample(n: int, condition: str, generator: Generator | None, balanced: bool = False) -> tuple[Tensor, ...]:
    """x_0, x_1 and, if any, the condition (n, 1): which moon, as -1 or 1, or the first coordinate of x_1."""
    moon = torch.randint(2, (n,), generator=generator)
    if balanced:
        moon = torch.arange(n) % 2
    x_1 = EIGHT_TO_MOONS.target.draw(moon, generator, torch.device("cpu"))
    x_0 = EIGHT_TO_MOONS.start(n, generator=generator, balanced=balanced)
    told = {"moon": 2.0 * moon[:, None] - 1, "coordinate": x_1[:, :1]}
    return (x_0, x_1, told[condition]) if condition in told else (x_0, x_1)


def aware(x_0: Tensor, x_1: Tensor, *, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The condition-aware coupling: two values are classes, more are a coordinate."""
    kinds = (labels[:, 0] > 0).long() if len(labels.unique()) == 2 else labels
    return conditional(x_0, x_1, labels=kinds, coupling=partition, generator=generator)


@torch.no_grad()
def conditions(condition: str, method: str, seed: int) -> dict[str, Any]:
    draw = partial(_drawn, condition)
    coupling = {"independent": independent, "blind": partition, "conditional": aware}[method]
    knows = method == "conditional"
    stream = Pairs(draw, BATCH, coupling=coupling, generator=generator(seed), labelled=knows)
    with torch.enable_grad():
        v = trained(Told(condition != "none", generator(seed)), stream, seed)
    x_0, x_1, *told = sample(MANY, condition, generator(1000 + seed), balanced=True)
    c = {"c": told[0]} if told else {}
    order = torch.randperm(MANY, generator=generator(2000 + seed))
    ends = {
        "1": odeint(v, x_0[order], steps=1, method=EULER, **c),
        "adaptive": odeint(v, x_0[order], method=DOPRI5, **c),
    }
    return {f"squared W2 at {n}": _squared(x, x_1) for n, x in ends.items()}


def _squared(x: Tensor, y: Tensor) -> float:
    """W2^2, by the network simplex, which is the faster one for so many points of the plane."""
    return float((exact(x, y)[0] - y).square().sum(1).mean())


def _drawn(condition: str, n: int, *, generator: Generator) -> tuple[Tensor, ...]:
    return sample(n, condition, generator)


# What a coupling costs


def seconds(name: str, n: int, dimension: int) -> dict[str, Any]:
    # of the processor, so that what else runs on the machine does not count
    coupling = {"exact": exact, "partition": partition, "sinkhorn": partial(sinkhorn, epsilon=0.05)}[name]
    g = generator(0)
    x_0 = torch.randn(n, dimension, generator=g)
    x_1 = torch.randn(n, dimension, generator=g) * torch.linspace(0.5, 2, dimension) + 1
    coupling(x_0, x_1, generator=g)
    spent = []
    while sum(spent) < 1 and len(spent) < 20:
        begin = time.process_time()
        coupling(x_0, x_1, generator=g)
        spent.append(time.process_time() - begin)
    return {"seconds": sorted(spent)[len(spent) // 2]}


def jobs(part: str) -> list[tuple[tuple[Any, ...], Callable[[], dict[str, Any]]]]:
    """Every run of a part: what tells it from the others, and how to make its numbers."""
    made: dict[str, list[tuple[tuple[Any, ...], Callable[[], dict[str, Any]]]]] = {
        "plane": [
            ((task.name, name, seed), partial(plane, task, name, seed))
            for seed in SEEDS
            for task in PLANE
            for name in COUPLINGS
        ],
        "conditions": [
            ((condition, method, seed), partial(conditions, condition, method, seed))
            for seed in SEEDS
            for condition in ("none", "moon", "coordinate")
            for method in ("independent", "blind", "conditional")
            if (condition, method) != ("none", "conditional")
        ],
        "seconds": [
            ((name, n, dimension), partial(seconds, name, n, dimension))
            for name, dimension, largest in (
                ("exact", 2, 4096),
                ("exact", 3072, 4096),
                ("partition", 2, 16384),
                ("sinkhorn", 2, 1024),
            )
            for n in (64, 256, 1024, 4096, 16384)
            if n <= largest
        ],
    }
    return made[part]


def floors() -> dict[str, float]:
    """What a perfect model scores: W2 on the plane, and its square where 4,096 points are compared."""

    def many(n: int, *, generator: Generator | None = None) -> Tensor:
        return sample(n, "none", generator, balanced=True)[1]

    squared = noise_floor(_squared, many, MANY, repeats=2, generator=generator(99))
    return {"conditions": round(squared, 5)} | {task.name: round(task.floor, 4) for task in PLANE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("plane", "conditions", "seconds"))
    chosen = parser.parse_args().part
    torch.set_num_threads(1)
    for part in [chosen] if chosen else ["plane", "conditions", "seconds"]:
        for key, job in jobs(part):
            kept = json.loads(DATA.read_text()) if DATA.exists() else {"floors": floors()}
            rows = kept.setdefault(part, [])
            if any(tuple(row[: len(key)]) == key for row in rows):
                continue
            made = job()
            kept = json.loads(DATA.read_text()) if DATA.exists() else kept  # another part may have written
            row = [*key, {name: float(f"{value:.4g}") for name, value in made.items()}]
            kept.setdefault(part, []).append(row)
            lines = ",\n".join(
                f"{json.dumps(name)}: "
                + (json.dumps(x) if isinstance(x, dict) else "[\n" + ",\n".join(map(json.dumps, x)) + "\n]")
                for name, x in kept.items()
            )
            DATA.write_text("{\n" + lines + "\n}\n")
            print(*row, flush=True)


if __name__ == "__main__":
    main()
