"""The table of page scores: what is read from a report, and a server that compresses as a host does."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tools import scores


def report(performance: float | None = 0.97, *sizes: int) -> dict[str, Any]:
    """A report of Lighthouse, as far as it is read."""
    values = dict.fromkeys(scores.CATEGORIES, 1) | {"performance": performance}
    items = [{"transferSize": size} for size in sizes] + [{"url": "data:"}]
    return {
        "requestedUrl": "http://x/page.html",
        "categories": {name: {"score": score} for name, score in values.items()},
        "audits": {"network-requests": {"details": {"items": items}}},
    }


def test_a_report_becomes_percent_and_bytes() -> None:
    read = scores.read(report(0.965, 1500, 2500))
    assert read.sent == 4000 and list(read.scores.values()) == [96, 100, 100, 100]


def test_a_page_that_was_not_measured_has_no_score() -> None:
    with pytest.raises(scores.ScoresError, match="no score for performance"):
        scores.read(report(None))
    with pytest.raises(scores.ScoresError, match=r"page\.html: it did not load"):
        scores.read(report() | {"runtimeError": {"message": "it did not load"}})


def test_the_table_has_the_median_and_times_where_there_are_some() -> None:
    runs = [scores.read(report(p, s)) for p, s in ((0.5, 9000), (0.98, 2000), (0.9, 4000))]
    one = {"desktop": scores.middle(runs), "mobile": scores.middle(runs[:1])}
    told = scores.table({"book/a.html": one, "book/b.html": one}, {"book/a.html": 47.6})
    rows = told.splitlines()[-2:]
    assert rows[0] == "| book/a.html | 90 / 100 / 100 / 100 | 50 / 100 / 100 / 100 | 9 | 48 |"
    assert rows[1].endswith("| 9 | – |")


def test_pages_are_those_of_the_book_and_unknown_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(scores.ScoresError, match="there is no book in"):
        scores.pages(tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.html").touch()
    assert scores.pages(tmp_path) == ["book/intro.html", "search.html"]
    with pytest.raises(
        scores.ScoresError, match=r"no such page: book/none\.html; there are book/intro\.html"
    ):
        scores.pages(tmp_path, ["book/none.html"])


def test_texts_are_sent_compressed_and_pictures_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("word " * 1000)
    (tmp_path / "font.woff2").write_bytes(b"12345")
    with scores.served(tmp_path) as address:

        def get(name: str) -> tuple[bytes, Any]:
            asked = urllib.request.Request(address + name, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.read(), answer.headers

        page, headers = get("page.html?q=1")
        assert len(page) < 200 and headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(page) == b"word " * 1000
        assert get("font.woff2")[0] == b"12345"
        with pytest.raises(urllib.error.HTTPError):
            get("none.html")
