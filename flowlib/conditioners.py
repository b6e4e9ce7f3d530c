"""Conditioners: the networks that decide how each coordinate is mapped, for `coupling_layers` and `autoregressive`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flowlib.splines import Bijection


def perceptron(layers: Sequence[nn.Linear]) -> nn.Sequential:
    """The layers with ReLU between them, whose kinks follow sharp edges of a density; the last starts at zero."""
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    first, *others = layers
    return nn.Sequential(first, *[module for layer in others for module in (nn.ReLU(), layer)])


def theta_of(net: nn.Module, x: Tensor, bijection: Bijection) -> Tensor:
    """What maps each coordinate, (..., coordinates, count), in the dtype of the points x, whatever the network's."""
    try:
        theta = net(x)
    except RuntimeError:  # to look before it fails would make a coupling 5% slower
        dtype = next(net.parameters(), x).dtype
        if dtype == x.dtype:
            raise
        theta = net(x.to(dtype))
    return theta.to(x.dtype).unflatten(-1, (-1, bijection.count))


def checked(bijection: Bijection) -> Bijection:
    """The bijection itself, if it is one, and not the class of one."""
    parts = () if isinstance(bijection, type) else ("count", "forward", "inverse")
    if not parts or not all(hasattr(bijection, part) for part in parts):
        raise TypeError(f"bijection must be an object such as AffineBijection(), got {bijection!r}")
    return bijection
