"""Build a chapter from its MyST text, while its notebook shows plain Markdown to Colab, JupyterLab and GitHub.

`tools/notebooks.py` keeps the MyST text of a cell whose source it made plain in the cell's metadata. Here it takes
its place again, before anything reads the notebook.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def restore(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace, in the text of a notebook that is about to be read, plain sources by those in MyST."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and "myst" in cell["metadata"]:
            cell["source"] = cell["metadata"].pop("myst")
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", restore)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
