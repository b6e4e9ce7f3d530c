"""Gaussian mixtures: the laws whose every flow from noise is known exactly, and so the course's ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor

from flowlib.paths import AffinePath


def sampling_device(
    n: int, generator: Generator | None, device: torch.device | str | None, otherwise: torch.device | str
) -> torch.device:
    """Where n points are made: on `device` if given, else where the generator lives, else `otherwise`.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"the number of points must not be negative, got n = {n}")
    return torch.device(device or (generator.device if generator else otherwise))


class GaussianMixture:
    """The law p(x) = sum_k w_k N(x; mu_k, S_k) on R^d, with density, score and marginal velocity in closed form.

    Every method computes in the dtype and on the device of its points; samples take those of `means`.

    Args:
        means: the centers mu_k, (K, d).
        covariances: the S_k: variances (K,) if round, variances (K, d) along the axes, or matrices (K, d, d).
        weights: the w_k (K,), positive with sum 1; equal if None.
        name: what tables and legends call the law.
        entropy: -E[log p(x)] in nats, where it is known.

    Raises:
        ValueError: shapes that do not fit, covariances that are not symmetric positive definite, or bad weights.
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
        means = torch.as_tensor(means)
        means = means if means.is_floating_point() else means.to(torch.get_default_dtype())
        if means.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"means must be float32 or float64, got {means.dtype}")
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means must have shape (K, d), got {tuple(means.shape)}")
        if not means.isfinite().all():
            raise ValueError(f"means must be finite, got {means.tolist()}")
        K, d = means.shape
        covariances = torch.as_tensor(covariances, dtype=means.dtype, device=means.device)
        if tuple(covariances.shape) not in ((K,), (K, d), (K, d, d)):
            raise ValueError(
                f"covariances for means of shape {(K, d)} must have shape {(K,)}, {(K, d)} or {(K, d, d)}, "
                f"got {tuple(covariances.shape)}"
            )
        full = covariances.ndim == 3
        if full and not torch.allclose(covariances, covariances.mT, rtol=1e-4):
            raise ValueError("covariances must be symmetric, got a matrix that differs from its transpose")
        eigenvalues = torch.linalg.eigvalsh(covariances.double()) if full else covariances
        if not (eigenvalues > 0).all():
            raise ValueError(
                f"covariances must be positive definite, got the eigenvalue {eigenvalues.min():g}"
            )
        weights = [1 / K] * K if weights is None else weights
        weights = torch.as_tensor(weights, dtype=means.dtype, device=means.device)
        if weights.shape != (K,):
            raise ValueError(f"weights for {K} components must have shape {(K,)}, got {tuple(weights.shape)}")
        if not (weights > 0).all() or abs(float(weights.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")
        self.means, self.covariances, self.weights = means, covariances, weights / weights.sum()
        self.name, self.entropy = name, entropy

    def __repr__(self) -> str:
        return f"GaussianMixture({self.name!r}, K={self.means.shape[0]}, d={self.means.shape[1]})"

    def sample(
        self,
        n: int,
        *,
        balanced: bool = False,
        generator: Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """n points (n, d): the first of what `sample_labeled` returns."""
        return self.sample_labeled(n, balanced=balanced, generator=generator, device=device)[0]

    def sample_labeled(
        self,
        n: int,
        *,
        balanced: bool = False,
        generator: Generator | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """n points (n, d) and, for each, the component (n,) that it came from, in random order.

        Args:
            n: how many.
            balanced: draw exactly n w_k points from component k. Each point alone keeps the law p, but the points
                are not independent: averages over them vary less.
            generator: the source of randomness, on the device where points are made.
            device: where points are made; if None the generator's device, without one that of the means.

        Raises:
            ValueError: n is negative, or some n w_k of a balanced sample is not a whole number.
        """
        device = sampling_device(n, generator, device, self.means.device)
        means, covariances, weights = (p.to(device) for p in (self.means, self.covariances, self.weights))
        if balanced:
            counts = n * weights.double()
            if (counts - counts.round()).abs().max() > 1e-6 * n:  # the rounding of float32 weights
                raise ValueError(f"balanced needs whole n w_k, got n = {n} and weights {weights.tolist()}")
            labels = torch.arange(len(means), device=device).repeat_interleave(counts.round().long())
            labels = labels[torch.randperm(n, generator=generator, device=device)]
        else:
            uniform = torch.rand(n, generator=generator, device=device, dtype=weights.dtype)
            labels = torch.bucketize(uniform, weights.cumsum(0)[:-1], right=True)
        noise = torch.randn(n, means.shape[1], generator=generator, device=device, dtype=means.dtype)
        if covariances.ndim == 3:
            for k, root in enumerate(torch.linalg.cholesky(covariances)):
                noise[labels == k] = noise[labels == k] @ root.T
        else:
            noise = covariances.sqrt().reshape(len(means), -1)[labels] * noise
        return means[labels] + noise, labels

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats (B,), at points x (B, d)."""
        return self._from_noise.log_prob(x, x.new_ones(()), x.new_zeros(()))

    def score(self, x: Tensor) -> Tensor:
        """The score grad log p(x) (B, d), at points x (B, d)."""
        return self._from_noise.score(x, x.new_ones(()), x.new_zeros(()))

    def marginal(self, path: AffinePath, t: float, source: GaussianMixture | None = None) -> GaussianMixture:
        """The law p_t of x_t = alpha x_1 + sigma x_0, with x_1 from this mixture and x_0 independent of it.

        Args:
            path: what gives alpha and sigma.
            t: one time in [0, 1].
            source: the law of x_0; N(0, I) if None.

        Returns:
            a mixture of all pairs of a component of x_1 with one of x_0; those of x_0 vary fastest.

        Raises:
            ValueError: t is not one number, or the source has another dimension.
        """
        if torch.as_tensor(t).ndim:
            raise ValueError(f"t must be one number, got shape {tuple(torch.as_tensor(t).shape)}")
        pairs = self._pairs(source)
        alpha, sigma, _, _ = path.coefficients(t, pairs.target_means)
        covariances = alpha**2 * pairs.target_variances + sigma**2 * pairs.source_variances
        if pairs.basis is not None:
            covariances = pairs.basis * covariances[:, None] @ pairs.basis.mT
        elif covariances.shape[1] == 1:
            covariances = covariances[:, 0]
        means = alpha * pairs.target_means + sigma * pairs.source_means
        weights = self.weights
        if source is not None:
            weights = torch.outer(weights, source.weights.to(weights)).ravel()
        return GaussianMixture(
            means.to(self.means), covariances, weights, name=f"{self.name} at t = {float(t):g}"
        )

    def marginal_velocity(self, path: AffinePath, source: GaussianMixture | None = None) -> MarginalVelocity:
        """The field E[alpha' x_1 + sigma' x_0 | x_t = x], which carries `source`, N(0, I) if None, to this law."""
        return MarginalVelocity(self, path, source)

    def _pairs(self, source: GaussianMixture | None) -> _Pairs:
        return self._from_noise if source is None else _Pairs.of(self, source)

    @cached_property
    def _from_noise(self) -> _Pairs:
        return _Pairs.of(self, GaussianMixture(torch.zeros_like(self.means[:1]), self.means.new_ones(1)))


@dataclass(frozen=True, eq=False)
class MarginalVelocity:
    """The velocity of the law of x_t = alpha x_1 + sigma x_0, for independent Gaussian mixtures at both ends.

    Let r be the posterior weight, given x_t = x, that x_1 came from component N(mu, S) and x_0 from N(m, C). Then

        v(x, t) = sum r [alpha' mu + sigma' m + (alpha alpha' S + sigma sigma' C)(alpha^2 S + sigma^2 C)^-1 z],
        z = x - alpha mu - sigma m,

    over all pairs of components: the conditional mean of a Gaussian, averaged (Albergo et al. 2023, sec. 2). It is
    finite on the whole of [0, 1], needs no clamp, and can be differentiated in x and t.

    Args:
        mixture: the law of x_1.
        path: the affine path.
        source: the law of x_0, of the same dimension; N(0, I) if None.

    Raises:
        ValueError: source and mixture differ in dimension.

    >>> from flowlib.paths import linear
    >>> v = GaussianMixture([[3.0, 0.0]], [1.0]).marginal_velocity(linear)
    >>> v(torch.ones(1, 2), 0.0)  # at t = 0 nothing is known of x_1 but its mean: v = mu - x
    tensor([[ 2., -1.]])
    """

    mixture: GaussianMixture
    path: AffinePath
    source: GaussianMixture | None = None
    _pairs: _Pairs = field(init=False, repr=False)  # made once, for all times

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pairs", self.mixture._pairs(self.source))

    def __call__(self, x: Tensor, t: Tensor | float, /, **cond: object) -> Tensor:
        """v(x, t), like x (B, d), at times t, a scalar or (B,)."""
        return self._pairs.velocity(x, *self.path.coefficients(t, self._pairs.checked(x)[:, 0]))

    def log_prob(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p_t(x) in nats, (B,), of the density that this field generates."""
        return self._pairs.log_prob(x, *self.path.coefficients(t, self._pairs.checked(x)[:, 0])[:2])

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The score grad log p_t(x), (B, d), of the density that this field generates."""
        return self._pairs.score(x, *self.path.coefficients(t, self._pairs.checked(x)[:, 0])[:2])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of a component N(mu, S) of x_1 and N(m, C) of x_0, each in a basis where both are diagonal.

    If S and C are matrices, C = L L^T and L^-1 S L^-T = U diag(lambda) U^T, then in the basis A = L U they are
    S = A diag(lambda) A^T and C = A A^T, whence alpha^2 S + sigma^2 C = A diag(alpha^2 lambda + sigma^2) A^T: one
    eigendecomposition inverts it at every time. Kept in float64 and cast to the points' dtype; K counts pairs.
    """

    log_weights: Tensor  # (K,), less log |det A| + d/2 log 2 pi
    target_means: Tensor  # mu (K, d)
    source_means: Tensor  # m (K or 1, d)
    target_variances: Tensor  # of S in the basis (K, d or 1)
    source_variances: Tensor  # of C in the basis (K or 1, d or 1)
    basis: Tensor | None = None  # A (K, d, d); None is the identity
    inverse: Tensor | None = None  # A^-1 (K, d, d)

    @classmethod
    def of(cls, target: GaussianMixture, source: GaussianMixture) -> _Pairs:
        if source.means.shape[1] != target.means.shape[1]:
            raise ValueError(
                f"source and target must share their dimension, got means of shape {tuple(source.means.shape)} "
                f"and {tuple(target.means.shape)}"
            )
        i, j = torch.cartesian_prod(torch.arange(len(target.means)), torch.arange(len(source.means))).T
        w_1, mu, S = (p.double()[i] for p in (target.weights, target.means, target.covariances))
        w_0, m, C = (p.to(mu) for p in (source.weights, source.means, source.covariances))
        if len(m) > 1:  # else it broadcasts
            w_0, m, C = w_0[j], m[j], C[j]
        log_weights = (w_1 * w_0).log().log_softmax(0)  # float32 weights sum to 1 only nearly
        log_weights = log_weights - mu.shape[1] / 2 * math.log(2 * math.pi)
        if S.ndim < 3 and C.ndim < 3:
            return cls(log_weights, mu, m, S.reshape(len(S), -1), C.reshape(len(C), -1))
        S, C = (c if c.ndim == 3 else torch.diag_embed(c.reshape(len(c), -1).expand_as(mu)) for c in (S, C))
        L = torch.linalg.cholesky(C)
        L_inverse = torch.linalg.inv(L)
        variances, U = torch.linalg.eigh(L_inverse @ S @ L_inverse.mT)
        log_weights = log_weights - L.diagonal(dim1=1, dim2=2).log().sum(1)
        return cls(log_weights, mu, m, variances, torch.ones_like(variances), L @ U, U.mT @ L_inverse)

    def checked(self, x: Tensor) -> Tensor:
        """x itself, if it holds points that these laws can take."""
        if x.ndim != 2 or x.shape[1] != self.target_means.shape[1]:
            raise ValueError(
                f"points must have shape (B, {self.target_means.shape[1]}), got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"points must be float32 or float64, got {x.dtype}")
        return x

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[_Pairs, Tensor, Tensor]:
        """What x_t = x (B, d), with coefficients () or (B,), says of each pair.

        Returns:
            these pairs like x, with an axis for the batch behind; A^T (alpha^2 S + sigma^2 C)^-1 z (K, d, B); and the
            posterior's logarithm up to the normalization log p_t(x), (K, B). The batch stands last because sums over
            the short axes K and d are then sums of long rows, which is several times faster.
        """
        x = self.checked(x).T.contiguous()
        p = _Pairs(**{name: part.to(x)[..., None] for name, part in vars(self).items() if part is not None})
        z = x - sigma * p.source_means - alpha * p.target_means
        if p.inverse is not None:
            z = p.inverse[..., 0] @ z
        variances = alpha**2 * p.target_variances + sigma**2 * p.source_variances
        pull = z / variances
        return p, pull, p.log_weights - (z * pull + variances.log()).sum(1) / 2

    def log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.posterior(x, alpha, sigma)[2].logsumexp(0)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        p, pull, log_posterior = self.posterior(x, alpha, sigma)
        if p.inverse is not None:
            pull = p.inverse[..., 0].mT @ pull
        return -(log_posterior.softmax(0)[:, None] * pull).sum(0).T.contiguous()

    def velocity(
        self, x: Tensor, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor, sigma_dot: Tensor
    ) -> Tensor:
        p, pull, log_posterior = self.posterior(x, alpha, sigma)
        drift = (alpha * alpha_dot * p.target_variances + sigma * sigma_dot * p.source_variances) * pull
        if p.basis is not None:
            drift = p.basis[..., 0] @ drift
        drift = drift + alpha_dot * p.target_means + sigma_dot * p.source_means
        return (log_posterior.softmax(0)[:, None] * drift).sum(0).T.contiguous()
