"""Many probability paths between the same two ends: equal at t = 0 and t = 1, different between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from flowcourse.figures.explorable import (
    DASHES,
    DOTS,
    LINE,
    PLAY,
    RESET,
    SHADE,
    Explorable,
    boxes_control,
    dots,
    encode16,
    haze,
    legend_entries,
    panel,
    polylines,
    range_control,
    rounded16,
    select_control,
    stroke,
    table,
)
from flowcourse.palette import hue
from flowlib.data import GaussianMixture, three_arms
from flowlib.paths import AffinePath, cosine, linear
from flowlib.solvers import RK4, trajectory

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
STEPS = 64
MOST = 2.0  # the largest detour c
MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


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
    point ends where it ends on every other of these paths, for they differ in scale, pace and place only.

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
    if not abs(detour) <= MOST:
        raise ValueError(f"detour must be in [-{MOST:g}, {MOST:g}], got {detour}")
    if not 0 <= time <= 1:
        raise ValueError(f"time must be in [0, 1], got {time}")
    layers = ("density", "trajectories", "arrows")
    if unknown := set(show) - set(layers):
        raise ValueError(f"show can hold {', '.join(layers)}, got {sorted(unknown)}")
    if points is None:
        points = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"points must have shape (B, 2), got {tuple(points.shape)}")
    if description is None:
        description = (
            f"{len(points)} points in the plane and the density that they sample, on their way from a round cloud at "
            "t = 0 to three arms at t = 1, along a path that the reader chooses."
        )
    strip = (
        "Small pictures of the density at t = 0, 1/4, 1/2, 3/4 and 1: the first and the last are the same for every "
        "path, those between are not."
    )
    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", time)}{RESET}</div>'
    if len(described) > 1:
        controls += f'<div class="flow-wide">{select_control("path", "Path", described)}</div>'
    controls += range_control("c", "Detour", "c", detour, low=-MOST, top=MOST, digits=1)
    controls += boxes_control("Show", {layer: layer in show for layer in layers})
    law = three_arms()
    mixture = {
        "weights": law.weights.double().tolist(),
        "means": law.means.double().tolist(),
        "covariances": law.covariances.double().tolist(),
    }
    spec = {
        "paths": described,
        "mixture": mixture,
        "points": encode16(points),
        "reference": table(RK4),
        "window": window,
    }
    left = _still(paths[0], detour, rounded16(points), show, window, time)
    w, h = round(160 * window), round(100 * window)
    still = (
        f'<svg class="flow-still" viewBox="{-w} {-h} {2 * w} {2 * h}" preserveAspectRatio="xMidYMid slice" role="img" '
        f'aria-label="{escape(description)}" fill="none" stroke-linecap="round" stroke-linejoin="round">{left}</svg>'
    )
    stage = f'<div class="flow-stage">{panel(still, description)}</div>'
    stage += f'<div class="flow-strip">{panel(_strip(paths[0], detour, window, strip), strip)}</div>'
    legend = [
        ("path", DOTS, "points at t = 0, on their way, at t = 1"),
        ("path", LINE, "trajectory"),
        ("muted", SHADE, "density"),
        ("truth", DASHES, "detour m(t)"),
    ]
    return Explorable("paths", spec, stage, controls, description, title, legend_entries(legend), caption)


def loop(c: float, t: Tensor) -> Tensor:
    """The detour m(t) = c sin(pi t) (cos 2 pi t, sin 2 pi t), (*t.shape, 2)."""
    turn = 2 * math.pi * t
    return c * torch.sin(math.pi * t)[..., None] * torch.stack([turn.cos(), turn.sin()], dim=-1)


def _log_density(
    path: AffinePath, c: float, t: float, box: tuple[float, float], size: tuple[int, int]
) -> Tensor:
    """log p_t on a grid (rows, columns) over [-box_1, box_1] x [-box_2, box_2], from the top left."""
    law: GaussianMixture = three_arms().marginal(path, t)
    (w, h), (rows, columns) = box, size
    down, across = torch.linspace(h, -h, rows).double(), torch.linspace(-w, w, columns).double()
    x = torch.cartesian_prod(down, across).flip(1) - loop(c, torch.tensor(t, dtype=torch.float64))
    return law.log_prob(x).reshape(rows, columns)


def _still(
    path: AffinePath, c: float, points: Tensor, show: Sequence[str], window: float, time: float
) -> str:
    """What the scene draws at first: SVG of the layers of the large picture."""
    drawn = ""
    w, h = 1.6 * window, window
    if "density" in show:
        box = f'x="{-100 * w:g}" y="{-100 * h:g}" width="{200 * w:g}" height="{200 * h:g}"'
        drawn += haze(_log_density(path, c, time, (w, h), (50, 80)), box)
    v = three_arms().marginal_velocity(path)
    times, states = trajectory(v, points, steps=STEPS, method=RK4)
    states = states + loop(c, times)[:, None]
    if "trajectories" in show:
        drawn += stroke("path", 1, polylines(states[:: 2 if c else 4].transpose(0, 1)), ' opacity=".4"')
    if c:
        drawn += stroke(
            "truth", 1.5, polylines(loop(c, torch.linspace(0, 1, 65))[None]), ' stroke-dasharray="2 5"'
        )
    n = min(int(time * STEPS), STEPS - 1)
    now = torch.lerp(states[n], states[n + 1], time * STEPS - n)
    role = "source" if time == 0 else "data" if time == 1 else "path"
    return drawn + stroke(role, 6, dots(now))


def _strip(path: AffinePath, c: float, window: float, alt: str) -> str:
    """The small pictures of the density, in squares of side 100 that are 8 apart."""
    drawn = ""
    for i, (t, label) in enumerate(zip(MOMENTS, ("t = 0", "¼", "½", "¾", "1"), strict=True)):
        log = _log_density(path, c, t, (window, window), (40, 40))
        place = f'x="{108 * i}" y="0" width="100" height="100"'
        drawn += haze(log, place, hue(t))
        drawn += f'<rect {place} rx="7" stroke="var(--flow-muted)" opacity=".5"/>'
        drawn += f'<text x="{108 * i + 6}" y="14" font-size="11" fill="var(--flow-muted)">{label}</text>'
    return (
        f'<svg class="flow-still" viewBox="-1 -1 534 102" role="img" aria-label="{escape(alt)}" fill="none" '
        f'font-family="system-ui, sans-serif">{drawn}</svg>'
    )
