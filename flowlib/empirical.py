"""Finite data as a law: the exact field that perfect training on a data set would learn (chapters 4 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from flowlib import checks
from flowlib.mixtures import GaussianMixture, held, sampling_device
from flowlib.paths import AffinePath


class Empirical:
    """The law of finite data, 1/n sum_i delta(x - y_i). On its way from noise it has a density at every t < 1.

    Like a `GaussianMixture` it copies its points (n, *D), in float32 or float64, and never changes, unless they require
    grad: then it follows them.

    >>> law = Empirical(torch.tensor([[-1.0], [1.0]]))
    >>> law.sample(4, generator=Generator().manual_seed(0)).T
    tensor([[-1.,  1.,  1., -1.]])
    """

    def __init__(self, points: Tensor, *, name: str = "finite data") -> None:
        checks.precise("points", points)
        checks.require(
            points.ndim >= 2 and points.numel() > 0,
            f"points must have shape (n, *D), got {tuple(points.shape)}",
        )
        checks.finite("points", points)
        self._points, self.name = held(points), name
        rows = points.detach().flatten(1).double()
        self._center = rows.mean(0)
        learned = points.requires_grad  # its points may go anywhere
        self._radius = math.inf if learned else float((rows - self._center).norm(dim=1).max())

    def __repr__(self) -> str:
        return f"Empirical({self.name!r}, n={len(self._points)}, D={tuple(self._points.shape[1:])})"

    @property
    def points(self) -> Tensor:
        """The points y_i, (n, *D)."""
        return self._points.clone()

    def sample(
        self, n: int, *, generator: Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """n of the points (n, *D), drawn with replacement, on `device`, or else where the generator lives."""
        device = sampling_device(n, generator, device, self._points.device)
        chosen = torch.randint(len(self._points), (n,), generator=generator, device=device)
        return self._points.to(device)[chosen]

    def marginal_velocity(self, path: AffinePath, source: GaussianMixture | None = None) -> EmpiricalVelocity:
        """The velocity E[u_t | x_t = x] of the path to these points from x_0, independent of them."""
        return EmpiricalVelocity(self, path, source)


@dataclass(frozen=True, eq=False)
class EmpiricalVelocity:
    r"""The marginal velocity of an affine path to finite data, a field; made by `Empirical.marginal_velocity`.

    At x_t = x the point y_i has come with the posterior weight w_i, and noise and data share what x is:

        w_i = p_0((x - alpha y_i) / sigma) / sum_j p_0((x - alpha y_j) / sigma),
        E_1 = E[x_1|x_t = x] = sum_i w_i y_i,    E_0 = (x - alpha E_1) / sigma,    v = alpha' E_1 + sigma' E_0.

    Its flow ends in the data: perfect training on a finite set memorizes it. Where sigma = 0, at t = 1, there is
    neither a density nor a velocity, and every method raises ValueError: solve to t1 = 0.999 or so. (Times that are
    tensors on a GPU are not waited for: there the answer at t = 1 is NaN.) All is computed in float64, and coordinates
    count from the middle of the data, since rounding errors count as 1 / sigma^2.

    The source p_0 is N(0, I) if None; a mixture wants points (n, d).

    >>> from flowlib.paths import linear
    >>> v = Empirical(torch.tensor([[-1.0], [1.0]])).marginal_velocity(linear)
    >>> v(torch.tensor([[0.5]]), 0.0), v.weights(torch.tensor([[0.5]]), 0.5)  # at t = 0 toward the mean
    (tensor([[-0.5000]]), tensor([[0.1192, 0.8808]]))
    """

    law: Empirical
    path: AffinePath
    source: GaussianMixture | None = None
    _kept: Tensor | None = field(init=False, repr=False)  # None if the points are learned

    def __post_init__(self) -> None:
        shape = tuple(self.law._points.shape[1:])
        d = shape[0] if self.source is None else self.source.means.shape[1]
        checks.require(
            self.source is None or shape == (d,),
            f"source and points must share their dimension, got {d} and {shape}",
        )
        with torch.inference_mode(False):
            made = self._make()
        object.__setattr__(self, "_kept", None if self.law._points.requires_grad else made)

    def __call__(self, x: Tensor, t: Tensor | float, /) -> Tensor:
        """v(x, t), like x (B, *D), at times t < 1, a scalar or (B,)."""
        at = _Place(self, x, t)
        E_1, E_0 = at.means()
        return at.like_x(at.alpha_dot * (E_1 + at.center) + at.sigma_dot * E_0)

    def data(self, x: Tensor, t: Tensor | float) -> Tensor:
        """E[x_1 | x_t = x], like x (B, *D)."""
        at = _Place(self, x, t)
        return at.like_x(at.means()[0] + at.center)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The posterior weights w_i of all points, (B, n)."""
        return _Place(self, x, t).log_weights().softmax(1).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p_t(x) in nats, (B,)."""
        at = _Place(self, x, t)
        n, d = at.rows.shape
        return (at.log_weights().logsumexp(1) - math.log(n) - d * at.sigma.log().reshape(-1)).to(x.dtype)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """grad log p_t(x), like x (B, *D)."""
        at = _Place(self, x, t)
        if self.source is None:
            return at.like_x(-at.means()[1] / at.sigma)
        noise = at.noise()  # (B, n, d)
        scores = self.source.score(noise.flatten(0, 1)).reshape(noise.shape)
        return at.like_x((at.log_weights().softmax(1).unsqueeze(2) * scores).sum(1) / at.sigma)

    def _make(self) -> Tensor:
        """The rows [y - c, |y - c|^2, 1] (n, d + 2), c the middle of the data."""
        rows = self.law._points.flatten(1).double() - self.law._center
        square = rows.square().sum(1, keepdim=True)
        return torch.cat([rows, square, torch.ones_like(square)], 1)


class _Place:
    """Points x (B, *D) at a time t: the path's coefficients () or (B, 1) and x - alpha c (B, d), in float64."""

    def __init__(self, v: EmpiricalVelocity, x: Tensor, t: Tensor | float) -> None:
        checks.shaped("points", x, "B", *v.law._points.shape[1:])
        checks.precise("points", x)
        self.v, self.x, flat = v, x, x.flatten(1).double()
        self.alpha, self.sigma, self.alpha_dot, self.sigma_dot = v.path.coefficients(t, flat)
        self.center = v.law._center.to(x.device)
        self.table = (v._make() if v._kept is None else v._kept).to(x.device)
        self.rows = self.table.narrow(1, 0, flat.shape[1])  # y - c (n, d)
        self.z = flat - self.center + (1 - self.alpha) * self.center  # keeps its digits far from the origin
        self.least = 0.0  # the smallest sigma; 0 where it is not known
        if not isinstance(t, Tensor) or t.device.type == "cpu":
            sigma = v.path.sigma(torch.as_tensor(t, dtype=torch.float64))
            self.least = float(sigma.min()) if sigma.numel() else 1.0
            checks.require(
                self.least > 8 * torch.finfo(torch.float64).eps,
                f"finite data have no density where sigma = 0; got t = {t}, take t < 1",
            )

    def log_weights(self) -> Tensor:
        """log p_0((x - alpha y_i) / sigma), (B, n)."""
        if self.v.source is not None:
            noise = self.noise()
            return self.v.source.log_prob(noise.flatten(0, 1)).reshape(noise.shape[:2])
        d = self.rows.shape[1]
        if self.least > 1e-3 * self.v.law._radius:  # |z - alpha (y - c)|^2 by one matrix product
            precision = (1 / self.sigma**2).expand(len(self.z), 1)
            alone = -precision / 2 * self.z.square().sum(1, keepdim=True) - d / 2 * math.log(2 * math.pi)
            shared = -(self.alpha**2) * precision / 2
            return torch.cat([self.alpha * precision * self.z, shared, alone], 1) @ self.table.T
        # near the data its rounding, (radius / sigma)^2 epsilon, would show: differences, a few axes at a time
        square = sum(
            (z.unsqueeze(1) - self.alpha.reshape(-1, 1, 1) * y).square().sum(-1)
            for z, y in zip(self.z.split(16, 1), self.rows.split(16, 1), strict=True)
        )
        return -square / (2 * self.sigma**2) - d / 2 * math.log(2 * math.pi)

    def noise(self) -> Tensor:
        """The x_0 = (x - alpha y_i) / sigma from which each point would have led to x, (B, n, d)."""
        alpha, sigma = self.alpha.reshape(-1, 1, 1), self.sigma.reshape(-1, 1, 1)
        return (self.z.unsqueeze(1) - alpha * self.rows) / sigma

    def means(self) -> tuple[Tensor, Tensor]:
        """E[x_1|x_t = x] - c and E[x_0|x_t = x], (B, d)."""
        E_1 = self.log_weights().softmax(1) @ self.rows
        return E_1, (self.z - self.alpha * E_1) / self.sigma

    def like_x(self, result: Tensor) -> Tensor:
        return result.to(self.x.dtype).reshape(self.x.shape)
