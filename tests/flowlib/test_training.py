"""Training: the loop against one written by hand, what it refuses, and runs that resume to the bit."""

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlib.averaging import EMA
from flowlib.matching import cfm_loss
from flowlib.nets import VelocityMLP
from flowlib.training import Run, cosine_decay, fit


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def small_net() -> VelocityMLP:
    return VelocityMLP(2, width=8, depth=2, generator=generator())


class Weight(nn.Module):
    """One number, and a buffer that counts."""

    def __init__(self, value: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(value, dtype=dtype))
        self.register_buffer("count", torch.tensor(0))

    def forward(self) -> Tensor:
        return self.w


class Normalized(nn.Module):
    """A field with running statistics, which only a checkpoint with buffers restores."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(2), small_net()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(self.norm(x), t)


def matching_loss(v, generator: Generator) -> Tensor:
    x_1 = 1 + torch.rand(16, 2, generator=generator)
    return cfm_loss(v, x_1, generator=generator)


quiet = partial(fit, progress=False)
sgd = partial(quiet, optimizer=torch.optim.SGD, ema=0.5)


# The loop


def test_it_is_the_loop_that_one_would_write_to_the_bit():
    net, mine = small_net().eval(), small_net()
    run = quiet(net, matching_loss, steps=30, lr=1e-2, generator=generator(7))
    optimizer, g, losses = torch.optim.Adam(mine.parameters(), lr=1e-2, fused=True), generator(7), []
    for _ in range(30):
        loss = matching_loss(mine, g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert run.history.tolist() == losses
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), mine.parameters(), strict=True))
    assert run.seconds > 0 and net.training


def test_without_a_generator_it_is_reproducible_all_the_same():
    state = torch.get_rng_state()
    histories = [
        quiet(small_net(), matching_loss, steps=3, **g).history for g in ({}, {}, {"generator": generator(0)})
    ]
    assert torch.equal(*histories[:2]) and torch.equal(*histories[1:])
    assert torch.equal(state, torch.get_rng_state())


def test_it_learns_the_marginal_velocity_of_one_point():
    # For data at one point m the marginal velocity is (m - x) / (1 - t); the loss falls to its floor, which is zero.
    net = VelocityMLP(1, generator=generator())

    def loss(v, generator: Generator) -> Tensor:
        return cfm_loss(v, torch.full((128, 1), 2.0), generator=generator)

    run = quiet(net, loss, steps=600, lr=5e-3, schedule=cosine_decay, ema=0.99)
    assert run.history[-50:].mean() < 0.03 * run.history[:5].mean()
    with run.ema.applied(net), torch.no_grad():
        v = net(torch.tensor([[0.0], [1.0]]), 0.5)
    torch.testing.assert_close(v, torch.tensor([[4.0], [2.0]]), rtol=0, atol=0.3)


def test_the_schedule_multiplies_the_rate_of_each_step():
    net, n = Weight(), 40
    sgd(net, lambda v, g: v(), steps=n, lr=0.1, schedule=cosine_decay)
    # gradient descent on w itself subtracts every rate, and sum_k (1 + cos(pi k / n)) / 2 over k < n is (n + 1) / 2
    assert float(net.w.detach()) == pytest.approx(-0.1 * (n + 1) / 2, rel=1e-5)
    assert cosine_decay(0) == 1 and cosine_decay(1) == pytest.approx(0)


@pytest.mark.parametrize(("clip", "length"), [(None, 5.0), (1.0, 1.0), (7.0, 5.0)])
def test_long_gradients_are_shortened(clip: float | None, length: float):
    net = Weight()
    sgd(net, lambda v, g: 5 * v(), steps=1, lr=1.0, clip=clip)
    assert float(net.w.detach()) == pytest.approx(-length, rel=1e-5)


def test_autocast_reaches_the_network_and_nothing_else():
    seen = {}

    def loss(v, generator: Generator) -> Tensor:
        x, t = torch.randn(4, 2, generator=generator), torch.rand(4, generator=generator)
        seen.update(data=(x @ x.T).dtype, velocity=v(x, t).dtype)
        return matching_loss(v, generator)

    net = small_net()
    quiet(net, loss, steps=2, autocast=torch.bfloat16)
    assert seen == {"data": torch.float32, "velocity": torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_compile_compiles_the_network_and_trains_the_one_given(monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def spy(net: nn.Module) -> nn.Module:
        compiled.append(net)
        return net

    monkeypatch.setattr(torch, "compile", spy)
    net = small_net()
    quiet(net, matching_loss, steps=1)
    assert compiled == []
    quiet(net, matching_loss, steps=1, compile=True)
    assert compiled == [net]


def test_the_progress_bar_is_plain_text_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    fit(Weight(), lambda v, g: v() ** 2 + 0.25, steps=200)
    out, err = capsys.readouterr()
    assert out == "" and "training: 100%" in err and "200/200" in err and "loss 0.25" in err
    fit(Weight(), lambda v, g: v() ** 2, steps=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_network():
    net = Weight()
    calls = iter(range(100))

    def loss(v, generator: Generator) -> Tensor:
        return v() * (math.nan if next(calls) == 7 else 1.0)

    with pytest.raises(FloatingPointError, match="nan in step 7"):
        sgd(net, loss, steps=100, lr=1.0)
    assert net.w == -7


def test_weights_that_are_not_finite_reach_neither_the_caller_nor_the_checkpoint(tmp_path: Path):
    """The root of |w| is 0 at w = 0, and its gradient is not finite."""
    file = tmp_path / "run.safetensors"

    def loss(v, generator: Generator) -> Tensor:
        return v().abs().sqrt()

    with pytest.raises(FloatingPointError, match=r"weights are no longer finite after step 0.*loss was 0"):
        sgd(Weight(), loss, steps=1)
    sgd(Weight(1.0), lambda v, g: v(), steps=1, checkpoint=file)
    good = file.read_bytes()
    with pytest.raises(FloatingPointError, match="weights"):
        sgd(Weight(), loss, steps=3, every=1, checkpoint=file)
    assert file.read_bytes() == good


# Checkpoints


def run_to_the_end(
    net: nn.Module, file: Path | None, *, stop: int | None = None, resume: bool = False
) -> Run:
    calls = iter(range(10_000))

    def loss(v, generator: Generator) -> Tensor:
        if next(calls) == stop:
            raise KeyboardInterrupt
        return matching_loss(v, generator)

    return quiet(
        net,
        loss,
        steps=40,
        lr=1e-2,
        schedule=cosine_decay,
        clip=0.5,
        ema=0.9,
        generator=generator(3),
        checkpoint=file,
        every=10,
        resume=resume,
    )


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path: Path):
    with torch.random.fork_rng():
        nets = [Normalized() for _ in range(3)]
    whole = run_to_the_end(nets[0], tmp_path / "whole.safetensors")
    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(nets[1], file, stop=27)
    resumed = run_to_the_end(
        nets[2], file, resume=True
    )  # from step 20, in a network that knows nothing of it
    assert torch.equal(whole.history, resumed.history) and len(resumed.history) == 40
    for mine, theirs in (
        (nets[2].state_dict(), nets[0].state_dict()),
        (resumed.ema.tensors, whole.ema.tensors),
    ):
        assert all(torch.equal(x, theirs[name]) for name, x in mine.items())
    from safetensors.torch import load_file

    ends = [load_file(path) for path in (file, tmp_path / "whole.safetensors")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items() if name != "seconds")
    expected = {
        "optimizer.norm.weight.exp_avg",
        "optimizer.norm.weight.step",
        "generator",
        "net.norm.running_var",
    }
    assert expected <= ends[0].keys()
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors", "whole.safetensors"]


def test_a_finished_run_is_loaded_and_not_trained_further(tmp_path: Path):
    first, again = small_net(), small_net()
    run = run_to_the_end(first, tmp_path / "run.safetensors")
    loaded = run_to_the_end(again, tmp_path / "run.safetensors", stop=0, resume=True)
    assert torch.equal(run.history, loaded.history)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert loaded.seconds >= run.seconds * 0.5


def test_the_folder_of_the_checkpoint_is_made_before_the_first_step(tmp_path: Path):
    def loss(v, generator: Generator) -> Tensor:
        assert (tmp_path / "new").is_dir()
        return v()

    sgd(Weight(), loss, steps=1, checkpoint=tmp_path / "new" / "run.safetensors")
    assert os.listdir(tmp_path / "new") == ["run.safetensors"]


def test_without_a_file_resume_starts_anew(tmp_path: Path):
    run = run_to_the_end(small_net(), tmp_path / "new.safetensors", resume=True)
    assert torch.equal(run.history, run_to_the_end(small_net(), None).history)


def test_checkpoints_of_another_run_are_refused(tmp_path: Path):
    file = tmp_path / "run.safetensors"
    run_to_the_end(small_net(), file)
    with pytest.raises(ValueError, match=r"does not fit the network.*8.*9"):
        quiet(
            VelocityMLP(2, width=9, depth=2, generator=generator()),
            matching_loss,
            steps=40,
            checkpoint=file,
            resume=True,
        )
    with pytest.raises(ValueError, match="holds 40 steps of training, expected from 1 to 30"):
        quiet(small_net(), matching_loss, steps=30, checkpoint=file, resume=True)


# Several processes

TWO = """
import sys
from pathlib import Path
import torch
from torch import Generator, distributed
from flowlib.nets import VelocityMLP
from flowlib.training import fit
from test_training import matching_loss, quiet, small_net

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
whole, stopped, resumed = small_net(), small_net(), small_net()
run = quiet(whole, matching_loss, steps=8, clip=0.5, checkpoint=folder / "whole.safetensors")
quiet(stopped, matching_loss, steps=5, clip=0.5, checkpoint=folder / "run.safetensors")
again = quiet(resumed, matching_loss, steps=8, clip=0.5, checkpoint=folder / "run.safetensors", resume=True)
assert torch.equal(run.history[5:], again.history[5:])
assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
torch.save((whole.state_dict(), run.ema.tensors, run.history), folder / f"{rank}.pt")
try:
    quiet(small_net(), matching_loss, steps=1, generator=Generator().manual_seed(3))
except ValueError as error:
    assert "generators of all 2 processes must differ" in str(error)
else:
    raise SystemExit("the same generator twice was not refused")
mine = folder / ("whole.safetensors" if rank == 0 else "elsewhere")
for target, said in ((folder, ("is a folder", "process 0 has stopped")), (mine, ("found [8, 0] steps done",) * 2)):
    try:
        quiet(small_net(), matching_loss, steps=8, clip=0.5, checkpoint=target, resume=True)
    except (ValueError, RuntimeError) as error:
        assert said[rank] in str(error), error
    else:
        raise SystemExit(f"{target} was not refused")
distributed.destroy_process_group()
"""


def test_two_processes_take_the_steps_of_one_with_both_batches(tmp_path: Path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(tmp_path), rank], env=environment, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    net, generators, history = small_net(), [generator(0), generator(1)], []
    optimizer, average = torch.optim.Adam(net.parameters(), fused=True), EMA(net)
    for _ in range(8):
        losses = [matching_loss(net, g) for g in generators]
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        average.update()
        history.append([float(x.detach()) for x in losses])
    for rank in (0, 1):
        weights, ema, losses = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(weights, dict(net.state_dict()), rtol=0, atol=1e-6)
        torch.testing.assert_close(ema, average.tensors, rtol=0, atol=1e-6)
        torch.testing.assert_close(losses, torch.tensor(history)[:, rank], rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="is of 2 processes, expected 1"):
        quiet(small_net(), matching_loss, steps=8, checkpoint=tmp_path / "whole.safetensors", resume=True)


# Refusals


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("steps=0", {"steps": 0}),
        ("lr=-1", {"lr": -1}),
        ("lr=nan", {"lr": math.nan}),
        ("lr=inf", {"lr": math.inf}),
        ("every=0", {"every": 0}),
        ("clip=0", {"clip": 0.0}),
        ("got 1.0", {"ema": 1.0}),
        ("float16", {"autocast": torch.float16}),
        ("checkpoint=", {"resume": True}),
        ("needs resume=True", {"accept_changes": True}),
    ],
)
def test_bad_arguments_are_refused_by_name(match: str, options: dict):
    with pytest.raises(ValueError, match=match):
        quiet(small_net(), matching_loss, **({"steps": 1} | options))


def test_numbers_of_steps_are_integers():
    for name in ("steps", "every"):
        with pytest.raises(TypeError, match=f"{name} must be an integer, got 10.0"):
            quiet(small_net(), matching_loss, **({"steps": 1} | {name: 10.0}))


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        quiet(nn.Identity(), matching_loss, steps=1)
    with pytest.raises(ValueError, match=r"all parameters are frozen: call net.requires_grad_\(\)"):
        quiet(small_net().requires_grad_(False), matching_loss, steps=1)
    with pytest.raises(ValueError, match="no values yet"):
        quiet(nn.LazyLinear(2), matching_loss, steps=1)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match=r"called under torch.no_grad\(\) or inference_mode"):
            quiet(small_net(), matching_loss, steps=1)
    with torch.inference_mode():
        net = small_net()
    with pytest.raises(ValueError, match=r"made under torch.inference_mode"):
        quiet(net, matching_loss, steps=1)


@pytest.mark.parametrize(
    ("match", "error", "value"),
    [
        (r"shape \(\), got \(2,\)", ValueError, lambda w: w.expand(2)),
        (r"shape \(\), got float", TypeError, lambda w: 1.0),
        (r"shape \(\), got NoneType", TypeError, lambda w: None),
        ("loss of step 0 has no gradient: let it call v", ValueError, lambda w: w.detach()),
        ("loss of step 0 has no gradient", ValueError, lambda w: torch.tensor(3)),
        (
            "loss of step 0 does not depend on the network",
            ValueError,
            lambda w: nn.Parameter(torch.ones(())) * 2,
        ),
    ],
)
def test_a_loss_that_cannot_train_the_network_says_so(match: str, error: type[Exception], value):
    net = Weight(1.0)
    with pytest.raises(error, match=match):
        sgd(net, lambda v, g: value(v()), steps=1)
    assert net.w == 1


def test_a_loss_that_leaves_the_network_later_says_so_too():
    calls = iter(range(9))

    def loss(v, generator: Generator) -> Tensor:
        return v() if next(calls) < 3 else v().detach()

    with pytest.raises(ValueError, match="loss of step 3 has no gradient"):
        sgd(Weight(), loss, steps=9)


def test_a_parameter_assigned_anew_by_the_loss_is_refused_by_name():
    net = nn.Sequential(Weight(1.0))

    def loss(v, generator: Generator) -> Tensor:
        net[0].w = nn.Parameter(torch.tensor(5.0))
        return net[0].w * 1

    with pytest.raises(ValueError, match=r"\['0.w'\] was assigned anew by step 0"):
        sgd(net, loss, steps=3)


def test_optimizers_that_need_a_closure_or_keep_no_rate_are_refused():
    with pytest.raises(ValueError, match=r"LBFGS.step\(\) needs \['closure'\]"):
        quiet(Weight(), lambda v, g: v(), steps=1, optimizer=torch.optim.LBFGS)

    class Rateless(torch.optim.Optimizer):
        def __init__(self, params, lr: float) -> None:
            super().__init__(params, {})

        def step(self, closure=None) -> None:
            pass

    with pytest.raises(ValueError, match="Rateless keeps no lr"):
        quiet(Weight(), lambda v, g: v(), steps=1, optimizer=Rateless)


def test_frozen_infinities_and_integers_do_not_hinder():
    net = Weight(1.0)
    net.mask = nn.Parameter(torch.tensor([0, -torch.inf]), requires_grad=False)
    net.codes = nn.Parameter(torch.tensor([1, 2]), requires_grad=False)
    run = quiet(net, lambda v, g: v() ** 2, steps=3, lr=0.1)
    assert net.w < 1 and run.ema.tensors["mask"].tolist() == [0, -math.inf]


def test_an_average_that_is_not_finite_is_not_returned():
    net, calls = Weight(1.0), iter(range(9))

    def loss(
        v, generator: Generator
    ) -> Tensor:  # the root's gradient at 0 is NaN in step 1, finite ones again in step 2
        step = next(calls)
        if step == 2:
            with torch.no_grad():
                net.w.fill_(1.0)
        return v().abs().sqrt() if step == 1 else v()

    with pytest.raises(FloatingPointError, match="the averaged weights are no longer finite after step 4"):
        sgd(net, loss, steps=5, lr=1.0)


def test_on_a_device_losses_are_read_every_hundred_steps_and_at_the_end(monkeypatch: pytest.MonkeyPatch):
    """The meta device has shapes and no values: whatever else were read there would raise an error."""
    done, reads = [0], []

    def tolist(x: Tensor) -> list[float]:
        reads.append((done[0], len(x)))
        return [1.0] * len(x)

    def loss(v, generator: Generator) -> Tensor:
        done[0] += 1
        if done[0] == 250:  # the weights are read after the last step
            monkeypatch.setattr(Tensor, "__bool__", lambda x: True)
        return v() ** 2

    with monkeypatch.context() as made:
        made.setattr(Tensor, "__bool__", lambda x: True)  # the average looks at the first weights
        net = Weight().to("meta")
        average = EMA(net)
    monkeypatch.setattr("flowlib.training.EMA", lambda net, decay: average)
    monkeypatch.setattr(Tensor, "tolist", tolist)
    run = sgd(net, loss, steps=250, clip=1.0, generator=generator())
    assert reads == [(100, 100), (200, 100), (250, 50)] and len(run.history) == 250


def test_history_is_float32_whatever_the_loss():
    for dtype in (torch.float64, torch.bfloat16):
        run = sgd(Weight(1.0, dtype), lambda v, g: v() ** 2, steps=2, lr=0.1)
        assert run.history.dtype == torch.float32 and run.history[0] == 1
