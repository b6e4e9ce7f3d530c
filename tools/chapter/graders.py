"""The exercises of chapter {{number}}, {{title}}."""

from __future__ import annotations

import torch

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import Probe, on

# What answers are tried on
X_0, X_1 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)

choice(
    "{{number}}.1",
    "Where time begins",
    "A point travels on the straight line from x₀ to x₁. Where is it at t = 0.25?",
    Option(
        "At x₀ / 4 + 3 x₁ / 4.",
        "Time runs backwards: there it is at t = 0.75. Noise is at t = 0 and data at t = 1.",
    ),
    Option(
        "At 3 x₀ / 4 + x₁ / 4.",
        "After a quarter of the time a quarter of the way lies behind it.",
        right=True,
    ),
    Option(
        "At x₁ / 4.",
        "That is t x₁: where it started is missing. At t = 0 the point must be at x₀, and this is at 0.",
    ),
    Option(
        "At (x₁ - x₀) / 4.",
        "That is how far the point has come, t (x₁ - x₀). Add x₀, the place where it started.",
    ),
    hints=(
        "Where is the point at t = 0, and where at t = 1?",
        "It moves at constant speed.",
        "A quarter of the way from x₀ toward x₁.",
    ),
)


exercise(
    "{{number}}.2",
    "A point on its way",
    "point(x_0, x_1, t)",
    Probe(on(X_0, X_1, T), "the result is not (1 - t) x_0 + t x_1"),
    right=lambda x_0, x_1, t: torch.lerp(x_0, x_1, t[:, None]),
    mistakes=[
        (
            "time runs backwards: at t = 0 the point is at x_0",
            lambda x_0, x_1, t: torch.lerp(x_1, x_0, t[:, None]),
        ),
        (
            "this is how far the point has come; add x_0, where it started",
            lambda x_0, x_1, t: t[:, None] * (x_1 - x_0),
        ),
    ],
    hints=(
        "The weights of x₀ and x₁ add up to one.",
        "Times are (B,) and points (B, d): give the times a second axis.",
        "t[:, None] multiplies x₁, and one minus it multiplies x₀.",
    ),
    insight="A path is an average of its two ends, with weights that the time decides.",
)
