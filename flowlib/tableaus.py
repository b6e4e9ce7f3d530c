"""Runge-Kutta methods as data: Butcher tableaux (chapter 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowlib.checks import require


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge-Kutta method, written as its Butcher tableau (a | b | c).

    One step of length h from (x, t) evaluates the slopes k_i and combines them:

        k_i = v(x + h sum_{j<i} a_ij k_j, t + c_i h),        x_next = x + h sum_i b_i k_i.

    Args:
        name: what figures and messages call the method.
        a: row i holds the i - 1 weights of the earlier slopes, so row 1 is empty.
        b: the weights of the slopes in the step; they sum to 1.
        c: when each slope is taken, as a fraction of the step; c_i = sum_j a_ij.
        order: the exponent of h in the global error.
        error: for adaptive steps, b minus the weights of an embedded method of one order less. The difference of the
            two results, h sum_i error_i k_i, estimates the error of a step. It has one weight more than b, for the
            slope at the end of the step, v(x(t + h), t + h): the next step starts with that slope anyway.

    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, sections II.1 and II.4.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int
    error: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        n, rows = len(self.b), [len(row) for row in self.a]
        require(
            rows == list(range(n)) and len(self.c) == n,
            f"{self.name}: an explicit method with {n} weights b needs {n} times c and rows of a of lengths "
            f"{list(range(n))}; got {len(self.c)} times and rows of lengths {rows}",
        )
        require(
            math.isclose(sum(self.b), 1.0)
            and all(math.isclose(sum(r), c, abs_tol=1e-12) for r, c in zip(self.a, self.c, strict=True)),
            f"{self.name}: the weights b must sum to 1 and each c_i must be the sum of row i of a",
        )
        error = (*self.b, -1.0) if self.error is None else self.error
        require(
            len(error) == n + 1 and abs(sum(error)) < 1e-12,
            f"{self.name}: error needs {n + 1} weights, the last for the slope at the end of the step, with sum 0; "
            f"got {len(error)} with sum {sum(error):g}",
        )

    @property
    def stages(self) -> int:
        """Evaluations of the field in one step, fixed or adaptive."""
        return len(self.b)


EULER = Tableau("Euler", a=((),), b=(1.0,), c=(0.0,), order=1)
MIDPOINT = Tableau("midpoint", a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2)
HEUN = Tableau("Heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2)
# Kutta's classical method; libraries also call his 3/8 rule "rk4".
RK4 = Tableau(
    "RK4",
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)
# Dormand & Prince (1980), RK5(4)7M. The seventh row of the published table is b itself: the slope at the end of the
# step, which only the error estimate needs and which fixed steps therefore do not evaluate. The embedded weights are
# Shampine's (1986), whose estimate is two thirds of the one published first.
DOPRI5 = Tableau(
    "Dormand-Prince",
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    order=5,
    error=(71 / 86400, 0.0, -142 / 50085, 71 / 2880, -17253 / 508800, 44 / 1575, -1 / 60),
)
