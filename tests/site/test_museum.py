"""The bug museum shows every exhibit of the chapters, and nothing that is not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tools import notebooks

BOOK = notebooks.ROOT / "book"
PAGE = BOOK / "appendices" / "bugs.md"
SOURCES = [*sorted((BOOK / "source").glob("*.md")), BOOK / "appendices" / "conventions.md"]
EXHIBIT = re.compile(r"^\((bug-[\w-]+)\)=\n(.*)$", re.MULTILINE)
TITLED = re.compile(r"\*\*([^*]+)\.\*\*")
PARTS = ["Symptom", "Cause", "Test", "Shown in"]


def exhibits(text: str) -> dict[str, str]:
    """The first line of every exhibit by its label."""
    return dict(EXHIBIT.findall(text))


def unlabeled(text: str) -> list[str]:
    """The names of exhibits in sections on what goes wrong, or on traps, that have no label."""
    found = []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        if re.match(r"## (Traps|.*\b[Ww]hat goes wrong)", section):
            lines = section.split("\n")
            names = [number for number, line in enumerate(lines) if TITLED.fullmatch(line)]
            found += [lines[n] for n in names if not re.fullmatch(r"\(bug-[\w-]+\)=", lines[n - 1])]
    return found


def rooms() -> dict[str, str]:
    """The text of every exhibit on the page by its name."""
    parts = re.split(r"^### (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def labels(text: str) -> list[str]:
    return re.findall(r"\{ref\}`[^<`]+<(bug-[\w-]+)>`", text)


def test_what_has_no_label_is_found():
    text = (
        "## What goes wrong\n\n**One.**\nx\n\n(bug-two)=\n**Two.**\n\n**Three** and\n\n## More\n\n**Four.**\n"
    )
    assert unlabeled(text) == ["**One.**"]
    assert exhibits(text) == {"bug-two": "**Two.**"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_every_exhibit_of_a_chapter_has_a_label(source: Path):
    assert unlabeled(source.read_text(encoding="utf-8")) == []


def test_every_exhibit_of_the_chapters_hangs_in_the_museum_once_under_its_name():
    made = {
        name: line for file in SOURCES for name, line in exhibits(file.read_text(encoding="utf-8")).items()
    }
    shown = rooms()
    assert len(made) > 40
    own = Counter(labels(text)[0] for name, text in shown.items())
    assert own == Counter(dict.fromkeys(made, 1))
    for name, text in shown.items():
        assert set(labels(text)) <= made.keys(), name
        if titled := TITLED.fullmatch(made[labels(text)[0]]):
            assert titled[1].replace("$z$", "z") == name


def test_every_exhibit_says_its_symptom_its_cause_its_test_and_where():
    for name, text in rooms().items():
        assert re.findall(r"^([A-Z][\w ]+)\n: .+", text, re.MULTILINE) == PARTS, name


def test_a_link_says_the_chapter_that_it_leads_to():
    place = {name: file for file in SOURCES for name in exhibits(file.read_text(encoding="utf-8"))}
    for words, label in re.findall(r"\{ref\}`([^<`]+) <(bug-[\w-]+)>`", PAGE.read_text(encoding="utf-8")):
        number = place[label].stem[:2]
        assert words == (f"chapter {int(number)}" if number.isdigit() else "the traps of the translator")


def test_every_exhibit_is_suspected_of_a_symptom():
    """Its table names headings; that each link leads to one, the build checks."""
    opening = PAGE.read_text(encoding="utf-8").split("\n## Time and conventions")[0]
    suspects = set(re.findall(r"\[\]\(#([\w-]+)\)", opening))
    text = PAGE.read_text(encoding="utf-8")
    named = {name: label for label, name in re.findall(r"^\(([\w-]+)\)=\n### (.+)$", text, re.MULTILINE)}
    for name in rooms():
        slug = re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")
        assert named.get(name, slug) in suspects, name
