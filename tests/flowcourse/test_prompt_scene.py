"""The prompt box: what its figure holds, with all weights, without a student, without any; and its place in a book."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from explorables import PART
from sphinx.cmd.build import main as sphinx

from flowcourse.scenes import prompt_box
from flowcourse.shapes import parts, shipped
from flowcourse.shapes.model import draw, landings, moments
from flowcourse.shapes.noise import later, noise
from tests.random_weights import write


@pytest.fixture(scope="module")
def figure(random_weights):
    return prompt_box("a purple circle", seed=3, count=4)


def test_equal_inputs_give_equal_html(figure):
    assert figure._repr_html_() == prompt_box("a purple circle", seed=3, count=4)._repr_html_()


def test_the_still_pictures_are_those_of_the_student(figure):
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', figure.stage)
    assert len(sources) == 4
    captions, noises = ["a purple circle"] * 4, {"x_0": noise(3, 4), "again": later(3, 4)}
    x = draw(shipped.student(), shipped.autoencoder(), captions, steps=4, **noises)
    for source, picture in zip(sources, x, strict=True):
        shown = plt.imread(io.BytesIO(base64.b64decode(source)), format="png")[..., :3]
        np.testing.assert_allclose(shown, picture.permute(1, 2, 0), atol=0.51 / 255)


def test_times_and_sizes_are_those_of_python(figure):
    spec = figure.spec
    assert spec["methods"]["model"]["moments"]["20"] == moments(20).tolist()
    assert [*spec["methods"]["student"]["moments"]] == ["1", "2", "3", "4", "6", "8"]
    assert all(
        times == landings(int(n)).tolist() for n, times in spec["methods"]["student"]["moments"].items()
    )
    assert {name: part["size"] for name, part in spec["parts"].items()} == {
        name: part.size for name, part in parts.available().items()
    }
    assert json.loads(json.dumps(spec, ensure_ascii=False))


def test_weights_are_not_in_the_page(figure):
    assert len(figure._repr_html_()) < 150_000


def test_every_control_has_a_name(figure):
    html = figure._repr_html_()
    assert re.findall(r'data-control="([\w ]+)"', html) == [
        "prompt",
        "method",
        "steps",
        "scale",
        "count",
        "seed",
        "as I type",
        "at",
    ]
    assert html.count('class="flow-readout"') == 1
    assert "<label>Prompt<input" in html


def test_without_a_student_the_teacher_draws(random_weights, monkeypatch, tmp_path):
    write(tmp_path / "runs", student=False)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "out")
    shipped.ship(tmp_path / "runs", tmp_path / "out")
    figure = prompt_box(count=1)
    assert [*figure.spec["methods"]] == ["model"] and figure.spec["method"] == "model"
    assert [*figure.spec["parts"]] == ["painter", "decoder", "model"]
    assert 'data-control="method"' not in figure._repr_html_()
    assert figure.values["steps"] == 20


def test_without_weights_the_figure_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    figure = prompt_box()
    assert figure.spec["parts"] == {}
    assert "The trained weights do not come with this copy of the course" in figure.spec["said"]
    assert "<img" not in figure._repr_html_()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption": "a pentagon"}, "'pentagon' is not among the 31 words"),
        ({"tries": ["a red"]}, "got the end"),
        ({"seed": -1}, r"seed must be whole and in \[0, 2\^32\), got -1"),
        ({"seed": 0.5}, "seed must be whole"),
        ({"count": 2}, r"count must be one of \(1, 4, 9\), got 2"),
        ({"scale": 9.0}, r"scale must be in \[0, 8\], got 9.0"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        prompt_box(**changes)


def test_the_words_for_a_screen_reader(browser):
    one = {"said": "a red circle left of a blue square on white", "obeyed": True}
    assert browser("announced([one])", one=one) == (
        "picture ready: the detector sees a red circle left of a blue square on white; obeyed"
    )
    two = browser("announced([one, { ...one, obeyed: false }])", one=one)
    assert two.startswith("2 pictures ready, 1 obey. Picture 1: the detector sees a red circle")
    assert two.endswith("; not obeyed.")
    assert browser("megabytes(5437139)") == "5.4 MB"


def test_a_book_writes_the_parts_that_its_pages_ask_for(figure, tmp_path):
    book, out = tmp_path / "book", tmp_path / "out"
    book.mkdir()
    (book / "conf.py").write_text('extensions = ["explorables"]\nproject = "p"\n')
    lines = "".join(f"   {line}\n" for line in figure._repr_html_().splitlines())
    (book / "index.rst").write_text(f"Title\n=====\n\n.. raw:: html\n\n{lines}")
    (out / parts.FOLDER).mkdir(parents=True)
    (out / parts.FOLDER / "model-000000000000.js").touch()  # of an earlier build
    assert sphinx(["-q", "-b", "html", str(book), str(out)]) == 0
    made = {part.file: part.script for part in parts.available().values()}
    assert {*PART.findall((out / "index.html").read_text())} == {*made}
    assert {file.name: file.read_text() for file in (out / parts.FOLDER).iterdir()} == made


def test_pictures_of_any_seed_differ():
    assert not torch.equal(noise(0, 1), noise(1, 1))
