"""Networks: the time embedding's precision, and what a perceptron computes, draws and refuses."""

import copy
import math
import pickle

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlib.derivatives import divergence
from flowlib.nets import VelocityMLP, time_embedding
from flowlib.solvers import RK4, odeint


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def net(dimension: int = 2, **options) -> VelocityMLP:
    return VelocityMLP(dimension, **({"width": 16, "depth": 2, "generator": generator()} | options))


def linear_layers(v: VelocityMLP) -> list[nn.Linear]:
    return [module for module in v.modules() if isinstance(module, nn.Linear)]


# Time


def test_the_embedding_is_that_of_ddpm():
    t = torch.tensor([0.0, 0.1234, 1.0], dtype=torch.float64)
    frequencies = [1000 * 10_000 ** (-k / 4) for k in range(4)]
    expected = [
        [math.cos(w * s) for w in frequencies] + [math.sin(w * s) for w in frequencies] for s in t.tolist()
    ]
    torch.testing.assert_close(
        time_embedding(t, 8), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-11
    )


def test_rounding_to_bfloat16_comes_after_the_sinusoid():
    t = torch.rand(2000, generator=generator())
    exact = time_embedding(t.double(), 64)
    rounded = time_embedding(t, 64, dtype=torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().max() < 2**-9 + 1e-4  # half of the last place of 1, and float32's angle
    too_early = torch.cos((1000 * t).bfloat16().float())
    assert (too_early - exact[:, 0]).abs().max() > 1  # what the rounding of the angle would cost


@pytest.mark.parametrize(
    ("error", "match", "t", "options"),
    [
        (TypeError, "bfloat16", torch.zeros(3).bfloat16(), {}),
        (TypeError, "int64", torch.zeros(3, dtype=torch.int64), {}),
        (TypeError, "bool", torch.zeros(3, dtype=torch.bool), {}),
        (TypeError, "float", 0.5, {}),
        (TypeError, "got torch.int32", torch.zeros(3), {"dtype": torch.int32}),
        (ValueError, "dimension=8.0", torch.zeros(3), {"dimension": 8.0}),
        (ValueError, "slowest=nan", torch.zeros(3), {"slowest": math.nan}),
        (ValueError, r"\(3, 1\)", torch.zeros(3, 1), {}),
        (ValueError, r"\(\)", torch.zeros(()), {}),
        (ValueError, "got 7", torch.zeros(3), {"dimension": 7}),
        (ValueError, "dimension=0", torch.zeros(3), {"dimension": 0}),
        (ValueError, "slowest=0", torch.zeros(3), {"slowest": 0.0}),
        (ValueError, "fastest=inf", torch.zeros(3), {"fastest": math.inf}),
    ],
)
def test_times_that_cannot_be_embedded_are_refused(
    error: type[Exception], match: str, t: Tensor, options: dict
):
    with pytest.raises(error, match=match):
        time_embedding(t, **({"dimension": 8} | options))


# The perceptron


def test_it_computes_the_formula():
    v, x = net(), torch.randn(5, 2, generator=generator(1))
    t = torch.rand(5, generator=generator(2))
    h = torch.cat([x, t[:, None]], dim=1)
    *hidden, last = linear_layers(v)
    for layer in hidden:
        h = h @ layer.weight.T + layer.bias
        h = h * torch.sigmoid(h)
    torch.testing.assert_close(v(x, t), h @ last.weight.T + last.bias)
    assert [tuple(layer.weight.shape) for layer in (*hidden, last)] == [(16, 3), (16, 16), (2, 16)]


def test_a_scalar_time_is_everyones():
    v, x = net(), torch.randn(5, 2, generator=generator(1))
    for t in (0.3, torch.tensor(0.3)):
        assert torch.equal(v(x, t), v(x, torch.full((5,), 0.3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_it_answers_in_the_dtype_of_its_points(dtype: torch.dtype):
    assert net().to(dtype)(torch.zeros(3, 2, dtype=dtype), 0.5).dtype == dtype


def test_solvers_and_divergence_take_it():
    v, x = net(3).double(), torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    there = odeint(v, x, steps=20, method=RK4)
    torch.testing.assert_close(odeint(v, there, t0=1.0, t1=0.0, steps=20, method=RK4), x, rtol=0, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda y: v(y, 0.5).sum(0), x)  # (3, 4, 3)
    torch.testing.assert_close(divergence(v, x, 0.5), torch.einsum("ibi->b", jacobian))


def test_weights_come_from_the_generator_with_torchs_own_law():
    state = torch.get_rng_state()
    nets = [net(width=400, generator=generator(seed)) for seed in (0, 0, 1)]
    first, again, other = (linear_layers(v)[1].weight.detach() for v in nets)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)
    with torch.random.fork_rng():
        reference = nn.Linear(400, 400).weight.detach()
    assert first.shape == reference.shape
    assert float(first.std() / reference.std()) == pytest.approx(1, abs=0.01)
    assert float(first.abs().max()) == pytest.approx(1 / 20, rel=1e-3)


def test_labels_choose_the_field_and_none_means_any():
    v, x = net(classes=3), torch.randn(4, 2, generator=generator(1))
    fields = torch.stack([v(x, 0.5, labels=torch.full((4,), k)) for k in range(4)])
    assert all(not torch.equal(fields[i], fields[j]) for i in range(4) for j in range(i))
    labels = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(v(x, 0.5, labels=labels), fields[labels, torch.arange(4)])
    assert torch.equal(v(x, 0.5), fields[3])


def test_labels_are_learned():
    v = net(classes=3)
    v(torch.zeros(4, 2), 0.5, labels=torch.tensor([2, 0, 2, 0])).sum().backward()
    assert (v.label.weight.grad != 0).any(1).tolist() == [True, False, True, False]


def test_classes_do_not_change_the_other_weights():
    for mine, theirs in zip(linear_layers(net(classes=3)), linear_layers(net()), strict=True):
        assert torch.equal(mine.weight, theirs.weight) and torch.equal(mine.bias, theirs.bias)


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("dimension=0", {"dimension": 0}),
        ("depth=0", {"depth": 0}),
        ("width=-1", {"width": -1}),
        ("-2", {"classes": -2}),
        ("classes=3.0", {"classes": 3.0}),
        ("width=16.0", {"width": 16.0}),
    ],
)
def test_bad_sizes_are_refused(match: str, options: dict):
    with pytest.raises(ValueError, match=match):
        net(**options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_labels_are_whole_numbers_of_any_dtype(dtype: torch.dtype):
    v, x, labels = net(classes=3), torch.randn(4, 2, generator=generator(1)), torch.tensor([2, 0, 3, 1])
    assert torch.equal(v(x, 0.5, labels=labels.to(dtype)), v(x, 0.5, labels=labels))


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(4).bool(), [0, 1, 2, 0]], ids=str)
def test_labels_that_are_no_whole_numbers_are_refused(labels: object):
    with pytest.raises(TypeError, match=r"labels must be integers, got (torch.float32|torch.bool|list)"):
        net(classes=3)(torch.zeros(4, 2), 0.5, labels=labels)


@pytest.mark.parametrize("bad", [-1, 4, 1000])
def test_labels_out_of_range_are_refused(bad: int):
    with pytest.raises(ValueError, match=rf"from 0 to 3 \(which says any\), got values .*{bad}"):
        net(classes=3)(torch.zeros(4, 2), 0.5, labels=torch.tensor([1, 2, bad, 1]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_points_that_are_whole_numbers_are_refused(dtype: torch.dtype):
    with pytest.raises(TypeError, match=f"points must be a floating-point tensor, got {dtype}"):
        net()(torch.zeros(4, 2, dtype=dtype), 0.5)


def test_whole_times_are_times_and_half_precision_ones_are_refused():
    v, x = net(), torch.randn(4, 2, generator=generator(1))
    assert torch.equal(v(x, 1), v(x, 1.0)) and torch.equal(v(x, torch.ones(4, dtype=torch.int64)), v(x, 1.0))
    with pytest.raises(TypeError, match=r"times must be float32 or float64, got torch\.bfloat16"):
        v(x, torch.ones(4).bfloat16())


def test_copies_and_pickles_keep_it_and_any_device_holds_it():
    v, x, labels = net(classes=3), torch.randn(4, 2, generator=generator(1)), torch.tensor([2, 0, 3, 1])
    with torch.device("meta"):  # while the generator lives on the CPU
        empty = net(classes=3)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert empty(x.to("meta"), 0.5, labels=labels.to("meta")).shape == (4, 2)
    assert time_embedding(torch.zeros(3, device="meta"), 8).is_meta
    empty.to_empty(device="cpu").load_state_dict(v.state_dict())
    for twin in (copy.deepcopy(v), pickle.loads(pickle.dumps(v)), empty):
        assert torch.equal(twin(x, 0.5, labels=labels), v(x, 0.5, labels=labels))


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 2\), got \(4, 3\)"):
        net()(torch.zeros(4, 3), 0.5)
    with pytest.raises(ValueError, match="no classes"):
        net()(torch.zeros(4, 2), 0.5, labels=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(4,\), got \(3,\)"):
        net(classes=2)(torch.zeros(4, 2), 0.5, labels=torch.zeros(3, dtype=torch.int64))
