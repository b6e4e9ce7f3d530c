"""How sure a share is that was counted."""

from __future__ import annotations

import math

from flowlib import checks


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of which `right` out of n were counted (Wilson 1927), at 95% by default.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),     p = right / n

    >>> [round(end, 3) for end in wilson(98, 100)]
    [0.93, 0.994]
    """
    checks.require(n > 0 and 0 <= right <= n, f"expected 0 <= right <= n and n > 0, got {right} and {n}")
    p, half = right / n, z**2 / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + half / (2 * n))
    return max((p + half - spread) / (1 + 2 * half), 0.0), min((p + half + spread) / (1 + 2 * half), 1.0)
