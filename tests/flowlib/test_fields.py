"""Fields: exact divergence, the continuity equation, and the shapes they accept."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from flowlib.derivatives import continuity_residual, divergence
from flowlib.fields import LinearField, TravelingVortex, expand_time, rotation, saddle, shear, spiral

FIELDS = [rotation(), shear(), saddle(), spiral(), TravelingVortex()]


def cloud(n=50, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("v", FIELDS, ids=str)
def test_divergence_is_the_trace_of_the_jacobian(v):
    x = cloud()
    jacobian = torch.autograd.functional.jacobian(lambda y: v(y, 0.3).sum(0), x)  # (2, B, 2)
    torch.testing.assert_close(divergence(v, x, 0.3), jacobian.diagonal(dim1=0, dim2=2).sum(1))


def test_divergence_takes_any_shape_and_one_time_for_each_point():
    x = cloud(6, 27).reshape(6, 3, 3, 3)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    out = divergence(lambda x, t: expand_time(t, x) * x**2 + x.roll(1, dims=-1), x, t)
    torch.testing.assert_close(out, t * 2 * x.flatten(1).sum(1))


@pytest.mark.parametrize("v", [rotation(), shear(), saddle(), TravelingVortex()], ids=str)
def test_area_preserving_fields_have_no_divergence(v):
    assert divergence(v, cloud(), 0.6).abs().max() < 1e-14


def test_the_vortex_travels():
    v = TravelingVortex(strength=2.0, start=(-1.0, 0.0), end=(1.0, 0.0))
    for t, center in [(0.0, -1.0), (0.5, 0.0), (1.0, 1.0)]:
        x = torch.tensor([[center, 0.0], [center, 1e-4]], dtype=torch.float64)
        torch.testing.assert_close(
            v(x, t), torch.tensor([[0.0, 0.0], [-2e-4, 0.0]], dtype=torch.float64), atol=1e-10, rtol=0
        )


def carried_gaussian(field):
    """log p_t of N(0, I) carried by a linear field: N(0, expm(At) expm(At)^T)."""
    matrix = torch.tensor(field.matrix, dtype=torch.float64)

    def log_prob(x, t):
        flow = torch.linalg.matrix_exp(t[:, None, None] * matrix)
        white = torch.linalg.solve(flow, x[:, :, None])[:, :, 0]
        return -0.5 * white.square().sum(1) - math.log(2 * math.pi) - t * matrix.trace()

    return log_prob


@pytest.mark.parametrize(
    "v", [rotation(), shear(), saddle(), spiral(), LinearField(((0.3, -1.2), (0.5, 0.8)))], ids=str
)
def test_the_continuity_equation_holds_for_the_density_that_a_field_carries(v):
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    assert continuity_residual(carried_gaussian(v), v, cloud(), t).abs().max() < 1e-10


def test_the_residual_sees_a_field_that_does_not_generate_the_density():
    t = torch.full((50,), 0.5, dtype=torch.float64)
    assert continuity_residual(carried_gaussian(saddle()), shear(), cloud(), t).abs().max() > 0.1


def test_the_carried_gaussian_is_the_law_of_carried_points():
    v = LinearField(((0.3, -1.2), (0.5, 0.8)))
    flow = torch.linalg.matrix_exp(torch.tensor(v.matrix, dtype=torch.float64) * 0.7)
    reference = MultivariateNormal(torch.zeros(2, dtype=torch.float64), flow @ flow.T).log_prob(cloud())
    torch.testing.assert_close(
        carried_gaussian(v)(cloud(), torch.full((50,), 0.7, dtype=torch.float64)), reference
    )


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"square, got 2 rows of lengths \[2, 1\]"):
        LinearField(((1.0, 0.0), (0.0,)))
    with pytest.raises(ValueError, match=r"2 dimensions, got points of shape \(50, 3\)"):
        rotation()(cloud(50, 3), 0.0)
    with pytest.raises(ValueError, match=r"expected points of shape \(B, 2\), got \(50, 3\)"):
        TravelingVortex()(cloud(50, 3), 0.0)
    with pytest.raises(ValueError, match=r"each of the 50 points, got shape \(7,\)"):
        expand_time(torch.zeros(7), cloud())
    with pytest.raises(TypeError, match="bfloat16"):
        TravelingVortex()(cloud(), torch.tensor(0.5, dtype=torch.bfloat16))
