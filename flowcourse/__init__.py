"""flowcourse: what the chapters of the course need beside the mathematics of flowlib.

Claims, exercises that grade themselves, live labs, figures, explorables, and the model family with its leaderboard. The
names below load their files when they are first asked for: `flowcourse.palette` alone imports nothing heavy.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "budgets": ("budget", "device", "generator"),
    "claims": ("ClaimError", "claim"),
    "exercises": ("GradeError", "check", "hint"),
    "figures.style": (
        "colors",
        "density",
        "lines",
        "loglog_order",
        "panels",
        "plane",
        "quiver",
        "scatter",
        "trajectories",
        "warped_grid",
    ),
    "figures.svg": ("show",),
    "labs": ("lab", "slider"),
    "pages": ("hints", "quiz", "table"),
}
_ROOM_OF = {name: f"flowcourse.{room}" for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"flowcourse has no {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_ROOM_OF[name]), name)
    return value
