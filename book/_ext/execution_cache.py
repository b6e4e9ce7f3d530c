"""Make the cache of executed notebooks see the library that the notebooks import.

Jupyter Book re-executes a notebook when the notebook changes. A chapter's outputs also depend on flowlib, on
flowcourse and on the pinned packages, so the cache lies in a folder that is named after their content: when one of
these changes, every notebook runs again; when none does, none runs. The three most recent caches are kept, so that
switching between two branches costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

CODE = {".py", ".js", ".css", ".json"}
KEPT = 3


def digest(root: Path) -> str:
    """16 hexadecimal digits that change with the two packages' files below `root` and with requirements.txt."""
    files = sorted(file for file in root.glob("flow*/**/*") if file.suffix in CODE and file.is_file())
    sha = hashlib.sha256()
    for file in [*files, root / "requirements.txt"]:
        content = file.read_bytes()
        sha.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return sha.hexdigest()[:16]


def choose(app: Sphinx, config: Config) -> None:
    """Point the notebook cache at the folder of this state of the library, and forget the oldest ones."""
    # Kernels inherit these: a live lab draws its pictures in advance, and a page keeps no progress bars.
    os.environ |= {"FLOWLIB_STATIC": "1", "TQDM_DISABLE": "1"}
    name = digest(Path(app.srcdir))
    caches = Path(app.outdir).parent / ".jupyter_cache"
    (caches / name).mkdir(parents=True, exist_ok=True)
    (caches / name).touch()
    config.nb_execution_cache_path = str(caches / name)
    newest_first = sorted(caches.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in newest_first[KEPT:]:
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
