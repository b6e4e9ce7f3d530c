"""Laws of the times t in [0, 1] at which a network is trained (chapters 6 and 10)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

# Any callable (n, *, generator=None, device=None) -> (n,)
Times = Callable[..., Tensor]


def uniform(
    n: int, *, generator: Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """n times (n,), uniform on [0, 1), in float32; made on `device`, or else where the generator lives.

    >>> uniform(3, generator=torch.Generator().manual_seed(0))
    tensor([0.4963, 0.7682, 0.0885])
    """
    device = device or (generator.device if generator else None)
    return torch.rand(n, generator=generator, device=device, dtype=torch.float32)
