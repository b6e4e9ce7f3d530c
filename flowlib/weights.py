"""The tensors of a network by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from flowlib.checks import require


def bare(net: nn.Module) -> nn.Module:
    """The network inside what torch.compile and data-parallel wrappers have made of it."""
    wrapped = isinstance(net, nn.DataParallel | DistributedDataParallel)
    inner = net.module if wrapped else getattr(net, "_orig_mod", None)
    return bare(inner) if isinstance(inner, nn.Module) else net


def tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters, then persistent buffers, under the names that they have in a network of which no part is compiled."""
    pairs = [*bare(net).named_parameters(), *_buffers(bare(net), persistent=True)]
    lazy = [name for name, x in pairs if is_lazy(x)]
    require(
        not lazy, f"the network has no values yet for {lazy}: call it once with a batch, to give them shapes"
    )
    return {clean(name): x.detach() for name, x in pairs}


def spares(net: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not persistent, such as caches: they may come and go."""
    return {clean(name): x.detach() for name, x in _buffers(bare(net), persistent=False) if not is_lazy(x)}


def fits(source: Mapping[str, Tensor], target: Mapping[str, Tensor], what: str) -> None:
    """ValueError unless both have the same names and shapes."""
    has, expected = ({(name, tuple(x.shape)) for name, x in part.items()} for part in (source, target))
    require(
        has == expected,
        f"{what} does not fit the network: it has {sorted(has - expected)} "
        f"where {sorted(expected - has)} is expected",
    )


def write(source: Mapping[str, Tensor], target: Mapping[str, Tensor], what: str) -> None:
    """Write the source's values into the target's tensors, all or none."""
    fits(source, target, what)
    for name, x in target.items():
        new = source[name]
        for dim, stride in enumerate(x.stride() if x.layout == torch.strided else ()):
            if stride == 0:  # expanded: one number in memory stands for all
                x, new = x[(slice(None),) * dim + (slice(1),)], new[(slice(None),) * dim + (slice(1),)]
        x.copy_(new)


def write_where_it_fits(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Write what has the same name, shape and dtype in both."""
    both = [
        name
        for name, x in target.items()
        if name in source and (source[name].shape, source[name].dtype) == (x.shape, x.dtype)
    ]
    write({name: source[name] for name in both}, {name: target[name] for name in both}, "")


def _buffers(net: nn.Module, *, persistent: bool) -> Iterator[tuple[str, Tensor]]:
    for path, module in net.named_modules():
        for key, x in module._buffers.items():
            if x is not None and (key not in module._non_persistent_buffers_set) == persistent:
                yield f"{path}.{key}" if path else key, x


def clean(name: str) -> str:
    """The name that a tensor has in a network of which no part is compiled."""
    return name.replace("_orig_mod.", "")
