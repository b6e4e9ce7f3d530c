"""MMDiT, the transformer of Stable Diffusion 3, as a field: text and image as two streams (chapter 10)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import silu

from flowlib import checks, sd3_weights
from flowlib.fields import expand_time
from flowlib.mmdit_blocks import (
    JointBlock,
    embedder,
    middle,
    modulate,
    patchify,
    position_table,
    unpatchify,
)
from flowlib.nets import SeededLinear, time_embedding, zeroed

CIRCLES = (
    256  # coordinates that say a length of time or a guidance scale: cosines and sines at 128 frequencies
)
SLOW = {
    "fastest": 10.0,
    "slowest": 0.01,
}  # in which answers change slowly


@dataclass(frozen=True)
class MMDiTConfig:
    """The sizes of an MMDiT; the defaults are those of a small one.

    Args:
        sample_size: height and width of the images it is trained on: the unit of the positions.
        patch_size: the side of the squares that become tokens.
        in_channels: of the images, or latents.
        depth: how many blocks.
        heads, head_dim: of the attention; the network's width is their product, a multiple of 4.
        text_dim, pooled_dim: of a token of the text, and of the vector that stands for all of it.
        pos_embed_max_size: the side, in patches, of the table of positions; no image may be larger.
        qk_norm: "rms_norm" keeps queries and keys at one length, lest the attention saturate in half precision.
        frequencies: how many of SD3's 128 the embedding of time has, the slowest ones: 128 reach 1000 radians per unit
            of time, 64 reach 10. A network that is to be differentiated in time wants few.
        scale_input: whether the network is told a guidance scale, to answer in one pass as guidance does in two.
        end_input: whether it is told a second time, to answer with the average velocity up to it.
    """

    sample_size: int = 8
    patch_size: int = 2
    in_channels: int = 4
    depth: int = 4
    heads: int = 5
    head_dim: int = 32
    text_dim: int = 160
    pooled_dim: int = 160
    pos_embed_max_size: int = 8
    qk_norm: Literal["rms_norm"] | None = "rms_norm"
    frequencies: int = 128
    scale_input: bool = False
    end_input: bool = False

    def __post_init__(self) -> None:
        checks.whole(**{name: n for name, n in vars(self).items() if not name.endswith(("_norm", "_input"))})
        checks.require(self.frequencies <= 128, f"frequencies must be at most 128, got {self.frequencies}")
        checks.require(self.width % 4 == 0, f"heads * head_dim must be a multiple of 4, got {self.width}")
        checks.require(
            self.sample_size % self.patch_size == 0,
            f"sample_size must be a multiple of patch_size, got {self.sample_size} and {self.patch_size}",
        )
        checks.require(
            self.qk_norm in ("rms_norm", None), f'qk_norm must be "rms_norm" or None, got {self.qk_norm!r}'
        )

    @property
    def width(self) -> int:
        """The channels of a token, d."""
        return self.heads * self.head_dim

    def to_diffusers(self) -> dict[str, Any]:
        """The arguments of diffusers' SD3Transformer2DModel that give it these sizes."""
        return {
            "sample_size": self.sample_size,
            "patch_size": self.patch_size,
            "in_channels": self.in_channels,
            "out_channels": self.in_channels,
            "num_layers": self.depth,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_dim,
            "joint_attention_dim": self.text_dim,
            "caption_projection_dim": self.width,
            "pooled_projection_dim": self.pooled_dim,
            "pos_embed_max_size": self.pos_embed_max_size,
            "qk_norm": self.qk_norm,
        }


class MMDiT(nn.Module):
    r"""A field on images (B, c, H, W) that is told a text, as a sequence of tokens and as one vector, pooled from it:

        c = silu(e_time(t) + e_pooled(pooled)),    x = W_patch patches + positions,    y = W_text text,
        x, y = block(x, y, c)  for each block,     v = W adaLN(x, c),  put together as an image.

    W is 0 at first, and so is v. Time and sign are flowlib's: t = 1 at the data, v = E[x_1 - x_0 | x_t = x].

    Args:
        config: the sizes.
        generator: the source of the first weights.

    Source: Esser et al. (2024), section 4; Peebles & Xie (2023), section 3.2, for adaLN-Zero.

    >>> net = MMDiT(MMDiTConfig(depth=2), generator=torch.Generator().manual_seed(0))
    >>> x, text, pooled = torch.zeros(3, 4, 8, 8), torch.zeros(3, 12, 160), torch.zeros(3, 160)
    >>> net(x, 0.5, text=text, pooled=pooled).shape
    torch.Size([3, 4, 8, 8])
    """

    positions: Tensor

    def __init__(self, config: MMDiTConfig, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.config, d, p = config, config.width, config.patch_size
        self.patch = SeededLinear(p * p * config.in_channels, d, generator)
        table = position_table(config.pos_embed_max_size, d, config.sample_size / p)
        self.register_buffer("positions", table)
        self.text = SeededLinear(config.text_dim, d, generator)
        self.time = embedder(2 * config.frequencies, d, generator)
        self.pooled = embedder(config.pooled_dim, d, generator)
        self.blocks = nn.ModuleList(
            JointBlock(d, config.heads, qk_norm=bool(config.qk_norm), generator=generator, last=last)
            for last in [False] * (config.depth - 1) + [True]
        )
        self.adaln = zeroed(SeededLinear(d, 2 * d, generator))
        self.out = zeroed(SeededLinear(d, p * p * config.in_channels, generator))
        # Both answer zero at first: with the weights of a network without them, this one starts as that network.
        self.scale = embedder(CIRCLES, d, generator, silent=True) if config.scale_input else None
        self.span = embedder(CIRCLES, d, generator, silent=True) if config.end_input else None

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        end: Tensor | float | None = None,
        *,
        text: Tensor,
        pooled: Tensor,
        mask: Tensor | None = None,
        scale: Tensor | float | None = None,
    ) -> Tensor:
        """The velocity, like x, at images x and times t; with an end, the average velocity from t to there.

        Args:
            x: (B, c, H, W); other sizes than the training images' have the positions around theirs.
            t, end: times, scalars or (B,), in float32 at least; without an end, it is t.
            text: tokens (B, L, text_dim).
            pooled: (B, pooled_dim).
            mask: (B, L), False where the text is padding, which nobody is to see.
            scale: the guidance scale, a scalar or (B,), of a network that is told it.
        """
        self._check(x, text, pooled, mask)
        p, (height, width) = self.config.patch_size, x.shape[2:]
        c = silu(self.conditioning(x, t, end, pooled, scale))  # (B, d)
        x_tokens = self.patch(patchify(x, p)) + middle(self.positions, height // p, width // p)  # (B, N, d)
        y = self.text(text)  # (B, L, d)
        if mask is not None:
            mask = torch.cat([mask.new_ones(x_tokens.shape[:2]), mask], dim=1)[:, None, None]
        # fused attention has no forward derivative, which the losses of average velocities need
        with nullcontext() if end is None else sdpa_kernel(SDPBackend.MATH):
            for block in self.blocks:
                x_tokens, y = block(x_tokens, y, c, mask)
        shift, factor = self.adaln(c)[:, None].chunk(2, dim=2)
        return unpatchify(self.out(modulate(x_tokens, shift, factor)), x.shape, p).to(x.dtype)

    def conditioning(
        self,
        x: Tensor,
        t: Tensor | float,
        end: Tensor | float | None,
        pooled: Tensor,
        scale: Tensor | float | None,
    ) -> Tensor:
        """What holds for all tokens (B, d): the sum of a perceptron's answers to each number and to the pooled text."""
        t = expand_time(t, x).reshape(-1).expand(len(x))
        dtype = self.patch.weight.dtype
        n = self.config.frequencies
        circles = time_embedding(t, 2 * n, fastest=1000 * 1e-4 ** (1 - n / 128), dtype=dtype)
        c = self.time(circles) + self.pooled(pooled)
        if self.span is not None:
            span = torch.zeros_like(t) if end is None else expand_time(end, x).reshape(-1) - t
            c = c + self.span(time_embedding(span, CIRCLES, **SLOW, dtype=dtype))
        elif end is not None:
            raise ValueError("this network is told one time only: an end needs MMDiTConfig(end_input=True)")
        if self.scale is not None:
            checks.require(
                scale is not None, "this network is told a guidance scale: pass scale=, 1 for no guidance"
            )
            scales = expand_time(cast(float, scale), x).reshape(-1).expand(len(x))
            c = c + self.scale(time_embedding(scales, CIRCLES, **SLOW, dtype=dtype))
        elif scale is not None:
            raise ValueError(
                "this network is told no guidance scale: scale= needs MMDiTConfig(scale_input=True)"
            )
        return c

    def to_diffusers_state_dict(self) -> dict[str, Tensor]:
        """The weights with which diffusers' SD3Transformer2DModel, of `config.to_diffusers()`, is `to_sd3` of this."""
        said = [name for name in ("scale", "span") if getattr(self, name) is not None]
        checks.require(
            not said, f"Stable Diffusion 3 is not told {' and '.join(said)}, and has no weights for it"
        )
        return sd3_weights.to_diffusers(self.state_dict(), self.config.patch_size)

    def load_diffusers_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse: take the weights of an SD3Transformer2DModel of these sizes."""
        self.load_state_dict(sd3_weights.from_diffusers(state, self.config.frequencies))

    def _check(self, x: Tensor, text: Tensor, pooled: Tensor, mask: Tensor | None) -> None:
        checks.floating("images", x)
        checks.shaped("images", x, "B", self.config.in_channels, "H", "W")
        p, n = self.config.patch_size, self.config.pos_embed_max_size
        if any(side % p or not 0 < side <= n * p for side in x.shape[2:]):
            raise ValueError(
                f"the sides of the images must be multiples of {p} up to {n * p}, got {tuple(x.shape[2:])}"
            )
        checks.shaped("text", text, len(x), "L", self.config.text_dim)
        checks.shaped("pooled", pooled, len(x), self.config.pooled_dim)
        if mask is not None:
            checks.require(mask.dtype == torch.bool, f"mask must be bool, got {mask.dtype}", TypeError)
            checks.shaped("mask", mask, len(x), text.shape[1])
