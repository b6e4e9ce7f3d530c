"""The look of figures: described, deterministic, small, and legible to everybody on light and dark pages."""

import gzip
import itertools
import re
from collections import Counter
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from flowcourse import figures
from flowcourse.figures.svg import _compact
from flowcourse.palette import DARK, LIGHT
from flowcourse.shapes.diagram import COLUMNS, MIX, NORM, joint_block

ALT = "A round cloud of two thousand blue points centered at the origin, thinning outwards."


@pytest.fixture(autouse=True)
def look():
    with plt.rc_context():
        figures.use()
        yield
    plt.close("all")


def drawn():
    """Every drawing function on one page of panels."""
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    figs, axes = figures.panels(6)
    for ax in axes[:5]:
        figures.plane(ax)
    figures.scatter(axes[0], x, "source", label="source")
    axes[0].legend()
    figures.quiver(axes[1], lambda x, t: torch.stack([-x[:, 1], x[:, 0]], 1), 0.0)
    figures.trajectories(axes[2], torch.stack([x[:30], 2 * x[:30]]), label="paths")
    figures.warped_grid(axes[3], lambda x: x + 0.2 * x.sin())
    figures.density(axes[4], lambda x: -x.square().sum(1) / 2)
    figures.loglog_order(axes[5], [0.1, 0.05, 0.025, 0.0125], [1e-2, 2.5e-3, 6e-4, 1.6e-4], "model", order=2)
    axes[5].set_xlabel("step $h$")
    return figures.show(figs, alt=ALT, caption="A & B")


# Description


@pytest.mark.parametrize(
    "alt",
    ["", "figure", "A plot.", "This figure shows the plot of the figure and the plot.", "cloud " * 12],
    ids=["empty", "word", "short", "says nothing", "one word"],
)
def test_a_figure_without_a_description_is_refused(alt):
    with pytest.raises(ValueError, match="what there is to see"):
        figures.show(plt.figure(), alt=alt)


def test_a_missing_description_is_refused():
    with pytest.raises(TypeError):
        figures.show(plt.figure())
    with pytest.raises(TypeError, match="NoneType"):
        figures.show(plt.figure(), alt=None)


def test_description_and_caption_are_escaped_and_the_figures_closed():
    fig, _ = plt.subplots()
    html = figures.show(fig, alt=f'{ALT} Where "x" < 1.', caption="a < b")._repr_html_()
    assert 'role="img" aria-label="A round cloud' in html
    assert "&quot;x&quot; &lt; 1" in html
    assert "<figcaption>a &lt; b</figcaption>" in html
    assert plt.get_fignums() == []


# Output


def test_the_same_figure_is_the_same_bytes():
    assert drawn()._repr_html_() == drawn()._repr_html_()


def test_all_colors_follow_the_page():
    for svg in drawn().svgs:
        bare = re.sub(r"var\(--flow-[a-z]+,#[0-9a-f]{6}\)", "", svg)
        assert "var(--flow-ink" in svg
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!-)", re.sub(r'(href="|url\()#[\w-]+', "", bare))
        assert "rgb" not in bare


def test_roles_become_their_variables():
    source, *_ = drawn().svgs
    assert f"var(--flow-source,{LIGHT['source'].lower()})" in source


def test_a_color_outside_the_palette_is_refused():
    fig, ax = plt.subplots()
    ax.plot([0, 1], color="#123456")
    with pytest.raises(ValueError, match="#123456"):
        figures.show(fig, alt=ALT)
    assert plt.get_fignums() == []


def test_nothing_leaks_out_of_the_svg_and_ids_are_its_own():
    shown = drawn()
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in shown.svgs]
    for svg, own in zip(shown.svgs, ids, strict=True):
        ElementTree.fromstring(svg)
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(
            own
        )  # every id is used, and defined here
        for junk in ("<style", "<metadata", "<!--", "<?xml", "xmlns", "matplotlib"):
            assert junk not in svg
    everything = list(itertools.chain(*ids))
    assert len(everything) == len(set(everything))


def test_two_thousand_points_are_one_small_path():
    fig, ax = plt.subplots()
    figures.plane(ax)
    ax.set_axis_off()
    figures.scatter(ax, torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)), "data")
    (svg,) = figures.show(fig, alt=ALT).svgs
    path = max(re.findall(r'<path[^>]* d="([^"]*)"|<path d="([^"]*)"', svg), key=lambda d: len("".join(d)))
    assert "".join(path).count("h0") > 1950  # those inside the window
    assert len(gzip.compress(svg.encode())) < 10_000


def test_compact_paths_keep_every_point_to_a_hundredth():
    path = "M 10.004 20 \nL 11.499 19.25 \nL 300.125 -0.004 \nC 1 2 3 4 5.5 6.25 \nz \nM 1 1 \nQ 2 2 3 1 \n"
    pen, start, seen = np.zeros(2), np.zeros(2), []
    for command, arguments in re.findall(r"([mlqcz])([^mlqcz]*)", _compact(path)):
        numbers = np.array(re.findall(r"-?(?:\d*\.\d+|\d+)", arguments), dtype=float).reshape(-1, 2) + pen
        seen.extend(numbers)
        pen = numbers[-1] if len(numbers) else start
        start = pen if command == "m" else start
    expected = np.array(re.findall(r"-?\d[\d.]*", path), dtype=float).reshape(-1, 2)
    assert np.abs(np.array(seen) - expected).max() <= 0.00501


def test_lone_points_become_dots():
    assert _compact("M 1 2 \nM 3 4 \nL 3 4 \n") == "m1 2h0m2 2h0"


# Drawing


def test_panels_share_one_box_so_that_planes_line_up():
    figs, axes = figures.panels(2)
    for ax in axes:
        figures.plane(ax)
    axes[0].set_title("only one has a title")
    figures.show(figs, alt=ALT)
    assert np.allclose(
        axes[0].get_position(original=True).extents, axes[1].get_position(original=True).extents
    )


@pytest.mark.parametrize("window", [1.0, 2.0, 2.5, 3.0, 3.2, 8.0, 0.3])
def test_ticks_of_a_plane_lie_well_inside(window):
    ax = figures.plane(plt.figure().add_subplot(), window)
    low, _, high = ax.get_xticks()
    assert 0.4 * window <= high == -low <= 0.85 * window


def test_quiver_points_along_the_field_and_never_past_its_cell():
    ax = plt.figure().add_subplot()
    figures.quiver(
        ax, lambda x, t: torch.stack([x[:, 0] * 0 + 3.0, 4 * x[:, 0] / x[:, 0]], 1), 0.0, 3.0, count=4
    )
    vertices = ax.patches[0].get_path().vertices.reshape(-1, 5, 2)
    shaft = vertices[:, 1] - vertices[:, 0]
    assert np.allclose(shaft, np.array([0.6, 0.8]) * 1.5)  # a grid spacing of 6 / 4
    for head in (vertices[:, 2] - vertices[:, 1], vertices[:, 4] - vertices[:, 1]):
        cosine = (head * shaft).sum(1) / np.linalg.norm(head, axis=1) / 1.5
        assert np.allclose(cosine, np.cos(np.radians(155)))


def test_the_triangle_has_the_slope_it_names():
    ax = plt.figure().add_subplot()
    h = torch.tensor([0.1, 0.05, 0.025, 0.0125], dtype=torch.float64)
    figures.loglog_order(ax, h, h**3, "model", order=3)
    x, y = ax.lines[1].get_data()
    assert np.log(y[2] / y[1]) / np.log(x[1] / x[0]) == pytest.approx(3)
    assert y.max() < (h**3).max()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: figures.scatter(ax, torch.zeros(3, 3), "data"), r"\(3, 3\)"),
        (lambda ax: figures.scatter(ax, torch.zeros(3, 2), "orange"), "unknown role"),
        (lambda ax: figures.scatter(ax, torch.zeros(3, 2), "data", marker="*"), "marker"),
        (lambda ax: figures.trajectories(ax, torch.zeros(3, 2)), r"\(N\+1, B, 2\)"),
        (lambda ax: figures.warped_grid(ax, lambda x: x[:5]), r"\(5, 2\)"),
        (lambda ax: figures.panels(0), "0 panels"),
    ],
)
def test_bad_input_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(plt.figure().add_subplot())


# Color


def linear_rgb(color: str) -> np.ndarray:
    s = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear_rgb(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_role_has_contrast_on_its_page(palette):
    page = luminance(palette["page"])
    for role in palette.keys() - {"page"}:
        low, high = sorted([page, luminance(palette[role])])
        assert (high + 0.05) / (low + 0.05) >= 4.5, role  # WCAG 2.2, success criterion 1.4.3


# Machado, Oliveira & Fernandes (2009), "A physiologically-based model for simulation of color vision deficiency",
# severity 1.0; they act on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* under D65, from linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Points against lines: these two meet everywhere, are nearly one color to protanopes, and differ in shape instead.
TOLD_APART_BY_SHAPE = {("source", "path")}


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_roles_are_told_apart_by_everybody(palette, vision):
    roles = [role for role in palette if role not in ("page", "ink")]
    for a, b in set(itertools.combinations(roles, 2)) - TOLD_APART_BY_SHAPE:
        seen_a, seen_b = (lab(VISION[vision] @ linear_rgb(palette[role])) for role in (a, b))
        assert np.linalg.norm(seen_a - seen_b) > 10, (a, b)  # about four times a just noticeable difference


def test_no_points_draw_nothing():
    fig, ax = plt.subplots()
    figures.scatter(ax, torch.zeros(0, 2), "data")
    figures.show(fig, alt=ALT)


def test_the_block_of_the_mmdit_has_two_columns_and_one_attention():
    fig = joint_block()
    told = Counter(text.get_text() for text in fig.axes[0].texts)
    twice = {text: n for text, n in told.items() if n == 2}
    assert twice == {"queries, keys, values": 2, MIX: 2, r"perceptron,  gate $g(c)$": 2}
    assert told[NORM] == told["+"] == 4
    assert told["one attention: all tokens see all tokens"] == 1
    where = {text.get_position()[0] for text in fig.axes[0].texts if text.get_text() in twice}
    assert where == {x for x, _ in COLUMNS.values()}
