"""Couplings of a batch: permutations of least cost, marginals, labels, and what is refused."""

import math
from functools import partial

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from flowlib.couplings import (
    choose,
    conditional,
    exact,
    independent,
    optimal,
    partition,
    sharpness,
    sinkhorn,
    sinkhorn_plan,
    swap_violations,
)
from flowlib.data import eight_gaussians, moons
from flowlib.matching import cfm_loss

PERMUTING = {"exact": exact, "partition": partition, "optimal": optimal}
each_permuting = pytest.mark.parametrize("coupling", PERMUTING.values(), ids=PERMUTING)
ALL = PERMUTING | {"independent": independent, "sinkhorn": partial(sinkhorn, epsilon=0.1)}
each = pytest.mark.parametrize("coupling", ALL.values(), ids=ALL)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def clouds(n: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = generator(seed)
    x_0, x_1 = (torch.randn(n, *shape, generator=g, dtype=dtype) for _ in range(2))
    return x_0, 0.5 * x_1 + (torch.arange(n).reshape(n, *len(shape) * [1]) % 2)


def cost(x_0: Tensor, x_1: Tensor) -> float:
    return float((x_0.double() - x_1.double()).square().flatten(1).sum(1).mean())


def rows(x: Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, x.flatten(1).tolist()))


# The least cost


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (8,), (40,), (3, 4, 4)], ids=str)
@pytest.mark.parametrize("n", [2, 7, 64, 257])
def test_exact_pairs_cost_what_optimal_transport_costs(n: int, shape: tuple[int, ...]):
    x_0, x_1 = clouds(n, *shape)
    paired, kept = exact(x_0, x_1)
    weights, costs = np.full(n, 1 / n), ot.dist(x_0.flatten(1).numpy(), x_1.flatten(1).numpy())
    assert kept is x_1 and paired.shape == x_0.shape
    assert cost(paired, x_1) == pytest.approx(ot.emd2(weights, weights, costs), rel=1e-6)
    assert rows(paired) == rows(x_0)


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=9),
    st.sampled_from([2, 9]),
    st.integers(0, 3),
)
def test_exact_pairs_are_a_permutation_also_of_points_that_coincide(
    points: list[tuple[int, int]], width: int, seed: int
):
    x_1 = torch.zeros(len(points), width, dtype=torch.float64)
    x_1[:, :2] = torch.tensor(points, dtype=torch.float64)
    x_0 = x_1[torch.randperm(len(points), generator=generator(seed))] + 0.25
    paired = exact(x_0, x_1)[0]
    assert rows(paired) == rows(x_0)
    best = torch.cdist(x_0, x_1).square().numpy()
    i, j = linear_sum_assignment(best)
    assert cost(paired, x_1) == pytest.approx(best[i, j].mean(), abs=1e-9)


def test_in_one_dimension_optimal_pairs_are_in_order():
    x_0, x_1 = clouds(101, 1)
    paired = exact(x_0, x_1)[0]
    assert torch.equal(paired[x_1[:, 0].argsort()], x_0.sort(0).values)


def test_neither_the_size_nor_the_place_of_the_clouds_costs_digits():
    x_0, x_1 = clouds(64, 2)
    expected = exact(x_0, x_1)[0]
    small = exact(1e-7 * x_0, 1e-7 * x_1)[0]
    far = exact((x_0 + 1e3).float(), (x_1 - 3e3).float())[0]
    torch.testing.assert_close(small, 1e-7 * expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(far.double() - 1e3, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n", "plans", "excess"), [(256, 8, 0.08), (2048, 8, 0.02), (2048, 32, 0.012)])
def test_partitions_come_near_the_least_cost_in_the_plane(n: int, plans: int, excess: float):
    x_0, x_1 = clouds(n, 2)
    least = cost(exact(x_0, x_1)[0], x_1)
    found = cost(partition(x_0, x_1, plans=plans, generator=generator())[0], x_1)
    assert least <= found < (1 + excess) * least


def test_what_a_pairing_costs_the_minibatch_overrates():
    """N(0, I) to 8 Gaussians of radius 5: the least cost falls with the batch toward W2^2 of the laws, 14.4."""
    law, g, costs = eight_gaussians("tutorial"), generator(), []
    radius = 5 / law.means.norm(dim=1).max()
    for n in (16, 64, 256):
        draws = [
            (torch.randn(n, 2, generator=g), radius * law.sample(n, generator=g)) for _ in range(4096 // n)
        ]
        costs.append(np.mean([cost(exact(x_0, x_1)[0], x_1) for x_0, x_1 in draws]))
    assert costs[0] > costs[1] + 0.5 and costs[1] > costs[2] + 0.1


# What a coupling leaves alone


@each
@pytest.mark.parametrize("shape", [(2,), (3, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_data_stay_and_the_sources_are_sources_of_the_batch(coupling, shape, dtype):
    x_0, x_1 = clouds(32, *shape, dtype=torch.float64)
    x_0, x_1 = x_0.to(dtype), x_1.to(dtype)
    before = x_0.clone(), x_1.clone()
    paired, kept = coupling(x_0, x_1, generator=generator())
    assert kept is x_1 and torch.equal(x_1, before[1]) and torch.equal(x_0, before[0])
    assert paired.dtype == dtype and paired.shape == x_0.shape
    assert set(rows(paired)) <= set(rows(x_0))


@each_permuting
def test_every_source_is_used_once(coupling):
    x_0, x_1 = clouds(300, 2)
    assert rows(coupling(x_0, x_1, generator=generator())[0]) == rows(x_0)


@each_permuting
@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_without_a_choice_stays(coupling, n: int):
    x_0, x_1 = clouds(n, 2)
    assert torch.equal(coupling(x_0, x_1, generator=generator())[0], x_0)


def test_a_plan_sampled_with_replacement_would_lose_a_third_of_the_batch():
    """The fault of peers, and what `exact` does not do: draws from a permutation's plan hit 1 - 1/e of the rows."""
    n, g = 2000, generator()
    rows_drawn = torch.randint(n, (n,), generator=g)  # a row and its column, with equal weights
    assert len(rows_drawn.unique()) / n == pytest.approx(1 - math.exp(-1), abs=0.03)
    x_0, x_1 = clouds(n, 2)
    assert len(exact(x_0, x_1)[0].unique(dim=0)) == n


@each
def test_randomness_comes_from_the_generator_alone(coupling):
    x_0, x_1 = clouds(128, 2)
    first, again, other = (coupling(x_0, x_1, generator=generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert coupling is not ALL["sinkhorn"] or not torch.equal(first, other)


@each
def test_the_loss_takes_it(coupling):
    x_0, x_1 = clouds(16, 2)
    loss = cfm_loss(lambda x, t: torch.zeros_like(x), x_1, x_0=x_0, coupling=coupling, generator=generator())
    assert float(loss) <= cost(x_0, x_1) / 2 + 1e-12 or coupling is ALL["sinkhorn"]


# Entropic plans


@pytest.mark.parametrize("epsilon", [1.0, 0.2, 0.05])
def test_the_entropic_plan_is_that_of_pot(epsilon: float):
    x_0, x_1 = clouds(20, 2)
    costs = torch.cdist(x_0, x_1[:15]).square()
    plan = sinkhorn_plan(costs, epsilon=epsilon, iterations=20_000, tolerance=1e-12)
    unit = float(costs.std(correction=0))
    a, b = np.full(20, 1 / 20), np.full(15, 1 / 15)
    expected = ot.sinkhorn(
        a, b, costs.numpy(), epsilon * unit, method="sinkhorn_log", numItermax=50_000, stopThr=1e-13
    )
    torch.testing.assert_close(plan, torch.as_tensor(expected), rtol=1e-6, atol=1e-12)


@given(st.integers(2, 12), st.integers(2, 12), st.floats(-3, 3))
def test_both_marginals_are_met(n: int, m: int, scale: float):
    costs = 10**scale * torch.rand(n, m, generator=generator(), dtype=torch.float64)
    plan = sinkhorn_plan(costs, epsilon=0.3, tolerance=1e-6, iterations=20_000)
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64), rtol=0, atol=3e-6)


def test_equal_costs_give_the_independent_plan():
    plan = sinkhorn_plan(torch.full((4, 5), 7.0))
    torch.testing.assert_close(plan, torch.full((4, 5), 1 / 20))


def test_a_plan_that_misses_its_rows_is_not_handed_out():
    x_0, x_1 = clouds(64, 2)
    with pytest.raises(FloatingPointError, match=r"after 3 turns .* misses its row, more than 0.01"):
        sinkhorn(x_0, x_1, epsilon=0.001, iterations=3)


def test_entropic_pairs_are_drawn_from_the_plan():
    x_0, x_1 = clouds(3, 2)
    costs = (torch.cdist(x_0 - x_0.mean(0), x_1 - x_1.mean(0)).square()).float()
    plan = sinkhorn_plan(costs, epsilon=0.5)
    counts, g = torch.zeros(3, 3), generator()
    for _ in range(3000):
        paired = sinkhorn(x_0, x_1, epsilon=0.5, generator=g)[0]
        counts += (paired[None] == x_0[:, None]).all(-1).float()
    expected = plan / plan.sum(0)
    deviation = (expected * (1 - expected) / 3000).sqrt()
    assert ((counts / 3000 - expected).abs() < 4.5 * deviation + 1e-6).all()


@pytest.mark.parametrize("n", [2, 5, 100])
def test_sharpness_runs_from_independence_to_a_permutation(n: int):
    order = torch.randperm(n, generator=generator())
    assert sharpness(torch.full((n, n), 1 / n**2, dtype=torch.float64)) == pytest.approx(0, abs=1e-9)
    assert sharpness(torch.eye(n, dtype=torch.float64)[order] / n) == pytest.approx(1)
    x_0, x_1 = clouds(n, 2)
    sharp = [sharpness(sinkhorn_plan(torch.cdist(x_0, x_1).square(), epsilon=e)) for e in (10, 1, 0.1)]
    assert sharp == sorted(sharp) and sharp[0] > 0 and sharp[-1] < 1 + 1e-9


# Conditions


def test_within_each_label_pairs_are_optimal_and_sources_stay():
    x_0, x_1 = clouds(90, 2)
    labels = torch.arange(90) % 3
    paired, kept = conditional(x_0, x_1, labels=labels)
    assert kept is x_1
    for label in range(3):
        members = labels == label
        assert rows(paired[members]) == rows(x_0[members])
        assert torch.equal(paired[members], exact(x_0[members], x_1[members])[0])


def test_a_coupling_blind_to_labels_skews_the_source_of_a_class_and_this_one_does_not():
    """Two classes left and right: with exact pairs the left class's sources have mean -sqrt(2 / pi) in x."""
    g = generator()
    means: dict[str, list[float]] = {"blind": [], "aware": []}
    for _ in range(40):
        x_0 = torch.randn(256, 2, generator=g)
        labels = torch.arange(256) % 2
        x_1 = 0.3 * torch.randn(256, 2, generator=g) + 4 * torch.stack([2.0 * labels - 1, 0.0 * labels], 1)
        for name, coupling in (("blind", exact), ("aware", partial(conditional, labels=labels))):
            means[name].append(float(coupling(x_0, x_1)[0][labels == 0, 0].mean()))
    assert np.mean(means["blind"]) == pytest.approx(-math.sqrt(2 / math.pi), abs=0.04)
    assert np.mean(means["aware"]) == pytest.approx(0, abs=4.5 / math.sqrt(40 * 128))


def test_between_the_extremes_of_the_ratio_lie_no_change_and_blind_pairs():
    x_0, x_1 = clouds(200, 2)
    x_1[:, 0] = torch.linspace(-3, 3, 200)
    condition = x_1[:, :1].clone()
    blind = cost(exact(x_0, x_1)[0], x_1)

    def moved(ratio: float) -> tuple[float, float]:
        paired = conditional(x_0, x_1, labels=condition, ratio=ratio)[0]
        place = (paired[:, None] == x_0).all(-1).float().argmax(1)
        return cost(paired, x_1), float((condition[place] - condition).square().mean())

    costs, shifts = zip(*[moved(ratio) for ratio in (1e-9, 0.01, 0.05, 0.99)], strict=True)
    assert list(costs) == sorted(costs, reverse=True) and list(shifts) == sorted(shifts)
    assert shifts[0] == 0 and costs[-1] == pytest.approx(blind)
    assert shifts[1] < 0.1 * shifts[-1]


def test_the_weight_leaves_the_share_that_was_asked_for():
    x_0, x_1 = clouds(60, 2)
    y = torch.rand(60, 2, generator=generator(3), dtype=torch.float64)
    costs, apart = (torch.cdist(a, b).square() for a, b in ((x_0, x_1), (y, y)))
    bounds = ((costs.diagonal() - costs) / apart)[apart > 0]
    for ratio in (0.01, 0.1):
        w = bounds.quantile(1 - ratio * 3600 / len(bounds)).clamp(min=0)
        share = float((costs + w * apart <= costs.diagonal())[apart > 0].double().sum() / 3600)
        assert share == pytest.approx(ratio, abs=2 / 3600)
        total = costs + w * apart
        paired = conditional(x_0, x_1, labels=y, ratio=ratio)[0]
        place = (paired[:, None] == x_0).all(-1).float().argmax(1)
        i, j = linear_sum_assignment(total.numpy())
        assert float(total[place, torch.arange(60)].sum()) == pytest.approx(
            total.numpy()[i, j].sum(), rel=1e-2
        )


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            torch.zeros(5, dtype=torch.long),
            ValueError,
            r"labels must be a tensor \(6, ...\).*got torch.Size\(\[5\]\)",
        ),
        ([0] * 6, ValueError, r"labels must be a tensor \(6, ...\)"),
        (torch.zeros(6, 2, dtype=torch.long), ValueError, r"labels must have shape \(B,\), got \(6, 2\)"),
        (torch.zeros(6, dtype=torch.bool), TypeError, "labels must be integers, got torch.bool"),
        (torch.full((6,), math.nan), ValueError, "labels must be finite"),
    ],
)
def test_labels_that_do_not_belong_to_the_batch_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        conditional(*clouds(6, 2), labels=labels)


# The choice


@pytest.mark.parametrize(
    ("n", "shape", "labels", "coupling", "words"),
    [
        (256, (2,), None, partition, "256 points in 2 dimensions: partition"),
        (32, (2,), None, exact, "exact"),
        (256, (3, 8, 8), None, exact, "256 points in 192 dimensions: exact"),
        (5000, (8,), None, sinkhorn, "sinkhorn"),
    ],
)
def test_the_choice_says_what_it_chose(n, shape, labels, coupling, words):
    choice = choose(*clouds(n, *shape), labels=labels)
    assert choice.coupling is coupling and words in choice.reason


def test_the_choice_knows_labels():
    x_0, x_1 = clouds(12, 2)
    y = torch.arange(12) % 2
    assert torch.equal(optimal(x_0, x_1, labels=y)[0], conditional(x_0, x_1, labels=y)[0])
    assert torch.equal(optimal(x_0, x_1, labels=y / 2)[0], conditional(x_0, x_1, labels=y / 2)[0])
    assert "within each label" in choose(x_0, x_1, labels=y).reason


# Swaps


@given(st.integers(2, 12), st.integers(0, 5))
def test_a_violation_is_a_swap_that_pays(n: int, seed: int):
    x_0, x_1 = clouds(n, 3, seed=seed)
    pays = 0
    for i in range(n):
        for j in range(i):
            now = (x_0[i] - x_1[i]).square().sum() + (x_0[j] - x_1[j]).square().sum()
            pays += bool(now > (x_0[j] - x_1[i]).square().sum() + (x_0[i] - x_1[j]).square().sum() + 1e-12)
    assert swap_violations(x_0, x_1) == pytest.approx(2 * pays / (n * (n - 1)))


def test_optimal_pairs_have_none_and_independent_ones_half():
    x_0, x_1 = clouds(500, 2)
    assert swap_violations(exact(x_0, x_1)[0], x_1) == 0
    x_0 = torch.randn(2000, 2, generator=generator(5))
    assert swap_violations(x_0, clouds(2000, 2)[1]) == pytest.approx(0.5, abs=0.03)


# What is refused


@each_permuting
@pytest.mark.parametrize(
    ("x_0", "x_1", "error", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(5, 2), ValueError, r"one shape, got \(4, 2\) and \(5, 2\)"),
        (torch.zeros(4), torch.zeros(4), ValueError, r"batches \(B, \*D\) of one shape, got \(4,\)"),
        (torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, 2), TypeError, "x_0 must be a floating-point"),
        (torch.zeros(4, 2), torch.full((4, 2), math.nan), ValueError, "x_1 must be finite"),
        (torch.full((4, 12), math.inf), torch.zeros(4, 12), ValueError, "x_0 must be finite"),
    ],
)
def test_points_that_cannot_be_paired_are_refused(coupling, x_0, x_1, error, message):
    with pytest.raises(error, match=message):
        coupling(x_0, x_1, generator=generator())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partition(*clouds(4, 2), plans=0), "plans must be whole and at least 1, got plans=0"),
        (lambda: sinkhorn(*clouds(4, 2), epsilon=0.0), "epsilon, tolerance must be positive"),
        (lambda: sinkhorn_plan(torch.zeros(3)), r"costs must have shape \(n, m\), got \(3,\)"),
        (
            lambda: conditional(*clouds(4, 2), labels=torch.zeros(4), ratio=1.0),
            "ratio must lie between 0 and 1",
        ),
        (lambda: sharpness(torch.ones(2, 3)), r"plan must have shape \(n, n\)"),
        (lambda: swap_violations(*clouds(1, 2)), "swaps need at least two pairs, got 1"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_moons_from_eight_gaussians_pair_without_a_host_copy_of_labels():
    """The pieces of a flow of the family: data of one law, sources of another, through the entry point."""
    g = generator()
    x_0, x_1 = (
        eight_gaussians("tutorial").sample(256, generator=g),
        moons("tutorial").sample(256, generator=g),
    )
    paired = optimal(x_0, x_1, generator=g)[0]
    assert cost(paired, x_1) < 0.6 * cost(x_0, x_1)
