"""A student that in four evaluations obeys as often as its teacher in forty.

Guidance is distilled into one pass as in chapter 9, and steps into jumps as in chapter 8: the teacher's guided
trajectories are solved once, and of those whose pictures obey the student learns the average velocities of the jumps
that it takes.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowcourse.shapes.captions import describe, judge
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import CONFIG, LATENT, TOKENIZER, TextToImage, decoded, guided, moments
from flowcourse.shapes.optimizer import has_bfloat16
from flowcourse.shapes.scenes import sample
from flowcourse.shapes.train import (
    FOLDER,
    digest,
    learn,
    load_autoencoder,
    load_average,
    load_model,
    steps_done,
)
from flowlib.fields import Field
from flowlib.guidance import Scale
from flowlib.solvers import odeint
from flowlib.tableaus import MIDPOINT

PIECES = 8  # of a trajectory
# How often the student is asked for the way from one piece's start to another's end: those of three passes, mostly
JUMPS = {(0, 4): 0.32, (4, 6): 0.3, (6, 8): 0.32, (4, 8): 0.03, (0, 8): 0.03}


@torch.no_grad()
def trajectories(net: TextToImage, tokens: Tensor, scale: Scale, *, generator: Generator) -> Tensor:
    """Solutions of the guided flow at the ends of the pieces, (B, PIECES + 1, 4, 8, 8), for captions (B, L).

    A midpoint step a piece: four fifths of the evaluations of the teacher's own 20 Euler steps, and nearer to the flow.
    """
    x = torch.randn(len(tokens), *LATENT, generator=generator)
    found, field = [x], guided(net, tokens, scale)
    for times in itertools.pairwise(moments(PIECES).tolist()):
        found.append(odeint(field, found[-1], times=times, method=MIDPOINT))
    return torch.stack(found, dim=1)


def load_trajectories(
    folder: Path, n: int, scale: float, *, first: int = 0, part: int = 2000
) -> dict[str, Tensor]:
    """Of n of them, for captions of training, those whose pictures obey: x in half precision, with the tokens (m, L).

    They are solved at the first call. Each `part` has a file of its own, so that a call that was stopped goes on; its
    name tells one teacher from another. `first` is where they begin in the list of all.

    Raises:
        ValueError: no picture obeys, or `first` is within a part.
    """
    if first < 0 or first % part:
        raise ValueError(f"first must be a multiple of {part}, got {first}")
    net, parts = load_model(folder), []
    teacher = digest(net)
    for k in range(first, first + n, part):
        file = folder / "trajectories" / f"{teacher}-{scale:g}-{k:07}.safetensors"
        if not file.exists():
            g = Generator().manual_seed(5 + k)
            demands = describe(sample(part, generator=g), generator=g)
            tokens = TOKENIZER([*map(str, demands)])
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):  # errs less than the steps do
                solved = [trajectories(net, some, scale, generator=g).half() for some in tokens.split(250)]
            decoder = load_autoencoder(folder)
            scenes = [scene for some in solved for scene in detect(decoded(decoder, some[:, -1].float()))]
            obeys = torch.tensor([*map(judge, scenes, demands)])
            made = {"x": torch.cat(solved), "tokens": tokens.byte(), "obeys": obeys}
            file.parent.mkdir(exist_ok=True)
            save_file(made, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
        parts.append(load_file(file))
    found = {name: torch.cat([some[name] for some in parts])[:n] for name in ("x", "tokens", "obeys")}
    if not found["obeys"].any():
        raise ValueError(f"none of {n} pictures of the teacher obeys its caption: it must be trained first")
    return {name: found[name][found["obeys"]] for name in ("x", "tokens")}


def new_student(teacher: TextToImage) -> TextToImage:
    """A network that answers at first as its teacher does, without guidance, whatever the end."""
    net = TextToImage(replace(CONFIG, end_input=True), generator=Generator().manual_seed(0))
    net.load_state_dict(teacher.state_dict(), strict=False)
    return net.requires_grad_(True)


def train_student(
    folder: Path = FOLDER,
    *,
    steps: int = 10_000,
    batch: int = 128,
    n: int = 84_000,
    first: int = 0,
    scale: float = 4.0,
    lr: float = 2e-3,
    every: int = 500,
    compile: bool = True,
    start: TextToImage | None = None,
    accept_changes: bool = False,
    progress: bool = True,
) -> TextToImage:
    """Train the student by regression on the average velocities of `JUMPS` on the teacher's trajectories that obey.

    Args:
        folder: of the checkpoints; the model's must be there.
        steps: how many, those of a resumed run included.
        batch: trajectories of a step, at one pair of moments each.
        n: trajectories that are solved; it learns those whose pictures obey.
        first: of them in the list of all, for a student that is to go on with others than it has seen.
        scale: of the guidance that is learned.
        lr: the learning rate.
        every: steps from one checkpoint to the next.
        compile: compile the network first.
        start: a student whose weights are to be the first, in place of the teacher's.
        accept_changes: go on with another number of steps than the checkpoint was told, say to end earlier, or with
            other trajectories.
        progress: show a progress bar.

    Raises:
        ValueError: the checkpoint was taught other trajectories.
    """
    solved, times = load_trajectories(folder, n, scale, first=first), moments(PIECES)
    starts, ends = torch.tensor([*JUMPS]).T
    often = torch.tensor([*JUMPS.values()])

    def loss(u: Field, g: Generator) -> Tensor:
        k = torch.randint(len(solved["x"]), (batch,), generator=g)
        j = torch.multinomial(often, batch, replacement=True, generator=g)
        x, end = solved["x"][k, starts[j]].float(), solved["x"][k, ends[j]].float()
        s, t = times[starts[j]], times[ends[j]]
        average = (end - x) / (t - s)[:, None, None, None]
        return mse_loss(u(x, s, t, tokens=solved["tokens"][k].long()), average)

    taught = {"first": first, "n": n, "scale": scale, "obey": len(solved["x"])}
    file = folder / "student.taught.json"
    if steps_done(folder / "student.safetensors") and file.exists() and not accept_changes:
        before = json.loads(file.read_text(encoding="utf-8"))
        if before != taught:
            raise ValueError(
                f"the student was taught {before}; got {taught}: accept the changes, or begin anew"
            )
    file.write_text(json.dumps(taught), encoding="utf-8")
    net = new_student(load_model(folder))
    if start is not None:
        net.load_state_dict(start.state_dict())
    learn(
        net,
        loss,
        folder / "student.safetensors",
        steps=steps,
        lr=lr,
        every=every,
        generator=Generator().manual_seed(6),
        compile=compile,
        accept_changes=accept_changes,
        progress=progress,
    )
    return load_student(folder)


def load_student(folder: Path = FOLDER) -> TextToImage:
    """The trained student, with averaged weights, as far as its last checkpoint has it."""
    net = TextToImage(replace(CONFIG, end_input=True), generator=Generator())
    return load_average(net, folder / "student.safetensors").requires_grad_(False)
