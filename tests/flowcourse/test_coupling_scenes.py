"""The pairing board and the power diagram: their scripts pair, count and learn as flowlib does."""

import itertools
import math
import re

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from flowcourse.scenes import pairing_board, power_diagram
from flowcourse.scenes.cells import BATCH, NOISES, RATES, STEPS
from flowlib.couplings import exact, swap_violations
from flowlib.data import three_arms
from flowlib.semidiscrete import Semidiscrete, fit_semidiscrete

SIZES = (1, 2, 4, 8, 24)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(x):
    return x.flatten().tolist()


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape or -1)


# Assignments, costs, swaps


@pytest.mark.parametrize("n", [1, 2, 3, 7, 24, 64])
@pytest.mark.parametrize("seed", range(4))
def test_assignments_are_the_best_ones(browser, n, seed):
    costs = drawn(n, n, seed=seed) * 10**seed  # negative ones too
    rows = browser("[...assignment(costs)]", costs=costs.flatten().tolist())
    assert sorted(rows) == list(range(n))
    best = costs.numpy()[linear_sum_assignment(costs.numpy())].sum()
    assert sum(costs[i, j].item() for j, i in enumerate(rows)) == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_assignments_of_equal_costs_are_permutations_of_the_least_cost(browser):
    costs = torch.randint(0, 3, (30, 30), generator=torch.Generator().manual_seed(0))
    rows = browser("[...assignment(costs)]", costs=costs.flatten().tolist())
    assert sorted(rows) == list(range(30))
    best = costs.numpy()[linear_sum_assignment(costs.numpy())].sum()
    assert sum(costs[i, j].item() for j, i in enumerate(rows)) == best


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_costs_and_swaps_are_those_of_flowlib(browser, size, seed):
    x_0, x_1 = drawn(24, 2, seed=seed), 2 * drawn(24, 2, seed=100 + seed)
    partners, cost, swaps = browser(
        "(() => { const p = pairedWithin(size, a, b); return [p, meanCost(a, b, p), swaps(a, b, p)] })()",
        size=size, a=flat(x_0), b=flat(x_1),
    )  # fmt: skip
    paired = torch.cat([exact(*batch)[0] for batch in zip(x_0.split(size), x_1.split(size), strict=True)])
    torch.testing.assert_close(x_0[partners], paired, rtol=0, atol=0)
    assert cost == pytest.approx((paired - x_1).square().sum(1).mean().item(), rel=1e-12)
    assert len(swaps) / math.comb(24, 2) == pytest.approx(swap_violations(paired, x_1), abs=1e-12)

    def price(j, k):
        return (paired[[j, k]] - x_1[[j, k]]).square().sum(), (paired[[k, j]] - x_1[[j, k]]).square().sum()

    for j, k in itertools.combinations(range(24), 2):
        now, swapped = price(j, k)
        assert ([j, k] in swaps) == bool(swapped < now)


# The pairing board


@pytest.mark.parametrize("draw", range(1, 7))
def test_larger_batches_cost_less_and_the_largest_has_no_swaps(scene_of, draw):
    dealt = f"(it.engine.set('draw', {draw}), it.scene.state())"
    states = [scene_of(pairing_board(), dealt, size=size) for size in SIZES]
    costs = [state["cost"] for state in states]
    assert costs == sorted(costs, reverse=True) and costs[0] > 1.5 * costs[-1]
    assert {state["best"] for state in states} == {costs[-1]}
    assert states[0]["swaps"] > 50 and states[-1]["swaps"] == 0 and states[-1]["marked"] == []
    assert states[0]["partners"] == list(range(24))


def test_draws_differ_and_reset_brings_the_first_points_back(scene_of):
    figure = pairing_board()
    first = scene_of(figure, "it.scene.state().clouds")
    assert scene_of(figure, "(it.engine.set('draw', 2), it.scene.state().clouds)") != first
    moved = "(it.press(0, 'ArrowUp'), it.scene.state().clouds)"
    assert scene_of(figure, moved) != first
    assert scene_of(figure, f"({moved}, it.scene.reset(), it.scene.state().clouds)") == first


def test_points_travel_along_their_pairs(scene_of):
    figure = pairing_board()
    clouds, partners = scene_of(figure, "[it.scene.state().clouds, it.scene.state().partners]", size=24)
    x_0, x_1 = (tensor(cloud, -1, 2) for cloud in clouds)
    for t in (0.0, 0.3, 1.0):
        found = tensor(scene_of(figure, "it.scene.positions()", size=24, t=t), -1, 2)
        torch.testing.assert_close(found, torch.lerp(x_0[partners], x_1, t))


def pixel(figure, cloud, i):
    """An expression for the pixel at which a point lies."""
    return f"((c) => [it.panels[0].X(c[{2 * i}]), it.panels[0].Y(c[{2 * i + 1}])])(it.scene.state().clouds[{cloud}])"


@pytest.mark.parametrize("cloud", [0, 1])
def test_points_are_dragged_and_paired_anew(scene_of, cloud):
    figure = pairing_board()
    before, after, X, Y = scene_of(
        figure,
        f"(() => {{ const before = it.scene.state(), [X, Y] = {pixel(figure, cloud, 5)};"
        "it.drag(0, [X + 2, Y - 1], [300, 80]); const after = it.scene.state();"
        "return [before, after, ...it.panels[0].inverse(300, 80)] })()",
        size=24,
    )
    assert after["chosen"] == [cloud, 5]
    assert after["clouds"][cloud][10:12] == pytest.approx([X, Y], abs=0.006)
    rest = [x for k, x in enumerate(after["clouds"][cloud]) if k not in (10, 11)]
    assert rest == [x for k, x in enumerate(before["clouds"][cloud]) if k not in (10, 11)]
    x_0, x_1 = (tensor(points, -1, 2) for points in after["clouds"])
    torch.testing.assert_close(x_0[after["partners"]], exact(x_0, x_1)[0])
    assert after["swaps"] == 0 and after["partners"] != before["partners"]


def test_a_point_stays_in_the_picture(scene_of):
    figure = pairing_board()
    x, y = scene_of(
        figure, f"(it.drag(0, {pixel(figure, 0, 3)}, [900, -50]), it.scene.state().clouds[0].slice(6, 8))"
    )
    assert x == y == pytest.approx(figure.spec["window"], abs=0.005)


def test_keys_mark_and_move_points(scene_of):
    figure = pairing_board()
    cloud, i = scene_of(figure, "it.scene.state().chosen")
    n = cloud * 24 + i
    for key, by in (("Enter", 1), (" ", 1), ("Backspace", -1)):
        chosen = scene_of(figure, f"(it.press(0, '{key}'), it.scene.state().chosen)")
        assert 24 * chosen[0] + chosen[1] == (n + by) % 48
    round_trip = (
        "(() => { for (let i = 0; i < 48; i++) it.press(0, 'Enter'); return it.scene.state().chosen })()"
    )
    assert scene_of(figure, round_trip) == [cloud, i]
    before, after = scene_of(
        figure,
        "(() => { const before = it.scene.state().clouds; it.press(0, 'ArrowLeft', true); it.press(0, 'ArrowUp');"
        "return [before, it.scene.state().clouds] })()",
    )
    moved = tensor(after[cloud], -1, 2) - tensor(before[cloud], -1, 2)
    assert moved[i].tolist() == pytest.approx([-0.5, 0.1], abs=0.011)
    assert moved.abs().sum() == moved[i].abs().sum()


def test_a_mouse_that_passes_over_a_point_marks_it(scene_of):
    figure = pairing_board()
    state = scene_of(
        figure,
        f"(() => {{ const [X, Y] = {pixel(figure, 1, 7)};"
        "it.fire(0, 'pointermove', { clientX: X, clientY: Y }); return it.scene.state() })()",
    )
    assert state["chosen"] == [1, 7]
    x_0, x_1 = (tensor(points, -1, 2) for points in state["clouds"])
    inner = ((x_0 - x_0[7]) * (x_1 - x_1[7])).sum(1)  # pairs as drawn
    assert sorted(state["marked"]) == (inner < 0).nonzero()[:, 0].tolist() != []


def test_the_marked_pair_is_at_first_the_one_with_the_most_swaps(scene_of):
    state = scene_of(pairing_board(), "it.scene.state()")
    x_0, x_1 = (tensor(points, -1, 2) for points in state["clouds"])
    inner = ((x_0[:, None] - x_0) * (x_1[:, None] - x_1)).sum(2)
    assert state["chosen"] == [0, int((inner < 0).sum(1).argmax())]


def test_a_finger_scrolls_the_page_unless_it_holds_a_point(scene_of):
    figure = pairing_board()
    held = f"it.stops(0, {pixel(figure, 0, 0)})"
    assert scene_of(figure, f"[{held}, it.stops(0, [5, 5])]") == [True, False]


@pytest.mark.parametrize(("X", "size"), [(3, 1), (120, 2), (200, 4), (397, 24)])
def test_a_tap_on_a_bar_chooses_its_batch_size(scene_of, X, size):
    tap = f"(it.fire(1, 'click', {{ clientX: {X}, clientY: 100 }}), it.engine.values.size)"
    assert scene_of(pairing_board(), tap) == size


@pytest.mark.parametrize(
    ("size", "kind"), [(1, "Independent pairs"), (4, "Best within 4"), (24, "Best of all")]
)
def test_the_text_tells_costs_and_swaps(scene_of, size, kind):
    said, state = scene_of(pairing_board(), "[it.scene.readout(), it.scene.state()]", size=size)
    assert said.startswith(
        f"{kind} · mean cost {state['cost']:.2f}, of the best pairs {state['best']:.2f} · "
    )
    assert f"{state['swaps']} of 276 swaps would cost less" in said
    assert ("with the marked pair" in said) == (size < 24)


def test_what_is_heard_names_the_point_that_moved(scene_of):
    once, again = scene_of(
        pairing_board(), "(it.press(0, 'ArrowLeft'), [it.scene.heard(), it.scene.heard()])"
    )
    assert re.match(r"Noise \d+ at −?\d\.\d\d, −?\d\.\d\d\. Independent", once) and once.endswith(again)


def test_other_laws_and_sizes(scene_of):
    figure = pairing_board(three_arms(), sizes=(2, 6), size=6, draws=1, time=0.0)
    assert figure.values == {"t": 0.0, "size": 6}
    state = scene_of(figure, "it.scene.state()")
    assert len(state["partners"]) == 6 and state["swaps"] == 0
    again = scene_of(figure, "(it.scene.reset(), it.scene.state())")
    assert again == state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (24,)}, "two or more"),
        ({"sizes": (1, 4, 6)}, "multiple of the one before"),
        ({"sizes": (4, 2)}, "multiple of the one before"),
        ({"sizes": (0, 4)}, "sizes must be"),
        ({"sizes": (1, 128)}, "up to 64"),
        ({"size": 3}, r"one of \[1, 2, 4, 8, 24\], got 3"),
        ({"draws": 0}, "at least one draw"),
        ({"time": 1.5}, "time"),
    ],
)
def test_bad_boards_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pairing_board(**changes)


def test_a_law_of_the_line_is_refused():
    class Line:
        def sample(self, n, generator):
            return torch.zeros(n, 1)

    with pytest.raises(ValueError, match=r"finite points \(24, 2\), got \(24, 1\)"):
        pairing_board(Line())


# Power diagrams

SITES = torch.tensor(
    [[0.2, 0.3], [1.7, 1.6], [-0.8, 2.0], [-2.4, 0.5], [-1.7, -1.6], [0.8, -1.9], [2.4, -0.4]],
    dtype=torch.float64,
)


@pytest.fixture(scope="module")
def noise(browser):
    return tensor(browser("[...evenNoise(n)]", n=NOISES), -1, 2)


def test_the_noise_is_normal(noise):
    """Means, covariances and the shares of rings and sectors, far closer than those of random draws."""
    assert noise.mean(0).abs().max() < 0.01
    torch.testing.assert_close(noise.T.cov(), torch.eye(2, dtype=torch.float64), rtol=0, atol=0.02)
    inside = [(noise.norm(dim=1) < r).double().mean().item() for r in (0.5, 1.0, 2.0)]
    assert inside == pytest.approx([1 - math.exp(-r * r / 2) for r in (0.5, 1.0, 2.0)], abs=0.005)
    sectors = torch.histc(torch.atan2(noise[:, 1], noise[:, 0]), 8, -math.pi, math.pi) / NOISES
    torch.testing.assert_close(sectors, torch.full_like(sectors, 1 / 8), rtol=0, atol=0.005)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_cells_are_those_of_flowlib(browser, noise, scale):
    g = scale * drawn(7, seed=3)
    found = browser(
        "Array.from({ length: x.length / 2 }, (_, i) => cellOf(y, g, x[2 * i], x[2 * i + 1]))",
        x=flat(noise), y=flat(SITES), g=g.tolist(),
    )  # fmt: skip
    assert found == Semidiscrete(SITES, g).index(noise).tolist()


def polygons(browser, g, sites=SITES, reach=5.0):
    return browser(
        "g.map((_, j) => corners(y, g, j, { left: -r, right: r, bottom: -r, top: r }))",
        y=flat(sites), g=g.tolist(), r=reach,
    )  # fmt: skip


def area(corners):
    if not corners:
        return 0.0
    x, y = tensor(corners, -1, 2).T
    return ((x * y.roll(-1) - y * x.roll(-1)).sum() / 2).item()


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_polygons_hold_what_goes_to_their_point(browser, scale):
    g = scale * drawn(7, seed=3)
    found = polygons(browser, g)
    assert sum(map(area, found)) == pytest.approx(100, rel=1e-9)  # they tile the box, and none is turned over
    assert all(area(corners) >= 0 for corners in found)
    line = torch.linspace(-4.99, 4.99, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    counted = Semidiscrete(SITES, g).masses(grid) * 100
    torch.testing.assert_close(counted, tensor([area(corners) for corners in found]), rtol=0, atol=0.4)
    for j, corners in enumerate(found):  # a corner is as near to two others, or on the edge
        for corner in corners:
            powers = (tensor(corner) - SITES).square().sum(1) - g
            assert powers[j] == pytest.approx(powers.min().item(), abs=1e-9)


def test_a_cell_can_be_empty_and_equal_points_share_one(browser):
    g = torch.zeros(7, dtype=torch.float64)
    g[0] = -20.0
    assert polygons(browser, g)[0] == []
    twins = torch.stack([SITES[0], SITES[0]])
    assert all(area(corners) == pytest.approx(100) for corners in polygons(browser, g[1:3], twins))


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_learning_takes_the_steps_of_flowlib(browser, noise, rate):
    steps, batch = 40, 16
    picks = torch.randint(NOISES, (steps, batch), generator=torch.Generator().manual_seed(0))
    start = 2 * SITES @ (SITES.mean(0) - noise.mean(0))  # where flowlib begins; the figure begins at 0
    states = browser(
        "ascent(y, x, picks, rate, start).map((g) => [...g])",
        x=flat(noise), y=flat(SITES), picks=picks.tolist(), rate=rate, start=start.tolist(),
    )  # fmt: skip
    dealt = iter([noise, *(noise[chosen] for chosen in picks)])  # first the whole, for its deviation
    pairs = fit_semidiscrete(
        SITES, source=lambda n, generator: next(dealt), steps=steps, batch=batch, rate=rate
    )
    g = tensor(states[-1])
    assert states[0] == start.tolist() and len(states) == steps + 1
    torch.testing.assert_close(g - g.mean(), pairs.potentials, rtol=1e-10, atol=1e-12)


def test_shares_and_costs_are_those_of_flowlib(scene_of, noise):
    for t in (0.0, 0.5, 4.0):
        state = scene_of(power_diagram(), "it.scene.state()", t=t)
        pairs = Semidiscrete(SITES, tensor(state["potentials"]))
        torch.testing.assert_close(tensor(state["shares"]), pairs.masses(noise), rtol=0, atol=1e-12)
        assert state["cost"] == pytest.approx((pairs(noise) - noise).square().sum(1).mean().item(), rel=1e-12)
        assert state["goal"] == pairs.index(tensor(state["probe"], 1, 2)).item()


def test_shares_grow_equal(scene_of):
    """From one cell with half of the noise to all with a seventh."""
    opening, end = (scene_of(power_diagram(), "it.scene.state().shares", t=t) for t in (0.0, 4.0))
    assert max(opening) > 0.45 and min(opening) < 0.06
    assert max(abs(7 * share - 1) for share in end) < 0.06
    assert sum(opening) == pytest.approx(1) and sum(end) == pytest.approx(1)


def test_the_learned_cells_are_optimal_transport(scene_of, noise):
    """Their cost is that of the best assignment to equally many copies of each point, up to what shares still miss."""
    state = scene_of(power_diagram(), "it.scene.state()", t=4.0)
    some = noise[: 7 * 200]
    copies = SITES.repeat_interleave(200, dim=0)
    costs = torch.cdist(some, copies).square()
    best = costs.numpy()[linear_sum_assignment(costs.numpy())].mean()
    assert state["cost"] == pytest.approx(best, rel=0.02)


def test_at_step_0_every_noise_goes_to_its_nearest_point(scene_of, noise):
    shares = scene_of(power_diagram(), "it.scene.state().shares", t=0.0)
    nearest = torch.cdist(noise, SITES).argmin(1)
    torch.testing.assert_close(
        tensor(shares), torch.bincount(nearest, minlength=7) / NOISES, check_dtype=False
    )


def test_a_tap_puts_down_a_noise_and_an_arrow_points_to_its_goal(scene_of):
    state, X, Y = scene_of(
        power_diagram(), "(it.tap(0, 330, 120), [it.scene.state(), ...it.panels[0].inverse(330, 120)])"
    )
    assert state["probe"] == pytest.approx([X, Y], abs=0.006) and state["data"] == flat(SITES)
    assert state["goal"] == torch.cdist(tensor(state["probe"], 1, 2), SITES).argmin().item()


def test_data_and_the_noise_are_dragged(scene_of):
    def dragged(place):
        X, Y = (200 + 200 / 2.7 * place[0], 200 - 200 / 2.7 * place[1])
        return scene_of(
            power_diagram(),
            f"(it.drag(0, [{X + 3}, {Y - 2}], [60, 210]), [it.scene.state(), ...it.panels[0].inverse(60, 210)])",
        )

    state, X, Y = dragged(SITES[2].tolist())
    assert state["data"][4:6] == pytest.approx([X, Y], abs=0.006) and state["chosen"] == 2
    assert state["shares"] != scene_of(power_diagram(), "it.scene.state().shares")
    state, X, Y = dragged((0.85, -0.45))
    assert state["probe"] == pytest.approx([X, Y], abs=0.006) and state["data"] == flat(SITES)


def test_keys_mark_and_move_data(scene_of):
    figure = power_diagram()
    state = scene_of(figure, "(it.press(0, 'ArrowRight'), it.scene.state())")
    assert state["chosen"] == 7 and state["probe"] == pytest.approx([0.95, -0.45])
    state = scene_of(figure, "(it.press(0, 'Enter'), it.press(0, 'ArrowDown', true), it.scene.state())")
    assert state["chosen"] == 0 and state["data"][:2] == pytest.approx([0.2, -0.2])
    back = "(it.press(0, 'Backspace'), it.press(0, 'ArrowUp'), it.scene.reset(), it.scene.state())"
    state = scene_of(figure, back)
    assert state["data"] == flat(SITES) and state["probe"] == [0.85, -0.45] and state["chosen"] == 7


def test_data_that_meet_do_not_break_the_picture(scene_of):
    figure = power_diagram([[0.5, 0.5], [0.5, 0.5]])
    state = scene_of(figure, "(it.scene.draw(), it.scene.state())", t=4.0, pairs=True)
    assert sum(state["shares"]) == pytest.approx(1) and all(map(math.isfinite, state["potentials"]))


@pytest.mark.parametrize(("t", "step"), [(0.0, 0), (0.294, 29), (4.0, 400)])
def test_the_text_tells_step_shares_and_cost(scene_of, t, step):
    said, state = scene_of(power_diagram(), "[it.scene.readout(), it.scene.state()]", t=t)
    assert said.startswith(f"Step {step} of {STEPS} · shares of the noise from ")
    assert f"equal ones 14% · mean cost {state['cost']:.2f}" in said
    assert said.endswith(f"your noise goes to y{'₁₂₃₄₅₆₇'[state['goal']]}")


def test_what_is_heard_names_what_moved(scene_of):
    once, again = scene_of(power_diagram(), "(it.press(0, 'Enter'), [it.scene.heard(), it.scene.heard()])")
    assert once == f"Data point y₁ at 0.20, 0.30. {again}"


def test_the_diagram_opens_as_asked():
    figure = power_diagram(SITES[:3], rate=0.1, step=250, noise=(0.0, 1.0))
    assert figure.values == {"t": 2.5, "rate": 0.1, "noise": True, "pairs": False}
    assert figure.spec["data"] == SITES[:3].tolist() and figure.spec["batch"] == BATCH
    assert power_diagram().values["rate"] in RATES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [[0.0, 0.0]]}, r"2 to 12 finite points \(n, 2\), got shape \(1, 2\)"),
        ({"data": torch.zeros(13, 2)}, "2 to 12"),
        ({"data": torch.zeros(3, 3)}, r"\(3, 3\)"),
        ({"data": [[math.nan, 0.0], [0.0, 0.0]]}, "finite"),
        ({"data": [[5.0, 0.0], [0.0, 0.0]]}, "within the window of 2.7"),
        ({"rate": 0.02}, "one of"),
        ({"step": 401}, "400"),
        ({"noise": (3.0, 0.0)}, "noise must be"),
        ({"window": 0.0}, "window must be positive"),
    ],
)
def test_bad_diagrams_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        power_diagram(**changes)
