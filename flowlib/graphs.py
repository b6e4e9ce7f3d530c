"""What autograd's graph tells of a field: on which tensors its answer depends, and where it hides that it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from flowlib.fields import Field


@torch.no_grad()
def require_constant(
    v: Field, x: Tensor, t: Tensor | float, velocity: Tensor, cond: dict[str, object]
) -> None:
    """RuntimeError if a velocity without a graph back to x is another one a little away from x."""
    nearby = v(x + torch.finfo(x.dtype).eps ** 0.5 * (1 + x.abs()), t, **cond)
    if not torch.equal(nearby, velocity):
        raise RuntimeError(
            "the field's velocity depends on x but has no graph back to it, so its derivative is not to be had: the "
            "field detaches x, or computes under torch.no_grad() or outside of torch"
        )


def reaches(value: Tensor, x: Tensor) -> bool:
    """Whether value has a graph back to x, a tensor that requires gradients."""
    return value is x or any(
        node is x.grad_fn or getattr(node, "variable", None) is x for node in _graph(value, set())
    )


def stranger(value: Tensor, known: Sequence[Tensor]) -> Tensor | None:
    """A leaf that wants a gradient and on which value depends, other than by way of the known tensors; or None."""
    names = {id(x) for x in known}
    leaves = (
        getattr(node, "variable", None) for node in _graph(value, {x.grad_fn for x in known if x.grad_fn})
    )
    return next((leaf for leaf in leaves if leaf is not None and id(leaf) not in names), None)


def _graph(value: Tensor, end: set[Node]) -> Iterator[Node]:
    """The nodes of the graph behind value, without those of `end` and what only they lead to."""
    seen, waiting = set(end), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]
