"""Many probability paths between the same two ends: equal at t = 0 and t = 1, different between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowcourse.explorables import (
    DASHES,
    DOTS,
    LINE,
    PLAY,
    RESET,
    RING,
    SHADE,
    SQUARE,
    Explorable,
    Panel,
    encode16,
    layers_control,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
    table,
)
from flowlib.data import three_arms
from flowlib.paths import AffinePath, cosine, linear
from flowlib.solvers import RK4

SQUEEZE = AffinePath(  # everything shrinks to a small cloud first, and then spreads
    "squeeze", lambda t: t**2, lambda t: (1 - t) ** 2, lambda t: 2 * t, lambda t: 2 * t - 2
)
NOISE_FIRST = AffinePath(  # the noise has nearly left before the data have grown
    "noise first", lambda t: t, lambda t: (1 - t) ** 3, torch.ones_like, lambda t: -3 * (1 - t) ** 2
)
KNOWN = {  # what `affine` of affine.js has under the path's name, and how a list of choices names it
    linear: "Linear: α = t, σ = 1 − t",
    cosine: "Cosine: α = sin πt/2, σ = cos πt/2",
    SQUEEZE: "Squeeze: α = t², σ = (1 − t)²",
    NOISE_FIRST: "Noise first: α = t, σ = (1 − t)³",
}
MOST = 2.0  # the largest detour c


def described_paths(paths: Sequence[AffinePath]) -> dict[str, str]:
    """The paths as the browser knows them, by what a list of choices names them.

    Raises:
        ValueError: there is none.
        TypeError: the browser cannot compute one; the message names it.
    """
    if not paths:
        raise ValueError("need at least one path, got none")
    for path in paths:
        if path not in KNOWN:
            known = ", ".join(known.name for known in KNOWN)
            raise TypeError(f"the browser cannot compute the path {path.name!r}. It knows {known}")
    return {KNOWN[path]: path.name for path in paths}


def paths_explorer(
    *,
    paths: Sequence[AffinePath] = (linear, cosine, SQUEEZE, NOISE_FIRST),
    detour: float = 0.0,
    points: Tensor | None = None,
    show: Sequence[str] = ("density", "trajectories"),
    window: float = 3.2,
    time: float = 0.5,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """Infinitely many probability paths from N(0, I) to `three_arms`, all in closed form, to choose from and to play:

        x_t = alpha(t) x_1 + sigma(t) x_0 + m(t),      m(t) = c sin(pi t) (cos 2 pi t, sin 2 pi t).

    Since m(0) = m(1) = 0 the ends stay as they are. If v is the marginal velocity without detour, v(x - m, t) + m' is
    that with it. The points follow it; a strip of small pictures shows the density at five moments. The text line has
    the points' mean path length and kinetic energy, the mean of the integral over t of |v|^2: what a path costs. Every
    point ends where it ends on every other of these paths, for they differ in scale, pace and place only; one that the
    reader chooses shows its way.

    Args:
        paths: the affine paths to choose from; with one there is no choice. The text line compares with the first.
        detour: c at first, in [-2, 2].
        points: where points start at t = 0, (B, 2), sent in float16; 150 draws from N(0, I) if None.
        show: what is shown at first, of "density", "trajectories" and "arrows".
        window: half the height of what is seen, in the plane's units.
        time: the time at which the figure opens.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it.

    Raises:
        TypeError: a path that the browser cannot compute.
        ValueError: no path, points that are not (B, 2), or another value out of its range.
    """
    described = described_paths(paths)
    require(abs(detour) <= MOST, f"detour must be in [-{MOST:g}, {MOST:g}], got {detour}")
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    if points is None:
        points = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    require(
        points.ndim == 2 and points.shape[1] == 2 and len(points) > 0,
        f"points must have shape (B, 2), got {tuple(points.shape)}",
    )
    if description is None:
        description = (
            f"{len(points)} points in the plane and the density that they sample, on their way from a round cloud at "
            "t = 0 to three arms at t = 1, along a path that the reader chooses."
        )
    strip = (
        "Small pictures of the density at t = 0, 1/4, 1/2, 3/4 and 1: the first and the last are the same for every "
        "path, those between are not."
    )
    law = three_arms()
    spec = {
        "paths": described,
        "mixture": {
            "weights": law.weights.double().tolist(),
            "means": law.means.double().tolist(),
            "covariances": law.covariances.double().tolist(),
        },
        "points": encode16(points),
        "reference": table(RK4),
        "window": window,
    }
    return Explorable(
        "paths",
        spec,
        [
            row(PLAY, range_control("t", "Time", "t", time), RESET),
            select_control("path", "Path", described),
            range_control("c", "Detour", "c", detour, low=-MOST, top=MOST, digits=1),
            layers_control(show, ("density", "trajectories", "arrows")),
        ],
        description,
        panels=[
            [
                Panel(
                    f"{description} One of them stands out, with its way; arrow keys choose another.",
                    drawable=True,
                )
            ],
            [Panel(strip, wide=(720, 138), narrow=(354, 68), framed=False)],
        ],
        title=title,
        legend=legend_entries(
            ("path", DOTS, "points at t = 0, on their way, at t = 1"),
            ("path", LINE, "trajectory of the point that you tap"),
            ("source", RING, "its start"),
            ("data", SQUARE, "its end"),
            ("muted", SHADE, "density"),
            ("truth", DASHES, "detour m(t)"),
        ),
        caption=caption,
    )
