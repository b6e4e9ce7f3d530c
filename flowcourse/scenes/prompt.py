"""The prompt box: write a prompt, and the text-to-image model of chapter 10 draws it in the page, without a kernel."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import matplotlib.pyplot as plt
from torch import Tensor

from flowcourse import assets
from flowcourse.explorables import (
    RESET,
    Control,
    Explorable,
    boxes_control,
    range_control,
    require,
    select_control,
    stops_control,
)
from flowcourse.shapes import parts, shipped
from flowcourse.shapes.captions import judge, parse
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import draw, landings, moments
from flowcourse.shapes.noise import SEEDS, later, noise
from flowcourse.shapes.scenes import SIDE
from flowcourse.shapes.tables import tables

COUNTS = (1, 4, 9)
LABELS = {"student": "student", "model": "guided teacher"}
STEPS = {"student": [1, 2, 3, 4, 6, 8], "model": [5, 10, 20, 40]}
TIMES = {"student": landings, "model": moments}
USUAL = {"student": 4, "model": 20}
SCALES = 8.0  # the largest guidance
ABSENT = "The trained weights do not come with this copy of the course yet: there is nothing to draw with."
FIXED = "Drawn in advance for one prompt: where scripts run, your browser draws any other."
TRIES = (
    "a red circle left of a small blue square",
    "three green rings on black",
    "a purple circle",
    "a cross and a ring",
)


def prompt_box(
    caption: str = TRIES[0],
    *,
    seed: int = 0,
    count: int = 4,
    scale: float = 4.0,
    tries: Sequence[str] = TRIES,
    title: str | None = None,
    label: str | None = None,
    description: str | None = None,
) -> Explorable:
    """The reader writes a prompt of the grammar, presses Draw, and watches pictures come out of noise, step by step.

    A worker in the page computes what `draw` computes in Python, with the same weights: seed s and n pictures are
    draw(net, autoencoder, [str(parse(caption))] * n, x_0=noise(s, n), again=later(s, n)). The exact detector judges
    every picture. The
    weights are loaded when the reader asks for them. The student draws if it is shipped, else the guided teacher; with
    both the reader has the choice. A slider leads back through the steps. Without weights the figure says so.

    Args:
        caption: the prompt at first.
        seed: of the noise, at first.
        count: of pictures at first: 1, 4 or 9.
        scale: of the teacher's guidance, at first.
        tries: prompts to try.
        title, label: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        ValueError: a caption that is none of the grammar, or a number out of its range.
    """
    for text in (caption, *tries):
        parse(text)
    require(0 <= seed < SEEDS and seed == int(seed), f"seed must be whole and in [0, 2^32), got {seed}")
    require(count in COUNTS, f"count must be one of {COUNTS}, got {count}")
    require(0 <= scale <= SCALES, f"scale must be in [0, {SCALES:g}], got {scale}")
    loaded = parts.available()
    methods = [name for name in LABELS if name in loaded] or ["model"]
    method = methods[0]
    said = "All is computed in your browser; the weights are loaded once." if loaded else ABSENT
    if description is None:
        description = (
            f"{count} small pictures of colored shapes that this chapter's model draws for the prompt “{caption}”, "
            "and under each what the exact detector sees in it and whether that is what the prompt asks for. A text "
            "field takes other prompts, which the page draws without a kernel."
        )
    return Explorable(
        "prompt",
        {
            "tables": tables(),
            "folder": parts.FOLDER,
            "parts": {name: {"file": one.file, "size": one.size} for name, one in loaded.items()},
            "methods": {
                name: {
                    "label": LABELS[name],
                    "steps": USUAL[name],
                    "moments": {str(n): TIMES[name](n).tolist() for n in STEPS[name]},
                }
                for name in methods
            },
            "method": method,
            "count": count,
            "seeds": SEEDS - 1,
            "said": said,
        },
        [
            Control("", {"prompt": caption}),  # which stands above the pictures
            select_control("method", "Method", [LABELS[name] for name in methods]),
            stops_control("steps", "Steps", "N", STEPS[method], USUAL[method]),
            range_control("scale", "Guidance", "w", scale, top=SCALES, digits=1),
            _counts(count),
            _seed(seed),
            boxes_control("Draw", {"as I type": False}),
            stops_control("at", "Look back at step", "n", range(USUAL[method] + 1), USUAL[method]),
            RESET,
        ],
        description,
        stage=_ask(caption, tries, said) + _stage(caption, seed, count, scale, method, bool(loaded)),
        title=title,
        caption=label,
        lines=0,
    )


def _ask(caption: str, tries: Sequence[str], said: str) -> str:
    """The text field and what belongs to it."""
    buttons = "".join(
        f'<button type="button" data-try="{escape(text)}">{escape(text)}</button>' for text in tries
    )
    return (
        '<div class="flow-ask"><label>Prompt<input type="text" data-control="prompt" '
        f'value="{escape(caption)}" maxlength="120" autocomplete="off" autocapitalize="off" spellcheck="false" '
        'enterkeyhint="go"></label><button type="button" class="flow-draw">Draw</button>'
        '<button type="button" class="flow-stop" disabled>Stop</button></div>'
        '<div class="flow-words"><p class="flow-note"></p>'
        '<div class="flow-chips" role="group" aria-label="Words that may follow"></div></div>'
        f'<div class="flow-tries" role="group" aria-label="Prompts to try">Try {buttons}</div>'
        f'<p class="flow-readout" style="--flow-lines:1" aria-hidden="true">{escape(said)}</p>'
    )


def _counts(count: int) -> Control:
    items = "".join(f"<option{' selected' * (n == count)}>{n}</option>" for n in COUNTS)
    html = (
        '<div class="flow-control"><label><span>Pictures</span>'
        f'<select data-control="count">{items}</select></label></div>'
    )
    return Control(html, {"count": str(count)})


def _seed(seed: int) -> Control:
    html = (
        '<div class="flow-control"><label><span>Seed</span><input type="number" data-control="seed" min="0" '
        f'max="{SEEDS - 1}" step="1" value="{seed}" inputmode="numeric"></label></div>'
    )
    return Control(html, {"seed": str(seed)})


def _stage(caption: str, seed: int, count: int, scale: float, method: str, there: bool) -> str:
    """The style sheet, and the pictures that stand there first: those of the first prompt, or a sentence why not."""
    sheet = f"<style data-flow>{assets.text('scenes/prompt.css')}</style>"
    if not there:
        return f'{sheet}<ul class="flow-pictures" data-count="1"></ul><p class="flow-fixed">{ABSENT}</p>'
    net = shipped.student() if method == "student" else shipped.model()
    demand = parse(caption)
    pictures = draw(
        net, shipped.autoencoder(), [str(demand)] * count,
        guidance_scale=scale, steps=USUAL[method], x_0=noise(seed, count), again=later(seed, count),
    )  # fmt: skip
    items = ""
    for k, (picture, scene) in enumerate(zip(pictures, detect(pictures), strict=True), start=1):
        verdict = "✓ obeyed" if (obeyed := judge(scene, demand)) else "✗ not obeyed"
        items += (
            f'<li><img src="{_png(picture)}" width="{SIDE}" height="{SIDE}" alt="Picture {k} of “{escape(caption)}”">'
            f'<p data-obeyed="{str(obeyed).lower()}"><strong>{verdict}</strong></p></li>'
        )
    return (
        f'{sheet}<ul class="flow-pictures" data-count="{count}">{items}</ul><p class="flow-fixed">{FIXED}</p>'
    )


def _png(picture: Tensor) -> str:
    """A picture (3, h, w) of colors from 0 to 1 as the address of a PNG."""
    buffer = io.BytesIO()
    pixels = (255 * picture).round().byte().permute(1, 2, 0).contiguous().numpy()
    plt.imsave(buffer, pixels, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
