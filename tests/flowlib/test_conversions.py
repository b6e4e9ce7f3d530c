"""Conversions between velocity, data, noise and score, against the closed forms of Gaussian mixtures."""

import itertools
import math

import pytest
import torch
from hypothesis import given as examples
from hypothesis import strategies as st

from flowlib.conversions import convert, converted
from flowlib.mixtures import GaussianMixture
from flowlib.paths import AffinePath, conical, cosine, linear, variance_preserving
from flowlib.solvers import DOPRI5, odeint

KINDS = ["velocity", "data", "noise", "score"]
PAIRS = list(itertools.permutations(KINDS, 2))
PATHS = [linear, conical(), conical(0.2), cosine, variance_preserving()]
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
each_pair = pytest.mark.parametrize(("given", "wanted"), PAIRS, ids=[f"{a} to {b}" for a, b in PAIRS])


def points(n=40, d=3, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


MIXTURE = GaussianMixture(2 * points(4, seed=3), torch.tensor([0.3, 0.5, 0.2, 1.0]).double())


def posterior_means(path, x, t):
    """E[x_1|x_t] and E[x_0|x_t] component by component, from the textbook formula and not from a velocity."""
    alpha, sigma = (float(c(torch.tensor(t, dtype=torch.float64))) for c in (path.alpha, path.sigma))
    mu, S = MIXTURE.means, MIXTURE.covariances[:, None]
    total = alpha**2 * S + sigma**2
    z = x - alpha * mu[:, None]  # (K, B, d)
    log_r = MIXTURE.weights.log()[:, None] - (z.square().sum(-1) / total + x.shape[1] * total.log()) / 2
    r = log_r.softmax(0)[..., None]
    data = (r * (mu[:, None] + (alpha * S / total)[..., None] * z)).sum(0)
    noise = (r * (sigma / total)[..., None] * z).sum(0)
    return data, noise


def truth(path, x, t):
    v = MIXTURE.marginal_velocity(path)
    data, noise = posterior_means(path, x, t)
    return {"velocity": v(x, t), "score": v.score(x, t), "data": data, "noise": noise}


@each_pair
@each_path
@pytest.mark.parametrize("t", [0.01, 0.3, 0.7, 0.99])
def test_every_conversion_is_that_of_the_closed_forms(path, given, wanted, t):
    x = points()
    exact = truth(path, x, t)
    result = convert(exact[given], x, t, path, given=given, wanted=wanted)
    torch.testing.assert_close(result, exact[wanted], rtol=1e-9, atol=1e-9)


@each_path
def test_from_a_velocity_data_and_noise_are_exact_on_the_whole_interval(path):
    x = points()
    for t in (0.0, 1e-9, 1 - 1e-9, 1.0):
        exact = truth(path, x, t)
        for wanted in ("data", "noise"):
            result = convert(exact["velocity"], x, t, path, given="velocity", wanted=wanted)
            torch.testing.assert_close(result, exact[wanted], rtol=1e-10, atol=1e-10)


@each_pair
@each_path
def test_fields_are_converted_up_to_both_ends(path, given, wanted):
    v, x = MIXTURE.marginal_velocity(path), points()

    def field(x, t):
        known = {"velocity": v, "score": v.score}
        if given in known:
            return known[given](x, t)
        return posterior_means(path, x, float(t))[given == "noise"]

    result = converted(field, path, given=given, wanted=wanted)
    # Beside the ends the truth moves by O(margin) = 1e-8, or 6e-6 from data to score, times its slope in t.
    rough = path.name == "variance preserving" and wanted == "noise"  # goes as sqrt(1 - t)
    slack = 1e-3 if (given, wanted) == ("data", "score") or rough else 3e-6
    for t in (0.0, 1e-10, 0.5, 1 - 1e-10, 1.0):
        torch.testing.assert_close(result(x, t), truth(path, x, t)[wanted], rtol=slack, atol=slack)


def test_a_velocity_made_from_a_score_is_solved_like_the_velocity_itself():
    for path in PATHS:
        v, x = MIXTURE.marginal_velocity(path), points()
        made = converted(v.score, path, given="score", wanted="velocity")
        kwargs = {"method": DOPRI5, "rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(odeint(made, x, **kwargs), odeint(v, x, **kwargs), atol=1e-5, rtol=1e-5)


@examples(st.sampled_from(PATHS), st.sampled_from(PAIRS), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_there_and_back_is_the_identity_at_one_time_for_each_point(path, pair, shape):
    given, wanted = pair
    g = torch.Generator().manual_seed(0)
    x, prediction = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    t = 0.1 + 0.8 * torch.rand(shape[0], generator=g, dtype=torch.float64)
    there = convert(prediction, x, t, path, given=given, wanted=wanted)
    assert there.shape == x.shape
    back = convert(there, x, t, path, given=wanted, wanted=given)
    torch.testing.assert_close(back, prediction, rtol=1e-10, atol=1e-10)


def test_velocity_data_and_noise_hold_for_any_coupling_and_the_score_does_not():
    # x_1 = R x_0: then x_t determines both ends, and the velocity is that of the straight line between them
    R = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    x_0, t = points(50, 2), 0.6
    x_1 = x_0 @ R.T
    x, u = linear.sample(x_0, x_1, t)
    torch.testing.assert_close(convert(u, x, t, linear, given="velocity", wanted="data"), x_1)
    torch.testing.assert_close(convert(u, x, t, linear, given="velocity", wanted="noise"), x_0)
    torch.testing.assert_close(convert(x_1, x, t, linear, given="data", wanted="velocity"), u)
    # x_t is (1 - t + t R) x_0, with law N(0, (t^2 + (1 - t)^2) I)
    score = -x / (t**2 + (1 - t) ** 2)
    assert (convert(u, x, t, linear, given="velocity", wanted="score") - score).abs().max() > 0.1


def test_the_written_out_forms():
    x, p, t = points(), points(seed=1), torch.tensor(0.3, dtype=torch.float64)
    for path in PATHS:
        a, s, a_, s_ = path.coefficients(t, x)
        D = a_ * s - a * s_
        written = {
            ("velocity", "data"): (s * p - s_ * x) / D,
            ("data", "velocity"): (s_ * x + D * p) / s,
            ("velocity", "noise"): (a_ * x - a * p) / D,
            ("noise", "velocity"): (a_ * x - D * p) / a,
            ("velocity", "score"): (a * p - a_ * x) / (s * D),
            ("score", "velocity"): a_ / a * x + s * D / a * p,  # b_t = s D / a multiplies the score
            ("data", "score"): (a * p - x) / s**2,
        }
        for (given, wanted), expected in written.items():
            result = convert(p, x, t, path, given=given, wanted=wanted)
            torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_pair
def test_singular_ends_are_refused_and_no_others(given, wanted, dtype):
    x = points(dtype=dtype)
    for path, t, vanishing in [(linear, 0.0, "alpha"), (linear, 1.0, "sigma"), (cosine, 1.0, "sigma")]:
        if vanishing == "alpha":
            singular = given in ("noise", "score") and wanted in ("velocity", "data")
        else:
            singular = given == "data" or wanted == "score"
        if singular:
            with pytest.raises(ValueError, match=f"{wanted} cannot be told from {given}.* {vanishing} = 0"):
                convert(x, x, t, path, given=given, wanted=wanted)
        else:
            assert convert(x, x, t, path, given=given, wanted=wanted).isfinite().all()
    if given == "data" or wanted == "score":
        with pytest.raises(ValueError, match="sigma = 0"):
            convert(x, x, 1.0, variance_preserving(), given=given, wanted=wanted)
        assert convert(x, x, 1.0, conical(0.2), given=given, wanted=wanted).isfinite().all()


def test_where_a_velocity_tells_nothing_it_is_refused_or_asked_a_little_away():
    """On alpha = t^2, sigma = (1 - t)^2 both ends move with x alone, so that D = 2 t (1 - t) vanishes there."""
    path = AffinePath("squeeze", lambda t: t**2, lambda t: (1 - t) ** 2, lambda t: 2 * t, lambda t: 2 * t - 2)
    v, x = MIXTURE.marginal_velocity(path), points()
    for wanted, t in itertools.product(("data", "noise"), (0.0, 1.0)):
        with pytest.raises(ValueError, match=f"{wanted} cannot be told from velocity.*alpha' sigma"):
            convert(v(x, t), x, t, path, given="velocity", wanted=wanted)
    data = converted(v, path, given="velocity", wanted="data")
    noise = converted(v, path, given="velocity", wanted="noise")
    mean = MIXTURE.weights @ MIXTURE.means
    # at distance 1.5e-8 the truth has moved by that, times 2 |x| at most; and rounding counts as 1e-16 |x| / 3e-8
    for result, expected in ((data(x, 0.0), mean.expand_as(x)), (noise(x, 0.0), x), (data(x, 1.0), x)):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_float32_errors_stay_small_up_to_the_margin():
    path, x = linear, points(dtype=torch.float32)
    v = MIXTURE.marginal_velocity(path)
    score = converted(v, path, given="velocity", wanted="score")
    for t in (0.0, 0.5, 0.999, 1.0):
        error = (score(x, t).double() - v.score(x.double(), t)).abs().max()
        assert error < 0.05  # scores here reach 30
    assert converted(v, path, given="velocity", wanted="score", margin=0.25)(x, 1.0).isfinite().all()


def test_half_precision_is_converted_in_single_precision():
    x, p = points(dtype=torch.bfloat16), points(dtype=torch.bfloat16, seed=1)
    result = convert(p, x, 0.9, cosine, given="noise", wanted="velocity")
    expected = convert(p.float(), x.float(), 0.9, cosine, given="noise", wanted="velocity")
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected.bfloat16())


def test_conditions_reach_the_field_and_times_keep_their_shape():
    seen = []

    def field(x, t, *, label):
        seen.append((torch.as_tensor(t).shape, label))
        return x

    v = converted(field, linear, given="data", wanted="velocity")
    v(points(4), torch.linspace(0, 1, 4, dtype=torch.float64), label=7)
    v(points(4), 1.0, label=8)
    assert seen == [((4,), 7), ((), 8)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"given": "epsilon"}, ValueError, "given must be one of .* got 'epsilon'"),
        ({"wanted": "x0"}, ValueError, "wanted must be one of .* got 'x0'"),
        ({"prediction": torch.zeros(3, 1)}, ValueError, r"expected shape \(3, 2\), got \(3, 1\)"),
        ({"prediction": torch.zeros(3, 2).double()}, TypeError, "expected torch.float32, got torch.float64"),
        ({"t": torch.zeros(3).bfloat16()}, TypeError, "bfloat16"),
        ({"t": torch.zeros(4)}, ValueError, "3 points"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    usual = {"prediction": torch.zeros(3, 2), "x": torch.zeros(3, 2), "t": 0.5, "path": linear}
    with pytest.raises(error, match=message):
        convert(**({"given": "data", "wanted": "velocity"} | usual | change))


@pytest.mark.parametrize("margin", [0.0, -1.0, 0.5, math.nan])
def test_a_bad_margin_is_refused(margin):
    with pytest.raises(ValueError, match=str(margin)):
        converted(MIXTURE.marginal_velocity(linear), linear, given="velocity", wanted="score", margin=margin)


@pytest.mark.parametrize(
    "path", [linear, cosine, conical(0.2), variance_preserving()], ids=lambda path: path.name
)
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_field_is_converted_at_an_end_itself_wherever_that_can_be_done(path, end):
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    done = 0
    for given, wanted in itertools.permutations(("velocity", "data", "noise", "score"), 2):
        field = converted(lambda x, t: 0.7 * x + 0.1, path, given=given, wanted=wanted)
        try:
            exact = convert(0.7 * x + 0.1, x, end, path, given=given, wanted=wanted)
        except ValueError:
            assert field(x, end).isfinite().all()
            continue
        assert torch.equal(field(x, end), exact)
        done += 1
    assert done >= 2
