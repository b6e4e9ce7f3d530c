"""A new chapter: its files, tables and refusals, and that it runs as it is laid out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from tools import chapters, notebooks

ROOT = notebooks.ROOT
TITLE = "A New  Title: couplings"
STEM = "a-new-title-couplings"
NEXT = max(chapters.stems()) + 1


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's texts and course, without what is built."""
    for name in ("README.md", "_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", ".*", "_*")
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=ignored)
    shutil.copytree(
        ROOT / "flowcourse", tmp_path / "flowcourse", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def files(root: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_a_new_chapter_touches_six_places_and_is_in_step(copy: Path):
    before = files(copy)
    assert chapters.main([str(NEXT), TITLE], copy) == 0
    assert notebooks.main([], copy) == 0
    after = files(copy)
    assert {file.relative_to(copy).as_posix() for file in after if after[file] != before.get(file)} == {
        f"book/source/{NEXT:02d}-{STEM}.md",
        f"flowcourse/graders/chapter_{NEXT:02d}.py",
        # and these, which nobody edits
        "_toc.yml",
        f"book/{NEXT:02d}-{STEM}.ipynb",
        "README.md",
        "book/intro.md",
    }
    laid_out = [text for file, text in after.items() if file not in before]
    assert not any(b"{{" in text for text in laid_out)
    parts = yaml.safe_load((copy / "_toc.yml").read_text())["parts"]
    [contents] = [part["chapters"] for part in parts if part.get("numbered")]
    assert contents[-1] == {"file": f"book/{NEXT:02d}-{STEM}"}
    assert (
        f"| {NEXT} | [A New Title: couplings]({NEXT:02d}-{STEM}.ipynb) |"
        in (copy / "book/intro.md").read_text()
    )
    assert notebooks.main(["--check"], copy) == 0


def test_a_new_chapter_runs_and_its_exercises_are_tested(copy: Path):
    assert chapters.main([str(NEXT), TITLE], copy) == 0
    assert notebooks.main([], copy) == 0
    notebook = nbformat.read(copy / "book" / f"{NEXT:02d}-{STEM}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "%pip" not in cell.source]
    (copy / "chapter.py").write_text("\n\n".join(code))
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings = outside | {"PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)]), "MPLBACKEND": "agg"}
    # away from the answers beside it, which are to the exercises that are there already
    graders = shutil.copy(ROOT / "tests" / "flowcourse" / "graders" / "test_mistakes.py", copy)
    tested = ["-m", "pytest", "-q", "-c", os.devnull, "-k", f"{NEXT}.", str(graders)]
    for command in (["-W", "error", "chapter.py"], tested):
        done = subprocess.run(
            [sys.executable, *command], cwd=copy, env=surroundings, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_without_a_chapters_number_is_a_notebook_and_in_no_table(copy: Path):
    before = files(copy)
    for name in ("another", "a-page"):
        page = f"# A page\n\n:::{{prf:lemma}}\n:label: {name}\nOne.\n:::\n"
        (copy / "book" / "source" / f"{name}.md").write_text(page)
    assert notebooks.main([], copy) == 0
    after = files(copy)
    assert {path.relative_to(copy).as_posix() for path in after if after[path] != before.get(path)} == {
        f"book/{file}" for name in ("another", "a-page") for file in (f"{name}.ipynb", f"source/{name}.md")
    }
    for name in ("another", "a-page"):
        assert "**Lemma 1**" in (copy / "book" / f"{name}.ipynb").read_text()
    assert chapters.stems(copy) == chapters.stems()
    assert chapters.main([str(NEXT), TITLE], copy) == 0  # its number is the next chapter's


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["1", "Title"], "chapter 1 is there already: book/source/01-flows-and-vector-fields.md"),
        ([str(NEXT + 1), "Title"], f"the next one is {NEXT}, not {NEXT + 1}"),
        (["0", "Title"], f"the next one is {NEXT}, not 0"),
        ([str(NEXT), " - "], "a chapter needs a title"),
        (["seven", "Title"], "expected the chapter's number"),
        ([str(NEXT)], "expected the chapter's number"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(
    copy: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    before = files(copy)
    assert chapters.main(arguments, copy) != 0
    assert said in capsys.readouterr().err
    assert files(copy) == before


def test_a_table_that_was_edited_by_hand_is_named_and_made_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
):
    page = copy / "book" / "intro.md"
    right = page.read_text()
    page.write_text(right.replace("How few arrows", "How many arrows"))
    assert notebooks.main(["--check"], copy) == 1
    assert "book/intro.md is out of step with the chapters' headers" in capsys.readouterr().err
    assert notebooks.main([], copy) == 0
    assert page.read_text() == right


def test_a_header_without_a_question_and_a_page_without_marks_are_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
):
    (copy / "README.md").write_text("# No table\n")
    assert notebooks.main(["--check"], copy) == 1
    assert "README.md: the marks around the table are gone" in capsys.readouterr().err
    source = next((copy / "book" / "source").glob("01-*.md"))
    source.write_text(source.read_text().replace("  question:", "  asks:", 1))
    assert notebooks.main(["--check"], copy) == 1
    assert f"book/source/{source.name}, line 1: the header needs `chapter`" in capsys.readouterr().err
