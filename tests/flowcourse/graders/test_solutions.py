"""A solution that a chapter only shows, with its check commented out so that "Run all" prints no mark, is run here."""

import re
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
SOURCES = Path(__file__).parents[3] / "book" / "source"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^# (check\(\"(\d+\.\d+)\".*\))$", re.MULTILINE)


def cells(source):
    return [
        re.sub(r"\A---\n.*?^---\n", "", cell, flags=re.M | re.S) for cell in CELL.findall(source.read_text())
    ]


SOLUTIONS = [
    pytest.param(source, cell, id=shown[2])
    for source in sorted(SOURCES.glob("*.md"))
    for cell in cells(source)
    if cell.startswith(":tags: [solution]") and (shown := SHOWN.search(cell))
]


@pytest.mark.parametrize(("source", "cell"), SOLUTIONS)
def test_solutions_pass_their_graders(source, cell, capsys):
    names = {}
    exec(next(found for found in cells(source) if "import torch" in found), names)
    exec(SHOWN.sub(r"\1", cell.partition("\n")[2]), names)
    assert capsys.readouterr().out.startswith("✓ ")
