"""Train every method of the course on every task, with all seeds, and record how well it does at what cost.

    python -m benchmarks.leaderboard                 # all rows, about an hour on one CPU thread
    python -m benchmarks.leaderboard "cosine path"   # only the methods whose name holds these words

Writes flowcourse/leaderboard.json, and from it the page book/appendices/leaderboard.md (tools/leaderboard.py). A
new method is one entry in METHODS; rows of methods that are not run stay as they were recorded.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowcourse.budgets import generator
from flowcourse.family import BATCH, SEEDS, STEPS, TASKS, Member, Task, evaluate, learn, train
from flowlib.couplings import exact as coupling
from flowlib.couplings import partition
from flowlib.fields import Field
from flowlib.flow_maps import AverageVelocity, FlowMapMLP, mean_flow_loss
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.paths import AffinePath, cosine, linear
from flowlib.rectified import rectify
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


Pool = tuple[Tensor, Tensor]
MakePool = Callable[[Task, int], Pool]


def picked(pool: Pool, g: Generator) -> Pool:
    """A batch from a pool of pairs."""
    chosen = torch.randint(len(pool[0]), (BATCH,), generator=g)
    return pool[0][chosen], pool[1][chosen]


def transported(task: Task, seed: int) -> Pool:
    """A pool of 65,536 pairs, 16 exact couplings of 4,096 balanced points each."""
    g = generator(500 + seed)
    draws = [
        coupling(*(law(4096, generator=g, balanced=True) for law in (task.start, task.goal)))
        for _ in range(16)
    ]
    x_0, x_1 = (torch.cat(ends) for ends in zip(*draws, strict=True))
    return x_0, x_1


def reflowed(task: Task, seed: int) -> Pool:
    """A pool of 65,536 pairs, half of them from data carried backwards, by a member trained on independent pairs."""
    teacher, g = train(task, seed=seed, progress=False), generator(500 + seed)
    own = rectify(teacher.net, task.start(2**15, generator=g))
    real = rectify(teacher.net, task.goal(2**15, generator=g), backwards=True)
    x_0, x_1 = (torch.cat(ends) for ends in zip(own, real, strict=True))
    return x_0, x_1


def renewed(task: Task, seed: int) -> Pool:
    """A pool of 65,536 pairs: data carried backwards by such a member, then fresh noise in the places nearby."""
    teacher, g = train(task, seed=seed, progress=False), generator(500 + seed)
    z, x_1 = rectify(teacher.net, task.goal(2**16, generator=g), backwards=True)
    x_0, _ = partition(task.start(2**16, generator=g), z, plans=32, generator=g)
    return x_0, x_1


def on_pairs(task: Task, *, seed: int, progress: bool, pool: MakePool) -> Member:
    """Flow matching on a pool of pairs."""
    pairs = pool(task, seed)

    def loss(v: Field, g: Generator) -> Tensor:
        x_0, x_1 = picked(pairs, g)
        return cfm_loss(v, x_1, x_0=x_0, generator=g)

    net = VelocityMLP(2, generator=generator(seed))
    return learn(net, loss, generator=generator(seed), progress=progress)


def in_one_step(task: Task, *, seed: int, progress: bool, pool: MakePool) -> Member:
    """Distillation: only what one step needs, the velocity at t = 0, which is to be x_1 - x_0."""
    pairs = pool(task, seed)

    def loss(v: Field, g: Generator) -> Tensor:
        x_0, x_1 = picked(pairs, g)
        return mse_loss(v(x_0, torch.zeros(BATCH)), x_1 - x_0)

    net = VelocityMLP(2, generator=generator(seed))
    return learn(net, loss, generator=generator(seed), progress=progress)


def mean_flow(task: Task, *, seed: int, progress: bool, pool: MakePool | None = None) -> Member:
    """MeanFlow, with fresh independent pairs or on a pool."""
    pairs = pool(task, seed) if pool else None

    def loss(u: AverageVelocity, g: Generator) -> Tensor:
        x_0, x_1 = (
            picked(pairs, g) if pairs else (task.start(BATCH, generator=g), task.goal(BATCH, generator=g))
        )
        return mean_flow_loss(u, x_1, x_0=x_0, generator=g)

    net = FlowMapMLP(2, generator=generator(seed))
    return learn(net, loss, generator=generator(seed), progress=progress)


METHODS = {
    "the exact field, linear path": Method(4, exact, linear),
    "flow matching, linear path": Method(4, train, linear),
    "flow matching, cosine path": Method(6, partial(train, path=cosine), cosine),
    "linear path, reference recipe": Method(6, reference, linear),
    "optimal pairs of 4,096": Method(7, partial(train, coupling=partition, large=4096), None),
    "reflow, one round": Method(8, partial(on_pairs, pool=reflowed), None),
    "reflow, then distilled to one step": Method(8, partial(in_one_step, pool=reflowed), None),
    "reflow, renewed pairs": Method(8, partial(on_pairs, pool=renewed), None),
    "renewed pairs, distilled to one step": Method(8, partial(in_one_step, pool=renewed), None),
    "MeanFlow, independent pairs": Method(8, mean_flow, linear),
    "MeanFlow, large optimal pairs": Method(8, partial(mean_flow, pool=transported), None),
    "one step, large optimal pairs": Method(8, partial(in_one_step, pool=transported), None),
}


def row(name: str, method: Method, task: Task) -> dict[str, object]:
    """Train and measure with every seed."""
    seconds, scores = [], []
    for seed in SEEDS:
        began = time.process_time()
        net = method.train(task, seed=seed, progress=False).net
        seconds.append(round(time.process_time() - began, 1))
        u = net if isinstance(net, FlowMapMLP) else None
        scores.append(dataclasses.asdict(evaluate(task, net, seed=seed, path=method.path, u=u)))
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
        "seconds": seconds,
        "scores": measures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="?", default="", help="run only methods whose name holds these words")
    words = parser.parse_args().words
    torch.set_num_threads(1)
    kept = leaderboard.read() if leaderboard.DATA.exists() else {"rows": [], "tasks": {}}
    rows = {(r["method"], r["task"]): r for r in kept["rows"]}
    machine = f"one thread of a {platform.machine()} CPU, torch {torch.__version__.split('+')[0]}"
    tasks, order = list(TASKS), list(METHODS)
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
                listed = sorted(
                    rows.values(), key=lambda r: (tasks.index(r["task"]), order.index(r["method"]))
                )
                leaderboard.write({"machine": machine, "tasks": kept["tasks"], "rows": listed})


if __name__ == "__main__":
    main()
