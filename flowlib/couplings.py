"""Couplings of source and data: which x_0 travels to which x_1 (chapters 6 and 7); layers are in `coupling_layers`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

# Any callable (x_0, x_1, *, generator=None) -> (x_0 re-paired, x_1 untouched), so that whatever belongs to x_1, such as
# its label, stays beside it.
Coupling = Callable[..., tuple[Tensor, Tensor]]


def independent(x_0: Tensor, x_1: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """The pairs as they were drawn: x_0 knows nothing of x_1."""
    return x_0, x_1
