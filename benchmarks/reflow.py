"""What reflow does to the model family, round by round, and what it costs: the numbers that chapter 8 claims.

    python -m benchmarks.reflow            # everything, some minutes on one CPU thread
    python -m benchmarks.reflow drift      # only this part; the others stay as they were recorded

Writes flowcourse/reflow.json. Every member is the family's network, trained for STEPS steps on the eight Gaussians; a
round carries POOL fresh points of noise with the member before it, and trains on these pairs.

- "teacher": the first round, with pairs by RK4 or by Euler's method, into fresh or into inherited weights.
- "drift": five rounds on a model's own pairs alone; with half of the pairs from real data, carried backwards; and with
  real data alone, each paired with a fresh noise next to where it was carried.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor

from flowcourse import family
from flowcourse.budgets import generator
from flowcourse.family import BATCH, NOISE_TO_EIGHT, POINTS, SEEDS, train
from flowlib.couplings import partition
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.metrics import wasserstein2
from flowlib.nets import VelocityMLP
from flowlib.rectified import rectify, straightness
from flowlib.solvers import DOPRI5, EULER, RK4, Tableau, odeint

DATA = Path(__file__).resolve().parent.parent / "flowcourse" / "reflow.json"
STEPS, POOL, ROUNDS = 1500, 2**14, 5
TASK = NOISE_TO_EIGHT


def pairs(v: Field, g: Generator, *, method: Tableau = RK4, steps: int = 16) -> tuple[Tensor, Tensor]:
    """POOL pairs made by the flow of v from fresh noise."""
    return rectify(v, TASK.start(POOL, generator=g), method=method, steps=steps)


def half_real(v: Field, g: Generator) -> tuple[Tensor, Tensor]:
    """Half of the pairs from fresh noise, half from fresh data."""
    own = rectify(v, TASK.start(POOL // 2, generator=g), steps=16)
    real = rectify(v, TASK.goal(POOL // 2, generator=g), steps=16, backwards=True)
    return torch.cat([own[0], real[0]]), torch.cat([own[1], real[1]])


def renewed(v: Field, g: Generator) -> tuple[Tensor, Tensor]:
    """Fresh data, carried backwards, and then fresh noise in the places nearby: both ends have their own laws."""
    z, x_1 = rectify(v, TASK.goal(POOL, generator=g), steps=16, backwards=True)
    return partition(TASK.start(POOL, generator=g), z, plans=32, generator=g)[0], x_1


def learn(made: tuple[Tensor, Tensor], seed: int, heir: VelocityMLP | None = None) -> VelocityMLP:
    """The family's network, trained on these pairs; it starts as a copy of the heir, or from fresh weights."""
    net = copy.deepcopy(heir) if heir else VelocityMLP(2, generator=generator(seed))

    def loss(v: Field, g: Generator) -> Tensor:
        chosen = torch.randint(len(made[0]), (BATCH,), generator=g)
        return cfm_loss(v, made[1][chosen], x_0=made[0][chosen], generator=g)

    return family.learn(net, loss, generator=generator(seed), steps=STEPS, progress=False).net


@torch.no_grad()
def measured(v: Field, seed: int) -> dict[str, float]:
    """How good and how straight a member is, at points that no training has seen."""
    g = generator(1000 + seed)
    x_0, x_1 = (law(POINTS, generator=g, balanced=True) for law in (TASK.start, TASK.goal))
    end = odeint(v, x_0, method=DOPRI5)
    return {
        "straightness": round(float(straightness(v, x_0)), 5),
        "cost": round(float((end - x_0).square().sum(1).mean()), 4),
        "one step": round(wasserstein2(odeint(v, x_0, steps=1, method=EULER), x_1), 4),
        "adaptive": round(wasserstein2(end, x_1), 4),
    }


def first(seed: int) -> VelocityMLP:
    """The member that knows independent pairs."""
    return train(TASK, seed=seed, steps=STEPS, progress=False).net


def teacher(seed: int) -> dict[str, object]:
    """Four ways to run the first round, with the same 64 evaluations for a pair, and a teacher in a hurry."""
    v, found = first(seed), {}
    for name, method, steps in (("RK4, 16", RK4, 16), ("Euler, 64", EULER, 64), ("Euler, 4", EULER, 4)):
        made = pairs(v, generator(100 + seed), method=method, steps=steps)
        for heir, how in ((v, "inherited"), (None, "fresh")):
            found[f"{name}, {how}"] = measured(learn(made, seed, heir), seed)
    return {"before": measured(v, seed), **found}


def drift(seed: int) -> dict[str, object]:
    """Five rounds with each kind of pairs, from one first member."""
    found: dict[str, object] = {}
    v_0 = first(seed)
    for name, make in (("own", pairs), ("half real", half_real), ("renewed", renewed)):
        v, rounds = v_0, [measured(v_0, seed)]
        for k in range(1, ROUNDS + 1):
            v = learn(make(v, generator(100 * k + seed)), seed + k)
            rounds.append(measured(v, seed))
        found[name] = rounds
    return found


PARTS: dict[str, Callable[[int], dict[str, object]]] = {
    "teacher": teacher,
    "drift": drift,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="run only this part")
    part = parser.parse_args().part
    torch.set_num_threads(1)
    told = {
        "machine": f"one thread of a {platform.machine()} CPU, torch {torch.__version__.split('+')[0]}",
        "task": TASK.name,
        "floor": round(TASK.floor, 4),
        "steps": STEPS,
        "pool": POOL,
    }
    for name in [part] if part else PARTS:
        found = []
        for seed in SEEDS:
            found.append(PARTS[name](seed))
            print(name, seed, found[-1], flush=True)
        kept = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
        DATA.write_text(json.dumps(kept | told | {name: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
