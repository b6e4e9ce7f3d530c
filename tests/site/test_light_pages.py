"""The step that makes pages light may run again over any partly rebuilt tree, and loses no character of a font."""

from __future__ import annotations

import io
import re
from pathlib import Path

import light_pages
import pytest
from fontTools.ttLib import TTFont

from flowcourse.palette import DARK, LIGHT

PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head>
<link rel="stylesheet" href="{up}_static/book.css"><script defer src="{up}_static/book.js"></script></head>
<body><main><p class="katex">{text}</p></main></body></html>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A built book of two pages, as Sphinx leaves it."""
    (tmp_path / "_static").mkdir()
    (tmp_path / "index.html").write_text(PAGE.format(up="", text="x"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(PAGE.format(up="../", text="∫"))
    return tmp_path


def linked(page: Path) -> list[Path]:
    """The files that a page asks for, resolved as a browser would."""
    return [
        page.parent / url for url in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()) if url[0] != "#"
    ]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*.html")
    }


def test_pages_point_at_files_that_are_there(built: Path) -> None:
    light_pages.lighten(built)
    for page in (built / "index.html", built / "deep" / "page.html"):
        files = linked(page)
        assert len(files) == 2 and all(file.is_file() for file in files)
        assert all(re.fullmatch(r"book\.[0-9a-f]{12}\.(css|js)", file.name) for file in files)
    assert (built / ".nojekyll").exists()


def test_fonts_are_small_woff2_and_hold_the_characters_of_the_pages(built: Path) -> None:
    (built / "index.html").write_text(PAGE.format(up="", text='<span class="mathnormal">φ</span>'))
    light_pages.lighten(built)
    style = next((built / "_static").glob("book.*.css"))
    faces = re.findall(r"@font-face\{[^}]*\}", style.read_text())
    assert faces and all("font-display:swap" in face for face in faces)
    for face in faces:
        (url,) = re.findall(r'url\("([^"]+)"\)', face)  # WOFF2 and nothing else
        content = (style.parent / url).read_bytes()
        original = light_pages.KATEX / "fonts" / f"{Path(url).name.split('.')[0]}.woff2"
        assert content[:4] == b"wOF2" and len(content) < len(original.read_bytes())
        wanted = set(map(ord, "φ∫xX0")) & set(TTFont(original).getBestCmap())
        assert wanted <= set(TTFont(io.BytesIO(content)).getBestCmap())


def test_running_again_changes_nothing(built: Path) -> None:
    light_pages.lighten(built)
    before = state(built)
    light_pages.lighten(built)
    assert state(built) == before


def test_a_partly_rebuilt_tree_ends_as_if_built_at_once(built: Path) -> None:
    light_pages.lighten(built)
    first = linked(built / "index.html")
    # Sphinx writes one page again, which now has a character that no page had.
    (built / "deep" / "page.html").write_text(PAGE.format(up="../", text="∬"))
    light_pages.lighten(built)
    second = linked(built / "index.html")
    assert first[0].name != second[0].name and first[1].name == second[1].name
    assert {path.name for path in (built / "_static").glob("book.*")} == {path.name for path in second}
    assert [path.resolve() for path in linked(built / "deep" / "page.html")] == [p.resolve() for p in second]


def test_every_color_of_the_one_table_is_a_variable_on_light_and_dark_pages(built: Path) -> None:
    light_pages.lighten(built)
    css = next((built / "_static").glob("book.*.css")).read_text()
    for theme, table in (("light", LIGHT), ("dark", DARK)):
        [variables] = re.findall(rf"html\[data-theme={theme}\]\{{(.*?)\}}", css)
        assert dict(re.findall(r"--flow-([\w-]+):(#\w+);", variables)) == table


def test_the_style_sheet_loses_no_rule_of_its_sources(built: Path) -> None:
    light_pages.lighten(built)
    css = next((built / "_static").glob("book.*.css")).read_text()
    sources = [light_pages.KATEX / "katex-swap.min.css", light_pages.STATIC / "course.css"]
    rules = sum(re.sub(r"/\*.*?\*/", "", s.read_text(), flags=re.DOTALL).count("{") for s in sources)
    assert css.count("{") == css.count("}") == rules + light_pages.colors().count("{")
    assert "/*" not in css
