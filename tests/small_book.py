"""A small book that Sphinx builds with some of the course's extensions."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

COLORED = re.compile(r"\x1b\[[0-9;]*m")


def build(folder: Path, *extensions: str, **settings: Any) -> tuple[str, str]:
    """What Sphinx says and warns of; the pages of the folder lie as HTML in its `_build/html` then."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    said, warned = io.StringIO(), io.StringIO()
    common: dict[str, Any] = {
        "extensions": ["myst_nb", *extensions],
        "exclude_patterns": ["_build"],
        "html_theme": "basic",
        "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath"],
    }
    if "mathematics" in extensions:
        common["html_math_renderer"] = "katex"
    made = folder / "_build"
    with docutils_namespace():  # else what one build registers is there already for the next
        app = Sphinx(
            folder,
            None,
            made / "html",
            made / "doctrees",
            "html",
            confoverrides=common | settings,
            status=said,
            warning=warned,
            freshenv="nb_execution_cache_path" not in settings,
        )
        app.build()
    return COLORED.sub("", said.getvalue()), COLORED.sub("", warned.getvalue())
