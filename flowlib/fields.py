"""Velocity fields: what a field is, a few whose flow is known, and the continuity equation (chapter 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

# Any callable v(x, t, **cond) with x (B, *D) and t a scalar or (B,); its values are shaped and typed like x.
Field = Callable[..., Tensor]


def expand_time(t: Tensor | float, x: Tensor) -> Tensor:
    """Times of shape () or (B,), made to broadcast against x (B, *D), in dtype promote_types(float32, x.dtype).

    Raises:
        ValueError: t is neither a scalar nor one time for each point.
        TypeError: t is in half precision.

    >>> expand_time(torch.tensor([0.0, 0.5]), torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 1, 1, 1])
    """
    if isinstance(t, Tensor) and t.dtype in (torch.float16, torch.bfloat16):
        # in bfloat16 one uniform time in 500 rounds to exactly 1: too late to repair here
        raise TypeError(f"times must be float32 or float64, got {t.dtype}")
    t = torch.as_tensor(t, dtype=torch.promote_types(torch.float32, x.dtype), device=x.device)
    if t.ndim == 0:
        return t
    if t.shape != x.shape[:1]:
        raise ValueError(
            f"t must be a scalar or one time for each of the {len(x)} points, got shape {tuple(t.shape)}"
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class Linear:
    """The field v(x) = A x, whose flow is the matrix exponential: phi_{t0 -> t1}(x) = expm((t1 - t0) A) x.

    Args:
        matrix: the rows of A (d, d), in units of 1 / time.

    Raises:
        ValueError: the matrix is not square.

    >>> rotation(omega=math.pi)(torch.tensor([[1.0, 0.0]]), 0.0)
    tensor([[0.0000, 3.1416]])
    """

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.matrix) for row in self.matrix):
            raise ValueError(
                f"matrix must be square, got rows of lengths {[len(row) for row in self.matrix]}"
            )

    def __call__(self, x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        """A x for each point of x (B, d), whatever the time."""
        return x @ self._matrix(x).T

    def flow(self, x: Tensor, t0: float, t1: float) -> Tensor:
        """Where points x (B, d) that stand at time t0 are at time t1, exactly."""
        return x @ torch.linalg.matrix_exp((t1 - t0) * self._matrix(x)).T

    def _matrix(self, x: Tensor) -> Tensor:
        if x.shape[-1] != len(self.matrix):
            raise ValueError(
                f"this field lives in {len(self.matrix)} dimensions, got points of shape {tuple(x.shape)}"
            )
        return torch.tensor(self.matrix, dtype=x.dtype, device=x.device)


def rotation(omega: float = 2 * math.pi) -> Linear:
    """Rigid rotation of the plane at `omega` radians per unit of time, counterclockwise."""
    return Linear(((0.0, -omega), (omega, 0.0)))


def shear(rate: float = 1.0) -> Linear:
    """Shear: the velocity points along x_1 and grows with x_2."""
    return Linear(((0.0, rate), (0.0, 0.0)))


def saddle(rate: float = 1.0) -> Linear:
    """Stretch along x_1, squeeze along x_2, at the same rate: areas stay."""
    return Linear(((rate, 0.0), (0.0, -rate)))


def spiral(rate: float = -0.7, omega: float = 2 * math.pi) -> Linear:
    """Rotation at `omega` radians per unit of time while distances from the origin change as exp(rate t)."""
    return Linear(((rate, -omega), (omega, rate)))


@dataclass(frozen=True)
class TravelingVortex:
    """A whirl whose center travels in a straight line: a field that depends on time, with no closed-form flow.

        v(x, t) = strength exp(-|x - c|^2 / (2 radius^2)) J (x - c),      c = (1 - t) start + t end,

    with J the rotation by 90 degrees. Its divergence is zero everywhere.

    Args:
        strength: radians per unit of time at the center.
        radius: the length at which the whirl fades.
        start: its center at t = 0.
        end: its center at t = 1.
    """

    strength: float = 8.0
    radius: float = 0.7
    start: tuple[float, float] = (-1.2, 0.0)
    end: tuple[float, float] = (1.2, 0.0)

    def __call__(self, x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        """The velocity (B, 2) at points x (B, 2) and times t, a scalar or (B,)."""
        if x.ndim != 2 or x.shape[1] != 2:
            raise ValueError(
                f"this field lives in the plane: expected points of shape (B, 2), got {tuple(x.shape)}"
            )
        start, end = (torch.tensor(c, dtype=x.dtype, device=x.device) for c in (self.start, self.end))
        offset = x - torch.lerp(start, end, expand_time(t, x).to(x.dtype))
        speed = self.strength * torch.exp(-offset.square().sum(1) / (2 * self.radius**2))
        return speed[:, None] * torch.stack([-offset[:, 1], offset[:, 0]], dim=1)


def pullback(
    v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The velocity at x, and the map e -> J^T e with J = dv/dx there: what backward differentiation gives at one pass.

    Both can be differentiated further if gradients are enabled and x, a parameter of v or a condition asks for one;
    otherwise no graph is kept.

    Args:
        v: a field whose value at a point depends on that point alone (no batch statistics).
        x: points (B, *D).
        t: a scalar or (B,).
        **cond: passed on to the field.

    Returns:
        v(x, t), like x; and the map, which takes e like x, or several at once (n, B, *D), to J^T e of that shape.

    Raises:
        RuntimeError: in inference mode, which forbids derivatives.

    >>> velocity, pull = pullback(shear(), torch.tensor([[0.0, 3.0]]), 0.0)
    >>> velocity, pull(torch.tensor([[1.0, 0.0]]))
    (tensor([[3., 0.]]), tensor([[0., 1.]]))
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("derivatives of a field are not to be had in inference mode: use torch.no_grad()")
    enabled = torch.is_grad_enabled()
    with torch.enable_grad():
        # a view, so that what else was computed from x, such as a condition, counts as a constant here
        y = x.view_as(x) if enabled and x.requires_grad else x.detach().requires_grad_()
        velocity = v(y, t, **cond)
    wanted = enabled and (x.requires_grad or _asks_for_more(velocity, y))

    def pull(e: Tensor) -> Tensor:
        if not velocity.requires_grad:
            return torch.zeros_like(e)
        (back,) = torch.autograd.grad(
            velocity,
            y,
            e,
            retain_graph=True,
            create_graph=wanted,
            allow_unused=True,
            is_grads_batched=e.ndim > x.ndim,
        )
        return torch.zeros_like(e) if back is None else back

    return velocity if wanted else velocity.detach(), pull


def _asks_for_more(value: Tensor, leaf: Tensor) -> bool:
    """Whether value depends on a tensor that wants a gradient, other than the leaf."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", leaf) is not leaf:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def velocity_and_divergence(v: Field, x: Tensor, t: Tensor | float, **cond: object) -> tuple[Tensor, Tensor]:
    """v(x, t), like x (B, *D), and div v, (B,), from one pass of the field forward and d back: see `divergence`."""
    velocity, pull = pullback(v, x, t, **cond)
    d = x.shape[1:].numel()
    # Several rows of the Jacobian at once save time as long as they stay in the cache, or on a GPU keep it busy.
    together = min(d, (65536 if x.is_cuda else 4096) // max(1, len(x)))
    together = together if together >= 8 else 1
    total = x.new_zeros(len(x))
    for i in range(0, d, together):
        n = min(together, d - i)
        e = x.new_zeros(n, d)
        e.diagonal(i).fill_(1)  # e_i, ..., e_{i + n - 1}
        e = e.reshape(n, 1, *x.shape[1:]).expand(n, *x.shape)
        rows = pull(e if n > 1 else e[0]).reshape(n, len(x), d)
        total = total + rows[:, :, i : i + n].diagonal(dim1=0, dim2=2).sum(1)
    return velocity, total


def divergence(v: Field, x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
    """The divergence of the field, exactly: div v = sum_i dv_i / dx_i, one backward pass for each dimension.

    Args:
        v: a field whose value at a point depends on that point alone (no batch statistics).
        x: points (B, *D).
        t: a scalar or (B,).
        **cond: passed on to the field.

    Returns:
        (B,), in units of 1 / time.

    >>> divergence(spiral(rate=-0.5), torch.zeros(1, 2), 0.0)
    tensor([-1.])
    """
    return velocity_and_divergence(v, x, t, **cond)[1]


def continuity_residual(
    log_prob: Callable[[Tensor, Tensor], Tensor], v: Field, x: Tensor, t: Tensor | float, **cond: object
) -> Tensor:
    r"""By how much a density and a field miss the continuity equation, relative to the density.

        r = (d/dt p + div(p v)) / p = d/dt log p + v . grad log p + div v

    The first two terms are one directional derivative of log p, along (v, 1): the rate at which log p changes for an
    observer who moves with the flow. The residual is zero wherever v generates p_t.

    Args:
        log_prob: log p_t(x) in nats, called as log_prob(x, t) with x (B, *D) and t (B,), and differentiable in both.
        v: the field, called as v(x, t, **cond).
        x: points (B, *D).
        t: a scalar or (B,).

    Returns:
        (B,), in units of 1 / time.

    Source: Villani, Topics in Optimal Transportation, theorem 5.34; Lipman et al. (2023), equation 26.
    """
    times = expand_time(t, x).reshape(-1).expand(len(x)).contiguous()
    velocity = v(x, times, **cond)
    carried: Tensor = jvp(log_prob, (x, times), (velocity, torch.ones_like(times)))[1]
    return carried + divergence(v, x, times, **cond)
