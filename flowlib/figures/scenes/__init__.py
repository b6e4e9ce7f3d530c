"""The scenes: explorables that chapters show, each with its script in `js/scenes/`."""

from flowlib.figures.scenes.flow import flow_explorer
from flowlib.figures.scenes.frames import frames_explorable
from flowlib.figures.scenes.spacetime import spacetime_explorer

__all__ = ["flow_explorer", "frames_explorable", "spacetime_explorer"]
