"""Train the text-to-image model of chapter 10, measure how well it obeys, and ship it:

    python -m flowcourse.shapes autoencoder     # about 25 minutes of one core
    python -m flowcourse.shapes unpack          # instead: take the one that comes with the course
    python -m flowcourse.shapes model           # four hours of two cores
    python -m flowcourse.shapes student         # three hours of one core
    python -m flowcourse.shapes evaluate
    python -m flowcourse.shapes ship            # into the course
    torchrun --nproc_per_node 4 -m flowcourse.shapes model     # the same on four GPUs, a batch on each

Each command can be stopped at any time; called again it goes on where its last checkpoint was, and on as many threads
it ends with the very bits of a run that was never interrupted. Checkpoints and logs, JSON lines, go to the folder
`_build/shapes`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Generator

from flowcourse.shapes import shipped, train
from flowcourse.shapes.model import TextToImage
from flowcourse.shapes.scenes import sample
from flowcourse.shapes.student import load_student, train_student


def autoencoder(told: argparse.Namespace) -> None:
    """Train the autoencoder, and count what it spoils."""
    net = train.train_autoencoder(told.folder)
    scenes = sample(2000, generator=Generator().manual_seed(3))
    print(f"{train.changed(net, scenes)} of {len(scenes)} scenes look otherwise when decoded")


def model(told: argparse.Namespace) -> None:
    """Train the model, in one process or several."""
    with train.processes():
        train.train_model(
            told.folder,
            steps=told.steps or 24_000,
            compile=not told.eager,
            start=shipped.begin("model", told.folder) if told.from_shipped else None,
            accept_changes=told.accept_changes,
        )


def student(told: argparse.Namespace) -> None:
    """Train the student."""
    train_student(
        told.folder,
        steps=told.steps or 10_000,
        n=told.trajectories,
        first=told.first,
        scale=told.scale,
        lr=told.lr,
        compile=not told.eager,
        start=shipped.begin("student", told.folder) if told.from_shipped else None,
        accept_changes=told.accept_changes,
    )


def evaluate(told: argparse.Namespace) -> None:
    """Measure and print how well they obey."""
    file = told.folder / "model.safetensors"
    models = {("model", train.steps_done(file)): train.load_model(told.folder)}
    if (taught := told.folder / "student.safetensors").exists():
        models["student", train.steps_done(taught)] = load_student(told.folder)
    if told.all:
        for kept in sorted((told.folder / "snapshots").glob("*.safetensors")):
            net = TextToImage(generator=Generator()).eval().requires_grad_(False)
            net.load_state_dict(load_file(kept))
            models["model", int(kept.stem)] = net
    decoder = train.load_autoencoder(told.folder)
    for (name, step), net in sorted(models.items()):
        steps = 4 if net.student else 20
        results = train.evaluate(
            net,
            decoder,
            n=told.n,
            guidance_scale=told.scale,
            steps=steps,
            generator=Generator().manual_seed(4),
        )
        print(f"{name} after {step} steps of training, guidance {told.scale:g}, {steps} steps, n = {told.n}")
        for skill, it in results.items():
            low, high = it.interval
            print(f"{skill:22} {it.obeyed / it.n:6.1%}   {low:.1%} to {high:.1%}")
        obeyed = {skill: it.obeyed for skill, it in results.items()}
        line = {"name": name, "step": step, "guidance_scale": told.scale, "n": told.n, "obeyed": obeyed}
        with (told.folder / "adherence.jsonl").open("a") as opened:
            opened.write(json.dumps(line) + "\n")


def unpack(told: argparse.Namespace) -> None:
    """Put the shipped autoencoder where a training of the model finds it."""
    shipped.unpack(told.folder)


def ship(told: argparse.Namespace) -> None:
    """Round what was trained, and put it into the course."""
    print("shipped", *shipped.ship(told.folder))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    command.__name__: command for command in (autoencoder, unpack, model, student, evaluate, ship)
}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flowcourse.shapes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, default=train.FOLDER, help="of checkpoints and logs")
    parser.add_argument("--steps", type=int, help="of a training, if not as many as usual")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on with another number of steps, or other trajectories",
    )
    parser.add_argument(
        "--from-shipped", action="store_true", help="begin with the weights of the shipped model or student"
    )
    parser.add_argument("--eager", action="store_true", help="do not compile the network")
    parser.add_argument("-n", type=int, default=200, help="prompts a skill")
    parser.add_argument(
        "--scale", type=float, default=4.0, help="of the guidance that a student learns, or that is measured"
    )
    parser.add_argument("--trajectories", type=int, default=84_000, help="of the teacher, for the student")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="of all, from which on: for a student that is to go on with others than it has seen",
    )
    parser.add_argument("--lr", type=float, default=2e-3, help="the student's learning rate")
    parser.add_argument("--all", action="store_true", help="evaluate also what was kept at earlier steps")
    told = parser.parse_args(arguments)
    if told.what != "model" and "RANK" in os.environ:
        parser.error(f"{told.what} runs in one process; only the model's training is shared by several")
    COMMANDS[told.what](told)


if __name__ == "__main__":
    main()
