"""Flow maps: from any time to any other in one evaluation, what they obey, and how MeanFlow learns one (chapter 8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import jvp
from torch.nn.functional import mse_loss, silu

from flowlib import checks
from flowlib.couplings import Coupling, independent
from flowlib.fields import Field, expand_time
from flowlib.nets import SeededLinear
from flowlib.solvers import DOPRI5, odeint

# Any callable u(x, s, t) with points x (B, *D) at times s, (B,) or a scalar like t: their average velocity up to t.
AverageVelocity = Callable[..., Tensor]
# Any callable (n, *, generator=None, device=None) -> (s, t), both (n,), with s <= t
Intervals = Callable[..., tuple[Tensor, Tensor]]


def average_velocity(
    v: Field,
    x: Tensor,
    s: Tensor | float,
    t: Tensor | float,
    *,
    cond: dict[str, Any] | None = None,
    **options: Any,
) -> Tensor:
    r"""The mean velocity on the way from time s to time t of the points that are at x at time s,

        u(x, s, t) = (phi_{s -> t}(x) - x) / (t - s) = 1 / (t - s) int_s^t v(phi_{s -> r}(x), r) dr,
        u(x, s, s) = v(x, s).

    What is solved is dw/dr = v(x + (t - s) w, s + r (t - s)) for r from 0 to 1 and w(0) = 0: then u = w(1), with no
    division, so that s = t is no exception and all derivatives of u in x, s and t are those of the solver's steps.

    Args:
        v: the field, called with times (B,).
        x: points (B, *D), in float32 or float64.
        s, t: times, scalars or (B,), one for each point; t < s is the way back.
        cond: passed on to the field.
        **options: of `odeint`; if there are none, DOPRI5 with the tolerance 1e-5 in float32 and 1e-9 in float64.

    >>> x = torch.tensor([[1.0], [2.0]])
    >>> average_velocity(lambda x, t: x, x, 0.0, torch.tensor([1.0, 0.0])).T  # (e - 1) and v(2)
    tensor([[1.7183, 2.0000]])
    """
    checks.precise("x", x)
    s, t = (torch.as_tensor(time, dtype=x.dtype, device=x.device).expand(len(x)) for time in (s, t))
    span = expand_time(t - s, x)
    if not options:
        tolerance = 1e-9 if x.dtype == torch.float64 else 1e-5
        options = {"method": DOPRI5, "rtol": tolerance, "atol": tolerance}

    def slope(w: Tensor, r: Tensor) -> Tensor:
        return v(x + span * w, torch.lerp(s, t, r), **(cond or {}))

    return odeint(slope, torch.zeros_like(x), **options)


def flow_map(
    v: Field,
    x: Tensor,
    s: Tensor | float,
    t: Tensor | float,
    *,
    cond: dict[str, Any] | None = None,
    **options: Any,
) -> Tensor:
    """Where the points that are at x at times s are at times t, phi_{s -> t}(x), like x; see `average_velocity`.

    >>> flow_map(lambda x, t: x, torch.ones(2, 1), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).T
    tensor([[2.7183, 0.3679]])
    """
    u = average_velocity(v, x, s, t, cond=cond, **options)
    return x + expand_time(torch.as_tensor(t) - torch.as_tensor(s), x) * u


def jump(
    u: AverageVelocity, x: Tensor, *, steps: int | None = None, times: Tensor | None = None, **cond: object
) -> Tensor:
    """From time to time by an average velocity, x + (t - s) u(x, s, t), one evaluation each: from 0 to 1 in one step,
    in as many equal steps, or at these times (N + 1,).

    With the true u any number of steps ends in the same place; with u(x, s, t) = v(x, s) this is Euler's method.

    >>> jump(lambda x, s, t: t + s, torch.zeros(1, 1), steps=3)  # u of dx/dt = 2 t
    tensor([[1.]])
    """
    checks.floating("x", x)
    dtype = torch.promote_types(torch.float32, x.dtype)
    if times is None:
        steps = 1 if steps is None else steps
        checks.whole(steps=steps)
        times = torch.linspace(0, 1, steps + 1, dtype=dtype)
    elif steps is not None:
        raise ValueError(f"expected steps or times, not both; got steps={steps} and {len(times)} times")
    elif times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times must be of shape (N + 1,) with N >= 1, got {tuple(times.shape)}")
    for s, t in itertools.pairwise(times.to(x.device, dtype)):
        x = x + (t - s).to(x.dtype) * u(x, s, t, **cond)
    return x


# What every flow map obeys. Each residual is zero, for all x, s and t, where u is the average velocity of a flow.


def shortcut_residual(u: AverageVelocity, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """u(x, s, t) - (u(x, s, m) + u(x', m, t)) / 2 with m halfway and x' = x + (m - s) u(x, s, m): two jumps are one.

    Needs no field: it is what a shortcut model trains on, beside flow matching at s = t.

    Source: Frans et al. (2025), section 3.
    """
    m = (s + t) / 2
    first = u(x, s, m)
    return u(x, s, t) - (first + u(x + expand_time(m - s, x) * first, m, t)) / 2


def lagrangian_residual(u: AverageVelocity, v: Field, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """d/dt phi_{s -> t}(x) - v(phi_{s -> t}(x), t) for phi = x + (t - s) u: the end moves as the field says.

    Source: Boffi et al. (2025), equation of the Lagrangian loss.
    """
    end, velocity, *_ = jvp(lambda t: x + expand_time(t - s, x) * u(x, s, t), (t,), (torch.ones_like(t),))
    return velocity - v(end, t)


def eulerian_residual(u: AverageVelocity, v: Field, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """u(x, s, t) - v(x, s) - (t - s) du/ds, with du/ds = v(x, s) . grad u + partial_s u: MeanFlow's identity.

    It is -(d/ds + v . grad) phi_{s -> t}(x) for phi = x + (t - s) u: who starts a little later, a little further on
    the same trajectory, ends in the same place. MeanFlow's authors measure time from the data, hence their other sign.

    Source: Geng, Deng et al. (2025), equation 6; Boffi et al. (2025) for the Eulerian equation.
    """
    velocity = v(x, s)
    value, slope, *_ = jvp(lambda x, s: u(x, s, t), (x, s), (velocity, torch.ones_like(s)))
    return value - velocity - expand_time(t - s, x) * slope


# Learning one


def intervals(
    n: int,
    *,
    instants: float = 0.5,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """n pairs of times s <= t, two uniform ones in order; a share `instants` of the pairs has t = s.

    >>> s, t = intervals(1000, instants=0.25, generator=torch.Generator().manual_seed(0))
    >>> bool((s <= t).all()), (s == t).float().mean()
    (True, tensor(0.2320))
    """
    checks.require(0 <= instants <= 1, f"instants must be a share from 0 to 1, got {instants}")
    device = device or (generator.device if generator else None)
    a, b, c = torch.rand(3, n, generator=generator, device=device)
    s = torch.minimum(a, b)
    return s, torch.where(c < instants, s, torch.maximum(a, b))


def mean_flow_loss(
    u: AverageVelocity,
    x_1: Tensor,
    *,
    x_0: Tensor | None = None,
    coupling: Coupling = independent,
    times: Intervals = intervals,
    improved: bool = False,
    generator: Generator | None = None,
    **cond: object,
) -> Tensor:
    r"""MeanFlow: learn the average velocity of a flow that nobody has solved, from pairs of its ends. Per dimension,

        L = E |u(x_s, s, t) - sg(x_1 - x_0 + (t - s) du/ds)|^2 / d,    du/ds = (x_1 - x_0) . grad u + partial_s u,

    where sg stops gradients: the target is the right side of `eulerian_residual`, whose field the pairs know on
    average. At t = s it is flow matching. The improved form regresses x_1 - x_0 itself, which no network changes:

        L = E |V - (x_1 - x_0)|^2 / d,    V = u(x_s, s, t) - (t - s) sg(du/ds),    du/ds = v . grad u + partial_s u,

    with the network's own velocity v = u(x_s, s, s) for the direction, so that V is a function of (x_s, s, t) alone.

    Args:
        u: the average velocity to train, called as u(x, s, t, **cond).
        x_1: data (B, *D), floating point.
        x_0: where the paths start, like x_1; drawn from N(0, I) if None.
        coupling: re-pairs x_0 with x_1, as in `cfm_loss`.
        times: the law of (s, t), called as times(B, generator=generator, device=x_1.device).
        improved: the second form.
        generator: the source of x_0, the coupling and the times, in this order, on the device of x_1.
        **cond: passed on to u, such as labels (B,) that belong to x_1.

    Source: Geng, Deng et al. (2025), algorithm 1; Geng, Lu et al. (2025), section 4, for the improved form. Both
    measure time from the data.

    >>> at_rest = lambda x, s, t: torch.zeros_like(x)
    >>> mean_flow_loss(at_rest, torch.full((4, 2), 3.0), x_0=torch.ones(4, 2))  # |x_1 - x_0|^2 / d
    tensor(4.)
    """
    checks.floating("x_1", x_1)
    checks.require(x_1.numel() > 0, f"x_1 must hold at least one point, got shape {tuple(x_1.shape)}")
    if x_0 is None:
        x_0 = torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype, device=x_1.device)
    x_0, paired = coupling(x_0, x_1, generator=generator)
    checks.require(
        paired is x_1,
        "a coupling must re-pair x_0 alone and return x_1 itself, so that labels stay beside it",
    )
    s, t = (time.to(x_1.dtype) for time in times(len(x_1), generator=generator, device=x_1.device))
    x_s, chord, span = torch.lerp(x_0, x_1, expand_time(s, x_1)), x_1 - x_0, expand_time(t - s, x_1)
    direction = u(x_s, s, s, **cond).detach() if improved else chord
    value, slope, *_ = jvp(lambda x, s: u(x, s, t, **cond), (x_s, s), (direction, torch.ones_like(s)))
    if improved:
        return mse_loss(value - span * slope.detach(), chord)
    return mse_loss(value, (chord + span * slope).detach())


class FlowMapMLP(nn.Module):
    """An average velocity on points (B, d): the layers of `VelocityMLP` on x, s and t - s.

    Called without t it is a field, the velocity u(x, s, s).

    Args:
        dimension: d, of the points.
        width, depth: of the hidden layers, and how many there are.
        generator: the source of the first weights.

    >>> net = FlowMapMLP(2, generator=torch.Generator().manual_seed(0))
    >>> net(torch.zeros(5, 2), 0.25, 0.75).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, dimension: int, width: int = 64, depth: int = 3, *, generator: Generator | None = None
    ) -> None:
        super().__init__()
        checks.whole(dimension=dimension, width=width, depth=depth)
        self.dimension = dimension
        widths = [dimension + 2] + depth * [width] + [dimension]
        self.layers = nn.ModuleList(SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, s: Tensor | float, t: Tensor | float | None = None) -> Tensor:
        """u(x, s, t), (B, d), at points x (B, d) and times s and t, scalars or (B,); t = s if None."""
        checks.floating("points", x)
        checks.shaped("points", x, "B", self.dimension)
        s, t = (expand_time(time, x).to(x.dtype).expand(len(x), 1) for time in (s, s if t is None else t))
        first, *rest = self.layers
        h = first(torch.cat([x, s, t - s], dim=1))
        for layer in rest:
            h = layer(silu(h))
        return h
