"""The network that learns in the page: from a file and over http, by mouse, finger and keys, and never freezes it."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page

from .conftest import Visit, Visitor
from .test_explorables import FOUND, Figure

BOARD = next((found for found in FOUND if found.scene == "trainer"), None)
pytestmark = pytest.mark.skipif(BOARD is None, reason="the built book has no page that trains")
PATIENCE = 180_000  # milliseconds, for machines that do much else


def until(figure: Figure, condition: str) -> None:
    """Wait until an expression about `state`, what the figure believes, is true."""
    figure.page.wait_for_function(
        f"figure => {{ const state = figure.flow.state(); return {condition}; }}",
        arg=figure.figure.element_handle(),
        timeout=PATIENCE,
        polling=50,
    )


def opened(visit: Visitor, **how: object) -> tuple[Visit, Figure]:
    assert BOARD is not None
    seen = visit(BOARD.path, **how)  # type: ignore[arg-type]
    return seen, Figure(seen.page, BOARD)


def press(figure: Figure, name: str) -> None:
    figure.figure.locator(f'[data-press="{name}"]').click()


def middle(figure: Figure) -> tuple[float, float]:
    """The middle of the paper, which is brought into sight."""
    paper = figure.figure.locator('canvas[role="application"]')
    paper.evaluate("c => c.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = paper.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def draw(page: Page, X: float, Y: float) -> None:
    page.mouse.move(X - 80, Y)
    page.mouse.down()
    page.mouse.move(X + 80, Y + 30, steps=8)
    page.mouse.up()


def longest(trace: bytes) -> float:
    """The longest task of the page's main thread in milliseconds of its own work, whatever else the machine does."""
    events = json.loads(trace)["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return max(
        event["tdur"] / 1000
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask"
        and (event["pid"], event["tid"]) in mains
        and "tdur" in event  # not where the trace cut it off
    )


def test_it_learns_from_a_file_and_over_http_and_asks_for_nothing(visit: Visitor, protocol: str) -> None:
    seen, figure = opened(visit, protocol=protocol)
    press(figure, "train")
    until(figure, "state.training && state.curve.length > 10")
    curve = figure.state()["curve"]
    assert min(curve) < 0.95 * curve[0]
    press(figure, "train")
    until(figure, "!state.training && state.results.independent")
    found = figure.state()["results"]["independent"]
    assert 0 < found["floor"] < found["distances"][1]  # one step, which ends in the middle
    assert seen.outside == [] and seen.errors == []


def test_the_page_stays_quick_while_it_learns(visit: Visitor) -> None:
    _, figure = opened(visit)
    visit.browser.start_tracing(page=figure.page, categories=["toplevel"])
    press(figure, "train")
    until(figure, "state.curve.length > 15")
    draw(figure.page, *middle(figure))
    press(figure, "train")
    until(figure, "!state.training && state.results.independent")
    assert longest(visit.browser.stop_tracing()) < 50


def test_presses_while_it_runs(visit: Visitor) -> None:
    _, figure = opened(visit)
    train = figure.figure.locator('[data-press="train"]')
    train.click()
    assert train.text_content() == "Stop"
    train.click()
    assert train.text_content() == "Train"
    train.click()
    until(figure, "state.total > 40")
    figure.control("pairs").select_option("optimal")  # the loss of the best pairs is far smaller
    until(figure, "state.curve.at(-1) < 0.5 * state.curve[0]")
    figure.control("sampler").select_option("1 step")
    until(figure, "state.evaluations === 1")
    assert figure.state()["training"]
    figure.figure.locator(".flow-reset").click()
    state = figure.state()
    assert not state["training"] and state["total"] == 0 and state["pairs"] == "independent"
    assert train.text_content() == "Train"
    train.click()
    until(figure, "state.total > 40")


def test_the_mouse_draws_while_it_learns(visit: Visitor) -> None:
    _, figure = opened(visit)
    press(figure, "train")
    until(figure, "state.total > 0")
    draw(figure.page, *middle(figure))
    state = figure.state()
    assert state["shape"] == "Your drawing" and state["dots"] > 10 and state["training"]
    before = state["total"]
    until(figure, f"state.total > {before + 40}")
    press(figure, "draw")  # which now says Clear
    assert figure.state()["dots"] == 0


def test_keys_draw(visit: Visitor) -> None:
    _, figure = opened(visit)
    paper = figure.figure.locator('canvas[role="application"]')
    paper.focus()
    for key in ("ArrowRight", "Enter", "Shift+ArrowUp", "Shift+ArrowRight", "Enter", "ArrowUp"):
        figure.page.keyboard.press(key)
    assert figure.state()["dots"] == 11
    figure.figure.locator('[data-press="train"]').focus()
    figure.page.keyboard.press("Enter")
    until(figure, "state.total > 0")


def test_a_finger_draws_once_that_is_asked_for(visit: Visitor) -> None:
    _, figure = opened(visit, width=390)
    page = figure.page
    touch = page.context.new_cdp_session(page)

    def swipe() -> None:
        X, Y = middle(figure)
        for i in range(9):
            at = {"touchPoints": [{"x": X, "y": Y - 10 * i}]}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if i else "touchStart", **at})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe()
    assert figure.state()["shape"] != "Your drawing"  # that was scrolling
    press(figure, "draw")
    swipe()
    until(figure, "state.dots > 5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_page(visit: Visitor, scheme: str) -> None:
    seen, figure = opened(visit, width=390, scheme=scheme)
    press(figure, "train")
    until(figure, "state.total > 0")
    assert figure.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.errors == []


def test_who_asked_for_less_motion_sees_fewer_pictures(visit: Visitor) -> None:
    seen, figure = opened(visit)
    seen.page.emulate_media(reduced_motion="reduce")
    seen.page.reload()
    figure = Figure(seen.page, figure.found)
    figure.figure.evaluate(
        """figure => {
          window.snapshots = [];
          const look = () => {
            const { total } = figure.flow.state();
            if (total && total !== snapshots.at(-1)?.[0]) snapshots.push([total, performance.now()]);
            setTimeout(look, 5);
          };
          look();
        }"""
    )
    press(figure, "train")
    seen.page.wait_for_function("snapshots.length > 3", timeout=PATIENCE, polling=50)
    times = [time for _, time in seen.page.evaluate("snapshots")]
    assert (times[-1] - times[0]) / (len(times) - 1) > 800
