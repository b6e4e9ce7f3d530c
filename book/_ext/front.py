"""What the front page says of the chapters, measured at every build: their map, their lengths and their run times.

The words are those of a chapter's main line; the seconds come from the cache of executed notebooks (runtimes.py).
Four directives of MyST:

    living-figure    a current that carries noise to data, as chapter 1 opens with
    chapter-map      which chapter builds on which (chapter_map.py)
    chapter-times    a table of words and times, and their sums
    when-page        its contents, if the book has a page of this name (a pattern): `{page}` stands for it in them
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chapter_map
import runtimes
from docutils import nodes
from docutils.statemachine import StringList
from reading import SECOND
from sphinx.util.docutils import SphinxDirective

from tools import chapters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACE = 200  # words a minute
ASIDE = ("Exercises", "Further reading")  # sections that are not of the main line
ADAPTS = re.compile(r"\b(?:budget|device|train)\(")  # code that does more, or elsewhere, where there is a GPU


class placeholder(nodes.General, nodes.Element):
    """Where the map or the table comes when all chapters are known; `what` says which."""


# --- words ---


def main_line(node: nodes.Node) -> Iterator[str]:
    """The texts of a first reading: no code, no outputs, no folds, no second readings, no exercises.

    A formula within a sentence is one word, a displayed one none.
    """
    if isinstance(node, nodes.Text):
        yield node.astext()
    elif isinstance(node, nodes.math):
        yield " formula "
    elif isinstance(node, nodes.section) and node.next_node(nodes.title) is not None:
        title = node.next_node(nodes.title).astext()
        if not title.startswith((SECOND, *ASIDE)):
            yield from inside(node)
    elif isinstance(node, nodes.Element) and not hidden(node):
        yield from inside(node)


def inside(node: nodes.Element) -> Iterator[str]:
    for child in node.children:
        yield from main_line(child)
        if isinstance(child, nodes.TextElement):
            yield " "


def hidden(node: nodes.Element) -> bool:
    unread = nodes.math_block | nodes.literal_block | nodes.raw | nodes.comment | nodes.Invisible
    code = node.get("nb_element") == "cell_code"
    return isinstance(node, unread) or code or "dropdown" in node.get("classes", ())


def words(doctree: nodes.document) -> int:
    """How many words the main line has."""
    return len("".join(main_line(doctree)).split())


# --- the chapters of this book ---


@dataclass(frozen=True)
class Chapter:
    """What the front page says of a chapter; `seconds` is None where it has not been run."""

    title: str
    page: str
    needs: tuple[int, ...]
    words: int
    seconds: float | None
    adapts: bool

    @property
    def minutes(self) -> int:
        return max(1, round(self.words / PACE))


def measured(app: Sphinx) -> dict[int, Chapter]:
    """The chapters that the book has, by number."""
    env, found = app.env, {}
    times = runtimes.runtimes(app)
    stems = {n: stem for n, stem in chapters.stems().items() if f"book/{stem}" in env.found_docs}
    for n, stem in stems.items():
        page = f"book/{stem}"
        said = chapters.header(n, stem)
        text = (chapters.ROOT / "book" / "source" / f"{stem}.md").read_text(encoding="utf-8")
        needs = tuple(before for before in said.needs if before in stems)
        count = words(env.get_doctree(page))
        found[n] = Chapter(said.title, page, needs, count, times.get(page), bool(ADAPTS.search(text)))
    return found


def duration(seconds: float) -> str:
    """Seconds in words: "48 s", "3 min", "2.4 hours"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def numbers(several: list[int]) -> str:
    """Numbers as a text has them: 1 and 4; 1, 4 and 6."""
    *firsts, last = map(str, sorted(several))
    return f"{', '.join(firsts)} and {last}" if firsts else last


def whole(which: dict[int, Chapter]) -> str:
    """How long some chapters take together."""
    read = sum(one.words for one in which.values())
    ran = [one.seconds for one in which.values() if one.seconds is not None]
    told = f"{read:,} words, {duration(60 * read / PACE)} of reading"
    return f"{told} and {duration(sum(ran))} of running" if len(ran) == len(which) else told


def sums(known: dict[int, Chapter]) -> list[str]:
    """The sentences below the table: the whole course, and the shortest way to its last chapter."""
    told = [f"All main lines together: {whole(known)}."]
    last = max(known)
    way = chapter_map.builds_on({n: one.needs for n, one in known.items()}, last)
    if spared := sorted(set(known) - way):
        chosen = {n: known[n] for n in sorted(way)}
        plural = "s" if len(spared) > 1 else ""
        told.append(
            f"The shortest way to chapter {last} is {numbers(list(way))}: {whole(chosen)}. "
            f"It leaves chapter{plural} {numbers(spared)} for later."
        )
    return told


# --- nodes ---


def cell(text: str, *classes: str) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", text), classes=list(classes))


def times_table(app: Sphinx, known: dict[int, Chapter], docname: str) -> list[nodes.Element]:
    """The table of words and times, and the sums."""
    names = ("Chapter", "Words", "To read", "To run", "With a GPU")
    head = nodes.row("", *(cell(name, *["text-right"] * (0 < i < 4)) for i, name in enumerate(names)))
    body = nodes.tbody()
    for n, one in known.items():
        link = nodes.reference(
            "", f"{n} {one.title}", refuri=app.builder.get_relative_uri(docname, one.page), internal=True
        )
        row = nodes.row("", nodes.entry("", nodes.paragraph("", "", link)))
        row += [
            cell(f"{one.words:,}", "text-right"),
            cell(f"{one.minutes} min", "text-right"),
            cell("not run" if one.seconds is None else duration(one.seconds), "text-right"),
            cell("trains more" if one.adapts else "the same"),
        ]
        body += row
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in names), nodes.thead("", head), body, cols=5)
    table = nodes.table("", group, classes=["times"])
    return [table, *(nodes.paragraph("", text) for text in sums(known))]


def drawn_map(app: Sphinx, known: dict[int, Chapter], docname: str) -> nodes.raw:
    """The map as HTML."""
    picture = chapter_map.svg(
        {n: one.needs for n, one in known.items()},
        {n: one.title for n, one in known.items()},
        {n: app.builder.get_relative_uri(docname, one.page) for n, one in known.items()},
        {n: f"{one.minutes} min" for n, one in known.items()},
    )
    return nodes.raw("", picture, format="html")


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put what was measured where its placeholders are."""
    waiting = list(doctree.findall(placeholder))
    known = measured(app) if waiting else {}
    for node in waiting:
        made: list[Any] = []
        if known and app.builder.format == "html":
            made = (
                [drawn_map(app, known, docname)]
                if node["what"] == "map"
                else times_table(app, known, docname)
            )
        node.parent[node.parent.index(node) : node.parent.index(node) + 1] = made


class ChapterMap(SphinxDirective):
    """`{chapter-map}`"""

    what = "map"

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["measures"] = True
        return [placeholder(what=self.what)]


class ChapterTimes(ChapterMap):
    """`{chapter-times}`"""

    what = "times"


class WhenPage(SphinxDirective):
    """`{when-page} PATTERN`: the contents, if a page has such a name."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["measures"] = True
        pages = fnmatch.filter(sorted(self.env.found_docs), self.arguments[0])
        if not pages:
            return []
        here = posixpath.dirname(self.env.docname)
        page = posixpath.relpath(Path(self.env.doc2path(pages[0], base=False)).as_posix(), here)
        lines = [line.replace("{page}", page) for line in self.content]
        holder = nodes.Element()
        self.state.nested_parse(
            StringList(lines, source=self.get_source_info()[0]), self.content_offset, holder
        )
        return holder.children


class LivingFigure(SphinxDirective):
    """`{living-figure}`: the first figure of the course, from flowcourse, which needs no notebook for it."""

    def run(self) -> list[nodes.Node]:
        import torch

        import flowcourse
        from flowcourse.scenes import flow_explorer
        from flowlib import RK4, linear, three_arms

        for file in sorted(Path(flowcourse.__file__).parent.rglob("*.js")):
            self.env.note_dependency(str(file))
        figure = flow_explorer(
            {"noise to three arms": three_arms().marginal_velocity(linear)},
            points=torch.randn(240, 2, generator=torch.Generator().manual_seed(0)),
            methods=(RK4,),
            steps=16,
            show=("arrows",),
            time=0.45,
            caption="Press play: noise on its way to data, along arrows that are known exactly. "
            "Drop points of your own into the current.",
            description="Random points around the middle of a plane drift along the arrows of a velocity field and "
            "end as three elongated arms.",
        )
        boxes = '<div class="cell"><div class="cell_output"><div class="output">{}</div></div></div>'  # as in a chapter
        return [nodes.raw("", boxes.format(figure._repr_html_()), format="html")]


def again(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Read the pages that ask for others again when there are others."""
    asking = [name for name in env.found_docs if env.metadata.get(name, {}).get("measures")]
    return asking if added or removed else []


def write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the pages that measure others whenever anything was read: words and times may have changed."""
    return [name for name in env.found_docs if env.metadata.get(name, {}).get("measures")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(placeholder)
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("chapter-times", ChapterTimes)
    app.add_directive("when-page", WhenPage)
    app.add_directive("living-figure", LivingFigure)
    app.connect("env-get-outdated", again)
    app.connect("env-updated", write_again)
    app.connect("doctree-resolved", fill, priority=400)  # before tables are dressed and scripts are gathered
    return {"parallel_read_safe": True, "parallel_write_safe": True}
