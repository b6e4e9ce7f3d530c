"""What a reader misses in the theme: folds that need no script, an honest edit link, a description for searches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

DESCRIPTION = 155  # characters that search engines show


class fold(nodes.Admonition, nodes.Element):
    """A block behind its title: HTML's `<details>`."""


class fold_title(nodes.TextElement):
    """The title that opens it: HTML's `<summary>`."""


def visit_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "details", CLASS="admonition"))


def depart_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def visit_fold_title(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "summary", "", CLASS="admonition-title"))


def depart_fold_title(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append("</summary>\n")


def make_folds(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn every admonition, exercise or solution with the class `dropdown` into a fold."""
    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.Admonition)):
        title = next((child for child in node.children if isinstance(child, nodes.title)), None)
        if title is None or "dropdown" not in node["classes"]:
            continue
        classes = [name for name in node["classes"] if name != "dropdown"]
        folded = fold("", fold_title("", "", *title.children), ids=node["ids"], classes=classes)
        folded += [child for child in node.children if child is not title]
        node.replace_self(folded)


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
    """Give the page its description; let "edit" lead to the text a chapter is made from, not to the notebook."""
    if doctree is not None:
        context["description"] = describe(doctree)
    folder, _, name = pagename.rpartition("/")
    if not (app.srcdir / folder / "source" / f"{name}.md").is_file():
        return
    made = f"{folder}/{name}.ipynb"
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", [group]):
            if "/edit/" in button.get("url", ""):
                button["url"] = button["url"].replace(made, f"{folder}/source/{name}.md")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(fold, html=(visit_fold, depart_fold))
    app.add_node(fold_title, html=(visit_fold_title, depart_fold_title))
    app.connect("doctree-resolved", make_folds)
    app.connect("html-page-context", complete_page, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
