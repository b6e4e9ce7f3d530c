"""Scripts and style sheets that outputs carry along, from the `.js` and `.css` files beside the Python that shows them.

An output is whole by itself: it holds every script and style sheet that it needs, each in an element with the
attribute `data-flow`. Where many outputs share a page, as in the book, a build step keeps the first of equal ones.

Scripts are written as ES modules. Inside a page there is no file to import from, so each becomes a classic script
that takes its imports from the object `flowcourse` and leaves its exports there, under the name of its file, and its
own text, as a function, in `flowcourse.sources`: a worker can be made of that (explorables/background.js).
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from importlib.resources import files

from flowcourse.palette import css

IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:function\*?|const|class) (\w+))", re.MULTILINE)


def text(path: str) -> str:
    """A file of this package, such as "scenes/flow.js"."""
    return (files("flowcourse") / path).read_text(encoding="utf-8")


def style(path: str, scope: str) -> str:
    """The element with a style sheet, and with the palette for what the selector `scope` finds."""
    return f"<style data-flow>{css(scope)}\n{text(path)}</style>"


@cache
def modules(path: str) -> tuple[str, ...]:
    """The paths of a module and of all that it imports, each after what it needs."""
    imported = [
        posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        for _, name in IMPORT.findall(text(path))
    ]
    return tuple(dict.fromkeys([*(one for name in imported for one in modules(name)), path]))


@cache
def linked(path: str) -> str:
    """A module as a classic script."""

    def taken(found: re.Match[str]) -> str:
        return f"const {{{found[1]}}} = flowcourse.{posixpath.basename(found[2]).removesuffix('.js')};\n"

    source = text(path)
    exports = ", ".join(EXPORT.findall(source))
    body = EXPORT.sub("", IMPORT.sub(taken, source))
    name = posixpath.basename(path).removesuffix(".js")
    opening = '"use strict";\nconst flowcourse = (globalThis.flowcourse ??= {});'
    kept = f"(flowcourse.sources ??= {{}}).{name} = source;"
    return f"(function source() {{\n{opening}\n{body}\nflowcourse.{name} = {{ {exports} }};\n{kept}\n}})();"


def scripts(*paths: str, then: str = "") -> str:
    """The elements with these modules and all that they import, and with what is to run then."""
    wanted = dict.fromkeys(one for path in paths for one in modules(path))
    sources = [*map(linked, wanted), *filter(None, [then])]
    return "".join(f"<script data-flow>{source}</script>" for source in sources)
