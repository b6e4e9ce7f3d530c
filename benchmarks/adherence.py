"""How well the trained text-to-image model and its student obey their prompts: the numbers that chapter 10 claims.

    python -m benchmarks.adherence                            # of the networks that come with the course
    python -m benchmarks.adherence --folder _build/shapes     # of the checkpoints of `python -m flowcourse.shapes`
    python -m benchmarks.adherence --quick                    # a trial of all code, in a minute, that records nothing

Takes about an hour of one CPU core, and writes flowcourse/adherence.json after each measurement. It can be stopped at
any time: what is measured is a line of _build/adherence.jsonl or stands in the record, which know the weights by their
digest, so that only other weights are measured anew.

- "chosen": guidance scale and steps, on captions as training shows them. Of all that are no worse than the best by more
  than the standard error of a share, those with the fewest steps, and then with the greatest share.
- "teacher" and "student": for each skill how many of 1,000 pictures obey, Wilson's interval, and what is wrong with the
  others. The student takes 4 steps, without guidance; in the fourth it goes back and jumps once more.
- "scales" and "steps": the same with 100 pictures at other scales, or other numbers of steps, than the chosen ones.
- "learning": the same with 150 pictures for each snapshot of the model's weights.
- "page": the shipped networks once more, in the prompt box's own arithmetic: how many of 30 pictures a skill obey when
  its scripts draw and judge them, how many when Python does from the same noise, and how many verdicts differ.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from py_mini_racer import MiniRacer
from safetensors.torch import load_file
from torch import Generator

from benchmarks.resuming import Line, Lines
from flowcourse import assets
from flowcourse.intervals import wilson
from flowcourse.shapes import shipped
from flowcourse.shapes.captions import PROMPTS, Demand, describe, judge, prompts
from flowcourse.shapes.detector import detect
from flowcourse.shapes.faults import FAULTS, fault
from flowcourse.shapes.model import TextToImage, draw, landings, moments
from flowcourse.shapes.noise import noise
from flowcourse.shapes.parts import part
from flowcourse.shapes.scenes import sample
from flowcourse.shapes.student import load_student
from flowcourse.shapes.tables import tables
from flowcourse.shapes.train import FOLDER, digest, load_autoencoder, load_model, steps_done
from flowlib.autoencoder import Autoencoder

DATA = Path(__file__).resolve().parent.parent / "flowcourse" / "adherence.json"
BUILD = Path("_build")
JUMPS = 4  # of the student


@dataclass(frozen=True)
class Budget:
    """How many pictures: of all captions for the choice, and else of each skill; and what is tried."""

    choice: int = 300
    table: int = 1000
    sweep: int = 100
    learning: int = 150
    page: int = 30
    scales: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)
    steps: tuple[int, ...] = (2, 4, 8, 12, 20, 32)
    jumps: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    chosen_scales: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0, 5.0)
    chosen_steps: tuple[int, ...] = (12, 20)


QUICK = Budget(6, 3, 2, 2, 1, (1.0, 3.0), (1, 2), (1, 4), (2.0, 3.0), (2, 3))


class Networks(NamedTuple):
    """All that is measured; a student and snapshots (steps, model) may be missing."""

    autoencoder: Autoencoder
    teacher: TextToImage
    student: TextToImage | None
    snapshots: list[tuple[int, TextToImage]]


def networks(folder: Path | None = None) -> Networks:
    """The networks that come with the course, or those of checkpoints in a folder, where snapshots always are."""
    if folder is None:
        autoencoder, teacher = shipped.autoencoder(), shipped.model()
        student = shipped.student() if shipped.here("student") else None
        steps = shipped.training()["model"]["runs"]["model"]["steps"]
    else:
        autoencoder, teacher = load_autoencoder(folder), load_model(folder)
        student = load_student(folder) if (folder / "student.safetensors").exists() else None
        steps = steps_done(folder / "model.safetensors")
    snapshots = []
    for file in sorted(((folder or FOLDER) / "snapshots").glob("*.safetensors")):
        net = TextToImage(teacher.field.config, generator=Generator()).eval().requires_grad_(False)
        net.load_state_dict(load_file(file))
        snapshots.append((int(file.stem), net))
    return Networks(autoencoder, teacher, student, [*snapshots, (steps, teacher)])


# What is measured


def judged(
    net: TextToImage,
    autoencoder: Autoencoder,
    demands: Sequence[Demand],
    scale: float,
    steps: int,
    g: Generator,
) -> Line:
    """How many pictures obey, and how many have which fault."""
    faults: Counter[str] = Counter()
    for first in range(0, len(demands), 100):
        some = demands[first : first + 100]
        pictures = draw(net, autoencoder, [*map(str, some)], guidance_scale=scale, steps=steps, generator=g)
        faults.update(filter(None, map(fault, detect(pictures), some)))
    return {
        "obeyed": len(demands) - faults.total(),
        "n": len(demands),
        "faults": {name: faults[name] for name in FAULTS if faults[name]},
    }


def by_skill(net: TextToImage, autoencoder: Autoencoder, n: int, scale: float, steps: int, seed: int) -> Line:
    """`judged` for n prompts of each skill; with one seed the prompts and the noise are the same for all networks."""
    found = {}
    for k, skill in enumerate(PROMPTS):
        g = Generator().manual_seed(100 * seed + k)
        found[skill] = judged(net, autoencoder, prompts(skill, n, generator=g), scale, steps, g)
    return found


def on_training(net: TextToImage, autoencoder: Autoencoder, n: int, scale: float, steps: int) -> Line:
    """`judged` for n captions of scenes as training shows them."""
    g = Generator().manual_seed(50)
    return judged(net, autoencoder, describe(sample(n, generator=g), generator=g), scale, steps, g)


PAGE = """
(({ painter }, { tables }, parts, jobs) => {
  const it = painter(tables, (told) => found.push(...(told.found ?? []).map((one) => one.obeyed)), () => 0);
  for (const [name, text] of Object.entries(parts)) it.take(name, text);
  (async () => { for (const job of jobs) await it.draw(job); })().catch((error) => found.push(error.message));
  return 0;
})"""


def in_page(method: str, n: int, scale: float, steps: int) -> Line:
    """How many of n pictures a skill obey that the prompt box's scripts draw and judge, and that Python does.

    `method` is "model" or "student", as they come with the course.
    """
    demands = [
        demand
        for k, skill in enumerate(PROMPTS)
        for demand in prompts(skill, n, generator=Generator().manual_seed(400 + k))
    ]
    times = (landings if method == "student" else moments)(steps)
    way = {"method": method, "count": 1, "scale": scale, "moments": times.tolist()}
    jobs = [way | {"id": k, "seed": k, "caption": str(demand)} for k, demand in enumerate(demands)]
    parts = {name: part(name).text for name in ("decoder", method)}
    with MiniRacer() as engine:
        roots = ("explorables/still.js", "shapes/painter.js")  # the first has what else only browsers have
        for path in dict.fromkeys(path for root in roots for path in assets.modules(root)):
            engine.eval(assets.linked(path))
        told = ", ".join(map(json.dumps, ({"tables": tables()}, parts, jobs)))
        engine.eval(f"globalThis.found = []; {PAGE}(flowcourse.painter, {told})")
        by_page = json.loads(engine.eval("JSON.stringify(found)"))  # after all that waited
    net, autoencoder = getattr(shipped, method)(), shipped.autoencoder()
    by_python = []
    for first in range(0, len(demands), 100):
        some = demands[first : first + 100]
        x_0, *again = (
            torch.cat([noise(first + k, 1, turn) for k in range(len(some))]) for turn in range(steps)
        )
        options = {"guidance_scale": scale, "steps": steps, "x_0": x_0, "again": again}
        x = draw(net, autoencoder, [*map(str, some)], **options)
        by_python += map(judge, detect(x), some)
    if len(by_page) != len(by_python):
        raise RuntimeError(f"{len(jobs)} pictures were asked of the page, it answered {by_page[-1:]}")
    return {
        "n": len(jobs),
        "obeyed in the page": sum(by_page),
        "obeyed in Python": sum(by_python),
        "verdicts that differ": sum(a != b for a, b in zip(by_page, by_python, strict=True)),
    }


def choose(tried: Iterable[tuple[float, int, Line]]) -> tuple[float, int]:
    """Of (scale, steps, found) those that the docstring of this file says."""
    rows = [(found["obeyed"] / found["n"], found["n"], scale, steps) for scale, steps, found in tried]
    best, n, *_ = max(rows)
    good = [row for row in rows if row[0] >= best - math.sqrt(best * (1 - best) / n)]
    _, _, scale, steps = min(good, key=lambda row: (row[3], -row[0]))
    return scale, steps


def lines_of(record: Line) -> list[Line]:
    """The lines that a record was made of, but those of snapshots."""
    if not record:
        return []
    digests, budget, lines = record["digests"], record["settings"], []
    decoder = digests["autoencoder"]

    def line(found: Line, **of: object) -> None:
        lines.append({"of": of, "found": found, "seconds": None})

    def skills(net: str, found: Line, n: int, scale: float, steps: int, seed: int) -> None:
        bare = {name: {key: it[key] for key in it if key != "interval"} for name, it in found.items()}
        line(bare, net=[digests[net], decoder], n=n, scale=scale, steps=steps, seed=seed)

    for it in record["chosen"]["tried"]:
        of = {"scale": it["guidance scale"], "steps": it["steps"], "captions": budget["choice"]}
        bare = {key: it[key] for key in ("obeyed", "n", "faults")}
        line(bare, net=[digests["teacher"], decoder], **of)
    w, steps = (record["chosen"][key] for key in ("guidance scale", "steps"))
    skills("teacher", record["teacher"]["skills"], budget["table"], w, steps, 1)
    if "student" in record:
        skills("student", record["student"]["skills"], budget["table"], 1.0, record["student"]["steps"], 1)
        for k, found in record.get("student steps", {}).items():
            skills("student", found, budget["sweep"], 1.0, int(k), 2)
    for scale, found in record.get("scales", {}).items():
        skills("teacher", found, budget["sweep"], float(scale), steps, 2)
    for k, found in record.get("steps", {}).items():
        skills("teacher", found, budget["sweep"], w, int(k), 2)
    for method, it in record.get("page", {}).items():
        how = {"scale": w, "steps": steps} if method == "model" else {"scale": 1.0, "steps": JUMPS}
        bare = {key: value for key, value in it.items() if key != "sha256"}
        line(bare, page=it["sha256"], n=budget["page"], **how)
    return lines


def measure(nets: Networks, lines: Lines, budget: Budget, before: Line) -> Iterable[Line]:
    """The record as far as it is measured, again after each measurement; `before` is one of an earlier call.

    Of a teacher whose snapshots are no longer there the earlier record tells how it learned.
    """
    record: Line = {
        "machine": f"{platform.machine()} CPU, torch {torch.__version__.split('+')[0]}",
        "settings": asdict(budget),
        "digests": {"autoencoder": digest(nets.autoencoder), "teacher": digest(nets.teacher)},
    }
    decoder = digest(nets.autoencoder)

    def skills(net: TextToImage, n: int, scale: float, steps: int, seed: int) -> Line:
        """By skill, with Wilson's interval of the share."""
        of = {"net": [digest(net), decoder], "n": n, "scale": scale, "steps": steps, "seed": seed}
        found = lines.once(of, partial(by_skill, net, nets.autoencoder, n, scale, steps, seed))
        return {
            skill: it | {"interval": [round(end, 4) for end in wilson(it["obeyed"], it["n"])]}
            for skill, it in found.items()
        }

    tried = []
    for scale in budget.chosen_scales:
        for steps in budget.chosen_steps:
            of = {
                "net": [digest(nets.teacher), decoder],
                "captions": budget.choice,
                "scale": scale,
                "steps": steps,
            }
            found = lines.once(
                of, partial(on_training, nets.teacher, nets.autoencoder, budget.choice, scale, steps)
            )
            tried.append((scale, steps, found))
    w, steps = choose(tried)
    record["chosen"] = {
        "guidance scale": w,
        "steps": steps,
        "tried": [{"guidance scale": s, "steps": k} | found for s, k, found in tried],
    }
    yield record
    record["teacher"] = {
        "guidance scale": w,
        "steps": steps,
        "skills": skills(nets.teacher, budget.table, w, steps, 1),
    }
    yield record
    if nets.student is not None:
        record["digests"]["student"] = digest(nets.student)
        found = skills(nets.student, budget.table, 1.0, JUMPS, 1)
        record["student"] = {"guidance scale": None, "steps": JUMPS, "skills": found}
        yield record
        record["student steps"] = {}
        for jumps in budget.jumps:
            record["student steps"][f"{jumps}"] = skills(nets.student, budget.sweep, 1.0, jumps, 2)
            yield record
    record["scales"] = {}
    for scale in budget.scales:
        record["scales"][f"{scale:g}"] = skills(nets.teacher, budget.sweep, scale, steps, 2)
        yield record
    record["steps"] = {}
    for k in budget.steps:
        record["steps"][f"{k}"] = skills(nets.teacher, budget.sweep, w, k, 2)
        yield record
    same = before and before["digests"]["teacher"] == record["digests"]["teacher"]
    record["learning"] = dict(before.get("learning", {})) if same else {}
    for done, net in nets.snapshots:
        if f"{done}" in record["learning"]:
            continue
        record["learning"][f"{done}"] = skills(net, budget.learning, w, steps, 3)
        yield record

    record["page"] = {}
    for method, scale, k in (("model", w, steps), ("student", 1.0, JUMPS)):
        if shipped.here(method):
            sha256 = shipped.training()[method]["sha256"]
            of = {"page": sha256, "n": budget.page, "scale": scale, "steps": k}
            found = lines.once(of, partial(in_page, method, budget.page, scale, k))
            record["page"][method] = found | {"sha256": sha256}
            yield record


def commonest(skills: Line) -> list[tuple[str, int]]:
    """The faults of all skills together, the commonest first."""
    total: Counter[str] = Counter()
    for it in skills.values():
        total.update(it["faults"])
    return total.most_common()


def show(record: Line) -> None:
    for name in ("teacher", "student"):
        if name not in record:
            continue
        of = record[name]
        print(f"\n{name}: {of['steps']} steps, guidance {of['guidance scale']}")
        for skill, it in of["skills"].items():
            low, high = it["interval"]
            print(f"{skill:22} {it['obeyed'] / it['n']:6.1%}   {low:.1%} to {high:.1%}")
        print("   ".join(f"{fault}: {n}" for fault, n in commonest(of["skills"])))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of checkpoints, instead of what the course comes with")
    parser.add_argument("--quick", action="store_true", help="a trial that records nothing")
    told = parser.parse_args(arguments)
    before: Line = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() and not told.quick else {}
    lines = Lines(BUILD / f"adherence{'-quick' if told.quick else ''}.jsonl", lines_of(before))
    record: Line = {}
    for record in measure(networks(told.folder), lines, QUICK if told.quick else Budget(), before):
        if not told.quick:
            DATA.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(record)


if __name__ == "__main__":
    main()
