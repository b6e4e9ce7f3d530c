"""Every explorable of the book answers to mouse, touch and keyboard, and shows what flowlib computes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Locator, Page

from flowcourse.explorables import still
from flowcourse.scenes import spacetime_explorer
from flowlib.couplings import exact
from flowlib.fields import Field, LinearField, TravelingVortex
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, odeint

from .conftest import BUILT, PAGES, Visitor

METHODS = {method.name: method for method in (EULER, MIDPOINT, HEUN, RK4)}
FIGURE = re.compile(r'<figure class="flow-explorable" data-flow-explorable="(\w+)">(.*?)</figure>', re.DOTALL)
MOUNT = re.compile(r'engine\.mount\("(\w+)", flowcourse\.(\w+)\.\w+, (\{.*?\})\);</script>', re.DOTALL)


@dataclass(frozen=True)
class Found:
    """An explorable of the built book: its page, its name, its HTML, its scene and what that was told."""

    path: str
    name: str
    html: str
    scene: str
    spec: dict[str, Any]


def found_on(path: str) -> list[Found]:
    """The explorables of a page, in order."""
    page = (BUILT / path).read_text(encoding="utf-8") if (BUILT / path).exists() else ""
    told = {name: (scene, json.loads(spec)) for name, scene, spec in MOUNT.findall(page)}
    return [Found(path, name, html, *told[name]) for name, html in FIGURE.findall(page)]


FOUND = [found for path in PAGES for found in found_on(path)]


def for_each(wanted: Callable[[Found], object] = lambda found: True) -> Callable[[Any], Any]:
    """Run a test of `explorable` for each explorable that has what it is about."""
    chosen = [found for found in FOUND if wanted(found)]
    ids = [f"{found.path}-{found.scene}-{found.name}" for found in chosen]
    return pytest.mark.parametrize("opened", chosen, indirect=True, ids=ids, scope="module")


def has(part: str) -> Callable[[Found], bool]:
    """Whether a piece of HTML is in the figure."""
    return lambda found: part in found.html


def shows(*scenes: str) -> Callable[[Found], bool]:
    """Whether it is one of these scenes."""
    return lambda found: found.scene in scenes


class Figure:
    """An explorable on an open page."""

    def __init__(self, page: Page, found: Found) -> None:
        self.page, self.scene, self.spec = page, found.scene, found.spec
        self.figure = page.locator(f'[data-flow-explorable="{found.name}"]').first
        self.figure.scroll_into_view_if_needed()
        self.figure.and_(page.locator("[data-live]")).wait_for()

    def ask(self, expression: str) -> Any:
        """The value of an expression in which `flow` is the figure's interface for tests."""
        return self.figure.evaluate(f"figure => {{ const flow = figure.flow; return {expression}; }}")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("flow.state()")
        return found

    def control(self, name: str) -> Locator:
        return self.figure.locator(f'[data-control="{name}"]')

    def enabled(self, selector: str) -> Iterator[tuple[str, Locator]]:
        """The controls that can be turned now, by name."""
        for control in self.figure.locator(selector).all():
            if control.is_enabled():
                yield control.get_attribute("data-control") or "", control

    def said(self) -> str:
        return self.figure.locator(".flow-readout").text_content() or ""


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest, browser: Browser, bases: dict[str, str]) -> Iterator[Figure]:
    """An explorable on a page that its tests share."""
    visitor = Visitor(browser, bases)
    yield Figure(visitor(request.param.path).page, request.param)
    visitor.close()


@pytest.fixture
def explorable(opened: Figure) -> Iterator[Figure]:
    """The explorable as the reader finds it."""
    yield opened
    opened.page.emulate_media(media="screen")
    reset = opened.figure.locator(".flow-reset")
    if reset.count():
        reset.click()
    opened.page.evaluate("document.documentElement.dataset.theme = 'light'")


def test_there_are_explorables(built: object) -> None:
    chapters = {path for path in PAGES if re.match(r"book/0*[1-9]", path)}
    assert chapters <= {found.path for found in FOUND}


def test_every_script_and_style_sheet_reaches_a_page_once(path: str, built: Path) -> None:
    page = (built / path).read_text(encoding="utf-8")
    carried = re.findall(r"<(style|script type=\"module\")>(.*?)</", page, re.DOTALL)
    assert len(carried) == len(set(carried))
    assert page.count("flowcourse.engine = {") == (path in {found.path for found in FOUND})
    assert "data-flow>" not in page


@for_each(has('type="range"'))
def test_every_slider_answers_to_the_keyboard(explorable: Figure) -> None:
    for name, slider in explorable.enabled('input[type="range"]'):
        before, said = explorable.state()[name], slider.get_attribute("aria-valuetext")
        room = slider.evaluate("input => +input.value < +input.max")
        slider.focus()
        explorable.page.keyboard.press("ArrowRight" if room else "ArrowLeft")
        after = explorable.state()[name]
        assert (after > before) if room else (after < before)
        assert slider.get_attribute("aria-valuetext") != said
    explorable.page.wait_for_timeout(100)
    assert explorable.said()


@for_each(has('type="range"'))
def test_every_slider_answers_to_the_mouse(explorable: Figure) -> None:
    for name, slider in explorable.enabled('input[type="range"]'):
        box = slider.bounding_box()
        assert box is not None
        values = []
        for place in (0.1, 0.9):
            explorable.page.mouse.click(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
            values.append(explorable.state()[name])
        assert values[0] < values[1]


@for_each(lambda found: has("<select")(found) or has('type="checkbox"')(found))
def test_choices_answer_to_the_keyboard(explorable: Figure) -> None:
    for selector, key in (("select", "ArrowDown"), ('input[type="checkbox"]', "Space")):
        for name, control in explorable.enabled(selector):
            before = explorable.state()[name]
            control.focus()
            explorable.page.keyboard.press(key)
            assert explorable.state()[name] != before


@for_each(lambda found: has("flow-play")(found) and not shows("frames")(found))
def test_play_runs_to_the_end_pauses_and_resets(explorable: Figure) -> None:
    play = explorable.figure.locator(".flow-play")
    opening = explorable.state()
    play.click()
    assert play.get_attribute("aria-label") == "Pause"
    explorable.page.wait_for_timeout(300)
    play.click()
    paused = explorable.state()["t"]
    explorable.page.wait_for_timeout(200)
    assert 0 < paused < float(explorable.control("t").get_attribute("max") or 0)
    assert explorable.state()["t"] == paused
    told = explorable.control("t").get_attribute("aria-valuetext") or ""  # which waits while time runs
    assert float(told) == pytest.approx(paused, abs=0.0051)
    explorable.ask("flow.set('t', 0.9 * figure.querySelector('[data-control=t]').max)")
    play.focus()
    explorable.page.keyboard.press("Enter")  # goes on from there
    explorable.page.wait_for_function(
        "figure => figure.flow.state().t >= +figure.querySelector('[data-control=t]').max",
        arg=explorable.figure.element_handle(),
    )
    assert play.get_attribute("aria-label") == "Play"
    reset = explorable.figure.locator(".flow-reset")
    reset.click()
    assert explorable.state()["t"] == opening["t"]


@for_each(shows("frames"))
def test_play_turns_the_pictures_of_a_lab(explorable: Figure) -> None:
    play, slider = explorable.figure.locator(".flow-play"), explorable.control("frame")
    last = int(slider.get_attribute("max") or 0)

    def turned_to(k: int) -> None:  # a picture comes with a frame, and on a busy machine frames are late
        explorable.page.wait_for_function(
            "([figure, k]) => figure.flow.state().shown === k",
            arg=[explorable.figure.element_handle(), k],
            polling=20,
        )

    slider.focus()
    explorable.page.keyboard.press("Home")
    play.click()
    turned_to(1)
    play.click()
    assert play.get_attribute("aria-label") == "Play"
    slider.focus()
    explorable.page.keyboard.press("End")
    turned_to(last)
    play.click()  # after the last picture it begins again
    turned_to(0)
    turned_to(last)
    assert explorable.said().startswith(f"{explorable.spec['label']}: {explorable.spec['symbol']} = ")


def test_who_asked_for_less_motion_gets_steps(visit: Visitor) -> None:
    found = next(found for found in FOUND if found.scene == "flow")
    seen = visit(found.path)
    seen.page.emulate_media(reduced_motion="reduce")
    seen.page.reload()
    figure = Figure(seen.page, found)
    play = figure.figure.locator(".flow-play")
    assert play.get_attribute("aria-label") == "Next moment"
    moments = []
    for _ in range(3):
        play.click()
        moments.append(figure.state()["t"])
    seen.page.wait_for_timeout(200)
    assert [b - a for a, b in pairwise(moments)] == pytest.approx([1 / 8, 1 / 8])
    assert figure.state()["t"] == moments[-1]


@for_each(has("flow-clear"))
def test_points_are_drawn_by_mouse_and_keyboard(explorable: Figure) -> None:
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.scroll_into_view_if_needed()
    count = lambda: explorable.state()["count"]  # noqa: E731
    before = count()
    box = paper.bounding_box()
    assert box is not None
    paper.click(position={"x": box["width"] / 3, "y": box["height"] / 3})
    assert count() == before + 1
    paper.focus()
    explorable.page.keyboard.press("ArrowRight")
    explorable.page.keyboard.press("Enter")
    assert count() == before + 2
    explorable.page.keyboard.press("Delete")
    assert count() == 0 and explorable.ask("flow.positions()") == []
    explorable.figure.locator(".flow-reset").click()
    assert count() == before


@for_each(shows("solver", "density"))
def test_the_start_is_dragged_by_mouse_and_keyboard(explorable: Figure) -> None:
    scene, spec = explorable.scene, explorable.spec
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    assert box is not None
    unit = min(box["width"], box["height"]) / (2 * spec["window"])
    opening = explorable.state()["starts"]
    X, Y = (
        box["x"] + box["width"] / 2 + unit * opening[0],
        box["y"] + box["height"] / 2 - unit * opening[1],
    )
    mouse = explorable.page.mouse
    mouse.move(X, Y)
    mouse.down()
    mouse.move(X - 40, Y - 30, steps=5)
    mouse.up()
    dragged = explorable.state()["starts"]
    assert dragged == pytest.approx([opening[0] - 40 / unit, opening[1] + 30 / unit], abs=0.011)
    mouse.move(X, Y)  # let go
    assert explorable.state()["starts"] == dragged
    paper.focus()
    explorable.page.keyboard.press("ArrowDown")
    assert explorable.state()["starts"] == pytest.approx([dragged[0], dragged[1] - 0.1])
    explorable.page.wait_for_timeout(100)
    assert {"solver": "error at t = 1", "density": "p × area"}[scene] in explorable.said()
    explorable.figure.locator(".flow-reset").click()
    assert explorable.state()["starts"] == opening


def test_a_finger_scrolls_the_page_unless_it_holds_the_start(visit: Visitor) -> None:
    found = next(found for found in FOUND if found.scene == "solver")
    page = visit(found.path, width=390).page
    figure = Figure(page, found)
    paper = figure.figure.locator('canvas[role="application"]')
    paper.evaluate("c => c.scrollIntoView({ block: 'center', behavior: 'instant' })")
    touch = page.context.new_cdp_session(page)
    for held in (True, False):
        figure.figure.locator(".flow-reset").evaluate("button => button.click()")
        page.wait_for_timeout(100)
        opening, before = figure.state()["starts"], page.evaluate("scrollY")
        box = paper.bounding_box()
        assert box is not None
        unit = min(box["width"], box["height"]) / (2 * found.spec["window"])
        X, Y = (
            box["x"] + box["width"] / 2 + unit * opening[0],
            box["y"] + box["height"] / 2 - unit * opening[1],
        )
        if not held:
            X, Y = X + (80 if opening[0] < 0 else -80), Y + 40
        for i in range(9):
            at = {"touchPoints": [{"x": X, "y": Y - 10 * i}]}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if i else "touchStart", **at})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(200)
        assert (figure.state()["starts"] != opening) == held
        assert (page.evaluate("scrollY") != before) != held


@for_each(shows("averaging"))
def test_the_point_of_an_average_is_moved_and_rides(explorable: Figure) -> None:
    spec = explorable.spec
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    assert box is not None
    opening = explorable.ask("flow.positions()")
    mouse = explorable.page.mouse
    mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3, steps=5)
    mouse.up()
    t, x = explorable.ask("flow.positions()")
    assert 0.4 < t < 0.6 and [t, x] != opening
    assert explorable.state()["x"] == x  # the sliders follow
    paper.focus()
    explorable.page.keyboard.press("ArrowLeft")
    explorable.page.keyboard.press("ArrowDown")
    t, x = (t - 0.02, x - 0.1)
    assert explorable.ask("flow.positions()") == pytest.approx([t, x])
    weights = explorable.state()["weights"]
    assert sum(weights) == pytest.approx(1) and len(weights) == len(spec["data"])
    explorable.ask("flow.set('t', 0)")  # along the trajectory, and back
    start = explorable.state()["x"]
    assert start == pytest.approx(explorable.state()["marginal"][0][1])
    explorable.ask(f"flow.set('t', {t})")
    assert explorable.state()["x"] == pytest.approx(x, abs=1e-9)


@for_each(shows("crowds"))
def test_a_place_of_the_crowds_is_looked_at_and_moved(explorable: Figure) -> None:
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.evaluate("c => c.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = paper.bounding_box()
    assert box is not None
    opening = explorable.state()
    mouse = explorable.page.mouse
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.move(*middle)  # only passing
    explorable.page.wait_for_timeout(100)
    assert explorable.state()["place"] == pytest.approx([0, 0], abs=0.03)
    assert explorable.state()["here"] != opening["here"] and "near (0.0" in explorable.said()
    mouse.move(middle[0], box["y"] - 60)
    assert explorable.state()["place"] == opening["place"]
    mouse.click(*middle)
    mouse.move(middle[0], box["y"] - 60)
    put = explorable.state()["place"]
    assert put == pytest.approx([0, 0], abs=0.03)
    paper.focus()
    explorable.page.keyboard.press("ArrowLeft")
    assert explorable.state()["place"] == pytest.approx([put[0] - 0.1, put[1]], abs=0.011)
    explorable.figure.locator(".flow-reset").click()
    assert explorable.state()["place"] == opening["place"]


@for_each(shows("paths"))
def test_the_ends_of_all_paths_are_the_same(explorable: Figure) -> None:
    spec = explorable.spec
    seen = []
    for path in spec["paths"]:
        if len(spec["paths"]) > 1:
            explorable.ask(f"flow.set('path', {json.dumps(path)})")
        for c in (0, 1):
            explorable.ask(f"flow.set('c', {c})")
            seen.append([])
            for t in (0, 0.5, 1):
                explorable.ask(f"flow.set('t', {t})")
                seen[-1].append(explorable.ask("flow.positions()"))
    starts, middles, ends = (np.array(at) for at in zip(*seen, strict=True))
    np.testing.assert_allclose(starts, starts[:1].repeat(len(seen), 0), atol=1e-12)
    np.testing.assert_allclose(ends, ends[:1].repeat(len(seen), 0), atol=2e-3)
    assert (np.abs(np.diff(middles, axis=0)).max(1) > 0.1).all()


def moved_by_hand(explorable: Figure, place: list[float], to: tuple[float, float]) -> list[float]:
    """A mouse drags what lies at a place of the plane by so many pixels; the place where it let go."""
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.evaluate("c => c.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = paper.bounding_box()
    assert box is not None
    unit = min(box["width"], box["height"]) / (2 * explorable.spec["window"])
    X = box["x"] + box["width"] / 2 + unit * place[0]
    Y = box["y"] + box["height"] / 2 - unit * place[1]
    mouse = explorable.page.mouse
    mouse.move(X, Y)
    mouse.down()
    mouse.move(X + to[0], Y + to[1], steps=5)
    mouse.up()
    mouse.move(X - 60, Y - 60)  # let go
    paper.focus()
    explorable.page.wait_for_timeout(100)
    return [place[0] + to[0] / unit, place[1] - to[1] / unit]


@for_each(shows("pairing"))
def test_pairs_are_found_anew_for_points_that_move(explorable: Figure) -> None:
    sizes, n = explorable.spec["sizes"], explorable.spec["pairs"]
    swaps = []
    for size in sizes:
        explorable.ask(f"flow.set('size', {size})")
        swaps.append(explorable.state()["swaps"])
    assert swaps[0] > 0 and swaps[-1] == 0
    opening = explorable.state()["clouds"]
    datum = opening[1][:2]
    landed = moved_by_hand(explorable, datum, (-round(60 * np.sign(datum[0])), 40))
    state = explorable.state()
    assert state["clouds"][1][:2] == pytest.approx(landed, abs=0.011)
    x_0, x_1 = (torch.tensor(points, dtype=torch.float64).reshape(-1, 2) for points in state["clouds"])
    torch.testing.assert_close(x_0[state["partners"]], exact(x_0, x_1)[0])
    explorable.ask("figure.querySelector('canvas[role=application]').focus()")
    chosen = explorable.state()["chosen"]
    explorable.page.keyboard.press("Enter")
    following = explorable.state()["chosen"]
    assert n * following[0] + following[1] == (n * chosen[0] + chosen[1] + 1) % (2 * n)
    before = explorable.state()["clouds"][following[0]]
    explorable.page.keyboard.press("ArrowUp")
    after = explorable.state()["clouds"][following[0]]
    assert sum(after) - sum(before) == pytest.approx(0.1, abs=0.011)
    explorable.page.wait_for_timeout(100)
    assert "0 of" in explorable.said()
    chart = explorable.figure.locator("canvas").nth(1)
    chart.click(position={"x": 10, "y": 60})
    assert explorable.state()["size"] == sizes[0]
    explorable.figure.locator(".flow-reset").click()
    assert explorable.state()["clouds"] == opening


@for_each(shows("cells"))
def test_cells_follow_their_data_and_fill_alike(explorable: Figure) -> None:
    n = len(explorable.spec["data"])
    opening = explorable.state()
    explorable.ask("flow.set('t', 4)")
    learned = explorable.state()["shares"]
    assert max(learned) < 1.1 / n < max(opening["shares"])
    datum = opening["data"][2:4]
    landed = moved_by_hand(explorable, datum, (-30, 25))
    state = explorable.state()
    assert state["data"][2:4] == pytest.approx(landed, abs=0.011) and state["chosen"] == 1
    assert max(state["shares"]) < 1.15 / n  # learned anew
    explorable.page.keyboard.press("ArrowUp")
    assert explorable.state()["data"][3] == pytest.approx(state["data"][3] + 0.1, abs=0.011)
    paper = explorable.figure.locator('canvas[role="application"]')
    paper.click(position={"x": 40, "y": 60})
    state = explorable.state()
    assert state["chosen"] == n and state["probe"] != opening["probe"]
    explorable.page.wait_for_timeout(100)
    assert "your noise goes to y" in explorable.said()
    explorable.figure.locator(".flow-reset").click()
    assert explorable.state()["data"] == opening["data"]
    assert explorable.state()["probe"] == opening["probe"]


@for_each(shows("guidance"))
def test_guidance_is_for_the_class_that_is_tapped(explorable: Figure) -> None:
    spec, opening = explorable.spec, explorable.state()
    assert opening["guided"] > 2 * opening["corrected"]
    another = next(name for name in spec["classes"] if name != opening["chosen"])
    x, y = spec["mixture"]["means"][spec["classes"][another][0]]
    paper = explorable.figure.locator("canvas").nth(1)
    box = paper.bounding_box()
    assert box is not None
    unit = min(box["width"], box["height"]) / (2 * spec["window"])
    paper.click(position={"x": box["width"] / 2 + unit * x, "y": box["height"] / 2 - unit * y})
    tapped = explorable.state()
    assert tapped["chosen"] == another and tapped["middle"] != opening["middle"]
    explorable.figure.locator("canvas").first.focus()
    explorable.page.keyboard.press("ArrowRight")
    assert explorable.state()["chosen"] != another
    explorable.ask("flow.set('w', 1)")
    explorable.page.wait_for_timeout(100)
    assert "effective sample size 100%, resamplings 0" in explorable.said()
    explorable.figure.locator(".flow-reset").click()
    assert explorable.state() == opening


def field(described: dict[str, Any]) -> Field:
    """The flowlib field that a spec describes."""
    kind, rest = described["kind"], {key: value for key, value in described.items() if key != "kind"}
    if kind == "linear":
        return LinearField(tuple(map(tuple, rest["matrix"])))
    if kind == "vortex":
        return TravelingVortex(**{key: tuple(v) if isinstance(v, list) else v for key, v in rest.items()})
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in rest.items()}
    return GaussianMixture(tensors["means"], tensors["covariances"], tensors["weights"]).marginal_velocity(
        linear
    )


@for_each(shows("flow", "solver"))
def test_what_it_shows_is_what_flowlib_computes(explorable: Figure) -> None:
    spec = explorable.spec
    for name, described in spec["fields"].items():
        for method in spec["methods"]:
            for control, value in (("field", name), ("method", method)):
                if explorable.control(control).count():
                    explorable.ask(f"flow.set({json.dumps(control)}, {json.dumps(value)})")
            for share in (0.5, 1.0):  # at a time that is a step's end
                state = explorable.state()
                steps = int(state["steps"])
                taken = round(share * steps)
                explorable.ask(f"flow.set('t', {taken / steps})")
                starts = torch.tensor(state["starts"], dtype=torch.float64).reshape(-1, 2)
                shown = np.array(explorable.ask("flow.positions()")).reshape(-1, 2)
                computed = odeint(
                    field(described), starts, t1=taken / steps, steps=taken, method=METHODS[method]
                )
                np.testing.assert_allclose(shown, computed.numpy(), rtol=1e-6, atol=1e-6)


@for_each(has("<canvas"))
def test_colors_follow_the_page(explorable: Figure) -> None:
    canvas = explorable.figure.locator("canvas")
    light = canvas.first.evaluate("c => c.toDataURL()")
    explorable.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    explorable.page.wait_for_timeout(150)
    assert canvas.first.evaluate("c => c.toDataURL()") != light


PICTURE = """figure => [...figure.querySelectorAll("svg, img, canvas")].some(
  (picture) => picture.checkVisibility() && picture.getBoundingClientRect().width > 100)"""


@for_each()
def test_paper_shows_a_picture(explorable: Figure) -> None:
    explorable.page.emulate_media(media="print")
    assert explorable.figure.evaluate(PICTURE)


# Heights, shapes and pictures of the panels: in the page as it stands
PANELS = """figure => [...figure.querySelectorAll(".flow-paper")].map((paper) => {
  const { width, height } = paper.getBoundingClientRect();
  const pictures = [...paper.querySelectorAll(".flow-still > svg")].filter((svg) => svg.getClientRects().length);
  const boxes = pictures.map((svg) => [svg.getBoundingClientRect().height, svg.viewBox.baseVal]);
  return [width, height, boxes.map(([height, { width: w, height: h }]) => [height, w / h])];
})"""


def photographs(figure: Locator) -> list[np.ndarray]:
    """Its panels, blurred: letters may lie half a pixel elsewhere."""
    papers = figure.locator(".flow-paper").all()
    return [
        np.asarray(
            Image.open(io.BytesIO(paper.screenshot())).convert("L").filter(ImageFilter.BoxBlur(2)), float
        )
        for paper in papers
    ]


def unlike(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pixels that differ."""
    rows, columns = np.minimum(a.shape, b.shape)
    return float((np.abs(a[:rows, :columns] - b[:rows, :columns]) > 40).mean())


UNPINNED = "panels => panels.forEach((panel) => { panel.style.position = 'static'; })"
HEIGHTS = "figures => figures.map((figure) => figure.getBoundingClientRect().height)"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("chapter", sorted({found.path for found in FOUND}))
def test_nothing_moves_when_a_figure_comes_to_life(visit: Visitor, chapter: str, width: int) -> None:
    bare = visit(chapter, scripts=False, width=width).page
    live = visit(chapter, width=width).page
    live.add_style_tag(content="section { content-visibility: visible !important }")
    for page in (bare, live):  # a pinned panel would cover the one below it
        page.locator(".flow-panel").evaluate_all(UNPINNED)
    before = live.locator(".flow-explorable").evaluate_all(HEIGHTS)
    for found in found_on(chapter):
        figures = [page.locator(f'[data-flow-explorable="{found.name}"]').first for page in (bare, live)]
        figures[0].scroll_into_view_if_needed()
        Figure(live, found)
        assert figures[0].evaluate(PICTURE)  # also where there are no scripts
        still, drawn = (figure.evaluate(PANELS) for figure in figures)
        live.wait_for_timeout(400)  # what is computed when the hand rests
        for before_and_after in zip(*map(photographs, figures), strict=True):
            assert unlike(*before_and_after) < 0.015
        assert len(still) == found.html.count("<canvas")
        for (w, h, pictures), (live_w, live_h, _) in zip(still, drawn, strict=True):
            assert [w, h] == pytest.approx([live_w, live_h], abs=0.5)
            assert pictures == [pytest.approx([h, w / h], rel=0.01)]  # one, of the same height and shape
    assert live.locator(".flow-explorable").evaluate_all(HEIGHTS) == pytest.approx(before, abs=1)


def test_without_a_still_the_page_draws_the_picture_itself(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(still, "available", lambda: False)  # as in Colab
    html = spacetime_explorer()._repr_html_()
    assert '<svg class="flow-at' not in html
    page = browser.new_page()
    page.set_content(f"<!doctype html><body>{html}{html}")  # and run twice
    for figure in page.locator(".flow-explorable").all():
        figure.scroll_into_view_if_needed()
        figure.and_(page.locator("[data-live]")).wait_for()
        canvas = figure.locator("canvas")
        drawn = canvas.evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)"
        )
        box = canvas.bounding_box()
        assert drawn and box and box["height"] == pytest.approx(box["width"] * 450 / 720, rel=0.01)
    page.emulate_media(media="print")
    assert figure.evaluate(PICTURE)
    page.close()
