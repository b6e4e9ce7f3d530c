"""The model family and the leaderboard: what is compared is the same for all, and the page is what was measured."""

import math
import statistics

import pytest
import torch

from flowcourse.family import (
    EIGHT_TO_MOONS,
    NOISE_TO_EIGHT,
    POINTS,
    TASKS,
    Task,
    evaluate,
    leaderboard,
    train,
)
from flowlib.data import GaussianMixture
from flowlib.paths import cosine, linear
from tools import leaderboard as page


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("end", ["start", "goal"])
def test_balanced_samples_keep_the_law(task, end):
    law, n = getattr(task, end), 40_000
    balanced, free = law(n, generator=seeded(), balanced=True), law(n, generator=seeded(1))
    for moment in (lambda x: x, lambda x: x.square(), lambda x: x.prod(1, keepdim=True)):
        error = moment(free).std(0) * (2 / n) ** 0.5
        assert ((moment(balanced).mean(0) - moment(free).mean(0)).abs() < 4 * error).all()


def test_balanced_noise_has_as_many_points_in_each_eighth_of_the_plane_and_normal_coordinates():
    x = NOISE_TO_EIGHT.start(8000, generator=seeded(), balanced=True).double()
    eighth = ((torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round() % 8).long()
    assert eighth.unique(return_counts=True)[1].tolist() == [1000] * 8
    u = torch.special.ndtr(x[:, 0]).sort().values  # Kolmogorov-Smirnov at the level 1e-3
    assert (u - (torch.arange(8000) + 0.5) / 8000).abs().max() < 1.95 / math.sqrt(8000)
    with pytest.raises(ValueError, match="multiple of 8, got n = 9"):
        NOISE_TO_EIGHT.start(9, balanced=True)


def test_the_exact_field_scores_at_the_floor():
    scores = evaluate(NOISE_TO_EIGHT, NOISE_TO_EIGHT.velocity(linear))
    assert scores.w2["adaptive"] < 1.15 * scores.floor
    assert scores.field_error == 0
    assert scores.nll == pytest.approx(
        NOISE_TO_EIGHT.target.entropy, abs=1e-3
    )  # the difference is the solver's
    assert scores.w2[1] > scores.w2[2] > scores.w2[4] > scores.w2[8] > scores.floor


def test_scores_know_better_from_worse():
    right = NOISE_TO_EIGHT.velocity(linear)
    good = evaluate(NOISE_TO_EIGHT, right)
    bad = evaluate(NOISE_TO_EIGHT, lambda x, t: 0.8 * right(x, t))
    assert bad.field_error == pytest.approx(0.2, abs=1e-6)
    assert bad.w2["adaptive"] > 2 * good.w2["adaptive"]
    assert bad.nll > good.nll + 0.1
    other = evaluate(NOISE_TO_EIGHT, NOISE_TO_EIGHT.velocity(cosine), path=cosine)
    assert other.field_error == 0
    # Every affine path from noise has one and the same flow from end to end, and takes its own way.
    assert other.w2["adaptive"] == pytest.approx(good.w2["adaptive"], abs=2e-3)
    assert abs(other.npe - good.npe) > 0.1


def test_the_path_energy_of_a_translation_is_that_of_the_cheapest_flow():
    shift = torch.tensor([3.0, -4.0])
    task = Task("shift", GaussianMixture(shift[None], [1.0], entropy=math.log(2 * math.pi * math.e)))
    scores = evaluate(task, lambda x, t: shift.expand_as(x), path=None)
    assert scores.npe < 0.02  # 25 against W2^2 between two samples
    assert scores.nll == pytest.approx(task.target.entropy, abs=1e-4)
    assert scores.field_error is None


def test_training_is_reproducible_lowers_the_loss_and_follows_its_seed():
    a, b, c = (train(NOISE_TO_EIGHT, seed=seed, steps=300, progress=False) for seed in (0, 0, 1))
    assert torch.equal(a.history, b.history)
    assert not torch.equal(a.history, c.history)
    assert a.history[-50:].mean() < 0.8 * a.history[:10].mean()
    for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not a.net.training


def test_a_target_without_formula_says_so():
    with pytest.raises(ValueError, match="moons, tutorial is no mixture"):
        EIGHT_TO_MOONS.velocity()


def test_the_page_is_what_was_recorded():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(page.read())


def test_every_recorded_row_is_complete_and_possible():
    rows = leaderboard()
    assert {r["task"] for r in rows} == set(TASKS)
    floors = {name: known["floor"] for name, known in page.read()["tasks"].items()}
    for name, task in TASKS.items():
        assert floors[name] == pytest.approx(task.floor, rel=1e-2)
    for r in rows:
        for values in r["scores"].values():
            assert len(values) == len(r["seeds"]) == 3
        assert len(r["seconds"]) in (0, 3)  # none where the machine was busy
        w2 = [statistics.mean(r["scores"][f"W2 at {n}"]) for n in (1, 2, 4, 8, "adaptive")]
        if r["chapter"] < 8:  # one-step students and flow maps are no fields that finer steps follow better
            assert w2 == sorted(w2, reverse=True)
        assert min(w2) > 0.95 * floors[r["task"]]
        if "nll" in r["scores"] and TASKS[r["task"]].target.entropy:
            assert min(r["scores"]["nll"]) > TASKS[r["task"]].target.entropy - 1e-3
    assert POINTS % 8 == 0


def test_the_family_is_no_worse_than_the_published_recipe():
    rows = {(r["method"], r["task"]): statistics.mean(r["scores"]["W2 at adaptive"]) for r in leaderboard()}
    for task in TASKS:
        ours, theirs = (
            rows[name, task] for name in ("flow matching, linear path", "linear path, reference recipe")
        )
        assert ours < theirs
