"""A network that learns in the page to carry noise into the reader's own drawing."""

from __future__ import annotations

from flowcourse.explorables import (
    DASHES,
    DOT,
    LINE,
    PLAY,
    RESET,
    SHADE,
    SQUARE,
    Control,
    Explorable,
    Panel,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
    table,
)
from flowlib.solvers import DOPRI5

SHAPES = ("Spiral", "Two moons", "Ring", "Face", "Letter S")  # the outlines of outlines.js
OWN = "Your drawing"
SAMPLERS = {"10 steps": 10, "1 step": 1, "adaptive": 0}  # Euler steps; 0 lets Dormand-Prince choose
WINDOW = 3.4  # half of what is seen of the plane
WIDTH = 0.07  # standard deviation about a drawn line
SAMPLES = 400
FRAME = '<path d="M7 1h10v10H7z" fill="none" stroke="currentColor" stroke-width="2"/>'
TIP = '<path d="M1 6h20M16 1l6 5-6 5" fill="none" stroke="currentColor" stroke-width="2"/>'


def trainer_board(
    *,
    steps: int = 2000,
    seed: int = 1,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """A perceptron that learns flow matching in the reader's browser, from the shape that the reader draws.

        min_v E |v((1 - t) x_0 + t x_1, t) - (x_1 - x_0)|^2,    x_0 from N(0, I), x_1 from the drawing, t uniform,

    by Adam on batches of 128 pairs, drawn independently or re-paired at the least cost within the batch. Its samples
    walk with one Euler step, ten, or adaptive ones; when training stops, their distance W2 to the drawing is told
    beside that between two samples of the drawing.

    Args:
        steps: of Adam, for each press of the button; the rate falls along half a cosine.
        seed: of the first weights, the samples and the batches.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        ValueError: less than one step.
    """
    require(type(steps) is int and steps >= 1, f"steps must be a whole number of at least 1, got {steps!r}")
    if description is None:
        description = (
            "A plane with a cloud of noise and a drawn shape. While a network learns, its field of arrows turns "
            "toward the shape, and the samples, which start as the noise, come to lie on it."
        )
    keys = (
        "Arrow keys move a pen, with Shift by larger steps; Enter puts it down or lifts it, Delete clears the "
        "drawing."
    )
    chart = (
        "Above, the loss against steps of training: it falls and then stays above zero. Below, after training, bars "
        "of the distance from samples to the shape for 10 steps, 1 step and adaptive steps, beside a dotted line, the "
        "distance between two samples of the shape."
    )
    return Explorable(
        "trainer",
        {
            "window": WINDOW,
            "width": WIDTH,
            "samples": SAMPLES,
            "samplers": SAMPLERS,
            "own": OWN,
            "steps": steps,
            "seed": seed,
            "tableau": {**table(DOPRI5), "error": DOPRI5.error, "order": DOPRI5.order},
        },
        [
            row(
                Control('<button type="button" class="flow-go" data-press="train">Train</button>'),
                Control('<button type="button" data-press="draw">Draw</button>'),
                select_control("shape", "Shape", (*SHAPES, OWN)),
            ),
            row(PLAY, range_control("t", "Time", "t", 0), RESET),
            row(
                select_control("pairs", "Pairs", ("independent", "optimal")),
                select_control("sampler", "Samples walk with", SAMPLERS),
            ),
        ],
        description,
        panels=[
            [
                Panel(
                    f"{description} {keys}",
                    wide=(400, 400),
                    narrow=(354, 354),
                    name="<b>Noise, field, shape</b>: draw on it",
                    drawable=True,
                ),
                Panel(chart, wide=(308, 400), narrow=(354, 320), name="<b>How well it does</b>", later=True),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("data", SHADE, "your shape, the data x₁"),
            ("source", DOT, "noise x₀, on its way to x₁"),
            ("model", TIP, "learned field"),
            ("path", LINE, "paths of some samples"),
            ("path", FRAME, "independent pairs"),
            ("path", SQUARE, "optimal pairs"),
            ("truth", DASHES, "noise floor"),
        ),
        caption=caption,
    )
