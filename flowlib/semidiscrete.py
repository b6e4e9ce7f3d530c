"""Semidiscrete couplings: every noise knows its point of a finite data set, without any batch (chapter 7)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from flowlib import checks


class Semidiscrete:
    r"""The map that sends a noise x to the point y_j whose cell it lies in, one of n cells with straight borders:

        j(x) = argmin_j |x - y_j|^2 - g_j = argmax_j <x, y_j> + (g_j - |y_j|^2) / 2        (a power diagram).

    With the potentials g that `fit_semidiscrete` learns, all cells hold the same mass of noise. Then x -> y_j(x) is the
    optimal transport from the noise to the data, exactly, and pairs (x, y_j(x)) are its coupling.

    Args:
        points: y, the data (n, *D), in float32 or float64. What belongs to them follows as labels[index].
        potentials: g, (n,), in squared units of the points; 0 if None, where each noise goes to its nearest point.

    Source: Peyre & Cuturi (2019), section 5.2; Mousavi-Hosseini et al. (2025), section 3.

    >>> pairs = Semidiscrete(torch.tensor([[-1.0], [3.0]]), torch.tensor([0.0, 8.0]))  # the border lies at 0
    >>> pairs.index(torch.tensor([[-0.1], [0.1]]))
    tensor([0, 1])
    """

    def __init__(self, points: Tensor, potentials: Tensor | None = None) -> None:
        checks.precise("points", points)
        checks.require(
            points.ndim >= 2 and points.numel() > 0,
            f"points must have shape (n, *D), got {tuple(points.shape)}",
        )
        checks.finite("points", points)
        if potentials is None:
            potentials = points.new_zeros(len(points))
        checks.shaped("potentials", potentials, len(points))
        checks.finite("potentials", potentials)
        self.points, self.potentials = points.detach().clone(), potentials.detach().to(points)
        self._rows = self.points.flatten(1)
        self._squares = self._rows.square().sum(1)

    def index(self, x: Tensor) -> Tensor:
        """j(x) (B,), for noise x (B, *D): one matrix product."""
        return self._index(x, self.potentials)

    def __call__(self, x: Tensor) -> Tensor:
        """y_j(x), like x."""
        return self.points[self.index(x)]

    def masses(self, x: Tensor) -> Tensor:
        """The share of these noises (B, *D) that falls into each cell, (n,), in float64."""
        return self._masses(x, self.potentials)

    def to(self, device: torch.device | str) -> Semidiscrete:
        """The same map on a device."""
        return Semidiscrete(self.points.to(device), self.potentials.to(device))

    def save(self, path: str | Path) -> None:
        """Write the potentials, and a digest of the points, as a safetensors file."""
        from safetensors.torch import save_file

        save_file(
            {"potentials": self.potentials.contiguous()},
            path,
            {"format": "flowlib.semidiscrete 1", "points": _digest(self.points)},
        )

    @classmethod
    def load(cls, path: str | Path, points: Tensor) -> Semidiscrete:
        """Read the potentials of these very points; ValueError if the file is another's."""
        from safetensors import safe_open

        try:
            with safe_open(path, "pt") as opened:
                notes, potentials = opened.metadata() or {}, opened.get_tensor("potentials")
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path} holds no potentials: {error}") from error
        checks.require(
            notes.get("points") == _digest(points),
            f"{path} holds the potentials of other points, or of the same in another order or dtype",
        )
        return cls(points, potentials)

    def _index(self, x: Tensor, potentials: Tensor) -> Tensor:
        checks.floating("noise", x)
        checks.shaped("noise", x, "B", *self.points.shape[1:])
        lifts = (potentials - self._squares) / 2
        # as many scores at once as a processor's cache holds, or a GPU's memory easily
        together = max(1, 2 ** (18 if lifts.device.type == "cpu" else 25) // len(self.points))
        scores = (torch.addmm(lifts, part, self._rows.T) for part in x.flatten(1).to(lifts).split(together))
        return torch.cat([_argmax(part) for part in scores])

    def _masses(self, x: Tensor, potentials: Tensor) -> Tensor:
        return torch.bincount(self._index(x, potentials), minlength=len(self.points)).double() / len(x)


def fit_semidiscrete(
    points: Tensor,
    *,
    source: Callable[..., Tensor] | None = None,
    steps: int = 4000,
    batch: int = 1024,
    rate: float = 0.01,
    generator: Generator | None = None,
    progress: bool = False,
) -> Semidiscrete:
    r"""Learn the potentials by stochastic ascent on the dual of optimal transport, which is concave in g:

        max_g E_x min_j (|x - y_j|^2 - g_j) + 1/n sum_j g_j,    gradient in g_j: 1/n - P(x falls into cell j).

    A cell with too much mass loses potential, and shrinks. How well all cells agree, `Semidiscrete.masses` tells: from
    fresh noise, with a noise floor of sqrt(n / draws) for the relative error of a cell.

    Args:
        points: y, the data (n, *D).
        source: the law of x, called as source(batch, generator=generator); N(0, I) if None.
        steps, batch: how many steps of how many noises.
        rate: of the first step, which falls along half a cosine: the potential that a cell without any noise gains in
            a step, in units of the standard deviation of the noise times that of the points.
        generator: the source of randomness, on the device of the points.
        progress: show a progress bar.

    Source: Genevay et al. (2016), section 4; Mousavi-Hosseini et al. (2025), section 3.

    >>> y = torch.tensor([[0.0], [1.0], [1.5]])
    >>> pairs = fit_semidiscrete(y, steps=500, rate=0.05, generator=Generator().manual_seed(0))
    >>> pairs.masses(torch.randn(100_000, 1, generator=Generator().manual_seed(1))).sub(1 / 3).abs().max() < 0.02
    tensor(True)
    """
    checks.whole(steps=steps, batch=batch)
    checks.positive(rate=rate)
    pairs = Semidiscrete(points)
    n, g = len(points), pairs.potentials
    source = source or partial(_standard_normal, points)
    noises = source(1000, generator=generator).flatten(1).to(g)
    scale = math.sqrt(noises.var(0, correction=0).sum() * pairs._rows.var(0, correction=0).sum())
    checks.require(scale > 0, "there must be different points, and different noises, to choose between")
    g = 2 * pairs._rows @ (pairs._rows.mean(0) - noises.mean(0))  # as if a shift were all
    for step in tqdm(range(steps), desc="potentials", disable=not progress):
        x = source(batch, generator=generator)
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        g = g + rate * scale * falling * (1 - n * pairs._masses(x, g)).to(g)
    return Semidiscrete(points, g - g.mean())


def _argmax(scores: Tensor) -> Tensor:
    """The place of the greatest in each row; on a CPU by numpy, which is ten times as fast there."""
    if scores.device.type != "cpu":
        return scores.argmax(1)
    return torch.from_numpy(scores.detach().numpy().argmax(1))


def _standard_normal(like: Tensor, n: int, *, generator: Generator | None = None) -> Tensor:
    """n points of N(0, I) in the shape, dtype and place of these."""
    return torch.randn(n, *like.shape[1:], generator=generator, dtype=like.dtype, device=like.device)


def _digest(points: Tensor) -> str:
    rows = points.detach().cpu().contiguous()
    return hashlib.sha256(f"{tuple(rows.shape)}{rows.dtype}".encode() + rows.numpy().tobytes()).hexdigest()
