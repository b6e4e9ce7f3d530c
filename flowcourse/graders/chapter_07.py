"""The exercises of chapter 7, Optimal-transport couplings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.family import EIGHT_TO_MOONS
from flowcourse.grading import Answer, GradeError, Probe, from_parts, on, show, worst
from flowlib.couplings import exact, swap_violations

choice(
    "7.1",
    "Match by hand",
    "On the line, x₀ stands at 0, 3 and 4, and x₁ at 3, 5 and 6. Which pairs are optimal for squared distances, and "
    "what is the sum of their squares?",
    Option(
        "3 → 3, since it is free, then 4 → 5, the next best, and 0 → 6: the sum is 37.",
        "The greedy choice leaves the longest way for the last one. 0 → 6 and 3 → 3 are a swap violation: "
        "(0 - 3)(6 - 3) is negative, and swapping them saves 18.",
    ),
    Option(
        "0 → 3, 3 → 5 and 4 → 6: the sum is 17.",
        "On the line the optimal pairs are sorted against sorted, even if a free ride is given up for it.",
        right=True,
    ),
    Option(
        "3 → 3, since nobody should move without need, then 0 → 5 and 4 → 6: the sum is 29.",
        "(0 - 3)(5 - 3) is negative: the travelers from 0 and from 3 gain 12 by swapping their seats.",
    ),
    Option(
        "4 → 3, 3 → 5 and 0 → 6: the sum is 41.",
        "Every two of these run against one another; that is the worst pairing, the reversed one.",
    ),
    hints=(
        "Take two travelers and ask by eq-swap whether they would rather swap seats.",
        "On the line δ₀ δ₁ must not be negative: who starts further right must end further right.",
        "Sort both sides and read off the pairs.",
    ),
)

choice(
    "7.2",
    "Where the noise of a class went",
    "A class-conditional model was trained on exact pairs of batches of 256, without a look at the labels. Samples of "
    "some classes are poor. A colleague checks all x₀ of a hundred training batches together: they are N(0, I), as "
    "they should be. What is wrong?",
    Option(
        "Nothing is wrong with the pairs, so it must be the network: it needs more weights.",
        "The check looked at all classes together. Look at the x₀ that were paired with one class.",
    ),
    Option(
        "The batches are too small: with 256 points the marginals are biased.",
        "Marginals are kept at every batch size; it is the cost that a small batch biases. And larger batches make "
        "this fault worse, since pairs get sharper.",
    ),
    Option(
        "Given its label x₀ is not N(0, I): each class saw only the noise near it, and is sampled from all of it.",
        "Optimal pairs send a class the noises that lie near it. The mean of x₀ in a class shows it, and pairs within "
        "each label cure it.",
        right=True,
    ),
    Option(
        "The labels were not permuted with x₁.",
        "That is another bug, and shows as a model that ignores its labels. Here labels stay beside their x₁; it is x₀ "
        "that has come to depend on them.",
    ),
    hints=(
        "What does the network see in training when it is told a label, and what in sampling?",
        "Which law must x₀ have for one fixed label?",
        "On the line, the class at +3 is paired with positive noise only.",
    ),
)


# 7.3 Monge on the line


@from_parts
def _map(x: Tensor) -> dict[str, Any]:
    left = 1 - (-x).exp()  # the share of the noise on the left of x
    return locals()


POINTS = torch.tensor([0.0, 0.1, 0.5, 1.0, 1.7, 3.0], dtype=torch.float64)


def _map_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"at x = {POINTS[at]:.1f}, which has the share {1 - torch.exp(-POINTS[at]):.4f} of the noise on its left, the "
        f"map should be {right[at]:.4f}; yours is {result[at]:.4f}"
    )


exercise(
    "7.3",
    "Monge on the line",
    "my_map(x)",
    Probe(on(POINTS), _map_off),
    right=_map(lambda p: 2 * p.left - 1),
    mistakes=[
        (
            "your map carries the one law to the other, but falls: it sends the leftmost to the right, and everybody "
            "would rather swap",
            _map(lambda p: 1 - 2 * p.left),
        ),
        (
            "that is the share on the left, which is uniform on [0, 1]; the data are uniform on [-1, 1]",
            _map(lambda p: p.left),
        ),
        (
            "that is the share on the right, which is uniform on [0, 1] and falls",
            _map(lambda p: 1 - p.left),
        ),
        (
            "that fits mean and standard deviation only: a straight map makes an exponential law of an exponential law",
            _map(lambda p: (p.x - 1) / 3**0.5),
        ),
        (
            "that is half the share: the data have the density 1/2, so divide by it, and start at -1",
            _map(lambda p: p.left / 2),
        ),
    ],
    hints=(
        "On the line the optimal map rises. Which quantity do x and T(x) then share?",
        "As much noise lies on the left of x as data on the left of T(x).",
        "1 - exp(-x) = (1 + y)/2.",
    ),
    insight="one distribution function, and the inverse of the other: that is all of optimal transport on the line.",
)


# 7.4 Sorting


_generator = torch.Generator().manual_seed(0)
LINE_0 = torch.randn(7, 1, generator=_generator, dtype=torch.float64)
LINE_1 = torch.tensor([[0.4], [1.9], [-0.7], [0.1], [-1.6], [2.2], [0.9]], dtype=torch.float64)


@from_parts
def _sorted(x_0: Tensor, x_1: Tensor) -> dict[str, Any]:
    rising = x_0.sort(dim=0).values
    order_0, order_1 = x_0[:, 0].argsort(), x_1[:, 0].argsort()
    rank_0, rank_1 = order_0.argsort(), order_1.argsort()
    return locals()


def _sorted_off(result: Tensor, right: Tensor, _: Answer) -> str:
    if not torch.equal(result.sort(dim=0).values, LINE_0.sort(dim=0).values):
        return "these are not the points of x_0 in another order: a coupling permutes them, each one once"
    at = worst(result, right)
    return (
        f"row {at} of x_1 is the number {int(LINE_1[:, 0].argsort().argsort()[at]) + 1} of 7 from the left and must "
        f"get the x_0 of that rank, {right[at, 0]:.4f}; yours is {result[at, 0]:.4f}"
    )


exercise(
    "7.4",
    "Sorting is optimal transport",
    "sort_pairs(x_0, x_1)",
    Probe(on(LINE_0, LINE_1), _sorted_off),
    right=_sorted(lambda p: p.rising[p.rank_1]),
    mistakes=[
        (
            "x_0 is sorted, but x_1 is not: row i must belong to row i of x_1 as it stands",
            _sorted(lambda p: p.rising),
        ),
        (
            "the order of x_1 was used where its ranks are wanted: argsort says who is at a place, argsort of argsort "
            "which place somebody has",
            _sorted(lambda p: p.rising[p.order_1]),
        ),
        (
            "x_0 must be sorted first: you took its rows by the ranks of x_1",
            _sorted(lambda p: p.x_0[p.rank_1]),
        ),
        (
            "x_0 must be sorted first: you took its rows by the order of x_1",
            _sorted(lambda p: p.x_0[p.order_1]),
        ),
        (
            "that is the worst pairing: the largest x_0 went to the smallest x_1",
            _sorted(lambda p: p.rising.flip(0)[p.rank_1]),
        ),
        (
            "you permuted x_1 to fit x_0; x_1 stays, since its labels lie beside it",
            _sorted(lambda p: p.x_1.sort(dim=0).values[p.rank_0]),
        ),
        ("x_0 came back as it was", _sorted(lambda p: p.x_0.clone())),
    ],
    hints=(
        "Which x_0 belongs to the smallest x_1, and in which row does that one stand?",
        "x_1[:, 0].argsort() lists the rows of x_1 from the smallest to the largest.",
        "Write the sorted x_0 into those rows of an empty tensor.",
    ),
    insight="B log B instead of a matrix, but on the line only: the plane cannot be sorted, and that is the trouble.",
)


# 7.5 Sinkhorn


@from_parts
def _turn(g: Tensor, costs: Tensor, a: Tensor, b: Tensor, e: float) -> dict[str, Any]:
    def rows(potentials: Tensor) -> Tensor:  # log of sum_j exp((g_j - C_ij) / e)
        return ((potentials - costs) / e).logsumexp(1)

    def columns(potentials: Tensor) -> Tensor:
        return ((potentials[:, None] - costs) / e).logsumexp(0)

    f = e * (a.log() - rows(g))
    return locals()


def _both(make: Callable[[Any], tuple[Tensor, Tensor]]) -> Answer:
    return _turn(make)


_generator = torch.Generator().manual_seed(1)
COSTS = torch.rand(4, 5, generator=_generator, dtype=torch.float64) * 3
POTENTIALS = torch.randn(5, generator=_generator, dtype=torch.float64)
ROWS = torch.rand(4, generator=_generator, dtype=torch.float64) + 0.2
COLUMNS = torch.rand(5, generator=_generator, dtype=torch.float64) + 0.2
ROWS, COLUMNS = ROWS / ROWS.sum(), COLUMNS / COLUMNS.sum()
E = 0.7


def _potentials(costs: Tensor, e: float) -> Callable[[Answer], tuple[Tensor, Tensor]]:
    def measure(turn: Answer) -> tuple[Tensor, Tensor]:
        value = turn(POTENTIALS, costs, ROWS, COLUMNS, e)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise GradeError(f"turn must return two tensors, f (n,) and g (m,), not {type(value).__name__}")
        for name, x, size in zip("fg", value, costs.shape, strict=True):
            if not isinstance(x, Tensor) or x.shape != (size,):
                shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise GradeError(f"{name} must be a tensor of shape ({size},), not {shape}")
            if not x.isfinite().all():
                raise GradeError(f"{name} holds NaN or infinity")
        return value[0], value[1]

    return measure


def _turn_off(result: tuple[Tensor, Tensor], *_: Any) -> str:
    f, g = result
    plan = ((f[:, None] + POTENTIALS - COSTS) / E).exp()
    if (plan.sum(1) - ROWS).abs().max() > 1e-6:
        return (
            f"with your f and the old g the rows of P sum to {show(plan.sum(1))}, and should to {show(ROWS)}. Write "
            "the row sum down, and take out of it what does not depend on j"
        )
    plan = ((f[:, None] + g - COSTS) / E).exp()
    return f"f meets the rows; with your f and g the columns sum to {show(plan.sum(0))}, and should to {show(COLUMNS)}"


exercise(
    "7.5",
    "One turn of Sinkhorn",
    "turn(g, costs, a, b, e)",
    Probe(_potentials(COSTS, E), _turn_off),
    Probe(
        _potentials(COSTS * 1000, E),
        "right, but not where costs are a thousand times e: every exp(-C/e) is 0 there. Use logsumexp",
    ),
    right=_both(lambda p: (p.f, p.e * (p.b.log() - p.columns(p.f)))),
    mistakes=[
        (
            "a and b stand as they are; take their logarithms, since f/e is a logarithm",
            _both(lambda p: (p.e * (p.a - p.rows(p.g)), p.e * (p.b - p.columns(p.e * (p.a - p.rows(p.g)))))),
        ),
        (
            "the factor e is missing in front: f/e is a logarithm, f is e times it",
            _both(lambda p: (p.a.log() - p.rows(p.g), p.b.log() - p.columns(p.a.log() - p.rows(p.g)))),
        ),
        (
            "the sign is wrong: what is too much must be taken away, f = e (log a - ...)",
            _both(lambda p: (-p.f, -p.e * (p.b.log() - p.columns(-p.f)))),
        ),
        (
            "the old g is still in your new one: g is computed from f alone",
            _both(lambda p: (p.f, p.g + p.e * (p.b.log() - p.columns(p.f)))),
        ),
        (
            "the marginals are missing: these sums are 1, and should be a and b",
            _both(lambda p: (-p.e * p.rows(p.g), -p.e * p.columns(-p.e * p.rows(p.g)))),
        ),
    ],
    hints=(
        "Write down the i-th row sum of P and pull out of the sum all that does not depend on j.",
        "exp(f_i/e) · Σ_j exp((g_j - C_ij)/e) = a_i. Take logarithms and solve for f_i.",
        "The logarithm of a sum of exponentials is logsumexp, here over dim=1; for g it is over dim=0, with the new f.",
    ),
    insight="each turn is exact for one marginal and spoils the other a little less than before.",
)


# 7.6 Within labels


_generator = torch.Generator().manual_seed(2)
NOISE = torch.randn(12, 2, generator=_generator, dtype=torch.float64)
DATA = torch.randn(12, 2, generator=_generator, dtype=torch.float64)
LABELS = torch.tensor([3, 0, 0, 5, 3, 0, 5, 3, 0, 3, 5, 5])


def _by_class(x_0: Tensor, x_1: Tensor, y: Tensor) -> list[Tensor]:
    return [exact(x_0[y == k], x_1[y == k])[0] for k in y.unique()]


@from_parts
def _within(x_0: Tensor, x_1: Tensor, y: Tensor) -> dict[str, Any]:
    right = x_0.clone()
    for k, part in zip(y.unique(), _by_class(x_0, x_1, y), strict=True):
        right[y == k] = part
    return locals()


def _other_way(p: Any) -> Tensor:
    out = p.x_1.clone()
    for k in p.y.unique():
        rows = p.y == k
        out[rows] = exact(p.x_1[rows], p.x_0[rows])[0]
    return out


def _within_off(result: Tensor, *_: Any) -> str:
    for k in LABELS.unique():
        mine = {tuple(row) for row in result[k == LABELS].tolist()}
        own = {tuple(row) for row in NOISE[k == LABELS].tolist()}
        if mine < own:
            return (
                f"label {int(k)} uses only {len(mine)} of its {len(own)} noises, others twice: permute them"
            )
        if mine != own:
            return (
                f"the rows of label {int(k)} hold {len(mine - own)} noises that came with other labels: given its "
                "label x_0 is no longer as it was drawn"
            )
    return "each label keeps its noises, but they are not paired optimally there: use exact on the rows of one label"


exercise(
    "7.6",
    "Pairs that respect labels",
    "pair_within(x_0, x_1, y)",
    Probe(on(NOISE, DATA, LABELS), _within_off),
    right=_within(lambda p: p.right),
    mistakes=[
        (
            "these are the best pairs of the whole batch: they look at no label, and each class gets the noise near it",
            _within(lambda p: exact(p.x_0, p.x_1)[0]),
        ),
        ("x_0 came back as it was", _within(lambda p: p.x_0.clone())),
        (
            "the classes came back one after the other: put each part back into the rows that it came from",
            _within(lambda p: torch.cat(_by_class(p.x_0, p.x_1, p.y))),
        ),
        (
            "you permuted x_1; x_1 stays, and x_0 is re-paired",
            _within(_other_way),
        ),
        (
            "the distance of the labels was added to the cost with a small weight; for whole labels pair within each",
            _within(
                lambda p: exact(
                    torch.cat([p.x_0, p.y[:, None].to(p.x_0) / 5], 1),
                    torch.cat([p.x_1, p.y[:, None].to(p.x_1) / 5], 1),
                )[0][:, :2]
            ),
        ),
    ],
    hints=(
        "Whose label may a noise take over without knowing anything of it? That of the x_1 that it was drawn beside.",
        "Among the rows of one label any permutation is harmless, so take the best one.",
        "Loop over y.unique(), and write exact(x_0[rows], x_1[rows])[0] into those rows of a copy of x_0.",
    ),
    insight="each class keeps its own noises, in the plain sense: its rows hold the same points as before.",
)


# 7.7 A coupling of the reader's own: what is measured is its cost


def _tickets() -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(3)
    return EIGHT_TO_MOONS.start(512, generator=g), EIGHT_TO_MOONS.goal(512, generator=g)


def _own_coupling(my_coupling: Answer) -> Tensor:
    x_0, x_1 = _tickets()
    value = my_coupling(x_0, x_1, Generator().manual_seed(4))
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(isinstance(x, Tensor) for x in value)
    ):
        raise GradeError(
            f"my_coupling must return two tensors, the re-paired x_0 and x_1 itself, not {type(value).__name__}"
        )
    paired, kept = value
    for name, x in (("x_0", paired), ("x_1", kept)):
        if x.shape != x_0.shape:
            raise GradeError(f"{name} must come back in its shape, {tuple(x_0.shape)}, not {tuple(x.shape)}")
    if not torch.equal(kept, x_1):
        raise GradeError("x_1 came back in another order: re-pair x_0, so that labels can stay beside x_1")
    rows = {tuple(row) for row in x_0.tolist()}
    used = {tuple(row) for row in paired.tolist()}
    if not used <= rows:
        raise GradeError(
            "the first of the two holds points that x_0 does not have: permute x_0, do not move it"
        )
    if len(used) < len(rows):
        raise GradeError(
            f"only {len(used)} of the 512 points of x_0 are used, others twice or more: each must be used once, or the "
            "source is no longer what it was"
        )
    cost, least = ((x - x_1).square().sum(1).mean() for x in (paired, exact(x_0, x_1)[0]))
    ratio, share = float(cost / least), 100 * swap_violations(paired, x_1)
    told = f"your pairs cost {ratio:.3f} times the least, and {share:.2g}% of all twos would rather swap; "
    if ratio > 0.98 * float((x_0 - x_1).square().sum(1).mean() / least):
        raise GradeError(f"{told}that is no better than the pairs as they came. Which twos would swap?")
    if ratio > 1.05:
        raise GradeError(
            f"{told}1.05 times is wanted. You are on the way: more rounds, or another first order"
        )
    return torch.tensor(1.0)


def _swapped(x_0: Tensor, x_1: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
    x, half = x_0.clone(), len(x_0) // 2
    for _ in range(600):
        i, j = torch.randperm(len(x), generator=generator)[: 2 * half].split(half)
        gain = ((x[i] - x[j]) * (x_1[i] - x_1[j])).sum(1) < 0
        i, j = i[gain], j[gain]
        x[i], x[j] = x[j], x[i]
    return x, x_1


exercise(
    "7.7",
    "A coupling of your own",
    "my_coupling(x_0, x_1, generator)",
    Probe(_own_coupling, "the pairs must be a permutation, and nearly as cheap as the best"),
    right=_swapped,
    mistakes=[],
    hints=(
        "You need no matrix. What does eq-swap say of two pairs that are not yet right?",
        "Draw a random permutation, read it as twos, and swap those twos whose inner product is negative, all at once.",
        "A few hundred rounds of it are enough. Mind that x[i], x[j] = x[j], x[i] needs copies, which indexing by "
        "tensors makes.",
    ),
    insight="swaps alone get nearly there; the rest are rings of three and more, as on the circle of the chapter.",
)
