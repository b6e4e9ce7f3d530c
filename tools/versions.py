"""Try flowlib, flowcourse and the notebooks with other versions than the pinned ones.

    python -m tools.versions ROW [REQUIREMENT ...] [--only tests|notebooks] [--notebooks PATTERN] [--keep]

ROW is `lowest` (the lower bounds of pyproject.toml), `colab` (what Colab has), `newest` or `pinned` (the versions of
requirements.txt). A REQUIREMENT such as `torch==2.13.0` takes the place of the row's own. It makes an environment of
2 GB and more in `_build/versions/`, from the Python that runs it, and removes it at the end unless told to keep it.
On Colab's versions it first runs the cell with which Colab's notebooks begin, to see that it changes none of them, and
how long it takes.
It needs nothing but the standard library. The weekly workflow calls it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

import run
from tools.first_cell import INSTALLING

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# From Colab's own list, https://github.com/googlecolab/backend-info (pip-freeze.txt and os-info.txt, of 2026-08-19).
COLAB_PYTHON = "3.13"
COLAB = [
    "torch==2.11.0",
    "numpy==2.1.3",
    "scipy==1.16.3",
    "matplotlib==3.10.0",
    "safetensors==0.8.0",
    "tqdm==4.67.3",
    "scikit-learn==1.6.1",
    "ipywidgets==7.7.1",
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    "traitlets==5.7.1",
    "jupyter_client==7.4.9",
    "jupyter_core==5.9.1",
    "pyzmq==26.2.1",
    "tornado==6.5.7",
    "nbclient==0.10.4",
    "nbformat==5.11.1",
]
ROWS = ("lowest", "colab", "newest", "pinned")


def name_of(requirement: str) -> str:
    """The name of the package that a requirement is about, in the one spelling that package indexes compare."""
    found = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else requirement


def bounds() -> list[str]:
    """What flowlib and flowcourse need, as pyproject.toml says it."""
    needed: list[str] = PROJECT["project"]["dependencies"]
    return needed + PROJECT["project"]["optional-dependencies"]["course"]


def requirements(row: str, instead: list[str] | None = None) -> list[str]:
    """What pip is asked for in this row, beside the course itself; `instead` replaces what is about the same package.

    Raises:
        ValueError: there is no such row, or a lower bound is written in another way than `name>=version`.
    """
    asked = list(PROJECT["dependency-groups"]["test"])
    if row == "lowest":
        for bound in bounds():
            if not re.fullmatch(r"[\w.-]+>=[\w.]+", bound):
                raise ValueError(f"expected a bound such as numpy>=1.26 in pyproject.toml, got {bound!r}")
            asked.append(bound.replace(">=", "=="))
    elif row == "colab":
        asked += COLAB
    elif row == "newest":
        asked += [name_of(bound) for bound in bounds()]
    elif row == "pinned":
        ours = {name_of(each) for each in [*bounds(), *asked]}
        pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
        asked += [pin for pin in pins if name_of(pin) in ours]
    else:
        raise ValueError(f"expected one of {', '.join(ROWS)}, got {row!r}")
    replaced = {name_of(each) for each in instead or []}
    return [each for each in asked if name_of(each) not in replaced] + list(instead or [])


def checks(row: str, only: str | None, notebooks: str) -> list[list[str]]:
    """The arguments of Python that try this row.

    What belongs to building the book (tests/site) runs with the pinned versions alone. Where packages are old on
    purpose, that they use what Python has deprecated since says nothing of the course.
    """
    allowed = ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
    old = allowed if row in ("lowest", "colab") else []
    made = []
    if only != "notebooks":
        made.append([*run.tests(), "flowlib", "flowcourse", "tests/flowlib", "tests/flowcourse", *old])
    if only != "tests":
        files = sorted(ROOT.glob(notebooks))
        if not files:
            raise ValueError(f"no notebook is called {notebooks}")
        made.append([*run.nbval(*files), *old])
    return made


def installed(python: str) -> dict[str, str]:
    """The versions of the packages of an environment, by name."""
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=json"], text=True)
    return {name_of(each["name"]): each["version"] for each in json.loads(listed)}


def first_cell(python: str, asked: list[str], surroundings: dict[str, str]) -> bool:
    """Whether the first cell of a notebook on Colab, which installs the course as it was last committed, leaves as it
    was all that Colab has of what is asked for.
    """
    there = [each for each in asked if name_of(each) in {name_of(its) for its in COLAB}]
    newer = "pip>=24.1"  # older ones do not read the address of a folder
    subprocess.check_call([python, "-m", "pip", "install", "--quiet", newer, *there], env=surroundings)
    before = installed(python)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    with tempfile.TemporaryDirectory() as folder:
        cell = Path(folder, "cell.ipy")
        cell.write_text(INSTALLING.format(url=ROOT.as_uri(), commit=head), encoding="utf-8")
        began = time.monotonic()
        failed = subprocess.call(
            [python, "-m", "IPython", "--quick", str(cell)], cwd=folder, env=surroundings
        )
    print(f"The first cell took {time.monotonic() - began:.0f} s.", flush=True)
    after = installed(python)
    if "flow-models-course" not in after:
        print(f"The first cell did not install the course; its exit status is {failed}.", file=sys.stderr)
        return False
    moved = [
        f"{name} {version} -> {after.get(name)}"
        for name, version in before.items()
        if after.get(name) != version
    ]
    if moved:
        print("The first cell changed what Colab has: " + ", ".join(moved), file=sys.stderr)
    return not moved


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Try the course with other versions than the pinned ones.")
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("instead", nargs="*", metavar="REQUIREMENT", help="takes the place of the row's own")
    parser.add_argument("--only", choices=("tests", "notebooks"), help="run these alone")
    parser.add_argument("--notebooks", default="book/*.ipynb", metavar="PATTERN", help="which ones run")
    parser.add_argument("--keep", action="store_true", help="keep the environment, and use it next time")
    options = parser.parse_args(arguments)
    try:
        plan = checks(options.row, options.only, options.notebooks)
        asked = requirements(options.row, options.instead)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    folder = ROOT / "_build" / "versions" / options.row
    python = str(run.interpreter(folder))
    outside = {
        name: value for name, value in run.surroundings().items() if name not in ("PATH", "IPYTHONDIR")
    }
    surroundings = outside | {"PATH": str(Path(python).parent) + os.pathsep + os.environ.get("PATH", "")}
    try:
        if not Path(python).exists():
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        if options.row == "colab" and not first_cell(python, asked, surroundings):
            return 1
        install = [python, "-m", "pip", "install", "--quiet", *asked, "--editable", "."]
        if subprocess.call(install, cwd=ROOT, env=surroundings):
            print(f"The versions of the row {options.row} cannot be installed together.", file=sys.stderr)
            return 1
        subprocess.call([python, "-m", "pip", "list"], cwd=ROOT, env=surroundings)
        status = [subprocess.call([python, *each], cwd=ROOT, env=surroundings) for each in plan]
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return int(any(status))


if __name__ == "__main__":
    sys.exit(main())
