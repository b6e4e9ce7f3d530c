"""Coupling layers: one half of the coordinates decides how the other is mapped (RealNVP, chapter 2).

What pairs noise with data is in `couplings`.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Generator, Tensor

from flowlib import checks
from flowlib.conditioners import checked, perceptron, theta_of
from flowlib.nets import SeededLinear
from flowlib.splines import AffineBijection, Bijection, SplineBijection
from flowlib.transforms import Transform


class CouplingTransform(Transform):
    """One part of the coordinates stays, and decides how each of the others is mapped:

        y_a = x_a,    y_b = g(x_b; theta(x_a)),        log |det dy/dx| = sum_b log g'(x_b; theta(x_a)),

    with theta a multilayer perceptron whose last layer starts at zero: x_a are the first d // 2 coordinates.

    Args:
        dimension: d, of the points, at least 2.
        bijection: the function g of the line.
        flip: exchange the parts, so that the last d - d // 2 coordinates stay.
        width, depth: of the hidden layers, and how many there are.
        generator: the source of the first weights.

    Source: Dinh et al. (2017), equations 4 to 6.
    """

    def __init__(
        self,
        dimension: int,
        bijection: Bijection,
        *,
        flip: bool = False,
        width: int = 64,
        depth: int = 2,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        checks.whole(2, dimension=dimension)
        checks.whole(width=width, depth=depth)
        self.bijection, self.flip = checked(bijection), flip
        self.sizes = dimension // 2, dimension - dimension // 2
        kept, moved = reversed(self.sizes) if flip else self.sizes
        widths = [kept] + depth * [width] + [moved * bijection.count]
        self.net = perceptron([SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_b = g(x_b; theta(x_a)) and y_a = x_a."""
        x_a, x_b = self._halves(x)
        y_b, log_slope = self.bijection.forward(x_b, theta_of(self.net, x_a, self.bijection))
        return self._whole(x_a, y_b), log_slope.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_b = g^-1(y_b; theta(y_a)) and x_a = y_a."""
        y_a, y_b = self._halves(y)
        x_b, log_slope = self.bijection.inverse(y_b, theta_of(self.net, y_a, self.bijection))
        return self._whole(y_a, x_b), log_slope.sum(-1)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        checks.points(x, sum(self.sizes))
        a, b = x.split(self.sizes, dim=-1)
        return (b, a) if self.flip else (a, b)

    def _whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, kept] if self.flip else [kept, moved], dim=-1)


def AffineCoupling(dimension: int, **options: Any) -> CouplingTransform:
    """The coupling of RealNVP, y_b = m(x_a) + e^{s(x_a)} x_b; options (flip, width, ...) as in `CouplingTransform`."""
    return CouplingTransform(dimension, AffineBijection(), **options)


def SplineCoupling(dimension: int, *, bins: int = 8, bound: float = 5.0, **options: Any) -> CouplingTransform:
    """The coupling of neural spline flows; bins, bound as in `SplineBijection`, options as in `CouplingTransform`."""
    return CouplingTransform(dimension, SplineBijection(bins, bound), **options)
