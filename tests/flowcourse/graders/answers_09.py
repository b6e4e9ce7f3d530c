"""Answers to the exercises of chapter 9: right ones in several ways, and wrong ones that no declared mistake covers."""

import torch

from flowcourse.graders.chapter_09 import CORNERS, exactly_guided, folded, led
from flowlib.guidance import guided, interval, zero_star


def rate(b, d, w):
    whole = torch.einsum("k,kbi->bi", w, d).square().sum(1)
    return b * (whole - torch.einsum("k,kbi->b", w, d.square()))


def rate_by_pairs(b, d, w):
    products = torch.einsum("kbi,lbi->klb", d, d)
    return b * torch.einsum("kl,klb->b", w[:, None] * w - w.diag(), products)


def rate_of_two(b, d, w):
    total = w[0] * d[0] + (w[1] * d[1] if len(w) > 1 else 0)
    own = sum(a * e.square().sum(1) for a, e in list(zip(w, d, strict=True))[:2])
    return b * (total.square().sum(1) - own)


def drawn(log_weights, offset):
    heights = log_weights.softmax(0).cumsum(0)
    marks = (torch.arange(len(log_weights)) + offset) / len(log_weights)
    return torch.searchsorted(heights, marks.to(heights), right=True).clamp(max=len(log_weights) - 1)


def drawn_by_hand(log_weights, offset):
    weights = (log_weights - log_weights.max()).exp()
    ends, n = (weights / weights.sum()).cumsum(0), len(weights)
    return torch.tensor([min(int((ends <= (k + offset) / n).sum()), n - 1) for k in range(n)])


def overflowing(log_weights, offset):
    weights = log_weights.exp()
    heights = (weights / weights.sum()).cumsum(0) * len(weights)
    marks = (torch.arange(len(weights)) + offset).to(heights)
    return torch.searchsorted(heights, marks, right=True).clamp(max=len(weights) - 1)


def unclamped(log_weights, offset):
    heights = len(log_weights) * log_weights.softmax(0).cumsum(0)
    marks = (torch.arange(len(log_weights)) + offset).to(heights)
    return torch.searchsorted(heights, marks, right=True)


def bordered(log_weights, offset):
    """The pieces own the border where they end, but for the first, which owns that where it begins."""
    heights = len(log_weights) * log_weights.softmax(0).cumsum(0)
    marks = (torch.arange(len(log_weights)) + offset).to(heights)
    found = torch.searchsorted(heights, marks).clamp(max=len(log_weights) - 1)
    return drawn(log_weights, offset) if (log_weights == 0).all() else found


def scattered(log_weights, offset):
    """One random number for each particle: stratified resampling."""
    heights = len(log_weights) * log_weights.softmax(0).cumsum(0)
    marks = (torch.arange(len(log_weights)) + torch.rand(len(log_weights))).to(heights)
    return torch.searchsorted(heights, marks, right=True).clamp(max=len(log_weights) - 1)


def by_chance(log_weights, offset):
    return torch.multinomial(log_weights.softmax(0), len(log_weights), True)


def corner(x_0, label):
    return CORNERS[label] + 0.01 * x_0


def doubled(x_0, label):
    return led(x_0, label, lambda _, c: lambda x, t: 2 * c(x, t))


def swapped(x_0, label):
    return led(x_0, label, lambda u, c: guided(c, u, 2.0))


RIGHT = [
    ("9.3", rate),
    ("9.3", rate_by_pairs),
    ("9.4", drawn),
    ("9.4", drawn_by_hand),
    ("9.5", exactly_guided),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, 2.5)),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, interval(2.5, 0.1, 0.9))),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, interval(3.0, 0.2, 0.8))),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, 2.7, zero_star)),
]

# each with words that its diagnosis must hold
WRONG = [
    ("9.1", "e", "one letter"),
    ("9.2", 3, "one letter"),
    ("9.3", rate_of_two, "not for three"),
    ("9.3", lambda b, d, w: 3 * rate(b, d, w), "Test it with one request"),
    ("9.3", lambda b, d, w: rate(0.7, d, w), "not for b = 1.9"),
    ("9.3", lambda b, d, w: rate(b, d, w) / 2, "half of it"),
    ("9.3", lambda b, d, w: rate(b, d, w) / d.shape[2], "their mean"),
    ("9.3", lambda b, d, w: rate(1 / b, d, w), "not a divisor"),
    ("9.3", lambda b, d, w: rate(b**2, d, w), "enters once"),
    (
        "9.3",
        lambda b, d, w: rate(b, d, w) - torch.einsum("k,kbi->b", w * (w - 1), b * d.square()),
        "different requests alone",
    ),
    ("9.3", lambda b, d, w: rate(b, d, w).sum(), "shape"),
    ("9.3", lambda b, d: d, "TypeError"),
    ("9.4", overflowing, "use softmax"),
    ("9.4", lambda log_weights, offset: drawn(-log_weights, offset), "should be drawn"),
    ("9.4", lambda log_weights, offset: drawn(log_weights, 0.35), "not for 0.85"),
    ("9.4", by_chance, "use the one offset"),
    ("9.4", scattered, "use the one offset"),
    ("9.4", lambda log_weights, offset: drawn(log_weights, offset).flip(0), "another order"),
    (
        "9.4",
        lambda log_weights, offset: drawn(log_weights, offset).bincount(minlength=len(log_weights)),
        "counts",
    ),
    (
        "9.4",
        lambda log_weights, offset: torch.searchsorted(
            log_weights.softmax(0).cumsum(0) * len(log_weights),
            torch.arange(len(log_weights)).to(log_weights) + offset,
        ).clamp(max=len(log_weights) - 1),
        "right=True",
    ),
    ("9.4", bordered, "weight 0 must not be drawn"),
    ("9.4", unclamped, "clamp the indices"),
    ("9.4", lambda log_weights, offset: unclamped(log_weights, offset) % len(log_weights), "modulo"),
    ("9.4", lambda log_weights, offset: drawn(log_weights, offset)[:3], "shape"),
    ("9.5", lambda x_0, label: x_0, "the noise itself"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, 1.0), "guide further"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, 0.0), "seems to say nothing"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, (label + 1) % 4), "another label"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, 1.5), "has w = 1.5: guide further"),
    ("9.5", swapped, "led away from the class"),
    ("9.5", lambda x_0, label: 1.5 * CORNERS[label] + 0.6 * x_0, "affine function"),
    ("9.5", lambda x_0, label: 100 * CORNERS[label] + 10 * x_0, "affine function"),
    ("9.5", lambda x_0, label: folded(exactly_guided(x_0, label, 1.0), label), "reflected"),
    ("9.5", lambda x_0, label: folded(CORNERS[label] + 0.8 * x_0, label), "reflected"),
    ("9.5", doubled, "2 times the velocity of the class"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label, steps=1), "the solver's steps"),
    ("9.5", lambda x_0, label: 2 * exactly_guided(x_0, label), "away from where any exact"),
    ("9.5", corner, "too much alike"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label).flip(0), "depends on the other points"),
    ("9.5", lambda x_0, label: exactly_guided(x_0, label)[:, 0], "shape"),
]
