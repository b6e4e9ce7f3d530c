"""The guidance board: velocities, weights and densities are those of flowlib, and particles go where it says."""

import math
import re

import pytest
import torch

from flowcourse.scenes import guidance_board
from flowcourse.scenes.flow import described_field
from flowcourse.scenes.guidance import PARTICLES, ZERO
from flowlib.correctors import effective_sample_size, feynman_kac
from flowlib.data import three_arms
from flowlib.guidance import extrapolate, interval, zero_init, zero_star
from flowlib.guidance import guided as guided_field
from flowlib.metrics import sliced_wasserstein2
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import MIDPOINT, odeint

STEPS = 96


def law(mixture, components=None):
    """These components of a mixture, in float64."""
    means, covariances, weights = (
        p.double()[components or slice(None)] for p in (mixture.means, mixture.covariances, mixture.weights)
    )
    return GaussianMixture(means, covariances, weights / weights.sum())


ARMS = law(three_arms())
OVERLAPPING = law(
    GaussianMixture(
        [[-1.2, 0.5], [0.0, 1.2], [1.2, 0.5], [-0.6, -0.9], [0.8, -0.8]],
        [[0.2, 0.1], [0.3, 0.1], [0.2, 0.3], [0.3, 0.2], [0.2, 0.2]],
        [0.1, 0.2, 0.2, 0.3, 0.2],
    )
)
CASES = {"arms": (ARMS, [1]), "overlapping": (OVERLAPPING, [0, 3])}
BOTH = pytest.mark.parametrize("name", CASES)


def fields(name):
    """The marginal velocities of the whole and of the class."""
    mixture, wanted = CASES[name]
    return law(mixture).marginal_velocity(linear), law(mixture, wanted).marginal_velocity(linear)


def told(name):
    """The same, as the browser takes them."""
    mixture, wanted = CASES[name]
    return {"law": described_field(name, mixture.marginal_velocity(linear)), "wanted": wanted}


def flat(x):
    return x.flatten().tolist()


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape or -1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = torch.cat([1.5 * drawn(60, 2), torch.tensor([[40.0, -3.0], [-30.0, 30.0]], dtype=torch.float64)])


# Closed forms


@BOTH
@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 0.99, 1.0])
def test_velocities_of_the_whole_and_of_the_class_are_those_of_flowlib(browser, name, t):
    found = browser(
        "((v) => [[...v.u], [...v.c]])(fieldsOf(law, wanted, x, t))", **told(name), x=flat(X), t=t
    )
    for velocity, v in zip(found, fields(name), strict=True):
        torch.testing.assert_close(tensor(velocity, -1, 2), v(X, t), rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("t", [0.0, 0.4, 0.95])
def test_scores_follow_from_velocities(browser, name, t):
    for v in fields(name):
        found = browser("v.map((v, i) => scoreOf(v, x[i], t))", v=flat(v(X, t)), x=flat(X), t=t)
        torch.testing.assert_close(tensor(found, -1, 2), v.score(X, t), rtol=1e-9, atol=1e-9)


@BOTH
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_densities_of_the_whole_the_class_and_the_others_are_those_of_flowlib(browser, name, t):
    mixture, wanted = CASES[name]
    others = [k for k in range(len(mixture.weights)) if k not in wanted]
    found = browser(
        "((d) => [[...d.p], [...d.q], [...d.o]])(densities(law, wanted, x, t))", **told(name), x=flat(X), t=t
    )
    for logs, components in zip(found, (None, wanted, others), strict=True):
        expected = law(mixture, components).marginal(linear, t).log_prob(X)
        torch.testing.assert_close(tensor(logs), expected, rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("t", [0.02, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, 8.0])
def test_guided_velocities_are_those_of_flowlib(browser, name, w, t):
    kinds = {
        "whole": ({"low": 0, "high": 1}, guided_field(*fields(name), w)),
        "interval": ({"low": 0.3, "high": 0.6}, guided_field(*fields(name), interval(w, 0.3, 0.6))),
        "star": (
            {"low": 0, "high": 1, "star": True, "zero": ZERO},
            zero_init(guided_field(*fields(name), w, combine=zero_star), ZERO),
        ),
    }
    for settings, v in kinds.values():
        found = browser(
            "[...velocities(guided(law, wanted, settings), x, t)]",
            **told(name), settings={"w": w, **settings}, x=flat(X), t=t,
        )  # fmt: skip
        torch.testing.assert_close(tensor(found, -1, 2), v(X, t), rtol=1e-9, atol=1e-9)


# Correctors


@BOTH
@pytest.mark.parametrize(
    ("w", "t", "e"), [(3.0, 0.0, 4.0), (3.0, 0.5, 1.5), (8.0, 0.9, 0.3), (0.4, 0.6, 0.0)]
)
def test_a_step_of_the_corrector_is_its_equation(browser, name, w, t, e):
    u, c = fields(name)
    normals, h = drawn(*X.shape, seed=1), 0.01
    found = browser(
        "((s) => [[...s.moved], [...s.gain]])(corrector(law, wanted, w, x, t, h, e, normals))",
        **told(name), w=w, x=flat(X), t=t, h=h, e=e, normals=flat(normals),
    )  # fmt: skip
    score = (1 - w) * u.score(X, t) + w * c.score(X, t)
    drift = extrapolate(u(X, t), c(X, t), torch.tensor(w)) + e**2 / 2 * score
    moved = X + h * drift + e * math.sqrt(h) * normals
    torch.testing.assert_close(tensor(found[0], -1, 2), moved, rtol=1e-9, atol=1e-9)
    rate = w * (w - 1) * ((c(X, t) - u(X, t)) * (c.score(X, t) - u.score(X, t))).sum(1)
    torch.testing.assert_close(tensor(found[1]), h * rate, rtol=1e-8, atol=1e-9)


@BOTH
def test_weights_along_the_flow_without_noise_are_those_of_flowlib(browser, name):
    u, c = fields(name)
    x, w = drawn(50, 2), 2.0
    still = {"noise": lambda t: 0.0, "threshold": 0.0, "generator": torch.Generator().manual_seed(0)}
    expected = feynman_kac(u, c, w, x, steps=STEPS, **still)
    found = browser(
        """(() => {
          let at = Float64Array.from(x), logs = new Float64Array(x.length / 2), rest = new Float64Array(x.length);
          for (let n = 0; n < steps; n++) {
            const { moved, gain } = corrector(law, wanted, w, at, n / steps, 1 / steps, 0, rest);
            at = moved;
            logs = logs.map((l, i) => l + gain[i]);
          }
          const weights = normalized(logs);
          return [[...at], [...logs], [...weights], effective(weights)];
        })()""",
        **told(name), x=flat(x), w=w, steps=STEPS,
    )  # fmt: skip
    torch.testing.assert_close(tensor(found[0], -1, 2), expected.x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(tensor(found[1]), expected.log_weights, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(tensor(found[2]), expected.log_weights.softmax(0), rtol=1e-6, atol=1e-12)
    assert found[3] == pytest.approx(effective_sample_size(expected.log_weights), rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.999])
def test_particles_are_copied_as_often_as_they_weigh(browser, shift):
    weights = (2 * drawn(50)).softmax(0)
    kept = tensor(browser("systematic(weights, shift)", weights=flat(weights), shift=shift)).long()
    counts = kept.bincount(minlength=50)
    assert counts.sum() == 50 and ((counts - 50 * weights).abs() < 1).all()


# Distances and lines


def in_cells(which, reach, m=80):
    """The masses of a law in the cells of a square, in rows from the top."""
    places = (torch.arange(m, dtype=torch.float64) + 0.5) * (2 * reach / m) - reach
    y, x = torch.meshgrid(places.flip(0), places, indexing="ij")
    logs = which.log_prob(torch.stack([x, y], dim=2).reshape(-1, 2))
    return logs, logs.softmax(0)


def distance(browser, x, masses, reach, weights=None):
    weights = torch.full((len(x),), 1 / len(x)) if weights is None else weights
    return browser(
        "sliced(x, weights, LINES.map((line) => projected(masses, line)), reach)",
        x=flat(x), weights=flat(weights), masses=flat(masses), reach=reach,
    )  # fmt: skip


@BOTH
def test_distances_are_sliced_ones(browser, name):
    mixture, wanted = CASES[name]
    exact = law(mixture, wanted)
    _, masses = in_cells(exact, 3.5)
    x = exact.sample(400, generator=torch.Generator().manual_seed(2)) + torch.tensor([0.3, -0.2])
    many = exact.sample(20_000, generator=torch.Generator().manual_seed(3))
    expected = sliced_wasserstein2(
        x.repeat_interleave(50, 0), many, directions=100, generator=torch.Generator().manual_seed(0)
    )
    assert distance(browser, x, masses, 3.5) == pytest.approx(expected, rel=0.04)


def test_heavier_particles_count_as_more(browser):
    _, masses = in_cells(law(ARMS), 3.5)
    x, copies = drawn(30, 2), torch.tensor([1, 2, 3] * 10)
    weighted = distance(browser, x, masses, 3.5, copies / 60)
    assert distance(browser, x.repeat_interleave(copies, 0), masses, 3.5) == pytest.approx(weighted, rel=0.02)


def test_exact_draws_have_the_law(browser):
    exact = law(ARMS)
    _, masses = in_cells(exact, 3.5)
    n = 4000
    generator = torch.Generator().manual_seed(0)
    levels, places = (
        (torch.arange(n) + 0.5) / n,
        torch.rand(n, 2, generator=generator, dtype=torch.float64),
    )
    found = browser(
        "[...drawn(masses, 3.5, levels, places)]",
        masses=flat(masses),
        levels=flat(levels),
        places=flat(places),
    )
    x = tensor(found, -1, 2)
    torch.testing.assert_close(x.mean(0), exact.weights @ exact.means, rtol=0, atol=0.01)
    second = exact.weights @ (exact.covariances + exact.means[:, :, None] * exact.means[:, None]).flatten(1)
    torch.testing.assert_close((x.T @ x / n).flatten(), second, rtol=0.01, atol=0.02)
    assert distance(browser, x[:: n // 200], masses, 3.5) < 0.1


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_line_holds_its_share_of_a_gaussian(browser, share):
    logs, masses = in_cells(law(GaussianMixture([[0.3, -0.5]], [[0.36, 0.09]])), 3.0)
    (curve,) = browser(
        "contours(logs, lineOf(logs, masses, share))", logs=flat(logs), masses=flat(masses), share=share
    )
    assert curve[0] == curve[-1]
    places = tensor(curve, -1, 2)
    x = (2 * places[:, 0] + 1) * 3 / 80 - 3
    y = 3 - (2 * places[:, 1] + 1) * 3 / 80
    radius = ((x - 0.3) ** 2 / 0.36 + (y + 0.5) ** 2 / 0.09).sqrt()
    expected = math.sqrt(-2 * math.log(1 - share))
    assert (radius - expected).abs().max() < 0.05


def test_a_line_about_separate_hills_has_a_curve_for_each(browser):
    logs, masses = in_cells(law(ARMS), 3.5)
    curves = browser("contours(logs, lineOf(logs, masses, 0.9))", logs=flat(logs), masses=flat(masses))
    assert len(curves) == 3 and all(curve[0] == curve[-1] for curve in curves)


# The board


def tilted(mixture, wanted, w, reach=4.0, m=400):
    """The mean of the tilted density, on a fine grid."""
    places = (torch.arange(m, dtype=torch.float64) + 0.5) * (2 * reach / m) - reach
    x = torch.cartesian_prod(places, places)
    masses = ((1 - w) * law(mixture).log_prob(x) + w * law(mixture, wanted).log_prob(x)).softmax(0)
    return masses @ x


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, 8.0])
def test_the_middle_is_that_of_the_tilted_density(scene_of, w):
    middle = scene_of(guidance_board(), "it.scene.state().middle", w=w)
    torch.testing.assert_close(tensor(middle), tilted(ARMS, [1], w), rtol=0, atol=1e-4)
    figure = guidance_board(OVERLAPPING, {"a": [0, 3], "b": [1, 2, 4]}, chosen="a")
    middle = scene_of(figure, "it.scene.state().middle", w=w)
    torch.testing.assert_close(tensor(middle), tilted(OVERLAPPING, [0, 3], w), rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"low": 0.25, "high": 0.75}, {"CFG-Zero*": True}, {"w": 7.0}])
def test_guided_particles_go_where_flowlib_takes_them(scene_of, changes):
    start = tensor(scene_of(guidance_board(), "it.scene.positions()", t=0.0)[: 2 * PARTICLES], -1, 2)
    values = {"w": 3.0, "low": 0.0, "high": 1.0, "CFG-Zero*": False, **changes}
    star = values["CFG-Zero*"]
    v = guided_field(
        *fields("arms"),
        interval(values["w"], values["low"], values["high"]),
        combine=zero_star if star else extrapolate,
    )
    v = zero_init(v, ZERO) if star else v
    expected = odeint(v, start, steps=STEPS // 3, method=MIDPOINT)
    found = tensor(scene_of(guidance_board(), "it.scene.positions()", **values)[: 2 * PARTICLES], -1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


CORRECTED = "((s) => [s.corrected, s.guided, s.floor, s.share, s.draws])(it.scene.state())"


@pytest.mark.parametrize("chosen", ["0", "1", "2"])
@pytest.mark.parametrize("w", [2.0, 3.0, 4.0, 6.0])
def test_corrected_particles_land_on_the_tilted_density_and_guided_ones_do_not(scene_of, chosen, w):
    corrected, missed, floor, share, _ = scene_of(guidance_board(chosen=chosen), CORRECTED, w=w)
    assert missed > 2 * floor and corrected < missed / 1.5 and corrected < 2.5 * floor
    assert 0.5 <= share <= 1 + 1e-9


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_nothing_is_corrected_where_the_flow_is_right(scene_of, w):
    *_, share, draws = scene_of(guidance_board(), CORRECTED, w=w)
    assert share == pytest.approx(1) and draws == 0
    guided, floor = scene_of(guidance_board(), "((s) => [s.guided, s.floor])(it.scene.state())", w=w)
    assert guided < 2 * floor


@BOTH
def test_the_corrector_agrees_with_that_of_flowlib_in_law(scene_of, name):
    """Effective sample size early on, and the weighted mean at the end, of other random numbers."""
    u, c = fields(name)
    mixture, wanted = CASES[name]
    rest = [k for k in range(len(mixture.weights)) if k not in wanted]
    figure = guidance_board(mixture, {"y": wanted, "other": rest}, chosen="y")
    steps, generator = 4 * STEPS, torch.Generator().manual_seed(0)
    start = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    run = feynman_kac(u, c, 3.0, start, steps=steps, generator=generator)
    weighted = run.log_weights.softmax(0) @ run.x
    torch.testing.assert_close(weighted, tilted(mixture, wanted, 3.0), rtol=0, atol=0.1)
    before = next(k for k, share in enumerate(run.effective) if share < 0.75)
    share = scene_of(figure, "it.scene.state().share", w=3.0, t=before / steps)
    assert share == pytest.approx(float(run.effective[before]), abs=0.15)
    mean = scene_of(figure, "it.scene.state().mean", w=3.0)
    torch.testing.assert_close(tensor(mean), weighted, rtol=0, atol=0.25)


# Hands on it


def test_a_tap_chooses_a_class_and_reset_the_first(scene_of):
    place = "{ clientX: it.panels[0].X(0), clientY: it.panels[0].Y(2) }"
    tapped = f"(it.fire(%d, 'click', {place}), it.scene.state().chosen)"
    assert scene_of(guidance_board(), tapped % 0) == scene_of(guidance_board(), tapped % 1) == "0"
    assert scene_of(guidance_board(), f"({tapped % 0}, it.scene.reset(), it.scene.state().chosen)") == "1"


@pytest.mark.parametrize(
    ("keys", "chosen"), [("R", "2"), ("RR", "0"), ("L", "0"), ("LL", "2"), ("U", "0"), ("D", "2")]
)
def test_arrow_keys_choose_a_class(scene_of, keys, chosen):
    names = {"R": "ArrowRight", "L": "ArrowLeft", "U": "ArrowUp", "D": "ArrowDown"}
    pressed = ", ".join(f"it.press(1, '{names[key]}')" for key in keys)
    assert scene_of(guidance_board(), f"({pressed}, it.scene.state().chosen)") == chosen


def test_another_class_is_guided_to_its_own_place(scene_of):
    middles = [scene_of(guidance_board(chosen=str(k)), "it.scene.state().middle") for k in range(3)]
    for middle, mean in zip(middles, ARMS.means.tolist(), strict=True):
        assert middle == pytest.approx(mean, abs=0.1)


def test_the_interval_keeps_its_ends_in_order(scene_of):
    ends = "[it.engine.values.low, it.engine.values.high]"
    assert scene_of(guidance_board(), f"(it.engine.set('high', 0.4), it.engine.set('low', 0.7), {ends})") == [
        0.7,
        0.7,
    ]
    assert scene_of(guidance_board(), f"(it.engine.set('low', 0.7), it.engine.set('high', 0.4), {ends})") == [
        0.4,
        0.4,
    ]


def test_pictures_do_not_depend_on_what_was_seen_before(scene_of):
    alone = scene_of(guidance_board(), "it.scene.positions()", w=4.0)
    set_to = "it.engine.set('{}', {}), it.scene.draw()".format
    path = ", ".join(set_to(*step) for step in (("t", 0.3), ("w", 8), ("t", 1), ("w", 4)))
    wandered = f"({path}, it.scene.positions())"
    assert scene_of(guidance_board(), wandered) == alone


def test_the_text_tells_the_numbers(scene_of):
    said, state = scene_of(guidance_board(), "[it.scene.readout(), it.scene.state()]")
    assert said == (
        f"t = 1.00, y = 1, w = 3.0 · distance to the tilted density: guided {state['guided']:.2f}, "
        f"corrected {state['corrected']:.2f}, as many exact draws {state['floor']:.2f} · "
        f"effective sample size {round(100 * state['share'])}%, resamplings {state['draws']}"
    )


def test_the_still_shows_how_far_either_cloud_is(scene_of):
    figure = guidance_board()
    state = scene_of(figure, "it.scene.state()")
    (left, _), (right, _) = figure.stills()[0]
    assert f">{state['guided']:.2f} away<" in left and f">{state['corrected']:.2f} away<" in right
    assert "var(--flow-error)" in left


def test_every_control_has_a_name_that_is_read_out():
    html = guidance_board()._repr_html_()
    assert re.findall(r'data-control="([^"]+)"', html) == ["t", "w", "low", "high", "CFG-Zero*"]
    assert html.count('role="application"') == 2 and "guided particles overshoot" in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": "3"}, r"one of \['0', '1', '2'\], got '3'"),
        ({"classes": {"all": [0, 1, 2]}}, "two classes or more must part the 3 components"),
        ({"classes": {"1": [0, 1], "b": [1, 2]}}, "must part the 3 components"),
        ({"classes": {"1": [0], "b": [1]}}, "must part the 3 components"),
        ({"classes": {"1": [0, 1, 2], "b": []}}, "must part the 3 components"),
        ({"scale": 8.5}, r"scale must be in \[0, 8\], got 8.5"),
        ({"time": -0.1}, "time"),
        ({"window": 0.0}, "window"),
    ],
)
def test_bad_boards_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        guidance_board(**changes)


def test_a_law_of_space_is_refused():
    with pytest.raises(TypeError, match="cannot compute the field"):
        guidance_board(GaussianMixture([[0.0] * 3, [1.0] * 3], [1.0, 1.0]))
