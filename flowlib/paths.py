"""Affine probability paths: how a point travels from noise to data (chapters 4 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flowlib import checks
from flowlib.fields import expand_time


@dataclass(frozen=True)
class AffinePath:
    """The affine path from x_0 at t = 0 to x_1 at t = 1 (Lipman et al. 2023, sec. 4; Albergo et al. 2023):

        x_t = alpha(t) x_1 + sigma(t) x_0,      u_t = dx_t/dt = alpha'(t) x_1 + sigma'(t) x_0.

    Derived at eq-affine-velocity. Times outside [0, 1] (of `coefficients`: outside [-1, 2]) or NaN raise ValueError;
    on a GPU, where reading them would wait for it, and under torch.compile and vmap they are not looked at.

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
        """The pair (x_t, u_t) for ends (B, *D) of one dtype, at t, a scalar or (B,).

        It is computed in dtype promote_types(float32, x.dtype) and returned in x's.
        """
        checks.floating("x_1", x_1)
        checks.like("x_0", x_0, "x_1", x_1)
        t = _checked(t, x_1, 1e-6)
        if t.dtype == x_1.dtype:
            return self._pair(x_0, x_1, t)
        x_t, u_t = self._pair(x_0.to(t.dtype), x_1.to(t.dtype), t)  # half precision is combined in float32
        return x_t.to(x_1.dtype), u_t.to(x_1.dtype)

    def coefficients(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, alpha' and sigma' at times t, a scalar or (B,), made to broadcast against x (B, *D)."""
        t = _checked(t, x, 1.0)
        return self.alpha(t), self.sigma(t), self.alpha_dot(t), self.sigma_dot(t)

    def _pair(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = self.alpha(t) * x_1 + self.sigma(t) * x_0
        u_t = self.alpha_dot(t) * x_1 + self.sigma_dot(t) * x_0
        return x_t, u_t


def _checked(t: Tensor | float, x: Tensor, slack: float) -> Tensor:
    """Times made to broadcast against x. Solvers of other libraries step beyond the end of a field, and need slack."""
    seen = checks.extent(t)
    if seen and not (seen[0] >= -slack and seen[1] <= 1 + slack):  # NaN fails
        raise ValueError(f"paths have times in [0, 1], from noise to data; got {seen[0]:g} to {seen[1]:g}")
    return expand_time(t, x)


class _StraightPath(AffinePath):
    """The straight path: the same pair in two passes over the points, where the general formula makes six."""

    def _pair(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(x_0, x_1, t), x_1 - x_0


# Coefficients are functions of this file and partials of them, not lambdas: so a path can be sent to other processes.


def _same(t: Tensor) -> Tensor:
    return t


def _falling(t: Tensor, rate: float = 1.0) -> Tensor:
    return 1 - rate * t


def _level(t: Tensor, height: float) -> Tensor:
    return height + 0 * t


def conical(sigma_min: float = 1e-4) -> AffinePath:
    """The conical path of Lipman et al. (2023, eq. 20-23): alpha = t, sigma = 1 - (1 - sigma_min) t."""
    checks.require(0 <= sigma_min <= 1, f"sigma_min must be in [0, 1], got {sigma_min}")
    rate = 1 - sigma_min
    sigma, sigma_dot = partial(_falling, rate=rate), partial(_level, height=-rate)
    return AffinePath(f"conical({sigma_min:g})", _same, sigma, torch.ones_like, sigma_dot)


linear: AffinePath = _StraightPath("linear", _same, _falling, torch.ones_like, partial(_level, height=-1.0))


def _quarter(t: Tensor, height: float) -> Tensor:
    return height * torch.sin(math.pi / 2 * t)


def _quarter_back(t: Tensor, height: float) -> Tensor:
    return height * torch.sin(math.pi / 2 * (1 - t))  # cos(pi t / 2) would lose its digits near the data


cosine = AffinePath(  # alpha^2 + sigma^2 = 1: for x_0 and x_1 of unit variance, so is that of x_t
    "cosine",
    partial(_quarter, height=1.0),
    partial(_quarter_back, height=1.0),
    partial(_quarter_back, height=math.pi / 2),
    partial(_quarter, height=-math.pi / 2),
)


def variance_preserving(beta_min: float = 0.1, beta_max: float = 20.0) -> AffinePath:
    r"""The path of DDPM in continuous time, with s = 1 - t and beta(s) = beta_min + s (beta_max - beta_min):

        alpha = exp(-B / 2),    sigma = sqrt(1 - exp(-B)),    B = beta_min s + (beta_max - beta_min) s^2 / 2.

    The rates of noising, at the data and at the noise, are per unit of time. It never reaches pure noise: at t = 0,
    alpha = .0066 for the default rates. At the data sigma' is infinite, like -sqrt(beta_min / s) / 2, so that the mean
    square of u_t has no finite average over t: one trains noise or data prediction, or cuts t off. Only sigma sigma' is
    finite; to keep it so at t = 1, sigma and sigma' are those of s = eps^2 there, less than the rounding of x_1.

    Source: Song et al. (2021), appendix C, where s is called t; Ho et al. (2020) in discrete time.

    >>> variance_preserving().alpha(torch.tensor([0.0, 1.0]))
    tensor([0.0066, 1.0000])
    """
    checks.require(
        0 < beta_min <= beta_max < math.inf,
        f"rates must satisfy 0 < beta_min <= beta_max, got {beta_min} and {beta_max}",
    )
    parts: tuple[Callable[..., Tensor], ...] = (_vp_alpha, _vp_sigma, _vp_alpha_dot, _vp_sigma_dot)
    coefficients = [partial(f, beta_min=beta_min, beta_max=beta_max) for f in parts]
    return AffinePath("variance preserving", *coefficients)


def _noising(t: Tensor, beta_min: float, beta_max: float) -> tuple[Tensor, Tensor]:
    """B, and the rate beta, at s = 1 - t."""
    s = (1 - t).clamp(min=torch.finfo(t.dtype).eps ** 2)
    return beta_min * s + (beta_max - beta_min) * s**2 / 2, beta_min + (1 - t) * (beta_max - beta_min)


def _vp_alpha(t: Tensor, **rates: float) -> Tensor:
    return torch.exp(-_noising(t, **rates)[0] / 2)


def _vp_sigma(t: Tensor, **rates: float) -> Tensor:
    return torch.sqrt(
        -torch.expm1(-_noising(t, **rates)[0])
    )  # 1 - exp(-B) would lose its digits near the data


def _vp_alpha_dot(t: Tensor, **rates: float) -> Tensor:
    return _noising(t, **rates)[1] * _vp_alpha(t, **rates) / 2


def _vp_sigma_dot(t: Tensor, **rates: float) -> Tensor:
    return -_noising(t, **rates)[1] * _vp_alpha(t, **rates) ** 2 / (2 * _vp_sigma(t, **rates))
