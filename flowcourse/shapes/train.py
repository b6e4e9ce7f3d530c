"""Training autoencoder and text-to-image model of chapter 10, and measuring how well the model obeys.

`python -m flowcourse.shapes` calls it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, distributed, nn
from torch.nn.functional import max_pool2d

from flowcourse.intervals import wilson
from flowcourse.shapes.captions import PROMPTS, describe, judge, prompts
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import TOKENIZER, TextToImage, draw
from flowcourse.shapes.optimizer import MuonAdamW, has_bfloat16
from flowcourse.shapes.scenes import Scene, render, sample
from flowlib.autoencoder import Autoencoder
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.processes import place
from flowlib.times import logit_normal
from flowlib.training import cosine_decay, fit

FOLDER = Path("_build/shapes")
Net = TypeVar("Net", bound=nn.Module)
CAPTIONS = 4  # of each scene of the pool
SNAPSHOTS = [500 * 2**k for k in range(10)]  # steps after which the model's weights are kept
DROPPED = 0.1  # how often the model is told nothing
MORE = {
    "one": 0.20,
    "pair": 0.55,
    "count": 0.25,
}  # the mix of the pool: numbers are harder than single objects


def pictures(n: int, generator: Generator) -> Tensor:
    """n pictures of scenes that training may show, (n, 3, 32, 32) from -1 to 1."""
    return 2 * render(sample(n, generator=generator)) - 1


# One process or many, on the CPU or on GPUs


def device() -> torch.device:
    """Where this process computes: on its own GPU, where there are any."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


@contextmanager
def processes() -> Iterator[None]:
    """Inside, this process is one of those that `torchrun` or `accelerate launch` started, if one of them did."""
    if "RANK" not in os.environ:
        yield
        return
    if device().type == "cuda":
        torch.cuda.set_device(device())
    distributed.init_process_group("nccl" if device().type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


# Checkpoints of `fit`


def steps_done(file: Path) -> int:
    """How many steps the checkpoint has behind it; 0 where there is none, or weights alone."""
    if not file.exists():
        return 0
    with safe_open(file, "pt") as opened:
        if "history" not in opened.keys():  # noqa: SIM118
            return 0
        return opened.get_slice("history").get_shape()[0]


def average(file: Path) -> dict[str, Tensor]:
    """The averaged weights of the checkpoint."""
    with safe_open(file, "pt") as opened:
        names = [name for name in opened.keys() if name.startswith("ema.")]  # noqa: SIM118
        return {name.removeprefix("ema."): opened.get_tensor(name) for name in names}


def load_average(net: Net, file: Path) -> Net:
    """The network with the averaged weights of the checkpoint, in evaluation mode."""
    net.load_state_dict(average(file))
    return net.eval()


def digest(net: nn.Module) -> str:
    """Twelve digits that other weights would not have."""
    content = hashlib.sha256()
    for name, x in sorted(net.state_dict().items()):
        content.update(name.encode() + x.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:12]


def keep_snapshot(file: Path) -> None:
    """Keep the checkpoint's averaged weights in half precision, beside it, to see later what was learned when."""
    folder = file.parent / "snapshots"
    folder.mkdir(exist_ok=True)
    halves = {name: x.half() for name, x in average(file).items()}
    save_file(halves, folder / f"{steps_done(file):06}.safetensors")


class Log:
    """A file of JSON lines with the mean loss of every hundred steps and the seconds of training until then.

    Args:
        checkpoint: the run's; the log stands beside it. Lines of steps that it does not know are dropped.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.file = checkpoint.with_suffix(".jsonl")
        self.step, self.losses, self.before = steps_done(checkpoint), list[float](), 0.0
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        self.first = place()[0] == 0
        if self.first:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("".join(f"{line}\n" for line in kept))
        if kept:
            self.before = json.loads(kept[-1])["seconds"]
        self.began = time.perf_counter()

    def of(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The loss, with its values logged."""

        def logged(v: nn.Module, generator: Generator) -> Tensor:
            value = loss(v, generator)
            self.losses.append(value.item())
            self.step += 1
            if self.step % 100 == 0 and self.first:
                seconds = self.before + time.perf_counter() - self.began
                line = {
                    "step": self.step,
                    "loss": round(sum(self.losses) / len(self.losses), 6),
                    "seconds": round(seconds, 1),
                }
                with self.file.open("a") as opened:
                    opened.write(json.dumps(line) + "\n")
                self.losses.clear()
            return value

        return logged


# The autoencoder


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """|y - x| + 2 |y - x|^2 on average, with five times the weight on objects and two pixels around them."""
    corner = x[:, :, :1, :1]  # background
    near = max_pool2d(((x - corner).abs().amax(1, keepdim=True) > 0.05).float(), 5, stride=1, padding=2)
    error, weight = (y - x).abs(), 1 + 4 * near
    return (weight * (error + 2 * error**2)).mean()


def train_autoencoder(
    folder: Path = FOLDER, *, steps: tuple[int, int] = (4000, 4000), batch: int = 64, progress: bool = True
) -> Autoencoder:
    """Train encoder and decoder together, with much noise on the latents; then the decoder alone, with less.

    The second stage costs half as much a step, and sharpens what the decoder draws without moving the latents.
    """
    net = Autoencoder(generator=Generator().manual_seed(0))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def both(v: Callable[..., Tensor], g: Generator) -> Tensor:
        x = pictures(batch, g)
        return reconstruction_loss(v(x, noise=0.2, generator=g), x)

    def decoder(v: Callable[..., Tensor], g: Generator) -> Tensor:
        x = pictures(batch, g)
        with torch.no_grad():
            z = net.encode(x)
        return reconstruction_loss(v(z + 0.1 * torch.randn(z.shape, generator=g)), x)

    for name, part, loss, n, rate in (
        ("autoencoder", net, both, steps[0], 2e-3),
        ("decoder", net.decoder, decoder, steps[1], 1e-3),
    ):
        file = folder / f"{name}.safetensors"
        fit(
            part,
            Log(file).of(loss),
            steps=n,
            lr=rate,
            schedule=cosine_decay,
            clip=1.0,
            generator=Generator().manual_seed(1),
            checkpoint=file,
            every=500,
            resume=True,
            progress=progress,
        )
        load_average(part, file)
        net.eval()
    return net


def load_autoencoder(folder: Path = FOLDER) -> Autoencoder:
    """The trained autoencoder."""
    net = Autoencoder(generator=Generator())
    load_average(net, folder / "autoencoder.safetensors")
    load_average(net.decoder, folder / "decoder.safetensors")
    return net.requires_grad_(False)


# The model


def make_pool(autoencoder: Autoencoder, n: int, generator: Generator) -> dict[str, Tensor]:
    """n scenes as latents (n, 4, 8, 8) in half precision, with `CAPTIONS` captions of each: tokens (n, CAPTIONS, L)."""
    latents, tokens = [], []
    for k in range(0, n, 1000):
        scenes = sample(min(1000, n - k), generator=generator, mix=MORE)
        latents.append(autoencoder.encode(2 * render(scenes) - 1).half())
        said = [TOKENIZER([*map(str, describe(scenes, generator=generator))]) for _ in range(CAPTIONS)]
        tokens.append(torch.stack(said, dim=1).byte())
    return {"latents": torch.cat(latents), "tokens": torch.cat(tokens)}


def load_pool(folder: Path, n: int) -> dict[str, Tensor]:
    """The pool of training, made at the first call: a thousand scenes a second."""
    file = folder / "pool.safetensors"
    if not file.exists() and place()[0] == 0:
        made = make_pool(load_autoencoder(folder), n, Generator().manual_seed(2))
        save_file(made, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    if place()[1] > 1:
        distributed.barrier()
    return load_file(file)


def warm_then_decay(fraction: float) -> float:
    """The schedule that rises during the first hundredth, stays, and falls to 0 during the last quarter, so that
    how long a run is to be can still be decided while it stays.
    """
    return min(1.0, 100 * fraction + 1e-3, 4 * (1 - fraction))


def learn(
    net: nn.Module,
    loss: Callable[..., Tensor],
    checkpoint: Path,
    *,
    steps: int,
    every: int,
    generator: Generator,
    compile: bool,
    lr: float = 2e-3,
    accept_changes: bool = False,
    progress: bool = True,
) -> None:
    """Fit model or student, from the last checkpoint on, by Muon, with a log beside it."""
    fit(
        net,
        Log(checkpoint).of(loss),
        steps=steps,
        lr=lr,
        schedule=warm_then_decay,
        optimizer=MuonAdamW,
        clip=1.0,
        autocast=torch.bfloat16 if has_bfloat16() else None,
        compile=compile,
        generator=generator,
        checkpoint=checkpoint,
        every=every,
        resume=True,
        accept_changes=accept_changes,
        progress=progress,
    )


def train_model(
    folder: Path = FOLDER,
    *,
    steps: int = 24_000,
    batch: int = 128,
    scenes: int = 300_000,
    every: int = 500,
    compile: bool = True,
    start: TextToImage | None = None,
    accept_changes: bool = False,
    progress: bool = True,
) -> TextToImage:
    """Train text encoder and MMDiT by conditional flow matching on the latents, with the caption dropped 1 time in 10.

    Args:
        folder: of the checkpoints; that of the autoencoder must be there.
        steps: how many, those of a resumed run included.
        batch: latents of a step, for each process.
        scenes: of the pool.
        every: steps from one checkpoint to the next: about two minutes of one core.
        compile: compile the network first, which takes a minute and nearly halves a step.
        start: a model whose weights are to be the first, in place of random ones.
        accept_changes: go on with another number of steps than the checkpoint was told, say to end earlier.
        progress: show a progress bar.
    """
    where, (rank, _) = device(), place()
    pool = load_pool(folder, scenes)
    latents, tokens = (pool[name].to(where) for name in ("latents", "tokens"))
    net = TextToImage(generator=Generator().manual_seed(0)).to(where)
    if start is not None:
        net.load_state_dict(start.state_dict())
    times = logit_normal(-1.0)

    file = folder / "model.safetensors"
    steps_so_far = itertools.count(steps_done(file))

    def loss(v: Field, g: Generator) -> Tensor:
        step = next(steps_so_far)
        if step in SNAPSHOTS and rank == 0 and step == steps_done(file):
            keep_snapshot(file)
        k = torch.randint(len(latents), (batch,), generator=g, device=where)
        said = tokens[k, torch.randint(CAPTIONS, (batch,), generator=g, device=where)].long()
        kept = torch.rand(batch, 1, generator=g, device=where) >= DROPPED
        return cfm_loss(v, latents[k].float(), times=times, generator=g, tokens=said * kept)

    learn(
        net,
        loss,
        file,
        steps=steps,
        every=every,
        generator=Generator(where).manual_seed(1 + rank),
        compile=compile,
        accept_changes=accept_changes,
        progress=progress,
    )
    return load_model(folder)


def load_model(folder: Path = FOLDER) -> TextToImage:
    """The trained model, with averaged weights, as far as its last checkpoint has it."""
    net = load_average(TextToImage(generator=Generator()), folder / "model.safetensors")
    return net.requires_grad_(False)


# The evaluation


@dataclass(frozen=True)
class Adherence:
    """How many of n pictures obey their prompts."""

    obeyed: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share."""
        return wilson(self.obeyed, self.n)


def evaluate(
    net: TextToImage,
    autoencoder: Autoencoder,
    *,
    n: int = 200,
    guidance_scale: float = 4.0,
    steps: int = 20,
    generator: Generator,
) -> dict[str, Adherence]:
    """Adherence for each skill: n prompts, a picture for each, which the exact detector judges."""
    found = {}
    for skill in PROMPTS:
        demands = prompts(skill, n, generator=generator)
        pictures = draw(
            net,
            autoencoder,
            [*map(str, demands)],
            guidance_scale=guidance_scale,
            steps=steps,
            generator=generator,
        )
        found[skill] = Adherence(sum(map(judge, detect(pictures), demands)), n)
    return found


def changed(autoencoder: Autoencoder, scenes: Sequence[Scene]) -> int:
    """How many scenes the detector no longer finds in the autoencoder's reconstructions of their pictures."""
    x = render(scenes)
    with torch.no_grad():
        seen = detect(autoencoder(2 * x - 1) / 2 + 0.5)
    return sum(a != b for a, b in zip(map(_unordered, seen), map(_unordered, scenes), strict=True))


def _unordered(scene: Scene) -> tuple[str, list[tuple[str, str, str]]]:
    return scene.background, sorted((o.shape, o.color, o.size) for o in scene.objects)
