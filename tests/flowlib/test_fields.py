"""Fields whose flow is known: what they compute, and the points they accept."""

import math

import pytest
import torch

from flowlib.data import eight_gaussians
from flowlib.empirical import Empirical
from flowlib.fields import LinearField, TravelingVortex, expand_time, rotation, saddle, shear, spiral
from flowlib.paths import linear

LINEAR = [rotation(), shear(), saddle(), spiral(), LinearField(((0.3, -1.2), (0.5, 0.8)))]
FIELDS = [*LINEAR, TravelingVortex()]


def cloud(n=50, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_vortex_travels():
    v = TravelingVortex(strength=2.0, start=(-1.0, 0.0), end=(1.0, 0.0))
    for t, center in [(0.0, -1.0), (0.5, 0.0), (1.0, 1.0)]:
        x = torch.tensor([[center, 0.0], [center, 1e-4]], dtype=torch.float64)
        torch.testing.assert_close(
            v(x, t), torch.tensor([[0.0, 0.0], [-2e-4, 0.0]], dtype=torch.float64), atol=1e-10, rtol=0
        )


@pytest.mark.parametrize(
    ("v", "at_e_1", "at_e_2"),
    [
        (rotation(3.0), (0, 3), (-3, 0)),
        (rotation(), (0, 2 * math.pi), (-2 * math.pi, 0)),
        (shear(0.5), (0, 0), (0.5, 0)),
        (saddle(2.0), (2, 0), (0, -2)),
        (spiral(-0.5, 3.0), (-0.5, 3), (-3, -0.5)),
        (spiral(), (-0.7, 2 * math.pi), (-2 * math.pi, -0.7)),
    ],
    ids=str,
)
def test_linear_fields_are_what_they_are_called(v, at_e_1, at_e_2):
    found = v(torch.eye(2, dtype=torch.float64), 0.3)
    torch.testing.assert_close(found, torch.tensor([at_e_1, at_e_2], dtype=torch.float64))


def test_the_vortex_is_its_formula():
    v = TravelingVortex(strength=3.0, radius=0.5, start=(0.0, 1.0), end=(2.0, 1.0))
    x = torch.tensor([[1.5, 1.0]], dtype=torch.float64)  # 1 to the right of the center at t = 1 / 4
    speed = 3 * math.exp(-1 / (2 * 0.5**2))
    torch.testing.assert_close(v(x, 0.25), torch.tensor([[0.0, speed]], dtype=torch.float64))


@pytest.mark.parametrize("v", LINEAR, ids=str)
def test_the_flow_of_a_linear_field_is_its_exponential_in_every_precision(v):
    x, A = cloud(), torch.tensor(v.matrix, dtype=torch.float64)
    exact = x @ torch.linalg.matrix_exp(0.7 * A).T
    torch.testing.assert_close(v.flow(x, 0.3, 1.0), exact)
    torch.testing.assert_close(v.flow(v.flow(x, 0.3, 1.0), 1.0, 0.3), x)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 4e-3)):
        flow = v.flow(x.to(dtype), 0.3, 1.0)
        assert flow.dtype == dtype
        assert (flow.double() - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.parametrize("v", FIELDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_points_that_are_no_floating_point_numbers_are_refused(v, dtype):
    """A matrix cast to whole numbers would lose its digits."""
    with pytest.raises(TypeError, match=f"points must be a floating-point tensor, got {dtype}"):
        v(torch.ones(3, 2, dtype=dtype), 0.5)


def test_a_condition_that_a_field_does_not_know_is_refused():
    fitted = Empirical(cloud()).marginal_velocity(linear)
    for v in [*FIELDS, eight_gaussians().marginal_velocity(linear), fitted]:
        with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
            v(cloud(), 0.5, label=3)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"square, got 2 rows of lengths \[2, 1\]"):
        LinearField(((1.0, 0.0), (0.0,)))
    with pytest.raises(ValueError, match=r"shape \(B, 2\), got \(50, 3\)"):
        rotation()(cloud(50, 3), 0.0)
    with pytest.raises(ValueError, match=r"shape \(B, 2\), got \(50, 3\)"):
        TravelingVortex()(cloud(50, 3), 0.0)
    with pytest.raises(ValueError, match=r"each of the 50 points, got shape \(7,\)"):
        expand_time(torch.zeros(7), cloud())
    with pytest.raises(TypeError, match="bfloat16"):
        TravelingVortex()(cloud(), torch.tensor(0.5, dtype=torch.bfloat16))
