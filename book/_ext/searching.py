"""A search of the book that finds places: sections, theorems and exercises, whole without a server.

When the build ends, every page is read once, and what a reader may look for becomes a list of entries, one for a
section, a theorem or an exercise, with its title, its number and its prose: no code, no output, formulas as they are
read aloud. The list is a script, since a page opened as a file may load nothing else, and search.js ranks it.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from light_pages import fingerprint

if TYPE_CHECKING:
    from sphinx.application import Sphinx

VOID = {"br", "hr", "img", "input", "link", "meta", "col", "wbr", "source"}
HEAVY = re.compile(
    r"<(script|style|svg|template)\b.*?</\1>", re.DOTALL
)  # most of a page, and nothing to read
SKIPPED = {
    "headerlink",
    "cell",
    "highlight",
    "katex-html",
    "eqno",
    "copy",
    "neighbors",
    "qed",
    "section-number",
}


class Reader(HTMLParser):
    """The entries of one page, each `[kind, anchor, title, text]`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.entries: list[list[Any]] = []
        self.open: list[tuple[str, int | None]] = []  # tags around, and the entry to go back to at their end
        self.into: int | None = None  # the entry that gets what is read
        self.title = False
        self.skipping = 0
        self.feed(HEAVY.sub("", page))
        for entry in self.entries:
            entry[2:] = [re.sub(r"\s+", " ", text).strip().replace(" ,", ",") for text in entry[2:]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        values = {name: value or "" for name, value in attrs}
        classes = set(values.get("class", "").split())
        self.open.append((tag, self.into))
        if self.skipping or classes & SKIPPED or tag == "annotation":
            self.skipping += 1
            return
        kind = 1 if tag == "section" and values.get("id") and not values["id"].endswith("-content") else 0
        if "admonition" in classes and values.get("id") and classes & {"proof", "exercise"}:
            kind = 3 if "exercise" in classes else 2
        if kind:
            kind = 0 if kind == 1 and not self.entries else kind
            self.entries.append([kind, values["id"], "", ""])
            self.into = len(self.entries) - 1
        elif self.into is not None and not self.entries[self.into][2]:
            titled = re.fullmatch("h[1-4]", tag) or "admonition-title" in classes
            self.title = self.title or bool(titled)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or not self.open:
            return
        _, before = self.open.pop()
        if self.skipping:
            self.skipping -= 1
            return
        if re.fullmatch("h[1-4]|p|summary", tag):
            self.title = False
        if self.into is not None and tag in {"p", "li", "dt", "dd", "td", "th", "div"}:
            self.entries[self.into][3] += " "
        self.into = before

    def handle_data(self, data: str) -> None:
        if not self.skipping and self.into is not None:
            self.entries[self.into][2 if self.title else 3] += data


def article(page: str) -> str:
    """What is between the tags of the page's article."""
    return page.partition("<article>")[2].partition("</article>")[0]


def collect(outdir: Path) -> list[list[Any]]:
    """Of every page its address, its title and its entries."""
    found = []
    for path in sorted((outdir / "book").rglob("*.html")):
        page = path.read_text(encoding="utf-8")
        entries = [entry for entry in Reader(article(page)).entries if entry[2]]
        if entries:
            found.append([path.relative_to(outdir).as_posix(), entries[0][2], entries])
    return found


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the list, and give the search page its name, which changes with its content."""
    page = Path(app.outdir) / "search.html"
    if error is not None or app.builder.format != "html" or not page.exists():
        return
    static = Path(app.outdir) / "_static"
    text = "var places = " + json.dumps(collect(Path(app.outdir)), ensure_ascii=False, separators=(",", ":"))
    name = f"places.{fingerprint(text.encode())}.js"
    for old in static.glob("places.*.js"):
        old.unlink()
    (static / name).write_text(text, encoding="utf-8")
    html = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(_static/)places(?:\.\w{12})?\.js", rf"\1{name}", html), encoding="utf-8")


def replace_index(app: Sphinx) -> None:
    """No index of Sphinx's own, which knows pages alone; its search page stays, with our script."""
    if app.builder.format == "html":
        app.builder.search = False  # type: ignore[attr-defined]
        app.config.html_additional_pages = {**app.config.html_additional_pages, "search": "search.html"}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", replace_index)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
