r"""Normalizing flows: invertible maps from noise to data with cheap Jacobian determinants (chapter 2).

A flow maps noise x_0 to data x_1 = f(x_0), and the density of the data follows from that of the noise:

    log p_1(x_1) = log p_0(x_0) + log |det dx_0 / dx_1|,        x_0 = f^-1(x_1)        (change of variables).

Every transform's `forward` runs from noise to data and its `inverse` from data to noise, as t runs from 0 to 1 in the
other chapters. Maximum likelihood needs the inverse only; so where one of the two directions is cheaper (masked
autoregression, splines), it is the inverse. Points are vectors here, (..., d), with any batch shape in front.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from flowlib.nets import SeededLinear
from flowlib.splines import AffineBijection, Bijection, SplineBijection, rational_quadratic_spline
from flowlib.transforms import (
    ActNorm,
    Composition,
    Inverse,
    InvertibleLinear,
    Permutation,
    Transform,
    check_points,
)

__all__ = [
    "ActNorm",
    "AffineBijection",
    "AffineCoupling",
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

    Raises:
        ValueError: d < 2, or a width or depth that is not positive.

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
        if dimension < 2 or min(width, depth) < 1:
            raise ValueError(
                "a coupling needs two coordinates and positive sizes, "
                f"got dimension={dimension}, width={width}, depth={depth}"
            )
        self.sizes, self.bijection, self.flip = (dimension // 2, dimension - dimension // 2), bijection, flip
        kept, moved = reversed(self.sizes) if flip else self.sizes
        widths = [kept] + depth * [width] + [moved * bijection.count]
        self.net = _perceptron([SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths)])

    def _theta(self, kept: Tensor) -> Tensor:
        """The numbers that map the other coordinates, (..., moved, count)."""
        return self.net(kept).to(kept.dtype).unflatten(-1, (-1, self.bijection.count))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = check_points(x, sum(self.sizes)).split(self.sizes, dim=-1)
        return (b, a) if self.flip else (a, b)

    def _whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, kept] if self.flip else [kept, moved], dim=-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_b = g(x_b; theta(x_a)) and y_a = x_a."""
        x_a, x_b = self._halves(x)
        y_b, log_slope = self.bijection.forward(x_b, self._theta(x_a))
        return self._whole(x_a, y_b), log_slope.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_b = g^-1(y_b; theta(y_a)) and x_a = y_a."""
        y_a, y_b = self._halves(y)
        x_b, log_slope = self.bijection.inverse(y_b, self._theta(y_a))
        return self._whole(y_a, x_b), log_slope.sum(-1)


def AffineCoupling(dimension: int, **options: Any) -> CouplingTransform:
    """The coupling of RealNVP, y_b = m(x_a) + e^{s(x_a)} x_b; options as in `CouplingTransform`.

    Source: Dinh et al. (2017), equations 4 and 5.
    """
    return CouplingTransform(dimension, AffineBijection(), **options)


def SplineCoupling(dimension: int, *, bins: int = 8, bound: float = 5.0, **options: Any) -> CouplingTransform:
    """The coupling of neural spline flows: from data to noise, x_b is a rational-quadratic spline of y_b whose knots
    depend on y_a. Outside [-bound, bound] it is the identity: standardize the data first, with an ActNorm.

    Source: Durkan et al. (2019), section 3.
    """
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

    Raises:
        ValueError: a size that is not positive.

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
        if min(dimension, width, depth) < 1:
            raise ValueError(
                f"sizes must be positive, got dimension={dimension}, width={width}, depth={depth}"
            )
        self.bijection = bijection
        place = torch.arange(dimension).flip(0) if flip else torch.arange(dimension)
        self.order = place.argsort().tolist()  # the coordinates, first to last
        # A hidden unit of degree m sees the coordinates at places up to m, an output those at places before its own.
        hidden = torch.arange(width) % max(dimension - 1, 1)
        degrees = [place, *depth * [hidden]]
        masks = [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        masks.append(place.repeat_interleave(bijection.count)[:, None] > hidden)
        self.net = _perceptron([_MaskedLinear(mask, generator) for mask in masks])

    def _theta(self, y: Tensor) -> Tensor:
        """What maps each coordinate, (..., d, count)."""
        return self.net(y).to(y.dtype).unflatten(-1, (-1, self.bijection.count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y_i = g(x_i; theta_i(y_1, ..., y_{i-1})), for one i after the other."""
        y, log_slopes = torch.zeros_like(check_points(x, len(self.order))), []
        for i in self.order:
            y_i, log_slope = self.bijection.forward(x[..., i], self._theta(y)[..., i, :])
            y = torch.cat([y[..., :i], y_i[..., None], y[..., i + 1 :]], dim=-1)
            log_slopes.append(log_slope)
        return y, torch.stack(log_slopes).sum(0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x_i = g^-1(y_i; theta_i(y_1, ..., y_{i-1})), for all i at once."""
        x, log_slope = self.bijection.inverse(y, self._theta(check_points(y, len(self.order))))
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


def _perceptron(layers: Sequence[nn.Linear]) -> nn.Sequential:
    """The layers with ReLU between them, whose kinks follow sharp edges of a density; the last starts at zero."""
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    first, *others = layers
    return nn.Sequential(first, *[module for layer in others for module in (nn.ReLU(), layer)])


class BaseLaw(Protocol):
    """A law of noise: a StandardNormal, or a GaussianMixture."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """log p_0(x) in nats, (...), at points x (..., d)."""

    def sample(self, n: int, /, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d)."""


@dataclass(frozen=True)
class StandardNormal:
    """The law N(0, I) on R^d.

    >>> StandardNormal(2).log_prob(torch.zeros(3, 2))  # -log 2 pi
    tensor([-1.8379, -1.8379, -1.8379])
    """

    dimension: int

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (...), at points x (..., d)."""
        d = self.dimension
        return -check_points(x, d).square().sum(-1) / 2 - d / 2 * math.log(2 * math.pi)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d), made where the generator lives."""
        device = generator.device if generator else None
        return torch.randn(n, self.dimension, generator=generator, device=device)


class Flow(nn.Module):
    """The law of x_1 = f(x_0) with x_0 from the base and f the transforms, first to last from noise to data.

        log p_1(x_1) = log p_0(x_0) + log |det dx_0 / dx_1|,        x_0 = f^-1(x_1)

    Calling the flow gives log p_1, so that `training.fit` reaches it under `compile` and `autocast` too. Maximum
    likelihood is the loss `lambda flow, generator: -flow(batch(generator)).mean()`.

    Args:
        base: the law of x_0.
        transforms: the steps of f, each a Transform.

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
        """log p_1(x_1) in nats, (...), at points x_1 (..., d)."""
        x_0, log_det = self.transform.inverse(x_1)
        return self.base.log_prob(x_0) + log_det

    def log_prob(self, x_1: Tensor) -> Tensor:
        """log p_1(x_1) in nats, (...), at points x_1 (..., d)."""
        return self(x_1)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """n points (n, d), differentiable in the parameters. The noise is drawn where the generator lives."""
        x_0, parameter = self.base.sample(n, generator=generator), next(self.parameters(), None)
        return self.transform(x_0 if parameter is None else x_0.to(parameter))[0]

    @torch.no_grad()
    def initialize(self, x_1: Tensor) -> None:
        """Give each ActNorm its first mean and scale from a batch of data (N, d)."""
        self.transform.initialize(x_1)


def dequantize(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    """(x + u) / levels with u uniform on [0, 1): a density of it on [0, 1]^d is a bound for the probabilities of x.

    By Jensen's inequality E_u log p((x + u) / levels) - d log levels <= log P(x), in nats, with P(x) the integral of
    p over the cell of x.

    Args:
        x: whole numbers 0, ..., levels - 1, of any shape and dtype.
        levels: how many there are.
        generator: the source of u, on the device of x.

    Returns:
        like x, in its dtype if that is floating-point and in torch's default dtype otherwise.

    Raises:
        ValueError: a number outside 0, ..., levels - 1, or not whole.

    Source: Theis et al. (2016).
    """
    if x.numel() and not (x.min() >= 0 and x.max() <= levels - 1 and torch.equal(x, x.round())):
        raise ValueError(
            f"expected whole numbers from 0 to {levels - 1}, got values from {x.min()} to {x.max()}"
        )
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return (x + torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)) / levels


def bits_per_dimension(log_prob: Tensor, dimension: int, levels: int) -> Tensor:
    """How many bits a coordinate of x costs, if log_prob = log p((x + u) / levels) in nats: see `dequantize`.

        log_2 levels - log_prob / (d log 2)

    >>> bits_per_dimension(torch.tensor(0.0), 64, 16)  # a uniform density knows nothing
    tensor(4.)
    """
    return math.log2(levels) - log_prob / (dimension * math.log(2))
