"""One notebook for a laptop and for a GPU: where to compute, how much, and from which seed."""

from __future__ import annotations

from typing import TypeVar

import torch

Value = TypeVar("Value")


def device() -> torch.device:
    """CUDA if there is one, else the CPU (Apple's MPS lacks float64, which the chapters measure with)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def budget(*, cpu: Value, gpu: Value) -> Value:
    """The value that fits the machine: `steps = budget(cpu=2_000, gpu=20_000)`."""
    return gpu if device().type == "cuda" else cpu


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random generator; figures draw on the CPU and move, since CPU and CUDA streams differ."""
    return torch.Generator(device=device).manual_seed(seed)
