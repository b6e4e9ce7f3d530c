"""How long the network of "Train a flow in twenty minutes" learns in the page until its samples lie on the shape.

    python -m benchmarks.trainer            # ten minutes on two cores; CHROMIUM names a browser if none is found

Opens the figure in headless Chromium, alone on a page, and presses Train with fewer and with more steps than the page
takes. For each shape, pairs and number of steps it prints the seconds from the press to the measurement, the steps a
second, and, for 10 Euler steps and for adaptive ones, the distance W2 of 400 samples to the shape in units of that
between two samples of the shape, the floor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from flowcourse.scenes import trainer_board

STEPS = (500, 1000, 2000, 4000)
SHAPES = ("Spiral", "Two moons", "Letter S")
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
STATE = "document.querySelector('[data-flow-explorable]').flow.state()"


def trained(page: Page, shape: str, pairs: str) -> dict[str, Any]:
    """Seconds and distances of one training from the first weights."""
    page.reload()
    page.wait_for_function(f"() => {STATE}")
    page.select_option("select[data-control=shape]", shape)
    page.select_option("select[data-control=pairs]", pairs)
    began = time.perf_counter()
    page.click("[data-press=train]")
    page.wait_for_function(
        f"pairs => {{ const s = {STATE}; return !s.training && s.results[pairs]; }}",
        arg=pairs,
        timeout=600_000,
        polling=20,
    )
    seconds = time.perf_counter() - began
    state = page.evaluate(STATE)
    return {"seconds": seconds, "steps": state["total"], **state["results"][pairs]}


def main() -> None:
    print("| shape | pairs | steps | seconds | steps a second | W2 / floor, 10 steps | adaptive |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        for steps in STEPS:
            file = Path(folder, f"{steps}.html")
            file.write_text(f"<!doctype html><meta charset=utf-8>{trainer_board(steps=steps)._repr_html_()}")
            page.goto(file.as_uri())
            for shape in SHAPES:
                for pairs in ("independent", "optimal"):
                    found = trained(page, shape, pairs)
                    ten, _, adaptive = (distance / found["floor"] for distance in found["distances"])
                    rate = found["steps"] / found["seconds"]
                    row = (
                        shape,
                        pairs,
                        steps,
                        f"{found['seconds']:.1f}",
                        f"{rate:.0f}",
                        f"{ten:.2f}",
                        f"{adaptive:.2f}",
                    )
                    print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
