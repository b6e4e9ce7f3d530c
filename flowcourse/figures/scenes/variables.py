"""The change of variables on the line: a map whose shape the reader drags, and the density that it makes of noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    LINE,
    RESET,
    SHADE,
    Explorable,
    legend_entries,
    panel,
    range_control,
    stroke,
)
from flowlib.splines import rational_quadratic_spline

BOUND = 3.0  # the outermost knots, which stay where they are
KNOTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
GAP = 0.1  # between the heights of neighboring knots, at least
SEEN = 3.25  # how much of x and y is seen
ITALIC = 'font-style="italic" font-size="17" font-family="Times New Roman, serif"'
KNOB = '<circle cx="12" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="3"/>'


def change_of_variables_explorer(
    *,
    heights: Sequence[float] = (-1.9, -1.5, 0.3, 1.6, 2.0),
    interval: tuple[float, float] = (1.2, 0.4),
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """What an increasing map y = T(x) of the line does to the density q of N(0, 1):

        p(y) = q(x) / T'(x),      so that the areas over [x, x + dx] and over its image are equal.

    T is a rational-quadratic spline (`flowlib.splines`) with knots at x = -2, -1, 0, 1, 2, whose heights the reader
    drags, and the identity outside of [-3, 3]. Its slope at a knot is the harmonic mean of those of the two chords
    that meet there, so that T is flat next to a flat stretch. The areas in the text line are those of the drawn
    polygons, each from the heights of its own density.

    Args:
        heights: T at the five knots at first, ascending within (-3, 3) by 0.1 or more.
        interval: x and dx at first, with -2.5 <= x <= 2 and 0.05 <= dx <= 1.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: heights that do not ascend, are not five or not within, or an interval out of range.
    """
    y = [round(float(h), 2) for h in heights]
    if len(y) != len(KNOTS) or any(
        b - a < GAP - 1e-9 for a, b in zip([-BOUND, *y], [*y, BOUND], strict=True)
    ):
        raise ValueError(
            f"heights must be {len(KNOTS)} numbers within ({-BOUND:g}, {BOUND:g}) that ascend by {GAP} or more, got {y}"
        )
    x, dx = map(float, interval)
    if not (-2.5 <= x <= 2 and 0.05 <= dx <= 1):
        raise ValueError(f"the interval must have x in [-2.5, 2] and dx in [0.05, 1], got {(x, dx)}")
    if description is None:
        description = (
            "A rising curve takes each place x of an axis at the bottom, on which a bell curve stands, to a place y of "
            "an axis at the left, on which the density of y = T(x) stands sideways: high where the curve is flat, low "
            "where it is steep. A short interval of x and its image on the y axis are shaded, with equal areas."
        )
    middle = len(KNOTS) // 2
    controls = f'<div class="flow-time">{range_control("x", "Place", "x", x, low=-2.5, top=2.0)}'
    controls += f"{range_control('dx', 'Length', 'dx', dx, low=0.05, top=1.0)}{RESET}</div>"
    controls += range_control("knot", "Knot", "k", middle + 1, low=1, top=len(KNOTS), digits=0)
    controls += range_control("y", "Its height", "yₖ", y[middle], low=-BOUND, top=BOUND)
    legend = [
        ("source", SHADE, "density q of the noise x"),
        ("path", LINE, "map T"),
        ("path", KNOB, "its knots: drag them"),
        ("ink", LINE, "slope at x"),
        ("data", SHADE, "density p of y = T(x)"),
    ]
    hint = (
        "Left and right arrow keys choose a knot, up and down arrow keys move it, with Shift by larger steps."
    )
    still = _still(torch.tensor(y, dtype=torch.float64), x, dx, description)
    return Explorable(
        "variables",
        {"bound": BOUND, "knots": KNOTS, "heights": y},
        f'<div class="flow-stage flow-map">{panel(still, f"{description} {hint}", drawable=True)}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )


def spline(heights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """T(x) and T'(x) of the map through the knots with these heights (5,)."""
    ends = torch.tensor([BOUND], dtype=heights.dtype)
    xs = torch.cat([-ends, torch.tensor(KNOTS, dtype=heights.dtype), ends])
    ys = torch.cat([-ends, heights, ends])
    chords = ys.diff() / xs.diff()
    slopes = 2 / (1 / chords[:-1] + 1 / chords[1:])
    y, log_slope = rational_quadratic_spline(x, xs.diff(), ys.diff(), slopes, bound=BOUND)
    return y, log_slope.exp()


def _still(heights: Tensor, x: float, dx: float, alt: str) -> str:
    """What the scene draws at first, as SVG in pixels."""
    width, height = 752.0, 537.0
    strip = 0.28 * height
    size = height - 36 - strip
    unit, floor, tall = size / (2 * SEEN), height - 30, (strip - 24) / 0.4

    def across(x: float) -> float:
        return width - 6 - size + (x + SEEN) * unit

    def up(y: float) -> float:
        return 6 + (SEEN - y) * unit

    def trace(places: Tensor) -> list[tuple[float, float, float, float]]:
        """Rows of x, q(x), y and p(y)."""
        y, slope = spline(heights, places)
        q = (-places.square() / 2).exp() / math.sqrt(2 * math.pi)
        return [tuple(row) for row in torch.stack([places, q, y, q / slope], dim=1).tolist()]

    def line(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)

    def fill(role: str, path: str, opacity: float) -> str:
        return f'<path fill="var(--flow-{role})" d="{path}z" opacity="{opacity}"/>'

    def text(words: str, x: float, y: float, anchor: str = "middle", role: str = "muted") -> str:
        return (
            f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="var(--flow-{role})">{words}</text>'
        )

    everywhere = trace(torch.linspace(-4, 4, 161, dtype=torch.float64))
    some = trace(torch.linspace(x, x + dx, 11, dtype=torch.float64))
    curve = [(across(a), up(y)) for a, _, y, _ in everywhere if abs(a) <= SEEN]
    corner = across(-SEEN), up(SEEN)
    drawn = (
        f'<rect x="{corner[0]:.0f}" y="6" width="{size:.0f}" height="{size:.0f}" stroke="var(--flow-muted)" '
        'opacity=".35"/>'
    )
    diagonal = line([(corner[0], up(-SEEN)), (across(SEEN), corner[1])])
    drawn += stroke("muted", 1, diagonal, ' stroke-dasharray="2 5" opacity=".6"')
    arc = [(across(a), up(y)) for a, _, y, _ in some]
    (start, _, low, _), (end, _, high, _) = some[0], some[-1]
    drawn += fill("path", line([(across(start), floor), *arc, (across(end), floor)]), 0.13)
    drawn += fill("path", line([(30, up(low)), *arc, (30, up(high))]), 0.13)
    for a, y in ((start, low), (end, high)):
        edge = line([(across(a), floor), (across(a), up(y)), (30, up(y))])
        drawn += stroke("path", 1, edge, ' stroke-dasharray="2 4" opacity=".7"')
    for role, rows, opacity in (
        ("source", everywhere, 0.13),
        ("source", some, 0.6),
        ("data", everywhere, 0.13),
        ("data", some, 0.6),
    ):
        if role == "source":
            top = [(across(a), floor - tall * q) for a, q, _, _ in rows]
            shape = [(top[0][0], floor), *top, (top[-1][0], floor)]
        else:
            top = [(30 + tall * p, up(y)) for _, _, y, p in rows]
            shape = [(30.0, top[0][1]), *top, (30.0, top[-1][1])]
        drawn += fill(role, line(shape), opacity)
        if rows is everywhere:
            drawn += stroke(role, 2, line(top))
    drawn += stroke("ink", 1, f"M30 0V{floor:g}H{width:g}", ' opacity=".7"')
    drawn += stroke("path", 3, line(curve))
    (here,), (slope,) = (part.tolist() for part in spline(heights, torch.tensor([x], dtype=torch.float64)))
    long = 46 / math.hypot(1, slope)
    drawn += stroke(
        "ink",
        1.6,
        line(
            [
                (across(x) - long, up(here) + slope * long),
                (across(x) + long, up(here) - slope * long),
            ]
        ),
    )
    knobs = "".join(f"M{across(a):.0f} {up(y):.0f}h0" for a, y in zip(KNOTS, heights.tolist(), strict=True))
    drawn += stroke("path", 16, knobs) + stroke("page", 11, knobs)
    for a in range(-3, 3):
        label = str(a).replace("-", "−")
        drawn += text(label, across(a), height - 12) + text(label, 15, up(a) + 4)
    peak = max((row for row in everywhere if row[0] * (x + dx / 2) < 0), key=lambda row: row[3])
    for words, x, y, role in (
        ("x", across(3), height - 12, "ink"),
        ("y", 15.0, up(3) + 4, "ink"),
        ("q", across(-1.2) - 12, floor - tall * 0.2 - 8, "source"),
        ("p", 45 + tall * peak[3], up(peak[2]) + 4, "data"),
        ("T", across(SEEN) - 16, up(-SEEN) - 12, "path"),
    ):
        drawn += f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="var(--flow-{role})" {ITALIC}>{words}</text>'
    return (
        f'<svg class="flow-still" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alt)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round" font-size="12" font-family="system-ui, sans-serif">'
        f"{drawn}</svg>"
    )
