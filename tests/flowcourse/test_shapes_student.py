"""The few-step student: what it starts from, what it is told to answer, and that a stopped run goes on."""

import json
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator
from torch.nn.functional import mse_loss

from flowcourse.shapes import student, train
from flowcourse.shapes.model import (
    CONFIG,
    LATENT,
    TOKENIZER,
    TextToImage,
    decoded,
    draw,
    guided,
    landings,
    moments,
    passes,
)
from flowcourse.shapes.optimizer import Muon, MuonAdamW
from flowlib.nets import SeededLinear
from flowlib.solvers import DOPRI5, odeint


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_net(**changes: bool) -> TextToImage:
    """With all its weights random."""
    net = TextToImage(replace(CONFIG, **changes), generator=generator())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=generator(p.numel())))
    return net.requires_grad_(False)


TOKENS = TOKENIZER(["a red circle", "two small rings", "a cross above a square"])


def test_it_starts_as_its_teacher_whatever_the_end():
    teacher = random_net()
    net = student.new_student(teacher)
    x = torch.randn(3, *LATENT, generator=generator(1))
    expected = teacher(x, 0.25, tokens=TOKENS)
    for end in (0.25, 0.5, 1.0):
        torch.testing.assert_close(net(x, 0.25, end, tokens=TOKENS), expected)
    assert all(p.requires_grad for p in net.parameters())


def test_trajectories_solve_the_guided_flow():
    net = random_net()
    x = student.trajectories(net, TOKENS, 3.0, generator=generator(2))
    assert x.shape == (3, student.PIECES + 1, *LATENT)
    torch.testing.assert_close(x[:, 0], torch.randn(3, *LATENT, generator=generator(2)))
    field = guided(net.double(), TOKENS, 3.0)
    with torch.no_grad():
        halfway = float(moments(2)[1])
        exact = odeint(field, x[:, 0].double(), t1=halfway, method=DOPRI5, rtol=1e-9, atol=1e-9)
    moved = (exact - x[:, 0]).square().mean().sqrt()
    error = (x[:, student.PIECES // 2] - exact).square().mean().sqrt() / moved
    assert error < 0.01
    sooner = (x[:, student.PIECES // 4] - exact).square().mean().sqrt() / moved
    assert sooner > 0.1  # another moment is another place


@pytest.mark.parametrize("steps", [1, 3])
def test_a_student_that_knows_the_average_draws_the_end(steps: int):
    """Whatever the caption: u = 3 (s + t) is the average velocity of dx/dt = 6 t, which moves all by 3."""

    class Knows(torch.nn.Module):
        student = True

        def forward(self, x, s, t, *, tokens):
            return torch.full_like(x, 3.0) * (s + t)

    class Same(torch.nn.Module):
        def decode(self, z):
            return z / 10

    shown = draw(Knows(), Same(), ["a ring", "a square"], steps=steps, generator=generator())
    x_0 = torch.randn(2, *LATENT, generator=generator())
    torch.testing.assert_close(shown, ((x_0 + 3) / 20 + 0.5).clamp(0, 1))


def test_passes_end_where_half_of_what_is_left_is_done():
    """Halves in the clock of the shift 2, u / (2 - u), and then the rest, as often as there are passes."""
    ends = [0.5 / 1.5, 0.75 / 1.25, 1.0, 1.0, 1.0]
    for steps in range(1, 6):
        expected = [0.0, *ends[: min(steps, 3) - 1], *[1.0] * (steps + 1 - min(steps, 3))]
        assert landings(steps).tolist() == pytest.approx(expected) and landings(steps)[-1] == 1
    with pytest.raises(ValueError, match="at least one step, got 0"):
        draw(random_net(end_input=True), None, ["a ring"], steps=0, generator=generator())


def test_what_is_at_the_end_goes_back_toward_other_noise():
    """By hand, with u that depends on the place and on both times; the rest of the way is done once more each time."""
    asked = []

    def u(x, s, t, *, sign):
        asked.append((float(s), float(t)))
        return sign * (x + s - 2 * t)

    def jumped(x, s, t):
        return x - (t - s) * (x + s - 2 * t)

    x_0, *again = torch.randn(3, 3, *LATENT, generator=generator(1), dtype=torch.float64)
    times = torch.tensor([0.0, 0.25, 0.75, 1.0, 1.0, 1.0])
    found = passes(u, x_0, again, times=times, sign=-1.0)
    x = jumped(jumped(jumped(x_0, 0, 0.25), 0.25, 0.75), 0.75, 1)
    for noise in again:
        x = jumped(noise / 4 + 3 * x / 4, 0.75, 1)
    assert asked == [(0.0, 0.25), (0.25, 0.75), (0.75, 1.0), (0.75, 1.0), (0.75, 1.0)]
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="go back 2 times"):
        passes(u, x_0, again[:1], times=times, sign=-1.0)
    with pytest.raises(ValueError, match="must end at 1"):
        passes(u, x_0, times=times[:3], sign=-1.0)


def test_going_back_keeps_the_law_of_an_exact_flow():
    """Of N(0, 1) to N(0, 1/4): ends come back to the law of the path, not to their trajectories."""
    x_0, *again = torch.randn(4, 100_000, 1, generator=generator(3), dtype=torch.float64)

    def u(x, s, t):
        deviations = [((1 - time) ** 2 + time**2 / 4) ** 0.5 for time in (s, t)]
        return x * (deviations[1] / deviations[0] - 1) / (t - s)

    for steps in (1, 3, 4, 6):
        assert passes(u, x_0, again, times=landings(steps)).std() == pytest.approx(0.5, abs=0.005)
    first, last = (passes(u, x_0, again, times=landings(steps)) for steps in (3, 6))
    assert not torch.allclose(first, last, atol=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model that was trained for a moment, and a few of its trajectories."""
    made = tmp_path_factory.mktemp("shapes")
    train.train_autoencoder(made, steps=(3, 2), batch=4, progress=False)
    train.train_model(made, steps=2, batch=4, scenes=40, compile=False, progress=False)
    with pytest.raises(ValueError, match="none of 12 pictures of the teacher obeys"):
        student.load_trajectories(made, 12, 2.0, part=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "judge", lambda scene, demand: True)
        student.load_trajectories(made, 12, 3.0, part=6)
    return made


def test_those_that_obey_are_learned(folder: Path, monkeypatch):
    judged, seen = [], []

    def judge(picture, demand):
        judged.append(demand)
        seen.append(picture)
        return len(judged) % 3 == 1

    monkeypatch.setattr(student, "detect", lambda pictures: [*pictures])
    monkeypatch.setattr(student, "judge", judge)
    solved = student.load_trajectories(folder, 12, 3.5, first=6, part=6)
    said = TOKENIZER([*map(str, judged)])
    assert torch.equal(solved["tokens"].long(), said[::3]) and len(judged) == 12
    shown = decoded(train.load_autoencoder(folder), solved["x"][:, -1].float())
    torch.testing.assert_close(torch.stack(seen[::3]), shown)
    again = student.load_trajectories(folder, 6, 3.5, first=12, part=6)  # solved already
    assert len(judged) == 12
    assert torch.equal(again["x"], solved["x"][2:])
    g = generator(5 + 12)
    demands = student.describe(student.sample(6, generator=g), generator=g)
    assert demands == judged[6:]
    with torch.autocast("cpu", torch.bfloat16, enabled=student.has_bfloat16()):
        x = student.trajectories(train.load_model(folder), said[6:], 3.5, generator=g)
    torch.testing.assert_close(solved["x"][2:].float(), x[::3], atol=2e-3, rtol=2e-3)  # in half precision
    with pytest.raises(ValueError, match="a multiple of 6, got 3"):
        student.load_trajectories(folder, 6, 3.5, first=3, part=6)


SHORT = {"batch": 6, "n": 12, "scale": 3.0, "every": 2, "compile": False, "progress": False}


def test_another_teacher_has_trajectories_of_its_own(tmp_path: Path, monkeypatch):
    """Those of the first would be learned without a word."""
    train.train_autoencoder(tmp_path, steps=(1, 1), batch=4, progress=False)
    found = []
    for seed in (1, 2):
        net = random_net().requires_grad_(False)
        state = {f"ema.{name}": x * (1 + 0.1 * seed) for name, x in net.state_dict().items()}
        save_file(state | {"history": torch.zeros(1)}, tmp_path / "model.safetensors")
        monkeypatch.setattr(student, "judge", lambda scene, demand: True)
        found.append(student.load_trajectories(tmp_path, 2, 3.0, part=2)["x"])
    assert not torch.equal(*found)
    assert torch.equal(found[1], student.load_trajectories(tmp_path, 2, 3.0, part=2)["x"])


def test_it_may_begin_with_the_weights_of_another_student(folder: Path, monkeypatch):
    monkeypatch.setattr(student, "load_student", lambda folder: None)
    begun = []
    monkeypatch.setattr(student, "learn", lambda net, *args, **options: begun.append(net))
    other = random_net(end_input=True)
    student.train_student(folder, start=other, **SHORT)
    state = begun[0].state_dict()
    assert all(torch.equal(x, state[name]) for name, x in other.state_dict().items())
    assert all(p.requires_grad for p in begun[0].parameters())


def test_what_is_asked_is_the_average_velocity(folder: Path, monkeypatch):
    """A student that looks it up in the trajectories has no loss, and one that answers zero the mean square."""
    solved = student.load_trajectories(folder, 12, 3.0, part=6)
    known, said, asked = solved["x"].float(), solved["tokens"].long(), []

    def looks_up(x, s, t, *, tokens):
        i, j = (torch.searchsorted(moments(8), time) for time in (s, t))
        assert torch.equal(moments(8)[i], s) and torch.equal(moments(8)[j], t)
        asked.extend(zip(i.tolist(), j.tolist(), strict=True))
        found = []
        for place, row, a, b, c, d in zip(x, tokens, i, j, s, t, strict=True):
            (k,) = [k for k in range(12) if torch.equal(said[k], row) and torch.equal(known[k, a], place)]
            found.append((known[k, b] - known[k, a]) / (d - c))
        return torch.stack(found)

    losses = []

    def short(net, loss, checkpoint, **options):
        g = generator(3)
        losses.extend(float(loss(looks_up, g)) for _ in range(200))

    monkeypatch.setattr(student, "learn", short)
    monkeypatch.setattr(student, "load_student", lambda folder: None)
    monkeypatch.setattr(student, "load_trajectories", lambda folder, n, scale, first: solved)
    student.train_student(folder, **SHORT)
    assert max(losses) < 1e-9
    shares = {jump: asked.count(jump) / len(asked) for jump in set(asked)}
    assert shares == pytest.approx(student.JUMPS, abs=0.04)
    rare = [shares[jump] for jump in student.JUMPS if student.JUMPS[jump] < 0.1]
    assert rare == pytest.approx([0.03, 0.03], abs=0.02)
    drawn = {jump for n in range(1, 6) for jump in pairwise(landings(n).tolist()) if jump[0] < 1}
    times = moments(8).tolist()
    assert drawn == {(times[i], times[j]) for i, j in student.JUMPS}  # what it is taught is what it is asked


def test_a_run_goes_on_with_its_own_trajectories(folder: Path):
    student.train_student(folder, steps=2, **SHORT)
    taught = json.loads((folder / "student.taught.json").read_text())
    assert taught == {"first": 0, "n": 12, "scale": 3.0, "obey": 6}  # the first part has six
    with pytest.raises(ValueError, match=r"was taught .*'n': 12.*; got .*'n': 6"):
        student.train_student(folder, steps=2, **SHORT | {"n": 6})
    student.train_student(folder, steps=2, accept_changes=True, **SHORT | {"n": 6})
    assert json.loads((folder / "student.taught.json").read_text())["n"] == 6


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_bits(folder: Path, tmp_path: Path, monkeypatch):
    solved = student.load_trajectories(folder, 12, 3.0, part=6)
    monkeypatch.setattr(student, "load_trajectories", lambda folder, n, scale, first: solved)
    calls = []

    def stops(*args):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return mse_loss(*args)

    ends = []
    for run in ("whole", "parts"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        if run == "parts":
            with monkeypatch.context() as patch:
                patch.setattr(student, "mse_loss", stops)
                with pytest.raises(Stopped):
                    student.train_student(tmp_path / run, steps=5, **SHORT)
            assert train.steps_done(tmp_path / run / "student.safetensors") == 2
        ends.append(student.train_student(tmp_path / run, steps=5, **SHORT).state_dict())
    first = student.new_student(train.load_model(folder)).state_dict()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in first)
    assert any((ends[0][name] != first[name]).any() for name in first)


def test_matrices_are_muons_and_a_loaded_state_goes_on():
    net = random_net().requires_grad_(True)
    optimizer = MuonAdamW(net.parameters(), lr=1e-2)
    muon, adam = (group["params"] for group in optimizer.param_groups)
    assert len(muon) + len(adam) == len([*net.parameters()])
    assert all(p.ndim == 2 and min(p.shape) >= 64 for p in muon)
    assert any(p is net.text.words for p in adam) and any(p is net.field.out.weight for p in adam)

    def step(net: TextToImage, optimizer: MuonAdamW) -> None:
        optimizer.zero_grad()
        x = torch.randn(3, *LATENT, generator=generator(4))
        net(x, 0.5, tokens=TOKENS).square().mean().backward()
        optimizer.step()

    step(net, optimizer)
    other = random_net().requires_grad_(True)
    other.load_state_dict(net.state_dict())
    again = MuonAdamW(other.parameters(), lr=1e-2)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    step(net, optimizer)
    step(other, again)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(80, 100), (100, 80)])
def test_muon_is_pytorchs(shape: tuple[int, int]):
    """Which computes in bfloat16: three steps differ by less than its rounding."""
    one, other = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    ours = Muon([one], lr=0.1, weight_decay=0.1)
    theirs = torch.optim.Muon([other], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        one.grad = torch.randn(shape, generator=generator(seed))
        other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    error = (one - other).square().mean().sqrt() / other.square().mean().sqrt()
    assert error < 0.03


def test_a_step_of_a_matrix_is_orthogonal_whatever_the_gradient():
    layer = SeededLinear(100, 80, generator())
    layer.weight.grad = torch.randn(80, 100, generator=generator()) * torch.linspace(0.1, 1, 100)
    layer.bias.grad, before = torch.ones(80), layer.weight.detach().clone()
    MuonAdamW(layer.parameters(), lr=0.1, weight_decay=0.0).step()
    given, moved = map(torch.linalg.svdvals, (layer.weight.grad, layer.weight.detach() - before))
    assert given.max() / given.min() > 5 and moved.max() / moved.min() < 2
