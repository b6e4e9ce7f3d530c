"""The average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.checks import require
from flowlib.weights import bare, clean, spares, tensors, write, write_where_it_fits


class EMA:
    """The exponential moving average of a network's parameters, with a copy of its buffers:

        average <- decay_n average + (1 - decay_n) parameters,      decay_n = min(decay, (1 + n) / (10 + n)),

    in update n = 0, 1, ..., so that the first weights are soon forgotten. The average is kept in
    promote_types(float32, dtype): in bfloat16 it would not move, since (1 - decay) of a change is lost to rounding.
    Integers, and parameters that are not finite at first, are copied too. What the network assigns anew is followed by
    its name, if shape and device stay. Buffers that are not persistent are the network's own affair.

    Args:
        net: the network; prefixes that torch.compile and data-parallel wrappers add to names do not matter.
        decay: in [0, 1); about the last 1 / (1 - decay) steps count.

    Source: Polyak & Juditsky (1992) for averaging; the warm-up is TensorFlow's.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        require(0 <= decay < 1, f"decay must be in [0, 1), got {decay}")
        self.decay, self.updates = decay, 0
        self._net = bare(net)
        self.tensors = {name: x.clone() for name, x in tensors(net).items()}
        moving = {
            name: p
            for name, p in self._net.named_parameters()
            if (p.is_floating_point() or p.is_complex()) and bool(p.detach().isfinite().all())
        }
        for name, p in moving.items():
            self.tensors[clean(name)] = self.tensors[clean(name)].to(
                torch.promote_types(torch.float32, p.dtype)
            )
        self._names, self._parameters = [*moving], [*moving.values()]
        self.averages = [self.tensors[clean(name)] for name in self._names]
        self._locate()

    @torch.no_grad()
    def update(self) -> None:
        """Count the network's present weights in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = self._present()
        if any(map(is_not, present, self._parameters)):
            self._follow(present)
        weights = [x.to(average.dtype) for x, average in zip(present, self.averages, strict=True)]
        try:
            torch._foreach_lerp_(self.averages, weights, 1 - decay)
        except RuntimeError:
            self._follow(present)  # says so if the network has moved to another device
            raise
        self.updates += 1
        if len(self.tensors) > len(self.averages):
            torch._foreach_copy_(*self._copies())

    @contextmanager
    def applied(self, net: nn.Module) -> Iterator[None]:
        """Within this context the network has the averaged weights and is in evaluation mode; afterwards it has its
        own weights, buffers and modes again, to the bit.

            with ema.applied(net):
                x = odeint(net, noise, steps=10)
        """
        if bare(net) is self._net:
            self.renew()
        live, modes = tensors(net), [(module, module.training) for module in net.modules()]
        own, spare = ({name: x.clone() for name, x in part.items()} for part in (live, spares(net)))
        write(self.tensors, live, "the average")
        net.eval()
        try:
            yield
        finally:
            # Both are asked again: a module may have assigned a buffer anew, or a cache have grown.
            write(own, tensors(net), "the network")
            write_where_it_fits(spare, spares(net))
            for module, mode in modes:
                module.training = mode

    def renewed(self) -> list[str]:
        """The parameters that are other objects than at the last update."""
        present = self._present()
        if not any(map(is_not, present, self._parameters)):
            return []
        pairs = zip(self._names, present, self._parameters, strict=True)
        return [clean(name) for name, now, known in pairs if now is not known]

    def renew(self) -> None:
        """Learn of buffers and modules that are new."""
        self._locate()
        self._copies()

    def _copies(self) -> tuple[list[Tensor], list[Tensor]]:
        """What is copied, and of what; a buffer may have come, gone, or changed its shape."""
        live: dict[str, Tensor] = {name: parameters[key] for name, parameters, key in self._constants}
        for path, buffers, passing in self._holders:
            live |= {path + key: x for key, x in buffers.items() if x is not None and key not in passing}
        for name, x in live.items():
            kept = self.tensors.get(name)
            if kept is None or kept.shape != x.shape or kept.dtype != x.dtype or kept.device != x.device:
                self.tensors[name] = x.detach().clone()
        if len(self.tensors) > len(self.averages) + len(live):
            for name in self.tensors.keys() - live.keys() - {clean(name) for name in self._names}:
                del self.tensors[name]
        return [self.tensors[name] for name in live], [*live.values()]

    def _locate(self) -> None:
        """Note where everything is: a walk through the modules in every step would cost more than the average."""
        modules = dict(self._net.named_modules())
        self._links = [
            (modules[path.rpartition(".")[0]]._modules, path.rpartition(".")[2]) for path in modules if path
        ]
        self._children = [module for path, module in modules.items() if path]
        places = {name: name.rpartition(".")[::2] for name in self._names}
        self._places = [
            (modules[path]._parameters if path in modules else {}, key) for path, key in places.values()
        ]
        self._constants = [
            (clean(name), modules[path]._parameters, key)
            for name, (path, _, key) in (
                (name, name.rpartition(".")) for name, _ in self._net.named_parameters()
            )
            if name not in places
        ]
        self._holders = [
            (clean(f"{path}." if path else ""), module._buffers, module._non_persistent_buffers_set)
            for path, module in modules.items()
        ]

    def _present(self) -> list[Any]:
        if any(map(is_not, [modules.get(key) for modules, key in self._links], self._children)):
            self._locate()  # a module is another one
        return [parameters.get(key) for parameters, key in self._places]

    def _follow(self, present: list[Any]) -> None:
        for name, x, average in zip(self._names, present, self.averages, strict=True):
            form = None if x is None else (tuple(x.shape), str(x.device))
            expected = tuple(average.shape), str(average.device)
            require(
                form == expected,
                f"the average cannot follow the network: {clean(name)} is now {form or 'gone'}, "
                f"expected {expected}: make the EMA when the network has its parameters and its device",
            )
        self._parameters = present
