"""What a solve costs beside a bare hand-written loop, and beside the peers that are installed.

    python benchmarks/sampling.py            # one CPU thread
    python benchmarks/sampling.py --device cuda

The field is a network (3 hidden layers of 64, SiLU) fitted for 2,000 steps to eight Gaussians, on 10,000 points. With
fixed steps every contender makes the same evaluations, in turn, round after round; the table gives the median over
rounds of the ratio to the hand-written loop in that round, with its quartiles, and the largest difference from it.
"compiled" is `torch.compile(net)` handed to our solver, which needs a C++ compiler; "products" are the network's matrix
products alone, as many as a solve makes, below which no solver gets.

Adaptive Dormand-Prince at tolerance 1e-5: how often it evaluates the network, its root mean square error against a
tight float64 solve, and the time of one evaluation over that of a bare one. Since solvers differ in what error they
make of one tolerance, "at equal error" says how many evaluations would give the error of ours, by the fifth-order rate.
Optional peers: `pip install torchdiffeq flow_matching torchode zuko`.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
from collections.abc import Callable

import torch
from timing import Run, arguments, in_turn, ratio, steady
from torch import Generator, Tensor, nn

from flowlib.data import eight_gaussians
from flowlib.matching import cfm_loss
from flowlib.solvers import DOPRI5, EULER, MIDPOINT, RK4, odeint
from flowlib.training import fit

STEPS, POINTS, TOLERANCE = 20, 10_000, 1e-5
Solve = Callable[[], Tensor]


class Velocity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [3, 64, 64, 64]
        hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))


def fitted() -> Velocity:
    law, v = eight_gaussians("ffjord"), Velocity()

    def loss(v: nn.Module, generator: Generator) -> Tensor:
        return cfm_loss(v, law.sample(256, generator=generator), generator=generator)

    fit(v, loss, steps=2000, lr=2e-3, generator=Generator().manual_seed(0), progress=False)
    return v.eval()


def hand_euler(v: nn.Module, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        x = x + h * v(x, torch.tensor(n * h, device=x.device))
    return x


def hand_midpoint(v: nn.Module, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        t = torch.tensor(n * h, device=x.device)
        x = x + h * v(x + h / 2 * v(x, t), t + h / 2)
    return x


def hand_rk4(v: nn.Module, x: Tensor) -> Tensor:
    h = 1 / STEPS
    for n in range(STEPS):
        t = torch.tensor(n * h, device=x.device)
        k1 = v(x, t)
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        k4 = v(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def fixed(v: nn.Module, x: Tensor) -> dict[str, dict[str, Solve]]:
    """For each method, the ways to take its 20 steps; the first is the bare loop."""
    table: dict[str, dict[str, Solve]] = {}
    compiled = torch.compile(v)
    layers = [m for m in v.modules() if isinstance(m, nn.Linear)]
    inputs = [torch.randn(len(x), layer.in_features, device=x.device) for layer in layers]

    def products(evaluations: int) -> Tensor:
        for _ in range(evaluations):
            y = [layer(h) for layer, h in zip(layers, inputs, strict=True)][-1]
        return y

    for method, hand in ((EULER, hand_euler), (MIDPOINT, hand_midpoint), (RK4, hand_rk4)):
        table[method.name] = {
            "hand": lambda hand=hand: hand(v, x),  # type: ignore[misc]
            "flowlib": lambda method=method: odeint(v, x, steps=STEPS, method=method),  # type: ignore[misc]
            "compiled": lambda method=method: odeint(compiled, x, steps=STEPS, method=method),  # type: ignore[misc]
            "products": lambda method=method: products(STEPS * method.stages),  # type: ignore[misc]
        }
    ends, names = torch.tensor([0.0, 1.0], device=x.device), {EULER.name: "euler", MIDPOINT.name: "midpoint"}
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint as diffeq

        def run_diffeq(name: str) -> Tensor:
            return diffeq(lambda t, y: v(y, t), x, ends, method=name, options={"step_size": 1 / STEPS})[-1]

        for ours, theirs in names.items():  # its "rk4" is the 3/8 rule
            table[ours]["torchdiffeq"] = lambda theirs=theirs: run_diffeq(theirs)  # type: ignore[misc]
    if importlib.util.find_spec("flow_matching"):
        from flow_matching.solver import ODESolver

        solver = ODESolver(velocity_model=v)
        for ours, theirs in names.items():
            table[ours]["flow_matching"] = lambda theirs=theirs: solver.sample(  # type: ignore[misc]
                x_init=x, step_size=1 / STEPS, method=theirs
            )
    if importlib.util.find_spec("torchode"):
        import torchode

        term = torchode.ODETerm(lambda t, y: v(y, t))
        euler = torchode.AutoDiffAdjoint(torchode.Euler(term), torchode.FixedStepController())
        starts, stops = (end.expand(len(x)) for end in ends)

        def run_torchode() -> Tensor:
            problem = torchode.InitialValueProblem(y0=x, t_start=starts, t_end=stops)
            return euler.solve(problem, dt0=torch.full_like(starts, 1 / STEPS)).ys[:, -1]

        table[EULER.name]["torchode"] = run_torchode
    return table


def adaptive(v: Callable[..., Tensor], x: Tensor) -> dict[str, Solve]:
    """The ways to solve with Dormand-Prince at the tolerance."""
    runs: dict[str, Solve] = {"flowlib": lambda: odeint(v, x, method=DOPRI5, rtol=TOLERANCE, atol=TOLERANCE)}
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint as diffeq

        ends = torch.tensor([0.0, 1.0], device=x.device)
        runs["torchdiffeq"] = lambda: diffeq(
            lambda t, y: v(y, t), x, ends, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE
        )[-1]
    if importlib.util.find_spec("zuko"):
        from zuko.utils import odeint as zuko

        runs["zuko"] = lambda: zuko(lambda t, y: v(y, t), x, 0.0, 1.0, rtol=TOLERANCE, atol=TOLERANCE)
    return runs


def print_fixed(v: nn.Module, x: Tensor, device: str, rounds: int) -> None:
    print(f"{'20 steps':10s}{'contender':14s}{'ratio':>7s}{'quartiles':>14s}   largest difference from hand")
    for method, runs in fixed(v, x).items():
        reference = runs["hand"]()
        difference = {
            name: float((run() - reference).abs().max()) for name, run in runs.items()
        }  # warms up too
        turns: dict[str, Run] = dict(runs)
        times = in_turn(turns, device, rounds)
        for name in runs:
            apart = "" if name == "products" else f"{difference[name]:.1e}"
            print(f"{method:10s}{name:14s}{ratio(times[name], times['hand'])}   {apart}")


def print_adaptive(v: nn.Module, x: Tensor, device: str, rounds: int) -> None:
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v(x, t)

    exact = odeint(copy.deepcopy(v).double(), x.double(), method=DOPRI5, rtol=1e-10, atol=1e-10)
    runs = adaptive(counted, x)
    evaluations: dict[str, int] = {}
    errors: dict[str, float] = {}
    for name, run in runs.items():
        calls = 0
        errors[name] = float((run() - exact).square().mean().sqrt())
        evaluations[name] = calls
    t = torch.tensor(0.5, device=x.device)
    turns: dict[str, Run] = dict(runs)
    times = in_turn(turns | {"bare": lambda: [v(x, t) for _ in range(50)][-1]}, device, rounds)
    bare = [s / 50 for s in times["bare"]]
    print("\nadaptive  contender       ratio     quartiles   evaluations   rms error   at equal error")
    for name, n in evaluations.items():
        equal = n * (errors[name] / errors["flowlib"]) ** (1 / 5)
        cost = ratio(times[name], bare, per=n)
        print(f"          {name:14s}{cost}   {n:11d}   {errors[name]:9.1e}   {equal:14.0f}")


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__, rounds=15)
    torch.manual_seed(0)
    with torch.enable_grad():
        v = fitted().to(options.device)
    x = torch.randn(POINTS, 2, generator=Generator().manual_seed(0)).to(options.device)
    print_fixed(v, x, options.device, options.rounds)
    print_adaptive(v, x, options.device, options.rounds)


if __name__ == "__main__":
    steady()
    main()
