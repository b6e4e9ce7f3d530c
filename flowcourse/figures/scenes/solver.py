"""The solver playground: one trajectory, exact and in steps, where a step reads the field, what the error costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    RING,
    Explorable,
    arrows,
    dots,
    legend_entries,
    panel,
    polylines,
    range_control,
    select_control,
    stops_control,
    stroke,
    table,
)
from flowcourse.figures.scenes.flow import STEPS, described_field
from flowlib.fields import Field
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, Tableau, odeint, trajectory

COUNTS = (1, 2, 4, 8, 16, 32, 64)  # steps at which the chart shows errors
REFERENCE = 512  # steps of RK4 that stand for the exact trajectory
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
    if not fields or not methods:
        raise ValueError(
            f"a solver explorer needs a field and a method, got {len(fields)} and {len(methods)}"
        )
    names = [m.name for m in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"methods must have different names, got {names}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 64:
        raise ValueError(f"steps must be a whole number from 1 to 64, got {steps!r}")
    if not 0 < window < math.inf:
        raise ValueError(f"window must be positive, got {window}")
    if len(start) != 2 or not all(abs(x) <= window for x in start):
        raise ValueError(f"start must be two numbers within the window of {window}, got {start}")
    if not 0 <= time <= 1:
        raise ValueError(f"time must be in [0, 1], got {time}")
    described = {name: described_field(name, field) for name, field in fields.items()}

    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", time)}{RESET}</div>'
    if len(fields) > 1:
        controls += select_control("field", "Field", fields)
    if len(methods) > 1:
        controls += select_control("method", "Solver", names)
    controls += stops_control("steps", "Steps", "N", sorted({*STEPS, steps}), steps)

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
    v, x = next(iter(fields.values())), torch.tensor([start], dtype=torch.float64)
    _, exact = trajectory(v, x, steps=REFERENCE, method=RK4)
    hint = "Arrow keys move the start, with Shift by larger steps."
    stage = panel(
        _plane(v, exact[:, 0], methods[0], steps, window, time, description),
        f"{description} {hint}",
        "<b>Steps</b>, and where one reads the field",
        drawable=True,
    )
    stage += panel(
        _chart(v, exact[:, 0], methods, steps, chart), chart, "<b>Error</b> at <i>t</i> = 1, and its cost"
    )
    legend = [
        ("source", DOT, "start x₀: drag it"),
        ("truth", WAY, "exact"),
        ("path", STEP, "solver’s steps"),
        ("ink", RING, "where this step reads the field"),
        ("error", LINE, "error at t = 1"),
    ]
    return Explorable(
        "solver",
        {
            "fields": described,
            "methods": {m.name: {**table(m), "order": m.order} for m in methods},
            "reference": table(RK4),
            "start": list(start),
            "window": window,
        },
        f'<div class="flow-stage flow-solver">{stage}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )


def _plane(v: Field, exact: Tensor, method: Tableau, steps: int, window: float, time: float, alt: str) -> str:
    """What the plane shows at first, as SVG."""
    start = exact[:1]
    ticks = torch.arange(-6.5, 7, dtype=torch.float64) * (window / 5)
    places = torch.cartesian_prod(ticks, ticks[1:-1])
    slopes = v(places, time)
    slopes = slopes * (window / 5 / slopes.norm(dim=1).quantile(0.9)).clamp(max=1e9)
    slopes = slopes * (0.18 * window / slopes.norm(dim=1, keepdim=True)).clamp(max=1)
    drawn = stroke("muted", 1.1, arrows(places - slopes / 2, slopes), ' opacity=".6"')

    _, states = trajectory(v, start, steps=steps, method=method)
    found = states[:, 0]
    n = min(int(time * steps), steps - 1)
    now = torch.lerp(found[n], found[n + 1], time * steps - n)
    drawn += stroke("truth", 1.8, polylines(exact[None, ::8]), ' stroke-dasharray="2 5"')
    drawn += stroke("path", 2.5, polylines(torch.cat([now[None], found[n + 1 :]])[None]), ' opacity=".4"')
    drawn += stroke("path", 2.5, polylines(torch.cat([found[: n + 1], now[None]])[None])) + stroke(
        "path", 7, dots(found)
    )
    drawn += stroke("error", 3.5, polylines(torch.stack([exact[-1], found[-1]])[None]))
    drawn += stroke("truth", 9, dots(exact[-1:]), ' stroke-linecap="square"')
    drawn += stroke("source", 17, dots(start))

    h = 1 / steps
    read: list[Tensor] = []
    spots = []
    for row, c in zip(method.a, method.c, strict=True):
        spots.append(found[n] + h * sum((w * k for w, k in zip(row, read, strict=True)), torch.zeros(2)))
        read.append(v(spots[-1][None], (n + c) * h)[0])
    places, slopes = torch.stack(spots), torch.stack(read)
    drawn += stroke(
        "ink", 1.3, polylines(torch.stack([found[n].expand_as(places), places], 1)), ' stroke-dasharray="1 4"'
    )
    drawn += stroke("ink", 2.2, arrows(places, 0.4 * h * slopes))
    drawn += stroke("ink", 12, dots(places)) + stroke("page", 7, dots(places))
    drawn += stroke("path", 11, dots(now[None]))
    size = round(100 * window)
    return (
        f'<svg class="flow-still" viewBox="{-1.2 * size:g} {-size} {2.4 * size:g} {2 * size}" '
        f'preserveAspectRatio="xMidYMid slice" role="img" aria-label="{escape(alt)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round">{drawn}</svg>'
    )


def _chart(v: Field, exact: Tensor, methods: Sequence[Tableau], steps: int, alt: str) -> str:
    """What the chart shows at first, as SVG, in pixels."""

    def error(method: Tableau, N: int) -> float:
        gap = (odeint(v, exact[:1], steps=N, method=method)[0] - exact[-1]).norm()
        return math.log10(min(1e4, max(1e-12, gap.item())))

    curves = [[error(method, N) for N in COUNTS] for method in methods]
    low, high = math.floor(min(map(min, curves))), math.ceil(max(map(max, curves)))
    high = max(high, low + 3)
    most = math.log2(64 * max(m.stages for m in methods))
    width, height, margin = 290.0, 380.0, 34.0

    def place(method: Tableau, N: int, e: float) -> tuple[float, float]:
        right = (math.log2(N * method.stages) + 0.6) / (most + 2)
        return margin + right * (width - margin), (high + 0.35 - e) / (high - low + 0.5) * (height - margin)

    def text(words: str, x: float, y: float, anchor: str = "middle", role: str = "muted") -> str:
        return (
            f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="var(--flow-{role})">{words}</text>'
        )

    def polyline(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)

    drawn = stroke("ink", 1, f"M{margin:g} 0V{height - margin:g}H{width:g}", ' opacity=".6"')
    for k in range(low, high + 1, 2 if high - low > 14 else 1):
        power = str(k).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        drawn += text(f"10{power}", 30, place(EULER, 1, k)[1] + 4, "end")
    for k in range(0, int(most) + 1, 2):
        drawn += text(str(2**k), place(EULER, 2**k, 0)[0], height - 20)
    drawn += text("evaluations of the field", (margin + width) / 2, height - 4)
    labels = []
    for i, (method, curve) in reversed(list(enumerate(zip(methods, curves, strict=True)))):
        points = [place(method, N, e) for N, e in zip(COUNTS, curve, strict=True)]
        role, wide = ("path", 2.5) if i == 0 else ("muted", 1.4)
        dashed = ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 4"', ' stroke-dasharray="8 4 2 4"')
        drawn += stroke(role, wide, polyline(points), dashed[i % 4] * (i > 0))
        drawn += stroke(role, 6, "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points))
        labels.append((points[-1][1], points[-1][0] + 9, method.name, role))
    x, y = place(methods[0], steps, error(methods[0], steps))
    drawn += stroke("error", 15, f"M{x:.1f} {y:.1f}h0")
    last = -math.inf
    for y, x, name, role in sorted(labels):
        last = max(y, last + 14)
        room = width - 4 - 6.5 * len(name)
        drawn += text(escape(name), min(x, room), min(last, height - margin - 8) + 4, "start", role)
    return (
        f'<svg class="flow-still" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alt)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round" font-size="12" font-family="system-ui, sans-serif">'
        f"{drawn}</svg>"
    )
