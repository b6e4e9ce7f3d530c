"""Feynman-Kac correctors: weights that make a guided flow sample the density it is taken for (chapter 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from flowlib import checks
from flowlib.conversions import convert
from flowlib.fields import Field
from flowlib.guidance import extrapolate
from flowlib.paths import AffinePath, linear


def mixing(t: float) -> float:
    """Half the squared noise of a corrector, e^2 / 2, where none is named: 8 b_t = 8 (1 - t) / t, and 16 at most.

    `feynman_kac` lowers it near the end to what its steps can bear.
    """
    return min(8 * (1 - t) / max(t, 1e-9), 16.0)


@dataclass(frozen=True)
class Corrected:
    """What `feynman_kac` returns.

    Args:
        x: the particles (n, *D) at t = 1.
        log_weights: theirs (n,), up to a constant: zero for all after a resampling.
        effective: the effective sample size before each step and at the end, as a share of n, (steps + 1,).
        resampled: how many times the particles were drawn anew.
    """

    x: Tensor
    log_weights: Tensor
    effective: Tensor
    resampled: int


@torch.no_grad()
def feynman_kac(
    u: Field,
    c: Field,
    scale: float,
    x: Tensor,
    *,
    steps: int = 400,
    noise: Callable[[float], float] = mixing,
    threshold: float = 0.5,
    path: AffinePath = linear,
    generator: Generator | None = None,
) -> Corrected:
    r"""Weighted particles of the tilted density q_1, by the tilted path from q_0 = N(0, I):

        dx = [g + e^2 / 2 grad log q_t(x)] dt + e dW,      g = u + w (c - u),      q_t = p_t^(1 - w) p_t(.|y)^w / Z_t,
        d/dt log omega = w (w - 1) <c - u, grad log p_t(x|y) - grad log p_t(x)>.

    The weight omega grows at the rate by which the guided flow and q_t miss the continuity equation. Derived at
    thm-correctors.
    The score of q_t is what `convert` makes of g. The noise e changes no law; it lets particles that were drawn twice
    part again. They are drawn anew, by systematic resampling, whenever the effective sample size falls below
    `threshold`. Each step is one evaluation of u and of c (Euler-Maruyama).

    Where data has no spread, as in a pixel that is always white, the score falls with the slope 1 / sigma^2, and a step
    is stable only if h e^2 / 2 is below 2 sigma^2, so the noise is held at h e^2 / 2 <= sigma^2 / 2.

    Raises:
        ValueError: the weights had to be equalized when all but one particle, or 99 in 100, had lost theirs: too long
            steps for the noise, or too large a w. Or the path has no velocity at t = 0, alpha'(0) = 0.

    Args:
        u, c: the marginal velocities of all data and of the condition, both from x_0 ~ N(0, I) independent of x_1.
        scale: w, one number.
        x: particles (n, *D) from N(0, I), which must be so many that their weights can speak for q.
        steps: how many, from t = 0 to t = 1.
        noise: e^2 / 2 at a time, or less where the steps cannot bear it. 0 leaves the flow, with weights.
        threshold: a share of n. 0 never resamples.
        path: of u and c; alpha(0) must be 0, so that q_0 is N(0, I), and alpha'(0) must not be.
        generator: of the noise and the resampling, on the device of x.

    Source: Skreta et al. (2025), for diffusion; Doucet & Johansen (2009) for resampling.
    """
    checks.floating("x", x)
    checks.whole(steps=steps)
    checks.require(0 <= threshold <= 1, f"threshold must be in [0, 1], got {threshold}")
    w, n, h = torch.as_tensor(float(scale)), len(x), 1 / steps
    log_weights, effective, resampled = x.new_zeros(n), [1.0], 0
    for i in range(steps):
        t = i * h
        here, there = u(x, t), c(x, t)
        g = extrapolate(here, there, w.to(x))
        scores = [convert(v, x, t, path, given="velocity", wanted="score") for v in (here, there, g)]
        rate = ((there - here) * (scores[1] - scores[0])).flatten(1).sum(1)
        log_weights = log_weights + h * scale * (scale - 1) * rate
        half = min(noise(t), float(path.sigma(torch.tensor(t, dtype=torch.float64))) ** 2 / (2 * h))
        moves = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = x + h * (g + half * scores[2]) + (2 * half * h) ** 0.5 * moves
        checks.require(
            bool(log_weights.isfinite().all()),
            f"the weights are not finite at t = {t + h:.3f}: take more steps",
        )
        share = effective_sample_size(log_weights) / n
        effective.append(share)
        if share < threshold:
            checks.require(
                share > max(0.01, 1.5 / n),
                f"all but {100 * share:.1f}% of the particles lost their weight before t = {t + h:.3f}; "
                "take more steps, more particles or a smaller scale",
            )
            x, log_weights = resample(x, log_weights, generator=generator), torch.zeros_like(log_weights)
            resampled += 1
    return Corrected(x, log_weights, torch.tensor(effective), resampled)


def effective_sample_size(log_weights: Tensor) -> float:
    """1 / sum of squared weights, from their logarithms (n,): n if they are equal, 1 if one has all.

    Source: Kong (1992).

    >>> effective_sample_size(torch.tensor([0.0, 0.0, -100.0]))
    2.0
    """
    return float(1 / log_weights.double().softmax(0).square().sum())


def resample(x: Tensor, log_weights: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Particles like x (n, *D), each copied as often as it weighs, up or down to a whole number: systematic resampling.

    Source: Kitagawa (1996); Doucet & Johansen (2009).
    """
    n = len(x)
    checks.shaped("log_weights", log_weights, n)
    offset = torch.rand((), generator=generator, device=x.device).double()
    levels = torch.arange(n, device=x.device) + offset
    heights = log_weights.double().softmax(0).cumsum(0) * n
    return x[torch.searchsorted(heights, levels, right=True).clamp(max=n - 1)]  # a sum may fall short of n
