"""Checkpoints: exact resume whatever the optimizer, changed settings, and files that cannot be read or written."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from flowlib import files
from flowlib.training import cosine_decay, fit

quiet = partial(fit, progress=False)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


class Net(nn.Module):
    """A convolution, a linear map and a norm: parameters of 1, 2 and 4 dimensions, and buffers."""

    def __init__(self, layout: torch.memory_format = torch.contiguous_format) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 3)
        self.to(memory_format=layout)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).flatten(1))


def images(v: Callable, g: Generator) -> Tensor:
    return (v(torch.randn(8, 2, 4, 4, generator=g)) ** 2).mean()


class Weights(nn.Module):
    """Two vectors."""

    def __init__(self, n: int = 3, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(n, dtype=dtype)), nn.Parameter(torch.ones(2, dtype=dtype))

    def forward(self) -> Tensor:
        return (self.a**2).sum() + (self.b**2).sum()


def noisy(v: Callable, g: Generator) -> Tensor:
    return v().real * torch.rand((), generator=g)


def everything(net: nn.Module, run: Any) -> dict[str, Tensor]:
    """All that a run leaves."""
    buffers = {f"buffer {name}": x for name, x in net.named_buffers()}
    average = {f"average {name}": x for name, x in run.ema.tensors.items()}
    return {"history": run.history} | dict(net.named_parameters()) | buffers | average


def assert_exact(
    make: Callable[[], nn.Module], loss: Callable, file: Path, steps: int = 9, stop: int = 5, **options: Any
) -> None:
    """A run interrupted in step `stop` and gone on from its last checkpoint ends with the bits of one that was not."""
    options = {"steps": steps, "every": 2, "lr": 0.01, "schedule": cosine_decay, "ema": 0.9} | options

    def stopped(v: Callable, g: Generator) -> Tensor:
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(1)
        return loss(v, g)

    seen: list[int] = []
    whole, first, second = make(), make(), make()
    expected = everything(whole, quiet(whole, loss, generator=generator(3), **options))
    with pytest.raises(KeyboardInterrupt):
        quiet(first, stopped, generator=generator(3), checkpoint=file, **options)
    got = everything(
        second, quiet(second, loss, generator=generator(3), checkpoint=file, resume=True, **options)
    )
    assert got.keys() == expected.keys()
    for name, x in got.items():
        assert torch.equal(x, expected[name]) and x.dtype == expected[name].dtype, name
    assert os.listdir(file.parent) == [file.name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs" / "run.safetensors"


def edit(file: Path, change: Callable[[dict, dict], None]) -> None:
    """Write the file again with other tensors and notes."""
    with safe_open(file, "pt") as opened:
        notes, tensors = opened.metadata(), {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    change(tensors, notes)
    save_file(tensors, file, notes)


# Exact resume


class Tokens(nn.Module):
    """An embedding with sparse gradients, for SparseAdam."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.ones(5, 2), freeze=False, sparse=True)

    def forward(self) -> Tensor:
        return (self.table(torch.tensor([0, 3])) ** 2).sum()


OPTIMIZERS = sorted(
    set(torch.optim.__all__) & set(dir(torch.optim)) - {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
)
OPTIMIZERS = [name for name in OPTIMIZERS if isinstance(getattr(torch.optim, name), type)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [
        *(getattr(torch.optim, name) for name in OPTIMIZERS),
        partial(Adam, fused=True),
        partial(SGD, momentum=0.9, fused=True),
        partial(torch.optim.AdamW, amsgrad=True, fused=True),
        partial(torch.optim.RMSprop, centered=True, momentum=0.9),
    ],
    ids=lambda o: f"{o.func.__name__}-{'-'.join(o.keywords)}" if isinstance(o, partial) else o.__name__,
)
def test_every_optimizer_resumes_to_the_bit_in_every_layout(
    optimizer: Callable[..., Optimizer], layout: torch.memory_format, file: Path
):
    assert_exact(partial(Net, layout), images, file, optimizer=optimizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, Adam, torch.optim.ASGD])
def test_every_dtype_resumes_to_the_bit(optimizer: Callable[..., Optimizer], dtype: torch.dtype, file: Path):
    if optimizer is torch.optim.ASGD and dtype.is_complex:
        pytest.skip("torch's ASGD has no complex numbers")
    assert_exact(partial(Weights, dtype=dtype), noisy, file, optimizer=optimizer)


def test_sparse_gradients_and_matrices_alone_resume_to_the_bit(file: Path):
    assert_exact(Tokens, noisy, file, optimizer=torch.optim.SparseAdam)
    file.unlink()

    def matrix() -> nn.Module:
        with torch.random.fork_rng():
            net = nn.Linear(3, 2, bias=False)
        nn.init.eye_(net.weight)
        return net

    if muon := getattr(torch.optim, "Muon", None):  # since PyTorch 2.9
        assert_exact(
            matrix, lambda v, g: v(torch.rand(4, 3, generator=g)).square().sum(), file, optimizer=muon
        )


class Odd(Optimizer):
    """One that keeps lists, numbers, texts, and a tensor in float64 beside a parameter in float32, things beside no
    parameter, and a number that grows among its options.
    """

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "scale": 1.0, "hook": len})
        self.state["all"]["past"] = [(1, None), {"x": torch.zeros(2)}]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            group["scale"] *= 0.9
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                mean = state.get("mean", p.double() * 0) / 3 + p.grad.double()
                state.update(
                    mean=mean,
                    text="abc",
                    last=[p.grad.double().sum(), len(state)],
                    done=state.get("done", 0) + 1,
                )
                self.state["all"]["past"][1]["x"] += 1
                p -= (
                    group["lr"]
                    * group["scale"]
                    * (mean / state["done"] + self.state["all"]["past"][1]["x"].sum())
                )


def test_an_optimizer_may_keep_what_it_likes(file: Path):
    assert_exact(Weights, noisy, file, optimizer=Odd)
    with safe_open(file, "pt") as opened:
        assert opened.get_tensor("optimizer.a.mean").dtype == torch.float64


class Tied(nn.Module):
    """One matrix under two names, a frozen one, one that no loss reaches, and buffers of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            self.into, self.out = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.into.weight, 0.3)
        self.out.weight = self.into.weight
        self.frozen = nn.Parameter(torch.full((2,), -torch.inf), requires_grad=False)
        self.codes = nn.Parameter(torch.tensor([2**40 + 1]), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        base = torch.zeros(4)
        self.register_buffer("part", base[:2])
        self.register_buffer("all", base)
        self.register_buffer("row", torch.zeros(1, 3).expand(2, 3))
        self.register_buffer("wave", torch.zeros(2, dtype=torch.complex128))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_buffer("later", None)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.all[0] += 1
        self.wave += 1j
        self.cache = self.cache + 1
        return self.out(self.into(x)) * (1 + self.all[0] / 100) * (1 + self.cache[0] / 100)


def test_tied_frozen_and_unused_parameters_and_buffers_of_every_kind_resume_to_the_bit(file: Path):
    assert_exact(Tied, lambda v, g: v(torch.rand(4, 2, generator=g)).square().sum(), file)
    with safe_open(file, "pt") as opened:
        assert opened.get_tensor("spare.cache").tolist() == [9, 9]


def test_rates_of_groups_keep_their_ratio_and_are_settings(file: Path):
    def grouped(params: list, lr: float, ratio: float = 10) -> SGD:
        return SGD([{"params": params[:1], "lr": ratio * lr}, {"params": params[1:]}], lr=lr)

    net = Weights()
    quiet(
        net, lambda v, g: v.a.sum() + v.b.sum(), steps=10, lr=0.01, schedule=cosine_decay, optimizer=grouped
    )
    torch.testing.assert_close(1 - net.a[0], 10 * (1 - net.b[0]))
    assert float(net.b[0].detach()) == pytest.approx(1 - 0.01 * 5.5, rel=1e-5)
    assert_exact(Weights, noisy, file, optimizer=grouped)
    with pytest.raises(ValueError, match=r"lr of group 0: the file has 0\.1, this run 0\.05"):
        resume(file, optimizer=partial(grouped, ratio=5))
    with pytest.raises(ValueError, match="groups: the file has 2, this run 1; "):
        resume(file, optimizer=SGD)


def test_modules_registered_in_another_order_are_matched_by_name(file: Path):
    def swapped() -> nn.Module:
        net = nn.Module()
        net.b, net.a = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
        net.forward = partial(Weights.forward, net)
        return net

    options = {"lr": 0.01, "checkpoint": file}
    quiet(Weights(), noisy, steps=4, **options)
    nets = [Weights(), swapped()]
    whole = quiet(nets[0], noisy, steps=8, lr=0.01)
    again = quiet(nets[1], noisy, steps=8, resume=True, **options)
    assert torch.equal(whole.history, again.history) and torch.equal(nets[0].a, nets[1].a)


def test_a_file_written_in_one_layout_serves_another(file: Path):
    options = {"lr": 0.01, "checkpoint": file, "ema": 0.0}
    quiet(Net(), images, steps=4, **options)
    nets = [Net(), Net(torch.channels_last)]
    for net in nets:
        shutil.copy(file, file.with_name("copy"))
        quiet(net, images, steps=12, resume=True, **(options | {"checkpoint": file.with_name("copy")}))
    torch.testing.assert_close(nets[0].conv.weight, nets[1].conv.weight, rtol=0, atol=1e-5)


# What changed


def start(file: Path, net: nn.Module | None = None, **options: Any) -> None:
    options = {"steps": 3, "lr": 0.01, "generator": generator(3), "optimizer": Adam} | options
    quiet(net or Weights(), noisy, checkpoint=file, **options)


def resume(file: Path, net: nn.Module | None = None, **options: Any) -> Any:
    options = {"steps": 9, "lr": 0.01, "generator": generator(3), "optimizer": Adam} | options
    return quiet(net or Weights(), noisy, checkpoint=file, resume=True, **options)


def frozen() -> nn.Module:
    net = Weights()
    net.b.requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("lr: the file has 0.01, this run 0.005", {"lr": 0.005}),
        ("schedule at 1%: the file has 1.0, this run 0.99975328", {"schedule": cosine_decay}),
        ("schedule at 95%: the file has 1.0, this run 0.1", {"schedule": lambda f: 0.1 if f == 0.95 else 1}),
        ("optimizer: the file has Adam, this run SGD", {"optimizer": SGD}),
        ("weight_decay: the file has 0, this run 0.1", {"optimizer": partial(Adam, weight_decay=0.1)}),
        (
            r"betas: the file has \[0.9, 0.999\], this run \[0.5, 0.999\]",
            {"optimizer": partial(Adam, betas=(0.5, 0.999))},
        ),
        ("amsgrad: the file has False, this run True", {"optimizer": partial(Adam, amsgrad=True)}),
        ("fused: the file has None, this run True", {"optimizer": partial(Adam, fused=True)}),
        ("clip: the file has None, this run 1.0", {"clip": 1.0}),
        ("ema: the file has 0.999, this run 0.9", {"ema": 0.9}),
        ("autocast: the file has None, this run torch.bfloat16", {"autocast": torch.bfloat16}),
        ("seed: the file has 3, this run 4", {"generator": generator(4)}),
        (
            "dtype of a: the file has torch.float32, this run torch.float64",
            {"net": Weights(dtype=torch.float64)},
        ),
        ("requires_grad of b: the file has True, this run False", {"net": frozen()}),
        ("group of b: the file has 0, this run None", {"optimizer": lambda ps, lr: Adam(ps[:1], lr=lr)}),
    ],
    ids=lambda x: x[:15] if isinstance(x, str) else "",
)
def test_a_changed_setting_is_refused_by_name_and_accepted_on_request(
    message: str, changes: dict, file: Path
):
    start(file)
    net = changes.pop("net", Weights())
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(ValueError, match=rf"run\.safetensors.*{message}.*accept_changes=True"):
        resume(file, net, **changes)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    run = resume(file, net, accept_changes=True, **changes)
    assert len(run.history) == 9 and run.ema.updates == 9


def test_compile_is_a_setting(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda net: net)
    start(file)
    with pytest.raises(ValueError, match="compile: the file has False, this run True"):
        resume(file, compile=True)


def test_steps_are_a_setting_unless_the_schedule_is_constant(file: Path):
    start(file)
    longer = Weights()
    assert torch.equal(
        resume(file, longer).history,
        quiet(Weights(), noisy, steps=9, lr=0.01, generator=generator(3), optimizer=Adam).history,
    )
    start(file, schedule=cosine_decay)
    with pytest.raises(ValueError, match=r"settings\. steps: the file has 3, this run 9\. "):
        resume(file, schedule=cosine_decay)
    assert len(resume(file, schedule=cosine_decay, accept_changes=True).history) == 9


def test_many_changes_are_counted(file: Path):
    start(file)
    with pytest.raises(ValueError, match=r"schedule at 1%.*and 94 more"):
        resume(file, lr=0.1, clip=1.0, schedule=lambda f: 1.0 if f == 0 else 0.5 + 0.001 * f)


def test_what_is_accepted_is_taken_from_this_run_and_the_rest_from_the_file(file: Path):
    options = {"steps": 4, "lr": 0.1, "checkpoint": file, "optimizer": partial(SGD, momentum=0.5)}

    def loss(v: Weights, g: Generator | None) -> Tensor:
        return v.a.sum() + v.b.sum()

    quiet(Weights(), loss, **options)
    by_hand = Weights()
    optimizer = SGD(by_hand.parameters(), lr=0.1, momentum=0.5)
    for step in range(8):
        optimizer.param_groups[0].update({"lr": 0.2, "momentum": 0.25} if step >= 4 else {})
        optimizer.zero_grad()
        loss(by_hand, None).backward()
        optimizer.step()
    net = Weights()
    changed = options | {"steps": 8, "lr": 0.2, "optimizer": partial(SGD, momentum=0.25)}
    quiet(net, loss, resume=True, accept_changes=True, **changed)
    torch.testing.assert_close(net.a, by_hand.a)
    seen = Weights()  # an option that is switched off: the momentum starts afresh
    quiet(
        seen, loss, resume=True, accept_changes=True, **(options | {"steps": 12, "lr": 0.2, "optimizer": SGD})
    )
    torch.testing.assert_close(seen.a, net.a - 4 * 0.2)


def test_another_seed_starts_its_own_stream_and_the_same_goes_on(file: Path):
    draws: list[float] = []

    def loss(v: Callable, g: Generator) -> Tensor:
        draws.append(float(torch.rand((), generator=g)))
        return v()

    quiet(Weights(), loss, steps=2, generator=generator(3), checkpoint=file)
    quiet(Weights(), loss, steps=3, generator=generator(4), checkpoint=file, resume=True, accept_changes=True)
    quiet(Weights(), loss, steps=4, generator=generator(4), checkpoint=file, resume=True)
    three, four = (torch.rand(2, generator=generator(seed)) for seed in (3, 4))
    assert draws[:2] == [float(torch.rand((), generator=g)) for g in [generator(3)] for _ in range(2)]
    g = generator(4)
    assert draws[2:] == [float(torch.rand((), generator=g)) for _ in range(2)] and not torch.equal(
        three, four
    )


def test_fewer_steps_than_done_and_accept_without_resume_are_refused(file: Path):
    start(file)
    with pytest.raises(ValueError, match="holds 3 steps of training, expected from 1 to 2"):
        resume(file, steps=2)
    assert len(resume(file, steps=3).history) == 3
    with pytest.raises(ValueError, match="needs resume=True"):
        start(file, accept_changes=True)


def test_the_file_tells_its_versions(file: Path):
    import flowlib

    start(file)
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    assert (notes["flowlib"], notes["torch"]) == (flowlib.__version__, torch.__version__)
    edit(file, lambda tensors, notes: notes.update(format="flowlib.fit 3", flowlib="9.0"))
    with pytest.raises(
        ValueError, match=r"format 'flowlib.fit 3', by flowlib 9.0: this one reads 'flowlib.fit 2'"
    ):
        resume(file)
    start(file)  # of ours all the same: it may be replaced
    resume(file)


# Bad files


def drop(name: str) -> Callable[[dict, dict], None]:
    return lambda tensors, notes: (tensors if name in tensors else notes).pop(name)


def put(name: str, x: Tensor) -> Callable[[dict, dict], None]:
    return lambda tensors, notes: tensors.update({name: x})


def note(name: str, text: str) -> Callable[[dict, dict], None]:
    return lambda tensors, notes: notes.update({name: text})


DAMAGE: dict[str, tuple[Callable[[dict, dict], object], str]] = {
    "no a": (drop("net.a"), r"does not fit the network: it has \[\] where \[\('a', \(3,\)\)\]"),
    "another c": (put("net.c", torch.zeros(1)), "does not fit the network"),
    "no average of a": (drop("ema.a"), "the average, does not fit the network"),
    "no generator": (drop("generator"), "not a whole checkpoint: KeyError 'generator'"),
    "no history": (drop("history"), "not a whole checkpoint: KeyError 'history'"),
    "no seconds": (drop("seconds"), "not a whole checkpoint: KeyError 'seconds'"),
    "a history in float64": (put("history", torch.zeros(5).double()), "not a whole checkpoint.*float64"),
    "an empty history": (put("history", torch.zeros(0)), "holds 0 steps of training, expected from 1"),
    "a short generator": (put("generator", torch.zeros(1, 5).byte()), "not hold the state of a generator"),
    "no exp_avg": (drop("optimizer.a.exp_avg"), "nothing as the optimizer's a.exp_avg"),
    "a short exp_avg": (put("optimizer.a.exp_avg", torch.zeros(2)), r"\[2\].*a.exp_avg, expected.*\[3\]"),
    "integers": (put("optimizer.b.exp_avg", torch.zeros(2).long()), "int64.*optimizer's b.exp_avg"),
    "more state": (put("optimizer.c.exp_avg", torch.zeros(2)), r"no optimizer left: \['c.exp_avg'\]"),
    "no settings": (drop("settings"), "not a whole checkpoint: KeyError 'settings'"),
    "no optimizer": (drop("optimizer"), "not a whole checkpoint: KeyError 'optimizer'"),
    "no metadata": (lambda tensors, notes: notes.clear(), "no format of ours"),
    "half of the settings": (note("settings", '{"lr": 0'), "not a whole checkpoint"),
    "settings of another kind": (note("settings", "[]"), "not a whole checkpoint"),
    "a number as state": (note("optimizer", '{"dict": 3}'), "not a whole checkpoint"),
    "no state": (note("optimizer", '{"dict": []}'), "not a whole checkpoint: KeyError 'state'"),
    "another complex one": (note("complex", '["net.z"]'), "not a whole checkpoint: KeyError 'net.z'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_lacks_something_is_refused_before_anything_is_changed(damage: str, file: Path):
    change, match = DAMAGE[damage]
    start(file, steps=5)
    edit(file, change)
    content = file.read_bytes()
    net, g = Weights(), generator(3)
    before, drawn = {name: x.clone() for name, x in net.state_dict().items()}, g.get_state()
    with pytest.raises(ValueError, match=rf"run\.safetensors.*{match}"):
        resume(file, net, generator=g)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert torch.equal(g.get_state(), drawn) and file.read_bytes() == content


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "text", "foreign"])
@pytest.mark.parametrize("go_on", [True, False])
def test_what_is_no_checkpoint_is_neither_read_nor_replaced(how: str, go_on: bool, file: Path):
    start(file)
    whole = file.read_bytes()
    save_file({"weights": torch.ones(3)}, file)
    contents = {
        "empty": b"",
        "truncated": whole[:-7],
        "garbage": os.urandom(999),
        "text": b"{}",
        "foreign": file.read_bytes(),
    }
    file.write_bytes(contents[how])
    with pytest.raises(ValueError, match=r"run\.safetensors is not a checkpoint of fit, and is left alone"):
        quiet(Weights(), never, steps=3, checkpoint=file, resume=go_on)
    assert file.read_bytes() == contents[how] and os.listdir(file.parent) == [file.name]


# Targets that cannot be written


def never(v: Callable, g: Generator) -> Tensor:
    raise AssertionError("the first step was taken")


def refused(target: Any, match: str, error: type[Exception] = ValueError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        quiet(options.pop("net", None) or Weights(), never, steps=3, checkpoint=target, **options)


def test_targets_that_are_no_files_are_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "is a folder")
    refused("", "is a folder")
    refused("/", "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text" / "run", "cannot be written.*text")
    refused(tmp_path / "text", "not a checkpoint of fit")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "loop")
    refused("x" * 300, "cannot be written|too long")
    refused("a\0b", "null")
    refused("~nobody-of-this-name/run", "no path")
    (tmp_path / ".held.flowlib").write_text("mine")
    refused(tmp_path / "held", "cannot be written")
    assert (tmp_path / ".held.flowlib").read_text() == (tmp_path / "text").read_text().replace(
        "hello", "mine"
    )
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_device_node_stays_one(tmp_path: Path):
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device node needs root")
    refused(node, "not a regular file")
    assert stat.S_ISCHR(node.stat().st_mode)


def test_home_links_and_relative_paths_mean_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    start("~/deep/run")
    (tmp_path / "link").symlink_to("behind/run")
    start(tmp_path / "link")
    start(tmp_path / "link")
    (tmp_path / "elsewhere").mkdir()

    def moving(v: Callable, g: Generator) -> Tensor:
        os.chdir(tmp_path / "elsewhere")
        return v()

    quiet(Weights(), moving, steps=1, checkpoint="here/run")
    assert (tmp_path / "link").is_symlink()
    for path in ("home/deep/run", "behind/run", "here/run"):
        assert len(resume(tmp_path / path, accept_changes=True).history) == 9
        assert sorted(os.listdir((tmp_path / path).parent)) == ["run"]


def test_what_a_file_cannot_hold_is_refused_before_the_first_step(file: Path):
    net = Weights()
    net.register_buffer("sparse", torch.eye(2).to_sparse())
    refused(file, r"run\.safetensors could not be written", OSError, net=net)
    extra = nn.Parameter(torch.ones(7))
    refused(
        file,
        r"\(7,\) that is no parameter of the network",
        optimizer=lambda ps, lr: Adam([*ps, extra], lr=lr),
    )
    assert os.listdir(file.parent) == []


class Strange(SGD):
    def step(self, closure: None = None) -> None:
        self.state[self.param_groups[0]["params"][0]]["kept"] = {1, 2}


def test_what_an_optimizer_keeps_that_no_file_can_hold_shows_after_the_first_step(file: Path):
    taken: list[int] = []

    def loss(v: Callable, g: Generator) -> Tensor:
        taken.append(1)
        return v()

    with pytest.raises(TypeError, match=r"optimizer\.a\.kept: a set"):
        quiet(Weights(), loss, steps=99, optimizer=Strange, checkpoint=file)
    assert taken == [1]


@pytest.fixture
def small_disk(tmp_path: Path):
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", where], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield where
    subprocess.run(["umount", where], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_a_full_disk_shows_before_the_first_step_or_the_old_checkpoint_stays(small_disk: Path):
    file = small_disk / "run"
    refused(
        file, r"small/run could not be written.*\d+ bytes to write, \d+ free", OSError, net=Weights(40_000)
    )
    assert os.listdir(small_disk) == []
    with pytest.raises(
        OSError, match=r"small/run needs \d+ bytes, and \d+ are free"
    ):  # four times a, and all beside
        start(file, Weights(10_000))
    start(file)
    content = file.read_bytes()
    calls = iter(range(9))

    def loss(v: Callable, g: Generator) -> Tensor:
        if next(calls) == 2:
            (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
        return v()

    with pytest.raises(OSError, match=r"small/run could not be written, and is left as it was.* 0 free"):
        quiet(Weights(1000), loss, steps=4, checkpoint=file)
    assert file.read_bytes() == content and sorted(os.listdir(small_disk)) == ["filler", "run"]


def test_an_interrupted_write_leaves_the_old_checkpoint(file: Path, monkeypatch: pytest.MonkeyPatch):
    start(file)
    content, fsync, calls = file.read_bytes(), os.fsync, iter(range(9))

    def interrupted(fd: int) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        fsync(fd)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(file)
    assert file.read_bytes() == content and os.listdir(file.parent) == [file.name]


def test_two_runs_cannot_have_one_file(file: Path):
    def nested(v: Callable, g: Generator) -> Tensor:
        refused(file, "another run has .* open")
        inside = f"from flowlib.files import Target; from pathlib import Path; Target(Path({str(file)!r}))"
        said = subprocess.run([sys.executable, "-c", inside], capture_output=True, text=True, check=False)
        assert "another run has" in said.stderr
        return v()

    quiet(Weights(), nested, steps=1, checkpoint=file)
    start(file)  # and it is free again


def test_a_file_that_somebody_else_writes_during_the_run_is_left_alone(file: Path):
    def loss(v: Callable, g: Generator) -> Tensor:
        file.write_text("mine")
        return v()

    with pytest.raises(OSError, match="somebody else has written it"):
        quiet(Weights(), loss, steps=5, every=1, checkpoint=file)
    assert file.read_text() == "mine" and os.listdir(file.parent) == [file.name]


def test_what_a_killed_run_leaves_is_cleared_away_and_nothing_lies_about_between_two_writes(file: Path):
    folder = file.with_name(f".{file.name}.flowlib")
    folder.mkdir()
    for name in ("lock", "made", ".tmp1"):
        (folder / name).write_text("half")

    def loss(v: Callable, g: Generator) -> Tensor:
        assert os.listdir(folder) == ["lock"]
        return v()

    quiet(Weights(), loss, steps=4, every=1, checkpoint=file)
    assert os.listdir(file.parent) == [file.name]


def test_a_checkpoint_may_be_read_by_whom_the_umask_lets(file: Path):
    old = os.umask(0o027)
    try:
        start(file)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_system_without_locks_writes_all_the_same(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "fcntl", None)
    start(file)
    assert len(resume(file).history) == 9


def test_settings_are_plain_json(file: Path):
    start(file)
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()["settings"])
    assert (told["lr"], told["optimizer"], told["seed"], told["steps"]) == (0.01, "Adam", 3, 3)
