"""Answers to the exercises of chapter 7: right ones in several ways, and wrong ones that no declared mistake covers."""

import torch
from scipy.optimize import linear_sum_assignment

from flowlib.couplings import conditional, exact


def sort_pairs(x_0, x_1):
    paired = torch.empty_like(x_0)
    paired[x_1[:, 0].argsort()] = x_0.sort(dim=0).values
    return paired


def turn(g, costs, a, b, e):
    f = e * (a.log() - ((g - costs) / e).logsumexp(1))
    return f, e * (b.log() - ((f[:, None] - costs) / e).logsumexp(0))


def naive_turn(g, costs, a, b, e):
    K = (-costs / e).exp()
    f = e * (a / (K @ (g / e).exp())).log()
    return f, e * (b / (K.T @ (f / e).exp())).log()


def shifted_turn(g, costs, a, b, e):
    """The same, with the largest exponent taken out by hand."""

    def log_sum(x, dim):
        top = x.max(dim, keepdim=True).values
        return top.squeeze(dim) + (x - top).exp().sum(dim).log()

    f = e * (a.log() - log_sum((g - costs) / e, 1))
    return f, e * (b.log() - log_sum((f[:, None] - costs) / e, 0))


def pair_within(x_0, x_1, y):
    paired = x_0.clone()
    for label in y.unique():
        rows = y == label
        paired[rows] = exact(x_0[rows], x_1[rows])[0]
    return paired


def pair_at_a_high_cost(x_0, x_1, y):
    costs = torch.cdist(x_0, x_1).square() + 1e6 * (y[:, None] != y)
    rows, columns = linear_sum_assignment(costs)
    paired = torch.empty_like(x_0)
    paired[columns] = x_0[rows]
    return paired


def greedy_within(x_0, x_1, y):
    paired, left = x_0.clone(), set(range(len(x_0)))
    for i in range(len(x_1)):
        j = min((j for j in left if y[j] == y[i]), key=lambda j: float((x_0[j] - x_1[i]).norm()))
        paired[i] = x_0[j]
        left.remove(j)
    return paired


def swaps(x_0, x_1, generator=None, sweeps=600):
    x, half = x_0.clone(), len(x_0) // 2
    for _ in range(sweeps):
        i, j = torch.randperm(len(x), generator=generator).split(half)
        gain = ((x[i] - x[j]) * (x_1[i] - x_1[j])).sum(1) < 0
        i, j = i[gain], j[gain]
        x[i], x[j] = x[j], x[i]
    return x, x_1


def nearest(x_0, x_1, generator=None):
    return x_0[torch.cdist(x_1, x_0).argmin(1)], x_1


def by_first_coordinate(x_0, x_1, generator=None):
    paired = torch.empty_like(x_0)
    paired[x_1[:, 0].argsort()] = x_0[x_0[:, 0].argsort()]
    return paired, x_1


RIGHT = [
    ("7.3", lambda x: 1 - 2 * torch.exp(-x)),
    ("7.3", lambda x: 2 * (1 - (-x).exp()) - 1),
    ("7.4", sort_pairs),
    ("7.4", lambda x_0, x_1: x_0.sort(0).values[x_1[:, 0].argsort().argsort()]),
    ("7.4", lambda x_0, x_1: exact(x_0, x_1)[0]),
    ("7.5", turn),
    ("7.5", shifted_turn),
    ("7.6", pair_within),
    ("7.6", lambda x_0, x_1, y: conditional(x_0, x_1, labels=y)[0]),
    ("7.6", pair_at_a_high_cost),
    ("7.7", swaps),
    ("7.7", lambda x_0, x_1, generator=None: exact(x_0, x_1)),
]

# each with words that its diagnosis must hold
WRONG = [
    ("7.1", "e", "one letter"),
    ("7.3", lambda x: x, "should be"),
    ("7.3", lambda x: 1 - 3 * torch.exp(-x), "should be"),
    ("7.3", lambda x: (1 - 2 * torch.exp(-x)).float(), "float64"),
    ("7.3", lambda: 0, "TypeError"),
    ("7.4", lambda x_0, x_1: x_0 + 1, "in another order"),
    ("7.4", lambda x_0, x_1: x_0.roll(1, 0), "from the left"),
    ("7.4", lambda x_0, x_1: sort_pairs(x_0, x_1)[:, 0], "shape"),
    ("7.5", naive_turn, "logsumexp"),
    ("7.5", lambda *a: turn(*a)[0], "two tensors"),
    ("7.5", lambda g, costs, a, b, e: (turn(g, costs, a, b, e)[0], g), "f meets the rows"),
    ("7.5", lambda g, costs, a, b, e: (a, b), "the rows of P sum to"),
    ("7.5", lambda g, costs, a, b, e: (a[:, None], b), "shape"),
    ("7.6", greedy_within, "not paired optimally"),
    ("7.6", lambda x_0, x_1, y: x_0.flip(0), "came with other labels"),
    ("7.6", lambda x_0, x_1, y: exact(x_0, x_1), "tensor of shape"),
    ("7.7", nearest, "used once"),
    ("7.7", by_first_coordinate, "1.05 times is wanted"),
    ("7.7", lambda x_0, x_1, generator=None: (x_0, x_1), "no better"),
    ("7.7", lambda x_0, x_1, generator=None: (x_0, x_1.flip(0)), "another order"),
    ("7.7", lambda x_0, x_1, generator=None: (x_0 + 1, x_1), "does not have"),
    ("7.7", lambda x_0, x_1, generator=None: x_0, "two tensors"),
    ("7.7", lambda x_0, x_1, generator=None: (x_0[:9], x_1), "in its shape"),
    ("7.7", lambda x_0, x_1, generator=None: swaps(x_0, x_1), "global generator"),
]
