"""Increasing functions of the line, of which flows are built: affine, and rational-quadratic splines (chapter 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad


class Bijection(Protocol):
    """An increasing function of the line for each theta, a vector of `count` numbers without constraints."""

    @property
    def count(self) -> int:
        """How many numbers theta has."""

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx, like x (...), for theta (..., count): from noise to data."""

    def inverse(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy, like y (...), for theta (..., count): from data to noise."""


@dataclass(frozen=True)
class AffineBijection:
    """y = m + e^s x, with theta = (m, a) and s = 5 tanh(a / 5)."""

    count = 2

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx, like x (...), for theta (..., 2)."""
        m, s = theta[..., 0], _softly_bounded(theta[..., 1])
        return m + s.exp() * x, s

    def inverse(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy, like y (...), for theta (..., 2)."""
        m, s = theta[..., 0], _softly_bounded(theta[..., 1])
        return (y - m) * (-s).exp(), -s


@dataclass(frozen=True)
class SplineBijection:
    """x is a rational-quadratic spline of y, with widths, heights and slopes exp(5 tanh(theta / 5)).

    The spline runs from data to noise, the direction that training takes, and there needs no root. At theta = 0 it is
    the identity.

    Args:
        bins: how many.
        bound: the largest knot; outside [-bound, bound] the function is the identity.

    Raises:
        ValueError: either is not positive.
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        if self.bins < 1 or not self.bound > 0:
            raise ValueError(f"bins and bound must be positive, got bins={self.bins} and bound={self.bound}")

    @property
    def count(self) -> int:
        """How many numbers theta has: bins widths, bins heights and bins - 1 slopes."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx, like x (...), for theta (..., count)."""
        return rational_quadratic_spline(x, *self.knots(theta), inverse=True, bound=self.bound)

    def inverse(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy, like y (...), for theta (..., count)."""
        return rational_quadratic_spline(y, *self.knots(theta), bound=self.bound)

    def knots(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The widths, heights and slopes that `rational_quadratic_spline` takes."""
        widths, heights, slopes = (
            _softly_bounded(theta).exp().split([self.bins, self.bins, self.bins - 1], dim=-1)
        )
        return widths, heights, slopes


def _softly_bounded(a: Tensor) -> Tensor:
    """a where it is small, kept within [-5, 5]: no point, however far away, makes a scale overflow or vanish."""
    return 5 * torch.tanh(a / 5)


def rational_quadratic_spline(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    slopes: Tensor,
    *,
    inverse: bool = False,
    bound: float = 5.0,
) -> tuple[Tensor, Tensor]:
    r"""The increasing function through the knots (x_k, y_k) with slope d_k at each, and the identity outside them.

    On the bin between (x_0, y_0) and (x_1, y_1), with s = (y_1 - y_0) / (x_1 - x_0) and xi = (x - x_0) / (x_1 - x_0),

        y = y_0 + (y_1 - y_0) (s xi^2 + d_0 xi (1 - xi)) / (s + (d_0 + d_1 - 2 s) xi (1 - xi)).

    The first knot is (-bound, -bound) and the last (bound, bound), both with slope 1, so that the function and its
    slope are continuous on the whole line. The inverse is the root in [0, 1] of a quadratic equation for xi.

    Args:
        x: where to evaluate, of any shape (...); for the inverse, the values y.
        widths: of the K bins, positive, (..., K) or any shape that broadcasts to it. Their unit does not matter: they
            are scaled to fill [-bound, bound].
        heights: of the bins, likewise.
        slopes: at the K - 1 inner knots, positive, (..., K - 1).
        inverse: evaluate the inverse function instead.
        bound: the largest knot.

    Returns:
        the values, like x, and the logarithms of the slopes dy/dx there (of dx/dy for the inverse), like x.

    Raises:
        ValueError: numbers of widths, heights and slopes that do not fit, or a bound that is not positive.

    Source: Gregory & Delbourgo (1982); Durkan et al. (2019), section 3.1.

    >>> x = torch.tensor([-1.0, 0.0, 0.5, 7.0])
    >>> y, log_slope = rational_quadratic_spline(
    ...     x, torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]), torch.tensor([1.0]), bound=1.0
    ... )
    >>> y
    tensor([-1.0000,  0.5000,  0.7500,  7.0000])
    >>> rational_quadratic_spline(
    ...     y, torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]), torch.tensor([1.0]), bound=1.0, inverse=True
    ... )[0]
    tensor([-1.0000,  0.0000,  0.5000,  7.0000])
    """
    bins = widths.shape[-1]
    if bins < 1 or heights.shape[-1] != bins or slopes.shape[-1] != bins - 1:
        raise ValueError(
            f"K widths go with K heights and K - 1 slopes, got the shapes {tuple(widths.shape)}, "
            f"{tuple(heights.shape)} and {tuple(slopes.shape)}"
        )
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    knots_x, knots_y = _knots(widths, bound), _knots(heights, bound)  # (..., K + 1)
    slopes = pad(slopes, (1, 1), value=1.0)  # (..., K + 1)
    # The spline sees points moved to the nearest end, and outside adds back by how much: with no branch that fails
    # where another is taken, values and gradients are finite everywhere.
    inside = x.clamp(-bound, bound)
    searched = knots_y if inverse else knots_x
    k = (searched[..., 1:-1].detach() <= inside.detach()[..., None]).sum(-1, keepdim=True)
    ends = torch.cat([k, k + 1], dim=-1)  # (..., 2)
    (x_0, x_1), (y_0, y_1), (d_0, d_1) = (
        table.expand(*x.shape, bins + 1).gather(-1, ends).unbind(-1) for table in (knots_x, knots_y, slopes)
    )
    width, height = x_1 - x_0, y_1 - y_0
    s = height / width
    curvature = d_0 + d_1 - 2 * s
    if inverse:
        # (s - b) xi^2 + b xi - s eta = 0, with a discriminant that is positive but for rounding. Of the two ways to
        # write its root, take the one without cancellation; the other stays finite too.
        eta = (inside - y_0) / height
        b = d_0 - eta * curvature
        root = (b.square() + 4 * (s - b) * s * eta).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        positive, negative = b.clamp(min=0), b.clamp(max=0)
        xi = torch.where(b > 0, 2 * s * eta / (positive + root), (root - negative) / (2 * (s - negative)))
        xi = xi.clamp(0, 1)
    else:
        xi = (inside - x_0) / width
    product = xi * (1 - xi)
    denominator = s + curvature * product
    log_slope = (d_1 * xi**2 + 2 * s * product + d_0 * (1 - xi) ** 2).log() + 2 * (s / denominator).log()
    if inverse:
        return x_0 + width * xi + (x - inside), -log_slope
    return y_0 + height * (s * xi**2 + d_0 * product) / denominator + (x - inside), log_slope


def _knots(sizes: Tensor, bound: float) -> Tensor:
    """Where bins of these sizes (..., K) begin and end (..., K + 1), once scaled to fill [-bound, bound]."""
    ends = sizes.cumsum(-1)
    return 2 * bound * pad(ends / ends[..., -1:], (1, 0)) - bound  # the last is the bound to the bit
