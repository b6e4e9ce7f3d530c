"""What all graders share: the registry, the guard around the reader's code, and how measurements are compared."""

import sys

import pytest
import torch

from flowcourse import GradeError, check, hint
from flowcourse.exercises import Option, choice, find
from flowcourse.grading import Counted, Grader, Probe, agree, alike, from_parts, gradient, guarded, on, worst

# The registry


@pytest.mark.parametrize("number", ["1.99", "2.9", "77.1", "one", "", 3])
def test_an_unknown_exercise_is_named_without_a_stack(number):
    with pytest.raises(ValueError, match="no exercise") as caught:
        check(number, "a")
    assert caught.value._render_traceback_() == [str(caught.value)]


def test_an_unknown_exercise_is_told_those_of_its_chapter():
    find("1.1")
    with pytest.raises(ValueError, match=r"known are 2\.1, 2\.2, 2\.3, 2\.4, 2\.5$"):
        find("2.9")


def test_a_question_needs_exactly_one_right_option():
    for right in (0, 2):
        options = [Option(str(i), "because", right=i < right) for i in range(3)]
        with pytest.raises(ValueError, match=f"not {right}"):
            choice("0.1", "title", "question?", *options, hints=("a", "b", "c"))


@pytest.mark.parametrize("answer", [["b"], {"b"}, 2, None, "", "e", "bb"], ids=repr)
def test_what_is_no_letter_of_a_quiz_is_said_so(answer):
    with pytest.raises(GradeError, match="one letter of a, b, c, d"):
        check("1.1", answer)


def test_hints_come_one_after_the_other(capsys):
    for step in (1, 2, 3, 3):
        hint("1.3")
        assert f"Hint {step} of 3: {find('1.3').hints[step - 1]}" in capsys.readouterr().out
    hint("1.3", 2)
    assert "Hint 2 of 3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="4"):
        hint("1.3", 4)


def test_a_notebook_shows_the_diagnosis_without_a_stack():
    with pytest.raises(GradeError) as caught:
        check("1.2", "b")
    assert caught.value._render_traceback_() == [f"✗ {caught.value}"]
    assert isinstance(caught.value, AssertionError)


# The guard


def test_the_arguments_of_an_answer_are_copies_that_must_not_change():
    x = torch.ones(3)
    for change in (
        lambda x, t: x.add_(1),
        lambda x, t: x[:1].zero_(),
        lambda x, t: x.unsqueeze_(0),
        lambda x, t: x.requires_grad_().data.zero_(),
    ):
        with pytest.raises(GradeError, match="x was modified in place"):
            guarded(change, "f(x, t)")(x, 0.0)
        assert torch.equal(x, torch.ones(3))
        assert not x.requires_grad
    assert torch.equal(guarded(lambda x, t: x + t, "f(x, t)")(x, 1.0), x + 1)


def test_gradients_pass_through_the_copies():
    x = torch.ones(3, requires_grad=True)
    (slope,) = torch.autograd.grad(guarded(lambda x: x.square().sum(), "f(x)")(x), x)
    assert torch.equal(slope, 2 * torch.ones(3))


def test_a_generator_is_copied_too():
    generator = torch.Generator().manual_seed(1)
    draw = guarded(lambda generator: torch.rand(3, generator=generator), "f(generator)")
    assert torch.equal(draw(generator), draw(generator))


def test_who_is_given_a_generator_must_use_it():
    before = torch.get_rng_state()
    with pytest.raises(GradeError, match="global generator"):
        guarded(lambda generator: torch.rand(3), "f(generator)")(torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_an_error_tells_its_line_in_the_readers_code():
    def answer(x):
        y = x.double()
        return y @ torch.ones(7)  # the library complains

    with pytest.raises(GradeError, match="shapes") as caught:
        guarded(answer, "f(x)")(torch.ones(2, 3))
    line = answer.__code__.co_firstlineno + 2
    assert f"It came up in line {line} of your code: return y @ torch.ones(7)" in str(caught.value)


@pytest.mark.parametrize(
    "source", ["while True: pass", "while True: x = x + 1", "while True: x = -v(x, 0.5)"], ids=repr
)
def test_an_endless_loop_is_stopped_and_located(source):
    names = {}
    exec(f"def answer(v, x):\n    {source}", names)
    before = sys.gettrace()
    with pytest.raises(GradeError, match="not come to an end"):
        guarded(names["answer"], "f(v, x)")(Counted(lambda x, t: x), torch.ones(2))
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("1.3", lambda t: next(i for i in iter(int, 1) if i)),
        ("1.4", lambda v, x, t0, t1, steps: next(y for y in iter(lambda: v(x, t0), None) if y is None)),
        ("5.5", lambda v, x, t0, t1, tol: [None for _ in iter(int, 1)]),
        ("5.5", lambda v, x, t0, t1, tol: [v(x, t1) for _ in iter(int, 1)]),
    ],
    ids=["1.3", "1.4", "5.5", "5.5 asking"],
)
def test_no_answer_hangs_a_grader(number, answer):
    with pytest.raises(GradeError, match=r"not come to an end|t1 is not reached"):
        check(number, answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.5, torch.ones(4, 2)), "points first"),
        ((torch.ones(4), torch.ones(4, 2)), "points first"),
        ((torch.ones(4, 2), torch.ones(4, 1)), r"shape \(B,\), not \(4, 1\)"),
    ],
)
def test_a_field_says_how_it_must_be_called(arguments, words):
    with pytest.raises(GradeError, match=words):
        Counted(lambda x, t: x)(*arguments)


# Comparing


def test_agreement_is_relative_and_needs_finite_numbers():
    a = torch.tensor([1e8, 1.0], dtype=torch.float64)
    assert agree(a, a + 1)
    assert not agree(a, 1.001 * a)
    for bad in (torch.inf, torch.nan):
        assert not agree(bad * a, a)
        assert not agree(bad * a, bad * a)
    assert agree(a[:0], a[:0])


def test_only_measurements_of_one_shape_and_dtype_are_alike():
    a = torch.ones(3)
    assert alike([a, a], (a, a))
    assert not any(alike(a, b) for b in (a[:2], a[None], a.double(), [a], None, 1.0))
    assert not alike([a], [a, a])
    assert alike(None, None)


def test_the_row_that_is_shown_is_the_worst():
    right = torch.zeros(3, 2)
    assert worst(torch.tensor([[0.0, 1.0], [-3.0, 0.0], [2.0, 2.0]]), right) == 1
    assert worst(torch.tensor([[0.0, 1.0], [-3.0, 0.0], [torch.nan, 2.0]]), right) == 2


def test_a_gradient_that_is_cut_off_is_zero():
    theta = torch.tensor(2.0, requires_grad=True)
    assert gradient(theta**2, theta) == 4
    for loss in (torch.tensor(1.0), (theta**2).detach(), torch.ones((), requires_grad=True) * 3, 5.0):
        assert gradient(loss, theta) == 0


@from_parts
def cube(x):
    square = x * x
    return locals()


GRADER = Grader(
    "f(x)",
    [
        Probe(on(torch.tensor([1.0, 2.0])), lambda result, right, f: f"{result[1]:g} is not {right[1]:g}"),
        Probe(on(torch.tensor([-1.0, -2.0])), "right for x > 0 alone"),
    ],
    right=cube(lambda p: p.x * p.square),
    mistakes=[
        ("the square", cube(lambda p: p.square)),
        ("the absolute value", cube(lambda p: p.x.abs() * p.square)),
        ("wrong at first, and then minus the right one", lambda x: x if x[0] > 0 else -(x**3)),
        ("fails", lambda x: x[5]),
    ],
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x**2, "^the square$"),
        (lambda x: abs(x) ** 3, "^the absolute value$"),  # and not the mistake that was wrong before
        (lambda x: 5 * x, "^10 is not 8$"),
        (lambda x: x**3 if x[0] > 0 else x, "^right for x > 0 alone$"),
        (
            lambda x: x**3 if x[0] > 0 else x.log(),
            r"^right for x > 0 alone \(f\(x\) holds NaN or infinity\)$",
        ),
        (lambda x: x**3 if x[0] > 0 else 1 / 0, r"^right for x > 0 alone \(.*raised ZeroDivisionError"),
        (lambda x: x[5], "raised IndexError"),
        (lambda x: None, r"must be a tensor of shape \(2,\), not NoneType"),
        (lambda x: (x**3)[:1], r"must have shape \(2,\), not \(1,\)"),
        (lambda x: (x**3).double(), "precision of the points, torch.float32"),
        (lambda x: x**3 / 0, "NaN or infinity"),
    ],
)
def test_a_wrong_answer_is_told_the_mistake_that_measures_the_same(answer, words):
    with pytest.raises(GradeError, match=words):
        GRADER(answer)


def test_a_right_answer_is_told_nothing():
    GRADER(lambda x: x.pow(3))
