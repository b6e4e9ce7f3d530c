"""Networks for handwritten digits, and what guidance does to them: the numbers that chapter 9 claims.

    python -m benchmarks.digits train velocity      # each is trained by itself, resumes by itself, and can be stopped
    python -m benchmarks.digits train distilled     # needs the velocity
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Generator, Tensor

from flowcourse.budgets import generator
from flowcourse.handwritten import HELD_OUT, NULL, digits
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.training import Run, cosine_decay, fit
from flowlib.unet import UNet

BUILD = Path(__file__).resolve().parent.parent / "_build" / "digits"
BATCH, DROPPED = 64, 0.1  # samples a step, and the share of them that lose their label


def stratified(n: int, *, generator: Generator | None = None, device: torch.device | None = None) -> Tensor:
    """Uniform times, one in each n-th of [0, 1], in random order: the loss of a batch varies less."""
    draws = torch.rand(n, generator=generator, device=device)
    return (torch.randperm(n, generator=generator, device=device) + draws) / n


def train_velocity(name: str, widths: tuple[int, ...], steps: int) -> tuple[UNet, Run]:
    images, labels = (x[:-HELD_OUT] for x in digits())
    net = UNet(1, widths, patch=2, classes=10, generator=generator(0))

    def loss(v: Field, g: Generator) -> Tensor:
        chosen = torch.randint(len(images), (BATCH,), generator=g)
        dropped = torch.rand(BATCH, generator=g) < DROPPED  # for each sample on its own
        told = labels[chosen].masked_fill(dropped, NULL)
        return cfm_loss(v, images[chosen], times=stratified, generator=g, label=told)

    return net, fit(
        net, loss, steps=steps, lr=2e-3, schedule=cosine_decay, ema=0.998, clip=1.0, autocast=torch.bfloat16,
        generator=generator(0), checkpoint=BUILD / f"{name}.safetensors", every=200, resume=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train"])
    parser.add_argument("name")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.name == "velocity":
        train_velocity("velocity", (32, 96), 4000)
    elif asked.name == "weak":
        train_velocity("weak", (16, 32), 1500)


if __name__ == "__main__":
    main()
