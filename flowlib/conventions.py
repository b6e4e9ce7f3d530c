"""The convention translator: networks of rectified flow, SD3, DDPM and EDM as fields of ours, and back (chapter 9).

All of them mix data x_1 with noise x_0 ~ N(0, I) and predict a mean of one, of the other or of both. They differ in
three things: how they count time, how they scale the state, and which combination their networks predict. Against our
t, the share of data in the mixture, each convention is one row of a table,

    its time = time(t),     its state = scale (t x_1 + (1 - t) x_0),     its prediction = c_1 E[x_1|x] + c_0 E[x_0|x],

and to translate is to read two rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from flowlib import checks
from flowlib.fields import Field, expand_time

Guidance = Literal["flowlib", "imagen", "diffusers", "ho-salimans"]
Parts = Callable[[Tensor], tuple[Tensor | float, Tensor | float]]


@dataclass(frozen=True)
class Convention:
    """How a family of models counts time, scales its states and defines what its networks predict.

    Every function takes a tensor of our times t, except `our_time`, the inverse of `time`.

    Args:
        name: what messages call it.
        time: its time at our t.
        our_time: our t at its time. Times that it does not have must land outside `span`, or be NaN.
        scale: its state over ours, t x_1 + (1 - t) x_0, at the same ratio of data to noise.
        parts: (c_1, c_0), such that the network predicts c_1 E[x_1|x] + c_0 E[x_0|x].
        span: our times that it has, the noisiest first. Asked for others, the translator raises ValueError.
    """

    name: str
    time: Callable[[Tensor], Tensor]
    our_time: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor], Tensor | float]
    parts: Parts
    span: tuple[float, float] = (0.0, 1.0)


FLOW_MATCHING = Convention(
    "flow matching",
    time=lambda t: t,
    our_time=lambda t: t,
    scale=lambda t: 1.0,
    parts=lambda t: (1.0, -1.0),
)

RECTIFIED_FLOW = replace(  # Liu et al. (2023), eq. 1: ours. The published networks are given 999 t.
    FLOW_MATCHING, name="rectified flow", time=lambda t: 999 * t, our_time=lambda time: time / 999
)

SD3 = Convention(  # Esser et al. (2024), section 3: z = (1 - sigma) data + sigma noise; networks are given 1000 sigma.
    "SD3",
    time=lambda t: 1000 * (1 - t),
    our_time=lambda timestep: 1 - timestep / 1000,
    scale=lambda t: 1.0,
    parts=lambda t: (-1.0, 1.0),
)


def _radius(t: Tensor, s: float = 1.0) -> Tensor:
    return torch.hypot(s * t, 1 - t)


_PARTS: dict[str, Parts] = {
    "noise": lambda t: (0.0, 1.0),
    "data": lambda t: (1.0, 0.0),
    "v": lambda t: (-(1 - t) / _radius(t), t / _radius(t)),  # alpha noise - sigma data
}


def ddpm(
    alphas_cumprod: Tensor | None = None, *, predicts: Literal["noise", "data", "v"] = "noise"
) -> Convention:
    """Denoising diffusion in discrete time: x = sqrt(b_n) x_1 + sqrt(1 - b_n) x_0, n = 0 next to the data.

    `alphas_cumprod` (N,) holds the b_n, falling strictly inside (0, 1), as diffusers' schedulers do; None is the
    schedule of Ho et al. (2020), eq. 4 and section 4. Between two n, logit t = logit(b_n) / 2 is interpolated.
    "noise", "data" and "v" are diffusers' "epsilon", "sample" and "v_prediction", where v = alpha noise - sigma data
    (Salimans & Ho 2022, appendix D) points from the data to the noise.

    >>> [round(t, 4) for t in ddpm().span]
    [0.0063, 0.9901]
    """
    checks.one_of("predicts", predicts, tuple(_PARTS))
    if alphas_cumprod is None:
        alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    checks.floating("alphas_cumprod", alphas_cumprod)
    checks.shaped("alphas_cumprod", alphas_cumprod, "N")
    abar = alphas_cumprod.detach().cpu().double()
    checks.require(
        len(abar) > 1 and abar[-1] > 0 and abar[0] < 1 and bool((abar.diff() < 0).all()),
        f"alphas_cumprod must fall strictly inside (0, 1), got {len(abar)} from {abar[:1].tolist()} to "
        f"{abar[-1:].tolist()}; leave out an end that is pure noise, where noise prediction says nothing",
    )
    logits, steps = abar.logit() / 2, torch.arange(len(abar), dtype=torch.float64)

    @cache
    def tables(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        exact = (steps, logits, logits.flip(0), steps.flip(0))
        return tuple(table.to(device, dtype) for table in exact)

    return Convention(
        f"DDPM ({predicts})",
        time=lambda t: _interpolate(t.logit(), *tables(t.dtype, t.device)[2:]),
        our_time=lambda n: _interpolate(n, *tables(n.dtype, n.device)[:2]).sigmoid(),
        scale=lambda t: 1 / _radius(t),
        parts=_PARTS[predicts],
        span=(float(logits[-1].sigmoid()), float(logits[0].sigmoid())),
    )


def vp_sde(
    beta_min: float = 0.1, beta_max: float = 20.0, *, predicts: Literal["noise", "data", "v"] = "noise"
) -> Convention:
    """Denoising diffusion in continuous time, s = 0 at the data and 1 at the noise: `variance_preserving` backwards.

    With B = beta_min s + (beta_max - beta_min) s^2 / 2, its state has exp(-B) = t^2 / (t^2 + (1 - t)^2) of the data's
    variance, and the rest of the noise's. `predicts` as for `ddpm`. Source: Song et al. (2021), appendix C.
    """
    checks.one_of("predicts", predicts, tuple(_PARTS))
    checks.require(
        0 < beta_min <= beta_max < math.inf, f"expected 0 < beta_min <= beta_max, got {beta_min}, {beta_max}"
    )
    rise = beta_max - beta_min

    def time(t: Tensor) -> Tensor:
        B = torch.log1p(((1 - t) / t).square())
        return 2 * B / (beta_min + (beta_min**2 + 2 * rise * B).sqrt())

    def our_time(s: Tensor) -> Tensor:
        ratio = (s * (beta_min + rise * s / 2)).expm1().sqrt()  # sigma / alpha
        return torch.where(s < 0, torch.nan, 1 / (1 + ratio))

    span = (float(our_time(torch.tensor(1.0, dtype=torch.float64))), 1.0)
    return Convention(
        f"VP-SDE ({predicts})", time, our_time, lambda t: 1 / _radius(t), _PARTS[predicts], span
    )


def edm(sigma_data: float | None = None, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Convention:
    """EDM: x = y + sigma n, with sigma as time, and the denoiser D(x; sigma) = E[y|x].

    With `sigma_data`, the standard deviation of its data (.5 in the paper), it is the bare network F(c_in x; c_noise)
    inside the denoiser, D = c_skip x + c_out F. At sigma_data = 1 its state is DDPM's, and F = -v of `ddpm`.

    Pure noise would be sigma = infinity: sampling starts at sigma_max, whose state still has 1 part of data.

    Source: Karras et al. (2022), eq. 7 and table 1.
    """
    checks.positive(sigma_min=sigma_min, sigma_max=sigma_max, sigma_data=sigma_data)
    checks.require(sigma_min < sigma_max, f"expected sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    span = (1 / (1 + sigma_max), 1 / (1 + sigma_min))
    if sigma_data is None:
        return Convention(
            "EDM", lambda t: (1 - t) / t, lambda sigma: 1 / (1 + sigma), lambda t: 1 / t, _PARTS["data"], span
        )
    s = sigma_data
    return Convention(
        f"EDM's bare network ({sigma_data=})",
        time=lambda t: -t.logit() / 4,
        our_time=lambda c_noise: (-4 * c_noise).sigmoid(),
        scale=lambda t: 1 / _radius(t, s),
        parts=lambda t: ((1 - t) / (s * _radius(t, s)), -s * t / _radius(t, s)),
        span=span,
    )


DDPM, EDM = ddpm(), edm()


def translate_time(time: Tensor | float, *, given: Convention, wanted: Convention) -> Tensor | float:
    """The time in `wanted` at which data and noise are mixed in the ratio they have at `time` in `given`.

    A number gives a number, a tensor a tensor.

    >>> round(translate_time(500, given=DDPM, wanted=EDM), 3), translate_time(0.75, given=FLOW_MATCHING, wanted=SD3)
    (3.443, 250.0)
    """
    whole = not (isinstance(time, Tensor) and time.is_floating_point())
    exact = torch.as_tensor(time, dtype=torch.float64 if whole else None)
    checks.precise("time", exact)
    result = wanted.time(_ours(exact, given, wanted))
    return result if isinstance(time, Tensor) else float(result)


def translate_state(x: Tensor, time: Tensor | float, *, given: Convention, wanted: Convention) -> Tensor:
    """The state in `wanted`, at its own time, made of the same data and noise as x (B, *D) in `given` at `time`.

    >>> translate_state(torch.tensor([[8.1]]), 80.0, given=EDM, wanted=FLOW_MATCHING)  # x / (1 + sigma)
    tensor([[0.1000]])
    """
    checks.floating("x", x)
    t = _ours(expand_time(time, x), given, wanted)
    return (x * (wanted.scale(t) / given.scale(t))).to(x.dtype)


def translate_prediction(
    prediction: Tensor, x: Tensor, time: Tensor | float, *, given: Convention, wanted: Convention
) -> Tensor:
    """What a network of `wanted` says where one of `given` says `prediction`, at its x (B, *D) and its `time`.

    With D = c_0 t - c_1 (1 - t) of either, and x in our scale,

        velocity = ((c_1 + c_0) x - prediction) / D,        prediction = (c_1 + c_0) x - D velocity,

    so that an error of the velocity counts D times as an error of the prediction, and guidance, whose weights sum to
    one, is the same in all: the scale that acts on noise acts on velocities. Any coupling of x_0 and x_1 will do.

    >>> x = torch.tensor([[1.0]])
    >>> translate_prediction(torch.tensor([[3.0]]), x, 250.0, given=SD3, wanted=FLOW_MATCHING)
    tensor([[-3.]])
    """
    checks.floating("x", x)
    checks.like("prediction", prediction, "x", x)
    t = _ours(expand_time(time, x), given, wanted)
    return _translate(prediction, x / given.scale(t), t, given, wanted).to(x.dtype)


def translated(network: Field, *, given: Convention, wanted: Convention) -> Field:
    """A network(x, time, **cond) of one convention as one of another: its states, times and predictions translated.

    The network gets its times as (B,), in float32 at least; conditions are passed on. It may answer in another dtype
    than x's, such as bfloat16 under autocast.

    A network of DDPM as our field, then sampled by our solver. Here the data are N(0, 4 I), and noise prediction exact:

    >>> def eps(x, n):
    ...     t = translate_time(n, given=DDPM, wanted=FLOW_MATCHING)[:, None]
    ...     return (1 - t) * torch.hypot(t, 1 - t) / (4 * t**2 + (1 - t) ** 2) * x
    >>> v = translated(eps, given=DDPM, wanted=FLOW_MATCHING)
    >>> v(torch.ones(1, 1), 0.5)
    tensor([[1.2000]])
    """
    _check(given, wanted)

    def value(x: Tensor, time: Tensor | float, **cond: object) -> Tensor:
        checks.floating("x", x)
        t = _ours(expand_time(time, x), wanted, given)
        x_t = x / wanted.scale(t)  # in our scale
        own_time = given.time(t).reshape(-1).expand(len(x))
        prediction = network((x_t * given.scale(t)).to(x.dtype), own_time, **cond)
        checks.floating("the network's answer", prediction)
        checks.shaped("the network's answer", prediction, *x.shape)
        return _translate(prediction.to(t.dtype), x_t, t, given, wanted).to(x.dtype)

    return value


def from_sd3(network: Field) -> Field:
    """A network(x, timestep, **cond) of Stable Diffusion 3 as a velocity field of ours."""
    return translated(network, given=SD3, wanted=FLOW_MATCHING)


def to_sd3(v: Field) -> Field:
    """The inverse of `from_sd3`."""
    return translated(v, given=FLOW_MATCHING, wanted=SD3)


def translate_guidance(scale: float, *, given: Guidance, wanted: Guidance) -> float:
    """The guidance scale in `wanted` that does what `scale` does in `given`, c with and u without the condition.

        flowlib        u + w (c - u)          w = 0 unconditional, w = 1 conditional
        imagen         w c + (1 - w) u        the same w: Saharia et al. (2022), eq. 2; MIT 6.S184
        diffusers      u + w (c - u)          the same w, but without guidance (that is w = 1) if w <= 1
        ho-salimans    (1 + w) c - w u        w less by 1: Ho & Salimans (2022), eq. 6

    >>> translate_guidance(6.5, given="ho-salimans", wanted="diffusers")
    7.5
    """
    checks.one_of("given", given, get_args(Guidance))
    checks.one_of("wanted", wanted, get_args(Guidance))
    checks.require(math.isfinite(scale), f"a guidance scale must be finite, got {scale}")
    w = scale + (given == "ho-salimans")
    checks.require(
        w >= 1 or "diffusers" not in (given, wanted),
        f"diffusers turns guidance off, as if guidance_scale were 1, wherever it is below; got {w:g}",
    )
    return w - (wanted == "ho-salimans")


def _translate(prediction: Tensor, x: Tensor, t: Tensor, given: Convention, wanted: Convention) -> Tensor:
    """At x in our scale, in the dtype of t."""
    (c_1, c_0), (d_1, d_0) = given.parts(t), wanted.parts(t)
    D = c_0 * t - c_1 * (1 - t)
    seen = checks.extent(D.abs())
    if seen and seen[0] <= 10 * torch.finfo(t.dtype).eps:
        raise ValueError(
            f"the prediction of {given.name} says nothing of the velocity at our t = {_range(t)}: "
            "it is the state itself there; stop a little earlier"
        )
    velocity = ((c_1 + c_0) * x - prediction) / D
    return (d_1 + d_0) * x - (d_0 * t - d_1 * (1 - t)) * velocity


def _ours(time: Tensor, given: Convention, wanted: Convention) -> Tensor:
    """Our t at a time in `given`, which both conventions must have."""
    _check(given, wanted)
    t = given.our_time(time)
    seen = checks.extent(t)
    for convention in (given, wanted):
        low, high = convention.span
        if seen and not (seen[0] >= low - 1e-6 and seen[1] <= high + 1e-6):  # NaN fails
            ends = convention.time(torch.tensor([low, high], dtype=torch.float64))
            first, last = (round(end, 6) + 0.0 for end in ends.tolist())
            raise ValueError(
                f"{convention.name} has times from {first:g} (noise, our t = {low:.4g}) to {last:g} (data, our t = "
                f"{high:.4g}); got {given.name}'s {_range(time)}, our t = {_range(t)}"
            )
    return t


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The piecewise linear function through points (xs, ys), xs rising; beyond them it goes on in a straight line."""
    i = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    return torch.lerp(ys[i - 1], ys[i], (x - xs[i - 1]) / (xs[i] - xs[i - 1]))


def _range(t: Tensor) -> str:
    low, high = checks.extent(t) or (math.nan, math.nan)
    return f"{low:.4g}" + f" to {high:.4g}" * (low != high)


def _check(given: object, wanted: object) -> None:
    for name, convention in (("given", given), ("wanted", wanted)):
        if not isinstance(convention, Convention):
            raise TypeError(f"{name} must be a Convention, such as DDPM or edm(), got {convention!r}")
