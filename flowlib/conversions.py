"""What a network may predict: velocity, data, noise or score, each turned into any other (chapters 4, 6 and 10)."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from flowlib import checks
from flowlib.fields import Field
from flowlib.graphs import reaches, require_constant
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

    Derived at eq-conversions. The formulas are exact and clamp nothing. From a velocity, data and noise are regular on
    the whole of [0, 1]. All else is singular at an end where the prediction tells nothing new, and raises ValueError
    there: data where sigma = 0 (t = 1), since it is x there; noise and score where alpha = 0 (t = 0), since noise is x
    there; a score wanted at t = 1. At distance s from such an end, an error in the prediction grows as 1/s at most (as
    1/s^2 from data to score): see `converted`.

    `prediction` and x are (B, *D), t is a scalar or (B,); `given` and `wanted` are "velocity", "data", "noise" or
    "score". The result is like x, computed in float32 at least.

    Source: Ma et al. (2024), SiT, section 2; Lipman et al. (2024), Flow Matching Guide and Code, section 4. That
    E_0 = -sigma score is Tweedie's formula (Robbins 1956; Efron 2011).

    >>> from flowlib.paths import linear
    >>> x, velocity = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    >>> convert(velocity, x, 0.25, linear, given="velocity", wanted="data")  # x + (1 - t) v
    tensor([[3.2500]])
    """
    _check_kinds(given, wanted)
    checks.floating("x", x)
    checks.like("prediction", prediction, "x", x)
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
        seen = checks.extent(coefficient.abs()) if singular else None
        if seen and seen[0] <= 10 * torch.finfo(coefficient.dtype).eps:
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

    `path` is the one that the field was trained on; the margin, if None, is sqrt(eps) in units of time, 3e-4 in float32
    and 1e-8 in float64, and from data to score eps^(1/3), 5e-3 and 6e-6.
    """
    _check_kinds(given, wanted)
    checks.require(margin is None or 0 < margin < 0.5, f"margin must lie between 0 and 1/2, got {margin}")
    at_noise, at_data = _singular_ends(given, wanted)
    power = 1 / 3 if (given, wanted) == ("data", "score") else 1 / 2

    @cache
    def reach(dtype: torch.dtype) -> tuple[float, float]:
        """From when to when the conversion is used."""
        away = torch.finfo(dtype).eps ** power if margin is None else margin
        ends = torch.tensor([0.0, 1.0], dtype=dtype)
        alpha, sigma, alpha_dot, sigma_dot = path.coefficients(ends, ends)
        D = alpha_dot * sigma - alpha * sigma_dot
        blind = (D.abs() <= 10 * torch.finfo(dtype).eps) & (given == "velocity")
        low = away if blind[0] or (at_noise and alpha[0] < away) else 0.0
        high = 1 - away if blind[1] or (at_data and sigma[1] < away) else 1.0
        return low, high

    def value(x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        low, high = reach(torch.promote_types(torch.float32, x.dtype))
        t = t.clamp(low, high) if isinstance(t, Tensor) else min(max(t, low), high)
        prediction = field(x, t, **cond)
        checks.like("the field's answer", prediction, "x", x)
        if torch.is_grad_enabled() and x.requires_grad and not reaches(prediction, x):
            require_constant(
                field, x.detach(), t, prediction.detach(), cond
            )  # else half the result has a graph
        return _convert(prediction, x, t, path, given, wanted)

    return value


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
    checks.one_of("given", given, get_args(Prediction))
    checks.one_of("wanted", wanted, get_args(Prediction))
