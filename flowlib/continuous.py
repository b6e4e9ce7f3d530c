"""Continuous normalizing flows: the density that a field carries along, and how to fit it (chapter 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flowlib.derivatives import velocity_and_divergence
from flowlib.fields import Field
from flowlib.solvers import DOPRI5, MIDPOINT, Tableau, odeint


class Law(Protocol):
    """Anything with a density: a GaussianMixture, a distribution of torch, a flow."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """log p(x) in nats (B,), at points x (B, *D)."""


def flow_with_log_det(
    v: Field,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    t0: float = 0.0,
    t1: float = 1.0,
    method: Tableau = DOPRI5,
    solve: Callable[..., Tensor] = odeint,
    **options: object,
) -> tuple[Tensor, Tensor]:
    r"""Carry points from t0 to t1, and with them the logarithm of the factor by which the flow stretches volume there:

        dx/dt = v(x, t),        d/dt log |det dphi/dx| = div v(x_t, t)      (Liouville's formula).

    Args:
        v: the field.
        x: points (B, *D) at time t0, float32 or float64.
        noise: None for the exact divergence, or the noise of Hutchinson's estimate, like x, the same at all times.
        t0, t1: from when to when; t1 < t0 runs the flow backwards.
        method: the Runge-Kutta table.
        solve: what solves the system: `odeint`, or `odeint_adjoint` with its parameters fixed by functools.partial.
        **options: steps, times, rtol and atol, as in `odeint`; others are passed on to the field.

    Returns:
        the points at t1, like x, and log |det dphi_{t0 -> t1}/dx| (B,), in nats.

    Raises:
        TypeError: points in half precision, in which a sum of divergences is not to be trusted.
        ValueError: the noise is not like x.

    Source: Chen et al. (2018), theorem 1 and section 4.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"densities are computed at points in float32 or float64, got {x.dtype}")

    def augmented(state: Tensor, t: Tensor, **cond: object) -> Tensor:
        at = state[:, :-1].reshape(x.shape)
        velocity, rate = velocity_and_divergence(v, at, t, noise=noise, **cond)
        return torch.cat([velocity.flatten(1), rate[:, None]], dim=1)

    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1)  # (B, d + 1)
    state = solve(augmented, state, t0=t0, t1=t1, method=method, **options)
    return state[:, :-1].reshape(x.shape), state[:, -1]


def log_prob(
    v: Field,
    x_1: Tensor,
    *,
    base: Law | None = None,
    noise: Tensor | None = None,
    t0: float = 0.0,
    t1: float = 1.0,
    steps: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    method: Tableau = DOPRI5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    solve: Callable[..., Tensor] = odeint,
    **cond: object,
) -> Tensor:
    r"""The log-density of points under the law to which the field carries the base law:

        log p_1(x_1) = log p_0(x_0) - int_0^1 div v(x_t, t) dt,        dx/dt = v(x, t) backwards from x_1.

    With noise this is an unbiased estimate of log p_1, up to the error of the steps; its exponential overestimates p_1
    on average. The noise stays the same for the whole solve: were the integrand to jump at every evaluation, adaptive
    steps would find hardly a length that meets the tolerance.

    Args:
        v: the field, called as v(x, t, **cond).
        x_1: points (B, *D) at time t1, float32 or float64.
        base: the law of x_0, at time t0; N(0, I) if None.
        noise: None for the exact divergence; else e, like x_1, for Hutchinson's estimate, as from `rademacher`.
        t0, t1: the times of the base law and of the points.
        steps, times, method, rtol, atol: as in `odeint`. The grid `times` runs from t0 to t1, as it does for samples.
        solve: `odeint`, whose gradients are those of its steps, or a partial `odeint_adjoint`.
        **cond: passed on to the field, such as labels.

    Returns:
        (B,), in nats, differentiable in x_1 and in the parameters of v.

    Raises:
        TypeError: points in half precision.
        ValueError: noise that is not like x_1, or a base law whose log_prob is not (B,).

    Source: Chen et al. (2018), section 4; Grathwohl et al. (2019), section 3.1.

    >>> widen = lambda x, t: x / 2
    >>> x_1 = torch.zeros(1, 2)  # N(0, e I) has density 1 / (2 pi e) there
    >>> log_prob(widen, x_1), -math.log(2 * math.pi) - 1
    (tensor([-2.8379]), -2.8378770664093453)
    """
    if times is not None:
        times = torch.as_tensor(times, dtype=torch.float64).flip(0)
        t0, t1 = float(times[-1]), float(times[0])
    grid: dict[str, Any] = {"steps": steps, "times": times, "rtol": rtol, "atol": atol}
    x_0, log_det = flow_with_log_det(
        v, x_1, noise=noise, t0=t1, t1=t0, method=method, solve=solve, **grid, **cond
    )
    if base is None:
        log_p_0 = -(x_0.square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    else:
        log_p_0 = base.log_prob(x_0)
        if log_p_0.shape != (len(x_0),):
            raise ValueError(
                f"the base law's log_prob must be one number for each point, {(len(x_0),)}, "
                f"got shape {tuple(log_p_0.shape)} at points of shape {tuple(x_0.shape)}"
            )
    return log_p_0 + log_det


def nll_loss(v: Field, x_1: Tensor, **options: Any) -> Tensor:
    r"""The loss of maximum likelihood, -E[log p_1(x_1)]: the mean of -`log_prob`, in nats per point, of shape ().

    Up to the entropy of the data, which no parameter changes, it is KL(data || model).

    Args:
        v, x_1: the field to train, and data (B, *D).
        **options: those of `log_prob`, such as noise=rademacher(x_1, generator).

    Raises:
        ValueError: an empty batch.

    >>> nll_loss(lambda x, t: torch.zeros_like(x), torch.zeros(5, 1))
    tensor(0.9189)
    """
    if len(x_1) == 0:
        raise ValueError(f"x_1 must hold at least one point, got shape {tuple(x_1.shape)}")
    return -log_prob(v, x_1, **options).mean()


def odeint_adjoint(
    v: Field,
    x: Tensor,
    *,
    parameters: Iterable[Tensor] | None = None,
    t0: float = 0.0,
    t1: float = 1.0,
    steps: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    method: Tableau = MIDPOINT,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **cond: object,
) -> Tensor:
    r"""`odeint` with gradients from the adjoint equation, in memory that does not grow with the number of steps.

    The backward pass solves, from t1 back to t0, for the state x, the adjoint a = dL/dx_t and dL/dtheta together:

        dx/dt = v,        da/dt = -(dv/dx)^T a,        dg/dt = -(dv/dtheta)^T a,        g(t1) = 0,

    so that g(t0) = dL/dtheta. Its steps are its own. Gradients are thus those of the exact flow up to the error of both
    solves, and not those of the steps taken: with few steps they differ from back-propagation's, and a field that
    contracts strongly cannot be followed back at all.

    Args:
        v: the field, called as v(x, t, **cond).
        x: starting points (B, *D), float32 or float64.
        parameters: the tensors that v depends on; those of v if it is a module. Others get no gradient from here.
        t0, t1, steps, times, method, rtol, atol: as in `odeint`, for both passes.
        **cond: passed on to the field; its tensors get gradients too.

    Returns:
        x(t1) of shape (B, *D), differentiable once, in x, the parameters and the conditions.

    Raises:
        TypeError: v is not a module and no parameters are given; say parameters=() if there are none.

    Source: Chen et al. (2018), algorithm 1. The scale of a is set to 1 before the solve, since a tolerance atol means
    nothing to a gradient of unknown size.
    """
    if parameters is None:
        if not isinstance(v, nn.Module):
            raise TypeError(
                f"a field of type {type(v).__name__} does not tell what it depends on: give parameters=, "
                "such as net.parameters(), or parameters=() if nothing in it is trained"
            )
        parameters = v.parameters()
    wanted = [p for p in [*parameters, *cond.values()] if isinstance(p, Tensor) and p.requires_grad]
    if times is not None:
        times = torch.as_tensor(times, dtype=torch.float64)
        t0, t1 = float(times[0]), float(times[-1])
    forward = {"t0": t0, "t1": t1, "steps": steps, "times": times}
    backward = {"t0": t1, "t1": t0, "steps": steps, "times": None if times is None else times.flip(0)}
    options = {"method": method, "rtol": rtol, "atol": atol}
    return _Adjoint.apply(partial(v, **cond), forward | options, backward | options, x, *wanted)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Field, forward: dict, backward: dict, x: Tensor, *theta: Tensor) -> Tensor:
        x_1 = odeint(v, x, **forward)
        ctx.v, ctx.options = v, backward
        ctx.save_for_backward(x_1, *theta)
        return x_1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor) -> tuple[Tensor | None, ...]:
        x_1, *theta = ctx.saved_tensors
        scale = a.square().mean().sqrt().clamp(min=torch.finfo(a.dtype).tiny)
        sizes = [p.numel() for p in (x_1, x_1, *theta)]

        def rates(state: Tensor, t: Tensor) -> Tensor:
            at, a = (part.reshape(x_1.shape) for part in state[0].split(sizes)[:2])
            with torch.enable_grad():
                at = at.detach().requires_grad_()
                velocity = ctx.v(at, t)
            pulled = tuple(torch.zeros_like(p) for p in (at, *theta))
            if velocity.requires_grad:
                pulled = torch.autograd.grad(velocity, (at, *theta), a, materialize_grads=True)
            return torch.cat([velocity.flatten(), *[-p.flatten().to(a.dtype) for p in pulled]])[None]

        state = torch.cat([x_1.flatten(), (a / scale).flatten(), x_1.new_zeros(sum(sizes[2:]))])
        with torch.no_grad():
            _, *gradients = (scale * odeint(rates, state[None], **ctx.options)[0]).split(sizes)
        shaped = [g.reshape(p.shape).to(p.dtype) for g, p in zip(gradients, (x_1, *theta), strict=True)]
        return None, None, None, *shaped
