"""Increasing functions of the line, of which flows are built: affine, and rational-quadratic splines (chapter 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from flowlib import checks

_SMALLEST = 8  # the least share of a bin, in units of the dtype's rounding: its ends stay two numbers


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
        m, s = self._parts(x, theta)
        return m + s.exp() * x, s

    def inverse(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy, like y (...), for theta (..., 2)."""
        m, s = self._parts(y, theta)
        return (y - m) * (-s).exp(), -s

    def _parts(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        _check_theta(theta, x, self.count)
        m, a = theta.unbind(-1)
        return m, _softly_bounded(a)


@dataclass(frozen=True)
class SplineBijection:
    """x is a rational-quadratic spline of y, with widths, heights and slopes exp(5 tanh(theta / 5)).

    The spline runs from data to noise, the direction that training takes, and there needs no root. At theta = 0 it is
    the identity, as it always is outside [-bound, bound]: standardize the data first, with an ActNorm.

    Source: Durkan et al. (2019), section 3.
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        checks.whole(bins=self.bins)
        _check_bound(self.bound)

    @property
    def count(self) -> int:
        """How many numbers theta has: bins widths, bins heights and bins - 1 slopes."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx, like x (...), for theta (..., count)."""
        return self._spline(x, theta, inverse=True)

    def inverse(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy, like y (...), for theta (..., count)."""
        return self._spline(y, theta, inverse=False)

    def knots(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The widths, heights and slopes that `rational_quadratic_spline` takes."""
        widths, heights, slopes = (
            _softly_bounded(theta).exp().split([self.bins, self.bins, self.bins - 1], dim=-1)
        )
        return widths, heights, slopes

    def _spline(self, x: Tensor, theta: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        _check_theta(theta, x, self.count)
        widths, heights, slopes = self.knots(theta)
        if (
            math.exp(-10) / self.bins < _SMALLEST * torch.finfo(x.dtype).eps
        ):  # the narrowest bin's least share
            widths, heights = _shares(widths, x.dtype), _shares(heights, x.dtype)
        return _through(
            x, _knots(widths, self.bound), _knots(heights, self.bound), slopes, self.bound, inverse
        )


def _softly_bounded(a: Tensor) -> Tensor:
    """a where it is small, kept within [-5, 5]: no point, however far away, makes a scale overflow or vanish."""
    return 5 * torch.tanh(a / 5)


def _check_theta(theta: Tensor, x: Tensor, count: int) -> None:
    checks.precise("x", x)
    if theta.shape != (*x.shape, count) or theta.dtype != x.dtype:
        raise ValueError(
            f"theta must hold {count} numbers in {x.dtype} for each x of shape {tuple(x.shape)}, "
            f"got shape {tuple(theta.shape)} in {theta.dtype}"
        )


def _check_bound(bound: float) -> None:
    checks.require(1e-30 < bound < 1e30, f"bound must be positive, between 1e-30 and 1e30, got bound={bound}")


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
        x: where to evaluate, of any shape (...), in float32 or float64; for the inverse, the values y.
        widths: of the K bins, positive, (..., K) or any shape that broadcasts to it. Their unit does not matter: they
            are scaled to fill [-bound, bound], and those too narrow for the dtype of x widened to what it can tell.
        heights: of the bins, likewise.
        slopes: at the K - 1 inner knots, positive, (..., K - 1).
        inverse: evaluate the inverse function instead.
        bound: the largest knot.

    Returns:
        the values, like x, and the logarithms of the slopes dy/dx there (of dx/dy for the inverse), like x.

    Raises:
        ValueError: shapes that do not fit; on the CPU, where looking costs no wait, also widths, heights or slopes that
            are not positive and finite.

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
    checks.precise("x", x)
    _check_bound(bound)
    parts = widths, heights, slopes
    bins = [part.shape[-1] if part.ndim else 0 for part in parts]
    fit = all(_broadcasts(part.shape[:-1], x.shape) for part in parts)
    if bins[0] < 1 or bins[1:] != [bins[0], bins[0] - 1] or not fit:
        raise ValueError(
            f"K widths go with K heights and K - 1 slopes, for x of shape {tuple(x.shape)}, got the shapes "
            f"{tuple(widths.shape)}, {tuple(heights.shape)} and {tuple(slopes.shape)}"
        )
    widths, heights, slopes = (part.to(torch.promote_types(part.dtype, x.dtype)) for part in parts)
    _check_range("widths", widths, 0, math.inf)
    _check_range("heights", heights, 0, math.inf)
    _check_range("slopes", slopes, 1e-15, 1e15)  # their squares fit into float32
    knots_x, knots_y = (_knots(_shares(sizes, x.dtype), bound) for sizes in (widths, heights))
    return _through(x, knots_x, knots_y, slopes.to(x.dtype), bound, inverse)


def _check_range(name: str, a: Tensor, least: float, most: float) -> None:
    if extent := checks.extent(a):
        within = least < extent[0] and extent[1] < most
        given = "values from {:g} to {:g}".format(*extent)
        checks.require(within, f"{name} must be between {least} and {most}, got {given}")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def _shares(sizes: Tensor, dtype: torch.dtype) -> Tensor:
    """The sizes over their sum, none so small that its ends become one number; without overflow on the way."""
    sizes = sizes / sizes.detach().amax(-1, keepdim=True)
    return (sizes / sizes.sum(-1, keepdim=True)).to(dtype).clamp(min=_SMALLEST * torch.finfo(dtype).eps)


def _knots(sizes: Tensor, bound: float) -> Tensor:
    """Where bins of these sizes (..., K) begin and end (..., K + 1), once scaled to fill [-bound, bound]."""
    ends = sizes.cumsum(-1)
    return 2 * bound * pad(ends / ends.narrow(-1, -1, 1), (1, 0)) - bound  # the last is the bound to the bit


def _through(
    x: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The spline through knots (..., K + 1), without a look at what is in them."""
    slopes = pad(slopes, (1, 1), value=1.0)  # (..., K + 1)
    # The spline sees points moved to the nearest end, and outside adds back by how much: with no branch that fails
    # where another is taken, values and gradients are finite everywhere.
    inside = x.clamp(-bound, bound)
    searched = knots_y if inverse else knots_x
    inner = searched.detach().narrow(-1, 1, searched.shape[-1] - 2)
    k = (inner <= inside.detach().unsqueeze(-1)).sum(-1, keepdim=True)
    ends = torch.cat([k, k + 1], dim=-1)  # (..., 2)
    (x_0, x_1), (y_0, y_1), (d_0, d_1) = (
        table.expand(*x.shape, -1).gather(-1, ends).unbind(-1) for table in (knots_x, knots_y, slopes)
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
