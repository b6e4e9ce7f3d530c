"""Data of the course: toys of the plane, each with its law written out, mixtures, finite data (all chapters).

Every law has `sample(n, *, generator=None, device=None)` -> (n, 2) in torch's default dtype (toys: at least float32),
a `name`, `log_prob(x)` -> (B,) in nats and its `entropy` in nats; where these two are unknown, the one raises and the
other is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from flowlib import checks
from flowlib.empirical import Empirical, EmpiricalVelocity
from flowlib.mixtures import GaussianMixture, MarginalVelocity, sampling_device

__all__ = [
    "Empirical",
    "EmpiricalVelocity",
    "GaussianMixture",
    "MarginalVelocity",
    "Toy",
    "checkerboard",
    "eight_gaussians",
    "five_clouds",
    "four_corners",
    "moons",
    "pinwheel",
    "s_curve",
    "three_arms",
]


@dataclass(frozen=True)
class Toy:
    """A law on the plane that is not a Gaussian mixture.

    Args:
        name: what tables and legends call it.
        draw: (labels, generator, device) -> (n, 2), one point for each label (n,), which says which piece it is on.
        pieces: how many equal pieces the law has.
        entropy: in nats, where it is known.
        log_density: x (B, 2) -> (B,), where it is known.
    """

    name: str
    draw: Callable[[Tensor, Generator | None, torch.device], Tensor]
    pieces: int
    entropy: float | None = None
    log_density: Callable[[Tensor], Tensor] | None = None

    def sample(
        self,
        n: int,
        *,
        balanced: bool = False,
        generator: Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """n points (n, 2), made on `device`, or else where the generator lives.

        They are independent, or, if `balanced`, as many on each piece, in random order: averages then vary less.
        """
        device = sampling_device(n, generator, device, "cpu")
        if balanced:
            checks.require(n % self.pieces == 0, f"balanced needs a multiple of {self.pieces}, got n = {n}")
            labels = torch.randperm(n, generator=generator, device=device) % self.pieces
        else:
            labels = torch.randint(self.pieces, (n,), generator=generator, device=device)
        return self.draw(labels, generator, device)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats (B,), at points x (B, 2); raises NotImplementedError where no formula is known."""
        if self.log_density is None:
            raise NotImplementedError(f"{self.name} has no density in closed form")
        checks.shaped("points", x, "B", 2)
        checks.precise("points", x)
        return self.log_density(x)


def eight_gaussians(law: str = "ffjord") -> GaussianMixture:
    """Eight equal round Gaussians with centers on a circle, at the angles 0, pi/4, ..., 7 pi/4.

    "ffjord" has radius 4 / 1.414 = 2.829 and standard deviation 0.5 / 1.414 = 0.354 (Grathwohl et al. 2019),
    "tutorial" has radius 5 and standard deviation 0.1^(1/4) = 0.562 (torchcfm; Tong et al. 2024).

    >>> eight_gaussians().entropy
    2.83188041
    """
    checks.one_of("law", law, ("ffjord", "tutorial"))
    radius, deviation, entropy = (4 / 1.414, 0.5 / 1.414, 2.83188041)
    if law == "tutorial":
        radius, deviation, entropy = (5.0, 0.1**0.25, 3.76409031)
    angles = torch.arange(8) * (math.pi / 4)
    means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(means, [deviation**2] * 8, name=f"8 Gaussians, {law}", entropy=entropy)


def five_clouds() -> GaussianMixture:
    """Five equal Gaussians that overlap, each with its own variances along the axes: at few points is it certain from
    which of them a sample came, so that p(x|y), p(x) p(y|x)^w and a guided flow's law are three different things.
    """
    means = [[-1.2, 0.5], [0.0, 1.2], [1.2, 0.5], [-0.6, -0.9], [0.8, -0.8]]
    variances = [[0.2, 0.1], [0.3, 0.1], [0.2, 0.3], [0.3, 0.2], [0.2, 0.2]]
    return GaussianMixture(means, variances, name="five clouds", entropy=2.50892195)


def four_corners() -> GaussianMixture:
    """Four equal round Gaussians of standard deviation 0.8 at the corners of a square of side 1.8, counterclockwise
    from (0.9, 0.9): so near to one another that a quarter of all points are nearer to another corner than to their own.

    >>> four_corners().entropy
    3.17429238
    """
    means = 0.9 * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    return GaussianMixture(means, [0.8**2] * 4, name="four corners", entropy=3.17429238)


def three_arms() -> GaussianMixture:
    """Three Gaussians centered at distance 2 from the origin, at 90, 210 and 330 degrees, weighing 0.5, 0.3, 0.2.

    Each has standard deviation 0.5 along the circle and 0.2 across it: neither round nor symmetric, so that swapped
    axes, wrong weights and plain rotations all show.
    """
    angles = torch.tensor([90.0, 210.0, 330.0]).deg2rad()
    across = torch.stack([angles.cos(), angles.sin()], dim=1)  # (3, 2)
    along = torch.stack([-angles.sin(), angles.cos()], dim=1)
    covariances = 0.2**2 * across[:, :, None] * across[:, None] + 0.5**2 * along[:, :, None] * along[:, None]
    return GaussianMixture(2 * across, covariances, [0.5, 0.3, 0.2], name="three arms", entropy=1.56494498)


def moons(law: str = "sklearn") -> GaussianMixture | Toy:
    """Half circles: for a uniform on [0, pi], points about (cos a, sin a) and (1 - cos a, 1/2 - sin a), half and half.

    "sklearn" adds noise from N(0, 0.1^2 I), as scikit-learn's make_moons(noise=0.1) does; "ffjord" is 2 x + (-1, -0.2)
    of that (Grathwohl et al. 2019). Both are mixtures along the curves, see `_blur`, the upper moon first. "tutorial"
    adds u (1, 1), u uniform on [0, 0.2], and maps the sum to 3 x - 1 (torchcfm; Tong et al. 2024).

    >>> moons().entropy
    1.00758476
    """
    checks.one_of("law", law, ("sklearn", "ffjord", "tutorial"))
    if law == "tutorial":
        return Toy("moons, tutorial", _draw_tutorial_moons, 2)
    scale, shift = (1.0, (0.0, 0.0)) if law == "sklearn" else (2.0, (-1.0, -0.2))
    angles, weights = _nodes(0, math.pi)
    points = scale * torch.cat(_half_circles(angles)) + torch.tensor(shift)
    entropy = 1.00758476 + 2 * math.log(scale)
    return _blur(points, torch.cat([weights, weights]) / 2, 0.1 * scale, f"moons, {law}", entropy)


def _half_circles(angles: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, sin], dim=1), torch.stack([1 - cos, 0.5 - sin], dim=1)


def _draw_tutorial_moons(moon: Tensor, generator: Generator | None, device: torch.device) -> Tensor:
    angle, shift = _uniform(len(moon), generator, device)
    upper, lower = _half_circles(math.pi * angle)
    return 3 * (torch.where(moon[:, None] == 0, upper, lower) + 0.2 * shift[:, None]) - 1


def s_curve() -> GaussianMixture:
    """The letter S: (sin a, sign(a)(cos a - 1)) with a uniform on [-3 pi/2, 3 pi/2], plus noise from N(0, 0.1^2 I).

    The first and last coordinates of scikit-learn's make_s_curve(noise=0.1), as a mixture along the curve: see `_blur`.

    >>> s_curve().entropy
    1.37643777
    """
    angles, weights = _nodes(-3 * math.pi / 2, 0, 3 * math.pi / 2)  # the curvature jumps at 0
    points = torch.stack([angles.sin(), angles.sign() * (angles.cos() - 1)], dim=1)
    return _blur(points, weights, 0.1, "S curve", 1.37643777)


def _nodes(*ends: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes on each stretch between two ends, 30 to a unit of length, and their weights, of sum 1."""
    nodes, weights = [], []
    for start, stop in pairwise(ends):
        z, w = np.polynomial.legendre.leggauss(math.ceil(30 * (stop - start)))
        nodes.append(start + (stop - start) * (z + 1) / 2)
        weights.append(w / 2 * (stop - start) / (ends[-1] - ends[0]))
    return torch.from_numpy(np.concatenate(nodes)), torch.from_numpy(np.concatenate(weights))


def _blur(points: Tensor, weights: Tensor, deviation: float, name: str, entropy: float) -> GaussianMixture:
    """int N(x; c(a), deviation^2 I) da, summed over nodes c(a_k): with three to a deviation, exact to 10 digits."""
    points = points.to(torch.get_default_dtype())
    return GaussianMixture(points, [deviation**2] * len(points), weights, name=name, entropy=entropy)


def checkerboard() -> Toy:
    """Uniform on the 8 squares of side 2 of [-4, 4]^2 where floor(x_1 / 2) + floor(x_2 / 2) is even (Grathwohl et al.
    2019); the entropy is log 32.

    >>> checkerboard().log_prob(torch.tensor([[0.5, 0.5], [0.5, 2.5]]))
    tensor([-3.4657,    -inf])
    """
    return Toy("checkerboard", _draw_checkerboard, 8, math.log(32), _checkerboard_density)


def _draw_checkerboard(square: Tensor, generator: Generator | None, device: torch.device) -> Tensor:
    x_1, x_2 = _uniform(len(square), generator, device)
    column, lower = square // 2 - 2, square % 2
    return 2 * torch.stack([x_1 + column, x_2 + column % 2 - 2 * lower], dim=1)


def _checkerboard_density(x: Tensor) -> Tensor:
    column, row = (x / 2).floor().unbind(1)
    on_board = (column.clamp(-2, 1) == column) & (row.clamp(-2, 1) == row)
    log_density = torch.where(on_board & ((column + row) % 2 == 0), x.new_full((), -math.log(32)), -math.inf)
    return torch.where(column.isnan() | row.isnan(), math.nan, log_density)


def _uniform(n: int, generator: Generator | None, device: torch.device) -> Tensor:
    """Two coordinates (2, n) in [0, 1), so far below 1 that adding up to 2 never rounds to the next whole number."""
    u = torch.rand(2, n, generator=generator, device=device, dtype=_sample_dtype())
    return u.clamp_(max=1 - 2 * torch.finfo(u.dtype).eps)


def _sample_dtype() -> torch.dtype:
    """torch's default dtype, but never half precision."""
    return torch.promote_types(torch.float32, torch.get_default_dtype())


def pinwheel() -> Toy:
    """Five twisted arms: with r from N(1, 0.3^2), s from N(0, 0.1^2) and k uniform on 0..4, the point 2 (r, s) turned
    clockwise by the angle 2 pi k / 5 + exp(r) / 4 (Johnson et al. 2016, with the numbers of Grathwohl et al. 2019).

    >>> pinwheel().sample(3).shape
    torch.Size([3, 2])
    """
    return Toy("pinwheel", _draw_pinwheel, 5)


def _draw_pinwheel(arm: Tensor, generator: Generator | None, device: torch.device) -> Tensor:
    r, s = torch.randn(2, len(arm), generator=generator, device=device, dtype=_sample_dtype())
    r, s = 1 + 0.3 * r, 0.1 * s
    angle = 2 * math.pi / 5 * arm.to(r) + 0.25 * r.exp()
    return 2 * torch.stack([angle.cos() * r + angle.sin() * s, angle.cos() * s - angle.sin() * r], dim=1)
