"""Trajectories on the line against time: where solutions are unique and last, and where they are and do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SQUARE,
    Explorable,
    legend_entries,
    panel,
    polylines,
    range_control,
    select_control,
    stroke,
)
from flowlib.fields import Field
from flowlib.solvers import RK4, trajectory


def _forced(x: Tensor, t: Tensor | float) -> Tensor:
    return 2 * math.sin(3 * float(t)) - x


SCALARS: dict[str, tuple[str, float, float, Field]] = {  # label, the two starts, velocity
    "forced": ("x′ = 2 sin 3t − x", 1.5, -1.0, _forced),
    "root": ("x′ = √|x|", 0.0, -0.5, lambda x, t: x.abs().sqrt()),
    "square": ("x′ = x²", 1.0, -0.5, lambda x, t: x.square()),
}


def spacetime_explorer(
    fields: Sequence[str] = ("forced", "root", "square"),
    *,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Solutions of x' = v(x, t) on the line against time, from two starts that the reader drags.

    Args:
        fields: which to choose from. "forced" is x' = 2 sin 3t - x, Lipschitz: solutions exist, are unique and never
            meet. "root" is x' = sqrt|x|, not Lipschitz at 0: solutions meet there, and may wait until any time tau.
            "square" is x' = x^2, Lipschitz only locally: the solution from x_0 > 0 ends at t* = 1 / x_0.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: no field, or an unknown one.
    """
    if not fields or set(fields) - set(SCALARS):
        raise ValueError(f"fields can hold {', '.join(SCALARS)}, got {list(fields)}")
    end, low, high, time = 3.0, -1.5, 2.5, 1.0
    if description is None:
        description = (
            "Time t runs to the right and position x upwards, with short arrows for the slope of solutions "
            "everywhere. Two curves start at t = 0, a circle and a square, at heights that the reader chooses."
        )
    _, a, b, v = SCALARS[fields[0]]
    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", time, top=end)}{RESET}</div>'
    if len(fields) > 1:
        controls += select_control("field", "Field", [SCALARS[name][0] for name in fields])
    controls += range_control("a", "Circle starts at", "x₀", a, low=low, top=high)
    controls += range_control("b", "Square starts at", "x₀", b, low=low, top=high)
    if "root" in fields:
        controls += range_control("tau", "Waiting until", "τ", 1.0, top=end)

    # The still picture lies in the panel without its margin, which it fills: t and x need no common scale.
    places = torch.cartesian_prod(torch.arange(0.1, end, 0.2), torch.arange(low + 0.1, high, 0.2)).double()
    slopes = torch.stack([v(x[None], t)[0] for t, x in places])
    directions = torch.nn.functional.normalize(torch.stack([torch.ones_like(slopes), slopes], dim=1)) / 16
    drawn = stroke("ink", 1, f"M0 {-100 * high:g}V{-100 * low:g}H{100 * end:g}", ' opacity=".6"')
    drawn += stroke("muted", 1, polylines(torch.stack([places - directions, places + directions], dim=1)))
    start = torch.tensor([[a], [b]], dtype=torch.float64)
    times, states = trajectory(v, start, t1=0.99 * end, steps=90, method=RK4)
    for role, x in zip(("source", "data"), states.squeeze(-1).T, strict=True):
        curve = torch.stack([times, x], dim=1)[x < 2 * high][None, ::3]
        cap = ' stroke-linecap="square"' * (role == "data")
        drawn += stroke(role, 3, polylines(curve)) + stroke(role, 16, f"M0 {-100 * x[0]:.0f}h0", cap)
    still = (
        f'<svg class="flow-still flow-inset" viewBox="0 {-100 * high:g} {100 * end:g} {100 * (high - low):g}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(description)}" fill="none" '
        f'stroke-linecap="round">{drawn}</svg>'
    )
    legend = [("source", DOT, "from the circle"), ("data", SQUARE, "from the square")]
    if "root" in fields:
        legend.append(("path", LINE, "other solutions from the same start"))
    if "square" in fields:
        legend.append(("error", DASHES, "where a solution ends"))
    described = {
        SCALARS[name][0]: {"kind": name, "a": SCALARS[name][1], "b": SCALARS[name][2]} for name in fields
    }
    return Explorable(
        "spacetime",
        {"fields": described, "end": end, "low": low, "high": high},
        f'<div class="flow-stage">{panel(still, description)}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )
