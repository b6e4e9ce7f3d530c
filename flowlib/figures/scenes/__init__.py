"""The scenes: explorables that chapters show, each with its script in `js/scenes/`."""

from flowlib.figures.scenes.averaging import averaging_explorer
from flowlib.figures.scenes.density import density_explorer
from flowlib.figures.scenes.flow import flow_explorer
from flowlib.figures.scenes.frames import frames_explorable
from flowlib.figures.scenes.layers import layers_explorer
from flowlib.figures.scenes.paths import paths_explorer
from flowlib.figures.scenes.solver import solver_explorer
from flowlib.figures.scenes.spacetime import spacetime_explorer
from flowlib.figures.scenes.variables import change_of_variables_explorer

__all__ = [
    "averaging_explorer",
    "change_of_variables_explorer",
    "density_explorer",
    "flow_explorer",
    "frames_explorable",
    "layers_explorer",
    "paths_explorer",
    "solver_explorer",
    "spacetime_explorer",
]
