"""The exercises of chapter 9, Guidance."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import Answer, GradeError, Probe, alike, from_parts, on, require, worst
from flowlib.data import GaussianMixture, four_corners
from flowlib.guidance import guided
from flowlib.paths import linear
from flowlib.solvers import MIDPOINT, odeint

choice(
    "9.1",
    "What does it sample?",
    "A flow is guided with the scale w = 3, by exact fields and an exact solver. Which law do its samples have?",
    Option(
        "p(x) p(y|x)³, normalized.",
        "That is the tilted density. The guided field has the form that its velocity would have, and yet misses its "
        "continuity equation by 6 b |s_c - s_u|², which varies from place to place.",
    ),
    Option(
        "p(x|y), more exactly than with w = 1.",
        "With w = 1 and exact fields the samples have the law p(x|y) already. Any other scale leaves it.",
    ),
    Option(
        "The mixture of p(x) and p(x|y) in which y has three times its share.",
        "Velocities are combined here, not laws: no particle is drawn from one or the other.",
    ),
    Option(
        "One that is narrower than p(x) p(y|x)³ and lies further from other classes; it has no such formula.",
        "In one dimension you have seen it: the deviation τ³ instead of one over the root of 3/τ² - 2.",
        right=True,
    ),
    hints=(
        "Is there a scale at which the guided flow samples a law that you can name?",
        "For which w does w(w - 1) b |s_c - s_u|² vanish?",
        "At w = 3 the story with the tilted density fails; think of which side it fails to.",
    ),
)

choice(
    "9.2",
    "A reader of clean pictures",
    "You have an unconditional flow of animal photos, and a classifier that reads 99% of clean photos right. You add "
    "b_t times its gradient, with w = 1, and what comes out is worse than without. What helps?",
    Option(
        "A larger w: the classifier is not heard.",
        "It is heard too well. At small t its gradient is about points that it never saw, and b_t = (1 - t)/t makes it "
        "huge; a larger w multiplies that.",
    ),
    Option(
        "Training the classifier on noisy photos x_t, with t as an input.",
        "Guidance needs the gradient of log p_t(y|x) at the points that the flow passes, and these are noisy until the "
        "end.",
        right=True,
    ),
    Option(
        "Leaving b_t out, so that the gradient stays small.",
        "Then the field is not that of the condition, at any w: b_t turns a score into a velocity. The exact gradient "
        "vanishes at t = 0 by itself.",
    ),
    Option(
        "Ten times as many steps of the solver.",
        "A solver with more steps follows the wrong field more exactly: its end is where that field leads.",
    ),
    hints=(
        "At which points is the classifier asked, and at which was it trained?",
        "What does the exact gradient of log p_t(y|x) do as t goes to 0, and what does that of log p(y|x)?",
        "It must know how noisy its input is.",
    ),
)


# 9.3 The residual of several requests


@from_parts
def _rate(b: float, d: Tensor, w: Tensor) -> dict[str, Any]:
    each = w[:, None, None] * d
    sizes = d.square().sum(2)  # (K, B)
    whole = each.sum(0).square().sum(1)
    own = (w[:, None] * sizes).sum(0)
    apart = (w[:, None] * (w[:, None] - 1) * sizes).sum(0)
    right = b * (whole - own)
    return locals()


_generator = torch.Generator().manual_seed(0)
D = torch.randn(3, 5, 2, generator=_generator, dtype=torch.float64)
W = torch.tensor([2.0, -0.5, 1.5], dtype=torch.float64)

exercise(
    "9.3",
    "Several requests at once",
    "my_rate(b, d, w)",
    Probe(
        on(0.7, D[:2], W[:2]),
        lambda result, right, _: (
            f"for two requests the rate at one of the points should be {right[worst(result, right)]:.4f}; yours is "
            f"{result[worst(result, right)]:.4f}. Test it with one request: there it is w (w - 1) b |d|²"
        ),
    ),
    Probe(on(0.7, D, W), "right for two requests, but not for three"),
    Probe(on(0.7, D[:1], W[:1]), "right for two requests, but not for one, where it is w (w - 1) b |d|²"),
    right=_rate(lambda p: p.right),
    mistakes=[
        (
            "requests do not only add up: the square of the sum has terms d_i · d_j as well",
            _rate(lambda p: p.b * p.apart),
        ),
        (
            "every pair of requests stands twice in the square of a sum",
            _rate(lambda p: p.b * (p.apart + p.right / p.b) / 2),
        ),
        ("the sign is wrong: g · s_q minus what the single equations say", _rate(lambda p: -p.right)),
        ("b_t is missing: c_i - u = b_t d_i", _rate(lambda p: p.right / p.b)),
        (
            "this is b |sum w_i d_i|² alone; the single continuity equations take b times the sum of w_i |d_i|² away",
            _rate(lambda p: p.b * p.whole),
        ),
        (
            "the single equations enter with w_i, as the logarithms do, not with its square",
            _rate(lambda p: p.b * (p.whole - (p.w[:, None].square() * p.sizes).sum(0))),
        ),
        (
            "one request of the size of the sum is another thing than several",
            _rate(lambda p: p.b * p.w.sum() * (p.w.sum() - 1) * p.d.sum(0).square().sum(1)),
        ),
        (
            "sum the squares over the coordinates; this is their mean",
            _rate(lambda p: p.right / p.d.shape[2]),
        ),
    ],
    hints=(
        "Write the continuity equations of u and of each c_i, and add them with the weights of the logarithms.",
        "The weights are 1 - sum w_i for u and w_i for c_i. What is missing is g · s_q less the weighted products.",
        "Use s_i = s_u + d_i and v = a x + b s for every pair: all that is linear in s_u cancels.",
    ),
    insight="requests that point the same way demand more correction together than apart; opposite ones less.",
)


# 9.4 Systematic resampling


@from_parts
def _resample(log_weights: Tensor, offset: float) -> dict[str, Any]:
    n = len(log_weights)
    weights = log_weights.softmax(0)
    heights = n * weights.cumsum(0)
    levels = torch.arange(n, dtype=log_weights.dtype) + offset

    def found(heights: Tensor, levels: Tensor) -> Tensor:
        return torch.searchsorted(heights, levels.contiguous()).clamp(0, n - 1)

    return locals()


LOG_WEIGHTS = torch.tensor([0.1, -2.0, 1.4, 0.3, -0.9, 0.9, -3.0, 0.2], dtype=torch.float64)


def _off(result: Tensor, right: Tensor, _: Answer) -> str:
    counts, wanted = (torch.bincount(r.long().clamp(0, 7), minlength=8).tolist() for r in (result, right))
    return (
        f"the eight particles should be drawn {wanted} times, for the offset 0.35; yours are drawn {counts} times "
        f"(the indices should be {right.tolist()})"
    )


exercise(
    "9.4",
    "Resampling with one random number",
    "my_resample(log_weights, offset)",
    Probe(on(LOG_WEIGHTS, 0.35), _off),
    Probe(on(LOG_WEIGHTS, 0.85), "right for the offset 0.35, but not for 0.85"),
    Probe(
        on(torch.zeros(6, dtype=torch.float64), 0.5),
        "right for unequal weights, but equal ones must give each particle once",
    ),
    Probe(
        on(LOG_WEIGHTS + 1000, 0.35),
        "right for small log-weights, but a constant added to all of them must change nothing: use softmax, whose "
        "exponentials do not overflow",
    ),
    right=_resample(lambda p: p.found(p.heights, p.levels)),
    mistakes=[
        ("the offset is not used", _resample(lambda p: p.found(p.heights, p.levels - p.offset + 1e-9))),
        (
            "heights from 0 to 1 are compared with levels from 0 to n: multiply the one or divide the other by n",
            _resample(lambda p: p.found(p.weights.cumsum(0), p.levels)),
        ),
        (
            "the weights must sum to 1 before they are counted out: use softmax",
            _resample(lambda p: p.found(p.n * p.log_weights.exp().cumsum(0), p.levels)),
        ),
        (
            "off by one: particle i owns the levels from the sum before it up to the sum with it",
            _resample(lambda p: (p.found(p.heights, p.levels) - 1).clamp(min=0)),
        ),
        (
            "this is the heaviest particle n times; the others must be drawn too, as often as they weigh",
            _resample(lambda p: torch.full((p.n,), int(p.weights.argmax()))),
        ),
        ("nothing was resampled: every particle is there once", _resample(lambda p: torch.arange(p.n))),
        (
            "this sorts the particles by weight; each must be drawn as often as it weighs",
            _resample(lambda p: p.weights.argsort(descending=True)),
        ),
    ],
    hints=(
        "Lay the weights end to end on a line of length n: how long is the piece of particle i?",
        "Mark the line at offset, 1 + offset, 2 + offset, ...: each mark draws the particle on whose piece it lies.",
        "The pieces end at n · softmax(log_weights).cumsum(0), and torch.searchsorted finds the piece of a mark.",
    ),
    insight="a particle of weight w is drawn n w times, rounded up or down, and one random number did it.",
)


# 9.5 A guided model of the reader's own: what is measured are its samples.

CORNERS = four_corners().means
ACCURATE, DIVERSE = 0.95, 0.6


@cache
def _fields() -> tuple[Any, list[Any]]:
    corners = four_corners()
    classes = [GaussianMixture(corners.means[k : k + 1], corners.covariances[k : k + 1]) for k in range(4)]
    return corners.marginal_velocity(linear), [law.marginal_velocity(linear) for law in classes]


def exactly_guided(x_0: Tensor, label: Tensor, scale: float = 2.0) -> Tensor:
    """Samples of the exact guided flow."""
    u, classes = _fields()
    ends = torch.stack([odeint(guided(u, c, scale), x_0, steps=20, method=MIDPOINT) for c in classes])
    return ends[label, torch.arange(len(x_0))]


def _measures(x: Tensor, label: Tensor) -> tuple[float, float]:
    """The share that lies nearest to the corner asked for, and the spread of a class over that of the true one."""
    right = torch.cdist(x, CORNERS).argmin(1) == label
    spread = torch.stack([x[label == k].std(0).mean() for k in range(4)]).mean() / 0.8
    return float(right.float().mean()), float(spread)


def _samples(my_sampler: Answer) -> Tensor:
    x_0 = torch.randn(2000, 2, generator=torch.Generator().manual_seed(9))
    label = torch.arange(4).repeat(500)
    with torch.no_grad():
        x = my_sampler(x_0, label)
        require(x, x_0, "my_sampler(x_0, label)")
        part = my_sampler(x_0[:400], label[:400])
    if not alike(part, x[:400], 1e-4):
        raise GradeError(
            "a point's sample depends on the other points of the batch, or on chance: one noise and one label must "
            "always give the same sample"
        )
    accurate, diverse = _measures(x, label)
    told = (
        f"{100 * accurate:.1f}% of your samples are nearest to their corner (wanted: {100 * ACCURATE:.0f}% or more), "
        f"and their spread is {diverse:.2f} of the true class's (wanted: {DIVERSE} or more)"
    )
    if accurate < ACCURATE:
        if alike(x, x_0, 1e-3):
            raise GradeError(f"{told}; they are the noise itself")
        shifted = max(_measures(x, (label + k) % 4)[0] for k in (1, 2, 3))
        if shifted > max(accurate, 0.5):
            raise GradeError(f"{told}; they go to the corner of another label: are labels mixed up?")
        if accurate < 0.4:
            raise GradeError(
                f"{told}; the label seems to say nothing: is it given to the network, in both halves?"
            )
        raise GradeError(f"{told}. That is what w = 1 does, or little more: guide further")
    if diverse < DIVERSE:
        raise GradeError(
            f"{told}. All are where they should be, and too much alike: a smaller scale, or an interval"
        )
    return torch.tensor(1.0)


exercise(
    "9.5",
    "A guided model of your own",
    "my_sampler(x_0, label)",
    Probe(_samples, "the samples must be accurate and diverse"),
    right=exactly_guided,
    mistakes=[],
    hints=(
        "The chapter's network had five clouds; here are four corners. What changes in the training?",
        "VelocityMLP(2, classes=4) knows the null label 4. Drop a fifth of the labels, each for itself.",
        "classifier_free makes the field; print accuracy and diversity for a few scales, and choose.",
    ),
    insight="a scale is chosen, not derived: you bought accuracy with diversity, and you know the price.",
)
