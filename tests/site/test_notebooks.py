"""The notebooks that Colab, nbval and the book read: made from their sources alone, the same bytes every time."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nbformat
import pytest

from tools import notebooks
from tools.origin import normalized, on_github, origin

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
COMMITTED = sorted((notebooks.ROOT / "book").glob("*.ipynb"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one chapter, its notebook made."""
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
    assert "".join(setup["source"]) == notebooks.SETUP.rstrip("\n")
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
        notebooks.notebook(text)
    assert said in str(refused.value)


def test_a_bad_source_is_named_and_the_others_are_written(root: Path, capsys: pytest.CaptureFixture[str]):
    (root / "book" / "source" / "another.md").write_text("# Another\n")
    (root / "book" / "source" / "bad.md").write_text("no title\n")
    assert notebooks.main([], root) == 1
    assert "book/source/bad.md, line 1" in capsys.readouterr().err
    assert (root / "book" / "another.ipynb").exists()
    assert not (root / "book" / "bad.ipynb").exists()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://github.com/me/fork", "https://github.com/me/fork"),
        ("https://x-access-token:secret@github.com/me/fork.git/", "https://github.com/me/fork"),
        ("git@github.com:me/fork.git\n", "https://github.com/me/fork"),
        ("ssh://git@git.example.org:2222/me/fork.git", "https://git.example.org/me/fork"),
        ("https://gitlab.com/group/part/fork.git", "https://gitlab.com/group/part/fork"),
        ("/srv/git/fork.git", None),
        ("../fork", None),
        ("file:///srv/git/fork.git", None),
        ("C:/Users/me/fork", None),
        ("", None),
    ],
)
def test_a_remote_has_one_url_without_names_and_tokens(address: str, url: str | None):
    assert normalized(address) == url


def checkout(folder: Path, remote: str) -> str:
    """Make the folder a checkout with one commit; return that."""
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        [*name, "commit", "-qm", "all"],
        ["remote", "add", "origin", remote],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def test_the_origin_is_the_workflows_or_the_remotes_or_none(root: Path):
    checkout(root, "git@gitlab.com:me/fork.git")
    assert origin(root, {}) == "https://gitlab.com/me/fork"
    assert not on_github(origin(root, {}))
    assert origin(root / "book", {}) is None  # which is no checkout of its own
    run = {"GITHUB_REPOSITORY": "you/course", "GITHUB_SERVER_URL": "https://github.com"}
    assert origin(root, run) == "https://github.com/you/course"
    assert on_github(origin(root, run))
    subprocess.run(["git", "remote", "remove", "origin"], cwd=root, check=True)
    assert origin(root, {}) is None
    assert not on_github(None)


def test_colabs_notebooks_install_the_commit_that_is_checked_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    commit = checkout(root, "https://me:token@github.com/me/fork.git")
    folder = tmp_path / "colab"
    assert notebooks.main(["--colab", str(folder)], root) == 0
    content = nbformat.read(folder / "chapter.ipynb", as_version=4)
    assert f"git+https://github.com/me/fork@{commit}" in content.cells[1].source
    assert "github.com" not in (root / "book" / "chapter.ipynb").read_text()
    subprocess.run(["git", "remote", "remove", "origin"], cwd=root, check=True)
    assert notebooks.main(["--colab", str(folder)], root) == 1
    assert "no remote `origin`" in capsys.readouterr().err


def complaint(cell: str, monkeypatch: pytest.MonkeyPatch, *, there: list[bool]) -> str:
    """What a first cell raises, or "" for nothing, if the course is found as `there` says, one answer a question."""
    answers = iter(there)

    def version(name: str) -> str:
        if name == "flow-models-course" and next(answers):
            return "1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    try:
        exec(re.sub(r"%pip .*", "pass", cell), {})
    except (ModuleNotFoundError, RuntimeError) as error:
        return str(error)
    return ""


def test_the_first_cell_is_silent_where_the_course_is_and_else_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
):
    assert complaint(notebooks.SETUP, monkeypatch, there=[True]) == ""
    assert "of PyPI is another package" in complaint(notebooks.SETUP, monkeypatch, there=[False])
    installing = notebooks.INSTALLING.format(url="https://example.org/a/b", commit="c0ffee")
    assert complaint(installing, monkeypatch, there=[True]) == ""
    assert complaint(installing, monkeypatch, there=[False, True]) == ""
    assert "Run this cell again" in complaint(installing, monkeypatch, there=[False, False])  # pip failed


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
    assert code[0].source == notebooks.SETUP.rstrip("\n")
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_nothing_names_a_repository_that_is_not_there():
    """Where a placeholder is taken for an address, a stranger's code would run."""
    found = subprocess.run(
        ["git", "grep", "--untracked", "-liE", "github.com/(owner|you|user|example)/" + "[a-z]"],
        cwd=notebooks.ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["tests/site/test_notebooks.py"]


SHOWN = re.compile(r"show|table|lab|quiz|hints|\w+_(board|box|diagram|explorable|explorer)")


def lost(code: str) -> list[str]:
    """What a cell makes to be seen and does not show, for only its last value is shown."""
    calls = [
        statement.value.func
        for statement in ast.parse(code).body[:-1]
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    ]
    return [call.id for call in calls if isinstance(call, ast.Name) and SHOWN.fullmatch(call.id)]


@pytest.mark.parametrize("path", [*notebooks.ROOT.glob("book/*.ipynb")], ids=lambda path: path.stem)
def test_what_a_cell_makes_to_be_seen_is_its_last_value(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            assert lost(cell.source) == [], cell.source


def test_a_lost_figure_is_noticed():
    assert lost("table(rows)\nshow(fig)\nflow_explorer(v)\nclaim('x', 1, '<', 2)\nshow(fig)") == [
        "table",
        "show",
        "flow_explorer",
    ]


@pytest.mark.parametrize("path", [*notebooks.ROOT.glob("book/*.ipynb")], ids=lambda path: path.stem)
def test_a_figure_is_shown_by_the_cell_that_makes_it(path: Path):
    """What is open when a cell ends is displayed as it is then, raw and unfinished."""
    for cell in nbformat.read(path, as_version=4).cells:
        made = cell.cell_type == "code" and re.search(
            r"^[^\s#].*\b(?:plt\.subplots|panels|plt\.figure)\(", cell.source, re.M
        )
        assert not made or re.search(r"^(?:\w+ = )?show\(", cell.source, re.M), cell.source
