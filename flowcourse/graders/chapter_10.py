"""The exercises of chapter 10, Rectified flow at scale: Stable Diffusion 3."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor

from flowcourse.exercises import Option, choice, exercise
from flowcourse.grading import Answer, GradeError, Probe, alike, from_parts, numbers, require
from flowcourse.shapes.captions import RELATIONS, Demand, Thing, judge, prompts
from flowcourse.shapes.detector import UNKNOWN, detect
from flowcourse.shapes.scenes import COLORS, MAGENTA, SHAPES, SIDE, Object, Scene, render

choice(
    "10.1",
    "Two clocks",
    "A pipeline's network n(z, 1000 σ) was trained to predict ε - x at z = (1 - σ) x + σ ε. You "
    "have noise, and odeint, which integrates v from t = 0 at the noise to t = 1 at the data. Which v is right?",
    Option(
        "v(x, t) = n(x, 1000 (1 - t))",
        "The time is right: noise is σ = 1. But ε - x points from the picture to the noise, and forward steps along it "
        "blow the noise up.",
    ),
    Option(
        "v(x, t) = -n(x, 1000 t)",
        "The sign is right. But the network is told σ = 0 at the start, a finished picture where there is pure noise: "
        "it takes what it sees for the picture, answers with minus that, and the noise grows.",
    ),
    Option(
        "v(x, t) = n(x, 1000 t), for the two minus signs cancel",
        "They cancel for a solver that runs from σ = 1 down to 0, with negative steps. This one steps forward in t, so "
        "that both have to be written.",
    ),
    Option(
        "v(x, t) = -n(x, 1000 (1 - t))",
        "The same points by the other clock: σ = 1 - t, and dx/dt = -dz/dσ.",
        right=True,
    ),
    hints=(
        "What is σ where odeint begins, and what is the network to be told there?",
        "At the noise, does ε - x point toward the picture or away from it? And which way must the first step go?",
        "x_t = z with σ = 1 - t. Differentiate that by t, and use the chain rule.",
    ),
)

choice(
    "10.2",
    "A density and a weight",
    "Times are drawn from a logit-normal law, whose density p vanishes at both ends, and each loss is divided by p(t). "
    "What has changed against uniform times without weights?",
    Option(
        "Nothing: the two cancel.",
        "On average they do. But the second moment of the gradient was the integral of E|g|², and is now that of "
        "E|g|²/p, which is infinite: at the ends 1/p grows faster than any power.",
    ),
    Option(
        "The noise of the gradients: their mean is the same, but a rare time near an end weighs without bound.",
        "Drawing by p and weighing by w trains with p w, here 1. What differs is the variance, and this is the worst "
        "way to have uniform times.",
        right=True,
    ),
    Option(
        "The middle counts with p², for drawing and weighing both favor it.",
        "That happens if the loss is multiplied by p as well, the bug of 'do both'. Division takes away what drawing "
        "gave.",
    ),
    Option(
        "A perfect network would answer something else than E[x₁ - x₀ | x_t].",
        "At each time the best answer is the mean velocity, whatever positive factor its error has. Laws and weights "
        "decide where a network of finite size is good, not what is right.",
    ),
    hints=(
        "Write the mean of the loss as an integral over t. Which factors stand before the loss at time t?",
        "Then write the mean of the squared gradient. Are the factors the same?",
        "At the ends p goes to 0: how often is such a time drawn, and what does it weigh when it is?",
    ),
)


# 10.3 A law of times, shifted and told by the other clock


@from_parts
def _law(mean: float, std: float, pixels: float) -> dict[str, Any]:
    step = math.log(pixels) / 2  # log of the shift, the root of the ratio
    root = math.sqrt(pixels)
    return locals()


LAWS = [(0.5, 0.8, 4.0), (-1.2, 1.3, 9.0), (0.3, 1.0, 0.25), (0.7, 0.6, 1.0)]
LAW = "my_law(mean, std, pixels)"


def _law_off(result: Tensor, right: Tensor, _: Answer) -> str:
    at = int((result - right).abs().amax(1).argmax())
    m, s, k = LAWS[at]
    told, wanted = (", ".join(f"{x:.4f}" for x in row.tolist()) for row in (result[at], right[at]))
    return (
        f"for σ logit-normal with mean {m:g} and deviation {s:g}, and {k:g} times the pixels, t should have "
        f"({wanted}); yours is ({told}). Test it by sampling: draw r normal, take t = shift(1 - sigmoid(r), s) with "
        "the shift s, and look at logit(t)"
    )


exercise(
    "10.3",
    "A law for larger pictures",
    LAW,
    Probe(numbers(LAW, LAWS, "two numbers, a mean and a deviation", length=2), _law_off),
    right=_law(lambda p: (-p.mean - p.step, p.std)),
    mistakes=[
        (
            "that is the law of the new σ; wanted is that of t = 1 - σ",
            _law(lambda p: (p.mean + p.step, p.std)),
        ),
        (
            "the clock is turned, but the shift goes toward the data: larger pictures need times nearer to the noise, "
            "smaller t",
            _law(lambda p: (-p.mean + p.step, p.std)),
        ),
        (
            "the shift is right for t, but the mean that came was one of σ: logit(1 - σ) = -logit(σ)",
            _law(lambda p: (p.mean - p.step, p.std)),
        ),
        (
            "the clock is turned, but nothing is shifted",
            _law(lambda p: (-p.mean, p.std)),
        ),
        (
            "the shift is the root of the ratio of the pixels, of which this took the whole",
            _law(lambda p: (-p.mean - 2 * p.step, p.std)),
        ),
        (
            "the shift is the root of the ratio of the pixels, and this took the square of the ratio",
            _law(lambda p: (-p.mean - 4 * p.step, p.std)),
        ),
        (
            "the shift moves logit t by its logarithm, not by itself",
            _law(lambda p: (-p.mean - p.root, p.std)),
        ),
        (
            "the shift moves logit t by its logarithm, log s; it does not divide it by s",
            _law(lambda p: (-p.mean / p.root, p.std / p.root)),
        ),
        (
            "the shift moves the mean of logit t by its logarithm, log s; it does not divide it by s",
            _law(lambda p: (-p.mean / p.root, p.std)),
        ),
        (
            "the mean is right, but the deviation is not divided by the shift: all logits move by the same amount",
            _law(lambda p: (-p.mean - p.step, p.std / p.root)),
        ),
        (
            "the mean is right, but the deviation is not divided by the ratio of the pixels: all logits move by the "
            "same amount",
            _law(lambda p: (-p.mean - p.step, p.std / p.pixels)),
        ),
        (
            "this is the law of σ that came: it is neither turned nor shifted",
            _law(lambda p: (p.mean, p.std)),
        ),
        (
            "the mean is right, but the deviation is not multiplied by the shift: all logits move by the same amount",
            _law(lambda p: (-p.mean - p.step, p.std * p.root)),
        ),
        (
            "the mean is right, but a deviation keeps its sign when the clock is turned",
            _law(lambda p: (-p.mean - p.step, -p.std)),
        ),
        (
            "the logits move by log s itself, not by so many deviations",
            _law(lambda p: (-p.mean - p.std * p.step, p.std)),
        ),
        (
            "this is the median of t; wanted is the mean of logit t, by which the law is named",
            _law(lambda p: (1 / (1 + math.exp(p.mean + p.step)), p.std)),
        ),
        (
            "the logarithm is the natural one, as in logit t = log(t / (1 - t))",
            _law(lambda p: (-p.mean - math.log2(p.root), p.std)),
        ),
        (
            "this is the variance of logit t, not its deviation",
            _law(lambda p: (-p.mean - p.step, p.std**2)),
        ),
    ],
    hints=(
        "What is logit t, if t = 1 - σ and logit σ is normal with the mean m and the deviation τ?",
        "What does the shift do to logit t, and by how much for so many times the pixels?",
        "A normal variable with its sign changed and a constant added is normal: with which mean and deviation?",
    ),
    insight="a family of laws that turned clocks and shifts keep: only its mean moves, by half the log of the ratio.",
)


# 10.4 Joint attention that becomes cross-attention, by a mask


@from_parts
def _mask(patches: int, said: Tensor) -> dict[str, Any]:
    n = patches + said.shape[1]
    picture = torch.arange(n) < patches  # (N,), and its words are those that are left
    true = torch.ones_like(said[:, :1])
    shown = torch.cat([true.expand(-1, patches), said], dim=1)  # (B, N): no padding
    itself = torch.eye(n, dtype=torch.bool)
    asks = picture[:, None] | ~picture  # a patch asks anybody, a word only words: (N, N)
    right = itself | (asks & shown[:, None])
    first = torch.cat([torch.arange(patches, n), torch.arange(patches)])  # the order that has words first
    return locals()


SAID = torch.tensor([[True, True, True, False], [True, True, False, False], [True, True, True, True]])
SILENT = torch.zeros(2, 3, dtype=torch.bool)
MASK = "my_mask(patches, said)"


def _masks(patches: int, said: Tensor) -> Any:
    def measure(my_mask: Answer) -> Tensor:
        result, n = my_mask(patches, said), patches + said.shape[1]
        if isinstance(result, Tensor) and result.dtype != torch.bool:
            added = (
                "as a mask that is added to the logits"
                if (result < 0).any()
                else "compare, or take its .bool()"
            )
            raise GradeError(
                f"{MASK} must return a bool tensor, True where a token is seen; yours is {result.dtype}: {added}"
            )
        require(result, torch.ones(len(said), n, n, dtype=torch.bool), MASK)
        return result.long()

    return measure


def _mask_off(result: Tensor, right: Tensor, _: Answer) -> str:
    b, q, k = (int(i) for i in (result != right).nonzero()[0])
    names = [
        f"patch {i}" if i < 3 else f"word {i - 3}{'' if SAID[b, i - 3] else ', which is padding'}"
        for i in (q, k)
    ]
    return (
        f"with three patches and said[{b}] = {SAID[b].tolist()}, the entry [{b}, {q}, {k}] should be "
        f"{bool(right[b, q, k])}: does ({names[0]}) see ({names[1]})? Rows ask, columns are seen"
    )


exercise(
    "10.4",
    "Cross-attention by a mask",
    MASK,
    Probe(_masks(3, SAID), _mask_off),
    Probe(_masks(5, SAID[:1]), "right for three patches, but not for five"),
    Probe(
        _masks(2, SILENT),
        "right for captions that say something, but not for the empty one, which guidance needs: each token still sees "
        "itself, and patches see each other",
    ),
    right=_mask(lambda p: p.right),
    mistakes=[
        (
            "rows and columns are swapped: a row is the token that asks, a column one that it sees. Yours lets words "
            "see the picture and hides them from it",
            _mask(lambda p: p.right.transpose(1, 2)),
        ),
        (
            "patches come first in the sequence, then words; yours has the words first",
            _mask(lambda p: p.right[:, p.first][:, :, p.first]),
        ),
        (
            "this is joint attention still: words must not see patches",
            _mask(lambda p: p.itself | p.shown[:, None].expand(-1, p.n, -1)),
        ),
        (
            "the patches are cut off from one another: a patch sees all patches, and the words that are said",
            _mask(lambda p: p.itself | (~p.picture & p.shown[:, None])),
        ),
        (
            "patches must see words too: yours are two attentions that never meet",
            _mask(lambda p: p.itself | ((p.picture[:, None] == p.picture) & p.shown[:, None])),
        ),
        (
            "padding is to be hidden: a column of False wherever nothing is said, but for the token itself",
            _mask(lambda p: p.asks.expand(len(p.said), -1, -1)),
        ),
        (
            "the other way around: in PyTorch's scaled_dot_product_attention, as here, True says that a token is seen",
            _mask(lambda p: ~p.right),
        ),
        (
            "padding must see itself too. Where nothing is said, the row of a word is empty otherwise: a softmax over "
            "nothing is NaN, and 0 times NaN is NaN, so that it spreads to the patches",
            _mask(lambda p: p.asks & p.shown[:, None]),
        ),
        (
            "padding may look at the words that are said, like any other word: it is as a column that it is hidden",
            _mask(lambda p: p.itself | (p.asks & p.shown[:, None] & p.shown[:, :, None])),
        ),
        (
            "padding is hidden in its own row, where it asks; it is its column that nobody else may see",
            _mask(lambda p: p.itself | (p.asks & p.shown[:, :, None])),
        ),
        (
            "padding is hidden, but patches and words have changed places: here words see the picture, and patches do "
            "not see words",
            _mask(lambda p: p.itself | (p.asks.T & p.shown[:, None])),
        ),
        (
            "a word sees all words that are said, also those after it; this is the causal mask of a language model",
            _mask(lambda p: p.right & (p.itself | p.picture[:, None] | torch.ones_like(p.itself).tril())),
        ),
        (
            "words must see one another; yours see only themselves",
            _mask(lambda p: p.itself | (p.picture[:, None] & p.shown[:, None])),
        ),
        (
            "patches must not see padding either: whoever asks, its column is False, but for the token itself",
            _mask(lambda p: p.right | p.picture[:, None]),
        ),
    ],
    hints=(
        "Rows ask and columns are seen. Which rows may see the columns of patches, and which columns does `said` hide?",
        "Two conditions, one on pairs (q < patches or k >= patches) and one on columns: where do both hold?",
        "Think of the empty caption: which columns does the row of a word see there? Let the diagonal be True.",
    ),
    insight="the block of False is what joint attention adds to cross-attention: words that look back at the picture.",
)


# 10.5 A new word: what is measured is how well the reader's model obeys.

NEW, OLD = 0.7, 0.8  # of the prompts: those with the new word, and single things in the old colors
PROMPTS_OF_EACH = 60
PALETTE = COLORS | MAGENTA
(WORD,) = MAGENTA


@cache
def _asked() -> tuple[Demand, ...]:
    """What is asked of a model: magenta things, half of them beside one of an old color; then what it knew before."""
    g = Generator().manual_seed(10)
    alone = [Demand((Thing(shape, WORD),)) for shape in SHAPES]
    beside = [
        Demand((Thing(shape, WORD), other.things[0]), relation)
        for shape, other, relation in itertools.product(SHAPES, prompts("color", 25, generator=g), RELATIONS)
        if other.things[0].shape != shape
    ]
    some = [beside[k] for k in torch.randperm(len(beside), generator=g)[: PROMPTS_OF_EACH // 2].tolist()]
    new = alone * (PROMPTS_OF_EACH // 2 // len(alone)) + some
    return (*new, *prompts("color", PROMPTS_OF_EACH, generator=g))


def painted(
    captions: Sequence[str],
    generator: Generator,
    repaint: Callable[[Thing], str] = lambda thing: str(thing.color),
) -> Tensor:
    """Pictures of the grader's captions, with a little noise: what a perfect model would draw.

    Args:
        captions: of `_asked`.
        generator: the source of places and noise.
        repaint: which color a thing gets.
    """
    known = {str(demand): demand for demand in _asked()}
    scenes = []
    for demand in map(known.__getitem__, captions):
        x, y = RELATIONS.get(demand.relation or "", (0, 0))
        middle = (16 + 2 * torch.randint(-1, 2, (2,), generator=generator)).tolist()
        centers = [(middle[0] + 7 * sign * x, middle[1] + 7 * sign * y) for sign in (1, -1)]
        objects = [
            Object(thing.shape, repaint(thing), "small", center)
            for thing, center in zip(demand.things, centers, strict=False)
        ]
        scenes.append(Scene("white", tuple(objects)))
    pictures = render(scenes, palette=PALETTE)
    return pictures + 0.02 * torch.randn(pictures.shape, generator=generator)


def _pictures(my_draw: Answer) -> Tensor:
    """The reader's pictures of all that is asked."""
    captions = [str(demand) for demand in _asked()]

    def drawn(captions: list[str], seed: int) -> Tensor:
        with torch.no_grad():
            pictures = my_draw(captions, Generator().manual_seed(seed))
        require(pictures, torch.zeros(len(captions), 3, SIDE, SIDE), DRAW)
        return pictures.detach().cpu()

    few = captions[:3]
    first = drawn(few, 1)
    if not alike(first, drawn(few, 1), 1e-3):
        raise GradeError(
            "the same captions and a generator in the same state gave other pictures: draw all noise from the generator"
        )
    if alike(first, drawn(few, 2), 1e-3):
        raise GradeError(
            "another state of the generator gave the same pictures: each begins with noise that the generator draws"
        )
    if first.min() < -0.3:
        raise GradeError(
            f"your pictures have values down to {first.min():.1f}: the decoder's lie from -1 to 1, and pictures from 0 "
            "to 1, so take half of it, plus 1/2"
        )
    if _rendered(first):
        raise GradeError(
            "these are pictures of render, exact to the last digit. It is a model that has to draw: noise, the guided "
            "field of the fine-tuned network, and the decoder"
        )
    return drawn(captions, 3)


def _rendered(pictures: Tensor) -> bool:
    """Whether they are just what `render` makes of the scenes that they show."""
    scenes = detect(pictures, palette=PALETTE)
    said = [(scene.background, *(x for o in scene.objects for x in (o.shape, o.color))) for scene in scenes]
    known = not any(UNKNOWN in words for words in said)
    return known and alike(pictures, render(scenes, palette=PALETTE), 1e-3)


def _adherence(my_draw: Answer) -> Tensor:
    found, asked = detect(_pictures(my_draw), palette=PALETTE), _asked()
    obeyed = torch.tensor([*map(judge, found, asked)])
    new, old = (float(part.double().mean()) for part in obeyed.split(PROMPTS_OF_EACH))
    told = (
        f"{100 * new:.0f}% of your pictures obey a prompt with {WORD!r} (wanted: {100 * NEW:.0f}% or more), and "
        f"{100 * old:.0f}% one with an old color (wanted: {100 * OLD:.0f}% or more)"
    )
    if new >= NEW and old >= OLD:
        return torch.tensor(1.0)
    colors = [Counter(o.color for scene in part for o in scene.objects) for part in _halves(found)]
    if old < OLD and colors[1][WORD] > colors[1].total() / 4:
        raise GradeError(
            f"{told}. Where an old color is asked for, {WORD} comes: the model was shown too little else. Mix scenes "
            "in the old colors into each batch"
        )
    if old < OLD:
        raise GradeError(
            f"{told}. It has forgotten, or was spoiled: a smaller learning rate, more old scenes in the batches? Or "
            "other tokens than those it knows: its words must keep their numbers, and the new one comes last"
        )
    name, most = next(iter([c for c in colors[0].most_common() if c[0] != WORD]), ("", 0))
    if most > colors[0][WORD]:
        raise GradeError(
            f"{told}. What should be {WORD} is mostly {name}: was it trained, and long enough? Do the captions of "
            "training say the word, are the scenes rendered in it, does it have a row of its own, and are all weights "
            "trained and not the words alone?"
        )
    raise GradeError(
        f"{told}. The color is there, {colors[0][WORD]} times: it is shapes and places that are wrong. More steps, a "
        "larger guidance scale, or magenta things in pairs as well?"
    )


def _halves(found: list[Scene]) -> tuple[list[Scene], list[Scene]]:
    return found[:PROMPTS_OF_EACH], found[PROMPTS_OF_EACH:]


DRAW = "my_draw(captions, generator)"
exercise(
    "10.5",
    "A new word",
    DRAW,
    Probe(_adherence, "the model must obey"),
    right=painted,
    mistakes=[],
    hints=(
        "The tokenizer needs a word more, at the end of its list, and the text encoder a row for it. Near which?",
        "Repaint objects of sampled scenes (dataclasses.replace), render them with the larger palette, and let "
        "describe caption them; keep the captions that say the word. And what keeps the model from forgetting?",
        "Half a batch old, half new; a tenth of the captions dropped; AdamW at 1e-3, falling to a twentieth "
        "of it; 150 steps.",
    ),
    insight="a few steps taught a word, and the old scenes in each batch kept the old colors.",
)
