"""The exercises of chapter 3, Continuous normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import (
    GradeError,
    Option,
    agree,
    call,
    choice,
    diagnose,
    exercise,
    require_tensor,
)
from flowlib.derivatives import divergence

Field = Callable[[Tensor, Any], Tensor]

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


@exercise(
    "3.3",
    "The adjoint of exponential growth",
    hints=(
        "First the state: x(t) = x₀ exp(k t). Then the adjoint, from the end: a(1) is the derivative of (x - y)²/2 at "
        "x = x(1), and a' = -k a.",
        "a(t) = exp(k (1 - t)) (x(1) - y), so a(0) is the first answer. For the second, ∂v/∂k = x: integrate "
        "a(t) x(t) from 0 to 1.",
        "a(t) x(t) does not depend on t: it equals a(0) x₀. So the pair is (a₀, a₀ x₀) with "
        "a₀ = exp(k) (x₀ exp(k) - y).",
    ),
    insight="a(t) x(t) is the same at all times: what the state gains going forwards, the adjoint gains going back.",
)
def grade_adjoint(gradients: Any) -> None:
    """gradients(k, x_0, y) for dx/dt = k x and L = (x(1) - y)²/2: the pair (dL/dx_0, dL/dk)."""
    signature = "gradients(k, x_0, y)"
    cases = ((0.7, 1.3, -0.4), (-1.1, 0.8, 2.0), (0.4, -1.5, 0.3))
    rows = []
    for case in cases:
        pair = call(gradients, *case, signature=signature)
        try:
            first, second = pair
            rows.append([float(first), float(second)])
        except (TypeError, ValueError):
            raise GradeError(f"{signature} must return two numbers, (dL/dx₀, dL/dk), not {pair!r}") from None
    result = torch.tensor(rows, dtype=torch.float64)
    if not result.isfinite().all():
        raise GradeError(f"{signature} returned NaN or infinity")

    k, x_0, y = torch.tensor(cases, dtype=torch.float64).T
    grown = k.exp()
    miss = x_0 * grown - y
    a_0 = grown * miss
    shrunk = miss / grown  # from a' = +k a

    def pair_of(at_start: Tensor, of_k: Tensor) -> Tensor:
        return torch.stack([at_start, of_k], dim=1)

    right = pair_of(a_0, a_0 * x_0)
    mistakes = [
        (
            "these are the two derivatives in the wrong order: dL/dx₀ comes first, then dL/dk",
            right.flip(1),
        ),
        (
            "the sign of the adjoint equation: a' = -k a, so that going back from t = 1 it is multiplied by exp(k). "
            "Yours is divided by it",
            pair_of(shrunk, shrunk * x_0 * (2 * k).expm1() / (2 * k)),
        ),
        (
            "the sign of the adjoint equation: your dL/dx₀ is exp(-k) (x(1) - y); a' = -k a gives exp(+k)",
            pair_of(shrunk, a_0 * x_0),
        ),
        (
            "this is a(1), the derivative in x(1); carry it back to t = 0 with a' = -k a",
            pair_of(miss, a_0 * x_0),
        ),
        (
            "dL/dk is ∫ a(t) x(t) dt, and here ∂v/∂k = x(t): yours is ∫ a(t) dt, without the state",
            pair_of(a_0, miss * grown.sub(1) / k),
        ),
        (
            "dL/dk is ∫ a(t) x(t) dt: yours keeps one of the two fixed, x at x₀ or a at a(1), and both change with t",
            pair_of(a_0, x_0 * miss * grown.sub(1) / k),
        ),
        (
            "the derivative of (x - y)²/2 is x - y: yours is twice as large",
            2 * right,
        ),
        ("dL/dk has the wrong sign: +∫ a x dt", pair_of(a_0, -a_0 * x_0)),
        ("both have the wrong sign: a(1) is x(1) - y, not y - x(1)", -right),
        (
            "dL/dx₀ is right. For dL/dk you multiplied a(0) by x(1); the product a(t) x(t) takes both at one time",
            pair_of(a_0, a_0 * x_0 * grown),
        ),
        (
            "dL/dx₀ is right. For dL/dk you took a(1) x₀; the product a(t) x(t) takes both at one time",
            pair_of(a_0, miss * x_0),
        ),
        (
            "dL/dx₀ is right. For dL/dk you integrated a(0), without the factor ∂v/∂k = x(t) and at one time only",
            pair_of(a_0, a_0),
        ),
        (
            "a(1) is the derivative of the loss in x(1), which is x(1) - y: yours is the loss itself, (x(1) - y)²/2",
            right * miss[:, None] / 2,
        ),
        (
            "a(1) is the derivative of the loss in x(1), which is x(1) - y: yours is x(1), without the target",
            pair_of(grown * grown * x_0, grown * grown * x_0 * x_0),
        ),
        (
            "the loss compares y with the end x(1) = x₀ exp(k): you compared it with the start x₀",
            pair_of(grown * (x_0 - y), grown * (x_0 - y) * x_0),
        ),
    ]
    otherwise = (
        f"for k = {cases[0][0]}, x₀ = {cases[0][1]}, y = {cases[0][2]} the pair is "
        f"({right[0, 0]:.4f}, {right[0, 1]:.4f}), as finite differences of L would tell you; yours is "
        f"({result[0, 0]:.4f}, {result[0, 1]:.4f})"
    )
    diagnose(result, right, mistakes, otherwise)


def _field(x: Tensor, t: Any) -> Tensor:
    """A field of R^3 that depends on time, with a full Jacobian matrix that is not symmetric, and a trace."""
    u, w, z = x.unbind(1)
    return torch.stack(
        [torch.sin(w + t) + 0.4 * u * z, 0.7 * u - 0.3 * w * w + t * z, torch.cos(u - w) + 0.5 * z * t], dim=1
    )


def _jacobian(x: Tensor, t: float) -> Tensor:
    """The Jacobian matrices of _field by hand, (B, 3, 3): rows are components."""
    u, w, z = x.unbind(1)
    one = torch.ones_like(u)
    rows = [
        [0.4 * z, torch.cos(w + t), 0.4 * u],
        [0.7 * one, -0.6 * w, t * one],
        [-torch.sin(u - w), torch.sin(u - w), 0.5 * t * one],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


@exercise(
    "3.4",
    "A trace from one backward pass",
    hints=(
        "torch.autograd.grad(u, x, grad_outputs=e) computes eᵀ J for all points at once, where J is the Jacobian "
        "matrix of u in x. What is missing to eᵀ J e?",
        "A dot product with e in each row: multiply and sum over dim=1, not over the batch. And x must require "
        "gradients before v is called.",
        "x = x.detach().requires_grad_(); (row,) = torch.autograd.grad(v(x, t), x, noise); "
        "return (row * noise).sum(dim=1).",
    ),
    insight="one backward pass whatever the dimension, where the exact trace takes d of them.",
)
def grade_hutchinson(hutchinson: Any) -> None:
    """hutchinson(v, x, t, noise) = e^T Dv(x) e for each point, (B,), from one call of torch.autograd.grad."""
    signature = "hutchinson(v, x, t, noise)"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=g, dtype=torch.float64)
    noise = torch.randn(6, 3, generator=g, dtype=torch.float64)
    t, passes = 0.3, 0

    def counted(y: Tensor, s: Any) -> Tensor:
        u = _field(y, s)

        def note(_: Tensor) -> None:
            nonlocal passes
            passes += 1

        if u.requires_grad:
            u.register_hook(note)
        return u

    mine = noise.clone()
    result = call(hutchinson, counted, x.clone(), t, mine, signature=signature)
    if not torch.equal(mine, noise):
        raise GradeError(
            "the noise was changed in place; the solver needs the same draw again at its next step"
        )
    J = _jacobian(x, t)
    right = torch.einsum("bi,bij,bj->b", noise, J, noise)
    trace = J.diagonal(dim1=1, dim2=2).sum(1)
    left, ahead = torch.einsum("bi,bij->bj", noise, J), torch.einsum("bij,bj->bi", J, noise)
    if isinstance(result, Tensor) and result.shape == x.shape:
        if agree(result, left):
            raise GradeError(
                "this is eᵀ J, one backward pass, of shape (B, d); the dot product with e is missing"
            )
        if agree(result, left * noise):
            raise GradeError("the sum over the coordinates is missing: (row * noise).sum(dim=1)")
        if agree(result, ahead):
            raise GradeError("this is J e, of shape (B, d); the dot product with e is missing")
    if isinstance(result, Tensor) and result.shape == (6, 6) and agree(result, left @ noise.T):
        raise GradeError(
            "this pairs every point with the noise of every other: row @ noise.T has shape (B, B). Multiply entry by "
            "entry and sum over dim=1"
        )
    if isinstance(result, Tensor) and result.shape == () and agree(result, right.sum()):
        raise GradeError(
            "this is one number for the whole batch: sum over the coordinates, dim=1, and keep the points"
        )
    if isinstance(result, Tensor) and result.shape == () and agree(result, right.mean()):
        raise GradeError(
            "this is one number, the mean over the batch: each point has a divergence of its own, so keep dim 0"
        )
    if isinstance(result, Tensor) and result.shape == (3,) and agree(result, (left * noise).sum(0)):
        raise GradeError("this sums over the points and keeps the coordinates: sum over dim=1, not dim=0")
    result = require_tensor(result, right, signature)
    at_zero = _jacobian(x, 0.0)
    mistakes = [
        (
            "this is the exact trace, for which the noise is not needed; the point of the exercise is to do with one "
            "backward pass",
            trace,
        ),
        (
            "this is eᵀ J 1: the row that autograd returns must be multiplied with the noise, entry by entry",
            left.sum(1),
        ),
        (
            "this is 1ᵀ J e: hand the noise to torch.autograd.grad as grad_outputs, instead of ones (u.sum())",
            torch.einsum("bij,bj->b", J, noise),
        ),
        ("this is the sum of all entries of J: the noise is missing on both sides", J.sum((1, 2))),
        (
            "this is sum_i e_i J_ii: the noise must enter twice, on the left as grad_outputs and on the right",
            (J.diagonal(dim1=1, dim2=2) * noise).sum(1),
        ),
        (
            "this is sum_i e_i² J_ii: only the diagonal, which needs d backward passes; eᵀ J e has the other entries, "
            "and is right on average only",
            (J.diagonal(dim1=1, dim2=2) * noise.square()).sum(1),
        ),
        ("this is eᵀ v, without any derivative", (_field(x, t) * noise).sum(1)),
        (
            "the field is evaluated at t = 0: pass the time t on to v",
            torch.einsum("bi,bij,bj->b", noise, at_zero, noise),
        ),
        ("the sign is wrong: this is -eᵀ J e", -right),
        ("this is the mean over the coordinates; the trace is their sum", right / 3),
    ]
    again = call(hutchinson, _field, x.clone(), t, noise.clone(), signature=signature)
    if not (isinstance(again, Tensor) and again.shape == right.shape and agree(again.detach(), result)):
        raise GradeError(
            "two calls with the same noise differ: use the noise that came in instead of drawing your own, since a "
            "solve needs one draw throughout"
        )
    otherwise = (
        f"at the first point e = ({noise[0, 0]:.3f}, {noise[0, 1]:.3f}, {noise[0, 2]:.3f}) and eᵀ J e = "
        f"{right[0]:.4f}; yours is {result[0]:.4f}"
    )
    diagnose(result, right, mistakes, otherwise)
    if passes > 1:
        raise GradeError(
            f"the number is right, from {passes} backward passes. One is enough: hand e to torch.autograd.grad as "
            "grad_outputs, and multiply what comes back with e"
        )


def _normal(x: Tensor) -> Tensor:
    return -(x.square() + math.log(2 * math.pi)).sum(1) / 2


def _midpoint_back(
    v: Field,
    x: Tensor,
    steps: int,
    *,
    direction: float = -1.0,
    start: float = 1.0,
    at: str = "middle",
    reach: float = 0.5,
    delay: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """x and the integral of div v over [0, 1]; a step reads v again `reach` of the way and `delay` of the time on."""
    h, integral = direction / steps, x.new_zeros(len(x))
    for n in range(steps):
        t = start + n * h
        middle, s = x + reach * h * v(x, t), t + delay * h
        place, when = {
            "middle": (middle, s),
            "before": (x, t),
            "early": (middle, t),
            "after": (x + h * v(middle, s), t + h),
            "untimed": (middle, 0.0),
            "start": (x, s),
        }[at]
        integral = integral + abs(h) * divergence(v, place, when)
        x = x + h * v(middle, s)
    return x, integral


@exercise(
    "3.5",
    "A likelihood from scratch",
    hints=(
        "Two things travel back from (x₁, 0): the point, and the integral of div v. At the end comes log p₀ at the "
        "place x₀ where the point has arrived.",
        "With h = -1/N and t = 1 + n h: middle = x + h/2 v(x, t), then x = x + h v(middle, t + h/2), and the integral "
        "grows by |h| div v(middle, t + h/2).",
        "log p₁(x₁) = log N(x₀; 0, I) - integral, with log N(x; 0, I) = -|x|²/2 - d/2 log(2π).",
    ),
    insight="the position and the log-density in one loop: all of maximum likelihood training is behind it.",
)
def grade_log_likelihood(log_likelihood: Any) -> None:
    """log_likelihood(v, x_1, steps): log p_1 (B,) of the field from N(0, I), by midpoint steps from 1 to 0."""
    signature = "log_likelihood(v, x_1, steps)"
    x_1 = 0.7 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, steps, evaluations = x_1.clone(), 6, 0

    def counted(x: Tensor, t: Any) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return _field(x, t)

    result = call(log_likelihood, counted, mine, steps, signature=signature)
    if not torch.equal(mine, x_1):
        raise GradeError("x_1 was modified in place: write x = x + ..., not x += ...")

    x_0, integral = _midpoint_back(_field, x_1, steps)
    right = _normal(x_0) - integral
    if isinstance(result, Tensor) and result.shape == ():
        raise GradeError(
            f"this is one number for the batch; each of the {len(x_1)} points has a log-density of its own"
        )
    result = require_tensor(result, right, signature)

    ahead, gained = _midpoint_back(_field, x_1, steps, direction=1.0, start=0.0)
    clockless, collected = _midpoint_back(_field, x_1, steps, start=0.0)
    mirrored = _midpoint_back(lambda x, t: _field(x, 1 - t), x_1, steps)
    euler_0, euler_sum = _midpoint_back(_field, x_1, steps, reach=0, delay=0)

    def variant(**how: Any) -> Tensor:
        end, total = _midpoint_back(_field, x_1, steps, **how)
        return _normal(end) - total

    half_log = 3 / 2 * math.log(2 * math.pi)
    mistakes = [
        (
            "the sign on the way back: your divergences are added. The integral of div v over [0, 1] is subtracted "
            "from log p₀(x₀), whichever way you collect it",
            _normal(x_0) + integral,
        ),
        (
            "the divergence is missing: this is log p₀(x₀) alone, the density of the start",
            _normal(x_0),
        ),
        ("log p₀(x₀) is missing: this is minus the integral of div v alone", -integral),
        (
            "this is log p₀(x₀) at the data point x₁: the base law has its say at x₀, after the way back",
            _normal(x_1) - integral,
        ),
        (
            "time runs forwards: you carry x₁ from t = 0 to 1. A data point is at t = 1 and goes back to t = 0",
            _normal(ahead) - gained,
        ),
        (
            "time runs forwards, and the sign of the divergence is flipped with it: x₁ is at t = 1 and goes back",
            _normal(ahead) + gained,
        ),
        (
            "the clock starts at t = 0: the step is negative, but the first velocity belongs to t = 1",
            _normal(clockless) - collected,
        ),
        (
            "the clock runs the wrong way: v is asked at 1 - t, so the first velocity you read belongs to t = 0",
            _normal(mirrored[0]) - mirrored[1],
        ),
        (
            "this is Euler's method, of order 1: read velocity and divergence half a step back",
            _normal(euler_0) - euler_sum,
        ),
        (
            "the divergence is read at the start of each step, which costs an order: read it at the middle, where the "
            "velocity that moves the point comes from",
            variant(at="before"),
        ),
        (
            "the divergence is read at the right time but at the old place: use the middle point",
            variant(at="start"),
        ),
        (
            "the divergence is read at t = 0 throughout: pass the time of the middle to it",
            variant(at="untimed"),
        ),
        (
            "the divergence is read at the middle point but at the time of the step's start: add h/2 to it",
            variant(at="early"),
        ),
        ("the divergence is read at the end of each step: read it at the middle", variant(at="after")),
        (
            "the middle point is half a step away, x + h/2 v(x, t): yours is a whole one, x + h v(x, t)",
            variant(reach=1),
        ),
        (
            "the middle point is on the wrong side of x: h is negative here, and x + h/2 v(x, t) goes back",
            variant(reach=-0.5),
        ),
        ("at the middle point the time is t + h/2: you read v and div v there at t", variant(delay=0)),
        (
            "the clock is one step ahead: the first step starts at t = 1, with n = 0 in t = 1 + n h",
            variant(start=1 - 1 / steps),
        ),
        ("the constant -d/2 log(2π) of N(0, I) is missing", right + half_log),
        (
            "the constant of N(0, I) is -d/2 log(2π), with the dimension d = 3 in it; yours is that of one dimension",
            right + half_log * 2 / 3,
        ),
        ("the constant of N(0, I) has the wrong sign: it is -d/2 log(2π)", right + 2 * half_log),
        ("log N(x; 0, I) has |x|²/2: the half is missing", right - x_0.square().sum(1) / 2),
        (
            "the step's length is missing from the integral: multiply each divergence with 1/N",
            _normal(x_0) - steps * integral,
        ),
        ("this is the density p₁; its logarithm is asked for", right.exp()),
        ("this is the negative log-likelihood; log p₁ itself is asked for", -right),
    ]
    fine = _midpoint_back(_field, x_1, 400)
    truth = _normal(fine[0]) - fine[1]
    otherwise = (
        f"with {steps} midpoint steps the first point has log p₁ = {right[0]:.4f}, and {truth[0]:.4f} in the limit of "
        f"many steps; yours is {result[0]:.4f}"
    )
    try:
        many = log_likelihood(_field, x_1.clone(), 400)
        if isinstance(many, Tensor) and agree(many.detach(), truth, 1e-2):
            otherwise += ". It converges to the right limit, by another method than the midpoint rule"
    except Exception:
        pass
    diagnose(result, right, mistakes, otherwise)
