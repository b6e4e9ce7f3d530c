"""The average of the weights: in closed form, in every dtype, and in networks that change under it."""

import copy
import math
import pickle

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlib.averaging import EMA
from flowlib.nets import VelocityMLP
from flowlib.training import fit


def small_net() -> VelocityMLP:
    return VelocityMLP(2, width=8, depth=2, generator=Generator().manual_seed(0))


class Weight(nn.Module):
    """One number, and a buffer that counts."""

    def __init__(self, value: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(value, dtype=dtype))
        self.register_buffer("count", torch.tensor(0))

    def forward(self) -> Tensor:
        return self.w


def test_the_warm_up_forgets_the_first_weights():
    net = Weight(1.0)
    average = EMA(net, 0.9999)
    with torch.no_grad():
        net.w.zero_()
    for n in range(1, 30):
        average.update()
        # the product of (1 + k) / (10 + k) over k < n
        assert float(average.tensors["w"]) == pytest.approx(1 / math.comb(n + 9, 9), rel=1e-4)


def test_after_the_warm_up_old_weights_fade_exponentially():
    net = Weight(1.0)
    average = EMA(net, 0.9)
    for _ in range(81):  # from then on (1 + n) / (10 + n) exceeds 0.9
        average.update()
    with torch.no_grad():
        net.w.zero_()
    for n in range(1, 30):
        average.update()
        assert float(average.tensors["w"]) == pytest.approx(0.9**n, rel=1e-5)


def test_the_average_of_half_precision_weights_is_kept_in_float32():
    net = Weight(1.0, torch.bfloat16)
    average = EMA(net, 0.999)
    average.updates = 100_000  # past the warm-up
    with torch.no_grad():
        net.w.fill_(1.0078125)  # one unit in the last place
    for _ in range(1000):
        average.update()
    kept = average.tensors["w"]
    assert kept.dtype == torch.float32
    assert float(kept) == pytest.approx(1 + 0.0078125 * (1 - 0.999**1000), abs=1e-5)


def test_buffers_are_copied_as_they_are():
    net = Weight()
    average = EMA(net)
    net.count = net.count + 5  # another tensor under the same name
    assert average.tensors["count"] == 0
    average.update()
    assert average.tensors["count"] == 5 and average.tensors["count"].dtype == torch.int64


def test_applied_lends_the_average_and_gives_everything_back():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    net[0].eval()  # a frozen layer in a network that trains
    average = EMA(net, 0.0)
    with torch.no_grad():
        net[0].weight += 1
    before = copy.deepcopy(net.state_dict())

    def use() -> None:
        with average.applied(net):
            assert torch.equal(net[0].weight, torch.ones(3))
            assert not any(module.training for module in net.modules())
            net.train()
            net(torch.arange(12.0).reshape(4, 3)).sum()  # moves the running statistics
            raise InterruptedError

    with torch.random.fork_rng(), pytest.raises(InterruptedError):
        use()
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert [module.training for module in net.modules()] == [True, False, True]
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_a_buffer_assigned_anew_while_the_average_is_lent_is_given_back_too():
    net = Weight()
    average = EMA(net)
    with average.applied(net):
        net.count = net.count + 5  # another tensor under the same name
    assert net.count == 0


def test_wrappers_do_not_change_the_names():
    net = small_net()
    wrapped = nn.Module()
    wrapped._orig_mod = net  # what torch.compile returns holds the network under this name
    assert EMA(wrapped).tensors.keys() == EMA(net).tensors.keys() == dict(net.named_parameters()).keys()
    average = EMA(wrapped, 0.0)
    with average.applied(net):
        pass
    assert EMA(nn.DataParallel(net)).tensors.keys() == EMA(net).tensors.keys()
    partly = nn.Sequential(wrapped, small_net())  # one block of a network that is compiled
    assert set(EMA(partly).tensors) == set(dict(nn.Sequential(net, small_net()).named_parameters()))


def test_a_part_that_is_called_module_keeps_its_name():
    net = Weight(1.0)
    net.module = Weight(2.0)
    average = EMA(net, 0.0)
    assert {name: float(x) for name, x in average.tensors.items()} == {
        "w": 1,
        "module.w": 2,
        "count": 0,
        "module.count": 0,
    }


def test_the_average_of_another_network_is_refused():
    with (
        pytest.raises(ValueError, match="the average does not fit the network"),
        EMA(Weight()).applied(small_net()),
    ):
        pass


def test_decay_is_in_the_half_open_interval():
    assert EMA(Weight(), 0.0).decay == 0
    for decay in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
            EMA(Weight(), decay)


def test_a_parameter_assigned_anew_is_followed_by_its_name():
    net = nn.Sequential(Weight(1.0))
    average = EMA(net, 0.5)
    net[0].w = nn.Parameter(torch.tensor(3.0))
    assert average.renewed() == ["0.w"]
    average.update()  # decay_0 = 1/10
    assert average.renewed() == []
    assert float(average.tensors["0.w"]) == pytest.approx(0.1 * 1 + 0.9 * 3)
    net.load_state_dict({"0.w": torch.tensor(5.0), "0.count": torch.tensor(7)}, assign=True)
    average.update()  # decay_1 = 2/11
    assert float(average.tensors["0.w"]) == pytest.approx(2 / 11 * 2.8 + 9 / 11 * 5)
    assert average.tensors["0.count"] == 7 and average.updates == 2


def test_a_module_assigned_anew_is_followed_by_its_name():
    net = nn.Sequential(nn.Sequential(Weight(1.0)))
    average = EMA(net, 0.5)
    net[0] = nn.Sequential(Weight(3.0))
    net[0][0].count += 4
    assert average.renewed() == ["0.0.w"]
    average.update()
    assert float(average.tensors["0.0.w"]) == pytest.approx(2.8) and average.tensors["0.0.count"] == 4
    net[0] = nn.Identity()
    with pytest.raises(ValueError, match=r"0\.0\.w is now gone"):
        average.update()


def test_a_parameter_that_has_gone_or_changed_its_form_is_refused_by_name():
    net = Weight(1.0)
    average = EMA(net)
    net.w = nn.Parameter(torch.ones(1))  # would be broadcast
    with pytest.raises(
        ValueError, match=r"cannot follow.*w is now \(\(1,\), 'cpu'\), expected \(\(\), 'cpu'\)"
    ):
        average.update()
    del net.w
    with pytest.raises(ValueError, match="w is now gone"):
        average.update()
    net = Weight(1.0)
    average = EMA(net)
    net.w.data = torch.ones(2, 3)  # the same object
    with pytest.raises(ValueError, match=r"w is now \(\(2, 3\), 'cpu'\)"):
        average.update()
    assert average.updates == 0 and average.tensors["w"] == 1
    net = Weight(1.0)
    average = EMA(net)
    net.to("meta")
    with pytest.raises(
        ValueError, match=r"'meta'.*make the EMA when the network has its parameters and its device"
    ):
        average.update()


def test_a_network_without_values_is_refused():
    with pytest.raises(ValueError, match=r"no values yet for \['weight', 'bias'\]: call it once"):
        EMA(nn.LazyLinear(3))


def test_buffers_may_come_go_and_grow():
    net = Weight()
    net.register_buffer("stored", None)
    net.register_buffer("gone", torch.zeros(1))
    average = EMA(net)
    assert set(average.tensors) == {"w", "count", "gone"}
    net.stored, net.count = torch.ones(2), torch.zeros(3)
    del net.gone
    average.update()
    assert {name: x.tolist() for name, x in average.tensors.items()} == {
        "w": 0,
        "count": [0, 0, 0],
        "stored": [1, 1],
    }
    bare = nn.LayerNorm(1)
    average = EMA(bare)
    average.update()
    bare.register_buffer("late", torch.ones(2))
    with average.applied(bare):
        pass
    assert average.tensors["late"].tolist() == [1, 1]


def test_buffers_that_are_not_persistent_are_given_back_but_may_grow():
    net = Weight()
    net.register_buffer("cache", torch.zeros(2), persistent=False)
    net.register_buffer("seen", torch.zeros(1), persistent=False)
    average = EMA(net)
    assert set(average.tensors) == {"w", "count"}
    with average.applied(net):
        net.cache, net.seen = torch.ones(5), net.seen + 1
    assert net.cache.tolist() == [1] * 5 and net.seen == 0


def test_an_expanded_buffer_is_lent_and_given_back():
    net = Weight()
    net.register_buffer("row", torch.arange(3.0).expand(2, 3))
    net.register_buffer("one", torch.ones(1, 1).expand(2, 3))
    average = EMA(net)
    average.tensors["row"] += 1
    with average.applied(net):
        assert net.row.tolist() == [[1, 2, 3]] * 2
    assert net.row.tolist() == [[0, 1, 2]] * 2 and net.one.tolist() == [[1] * 3] * 2


def test_integers_and_infinities_are_copied_and_complex_numbers_averaged():
    net = Weight()
    net.big = nn.Parameter(torch.tensor([2**40 + 1]), requires_grad=False)
    net.mask = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)
    net.z = nn.Parameter(torch.tensor(0j))
    average = EMA(net, 0.5)
    with torch.no_grad():
        net.big += 1
        net.z += 1j
    average.update()
    assert average.tensors["big"].tolist() == [2**40 + 2] and average.tensors["mask"].tolist() == [
        0,
        -math.inf,
    ]
    assert complex(average.tensors["z"]) == pytest.approx(0.9j)


def test_an_average_goes_on_after_pickling_with_its_own_network():
    net = nn.Sequential(Weight(1.0))
    average = EMA(net, 0.5)
    for make in (lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy):
        other, twin = make((net, average))
        with torch.no_grad():
            other[0].w += 1
        twin.update()
        assert float(twin.tensors["0.w"]) == pytest.approx(1.9) and average.tensors["0.w"] == 1
        with twin.applied(other):
            assert float(other[0].w.detach()) == pytest.approx(1.9)
        assert other[0].w == 2


def test_a_run_pickles():
    net = small_net()
    run = fit(
        net, lambda v, g: v(torch.rand(4, 2, generator=g), 0.5).square().mean(), steps=2, progress=False
    )
    again = pickle.loads(pickle.dumps(run))
    assert torch.equal(run.history, again.history) and again.seconds == run.seconds
    with again.ema.applied(net):
        assert all(torch.equal(p, run.ema.tensors[name]) for name, p in net.named_parameters())
