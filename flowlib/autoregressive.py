"""Transforms that map each coordinate by a bijection of the line, as others decide (chapter 2).

Couplings let one half decide about the other; masked autoregression lets each coordinate follow from those before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from flowlib import checks
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
        self.bijection, self.flip = _check_bijection(bijection), flip
        self.sizes = dimension // 2, dimension - dimension // 2
        kept, moved = reversed(self.sizes) if flip else self.sizes
        widths = [kept] + depth * [width] + [moved * bijection.count]
        self.net = _perceptron([SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_b = g(x_b; theta(x_a)) and y_a = x_a."""
        x_a, x_b = self._halves(x)
        y_b, log_slope = self.bijection.forward(x_b, _theta(self.net, x_a, self.bijection))
        return self._whole(x_a, y_b), log_slope.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_b = g^-1(y_b; theta(y_a)) and x_a = y_a."""
        y_a, y_b = self._halves(y)
        x_b, log_slope = self.bijection.inverse(y_b, _theta(self.net, y_a, self.bijection))
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


class MaskedAutoregressive(Transform):
    """Each coordinate is mapped as those before it in the data decide:

        y_i = g(x_i; theta_i(y_1, ..., y_{i-1})),        log |det dy/dx| = sum_i log g'(x_i; theta_i).

    The inverse takes one pass of the network theta, a perceptron with masked weights, since it knows all of y; the
    forward direction finds one coordinate after the other, in d passes. The last layer starts at zero.

    Args:
        dimension: d, of the points.
        bijection: the function g of the line.
        flip: take the coordinates in the order d, ..., 1.
        width, depth: of the hidden layers, and how many there are.
        generator: the source of the first weights.

    Source: Papamakarios et al. (2017), section 3.1; the masks are those of Germain et al. (2015), section 4,
    with degrees that go round instead of random ones.
    """

    def __init__(
        self,
        dimension: int,
        bijection: Bijection = AffineBijection(),  # noqa: B008
        *,
        flip: bool = False,
        width: int = 64,
        depth: int = 2,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        checks.whole(dimension=dimension, width=width, depth=depth)
        self.bijection = _check_bijection(bijection)
        self.order = [*range(dimension)][:: -1 if flip else 1]  # the coordinates, first to last
        place = torch.tensor(self.order)  # of each coordinate: both orders are their own inverse
        # A hidden unit of degree m sees the coordinates at places up to m, an output those at places before its own.
        hidden = torch.arange(width) % max(dimension - 1, 1)
        degrees = [place, *depth * [hidden]]
        masks = [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        masks.append(place.repeat_interleave(bijection.count)[:, None] > hidden)
        self.net = _perceptron([_MaskedLinear(mask, generator) for mask in masks])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_i = g(x_i; theta_i(y_1, ..., y_{i-1})), for one i after the other."""
        checks.points(x, len(self.order))
        y, log_slopes = torch.zeros_like(x), []
        for i in self.order:
            theta = _theta(self.net, y, self.bijection).select(-2, i)
            y_i, log_slope = self.bijection.forward(x.select(-1, i), theta)
            y = y.select_scatter(y_i, -1, i)
            log_slopes.append(log_slope)
        return y, torch.stack(log_slopes).sum(0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_i = g^-1(y_i; theta_i(y_1, ..., y_{i-1})), for all i at once."""
        checks.points(y, len(self.order))
        x, log_slope = self.bijection.inverse(y, _theta(self.net, y, self.bijection))
        return x, log_slope.sum(-1)


def _perceptron(layers: Sequence[nn.Linear]) -> nn.Sequential:
    """The layers with ReLU between them, whose kinks follow sharp edges of a density; the last starts at zero."""
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    first, *others = layers
    return nn.Sequential(first, *[module for layer in others for module in (nn.ReLU(), layer)])


def _theta(net: nn.Module, x: Tensor, bijection: Bijection) -> Tensor:
    """What maps each coordinate, (..., coordinates, count), in the dtype of the points x, whatever the network's."""
    try:
        theta = net(x)
    except RuntimeError:  # to look before it fails would make a coupling 5% slower
        dtype = next(net.parameters(), x).dtype
        if dtype == x.dtype:
            raise
        theta = net(x.to(dtype))
    return theta.to(x.dtype).unflatten(-1, (-1, bijection.count))


class _MaskedLinear(SeededLinear):
    """A linear layer whose weights count where the mask (outputs, inputs) is true."""

    mask: Tensor

    def __init__(self, mask: Tensor, generator: Generator | None) -> None:
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs, generator)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


def _check_bijection(bijection: Bijection) -> Bijection:
    """The bijection itself, if it is one, and not the class of one."""
    parts = () if isinstance(bijection, type) else ("count", "forward", "inverse")
    if not parts or not all(hasattr(bijection, part) for part in parts):
        raise TypeError(f"bijection must be an object such as AffineBijection(), got {bijection!r}")
    return bijection
