"""The benchmarks of chapter 10's model at tiny sizes: what differs among variants; nothing is measured twice."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator
from torch.nn.functional import avg_pool2d

from benchmarks import ablations, adherence
from benchmarks.ablations import PARTS, QUICK, Recipe
from benchmarks.resuming import Lines
from flowcourse.shapes import shipped, train
from flowcourse.shapes.captions import LONGEST, PROMPTS, describe, judge
from flowcourse.shapes.detector import detect
from flowcourse.shapes.model import CONFIG, TOKENIZER, TextToImage
from flowcourse.shapes.scenes import render, sample
from flowcourse.shapes.train import digest
from flowlib.autoencoder import Autoencoder
from flowlib.nets import SeededLinear


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def randomized(net: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=generator(p.numel())))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return Autoencoder(width=8, generator=generator()).eval().requires_grad_(False)


# Lines


def test_what_was_measured_is_not_measured_again(tmp_path: Path):
    file = tmp_path / "lines.jsonl"
    recorded = {"of": {"seed": 7}, "found": {"x": 7}, "seconds": 0.1}
    assert Lines(file, [recorded]).once({"seed": 0, "at": (1, 2)}, lambda: {"x": 0}) == {"x": 0}
    with file.open("a") as opened:
        opened.write('{"of": {"seed": 1}, "fou')  # stopped in the midst of writing
    lines = Lines(file, [recorded])
    never = {"seed": 0, "at": (1, 2)}
    assert lines.once(never, lambda: pytest.fail("measured twice")) == {"x": 0}
    assert lines.once({"seed": 7}, lambda: pytest.fail("measured twice")) == {"x": 7}
    assert lines.once({"seed": 1}, lambda: {"x": 1}) == {"x": 1}
    assert [line["found"]["x"] for line in Lines(file).all] == [0, 1]


def test_other_weights_have_another_digest():
    one, other = (SeededLinear(3, 2, generator()) for _ in range(2))
    assert digest(one) == digest(other)
    with torch.no_grad():
        other.bias[1] = 1e-7
    assert digest(one) != digest(other)


# Ablations


def test_larger_pictures_show_the_same_scenes():
    scenes = sample(60, generator=generator())
    torch.testing.assert_close(ablations.enlarged(scenes, 1), render(scenes))
    seen = detect(avg_pool2d(ablations.enlarged(scenes, 2), 2))
    assert [*map(train._unordered, seen)] == [*map(train._unordered, scenes)]


def test_variants_have_equally_many_parameters():
    counts = {
        (name, variant): sum(p.numel() for p in ablations.network(recipe, generator()).parameters())
        for name in ("attention", "shift", "qk_norm")
        for variant, recipe in PARTS[name].items()
    }
    own = counts["attention", "joint"]
    assert counts["attention", "one way"] == own
    assert max(abs(n / own - 1) for n in counts.values()) < 0.02


@pytest.mark.parametrize(("kind", "changes"), [("joint", True), ("one way", False), ("cross", False)])
def test_only_joint_attention_lets_the_picture_change_the_text(kind: str, changes: bool):
    net = randomized(ablations.network(Recipe(attention=kind), generator()))
    said, tokens = [], TOKENIZER(["a red circle"])
    net.field.blocks[1].register_forward_hook(lambda module, inputs, out: said.append(inputs[1]))
    drawn = [net(torch.randn(1, 4, 8, 8, generator=generator(k)), 0.5, tokens=tokens) for k in range(2)]
    assert torch.equal(*said) != changes
    other = net(torch.randn(1, 4, 8, 8, generator=generator(0)), 0.5, tokens=TOKENIZER(["a blue ring"]))
    assert ((other - drawn[0]).abs() > 1e-7).all()  # and all let the text change the picture


def test_the_largest_logit_grows_with_the_weights_unless_they_are_normalized():
    some = torch.randn(6, 4, 8, 8, generator=generator()), TOKENIZER(["two rings"] * 6)
    for norm in (True, False):
        net = ablations.network(Recipe(qk_norm=norm), generator()).requires_grad_(False)
        before = ablations.largest_logit(net, some)
        for block in net.field.blocks:
            for stream in (block.image, block.text):
                for p in stream.qkv.parameters():
                    p *= 3
        assert ablations.largest_logit(net, some) == pytest.approx(before * (1 if norm else 9), rel=1e-3)
        assert not norm or before < math.sqrt(32)


def test_a_model_that_knows_the_scene_has_no_loss(autoencoder: Autoencoder):
    z, tokens = torch.randn(5, 4, 8, 8, generator=generator()), torch.zeros(5, 12, dtype=torch.long)

    def knows(x, t, *, tokens):
        return (z - x) / (1 - t)[:, None, None, None]

    assert max(ablations.losses(knows, (z, tokens), 0)) < 1e-6
    zero = ablations.losses(lambda x, t, *, tokens: torch.zeros_like(x), (z, tokens), 0)
    assert len(zero) == ablations.BINS
    assert sum(zero) / len(zero) == pytest.approx(1 + float(z.square().mean()), rel=0.1)


def test_whole_captions_say_all_but_the_places_and_fit():
    g = generator()
    scenes = sample(500, generator=g)
    for scene, told in zip(scenes, describe(scenes, generator=g), strict=True):
        said = ablations.whole(told, scene)
        assert judge(scene, said) and said.relation == told.relation and said.background == scene.background
        assert all(thing.color and thing.size for thing in said.things)
        assert len(str(said).split()) <= LONGEST


def test_a_stopped_ablation_goes_on_from_the_record(autoencoder: Autoencoder, tmp_path: Path, monkeypatch):
    base, other = Recipe(), Recipe(enlarged=2)
    parts = {"times": {"base": base}, "qk_norm": {"base": base}, "shift": {"8 x 8": base, "16 x 16": other}}
    monkeypatch.setattr(ablations, "PARTS", parts)
    monkeypatch.setattr(ablations, "FULL", QUICK)
    monkeypatch.setattr(ablations, "BUILD", tmp_path)
    monkeypatch.setattr(ablations, "DATA", tmp_path / "ablations.json")
    monkeypatch.setattr(ablations, "load_autoencoder", lambda folder: autoencoder)
    ablations.main(["times", "--seeds", "1"])
    first = json.loads((tmp_path / "ablations.json").read_text())
    assert (first["times"]["seeds"], first["shift"]["seeds"]) == (1, 0)
    (tmp_path / "ablations.jsonl").unlink()  # the record is enough

    trained, train_one = [], ablations.trained
    monkeypatch.setattr(
        ablations, "trained", lambda recipe, *more: trained.append(recipe) or train_one(recipe, *more)
    )
    ablations.main(["--seeds", "2"])
    assert trained == [other, base, other]
    record = json.loads((tmp_path / "ablations.json").read_text())
    assert record["times"]["runs"]["base"][0] == first["times"]["runs"]["base"][0]
    for part in parts:
        assert record[part]["seeds"] == 2
        assert all(len(values) == 2 for values in record[part]["runs"].values())
    distances = record["shift"]["runs"]
    assert set(distances) == {f"{size}, shift {s:g}" for size in parts["shift"] for s in ablations.SHIFTS}
    assert record["settings"]["shift by the resolution rule"] == 2
    assert len(record["lines"]) == 4


def test_a_run_that_diverges_is_told(autoencoder: Autoencoder, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ablations, "BUILD", tmp_path)

    def diverges(*args, **options):
        raise FloatingPointError("the loss is nan in step 3")

    monkeypatch.setattr(ablations, "fit", diverges)
    found = ablations.run(Recipe(), 0, autoencoder, QUICK)
    assert found["failed"] == "the loss is nan in step 3"
    assert ablations.values("times", {"base": [found]}) == {}


# Adherence


def test_fewest_steps_are_chosen_among_the_equally_good():
    def tried(*rows):
        return [(scale, steps, {"obeyed": obeyed, "n": 100}) for scale, steps, obeyed in rows]

    assert adherence.choose(tried((2, 12, 70), (2, 20, 80), (3, 20, 79), (3, 32, 83))) == (2, 20)
    assert adherence.choose(tried((2, 12, 70), (2, 20, 80), (3, 20, 81), (3, 32, 83))) == (3, 20)
    assert adherence.choose(tried((2, 12, 70), (3, 32, 83))) == (3, 32)


def test_adherence_is_counted_for_each_network_once(autoencoder: Autoencoder, tmp_path: Path, monkeypatch):
    """A draftsman who always draws a red ring obeys exactly the prompts that this fits."""
    teacher = randomized(TextToImage(replace(CONFIG, depth=1), generator=generator()))
    student = randomized(TextToImage(replace(CONFIG, depth=1, end_input=True), generator=generator(1)))
    ring = next(
        s for s in sample(500, generator=generator(), mix={"one": 1})
        if (s.objects[0].shape, s.objects[0].color) == ("ring", "red")
    )  # fmt: skip
    asked, in_the_page = [], []

    def draws(net, autoencoder, captions, *, guidance_scale, steps, generator):
        asked.append((net.student, guidance_scale, steps, len(captions)))
        return render([ring] * len(captions))

    def in_page(*way):
        in_the_page.append(way)
        return {"way": way}

    monkeypatch.setattr(adherence, "draw", draws)
    monkeypatch.setattr(adherence, "in_page", in_page)
    nets = adherence.Networks(autoencoder, teacher, student, [(500, teacher), (1000, teacher)])
    budget = replace(adherence.QUICK, table=7)
    *_, record = adherence.measure(nets, Lines(tmp_path / "lines.jsonl"), budget, {})
    chosen = record["chosen"]
    assert len(chosen["tried"]) == 4 and chosen["steps"] == 2
    assert set(record["teacher"]["skills"]) == {*PROMPTS}
    for name, it in record["teacher"]["skills"].items():
        assert it["n"] == 7 and it["obeyed"] + sum(it["faults"].values()) == 7
        assert it["interval"][0] <= it["obeyed"] / 7 <= it["interval"][1]
        assert name != "two objects" or it["faults"] == {"too few objects": 7}
    assert record["teacher"]["skills"]["one object"]["obeyed"] in (1, 2)  # five shapes, in turn
    assert {(s, k) for is_student, s, k, _ in asked if is_student} == {(1.0, 1), (1.0, adherence.JUMPS)}
    assert set(record["scales"]) == {"1", "3"} and set(record["steps"]) == {"1", "2"}
    assert record["learning"]["500"] == record["learning"]["1000"]
    assert in_the_page == [("model", 1, chosen["guidance scale"], 2), ("student", 1, 1.0, adherence.JUMPS)]
    adherence.show(record)

    asked.clear()
    *_, again = adherence.measure(nets, Lines(tmp_path / "lines.jsonl"), budget, {})
    assert asked == [] and again == record

    in_the_page.clear()  # from the record alone, when the snapshots are no longer there
    record, last = json.loads(json.dumps(record)), nets._replace(snapshots=nets.snapshots[1:])
    fresh = Lines(tmp_path / "fresh.jsonl", adherence.lines_of(record))
    *_, again = adherence.measure(last, fresh, budget, record)
    assert asked == in_the_page == [] and json.loads(json.dumps(again)) == record
    with torch.no_grad():
        student.text.words += 1
    *_, again = adherence.measure(last, fresh, budget, record)
    assert {is_student for is_student, *_ in asked} == {True} and again["learning"] == record["learning"]


def test_the_page_draws_and_judges_as_python_does(monkeypatch):
    found = adherence.in_page("student", 1, 1.0, adherence.JUMPS)
    assert found["n"] == len(PROMPTS) and found["verdicts that differ"] == 0
    assert found["n"] > found["obeyed in the page"] == found["obeyed in Python"] > 0
    monkeypatch.setattr(adherence, "judge", lambda scene, demand: False)
    disagreed = adherence.in_page("student", 1, 1.0, adherence.JUMPS)
    assert disagreed["verdicts that differ"] == found["obeyed in the page"]


def test_a_page_that_fails_is_told(monkeypatch):
    known = adherence.tables()
    monkeypatch.setattr(adherence, "tables", lambda: known | {"words": ["a", "nothing"]})
    with pytest.raises(RuntimeError, match=r"11 pictures .*, it answered .*among the 2 words"):
        adherence.in_page("student", 1, 1.0, 1)


def test_a_random_model_is_drawn_and_judged(autoencoder: Autoencoder):
    net = randomized(TextToImage(replace(CONFIG, depth=1), generator=generator()))
    found = adherence.by_skill(net, autoencoder, 2, 2.0, 1, 0)
    assert all(it["n"] == 2 and it["obeyed"] + sum(it["faults"].values()) == 2 for it in found.values())


def test_checkpoints_are_measured_or_what_is_shipped(tmp_path: Path, monkeypatch):
    nets = {"model": TextToImage(generator=generator()), "autoencoder": Autoencoder(generator=generator())}
    nets["decoder"] = nets["autoencoder"].decoder
    for name, net in nets.items():
        state = {f"ema.{key}": x.contiguous() for key, x in net.state_dict().items()}
        save_file(state | {"history": torch.zeros(7)}, tmp_path / f"{name}.safetensors")
    train.keep_snapshot(tmp_path / "model.safetensors")
    found = adherence.networks(tmp_path)
    assert [steps for steps, _ in found.snapshots] == [7, 7] and found.student is None
    kept, last = (net.state_dict() for _, net in found.snapshots)
    for name, x in nets["model"].state_dict().items():
        assert torch.equal(last[name], x) and torch.equal(kept[name], x.half().float())
    assert digest(found.autoencoder) == digest(nets["autoencoder"])

    shipped.ship(tmp_path, tmp_path / "shipped")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    monkeypatch.setattr(adherence, "FOLDER", tmp_path)
    packed = adherence.networks()
    assert [steps for steps, _ in packed.snapshots] == [7, 7] and packed.student is None
    assert digest(packed.teacher) == digest(shipped.model()) != digest(found.teacher)
