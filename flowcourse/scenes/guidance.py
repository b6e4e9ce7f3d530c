"""Guidance on a mixture in the plane: the guided flow misses the tilted density, and the corrected one lands on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowcourse.explorables import (
    DASHES,
    DOT,
    PLAY,
    RESET,
    Explorable,
    Panel,
    boxes_control,
    legend_entries,
    range_control,
    require,
    row,
    table,
)
from flowcourse.scenes.averaging import ARROW
from flowcourse.scenes.flow import described_field
from flowcourse.scenes.pairing import SWAP
from flowlib.data import three_arms
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import MIDPOINT

PARTICLES = 200
MOST = 8.0  # the largest scale
ZERO = 0.04  # until when CFG-Zero* stands still
SIZE: dict[str, Any] = {"wide": (354, 354), "narrow": (354, 332)}
SHADE = (
    '<path d="M1.5 1.5h21v9h-21z" fill="var(--flow-muted)" opacity=".4"/>'
    '<path d="M1.5 1.5h21v9h-21z" fill="none" stroke="currentColor" stroke-width="1.6"/>'
)


def guidance_board(
    mixture: GaussianMixture | None = None,
    classes: Mapping[str, Sequence[int]] | None = None,
    *,
    chosen: str = "1",
    scale: float = 3.0,
    time: float = 1.0,
    window: float = 3.0,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Particles of the guided flow, beside those of the corrected one, over the tilted density of one class y:

        dx = [u + w (c - u)] dt,      q_t(x) ~ p_t(x)^(1 - w) p_t(x|y)^w,
        dx = [u + w (c - u) + e^2 / 2 grad log q_t] dt + e dW,
        (log-weight)' = w (w - 1) <c - u, grad log p_t(x|y) - grad log p_t(x)>,

    on the linear path from N(0, I), with the exact velocities u of the mixture and c of the class. The corrected
    particles are drawn anew by their weights whenever fewer than half of them count (Skreta et al. 2025). The reader
    sets the scale w, the times between which it is not 1, and the rescaling of u of CFG-Zero*, taps another class, and
    plays time; the distance of either cloud to q_t is a sliced W2, beside what as many exact draws have.

    Args:
        mixture: the law of all data, in the plane; `three_arms()` if None.
        classes: for each class by name its components, every one in exactly one class; two classes or more. If None,
            every component is a class, named by its number: "0", "1", ...
        chosen: the class that is wanted at first.
        scale: w at first, in [0, 8].
        time: t at first.
        window: half the height of what is seen, in the plane's units.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a mixture that is not one of the plane.
        ValueError: classes that do not part the components, an unknown class, or a number out of its range.
    """
    described = described_field("mixture", (mixture or three_arms()).marginal_velocity(linear))
    K = len(described["weights"])
    classes = {str(k): [k] for k in range(K)} if classes is None else classes
    parted = {name: [int(k) for k in members] for name, members in classes.items()}
    require(
        len(parted) >= 2
        and all(parted.values())
        and sorted(k for members in parted.values() for k in members) == list(range(K)),
        f"two classes or more must part the {K} components, got {parted}",
    )
    require(chosen in parted, f"the class must be one of {list(parted)}, got {chosen!r}")
    require(0 <= scale <= MOST, f"scale must be in [0, {MOST:g}], got {scale}")
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    require(0 < window < math.inf, f"window must be positive, got {window}")
    if description is None:
        description = (
            f"The plane twice, each with {PARTICLES} particles that noise became, a gray shade for the tilted density "
            "of one class, and lines that hold nine tenths: solid for the tilted density, dashed for the true law of "
            "the class, dotted for the other classes. On the left the guided particles overshoot at a scale of 3: they "
            "crowd on the side of the shade that is away from the other classes, and an arrow shows how far their mean "
            "is off. On the right the corrected particles, weighted and resampled, fill the shade."
        )
    keys = "Arrow keys choose another class."
    return Explorable(
        "guidance",
        {
            "mixture": {name: value for name, value in described.items() if name != "kind"},
            "classes": parted,
            "chosen": chosen,
            "particles": PARTICLES,
            "reach": _reach(described),
            "window": window,
            "zero": ZERO,
            "reference": table(MIDPOINT),
        },
        [
            row(PLAY, range_control("t", "Time", "t", time), RESET),
            range_control("w", "Scale", "w", scale, top=MOST, digits=1),
            range_control("low", "Guided from", "t", 0.0),
            range_control("high", "until", "t", 1.0),
            boxes_control("Variant", {"CFG-Zero*": False}),
        ],
        description,
        panels=[
            [
                Panel(
                    f"{description} {keys}",
                    **SIZE,
                    name="<b>Guided</b>: <i>u</i> + <i>w</i> (<i>c</i> − <i>u</i>)",
                    drawable=True,
                ),
                Panel(
                    f"The corrected particles, the larger the heavier, over the same densities. {keys}",
                    **SIZE,
                    name="<b>Corrected</b>: weighted and resampled",
                    drawable=True,
                ),
            ]
        ],
        title=title,
        legend=legend_entries(
            ("data", DOT, "particles"),
            ("truth", SHADE, "tilted density p(x) p(y|x)ʷ"),
            ("truth", SWAP, "true class p(x|y)"),
            ("muted", DASHES, "other classes: tap one"),
            ("error", ARROW, "how far the mean is off"),
        ),
        caption=caption,
        lines=2,
    )


def _reach(described: Mapping[str, Any]) -> float:
    """Half the side of a square that holds all laws between noise and data."""
    ends = [
        abs(m[i]) + 3.5 * math.sqrt(S[i][i])
        for m, S in zip(described["means"], described["covariances"], strict=True)
        for i in (0, 1)
    ]
    return math.ceil(10 * max(3.5, *ends)) / 10
