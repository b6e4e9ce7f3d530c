"""Make every page light, and whole without a network: one style sheet, one script, small fonts, nothing from afar.

The theme in book/_theme asks for `_static/book.css` and `_static/book.js` alone. When the build ends, the style sheets
are joined, fonts shrink to the characters that the pages hold, and the two files get the hash of their content into
their names, at which every page is pointed. The step reads what Sphinx and this repository wrote, never its own output,
so that it may run again over a partly rebuilt tree and does nothing where nothing changed.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fontTools import subset
from fontTools.ttLib import TTFont
from pygments.formatters import HtmlFormatter

from flowcourse.palette import DARK, LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sphinx.application import Sphinx

logging.getLogger("fontTools").setLevel(logging.WARNING)
BOOK = Path(__file__).resolve().parent.parent
KATEX = BOOK / "_vendor" / "katex"
STATIC = BOOK / "_theme" / "static"

LIKELY = set(map(chr, range(32, 127)))  # characters that every font keeps, so that most edits change no font
FACE = re.compile(r"src:url\(fonts/([\w-]+)\.woff2\)[^;}]*")  # the files of an `@font-face`, WOFF2 first


def colors() -> str:
    """The course's one table of colors as CSS variables, and the colors of code, on light pages and on dark ones."""
    css = ""
    for theme, table in (("light", LIGHT), ("dark", DARK)):
        variables = "".join(f"--flow-{role}:{color};" for role, color in table.items())
        page = f"html[data-theme={theme}]"
        code = HtmlFormatter(style=f"a11y-high-contrast-{theme}").get_token_style_defs(f"{page} .highlight")
        css += "\n".join([f"{page}{{{variables}}}", *code, ""])
    return css


def shrink(font: Path, characters: Iterable[str]) -> bytes:
    """The font as WOFF2 with only the glyphs of `characters`, its metrics unchanged."""
    options = subset.Options(flavor="woff2", layout_features=["*"], notdef_outline=True, recalc_bounds=False)
    subsetter = subset.Subsetter(options)
    with TTFont(font, recalcTimestamp=False) as content:
        subsetter.populate(text="".join(sorted(characters)))
        subsetter.subset(content)
        content.flavor = "woff2"
        buffer = io.BytesIO()
        content.save(buffer)
    return buffer.getvalue()


def fingerprint(*parts: bytes) -> str:
    """Twelve hexadecimal digits that change when any part changes."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:12]


def style_sheet(pages: list[str], static: Path) -> str:
    """Write the style sheet of these pages, with its fonts, below `static`; return its name.

    The name is a fingerprint of all that it is made from, so that the work is done once.
    """
    characters = LIKELY.union(*map(set, pages))
    sheets = [KATEX / "katex-swap.min.css", STATIC / "course.css"]
    css = "\n".join([colors(), *(sheet.read_text(encoding="utf-8") for sheet in sheets)])
    inputs = [css.encode(), "".join(sorted(characters)).encode(), Path(__file__).read_bytes()]
    name = f"book.{fingerprint(*inputs)}.css"
    if not (static / name).is_file():
        shutil.rmtree(static / "fonts", ignore_errors=True)
        (static / "fonts").mkdir(parents=True)

        def face(found: re.Match[str]) -> str:
            content = shrink(KATEX / "fonts" / f"{found[1]}.woff2", characters)
            file = f"{found[1]}.{fingerprint(content)}.woff2"
            (static / "fonts" / file).write_bytes(content)
            return f'src:url("fonts/{file}") format("woff2")'

        css = re.sub(r"/\*.*?\*/", "", FACE.sub(face, css), flags=re.DOTALL)
        (static / name).write_text(re.sub(r"\s*\n\s*", "\n", css), encoding="utf-8")
    return name


def script(static: Path) -> str:
    """Write the script under a name with its fingerprint; return that."""
    content = (STATIC / "book.js").read_bytes()
    name = f"book.{fingerprint(content)}.js"
    (static / name).write_bytes(content)
    return name


def lighten(outdir: Path) -> None:
    """Write the style sheet and the script of the book in `outdir` and point its pages at them."""
    static = outdir / "_static"
    paths = sorted(path for path in outdir.rglob("*.html") if "_static" not in path.parts)
    pages = [path.read_text(encoding="utf-8") for path in paths]
    names = {"css": style_sheet(pages, static), "js": script(static)}
    for old in static.glob("book.*.*"):
        if old.name not in names.values():
            old.unlink()
    for path, page in zip(paths, pages, strict=True):
        pointed = re.sub(r"(_static/)book(?:\.\w{12})?\.(css|js)\b", lambda m: m[1] + names[m[2]], page)
        if pointed != page:
            path.write_text(pointed, encoding="utf-8")
    (outdir / ".nojekyll").touch()  # else GitHub Pages hides every folder that starts with an underscore


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        lighten(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_theme("course", str(BOOK / "_theme"))
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it for an extension that is not here
    app.connect("build-finished", finish, priority=900)
    # Pages are written anew when the code that writes them changes.
    writers = [file.read_bytes() for file in sorted((BOOK / "_ext").glob("*.py"))]
    return {"env_version": fingerprint(*writers), "parallel_read_safe": True, "parallel_write_safe": True}
