"""The status page: what it says of a small book with two notebooks, and when it is written again."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import status
from docutils import nodes

from flowcourse.claims import MARK
from tests.small_book import build

pytestmark = pytest.mark.filterwarnings("ignore")  # of Sphinx and its extensions

PAGE = "# Status\n\n" + "".join(f":::{{status}} {kind}\n:::\n\n" for kind in status.KINDS)
CONTENTS = "# Book\n\n:::{toctree}\n:numbered:\n01-first\n02-second\nstatus\n:::\n"


def write_notebook(path: Path, title: str, code: str) -> None:
    cells = [nbformat.v4.new_markdown_cell(f"# {title}"), nbformat.v4.new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def built(folder: Path) -> tuple[str, list[str]]:
    """The status page after a build, and the pages that the build wrote."""
    cache = str(folder / "_build" / "cache")
    said, _ = build(folder, "status", nb_execution_mode="cache", nb_execution_cache_path=cache)
    written = re.findall(r"writing output.*?\] *([\w-]+)", said)
    return (folder / "_build" / "html" / "status.html").read_text(), written


def rows(page: str) -> list[list[str]]:
    """The texts of the cells of every row."""
    found = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in found]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


def test_the_page_says_what_ran_and_how_long_and_is_written_again_when_that_changes(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text(CONTENTS)
    (tmp_path / "status.md").write_text(PAGE)
    claimed = f"print({MARK + 'one'!r})\nprint('no claim')\nprint({MARK + 'two'!r})"
    write_notebook(tmp_path / "01-first.ipynb", "First", claimed)
    write_notebook(tmp_path / "02-second.ipynb", "Second", "import time\ntime.sleep(2)")
    page, _ = built(tmp_path)
    made = rows(page)
    first, second, together = (
        next(r for r in made if r[0] == n) for n in ("1. First", "2. Second", "Together")
    )
    assert first[2] == "2" and second[2] == "0" and together[2] == "2"
    assert int(second[1]) >= 2 and int(together[1]) >= int(second[1])
    assert 'href="02-second.html"' in page
    assert ["Python", platform.python_version()] in made
    assert ["torch", status.installed("torch")] in made
    assert ["Commit", "unknown"] in made or re.search(r"Commit.*[0-9a-f]{12}", page, re.DOTALL)

    again, written = built(tmp_path)
    assert again == page and written == []
    write_notebook(tmp_path / "02-second.ipynb", "Second", f"print({MARK + 'three'!r})")
    changed, written = built(tmp_path)
    assert set(written) >= {"02-second", "status"} and "01-first" not in written
    assert next(r for r in rows(changed) if r[0] == "Together")[2] == "3"


def test_an_unknown_kind_is_refused() -> None:
    directive = SimpleNamespace(arguments=["weather"])
    with pytest.raises(ValueError, match=r"weather.*chapters"):
        status.Status.run(directive)  # type: ignore[arg-type]


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_says_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert status.commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v1")  # a tag may move, and is no name of a commit
    clean = status.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / "file").write_text("2")
    assert status.commit(tmp_path) == f"{clean} with changes"


def test_a_processor_is_called_by_its_name_or_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : another\n")
    assert status.processor(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert status.processor(tmp_path / "absent") in {platform.processor(), platform.machine()}


def test_only_what_an_output_marks_is_counted_as_a_claim() -> None:
    document = nodes.Element()
    document += nodes.literal_block("", f"{MARK}in the code", classes=["input"])
    document += nodes.literal_block("", f"{MARK}a\nb\n{MARK}c", classes=["output", "stream"])
    assert status.claims(document) == 2  # type: ignore[arg-type]
