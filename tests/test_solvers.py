"""Solvers: orders of convergence, agreement with scipy, evaluation counts, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from flowlib.fields import TravelingVortex, rotation, saddle, shear, spiral
from flowlib.solvers import EULER, HEUN, MIDPOINT, RK4, Tableau, odeint

METHODS = [EULER, MIDPOINT, HEUN, RK4]
ids = [method.name for method in METHODS]


def cloud(n=64, seed=0, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def forced(x, t):
    """A field whose time enters on its own, so that a wrong c_i costs order: x' = -x + cos 3t."""
    return -x + torch.cos(torch.as_tensor(3 * t, dtype=x.dtype))


def forced_exact(x, t):
    particular = (math.cos(3 * t) + 3 * math.sin(3 * t)) / 10
    return particular + (x - 0.1) * math.exp(-t)


@pytest.mark.parametrize("method", METHODS, ids=ids)
@pytest.mark.parametrize(
    ("v", "exact"),
    [
        (spiral(omega=2.0), lambda x: spiral(omega=2.0).flow(x, 0.0, 1.0)),
        (forced, lambda x: forced_exact(x, 1.0)),
    ],
    ids=["spiral", "forced"],
)
def test_observed_order_is_the_stated_one(method, v, exact):
    steps = np.array([64, 128, 256, 512])
    errors = [
        (odeint(v, cloud(), steps=int(n), method=method) - exact(cloud())).norm(dim=1).max().item()
        for n in steps
    ]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(method.order, abs=0.05), errors


def test_a_tight_solve_agrees_with_scipy_on_a_field_without_closed_form():
    v, x = TravelingVortex(), cloud(8)

    def rhs(t, y):
        return v(torch.from_numpy(y).reshape(8, 2), t).reshape(-1).numpy()

    reference = solve_ivp(rhs, (0.0, 1.0), x.reshape(-1).numpy(), rtol=1e-12, atol=1e-12, method="DOP853").y[
        :, -1
    ]
    ours = odeint(v, x, steps=800, method=RK4).reshape(-1).numpy()
    np.testing.assert_allclose(ours, reference, atol=1e-9)


@pytest.mark.parametrize(
    "v", [rotation(), shear(2.0), saddle(1.5), spiral()], ids=["rotation", "shear", "saddle", "spiral"]
)
def test_linear_fields_follow_the_matrix_exponential(v):
    x = cloud()
    torch.testing.assert_close(odeint(v, x, steps=400, method=RK4), v.flow(x, 0.0, 1.0), atol=2e-8, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_a_solve_costs_steps_times_stages_at_the_tables_times(method):
    seen = []

    def v(x, t):
        seen.append(float(t))
        return -x

    odeint(v, cloud(), steps=7, method=method)
    expected = [(n + c) / 7 for n in range(7) for c in method.c]
    assert len(seen) == 7 * method.stages
    np.testing.assert_allclose(seen, expected, atol=1e-15)
    assert max(seen) <= 1.0


def test_float32_times_never_pass_the_end():
    seen = []

    def v(x, t):
        assert t.dtype == torch.float32
        seen.append(t.item())
        return torch.zeros_like(x)

    for steps in range(1, 80):
        odeint(v, torch.zeros(1, 2), steps=steps, method=HEUN)
    assert max(seen) == 1.0


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_backwards_in_time_undoes_the_flow(method):
    v, x = TravelingVortex(), cloud()
    there = odeint(v, x, steps=200, method=method)
    back = odeint(v, there, t0=1.0, t1=0.0, steps=200, method=method)
    assert (back - x).abs().max() < 20 * (1 / 200) ** method.order * 10


def test_a_grid_of_ones_own_and_the_whole_trajectory():
    x = cloud()
    grid = [0.0, 0.1, 0.4, 1.0]
    times, states = odeint(spiral(), x, times=grid, method=RK4, trajectory=True)
    assert times.tolist() == grid
    assert states.shape == (4, 64, 2)
    assert torch.equal(states[0], x)
    equal = odeint(spiral(), x, times=torch.linspace(0, 1, 11, dtype=torch.float64), method=RK4)
    torch.testing.assert_close(equal, odeint(spiral(), x, steps=10, method=RK4), atol=1e-14, rtol=0)


def test_images_pass_through_and_conditions_reach_the_field():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    out = odeint(lambda x, t, *, scale: scale * x, x, steps=50, method=RK4, scale=0.5)
    torch.testing.assert_close(out, x * math.exp(0.5), atol=1e-5, rtol=0)


def test_gradients_flow_through_the_steps():
    x = cloud(4).requires_grad_()
    odeint(spiral(), x, steps=400, method=RK4).sum().backward()
    matrix = torch.linalg.matrix_exp(torch.tensor(spiral().matrix, dtype=torch.float64))
    torch.testing.assert_close(x.grad, matrix.sum(0).expand(4, 2), atol=1e-8, rtol=0)


def test_half_precision_states_keep_single_precision_times():
    def v(x, t):
        assert x.dtype == torch.bfloat16
        assert t.dtype == torch.float32
        return -x

    assert odeint(v, torch.ones(2, 2, dtype=torch.bfloat16), steps=3).dtype == torch.bfloat16


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 5), st.sampled_from(METHODS))
def test_every_batch_shape_comes_back_as_it_went_in(shape, steps, method):
    out = odeint(lambda x, t: torch.ones_like(x), torch.zeros(shape), steps=steps, method=method)
    assert out.shape == torch.Size(shape)
    torch.testing.assert_close(out, torch.ones(shape))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "either steps= or times="),
        ({"steps": 4, "times": [0.0, 1.0]}, "either steps= or times="),
        ({"steps": 0}, "at least 1, got 0"),
        ({"steps": 2.5}, "at least 1, got 2.5"),
        ({"steps": True}, "at least 1, got True"),
        ({"times": [0.0]}, "at least two times"),
        ({"times": [0.0, 0.5, 0.5]}, "strictly"),
        ({"times": [0.0, 0.5], "t1": 2.0}, "from 0 to 0.5"),
    ],
)
def test_bad_times_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        odeint(spiral(), cloud(), **kwargs)


def test_a_field_with_the_wrong_shape_or_dtype_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(64, 2\), got \(64, 1\)"):
        odeint(lambda x, t: x[:, :1], cloud(), steps=2)
    with pytest.raises(TypeError, match=r"expected torch.float64, got torch.float32"):
        odeint(lambda x, t: x.float(), cloud(), steps=2)
    with pytest.raises(TypeError, match="floating-point"):
        odeint(spiral(), torch.zeros(2, 2, dtype=torch.long), steps=2)


def test_a_blow_up_is_reported_with_its_step_and_time():
    with pytest.raises(FloatingPointError, match=r"after step 15 of 20, from t = 1\.4 to 1\.5"):
        odeint(lambda x, t: torch.where(t < 1.45, x, torch.inf), cloud(), t1=2.0, steps=20, method=RK4)
    with pytest.raises(FloatingPointError, match="blows up"):
        odeint(lambda x, t: x**2, torch.ones(1, 1), t1=2.0, steps=100, method=RK4)


@pytest.mark.parametrize(
    "broken",
    [
        {"a": ((), (0.5, 0.5)), "b": (0.0, 1.0), "c": (0.0, 1.0)},  # implicit
        {"a": ((), (0.5,)), "b": (0.5, 1.0), "c": (0.0, 0.5)},  # weights do not sum to 1
        {"a": ((), (0.5,)), "b": (0.0, 1.0), "c": (0.0, 0.4)},  # c is not the row sum
        {"a": ((), (0.5,)), "b": (0.0, 1.0), "c": (0.0,)},
    ],
)
def test_inconsistent_tables_are_refused(broken):
    with pytest.raises(ValueError, match="broken"):
        Tableau("broken", order=2, **broken)
