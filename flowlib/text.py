"""Text as a field is told it: a sequence of vectors, and one that stands for all of it (chapter 10)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, gelu

from flowlib import checks
from flowlib.nets import SeededLinear, attention


class Text(NamedTuple):
    """What a text encoder says: tokens (B, L, d), one vector (B, p), and which tokens are no padding (B, L)."""

    sequence: Tensor
    pooled: Tensor
    mask: Tensor


class Tokenizer:
    """A word, a token: texts to numbers (B, length), of which 0 is padding and the empty text is nothing else.

    Args:
        words: all that it knows; word k has the number k + 1.
        length: tokens of a text; a shorter one is padded.

    >>> Tokenizer(["red", "circle"], 3)(["red circle", ""])
    tensor([[1, 2, 0],
            [0, 0, 0]])
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        checks.whole(length=length)
        self.words, self.length = tuple(words), length
        self._numbers = {word: k for k, word in enumerate(self.words, start=1)}
        checks.require(
            len(self._numbers) == len(self.words) and all(word.split() == [word] for word in self.words),
            "words must differ from one another, and have no space in them",
        )

    def __len__(self) -> int:
        """How many numbers there are, that of padding included."""
        return len(self.words) + 1

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The tokens (B, length) of the texts.

        Raises:
            ValueError: a text has a word that is not known, or too many words.
        """
        rows = torch.zeros(len(texts), self.length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self._number(word) for word in text.split()]
            checks.require(
                len(numbers) <= self.length, f"{text!r} has {len(numbers)} words, at most {self.length} fit"
            )
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return rows

    def decode(self, tokens: Tensor) -> list[str]:
        """The texts of tokens (B, length): the inverse."""
        return [" ".join(self.words[k - 1] for k in row if k) for row in tokens.tolist()]

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            near = difflib.get_close_matches(word, self.words, n=1, cutoff=0)
            raise ValueError(f"{word!r} is not among the {len(self.words)} words; the nearest is {near[0]!r}")
        return self._numbers[word]


class TextEncoder(nn.Module):
    r"""A small transformer: word and position as a vector, layers of attention and perceptron, their mean as pooled.

        h = words[tokens] + positions,    h = h + attention(norm(h)),  h = h + perceptron(norm(h))  for each layer

    Padding is a word like any other, as it is to Stable Diffusion 3, whose encoders pad with a token too; only the mean
    leaves it out.

    Args:
        vocabulary: how many tokens there are, `len(tokenizer)`.
        length: tokens of a text.
        width: d, of the sequence and of the pooled vector.
        heads, depth: of the attention, and how many layers.
        generator: the source of the first weights.

    >>> encoder = TextEncoder(32, 12, 40, heads=2, generator=torch.Generator().manual_seed(0))
    >>> [tuple(x.shape) for x in encoder(torch.ones(5, 12, dtype=torch.long))]
    [(5, 12, 40), (5, 40), (5, 12)]
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        *,
        heads: int = 4,
        depth: int = 1,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        checks.whole(vocabulary=vocabulary, length=length, width=width, heads=heads, depth=depth)
        checks.require(width % heads == 0, f"width must be a multiple of heads, got {width} and {heads}")
        device = generator.device if generator else None
        self.words = nn.Parameter(torch.randn(vocabulary, width, generator=generator, device=device))
        self.positions = nn.Parameter(torch.randn(length, width, generator=generator, device=device))
        self.layers = nn.ModuleList(_TextLayer(width, heads, generator) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Text:
        """What is to be said of tokens (B, L), whole numbers from 0, which is padding."""
        checks.integers("tokens", tokens)
        checks.shaped("tokens", tokens, "B", len(self.positions))
        h = embedding(tokens, self.words) + self.positions
        for layer in self.layers:
            h = layer(h)
        sequence, mask = self.norm(h), tokens != 0
        said = mask[:, :, None].to(h.dtype)
        return Text(sequence, (sequence * said).sum(1) / said.sum(1).clamp(min=1), mask)


class _TextLayer(nn.Module):
    """Attention of all tokens to all, and a perceptron on each, both on what is normalized."""

    def __init__(self, width: int, heads: int, generator: Generator | None) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = SeededLinear(width, 3 * width, generator)
        self.out = SeededLinear(width, width, generator)
        self.mlp_in = SeededLinear(width, 4 * width, generator)
        self.mlp_out = SeededLinear(4 * width, width, generator)

    def forward(self, h: Tensor) -> Tensor:
        """Like h, (B, L, d)."""
        qkv = self.qkv(self.norm_attention(h)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, d / heads) each
        h = h + self.out(attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.mlp_out(gelu(self.mlp_in(self.norm_mlp(h)), approximate="tanh"))


class CLIPText(nn.Module):
    """A text encoder of Hugging Face's transformers, CLIPTextModel or CLIPTextModelWithProjection, as one of ours.

    As in Stable Diffusion 3, the sequence is the last layer's input, and the pooled vector the projected one, if the
    model has a projection.

    Args:
        model: the encoder, which stays as it is and is not trained.

    Source: Esser et al. (2024), section 4.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Text:
        """What the model says of its tokenizer's `input_ids` and, as a mask, `attention_mask` (B, L)."""
        checks.integers("tokens", tokens)
        mask = torch.ones_like(tokens) if mask is None else mask
        out: Any = self.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
        return Text(out.hidden_states[-2], pooled, mask.bool())
