"""The still picture of an explorable: what its scene draws first, recorded in V8 as SVG.

Where V8 is not installed (the package mini-racer), as in Colab, there is none, and the page draws the picture itself.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
from functools import cache, lru_cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from flowcourse.assets import linked, modules
from flowcourse.palette import LIGHT

VARIABLES = {color.upper(): f"var(--flow-{role})" for role, color in LIGHT.items()}
FINE = 4  # places to a pixel in svg.js
LEVELS = 25  # of transparency in the image of a density


@cache
def available() -> bool:
    """Whether pictures can be recorded here."""
    return importlib.util.find_spec("py_mini_racer") is not None


@cache
def machine() -> Any:
    """V8 with the recorder."""
    from py_mini_racer import MiniRacer

    context = MiniRacer()
    for path in modules("explorables/still.js"):
        context.eval(linked(path))
    return context


@lru_cache(maxsize=64)
def recorded(scene: str, spec: str, values: str, sizes: str) -> tuple[tuple[str, ...], str]:
    """What a scene with this specification and these values of its controls first draws in panels of these sizes.

    Args:
        scene: the name of its file and function.
        spec, values: JSON.
        sizes: JSON, a list of [width, height] in pixels.

    Returns:
        The SVG of each panel, and the line of text. Equal arguments give equal results.
    """
    context = machine()
    for path in modules(f"scenes/{scene}.js"):
        context.eval(linked(path))
    drawing = f"flowcourse.{scene}.{scene}, {spec}, {values}, {sizes}, {json.dumps(LIGHT)}"
    found = json.loads(context.eval(f"JSON.stringify(flowcourse.still.still({drawing}))"))
    return tuple(map(themed, found["drawn"])), found["said"]


def themed(svg: str) -> str:
    """The drawing with the roles' colors as variables, so that it follows the page, and with its images."""
    colored = re.sub(r'(?<=fill="|roke=")(#\w+|rgb\([^)]*\))', lambda found: _variable(found[1]), svg)
    return re.sub(r"\{([^}]+)\}", lambda found: _image(found[1]), colored)


def _variable(color: str) -> str:
    if color.startswith("rgb"):
        color = "#" + "".join(f"{round(float(part)):02x}" for part in color[4:-1].split(","))
    return VARIABLES.get(color.upper(), color)


def _image(pixels: str) -> str:
    """A picture of one color as the address of a PNG: width, height, red, green, blue, and each pixel's alpha."""
    width, height, *rest = map(int, pixels.split())
    alpha = np.array(rest[3:], dtype=np.uint8).reshape(height, width)
    coarse = np.round(alpha / 150 * LEVELS) * (150 / LEVELS)
    color = np.broadcast_to(np.array(rest[:3], dtype=np.uint8), (height, width, 3))
    buffer = io.BytesIO()
    plt.imsave(buffer, np.dstack([color, coarse.astype(np.uint8)]), format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
