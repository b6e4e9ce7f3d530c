"""Affine probability paths: how a point travels from noise to data (chapters 4 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowlib.fields import expand_time


@dataclass(frozen=True)
class AffinePath:
    """The affine path from x_0 at t = 0 to x_1 at t = 1 (Lipman et al. 2023, sec. 4; Albergo et al. 2023):

        x_t = alpha(t) x_1 + sigma(t) x_0,      u_t = dx_t/dt = alpha'(t) x_1 + sigma'(t) x_0.

    Args:
        name: what tables and legends call it.
        alpha, sigma: the coefficients, each a function from a tensor of times to a tensor of the same shape.
        alpha_dot, sigma_dot: their derivatives in t.

    >>> x_t, u_t = linear.sample(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0.25, 0.75]))
    >>> x_t[:, 0], u_t[:, 0]
    (tensor([0.2500, 0.7500]), tensor([1., 1.]))
    """

    name: str
    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    alpha_dot: Callable[[Tensor], Tensor]
    sigma_dot: Callable[[Tensor], Tensor]

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """The pair (x_t, u_t) at time t, computed in dtype promote_types(float32, x.dtype), returned in x's.

        Args:
            x_0, x_1: the ends, both (B, *D), of one dtype and on one device.
            t: a scalar or (B,).

        Raises:
            ValueError: the ends differ in shape, or t is neither a scalar nor one time for each pair.
            TypeError: the ends differ in dtype or are not floating-point, or t is in half precision.
        """
        if x_0.shape != x_1.shape:
            raise ValueError(
                f"x_0 and x_1 must have one shape, got {tuple(x_0.shape)} and {tuple(x_1.shape)}"
            )
        if x_0.dtype != x_1.dtype or not x_1.is_floating_point():
            raise TypeError(
                f"x_0 and x_1 must have one floating-point dtype, got {x_0.dtype} and {x_1.dtype}"
            )
        t = expand_time(t, x_1)
        if t.dtype == x_1.dtype:
            return self._pair(x_0, x_1, t)
        x_t, u_t = self._pair(x_0.to(t.dtype), x_1.to(t.dtype), t)  # half precision is combined in float32
        return x_t.to(x_1.dtype), u_t.to(x_1.dtype)

    def coefficients(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, alpha' and sigma' at times t, a scalar or (B,), made to broadcast against x (B, *D)."""
        t = expand_time(t, x)
        return self.alpha(t), self.sigma(t), self.alpha_dot(t), self.sigma_dot(t)

    def _pair(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = self.alpha(t) * x_1 + self.sigma(t) * x_0
        u_t = self.alpha_dot(t) * x_1 + self.sigma_dot(t) * x_0
        return x_t, u_t


class _StraightPath(AffinePath):
    """The straight path: the same pair in two passes over the points, where the general formula makes six."""

    def _pair(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(x_0, x_1, t), x_1 - x_0


def conical(sigma_min: float = 1e-4) -> AffinePath:
    """The conical path of Lipman et al. (2023, eq. 20-23): alpha = t, sigma = 1 - (1 - sigma_min) t.

    Raises:
        ValueError: sigma_min is not in [0, 1].
    """
    if not 0 <= sigma_min <= 1:
        raise ValueError(f"sigma_min must be in [0, 1], got {sigma_min}")
    shrink = 1 - sigma_min
    return AffinePath(
        f"conical({sigma_min:g})",
        lambda t: t,
        lambda t: 1 - shrink * t,
        torch.ones_like,
        lambda t: -shrink + 0 * t,
    )


def variance_preserving(beta_min: float = 0.1, beta_max: float = 20.0) -> AffinePath:
    r"""The path of DDPM in continuous time, with s = 1 - t and beta(s) = beta_min + s (beta_max - beta_min):

        alpha = exp(-B / 2),    sigma = sqrt(1 - exp(-B)),    B = beta_min s + (beta_max - beta_min) s^2 / 2.

    It never reaches pure noise: at t = 0, alpha = .0066 and 1 - sigma = 2e-5 for the default rates, so a sampler that
    starts from N(0, I) starts from a slightly wrong law. At the data sigma' is infinite, like -sqrt(beta_min / s) / 2:
    the mean square of u_t grows as 1 / s and has no finite average over t, so one trains noise or data prediction here.
    Only sigma sigma' is finite there. To keep it so at t = 1 in floating point, sigma and sigma' are those of s = eps^2
    there: sigma(1) is then 4e-8 in float32 and 7e-17 in float64, below the rounding of x_1, in place of 0.

    Args:
        beta_min: the rate of noising at the data, per unit of time.
        beta_max: the rate at the noise.

    Raises:
        ValueError: not 0 < beta_min <= beta_max < infinity.

    Source: Song et al. (2021), appendix C, where s is called t; Ho et al. (2020) in discrete time.

    >>> variance_preserving().alpha(torch.tensor([0.0, 1.0]))
    tensor([0.0066, 1.0000])
    """
    if not 0 < beta_min <= beta_max < math.inf:
        raise ValueError(f"rates must satisfy 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")

    def total(t: Tensor) -> Tensor:  # B
        s = (1 - t).clamp(min=torch.finfo(t.dtype).eps ** 2)
        return beta_min * s + (beta_max - beta_min) * s**2 / 2

    def rate(t: Tensor) -> Tensor:  # beta
        return beta_min + (1 - t) * (beta_max - beta_min)

    def alpha(t: Tensor) -> Tensor:
        return torch.exp(-total(t) / 2)

    def sigma(t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-total(t)))  # 1 - exp(-B) would lose its digits near the data

    return AffinePath(
        "variance preserving",
        alpha,
        sigma,
        lambda t: rate(t) * alpha(t) / 2,
        lambda t: -rate(t) * alpha(t) ** 2 / (2 * sigma(t)),
    )


linear: AffinePath = _StraightPath(
    "linear", lambda t: t, lambda t: 1 - t, torch.ones_like, lambda t: -torch.ones_like(t)
)

_turn = math.pi / 2
cosine = AffinePath(  # alpha^2 + sigma^2 = 1: for x_0 and x_1 of unit variance, so is that of x_t
    "cosine",
    lambda t: torch.sin(_turn * t),
    lambda t: torch.cos(_turn * t),
    lambda t: _turn * torch.cos(_turn * t),
    lambda t: -_turn * torch.sin(_turn * t),
)
