"""Rectified flow: the pairs that a flow makes, and energies and straightness against closed forms."""

import math

import pytest
import torch

from flowlib.continuous import flow_with_log_det
from flowlib.fields import TravelingVortex, rotation, saddle, shear
from flowlib.matching import cfm_loss
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.rectified import path_energy, rectify, straightness
from flowlib.solvers import DOPRI5, EULER, HEUN, MIDPOINT, RK4, odeint
from tests.flowlib.known import cloud, counted, generator

OMEGA = 2.0


# Pairs


def test_pairs_are_the_ends_of_the_flow_in_both_directions():
    x = cloud(20, 2)
    v = rotation(OMEGA)
    x_0, x_1 = rectify(v, x, steps=200)
    assert x_0 is x
    torch.testing.assert_close(x_1, v.flow(x, 0.0, 1.0), rtol=0, atol=1e-8)
    before, after = rectify(v, x, steps=200, backwards=True)
    assert after is x
    torch.testing.assert_close(before, v.flow(x, 1.0, 0.0), rtol=0, atol=1e-8)


def test_backwards_time_starts_at_one():
    """The vortex is somewhere else at t = 0, so that a flow with the clock turned around ends elsewhere."""
    x, v = cloud(20, 2), TravelingVortex(strength=3.0)
    torch.testing.assert_close(
        rectify(v, rectify(v, x, steps=300)[1], steps=300, backwards=True)[0], x, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("together", [1, 7, 10, 100])
def test_parts_change_nothing_and_labels_go_along(together):
    x, labels = cloud(10, 3), torch.arange(10.0)

    def v(x, t, *, labels, scale):
        return scale * labels[:, None] * torch.ones_like(x)

    x_1 = rectify(v, x, together=together, labels=labels, scale=torch.tensor([2.0]))[1]
    torch.testing.assert_close(x_1, x + 2 * labels[:, None])


def test_no_gradient_flows_and_no_points_are_no_error():
    slope = torch.tensor(1.0, requires_grad=True)
    assert not rectify(lambda x, t: slope * x, torch.ones(3, 2))[1].requires_grad
    assert rectify(rotation(), torch.zeros(0, 2))[1].shape == (0, 2)
    images = torch.ones(5, 1, 4, 4)
    torch.testing.assert_close(rectify(lambda x, t: x, images, together=2)[1], images * math.e)


def test_the_solver_is_the_one_asked_for():
    x = cloud(4, 2)
    torch.testing.assert_close(rectify(lambda x, t: x, x, method=EULER, steps=1)[1], 2 * x)
    adaptive = rectify(lambda x, t: x, x, method=DOPRI5, steps=None)[1]
    torch.testing.assert_close(adaptive, math.e * x, rtol=1e-4, atol=1e-4)


# Energy and straightness


def test_a_rotation():
    """|v| = w r throughout, and |Z_1 - Z_0| = 2 r sin(w / 2)."""
    x = cloud(30, 2)
    square = x.square().sum(1).mean()
    v = rotation(OMEGA)
    torch.testing.assert_close(path_energy(v, x, steps=200), OMEGA**2 * square, rtol=1e-8, atol=0)
    expected = (OMEGA**2 - 4 * math.sin(OMEGA / 2) ** 2) * square
    torch.testing.assert_close(straightness(v, x, steps=200), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("method", [EULER, MIDPOINT, HEUN, RK4], ids=lambda m: m.name)
def test_a_straight_flow_has_none_with_any_method(method):
    """x(t) = x_0 + t c(x_0): the conical field toward a point, off its singularity, and a shear."""
    x = cloud(30, 2)
    for v in (shear(1.5), lambda x, t: x / (1 + t)):  # x(t) = (1 + t) x_0
        assert straightness(v, x, method=method, steps=3).abs() < (0.06 if method is EULER else 1e-2)
        assert straightness(v, x, method=method, steps=300).abs() < (1e-5 if method is EULER else 1e-9)
    constant = lambda x, t: torch.ones_like(x)  # noqa: E731
    torch.testing.assert_close(path_energy(constant, x, method=method, steps=1), torch.tensor(2.0).double())


@pytest.mark.parametrize(("method", "order"), [(EULER, 1), (MIDPOINT, 2), (HEUN, 2), (RK4, 4)], ids=str)
def test_the_energy_has_the_order_of_its_method(method, order):
    x, v = cloud(30, 2), saddle(1.0)  # |v| = |x|, so int |v|^2 = (e^2 - 1) / 2 x_1^2 + (1 - e^-2) / 2 x_2^2
    exact = ((math.e**2 - 1) / 2 * x[:, 0] ** 2 + (1 - math.e**-2) / 2 * x[:, 1] ** 2).mean()
    errors = [(path_energy(v, x, method=method, steps=n) - exact).abs() for n in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", [EULER, MIDPOINT, HEUN, RK4], ids=lambda m: m.name)
def test_it_is_never_negative_and_equals_its_definition(method):
    x, v = cloud(50, 2), TravelingVortex(strength=6.0)
    assert all(straightness(v, x, method=method, steps=n) >= 0 for n in (1, 2, 5))
    if method is not EULER:
        end = odeint(v, x, steps=400, method=RK4)
        times = (torch.arange(400).double() + 0.5) / 400
        states, squares, t0 = x, [], 0.0
        for t in times.tolist():
            states = odeint(v, states, t0=t0, t1=t, steps=1, method=RK4)
            squares.append((end - x - v(states, t)).square().sum(1).mean())
            t0 = t
        direct = torch.stack(squares).mean()
        torch.testing.assert_close(straightness(v, x, method=method, steps=400), direct, rtol=1e-3, atol=0)


def test_adaptive_steps_and_images():
    x = cloud(6, 2, 3, 3)
    energy = path_energy(lambda x, t: x, x, method=DOPRI5, steps=None)
    expected = (math.e**2 - 1) / 2 * x.flatten(1).square().sum(1).mean()
    torch.testing.assert_close(energy, expected, rtol=1e-4, atol=0)
    assert energy.shape == ()


def test_the_field_is_asked_once_a_stage_and_gets_its_conditions():
    v, calls = counted(lambda x, t, scale: scale * x)
    path_energy(v, cloud(3, 2), steps=5, method=RK4, scale=1.0)
    assert len(calls) == 20


def test_gradients_flow_to_the_field():
    """d/da of int |a x|^2 dt with x = e^{a t}: (e^{2 a} - 1) a / 2."""
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    path_energy(lambda x, t: a * x, torch.ones(4, 1).double(), steps=200).backward()
    expected = (math.exp(1) - 1) / 2 + 0.5 * math.exp(1)
    assert a.grad.item() == pytest.approx(expected, rel=1e-8)


# What reflow promises


def test_reflow_of_a_gaussian_flow_is_the_optimal_line():
    """N(0, 1) to N(0, 4) on independent pairs: x_1 = 2 x_0, in one dimension the optimal map, on a curve first."""
    law = GaussianMixture([[0.0]], [4.0])
    v = law.marginal_velocity(linear)
    x_0, x_1 = rectify(v, cloud(1000, 1), steps=100)
    torch.testing.assert_close(x_1, 2 * x_0, rtol=1e-6, atol=1e-6)
    assert straightness(v, x_0) > 0.05

    def again(x, t):  # E[x_1 - x_0 | x_t] for x_1 = 2 x_0
        return x / (1 + t.reshape(-1, 1))

    assert straightness(again, x_0).abs() < 1e-8
    assert cfm_loss(again, x_1, x_0=x_0, generator=generator()) < 1e-10


def test_energy_lies_above_the_cost_of_the_pairs():
    v = GaussianMixture([[-2.0, 0.0], [2.0, 1.0]], [0.2, 0.4]).marginal_velocity(linear)
    x_0, x_1 = rectify(v, cloud(500, 2), steps=100)
    cost = (x_1 - x_0).square().sum(1).mean()
    energy = path_energy(v, x_0, steps=100)
    torch.testing.assert_close(energy - cost, straightness(v, x_0, steps=100), rtol=1e-4, atol=0)
    assert energy > cost
    assert flow_with_log_det(v, x_0, steps=10)[0].shape == x_1.shape


# Refusals


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        rectify(rotation(), torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="together must be whole and at least 1, got together=0"):
        rectify(rotation(), torch.ones(3, 2), together=0)
    with pytest.raises(ValueError, match=r"at least one point, got shape \(0, 2\)"):
        path_energy(rotation(), torch.zeros(0, 2))
    with pytest.raises(TypeError, match="x_0 must be float32 or float64"):
        straightness(rotation(), torch.ones(3, 2).half())
