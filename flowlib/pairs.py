"""Streams of paired batches: couplings larger than a batch, found while the network trains (chapter 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from flowlib import checks
from flowlib.couplings import Coupling, optimal


class Pairs(IterableDataset[tuple[Tensor, ...]]):
    """An endless stream of batches (x_0, x_1, ...): `large` points are drawn, coupled once, and cut into batches.

    Pairs of a larger coupling cross less, and a batch of them is as random as any. Each large batch has a seed of its
    own, so that a stream started at step `first` gives what an earlier one gave from there on, as a resumed run needs.

    Args:
        draw: called as draw(large, generator=generator); returns (x_0, x_1) and whatever belongs to x_1, as tensors.
        batch: how many points a batch has.
        large: how many are coupled at once, a multiple of batch; `batch` if None.
        coupling: re-pairs x_0. It must do so in random order or leave x_1's: pieces are cut in the order of x_1.
        generator: gives the seed of the stream, once; the draws themselves are made on its device.
        first: the step to start at.
        labelled: hand the coupling what stands beside x_1, the third that draw returns, as its `labels`.

    Source: Zhang et al. (2025), section 4; Cheng & Schwing (2025), section 3.3, who call it oversampling.

    >>> def draw(n, generator):
    ...     return torch.randn(n, 2, generator=generator), torch.rand(n, 2, generator=generator)
    >>> x_0, x_1 = next(iter(Pairs(draw, 256, large=2048, generator=Generator().manual_seed(0))))
    >>> x_0.shape, x_1.shape
    (torch.Size([256, 2]), torch.Size([256, 2]))
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Tensor, ...]],
        batch: int,
        *,
        large: int | None = None,
        coupling: Coupling = optimal,
        generator: Generator | None = None,
        first: int = 0,
        labelled: bool = False,
    ) -> None:
        super().__init__()
        large = batch if large is None else large
        checks.whole(batch=batch, large=large)
        checks.whole(0, first=first)
        checks.require(
            large % batch == 0, f"large must be a multiple of batch, got large={large} and batch={batch}"
        )
        self.draw, self.batch, self.large, self.coupling, self.first = draw, batch, large, coupling, first
        self.labelled = labelled
        self.device = generator.device if generator else torch.device("cpu")
        self.seed = int(torch.randint(2**53, (), generator=generator, device=self.device))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """The batches from step `first` on."""
        step, pieces = self.first, self.large // self.batch
        while True:
            number, start = divmod(step, pieces)
            drawn = self.coupled(number)
            for piece in range(start, pieces):
                yield tuple(x[piece * self.batch : (piece + 1) * self.batch] for x in drawn)
            step += pieces - start

    def coupled(self, number: int) -> tuple[Tensor, ...]:
        """The large batch of this number, coupled."""
        generator = Generator(self.device).manual_seed(self.seed + number)
        drawn = self.draw(self.large, generator=generator)
        sizes = [len(x) for x in drawn]
        checks.require(
            len(drawn) >= 2 + self.labelled and set(sizes) == {self.large},
            f"draw must return x_0, x_1 and {'labels' if self.labelled else 'what belongs to x_1'}, "
            f"{self.large} of each, got {sizes}",
        )
        x_0, x_1, *others = drawn
        known = {"labels": others[0]} if self.labelled else {}
        paired, kept = self.coupling(x_0, x_1, generator=generator, **known)
        checks.require(
            kept is x_1, "a coupling must return x_1 itself, so that what belongs to it stays beside it"
        )
        return paired, x_1, *others


def ahead(pairs: Pairs, *, batches: int = 16, context: str | None = None) -> Iterator[tuple[Tensor, ...]]:
    """The same batches, bit for bit, made by a process beside this one, at most so many ahead of their use.

    The process ends when the iterator is dropped. An error in it is raised here. It draws on the CPU.

    Args:
        pairs: the stream. Where processes are spawned (macOS, Windows) its `draw` and its coupling must be functions
            of a module or partials of such, and no notebook's own; a script starts under `if __name__ == "__main__":`.
        batches: how many may wait.
        context: how the process starts, such as "spawn"; the platform's own way if None.
    """
    checks.whole(batches=batches)
    checks.require(
        pairs.device.type == "cpu",
        f"a process beside this one draws on the CPU, got a generator on {pairs.device}: move its batches instead",
    )
    loader: Any = DataLoader(
        pairs,
        batch_size=None,
        num_workers=1,
        prefetch_factor=batches,
        multiprocessing_context=context,
        generator=Generator(),  # or it draws from torch's own
    )
    return iter(loader)
