"""The built book in headless Chromium, with everything outside of the book blocked and recorded.

Build the book first (`python3 run.py book`). Chromium is the one that the variable CHROMIUM names, else one on the
PATH, else Playwright's own. Without any the suite is skipped, or fails if the variable REQUIRE_BROWSER is 1.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "_build" / "html"
FROM = (
    "_config.yml",
    "_toc.yml",
    "requirements.txt",
    "book",
    "flowlib",
    "flowcourse",
)  # what makes the pages
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PREFIX = "/project"  # GitHub Pages serves a project's pages below its name
FIRST = "book/intro.html"
PAGES = sorted(path.relative_to(BUILT).as_posix() for path in BUILT.glob("book/**/*.html")) or [FIRST]
PAGES.append("search.html")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`path` is every page in turn; `protocol` is each way of opening one."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", PAGES, scope="module")  # so that a page's tests follow one another
    if "protocol" in metafunc.fixturenames:
        metafunc.parametrize("protocol", ["http", "file"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share an open page stay together when the suite runs on several cores (`--dist loadgroup`)."""
    for item in items:
        parameters = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        if shared := parameters.get("path") or parameters.get("opened"):
            item.add_marker(pytest.mark.xdist_group(str(shared)))


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built book; fails if it is missing or older than what it is made from."""
    stamp = BUILT / ".nojekyll"  # touched at the end of every build
    if not stamp.exists():
        pytest.fail(f"there is no book in {BUILT}: build it with `python3 run.py book`")
    sources = [
        file
        for name in FROM
        for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and ".ipynb_checkpoints" not in file.parts
    ]
    newest = max(sources, key=lambda file: file.stat().st_mtime)
    if newest.stat().st_mtime > stamp.stat().st_mtime:
        name = newest.relative_to(ROOT)
        pytest.fail(f"{name} changed after the book was built: build it again with `python3 run.py book`")
    return BUILT


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if named is None and not Path(playwright.chromium.executable_path).exists():
            reason = (
                f"no browser: install Chromium (looked for {', '.join(NAMES)}) or set CHROMIUM to its path"
            )
            (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
        found = playwright.chromium.launch(executable_path=named, args=FLAGS)
        yield found
        found.close()


class Handler(SimpleHTTPRequestHandler):
    """Serves the book below PREFIX, and nothing elsewhere."""

    def translate_path(self, path: str) -> str:
        inside = path.startswith(f"{PREFIX}/")
        return super().translate_path(path.removeprefix(PREFIX) if inside else "/outside-of-the-book")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def bases(built: Path) -> Iterator[dict[str, str]]:
    """Where the book's root is, by protocol."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"http": f"http://127.0.0.1:{server.server_port}{PREFIX}/", "file": f"{built.as_uri()}/"}
    server.shutdown()
    server.server_close()


@dataclass
class Visit:
    """An open page and what went wrong on it."""

    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def read_through(self) -> None:
        """Scroll to the end, as a reader does, so that everything that waits for being seen appears."""
        self.page.bring_to_front()  # a page that the browser takes for hidden gets no frames
        self.page.evaluate(
            """async () => {
              for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {
                scrollTo({ top: y, behavior: "instant" });
                await new Promise((resolve) => {
                  requestAnimationFrame(() => requestAnimationFrame(resolve));
                  setTimeout(resolve, 5000);  // no frame may come at all, and a test must not wait for ever
                });
              }
              scrollTo({ top: 0, behavior: "instant" });
            }"""
        )


Key = tuple[str, str, str, int]


class Visitor:
    """Opens pages of the book, each in a browser context of its own."""

    def __init__(self, browser: Browser, bases: dict[str, str]) -> None:
        self.browser, self.bases = browser, bases
        self.contexts: list[BrowserContext] = []
        self.kept: dict[Key, Visit] = {}

    def __call__(
        self,
        path: str,
        protocol: str = "http",
        scheme: Literal["light", "dark"] = "light",
        width: int = 1280,
        scripts: bool = True,
    ) -> Visit:
        context = self.browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            java_script_enabled=scripts,
            has_touch=width < 500,
        )
        self.contexts.append(context)
        seen = Visit(context.new_page())

        def gate(route: Route, request: Request) -> None:
            if request.url.startswith((self.bases[protocol], "data:", "blob:")):
                route.continue_()
            else:
                seen.outside.append(request.url)
                route.abort()

        def note(kind: str, text: str) -> None:
            seen.errors.append(f"{kind}: {text}")

        context.route("**/*", gate)
        seen.page.on("pageerror", lambda error: note("error", str(error)))
        seen.page.on("console", lambda m: note("console", m.text) if m.type == "error" else None)
        seen.page.on(  # a request that a click on a link cut off has not failed
            "requestfailed", lambda r: note("failed", r.url) if r.failure != "net::ERR_ABORTED" else None
        )
        seen.page.on("response", lambda r: note(str(r.status), r.url) if r.status >= 400 else None)
        seen.page.goto(self.bases[protocol] + path)
        return seen

    def once(self, path: str, protocol: str, scheme: Literal["light", "dark"], width: int) -> Visit:
        """The page read through to its end, kept open for the next test that asks for the same."""
        key = (path, protocol, scheme, width)
        if any(kept[0] != path for kept in self.kept):
            self.close()
        if key not in self.kept:
            self.kept[key] = self(*key)
            self.kept[key].read_through()
        return self.kept[key]

    def close(self) -> None:
        """Close all pages."""
        for context in self.contexts:
            context.close()
        self.contexts.clear()
        self.kept.clear()


@pytest.fixture
def visit(browser: Browser, bases: dict[str, str]) -> Iterator[Visitor]:
    """Opens pages for one test: visit(path, protocol="http", scheme="light", width=1280, scripts=True)."""
    visitor = Visitor(browser, bases)
    yield visitor
    visitor.close()


@pytest.fixture(scope="module")
def read(browser: Browser, bases: dict[str, str]) -> Iterator[Callable[[str, str, Any, int], Visit]]:
    """Opens pages that the tests of one module share and leave as they are: read(path, protocol, scheme, width)."""
    visitor = Visitor(browser, bases)
    yield visitor.once
    visitor.close()
