"""The solver playground: its script takes flowlib's steps, reads where they read, measures the errors."""

import math
import re

import pytest
import torch

from flowcourse.explorables import table
from flowcourse.scenes import solver_explorer
from flowcourse.scenes.flow import described_field
from flowlib.data import GaussianMixture
from flowlib.fields import LinearField, TravelingVortex, rotation, shear
from flowlib.paths import linear
from flowlib.solvers import DOPRI5, EULER, HEUN, MIDPOINT, RK4, odeint, trajectory

MIXTURE = GaussianMixture(
    means=torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]], dtype=torch.float64),
    covariances=torch.tensor([0.04, 0.1, 0.2], dtype=torch.float64),
)
FIELDS = {
    "rotation": rotation(3.0),
    "full matrix": LinearField(((0.3, -1.1), (0.4, -0.2))),
    "vortex": TravelingVortex(strength=5.0, radius=0.6, start=(-1.0, 0.3), end=(0.8, -0.2)),
    "mixture": MIXTURE.marginal_velocity(linear),
}
COUNTS = (1, 2, 4, 8, 16, 32, 64)  # steps at which the chart shows errors
REFERENCE = 512  # steps of RK4 that stand for the exact trajectory
METHODS = (EULER, MIDPOINT, HEUN, RK4, DOPRI5)
START = torch.tensor([[0.7, -0.4]], dtype=torch.float64)


class Recorder:
    """A field that notes where and when it is read, and what it answers."""

    def __init__(self, field):
        self.field, self.read = field, []

    def __call__(self, x, t):
        slope = self.field(x, t)
        self.read.append((x[0].tolist(), float(t), slope[0].tolist()))
        return slope


def settings(name, method):
    return {
        "spec": described_field(name, FIELDS[name]),
        "x": START[0].tolist(),
        "method": table(method),
    }


def explorer(**changes):
    return solver_explorer(**{"fields": {"Rotation": rotation(3.0)}, **changes})


# The mathematics


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", FIELDS)
def test_steps_are_those_of_flowlib(browser, name, method):
    _, expected = trajectory(FIELDS[name], START, steps=6, method=method)
    states = browser(
        "odeint(fields[spec.kind](spec), x, 0, 1, 6, method).map((state) => [...state])",
        **settings(name, method),
    )
    torch.testing.assert_close(
        torch.tensor(states, dtype=torch.float64), expected[:, 0], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", FIELDS)
def test_stages_are_where_flowlib_reads_the_field(browser, name, method):
    recorder = Recorder(FIELDS[name])
    odeint(recorder, START, t0=0.25, t1=0.5, steps=1, method=method)
    read = browser(
        "(() => { const field = fields[spec.kind](spec), times = [];"
        "const noting = (x, t, out) => (times.push(t), field(x, t, out));"
        "const { places, slopes } = stages(noting, Float64Array.from(x), 0.25, 0.25, method);"
        "return places.map((place, i) => [[...place], times[i], [...slopes[i]]]) })()",
        **settings(name, method),
    )
    assert len(read) == len(recorder.read) == method.stages
    for found, expected in zip(read, recorder.read, strict=True):
        torch.testing.assert_close(
            torch.tensor([*found[0], found[1], *found[2]], dtype=torch.float64),
            torch.tensor([*expected[0], expected[1], *expected[2]], dtype=torch.float64),
            rtol=1e-10,
            atol=1e-10,
        )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", FIELDS)
def test_errors_are_those_that_flowlib_leaves(scene_of, name, method):
    figure = solver_explorer({name: FIELDS[name]}, methods=METHODS, start=tuple(START[0].tolist()))
    state = scene_of(figure, "it.scene.state()", method=method.name, steps=6)
    exact = odeint(FIELDS[name], START, steps=REFERENCE, method=RK4)

    def error(N):
        return (odeint(FIELDS[name], START, steps=N, method=method) - exact).norm().item()

    assert state["curves"][method.name] == pytest.approx([error(N) for N in COUNTS], abs=1e-10, rel=1e-8)
    assert state["error"] == pytest.approx(error(6), abs=1e-10)


def test_the_exact_trajectory_is_far_closer_than_the_finest_error_shown():
    x = rotation(3.0).flow(START, 0.0, 1.0)
    reference = (odeint(rotation(3.0), START, steps=REFERENCE, method=RK4) - x).norm()
    finest = (odeint(rotation(3.0), START, steps=max(COUNTS), method=RK4) - x).norm()
    assert reference < finest / 1000


def test_several_points_report_the_largest_error(browser):
    x = [0.7, -0.4, 1.4, -0.8]
    values = {"spec": described_field("r", rotation(3.0)), "x": x, "method": table(EULER)}
    both = browser("errors(fields.linear(spec), x, [0, 0, 0, 0], method, [4])", **values)
    one = browser("errors(fields.linear(spec), x.slice(2), [0, 0], method, [4])", **values)
    assert both == one  # the field is linear, so the second point's state is twice the first's


# The scene


@pytest.mark.parametrize(("t", "steps"), [(0.0, 4), (0.3, 4), (0.5, 6), (1.0, 3)])
def test_between_steps_the_point_moves_on_the_step(scene_of, t, steps):
    position = scene_of(explorer(), "it.scene.positions()", method="midpoint", t=t, steps=steps)
    _, states = trajectory(
        rotation(3.0),
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        steps=steps,
        method=MIDPOINT,
    )
    n = min(int(t * steps), steps - 1)
    expected = torch.lerp(states[n], states[n + 1], t * steps - n)[0]
    assert position == pytest.approx(expected.tolist(), abs=1e-10)


@pytest.mark.parametrize(("method", "order"), [("Euler", 1), ("midpoint", 2), ("Heun", 2), ("RK4", 4)])
def test_the_text_tells_cost_error_and_observed_order(scene_of, method, order):
    said = scene_of(explorer(), "it.scene.readout()", method=method, steps=48)
    stages = {"Euler": 1, "midpoint": 2, "Heun": 2, "RK4": 4}[method]
    times = f" × {stages}" if stages > 1 else ""
    assert f"{method}, 48 steps{times} = {48 * stages} evaluations · error at t = 1: " in said
    ratio, observed = re.search(r"half the step divides it by ([\d.]+) \(order ([\d.]+)\)", said).groups()
    assert float(observed) == pytest.approx(order, abs=0.1)
    assert float(ratio) == pytest.approx(2**order, rel=0.1)


def test_one_step_is_told_in_the_singular_and_no_error_without_an_order(scene_of):
    figure = explorer(fields={"Shear": shear()})  # whose trajectories are straight: every method is exact
    said = scene_of(figure, "it.scene.readout()", method="Euler", steps=1)
    assert said == "t = 0.30 · Euler, 1 step = 1 evaluation · error at t = 1: below 10⁻¹²"


def test_an_error_that_grows_is_not_said_to_shrink(scene_of):
    stiff = LinearField(
        ((-9.0, 0.0), (0.0, -9.0))
    )  # |1 - 9 h| > 1 for h > 2 / 9, and two such steps are worse than one
    said = scene_of(explorer(fields={"Stiff": stiff}), "it.scene.readout()", method="Euler", steps=1)
    assert "half the step multiplies it by 1.5 (order −0.6)" in said  # from 8 to 3.5^2 = 12.25


@pytest.mark.parametrize(
    ("events", "start"),
    [
        ("it.fire(0, 'keydown', { key: 'ArrowLeft' })", (0.9, 0.0)),
        ("it.fire(0, 'keydown', { key: 'ArrowUp', shiftKey: true })", (1.0, 0.5)),
        ("it.fire(0, 'keydown', { key: 'Tab' })", (1.0, 0.0)),
        # 100 pixels are one unit, and (0, 0) is at (200, 200)
        (
            "(it.fire(0, 'pointerdown', { clientX: 303, clientY: 203 }),"
            " it.fire(0, 'pointermove', { clientX: 150, clientY: 120 }))",
            (-0.5, 0.8),
        ),
        (
            "(it.fire(0, 'pointerdown', { clientX: 303, clientY: 203 }), it.fire(0, 'pointerup', {}),"
            " it.fire(0, 'pointermove', { clientX: 150, clientY: 120 }))",
            (1.0, 0.0),
        ),
        (
            "(it.fire(0, 'pointerdown', { clientX: 303, clientY: 203 }),"
            " it.fire(0, 'pointermove', { clientX: 999, clientY: -50 }))",
            (2.0, 2.0),
        ),
        (
            "(it.fire(0, 'pointerdown', { clientX: 100, clientY: 100 }),"
            " it.fire(0, 'pointerup', { clientX: 101, clientY: 100 }))",
            (-0.99, 1.0),
        ),
        (
            "(it.fire(0, 'pointerdown', { clientX: 100, clientY: 100 }),"
            " it.fire(0, 'pointermove', { clientX: 100, clientY: 180 }), it.fire(0, 'pointercancel', {}))",
            (1.0, 0.0),
        ),
    ],
    ids=["arrow key", "with Shift", "other key", "drag", "let go", "to the edge", "tap", "scroll"],
)
def test_the_start_follows_the_hand(scene_of, events, start):
    assert scene_of(explorer(), f"({events}, it.scene.state().starts)") == pytest.approx(start)


def test_reset_brings_the_start_back(scene_of):
    moved = "(it.fire(0, 'keydown', { key: 'ArrowUp' }), it.scene.reset(), it.scene.state().starts)"
    assert scene_of(explorer(), moved) == [1, 0]


def test_a_finger_scrolls_the_page_unless_it_holds_the_start(scene_of):
    stopped = scene_of(explorer(), "[100, 280, 310].map((x) => it.stops(0, [x, 200]))")
    assert stopped == [False, True, True]


def test_what_is_heard_names_the_start_that_moved(scene_of):
    heard = scene_of(
        explorer(),
        "(it.fire(0, 'keydown', { key: 'ArrowLeft' }), [it.scene.heard(), it.scene.heard()])",
    )
    assert heard[0] == f"Start at 0.90, 0.00. {heard[1]}"


def test_a_moving_hand_sees_the_same_errors_less_exactly(scene_of):
    held, rested = scene_of(
        explorer(),
        "(() => { it.fire(0, 'pointerdown', { clientX: 300, clientY: 200 });"
        "it.fire(0, 'pointermove', { clientX: 250, clientY: 150 }); const held = it.scene.state();"
        "it.fire(0, 'pointerup', { clientX: 250, clientY: 150 }); return [held, it.scene.state()] })()",
    )
    assert held["starts"] == rested["starts"] == [0.5, 0.5]
    for name, curve in rested["curves"].items():
        # the reference is then RK4 with twice the steps of the finest method shown: an error of one part in 16
        assert held["curves"][name] == pytest.approx(curve, rel=0.07)
        assert held["curves"][name] != curve


def test_a_tap_on_a_mark_chooses_its_method_and_steps(scene_of):
    figure = explorer()
    x, y = scene_of(
        figure,
        "[it.panels[1].X(Math.log2(16 * 4)), it.panels[1].Y(Math.log10(it.scene.state().curves.RK4[4]))]",
    )
    tap = f"(it.fire(1, 'click', {{ clientX: {x + 3}, clientY: {y - 2} }}), it.engine.values)"
    assert scene_of(figure, tap).items() >= {"method": "RK4", "steps": 16}.items()


# The HTML


def test_controls_without_a_choice_are_left_out():
    def names(figure):
        return re.findall(r'data-control="(\w+)"', figure._repr_html_())

    assert names(explorer(methods=(RK4,))) == ["t", "steps"]
    assert names(explorer(fields=FIELDS)) == ["t", "field", "method", "steps"]
    assert "4, 5, 6" not in explorer()._repr_html_()
    assert "4, 5, 6" in explorer(steps=5)._repr_html_()


# Refusals


def test_fields_that_the_browser_cannot_compute_are_named():
    with pytest.raises(TypeError, match="cannot compute the field 'mine'"):
        explorer(fields={"mine": lambda x, t: x})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {}}, "a field and a method, got 0 and 4"),
        ({"methods": ()}, "a field and a method, got 1 and 0"),
        ({"methods": (EULER, EULER)}, r"different names, got \['Euler', 'Euler'\]"),
        ({"steps": 0}, "whole number from 1 to 64, got 0"),
        ({"steps": 65}, "whole number from 1 to 64, got 65"),
        ({"steps": True}, "whole number"),
        ({"start": (1.0,)}, r"two numbers within the window of 2.0, got \(1.0,\)"),
        ({"start": (3.0, 0.0)}, "two numbers within the window"),
        ({"start": (math.nan, 0.0)}, "two numbers within the window"),
        ({"window": 0.0}, "window must be positive, got 0.0"),
        ({"time": 1.5}, r"time must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)
