"""Checkpoints of chapter 10's networks that nobody trained: every weight is drawn, and none is zero."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Generator, nn

from flowcourse.shapes.model import CONFIG, TextToImage
from flowlib.autoencoder import Autoencoder


def drawn(net: nn.Module, seed: int) -> nn.Module:
    """The network with matrices of deviation 1 / sqrt(inputs), norms near 1, and biases of a tenth."""
    g = Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            z = torch.randn(p.shape, generator=g)
            if p.ndim > 1:
                p.copy_(
                    z * (p[0].numel() ** -0.5 if "text.words" not in name and "positions" not in name else 1)
                )
            else:
                p.copy_(1 + 0.1 * z if name.endswith("weight") else 0.1 * z)
    return net.eval().requires_grad_(False)


def write(folder: Path, *, student: bool = True) -> dict[str, nn.Module]:
    """Write the checkpoints and logs into the folder; the networks by name."""
    autoencoder = Autoencoder(generator=Generator().manual_seed(0))
    nets = {
        "autoencoder": drawn(autoencoder, 1),
        "model": drawn(TextToImage(generator=Generator().manual_seed(0)), 2),
        "student": drawn(
            TextToImage(replace(CONFIG, end_input=True), generator=Generator().manual_seed(0)), 3
        ),
    }
    if not student:
        del nets["student"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, net in [*nets.items(), ("decoder", autoencoder.decoder)]:
        state = {f"ema.{key}": x.contiguous() for key, x in net.state_dict().items()}
        settings = json.dumps({"steps": 200, "lr": 0.002, "group of text.words": 0})
        save_file(
            state | {"history": torch.zeros(200)}, folder / f"{name}.safetensors", {"settings": settings}
        )
        lines = [{"step": 100, "loss": 0.5, "seconds": 7.0}, {"step": 200, "loss": 0.25, "seconds": 14.5}]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return nets
