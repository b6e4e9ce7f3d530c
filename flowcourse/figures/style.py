"""matplotlib as the course uses it: one look, and the few things that chapters draw again and again.

`use()` sets the look, `panels` makes small figures that stack on a phone, and `show` (from `flowcourse.figures.svg`)
turns a figure into a picture that follows the page from light to dark. matplotlib draws; nothing here hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from flowcourse.figures.svg import show as show  # one import for whoever draws
from flowcourse.palette import LIGHT

colors = LIGHT  # the role colors: `colors["source"]`, as in every other figure of the book
PAGE_WIDTH = 7.0  # inches; the width of the book's text

RC: dict[Any, Any] = {
    "figure.figsize": (
        4.8,
        3.0,
    ),  # inches; narrower than the page, so that its text is still legible on a phone
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "mathtext.fontset": "cm",  # the letters of the page's formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["ink"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.titlecolor": LIGHT["ink"],
    "xtick.color": LIGHT["ink"],
    "ytick.color": LIGHT["ink"],
    "grid.color": LIGHT["muted"],
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "patch.edgecolor": LIGHT["ink"],
    "hatch.color": LIGHT["ink"],
    "axes.prop_cycle": cycler(color=[LIGHT[role] for role in ("source", "data", "model", "path", "error")]),
}


def use() -> None:
    """Give every figure drawn from now on the look of the course (for one block: `plt.rc_context(RC)`)."""
    plt.rcParams.update(RC)


def panels(count: int, *, across: int = 3, height: float | None = None) -> tuple[list[Figure], list[Axes]]:
    """`count` small figures of one axes each, at most three side by side; on a phone `show` stacks them.

    height is in inches (default: square panels). Returns (figures, axes), each of length `count`.
    """
    if count < 1 or not 1 <= across <= 3:
        raise ValueError(f"need at least one panel and 1 to 3 across, not {count} panels and {across} across")
    width = PAGE_WIDTH / min(across, max(count, 2)) - 0.1  # a lone panel is half a page wide
    made = [plt.subplots(figsize=(width, height or width)) for _ in range(count)]
    return [figure for figure, _ in made], [ax for _, ax in made]


def plane(ax: Axes, window: float = 3.0) -> Axes:
    """Make ax the plane [-window, window]^2: equal aspect, labeled x_1 and x_2, three ticks a side."""
    ticks = [-_round_down(window), 0, _round_down(window)]
    ax.set(xlim=(-window, window), ylim=(-window, window), xticks=ticks, yticks=ticks)
    ax.set_aspect("equal")
    ax.set_xlabel("$x_1$", fontsize=12, loc="right", labelpad=-9)  # at the axes' ends, among the tick labels
    ax.set_ylabel("$x_2$", fontsize=12, loc="top", labelpad=-10, rotation=0, va="top")
    return ax


def _round_down(window: float) -> float:
    """The largest tick of one digit that lies inside the window: 3 -> 2, 2.5 -> 2, 1 -> 0.5."""
    power = 10.0 ** np.floor(np.log10(window))
    return max(d * power for d in (0.5, 1, 2, 4, 5, 8) if d * power <= 0.85 * window)


# Each function draws one compound path, however many points it has: 2,000 points are one SVG element.


def scatter(
    ax: Axes,
    points: Tensor,
    role: str,
    *,
    size: float = 3.0,
    marker: str = "o",
    alpha: float = 1.0,
    label: str | None = None,
) -> None:
    """Draw points (B, 2) in a role's color; size is the diameter in points (1/72 inch), marker "o" or "s".

    Overlapping points do not darken one another: alpha is that of the whole cloud.
    """
    if marker not in ("o", "s"):
        raise ValueError(
            f"marker {marker!r} is not 'o' or 's'; use ax.plot for a few points with other markers"
        )
    xy = _numpy(points, "points")
    strip = np.digitize(xy[:, 0], np.linspace(*ax.get_xlim(), 20))
    xy = xy[np.lexsort((xy[:, 1], strip))]  # up one strip after another: short steps make a small file
    dots = np.repeat(xy, 2, axis=0)  # a segment of length zero with round (square) caps is a dot (a square)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(xy))
    caps = "round" if marker == "o" else "projecting"
    _stroke(ax, dots, codes, role, linewidth=size, capstyle=caps, alpha=alpha)
    if label is not None:
        ax.plot([], [], marker, color=_color(role), markersize=max(size, 4), markeredgewidth=0, label=label)


def trajectories(
    ax: Axes, states: Tensor, role: str = "path", *, label: str | None = None, **style: Any
) -> None:
    """Draw B trajectories in the plane, states (N+1, B, 2), as lines in a role's color."""
    xy = _numpy(states, "states", "(N+1, B, 2)")
    lines(ax, xy.swapaxes(0, 1), role, label=label, **style)


def lines(
    ax: Axes, strands: Tensor | np.ndarray, role: str, *, label: str | None = None, **style: Any
) -> None:
    """Draw B polylines (B, N, 2) in one go; style is matplotlib's (linewidth, linestyle, alpha)."""
    xy = _numpy(strands, "polylines", "(B, N, 2)")
    count, length = xy.shape[:2]
    codes = np.tile([Path.MOVETO] + [Path.LINETO] * (length - 1), count)
    style = {"linewidth": 1.2, "capstyle": "round", "joinstyle": "round"} | style
    _stroke(ax, xy.reshape(-1, 2), codes, role, **style)
    if label is not None:
        shown: dict[str, Any] = {
            key: style[key] for key in ("linewidth", "linestyle", "alpha") if key in style
        }
        ax.plot([], [], color=_color(role), label=label, **shown)


def quiver(
    ax: Axes,
    field: Callable[[Tensor, Tensor], Tensor],
    t: float,
    window: float = 3.0,
    *,
    role: str = "muted",
    count: int = 13,
    longest: float | None = None,
) -> None:
    """Draw the field v(x, t) on a count x count grid of arrows over the plane.

    A speed of `longest` (default: the largest speed of the grid) is drawn one grid spacing long.
    """
    spacing = 2 * window / count
    side = torch.linspace(-window + spacing / 2, window - spacing / 2, count)
    x = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)  # (count^2, 2)
    v = _numpy(field(x, torch.tensor(float(t))), "the field's values")
    speed = np.linalg.norm(v, axis=-1, keepdims=True)
    arrow = v / (longest or speed.max() or 1.0) * spacing
    start, end = x.numpy() - arrow / 2, x.numpy() + arrow / 2  # the arrow belongs to its middle
    length = np.linalg.norm(arrow, axis=-1, keepdims=True)
    along = arrow / np.maximum(length, 1e-12) * np.minimum(0.35 * length, 0.28 * spacing)  # size of the head
    left, right = _turn(along, 155.0), _turn(along, -155.0)
    drawn = np.stack([start, end, end + left, end, end + right], 1)[length[:, 0] > 0.03 * spacing]
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.LINETO], len(drawn))
    _stroke(ax, drawn.reshape(-1, 2), codes, role, linewidth=0.9, capstyle="round", joinstyle="round")


def warped_grid(
    ax: Axes,
    map: Callable[[Tensor], Tensor],
    window: float = 3.0,
    *,
    role: str = "muted",
    count: int = 13,
    samples: int = 97,
) -> None:
    """Draw the image of a square grid over [-window, window]^2 under map: (N, 2) -> (N, 2)."""
    fixed, along = (torch.linspace(-window, window, count), torch.linspace(-window, window, samples))
    upright = torch.stack(torch.meshgrid(fixed, along, indexing="ij"), -1)  # (count, samples, 2)
    grid = torch.cat([upright, upright.flip(-1)]).reshape(-1, 2)
    image = _numpy(map(grid), "the map's values")
    if image.shape != tuple(grid.shape):
        raise ValueError(f"the map must return shape {tuple(grid.shape)}, not {image.shape}")
    lines(ax, image.reshape(2 * count, samples, 2), role, linewidth=0.8)


def density(
    ax: Axes,
    log_prob: Callable[[Tensor], Tensor],
    window: float = 3.0,
    *,
    role: str = "muted",
    levels: int = 10,
    resolution: int = 121,
) -> None:
    """Shade a density of the plane: `levels` nested regions {p > c}, each laid over the last.

    Overlaid regions of one transparent color deepen toward the peaks, and their low end is the page, light
    or dark. log_prob maps (N, 2) to (N,).
    """
    side = torch.linspace(-window, window, resolution)
    x = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    p = np.exp(np.asarray(log_prob(x).detach().cpu(), dtype=float)).reshape(resolution, resolution)
    for level in p.max() * (np.arange(levels) + 0.5) / levels:
        ax.contourf(
            side, side, p, levels=[level, np.inf], colors=[_color(role)], alpha=1 - 0.3 ** (1 / levels)
        )


def loglog_order(
    ax: Axes,
    h: Sequence[float] | Tensor,
    error: Sequence[float] | Tensor,
    role: str,
    *,
    order: float | None = None,
    label: str | None = None,
    marker: str = "o",
) -> None:
    """Plot error against step size on log-log axes and, given `order`, a triangle of that slope below it."""
    sizes, errors = np.asarray(h, dtype=float), np.asarray(error, dtype=float)
    ax.loglog(sizes, errors, marker=marker, color=_color(role), label=label)
    if np.ptp(np.log10(ax.get_xlim())) < 2:  # too few powers of ten to read a scale from
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    if order is not None:
        i = np.argsort(sizes)[len(sizes) // 4 : len(sizes) // 4 + 2]  # between two steps, away from rounding
        (a, b), low = sizes[i], errors[i[0]] / 3
        high = low * (b / a) ** order
        ax.plot([a, b, b, a], [low, low, high, low], color=colors["ink"], linewidth=0.9)
        place: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{order:g}", (b, np.sqrt(low * high)), **place)


def _stroke(ax: Axes, vertices: np.ndarray, codes: np.ndarray, role: str, **style: Any) -> None:
    patch = PathPatch(Path(vertices, codes), fill=False, edgecolor=_color(role), **style)
    ax.add_patch(patch)
    ax.autoscale_view()


def _turn(arrows: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return arrows @ np.array([[c, s], [-s, c]])


def _color(role: str) -> str:
    if role not in LIGHT:
        raise ValueError(f"unknown role {role!r}; expected one of {', '.join(LIGHT)}")
    return LIGHT[role]


def _numpy(points: Tensor | np.ndarray, what: str, shape: str = "(B, 2)") -> np.ndarray:
    xy = np.asarray(torch.as_tensor(points).detach().cpu(), dtype=float)
    if xy.ndim != shape.count(",") + 1 or xy.shape[-1] != 2:
        raise ValueError(f"{what} must have shape {shape}, not {tuple(xy.shape)}")
    return xy
