"""Finite data as a law: the exact field that perfect training on a data set would learn (chapters 4 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from flowlib.mixtures import GaussianMixture, sampling_device
from flowlib.paths import AffinePath


class Empirical:
    """The law of finite data, 1/n sum_i delta(x - y_i). On its way from noise it has a density at every t < 1.

    Args:
        points: the data y_i, (n, *D), float32 or float64.
        name: what tables and legends call the law.

    Raises:
        ValueError: no points, or points that are not finite.
        TypeError: points in half precision or not floating-point.

    >>> law = Empirical(torch.tensor([[-1.0], [1.0]]))
    >>> law.sample(4, generator=Generator().manual_seed(0)).T
    tensor([[-1.,  1.,  1., -1.]])
    """

    def __init__(self, points: Tensor, *, name: str = "finite data") -> None:
        if points.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"points must be float32 or float64, got {points.dtype}")
        if points.ndim < 2 or points.numel() == 0:
            raise ValueError(f"points must have shape (n, *D), got {tuple(points.shape)}")
        if not points.isfinite().all():
            raise ValueError("points must be finite, got infinite or NaN coordinates")
        self.points, self.name = points, name

    def __repr__(self) -> str:
        return f"Empirical({self.name!r}, n={len(self.points)}, D={tuple(self.points.shape[1:])})"

    def sample(
        self, n: int, *, generator: Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """n of the points (n, *D), drawn with replacement, on `device`, or else where the generator lives."""
        device = sampling_device(n, generator, device, self.points.device)
        chosen = torch.randint(len(self.points), (n,), generator=generator, device=device)
        return self.points.to(device)[chosen]

    def marginal_velocity(self, path: AffinePath, source: GaussianMixture | None = None) -> EmpiricalVelocity:
        """The velocity E[u_t | x_t = x] of the path to these points from x_0, independent of them.

        Args:
            path: gives alpha, sigma and their derivatives.
            source: the law of x_0; N(0, I) if None. A mixture wants points (n, d).

        Raises:
            ValueError: the source has another dimension than the points.
        """
        shape = tuple(self.points.shape[1:])
        if source is not None and shape != (source.means.shape[1],):
            raise ValueError(
                f"source and points must share their dimension, got {source.means.shape[1]} and {shape}"
            )
        return EmpiricalVelocity(self, path, source)


@dataclass(frozen=True, eq=False)
class EmpiricalVelocity:
    r"""The marginal velocity of an affine path to finite data, a field; made by `Empirical.marginal_velocity`.

    At x_t = x the point y_i has come with the posterior weight w_i, and noise and data share what x is:

        w_i = p_0((x - alpha y_i) / sigma) / sum_j p_0((x - alpha y_j) / sigma),
        E_1 = E[x_1|x_t = x] = sum_i w_i y_i,    E_0 = (x - alpha E_1) / sigma,    v = alpha' E_1 + sigma' E_0.

    Its flow ends in the data: perfect training on a finite set memorizes it. Where sigma = 0, at t = 1, there is
    neither a density nor a velocity, and every method raises ValueError: solve to t1 = 0.999 or so. Weights are
    computed in float64, since rounding errors count as 1 / sigma^2.

    >>> from flowlib.paths import linear
    >>> v = Empirical(torch.tensor([[-1.0], [1.0]])).marginal_velocity(linear)
    >>> v(torch.tensor([[0.5]]), 0.0), v.weights(torch.tensor([[0.5]]), 0.5)  # at t = 0 towards the mean
    (tensor([[-0.5000]]), tensor([[0.1192, 0.8808]]))
    """

    law: Empirical
    path: AffinePath
    source: GaussianMixture | None = None

    @cached_property
    def _rows(self) -> Tensor:
        return self.law.points.flatten(1).double()  # (n, d)

    def __call__(self, x: Tensor, t: Tensor | float, /, **cond: object) -> Tensor:
        """v(x, t), like x (B, *D), at times t < 1, a scalar or (B,)."""
        alpha, sigma, alpha_dot, sigma_dot = self.path.coefficients(t, x)
        E_1 = self.data(x, t)
        return (alpha_dot * E_1 + sigma_dot * (x - alpha * E_1) / sigma).to(x.dtype)

    def data(self, x: Tensor, t: Tensor | float) -> Tensor:
        """E[x_1 | x_t = x], like x (B, *D)."""
        return (self._likelihoods(x, t).softmax(1) @ self._rows.to(x.device)).to(x.dtype).reshape(x.shape)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The posterior weights w_i of all points, (B, n)."""
        return self._likelihoods(x, t).softmax(1).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p_t(x) in nats, (B,)."""
        n, d = self._rows.shape
        sigma = self.path.coefficients(t, x.flatten(1)[:, 0])[1].double()
        return (self._likelihoods(x, t).logsumexp(1) - math.log(n) - d * sigma.log()).to(x.dtype)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """grad log p_t(x), like x (B, *D)."""
        alpha, sigma, _, _ = self.path.coefficients(t, x)
        if self.source is None:
            return ((alpha * self.data(x, t) - x) / sigma**2).to(x.dtype)
        noise = self._noise(x, t)  # (B, n, d)
        scores = self.source.score(noise.flatten(0, 1)).reshape(noise.shape)
        weights = self._likelihoods(x, t).softmax(1)
        return ((weights[:, :, None] * scores).sum(1) / sigma).to(x.dtype)

    def _noise(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The x_0 = (x - alpha y_i) / sigma from which each point would have led to x, (B, n, d) in float64."""
        rows, x = self._rows.to(x.device), x.flatten(1).double()
        alpha, sigma, _, _ = self.path.coefficients(t, x)
        return (x[:, None] - alpha[..., None] * rows) / sigma[..., None]

    def _likelihoods(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p_0((x - alpha y_i) / sigma), (B, n) in float64."""
        shape = tuple(self.law.points.shape[1:])
        if tuple(x.shape[1:]) != shape or x.ndim < 2:
            raise ValueError(
                f"points must have shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"points must be float32 or float64, got {x.dtype}")
        alpha, sigma, _, _ = (c.double() for c in self.path.coefficients(t, x.flatten(1)))
        if not (sigma > 0).all():
            raise ValueError(f"finite data have no density where sigma = 0; got t = {t}, take t < 1")
        if self.source is not None:
            noise = self._noise(x, t)
            return self.source.log_prob(noise.flatten(0, 1)).reshape(noise.shape[:2])
        # |x - alpha y|^2 by a matrix product, without the (B, n, d) differences
        rows, x = self._rows.to(x.device), x.flatten(1).double()
        square = x.square().sum(1, keepdim=True) - 2 * alpha * x @ rows.T + alpha**2 * rows.square().sum(1)
        return -square / (2 * sigma**2) - rows.shape[1] / 2 * math.log(2 * math.pi)
