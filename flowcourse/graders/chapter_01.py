"""The exercises of chapter 1, Flows and vector fields."""

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


@exercise(
    "1.3",
    "The variance that a field makes",
    hints=(
        "The field is linear, so the flow multiplies: Xₜ = m(t) X₀. Which equation does m solve?",
        "m' = cos(t) m with m(0) = 1, so log m is the integral of cos from 0 to t.",
        "m(t) = exp(sin t). The variance of m X₀ is m² times the variance of X₀.",
    ),
    insight="log Var Xₜ is twice the integral of cos, 2 sin t: the cloud breathes, and is N(0, 1) again at t = π.",
)
def grade_variance(variance: Any) -> None:
    """variance(t) for dx/dt = cos(t) x and X₀ ~ N(0, 1); t is a tensor (), the answer exp(2 sin t)."""
    times = (0.0, 0.4, 1.0, 2.0, 4.0)
    values = [call(variance, torch.tensor(t, dtype=torch.float64), signature="variance(t)") for t in times]
    try:
        result = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError):
        raise GradeError(f"variance(t) must return a number, not {type(values[0]).__name__}") from None
    t = torch.tensor(times, dtype=torch.float64)
    mistakes = [
        (
            "this is the standard deviation exp(sin t); the variance is its square, with a factor 2 in the exponent",
            t.sin().exp(),
        ),
        (
            "the flow is not exp(a(t) t): a changes on the way, and the integral of a from 0 to t counts",
            (2 * t * t.cos()).exp(),
        ),
        (
            "the flow is not exp(a(t) t) but exp of the integral of a; and the variance squares it",
            (t * t.cos()).exp(),
        ),
        (
            "this is exp(2 a(t)); the exponent is the integral of a from 0 to t, not a itself",
            (2 * t.cos()).exp(),
        ),
        (
            "time runs backwards: your cloud shrinks while cos t > 0 pushes points outwards",
            (-2 * t.sin()).exp(),
        ),
        ("the integral of cos is sin; you integrated sin", (2 * (1 - t.cos())).exp()),
        ("this is the logarithm of the variance", 2 * t.sin()),
        ("at t = 0 the variance is 1, not 0: X₀ is N(0, 1)", (2 * t.sin()).exp() - 1),
        (
            "1 + 2 sin t is the exponential to first order; V' = 2 cos(t) V has an exact solution",
            1 + 2 * t.sin(),
        ),
        ("this is the variance for a constant a = 1; here a(t) = cos t", (2 * t).exp()),
    ]
    at = int((result - (2 * t.sin()).exp()).abs().nan_to_num(math.inf).argmax())
    start = (
        "at t = 0 nothing has moved, so the variance must still be 1; " if abs(result[0] - 1) > 1e-6 else ""
    )
    otherwise = (
        f"{start}your variance({times[at]:g}) is {result[at]:.4f}, and the true value is "
        f"{math.exp(2 * math.sin(times[at])):.3f}; check that V' = 2 cos(t) V holds for your function"
    )
    diagnose(result, (2 * t.sin()).exp(), mistakes, otherwise)


# 1.4 The wrong solvers below are each the most common way to get one thing wrong. The grader runs them beside the
# reader's on a field that tells all of them apart.


def _test_field(x: Tensor, t: Any) -> Tensor:
    """Nonlinear, time-dependent and without symmetry in t, so that no two mistakes look alike."""
    return torch.stack([torch.sin(x[:, 1] + 3 * t), x[:, 0] * (0.5 + t * t)], dim=1)


Step = Callable[[Field, Tensor, float, float], Tensor]  # (v, x, t, h) -> x after one step


def _march(step: Step, v: Field, x: Tensor, t0: float, h: float, steps: int) -> Tensor:
    for n in range(steps):
        x = step(v, x, t0 + n * h, h)
    return x


def _midpoint(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def _euler(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * v(x, t)


def _heun(v: Field, x: Tensor, t: float, h: float) -> Tensor:
    return x + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h))


WRONG_STEPS: list[tuple[str, Step]] = [
    ("order 1 instead of 2: this is Euler's rule; look up the velocity half a step ahead", _euler),
    (
        "this is Heun's rule, also of order 2; the midpoint rule looks up its second velocity at t + h/2",
        _heun,
    ),
    (
        "only half a step: the midpoint is where you look the velocity up; the whole step h then starts again from x",
        lambda v, x, t, h: x + h / 2 * v(x, t),
    ),
    (
        "only half a step: h/2 takes you to the midpoint, and the velocity found there acts for the whole of h",
        lambda v, x, t, h: x + h / 2 * v(x + h / 2 * v(x, t), t + h / 2),
    ),
    (
        "the whole step starts again from x: yours starts from the midpoint and travels a step and a half",
        lambda v, x, t, h: x + h / 2 * v(x, t) + h * v(x + h / 2 * v(x, t), t + h / 2),
    ),
    (
        "the second velocity belongs to time t + h/2, not to t: this costs an order when the field depends on time",
        lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t),
    ),
    (
        "the second velocity belongs to the point half a step ahead, not to x",
        lambda v, x, t, h: x + h * v(x, t + h / 2),
    ),
    (
        "the midpoint is half a step away: yours looks the second velocity up a whole step ahead",
        lambda v, x, t, h: x + h * v(x + h * v(x, t), t + h),
    ),
    (
        "the midpoint lies ahead, at x + h/2 v, not at x - h/2 v",
        lambda v, x, t, h: x + h * v(x - h / 2 * v(x, t), t + h / 2),
    ),
]
BACKWARDS = "time runs backwards: "
FROZEN = (
    "every step uses the velocity of time t0, as if the field stood still: vₜ is the derivative at time t, so v must "
    "be given the current time"
)


def _wrong_flow_maps(v: Field, x: Tensor, t0: float, t1: float, steps: int) -> list[tuple[str, Tensor]]:
    h = (t1 - t0) / steps

    def run(
        v: Field = v, start: float = t0, h: float = h, steps: int = steps, step: Step = _midpoint
    ) -> Tensor:
        return _march(step, v, x, start, h, steps)

    return [
        *((diagnosis, run(step=step)) for diagnosis, step in WRONG_STEPS),
        (FROZEN, run(lambda y, t: v(y, t0))),
        (f"{FROZEN} (and the rule is Euler's, of order 1)", run(lambda y, t: v(y, t0), step=_euler)),
        (f"{BACKWARDS}your step is (t0 - t1) / N, so particles leave t0 in the wrong direction", run(h=-h)),
        (f"{BACKWARDS}you integrate from t1 to t0", run(start=t1, h=-h)),
        (f"{BACKWARDS}v is asked at t1 first and at t0 last", run(lambda y, t: v(y, t0 + t1 - t))),
        (f"{BACKWARDS}the sign of the velocity is flipped", run(lambda y, t: -v(y, t))),
        ("off by one: N + 1 steps of length (t1 - t0) / N end one step after t1", run(steps=steps + 1)),
        ("off by one: N - 1 steps of length (t1 - t0) / N end one step before t1", run(steps=steps - 1)),
        (
            "off by one: linspace(t0, t1, N) has N - 1 intervals; N steps need N + 1 times",
            run(h=(t1 - t0) / (steps - 1), steps=steps - 1),
        ),
        (
            "off by one: these are N + 1 shorter steps; N steps need N + 1 times, and so N intervals",
            run(h=(t1 - t0) / (steps + 1), steps=steps + 1),
        ),
        ("off by one: N steps of length (t1 - t0) / (N - 1) overshoot t1", run(h=(t1 - t0) / (steps - 1))),
        ("the step is (t1 - t0) / N: yours is t1 / N, right for t0 = 0 only", run(h=t1 / steps)),
        ("the step is (t1 - t0) / N: yours is 1 / N, right from 0 to 1 only", run(h=1 / steps)),
        ("the clock starts at t0: yours starts at 0", run(start=0.0)),
        ("nothing moved: this is x itself", x),
    ]


@exercise(
    "1.4",
    "A flow map from scratch",
    hints=(
        "Cut [t0, t1] into `steps` equal pieces of length h = (t1 - t0) / steps and keep the current time beside x.",
        "One midpoint step: walk half a step with v(x, t), look up the velocity there, at t + h/2, and walk the whole "
        "step from x with that velocity.",
        "for n in range(steps): t = t0 + n * h; x = x + h * v(x + h / 2 * v(x, t), t + h / 2). Nothing in it asks "
        "for h > 0.",
    ),
    insight="two evaluations a step, order 2, and t1 < t0 gives the inverse flow with the same four lines.",
)
def grade_flow_map(flow_map: Any) -> None:
    """flow_map(v, x, t0, t1, steps): the midpoint rule for v(x, t) and x (B, 2); returns the points at t1, (B, 2)."""
    signature = "flow_map(v, x, t0, t1, steps)"
    x = torch.tensor([[0.3, -0.7], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64)
    t0, t1, steps = 0.2, 1.1, 4
    evaluations = 0

    def counted(y: Tensor, t: Any) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return _test_field(y, t)

    mine = x.clone()
    result = call(flow_map, counted, mine, t0, t1, steps, signature=signature)
    if not torch.equal(mine, x):
        raise GradeError(
            "x was modified in place: the caller's points must survive, so write x = x + ..., not x += ..."
        )
    if isinstance(result, list | tuple) or (isinstance(result, Tensor) and result.ndim == x.ndim + 1):
        raise GradeError(
            "this returns the whole trajectory; the flow map is the end point alone, of the shape of x"
        )
    result = require_tensor(result, x, signature)
    h = (t1 - t0) / steps
    right = _march(_midpoint, _test_field, x, t0, h, steps)
    otherwise = (
        f"after {steps} steps from t = {t0} to {t1} the first point should be at "
        f"({right[0, 0]:.4f}, {right[0, 1]:.4f}); yours is at ({result[0, 0]:.4f}, {result[0, 1]:.4f}), "
        f"with {evaluations} evaluations of v, where the midpoint rule makes {2 * steps}. {_order(flow_map, x, t0, t1)}"
    )
    diagnose(result, right, _wrong_flow_maps(_test_field, x, t0, t1, steps), otherwise)

    back = call(flow_map, _test_field, right, t1, t0, steps, signature=signature)
    back = require_tensor(back, x, f"{signature} with t1 < t0")
    if not agree(back, _march(_midpoint, _test_field, right, t1, -h, steps)):
        stuck = ": the points do not move at all" if agree(back, right) else ""
        raise GradeError(
            f"forwards it works, but for t1 < t0 it fails{stuck}. The inverse flow is the same loop with a negative "
            "step; a loop such as `while t < t1`, or abs(t1 - t0), breaks it"
        )


def _order(flow_map: Any, x: Tensor, t0: float, t1: float) -> str:
    """What halving the step does to the error of an unknown method, as a sentence."""
    truth = odeint(_test_field, x, t0=t0, t1=t1, steps=1000, method=RK4)
    try:
        coarse, fine = (
            (flow_map(_test_field, x.clone(), t0, t1, n) - truth).abs().max().item() for n in (64, 128)
        )
    except Exception:
        return ""
    if not (math.isfinite(coarse) and math.isfinite(fine)) or fine > 0.7 * coarse:
        return "More steps do not bring it nearer to the true end point: it solves another equation."
    if fine < 1e-12:
        return ""
    return f"It does converge, with observed order {math.log2(coarse / fine):.1f}; the midpoint rule has order 2."


@exercise(
    "1.5",
    "The continuity equation as code",
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
def grade_continuity(residual: Any) -> None:
    """residual(log_prob, v, x, t) = dp/dt + div(p v), (B,), for x (B, 2), t (B,) and p = exp(log_prob(x, t))."""
    signature = "residual(log_prob, v, x, t)"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(7, generator=generator, dtype=torch.float64)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:  # N(0, diag(e^{2t}, e^{-t}))
        t = torch.as_tensor(t, dtype=x.dtype)
        return (
            -(x[:, 0] ** 2) / 2 * torch.exp(-2 * t)
            - x[:, 1] ** 2 / 2 * torch.exp(t)
            - t / 2
            - math.log(2 * math.pi)
        )

    def generating(x: Tensor, t: Tensor) -> Tensor:  # stretch and squeeze, and turn along the ellipses
        return torch.stack(
            [x[:, 0] - t * x[:, 1] * torch.exp(t), t * x[:, 0] * torch.exp(-2 * t) - x[:, 1] / 2], dim=1
        )

    def other(x: Tensor, t: Tensor) -> Tensor:  # a full Jacobian and a velocity that depends on time
        return torch.stack([x[:, 1] * x[:, 0] + t, 2 * x[:, 0] + x[:, 1] * torch.exp(t)], dim=1)

    # The three terms and their ingredients, by hand.
    p, log_p, v = log_prob(x, t).exp(), log_prob(x, t), other(x, t)
    grad = p[:, None] * torch.stack([-x[:, 0] * torch.exp(-2 * t), -x[:, 1] * torch.exp(t)], dim=1)
    dt = p * (x[:, 0] ** 2 * torch.exp(-2 * t) - x[:, 1] ** 2 / 2 * torch.exp(t) - 0.5)
    moved = (grad * v).sum(1)
    div = x[:, 1] + torch.exp(t)
    spread = p * div
    every_entry = div + x[:, 0] + 2  # all four entries of the Jacobian of v, summed
    dv_dt = 1 + x[:, 1] * torch.exp(t)  # both components, summed
    right = dt + moved + spread

    no_gradient = "the term ∇p · v is missing: ∇·(p v) is p ∇·v only where p does not vary in space"
    no_density = "this uses ∇·v without the density: it is the flux p v whose divergence counts, ∇·(p v)"
    wrong_variable = "a derivative is taken with respect to the wrong variable: "
    mistakes = [
        (
            "sign error: where mass flows out, ∇·(p v) > 0, p falls, so ∂p/∂t and ∇·(p v) are added",
            dt - moved - spread,
        ),
        ("sign error in ∂p/∂t: it is added to ∇·(p v)", -dt + moved + spread),
        ("sign error in ∇p · v: the product rule has a plus before it", dt - moved + spread),
        ("sign error in p ∇·v: the product rule has a plus before it", dt + moved - spread),
        (no_gradient, dt + spread),
        (f"{no_gradient}; and ∂p/∂t is missing", spread),
        (f"{no_gradient}; and the rest is divided by p", dt / p + div),
        (no_density, dt + div),
        (f"{no_density}; and ∂p/∂t is missing", div),
        (
            "∇p · v is there, but p ∇·v is missing: a field also squeezes and spreads what it carries",
            dt + moved,
        ),
        ("∇p · v is right, but p must multiply ∇·v", dt + moved + div),
        ("∂p/∂t is missing: the density changes with time", moved + spread),
        ("this is the residual divided by p, ∂log p/∂t + v · ∇log p + ∇·v: multiply by p", right / p),
        (
            "log p has taken the place of p: the equation holds for densities, and log p is none",
            dt / p + moved / p + log_p * div,
        ),
        ("∇log p stands where ∇p belongs: multiply by p", dt + moved / p + spread),
        ("∂log p/∂t stands where ∂p/∂t belongs: multiply by p", dt / p + moved + spread),
        (
            "this sums every entry of the Jacobian of v; the divergence is its diagonal",
            dt + moved + p * every_entry,
        ),
        (f"{wrong_variable}∇·v differentiates v in space, not in time", dt + moved + p * dv_dt),
        (f"{wrong_variable}∂p/∂t differentiates p in time, not in space", grad.sum(1) + moved + spread),
    ]

    result = call(residual, log_prob, other, x.clone(), t.clone(), signature=signature)
    result = require_tensor(result, p, signature)
    otherwise = (
        f"for v(x, t) = (x₁x₂ + t, 2x₁ + x₂ eᵗ) at x = ({x[0, 0]:.3f}, {x[0, 1]:.3f}), t = {t[0]:.3f}, the terms are "
        f"∂p/∂t = {dt[0]:.4f}, ∇p · v = {moved[0]:.4f} and p ∇·v = {spread[0]:.4f}; yours gives {result[0]:.4f}"
    )
    diagnose(result, right, mistakes, otherwise, tolerance=1e-5)  # finite differences are welcome

    zero = call(residual, log_prob, generating, x.clone(), t.clone(), signature=signature)
    if require_tensor(zero, p, signature).abs().max() > 1e-5:
        raise GradeError("for the field that generates pₜ the residual should vanish, and yours does not")


@exercise(
    "1.6",
    "Motion that nobody can see",
    hints=(
        "Where must w point so that no mass crosses a level set of p? And what must its divergence be then?",
        "J ∇log p, the gradient turned by 90 degrees, runs along the level sets, and ∇·(p J ∇log p) = ∇·(J ∇p) = 0 for "
        "every density. What is ∇log p for N(0, Σ)?",
        "∇log p(x) = -Σ⁻¹ x, so w(x) = J Σ⁻¹ x with J = [[0, -1], [1, 0]]. For points in rows: x @ (J @ Σ⁻¹).T",
    ),
    insight="add any multiple of w to a field that generates pₜ and it still generates pₜ: "
    "the path does not fix the field.",
)
def grade_gauge(w: Any) -> None:
    """w(x, covariance) for x (B, 2), not zero, with div(p w) = 0 for p = N(0, covariance), whatever the covariance."""
    signature = "spin(x, covariance)"
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    h = 1e-4 * torch.eye(2, dtype=torch.float64)
    for rows in ([[2.0, 0.6], [0.6, 0.5]], [[0.4, -0.3], [-0.3, 1.5]]):
        covariance = torch.tensor(rows, dtype=torch.float64)
        precision = covariance.inverse()

        def field(x: Tensor, covariance: Tensor = covariance) -> Tensor:
            return require_tensor(call(w, x.clone(), covariance.clone(), signature=signature), x, signature)

        result = field(x)
        if result.abs().max() == 0:
            raise GradeError(
                "w = 0 leaves p as it is, since nothing moves; find a field that moves every point but 0"
            )
        slopes = [(field(x + e) - field(x - e))[:, i] / 2e-4 for i, e in enumerate(h)]  # central differences
        div, across = slopes[0] + slopes[1], -(result * (x @ precision)).sum(1)  # div w and w . grad log p
        if (div + across).abs().max() < 1e-6 * (result.abs().max() + slopes[0].abs().max()):
            continue
        along_gradient = "this runs along the gradient of log p, across the ellipses; turn it by 90 degrees"
        mistakes = [
            (
                "a rigid rotation J x keeps N(0, Σ) only if Σ is isotropic: its circles cut the ellipses on which p is "
                "constant. div w = 0 is not enough: div(p w) = w · ∇p + p div w must vanish",
                x @ J.T,
            ),
            (
                "turn the gradient, not the point: J Σ⁻¹ x runs along the ellipses, Σ⁻¹ J x, which in the plane is "
                "J Σ x up to a constant, cuts them. (Points are rows: A acts as x @ A.T, and x @ A is its transpose)",
                x @ (precision @ J).T,
            ),
            (along_gradient, x @ precision),
        ]
        for diagnosis, value in mistakes:  # at whatever speed, in either sense
            if agree(result, (result * value).sum() / value.square().sum() * value):
                raise GradeError(diagnosis)
        raise GradeError(
            f"div(p w) / p = w · ∇log p + div w must vanish. For Σ = {rows} at x = ({x[0, 0]:.3f}, {x[0, 1]:.3f}), "
            f"w · ∇log p = {across[0]:.4f} and div w = {div[0]:.4f} leave {across[0] + div[0]:.4f}"
        )
