"""The referee itself: the command that runs every notebook must fail when a notebook does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import run
from tools import notebooks

CHAPTER = """\
# A chapter

```{{code-cell}}
from flowcourse import claim
```

```{{code-cell}}
{cell}
```
"""
GOOD = 'claim("one is less than two", 1.0, "<", 2.0)'
BROKEN = {
    "claim": 'claim("halving the step halves the error", 2.75, "<", 2.25)',
    "assertion": 'assert 1 > 2, "one is not more than two"',
    "exception": "1 / 0",
    "warning": 'import warnings\nwarnings.simplefilter("error")\nwarnings.warn("made an error by the chapter")',
}


def referee(folder: Path, **last_cells: str) -> subprocess.CompletedProcess[str]:
    """Run the very command of `python3 run.py test` on one notebook for each last cell."""
    files = [folder / f"{name}.ipynb" for name in last_cells]
    for file, cell in zip(files, last_cells.values(), strict=True):
        file.write_text(notebooks.notebook(CHAPTER.format(cell=cell)))
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *run.nbval(*files)],
        cwd=run.ROOT,
        env=outside,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_notebook_that_holds_passes(tmp_path: Path):
    result = referee(tmp_path, good=GOOD)
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout  # the cell that installs flowlib in Colab, the import and the claim


def test_every_notebook_that_breaks_fails_and_the_good_one_beside_them_passes(tmp_path: Path):
    result = referee(tmp_path, good=GOOD, **BROKEN)
    assert result.returncode == 1, result.stdout
    assert f"{len(BROKEN)} failed, {2 * len(BROKEN) + 3} passed" in result.stdout
    for name in BROKEN:
        assert f"{name}.ipynb::Cell 2" in result.stdout
    # nbval does not show what a failing cell printed, so a claim carries its numbers in its message.
    for words in ("halving the step halves the error", "2.75", "2.25"):
        assert words in result.stdout
