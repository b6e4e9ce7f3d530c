"""Gaussian mixtures: the laws whose every flow from noise is known exactly, and so the course's ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor

from flowlib import checks
from flowlib.paths import AffinePath


def sampling_device(
    n: int, generator: Generator | None, device: torch.device | str | None, otherwise: torch.device | str
) -> torch.device:
    """Where n points are made: on `device` if given, else where the generator lives, else `otherwise`."""
    checks.require(isinstance(n, Integral), f"the number of points must be whole, got n = {n!r}", TypeError)
    checks.require(n >= 0, f"the number of points must not be negative, got n = {n}")
    return torch.device(device or (generator.device if generator else otherwise))


def held(x: Any, **kind: Any) -> Tensor:
    """What a law keeps of x: a copy, which nobody else can change, or x itself if it requires grad."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x
    with torch.inference_mode(False):  # tensors made in inference mode could take no part in gradients later
        return torch.as_tensor(x, **kind).clone()


_Parameters = tuple[Tensor, Tensor, Tensor]  # means, covariances and weights, in float64


class GaussianMixture:
    """The law p(x) = sum_k w_k N(x; mu_k, S_k) on R^d, with density, score and marginal velocity in closed form.

    Methods compute in the dtype and on the device of their points; samples take those of the means. A law never
    changes: it copies its numbers, and the attributes `means`, `covariances` and `weights` are copies again. Only
    tensors that require grad are followed, as they are when a method is called, so that gradient descent can fit them.

    Args:
        means: the centers mu_k, (K, d).
        covariances: the S_k: variances (K,) if round, variances (K, d) along the axes, or matrices (K, d, d).
        weights: the w_k (K,), positive with sum 1; equal if None.
        name: what tables and legends call the law.
        entropy: -E[log p(x)] in nats, where it is known.

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
        if not (means.is_floating_point() or means.is_complex()):
            means = means.to(torch.get_default_dtype())
        checks.precise("means", means)
        checks.shaped("means", means, "K", "d")
        checks.require(means.numel() > 0, f"means must have shape (K, d), got {tuple(means.shape)}")
        K, d = means.shape
        weights = [1 / K] * K if weights is None else weights
        exact = {"dtype": torch.float64, "device": means.device}
        self._given = tuple(held(p, **exact) for p in (means, covariances, weights))
        self._dtype, self.name, self.entropy = means.dtype, name, entropy
        means, covariances, weights = (p.detach() for p in self._given)
        checks.require(
            covariances.shape in ((K,), (K, d), (K, d, d)),
            f"covariances for means of shape {(K, d)} must have shape {(K,)}, {(K, d)} or {(K, d, d)}, "
            f"got {tuple(covariances.shape)}",
        )
        checks.shaped(f"weights for {K} components", weights, K)
        checks.finite("means", means)
        checks.finite("covariances", covariances)
        if full := covariances.ndim == 3:
            deviation = covariances.diagonal(dim1=1, dim2=2).abs().sqrt()
            skew = (covariances - covariances.mT).abs() > 1e-4 * deviation[:, :, None] * deviation[:, None]
            checks.require(
                not skew.any(), "covariances must be symmetric, got a matrix that differs from its transpose"
            )
        self._shares = weights.tolist()  # read once, here: no sampler waits for a GPU
        checks.require(
            min(self._shares) > 0 and abs(math.fsum(self._shares) - 1) < 1e-5,
            f"weights must be positive and sum to 1, got {self._shares}",
        )
        with torch.inference_mode(False):
            parameters, pairs = self._make()
            eigenvalues = pairs.target_variances.detach().flatten(1)
            rounding = 4 * d * torch.finfo(torch.float64).eps * eigenvalues.amax(1) if full else 0.0
            checks.require(
                bool((eigenvalues.amin(1).to(self._dtype) > rounding).all()),
                f"covariances must be positive definite, got the eigenvalue {eigenvalues.min():g}",
            )
            learned = any(p.requires_grad for p in self._given)
            self._kept = None if learned else (parameters, pairs)
            self._kept_root = None if learned else self._root()

    def __repr__(self) -> str:
        K, d = self._given[0].shape
        return f"GaussianMixture({self.name!r}, K={K}, d={d})"

    @property
    def means(self) -> Tensor:
        """The centers mu_k, (K, d)."""
        return self._now[0][0].to(self._dtype, copy=True)

    @property
    def covariances(self) -> Tensor:
        """The S_k, shaped as they were given."""
        return self._now[0][1].to(self._dtype, copy=True)

    @property
    def weights(self) -> Tensor:
        """The w_k, (K,)."""
        return self._now[0][2].to(self._dtype, copy=True)

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
            balanced: draw exactly n w_k points, a whole number, from component k. Each point alone keeps the law p,
                but the points are not independent: averages over them vary less.
            generator: the source of randomness, on the device where points are made.
            device: where points are made; if None the generator's device, without one that of the means.
        """
        (means, _, weights), _ = self._now
        root = self._root() if self._kept_root is None else self._kept_root
        device = sampling_device(n, generator, device, means.device)
        means, root = (p.to(device, self._dtype) for p in (means, root))
        if balanced:
            shares = [n * w for w in (self._shares if self._kept else weights.tolist())]
            counts = [round(share) for share in shares]
            checks.require(  # up to the rounding of weights that came in float32
                all(abs(c - s) <= min(1e-6 * n, 0.25) for c, s in zip(counts, shares, strict=True))
                and sum(counts) == n,
                f"balanced needs whole n w_k, got n = {n} and n w_k = {shares}",
            )
            labels = torch.arange(len(means), device=device)
            labels = labels.repeat_interleave(torch.tensor(counts, device=device), output_size=n)
            labels = labels[torch.randperm(n, generator=generator, device=device)]
        else:
            uniform = torch.rand(n, generator=generator, device=device, dtype=self._dtype)
            labels = torch.bucketize(uniform, weights.cumsum(0)[:-1].to(uniform), right=True)
        noise = torch.randn(n, means.shape[1], generator=generator, device=device, dtype=self._dtype)
        if root.ndim < 3:
            return means[labels] + root[labels] * noise, labels
        return means[labels] + _each_by_its_own(root, labels, noise, wait=device.type == "cpu"), labels

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats (B,), at points x (B, d)."""
        return self._at_the_end(_Pairs.log_prob, x)

    def score(self, x: Tensor) -> Tensor:
        """The score grad log p(x) (B, d), at points x (B, d)."""
        return self._at_the_end(_Pairs.score, x)

    def _at_the_end(self, method: Callable[..., Tensor], x: Tensor) -> Tensor:
        pairs = self._now[1]
        points = pairs.checked(x)
        return method(pairs, points, points.new_ones(()), points.new_zeros(())).to(x.dtype)

    def marginal(self, path: AffinePath, t: float, source: GaussianMixture | None = None) -> GaussianMixture:
        """The law p_t of x_t = alpha x_1 + sigma x_0, with x_1 from this mixture and x_0 independent of it.

        Args:
            path: what gives alpha and sigma.
            t: one time in [0, 1].
            source: the law of x_0; N(0, I) if None.

        Returns:
            a mixture of all pairs of a component of x_1 with one of x_0; those of x_0 vary fastest.
        """
        shape = tuple(torch.as_tensor(t).shape)
        checks.require(shape == (), f"t must be one number, got shape {shape}")
        pairs, weights = self._pairs(source), self._now[0][2]
        if source is not None:
            weights = torch.outer(weights, source._now[0][2].to(weights)).ravel()
        alpha, sigma, _, _ = path.coefficients(t, pairs.target_means)
        means = alpha * pairs.target_means + sigma * pairs.source_means
        covariances = alpha**2 * pairs.target_variances + sigma**2 * pairs.source_variances  # (K, d or 1, 1)
        if pairs.basis is not None:
            covariances = pairs.basis @ (covariances * pairs.basis.mT)
        else:
            covariances = covariances.flatten(0 if covariances.shape[1] == 1 else 1)
        law = GaussianMixture(means[..., 0], covariances, weights, name=f"{self.name} at t = {float(t):g}")
        law._dtype = self._dtype  # of its samples; its numbers stay in float64
        return law

    def marginal_velocity(self, path: AffinePath, source: GaussianMixture | None = None) -> MarginalVelocity:
        """The field E[alpha' x_1 + sigma' x_0 | x_t = x], which carries `source`, N(0, I) if None, to this law."""
        return MarginalVelocity(self, path, source)

    def _pairs(self, source: GaussianMixture | None) -> _Pairs:
        return self._now[1] if source is None else _Pairs.of(self._now[0], source._now[0])

    @property
    def _now(self) -> tuple[_Parameters, _Pairs]:
        return self._kept or self._make()

    def _make(self) -> tuple[_Parameters, _Pairs]:
        """The means, covariances and weights in float64, and their pairs with N(0, I)."""
        means, covariances, weights = (p.to(self._given[0].device, torch.float64) for p in self._given)
        parameters = means, covariances, weights / weights.sum()
        return parameters, _Pairs.of(parameters)

    def _root(self) -> Tensor:
        """What noise is multiplied by: deviations (K, d or 1), or lower triangles (K, d, d)."""
        covariances = self._now[0][1]
        if covariances.ndim == 3:
            return torch.linalg.cholesky(covariances).to(self._dtype)
        return covariances.to(self._dtype).sqrt().reshape(len(covariances), -1)


@dataclass(frozen=True, eq=False)
class MarginalVelocity:
    """The velocity of the law of x_t = alpha x_1 + sigma x_0, for independent Gaussian mixtures at both ends.

    Let r be the posterior weight, given x_t = x, that x_1 came from component N(mu, S) and x_0 from N(m, C). Then

        v(x, t) = sum r [alpha' mu + sigma' m + (alpha alpha' S + sigma sigma' C)(alpha^2 S + sigma^2 C)^-1 z],
        z = x - alpha mu - sigma m,

    over all pairs of components: the conditional mean of a Gaussian, averaged (Albergo et al. 2023, sec. 2). It is
    finite on the whole of [0, 1], needs no clamp, and can be differentiated in x and t. The source is N(0, I) if None.

    >>> from flowlib.paths import linear
    >>> v = GaussianMixture([[3.0, 0.0]], [1.0]).marginal_velocity(linear)
    >>> v(torch.ones(1, 2), 0.0)  # at t = 0 nothing is known of x_1 but its mean: v = mu - x
    tensor([[ 2., -1.]])
    """

    mixture: GaussianMixture
    path: AffinePath
    source: GaussianMixture | None = None
    _kept: _Pairs | None = field(init=False, repr=False)  # made once, for all times; None if a law is learned

    def __post_init__(self) -> None:
        with torch.inference_mode(False):
            pairs = self.mixture._pairs(self.source)
        fixed = self.mixture._kept and (self.source is None or self.source._kept)
        object.__setattr__(self, "_kept", pairs if fixed else None)

    def __call__(self, x: Tensor, t: Tensor | float, /) -> Tensor:
        """v(x, t), like x (B, d), at times t, a scalar or (B,)."""
        return self._at(_Pairs.velocity, x, t)

    def log_prob(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p_t(x) in nats, (B,), of the density that this field generates."""
        return self._at(_Pairs.log_prob, x, t)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The score grad log p_t(x), (B, d), of the density that this field generates."""
        return self._at(_Pairs.score, x, t)

    def _at(self, method: Callable[..., Tensor], x: Tensor, t: Tensor | float) -> Tensor:
        pairs = self._kept or self.mixture._pairs(self.source)
        points = pairs.checked(x)
        return method(pairs, points, *self.path.coefficients(t, points.select(1, 0))).to(x.dtype)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of a component N(mu, S) of x_1 and N(m, C) of x_0, each in a basis where both are diagonal.

    If S and C are matrices, C = L L^T and L^-1 S L^-T = U diag(lambda) U^T, then in the basis A = L U they are
    S = A diag(lambda) A^T and C = A A^T, whence alpha^2 S + sigma^2 C = A diag(alpha^2 lambda + sigma^2) A^T: one
    eigendecomposition inverts it at every time. Kept in float64, with an axis for the batch behind; K counts pairs.
    """

    log_weights: Tensor  # (K, 1), less log |det A| + d/2 log 2 pi
    target_means: Tensor  # mu (K, d, 1)
    source_means: Tensor  # m (K or 1, d, 1)
    target_variances: Tensor  # of S in the basis (K, d or 1, 1)
    source_variances: Tensor  # of C in the basis (K or 1, d or 1, 1)
    fine: bool  # whether float32 would round means by more than 1e-4 deviations: then all is computed in float64
    basis: Tensor | None = None  # A (K, d, d); None is the identity
    inverse: Tensor | None = None  # A^-1 (K, d, d)

    @classmethod
    def of(cls, target: _Parameters, source: _Parameters | None = None) -> _Pairs:
        mu, S, w_1 = target
        source = source or (torch.zeros_like(mu[:1]), mu.new_ones(1), mu.new_ones(1))  # N(0, I)
        m, C, w_0 = (p.to(mu.device) for p in source)
        checks.require(
            m.shape[1] == mu.shape[1],
            f"source and target must share their dimension, got means of shape {tuple(m.shape)} "
            f"and {tuple(mu.shape)}",
        )
        if len(m) > 1:  # else it broadcasts
            i, j = torch.cartesian_prod(*(torch.arange(len(p), device=mu.device) for p in (mu, m))).T
            mu, S, w_1, m, C, w_0 = mu[i], S[i], w_1[i], m[j], C[j], w_0[j]
        log_weights = (w_1 * w_0).log() - mu.shape[1] / 2 * math.log(2 * math.pi)
        if S.ndim < 3 and C.ndim < 3:
            S, C, mu, m = S.reshape(len(S), -1, 1), C.reshape(len(C), -1, 1), mu[..., None], m[..., None]
            return cls(log_weights[:, None], mu, m, S, C, _fine(mu, S) or _fine(m, C))
        checks.require(  # the derivative of an eigenvector is infinite where two eigenvalues meet
            not (S.requires_grad or C.requires_grad),
            "covariances (K, d, d) cannot require grad: learn variances (K,) or (K, d) between mixtures of these",
        )
        S, C = (
            c if c.ndim == 3 else torch.diag_embed(c.reshape(len(c), -1).expand(len(c), mu.shape[1]))
            for c in (S, C)
        )
        L = torch.linalg.cholesky(C)
        L_inverse = torch.linalg.inv(L)
        variances, U = torch.linalg.eigh(L_inverse @ S @ L_inverse.mT)
        log_weights = (log_weights - L.diagonal(dim1=1, dim2=2).log().sum(1))[:, None]
        A, inverse, variances = L @ U, U.mT @ L_inverse, variances[..., None]
        mu, m, unit = mu[..., None], m[..., None], torch.ones_like(variances)
        sizes = (
            inverse.abs() @ (p.abs() + c.diagonal(dim1=1, dim2=2).sqrt()[..., None])
            for p, c in ((mu, S), (m, C))
        )
        fine = any(_fine(size, c) for size, c in zip(sizes, (variances, unit), strict=True))
        return cls(log_weights, mu, m, variances, unit, fine, A, inverse)

    def checked(self, x: Tensor) -> Tensor:
        """The points x (B, d), in the dtype to compute in."""
        checks.shaped("points", x, "B", self.target_means.shape[1])
        checks.precise("points", x)
        return x.double() if self.fine else x

    def like(self, x: Tensor) -> _Pairs:
        """These pairs in the dtype and on the device of x."""
        if x.dtype == torch.float64 and x.device == self.target_means.device:
            return self
        parts: dict[str, Any] = {n: p.to(x) if isinstance(p, Tensor) else p for n, p in vars(self).items()}
        return _Pairs(**parts)

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[_Pairs, Tensor, Tensor]:
        """What x_t = x (B, d), with coefficients () or (B,), says of each pair.

        Returns:
            these pairs like x; A^T (alpha^2 S + sigma^2 C)^-1 z (K, d, B); and the posterior's logarithm up to the
            normalization log p_t(x), (K, B). The batch stands last because sums over the short axes K and d are then
            sums of long rows, which is several times faster.
        """
        p = self.like(x)
        z = _rows(x) - sigma * p.source_means - alpha * p.target_means
        if p.inverse is not None:
            z = p.inverse @ z
        variances = alpha**2 * p.target_variances + sigma**2 * p.source_variances
        pull = z / variances
        return p, pull, p.log_weights - (z * pull + variances.log()).sum(1) / 2

    def log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        return self.posterior(x, alpha, sigma)[2].logsumexp(0)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        p, pull, log_posterior = self.posterior(x, alpha, sigma)
        if p.inverse is not None:
            pull = p.inverse.transpose(1, 2) @ pull
        return -_rows((log_posterior.softmax(0).unsqueeze(1) * pull).sum(0))

    def velocity(
        self, x: Tensor, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor, sigma_dot: Tensor
    ) -> Tensor:
        p, pull, log_posterior = self.posterior(x, alpha, sigma)
        drift = (alpha * alpha_dot * p.target_variances + sigma * sigma_dot * p.source_variances) * pull
        if p.basis is not None:
            drift = p.basis @ drift
        drift = drift + alpha_dot * p.target_means + sigma_dot * p.source_means
        return _rows((log_posterior.softmax(0).unsqueeze(1) * drift).sum(0))


def _rows(x: Tensor) -> Tensor:
    """The transpose, written out."""
    return x.t().clone(memory_format=torch.contiguous_format)


def _each_by_its_own(matrices: Tensor, labels: Tensor, x: Tensor, *, wait: bool) -> Tensor:
    """matrices[labels] x, row by row; without waiting to hear how many rows have a label, a matrix meets them all."""
    for k, matrix in enumerate(matrices):
        mine = labels == k
        if wait:
            x[mine] = x[mine] @ matrix.T
        else:
            x = torch.where(mine[:, None], x @ matrix.T, x)
    return x


def _fine(means: Tensor, variances: Tensor) -> bool:
    """Whether means are so large beside deviations that float32 would not do; what is learned is not asked."""
    if means.requires_grad or variances.requires_grad:
        return True
    return not bool((means.abs() <= 1e3 * variances.sqrt()).all())
