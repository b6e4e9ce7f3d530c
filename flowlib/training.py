"""Training: one loop for every loss, an average of the weights, and checkpoints from which it goes on exactly."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, Optimizer
from tqdm import tqdm  # type: ignore[import-untyped]


class EMA:
    """The exponential moving average of a network's parameters, with a copy of its buffers:

        average <- decay_n average + (1 - decay_n) parameters,      decay_n = min(decay, (1 + n) / (10 + n)),

    in update n = 0, 1, ..., so that the first weights are soon forgotten. The average is kept in
    promote_types(float32, dtype): in bfloat16 it would not move, since (1 - decay) of a change is lost to rounding.

    Args:
        net: the network; prefixes that torch.compile and data-parallel wrappers add to names do not matter.
        decay: in [0, 1); about the last 1 / (1 - decay) steps count.

    Raises:
        ValueError: decay outside [0, 1).

    Source: Polyak & Juditsky (1992) for averaging; the warm-up is TensorFlow's.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay, self.updates = decay, 0
        # Lists, since a walk through the modules in every step would cost more than the average itself. Parameters stay
        # the same objects; a buffer that a module assigns anew does not.
        self._net = _bare(net)
        self._parameters = [*self._net.parameters()]
        self._averages = [
            x.detach().to(torch.promote_types(torch.float32, x.dtype), copy=True) for x in self._parameters
        ]
        self._copies = [x.detach().clone() for x in self._net.buffers()]
        self.tensors = dict(zip(_tensors(net), self._averages + self._copies, strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Count the network's present weights in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = [x.to(average.dtype) for x, average in zip(self._parameters, self._averages, strict=True)]
        torch._foreach_lerp_(self._averages, present, 1 - decay)
        if self._copies:
            torch._foreach_copy_(self._copies, [*self._net.buffers()])

    @contextmanager
    def applied(self, net: nn.Module) -> Iterator[None]:
        """Within this context the network has the averaged weights and is in evaluation mode; afterwards it has its
        own weights, buffers and modes again, to the bit.

            with ema.applied(net):
                x = odeint(net, noise, steps=10)
        """
        live, modes = _tensors(net), [(module, module.training) for module in net.modules()]
        own = {name: x.clone() for name, x in live.items()}
        _copy(self.tensors, live, "the average")
        net.eval()
        try:
            yield
        finally:
            _copy(own, _tensors(net), "the network")  # asked again: a module may have assigned a buffer anew
            for module, mode in modes:
                module.training = mode


@dataclass(frozen=True)
class Run:
    """What `fit` returns: the loss of each step, history (steps,) in float32, the averaged weights, and the seconds."""

    history: Tensor
    ema: EMA
    seconds: float


fused_adam = partial(Adam, fused=True)  # all parameters in one pass, on the CPU too


def no_decay(fraction: float) -> float:
    """The schedule that leaves the learning rate as it is."""
    return 1.0


def cosine_decay(fraction: float) -> float:
    """The schedule that falls from 1 to 0 along half a cosine (Loshchilov & Hutter 2017).

    >>> [round(cosine_decay(f), 3) for f in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * fraction)) / 2


def fit(
    net: nn.Module,
    loss: Callable[..., Tensor],
    *,
    steps: int,
    lr: float = 1e-3,
    schedule: Callable[[float], float] = no_decay,
    optimizer: Callable[..., Optimizer] = fused_adam,
    ema: float = 0.999,
    clip: float | None = None,
    autocast: torch.dtype | None = None,
    compile: bool = False,
    generator: Generator | None = None,
    checkpoint: str | Path | None = None,
    every: int = 1000,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train the network in place, and leave it in training mode.

    A resumed run ends with the very bits of one that was never interrupted, given the same arguments, if loss and
    network draw from the generator alone (dropout does not). A checkpoint is a safetensors file with the tensors
    net.*, ema.*, optimizer.*, generator, history and seconds.

    Where several processes run the same script in one process group, as under torchrun, gradients are averaged over
    them, so that a step counts all their batches; each draws its own, and the first alone shows progress and writes the
    file. Before it calls `fit` the script needs torch.distributed.init_process_group() and, on GPUs, its own device.

    Args:
        net: the network, on its device.
        loss: called as loss(v, generator), where v calls the network (under `compile` and `autocast`); draws a batch
            from the generator and returns a loss of shape ().
        steps: how many steps, those of a resumed run included.
        lr: the learning rate.
        schedule: what multiplies it in step n, as a function of n / steps.
        optimizer: called as optimizer(parameters, lr=lr); one that keeps its state in tensors beside each parameter, as
            those of torch.optim do.
        ema: the decay of the averaged weights, in [0, 1).
        clip: the greatest norm of the gradient; a longer one is shortened to it.
        autocast: torch.bfloat16 runs the network in mixed precision, and only the network: data and loss stay.
        compile: compile the network with torch.compile.
        generator: the loss's source of randomness, another for each process; if None one on the network's device,
            seeded with the number of the process, 0 where there is one.
        checkpoint: the file that keeps the state, written every `every` steps and at the end.
        resume: go on from that file if it exists.
        progress: show a progress bar, as plain text on the standard error stream, unless TQDM_DISABLE is 1.

    Returns:
        the losses of this process, the averaged weights, and the seconds that all steps took together.

    Raises:
        ValueError: an argument out of its range, a loss not of shape (), a checkpoint of another run, or processes
            whose generators would draw the same.
        FloatingPointError: the loss became infinite or NaN; the message names the step. On the CPU the weights are left
            as they were before that step; elsewhere losses are read every 100 steps only, without waiting. Or the
            weights did, after a step that a checkpoint or the end follows: the last checkpoint stays.

    >>> from flowlib import data, matching, nets
    >>> law, net = data.moons(), nets.VelocityMLP(2, generator=Generator().manual_seed(0))
    >>> def loss(v, generator):
    ...     return matching.cfm_loss(v, law.sample(256, generator=generator), generator=generator)
    >>> run = fit(net, loss, steps=100, lr=3e-3, progress=False)
    >>> run.history[:10].mean() > run.history[-10:].mean()
    tensor(True)
    """
    if steps < 1 or every < 1 or not 0 < lr < math.inf or not (clip is None or clip > 0):
        raise ValueError(
            f"steps, every, lr and clip must be positive, got steps={steps}, every={every}, lr={lr}, clip={clip}"
        )
    if autocast not in (None, torch.bfloat16):
        raise ValueError(f"autocast must be None or torch.bfloat16, got {autocast}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the checkpoint= to resume from")
    device = next((p.device for p in net.parameters()), None)
    if device is None:
        raise ValueError("the network has no parameters to train")
    rank, processes = _place()
    generator = generator or Generator(device).manual_seed(rank)
    if len(_gather(generator.get_state(), device).unique(dim=0)) < processes:
        raise ValueError(
            f"the generators of all {processes} processes must differ, or they draw the same batches: "
            f"seed each with its rank"
        )
    state = _State(net, EMA(net, ema), optimizer(net.parameters(), lr=lr), generator, device)
    rates = [group["lr"] for group in state.optimizer.param_groups]
    file = None if checkpoint is None else Path(checkpoint)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        if resume and file.exists():
            state.load(file, steps)
    history = state.history
    began = time.perf_counter() - state.seconds
    waiting: list[Tensor] = []  # losses that have not been read yet
    v: Any = net
    if processes > 1 and not isinstance(net, DistributedDataParallel):
        v = DistributedDataParallel(net)
    if compile:
        v = torch.compile(v)
    if autocast:
        v = torch.autocast(device.type, dtype=autocast)(v.__call__)
    net.train()
    hidden = rank > 0 or not progress or os.environ.get("TQDM_DISABLE") == "1"
    with tqdm(total=steps, initial=len(history), desc="training", unit="step", disable=hidden) as bar:
        for step in range(len(history), steps):
            last = step + 1 == steps
            save = file is not None and (last or (step + 1) % every == 0)
            value = loss(v, generator)
            if value.shape != ():
                raise ValueError(f"the loss must have shape (), got {tuple(value.shape)}")
            waiting.append(value.detach())
            if last or save or device.type == "cpu" or (step + 1) % 100 == 0:
                for read in torch.stack(waiting).tolist():
                    if not math.isfinite(read):
                        raise FloatingPointError(
                            f"the loss is {read} in step {len(history)}: lower lr, set clip=, or look at the data"
                        )
                    history.append(read)
                waiting.clear()
            state.optimizer.zero_grad()
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step / steps)
            state.optimizer.step()
            state.ema.update()
            if (last or save) and not all(bool(x.isfinite().all()) for x in net.parameters()):
                raise FloatingPointError(
                    f"the weights are no longer finite after step {step}, although the loss was {history[-1]:.4g}: "
                    f"its gradient is infinite or NaN there"
                )
            if file and save:
                state.seconds = time.perf_counter() - began
                state.save(file)
            if not hidden and (step + 1) % 100 == 0:
                bar.set_postfix_str(f"loss {sum(history[-100:]) / 100:.4g}", refresh=False)
            bar.update()
    return Run(torch.tensor(history, dtype=torch.float32), state.ema, time.perf_counter() - began)


@dataclass
class _State:
    """All that changes from step to step."""

    net: nn.Module
    ema: EMA
    optimizer: Optimizer
    generator: Generator
    device: torch.device
    history: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, file: Path) -> None:
        """Write the file whole or not at all: the first process does, with every process's generator."""
        from safetensors.torch import save_file

        tensors = {f"net.{name}": x for name, x in _tensors(self.net).items()}
        tensors |= {f"ema.{name}": x for name, x in self.ema.tensors.items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{key}": torch.as_tensor(x) for key, x in entries.items() if x is not None
            }
        tensors["generator"] = _gather(self.generator.get_state(), self.device)
        tensors["history"] = torch.tensor(self.history, dtype=torch.float32)
        tensors["seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        rank, processes = _place()
        if rank == 0:
            partial_file = file.with_name(file.name + ".partial")
            save_file({name: x.contiguous() for name, x in tensors.items()}, partial_file)
            os.replace(partial_file, file)
        if processes > 1:
            distributed.barrier()  # nobody goes on to read a file that is not there yet

    def load(self, file: Path, steps: int) -> None:
        """Take up the state in the file."""
        from safetensors.torch import load_file

        saved = load_file(file)
        done = len(saved.get("history", ()))
        if not 0 < done <= steps:
            raise ValueError(f"{file} holds {done} steps of training, expected from 1 to {steps}")
        rank, processes = _place()
        if len(saved["generator"]) != processes:
            raise ValueError(f"{file} is of {len(saved['generator'])} processes, expected {processes}")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): x for name, x in saved.items() if name.startswith(prefix)}

        _copy(part("net."), _tensors(self.net), str(file))
        _copy(part("ema."), self.ema.tensors, str(file))
        self.ema.updates = done
        entries: dict[int, dict[str, Tensor]] = {}
        for name, x in part("optimizer.").items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = x.clone()  # the optimizer keeps it; the file goes
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.generator.set_state(saved["generator"][rank].clone())  # of a view torch would read the first row
        self.history += saved["history"].tolist()
        self.seconds = float(saved["seconds"])


def _place() -> tuple[int, int]:
    """The number of this process, and how many share the training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gather(x: Tensor, device: torch.device) -> Tensor:
    """The tensors (n,) of all processes (processes, n), on the CPU; sent by way of the device, as NCCL needs."""
    _, processes = _place()
    if processes == 1:
        return x[None]
    rows = [torch.empty_like(x, device=device) for _ in range(processes)]
    distributed.all_gather(rows, x.to(device))
    return torch.stack(rows).cpu()


def _bare(net: nn.Module) -> nn.Module:
    """The network inside what torch.compile and data-parallel wrappers have made of it."""
    wrapped = isinstance(net, nn.DataParallel | DistributedDataParallel)
    inner = net.module if wrapped else getattr(net, "_orig_mod", None)
    return _bare(inner) if isinstance(inner, nn.Module) else net


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, under the names that they have in a network of which no part is compiled."""
    bare = _bare(net)
    pairs = [*bare.named_parameters(), *bare.named_buffers()]
    return {name.replace("_orig_mod.", ""): x.detach() for name, x in pairs}


def _copy(source: dict[str, Tensor], target: dict[str, Tensor], what: str) -> None:
    """Write the source's values into the target's tensors, which must have the same names and shapes."""
    shapes = [{(name, tuple(x.shape)) for name, x in tensors.items()} for tensors in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{what} does not fit the network: it has {sorted(shapes[0] - shapes[1])} "
            f"where {sorted(shapes[1] - shapes[0])} is expected"
        )
    for name, x in target.items():
        x.copy_(source[name])
