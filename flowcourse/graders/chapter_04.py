"""The exercises of chapter 4, Flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import (
    Answer,
    GradeError,
    Probe,
    agree,
    from_parts,
    gradient,
    guarded,
    numbers,
    on,
    show,
    worst,
)
from flowlib.continuous import log_prob
from flowlib.data import Empirical, moons
from flowlib.metrics import wasserstein2
from flowlib.mixtures import GaussianMixture
from flowlib.paths import linear
from flowlib.solvers import MIDPOINT, RK4, odeint

choice(
    "4.1",
    "A loss that stopped falling",
    "You train with flow matching on a new data set. The loss falls from 9 to 5.6 within some hundred steps, and in "
    "the next nine thousand it stays between 5.5 and 5.7. What do you know?",
    Option(
        "Training has converged: the field is as good as this network can make it.",
        "The loss is a floor plus the squared field error. Where the floor is 5.6, an error of 0.1 and one of 0.01 "
        "look alike in it, and they are two very different samplers.",
    ),
    Option(
        "The network is too small: with enough capacity the loss would go to zero.",
        "No field has zero loss unless the end points can be read off from where one stands. The floor is the variance "
        "of x₁ - x₀ given xₜ, and no network removes it.",
    ),
    Option(
        "Little: the loss may be near its floor, and the field error may still be falling. Measure something else.",
        "The floor is unknown for real data, and the excess over it drowns in the noise of the loss. Samples, "
        "likelihoods or a held-out comparison between two networks can tell.",
        right=True,
    ),
    Option(
        "The learning rate is too high: a plateau with noise means that the optimizer jumps about a minimum.",
        "It may be, but the plateau does not show it: the exact field has the same plateau and the same noise, because "
        "they come from the targets, which disagree with one another.",
    ),
    hints=(
        "What is the loss of the exact field, E[x₁ - x₀ | xₜ = x]?",
        "L(v) = floor + E|v - v*|². How much of 5.6 is which?",
        "Without knowing the floor, the second term cannot be read off from the first.",
    ),
)

choice(
    "4.2",
    "The perfect student of a hundred pictures",
    "A network with unlimited capacity is trained on 100 pictures until its flow-matching loss on them is the smallest "
    "that any field can have. You draw 1,000 samples with an exact solver. What do you see?",
    Option(
        "New pictures from the law that the 100 were drawn from.",
        "The network was never shown that law. The least loss on the 100 belongs to the field that transports noise to "
        "those 100 points, each with probability 1/100.",
    ),
    Option(
        "Averages of the 100 pictures, blurred, because the field is an average.",
        "At t = 0 the arrows do point to the mean picture. But as t grows the posterior weights concentrate on one "
        "picture, and at t = 1 nothing is averaged any more. A single Euler step would show you the blur.",
    ),
    Option(
        "The 100 pictures, each about ten times.",
        "The minimizer is the exact field of the finite data set, and a field that generates pₜ ends in p₁: a hundred "
        "atoms of equal weight. New pictures come from where the network falls short of that minimum.",
        right=True,
    ),
    Option(
        "Noise, because the loss cannot reach zero.",
        "The least loss is positive because targets disagree where paths cross, and the field that has it still "
        "transports noise to the data exactly.",
    ),
    hints=(
        "Whose conditional expectation is the minimizer, if the data are 100 points and nothing else?",
        "The minimizer generates the law of xₜ. What is that law at t = 1?",
        "x₁ is one of the 100 pictures, each with probability 1/100, and so is the end of the flow.",
    ),
)


@from_parts
def _coin(x: Tensor, t: Tensor) -> dict[str, Any]:
    s = 1 - t
    mean = torch.tanh(t * x / s**2)

    def way(mean: Tensor) -> Tensor:  # to x_1, in the time left
        return (mean - x) / s

    right = way(mean)
    return locals()


COIN_X = torch.tensor([0.3, -0.8, 1.4, -0.2, 0.6], dtype=torch.float64)
COIN_T = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.7], dtype=torch.float64)


def _coin_off(result: Tensor, right: Tensor, _: Answer) -> str:
    if agree(result, right, 1e-4):
        return f"off by {(result - right).abs().max():.1e}: was a small number added, or something rounded?"
    at, mean = worst(result, right), _coin(lambda p: p.mean)(COIN_X, COIN_T)
    return (
        f"at x = {COIN_X[at]:g}, t = {COIN_T[at]:g} the mean of x₁ is {mean[at]:.4f} and the velocity {right[at]:.4f}; "
        f"yours is {result[at]:.4f}"
    )


WHOLE_WAY = "1 / (1 - t) multiplies the whole way, E[x₁|xₜ] - x, not only a part of it"
ARROWS = "these are the arrows of t = 0, where nothing is known of x₁; xₜ tells something about it"

exercise(
    "4.3",
    "The field that tosses a coin",
    "velocity(x, t)",
    Probe(on(COIN_X, COIN_T), _coin_off),
    Probe(
        on(0.4 * COIN_X, 0.95 + 0 * COIN_T), "right until t = 0.7, wrong at t = 0.95: is something clamped?"
    ),
    Probe(
        on(COIN_X, 0 * COIN_T),
        "right for t > 0, but at t = 0 the velocity is the mean of the data less x, -x",
    ),
    right=_coin(lambda p: p.right),
    mistakes=[
        (
            "this is E[x₁ | xₜ = x], a place; the velocity is the way there over the time left",
            _coin(lambda p: p.mean),
        ),
        (
            "time left is missing: the way from x to x₁ must be walked in 1 - t, so divide by it",
            _coin(lambda p: p.mean - p.x),
        ),
        (WHOLE_WAY, _coin(lambda p: p.mean - p.x / p.s)),
        (WHOLE_WAY, _coin(lambda p: p.mean / p.s - p.x)),
        ("the way from x to x₁ is x₁ - x, not x₁ + x", _coin(lambda p: (p.mean + p.x) / p.s)),
        ("the time left is 1 - t, not t", _coin(lambda p: (p.mean - p.x) / p.t)),
        (
            "given x₁ the variance of xₜ is (1 - t)², not 1 - t",
            _coin(lambda p: p.way(torch.tanh(p.t * p.x / p.s))),
        ),
        (
            "xₜ is centered at ±t, not at ±1: the path has only come a part t of the way",
            _coin(lambda p: p.way(torch.tanh(p.x / p.s**2))),
        ),
        (
            "the noise shrinks: given x₁, xₜ has standard deviation 1 - t, and the odds must know",
            _coin(lambda p: p.way(torch.tanh(p.t * p.x))),
        ),
        (
            "the log odds are 2 t x / (1 - t)², and the mean is tanh of half of them",
            _coin(lambda p: p.way(torch.tanh(2 * p.t * p.x / p.s**2))),
        ),
        (
            "without the 1/2 in the Gaussian's exponent or with one too many: the log odds are 2 t x / (1 - t)²",
            _coin(lambda p: p.way(torch.tanh(p.t * p.x / (2 * p.s**2)))),
        ),
        (
            "this is the probability of +1, not the mean of x₁, which is P(+1) - P(-1)",
            _coin(lambda p: p.way(torch.sigmoid(2 * p.t * p.x / p.s**2))),
        ),
        (
            "the mean is linear in x for a Gaussian x₁, and a coin is none: P(+1) and P(-1) follow from the odds",
            _coin(lambda p: p.way(p.t * p.x / (p.t**2 + p.s**2))),
        ),
        (
            "this walks to the likelier of the two points; least squares wants the mean of both, weighted",
            _coin(lambda p: p.way(p.x.sign())),
        ),
        (
            "this walks to the likelier of the two points; least squares wants the mean of both",
            _coin(lambda p: p.x.sign() - p.x),
        ),
        (ARROWS, _coin(lambda p: p.way(0 * p.x))),
        (ARROWS, _coin(lambda p: -p.x)),
        (
            "this is E[x₁ - x₀] over everybody; wanted is the mean over those who stand at x at time t",
            _coin(lambda p: 0 * p.x),
        ),
        (
            "E[x₀ | xₜ = x] is not x - t E[x₁ | xₜ = x]: solve xₜ = (1 - t) x₀ + t x₁ for x₀",
            _coin(lambda p: p.mean - (p.x - p.t * p.mean)),
        ),
        ("time runs backwards: this is x₀ - x₁", _coin(lambda p: -p.right)),
        (
            "time runs backwards: here t = 1 is the data",
            _coin(lambda p: (p.x - torch.tanh(p.s * p.x / p.t**2)) / p.t),
        ),
    ],
    hints=(
        "Given xₜ = x the velocity is (x₁ - x) / (1 - t), so all you need is E[x₁ | xₜ = x] = P(+1) - P(-1).",
        "If x₁ = ±1 then xₜ is N(±t, (1 - t)²). The two squares in the exponents differ by 4 t x: what are the odds?",
        "log odds = 2 t x / (1 - t)², and P(+1) - P(-1) is tanh of half of them.",
    ),
    insight="at t = 0 the arrow points to the mean 0, where no data are; tanh turns into a sign as t → 1, "
    "and the coin falls.",
)


# 4.4 A loss draws its own noise and times, in an order of its own. So the grader reads them off what the field is
# shown: where the data are huge, x_t / x_1 is the weight of the data, and x_0 is what is left.

SCALE = 1e6


class _Witness:
    """A field that remembers what it was asked, and whose answer depends on x and a parameter."""

    def __init__(self) -> None:
        self.theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        self.asked: list[tuple[Tensor, Any]] = []

    def __call__(self, x: Tensor, t: Any = None) -> Tensor:
        if not isinstance(x, Tensor):
            raise GradeError(f"v(x_t, t) takes a tensor of points, not {type(x).__name__}")
        if t is None:
            raise GradeError("the field takes the points and their times: v(x_t, t)")
        if isinstance(t, Tensor) and t.ndim > x.ndim:
            raise GradeError("v takes the points first and the times second: v(x_t, t)")
        self.asked.append((x.detach().clone(), t.detach().clone() if isinstance(t, Tensor) else t))
        return self.answer(x)

    def answer(self, x: Tensor) -> Tensor:
        return self.theta * x.sin() + 0.2


def _run(fm_loss: Answer, x_1: Tensor, seed: int) -> tuple[Any, _Witness]:
    """The loss of a fresh witness, which must have been asked once."""
    witness = _Witness()
    loss = fm_loss(witness, x_1, Generator().manual_seed(seed))
    if not witness.asked:
        raise GradeError(
            "v was never called: the loss compares v(x_t, t), at points on the way, with the target"
        )
    if len(witness.asked) > 1:
        raise GradeError(
            f"v was called {len(witness.asked)} times; one call for the whole batch is enough, and "
            "a network runs many times faster on a batch than on single points"
        )
    return loss, witness


def _shown(witness: _Witness, x_1: Tensor) -> tuple[Tensor, Tensor]:
    """What the field was asked, x_t and t, if their shapes are right."""
    x_t, t = witness.asked[0]
    if x_t.shape != x_1.shape:
        raise GradeError(
            f"x_t must have the shape of x_1, {tuple(x_1.shape)}, not {tuple(x_t.shape)}: t was broadcast "
            "against the wrong axes; it needs the shape (B, 1, ..., 1)"
        )
    if not isinstance(t, Tensor) or t.ndim == 0 or t.numel() == 1 < len(x_1):
        raise GradeError(
            "one time for the whole batch: unbiased, but every gradient then sees a single t, and the noise is many "
            "times larger; draw one time for each pair"
        )
    if t.shape == x_1.shape:
        raise GradeError("each number of a point has a time of its own: draw one time for each pair, (B,)")
    if t.shape != x_1.shape[:1]:
        raise GradeError(f"v is called with times of shape (B,) = {(len(x_1),)}, not {tuple(t.shape)}")
    return x_t, t.to(x_1.dtype)


def _check_path(fm_loss: Any, shape: tuple[int, ...]) -> None:
    """That x_t = (1 - t) x_0 + t x_1 for each pair's own t: data so large that x_t / x_1 shows their weight."""
    x_1 = torch.full(shape, SCALE, dtype=torch.float64)
    _, witness = _run(fm_loss, x_1, 0)
    x_t, t = _shown(witness, x_1)
    if t.max() > 100:
        raise GradeError(f"times run from 0 to 1; yours reach {t.max():.3g}, as in codes that count to 1000")
    if t.min() < 0 or t.max() > 1:
        raise GradeError(f"times are uniform on [0, 1]; yours run from {t.min():.3g} to {t.max():.3g}")
    if len(t.unique()) == 1:
        raise GradeError(
            "one time for the whole batch: draw one time for each pair, or the gradient is many times noisier"
        )
    weight, column = x_t / x_1, t.reshape(-1, *[1] * (len(shape) - 1))
    close = 20 / SCALE  # no noise of that size occurs

    def fits(value: Tensor) -> bool:
        return bool((weight - value).abs().max() < close)

    if fits(column):
        return
    if fits(1 - column):
        raise GradeError(
            "time runs backwards: at t = 0 your x_t is data; in this book t = 0 is noise and t = 1 is data"
        )
    if bool((weight - weight.flatten(1)[:, :1].reshape(column.shape)).abs().max() > close):
        raise GradeError(
            "t was broadcast along the wrong axis: within one point the weight of the data varies. Give it the shape "
            "(B, 1, ..., 1), for images (B, 1, 1, 1)"
        )
    if fits(torch.ones_like(column)):
        raise GradeError("v was asked at the data; it must be asked at x_t = (1 - t) x_0 + t x_1")
    if fits(torch.zeros_like(column)):
        raise GradeError("v was asked at the noise; it must be asked at x_t = (1 - t) x_0 + t x_1")
    raise GradeError(
        "x_t = (1 - t) x_0 + t x_1 with the very t that v is given; in yours x_1 has another weight"
    )


def _check_noise(x_0: Tensor, t: Tensor) -> None:
    """That x_0 (B, d) has mean 0 and variance 1, and t those of a uniform law, each within five standard errors."""
    n = len(x_0)
    if x_0.abs().max() < 1e-6:
        raise GradeError("x_0 is zero: draw it from N(0, I), anew for each pair")
    if x_0.std(dim=0).max() < 1e-6:
        raise GradeError("one x_0 for the whole batch: draw noise of the shape of x_1")
    if (x_0[:, 0] - x_0[:, 1]).abs().max() < 1e-6:
        raise GradeError("one number of noise for all dimensions of a point: draw noise of the shape of x_1")
    if (x_0.mean(dim=0).abs() > 5 / n**0.5).any() or ((x_0.var(dim=0) - 1).abs() > 5 * (2 / n) ** 0.5).any():
        raise GradeError(
            f"x_0 must come from N(0, I); yours has mean {float(x_0.mean()):.2f} and variance {float(x_0.var()):.2f}"
        )
    # the variance of (t - 1/2)^2 is 1/180
    if abs(t.mean() - 0.5) > 5 / (12 * n) ** 0.5 or abs(t.var() - 1 / 12) > 5 / (180 * n) ** 0.5:
        raise GradeError(
            f"t must be uniform on [0, 1]; yours has mean {t.mean():.2f} and variance {t.var():.3f}"
        )


# The mistakes repeat the draws of the reader, whatever their order was.


class _Replay:
    """Stands in for a generator whose draws are known."""

    def __init__(self, x_0: Tensor, t: Tensor) -> None:
        self.x_0, self.t = x_0, t


@from_parts
def _loss(v: Answer, x_1: Tensor, generator: Any) -> dict[str, Any]:
    if isinstance(generator, _Replay):
        x_0, t = generator.x_0, generator.t
    else:
        x_0 = torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype)
        t = torch.rand(len(x_1), generator=generator, dtype=x_1.dtype)
    s = t.reshape(-1, *[1] * (x_1.ndim - 1))
    x_t, u = (1 - s) * x_0 + s * x_1, x_1 - x_0
    velocity = v(x_t, t)

    def square(target: Tensor) -> Tensor:
        return (velocity - target).square().flatten(1).sum(1)

    right = square(u).mean()
    return locals()


SHAPES = ((512, 3), (5, 1, 5, 5))  # the second as wide as it has pictures: a wrong broadcast raises no error


def _data(shape: tuple[int, ...]) -> Tensor:
    return 2 + torch.randn(shape, generator=Generator().manual_seed(7), dtype=torch.float64)


def _path(fm_loss: Answer) -> None:
    for shape in SHAPES:
        _check_path(fm_loss, shape)


def _value(shape: tuple[int, ...]) -> Callable[[Answer], list[Tensor]]:
    """Measure the loss, its derivative in the field's parameter, and where the field was asked."""

    def measure(fm_loss: Answer) -> list[Tensor]:
        x_1 = _data(shape)
        loss, witness = _run(fm_loss, x_1, 0)
        x_t, t = _shown(witness, x_1)
        if shape[0] > 100:
            column = t.reshape(-1, *[1] * (x_1.ndim - 1))
            _check_noise((x_t - column * x_1) / (1 - column), t)
        if not isinstance(loss, Tensor):
            raise GradeError(
                f"fm_loss(v, x_1, generator) must return a tensor of shape (), not {type(loss).__name__}: without a "
                "tensor there is no gradient"
            )
        if loss.shape != ():
            raise GradeError(
                f"fm_loss(v, x_1, generator) must return shape (), one number, not {tuple(loss.shape)}"
            )
        if not loss.requires_grad:
            raise GradeError("the loss has lost its gradient: no detach, no item, no no_grad around v")
        return [loss.to(x_1), gradient(loss, witness.theta), x_t, t]

    return measure


def _replayed(shape: tuple[int, ...]) -> Callable[[Answer, list[Tensor]], list[Tensor]]:
    def beside(fm_loss: Answer, result: list[Tensor]) -> list[Tensor]:
        x_1, (x_t, t), witness = _data(shape), result[2:], _Witness()
        column = t.reshape(-1, *[1] * (x_1.ndim - 1))
        loss = fm_loss(witness, x_1, _Replay((x_t - column * x_1) / (1 - column), t))
        return [loss, gradient(loss, witness.theta), witness.asked[0][0], t]

    return beside


def _value_off(result: list[Tensor], right: list[Tensor], _: Answer) -> str:
    if agree(result[0].detach(), right[0].detach(), 1e-5):
        return (
            f"the value of the loss is right, but its derivative in a parameter of v is {result[1]:.4f} instead of "
            f"{right[1]:.4f}: a part of it is detached"
        )
    return f"for the points and times that v was asked, the loss is {right[0]:.4f}; yours is {result[0]:.4f}"


def _repeats(fm_loss: Answer) -> None:
    x_1 = _data(SHAPES[1])
    first, again, other = (_run(fm_loss, x_1, seed)[0].detach() for seed in (0, 0, 1))
    if not torch.equal(again, first):
        raise GradeError(
            "two generators with the same seed must give the same loss: some number is drawn elsewhere"
        )
    if torch.equal(other, first):
        raise GradeError(
            "the generator is ignored: another seed gives the same loss, so each batch would see the same noise"
        )


exercise(
    "4.4",
    "The loss, from scratch",
    "fm_loss(v, x_1, generator)",
    Probe(_path, ""),
    *(Probe(_value(shape), _value_off, 1e-5, beside=_replayed(shape)) for shape in SHAPES),
    Probe(_repeats, ""),
    right=_loss(lambda p: p.right),
    mistakes=[
        (
            "time runs backwards: the target is x_1 - x_0, from noise to data",
            _loss(lambda p: p.square(-p.u).mean()),
        ),
        (
            "the target is x_1 - x_0, a velocity; x_1 alone is a place",
            _loss(lambda p: p.square(p.x_1).mean()),
        ),
        ("the target is x_1 - x_0; this learns the noise x_0", _loss(lambda p: p.square(p.x_0).mean())),
        (
            "x_1 - x_t is the way that is left, (1 - t) times the velocity x_1 - x_0",
            _loss(lambda p: p.square(p.x_1 - p.x_t).mean()),
        ),
        (
            "the target is x_1 - x_0, not x_t - x_0, which is t times it",
            _loss(lambda p: p.square(p.x_t - p.x_0).mean()),
        ),
        (
            "the target is the place x_t where v was asked; it is x_1 - x_0",
            _loss(lambda p: p.square(p.x_t).mean()),
        ),
        (
            "the target is missing: this is the mean square of v itself",
            _loss(lambda p: p.square(0 * p.u).mean()),
        ),
        (
            "|·|² is the sum over the 3 dimensions of a point; you took their mean, so that your loss is 1/3 of it "
            "(flowlib's cfm_loss does so too, but it is not asked here)",
            _loss(lambda p: p.right / 3),
        ),
        (
            "right for vectors; of an image sum(1) adds up the channels alone. |·|² sums over all pixels too: "
            "flatten(1).sum(1)",
            _loss(lambda p: (p.velocity - p.u).square().sum(1).mean()),
        ),
        (
            "right for vectors; of an image sum(-1) adds up the last axis alone. |·|² sums over all pixels: "
            "flatten(1).sum(1)",
            _loss(lambda p: (p.velocity - p.u).square().sum(-1).mean()),
        ),
        ("the mean over the batch is wanted; this is the sum", _loss(lambda p: p.square(p.u).sum())),
        (
            "the square is missing: with |v - u| the minimizer is a median, not the mean",
            _loss(lambda p: p.square(p.u).sqrt().mean()),
        ),
        (
            "the square is missing: with the absolute value the minimizer is a median, not the mean",
            _loss(lambda p: (p.velocity - p.u).abs().flatten(1).sum(1).mean()),
        ),
        (
            "this is the absolute value, averaged over everything: square it",
            _loss(lambda p: (p.velocity - p.u).abs().mean()),
        ),
        ("the root of the mean square; leave the root out", _loss(lambda p: p.right.sqrt())),
        ("no factor 1/2: the loss is the mean square itself", _loss(lambda p: p.right / 2)),
        (
            "this compares lengths, |v| with |x_1 - x_0|; the error is the length of the difference",
            _loss(lambda p: (p.velocity.flatten(1).norm(dim=1) - p.u.flatten(1).norm(dim=1)).square().mean()),
        ),
        (
            "the mean over the batch is taken before the square: each pair has an error of its own",
            _loss(lambda p: (p.velocity - p.u).mean(0).square().sum()),
        ),
    ],
    hints=(
        "Three draws and one square: noise x_0 like x_1, a time t for each pair, the point x_t, and the mean over the "
        "batch of |v(x_t, t) - (x_1 - x_0)|².",
        "x_1 may be (B, d) or (B, C, H, W). t.reshape(-1, *[1] * (x_1.ndim - 1)) multiplies each point by its own "
        "time; v wants t of shape (B,).",
        "Of the squares, sum over all but the first dimension (flatten(1) helps with images), then take the mean over "
        "the batch. Every draw takes the generator, and the noise the dtype of x_1.",
    ),
    insight="five lines, no simulation: this is all the training that a flow model of any size needs.",
)


_generator = Generator().manual_seed(3)
POINTS = torch.randn(7, 2, generator=_generator, dtype=torch.float64) + 0.5
PLACES = torch.randn(5, 2, generator=_generator, dtype=torch.float64)
MOMENTS = torch.tensor([0.15, 0.3, 0.45, 0.55, 0.65], dtype=torch.float64)
LATE = 0.999 + 0 * MOMENTS
NEAR = 0.999 * POINTS[:5] + 1e-3 * PLACES  # where paths are at that time; NEAR + 1 is where they are not


@from_parts
def _exact(x: Tensor, t: Tensor, points: Tensor) -> dict[str, Any]:
    s = (1 - t)[:, None]
    square = (x[:, None] - t[:, None, None] * points).square().sum(2)  # (B, n)
    unscaled = (x[:, None] - points).square().sum(2)

    def toward(weights: Tensor) -> Tensor:
        return (weights @ points - x) / s

    def way(log_weights: Tensor) -> Tensor:
        return toward(log_weights.softmax(1))

    log_weights = -square / (2 * s**2)
    mean, right = log_weights.softmax(1) @ points, way(log_weights)
    return locals()


def _exact_off(result: Tensor, right: Tensor, _: Answer) -> str:
    if agree(result, right, 1e-3):
        return (
            f"off by {(result - right).abs().max():.1e}: something is rounded, clamped or has a small number added. "
            "For 0 <= t < 1 none of that is needed"
        )
    at = worst(result, right)
    return (
        f"at x = {show(PLACES[at])}, t = {MOMENTS[at]:g} the velocity is {show(right[at])}; yours is "
        f"{show(result[at])}"
    )


def _finite(x: Tensor, t: Tensor, told: str) -> Callable[[Answer], Any]:
    def measure(exact_velocity: Answer) -> Any:
        result = exact_velocity(x, t, POINTS)
        if isinstance(result, Tensor) and not result.isfinite().all():
            raise GradeError(told)
        return result

    return measure


AT_START = "NaN or infinity at t = 0, where v = mean of the points - x: nothing may be divided by t"
AT_END = (
    "NaN or infinity at t = 0.999: every exp(-|x - t y|² / (2 (1 - t)²)) is 0 there, and 0 / 0 is NaN. Work with "
    "logarithms: softmax, or subtract the largest before exp"
)
TOO_LATE = (
    "right until t = 0.65, wrong at t = 0.999: something is clamped or rounded where 1 - t is small, or a small number "
    "in a denominator outweighs the sum of all weights. Work with logarithms: softmax"
)

exercise(
    "4.5",
    "The exact field of finite data",
    "exact_velocity(x, t, points)",
    Probe(on(PLACES, MOMENTS, POINTS), _exact_off),
    Probe(
        _finite(PLACES, 0 * MOMENTS, AT_START),
        lambda *_: "at t = 0 the weights are equal and v = mean of the points - x; yours differs",
    ),
    *(Probe(_finite(place, LATE, AT_END), lambda *_: TOO_LATE) for place in (NEAR, NEAR + 1)),
    right=_exact(lambda p: p.right),
    mistakes=[
        ("this is E[x₁ | xₜ = x], a place; subtract x and divide by the time left", _exact(lambda p: p.mean)),
        (
            "the factor 1 / (1 - t) is missing: the way from x to the data must be walked in the time left",
            _exact(lambda p: p.mean - p.x),
        ),
        (
            "1 / (1 - t) multiplies the whole way, E[x₁|xₜ] - x, not only a part of it",
            _exact(lambda p: p.mean - p.x / p.s),
        ),
        (
            "1 / (1 - t) multiplies the whole way: mind the brackets around E[x₁|xₜ] - x",
            _exact(lambda p: p.mean / p.s - p.x),
        ),
        ("time runs backwards: the velocity points from x to the data", _exact(lambda p: -p.right)),
        (
            "given yᵢ the variance of xₜ is (1 - t)², not 1 - t",
            _exact(lambda p: p.way(-p.square / (2 * p.s))),
        ),
        ("the Gaussian's exponent has a 1/2", _exact(lambda p: p.way(-p.square / p.s**2))),
        (
            "(1 - t)² is missing from the exponent: the noise shrinks, and the weights sharpen",
            _exact(lambda p: p.way(-p.square / 2)),
        ),
        ("the distance must be squared", _exact(lambda p: p.way(-p.square.sqrt() / (2 * p.s**2)))),
        ("given yᵢ, xₜ is centered at t yᵢ, not at yᵢ", _exact(lambda p: p.way(-p.unscaled / (2 * p.s**2)))),
        (
            "sign of the exponent: near points must weigh more, not less",
            _exact(lambda p: p.way(p.square / (2 * p.s**2))),
        ),
        (
            "softmax over the wrong axis: for each x the weights of all points sum to 1",
            _exact(lambda p: p.toward(p.log_weights.softmax(0))),
        ),
        (
            "the weights must be divided by their sum: they are a posterior",
            _exact(lambda p: p.toward(p.log_weights.exp())),
        ),
        (
            "equal weights hold at t = 0 only; then xₜ begins to tell which point it comes from",
            _exact(lambda p: p.way(0 * p.square)),
        ),
        (
            "these are the arrows of t = 0; then xₜ begins to tell which point it comes from",
            _exact(lambda p: p.points.mean(0) - p.x),
        ),
        (
            "this walks to the likeliest point alone; least squares wants the mean over all",
            _exact(lambda p: (p.points[p.square.argmin(1)] - p.x) / p.s),
        ),
        (AT_END, _exact(lambda p: p.toward(p.log_weights.exp() / p.log_weights.exp().sum(1, keepdim=True)))),
        (
            TOO_LATE,
            _exact(
                lambda p: p.toward(p.log_weights.exp() / (p.log_weights.exp().sum(1, keepdim=True) + 1e-12))
            ),
        ),
    ],
    hints=(
        "v = (E[x₁ | xₜ = x] - x) / (1 - t), and E[x₁ | xₜ = x] is an average of the points with posterior weights.",
        "The weight of yᵢ is proportional to exp(-|x - t yᵢ|² / (2 (1 - t)²)). Near t = 1 every one of these numbers "
        "is 0 in floating point: what remains finite?",
        "Make the table of logarithms, (B, n), from (x[:, None] - t[:, None, None] * points).square().sum(2). Its "
        "softmax over dim=1, times the points, is the mean of x₁.",
    ),
    insight="a softmax over the data set, with (1 - t)² as its temperature: an attention layer that looks up the data.",
)

SPREADS = ((1.0, 1.0), (1.0, 2.0), (0.5, 1.7), (3.0, 0.2))


def _floor_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = worst(result, right)
    return (
        f"for a = {SPREADS[at][0]:g}, s = {SPREADS[at][1]:g} the integral of a² s² / (t² s² + (1 - t)² a²) over t is "
        f"{right[at]:.4f}; yours is {result[at]:.4f}"
    )


exercise(
    "4.6",
    "The floor between two Gaussians",
    "floor(a, s)",
    Probe(numbers("floor(a, s)", SPREADS), _floor_off),
    right=lambda a, s: math.pi * a * s / 2,
    mistakes=[
        ("this is the answer for a = 1; the source has standard deviation a", lambda a, s: math.pi * s / 2),
        ("this is the answer for s = 1; the data have standard deviation s", lambda a, s: math.pi * a / 2),
        (
            "standard deviations, not variances: the integral gives one power of each",
            lambda a, s: math.pi * (a * s) ** 2 / 2,
        ),
        (
            "a and s are read as variances; they are standard deviations",
            lambda a, s: math.pi * math.sqrt(a * s) / 2,
        ),
        (
            "this is Var(x₁ - x₀), what nobody knows before looking; given xₜ less is unknown",
            lambda a, s: a**2 + s**2,
        ),
        (
            "this is the integrand at t = 1/2; average it over t from 0 to 1",
            lambda a, s: 4 * (a * s) ** 2 / (a**2 + s**2),
        ),
        (
            "the integral runs over w from 0 to infinity, where arctan gains π/2, not π",
            lambda a, s: math.pi * a * s,
        ),
        ("arctan gains π/2 from 0 to infinity, not π/4", lambda a, s: math.pi * a * s / 4),
        ("the integral of 1 / (1 + w²) from 0 to infinity is π/2, not 1", lambda a, s: a * s),
        (
            "the integral of 1 / (1 + w²) from 0 to infinity is π/2; and one power of a and s remains",
            lambda a, s: (a * s) ** 2,
        ),
        (
            "no field has loss 0 here: through each point pass paths with different velocities",
            lambda a, s: 0.0,
        ),
        ("this is the root of the floor; it is a mean square", lambda a, s: math.sqrt(math.pi * a * s / 2)),
        (
            "a² is missing from the numerator a² s²: the answer has a s, not a / s or s / a (as a → 0 every path "
            "starts at one point, and the floor is 0)",
            lambda a, s: math.pi * s / (2 * a),
        ),
        (
            "s² is missing from the numerator a² s²: the answer has a s, not a / s",
            lambda a, s: math.pi * a / (2 * s),
        ),
        ("Var x₀ = a² is missing from Var xₜ = t² s² + (1 - t)² a²", lambda a, s: math.pi * s * a**2 / 2),
    ],
    hints=(
        "U = x₁ - x₀ and xₜ = t x₁ + (1 - t) x₀ are jointly Gaussian: Var(U | xₜ) = Var U - Cov(U, xₜ)² / Var xₜ.",
        "Var U = a² + s², Cov(U, xₜ) = t s² - (1 - t) a², Var xₜ = t² s² + (1 - t)² a². The numerator collapses to "
        "a² s².",
        "∫ a² s² / (t² s² + (1 - t)² a²) dt from 0 to 1: substitute w = t s / ((1 - t) a).",
    ),
    insight="symmetric in the two ends, and proportional to the spread of each: only where one end is a point "
    "(a = 0 or s = 0) is there nothing to average.",
)


# 4.7 Whatever the reader trains is measured, on points that it has not seen.

W2_BOUND, NLL_BOUND = 0.27, 1.75
MOONS = cast(GaussianMixture, moons())
FLIES = "the samples fly away: does the target point from noise to data, x_1 - x_0, with t = 1 at the data?"
BLOB = (
    "all samples come close to one point, the mean of the data: the field does not see the time, or sees it in another "
    "clock than the one it was trained with"
)
COPIES = (
    "the samples are good, but the field is infinite or not a number at t = 1: the exact field of the points "
    "themselves copies them. Train a network instead, which may not"
)
STILL = (
    "the samples are where the noise was: nothing has been learned. Does the optimizer hold the parameters of the "
    "network?"
)


def _take_one_time(asked: Answer, x: Tensor) -> None:
    """That the field takes one time for all points, as solvers hand it over."""
    try:
        asked(x, torch.tensor(0.5))
    except GradeError:
        asked(x, torch.full((len(x),), 0.5))  # if this fails too, it says why
        raise GradeError(
            "v(x, t) takes a time for each point, (B,), but not one time for all of them, a tensor of shape (), which "
            "is what solvers hand it: let v begin with t = t.expand(len(x))"
        ) from None


def _trained(my_flow: Answer) -> Tensor:
    """0 if samples and likelihood are good, else what is wrong, as the number of its diagnosis."""
    draws = [Generator().manual_seed(seed) for seed in (40, 50, 51)]
    points = MOONS.sample(1000, generator=draws[0])
    x_0, fresh = torch.randn(512, 2, generator=draws[1]), MOONS.sample(512, generator=draws[2])
    v = my_flow(points)
    if not callable(v):
        raise GradeError(f"my_flow(points) must return a function v(x, t), not {type(v).__name__}")
    if isinstance(v, nn.Module):
        v.eval()
    asked = guarded(v, "v(x, t)")

    def field(x: Tensor, t: Tensor) -> Tensor:
        velocity: Tensor = asked(x, t)
        if isinstance(velocity, Tensor) and not velocity.isfinite().all():
            raise GradeError(f"v(x, t) is NaN or infinity for some point at t = {float(t):.3g}")
        return velocity

    _take_one_time(asked, x_0)
    first = field(x_0, torch.tensor(0.5))
    if not isinstance(first, Tensor) or first.shape != x_0.shape:
        what = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise GradeError(
            f"v(x, t) must return one velocity for each point, shape {tuple(x_0.shape)}, not {what}"
        )
    with torch.no_grad():
        x_1 = odeint(field, x_0, steps=20, method=MIDPOINT)
    w2 = wasserstein2(x_1, fresh)
    if w2 > 2:
        return torch.tensor(1)
    if (x_1.std(0) / fresh.std(0)).mean() < 0.7:
        return torch.tensor(2)
    if wasserstein2(x_1, x_0) < 0.05:
        return torch.tensor(3)
    ends, goal = x_1.mean(0), points.mean(0)
    if (ends - goal).norm() > 0.4:
        raise GradeError(
            f"the samples have mean {show(ends)} and the points {show(goal)}: were the points shifted or scaled, and "
            "the samples not shifted back?"
        )
    if w2 > W2_BOUND:
        raise GradeError(
            f"W2 to fresh points is {w2:.2f}; below {W2_BOUND} is asked for. More steps, or a rate that decays?"
        )
    try:
        nll = -float(log_prob(field, fresh, steps=20, method=RK4).mean().detach())
    except (GradeError, ValueError):
        nll = math.nan
    except RuntimeError as error:
        raise GradeError(
            "the samples are good, but the likelihood needs the derivatives of your field in x: use neither "
            f"torch.no_grad nor detach in v. ({error})"
        ) from None
    if not math.isfinite(nll):
        return torch.tensor(4)
    if nll > NLL_BOUND:
        raise GradeError(
            f"the samples are good, W2 = {w2:.2f}, but the mean of -log p over fresh points is {nll:.2f}; below "
            f"{NLL_BOUND} is asked for. More steps?"
        )
    return torch.tensor(0)


exercise(
    "4.7",
    "A flow of your own",
    "my_flow(points)",
    Probe(_trained, "the flow is not good enough yet"),
    right=lambda points: MOONS.marginal_velocity(linear),
    mistakes=[
        (FLIES, lambda points: lambda x, t: 4 * x - MOONS.marginal_velocity(linear)(x, t)),
        (BLOB, lambda points: lambda x, t: points.mean(0) - x),
        (STILL, lambda points: lambda x, t: 0 * x),
        (COPIES, lambda points: Empirical(points).marginal_velocity(linear)),
    ],
    hints=(
        "The loop of this chapter does it: its batches come from a law, and yours from rows of `points`.",
        "Draw the rows anew at every step, with torch.randint, and fresh noise and times with them; some 256 of each.",
        "If W2 is not good enough, let the learning rate fall to 0 at the end (cosine_decay), or average the weights; "
        "if the likelihood is not, train longer.",
    ),
    insight="samples and likelihood close to those of the law itself, from a thousand points and a regression.",
)
