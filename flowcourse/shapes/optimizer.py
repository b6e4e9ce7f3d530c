"""Muon where it applies, AdamW where it does not, as one optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """Matrices step by their orthogonalized momentum, all other parameters as in AdamW.

    Embeddings and the ends of the network, with fewer than 64 rows or columns, are AdamW's too.

    Args:
        parameters: of the network.
        lr: of the matrices; the root mean square of a step's entries is a fifth of it, about as in AdamW.
        lr_adamw: of the others.
        betas, weight_decay: AdamW's; Muon has the same decay.

    Source: Jordan et al. (2024); Liu et al. (2025), section 2.2, for the size of the steps.

    >>> adam = MuonAdamW(nn.Linear(100, 80).parameters(), lr=1e-2)
    >>> [(type(part).__name__, [*part.param_groups[0]["params"][0].shape]) for part in adam.parts]
    [('Muon', [80, 100]), ('AdamW', [80])]
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        lr_adamw: float = 1.2e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.02,
    ) -> None:
        given = [*parameters]
        matrices = [p for p in given if p.ndim == 2 and min(p.shape) >= 64]
        others = [p for p in given if p.ndim != 2 or min(p.shape) < 64]
        self.parts: tuple[Optimizer, ...] = (
            Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            AdamW(others, lr=lr_adamw, betas=betas, weight_decay=weight_decay, fused=True),
        )
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            # what was loaded from a checkpoint is here, not there
            part.param_groups, part.state = [group], self.state
            part.step()
