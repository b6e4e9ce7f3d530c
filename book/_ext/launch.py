"""Where a page's buttons lead: to the repository the book is built from, if it is on GitHub, else there are none.

The address stands in no file. Colab opens the notebooks of the branch `colab`, which .github/workflows/pages.yml makes
of every published state; "Suggest edit" leads to the branch that is published.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tools.origin import on_github, origin

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config


def locate(app: Sphinx, config: Config) -> None:
    url = origin()
    config.html_theme_options["repository_url"] = url if on_github(url) else ""
    config.html_theme_options["repository_branch"] = os.environ.get("GITHUB_REF_NAME", "main")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", locate, priority=900)  # after Jupyter Book has put its own example there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
