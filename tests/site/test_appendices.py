"""The glossary is in order and linked from the chapters, and every row of the errata leads to what shows it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tools import chapters, notebooks

BOOK = notebooks.ROOT / "book"
SOURCES = {n: BOOK / "source" / f"{stem}.md" for n, stem in chapters.stems().items()}
CODE = re.compile(r"^```\{code-cell\}.*?^```$", re.MULTILINE | re.DOTALL)


def glossary() -> dict[str, str]:
    text = (BOOK / "appendices" / "notation.md").read_text(encoding="utf-8")
    block = text.partition(":::{glossary}\n")[2].partition("\n:::\n")[0]
    return dict(re.findall(r"^(\S.*)\n  (.+)$", block, re.MULTILINE))


def terms(text: str) -> list[str]:
    """The terms that are linked in a text, as the glossary writes them."""
    found = re.findall(r"\{term\}`([^`<]+?)(?:\s*<([^>]+)>)?`", text)
    return [(target or shown).lower() for shown, target in found]


def test_the_glossary_is_in_the_order_of_the_alphabet_and_each_entry_says_where():
    entries = glossary()
    assert list(entries) == sorted(entries, key=str.lower)
    for name, text in entries.items():
        assert re.search(r"\((\{prf:ref\}`[\w-]+`|\[chapter \d+\]\(\.\./[\w-]+\.ipynb\))\)$", text), name


@pytest.mark.parametrize("number", SOURCES)
def test_a_chapter_links_a_term_once_and_not_in_code(number: int):
    text = SOURCES[number].read_text(encoding="utf-8")
    linked = Counter(terms(text))
    assert max(linked.values(), default=1) == 1
    assert linked.keys() <= {name.lower() for name in glossary()}
    assert not any(terms(cell) for cell in CODE.findall(text))


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    linked = {term for path in SOURCES.values() for term in terms(path.read_text(encoding="utf-8"))}
    assert {name.lower() for name in glossary()} - linked == set()


def rows() -> list[tuple[int, str]]:
    """The chapter of each erratum and its last cell, which says where it is shown."""
    made, number = [], 0
    for line in (BOOK / "appendices" / "errata.md").read_text(encoding="utf-8").split("\n"):
        if heading := re.match(r"## Chapter (\d+)", line):
            number = int(heading[1])
        elif line.startswith("| ") and not line.startswith("| The notes say"):
            made.append((number, re.split(r"(?<!\\)\|", line)[-2].strip()))
    return made


@pytest.mark.parametrize(("number", "shown"), rows())
def test_an_erratum_leads_to_a_place_of_its_chapter_and_to_claims_that_are_made_there(
    number: int, shown: str
):
    text = SOURCES[number].read_text(encoding="utf-8")
    links = re.findall(r"\{(?:prf:ref|eq|ref)\}`(?:[^`<]+<)?([\w-]+)>?`", shown)
    assert links
    for label in links:
        assert re.search(rf"^(:label: {label}|\({label}\)=|.*\$\$ \({label}\))$", text, re.MULTILINE), label
    for claim in re.findall(r'"([^"]+)"', shown):
        assert begins(claim.replace(r"\|", "|"), claimed(text)), claim


def claimed(text: str) -> list[str]:
    """What a chapter claims, whole and after "name: ", with a null character where something is filled in."""
    literals = re.findall(r'claim\(\s*f?"([^"]+)"', re.sub(r'"\s*\n\s*f?"', "", text))
    said = [re.sub(r"\{[^}]*\}", "\0", literal) for literal in literals]
    return said + [literal.partition(": ")[2] for literal in said if ": " in literal]


def begins(words: str, literals: list[str]) -> bool:
    """Whether some claim may begin with these words, of which at least the last six are fixed."""
    starts = [literal[:end] for literal in literals for end in range(6, len(literal) + 1)]
    starts = [start for start in starts if "\0" not in start[-6:]]
    return any(re.fullmatch(re.escape(start).replace("\0", ".+"), words) for start in starts)


def test_a_claim_that_nobody_makes_is_noticed():
    made = claimed('claim(f"{name}: order", x, ">", 1)\nclaim(\n    "a " \n    "smooth one is", y)')
    assert made == ["\0: order", "a smooth one is", "order"]
    assert begins("half: order", made) and begins("a smooth one", made)
    assert not begins("half: rate", made) and not begins("a rough one", made)
