"""Masked autoregression: each coordinate is mapped as those before it decide (MAF, chapter 2)."""

from __future__ import annotations

import itertools

import torch
from torch import Generator, Tensor
from torch.nn.functional import linear

from flowlib import checks
from flowlib.conditioners import checked, perceptron, theta_of
from flowlib.nets import SeededLinear
from flowlib.splines import AffineBijection, Bijection
from flowlib.transforms import Transform


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
    with degrees that go around instead of random ones.
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
        self.bijection = checked(bijection)
        self.order = [*range(dimension)][:: -1 if flip else 1]  # the coordinates, first to last
        place = torch.tensor(self.order)  # of each coordinate: both orders are their own inverse
        # A hidden unit of degree m sees the coordinates at places up to m, an output those at places before its own.
        hidden = torch.arange(width) % max(dimension - 1, 1)
        degrees = [place, *depth * [hidden]]
        masks = [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        masks.append(place.repeat_interleave(bijection.count)[:, None] > hidden)
        self.net = perceptron([_MaskedLinear(mask, generator) for mask in masks])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_i = g(x_i; theta_i(y_1, ..., y_{i-1})), for one i after the other."""
        checks.points(x, len(self.order))
        y, log_slopes = torch.zeros_like(x), []
        for i in self.order:
            theta = theta_of(self.net, y, self.bijection).select(-2, i)
            y_i, log_slope = self.bijection.forward(x.select(-1, i), theta)
            y = y.select_scatter(y_i, -1, i)
            log_slopes.append(log_slope)
        return y, torch.stack(log_slopes).sum(0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_i = g^-1(y_i; theta_i(y_1, ..., y_{i-1})), for all i at once."""
        checks.points(y, len(self.order))
        x, log_slope = self.bijection.inverse(y, theta_of(self.net, y, self.bijection))
        return x, log_slope.sum(-1)


class _MaskedLinear(SeededLinear):
    """A linear layer whose weights count where the mask (outputs, inputs) is true."""

    mask: Tensor

    def __init__(self, mask: Tensor, generator: Generator | None) -> None:
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs, generator)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)
