"""The step that makes pages light keeps all that a page can use, and may run again over any partly rebuilt tree."""

from __future__ import annotations

import io
import re
from pathlib import Path

import light_pages
import pytest
import tinycss2
from fontTools.ttLib import TTFont
from purge import Words, purge

ROOT = Path(__file__).resolve().parents[2]


def css(source: str, page: str = "", script: str = "") -> str:
    words = Words()
    words.read_page(page)
    words.read_script(script)
    return "".join(rule.css() for rule in purge(source, words))


@pytest.mark.parametrize(
    ("source", "page", "kept"),
    [
        (".a{color:red}", '<p class="a b">', True),
        (".a{color:red}", '<p class="ab">', False),
        (".a.b{color:red}", '<p class="a"><p class="b">', True),  # each name occurs: keep rather than guess
        ("#x>p::before{color:red}", "<div id='x'><p>", True),
        ("#x>p{color:red}", "<div id=x>", False),
        ("section{color:red}", "<div>", False),
        ("html:hover{color:red}", "", True),
        ("a:not(.absent){color:red}", "<a href='#'>", True),
        ("[data-theme=dark] p{color:red}", "<html data-theme='light'><p>", True),
        ("[data-other] p{color:red}", "<p>", False),
        ("::selection{color:red}", "", True),
        ("*{color:red}", "", True),
        ("svg [fill]{color:red}", '<svg viewBox="0 0 1 1"><path fill="none"/></svg>', True),
    ],
)
def test_a_rule_stays_if_and_only_if_the_page_has_every_name_in_it(
    source: str, page: str, kept: bool
) -> None:
    assert bool(css(source, page)) is kept


def test_scripts_keep_what_they_could_add() -> None:
    source = ".shown{color:red}[data-flow-live]{color:red}dialog{color:red}.other{color:red}"
    script = 'figure.dataset.flowLive = ""; figure.className = "shown"; document.createElement("dialog")'
    assert css(source, script=script) == ".shown{color:red}[data-flow-live]{color:red}dialog{color:red}"
    assert css(".shown{color:red}", page=f"<script>{script}</script>") == ".shown{color:red}"


def test_only_the_useful_selectors_of_a_list_stay() -> None:
    assert css("p,.gone,a:is(.gone,b){color:red}", "<p><a>") == "p,a:is(.gone,b){color:red}"


def test_nested_rules_variables_animations_and_fonts() -> None:
    source = """
    /* a comment */ @charset "utf-8";
    :root { --used: 1px; --through: var(--used); --unused: var(--lonely); --lonely: 0; --shown: 2px; }
    @media (min-width: 1px) { .gone { top: 0 } p { top: var(--through) !important; animation: turn 1s } }
    @media print { .gone { top: 0 } }
    @keyframes turn { from { left: 0 } to { left: 1px } } @keyframes idle { from { left: 0 } }
    @font-face { font-family: Used; src: url(u.woff2) } @font-face { font-family: Idle; src: url(i.woff2) }
    code { font-family: Used, monospace }
    """
    page = '<p style="width: var(--shown)"><code>'
    assert css(source, page) == (
        ":root{--used:1px;--through:var(--used);--shown:2px}"
        "@media (min-width: 1px){p{top:var(--through)!important;animation:turn 1s}}"
        "@keyframes turn{from{left:0}to{left:1px}}@font-face{font-family:Used;src:url(u.woff2)}"
        "code{font-family:Used, monospace}"
    )


def test_a_whole_style_sheet_survives_when_everything_is_used() -> None:
    source = (ROOT / "book" / "_static" / "course.css").read_text()
    words = Words()
    words.read_script(source)
    words.attributes |= {"data-theme", "aria-current", "class", "rel", "type"}
    kept = "".join(rule.css() for rule in purge(source, words))
    assert not [node for node in tinycss2.parse_stylesheet(kept) if node.type == "error"]
    # Every selector of every rule is still there: purging takes away nothing else.
    lost = [
        tinycss2.serialize(rule.prelude).strip()
        for rule in tinycss2.parse_stylesheet(source, skip_comments=True, skip_whitespace=True)
        if rule.type == "qualified-rule"
        and re.sub(r"\s", "", tinycss2.serialize(rule.prelude)) not in re.sub(r"\s", "", kept)
    ]
    assert lost == []


PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head>
<link rel="stylesheet" href="{up}_static/book.css"><script defer src="{up}_static/book.js"></script></head>
<body><main><p class="katex">{text}</p></main></body></html>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A built book of two pages, as Sphinx leaves it."""
    static = tmp_path / "_static"
    for name in ("scripts", "styles", "vendor"):
        (static / name).mkdir(parents=True)
        (static / name / "heavy.js").write_text("0")
    searched = [f"_static/{name}" for name in light_pages.SEARCH]
    for name in [*light_pages.STYLE_SHEETS, *light_pages.SCRIPTS, *searched]:
        if not (ROOT / "book" / name).exists():
            (tmp_path / name).write_text(f"/* {name} */")
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
    assert not (built / "_static" / "vendor").exists()


def test_fonts_are_small_woff2_and_hold_the_characters_of_the_pages(built: Path) -> None:
    (built / "index.html").write_text(PAGE.format(up="", text='<span class="mathnormal">φ</span>'))
    light_pages.lighten(built)
    style = next((built / "_static").glob("book.*.css"))
    faces = re.findall(r"@font-face\{[^}]*\}", style.read_text())
    assert faces and all("font-display:swap" in face for face in faces)
    for face in faces:
        (url,) = re.findall(r'url\("([^"]+)"\)', face)  # WOFF2 and nothing else
        content = (style.parent / url).read_bytes()
        original = next((ROOT / "book" / "_vendor").rglob(f"{Path(url).name.split('.')[0]}.woff2"))
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
    # Sphinx writes one page again, which now uses a class that no page used.
    (built / "deep" / "page.html").write_text(PAGE.format(up="../", text='<b class="headerlink">∬</b>'))
    light_pages.lighten(built)
    second = linked(built / "index.html")
    assert first[0].name != second[0].name and first[1].name == second[1].name
    assert ".headerlink" in second[0].read_text()
    assert {path.name for path in (built / "_static").glob("book.*")} == {path.name for path in second}
    assert [path.resolve() for path in linked(built / "deep" / "page.html")] == [p.resolve() for p in second]


def test_a_missing_style_sheet_is_named(built: Path) -> None:
    (built / "_static" / "pygments.css").unlink()
    with pytest.raises(FileNotFoundError, match=r"pygments\.css"):
        light_pages.lighten(built)


def test_colors_come_from_the_one_table() -> None:
    from flowcourse.palette import DARK, LIGHT

    light, dark = (
        "".join(f"--flow-{role}:{color};" for role, color in colors.items()) for colors in (LIGHT, DARK)
    )
    assert light_pages.palette() == f"html{{{light}}}html[data-theme=dark]{{{dark}}}"
