"""The scenes: explorables that chapters show, each with its script in `js/scenes/`."""

from flowcourse.figures.scenes.averaging import averaging_explorer
from flowcourse.figures.scenes.density import density_explorer
from flowcourse.figures.scenes.flow import flow_explorer
from flowcourse.figures.scenes.frames import frames_explorable
from flowcourse.figures.scenes.layers import layers_explorer
from flowcourse.figures.scenes.paths import paths_explorer
from flowcourse.figures.scenes.solver import solver_explorer
from flowcourse.figures.scenes.spacetime import spacetime_explorer
from flowcourse.figures.scenes.variables import change_of_variables_explorer

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
