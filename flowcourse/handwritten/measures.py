"""Is it the digit that was asked for, are there others like it, and how far is the whole from real digits?"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor

from flowcourse.handwritten.classifiers import Judge
from flowcourse.handwritten.images import digits
from flowcourse.handwritten.shipped import load
from flowcourse.intervals import wilson
from flowlib import checks


class Accuracy(NamedTuple):
    """The share that the judge reads as the digit asked for, and its 95% interval."""

    share: float
    low: float
    high: float


@torch.no_grad()
def accuracy(x: Tensor, label: Tensor) -> Accuracy:
    """How many of the images x (B, 1, 28, 28) the judge reads as their labels (B,)."""
    right = _read(x)[1] == label
    return Accuracy(float(right.float().mean()), *wilson(int(right.sum()), len(x)))


@torch.no_grad()
def diversity(x: Tensor, label: Tensor) -> float:
    """How far apart the images of one digit are, where that of real ones is 1.

    The mean distance of two of them in the judge's features, over that of two real ones; averaged over digits. Images
    that the judge reads as another digit do not count: by failing nobody becomes more diverse.

    Raises ValueError if no digit has two images that count.
    """
    features, read = _read(x)
    spreads = [
        torch.pdist(mine).mean() / _spreads()[digit]
        for digit in range(10)
        if len(mine := features[(label == digit) & (read == digit)]) > 1
    ]
    checks.require(bool(spreads), "no digit was drawn twice, as the judge reads it")
    return float(torch.stack(spreads).mean())


@torch.no_grad()
def frechet(x: Tensor, y: Tensor | None = None) -> float:
    """The Frechet distance of images x and y (all real digits by default) in the judge's features f:

        |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)),     m, S: mean and covariance of f,

    W2 squared between Gaussians. It is not zero for samples of one law: compare at one size, with a floor beside it.

    Source: Heusel et al. (2017), equation 6.
    """
    (m_x, s_x), (m_y, s_y) = (_moments(_read(z)[0]) for z in (x, digits()[0] if y is None else y))
    values, vectors = torch.linalg.eigh(s_x)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s_y @ root).clamp_min(0).sqrt().sum()
    return float((m_x - m_y).square().sum() + s_x.trace() + s_y.trace() - 2 * cross)


@cache
def _judge() -> Judge:
    return cast(Judge, load("judge"))


def _read(x: Tensor) -> tuple[Tensor, Tensor]:
    """The judge's features (B, 64) and the digits that it reads (B,)."""
    features = torch.cat([_judge().features(part) for part in x.split(500)])
    return features, _judge().read(features).argmax(1)


@cache
def _spreads() -> list[Tensor]:
    """The mean distance of two real images of each digit, in the judge's features."""
    images, labels = digits()
    features = _read(images)[0]
    return [torch.pdist(features[labels == digit]).mean() for digit in range(10)]


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.double().mean(0), features.double().T.cov()
