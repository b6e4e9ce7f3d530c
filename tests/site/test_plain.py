"""What Colab shows of a chapter: plain Markdown with the book's numbers, and nothing of MyST."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from pybtex.database import parse_file, parse_string

from tools import notebooks
from tools.plain import Chapter, SourceError

LABELS = {
    "thm": "Theorem 1.2",
    "eq-flow": "(1.3)",
    "sec": "A section",
    "ex": "Exercise 1.1",
    "elsewhere": "Lemma 2.1",
}
WORKS = parse_string(
    r"""
@book{one, author = {Ambrosio, {\'E}lie}, title = {A {Title}}, publisher = {Birkh{\"a}user},
  year = 2008, doi = {10.1/2}}
@article{two, author = {van den Berg, Ann and Cid, B.}, title = {Two}, journal = {J},
  volume = 3, pages = {1--9}, year = 1999}
@misc{three, author = {A, X and B, Y and C, Z}, title = {Three}, year = 2024, eprint = {2401.00001}}
@misc{four, author = {Dee, D.}, title = {Four}, year = 2000, url = {https://a.example/~dee/f_1.pdf}}
""",
    "bibtex",
).entries
COMMITTED = sorted((notebooks.ROOT / "book").glob("*.ipynb"))
RAW = re.compile(
    r":::|\{(prf|cite|eq|ref|numref|solution|exercise)[:}-]|^\([\w-]+\)=|\$\$ *\([\w-]+\)$", re.MULTILINE
)


def plain(text: str) -> str:
    return Chapter(1, LABELS, WORKS).cell(text)


@pytest.mark.parametrize(
    ("myst", "shown"),
    [
        ("Prose with `{eq}` in code, $a_{i}$ and *stress*.", None),
        ("```\n:::{note}\n{eq}`x`\n$$\n```", None),
        ("A [link](02-next.md).\n\n$$a\n= b$$\n\nEnd.", None),
        (r"Ten \$ and \`{eq}\` escaped.", None),
        # references
        ("By {prf:ref}`thm`, {eq}`eq-flow` and {ref}`sec`.", "By Theorem 1.2, (1.3) and A section."),
        ("{numref}`ex`, {prf:ref}`it <thm>`, {prf:ref}`elsewhere`.", "Exercise 1.1, it, Lemma 2.1."),
        ("A {term}`flow`, {term}`flows <flow>`, {code}`x`, {math}`y`.", "A flow, flows, `x`, $y$."),
        # formulas
        ("$$a$$ (one)\n\n$$\nb\n$$ (two)", "$$a \\tag{1.1}$$\n\n$$\nb\n\\tag{1.2}\n$$"),
        ("- item\n\n  $$a$$ (one)", "- item\n\n  $$a \\tag{1.1}$$"),
        (":::{math}\n:label: one\nc\n:::", "$$\nc\n\\tag{1.1}\n$$"),
        # theorems and proofs
        (":::{prf:theorem} Name\n:label: x\n\nBody.\n:::\nNext.", "> **Theorem 1.1** (Name). Body.\n\nNext."),
        ("Before.\n:::{prf:lemma}\n- list\n:::", "Before.\n\n> **Lemma 1.1**.\n>\n> - list"),
        (":::{prf:lemma} L\n:nonumber:\nB.\n:::", "> **Lemma** (L). B."),
        (
            ":::{prf:remark}\nA $x\n+ y$:\n\n$$\na % why\n+ b\n$$ (one)\n\n```\nx\n\n\ny\n```\n:::",
            "> **Remark 1.1**. A $x + y$:\n>\n> $$a + b \\tag{1.1}$$\n>\n> ```\n> x\n>\n>\n> y\n> ```",
        ),
        (":::{prf:proof}\nOne.\n\nTwo.\n:::\n\nNext.", "*Proof.* One.\n\nTwo. ∎\n\nNext."),
        (":::{prf:proof}\nSince\n\n$$a.$$\n:::", "*Proof.* Since\n\n$$a.$$\n\n∎"),
        ("::::{prf:theorem}\n:::{note}\nIn.\n:::\n::::", "> **Theorem 1.1**.\n>\n> > **Note**\n> >\n> > In."),
        # admonitions
        (":::{admonition} A *title*\n:class: tip\nB.\n:::", "> **A *title***\n>\n> B."),
        (
            ":::{admonition} *Why*\n:class: dropdown\nB.\n:::",
            "<details>\n<summary><em>Why</em></summary>\n\nB.\n\n</details>",
        ),
        # exercises and solutions
        (":::{exercise} Name\n:label: y\nDo.\n:::", "> **Exercise 1.1** (Name). Do."),
        (
            ":::{exercise-start} N\n:label: y\n:::\n\nDo.\n\n:::{exercise-end}\n:::",
            "**Exercise 1.1** (N).\n\nDo.",
        ),
        (
            ":::{solution} ex\n:class: dropdown\nB.\n:::",
            "<details>\n<summary>Solution to Exercise 1.1</summary>\n\nB.\n\n</details>",
        ),
        # what only the book needs
        ("(label)=\n## Heading\n\n% a comment\n{.wide}\nText.", "## Heading\n\nText."),
        ("[words]{.small} and `x`{.python} and $a${.b}.", "words and `x` and $a$."),
        # citations
        ("C {cite:p}`one,three`.", "C (Ambrosio, 2008; A et al., 2024)."),
        ("{cite:t}`two` and {cite:t}`three`.", "van den Berg and Cid (1999) and A et al. (2024)."),
    ],
)
def test_what_shows(myst: str, shown: str | None):
    assert plain(myst) == (myst if shown is None else shown)


@pytest.mark.parametrize(
    ("myst", "line", "said"),
    [
        ("A.\n\n:::{tableofcontents}\n:::", 3, "{tableofcontents} has no plain form"),
        ("A.\n\n:::{prf:theorem} T\nB.\n\n{index}`x`\n:::", 6, "{index} has no plain form"),
        ("A.\n\n:::{note}\nB.", 3, "nothing closes ':::{note}'"),
        (":::{note}\n---\nclass: tip\n---\nB.\n:::", 2, "write each option as `:name: value`"),
        ("A.\n:::", 2, "`:::` closes one that is open"),
        ("- A.\n\n  :::{note}\n  B.\n  :::", 3, "begins at the start of its line"),
        ("A\nB {prf:ref}`nothing`.", 2, "no chapter has anything with the label 'nothing'"),
        (":::{prf:lemma} L\n:label: x\nA\n{eq}`nothing`.\n:::", 4, "label 'nothing'"),
        ("A {cite:p}`one,nobody`.", 1, "the bibliography has no entry 'nobody'"),
        ("A\n\n$$a$$ and $$b$$", 3, "stands on lines of its own"),
        ("A\nb $$a$$ c", 2, "'$$': $$ in prose"),
        ("$$a\n\nb$$", 1, "a blank line in a formula"),
        ("A\n\n\\begin{align}\na\n\\end{align}", 3, "between lines of $$"),
        ("A[^1].", 1, "footnote"),
        ("See [](other.md).", 1, "links without words"),
        ("Term\n: meaning", 2, "a definition list"),
        ("(label)=", 1, "nothing of this cell would show"),
    ],
)
def test_what_has_no_plain_form_is_refused_with_its_line(myst: str, line: int, said: str):
    with pytest.raises(SourceError, match=rf"^line {line}: ") as refused:
        plain(myst)
    assert said in str(refused.value)


def test_lines_count_from_the_top_of_the_source():
    text = "---\na: b\n---\n# T\n\n```{code-cell}\nx = 1\n```\n\nA.\n\n```{code-cell}\ny = 1\n```\n\nB.\n{eq}`none`"
    with pytest.raises(SourceError, match=r"^line 17: "):
        notebooks.notebook(text)


def test_a_solution_over_several_cells_stays_folded_and_no_cell_is_empty():
    chapter = Chapter(1, LABELS)
    fold = "<details>\n<summary>Solution to Exercise 1.1{}</summary>\n\n{}\n\n</details>"
    assert chapter.cell(":::{solution-start} ex\n:::\n\nFirst.") == fold.format("", "First.")
    assert chapter.cell("Then.") == fold.format(", continued", "Then.")
    end = chapter.cell("Last.\n\n:::{solution-end}\n:::\n\nOpen.")
    assert end == fold.format(", continued", "Last.") + "\n\nOpen."
    assert chapter.cell("Open too.") == "Open too."
    assert chapter.cell("Try.\n\n:::{solution-start} ex\n:::") == "Try.\n\n**Solution to Exercise 1.1**"
    assert chapter.cell(":::{solution-end}\n:::\n\nOpen.") == "Open."


def test_references_are_those_cited_in_order_of_authors():
    chapter = Chapter(1, LABELS, WORKS)
    assert chapter.references() == ""
    chapter.cell("{cite:p}`two,one` and {cite:t}`three,four`")
    assert chapter.references().splitlines()[2:] == [
        "- X A, Y B and Z C. *Three*. 2024. [arXiv:2401.00001](https://arxiv.org/abs/2401.00001)",
        "- Élie Ambrosio. *A Title*. Birkhäuser, 2008. [doi:10.1/2](https://doi.org/10.1/2)",
        "- D. Dee. *Four*. 2000. <https://a.example/~dee/f_1.pdf>",
        "- Ann van den Berg and B. Cid. *Two*. J 3, 1–9, 1999.",
    ]


def test_every_work_of_the_bibliography_can_be_cited():
    works = parse_file(str(notebooks.ROOT / "book" / "references.bib")).entries
    chapter = Chapter(1, LABELS, works)
    for key in works:
        assert re.fullmatch(r"\([^{}\\]+, \d{4}\)", chapter.cell(f"{{cite:p}}`{key}`"))
    lines = chapter.references().splitlines()[2:]
    assert len(lines) == len(works)
    assert not [line for line in lines if re.search(r"[{}\\]", line)]
    linked = [work for work in works.values() if {"eprint", "doi", "url"} & set(work.fields)]
    assert sum("](https://" in line or "<https://" in line for line in lines) == len(linked)
    # Only what is older than digital identifiers, or a book, goes without a link.
    assert all(int(w.fields["year"]) < 1970 or w.type == "book" for w in works.values() if w not in linked)


# --- against Sphinx itself ---

PAGE = """\
# Title {name}

(sec-{name})=
## Section {name}

:::{{prf:theorem}} Named
:label: thm-{name}
Body.
:::

:::{{prf:lemma}}
:label: lem-{name}
$$a$$ (eq-{name})
:::

:::{{prf:theorem}} Third
:label: third-{name}
Body.
:::

$$b$$

:::{{exercise}} E
:label: ex-{name}
Do.
:::

:::{{exercise-start}} Gated
:label: gated-{name}
:::

$$
c
$$ (last-{name})

:::{{exercise-end}}
:::

:::{{solution}} ex-{name}
:label: sol-{name}
So.
:::

REFERENCES
"""
REFERENCES = [
    f"{{{role}}}`{label}-{name}`"
    for name in "abc"
    for role, labels in {
        "prf:ref": ["thm", "lem", "third"],
        "eq": ["eq", "last"],
        "ref": ["sec", "ex", "gated"],
        "numref": ["ex", "gated"],
    }.items()
    for label in labels
]
SETTINGS = """
extensions = ["sphinx_external_toc", "sphinx_multitoc_numbering", "myst_nb", "sphinx_proof", "sphinx_exercise"]
external_toc_path = "_toc.yml"
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "off"
numfig, numfig_secnum_depth, math_eqref_format, proof_minimal_theme = True, 1, "({number})", True
exclude_patterns = ["book/source", "built", "jupyter_execute"]
html_copy_source = False
"""
CONTENTS = """
format: jb-book
root: book/index
parts:
  - {numbered: true, chapters: [{file: book/01-a}, {file: book/02-b}]}
  - {numbered: true, chapters: [{file: book/03-c}]}
"""
FILES = {"a": "01-a", "b": "02-b", "c": "03-c"}


def build(root: Path, restoring: bool) -> dict[str, str]:
    """The pages that Sphinx makes of the notebooks below `root`."""
    addition = "extensions.append('chapter_source')\n" if restoring else ""
    (root / "conf.py").write_text(SETTINGS + addition)
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "html", str(root), str(root / "built")]
    surroundings = os.environ | {"PYTHONPATH": str(notebooks.ROOT / "book" / "_ext")}
    subprocess.run(command, check=True, capture_output=True, env=surroundings)
    pages = {name: (root / "built" / "book" / f"{file}.html").read_text() for name, file in FILES.items()}
    return {
        name: re.sub(r"\?v=\w+", "", page) for name, page in pages.items()
    }  # without marks for browsers' caches


def words(page: str) -> str:
    text = unescape(re.sub(r"<[^>]+>", "", page))
    return re.sub(r"\s+", " ", text.replace("¶", " "))


def test_the_numbers_are_those_of_the_book_and_the_book_is_built_from_the_myst(tmp_path: Path):
    pytest.importorskip("sphinx_proof")  # the test group of pyproject.toml has nothing that builds books
    (tmp_path / "book" / "source").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text(CONTENTS)
    (tmp_path / "book" / "index.md").write_text("# Index\n")
    for name in "abc":
        own = f"{{ref}}`sol-{name}`"  # to a solution on another page sphinx-exercise cannot refer
        listed = "".join(f"- {each};\n" for each in [*REFERENCES, own])
        source = PAGE.format(name=name).replace("REFERENCES", listed)
        (tmp_path / "book" / "source" / f"{FILES[name]}.md").write_text(source)
    assert notebooks.main([], tmp_path) == 0
    pages = build(tmp_path, restoring=True)

    for name in "abc":
        file = tmp_path / "book" / f"{FILES[name]}.ipynb"
        content = json.loads(file.read_text())
        shown = "".join(content["cells"][0]["source"])
        built = words(pages[name])
        assert f"{int(FILES[name][:2])}. " in built.split("Table")[0]  # the page's own number is its file's
        for heading in re.findall(r"\*\*((?:Theorem|Lemma|Exercise) [\d.]+)\*\*", shown):
            assert f"{heading} " in built
        assert re.findall(r"\\tag\{(.*?)\}", shown) == re.findall(r'"eqno">\(([\d.]+)\)', pages[name])
        references = re.findall(r"(?m)^- (.+);$", shown)
        assert len(references) == len(REFERENCES) + 1
        references[-1] += " (E)"  # the book repeats the exercise's name
        assert "; ".join(references) in built.replace(" ;", ";")

        for cell in content["cells"]:  # what it would be without plain Markdown
            cell["source"] = cell["metadata"].pop("myst", cell["source"])
        file.write_text(json.dumps(content))
    assert build(tmp_path, restoring=False) == pages


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_no_committed_notebook_shows_myst(file: Path):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "markdown"]
    for cell in cells:
        outside_code = re.sub(r"```.*?```|`[^`\n]*`", "", "".join(cell["source"]), flags=re.DOTALL)
        assert not RAW.search(outside_code)
    source = (notebooks.ROOT / "book" / "source" / f"{file.stem}.md").read_text()
    kept = "".join("".join(cell["metadata"].get("myst", "")) for cell in cells)
    assert bool(RAW.search(kept)) == bool(RAW.search(re.sub(r"```.*?```", "", source, flags=re.DOTALL)))
