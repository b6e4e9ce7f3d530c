"""What the build knows about itself, for the page book/appendices/status.md.

The directive `status` takes one of three words. `chapters` makes the table of the notebooks: how long each ran when it
was last executed, which the execution cache remembers, and how many claims held then. `machine` says from which commit,
with which Python and on which device the book is built, and `packages` lists the versions that are installed. No date
is among them, so that building one commit twice from one cache gives one page. The tables are made when the page is
written, which it is again whenever one of these facts has changed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import directives
from execution_cache import WATCHED, installed
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util.docutils import SphinxDirective

from flowcourse.budgets import device
from flowcourse.claims import MARK

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

BUILDERS = ["jupyter-book", "sphinx", "myst-nb", "sphinx-proof", "sphinx-exercise", "sphinxcontrib-bibtex"]
KINDS = ("chapters", "machine", "packages")
Row = tuple[str, ...]


class status_table(nodes.General, nodes.Element):
    """The place of a table, whose `kind` is one of KINDS."""


class Status(SphinxDirective):
    """The directive leaves a place, and the environment remembers the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = directives.choice(self.arguments[0], KINDS)
        self.env.metadata[self.env.docname]["status"] = True
        return [status_table(kind=kind)]


def commit(root: Path) -> str:
    """The commit that is checked out at `root`, and whether files differ from it; "unknown" outside of git."""
    ask = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes"]
    try:
        asked = subprocess.run(ask, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself, or its architecture."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def machine(root: Path) -> list[Row]:
    """Commit, Python, system and the device on which the chapters run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows: list[Row] = [
        ("Commit", commit(root)),
        ("Python", platform.python_version()),
        ("System", f"{platform.system()} on {platform.machine()}"),
        ("Processor", f"{processor()}, {cores} core{'s' * (cores > 1)}"),
    ]
    if device().type == "cuda":
        import torch

        return [*rows, ("Device", torch.cuda.get_device_name())]
    return [*rows, ("Device", "the processor; no GPU is used")]


def claims(doctree: nodes.document) -> int:
    """How many claims the outputs of a notebook hold."""
    return sum(
        line.startswith(MARK)
        for block in doctree.findall(nodes.literal_block)
        if "output" in block["classes"]
        for line in block.astext().split("\n")
    )


def chapters(env: BuildEnvironment) -> list[Row]:
    """Every notebook's page, run time and claims, in the order of their names, and the sums."""
    rows: list[Row] = []
    times: list[float] = []
    held = 0
    for name in sorted(env.found_docs):
        if (data := NbMetadataCollector.get_exec_data(env, name)) is None:
            continue
        seconds, count = data["runtime"], claims(env.get_doctree(name))
        held += count
        times += [] if seconds is None else [seconds]
        rows.append((name, "unknown" if seconds is None else f"{seconds:.0f}", str(count)))
    return [*rows, ("", f"{sum(times):.0f}", str(held))]


def facts(env: BuildEnvironment) -> dict[str, list[Row]]:
    """The rows of each kind of table."""
    return {
        "chapters": chapters(env),
        "machine": machine(Path(env.srcdir)),
        "packages": [(name, installed(name)) for name in [*WATCHED, *BUILDERS]],
    }


HEADS = {
    "chapters": ("Chapter", "Seconds", "Claims that held"),
    "machine": ("Built with", ""),
    "packages": ("Package", "Version"),
}


def table(head: Row, rows: list[Row]) -> nodes.table:
    """A table whose first column may hold links; numbers are aligned at their ends."""

    def entry(cell: str | nodes.Node) -> nodes.entry:
        text = cell if isinstance(cell, str) else cell.astext()
        shown = nodes.Text(cell) if isinstance(cell, str) else cell
        classes = ["text-right"] if text.isdigit() or text in HEADS["chapters"][1:] else []
        return nodes.entry("", nodes.paragraph("", "", shown), classes=classes)

    def line(cells: Row) -> nodes.row:
        return nodes.row("", *map(entry, cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    if all(head):
        group += nodes.thead("", line(head))
    group += nodes.tbody("", *(line(row) for row in rows))
    return nodes.table("", group, classes=["colwidths-auto"])


def renew(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The pages to write again, if anything that they show has changed since they were written."""
    pages = [name for name, about in env.metadata.items() if about.get("status")]
    if not pages or getattr(env, "status_facts", None) == (now := facts(env)):
        return []
    env.status_facts = now  # type: ignore[attr-defined]
    return pages


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the tables in their places; the first column of the chapters' links to their pages."""
    for place in list(doctree.findall(status_table)):
        rows = app.env.status_facts[place["kind"]]  # type: ignore[attr-defined]
        if place["kind"] == "chapters":
            rows = [(link(app, docname, name) if name else "Together", *rest) for name, *rest in rows]
        place.replace_self(table(HEADS[place["kind"]], rows))


def link(app: Sphinx, page: str, name: str) -> nodes.reference:
    """A link from one page to another, with the title of that and, for a chapter, its number."""
    number = app.env.toc_secnumbers.get(name, {}).get("", ())
    title = ". ".join([*map(str, number[:1]), app.env.titles[name].astext()])
    address = app.builder.get_relative_uri(page, name)
    return nodes.reference("", title, refuri=address, internal=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(status_table)
    app.add_directive("status", Status)
    app.connect("env-updated", renew)
    app.connect("doctree-resolved", fill, priority=400)  # before tables are dressed (reading.py)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
