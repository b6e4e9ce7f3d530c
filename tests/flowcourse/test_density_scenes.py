"""The change of variables, the layers and the density explorer: their JavaScript computes what flowlib computes."""

import json
import math
import re

import pytest
import torch
from py_mini_racer import MiniRacer
from scipy.special import ndtr

from flowcourse.figures import explorable
from flowcourse.figures.explorable import encode16, rounded16
from flowcourse.figures.scenes import change_of_variables_explorer, density_explorer, layers_explorer
from flowcourse.figures.scenes import density as density_module
from flowcourse.figures.scenes import variables as variables_module
from flowlib.data import GaussianMixture, three_arms
from flowlib.derivatives import divergence
from flowlib.fields import rotation
from flowlib.paths import cosine, linear
from flowlib.solvers import RK4, trajectory
from flowlib.splines import rational_quadratic_spline

NAMES = {
    "variables": "area, spline, tangents, variables",
    "layers": "layers, moves, unpack",
    "density": "carried, density, linearized, logDensity",
}
MIXTURE = GaussianMixture(
    means=torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]], dtype=torch.float64),
    covariances=torch.tensor(
        [[[0.25, 0.0], [0.0, 0.04]], [[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.05]]],
        dtype=torch.float64,
    ),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
FIELD = MIXTURE.marginal_velocity(linear)
STARTS = [(0.7, -0.4), (0.0, 0.0), (-2.0, 1.5)]

# As much of a page and of the engine as the scenes ask for: `opened(scene, spec, values)` is the scene, drawn once.
# Panels are 400 by 400 pixels.
PAGE = """
globalThis.performance = { now: () => 0 };
globalThis.atob = (text) => {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const bits = [...text.replaceAll("=", "")].map((c) => digits.indexOf(c).toString(2).padStart(6, "0")).join("");
  return bits.match(/.{8}/g).map((byte) => String.fromCharCode(parseInt(byte, 2))).join("");
};
const pen = () => new Proxy({}, { get: (target, name) => target[name] ?? (() => ({ width: 7 })), set: () => true });
globalThis.OffscreenCanvas = class {
  constructor(width, height) { Object.assign(this, { width, height, getContext: pen }); }
};
globalThis.ImageData = class { constructor(m, n) { this.data = new Uint8ClampedArray(4 * m * n); } };
const panel = () => {
  const listeners = {}, size = 400;
  const canvas = {
    listeners, width: size, height: size, style: {},
    getBoundingClientRect: () => ({ left: 0, top: 0, width: size, height: size }),
    setPointerCapture() {},
    addEventListener: (name, listener) => (listeners[name] ??= []).push(listener),
  };
  const made = { canvas, pen: pen(), width: size, height: size, arrows() {}, text() {} };
  made.ink = (color, width, alpha, trace) => trace(made.pen);
  made.frame = (left, right, bottom, top, margin = 0) => {
    const wide = (right - left) / (size - margin), high = (top - bottom) / (size - margin);
    made.X = (x) => margin + (x - left) / wide;
    made.Y = (y) => (top - y) / high;
    made.inverse = (X, Y) => [left + (X - margin) * wide, top - Y * high];
    Object.assign(made, { left, right, bottom, top });
  };
  return made;
};
function opened(make, spec, values) {
  const panels = [panel(), panel()], colors = { source: "#000000", path: "#000000", data: "#000000", muted: "#000000" };
  const inputs = { x: { min: "-2.5", max: "2" }, dx: {}, knot: {}, y: {} };
  const engine = { values, panels, colors, inputs, draw() {}, say() {} };
  engine.set = (name, value) => ((values[name] = value), scene.change?.(name));
  const scene = make(spec, engine);
  scene.draw();
  const fire = (i, name, event) => {
    for (const listener of panels[i].canvas.listeners[name]) listener({ button: 0, preventDefault() {}, ...event });
    scene.draw();
  };
  const drag = (i, from, to) => {
    fire(i, "pointerdown", { clientX: from[0], clientY: from[1] });
    fire(i, "pointermove", { clientX: to[0], clientY: to[1] });
    fire(i, "pointerup", { clientX: to[0], clientY: to[1] });
  };
  const tap = (i, X, Y) => drag(i, [X, Y], [X, Y]);
  const press = (i, key, shiftKey = false) => fire(i, "keydown", { key, shiftKey });
  return { scene, engine, panels, fire, drag, tap, press, values };
}
"""


@pytest.fixture(scope="module")
def browser():
    """Evaluates an expression with the functions of the scenes, in V8; values travel as JSON."""
    with MiniRacer() as context:
        context.eval(PAGE)
        for scene, names in NAMES.items():
            context.eval(
                f"const {scene}Scene = (() => {{ {explorable.script(scene)}; return {{ {names} }} }})();"
                f"const {{ {names} }} = {scene}Scene;"
            )

        def evaluate(expression, **values):
            definitions = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
            return json.loads(
                context.eval(f"(() => {{ {definitions} return JSON.stringify({expression}) }})()")
            )

        yield evaluate


def controls(figure):
    """The values of a figure's controls as the engine reads them."""
    values = {}
    for name, rest in re.findall(r'data-control="(\w+)"([^>]*)>', figure.controls):
        value = re.search(r' value="([^"]*)"', rest)
        values[name] = float(value[1]) if value else "checked" in rest
    return values


def scene_of(figure, expression, browser, **values):
    """The value of an expression about the figure's scene, opened with the values of its controls."""
    return browser(
        f"(() => {{ const it = opened({figure.scene}, spec, values); return {expression} }})()",
        spec=figure.spec,
        values=controls(figure) | values,
    )


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


def test_the_map_of_the_page_is_that_of_the_still_picture(browser):
    heights = tensor([-2.6, -1.1, -0.9, 0.2, 2.0])
    x = torch.linspace(-3.2, 3.2, 65, dtype=torch.float64)
    found = browser(
        "x.map((x) => spline(xs, ys, tangents(xs, ys), x))",
        x=x.tolist(), xs=[-3, *variables_module.KNOTS, 3], ys=[-3, *heights.tolist(), 3],
    )  # fmt: skip
    expected = torch.stack(variables_module.spline(heights, x), dim=1)
    torch.testing.assert_close(tensor(found, -1, 2), expected, rtol=1e-10, atol=1e-10)


def test_chords_of_slope_one_make_the_identity(browser):
    xs = [-3, -2, -1, 0, 1, 2, 3]
    found = browser("x.map((x) => spline(xs, xs, tangents(xs, xs), x))", xs=xs, x=[-2.3, -1.0, 0.1, 2.9])
    torch.testing.assert_close(tensor(found, -1, 2), tensor([-2.3, 1, -1.0, 1, 0.1, 1, 2.9, 1], -1, 2))


@pytest.mark.parametrize(
    "heights", [(-2.0, -1.0, 0.0, 1.0, 2.0), (-2.9, -2.8, -2.7, 2.7, 2.8), (-1.9, -1.5, 0.3, 1.6, 2.0)]
)
@pytest.mark.parametrize(("x", "dx"), [(-2.5, 1.0), (-0.3, 0.05), (0.8, 0.4), (2.0, 1.0)])
def test_the_shaded_areas_are_the_probability_of_the_interval(browser, heights, x, dx):
    figure = change_of_variables_explorer(heights=heights)
    below, beside = scene_of(figure, "it.scene.state().areas", browser, x=x, dx=dx)
    probability = ndtr(x + dx) - ndtr(x)
    # Trapezoids of 400 pieces: off by at most (dx / 400)^2 / 12 times the largest second derivative, 0.4, times dx;
    # where p changes by a factor e^c over a piece, by a share of about c^2 / 12, and here c is below 0.1.
    assert below == pytest.approx(probability, abs=2.1e-7)
    assert beside == pytest.approx(probability, rel=1e-3)


def test_each_area_uses_the_heights_of_its_own_density(browser):
    assert browser("area([[0, 1], [1, 3], [3, 0]])") == 5
    assert browser("area([[0, 1]])") == 0


def test_the_text_tells_slope_densities_lengths_and_areas(browser):
    said = scene_of(
        change_of_variables_explorer(heights=(-2.0, -1.0, 0.0, 1.0, 2.0)),
        "it.scene.readout()",
        browser,
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
def test_knots_follow_the_hand_and_keep_their_order(browser, events, heights, knot):
    figure = change_of_variables_explorer(heights=(-2.0, -1.0, 0.0, 1.0, 2.0))
    found, k = scene_of(figure, f"({events}, [it.scene.state().heights, it.values.knot])", browser)
    assert found == pytest.approx(list(heights)) and k == knot


def test_the_height_shown_is_that_of_the_knot(browser):
    figure = change_of_variables_explorer()
    shown = scene_of(figure, "[1, 2, 3, 4, 5].map((k) => (it.engine.set('knot', k), it.values.y))", browser)
    assert shown == list(figure.spec["heights"])
    assert controls(figure)["y"] == figure.spec["heights"][2]


@pytest.mark.parametrize(
    ("events", "x"),
    [
        ("it.drag(0, [it.panels[0].X(0.45), 360], [it.panels[0].X(-0.75), 300])", -1.0),
        ("it.tap(0, it.panels[0].X(-1), 360)", -1.25),
        ("it.tap(0, it.panels[0].X(-1), 40)", 0.2),  # not among the densities
        ("it.drag(0, [it.panels[0].X(0.45), 360], [999, 300])", 2.0),
    ],
)
def test_the_interval_follows_the_hand(browser, events, x):
    figure = change_of_variables_explorer(interval=(0.2, 0.5))
    assert scene_of(figure, f"({events}, it.values.x)", browser) == pytest.approx(x, abs=0.011)


def test_a_finger_scrolls_the_page_unless_it_holds_something(browser):
    touch = """([x, y]) => { let stopped = false;
        const event = { touches: [{ clientX: x, clientY: y }], preventDefault: () => (stopped = true) };
        it.panels[0].canvas.listeners.touchstart[0](event);
        return stopped }"""
    places = "[[100, 100], [it.panels[0].X(0), it.panels[0].Y(0.3)], [it.panels[0].X(1.4), 360]]"
    assert scene_of(change_of_variables_explorer(), f"{places}.map({touch})", browser) == [False, True, True]
    # the density explorer spans 6.4 units in 400 pixels
    places = "[[100, 100], [200 + 1.2 * 62.5, 200 - 0.5 * 62.5]]"
    assert scene_of(density_explorer(FIELD), f"{places}.map({touch})", browser) == [False, True]


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
def test_between_layers_points_move_on_straight_lines(browser, states, t):
    found = scene_of(layers_explorer(states), "it.scene.positions()", browser, t=t)
    n = min(int(t), 1)
    expected = torch.lerp(*rounded16(states[n : n + 2]), t - n)
    torch.testing.assert_close(tensor(found, 30, 2), expected, rtol=3e-7, atol=3e-7)  # float32 in the browser


def test_moves_are_mean_distances_along_each_axis(browser, states):
    for n, axis in ((0, 0), (1, 1)):
        figure = layers_explorer(states)
        found = scene_of(figure, "it.scene.state().means", browser, t=n + 0.5)
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
def test_the_text_names_the_layer_and_what_it_does(browser, states, labels, t, text):
    said = scene_of(layers_explorer(states, labels=labels), "it.scene.readout()", browser, t=t)
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
def test_small_pictures_and_keys_go_to_whole_layers(browser, states, events, t):
    assert scene_of(layers_explorer(states), f"({events}, it.values.t)", browser) == t


def test_small_pictures_stand_in_rows(browser):
    figure = layers_explorer(torch.zeros(13, 4, 2))
    assert figure.spec["columns"] == 10
    found = scene_of(
        figure, "[[10, 10], [390, 10], [50, 390], [390, 390]].map(([clientX, clientY]) => "
        "(it.fire(1, 'click', { clientX, clientY }), it.values.t))", browser
    )  # fmt: skip
    assert found == [0, 9, 11, 12]


def test_a_grid_is_carried_along(browser, states):
    grid = states[:, :12].reshape(3, 3, 4, 2)
    figure = layers_explorer(states, grid=grid)
    assert controls(figure)["grid"] is True and "grid" not in controls(layers_explorer(states))
    assert figure.spec["length"] == 4
    found = browser("unpack(text, 3).map((state) => [...state])", text=figure.spec["grid"])
    torch.testing.assert_close(tensor(found, 3, 3, 4, 2), rounded16(grid), rtol=0, atol=0)
    lines = scene_of(figure, "(() => { const calls = []; it.panels[0].pen = new Proxy({}, { get: (_, name) => "
                     "(...at) => calls.push(name), set: () => true }); it.panels[0].ink = (c, w, a, trace) => "
                     "trace(it.panels[0].pen); it.values.moves = false; it.scene.draw(); "
                     "return ['moveTo', 'lineTo'].map((name) => calls.filter((call) => call === name).length) })()",
                     browser)  # fmt: skip
    assert lines == [3 + 2 * 30, 9]  # each of 30 points is drawn twice


def test_play_takes_whole_layers_where_less_motion_is_wanted(states):
    assert 'data-moments="2"' in layers_explorer(states).controls


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

    N = density_module.STEPS
    first = tensor([*start, 1, 0, 0, 1, 0], 1, 7)
    expected = trajectory(augmented, first, steps=N, method=RK4)[1][:, 0]
    states = follow(browser, start)
    torch.testing.assert_close(states, expected, rtol=1e-9, atol=1e-9)
    # for the still picture, by differences of 1e-4 of the flow
    torch.testing.assert_close(density_module.carried(FIELD, tensor(start)), states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", STARTS)
def test_the_two_curves_coincide_and_mass_is_kept(browser, start):
    states, N = follow(browser, start), density_module.STEPS
    first = FIELD.log_prob(tensor(start, 1, 2), 0.0)
    exact = torch.cat([FIELD.log_prob(x[None, :2], n / N) for n, x in enumerate(states)])
    torch.testing.assert_close(first + states[:, 6], exact, rtol=0, atol=1e-5)
    areas = states[:, 2:6].reshape(-1, 2, 2).det()
    torch.testing.assert_close(exact.exp() * areas, first.exp().expand(N + 1), rtol=1e-5, atol=0)


def test_the_text_tells_density_divergence_and_area(browser):
    figure = density_explorer(FIELD, start=(0.7, -0.4))
    said, state = scene_of(figure, "[it.scene.readout(), it.scene.state()]", browser, t=0.5)
    first = FIELD.log_prob(tensor([0.7, -0.4], 1, 2), 0.0).item()
    x = tensor(scene_of(figure, "it.scene.positions()", browser, t=0.5), 1, 2)
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


def test_far_out_numbers_are_written_in_powers_of_ten(browser):
    said = scene_of(density_explorer(FIELD, start=(3.0, 3.0)), "it.scene.readout()", browser, t=0.0)
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
def test_the_start_follows_the_hand(browser, events, start):
    figure = density_explorer(FIELD, start=(1.0, 0.0), window=2.0)
    starts, place = scene_of(
        figure, f"({events}, [it.scene.state().starts, it.scene.positions()])", browser, t=0.0
    )
    assert starts == place == pytest.approx(list(start))


def test_what_is_heard_names_the_start_that_moved(browser):
    heard = scene_of(
        density_explorer(FIELD, start=(1.0, 0.0)),
        "(it.press(0, 'ArrowLeft'), [it.scene.heard(), it.scene.heard()])",
        browser,
    )
    assert heard[0] == f"Start at 0.90, 0.00. {heard[1]}"


# The HTML


FIGURES = {
    "variables": (change_of_variables_explorer, ["x", "dx", "knot", "y"]),
    "layers": (
        lambda **texts: layers_explorer(
            torch.zeros(3, 4, 2), grid=torch.zeros(3, 1, 2, 2), labels=["<b>", "</script>"], **texts
        ),
        ["t", "moves", "grid"],
    ),
    "density": (lambda **texts: density_explorer(FIELD, **texts), ["t", "density", "arrows"]),
}


@pytest.mark.parametrize("scene", FIGURES)
def test_html_is_deterministic_self_contained_and_labeled(scene):
    make, names = FIGURES[scene]
    html = make()._repr_html_()
    assert html == make()._repr_html_()
    assert html.count("<script") == html.count("</script>") == 1
    assert not re.search(r"https?:|src=", html)
    found = re.findall(r"<(?:input|select)[^>]*>", html)
    labeled = re.findall(r"<label>(?:<span>[^<]+(?:<i>[^<]+</i>)?</span>)?<(?:input|select)[^>]*>", html)
    assert len(found) == len(labeled) <= 5
    assert re.findall(r'data-control="(\w+)"', html) == names
    panels = re.findall(r'<canvas (?:tabindex="0" )?role="(\w+)" aria-label="([^"]{20,})"', html)
    assert "application" in dict(panels) and "keys" in dict(panels)["application"]
    assert len(re.findall(r'<svg class="flow-still"[^>]* role="img" aria-label="[^"]{20,}"', html)) == len(
        panels
    )
    assert 'class="flow-reset"' in html and 'aria-live="polite"' in html


@pytest.mark.parametrize("scene", FIGURES)
def test_texts_cannot_break_out(scene):
    html = FIGURES[scene][0](title="<i>&", caption="</figure>", description='"><script>' * 3)._repr_html_()
    assert html.count("</script>") == html.count("</figure>") == 1
    assert "<b>noise" not in html and "&lt;i&gt;&amp;" in html


def test_the_still_pictures_show_where_things_are():
    states = torch.tensor([[[0.0, 0.0]], [[2.0, 1.0]]])
    assert "M100 -50h0" in layers_explorer(states, layer=0.5, window=3.0).stage
    v = three_arms().marginal_velocity(linear)
    assert "M120 -50h0" in density_explorer(v, start=(1.2, 0.5)).stage


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
