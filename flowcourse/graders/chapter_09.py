"""The exercises of chapter 9, Guidance."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import Answer, GradeError, Probe, alike, from_parts, on, require, worst
from flowlib.data import GaussianMixture, four_corners
from flowlib.guidance import Combine, Scale, extrapolate, guided, zero_star
from flowlib.paths import linear
from flowlib.solvers import MIDPOINT, odeint

choice(
    "9.1",
    "What does it sample?",
    "Five clouds of data overlap, as in this chapter. A flow is guided toward one of them with the scale w = 3, by "
    "exact fields and an exact solver. Which law do its samples have?",
    Option(
        "p(x) p(y|x)³, normalized.",
        "That is the tilted density. The guided field has the form that its velocity would have, and yet misses its "
        "continuity equation by 6 b |s_c - s_u|². Between two Gaussians that differ by a shift that is a constant, and "
        "this would be right; here it varies from place to place.",
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
        "Another than these three, narrower than p(x) p(y|x)³ and further from the other clouds. In general it has no "
        "such formula.",
        "Two Gaussians of different widths show it: the deviation τ³ instead of one over the root of 3/τ² - 2.",
        right=True,
    ),
    hints=(
        "Is there a scale at which the guided flow samples a law that you can name?",
        "For which w does w(w - 1) b |s_c - s_u|² vanish?",
        "Take two Gaussians with one mean, where all is known: how wide is what each option says, and how wide the "
        "guided crowd?",
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
        "Would your remedy change what is computed at t = 0.2, or only how much of it is added, or how often?",
    ),
)


# 9.3 The residual of several requests


@from_parts
def _rate(b: float, d: Tensor, w: Tensor) -> dict[str, Any]:
    each = w[:, None, None] * d
    sizes = d.square().sum(2)  # (K, B)
    whole = each.sum(0).square().sum(1)
    distinct = whole - each.square().sum((0, 2))  # the products of i and j with i != j
    own = (w[:, None] * sizes).sum(0)
    apart = (w[:, None] * (w[:, None] - 1) * sizes).sum(0)
    right = b * (whole - own)
    return locals()


_generator = torch.Generator().manual_seed(0)
D = torch.randn(3, 5, 3, generator=_generator, dtype=torch.float64)
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
    Probe(on(1.9, D[:2], W[:2]), "right for b = 0.7, but not for b = 1.9"),
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
        ("b_t is a factor, not a divisor: c_i - u = b_t d_i", _rate(lambda p: p.right / p.b**2)),
        ("b_t enters once: c_i - u = b_t d_i, and s_q has none", _rate(lambda p: p.right * p.b)),
        (
            "this is half of it: the rate is g · s_q less the weighted products, with no factor 1/2",
            _rate(lambda p: p.right / 2),
        ),
        (
            "every pair i < j stands twice in the square of a sum, and the terms i = i, w_i (w_i - 1) |d_i|² in the "
            "end, are lost",
            _rate(lambda p: p.b * p.distinct / 2),
        ),
        (
            "this is b |sum w_i d_i|² alone; the single continuity equations take b times the sum of w_i |d_i|² away",
            _rate(lambda p: p.b * p.whole),
        ),
        (
            "these are the products of different requests alone: i = i gives w_i² |d_i|² in the square of the sum, and "
            "the single equations take w_i |d_i|² away, with w_i and not its square",
            _rate(lambda p: p.b * p.distinct),
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

    def found(heights: Tensor, levels: Tensor, right: bool = True) -> Tensor:
        return torch.searchsorted(heights, levels.contiguous(), right=right).clamp(0, n - 1)

    return locals()


LOG_WEIGHTS = torch.tensor([0.1, -2.0, 1.4, 0.3, -0.9, 0.9, -3.0, 0.2], dtype=torch.float64)


CROWD = torch.randn(
    100, generator=torch.Generator().manual_seed(3416)
)  # in float32 the heights end below 100


def _once(my_resample: Answer) -> Any:
    """The indices of few particles, if those of many hang on the offset alone."""
    result = my_resample(LOG_WEIGHTS, 0.35)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        some = my_resample(CROWD.double(), 0.35)
        torch.manual_seed(2)
        if isinstance(some, Tensor) and not alike(some, my_resample(CROWD.double(), 0.35)):
            raise GradeError(
                "you draw random numbers of your own, for each particle: use the one offset for all marks"
            )
    return result


def _off(result: Tensor, right: Tensor, _: Answer) -> str:
    counts, wanted = (torch.bincount(r.long().clamp(0, 7), minlength=8).tolist() for r in (result, right))
    if counts == wanted:
        return (
            f"the right particles, in another order: return them in the order of the marks, {right.tolist()}"
        )
    return (
        f"the eight particles should be drawn {wanted} times, for the offset 0.35; yours are drawn {counts} times "
        f"(the indices should be {right.tolist()})"
    )


def _last(my_resample: Answer) -> Tensor:
    """What the last mark draws, where rounding lifts it to the end of the line or beyond."""
    indices = my_resample(CROWD, 0.999999)
    require(indices, torch.arange(len(CROWD)), "my_resample(log_weights, offset)")
    if indices.max() >= len(CROWD):
        raise GradeError(f"there is no particle {int(indices.max())} of {len(CROWD)}")
    return indices[-1]


exercise(
    "9.4",
    "Resampling with one random number",
    "my_resample(log_weights, offset)",
    Probe(_once, _off),
    Probe(on(LOG_WEIGHTS, 0.85), "right for the offset 0.35, but not for 0.85"),
    Probe(
        on(torch.zeros(8, dtype=torch.float64), 0.5),
        "right for unequal weights, but equal ones must give each particle once",
    ),
    Probe(
        on(LOG_WEIGHTS + 1000, 0.35),
        "right for small log-weights, but a constant added to all of them must change nothing: use softmax, whose "
        "exponentials do not overflow",
    ),
    Probe(
        on(torch.zeros(8, dtype=torch.float64), 0.0),
        "right inside the pieces, but with the offset 0 and equal weights every mark lies on a border, and each "
        "particle must come once: a border belongs to the piece that begins there",
    ),
    Probe(
        on(torch.tensor([-1e4, 0, 0, 0, 0], dtype=torch.float64), 0.0),
        "right for equal weights, but a particle of weight 0 must not be drawn, even if the mark at 0 meets it first",
    ),
    Probe(
        _last,
        "right for few particles in float64, but not for 100 in float32: there rounding puts the last mark at the end "
        "of the line or beyond, and the sum of the weights is rounded too: clamp the indices to n - 1",
        what="the last index",
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
        (
            "a mark on a border draws the piece that begins there, not the one that ends: right=True in searchsorted, "
            "or <= in place of <. With the offset 0 the first particle is drawn twice, or without any weight",
            _resample(lambda p: p.found(p.heights, p.levels, right=False)),
        ),
        (
            "a modulo sends the last mark, where rounding puts it beyond the end of the line, to the first particle: "
            "clamp the indices to n - 1",
            _resample(lambda p: torch.searchsorted(p.heights, p.levels, right=True) % p.n),
        ),
        (
            "these are counts, how often each particle is drawn; wanted is a particle's index for each mark",
            _resample(lambda p: torch.bincount(p.found(p.heights, p.levels), minlength=p.n)),
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
        "cumsum and torch.searchsorted. Whose is a mark on a border (look at `right`), and one that rounding puts "
        "beyond the last piece?",
    ),
    insight="a particle of weight w is drawn n w times, rounded up or down, and one random number did it.",
)


# 9.5 A guided model of the reader's own: what is measured are its samples.

CORNERS = four_corners().means
ACCURATE, DIVERSE = 0.95, 0.6
NEAR = 0.2  # twice what the chapter's network reaches at w = 2, .1; with one midpoint step it ends .25 away or more


@cache
def _fields() -> tuple[Any, list[Any]]:
    corners = four_corners()
    classes = [GaussianMixture(corners.means[k : k + 1], corners.covariances[k : k + 1]) for k in range(4)]
    return corners.marginal_velocity(linear), [law.marginal_velocity(linear) for law in classes]


def led(x_0: Tensor, label: Tensor, field: Callable[[Any, Any], Any], steps: int = 20) -> Tensor:
    """Samples of the flow of field(u, c), made of the exact velocities of all data and of the class."""
    u, classes = _fields()
    ends = torch.stack([odeint(field(u, c), x_0, steps=steps, method=MIDPOINT) for c in classes])
    return ends[label, torch.arange(len(x_0))]


def exactly_guided(
    x_0: Tensor, label: Tensor, scale: Scale = 2.0, combine: Combine = extrapolate, steps: int = 20
) -> Tensor:
    """Samples of the exact guided flow."""
    return led(x_0, label, lambda u, c: guided(u, c, scale, combine=combine), steps)


def folded(x: Tensor, label: Tensor) -> Tensor:
    """Each point reflected into the quadrant of its corner."""
    return x.abs() * CORNERS[label].sign()


def _times(k: float) -> Callable[[Any, Any], Any]:
    return lambda _, c: lambda x, t: k * c(x, t)


NOISE, LABEL = torch.randn(2000, 2, generator=torch.Generator().manual_seed(9)), torch.arange(4).repeat(500)


@cache
def _exact() -> tuple[dict[str, Tensor], ...]:
    """Where exact flows carry the noise, too little guided and enough, and where what is no guidance does, by name."""
    little, enough = (
        {f"w = {w:g}": exactly_guided(NOISE, LABEL, w) for w in scales}
        for scales in ((0.0, 0.5, 1.0, 1.25, 1.5), (1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0))
    )
    star = {
        f"w = {w:g} of CFG-Zero*": exactly_guided(NOISE, LABEL, w, zero_star) for w in (2.0, 2.5, 3.0, 3.5)
    }
    wrong = {
        f"this is {k:g} times the velocity of the class, and not guided, so that it grows with the distance. Guidance "
        "is u + w (c - u), and needs the velocity without the label as well": led(NOISE, LABEL, _times(k))
        for k in (1.5, 2.0)
    }
    wrong[
        "these are the samples of w = 1, and those in another quadrant were reflected into the one asked for: each is "
        "near its corner, and the law is not that of a guided flow"
    ] = folded(little["w = 1"], LABEL)
    return little, enough | star, wrong


def _nearest(x: Tensor, ends: dict[str, Tensor]) -> tuple[float, str]:
    """The least root mean square distance of the samples to any of those ends, and the name of these."""
    return min((float((x - end).square().sum(1).mean().sqrt()), name) for name, end in ends.items())


def _unbent(x: Tensor) -> float:
    """How far the samples are from an affine function of the noise in each class: 0.06 to 0.09 for guided flows."""
    affine = torch.cat([NOISE, torch.ones(len(NOISE), 1)], dim=1)
    rest = [
        points - noise @ torch.linalg.lstsq(noise, points).solution
        for noise, points in ((affine[k::4], x[k::4]) for k in range(4))
    ]
    return float(torch.cat(rest).square().sum(1).mean().sqrt())


def _measures(x: Tensor, label: Tensor) -> tuple[float, float]:
    """The share that lies nearest to the corner asked for, and the spread of a class over that of the true one."""
    right = torch.cdist(x, CORNERS).argmin(1) == label
    spread = torch.stack([x[label == k].std(0).mean() for k in range(4)]).mean() / 0.8
    return float(right.double().mean()), float(spread)


def _samples(my_sampler: Answer) -> Tensor:
    with torch.no_grad():
        x = my_sampler(NOISE, LABEL)
        require(x, NOISE, "my_sampler(x_0, label)")
        part = my_sampler(NOISE[:400], LABEL[:400])
    if not alike(part, x[:400], 1e-4):
        raise GradeError(
            "a point's sample depends on the other points of the batch, or on chance: one noise and one label must "
            "always give the same sample"
        )
    accurate, diverse = _measures(x, LABEL)
    told = (
        f"{100 * accurate:.1f}% of your samples are nearest to their corner (wanted: {100 * ACCURATE:.0f}% or more), "
        f"and their spread is {diverse:.2f} of the true class's (wanted: {DIVERSE} or more)"
    )
    little, enough, wrong = _exact()
    distance, name = _nearest(x, enough if accurate >= ACCURATE else little | enough)
    other, reason = _nearest(x, wrong)
    if other < min(distance, NEAR):
        raise GradeError(f"{told}. But {reason}")
    far = (
        f"{told}. But they end {distance:.2f} away from where any exact guided flow ends (allowed: {NEAR}; the "
        f"nearest has {name}). Is it w (c - u) that is added to u, has the network learned enough, and are the "
        "solver's steps small?"
    )
    if accurate < ACCURATE:
        if alike(x, NOISE, 1e-3):
            raise GradeError(f"{told}; they are the noise itself")
        if (x * CORNERS[LABEL]).sum(1).mean() < 0 and diverse > 1.3:
            raise GradeError(
                f"{told}; they are led away from the class: are u and c swapped? c is the velocity with the label, "
                "u the one without, and guidance is u + w (c - u)"
            )
        shifted = max(_measures(x, (LABEL + k) % 4)[0] for k in (1, 2, 3))
        if shifted > max(accurate, 0.5):
            raise GradeError(f"{told}; they go to the corner of another label: are labels mixed up?")
        if accurate < 0.4:
            raise GradeError(
                f"{told}; the label seems to say nothing: is it given to the network, in both halves?"
            )
        if distance > NEAR:
            raise GradeError(far)
        raise GradeError(f"{told}. The exact flow that ends nearest to yours has {name}: guide further")
    if diverse < DIVERSE:
        raise GradeError(f"{told}. All are where they should be, and too much alike: take a smaller scale")
    if _unbent(x) < 0.01:
        raise GradeError(
            f"{told}. But in each class they are an affine function of x_0, the noise shifted and scaled, which no "
            "guided flow of this data is: let a network learn the velocity, guide it, and follow it"
        )
    if distance > NEAR:
        raise GradeError(far)
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
