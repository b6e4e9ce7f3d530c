"""The trained networks that lie beside this file, in half precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import nn

from flowcourse.handwritten.classifiers import Classifier, Judge
from flowlib import checks
from flowlib.unet import UNet

WIDTHS = (32, 96)
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "velocity": partial(UNet, 1, WIDTHS, patch=2, classes=10),
    "weak velocity": partial(UNet, 1, (16, 32), patch=2, classes=10),
    "distilled": partial(UNet, 1, WIDTHS, patch=2, classes=10, scaled=True),
    "classifier": Classifier,
    "clean classifier": Classifier,
    "judge": Judge,
}


def load(name: str) -> nn.Module:
    """A trained network, in float32, in evaluation mode, and frozen: call requires_grad_() on it to train it on.

    - "velocity": the field v(x, t, *, label), with label NULL for any digit.
    - "weak velocity": a smaller one, trained for less time: the bad version of itself that autoguidance needs.
    - "distilled": the field guided at any scale, in one pass: v(x, t, *, label, scale).
    - "classifier": log p_t(y | x) (B, 10) of noisy images, classifier(x, t).
    - "clean classifier": the same network, which has never seen noise.
    - "judge": log p(y | x) (B, 10) of clean images, judge(x), and judge.features(x); nothing is guided by it.

    On a CPU the fields take two thirds of the time after .to(memory_format=torch.channels_last), where torch has no
    forward-mode derivative of their norms.

    >>> load("judge")(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    from safetensors.torch import load_file

    checks.one_of("name", name, tuple(NETWORKS))
    net = NETWORKS[name](generator=torch.Generator().manual_seed(0))
    with as_file(files("flowcourse.handwritten") / _file(name)) as file:
        net.load_state_dict(load_file(file))
    return net.eval().requires_grad_(False)


def save(net: nn.Module, name: str, folder: Path) -> None:
    """Write a network's weights where `load` finds them, in half precision."""
    from safetensors.torch import save as packed

    halves = {key: x.half().contiguous() for key, x in net.state_dict().items()}
    (folder / _file(name)).write_bytes(packed(halves))


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.safetensors"
