"""Plain Markdown for what a chapter says in MyST, since Colab, JupyterLab and GitHub do not know MyST.

A `Chapter` reads its cells from top to bottom and numbers as the book does: theorems and their kin, exercises and
labeled formulas, each kind by itself, after the number of the chapter. What has no plain form is refused with its
line, so that nothing can show raw.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from pybtex.database import Entry, Person
from pybtex.richtext import Text

THEOREM = re.compile(
    "prf:(algorithm|assumption|axiom|conjecture|corollary|criterion|definition|example|lemma|notation|observation"
    "|property|proposition|remark|theorem)"
)
EXERCISE = re.compile("(exercise)(-start)?")
ADMONITION = re.compile("admonition|attention|caution|danger|error|hint|important|note|seealso|tip|warning")
DIRECTIVE = re.compile(r"(:{3,})\{([\w:.-]+)\}[ ]*(.*)")
OPTION = re.compile(r":([\w-]+):[ ]*(.*)")
TARGET = re.compile(r"\(([^()]+)\)=\s*")
FENCE = re.compile(r"\s*(`{3,}|~{3,})")
DISPLAY = re.compile(r"(\s*)\$\$((?:(?!\$\$).)+)\$\$[ ]*(?:\(([^)$\n]+)\))?\s*", re.DOTALL)
ATTRIBUTES = r"\{[ ]*(?:[.#][\w-]+|[\w-]+=[^\s{}]+)(?:[ ]+(?:[.#][\w-]+|[\w-]+=[^\s{}]+))*[ ]*\}"
BLOCK_ATTRIBUTES = re.compile(rf"\s*{ATTRIBUTES}\s*")
INLINE = re.compile(
    rf"""\\. | \{{(?P<role>[a-zA-Z][\w:.-]*)\}}(?P<ticks>`+)(?P<content>(?:(?!\n\s*\n).)+?)(?P=ticks)
    | (?P<code>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=code)(?!`)
    | (?P<math>\$(?:(?!\n\s*\n)(?:\\.|[^\\$]))+\$)
    | \[(?P<span>[^\[\]]+)\]{ATTRIBUTES} | (?<=[`)$]){ATTRIBUTES} | (?P<bad>\$\$|\[\]\(|\[\^|<(?:project|path|inv):)""",
    re.DOTALL | re.VERBOSE,
)
REFUSED = {
    r"\s*:::": "a directive begins at the start of its line, and `:::` closes one that is open",
    r"\s*\\begin\{": "put the formula between lines of $$",
    r":\s": "a definition list shows raw in Colab; write a list",
}
NOT_PROSE = re.compile(r"\$\$|[-*+]\s|\d+[.)]\s|#|\||>|<|```|~~~")  # so begin lines that no words may precede
EMPTY = re.compile(r"<details>\n<summary>([^\n]*)</summary>\n\s*</details>\n*")
CONTINUED = ", continued"


class SourceError(ValueError):
    """A chapter source that would read badly in Colab or fail in the book."""


@dataclass
class Chapter:
    """A reader of one chapter, whose cells must come in order.

    `labels` says what a reference to each label of the book shows; None collects: `found` gets the labels of this
    chapter, and what is unknown passes. `works` are the entries of the bibliography.
    """

    number: int | None = None
    labels: Mapping[str, str] | None = None
    works: Mapping[str, Entry] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    cited: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    solution: str = ""  # the title of the solution that is open

    def cell(self, text: str, line: int = 1) -> str:
        """The plain Markdown of a Markdown cell that begins at this line of the source.

        Raises:
            SourceError: something in it has no plain form, or nothing would be left.
        """
        opening = fold(self.solution + CONTINUED) if self.solution else []
        lines = [*opening, *self.blocks(text.split("\n"), line)]
        if self.solution:
            lines += ["", "</details>"]

        def title_alone(match: re.Match[str]) -> str:
            return "" if match[1].endswith(CONTINUED) else f"**{match[1]}**\n\n"

        plain = EMPTY.sub(title_alone, "\n".join(lines)).strip("\n")
        if not plain:
            self.refuse(line, "nothing of this cell would show in Colab; write a sentence into it")
        return plain

    def refuse(self, line: int, why: str) -> None:
        if self.labels is not None:
            raise SourceError(f"line {line}: {why}")

    def give_number(self, kind: str, label: str, shown: str = "{}") -> str:
        """The next number of this kind, which references to `label` show in this form."""
        self.counts[kind] += 1
        number = f"{self.number}.{self.counts[kind]}" if self.number else str(self.counts[kind])
        self.found[label] = shown.format(number)
        return number

    def blocks(self, lines: list[str], first: int, quoted: bool = False) -> list[str]:
        """The plain lines of these, the first of which has this number; a quotation's formulas stay on one line."""
        made: list[str] = []
        prose: list[str] = []
        targets: list[str] = []
        position = 0

        def flush(apart: bool = False) -> None:
            if prose:
                text = self.inline("\n".join(prose), first + position - len(prose), quoted)
                made.extend(text.split("\n"))
                prose.clear()
            if apart and made and made[-1]:
                made.append("")

        while position < len(lines):
            line, number = lines[position], first + position
            after = position + 1
            if fence := FENCE.match(line):
                close = re.compile(rf"\s*{fence[1]}[`~]*\s*")
                while after < len(lines) and not close.fullmatch(lines[after]):
                    after += 1
                after += 1
                flush()
                made += lines[position:after]
            elif line.lstrip().startswith("$$"):
                flush()
                while after < len(lines) and not DISPLAY.fullmatch("\n".join(lines[position:after])):
                    after += 1
                if formula := DISPLAY.fullmatch("\n".join(lines[position:after])):
                    made += self.display(formula, number, quoted)
                else:
                    self.refuse(number, "a formula between $$ and $$ stands on lines of its own")
                    after = position + 1
            elif directive := DIRECTIVE.fullmatch(line):
                while after < len(lines) and not re.fullmatch(rf"{directive[1]}:*\s*", lines[after]):
                    after += 1
                if after == len(lines):
                    self.refuse(number, f"nothing closes {line!r}")
                flush(apart=True)
                body = lines[position + 1 : after]
                made += [*self.directive(directive[2], directive[3].strip(), body, number, quoted), ""]
                after += 1
                while after < len(lines) and not lines[after]:
                    after += 1
            elif (
                (target := TARGET.fullmatch(line)) or line.startswith("%") or BLOCK_ATTRIBUTES.fullmatch(line)
            ):
                flush()
                targets += [target[1]] if target else []
            else:
                for start, why in REFUSED.items():
                    if re.match(start, line):
                        self.refuse(number, why)
                if line and targets:
                    heading = re.fullmatch(r"#+ (.*)", line)
                    self.found |= dict.fromkeys(
                        targets, self.inline(heading[1], number, True) if heading else ""
                    )
                    targets.clear()
                prose.append(line)
            position = after
        flush()
        return made

    def display(self, formula: re.Match[str], line: int, quoted: bool) -> list[str]:
        """A formula, with the number of the book if it has a label."""
        indent, tex, label = formula.groups()
        if re.search(r"\n\s*\n", tex):
            self.refuse(line, "a blank line in a formula ends it in Colab")
        if label:
            end = re.search(r"\s*$", tex)
            space = end[0] if end and "\n" in end[0] else ""
            separator = f"\n{indent}" if space else " "
            tex = rf"{tex.rstrip()}{separator}\tag{{{self.give_number('equation', label, '({})')}}}{space}"
        if quoted:
            tex = " ".join(re.sub(r"(?<!\\)%.*", "", part).strip() for part in tex.split("\n")).strip()
        return f"{indent}$${tex}$$".split("\n")

    def directive(self, name: str, title: str, body: list[str], line: int, quoted: bool) -> list[str]:
        """The plain lines of a directive at this line, whose title is what follows its name."""
        options: dict[str, str] = {}
        start = line + 1
        while body and (made := OPTION.fullmatch(body[0])):
            options[made[1]] = made[2].strip()
            body, start = body[1:], start + 1
        if body and body[0].strip() == "---":
            self.refuse(start, "write each option as `:name: value`")
        label = options.get("label", "")

        if name in {"solution", "solution-start"}:
            shown = f"Solution to {self.look_up(title, line)}"
            self.found[label] = shown
            if name == "solution-start":
                self.solution = shown
                return fold(shown)[:-1]
            return [*fold(shown), *trim(self.blocks(body, start)), "", "</details>"]
        if name == "solution-end":
            self.solution = ""
            return ["</details>"]
        if name == "exercise-end":
            return []
        if name == "math":
            formula = DISPLAY.fullmatch("\n".join(["$$", *trim(body), f"$$ ({label})" if label else "$$"]))
            return self.display(formula, line, quoted) if formula else []
        if name == "prf:proof":
            lines = trim(self.blocks([*([title] if title else []), *body], start - bool(title), quoted))
            lines = begin("*Proof.*", lines)
            if re.search(r"(\$\$|```|~~~|\||>)$", lines[-1]):
                return [*lines, "", "∎"]
            return [*lines[:-1], f"{lines[-1]} ∎"]
        if numbered := THEOREM.fullmatch(name) or EXERCISE.fullmatch(name):
            heading = numbered[1].capitalize()
            if "nonumber" in options:
                self.found[label] = heading
            else:
                heading += " " + self.give_number(numbered[1], label, heading + " {}")
            heading = f"**{heading}**" + (f" ({self.inline(title, line, True)})" if title else "") + "."
            if name == "exercise-start":
                return [heading]
            return quote(begin(heading, trim(self.blocks(body, start, True))))
        if ADMONITION.fullmatch(name):
            title = self.inline(title or name.capitalize(), line, True)
            if "dropdown" in options.get("class", ""):
                summary = MarkdownIt().renderInline(title)
                return [*fold(summary), *trim(self.blocks(body, start, quoted)), "", "</details>"]
            return quote([f"**{title}**", "", *trim(self.blocks(body, start, True))])
        self.refuse(
            line, f"the directive {{{name}}} has no plain form for Colab; tools/plain.py would give it one"
        )
        return []

    def inline(self, text: str, line: int, quoted: bool) -> str:
        """Prose with its roles written out and its attributes left out."""

        def replace(found: re.Match[str]) -> str:
            where = line + text.count("\n", 0, found.start())
            if found["role"]:
                return self.role(found["role"], " ".join(found["content"].split()), where)
            if found["span"]:
                return self.inline(found["span"], where, quoted)
            if found["bad"]:
                self.refuse(
                    where, f"{found['bad']!r}: $$ in prose, footnotes and links without words show raw"
                )
            if found["math"] and quoted:
                return " ".join(found[0].split("\n"))
            return found[0] if found["code"] or found["math"] or found[0][0] == "\\" else ""

        return INLINE.sub(replace, text)

    def role(self, name: str, content: str, line: int) -> str:
        titled = re.fullmatch(r"(.+?)\s*<([^<>]+)>", content)
        if name in {"eq", "prf:ref", "ref", "numref"}:
            shown = self.look_up(titled[2] if titled else content, line)
            return titled[1] if titled else shown
        if name in {"cite:p", "cite:t"}:
            return self.cite([key.strip() for key in content.split(",")], name == "cite:t", line)
        if name == "term":
            return titled[1] if titled else content
        if name in {"code", "kbd"}:
            return f"`{content}`"
        if name == "math":
            return f"${content}$"
        self.refuse(
            line, f"the role {{{name}}} has no plain form for Colab; tools/plain.py would give it one"
        )
        return ""

    def look_up(self, label: str, line: int) -> str:
        """What a reference to a label shows."""
        shown = self.found.get(label) or (self.labels or {}).get(label)
        if not shown:
            self.refuse(line, f"no chapter has anything with the label {label!r} to show")
        return shown or ""

    def cite(self, keys: list[str], textual: bool, line: int) -> str:
        """Authors and year: `Teschl (2012)` in the text, or all in parentheses."""
        for key in set(keys) - self.works.keys():
            self.refuse(line, f"the bibliography has no entry {key!r}")
        keys = [key for key in keys if key in self.works]
        self.cited.update(keys)
        pairs = [(short(authors(self.works[key])), self.works[key].fields["year"]) for key in keys]
        if textual:
            return ", ".join(f"{who} ({year})" for who, year in pairs)
        return "(" + "; ".join(f"{who}, {year}" for who, year in pairs) + ")"

    def references(self) -> str:
        """The list of the works that were cited so far, sorted by authors, year and title; empty if there are none."""
        works = [self.works[key] for key in self.cited]
        works.sort(
            key=lambda work: (
                [last_name(person) for person in authors(work)],
                work.fields["year"],
                work.fields["title"],
            )
        )
        return "\n".join(["**References**", "", *map(entry, works)]) if works else ""


def trim(lines: list[str]) -> list[str]:
    """The lines without blank ones at either end."""
    return "\n".join(lines).strip("\n").split("\n")


def quote(lines: list[str]) -> list[str]:
    return [f"> {line}".rstrip() for line in lines]


def fold(summary: str) -> list[str]:
    return ["<details>", f"<summary>{summary}</summary>", ""]


def begin(heading: str, lines: list[str]) -> list[str]:
    """The lines with this heading before them, on the same line if they begin with words."""
    if not lines[0]:
        return [heading]
    return [heading, "", *lines] if NOT_PROSE.match(lines[0]) else [f"{heading} {lines[0]}", *lines[1:]]


def decode(tex: str) -> str:
    """BibTeX's text with its accents as characters and without braces."""
    return str(Text.from_latex(tex))


def authors(work: Entry) -> list[Person]:
    return work.persons.get("author") or work.persons.get("editor") or []


def last_name(person: Person) -> str:
    return decode(" ".join([*person.prelast_names, *person.last_names]))


def short(people: list[Person]) -> str:
    """`A`, `A and B` or `A et al.`"""
    names = [last_name(person) for person in people]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


def entry(work: Entry) -> str:
    """One line of the list of references."""
    names = [
        decode(" ".join([*who.first_names, *who.middle_names, *who.prelast_names, *who.last_names]))
        for who in authors(work)
    ]
    names = [*names[:-2], " and ".join(names[-2:])]
    said = {name: decode(work.fields[name]) for name in work.fields}
    venue = next((said[name] for name in ("journal", "booktitle", "publisher", "note") if name in said), "")
    if "journal" in said:
        venue += "".join(f" {said[name]}" for name in ["volume"] if name in said)
        venue += "".join(f", {said[name]}" for name in ["pages"] if name in said)
    line = f"- {', '.join(names)}. *{said['title']}*. {venue + ', ' if venue else ''}{said['year']}."
    if "eprint" in said:
        line += f" [arXiv:{said['eprint']}](https://arxiv.org/abs/{said['eprint']})"
    elif "doi" in said:
        line += f" [doi:{said['doi']}](https://doi.org/{said['doi']})"
    elif "url" in said:
        line += f" <{work.fields['url']}>"  # as it is: in TeX a tilde is a space
    return line
