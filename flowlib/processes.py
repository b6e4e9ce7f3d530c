"""Several processes that train one network: who is who, and how they agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed


def place() -> tuple[int, int]:
    """The number of this process, and how many share the training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather(x: Tensor, device: torch.device) -> Tensor:
    """The tensors (n,) of all processes (processes, n), on the CPU; sent by way of the device, as NCCL needs."""
    _, processes = place()
    if processes == 1:
        return x[None]
    rows = [torch.empty_like(x, device=device) for _ in range(processes)]
    distributed.all_gather(rows, x.to(device))
    return torch.stack(rows).cpu()


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """What fails in one process fails in all: nobody waits for one that has stopped. Inside, nobody may wait either."""
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = gather(torch.tensor([error is not None]), device).flatten().tolist()
    if error is not None:
        raise error
    if any(failed):
        raise RuntimeError(f"process {failed.index(True)} has stopped: see its message")
