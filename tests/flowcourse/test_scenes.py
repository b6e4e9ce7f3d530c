"""The averaging and the paths explorer: their JavaScript computes what flowlib computes, and what they claim holds."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ndtr

from flowcourse.explorables import table
from flowcourse.scenes import averaging_explorer, paths_explorer
from flowcourse.scenes.flow import described_field
from flowcourse.scenes.paths import KNOWN, NOISE_FIRST, SQUEEZE
from flowlib.data import GaussianMixture, three_arms
from flowlib.empirical import Empirical
from flowlib.paths import conical, cosine, linear
from flowlib.solvers import RK4, trajectory

PATHS = pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.name)
DATA = torch.tensor([-1.8, -1.2, 0.4, 1.5, 2.1], dtype=torch.float64)
ARMS = GaussianMixture(
    three_arms().means.double(), three_arms().covariances.double(), three_arms().weights.double()
)


def flat(x):
    return x.flatten().tolist()


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape or -1)


def loop(c, t):
    """The detour m(t) = c sin(pi t) (cos 2 pi t, sin 2 pi t), (*t.shape, 2)."""
    turn = 2 * math.pi * t
    return c * torch.sin(math.pi * t)[..., None] * torch.stack([turn.cos(), turn.sin()], dim=-1)


def marginal_trajectory(path, y, t, x, times):
    """Where the trajectory through (t, x) is at ascending times below 1, by an implicit method: the field is stiff."""

    def mean(s, state):
        alpha, sigma, alpha_dot, sigma_dot = path.coefficients(s, y[:1])
        z = (float(state[0]) - alpha * y) / sigma
        weights = (-z.square() / 2).softmax(-1)
        return np.array([(weights * (alpha_dot * y + sigma_dot * z)).sum().item()])

    def solve(some):
        if not len(some):
            return np.empty(0)
        return solve_ivp(mean, (t, some[-1]), [x], method="Radau", t_eval=some, rtol=1e-6, atol=1e-8).y[0]

    return np.concatenate([solve(times[times < t][::-1])[::-1], solve(times[times >= t])])


def points(n=40):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.5


# Affine paths


@PATHS
def test_the_browser_knows_the_coefficients(browser, path):
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    found = tensor(browser("times.map(affine[name])", name=path.name, times=flat(times)), 9, 4)
    expected = torch.stack(path.coefficients(times, times), dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("path", [SQUEEZE, NOISE_FIRST], ids=lambda path: path.name)
def test_the_paths_of_the_scenes_have_the_right_ends_and_derivatives(path):
    ends = torch.tensor([0.0, 1.0])
    assert path.alpha(ends).tolist() == [0, 1] and path.sigma(ends).tolist() == [1, 0]
    t = torch.linspace(0, 1, 11, dtype=torch.float64, requires_grad=True)
    for value, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        (expected,) = torch.autograd.grad(value(t).sum(), t)
        torch.testing.assert_close(slope(t), expected)


# Averaging


@PATHS
@pytest.mark.parametrize(("t", "x"), [(0.0, 1.3), (0.4, 0.3), (0.8, -0.5), (0.95, 1.8)])
def test_averages_equal_those_of_flowlib(browser, path, t, x):
    found = browser("average(affine[name], data, t, x)", name=path.name, data=flat(DATA), t=t, x=x)
    v, here = Empirical(DATA[:, None]).marginal_velocity(path), tensor([x], 1, 1)
    velocity = v(here, t)
    assert found["mean"] == pytest.approx(velocity.item(), rel=1e-10)
    assert found["log"] == pytest.approx(v.log_prob(here, t).item(), rel=1e-10)
    torch.testing.assert_close(tensor(found["weights"]), v.weights(here, t)[0], rtol=1e-9, atol=1e-300)
    alpha, sigma, alpha_dot, sigma_dot = (c.item() for c in path.coefficients(t, DATA[:1]))
    noise = (x - alpha * DATA) / sigma
    u = alpha_dot * DATA + sigma_dot * noise
    torch.testing.assert_close(tensor(found["noise"]), noise)
    torch.testing.assert_close(tensor(found["velocities"]), u)
    weights = tensor(found["weights"])
    assert found["spread"] ** 2 == pytest.approx(
        float(weights @ u**2 - (weights @ u) ** 2), rel=1e-6, abs=1e-9
    )


def test_conditional_paths_pass_through_the_point(browser):
    t, x = 0.6, -0.2
    noise = tensor(browser("average(affine.cosine, data, t, x).noise", data=flat(DATA), t=t, x=x))
    through, _ = cosine.sample(noise[:, None], DATA[:, None], t)
    torch.testing.assert_close(through, torch.full_like(through, x))


def level(path, t, x):
    """P(x_t < x), which the flow of a line leaves as it is: points carried by it keep their order."""
    alpha, sigma, *_ = (
        c.numpy() for c in path.coefficients(torch.as_tensor(t, dtype=torch.float64), torch.as_tensor(t))
    )
    return ndtr((x[:, None] - alpha[:, None] * DATA.numpy()) / sigma[:, None]).mean(1)


@PATHS
@pytest.mark.parametrize(("t", "x"), [(0.0, -1.0), (0.4, 0.3), (0.7, 2.6), (0.9, 1.0), (0.99, 0.4)])
def test_trajectories_keep_the_mass_below_them(browser, path, t, x):
    states = np.array(
        browser("trajectory(affine[name], data, t, x)", name=path.name, data=flat(DATA), t=t, x=x)
    )
    times, places = states.T
    assert (np.diff(times) > 0).all() and times[0] == 0 and times[-1] == pytest.approx(0.995, abs=1e-12)
    assert np.interp(t, times, places) == pytest.approx(x, abs=1e-9)
    mass = level(path, np.array([t]), np.array([x]))
    low, high = (level(path, times, places + e) for e in (-2e-4, 2e-4))
    assert (low < mass + 1e-9).all() and (mass - 1e-9 < high).all()


@pytest.mark.parametrize("path", [linear, cosine], ids=lambda path: path.name)
@pytest.mark.parametrize(("t", "x"), [(0.4, 0.3), (0.9, 1.0), (0.99, 0.95), (0.99, -0.4), (0.97, 1.8)])
def test_trajectories_equal_those_of_an_implicit_solver(browser, path, t, x):
    """Also where neighbors part so fast that an explicit step back in time would explode."""
    states = np.array(
        browser("trajectory(affine[name], data, t, x)", name=path.name, data=flat(DATA), t=t, x=x)
    )
    times = np.linspace(0, 0.95 * t, 20)
    found = np.interp(times, *states.T)
    np.testing.assert_allclose(found, marginal_trajectory(path, DATA, t, x, times), atol=2e-3)
    follow = browser("times.map((t) => follow(states, t))", states=states.tolist(), times=times.tolist())
    np.testing.assert_allclose(follow, found, atol=1e-12)


@pytest.mark.parametrize(("t", "x"), [(0.99, 0.01), (0.99, -0.3), (0.97, 0.1), (0.9, 0.0)])
def test_trajectories_do_not_tremble_between_two_data(browser, t, x):
    """Back in time they converge to the line that parts the two, along which the field jumps."""
    data = torch.tensor([-2.5, 2.5], dtype=torch.float64)
    states = np.array(browser("trajectory(affine.linear, data, t, x)", data=flat(data), t=t, x=x))
    times, places = states[states[:, 0] < t].T
    np.testing.assert_allclose(places, marginal_trajectory(linear, data, t, x, times), atol=4e-3)


def test_trajectories_end_at_data(browser):
    ends = [
        browser("trajectory(affine.linear, data, 0, x).at(-1)[1]", data=flat(DATA), x=x)
        for x in (-3, -0.6, 0, 0.7, 3)
    ]
    np.testing.assert_allclose(ends, DATA, atol=0.02)  # at t = 0.995 within about 0.005 |x_0|


# Paths


@PATHS
@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 1.0])
def test_mixtures_on_every_path_equal_those_of_flowlib(browser, path, t):
    x = points()
    spec = described_field("arms", ARMS.marginal_velocity(linear))
    v = ARMS.marginal_velocity(path)
    found = browser(
        "(() => { const law = { ...spec, at: affine[name] }, v = new Float64Array(x.length);"
        "fields.mixture(law)(x, t, v); return [[...v], [...logDensity(law, x, t)]] })()",
        spec=spec, name=path.name, x=flat(x), t=t,
    )  # fmt: skip
    torch.testing.assert_close(tensor(found[0], -1, 2), v(x, t), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(tensor(found[1]), v.log_prob(x, t), rtol=1e-11, atol=1e-11)


def test_the_detour_is_a_loop_from_and_to_the_origin(browser):
    times = torch.linspace(0, 1, 9, dtype=torch.float64, requires_grad=True)
    found = tensor(browser("times.map((t) => detour(1.3, t))", times=flat(times)), 9, 4)
    m = loop(1.3, times)
    torch.testing.assert_close(found[:, :2], m.detach())
    torch.testing.assert_close(
        m[[0, -1]].detach(), torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-15
    )
    slopes = [torch.autograd.grad(m[:, i].sum(), times, retain_graph=True)[0] for i in (0, 1)]
    torch.testing.assert_close(found[:, 2:], torch.stack(slopes, dim=1))


@PATHS
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_the_detoured_field_carries_the_shifted_density(browser, path, t):
    """The continuity equation, divided by p: (log p)' + v . grad log p + div v = 0, in central differences."""
    h = 1e-4
    found = browser(
        """x.map(([a, b]) => {
          const law = { ...spec, at: affine[name] }, field = detoured(fields.mixture(law), c);
          const v = (a, b) => { const out = new Float64Array(2); field(Float64Array.of(a, b), t, out); return out; };
          const log = (a, b, t) => logDensity(law, shifted(Float64Array.of(a, b), c, t, -1), t)[0];
          const d = (up, down) => (up - down) / (2 * h), [p, q] = v(a, b);
          return [
            d(log(a, b, t + h), log(a, b, t - h)),
            p * d(log(a + h, b, t), log(a - h, b, t)) + q * d(log(a, b + h, t), log(a, b - h, t)),
            d(v(a + h, b)[0], v(a - h, b)[0]) + d(v(a, b + h)[1], v(a, b - h)[1]),
          ];
        })""",
        spec=described_field("arms", ARMS.marginal_velocity(linear)), name=path.name, x=points().tolist(),
        t=t, c=1.3, h=h,
    )  # fmt: skip
    terms = np.array(found)
    assert (np.abs(terms) > 1).any()
    np.testing.assert_allclose(terms.sum(1), 0, atol=1e-5 * np.abs(terms).max())


def carried(browser, path, c, steps=64):
    found = browser(
        "odeint(detoured(fields.mixture({ ...spec, at: affine[name] }), c), x, 0, 1, steps, rk4).map((x) => [...x])",
        spec=described_field("arms", ARMS.marginal_velocity(linear)), name=path.name, c=c, x=flat(points()),
        steps=steps, rk4=table(RK4),
    )  # fmt: skip
    return tensor(found, steps + 1, -1, 2)


@PATHS
def test_points_carried_by_the_detoured_field_are_the_others_shifted(browser, path):
    times, states = trajectory(ARMS.marginal_velocity(path), points(), steps=64, method=RK4)
    torch.testing.assert_close(carried(browser, path, 0.0), states, rtol=1e-10, atol=1e-10)
    shifted = states + loop(1.3, times)[:, None]
    torch.testing.assert_close(carried(browser, path, 1.3, 512)[::8], shifted, rtol=0, atol=2e-3)


def test_every_path_brings_a_point_to_the_same_place(browser):
    ends = [carried(browser, path, c, 512)[-1] for path in KNOWN for c in (0.0, -0.7)]
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=0, atol=2e-3)


def test_costs_are_length_and_energy(browser):
    speeds = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    states = [flat(n / 10 * speeds) for n in range(11)]
    assert browser("cost(states)", states=states) == pytest.approx([3, 13])
    circle = [[math.cos(math.pi * n / 500), math.sin(math.pi * n / 500)] for n in range(501)]
    assert browser("cost(states)", states=circle) == pytest.approx([math.pi, math.pi**2], rel=1e-4)


# The figures: test_explorable.py holds their HTML and their stills


def test_what_is_shown_first_is_what_was_asked_for():
    figure = averaging_explorer(DATA, point=(0.25, -0.5), show=("density",))
    assert figure.spec["data"] == DATA.tolist() and figure.spec["reach"] == 3
    shown = {"conditional paths": False, "marginal trajectory": False, "density": True}
    assert figure.values == {"t": 0.25, "x": -0.5, "path": next(iter(figure.spec["paths"])), **shown}
    figure = paths_explorer(detour=-1.5, time=0.75, points=torch.ones(1, 2))
    assert figure.values["t"] == 0.75 and figure.values["c"] == -1.5
    assert "path" not in {
        **averaging_explorer([0.0], paths=(cosine,)).values,
        **paths_explorer(paths=(linear,)).values,
    }


def test_the_picture_grows_with_the_data():
    assert averaging_explorer([4.2]).spec["reach"] == 5
    assert averaging_explorer(torch.arange(12)).spec["reach"] == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": torch.zeros(2, 2)}, r"1 to 12 finite numbers, got shape \(2, 2\)"),
        ({"data": torch.zeros(13)}, "1 to 12"),
        ({"data": []}, "1 to 12"),
        ({"data": [math.nan]}, "finite"),
        ({"point": (1.0, 0.0)}, "0.99"),
        ({"point": (0.5, 3.5)}, r"\[-3, 3\]"),
        ({"show": ("grid",)}, "grid"),
        ({"paths": ()}, "at least one path"),
    ],
)
def test_bad_averaging_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        averaging_explorer(**{"data": DATA, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ()}, "at least one path"),
        ({"detour": 2.5}, "detour"),
        ({"detour": math.nan}, "detour"),
        ({"time": -0.1}, "time"),
        ({"points": torch.zeros(3)}, r"\(B, 2\), got \(3,\)"),
        ({"points": torch.zeros(0, 2)}, r"\(B, 2\), got \(0, 2\)"),
        ({"show": ("grid",)}, "grid"),
    ],
)
def test_bad_paths_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        paths_explorer(**changes)


def test_a_path_that_the_browser_does_not_know_is_named():
    for make in (
        lambda paths: averaging_explorer(DATA, paths=paths),
        lambda paths: paths_explorer(paths=paths),
    ):
        with pytest.raises(TypeError, match=r"'conical\(0.1\)'.*linear, cosine, squeeze, noise first"):
            make((linear, conical(0.1)))


def test_a_point_of_many_paths_is_chosen_by_a_tap_or_by_keys(scene_of):
    figure = paths_explorer(points=torch.tensor([[-1.0, 1.0], [1.0, 0.0], [0.0, -1.5]]), time=0.0)
    tap = "const p = it.panels[0]; it.fire(0, 'click', { clientX: p.X(%s) + 5, clientY: p.Y(%s) })"
    for act, one in (
        ("", 0),
        (tap % (1, 0), 1),
        (tap % (0, -1.5), 2),
        (tap % (2.5, 2.5), 0),  # nobody is near
        ("it.press(0, 'ArrowRight')", 1),
        ("it.press(0, 'ArrowLeft')", 2),
    ):
        assert scene_of(figure, f"(() => {{ {act}; return it.scene.state().one }})()") == one
