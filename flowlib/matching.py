"""Conditional flow matching: learn a velocity by regression on pairs (chapters 4 and 6)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowlib import checks
from flowlib.couplings import Coupling, independent
from flowlib.fields import Field
from flowlib.paths import AffinePath, linear
from flowlib.times import Times, uniform


def cfm_loss(
    v: Field,
    x_1: Tensor,
    *,
    x_0: Tensor | None = None,
    path: AffinePath = linear,
    coupling: Coupling = independent,
    times: Times = uniform,
    jitter: float = 0.0,
    generator: Generator | None = None,
    **cond: object,
) -> Tensor:
    r"""The conditional flow matching loss, averaged over the batch and over the dimensions of a point:

        L = E |v(x_t, t) - u_t|^2 / d,      x_t = alpha(t) x_1 + sigma(t) x_0,  u_t = alpha'(t) x_1 + sigma'(t) x_0.

    Derived at eq-cfm. It is smallest at the marginal velocity v = E[u_t | x_t], where it equals the conditional
    variance of u_t: derived at thm-floor.

    Args:
        v: the field to train, called as v(x_t, t, **cond) with t (B,). It may answer in another floating-point dtype
            than x's, such as bfloat16 under autocast.
        x_1: data (B, *D), floating point.
        x_0: where the paths start, like x_1; drawn from N(0, I) if None.
        path: gives (x_t, u_t).
        coupling: re-pairs x_0 with x_1, called as coupling(x_0, x_1, generator=generator); x_1 stays as it is.
        times: the law of t, called as times(B, generator=generator, device=x_1.device).
        jitter: standard deviation of Gaussian noise added to x_t, in the units of x, with u_t unchanged. What is
            learned then transports p_t blurred by that noise: it ends at blurred data.
        generator: the source of x_0, the coupling, the times and the noise, in this order, on the device of x_1.
        **cond: passed on to the field, such as labels (B,) that belong to x_1.

    Returns:
        the loss, in squared units of x per unit of time, of shape () and dtype promote_types(float32, x_1.dtype).

    Source: Lipman et al. (2023), equation 9; Tong et al. (2024), equation 10, whose sigma is the jitter.

    >>> at_rest = lambda x, t: torch.zeros_like(x)
    >>> x_1 = torch.full((4, 2), 3.0)
    >>> cfm_loss(at_rest, x_1, x_0=torch.ones(4, 2))  # |x_1 - x_0|^2 / d
    tensor(4.)
    """
    checks.floating("x_1", x_1)
    checks.require(x_1.numel() > 0, f"x_1 must hold at least one point, got shape {tuple(x_1.shape)}")
    checks.require(jitter >= 0, f"jitter must not be negative, got {jitter}")
    x_0 = _noise_like(x_1, generator) if x_0 is None else x_0
    x_0, paired = coupling(x_0, x_1, generator=generator)
    checks.require(
        paired is x_1,
        "a coupling must re-pair x_0 alone and return x_1 itself, so that labels stay beside it",
    )
    t = times(len(x_1), generator=generator, device=x_1.device)
    x_t, u_t = path.sample(x_0, x_1, t)
    if jitter:
        x_t = x_t + jitter * _noise_like(x_t, generator)
    precise = torch.promote_types(torch.float32, x_1.dtype)
    velocity = v(x_t, t.to(precise), **cond)
    if velocity.shape != u_t.shape:
        checks.shaped("the field's answer", velocity, *u_t.shape)
    return mse_loss(velocity.to(precise), u_t.to(precise))


def _noise_like(x: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
