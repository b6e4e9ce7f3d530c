"""Make the page book/appendices/leaderboard.md from the numbers in flowcourse/leaderboard.json.

    python -m tools.leaderboard            write the page
    python -m tools.leaderboard --check    write nothing; exit with 1 if the page is out of step

The numbers come from benchmarks/leaderboard.py, which trains every method again.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tools.chapters import stems

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "flowcourse" / "leaderboard.json"
PAGE = ROOT / "book" / "appendices" / "leaderboard.md"
QUALITY = {
    "W2 at 1": "$W_2$ after 1",
    "W2 at 2": "2",
    "W2 at 4": "4",
    "W2 at 8": "8 evaluations",
    "W2 at adaptive": "adaptive",
}
REST = {
    "nfe": "Evaluations",
    "nll": "NLL",
    "npe": "NPE",
    "field_error": "Field error",
    "seconds": "Seconds",
}
HEAD = """\
# Leaderboard

One network, a perceptron with three hidden layers of 64, learns two tasks with every method of chapters 4 to 8:
fresh batches of 256 points, {steps:,} steps of Adam, seeds {seeds}. Each number is the mean over the seeds, with the
standard deviation behind ±. The learning rate was chosen once, with the linear path; no other method was tuned.
The methods of chapter 8 see no fresh batches: they draw theirs from a pool of 65,536 pairs, made by a trained teacher
or, where pairs are *large*, by 16 exact couplings of 4,096 points, which for these were drawn balanced, as below.
The row *reference recipe* is the linear path trained as {{cite:t}}`tong2024improving` publish it for the plane: Adam at
$10^{{-3}}$ without decay or averaged weights, and points blurred by noise of size 0.1. That blur is another path: its
*field error* still compares with the exact field of the unblurred one.

- $W_2$ is the exact 2-Wasserstein distance between {points:,} samples and as many points of the target, in the plane's
  units. Both are drawn *balanced* (as many points on each piece of a law), which cuts the noise of the comparison to
  less than half; such numbers are lower than those of independent draws and do not compare with published ones. With
  1, 2, 4 or 8 evaluations of the field the solver is Euler's; *adaptive* is Dormand-Prince at tolerance $10^{{-5}}$,
  and *Evaluations* says how many it took.
- The **floor** is the $W_2$ between two balanced samples of the target itself: what a perfect model scores on average.
  Single runs scatter about it, and points that are spread more evenly than random ones score below it.
- NLL is the mean negative log-likelihood of the target's points, in nats. It exceeds the entropy by
  $\\mathrm{{KL}}(\\text{{target}} \\,\\|\\, \\text{{model}})$.
- NPE is the normalized path energy {{cite:p}}`tong2024improving`: by what fraction
  $\\int \\mathbb{{E}} |v|^2 \\mathrm{{d}}t$ misses $W_2^2(p_0, p_1)$, the cheapest flow's energy.
- *Field error* is the relative root mean square distance to the exact marginal velocity of the method's path, where
  that is known.
- *Seconds* is the processor time of training, teachers and couplings included, on {machine}. Rows of chapters 7 and 8
  were timed beside other work, which may have added a fifth.

`python -m benchmarks.leaderboard` trains and measures everything again.
"""


def read() -> dict[str, Any]:
    """The recorded numbers."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def spread(values: list[float], digits: int) -> str:
    """`0.283 ± 0.004` in one piece: the mean and the standard deviation."""
    if len(set(values)) == 1:
        return f"{values[0]:.{digits}f}"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{mean:.{digits}f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{deviation:.{digits}f}"


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """One table of these measures, in which some row has something to say."""
    measured = [{"seconds": r["seconds"], **r["scores"]} for r in rows]
    columns = {c: words for c, words in columns.items() if any(c in m for m in measured)}
    chapters = stems(ROOT)
    text = f"| Method | {' | '.join(columns.values())} |\n|---|{'---|' * len(columns)}\n"
    for r, m in zip(rows, measured, strict=True):
        method = f"[{r['method']}](../{chapters[r['chapter']]}.ipynb)"
        digits = {"nfe": 0, "seconds": 0}
        cells = [spread(m[c], digits.get(c, 3)) if any(m.get(c, ())) else "" for c in columns]
        text += f"| {method} | {' | '.join(cells)} |\n"
    return text


def page(data: dict[str, Any]) -> str:
    """The page as Markdown."""
    seeds = data["rows"][0]["seeds"]
    text = HEAD.format(
        steps=max(r["steps"] for r in data["rows"]),
        seeds=", ".join(map(str, seeds[:-1])) + f" and {seeds[-1]}",
        points=2048,
        machine=data["machine"],
    )
    for task, known in data["tasks"].items():
        rows = [r for r in data["rows"] if r["task"] == task]
        entropy = f" Entropy of the target: {known['entropy']:.4f} nats." if known["entropy"] else ""
        text += f"\n## {task[0].upper()}{task[1:]}\n\nFloor of $W_2$: {known['floor']:.3f}.{entropy}\n\n"
        text += table(rows, QUALITY) + "\n" + table(rows, REST)
    return text


def write(data: dict[str, Any]) -> None:
    """Keep the numbers, and make the page of them."""
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(data), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page(read()):
            return 0
        print(
            f"{PAGE.relative_to(ROOT).as_posix()} is out of step: run python -m tools.leaderboard",
            file=sys.stderr,
        )
        return 1
    PAGE.write_text(page(read()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
