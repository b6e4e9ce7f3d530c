"""The explorables' scripts in V8."""

import json
from pathlib import Path

import pytest
from py_mini_racer import MiniRacer

from flowcourse.assets import linked, modules
from flowcourse.palette import LIGHT
from flowcourse.shapes import shipped
from tests.random_weights import write

SCENES = (
    "averaging",
    "cells",
    "crowds",
    "density",
    "flow",
    "flow_map",
    "frames",
    "guidance",
    "layers",
    "pairing",
    "paths",
    "prompt",
    "solver",
    "spacetime",
    "trainer",
    "variables",
)
HAND = Path(__file__).with_name("hand.js")


@pytest.fixture(scope="session")
def browser():
    """Evaluates an expression with all that the scripts export and with `it` of hand.js; values travel as JSON."""
    with MiniRacer() as context:
        roots = [
            "explorables/still.js",
            "explorables/engine.js",
            "quiz.js",
            "shapes/painter.js",
            *(f"scenes/{scene}.js" for scene in SCENES),
        ]
        for path in dict.fromkeys(path for root in roots for path in modules(root)):
            context.eval(linked(path))
        context.eval(
            """for (const [file, exports] of Object.entries(flowcourse))
              for (const [name, value] of Object.entries(exports)) {
                if (file === "sources") continue; // texts, by file
                if (Object.hasOwn(globalThis, name)) throw new Error(`${file}.js exports another ${name}`);
                globalThis[name] = value;
              }"""
        )
        context.eval(HAND.read_text(encoding="utf-8"))

        def evaluate(expression, **values):
            definitions = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
            return json.loads(
                context.eval(f"(() => {{ {definitions} return JSON.stringify({expression}) }})()")
            )

        yield evaluate


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """Chapter 10's networks with weights that nobody trained, shipped in place of those that were."""
    folder = tmp_path_factory.mktemp("shapes")
    nets = write(folder / "runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shipped, "FOLDER", folder / "shipped")
        shipped.ship(folder / "runs", shipped.FOLDER)
        yield nets


@pytest.fixture(scope="session")
def scene_of(browser):
    """The value of an expression about `it`, a figure's scene with the values of its controls, or with others."""

    def evaluate(figure, expression, **values):
        return browser(
            f"(() => {{ const it = tried({figure.scene}, spec, values, colors); return {expression} }})()",
            spec=figure.spec,
            values={**figure.values, **values},
            colors=LIGHT,
        )

    return evaluate
