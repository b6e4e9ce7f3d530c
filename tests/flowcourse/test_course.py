"""Claims, budgets, quizzes and labs."""

import math
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from flowcourse import (
    ClaimError,
    GradeError,
    budget,
    check,
    claim,
    device,
    generator,
    hints,
    lab,
    labs,
    quiz,
    slider,
    table,
)
from flowcourse.exercises import find
from flowcourse.figures import scatter, show

# Claims


@pytest.mark.parametrize(
    ("measured", "relation", "bound"),
    [
        (1, "<", 2),
        (torch.tensor(1.0), "<=", 1),
        (np.float32(3), ">", torch.tensor(2)),
        (torch.ones(1, 1), ">=", np.int64(1)),
        (4, "==", 4.0),
        (torch.tensor(True), "==", True),
        (2.0, "in", (2, 3)),
        (3.0, "in", [2, 3]),
        (-math.inf, "<", 0),
    ],
)
def test_true_claims_print_one_line(measured, relation, bound, capsys):
    claim("it holds", measured, relation, bound)
    assert re.fullmatch(r"✓ it holds: \S+ (<|<=|>|>=|==|in) .+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("measured", "relation", "bound"),
    [
        (2, "<", 2),
        (1.1, "<=", 1),
        (2, ">", 2),
        (0.9, ">=", 1),
        (4, "==", 5),
        (3.001, "in", (2, 3)),
        (1.999, "in", (2, 3)),
        *((math.nan, relation, 1.0) for relation in ("<", "<=", ">", ">=", "==")),
        (math.nan, "in", (0, 1)),
        (math.nan, "==", math.nan),
        (1.0, "<", math.nan),
    ],
)
def test_false_claims_raise_and_print_nothing(measured, relation, bound, capsys):
    with pytest.raises(ClaimError):
        claim("it holds", measured, relation, bound)
    assert capsys.readouterr().out == ""


def test_a_failing_claim_tells_the_whole_story():
    with pytest.raises(AssertionError) as caught:
        claim("the error falls as h²", 1.2345678, "in", (1.95, 2.05))
    for part in ("the error falls as h²", "1.235", "in", "[1.95, 2.05]"):
        assert part in str(caught.value)


def test_printed_digits_never_contradict_the_verdict(capsys):
    claim("just below", 0.99999999, "<", 1)
    assert "0.99999999 < 1" in capsys.readouterr().out
    with pytest.raises(ClaimError, match=r"1\.00000001 <= 1"):
        claim("just above", 1.00000001, "<=", 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(3), "<", 1), TypeError, r"\(3,\)"),
        ((torch.ones(0), "<", 1), TypeError, r"\(0,\)"),
        ((1, "<", np.ones((2, 2))), TypeError, r"\(2, 2\)"),
        (("1", "<", 1), TypeError, "str"),
        ((None, "<", 1), TypeError, "NoneType"),
        ((1j, "==", 1), TypeError, "complex"),
        ((1, "≈", 1), ValueError, "≈"),
        ((1, "in", 2), TypeError, "interval"),
        ((1, "in", (2, 1)), ValueError, "empty"),
        ((1, "in", (math.nan, 1)), ValueError, "empty"),
    ],
)
def test_bad_claims_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        claim("it holds", *arguments)


# Budgets


def test_the_budget_follows_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")
    assert budget(cpu="small", gpu="large") == "small"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() == torch.device("cuda")
    assert budget(cpu="small", gpu="large") == "large"


def test_one_variable_shifts_every_seed(monkeypatch):
    def draw(seed):
        return torch.randn(3, generator=generator(seed))

    unshifted, other = draw(5), draw(1005)
    monkeypatch.setenv("FLOW_SEED_SHIFT", "1000")
    assert torch.equal(draw(5), other) and not torch.equal(draw(5), unshifted)
    for nothing in ("", "0"):
        monkeypatch.setenv("FLOW_SEED_SHIFT", nothing)
        assert torch.equal(draw(5), unshifted)
    for wrong in ("1e3", "many", "1.5"):
        monkeypatch.setenv("FLOW_SEED_SHIFT", wrong)
        with pytest.raises(ValueError, match=f"FLOW_SEED_SHIFT must be a whole number .* got '{wrong}'"):
            draw(5)


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    a, b = (torch.randn(3, generator=generator(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


# The page


class Reader(HTMLParser):
    """Collects tags, the text of the page, and notices tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "input":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.mark.parametrize("number", ["1.1", "1.2"])
def test_a_quiz_holds_what_check_knows(number):
    page = quiz(number)
    assert page.html == quiz(number).html
    reader, options = read(page.html), find(number).options
    inputs = [attributes for tag, attributes in reader.tags if tag == "input"]
    assert [i["data-feedback"] for i in inputs] == [option.feedback for option in options]
    assert {i["type"] for i in inputs} == {"radio"}
    for i, option in zip(inputs, options, strict=True):
        if option.right:
            assert i["data-right"] == "1"
            check(number, i["value"])
        else:
            assert i["data-right"] == "0"
            with pytest.raises(GradeError, match=re.escape(option.feedback)):
                check(number, i["value"])
        assert option.text in reader.text
        assert option.feedback not in reader.text
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("fieldset") == tags.count("legend") == 1
    assert tags.count("label") == len(options)
    assert ("p", {"role": "status"}) in reader.tags
    assert not any("id" in attributes for _, attributes in reader.tags)  # nothing to clash
    assert not re.search(r"https?:|src=", page.html)


def test_a_quiz_answers_to_a_click_in_its_own_line(browser):
    """Two quizzes, run twice: each button listens once. A frame that forbids forms takes nothing from them."""
    told = browser(
        """(() => {
          const element = (found) => {
            const heard = {};
            const addEventListener = (name, call) => (heard[name] ??= []).push(call);
            return { dataset: {}, heard, addEventListener, querySelector: (selector) => found[selector] ?? null };
          };
          const quizzes = ["1", "0"].map((right) => {
            const option = { dataset: { right, feedback: `feedback ${right}` } };
            const button = Object.assign(element({}), { disabled: true });
            const parts = { button, "[role=status]": { dataset: {} }, "input:checked": option };
            return { parts, quiz: element(parts) };
          });
          const ready = () => quizzes.map(({ quiz }) => quiz).filter((quiz) => !("ready" in quiz.dataset));
          globalThis.document = { querySelectorAll: ready };
          flowcourse.quiz.open();
          flowcourse.quiz.open();
          for (const { parts } of quizzes) for (const call of parts.button.heard.click) call({});
          return quizzes.map(({ quiz, parts }) => {
            const status = parts["[role=status]"];
            return [quiz.heard.submit, parts.button.heard.click.length, status.dataset.verdict, status.textContent];
          });
        })()"""
    )
    assert told == [
        [None, 1, "right", "✓ Right. feedback 1"],
        [None, 1, "wrong", "✗ Not quite. feedback 0"],
    ]
    html = [quiz(n).html for n in ("1.1", "1.2")]
    assert "<form" not in html[0] and "submit" not in html[0]
    names = [set(re.findall(r'name="([^"]+)"', page)) for page in html]
    assert [len(each) for each in names] == [1, 1] and names[0] != names[1]  # else they would be one choice
    assert html[0].split("<script")[1:] == html[1].split("<script")[1:]  # a page keeps one


def test_only_choices_make_quizzes():
    with pytest.raises(ValueError, match="not a multiple-choice"):
        quiz("1.4")


@pytest.mark.parametrize("number", ["1.1", "1.4"])
def test_hints_unfold_one_inside_the_other(number):
    reader = read(hints(number).html)
    assert [tag for tag, _ in reader.tags if tag in ("details", "summary")] == ["details", "summary"] * 3
    assert all("open" not in attributes for tag, attributes in reader.tags if tag == "details")
    positions = [reader.text.index(text) for text in find(number).hints]
    assert positions == sorted(positions)
    assert not any(text in hints(number).text for text in find(number).hints)


# Live labs


def picture(steps=4, role="data"):
    fig, ax = plt.subplots()
    scatter(ax, torch.full((1, 2), float(steps)), role)
    return show(fig, alt=f"One point whose two coordinates both equal the number of steps, {steps}.")


CONTROLS = {
    "steps": slider("Euler steps", "N", (1, 2, 4), default=4),
    "role": slider("role", "r", ("data", "source")),
}


def test_a_live_lab_is_sliders_that_draw(monkeypatch):
    monkeypatch.setattr(labs, "is_static", lambda: False)
    drawn = []

    def draw(**values):
        drawn.append(values)
        return picture(**values)

    box = lab(draw, **CONTROLS)
    steps, role, _ = box.children
    assert (steps.description, role.description) == ("Euler steps, N", "role, r")
    assert (steps.options, steps.value, role.value) == ((1, 2, 4), 4, "data")
    steps.value = 2
    role.value = "source"
    assert drawn == [
        {"steps": 4, "role": "data"},
        {"steps": 2, "role": "data"},
        {"steps": 2, "role": "source"},
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lab(picture), ValueError, "needs a control"),
        (lambda: lab(picture, steps=(1, 2)), TypeError, "slider"),
        (lambda: lab(lambda steps: "nothing", steps=CONTROLS["steps"]), TypeError, "str"),
        (lambda: slider("Steps", "N", (1,)), ValueError, r"two values.*\(1,\)"),
        (lambda: slider("Steps", "N", ()), ValueError, r"two values.*\(\)"),
        (lambda: slider("Steps", "N", (1, 2), default=3), ValueError, "default"),
    ],
)
def test_bad_labs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_static_lab_turns_over_pictures_of_its_first_control():
    page = lab(picture, **CONTROLS)
    html = page._repr_html_()
    assert set(page._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert html == lab(picture, **CONTROLS)._repr_html_()
    assert [int(n) for n in re.findall(r'<div[^>]*aria-label="[^"]*number of steps, (\d)\."', html)] == [
        4,
        1,
        2,
        4,
    ]
    assert html.count('<input type="range"') == 1
    assert "role, r = data" in html  # what the other control was set to


NOTEBOOK = """
import torch, matplotlib.pyplot as plt
from flowcourse import check, lab, slider
from flowcourse.figures import scatter, show, use
use()
def draw(N):
    fig, ax = plt.subplots()
    scatter(ax, torch.full((1, 2), float(N)), "data")
    return show(fig, alt=f"One point whose two coordinates both equal the number of steps, {N}.")
lab(draw, N=slider("Euler steps", "N", (1, 2, 4)))
"""


@pytest.mark.parametrize("static", [True, False], ids=["static", "live"])
def test_a_lab_in_a_real_notebook(static, monkeypatch):
    """A kernel that builds the book emits no widget; one that a reader started does, and shows diagnoses bare."""
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setenv("FLOWLIB_STATIC", "1" if static else "0")
    cells = [nbformat.v4.new_code_cell(NOTEBOOK), nbformat.v4.new_code_cell("check('1.2', 'b')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, allow_errors=True, timeout=60).execute()
    shown, failed = (cell.outputs for cell in notebook.cells)
    kinds = {kind for output in shown for kind in output.get("data", {})}
    html = "".join(output.get("data", {}).get("text/html", "") for output in shown)
    assert not [output.evalue for output in shown if output.output_type == "error"]
    if static:
        assert not [kind for kind in kinds if "widget" in kind]
        assert "widgets" not in notebook.metadata
        for N in (1, 2, 4):
            assert f"the number of steps, {N}." in html
    else:
        assert "application/vnd.jupyter.widget-view+json" in kinds
    assert failed[0].ename == "GradeError"
    assert failed[0].traceback == [f"✗ {failed[0].evalue}"]


def test_a_table_is_html_and_aligned_text() -> None:
    page = table(("method", "W2"), [("exact & slow", 0.11456), ("ours", 2)])
    assert page.text == "method           W2\nexact & slow  0.115\nours              2"
    assert '<th scope="row">exact &amp; slow</th><td>0.115</td>' in page.html
    with pytest.raises(ValueError, match=r"expected 2 entries.*'W2'.*got \['ours'\]"):
        table(("method", "W2"), [("ours",)])
