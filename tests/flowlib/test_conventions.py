"""The convention translator, against each paper's own formulas and the closed forms of a Gaussian mixture."""

import itertools
import math
import re
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

import flowlib as fl
from flowlib.conventions import (
    DDPM,
    EDM,
    FLOW_MATCHING,
    RECTIFIED_FLOW,
    SD3,
    ddpm,
    edm,
    from_sd3,
    to_sd3,
    translate_guidance,
    translate_prediction,
    translate_state,
    translate_time,
    translated,
    vp_sde,
)
from flowlib.conversions import convert
from flowlib.paths import cosine, linear, variance_preserving
from flowlib.solvers import EULER, RK4, odeint

PAGE = Path(__file__).resolve().parents[2] / "book" / "appendices" / "conventions.md"
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = (1 - BETAS).cumprod(0)


def points(n=40, d=3, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# What each paper writes: at times of its own, the coefficients of data and noise in the state, and the target of its
# network as a function of data, noise and time. Nothing here knows our t.
Paper = namedtuple("Paper", "convention times coefficients target")


def preconditioned(y, n, c_noise, sigma_data=0.5):
    """The target of EDM's bare network: (y - c_skip (y + sigma n)) / c_out."""
    sigma = (4 * c_noise).exp()
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    return (y - c_skip * (y + sigma * n)) / c_out


def bare(c_noise, sigma_data=0.5):
    sigma = (4 * c_noise).exp()
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    return c_in, c_in * sigma


def at(n):
    log_ratio = (ABAR / (1 - ABAR)).log().numpy()
    abar = torch.from_numpy(np.interp(n.numpy(), np.arange(1000), log_ratio)).sigmoid()
    return abar.sqrt(), (1 - abar).sqrt()


def vp(s):
    B = 0.1 * s + 19.9 * s**2 / 2
    return (-B / 2).exp(), (1 - (-B).exp()).sqrt()


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def v_target(y, n, a, s):
    return a * n - s * y


unit, steps = column(0.0, 0.2, 0.7, 1.0), column(0, 1, 400, 998, 999)
s_vp, sigmas = column(0.01, 0.3, 1.0), column(0.002, 0.3, 5, 80)
PAPERS = {
    "flow matching": Paper(FLOW_MATCHING, unit, lambda t: (t, 1 - t), lambda y, n, t: y - n),
    "rectified flow": Paper(
        RECTIFIED_FLOW, 999 * unit, lambda u: (u / 999, 1 - u / 999), lambda y, n, u: y - n
    ),
    "SD3": Paper(SD3, 1000 * unit, lambda u: (1 - u / 1000, u / 1000), lambda y, n, u: n - y),
    "DDPM": Paper(DDPM, steps, at, lambda y, n, u: n),
    "DDPM data": Paper(ddpm(predicts="data"), steps, at, lambda y, n, u: y),
    "DDPM v": Paper(ddpm(predicts="v"), steps, at, lambda y, n, u: v_target(y, n, *at(u))),
    "VP": Paper(vp_sde(), s_vp, vp, lambda y, n, s: n),
    "VP v": Paper(vp_sde(predicts="v"), s_vp, vp, lambda y, n, s: v_target(y, n, *vp(s))),
    "EDM": Paper(EDM, sigmas, lambda s: (1.0 + 0 * s, s), lambda y, n, s: y),
    "EDM F": Paper(edm(0.5), sigmas.log() / 4, bare, preconditioned),
}
each_paper = pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
each_pair = pytest.mark.parametrize(
    ("given", "wanted"),
    list(itertools.permutations(PAPERS.values(), 2)),
    ids=[f"{a} to {b}" for a, b in itertools.permutations(PAPERS, 2)],
)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def shared(*conventions):
    """Our times that all of these have, both ends included: one for each of 40 points."""
    low = max(c.span[0] for c in conventions)
    high = min(c.span[1] for c in conventions)
    return torch.linspace(low, high, 40, dtype=torch.float64)


@each_paper
def test_states_and_targets_are_those_of_the_paper(paper):
    data, noise = points(len(paper.times)), points(len(paper.times), seed=1)
    a, s = paper.coefficients(paper.times)
    x, target = a * data + s * noise, paper.target(data, noise, paper.times)
    to_ours = {"given": paper.convention, "wanted": FLOW_MATCHING}
    t = translate_time(paper.times, **to_ours)
    torch.testing.assert_close(t, a / (a + s), **TIGHT)
    times = paper.times.flatten()
    x_t, v = t * data + (1 - t) * noise, data - noise
    torch.testing.assert_close(translate_state(x, times, **to_ours), x_t, **TIGHT)
    torch.testing.assert_close(translate_prediction(target, x, times, **to_ours), v, **TIGHT)
    back = {"given": FLOW_MATCHING, "wanted": paper.convention}
    torch.testing.assert_close(translate_time(t, **back), paper.times, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(translate_state(x_t, t.flatten(), **back), x, **TIGHT)
    torch.testing.assert_close(translate_prediction(v, x_t, t.flatten(), **back), target, **TIGHT)


@each_pair
def test_there_and_back_is_the_identity(given, wanted):
    there = {"given": given.convention, "wanted": wanted.convention}
    back = {"given": wanted.convention, "wanted": given.convention}
    time = translate_time(
        shared(given.convention, wanted.convention), given=FLOW_MATCHING, wanted=given.convention
    )
    x, prediction = points(), points(seed=1)
    other = translate_time(time, **there)
    torch.testing.assert_close(translate_time(other, **back), time, rtol=1e-10, atol=1e-9)
    y = translate_state(x, time, **there)
    torch.testing.assert_close(translate_state(y, other, **back), x, **TIGHT)
    said = translate_prediction(prediction, x, time, **there)
    torch.testing.assert_close(translate_prediction(said, y, other, **back), prediction, **TIGHT)

    def network(x, time, *, label):
        assert time.shape == (40,) and label == 3
        return x.sin() + time[:, None]

    same = translated(translated(network, **there), **back)(x, time, label=3)
    torch.testing.assert_close(same, network(x, time, label=3), **TIGHT)


# The exact networks of one law

MIXTURE = fl.GaussianMixture(2 * points(4, seed=3), torch.tensor([0.3, 0.5, 0.2, 1.0]).double())


def posterior_means(x, a, s):
    """E[data|x] and E[noise|x] for x = a data + s noise, (B, 1) each, from the textbook formula."""
    mu, S = MIXTURE.means, MIXTURE.covariances[:, None]
    total = a.T**2 * S + s.T**2  # (K, B)
    z = x - a * mu[:, None]  # (K, B, d)
    log_r = MIXTURE.weights.log()[:, None] - (z.square().sum(-1) / total + x.shape[1] * total.log()) / 2
    r = log_r.softmax(0)[..., None]
    data = (r * (mu[:, None] + (a.T * S / total)[..., None] * z)).sum(0)
    noise = (r * (s.T / total)[..., None] * z).sum(0)
    return data, noise


def exact_network(paper):
    def network(x, time):
        time = time[:, None]
        return paper.target(*posterior_means(x, *paper.coefficients(time)), time)

    return network


@each_paper
def test_exact_networks_of_one_law_are_translations_of_its_velocity(paper):
    x, times = points(len(paper.times)), paper.times.flatten()
    v = MIXTURE.marginal_velocity(linear)
    made = translated(v, given=FLOW_MATCHING, wanted=paper.convention)
    torch.testing.assert_close(made(x, times), exact_network(paper)(x, times), rtol=1e-9, atol=1e-9)
    t = translate_time(times, given=paper.convention, wanted=FLOW_MATCHING)
    ours = translated(exact_network(paper), given=paper.convention, wanted=FLOW_MATCHING)
    torch.testing.assert_close(ours(x, t), v(x, t), rtol=1e-9, atol=1e-9)


def test_on_our_path_noise_and_data_are_those_of_convert():
    x, p, t = points(), points(seed=1), shared(DDPM)
    x_ddpm = translate_state(x, t, given=FLOW_MATCHING, wanted=DDPM)
    n = translate_time(t, given=FLOW_MATCHING, wanted=DDPM)
    for predicts in ("noise", "data"):
        v = translate_prediction(p, x_ddpm, n, given=ddpm(predicts=predicts), wanted=FLOW_MATCHING)
        torch.testing.assert_close(v, convert(p, x, t, linear, given=predicts, wanted="velocity"), **TIGHT)


def test_the_v_of_diffusion_is_the_velocity_of_the_cosine_path_backwards_in_radians():
    x, angle = points(), torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    v = MIXTURE.marginal_velocity(cosine)(x, angle)
    t = 1 / (1 + 1 / (math.pi / 2 * angle).tan())  # the same ratio of data to noise
    convention = ddpm(predicts="v")
    n = translate_time(t, given=FLOW_MATCHING, wanted=convention)
    network = translated(MIXTURE.marginal_velocity(linear), given=FLOW_MATCHING, wanted=convention)
    torch.testing.assert_close(network(x, n), -v / (math.pi / 2), rtol=1e-9, atol=1e-9)


def test_edm_with_data_of_unit_variance_predicts_minus_v_in_the_state_of_ddpm():
    x, p, n = points(), points(seed=1), torch.linspace(5, 900, 40, dtype=torch.float64)
    pair = {"given": ddpm(predicts="v"), "wanted": edm(1.0)}
    torch.testing.assert_close(translate_state(x, n, **pair), x, **TIGHT)
    torch.testing.assert_close(translate_prediction(p, x, n, **pair), -p, **TIGHT)


def test_continuous_ddpm_is_the_variance_preserving_path_backwards():
    path, s = variance_preserving(0.2, 15.0), torch.linspace(0.01, 1, 20, dtype=torch.float64)
    alpha, sigma = path.alpha(1 - s), path.sigma(1 - s)
    to_ours = {"given": vp_sde(0.2, 15.0), "wanted": FLOW_MATCHING}
    torch.testing.assert_close(translate_time(s, **to_ours), alpha / (alpha + sigma), **TIGHT)
    assert translate_time(0.0, **to_ours) == 1.0
    constant = {"given": vp_sde(3.0, 3.0), "wanted": FLOW_MATCHING}
    assert translate_time(1.0, **constant) == pytest.approx(1 / (1 + math.expm1(3) ** 0.5), abs=1e-12)


def test_between_two_steps_of_ddpm_the_log_ratio_is_interpolated():
    sigma = lambda n: translate_time(n, given=DDPM, wanted=EDM)  # noqa: E731
    assert sigma(400.5) == pytest.approx((sigma(400) * sigma(401)) ** 0.5, rel=1e-12)
    schedule = torch.linspace(
        0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64
    ).square()  # Stable Diffusion's
    abar = (1 - schedule).cumprod(0)
    stable = {"given": ddpm(abar.float()), "wanted": EDM}
    times = torch.tensor([0, 17, 999])
    torch.testing.assert_close(
        translate_time(times, **stable), ((1 - abar[times]) / abar[times]).sqrt(), rtol=1e-3, atol=0
    )


@each_paper
def test_one_guidance_scale_serves_every_convention(paper):
    """The weights of guidance sum to one, and so it commutes with the translation of predictions."""
    c = MIXTURE.marginal_velocity(linear)
    u = fl.GaussianMixture(points(2, seed=5), [1.0, 2.0]).marginal_velocity(linear)
    t, x = shared(paper.convention), points()
    guided = translated(
        lambda x, t: u(x, t) + 3.5 * (c(x, t) - u(x, t)), given=FLOW_MATCHING, wanted=paper.convention
    )
    theirs_c, theirs_u = (translated(f, given=FLOW_MATCHING, wanted=paper.convention) for f in (c, u))
    time = translate_time(t, given=FLOW_MATCHING, wanted=paper.convention)
    mixed = theirs_u(x, time) + 3.5 * (theirs_c(x, time) - theirs_u(x, time))
    torch.testing.assert_close(guided(x, time), mixed, rtol=1e-9, atol=1e-9)


# Samplers: the deterministic ones of all conventions are Euler's method on our path

v = MIXTURE.marginal_velocity(linear)


def test_ddim_is_our_euler_step():
    eps = translated(v, given=FLOW_MATCHING, wanted=DDPM)
    timesteps = [999, 700, 400, 100, 0]
    x = start = points()
    for now, then in itertools.pairwise(timesteps):  # Song et al. (2021), eq. 12 with sigma = 0
        e = eps(x, float(now))
        data = (x - (1 - ABAR[now]).sqrt() * e) / ABAR[now].sqrt()
        x = ABAR[then].sqrt() * data + (1 - ABAR[then]).sqrt() * e
    to_ours = {"given": DDPM, "wanted": FLOW_MATCHING}
    times = translate_time(torch.tensor(timesteps), **to_ours)
    ours = odeint(v, translate_state(start, 999, **to_ours), times=times, method=EULER)
    torch.testing.assert_close(translate_state(x, 0, **to_ours), ours, **TIGHT)
    # the step to no noise at all, which has no timestep, is the data prediction, and our Euler step to t = 1
    e, low = eps(x, 0.0), times[-1].item()
    data = (x - (1 - ABAR[0]).sqrt() * e) / ABAR[0].sqrt()
    torch.testing.assert_close(data, ours + (1 - low) * v(ours, low), **TIGHT)


def test_euler_on_edm_is_our_euler_step():
    D = translated(v, given=FLOW_MATCHING, wanted=EDM)
    sigmas = torch.tensor([80.0, 20.0, 3.0, 0.3, 0.01], dtype=torch.float64)
    start = 80 * points()
    x = odeint(lambda x, sigma: (x - D(x, sigma)) / sigma, start, times=sigmas, method=EULER)
    to_ours = {"given": EDM, "wanted": FLOW_MATCHING}
    ours = odeint(
        v, translate_state(start, 80.0, **to_ours), times=translate_time(sigmas, **to_ours), method=EULER
    )
    torch.testing.assert_close(translate_state(x, 0.01, **to_ours), ours, **TIGHT)


def test_euler_on_sd3_is_our_euler_step():
    network, x = to_sd3(v), points()
    sigmas = torch.tensor([1.0, 0.9, 0.6, 0.2, 0.0], dtype=torch.float64)
    z = x
    for sigma, below in itertools.pairwise(sigmas):
        z = z + (below - sigma) * network(z, 1000 * sigma)
    torch.testing.assert_close(z, odeint(v, x, times=1 - sigmas, method=EULER), **TIGHT)


@each_paper
def test_a_network_of_any_convention_is_sampled_by_our_solver(paper):
    ours = translated(exact_network(paper), given=paper.convention, wanted=FLOW_MATCHING)
    low, high = paper.convention.span
    solve = {"t0": low, "t1": high, "steps": 30, "method": RK4}
    torch.testing.assert_close(odeint(ours, points(), **solve), odeint(v, points(), **solve), **TIGHT)


# Stable Diffusion 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_sd3_and_back_is_the_identity(dtype):
    x, tight = points(dtype=dtype), {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 1e-13}
    for t in (0.0, 0.3, 1.0, torch.linspace(0, 1, len(x), dtype=dtype)):
        torch.testing.assert_close(from_sd3(to_sd3(v))(x, t), v(x, t), **tight)
    network = to_sd3(v)
    for timestep in (0.0, 250.0, 1000.0):
        torch.testing.assert_close(to_sd3(from_sd3(network))(x, timestep), network(x, timestep), **tight)


def test_a_network_of_sd3_sees_its_own_times_and_its_sign_turns():
    seen = from_sd3(lambda x, timestep: timestep[:, None] * torch.ones_like(x))(points(), 0.75)
    torch.testing.assert_close(seen, torch.full_like(seen, -250.0))


# Half precision, devices, ends


def test_half_precision_keeps_times_and_arithmetic_in_single_precision():
    x = points(dtype=torch.bfloat16)

    def eps(x, n):
        assert (x.dtype, n.dtype) == (torch.bfloat16, torch.float32)
        return x

    result = translated(eps, given=DDPM, wanted=FLOW_MATCHING)(x, 0.3)
    assert result.dtype == torch.bfloat16
    n = translate_time(torch.full((40,), 0.3), given=FLOW_MATCHING, wanted=DDPM)
    x_ddpm = translate_state(x.float(), 0.3, given=FLOW_MATCHING, wanted=DDPM)
    exact = translate_prediction(
        x_ddpm.bfloat16().float(), x_ddpm, n, given=DDPM, wanted=FLOW_MATCHING
    ).bfloat16()
    torch.testing.assert_close(result, exact)


@each_pair
def test_nothing_is_read_where_reading_would_wait(given, wanted):
    """Meta tensors have no numbers to read, and raise where they meet a tensor of the CPU."""
    x, time = torch.empty(5, 2, device="meta"), torch.empty(5, device="meta")
    pair = {"given": given.convention, "wanted": wanted.convention}
    assert translated(lambda x, time: x * time[:, None], **pair)(x, time).device.type == "meta"
    assert translate_state(x, time, **pair).device.type == translate_time(time, **pair).device.type == "meta"


@pytest.mark.parametrize(
    ("time", "given", "wanted", "message"),
    [
        (
            0.0,
            FLOW_MATCHING,
            EDM,
            r"EDM has times from 80 \(noise, our t = 0.01235\) to 0.002 .* flow matching's 0,",
        ),
        (1.0, FLOW_MATCHING, EDM, r"to 0.002 \(data, our t = 0.998\); got flow matching's 1"),
        (math.inf, EDM, SD3, "EDM has times from 80"),
        (0.0, EDM, SD3, "EDM's 0, our t = 1"),
        (-1.5, EDM, SD3, "EDM's -1.5"),
        (math.nan, EDM, SD3, "EDM's nan"),
        (
            0.0,
            FLOW_MATCHING,
            DDPM,
            r"DDPM \(noise\) has times from 999 \(noise, our t = 0.006313\) to 0 \(data",
        ),
        (1.0, FLOW_MATCHING, DDPM, r"our t = 0.9901\); got flow matching's 1"),
        (1000, DDPM, FLOW_MATCHING, "'s 1000"),
        (-1, DDPM, FLOW_MATCHING, "'s -1"),
        (1000.5, SD3, FLOW_MATCHING, "SD3 has times from 1000 .* to 0 .*got SD3's 1000"),
        (999.5, RECTIFIED_FLOW, SD3, "rectified flow has times from 0 .* to 999"),
        (-0.1, vp_sde(), SD3, "VP-SDE .* has times from 1 .* to 0 "),
        (1.1, vp_sde(), SD3, "VP-SDE"),
        (0.0, SD3, vp_sde(predicts="v"), None),
        (1000.0, SD3, vp_sde(), "from 1 "),
        (
            0.0,
            edm(0.5),
            edm(0.5, sigma_max=0.9),
            r"EDM's bare network \(sigma_data=0.5\) has times from -0.02",
        ),
        (torch.linspace(0, 1, 3), FLOW_MATCHING, DDPM, "got flow matching's 0 to 1, our t = 0 to 1"),
    ],
)
def test_times_that_a_convention_does_not_have_are_refused(time, given, wanted, message):
    pair = {"given": given, "wanted": wanted}
    if message is None:
        assert math.isfinite(translate_time(time, **pair))
        return
    x = points(3)
    with pytest.raises(ValueError, match=message):
        translate_time(time, **pair)
    with pytest.raises(ValueError, match=message):
        translate_state(x, time, **pair)
    with pytest.raises(ValueError, match=message):
        translate_prediction(x, x, time, **pair)
    with pytest.raises(ValueError, match="has times from"):  # the field is asked at times of `wanted`
        translated(lambda x, time: x, given=wanted, wanted=given)(x, time)


def test_a_prediction_that_is_the_state_itself_is_refused():
    x, ends = points(), {"given": vp_sde(predicts="data"), "wanted": FLOW_MATCHING}
    with pytest.raises(ValueError, match=r"VP-SDE \(data\) says nothing of the velocity at our t = 1"):
        translate_prediction(x, x, 0.0, **ends)
    assert translate_prediction(x, x, 0.1, **ends).isfinite().all()
    with pytest.raises(ValueError, match="says nothing"):
        translated(lambda x, s: x, **ends)(x, 1.0)


# Bad input

USUAL = {"given": DDPM, "wanted": FLOW_MATCHING}


BAD = [
    (
        lambda: translate_time(3, given="DDPM", wanted=EDM),
        TypeError,
        "given must be a Convention.*'DDPM'",
    ),
    (lambda: translated(v, given=DDPM, wanted=linear), TypeError, "wanted must be a Convention"),
    (lambda: translate_time("3", **USUAL), TypeError, "str"),
    (
        lambda: translate_time(torch.zeros(2).bfloat16(), **USUAL),
        TypeError,
        "time must be float32 or float64",
    ),
    (
        lambda: translate_state(torch.ones(2, 3).long(), 3, **USUAL),
        TypeError,
        "x must be a floating-point",
    ),
    (lambda: translate_state(points(), torch.zeros(3), **USUAL), ValueError, "40 points"),
    (lambda: translate_state(points(), torch.zeros(40).half(), **USUAL), TypeError, "float16"),
    (
        lambda: translate_prediction(points(3), points(), 3, **USUAL),
        ValueError,
        r"expected shape \(40, 3\)",
    ),
    (lambda: translate_prediction(points(), 1.0, 3, **USUAL), TypeError, "x must be a floating-point"),
    (
        lambda: translated(lambda x, n: x[:, 0], **USUAL)(points(), 0.5),
        ValueError,
        "the network's answer",
    ),
    (lambda: translated(v, **USUAL)(points(), torch.zeros(3)), ValueError, "40 points"),
    (lambda: translated(v, **USUAL)(1.0, 0.5), TypeError, "x must be"),
    (lambda: to_sd3(v)(points(), torch.full((40,), 250.0).bfloat16()), TypeError, "bfloat16"),
    (
        lambda: from_sd3(lambda x, timestep: x.long())(points(), 0.5),
        TypeError,
        "must be a floating-point tensor",
    ),
    (
        lambda: ddpm(predicts="epsilon"),
        ValueError,
        "predicts must be one of noise, data, v, got 'epsilon'",
    ),
    (lambda: vp_sde(predicts="score"), ValueError, "predicts must be one of"),
    (lambda: ddpm([0.9, 0.1]), TypeError, "alphas_cumprod must be a floating-point tensor"),
    (lambda: ddpm(torch.ones(2, 2)), ValueError, r"must have shape \(N,\)"),
    (lambda: ddpm(torch.tensor([0.9])), ValueError, "got 1 from"),
    (lambda: ddpm(torch.tensor([])), ValueError, "got 0 from"),
    (lambda: ddpm(torch.tensor([0.9, 0.5, 0.0])), ValueError, "leave out an end that is pure noise"),
    (lambda: ddpm(torch.tensor([1.0, 0.5])), ValueError, r"strictly inside \(0, 1\)"),
    (lambda: ddpm(torch.tensor([0.1, 0.5, 0.9])), ValueError, "must fall"),
    (lambda: ddpm(torch.tensor([0.9, math.nan])), ValueError, "must fall"),
    (lambda: vp_sde(0.0), ValueError, "0 < beta_min <= beta_max, got 0.0, 20.0"),
    (lambda: vp_sde(3.0, 2.0), ValueError, "got 3.0, 2.0"),
    (lambda: edm(0.0), ValueError, "sigma_data=0.0"),
    (lambda: edm(sigma_max=math.inf), ValueError, "sigma_max=inf"),
    (lambda: edm(sigma_min=0.0), ValueError, "sigma_min=0.0"),
    (lambda: edm(sigma_min=2.0, sigma_max=1.0), ValueError, "sigma_min < sigma_max, got 2.0 and 1.0"),
    (
        lambda: translate_guidance(2.0, given="cfg", wanted="imagen"),
        ValueError,
        "given must be one of .*'cfg'",
    ),
    (
        lambda: translate_guidance(2.0, given="imagen", wanted="ho"),
        ValueError,
        "wanted must be one of .*'ho'",
    ),
    (
        lambda: translate_guidance(math.nan, given="imagen", wanted="flowlib"),
        ValueError,
        "finite, got nan",
    ),
    (lambda: translate_guidance(0.5, given="flowlib", wanted="diffusers"), ValueError, "off.*got 0.5"),
    (lambda: translate_guidance(0.0, given="diffusers", wanted="flowlib"), ValueError, "off.*got 0"),
    (lambda: translate_guidance(-0.5, given="ho-salimans", wanted="diffusers"), ValueError, "got 0.5"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Guidance

RULES = {
    "flowlib": lambda u, c, w: u + w * (c - u),
    "imagen": lambda u, c, w: w * c + (1 - w) * u,
    "diffusers": lambda u, c, w: u + w * (c - u) if w > 1 else c,
    "ho-salimans": lambda u, c, w: (1 + w) * c - w * u,
}


@pytest.mark.parametrize(("given", "wanted"), list(itertools.product(RULES, repeat=2)))
def test_translated_guidance_scales_do_the_same(given, wanted):
    u, c = points(), points(seed=1)
    least = 0.0 if given == "ho-salimans" else 1.0
    below = () if "diffusers" in (given, wanted) else (-1.0, 0.3)
    for scale in (*below, least, least + 0.5, 7.5):
        same = translate_guidance(scale, given=given, wanted=wanted)
        torch.testing.assert_close(RULES[wanted](u, c, same), RULES[given](u, c, scale), **TIGHT)


# The page: book/appendices/conventions.md

TEXT = PAGE.read_text()


def rows(first_heading):
    """The cells of the page's table whose header row begins so."""
    table = TEXT[TEXT.index(f"\n| {first_heading} |") + 1 :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_examples_of_the_page_run_and_reach_the_ends_of_the_exact_flow():
    law = fl.three_arms()
    field = law.marginal_velocity(linear)
    names = {"eps": translated(field, given=FLOW_MATCHING, wanted=DDPM)}
    first, others, ddim = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(first, names)
        sampled = names["x"]
        torch.manual_seed(0)
        start = translate_state(torch.randn(1000, 2), 999, given=DDPM, wanted=FLOW_MATCHING)
        exact = odeint(field, start, t0=DDPM.span[0], steps=200, method=RK4)
        exec(others, names)
        exec(ddim, names)
    torch.testing.assert_close(sampled, exact, rtol=0, atol=0.1)
    assert (sampled - exact).square().mean().sqrt() < 0.005  # midpoint with 20 steps
    x, eps = names["start"], names["eps"]
    to_ours = {"given": DDPM, "wanted": FLOW_MATCHING}
    x = translate_state(x, translate_time(999, **to_ours), given=FLOW_MATCHING, wanted=DDPM)
    for now, then in itertools.pairwise([999, 700, 400, 100, 0]):
        e = eps(x, float(now))
        data = (x - (1 - ABAR[now]).sqrt() * e) / ABAR[now].sqrt()
        x = (ABAR[then].sqrt() * data + (1 - ABAR[then]).sqrt() * e).float()
    torch.testing.assert_close(translate_state(x, 0, **to_ours), names["x"], rtol=1e-4, atol=1e-4)
    x, t = points(5, 2, dtype=torch.float32), 0.3
    for network, wanted in (("D", EDM), ("sd3", SD3)):
        back = translated(names[network], given=wanted, wanted=FLOW_MATCHING)
        torch.testing.assert_close(back(x, t), field(x, t), rtol=1e-4, atol=1e-4)


def test_the_times_of_the_page():
    columns = [FLOW_MATCHING, RECTIFIED_FLOW, SD3, DDPM, EDM, edm(0.5)]
    table = rows("Flow matching")
    assert len(table) == 5
    for row in table:
        for cell, wanted in zip(row, columns, strict=True):
            exact = translate_time(float(row[0]), given=FLOW_MATCHING, wanted=wanted)
            assert float(cell) == pytest.approx(exact, rel=6e-4, abs=1e-12)


def test_the_guidance_scales_of_the_page():
    table = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in TEXT.splitlines()
        if '"` |' in line
    ]
    assert {row[-1].strip('`"') for row in table} == set(RULES)
    for *_, u, c, three, seven, name in table:
        for cell, w in ((u, 0), (c, 1), (three, 3), (seven, 7.5)):
            if cell != "–":
                assert float(cell) == translate_guidance(w, given="flowlib", wanted=name.strip('`"'))
            else:
                with pytest.raises(ValueError, match="diffusers"):
                    translate_guidance(w, given="flowlib", wanted=name.strip('`"'))


@each_paper
def test_how_an_error_of_the_velocity_counts_as_the_page_says(paper):
    t, x, e = shared(paper.convention), points(), points(seed=1)
    r, q = (t**2 + (1 - t) ** 2).sqrt(), ((0.5 * t) ** 2 + (1 - t) ** 2).sqrt()
    [name] = [name for name, other in PAPERS.items() if other is paper]
    factor = {
        "SD3": -1 + 0 * t,
        "DDPM": -t,
        "VP": -t,
        "DDPM v": -r,
        "VP v": -r,
        "EDM": 1 - t,
        "EDM F": q / 0.5,
    }
    factor["DDPM data"] = 1 - t
    says = {"given": FLOW_MATCHING, "wanted": paper.convention}
    error = translate_prediction(x + e, x, t, **says) - translate_prediction(x, x, t, **says)
    torch.testing.assert_close(error, factor.get(name, 1 + 0 * t)[:, None] * e, **TIGHT)


def test_a_network_may_answer_in_half_precision_as_under_autocast():
    x = torch.linspace(-1, 1, 8).reshape(4, 2)
    exact = fl.translated(lambda x, time: -x, given=fl.SD3, wanted=fl.FLOW_MATCHING)(x, 0.5)
    half = fl.translated(lambda x, time: -x.bfloat16(), given=fl.SD3, wanted=fl.FLOW_MATCHING)(x, 0.5)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2**-8, atol=0)
