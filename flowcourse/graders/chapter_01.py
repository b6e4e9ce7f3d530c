"""The exercises of chapter 1, Flows and vector fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import (
    START,
    Answer,
    Counted,
    GradeError,
    Probe,
    alike,
    from_parts,
    numbers,
    on,
    require,
    show,
    swirl,
    worst,
)
from flowlib.solvers import RK4, odeint

Field = Callable[[Tensor, Any], Tensor]

choice(
    "1.1",
    "Can trajectories cross?",
    "Two particles follow the same velocity field v(x, t), Lipschitz in x and changing with time. They start at t = 0 "
    "at different points of the plane. Which statement is right?",
    Option(
        "Their paths, drawn in the plane, never share a point.",
        "That holds in space-time, not in the plane. A field that changes with time can send one particle through a "
        "point at noon and another one, in another direction, through the same point an hour later.",
    ),
    Option(
        "They can pass through the same point of the plane, but never at the same time.",
        "Uniqueness is about a point and a time together: the curves (t, x(t)) never meet, while their shadows on the "
        "plane may cross as they please.",
        right=True,
    ),
    Option(
        "They can meet at some time and part again, as long as their velocities differ.",
        "If they meet at time t, both solve the same equation from the same point at the same time. The solution is "
        "unique, forwards and backwards, so they would have been one particle all along.",
    ),
    Option(
        "They can merge at t = 1, as when a flow gathers all its particles in one point.",
        "Started from the merged point and run backwards, the equation would have two solutions. A Lipschitz field can "
        "bring particles as close as you like by t = 1, never together.",
    ),
    hints=(
        "Uniqueness says: one solution through each starting point. What counts as a starting point if v depends on t?",
        "Picture the curves (t, x(t)) in three dimensions, time pointing up. Which crossings are forbidden there?",
        "Looking down the time axis, two curves at different heights may appear to cross.",
    ),
)

choice(
    "1.2",
    "The velocity of a flow",
    "The flow φₜ(x₀) = x₀ exp(t²/2) moves points of the line. Which velocity field vₜ(x) generates it?",
    Option(
        "vₜ(x) = t x",
        "d/dt φₜ(x₀) = t x₀ exp(t²/2) = t φₜ(x₀), and φₜ(x₀) is where the particle is: the velocity at x is t x.",
        right=True,
    ),
    Option(
        "vₜ(x) = 0",
        "This is the derivative at t = 0, where the flow starts at rest. The velocity at time t is the derivative at "
        "time t: nothing would ever move in your field, while φ₁ stretches the line by exp(1/2).",
    ),
    Option(
        "vₜ(x) = t x exp(t²/2)",
        "The derivative is right, but as a function of where the particle started. A velocity field asks where it is "
        "now: substitute x₀ = x exp(-t²/2).",
    ),
    Option(
        "vₜ(x) = exp(t²/2)",
        "This is the derivative with respect to the starting point x₀, the factor by which lengths stretch. The "
        "velocity is the derivative with respect to time.",
    ),
    hints=(
        "A flow and its field are tied by d/dt φₜ(x₀) = vₜ(φₜ(x₀)), at every t and not only at t = 0.",
        "Differentiate x₀ exp(t²/2) with respect to t and keep x₀ fixed.",
        "The derivative is t · x₀ exp(t²/2). Which part of it is the particle's position at time t?",
    ),
)


TIMES = torch.tensor([0.0, 0.4, 1.0, 2.0, 4.0], dtype=torch.float64)


def _variance_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    start = (
        "at t = 0 nothing has moved, so the variance must still be 1; " if abs(result[0] - 1) > 1e-6 else ""
    )
    return (
        f"{start}your variance({TIMES[at]:g}) is {result[at]:.4f}, and the true value is {right[at]:.3f}; check that "
        "V' = 2 cos(t) V holds for your function"
    )


exercise(
    "1.3",
    "The variance that a field makes",
    "variance(t)",
    Probe(numbers("variance(t)", [(t,) for t in TIMES]), _variance_off),
    right=lambda t: (2 * t.sin()).exp(),
    mistakes=[
        (
            "this is the standard deviation exp(sin t); the variance is its square, with a factor 2 in the exponent",
            lambda t: t.sin().exp(),
        ),
        (
            "the flow is not exp(t cos t): cos changes on the way, and its integral from 0 to t counts",
            lambda t: (2 * t * t.cos()).exp(),
        ),
        (
            "the flow is not exp(t cos t) but exp of the integral of cos; and the variance squares it",
            lambda t: (t * t.cos()).exp(),
        ),
        (
            "this is exp(2 cos t); the exponent needs the integral of cos from 0 to t, not cos itself",
            lambda t: (2 * t.cos()).exp(),
        ),
        (
            "time runs backwards: your cloud shrinks while cos t > 0 pushes points outwards",
            lambda t: (-2 * t.sin()).exp(),
        ),
        ("the integral of cos is sin; you integrated sin", lambda t: (2 * (1 - t.cos())).exp()),
        ("this is the logarithm of the variance", lambda t: 2 * t.sin()),
        ("at t = 0 the variance is 1, not 0: X₀ is N(0, 1)", lambda t: (2 * t.sin()).expm1()),
        (
            "1 + 2 sin t is the exponential to first order; V' = 2 cos(t) V has an exact solution",
            lambda t: 1 + 2 * t.sin(),
        ),
        ("this is the variance for the field v(x) = x; here it is cos(t) x", lambda t: (2 * t).exp()),
        (
            "the variance is squared once too often: m = exp(sin t) multiplies X₀, and the variance by m²",
            lambda t: (4 * t.sin()).exp(),
        ),
        (
            "this moves X₀ with the velocity cos(t) X₀ of the place where it started; the velocity of the place where "
            "it is, cos(t) Xₜ, counts",
            lambda t: (1 + t.sin()) ** 2,
        ),
        (
            "cos² t is the variance of cos(t) X₀, a velocity; that of the place Xₜ is asked for",
            lambda t: t.cos() ** 2,
        ),
    ],
    hints=(
        "The field is linear, so the flow multiplies: Xₜ = m(t) X₀. Which equation does m solve?",
        "m' = cos(t) m with m(0) = 1, so log m is the integral of cos from 0 to t.",
        "With that integral you have m. The variance of m X₀ is m² times the variance of X₀.",
    ),
    insight="log Var Xₜ is twice the integral of cos, 2 sin t: the cloud breathes, and is N(0, 1) again at t = π.",
)


# 1.4 The wrong solvers are each the most common way to get one thing wrong.


Step = Callable[[Field, Tensor, float, float], Tensor]  # (v, x, t, h) -> x after one step


def _midpoint(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def _euler(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * v(x, t)


def _solver(
    step: Step = _midpoint,
    field: Callable[[Field, float, float], Field] = lambda v, t0, t1: v,
    h: Callable[[float, float, int], float] = lambda t0, t1, n: (t1 - t0) / n,
    count: Callable[[int], int] = lambda n: n,
    start: Callable[[float, float], float] = lambda t0, t1: t0,
) -> Answer:
    """A flow map: what the field is asked, the length and the number of the steps, and where the clock starts."""

    def flow_map(v: Field, x: Tensor, t0: float, t1: float, steps: int) -> Tensor:
        asked, length = field(v, t0, t1), h(t0, t1, steps)
        for n in range(count(steps)):
            x = step(asked, x, start(t0, t1) + n * length, length)
        return x

    return flow_map


def _forwards_only(v: Field, x: Tensor, t0: float, t1: float, steps: int) -> Tensor:
    return _solver()(v, x, t0, t1, steps) if t0 < t1 else x


def _without_sign(v: Field, x: Tensor, t0: float, t1: float, steps: int) -> Tensor:
    return _solver()(v, x, t0, t0 + abs(t1 - t0), steps)


def _wasteful(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    v(x, t)
    return _midpoint(v, x, t, h)


FROZEN = (
    "every step uses the velocity of time t0, as if the field stood still: vₜ is the derivative at time t, so v must "
    "be given the current time"
)
BACKWARDS = "time runs backwards: "
ONE_WAY = (
    "The inverse flow is the same loop with a negative step; a loop such as `while t < t1`, or abs(t1 - t0), breaks "
    "it"
)


def _travel(t0: float, t1: float, steps: int) -> Callable[[Answer], Any]:
    def measure(flow_map: Answer) -> Any:
        result = flow_map(Counted(swirl), START, t0, t1, steps)
        if isinstance(result, list | tuple) or (isinstance(result, Tensor) and result.ndim == START.ndim + 1):
            raise GradeError(
                "this returns the whole trajectory; the flow map is the end point alone, of the shape of x"
            )
        return result

    return measure


def _evaluations(flow_map: Answer, steps: int = 4) -> Tensor:
    v = Counted(swirl)
    flow_map(v, START, 0.2, 1.1, steps)
    return torch.tensor(v.calls)


def _travel_off(result: Tensor, right: Tensor, flow_map: Answer) -> str:
    at = worst(result, right)
    return (
        f"after 4 steps from t = 0.2 to 1.1 the point {show(START[at])} should be at {show(right[at])}; yours is at "
        f"{show(result[at])}, with {_evaluations(flow_map)} evaluations of v, where the midpoint rule makes 8. "
        f"{_order(flow_map)}"
    )


def _order(flow_map: Answer) -> str:
    """What halving the step does to the error of an unknown method, as a sentence."""
    truth = odeint(swirl, START, t0=0.2, t1=1.1, steps=1000, method=RK4)
    try:
        coarse, fine = ((flow_map(swirl, START, 0.2, 1.1, n) - truth).abs().max().item() for n in (64, 128))
    except Exception:
        return ""
    if not (math.isfinite(coarse) and math.isfinite(fine)) or fine > 0.7 * coarse:
        return "More steps do not bring it nearer to the true end point: it solves another equation."
    if fine < 1e-12:
        return ""
    return f"It does converge, with observed order {math.log2(coarse / fine):.1f}; the midpoint rule has order 2."


exercise(
    "1.4",
    "A flow map from scratch",
    "flow_map(v, x, t0, t1, steps)",
    Probe(_travel(0.2, 1.1, 4), _travel_off),
    Probe(_travel(1.1, 0.1, 5), f"forwards it works, but for t1 < t0 it fails. {ONE_WAY}"),
    Probe(
        _evaluations,
        lambda result, right, _: (
            f"the result is right, with {result} evaluations of v in 4 steps. Two a step are enough: keep what "
            "v(x, t) returned and use it again"
        ),
    ),
    right=_solver(),
    mistakes=[
        (
            "order 1 instead of 2: this is Euler's rule; look up the velocity half a step ahead",
            _solver(_euler),
        ),
        (
            "this is Heun's rule, also of order 2; the midpoint rule looks up its second velocity at t + h/2",
            _solver(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h))),
        ),
        (
            "only half a step: the midpoint is where you look the velocity up; the whole step h then starts again from "
            "x",
            _solver(lambda v, x, t, h: x + h / 2 * v(x, t)),
        ),
        (
            "only half a step: h/2 takes you to the midpoint, and the velocity found there acts for the whole of h",
            _solver(lambda v, x, t, h: x + h / 2 * v(x + h / 2 * v(x, t), t + h / 2)),
        ),
        (
            "the whole step starts again from x: yours starts from the midpoint and travels a step and a half",
            _solver(lambda v, x, t, h: x + h / 2 * v(x, t) + h * v(x + h / 2 * v(x, t), t + h / 2)),
        ),
        (
            "the second velocity belongs to time t + h/2, not to t: this costs an order when the field depends on time",
            _solver(lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t)),
        ),
        (
            "the second velocity belongs to the point half a step ahead, not to x",
            _solver(lambda v, x, t, h: x + h * v(x, t + h / 2)),
        ),
        (
            "the midpoint is half a step away: yours looks the second velocity up a whole step ahead",
            _solver(lambda v, x, t, h: x + h * v(x + h * v(x, t), t + h)),
        ),
        (
            "the place is half a step away and the time t + h/2: yours goes half a step in space and a whole one in "
            "time",
            _solver(lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t + h)),
        ),
        (
            "the place is x + h/2 v, half a step away: yours goes a whole step in space, and half a one in time",
            _solver(lambda v, x, t, h: x + h * v(x + h * v(x, t), t + h / 2)),
        ),
        (
            "the midpoint lies ahead, at x + h/2 v, not at x - h/2 v",
            _solver(lambda v, x, t, h: x + h * v(x - h / 2 * v(x, t), t + h / 2)),
        ),
        (
            "the midpoint is x + h/2 v: the h is missing, so you look half a unit of time ahead at every step length",
            _solver(lambda v, x, t, h: x + h * v(x + v(x, t) / 2, t + h / 2)),
        ),
        (
            "the second velocity belongs to time t + h/2, half a step ahead, not to t + 1/2",
            _solver(lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t + 0.5)),
        ),
        (
            "a step is the velocity times its length h: the h is missing in the move from x",
            _solver(lambda v, x, t, h: x + v(x + h / 2 * v(x, t), t + h / 2)),
        ),
        (FROZEN, _solver(field=lambda v, t0, t1: lambda y, t: v(y, t0))),
        (
            f"{FROZEN} (and the rule is Euler's, of order 1)",
            _solver(_euler, field=lambda v, t0, t1: lambda y, t: v(y, t0)),
        ),
        (
            f"{BACKWARDS}your step is (t0 - t1) / N, so particles leave t0 in the wrong direction",
            _solver(h=lambda t0, t1, n: (t0 - t1) / n),
        ),
        (
            f"{BACKWARDS}you integrate from t1 to t0",
            _solver(h=lambda t0, t1, n: (t0 - t1) / n, start=lambda t0, t1: t1),
        ),
        (
            f"{BACKWARDS}v is asked at t1 first and at t0 last",
            _solver(field=lambda v, t0, t1: lambda y, t: v(y, t0 + t1 - t)),
        ),
        (
            f"{BACKWARDS}the sign of the velocity is flipped",
            _solver(field=lambda v, t0, t1: lambda y, t: -v(y, t)),
        ),
        (
            "off by one: N + 1 steps of length (t1 - t0) / N end one step after t1",
            _solver(count=lambda n: n + 1),
        ),
        (
            "off by one: N - 1 steps of length (t1 - t0) / N end one step before t1",
            _solver(count=lambda n: n - 1),
        ),
        (
            "off by one: linspace(t0, t1, N) has N - 1 intervals; N steps need N + 1 times",
            _solver(h=lambda t0, t1, n: (t1 - t0) / (n - 1), count=lambda n: n - 1),
        ),
        (
            "off by one: these are N + 1 shorter steps; N steps need N + 1 times, and so N intervals",
            _solver(h=lambda t0, t1, n: (t1 - t0) / (n + 1), count=lambda n: n + 1),
        ),
        (
            "off by one: N steps of length (t1 - t0) / (N - 1) overshoot t1",
            _solver(h=lambda t0, t1, n: (t1 - t0) / (n - 1)),
        ),
        (
            "the clock is one step ahead: the first step starts at t0, with n = 0 in t = t0 + n h",
            _solver(lambda v, x, t, h: _midpoint(v, x, t + h, h)),
        ),
        (
            "the step is (t1 - t0) / N: yours is t1 / N, right for t0 = 0 only",
            _solver(h=lambda t0, t1, n: t1 / n),
        ),
        (
            "the step is (t1 - t0) / N: yours is 1 / N, right from 0 to 1 only",
            _solver(h=lambda t0, t1, n: 1 / n),
        ),
        ("the clock starts at t0: yours starts at 0", _solver(start=lambda t0, t1: 0.0)),
        ("only one step of the N is made: is `return` inside the loop?", _solver(count=lambda n: 1)),
        ("nothing moved: this is x itself", lambda v, x, t0, t1, steps: x),
        (
            f"forwards it works, but for t1 < t0 it fails: the points do not move at all. {ONE_WAY}",
            _forwards_only,
        ),
        (f"forwards it works, but for t1 < t0 it fails. {ONE_WAY}", _without_sign),
        (
            "the result is right, with 12 evaluations of v in 4 steps. Two a step are enough: keep what v(x, t) "
            "returned and use it again",
            _solver(_wasteful),
        ),
    ],
    hints=(
        "Cut [t0, t1] into `steps` equal pieces of length h = (t1 - t0) / steps and keep the current time beside x.",
        "One midpoint step: walk half a step with v(x, t), look up the velocity there, at t + h/2, and walk the whole "
        "step from x with that velocity.",
        "Step n begins at time t0 + n * h. For t1 < t0 this h is negative, and nothing in your loop may ask for h > 0.",
    ),
    insight="two evaluations a step, order 2, and t1 < t0 gives the inverse flow with the same four lines.",
)


@from_parts
def _residual(log_prob: Any, v: Field, x: Tensor, t: Tensor) -> dict[str, Any]:
    """The three terms of dp/dt + ∇p · v + p ∇·v, (B,), and what they are made of."""
    x, t = x.requires_grad_(), t.requires_grad_()
    log_p, u = log_prob(x, t), v(x, t)
    p = log_p.exp()
    dt, grad = torch.autograd.grad(p.sum(), (t, x), retain_graph=True)
    slopes = [torch.autograd.grad(u[:, i].sum(), (x, t), retain_graph=True) for i in range(x.shape[1])]
    jacobian, dv_dt = (
        torch.stack([slope[k] for slope in slopes], 1) for k in range(2)
    )  # (B, d, d) and (B, d)
    moved, div = (grad * u).sum(1), jacobian.diagonal(dim1=1, dim2=2).sum(1)
    spread = p * div
    right = dt + moved + spread
    return locals()


def _density(x: Tensor, t: Tensor) -> Tensor:  # log N(x; 0, diag(e^{2t}, e^{-t}))
    square = x[:, 0] ** 2 * torch.exp(-2 * t) + x[:, 1] ** 2 * torch.exp(t)
    return -(square + t) / 2 - math.log(2 * math.pi)


def _full_field(x: Tensor, t: Tensor) -> Tensor:  # a full Jacobian and a velocity that depends on time
    return torch.stack([x[:, 1] * x[:, 0] + t, 2 * x[:, 0] + x[:, 1] * torch.exp(t)], dim=1)


PLACES = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MOMENTS = torch.rand(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _residual_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    terms = _residual(lambda p: torch.stack([p.dt, p.moved, p.spread], 1))
    dt, moved, spread = terms(_density, _full_field, PLACES.clone(), MOMENTS.clone())[at]
    return (
        f"for v(x, t) = (x₁x₂ + t, 2x₁ + x₂ eᵗ) at x = {show(PLACES[at])}, t = {MOMENTS[at]:.3f}, the terms are "
        f"∂p/∂t = {dt:.4f}, ∇p · v = {moved:.4f} and p ∇·v = {spread:.4f}; yours gives {result[at]:.4f}"
    )


NO_GRADIENT = "the term ∇p · v is missing: ∇·(p v) is p ∇·v only where p does not vary in space"
NO_DENSITY = "this uses ∇·v without the density: it is the flux p v whose divergence counts, ∇·(p v)"
WRONG_VARIABLE = "a derivative is taken with respect to the wrong variable: "

exercise(
    "1.5",
    "The continuity equation as code",
    "residual(log_prob, v, x, t)",
    Probe(
        on(_density, Counted(_full_field), PLACES, MOMENTS), _residual_off, 1e-5
    ),  # finite differences are welcome
    right=_residual(lambda p: p.right),
    mistakes=[
        (
            "sign error: where mass flows out, ∇·(p v) > 0, p falls, so ∂p/∂t and ∇·(p v) are added",
            _residual(lambda p: p.dt - p.moved - p.spread),
        ),
        ("sign error in ∂p/∂t: it is added to ∇·(p v)", _residual(lambda p: -p.dt + p.moved + p.spread)),
        (
            "sign error in ∇p · v: the product rule has a plus before it",
            _residual(lambda p: p.dt - p.moved + p.spread),
        ),
        (
            "sign error in p ∇·v: the product rule has a plus before it",
            _residual(lambda p: p.dt + p.moved - p.spread),
        ),
        (NO_GRADIENT, _residual(lambda p: p.dt + p.spread)),
        (f"{NO_GRADIENT}; and ∂p/∂t is missing", _residual(lambda p: p.spread)),
        (f"{NO_GRADIENT}; and the rest is divided by p", _residual(lambda p: p.dt / p.p + p.div)),
        (NO_DENSITY, _residual(lambda p: p.dt + p.div)),
        (f"{NO_DENSITY}; and ∂p/∂t is missing", _residual(lambda p: p.div)),
        (
            "∇p · v is there, but p ∇·v is missing: a field also squeezes and spreads what it carries",
            _residual(lambda p: p.dt + p.moved),
        ),
        ("∇p · v is right, but p must multiply ∇·v", _residual(lambda p: p.dt + p.moved + p.div)),
        ("∂p/∂t is missing: the density changes with time", _residual(lambda p: p.moved + p.spread)),
        (
            "this is the residual divided by p, ∂log p/∂t + v · ∇log p + ∇·v: multiply by p",
            _residual(lambda p: p.right / p.p),
        ),
        (
            "log p has taken the place of p: the equation holds for densities, and log p is none",
            _residual(lambda p: (p.dt + p.moved) / p.p + p.log_p * p.div),
        ),
        (
            "∇log p stands where ∇p belongs: multiply by p",
            _residual(lambda p: p.dt + p.moved / p.p + p.spread),
        ),
        (
            "∂log p/∂t stands where ∂p/∂t belongs: multiply by p",
            _residual(lambda p: p.dt / p.p + p.moved + p.spread),
        ),
        (
            "this sums every entry of the Jacobian of v; the divergence is its diagonal",
            _residual(lambda p: p.dt + p.moved + p.p * p.jacobian.sum((1, 2))),
        ),
        (
            "this sums ∂(p vⱼ)/∂xᵢ over all i and j; the divergence takes i = j alone",
            _residual(lambda p: p.dt + p.grad.sum(1) * p.u.sum(1) + p.p * p.jacobian.sum((1, 2))),
        ),
        (
            "only ∂(p v₁)/∂x₁ is there: the divergence adds ∂(p v₂)/∂x₂, one such term for each dimension",
            _residual(lambda p: p.dt + p.grad[:, 0] * p.u[:, 0] + p.p * p.jacobian[:, 0, 0]),
        ),
        (
            "only ∂(p v₂)/∂x₂ is there: does the loop overwrite ∂(p v₁)/∂x₁ instead of adding to it?",
            _residual(lambda p: p.dt + p.grad[:, 1] * p.u[:, 1] + p.p * p.jacobian[:, 1, 1]),
        ),
        (
            "∇·(p v) is divided by the number of points: differentiate the sum over the points, not their mean",
            _residual(lambda p: p.dt + (p.moved + p.spread) / len(p.p)),
        ),
        (
            "all is divided by the number of points: differentiate the sum over the points, not their mean",
            _residual(lambda p: p.right / len(p.p)),
        ),
        (
            f"{WRONG_VARIABLE}∇·v differentiates v in space, not in time",
            _residual(lambda p: p.dt + p.moved + p.p * p.dv_dt.sum(1)),
        ),
        (
            f"{WRONG_VARIABLE}∂p/∂t differentiates p in time, not in space",
            _residual(lambda p: p.grad.sum(1) + p.moved + p.spread),
        ),
        (
            "∇p · v is a dot product: your ∇p is multiplied with the sum of v's components, or v with that of ∇p",
            _residual(lambda p: p.dt + p.grad.sum(1) * p.u.sum(1) + p.spread),
        ),
    ],
    hints=(
        "∇· is another way to write div. The product rule first: "
        "∂p/∂t + ∇·(p v) = ∂p/∂t + ∇p · v + p ∇·v. Three terms, each a number per point.",
        "With p = exp(log p): ∂p/∂t = p ∂log p/∂t and ∇p = p ∇log p. torch.autograd.grad(log_prob(x, t).sum(), (x, t)) "
        "gives both, for every point at once, if x and t require gradients.",
        "For ∇·v let u = v(x, t), differentiate it component by component, and keep the diagonal: "
        "sum(torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2)).",
    ),
    insight="one scalar per point tells whether a field moves a density: mass is neither made nor lost.",
)


# 1.6 Many fields are right, at any speed. So the probe measures div(p w) / p, up to the speed, which must vanish.

COVARIANCES = [
    torch.tensor(rows, dtype=torch.float64) for rows in ([[2.0, 0.6], [0.6, 0.5]], [[0.4, -0.3], [-0.3, 1.5]])
]
QUARTER_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
CLOUD = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _leak(spin: Answer, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """w · ∇log p and div w at the points of the cloud, (B,) each."""

    def w(x: Tensor) -> Tensor:
        value = spin(x, covariance)
        require(value, x, "spin(x, covariance)")
        return value.detach()

    if not w(CLOUD).any(1).all():
        raise GradeError(
            "w = 0 leaves p as it is, since nothing moves; find a field that moves every point but 0"
        )
    if not alike(w(CLOUD[2:]), w(CLOUD)[2:]):
        raise GradeError(
            "the velocity at a point must depend on that point alone, not on the others in the batch"
        )
    h = 1e-4 * torch.eye(2, dtype=torch.float64)
    slopes = [(w(CLOUD + e) - w(CLOUD - e))[:, i] / 2e-4 for i, e in enumerate(h)]  # central differences
    return -(w(CLOUD) * (CLOUD @ covariance.inverse())).sum(1), slopes[0] + slopes[1]


def _leaks(spin: Answer) -> list[Tensor]:
    """1 plus the leak of the field for each covariance, its largest entry 1 if there is a leak; and the fields."""
    leaks = []
    for covariance in COVARIANCES:
        across, div = _leak(spin, covariance)
        leak, size = across + div, spin(CLOUD, covariance).abs().max() + across.abs().max() + div.abs().max()
        largest = leak[leak.abs().argmax()]
        leaks.append(leak / largest if abs(largest) > 1e-6 * size else 0 * leak)
    return [
        1 + torch.stack(leaks),
        torch.stack([spin(CLOUD, covariance).detach() for covariance in COVARIANCES]),
    ]


def _at_the_speed_of(spin: Answer, result: list[Tensor]) -> list[Tensor]:
    """What a mistake leaks, and its fields at the speed of the reader's; a field without leak may be any."""
    leaks, fields = _leaks(spin)
    speed = (result[1] * fields).sum((1, 2), keepdim=True) / fields.square().sum((1, 2), keepdim=True)
    return [leaks, result[1] if (leaks == 1).all() else speed * fields]


def _leaks_off(result: list[Tensor], right: list[Tensor], spin: Answer) -> str:
    which, at = divmod(worst(result[0].flatten(), right[0].flatten()), len(CLOUD))
    across, div = (part[at] for part in _leak(spin, COVARIANCES[which]))
    return (
        f"div(p w) / p = w · ∇log p + div w must vanish. For Σ = {COVARIANCES[which].tolist()} at x = "
        f"{show(CLOUD[at])}, w · ∇log p = {across:.4f} and div w = {div:.4f} leave {across + div:.4f}"
    )


exercise(
    "1.6",
    "Motion that nobody can see",
    "spin(x, covariance)",
    Probe(_leaks, _leaks_off, 1e-5, beside=_at_the_speed_of),
    right=lambda x, covariance: x @ (QUARTER_TURN @ covariance.inverse()).T,
    mistakes=[
        (
            "a rigid rotation J x keeps N(0, Σ) only if Σ is isotropic: its circles cut the ellipses on which p is "
            "constant. div w = 0 is not enough: div(p w) = w · ∇p + p div w must vanish",
            lambda x, covariance: x @ QUARTER_TURN.T,
        ),
        (
            "turn the gradient, not the point: J Σ⁻¹ x runs along the ellipses, Σ⁻¹ J x, which in the plane is "
            "J Σ x up to a constant, cuts them. (Points are rows: A acts as x @ A.T, and x @ A is its transpose)",
            lambda x, covariance: x @ (covariance.inverse() @ QUARTER_TURN).T,
        ),
        (
            "this runs along the gradient of log p, across the ellipses; turn it by 90 degrees",
            lambda x, covariance: x @ covariance.inverse(),
        ),
        (
            "Σ x is not the gradient: ∇log p(x) = -Σ⁻¹ x, and this is the Σ⁻¹ that is missing",
            lambda x, covariance: x @ covariance,
        ),
        (
            "this uses the diagonal of Σ alone: its ellipses have the axes of the coordinates, those of p are tilted",
            lambda x, covariance: x @ (QUARTER_TURN / covariance.diag()).T,
        ),
    ],
    hints=(
        "Where must w point so that no mass crosses a level set of p? And what must its divergence be then?",
        "J ∇log p, the gradient turned by 90 degrees, runs along the level sets, and ∇·(p J ∇log p) = ∇·(J ∇p) = 0 for "
        "every density. What is ∇log p for N(0, Σ)?",
        "∇log p(x) = -Σ⁻¹ x, and J = [[0, -1], [1, 0]] turns it. Points are rows: a matrix A acts on them as x @ A.T",
    ),
    insight="add any multiple of w to a field that generates pₜ and it still generates pₜ: "
    "the path does not fix the field.",
)
