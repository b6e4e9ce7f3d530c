"""Continuous normalizing flows: the density that a field carries along, and how to fit it (chapter 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flowlib import checks
from flowlib.derivatives import velocity_and_divergence
from flowlib.fields import Field
from flowlib.graphs import require_constant, stranger
from flowlib.solvers import odeint, root_mean_square, worst_point
from flowlib.tableaus import DOPRI5, MIDPOINT, Tableau


class Law(Protocol):
    """Anything with a density: a GaussianMixture, a distribution of torch, a flow."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """log p(x) in nats (B,), at points x (B, *D)."""


def flow_with_log_det(
    v: Field,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    method: Tableau = DOPRI5,
    norm: Callable[[Tensor], Tensor] | None = None,
    solve: Callable[..., Tensor] = odeint,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    r"""Carry points from t0 to t1, and with them the logarithm of the factor by which the flow stretches volume there:

        dx/dt = v(x, t),        d/dt log |det dphi/dx| = div v(x_t, t)      (Liouville's formula).

    Derived at eq-log-det. Adaptive steps keep every point, and every logarithm, within the tolerance, unless another
    norm of the errors (B, d + 1) is given: single values are wanted here, not averages. For 1,000
    points of the course's laws that took 1.7 times the evaluations of `root_mean_square`, and made the largest error 14
    to 130 times smaller.

    Args:
        v: the field.
        x: points (B, *D) at time t0, float32 or float64.
        noise: None for the exact divergence, or the noise of Hutchinson's estimate, like x, the same at all times.
        method, norm: as in `odeint`.
        solve: what solves the system: `odeint`, or `odeint_adjoint` with its parameters fixed by functools.partial.
        **options: t0, t1, steps, times, rtol and atol, as in `odeint`; others are passed on to the field.

    Returns:
        the points at t1, like x, and log |det dphi_{t0 -> t1}/dx| (B,), in nats.

    Source: Chen et al. (2018), theorem 1 and section 4.
    """
    checks.precise("points at which a density is wanted", x)

    def augmented(state: Tensor, t: Tensor, **cond: object) -> Tensor:
        at = state[:, :-1].reshape(x.shape)
        velocity, rate = velocity_and_divergence(v, at, t, noise=noise, **cond)
        return torch.cat([velocity.flatten(1), rate[:, None]], dim=1)

    if method.error is not None and options.get("steps") is None:
        options["norm"] = norm or _worst_point_or_density
    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1)  # (B, d + 1)
    state = solve(augmented, state, method=method, **options)
    return state[:, :-1].reshape(x.shape), state[:, -1]


def _worst_point_or_density(error: Tensor) -> Tensor:
    """For errors (B, d + 1): the log-determinant counts as much as all coordinates, and each point by itself."""
    return torch.maximum(worst_point(error[:, :-1]), worst_point(error[:, -1:]))


def log_prob(
    v: Field,
    x_1: Tensor,
    *,
    base: Law | None = None,
    noise: Tensor | None = None,
    t0: float | None = None,
    t1: float | None = None,
    times: Sequence[float] | Tensor | None = None,
    **options: Any,
) -> Tensor:
    r"""The log-density of points under the law to which the field carries the base law:

        log p_1(x_1) = log p_0(x_0) - int_0^1 div v(x_t, t) dt,        dx/dt = v(x, t) backwards from x_1.

    Derived at eq-instantaneous. With noise this is an unbiased estimate of log p_1, up to the error of the steps; its
    exponential overestimates p_1 on average. The noise stays the same for the whole solve: were the integrand to jump
    at every evaluation, adaptive steps would find hardly a length that meets the tolerance.

    Args:
        v: the field, called as v(x, t, **cond). Its derivative is that of its graph: see `pullback`.
        x_1: points (B, *D) at time t1, float32 or float64.
        base: the law of x_0, at time t0; N(0, I) if None.
        noise: None for the exact divergence; else e, like x_1, for Hutchinson's estimate, as from `rademacher`.
        t0, t1: the times of the base law, 0 if None, and of the points, 1 if None.
        times: in place of both, a grid from t0 to t1, as for samples.
        **options: steps, method, rtol, atol, norm and solve, as in `flow_with_log_det`; others are conditions.

    Returns:
        (B,), in nats, differentiable in x_1 and in the parameters of v.

    Source: Chen et al. (2018), section 4; Grathwohl et al. (2019), section 3.1.

    >>> widen = lambda x, t: x / 2
    >>> log_prob(widen, torch.zeros(1, 2))  # N(0, e I) has density 1 / (2 pi e) there
    tensor([-2.8379])
    """
    if times is None:
        t0, t1 = 0.0 if t0 is None else t0, 1.0 if t1 is None else t1
    else:
        options["times"] = torch.as_tensor(times, dtype=torch.float64).flip(0)
    x_0, log_det = flow_with_log_det(v, x_1, noise=noise, t0=t1, t1=t0, **options)
    if base is None:
        log_p_0 = -(x_0.square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    else:
        log_p_0 = base.log_prob(x_0)
        checks.shaped("the base law's log_prob, one number for each point,", log_p_0, len(x_0))
    return log_p_0 + log_det


def nll_loss(v: Field, x_1: Tensor, **options: Any) -> Tensor:
    """The loss of maximum likelihood, -E[log p_1(x_1)] in nats, of shape (): the mean of -`log_prob`, with its options.

    Up to the entropy of the data, which no parameter changes, it is KL(data || model): derived at eq-nll.
    """
    checks.require(len(x_1) > 0, f"x_1 must hold at least one point, got shape {tuple(x_1.shape)}")
    return -log_prob(v, x_1, **options).mean()


def odeint_adjoint(
    v: Field,
    x: Tensor,
    *,
    parameters: Iterable[Tensor] | None = None,
    t0: float | None = None,
    t1: float | None = None,
    times: Sequence[float] | Tensor | None = None,
    steps: int | None = None,
    method: Tableau = MIDPOINT,
    rtol: float | None = None,
    atol: float | None = None,
    norm: Callable[[Tensor], Tensor] | None = None,
    **cond: object,
) -> Tensor:
    r"""`odeint` with gradients from the adjoint equation, in memory that does not grow with the number of steps.

    The backward pass solves, from t1 back to t0, for the state x, the adjoint a = dL/dx_t and dL/dtheta together:

        dx/dt = v,        da/dt = -(dv/dx)^T a,        dg/dt = -(dv/dtheta)^T a,        g(t1) = 0,

    so that g(t0) = dL/dtheta: derived at eq-adjoint. Its steps are its own. Gradients are thus those of the exact flow
    up to the error of both solves, and not those of the steps taken: with few steps they differ from
    back-propagation's, and a field that contracts strongly cannot be followed back at all.

    Args:
        v: the field, called as v(x, t, **cond).
        x: starting points (B, *D), float32 or float64.
        parameters: the tensors that v depends on; those of v if it is a module.
        t0, t1, times, steps, method, rtol, atol, norm: as in `odeint`, for both passes. The norm is taken of x and of a
            by themselves, and of each parameter the root mean square over the entries that move.
        **cond: passed on to the field; its tensors, also those in lists and dicts, get gradients too.

    Returns:
        x(t1) of shape (B, *D), differentiable once, in x, the parameters and the conditions.

    Raises:
        TypeError: v is not a module and no parameters are given; say parameters=() if there are none.
        ValueError: parameters is an iterator with nothing left, such as net.parameters() bound once and used twice.
        RuntimeError: in the backward pass, if v depends on a tensor that is neither a parameter nor a condition.

    Source: Chen et al. (2018), algorithm 1. The scale of a is set to 1 before the solve, since a tolerance atol means
    nothing to a gradient of unknown size. That idle parameters must not count: Kidger, Chen & Lyons (2021).
    """
    if parameters is None:
        if not isinstance(v, nn.Module):
            raise TypeError(
                f"a field of type {type(v).__name__} does not tell what it depends on: give parameters=, "
                "such as [*net.parameters()], or parameters=() if nothing in it is trained"
            )
        parameters = v.parameters()
    theta = [*parameters]
    if not theta and isinstance(parameters, Iterator) and not isinstance(v, nn.Module):
        raise ValueError(
            "parameters is an iterator with nothing left: give a list, such as [*net.parameters()]"
        )
    # each tensor once, though it be both parameter and condition: its gradient would count twice
    wanted = list({id(p): p for p in [*theta, *_tensors_in(cond)] if p.requires_grad}.values())
    if times is not None:
        times = torch.as_tensor(times, dtype=torch.float64)
    else:
        t0, t1 = 0.0 if t0 is None else t0, 1.0 if t1 is None else t1
    options = {"steps": steps, "method": method, "rtol": rtol, "atol": atol, "norm": norm}
    forward = options | {"t0": t0, "t1": t1, "times": times}
    backward = options | {"t0": t1, "t1": t0, "times": None if times is None else times.flip(0)}
    return _Adjoint.apply(partial(v, **cond), forward, backward, x, *wanted)


def _tensors_in(value: object) -> list[Tensor]:
    """The tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [x for part in value for x in _tensors_in(part)] if isinstance(value, list | tuple) else []


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
        options = dict(ctx.options)
        point_norm = options.pop("norm") or root_mean_square
        unchecked = True

        def augmented(state: Tensor, t: Tensor) -> Tensor:
            nonlocal unchecked
            at, a = (part.reshape(x_1.shape) for part in state[0].split(sizes)[:2])
            with torch.enable_grad():
                at = at.detach().requires_grad_()
                velocity = ctx.v(at, t)
            pulled: Sequence[Tensor | None] = [None] * (1 + len(theta))
            if velocity.requires_grad:
                if unchecked and (forgotten := stranger(velocity, [at, *theta])) is not None:
                    raise RuntimeError(
                        f"the field depends on a tensor of shape {tuple(forgotten.shape)} that is neither among "
                        "parameters= nor a condition, so that the adjoint would give it no gradient: name it there"
                    )
                unchecked = False
                pulled = torch.autograd.grad(velocity, (at, *theta), a, allow_unused=True)
            if pulled[0] is None:
                require_constant(ctx.v, at.detach(), t, velocity.detach(), {})
            changes = [
                a.new_zeros(n) if p is None else -p.flatten().to(a.dtype)
                for p, n in zip(pulled, sizes[1:], strict=True)
            ]
            return torch.cat([velocity.flatten(), *changes])[None]

        def norm(error: Tensor) -> Tensor:
            x_error, a_error, *rest = error[0].split(sizes)
            parts = [point_norm(part.reshape(x_1.shape)) for part in (x_error, a_error)]
            # most entries of an embedding, say, have no gradient; they must not dilute the error of those that have
            parts += [part.norm() / part.count_nonzero().clamp(min=1).sqrt() for part in rest]
            return torch.stack(parts).amax()

        if options["steps"] is None and options["method"].error is not None:
            options["norm"] = norm
        state = torch.cat([x_1.flatten(), (a / scale).flatten(), x_1.new_zeros(sum(sizes[2:]))])
        with torch.no_grad():
            _, *gradients = (scale * odeint(augmented, state[None], **options)[0]).split(sizes)
        shaped = [g.reshape(p.shape).to(p.dtype) for g, p in zip(gradients, (x_1, *theta), strict=True)]
        return None, None, None, *shaped
