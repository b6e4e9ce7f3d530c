"""Streams of pairs and semidiscrete couplings: the same batches however they are made, and cells of equal mass."""

import math
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from flowlib.couplings import conditional, exact, independent, partition, swap_violations
from flowlib.pairs import Pairs, ahead
from flowlib.semidiscrete import Semidiscrete, fit_semidiscrete


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(n: int, *, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, data left or right, and the label of the side."""
    labels = torch.randint(2, (n,), generator=generator)
    x_1 = torch.randn(n, 2, generator=generator) * 0.2 + (2.0 * labels - 1)[:, None]
    return torch.randn(n, 2, generator=generator), x_1, labels


def broken(n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
    raise RuntimeError("the disk is gone")


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


# Streams

seeded = partial(Pairs, generator=generator())


def test_a_large_batch_is_coupled_once_and_cut():
    pairs = Pairs(draw, 16, large=64, coupling=exact, generator=generator())
    pieces = list(islice(pairs, 4))
    x_0, x_1, labels = (torch.cat(x) for x in zip(*pieces, strict=True))
    assert swap_violations(x_0, x_1) == 0
    assert torch.equal((x_1[:, 0] > 0).long(), labels)
    torch.testing.assert_close((x_0, x_1, labels), pairs.coupled(0))


def test_a_coupling_is_handed_the_labels_where_it_asks_for_them():
    x_0, x_1, labels = Pairs(draw, 512, coupling=conditional, generator=generator(), labelled=True).coupled(0)
    assert torch.equal((x_1[:, 0] > 0).long(), labels)
    for side in (0, 1):  # within a side no pairs cross, and its noise has not learned the side
        assert swap_violations(x_0[labels == side], x_1[labels == side]) == 0
        assert x_0[labels == side].mean(0).abs().max() < 4 / 256**0.5


def test_a_stream_can_start_at_any_step_and_is_the_same_each_time():
    pairs = Pairs(draw, 8, large=32, generator=generator(3))
    batches = list(islice(pairs, 11))
    assert same(batches, list(islice(pairs, 11)))
    assert not torch.equal(batches[0][0], batches[4][0])
    for first in (1, 4, 7):
        later = Pairs(draw, 8, large=32, generator=generator(3), first=first)
        assert same(batches[first:], list(islice(later, 11 - first)))


@pytest.mark.parametrize("context", [None, "spawn"])
@pytest.mark.parametrize(
    "coupling", [independent, exact, partial(partition, plans=4)], ids=["independent", "exact", "partition"]
)
def test_ahead_of_time_the_batches_are_the_same_bits(coupling, context):
    def stream() -> Pairs:
        return Pairs(draw, 32, large=128, coupling=coupling, generator=generator(1))

    assert same(list(islice(stream(), 9)), list(islice(ahead(stream(), batches=4, context=context), 9)))


def test_an_error_of_the_process_is_raised_here():
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(ahead(Pairs(broken, 4, generator=generator())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: seeded(draw, 24, large=64),
            "large must be a multiple of batch, got large=64 and batch=24",
        ),
        (lambda: seeded(draw, 0), "batch, large must be whole"),
        (
            lambda: next(iter(seeded(lambda n, generator: (torch.zeros(n, 1),), 4))),
            r"draw must return x_0, x_1",
        ),
        (
            lambda: next(
                iter(
                    seeded(
                        lambda n, generator: (torch.zeros(n, 1), torch.zeros(3, 1)), 4, generator=generator()
                    )
                )
            ),
            r"4 of each, got \[4, 3\]",
        ),
        (
            lambda: next(
                iter(
                    seeded(
                        draw,
                        4,
                        coupling=lambda x_0, x_1, generator: (x_0, x_1.clone()),
                        generator=generator(),
                    )
                )
            ),
            "a coupling must return x_1 itself",
        ),
    ],
)
def test_what_makes_no_stream_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Semidiscrete couplings


def test_without_potentials_each_noise_goes_to_its_nearest_point():
    y, x = torch.randn(2, 40, 3, 2, generator=generator(), dtype=torch.float64)
    pairs = Semidiscrete(y)
    assert torch.equal(pairs.index(x), torch.cdist(x.flatten(1), y.flatten(1)).argmin(1))
    assert torch.equal(pairs(x), y[pairs.index(x)])


def test_the_cells_are_those_of_the_power_diagram():
    y, g = (
        torch.randn(2, 7, 2, generator=generator(), dtype=torch.float64),
        torch.rand(7, generator=generator(1)),
    )
    x = torch.randn(500, 2, generator=generator(2), dtype=torch.float64)
    expected = (torch.cdist(x, y[0]).square() - g).argmin(1)
    assert torch.equal(Semidiscrete(y[0], g).index(x), expected)
    assert torch.equal(Semidiscrete(y[0], g + 100).index(x), expected)


def test_in_one_dimension_the_potentials_are_known():
    """Borders at the normal quantiles: g_{j+1} - g_j = y_{j+1}^2 - y_j^2 - 2 q_j (y_{j+1} - y_j)."""
    y = torch.tensor([[-2.0], [0.5], [1.0], [4.0]], dtype=torch.float64)
    pairs = fit_semidiscrete(y, steps=3000, rate=0.05, generator=generator())
    quantiles = torch.special.ndtri(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    borders = (y[1:, 0].square() - y[:-1, 0].square() - pairs.potentials.diff()) / (2 * y[:, 0].diff())
    torch.testing.assert_close(borders, quantiles, rtol=0, atol=0.02)
    torch.testing.assert_close(
        pairs.masses(torch.randn(400_000, 1, generator=generator(1), dtype=torch.float64)),
        torch.full((4,), 0.25, dtype=torch.float64),
        rtol=0,
        atol=0.006,
    )


def test_cells_come_to_equal_masses_and_pairs_to_the_least_cost():
    y = torch.randn(64, 2, generator=generator()) + 1
    pairs = fit_semidiscrete(y, steps=2000, generator=generator(1))
    x = torch.randn(64 * 200, 2, generator=generator(2))
    error = (64 * pairs.masses(x) - 1).square().mean().sqrt()
    assert error < 2 * math.sqrt(1 / 200)  # twice the noise of counting
    paired = exact(x, y.repeat(200, 1))[0]
    least = float((paired - y.repeat(200, 1)).square().sum(1).mean())
    assert float((x - pairs(x)).square().sum(1).mean()) == pytest.approx(least, rel=0.02)


def test_a_source_of_another_law_is_taken():
    y = torch.tensor([[-1.0], [1.0]])
    pairs = fit_semidiscrete(
        y,
        source=lambda n, generator: 3 + torch.rand(n, 1, generator=generator),
        steps=1000,
        generator=generator(),
    )
    assert pairs.masses(3 + torch.rand(20_000, 1, generator=generator(1)))[0] == pytest.approx(0.5, abs=0.02)


def test_potentials_are_kept_with_their_points(tmp_path: Path):
    y = torch.randn(5, 2, generator=generator())
    pairs = Semidiscrete(y, torch.arange(5.0))
    file = tmp_path / "potentials.safetensors"
    pairs.save(file)
    assert torch.equal(Semidiscrete.load(file, y).potentials, pairs.potentials)
    with pytest.raises(ValueError, match="the potentials of other points"):
        Semidiscrete.load(file, y.flip(0))
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad holds no potentials"):
        Semidiscrete.load(tmp_path / "bad", y)
    with pytest.raises(FileNotFoundError):
        Semidiscrete.load(tmp_path / "none", y)


def test_it_never_changes_with_the_points_it_was_made_from():
    y = torch.randn(5, 2, generator=generator())
    pairs, x = Semidiscrete(y), torch.randn(20, 2, generator=generator(1))
    before = pairs(x)
    y += 3
    assert torch.equal(pairs(x), before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Semidiscrete(torch.zeros(3)), ValueError, r"points must have shape \(n, \*D\), got \(3,\)"),
        (lambda: Semidiscrete(torch.zeros(3, 2, dtype=torch.long)), TypeError, "points must be float32"),
        (
            lambda: Semidiscrete(torch.zeros(3, 2), torch.zeros(2)),
            ValueError,
            r"potentials must have shape \(3,\)",
        ),
        (
            lambda: Semidiscrete(torch.zeros(3, 2)).index(torch.zeros(4, 3)),
            ValueError,
            r"noise must have shape",
        ),
        (
            lambda: fit_semidiscrete(torch.ones(3, 2), generator=generator()),
            ValueError,
            "there must be different points",
        ),
        (lambda: fit_semidiscrete(torch.ones(3, 2), rate=0.0), ValueError, "rate must be positive"),
    ],
)
def test_what_cannot_be_paired_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
