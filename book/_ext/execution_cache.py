"""Make the cache of executed notebooks see the library that the notebooks import.

Jupyter Book re-executes a notebook when the notebook changes. A chapter's outputs also depend on flowlib and
flowcourse with their data, on the versions of Python and of the packages that are installed, which need not be the
pinned ones, and on the seeds' shift. So the cache lies in a folder that is named after all of these: when one of them
changes, every notebook runs again; when none does, none runs. The three most recent caches are kept, so that switching
between two branches costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

# What computes, draws and runs the chapters. The builder's own packages are not among them: they read the outputs.
WATCHED = [
    "torch",
    "numpy",
    "scipy",
    "POT",
    "safetensors",
    "tqdm",
    "matplotlib",
    "scikit-learn",
    "ipywidgets",
    "ipython",
    "ipykernel",
    "nbclient",
    "mini-racer",
]
KEPT = 3


def installed(name: str) -> str:
    """The version of a package that is installed, or "none"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def digest(root: Path) -> str:
    """16 hexadecimal digits that change with all that a notebook's outputs depend on, beside the notebook itself.

    These are every file of the two packages below `root` (code and data, whatever their names end in),
    requirements.txt, the versions that are installed, and the shift of the seeds.
    """
    files = sorted(
        file
        for package in ("flowlib", "flowcourse")
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    )
    sha = hashlib.sha256()
    for file in [*files, root / "requirements.txt"]:
        content = file.read_bytes()
        sha.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    versions = [platform.python_version(), *(f"{name} {installed(name)}" for name in WATCHED)]
    sha.update("\n".join([*versions, os.environ.get("FLOW_SEED_SHIFT", "")]).encode())
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
