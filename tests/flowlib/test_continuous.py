"""Continuous flows: divergences, densities against closed forms, maximum likelihood, and the adjoint's gradients."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from flowlib import derivatives
from flowlib.continuous import flow_with_log_det, log_prob, nll_loss, odeint_adjoint
from flowlib.derivatives import divergence, rademacher, velocity_and_divergence
from flowlib.fields import LinearField, TravelingVortex, expand_time, spiral
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.paths import linear
from flowlib.solvers import DOPRI5, EULER, MIDPOINT, RK4, odeint

# neither symmetric nor triangular, with a symmetric part that is far from diagonal
FULL = torch.tensor([[0.4, 1.5, -0.3], [-0.6, 0.2, 0.8], [0.9, 0.1, -0.7]], dtype=torch.float64)
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)  # all (8, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def matrix_field(matrix):
    """x' = A x on points of any shape."""
    return lambda x, t: (x.flatten(1) @ matrix.T).reshape(x.shape)


def two_modes():
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    return GaussianMixture(means, [0.2, 0.4])


def network(dtype=torch.float64, classes=0):
    return VelocityMLP(2, width=16, depth=2, classes=classes, generator=generator(3)).to(dtype)


def counted(v):
    calls = []

    def counting(x, t, **cond):
        calls.append(float(t))
        return v(x, t, **cond)

    return counting, calls


# Divergence


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
