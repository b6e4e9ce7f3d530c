"""The notebooks that Colab, nbval and the book read: made from their sources alone, the same bytes every time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nbformat
import pytest

from tools import notebooks

SOURCE = """\
---
myst:
  html_meta:
    description: What the page is about.
---
(chapter)=
# A title

A sentence.

```{code-cell}
:tags: [solution]
x = 1
```

:::{prf:theorem} A name
Its statement.
:::

```{code-cell}
assert x == 1
```

```{code-cell}
assert x == 1
```
"""
CONFIGURATION = """\
title: a book
repository:
  # the only place
  url: https://example.org/owner/name  # a fork changes this
  path_to_book: ""
  branch: main
other:
  url: https://example.org/another
"""
COMMITTED = sorted((notebooks.ROOT / "book").glob("*.ipynb"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one chapter, its notebook made."""
    (tmp_path / "_config.yml").write_text(CONFIGURATION)
    (tmp_path / "book" / "source").mkdir(parents=True)
    (tmp_path / "book" / "source" / "chapter.md").write_text(SOURCE)
    assert notebooks.main([], tmp_path) == 0
    return tmp_path


def cells(root: Path) -> list[dict]:
    return json.loads((root / "book" / "chapter.ipynb").read_text())["cells"]


def test_the_same_source_gives_the_same_bytes(root: Path):
    file = root / "book" / "chapter.ipynb"
    first = file.read_bytes()
    assert first.endswith(b"}\n")
    file.unlink()
    assert notebooks.main([], root) == 0
    assert file.read_bytes() == first


def test_ids_differ_also_for_equal_cells_and_follow_the_content(root: Path):
    before = [cell["id"] for cell in cells(root)]
    assert len(set(before)) == len(before)
    source = root / "book" / "source" / "chapter.md"
    source.write_text(SOURCE.replace("x = 1", "x = 2", 1))
    notebooks.main([], root)
    after = [cell["id"] for cell in cells(root)]
    changed = [number for number, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [cells(root)[number]["source"] for number in changed] == [["x = 2"]]


def test_the_installing_cell_follows_the_title_and_is_hidden_in_the_book(root: Path):
    title, setup, *rest = cells(root)
    assert title["source"][0] == "# A title\n"
    assert setup["metadata"]["tags"] == ["remove-cell"]
    assert "".join(setup["source"]).endswith(
        '    %pip install -q "flow-models-course[course] @ git+https://example.org/owner/name@main"'
    )
    assert len(rest) == 4


def test_solutions_are_folded_in_colab_and_jupyterlab_and_nothing_else_is(root: Path):
    folded = [cell for cell in cells(root) if cell["metadata"].get("cellView") == "form"]
    assert [cell["source"] for cell in folded] == [["x = 1"]]
    assert folded[0]["metadata"]["jupyter"] == {"source_hidden": True}


def test_a_cell_with_myst_shows_plain_markdown_and_keeps_the_myst(root: Path):
    markdown = [cell for cell in cells(root) if cell["cell_type"] == "markdown"]
    assert ["".join(cell["source"]) for cell in markdown] == [
        "# A title\n\nA sentence.",
        "> **Theorem 1** (A name). Its statement.",
    ]
    assert ["".join(cell["metadata"]["myst"]) for cell in markdown] == [
        "(chapter)=\n# A title\n\nA sentence.",
        ":::{prf:theorem} A name\nIts statement.\n:::",
    ]
    (root / "book" / "source" / "chapter.md").write_text("# A title\n\nA sentence.\n")
    notebooks.main([], root)
    assert cells(root)[0]["metadata"] == {}


def test_works_cited_are_listed_once_after_the_last_markdown_cell(root: Path):
    work = "@book{me, author = {Ada Lovelace}, title = {Notes}, year = 1843, publisher = {Taylor}}"
    (root / "book" / "references.bib").write_text(work)
    (root / "book" / "source" / "chapter.md").write_text(SOURCE.replace("A sentence", "As in {cite:p}`me`"))
    assert notebooks.main([], root) == 0
    markdown = ["".join(cell["source"]) for cell in cells(root) if cell["cell_type"] == "markdown"]
    assert "As in (Lovelace, 1843)." in markdown[0]
    assert markdown[-1].endswith("\n\n**References**\n\n- Ada Lovelace. *Notes*. Taylor, 1843.")


def test_a_chapter_refers_to_another_by_the_number_of_its_file(root: Path):
    labeled = SOURCE.replace("A name\n", "A name\n:label: x\n")
    (root / "book" / "source" / "02-labeled.md").write_text(labeled)
    (root / "book" / "source" / "other.md").write_text("# Other\n\nSee {prf:ref}`x` and {ref}`y`.\n")
    (root / "book" / "appendix.md").write_text("# Appendix\n\n(y)=\n## Further\n")
    assert notebooks.main([], root) == 0
    assert "See Theorem 2.1 and Further." in (root / "book" / "other.ipynb").read_text()


def test_what_a_header_says_to_the_book_is_kept(root: Path):
    metadata = json.loads((root / "book" / "chapter.ipynb").read_text())["metadata"]
    assert metadata["myst"]["html_meta"]["description"] == "What the page is about."
    assert metadata["kernelspec"]["name"] == "python3"
    assert "jupytext" not in metadata


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("source", "book/chapter.ipynb is out of step with book/source/chapter.md"),
        ("notebook", "book/chapter.ipynb is out of step with book/source/chapter.md"),
        ("output", "book/chapter.ipynb is out of step with book/source/chapter.md"),
        ("url", "book/chapter.ipynb is out of step with book/source/chapter.md"),
        ("missing", "book/chapter.ipynb is missing"),
        ("orphan", "book/left.ipynb has no source"),
    ],
)
def test_check_names_every_way_of_being_out_of_step(
    root: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
):
    source, made = root / "book" / "source" / "chapter.md", root / "book" / "chapter.ipynb"
    assert notebooks.main(["--check"], root) == 0
    if change == "source":
        source.write_text(SOURCE + "\nMore.\n")
    elif change == "notebook":
        made.write_text(made.read_text().replace("A sentence.", "Another sentence."))
    elif change == "output":
        content = json.loads(made.read_text())
        content["cells"][1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["1\n"]}]
        made.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    elif change == "url":
        (root / "_config.yml").write_text(CONFIGURATION.replace("owner/name", "fork/name"))
    elif change == "missing":
        made.unlink()
    else:
        made.rename(root / "book" / "left.ipynb")
    before = {file: file.read_bytes() for file in (root / "book").rglob("*.*")}
    assert notebooks.main(["--check"], root) == 1
    assert said in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in (root / "book").rglob("*.*")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A sentence, no title.", "begins with the title"),
        ("## A smaller title", "begins with the title"),
        ("```{code-cell}\nx = 1\n```\n\n# Late", "begins with the title"),
        ("# Title\n\n```{note}\nRaw in Colab.\n```", "line 3: write '```{note}' with colons"),
        ("# Title\n\n~~~{note}\nRaw in Colab.\n~~~", "line 3: write '~~~{note}' with colons"),
        ("# Title\n\n```{code-cell}\nfrom myst_nb import glue\n```", "line 4: Colab has no myst_nb.glue"),
        ("# Title\n\nIt is {glue:text}`x`.", "line 3: Colab has no myst_nb.glue"),
    ],
)
def test_sources_that_read_badly_in_colab_are_refused(text: str, said: str):
    with pytest.raises(notebooks.SourceError) as refused:
        notebooks.notebook(text, "https://example.org/owner/name")
    assert said in str(refused.value)


def test_a_bad_source_is_named_and_the_others_are_written(root: Path, capsys: pytest.CaptureFixture[str]):
    (root / "book" / "source" / "another.md").write_text("# Another\n")
    (root / "book" / "source" / "bad.md").write_text("no title\n")
    assert notebooks.main([], root) == 1
    assert "book/source/bad.md, line 1" in capsys.readouterr().err
    assert (root / "book" / "another.ipynb").exists()
    assert not (root / "book" / "bad.ipynb").exists()


@pytest.mark.parametrize(
    "given", ["https://example.org/me/fork", "https://example.org/me/fork.git", "git@example.org:me/fork.git"]
)
def test_one_command_changes_the_url_everywhere(root: Path, given: str):
    assert notebooks.main(["--repository", given], root) == 0
    assert (root / "_config.yml").read_text() == CONFIGURATION.replace("owner/name", "me/fork")
    assert "git+https://example.org/me/fork@main" in "".join(cells(root)[1]["source"])
    assert notebooks.main(["--check"], root) == 0


@pytest.mark.parametrize(
    "given", ["me/fork", "https://example.org", "https://example.org/me", "https://a.b/c/d e"]
)
def test_what_is_no_url_of_a_repository_is_refused(
    root: Path, given: str, capsys: pytest.CaptureFixture[str]
):
    assert notebooks.main(["--repository", given], root) == 1
    assert repr(given) in capsys.readouterr().err
    assert (root / "_config.yml").read_text() == CONFIGURATION


# --- the notebooks of this repository ---


def test_the_committed_notebooks_are_in_step():
    assert notebooks.stale() == []
    assert COMMITTED


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_a_committed_notebook_is_valid_and_begins_with_the_installing_cell(file: Path):
    content = nbformat.read(file, as_version=4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert content.cells[1] is code[0]
    assert 'find_spec("flowcourse") is None' in code[0].source
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_the_repository_url_stands_in_one_place():
    url, _ = notebooks.repository()
    found = subprocess.run(
        ["git", "grep", "--untracked", "-lF", url],
        cwd=notebooks.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    written_by_hand = [name for name in found.stdout.splitlines() if not name.endswith(".ipynb")]
    assert written_by_hand == ["_config.yml"]
