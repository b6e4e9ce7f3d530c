"""What a frame of each figure that plays costs the main thread of a browser.

    python benchmarks/frames.py [chapter ...]

Opens the built book (`python run.py book`) in headless Chromium and plays every explorable from t = 0 to its end, frame
by frame, a few times over. The table gives the thread's own time for one: a busy machine changes it little. All
of it counts, also the drawing of pixels, which a phone leaves to its graphics processor; of it the scripts' part.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path

from playwright.sync_api import CDPSession, sync_playwright

BOOK = Path(__file__).resolve().parents[1] / "_build" / "html" / "book"
PLAY = """async (figure) => {
  const play = figure.querySelector(".flow-play");
  figure.flow.set("t", 0);
  play.click();
  let frames = 0;
  for (; play.dataset.playing; frames++) await new Promise(requestAnimationFrame);
  return frames;
}"""


def spent(devtools: CDPSession) -> tuple[float, float]:
    """Milliseconds that the main thread has worked, and those in scripts."""
    found = {entry["name"]: entry["value"] for entry in devtools.send("Performance.getMetrics")["metrics"]}
    return 1e3 * found["TaskDuration"], 1e3 * found["ScriptDuration"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="beginnings of their pages' names; all if none")
    parser.add_argument("--rounds", type=int, default=2, help="the least of so many counts")
    options = parser.parse_args()
    print(f"{'page':36s} {'scene':12s} {'ms a frame':>10s} {'scripts':>8s}")
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for file in sorted(BOOK.glob("[0-9]*.html")):
            if options.chapters and not file.name.startswith(tuple(options.chapters)):
                continue
            page = browser.new_page(viewport={"width": 1280, "height": 844})
            page.goto(file.as_uri())
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            for figure in page.locator(".flow-explorable:has([data-control=t])").all():
                figure.scroll_into_view_if_needed()
                figure.and_(page.locator("[data-live]")).wait_for()
                counts = []
                for _ in range(options.rounds + 1):  # the first fills caches
                    before = spent(devtools)
                    shown = figure.evaluate(PLAY)
                    counts.append([(b - a) / shown for a, b in zip(before, spent(devtools), strict=True)])
                whole, scripts = min(counts[1:])
                name = figure.get_attribute("data-flow-explorable")
                name = re.search(rf'mount\("{name}", flowcourse\.(\w+)', page.content())[1]
                print(f"{file.stem:36s} {name:12s} {whole:10.1f} {scripts:8.1f}", flush=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
