"""The whole built book as one PDF, with bookmarks, page numbers and links that lead to pages of the same file.

    python -m tools.pdf [FILE]     from _build/html to _build/flow-models.pdf, unless FILE is named

The pages are put one after another into one page without scripts, so that figures show their still pictures, and
Chromium prints it: folded hints and solutions are open, code that is hidden in the book stays so.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
FIRST = "book/intro.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARTICLE = re.compile(r"<article>(.*?)</article>", re.DOTALL)
SCRIPTS = re.compile(r"<(script|noscript)\b.*?</\1>", re.DOTALL)
NAMES = re.compile(r'(?<=\s)(id|for|aria-labelledby|aria-describedby|aria-controls)="([^"]*)"')
LINKS = re.compile(r'(?<=\s)((?:xlink:)?href|src)="([^"]*)"')
PAINTS = re.compile(r"url\((&quot;|[\"']?)#")
# A label that stands over its heading takes no part in the heading's line, and a bookmark loses the space after it.
LABELS = re.compile(
    r'(<h[1-6]>(?:<span class="section-number">[^<]*</span>)?)<span class="label">([^<]*)</span>\s*'
)
PRINTED = (
    "article > section { break-before: page } article:first-of-type > section { break-before: auto }"
    " .second-reading > :is(h2, h3) { padding-top: .7rem }"
)
FOOT = '<div style="width:100%;font:8px sans-serif;text-align:center;color:#666"><span class="pageNumber"></span></div>'


class PdfError(RuntimeError):
    """No book or no browser; the message says which."""


def order(built: Path) -> list[str]:
    """The pages in the order of the book: each one names the next.

    Raises:
        PdfError: there is no book.
    """
    if not (built / FIRST).is_file():
        raise PdfError(f"there is no book in {built}: build it with `python3 run.py book`")
    pages, page = [FIRST], FIRST
    while found := re.search(r'<link rel="next" href="([^"]+)"', (built / page).read_text(encoding="utf-8")):
        page = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(found[1])))
        if page in pages:
            break
        pages.append(page)
    return pages


def moved(html: str, page: str, places: dict[str, int]) -> str:
    """The article of a page as a part of one document: its names get a prefix, links to pages become links within.

    Labels over headings become a part of them, for the bookmarks.
    """
    mine = places[page]
    html = LABELS.sub(r"\1\2 ", SCRIPTS.sub("", html))
    html = NAMES.sub(lambda m: f'{m[1]}="{" ".join(f"p{mine}-{name}" for name in m[2].split())}"', html)
    html = PAINTS.sub(lambda m: f"url({m[1]}#p{mine}-", html)

    def lead(found: re.Match[str]) -> str:
        url = urlsplit(found[2])
        if url.scheme or url.netloc:
            return found[0]
        target = (
            posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(url.path)))
            if url.path
            else page
        )
        if target in places:
            inside = f"#p{places[target]}-{url.fragment}" if url.fragment else f"#p{places[target]}"
            return f'{found[1]}="{inside}"'
        return f'{found[1]}="{target}"' if url.path else found[0]

    return f'<article id="p{mine}">{LINKS.sub(lead, html)}</article>'


def joined(built: Path) -> str:
    """One page with the articles of all pages; its links to files are from the root of the book."""
    pages = order(built)
    places = {page: number for number, page in enumerate(pages)}
    first = (built / FIRST).read_text(encoding="utf-8")
    sheet = re.search(r'<link rel="stylesheet" href="(?:\.\./)*([^"]+)"', first)
    title = re.search(r"<title>.*?</title>", first, re.DOTALL)
    parts = []
    for page in pages:
        article = ARTICLE.search((built / page).read_text(encoding="utf-8"))
        if article:
            parts.append(moved(article[1], page, places))
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"{title[0] if title else ''}"
        f'<link rel="stylesheet" href="{sheet[1] if sheet else ""}"><style>{PRINTED}</style></head>'
        f'<body><main id="main">{"".join(parts)}</main></body></html>'
    )


def write(built: Path, file: Path) -> None:
    """Print the book in `built` to `file`.

    Raises:
        PdfError: there is no book or no browser.
    """
    whole = joined(built)
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    page_file = built / "whole-book.html"  # beside what it links to
    page_file.write_text(whole, encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            if browser is None and not Path(playwright.chromium.executable_path).exists():
                raise PdfError(
                    f"no browser: install Chromium (looked for {', '.join(BROWSERS)}) or set CHROMIUM"
                )
            chromium = playwright.chromium.launch(
                executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
            )
            page = chromium.new_page(java_script_enabled=False)
            page.set_default_timeout(0)
            page.goto(page_file.as_uri())
            page.pdf(
                path=file,
                format="A4",
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOT,
                margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
                outline=True,
                tagged=True,
            )
            chromium.close()
    finally:
        page_file.unlink(missing_ok=True)


def main(arguments: list[str] | None = None, built: Path = BUILT) -> int:
    """Run the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) > 1:
        print("expected at most the name of the PDF", file=sys.stderr)
        return 2
    file = Path(given[0]) if given else built.parent / "flow-models.pdf"
    try:
        write(built, file)
    except PdfError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
