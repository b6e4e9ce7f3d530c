r"""Normalizing flows: invertible maps from noise to data with cheap Jacobian determinants (chapter 2).

A flow maps noise x_0 to data x_1 = f(x_0), and the density of the data follows from that of the noise:

    log p_1(x_1) = log p_0(x_0) + log |det dx_0 / dx_1|,        x_0 = f^-1(x_1)        (change of variables).

Every transform's `forward` runs from noise to data and its `inverse` from data to noise, as t runs from 0 to 1 in the
other chapters. Maximum likelihood needs the inverse only; so where one of the two directions is cheaper (masked
autoregression, splines), it is the inverse. Points are vectors here, (..., d), with any batch shape in front, in
float32 or float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from flowlib import checks
from flowlib.autoregressive import MaskedAutoregressive
from flowlib.continuous import Law
from flowlib.coupling_layers import AffineCoupling, CouplingTransform, SplineCoupling
from flowlib.splines import AffineBijection, Bijection, SplineBijection, rational_quadratic_spline
from flowlib.transforms import (
    ActNorm,
    Composition,
    Inverse,
    InvertibleLinear,
    Permutation,
    Transform,
)

__all__ = [
    "ActNorm",
    "AffineBijection",
    "AffineCoupling",
    "BaseLaw",
    "Bijection",
    "Composition",
    "CouplingTransform",
    "Flow",
    "Inverse",
    "InvertibleLinear",
    "MaskedAutoregressive",
    "Permutation",
    "SplineBijection",
    "SplineCoupling",
    "StandardNormal",
    "Transform",
    "bits_per_dimension",
    "dequantize",
    "rational_quadratic_spline",
]


class BaseLaw(Law, Protocol):
    """A law of noise, with a density and a sampler: a StandardNormal, a GaussianMixture or a Flow."""

    def sample(self, n: int, /, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d)."""


@dataclass(frozen=True)
class StandardNormal:
    """The law N(0, I) on R^d.

    >>> StandardNormal(2).log_prob(torch.zeros(3, 2))  # -log 2 pi
    tensor([-1.8379, -1.8379, -1.8379])
    """

    dimension: int

    def __post_init__(self) -> None:
        checks.whole(dimension=self.dimension)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (...), at points x (..., d)."""
        d = self.dimension
        checks.points(x, d)
        return -x.square().sum(-1) / 2 - d / 2 * math.log(2 * math.pi)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d)."""
        device = generator.device if generator else None
        return torch.randn(n, self.dimension, generator=generator, device=device)


class Flow(nn.Module):
    """The law of x_1 = f(x_0) with x_0 from the base and f the transforms, first to last from noise to data.

    Its density is that of the change of variables: derived at thm-change. Calling the flow gives log p_1, so that `fit`
    reaches it under `compile` and `autocast` too. Maximum likelihood is the loss
    `lambda flow, generator: -flow(batch(generator)).mean()`.

    Source: Rezende & Mohamed (2015); Dinh et al. (2017), equations 2 and 3.

    >>> from flowlib.data import moons
    >>> from flowlib.training import fit
    >>> g = Generator().manual_seed(0)
    >>> couplings = [SplineCoupling(2, flip=bool(k % 2), width=16, generator=g) for k in range(2)]
    >>> law, flow = moons(), Flow(StandardNormal(2), [*couplings, ActNorm(2)])
    >>> flow.initialize(law.sample(1000, generator=g))
    >>> run = fit(flow, lambda v, g: -v(law.sample(128, generator=g)).mean(), steps=50, lr=1e-2, progress=False)
    >>> run.history[:10].mean() > run.history[-10:].mean()
    tensor(True)
    """

    def __init__(self, base: BaseLaw, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.base, self.transform = base, Composition(transforms)

    def forward(self, x_1: Tensor) -> Tensor:
        """log p_1(x_1) = log p_0(x_0) + log |det dx_0 / dx_1|, (...), at points x_1 (..., d)."""
        x_0, log_det = self.transform.inverse(x_1)
        log_p_0 = self.base.log_prob(x_0)
        checks.like("the base's log_prob", log_p_0, "one number for each point", log_det)
        return log_p_0 + log_det

    def log_prob(self, x_1: Tensor) -> Tensor:
        """log p_1(x_1), (...), at points x_1 (..., d)."""
        return self(x_1)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d), differentiable in the parameters, in their dtype (but no less than float32) and on their
        device; the noise is drawn where the generator lives.
        """
        x_0 = self.base.sample(n, generator=generator)
        like = next(itertools.chain(self.parameters(), self.buffers()), x_0)
        dtype = torch.promote_types(torch.float32, like.dtype) if like.is_floating_point() else x_0.dtype
        return self.transform(x_0.to(like.device, dtype))[0]

    def initialize(self, x_1: Tensor) -> None:
        """Give each ActNorm its first mean and scale, from a batch of data (N, d)."""
        self.transform.initialize(x_1)


def dequantize(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    """Noise for whole numbers x from 0 to M - 1, with M = `levels`: (x + u) / M with u uniform on [0, 1].

    By Jensen's inequality a density p on the cube is a bound for the probabilities of x,

        E_u log p((x + u) / M) - d log M <= log P(x),

    with P(x) the integral of p over the cell of x. Derived at prop-dequantize. The result is in float64 if x is, else
    in float32. On a GPU, where looking would wait, other numbers than whole ones in range are not found.

    Source: Theis et al. (2016).
    """
    checks.whole(levels=levels)
    dtype = torch.promote_types(torch.float32, x.dtype)
    margin = 2 * levels * torch.finfo(dtype).eps  # what rounding may move x + u by: it must stay in its cell
    checks.require(margin < 0.02, f"{levels} levels are too many for {dtype}: convert x to float64")
    x = x.to(dtype)
    if extent := checks.extent(x):
        whole = extent[0] >= 0 and extent[1] < levels and torch.equal(x, x.round())
        given = "values from {:g} to {:g}".format(*extent)
        checks.require(whole, f"expected whole numbers from 0 to {levels - 1}, got {given}")
    u = torch.rand(x.shape, generator=generator, dtype=dtype, device=x.device)
    return (x + u.clamp(margin, 1 - margin)) / levels


def bits_per_dimension(log_prob: Tensor, dimension: int, levels: int) -> Tensor:
    """The bits that a coordinate of x costs, for the `log_prob` of (x + u) / M with M = `levels`:

        log_2 M - log p((x + u) / M) / (d log 2).

    >>> bits_per_dimension(torch.tensor(0.0), 64, 16)  # a uniform density knows nothing
    tensor(4.)
    """
    checks.precise("log_prob", log_prob)
    checks.whole(dimension=dimension, levels=levels)
    bits = -log_prob / math.log(2)
    return math.log2(levels) + bits / dimension
