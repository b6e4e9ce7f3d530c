"""Continuous flows: densities against closed forms, maximum likelihood, and the adjoint's gradients."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from flowlib.continuous import flow_with_log_det, log_prob, nll_loss, odeint_adjoint
from flowlib.derivatives import rademacher, velocity_and_divergence
from flowlib.fields import LinearField, TravelingVortex, spiral
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import DOPRI5, EULER, MIDPOINT, RK4, odeint, root_mean_square
from tests.flowlib.known import FULL, SIGNS, cloud, counted, generator, matrix_field, network, two_modes

# Densities


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (1, 3, 1)])
def test_a_linear_field_carries_the_normal_law_to_one_in_closed_form(shape):
    d = math.prod(shape)
    A = FULL if d == 3 else cloud(d, d, seed=1) / 3
    assert not torch.allclose(A, A.T, atol=0.1)
    x_1 = 2 * cloud(20, *shape)
    E = torch.linalg.matrix_exp(A)
    expected = MultivariateNormal(torch.zeros(d, dtype=torch.float64), E @ E.T).log_prob(x_1.flatten(1))
    for options in ({"rtol": 1e-9, "atol": 1e-9}, {"method": RK4, "steps": 100}):
        got = log_prob(matrix_field(A), x_1, **options)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("source", [None, GaussianMixture([[0.0, 2.0], [1.0, -1.0]], [0.5, 0.3])])
def test_the_marginal_field_of_a_mixture_gives_its_density_at_every_time(source):
    law = two_modes()
    v, x = law.marginal_velocity(linear, source), law.sample(200, generator=generator())
    for t1 in (0.4, 1.0):
        x_t = linear.sample(cloud(200, 2, seed=7), x, torch.tensor(t1, dtype=torch.float64))[0]
        got = log_prob(v, x_t, base=source, t1=t1, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got, v.log_prob(x_t, t1), atol=1e-6, rtol=0)
    # from a law on the way, too
    half = law.marginal(linear, 0.5, source)
    torch.testing.assert_close(
        log_prob(v, x, base=half, t0=0.5, rtol=1e-9, atol=1e-9), law.log_prob(x), atol=1e-6, rtol=0
    )


def test_the_default_tolerance_gives_average_log_densities_to_a_thousandth_of_a_nat():
    law = two_modes()
    v, x = law.marginal_velocity(linear), law.sample(500, generator=generator())
    for points in (x, x.float()):
        error = log_prob(v, points).double() - law.log_prob(x)
        assert error.mean().abs() < 1e-3
        assert error.square().mean().sqrt() < 3e-3


def test_the_gradient_of_log_prob_is_the_score():
    law = two_modes()
    x = law.sample(50, generator=generator()).requires_grad_()
    log_prob(law.marginal_velocity(linear), x, rtol=1e-9, atol=1e-9).sum().backward()
    torch.testing.assert_close(x.grad, law.score(x.detach()), atol=1e-5, rtol=0)


def test_the_estimate_is_unbiased_in_log_p_and_its_exponential_overestimates():
    """For a linear field, log p is linear in the estimate: the mean over all 8 vectors of signs is exact."""
    x_1 = cloud(1, 3).expand(8, 3)
    options = {"method": RK4, "steps": 20}
    exact = log_prob(matrix_field(FULL), x_1, **options)
    estimates = log_prob(matrix_field(FULL), x_1, noise=SIGNS, **options)
    assert estimates.std() > 1
    torch.testing.assert_close(estimates.mean(), exact[0])
    assert estimates.exp().mean() > 1.5 * exact[0].exp()
    # the noise is the same at all times: e^T A e for the whole of it
    torch.testing.assert_close(
        estimates - exact, -torch.einsum("bi,ij,bj->b", SIGNS, FULL, SIGNS) + FULL.trace()
    )


def test_noise_drawn_afresh_at_every_evaluation_wastes_adaptive_steps():
    x = cloud(64, 3)
    fixed, calls = counted(matrix_field(FULL))
    log_prob(fixed, x, noise=rademacher(x, generator()), rtol=1e-3, atol=1e-3)
    assert len(calls) <= 26

    source, fresh = generator(), []

    def augmented(state, t):
        fresh.append(float(t))
        at = state[:, :3]
        velocity, rate = velocity_and_divergence(matrix_field(FULL), at, t, noise=rademacher(at, source))
        return torch.cat([velocity, rate[:, None]], dim=1)

    start = torch.cat([x, torch.zeros(64, 1, dtype=x.dtype)], dim=1)
    odeint(augmented, start, t0=1.0, t1=0.0, method=DOPRI5, rtol=1e-3, atol=1e-3)
    assert len(fresh) > 20 * len(calls)


def test_fixed_steps_cost_steps_times_stages_evaluations_and_take_a_grid_from_source_to_data():
    law, grid = two_modes(), [0.0, 0.2, 0.5, 1.0]
    x = law.sample(20, generator=generator())
    v, calls = counted(law.marginal_velocity(linear))
    by_steps = log_prob(v, x, method=MIDPOINT, steps=10)
    assert len(calls) == 20 and calls[0] == 1.0
    even = log_prob(v, x, method=MIDPOINT, times=torch.linspace(0, 1, 11, dtype=torch.float64))
    torch.testing.assert_close(even, by_steps, atol=1e-12, rtol=0)
    calls.clear()
    log_prob(v, x, method=EULER, times=grid)
    assert calls == grid[:0:-1]


def test_the_flow_and_its_log_det_agree_with_the_jacobian_and_with_the_way_back():
    v, x = TravelingVortex(), cloud(10, 2)
    stretch = LinearField(((0.5, 1.0), (-0.2, 0.3)))

    def field(x, t):
        return v(x, t) + stretch(x, t) * torch.cos(x)

    options = {"rtol": 1e-10, "atol": 1e-10}
    there, log_det = flow_with_log_det(field, x, **options)
    jacobian = torch.autograd.functional.jacobian(
        lambda y: odeint(field, y, method=DOPRI5, **options).sum(0), x
    )
    torch.testing.assert_close(
        log_det, torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet, atol=1e-7, rtol=0
    )
    back, inverse = flow_with_log_det(field, there, t0=1.0, t1=0.0, **options)
    torch.testing.assert_close(back, x, atol=1e-7, rtol=0)
    torch.testing.assert_close(inverse, -log_det, atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_conditions_pass_through(dtype):
    x, labels = cloud(6, 2, dtype=dtype), torch.arange(6) % 3
    net = network(dtype, classes=3)
    with torch.no_grad():
        both = log_prob(net, x, labels=labels)
        assert both.dtype == dtype
        assert log_prob(net, x, noise=rademacher(x, generator()), labels=labels).dtype == dtype
        one = torch.cat([log_prob(net, x[i : i + 1], labels=labels[i : i + 1]) for i in range(6)])
        assert (log_prob(net, x) - both).abs().max() > 1e-3
    torch.testing.assert_close(both, one, atol=1e-4, rtol=0)


def test_what_has_no_density_is_refused():
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.bfloat16"):
        log_prob(spiral(), torch.zeros(3, 2, dtype=torch.bfloat16), steps=3)
    normal = torch.distributions.Normal(0.0, 1.0)  # of numbers, not of points
    with pytest.raises(ValueError, match=r"one number for each point, must have shape \(3,\), got \(3, 2\)"):
        log_prob(spiral(), torch.zeros(3, 2), base=normal)
    with pytest.raises(ValueError, match=r"at least one point, got shape \(0, 2\)"):
        nll_loss(spiral(), torch.zeros(0, 2))
    assert nll_loss(spiral(), torch.zeros(1, 2)).shape == ()  # one will do


def test_a_point_at_rest_at_the_origin_has_its_density_in_float32():
    at_rest = log_prob(lambda x, t: torch.zeros_like(x), torch.zeros(2, 3))
    torch.testing.assert_close(at_rest, torch.full((2,), -1.5 * math.log(2 * math.pi)))


# Maximum likelihood


@pytest.mark.parametrize("noisy", [False, True])
def test_the_loss_and_its_gradient_through_the_solver_are_the_closed_form(noisy):
    """v = theta x carries N(0, I) to N(0, e^(2 theta) I); signs give its trace exactly."""
    x, theta = cloud(30, 2), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise = rademacher(x, generator()) if noisy else None
    loss = nll_loss(lambda x, t: theta * x, x, noise=noise, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        energy = x.square().sum(1).mean() * torch.exp(-2 * theta)
        expected = energy / 2 + math.log(2 * math.pi) + 2 * theta
    torch.testing.assert_close(loss, expected, atol=1e-7, rtol=0)
    (slope,) = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(slope, 2 - energy, atol=1e-6, rtol=0)


def test_the_loss_of_a_network_has_the_gradient_of_finite_differences():
    net, x = network(), cloud(8, 2)
    loss = partial(nll_loss, net, x, method=RK4, steps=5)
    loss().backward()
    direction = [torch.randn(p.shape, generator=generator(9), dtype=p.dtype) for p in net.parameters()]
    slope = sum((p.grad * e).sum() for p, e in zip(net.parameters(), direction, strict=True))
    values = []
    with torch.no_grad():
        for h in (1e-5, -2e-5):  # forward, then as far on the other side
            for p, e in zip(net.parameters(), direction, strict=True):
                p += h * e
            values.append(loss())
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-5, atol=1e-7, rtol=1e-6)


def test_maximum_likelihood_finds_the_scale_of_the_data():
    x, theta = 3 * cloud(500, 2), torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(40):
        loss = nll_loss(lambda x, t: theta * x, x, method=RK4, steps=10)
        (slope,) = torch.autograd.grad(loss, theta)
        theta.data -= 0.1 * slope
    best = 0.5 * torch.log(x.square().mean())  # where 2 d theta = d log mean |x_i|^2
    torch.testing.assert_close(theta.detach(), best, atol=1e-4, rtol=0)


# Adjoint


def gradients(loss, net, x):
    """dL/dx and dL/dtheta in one row."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *net.parameters()])])


def weighted(out):
    return (out * cloud(*out.shape, seed=11)).sum() + out.square().sum()


def test_the_adjoint_of_a_linear_field_is_the_transposed_exponential():
    A, x, w = FULL.clone().requires_grad_(), cloud(5, 3).requires_grad_(), cloud(5, 3, seed=1)
    out = odeint_adjoint(
        lambda x, t: x @ A.T, x, parameters=[A], t0=0.2, t1=1.1, method=DOPRI5, rtol=1e-10, atol=1e-10
    )
    grad_x, grad_A = torch.autograd.grad((w * out).sum(), [x, A])
    E = torch.linalg.matrix_exp(0.9 * A)
    torch.testing.assert_close(out, x @ E.T, atol=1e-8, rtol=0)
    torch.testing.assert_close(grad_x, (w @ E).detach(), atol=1e-7, rtol=0)
    torch.testing.assert_close(
        grad_A, torch.autograd.grad((w * (x.detach() @ E.T)).sum(), A)[0], atol=1e-7, rtol=0
    )


def test_adjoint_and_back_propagation_both_approach_a_tight_reference():
    net, x = network(), cloud(16, 2).requires_grad_()
    reference = gradients(weighted(odeint(net, x, steps=300, method=RK4)), net, x)
    size = reference.norm()
    errors = {"adjoint": [], "back-propagation": []}
    for tolerance in (1e-4, 1e-6, 1e-8):
        options = {"method": DOPRI5, "rtol": tolerance, "atol": tolerance}
        adjoint = gradients(weighted(odeint_adjoint(net, x, **options)), net, x)
        through = gradients(weighted(odeint(net, x, **options)), net, x)
        errors["adjoint"].append(float((adjoint - reference).norm() / size))
        errors["back-propagation"].append(float((through - reference).norm() / size))
    for name, error in errors.items():
        assert error[0] < 1e-2 and error[1] < 1e-4 and error[2] < 1e-6, (name, errors)


@pytest.mark.parametrize("method", [EULER, MIDPOINT, RK4], ids=lambda method: method.name)
def test_with_fixed_steps_the_adjoint_has_the_order_of_its_method(method):
    net, x = network(), cloud(16, 2).requires_grad_()
    reference = gradients(weighted(odeint(net, x, steps=300, method=RK4)), net, x)
    steps = [8, 16, 32] if method is RK4 else [32, 64, 128]
    errors = [
        float(
            (gradients(weighted(odeint_adjoint(net, x, steps=n, method=method)), net, x) - reference).norm()
        )
        for n in steps
    ]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(method.order, abs=0.25), errors


def test_the_adjoint_keeps_no_state_on_the_way():
    net, x = network(), cloud(16, 2)

    def kept(solve, steps):
        bytes_ = 0

        def pack(tensor):
            nonlocal bytes_
            bytes_ += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            solve(net, x, steps=steps)
        return bytes_

    assert kept(odeint_adjoint, 40) == kept(odeint_adjoint, 4) > 0
    assert kept(odeint, 40) > 9 * kept(odeint, 4) > kept(odeint_adjoint, 4)


def test_the_adjoint_takes_parameters_of_any_field_conditions_and_images():
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    shift = cloud(3, 1, 2, 2, seed=4).requires_grad_()
    frozen = torch.ones((), dtype=torch.float64)
    x = cloud(3, 1, 2, 2).requires_grad_()

    def v(x, t, *, toward):
        return scale * frozen * (toward - x)

    def solve(solve, **options):
        out = solve(v, x, method=RK4, times=[0.0, 0.1, 0.3, 0.6, 1.0], toward=2 * shift, **options)
        return torch.autograd.grad(weighted(out), [x, scale, shift])

    for ours, reference in zip(solve(odeint_adjoint, parameters=[scale, frozen]), solve(odeint), strict=True):
        assert ours.shape == reference.shape
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_a_learned_constant_velocity_and_a_field_without_anything_to_learn():
    wind, x = torch.ones(2, dtype=torch.float64, requires_grad=True), cloud(5, 2).requires_grad_()
    out = odeint_adjoint(lambda x, t: wind.expand_as(x), x, parameters=[wind], steps=3)
    grad_x, grad_wind = torch.autograd.grad(out.sum(), [x, wind])
    torch.testing.assert_close(grad_x, torch.ones_like(x))
    torch.testing.assert_close(grad_wind, torch.full_like(wind, 5.0))
    still = odeint_adjoint(lambda x, t: torch.ones_like(x), x, parameters=(), steps=3)
    torch.testing.assert_close(torch.autograd.grad(still.sum(), x)[0], torch.ones_like(x))


def test_the_accuracy_of_the_adjoint_does_not_depend_on_the_scale_of_the_loss():
    net, x = network(), cloud(16, 2).requires_grad_()
    options = {"method": DOPRI5, "rtol": 1e-5, "atol": 1e-5}
    unit = gradients(weighted(odeint_adjoint(net, x, **options)), net, x)
    small = gradients(1e-8 * weighted(odeint_adjoint(net, x, **options)), net, x)
    torch.testing.assert_close(1e8 * small, unit, rtol=1e-9, atol=1e-9)
    zero = gradients(0 * weighted(odeint_adjoint(net, x, **options)), net, x)
    assert torch.equal(zero, torch.zeros_like(zero))


@pytest.mark.parametrize("noisy", [False, True])
def test_maximum_likelihood_by_the_adjoint_has_the_gradient_of_a_tight_reference(noisy):
    net, x = network(), cloud(8, 2).requires_grad_()
    noise = rademacher(x, generator()) if noisy else None
    reference = gradients(nll_loss(net, x, noise=noise, method=RK4, steps=60), net, x)
    solve = partial(odeint_adjoint, parameters=net.parameters())
    ours = gradients(nll_loss(net, x, noise=noise, solve=solve, rtol=1e-8, atol=1e-8), net, x)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6)


def test_a_field_that_hides_its_parameters_is_refused_by_the_adjoint():
    with pytest.raises(TypeError, match=r"type function .* give parameters="):
        odeint_adjoint(lambda x, t: x, cloud(3, 2), steps=3)


def test_the_adjoint_is_differentiable_once():
    net, x = network(), cloud(4, 2).requires_grad_()
    (first,) = torch.autograd.grad(odeint_adjoint(net, x, steps=3).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# What strangers do


def test_options_that_do_not_apply_are_refused_and_grids_may_repeat_their_ends():
    v, x = spiral(omega=1.0), cloud(4, 2)
    with pytest.raises(ValueError, match=r"times runs from 1 to 0, but t1=0.2 was given"):
        log_prob(v, x, times=[0.0, 0.5, 1.0], t0=0.2)
    with pytest.raises(ValueError, match="rtol, atol and norm belong to adaptive steps"):
        log_prob(v, x, steps=4, method=RK4, rtol=1e-3)
    for name in ("step", "rtoll", "time", "methods"):
        with pytest.raises(TypeError, match=f"no option {name!r}: did you mean"):
            log_prob(v, x, **{name: 1})
    for dtype in (torch.float32, torch.float64):  # its ends are no round numbers in either
        grid = np.linspace(0, 0.999, 11)
        found = log_prob(v, x.to(dtype), times=grid, method=RK4)
        assert torch.equal(found, log_prob(v, x.to(dtype), times=grid, t0=0.0, t1=0.999, method=RK4))
        torch.testing.assert_close(
            found.double(), log_prob(v, x, t1=0.999, rtol=1e-9, atol=1e-9), rtol=0, atol=2e-3
        )


def test_adaptive_steps_stop_at_the_times_of_a_density():
    v, x = TravelingVortex(), cloud(6, 2)
    exact = log_prob(v, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        log_prob(v, x, times=[0.0, 0.37, 1.0], rtol=1e-10, atol=1e-10), exact, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("options", [{}, {"steps": 20}], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("name", ["t0", "t1"])
def test_ends_that_want_a_gradient_are_refused_with_the_remedy(options, name):
    end = torch.tensor(0.5, requires_grad=True)
    for use in (log_prob, partial(odeint_adjoint, parameters=()), flow_with_log_det):
        with pytest.raises(TypeError, match=r"must not require gradients.*dx/ds = \(t1 - t0\)"):
            use(spiral(), cloud(3, 2), method=DOPRI5, **options, **{name: end})


def test_the_remedy_gives_the_gradient_in_the_end():
    end = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    x = cloud(5, 2)
    odeint(lambda x, s: end * spiral()(x, s * end), x, steps=400, method=RK4).sum().backward()
    expected = spiral()(spiral().flow(x, 0.0, 0.8), 0.8).sum()  # d/dt1 x(t1) = v(x(t1), t1)
    torch.testing.assert_close(end.grad, expected, rtol=0, atol=1e-6)


def scaled(x, t, scale):
    """x' = w x with the number w wherever it is kept."""
    while isinstance(scale, dict | list | tuple):
        scale = next(iter(scale.values() if isinstance(scale, dict) else scale))
    return scale * x


# d/dw of the sum of 3 x 2 ones carried by x' = w x: 6 e^w, at w = 0.3
RIGHT = 6 * math.exp(0.3)


@pytest.mark.parametrize(
    "wrapped",
    [lambda w: w, lambda w: {"deep": w}, lambda w: [w], lambda w: {"a": ({"b": w},)}],
    ids=["bare", "dict", "list", "nested"],
)
@pytest.mark.parametrize("also_a_parameter", [False, True])
def test_a_condition_has_its_gradient_wherever_it_is_kept_and_once(wrapped, also_a_parameter):
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 2, dtype=torch.float64)
    parameters = (w, w) if also_a_parameter else ()
    odeint_adjoint(scaled, x, parameters=parameters, steps=50, method=RK4, scale=wrapped(w)).sum().backward()
    assert w.grad.item() == pytest.approx(RIGHT, rel=1e-6)


def test_a_condition_that_is_computed_passes_its_gradient_on():
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 2, dtype=torch.float64)
    odeint_adjoint(scaled, x, parameters=(), steps=50, method=RK4, scale=2 * w / 2).sum().backward()
    assert w.grad.item() == pytest.approx(RIGHT, rel=1e-6)


def test_a_tensor_that_the_adjoint_was_not_told_of_is_noticed():
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    for field in (lambda x, t: w * x, lambda x, t: torch.exp(w).log() * x):
        end = odeint_adjoint(field, x, parameters=(), steps=5)
        with pytest.raises(RuntimeError, match=r"a tensor of shape \(\) that is neither among parameters="):
            end.sum().backward()
    net = network()
    end = odeint_adjoint(lambda x, t: net(x, t), x, parameters=list(net.parameters())[1:], steps=3)
    with pytest.raises(RuntimeError, match="neither among parameters="):
        end.sum().backward()


def test_an_iterator_of_parameters_that_is_used_up_is_noticed():
    """net.parameters() bound once serves the first call and is empty in the second."""
    net, x = network(), cloud(4, 2)
    solve = partial(odeint_adjoint, parameters=net.parameters())
    solve(lambda x, t: net(x, t), x, steps=3).sum().backward()
    first = [p.grad.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"nothing left: give a list, such as \[\*net.parameters\(\)\]"):
        solve(lambda x, t: net(x, t), x, steps=3)
    solve = partial(odeint_adjoint, parameters=[*net.parameters()])
    for _ in range(2):
        net.zero_grad()
        solve(lambda x, t: net(x, t), x, steps=3).sum().backward()
        torch.testing.assert_close([p.grad for p in net.parameters()], first)


def test_idle_parameters_do_not_dilute_the_error_of_the_gradient():
    """A million parameters at rest leave the backward pass as accurate as none."""

    def v(x, t):
        return w * torch.stack([-x[:, 1], x[:, 0]], dim=1) + 0 * idle[:1]

    x = cloud(8, 2)
    gradients = []
    for idle in (torch.zeros(1).double().requires_grad_(), torch.zeros(1_000_000).double().requires_grad_()):
        w = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
        end = odeint_adjoint(v, x, parameters=(w, idle), method=DOPRI5, rtol=1e-4, atol=1e-4)
        end[:, 0].sum().backward()
        gradients.append(w.grad.item())
    exact = (-math.sin(12) * x[:, 0] - math.cos(12) * x[:, 1]).sum().item()
    assert gradients[0] == pytest.approx(gradients[1], abs=1e-9)
    assert gradients[0] == pytest.approx(exact, abs=5e-3 * x.norm().item())


def test_every_single_log_density_keeps_to_the_tolerance():
    """One point that turns fast, among many that hardly move, is as accurate as alone."""

    def v(x, t):
        return x.square().sum(1, keepdim=True) * torch.stack([-x[:, 1], x[:, 0]], dim=1) - 0.5 * x

    far = torch.tensor([[4.0, 0.0]], dtype=torch.float64)
    crowd = torch.cat([far, 0.1 * cloud(999, 2)])
    exact = log_prob(v, far, rtol=1e-11, atol=1e-11)
    alone = (log_prob(v, far) - exact).abs().item()
    counting, worst = counted(v)
    among = (log_prob(counting, crowd)[:1] - exact).abs().item()
    counting, mean = counted(v)
    averaged = (log_prob(counting, crowd, norm=root_mean_square)[:1] - exact).abs().item()
    assert among < 2 * alone + 1e-6
    assert averaged > 10 * among
    assert len(worst) < 8 * len(mean)


def test_a_base_law_that_answers_with_one_number_for_all_is_refused():
    class Odd:
        def log_prob(self, x):
            return torch.zeros(1, dtype=x.dtype)

    with pytest.raises(ValueError, match=r"one number for each point, must have shape \(4,\), got \(1,\)"):
        log_prob(spiral(), cloud(4, 2), base=Odd(), steps=2)


def test_empty_batches_and_points_without_coordinates_have_densities():
    assert log_prob(spiral(), torch.zeros(0, 2)).shape == (0,)
    assert torch.equal(log_prob(lambda x, t: x, torch.zeros(3, 0), steps=2), torch.zeros(3))
