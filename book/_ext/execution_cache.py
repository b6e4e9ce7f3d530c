"""Make the cache of executed notebooks see the library that the notebooks import.

Jupyter Book re-executes a notebook when the notebook changes. A chapter's outputs also depend on flowlib and
flowcourse with their data, on the versions of Python and of the packages that are installed, which need not be the
pinned ones, and on the seeds' shift. So the cache lies in a folder that is named after all of these: when one of them
changes, every notebook runs again; when none does, none runs. The three most recent caches are kept, so that switching
between two branches costs nothing.

Jupyter Book runs one notebook after the other. Those that the cache lacks are run before it asks for them, as many at
once as there are processors; one that fails here is left to Jupyter Book, which runs it again and says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.environment import BuildEnvironment

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

logger = logging.getLogger(__name__)


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


def run_ahead(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Run the notebooks among the documents to be read that are not in the cache, side by side, and put them there."""
    if app.config.nb_execution_mode != "cache":
        return
    cache, waiting = get_cache(app.config.nb_execution_cache_path), []
    for name in sorted(names):
        file = Path(env.doc2path(name))
        if file.suffix == ".ipynb":
            notebook = nbformat.read(file, as_version=4)
            try:
                cache.match_cache_notebook(notebook)
            except KeyError:
                waiting.append((file, notebook))
    if not waiting:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(cores, len(waiting))
    threads = {"env": os.environ | {"OMP_NUM_THREADS": str(cores // at_once)}}

    async def run(file: Path, notebook: nbformat.NotebookNode, turn: asyncio.Semaphore) -> None:
        place = {"metadata": {"path": str(file.parent)}}
        # times of cells would be written into the notebook, which the cache would then not know again
        options = {"timeout": app.config.nb_execution_timeout, "record_timing": False}
        client = NotebookClient(notebook, resources=place, **options)
        async with turn:
            began = time.time()
            try:
                await client.async_execute(**threads)
            except (CellExecutionError, CellTimeoutError, DeadKernelError):
                return
        seconds = {"execution_seconds": time.time() - began}
        made = CacheBundleIn(notebook, str(file), data=seconds)
        cache.cache_notebook_bundle(made, check_validity=False, overwrite=True)
        logger.info("ran %s in %.0f s", file.name, seconds["execution_seconds"])

    async def run_all() -> None:
        turn = asyncio.Semaphore(at_once)
        await asyncio.gather(*(run(file, notebook, turn) for file, notebook in waiting))

    asyncio.run(run_all())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose)
    app.connect("env-before-read-docs", run_ahead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
