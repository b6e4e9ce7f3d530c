"""matplotlib as the course uses it: one look, right on light and dark pages, described for those who cannot see it.

`use()` sets the look, `panels` makes figures whose panels stack on a phone, the small drawing functions make what
chapters draw again and again, and `show` turns the result into inline SVG whose colors are CSS variables, so that
one output follows the page from light to dark. matplotlib draws; nothing here hides it.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from torch import Tensor

from flowlib.figures.palette import LIGHT, css

colors = LIGHT  # the role colors: `colors["source"]`, as in every other figure of the book
PAGE_WIDTH = 7.0  # inches; the width of the book's text

RC: dict[str, Any] = {
    "figure.figsize": (5.2, 3.2),  # narrower than the page, so that its text is still legible on a phone
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
    "axes.prop_cycle": plt.cycler(color=[LIGHT[r] for r in ("source", "data", "model", "path", "error", "truth")]),
    "svg.fonttype": "path",
    "svg.hashsalt": "flowlib",  # the same figure is the same bytes
}


def use() -> None:
    """Give every figure drawn from now on the look of the course (`plt.rc_context(RC)` for one block only)."""
    plt.rcParams.update(RC)


# --- Axes ------------------------------------------------------------------------------------------------------


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
    ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.yaxis.labelpad = -2
    return ax


def _round_down(window: float) -> float:
    """The largest tick of one digit that lies inside the window: 3 -> 2, 2.5 -> 2, 1 -> 0.5."""
    power = 10.0 ** np.floor(np.log10(window))
    return max(d * power for d in (0.5, 1, 2, 4, 5, 8) if d * power <= 0.85 * window)


# --- What chapters draw ----------------------------------------------------------------------------------------
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
        raise ValueError(f"marker {marker!r} is not 'o' or 's'; use ax.plot for a few points with other markers")
    xy = _numpy(points, "points")
    dots = np.repeat(xy, 2, axis=0)  # a segment of length zero with round (square) caps is a dot (a square)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(xy))
    style = {"linewidth": size, "capstyle": "round" if marker == "o" else "projecting", "alpha": alpha}
    _stroke(ax, dots, codes, role, **style)
    if label is not None:
        ax.plot([], [], marker, color=_color(role), markersize=max(size, 4), markeredgewidth=0, label=label)


def trajectories(ax: Axes, states: Tensor, role: str = "path", *, label: str | None = None, **style: Any) -> None:
    """Draw B trajectories in the plane, states (N+1, B, 2), as lines in a role's color."""
    xy = np.asarray(torch.as_tensor(states).detach().cpu(), dtype=float)
    if xy.ndim != 3 or xy.shape[-1] != 2:
        raise ValueError(f"states must have shape (N+1, B, 2), not {tuple(xy.shape)}")
    lines(ax, xy.swapaxes(0, 1), role, label=label, **style)


def lines(ax: Axes, strands: np.ndarray, role: str, *, label: str | None = None, **style: Any) -> None:
    """Draw many polylines (B, N, 2) in one go."""
    count, length = strands.shape[:2]
    codes = np.tile([Path.MOVETO] + [Path.LINETO] * (length - 1), count)
    style = {"linewidth": 1.2, "capstyle": "round", "joinstyle": "round"} | style
    _stroke(ax, strands.reshape(-1, 2), codes, role, **style)
    if label is not None:
        shown = {key: style[key] for key in ("linewidth", "linestyle", "alpha") if key in style}
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
    start, end = x.numpy() - arrow / 2, x.numpy() + arrow / 2  # centered: the arrow belongs to its middle
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
    fixed, along = torch.linspace(-window, window, count), torch.linspace(-window, window, samples)
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
    levels: int = 8,
    resolution: int = 121,
) -> None:
    """Shade a density of the plane: `levels` nested regions {p > c}, each laid over the last.

    Overlaid regions of one transparent color darken towards the peaks, and their low end is the page, light or
    dark. log_prob maps (N, 2) to (N,).
    """
    side = torch.linspace(-window, window, resolution)
    x = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    p = np.exp(np.asarray(log_prob(x).detach().cpu(), dtype=float)).reshape(resolution, resolution)
    for level in p.max() * (np.arange(levels) + 0.5) / levels:
        ax.contourf(side, side, p, levels=[level, np.inf], colors=[_color(role)], alpha=1 - 0.3 ** (1 / levels))


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
    """Plot error against step size on log-log axes; with `order`, a triangle of that slope under the curve."""
    sizes, errors = np.asarray(h, dtype=float), np.asarray(error, dtype=float)
    ax.loglog(sizes, errors, marker=marker, color=_color(role), label=label)
    if order is not None:
        i = np.argsort(sizes)[len(sizes) // 4 : len(sizes) // 4 + 2]  # between two steps, away from rounding
        (a, b), low = sizes[i], errors[i[0]] / 3
        high = low * (b / a) ** order
        ax.plot([a, b, b, a], [low, low, high, low], color=colors["ink"], linewidth=0.9)
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
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


def _numpy(points: Tensor, what: str) -> np.ndarray:
    xy = np.asarray(torch.as_tensor(points).detach().cpu(), dtype=float)
    if xy.ndim != 2 or xy.shape[-1] != 2:
        raise ValueError(f"{what} must have shape (B, 2), not {tuple(xy.shape)}")
    return xy


# --- Output ----------------------------------------------------------------------------------------------------

# `--flow-page` is the book's page in both modes; in Colab or JupyterLab it makes the figure a card of its own.
STYLE = (
    css(".flow-figure")
    + ".flow-figure{margin:0;color:var(--flow-ink);background:var(--flow-page)}"
    + ".flow-panels{display:flex;flex-wrap:wrap;gap:.5rem;justify-content:center;max-width:46rem;margin:0 auto}"
    + ".flow-figure svg{display:block;height:auto;min-width:0}"
    + ".flow-figure figcaption{max-width:46rem;margin:.4rem auto 0}"
)


@dataclass(frozen=True)
class Shown:
    """A drawn figure: what `show` returns and a notebook displays."""

    svgs: tuple[str, ...]
    alt: str
    caption: str | None = None

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        alt = html.escape(self.alt, quote=True)
        return (
            f'<figure class="flow-figure"><style>{STYLE}</style>'
            f'<div class="flow-panels" role="img" aria-label="{alt}">{"".join(self.svgs)}</div>{caption}</figure>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": f"[Figure: {self.alt}]"}


def show(figure: Figure | Sequence[Figure], *, alt: str, caption: str | None = None) -> Shown:
    """The figure (or the panels of `panels`) as inline SVG that follows the page's light and dark mode.

    alt says what there is to see, in a sentence or two, to somebody who cannot see it: ValueError if it is missing,
    shorter than 40 characters or says nothing. The pyplot figures are closed.
    """
    _require_description(alt)
    figures = [figure] if isinstance(figure, Figure) else list(figure)
    svgs = tuple(_svg(f) for f in figures)
    for f in figures:
        plt.close(f)
    return Shown(svgs, " ".join(alt.split()), caption)


def _require_description(alt: str) -> None:
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a text that describes the figure, not {type(alt).__name__}")
    empty = {"a", "an", "and", "axes", "chart", "figure", "for", "graph", "image", "in", "is", "matplotlib", "of"}
    empty |= {"on", "our", "picture", "plot", "plots", "shown", "shows", "showing", "the", "this", "visualization"}
    words = [word for word in re.findall(r"[^\W\d_]+", alt.lower()) if word not in empty]
    if len(alt.strip()) < 40 or len(set(words)) < 5:
        raise ValueError(f"alt must say what there is to see, in 40 characters or more that say something, not {alt!r}")


def _svg(figure: Figure) -> str:
    """Compact, deterministic SVG of the figure, colored by CSS variables, with ids that no other figure has."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": "flowlib"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    source = re.sub(r"<!DOCTYPE.*?>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    source = source.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace("xlink:href", "href")
    root = ElementTree.fromstring(re.sub(r' xmlns:xlink="[^"]*"', "", source))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', source))
    _prune(root, used)

    width = float(root.attrib["viewBox"].split()[2]) / 72  # inches
    root.attrib = {
        "viewBox": _round(root.attrib["viewBox"]),
        "style": f"flex:1 1 {width * 80:.0f}px;max-width:{width * 96 * 1.25:.0f}px",  # 96 CSS pixels to the inch
        "stroke-linejoin": "round",  # matplotlib's own rule for this is `*{...}`, which would restyle the whole page
        "aria-hidden": "true",  # the description stands on the parent
    }
    text = ElementTree.tostring(root, encoding="unicode")
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-"
    for number, name in enumerate(sorted(used)):
        text = re.sub(rf'(id="|href="#|url\(#){re.escape(name)}(?=["\)])', rf"\g<1>{prefix}{number}", text)
    return text


def _prune(element: ElementTree.Element, used: set[str]) -> None:
    """Drop metadata, style rules, invisible backgrounds, unused ids and groups that group nothing."""
    kept: list[ElementTree.Element] = []
    for child in element:
        _prune(child, used)
        if child.tag in ("metadata", "style") or (child.tag in ("g", "defs") and len(child) == 0):
            continue
        if child.tag == "path" and "fill: none" in child.get("style", "") and "stroke" not in child.get("style", ""):
            continue
        kept.extend(child if child.tag == "g" and not child.attrib else [child])
    element[:] = kept
    element.text = element.tail = None
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    for name in ("d", "transform", "points"):
        if name in element.attrib:
            element.set(name, _round(element.attrib[name]))
    for name in ("x", "y", "width", "height"):
        if name in element.attrib:
            element.set(name, _round(element.attrib[name]))
    if "style" in element.attrib:
        element.set("style", _restyle(element.attrib["style"]))


VARIABLES = {color.lower(): f"var(--flow-{role},{color.lower()})" for role, color in LIGHT.items()}
VARIABLES["#000000"] = VARIABLES[LIGHT["ink"].lower()]  # whatever matplotlib drew black is ink


def _restyle(style: str) -> str:
    style = re.sub(r"#[0-9a-f]{6}\b", lambda color: VARIABLES.get(color[0], color[0]), style.lower())
    return re.sub(r"\s*([:;,])\s*", r"\1", style).strip("; ")


def _round(numbers: str) -> str:
    """Two decimals and no more white space than the grammar needs."""

    def short(number: re.Match[str]) -> str:
        text = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
        return "0" if text in ("-0", "") else text

    text = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", short, numbers)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", text.strip()) if re.match(r"\s*[Mm]", text) else text
