"""Flow maps: average velocities against closed forms, what they obey and what breaks it, and the losses' gradients."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from flowlib.couplings import exact
from flowlib.fields import TravelingVortex, expand_time, rotation, spiral
from flowlib.flow_maps import (
    FlowMapMLP,
    average_velocity,
    eulerian_residual,
    flow_map,
    intervals,
    jump,
    lagrangian_residual,
    mean_flow_loss,
    shortcut_residual,
)
from flowlib.matching import cfm_loss
from flowlib.paths import linear
from flowlib.solvers import EULER, RK4, odeint
from flowlib.training import cosine_decay, fit
from tests.flowlib.known import cloud, generator, two_modes


def moments(n, seed=5):
    return torch.rand(2, n, generator=generator(seed), dtype=torch.float64)


# The exact average velocity


@pytest.mark.parametrize("v", [rotation(2.0), spiral(-0.5, 3.0)], ids=str)
def test_a_linear_field_has_the_matrix_exponential_for_every_pair_of_times(v):
    x, (s, t) = cloud(20, 2), moments(20)
    ends = torch.cat([v.flow(x[[i]], float(s[i]), float(t[i])) for i in range(20)])
    torch.testing.assert_close(flow_map(v, x, s, t), ends, rtol=0, atol=1e-8)
    expected = (ends - x) / (t - s)[:, None]
    torch.testing.assert_close(average_velocity(v, x, s, t), expected, rtol=0, atol=1e-7)


def test_at_one_time_it_is_the_velocity_and_nearby_it_does_not_cancel():
    v, x, s = TravelingVortex(), cloud(20, 2), moments(20)[0]
    torch.testing.assert_close(average_velocity(v, x, s, s), v(x, s), rtol=1e-12, atol=1e-12)
    near = average_velocity(v, x, s, s + 1e-9)
    torch.testing.assert_close(near, v(x, s), rtol=1e-6, atol=1e-6)


def test_there_and_back_and_in_two_parts():
    v, x, (s, t) = two_modes().marginal_velocity(linear), cloud(20, 2), moments(20)
    there = flow_map(v, x, s, t)
    torch.testing.assert_close(flow_map(v, there, t, s), x, rtol=0, atol=1e-6)
    m = 0.3 * s + 0.7 * t
    torch.testing.assert_close(flow_map(v, flow_map(v, x, s, m), m, t), there, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        flow_map(v, x, 0.0, 1.0), odeint(v, x, steps=400, method=RK4), rtol=0, atol=1e-6
    )


def test_its_derivatives_are_those_of_the_flow():
    """d/dt phi = v(phi, t), also at s = t, and d/ds along the trajectory is zero."""
    v, x = rotation(2.0), cloud(10, 2)
    s = torch.full((10,), 0.4, dtype=torch.float64)
    u = partial(average_velocity, v, method=RK4, steps=40)
    for t in (s, s + 0.5):
        assert lagrangian_residual(u, v, x, s, t).abs().max() < 1e-6
        assert eulerian_residual(u, v, x, s, t).abs().max() < 1e-5


def test_images_conditions_and_float32():
    x = cloud(3, 1, 2, 2, dtype=torch.float32)

    def v(x, t, labels):
        return labels.reshape(-1, 1, 1, 1) * x

    labels = torch.tensor([0.0, 1.0, 2.0])
    end = flow_map(v, x, 0.0, 1.0, cond={"labels": labels})
    assert end.dtype == torch.float32
    torch.testing.assert_close(end, labels.exp().reshape(-1, 1, 1, 1) * x, rtol=1e-4, atol=1e-4)


# What it obeys


EXACT = two_modes().marginal_velocity(linear)


@pytest.fixture(scope="module")
def scattered():
    """The exact average velocity, and points of the flow at random times s with others t, before or after them."""
    s, t = moments(24)
    x = flow_map(EXACT, cloud(24, 2), 0.0, s)
    return partial(average_velocity, EXACT), x, s, t


def test_all_three_identities_hold_to_solver_precision(scattered):
    u, x, s, t = scattered
    assert shortcut_residual(u, x, s, t).abs().max() < 1e-6
    assert lagrangian_residual(u, EXACT, x, s, t).abs().max() < 1e-6
    assert eulerian_residual(u, EXACT, x, s, t).abs().max() < 1e-6


def test_a_wrong_sign_breaks_them(scattered):
    u, x, s, t = scattered
    turned = lambda x, s, t: u(x, t, s)  # noqa: E731  the interval reversed
    assert shortcut_residual(turned, x, s, t).abs().max() > 0.1
    assert lagrangian_residual(turned, EXACT, x, s, t).abs().max() > 0.1
    assert eulerian_residual(turned, EXACT, x, s, t).abs().max() > 0.1
    velocity = EXACT(x, s)
    plus = u(x, s, t) - velocity  # = (t - s) du/ds; with the other sign the residual is twice that
    assert (2 * plus).abs().max() > 0.1


def test_the_velocity_is_no_average_and_euler_is_no_flow(scattered):
    _, x, s, t = scattered
    v = lambda x, s, t: EXACT(x, s)  # noqa: E731
    assert shortcut_residual(v, x, s, t).abs().max() > 0.1
    assert lagrangian_residual(v, EXACT, x, s, t).abs().max() > 0.1
    assert eulerian_residual(v, EXACT, x, s, t).abs().max() > 0.1


def test_at_one_time_the_identities_ask_for_the_velocity(scattered):
    _, x, s, _ = scattered
    off = lambda x, s, t: EXACT(x, s) + 1.0  # noqa: E731
    torch.testing.assert_close(eulerian_residual(off, EXACT, x, s, s), torch.ones_like(x))
    torch.testing.assert_close(lagrangian_residual(off, EXACT, x, s, s), torch.ones_like(x))
    assert shortcut_residual(off, x, s, s).abs().max() == 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_any_number_of_jumps_ends_in_the_same_place(steps):
    x = cloud(10, 2)
    exact_end = odeint(EXACT, x, steps=400, method=RK4)
    u = partial(average_velocity, EXACT)
    torch.testing.assert_close(jump(u, x, steps=steps), exact_end, rtol=0, atol=1e-6)
    euler = jump(lambda x, s, t: EXACT(x, s), x, steps=steps)
    torch.testing.assert_close(euler, odeint(EXACT, x, steps=steps, method=EULER), rtol=1e-12, atol=1e-12)


def test_jumps_at_chosen_times_and_what_times_may_be():
    x, times = cloud(10, 2), torch.tensor([0.0, 0.1, 0.7, 1.0])
    euler = jump(lambda x, s, t: EXACT(x, s), x, times=times)
    torch.testing.assert_close(euler, odeint(EXACT, x, times=times, method=EULER), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="steps or times, not both; got steps=3 and 4 times"):
        jump(EXACT, x, steps=3, times=times)
    with pytest.raises(ValueError, match=r"shape \(N \+ 1,\) with N >= 1, got \(1,\)"):
        jump(EXACT, x, times=times[:1])


# The law of the times


def test_intervals_are_two_uniform_times_in_order():
    s, t = intervals(200_000, instants=0.25, generator=generator())
    assert (s <= t).all() and s.min() >= 0 and t.max() < 1
    same = s == t
    assert same.float().mean().item() == pytest.approx(0.25, abs=0.005)
    apart = ~same
    assert s[apart].mean().item() == pytest.approx(1 / 3, abs=0.003)
    assert t[apart].mean().item() == pytest.approx(2 / 3, abs=0.003)
    assert s[same].mean().item() == pytest.approx(1 / 3, abs=0.006)
    with pytest.raises(ValueError, match=r"a share from 0 to 1, got 1.5"):
        intervals(3, instants=1.5)


# The losses


class Bent(nn.Module):
    """Some average velocity with parameters, smooth in all of its arguments."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64))

    def forward(self, x, s, t):
        s, t = expand_time(s, x), expand_time(t, x)
        return self.a[0] * torch.sin(x + s) + self.a[1] * t * x + self.a[2] * (t - s) ** 2


def by_hand(u, x_0, x_1, s, t, improved):
    """The losses from their formulas, with du/ds by central differences."""
    x = x_0 + s[:, None] * (x_1 - x_0)
    chord, span, h = x_1 - x_0, (t - s)[:, None], 1e-5
    with torch.no_grad():
        d = u(x, s, s) if improved else chord
        slope = (u(x + h * d, s + h, t) - u(x - h * d, s - h, t)) / (2 * h)
    return (u(x, s, t) - span * slope - chord).square().mean()


@pytest.mark.parametrize("improved", [False, True])
def test_value_and_gradient_are_those_of_the_formula(improved):
    u = Bent()
    x_0, x_1 = cloud(6, 2, seed=1), cloud(6, 2, seed=2)
    s, t = moments(6).sort(dim=0).values
    loss = mean_flow_loss(
        u, x_1, x_0=x_0, times=lambda n, generator, device: (s, t), improved=improved, generator=generator()
    )
    expected = by_hand(u, x_0, x_1, s, t, improved)
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=0)
    gradients = [torch.autograd.grad(value, u.a)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=0)


@pytest.mark.parametrize("improved", [False, True])
def test_at_one_time_it_is_flow_matching(improved):
    u, x_1 = Bent(), cloud(50, 2)
    loss = mean_flow_loss(
        u, x_1, times=partial(intervals, instants=1.0), improved=improved, generator=generator()
    )
    g = generator()
    x_0 = torch.randn(50, 2, generator=g, dtype=torch.float64)
    s = intervals(50, instants=1.0, generator=g)[0]
    flow = cfm_loss(lambda x, t: u(x, t, t), x_1, x_0=x_0, times=lambda n, **_: s.double())
    torch.testing.assert_close(loss, flow, rtol=1e-12, atol=0)


def test_the_true_average_velocity_has_no_gradient_left():
    """x_1 = 2 x_0 without noise: u = x / (1 + s), so that the regression is exact for every s and t."""
    a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x_0 = cloud(100, 2)
    u = lambda x, s, t: a * x / (1 + expand_time(s, x))  # noqa: E731
    for improved in (False, True):
        loss = mean_flow_loss(u, 2 * x_0, x_0=x_0, improved=improved, generator=generator())
        assert loss < 1e-25
        assert torch.autograd.grad(loss, a)[0].abs() < 1e-12


def test_the_coupling_and_conditions_are_used():
    x_0, x_1 = torch.tensor([[3.0], [1.0]]), torch.tensor([[0.0], [5.0]])
    seen = {}

    def at_rest(x, s, t, **cond):
        seen.update(cond)
        return torch.zeros_like(x)

    loss = mean_flow_loss(at_rest, x_1, x_0=x_0, coupling=exact, generator=generator(), scale=3)
    assert loss == (1 + 4) / 2 and seen == {"scale": 3}
    with pytest.raises(ValueError, match="return x_1 itself"):
        mean_flow_loss(at_rest, x_1, x_0=x_0, coupling=lambda a, b, generator: (a, b.clone()))
    with pytest.raises(ValueError, match=r"at least one point, got shape \(0, 2\)"):
        mean_flow_loss(at_rest, torch.zeros(0, 2))
    with pytest.raises(TypeError, match="x_1 must be a floating-point tensor"):
        mean_flow_loss(at_rest, torch.zeros(3, 2, dtype=torch.int64))


@pytest.mark.parametrize("improved", [False, True])
def test_it_learns_a_map_that_no_straight_step_makes(improved):
    """N(0, 1) to N(0, 1) on independent pairs: v(x, 0) = -x, one Euler step collapses, and the map is x."""
    net = FlowMapMLP(1, width=32, depth=2, generator=generator(1))

    def loss(u, g):
        return mean_flow_loss(u, torch.randn(512, 1, generator=g), improved=improved, generator=g)

    fit(
        net, loss, steps=1000, lr=1e-2, schedule=cosine_decay, ema=0.99, generator=generator(), progress=False
    )
    x = torch.linspace(-1.5, 1.5, 7)[:, None]
    with torch.no_grad():
        assert (jump(net, x) - x).abs().max() < 0.3
        assert odeint(net, x, steps=1, method=EULER).abs().max() < 0.2  # its instants are the velocity


# The network


def test_without_an_end_it_is_a_field():
    net, x = FlowMapMLP(2, generator=generator(1)), torch.randn(5, 2, generator=generator(2))
    s = torch.rand(5, generator=generator(3))
    torch.testing.assert_close(net(x, s), net(x, s, s))
    torch.testing.assert_close(net(x, 0.25, 0.5), net(x, torch.full((5,), 0.25), torch.full((5,), 0.5)))
    assert not torch.equal(net(x, 0.25, 0.5), net(x, 0.25, 0.75))
    assert sum(p.numel() for p in net.parameters()) == (4 * 64 + 64) + 2 * (64 * 64 + 64) + (64 * 2 + 2)


def test_networks_of_one_seed_are_equal_and_wrong_points_are_named():
    first, second = (FlowMapMLP(2, generator=generator(1)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ValueError, match=r"points must have shape \(B, 2\), got \(5, 3\)"):
        FlowMapMLP(2, generator=generator())(torch.zeros(5, 3), 0.0, 1.0)
    with pytest.raises(ValueError, match="steps must be whole and at least 1"):
        jump(lambda x, s, t: x, torch.zeros(1, 1), steps=0)
    assert math.isclose(float(jump(lambda x, s, t: x, torch.ones(1, 1), steps=2)), 2.25)
