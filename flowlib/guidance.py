"""Guidance: functions from fields to a field that follow a condition more closely than it asks (chapter 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import grad, jvp

from flowlib import checks
from flowlib.fields import Field, expand_time
from flowlib.paths import AffinePath, linear

# w: one number, one for each point (B,), or a function of times (B,)
Scale = float | Tensor | Callable[[Tensor], Tensor]
# of u, c (B, *D) and w, which broadcasts against them
Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


def extrapolate(u: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """u + w (c - u): w = 0 without the condition, w = 1 with it, w > 1 beyond.

    >>> extrapolate(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor(3.0))
    tensor([[4.]])
    """
    return u + w * (c - u)


def rescaled(share: float = 0.7) -> Combine:
    """Extrapolation brought back to the size of c: `share` of it with its entries' standard deviation made c's.

    For images and latents, whose points have many entries. Source: Lin et al. (2024).
    """
    checks.require(0 <= share <= 1, f"share must be in [0, 1], got {share}")

    def combine(u: Tensor, c: Tensor, w: Tensor) -> Tensor:
        g = extrapolate(u, c, w)
        size = [x.flatten(1).std(1).reshape(-1, *[1] * (x.ndim - 1)) for x in (c, g)]
        return torch.lerp(g, g * (size[0] / size[1].clamp(min=torch.finfo(g.dtype).tiny)), share)

    return combine


def zero_star(u: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """s u + w (c - s u) with s = <c, u> / |u|^2, the multiple of u nearest to c: what is along u is not extrapolated.

    CFG-Zero* also stands still at first: see `zero_init`. Source: Fan et al. (2025).
    """
    flat_u, flat_c = u.flatten(1), c.flatten(1)
    s = (flat_c * flat_u).sum(1) / flat_u.square().sum(1).clamp(min=torch.finfo(u.dtype).tiny)
    return extrapolate(s.reshape(-1, *[1] * (u.ndim - 1)) * u, c, w)


def guided(u: Field, c: Field, scale: Scale, *, combine: Combine = extrapolate) -> Field:
    """The field that leads from u past c: u + w (c - u).

    With u a model and c the same model told a condition it is classifier-free guidance (see `classifier_free`, which
    evaluates both at once). With u a worse version of the model c it is autoguidance.

    Args:
        scale: w, a number, one for each point (B,), or a function of the times (B,).
        combine: how the two velocities are combined; `extrapolate`, `rescaled(share)`, `zero_star`, or your own.

    Source: Karras et al. (2024), for autoguidance.

    >>> v = guided(lambda x, t: -x, lambda x, t: 1 - x, 3.0)
    >>> v(torch.zeros(1, 1), 0.5)
    tensor([[3.]])
    """

    def v(x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        w = _at(scale, x, t)
        return combine(u(x, t, **cond), c(x, t, **cond), w)

    return v


def classifier_free(
    v: Field,
    scale: Scale,
    *,
    cond: Mapping[str, Tensor],
    null: Mapping[str, Tensor | float],
    combine: Combine = extrapolate,
) -> Field:
    """The guided field of one network that knows both laws: v(x, t, **cond) and, told nothing, v(x, t, **null).

        u + w (c - u),      w = 0 unconditional, w = 1 conditional, w > 1 beyond (`conventions` has other ways to count)

    Both are one evaluation of a batch twice as large. Where w = 1 for all points, only the conditional half is
    evaluated (on a GPU only if `scale` is the number 1).

    Args:
        v: a field that takes the condition.
        scale: w, a number, one for each point (B,), or a function of the times (B,), such as `interval` makes.
        cond: the condition by keyword, each a tensor with one row for each point (B, ...).
        null: what the network was told when the condition was dropped, under the same names: one for all, or (B, ...).
        combine: as for `guided`.

    Raises:
        ValueError: cond and null have other names, or cond has not one row for each point.

    Source: Ho & Salimans (2022), equation 6, whose w is smaller by 1; Zheng et al. (2023) for flows.

    >>> v = classifier_free(
    ...     lambda x, t, label: label[:, None] - x, 3.0, cond={"label": torch.tensor([2])}, null={"label": 0}
    ... )
    >>> v(torch.zeros(1, 1), 0.5)
    tensor([[6.]])
    """
    checks.require(
        len(cond) > 0 and set(cond) == set(null),
        f"cond and null must have the same names, got {sorted(cond)} and {sorted(null)}",
    )

    def field(x: Tensor, t: Tensor | float, **more: object) -> Tensor:
        for name, value in cond.items():
            rows = tuple(value.shape[:1]) if isinstance(value, Tensor) else value
            checks.require(
                rows == (len(x),),
                f"cond[{name!r}] must have a row for each of the {len(x)} points, got {rows}",
            )
        w = _at(scale, x, t)
        if combine is extrapolate and ((isinstance(scale, float | int) and scale == 1) or _is_one(w)):
            return v(x, t, **cond, **more)
        both = {
            name: torch.cat([value, torch.as_tensor(null[name]).to(value).expand_as(value)])
            for name, value in cond.items()
        }
        twice = torch.cat([_times(x, t)] * 2)
        c, u = v(torch.cat([x, x]), twice, **both, **more).chunk(2)
        return combine(u, c, w)

    return field


def classifier_guided(
    v: Field,
    log_prob: Callable[[Tensor, Tensor], Tensor],
    scale: Scale,
    *,
    path: AffinePath = linear,
) -> Field:
    r"""The field v of all data, led by a classifier that knows noise: v + w b_t grad log p_t(y|x).

        b_t = sigma (alpha' sigma - alpha sigma') / alpha,       (1 - t) / t on the linear path

    At w = 1 it is the marginal velocity of p(x|y). At t = 0 of the linear path b_t is
    infinite and the gradient zero; their product has a limit, E[x_1|y] - E[x_1], which is used there: it is
    sigma^2 d/dt grad log p_t(y|x), wherever alpha = 0 and alpha' is not. Derived at eq-classifier.

    Args:
        v: the marginal velocity of the path, from x_0 ~ N(0, I) that is independent of x_1.
        log_prob: log p_t(y|x) (B,) of points x (B, *D) and times t (B,), made of what torch.func can differentiate.
        scale: w, a number, one for each point (B,), or a function of the times (B,).
        path: the path of v.

    Source: Dhariwal & Nichol (2021), section 4, for diffusion; Zheng et al. (2023) for flows.

    >>> v = classifier_guided(lambda x, t: -x, lambda x, t: t * x[:, 0], 2.0)
    >>> v(torch.zeros(1, 1), 0.25), v(torch.zeros(1, 1), 0.0)  # here b_t times the gradient is 1 - t
    (tensor([[1.5000]]), tensor([[2.]]))
    """

    def total(x: Tensor, t: Tensor) -> Tensor:
        value = log_prob(x, t)
        checks.shaped("log_prob(x, t)", value, len(x))
        return value.sum()

    toward = grad(total)

    def field(x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        checks.floating("x", x)
        times = _times(x, t)
        alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, x)
        b_alpha = sigma * (alpha_dot * sigma - alpha * sigma_dot)
        least, end = checks.extent(alpha.abs()), 10 * torch.finfo(alpha.dtype).eps
        if least and least[0] > end:
            over_alpha = toward(x, times) / alpha
        else:  # some points are, or may be, at the end of the noise
            direction, rate, *_ = jvp(lambda s: toward(x, s), (times,), (torch.ones_like(times),))
            over_alpha = torch.where(alpha.abs() > end, direction / alpha, rate / alpha_dot)
        return v(x, t, **cond) + (_at(scale, x, t) * b_alpha * over_alpha).to(x.dtype)

    return field


def interval(scale: float, low: float, high: float) -> Callable[[Tensor], Tensor]:
    """A scale that is w for times in [low, high] and 1, plain conditional velocity, at others.

    Source: Kynkaanniemi et al. (2024).

    >>> interval(4.0, 0.2, 0.8)(torch.tensor([0.0, 0.5, 1.0]))
    tensor([1., 4., 1.])
    """
    checks.require(0 <= low < high <= 1, f"expected 0 <= low < high <= 1, got low={low} and high={high}")

    def at(t: Tensor) -> Tensor:
        return torch.where((t >= low) & (t <= high), scale, 1.0).to(t)

    return at


def zero_init(v: Field, until: float = 0.04) -> Field:
    """The field v that stands still before t = `until`, where a trained velocity may be worse than none.

    Source: Fan et al. (2025), who leave out the first 4% of the steps.
    """
    checks.require(0 <= until < 1, f"until must be in [0, 1), got {until}")

    def field(x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        return torch.where(expand_time(t, x) < until, 0.0, v(x, t, **cond))

    return field


def drop_labels(
    labels: Tensor, null: int, probability: float = 0.1, *, generator: Generator | None = None
) -> Tensor:
    """Labels (B,) of which each, for itself, is replaced by the label `null` with this probability: in training, so
    that one network learns the law of all data too. The generator lives where the labels do.

    Source: Ho & Salimans (2022), algorithm 1.

    >>> drop_labels(torch.arange(6), 10, 0.5, generator=torch.Generator().manual_seed(0))
    tensor([10,  1, 10, 10, 10,  5])
    """
    checks.integers("labels", labels)
    checks.require(0 <= probability <= 1, f"probability must be in [0, 1], got {probability}")
    drawn = torch.rand(labels.shape, generator=generator, device=labels.device)
    return torch.where(drawn < probability, null, labels)


def _times(x: Tensor, t: Tensor | float) -> Tensor:
    """Times (B,)."""
    return expand_time(t, x).reshape(-1).expand(len(x)).contiguous()


def _at(scale: Scale, x: Tensor, t: Tensor | float) -> Tensor:
    """The scale at these times, made to broadcast against x."""
    return expand_time(scale(_times(x, t)) if callable(scale) else scale, x)


def _is_one(w: Tensor) -> bool:
    return checks.extent(w) == (1.0, 1.0)
