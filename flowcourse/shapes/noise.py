"""Noise from a seed that the page draws too (noise.js): what it is depends on the seed and on its place alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from flowcourse.shapes.model import LATENT
from flowlib import checks

SEEDS = 2**32
TURN = 2**20  # numbers of a seed from one turn to the next


def _mixed(x: np.ndarray) -> np.ndarray:
    """Chris Wellons's mixing function of 32 bits, "lowbias32"."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def noise(seed: int, n: int, turn: int = 0) -> Tensor:
    """n latents (n, 4, 8, 8) of standard normal numbers: the first ones of a seed are the same for every n.

    Each turn has others: that of 0 is where drawing begins, and a student's k-th return leads to that of k.

    Two whole numbers of 32 bits that a hash makes of the seed and a counter give two normal ones (Box & Muller, 1958),
    in float64; then they are rounded.

    >>> noise(7, 2).shape, torch.equal(noise(7, 1)[0], noise(7, 2)[0])
    (torch.Size([2, 4, 8, 8]), True)
    """
    checks.whole(0, n=n, seed=seed, turn=turn)
    checks.require(seed < SEEDS, f"seed must be below 2^32, got {seed}")
    checks.require(turn < SEEDS // TURN, f"turn must be below {SEEDS // TURN}, got {turn}")
    size = math.prod(LATENT)
    checks.require(n * size <= TURN, f"n must be at most {TURN // size}, got {n}")
    places = np.arange(turn * TURN, turn * TURN + n * size, dtype=np.uint32)
    key = _mixed(np.array([(seed + 0x9E3779B9) % SEEDS], dtype=np.uint32))
    u = (_mixed(_mixed(places) + key) + 0.5) / SEEDS
    radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(x.astype(np.float32)).reshape(n, *LATENT)


def later(seed: int, n: int) -> Iterator[Tensor]:
    """Those of the turns 1, 2, ..., toward which a student goes back that began at `noise(seed, n)`."""
    return (noise(seed, n, turn) for turn in itertools.count(1))
