"""The scenes: explorables that chapters show, each with its script beside it."""

from flowcourse.scenes.averaging import averaging_explorer
from flowcourse.scenes.cells import power_diagram
from flowcourse.scenes.crowds import crowds_explorer
from flowcourse.scenes.density import density_explorer
from flowcourse.scenes.flow import flow_explorer
from flowcourse.scenes.flow_map import flow_map_explorer
from flowcourse.scenes.frames import frames_explorable
from flowcourse.scenes.guidance import guidance_board
from flowcourse.scenes.layers import layers_explorer
from flowcourse.scenes.pairing import pairing_board
from flowcourse.scenes.paths import paths_explorer
from flowcourse.scenes.prompt import prompt_box
from flowcourse.scenes.solver import solver_explorer
from flowcourse.scenes.spacetime import spacetime_explorer
from flowcourse.scenes.trainer import trainer_board
from flowcourse.scenes.variables import change_of_variables_explorer

__all__ = [
    "averaging_explorer",
    "change_of_variables_explorer",
    "crowds_explorer",
    "density_explorer",
    "flow_explorer",
    "flow_map_explorer",
    "frames_explorable",
    "guidance_board",
    "layers_explorer",
    "pairing_board",
    "paths_explorer",
    "power_diagram",
    "prompt_box",
    "solver_explorer",
    "spacetime_explorer",
    "trainer_board",
]
