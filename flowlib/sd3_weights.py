"""The weights of an MMDiT under diffusers' names and in Stable Diffusion 3's convention, and back (chapter 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from flowlib.nets import time_embedding

FIRST = "time_text_embed.timestep_embedder.linear_1.weight"  # the layer on top of the embedding of time
# Our names and theirs, {} being the number of a block. Where one of ours faces several, it is theirs stacked.
NAMES: dict[str, list[str]] = {
    "patch": ["pos_embed.proj"],
    "text": ["context_embedder"],
    "time.0": ["time_text_embed.timestep_embedder.linear_1"],
    "time.2": ["time_text_embed.timestep_embedder.linear_2"],
    "pooled.0": ["time_text_embed.text_embedder.linear_1"],
    "pooled.2": ["time_text_embed.text_embedder.linear_2"],
    "adaln": ["norm_out.linear"],
    "out": ["proj_out"],
    "blocks.{}.image.adaln": ["transformer_blocks.{}.norm1.linear"],
    "blocks.{}.image.qkv": [f"transformer_blocks.{{}}.attn.to_{name}" for name in "qkv"],
    "blocks.{}.image.norm_q": ["transformer_blocks.{}.attn.norm_q"],
    "blocks.{}.image.norm_k": ["transformer_blocks.{}.attn.norm_k"],
    "blocks.{}.image.out": ["transformer_blocks.{}.attn.to_out.0"],
    "blocks.{}.image.mlp_in": ["transformer_blocks.{}.ff.net.0.proj"],
    "blocks.{}.image.mlp_out": ["transformer_blocks.{}.ff.net.2"],
    "blocks.{}.text.adaln": ["transformer_blocks.{}.norm1_context.linear"],
    "blocks.{}.text.qkv": [f"transformer_blocks.{{}}.attn.add_{name}_proj" for name in "qkv"],
    "blocks.{}.text.norm_q": ["transformer_blocks.{}.attn.norm_added_q"],
    "blocks.{}.text.norm_k": ["transformer_blocks.{}.attn.norm_added_k"],
    "blocks.{}.text.out": ["transformer_blocks.{}.attn.to_add_out"],
    "blocks.{}.text.mlp_in": ["transformer_blocks.{}.ff_context.net.0.proj"],
    "blocks.{}.text.mlp_out": ["transformer_blocks.{}.ff_context.net.2"],
}


def to_diffusers(state: dict[str, Tensor], p: int) -> dict[str, Tensor]:
    """The state of an MMDiT with patches p x p as that of an SD3Transformer2DModel: see `_other_convention`."""
    theirs: dict[str, Tensor] = {}
    for name, parts in _pairs(state):
        if name in state:
            theirs |= dict(zip(parts, state[name].chunk(len(parts)), strict=True))
    theirs["pos_embed.pos_embed"] = state["positions"].flatten(0, 1)[None]
    patch = theirs["pos_embed.proj.weight"]  # (d, p p c), the kernel of a convolution
    theirs["pos_embed.proj.weight"] = patch.unflatten(1, (p, p, -1)).permute(0, 3, 1, 2)
    first = theirs[FIRST].unflatten(1, (2, -1))  # (d, 2, n), for the slowest n of 128 frequencies
    theirs[FIRST] = pad(first, (128 - first.shape[2], 0)).flatten(1)
    # copies, since a file of tensors refuses parts that share their memory
    return {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in _other_convention(theirs).items()
    }


def from_diffusers(state: dict[str, Tensor], frequencies: int) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`. ValueError if there are weights that an MMDiT has no place for."""
    theirs = _other_convention(state)
    fast, slow = theirs[FIRST].unflatten(1, (2, 128)).split([128 - frequencies, frequencies], dim=2)
    if fast.any():
        raise ValueError(f"these weights hear more than the slowest {frequencies} frequencies of time")
    theirs[FIRST] = slow.flatten(1)
    patch = theirs["pos_embed.proj.weight"]
    theirs["pos_embed.proj.weight"] = patch.permute(0, 2, 3, 1).flatten(1)
    table = theirs.pop("pos_embed.pos_embed")[0]  # (n n, d)
    ours = {"positions": table.unflatten(0, (math.isqrt(len(table)), -1))}
    for name, parts in _pairs(state):
        if parts[0] in theirs:
            ours[name] = torch.cat([theirs.pop(part) for part in parts])
    if theirs:
        raise ValueError(f"an MMDiT of Stable Diffusion 3 has no {', '.join(sorted(theirs))}")
    return ours


def _other_convention(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """From flowlib's time and sign to Stable Diffusion 3's, sigma = 1 - t and v_sd3 = -v, or back: twice is nothing.

    The sign turns the last layer. The time of each circle of the embedding runs backwards from where it ended: since
    cos(w - a) = cos w cos a + sin w sin a and sin(w - a) = sin w cos a - cos w sin a, the layer on top of it meets the
    embedding of sigma reflected. Besides, diffusers has scale and shift of the last norms the other way around.
    """
    d = theirs["proj_out.weight"].shape[1]
    turned = dict(theirs)
    for name, value in theirs.items():
        if name.startswith("proj_out."):
            turned[name] = -value
        elif "norm_out." in name or ("norm1_context." in name and len(value) == 2 * d):
            turned[name] = torch.cat([*reversed(value.chunk(2))])
    first = theirs[FIRST].cpu().double()
    turned[FIRST] = (first @ _reflection(first.shape[1])).to(theirs[FIRST])
    return turned


def _reflection(n: int) -> Tensor:
    """R (n, n) with time_embedding(t) = R time_embedding(1 - t); R R = 1."""
    cos, sin = (part.diag() for part in time_embedding(torch.ones(1, dtype=torch.float64), n)[0].chunk(2))
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([sin, -cos], dim=1)])


def _pairs(state: dict[str, Tensor]) -> Iterator[tuple[str, list[str]]]:
    """The name of every parameter of an MMDiT, and those of its parts, for as many blocks as the state has."""
    blocks = {name.split(".")[1] for name in state if name.startswith(("blocks.", "transformer_blocks."))}
    for name, parts in NAMES.items():
        for block in blocks if "{}" in name else [""]:
            for kind in ("weight", "bias"):
                yield f"{name.format(block)}.{kind}", [f"{part.format(block)}.{kind}" for part in parts]
