"""How good and how heavy the pages of the built book are, as a table in Markdown.

    python -m tools.scores [PAGE ...]     measure these pages, or all of them; build the book first

Lighthouse measures each page twice, as a desktop and as a phone, over a server on this computer that compresses as a
host does. It comes from npm in the version pinned below, so that node, Chromium or Chrome (CHROME_PATH, if it is not
found) and once a network are needed. Performance is a matter of milliseconds: measure on a machine that does nothing
else, and believe the median of several runs (`--runs 3`). The time a chapter runs comes from the cache of executed
notebooks and is that of the last build.
"""

from __future__ import annotations

import argparse
import gzip
import json
import mimetypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
LIGHTHOUSE = "lighthouse@12.8.2"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
FORMS = ("desktop", "mobile")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class ScoresError(RuntimeError):
    """Something is missing or Lighthouse failed; the message says what."""


@dataclass(frozen=True)
class Score:
    """One run of Lighthouse: the categories' scores from 0 to 100, and the bytes that went over the wire."""

    scores: Mapping[str, int]
    sent: int


# --- serving ---


class Compressing(SimpleHTTPRequestHandler):
    """Serves files as a host does: texts compressed, everything to be kept for a year."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(urlsplit(self.path).path))
        if not path.is_file():
            self.send_error(404)
            return
        content, kind = path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        texts = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if texts else kind)
        self.send_header("Cache-Control", "max-age=31536000")
        if texts and "gzip" in self.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of `folder`, for as long as it is asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Compressing, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


# --- measuring ---


def read(report: Mapping[str, Any]) -> Score:
    """What a report of Lighthouse says.

    Raises:
        ScoresError: the page could not be measured; the message is Lighthouse's.
    """
    if failure := report.get("runtimeError"):
        raise ScoresError(f"{report.get('requestedUrl')}: {failure['message']}")
    found = {name: report["categories"][name]["score"] for name in CATEGORIES}
    if absent := [name for name, score in found.items() if score is None]:
        raise ScoresError(f"{report.get('requestedUrl')}: Lighthouse gives no score for {', '.join(absent)}")
    requests = report["audits"]["network-requests"]["details"]["items"]
    sent = sum(int(one.get("transferSize", 0)) for one in requests)
    return Score({name: round(100 * score) for name, score in found.items()}, sent)


def middle(runs: Sequence[Score]) -> Score:
    """The median of several runs, category by category."""
    return Score(
        {name: round(median(run.scores[name] for run in runs)) for name in CATEGORIES},
        round(median(run.sent for run in runs)),
    )


def measure(url: str, form: str) -> Score:
    """Run Lighthouse on one page.

    Raises:
        ScoresError: it cannot be fetched or run, or fails.
    """
    if shutil.which("npx") is None:
        raise ScoresError("Lighthouse comes from npm: install node, which brings npx.")
    browser = os.environ.get("CHROME_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ScoresError(
            f"no browser: install Chromium (looked for {', '.join(BROWSERS)}) or set CHROME_PATH"
        )
    command = ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json", "--output-path=stdout"]
    command += [f"--only-categories={','.join(CATEGORIES)}", *["--preset=desktop"] * (form == "desktop")]
    command += ["--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CHROME_PATH": browser})
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        told = done.stderr.strip().splitlines()[-5:]
        fetched = "npm ERR" in done.stderr or "npm error" in done.stderr
        said = f"{LIGHTHOUSE} cannot be fetched from npm's registry" if fetched else "Lighthouse failed"
        raise ScoresError("\n".join([f"{said}:", *told]))
    return read(json.loads(done.stdout[start:]))


def pages(built: Path, named: Sequence[str] = ()) -> list[str]:
    """The pages of a built book, or those that are named, as paths below it.

    Raises:
        ScoresError: there is no book, or no such page.
    """
    known = [path.relative_to(built).as_posix() for path in sorted(built.glob("book/**/*.html"))]
    if not known:
        raise ScoresError(f"there is no book in {built}: build it with `python3 run.py book`")
    if unknown := sorted(set(named) - {*known, "search.html"}):
        raise ScoresError(f"no such page: {', '.join(unknown)}; there are {', '.join(known)}")
    return list(named) or [*known, "search.html"]


def run_times(root: Path = ROOT) -> dict[str, float]:
    """The seconds that notebooks ran, by page, from the newest cache of executed notebooks."""
    sys.path.insert(0, str(root / "book" / "_ext"))
    from runtimes import seconds  # the book's own module, which the build uses too

    caches = sorted(
        (root / "_build" / ".jupyter_cache").glob("*/"), key=lambda folder: folder.stat().st_mtime
    )
    if not caches:
        return {}
    times = {f"book/{file.stem}.html": seconds(file, caches[-1]) for file in (root / "book").glob("*.ipynb")}
    return {page: time for page, time in times.items() if time is not None}


# --- telling ---


def table(found: Mapping[str, Mapping[str, Score]], times: Mapping[str, float]) -> str:
    """The scores as Markdown: a row for each page, desktop and mobile scores in Lighthouse's order."""
    order = "performance / accessibility / best practices / SEO"
    lines = [
        f"Scores of {LIGHTHOUSE.replace('@', ' ')}: {order}.",
        "",
        "| Page | Desktop | Mobile | Sent (kB) | Runs (s) |",
        "|---|---|---|---:|---:|",
    ]
    for page, forms in found.items():
        told = [" / ".join(str(forms[form].scores[name]) for name in CATEGORIES) for form in FORMS]
        ran = f"{times[page]:.0f}" if page in times else "–"
        lines.append(
            f"| {unquote(page)} | {told[0]} | {told[1]} | {forms['mobile'].sent / 1000:.0f} | {ran} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None, built: Path = BUILT) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure the pages of the built book with Lighthouse.")
    parser.add_argument(
        "pages", nargs="*", metavar="PAGE", help="such as book/intro.html; all if none is named"
    )
    parser.add_argument("--runs", type=int, default=1, help="how often each is measured; the median counts")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args(arguments)
    try:
        found: dict[str, dict[str, Score]] = {}
        chosen = pages(built, options.pages)
        with served(built) as address:
            for page in chosen:
                print(f"measuring {page}", file=sys.stderr, flush=True)
                found[page] = {
                    form: middle([measure(address + page, form) for _ in range(max(1, options.runs))])
                    for form in FORMS
                }
    except ScoresError as error:
        print(error, file=sys.stderr)
        return 1
    told = table(found, run_times())
    print(told)
    if options.write:
        options.write.write_text(told + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
