"""Docstrings of flowlib, read: paragraphs, formulas, examples and lists of arguments; formulas and citations in prose.

No docstring is written for this: what `help()` shows and what the book shows is one text. Prose becomes nodes of
docutils piece by piece, and what looks like a formula but is not surely one stays text.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import formulas
from pybtex.database import Entry, parse_file

LISTS = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises"}
ITEM = re.compile(r"((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*): ?(.*)")
BIBLIOGRAPHY = Path(__file__).resolve().parent.parent / "references.bib"


@dataclass
class Block:
    """A piece of a docstring: of kind "prose", "block" (indented), "example" or the title of a list."""

    kind: str
    text: str = ""
    items: tuple[tuple[str, str], ...] = ()


def blocks(docstring: str) -> list[Block]:
    """The pieces of a docstring, in order."""
    made = []
    for chunk in re.split(r"\n[ \t]*\n", inspect.cleandoc(docstring)):
        lines = chunk.split("\n")
        while lines:
            if lines[0] in LISTS:
                held = [line for line in lines[1:] if line.startswith("    ")]
                made.append(listed(LISTS[lines[0]], [line[4:] for line in held]))
                lines = lines[1 + len(held) :]
                continue
            kind = "prose"
            if lines[0].startswith(">>> "):
                kind = "example"
            elif all(line.startswith("    ") for line in lines):
                kind = "block"
            end = next((n for n, line in enumerate(lines) if n and line in LISTS), len(lines))
            made.append(Block(kind, "\n".join(line[4:] if kind == "block" else line for line in lines[:end])))
            lines = lines[end:]
    return made


def listed(title: str, lines: list[str]) -> Block:
    """A list of arguments or exceptions, or, where the lines have no names, what is returned."""
    items: list[list[str]] = []
    for line in lines:
        found = ITEM.fullmatch(line)
        if found and title != "Returns":
            items.append([found[1], found[2]])
        elif items:
            items[-1][1] += " " + line.strip()
        else:
            items.append(["", line.strip()])
    return Block(title, items=tuple((name, text) for name, text in items))


@cache
def works() -> dict[str, str]:
    """The keys of the bibliography by what a docstring calls a work, such as `ho & salimans 2022`."""
    found: dict[str, list[str]] = {}
    for key, entry in parse_file(str(BIBLIOGRAPHY)).entries.items():
        for name in called(entry):
            found.setdefault(name, []).append(key)
    return {name: keys[0] for name, keys in found.items() if len(keys) == 1}


def called(entry: Entry) -> set[str]:
    names = [ascii_name(" ".join(person.last_names)) for person in entry.persons.get("author", [])]
    year = entry.fields.get("year", "")
    if not names:
        return set()
    if len(names) == 1:
        return {f"{names[0]} {year}"}
    all_names = f"{', '.join(names[:-1])} & {names[-1]} {year}"
    first = (
        {f"{names[0]} et al. {year}", f"{names[0]}, {names[1]} et al. {year}"} if len(names) > 2 else set()
    )
    return {all_names} | first


def ascii_name(name: str) -> str:
    """Names as code writes them: lower case, without TeX and accents."""
    name = re.sub(r"\\o\b", "o", name)
    name = re.sub(r"\\.|[{}]", "", name).replace("\N{LATIN SMALL LETTER O WITH STROKE}", "o")
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).lower()


CITED = re.compile(
    r"(?P<authors>[A-Z][\w'-]+(?:, [A-Z][\w'-]+)*(?: & [A-Z][\w'-]+)?(?: et al\.)?) (?P<open>\(?)(?P<year>\d{4})\b"
)
DERIVED = re.compile(r"(?<=erived at )(?:eq|thm|prop|cor|lem|def)-[\w-]*\w")
SHAPE = re.compile(
    r"(?<![\w\])])\((?:\.\.\.|\*?[A-Z]\b|[dnmpch]\b|\d|[a-z]+_dim)(?:[ ][-+/*][ ]\w+|[ ]\w)?"
    r"(?:, (?:\.\.\.|\*?[A-Za-z]\w*(?: [-+/] \w+)?|\d+(?: \w)?))*,?\)"
)
PIECE = re.compile(
    rf"`(?P<code>[^`]+)`|{CITED.pattern}|(?P<label>{DERIVED.pattern})|(?P<shape>{SHAPE.pattern})"
)


def pieces(text: str) -> list[tuple[str, str, str]]:
    """Prose as a list of (kind, what to show, where it leads): kinds are text, code, work, label and math."""
    made: list[tuple[str, str, str]] = []
    text = " ".join(text.split())
    at = 0
    for found in PIECE.finditer(text):
        kind, shown, target = str(found.lastgroup), found[0], ""
        if found["code"]:
            kind, shown = "code", found["code"]
        elif found["year"]:
            kind, target = "work", works().get(f"{ascii_name(found['authors'])} {found['year']}", "")
            if not target:
                continue
            shown += ")" * bool(found["open"] and text[found.end() :].startswith(")"))
        elif found["label"]:
            kind, target = "label", found[0]
        else:
            kind, shown = ("code", found[0]) if any(c.isupper() or c in ".*_" for c in found[0]) else ("", "")
            if not kind or found[0].startswith("(I"):
                continue
        made += mathematics(text[at : found.start()])
        made.append((kind, shown, target))
        at = found.end() + (kind == "work" and shown.endswith(")") and not found[0].endswith(")"))
    return made + mathematics(text[at:])


KNOWN = formulas.GREEK | set(formulas.FUNCTIONS) - {"sign", "diag"} | {"grad", "sqrt", "infinity", "partial"}
RISKY = {
    "min",
    "max",
    "sum",
    "int",
    "partial",
    "diag",
    "sign",
}  # words too, unless something is joined to them


def mathy(word: str) -> bool:
    """Whether a word between spaces may belong to a formula."""
    if re.fullmatch(r"[(]?[aAI][,.;:)]?", word) and word not in ("I)", "I),", "I).", "I):"):
        return False
    if re.search(r"'s\b|\de-?\d|[^\w^'|()\[\]{},.<>=+\-*/~;:]|\*|--|[A-Za-z]-[A-Za-z]{2}", word):
        return False
    bare = re.sub(r"[_^](\{[^}]*\}|\w+|-\w+)", "\N{BULLET}", word)
    for name in re.finditer(r"[A-Za-z]+", bare):
        joined = bare[name.end() : name.end() + 1] in ("(", "\N{BULLET}", "[")
        known = len(name[0]) == 1 or name[0] in KNOWN or (name[0] in RISKY and joined)
        if (not known and not formulas.letter(name[0])) or (name[0] in RISKY and not joined):
            return False
    return True


def mathematics(text: str) -> list[tuple[str, str, str]]:
    """Text with its formulas set apart: each the longest run of words that surely are one."""
    words = re.findall(r"\S+|\s+", text)
    made: list[tuple[str, str, str]] = []
    plain, at = "", 0
    while at < len(words):
        end = at
        while end < len(words) and (words[end].isspace() or mathy(words[end])):
            if re.search(r"(?<!\.\.)[.;:]$", words[end]) and not words[end].endswith("(."):
                end += 1
                break
            end += 1
        tex = ""
        while end > at and not words[at].isspace():
            run = "".join(words[at:end]).rstrip()
            core = re.sub(r"(?<!\.\.)[,.;:]+$", "", run)
            if tex := sure(core):
                break
            end -= 1
        lead = re.match(r"[(\[]*", words[at])
        if not tex and lead and lead[0] and (rest := words[at][len(lead[0]) :]):
            plain += lead[0]
            words[at] = rest
            continue
        if tex:
            made += [("text", plain, "")] * bool(plain) + [("math", tex, core)]
            plain = run[len(core) :] + "".join(words[at:end])[len(run) :]
            at = end
        else:
            plain += words[at]
            at += 1
    return made + [("text", plain, "")] * bool(plain)


def sure(core: str) -> str:
    """The TeX of a run of words, or nothing where it is no formula, or may be none."""
    if not re.search("[A-Za-z]", core) or core.startswith(("=", "/", ")", "~", ",")):
        return ""
    if re.search(r"[-=+/~<>|]$", core) and core[-2:] not in ("|)",) and core.count("|") % 2:
        return ""
    if re.search(r"(\s|^)[-=+/~<]$", core) or any(
        core.count(a) != core.count(b) for a, b in ("()", "[]", "{}")
    ):
        return ""
    try:
        return formulas.formula(core)
    except formulas.Unsure:
        return ""
