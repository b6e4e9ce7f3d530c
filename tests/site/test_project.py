"""What the repository says of itself: versions that fit together, a wheel that holds everything, chapters in order."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flowlib
from tools import chapters, versions

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    canonicalize_name(pin.name): pin
    for pin in map(Requirement, (ROOT / "requirements.txt").read_text().split("\n")[:-1])
}
BOUNDS = [
    Requirement(bound)
    for bound in PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["course"]
]


def version(pin: Requirement) -> str:
    """The one version that an exact pin admits."""
    found = re.fullmatch(r"==([\w.]+)", str(pin.specifier))
    assert found, f"{pin} is not an exact pin"
    return found[1]


def test_every_requirement_is_pinned_exactly():
    assert all(version(pin) for pin in PINS.values())


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_the_pins_satisfy_the_bounds(bound: Requirement):
    assert bound.specifier.contains(version(PINS[canonicalize_name(bound.name)]))


@pytest.mark.parametrize(
    "bound", [Requirement(bound) for bound in PROJECT["dependency-groups"]["test"]], ids=str
)
def test_the_pins_satisfy_what_the_tests_need(bound: Requirement):
    if canonicalize_name(bound.name) in PINS:
        assert bound.specifier.contains(version(PINS[canonicalize_name(bound.name)]))


def test_colab_meets_the_bounds_as_it_is():
    """Installing flowlib in Colab must replace nothing there, least of all torch or numpy."""
    colab = dict(pin.split("==") for pin in versions.COLAB)
    assert {"torch", "numpy"} <= set(colab)
    bounds = {bound.name: bound.specifier for bound in BOUNDS}
    assert [name for name, at in colab.items() if name in bounds and not bounds[name].contains(at)] == []
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(
        versions.COLAB_PYTHON
    )


def test_the_distribution_cannot_be_published_by_accident_or_taken_for_another():
    assert PROJECT["project"]["name"] != "flowlib"
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


def test_the_wheel_holds_every_module_and_script_of_both_packages(tmp_path: Path):
    """Colab installs a wheel, where a script that is only in the checkout would be missing."""
    copy = tmp_path / "copy"
    for package in ("flowlib", "flowcourse"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    built = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("flow_models_course-*.whl")
    held = {
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("flow") and ".dist-info/" not in name
    }
    files = [
        file
        for file in (*ROOT.glob("flowlib/**/*"), *ROOT.glob("flowcourse/**/*"))
        if file.suffix not in {".pyc", ""} and file.is_file()
    ]
    assert {file.relative_to(ROOT).as_posix() for file in files} == held


# --- citation and contents ---


def test_the_citation_agrees_with_the_book_and_the_library():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["title"] == yaml.safe_load((ROOT / "_config.yml").read_text())["title"]
    assert citation["version"] == flowlib.__version__


def test_a_chapter_stands_in_the_contents_where_its_file_says():
    """Sphinx counts the entries, while notebooks, graders and the leaderboard go by the number of the file."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    [counted] = [part["chapters"] for part in parts if part.get("numbered")]
    numbered = dict(enumerate((Path(entry["file"]).name for entry in counted), 1))
    assert numbered == chapters.stems(ROOT)


@pytest.mark.parametrize(("number", "stem"), chapters.stems(ROOT).items())
def test_the_modules_that_a_header_names_are_there(number: int, stem: str):
    for room in re.findall(r"\w+", chapters.header(number, stem, ROOT).rooms):
        assert (ROOT / "flowlib" / f"{room}.py").is_file()


# --- what the README and the guide for contributors promise ---


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str):
    text = (ROOT / name).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = [path for path in re.findall(r"`([\w./*-]+/[\w./*-]*)`", text) if not path.startswith("_build/")]
    assert linked or named
    missing = [
        path
        for path in linked + named
        if "NAME" not in path and "NN" not in path and not any(ROOT.glob(path))
    ]
    assert missing == []


@pytest.mark.parametrize("script", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda script: script.stem)
def test_what_a_benchmark_imports_of_the_project_is_there(script: Path):
    """Benchmarks need peers that are not installed here, so none is run; what they ask of us must stand."""
    missing = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in (
            "flowlib",
            "flowcourse",
            "tools",
        ):
            module = importlib.import_module(node.module)
            inside = {found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))}
            names = [alias.name for alias in node.names]
            missing += [f"{node.module}.{name}" for name in names if name not in inside | set(dir(module))]
    assert missing == []


BRITISH = re.compile(
    r"\b(towards|\w*colour\w*|\w*behaviour\w*|neighbour\w*|favour\w*|centr(e|es|ed)|grey|learnt|misspelt"
    r"|(cancel|channel|level|model|signal|travel)l(ed|ing)|anticlockwise|other way round"
    r"|(general|initial|maxim|minim|normal|optim|organ|parametr|random|real|recogn|regular|summar|visual)"
    r"is(e|es|ed|er|ing|ation))\b",
    re.IGNORECASE,
)
SPELLED = sorted(
    path
    for folder in ("book", "flowlib", "flowcourse", "tools", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".md", ".py", ".js", ".css") and "_vendor" not in path.parts
)


def test_spelling_is_american():
    texts = {path: path.read_text(encoding="utf-8") for path in SPELLED}
    found = {
        f"{path.relative_to(ROOT)}: {word[0]}" for path in texts for word in BRITISH.finditer(texts[path])
    }
    assert found == set()


def test_british_spelling_is_noticed():
    words = "towards behaviour Colours normalised minimising cancelled modelling"
    assert [word[0] for word in BRITISH.finditer(words)] == words.split()
    assert not BRITISH.search("toward color normalized otherwise promise precision modeled rounding")


def test_the_example_of_the_readme_runs():
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict = {}
        exec(example, names)
    assert names["x_1"].shape == (1000, 2)
    assert names["x_1"].isfinite().all()
