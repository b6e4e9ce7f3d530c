"""Every explorable of the book answers to mouse, touch and keyboard, and shows what flowlib computes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page

from flowlib.fields import Field, LinearField, TravelingVortex
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, odeint

from .conftest import BUILT, PAGES, Visitor

METHODS = {method.name: method for method in (EULER, MIDPOINT, HEUN, RK4)}
FOUND = [
    (path, name)
    for path in PAGES
    if (BUILT / path).exists()
    for name in re.findall(r'data-flow-explorable="(\w+)"', (BUILT / path).read_text(encoding="utf-8"))
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`explorable` is every explorable of the book in turn."""
    if "opened" in metafunc.fixturenames:
        names = [f"{path}-{name}" for path, name in FOUND]
        metafunc.parametrize("opened", FOUND, indirect=True, ids=names, scope="module")


class Figure:
    """An explorable on an open page."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.figure = page.locator(f'[data-flow-explorable="{name}"]').first
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

    def spec(self) -> tuple[str, dict[str, Any]]:
        """The scene's name and what it was told, from the script in the page."""
        script = self.figure.locator("script").text_content() or ""
        scene, spec = re.search(r'mount\("\w+",\s*(\w+),\s*(\{.*\})\);?\s*$', script, re.DOTALL).groups()  # type: ignore[union-attr]
        return scene, json.loads(spec)


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest, browser: Browser, bases: dict[str, str]) -> Iterator[Figure]:
    """An explorable on a page that its tests share."""
    path, name = request.param
    visitor = Visitor(browser, bases)
    yield Figure(visitor(path).page, name)
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
    chapters = {path for path in PAGES if re.match(r"book/\d", path)}
    assert chapters <= {path for path, _ in FOUND}


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


def test_every_slider_answers_to_the_mouse(explorable: Figure) -> None:
    for name, slider in explorable.enabled('input[type="range"]'):
        box = slider.bounding_box()
        assert box is not None
        values = []
        for place in (0.1, 0.9):
            explorable.page.mouse.click(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
            values.append(explorable.state()[name])
        assert values[0] < values[1]


def test_choices_answer_to_the_keyboard(explorable: Figure) -> None:
    for selector, key in (("select", "ArrowDown"), ('input[type="checkbox"]', "Space")):
        for name, control in explorable.enabled(selector):
            before = explorable.state()[name]
            control.focus()
            explorable.page.keyboard.press(key)
            assert explorable.state()[name] != before


def test_play_runs_to_the_end_pauses_and_resets(explorable: Figure) -> None:
    play = explorable.figure.locator(".flow-play")
    if play.count() == 0:
        pytest.skip("nothing to play")
    opening = explorable.state()
    play.click()
    assert play.get_attribute("aria-label") == "Pause"
    explorable.page.wait_for_timeout(300)
    play.click()
    paused = explorable.state()["t"]
    explorable.page.wait_for_timeout(200)
    assert 0 < paused < float(explorable.control("t").get_attribute("max") or 0)
    assert explorable.state()["t"] == paused
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


def test_who_asked_for_less_motion_gets_steps(visit: Visitor) -> None:
    path, name = FOUND[0]
    seen = visit(path)
    seen.page.emulate_media(reduced_motion="reduce")
    seen.page.reload()
    figure = Figure(seen.page, name)
    play = figure.figure.locator(".flow-play")
    assert play.get_attribute("aria-label") == "Next moment"
    moments = []
    for _ in range(3):
        play.click()
        moments.append(figure.state()["t"])
    seen.page.wait_for_timeout(200)
    assert [b - a for a, b in pairwise(moments)] == pytest.approx([1 / 8, 1 / 8])
    assert figure.state()["t"] == moments[-1]


def test_points_are_drawn_by_mouse_and_keyboard(explorable: Figure) -> None:
    paper = explorable.figure.locator('canvas[role="application"]')
    if explorable.figure.locator(".flow-clear").count() == 0:
        pytest.skip("nothing to draw on")
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


def test_the_start_is_dragged_by_mouse_and_keyboard(explorable: Figure) -> None:
    scene, spec = explorable.spec()
    if scene not in ("solver", "density"):
        pytest.skip("no start in the plane to drag")
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
    found = [
        (path, name)
        for path, name in FOUND
        if re.search(rf'mount\("{name}",\s*solver\b', (BUILT / path).read_text(encoding="utf-8"))
    ]
    if not found:
        pytest.skip("no start in the plane to drag")
    path, name = found[0]
    page = visit(path, width=390).page
    figure = Figure(page, name)
    paper = figure.figure.locator('canvas[role="application"]')
    paper.evaluate("c => c.scrollIntoView({ block: 'center', behavior: 'instant' })")
    _, spec = figure.spec()
    touch = page.context.new_cdp_session(page)
    for held in (True, False):
        figure.figure.locator(".flow-reset").evaluate("button => button.click()")
        page.wait_for_timeout(100)
        opening, before = figure.state()["starts"], page.evaluate("scrollY")
        box = paper.bounding_box()
        assert box is not None
        unit = min(box["width"], box["height"]) / (2 * spec["window"])
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


def test_the_point_of_an_average_is_moved_and_rides(explorable: Figure) -> None:
    scene, spec = explorable.spec()
    if scene != "averaging":
        pytest.skip("no point in space-time")
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


def test_the_ends_of_all_paths_are_the_same(explorable: Figure) -> None:
    scene, spec = explorable.spec()
    if scene != "paths":
        pytest.skip("one path")
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


def test_what_it_shows_is_what_flowlib_computes(explorable: Figure) -> None:
    scene, spec = explorable.spec()
    if scene not in ("flow", "solver"):
        pytest.skip(f"the scene {scene} is held against flowlib in tests of its own")
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


def test_colors_follow_the_page(explorable: Figure) -> None:
    canvas = explorable.figure.locator("canvas")
    if canvas.count() == 0:
        pytest.skip("its pictures are SVG, whose colors are the style sheet's")
    light = canvas.first.evaluate("c => c.toDataURL()")
    explorable.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    explorable.page.wait_for_timeout(150)
    assert canvas.first.evaluate("c => c.toDataURL()") != light


PICTURE = """figure => [...figure.querySelectorAll("svg, img, canvas")].some(
  (picture) => picture.checkVisibility() && picture.getBoundingClientRect().width > 100)"""


def test_paper_shows_a_picture(explorable: Figure) -> None:
    explorable.page.emulate_media(media="print")
    assert explorable.figure.evaluate(PICTURE)


def test_a_page_without_scripts_shows_every_picture(visit: Visitor) -> None:
    pages = {path: visit(path, scripts=False).page for path in {path for path, _ in FOUND}}
    for path, name in FOUND:
        figure = pages[path].locator(f'[data-flow-explorable="{name}"]').first
        figure.scroll_into_view_if_needed()
        assert figure.evaluate(PICTURE)
