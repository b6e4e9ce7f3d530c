"""What a network may predict: velocity, data, noise or score, each turned into any other (chapters 4, 6 and 10)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from flowlib.fields import Field, expand_time
from flowlib.paths import AffinePath

Prediction = Literal["velocity", "data", "noise", "score"]


def convert(
    prediction: Tensor,
    x: Tensor,
    t: Tensor | float,
    path: AffinePath,
    *,
    given: Prediction,
    wanted: Prediction,
) -> Tensor:
    r"""Turn one prediction about x_t = alpha x_1 + sigma x_0 into another, at the same points and times.

    Each prediction is a known combination of E_1 = E[x_1|x_t = x] and E_0 = E[x_0|x_t = x], and so is x itself:

        x = alpha E_1 + sigma E_0,    velocity = alpha' E_1 + sigma' E_0,    data = E_1,    noise = E_0.

    With x and one of the three known, these are two linear equations for E_1 and E_0, which hold for any coupling of
    x_0 and x_1. The score does not: score = grad log p_t(x) = -E_0 / sigma needs x_0 ~ N(0, I), independent of x_1.

    Written out, with D = alpha' sigma - alpha sigma':

        data     = (sigma velocity - sigma' x) / D        velocity = (sigma' x + D data) / sigma
        noise    = (alpha' x - alpha velocity) / D        velocity = (alpha' x - D noise) / alpha
        score    = (alpha velocity - alpha' x) / (sigma D)

    The formulas are exact and clamp nothing. From a velocity, data and noise are regular where D is not 0: on the
    paths of `flowlib.paths`, on the whole of [0, 1]. All else is singular at an end where the prediction tells nothing
    new: data where sigma = 0 (t = 1), since it is x there; noise and score where alpha = 0 (t = 0), since noise is x
    there. The score is no function of the velocity where sigma = 0. At distance s from such an end, an error in the
    prediction grows as 1/s at most (as 1/s^2 from data to score), if alpha or sigma vanishes like s: see `converted`.

    Args:
        prediction: what is known, (B, *D).
        x: the points x_t at which it was made, (B, *D), of the same dtype.
        t: their times, a scalar or (B,).
        path: gives alpha, sigma and their derivatives.
        given: what `prediction` is: "velocity", "data", "noise" or "score".
        wanted: what to return, one of the same four.

    Returns:
        (B, *D), like x; computed in dtype promote_types(float32, x.dtype).

    Raises:
        ValueError: an unknown kind of prediction, shapes that differ, or a time at which the conversion is singular.
        TypeError: dtypes that differ or are not floating-point, or times in half precision.

    Source: Ma et al. (2024), SiT, section 2; Lipman et al. (2024), Flow Matching Guide and Code, section 4. That
    E_0 = -sigma score is Tweedie's formula (Robbins 1956; Efron 2011).

    >>> from flowlib.paths import linear
    >>> x, velocity = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    >>> convert(velocity, x, 0.25, linear, given="velocity", wanted="data")  # x + (1 - t) v
    tensor([[3.2500]])
    """
    _check_kinds(given, wanted)
    if prediction.shape != x.shape:
        raise ValueError(
            f"prediction and x must have one shape, got {tuple(prediction.shape)} and {tuple(x.shape)}"
        )
    if prediction.dtype != x.dtype or not x.is_floating_point():
        raise TypeError(
            f"prediction and x must have one floating-point dtype, got {prediction.dtype} and {x.dtype}"
        )
    if given == wanted:
        return prediction
    alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, x)
    D = alpha_dot * sigma - alpha * sigma_dot
    at_noise, at_data = _singular_ends(given, wanted)
    for coefficient, name, singular in (
        (alpha, "alpha", at_noise),
        (sigma, "sigma", at_data),
        (D, "alpha' sigma - alpha sigma'", given == "velocity"),
    ):
        # zero up to rounding: cos(pi / 2) is -4e-8 in float32
        if singular and bool((coefficient.abs() <= 10 * torch.finfo(coefficient.dtype).eps).any()):
            raise ValueError(
                f"on the {path.name} path {wanted} cannot be told from {given} at a time where {name} = 0; "
                f"evaluate the prediction a little away from that end, as `converted` does"
            )
    return _convert(prediction, x, t, path, given, wanted)


def converted(
    field: Field, path: AffinePath, *, given: Prediction, wanted: Prediction, margin: float | None = None
) -> Field:
    """The field whose values are those of `field`, turned from one prediction into another: see `convert`.

    At an end where the conversion is singular, the prediction is evaluated `margin` away from the end instead, at
    time t = margin or 1 - margin, and converted there. The truth is smooth in t, so the result misses it by O(margin),
    except that the noise of the variance-preserving path goes as sqrt(1 - t). An error e of the prediction counts as
    e / margin, or e / margin^2 from data to score; the default, the root of the rounding error or its cube root,
    balances the two. A network errs by more than rounding: take 1e-3 to 1e-2.
    Nothing else in flowlib clamps times.

    Args:
        field: what predicts `given`, called as field(x, t, **cond).
        path: the path that it was trained on.
        given: what it predicts: "velocity", "data", "noise" or "score".
        wanted: what the new field returns.
        margin: distance from a singular end, in units of time. If None, sqrt(eps): 3e-4 in float32, 1e-8 in float64;
            from data to score eps^(1/3): 5e-3 and 6e-6.

    Returns:
        a field like any other: the solvers take a velocity made here.

    Raises:
        ValueError: an unknown kind of prediction, or a margin outside (0, 1/2).

    >>> from flowlib.mixtures import GaussianMixture
    >>> from flowlib.paths import linear
    >>> velocity = GaussianMixture([[3.0]], [1.0]).marginal_velocity(linear)
    >>> score = converted(velocity, linear, given="velocity", wanted="score")
    >>> score(torch.tensor([[1.0]]), 0.5), velocity.score(torch.tensor([[1.0]]), 0.5)
    (tensor([[1.]]), tensor([[1.]]))
    """
    _check_kinds(given, wanted)
    if margin is not None and not 0 < margin < 0.5:
        raise ValueError(f"margin must lie between 0 and 1/2, got {margin}")
    at_noise, at_data = _singular_ends(given, wanted)
    power = 1 / 3 if (given, wanted) == ("data", "score") else 1 / 2

    def value(x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        dtype = torch.promote_types(torch.float32, x.dtype)
        away = torch.finfo(dtype).eps ** power if margin is None else margin
        ends = torch.tensor([0.0, 1.0], dtype=dtype)
        alpha, sigma, alpha_dot, sigma_dot = path.coefficients(ends, ends)
        D = alpha_dot * sigma - alpha * sigma_dot
        blind = (D.abs() <= 10 * torch.finfo(dtype).eps) & (given == "velocity")
        low = away if blind[0] or (at_noise and alpha[0] < away) else 0.0
        high = 1 - away if blind[1] or (at_data and sigma[1] < away) else 1.0
        t = t.clamp(low, high) if isinstance(t, Tensor) else min(max(t, low), high)
        return _convert(field(x, t, **cond), x, t, path, given, wanted)

    return value


def from_sd3(network: Field) -> Field:
    """A network in Stable Diffusion 3's convention, as a velocity field in ours.

    SD3 calls the linear path z = (1 - sigma) data + sigma noise, predicts noise - data, and counts time as
    timestep = 1000 sigma. So sigma = 1 - t, timestep = 1000 (1 - t) and v = -v_sd3; x_t is the same.

    Args:
        network: called as network(x, timestep, **cond) with timestep (B,) in [0, 1000], float32 or float64: in
            bfloat16 it is off by up to 2, and so are the radians of a time embedding.

    Returns:
        v(x, t, **cond), like x.

    Source: Esser et al. (2024), section 3, rectified flow; the factor 1000 is that of the published networks.

    >>> v = from_sd3(lambda x, timestep: timestep[:, None] * torch.ones_like(x))
    >>> v(torch.zeros(1, 2), 0.75)
    tensor([[-250., -250.]])
    """

    def v(x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        return -network(x, 1000 * (1 - expand_time(t, x).reshape(-1).expand(len(x))), **cond)

    return v


def to_sd3(v: Field) -> Field:
    """The inverse of `from_sd3`: a velocity field in our convention, as a network(x, timestep, **cond) in SD3's.

    Args:
        v: a velocity field on the linear path.

    Returns:
        network(x, timestep, **cond), like x, for timestep a scalar or (B,).
    """

    def network(x: Tensor, timestep: Tensor | float, **cond: object) -> Tensor:
        return -v(x, 1 - expand_time(timestep, x).reshape(-1).expand(len(x)) / 1000, **cond)

    return network


def _convert(
    prediction: Tensor, x: Tensor, t: Tensor | float, path: AffinePath, given: Prediction, wanted: Prediction
) -> Tensor:
    alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, x)
    p, x = prediction.to(alpha.dtype), x.to(alpha.dtype)  # half precision is converted in float32
    if given == "velocity":
        D = alpha_dot * sigma - alpha * sigma_dot
        E_1, E_0 = (sigma * p - sigma_dot * x) / D, (alpha_dot * x - alpha * p) / D
    elif given == "data":
        E_1, E_0 = p, (x - alpha * p) / sigma
    else:
        E_0 = p if given == "noise" else -sigma * p
        E_1 = (x - sigma * E_0) / alpha  # infinite at alpha = 0, where it is not used
    if wanted == "velocity":
        result = alpha_dot * E_1 + sigma_dot * E_0
    elif wanted == "score":
        result = -E_0 / sigma
    else:
        result = E_1 if wanted == "data" else E_0
    return result.to(prediction.dtype)


def _singular_ends(given: Prediction, wanted: Prediction) -> tuple[bool, bool]:
    """Whether the conversion is singular where alpha = 0, and where sigma = 0."""
    if given == wanted:
        return False, False
    from_noise = given in ("noise", "score")
    return from_noise and wanted in ("velocity", "data"), given == "data" or wanted == "score"


def _check_kinds(given: str, wanted: str) -> None:
    for name, kind in (("given", given), ("wanted", wanted)):
        if kind not in get_args(Prediction):
            raise ValueError(f"{name} must be one of {get_args(Prediction)}, got {kind!r}")
