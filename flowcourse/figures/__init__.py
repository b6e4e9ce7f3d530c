"""Figures: matplotlib as the course uses it, and its figures in the page."""

from flowcourse.figures.style import (
    colors,
    density,
    lines,
    loglog_order,
    panels,
    plane,
    quiver,
    scatter,
    show,
    trajectories,
    use,
    warped_grid,
)

__all__ = [
    "colors",
    "density",
    "lines",
    "loglog_order",
    "panels",
    "plane",
    "quiver",
    "scatter",
    "show",
    "trajectories",
    "use",
    "warped_grid",
]
