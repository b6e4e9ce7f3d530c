"""Muon where it applies, AdamW where it does not, as one optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def has_bfloat16() -> bool:
    """Whether the hardware multiplies in bfloat16; a CPU that emulates it takes ten times as long as in float32."""
    if torch.cuda.is_available():
        return True
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def orthogonalized(g: Tensor, *, steps: int = 5) -> Tensor:
    """Nearly U V^T of matrices g = U S V^T (n, rows, columns): singular values from 0.7 to 1.2, whatever they were.

    The Newton-Schulz iteration X <- a X + b (X X^T) X + c (X X^T)^2 X, from |X| = 1 on.

    Source: Jordan et al. (2024).
    """
    wide = g.shape[1] <= g.shape[2]
    x = (g if wide else g.mT) / g.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(Optimizer):
    """Matrices step along their orthogonalized Nesterov momentum, those of one shape together.

    PyTorch's own is the same, one matrix at a time and always in bfloat16, which few CPUs have.

    Args:
        parameters: matrices.
        lr: the root mean square of a step's entries is a fifth of it.
        momentum, weight_decay: of the running mean of gradients, and AdamW's.

    Source: Jordan et al. (2024); Liu et al. (2025), section 2.2, for the size of the steps.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        dtype = torch.bfloat16 if has_bfloat16() else torch.float32
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for (rows, columns), same in shapes.items():
                updates = []
                for p in same:
                    mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(mean, group["momentum"]).to(dtype))
                length = 0.2 * group["lr"] * max(rows, columns) ** 0.5
                for p, update in zip(same, orthogonalized(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-length)


class MuonAdamW(Optimizer):
    """Muon for matrices, AdamW for all other parameters.

    Embeddings and the ends of the network, with fewer than 64 rows or columns, are AdamW's too.

    Args:
        parameters: of the network.
        lr: of the matrices.
        lr_adamw: of the others.
        betas, weight_decay: AdamW's; Muon has the same decay.

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
            Muon(matrices, lr=lr, weight_decay=weight_decay),
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
