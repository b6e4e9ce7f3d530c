"""Train every method of the course on every task, with all seeds, and record how well it does at what cost.

    python -m benchmarks.leaderboard                 # all rows, about four minutes on one CPU thread
    python -m benchmarks.leaderboard "cosine path"   # only the methods whose name holds these words

Writes flowcourse/leaderboard.json, and from it the page book/appendices/leaderboard.md (tools/leaderboard.py). A
new method is one entry in METHODS; rows of methods that are not run stay as they were recorded.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from flowcourse.budgets import generator
from flowcourse.family import BATCH, SEEDS, STEPS, TASKS, Member, Task, evaluate, train
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.paths import AffinePath, cosine, linear
from flowlib.training import fit
from tools import leaderboard


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make a member: the chapter that explains it, how it is trained, and the path of its exact field."""

    chapter: int
    train: Callable[..., Member]
    path: AffinePath | None


def reference(task: Task, *, seed: int, progress: bool) -> Member:
    """The published recipe of Tong et al. (2024) for two dimensions: jitter .1, Adam at 1e-3, no decay, no average."""
    net = VelocityMLP(2, generator=generator(seed))

    def loss(v: Field, g: Generator) -> Tensor:
        x_1, x_0 = task.goal(BATCH, generator=g), task.start(BATCH, generator=g)
        return cfm_loss(v, x_1, x_0=x_0, jitter=0.1, generator=g)

    run = fit(net, loss, steps=STEPS, lr=1e-3, ema=0.0, generator=generator(seed), progress=progress)
    return Member(net.eval(), run.history, run.seconds)


def exact(task: Task, *, seed: int, progress: bool) -> Member:
    """The exact field, which no training can beat: what is left is the solver's error."""
    return Member(task.velocity(), torch.zeros(0), 0.0)


METHODS = {
    "the exact field, linear path": Method(4, exact, linear),
    "flow matching, linear path": Method(4, train, linear),
    "flow matching, cosine path": Method(6, partial(train, path=cosine), cosine),
    "linear path, reference recipe": Method(6, reference, linear),
}


def row(name: str, method: Method, task: Task) -> dict[str, object]:
    """Train and measure with every seed."""
    members, scores = [], []
    for seed in SEEDS:
        members.append(method.train(task, seed=seed, progress=False))
        scores.append(dataclasses.asdict(evaluate(task, members[-1].net, seed=seed, path=method.path)))
        print(f"{name}, {task.name}, seed {seed}: W2 {scores[-1]['w2']['adaptive']:.3f}", flush=True)
    measures = {f"W2 at {n}": [round(s["w2"][n], 4) for s in scores] for n in (1, 2, 4, 8, "adaptive")}
    for measure, digits in (("nfe", 0), ("npe", 4), ("nll", 4), ("field_error", 4)):
        values = [s[measure] for s in scores]
        if None not in values:
            measures[measure] = [round(value, digits) if digits else value for value in values]
    return {
        "method": name,
        "chapter": method.chapter,
        "task": task.name,
        "seeds": list(SEEDS),
        "steps": 0 if method.train is exact else STEPS,
        "seconds": [round(m.seconds, 1) for m in members],
        "scores": measures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="?", default="", help="run only methods whose name holds these words")
    words = parser.parse_args().words
    torch.set_num_threads(1)
    kept = leaderboard.read() if leaderboard.DATA.exists() else {"rows": [], "tasks": {}}
    rows = {(r["method"], r["task"]): r for r in kept["rows"]}
    for task in TASKS.values():
        kept["tasks"][task.name] = {
            "floor": round(task.floor, 4),
            "entropy": task.target.entropy,
            "squared distance": round(task.squared_distance, 4),
        }
        for name, method in METHODS.items():
            known = isinstance(task.target, GaussianMixture) or method.train is not exact
            if known and words in name:
                rows[name, task.name] = row(name, method, task)
    tasks, order = list(TASKS), list(METHODS)
    listed = sorted(rows.values(), key=lambda r: (tasks.index(r["task"]), order.index(r["method"])))
    machine = f"one thread of a {platform.machine()} CPU, torch {torch.__version__.split('+')[0]}"
    leaderboard.write({"machine": machine, "tasks": kept["tasks"], "rows": listed})


if __name__ == "__main__":
    main()
