"""Transforms: invertible maps with cheap Jacobian determinants, and how they are put together (chapter 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Generator, Tensor, nn


class Transform(nn.Module):
    """An invertible map f of points, with the logarithm of its volume change."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x), like x (..., d), and log |det dy/dx|, (...): from noise to data."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = f^-1(y), like y (..., d), and log |det dx/dy|, (...): from data to noise."""
        raise NotImplementedError

    def initialize(self, y: Tensor) -> None:
        """Set what is to be set from a first batch of points (N, d) on the side of the data: here, nothing."""


class Composition(Transform):
    """The transforms one after the other, first to last from noise to data; log-determinants add."""

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.transforms = cast(Sequence[Transform], nn.ModuleList(transforms))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through all of them, first to last."""
        total = x.new_zeros(x.shape[:-1])
        for transform in self.transforms:
            x, log_det = transform(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Back through all of them, last to first."""
        total = y.new_zeros(y.shape[:-1])
        for transform in reversed(self.transforms):
            y, log_det = transform.inverse(y)
            total = total + log_det
        return y, total

    def initialize(self, y: Tensor) -> None:
        """Set each from the points that reach it."""
        for transform in reversed(self.transforms):
            transform.initialize(y)
            y = transform.inverse(y)[0]


class Inverse(Transform):
    """A transform with its two directions exchanged; `initialize` leaves what is inside as it is."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of what is inside."""
        return self.transform.inverse(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What is inside."""
        return self.transform(y)


class Permutation(Transform):
    """y_i = x_{order_i}, of log-determinant 0.

    Args:
        order: each of 0, ..., d - 1 once, (d,).

    Raises:
        ValueError: order is not a permutation.

    >>> Permutation([2, 0, 1])(torch.tensor([5.0, 6.0, 7.0]))
    (tensor([7., 5., 6.]), tensor(0.))
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order).cpu()
        if order.ndim != 1 or not torch.equal(order.sort()[0], torch.arange(len(order))):
            raise ValueError(f"order must hold each of 0, ..., d - 1 once, got {order.tolist()}")
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates in the new order."""
        return check_points(x, len(self.order))[..., self.order], x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates in the old order."""
        return check_points(y, len(self.order))[..., self.back], y.new_zeros(y.shape[:-1])


class ActNorm(Transform):
    """y = m + e^s x in each coordinate; `initialize` sets m and s so that a first batch becomes noise of mean 0 and
    variance 1. It starts as the identity.

    Args:
        dimension: d, of the points.

    Source: Kingma & Dhariwal (2018), section 3.1.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dimension))
        self.log_scale = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = m + e^s x."""
        y = self.mean + self.log_scale.exp() * check_points(x, len(self.mean))
        return y, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = e^-s (y - m)."""
        x = (check_points(y, len(self.mean)) - self.mean) * (-self.log_scale).exp()
        return x, -self.log_scale.sum().expand(y.shape[:-1])

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Set m and s from points (N, d).

        Raises:
            ValueError: a coordinate that does not vary among them.
        """
        deviation, mean = torch.std_mean(check_points(y, len(self.mean)), dim=0, correction=0)
        if not (deviation > 0).all():
            constant = (~(deviation > 0)).nonzero().flatten().tolist()
            raise ValueError(f"the {len(y)} points must vary in each coordinate, but do not in {constant}")
        self.mean.copy_(mean)
        self.log_scale.copy_(deviation.log())


class InvertibleLinear(Transform):
    """y = W x with W = P L (U + diag(s)): a fixed permutation P, a lower triangular L with ones on its diagonal, a
    strictly upper triangular U, and s. So log |det W| = sum_i log |s_i|, and the inverse solves two triangular
    systems. W starts as a random rotation; the signs of s are fixed, log |s| is learned.

    Args:
        dimension: d, of the points.
        generator: the source of the first W.

    Source: Kingma & Dhariwal (2018), section 3.2, equation 10.
    """

    order: Tensor
    signs: Tensor

    def __init__(self, dimension: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        W = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator))[0]
        P, L, U = torch.linalg.lu(W)
        self.register_buffer("order", P.argmax(dim=0))  # (P^T y)_i = y_{order_i}
        self.register_buffer("signs", U.diagonal().sign())
        self.lower, self.upper = nn.Parameter(L.tril(-1)), nn.Parameter(U.triu(1))
        self.log_scale = nn.Parameter(U.diagonal().abs().log())

    def _triangles(self) -> tuple[Tensor, Tensor]:
        """L, and U + diag(s)."""
        L = self.lower.tril(-1) + torch.ones_like(self.log_scale).diag()
        return L, self.upper.triu(1) + (self.signs * self.log_scale.exp()).diag()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = W x."""
        L, U = self._triangles()
        y = (check_points(x, len(L)) @ U.mT @ L.mT)[..., self.order.argsort()]
        return y, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = W^-1 y, from L z = P^T y and U x = z."""
        L, U = self._triangles()
        z = check_points(y, len(L))[..., self.order].reshape(-1, len(L)).mT  # P^T y, (d, B)
        z = torch.linalg.solve_triangular(L, z, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(U, z, upper=True).mT.reshape(y.shape)
        return x, -self.log_scale.sum().expand(y.shape[:-1])


def check_points(x: Tensor, dimension: int) -> Tensor:
    """x itself, if it holds points of this dimension; else raises ValueError."""
    if x.ndim == 0 or x.shape[-1] != dimension:
        raise ValueError(f"points must have shape (..., {dimension}), got {tuple(x.shape)}")
    return x
