"""Transforms: invertible maps with cheap Jacobian determinants, and how they are put together (chapter 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Generator, Tensor, nn

from flowlib import checks


class Transform(nn.Module):
    """An invertible map f of points in float32 or float64, with the logarithm of its volume change.

    It computes in the dtype of its points, whatever that of its weights, and also under autocast.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x), like x (..., d), and log |det dy/dx|, (...): from noise to data."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = f^-1(y), like y (..., d), and log |det dx/dy|, (...): from data to noise."""
        raise NotImplementedError

    def initialize(self, y: Tensor) -> None:
        """Set what is to be set from a first batch of points (..., d) on the side of the data: here, nothing."""


class Composition(Transform):
    """The transforms one after the other, first to last from noise to data.

    Log-determinants add: derived at prop-compose.
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        transforms = list(transforms)
        for part in transforms:
            name = part.__name__ if isinstance(part, type) else type(part).__name__
            checks.require(isinstance(part, Transform), f"expected Transform objects, got {name}", TypeError)
        self.transforms = cast(Sequence[Transform], nn.ModuleList(transforms))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through all of them, first to last."""
        checks.points(x)
        total = x.new_zeros(x.shape[:-1])
        for transform in self.transforms:
            x, log_det = transform(x)
            checks.like("the log-determinant", log_det, "one number for each point", total)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Back through all of them, last to first."""
        checks.points(y)
        total = y.new_zeros(y.shape[:-1])
        for transform in reversed(self.transforms):
            y, log_det = transform.inverse(y)
            checks.like("the log-determinant", log_det, "one number for each point", total)
            total = total + log_det
        return y, total

    @torch.no_grad()
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
    """y_i = x_{order_i}, of log-determinant 0, where order (d,) holds each of 0, ..., d - 1 once.

    >>> Permutation([2, 0, 1])(torch.tensor([5.0, 6.0, 7.0]))
    (tensor([7., 5., 6.]), tensor(0.))
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        given = torch.as_tensor(order)
        checks.integers("order", given)
        checks.shaped("order", given, "d")
        once = len(given) > 0 and sorted(given.tolist()) == [*range(len(given))]
        checks.require(once, f"order must hold each of 0, ..., d - 1 once, got {given.tolist()}")
        self.register_buffer("order", torch.tensor(given.tolist()))
        self.register_buffer("back", self.order.argsort())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates in the new order."""
        checks.points(x, len(self.order))
        return x.index_select(-1, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates in the old order."""
        checks.points(y, len(self.order))
        return y.index_select(-1, self.back), y.new_zeros(y.shape[:-1])


class ActNorm(Transform):
    """y = m + e^s x in each of d coordinates; `initialize` sets m and s so that a first batch becomes noise of mean 0
    and variance 1. It starts as the identity.

    Source: Kingma & Dhariwal (2018), section 3.1.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        checks.whole(dimension=dimension)
        self.mean = nn.Parameter(torch.zeros(dimension))
        self.log_scale = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = m + e^s x."""
        mean, log_scale = self._parameters_for(x)
        return mean + log_scale.exp() * x, log_scale.sum().expand(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = e^-s (y - m)."""
        mean, log_scale = self._parameters_for(y)
        return (y - mean) * (-log_scale).exp(), -log_scale.sum().expand(y.shape[:-1])

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        checks.points(x, len(self.mean))
        return self.mean.to(x.dtype), self.log_scale.to(x.dtype)

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Set m and s from points (..., d).

        Raises:
            ValueError: a coordinate that does not vary among them, as the edge of an image may: drop it, or add noise.
        """
        checks.points(y, len(self.mean))
        y = y.reshape(-1, len(self.mean))
        checks.require(len(y) > 1, f"at least two points are needed to standardize, got {len(y)}")
        deviation, mean = torch.std_mean(y, dim=0, correction=0)
        varies = (deviation > 0) & deviation.isfinite() & (y.amin(0) < y.amax(0))
        if not varies.all():
            raise ValueError(
                f"the {len(y)} points must be finite and vary in each coordinate, "
                f"but do not in {(~varies).nonzero().flatten().tolist()}"
            )
        self.mean.copy_(mean)
        self.log_scale.copy_(deviation.log())


class InvertibleLinear(Transform):
    """y = W x with W = P L (U + diag(s)): a fixed permutation P, a lower triangular L with ones on its diagonal, a
    strictly upper triangular U, and s. So log |det W| = sum_i log |s_i|, and the inverse solves two triangular
    systems. W starts as a random rotation of R^d; the signs of s are fixed, log |s| is learned.

    Source: Kingma & Dhariwal (2018), section 3.2, equation 10.
    """

    order: Tensor
    signs: Tensor

    def __init__(self, dimension: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        checks.whole(dimension=dimension)
        device = generator.device if generator else None
        normal = torch.randn(dimension, dimension, generator=generator, device=device)
        P, L, U = torch.linalg.lu(torch.linalg.qr(normal.to(torch.empty(0).device))[0])
        self.register_buffer("order", P.argmax(dim=0))  # (P^T y)_i = y_{order_i}
        self.register_buffer("signs", U.diagonal().sign())
        self.lower, self.upper = nn.Parameter(L.tril(-1)), nn.Parameter(U.triu(1))
        self.log_scale = nn.Parameter(U.diagonal().abs().log())

    def _factors_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L, U + diag(s), and log |det W|."""
        checks.points(x, len(self.order))
        lower, upper, log_scale = self.lower.to(x.dtype), self.upper.to(x.dtype), self.log_scale.to(x.dtype)
        L = lower.tril(-1) + torch.ones_like(log_scale).diag()
        return L, upper.triu(1) + (self.signs * log_scale.exp()).diag(), log_scale.sum()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = W x."""
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # which would round the products
                return self.forward(x)
        L, U, log_det = self._factors_for(x)
        return (x @ U.mT @ L.mT).index_select(-1, self.order.argsort()), log_det.expand(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x = W^-1 y, from L z = P^T y and U x = z."""
        L, U, log_det = self._factors_for(y)
        z = y.index_select(-1, self.order).reshape(-1, len(L)).mT  # P^T y, (d, B)
        z = torch.linalg.solve_triangular(L, z, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(U, z, upper=True).mT.reshape(y.shape)
        return x, -log_det.expand(y.shape[:-1])
