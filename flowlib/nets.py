"""Networks that are fields: how time enters them, and a multilayer perceptron (all chapters)."""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from flowlib import checks
from flowlib.fields import expand_time

_Layer = TypeVar("_Layer", bound=nn.Module)


def time_embedding(
    t: Tensor,
    dimension: int,
    *,
    fastest: float = 1000.0,
    slowest: float = 0.1,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Times (B,) as points on h = dimension / 2 circles, at angular frequencies that fall geometrically:

        (cos w_0 t, ..., cos w_{h-1} t, sin w_0 t, ..., sin w_{h-1} t),     w_k = fastest (slowest / fastest)^(k / h),

    in radians per unit of time; the defaults are those of DDPM, whose time runs to 1000. Angles are computed in the
    dtype of t, and only the result is rounded to `dtype`: in bfloat16, 1000 radians are off by up to 2.

    Source: Vaswani et al. (2017), section 3.5; Ho et al. (2020), appendix B.

    >>> time_embedding(torch.tensor([0.0, 0.5]), 2, fastest=torch.pi)
    tensor([[ 1.0000e+00,  0.0000e+00],
            [-4.3711e-08,  1.0000e+00]])
    """
    checks.precise("times", t)
    checks.shaped("times", t, "B")
    checks.whole(2, dimension=dimension)
    checks.require(dimension % 2 == 0, f"dimension must be even, got {dimension}")
    checks.positive(fastest=fastest, slowest=slowest)
    checks.require(
        dtype is None or dtype.is_floating_point, f"dtype must be floating, got {dtype}", TypeError
    )
    k = torch.arange(dimension // 2, dtype=t.dtype, device=t.device)
    angles = t[:, None] * (fastest * (slowest / fastest) ** (2 * k / dimension))
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)


SHORT = 128  # tokens


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Attention for each head, like q (B, heads, N, d), to keys and values (B, heads, M, d):

        softmax((q k^T) / sqrt(d)) v.

    Torch's fused kernel does it, but for short sequences on the CPU, for which its backward pass in bfloat16 is slow.

    Args:
        q, k, v: queries, keys, values.
        mask: bool, (B, 1, 1, M) say, False where a key is not to be seen.

    Source: Vaswani et al. (2017), equation 1.

    >>> q, k, v = torch.zeros(1, 1, 1, 4), torch.randn(1, 1, 2, 4), torch.tensor([[[[1.0], [3.0]]]])
    >>> attention(q, k, v)
    tensor([[[[2.]]]])
    """
    if q.device.type != "cpu" or k.shape[2] > SHORT:
        return scaled_dot_product_attention(q, k, v, mask)
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(3).to(v.dtype) @ v


class VelocityMLP(nn.Module):
    """A field on points (B, d): hidden layers of one width with SiLU between them, on x, t and, if any, the label.

        h_1 = silu(W_1 (x, t) + b_1 + e_label),    h_{k+1} = silu(W_{k+1} h_k + b_{k+1}),    v = W h + b

    Args:
        dimension: d, of the points.
        width: of each hidden layer.
        depth: how many hidden layers.
        classes: how many labels there are. Besides them a network with classes knows the label `classes`, which says
            "any" and is what it assumes when it is called without labels.
        generator: the source of the first weights, drawn from torch's default laws.

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
        checks.whole(dimension=dimension, width=width, depth=depth)
        checks.whole(0, classes=classes)
        self.dimension, self.classes = dimension, classes
        widths = [dimension + 1] + depth * [width] + [dimension]
        self.first, *others = [SeededLinear(a, b, generator) for a, b in itertools.pairwise(widths)]
        self.rest = nn.ModuleList(others)
        self.label: nn.Embedding | None = None
        if classes:
            device = generator.device if generator else None
            rows = torch.randn(classes + 1, width, generator=generator, device=device)
            self.label = nn.Embedding.from_pretrained(rows.to(self.first.weight.device), freeze=False)

    def forward(self, x: Tensor, t: Tensor | float, *, labels: Tensor | None = None) -> Tensor:
        """The velocity (B, d) at points x (B, d) and times t, a scalar or (B,), given whole labels (B,).

        Labels out of range are refused on the CPU; a GPU meets them as an assertion that ends the process.
        """
        checks.floating("points", x)
        checks.shaped("points", x, "B", self.dimension)
        time = expand_time(t, x).to(x.dtype).expand(len(x), 1)
        h = self.first(torch.cat([x, time], dim=1))
        if self.label is not None:
            h = h + self._rows(self.label, labels, x)
        elif labels is not None:
            raise ValueError("this network has no classes, so it takes no labels")
        for layer in self.rest:
            h = layer(silu(h))
        return h

    def _rows(self, embedding: nn.Embedding, labels: Tensor | None, x: Tensor) -> Tensor:
        if labels is None:
            labels = torch.full((len(x),), self.classes, device=x.device)
        checks.integers("labels", labels)
        checks.shaped("labels", labels, len(x))
        try:
            return embedding(labels.long())
        except IndexError as error:
            low, high = (int(end) for end in labels.aminmax())
            raise ValueError(
                f"labels must be from 0 to {self.classes} (which says any), got values from {low} to {high}"
            ) from error


class SeededLinear(nn.Linear):
    """A linear layer with torch's first weights, uniform on +-1 / sqrt(inputs), but drawn from the generator."""

    def __init__(self, inputs: int, outputs: int, generator: Generator | None) -> None:
        super().__init__(inputs, outputs)
        device, bound = generator.device if generator else None, inputs**-0.5
        with torch.no_grad():
            for parameter in self.parameters():
                drawn = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def reset_parameters(self) -> None:
        """Nothing: torch's own would draw from the global generator."""


def zeroed(layer: _Layer) -> _Layer:
    """The layer with weights and biases of zero, so that at first it adds nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
