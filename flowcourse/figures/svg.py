"""A matplotlib figure as inline SVG: small, deterministic, described, and right on light and dark pages.

matplotlib writes each color as a number. `show` replaces it by the CSS variable of its role, so that one output
follows the page when the reader changes its mode, without a script and without a second picture.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from flowcourse.assets import style
from flowcourse.palette import LIGHT

SHEET = style("figures/figure.css", ".flow-figure")


@dataclass(frozen=True)
class Shown:
    """A drawn figure, which a notebook displays: one SVG string per panel, the description, the caption."""

    svgs: tuple[str, ...]
    alt: str
    caption: str | None = None

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        image = f'<div class="flow-panels" role="img" aria-label="{html.escape(self.alt)}">{"".join(self.svgs)}</div>'
        return f'{SHEET}<figure class="flow-figure">{image}{caption}</figure>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": f"[Figure: {self.alt}]"}


def show(figure: Figure | Sequence[Figure], *, alt: str, caption: str | None = None) -> Shown:
    """The figure, or the figures of `panels`, as inline SVG that follows the page's light and dark mode.

    alt tells somebody who cannot see the figure what there is to see, in a sentence or two. Panels stand side by
    side where there is room and below one another on a phone. The pyplot figures are closed.

    Raises ValueError if alt is shorter than 40 characters or says nothing, and for a color outside the palette.
    """
    _require_description(alt)
    figures = [figure] if isinstance(figure, Figure) else list(figure)
    try:
        _align(figures)
        growth = 1.0 if len(figures) == 1 else 1.25
        svgs = tuple(_svg(f, growth, f"{alt}{k}") for k, f in enumerate(figures))
    finally:
        for f in figures:
            plt.close(f)
    return Shown(svgs, " ".join(alt.split()), caption)


# Words that a description may hold and that describe nothing.
EMPTY = set(
    re.findall(
        r"\w+",
        "a an and axes chart figure figures for graph image in is matplotlib of on our panel panels picture plot plots "
        "shown shows showing that the this visualization which with",
    )
)


def _require_description(alt: str) -> None:
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a text that describes the figure, not {type(alt).__name__}")
    words = set(re.findall(r"[^\W\d_]+", alt.lower())) - EMPTY
    if len(alt.strip()) < 40 or len(words) < 5:
        raise ValueError(
            f"alt must say what there is to see, in 40 characters or more that say something, not {alt!r}"
        )


def _align(figures: Sequence[Figure]) -> None:
    """Give panels of one size the same axes box, whichever of them has a title or wider tick labels."""
    sizes = {tuple(f.get_size_inches()) for f in figures}
    if len(figures) < 2 or len(sizes) > 1 or any(len(f.axes) != 1 for f in figures):
        return
    for f in figures:
        f.draw_without_rendering()  # lets constrained layout find each panel's own box
    boxes = np.array(
        [f.axes[0].get_position(original=True).extents for f in figures]
    )  # (panels, 4): x0, y0, x1, y1
    (x0, y0), (x1, y1) = boxes[:, :2].max(0), boxes[:, 2:].min(0)
    for f in figures:
        f.set_layout_engine("none")
        f.axes[0].set_position((x0, y0, x1 - x0, y1 - y0))


def _svg(figure: Figure, growth: float, salt: str) -> str:
    """The figure's SVG; growth is how much wider than drawn it may become where the page has room.

    The salt tells it from an equal panel of another figure.
    """
    buffer = io.StringIO()
    with plt.rc_context(
        {"svg.fonttype": "path", "svg.hashsalt": "flowlib"}
    ):  # text needs no font, ids no chance
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    source = re.sub(r"<!DOCTYPE.*?>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    source = re.sub(r' xmlns(:xlink)?="[^"]*"', "", source).replace("xlink:href", "href")
    root = ElementTree.fromstring(source)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', source))
    _tidy(root, used)

    width = float(root.attrib["viewBox"].split()[2]) / 72 * 96  # points to CSS pixels
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "style": f"flex:1 1 {0.85 * width:.0f}px;max-width:{growth * width:.0f}px",
        "stroke-linejoin": "round",  # matplotlib writes the rule `*{...}`, which would restyle the whole page
        "aria-hidden": "true",  # the description stands on the parent
    }
    text = ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")
    # Two figures of one page must not share the names of their glyphs and clips.
    prefix = "f" + hashlib.sha256((salt + text).encode()).hexdigest()[:8] + "-"
    names = {name: f"{prefix}{number}" for number, name in enumerate(sorted(used))}
    return re.sub(r'(id="|href="#|url\(#)([^")]+)', lambda m: m[1] + names[m[2]], text)


def _tidy(element: ElementTree.Element, used: set[str]) -> None:
    """Round numbers, name colors, and drop metadata, invisible backgrounds, unused ids and empty groups."""
    kept: list[ElementTree.Element] = []
    for child in element:
        _tidy(child, used)
        empty = child.tag in ("g", "defs") and len(child) == 0
        if empty or child.tag in ("metadata", "style") or child.get("style") == "fill:none":
            continue
        kept.extend(child if child.tag == "g" and not child.attrib else [child])
    element[:] = kept
    element.text = element.tail = None
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    for name, value in element.attrib.items():
        if name in ("x", "y", "width", "height", "viewBox"):
            element.set(name, _rounded(value, 2))
        elif name == "transform":
            element.set(name, _rounded(value, 4))  # it may hold a scale
        elif name == "d":
            element.set(name, _compact(value))
        elif name == "style":
            element.set(name, _restyled(value))


VARIABLES = {color.lower(): f"var(--flow-{role},{color.lower()})" for role, color in LIGHT.items()}
VARIABLES["#000000"] = VARIABLES[LIGHT["ink"].lower()]  # what matplotlib draws black unasked is ink


def _restyled(style: str) -> str:
    def variable(color: re.Match[str]) -> str:
        if color[0] not in VARIABLES:
            raise ValueError(
                f"the color {color[0]} has no dark twin; use one of colors[...]: {', '.join(LIGHT)}"
            )
        return VARIABLES[color[0]]

    style = re.sub(r"(?<=: )#[0-9a-f]{6}\b", variable, style)
    return re.sub(r"\s*([:;,])\s*", r"\1", style).strip("; ")


NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def _rounded(text: str, decimals: int) -> str:
    return re.sub(NUMBER, lambda number: _short(round(float(number[0]), decimals)), text)


def _short(number: float) -> str:
    """The number in as few characters as SVG needs: .5 for 0.5, -3 for -3.0, 0 for -0.0."""
    text = f"{number + 0.0:.4f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text) if number else "0"


def _compact(path: str) -> str:
    """The same path in relative commands on a grid of 1/100 point (matplotlib writes absolute M, L, Q, C, z)."""
    out: list[str] = []
    grid = (
        10 if path.count("L") <= 1 and not re.search("[QCz]", path) else 100
    )  # for dots 1/10 point is fine enough
    pen = start = np.zeros(2, dtype=int)
    for command, arguments in re.findall(r"([MLQCz])([^MLQCz]*)", path):
        points = np.round(grid * np.array(arguments.split(), dtype=float)).astype(int).reshape(-1, 2)
        steps = [_short(step / grid) for step in (points - pen).ravel()]
        if command == "M" and out and out[-1].startswith("m"):
            out.append("h0")  # a point alone is a segment of length zero, which round caps make a dot
        out.append(command.lower() + re.sub(" -", "-", " ".join(steps)))
        pen = points[-1] if len(points) else start
        start = pen if command == "M" else start
    return re.sub(r"l0 0(?=m|$)", "h0", "".join(out))
