"""The book's own Sphinx extensions and its vendored files, tried on a small book of one page."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import execution_cache
import mathematics
import pytest
import reading
from docutils import nodes

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

:::{prf:theorem} Name
:label: name
A theorem.
:::

:::{prf:proof}
It is true.
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
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The HTML of the page and the warnings of its build."""
    from sphinx.application import Sphinx

    folder = tmp_path_factory.mktemp("book")
    (folder / "index.md").write_text(PAGE)
    warnings = io.StringIO()
    app = Sphinx(
        folder,
        None,
        folder / "html",
        folder / "doctrees",
        "html",
        confoverrides={
            "extensions": [
                "myst_nb",
                "sphinx_proof",
                "sphinx_exercise",
                "mathematics",
                "reading",
            ],
            "html_math_renderer": "katex",
            "html_theme": "basic",
            "katex_macros": {r"\R": r"\mathbb{R}"},
            "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath"],
            "numfig": True,
        },
        status=None,
        warning=warnings,
        freshenv=True,
    )
    app.build()
    return (folder / "html" / "index.html").read_text(), re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue())


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


def test_a_proof_opens_in_italics(page: tuple[str, str]) -> None:
    assert "<em>Proof.</em> It is true." in page[0]


def test_sections_tell_their_height(page: tuple[str, str]) -> None:
    assert re.findall(r'<section style="--lines:(\d+)" id="section">', page[0]) == ["4"]


def test_the_description_is_the_first_paragraph_without_formulas() -> None:
    words = "word " * 60
    section = nodes.section("", nodes.paragraph("", "", nodes.math("", "x_0"), nodes.Text(" is " + words)))
    document = nodes.document(None, None)
    document += section
    description = reading.describe(document)
    assert description == "is " + " ".join(["word"] * 30) + " …"
    assert len(description) <= reading.DESCRIPTION + 2


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
    for change in ("flowlib/a.py", "flowcourse/figures/js/b.js", "requirements.txt"):
        (root / change).write_text("changed")
        seen.add(execution_cache.digest(root))
    (root / "flowlib" / "a.py").rename(root / "flowlib" / "c.py")
    seen.add(execution_cache.digest(root))
    assert len(seen) == 5
    (root / "flowlib" / "notes.txt").write_text("changed")
    assert execution_cache.digest(root) in seen


def test_old_execution_caches_are_forgotten(tmp_path: Path) -> None:
    from types import SimpleNamespace

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
