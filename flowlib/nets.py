"""Networks that are fields: how time enters them, and a multilayer perceptron (all chapters)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from flowlib.fields import expand_time


def time_embedding(
    t: Tensor,
    dimension: int,
    *,
    fastest: float = 1000.0,
    slowest: float = 0.1,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Times as points on h = dimension / 2 circles, at angular frequencies that fall geometrically:

        (cos w_0 t, ..., cos w_{h-1} t, sin w_0 t, ..., sin w_{h-1} t),     w_k = fastest (slowest / fastest)^(k / h).

    Angles are computed in the dtype of t, and only the result is rounded to `dtype`: an angle of up to 1000 radians has
    an error of up to 2 radians in bfloat16.

    Args:
        t: times (B,), in float32 or float64.
        dimension: how many features, even.
        fastest, slowest: the ends of the frequencies, in radians per unit of time; `slowest` itself is left out. The
            defaults are those of DDPM, whose time runs to 1000.
        dtype: of the result; that of t if None.

    Returns:
        (B, dimension).

    Raises:
        ValueError: an odd or non-positive dimension, frequencies that are not positive, or times that are not (B,).
        TypeError: times in half precision.

    Source: Vaswani et al. (2017), section 3.5; Ho et al. (2020), appendix B.

    >>> time_embedding(torch.tensor([0.0, 0.5]), 2, fastest=math.pi)
    tensor([[ 1.0000e+00,  0.0000e+00],
            [-4.3711e-08,  1.0000e+00]])
    """
    if dimension < 2 or dimension % 2:
        raise ValueError(f"dimension must be even and at least 2, got {dimension}")
    if not (0 < slowest < math.inf and 0 < fastest < math.inf):
        raise ValueError(f"frequencies must be positive, got fastest={fastest} and slowest={slowest}")
    if t.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"times must be float32 or float64, got {t.dtype}")
    if t.ndim != 1:
        raise ValueError(f"times must have shape (B,), got {tuple(t.shape)}")
    k = torch.arange(dimension // 2, dtype=t.dtype, device=t.device)
    angles = t[:, None] * (fastest * (slowest / fastest) ** (2 * k / dimension))
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)


class VelocityMLP(nn.Module):
    """A field on points (B, d): hidden layers of one width with SiLU between them, on x, t and, if any, the label.

        h_1 = silu(W_1 (x, t) + b_1 + e_label),    h_{k+1} = silu(W_{k+1} h_k + b_{k+1}),    v = W h + b

    Args:
        dimension: d, of the points.
        width: of each hidden layer.
        depth: how many hidden layers.
        classes: how many labels there are. Besides them a network with classes knows the label `classes`, which says
            "any" and is what it assumes when it is called without labels.
        generator: the source of the first weights, drawn on the CPU from torch's default laws.

    Raises:
        ValueError: a size that is not positive, or a negative number of classes.

    >>> net = VelocityMLP(2, classes=10, generator=torch.Generator().manual_seed(0))
    >>> net(torch.zeros(5, 2), 0.5, labels=torch.arange(5)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        dimension: int,
        width: int = 64,
        depth: int = 3,
        *,
        classes: int = 0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if min(dimension, width, depth) < 1 or classes < 0:
            raise ValueError(
                f"sizes must be positive, got dimension={dimension}, width={width}, depth={depth}, classes={classes}"
            )
        self.dimension, self.classes = dimension, classes
        widths = [dimension + 1] + depth * [width] + [dimension]
        self.first, *others = [SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths)]
        self.rest = nn.ModuleList(others)
        self.label: nn.Embedding | None = None
        if classes:
            rows = torch.randn(classes + 1, width, generator=generator)
            self.label = nn.Embedding.from_pretrained(rows, freeze=False)

    def forward(self, x: Tensor, t: Tensor | float, *, labels: Tensor | None = None) -> Tensor:
        """The velocity (B, d) at points x (B, d) and times t, a scalar or (B,), given labels (B,) of dtype int64.

        Raises:
            ValueError: points or labels of another shape, or labels for a network without classes.
        """
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"points must have shape (B, {self.dimension}), got {tuple(x.shape)}")
        time = expand_time(t, x).to(x.dtype).expand(len(x), 1)
        h = self.first(torch.cat([x, time], dim=1))
        if self.label is not None:
            h = h + self.label(self._known(labels, x))
        elif labels is not None:
            raise ValueError("this network has no classes, so it takes no labels")
        for layer in self.rest:
            h = layer(silu(h))
        return h

    def _known(self, labels: Tensor | None, x: Tensor) -> Tensor:
        if labels is None:
            return torch.full((len(x),), self.classes, device=x.device)
        if labels.shape != x.shape[:1]:
            raise ValueError(f"labels must have shape ({len(x)},), got {tuple(labels.shape)}")
        return labels


class SeededLinear(nn.Linear):
    """A linear layer with torch's first weights, uniform on +-1 / sqrt(inputs), but drawn from the generator."""

    def __init__(self, inputs: int, outputs: int, generator: Generator | None) -> None:
        super().__init__(inputs, outputs)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)

    def reset_parameters(self) -> None:
        """Nothing: torch's own would draw from the global generator."""
