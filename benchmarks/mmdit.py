"""What a training step of our MMDiT costs beside diffusers' SD3Transformer2DModel with the same weights.

    python benchmarks/mmdit.py            # one CPU thread
    python benchmarks/mmdit.py --device cuda

Both are trained on the same noise with the flow matching loss and fused Adam, on batches of 96 latents 8 x 8 x 4 with
12 tokens of text, a few steps at a time, in turn, round after round. The table gives the median over rounds of the
ratio to diffusers' in that round, with its quartiles: for a whole step, the same in bfloat16 under autocast, and a
forward pass without gradients, which is what sampling costs. Needs `pip install diffusers`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from diffusers import SD3Transformer2DModel
from timing import Run, arguments, in_turn, ratio, steady
from torch import Generator, Tensor, nn

from flowlib.conventions import from_sd3
from flowlib.fields import Field
from flowlib.matching import cfm_loss
from flowlib.mmdit import MMDiT, MMDiTConfig
from flowlib.training import fused_adam

STEPS, BATCH, TOKENS, RATE = 2, 96, 12, 1e-4
CONFIG = MMDiTConfig(depth=4, heads=5, head_dim=32, text_dim=160, pooled_dim=160)


def both(device: str) -> tuple[dict[str, Field], list[nn.Module]]:
    """Two fields that are the same function, and their networks."""
    generator = Generator().manual_seed(0)
    ours, theirs = MMDiT(CONFIG, generator=generator), SD3Transformer2DModel(**CONFIG.to_diffusers())
    for parameter in ours.parameters():  # the gates too: what is multiplied by zero may be computed faster
        with torch.no_grad():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    theirs.load_state_dict(ours.to_diffusers_state_dict())
    ours, theirs = ours.to(device), theirs.to(device)

    def network(x: Tensor, timestep: Tensor, *, text: Tensor, pooled: Tensor) -> Tensor:
        return theirs(x, text, pooled, timestep, return_dict=False)[0]

    return {"diffusers": from_sd3(network), "flowlib": ours}, [theirs, ours]


def contenders(device: str) -> dict[str, Run]:
    generator = Generator(device).manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    x, pooled = noise(BATCH, CONFIG.in_channels, CONFIG.sample_size, CONFIG.sample_size), noise(BATCH, 160)
    cond = {"text": noise(BATCH, TOKENS, 160), "pooled": pooled}
    fields, networks = both(device)
    runs: dict[str, Run] = {}
    for (name, v), network in zip(fields.items(), networks, strict=True):
        optimizer = fused_adam(network.parameters(), lr=RATE)
        for kind in ("step", "step, bf16", "sample"):
            runs[f"{name}, {kind}"] = run(v, x, cond, optimizer, kind)
    return runs


def run(v: Field, x: Tensor, cond: dict[str, Tensor], optimizer: torch.optim.Optimizer, kind: str) -> Run:
    def sample() -> None:
        with torch.no_grad():
            for n in range(STEPS):
                v(x, n / STEPS, **cond)

    def step() -> None:
        for _ in range(STEPS):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=kind.endswith("bf16")):
                loss = cfm_loss(v, x, x_0=x.flip(0), **cond)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    chosen: Callable[[], None] = sample if kind == "sample" else step
    return chosen


def main() -> None:
    options = arguments(__doc__, rounds=15)
    torch.manual_seed(0)
    runs = contenders(options.device)
    in_turn(runs, options.device, rounds=1)  # warm-up
    times = in_turn(runs, options.device, options.rounds)
    print(f"{'contender':24s}{'ratio':>7s}{'quartiles':>14s}   ms")
    for name, seconds in times.items():
        bare = times["diffusers, " + name.split(", ", 1)[1]]
        print(f"{name:24s}{ratio(seconds, bare)}{1e3 * statistics.median(seconds) / STEPS:8.1f}")


if __name__ == "__main__":
    steady()
    main()
