"""The page's engine computes what flowlib and flowcourse compute: captions, detector, noise, networks, pictures."""

import base64
import hashlib
import json
import random
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator
from wasmtime import wat2wasm

from flowcourse import assets
from flowcourse.shapes import parts, shipped, train
from flowcourse.shapes.captions import PROMPTS, WORDS, describe, judge, parse
from flowcourse.shapes.detector import detect, templates
from flowcourse.shapes.model import TOKENIZER, draw, landings, moments
from flowcourse.shapes.noise import later, noise
from flowcourse.shapes.parts import part
from flowcourse.shapes.scenes import render, sample
from flowcourse.shapes.tables import tables
from tests.random_weights import write

ROOT = Path(__file__).parents[2]
TABLES = tables()


@pytest.fixture(scope="module")
def nets(random_weights):
    return {"autoencoder": shipped.autoencoder(), "model": shipped.model(), "student": shipped.student()}


@pytest.fixture(scope="module")
def engine(browser, nets):
    """Evaluates an expression with the networks `model`, `student` and `ae`, read from what the page loads."""
    shared = {
        name: part(at).text for name, at in {"model": "model", "student": "student", "ae": "decoder"}.items()
    }
    browser("(globalThis.tables = given, 0)", given=TABLES)
    for name, text in shared.items():
        make = "decoder(weightsOf(text))" if name == "ae" else "textToImage(weightsOf(text), tables.network)"
        browser(f"(globalThis.{name} = {make}, 0)", text=text)
    return browser


def tensor(numbers, like):
    return torch.tensor(numbers, dtype=torch.float32).reshape(like.shape)


def close(numbers, expected, tolerance=1e-4):
    torch.testing.assert_close(tensor(numbers, expected), expected, rtol=tolerance, atol=tolerance)


# Captions

CAPTIONS = [
    "a red circle left of a small square on black",
    "three small green rings on white",
    "A purple circle, above an orange cross.",
    "a circle and a circle",
    "a orange square",
    "two crosses",
    *(str(demand) for known in PROMPTS.values() for demand in known[::17]),
]
WRONG = [
    "",
    "a",
    "a red",
    "red circle",
    "two circle",
    "a circle left a square",
    "a circle on red",
    "a circle on black circle",
    "a pentagon",
    "a bleu circle",
    "a don't circle",
    'a "big" circle',
    "a tiny blue square",
    "two circles and a square",
    "an orange circle left",
    "a circle \\ square",
]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_are_understood_as_in_python(browser, caption):
    demand = parse(caption)
    found = browser(
        "(() => { const d = parse(tables, caption), said = sentence(tables, d);"
        "return { ...d, said, tokens: tokens(tables, said) } })()",
        tables=TABLES, caption=caption,
    )  # fmt: skip
    assert found["things"] == [vars(thing) for thing in demand.things]
    assert (found["relation"], found["background"]) == (demand.relation, demand.background)
    assert found["said"] == str(demand)
    assert found["tokens"] == TOKENIZER([str(demand)])[0].tolist()


@pytest.mark.parametrize("caption", WRONG)
def test_errors_are_those_of_python(browser, caption):
    with pytest.raises(ValueError) as raised:
        parse(caption)
    said = "(() => { try { parse(tables, caption) } catch (error) { return error.message } })()"
    assert browser(said, tables=TABLES, caption=caption) == str(raised.value)


def test_the_nearest_word_is_the_one_that_python_finds(browser):
    rng = random.Random(0)
    made = ["".join(rng.choices("abcdeghilnorstuw", k=rng.randint(1, 9))) for _ in range(150)]
    made += [word[:k] + word[k + 1 :] for word in WORDS for k in range(len(word)) if len(word) > 2]
    unknown = [word for word in dict.fromkeys(made) if word not in WORDS]
    found = browser("unknown.map((word) => nearest(word, words))", unknown=unknown, words=WORDS)
    for word, near in zip(unknown, found, strict=True):
        with pytest.raises(ValueError, match=f"the nearest is '{near}'$"):
            parse(f"a {word}")


@pytest.mark.parametrize("caption", ["", "a", "a small", "two", "a red circle", "a circle left", "a ring on"])
def test_every_continuation_that_is_offered_can_be_completed(browser, caption):
    """Whoever follows the offers, whichever they are, ends in a sentence of the grammar."""
    rng = random.Random(caption)
    for _ in range(20):
        said, offers = caption, {"complete": False}
        while not offers["complete"] or (rng.random() < 0.5 and offers["next"]):
            offers = browser("continued(tables, said)", tables=TABLES, said=said)
            if not offers["complete"]:
                assert offers["next"]
            if offers["next"]:
                said = f"{said} {rng.choice(offers['next'])}".strip()
                offers = browser("continued(tables, said)", tables=TABLES, said=said)
        parse(said)


def test_what_is_wrong_can_not_be_continued(browser):
    for caption in ("a pentagon", "two circle", "a circle on red"):
        assert browser("continued(tables, said)", tables=TABLES, said=caption)["next"] == []


# The detector and the judge


def seen(browser, pictures):
    found = browser(
        "(() => { const detect = detector(tables); return pictures.map((x) => detect(Float32Array.from(x))) })()",
        tables=TABLES,
        pictures=pictures.permute(0, 2, 3, 1).flatten(1).tolist(),
    )
    return [
        (
            scene["background"],
            [(o["shape"], o["color"], o["size"], tuple(o["center"])) for o in scene["objects"]],
        )
        for scene in found
    ]


def expected(pictures):
    return [
        (scene.background, [(o.shape, o.color, o.size, o.center) for o in scene.objects])
        for scene in detect(pictures)
    ]


def pictures_of(kind, nets):
    g = Generator().manual_seed(11)
    x = render(sample(500, generator=g))
    if kind == "noisy":
        x = x + 0.12 * torch.randn(x.shape, generator=g)
    if kind == "blended":  # two pictures at once: objects touch, and colors are none
        x = torch.lerp(x, x.flip(0), torch.rand(len(x), 1, 1, 1, generator=g) / 2)
    if kind == "blurred":
        x = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return x.clamp(0, 1)


@pytest.mark.parametrize("kind", ["drawn", "noisy", "blended", "blurred"])
def test_the_detector_sees_what_that_of_python_sees(browser, nets, kind):
    x = pictures_of(kind, nets)
    assert seen(browser, x) == expected(x)


def test_a_uniform_picture_shows_nothing(browser):
    x = torch.full((1, 3, 32, 32), 0.5)
    assert seen(browser, x) == expected(x) == [("unknown", [])]


def test_templates_are_those_of_python(browser):
    covers = browser("templates(tables).map(({ cover }) => [...cover])", tables=TABLES)
    torch.testing.assert_close(torch.tensor(covers), templates(), rtol=0, atol=1e-5)


def test_the_judge_decides_as_that_of_python(browser):
    scenes = sample(300, generator=Generator().manual_seed(12))
    known = [demand for demands in PROMPTS.values() for demand in demands[::5]]
    pairs = [(scene, known[(7 * k + j) % len(known)]) for k, scene in enumerate(scenes) for j in range(3)]
    pairs += [*zip(scenes, describe(scenes, generator=Generator().manual_seed(13)), strict=True)]
    told = [
        {
            "scene": {"background": s.background, "objects": [vars(o) for o in s.objects]},
            "demand": {
                "things": [vars(t) for t in d.things], "relation": d.relation, "background": d.background,
            },
        }
        for s, d in pairs
    ]  # fmt: skip
    found = browser("told.map(({ scene, demand }) => obeys(tables, scene, demand))", tables=TABLES, told=told)
    verdicts = [judge(scene, demand) for scene, demand in pairs]
    assert found == verdicts
    assert 300 <= sum(verdicts) < len(verdicts)


def object_at(shape, color, x, y):
    return {"shape": shape, "color": color, "size": "large", "center": [x, y]}


@pytest.mark.parametrize(
    ("objects", "asked", "said"),
    [
        ([], None, "nothing on black"),
        ([object_at("ring", "orange", 9, 9)], None, "a large orange ring on black"),
        (
            [object_at("ring", "red", 9, 9), object_at("cross", "blue", 20, 22)],
            "below",
            "a large blue cross below a large red ring on black",
        ),
        (
            [object_at("ring", "red", 9, 9), object_at("cross", "blue", 20, 9)],
            "above",
            "a large red ring left of a large blue cross on black",
        ),
        (
            [object_at("ring", "red", 8, 8)] * 2 + [object_at("unknown", "unknown", 9, 9)],
            None,
            "a large red ring, a large red ring and a large thing of no known shape on black",
        ),
    ],
)
def test_scenes_are_told_in_words(browser, objects, asked, said):
    scene = {"background": "black", "objects": objects}
    assert browser("told(tables, scene, asked)", tables=TABLES, scene=scene, asked=asked) == said


# Noise


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1])
def test_noise_is_the_same_to_the_last_bit(browser, seed):
    found = browser("[...seededNoise(seed, 9 * 256)]", seed=seed)
    assert torch.equal(tensor(found, noise(seed, 9)), noise(seed, 9))
    found = browser("[...seededNoise(seed, 512, 3 * TURN)]", seed=seed)
    assert torch.equal(tensor(found, noise(seed, 2)), noise(seed, 2, 3))
    assert torch.equal(list(zip(range(3), later(seed, 2), strict=False))[2][1], noise(seed, 2, 3))


def test_the_later_numbers_of_a_seed_do_not_depend_on_the_earlier(browser):
    assert browser("[...seededNoise(5, 256, 512)]") == browser("[...seededNoise(5, 768)].slice(512)")


def test_noise_is_normal_and_seeds_have_nothing_in_common():
    x = torch.cat([noise(seed, 64).flatten(1) for seed in range(40)])  # (2560, 256)
    n = x.numel()
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.square().mean() - 1) < 4 * (2 / n) ** 0.5
    cdf = torch.special.ndtr(x.flatten().double().sort().values)
    assert (cdf - torch.arange(n) / n).abs().max() < 1.95 / n**0.5  # Kolmogorov and Smirnov, 0.1%
    neighbors = [(noise(s, 64).flatten() * noise(s + 1, 64).flatten()).mean() * 128 for s in range(20)]
    assert max(map(abs, neighbors)) < 4
    turns = [(noise(s, 64).flatten() * noise(s, 64, 1).flatten()).mean() * 128 for s in range(20)]
    assert max(map(abs, turns)) < 4
    lags = [(x.flatten()[:-k] * x.flatten()[k:]).mean() * n**0.5 for k in (1, 2, 3, 256)]
    assert max(map(abs, lags)) < 4


@pytest.mark.parametrize(
    ("seed", "n", "turn"),
    [(-1, 1, 0), (2**32, 1, 0), (0, -1, 0), (0.5, 1, 0), (0, 4097, 0), (0, 1, 4096), (0, 1, -1)],
)
def test_bad_seeds_are_refused(seed, n, turn):
    with pytest.raises((ValueError, TypeError)):
        noise(seed, n, turn)


# Products of matrices


def test_the_bytes_of_the_kernel_are_those_of_its_source():
    (code,) = re.findall(r'"([\w+/=]{100,})"', assets.text("shapes/kernel.js"))
    assert base64.b64decode(code) == bytes(wat2wasm(assets.text("shapes/linear.wat")))


@pytest.mark.parametrize(
    ("n", "k", "m", "kernel"),
    [
        (1, 160, 960, True),
        (7, 640, 160, True),
        (28, 16, 33, True),  # an odd last column
        (1300, 576, 64, True),  # more rows than it takes at once
        (5, 36, 12, False),  # not in steps of eight
        (3, 70_000, 2, False),  # a row that does not fit
    ],
)
def test_rows_meet_a_weight(browser, n, k, m, kernel):
    made = "Float32Array.from({ length }, (_, i) => Math.sin(i * rate) / 8)"
    found = browser(
        f"(() => {{ const row = (length, rate) => {made};"
        "const layer = { weight: row(k * m, 1.7), bias: row(m, 0.3), inputs: k, outputs: m };"
        "const x = row(n * k, 0.9);"
        "return [linear, plain, fast].map((f) => f(x, n, layer)).map((y) => y && [...y]) })()",
        n=n, k=k, m=m,
    )  # fmt: skip

    def row(length, rate):
        return np.float32(np.sin(np.arange(length) * rate) / 8).astype(np.float64)

    y = row(n * k, 0.9).reshape(n, k) @ row(k * m, 1.7).reshape(m, k).T + row(m, 0.3)
    assert (found[2] is not None) == kernel
    for one in found[:2]:
        np.testing.assert_allclose(np.reshape(one, (n, m)), y, atol=1e-5 * np.abs(y).max())


# The networks


TOLD = ["a red circle left of a small square on black", "two crosses", ""]


def test_the_weights_arrive_as_python_restores_them(engine, nets):
    for net, text in (
        (nets["model"], part("model").text),
        (nets["autoencoder"], part("decoder").text),
    ):
        told = engine(
            "Object.fromEntries(Object.entries(weightsOf(text)).map(([name, { shape, data }]) =>"
            "[name, [shape, data.length, data.reduce((s, z) => s + z, 0), data[data.length - 1]]]))",
            text=text,
        )
        state = net.state_dict()
        for key, (shape, count, total, last) in told.items():
            assert (tuple(shape), count) == (tuple(state[key].shape), state[key].numel())
            assert last == state[key].flatten()[-1].item()
            assert total == pytest.approx(state[key].double().sum().item(), abs=1e-2)


@pytest.mark.parametrize("which", ["model", "student"])
@pytest.mark.parametrize("caption", TOLD)
def test_texts_are_encoded_as_by_flowlib(engine, nets, which, caption):
    tokens = TOKENIZER([caption])
    text = nets[which].text(tokens)
    found = engine(
        f"(({{ sequence, pooled }}) => [[...sequence], [...pooled]])(encoded({which}, tokens))",
        tokens=tokens[0].tolist(),
    )
    close(found[0], text.sequence[0])
    close(found[1], text.pooled[0])


@pytest.mark.parametrize(
    ("which", "t", "end"),
    [
        ("model", 0.0, None),
        ("model", 0.37, None),
        ("student", 0.25, 0.75),
        ("student", 0.5, None),
        ("student", 0.0, 1.0),
    ],
)
def test_every_block_of_the_field_answers_as_flowlib_does(engine, nets, which, t, end):
    """Four latents, the first two told one text, the others another."""
    net, tokens, x = nets[which], TOKENIZER(TOLD[:2]), noise(3, 4)
    kept, hooks = {}, []

    def keep(name):
        def hook(module, inputs, out):
            for stream, value in zip(("image", "text"), out, strict=True):
                kept[f"{stream} {name}"] = value

        return hook

    for k, block in enumerate(net.field.blocks):
        hooks.append(block.register_forward_hook(keep(k)))
    told = tokens.repeat_interleave(2, 0)
    v = net(x, t, end, tokens=told)
    for hook in hooks:
        hook.remove()
    kept["velocity"] = v
    kept["conditioning"] = net.field.conditioning(x, t, end, net.text(told).pooled, None)[::2]
    found = engine(
        "(() => { const kept = {}; velocity(net, Float32Array.from(x), t, tokens.map((row) => encoded(net, row)),"
        "end ?? undefined, (name, numbers) => (kept[name] = [...numbers])); return kept })()".replace("net", which),
        x=x.flatten().tolist(), t=t, end=end, tokens=tokens.tolist(),
    )  # fmt: skip
    assert {"image 0", "text 0", "image 3", "velocity"} <= kept.keys() <= found.keys()
    for name, value in kept.items():
        close(found[name], value)


def test_a_network_that_is_told_one_time_refuses_a_second(engine):
    with pytest.raises(Exception, match="one time only"):
        engine("velocity(model, seededNoise(0, 256), 0, [encoded(model, tokens)], 1)", tokens=[0] * 12)


def test_every_layer_of_the_decoder_answers_as_flowlib_does(engine, nets):
    z, kept, hooks = noise(4, 1), {}, []
    layers = {"0": 0, "1": 1, "2": 2, "3": 3, "5": 5, "6": 6, "7": 7, "9": 9}
    for name, k in layers.items():
        keep = lambda module, inputs, out, name=name: kept.__setitem__(name, out)  # noqa: E731
        hooks.append(nets["autoencoder"].decoder[k].register_forward_hook(keep))
    nets["autoencoder"].decode(z)
    for hook in hooks:
        hook.remove()
    found = engine(
        "(() => { const kept = {};"
        "decoded(ae, Float32Array.from(z), (name, x) => (kept[name] = [...x])); return kept })()",
        z=z.flatten().tolist(),
    )
    assert found.keys() == kept.keys()
    for name, value in kept.items():
        close(found[name], value[0].permute(1, 2, 0))


# Pictures


def drawn(engine, jobs, stop_after=None):
    """All that a painter posts for jobs that are asked for at once, each before the one before it is done."""
    engine(
        "(() => { globalThis.posted = []; globalThis.failed = [];"
        "const it = painter(tables, (message) => { posted.push(message);"
        "if (message.step === stopAfter) it.stop() }, () => 0);"
        "for (const [name, text] of Object.entries(parts)) it.take(name, text);"
        "for (const job of jobs) it.draw(job).catch((error) => failed.push(error.message)); return 0 })()",
        jobs=jobs,
        stopAfter=stop_after,
        parts={name: part(name).text for name in ("decoder", "model", "student")},
    )  # V8 runs what waits before the next call
    assert engine("failed") == []
    return engine("posted.map((m) => ({ ...m, pixels: [...m.pixels] }))")


def pictures(message, n):
    rgba = np.array(message["pixels"], dtype=np.uint8).reshape(n, 32, 32, 4)
    assert (rgba[..., 3] == 255).all()
    return torch.from_numpy(rgba[..., :3].copy()).permute(0, 3, 1, 2) / 255


JOB = {"id": 1, "caption": "a Red circle, left of a blue square", "seed": 5, "count": 3}
TEACHER = JOB | {"method": "model", "scale": 3.0, "moments": moments(6).tolist()}
STUDENT = JOB | {"method": "student", "moments": landings(5).tolist()}


@pytest.mark.parametrize("job", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_the_same_seed_gives_the_picture_of_python(engine, nets, job):
    steps = len(job["moments"]) - 1
    posted = drawn(engine, [job])
    assert [message["step"] for message in posted] == [*range(steps + 1)]
    assert {(message["id"], message["steps"]) for message in posted} == {(1, steps)}
    text = str(parse(JOB["caption"]))
    options = {"guidance_scale": 3.0, "steps": steps, "x_0": noise(5, 3), "again": later(5, 3)}
    x = draw(nets[job["method"]], nets["autoencoder"], [text] * 3, **options)
    assert (pictures(posted[-1], 3) - x).abs().mean() < 2e-3  # of eight bits
    assert (pictures(posted[-1], 3) - x).abs().max() <= 1.01 / 255
    found = posted[-1]["found"]
    assert [one["obeyed"] for one in found] == [judge(scene, parse(text)) for scene in detect(x)]
    first = (nets["autoencoder"].decode(noise(5, 3)) / 2 + 0.5).clamp(0, 1)
    assert (pictures(posted[0], 3) - first).abs().max() <= 1.01 / 255  # it begins with the noise


def test_a_scale_of_one_needs_no_empty_caption(engine, nets):
    posted = drawn(engine, [TEACHER | {"scale": 1.0}])
    x = draw(
        nets["model"], nets["autoencoder"], [str(parse(JOB["caption"]))] * 3,
        guidance_scale=1.0, steps=6, x_0=noise(5, 3),
    )  # fmt: skip
    assert (pictures(posted[-1], 3) - x).abs().max() <= 1.01 / 255


def test_more_pictures_begin_with_the_same_ones(engine):
    few, many = (pictures(drawn(engine, [STUDENT | {"count": n}])[-1], n) for n in (1, 4))
    assert torch.equal(few[0], many[0])


def test_it_stops_between_steps(engine):
    assert [message["step"] for message in drawn(engine, [TEACHER], stop_after=2)] == [0, 1, 2]


def test_a_second_job_ends_the_first(engine):
    posted = drawn(engine, [TEACHER, STUDENT | {"id": 2}])
    assert [m["step"] for m in posted if m["id"] == 1] == [0]
    assert [m["step"] for m in posted if m["id"] == 2] == [*range(len(STUDENT["moments"]))]


# What is shipped


def test_rounding_is_within_half_a_step_and_small_parts_are_exact(random_weights):
    for name, net in (
        ("model", shipped.model()),
        ("student", shipped.student()),
        ("autoencoder", shipped.autoencoder()),
    ):
        for key, x in net.state_dict().items():
            if not x.is_floating_point():
                continue
            y = random_weights[name].state_dict()[key]
            if x.ndim > 1 and x.numel() >= shipped.SMALL:
                step = y.flatten(1).abs().amax(1) / 127
                assert ((x - y).flatten(1).abs().amax(1) <= step * 0.5001).all()
                assert not torch.equal(x, y)
            else:
                assert torch.equal(x, y)
        assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_a_row_of_zeros_stays_one():
    x = torch.ones(128, 128)
    x[3] = 0
    assert torch.equal(shipped.restore(shipped.quantize({"w": x}))["w"], x)


def test_all_is_small_enough_for_a_repository_and_says_where_it_comes_from(random_weights):
    files = [*shipped.FOLDER.iterdir()]
    assert sum(file.stat().st_size for file in files) < 12e6
    told = shipped.training()
    assert told.keys() == {"autoencoder", "model", "student"}
    for name, notes in told.items():
        content = (shipped.FOLDER / f"{name}.safetensors").read_bytes()
        assert notes["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["model"]["runs"]["model"] == {
        "steps": 200,
        "seconds": 14.5,
        "losses": [[100, 0.5], [200, 0.25]],
        "settings": {"steps": 200, "lr": 0.002},
    }
    assert [*told["autoencoder"]["runs"]] == ["autoencoder", "decoder"]


def test_long_logs_are_thinned_and_keep_their_end(tmp_path):
    write(tmp_path / "runs")
    lines = [json.dumps({"step": 100 * k, "loss": 1 / k, "seconds": k}) for k in range(1, 242)]
    (tmp_path / "runs" / "model.jsonl").write_text("\n".join(lines) + "\n")
    shipped.ship(tmp_path / "runs", tmp_path / "out")
    losses = json.loads((tmp_path / "out" / "training.json").read_text())["model"]["runs"]["model"]["losses"]
    assert 40 <= len(losses) <= 60 and losses[-1] == [24100, 1 / 241]


def test_a_student_may_come_later(tmp_path, monkeypatch):
    write(tmp_path / "runs", student=False)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "out")
    assert parts.available() == {}
    assert shipped.ship(tmp_path / "runs", tmp_path / "out") == ["autoencoder", "model"]
    assert [*parts.available()] == ["painter", "decoder", "model"]
    with pytest.raises(FileNotFoundError, match="the trained student does not come with this copy"):
        shipped.student()
    write(tmp_path / "runs")
    (tmp_path / "runs" / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"must hold checkpoints of autoencoder and model, got \['autoencoder', 'student'\]"
    ):
        shipped.ship(tmp_path / "runs", tmp_path / "out")


def test_a_training_can_begin_with_what_is_shipped(random_weights, tmp_path):
    shipped.unpack(tmp_path)
    ours, theirs = train.load_autoencoder(tmp_path).state_dict(), shipped.autoencoder().state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    with pytest.raises(FileExistsError, match="has a trained autoencoder already"):
        shipped.unpack(tmp_path)
    first = shipped.begin("model", tmp_path)
    assert all(map(torch.equal, first.state_dict().values(), shipped.model().state_dict().values()))
    short = {"steps": 1, "batch": 4, "scenes": 40, "compile": False, "progress": False}
    trained = train.train_model(tmp_path, start=first, **short)
    moved = [(a - b).abs().max() for a, b in zip(trained.parameters(), first.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3  # a step of the warm-up, averaged
    assert shipped.ship(tmp_path, tmp_path / "out") == ["autoencoder", "model"]
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (
        told["model"]["before"] == shipped.training()["model"]
        and told["model"]["runs"]["model"]["steps"] == 1
    )
    assert told["autoencoder"] == shipped.training()["autoencoder"]
    again = [folder / "autoencoder.safetensors" for folder in (shipped.FOLDER, tmp_path / "out")]
    assert again[0].read_bytes() == again[1].read_bytes()


def test_the_wheel_has_the_weights():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "flowcourse"
    ]
    assert {"shapes/shipped/*"} <= {*patterns}


def test_parts_are_named_by_their_content_and_written_on_request(random_weights, tmp_path):
    made = parts.available()
    assert [*made] == ["painter", "decoder", "model", "student"]
    parts.write(tmp_path, {made["model"].file, made["painter"].file})
    assert {file.name for file in tmp_path.iterdir()} == {made["model"].file, made["painter"].file}
    assert (tmp_path / made["model"].file).stat().st_size == made["model"].size
    with pytest.raises(ValueError, match=r"asks for model-000000000000\.js, which is none of"):
        parts.write(tmp_path, {"model-000000000000.js"})
