"""Make the committed notebooks `book/NAME.ipynb` from the sources `book/source/NAME.md`.

    python -m tools.notebooks                     write every notebook, and the tables of the chapters
    python -m tools.notebooks --check             write nothing; name what is out of step and exit with 1
    python -m tools.notebooks --colab FOLDER      write there the notebooks that install this commit from its origin

People write and review MyST Markdown; Colab, nbval and the book read notebooks. The same source always gives the
same bytes: cell ids come from the cells' content, the metadata are fixed and no output is stored. Three things are
added: a first cell of code, which asks for flowlib, and with `--colab` installs it from where this checkout comes
from; the metadata that fold cells tagged `solution` or `hide-input` in Colab and JupyterLab; and, where a cell holds
MyST, plain Markdown that shows there in its place (plain.py). The MyST text stays in that cell's metadata, from which
the book is built (book/_ext/chapter_source.py).

The tables of the chapters in README.md and book/intro.md come from the sources' headers in the same run (chapters.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from pybtex.database import parse_file

from tools.chapters import HEADER, ChapterError, number_of, tables
from tools.first_cell import INSTALLING, SETUP
from tools.origin import origin
from tools.plain import Chapter, SourceError

ROOT = Path(__file__).resolve().parent.parent

FOLDED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
}  # the first is Colab's, the second JupyterLab's
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TITLE = re.compile(r"(\([^()\n]+\)=\n+)?# \S")  # a heading of the first level, maybe with a label before it


def problems(text: str) -> list[str]:
    """What in a source would show raw in Colab or fail there, one line each."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(`{3,}|~{3,})\{(?!code-cell\})", line):
            found.append(f"line {number}: write {line.strip()!r} with colons, so that Colab shows its text")
        if re.search(r"myst_nb\b.*\bglue|\{glue:", line):
            found.append(f"line {number}: Colab has no myst_nb.glue; print the value or use a claim")
    return found


def collect(text: str, number: int | None = None) -> dict[str, str]:
    """What references to the labels of a source show, if it is the chapter of this number."""
    chapter = Chapter(number)
    chapter.cell(HEADER.sub("", text))
    return chapter.found


def notebook(text: str, setup: str = SETUP, chapter: Chapter | None = None) -> str:
    """The notebook, as JSON text, of a MyST source; `setup` is its first code, and `chapter`, fresh, knows the labels.

    Raises:
        SourceError: there is no title, `problems` finds something, or something has no plain form.
    """
    chapter = chapter or Chapter(labels=collect(text))
    parsed = jupytext.reads(text, fmt="md:myst")
    if found := problems(text):
        raise SourceError("\n".join(found))
    if not parsed.cells or parsed.cells[0].cell_type != "markdown" or not TITLE.match(parsed.cells[0].source):
        raise SourceError("line 1: the first cell must be Markdown that begins with the title, `# ...`")

    cells = [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in parsed.cells]
    shown = plain([source if kind == "markdown" else None for kind, source, _ in cells], text, chapter)
    shown.insert(1, None)
    cells.insert(1, ("code", setup.rstrip("\n"), {"tags": ["remove-cell"]}))

    seen: Counter[tuple[str, str]] = Counter()
    made = []
    for (kind, source, metadata), instead in zip(cells, shown, strict=True):
        if {"solution", "hide-input"} & set(metadata.get("tags", [])):
            metadata |= FOLDED
        content = f"{kind}\n{source}\n{seen[kind, source]}"
        seen[kind, source] += 1
        if instead is not None and instead != source:
            metadata |= {"myst": source.splitlines(keepends=True)}
            source = instead
        cell = {
            "cell_type": kind,
            "id": hashlib.sha256(content.encode()).hexdigest()[:12],
            "metadata": metadata,
            "source": source.splitlines(keepends=True),
        }
        made.append(cell | {"execution_count": None, "outputs": []} if kind == "code" else cell)

    # What a source's header says to the book (`mystnb`, `myst`) stays; what it says to jupytext and to us does not.
    ours = {"jupytext", "kernelspec", "chapter"}
    header = {key: value for key, value in parsed.metadata.items() if key not in ours}
    result = {"cells": made, "metadata": header | KERNEL, "nbformat": 4, "nbformat_minor": 5}
    written = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    nbformat.validate(nbformat.reads(written, as_version=4))
    return written


def plain(sources: list[str | None], text: str, chapter: Chapter) -> list[str | None]:
    """What shows for each Markdown cell (None for others), with the works that are cited after the last of them."""
    shown: list[str | None] = []
    position = 0  # in the text, which knows the lines' numbers
    for source in sources:
        if source is not None:
            position = max(text.find(source, position), position)
        line = text.count("\n", 0, position) + 1
        shown.append(None if source is None else chapter.cell(source, line))
    last = max(number for number, source in enumerate(sources) if source is not None)
    if references := chapter.references():
        shown[last] = f"{shown[last]}\n\n{references}"
    return shown


def expected(root: Path = ROOT, setup: str = SETUP) -> tuple[dict[Path, str], list[str]]:
    """Every notebook and table that the sources below `root` make, and the complaints about what makes none."""
    book = root / "book"
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(book.rglob("*.md"))}
    sources = {file: number_of(file) for file in texts if file.parent == book / "source"}
    labels: dict[str, str] = {}
    for file, text in texts.items():
        labels |= collect(text, sources.get(file))
    works = parse_file(str(file)).entries if (file := book / "references.bib").exists() else {}

    made, complaints = {}, []
    for source, numbered in sources.items():
        chapter = Chapter(numbered, labels, works)
        try:
            made[book / f"{source.stem}.ipynb"] = notebook(texts[source], setup, chapter)
        except SourceError as error:
            complaints += [
                f"{source.relative_to(root).as_posix()}, {line}" for line in str(error).splitlines()
            ]
    try:
        made |= tables(root)
    except ChapterError as error:
        complaints.append(str(error))
    return made, complaints


def stale(root: Path = ROOT) -> list[str]:
    """What `--check` reports: bad sources, and notebooks that are missing, out of step or without a source."""
    made, complaints = expected(root)
    remedy = "run `python3 run.py notebooks`"
    for file, text in made.items():
        name = file.relative_to(root).as_posix()
        source = f"book/source/{file.stem}.md" if file.suffix == ".ipynb" else "the chapters' headers"
        if not file.exists():
            complaints.append(f"{name} is missing: {remedy}")
        elif file.read_bytes() != text.encode():
            complaints.append(f"{name} is out of step with {source}: edit that alone, then {remedy}")
    for file in sorted((root / "book").glob("*.ipynb")):
        source = root / "book" / "source" / f"{file.stem}.md"
        if not source.exists():
            name = file.relative_to(root).as_posix()
            complaints.append(
                f"{name} has no source {source.relative_to(root).as_posix()}: delete it or write one"
            )
    return complaints


def for_colab(folder: Path, root: Path = ROOT) -> int:
    """Write the notebooks that Colab opens, which install the commit that is checked out; return the exit status."""
    url = origin(root)
    if url is None:
        print(
            "This checkout has no remote `origin` on a host, from which Colab could install it.",
            file=sys.stderr,
        )
        return 1
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    made, complaints = expected(root, INSTALLING.format(url=url, commit=asked.stdout.strip()))
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in made.items():
        if file.suffix == ".ipynb":
            (folder / file.name).write_bytes(text.encode())
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Make book/*.ipynb from book/source/*.md.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a notebook is out of step"
    )
    parser.add_argument(
        "--colab", metavar="FOLDER", type=Path, help="write there the notebooks that install this very commit"
    )
    options = parser.parse_args(arguments)
    if options.colab:
        return for_colab(options.colab, root)

    if not options.check:
        for file, text in expected(root)[0].items():
            if not file.exists() or file.read_bytes() != text.encode():
                file.write_bytes(text.encode())
                print(f"wrote {file.relative_to(root).as_posix()}")
    complaints = stale(root)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not complaints:
        print("Every notebook and every table of the chapters is in step with the sources.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
