"""The solver playground: one trajectory, exact and in steps, where a step reads the field, what the error costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowcourse.explorables import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    RING,
    Explorable,
    Panel,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
    stops_control,
    table,
)
from flowcourse.scenes.flow import STEPS, described_field, require_steps
from flowlib.fields import Field
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, Tableau

PLANE: dict[str, Any] = {"wide": (428, 384), "narrow": (354, 384)}  # a plane, and the chart beside it
CHART: dict[str, Any] = {"wide": (280, 384), "narrow": (354, 332)}
WAY = DASHES + '<path d="M15 2h8v8h-8z" fill="currentColor"/>'
STEP = '<path d="M1 6h22" stroke="currentColor" stroke-width="2"/><circle cx="12" cy="6" r="3.6" fill="currentColor"/>'


def solver_explorer(
    fields: Mapping[str, Field],
    *,
    methods: Sequence[Tableau] = (EULER, MIDPOINT, HEUN, RK4),
    steps: int = 4,
    start: tuple[float, float] = (1.0, 0.0),
    window: float = 2.0,
    time: float = 0.3,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """A solver at work on one trajectory, beside what its error costs.

    In the plane the reader drags the start x_0 and sees the exact trajectory, the solver's steps and, for the step in
    which the time t lies, its stages: the places where the step reads the field and the arrows k_i that it reads there.
    The chart shows the error at t = 1 against evaluations of the field, both in logarithms, for all methods with 1 to
    64 steps. "Exact" is RK4 with 512 steps.

    Args:
        fields: the fields to choose from, by name: `LinearField`, `TravelingVortex`, or the marginal velocity of the
            linear path from N(0, I) to a Gaussian mixture in the plane. With one there is no choice.
        methods: the solvers to choose from; the first is shown at first.
        steps: how many equal steps the method takes from t = 0 to t = 1, at first.
        start: where the trajectory starts at first.
        window: half the height of what is seen of the plane, in its units.
        time: the time at which the figure opens.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a field that the browser cannot compute; the message names it.
        ValueError: no fields or methods, two methods of one name, or numbers out of range.
    """
    require(
        bool(fields) and bool(methods),
        f"a solver explorer needs a field and a method, got {len(fields)} and {len(methods)}",
    )
    names = [m.name for m in methods]
    require(len(set(names)) == len(names), f"methods must have different names, got {names}")
    require_steps(steps)
    require(0 < window < math.inf, f"window must be positive, got {window}")
    require_start(start, window)
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    described = {name: described_field(name, field) for name, field in fields.items()}
    if description is None:
        description = (
            f"From one start, the exact trajectory of a velocity field ({', '.join(fields)}) and the path of a solver "
            f"({', '.join(names)}) that takes N straight steps from t = 0 to t = 1, with the gap between their ends, "
            "and the places where one step reads the field."
        )
    chart = (
        "The error at t = 1 against the number of evaluations of the field, both in logarithms, one line for each of "
        f"{', '.join(names)}, with 1 to 64 steps; the steeper a line falls, the higher the method's order."
    )
    return Explorable(
        "solver",
        {
            "fields": described,
            "methods": {m.name: {**table(m), "order": m.order} for m in methods},
            "reference": table(RK4),
            "start": list(start),
            "window": window,
        },
        [
            row(PLAY, range_control("t", "Time", "t", time), RESET),
            select_control("field", "Field", fields),
            select_control("method", "Solver", names),
            stops_control("steps", "Steps", "N", sorted({*STEPS, steps}), steps),
        ],
        description,
        panels=[
            [
                Panel(
                    f"{description} Arrow keys move the start, with Shift by larger steps.",
                    **PLANE,
                    name="<b>Steps</b>, and where one reads the field",
                    drawable=True,
                ),
                Panel(chart, **CHART, name="<b>Error</b> at <i>t</i> = 1, and its cost"),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("source", DOT, "start x₀: drag it"),
            ("truth", WAY, "exact"),
            ("path", STEP, "solver’s steps"),
            ("ink", RING, "where this step reads the field"),
            ("error", LINE, "error at t = 1"),
        ),
        caption=caption,
        lines=2,
    )


def require_start(start: Sequence[float], window: float) -> None:
    """Raise ValueError unless the start is a place in the window."""
    good = len(start) == 2 and all(abs(x) <= window for x in start)
    require(good, f"start must be two numbers within the window of {window}, got {start}")
