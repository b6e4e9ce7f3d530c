"""A small U-Net: a velocity field on images (chapter 9)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    silu,
)

from flowlib import checks
from flowlib.fields import expand_time
from flowlib.nets import SeededLinear, attention, time_embedding, zeroed


class UNet(nn.Module):
    """A field on images (B, C, H, W): convolutions on a pyramid, down and up again, with skips between the sides.

    One block on each level going down, one going up, attention and a block on the lowest. Time, label and, if asked
    for, guidance scale become one vector, which scales and shifts the channels in every block. At first v = 0.

    Args:
        channels: C, of the images.
        widths: channels of each level, multiples of 8; every level but the first halves height and width.
        patch: the side of the squares of pixels that become the channels of the first level: 2 takes a quarter of the
            time.
        classes: how many labels there are; the label `classes` says "any", and is assumed without labels.
        scaled: whether the guidance scale is an input, as in a distilled field.
        generator: the source of the first weights.

    Source: Ho et al. (2020), appendix B; Dhariwal & Nichol (2021), section 3, for labels that scale and shift.

    >>> v = UNet(1, (8, 16), classes=10, generator=torch.Generator().manual_seed(0))
    >>> v(torch.zeros(5, 1, 28, 28), 0.5, label=torch.arange(5)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 96),
        *,
        patch: int = 1,
        classes: int = 0,
        scaled: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        checks.whole(
            channels=channels, patch=patch, **{f"widths[{i}]": width for i, width in enumerate(widths)}
        )
        checks.whole(0, classes=classes)
        checks.require(
            len(widths) > 0 and all(width % 8 == 0 for width in widths),
            f"widths must be multiples of 8, got {widths}",
        )
        self.channels, self.classes, self.patch = channels, classes, patch
        self.multiple = patch * 2 ** (len(widths) - 1)  # of which height and width must be
        g, code = generator, 4 * widths[0]
        self.time = SeededLinear(code, code, g)
        self.label: nn.Embedding | None = None
        if classes:
            rows = torch.randn(classes + 1, code, generator=g, device=g.device if g else None)
            self.label = nn.Embedding.from_pretrained(rows.to(self.time.weight.device), freeze=False)
        self.scale = zeroed(SeededLinear(code, code, g)) if scaled else None
        self.join = SeededLinear(code, code, g)
        self.enter = SeededConv(channels * patch**2, widths[0], 3, g)
        self.down = nn.ModuleList(_Block(a, b, code, g) for a, b in pairwise([widths[0], *widths]))
        self.attention = _Attention(widths[-1], g)
        self.middle = _Block(widths[-1], widths[-1], code, g)
        outs = [*reversed(widths[:-1]), widths[0]]
        self.up = nn.ModuleList(
            _Block(2 * a, b, code, g) for a, b in zip(reversed(widths), outs, strict=True)
        )
        self.norm = nn.GroupNorm(8, widths[0])
        self.leave = zeroed(SeededConv(widths[0], channels * patch**2, 3, g))

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        label: Tensor | None = None,
        scale: Tensor | float | None = None,
    ) -> Tensor:
        """The velocity (B, C, H, W) at images x and times t, told labels (B,); t and scale are scalars or (B,)."""
        checks.floating("images", x)
        checks.shaped("images", x, "B", self.channels, "H", "W")
        checks.require(
            x.shape[2] % self.multiple == 0 == x.shape[3] % self.multiple,
            f"height and width must be multiples of {self.multiple}, got {tuple(x.shape[2:])}",
        )
        code = self._code(x, t, label, scale)
        h = self.enter(pixel_unshuffle(x, self.patch))
        skips = []
        for level, block in enumerate(self.down):
            h = block(avg_pool2d(h, 2) if level else h, code)
            skips.append(h)
        h = self.middle(self.attention(h), code)
        for level, block in enumerate(self.up):
            if level:
                h = interpolate(h, scale_factor=2.0)
            h = block(torch.cat([h, skips.pop()], dim=1), code)
        return pixel_shuffle(self.leave(silu(self.norm(h))), self.patch)

    def _code(
        self, x: Tensor, t: Tensor | float, label: Tensor | None, scale: Tensor | float | None
    ) -> Tensor:
        """What the blocks are told besides the image (B, code)."""

        def circles(number: Tensor | float, fastest: float, slowest: float) -> Tensor:
            each = expand_time(number, x).reshape(-1).expand(len(x))
            return time_embedding(each, self.time.in_features, fastest=fastest, slowest=slowest).to(x.dtype)

        code = self.time(circles(t, 1000.0, 0.1))
        if self.label is not None:
            code = code + self._row(self.label, label, x)
        elif label is not None:
            raise ValueError("this network has no classes, so it takes no label")
        if self.scale is not None:
            checks.require(
                scale is not None, "this network needs scale=, a number or one for each image", TypeError
            )
            code = code + self.scale(circles(cast(Tensor | float, scale), 3.0, 0.03))
        elif scale is not None:
            raise ValueError("this network was made without scaled=True, so it takes no scale")
        return silu(self.join(silu(code)))

    def _row(self, embedding: nn.Embedding, label: Tensor | None, x: Tensor) -> Tensor:
        if label is None:
            label = torch.full((len(x),), self.classes, device=x.device)
        checks.integers("label", label)
        checks.shaped("label", label, len(x))
        try:
            return embedding(label.long())
        except IndexError as error:
            low, high = (int(end) for end in label.aminmax())
            raise ValueError(
                f"labels must be from 0 to {self.classes} (which says any), got values from {low} to {high}"
            ) from error


class _Block(nn.Module):
    """Two convolutions behind norms, the second norm scaled and shifted by the code, beside a direct way."""

    def __init__(self, inputs: int, outputs: int, code: int, generator: Generator | None) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(8, inputs)
        self.conv_1 = SeededConv(inputs, outputs, 3, generator)
        self.told = SeededLinear(code, 2 * outputs, generator)
        self.norm_2 = nn.GroupNorm(8, outputs)
        self.conv_2 = zeroed(SeededConv(outputs, outputs, 3, generator))
        self.direct = SeededConv(inputs, outputs, 1, generator) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, code) -> (B, outputs, H, W)."""
        scale, shift = self.told(code)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_1(silu(self.norm_1(x)))
        h = self.conv_2(silu(torch.addcmul(shift, self.norm_2(h), 1 + scale)))
        return self.direct(x) + h


class _Attention(nn.Module):
    """Every place looks at all others, in heads of 32 channels or fewer."""

    def __init__(self, width: int, generator: Generator | None) -> None:
        super().__init__()
        self.heads = max(width // 32, 1)
        self.norm = nn.GroupNorm(8, width)
        self.qkv = SeededConv(width, 3 * width, 1, generator)
        self.out = zeroed(SeededConv(width, width, 1, generator))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        q, k, v = (
            self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        )
        h = attention(q, k, v)  # (B, heads, H W, C / heads)
        return x + self.out(h.transpose(2, 3).reshape(x.shape))


class SeededConv(nn.Conv2d):
    """A padded convolution with torch's first weights, but drawn from the generator."""

    def __init__(
        self, inputs: int, outputs: int, size: int, generator: Generator | None, *, stride: int = 1
    ) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2)
        device, bound = generator.device if generator else None, (inputs * size**2) ** -0.5
        with torch.no_grad():
            for parameter in self.parameters():
                drawn = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def reset_parameters(self) -> None:
        """Nothing: torch's own would draw from the global generator."""
