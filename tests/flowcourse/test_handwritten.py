"""The shipped digits and networks: their counts, that they load, and that they do what was recorded of them."""

import math

import pytest
import torch
from torch import Generator

from flowcourse.family import recorded
from flowcourse.handwritten import (
    HELD_OUT,
    NETWORKS,
    NULL,
    accuracy,
    digits,
    diversity,
    frechet,
    load,
)
from flowcourse.intervals import wilson
from flowlib.solvers import odeint
from flowlib.tableaus import MIDPOINT


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 28, 28, generator=Generator().manual_seed(seed))


def test_there_are_ten_thousand_different_digits_in_known_numbers():
    images, labels = digits()
    assert images.shape == (10000, 1, 28, 28) and images.dtype == torch.float32
    assert (float(images.min()), float(images.max())) == (-1, 1)
    assert labels.bincount().tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert len(images.flatten(1).unique(dim=0)) == len(images)


def test_the_held_out_digits_are_a_fair_sample():
    """Shuffled: each digit's share differs from that of all by less than four standard deviations."""
    labels = digits()[1]
    share = labels.bincount() / len(labels)
    seen = labels[-HELD_OUT:].bincount() / HELD_OUT
    assert ((seen - share).abs() < 4 * (share * (1 - share) / HELD_OUT).sqrt()).all()


def test_wilson_is_where_a_share_is_as_far_as_its_own_spread_allows():
    """The ends solve |p - q| = z sqrt(q (1 - q) / n); none is beyond 0 or 1."""
    for right, n in ((0, 10), (3, 10), (10, 10), (987, 1000)):
        for q in wilson(right, n):
            assert math.isclose(abs(right / n - q), 1.96 * math.sqrt(q * (1 - q) / n), abs_tol=1e-12)


def test_the_judge_is_good_enough_to_judge():
    images, labels = (x[-HELD_OUT:] for x in digits())
    assert accuracy(images, labels).share >= 0.985


def test_what_is_measured_of_real_digits():
    images, labels = (x[-HELD_OUT:] for x in digits())
    assert abs(diversity(images, labels) - 1) < 0.1
    assert frechet(images, images) < 1e-6 * frechet(images, -images)
    repeated = torch.stack([images[labels == digit][0] for digit in range(10)]).repeat(3, 1, 1, 1)
    assert diversity(repeated, torch.arange(10).repeat(3)) == 0
    with pytest.raises(ValueError, match="no digit was drawn twice"):
        diversity(images[:1], labels[:1])


def test_a_wrong_digit_does_not_count_as_diverse():
    images, labels = (x[-HELD_OUT:] for x in digits())
    ones = images[labels == 1]
    foreign = torch.cat([ones, images[labels == 8]])
    assert math.isclose(
        diversity(foreign, torch.ones(len(foreign)).long()), diversity(ones, labels[labels == 1]), rel_tol=0.1
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_loads_frozen_and_ready(name: str):
    net = load(name)
    assert not net.training
    assert {(p.dtype, p.requires_grad) for p in net.parameters()} == {(torch.float32, False)}


def test_guided_and_distilled_digits_reach_the_recorded_accuracy():
    """On fifty digits the recorded share lies within four standard deviations."""
    rows, v, student = recorded("digits")["rows"], load("velocity"), load("distilled")
    label = torch.arange(10).repeat(5)
    both = torch.cat([torch.full_like(label, NULL), label])

    def guided(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        u, c = v(torch.cat([x, x]), t, label=both).chunk(2)
        return u + 3 * (c - u)

    fields = {
        "classifier-free, w = 3": (guided, {}),
        "distilled, w = 3": (student, {"label": label, "scale": 3.0}),
    }
    for name, (field, cond) in fields.items():
        with torch.no_grad():
            drawn = odeint(field, noise(50), steps=10, method=MIDPOINT, **cond)
        share = sum(rows[name]["accuracy"]) / len(rows[name]["accuracy"])
        spread = math.sqrt(max(share * (1 - share), 0.01) / 50)
        assert abs(accuracy(drawn, label).share - share) < 4 * spread, name


def test_one_pass_is_near_two_at_every_scale_and_time_that_it_was_taught():
    told = recorded("digits")["distillation error"]
    images, labels = (x[-100:] for x in digits())
    v, student, z = load("velocity"), load("distilled"), noise(100, seed=3)
    with torch.no_grad():
        for w in (1.0, 2.0, 4.0):
            for t, expected in zip(told["times"], told[f"w = {w:g}"], strict=True):
                x = (1 - t) * z + t * images
                u, c = v(x, t), v(x, t, label=labels)
                two = u + w * (c - u)
                error = float((student(x, t, label=labels, scale=w) - two).norm() / two.norm())
                assert error < 1.5 * expected, (w, t)


def test_the_classifier_that_knows_noise_reads_noisy_digits_and_the_other_does_not():
    images, labels = (x[-HELD_OUT:] for x in digits())
    x = 0.5 * noise(HELD_OUT) + 0.5 * images
    with torch.no_grad():
        knows = (load("classifier")(x, 0.5).argmax(1) == labels).float().mean()
        ignores = (load("clean classifier")(x, 0.5).argmax(1) == labels).float().mean()
    assert knows > 0.9
    assert ignores < knows - 0.1
