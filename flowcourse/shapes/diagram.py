"""A block of the MMDiT, drawn (chapter 10)."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from flowcourse.palette import LIGHT

COLUMNS = {"patches $x$": (2.0, "data"), "words $y$": (8.0, "source")}  # where they stand, and their colors
NORM, MIX = r"norm,  $a(c)$,  $b(c)$", r"mix heads,  gate $g(c)$"
# what each column has of its own, with heights; the attention stands between the second and the third
OWN = {
    9.3: NORM,
    8.0: "queries, keys, values",
    5.2: MIX,
    3.0: NORM,
    1.7: r"perceptron,  gate $g(c)$",
}
PLUS = (4.1, 0.6)  # where what was there is added: around the attention, around the perceptron
MODULATED = (9.3, 5.2, 3.0, 1.7)  # what c acts on


def joint_block() -> Figure:
    """The block that `JointBlock` of flowlib computes, from the top to the bottom."""
    fig, ax = plt.subplots(figsize=(4.7, 4.9))
    ax.set(xlim=(-0.6, 10.6), ylim=(-0.7, 11.2))
    ax.axis("off")
    for name, (x, role) in COLUMNS.items():
        side = -1 if x < 5 else 1
        ax.text(x, 10.8, name, ha="center", va="center")
        heights = sorted([10.45, *OWN, 6.6, *PLUS, -0.4], reverse=True)
        half = {10.45: 0.0, -0.4: 0.0} | dict.fromkeys(PLUS, 0.27)
        for start, end in itertools.pairwise(heights):
            above, below = start - half.get(start, 0.42), end + half.get(end, 0.42)
            _arrow(ax, (x, above), (x, below), role)
        for y, text in OWN.items():
            _box(ax, x, y, 3.9, text, role)
        for top, y in zip((10.2, 3.68), PLUS, strict=True):
            out = x + 2.35 * side
            ax.plot([x, out, out, x + 0.3 * side], [top, top, y, y], color=LIGHT[role], linewidth=1.2)
            ax.plot([x], [y], "o", markersize=13, markerfacecolor="none", color=LIGHT[role])
            ax.text(x, y - 0.03, "+", ha="center", va="center")
    _box(ax, 5.0, 6.6, 9.9, "one attention: all tokens see all tokens", "model")
    ax.plot([5, 5], [10.1, 1.7], color=LIGHT["muted"], linewidth=1.2, linestyle=(0, (3, 2)), zorder=0)
    ax.text(5, 10.75, "$c$: time and\npooled text", ha="center", va="center", fontsize=9.5)
    for y in MODULATED:
        for to in (3.95, 6.05):
            _arrow(ax, (5, y), (to, y), "muted")
    return fig


def _box(ax: Axes, x: float, y: float, width: float, text: str, role: str) -> None:
    corner = (x - width / 2, y - 0.42)
    box = FancyBboxPatch(corner, width, 0.84, boxstyle="round,pad=0,rounding_size=0.15", linewidth=1.4)
    box.set(edgecolor=LIGHT[role], facecolor=LIGHT["page"])
    ax.add_patch(box)
    ax.text(x, y - 0.02, text, ha="center", va="center", fontsize=9.5)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], role: str) -> None:
    style = {"arrowstyle": "-|>", "color": LIGHT[role], "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style, zorder=0)
