"""Data laws: Gaussian mixtures, whose every flow is known exactly, and the two-dimensional toys (all chapters)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowlib.paths import AffinePath


def _device(
    n: int,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    default: torch.device | str = "cpu",
) -> torch.device:
    """Where n points are made: on `device`, else where the generator lives."""
    if n < 0:
        raise ValueError(f"cannot draw n = {n} points")
    return torch.device(device or (generator.device if generator else default))


class GaussianMixture:
    """The law p(x) = sum_k w_k N(x; mu_k, S_k) on R^d, with density, score and marginal velocity in closed form.

    Every method computes in the dtype and on the device of the points that it is given; samples take those of `means`.

    Args:
        means: the centers mu_k, (K, d).
        covariances: the S_k, as variances (K,) of round components, variances (K, d) along the axes, or matrices
            (K, d, d); positive definite.
        weights: the w_k (K,), positive with sum 1; equal if None.
        name: what tables and legends call it.
        entropy: -E[log p(x)] in nats, where it is known.

    Raises:
        ValueError: shapes that do not fit, a covariance that is not symmetric positive definite, or bad weights.
        TypeError: means in half precision.

    >>> mixture = GaussianMixture([[-1.0], [1.0]], [0.25, 0.25])
    >>> mixture.log_prob(torch.tensor([[0.0]])), mixture.score(torch.tensor([[-3.0]]))
    (tensor([-2.2258]), tensor([[8.]]))
    """

    def __init__(
        self,
        means: Tensor | list,
        covariances: Tensor | list,
        weights: Tensor | list | None = None,
        *,
        name: str = "Gaussian mixture",
        entropy: float | None = None,
    ) -> None:
        self.means = torch.as_tensor(means)
        if not self.means.is_floating_point():
            self.means = self.means.to(torch.get_default_dtype())
        if self.means.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"means must be float32 or float64, got {self.means.dtype}")
        if self.means.ndim != 2:
            raise ValueError(f"means must have shape (K, d), got {tuple(self.means.shape)}")
        K, d = self.means.shape
        self.covariances = torch.as_tensor(covariances).to(self.means)
        if tuple(self.covariances.shape) not in ((K,), (K, d), (K, d, d)):
            raise ValueError(
                f"covariances for means of shape {(K, d)} must have shape {(K,)}, {(K, d)} or {(K, d, d)}, "
                f"got {tuple(self.covariances.shape)}"
            )
        self.weights = (
            self.means.new_full((K,), 1 / K) if weights is None else torch.as_tensor(weights).to(self.means)
        )
        if self.weights.shape != (K,):
            raise ValueError(
                f"weights for {K} components must have shape {(K,)}, got {tuple(self.weights.shape)}"
            )
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must be positive and sum to 1, got {self.weights.tolist()}")
        if self.covariances.ndim == 3 and not torch.allclose(
            self.covariances, self.covariances.mT, rtol=1e-4
        ):
            raise ValueError("covariances must be symmetric")
        smallest = torch.linalg.eigvalsh(self.covariances) if self.covariances.ndim == 3 else self.covariances
        if not (smallest > 0).all():
            raise ValueError(
                f"covariances must be positive definite, got the eigenvalue {float(smallest.min())}"
            )
        self.name, self.entropy = name, entropy

    @property
    def dimension(self) -> int:
        """d, the dimension of the space."""
        return self.means.shape[1]

    def sample(
        self,
        n: int,
        *,
        balanced: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """n points (n, d); see `sample_labeled`."""
        return self.sample_labeled(n, balanced=balanced, generator=generator, device=device)[0]

    def sample_labeled(
        self,
        n: int,
        *,
        balanced: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """n points (n, d) and the component (n,) that each came from, in random order.

        Args:
            balanced: draw exactly n w_k points from component k. Each point keeps the law p, the sample varies less.
            generator: its device must be `device`.
            device: where the points are made; if None the generator's, or else that of the means.

        Raises:
            ValueError: n is negative, or balanced and some n w_k is not a whole number.
        """
        device = _device(n, generator, device, self.means.device)
        weights, means, covariances = (p.to(device) for p in (self.weights, self.means, self.covariances))
        if balanced:
            counts = n * weights.double()
            if not torch.allclose(counts, counts.round(), rtol=0, atol=1e-6 * max(n, 1)):
                raise ValueError(
                    f"balanced needs whole numbers n w_k, got n = {n} and weights {weights.tolist()}"
                )
            labels = torch.arange(len(weights), device=device).repeat_interleave(counts.round().long())
            labels = labels[torch.randperm(n, generator=generator, device=device)]
        else:
            labels = torch.multinomial(weights, n, replacement=True, generator=generator)
        x = torch.randn(n, self.dimension, generator=generator, device=device, dtype=means.dtype)
        if covariances.ndim == 3:
            for k, factor in enumerate(torch.linalg.cholesky(covariances)):
                x[labels == k] = x[labels == k] @ factor.T
        else:
            x = x * covariances.sqrt().reshape(len(means), -1)[labels]
        return means[labels] + x, labels

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,), at points x (B, d)."""
        return self._static.log_prob(x, x.new_ones(()), x.new_zeros(()))

    def score(self, x: Tensor) -> Tensor:
        """The score grad log p(x) (B, d), at points x (B, d)."""
        return self._static.score(x, x.new_ones(()), x.new_zeros(()))

    def marginal(self, path: AffinePath, t: float, source: GaussianMixture | None = None) -> GaussianMixture:
        """The law of x_t = alpha(t) x_1 + sigma(t) x_0, for x_1 from this mixture and x_0 independent of it.

        Args:
            path: the affine path.
            t: one time in [0, 1].
            source: the law of x_0; N(0, I) if None.

        Returns:
            a mixture of one component for each pair of components, those of the source varying fastest.
        """
        pairs = self._static if source is None else _Pairs.of(self, source)
        alpha, sigma, _, _ = path.coefficients(t, pairs.target_means)
        if alpha.ndim:
            raise ValueError(f"t must be a scalar, got shape {tuple(torch.as_tensor(t).shape)}")
        covariances = alpha**2 * pairs.target_variances + sigma**2 * pairs.source_variances
        if pairs.basis is not None:
            covariances = pairs.basis * covariances[:, None] @ pairs.basis.mT
        elif covariances.shape[1] == 1:
            covariances = covariances[:, 0]
        means = alpha * pairs.target_means + sigma * pairs.source_means
        return GaussianMixture(means.to(self.means), covariances, pairs.weights)

    def marginal_velocity(self, path: AffinePath, source: GaussianMixture | None = None) -> MarginalVelocity:
        """The field E[alpha' x_1 + sigma' x_0 | x_t = x] that carries `source`, N(0, I) if None, to this mixture."""
        return MarginalVelocity(self, path, source)

    @cached_property
    def _static(self) -> _Pairs:
        return _Pairs.of(self, GaussianMixture(torch.zeros_like(self.means[:1]), self.means.new_ones(1)))


@dataclass(frozen=True, eq=False)
class MarginalVelocity:
    """The marginal velocity of an affine path from a Gaussian (mixture) to a Gaussian mixture, x_0 independent of x_1.

    With x_1 in component N(mu, S) of the mixture, x_0 in component N(m, C) of the source, and r the posterior weights of
    the pairs of components given x_t = x,

        v(x, t) = sum r [alpha' mu + sigma' m + (alpha alpha' S + sigma sigma' C)(alpha^2 S + sigma^2 C)^-1 z],
        z = x - alpha mu - sigma m,

    which is finite on the whole of [0, 1]. The matrices are inverted once for all times: see `_Pairs`.

    Args:
        mixture: the law of x_1.
        path: the affine path.
        source: the law of x_0, of the mixture's dimension; N(0, I) if None.

    >>> from flowlib.paths import linear
    >>> v = GaussianMixture([[3.0, 0.0]], [1.0]).marginal_velocity(linear)
    >>> v(torch.zeros(1, 2), 0.0)  # every point of N(0, I) heads for the mean: v = mu - x at t = 0
    tensor([[3., 0.]])
    """

    mixture: GaussianMixture
    path: AffinePath
    source: GaussianMixture | None = None

    def __post_init__(self) -> None:
        self._pairs  # noqa: B018  a source of another dimension raises here, not at the first call

    @cached_property
    def _pairs(self) -> _Pairs:
        return self.mixture._static if self.source is None else _Pairs.of(self.mixture, self.source)

    def __call__(self, x: Tensor, t: Tensor | float, /, **cond: object) -> Tensor:
        """v(x, t), like x (B, d), at times t, a scalar or (B,)."""
        return self._pairs.velocity(x, *self.path.coefficients(t, x))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every pair of a component N(mu, S) of the target and N(m, C) of the source, in a basis that fits both.

    Where S and C are not both diagonal, C = L L^T and L^-1 S L^-T = U diag(lambda) U^T give the basis A = L U in which
    S = A diag(lambda) A^T and C = A A^T. So alpha^2 S + sigma^2 C = A diag(alpha^2 lambda + sigma^2) A^T: one
    eigendecomposition inverts it at all times. Kept in float64; K counts pairs.
    """

    weights: Tensor  # (K,)
    target_means: Tensor  # (K, d)
    source_means: Tensor  # (K, d)
    target_variances: Tensor  # (K, 1) or (K, d), in the basis
    source_variances: Tensor  # (K, 1) or (K, d), in the basis
    basis: Tensor | None = None  # A (K, d, d), None for the identity
    inverse: Tensor | None = None  # A^-1 (K, d, d)
    volume: Tensor | None = None  # |det A| (K,)

    @classmethod
    def of(cls, target: GaussianMixture, source: GaussianMixture) -> _Pairs:
        if source.dimension != target.dimension:
            raise ValueError(
                f"source and target must share their dimension, got means of shape {tuple(source.means.shape)} "
                f"and {tuple(target.means.shape)}"
            )
        number, others = len(target.means), len(source.means)

        def paired(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
            a = mine.double().repeat_interleave(others, 0)
            return a, theirs.to(a).repeat(number, *[1] * (theirs.ndim - 1))

        w_1, w_0 = paired(target.weights, source.weights)
        mu, m = paired(target.means, source.means)
        weights = w_1 * w_0 / (w_1 * w_0).sum()
        S, C = paired(target.covariances, source.covariances)
        if S.ndim < 3 and C.ndim < 3:
            return cls(weights, mu, m, S.reshape(len(mu), -1), C.reshape(len(mu), -1))
        S, C = (c if c.ndim == 3 else torch.diag_embed(c.reshape(len(mu), -1).expand_as(mu)) for c in (S, C))
        root = torch.linalg.cholesky(C)
        whiten = torch.linalg.inv(root)
        variances, turn = torch.linalg.eigh(whiten @ S @ whiten.mT)
        volume = root.diagonal(dim1=1, dim2=2).prod(1)
        return cls(
            weights, mu, m, variances, torch.ones_like(variances), root @ turn, turn.mT @ whiten, volume
        )

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[_Pairs, Tensor, Tensor, Tensor]:
        """These pairs like x, the offsets z and variances of x_t in their basis, and log p(x_t, pair) (B, K)."""
        if x.ndim == 0 or x.shape[-1] != self.target_means.shape[1]:
            raise ValueError(
                f"points must have shape (B, {self.target_means.shape[1]}), got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"points must be float32 or float64, got {x.dtype}")
        p = _Pairs(*(None if part is None else part.to(x) for part in vars(self).values()))
        alpha, sigma = alpha[..., None], sigma[..., None]
        z = x[..., None, :] - alpha * p.target_means - sigma * p.source_means  # (B, K, d)
        if p.inverse is not None:
            z = torch.einsum("kij,...kj->...ki", p.inverse, z)
        variances = alpha**2 * p.target_variances + sigma**2 * p.source_variances
        log_joint = p.weights.log() - (z.square() / variances + (2 * math.pi * variances).log()).sum(-1) / 2
        if p.volume is not None:
            log_joint = log_joint - p.volume.log()
        return p, z, variances, log_joint

    def log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.posterior(x, alpha, sigma)[3].logsumexp(-1)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        p, z, variances, log_joint = self.posterior(x, alpha, sigma)
        pull = z / variances
        if p.inverse is not None:
            pull = torch.einsum("kij,...ki->...kj", p.inverse, pull)
        return -torch.einsum("...k,...kd->...d", log_joint.softmax(-1), pull)

    def velocity(
        self, x: Tensor, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor, sigma_dot: Tensor
    ) -> Tensor:
        p, z, variances, log_joint = self.posterior(x, alpha, sigma)
        growth = (alpha * alpha_dot)[..., None] * p.target_variances + (sigma * sigma_dot)[
            ..., None
        ] * p.source_variances
        stretch = growth / variances * z
        if p.basis is not None:
            stretch = torch.einsum("kij,...kj->...ki", p.basis, stretch)
        component = alpha_dot[..., None] * p.target_means + sigma_dot[..., None] * p.source_means + stretch
        return torch.einsum("...k,...kd->...d", log_joint.softmax(-1), component)
