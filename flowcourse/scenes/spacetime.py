"""Trajectories on the line against time: where solutions are unique and last, and where they are and do not."""

from __future__ import annotations

from collections.abc import Sequence

from flowcourse.explorables import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SQUARE,
    Control,
    Explorable,
    Panel,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
)

SCALARS = {  # label, the two starts
    "forced": ("x′ = 2 sin 3t − x", 1.5, -1.0),
    "root": ("x′ = √|x|", 0.0, -0.5),
    "square": ("x′ = x²", 1.0, -0.5),
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
    known = bool(fields) and not set(fields) - set(SCALARS)
    require(known, f"fields can hold {', '.join(SCALARS)}, got {list(fields)}")
    end, low, high = 3.0, -1.5, 2.5
    if description is None:
        description = (
            "Time t runs to the right and position x upwards, with short arrows for the slope of solutions "
            "everywhere. Two curves start at t = 0, a circle and a square, at heights that the reader chooses."
        )
    _, a, b = SCALARS[fields[0]]
    controls: list[Control] = [
        row(PLAY, range_control("t", "Time", "t", 1.0, top=end), RESET),
        select_control("field", "Field", [SCALARS[name][0] for name in fields]),
        range_control("a", "Circle starts at", "x₀", a, low=low, top=high),
        range_control("b", "Square starts at", "x₀", b, low=low, top=high),
    ]
    legend = [("source", DOT, "from the circle"), ("data", SQUARE, "from the square")]
    if "root" in fields:
        controls.append(range_control("tau", "Waiting until", "τ", 1.0, top=end))
        legend.append(("path", LINE, "other solutions from the same start"))
    if "square" in fields:
        legend.append(("error", DASHES, "where a solution ends"))
    described = {label: {"kind": name, "a": a, "b": b} for name in fields for label, a, b in [SCALARS[name]]}
    return Explorable(
        "spacetime",
        {"fields": described, "end": end, "low": low, "high": high},
        controls,
        description,
        panels=[[Panel(description)]],
        title=title,
        legend=legend_entries(*legend),
        caption=caption,
    )
