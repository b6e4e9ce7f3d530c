"""The exercises of chapter 8, Reflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from flowcourse.exercises import Option, choice, exercise
from flowcourse.family import NOISE_TO_EIGHT
from flowcourse.grading import (
    Answer,
    GradeError,
    Probe,
    alike,
    from_parts,
    gradient,
    on,
    require,
    show,
    worst,
)
from flowlib.metrics import wasserstein2
from flowlib.solvers import RK4, odeint

choice(
    "8.1",
    "What a round keeps",
    "You rectify the flow from noise to pictures of cats and dogs once, exactly. Which statement must hold for the new "
    "pairs?",
    Option(
        "Each noise keeps the picture that it was paired with.",
        "That is what changes: the old partner was a stranger, the new one is where the flow carried the noise. What "
        "stays is the law of each end, not the pairs.",
    ),
    Option(
        "The mean squared distance of the pairs, and the mean distance, are at most what they were.",
        "Both costs are convex functions of x₁ - x₀, and reflow raises none of those; it was told about neither.",
        right=True,
    ),
    Option(
        "They are the optimal pairs for the squared distance.",
        "Costs fall, but not always to the least: a straight flow may turn everything by 90 degrees and be its own "
        "rectification. Only on a line is a rectified coupling always optimal.",
    ),
    Option(
        "The mean of the square root of the distance is at most what it was.",
        "The square root is not convex, and Jensen's inequality points the other way for it: a shift by 3 is worse, in "
        "this cost, than the same shift with noise on top.",
    ),
    hints=(
        "The theorem has two parts. The first is about laws, the second about costs.",
        "Which of the costs named here are convex functions of the difference x₁ - x₀?",
        "|d| and |d|² are convex, the root of |d| is not; and nothing was said of optimal.",
    ),
)

choice(
    "8.2",
    "Which cure?",
    "A flow was trained on independent pairs. With an adaptive solver its samples are perfect, with one Euler step all "
    "of them land near the mean of the data. You want one step. What helps?",
    Option(
        "Training it ten times as long on the same kind of pairs.",
        "The field is right already: at t = 0 the mean of x₁ - x₀ over random partners IS the way to the mean of the "
        "data. More training learns that mean more exactly.",
    ),
    Option(
        "Sampling with one step of RK4, which has a higher order.",
        "That is four evaluations, along the same bent trajectories. A solver follows a field better or worse; it "
        "cannot make it straighter.",
    ),
    Option(
        "Training on pairs (noise, random picture) at t = 0 alone, where the one step is taken.",
        "With random partners the best answer at t = 0 is the mean of the data, which is the very blob that you have. "
        "Distillation needs pairs that the flow has made.",
    ),
    Option(
        "Carrying noise through it with the adaptive solver, and training on those pairs.",
        "Now each noise has one partner, so there is nothing to average: the new field is nearly straight, and its "
        "first step is nearly the whole way.",
        right=True,
    ),
    hints=(
        "Is something wrong with the network, with the solver, or with the question that it was asked?",
        "What is E[x₁ - x₀ | x₀] for random pairs, and for pairs that a flow has made?",
        "Change the pairs, not the solver and not the budget.",
    ),
)


@from_parts
def _average(x: Tensor, s: Tensor, t: Tensor, tau: float) -> dict[str, Any]:
    def size(time: Tensor) -> Tensor:
        return ((1 - time) ** 2 + (tau * time) ** 2).sqrt()

    def rate(time: Tensor) -> Tensor:  # v / x
        return (tau**2 * time - (1 - time)) / size(time) ** 2

    a, b, span = size(s), size(t), t - s
    right = x * ((1 + tau**2) * (s + t) - 2) / (a * (a + b))
    return locals()


_g = torch.Generator().manual_seed(0)
X = torch.randn(6, 2, generator=_g, dtype=torch.float64)
S, T = torch.rand(2, 6, 1, generator=_g, dtype=torch.float64).sort(dim=0).values


def _average_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"from s = {S[at, 0]:.3f} to t = {T[at, 0]:.3f} with tau = 2 and x = {show(X[at])} the average velocity should "
        f"be {show(right[at])}; yours is {show(result[at])}. Test it for tau = 1 from s = 0 to t = 1, where everybody "
        "comes home and u = 0"
    )


exercise(
    "8.3",
    "The average velocity of a Gaussian flow",
    "my_u(x, s, t, tau)",
    Probe(on(X, S, T, 2.0), _average_off),
    Probe(on(X, S, T, 1.0), "right for tau = 2, but not for tau = 1"),
    Probe(
        on(X, S, S, 2.0),
        "right for s < t, but at s = t it must be the velocity: cancel t - s before you divide by it",
    ),
    right=_average(lambda p: p.right),
    mistakes=[
        (
            "that is where the point ends, φ(x); the average velocity is (φ(x) - x)/(t - s)",
            _average(lambda p: p.x * p.b / p.a),
        ),
        (
            "that is the displacement φ(x) - x; divide it by t - s",
            _average(lambda p: p.x * (p.b / p.a - 1)),
        ),
        ("that is the velocity at s; it changes on the way", _average(lambda p: p.x * p.rate(p.s))),
        (
            "that is the velocity at s, times the time; u is their average on the way",
            _average(lambda p: p.x * p.rate(p.s) * p.span),
        ),
        (
            "that is the mean of the two velocities at the place x; the point moves on meanwhile",
            _average(lambda p: p.x * (p.rate(p.s) + p.rate(p.t)) / 2),
        ),
        (
            "the interval is reversed: the point is at x at time s, so φ(x) = x σ(t)/σ(s)",
            _average(lambda p: p.x * (p.a / p.b - 1) / p.span),
        ),
        ("the sign is wrong: divide by t - s, not by s - t", _average(lambda p: -p.right)),
        (
            "x is a place at time s, not the start: divide by σ(s) as well",
            _average(lambda p: p.x * (p.b - p.a) / p.span),
        ),
        (
            "the ratio must be of standard deviations; yours is of variances",
            _average(lambda p: p.x * (p.b**2 / p.a**2 - 1) / p.span),
        ),
    ],
    hints=(
        "All members of the Gaussian path keep their ε: x = σ(s) ε at time s. Where is that member at time t?",
        "φ(x) = x σ(t)/σ(s) with σ(t)² = (1 - t)² + τ² t². Subtract x, divide by t - s, and look at s = t: 0/0.",
        "σ(t) - σ(s) = (σ(t)² - σ(s)²)/(σ(t) + σ(s)), and the difference of the squares has a factor t - s.",
    ),
    insight="the average velocity is as smooth as the flow: there is nothing singular at s = t.",
)


THETA = 0.7


def _field(x: Tensor, s: Any, t: Any, theta: Tensor | float = THETA) -> Tensor:
    s, t = (torch.as_tensor(time, dtype=x.dtype).reshape(-1, 1) for time in (s, t))
    scale = torch.tensor([1.0, -0.6], dtype=x.dtype)
    return theta * torch.sin(x * scale + 2 * s) + t * t * x.flip(1)


@from_parts
def _shortcut(u: Answer, x: Tensor, s: Tensor, t: Tensor) -> dict[str, Any]:
    m = (s + t) / 2
    h = (t - s)[:, None]
    first = u(x, s, m)
    second = u(x + h / 2 * first, m, t)
    right = ((first + second) / 2).detach()
    return locals()


TIMES_S, TIMES_T = S[:, 0], T[:, 0]


def _leak(shortcut_target: Answer) -> Tensor:
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    value = shortcut_target(lambda x, s, t: _field(x, s, t, theta), X, TIMES_S, TIMES_T)
    return gradient(value.sum(), theta)


exercise(
    "8.4",
    "The target of a shortcut model",
    "shortcut_target(u, x, s, t)",
    Probe(
        on(_field, X, TIMES_S, TIMES_T),
        lambda result, right, _: (
            f"the target should be {show(right[worst(result, right)])} at one of the points; yours is "
            f"{show(result[worst(result, right)])}. Test it on a constant u, where it is that constant"
        ),
    ),
    Probe(
        _leak,
        "the value is right, but a gradient flows through it: a target is a constant of the step. Detach it, or work "
        "under torch.no_grad()",
    ),
    right=_shortcut(lambda p: p.right),
    mistakes=[
        (
            "the second jump starts where the first has ended, x + (m - s) u(x, s, m), and not at x",
            _shortcut(lambda p: ((p.first + p.u(p.x, p.m, p.t)) / 2).detach()),
        ),
        (
            "two displacements add up, two velocities are averaged: divide by 2",
            _shortcut(lambda p: (p.first + p.second).detach()),
        ),
        (
            "the first jump takes half of the time: move by (m - s) u, not by (t - s) u",
            _shortcut(lambda p: ((p.first + p.u(p.x + p.h * p.first, p.m, p.t)) / 2).detach()),
        ),
        (
            "the first jump moves by (m - s) u: multiply the velocity by the time that it acts",
            _shortcut(lambda p: ((p.first + p.u(p.x + p.first, p.m, p.t)) / 2).detach()),
        ),
        (
            "this is the long jump itself, which is to be compared with the two short ones",
            _shortcut(lambda p: p.u(p.x, p.s, p.t).detach()),
        ),
        (
            "the first jump ends at m: ask for u(x, s, m), not for u(x, s, t)",
            _shortcut(
                lambda p: ((long := p.u(p.x, p.s, p.t)) + p.u(p.x + p.h / 2 * long, p.m, p.t)).detach() / 2
            ),
        ),
        (
            "the second jump begins at m: ask for u(x', m, t), not for u(x', s, t)",
            _shortcut(lambda p: ((p.first + p.u(p.x + p.h / 2 * p.first, p.s, p.t)) / 2).detach()),
        ),
        (
            "the second jump runs from m to t: you jumped from s to m twice",
            _shortcut(lambda p: ((p.first + p.u(p.x + p.h / 2 * p.first, p.s, p.m)) / 2).detach()),
        ),
        (
            "this is where two jumps end; the target is their average velocity",
            _shortcut(lambda p: (p.x + p.h * p.right).detach()),
        ),
        (
            "this is the way of two jumps, t - s times their average velocity",
            _shortcut(lambda p: (p.h * p.right).detach()),
        ),
        (
            "this is the second jump alone; the first half of the way counts too",
            _shortcut(lambda p: p.second.detach()),
        ),
    ],
    hints=(
        "Draw two arrows: from x at time s to a place at time m, and from there to time t. What is the mean velocity?",
        "The first arrow moves x by (m - s) u(x, s, m). Times are (B,), points (B, d).",
        "Both halves last equally long, so each velocity has the weight 1/2; and a target has no gradient.",
    ),
    insight="a model of short jumps teaches itself long ones, and needs data only for the shortest, s = t.",
)


def _velocity(x: Tensor, t: Any) -> Tensor:
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
    return torch.cos(x.flip(1) - 3 * t) + x * t


@from_parts
def _end(u: Answer, v: Answer, x: Tensor, s: Tensor, t: Tensor) -> dict[str, Any]:
    def place(t: Tensor) -> Tensor:
        return x + (t - s)[:, None] * u(x, s, t)

    ones = torch.ones_like(t)
    end, speed, *_ = jvp(place, (t,), (ones,))
    u_dot = jvp(lambda t: u(x, s, t), (t,), (ones,))[1]

    def loss(gap: Tensor) -> Tensor:
        return gap.square().sum(1).mean()

    return locals()


def _slope(end_loss: Answer) -> Tensor:
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    value = end_loss(lambda x, s, t: _field(x, s, t, theta), _velocity, X, TIMES_S, TIMES_T)
    return gradient(value, theta)


exercise(
    "8.5",
    "Distill a field by moving the end",
    "end_loss(u, v, x, s, t)",
    Probe(
        on(_field, _velocity, X, TIMES_S, TIMES_T),
        lambda result, right, _: f"for the test points the loss should be {right:.4f}; yours is {result:.4f}",
    ),
    Probe(
        _slope,
        "the value is right, but the gradient is not that of the whole residual: something is detached on the way",
    ),
    right=_end(lambda p: p.loss(p.speed - p.v(p.end, p.t))),
    mistakes=[
        (
            "the field is asked at x: the end moves with the velocity at the END, φ(x)",
            _end(lambda p: p.loss(p.speed - p.v(p.x, p.t))),
        ),
        ("the end is there at time t, not at s", _end(lambda p: p.loss(p.speed - p.v(p.end, p.s)))),
        (
            "this differentiates u alone; the end is x + (t - s) u, whose derivative has a term u as well",
            _end(lambda p: p.loss(p.u_dot - p.v(p.end, p.t))),
        ),
        (
            "the product rule has two terms: u + (t - s) du/dt; the first is missing",
            _end(lambda p: p.loss((p.t - p.s)[:, None] * p.u_dot - p.v(p.end, p.t))),
        ),
        (
            "this compares the average velocity with the last one: differentiate the end in t",
            _end(lambda p: p.loss(p.u(p.x, p.s, p.t) - p.v(p.end, p.t))),
        ),
        (
            "this compares the end, a place, with a velocity: differentiate it in t",
            _end(lambda p: p.loss(p.end - p.v(p.end, p.t))),
        ),
        (
            "the end of x + u: multiply the average velocity by the time t - s",
            _end(lambda p: p.loss(p.speed - p.v(p.x + p.u(p.x, p.s, p.t), p.t))),
        ),
        (
            "sum the squares over the coordinates, and average over the points alone (yours is d times too small)",
            _end(lambda p: p.loss(p.speed - p.v(p.end, p.t)) / 2),
        ),
        (
            "take the mean over the points, not the sum",
            _end(lambda p: (p.speed - p.v(p.end, p.t)).square().sum()),
        ),
        (
            "this is one loss a point, (B,); take their mean",
            _end(lambda p: (p.speed - p.v(p.end, p.t)).square().sum(1)),
        ),
        (
            "the sign: the end moves WITH the field, so subtract v",
            _end(lambda p: p.loss(p.speed + p.v(p.end, p.t))),
        ),
    ],
    hints=(
        "Write the end as a function of t alone, x and s fixed: place(t) = x + (t - s) u(x, s, t).",
        "torch.func.jvp(place, (t,), (torch.ones_like(t),)) returns the end and its velocity at once.",
        "Compare that velocity with v(end, t); sum the squares over dim=1 and average over the points.",
    ),
    insight="a known field teaches its flow map with one derivative, and no trajectory was ever computed.",
)


# 8.6 A one-step generator of the reader's own: what is measured are its samples.

BOUND = 0.2


def _samples(my_step: Answer) -> Tensor:
    x_0, x_1 = (
        law(2048, generator=torch.Generator().manual_seed(seed), balanced=True)
        for seed, law in ((8, NOISE_TO_EIGHT.start), (9, NOISE_TO_EIGHT.goal))
    )
    with torch.no_grad():
        x = my_step(x_0)
        require(x, x_0, "my_step(x_0)")
        part = my_step(x_0[:512])
    if not alike(part, x[:512], 1e-4):
        raise GradeError(
            "a point's sample depends on the other points of the batch, or on chance: one noise must always give the "
            "same sample, x_0 + v(x_0, 0)"
        )
    w2 = wasserstein2(x.detach(), x_1)
    told = f"your samples end at W2 = {w2:.3f} from the data, and less than {BOUND} is wanted; "
    spread = x.std(0).mean()
    if w2 >= BOUND:
        if alike(x, x_0, 1e-3):
            raise GradeError(f"{told}they are the noise itself")
        if spread < 1.0:
            raise GradeError(
                f"{told}they lie in a heap near the middle, as random pairs teach: train on pairs that a flow has made"
            )
        if w2 < 1.5 * BOUND:
            raise GradeError(f"{told}you are on the way: more steps, more pairs, or all of them at t = 0")
        away = wasserstein2(x_0 + x.detach(), x_1)
        if away < w2 / 2:
            raise GradeError(f"{told}you return the velocity; the sample is x_0 + v(x_0, 0)")
        raise GradeError(
            f"{told}are your pairs (noise, where the flow carries it), and both ends in their places?"
        )
    return torch.tensor(1.0)


exercise(
    "8.6",
    "A one-step generator of your own",
    "my_step(x_0)",
    Probe(_samples, f"the samples must be within W2 = {BOUND} of the data"),
    right=lambda x_0: odeint(NOISE_TO_EIGHT.velocity(), x_0, steps=16, method=RK4),
    mistakes=[],
    hints=(
        "You need pairs, a loss and a network. Which pairs have one x₁ for each x₀?",
        "rectify(task.velocity(), noise) makes as many as you like of the exact flow; 2¹³ are enough.",
        "Spend all steps at t = 0, with a learning rate that decays to zero, and average the weights.",
    ),
    insight="one evaluation of a small network draws what hundreds of evaluations drew before.",
)
