"""What readers need beyond what Sphinx writes: folds without a script, visible claims, honest links and roles."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.writers.html5 import HTML5Translator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

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
    """Fold what has the class `dropdown`; mark the output of `claim`; set the word that opens a proof apart."""
    if app.builder.format != "html":
        return
    for block in list(doctree.findall(nodes.Admonition)):
        title = next((child for child in block.children if isinstance(child, nodes.title)), None)
        if title is not None and "dropdown" in block["classes"]:
            make_fold(block, title, [name for name in block["classes"] if name != "dropdown"])
        elif title is None and "proof" in block["classes"]:
            opening = next(block.findall(nodes.Text), None)
            if opening is not None and opening.startswith("Proof. "):
                rest = nodes.Text(opening.removeprefix("Proof."))
                opening.parent.replace(opening, [nodes.emphasis("", "Proof."), rest])
    for output in doctree.findall(nodes.literal_block):
        if "output" in output["classes"] and output.astext().startswith("✓"):
            output["classes"].append("claims")


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


def visit_table(translator: HTML5Translator, node: nodes.table) -> None:
    """A table, in a box that scrolls if it is wider than the column."""
    translator.body.append('<div class="scrolled">')
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


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(fold, html=(visit_fold, depart_fold))
    app.add_node(fold_title, html=(visit_fold_title, depart_fold_title))
    app.add_node(nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation))
    app.add_node(nodes.section, override=True, html=(visit_section, HTML5Translator.depart_section))
    app.add_node(nodes.table, override=True, html=(visit_table, depart_table))
    app.connect("doctree-resolved", dress)
    app.connect("html-page-context", complete_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
