"""What a step of flow matching training costs beside a bare hand-written loop, and beside the peers installed.

    python benchmarks/training.py            # one CPU thread
    python benchmarks/training.py --device cuda

Every contender trains the same network (3 hidden layers of 64, SiLU, time concatenated) on batches of 256 points of the
plane with Adam, 200 steps at a time, in turn, round after round. The table gives the median over rounds of the ratio to
the hand-written loop in that round, with its quartiles, and the mean loss of each contender's last steps: all draw
different noise. "flowlib" has our loss, network and optimizer in that same loop; "fit" is `fit` as it comes, which also
averages the weights and checks every loss, so that it does more. "fused" is the hand-written loop with PyTorch's fused
Adam, which is ours: what the loss and the network cost lies between it and "flowlib". "partition" adds nearly optimal
pairs of each batch, "large" the same of 2,048 points at once, "semidiscrete" pairs with all 10,000 data points, by
potentials that were fitted before (not counted); "OT torchcfm" has exact pairs. Optional peers:
`pip install torchcfm flow_matching`.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable

import torch
from timing import Run, arguments, in_turn, ratio, steady
from torch import Generator, Tensor, nn

from flowlib.couplings import partition
from flowlib.data import eight_gaussians
from flowlib.matching import cfm_loss
from flowlib.nets import VelocityMLP
from flowlib.pairs import Pairs
from flowlib.semidiscrete import fit_semidiscrete
from flowlib.training import fit, fused_adam

STEPS, BATCH, RATE = 200, 256, 1e-3


class Velocity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden = [nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t], dim=1))


class Data:
    """Batches of points that lie ready on the device."""

    def __init__(self, device: str) -> None:
        self.x = eight_gaussians().sample(10_000, device=device, generator=Generator(device).manual_seed(0))

    def batch(self, generator: Generator | None = None) -> Tensor:
        x = self.x
        return x[torch.randint(len(x), (BATCH,), device=x.device, generator=generator)]

    def times(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.x.device)


class Loop:
    """The bare loop; it keeps the last losses."""

    def __init__(self, v: nn.Module, loss: Callable[[nn.Module], Tensor], optimizer: Callable) -> None:
        self.v, self.loss, self.optimizer = v, loss, optimizer(v.parameters(), lr=RATE)
        self.losses: list[float] = []

    def __call__(self) -> None:
        losses = []
        for _ in range(STEPS):
            value = self.loss(self.v)
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            losses.append(value.detach())
        self.losses = torch.stack(losses).tolist()  # reads, and so waits for the device


class Fit:
    """`fit` as it comes."""

    def __init__(self, v: nn.Module, data: Data) -> None:
        self.v, self.data, self.generator = v, data, Generator(data.x.device).manual_seed(1)
        self.losses: list[float] = []

    def loss(self, v: nn.Module, generator: Generator) -> Tensor:
        return cfm_loss(v, self.data.batch(generator), generator=generator)

    def __call__(self) -> None:
        run = fit(self.v, self.loss, steps=STEPS, lr=RATE, generator=self.generator, progress=False)
        self.losses = run.history.tolist()


def contenders(data: Data) -> dict[str, Loop | Fit]:
    device = data.x.device

    def by_hand(v: nn.Module) -> Tensor:
        x_1 = data.batch()
        x_0, t = torch.randn_like(x_1), data.times(BATCH, 1)
        return ((v(t * x_1 + (1 - t) * x_0, t) - (x_1 - x_0)) ** 2).mean()

    def ours() -> nn.Module:
        return VelocityMLP(2, width=64, depth=3).to(device)

    def theirs() -> nn.Module:
        return Velocity().to(device)

    runs: dict[str, Loop | Fit] = {
        "hand": Loop(theirs(), by_hand, torch.optim.Adam),
        "hand, fused": Loop(theirs(), by_hand, fused_adam),
        "flowlib": Loop(ours(), lambda v: cfm_loss(v, data.batch()), fused_adam),
        "fit": Fit(ours(), data),
    } | coupled(data, ours)
    if importlib.util.find_spec("torchcfm"):
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        matcher = ConditionalFlowMatcher(sigma=0.0)

        def torchcfm(v: nn.Module) -> Tensor:
            x_1 = data.batch()
            t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
            return torch.mean((v(x_t, t[:, None]) - u_t) ** 2)

        runs["torchcfm"] = Loop(theirs(), torchcfm, torch.optim.Adam)
        from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

        exactly = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)

        def ot_torchcfm(v: nn.Module) -> Tensor:
            x_1 = data.batch()
            t, x_t, u_t = exactly.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
            return torch.mean((v(x_t, t[:, None]) - u_t) ** 2)

        runs["OT torchcfm"] = Loop(theirs(), ot_torchcfm, torch.optim.Adam)
    if importlib.util.find_spec("flow_matching"):
        from flow_matching.path import CondOTProbPath

        path = CondOTProbPath()

        def flow_matching(v: nn.Module) -> Tensor:
            x_1 = data.batch()
            pair = path.sample(x_0=torch.randn_like(x_1), x_1=x_1, t=data.times(BATCH))
            return torch.mean((v(pair.x_t, pair.t[:, None]) - pair.dx_t) ** 2)

        runs["flow_matching"] = Loop(theirs(), flow_matching, torch.optim.Adam)
    return runs


def coupled(data: Data, ours: Callable[[], nn.Module]) -> dict[str, Loop]:
    """The same step with better pairs."""

    def draw(n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(data.x), (n,), generator=generator, device=data.x.device)
        x_1 = data.x[chosen]
        return torch.randn(x_1.shape, generator=generator, device=x_1.device), x_1

    device = data.x.device
    stream = iter(
        Pairs(draw, BATCH, large=2048, coupling=partition, generator=Generator(device).manual_seed(0))
    )
    cells = fit_semidiscrete(data.x, steps=50, generator=Generator(device).manual_seed(0))

    def large(v: nn.Module) -> Tensor:
        x_0, x_1 = next(stream)
        return cfm_loss(v, x_1, x_0=x_0)

    def semidiscrete(v: nn.Module) -> Tensor:
        x_0 = torch.randn(BATCH, 2, device=device)
        return cfm_loss(v, cells(x_0), x_0=x_0)

    return {
        "partition": Loop(ours(), lambda v: cfm_loss(v, data.batch(), coupling=partition), fused_adam),
        "large": Loop(ours(), large, fused_adam),
        "semidiscrete": Loop(ours(), semidiscrete, fused_adam),
    }


def main() -> None:
    options = arguments(__doc__, rounds=25)
    torch.manual_seed(0)
    runs = contenders(Data(options.device))
    turns: dict[str, Run] = dict(runs)
    in_turn(turns, options.device, rounds=2)  # warm-up
    times = in_turn(turns, options.device, options.rounds)
    print(f"{'contender':14s}{'ratio':>7s}{'quartiles':>14s}   ms a step   loss")
    for name, run in runs.items():
        step = 1e3 * statistics.median(times[name]) / STEPS
        loss = statistics.mean(run.losses)
        print(f"{name:14s}{ratio(times[name], times['hand'])}   {step:9.3f}   {loss:.3f}")


if __name__ == "__main__":
    steady()
    main()
