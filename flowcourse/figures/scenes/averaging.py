"""How conditional velocities are averaged: a point of space-time, and what every datum asks of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from flowcourse.figures.explorable import (
    DOT,
    LINE,
    PLAY,
    RESET,
    RING,
    SHADE,
    Explorable,
    boxes_control,
    dots,
    haze,
    legend_entries,
    panel,
    polylines,
    range_control,
    select_control,
    stroke,
)
from flowcourse.figures.scenes.paths import described_paths
from flowlib.paths import AffinePath, cosine, linear

MOST = 12  # data
LAST = 0.99  # the latest time: at t = 1 the weights are singular
END = 0.995  # where trajectories stop
WIDE = 1.17  # what is seen of t, with the bars of the weights beyond 1
ARROW = '<path d="M0 6h15" stroke="currentColor" stroke-width="3.5"/><path d="M24 6L13 0.5v11z" fill="currentColor"/>'


def averaging_explorer(
    data: Tensor | Sequence[float],
    *,
    paths: Sequence[AffinePath] = (linear, cosine),
    point: tuple[float, float] = (0.5, 0.0),
    show: Sequence[str] = ("conditional paths", "marginal trajectory", "density"),
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """What is averaged at a point (t, x), for the source N(0, 1) on the line and finitely many data y_i:

        u_i = alpha' y_i + sigma' (x - alpha y_i) / sigma,      w_i ~ exp(-(x - alpha y_i)^2 / (2 sigma^2)).

    Every datum has one conditional path through (t, x), with the velocity u_i and the posterior weight w_i there. The
    mean sum_i w_i u_i is the marginal velocity, and the reader drags the point. Time carries it along the trajectory of
    the mean, from where the reader put it; the text line gives the standard deviation of the u_i under the weights,
    which is the error that no regression on conditional velocities can avoid at (t, x).

    Args:
        data: y_1, ..., y_n on the line, at most 12.
        paths: the affine paths to choose from; with one there is no choice.
        point: (t, x) at first, with t in [0, 0.99].
        show: what is shown at first, of "conditional paths", "marginal trajectory" and "density" (of p_t, against its
            peak at each t).
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a path that the browser cannot compute.
        ValueError: no path, no data, too many, or data that are not finite or not on the line; a point outside of the
            picture; or something unknown to show.
    """
    y = torch.as_tensor(data).detach().cpu().double()
    if y.ndim != 1 or not 1 <= len(y) <= MOST or not y.isfinite().all():
        raise ValueError(f"data must be 1 to {MOST} finite numbers, got shape {tuple(y.shape)}: {y.tolist()}")
    described = described_paths(paths)
    layers = ("conditional paths", "marginal trajectory", "density")
    if unknown := set(show) - set(layers):
        raise ValueError(f"show can hold {', '.join(layers)}, got {sorted(unknown)}")
    reach = max(3.0, float((y.abs().max() + 0.5).ceil()))
    t, x = map(float, point)
    if not (0 <= t <= LAST and abs(x) <= reach):
        raise ValueError(
            f"the point must have t in [0, {LAST}] and x in [-{reach:g}, {reach:g}], got {(t, x)}"
        )
    if description is None:
        listed = ", ".join(f"{value:g}" for value in y.tolist())
        description = (
            f"Time t runs to the right from 0 to {LAST} and position x upwards. Through a point that the reader moves "
            f"pass the conditional paths to the data {listed}, thicker where they weigh more, an arrow for their mean "
            "velocity, and the marginal trajectory; bars at the right give the weights."
        )
    controls = f'<div class="flow-time">{PLAY}{range_control("t", "Time", "t", t, top=LAST)}{RESET}</div>'
    controls += range_control("x", "Position", "x", x, low=-reach, top=reach)
    if len(described) > 1:
        controls += f'<div class="flow-wide">{select_control("path", "Path", described)}</div>'
    controls += boxes_control("Show", {layer: layer in show for layer in layers})
    legend = [
        ("path", LINE, "conditional paths, as thick as they weigh"),
        ("source", RING, "noise x₀"),
        ("data", DOT, "data y and weights w"),
        ("truth", ARROW, "mean velocity"),
        ("truth", LINE, "marginal trajectory"),
        ("muted", SHADE, "density"),
    ]
    still = _still(y, paths[0], t, x, reach, show, description)
    hint = "Arrow keys move the point."
    return Explorable(
        "averaging",
        {"data": y.tolist(), "paths": described, "reach": reach, "last": LAST},
        f'<div class="flow-stage">{panel(still, f"{description} {hint}", drawable=True)}</div>',
        controls,
        description,
        title,
        legend_entries(legend),
        caption,
    )


def _average(path: AffinePath, y: Tensor, t: float, x: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """At x (..., 1) and time t: the noises z_i = (x - alpha y_i) / sigma, the weights and the velocities (..., n)."""
    alpha, sigma, alpha_dot, sigma_dot = path.coefficients(t, y[:1])
    z = (x - alpha * y) / sigma
    return z, (-z.square() / 2).softmax(-1), alpha_dot * y + sigma_dot * z


def marginal_trajectory(path: AffinePath, y: Tensor, t: float, x: float, times: np.ndarray) -> np.ndarray:
    """Where the trajectory through (t, x) is at ascending times below 1, by an implicit method: the field is stiff."""

    def mean(s: float, state: np.ndarray) -> np.ndarray:
        _, w, u = _average(path, y, s, float(state[0]))
        return np.array([(w * u).sum().item()])

    def solve(some: np.ndarray) -> np.ndarray:
        if not len(some):
            return np.empty(0)
        solution = solve_ivp(mean, (t, some[-1]), [x], method="Radau", t_eval=some, rtol=1e-6, atol=1e-8)
        return np.asarray(solution.y[0])

    return np.concatenate([solve(times[times < t][::-1])[::-1], solve(times[times >= t])])


def _still(
    y: Tensor, path: AffinePath, t: float, x: float, reach: float, show: Sequence[str], description: str
) -> str:
    """What the scene draws at first, in SVG without the margin that the panel has, which it fills. Time is stretched so
    that units along and across are alike where the panel has its usual shape.
    """
    long, top = 3.2 * reach / WIDE, round(100 * reach)
    z, w, u = _average(path, y, t, x)
    order = w.argsort().tolist()

    def curve(times: Tensor, x: Tensor) -> str:
        return polylines(torch.stack([long * times, x], dim=1)[None])

    inside = ""
    if "density" in show:
        heights = torch.linspace(reach, -reach, 80, dtype=torch.float64)[:, None]
        columns = []
        for s in (torch.arange(80) + 0.5) / 80 * END:
            log = (-_average(path, y, float(s), heights)[0].square() / 2).logsumexp(1)
            columns.append(log - log.max())
        box = f'x="0" y="{-top}" width="{100 * long * END:.0f}" height="{2 * top}"'
        inside += haze(torch.stack(columns, dim=1), box)
    if "conditional paths" in show:
        times = torch.linspace(0, 1, 33, dtype=torch.float64)
        alpha, sigma, *_ = path.coefficients(times, times)
        for i in order:
            width, faint = 1 + 3 * w[i].item(), f' opacity="{0.2 + 0.8 * w[i] ** 0.5:.2f}"'
            inside += stroke("path", round(width, 1), curve(times, alpha * y[i] + sigma * z[i]), faint)
    if "marginal trajectory" in show:
        times = 1 - torch.logspace(0, math.log10(1 - END), 64, dtype=torch.float64)
        states = marginal_trajectory(path, y, t, x, times.numpy())
        inside += stroke("truth", 2.4, curve(times, torch.from_numpy(states)))
    end = round(100 * long)
    drawn = f'<svg aria-hidden="true" x="0" y="{-top}" width="{end}" height="{2 * top}" '
    drawn += f'viewBox="0 {-top} {end} {2 * top}" preserveAspectRatio="none">{inside}</svg>'  # cut off at its edges
    drawn += stroke("ink", 1, f"M0 {-top}V{top}H{end}V{-top}", ' opacity=".6"')
    for i in order:
        if "conditional paths" in show and abs(z[i]) < reach:
            size, noise = 9 + 6 * w[i].item() ** 0.5, dots(torch.tensor([[0, z[i]]]))
            drawn += stroke("source", round(size, 1), noise) + stroke("page", round(size - 4, 1), noise)
        bar = f"M{end + 30} {-100 * y[i]:.0f}h{w[i] * (100 * long * (WIDE - 1) - 50):.0f}"
        drawn += stroke("data", 8, bar, ' stroke-linecap="butt"')
        drawn += stroke("data", 10, dots(torch.tensor([[long, y[i]]])))
    stretch = min(0.2, 1 - t)
    if "conditional paths" in show:
        for i in order:
            if w[i] > 0.005:
                faint = f' opacity="{0.35 + 0.65 * w[i]:.2f}"'
                drawn += _arrow("path", 1.5 + 2 * w[i].item(), long, t, x, stretch, float(u[i]), faint)
    drawn += _arrow("truth", 3.5, long, t, x, stretch, float((w * u).sum()))
    drawn += stroke("ink", 15, dots(torch.tensor([[long * t, x]])))
    return (
        f'<svg class="flow-still flow-inset" viewBox="0 {-top} {100 * long * WIDE:.0f} {2 * top}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(description)}" fill="none" '
        f'stroke-linecap="round" stroke-linejoin="round">{drawn}</svg>'
    )


def _arrow(
    role: str, width: float, long: float, t: float, x: float, stretch: float, u: float, more: str = ""
) -> str:
    """The way of the velocity u in a stretch of time, from (t, x)."""
    way = torch.tensor([long * stretch, stretch * u], dtype=torch.float64)
    start = torch.tensor([long * t, x], dtype=torch.float64)
    tip = start + way
    back = way / way.norm() * 0.05 * (1 + width)
    side = 0.45 * torch.stack([-back[1], back[0]])
    neck = tip - back
    (x_1, y_1), (x_2, y_2), (x_3, y_3) = (
        (100 * p * torch.tensor([1, -1])).round().long().tolist() for p in (tip, neck + side, neck - side)
    )
    head = f'<path fill="var(--flow-{role})" d="M{x_1} {y_1}L{x_2} {y_2}L{x_3} {y_3}z"{more}/>'
    return stroke(role, round(width, 1), polylines(torch.stack([start, neck])[None]), more) + head
