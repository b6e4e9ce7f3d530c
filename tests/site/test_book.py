"""The book's own Sphinx extensions and its vendored files, tried on a small book of one page."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import execution_cache
import mathematics
import nbformat
import pytest
import reading
import runtimes
import searching
from docutils import nodes
from jupyter_cache import get_cache
from myst_nb.sphinx_ import HideCodeCellNode

from flowcourse import claim
from flowcourse.claims import MARK
from tests.small_book import build
from tools import vendor

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")  # of Sphinx and its extensions

PAGE = r"""# A page

The first paragraph with $x_0$ in it says what the page is about, at a length that no search engine would show in
full, so that it must be cut, and is cut between two words rather than inside of one of them.

$$
\phi_0(x) = x
$$ (identity)

\begin{align}
a &= b \\
c &= d
\end{align}

By {eq}`identity` in a line $\R$, and broken: $\undefined{x}$.

The points are $s$, $m$ and $s$, $m$, $s$; "$q$" is a word, and $f((1 - t) x_0 + t x_1)$ has a pair ($u$).

:::{prf:theorem} Name
:label: name
A theorem.
:::

:::{prf:proof}
It is true.
:::

:::{prf:proof}
It ends with

$$
x
$$
:::

:::{exercise} Do it
:label: do
Do.
:::

:::{solution} do
:class: dropdown
Done.
:::

:::{admonition} A hint
:class: dropdown hint
Think.
:::

| A | table |
|---|---|
| 1 | 2 |

## Section

A sentence.

| The notes say | Why | What holds | Shown in |
|---|---|---|---|
| a claim | LONG | LONG | LONG |

## Second reading: more

| a | b | c | d | e | f |
|---|---|---|---|---|---|
| 1 | 2 | 3 | 4 | 5 | 6 |
""".replace("LONG", 20 * "word ")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The HTML of the page and the warnings of its build."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "index.md").write_text(PAGE)
    extensions = ("sphinx_proof", "sphinx_exercise", "mathematics", "reading")
    _, warned = build(folder, *extensions, katex_macros={r"\R": r"\mathbb{R}"}, numfig=True)
    return (folder / "_build" / "html" / "index.html").read_text(), warned


def test_formulas_are_html_and_mathml_without_a_script(page: tuple[str, str]) -> None:
    html, _ = page
    assert html.count('<span class="katex-mathml">') == html.count(
        '<span class="katex-html" aria-hidden="true">'
    )
    assert '<annotation encoding="application/x-tex">x_0</annotation>' in html
    assert "MathJax" not in html and "katex.min.js" not in html


def test_macros_are_known(page: tuple[str, str]) -> None:
    assert '<mi mathvariant="double-struck">R</mi>' in page[0]


def test_equations_are_numbered_once_and_linked(page: tuple[str, str]) -> None:
    html, _ = page
    assert [int(number) for number in re.findall(r'<span class="eqno">\((\d+)\)', html)] == [1, 2]
    assert re.search(r'<a [^>]*href="#equation-identity">\(1\)</a>', html)
    assert 'id="equation-identity"' in html
    assert "eqn-num" not in html  # KaTeX's own numbers, by row


def test_a_broken_formula_is_the_only_warning_and_says_where(page: tuple[str, str]) -> None:
    line = PAGE.splitlines().index(next(line for line in PAGE.splitlines() if "undefined" in line)) + 1
    assert re.fullmatch(
        rf".*index\.md:{line}: WARNING: KaTeX cannot render .*Undefined control sequence: \\undefined.*\n",
        page[1],
    )


def test_folds_need_no_script(page: tuple[str, str]) -> None:
    html, _ = page
    folds = re.findall(r"<details class=\"([^\"]*)\"([^>]*)>\s*<summary[^>]*>(.*?)</summary>", html)
    assert [(sorted(classes.split()), "open" in rest) for classes, rest, _ in folds] == [
        (["admonition", "solution"], False),
        (["admonition", "hint"], False),
    ]
    assert [re.sub("<.*?>", "", title).strip() for *_, title in folds] == [
        "Solution to Exercise 1 (Do it)",
        "A hint",
    ]
    assert all("<a" not in title for *_, title in folds)  # a link inside of a button


def test_a_table_scrolls_in_a_box_of_its_own(page: tuple[str, str]) -> None:
    assert re.search(r'<div class="scrolled">\s*<table .*?</table>\s*</div>', page[0], re.DOTALL)


def test_a_row_of_texts_is_an_entry_and_a_wide_table_is_marked(page: tuple[str, str]) -> None:
    [entry] = re.findall(r'<div class="[^"]*\bentry\b[^"]*">(.*?)</div>', page[0], re.DOTALL)
    assert re.findall(r'<span class="label">(.*?)</span>', entry) == ["Why:", "What holds:", "Shown in:"]
    assert re.sub("<.*?>", "", entry).strip().startswith("a claim\n")
    assert len(re.findall(r'<div class="scrolled many"><table ', page[0].replace("\n", ""))) == 1


def test_a_proof_opens_in_italics_and_ends_with_its_mark(page: tuple[str, str]) -> None:
    html = page[0]
    assert '<em>Proof.</em> It is true.<span class="qed">\N{NO-BREAK SPACE}∎</span></p>' in html
    assert re.search(r'</div>\s*<p class="qed">∎</p>\s*</div>', html)
    assert html.count("∎") == 2


def test_no_name_is_given_twice(page: tuple[str, str]) -> None:
    names = re.findall(r'\sid="([^"]+)"', page[0])
    assert len(names) == len(set(names))


def test_punctuation_stays_with_its_own_formula(page: tuple[str, str]) -> None:
    [line] = re.findall("<p>The points are.*?</p>", page[0], re.DOTALL)
    sources = re.findall("<annotation[^>]*>(.*?)</annotation>", line)
    assert sources[:5] == [r"s\text{,}", "m", r"s\text{,}", r"m\text{,}", r"s\text{;}"]
    assert sources[5:] == ["\\text{“}q\\text{”}", "f((1 - t) x_0 + t x_1)", r"\text{(}u\text{).}"]
    assert ",," not in re.sub("<annotation.*?</annotation>|<.*?>", "", line)


@pytest.mark.parametrize(
    ("tex", "kept"),
    [
        ("X_t = (1 - t) X_0 + t X_1", 1),
        ("t = 0", 1),
        ("a + b + c + d + e = f", 0),
        ("f(x)", 0),
        ("(a + b)(c + d)", 1),
        ("y = (a + b) + (c + d)", 2),
        ("p(" + " + ".join(30 * "x") + ")", 0),
    ],
)
def test_a_line_breaks_between_short_parentheses_never(tex: str, kept: int) -> None:
    rendered = mathematics.render(tex)
    whole = mathematics.keep_parentheses(rendered)
    assert whole.count('<span class="whole">') == kept
    assert re.sub('<span class="whole">|</span>', "", whole) == rendered.replace("</span>", "")
    assert whole.count("</span>") == rendered.count("</span>") + kept


def test_a_second_reading_says_so(page: tuple[str, str]) -> None:
    [heading] = re.findall(r'<section [^>]*class="second-reading"[^>]*>\s*<h2>(.*?)<a', page[0])
    assert heading == '<span class="label">Second reading:</span> more'


def cell(source: str, *outputs: nodes.Node, classes: tuple[str, ...] = ()) -> nodes.container:
    """A cell of code as MyST-NB hands it over."""
    code = nodes.container("", nodes.literal_block(source, source), nb_element="cell_code_source")
    shown = nodes.container("", *outputs, nb_element="cell_code_output")
    return nodes.container("", code, shown, nb_element="cell_code", classes=["cell", *classes])


def printed(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, classes=["output", "stream"])


def folds(block: nodes.Element) -> list[str]:
    return [found.children[0].astext() for found in block.findall(reading.fold)]


def test_a_cell_that_only_claims_is_one_line_with_its_code() -> None:
    block = cell('x = 1\nclaim("a", x, "<", 2)', printed(f"{MARK}✓ a: 1 < 2\n{MARK}✓ b: 1 < 2\n"))
    reading.fold_claims(block)
    assert folds(block) == ["2 claims hold"] and isinstance(block.children[0], reading.fold)
    assert [b.astext() for b in block.findall(nodes.literal_block)][1] == "✓ a: 1 < 2\n✓ b: 1 < 2"
    assert MARK not in block.astext()


def test_code_that_defines_something_stays_in_sight() -> None:
    block = cell("def euler(x):\n    return x", printed(f"{MARK}✓ a: 1 < 2\n"))
    reading.fold_claims(block)
    assert folds(block) == ["1 claim holds"]
    assert block.children[0].get("nb_element") == "cell_code_source"


def test_only_what_claim_marked_is_a_claim() -> None:
    errors = "✓ not from claim\nclaim fails: b: 3 < 2"
    block = cell("measure()", printed(f"first\n{MARK}✓ a: 1 < 2\n{errors}"))
    reading.fold_claims(block)
    plain, claims = list(block.findall(nodes.literal_block))[1:]
    assert plain.astext() == f"first\n{errors}" and "claims" not in plain["classes"]
    assert claims.astext() == "✓ a: 1 < 2" and "claims" in claims["classes"]
    untouched = cell("measure()", printed(errors))
    reading.fold_claims(untouched)
    assert not folds(untouched) and "claims" not in str(untouched)


def test_a_cell_may_keep_its_claims_in_sight() -> None:
    block = cell("x", printed(f"{MARK}✓ a: 1 < 2\n"), classes=("tag_show-claims",))
    reading.fold_claims(block)
    assert not folds(block) and "✓ a: 1 < 2" in block.astext()


def test_claims_are_marked_only_while_the_book_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for static, mark in (("0", ""), ("1", MARK)):
        monkeypatch.setenv("FLOWLIB_STATIC", static)
        claim("a", 1, "<", 2)
        assert capsys.readouterr().out == f"{mark}✓ a: 1 < 2\n"


def test_hidden_code_has_a_name_of_its_own() -> None:
    document = nodes.document(None, None)  # type: ignore[arg-type]
    block = cell("x", printed("y"))
    hidden = HideCodeCellNode("", prompt_show="Show the imports", prompt_hide="Hide the imports")
    hidden += block.children[0]
    block.children[0] = hidden
    hidden.parent = block
    document += block
    reading.dress(APP, document, "page")
    assert folds(document) == ["Show the importsHide the imports"]


APP: Any = SimpleNamespace(
    builder=SimpleNamespace(format="html"), env=SimpleNamespace(toc_secnumbers={"page": {"": (3,)}})
)


def test_figures_with_a_caption_and_explorables_are_numbered_in_order() -> None:
    still = '<style>figure{}</style><figure class="flow-figure"><svg/>%s</figure>'
    live = '<figure class="flow-explorable" data-flow-explorable="a1">%s</figure><script>1</script>'
    caption = "<figcaption>A cloud.</figcaption>"
    document = nodes.document(None, None)  # type: ignore[arg-type]
    for html in (live % caption, still % "", still % caption, still % caption + live % "", "<b>x</b>"):
        document += nodes.raw("", html, format="html", classes=["output"])
    reading.dress(APP, document, "page")
    assert all(output["classes"] == ["output"] for output in document.children)
    found = re.findall(
        r'<figcaption id="(.*?)"><span class="caption-number">(.*?)</span>( A cloud\.)?', document.astext()
    )
    assert found == [
        (f"figure-3-{n}", f"Figure 3.{n}", words) for n, words in enumerate([" A cloud."] * 3 + [""], 1)
    ]
    assert document.astext().count("<figcaption") == 4
    assert '<figure class="flow-explorable" data-flow-explorable="a1">' in document.astext()
    unnumbered = nodes.document(None, None)  # type: ignore[arg-type]
    unnumbered += nodes.raw("", still % caption, format="html")
    reading.dress(APP, unnumbered, "intro")
    assert "Figure" not in unnumbered.astext()


def test_sections_tell_their_height(page: tuple[str, str]) -> None:
    assert re.findall(r'<section style="--lines:(\d+)" id="section">', page[0]) == ["13"]


def test_the_description_is_the_first_paragraph_without_formulas() -> None:
    words = "word " * 60
    section = nodes.section("", nodes.paragraph("", "", nodes.math("", "x_0"), nodes.Text(" is " + words)))
    document = nodes.document(None, None)
    document += section
    description = reading.describe(document)
    assert description == "is " + " ".join(["word"] * 30) + " …"
    assert len(description) <= reading.DESCRIPTION + 2


ARTICLE = """<nav>Menu</nav><article><section id="one"><h1><span class="section-number">1. </span>Flows<a
class="headerlink">#</a></h1><p>Noise.</p><div class="cell"><pre>import torch</pre></div><section id="eq">
<h2>The equation</h2><p>Let <span class="katex">
<span class="katex-mathml"><math><mi>v</mi><annotation>v</annotation></math></span>
<span class="katex-html"><span>V</span></span></span> be, a field.</p>
<div class="proof theorem admonition" id="thm"><p class="admonition-title"><span>Theorem 1.1 </span> (Continuity)</p>
<section class="theorem-content"><p>It holds.</p></section></div><p>After.</p><script>hidden()</script>
<details class="exercise admonition" id="ex"><summary class="admonition-title">Exercise 1</summary><p>Do.</p></details>
</section></section></article>"""


def test_the_search_knows_sections_theorems_and_exercises_without_code() -> None:
    assert searching.Reader(searching.article(ARTICLE)).entries == [
        [0, "one", "Flows", "Noise."],
        [1, "eq", "The equation", "Let v be, a field. After."],
        [2, "thm", "Theorem 1.1 (Continuity)", "It holds."],
        [3, "ex", "Exercise 1", "Do."],
    ]


@pytest.mark.parametrize(
    ("tex", "formula"),
    [
        ("x = 1", "x = 1"),
        ("a \\\\ b", r"\begin{aligned}a \\ b\end{aligned}"),
        ("a\n\nb", "\\begin{aligned}a \\\\\nb\\end{aligned}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\\begin{align}a\\\\b\\end{align}", "\\begin{align*}a\\\\b\\end{align*}"),
        (
            "f = \\begin{cases}\\begin{matrix}1\\\\2\\end{matrix}\\\\3\\end{cases}",
            "f = \\begin{cases}\\begin{matrix}1\\\\2\\end{matrix}\\\\3\\end{cases}",
        ),
    ],
)
def test_rows_are_aligned_only_outside_of_environments(tex: str, formula: str) -> None:
    assert mathematics.one_formula(tex) == formula
    mathematics.render(formula, display=True)


def test_a_formula_that_does_not_parse_raises() -> None:
    with pytest.raises(ValueError, match=r"expected '\}', near"):
        mathematics.render(r"\frac{1")


def library(folder: Path) -> Path:
    for name in ("flowlib/a.py", "flowcourse/figures/js/b.js", "flowlib/notes.txt", "requirements.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_execution_cache_depends_on_the_library_and_the_pins(tmp_path: Path) -> None:
    root = library(tmp_path)
    seen = {execution_cache.digest(root)}
    (root / "flowcourse" / "data.bin").write_bytes(b"1")
    seen.add(execution_cache.digest(root))
    for change in ("flowlib/a.py", "flowcourse/figures/js/b.js", "flowcourse/data.bin", "requirements.txt"):
        (root / change).write_text("changed")
        seen.add(execution_cache.digest(root))
    (root / "flowlib" / "a.py").rename(root / "flowlib" / "c.py")
    seen.add(execution_cache.digest(root))
    assert len(seen) == 7
    for unread in ("flowlib/__pycache__/a.pyc", "flowlib/.hidden", "other/a.py"):
        (root / unread).parent.mkdir(exist_ok=True)
        (root / unread).write_text("changed")
    assert execution_cache.digest(root) in seen


def test_the_execution_cache_depends_on_what_is_installed_and_on_the_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = library(tmp_path)
    seen = {execution_cache.digest(root)}
    monkeypatch.setenv("FLOW_SEED_SHIFT", "1000")
    seen.add(execution_cache.digest(root))
    known = execution_cache.installed
    assert known("torch") != "none" and known("no-such-package") == "none"
    monkeypatch.setattr(execution_cache, "installed", lambda name: "9.9" if name == "torch" else known(name))
    seen.add(execution_cache.digest(root))
    assert len(seen) == 3


def test_old_execution_caches_are_forgotten(tmp_path: Path) -> None:
    root = library(tmp_path / "root")
    app = SimpleNamespace(srcdir=str(root), outdir=str(tmp_path / "_build" / "html"))
    paths = []
    for version in range(5):
        (root / "flowlib" / "a.py").write_text(str(version))
        config = SimpleNamespace()
        execution_cache.choose(app, config)
        paths.append(Path(config.nb_execution_cache_path))
    assert len(set(paths)) == 5
    assert paths[-1].is_dir() and len(list(paths[-1].parent.iterdir())) == execution_cache.KEPT


def test_vendored_files_are_what_the_manifest_says() -> None:
    assert vendor.check() == []


def test_a_touched_vendored_file_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "_vendor"
    shutil.copytree(vendor.VENDOR, copy)
    (copy / "katex" / "katex.min.js").write_text("0")
    (copy / "katex" / "LICENSE").unlink()
    (copy / "katex" / "new.js").write_text("0")
    assert vendor.check(copy) == [
        "katex/LICENSE: missing",
        "katex/new.js: not in the manifest",
        "katex/katex.min.js: changed",
    ]
    manifest = json.loads((copy / vendor.MANIFEST).read_text())
    manifest["katex"]["version"] = "0.0.1"
    (copy / vendor.MANIFEST).write_text(json.dumps(manifest))
    assert "katex: the manifest and the pin in tools/vendor.py differ" in vendor.check(copy)


def test_every_vendored_package_has_its_license() -> None:
    assert all((vendor.VENDOR / name / "LICENSE").is_file() for name in vendor.PACKAGES)


def test_notebooks_are_run_ahead_side_by_side_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # each of the first two waits for the other: one after the other they would not end
    wait = "from pathlib import Path\nPath('{0}').touch()\nwhile not Path('{1}').exists():\n    pass"
    cells = {"a": wait.format("a", "b"), "b": wait.format("b", "a"), "broken": "1 / 0"}
    for name, cell in cells.items():
        cell = nbformat.v4.new_code_cell(f"{cell}\n'{name} has run'")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    (tmp_path / "text.md").write_text("# No notebook")
    config = SimpleNamespace(
        nb_execution_cache_path=str(tmp_path / "cache"), nb_execution_timeout=60, nb_execution_mode="off"
    )
    found = {"text": "text.md", **{name: f"{name}.ipynb" for name in cells}}
    env = SimpleNamespace(doc2path=lambda name: str(tmp_path / found[name]))
    monkeypatch.setattr(execution_cache.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    execution_cache.run_ahead(SimpleNamespace(config=config), env, list(found))
    assert not (tmp_path / "a").exists()
    config.nb_execution_mode = "cache"
    execution_cache.run_ahead(SimpleNamespace(config=config), env, list(found))
    cache = get_cache(config.nb_execution_cache_path)
    assert {Path(record.uri).stem for record in cache.list_cache_records()} == {"a", "b"}
    _, merged = cache.merge_match_into_notebook(nbformat.read(tmp_path / "a.ipynb", as_version=4))
    assert "a has run" in str(merged.cells[0].outputs)
    assert "OMP_NUM_THREADS" not in os.environ
    env.found_docs = set(found)
    times = runtimes.runtimes(SimpleNamespace(config=config, env=env))
    assert sorted(times) == ["a", "b"] and all(0 < seconds < 60 for seconds in times.values())
    assert runtimes.seconds(tmp_path / "a.ipynb", tmp_path / "none") is None
    assert not (tmp_path / "none").exists()  # asking makes no cache
    for name in ("a", "b"):
        (tmp_path / name).unlink()
    execution_cache.run_ahead(SimpleNamespace(config=config), env, ["a", "b"])
    assert not (tmp_path / "a").exists()
