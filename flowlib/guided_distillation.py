"""Guidance in one pass: a student that takes the scale as an input (chapter 9)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowlib import checks
from flowlib.fields import Field, expand_time
from flowlib.paths import AffinePath, linear
from flowlib.times import Times, uniform


def guided_distillation_loss(
    v: Field,
    teacher: Field,
    x_1: Tensor,
    scale: Tensor,
    *,
    cond: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    path: AffinePath = linear,
    times: Times = uniform,
    generator: Generator | None = None,
) -> Tensor:
    r"""How far a student's one pass is from the teacher's two, averaged over batch and dimensions:

        L = E |v(x_t, t, c, w) - (u + w (c - u))|^2 / d,     u = teacher(x_t, t, null), c = teacher(x_t, t, cond).

    The loss is zero where the student is the guided field, at every point, time and scale that were drawn.

    Args:
        v: the student, called as v(x_t, t, **cond, scale=w) with t and w (B,).
        teacher: called once, without gradients, on both halves of a batch of 2 B.
        x_1: data (B, *D), floating point; noise is N(0, I).
        scale: w (B,), one for each sample: 0 is the field without, 1 with the condition.
        cond: what the field is told, tensors (B, ...).
        null: what it is told instead when it is told nothing, of the same names and shapes.
        path: gives x_t.
        times: the law of t, called as times(B, generator=generator, device=x_1.device).
        generator: the source of the noise and the times, in this order, on the device of x_1.

    Source: Meng et al. (2023), section 3.1, stage one.

    >>> def teacher(x, t, *, y):
    ...     return y[:, None] * torch.ones_like(x)
    >>> def student(x, t, *, y, scale):
    ...     return (scale * y)[:, None] * torch.ones_like(x)
    >>> y, w = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    >>> guided_distillation_loss(student, teacher, torch.zeros(2, 4), w, cond={"y": y}, null={"y": 0 * y})
    tensor(0.)
    """
    checks.floating("x_1", x_1)
    checks.shaped("scale", scale, len(x_1))
    checks.require(
        set(cond) == set(null), f"cond and null must have the same names, got {[*cond]} and {[*null]}"
    )
    x_0 = torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype, device=x_1.device)
    t = times(len(x_1), generator=generator, device=x_1.device)
    x_t = path.sample(x_0, x_1, t)[0]
    with torch.no_grad():
        both = {name: torch.cat([null[name], cond[name]]) for name in cond}
        u, c = teacher(torch.cat([x_t, x_t]), torch.cat([t, t]), **both).chunk(2)
        guided = u + expand_time(scale, x_t) * (c - u)
    velocity = v(x_t, t, **cond, scale=scale)
    precise = torch.promote_types(torch.float32, x_1.dtype)
    return mse_loss(velocity.to(precise), guided.to(precise))
