"""The rows of versions that the weekly workflow tries."""

import pytest

from tools import versions


def test_the_lowest_row_pins_the_lower_bounds_of_the_project():
    asked = versions.requirements("lowest")
    assert {bound.replace(">=", "==") for bound in versions.bounds()} <= set(asked)
    assert "torch==2.13.0" in versions.requirements("lowest", ["torch==2.13.0"])
    assert not any(
        each.startswith("torch==2.5") for each in versions.requirements("lowest", ["torch==2.13.0"])
    )


def test_every_row_asks_for_what_the_tests_need():
    for row in versions.ROWS:
        names = {versions.name_of(each) for each in versions.requirements(row)}
        assert {"pytest", "nbval", "torch", "matplotlib"} <= names
    with pytest.raises(ValueError, match="expected one of lowest, colab, newest, pinned, got 'oldest'"):
        versions.requirements("oldest")


def test_a_row_runs_the_library_and_the_chosen_notebooks():
    library, notebooks = versions.checks("colab", None, "book/0[12]-*.ipynb")
    assert {"tests/flowlib", "tests/flowcourse"} <= set(library)
    assert "tests/browser" not in library
    assert sum(each.endswith(".ipynb") for each in notebooks) == 2
    with pytest.raises(ValueError, match="no notebook is called"):
        versions.checks("colab", "notebooks", "book/99-*.ipynb")
