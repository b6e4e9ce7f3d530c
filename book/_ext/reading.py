"""What readers need beyond what Sphinx writes: folds without a script, claims in a line, numbered figures, roles."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.writers.html5 import HTML5Translator

from flowcourse.claims import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

CONTENTS = {"proof-content", "exercise-content", "solution-content"}
DESCRIPTION = 155  # characters that search engines show


class fold(nodes.Admonition, nodes.Element):
    """A block behind its title: HTML's `<details>`."""


class fold_title(nodes.TextElement):
    """The title that opens it: HTML's `<summary>`."""


def visit_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    state = {"open": "open"} if node["open"] else {}
    translator.body.append(translator.starttag(node, "details", CLASS="admonition", **state))


def depart_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def visit_fold_title(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "summary", "", CLASS="admonition-title"))


def depart_fold_title(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append("</summary>\n")


def visit_citation(translator: HTML5Translator, node: nodes.Element) -> None:
    """An entry of the bibliography, whose role in docutils is one that browsers no longer know."""
    HTML5Translator.visit_citation(translator, node)
    translator.body[-1] = translator.body[-1].replace('role="doc-biblioentry"', 'role="listitem"')


def make_fold(block: nodes.Element, title: nodes.Element, classes: list[str]) -> None:
    """Replace `block` by a fold that opens at its title. Links in the title become text: the title is the button."""
    for link in list(title.findall(nodes.reference)):
        link.replace_self(link.children)
    folded = fold("", fold_title("", "", *title.children), ids=block["ids"], classes=classes)
    folded["open"] = bool(block.get("opened"))
    folded += [child for child in block.children if child is not title]
    block.parent.replace(block, folded)


def dress(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Fold what has the class `dropdown`, hidden code and claims; finish proofs; number the figures of a chapter."""
    if app.builder.format != "html":
        return
    for block in list(doctree.findall(nodes.Admonition)):
        title = next((child for child in block.children if isinstance(child, nodes.title)), None)
        if title is None and "proof" in block["classes"]:
            finish_proof(block)
        if title is not None and "dropdown" in block["classes"]:
            make_fold(block, title, [name for name in block["classes"] if name != "dropdown"])
    for table in list(doctree.findall(nodes.table)):
        if tells(table):
            put(table, *entries(table))
    for part in doctree.findall(nodes.section):  # sphinx-proof and sphinx-exercise give all contents one name
        part["ids"] = [name for name in part["ids"] if name not in CONTENTS]
        mark_second_reading(part)
    for hidden in list(doctree.findall(HideCodeCellNode)):
        words = [
            nodes.inline("", hidden["prompt_show"], classes=["to-show"]),
            nodes.inline("", hidden["prompt_hide"], classes=["to-hide"]),
        ]
        folded = fold("", fold_title("", "", *words), *hidden.children, classes=["hide", *hidden["classes"]])
        folded["open"] = False
        hidden.parent.replace(hidden, folded)
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") == "cell_code":
            fold_claims(cell)
    chapter = app.env.toc_secnumbers.get(docname, {}).get("", ())
    if chapter:
        number_figures(doctree, chapter[0])


def finish_proof(block: nodes.Element) -> None:
    """Set the word that opens a proof apart, and let it end with the sign that says so."""
    block["ids"] = [name for name in block["ids"] if not re.fullmatch(r"proof(-?\d+)?", name)]
    opening = next(block.findall(nodes.Text), None)
    if opening is not None and opening.startswith("Proof. "):
        put(opening, nodes.emphasis("", "Proof."), nodes.Text(opening.removeprefix("Proof.")))
    last = block.children[-1]
    while isinstance(last, nodes.section) and last.children:
        last = last.children[-1]
    if isinstance(last, nodes.paragraph) and not isinstance(last.children[-1], nodes.math_block):
        last += nodes.inline("", "\N{NO-BREAK SPACE}∎", classes=["qed"])
    else:
        last.parent += nodes.paragraph("", "∎", classes=["qed"])


def put(old: nodes.Node, *new: nodes.Node) -> None:
    """Put nodes in the place of this very one: `Element.replace` finds the first that is equal."""
    siblings = old.parent.children
    place = next(i for i, sibling in enumerate(siblings) if sibling is old)
    old.parent[place : place + 1] = list(new)


TELLING = 45  # characters, on average, with which the cells of four columns are too narrow to read


def tells(table: nodes.table) -> bool:
    """Whether the cells of a table are texts rather than values."""
    cells = [len(cell.astext()) for body in table.findall(nodes.tbody) for cell in body.findall(nodes.entry)]
    wide = next(table.findall(nodes.tgroup))["cols"] >= 4
    return wide and any(table.findall(nodes.thead)) and sum(cells) > TELLING * len(cells)


def entries(table: nodes.table) -> list[nodes.Element]:
    """The rows of a table below one another: what the first cell says, then each other one after its column's name."""
    head = next(table.findall(nodes.thead))
    names = [cell.astext() for cell in head.findall(nodes.entry)]
    made: list[nodes.Element] = []
    for row in next(table.findall(nodes.tbody)).findall(nodes.row):
        entry = nodes.container(classes=["entry"])
        for name, cell in zip(names, row.children, strict=True):
            for paragraph in list(cell.children):
                if isinstance(paragraph, nodes.paragraph) and name != names[0]:
                    paragraph.insert(0, [nodes.inline("", f"{name}:", classes=["label"]), nodes.Text(" ")])
                entry += paragraph
        made.append(entry)
    return made


SECOND = "Second reading:"


def mark_second_reading(section: nodes.section) -> None:
    """A section that a first reading may skip says so in its class and in a label over its heading."""
    title = next((child for child in section.children if isinstance(child, nodes.title)), None)
    opening = title and next(title.findall(nodes.Text), None)
    if opening and opening.startswith(SECOND):
        label = nodes.inline("", SECOND, classes=["label"])
        put(opening, label, nodes.Text(" " + opening.removeprefix(SECOND).lstrip()))
        section["classes"].append("second-reading")


def fold_claims(cell: nodes.Element) -> None:
    """Gather the claims of a cell behind one line, `3 claims hold`, and with them code that does nothing else.

    A line is a claim if `claim` marked it; what else a cell prints stays as it is. A cell tagged `show-claims` keeps
    them in sight.
    """
    output = next((part for part in cell.children if part.get("nb_element") == "cell_code_output"), None)
    if output is None:
        return
    claims: list[str] = []
    for block in list(output.findall(nodes.literal_block)):
        if "output" in block["classes"] and MARK in block.astext():
            lines = block.astext().split("\n")
            claims += [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
            others = "\n".join(line for line in lines if not line.startswith(MARK)).strip("\n")
            rest = nodes.literal_block(others, others, **block.attributes)
            put(block, *([rest] if others else []))
    if not claims:
        return
    text = "\n".join(claims)
    shown = nodes.literal_block(text, text, language="none", classes=["output", "stream", "claims"])
    if "tag_show-claims" in cell["classes"]:
        output += shown
        return
    only = not output.children
    output += shown
    title = fold_title("", f"{len(claims)} claim{'s hold' if len(claims) > 1 else ' holds'}")
    folded = fold("", title, classes=["hide", "claims"])
    folded["open"] = False
    if only and (code := cell.children[0]) is not output and measures(code.astext()):
        folded += cell.children
        cell.children = []
        cell += folded
    else:
        output.remove(shown)
        folded += shown
        output += folded


def measures(code: str) -> bool:
    """Whether code defines nothing that a reader would look for: no function and no class."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return False
    return not any(
        isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for one in statements
    )


FIGURE = re.compile(r'<figure\b[^>]*class="flow-(figure|explorable)\b[^>]*>.*?</figure>', re.DOTALL)


def number_figures(doctree: nodes.document, chapter: int) -> None:
    """`Figure 3.1` and so on before the captions of a chapter's figures, and on each one that can be operated."""
    count = 0

    def numbered(found: re.Match[str]) -> str:
        nonlocal count
        captioned = "<figcaption" in found[0]
        if found[1] == "figure" and not captioned:
            return found[0]
        count += 1
        name = f'id="figure-{chapter}-{count}"><span class="caption-number">Figure {chapter}.{count}</span>'
        if captioned:
            return re.sub("<figcaption([^>]*)>", rf"<figcaption\1 {name} ", found[0], count=1)
        return found[0].removesuffix("</figure>") + f"<figcaption {name}</figcaption></figure>"

    for output in list(doctree.findall(nodes.raw)):
        if "html" in output["format"] and "<figure" in (text := output.astext()):
            put(output, nodes.raw("", FIGURE.sub(numbered, text), **output.attributes))


def visible(node: nodes.Element) -> Iterator[nodes.Node]:
    """What is below `node` and not folded away."""
    for child in node.children:
        yield child
        if isinstance(child, nodes.Element) and not isinstance(child, fold | HideCodeCellNode):
            yield from visible(child)


def lines(section: nodes.section) -> int:
    """About how many lines of text a section is high in a column of 75 characters.

    The browser lays a section out when it comes near; until then the scroll bar believes this.
    """
    height = 0.0
    for node in visible(section):
        if isinstance(node, nodes.paragraph):
            height += 1.2 + len(node.astext()) / 75
        elif isinstance(node, nodes.title | fold):
            height += 2.5
        elif isinstance(node, nodes.math_block):
            height += 3.5
        elif isinstance(node, nodes.literal_block):
            height += 2 + 0.75 * node.astext().count("\n")
        elif isinstance(node, nodes.image | nodes.raw):
            height += 22
    return round(height)


def visit_section(translator: HTML5Translator, node: nodes.section) -> None:
    """A section of a chapter tells the style sheet its size (`--lines`)."""
    HTML5Translator.visit_section(translator, node)
    if translator.section_level == 2:
        tag = translator.body[-1]
        translator.body[-1] = tag.replace("<section ", f'<section style="--lines:{lines(node)}" ', 1)


MANY = 6  # columns from which on a table is set smaller and wider


def visit_table(translator: HTML5Translator, node: nodes.table) -> None:
    """A table, in a box that scrolls if it is wider than the column."""
    many = next(node.findall(nodes.tgroup))["cols"] >= MANY
    translator.body.append(f'<div class="scrolled{" many" * many}">')
    HTML5Translator.visit_table(translator, node)


def depart_table(translator: HTML5Translator, node: nodes.table) -> None:
    HTML5Translator.depart_table(translator, node)
    translator.body.append("</div>\n")


def describe(doctree: nodes.document) -> str:
    """The beginning of the page's first paragraph without formulas, to the last whole word that fits."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            prose = [part.astext() for part in paragraph.findall(nodes.Text) if not within_formula(part)]
            words = re.sub(r"\s+", " ", "".join(prose)).strip()
            if len(words) > DESCRIPTION:
                words = words[:DESCRIPTION].rsplit(" ", 1)[0] + " …"
            return words
    return ""


def within_formula(node: nodes.Node) -> bool:
    return isinstance(node.parent, nodes.math | nodes.math_block)


def complete_page(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the page its title, without a number, and its description."""
    if doctree is not None:
        context["title"] = app.env.titles[pagename].astext()
        context["description"] = describe(doctree) or app.config.html_title
        if context.get("toc"):
            context["toc"] = re.sub(
                rf'class="([^"]*)"([^>]*>)(<span class="section-number">[^<]*</span>)?{SECOND}\s*',
                rf'class="\1 second-reading"\2\3<span class="label">{SECOND}</span> ',
                context["toc"],
            )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(fold, html=(visit_fold, depart_fold))
    app.add_node(fold_title, html=(visit_fold_title, depart_fold_title))
    app.add_node(nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation))
    app.add_node(nodes.section, override=True, html=(visit_section, HTML5Translator.depart_section))
    app.add_node(nodes.table, override=True, html=(visit_table, depart_table))
    app.connect("doctree-resolved", dress)
    app.connect("html-page-context", complete_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
