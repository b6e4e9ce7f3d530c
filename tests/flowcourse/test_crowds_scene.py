"""The two crowds: who passes a place, their average and the exact one, and where both crowds are."""

import pytest
import torch

from flowcourse.scenes import crowds_explorer
from flowlib.data import eight_gaussians
from flowlib.fields import rotation
from flowlib.paths import cosine, linear
from flowlib.solvers import RK4, odeint

LAW = eight_gaussians()
DOUBLE = type(LAW)(LAW.means.double(), LAW.covariances.double(), LAW.weights.double())
EXACT = LAW.marginal_velocity(linear)
TIMES = pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 0.975, 1.0])


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape or -1)


def ends(state):
    return tensor(state["noises"], -1, 2), tensor(state["data"], -1, 2)


@TIMES
def test_the_average_is_exact_and_the_crowds_are_beside_it(scene_of, t):
    figure = crowds_explorer(EXACT)
    state = scene_of(figure, "it.scene.state()", t=t)
    x_0, x_1 = ends(state)
    place, velocity = tensor(state["place"], 1, 2), x_1 - x_0
    exact = DOUBLE.marginal_velocity(linear)(place, t)[0]
    torch.testing.assert_close(tensor(state["exact"]), exact, rtol=1e-6, atol=1e-6)
    near = (torch.lerp(x_0, x_1, t) - place).norm(dim=1) <= figure.spec["radius"]
    assert state["here"] == near.nonzero().flatten().tolist()
    if near.any():
        torch.testing.assert_close(tensor(state["mean"]), velocity[near].mean(0))


@TIMES
def test_one_crowd_walks_straight_and_the_other_follows_the_average(scene_of, t):
    straight, following = scene_of(crowds_explorer(EXACT), "it.scene.positions()", t=t)
    x_0, x_1 = ends(scene_of(crowds_explorer(EXACT), "it.scene.state()"))
    torch.testing.assert_close(tensor(straight, -1, 2), torch.lerp(x_0, x_1, t))
    expected = odeint(DOUBLE.marginal_velocity(linear), x_0, t1=t, steps=400, method=RK4) if t else x_0
    torch.testing.assert_close(tensor(following, -1, 2), expected, rtol=0, atol=0.02)


def test_a_survey_of_many_agrees_with_the_formula(scene_of):
    """The mean of those near a place, in standard errors of each component; a small ring, where the field is even."""
    figure = crowds_explorer(EXACT, walkers=20_000, radius=0.2)
    state = scene_of(figure, "it.scene.state()", t=0.4)
    x_0, x_1 = ends(state)
    u = (x_1 - x_0)[state["here"]]
    assert len(u) > 200
    errors = (tensor(state["mean"]) - tensor(state["exact"])).abs() / (u.std(0) / len(u) ** 0.5)
    assert errors.max() < 4


AT = "(([x, y]) => [it.panels[0].X(x), it.panels[0].Y(y)])"


@pytest.mark.parametrize(
    ("act", "place"),
    [
        ("", (-0.6, -0.7)),
        (f"it.tap(0, ...{AT}([1.5, 1]))", (1.5, 1.0)),
        (f"it.tap(1, ...{AT}([1.5, 1]))", (1.5, 1.0)),  # in either plane
        (f"it.drag(0, {AT}([-0.6, -0.7]), {AT}([0.3, 2]))", (0.3, 2.0)),
        ("it.press(0, 'ArrowRight')", (-0.5, -0.7)),
        ("it.press(0, 'ArrowUp', true)", (-0.6, -0.2)),
        (f"it.drag(0, {AT}([-0.6, -0.7]), [9000, 200])", (4.2, 0.0)),  # it stays in the plane
        ("(it.press(0, 'ArrowRight'), it.scene.reset())", (-0.6, -0.7)),
    ],
)
def test_the_place_is_moved_by_hand_and_keys(scene_of, act, place):
    found = scene_of(crowds_explorer(EXACT), f"(() => {{ {act}; return it.scene.state().place }})()")
    assert found == pytest.approx(place, abs=0.011)


def test_a_mouse_that_passes_looks_and_leaves_the_place_where_it_was(scene_of):
    pass_by = "it.fire(0, 'pointermove', { clientX: X, clientY: Y, pointerType: '%s' })"
    told = f"(() => {{ const [X, Y] = {AT}([2, -1]); {pass_by}; const over = it.scene.state().place;"
    told += "it.fire(0, 'pointerleave'); return [over, it.scene.state().place, it.scene.readout()] })()"
    over, after, _ = scene_of(crowds_explorer(EXACT), told % "mouse")
    assert over == pytest.approx([2, -1]) and after == [-0.6, -0.7]
    over, *_ = scene_of(crowds_explorer(EXACT), told % "touch")
    assert over == [-0.6, -0.7]


def test_a_finger_scrolls_the_page_unless_it_holds_the_place(scene_of):
    figure = crowds_explorer(EXACT)
    assert scene_of(figure, f"it.stops(0, {AT}([-0.6, -0.7]))") is True
    assert scene_of(figure, f"it.stops(0, {AT}([2, 2]))") is False


def test_it_says_when_nobody_passes(scene_of):
    figure = crowds_explorer(EXACT, place=(4.0, 4.0))
    said = scene_of(figure, "it.scene.readout()")
    assert "no walkers pass ·" in said and "NaN" not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"walkers": 0}, "at least one walker"),
        ({"place": (5.0, 0.0)}, r"within the window of 4.2, got \(5.0, 0.0\)"),
        ({"radius": 0.0}, "radius"),
        ({"time": 1.5}, "time"),
        ({"window": 0.0}, "window"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        crowds_explorer(EXACT, **changes)


@pytest.mark.parametrize("field", [rotation(), LAW.marginal_velocity(cosine)], ids=["matrix", "other path"])
def test_other_fields_are_refused(field):
    with pytest.raises(TypeError, match="GaussianMixture"):
        crowds_explorer(field)
