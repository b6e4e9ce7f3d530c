"""Checkpoints: the whole state of a training run, and what it was told, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from flowlib.averaging import EMA
from flowlib.checks import require
from flowlib.files import FORMAT, Target, read, size
from flowlib.processes import gather, place, together
from flowlib.weights import fits, spares, tensors, write, write_where_it_fits


def settings(
    net: nn.Module,
    optimizer: Optimizer,
    generator: Generator,
    schedule: Callable[[float], float],
    device: torch.device,
    **others: Any,
) -> dict[str, Any]:
    """What a run was told, name by name, for a resumed run to be compared with."""
    names, groups = _names(net), optimizer.param_groups
    told = {key: _plain(x) for key, x in others.items()} | {
        "optimizer": type(optimizer).__qualname__,
        "groups": len(groups),
    }
    for k, group in enumerate(groups):
        told |= {_option(key, k, len(groups)): _plain(x) for key, x in group.items() if key != "params"}
    told |= {
        f"group of {names[p]}": k for k, group in enumerate(groups) for p in group["params"] if p in names
    }
    told |= {f"requires_grad of {name}": p.requires_grad for p, name in names.items()}
    told["generator"] = generator.device.type
    seeds = gather(torch.tensor([generator.initial_seed() % 2**63]), device).flatten().tolist()
    told |= {"seed" if len(seeds) == 1 else f"seed of process {k}": seed for k, seed in enumerate(seeds)}
    told |= {f"schedule at {k}%": round(float(schedule(k / 100)), 9) for k in range(100)}
    return json.loads(json.dumps(told))


@dataclass
class State:
    """All that changes from step to step, and the settings, which must not."""

    net: nn.Module
    ema: EMA
    optimizer: Optimizer
    generator: Generator
    device: torch.device
    settings: dict[str, Any] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def collect(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors and the notes of a checkpoint; every process gives its generator."""
        import flowlib  # here, since it imports this room

        self.ema.renew()  # a buffer may be new
        parts = {"net": tensors(self.net), "ema": self.ema.tensors, "spare": spares(self.net)}
        found = {f"{part}.{name}": x for part, named in parts.items() for name, x in named.items()}
        found["generator"] = gather(self.generator.get_state(), self.device)
        found["history"] = torch.tensor(self.history, dtype=torch.float32)
        found["seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        state = self.optimizer.state_dict()
        names = self._numbers(state)
        state["state"] = {names.get(key, key): entries for key, entries in state["state"].items()}
        plain = (bool, int, float, str, list, tuple, dict, Tensor)  # others are settings, which do not change
        state["param_groups"] = [
            {key: x for key, x in group.items() if key != "params" and isinstance(x, plain)}
            for group in state["param_groups"]
        ]
        notes = {"optimizer": _encode(state, "optimizer", found), "settings": self.settings}
        complex_ones = [name for name, x in found.items() if x.is_complex()]
        versions = {"format": FORMAT, "flowlib": flowlib.__version__, "torch": torch.__version__}
        return found, versions | {
            key: json.dumps(x) for key, x in (notes | {"complex": complex_ones}).items()
        }

    def load(self, file: Path, steps: int, accept_changes: bool) -> None:
        """Take up the state in the file: all of it, or nothing and a ValueError."""
        saved, notes = read(file)
        done, (rank, processes) = saved["history"].numel(), place()
        require(0 < done <= steps, f"{file} holds {done} steps of training, expected from 1 to {steps}")
        rows = len(saved["generator"])
        require(rows == processes, f"{file} is of {rows} processes, expected {processes}")
        parts: dict[str, dict[str, Tensor]] = {
            part: {
                name.removeprefix(part + "."): x for name, x in saved.items() if name.startswith(part + ".")
            }
            for part in ("net", "ema", "spare", "optimizer")
        }
        live = tensors(self.net)
        self.ema.renew()
        fits(parts["net"], live, str(file))
        fits(parts["ema"], self.ema.tensors, f"{file}, the average,")
        try:
            changed = _differences(notes["settings"], self.settings)
            before = _decode(notes["optimizer"], parts["optimizer"], file)
            before = {"state": before["state"], "param_groups": before["param_groups"]} | before
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a whole checkpoint: {type(error).__name__} {error}") from error
        recast = {f"dtype of {name}": (parts["net"][name].dtype, x.dtype) for name, x in live.items()}
        changed |= {name: pair for name, pair in recast.items() if pair[0] != pair[1]}
        told = [f"{name}: the file has {old}, this run {new}" for name, (old, new) in changed.items()]
        require(
            accept_changes or not told,
            f"{file} is of a run with other settings. "
            + "; ".join(told[:8])
            + f"; and {len(told) - 8} more" * (len(told) > 8)
            + ". Go back to those of the file, or pass accept_changes=True to go on with these",
        )
        require(
            not parts["optimizer"], f"{file} has tensors that no optimizer left: {sorted(parts['optimizer'])}"
        )
        taken_up = self._optimizer(before, changed)
        own = self.generator.get_state()
        if not any(name.startswith(("seed", "generator")) for name in changed):
            row = saved["generator"][rank].clone()  # of a view torch would read the first row
            try:
                Generator(self.generator.device).set_state(row)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"{file} does not hold the state of a generator: {error}") from error
            own = row
        # From here on nothing can fail.
        if taken_up is not None:
            self.optimizer.load_state_dict(taken_up[0])
            for p, entries in taken_up[1].items():
                self.optimizer.state[p] = _as_saved(self.optimizer.state[p], entries, p)
        write(parts["net"], live, str(file))
        write(parts["ema"], self.ema.tensors, str(file))
        write_where_it_fits(parts["spare"], spares(self.net))
        self.ema.updates = done
        self.generator.set_state(own)
        self.history += saved["history"].tolist()
        self.seconds = float(saved["seconds"])

    def _numbers(self, state: dict[str, Any]) -> dict[int, str]:
        """The names of the parameters that the optimizer's state_dict numbers."""
        names, numbers = _names(self.net), {}
        for numbered, group in zip(state["param_groups"], self.optimizer.param_groups, strict=True):
            for number, p in zip(numbered["params"], group["params"], strict=True):
                require(
                    p in names,
                    f"the optimizer trains a tensor {tuple(p.shape)} that is no parameter of the network: "
                    f"make it one, or a checkpoint would not hold it",
                )
                numbers[number] = names[p]
        return numbers

    def _optimizer(
        self, before: dict[str, Any], changed: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[Tensor, Any]] | None:
        """The optimizer's state_dict as it was, and its exact entries for each parameter of unchanged dtype; None if
        the state must start afresh, since the class is another or an option was switched on or off.
        """
        state, groups = self.optimizer.state_dict(), self.optimizer.param_groups
        options = {
            _option(key, k, len(groups))
            for k, group in enumerate(groups)
            for key in group.keys() - {"lr", "weight_decay", "foreach", "fused", "params"}
        }
        switched = [
            name for name in options & changed.keys() if bool(changed[name][0]) != bool(changed[name][1])
        ]
        if "optimizer" in changed or switched:
            return None
        parameters = {name: p for p, name in _names(self.net).items()}
        numbers = {name: number for number, name in self._numbers(state).items()}
        entries = {  # of what is no longer optimized, as `changed` tells, nothing is kept
            key: x for key, x in before["state"].items() if key in numbers or key not in parameters
        }
        if len(before["param_groups"]) == len(groups):
            for k, (group, old) in enumerate(zip(state["param_groups"], before["param_groups"], strict=True)):
                group |= {key: x for key, x in old.items() if _option(key, k, len(groups)) not in changed}
        exact = {
            parameters[key]: x
            for key, x in entries.items()
            if key in numbers and f"dtype of {key}" not in changed
        }
        state["state"] = {numbers.get(key, key): x for key, x in entries.items()}
        return before | state, exact


class Checkpoint:
    """A run's state and its file, as long as the run lasts; of several processes the first alone holds the file."""

    def __init__(
        self, path: str | Path, state: State, *, steps: int, resume: bool, accept_changes: bool
    ) -> None:
        try:
            file = Path(path).expanduser().resolve()  # a link stays a link, and the folder may change
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"checkpoint={path} is no path: {error}") from error
        self.state, self.target = state, None
        try:
            with together(state.device):
                if place()[0] == 0:
                    self.target = Target(file)
            with together(state.device):
                if resume and file.exists():
                    state.load(file, steps, accept_changes)
            done = gather(torch.tensor([len(state.history)]), state.device).flatten().tolist()
            require(
                len(set(done)) == 1,
                f"the processes have found {done} steps done in {file}: all must see the same file",
            )
            self.save(replace=False)
        except BaseException:
            self.close()
            raise

    def save(self, *, replace: bool = True) -> None:
        """Write the state; without `replace` only try."""
        found, notes = self.state.collect()
        with together(self.state.device):
            if self.target:
                self.target.write(found, notes, replace=replace)

    def room(self) -> None:
        """OSError if what a checkpoint needs, now that the optimizer has its state, is not free."""
        needed = size(self.state.collect()[0])
        with together(self.state.device):
            if self.target and needed > (free := self.target.free()):
                raise OSError(f"checkpoint {self.target.file} needs {needed} bytes, and {free} are free")

    def close(self) -> None:
        """Let other runs have the file."""
        if self.target:
            self.target.close()


def _names(net: nn.Module) -> dict[Tensor, str]:
    return dict(zip(net.parameters(), tensors(net), strict=False))  # parameters come first


def _option(key: str, group: int, groups: int) -> str:
    return key if groups == 1 else f"{key} of group {group}"


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs; the number of steps does not count where the schedule stays the same throughout."""
    changed = {name: (old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)}
    if len({x for told in (old, new) for name, x in told.items() if name.startswith("schedule at")}) == 1:
        changed.pop("steps", None)
    return changed


def _plain(x: Any) -> Any:
    """A setting as JSON can hold it."""
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, list | tuple):
        return [_plain(y) for y in x]
    if isinstance(x, dict):
        return {str(key): _plain(y) for key, y in x.items()}
    if hasattr(x, "tolist"):
        return x.tolist()
    return (
        str(x)
        if isinstance(x, torch.dtype | torch.device)
        else getattr(x, "__qualname__", type(x).__qualname__)
    )


def _encode(x: Any, name: str, found: dict[str, Tensor]) -> Any:
    """The optimizer's state as JSON; tensors go to `found`, under a name."""
    if isinstance(x, Tensor):
        while name in found:
            name += "'"
        found[name] = x.detach()
        return {"tensor": [name.removeprefix("optimizer."), [*x.shape], str(x.dtype)]}
    if isinstance(x, dict):
        pairs = ((k, y, f"{name}.{k}".replace("optimizer.state.", "optimizer.", 1)) for k, y in x.items())
        return {"dict": [[_encode(k, name, found), _encode(y, inner, found)] for k, y, inner in pairs]}
    if isinstance(x, tuple | list):
        return {type(x).__name__: [_encode(y, f"{name}.{k}", found) for k, y in enumerate(x)]}
    known = x is None or type(x) in (bool, int, float, str)
    require(known, f"a checkpoint cannot hold {name}: a {type(x).__name__}", TypeError)
    return x


def _decode(x: Any, found: dict[str, Tensor], file: Path) -> Any:
    """What `_encode` encoded; the tensors in it leave `found`."""
    if not isinstance(x, dict):
        return x
    ((kind, inner),) = x.items()
    if kind == "tensor":
        name, shape, dtype = inner
        got = ([*found[name].shape], str(found[name].dtype)) if name in found else "nothing"
        require(
            got == (shape, dtype), f"{file} has {got} as the optimizer's {name}, expected {(shape, dtype)}"
        )
        return found.pop(name)
    if kind == "dict":
        return {_decode(k, found, file): _decode(y, found, file) for k, y in inner}
    return {"list": list, "tuple": tuple}[kind](_decode(y, found, file) for y in inner)


def _as_saved(loaded: Any, saved: Any, p: Tensor) -> Any:
    """What torch has put on the right device, with the dtype that it had, and with the parameter's strides, which fused
    optimizers rely on.
    """
    if isinstance(saved, Tensor):
        form = p.detach() if saved.shape == p.shape else saved
        return torch.empty_like(form, dtype=saved.dtype, device=loaded.device).copy_(saved)
    if isinstance(saved, dict):
        return {key: _as_saved(loaded[key], x, p) for key, x in saved.items()}
    if isinstance(saved, tuple | list):
        return type(saved)(_as_saved(x, y, p) for x, y in zip(loaded, saved, strict=True))
    return saved
