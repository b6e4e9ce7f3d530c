"""The text-to-image model of chapter 10: a text encoder and an MMDiT, trained together, on an autoencoder's latents."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowcourse.shapes.captions import LONGEST, WORDS
from flowlib.autoencoder import Autoencoder
from flowlib.fields import Field
from flowlib.flow_maps import AverageVelocity, jump
from flowlib.guidance import Scale, classifier_free
from flowlib.mmdit import MMDiT, MMDiTConfig
from flowlib.solvers import odeint
from flowlib.tableaus import EULER
from flowlib.text import TextEncoder, Tokenizer
from flowlib.times import shift

LATENT = (4, 8, 8)
TOKENIZER = Tokenizer(WORDS, LONGEST)
TEXT_HEADS = 5
# the slowest 64 frequencies of time reach 10 radians per unit, which tell twenty steps apart
CONFIG = MMDiTConfig(sample_size=8, patch_size=2, in_channels=4, pos_embed_max_size=4, frequencies=64)

SHIFT = 2.0  # of the times of sampling, toward the noise, where words decide


def moments(steps: int) -> Tensor:
    """The times of so many steps, (steps + 1,), denser near the noise; every other one is one of half as many."""
    return shift(torch.linspace(0, 1, steps + 1), SHIFT)


def landings(steps: int) -> Tensor:
    """The times (steps + 1,) at which a student's passes end: 1/3, 3/5 and 1, and 1 again for each beyond the third.

    In the clock of `moments` a pass takes half of what is left, the last one all; fewer passes leave out the later.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"a student needs at least one step, got {steps}")
    before = [0.0, 0.5, 0.75][:steps]
    return shift(torch.tensor(before + [1.0] * (steps + 1 - len(before))), SHIFT)


class TextToImage(nn.Module):
    """A field on latents (B, 4, 8, 8) that is told the tokens of captions (B, L); zeros say nothing.

    A student, of a config with end_input, is told a second time too, and answers with the average velocity up to it.

    Args:
        config: the sizes of the MMDiT; the text encoder has its text_dim as its width.
        generator: the source of the first weights.
    """

    def __init__(self, config: MMDiTConfig = CONFIG, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.text = TextEncoder(
            len(TOKENIZER), LONGEST, config.text_dim, heads=TEXT_HEADS, generator=generator
        )
        self.field = MMDiT(config, generator=generator)

    @property
    def student(self) -> bool:
        """Whether it is told a second time."""
        return self.field.config.end_input

    def forward(
        self, x: Tensor, t: Tensor | float, end: Tensor | float | None = None, *, tokens: Tensor
    ) -> Tensor:
        """The velocity, like x, at times t; with an end, the average velocity from t to there."""
        text = self.text(tokens)
        velocity: Tensor = self.field(x, t, end, text=text.sequence, pooled=text.pooled)
        return velocity


@torch.no_grad()
def draw(
    net: TextToImage,
    autoencoder: Autoencoder,
    captions: Sequence[str],
    *,
    guidance_scale: Scale = 4.0,
    steps: int = 20,
    generator: Generator | None = None,
    x_0: Tensor | None = None,
    again: Iterable[Tensor] | None = None,
) -> Tensor:
    """Pictures (B, 3, 32, 32) of the captions, in RGB from 0 to 1: Euler steps of the guided field, then the decoder.

    Guidance leads from the empty caption to the one that is told. A student knows where that leads: it takes `passes`.
    They begin at x_0 (B, 4, 8, 8), such as `noise` of a seed, or at noise that the generator draws, and so it is with
    the noises toward which a student's fourth and further passes go back, `again`.

    Raises:
        ValueError: fewer than one step.
    """
    tokens = TOKENIZER(captions)
    if x_0 is None:
        x_0 = torch.randn(len(captions), *LATENT, generator=generator)
    if again is None:
        again = (torch.randn(x_0.shape, generator=generator) for _ in itertools.count())
    if net.student:
        x_1 = passes(net, x_0, again, times=landings(steps), tokens=tokens)
    else:
        x_1 = odeint(guided(net, tokens, guidance_scale), x_0, times=moments(steps), method=EULER)
    return decoded(autoencoder, x_1)


def decoded(autoencoder: Autoencoder, x_1: Tensor) -> Tensor:
    """The pictures of latents, in RGB from 0 to 1."""
    return (autoencoder.decode(x_1) / 2 + 0.5).clamp(0, 1)


def passes(
    u: AverageVelocity, x_0: Tensor, again: Iterable[Tensor] = (), *, times: Tensor, **cond: Any
) -> Tensor:
    """Jumps by an average velocity from time to time, (N + 1,); what is at t = 1 already is first taken back.

    It goes back along the straight path to other noise, of `again`, to the last time before 1: t x + (1 - t) noise.

    Source: a restart (Xu et al., 2023), with one jump in place of a solver.

    Raises:
        ValueError: times that do not reach 1, or fewer noises than returns.
    """
    returns = int((times == 1).sum()) - 1
    if returns < 0:
        raise ValueError(f"times must end at 1, got {times.tolist()}")
    way = times[: len(times) - returns].to(x_0)
    noises = [*itertools.islice(again, returns)]
    if len(noises) < returns:
        raise ValueError(f"times go back {returns} times, and there are noises for {len(noises)}")
    x = jump(u, x_0, times=way, **cond)
    for noise in noises:
        x = jump(u, torch.lerp(noise.to(x), x, way[-2]), times=way[-2:], **cond)
    return x


def guided(net: TextToImage, tokens: Tensor, scale: Scale) -> Field:
    """The field that leads from the empty caption to those that are told (B, L), and beyond."""
    return classifier_free(net, scale, cond={"tokens": tokens}, null={"tokens": torch.zeros_like(tokens)})
