"""Two kinds of networks that read digits: one that guides, one that judges."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import log_softmax, max_pool2d, relu, silu

from flowlib import checks
from flowlib.fields import expand_time
from flowlib.nets import SeededLinear, time_embedding
from flowlib.unet import SeededConv


class Classifier(nn.Module):
    """log p_t(y | x) (B, 10) of images (B, 1, 28, 28) at time t: convolutions, with norms that time shifts.

    Called without a time it reads clean images, t = 1; so does one that was trained on nothing else.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), *, generator: Generator | None = None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            SeededConv(a, b, 3, generator, stride=2) for a, b in zip((1, *widths), widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths)
        self.told = nn.ModuleList(SeededLinear(64, 2 * width, generator) for width in widths)
        self.read = SeededLinear(16 * widths[-1], 10, generator)

    def forward(self, x: Tensor, t: Tensor | float = 1.0) -> Tensor:
        """Logarithms of probabilities (B, 10), at times t, a scalar or (B,)."""
        checks.shaped("images", x, "B", 1, 28, 28)
        code = time_embedding(expand_time(t, x).reshape(-1).expand(len(x)), 64, fastest=100.0).to(x.dtype)
        for conv, norm, told in zip(self.convs, self.norms, self.told, strict=True):
            scale, shift = told(code)[:, :, None, None].chunk(2, dim=1)
            x = silu(torch.addcmul(shift, norm(conv(x)), 1 + scale))
        return log_softmax(self.read(x.flatten(1)).float(), dim=1)


class Judge(nn.Module):
    """log p(y | x) (B, 10) of clean images (B, 1, 28, 28), by another design: wide kernels, maxima, no norms."""

    def __init__(self, widths: tuple[int, int] = (20, 40), *, generator: Generator | None = None) -> None:
        super().__init__()
        self.conv_1 = SeededConv(1, widths[0], 5, generator)
        self.conv_2 = SeededConv(widths[0], widths[1], 5, generator)
        self.dense = SeededLinear(49 * widths[1], 64, generator)
        self.read = SeededLinear(64, 10, generator)

    def features(self, x: Tensor) -> Tensor:
        """What the judge makes of the images before it decides (B, 64)."""
        checks.shaped("images", x, "B", 1, 28, 28)
        h = max_pool2d(relu(self.conv_1(x)), 2)
        h = max_pool2d(relu(self.conv_2(h)), 2)
        return relu(self.dense(h.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of probabilities (B, 10)."""
        return log_softmax(self.read(self.features(x)).float(), dim=1)
