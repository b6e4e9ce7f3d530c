"""The few-steps figure: what it shows are the jumps of flowlib, and its numbers are theirs."""

import re

import pytest
import torch

from flowcourse.family import NOISE_TO_EIGHT
from flowcourse.scenes import flow_map_explorer
from flowlib.flow_maps import FlowMapMLP, jump
from flowlib.solvers import EULER, RK4, odeint

EXACT = NOISE_TO_EIGHT.velocity()
START = NOISE_TO_EIGHT.start(24, generator=torch.Generator().manual_seed(0))
NET = FlowMapMLP(2, width=16, depth=1, generator=torch.Generator().manual_seed(1))
METHODS = {"exact field": lambda x, s, t: EXACT(x, s), "network": NET}


def explorer(**changes):
    arguments = {
        "methods": METHODS,
        "target": NOISE_TO_EIGHT.target,
        "exact": EXACT,
        "start": START,
        **changes,
    }
    return flow_map_explorer(**arguments)


@pytest.fixture(scope="module")
def figure():
    return explorer()


def flat(x):
    return pytest.approx(x.detach().flatten().tolist(), abs=4e-3)  # float16


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_particles_land_where_flowlib_puts_them(scene_of, figure, steps):
    ends = scene_of(figure, "it.scene.state().ends", method="network", steps=steps)
    assert ends == flat(jump(NET, START, steps=steps))
    ends = scene_of(figure, "it.scene.state().ends", method="exact field", steps=steps)
    assert ends == flat(odeint(EXACT, START, steps=steps, method=EULER))


def test_the_gap_is_the_root_mean_square_distance_to_the_exact_ends(scene_of, figure):
    truth = odeint(EXACT, START, steps=32, method=RK4)
    expected = (jump(NET, START, steps=2) - truth).square().sum(1).mean().sqrt().item()
    gap = scene_of(figure, "it.scene.state().gap", method="network", steps=2)
    assert gap == pytest.approx(expected, abs=2e-3)
    said = scene_of(figure, "it.scene.readout()", method="network", steps=2)
    assert "network, 2 evaluations" in said
    assert float(re.search(r"true ends: ([\d.]+)", said)[1]) == pytest.approx(expected, abs=0.007)


def test_more_steps_on_the_exact_field_come_nearer(scene_of, figure):
    gaps = [scene_of(figure, "it.scene.state().gap", method="exact field", steps=n) for n in (1, 2, 4, 8)]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize(("t", "steps"), [(0.0, 1), (0.5, 1), (0.3, 4), (1.0, 2)])
def test_between_jumps_particles_move_on_straight_lines(scene_of, figure, t, steps):
    states = [START]
    for k in range(steps):
        states.append(states[-1] + NET(states[-1], k / steps, (k + 1) / steps).detach() / steps)
    n = min(int(t * steps), steps - 1)
    expected = torch.lerp(states[n], states[n + 1], t * steps - n)
    assert scene_of(figure, "it.scene.positions()", method="network", t=t, steps=steps) == flat(expected)


def test_one_evaluation_is_told_in_the_singular(scene_of, figure):
    assert "network, 1 evaluation ·" in scene_of(figure, "it.scene.readout()", method="network", steps=1)


def test_every_control_has_a_name_that_is_read_out(figure):
    html = figure._repr_html_()
    assert re.findall(r'data-control="(\w+)"', html) == ["t", "method", "steps"]
    assert "24 particles go from noise to data" in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "at least one method, got none"),
        ({"window": 0.0}, "window must be positive, got 0.0"),
        ({"time": 1.5}, r"time must be in \[0, 1\], got 1.5"),
        ({"start": torch.zeros(3)}, r"start must have shape \(B, 2\), got \(3,\)"),
        ({"start": torch.zeros(0, 2)}, r"start must have shape \(B, 2\), got \(0, 2\)"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)
