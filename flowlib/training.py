"""Training: one loop for every loss."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, Optimizer
from tqdm import tqdm  # type: ignore[import-untyped]

from flowlib.averaging import EMA
from flowlib.checkpoints import Checkpoint, State, settings
from flowlib.checks import positive, require
from flowlib.processes import gather, place


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
    accept_changes: bool = False,
    progress: bool = True,
) -> Run:
    """Train the network in place, and leave it in training mode.

    A resumed run ends with the very bits of one that was never interrupted, if loss and network draw from the generator
    alone (dropout does not). A checkpoint is a safetensors file with the tensors net.*, ema.*, spare.* (buffers that
    are not persistent), optimizer.*, generator, history and seconds, and with the settings, which resume compares:
    steps unless the schedule is constant, lr and all options of the optimizer, its class, schedule, ema, clip,
    autocast, compile, seed, dtypes, and what is frozen. Whether the file can be written is found out before the first
    step.

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
        optimizer: called as optimizer(parameters, lr=lr); its step() must need no closure.
        ema: the decay of the averaged weights, in [0, 1).
        clip: the greatest norm of the gradient; a longer one is shortened to it.
        autocast: torch.bfloat16 runs the network in mixed precision, and only the network: data and loss stay.
        compile: compile the network with torch.compile.
        generator: the loss's source of randomness, another for each process; if None one on the network's device,
            seeded with the number of the process, 0 where there is one.
        checkpoint: the file that keeps the state, written every `every` steps and at the end; it may replace a
            checkpoint, and nothing else.
        resume: go on from that file if it exists; ValueError if the settings are others.
        accept_changes: go on all the same, with these settings. Under another seed the generator starts anew, and so
            does the optimizer if its class is another or one of its options was switched on or off.
        progress: show a progress bar, as plain text on the standard error stream, unless TQDM_DISABLE is 1.

    Returns:
        the losses of this process, the averaged weights, and the seconds that all steps took together.

    Raises:
        FloatingPointError: the loss became infinite or NaN. On the CPU the weights are left as they were before that
            step; elsewhere losses are read every 100 steps only, without waiting. Or the weights did, after a step that
            a checkpoint or the end follows: the last checkpoint stays.
        OSError: the disk cannot take a checkpoint: the last one stays.

    >>> from flowlib import data, matching, nets
    >>> law, net = data.moons(), nets.VelocityMLP(2, generator=Generator().manual_seed(0))
    >>> def loss(v, generator):
    ...     return matching.cfm_loss(v, law.sample(256, generator=generator), generator=generator)
    >>> run = fit(net, loss, steps=100, lr=3e-3, progress=False)
    >>> run.history[:10].mean() > run.history[-10:].mean()
    tensor(True)
    """
    for name, count in (("steps", steps), ("every", every)):
        require(isinstance(count, Integral), f"{name} must be an integer, got {count!r}", TypeError)
    positive(steps=steps, every=every, lr=lr, clip=clip)
    require(autocast in (None, torch.bfloat16), f"autocast must be None or torch.bfloat16, got {autocast}")
    require(not resume or checkpoint is not None, "resume=True needs the checkpoint= to resume from")
    require(resume or not accept_changes, "accept_changes=True needs resume=True")
    require(
        torch.is_grad_enabled(), "fit was called under torch.no_grad() or inference_mode(): call it outside"
    )
    averages, parameters = EMA(net, ema), [*net.parameters()]
    require(bool(parameters), "the network has no parameters to train")
    require(
        any(p.requires_grad for p in parameters), "all parameters are frozen: call net.requires_grad_() first"
    )
    require(
        not any(p.is_inference() for p in parameters),
        "the network was made under torch.inference_mode(), and cannot be trained: make it outside",
    )
    device, (rank, processes) = parameters[0].device, place()
    generator = generator or Generator(device).manual_seed(rank)
    require(
        len(gather(generator.get_state(), device).unique(dim=0)) == processes,
        f"the generators of all {processes} processes must differ, or they draw the same batches: "
        f"seed each with its rank",
    )
    state = State(net, averages, _made(optimizer, parameters, lr), generator, device)
    rates = [group["lr"] for group in state.optimizer.param_groups]
    v: Any = net
    if processes > 1 and not isinstance(net, DistributedDataParallel):
        v = DistributedDataParallel(net)
    if compile:
        v = torch.compile(v)
    if autocast:
        v = torch.autocast(device.type, dtype=autocast)(v.__call__)
    net.train()
    kept: Any = nullcontext()
    if checkpoint is not None:
        told = {"steps": int(steps), "ema": ema, "clip": clip, "autocast": str(autocast), "compile": compile}
        state.settings = settings(net, state.optimizer, generator, schedule, device, **told)
        opened = Checkpoint(checkpoint, state, steps=steps, resume=resume, accept_changes=accept_changes)
        kept = closing(opened)
    history = state.history
    began = time.perf_counter() - state.seconds
    waiting: list[Tensor] = []  # losses that have not been read yet
    first = len(history)
    hidden = rank > 0 or not progress or os.environ.get("TQDM_DISABLE") == "1"
    with kept as file, tqdm(total=steps, initial=first, desc="training", unit="step", disable=hidden) as bar:
        for step in range(first, steps):
            last = step + 1 == steps
            save = file is not None and (last or (step + 1) % every == 0)
            value = loss(v, generator)
            if not (isinstance(value, Tensor) and value.shape == () and value.requires_grad):
                raise _no_loss(value, step)
            waiting.append(value.detach())
            if last or save or device.type == "cpu" or (step + 1) % 100 == 0:
                for read in torch.stack(waiting).tolist():
                    if not math.isfinite(read):
                        raise FloatingPointError(
                            f"the loss is {read} in step {len(history)}: lower lr, set clip=, or look at the data"
                        )
                    history.append(read)
                waiting.clear()
            if renewed := state.ema.renewed():
                raise ValueError(
                    f"{renewed} was assigned anew by step {step}, and the optimizer still trains the old parameter: "
                    f"write into it instead, with copy_ under torch.no_grad()"
                )
            state.optimizer.zero_grad()
            value.backward()
            if all(p.grad is None for p in parameters):
                raise ValueError(f"the loss of step {step} does not depend on the network: let it call v")
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step / steps)
            state.optimizer.step()
            state.ema.update()
            if last or save:
                _finite(state, step)
            if file and step == first:
                file.room()
            if file and save:
                state.seconds = time.perf_counter() - began
                file.save()
            if not hidden and (step + 1) % 100 == 0:
                bar.set_postfix_str(f"loss {sum(history[-100:]) / 100:.4g}", refresh=False)
            bar.update()
    return Run(torch.tensor(history, dtype=torch.float32), state.ema, time.perf_counter() - began)


def _made(optimizer: Callable[..., Optimizer], parameters: list[nn.Parameter], lr: float) -> Optimizer:
    made = optimizer(parameters, lr=lr)
    required = [p.name for p in signature(made.step).parameters.values() if p.default is p.empty]
    name = type(made).__name__
    require(not required, f"{name}.step() needs {required}: take one that makes a step of a gradient alone")
    require(all("lr" in group for group in made.param_groups), f"{name} keeps no lr in its parameter groups")
    return made


def _no_loss(value: Any, step: int) -> Exception:
    if not isinstance(value, Tensor):
        return TypeError(f"the loss must be a tensor of shape (), got {type(value).__name__}")
    if value.shape != ():
        return ValueError(f"the loss must have shape (), got {tuple(value.shape)}")
    return ValueError(
        f"the loss of step {step} has no gradient: let it call v, without detach() and outside of torch.no_grad()"
    )


def _finite(state: State, step: int) -> None:
    """FloatingPointError unless all that was trained is finite, and its average."""
    trained = [x for x in state.net.parameters() if x.requires_grad]
    for what, tensors in (("weights", trained), ("averaged weights", state.ema.averages)):
        if not all(bool(x.isfinite().all()) for x in tensors):
            raise FloatingPointError(
                f"the {what} are no longer finite after step {step}, although the loss was {state.history[-1]:.4g}: "
                f"its gradient was infinite or NaN"
            )
