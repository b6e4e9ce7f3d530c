"""Make every page light, and whole without a network: one style sheet, one script, small fonts, nothing from afar.

As the theme builds it, a page loads eleven style sheets and twenty scripts, 1.5 MB of icons among them. Here

- the templates in book/_templates ask for `_static/book.css` and `_static/book.js` only;
- when the build ends, the style sheets are joined, what no page can use is left out (purge.py), fonts shrink to
  the characters that the pages hold, and the wanted scripts are joined;
- the two files get the hash of their content into their names, and every page is pointed at those names.

The step reads what Sphinx and this repository wrote, never its own output, so it may run again over a partly
rebuilt tree and does nothing where nothing changed. A style sheet or script of an extension that is neither used
nor refused below is a warning: a new dependency cannot make the pages heavy in silence.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging as python_logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fontTools import subset
from fontTools.ttLib import TTFont
from purge import Rule, Words, purge
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)
python_logging.getLogger("fontTools").setLevel(python_logging.WARNING)
BOOK = Path(__file__).resolve().parent.parent

# In the order in which they apply, first found below book/, then below the built book, where `_static` has the
# copies of themes and extensions.
STYLE_SHEETS = [
    "_static/pygments.css",
    "_static/sphinx-design.min.css",
    "_vendor/katex/katex-swap.min.css",
    "_static/course.css",
]
SCRIPTS = ["_static/book.js"]
SEARCH = [
    "documentation_options.js",
    "doctools.js",
    "sphinx_highlight.js",
    "searchtools.js",
    "language_data.js",
]
# The theme's frame is replaced by book/_templates; Thebe wants a server and a CDN; folds need no script (reading.py).
REFUSED = [
    "sphinx-book-theme.css",
    "sphinx-book-theme.js",
    "clipboard.min.js",
    "copybutton.css",
    "copybutton.js",
    "design-tabs.js",
    "exercise.css",
    "mystnb.*.css",
    "proof.css",
    "sphinx-thebe.css",
    "sphinx-thebe.js",
    "togglebutton.css",
    "togglebutton.js",
]
DEAD = ["images", "locales", "scripts", "styles", "vendor"]  # 9 MB that the theme copies and no page loads
LIKELY = set(map(chr, range(32, 127)))  # characters that every font keeps, so that most edits change no font


def found(name: str, static_of: Path) -> list[Path]:
    """The files called `name`, a pattern: the repository's own if there are any, else those in the built book."""
    files = sorted(BOOK.glob(name)) or sorted(static_of.glob(name))
    if not files:
        raise FileNotFoundError(f"{name} is neither below {BOOK} nor below {static_of}")
    return files


def palette() -> str:
    """flowlib's one table of colors as CSS variables."""
    path = BOOK.parent / "flowcourse" / "palette.py"  # by path: `import flowlib` would load torch
    spec = importlib.util.spec_from_file_location("palette", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)

    def variables(colors: dict[str, str]) -> str:
        return "".join(f"--flow-{role}:{color};" for role, color in colors.items())

    light, dark = variables(table.LIGHT), variables(table.DARK)
    return f"html{{{light}}}html[data-theme=dark]{{{dark}}}"


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


def own_fonts(rules: list[Rule], characters: set[str], target: Path) -> None:
    """Point every `@font-face` at a shrunk copy of the vendored WOFF2, below `target`."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    vendored = {file.name: file for file in (BOOK / "_vendor").rglob("*.woff2")}
    for rule in rules:
        if not rule.head.startswith("@font-face"):
            continue
        face = dict(rule.declarations or ())
        name = Path(re.findall(r"[^(\"']+\.woff2", face["src"])[0]).name
        content = shrink(vendored[name], characters)
        file = target / f"{Path(name).stem}.{fingerprint(content)}.woff2"
        file.write_bytes(content)
        face |= {"src": f'url("fonts/{file.name}") format("woff2")', "font-display": "swap"}
        rule.declarations = list(face.items())


def fingerprint(*parts: bytes) -> str:
    """Twelve hexadecimal digits that change when any part changes."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:12]


def style_sheet(pages: list[str], scripts: list[str], outdir: Path) -> str:
    """Write the joined style sheet for these pages and scripts, with its fonts; return its name.

    The name is a fingerprint of all that it is made from, so that the work is done once.
    """
    words = Words()
    for page in pages:
        words.read_page(page)
    for script in scripts:
        words.read_script(script)
    characters = LIKELY.union(*map(set, pages))
    css = palette() + "".join(
        file.read_text(encoding="utf-8") for name in STYLE_SHEETS for file in found(name, outdir)
    )
    code = [Path(__file__).read_bytes(), (BOOK / "_ext" / "purge.py").read_bytes()]
    inputs = [css, repr(words.sorted()), "".join(sorted(characters))]
    static = outdir / "_static"
    name = f"book.{fingerprint(*code, *(part.encode() for part in inputs))}.css"
    if not (static / name).is_file():
        rules = purge(css, words)
        own_fonts(rules, characters, static / "fonts")
        (static / name).write_text("".join(rule.css() for rule in rules), encoding="utf-8")
    return name


def script(scripts: list[str], outdir: Path) -> str:
    """Write the joined script; return its name."""
    content = ";\n".join(scripts)
    name = f"book.{fingerprint(content.encode())}.js"
    (outdir / "_static" / name).write_text(content, encoding="utf-8")
    return name


def lighten(outdir: Path) -> None:
    """Write the joined files of the book in `outdir` and point its pages at them."""
    paths = sorted(path for path in outdir.rglob("*.html") if "_static" not in path.parts)
    pages = [path.read_text(encoding="utf-8") for path in paths]
    scripts = [file.read_text(encoding="utf-8") for name in SCRIPTS for file in found(name, outdir)]
    search = [(outdir / "_static" / name).read_text(encoding="utf-8") for name in SEARCH]
    names = {"css": style_sheet(pages, scripts + search, outdir), "js": script(scripts, outdir)}
    for old in (outdir / "_static").glob("book.*.*"):
        if old.name not in names.values():
            old.unlink()
    for path, page in zip(paths, pages, strict=True):
        pointed = re.sub(r"(_static/)book(?:\.\w{12})?\.(css|js)\b", lambda m: m[1] + names[m[2]], page)
        if pointed != page:
            path.write_text(pointed, encoding="utf-8")
    for folder in DEAD:
        shutil.rmtree(outdir / "_static" / folder, ignore_errors=True)
    (outdir / ".nojekyll").touch()  # else GitHub Pages hides every folder that starts with an underscore


def name_strangers(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Warn about files that an extension wants on a page and that nobody here has decided about."""
    known = [Path(name).name for name in STYLE_SHEETS + SCRIPTS] + SEARCH + REFUSED
    for asset in [*context["css_files"], *context["script_files"]]:
        filename = str(getattr(asset, "filename", asset) or "").split("?")[0]
        if filename and not any(Path(filename).match(name) for name in known):
            logger.warning("book/_ext/light_pages.py neither joins nor refuses %s", filename, once=True)


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        lighten(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", name_strangers, priority=900)
    app.connect("build-finished", finish, priority=900)
    extensions = [file.read_bytes() for file in sorted((BOOK / "_ext").glob("*.py"))]
    return {
        "env_version": fingerprint(
            *extensions
        ),  # pages are written anew when the code that writes them changes
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
