"""Velocity fields: what a field is, and a few whose flow is known (chapter 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowlib import checks

# Any callable v(x, t, **cond) with x (B, *D) and t a scalar or (B,); its values are shaped and typed like x.
Field = Callable[..., Tensor]


def expand_time(t: Tensor | float, x: Tensor) -> Tensor:
    """Times of shape () or (B,), made to broadcast against x (B, *D), in dtype promote_types(float32, x.dtype).

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
class LinearField:
    """The field v(x) = A x, whose flow is the matrix exponential: phi_{t0 -> t1}(x) = expm((t1 - t0) A) x.

    `matrix` holds the rows of A (d, d), in units of 1 / time.

    >>> rotation(omega=math.pi)(torch.tensor([[1.0, 0.0]]), 0.0)
    tensor([[0.0000, 3.1416]])
    """

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.matrix]
        checks.require(
            set(lengths) == {len(lengths)},
            f"matrix must be square, got {len(lengths)} rows of lengths {lengths}",
        )

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """A x for each point of x (B, d), whatever the time."""
        return x @ self._checked(x).to(x.dtype).T

    def flow(self, x: Tensor, t0: float, t1: float) -> Tensor:
        """Where points x (B, d) that stand at time t0 are at time t1, exactly."""
        return x @ torch.linalg.matrix_exp((t1 - t0) * self._checked(x)).to(x.dtype).T

    def _checked(self, x: Tensor) -> Tensor:
        """A, in float32 at least: a matrix exponential in half precision is far off."""
        checks.floating("points", x)
        if x.shape[-1] != len(self.matrix):
            checks.shaped("points of this field", x, *["B"] * (x.ndim - 1), len(self.matrix))
        return torch.tensor(self.matrix, dtype=torch.promote_types(torch.float32, x.dtype), device=x.device)


def rotation(omega: float = 2 * math.pi) -> LinearField:
    """Rigid rotation of the plane at `omega` radians per unit of time, counterclockwise."""
    return LinearField(((0.0, -omega), (omega, 0.0)))


def shear(rate: float = 1.0) -> LinearField:
    """Shear: the velocity points along x_1 and grows with x_2."""
    return LinearField(((0.0, rate), (0.0, 0.0)))


def saddle(rate: float = 1.0) -> LinearField:
    """Stretch along x_1, squeeze along x_2, at the same rate: areas stay."""
    return LinearField(((rate, 0.0), (0.0, -rate)))


def spiral(rate: float = -0.7, omega: float = 2 * math.pi) -> LinearField:
    """Rotation at `omega` radians per unit of time while distances from the origin change as exp(rate t)."""
    return LinearField(((rate, -omega), (omega, rate)))


@dataclass(frozen=True)
class TravelingVortex:
    """A whirl whose center travels in a straight line: a field that depends on time, with no closed-form flow.

        v(x, t) = strength exp(-|x - c|^2 / (2 radius^2)) J (x - c),      c = (1 - t) start + t end,

    with J the rotation by 90 degrees. Its divergence is zero everywhere.

    `strength` counts radians per unit of time at the center, `radius` is the length at which the whirl fades, and the
    center travels from `start` at t = 0 to `end` at t = 1.
    """

    strength: float = 8.0
    radius: float = 0.7
    start: tuple[float, float] = (-1.2, 0.0)
    end: tuple[float, float] = (1.2, 0.0)

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity (B, 2) at points x (B, 2) and times t, a scalar or (B,)."""
        checks.floating("points", x)
        checks.shaped("points of this field", x, "B", 2)
        start, end = (torch.tensor(c, dtype=x.dtype, device=x.device) for c in (self.start, self.end))
        offset = x - torch.lerp(start, end, expand_time(t, x).to(x.dtype))
        speed = self.strength * torch.exp(-offset.square().sum(1) / (2 * self.radius**2))
        across, along = offset.unbind(1)
        return torch.stack([-speed * along, speed * across], dim=1)
