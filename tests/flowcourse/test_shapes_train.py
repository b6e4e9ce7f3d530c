"""Training and judging the text-to-image model: exact resumption, the log, the pool, and how adherence is counted."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Generator

from flowcourse.shapes import train
from flowcourse.shapes.captions import LONGEST, PROMPTS, judge, parse
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import CONFIG, LATENT, TOKENIZER, TextToImage, draw
from flowcourse.shapes.scenes import render, sample
from flowlib.autoencoder import Autoencoder


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an autoencoder that was trained for a moment."""
    made = tmp_path_factory.mktemp("shapes")
    train.train_autoencoder(made, steps=(3, 2), batch=4, progress=False)
    return made


SHORT = {"batch": 4, "scenes": 40, "every": 2, "compile": False, "progress": False}


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_bits(folder: Path, tmp_path: Path, monkeypatch):
    for run in ("whole", "parts"):
        for file in folder.iterdir():
            (tmp_path / run).mkdir(exist_ok=True)
            (tmp_path / run / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(train, "SNAPSHOTS", [2, 3])
    train.train_model(tmp_path / "whole", steps=5, **SHORT)
    kept = [file.stem for file in (tmp_path / "whole" / "snapshots").iterdir()]
    assert kept == ["000002"]  # at 3 there was no checkpoint to keep

    calls, loss = [], train.cfm_loss

    def stops(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return loss(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train, "cfm_loss", stops)
        with pytest.raises(Stopped):
            train.train_model(tmp_path / "parts", steps=5, **SHORT)
    assert train.steps_done(tmp_path / "parts" / "model.safetensors") == 2
    train.train_model(tmp_path / "parts", steps=5, **SHORT)
    one, other = (train.load_model(tmp_path / run).state_dict() for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert train.steps_done(tmp_path / "parts" / "model.safetensors") == 5


def test_the_log_has_each_hundred_steps_once(tmp_path: Path, monkeypatch):
    checkpoint = tmp_path / "model.safetensors"

    def sitting(start: int, until: int) -> None:
        monkeypatch.setattr(train, "steps_done", lambda file: start)
        logged = train.Log(checkpoint).of(lambda v, g: torch.tensor(3.0))
        for _ in range(start, until):
            logged(None, generator())

    sitting(0, 350)
    sitting(150, 420)  # the last checkpoint was at step 150: 200 and 300 come again
    lines = [json.loads(line) for line in (tmp_path / "model.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [100, 200, 300, 400]
    assert [line["loss"] for line in lines] == [3.0] * 4
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(lines))


def test_the_schedule_warms_up_stays_and_falls():
    at = {f: train.warm_then_decay(f) for f in (0, 0.005, 0.01, 0.5, 0.75, 0.875, 1)}
    assert at == pytest.approx({0: 1e-3, 0.005: 0.501, 0.01: 1, 0.5: 1, 0.75: 1, 0.875: 0.5, 1: 0})


def test_the_pool_holds_scenes_with_true_captions(monkeypatch):
    autoencoder = Autoencoder(width=8, generator=generator()).eval().requires_grad_(False)
    pool = train.make_pool(autoencoder, 30, generator(2))
    scenes = sample(30, generator=generator(2), mix=train.MORE)
    expected = autoencoder.encode(2 * render(scenes) - 1)
    torch.testing.assert_close(pool["latents"].float(), expected, rtol=1e-3, atol=1e-3)
    assert pool["tokens"].shape == (30, train.CAPTIONS, LONGEST)
    for scene, row in zip(scenes, pool["tokens"].long(), strict=True):
        assert all(judge(scene, parse(caption)) for caption in TOKENIZER.decode(row))


def test_near_objects_an_error_weighs_five_times_as_much():
    scenes = sample(1, generator=generator(), mix={"one": 1})
    x = 2 * render(scenes) - 1
    (o,) = scenes[0].objects
    away = ((o.center[0] + 16) % 32, (o.center[1] + 16) % 32)
    losses = []
    for column, row in (o.center, away):
        y = x.clone()
        y[:, :, row, column] += 0.1
        losses.append(float(train.reconstruction_loss(y, x)))
    assert losses[0] == pytest.approx(5 * losses[1], rel=1e-4)
    assert losses[1] == pytest.approx((0.1 + 2 * 0.01) / 32**2, rel=1e-4)


# The model


def test_the_text_reaches_every_pixel_and_silence_is_the_empty_caption():
    net = TextToImage(generator=generator())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator(p.numel())))
    x = torch.randn(1, *LATENT, generator=generator(1))
    said, other, nothing = (
        net(x, 0.4, tokens=TOKENIZER([caption])) for caption in ("a red circle", "a red square", "")
    )
    assert said.shape == x.shape
    assert ((said - other).abs() > 1e-6).all() and ((said - nothing).abs() > 1e-6).all()
    assert torch.equal(nothing, net(x, 0.4, tokens=torch.zeros(1, LONGEST, dtype=torch.long)))
    assert sum(p.numel() for p in net.parameters()) < 4e6 and CONFIG.sample_size == LATENT[1]


def test_guidance_extrapolates_from_silence():
    """With a field that is a constant for each caption one Euler step is u + w (c - u)."""

    class Constant(torch.nn.Module):
        student = False

        def forward(self, x, t, *, tokens):
            return tokens.float().sum(1)[:, None, None, None].expand_as(x)

    class Same(torch.nn.Module):
        def decode(self, z):
            return z

    shown = draw(Constant(), Same(), ["a", "an"], guidance_scale=1.5, steps=1, generator=generator())
    x_0 = torch.randn(2, *LATENT, generator=generator())
    expected = x_0 + 1.5 * torch.tensor([1.0, 2.0])[:, None, None, None]
    torch.testing.assert_close(shown, (expected / 2 + 0.5).clamp(0, 1))


# Judging


def test_a_model_that_draws_what_is_said_obeys_always(monkeypatch):
    """Pictures of true scenes for each prompt score 1, and the same pictures in another order do not."""
    scenes = sample(20_000, generator=generator())

    def right(net, autoencoder, captions, **options):
        demands = [parse(caption) for caption in captions]
        held_out = [k for k, demand in enumerate(demands) if not any(judge(s, demand) for s in scenes)]
        assert not held_out
        return render([next(s for s in scenes if judge(s, demand)) for demand in demands])

    shown = [name for name in PROMPTS if not name.startswith("held-out")]
    monkeypatch.setattr(train, "PROMPTS", {name: PROMPTS[name] for name in shown})
    monkeypatch.setattr(train, "draw", right)
    results = train.evaluate(None, None, n=20, generator=generator(1))
    assert {name: it.obeyed for name, it in results.items()} == dict.fromkeys(shown, 20)
    monkeypatch.setattr(train, "draw", lambda *args, **options: right(*args, **options).roll(1, 0))
    results = train.evaluate(None, None, n=20, generator=generator(1))
    assert all(it.obeyed < 20 for it in results.values())


def test_the_interval_is_wilsons():
    low, high = train.Adherence(81, 100).interval
    assert (low, high) == pytest.approx((0.7222, 0.8749), abs=1e-4)
    assert train.Adherence(0, 50).interval[0] == pytest.approx(0, abs=1e-12)
    assert train.Adherence(0, 50).interval[1] == pytest.approx(1.96**2 / (50 + 1.96**2))


def test_scenes_that_the_autoencoder_spoils_are_counted():
    scenes = sample(30, generator=generator())

    class Spoils(torch.nn.Module):
        def forward(self, x):
            return torch.where(torch.arange(len(x))[:, None, None, None] < 7, -x, x)

    assert train.changed(Spoils(), scenes) == 7
    assert len(detect(render(scenes))) == 30


# Several processes

TWO = """
import sys
from pathlib import Path
import torch
from flowcourse.shapes import train
from flowlib.processes import place

torch.set_num_threads(1)
folder, short = Path(sys.argv[1]), {"batch": 4, "scenes": 40, "every": 2, "compile": False, "progress": False}


class Stopped(Exception):
    pass


with train.processes():
    rank, processes = place()
    assert processes == 2
    whole = train.train_model(folder / "whole", steps=5, **short)
    learns, calls = train.cfm_loss, []

    def stops(*args, **options):
        calls.append(args[1].sum().item())
        if len(calls) == 4:
            raise Stopped
        return learns(*args, **options)

    train.cfm_loss = stops
    try:
        train.train_model(folder / "parts", steps=5, **short)
    except Stopped:
        pass
    train.cfm_loss = learns
    parts = train.train_model(folder / "parts", steps=5, **short)
torch.save((whole.state_dict(), parts.state_dict(), calls), folder / f"{rank}.pt")
"""


def test_two_processes_under_torchrun_learn_one_model_from_two_batches(folder: Path, tmp_path: Path):
    for run in ("whole", "parts"):
        (tmp_path / run).mkdir()
        for file in folder.glob("*.safetensors"):
            (tmp_path / run / file.name).write_bytes(file.read_bytes())
    script = tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ended = subprocess.run([*command, script, tmp_path], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    (whole, parts, seen), (other, _, seen_too) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, x in whole.items():
        assert torch.equal(x, other[name]) and torch.equal(x, parts[name]), name
    assert not set(seen) & set(seen_too)  # each draws its own batches
    alone = train.train_model(folder, steps=5, **SHORT).state_dict()
    assert any((x != alone[name]).any() for name, x in whole.items())
