"""A student that draws in four evaluations what its teacher draws in forty: the map of the guided flow.

Guidance is distilled into one pass as in chapter 9, and steps into jumps as in chapter 8: the teacher's guided
trajectories are solved once, and the student learns their average velocity between any two moments of a grid.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowcourse.shapes.captions import describe
from flowcourse.shapes.model import CONFIG, LATENT, PIECES, TOKENIZER, TextToImage, guided, moments
from flowcourse.shapes.optimizer import has_bfloat16
from flowcourse.shapes.scenes import sample
from flowcourse.shapes.train import FOLDER, digest, learn, load_average, load_model
from flowlib.fields import Field
from flowlib.guidance import Scale
from flowlib.solvers import odeint
from flowlib.tableaus import MIDPOINT

OFTEN = (0.05, 0.7, 0.15, 0.1)  # how often the student is asked for 1, 2, 4 and 8 pieces of the way at once


@torch.no_grad()
def trajectories(net: TextToImage, tokens: Tensor, scale: Scale, *, generator: Generator) -> Tensor:
    """Solutions of the guided flow at the ends of the pieces, (B, PIECES + 1, 4, 8, 8), for captions (B, L).

    A midpoint step a piece: half the evaluations of the teacher's own 20 Euler steps, and nearer to the flow.
    """
    x = torch.randn(len(tokens), *LATENT, generator=generator)
    found, field = [x], guided(net, tokens, scale)
    for times in itertools.pairwise(moments(PIECES).tolist()):
        found.append(odeint(field, found[-1], times=times, method=MIDPOINT))
    return torch.stack(found, dim=1)


def load_trajectories(folder: Path, n: int, scale: float, *, part: int = 2000) -> dict[str, Tensor]:
    """n of them for captions of training, in half precision, with their tokens (n, L); solved at the first call.

    Each `part` has a file of its own, so that a call that was stopped goes on; its name tells one teacher from another.
    """
    net, parts = load_model(folder), []
    teacher = digest(net)
    for k in range(0, n, part):
        file = folder / "trajectories" / f"{teacher}-{scale:g}-{k:07}.safetensors"
        if not file.exists():
            g = Generator().manual_seed(5 + k)
            tokens = TOKENIZER([*map(str, describe(sample(part, generator=g), generator=g))])
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):  # errs less than the steps do
                solved = [trajectories(net, some, scale, generator=g).half() for some in tokens.split(250)]
            file.parent.mkdir(exist_ok=True)
            save_file({"x": torch.cat(solved), "tokens": tokens.byte()}, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
        parts.append(load_file(file))
    return {name: torch.cat([some[name] for some in parts])[:n] for name in ("x", "tokens")}


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
    scale: float = 4.0,
    every: int = 500,
    compile: bool = True,
    start: TextToImage | None = None,
    accept_changes: bool = False,
    progress: bool = True,
) -> TextToImage:
    """Train the student by regression on the average velocities between two moments of the teacher's trajectories.

    Args:
        folder: of the checkpoints; the model's must be there.
        steps: how many, those of a resumed run included.
        batch: trajectories of a step, at one pair of moments each.
        n: trajectories in all.
        scale: of the guidance that is learned.
        every: steps from one checkpoint to the next.
        compile: compile the network first.
        start: a student whose weights are to be the first, in place of the teacher's.
        accept_changes: go on with another number of steps than the checkpoint was told, say to end earlier.
        progress: show a progress bar.
    """
    solved, times = load_trajectories(folder, n, scale), moments(PIECES)

    def loss(u: Field, g: Generator) -> Tensor:
        k = torch.randint(n, (batch,), generator=g)
        span = 2 ** torch.multinomial(torch.tensor(OFTEN), batch, replacement=True, generator=g)
        first = span * (torch.rand(batch, generator=g) * (PIECES // span)).long()
        x, end = solved["x"][k, first].float(), solved["x"][k, first + span].float()
        s, t = times[first], times[first + span]
        average = (end - x) / (t - s)[:, None, None, None]
        return mse_loss(u(x, s, t, tokens=solved["tokens"][k].long()), average)

    net = new_student(load_model(folder))
    if start is not None:
        net.load_state_dict(start.state_dict())
    learn(
        net,
        loss,
        folder / "student.safetensors",
        steps=steps,
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
