"""The change of variables on the line: a map whose shape the reader drags, and the density that it makes of noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from flowcourse.explorables import (
    LINE,
    RESET,
    SHADE,
    Explorable,
    Panel,
    legend_entries,
    range_control,
    require,
    row,
)

BOUND = 3.0  # the outermost knots, which stay where they are
KNOTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
PLACES = (-2.5, 2.0)  # where the interval may start
GAP = 0.1  # between the heights of neighboring knots, at least
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
        interval: x and dx at first, with PLACES[0] <= x <= PLACES[1] and 0.05 <= dx <= 1.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: heights that do not ascend, are not five or not within, or an interval out of range.
    """
    y = [round(float(h), 2) for h in heights]
    ends = [-BOUND, *y, BOUND]
    require(
        len(y) == len(KNOTS) and all(b - a >= GAP - 1e-9 for a, b in pairwise(ends)),
        f"heights must be {len(KNOTS)} numbers within ({-BOUND:g}, {BOUND:g}) that ascend by {GAP} or more, got {y}",
    )
    x, dx = map(float, interval)
    require(
        PLACES[0] <= x <= PLACES[1] and 0.05 <= dx <= 1,
        f"the interval must have x in [-2.5, 2] and dx in [0.05, 1], got {(x, dx)}",
    )
    if description is None:
        description = (
            "A rising curve takes each place x of an axis at the bottom, on which a bell curve stands, to a place y of "
            "an axis at the left, on which the density of y = T(x) stands sideways: high where the curve is flat, low "
            "where it is steep. A short interval of x and its image on the y axis are shaded, with equal areas."
        )
    middle = len(KNOTS) // 2
    hint = (
        "Left and right arrow keys choose a knot, up and down arrow keys move it, with Shift by larger steps."
    )
    return Explorable(
        "variables",
        {"bound": BOUND, "knots": KNOTS, "heights": y, "places": PLACES},
        [
            row(
                range_control("x", "Place", "x", x, low=PLACES[0], top=PLACES[1]),
                range_control("dx", "Length", "dx", dx, low=0.05, top=1.0),
                RESET,
            ),
            range_control("knot", "Knot", "k", middle + 1, low=1, top=len(KNOTS), digits=0),
            range_control("y", "Its height", "yₖ", y[middle], low=-BOUND, top=BOUND),
        ],
        description,
        panels=[[Panel(f"{description} {hint}", wide=(720, 514), narrow=(354, 384), drawable=True)]],
        title=title,
        legend=legend_entries(
            ("source", SHADE, "density q of the noise x"),
            ("path", LINE, "map T"),
            ("path", KNOB, "its knots: drag them"),
            ("ink", LINE, "slope at x"),
            ("data", SHADE, "density p of y = T(x)"),
        ),
        caption=caption,
        lines=2,
    )
