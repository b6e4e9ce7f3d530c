"""The flow explorer: a plane that a field carries along, with its grid, points, trajectories and arrows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowcourse.explorables import (
    CLEAR,
    DASHES,
    DOTS,
    LINE,
    PLAY,
    RESET,
    RING,
    SHADE,
    Explorable,
    Panel,
    encode16,
    layers_control,
    legend_entries,
    range_control,
    require,
    row,
    select_control,
    stops_control,
    table,
)
from flowlib.data import MarginalVelocity
from flowlib.fields import Field, LinearField, TravelingVortex
from flowlib.paths import linear
from flowlib.solvers import EULER, MIDPOINT, RK4, Tableau

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def flow_explorer(
    fields: Mapping[str, Field],
    *,
    points: Tensor | None = None,
    methods: Sequence[Tableau] = (EULER, MIDPOINT, RK4),
    steps: int = 8,
    panels: str = "one",
    extra: str | None = None,
    show: Sequence[str] | None = None,
    window: float = 3.0,
    time: float = 0.5,
    title: str | None = None,
    caption: str | None = None,
    description: str | None = None,
) -> Explorable:
    """A plane that a field carries along: its grid, its points, their trajectories, the arrows.

    A tap drops a point and a stroke sprays a cloud of them, at the place where they are at the time shown. At time t a
    point is where `steps` steps of the method over [0, 1] bring it, on the straight line between two steps; the errors
    in the text line are those at t = 1, against RK4 with 256 steps. The figure opens at `time`, and the first Play
    starts from 0.

    Args:
        fields: the fields to choose from, by name: `LinearField`, `TravelingVortex`, or the marginal velocity of the
            linear path from N(0, I) to a Gaussian mixture in the plane. With one there is no choice.
        points: where points start at t = 0, (B, 2), sent in float16; a small crowd if None.
        methods: the solvers to choose from. With one, neither it nor the number of steps is a control.
        steps: how many equal steps the method takes from t = 0 to t = 1, at first.
        panels: "one", or "two" for the flow (grid and points) beside the field (arrows) at the same time.
        extra: None, or "swirl" for a slider c that adds c J grad log p_t to the field of a mixture, with J the
            rotation by 90 degrees: other trajectories, the same densities.
        show: what is shown at first, of "grid", "arrows", "trajectories" and, for mixtures, "density".
        window: half the height of what is seen, in the plane's units.
        time: the time at which the figure opens.
        title, caption: texts above and below.
        description: what there is to see, for who cannot see it; made from the other arguments if None.

    Raises:
        TypeError: a field that the browser cannot compute; the message names it.
        ValueError: no fields or methods, points that are not (B, 2), or an unknown option.
    """
    require(
        bool(fields) and bool(methods),
        f"a flow explorer needs a field and a method, got {len(fields)} and {len(methods)}",
    )
    require(panels in ("one", "two"), f'panels must be "one" or "two", got {panels!r}')
    require_steps(steps)
    require(0 <= time <= 1, f"time must be in [0, 1], got {time}")
    if points is None:
        points = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    require(
        points.ndim == 2 and points.shape[1] == 2,
        f"points must have shape (B, 2), got {tuple(points.shape)}",
    )
    described = {name: described_field(name, field) for name, field in fields.items()}
    mixtures = [name for name, d in described.items() if d["kind"] == "mixture"]
    require(extra in (None, "swirl"), f'extra must be None or "swirl", got {extra!r}')
    others = sorted(set(fields) - set(mixtures))
    require(not extra or not others, f"a swirl can be added to mixtures' fields only, not to {others}")
    layers = ("grid", "arrows", "trajectories", *["density"] * bool(mixtures))
    if show is None:
        show = ("density", "trajectories") if extra else layers[:3]

    two = panels == "two"
    choice = not two and len(methods) > 1
    controls = [
        row(PLAY, range_control("t", "Time", "t", time), RESET, CLEAR),
        select_control("field", "Field", fields),
    ]
    if len(methods) > 1:
        controls.append(select_control("method", "Solver", [m.name for m in methods]))
        controls.append(stops_control("steps", "Steps", "N", sorted({*STEPS, steps}), steps))
    if extra:
        controls.append(range_control("swirl", "Swirl", "c", 0.0, low=-2.0, top=2.0, digits=1))
    if not two:
        controls.append(layers_control(show, layers))
    if description is None:
        description = (
            f"{len(points)} points and a square grid in the plane, carried from t = 0 to t = 1 by a velocity field "
            f"({', '.join(fields)}), with its arrows, at any time t that the reader chooses."
        )
    hint = "Arrow keys move a crosshair, Enter drops a point, Delete clears all points."
    square: dict[str, Any] = {"wide": (354, 354), "narrow": (354, 272)}
    seen = [Panel(f"{description} {hint}", drawable=True)]
    legend = [
        ("source", RING, "start x₀"),
        ("path", LINE, "trajectory"),
        ("path", DOTS, "point at time t, from 0 to 1"),
    ]
    if two:
        seen = [
            Panel(
                f"The flow. {description} {hint}",
                **square,
                name="<b>Flow</b> <i>ϕ<sub>t</sub></i>: where they are",
                drawable=True,
            ),
            Panel(
                "The velocity field at the same time, as arrows.",
                **square,
                name="<b>Vector field</b> <i>v<sub>t</sub></i>: where they are going",
            ),
        ]
        legend = [("path", DOTS, "points at t = 0, on their way, at t = 1")]
    if extra:
        legend.append(("muted", SHADE, "density"))
    if choice:
        legend.append(("truth", DASHES, "exact, where the solver is visibly off"))
    spec = {
        "fields": described,
        "methods": {m.name: table(m) for m in methods},
        "reference": table(RK4),
        "steps": steps,
        "window": window,
        "points": encode16(points),
    }
    return Explorable(
        "flow",
        spec,
        controls,
        description,
        panels=[seen],
        title=title,
        legend=legend_entries(*legend),
        caption=caption,
    )


def require_steps(steps: object) -> None:
    """Raise ValueError unless it is a number of steps that a scene takes."""
    good = isinstance(steps, int) and not isinstance(steps, bool) and 1 <= steps <= 64
    require(good, f"steps must be a whole number from 1 to 64, got {steps!r}")


def described_field(name: str, field: Field) -> dict[str, Any]:
    """The field as `fields` of numerics.js takes it."""
    if isinstance(field, LinearField) and len(field.matrix) == 2:
        return {"kind": "linear", "matrix": field.matrix}
    if isinstance(field, TravelingVortex):
        return {"kind": "vortex", **vars(field)}
    if isinstance(field, MarginalVelocity) and field.path == linear and field.source is None:
        mixture = field.mixture
        K, d = mixture.means.shape
        if d == 2:
            S = mixture.covariances.double()
            full = S if S.ndim == 3 else torch.diag_embed(S.reshape(K, -1).expand(K, 2))
            return {
                "kind": "mixture",
                "weights": mixture.weights.double().tolist(),
                "means": mixture.means.double().tolist(),
                "covariances": full.tolist(),
            }
    raise TypeError(
        f"the browser cannot compute the field {name!r}: {field!r}. It knows LinearFields of the plane, "
        "TravelingVortex, and GaussianMixture(...).marginal_velocity(linear) in the plane with the source N(0, I)"
    )
