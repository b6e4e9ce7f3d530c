"""What every test relies on: one thread, the same examples each time, and global generators that nobody touches."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import matplotlib as mpl
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
mpl.use("agg")
hypothesis.settings.register_profile("course", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("course")


def _global_states() -> dict[str, bytes]:
    _, key, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": key.tobytes() + bytes([position % 256]),
    }


@pytest.fixture(autouse=True)
def _global_generators_stay_untouched() -> Iterator[None]:
    """Randomness enters through `generator=` alone; a test that must seed torch uses `torch.random.fork_rng()`."""
    before = _global_states()
    yield
    drawn = [name for name, state in _global_states().items() if state != before[name]]
    if drawn:
        pytest.fail(
            f"this test changed the global generator of {' and '.join(drawn)}: pass generator= instead"
        )
