"""Laws of the times t in [0, 1] at which a network is trained, and the shift of a grid of times (chapters 6 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.special import ndtr, ndtri

from flowlib import checks

# Any callable (n, *, generator=None, device=None) -> (n,)
Times = Callable[..., Tensor]


@dataclass(frozen=True)
class TimeLaw:
    """A law on [0, 1], of t = Q(u) with u uniform: `law(n, generator=, device=)` draws n times (n,) in float32.

    To train with a law of density p is, on average, to weigh the loss by p(t) at uniform times. Do one of the two, not
    both; their gradients differ in variance. Times are flowlib's, 1 at the data: Stable Diffusion 3's sigma is 1 - t.

    Args:
        name: what tables and legends call it.
        quantile: Q, a function from a tensor to a tensor of the same shape, like the others.
        cdf: the inverse of Q, P(time <= t).
        log_density: log p(t) = -log Q'(u) at u = cdf(t).

    >>> uniform(3, generator=torch.Generator().manual_seed(0))
    tensor([0.4963, 0.7682, 0.0885])
    >>> logit_normal().log_density(torch.tensor([0.1, 0.5])).exp()
    tensor([0.3966, 1.5958])
    """

    name: str
    quantile: Callable[[Tensor], Tensor]
    cdf: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor], Tensor]

    def __call__(
        self, n: int, *, generator: Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """n times, made on `device`, or else where the generator lives."""
        device = device or (generator.device if generator else None)
        return self.quantile(torch.rand(n, generator=generator, device=device, dtype=torch.float32))


def _same(t: Tensor) -> Tensor:
    return t


uniform = TimeLaw("uniform", _same, _same, torch.zeros_like)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeLaw:
    """The law of 1 / (1 + exp(-z)) with z ~ N(mean, std^2): few times at either end, as many as wanted between.

    In Stable Diffusion 3's sigma = 1 - t the mean has the other sign.

    Source: Esser et al. (2024), equation 19.
    """
    checks.require(math.isfinite(mean), f"mean must be finite, got {mean}")
    checks.positive(std=std)
    parts: tuple[Callable[..., Tensor], ...] = (_logistic, _logistic_back, _logistic_density)
    return TimeLaw(f"logit-normal({mean:g}, {std:g})", *(partial(f, mean=mean, std=std) for f in parts))


def _logistic(u: Tensor, mean: float, std: float) -> Tensor:
    return torch.sigmoid(mean + std * ndtri(u))


def _logistic_back(t: Tensor, mean: float, std: float) -> Tensor:
    return ndtr((torch.logit(t) - mean) / std)


def _logistic_density(t: Tensor, mean: float, std: float) -> Tensor:
    z = (torch.logit(t) - mean) / std
    log_density = -(z**2) / 2 - math.log(std * math.sqrt(2 * math.pi)) - t.log() - (-t).log1p()
    return torch.where(z.isinf(), -torch.inf, log_density)  # at the ends, where the first term wins


def mode(scale: float) -> TimeLaw:
    """The law of t = u + scale (cos^2(pi u / 2) - 1 + u), for -1 <= scale <= 2 / (pi - 2): without tails that vanish.

    Its density is 1 / (1 + scale) at both ends. For scale > 0 it is highest at t = 1/2, and for scale < 0 lowest
    there; it is symmetric, so that Stable Diffusion 3's sigma = 1 - t has the same law.

    Source: Esser et al. (2024), equation 20.
    """
    most = 2 / (math.pi - 2)
    checks.require(-1 <= scale <= most, f"scale must be from -1 to 2 / (pi - 2) = {most:.4f}, got {scale}")
    parts = (_mode, _mode_back, _mode_density)
    return TimeLaw(f"mode({scale:g})", *(partial(f, scale=scale) for f in parts))


def _mode(u: Tensor, scale: float) -> Tensor:
    return u + scale * ((math.pi / 2 * u).cos().square() - 1 + u)


def _mode_back(t: Tensor, scale: float) -> Tensor:
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(int(-math.log2(torch.finfo(t.dtype).eps)) + 1):  # bisection, to the last digit
        u = (low + high) / 2
        below = _mode(u, scale) < t
        low, high = torch.where(below, u, low), torch.where(below, high, u)
    return (low + high) / 2


def _mode_density(t: Tensor, scale: float) -> Tensor:
    u = _mode_back(t, scale)
    return -(1 + scale * (1 - math.pi / 2 * (math.pi * u).sin())).log()


def shift(t: Tensor, s: float) -> Tensor:
    """Times moved toward the noise, for s > 1: t / (s - (s - 1) t), that is logit t - log s. 0 and 1 stay.

    A sampler that takes its steps on a shifted grid spends more of them where there is much noise, as larger images
    need: see `resolution_shift`. Shifts compose by multiplication, so apply one. In Stable Diffusion 3's sigma = 1 - t
    it is s sigma / (1 + (s - 1) sigma).

    Source: Esser et al. (2024), equation 23.

    >>> shift(torch.linspace(0, 1, 5), 3.0)
    tensor([0.0000, 0.1000, 0.2500, 0.5000, 1.0000])
    """
    checks.precise("times", t)
    checks.positive(s=s)
    seen = checks.extent(t)
    if seen and not (seen[0] >= 0 and seen[1] <= 1):
        raise ValueError(f"times to shift must be in [0, 1], got {seen[0]:g} to {seen[1]:g}")
    return t / (t + s * (1 - t))


def resolution_shift(pixels: float, reference: float) -> float:
    """The shift s = sqrt(pixels / reference) for images of so many pixels, where none is needed for the reference.

    On a constant image the noise averages out over the pixels: at sigma / alpha its mean is known up to
    sigma / (alpha sqrt(pixels)). The shift keeps that uncertainty at each step what it was for the reference.

    Source: Esser et al. (2024), section 5.3.2.

    >>> resolution_shift(1024**2, 512**2)
    2.0
    """
    checks.positive(pixels=pixels, reference=reference)
    return math.sqrt(pixels / reference)
