"""The book as one page to print: every name is its own, and links between pages lead inside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import pdf

PAGE = """<head><title>Book</title><link rel="stylesheet" href="../_static/book.abc.css">{next}</head>
<body><article><section id="top"><h1>{title}</h1><script>run()</script>
<a href="#top">up</a> <a href="{other}#top">there</a> <a href="{other}">whole</a> <a href="https://x.org/#top">far</a>
<svg><path id="g"/><use xlink:href="#g" fill="url(#g)"/></svg><img src="../_images/a.svg">
<section class="second-reading"><h2><span class="section-number">1.2. </span><span class="label">Second reading:</span>
more<a class="headerlink" href="#top">¶</a></h2></section>
<div class="entry"><p><span class="label">Cause:</span> this</p></div></section></article></body>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "book" / "appendices").mkdir(parents=True)
    following = '<link rel="next" href="appendices/b.html">'
    first = PAGE.format(next=following, title="A", other="appendices/b.html")
    (tmp_path / "book" / "intro.html").write_text(first)
    second = PAGE.format(next="", title="B", other="../intro.html").replace("../_images", "../../_images")
    (tmp_path / "book" / "appendices" / "b.html").write_text(second)
    return tmp_path


def test_pages_follow_one_another_as_in_the_book(built: Path) -> None:
    assert pdf.order(built) == ["book/intro.html", "book/appendices/b.html"]


def test_names_are_unique_and_every_link_inside_has_its_target(built: Path) -> None:
    whole = pdf.joined(built)
    names = re.findall(r' id="([^"]+)"', whole)
    assert len(names) == len(set(names)) == 7  # main, and for each page itself, its section and its glyph
    inside = re.findall(r'href="#([^"]+)"', whole)
    assert set(inside) <= set(names)
    assert inside == ["p0-top", "p1-top", "p1", "p0-g", "p0-top", "p1-top", "p0-top", "p0", "p1-g", "p1-top"]
    assert whole.count("https://x.org/#top") == 2 and whole.count('src="_images/a.svg"') == 2
    assert "url(#p0-g)" in whole and "url(#p1-g)" in whole and "<script" not in whole
    assert 'href="_static/book.abc.css"' in whole


def test_a_bookmark_has_the_label_of_its_heading_and_the_space_after_it(built: Path) -> None:
    whole = pdf.joined(built)
    headings = re.findall(r"<h2>(.*?)<a", whole)
    assert [re.sub("<[^>]*>", "", heading) for heading in headings] == ["1.2. Second reading: more"] * 2
    assert not any('class="label"' in heading for heading in headings)  # it would stand outside of the line
    assert whole.count('<span class="label">Cause:</span> this') == 2


def test_without_a_book_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdf.main([], tmp_path / "html") == 1
    assert "there is no book in" in capsys.readouterr().err
