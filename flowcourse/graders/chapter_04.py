"""The exercises of chapter 4, Flow matching."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from flowcourse.exercises import (
    GradeError,
    Option,
    agree,
    call,
    choice,
    diagnose,
    exercise,
    require_tensor,
)

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


@exercise(
    "4.3",
    "The field that tosses a coin",
    hints=(
        "Given xₜ = x the velocity is (x₁ - x) / (1 - t), so all you need is E[x₁ | xₜ = x] = P(+1) - P(-1).",
        "If x₁ = ±1 then xₜ is N(±t, (1 - t)²). The two squares in the exponents differ by 4 t x: what are the odds?",
        "log odds = 2 t x / (1 - t)², and P(+1) - P(-1) is tanh of half of them.",
    ),
    insight="at t = 0 the arrow points to the mean 0, where no data are; tanh turns into a sign as t → 1, "
    "and the coin falls.",
)
def grade_coin(velocity: Any) -> None:
    """velocity(x, t) for x and t (B,): E[x₁ - x₀ | xₜ = x] for x₀ ~ N(0, 1) and x₁ = ±1 with equal probability."""
    signature = "velocity(x, t)"
    x = torch.tensor([0.3, -0.8, 1.4, -0.2, 0.6], dtype=torch.float64)
    t = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.7], dtype=torch.float64)
    result = require_tensor(call(velocity, x.clone(), t.clone(), signature=signature), x, signature)
    s = 1 - t
    mean = torch.tanh(t * x / s**2)
    right = (mean - x) / s

    def with_mean(mean: Tensor) -> Tensor:
        return (mean - x) / s

    mistakes = [
        ("this is E[x₁ | xₜ = x], a place; the velocity is the way there over the time left", mean),
        ("time left is missing: the way from x to x₁ must be walked in 1 - t, so divide by it", mean - x),
        ("1 / (1 - t) multiplies the whole way, E[x₁|xₜ] - x, not only a part of it", mean - x / s),
        ("1 / (1 - t) multiplies the whole way, E[x₁|xₜ] - x, not only a part of it", mean / s - x),
        ("given x₁ the variance of xₜ is (1 - t)², not 1 - t", with_mean(torch.tanh(t * x / s))),
        (
            "xₜ is centered at ±t, not at ±1: the path has only come a part t of the way",
            with_mean(torch.tanh(x / s**2)),
        ),
        (
            "the noise shrinks: given x₁, xₜ has standard deviation 1 - t, and the odds must know",
            with_mean(torch.tanh(t * x)),
        ),
        (
            "the log odds are 2 t x / (1 - t)², and the mean is tanh of half of them",
            with_mean(torch.tanh(2 * t * x / s**2)),
        ),
        (
            "without the 1/2 in the Gaussian's exponent or with one too many: the log odds are 2 t x / (1 - t)²",
            with_mean(torch.tanh(t * x / (2 * s**2))),
        ),
        (
            "this is the probability of +1, not the mean of x₁, which is P(+1) - P(-1)",
            with_mean(torch.sigmoid(2 * t * x / s**2)),
        ),
        (
            "this walks to the likelier of the two points; least squares wants the mean of both, weighted",
            with_mean(torch.sign(x)),
        ),
        (
            "this walks to the likelier of the two points; least squares wants the mean of both",
            torch.sign(x) - x,
        ),
        (
            "these are the arrows of t = 0, where nothing is known of x₁; xₜ tells something about it",
            with_mean(0 * x),
        ),
        ("these are the arrows of t = 0, where nothing is known of x₁; xₜ tells something about it", -x),
        (
            "this is E[x₁ - x₀] over everybody; wanted is the mean over those who stand at x at time t",
            0 * x,
        ),
        (
            "E[x₀ | xₜ = x] is not x - t E[x₁ | xₜ = x]: solve xₜ = (1 - t) x₀ + t x₁ for x₀",
            mean - (x - t * mean),
        ),
        ("time runs backwards: this is x₀ - x₁", -right),
        ("time runs backwards: here t = 1 is the data", -((torch.tanh(s * x / t**2)) - x) / t),
    ]
    at = int((result - right).abs().argmax())
    otherwise = (
        f"at x = {x[at]:g}, t = {t[at]:g} the mean of x₁ is {mean[at]:.4f} and the velocity {right[at]:.4f}; "
        f"yours is {result[at]:.4f}"
    )
    diagnose(result, right, mistakes, otherwise)
    at_start = require_tensor(call(velocity, x.clone(), 0 * t, signature=signature), x, signature)
    if not agree(at_start, -x):
        raise GradeError("right for t > 0, but at t = 0 the velocity is the mean of the data less x, -x")


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


def _run(fm_loss: Any, x_1: Tensor, seed: int) -> tuple[Any, _Witness]:
    """The loss of a fresh witness, with the global generator left as it was, and found so."""
    witness, before = _Witness(), torch.get_rng_state()
    try:
        loss = call(
            fm_loss,
            witness,
            x_1.clone(),
            Generator().manual_seed(seed),
            signature="fm_loss(v, x_1, generator)",
        )
        touched = not torch.equal(before, torch.get_rng_state())
    finally:
        torch.set_rng_state(before)
    if touched:
        raise GradeError(
            "torch's global generator was used: give generator=generator to every randn and rand, or no "
            "run can be repeated"
        )
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


@exercise(
    "4.4",
    "The loss, from scratch",
    hints=(
        "Three draws and one square: noise x_0 like x_1, a time t for each pair, the point x_t, and the mean over the "
        "batch of |v(x_t, t) - (x_1 - x_0)|².",
        "x_1 may be (B, d) or (B, C, H, W). t.reshape(-1, *[1] * (x_1.ndim - 1)) multiplies each point by its own "
        "time; v wants t of shape (B,).",
        "((v(x_t, t) - (x_1 - x_0)) ** 2).flatten(1).sum(1).mean(), with x_0 = torch.randn(x_1.shape, "
        "generator=generator, dtype=x_1.dtype) and t = torch.rand(len(x_1), generator=generator).",
    ),
    insight="five lines, no simulation: this is all the training that a flow model of any size needs.",
)
def grade_loss(fm_loss: Any) -> None:
    """fm_loss(v, x_1, generator) = mean over the batch of |v(x_t, t) - (x_1 - x_0)|², x_1 (B, *D); shape ()."""
    signature = "fm_loss(v, x_1, generator)"
    _check_path(fm_loss, (512, 3))
    _check_path(fm_loss, (5, 1, 5, 5))  # as wide as it has pictures: a wrong broadcast raises no error

    for shape in ((512, 3), (5, 1, 5, 5)):
        x_1 = 2 + torch.randn(shape, generator=Generator().manual_seed(7), dtype=torch.float64)
        loss, witness = _run(fm_loss, x_1, 0)
        x_t, t = _shown(witness, x_1)
        column = t.reshape(-1, *[1] * (x_1.ndim - 1))
        x_0 = (x_t - column * x_1) / (1 - column)
        if len(x_1) > 100:
            _check_noise(x_0, t)
        if not isinstance(loss, Tensor):
            raise GradeError(
                f"{signature} must return a tensor of shape (), not {type(loss).__name__}: without a tensor "
                "there is no gradient"
            )
        if loss.shape != ():
            raise GradeError(f"{signature} must return shape (), one number, not {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise GradeError("the loss has lost its gradient: no detach, no item, no no_grad around v")
        v, u = witness.answer(x_t).detach(), x_1 - x_0

        def square(target: Tensor, v: Tensor = v) -> Tensor:
            return (v - target).square().flatten(1).sum(1)

        right, d = square(u).mean(), x_1[0].numel()
        mistakes = [
            ("time runs backwards: the target is x_1 - x_0, from noise to data", square(-u).mean()),
            ("the target is x_1 - x_0, a velocity; x_1 alone is a place", square(x_1).mean()),
            ("the target is x_1 - x_0; this learns the noise x_0", square(x_0).mean()),
            (
                "x_1 - x_t is the way that is left, (1 - t) times the velocity x_1 - x_0",
                square(x_1 - x_t).mean(),
            ),
            ("the target is x_1 - x_0, not x_t - x_0, which is t times it", square(x_t - x_0).mean()),
            ("the target is missing: this is the mean square of v itself", square(0 * u).mean()),
            (
                f"|·|² is the sum over the {d} dimensions of a point; you took their mean, so that your loss is "
                f"1/{d} of it (flowlib's cfm_loss does so too, but it is not asked here)",
                right / d,
            ),
            ("the mean over the batch is wanted; this is the sum", right * len(x_1)),
            (
                "the square is missing: with |v - u| the minimizer is a median, not the mean",
                square(u).sqrt().mean(),
            ),
            (
                "the square is missing: with the absolute value the minimizer is a median, not the mean",
                (v - u).abs().flatten(1).sum(1).mean(),
            ),
            ("this is the absolute value, averaged over everything: square it", (v - u).abs().mean()),
            ("the root of the mean square; leave the root out", right.sqrt()),
            ("no factor 1/2: the loss is the mean square itself", right / 2),
        ]
        value = loss.detach().to(right)
        otherwise = (
            f"for the points and times that v was asked, the loss is {right:.4f}; yours is {value:.4f}"
        )
        diagnose(value, right, mistakes, otherwise, tolerance=1e-5)

    again, _ = _run(fm_loss, x_1, 0)
    other, _ = _run(fm_loss, x_1, 1)
    if not torch.equal(again.detach(), loss.detach()):
        raise GradeError(
            "two generators with the same seed must give the same loss: some number is drawn elsewhere"
        )
    if torch.equal(other.detach(), loss.detach()):
        raise GradeError(
            "the generator is ignored: another seed gives the same loss, so each batch would see the same noise"
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


@exercise(
    "4.5",
    "The exact field of finite data",
    hints=(
        "v = (E[x₁ | xₜ = x] - x) / (1 - t), and E[x₁ | xₜ = x] is an average of the points with posterior weights.",
        "The weight of yᵢ is proportional to exp(-|x - t yᵢ|² / (2 (1 - t)²)). Near t = 1 every one of these numbers "
        "is 0 in floating point: what remains finite?",
        "Make the table of logarithms, (B, n), from (x[:, None] - t[:, None, None] * points).square().sum(2). Its "
        "softmax over dim=1, times the points, is the mean of x₁.",
    ),
    insight="a softmax over the data set, with (1 - t)² as its temperature: an attention layer that looks up the data.",
)
def grade_exact_velocity(exact_velocity: Any) -> None:
    """exact_velocity(x, t, points) = E[x₁ - x₀ | xₜ = x] (B, d), for x (B, d), t (B,) in [0, 1) and points (n, d)."""
    signature = "exact_velocity(x, t, points)"
    generator = Generator().manual_seed(3)
    points = torch.randn(7, 2, generator=generator, dtype=torch.float64) + 0.5
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)

    def run(x: Tensor, t: Tensor, points: Tensor) -> Any:
        return call(exact_velocity, x.clone(), t.clone(), points.clone(), signature=signature)

    t = torch.tensor([0.15, 0.3, 0.45, 0.55, 0.65], dtype=torch.float64)
    result = require_tensor(run(x, t, points), x, signature)
    s = (1 - t)[:, None]
    square = (x[:, None] - t[:, None, None] * points).square().sum(2)  # (B, n)

    def way(log_weights: Tensor) -> Tensor:
        return (log_weights.softmax(1) @ points - x) / s

    log_weights = -square / (2 * s**2)
    mean, right = log_weights.softmax(1) @ points, way(log_weights)
    unscaled = (x[:, None] - points).square().sum(2)
    mistakes = [
        ("this is E[x₁ | xₜ = x], a place; subtract x and divide by the time left", mean),
        (
            "the factor 1 / (1 - t) is missing: the way from x to the data must be walked in the time left",
            mean - x,
        ),
        ("time runs backwards: the velocity points from x to the data", -right),
        ("given yᵢ the variance of xₜ is (1 - t)², not 1 - t", way(-square / (2 * s))),
        ("the Gaussian's exponent has a 1/2", way(-square / s**2)),
        (
            "(1 - t)² is missing from the exponent: the noise shrinks, and the weights sharpen",
            way(-square / 2),
        ),
        ("the distance must be squared", way(-square.sqrt() / (2 * s**2))),
        ("given yᵢ, xₜ is centered at t yᵢ, not at yᵢ", way(-unscaled / (2 * s**2))),
        (
            "sign of the exponent: near points must weigh more, not less",
            way(square / (2 * s**2)),
        ),
        (
            "softmax over the wrong axis: for each x the weights of all points sum to 1",
            (log_weights.softmax(0) @ points - x) / s,
        ),
        (
            "the weights must be divided by their sum: they are a posterior",
            (log_weights.exp() @ points - x) / s,
        ),
        (
            "equal weights hold at t = 0 only; then xₜ begins to tell which point it comes from",
            way(0 * square),
        ),
        (
            "this walks to the likeliest point alone; least squares wants the mean over all",
            (points[square.argmin(1)] - x) / s,
        ),
    ]
    if agree(result, right, 1e-3) and not agree(result, right):
        raise GradeError(
            f"off by {(result - right).abs().max():.1e}: something is rounded, clamped or has a small number added. "
            "For 0 <= t < 1 none of that is needed"
        )
    at = int((result - right).abs().max(1).values.argmax())
    otherwise = (
        f"at x = ({x[at, 0]:.3f}, {x[at, 1]:.3f}), t = {t[at]:g} the velocity is ({right[at, 0]:.4f}, "
        f"{right[at, 1]:.4f}); yours is ({result[at, 0]:.4f}, {result[at, 1]:.4f})"
    )
    diagnose(result, right, mistakes, otherwise)

    at_start = run(x, torch.zeros_like(t), points)
    if isinstance(at_start, Tensor) and not at_start.isfinite().all():
        raise GradeError(
            "NaN or infinity at t = 0, where v = mean of the points - x: nothing may be divided by t"
        )
    if not agree(require_tensor(at_start, x, signature), points.mean(0) - x):
        raise GradeError("at t = 0 the weights are equal and v = mean of the points - x; yours differs")

    late = torch.full_like(t, 0.999)
    near = 0.999 * points[:5] + 1e-3 * x  # where paths are at that time
    far = near + 1  # and where they are not
    for place in (near, far):
        answer = run(place, late, points)
        if isinstance(answer, Tensor) and not answer.isfinite().all():
            raise GradeError(
                "NaN or infinity at t = 0.999: every exp(-|x - t y|² / (2 (1 - t)²)) is 0 there, and 0 / 0 is NaN. "
                "Work with logarithms: softmax, or subtract the largest before exp"
            )
        log_weights = -(place[:, None] - 0.999 * points).square().sum(2) / (2 * 0.001**2)
        expected = (log_weights.softmax(1) @ points - place) / 0.001
        if not agree(require_tensor(answer, x, signature), expected):
            raise GradeError(
                "right until t = 0.65, wrong at t = 0.999: something is clamped or rounded where 1 - t is small, or a "
                "small number in a denominator outweighs the sum of all weights. Work with logarithms: softmax"
            )


@exercise(
    "4.6",
    "The floor between two Gaussians",
    hints=(
        "U = x₁ - x₀ and xₜ = t x₁ + (1 - t) x₀ are jointly Gaussian: Var(U | xₜ) = Var U - Cov(U, xₜ)² / Var xₜ.",
        "Var U = a² + s², Cov(U, xₜ) = t s² - (1 - t) a², Var xₜ = t² s² + (1 - t)² a². The numerator collapses to "
        "a² s².",
        "∫ a² s² / (t² s² + (1 - t)² a²) dt from 0 to 1: substitute w = t s / ((1 - t) a).",
    ),
    insight="symmetric in the two ends, and proportional to the spread of each: only where one end is a point "
    "(a = 0 or s = 0) is there nothing to average.",
)
def grade_floor(floor: Any) -> None:
    """floor(a, s): the least flow-matching loss from N(0, a²) to N(0, s²) in one dimension, π a s / 2."""
    pairs = ((1.0, 1.0), (1.0, 2.0), (0.5, 1.7), (3.0, 0.2))
    values = [call(floor, a, s, signature="floor(a, s)") for a, s in pairs]
    try:
        result = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError):
        raise GradeError(f"floor(a, s) must return a number, not {type(values[0]).__name__}") from None
    a, s = torch.tensor(pairs, dtype=torch.float64).T
    right = math.pi * a * s / 2
    middle = a**2 * s**2 / ((a**2 + s**2) / 4)
    mistakes = [
        ("this is the answer for a = 1; the source has standard deviation a", math.pi * s / 2),
        (
            "standard deviations, not variances: the integral gives one power of each",
            math.pi * (a * s) ** 2 / 2,
        ),
        (
            "this is Var(x₁ - x₀), what nobody knows before looking; given xₜ less is unknown",
            a**2 + s**2,
        ),
        ("this is the integrand at t = 1/2; average it over t from 0 to 1", middle),
        ("the integral runs over w from 0 to infinity, where arctan gains π/2, not π", math.pi * a * s),
        ("arctan gains π/2 from 0 to infinity, not π/4", math.pi * a * s / 4),
        ("the integral of 1 / (1 + w²) from 0 to infinity is π/2, not 1", a * s),
        (
            "the integral of 1 / (1 + w²) from 0 to infinity is π/2; and one power of a and s remains",
            (a * s) ** 2,
        ),
        (
            "no field has loss 0 here: through each point pass paths with different velocities",
            0 * a,
        ),
        ("this is the root of the floor; it is a mean square", right.sqrt()),
        (
            "a² is missing from the numerator a² s²: the answer has a s, not a / s or s / a (as a → 0 every path "
            "starts at one point, and the floor is 0)",
            math.pi * s / (2 * a),
        ),
        ("Var x₀ = a² is missing from Var xₜ = t² s² + (1 - t)² a²", math.pi * s * a**2 / 2),
    ]
    at = int((result - right).abs().nan_to_num(math.inf).argmax())
    otherwise = (
        f"for a = {pairs[at][0]:g}, s = {pairs[at][1]:g} the integral of a² s² / (t² s² + (1 - t)² a²) over t is "
        f"{right[at]:.4f}; yours is {result[at]:.4f}"
    )
    diagnose(result, right, mistakes, otherwise)
