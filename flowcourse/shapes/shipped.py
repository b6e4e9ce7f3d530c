"""The trained networks that come with the course, a byte a weight, and what their training was.

A matrix or convolution becomes whole numbers from -127 to 127, with one scale for each row, that is, for each output;
what is small (biases, norms, the vectors of words) stays in float32. The page loads these very files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Generator, Tensor

from flowcourse.shapes import train
from flowcourse.shapes.model import CONFIG, TextToImage
from flowcourse.shapes.student import load_student
from flowlib import checks
from flowlib.autoencoder import Autoencoder

FOLDER = Path(__file__).with_name("shipped")
SMALL = 8192  # numbers: a matrix of fewer is not rounded
SCALE = ".scale"  # follows the name of a rounded matrix in that of its scales
LOSSES = 60  # of a run, at most, that are kept
# the networks and the runs that trained them, in order
RUNS = {"autoencoder": ("autoencoder", "decoder"), "model": ("model",), "student": ("student",)}
LOADERS = {"autoencoder": train.load_autoencoder, "model": train.load_model, "student": load_student}


def quantize(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with each large matrix W (m, ...) as int8 round(W / s), and each row's s = max |W| / 127 as NAME.scale.

    Rounding moves a weight by s / 2 at most. Whole numbers, such as counts of batches, are left out.
    """
    packed = {}
    for name, x in state.items():
        if not x.is_floating_point():
            continue
        x = x.detach().float().contiguous()
        packed[name] = x
        if x.ndim > 1 and x.numel() >= SMALL:
            rows = x.flatten(1)
            scale = rows.abs().amax(1) / 127
            scale = torch.where(scale > 0, scale, 1.0)  # a row of zeros
            packed[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(x.shape)
            packed[name + SCALE] = scale
    return packed


def restore(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state in float32: the inverse, up to the rounding."""
    return {
        name: x.float() * packed[name + SCALE].reshape(-1, *[1] * (x.ndim - 1))
        if name + SCALE in packed
        else x
        for name, x in packed.items()
        if not name.endswith(SCALE)
    }


def ship(folder: Path = train.FOLDER, to: Path = FOLDER) -> list[str]:
    """Pack the networks whose checkpoints are in the folder, with a file that says how they were trained; their names.

    What is shipped already stays where no training of it is in the folder: no checkpoint, or what `unpack` put there.

    Raises:
        ValueError: no checkpoint of the autoencoder or of the model is there.
    """
    found = [
        name for name, runs in RUNS.items() if all((folder / f"{run}.safetensors").exists() for run in runs)
    ]
    if not {"autoencoder", "model"} <= {*found}:
        raise ValueError(f"{folder} must hold checkpoints of autoencoder and model, got {found or 'none'}")
    to.mkdir(parents=True, exist_ok=True)
    notes = to / "training.json"
    told = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    for name in found:
        if here(name) and not any(train.steps_done(folder / f"{run}.safetensors") for run in RUNS[name]):
            (to / f"{name}.safetensors").write_bytes((FOLDER / f"{name}.safetensors").read_bytes())
            told[name] = training()[name]
            continue
        content = save(quantize(LOADERS[name](folder).state_dict()))
        (to / f"{name}.safetensors").write_bytes(content)
        told[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "runs": {run: _run(folder / f"{run}.safetensors") for run in RUNS[name]},
        }
        for what in ("before", "taught"):  # what it began with, and the trajectories of a student
            if (file := folder / f"{name}.{what}.json").exists():
                told[name][what] = json.loads(file.read_text(encoding="utf-8"))
    notes.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


def unpack(folder: Path = train.FOLDER) -> None:
    """Put the shipped autoencoder where `train.load_autoencoder` finds it, so that a model can learn on its latents.

    The checkpoints that are made hold its weights, not its training.

    Raises:
        FileExistsError: the folder has one already.
        FileNotFoundError: none is shipped.
    """
    whole = autoencoder()
    parts = {"autoencoder": whole.state_dict(), "decoder": whole.decoder.state_dict()}
    for name in parts:
        if (folder / f"{name}.safetensors").exists():
            raise FileExistsError(f"{folder} has a trained {name} already")
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in parts.items():
        (folder / f"{name}.safetensors").write_bytes(save({f"ema.{key}": x for key, x in state.items()}))


def _run(checkpoint: Path) -> dict[str, Any]:
    """Steps, seconds and settings of a run, and its losses (step, mean of the hundred steps before)."""
    with safe_open(checkpoint, "pt") as opened:
        settings = json.loads((opened.metadata() or {}).get("settings", "{}"))
    log = checkpoint.with_suffix(".jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    every = -(-len(lines) // LOSSES) or 1
    kept = [line for k, line in enumerate(lines, start=1) if k % every == 0 or k == len(lines)][-LOSSES:]
    long = ("group of", "requires_grad of", "schedule at")  # a line for each parameter, or each hundredth
    return {
        "steps": train.steps_done(checkpoint),
        "seconds": lines[-1]["seconds"] if lines else None,
        "losses": [[line["step"], line["loss"]] for line in kept],
        "settings": {key: value for key, value in settings.items() if not key.startswith(long)},
    }


def here(name: str) -> bool:
    """Whether a network, one of "autoencoder", "model" and "student", comes with this copy of the course."""
    checks.one_of("name", name, tuple(RUNS))
    return (FOLDER / f"{name}.safetensors").is_file()


def packed(name: str) -> dict[str, Tensor]:
    """The rounded state of a network.

    Raises:
        FileNotFoundError: it does not come with this copy, and how it is made.
    """
    if not here(name):
        raise FileNotFoundError(
            f"the trained {name} does not come with this copy of the course: `python -m "
            "flowcourse.shapes` says how to train and ship it"
        )
    return load((FOLDER / f"{name}.safetensors").read_bytes())


def training() -> dict[str, Any]:
    """How the shipped networks were trained, by name: a checksum; each run's steps, seconds, losses, settings."""
    notes = FOLDER / "training.json"
    told: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    return told


def seconds() -> float:
    """How long all trainings took of what is shipped, those included with whose weights others began."""

    def of(network: dict[str, Any]) -> float:
        earlier = of(network["before"]) if "before" in network else 0.0
        return earlier + sum(run["seconds"] or 0.0 for run in network["runs"].values())

    return sum(map(of, training().values()))


def begin(name: str, folder: Path = train.FOLDER) -> TextToImage:
    """The shipped "model" or "student", for a training in the folder to go on with; `ship` will tell of both."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / f"{name}.before.json"
    if not before.exists():
        before.write_text(json.dumps(training()[name]), encoding="utf-8")
    return model() if name == "model" else student()


def autoencoder() -> Autoencoder:
    """The trained autoencoder; like the others it is frozen, in evaluation mode and in float32."""
    return _loaded(Autoencoder(generator=Generator().manual_seed(0)), "autoencoder")


def model() -> TextToImage:
    """The trained text-to-image model."""
    return _loaded(TextToImage(generator=Generator().manual_seed(0)), "model")


def student() -> TextToImage:
    """The student of the guided model."""
    config = replace(CONFIG, end_input=True)
    return _loaded(TextToImage(config, generator=Generator().manual_seed(0)), "student")


def _loaded(net: train.Net, name: str) -> train.Net:
    state = restore(packed(name))
    counts = {key: x for key, x in net.state_dict().items() if not x.is_floating_point()}
    net.load_state_dict(state | counts)
    return net.eval().requires_grad_(False)
