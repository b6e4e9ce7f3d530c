"""Derivatives of fields: pullback, divergence, and what misses the continuity equation (chapters 1 and 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.func import jvp

from flowlib.fields import Field, expand_time


def pullback(
    v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The velocity at x, and the map e -> J^T e with J = dv/dx there: what backward differentiation gives at one pass.

    Both can be differentiated further if gradients are enabled and x, a parameter of v or a condition asks for one;
    otherwise no graph is kept.

    Args:
        v: a field whose value at a point depends on that point alone (no batch statistics).
        x: points (B, *D).
        t: a scalar or (B,).
        **cond: passed on to the field.

    Returns:
        v(x, t), like x; and the map, which takes e like x, or several at once (n, B, *D), to J^T e of that shape.

    Raises:
        RuntimeError: in inference mode, which forbids derivatives.

    >>> from flowlib.fields import shear
    >>> velocity, pull = pullback(shear(), torch.tensor([[0.0, 3.0]]), 0.0)
    >>> velocity, pull(torch.tensor([[1.0, 0.0]]))
    (tensor([[3., 0.]]), tensor([[0., 1.]]))
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("derivatives of a field are not to be had in inference mode: use torch.no_grad()")
    enabled = torch.is_grad_enabled()
    with torch.enable_grad():
        # a view, so that what else was computed from x, such as a condition, counts as a constant here
        y = x.view_as(x) if enabled and x.requires_grad else x.detach().requires_grad_()
        velocity = v(y, t, **cond)
    wanted = enabled and (x.requires_grad or _asks_for_more(velocity, y))

    def pull(e: Tensor) -> Tensor:
        if not velocity.requires_grad:
            return torch.zeros_like(e)
        (back,) = torch.autograd.grad(
            velocity,
            y,
            e,
            retain_graph=True,
            create_graph=wanted,
            allow_unused=True,
            is_grads_batched=e.ndim > x.ndim,
        )
        return torch.zeros_like(e) if back is None else back

    return velocity if wanted else velocity.detach(), pull


def _asks_for_more(value: Tensor, leaf: Tensor) -> bool:
    """Whether value depends on a tensor that wants a gradient, other than the leaf."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", leaf) is not leaf:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def velocity_and_divergence(
    v: Field, x: Tensor, t: Tensor | float, *, noise: Tensor | None = None, **cond: object
) -> tuple[Tensor, Tensor]:
    """v(x, t), like x (B, *D), and its divergence (B,), from one evaluation of the field: see `divergence`."""
    velocity, pull = pullback(v, x, t, **cond)
    if noise is not None:
        if noise.shape != x.shape or noise.dtype != x.dtype:
            raise ValueError(
                f"noise must be like x, {tuple(x.shape)} in {x.dtype}, got {tuple(noise.shape)} in {noise.dtype}"
            )
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
    r"""The divergence of the field at each point, exactly or as Hutchinson's estimate from one draw of noise e:

        div v = tr J = sum_i dv_i / dx_i,        div v ~ e^T J e,  unbiased if E[e e^T] = I.

    With S the symmetric part of J, the estimate has variance 2 sum_{i != j} S_ij^2 if the entries of e are random signs
    (`rademacher`), and 2 sum_ij S_ij^2 if they are Gaussian.

    Args:
        v: a field whose value at a point depends on that point alone (no batch statistics).
        x: points (B, *D).
        t: a scalar or (B,).
        noise: None for the exact divergence, at the price of d backward passes; e, like x, for the estimate, at one.
        **cond: passed on to the field.

    Returns:
        (B,), in units of 1 / time. It can be differentiated if gradients are enabled and x or a parameter wants one.

    Source: Hutchinson (1990); Grathwohl et al. (2019), section 3.1, who integrate it.

    >>> swirl = lambda x, t: torch.stack([x[:, 0] + 5 * x[:, 1], 2 * x[:, 1]], dim=1)
    >>> x = torch.zeros(1, 2)
    >>> divergence(swirl, x, 0.0), divergence(swirl, x, 0.0, noise=torch.tensor([[1.0, -1.0]]))
    (tensor([3.]), tensor([-2.]))
    """
    return velocity_and_divergence(v, x, t, noise=noise, **cond)[1]


def rademacher(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Independent signs, +1 or -1 with equal odds, like x: noise for Hutchinson's estimate, of least variance among
    all with independent entries.

    >>> rademacher(torch.zeros(1, 4), torch.Generator().manual_seed(0))
    tensor([[-1., -1.,  1., -1.]])
    """
    return torch.empty_like(x, requires_grad=False).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def continuity_residual(
    log_prob: Callable[[Tensor, Tensor], Tensor], v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> Tensor:
    r"""By how much a density and a field miss the continuity equation, relative to the density.

        r = (d/dt p + div(p v)) / p = d/dt log p + v . grad log p + div v

    The first two terms are one directional derivative of log p, along (v, 1): the rate at which log p changes for an
    observer who moves with the flow. The residual is zero wherever v generates p_t.

    Args:
        log_prob: log p_t(x) in nats, called as log_prob(x, t) with x (B, *D) and t (B,), and differentiable in both.
        v: the field, called as v(x, t, **cond).
        x: points (B, *D).
        t: a scalar or (B,).

    Returns:
        (B,), in units of 1 / time.

    Source: Villani, Topics in Optimal Transportation, theorem 5.34; Lipman et al. (2023), equation 26.
    """
    times = expand_time(t, x).reshape(-1).expand(len(x)).contiguous()
    velocity = v(x, times, **cond)
    carried: Tensor = jvp(log_prob, (x, times), (velocity, torch.ones_like(times)))[1]
    return carried + divergence(v, x, times, noise=None, **cond)
