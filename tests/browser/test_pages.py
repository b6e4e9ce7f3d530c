"""Every page of the book, whole without a network, in light and dark, on a phone, by keyboard, with a screen reader."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError

from .conftest import PAGES, Visit, Visitor

Read = Callable[[str, str, str, int], Visit]
LONGEST = max(PAGES, key=lambda name: name.startswith("book/01"))  # a chapter if there is one


def test_a_page_loads_whole_and_asks_nobody_outside(read: Read, path: str, protocol: str) -> None:
    seen = read(path, protocol, "dark", 1280)
    assert seen.outside == []
    assert seen.errors == []
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert seen.page.evaluate(broken) == []


def test_every_picture_has_words(read: Read, path: str) -> None:
    wordless = read(path, "http", "dark", 1280).page.evaluate(
        """() => [...document.querySelectorAll("img, svg, canvas, video")].filter((picture) => {
          if (picture.closest("[aria-hidden=true], .katex")) return false;
          if (picture.tagName === "IMG") return !picture.hasAttribute("alt");
          const named = picture.getAttribute("aria-label") || picture.querySelector(":scope > title")?.textContent;
          return !named?.trim() || !picture.getAttribute("role");
        }).map((picture) => picture.outerHTML.slice(0, 200))"""
    )
    assert wordless == []


EMPTIED = """() => {
  const boxes = [...document.querySelectorAll(".katex-html, svg[aria-hidden=true]")].filter(
    (box) => box.firstChild && !box.parentElement.closest(".katex-html, svg"));
  const sizes = boxes.map((box) => box.getBoundingClientRect());
  window.emptied = boxes.map((box, i) => {
    const inside = document.createDocumentFragment(), style = box.getAttribute("style");
    inside.append(...box.childNodes);
    if (box.matches(".katex-html")) {
      const { width, height } = sizes[i];
      box.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px; vertical-align: middle`;
    }
    return [box, inside, style];
  });
}"""
RESTORED = """() => {
  for (const [box, inside, style] of window.emptied) {
    box.append(inside);
    style === null ? box.removeAttribute("style") : box.setAttribute("style", style);
  }
}"""


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 390)])
def test_axe_finds_nothing(read: Read, path: str, scheme: str, width: int) -> None:
    page = read(path, "http", scheme, width).page
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    # A section far away is not laid out, and its parts would be judged at places where nobody sees them.
    page.add_style_tag(content="section { content-visibility: visible !important }")
    # The page hears with the next frames what has become too wide; if it never does, axe says so.
    with suppress(TimeoutError):
        page.wait_for_function(
            """[...document.querySelectorAll("pre")].every(
              (box) => !box.checkVisibility() || box.scrollWidth <= box.clientWidth || box.tabIndex === 0)"""
        )
    # What formulas look like is hidden from screen readers, which read their MathML. It and the insides of pictures
    # that are hidden too are half of all elements: while axe looks, boxes of the same size stand for them.
    page.evaluate(EMPTIED)
    try:
        found = Axe().run(page, context={"exclude": [[".katex"]]}, options={"resultTypes": ["violations"]})
    finally:
        page.evaluate(RESTORED)
    told = [
        f"{rule['id']}: {node['html'][:200]}\n{node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]
    assert not told, "\n\n".join(told[:20])


def test_wide_formulas_are_within_reach_of_the_keyboard(read: Read, path: str) -> None:
    boxes = read(path, "http", "light", 390).page.locator(".formula:visible")
    wide = boxes.evaluate_all("all => all.map(box => box.scrollWidth > box.clientWidth)")
    reachable = boxes.evaluate_all("all => all.map(box => box.tabIndex === 0)")
    assert wide == reachable


def test_a_font_that_comes_late_is_noticed(visit: Visitor) -> None:
    page = visit(LONGEST).page
    formula = page.locator(".formula:visible").first
    formula.scroll_into_view_if_needed()
    reachable = "box => box.tabIndex === 0"
    for width, wide in (("9999px", True), ("auto", False)):
        formula.evaluate("(box, width) => { box.firstElementChild.style.width = width; }", width)
        page.evaluate("document.fonts.dispatchEvent(new Event('loadingdone'))")
        page.wait_for_timeout(200)
        assert formula.evaluate(reachable) is wide


def test_formulas_stay_in_their_boxes_and_a_cut_edge_fades(visit: Visitor) -> None:
    page = visit(LONGEST, width=1440).page
    page.add_style_tag(content="section { content-visibility: visible !important }")
    outside = page.locator(".admonition:not(.hide) .display").evaluate_all(
        """all => all.filter((display) => {
          const [box, own] = [display.closest(".admonition"), display].map((e) => e.getBoundingClientRect());
          return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
        }).length"""
    )
    assert outside == 0 and page.locator(".admonition .display").count() > 3
    formula = page.locator(".formula:visible").first
    formula.evaluate(
        "box => { box.style.width = '3rem'; box.querySelector('.katex').style.whiteSpace = 'nowrap'; }"
    )
    formula.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.cut-right:not(.cut-left)')")
    formula.evaluate("box => { box.scrollLeft = 9999; }")
    page.wait_for_function("document.querySelector('.cut-left:not(.cut-right)')")


def test_claims_fold_without_a_script(visit: Visitor) -> None:
    page = visit(LONGEST, scripts=False).page
    fold = page.locator("details.claims").first
    line, claims = fold.locator("summary"), fold.locator(".output.claims")
    assert re.fullmatch(r"\d+ claims? holds?", (line.text_content() or "").strip())
    assert not claims.is_visible()
    line.click()
    assert claims.is_visible() and (claims.text_content() or "").startswith("✓ ")
    assert int((line.text_content() or "").split()[0]) == (claims.text_content() or "").count("✓ ")


def test_folds_are_called_by_what_they_show(path: str, built: Path) -> None:
    page = (built / path).read_text(encoding="utf-8")
    assert not re.findall(r"<summary[^>]*aria-label=\"(?!Source repositories|Download this page)", page)
    words = re.findall(r"<summary[^>]*>(.*?)</summary>", page, re.DOTALL)
    assert all(re.sub(r"<svg.*?</svg>|<[^>]*>", "", word).strip() or "<svg" in word for word in words)


def test_figures_of_a_chapter_are_numbered_in_order(path: str, built: Path) -> None:
    page = (built / path).read_text(encoding="utf-8")
    numbers = re.findall(r'<span class="caption-number">Figure (\d+)\.(\d+)</span>', page)
    chapter = re.match(r"book/0*([1-9]\d*)-", path)
    assert numbers == [(chapter[1] if chapter else "", str(n)) for n in range(1, len(numbers) + 1)]
    assert len(numbers) >= page.count('<figure class="flow-explorable"') > 0 or not chapter


@pytest.mark.parametrize("chapter", [name for name in PAGES if name.startswith("book/0")])
def test_a_phone_shows_the_slider_of_a_first_picture_with_it(visit: Visitor, chapter: str) -> None:
    page = visit(chapter, width=390).page
    figure = page.locator(".flow-explorable").first
    figure.scroll_into_view_if_needed()
    figure.locator(".flow-controls").evaluate(
        "box => scrollTo({ top: scrollY + box.getBoundingClientRect().bottom - innerHeight, behavior: 'instant' })"
    )
    page.wait_for_timeout(300)
    top, bottom = figure.locator(".flow-panel, .flow-frames").first.evaluate(
        "panel => [panel.getBoundingClientRect().top, panel.getBoundingClientRect().bottom]"
    )
    assert top >= 0 and bottom <= 844


def test_nothing_is_wider_than_a_phone(read: Read, path: str) -> None:
    page = read(path, "http", "light", 390).page
    page.evaluate("document.querySelectorAll('article details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


class Links(HTMLParser):
    """The ids of a page, the links that a reader may follow, the files that it loads, and the buttons of its forms."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.names: list[str] = []  # ids outside of templates, which are no part of the page yet
        self.templates = 0  # around
        self.submits: list[int] = []  # of each form
        self.follows: list[str] = []
        self.loads: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.templates += tag == "template"
        if not self.templates and (name := values.get("id")):
            self.names.append(name)
        if tag == "form":
            self.submits.append(0)
        elif tag == "button" and self.submits and values.get("type", "submit") == "submit":
            self.submits[-1] += 1
        self.ids.update(filter(None, [values.get("id"), values.get("name") if tag == "a" else None]))
        if tag in ("a", "form") and (url := values.get("href") or values.get("action")):
            self.follows.append(url)
        elif tag == "link" and values.get("rel") == "canonical":
            self.follows.append(values["href"] or "")
        elif url := values.get("src") or values.get("href"):
            self.loads.append(url)

    def handle_endtag(self, tag: str) -> None:
        self.templates -= tag == "template"


def test_names_are_given_once_and_forms_have_a_button(path: str, built: Path) -> None:
    page = Links(built / path)
    assert [name for name, times in Counter(page.names).items() if times > 1] == []
    assert page.submits and all(page.submits)  # the search in the menu at least


def test_every_link_leads_somewhere(built: Path) -> None:
    pages = {built / name: Links(built / name) for name in PAGES}
    dead = []
    for page, links in pages.items():
        for url in links.follows + links.loads:
            parts = urlsplit(urljoin(page.as_uri(), url))
            if parts.scheme == "data" or (
                parts.scheme in ("http", "https", "mailto") and url in links.follows
            ):
                continue
            target = Path(unquote(parts.path))
            missing = parts.scheme != "file" or not target.is_file()
            anchor = unquote(parts.fragment)
            if missing or (anchor and target in pages and anchor not in pages[target].ids):
                dead.append(f"{page.relative_to(built)}: {url}")
    assert dead == []


def test_the_first_page_is_the_introduction(visit: Visitor, protocol: str) -> None:
    seen = visit("index.html", protocol)
    seen.page.wait_for_url("**/book/intro.html")


def test_the_reader_chooses_light_or_dark_and_the_choice_stays(visit: Visitor, protocol: str) -> None:
    page = visit("book/intro.html", protocol, scheme="dark").page
    theme = "document.documentElement.dataset.theme"
    button = page.get_by_role("button", name="Dark page")
    assert page.evaluate(theme) == "dark" and button.get_attribute("aria-pressed") == "true"
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(paper)
    button.click()
    for _ in range(20):  # Chromium passes localStorage on to the reloaded page's process in its own time
        page.reload()
        if page.evaluate(theme) == "light":
            break
        page.wait_for_timeout(100)
    assert page.evaluate(theme) == "light" and button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(paper) != dark
    button.click()  # what the system says: from now on the page follows it again
    assert page.evaluate("localStorage.getItem('mode')") is None
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{theme} === 'light'")


def test_searching_finds_the_theorem_and_leads_to_it(visit: Visitor, protocol: str) -> None:
    seen = visit("book/intro.html", protocol)
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("Continuity equations")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/search.html?q=*")
    results = seen.page.locator("#search-results li")
    results.first.wait_for()
    first, second = (results.nth(i).locator("a").text_content() or "" for i in (0, 1))
    assert re.fullmatch(r"Theorem 1\.\d+ \(Continuity equation\)", first)
    assert second == "The continuity equation"
    assert results.nth(1).locator("mark").count() > 0
    told = " ".join(results.locator(".context").all_text_contents())
    assert "import " not in told and "claim(" not in told and "\\" not in told
    results.first.locator("a").click()
    seen.page.wait_for_url("**/book/01-*#thm-continuity")
    seen.page.wait_for_function("CSS.highlights?.get('search')?.size > 3")
    seen.page.wait_for_function(
        "Math.abs(document.querySelector('#thm-continuity').getBoundingClientRect().top) < 200"
    )
    assert seen.errors == [] and seen.outside == []


def test_searching_for_what_is_nowhere_says_so(visit: Visitor) -> None:
    page = visit("search.html?q=quagga+zebra+%3Czzz%3E").page
    told = page.locator("#search-results").text_content() or ""
    assert told == "Nothing has all of these words: quagga zebra <zzz>"
    assert page.locator("#search-results li").count() == 0


def test_where_nothing_has_all_words_those_with_most_are_shown(visit: Visitor) -> None:
    page = visit("search.html?q=continuity+equation+zebra").page
    told = page.locator("#search-results > p").text_content() or ""
    assert re.fullmatch(
        r"Nothing has all of these words: continuity equation zebra\. Some of them are in \d+ places.*:", told
    )
    first = page.locator("#search-results li a").first.text_content() or ""
    assert "continuity equation" in first.lower()


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("cfg", "Guidance without a classifier"),
        ("matching loss", "Flow matching"),
        ("log determinant", "Composition adds log-determinants"),
        ("hutchinson", "Hutchinson’s estimate"),
        ("guidance scale", "Guidance scales"),
        ("ode solver", "odeint"),
        ("adjoint method", "adjoint"),
    ],
)
def test_what_readers_type_is_among_the_first_places(visit: Visitor, typed: str, place: str) -> None:
    page = visit(f"search.html?q={typed}").page
    page.locator("#search-results li").first.wait_for()
    titles = page.locator("#search-results li > a").all_text_contents()[:5]
    assert any(place in title for title in titles), titles


def test_menus_of_a_phone_open_and_close_by_keyboard_and_touch(visit: Visitor) -> None:
    page = visit(LONGEST, width=390).page
    for name, label in (("Chapters", "Book"), ("On this page", "On this page")):
        button, menu = page.get_by_role("button", name=name), page.get_by_role("navigation", name=label)
        assert not menu.is_visible()
        button.focus()
        page.keyboard.press("Enter")
        assert menu.is_visible()
        page.keyboard.press("Escape")
        assert not menu.is_visible()
        button.tap()
        assert menu.is_visible()
        page.touchscreen.tap(380 if name == "Chapters" else 10, 700)
        assert not menu.is_visible()
    page.get_by_role("button", name="On this page").tap()
    page.locator("#contents a").last.tap()
    assert not page.locator("#contents").is_visible()


def test_a_link_leads_to_the_place_it_names(visit: Visitor) -> None:
    page = visit(LONGEST).page
    for link in (page.locator("#contents ul ul a").last, page.locator("#contents ul ul a").first):
        link.click()
        page.wait_for_timeout(300)
        name = link.get_attribute("href") or ""
        top, room = page.evaluate(
            "name => [document.getElementById(name).getBoundingClientRect().top,"
            " document.documentElement.scrollHeight - innerHeight - scrollY]",
            unquote(name.removeprefix("#")),
        )
        assert 0 <= top < 120 or room < 2


def test_a_link_into_a_fold_opens_it(visit: Visitor) -> None:
    page = visit(LONGEST).page
    fold = page.locator("article details[id]").first
    assert fold.get_attribute("open") is None
    page.evaluate("id => { location.hash = id; }", fold.get_attribute("id"))
    page.wait_for_function("id => document.getElementById(id).open", arg=fold.get_attribute("id"))


def test_a_copied_formula_is_its_source(visit: Visitor) -> None:
    page = visit(LONGEST).page
    copied, source = page.evaluate(
        """() => {
          const formula = document.querySelector("p .katex");
          getSelection().selectAllChildren(formula.closest("p"));
          const event = new ClipboardEvent("copy", { clipboardData: new DataTransfer(), cancelable: true });
          document.dispatchEvent(event);
          return [event.clipboardData.getData("text/plain"), formula.querySelector("annotation").textContent];
        }"""
    )
    assert f"${source}$" in copied
    assert "\u200b" not in copied


def test_code_is_copied_by_its_button(visit: Visitor) -> None:
    page = visit(LONGEST).page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = page.locator(".cell_input div.highlight:visible").first
    block.scroll_into_view_if_needed()
    block.hover()
    block.get_by_role("button", name="Copy").click()
    code = block.locator("pre").text_content() or ""
    assert page.evaluate("navigator.clipboard.readText()").split() == code.split() != []


def test_paper_is_light_with_open_folds_and_no_frame(visit: Visitor) -> None:
    page = visit(LONGEST, scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("#bar, #sidebar, #contents").filter(visible=True).count()
    assert page.locator("pre").evaluate_all(
        "all => all.every(p => getComputedStyle(p).whiteSpace === 'pre-wrap')"
    )
    assert (
        not page.locator("details.hide:not(.claims)").filter(visible=True).count()
    )  # code that was folded stays so
    assert page.locator(".output.claims").filter(visible=True).count()
    folds, theme = (
        page.locator("article details:not([open]):not(.hide)"),
        "document.documentElement.dataset.theme",
    )
    closed = folds.count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert closed > 0 and folds.count() == 0 and page.evaluate(theme) == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folds.count() == closed and page.evaluate(theme) == "dark"


def test_without_scripts_the_text_formulas_and_menus_are_there(visit: Visitor, protocol: str) -> None:
    page = visit(LONGEST, protocol, scripts=False, width=390).page
    assert page.locator("article h1").is_visible()
    formula = page.locator(".katex-html").first
    assert formula.is_visible() and (formula.bounding_box() or {}).get("width", 0) > 5
    page.get_by_role("button", name="Chapters").tap()
    assert page.get_by_role("navigation", name="Book").is_visible()


def test_the_manifest_of_vendored_files_is_not_published(built: Path) -> None:
    """What only the build needs stays out of the pages: KaTeX's script, above all."""
    shipped = {path.name for path in built.rglob("*") if path.is_file()}
    assert not shipped & {"katex.min.js", "manifest.json"}
    assert json.dumps(sorted(name for name in shipped if name.endswith(".js.map"))) == "[]"
