"""Answers to the exercises of chapter 10: right ones in several ways, and wrong ones beside the declared mistakes."""

import itertools
import math

import torch
from torch import Generator

from flowcourse.graders.chapter_10 import PALETTE, painted
from flowcourse.shapes.detector import detect
from flowcourse.shapes.scenes import render


def law_by_samples_of_it(mean, std, pixels):
    """Two quantiles of sigma, through the clock and the shift, say which law it is."""
    z = torch.tensor([mean - std, mean + std], dtype=torch.float64)
    t = 1 - torch.sigmoid(z)
    ends = torch.logit(t / (t + math.sqrt(pixels) * (1 - t)))
    return ends.mean(), (ends[0] - ends[1]) / 2


def mask_by_loops(patches, said):
    n = patches + said.shape[1]
    mask = torch.zeros(len(said), n, n, dtype=torch.bool)
    for b, words in enumerate(said.tolist()):
        for q in range(n):
            for k in range(n):
                seen = q < patches if k < patches else words[k - patches]
                mask[b, q, k] = seen or q == k
    return mask


def mask_by_blocks(patches, said):
    B, L = said.shape
    words = (said[:, None] | torch.eye(L, dtype=torch.bool)).expand(B, L, L)
    above = torch.cat([said.new_ones(B, patches, patches), said[:, None].expand(B, patches, L)], dim=2)
    return torch.cat([above, torch.cat([said.new_zeros(B, L, patches), words], dim=2)], dim=1)


def repainted(color):
    """Pictures in which every magenta thing has this color, or, of a function, the color that it says for a thing."""
    repaint = color if callable(color) else lambda thing: color if thing.color == "magenta" else thing.color
    return lambda captions, generator: painted(captions, generator, repaint)


def exact(captions, generator):
    return render(detect(painted(captions, generator), palette=PALETTE), palette=PALETTE)


def stained(captions, generator):
    """Gray blots, which are no shape and no color, on a ground of no name."""
    blots = torch.randn(len(captions), 1, 4, 4, generator=generator).mul(0.2).add(0.5).clamp(0, 1)
    return blots.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)


def restless():
    """Another noise at each call."""
    seeds = itertools.count()
    return lambda captions, generator: painted(captions, Generator().manual_seed(next(seeds)))


def blank(part):
    """The pictures of those captions that say magenta, or of the others, are empty."""

    def my_draw(captions, generator):
        empty = torch.tensor([("magenta" in caption) == (part == "new") for caption in captions])
        return torch.where(empty[:, None, None, None], 1.0, painted(captions, generator))

    return my_draw


RIGHT = [
    ("10.3", lambda mean, std, pixels: (-mean - math.log(pixels) / 2, std)),
    ("10.3", law_by_samples_of_it),
    ("10.4", mask_by_loops),
    ("10.4", mask_by_blocks),
    ("10.5", lambda captions, generator: painted(captions, generator) + 0.05),
]

# each with words that its diagnosis must hold
WRONG = [
    ("10.1", "e", "one letter"),
    ("10.2", 2, "one letter"),
    ("10.3", lambda mean, std, pixels: -mean - math.log(pixels) / 2, "two numbers"),
    ("10.3", lambda mean, std, pixels: (-mean, std, pixels), "two numbers"),
    ("10.3", lambda mean, std, pixels: (std, -mean), "t should have"),
    ("10.3", lambda mean, std, pixels: (-mean - math.log(2), std), "t should have"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).float().log(), "added to the logits"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).float(), r"torch.float32: compare, or take"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).long(), r"torch.int64: compare, or take"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said)[:, None], "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said)[0], "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(3, said), "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).fill_(True), r"should be False: does"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said) & said.any(), "empty one"),
    ("10.5", repainted("purple"), r"0% of .* What should be magenta is mostly purple"),
    ("10.5", repainted(lambda _: "magenta"), "Where an old color is asked for, magenta comes"),
    (
        "10.5",
        repainted(lambda thing: {"red": "blue", "blue": "red"}.get(thing.color, thing.color)),
        "forgotten",
    ),
    ("10.5", blank("old"), "0% one with an old color .* forgotten"),
    (
        "10.5",
        lambda captions, generator: painted(captions, generator).flip(2),
        "shapes and places that are wrong",
    ),
    ("10.5", exact, "pictures of render"),
    ("10.5", stained, "0% of .* forgotten"),
    ("10.5", lambda captions, generator: 2 * painted(captions, generator) - 1, "from -1 to 1"),
    ("10.5", lambda captions, generator: painted(captions, Generator().manual_seed(0)), "another state"),
    (
        "10.5",
        restless(),
        "same state",
    ),
    ("10.5", lambda captions, generator: torch.randn(len(captions), 3, 32, 32), "global generator"),
    ("10.5", lambda captions, generator: torch.zeros(len(captions), 4, 8, 8), "shape"),
]
