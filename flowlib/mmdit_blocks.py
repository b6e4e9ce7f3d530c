"""The parts of an MMDiT: images as sequences, adaLN-Zero, and two streams that meet in one attention (chapter 10)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import gelu, layer_norm, rms_norm

from flowlib.nets import SeededLinear, attention, zeroed

# Images as sequences


def patchify(x: Tensor, p: int) -> Tensor:
    """Images (B, c, h p, w p) as sequences of h w patches, row by row, each with its p p c values: (B, h w, p p c)."""
    B, c, height, width = x.shape
    x = x.reshape(B, c, height // p, p, width // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, -1, p * p * c)


def unpatchify(patches: Tensor, shape: torch.Size, p: int) -> Tensor:
    """The inverse of `patchify`: images of this shape (B, c, h p, w p)."""
    B, c, height, width = shape
    x = patches.reshape(B, height // p, width // p, p, p, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(shape)


def position_table(n: int, d: int, extent: float) -> Tensor:
    """Where each of n x n patches lies, (n, n, d): half of the channels say the column, the others the row.

    Each half holds the sines, then the cosines, of the position at d / 4 frequencies that fall from 1 to 1e-4; over the
    table the position grows from 0 to `extent`.
    """
    position = torch.arange(n, dtype=torch.float64) * extent / n
    angle = position[:, None] * 1e-4 ** torch.arange(0, 1, 4 / d, dtype=torch.float64)
    side = torch.cat([angle.sin(), angle.cos()], dim=1).float()  # (n, d / 2)
    return torch.cat([side.expand(n, n, -1), side[:, None].expand(n, n, -1)], dim=2)


def middle(table: Tensor, height: int, width: int) -> Tensor:
    """The positions of an image of height x width patches, (height width, d), out of the middle of the table."""
    n = len(table)
    top, left = (n - height) // 2, (n - width) // 2
    return table[top : top + height, left : left + width].reshape(height * width, -1)


# Layers


def embedder(inputs: int, d: int, generator: Generator | None, *, silent: bool = False) -> nn.Sequential:
    """A perceptron, from what the network is told into its width d; one that is silent answers zero at first."""
    last = SeededLinear(d, d, generator)
    return nn.Sequential(SeededLinear(inputs, d, generator), nn.SiLU(), zeroed(last) if silent else last)


class QKNorm(nn.RMSNorm):
    """Queries or keys at one length, over the channels of a head,

        y = weight x / sqrt(mean(x^2) + eps),

    in the dtype of x also under autocast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Like x (..., d / heads)."""
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: each token of x (B, N, d) normalized, then scaled and shifted as the conditioning says, (B, 1, d)."""
    return torch.addcmul(shift, layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


# A block


class TokenStream(nn.Module):
    """The weights that one modality has for itself in a block; a last one is read by the other, but not updated."""

    def __init__(
        self, d: int, heads: int, *, qk_norm: bool, generator: Generator | None, last: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.parts = heads, 2 if last else 6
        self.adaln = zeroed(SeededLinear(d, self.parts * d, generator))
        self.qkv = SeededLinear(d, 3 * d, generator)
        self.norm_q = QKNorm(d // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.norm_k = QKNorm(d // heads, eps=1e-6) if qk_norm else nn.Identity()
        if not last:
            self.out = SeededLinear(d, d, generator)
            self.mlp_in, self.mlp_out = SeededLinear(d, 4 * d, generator), SeededLinear(4 * d, d, generator)

    def modulation(self, c: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate for the attention, then for the perceptron, (B, 1, d) each; all 0 at first."""
        return self.adaln(c)[:, None].chunk(self.parts, dim=2)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three times (B, N, heads, d / heads), from tokens (B, N, d)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        return self.norm_q(q), self.norm_k(k), v

    def update(
        self, x: Tensor, seen: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, gate_mlp: Tensor
    ) -> Tensor:
        """x, plus what the attention saw, plus a perceptron of each token, both as far as their gates are open."""
        x = torch.addcmul(x, gate, self.out(seen))
        h = gelu(self.mlp_in(modulate(x, shift, scale)), approximate="tanh")
        return torch.addcmul(x, gate_mlp, self.mlp_out(h))


class JointBlock(nn.Module):
    """Two streams, x of the image and y of the text, with weights of their own and one attention over all tokens."""

    def __init__(
        self, d: int, heads: int, *, qk_norm: bool, generator: Generator | None, last: bool = False
    ) -> None:
        super().__init__()
        self.last = last
        self.image = TokenStream(d, heads, qk_norm=qk_norm, generator=generator)
        self.text = TokenStream(d, heads, qk_norm=qk_norm, generator=generator, last=last)

    def forward(self, x: Tensor, y: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, N, d) and y (B, L, d), changed as c (B, d) says; mask (B, 1, 1, N + L) is False for unseen tokens."""
        shift_x, scale_x, *rest_x = self.image.modulation(c)
        shift_y, scale_y, *rest_y = self.text.modulation(c)
        of_x = self.image.queries_keys_values(modulate(x, shift_x, scale_x))
        of_y = self.text.queries_keys_values(modulate(y, shift_y, scale_y))
        q, k, v = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(of_x, of_y, strict=True))
        seen = attention(q, k, v, mask).transpose(1, 2).flatten(2)  # (B, N + L, d)
        seen_x, seen_y = seen.split([x.shape[1], y.shape[1]], dim=1)
        x = self.image.update(x, seen_x, *rest_x)
        return x, y if self.last else self.text.update(y, seen_y, *rest_y)
