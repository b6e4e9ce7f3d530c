"""How long a notebook ran when it was last executed, from the cache of executed notebooks (execution_cache.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from jupyter_cache import get_cache

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def seconds(notebook: Path, cache: Path) -> float | None:
    """The wall time of the whole run of `notebook` as it is now, in seconds; None if `cache` does not know it.

    The folder of a cache is named after the library, the packages and the seeds, so that a time that is found belongs
    to this state of all of them. As many notebooks ran side by side as there were processors, each on its share.
    """
    if not (cache / "global.db").exists():  # asking would make it
        return None
    try:
        record = get_cache(cache).match_cache_notebook(nbformat.read(notebook, as_version=4))
    except KeyError:
        return None
    return (record.data or {}).get("execution_seconds")


def runtimes(app: Sphinx) -> dict[str, float]:
    """The seconds that each notebook of the book took, by the name of its document; those never run are left out.

    The cache is complete once every document has been read: ask from the event `env-updated` on.
    """
    cache = Path(app.config.nb_execution_cache_path)
    files = {name: Path(app.env.doc2path(name)) for name in sorted(app.env.found_docs)}
    times = {name: seconds(file, cache) for name, file in files.items() if file.suffix == ".ipynb"}
    return {name: time for name, time in times.items() if time is not None}
