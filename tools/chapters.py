"""What the chapters' headers say of them, the tables made of it, and the files of a new chapter.

    python -m tools.chapters NUMBER TITLE    lay out a chapter: source, exercises, their tests, and its line in _toc.yml

The header of `book/source/NN-NAME.md` holds, below `chapter`, its question, the modules of flowlib that it opens
and, as `needs`, the chapters that its main line builds on (the one before it, if it does not say).
tools/notebooks.py makes of these the tables between the marks in README.md and book/intro.md. A file of book/source
that does not begin with a chapter's number, such as `NAME.md` or `00-NAME.md`, is a page: it becomes a notebook like
the chapters and is in no table.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).resolve().parent / "chapter"
HEADER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
TABLES = {
    "README.md": (
        "| Chapter | Source | In flowlib |\n|---|---|---|\n",
        "| {number} {title} | `book/source/{stem}.md` | {rooms} |\n",
    ),
    "book/intro.md": (
        "| No. | Chapter | The question |\n|---|---|---|\n",
        "| {number} | [{title}]({stem}.ipynb) | {question} |\n",
    ),
}
MARKED = re.compile(r"(<!-- chapters: .*? -->\n\n).*?(\n<!-- end of chapters -->)", re.DOTALL)


class ChapterError(ValueError):
    """A chapter that cannot be read or laid out; the message says why."""


@dataclass(frozen=True)
class Header:
    """What the tables say of a chapter."""

    number: int
    stem: str
    title: str
    question: str
    rooms: str
    needs: tuple[int, ...]


def number_of(file: Path) -> int | None:
    """The number of a chapter, from 1, with which its file begins; None for a page that is no chapter."""
    found = re.match(r"0*([1-9]\d*)-", file.name)
    return int(found[1]) if found else None


def stems(root: Path = ROOT) -> dict[int, str]:
    """The names of the chapters' files, without their endings, by number and in order."""
    files = sorted((root / "book" / "source").glob("*.md"))
    return {n: file.stem for file in files if (n := number_of(file)) is not None}


def header(n: int, stem: str, root: Path = ROOT) -> Header:
    """The header of a chapter.

    Raises:
        ChapterError: it lacks the title, the question or the modules.
    """
    text = (root / "book" / "source" / f"{stem}.md").read_text(encoding="utf-8")
    title = re.search(r"^# (.+)", text, re.MULTILINE)
    said = yaml.safe_load(found[1]).get("chapter") if (found := HEADER.match(text)) else None
    if not title or not said or not {"question", "flowlib"} <= said.keys():
        raise ChapterError(
            f"book/source/{stem}.md, line 1: the header needs `chapter` with `question` and `flowlib`"
        )
    rooms = ", ".join(f"`{name}`" for name in said["flowlib"])
    needs = tuple(said.get("needs", range(max(1, n - 1), n)))
    return Header(n, stem, title[1], said["question"], rooms, needs)


def tables(root: Path = ROOT) -> dict[Path, str]:
    """The texts of the files with a table of the chapters, as they should be.

    Raises:
        ChapterError: a header lacks something, or a file has lost its marks.
    """
    made = {}
    files = {root / name: form for name, form in TABLES.items() if (root / name).exists()}
    headers = [header(n, stem, root) for n, stem in stems(root).items()] if files else []
    for file, (head, row) in files.items():
        table = head + "".join(row.format(**vars(each)) for each in headers)
        text = file.read_text(encoding="utf-8")
        made[file], found = MARKED.subn(lambda m, table=table: m[1] + table + m[2], text)
        if found != 1:
            raise ChapterError(f"{file.relative_to(root).as_posix()}: the marks around the table are gone")
    return made


def lay_out(n: int, title: str, root: Path = ROOT) -> list[Path]:
    """Write the files of chapter `n` from the templates, and its line in _toc.yml; return what was written.

    Raises:
        ChapterError: there is such a chapter already, it would leave a gap, or the title is empty.
    """
    known = stems(root)
    title = " ".join(title.split())
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if n in known:
        raise ChapterError(f"chapter {n} is there already: book/source/{known[n]}.md")
    if n != len(known) + 1:
        raise ChapterError(f"chapters are numbered without gaps: the next one is {len(known) + 1}, not {n}")
    if not name:
        raise ChapterError("a chapter needs a title, such as: python3 run.py chapter 7 'Couplings'")
    stem = f"{n:02d}-{name}"
    toc = root / "_toc.yml"
    lines = toc.read_text(encoding="utf-8").splitlines(keepends=True)
    last = max((i for i, line in enumerate(lines) if re.search(r"file: book/\d+-", line)), default=None)
    if last is None:
        raise ChapterError("_toc.yml names no chapter after which this one could come")

    places = {
        "source.md": f"book/source/{stem}.md",
        "graders.py": f"flowcourse/graders/chapter_{n:02d}.py",
    }
    for template, place in places.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = text.replace("{{title}}", title).replace("{{number}}", str(n))
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text, encoding="utf-8")
    lines.insert(last + 1, re.sub(r"book/.*", f"book/{stem}", lines[last]))
    toc.write_text("".join(lines), encoding="utf-8")
    return [*(root / place for place in places.values()), toc]


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    if len(arguments) != 2 or not arguments[0].isdigit():
        print("expected the chapter's number and its title", file=sys.stderr)
        return 2
    try:
        for file in lay_out(int(arguments[0]), arguments[1], root):
            print(f"wrote {file.relative_to(root).as_posix()}")
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
