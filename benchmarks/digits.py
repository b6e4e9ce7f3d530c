"""Networks for handwritten digits, and what guidance does to them: the numbers that chapter 9 claims.

    python -m benchmarks.digits train            # all networks, each in its turn; one that was stopped goes on
    python -m benchmarks.digits train velocity   # one of them: see RECIPES
    python -m benchmarks.digits measure          # all methods with all seeds; what was measured before stays

Checkpoints lie in _build/digits. A network that is done is written to flowcourse/handwritten, what it took and what was
measured to flowcourse/digits.json. All on one CPU thread; networks train in bfloat16 and are measured in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, nll_loss

from flowcourse.budgets import generator
from flowcourse.handwritten import (
    HELD_OUT,
    NETWORKS,
    NULL,
    accuracy,
    digits,
    diversity,
    frechet,
    load,
    save,
)
from flowcourse.intervals import wilson
from flowlib.correctors import feynman_kac, resample
from flowlib.fields import Field
from flowlib.guidance import (
    Combine,
    Scale,
    classifier_free,
    classifier_guided,
    drop_labels,
    extrapolate,
    guided,
    interval,
    rescaled,
    zero_init,
    zero_star,
)
from flowlib.guided_distillation import guided_distillation_loss
from flowlib.matching import cfm_loss
from flowlib.paths import linear
from flowlib.solvers import odeint
from flowlib.tableaus import MIDPOINT
from flowlib.training import cosine_decay, fit

ROOT = Path(__file__).resolve().parent.parent
BUILD, DATA = ROOT / "_build" / "digits", ROOT / "flowcourse" / "digits.json"
BATCH, DROPPED = 64, 0.1  # samples a step, and the share of them that lose their label
SCALES = (1.0, 5.0)  # of the distilled field
SEEDS, DRAWN, STEPS = (0, 1, 2), 200, 10  # digits for each point and seed, and steps of the midpoint method
INTERVAL, RESCALE, PARTICLES = (0.2, 0.8), 0.7, 40

Loss = Callable[[Field, Generator], Tensor]


def stratified(n: int, *, generator: Generator | None = None, device: torch.device | None = None) -> Tensor:
    """Uniform times, one in each n-th of [0, 1], in random order: the loss of a batch varies less."""
    draws = torch.rand(n, generator=generator, device=device)
    return (torch.randperm(n, generator=generator, device=device) + draws) / n


def batches() -> Callable[[Generator], tuple[Tensor, Tensor]]:
    """Draws images and labels from those that are not held out."""
    images, labels = (x[:-HELD_OUT] for x in digits())

    def draw(g: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (BATCH,), generator=g)
        return images[chosen], labels[chosen]

    return draw


def velocity() -> Loss:
    draw = batches()

    def loss(v: Field, g: Generator) -> Tensor:
        x_1, label = draw(g)
        label = drop_labels(label, NULL, DROPPED, generator=g)
        return cfm_loss(v, x_1, times=stratified, generator=g, label=label)

    return loss


def distilled() -> Loss:
    draw, inner = batches(), load("velocity")
    teacher = torch.autocast("cpu", dtype=torch.bfloat16)(inner.__call__)

    def loss(v: Field, g: Generator) -> Tensor:
        x_1, label = draw(g)
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * torch.rand(BATCH, generator=g)
        return guided_distillation_loss(
            v, teacher, x_1, scale, cond={"label": label}, null={"label": null(label)},
            times=stratified, generator=g,
        )  # fmt: skip

    return loss


def noisy() -> Loss:
    draw = batches()

    def loss(v: Field, g: Generator) -> Tensor:
        x_1, label = draw(g)
        t = stratified(BATCH, generator=g)
        x_t = linear.sample(torch.randn(x_1.shape, generator=g), moved(x_1, g), t)[0]
        return nll_loss(v(x_t, t), label)

    return loss


def clean() -> Loss:
    draw = batches()

    def loss(v: Field, g: Generator) -> Tensor:
        x_1, label = draw(g)
        return nll_loss(v(moved(x_1, g)), label)

    return loss


def moved(x: Tensor, g: Generator) -> Tensor:
    """Images turned by up to 0.2 radians, stretched by up to a tenth and shifted by up to two pixels."""
    turn, stretch, *shift = (2 * torch.rand(4, len(x), generator=g) - 1).unbind()
    cos, sin = (f(0.2 * turn) * (1 + 0.1 * stretch) for f in (torch.cos, torch.sin))
    rows = torch.stack([cos, -sin, shift[0] / 7, sin, cos, shift[1] / 7], dim=1).reshape(-1, 2, 3)
    return grid_sample(x + 1, affine_grid(rows, list(x.shape), align_corners=False), align_corners=False) - 1


# name: what makes its loss, the seed of its first weights and batches, and what `fit` is told
RECIPES: dict[str, tuple[Callable[[], Loss], int, dict[str, Any]]] = {
    "velocity": (velocity, 0, {"steps": 4000, "lr": 2e-3, "ema": 0.998, "autocast": torch.bfloat16}),
    "weak velocity": (velocity, 1, {"steps": 500, "lr": 2e-3, "ema": 0.99, "autocast": torch.bfloat16}),
    "distilled": (distilled, 2, {"steps": 1500, "lr": 5e-4, "ema": 0.998, "autocast": torch.bfloat16}),
    "classifier": (noisy, 3, {"steps": 5000, "lr": 2e-3, "ema": 0.998}),
    "clean classifier": (clean, 4, {"steps": 3000, "lr": 2e-3, "ema": 0.998}),
    "judge": (clean, 5, {"steps": 4000, "lr": 1e-3, "ema": 0.998}),
}


def train(name: str) -> None:
    make, seed, told = RECIPES[name]
    net = NETWORKS[name](generator=generator(seed))
    if name == "distilled":
        net.load_state_dict(load("velocity").state_dict(), strict=False)  # the scale says nothing at first
    run = fit(
        net, make(), schedule=cosine_decay, clip=1.0, generator=generator(seed),
        checkpoint=BUILD / f"{name}.safetensors", every=200, resume=True, **told,
    )  # fmt: skip
    with run.ema.applied(net):
        save(net, name, ROOT / "flowcourse" / "handwritten")
    curve = run.history[: len(run.history) // 20 * 20].reshape(20, -1).mean(1)
    record(
        "training",
        {
            name: {
                **{
                    key: str(value) if isinstance(value, torch.dtype) else value
                    for key, value in told.items()
                },
                "parameters": sum(p.numel() for p in net.parameters()),
                "batch": BATCH,
                "seconds": round(run.seconds),
                "loss": [round(float(value), 4) for value in curve],
            }
        },
    )


# --- what guidance does ---
# A method makes a field of a scale w and of labels (B,): see METHODS.


def null(label: Tensor) -> Tensor:
    return torch.full_like(label, NULL)


def field(name: str) -> Field:
    net: Any = load(name)
    quick: Field = net.to(memory_format=torch.channels_last)
    return quick


def plain(w: float, label: Tensor) -> Field:
    """The field told the digit (w = 1) or not (w = 0), in one pass."""
    return partial(field("velocity"), label=label if w else null(label))


def free(w: Scale, label: Tensor, combine: Combine = extrapolate) -> Field:
    return classifier_free(field("velocity"), w, cond={"label": label}, null={"label": NULL}, combine=combine)


def within(w: float, label: Tensor) -> Field:
    return free(interval(w, *INTERVAL), label)


def standing(w: float, label: Tensor) -> Field:
    """CFG-Zero*, which stands still in the first step."""
    return zero_init(free(w, label, combine=zero_star), 1 / STEPS - 0.01)


def autoguided(w: float, label: Tensor) -> Field:
    return guided(partial(field("weak velocity"), label=label), plain(1.0, label), w)


def classified(w: float, label: Tensor, *, by: str) -> Field:
    classifier = load(by)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return classifier(x, t).gather(1, label[:, None])[:, 0]

    return classifier_guided(plain(0.0, label), log_prob, w)


def in_one_pass(w: float, label: Tensor) -> Field:
    return partial(field("distilled"), label=label, scale=w)


# name: what makes the field, at which scales, and how many passes of a network an evaluation takes
METHODS: dict[str, tuple[Callable[[float, Tensor], Field], tuple[float, ...], int]] = {
    "unguided": (plain, (0.0, 1.0), 1),
    "classifier-free": (free, (1.5, 2.0, 3.0, 4.0, 6.0, 8.0), 2),
    "classifier": (partial(classified, by="classifier"), (1.0, 2.0, 4.0, 8.0), 2),
    "clean classifier": (partial(classified, by="clean classifier"), (1.0, 4.0), 2),
    "autoguidance": (autoguided, (2.0, 3.0), 2),
    "interval": (within, (2.0, 4.0, 8.0), 2),
    "rescaled": (partial(free, combine=rescaled(RESCALE)), (4.0, 8.0), 2),
    "CFG-Zero*": (standing, (2.0, 4.0), 2),
    "distilled": (in_one_pass, (1.0, 2.0, 3.0, 4.0), 1),
}


@torch.no_grad()
def drawn(make: Callable[[float, Tensor], Field], w: float, seed: int) -> tuple[Tensor, Tensor]:
    """DRAWN images, as many of each digit, and their labels."""
    label = torch.arange(10).repeat(DRAWN // 10)
    noise = torch.randn(DRAWN, 1, 28, 28, generator=generator(1000 + seed))
    parts = [
        odeint(make(w, of), x, steps=STEPS, method=MIDPOINT)
        for x, of in zip(noise.split(100), label.split(100), strict=True)
    ]
    return torch.cat(parts), label


def scored(x: Tensor, label: Tensor) -> dict[str, float]:
    return {
        "accuracy": round(accuracy(x, label).share, 4),
        "diversity": round(diversity(x, label), 4),
        "frechet": round(frechet(x), 4),
        "beyond": round(float((x.abs() > 1.05).float().mean()), 5),
    }


def measure() -> None:
    images, labels = (x[-HELD_OUT:] for x in digits())
    real = [scored(x, y) for x, y in zip(images.split(DRAWN), labels.split(DRAWN), strict=True)]
    record(
        "measured",
        {
            "held out": {name: [of[name] for of in real] for name in real[0]},
            "judge": accuracy(images, labels)._asdict(),
            "samples": DRAWN,
            "solver": f"midpoint, {STEPS} steps",
            "interval": INTERVAL,
            "rescale": RESCALE,
        },
    )
    for seed in SEEDS:
        for name, (make, scales, passes) in METHODS.items():
            for w in scales:
                kept = json.loads(DATA.read_text(encoding="utf-8")).get("rows", {})
                row = kept.get(key := f"{name}, w = {w:g}", {"method": name, "scale": w, "passes": passes})
                if len(row.get("accuracy", [])) > seed:
                    continue
                began = time.process_time()
                x, label = drawn(make, w, seed)
                found = {"seconds": round(time.process_time() - began, 1), **scored(x, label)}
                row |= {measure: [*row.get(measure, []), value] for measure, value in found.items()}
                n = DRAWN * len(row["accuracy"])
                row["accuracy interval"] = [
                    round(end, 4) for end in wilson(round(sum(row["accuracy"]) * DRAWN), n)
                ]
                record("rows", {key: row})
                print(seed, key, found, flush=True)


def corrected() -> dict[str, Any]:
    """Feynman-Kac correction: PARTICLES for each digit, which share what weights they have, at two scales."""
    found: dict[str, Any] = {"particles": PARTICLES, "steps": 100}
    for w in (1.5, 2.0):
        shares, drawn_anew, parts, g = [], 0, [], generator(2000)
        for digit in range(10):
            label = torch.full((PARTICLES,), digit)
            noise = torch.randn(PARTICLES, 1, 28, 28, generator=g)
            made = feynman_kac(plain(0.0, label), plain(1.0, label), w, noise, steps=100, generator=g)
            parts.append(resample(made.x, made.log_weights, generator=g))
            shares.append(made.effective.min())
            drawn_anew += made.resampled
        x, label = torch.cat(parts), torch.arange(10).repeat_interleave(PARTICLES)
        interval = [round(end, 4) for end in accuracy(x, label)[1:]]
        least = round(float(torch.stack(shares).mean()), 4)
        found[f"w = {w:g}"] = scored(x, label) | {
            "accuracy interval": interval,
            "least effective share": least,
            "resampled": drawn_anew / 10,
        }
        print("corrected", w, found[f"w = {w:g}"], flush=True)
    return found


@torch.no_grad()
def distillation_error() -> dict[str, Any]:
    """|one pass - two passes| / |two passes| of the distilled field, in the mean square, on held-out digits."""
    images, labels = (x[-400:] for x in digits())
    student, found = load("distilled"), {}
    times, scales = (0.05, 0.25, 0.5, 0.75, 0.95), (1.0, 2.0, 3.0, 4.0, 5.0)
    for w in scales:
        row = []
        for t in times:
            x_t = linear.sample(torch.randn(images.shape, generator=generator(7)), images, torch.tensor(t))[0]
            two = free(w, labels)(x_t, t)
            one = student(x_t, t, label=labels, scale=w)
            row.append(round(float((one - two).norm() / two.norm()), 4))
        found[f"w = {w:g}"] = row
    return {"times": times, **found}


@torch.no_grad()
def reading() -> dict[str, Any]:
    """The share of held-out digits that each classifier reads right at time t."""
    images, labels = (x[-HELD_OUT:] for x in digits())
    times = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    found: dict[str, Any] = {"times": times}
    for name in ("classifier", "clean classifier"):
        net, g = load(name), generator(7)
        noise = torch.randn(images.shape, generator=g)
        seen = [linear.sample(noise, images, torch.tensor(t))[0] for t in times]
        found[name] = [
            round(float((net(x, t).argmax(1) == labels).float().mean()), 3)
            for x, t in zip(seen, times, strict=True)
        ]
    return found


def record(part: str, found: dict[str, Any]) -> None:
    kept = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    kept[part] = kept.get(part, {}) | found
    kept["machine"] = f"one thread of a {platform.machine()} CPU, torch {torch.__version__.split('+')[0]}"
    DATA.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("name", nargs="?", choices=list(RECIPES), help="train only this network")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.what == "train":
        for name in [asked.name] if asked.name else RECIPES:
            train(name)
    else:
        record("reading", reading())
        record("distillation error", distillation_error())
        measure()
        record("corrected", corrected())


if __name__ == "__main__":
    main()
