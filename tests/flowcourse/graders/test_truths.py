"""The formulas that the graders hold for right are true: each against an independent computation."""

import math

import pytest
import torch
from torch.func import jacrev, jvp, vmap

from flowcourse.exercises import find
from flowcourse.graders import chapter_01, chapter_03, chapter_10
from flowlib.mmdit_blocks import JointBlock
from flowlib.solvers import RK4, odeint
from flowlib.times import logit_normal, resolution_shift, shift


def test_the_terms_of_the_continuity_equation_are_those_found_by_hand():
    """For N(0, diag(e^{2t}, e^{-t})) and the field of exercise 1.5."""
    x, t = chapter_01.PLACES, chapter_01.MOMENTS
    p = chapter_01._density(x, t).exp()
    grad = p[:, None] * torch.stack([-x[:, 0] * torch.exp(-2 * t), -x[:, 1] * torch.exp(t)], dim=1)
    dt = p * (x[:, 0] ** 2 * torch.exp(-2 * t) - x[:, 1] ** 2 / 2 * torch.exp(t) - 0.5)
    by_hand = dt + (grad * chapter_01._full_field(x, t)).sum(1) + p * (x[:, 1] + torch.exp(t))
    residual = find("1.5").right(chapter_01._density, chapter_01._full_field, x.clone(), t.clone())
    torch.testing.assert_close(residual.detach(), by_hand)


def test_the_field_that_generates_a_density_has_no_residual():
    def generating(x, t):  # stretch and squeeze, and turn along the ellipses
        return torch.stack(
            [x[:, 0] - t * x[:, 1] * torch.exp(t), t * x[:, 0] * torch.exp(-2 * t) - x[:, 1] / 2], dim=1
        )

    x, t = chapter_01.PLACES.clone(), chapter_01.MOMENTS.clone()
    assert find("1.5").right(chapter_01._density, generating, x, t).abs().max() < 1e-15


def test_the_adjoint_agrees_with_automatic_differentiation():
    k, x_0 = (torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in (0.7, 1.3))
    exact = torch.autograd.grad((x_0 * k.exp() + 0.4) ** 2 / 2, (x_0, k))
    assert find("3.3").right(0.7, 1.3, -0.4) == pytest.approx([float(g) for g in exact], rel=1e-12)


def test_one_backward_pass_gives_the_quadratic_form_of_the_jacobian():
    J = vmap(jacrev(lambda y: chapter_03._field(y[None], 0.4)[0]))(chapter_03.PLACES)
    exact = torch.einsum("bi,bij,bj->b", chapter_03.NOISE, J, chapter_03.NOISE)
    estimate = find("3.4").right(chapter_03._field, chapter_03.PLACES, 0.4, chapter_03.NOISE)
    torch.testing.assert_close(estimate.detach(), exact)


def test_the_likelihood_is_that_of_a_linear_flow():
    """For v(x) = A x the law at time 1 is N(0, e^A e^{A^T}); midpoint steps err by the order of 1/N^2."""
    A = torch.tensor([[0.6, 1.5], [-0.4, -0.3]], dtype=torch.float64)
    M = torch.linalg.matrix_exp(A)
    x_1 = torch.randn(5, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(A.new_zeros(2), M @ M.T)
    errors = [
        (find("3.5").right(lambda x, t: x @ A.T, x_1, n) - law.log_prob(x_1)).abs().max() for n in (20, 40)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_the_graders_field_carries_noise_to_the_points():
    """The right answer of 4.5, integrated, ends in the data: each point gets its share within 5 standard errors."""
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = odeint(
        lambda x, t: find("4.5").right(x, t.expand(len(x)), points), noise, t1=0.99, steps=100, method=RK4
    )
    distance, which = torch.cdist(ends, points).min(1)
    assert distance.median() < 0.05
    shares = torch.bincount(which, minlength=3) / 2000
    assert ((shares - 1 / 3).abs() < 5 * (2 / 9 / 2000) ** 0.5).all()


@pytest.mark.parametrize(("a", "s"), [(1.0, 1.0), (0.5, 1.7), (3.0, 0.2)])
def test_the_floor_between_gaussians_is_the_loss_of_the_exact_field(a, s):
    """pi a s / 2 against a midpoint rule for the integral of a^2 s^2 / Sigma, and against samples."""
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert math.isclose(
        (a**2 * s**2 / (t**2 * s**2 + (1 - t) ** 2 * a**2)).mean(), math.pi * a * s / 2, rel_tol=1e-6
    )
    x_0, x_1 = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x_0, x_1 = a * x_0, s * x_1
    x_t, u = (1 - t) * x_0 + t * x_1, x_1 - x_0
    v = (t * s**2 - (1 - t) * a**2) / (t**2 * s**2 + (1 - t) ** 2 * a**2) * x_t
    loss = (v - u).square()
    assert abs(loss.mean() - math.pi * a * s / 2) < 5 * loss.std() / 100_000**0.5


def test_velocity_score_and_marginal_velocity_of_gaussian_paths():
    g = torch.Generator().manual_seed(5)
    # 6.3: a point that keeps its epsilon moves with u
    z, e = torch.randn(2, 50, 2, generator=g, dtype=torch.float64)
    t = torch.rand(50, 1, generator=g, dtype=torch.float64) * 0.9
    x, x_dot = jvp(lambda t: t * z + (1 - t) ** 2 * e, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(find("6.3").right(x, t, z), x_dot)
    # 6.6: x_1 ~ N(m, 4 I), so that x_t is Gaussian with a known score and velocity
    m = torch.tensor([1.0, -2.0], dtype=torch.float64)
    variance = 4 * t**2 + (1 - t) ** 2
    gain = (4 * t - (1 - t)) / variance  # Cov(x_1 - x_0, x_t) / Var(x_t)
    v = m + gain * (x - t * m)
    torch.testing.assert_close(find("6.6").right(v, x, t), -(x - t * m) / variance)
    # 6.5: many samples of z ~ N(0, 1) on the conical path in one dimension give the velocity of N(0, t^2 + (1-t)^2)
    z = torch.randn(200_000, 1, generator=g, dtype=torch.float64)
    x, s = torch.tensor([[0.4]], dtype=torch.float64), 0.4
    log_p = -((x - 0.6 * z.T) ** 2) / (2 * s**2)
    estimate = find("6.5").right(log_p, ((z - x) / s)[None])
    exact = (0.6 - 0.4) / (0.36 + 0.16) * 0.4
    weights = log_p.softmax(1)[0]
    error = math.sqrt(float((weights**2 * ((z - x) / s - exact)[:, 0] ** 2).sum()))  # of the ratio estimate
    assert error < 0.01
    assert abs(float(estimate) - exact) < 5 * error


@pytest.mark.parametrize(("mean", "std", "pixels"), chapter_10.LAWS)
def test_a_law_of_sigma_shifted_is_that_law_of_t(mean, std, pixels):
    """The largest distance of two distribution functions is below 1.63 / sqrt(n) in 99 cases of 100."""
    n = 20_000
    sigma = logit_normal(mean, std)(n, generator=torch.Generator().manual_seed(10)).double()
    t = shift(1 - sigma, resolution_shift(pixels, 1.0)).sort().values
    ranks = (torch.arange(n) + 0.5) / n
    law = logit_normal(*find("10.3").right(mean, std, pixels))
    assert (law.cdf(t) - ranks).abs().max() < 1.63 / n**0.5


def test_masked_words_hear_nothing_of_the_picture_and_the_picture_nothing_of_padding():
    g = torch.Generator().manual_seed(0)
    block = JointBlock(16, 2, qk_norm=True, generator=g)
    for weight in block.parameters():
        weight.data.normal_(generator=g).mul_(0.3)
    x, other, c = torch.randn(3, 2, 5, 16, generator=g).unbind()
    y = torch.randn(2, 4, 16, generator=g)
    said = torch.tensor([[True, True, True, False], [False] * 4])  # the second says nothing
    mask = find("10.4").right(5, said)[:, None]
    x_out, y_out = block(x, y, c[:, 0], mask)
    assert x_out.isfinite().all() and y_out.isfinite().all()
    torch.testing.assert_close(block(other, y, c[:, 0], mask)[1], y_out)
    others, said = torch.randn(y.shape, generator=g), said[:, :, None]
    torch.testing.assert_close(block(x, torch.where(said, y, others), c[:, 0], mask)[0], x_out)
    changed = (block(x, torch.where(said, others, y), c[:, 0], mask)[0] - x_out).abs().amax((1, 2))
    assert changed[0] > 1e-3 and changed[1] == 0  # a picture hears its words, as far as there are any
