"""Derivatives of fields: divergences against closed forms, and the continuity equation."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from flowlib import derivatives
from flowlib.continuous import flow_with_log_det, log_prob, odeint_adjoint
from flowlib.conversions import converted
from flowlib.derivatives import continuity_residual, divergence, rademacher, velocity_and_divergence
from flowlib.fields import (
    LinearField,
    TravelingVortex,
    expand_time,
    rotation,
    saddle,
    shear,
    spiral,
)
from flowlib.paths import linear
from flowlib.solvers import RK4
from tests.flowlib.known import FULL, SIGNS, cloud, counted, generator, matrix_field, network, two_modes

PLANE = [rotation(), shear(), saddle(), spiral(), TravelingVortex()]


@pytest.mark.parametrize(("points", "d"), [(1, 5), (1, 11), (300, 30), (500, 17), (3000, 9), (5000, 3)])
def test_the_divergence_is_the_trace_of_the_jacobian_however_many_rows_are_taken_at_once(points, d):
    x, t = cloud(points, d), torch.linspace(0, 1, points, dtype=torch.float64)
    A = cloud(d, d, seed=1)

    def v(x, t):
        return expand_time(t, x) * torch.sin(x @ A.T)

    expected = t * (torch.cos(x @ A.T) * A.diagonal()).sum(1)
    torch.testing.assert_close(divergence(v, x, t), expected)
    torch.testing.assert_close(derivatives.divergence(v, x, t), expected)


def test_velocity_and_divergence_come_from_one_evaluation_for_any_shape():
    x = cloud(3, 2, 2, 3)
    A = cloud(12, 12, seed=1)
    for noise in (None, rademacher(x, generator())):
        v, calls = counted(matrix_field(A))
        velocity, div = velocity_and_divergence(v, x, 0.3, noise=noise)
        assert calls == [0.3]
        torch.testing.assert_close(velocity, matrix_field(A)(x, 0.3))
        e = None if noise is None else noise.flatten(1)
        torch.testing.assert_close(
            div, A.trace().expand(3) if e is None else torch.einsum("bi,ij,bj->b", e, A, e)
        )


def test_a_graph_is_kept_where_a_gradient_is_asked_and_nowhere_else():
    x, net = cloud(4, 2), network()

    def asks(v, x, **kwargs):
        velocity, div = velocity_and_divergence(v, x, 0.5, **kwargs)
        assert velocity.requires_grad == div.requires_grad
        return div.requires_grad

    for noise in (None, rademacher(x, generator())):
        assert asks(net, x, noise=noise)  # its parameters ask
        assert asks(two_modes().marginal_velocity(linear), x.clone().requires_grad_(), noise=noise)
        assert asks(
            lambda x, t, *, scale: scale * x**2, x, noise=noise, scale=torch.ones(4, 1).requires_grad_()
        )
        assert not asks(two_modes().marginal_velocity(linear), x, noise=noise)
        with torch.no_grad():
            assert not asks(net, x.clone().requires_grad_(), noise=noise)
    net.requires_grad_(False)
    assert not asks(net, x)
    assert not x.requires_grad


def test_divergences_differentiate_to_their_closed_form():
    x, w = cloud(6, 3).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def v(x, t):
        return w * x**3 + x.roll(1, dims=1)

    grad_x, grad_w = torch.autograd.grad(divergence(v, x, 0.0).sum(), [x, w])  # sum_i 3 w x_i^2
    torch.testing.assert_close(grad_x, 6 * w.detach() * x.detach())
    torch.testing.assert_close(grad_w, 3 * x.detach().square().sum())
    e = cloud(6, 3, seed=2)
    estimate = divergence(v, x, 0.0, noise=e)
    grad_x, grad_w = torch.autograd.grad(estimate.sum(), [x, w])
    torch.testing.assert_close(grad_x, 6 * w.detach() * x.detach() * e**2)
    torch.testing.assert_close(grad_w, 3 * (x.detach() * e).square().sum())


def test_a_field_that_ignores_its_points_has_no_divergence():
    wind = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for v in (lambda x, t: torch.ones_like(x), lambda x, t: wind.expand_as(x)):
        for noise in (None, cloud(5, 2)):
            assert torch.equal(
                divergence(v, cloud(5, 2), 0.0, noise=noise), torch.zeros(5, dtype=torch.float64)
            )


def test_a_condition_made_from_the_points_is_held_constant():
    x = cloud(4, 2).requires_grad_()
    div = divergence(lambda x, t, *, scale: scale * x, x, 0.0, scale=x.square().sum(1, keepdim=True))
    torch.testing.assert_close(div, 2 * x.square().sum(1))


def test_hutchinson_with_signs_has_the_mean_and_variance_of_theory_exactly():
    """All 8 vectors of signs at once are an expectation, not a sample of one."""
    estimates = divergence(matrix_field(FULL), torch.zeros_like(SIGNS), 0.0, noise=SIGNS)
    S = (FULL + FULL.T) / 2
    off_diagonal = S - S.diagonal().diag()
    assert off_diagonal.abs().max() > 0.4
    torch.testing.assert_close(estimates.mean(), FULL.trace())
    torch.testing.assert_close(estimates.var(correction=0), 2 * off_diagonal.square().sum())
    # and where the symmetric part is diagonal, every vector of signs gives the trace itself
    diagonal = torch.tensor([[1.0, -3.0, 2.0], [3.0, 2.0, 0.5], [-2.0, -0.5, 0.0]], dtype=torch.float64)
    exact = divergence(matrix_field(diagonal), torch.zeros_like(SIGNS), 0.0, noise=SIGNS)
    torch.testing.assert_close(exact, torch.full((8,), 3.0, dtype=torch.float64))


def test_hutchinson_with_gaussian_noise_varies_more():
    n, S = 100_000, (FULL + FULL.T) / 2
    estimates = divergence(matrix_field(FULL), cloud(n, 3), 0.0, noise=cloud(n, 3, seed=5))
    variance = 2 * S.square().sum()
    fourth = (
        48 * torch.linalg.matrix_power(S, 4).trace() + 3 * variance**2
    )  # a quadratic form's central moment
    assert abs(estimates.mean() - FULL.trace()) < 5 * (variance / n).sqrt()
    assert abs(estimates.var() - variance) < 5 * ((fourth - variance**2) / n).sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rademacher_draws_signs_like_x_from_the_generator(dtype):
    x = torch.zeros(2500, 2, 2, dtype=dtype).requires_grad_()
    e = rademacher(x, generator())
    assert e.shape == x.shape and e.dtype == dtype and not e.requires_grad
    assert torch.equal(e.abs(), torch.ones_like(e))
    assert e.double().mean().abs() < 5 / math.sqrt(e.numel())
    assert torch.equal(e, rademacher(x, generator())) and not torch.equal(e, rademacher(x, generator(1)))


@pytest.mark.parametrize("noise", [torch.ones(4, 3), torch.ones(4, 2), torch.ones(2, dtype=torch.float64)])
def test_noise_that_is_not_like_the_points_is_refused(noise):
    with pytest.raises((ValueError, TypeError), match=r"noise must be like x: expected .*, got"):
        divergence(spiral(), cloud(4, 2), 0.0, noise=noise)


def test_inference_mode_is_refused_with_the_remedy():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="no_grad"):
        divergence(spiral(), cloud(4, 2), 0.0)


@pytest.mark.parametrize("v", PLANE, ids=str)
def test_divergence_is_the_trace_of_the_jacobian(v):
    x = cloud(50, 2)
    jacobian = torch.autograd.functional.jacobian(lambda y: v(y, 0.3).sum(0), x)  # (2, B, 2)
    torch.testing.assert_close(divergence(v, x, 0.3), jacobian.diagonal(dim1=0, dim2=2).sum(1))


def test_divergence_takes_any_shape_and_one_time_for_each_point():
    x = cloud(6, 27).reshape(6, 3, 3, 3)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    out = divergence(lambda x, t: expand_time(t, x) * x**2 + x.roll(1, dims=-1), x, t)
    torch.testing.assert_close(out, t * 2 * x.flatten(1).sum(1))


@pytest.mark.parametrize("v", [rotation(), shear(), saddle(), TravelingVortex()], ids=str)
def test_area_preserving_fields_have_no_divergence(v):
    assert divergence(v, cloud(50, 2), 0.6).abs().max() < 1e-14


# The continuity equation


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
    assert continuity_residual(carried_gaussian(v), v, cloud(50, 2), t).abs().max() < 1e-10


def test_the_residual_sees_a_field_that_does_not_generate_the_density():
    t = torch.full((50,), 0.5, dtype=torch.float64)
    assert continuity_residual(carried_gaussian(saddle()), shear(), cloud(50, 2), t).abs().max() > 0.1


def test_the_carried_gaussian_is_the_law_of_carried_points():
    v = LinearField(((0.3, -1.2), (0.5, 0.8)))
    flow = torch.linalg.matrix_exp(torch.tensor(v.matrix, dtype=torch.float64) * 0.7)
    reference = MultivariateNormal(torch.zeros(2, dtype=torch.float64), flow @ flow.T).log_prob(cloud(50, 2))
    torch.testing.assert_close(
        carried_gaussian(v)(cloud(50, 2), torch.full((50,), 0.7, dtype=torch.float64)), reference
    )


@pytest.mark.parametrize("shape", [(50, 1), (1,), ()])
def test_a_log_density_that_is_not_one_number_a_point_is_refused(shape):
    """One of (B, 1) would broadcast to (B, B) in silence."""

    def broadcasting(x, t):
        return -x.square().sum() * torch.ones(shape, dtype=x.dtype) + t.sum()

    with pytest.raises(ValueError, match=r"log_prob\(x, t\) must have shape \(50,\)"):
        continuity_residual(broadcasting, rotation(), cloud(50, 2), 0.5)


# Fields that hide their derivative

A = torch.tensor([[0.3, -1.0], [0.5, 0.2]], dtype=torch.float64)
HIDING = {
    "no_grad": torch.no_grad()(lambda x, t: x @ A.T),
    "detached": lambda x, t: (x @ A.T).detach(),
    "detached points": lambda x, t: x.detach() @ A.T,
    "through numpy": lambda x, t: torch.from_numpy(x.detach().numpy() @ A.numpy().T),
    "a parameter's graph only": lambda x, t: (x.detach() @ A.T) * torch.ones((), requires_grad=True),
}
USES = {
    "divergence": lambda v, x: divergence(v, x, 0.5),
    "Hutchinson": lambda v, x: divergence(v, x, 0.5, noise=torch.ones_like(x)),
    "log_prob": lambda v, x: log_prob(v, x),
    "log_prob, fixed steps": lambda v, x: log_prob(v, x, steps=4, method=RK4),
    "flow_with_log_det": lambda v, x: flow_with_log_det(v, x),
    "residual": lambda v, x: continuity_residual(lambda x, t: -x.square().sum(1) + 0 * t, v, x, 0.5),
    "adjoint": lambda v, x: odeint_adjoint(v, x.requires_grad_(), parameters=(), steps=4).sum().backward(),
    "converted": lambda v, x: divergence(converted(v, linear, given="data", wanted="velocity"), x, 0.5),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("v", HIDING.values(), ids=HIDING)
def test_a_field_without_a_graph_to_its_points_is_not_taken_for_constant(v, use):
    """Taken for constant, x' = A x would have log p_1(0) = -1.8379; it is -1.8379 - tr A = -2.3379."""
    with pytest.raises(RuntimeError, match=r"no graph back|neither among parameters="):
        use(v, torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("x", [0.0, 1.0, -1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hidden_slope_beside_a_large_constant_is_seen_wherever_the_points_stand(x, dtype):
    with pytest.raises(RuntimeError, match="no graph back"):
        divergence(lambda x, t: (100 + x).detach(), torch.full((2, 2), x, dtype=dtype), 0.5)


def test_the_log_density_of_the_field_with_its_graph():
    found = log_prob(lambda x, t: x @ A.T, torch.zeros(1, 2, dtype=torch.float64))
    assert found.item() == pytest.approx(-math.log(2 * math.pi) - 0.5, abs=1e-5)


def test_a_field_that_is_truly_constant_keeps_its_divergence_of_zero():
    for v in (lambda x, t: torch.ones_like(x), lambda x, t: t * torch.ones_like(x)):
        assert torch.equal(divergence(v, cloud(3, 2), 0.5), torch.zeros(3, dtype=torch.float64))
