"""The model family of chapters 4 to 8: the same data, network, budget, seeds and measures for every method."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from typing import Any, Generic, TypeVar

import torch
from torch import Generator, Tensor, nn

from flowcourse.budgets import device, generator
from flowlib.continuous import log_prob
from flowlib.couplings import Coupling, independent
from flowlib.data import MarginalVelocity, Toy, eight_gaussians, moons
from flowlib.fields import Field
from flowlib.flow_maps import AverageVelocity, jump
from flowlib.matching import cfm_loss
from flowlib.metrics import noise_floor, wasserstein2
from flowlib.mixtures import GaussianMixture
from flowlib.nets import VelocityMLP
from flowlib.pairs import Pairs
from flowlib.paths import AffinePath, linear
from flowlib.solvers import DOPRI5, odeint, trajectory
from flowlib.training import cosine_decay, fit

SEEDS = (0, 1, 2)
STEPS, BATCH, RATE = 10_000, 256, 5e-3
POINTS = 2048  # at which samples are compared: a multiple of 8, so that eight Gaussians can be balanced


@dataclass(frozen=True)
class Task:
    """What to learn: carry the law of x_0 to that of x_1.

    Args:
        name: as the leaderboard calls it.
        target: the law of x_1, points of the plane.
        source: the law of x_0; N(0, I) if None.
    """

    name: str
    target: GaussianMixture | Toy
    source: GaussianMixture | None = None

    def start(self, n: int, *, generator: Generator | None = None, balanced: bool = False) -> Tensor:
        """n points x_0 (n, 2), where the generator lives; `balanced`: as many from each component of a mixture, and
        N(0, I) as many in each eighth of the plane. Each point alone keeps its law, and averages vary less.
        """
        if self.source is not None:
            return self.source.sample(n, balanced=balanced, generator=generator)
        if balanced and n % 8:
            raise ValueError(f"balanced needs a multiple of 8, got n = {n}")
        x = torch.randn(n, 2, generator=generator, device=generator.device if generator else None)
        if not balanced:
            return x
        within = torch.rand(n, generator=generator, device=x.device) - 0.5
        angle = math.pi / 4 * (torch.arange(n, device=x.device) % 8 + within)
        return x.norm(dim=1, keepdim=True) * torch.stack([angle.cos(), angle.sin()], dim=1)

    def goal(self, n: int, *, generator: Generator | None = None, balanced: bool = False) -> Tensor:
        """n points x_1 (n, 2), where the generator lives; `balanced`: as many from each component or piece."""
        return self.target.sample(n, balanced=balanced, generator=generator)

    def velocity(self, path: AffinePath = linear) -> MarginalVelocity:
        """The exact marginal velocity of the path, with x_0 and x_1 independent.

        Raises:
            ValueError: the target is not a Gaussian mixture, so that no formula is known.
        """
        if not isinstance(self.target, GaussianMixture):
            raise ValueError(f"{self.name}: {self.target.name} is no mixture, so its exact field is unknown")
        return self.target.marginal_velocity(path, self.source)

    @cached_property
    def floor(self) -> float:
        """W2 between two balanced samples of the target, as large as those of the models: see `noise_floor`."""
        goal = partial(self.goal, balanced=True)
        return noise_floor(wasserstein2, goal, POINTS, repeats=3, generator=generator(99))

    @cached_property
    def squared_distance(self) -> float:
        """W2^2 between source and target, from balanced samples: the path energy of the cheapest flow."""
        g = generator(98)
        return (
            wasserstein2(*(law(POINTS, generator=g, balanced=True) for law in (self.start, self.goal))) ** 2
        )


NOISE_TO_EIGHT = Task("noise to 8 Gaussians", eight_gaussians("ffjord"))
EIGHT_TO_MOONS = Task("8 Gaussians to moons", moons("tutorial"), eight_gaussians("tutorial"))
TASKS = {task.name: task for task in (NOISE_TO_EIGHT, EIGHT_TO_MOONS)}


Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Member(Generic[Net]):
    """A trained member of the family: the network with its averaged weights, each step's loss, the seconds it took."""

    net: Net
    history: Tensor
    seconds: float


def learn(
    net: Net,
    loss: Callable[[Any, Generator], Tensor],
    *,
    generator: Generator,
    steps: int = STEPS,
    progress: bool = True,
) -> Member[Net]:
    """Train in place by the family's recipe: Adam at 5e-3 that decays to 0 along half a cosine, and averaged weights,
    which it keeps. Arguments as `fit` takes them.
    """
    run = fit(net, loss, steps=steps, lr=RATE, schedule=cosine_decay, generator=generator, progress=progress)
    with run.ema.applied(net):
        averaged = {name: x.clone() for name, x in net.state_dict().items()}
    net.load_state_dict(averaged)
    return Member(net.eval(), run.history, run.seconds)


def train(
    task: Task,
    *,
    seed: int = 0,
    steps: int = STEPS,
    path: AffinePath = linear,
    coupling: Coupling = independent,
    large: int = BATCH,
    progress: bool = True,
) -> Member[VelocityMLP]:
    """Train the family's network, a perceptron with three hidden layers of 64, by conditional flow matching.

    Every member sees fresh batches of 256 points and follows the recipe of `learn`. It runs on a GPU if there is one.

    Args:
        task: what to learn.
        seed: of the first weights and of all that is drawn.
        steps: how many.
        path, coupling: as `cfm_loss` takes them.
        large: how many points are coupled at once, as `Pairs` takes it.
        progress: show a progress bar.
    """
    where = device()
    net = VelocityMLP(2, generator=generator(seed)).to(where)

    draws = generator(seed, where)

    def draw(n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        x_1 = task.goal(n, generator=generator)
        return task.start(n, generator=generator), x_1

    pairs = (
        iter(Pairs(draw, BATCH, large=large, coupling=coupling, generator=draws)) if large > BATCH else None
    )

    def loss(v: Field, g: Generator) -> Tensor:
        x_0, x_1 = next(pairs) if pairs else draw(BATCH, generator=g)
        kept = independent if pairs else coupling
        return cfm_loss(v, x_1, x_0=x_0, path=path, coupling=kept, generator=g)

    return learn(net, loss, generator=draws, steps=steps, progress=progress)


@dataclass(frozen=True)
class Scores:
    """What `evaluate` measures of a field.

    Args:
        w2: 2-Wasserstein distance to the target, in the plane's units, by the number of evaluations: 1, 2, 4 and 8 of
            Euler's method, and "adaptive".
        floor: W2 between two samples of the target of the same size: what a perfect model scores on average.
        nfe: evaluations of the adaptive solve, Dormand-Prince at tolerance 1e-5.
        npe: normalized path energy |int E|v|^2 dt - W2^2(p_0, p_1)| / W2^2(p_0, p_1), 0 for the cheapest flow.
        nll: -E[log p_1] over the target, in nats: above the target's entropy by KL(target | model). Where the target's
            density is known it is estimated as entropy + mean(log p_target - log p_1), which varies less.
        field_error: root of E|v - v*|^2 / E|v*|^2 over uniform t and x_t ~ p_t, where the exact field v* is known.
    """

    w2: dict[int | str, float]
    floor: float
    nfe: int
    npe: float
    nll: float
    field_error: float | None


@torch.no_grad()
def evaluate(
    task: Task,
    v: Field,
    *,
    seed: int = 0,
    path: AffinePath | None = linear,
    u: AverageVelocity | None = None,
) -> Scores:
    """Measure a field on the task, from points that no training has seen; on the CPU, the same for every machine.

    Args:
        task: what the field is to do.
        v: a velocity field, such as `Member.net`.
        seed: of the points.
        path: the path whose exact field, with independent ends, `field_error` compares with; None compares with none.
        u: an average velocity, whose jumps then take the place of Euler's steps.

    Source: Tong et al. (2024), section 5, for W2 and the normalized path energy.
    """
    g = generator(1000 + seed)
    parameter = next(getattr(v, "parameters", lambda: iter(()))(), torch.zeros(()))
    x_0, x_1 = (
        law(POINTS, generator=g, balanced=True).to(parameter.device) for law in (task.start, task.goal)
    )
    mean = u or (lambda x, s, t: v(x, s))
    w2: dict[int | str, float] = {
        steps: wasserstein2(jump(mean, x_0, steps=steps), x_1) for steps in (1, 2, 4, 8)
    }
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v(x, t)

    w2["adaptive"] = wasserstein2(odeint(counted, x_0, method=DOPRI5), x_1)
    nfe = calls
    times, states = trajectory(v, x_0, steps=100)
    speeds = torch.stack([v(x, t).square().sum(1).mean() for x, t in zip(states, times, strict=True)])
    energy = float(torch.trapezoid(speeds, times))
    surprise = -log_prob(v, x_1, base=task.source)
    law, error = task.target, None
    if isinstance(law, GaussianMixture) and law.entropy is not None:
        surprise = surprise + law.log_prob(x_1) + law.entropy
    if isinstance(law, GaussianMixture) and path is not None:
        t = torch.rand(POINTS, generator=g).to(x_1)
        x_t = path.sample(x_0, x_1, t)[0]
        truth = task.velocity(path)(x_t, t)
        error = float((v(x_t, t) - truth).square().sum().div(truth.square().sum()).sqrt())
    npe = abs(energy - task.squared_distance) / task.squared_distance
    return Scores(w2, task.floor, nfe, npe, float(surprise.mean()), error)


def recorded(name: str) -> dict[str, Any]:
    """What is too long to run in a chapter: flowcourse/NAME.json, which the script benchmarks/NAME.py writes."""
    numbers: dict[str, Any] = json.loads((files("flowcourse") / f"{name}.json").read_text(encoding="utf-8"))
    return numbers


def leaderboard() -> list[dict[str, Any]]:
    """The recorded rows, one for each method and task: see benchmarks/leaderboard.py, which makes them.

    Each row has "method", "chapter", "task", "seeds", "steps", "floor", "seconds" and "scores", in which every measure
    has one number a seed.
    """
    rows: list[dict[str, Any]] = recorded("leaderboard")["rows"]
    return rows
