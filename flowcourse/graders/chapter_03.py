"""The exercises of chapter 3, Continuous normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import (
    Answer,
    Counted,
    GradeError,
    Probe,
    alike,
    from_parts,
    gradient,
    numbers,
    show,
    worst,
)
from flowlib.derivatives import divergence

Field = Callable[[Tensor, Any], Tensor]
LOG_2PI = math.log(2 * math.pi)

choice(
    "3.1",
    "What Hutchinson's estimate estimates",
    "log p₁(x₁) is estimated with one draw of random signs e, held fixed for the whole solve, with eᵀ J e in place of "
    "the trace of J. Which statement is right?",
    Option(
        "The estimate of log p₁ is right on average, and so is its exponential as an estimate of p₁.",
        "The first half is right. But the exponential is convex: by Jensen's inequality the mean of exp(estimate) is "
        "at least exp(mean), and larger as soon as the estimate varies.",
    ),
    Option(
        "The estimate of log p₁ is right on average, and its exponential overestimates p₁ on average.",
        "The trace enters log p₁ linearly, so the mean passes through the integral. It does not pass through the "
        "exponential, which is convex. In the plane the factor is cosh(2 S₁₂) for a constant Jacobian matrix.",
        right=True,
    ),
    Option(
        "The estimate of log p₁ becomes exact as the steps of the solver become short.",
        "Short steps cure the solver's error. One draw e serves all steps, so its error does not average out: it is "
        "eᵀ M e minus the trace of M, with M the integral of J along the trajectory.",
    ),
    Option(
        "The estimate is exact at every draw, since random signs have e_i² = 1.",
        "That makes the diagonal of J exact. Each pair of entries off the diagonal adds (J_ij + J_ji) e_i e_j, "
        "which is zero on average and not at every draw, unless the two cancel.",
    ),
    hints=(
        "Where does the trace enter log p₁: linearly, or through some curved function?",
        "For a random number Z, is the mean of exp(Z) equal to exp of the mean of Z?",
        "Jensen: the mean of exp(Z) is at least exp of the mean. And one draw e is shared by all steps, long or short.",
    ),
)

choice(
    "3.2",
    "What a flow of the plane can do",
    "Which of these maps cannot be the flow at time 1 of any smooth velocity field in the plane, at most linearly "
    "growing?",
    Option(
        "One that exchanges the points (-1, 0) and (1, 0).",
        "Half a turn about the origin does it. On the line it is impossible, since two points would have to meet; in "
        "the plane they can go around each other.",
    ),
    Option(
        "One that takes a hundred given points to a hundred given other points.",
        "In the plane there is always a way around: finitely many points can be led anywhere along paths that do not "
        "meet at equal times. This is why a training set can be sorted even where the whole region cannot.",
    ),
    Option(
        "One that takes the disk |x| < 1/2 to the right of a vertical line, and the whole ring 1 < |x| < 2 to the left "
        "of it.",
        "The image of the disk lies inside the closed curve that is the image of a circle in the ring, and every "
        "half-plane that contains a closed curve contains its inside.",
        right=True,
    ),
    Option(
        "One that stretches some distances by a factor of a million.",
        "A flow with Lipschitz constant L stretches by up to exp(L): L = 14 is enough. It costs a solver many steps, "
        "but no theorem forbids it.",
    ),
    hints=(
        "A flow at time 1 is continuous and has a continuous inverse. What does it keep that these maps may change?",
        "Two points can pass around each other in the plane. Can a disk pass through a ring around it?",
        "The inside of a closed curve stays inside its image. Is there a straight line that separates the two?",
    ),
)


@from_parts
def _adjoint(k: float, x_0: float, y: float) -> dict[str, Any]:
    grown = math.exp(k)
    miss = x_0 * grown - y
    a_0, shrunk = grown * miss, miss / grown  # from a' = -k a, and from a' = +k a
    of_k = a_0 * x_0
    growing = shrunk * x_0 * math.expm1(2 * k) / (2 * k)  # the integral of a x if a' = +k a
    return locals()


CASES = ((0.7, 1.3, -0.4), (-1.1, 0.8, 2.0), (0.4, -1.5, 0.3))


def _adjoint_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at, fits = worst(result, right), [alike(result[:, i], right[:, i]) for i in range(2)]
    which = {
        (True, False): "dL/dx₀ is right, dL/dk is not: ",
        (False, True): "dL/dk is right, dL/dx₀ is not: ",
    }
    k, x_0, y = CASES[at]
    return (
        f"{which.get((fits[0], fits[1]), '')}for k = {k}, x₀ = {x_0}, y = {y} the pair is {show(right[at])}, as finite "
        f"differences of L would tell you; yours is {show(result[at])}"
    )


SIGN = "the sign of the adjoint equation: "

exercise(
    "3.3",
    "The adjoint of exponential growth",
    "gradients(k, x_0, y)",
    Probe(numbers("gradients(k, x_0, y)", CASES, "two numbers, (dL/dx₀, dL/dk)", 2), _adjoint_off),
    right=_adjoint(lambda p: (p.a_0, p.of_k)),
    mistakes=[
        (
            "these are the two derivatives in the wrong order: dL/dx₀ comes first, then dL/dk",
            _adjoint(lambda p: (p.of_k, p.a_0)),
        ),
        (
            f"{SIGN}a' = -k a, so that going back from t = 1 it is multiplied by exp(k). Yours is divided by it",
            _adjoint(lambda p: (p.shrunk, p.growing)),
        ),
        (
            f"{SIGN}your a(0) is exp(-k) (x(1) - y), in both derivatives; a' = -k a gives exp(+k)",
            _adjoint(lambda p: (p.shrunk, p.shrunk * p.x_0)),
        ),
        (
            f"{SIGN}your dL/dx₀ is exp(-k) (x(1) - y); a' = -k a gives exp(+k)",
            _adjoint(lambda p: (p.shrunk, p.of_k)),
        ),
        (
            f"{SIGN}dL/dx₀ is right, but in dL/dk your a(t) grows: a' = -k a, so that a(t) = exp(k (1 - t)) a(1)",
            _adjoint(lambda p: (p.a_0, p.growing)),
        ),
        (
            f"{SIGN}dL/dx₀ is right, but dL/dk has a(0) = exp(-k) (x(1) - y); a' = -k a gives exp(+k)",
            _adjoint(lambda p: (p.a_0, p.shrunk * p.x_0)),
        ),
        (
            f"{SIGN}a' = -k a; and a(1) is x(1) - y, not y - x(1)",
            _adjoint(lambda p: (-p.shrunk, -p.shrunk * p.x_0)),
        ),
        (
            "this is a(1), the derivative in x(1); carry it back to t = 0 with a' = -k a",
            _adjoint(lambda p: (p.miss, p.of_k)),
        ),
        (
            "this is a(1) in both places; carry it back to t = 0 with a' = -k a",
            _adjoint(lambda p: (p.miss, p.miss * p.x_0)),
        ),
        (
            "dL/dk is ∫ a(t) x(t) dt, and here ∂v/∂k = x(t): yours is ∫ a(t) dt, without the state",
            _adjoint(lambda p: (p.a_0, p.miss * math.expm1(p.k) / p.k)),
        ),
        (
            "dL/dk is ∫ a(t) x(t) dt: yours keeps one of the two fixed, x at x₀ or a at a(1), and both change with t",
            _adjoint(lambda p: (p.a_0, p.x_0 * p.miss * math.expm1(p.k) / p.k)),
        ),
        (
            "dL/dk is ∫ a(t) ∂v/∂k dt with ∂v/∂k = x(t): yours has ∂v/∂x = k, which belongs to the adjoint equation",
            _adjoint(lambda p: (p.a_0, p.miss * math.expm1(p.k))),
        ),
        (
            "dL/dk has a factor k too many: v = k x, so ∂v/∂k = x and not k x",
            _adjoint(lambda p: (p.a_0, p.k * p.of_k)),
        ),
        (
            "the derivative of (x - y)²/2 is x - y: yours is twice as large",
            _adjoint(lambda p: (2 * p.a_0, 2 * p.of_k)),
        ),
        ("dL/dk has the wrong sign: +∫ a x dt", _adjoint(lambda p: (p.a_0, -p.of_k))),
        ("both have the wrong sign: a(1) is x(1) - y, not y - x(1)", _adjoint(lambda p: (-p.a_0, -p.of_k))),
        (
            "dL/dx₀ is right. For dL/dk you multiplied a(0) by x(1); the product a(t) x(t) takes both at one time",
            _adjoint(lambda p: (p.a_0, p.of_k * p.grown)),
        ),
        (
            "dL/dx₀ is right. For dL/dk you took a(1) x₀; the product a(t) x(t) takes both at one time",
            _adjoint(lambda p: (p.a_0, p.miss * p.x_0)),
        ),
        (
            "dL/dx₀ is right. For dL/dk you integrated a(0), without the factor ∂v/∂k = x(t) and at one time only",
            _adjoint(lambda p: (p.a_0, p.a_0)),
        ),
        (
            "a(1) is the derivative of the loss in x(1), which is x(1) - y: yours is the loss itself, (x(1) - y)²/2",
            _adjoint(lambda p: (p.a_0 * p.miss / 2, p.of_k * p.miss / 2)),
        ),
        (
            "a(1) is the derivative of the loss in x(1), which is x(1) - y: yours is x(1), without the target",
            _adjoint(lambda p: (p.grown**2 * p.x_0, (p.grown * p.x_0) ** 2)),
        ),
        (
            "the loss compares y with the end x(1) = x₀ exp(k): you compared it with the start x₀",
            _adjoint(lambda p: (p.grown * (p.x_0 - p.y), p.grown * (p.x_0 - p.y) * p.x_0)),
        ),
    ],
    hints=(
        "First the state: x(t) = x₀ exp(k t). Then the adjoint, from the end: a(1) is the derivative of (x - y)²/2 at "
        "x = x(1), and a' = -k a.",
        "a(t) = exp(k (1 - t)) (x(1) - y), so a(0) is the first answer. For the second, ∂v/∂k = x: integrate "
        "a(t) x(t) from 0 to 1.",
        "Multiply the two: how does a(t) x(t) depend on t? Then the integral needs no work.",
    ),
    insight="a(t) x(t) is the same at all times: what the state gains going forwards, the adjoint gains going back.",
)


def _field(x: Tensor, t: Any) -> Tensor:
    """A field of R^3 that depends on time, with a full Jacobian matrix that is not symmetric, and a trace."""
    u, w, z = x.unbind(1)
    return torch.stack(
        [torch.sin(w + t) + 0.4 * u * z, 0.7 * u - 0.3 * w * w + t * z, torch.cos(u - w) + 0.5 * z * t], dim=1
    )


@from_parts
def _hutchinson(v: Field, x: Tensor, t: Any, noise: Tensor) -> dict[str, Any]:
    """What can be made of one velocity and its Jacobian matrices J, (B, d, d) with components in rows."""
    x = x.clone().requires_grad_()
    velocity, each = v(x, t), torch.eye(x.shape[1], dtype=x.dtype)

    def back(e: Tensor) -> Tensor:  # e^T J, (B, d)
        return torch.autograd.grad(velocity, x, e.expand_as(velocity), create_graph=True)[0]

    J = torch.stack([back(e) for e in each], dim=1)
    row, ahead, diagonal = back(noise), torch.einsum("bij,bj->bi", J, noise), J.diagonal(dim1=1, dim2=2)
    right = (row * noise).sum(1)
    return locals()


def _one_pass(v: Field, x: Tensor, t: Any, noise: Tensor) -> Tensor:
    x = x.clone().requires_grad_()  # keeps what x depends on
    (row,) = torch.autograd.grad(v(x, t), x, noise, create_graph=True)  # keeps what v depends on
    return (row * noise).sum(1)


_generator = torch.Generator().manual_seed(0)
PLACES, NOISE = torch.randn(2, 6, 3, generator=_generator, dtype=torch.float64)


def _twice(measure: Callable[[], Any], diagnosis: str) -> Any:
    """What is measured, if a second time it is the same (NaN is for the probe to name)."""
    first, second = measure(), measure()
    if isinstance(first, Tensor) and first.isfinite().all() and not alike(first, second):
        raise GradeError(f"two calls with the same {diagnosis}")
    return first


def _estimate(hutchinson: Answer) -> Any:
    return _twice(
        lambda: hutchinson(Counted(_field), PLACES, 0.3, NOISE),
        "noise differ: use the noise that came in instead of drawing your own, since a solve needs one draw throughout",
    )


UNTRAINABLE = "the value is right, but its gradient in the parameters of v, with which one trains, is not: "
DETACHED = "detached (no_grad, .detach(), .item(), or torch.autograd.grad without create_graph=True)"
CLONE = "write x = x.clone().requires_grad_() instead of x.detach().requires_grad_()"


def _slopes(hutchinson: Answer) -> Tensor:
    """The derivatives of the summed estimate in a parameter of v, and in the points, which training moves as well."""
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x = PLACES.clone().requires_grad_()
    total = hutchinson(lambda x, t: theta * _field(x, t), x, 0.3, NOISE).sum()
    if not total.requires_grad:
        return torch.zeros(1 + x.numel(), dtype=x.dtype)
    slopes = torch.autograd.grad(total, (theta, x), allow_unused=True, materialize_grads=True)
    return torch.cat([slope.reshape(-1) for slope in slopes])


def _passes(hutchinson: Answer) -> Tensor:
    """How many backward passes go through the velocity, at least 1 (differentiation forwards needs none)."""
    calls = passes = 0

    def note(_: Tensor) -> None:
        nonlocal passes
        passes += 1

    def watched(x: Tensor, t: Any) -> Tensor:
        nonlocal calls
        calls, velocity = calls + 1, _field(x, t)
        if velocity.requires_grad:
            velocity.register_hook(note)
        return velocity

    hutchinson(watched, PLACES, 0.3, NOISE)
    if calls > 1:
        raise GradeError(
            f"the number is right, from {calls} evaluations of v: one is enough, and one backward pass"
        )
    return torch.tensor(max(passes, 1))


exercise(
    "3.4",
    "A trace from one backward pass",
    "hutchinson(v, x, t, noise)",
    Probe(
        _estimate,
        lambda result, right, _: (
            f"at the point {show(PLACES[worst(result, right)])}, where e = {show(NOISE[worst(result, right)])}, "
            f"eᵀ J e = {right[worst(result, right)]:.4f}; yours is {result[worst(result, right)]:.4f}"
        ),
    ),
    Probe(
        _passes,
        lambda passes, *_: (
            f"the number is right, from {passes} backward passes. One is enough: hand e to torch.autograd.grad as "
            "grad_outputs, and multiply what comes back with e"
        ),
    ),
    Probe(_slopes, f"{UNTRAINABLE}something on the way is {DETACHED}"),
    right=_one_pass,
    mistakes=[
        (
            "this is eᵀ J, one backward pass, of shape (B, d); the dot product with e is missing",
            _hutchinson(lambda p: p.row),
        ),
        (
            "the sum over the coordinates is missing: (row * noise).sum(dim=1)",
            _hutchinson(lambda p: p.row * p.noise),
        ),
        ("this is J e, of shape (B, d); the dot product with e is missing", _hutchinson(lambda p: p.ahead)),
        (
            "this pairs every point with the noise of every other: row @ noise.T has shape (B, B). Multiply entry by "
            "entry and sum over dim=1",
            _hutchinson(lambda p: p.row @ p.noise.T),
        ),
        (
            "this is one number for the whole batch: sum over the coordinates, dim=1, and keep the points",
            _hutchinson(lambda p: p.right.sum()),
        ),
        (
            "this is one number, the mean over the batch: each point has a divergence of its own, so keep dim 0",
            _hutchinson(lambda p: p.right.mean()),
        ),
        (
            "this sums over the points and keeps the coordinates: sum over dim=1, not dim=0",
            _hutchinson(lambda p: (p.row * p.noise).sum(0)),
        ),
        (
            "this is the exact trace, for which the noise is not needed; the point of the exercise is to do with one "
            "backward pass",
            _hutchinson(lambda p: p.diagonal.sum(1)),
        ),
        (
            "this is eᵀ J 1: the row that autograd returns must be multiplied with the noise, entry by entry",
            _hutchinson(lambda p: p.row.sum(1)),
        ),
        (
            "this is 1ᵀ J e: hand the noise to torch.autograd.grad as grad_outputs, instead of ones (u.sum())",
            _hutchinson(lambda p: p.ahead.sum(1)),
        ),
        (
            "this is the sum of all entries of J: the noise is missing on both sides",
            _hutchinson(lambda p: p.J.sum((1, 2))),
        ),
        (
            "this is sum_i e_i J_ii: the noise must enter twice, on the left as grad_outputs and on the right",
            _hutchinson(lambda p: (p.diagonal * p.noise).sum(1)),
        ),
        (
            "this is sum_i e_i² J_ii: only the diagonal, which needs d backward passes; eᵀ J e has the other entries, "
            "and is right on average only",
            _hutchinson(lambda p: (p.diagonal * p.noise.square()).sum(1)),
        ),
        (
            "this is |J e|² or |eᵀ J|², a square: multiply the row with e, not with itself",
            _hutchinson(lambda p: p.row.square().sum(1)),
        ),
        (
            "eᵀ J e is divided by |e|²: its mean is the trace as it is, since the entries of e have variance 1",
            _hutchinson(lambda p: p.right / p.noise.square().sum(1)),
        ),
        ("this is eᵀ v, without any derivative", _hutchinson(lambda p: (p.velocity * p.noise).sum(1))),
        (
            "the field is evaluated at t = 0: pass the time t on to v",
            lambda v, x, t, noise: _one_pass(v, x, 0.0, noise),
        ),
        ("the sign is wrong: this is -eᵀ J e", _hutchinson(lambda p: -p.right)),
        ("this is the mean over the coordinates; the trace is their sum", _hutchinson(lambda p: p.right / 3)),
        (
            "the number is right, from 4 backward passes. One is enough: hand e to torch.autograd.grad as "
            "grad_outputs, and multiply what comes back with e",
            _hutchinson(lambda p: p.right),
        ),
        (
            f"{UNTRAINABLE}it is {DETACHED}. Keep the graph with create_graph=True; and {CLONE}",
            lambda v, x, t, noise: _one_pass(v, x, t, noise).detach(),
        ),
        (
            f"{UNTRAINABLE}it sees the parameters of v, but not that the place x depends on them as well: {CLONE}",
            lambda v, x, t, noise: _one_pass(v, x.detach(), t, noise),
        ),
    ],
    hints=(
        "torch.autograd.grad(u, x, grad_outputs=e) computes eᵀ J for all points at once, where J is the Jacobian "
        "matrix of u in x. What is missing to eᵀ J e?",
        "A dot product with e in each row: multiply and sum over dim=1, not over the batch. And x must require "
        "gradients before v is called.",
        "To train with it, the result must keep its graph: clone x instead of detaching it, and ask "
        "torch.autograd.grad for create_graph=True.",
    ),
    insight="one backward pass whatever the dimension, where the exact trace takes d of them.",
)


# 3.5 A midpoint solver with a place for every common mistake.


def _log_normal(x: Tensor) -> Tensor:
    return -(x.square() + LOG_2PI).sum(1) / 2


def _likelihood(
    finish: Callable[[Tensor, Tensor, Tensor], Any] = lambda x_0, integral, x_1: _log_normal(x_0) - integral,
    *,
    spread: Callable[[Field, Tensor, Any], Tensor] = divergence,
    field: Callable[[Field], Field] = lambda v: v,
    direction: float = -1.0,
    start: Callable[[float], float] = lambda h: 1.0,
    count: Callable[[int], int] = lambda n: n,
    intervals: Callable[[int], int] = lambda n: n,
    at: str = "middle",
    reach: float = 0.5,
    delay: float = 0.5,
    departs: str = "start",
) -> Answer:
    """A log-likelihood; a step reads v again `reach` of the way and `delay` of the time on, and div v at `at`."""

    def log_likelihood(v: Field, x_1: Tensor, steps: int) -> Any:
        v, h, x, integral = field(v), direction / intervals(steps), x_1, x_1.new_zeros(len(x_1))
        for n in range(count(steps)):
            t = start(h) + n * h
            middle, s = x + reach * h * v(x, t), t + delay * h
            place, when = {
                "middle": (middle, s),
                "before": (x, t),
                "early": (middle, t),
                "after": (x + h * v(middle, s), t + h),
                "moved": (x + h * v(middle, s), s),
                "untimed": (middle, 0.0),
                "start": (x, s),
            }[at]
            integral = integral + abs(h) * spread(v, place, when)
            x = (middle if departs == "middle" else x) + h * v(middle, s)
        return finish(x, integral, x_1)

    return log_likelihood


X_1 = 0.7 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STEPS = 6


def _log_p(log_likelihood: Answer) -> Any:
    result = _twice(
        lambda: log_likelihood(Counted(_field), X_1, STEPS),
        "points differ: take the exact divergence, not an estimate from random noise",
    )
    if isinstance(result, Tensor) and result.shape == ():
        raise GradeError(
            f"this is one number for the batch; each of the {len(X_1)} points has a log-density of its own"
        )
    return result


@cache
def _limit() -> Tensor:
    return _likelihood()(_field, X_1, 400)


def _log_p_off(result: Tensor, right: Tensor, log_likelihood: Answer) -> str:
    for n in (*range(1, 16), 20, 50, 100):
        if alike(result, _likelihood()(_field, X_1, n)):
            return (
                f"this is right for {n} midpoint steps, and {STEPS} were asked for: use the argument `steps`"
            )
    at, truth = worst(result, right), _limit()
    told = (
        f"with {STEPS} midpoint steps the point {show(X_1[at])} has log p₁ = {right[at]:.4f}, and {truth[at]:.4f} in "
        f"the limit of many steps; yours is {result[at]:.4f}"
    )
    try:
        many = log_likelihood(_field, X_1, 400)
    except GradeError:
        return told
    if alike(many, truth, 1e-2):
        return f"{told}. It converges to the right limit, by another method than the midpoint rule"
    return told


def _slope(log_likelihood: Answer) -> Tensor:
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    result = log_likelihood(lambda x, t: theta * _field(x, t), X_1, STEPS)
    return gradient(result.sum(), theta)


exercise(
    "3.5",
    "A likelihood from scratch",
    "log_likelihood(v, x_1, steps)",
    Probe(_log_p, _log_p_off),
    Probe(
        lambda log_likelihood: log_likelihood(Counted(_field), X_1, 4),
        f"right for {STEPS} steps and wrong for 4: use the argument `steps` throughout",
    ),
    Probe(
        _slope,
        f"{UNTRAINABLE}something on the way is {DETACHED}",
    ),
    right=_likelihood(),
    mistakes=[
        (
            "the sign on the way back: your divergences are added. The integral of div v over [0, 1] is subtracted "
            "from log p₀(x₀), whichever way you collect it",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) + integral),
        ),
        (
            "the divergence is missing: this is log p₀(x₀) alone, the density of the start",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0)),
        ),
        (
            "log p₀(x₀) is missing: this is minus the integral of div v alone",
            _likelihood(lambda x_0, integral, x_1: -integral),
        ),
        (
            "this is log p₀(x₀) at the data point x₁: the base law has its say at x₀, after the way back",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_1) - integral),
        ),
        (
            "time runs forwards: you carry x₁ from t = 0 to 1. A data point is at t = 1 and goes back to t = 0",
            _likelihood(direction=1.0, start=lambda h: 0.0),
        ),
        (
            "time runs forwards, and the sign of the divergence is flipped with it: x₁ is at t = 1 and goes back",
            _likelihood(
                lambda x_0, integral, x_1: _log_normal(x_0) + integral, direction=1.0, start=lambda h: 0.0
            ),
        ),
        (
            "the clock runs from t = 1 back to 0, but the points go forwards: on the way back a step is "
            "x - v(middle, ...)/N",
            _likelihood(field=lambda v: lambda x, t: v(x, 1 - t), direction=1.0, start=lambda h: 0.0),
        ),
        (
            "the clock starts at t = 0: the step is negative, but the first velocity belongs to t = 1",
            _likelihood(start=lambda h: 0.0),
        ),
        (
            "the clock runs the wrong way: v is asked at 1 - t, so the first velocity you read belongs to t = 0",
            _likelihood(field=lambda v: lambda x, t: v(x, 1 - t)),
        ),
        (
            "this is Euler's method, of order 1: read velocity and divergence half a step back",
            _likelihood(reach=0, delay=0),
        ),
        (
            "the divergence is read at the start of each step, which costs an order: read it at the middle, where the "
            "velocity that moves the point comes from",
            _likelihood(at="before"),
        ),
        (
            "the divergence is read at the right time but at the old place: use the middle point",
            _likelihood(at="start"),
        ),
        (
            "the divergence is read at t = 0 throughout: pass the time of the middle to it",
            _likelihood(at="untimed"),
        ),
        (
            "the divergence is read at the middle point but at the time of the step's start: add h/2 to it",
            _likelihood(at="early"),
        ),
        ("the divergence is read at the end of each step: read it at the middle", _likelihood(at="after")),
        (
            "the divergence is read where the step ends, though at the time of its middle: read it at the middle "
            "point, before x is moved",
            _likelihood(at="moved"),
        ),
        (
            "the whole step departs from the middle point, so that the points go one and a half: x + h v(middle, ...), "
            "from x itself",
            _likelihood(departs="middle"),
        ),
        (
            "the middle point is half a step away, x + h/2 v(x, t): yours is a whole one, x + h v(x, t)",
            _likelihood(reach=1),
        ),
        (
            "the middle point is on the wrong side of x: h is negative here, and x + h/2 v(x, t) goes back",
            _likelihood(reach=-0.5),
        ),
        ("at the middle point the time is t + h/2: you read v and div v there at t", _likelihood(delay=0)),
        (
            "the time of the middle is on the wrong side of t: half a step back it is t - 1/(2N), yours is t + 1/(2N)",
            _likelihood(delay=-0.5),
        ),
        (
            "the clock is one step ahead: the first step starts at t = 1, with n = 0 in t = 1 + n h",
            _likelihood(start=lambda h: 1 + h),
        ),
        (
            "off by one: N + 1 steps of length 1/N go back beyond t = 0",
            _likelihood(count=lambda n: n + 1),
        ),
        ("off by one: N - 1 steps of length 1/N end before t = 0", _likelihood(count=lambda n: n - 1)),
        (
            "off by one: linspace(1, 0, N) has N - 1 intervals; N steps need N + 1 times",
            _likelihood(count=lambda n: n - 1, intervals=lambda n: n - 1),
        ),
        (
            "off by one: these are N + 1 shorter steps; N steps need N + 1 times, and so N intervals",
            _likelihood(count=lambda n: n + 1, intervals=lambda n: n + 1),
        ),
        (
            "the constant -d/2 log(2π) of N(0, I) is missing",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) - integral + 3 / 2 * LOG_2PI),
        ),
        (
            "the constant of N(0, I) is -d/2 log(2π), with the dimension d = 3 in it; yours is that of one dimension",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) - integral + LOG_2PI),
        ),
        (
            "the constant of N(0, I) has the wrong sign: it is -d/2 log(2π)",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) - integral + 3 * LOG_2PI),
        ),
        (
            "log N(x; 0, I) has |x|²/2: the half is missing",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) - integral - x_0.square().sum(1) / 2),
        ),
        (
            "log N(x; 0, I) is the sum over the coordinates: yours is their mean",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) / 3 - integral),
        ),
        (
            "the divergences of all points are added up: each point has one of its own, so keep dim 0",
            _likelihood(spread=lambda v, x, t: divergence(v, x, t).sum()),
        ),
        (
            "the step's length is missing from the integral: multiply each divergence with 1/N",
            _likelihood(lambda x_0, integral, x_1: _log_normal(x_0) - STEPS * integral),
        ),
        (
            "this is the density p₁; its logarithm is asked for",
            _likelihood(lambda x_0, integral, x_1: (_log_normal(x_0) - integral).exp()),
        ),
        (
            "this is the negative log-likelihood; log p₁ itself is asked for",
            _likelihood(lambda x_0, integral, x_1: integral - _log_normal(x_0)),
        ),
        (
            f"{UNTRAINABLE}the divergence is detached, and training would follow the positions alone. "
            f"torch.autograd.grad keeps what it returns differentiable with create_graph=True; and {CLONE}",
            _likelihood(spread=lambda v, x, t: divergence(v, x, t).detach()),
        ),
        (
            f"{UNTRAINABLE}the divergence sees the parameters of v, but not that the place where it is read depends on "
            f"them as well: {CLONE}",
            _likelihood(spread=lambda v, x, t: divergence(v, x.detach(), t)),
        ),
    ],
    hints=(
        "Two things travel back from (x₁, 0): the point, and the integral of div v. At the end comes log p₀ at the "
        "place x₀ where the point has arrived.",
        "With h = -1/N and t = 1 + n h: middle = x + h/2 v(x, t), then x = x + h v(middle, t + h/2), and the integral "
        "grows by |h| div v(middle, t + h/2).",
        "log p₁(x₁) = log N(x₀; 0, I) - integral, with log N(x; 0, I) = -|x|²/2 - d/2 log(2π).",
    ),
    insight="the position and the log-density in one loop: all of maximum likelihood training is behind it.",
)
