"""What each choice in chapter 10's model is worth, at toy scale: the numbers that the chapter claims.

    python -m benchmarks.ablations                 # everything, in about an hour of one CPU thread
    python -m benchmarks.ablations times           # only this part
    python -m benchmarks.ablations --seeds 1       # the first seed only; a later call adds the others
    python -m benchmarks.ablations --quick         # a trial of all code, in two minutes, that records nothing

Trains small text-to-image models on the latents of the trained autoencoder (`python -m flowcourse.shapes
autoencoder`), with captions that say all of a scene but the places, and writes flowcourse/ablations.json after each. It
can be stopped at any time: a run that is done is a line of _build/ablations.jsonl and of the record, and is not run
again. Variants of one seed share their batches' generator and the noise of what is measured.

The first two parts are judged by the loss on unseen scenes, as a mean over uniform times: models as small as these do
not obey yet, but what they are told lowers it. With it stands the loss when they are told another scene's caption.

- "times": four laws of the training's times, at equal steps.
- "attention": the joint attention of MMDiT; the same weights, but the text does not see the picture; and
  cross-attention to a text encoder that has the weights which the text's stream has in the others.
- "qk_norm": with and without, in bfloat16 under autocast at the usual rate and at five times that, and there in
  float32 too, by the largest logit; few steps only, since without instructions for bfloat16 a CPU takes ten times as
  long.
- "shift": few Euler steps on shifted times, for latents 8 x 8 and 16 x 16 of the same scenes, by the distance from the
  exact solution. Only sampling is shifted, not training.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.resuming import Line, Lines
from flowcourse.shapes.captions import LONGEST, Demand, Thing, describe
from flowcourse.shapes.model import TOKENIZER, TextToImage, guided
from flowcourse.shapes.optimizer import MuonAdamW
from flowcourse.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    SIDE,
    SIZES,
    Scene,
    coverage,
    sample,
    signed_distance,
)
from flowcourse.shapes.train import DROPPED, FOLDER, MORE, digest, load_autoencoder, warm_then_decay
from flowlib.autoencoder import Autoencoder
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.mmdit import MMDiTConfig
from flowlib.mmdit_blocks import JointBlock, QKNorm, TokenStream, modulate
from flowlib.nets import SeededLinear, attention, zeroed
from flowlib.paths import linear
from flowlib.solvers import odeint
from flowlib.tableaus import EULER, MIDPOINT
from flowlib.text import TextEncoder
from flowlib.times import logit_normal, mode, resolution_shift, shift, uniform
from flowlib.training import fit

DATA = Path(__file__).resolve().parent.parent / "flowcourse" / "ablations.json"
BUILD = Path("_build")
SEEDS = 3
SCALE = 3.0  # of the guidance
ENLARGED = 2  # how much larger the larger pictures are
LAWS = {law.name: law for law in (uniform, logit_normal(), logit_normal(-1.0), mode(1.29))}
SHIFTS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
BINS = 8  # of time, in each of which the loss on unseen scenes is measured
CONFIG = MMDiTConfig(
    depth=3, heads=2, head_dim=32, text_dim=60, pooled_dim=60, pos_embed_max_size=4, frequencies=64
)
WIDER = 65  # the width of the text encoder of three layers that makes up for the text's stream


@dataclass(frozen=True)
class Recipe:
    """How a model is made: all runs of a recipe differ in their seed only."""

    times: str = "logit-normal(-1, 1)"
    attention: str = "joint"  # or "one way" or "cross"
    qk_norm: bool = True
    bfloat16: bool = False
    rate: float = 4e-3
    steps: int = 1500
    enlarged: int = 1  # the pictures' sides, in units of SIDE


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured, and of how many scenes the pool consists."""

    share: float = 1.0  # of a recipe's steps
    scenes: int = 20_000
    unseen: int = 1000
    batch: int = 64
    few: int = 6
    drawn: int = 200  # with few steps
    fine: int = 20  # steps of the midpoint method that stand for the exact solution


FULL = Budget()
QUICK = Budget(share=0.002, scenes=60, unseen=16, batch=4, few=2, drawn=4, fine=2)
STRESS = Recipe(steps=100)  # bfloat16 is slow where the CPU has no instructions for it
PARTS: dict[str, dict[str, Recipe]] = {
    "times": {name: Recipe(times=name) for name in LAWS},
    "attention": {
        "joint": Recipe(),
        "one way": Recipe(attention="one way"),
        "cross": Recipe(attention="cross"),
    },
    "qk_norm": {
        f"{'with' if norm else 'without'}, {'bf16' if half else 'fp32'}, rate {rate:g}": replace(
            STRESS, qk_norm=norm, bfloat16=half, rate=rate
        )
        for rate, half in ((4e-3, True), (2e-2, True), (2e-2, False))
        for norm in (True, False)
    },
    "shift": {"8 x 8": Recipe(), "16 x 16": Recipe(enlarged=ENLARGED)},
}
# what a part is judged by
MEASURES = {
    "times": "loss",
    "attention": "loss",
    "qk_norm": "largest attention logit",
    "shift": "distance from the exact solution",
}


# The scenes


def enlarged(scenes: Sequence[Scene], k: int) -> Tensor:
    """The pictures (B, 3, k SIDE, k SIDE) of scenes, k times as large, in RGB from 0 to 1."""
    at = torch.arange(k * SIDE) + 0.5
    backgrounds = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes])
    pictures = backgrounds[:, :, None, None].repeat(1, 1, k * SIDE, k * SIDE)
    for picture, scene in zip(pictures, scenes, strict=True):
        for o in scene.objects:
            x, y = (at - k * center for center in o.center)
            distance = signed_distance(o.shape, k * SIZES[o.size], x[None, :], y[:, None])
            color = torch.tensor(COLORS[o.color])[:, None, None]
            picture.copy_(torch.lerp(picture, color, coverage(distance)))
    return pictures


def whole(demand: Demand, scene: Scene) -> Demand:
    """The demand with all that it leaves unsaid of its scene, but the places."""
    shown = [next(o for o in scene.objects if thing.fits(o)) for thing in demand.things]
    things = [Thing(o.shape, o.color, o.size) for o in shown]
    return replace(demand, things=tuple(things), background=scene.background)


def load_pool(autoencoder: Autoencoder, k: int, budget: Budget) -> dict[str, Tensor]:
    """Latents (n, 4, h, w) of scenes, of variance 1 in each channel, the tokens (n, L) of their whole captions, and the
    deviations (4, 1, 1) that they were divided by; made at the first call. The last scenes are for validation.
    """
    n = budget.scenes + budget.unseen
    file = BUILD / f"ablations-{k}-{n}-{digest(autoencoder)}.safetensors"
    if not file.exists():
        g, latents, tokens = Generator().manual_seed(20), [], []
        for first in range(0, n, 500):
            scenes = sample(min(500, n - first), generator=g, mix=MORE)
            latents.append(autoencoder.encode(2 * enlarged(scenes, k) - 1))
            told = describe(scenes, generator=g)
            tokens.append(TOKENIZER([str(whole(*pair)) for pair in zip(told, scenes, strict=True)]))
        z = torch.cat(latents)
        deviation = z.std((0, 2, 3))[:, None, None]
        BUILD.mkdir(exist_ok=True)
        made = {"latents": z / deviation, "tokens": torch.cat(tokens), "deviation": deviation}
        save_file(made, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    return load_file(file)


# The models


class OneWayBlock(JointBlock):
    """A block in which the picture sees the text, and the text itself alone."""

    def forward(self, x: Tensor, y: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift_x, scale_x, *rest_x = self.image.modulation(c)
        shift_y, scale_y, *rest_y = self.text.modulation(c)
        of_x = self.image.queries_keys_values(modulate(x, shift_x, scale_x))
        of_y = self.text.queries_keys_values(modulate(y, shift_y, scale_y))
        both = (torch.cat(pair, dim=1) for pair in zip(of_x[1:], of_y[1:], strict=True))
        x = self.image.update(x, attend(of_x[0], *both), *rest_x)
        return x, y if self.last else self.text.update(y, attend(*of_y), *rest_y)


class CrossBlock(nn.Module):
    """One stream, the picture's, which attends to the text, then to itself; the text stays as the encoder made it.

    Source: Chen et al. (2023), PixArt-alpha, section 2.3; there the attention to itself comes first.
    """

    def __init__(self, d: int, heads: int, generator: Generator | None) -> None:
        super().__init__()
        self.heads = heads
        self.image = TokenStream(d, heads, qk_norm=True, generator=generator)
        self.q, self.kv = SeededLinear(d, d, generator), SeededLinear(d, 2 * d, generator)
        self.norm_q, self.norm_k = QKNorm(d // heads, eps=1e-6), QKNorm(d // heads, eps=1e-6)
        self.out = zeroed(SeededLinear(d, d, generator))

    def forward(self, x: Tensor, y: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        plain = torch.zeros_like(c)[:, None]
        q = self.q(modulate(x, plain, plain)).unflatten(2, (self.heads, -1))
        k, v = self.kv(y).unflatten(2, (2, self.heads, -1)).unbind(2)
        x = x + self.out(attend(self.norm_q(q), self.norm_k(k), v))
        shift, scale, *rest = self.image.modulation(c)
        seen = attend(*self.image.queries_keys_values(modulate(x, shift, scale)))
        return self.image.update(x, seen, *rest), y


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What queries (B, N, heads, d / heads) see of keys and values (B, M, heads, d / heads): (B, N, d)."""
    return attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2).flatten(2)


def network(recipe: Recipe, generator: Generator) -> TextToImage:
    """The recipe's model with its first weights."""
    k = recipe.enlarged  # patches grow with the pictures, so that there are always 16
    config = replace(
        CONFIG, sample_size=8 * k, patch_size=2 * k, qk_norm="rms_norm" if recipe.qk_norm else None
    )
    if recipe.attention == "cross":
        config = replace(config, text_dim=WIDER, pooled_dim=WIDER)
    net = TextToImage(config, generator=generator)
    d, heads = config.width, config.heads
    if recipe.attention == "cross":
        net.text = TextEncoder(len(TOKENIZER), LONGEST, WIDER, heads=5, depth=3, generator=generator)
        net.field.blocks = nn.ModuleList(CrossBlock(d, heads, generator) for _ in range(config.depth))
    elif recipe.attention == "one way":
        net.field.blocks = nn.ModuleList(
            OneWayBlock(d, heads, qk_norm=recipe.qk_norm, generator=generator, last=block.last)
            for block in net.field.blocks
        )
    return net


def trained(recipe: Recipe, seed: int, pool: dict[str, Tensor], budget: Budget) -> tuple[TextToImage, Line]:
    """The model with its averaged weights; what the training told, and the largest logit of the weights themselves."""
    latents, tokens = pool["latents"][: budget.scenes], pool["tokens"][: budget.scenes]

    def loss(v: Field, g: Generator) -> Tensor:
        k = torch.randint(len(latents), (budget.batch,), generator=g)
        kept = torch.rand(budget.batch, 1, generator=g) >= DROPPED
        return cfm_loss(v, latents[k], times=LAWS[recipe.times], generator=g, tokens=tokens[k] * kept)

    steps = max(2, round(budget.share * recipe.steps))
    net = network(recipe, Generator().manual_seed(seed))
    told: Line = {"parameters": sum(p.numel() for p in net.parameters())}
    try:
        run = fit(
            net,
            loss,
            steps=steps,
            lr=recipe.rate,
            schedule=warm_then_decay,
            optimizer=MuonAdamW,
            ema=0.99,
            clip=1.0,
            autocast=torch.bfloat16 if recipe.bfloat16 else None,
            generator=Generator().manual_seed(100 + seed),
            progress=False,
        )
    except FloatingPointError as error:
        return net.eval(), told | {"failed": str(error)}
    told["last losses"] = round(float(run.history[-max(1, steps // 10) :].mean()), 4)
    told["worst loss"] = round(float(run.history[steps // 10 :].max()), 4)
    net.eval().requires_grad_(False)
    if recipe.attention == "joint":
        told["largest logit"] = round(largest_logit(net, unseen(pool, budget)), 2)
    net.load_state_dict(run.ema.tensors)
    return net, told


# What is measured


def unseen(pool: dict[str, Tensor], budget: Budget) -> tuple[Tensor, Tensor]:
    """Latents and tokens of scenes that no training has seen."""
    return pool["latents"][budget.scenes :], pool["tokens"][budget.scenes :]


def largest_logit(net: TextToImage, some: tuple[Tensor, Tensor]) -> float:
    """The greatest |q . k| / sqrt(d) of all blocks and tokens, on noised latents at times all over [0, 1]."""
    found: dict[nn.Module, Tensor] = {}
    z, tokens = (x[:64] for x in some)
    t = (torch.arange(len(z)) + 0.5) / len(z)
    x_t = linear.sample(torch.randn(z.shape, generator=Generator().manual_seed(30)), z, t)[0]
    streams = [stream for block in net.field.blocks for stream in (block.image, block.text)]
    hooks = [
        part.register_forward_hook(lambda module, _, out: found.update({module: out}))
        for stream in streams
        for part in (stream.norm_q, stream.norm_k)
    ]
    net(x_t, t, tokens=tokens)
    for hook in hooks:
        hook.remove()
    logits = []
    for block in net.field.blocks:
        q, k = (
            torch.cat([found[getattr(stream, name)] for stream in (block.image, block.text)], 1).transpose(
                1, 2
            )
            for name in ("norm_q", "norm_k")
        )
        logits.append(float((q @ k.transpose(2, 3)).abs().max()) * q.shape[3] ** -0.5)
    return max(logits)


def losses(net: TextToImage, some: tuple[Tensor, Tensor], seed: int) -> list[float]:
    """The mean loss on unseen scenes in each of BINS equal parts of time, told their captions."""
    g, (z, tokens), found = Generator().manual_seed(200 + seed), some, []
    for k in range(BINS):
        t = (k + torch.rand(len(z), generator=g)) / BINS
        x_t, u_t = linear.sample(torch.randn(z.shape, generator=g), z, t)
        found.append(round(float(mse_loss(net(x_t, t, tokens=tokens), u_t)), 5))
    return found


def noise(n: int, recipe: Recipe, g: Generator) -> Tensor:
    return torch.randn(n, 4, 8 * recipe.enlarged, 8 * recipe.enlarged, generator=g)


def shifted(
    net: TextToImage, recipe: Recipe, seed: int, pool: dict[str, Tensor], budget: Budget
) -> dict[str, float]:
    """For each shift the relative distance of a few guided Euler steps from the exact solution."""
    x_0 = noise(budget.drawn, recipe, Generator().manual_seed(400 + seed))
    v = guided(net, unseen(pool, budget)[1][: budget.drawn], SCALE)
    exact, found = odeint(v, x_0, steps=budget.fine, method=MIDPOINT), {}
    for s in SHIFTS:
        z = odeint(v, x_0, times=shift(torch.linspace(0, 1, budget.few + 1), s), method=EULER)
        found[f"{s:g}"] = round(float((z - exact).norm() / exact.norm()), 4)
    return found


@torch.no_grad()
def measured(net: TextToImage, recipe: Recipe, seed: int, pool: dict[str, Tensor], budget: Budget) -> Line:
    """Losses on unseen scenes, told their captions or others; with shifts where their part asks."""
    z, tokens = unseen(pool, budget)
    by_time = losses(net, (z, tokens), seed)
    found: Line = {"losses by time": by_time, "loss": round(statistics.mean(by_time), 5)}
    found["loss, told another"] = round(statistics.mean(losses(net, (z, tokens.roll(1, 0)), seed)), 5)
    if recipe in PARTS["shift"].values():
        found["shift"] = shifted(net, recipe, seed, pool, budget)
    return found


def run(recipe: Recipe, seed: int, autoencoder: Autoencoder, budget: Budget) -> Line:
    """One model, trained and measured."""
    pool = load_pool(autoencoder, recipe.enlarged, budget)
    net, told = trained(recipe, seed, pool, budget)
    told["autoencoder"] = digest(autoencoder)
    return told if "failed" in told else told | measured(net, recipe, seed, pool, budget)


# The record


def key(recipe: Recipe, seed: int, budget: Budget) -> Line:
    return {"recipe": asdict(recipe), "seed": seed, "budget": asdict(budget)}


def values(part: str, lines: dict[str, list[Line]]) -> dict[str, dict[str, list[float]]]:
    """Of every measure of a part, by name and variant, the value of each seed; lines has the seeds of each variant."""
    tables: dict[str, dict[str, list[float]]] = {}

    def enter(measure: str, variant: str, value: float) -> None:
        tables.setdefault(measure, {}).setdefault(variant, []).append(round(value, 5))

    for variant, found in lines.items():
        for line in found:
            if "failed" in line:
                continue
            for name in ("loss", "loss, told another", "last losses", "worst loss", "parameters"):
                enter(name, variant, line[name])
            if part == "qk_norm":
                enter(MEASURES[part], variant, line["largest logit"])
            if part == "shift":
                for s, distance in line["shift"].items():
                    enter(MEASURES[part], f"{variant}, shift {s}", distance)
            if part == "times":
                for k, value in enumerate(line["losses by time"]):
                    enter(f"loss from {k}/{BINS} to {k + 1}/{BINS}", variant, value)
    return tables


def record(lines: Lines, budget: Budget) -> Line:
    """What flowcourse/ablations.json has: of each part the measure that it is judged by, with all values, their means
    and standard deviations over seeds; the other measures; and the lines themselves, from which a later run goes on.
    """
    told: Line = {
        "machine": f"one thread of a {platform.machine()} CPU, torch {torch.__version__.split('+')[0]}",
        "settings": {
            "recipe": asdict(Recipe()),
            "budget": asdict(budget),
            "guidance scale": SCALE,
            "shift by the resolution rule": resolution_shift(ENLARGED**2, 1),
            "width, depth": [CONFIG.width, CONFIG.depth],
        },
    }
    for part, recipes in PARTS.items():
        found = {
            variant: [x for seed in range(SEEDS) if (x := lines.find(key(recipe, seed, budget))) is not None]
            for variant, recipe in recipes.items()
        }
        tables = values(part, found)
        main = tables.pop(MEASURES[part], {})
        told[part] = {
            "measure": MEASURES[part],
            "seeds": min(map(len, found.values())),
            "failed": {name: sum("failed" in line for line in some) for name, some in found.items()},
            "runs": main,
            "mean": {name: round(statistics.mean(some), 5) for name, some in main.items()},
            "deviation": {
                name: round(statistics.stdev(some), 5) for name, some in main.items() if len(some) > 1
            },
            "others": tables,
        }
    return told | {"lines": lines.all}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="run only this part")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the trained autoencoder")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, {SEEDS} at most")
    parser.add_argument("--quick", action="store_true", help="a trial that records nothing")
    told = parser.parse_args(arguments)
    torch.set_num_threads(1)
    autoencoder, budget = load_autoencoder(told.folder), QUICK if told.quick else FULL
    before = json.loads(DATA.read_text(encoding="utf-8"))["lines"] if DATA.exists() and not told.quick else []
    lines = Lines(BUILD / f"ablations{'-quick' if told.quick else ''}.jsonl", before)
    for seed in range(min(told.seeds, SEEDS)):
        for recipes in [PARTS[told.part]] if told.part else PARTS.values():
            for recipe in recipes.values():
                lines.once(key(recipe, seed, budget), partial(run, recipe, seed, autoencoder, budget))
                if not told.quick:
                    DATA.write_text(json.dumps(record(lines, budget), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
