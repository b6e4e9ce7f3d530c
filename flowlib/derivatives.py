"""Derivatives of fields: pullback, divergence, and what misses the continuity equation (chapters 1 and 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.func import jvp

from flowlib import checks
from flowlib.fields import Field, expand_time
from flowlib.graphs import require_constant, stranger


def pullback(
    v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The velocity at x, and the map e -> J^T e with J = dv/dx there: what backward differentiation gives at one pass.

    Both can be differentiated further if gradients are enabled and x, a parameter of v or a condition asks for one;
    otherwise no graph is kept. A velocity without a graph back to x counts as constant, and is computed again a little
    away from x to see whether it is. A field that detaches x in some of its terms only cannot be told from a right one.

    Args:
        v: a field whose value at a point depends on that point alone (no batch statistics).
        x: points (B, *D), floating point.
        t: a scalar or (B,).
        **cond: passed on to the field.

    Returns:
        v(x, t), like x; and the map, which takes e like x, or several at once (n, B, *D), to J^T e of that shape.

    Raises:
        RuntimeError: in inference mode, which forbids derivatives, or a field that moves with x without a graph.

    >>> from flowlib.fields import shear
    >>> velocity, pull = pullback(shear(), torch.tensor([[0.0, 3.0]]), 0.0)
    >>> velocity, pull(torch.tensor([[1.0, 0.0]]))
    (tensor([[3., 0.]]), tensor([[0., 1.]]))
    """
    checks.floating("x", x)
    if torch.is_inference_mode_enabled():
        raise RuntimeError("derivatives of a field are not to be had in inference mode: use torch.no_grad()")
    enabled = torch.is_grad_enabled()
    with torch.enable_grad():
        # a view, so that what else was computed from x, such as a condition, counts as a constant here
        y = x.view_as(x) if enabled and x.requires_grad else x.detach().requires_grad_()
        velocity = v(y, t, **cond)
    if velocity.shape != x.shape or velocity.dtype != x.dtype:
        checks.like("the field's answer", velocity, "x", x)
    wanted = enabled and (x.requires_grad or stranger(velocity, [y]) is not None)

    def pull(e: Tensor) -> Tensor:
        back = None
        if velocity.requires_grad:
            (back,) = torch.autograd.grad(
                velocity,
                y,
                e,
                retain_graph=True,
                create_graph=wanted,
                allow_unused=True,
                is_grads_batched=e.ndim > x.ndim,
            )
        if back is None:
            require_constant(v, x.detach(), t, velocity.detach(), cond)
            return torch.zeros_like(e)
        return back

    return velocity if wanted else velocity.detach(), pull


def velocity_and_divergence(
    v: Field, x: Tensor, t: Tensor | float, *, noise: Tensor | None = None, **cond: object
) -> tuple[Tensor, Tensor]:
    """v(x, t), like x (B, *D), and its divergence (B,), from one evaluation of the field: see `divergence`."""
    velocity, pull = pullback(v, x, t, **cond)
    if noise is not None:
        checks.like("noise", noise, "x", x)
        return velocity, (pull(noise) * noise).flatten(1).sum(1)
    d = x.shape[1:].numel()
    # Several rows of the Jacobian at once save time as long as they stay in the cache, or on a GPU keep it busy.
    together = min(d, (65536 if x.is_cuda else 4096) // max(1, len(x)))
    together = together if together >= 8 else 1
    total = x.new_zeros(len(x))
    for i in range(0, d, together):
        n = min(together, d - i)
        e = x.new_zeros(n, d)
        e.diagonal(i).fill_(1)  # e_i, ..., e_{i + n - 1}
        e = e.reshape(n, 1, *x.shape[1:]).expand(n, *x.shape)
        rows = pull(e if n > 1 else e[0]).reshape(n, len(x), d)
        total = total + rows[:, :, i : i + n].diagonal(dim1=0, dim2=2).sum(1)
    return velocity, total


def divergence(
    v: Field, x: Tensor, t: Tensor | float, *, noise: Tensor | None = None, **cond: object
) -> Tensor:
    """The divergence (B,) at points x (B, *D): div v = tr J = sum_i dv_i / dx_i, in d backward passes, or in one as
    Hutchinson's estimate e^T J e from noise e, like x: unbiased if E[e e^T] = I. Derived at prop-hutchinson.

    Source: Hutchinson (1990); Grathwohl et al. (2019), section 3.1, who integrate it.

    >>> swirl = lambda x, t: torch.stack([x[:, 0] + 5 * x[:, 1], 2 * x[:, 1]], dim=1)
    >>> divergence(swirl, torch.zeros(1, 2), 0.0, noise=torch.tensor([[1.0, -1.0]]))  # 3 exactly
    tensor([-2.])
    """
    return velocity_and_divergence(v, x, t, noise=noise, **cond)[1]


def rademacher(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Independent signs like x, +1 or -1 with equal odds. With S the symmetric part of J, e^T J e has the variance

        2 sum_{i != j} S_ij^2,

    the least of all noise with independent entries. Gaussian noise has 2 sum_ij S_ij^2 instead.
    """
    return torch.empty_like(x, requires_grad=False).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def continuity_residual(
    log_prob: Callable[[Tensor, Tensor], Tensor], v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> Tensor:
    r"""By how much a density and a field miss the continuity equation, relative to the density: (B,), per unit of time.

        r = (d/dt p + div(p v)) / p = d/dt log p + v . grad log p + div v

    The first two terms are one directional derivative of log p, along (v, 1): the rate at which log p changes for an
    observer who moves with the flow. `log_prob(x, t)` is differentiable in both, with x (B, *D) and t (B,) to (B,).
    Derived at eq-continuity.

    Source: Villani, Topics in Optimal Transportation, theorem 5.34; Lipman et al. (2023), equation 26.
    """
    times = expand_time(t, x).reshape(-1).expand(len(x)).contiguous()
    velocity = v(x, times, **cond)
    value, carried, *_ = jvp(log_prob, (x, times), (velocity, torch.ones_like(times)))
    checks.shaped("log_prob(x, t)", value, len(x))
    return carried + divergence(v, x, times, noise=None, **cond)
