"""What the repository says of itself: versions that fit together, thin workflows, a wheel that holds everything."""

from __future__ import annotations

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
WORKFLOWS = {
    file.name: yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "workflows").glob("*.yml")
}
COLAB = {
    entry["name"]: entry
    for entry in WORKFLOWS["weekly.yml"]["jobs"]["versions"]["strategy"]["matrix"]["include"]
}["colab"]


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
    colab = dict(re.findall(r"(\S+)~=(\S+)", COLAB["packages"]))
    assert {"torch", "numpy"} <= set(colab)
    bounds = {bound.name: bound.specifier for bound in BOUNDS}
    assert [name for name, at in colab.items() if not bounds[name].contains(at)] == []
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(COLAB["python"])


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
    files = [file for file in ROOT.glob("flow*/**/*") if file.suffix not in {".pyc", ""} and file.is_file()]
    assert {file.relative_to(ROOT).as_posix() for file in files} == held


# --- citation and workflows ---


def test_the_citation_agrees_with_the_book_and_the_library():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["title"] == yaml.safe_load((ROOT / "_config.yml").read_text())["title"]
    assert citation["version"] == flowlib.__version__


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_is_complete_and_thin(name: str):
    workflow = WORKFLOWS[name]
    assert {"name", True, "permissions", "jobs"} <= set(workflow)  # YAML 1.1 reads the key `on` as true
    ours = re.compile(
        r"bash \.ci/run|python3 run\.py \w+|pip install .*|python \$\(python -c \"import run; .*\)"
    )
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 60
        steps = job["steps"]
        assert all(("uses" in step) != ("run" in step) for step in steps)
        assert [step["run"] for step in steps if "run" in step and not ours.fullmatch(step["run"])] == []


def test_the_three_workflows_are_there():
    assert set(WORKFLOWS) == {"tests.yml", "pages.yml", "weekly.yml"}


def test_continuous_integration_skips_nothing_and_runs_the_documented_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in script
    assert script.index("export REQUIRE_BROWSER=1") < script.index("\npython3 run.py test\n")
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], capture_output=True).returncode == 0


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


def test_the_example_of_the_readme_runs():
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict = {}
        exec(example, names)
    assert names["x_1"].shape == (1000, 2)
    assert names["x_1"].isfinite().all()
