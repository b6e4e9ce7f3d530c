"""Each script and style sheet of the chapters' outputs once a page.

An output of flowcourse is whole by itself, as Colab and JupyterLab need it: it carries its scripts and style sheets in
elements with the attribute `data-flow` (flowcourse/assets.py). A page of the book holds many outputs. Of equal
elements it keeps the first, and its scripts wait until the page stands, in their order: an inline module does, over
http and from a file.

What a prompt box loads when its reader asks for it is written beside the pages (flowcourse/shapes/parts.py), and so are
large pictures within figures, so that a page stands before they have come; small ones cost less than a request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

from flowcourse.shapes import parts

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PART = re.compile(rf'"file":"((?:{"|".join(parts.NAMES)})-[0-9a-f]{{12}}\.js)"')
PICTURES = "_static/pictures"  # in the book
LARGE = 3000  # characters from which a picture is worth a file
PICTURE = re.compile(rf'"data:image/png;base64,\s*([A-Za-z0-9+/=\s]{{{LARGE},}})"')
BESIDE = re.compile(rf'"[./]*{PICTURES}/([0-9a-f]{{16}}\.png)"')
CARRIED = re.compile(r"<(style|script) data-flow>.*?</\1>", re.DOTALL)


def kept_once(outputs: list[str]) -> list[str]:
    """The HTML of a page's outputs, in order, without the carried elements that an earlier one has."""
    seen: set[str] = set()

    def keep(found: re.Match[str]) -> str:
        if found[0] in seen:
            return ""
        seen.add(found[0])
        return (
            found[0].replace("<script data-flow>", '<script type="module">', 1).replace(" data-flow>", ">", 1)
        )

    return [CARRIED.sub(keep, output) for output in outputs]


def beside(html: str, out: Path, docname: str) -> str:
    """The HTML of an output on a page, with its large pictures in files below `out`, named by their content."""

    def write(found: re.Match[str]) -> str:
        content = base64.b64decode(found[1])
        file = Path(PICTURES, f"{hashlib.sha256(content).hexdigest()[:16]}.png")
        if not (out / file).is_file():
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(content)
        return f'"{"../" * docname.count("/")}{file.as_posix()}"'

    return PICTURE.sub(write, html)


def once_a_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Rewrite the outputs of one page."""
    if app.builder.format != "html":
        return
    outputs = [node for node in doctree.findall(nodes.raw) if "data-flow" in node.astext()]
    for node, text in zip(outputs, kept_once([node.astext() for node in outputs]), strict=True):
        node.replace_self(nodes.raw("", beside(text, Path(app.outdir), docname), format="html"))


def hand_over(app: Sphinx, error: Exception | None) -> None:
    """Write the parts that the pages ask for, and no others; of pictures too only these stay."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = [page.read_text(encoding="utf-8") for page in out.rglob("*.html") if "_static" not in page.parts]
    shown = {file for page in pages for file in BESIDE.findall(page)}
    for old in (out / PICTURES).glob("*.png"):
        if old.name not in shown:
            old.unlink()
    wanted = {file for page in pages for file in PART.findall(page)}
    folder = out / parts.FOLDER
    for old in folder.glob("*.js"):
        if old.name not in wanted:
            old.unlink()
    if wanted:
        parts.write(folder, wanted)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", once_a_page)
    app.connect("build-finished", hand_over)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
