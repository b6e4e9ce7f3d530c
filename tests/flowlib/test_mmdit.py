"""MMDiT: its blocks from their formulas, what may and may not change its answer, and that it trains."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowlib.derivatives import divergence
from flowlib.flow_maps import eulerian_residual, jump, mean_flow_loss
from flowlib.matching import cfm_loss
from flowlib.mmdit import MMDiT, MMDiTConfig
from flowlib.mmdit_blocks import JointBlock, middle, patchify, position_table, unpatchify
from flowlib.solvers import EULER, odeint
from flowlib.times import logit_normal
from flowlib.training import cosine_decay, fit
from tests.flowlib.known import cloud, generator

SMALL = {"sample_size": 4, "in_channels": 2, "depth": 2, "heads": 2, "head_dim": 8, "text_dim": 6}
SMALL |= {"pooled_dim": 5, "pos_embed_max_size": 4}


def small(*, stirred: bool = True, **options) -> MMDiT:
    """A small network, with no parameter left at zero."""
    net = MMDiT(MMDiTConfig(**(SMALL | options)), generator=generator())
    return stir(net) if stirred else net


def stir(net: MMDiT) -> MMDiT:
    g = generator(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=g))
    return net


def batch(
    n: int = 3, *, dtype: torch.dtype = torch.float32, size: int = 4, tokens: int = 5
) -> tuple[Tensor, dict]:
    x, text, pooled = cloud(n, 2, size, size), cloud(n, tokens, 6, seed=1), cloud(n, 5, seed=2)
    return x.to(dtype), {"text": text.to(dtype), "pooled": pooled.to(dtype)}


# Images as sequences


def test_patches_are_squares_row_by_row():
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(x, 2)
    assert patches.shape == (2, 6, 12)
    for n in range(6):
        i, j = divmod(n, 3)
        square = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        assert torch.equal(patches[:, n], square.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(unpatchify(patches, x.shape, 2), x)


def test_positions_are_circles_of_column_and_row():
    table, d, n = position_table(6, 16, 4.0), 16, 6
    for i in range(n):
        for j in range(n):
            angles = [[4 * place / n * 1e-4 ** (k / 4) for k in range(4)] for place in (j, i)]
            expected = [f(a) for side in angles for f in (math.sin, math.cos) for a in side]
            torch.testing.assert_close(table[i, j], torch.tensor(expected), rtol=0, atol=1e-6)
    assert torch.equal(middle(table, 2, 4), table[2:4, 1:5].reshape(8, d))
    assert torch.equal(middle(table, 6, 6), table.reshape(36, d))


# A block


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Every token's (n, d) average of the values, by softmax(q k / sqrt(d / heads)), head by head."""
    out = []
    for q_h, k_h, v_h in zip(*(part.chunk(heads, dim=1) for part in (q, k, v)), strict=True):
        out.append(torch.softmax(q_h @ k_h.T / math.sqrt(q_h.shape[1]), dim=1) @ v_h)
    return torch.cat(out, dim=1)


def adapted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    centered = x - x.mean(1, keepdim=True)
    return centered / (centered.square().mean(1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift


def rooted(x: Tensor, weight: Tensor) -> Tensor:
    heads = x.unflatten(1, (-1, len(weight)))
    return (heads / (heads.square().mean(2, keepdim=True) + 1e-6).sqrt() * weight).flatten(1)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("last", [False, True])
def test_a_block_computes_its_formula(qk_norm: bool, last: bool):
    block = JointBlock(12, 3, qk_norm=qk_norm, generator=generator(), last=last).double()
    with torch.no_grad():
        for n, parameter in enumerate(block.parameters()):
            parameter.copy_(0.3 * cloud(*parameter.shape, seed=n))
    x, y, c = cloud(1, 4, 12), cloud(1, 2, 12, seed=1), cloud(1, 12, seed=2)
    queries, keys, values, rest = [], [], [], []
    for stream, tokens in ((block.image, x[0]), (block.text, y[0])):
        shift, scale, *gates = stream.adaln(c)[0].chunk(stream.parts)
        q, k, v = stream.qkv(adapted(tokens, shift, scale)).chunk(3, dim=1)
        if qk_norm:
            q, k = rooted(q, stream.norm_q.weight), rooted(k, stream.norm_k.weight)
        for group, part in zip((queries, keys, values, rest), (q, k, v, gates), strict=True):
            group.append(part)
    seen = attention(torch.cat(queries), torch.cat(keys), torch.cat(values), 3)
    ends = []
    for stream, tokens, part, gates in zip(
        (block.image, block.text), (x[0], y[0]), seen.split([4, 2]), rest, strict=True
    ):
        if gates:
            gate, shift, scale, gate_mlp = gates
            tokens = tokens + gate * stream.out(part)
            h = stream.mlp_in(adapted(tokens, shift, scale))
            h = h / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
            tokens = tokens + gate_mlp * stream.mlp_out(h)
        ends.append(tokens)
    out_x, out_y = block(x, y, c)
    torch.testing.assert_close(out_x[0], ends[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(out_y[0], ends[1], rtol=0, atol=1e-12)
    assert torch.equal(out_y, y) == last


# The network


def test_at_first_it_is_at_rest_and_everything_can_move():
    x, cond = batch()
    net = small(stirred=False)
    assert net(x, 0.5, **cond).abs().max() == 0
    stir(net)(x, 0.5, **cond).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    still = {name for name, p in net.named_parameters() if not p.grad.any()}
    assert still == {"blocks.1.text.norm_q.weight"}  # the last block's text asks, and nobody hears the answer


def test_every_input_counts():
    net, (x, cond) = small(), batch()
    first = net(x, 0.5, **cond)
    assert not torch.equal(net(x, 0.6, **cond), first)
    for name in cond:
        assert not torch.equal(net(x, 0.5, **(cond | {name: cond[name].flip(0)})), first)
    moved = x.clone()
    moved[:, :, 3, 3] += 1  # one pixel, seen by all patches
    assert ((net(moved, 0.5, **cond) - first).abs().amax(dim=(0, 1)) > 0).all()


def test_tokens_are_a_set_and_images_of_a_batch_are_strangers():
    net, (x, cond) = small().double(), batch(dtype=torch.float64)
    first = net(x, 0.5, **cond)
    shuffled = cond | {"text": cond["text"][:, [3, 0, 4, 1, 2]]}
    torch.testing.assert_close(net(x, 0.5, **shuffled), first, rtol=0, atol=1e-12)
    alone = net(x[1:2], 0.5, **{name: value[1:2] for name, value in cond.items()})
    torch.testing.assert_close(alone, first[1:2], rtol=0, atol=1e-12)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(net(x, times, **cond)[1:2], alone, rtol=0, atol=1e-12)


def test_what_is_masked_is_as_if_it_were_not_there():
    net, (x, cond) = small().double(), batch(dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])
    masked = net(x, 0.5, **cond, mask=mask)
    for n, length in enumerate((5, 2, 0)):
        short = {"text": cond["text"][n : n + 1, :length], "pooled": cond["pooled"][n : n + 1]}
        torch.testing.assert_close(masked[n : n + 1], net(x[n : n + 1], 0.5, **short), rtol=0, atol=1e-12)
    cond["text"] = torch.where(mask[:, :, None], cond["text"], 100.0)
    torch.testing.assert_close(net(x, 0.5, **cond, mask=mask), masked, rtol=0, atol=1e-12)


def test_a_smaller_image_lies_in_the_middle_of_a_larger_one():
    """Positions are cropped about the middle, so that the middle patches of both are at the same place."""
    net = small(sample_size=4).double()
    for height, width in ((2, 2), (4, 4), (4, 8), (8, 6)):
        x = cloud(1, 2, height, width)
        assert net(x, 0.5, text=cloud(1, 2, 6), pooled=cloud(1, 5)).shape == x.shape
    inner, outer = middle(net.positions, 2, 2), middle(net.positions, 4, 4).unflatten(0, (4, 4))
    assert torch.equal(inner.unflatten(0, (2, 2)), outer[1:3, 1:3])


def test_a_field_as_solvers_and_derivatives_want_it():
    net, (x, cond) = small().double(), batch(dtype=torch.float64)
    assert odeint(net, x, steps=3, **cond).shape == x.shape
    jacobian = torch.autograd.functional.jacobian(lambda y: net(y, 0.5, **cond).sum(0), x)
    trace = torch.einsum("chwbchw->b", jacobian)
    torch.testing.assert_close(divergence(net, x, 0.5, **cond), trace, rtol=1e-9, atol=1e-9)


# Precision


def test_time_is_exact_under_autocast():
    """In bfloat16, t and 1000 t would be off by radians: here the sinusoid alone is rounded."""
    net, (x, cond) = small(), batch()
    t = torch.tensor([0.1, 0.9007, 0.9993])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, t, **cond)
    assert rounded.dtype == x.dtype
    exact = net(x, t, **cond)
    size = exact.std()
    assert (rounded - exact).abs().max() < 0.1 * size
    assert (net(x, t.bfloat16().float(), **cond) - exact).abs().max() > 0.3 * size
    with pytest.raises(TypeError, match=r"times must be float32 or float64, got torch\.bfloat16"):
        net(x, t.bfloat16(), **cond)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_it_answers_in_the_dtype_of_its_points(dtype: torch.dtype):
    x, cond = batch(dtype=dtype)
    assert small().to(dtype)(x, 0.5, **cond).dtype == dtype


# What it may be told besides


def test_a_scale_and_an_end_say_nothing_until_they_are_learned():
    plain, (x, cond) = small(), batch()
    net = small(scale_input=True, end_input=True, stirred=False)
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == [] and {name.split(".")[0] for name in missing} == {"scale", "span"}
    first = plain(x, 0.3, **cond)
    for scale in (1.0, 7.0):
        torch.testing.assert_close(net(x, 0.3, scale=scale, **cond), first)
        torch.testing.assert_close(net(x, 0.3, 0.8, scale=scale, **cond), first)
    stir(net)
    scales = torch.tensor([1.0, 2.0, 7.0])
    each = torch.cat([net(x, 0.3, scale=float(w), **cond)[[n]] for n, w in enumerate(scales)])
    torch.testing.assert_close(net(x, 0.3, scale=scales, **cond), each)
    ends = torch.tensor([0.3, 0.5, 1.0])
    each = torch.cat([net(x, 0.3, float(end), scale=2.0, **cond)[[n]] for n, end in enumerate(ends)])
    torch.testing.assert_close(net(x, 0.3, ends, scale=2.0, **cond), each)
    torch.testing.assert_close(net(x, 0.3, 0.3, scale=2.0, **cond), net(x, 0.3, scale=2.0, **cond))
    assert (net(x, 0.3, 0.8, scale=2.0, **cond) - net(x, 0.3, scale=2.0, **cond)).abs().max() > 0.01


def test_forward_derivatives_pass_through_its_attention():
    """du/ds = v . grad u + partial_s u, against central differences."""
    net, (x, cond) = small(end_input=True).double(), batch(dtype=torch.float64)
    v = lambda x, s: torch.ones_like(x)  # noqa: E731
    u = lambda x, s, t: net(x, s, t, **cond)  # noqa: E731
    s, t, h = torch.tensor([0.1, 0.4, 0.7]).double(), torch.tensor([0.9, 0.5, 0.8]).double(), 1e-7
    slope = (u(x + h, s + h, t) - u(x - h, s - h, t)) / (2 * h)
    expected = u(x, s, t) - 1 - (t - s).reshape(-1, 1, 1, 1) * slope
    torch.testing.assert_close(eulerian_residual(u, v, x, s, t), expected, rtol=1e-5, atol=1e-5)


def test_a_mean_flow_loss_reaches_every_parameter_that_is_heard():
    net, (x, cond) = small(end_input=True), batch()
    mean_flow_loss(net, x, generator=generator(), **cond).backward()
    still = {name for name, p in net.named_parameters() if not p.grad.any()}
    assert still == {"blocks.1.text.norm_q.weight"}
    one = jump(net, x, steps=2, **cond)
    assert one.shape == x.shape and not torch.equal(one, odeint(net, x, steps=2, method=EULER, **cond))


def test_few_frequencies_of_time_are_the_slow_ones():
    """The answer to t changes at 10 radians per unit of time at most, where 128 frequencies reach 1000."""
    x, cond = batch(1, dtype=torch.float64)
    t = torch.linspace(0.3, 0.4, 1001, dtype=torch.float64)
    rates = []
    for n in (128, 64):
        net = small(frequencies=n).double()
        with torch.no_grad():
            c = torch.cat([net.conditioning(x, s, None, cond["pooled"], None) for s in t])
        rates.append(c.diff(dim=0).norm(dim=1).max())
    assert rates[0] > 20 * rates[1]


# Training


def shapes(n: int, g: torch.Generator) -> tuple[Tensor, dict]:
    """Images that a text describes: its tokens say how bright, its pooled vector how far the halves are apart."""
    text, pooled = torch.randn(n, 3, 6, generator=g), torch.randn(n, 5, generator=g)
    halves = torch.cat([torch.ones(2, 2, 4), -torch.ones(2, 2, 4)], dim=1)
    mean = text[:, :, 0].mean(1).reshape(-1, 1, 1, 1) + pooled[:, 0].reshape(-1, 1, 1, 1) * halves
    return mean + 0.1 * torch.randn(n, 2, 4, 4, generator=g), {"text": text, "pooled": pooled}


def painting_loss(v, g: torch.Generator) -> Tensor:
    x_1, cond = shapes(64, g)
    return cfm_loss(v, x_1, times=logit_normal(), generator=g, **cond)


def test_it_learns_what_the_text_says():
    net = small(stirred=False, head_dim=16)
    run = fit(
        net,
        painting_loss,
        steps=200,
        lr=1e-2,
        ema=0.98,
        schedule=cosine_decay,
        generator=generator(),
        progress=False,
    )
    x_1, cond = shapes(200, generator(7))
    with torch.no_grad(), run.ema.applied(net):
        x = odeint(net, torch.randn(200, 2, 4, 4, generator=generator(8)), steps=20, method=EULER, **cond)
    told = (x - x_1).square().mean() / x_1.square().mean()
    assert told < 0.1  # of one who has not read the text: at least 1


PROCESS = """
import sys
from pathlib import Path
import torch
from torch import distributed
from flowlib.training import cosine_decay, fit
from test_mmdit import painting_loss, small

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
net = small()
fit(net, painting_loss, steps=3, progress=False)
torch.save(net.state_dict(), folder / f"{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_train_one_network(tmp_path: Path):
    """Every parameter has a gradient in every step, or they would wait for one another."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, rank], env=environment, stderr=subprocess.PIPE) for rank in "01"]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    net, generators = small(), [generator(0), generator(1)]
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        (sum(painting_loss(net, g) for g in generators) / 2).backward()
        optimizer.step()
    for rank in "01":
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(state, dict(net.state_dict()), rtol=0, atol=1e-4)


# Making and asking


def test_weights_come_from_the_generator_and_copies_keep_them():
    before = torch.get_rng_state()
    net, (x, cond) = small(), batch()
    assert torch.equal(before, torch.get_rng_state())
    with torch.device("meta"):
        empty = MMDiT(net.config, generator=generator())
    assert all(tensor.is_meta for tensor in empty.parameters())
    empty.to_empty(device="cpu").load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), empty):
        assert torch.equal(twin(x, 0.5, **cond), net(x, 0.5, **cond))
    first, again = (small(stirred=False, scale_input=flag).state_dict() for flag in (False, True))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"depth": 0}, "depth=0"),
        ({"frequencies": 129}, "frequencies must be at most 128, got 129"),
        ({"heads": 2.0}, "heads=2.0"),
        ({"sample_size": 5}, "sample_size must be a multiple of patch_size, got 5 and 2"),
        ({"heads": 1, "head_dim": 6}, r"heads \* head_dim must be a multiple of 4, got 6"),
        ({"qk_norm": "layer_norm"}, "qk_norm must be \"rms_norm\" or None, got 'layer_norm'"),
    ],
)
def test_bad_sizes_are_refused(options: dict, match: str):
    with pytest.raises(ValueError, match=match):
        MMDiTConfig(**(SMALL | options))


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (
            ValueError,
            r"images must have shape \(B, 2, H, W\), got \(3, 3, 4, 4\)",
            {"x": torch.zeros(3, 3, 4, 4)},
        ),
        (ValueError, r"multiples of 2 up to 8, got \(4, 5\)", {"x": torch.zeros(3, 2, 4, 5)}),
        (ValueError, r"multiples of 2 up to 8, got \(10, 4\)", {"x": torch.zeros(3, 2, 10, 4)}),
        (TypeError, "images must be a floating-point tensor", {"x": torch.zeros(3, 2, 4, 4).long()}),
        (ValueError, r"text must have shape \(3, L, 6\), got \(3, 5, 7\)", {"text": torch.zeros(3, 5, 7)}),
        (ValueError, r"text must have shape \(3, L, 6\), got \(2, 5, 6\)", {"text": torch.zeros(2, 5, 6)}),
        (ValueError, r"pooled must have shape \(3, 5\), got \(1, 5\)", {"pooled": torch.zeros(1, 5)}),
        (ValueError, r"mask must have shape \(3, 5\), got \(3, 4\)", {"mask": torch.ones(3, 4).bool()}),
        (TypeError, "mask must be bool, got torch.float32", {"mask": torch.ones(3, 5)}),
        (ValueError, "one time for each of the 3 points", {"t": torch.zeros(2)}),
        (ValueError, r"an end needs MMDiTConfig\(end_input=True\)", {"end": 0.7}),
        (ValueError, r"scale= needs MMDiTConfig\(scale_input=True\)", {"scale": 3.0}),
    ],
)
def test_bad_calls_are_refused(error: type[Exception], match: str, change: dict):
    x, cond = batch()
    with pytest.raises(error, match=match):
        small()(**({"x": x, "t": 0.5} | cond | change))


def test_a_network_that_is_told_a_scale_asks_for_it():
    x, cond = batch()
    with pytest.raises(ValueError, match="pass scale=, 1 for no guidance"):
        small(scale_input=True)(x, 0.5, **cond)
    with pytest.raises(ValueError, match="not told scale and span, and has no weights for it"):
        small(scale_input=True, end_input=True).to_diffusers_state_dict()
