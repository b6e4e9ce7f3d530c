"""Fields, clouds and laws that several of flowlib's tests use."""

import itertools

import torch

from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP

# neither symmetric nor triangular, with a symmetric part that is far from diagonal
FULL = torch.tensor([[0.4, 1.5, -0.3], [-0.6, 0.2, 0.8], [0.9, 0.1, -0.7]], dtype=torch.float64)
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)  # all (8, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def matrix_field(matrix):
    """x' = A x on points of any shape."""
    return lambda x, t: (x.flatten(1) @ matrix.T).reshape(x.shape)


def two_modes():
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    return GaussianMixture(means, [0.2, 0.4])


def network(dtype=torch.float64, classes=0):
    return VelocityMLP(2, width=16, depth=2, classes=classes, generator=generator(3)).to(dtype)


def counted(v):
    calls = []

    def counting(x, t, **cond):
        calls.append(float(t))
        return v(x, t, **cond)

    return counting, calls
