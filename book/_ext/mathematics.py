"""Render every formula while the book is built, so that a page needs no script to show mathematics.

KaTeX runs in a V8 engine inside this process (mini-racer). Each formula becomes HTML to look at, MathML for screen
readers, and its TeX source for copying. A formula that KaTeX does not understand is a warning that names file and
line, and so an error under `-W`. Abbreviations come from `katex_macros` in `_config.yml`.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
KATEX = Path(__file__).resolve().parent.parent / "_vendor" / "katex" / "katex.min.js"

# Exceptions cross the bridge as long texts with the whole library in them, so errors are caught on the far side.
RENDER = """
function render(tex, display, macros) {
  const options = {displayMode: display, macros: macros, output: "htmlAndMathml", strict: "error"};
  try { return JSON.stringify({html: katex.renderToString(tex, options)}); }
  catch (error) { return JSON.stringify({error: error.rawMessage || error.message, position: error.position}); }
}
"""


@cache
def engine() -> Callable[..., str]:
    """KaTeX's renderer, started when the first formula needs it."""
    from py_mini_racer import MiniRacer

    context = MiniRacer()
    context.eval(KATEX.read_text(encoding="utf-8") + RENDER)
    return lambda *arguments: context.call("render", *arguments)


@cache
def render(tex: str, display: bool = False, macros: tuple[tuple[str, str], ...] = ()) -> str:
    """The HTML and MathML of one formula. Raises ValueError with KaTeX's message if it does not parse."""
    answer = json.loads(engine()(tex, display, dict(macros)))
    if "error" in answer:
        position = answer.get("position")
        near = f", near {tex[max(0, position - 10) : position + 20]!r}" if position is not None else ""
        raise ValueError(f"{answer['error']}{near}")
    return str(answer["html"])


def one_formula(tex: str) -> str:
    r"""A display block as a single KaTeX formula: blank lines and top-level `\\` become rows of `aligned`.

    A numbered amsmath environment loses its own numbers, since the book numbers the whole block.
    """
    tex = re.sub(r"\\(begin|end)\{(equation|align|gather|alignat)\}", r"\\\1{\2*}", tex)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", tex) if part.strip()]
    rows = (r" \\" + "\n").join(paragraphs)
    environment = re.compile(r"\\begin\{([a-z]+\*?)\}(?:(?!\\begin\{).)*?\\end\{\1\}", re.DOTALL)
    outside, found = rows, 1
    while found:  # innermost environments first: what is left stands outside of all of them
        outside, found = environment.subn("", outside)
    return rf"\begin{{aligned}}{rows}\end{{aligned}}" if r"\\" in outside else rows


def formula(translator: HTML5Translator, node: nodes.Element, tex: str, display: bool) -> str:
    macros = tuple(sorted(translator.builder.config.katex_macros.items()))
    try:
        return render(tex, display, macros)
    except ValueError as error:
        logger.warning("KaTeX cannot render %r: %s", tex, error, location=node, type="katex")
        return f"<code>{html.escape(tex)}</code>"


def keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Move punctuation that touches a formula into it: browsers would let a line end in between."""
    for node in list(doctree.findall(nodes.math)):
        place = next(i for i, sibling in enumerate(node.parent.children) if sibling is node)
        before, after = node.parent.children[:place], node.parent.children[place + 1 :]
        if before and isinstance(before[-1], nodes.Text) and (mark := re.search(r"[(\[“‘]+$", before[-1])):
            node["opening"] = mark[0]
            node.parent[place - 1] = nodes.Text(before[-1][: mark.start()])
        if after and isinstance(after[0], nodes.Text) and (mark := re.match(CLOSING, after[0])):
            node["punctuation"] = mark[0]
            node.parent[place + 1] = nodes.Text(after[0][mark.end() :])


CLOSING = r"(?:[,.;:!?)\]”]|’(?!\w))+"


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    opening, mark = (rf"\text{{{node[name]}}}" if name in node else "" for name in ("opening", "punctuation"))
    tex = opening + node.astext() + mark
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate"))
    translator.body.append(keep_parentheses(formula(translator, node, tex, False)) + "</span>")
    raise nodes.SkipNode


LONGEST = 24  # characters in parentheses that no line break parts
SHORT = 9  # characters of a formula that no line break parts at all, such as t = 0


def keep_parentheses(rendered: str) -> str:
    """KaTeX lets a line break after every relation and operation: not in a short formula or pair of parentheses."""
    opening = '<span class="katex-html" aria-hidden="true">'
    before, found, rest = rendered.partition(opening)
    if not found:
        return rendered
    bases, end, level, start = [], 0, 0, 0
    for tag in re.finditer(r"<(/?)span\b[^>]*>", rest):
        if level == 0:
            start = tag.start()
        level += -1 if tag[1] else 1
        if level < 0:  # the end of `katex-html`
            break
        if level == 0:
            end = tag.end()
            bases.append(rest[start:end])
    texts = [html.unescape(re.sub("<[^>]*>|\N{ZERO WIDTH SPACE}", "", base)) for base in bases]
    short = len("".join(texts)) <= SHORT
    made, group, size, depth = "", [], 0, 0
    for number, (base, text) in enumerate(zip(bases, texts, strict=True), 1):
        group.append(base)
        size += len(text)
        depth += sum(map(text.count, "([{⟨")) - sum(map(text.count, ")]}⟩"))
        if (depth <= 0 and not short) or number == len(bases):
            whole = len(group) > 1 and (short or size <= LONGEST)
            made += f'<span class="whole">{"".join(group)}</span>' if whole else "".join(group)
            group, size, depth = [], 0, 0
    return before + found + made + rest[end:]


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    tag = "span" if isinstance(node.parent, nodes.TextElement) else "div"  # no <div> inside a <p>
    translator.body.append(translator.starttag(node, tag, "", CLASS="math display notranslate"))
    translator.body.append(f'<{tag} class="formula">')
    translator.body.append(formula(translator, node, one_formula(node.astext()), True) + f"</{tag}>")
    if node.get("number"):
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(f"</{tag}>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("katex_macros", {}, "html", [dict])
    app.connect("doctree-resolved", keep_punctuation)
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
