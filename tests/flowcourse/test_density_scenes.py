"""The change of variables, the layers and the density explorer: their JavaScript computes what flowlib computes."""

import math
import re

import pytest
import torch
from scipy.special import ndtr

from flowcourse.explorables import encode16
from flowcourse.scenes import change_of_variables_explorer, density_explorer, layers_explorer
from flowlib.data import GaussianMixture
from flowlib.derivatives import divergence
from flowlib.fields import rotation
from flowlib.paths import cosine, linear
from flowlib.solvers import RK4, trajectory
from flowlib.splines import rational_quadratic_spline

MIXTURE = GaussianMixture(
    means=torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]], dtype=torch.float64),
    covariances=torch.tensor(
        [[[0.25, 0.0], [0.0, 0.04]], [[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.05]]],
        dtype=torch.float64,
    ),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
FIELD = MIXTURE.marginal_velocity(linear)
STEPS = 128  # of RK4 from t = 0 to t = 1, as density.js takes them
STARTS = [(0.7, -0.4), (0.0, 0.0), (-2.0, 1.5)]


def rounded16(points):
    return points.to(torch.float16).double()


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape or -1)


# The change of variables


@pytest.mark.parametrize("seed", range(4))
def test_the_spline_is_that_of_flowlib(browser, seed):
    g = torch.Generator().manual_seed(seed)
    widths, heights = (torch.rand(5, generator=g, dtype=torch.float64) + 0.05 for _ in range(2))
    slopes = torch.rand(4, generator=g, dtype=torch.float64) * 3 + 0.02
    x = torch.linspace(-4.1, 4.1, 203, dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x, widths, heights, slopes, bound=3.0)

    def knots(sizes):
        return [-3.0, *(6 * sizes.cumsum(0) / sizes.sum() - 3).tolist()]

    found = browser(
        "x.map((x) => spline(xs, ys, slopes, x))",
        x=x.tolist(), xs=knots(widths), ys=knots(heights), slopes=[1.0, *slopes.tolist(), 1.0],
    )  # fmt: skip
    expected = torch.stack([y, log_slope.exp()], dim=1)
    torch.testing.assert_close(tensor(found, -1, 2), expected, rtol=1e-10, atol=1e-10)


def test_chords_of_slope_one_make_the_identity(browser):
    xs = [-3, -2, -1, 0, 1, 2, 3]
    found = browser("x.map((x) => spline(xs, xs, tangents(xs, xs), x))", xs=xs, x=[-2.3, -1.0, 0.1, 2.9])
    torch.testing.assert_close(tensor(found, -1, 2), tensor([-2.3, 1, -1.0, 1, 0.1, 1, 2.9, 1], -1, 2))


@pytest.mark.parametrize(
    "heights", [(-2.0, -1.0, 0.0, 1.0, 2.0), (-2.9, -2.8, -2.7, 2.7, 2.8), (-1.9, -1.5, 0.3, 1.6, 2.0)]
)
@pytest.mark.parametrize(("x", "dx"), [(-2.5, 1.0), (-0.3, 0.05), (0.8, 0.4), (2.0, 1.0)])
def test_the_shaded_areas_are_the_probability_of_the_interval(scene_of, heights, x, dx):
    figure = change_of_variables_explorer(heights=heights)
    below, beside = scene_of(figure, "it.scene.state().areas", x=x, dx=dx)
    probability = ndtr(x + dx) - ndtr(x)
    # Trapezoids of 400 pieces: off by at most (dx / 400)^2 / 12 times the largest second derivative, 0.4, times dx;
    # where p changes by a factor e^c over a piece, by a share of about c^2 / 12, and here c is below 0.1.
    assert below == pytest.approx(probability, abs=2.1e-7)
    assert beside == pytest.approx(probability, rel=1e-3)


def test_each_area_uses_the_heights_of_its_own_density(browser):
    assert browser("area([[0, 1], [1, 3], [3, 0]])") == 5
    assert browser("area([[0, 1]])") == 0


def test_the_text_tells_slope_densities_lengths_and_areas(scene_of):
    said = scene_of(
        change_of_variables_explorer(heights=(-2.0, -1.0, 0.0, 1.0, 2.0)),
        "it.scene.readout()",
        x=1.0,
        dx=0.5,
    )
    assert said == (
        "x = 1.00, y = T(x) = 1.00 · slope T′(x) = 1.00, so q(x) = 0.242 becomes p(y) = 0.242 · "
        "length 0.50 becomes 0.50 · areas 0.092 and 0.092"
    )


@pytest.mark.parametrize(
    ("events", "heights", "knot"),
    [
        ("it.press(0, 'ArrowUp')", (-2, -1, 0.05, 1, 2), 3),
        ("it.press(0, 'ArrowDown', true)", (-2, -1, -0.25, 1, 2), 3),
        ("it.press(0, 'ArrowLeft'), it.press(0, 'ArrowUp')", (-2, -0.95, 0, 1, 2), 2),
        ("it.press(0, 'ArrowRight', true), it.press(0, 'ArrowRight', true)", (-2, -1, 0, 1, 2), 5),
        ("it.press(0, 'Tab')", (-2, -1, 0, 1, 2), 3),
        ("it.engine.set('y', 3)", (-2, -1, 0.9, 1, 2), 3),  # not past its neighbor
        ("it.engine.set('knot', 1), it.engine.set('y', -3)", (-2.9, -1, 0, 1, 2), 1),
        (
            "it.drag(0, [it.panels[0].X(1), it.panels[0].Y(1)], [it.panels[0].X(-2), it.panels[0].Y(1.5)])",
            (-2, -1, 0, 1.5, 2),
            4,
        ),
        (
            "it.drag(0, [it.panels[0].X(-1), it.panels[0].Y(-1)], [it.panels[0].X(-1), it.panels[0].Y(9)])",
            (-2, -0.1, 0, 1, 2),
            2,
        ),
        ("it.press(0, 'ArrowUp'), it.scene.reset()", (-2, -1, 0, 1, 2), 3),
    ],
)
def test_knots_follow_the_hand_and_keep_their_order(scene_of, events, heights, knot):
    figure = change_of_variables_explorer(heights=(-2.0, -1.0, 0.0, 1.0, 2.0))
    found, k = scene_of(figure, f"({events}, [it.scene.state().heights, it.values.knot])")
    assert found == pytest.approx(list(heights)) and k == knot


def test_the_height_shown_is_that_of_the_knot(scene_of):
    figure = change_of_variables_explorer()
    shown = scene_of(figure, "[1, 2, 3, 4, 5].map((k) => (it.engine.set('knot', k), it.values.y))")
    assert shown == list(figure.spec["heights"])
    assert figure.values["y"] == figure.spec["heights"][2]


@pytest.mark.parametrize(
    ("events", "x"),
    [
        ("it.drag(0, [it.panels[0].X(0.45), 360], [it.panels[0].X(-0.75), 300])", -1.0),
        ("it.tap(0, it.panels[0].X(-1), 360)", -1.25),
        ("it.tap(0, it.panels[0].X(-1), 40)", 0.2),  # not among the densities
        ("it.drag(0, [it.panels[0].X(0.45), 360], [999, 300])", 2.0),
    ],
)
def test_the_interval_follows_the_hand(scene_of, events, x):
    figure = change_of_variables_explorer(interval=(0.2, 0.5))
    assert scene_of(figure, f"({events}, it.values.x)") == pytest.approx(x, abs=0.011)


def test_a_finger_scrolls_the_page_unless_it_holds_something(scene_of):
    places = "[[100, 100], [it.panels[0].X(0), it.panels[0].Y(0.3)], [it.panels[0].X(1.4), 360]]"
    stopped = scene_of(change_of_variables_explorer(), f"{places}.map((place) => it.stops(0, place))")
    assert stopped == [False, True, True]
    # the density explorer spans 6.4 units in 400 pixels
    places = "[[100, 100], [200 + 1.2 * 62.5, 200 - 0.5 * 62.5]]"
    assert scene_of(density_explorer(FIELD), f"{places}.map((place) => it.stops(0, place))") == [False, True]


# The layers


@pytest.fixture(scope="module")
def states():
    """Noise, moved along x_1, then along x_2."""
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.stack([2 * x[:, 0] + 1, x[:, 1]], dim=1)
    return torch.stack([x, y, torch.stack([y[:, 0], y[:, 1] - 0.5 * y[:, 0]], dim=1)])


def test_states_arrive_in_float16(browser, states):
    found = browser("unpack(text, 3).map((state) => [...state])", text=encode16(states))
    torch.testing.assert_close(tensor(found, 3, 30, 2), rounded16(states), rtol=0, atol=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 1.75, 2.0])
def test_between_layers_points_move_on_straight_lines(scene_of, states, t):
    found = scene_of(layers_explorer(states), "it.scene.positions()", t=t)
    n = min(int(t), 1)
    expected = torch.lerp(*rounded16(states[n : n + 2]), t - n)
    torch.testing.assert_close(tensor(found, 30, 2), expected, rtol=3e-7, atol=3e-7)  # float32 in the browser


def test_moves_are_mean_distances_along_each_axis(scene_of, states):
    for n, axis in ((0, 0), (1, 1)):
        figure = layers_explorer(states)
        found = scene_of(figure, "it.scene.state().means", t=n + 0.5)
        expected = rounded16(states).diff(dim=0)[n].abs().mean(0)
        torch.testing.assert_close(tensor(found), expected, rtol=1e-6, atol=1e-12)  # float32 in the browser
        assert found[1 - axis] == 0 < found[axis]


@pytest.mark.parametrize(
    ("labels", "t", "text"),
    [
        (None, 0.0, "k = 0.00 · start, before layer 1 of 2 · which moves"),
        (None, 0.5, "k = 0.50 · layer 1 of 2 · it moves"),
        (["scale", "shear"], 1.0, "k = 1.00 · layer 1 of 2, scale · it moves"),
        (["scale", "shear"], 1.01, "k = 1.01 · layer 2 of 2, shear · it moves"),
        (["noise", "scale", "shear"], 0.0, "k = 0.00 · noise, before layer 1 of 2, scale · which moves"),
        (["noise", "scale", "shear"], 2.0, "k = 2.00 · layer 2 of 2, shear · it moves"),
    ],
)
def test_the_text_names_the_layer_and_what_it_does(scene_of, states, labels, t, text):
    said = scene_of(layers_explorer(states, labels=labels), "it.scene.readout()", t=t)
    assert said.startswith(text)
    assert re.search(r"points by a mean of \d\.\d\d along x₁ and \d\.\d\d along x₂$", said)


@pytest.mark.parametrize(
    ("events", "t"),
    [
        ("it.press(1, 'ArrowRight')", 2.0),  # from 1.5
        ("it.press(1, 'ArrowLeft')", 1.0),
        ("it.press(1, 'ArrowLeft'), it.press(1, 'ArrowDown'), it.press(1, 'ArrowDown')", 0.0),
        ("it.press(1, 'ArrowUp'), it.press(1, 'ArrowUp')", 2.0),
        ("it.fire(1, 'click', { clientX: 60, clientY: 200 })", 0.0),
        ("it.fire(1, 'click', { clientX: 200, clientY: 200 })", 1.0),
        ("it.fire(1, 'click', { clientX: 399, clientY: 200 })", 2.0),
    ],
)
def test_small_pictures_and_keys_go_to_whole_layers(scene_of, states, events, t):
    assert scene_of(layers_explorer(states), f"({events}, it.values.t)") == t


def test_small_pictures_stand_in_rows(scene_of):
    figure = layers_explorer(torch.zeros(13, 4, 2))
    assert figure.spec["columns"] == 10
    found = scene_of(
        figure, "[[10, 10], [390, 10], [50, 390], [390, 390]].map(([clientX, clientY]) => "
        "(it.fire(1, 'click', { clientX, clientY }), it.values.t))"
    )  # fmt: skip
    assert found == [0, 9, 11, 12]


def test_a_grid_is_carried_along(browser, scene_of, states):
    grid = states[:, :12].reshape(3, 3, 4, 2)
    figure = layers_explorer(states, grid=grid)
    assert figure.values["grid"] is True and "grid" not in layers_explorer(states).values
    assert figure.spec["length"] == 4
    found = browser("unpack(text, 3).map((state) => [...state])", text=figure.spec["grid"])
    torch.testing.assert_close(tensor(found, 3, 3, 4, 2), rounded16(grid), rtol=0, atol=0)
    drawn = """(() => {
        const { panels: [panel], scene, values } = it, count = { moveTo: 0, lineTo: 0 };
        for (const name of Object.keys(count)) panel.pen[name] = () => count[name]++;
        Object.assign(values, { moves: false });
        scene.draw();
        return [count.moveTo, count.lineTo];
    })()"""
    lines = scene_of(figure, drawn)
    assert lines == [3 + 2 * 30, 9]  # each of 30 points is drawn twice


def test_play_takes_whole_layers_where_less_motion_is_wanted(states):
    assert 'data-moments="2"' in layers_explorer(states)._repr_html_()


# The density


@pytest.mark.parametrize("t", [0.0, 0.3, 0.99, 1.0])
def test_velocity_and_jacobian_are_those_of_flowlib(browser, t):
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.5
    spec = density_explorer(FIELD).spec["mixture"]
    found = tensor(
        browser("x.map(([a, b]) => linearized(spec, a, b, t))", spec=spec, x=x.tolist(), t=t), 20, 6
    )
    torch.testing.assert_close(found[:, :2], FIELD(x, t), rtol=1e-10, atol=1e-10)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: FIELD(y[None], t)[0], y) for y in x]
    )
    torch.testing.assert_close(found[:, 2:].reshape(-1, 2, 2), jacobians, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[:, 2] + found[:, 5], divergence(FIELD, x, t), rtol=1e-9, atol=1e-9)


def follow(browser, start):
    spec = density_explorer(FIELD).spec
    return tensor(
        browser("carried(spec.mixture, start, spec.reference).map((x) => [...x])", spec=spec, start=start),
        -1,
        7,
    )


@pytest.mark.parametrize("start", STARTS)
def test_the_carried_state_solves_its_equations(browser, start):
    def augmented(state, t):
        x, F = state[:, :2], state[:, 2:6].reshape(-1, 2, 2)
        J = torch.autograd.functional.jacobian(lambda y: FIELD(y[None], t)[0], x[0])
        return torch.cat([FIELD(x, t), (J @ F).flatten(1), -J.trace().reshape(1, 1)], dim=1)

    N = STEPS
    first = tensor([*start, 1, 0, 0, 1, 0], 1, 7)
    expected = trajectory(augmented, first, steps=N, method=RK4)[1][:, 0]
    states = follow(browser, start)
    torch.testing.assert_close(states, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("start", STARTS)
def test_the_two_curves_coincide_and_mass_is_kept(browser, start):
    states, N = follow(browser, start), STEPS
    first = FIELD.log_prob(tensor(start, 1, 2), 0.0)
    exact = torch.cat([FIELD.log_prob(x[None, :2], n / N) for n, x in enumerate(states)])
    torch.testing.assert_close(first + states[:, 6], exact, rtol=0, atol=1e-5)
    areas = states[:, 2:6].reshape(-1, 2, 2).det()
    torch.testing.assert_close(exact.exp() * areas, first.exp().expand(N + 1), rtol=1e-5, atol=0)


def test_the_text_tells_density_divergence_and_area(scene_of):
    figure = density_explorer(FIELD, start=(0.7, -0.4))
    said, state = scene_of(figure, "[it.scene.readout(), it.scene.state()]", t=0.5)
    first = FIELD.log_prob(tensor([0.7, -0.4], 1, 2), 0.0).item()
    x = tensor(scene_of(figure, "it.scene.positions()", t=0.5), 1, 2)
    assert state["log"] == pytest.approx(FIELD.log_prob(x, 0.5).item())
    assert state["log"] == pytest.approx(first + state["gain"], abs=1e-5)
    assert state["area"] == pytest.approx(math.exp(-state["gain"]), rel=1e-5)
    pattern = (
        r"t = 0\.50 · log p = (\S+), at the start (\S+), and −∫ div v dt = (\S+) · p = (\S+), area × (\S+) · "
        r"p × area = (\S+), at the start (\S+)"
    )
    log, start, gain, p, area, both, before = (
        float(text.replace("−", "-")) for text in re.fullmatch(pattern, said).groups()
    )
    assert log == pytest.approx(start + gain, abs=0.0151)
    assert both == before == pytest.approx(math.exp(first), rel=5e-3)
    assert p * area == pytest.approx(both, rel=1e-2)


def test_far_out_numbers_are_written_in_powers_of_ten(scene_of):
    said = scene_of(density_explorer(FIELD, start=(3.0, 3.0)), "it.scene.readout()", t=0.0)
    assert "p = 2.0 × 10⁻⁵, area × 1.00 · p × area = 2.0 × 10⁻⁵" in said


@pytest.mark.parametrize(
    ("events", "start"),
    [
        ("it.press(0, 'ArrowLeft')", (0.9, 0.0)),
        ("it.press(0, 'ArrowUp', true)", (1.0, 0.5)),
        (
            "it.drag(0, [303, 203], [150, 120])",
            (-0.5, 0.8),
        ),  # 100 pixels are one unit, and (0, 0) is at (200, 200)
        ("it.drag(0, [303, 203], [999, -50])", (2.0, 2.0)),
        ("it.tap(0, 100, 100)", (-1.0, 1.0)),
        ("it.drag(0, [100, 100], [100, 180])", (1.0, 0.0)),  # a finger that scrolls
        ("it.press(0, 'ArrowUp'), it.scene.reset()", (1.0, 0.0)),
    ],
)
def test_the_start_follows_the_hand(scene_of, events, start):
    figure = density_explorer(FIELD, start=(1.0, 0.0), window=2.0)
    starts, place = scene_of(figure, f"({events}, [it.scene.state().starts, it.scene.positions()])", t=0.0)
    assert starts == place == pytest.approx(list(start))


def test_what_is_heard_names_the_start_that_moved(scene_of):
    heard = scene_of(
        density_explorer(FIELD, start=(1.0, 0.0)),
        "(it.press(0, 'ArrowLeft'), [it.scene.heard(), it.scene.heard()])",
    )
    assert heard[0] == f"Start at 0.90, 0.00. {heard[1]}"


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heights": (0.0, 1.0)}, "must be 5 numbers"),
        ({"heights": (-2.0, -1.0, -1.0, 1.0, 2.0)}, "ascend"),
        ({"heights": (-2.0, -1.0, 0.0, 1.0, 2.95)}, "ascend"),
        ({"interval": (2.5, 0.4)}, "interval"),
        ({"interval": (0.0, 0.0)}, "interval"),
    ],
)
def test_bad_maps_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        change_of_variables_explorer(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": torch.zeros(3, 4)}, r"\(K \+ 1, B, 2\).* got \(3, 4\)"),
        ({"states": torch.zeros(1, 4, 2)}, "layers K, got"),
        ({"states": torch.zeros(3, 0, 2)}, "layers K, got"),
        ({"states": torch.full((3, 4, 2), 1e6)}, "finite"),
        ({"grid": torch.zeros(2, 1, 2, 2)}, r"\(3, G, N, 2\), got \(2, 1, 2, 2\)"),
        ({"grid": torch.full((3, 1, 2, 2), math.nan)}, "finite"),
        ({"labels": ["one"]}, "2 texts, or 3 .* got 1"),
        ({"layer": 2.5}, r"layer must be in \[0, 2\], got 2.5"),
        ({"window": 0.0}, "window"),
    ],
)
def test_bad_layers_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        layers_explorer(**{"states": torch.zeros(3, 4, 2), **changes})


@pytest.mark.parametrize(
    "field",
    [
        lambda x, t: x,
        rotation(),
        MIXTURE.marginal_velocity(cosine),
        MIXTURE.marginal_velocity(linear, MIXTURE),
    ],
    ids=["function", "no density", "other path", "other source"],
)
def test_fields_without_a_density_are_refused(field):
    with pytest.raises(TypeError, match=r"marginal_velocity\(linear\)"):
        density_explorer(field)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": (9.0, 0.0)}, "start"),
        ({"start": (1.0,)}, "start"),
        ({"time": 1.5}, "time"),
        ({"window": -1.0}, "window"),
        ({"side": 0.0}, "side"),
    ],
)
def test_bad_starts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        density_explorer(FIELD, **changes)
