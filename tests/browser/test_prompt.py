"""The prompt box in Chromium, over http and from a file: on a page of its own, with weights that nobody trained."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from explorables import PART, kept_once
from playwright.sync_api import Browser, Page, expect

from flowcourse.scenes import prompt_box
from flowcourse.shapes import parts, shipped
from flowcourse.shapes.captions import judge, parse
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import draw
from flowcourse.shapes.noise import later, noise
from tests.random_weights import write

from .conftest import BUILT, PAGES, PREFIX, Handler, Visitor

CAPTION = "a red circle left of a small blue square"
PATIENCE = 240_000  # milliseconds, on a busy machine
PAGE = """<!doctype html><html lang="en" data-content_root="./" data-theme="light"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>A prompt box</title></head>
<body style="margin:1rem"><main>{}</main></body></html>"""
HOLDING = [
    path
    for path in PAGES
    if (BUILT / path).exists() and "flowcourse.prompt.prompt," in (BUILT / path).read_text()
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of the page by protocol."""
    folder = tmp_path_factory.mktemp("prompt")
    write(folder / "runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shipped, "FOLDER", folder / "shipped")
        shipped.ship(folder / "runs", shipped.FOLDER)
        html = PAGE.format(kept_once([prompt_box(CAPTION, seed=5, count=1)._repr_html_()])[0])
        (folder / "site").mkdir()
        (folder / "site" / "index.html").write_text(html, encoding="utf-8")
        parts.write(folder / "site" / parts.FOLDER, {*PART.findall(html)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder / "site")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "file": (folder / "site" / "index.html").as_uri(),
            "http": f"http://127.0.0.1:{server.server_port}{PREFIX}/index.html",
        }
        server.shutdown()
        server.server_close()


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, site: dict[str, str]) -> Iterator[Open]:
    """Opens the page: opened(protocol, width=1280, ...). Its `asked` are the parts that it loaded."""
    contexts, errors = [], []

    def open_(protocol: str = "file", *, width: int = 1280, wait: bool = True, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(site[protocol])
        if wait:
            page.wait_for_selector("[data-live]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


def state(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("document.querySelector('figure').flow.state()")
    return found


def until(page: Page, condition: str) -> None:
    page.wait_for_function(
        f"(() => {{ const s = document.querySelector('figure').flow.state(); return {condition} }})()"
    )


def said(page: Page) -> str:
    return page.locator(".flow-readout").text_content() or ""


def test_a_press_loads_and_draws_what_python_draws(opened: Open, protocol: str) -> None:
    page = opened(protocol)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    button = page.locator(".flow-draw")
    label = button.text_content() or ""
    size = sum(part.size for name, part in parts.available().items() if name != "model")
    assert label == f"Load {size / 1e6:.1f} MB and draw"
    assert not page.evaluate("performance.getEntriesByType('resource').some((r) => r.name.endsWith('.js'))")
    button.click()
    until(page, "s.found")
    loaded = [re.sub(r".*/(\w+)-.*", r"\1", url) for url in asked if url.endswith(".js")]
    assert sorted(loaded) == ["decoder", "painter", "student"]
    assert button.text_content() == "Draw"
    x = draw(shipped.student(), shipped.autoencoder(), [CAPTION], steps=4, x_0=noise(5, 1), again=later(5, 1))
    found = state(page)
    rgba = np.array([*found["pixels"]], dtype=float).reshape(32, 32, 4) / 255
    assert np.abs(rgba[..., :3] - x[0].permute(1, 2, 0).numpy()).max() < 1.01 / 255
    assert [one["obeyed"] for one in found["found"]] == [judge(detect(x)[0], parse(CAPTION))]
    assert said(page).startswith(f"“{CAPTION}”, seed 5: 4 steps of the student in ")
    shown = page.locator(".flow-pictures canvas").get_attribute("aria-label") or ""
    assert shown == f"Picture 1: {found['found'][0]['said']}"
    page.wait_for_function(
        "document.querySelector('.flow-heard').textContent.startsWith('picture ready: the')"
    )


def test_it_stops_starts_afresh_and_resets(opened: Open) -> None:
    page = opened()
    page.locator("[data-control=method]").select_option("guided teacher")
    page.locator("[data-control=count]").select_option("4")
    assert page.locator("[data-control=scale]").is_enabled()
    page.locator(".flow-draw").click()
    until(page, "s.step >= 1")
    page.locator(".flow-stop").click()
    page.wait_for_function(
        "document.querySelector('.flow-readout').textContent.startsWith('Stopped after step')"
    )
    stopped = state(page)["step"]
    page.wait_for_timeout(1000)
    assert state(page)["step"] == stopped < 20 and not state(page)["busy"]
    page.locator(".flow-draw").click()  # and again, while it runs, for something else
    until(page, "s.step >= 1")
    page.locator("[data-control=method]").select_option("student")
    assert not page.locator("[data-control=scale]").is_enabled()
    page.locator(".flow-draw").click()
    until(page, "s.found")
    assert state(page)["steps"] == 4
    page.wait_for_timeout(500)
    assert state(page)["steps"] == 4 and len(state(page)["found"]) == 4
    assert page.locator(".flow-pictures canvas").count() == 4
    page.locator(".flow-reset").click()
    assert page.locator(".flow-pictures img").count() == 1
    assert state(page)["prompt"] == CAPTION and state(page)["count"] == "1"


def test_a_slider_leads_back_through_the_steps(opened: Open) -> None:
    page = opened()
    slider = page.locator("[data-control=at]")
    assert not slider.is_enabled()  # nothing was drawn yet
    page.locator(".flow-draw").click()
    until(page, "s.found")
    verdict = said(page)
    assert state(page)["at"] == 4
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "document.querySelector('.flow-readout').textContent === 'After step 0 of 4, at t = 0.00'"
    )
    shown = page.evaluate(
        "[...document.querySelector('.flow-pictures canvas').getContext('2d').getImageData(0, 0, 32, 32).data]"
    )
    x = (shipped.autoencoder().decode(noise(5, 1))[0] / 2 + 0.5).clamp(0, 1)
    rgba = np.array(shown, dtype=float).reshape(32, 32, 4) / 255
    assert np.abs(rgba[..., :3] - x.permute(1, 2, 0).numpy()).max() < 1.01 / 255
    assert page.locator(".flow-pictures p").text_content() == ""
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.flow-readout').textContent.includes('step 1 of 4')")
    page.keyboard.press("End")
    page.wait_for_function(f"document.querySelector('.flow-readout').textContent === {json.dumps(verdict)}")
    assert "obeyed" in (page.locator(".flow-pictures p").text_content() or "")
    page.locator("[data-control=steps]").focus()
    page.keyboard.press("Home")
    page.locator(".flow-draw").click()
    until(page, "s.found && s.steps === 1")
    assert state(page)["at"] == 1 and slider.get_attribute("max") == "1"
    page.locator(".flow-reset").click()
    page.wait_for_function("document.querySelector('[data-control=at]').disabled")
    assert state(page)["at"] == 4


def test_the_picture_follows_the_typing(opened: Open) -> None:
    page = opened()
    page.get_by_label("as I type").check()
    page.locator("[data-control=prompt]").fill("a purple circle")
    page.wait_for_timeout(300)
    assert not state(page)["given"]  # what is not loaded is loaded by a press
    page.locator(".flow-draw").click()
    until(page, "s.found")
    page.locator("[data-control=prompt]").press("End")
    page.keyboard.type(" on")  # no whole prompt
    page.wait_for_timeout(300)
    assert "a purple circle" in said(page) and not state(page)["busy"]
    page.keyboard.type(" black")
    page.wait_for_function(
        "document.querySelector('.flow-readout').textContent.startsWith('“a purple circle on black”')"
    )
    page.locator("[data-control=seed]").fill("7")
    page.wait_for_function("document.querySelector('.flow-readout').textContent.includes('seed 7')")
    page.get_by_label("as I type").uncheck()
    page.locator("[data-control=seed]").fill("8")
    page.wait_for_timeout(300)
    assert "seed 7" in said(page)


def test_by_keyboard_alone(opened: Open) -> None:
    page = opened()
    field = page.locator("[data-control=prompt]")
    page.keyboard.press("Tab")
    assert field.evaluate("field => field === document.activeElement")
    page.keyboard.press("Control+A")
    page.keyboard.type("two purple cir")
    note = page.locator(".flow-note")
    expect(note).to_contain_text("'cir' is not among the 31 words; the nearest is 'circle'")
    expect(note).to_have_attribute("data-wrong", "true")
    assert field.get_attribute("aria-describedby") == note.get_attribute("id")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('.flow-readout').textContent.startsWith('This is no prompt')"
    )
    assert not state(page)["busy"]
    for _ in range(3):  # over Draw, and Stop which is off, to the words
        if page.evaluate("document.activeElement.closest('.flow-chips') !== null"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert field.input_value() == "two purple circle"
    page.keyboard.type("s on black")
    page.wait_for_function("document.querySelector('.flow-note').textContent === 'A whole prompt.'")
    field.evaluate(
        """(field) => {
          for (const key of ["Enter", "Escape"]) // before the next frame turns the button on
            field.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        }"""
    )
    assert not state(page)["busy"]
    field.focus()
    page.keyboard.press("Enter")
    until(page, "s.busy")
    page.keyboard.press("Escape")
    assert not state(page)["busy"]
    page.keyboard.press("Enter")
    until(page, "s.found")


def test_words_that_may_follow_are_offered(opened: Open) -> None:
    page = opened()
    page.locator("[data-control=prompt]").fill("")
    for word in ("two", "small", "rings", "on", "white"):
        page.get_by_role("button", name=f"add {word}", exact=True).click()
    assert page.locator("[data-control=prompt]").input_value() == "two small rings on white"
    page.get_by_role("button", name="a purple circle", exact=True).click()
    assert state(page)["prompt"] == "a purple circle"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened: Open, scheme: str) -> None:
    page = opened(width=390, color_scheme=scheme, reduced_motion="reduce", has_touch=True)
    page.locator("[data-control=count]").select_option("9")
    page.locator(".flow-draw").click()
    until(page, "s.pixels")
    page.locator("[data-control=prompt]").fill("a")  # which most words may follow
    page.wait_for_function("document.querySelectorAll('.flow-chips button').length > 10")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".flow-pictures canvas").count() == 9


def test_without_scripts_a_picture_and_a_sentence_stand_there(opened: Open) -> None:
    page = opened(java_script_enabled=False, wait=False)
    assert page.locator(".flow-pictures img").is_visible()
    assert page.get_by_text("Drawn in advance for one prompt").is_visible()
    assert not page.locator("[data-control=prompt]").is_visible()


def test_a_part_that_can_not_be_loaded_is_named_and_asked_for_again(opened: Open) -> None:
    page = opened("http")
    page.route("**/student-*.js", lambda route: route.abort())
    page.locator(".flow-draw").click()
    page.wait_for_function(
        "document.querySelector('.flow-readout').textContent.includes('could not be loaded')"
    )
    assert not state(page)["busy"]
    page.unroute("**/student-*.js")
    page.locator(".flow-draw").click()
    until(page, "s.found")


def test_the_page_never_waits(opened: Open, browser: Browser) -> None:
    """No task of the main thread takes 50 ms of the processor, be the machine as busy as it may."""
    page = opened()
    browser.start_tracing(
        page=page, categories=["toplevel", "disabled-by-default-devtools.timeline", "__metadata"]
    )
    page.locator(".flow-draw").click()
    until(page, "s.found")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    mains = {
        (e["pid"], e["tid"])
        for e in events
        if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        e.get("tdur", 0) / 1000
        for e in events
        if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in mains
    ]
    assert len(tasks) > 20
    assert max(tasks) < 50


@pytest.mark.skipif(not HOLDING, reason="no page of the book holds a prompt box yet")
@pytest.mark.parametrize("chapter", HOLDING)
def test_the_prompt_box_of_the_book_draws(visit: Visitor, chapter: str, protocol: str) -> None:
    seen = visit(chapter, protocol)
    figure = seen.page.locator("figure", has=seen.page.locator("[data-control=prompt]")).first
    figure.scroll_into_view_if_needed()
    before = seen.page.evaluate("performance.getEntriesByType('resource').map((r) => r.name)")
    figure.locator(".flow-draw").click()
    seen.page.wait_for_function(
        "figure => figure.flow.state().found", arg=figure.element_handle(), timeout=PATIENCE
    )
    assert seen.outside == [] and seen.errors == []
    assert before or protocol == "file"  # of which Chromium tells no resources
    assert not any(parts.FOLDER in name for name in before)  # its parts wait for the press
