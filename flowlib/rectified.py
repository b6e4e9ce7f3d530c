"""Rectified flow: pairs that a flow itself has made, and how straight its trajectories are (chapter 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowlib import checks
from flowlib.fields import Field
from flowlib.solvers import RK4, Tableau, odeint


@torch.no_grad()
def rectify(
    v: Field,
    x: Tensor,
    *,
    backwards: bool = False,
    method: Tableau = RK4,
    steps: int | None = 32,
    together: int = 2**14,
    **cond: Any,
) -> tuple[Tensor, Tensor]:
    """Pairs (x_0, x_1) of the two ends of trajectories of v, to train the next flow on: `cfm_loss(w, x_1, x_0=x_0)`.

    Args:
        v: the field of the teacher.
        x: where the trajectories start, points x_0 (B, *D); or, `backwards`, where they end, real data x_1.
        backwards: carry x from t = 1 to t = 0.
        method, steps: of the solver, which is the teacher's quality: see `odeint`. DOPRI5 with steps=None adapts.
        together: how many points are carried at once.
        **cond: passed on to the field; a tensor with B rows goes along with its points.

    Returns:
        x_0 and x_1, both like x, without gradients; one of them is x itself.

    Source: Liu et al. (2023), algorithm 1; Zhu et al. (2024) for pairs that real data make.

    >>> x_0, x_1 = rectify(lambda x, t: -x, torch.ones(4, 2))
    >>> x_1[0]
    tensor([0.3679, 0.3679])
    """
    checks.floating("x", x)
    checks.whole(together=together)
    t0, t1 = (1.0, 0.0) if backwards else (0.0, 1.0)
    carried = []
    for k in range(0, max(len(x), 1), together):
        part = slice(k, k + together)
        mine: dict[str, Any] = {
            name: c[part] if isinstance(c, Tensor) and c.ndim and len(c) == len(x) else c
            for name, c in cond.items()
        }
        carried.append(odeint(v, x[part], t0=t0, t1=t1, steps=steps, method=method, **mine))
    ends = torch.cat(carried)
    return (ends, x) if backwards else (x, ends)


def path_energy(
    v: Field, x_0: Tensor, *, method: Tableau = RK4, steps: int | None = 50, **cond: object
) -> Tensor:
    """int_0^1 E |v(Z_t, t)|^2 dt along the flow Z of v from the points x_0 (B, *D), of shape ().

    >>> path_energy(lambda x, t: 2 * t * torch.ones_like(x), torch.zeros(5, 3))  # 3 int 4 t^2 dt
    tensor(4.0000)
    """
    return _energy_and_cost(v, x_0, method, steps, cond)[0]


def straightness(
    v: Field, x_0: Tensor, *, method: Tableau = RK4, steps: int | None = 50, **cond: object
) -> Tensor:
    """int_0^1 E |(Z_1 - Z_0) - v(Z_t, t)|^2 dt = path energy - E |Z_1 - Z_0|^2, of shape (); 0 for straight lines.

    Source: Liu et al. (2023), section 2.2.

    >>> straightness(lambda x, t: 2 * t * torch.ones_like(x), torch.zeros(5, 3))  # 3 (4 / 3 - 1)
    tensor(1.0000)
    """
    energy, cost = _energy_and_cost(v, x_0, method, steps, cond)
    return energy - cost


def _energy_and_cost(
    v: Field, x_0: Tensor, method: Tableau, steps: int | None, cond: dict[str, object]
) -> tuple[Tensor, Tensor]:
    """The mean of int |v|^2 dt and of |Z_1 - Z_0|^2, by one solve of the displacement with the energy beside it.

    So the energy's error has the order of the method, and the difference of the two, h sum b_i |k_i - (Z_1 - Z_0)|^2
    over all stages, is not negative (but for rounding) where the method's weights b_i are not.
    """
    checks.precise("x_0", x_0)
    checks.require(x_0.numel() > 0, f"x_0 must hold at least one point, got shape {tuple(x_0.shape)}")

    def slope(state: Tensor, t: Tensor) -> Tensor:
        velocity = v(x_0 + state[:, 1:].reshape(x_0.shape), t, **cond).flatten(1)
        return torch.cat([velocity.square().sum(1, keepdim=True), velocity], dim=1)

    start = x_0.new_zeros(len(x_0), 1 + x_0[0].numel())
    state = odeint(slope, start, steps=steps, method=method)
    return state[:, 0].mean(), state[:, 1:].square().sum(1).mean()
