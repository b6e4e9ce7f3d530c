"""What the prompt box loads when its reader asks for it: scripts that hand a long text over.

A page that was opened as a file may neither fetch nor import; a classic script it may load. So the weights come as
base64 inside of one, and so does the code of the worker that draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from flowcourse import assets
from flowcourse.shapes import shipped

FOLDER = "_static/prompt"  # in the book
NAMES = ("painter", "decoder", "model", "student")


@dataclass(frozen=True)
class Part:
    """A script that hands a text over to the page under a name."""

    name: str
    text: str

    @property
    def script(self) -> str:
        """Its content."""
        return f"flowcourse.prompt.handed({json.dumps(self.name)}, {json.dumps(self.text)});\n"

    @property
    def file(self) -> str:
        """The name of its file, which changes with its content."""
        return f"{self.name}-{hashlib.sha256(self.script.encode()).hexdigest()[:12]}.js"

    @property
    def size(self) -> int:
        """Bytes to load."""
        return len(self.script.encode())


def part(name: str) -> Part:
    """The code of the worker, "painter", or the weights of "decoder", "model" or "student".

    Raises:
        FileNotFoundError: weights that do not come with this copy of the course.
    """
    if name == "painter":
        code = [*map(assets.linked, assets.modules("shapes/painter.js")), "flowcourse.painter.serve(self);"]
        return Part(name, "\n".join(code))
    if name == "decoder":
        state = shipped.packed("autoencoder")
        state = {key: x for key, x in state.items() if key.startswith("decoder.")}
    else:
        state = shipped.packed(name)
    return Part(name, base64.b64encode(save(state)).decode())


def available() -> dict[str, Part]:
    """The parts that this copy of the course can hand over, by name; none without the weights of a model."""
    if not (shipped.here("autoencoder") and shipped.here("model")):
        return {}
    return {name: part(name) for name in NAMES if name != "student" or shipped.here("student")}


def write(folder: Path, files: set[str]) -> None:
    """Write the parts with these names into a folder.

    Raises:
        ValueError: a name that none of them has now.
    """
    made = {one.file: one for one in available().values()}
    for file in sorted(files):
        if file not in made:
            raise ValueError(
                f"a page asks for {file}, which is none of {', '.join(made) or 'no parts'}: execute it again"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(made[file].script, encoding="utf-8")
