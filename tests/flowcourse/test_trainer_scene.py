"""The figure that learns in the page: its network, optimizer, pairs and solver are torch's, scipy's and flowlib's."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from py_mini_racer import MiniRacer

from flowcourse.assets import text
from flowcourse.explorables import table
from flowcourse.scenes import trainer_board
from flowcourse.scenes.trainer import OWN, SAMPLERS, SHAPES
from flowlib.couplings import exact
from flowlib.data import three_arms
from flowlib.matching import cfm_loss
from flowlib.metrics import wasserstein2
from flowlib.nets import VelocityMLP
from flowlib.paths import linear
from flowlib.solvers import DOPRI5, odeint

TABLEAU = {**table(DOPRI5), "error": DOPRI5.error, "order": DOPRI5.order}
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def flat(x):
    return x.flatten().tolist()


def packed(net, part=lambda p: p):
    """Weights, or what `part` makes of them, in the script's order: W and b of each layer in turn."""
    return torch.cat([part(p).detach().flatten() for p in net.parameters()])


@pytest.fixture(scope="module")
def net():
    return VelocityMLP(2, generator=seeded())


# The network and its training


@pytest.mark.parametrize("n", [1, 3, 128, 200])
def test_the_forward_pass_is_that_of_flowlib(browser, net, n):
    x, t = 2 * drawn(n, 2), torch.rand(n, generator=seeded(1))
    found = browser(
        "(() => { const net = perceptron(SIZES, 200, Float32Array.from(w));"
        "return [...net.forward(Float32Array.from(rows), n)].slice(0, 2 * n) })()",
        w=packed(net).tolist(), rows=flat(torch.cat([x, t[:, None]], 1)), n=n,
    )  # fmt: skip
    torch.testing.assert_close(torch.tensor(found).reshape(n, 2), net(x, t).detach(), **CLOSE)


@pytest.mark.parametrize("n", [5, 128])
def test_a_steps_loss_and_gradient_are_those_of_torch(browser, net, n):
    x_0, x_1, t = drawn(n, 2), 2 * drawn(n, 2, seed=1), torch.rand(n, generator=seeded(2))
    loss, gradient = browser(
        "(() => { const net = perceptron(SIZES, 128, Float32Array.from(w));"
        "const { loss, gradient } = regression(net, a, b, t); return [loss, [...gradient]] })()",
        w=packed(net).tolist(), a=flat(x_0), b=flat(x_1), t=t.tolist(),
    )  # fmt: skip
    net.zero_grad()
    computed = cfm_loss(net, x_1, x_0=x_0, times=lambda *_, **__: t)
    computed.backward()
    assert loss == pytest.approx(computed.item(), rel=1e-5)
    torch.testing.assert_close(torch.tensor(gradient), packed(net, lambda p: p.grad), **CLOSE)


def test_adam_is_torchs(browser):
    weights, gradients = drawn(50), drawn(8, 50, seed=1) * 10 ** drawn(50, seed=2)
    found = browser(
        "(() => { const x = Float32Array.from(w), step = adam(x);"
        "for (const g of gradients) step(g, 0.01); return [...x] })()",
        w=weights.tolist(), gradients=gradients.tolist(),
    )  # fmt: skip
    parameter = torch.nn.Parameter(weights.clone())
    adam = torch.optim.Adam([parameter], lr=0.01)
    for gradient in gradients:
        parameter.grad = gradient
        adam.step()
    torch.testing.assert_close(torch.tensor(found), parameter.detach(), **CLOSE)


def test_first_weights_are_uniform_within_torchs_bounds(browser):
    weights = torch.tensor(browser("[...initial(SIZES, seeded(1).uniform)]"))
    sizes = browser("SIZES")
    at = 0
    for inputs, outputs in pairwise(sizes):
        part = weights[at : at + outputs * (inputs + 1)] * inputs**0.5
        at += len(part)
        n = len(part)
        assert part.abs().max() <= 1
        assert abs(part.mean()) < 4 / (3 * n) ** 0.5  # standard deviations of the mean
        assert part.square().mean() == pytest.approx(1 / 3, abs=4 * (4 / 45 / n) ** 0.5)
    assert at == len(weights)


def test_random_numbers_have_their_laws_and_follow_the_seed(browser):
    uniform, normal, again, other = browser(
        "(() => { const of = (seed, name) => { const r = seeded(seed); return Array.from({ length: 20000 }, r[name]) };"
        "return [of(1, 'uniform'), of(1, 'normal'), of(1, 'uniform'), of(2, 'uniform')] })()"
    )
    assert uniform == again != other
    u, z = np.array(uniform), np.array(normal)
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * len(u))
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) and abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))
    assert abs(np.mean(np.abs(z) < 1) - 0.6827) < 4 * np.sqrt(0.22 / len(z))


# Pairs and distances


@pytest.mark.parametrize("n", [2, 17, 128])
def test_optimal_pairs_are_those_of_flowlib(browser, n):
    x_0, x_1 = drawn(n, 2).double(), 2 * drawn(n, 2, seed=1).double()
    found = torch.tensor(
        browser("[...best(Float64Array.from(a), b)]", a=flat(x_0), b=flat(x_1)), dtype=torch.float64
    )
    torch.testing.assert_close(found.reshape(n, 2), exact(x_0, x_1)[0], rtol=0, atol=0)
    distance = browser("wasserstein2(a, b)", a=flat(x_0), b=flat(x_1))
    assert distance == pytest.approx(wasserstein2(x_0, x_1), rel=1e-9)


# Walks


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_adaptive_steps_are_those_of_flowlib(browser, tolerance):
    law, x = three_arms(), drawn(20, 2).double()
    described = {
        "weights": law.weights.tolist(),
        "means": law.means.tolist(),
        "covariances": law.covariances.tolist(),
    }
    made = browser(
        "(({ times, states, evaluations }) => [times, [...states.at(-1)], evaluations])"
        "(adaptive(fields.mixture(law), x, tableau, { rtol: tolerance, atol: tolerance }))",
        law=described, x=flat(x), tableau=TABLEAU, tolerance=tolerance,
    )  # fmt: skip
    times = []
    count = 0

    def field(x, t):
        nonlocal count
        count += 1
        return law.marginal_velocity(linear)(x, t)

    end = odeint(
        field, x, method=DOPRI5, rtol=tolerance, atol=tolerance, observe=lambda t, _: times.append(float(t))
    )
    np.testing.assert_allclose(made[0], times, rtol=1e-4)  # means are float32
    np.testing.assert_allclose(np.array(made[1]).reshape(-1, 2), end, atol=1e-5)
    assert made[2] == count


def test_a_field_that_no_step_can_follow_is_refused(browser):
    said = browser(
        "(() => { try { adaptive((x, t, out) => out.fill(1 / (0.5 - t)), [0, 0], tableau, { rtol: 1e-9, atol: 1e-9 }) }"
        "catch (error) { return error.message } })()",
        tableau=TABLEAU,
    )
    assert said.startswith("no step meets the tolerance at t = 0.")


def test_between_steps_points_lie_on_cubics_or_on_lines(browser):
    t = np.linspace(0, 1, 9).tolist()
    cubic = "{ times: [0, 0.5, 1], states: [[0], [0.125], [1]], slopes: [[0], [0.75], [3]] }"  # t^3
    np.testing.assert_allclose(
        browser(f"t.map((t) => placed({cubic}, t)[0])", t=t), np.array(t) ** 3, atol=1e-12
    )
    line = "{ times: [0, 0.5, 1], states: [[0], [1], [0]] }"
    found = browser(f"t.map((t) => placed({line}, t)[0])", t=t)
    np.testing.assert_allclose(found, 1 - np.abs(2 * np.array(t) - 1), atol=1e-12)


def test_euler_walks_read_the_field_so_often(browser):
    times, end, evaluations = browser(
        "(({ times, states, evaluations }) => [times, [...states.at(-1)], evaluations])"
        "(walk((x, t, out) => x.forEach((_, i) => (out[i] = t)), [0, 1], 4))"
    )
    assert times == [0, 0.25, 0.5, 0.75, 1] and evaluations == 4
    assert end == pytest.approx([0.375, 1.375])


# The figure, with the learner in the page itself: timers are called by hand

LEARN = """((it) => {
  const waiting = [], { setTimeout, clearTimeout, performance } = globalThis;
  let now = 0;
  globalThis.setTimeout = (call) => (waiting.push(call), call);
  globalThis.clearTimeout = (call) => waiting.includes(call) && waiting.splice(waiting.indexOf(call), 1);
  globalThis.performance = { now: () => (now += 10) };
  it.run = (until) => { while (waiting.length && !until()) waiting.shift()(); };
  try { return %s } finally { Object.assign(globalThis, { setTimeout, clearTimeout, performance }) }
})(it)"""


def learned(scene_of, expression, **values):
    return scene_of(trainer_board(steps=60), LEARN % expression, **values)


def test_training_lowers_the_loss_and_measures(scene_of):
    state, said = learned(
        scene_of,
        "(it.scene.train(), it.run(() => it.scene.state().results.optimal), [it.scene.state(), it.scene.readout()])",
        pairs="optimal",
    )
    assert state["total"] == 60 and not state["training"]
    assert state["curve"][-1] < 0.8 * state["curve"][0]
    found = state["results"]["optimal"]
    assert len(found["distances"]) == len(SAMPLERS) and 0 < found["floor"] < min(found["distances"])
    assert "W₂ with 10 steps: " in said and "noise floor: " in said


def test_a_second_press_stops_and_a_third_goes_on(scene_of):
    opening, stopped, again = learned(
        scene_of,
        "(() => { const s = it.scene, seen = []; s.train(); it.run(() => s.state().total > 0); seen.push(s.state());"
        "s.train(); seen.push(s.state()); s.train(); it.run(() => s.state().total > 60);"
        "it.run(() => !s.state().training); seen.push(s.state());"
        "return seen })()",
    )
    assert opening["training"] and opening["total"] > 0
    assert not stopped["training"] and stopped["results"]["independent"]["floor"] > 0
    assert again["total"] == stopped["total"] + 60


def test_reset_while_it_learns_brings_the_beginning_back(scene_of):
    first, after = learned(
        scene_of,
        "(() => { const s = it.scene, first = [s.state(), s.readout()]; s.train(); it.run(() => s.state().total > 0);"
        "s.reset(); it.run(() => false); return [first, [s.state(), s.readout()]] })()",
    )
    assert after[1] == first[1] and "Press Train" in first[1]
    assert after[0] | {"evaluations": 0} == first[0] | {"evaluations": 0}


def test_one_step_of_a_walk_is_one_evaluation(scene_of):
    for sampler, count in SAMPLERS.items():
        found = learned(scene_of, "(it.engine.set('t', 1), it.scene.state().evaluations)", sampler=sampler)
        assert found == count or (count == 0 and found > 6)


def test_samples_begin_as_noise(scene_of):
    at_0, at_1 = learned(scene_of, "[it.scene.positions(), (it.engine.set('t', 1), it.scene.positions())]")
    assert len(at_0) == 2 * trainer_board().spec["samples"]
    assert at_0 != at_1 and np.std(at_0) == pytest.approx(1, abs=0.1)


def test_a_mouse_draws_evenly_and_the_list_says_so(scene_of):
    dots, shape = learned(
        scene_of,
        "(it.drag(0, [100, 100], [200, 100]), [it.scene.state().dots, it.values.shape])",
    )
    assert shape == OWN
    assert dots == 1 + round(100 / (400 / 6.8) / 0.1)  # one each 0.1 units, with the first


def test_keys_draw_and_clear(scene_of):
    up, inked, cleared, said = learned(
        scene_of,
        "(() => { const s = it.scene, seen = []; it.press(0, 'ArrowRight'); seen.push(s.state().dots);"
        "it.press(0, 'Enter'); it.press(0, 'ArrowUp', true); it.press(0, 'Enter'); it.press(0, 'ArrowUp');"
        "seen.push(s.state().dots); it.press(0, 'Delete'); seen.push(s.state().dots);"
        "return [...seen, s.readout()] })()",
    )
    assert up == learned(scene_of, "it.scene.state().dots")  # the pen was up
    assert inked == 1 + 5  # where it came down, and along 0.5 units
    assert cleared == 0 and said.startswith("Nothing to learn")


def test_nothing_is_learned_from_an_empty_plane(scene_of):
    state = learned(scene_of, "(it.press(0, 'Delete'), it.scene.train(), it.scene.state())")
    assert not state["training"] and state["total"] == 0


def test_a_finger_scrolls_until_drawing_is_asked_for(scene_of):
    drag = (
        "for (const [name, x] of [['pointerdown', 100], ['pointermove', 200], ['pointerup', 200]])"
        "it.fire(0, name, { clientX: x, clientY: 100, pointerType: 'touch' });"
    )
    before, after = learned(
        scene_of,
        f"(() => {{ {drag} const before = it.values.shape; it.engine.set('shape', {OWN!r}); {drag}"
        "return [before, it.scene.state().dots] })()",
    )
    assert before == SHAPES[0] and after > 10


def test_the_shapes_are_those_of_the_script(browser):
    assert browser("Object.keys(outlines)") == list(SHAPES)
    for name in SHAPES:
        dots = np.array(browser("outlines[name]()", name=name)).reshape(-1, 2)
        assert 50 < len(dots) < 500 and np.abs(dots).max() < 3
        gaps = np.linalg.norm(np.diff(dots, axis=0), axis=1)
        assert np.median(gaps) == pytest.approx(0.1, abs=0.02)


def test_a_worker_is_made_of_what_the_modules_say_of_themselves(browser):
    """As background.js does: each module's own text, run where there is nothing else."""
    needed = re.search(r"NEEDS = \[([^\]]*)\]", text("scenes/trainer.js"))
    names = re.findall(r'"(\w+)"', needed[1])
    with MiniRacer() as bare:
        for name in [*names, "learner"]:
            bare.eval(f"({browser(f'String(flowcourse.sources.{name})')})();")
        assert bare.eval("typeof flowcourse.learner.learner") == "function"


def test_steps_are_counted_from_one():
    for steps in (0, 2.5):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            trainer_board(steps=steps)
