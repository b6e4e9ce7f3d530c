"""One notebook for a laptop and for a GPU: where to compute, how much, and from which seed."""

from __future__ import annotations

import os
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
    """A fresh random generator; figures draw on the CPU and move, since CPU and CUDA streams differ.

    The environment variable FLOW_SEED_SHIFT is added to every seed: a claim that holds by luck shows under another one.

    Raises:
        ValueError: FLOW_SEED_SHIFT is not a whole number.
    """
    return torch.Generator(device=device).manual_seed(seed + seed_shift())


def seed_shift() -> int:
    """The whole number in the environment variable FLOW_SEED_SHIFT; 0 where it is empty or not set.

    Raises:
        ValueError: it is something else.
    """
    shift = os.environ.get("FLOW_SEED_SHIFT", "").strip() or "0"
    try:
        return int(shift)
    except ValueError:
        raise ValueError(
            f"the environment variable FLOW_SEED_SHIFT must be a whole number such as 1000, got {shift!r}"
        ) from None
