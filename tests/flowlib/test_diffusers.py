"""MMDiT and Euler's method against diffusers: the same function and the same samples from the same weights."""

from dataclasses import replace
from importlib import import_module
from types import ModuleType

import pytest
import safetensors.torch
import torch
from torch import Tensor

from flowlib.conventions import from_sd3, to_sd3
from flowlib.mmdit import MMDiT, MMDiTConfig
from flowlib.nets import time_embedding
from flowlib.solvers import EULER, odeint
from flowlib.times import shift
from tests.flowlib.known import cloud, generator

CONFIGS = {
    "as SD3": MMDiTConfig(8, 2, 4, 3, 3, 16, 20, 12, 6, qk_norm=None),
    "as SD3.5": MMDiTConfig(8, 2, 4, 3, 3, 16, 20, 12, 6, qk_norm="rms_norm"),
    "slow circles": MMDiTConfig(8, 2, 4, 2, 2, 8, 5, 7, 6, frequencies=64),
    "one block": MMDiTConfig(6, 1, 3, 1, 2, 8, 5, 7, 6),
    "large patches": MMDiTConfig(12, 3, 2, 2, 1, 24, 5, 7, 5),
}


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    """Imported for these tests alone, since it takes seconds."""
    return import_module("diffusers")


def pair(diffusers: ModuleType, config: MMDiTConfig, dtype: torch.dtype = torch.float32):
    """Our network and theirs with the same weights, of which none is zero: gates at rest would hide all errors."""
    net, g = MMDiT(config, generator=generator()), generator(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=g))
    with torch.random.fork_rng():  # it draws weights that are then replaced
        theirs = diffusers.SD3Transformer2DModel(**config.to_diffusers())
    net, theirs = net.to(dtype), theirs.to(dtype)
    theirs.load_state_dict(net.to_diffusers_state_dict(), strict=True)
    return net, theirs


def batch(config: MMDiTConfig, dtype: torch.dtype, height: int = 0, width: int = 0) -> tuple[Tensor, dict]:
    x = cloud(4, config.in_channels, height or config.sample_size, width or config.sample_size)
    text, pooled = cloud(4, 7, config.text_dim, seed=1), cloud(4, config.pooled_dim, seed=2)
    return x.to(dtype), {"text": text.to(dtype), "pooled": pooled.to(dtype)}


def as_network(theirs):
    """Their network, with our names for its conditions."""
    return lambda x, timestep, *, text, pooled: theirs(x, text, pooled, timestep).sample


@pytest.mark.parametrize("name", CONFIGS)
def test_both_answer_alike_in_float32(diffusers: ModuleType, name: str):
    net, theirs = pair(diffusers, CONFIGS[name])
    x, cond = batch(CONFIGS[name], torch.float32)
    timestep = 1000 * torch.rand(4, generator=generator(3))
    with torch.no_grad():
        ours = to_sd3(net)(x, timestep, **cond)
        reference = as_network(theirs)(x, timestep, **cond)
        again = net(x, 1 - timestep / 1000, **cond)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        from_sd3(as_network(theirs))(x, 1 - timestep / 1000, **cond), again, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_both_answer_alike_in_float64(diffusers: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch):
    """Theirs rounds times and the mean squares of queries and keys to float32, whatever its dtype: not here."""
    monkeypatch.setattr(
        diffusers.models.embeddings.Timesteps, "forward", lambda self, t: time_embedding(t / 1000, 256)
    )
    monkeypatch.setattr(
        diffusers.models.normalization.RMSNorm,
        "forward",
        lambda self, x: x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight,
    )
    net, theirs = pair(diffusers, CONFIGS[name], torch.float64)
    x, cond = batch(CONFIGS[name], torch.float64)
    timestep = 1000 * torch.rand(4, generator=generator(3), dtype=torch.float64)
    ours = to_sd3(net)(x, timestep, **cond)
    torch.testing.assert_close(ours, as_network(theirs)(x, timestep, **cond), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (12, 6), (2, 10)])
def test_images_of_other_sizes_have_the_same_positions(diffusers: ModuleType, height: int, width: int):
    net, theirs = pair(diffusers, CONFIGS["as SD3.5"])
    x, cond = batch(net.config, torch.float32, height, width)
    with torch.no_grad():
        ours, reference = (
            to_sd3(net)(x, 300.0, **cond),
            as_network(theirs)(x, torch.full((4,), 300.0), **cond),
        )
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_of_positions_is_theirs(diffusers: ModuleType, name: str):
    config = CONFIGS[name]
    with torch.random.fork_rng():
        theirs = diffusers.SD3Transformer2DModel(**config.to_diffusers()).pos_embed.pos_embed
    ours = MMDiT(config, generator=generator()).to_diffusers_state_dict()["pos_embed.pos_embed"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_come_back_from_there(diffusers: ModuleType, name: str):
    net, theirs = pair(diffusers, CONFIGS[name])
    twin = MMDiT(net.config, generator=generator(9))
    twin.load_diffusers_state_dict(theirs.state_dict())
    torch.testing.assert_close(twin.state_dict(), net.state_dict(), rtol=0, atol=1e-7)


def test_the_state_can_be_written_to_a_file():
    state = MMDiT(CONFIGS["as SD3.5"], generator=generator()).to_diffusers_state_dict()
    assert safetensors.torch.load(safetensors.torch.save(state)).keys() == state.keys()


def test_weights_without_a_place_are_named(diffusers: ModuleType):
    net, theirs = pair(diffusers, CONFIGS["as SD3"])
    state = theirs.state_dict()
    with pytest.raises(ValueError, match=r"has no transformer_blocks\.0\.attn2\.to_q\.weight"):
        net.load_diffusers_state_dict(state | {"transformer_blocks.0.attn2.to_q.weight": torch.zeros(1)})
    slow = MMDiT(replace(net.config, frequencies=64), generator=generator())
    with pytest.raises(ValueError, match="more than the slowest 64 frequencies"):
        slow.load_diffusers_state_dict(state)
    state.pop("context_embedder.bias")
    with pytest.raises(RuntimeError, match=r"Missing key.*text\.bias"):
        net.load_diffusers_state_dict(state)


@pytest.mark.parametrize("s", [1.0, 3.0])
def test_eulers_method_is_their_sampler(diffusers: ModuleType, s: float):
    """On the grid shift(., s), which their scheduler makes of evenly spaced sigmas: shifted by both, it would be 9."""
    net, theirs = pair(diffusers, CONFIGS["as SD3.5"])
    x, cond = batch(net.config, torch.float32)
    even = torch.linspace(0, 1, 9)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=s)
    scheduler.set_timesteps(sigmas=(1 - even[:-1]).tolist())
    grid = shift(even, s)
    torch.testing.assert_close(1 - scheduler.sigmas, grid, rtol=0, atol=1e-6)
    with torch.no_grad():
        ours, sample = odeint(net, x, times=grid, method=EULER, **cond), x
        for timestep in scheduler.timesteps:
            answer = as_network(theirs)(sample, timestep.expand(4), **cond)
            sample = scheduler.step(answer, timestep, sample).prev_sample
    torch.testing.assert_close(ours, sample, rtol=0, atol=1e-5)
