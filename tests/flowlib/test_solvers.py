"""Solvers: orders of convergence, agreement with scipy, evaluation counts, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from flowlib.fields import TravelingVortex, rotation, saddle, shear, spiral
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import (
    DOPRI5,
    EULER,
    HEUN,
    MIDPOINT,
    RK4,
    Tableau,
    odeint,
    root_mean_square,
    trajectory,
    worst_point,
)

METHODS = [EULER, MIDPOINT, HEUN, RK4, DOPRI5]
ids = [method.name for method in METHODS]


def cloud(n=64, seed=0, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def forced(x, t):
    """A field whose time enters on its own, so that a wrong c_i costs order: x' = -x + cos 3t."""
    return -x + torch.cos(torch.as_tensor(3 * t, dtype=x.dtype))


def forced_exact(x, t, start=0.0):
    def particular(t):
        return (math.cos(3 * t) + 3 * math.sin(3 * t)) / 10

    return particular(t) + (x - particular(start)) * math.exp(start - t)


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
    # for order 5 few enough that the error stays above rounding, and enough that its leading term rules
    steps = np.array([64, 128, 256, 512]) if method.order < 5 else np.array([40, 60, 90, 135])
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
    times, states = trajectory(spiral(), x, times=grid, method=RK4)
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


# Dormand-Prince


def counted(v):
    """The field, and a list that grows by the time of each evaluation."""
    times = []

    def counting(x, t, **cond):
        times.append(float(t))
        return v(x, t, **cond)

    return counting, times


def two_modes():
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    return GaussianMixture(means, [0.2, 0.4]).marginal_velocity(linear)


KNOWN = {"vortex": TravelingVortex(), "mixture": two_modes()}
each_field = pytest.mark.parametrize("v", KNOWN.values(), ids=KNOWN.keys())


def reference(v, x, rtol=1e-12, atol=1e-12, method="DOP853"):
    def rhs(t, y):
        return v(torch.from_numpy(y).reshape(x.shape), t).reshape(-1).numpy()

    solution = solve_ivp(rhs, (0.0, 1.0), x.reshape(-1).numpy(), rtol=rtol, atol=atol, method=method)
    return torch.from_numpy(solution.y[:, -1]).reshape(x.shape), solution.nfev


def rms(error):
    return error.square().mean().sqrt().item()


def test_the_embedded_pair_meets_the_order_conditions():
    """Each integrates powers of t exactly as far as its order says, and the estimate is 2/3 of the one of 1980."""
    c = np.array([*DOPRI5.c, 1.0])
    fifth, fourth = np.array([*DOPRI5.b, 0.0]), np.array([*DOPRI5.b, 0.0]) - np.array(DOPRI5.error)
    for power in range(5):
        assert fifth @ c**power == pytest.approx(1 / (power + 1), abs=1e-14)
        if power < 4:
            assert fourth @ c**power == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs(fourth @ c**4 - 1 / 5) > 1e-4
    published = [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40]
    np.testing.assert_allclose(DOPRI5.error, 2 / 3 * (fifth - published), atol=1e-15)


@pytest.mark.parametrize("v", [spiral(omega=2.0), forced], ids=["spiral", "forced"])
def test_the_error_estimate_has_the_order_of_the_embedded_method(v):
    """After one step of length h the embedded result errs as h^5 and ours as h^6, so the estimate goes as h^5."""
    lengths, estimates, errors = [0.08, 0.04, 0.02], [], []
    for h in lengths:
        x, slopes = cloud(), []

        def recorded(x, t, slopes=slopes):
            slopes.append(v(x, t))
            return slopes[-1]

        x_next = odeint(recorded, x, t1=h, steps=1, method=DOPRI5)
        recorded(x_next, torch.tensor(h, dtype=x.dtype))
        estimates.append(rms(h * sum(e * k for e, k in zip(DOPRI5.error, slopes, strict=True))))
        errors.append(rms(x_next - odeint(v, x, t1=h, steps=40, method=DOPRI5)))
    assert np.polyfit(np.log(lengths), np.log(estimates), 1)[0] == pytest.approx(5, abs=0.1)
    assert np.polyfit(np.log(lengths), np.log(errors), 1)[0] == pytest.approx(6, abs=0.15)


@each_field
def test_the_error_is_proportional_to_the_tolerance_and_no_worse_than_scipys(v):
    x = cloud(8)
    exact, _ = reference(v, x)
    tolerances, errors, work = np.logspace(-4, -9, 6), [], []
    for tol in tolerances:
        counting, times = counted(v)
        errors.append(rms(odeint(counting, x, method=DOPRI5, rtol=tol, atol=tol) - exact))
        theirs, evaluations = reference(v, x, rtol=tol, atol=tol, method="RK45")
        work.append(len(times) / evaluations * (errors[-1] / rms(theirs - exact)) ** (1 / 5))
        assert errors[-1] < 20 * tol
    # RK45 is the same pair: on average it needs as much work for the same error, at the fifth-order rate
    assert np.exp(np.mean(np.log(work))) < 1.1, work
    assert np.polyfit(np.log(tolerances), np.log(errors), 1)[0] == pytest.approx(1, abs=0.2), errors


@each_field
def test_a_tight_adaptive_solve_agrees_with_an_eighth_order_one(v):
    x = cloud(8)
    ours = odeint(v, x, method=DOPRI5, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours, reference(v, x)[0], atol=1e-9, rtol=0)


@each_field
@pytest.mark.parametrize("n", [1, 256])
def test_no_more_work_than_torchdiffeq_for_the_same_error(v, n):
    """The same pair and the same norm; at 1e-5 each. Work is compared at equal error, by the fifth-order rate."""
    peer = pytest.importorskip("torchdiffeq").odeint
    x = cloud(n, seed=1)
    exact = odeint(v, x, steps=600, method=DOPRI5)
    counting, times = counted(v)
    ours = rms(odeint(counting, x, method=DOPRI5, rtol=1e-5, atol=1e-5) - exact)
    counting, peer_times = counted(v)
    ends = torch.tensor([0.0, 1.0], dtype=x.dtype)
    theirs = rms(
        peer(lambda t, y: counting(y, t), x, ends, method="dopri5", rtol=1e-5, atol=1e-5)[-1] - exact
    )
    assert ours < theirs
    assert len(times) <= len(peer_times) * (theirs / ours) ** (1 / 5)


def test_a_step_costs_six_evaluations_and_the_last_slope_of_one_is_the_first_of_the_next():
    counting, times = counted(TravelingVortex())
    accepted, _ = trajectory(counting, cloud(), method=DOPRI5)
    steps, rejected = divmod(
        len(times) - 2, 6
    )  # the first slope and that of the first step's length come before
    assert rejected == 0
    assert steps >= len(accepted) - 1
    for t in accepted.tolist():  # c = 1 twice (sixth slope and last), and never again as a first slope
        assert times.count(t) >= (1 if t == 0 else 2)
    smooth, times = counted(lambda x, t: -x)
    accepted, _ = trajectory(smooth, cloud(), method=DOPRI5)
    assert len(times) == 2 + 6 * (len(accepted) - 1)
    assert max(times) == 1.0


def test_steps_with_dormand_prince_are_fixed_and_leave_the_seventh_stage_out():
    assert DOPRI5.stages == 6
    counting, times = counted(spiral())
    fixed = odeint(counting, cloud(), steps=10, method=DOPRI5)
    assert len(times) == 60
    one = cloud()
    for n in range(10):
        one = odeint(spiral(), one, t0=n / 10, t1=(n + 1) / 10, steps=1, method=DOPRI5)
    torch.testing.assert_close(one, fixed, atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (0.3, -0.4), (0.0, 1e-6)])
def test_accepted_times_run_strictly_from_t0_to_t1(dtype, t0, t1):
    x = cloud(dtype=dtype)
    times, states = trajectory(TravelingVortex(), x, t0=t0, t1=t1, method=DOPRI5)
    assert times.dtype == states.dtype == dtype
    assert times[0] == torch.tensor(t0, dtype=dtype) and times[-1] == torch.tensor(t1, dtype=dtype)
    assert (times.diff() * math.copysign(1, t1 - t0) > 0).all()
    assert states.shape == (len(times), 64, 2)
    assert torch.equal(states[0], x)
    end = odeint(TravelingVortex(), x, t0=t0, t1=t1, method=DOPRI5)
    assert torch.equal(states[-1], end)
    # and every state on the way lies on the solution
    middle = len(times) // 2
    exact = odeint(TravelingVortex(), x, t0=t0, t1=times[middle].item(), steps=300, method=RK4)
    torch.testing.assert_close(states[middle], exact, atol=3e-3, rtol=0)


def test_no_time_at_all_is_no_evaluation():
    counting, times = counted(spiral())
    at, states = trajectory(counting, cloud(), t0=0.4, t1=0.4, method=DOPRI5)
    assert times == [] and at.tolist() == [0.4] and states.shape == (1, 64, 2)


@each_field
def test_adaptive_steps_backwards_undo_the_flow(v):
    x = cloud()
    there = odeint(v, x, method=DOPRI5, rtol=1e-9, atol=1e-9)
    back = odeint(v, there, t0=1.0, t1=0.0, method=DOPRI5, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


def test_one_batch_is_as_good_as_many_and_any_shape_comes_back():
    x = cloud(48).reshape(2, 3, 4, 4)
    counting, times = counted(lambda x, t, *, rate: rate * x)
    out = odeint(counting, x, method=DOPRI5, rate=-2.0)
    torch.testing.assert_close(out, math.exp(-2) * x, atol=3e-5, rtol=0)
    assert len(times) < 60
    assert odeint(lambda x, t: x, torch.zeros(0, 2), method=DOPRI5).shape == (0, 2)


def test_a_relative_tolerance_alone_takes_coordinates_that_stay_at_zero():
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    out = odeint(lambda x, t: -x, x, method=DOPRI5, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(out, math.exp(-1) * x, rtol=1e-7, atol=0)


def test_a_long_last_step_costs_no_accuracy():
    """Where the end lies just beyond a step, that step reaches for it; the error still keeps to the tolerance."""
    x = cloud()
    for t1 in np.linspace(0.5, 0.6, 21):
        error = odeint(rotation(), x, t1=t1, method=DOPRI5) - rotation().flow(x, 0.0, t1)
        assert rms(error) < 1e-4


def test_gradients_flow_through_adaptive_steps():
    x = cloud(4).requires_grad_()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    out = odeint(lambda x, t: scale * spiral()(x, t), x, method=DOPRI5, rtol=1e-9, atol=1e-9)
    out.sum().backward()
    A = torch.tensor(spiral().matrix, dtype=torch.float64)
    flow = torch.linalg.matrix_exp(A)
    torch.testing.assert_close(x.grad, flow.sum(0).expand(4, 2), atol=1e-6, rtol=0)
    expected = (x.detach() @ (A @ flow).T).sum()  # d/ds exp(s A) = A exp(s A)
    torch.testing.assert_close(scale.grad, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_solution_that_blows_up_stops_the_steps_near_its_pole(dtype):
    """x' = x^2 from 1 is 1 / (1 - t): no step passes t = 1."""
    message = r"Dormand-Prince: at t = (0\.9999|1\.0000|1 )\S* ?no step.*blows up.*end before it"
    with pytest.raises(FloatingPointError, match=message):
        odeint(lambda x, t: x**2, torch.ones(1, 1, dtype=dtype), t1=2.0, method=DOPRI5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_field_that_is_singular_at_the_end_is_reported_there_and_solved_before(dtype):
    """The velocity toward one point, (a - x) / (1 - t): 0/0 at t = 1."""

    def v(x, t):
        return (3.0 - x) / (1 - t)

    x = cloud(dtype=dtype)
    with pytest.raises(FloatingPointError, match=r"at t = (0\.9999|1)\S* no step"):
        odeint(v, x, method=DOPRI5)
    almost = odeint(v, x, t1=0.99, method=DOPRI5)
    torch.testing.assert_close(almost, 3 + 0.01 * (x - 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_that_is_not_finite_passes_in_silence(bad):
    def from_a_time_on(x, t):
        return torch.where(t < 0.3, x, bad)

    def at_one_point(x, t):
        return x.index_fill(0, torch.tensor([3]), bad)

    for v in (from_a_time_on, at_one_point):
        with pytest.raises(FloatingPointError, match="no step meets the tolerance"):
            odeint(v, cloud(), method=DOPRI5)
    with pytest.raises(FloatingPointError, match="at t = 0 "):
        odeint(spiral(), cloud().index_fill(0, torch.tensor([3]), bad), method=DOPRI5)
    # a state that overflows although the field stays finite there
    with pytest.raises(FloatingPointError):
        odeint(lambda x, t: torch.full_like(x, 3e38), torch.full((2, 2), 3e38), method=DOPRI5)


def test_a_table_without_last_stage_in_its_error_is_adaptive_too():
    """Heun with Euler inside: a second-order pair is one more table."""
    pair = Tableau("Heun-Euler", HEUN.a, HEUN.b, HEUN.c, order=2, error=(-1 / 2, 1 / 2, 0.0))
    x = cloud(8)
    errors = [
        rms(odeint(spiral(), x, method=pair, rtol=tol, atol=tol) - spiral().flow(x, 0.0, 1.0))
        for tol in (1e-3, 1e-5)
    ]
    assert errors[1] < errors[0] / 30
    assert errors[1] < 3e-4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rtol": -1e-5}, "rtol=-1e-05"),
        ({"atol": math.nan}, "atol=nan"),
        ({"rtol": math.inf}, "rtol=inf"),
        ({"rtol": 0.0, "atol": 0.0}, "at least 2.2e-17"),
        ({"rtol": 1e-18, "atol": 1e-18}, "at least 2.2e-17"),
        ({"t1": math.inf}, "must be finite"),
        ({"method": RK4}, "either steps= or times=, since RK4 does not estimate its error"),
    ],
)
def test_bad_input_to_adaptive_steps_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        odeint(spiral(), cloud(), **({"method": DOPRI5} | kwargs))


def test_tolerances_finer_than_the_dtype_are_refused():
    with pytest.raises(ValueError, match="bfloat16"):
        odeint(spiral(), cloud(dtype=torch.bfloat16), method=DOPRI5)
    with pytest.raises(TypeError, match=r"expected torch.float64, got torch.float32"):
        odeint(lambda x, t: x.float(), cloud(), method=DOPRI5)


@pytest.mark.parametrize("error", [(0.5, -0.5), (1.0, -1.0, 0.0, 0.0), (0.5, -0.4, 0.0)])
def test_inconsistent_error_weights_are_refused(error):
    with pytest.raises(ValueError, match="error needs 3 weights"):
        Tableau("broken", HEUN.a, HEUN.b, HEUN.c, order=2, error=error)


# What strangers do


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.01), (torch.float16, 2e-3)])
def test_many_steps_in_half_precision_converge(dtype: torch.dtype, tolerance: float):
    """x' = x from 1: a state kept in bfloat16 would stay at 1, since 1 + 1/1000 rounds to 1."""
    x = torch.ones(3, 2, dtype=dtype)
    for steps in (1000, 4000):
        end = odeint(lambda x, t: x, x, steps=steps, method=EULER)
        assert end.dtype == dtype
        torch.testing.assert_close(end.double(), torch.full((3, 2), math.e).double(), rtol=tolerance, atol=0)


def test_steps_too_short_for_a_float32_sum_are_compensated():
    """v = 1 from 1000, 20,000 steps: a step of 5e-5 is less than the last place of 1000 in float32, 6e-5."""
    x = torch.full((2, 1), 1000.0, requires_grad=True)
    end = odeint(lambda x, t: torch.ones_like(x), x, steps=20_000, method=EULER)
    torch.testing.assert_close(end, torch.full((2, 1), 1001.0), rtol=0, atol=1e-4)
    end.sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 1))


def test_adaptive_steps_pass_the_times_asked_for_and_stop_there():
    """On a rotation by 20 radians, one step from each time to the next would be off by 1e5."""
    v, x = rotation(omega=20.0), cloud(8)
    grid = [0.0, 0.3, 0.35, 1.0]
    at, states = trajectory(v, x, times=grid, method=DOPRI5, rtol=1e-9, atol=1e-9)
    assert at.tolist() == grid
    for t, state in zip(grid, states, strict=True):
        torch.testing.assert_close(state, v.flow(x, 0.0, t), atol=1e-6, rtol=0)
    assert torch.equal(odeint(v, x, times=grid, method=DOPRI5, rtol=1e-9, atol=1e-9), states[-1])
    back = odeint(v, states[-1], times=grid[::-1], method=DOPRI5, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


def test_stops_cost_few_evaluations():
    """A stop shortens one step; the next may be as long as the one that was planned."""
    v, x = rotation(omega=20.0), cloud(8)
    plain, often = counted(v), counted(v)
    odeint(plain[0], x, method=DOPRI5)
    odeint(often[0], x, times=[0.0, 0.5, 1.0], method=DOPRI5)
    assert len(often[1]) <= len(plain[1]) + 12


@pytest.mark.parametrize("method", [RK4, DOPRI5], ids=["fixed", "adaptive"])
def test_an_observer_sees_what_the_trajectory_keeps(method):
    options = {"steps": 5} if method is RK4 else {}
    seen = []
    end = odeint(spiral(), cloud(), method=method, observe=lambda t, x: seen.append((t, x)), **options)
    times, states = trajectory(spiral(), cloud(), method=method, **options)
    assert torch.equal(torch.stack([t for t, _ in seen]), times)
    assert torch.equal(torch.stack([x for _, x in seen]), states)
    assert torch.equal(seen[-1][1], end)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 5, "rtol": 1e-3}, ValueError, "rtol, atol and norm belong to adaptive steps; steps=5"),
        ({"steps": 5, "method": DOPRI5, "atol": 1e-3}, ValueError, "takes fixed ones"),
        ({"steps": 5, "norm": worst_point}, ValueError, "rtol, atol and norm belong"),
        (
            {"times": [0.2, 1.0], "t0": 0.0},
            ValueError,
            "times runs from 0.2 to 1, but t0=0.0 was given as well",
        ),
        ({"times": [0.0, 0.9], "t1": 1.0, "method": DOPRI5}, ValueError, "but t1=1.0 was given"),
        ({"steps": 5, "times": [0.0, 1.0], "method": DOPRI5}, ValueError, "either steps= or times="),
        ({"step": 5}, TypeError, "no option 'step': did you mean 'steps'"),
        ({"steps": 5, "rtoll": 1e-3}, TypeError, "did you mean 'rtol'"),
        ({"steps": 5, "time": [0, 1]}, TypeError, "did you mean 'times'"),
        ({"steps": 5, "trajectory": True}, TypeError, r"call trajectory\(v, x, ...\)"),
        ({"steps": 5, "label": 3}, TypeError, "label"),  # a field of the library without conditions
        ({"steps": 5, "t1": torch.ones((), requires_grad=True)}, TypeError, "t1 must not require gradients"),
        ({"times": torch.linspace(0, 1, 3).requires_grad_()}, TypeError, "times must not require gradients"),
        ({"times": [0.0, math.nan, 1.0]}, ValueError, "strictly"),
    ],
)
def test_an_argument_that_does_not_apply_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        odeint(spiral(), cloud(), **options)


def test_times_that_coincide_once_rounded_are_refused():
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"strictly in torch.float32, got \[1.0, 1.00000001"):
        odeint(lambda x, t: x, x, t0=1.0, t1=1.0 + 5e-8, steps=5)
    assert odeint(lambda x, t: x, x.double(), t0=1.0, t1=1.0 + 5e-8, steps=5).shape == (2, 2)
    with pytest.raises(ValueError, match="strictly"):
        odeint(lambda x, t: x, x, times=[0.0, 1.0, math.inf])


@pytest.mark.parametrize("times", [np.linspace(0, 0.999, 11), torch.linspace(0.1, 0.7, 4), [0, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_a_grid_may_be_repeated_as_t0_and_t1(times, dtype):
    x = cloud(dtype=dtype)
    one = odeint(spiral(), x, times=times)
    assert torch.equal(odeint(spiral(), x, times=times, t0=float(times[0]), t1=float(times[-1])), one)


@pytest.mark.parametrize("method", [MIDPOINT, RK4, DOPRI5], ids=["midpoint", "RK4", "adaptive"])
def test_a_field_that_reuses_its_buffer_is_noticed(method):
    x = torch.ones(4, 2)
    buffer = torch.empty_like(x)

    def reused(x, t):
        return torch.mul(x, -1, out=buffer)

    steps = {} if method is DOPRI5 else {"steps": 3}
    if method is MIDPOINT:  # needs one slope at a time, and is right
        torch.testing.assert_close(
            odeint(reused, x, method=method, **steps), odeint(lambda x, t: -x, x, **steps)
        )
        return
    with pytest.raises(RuntimeError, match="wrote its answer over an earlier one"):
        odeint(reused, x, method=method, **steps)
    same = torch.ones_like(x)  # one tensor again and again, unchanged, is no harm
    torch.testing.assert_close(odeint(lambda x, t: same, x, method=method, **steps), 1 + x)


def test_a_field_that_works_in_place_is_noticed_and_the_callers_points_stay():
    x = torch.ones(4, 2)
    with pytest.raises(RuntimeError, match=r"in place: let it work on x.clone\(\)"):
        odeint(lambda x, t: x.mul_(-1), x, steps=3)
    assert torch.equal(x, torch.ones(4, 2))
    with torch.inference_mode():  # where changes are not counted, the caller's points stay all the same
        odeint(lambda x, t: x.mul_(-1), x, steps=3)
    assert torch.equal(x, torch.ones(4, 2))


def test_one_hard_point_hides_in_the_average_but_not_from_the_norm_of_the_worst():
    def v(x, t):  # the farther out, the faster it turns
        return x.square().sum(1, keepdim=True) * torch.stack([-x[:, 1], x[:, 0]], dim=1)

    far = torch.tensor([[5.0, 0.0]], dtype=torch.float64)
    exact = torch.tensor([[5 * math.cos(25), 5 * math.sin(25)]], dtype=torch.float64)
    crowd = torch.cat([far, 0.1 * cloud(999)])
    errors = {}
    for norm in (root_mean_square, worst_point):
        counting, times = counted(v)
        end = odeint(counting, crowd, method=DOPRI5, norm=norm)
        errors[norm] = (end[:1] - exact).norm().item(), len(times)
    alone = (odeint(v, far, method=DOPRI5) - exact).norm().item()
    assert errors[root_mean_square][0] > 20 * alone
    assert errors[worst_point][0] < 2 * alone
    assert errors[worst_point][1] < 8 * errors[root_mean_square][1]


def test_the_norms_of_an_error():
    error = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert root_mean_square(error) == pytest.approx(2.5)
    assert worst_point(error) == pytest.approx(5 / math.sqrt(2))
    for norm in (root_mean_square, worst_point):
        assert norm(torch.zeros(0, 3)) == 0 == norm(torch.zeros(3, 0))
        assert norm(torch.tensor([[1.0], [math.nan]])).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", [HEUN, DOPRI5], ids=["fixed", "adaptive"])
def test_a_field_at_rest_is_solved_in_both_directions(dtype, method):
    steps = {} if method is DOPRI5 else {"steps": 4}
    for ends in ({"t0": 1.0, "t1": 0.0}, {"t0": 0.0, "t1": 1.0}, {"t0": 1000.0, "t1": 1001.0}):
        x = cloud(dtype=dtype)
        assert torch.equal(odeint(lambda x, t: torch.zeros_like(x), x, method=method, **steps, **ends), x)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_ends_other_than_zero_and_one_take_the_whole_way(method):
    x = cloud()
    for t0, t1 in ((0.2, 0.9), (-1.0, 0.5), (0.7, 0.1)):
        end = odeint(forced, x, t0=t0, t1=t1, steps=400, method=method)
        exact = forced_exact(x, t1, t0)
        torch.testing.assert_close(end, exact, atol=20 * (1 / 400) ** method.order, rtol=0)
        grid = odeint(forced, x, times=np.linspace(t0, t1, 401), method=RK4)
        torch.testing.assert_close(grid, exact, atol=1e-8, rtol=0)


def test_the_tolerance_is_relative_to_the_larger_of_a_steps_two_states():
    """x' = 20 x from 1e-8 grows by 5e8: relative to its start alone, the last steps would be as long as the first."""
    x = torch.full((1, 1), 1e-8, dtype=torch.float64)
    end = odeint(lambda x, t: 20 * x, x, method=DOPRI5, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(end, math.exp(20) * x, rtol=1e-6, atol=0)
    counting, shrinking = counted(lambda x, t: -20 * x)
    odeint(counting, 1 / x, method=DOPRI5, rtol=1e-8, atol=0.0)
    counting, growing = counted(lambda x, t: 20 * x)
    odeint(counting, x, method=DOPRI5, rtol=1e-8, atol=0.0)
    assert abs(len(shrinking) - len(growing)) <= 0.25 * len(growing)


def test_gradients_of_states_that_are_kept_in_another_dtype_reach_the_start():
    x = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)
    odeint(lambda x, t: -x, x, steps=50, method=RK4).sum().backward()
    torch.testing.assert_close(x.grad.double(), torch.full((2, 2), math.exp(-1)).double(), rtol=0.02, atol=0)


def test_the_tolerance_without_a_word_is_one_in_a_hundred_thousand():
    x = cloud()
    found = odeint(spiral(), x, method=DOPRI5)
    assert torch.equal(found, odeint(spiral(), x, method=DOPRI5, rtol=1e-5, atol=1e-5))
    for other in ({"rtol": 1.3e-5}, {"atol": 1.3e-5}):
        assert not torch.equal(found, odeint(spiral(), x, method=DOPRI5, **other))


@pytest.mark.parametrize(
    ("v", "calls"),
    [(rotation(), 98), (lambda x, t: -50 * x, 170), (lambda x, t: 0 * x, 32)],
    ids=["rotation", "stiff", "still"],
)
def test_the_first_step_and_the_growth_of_steps_cost_what_they_did(v, calls):
    """Right answers at a higher price would pass every other test."""
    seen = []
    odeint(lambda x, t: seen.append(t) or v(x, t), cloud(), method=DOPRI5)
    assert len(seen) == calls
