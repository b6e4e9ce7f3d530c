"""Normalizing flows: every transform against its own Jacobian, the spline against its definition and peers, laws."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from flowlib.data import moons
from flowlib.mixtures import GaussianMixture
from flowlib.normalizing import (
    ActNorm,
    AffineBijection,
    AffineCoupling,
    Composition,
    CouplingTransform,
    Flow,
    Inverse,
    InvertibleLinear,
    MaskedAutoregressive,
    Permutation,
    SplineBijection,
    SplineCoupling,
    StandardNormal,
    Transform,
    bits_per_dimension,
    dequantize,
    rational_quadratic_spline,
)
from flowlib.training import fit


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def cloud(*shape: int, seed: int = 1) -> Tensor:
    return 3 * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def shaken(module: nn.Module) -> nn.Module:
    """In float64, with every parameter moved: what starts at zero would hide mistakes."""
    g = generator(5)
    for parameter in module.double().parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return module


def coupling(kind: type, **options):
    return lambda d, g: kind(d, width=8, generator=g, **options)


def composition(d: int, g: Generator) -> Transform:
    return Composition([coupling(AffineCoupling)(d, g), InvertibleLinear(d, generator=g), ActNorm(d)])


MAKE = {
    "affine coupling": coupling(AffineCoupling),
    "affine coupling, flipped": coupling(AffineCoupling, flip=True),
    "spline coupling": coupling(SplineCoupling, bins=5, bound=4.0),
    "spline coupling, flipped": coupling(SplineCoupling, flip=True),
    "masked autoregressive": coupling(MaskedAutoregressive),
    "masked autoregressive, flipped": coupling(MaskedAutoregressive, flip=True, depth=3),
    "masked autoregressive spline": coupling(MaskedAutoregressive, bijection=SplineBijection()),
    "linear": lambda d, g: InvertibleLinear(d, generator=g),
    "actnorm": lambda d, g: ActNorm(d),
    "permutation": lambda d, g: Permutation(torch.randperm(d, generator=g)),
    "inverse": lambda d, g: Inverse(coupling(MaskedAutoregressive)(d, g)),
    "composition": composition,
}
TRANSFORMS = [(shaken(make(d, generator(3))), d) for make in MAKE.values() for d in (2, 5)]
each_transform = pytest.mark.parametrize(
    ("transform", "d"), TRANSFORMS, ids=[f"{name}, d = {d}" for name in MAKE for d in (2, 5)]
)
each_direction = pytest.mark.parametrize("direction", ["forward", "inverse"])


# Every transform


@each_transform
def test_the_inverse_undoes_it(transform: Transform, d: int):
    x = cloud(200, d)
    y, log_det = transform(x)
    back, log_det_back = transform.inverse(y)
    assert y.shape == x.shape and log_det.shape == (200,)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)
    y = cloud(200, d, seed=2)
    torch.testing.assert_close(transform(transform.inverse(y)[0])[0], y, rtol=1e-9, atol=1e-9)


@each_direction
@each_transform
def test_the_log_determinant_is_that_of_the_jacobian(transform: Transform, d: int, direction: str):
    x, function = cloud(20, d), getattr(transform, direction)
    jacobian = vmap(jacrev(lambda point: function(point)[0]))(x)  # (20, d, d)
    torch.testing.assert_close(function(x)[1], torch.linalg.slogdet(jacobian)[1], rtol=1e-9, atol=1e-9)


@each_direction
@each_transform
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_away_values_and_gradients_are_finite(
    transform: Transform, d: int, direction: str, dtype: torch.dtype
):
    transform = copy.deepcopy(transform).to(dtype)
    x = (1000 * cloud(64, d).sign() + cloud(64, d)).to(dtype).requires_grad_()
    y, log_det = getattr(transform, direction)(x)
    inputs = [x, *transform.parameters()]
    gradients = torch.autograd.grad(y.sum() + log_det.sum(), inputs, allow_unused=True)
    assert all(value.isfinite().all() for value in (y, log_det, *gradients) if value is not None)
    assert gradients[0] is not None and (gradients[0] != 0).any()


@each_direction
@each_transform
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 4)], ids=str)
def test_any_batch_shape(transform: Transform, d: int, direction: str, shape: tuple[int, ...]):
    x, function = cloud(*shape, d), getattr(transform, direction)
    y, log_det = function(x)
    each_y, each_log_det = function(x.reshape(-1, d))
    assert y.shape == x.shape and log_det.shape == shape
    torch.testing.assert_close(y, each_y.reshape(x.shape), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, each_log_det.reshape(shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_points_of_another_dimension_are_refused(name: str):
    transform = MAKE[name](5, generator())
    for function in (transform, transform.inverse):
        with pytest.raises(ValueError, match=r"\(\.\.\., 5\), got \(7, 4\)"):
            function(torch.zeros(7, 4))
    with pytest.raises(ValueError, match=r"got \(\)"):
        transform(torch.tensor(1.0))


INEXACT = [torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@each_direction
@pytest.mark.parametrize("dtype", INEXACT, ids=str)
@pytest.mark.parametrize("name", [*MAKE, "nothing"])
def test_points_that_are_not_float32_or_float64_are_refused(name: str, dtype: torch.dtype, direction: str):
    transform = MAKE[name](5, generator()) if name in MAKE else Composition([])
    for module in (transform, copy.deepcopy(transform).to(torch.bfloat16)):
        with pytest.raises(TypeError, match=f"points must be float32 or float64, got {dtype}"):
            getattr(module, direction)(torch.zeros(7, 5, dtype=dtype))


@each_direction
@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize(
    "name", [name for name in MAKE if name != "composition"]
)  # where one rounds for the next
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32], ids=str)
def test_it_computes_in_the_dtype_of_its_points_whatever_that_of_its_weights(
    name: str, d: int, direction: str, weights: torch.dtype
):
    transform, x = shaken(MAKE[name](d, generator(3))).to(weights), cloud(20, d).requires_grad_()
    function = getattr(transform, direction)
    back = transform.inverse if direction == "forward" else transform
    y, log_det = function(x)
    assert y.dtype == log_det.dtype == torch.float64
    torch.testing.assert_close(back(y), (x, -log_det), rtol=1e-9, atol=1e-9)
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(d)]
    jacobian = torch.stack(rows, dim=1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian)[1], rtol=1e-9, atol=1e-9)


@each_direction
@each_transform
def test_autocast_rounds_theta_at_most_and_never_the_map(transform: Transform, d: int, direction: str):
    transform, x = copy.deepcopy(transform).float(), cloud(50, d).float() / 3
    back = transform.inverse if direction == "forward" else transform
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = getattr(transform, direction)(x)
        again, log_det_back = back(y)
    assert y.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(again, x, rtol=0, atol=2e-4)  # in bfloat16 it would be 0.01 for the linear one
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-3)


class HostReads(TorchDispatchMode):
    """How often a value has been asked for, which on a GPU waits for all work in flight."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.equal,
            torch.ops.aten.nonzero,
        )
        return function(*args, **(kwargs or {}))


@each_transform
def test_nothing_is_read_from_tensors_on_the_way(transform: Transform, d: int):
    flow, x = Flow(StandardNormal(d), [transform]), cloud(20, d)
    with HostReads() as reads:
        transform(x)
        transform.inverse(x)
        flow.log_prob(x).sum()
        flow.sample(5, generator=generator())
    assert reads.count == 0
    with HostReads() as reads:
        x[0, 0].item()
    assert reads.count == 1


@each_transform
def test_no_device_is_mixed_with_another(transform: Transform, d: int):
    flow = copy.deepcopy(Flow(StandardNormal(d), [transform])).to("meta")
    x = torch.empty(4, d, dtype=torch.float64, device="meta")
    for y, log_det in (flow.transform(x), flow.transform.inverse(x)):
        assert y.shape == x.shape and log_det.shape == (4,)
    assert flow.log_prob(x).shape == (4,)
    assert flow.sample(3, generator=generator()).is_meta  # the noise is made on the CPU, and moved


@pytest.mark.parametrize("name", MAKE)
def test_copies_pickles_and_states_keep_the_map(name: str):
    transform, x = shaken(MAKE[name](5, generator(3))), cloud(20, 5)
    with torch.device("meta"):  # generators live on the CPU, the modules elsewhere
        empty = None if name == "permutation" else MAKE[name](5, generator(4))
    other = MAKE[name](5, generator(4)).double()
    other.load_state_dict(transform.state_dict())
    copies = [copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)), other]
    if empty is not None:
        assert all(parameter.is_meta for parameter in empty.parameters())
        empty.to_empty(device="cpu").double().load_state_dict(transform.state_dict())
        copies.append(empty)
    for twin in copies:
        torch.testing.assert_close(
            (twin(x), twin.inverse(x)), (transform(x), transform.inverse(x)), rtol=0, atol=0
        )


@pytest.mark.parametrize("name", [name for name in MAKE if name != "actnorm"])
def test_first_weights_come_from_the_generator(name: str):
    first, again, other = (MAKE[name](5, generator(seed)).state_dict() for seed in (7, 7, 9))
    assert all(torch.equal(x, again[key]) for key, x in first.items())
    assert any(not torch.equal(x, other[key]) for key, x in first.items())


# Each transform


def test_a_composition_adds_log_determinants_first_to_last_from_noise_to_data():
    (f, d), (g, _) = TRANSFORMS[0], TRANSFORMS[4]
    x = cloud(10, d)
    y, log_det_f = f(x)
    z, log_det_g = g(y)
    both = Composition([f, g])(x)
    torch.testing.assert_close(both, (z, log_det_f + log_det_g))
    nothing = Composition([])
    for direction in (nothing, nothing.inverse):
        torch.testing.assert_close(direction(x), (x, torch.zeros(10, dtype=x.dtype)))


def test_the_inverse_of_an_inverse_is_the_transform():
    transform, d = TRANSFORMS[0]
    twice, x = Inverse(Inverse(transform)), cloud(10, d)
    torch.testing.assert_close(
        (twice(x), twice.inverse(x)), (transform(x), transform.inverse(x)), rtol=0, atol=0
    )


class Careless(Transform):
    """The identity, with one log-determinant for all points, or with an axis too many."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(self.shape)

    inverse = forward


class CarelessLaw(StandardNormal):
    def log_prob(self, x: Tensor) -> Tensor:
        return -x.square() / 2  # of each coordinate


@pytest.mark.parametrize("shape", [(), (1,), (3, 1)], ids=str)
def test_log_determinants_are_never_broadcast(shape: tuple[int, ...]):
    flow = Flow(StandardNormal(3), [ActNorm(3), Careless(*shape)])
    for function in (flow.transform, flow.transform.inverse, flow):
        with pytest.raises(
            ValueError,
            match=r"the log-determinant must be like one number for each point: expected shape \(3,\), got",
        ):
            function(torch.zeros(3, 3))
    with pytest.raises(
        ValueError, match=r"base's log_prob must be like one number .* shape \(3,\), got \(3, 3\)"
    ):
        Flow(CarelessLaw(3), [ActNorm(3)])(torch.zeros(3, 3))


def test_transforms_may_come_from_a_generator():
    assert len(Composition(ActNorm(2) for _ in range(3)).transforms) == 3


@pytest.mark.parametrize("part", [nn.Linear(2, 2), ActNorm, None], ids=["module", "class", "None"])
def test_only_transforms_make_a_flow(part: object):
    with pytest.raises(TypeError, match=r"Transform objects, got (Linear|ActNorm|NoneType)$"):
        Flow(StandardNormal(2), [ActNorm(2), part])


@pytest.mark.parametrize(
    ("error", "match", "order"),
    [
        (ValueError, r"each of 0.*got \[0, 0, 1\]", [0, 0, 1]),
        (ValueError, "each of 0", [1, 2, 3]),
        (ValueError, "each of 0", torch.zeros(0, dtype=torch.int64)),
        (ValueError, r"\(d,\), got \(1, 2\)", [[0, 1]]),
        (TypeError, "integers, got torch.float32", [0.0, 1.0]),
        (TypeError, "integers, got torch.bool", [False, True]),  # it would be taken for a mask
    ],
)
def test_orders_that_are_no_permutation_are_refused(error: type[Exception], match: str, order: list):
    with pytest.raises(error, match=match):
        Permutation(order)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_a_permutation_takes_whole_numbers_of_any_dtype_and_keeps_its_own_copy(dtype: torch.dtype):
    order = torch.tensor([2, 0, 1], dtype=dtype)
    transform, x = Permutation(order), torch.tensor([5.0, 6.0, 7.0])
    order.zero_()
    assert transform(x)[0].tolist() == [7.0, 5.0, 6.0]
    assert transform.inverse(transform(x)[0])[0].tolist() == [5.0, 6.0, 7.0]


def test_actnorm_turns_the_first_batch_into_mean_0_and_variance_1():
    y, norm = cloud(500, 3) * torch.tensor([0.1, 1.0, 10.0]) + 5, ActNorm(3).double()
    norm.initialize(y)
    x, log_det = norm.inverse(y)
    torch.testing.assert_close(x.mean(0), torch.zeros(3, dtype=x.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(3, dtype=x.dtype))
    torch.testing.assert_close(log_det[0], -y.std(0, correction=0).log().sum())


@pytest.mark.parametrize(
    ("match", "y"),
    [
        (r"not in \[1, 2\]", torch.tensor([[1.0, 2.0, 3.0], [4.0, 2.0, 3.0]])),
        (r"not in \[1\]", torch.stack([torch.arange(1000.0), torch.full((1000,), 0.1), torch.arange(1000.0)], 1)),
        (r"not in \[0, 2\]", torch.tensor([[math.nan, 2.0, 3.0], [4.0, 1.0, math.inf]])),
        ("two points .* got 1", torch.zeros(3)),  # one point, not three numbers for each coordinate
        ("two points .* got 0", torch.zeros(0, 3)),
    ],
    ids=["constant", "constant but for rounding", "not finite", "one point", "none"],
)  # fmt: skip
def test_actnorm_refuses_points_that_do_not_vary(match: str, y: Tensor):
    norm = ActNorm(3)
    with pytest.raises(ValueError, match=match):
        norm.initialize(y)
    assert not norm.mean.any() and not norm.log_scale.any()


def test_initialize_takes_any_batch_shape_and_says_the_same_twice():
    y = cloud(40, 5, 3)
    flows = [
        Flow(
            StandardNormal(3), [ActNorm(3), shaken(AffineCoupling(3, generator=generator())), ActNorm(3)]
        ).double()
        for _ in "ab"
    ]
    flows[0].initialize(y)
    first = copy.deepcopy(flows[0].state_dict())
    flows[0].initialize(y)
    flows[1].initialize(y.reshape(200, 3))
    for flow in flows:
        torch.testing.assert_close(flow.state_dict(), first, rtol=1e-12, atol=1e-12)
    with pytest.raises(TypeError, match=r"got torch\.bfloat16"):
        flows[0].initialize(y.bfloat16())
    assert not any(parameter.grad_fn for parameter in flows[0].parameters())


def test_a_flow_hands_each_actnorm_the_points_that_reach_it():
    y, d = cloud(500, 3), 3
    middle, last = ActNorm(d), ActNorm(d)
    flow = Flow(StandardNormal(d), [middle, shaken(coupling(AffineCoupling)(d, generator())), last]).double()
    flow.initialize(y)
    for norm, points in ((last, y), (middle, Composition([*flow.transform.transforms][1:]).inverse(y)[0])):
        torch.testing.assert_close(norm.mean, points.mean(0))
        torch.testing.assert_close(norm.log_scale, points.std(0, correction=0).log())
    # which is where maximum likelihood wants the one next to the noise
    gradients = torch.autograd.grad(flow(y).mean(), [middle.mean, middle.log_scale])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-12


def test_the_linear_transform_starts_as_a_rotation_and_stays_its_three_factors():
    transform, d = InvertibleLinear(6, generator=generator()).double(), 6
    eye = torch.eye(d, dtype=torch.float64)
    W = transform(eye)[0].T
    torch.testing.assert_close(W @ W.T, eye, rtol=0, atol=1e-6)  # made in float32
    W = shaken(transform)(eye)[0].T
    L = transform.lower.tril(-1) + eye
    U = transform.upper.triu(1) + (transform.signs * transform.log_scale.exp()).diag()
    torch.testing.assert_close(W[transform.order], L @ U)  # the rows of W are those of L U, permuted
    assert sorted(transform.order.tolist()) != transform.order.tolist()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", [AffineCoupling, SplineCoupling])
def test_a_coupling_keeps_one_part_and_maps_each_other_coordinate_on_its_own(kind: type, flip: bool):
    transform, x = shaken(kind(5, flip=flip, generator=generator())), cloud(20, 5)
    jacobian = vmap(jacrev(lambda point: transform(point)[0]))(x)
    kept, moved = ([2, 3, 4], [0, 1]) if flip else ([0, 1], [2, 3, 4])
    eye = torch.eye(5, dtype=torch.bool)
    assert torch.equal(jacobian[:, kept], eye.double()[kept].expand(20, -1, -1))
    block = jacobian[:, moved][:, :, moved]
    assert (block[:, ~eye[: len(moved), : len(moved)]] == 0).all()
    assert (jacobian[:, moved][:, :, kept].abs().amax(0) > 0).all()  # every one depends on all of the others


def test_the_affine_coupling_is_the_formula():
    transform, x = shaken(AffineCoupling(3, generator=generator())), cloud(10, 3)
    theta = transform.net(x[:, :1]).reshape(10, 2, 2)
    shift, log_scale = theta[..., 0], 5 * torch.tanh(theta[..., 1] / 5)
    y, log_det = transform(x)
    torch.testing.assert_close(y, torch.cat([x[:, :1], x[:, 1:] * log_scale.exp() + shift], dim=1))
    torch.testing.assert_close(log_det, log_scale.sum(1))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("d", [1, 2, 4, 7])
def test_masks_let_each_coordinate_see_those_before_it_and_no_others(d: int, flip: bool):
    transform = shaken(MaskedAutoregressive(d, flip=flip, width=16, generator=generator()))
    dependence = vmap(jacrev(transform.net))(cloud(20, d)).reshape(20, d, 2, d)
    seen = (dependence != 0).any(dim=0).any(dim=1)  # of theta_i on y_j
    before = torch.ones(d, d, dtype=torch.bool)
    assert torch.equal(seen, before.triu(1) if flip else before.tril(-1))


@pytest.mark.parametrize("name", [name for name in MAKE if "coupling" in name or "masked" in name])
def test_networks_start_at_the_identity(name: str):
    x = cloud(50, 4).float()
    torch.testing.assert_close(MAKE[name](4, generator())(x), (x, torch.zeros(50)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("match", "make"),
    [
        ("dimension=1", lambda: AffineCoupling(1)),
        ("dimension=2.0", lambda: SplineCoupling(2.0)),
        ("dimension=0", lambda: StandardNormal(0)),
        ("dimension=-1", lambda: StandardNormal(-1)),
        ("dimension=2.0", lambda: StandardNormal(2.0)),
        ("dimension=True", lambda: StandardNormal(True)),
        ("dimension=0", lambda: ActNorm(0)),
        ("dimension=0", lambda: InvertibleLinear(0)),
        ("width=64.0", lambda: MaskedAutoregressive(2, width=64.0)),
        ("bins=2.5", lambda: SplineBijection(2.5)),
        ("bound=inf", lambda: SplineBijection(bound=math.inf)),
        ("bound=nan", lambda: SplineBijection(bound=math.nan)),
        ("bound=1e[+]39", lambda: SplineBijection(bound=1e39)),  # infinite in float32
        ("width=0", lambda: SplineCoupling(2, width=0)),
        ("depth=0", lambda: MaskedAutoregressive(2, depth=0)),
        ("dimension=0", lambda: MaskedAutoregressive(0)),
        ("bins=0", lambda: SplineCoupling(2, bins=0)),
        ("bound=-1", lambda: SplineBijection(bound=-1.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__code__.co_names[0],
)
def test_bad_sizes_are_refused(match: str, make):
    with pytest.raises(ValueError, match=match):
        make()


class OwnNet(nn.Module):
    """One that has no weights, and fails for reasons of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if (x > 100).any():
            raise RuntimeError("too far")
        return torch.cat([x, x.sin()], dim=-1)


def test_any_network_may_decide_and_its_errors_are_its_own():
    coupling, x = AffineCoupling(2, generator=generator()), cloud(10, 2)
    coupling.net = OwnNet()
    expected = x[:, 0] + (5 * torch.tanh(x[:, 0].sin() / 5)).exp() * x[:, 1]
    torch.testing.assert_close(coupling(x)[0], torch.stack([x[:, 0], expected], dim=1))
    with pytest.raises(RuntimeError, match="too far"):
        coupling(100 * x.abs() + 101)


@pytest.mark.parametrize("kind", [CouplingTransform, MaskedAutoregressive])
@pytest.mark.parametrize("bijection", [AffineBijection, SplineBijection, "affine", None], ids=str)
def test_what_is_no_bijection_is_refused(kind: type, bijection: object):
    with pytest.raises(TypeError, match="an object such as AffineBijection"):
        kind(2, bijection)


@each_direction
@pytest.mark.parametrize("bijection", [AffineBijection(), SplineBijection(3)], ids=["affine", "spline"])
def test_bijections_want_all_numbers_of_each_point(bijection, direction: str):
    function, x = getattr(bijection, direction), torch.zeros(5)
    for shape in [(bijection.count,), (1, bijection.count), (5, bijection.count + 1), (5,)]:
        with pytest.raises(ValueError, match=rf"{bijection.count} numbers .* shape \(5,\), got shape"):
            function(x, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"in torch.float32 .* in torch.bfloat16"):
        function(x, torch.zeros(5, bijection.count, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.bfloat16"):
        function(x.bfloat16(), torch.zeros(5, bijection.count, dtype=torch.bfloat16))


# The spline


def knots(*shape: int, bins: int = 8, spread: float = 1.0, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    theta = spread * torch.randn(*shape, 3 * bins - 1, generator=generator(seed), dtype=torch.float64)
    return theta.exp().split([bins, bins, bins - 1], dim=-1)


def edges(sizes: Tensor, bound: float) -> Tensor:
    ends = 2 * bound * (sizes / sizes.sum()).cumsum(0) - bound
    return torch.cat([torch.tensor([-bound], dtype=sizes.dtype), ends])


def test_the_spline_goes_through_its_knots_with_its_slopes():
    widths, heights, slopes = knots()
    x = edges(widths, 3.0)[1:-1].requires_grad_()
    y, log_slope = rational_quadratic_spline(x, widths, heights, slopes, bound=3.0)
    torch.testing.assert_close(y, edges(heights, 3.0)[1:-1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_slope, slopes.log(), rtol=1e-10, atol=1e-10)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == pytest.approx(slopes.tolist(), rel=1e-10)


def test_the_spline_is_the_formula():
    widths, heights, slopes = knots()
    x, y, d = edges(widths, 5.0).tolist(), edges(heights, 5.0).tolist(), [1.0, *slopes.tolist(), 1.0]
    points, expected = [], []
    for k, xi in itertools.product(range(8), (0.1, 0.5, 0.8)):
        s = (y[k + 1] - y[k]) / (x[k + 1] - x[k])
        beta = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
        points.append(x[k] + xi * (x[k + 1] - x[k]))
        expected.append(y[k] + (y[k + 1] - y[k]) * (s * xi**2 + d[k] * xi * (1 - xi)) / beta)
    points, expected = torch.tensor([points, expected], dtype=torch.float64)
    value = rational_quadratic_spline(points, widths, heights, slopes)[0]
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@given(
    bins=st.integers(1, 12),
    spread=st.floats(0, 2),
    bound=st.floats(0.1, 100),
    seed=st.integers(0, 10**6),
    shape=st.lists(st.integers(1, 5), max_size=3),
)
def test_the_spline_increases_and_its_inverse_undoes_it(
    bins: int, spread: float, bound: float, seed: int, shape: list[int]
):
    parts = knots(*shape, bins=bins, spread=spread, seed=seed)
    x = 0.6 * bound * torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x.requires_grad_(), *parts, bound=bound)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope, rtol=1e-9, atol=1e-12)
    back, log_slope_back = rational_quadratic_spline(y, *parts, bound=bound, inverse=True)
    again, log_slope = rational_quadratic_spline(back, *parts, bound=bound)
    torch.testing.assert_close(again, y, rtol=1e-10, atol=1e-10 * bound)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=1e-9, atol=1e-9)
    assert y.shape == back.shape == log_slope.shape == x.shape


def test_outside_the_knots_it_is_the_identity():
    x = torch.tensor([-math.inf, -1e30, -7.0, -3.0, 3.0, 3.0000001, 1e30, math.inf], dtype=torch.float64)
    x.requires_grad_()
    for inverse in (False, True):
        parts = [part.requires_grad_() for part in knots()]
        y, log_slope = rational_quadratic_spline(x[1:-1], *parts, bound=3.0, inverse=inverse)
        torch.testing.assert_close(y, x[1:-1], rtol=1e-14, atol=0)
        assert log_slope.abs().max() < 1e-13
        gradients = torch.autograd.grad(y.sum() + log_slope.sum(), [x, *parts])
        assert torch.equal(gradients[0][[1, 2, 5, 6]], torch.ones(4, dtype=x.dtype))
        assert all(gradient.abs().max() < 1e-9 for gradient in gradients[1:])


def test_sizes_are_relative_and_one_spline_serves_all_points():
    x, (widths, heights, slopes) = cloud(4, 6), knots()
    one = rational_quadratic_spline(x, widths, heights, slopes)
    scaled = rational_quadratic_spline(x, 7 * widths, heights / 3, slopes)
    spread = rational_quadratic_spline(x, *(part.expand(4, 6, -1) for part in (widths, heights, slopes)))
    torch.testing.assert_close(scaled, one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread, one, rtol=1e-12, atol=1e-12)


def test_equal_bins_with_slope_1_are_the_identity():
    x, ones = cloud(100), torch.ones(8, dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x, ones, ones, ones[1:])
    torch.testing.assert_close((y, log_slope), (x, torch.zeros_like(x)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("inverse", [False, True])
def test_extreme_bins_in_float32_stay_finite(inverse: bool):
    theta = 30 * torch.randn(4000, SplineBijection().count, generator=generator())
    parts = [part.requires_grad_() for part in SplineBijection().knots(theta)]
    x = 4 * torch.randn(4000, generator=generator(1))
    y, log_slope = rational_quadratic_spline(x, *parts, inverse=inverse)
    gradients = torch.autograd.grad(y.sum() + log_slope.sum(), parts)
    assert all(value.isfinite().all() for value in (y, log_slope, *gradients))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_spline_is_that_of_zuko(inverse: bool):
    MonotonicRQSTransform = pytest.importorskip("zuko.transforms").MonotonicRQSTransform
    theta, x = cloud(300, 23, seed=4) / 3, cloud(300)
    peer = MonotonicRQSTransform(*theta.split([8, 8, 7], dim=-1))
    parts = peer.horizontal.diff(), peer.vertical.diff(), peer.derivatives[:, 1:-1]
    y, log_slope = rational_quadratic_spline(x, *parts, inverse=inverse)
    expected, log_expected = peer.inv.call_and_ladj(x) if inverse else peer.call_and_ladj(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_slope, log_expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_spline_is_that_of_nflows(inverse: bool):
    splines = pytest.importorskip("nflows.transforms.splines")
    (widths, heights, slopes), x = knots(300), cloud(300)
    y, log_slope = rational_quadratic_spline(x, widths, heights, slopes, inverse=inverse)
    expected = splines.unconstrained_rational_quadratic_spline(
        x,
        widths.log(),
        heights.log(),
        slopes.expm1().log(),
        inverse=inverse,
        tail_bound=5.0,
        min_bin_width=0.0,
        min_bin_height=0.0,
        min_derivative=0.0,
    )
    torch.testing.assert_close((y, log_slope), tuple(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("widths", "heights"),
    [
        ([1, 1e-30, 1], [1, 1, 1]),
        ([1, 1, 1], [1, 1e-30, 1]),
        ([1, 1, 1e-30], [1, 1, 1e-30]),  # the last bin holds all of the tail
        ([1e-30, 1, 1], [1e-30, 1, 1]),
        ([1, 1e-30, 1e-30], [1e-30, 1e-30, 1]),
        ([3e38, 3e38, 3e38], [1e-30, 1e-30, 1e-30]),
    ],
    ids=str,
)
@pytest.mark.parametrize("slope", [1.1e-15, 1.0, 0.9e15])
def test_bins_too_narrow_for_the_dtype_keep_all_finite(
    widths: list[float], heights: list[float], slope: float, dtype: torch.dtype, inverse: bool
):
    parts = [torch.tensor(part, dtype=dtype).requires_grad_() for part in (widths, heights, [slope, slope])]
    x = torch.tensor([-1e4, -5.0, -1.7, -1.6, 0.0, 1.6, 1.7, 4.9, 5.0, 1e4], dtype=dtype).requires_grad_()
    y, log_slope = rational_quadratic_spline(x, *parts, inverse=inverse)
    gradients = torch.autograd.grad(y.sum() + log_slope.sum(), [x, *parts])
    assert all(value.isfinite().all() for value in (y, log_slope, *gradients))
    assert (y.diff() >= 0).all() and y[0] == x[0] and y[-1] == x[-1]


def test_the_unit_of_sizes_may_be_the_largest_or_the_smallest_of_its_dtype():
    x, (widths, heights, slopes) = cloud(50).float(), (part.float() for part in knots())
    expected = rational_quadratic_spline(x, widths, heights, slopes)
    scaled = rational_quadratic_spline(x, widths * (3e38 / widths.max()), heights * 1e-30, slopes)
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-5)


def test_bins_too_many_for_float32_keep_all_finite():
    bijection = SplineBijection(bins=2000)
    theta = 30 * torch.randn(50, bijection.count, generator=generator())
    x = (3 * torch.randn(50, generator=generator(1))).requires_grad_()
    for function in (bijection.forward, bijection.inverse):
        y, log_slope = function(x, theta.requires_grad_())
        gradients = torch.autograd.grad(y.sum() + log_slope.sum(), [x, theta])
        assert all(value.isfinite().all() for value in (y, log_slope, *gradients))


def test_sizes_in_any_dtype_count_as_the_numbers_they_are():
    x, slopes = cloud(50).float(), torch.tensor([0.5, 2.0])
    sizes = torch.tensor([1, 2, 5]), torch.tensor([3, 2, 1])
    expected = rational_quadratic_spline(x, *(part.float() for part in sizes), slopes)
    assert torch.equal(rational_quadratic_spline(x, *sizes, slopes)[0], expected[0])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        y, log_slope = rational_quadratic_spline(x, *(part.to(dtype) for part in sizes), slopes.to(dtype))
        assert y.dtype == log_slope.dtype == torch.float32
        torch.testing.assert_close((y, log_slope), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan], ids=str)
def test_parameters_that_are_not_positive_and_finite_are_refused(which: int, bad: float):
    parts = [torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 2)]
    parts[which][2, 1] = bad
    name = ("widths", "heights", "slopes")[which]
    with pytest.raises(ValueError, match=rf"{name} must be between .* {bad:g}"):
        rational_quadratic_spline(torch.zeros(4), *parts)


def test_the_spline_may_be_mapped_over_and_put_elsewhere():
    parts, x = knots(6), cloud(6)
    one_by_one = vmap(rational_quadratic_spline)(x, *parts)
    torch.testing.assert_close(one_by_one, rational_quadratic_spline(x, *parts), rtol=1e-13, atol=1e-13)
    elsewhere = rational_quadratic_spline(x.to("meta"), *(part.to("meta") for part in parts))
    assert all(value.is_meta and value.shape == x.shape for value in elsewhere)
    with FakeTensorMode():
        assert (
            rational_quadratic_spline(*(torch.empty(part.shape) for part in (x, *parts)))[0].shape == x.shape
        )


@pytest.mark.parametrize(
    ("shape", "batch"), [((5,), (4,)), ((5,), (3, 5)), ((2, 5), (5, 1)), ((), (1,))], ids=str
)
def test_splines_that_do_not_belong_to_the_points_are_refused(shape: tuple[int, ...], batch: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"for x of shape .* got the shapes"):
        rational_quadratic_spline(torch.zeros(shape), *(torch.ones(*batch, n) for n in (3, 3, 2)))


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_a_spline_needs_points_in_float32_or_float64(dtype: torch.dtype):
    with pytest.raises(TypeError, match=f"x must be float32 or float64, got {dtype}"):
        rational_quadratic_spline(torch.zeros(5, dtype=dtype), *(torch.ones(n) for n in (3, 3, 2)))


@pytest.mark.parametrize(
    ("match", "sizes", "bound"),
    [
        (r"\(3,\), \(4,\) and \(2,\)", (3, 4, 2), 5.0),
        (r"\(3,\) and \(3,\)", (3, 3, 3), 5.0),
        (r"\(0,\), \(0,\)", (0, 0, 0), 5.0),
        ("bound=0", (3, 3, 2), 0),
        ("bound=inf", (3, 3, 2), math.inf),
    ],
)  # fmt: skip
def test_knots_that_do_not_fit_are_refused(match: str, sizes: tuple[int, ...], bound: float):
    with pytest.raises(ValueError, match=match):
        rational_quadratic_spline(torch.zeros(5), *(torch.ones(n) for n in sizes), bound=bound)


# The flow


def spline_flow(d: int = 2, layers: int = 2) -> Flow:
    couplings = [SplineCoupling(d, flip=bool(k % 2), width=8, generator=generator(k)) for k in range(layers)]
    return Flow(StandardNormal(d), [*couplings, ActNorm(d)])


def test_a_linear_flow_has_the_density_of_a_gaussian():
    d, x = 4, cloud(30, 4)
    flow = Flow(StandardNormal(d), [shaken(InvertibleLinear(d, generator=generator())), shaken(ActNorm(d))])
    W = (flow.transform(torch.eye(d, dtype=x.dtype))[0] - flow.transform(torch.zeros(d, dtype=x.dtype))[0]).T
    reference = torch.distributions.MultivariateNormal(flow.transform.transforms[1].mean, W @ W.T)
    torch.testing.assert_close(flow.log_prob(x), reference.log_prob(x), rtol=1e-10, atol=1e-10)
    assert torch.equal(flow(x), flow.log_prob(x))


def test_the_density_integrates_to_1_and_samples_have_it():
    flow = shaken(spline_flow())
    side, count = torch.arange(-12, 12, 0.08, dtype=torch.float64), 20_000
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp() * 0.08**2
        x = flow.sample(count, generator=generator())
    assert float(mass.sum()) == pytest.approx(1, abs=2e-3)
    assert x.dtype == torch.float64 and x.shape == (count, 2)
    for set_of in (lambda z: z[:, 0] > 0.5, lambda z: z[:, 1] < z[:, 0], lambda z: z.norm(dim=1) < 1):
        p = float(mass[set_of(grid)].sum())
        assert float(set_of(x).double().mean()) == pytest.approx(
            p, abs=5 * math.sqrt(p * (1 - p) / count) + 4e-3
        )


def test_samples_carry_their_noise_and_their_gradients():
    base = GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], [0.5, 0.5])
    flow = Flow(base, spline_flow().transform.transforms)
    x_1 = flow.sample(50, generator=generator(3))
    x_0 = base.sample(50, generator=generator(3))
    y, log_det = flow.transform(x_0)
    assert torch.equal(x_1, y)
    torch.testing.assert_close(flow.log_prob(x_1), base.log_prob(x_0) - log_det, rtol=1e-4, atol=1e-4)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(x_1.sum(), flow.parameters()))


def test_a_flow_without_parameters_has_the_law_of_its_base():
    flow, x = Flow(StandardNormal(3), [Permutation([1, 2, 0])]), cloud(5, 3)
    torch.testing.assert_close(flow(x), torch.distributions.Normal(0, 1).log_prob(x).sum(1))
    assert torch.equal(
        flow.sample(4, generator=generator()), torch.randn(4, 3, generator=generator())[:, [1, 2, 0]]
    )


def test_a_flow_of_nothing_is_its_base_and_flows_may_be_bases():
    base, x = spline_flow(), cloud(5, 2).float()
    flow = Flow(base, [])
    assert torch.equal(flow(x), base(x))
    assert torch.equal(flow.sample(4, generator=generator()), base.sample(4, generator=generator()))
    nothing = Flow(StandardNormal(2), [])
    assert torch.equal(nothing(x), StandardNormal(2).log_prob(x))
    assert nothing.sample(0).shape == (0, 2)


@pytest.mark.parametrize("d", [1, 3])
def test_a_transform_of_another_dimension_than_the_base_is_refused(d: int):
    flow = Flow(StandardNormal(d), [ActNorm(2)])
    with pytest.raises(ValueError, match=rf"\(\.\.\., {d}\), got \(4, 2\)"):
        flow(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=rf"\(\.\.\., 2\), got \(4, {d}\)"):
        flow.sample(4, generator=generator())


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_densities_in_half_precision_or_of_whole_numbers_are_refused(dtype: torch.dtype):
    for law in (StandardNormal(2), spline_flow(), spline_flow().to(torch.bfloat16)):
        with pytest.raises(TypeError, match=f"points must be float32 or float64, got {dtype}"):
            law.log_prob(torch.zeros(3, 2, dtype=dtype))
    with pytest.raises(TypeError, match=f"log_prob must be float32 or float64, got {dtype}"):
        bits_per_dimension(torch.zeros(3, dtype=dtype), 2, 256)


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_samples_are_in_the_dtype_of_the_weights_but_no_less_than_float32(weights: torch.dtype):
    flow = spline_flow().to(weights)
    x = flow.sample(100, generator=generator())
    assert x.dtype == flow(x).dtype == torch.promote_types(torch.float32, weights)
    x_0 = flow.transform.inverse(x)[0]
    torch.testing.assert_close(x_0.float(), torch.randn(100, 2, generator=generator()), rtol=0, atol=1e-3)


def test_fit_trains_it_towards_the_entropy_and_never_below():
    law, flow, n = moons(), spline_flow(), 20_000
    flow.initialize(law.sample(1000, generator=generator(1)))

    def loss(v, g: Generator) -> Tensor:
        return -v(law.sample(128, generator=g)).mean()

    x = law.sample(n, generator=generator(2))
    before = float(-flow(x).mean().detach())
    fit(flow, loss, steps=100, lr=1e-2, ema=0.9, progress=False)
    losses = -flow(x).detach()
    gap = losses + law.log_prob(
        x
    )  # its mean estimates the Kullback-Leibler divergence, which is not negative
    assert -5 * float(gap.std()) / math.sqrt(n) < float(gap.mean()) < 0.5 * (before - law.entropy)


def test_autocast_reaches_its_networks_and_densities_stay_in_float32():
    flow, seen = spline_flow(), set()
    for module in flow.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    x = cloud(16, 2).float()
    run = fit(flow, lambda v, g: -v(x).mean(), steps=2, autocast=torch.bfloat16, progress=False)
    assert seen == {torch.bfloat16} and run.history.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert flow(x).dtype == torch.float32


@pytest.mark.parametrize(
    "transform",
    [
        SplineCoupling(2, generator=generator()),
        MaskedAutoregressive(1, SplineBijection(), generator=generator()),
    ],
    ids=["coupling", "masked"],
)
def test_under_autocast_log_determinants_stay_those_of_the_map(transform: Transform):
    last = transform.net[-1]
    last.bias.data = 0.5 * torch.randn(last.bias.shape, generator=generator(2))
    x = (cloud(500, transform.net[0].in_features + isinstance(transform, CouplingTransform)) / 3).float()
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = transform.inverse(x)
    slope = torch.autograd.grad(y[:, -1].sum(), x)[0][:, -1]
    torch.testing.assert_close(log_det, slope.log(), rtol=0, atol=5e-4)  # 0.009 if theta were bfloat16


# Whole numbers


def test_dequantized_numbers_keep_to_their_cells_and_fill_them():
    x = torch.randint(17, (20_000,), generator=generator())
    y = dequantize(x.double(), 17, generator(1))
    assert torch.equal((17 * y).floor(), x.double())
    inside = (17 * y - x).sort()[0]
    uniform = torch.arange(1, len(x) + 1) / len(x)
    assert (inside - uniform).abs().max() < 2 / math.sqrt(len(x))  # Kolmogorov-Smirnov: exceeded once in 1500
    for dtype, expected in [(torch.uint8, torch.float32), (torch.int64, torch.float32), (torch.float64,) * 2]:
        assert dequantize(x.to(dtype), 17, generator()).dtype == expected
    assert torch.equal(dequantize(x, 17, generator(1)), dequantize(x, 17, generator(1)))


@pytest.mark.parametrize("levels", [2, 3, 17, 49, 256, 65536])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
def test_no_dequantized_number_is_rounded_into_the_next_cell(levels: int, dtype: torch.dtype):
    x = torch.tensor([0, levels // 2, levels - 1]).expand(300_000, 3).to(dtype)
    y = dequantize(x, levels, generator())
    assert torch.equal((levels * y).floor(), x.to(y.dtype))
    assert y.min() >= 0 and y.max() < 1
    u = (levels * y.double() - x).flatten()
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * len(u))


@pytest.mark.parametrize(
    "x",
    [
        torch.arange(256).bfloat16(),
        torch.arange(256).half(),
        torch.arange(256).byte(),
        torch.arange(2).bool(),
    ],
    ids=["bfloat16", "float16", "uint8", "bool"],
)
def test_whole_numbers_of_few_bits_are_dequantized_in_float32(x: Tensor):
    y = dequantize(x.expand(1000, -1), 256, generator())
    assert y.dtype == torch.float32
    assert torch.equal((256 * y).floor(), x.float().expand(1000, -1))


@pytest.mark.parametrize("levels", [0, -1, 2.5, 256.0, True])
def test_levels_are_whole_and_positive(levels: float):
    for function in (
        lambda: dequantize(torch.zeros(3), levels),
        lambda: bits_per_dimension(torch.zeros(3), 2, levels),
        lambda: bits_per_dimension(torch.zeros(3), levels, 2),
    ):
        with pytest.raises(ValueError, match=f"must be whole and at least 1, got .*={levels}"):
            function()


def test_more_levels_than_float32_can_tell_apart_need_float64():
    x, levels = torch.tensor([0, 2**23 - 1]), 2**23
    with pytest.raises(ValueError, match=f"{levels} levels are too many for torch.float32: .* float64"):
        dequantize(x, levels)
    assert torch.equal((levels * dequantize(x.double(), levels, generator())).floor(), x.double())


def test_dequantizing_elsewhere_reads_nothing():
    assert dequantize(torch.zeros(3, device="meta"), 16).is_meta
    with FakeTensorMode():
        x = torch.empty(3, device="cuda:0")
        assert dequantize(x, 16).device == x.device


@pytest.mark.parametrize("x", [[0.0, 16.0], [-1.0, 3.0], [0.5, 1.0], [math.nan, 1.0]], ids=str)
def test_numbers_outside_the_levels_are_refused(x: list[float]):
    with pytest.raises(ValueError, match="from 0 to 15"):
        dequantize(torch.tensor(x), 16)


def test_bits_are_those_of_the_probabilities_if_the_density_is_flat_on_each_cell():
    # p((x + u) / levels) = levels P(x)
    P = torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(bits_per_dimension((3 * P).log(), 1, 3), torch.tensor([1.0, 2.0, 2.0]))
    both = (9 * P[0] * P[1]).log()
    torch.testing.assert_close(bits_per_dimension(both, 2, 3), torch.tensor(1.5))


def test_digits_cost_less_under_a_flow_than_under_the_uniform_law():
    digits = torch.from_numpy(pytest.importorskip("sklearn.datasets").load_digits().data)  # (1797, 64)
    y = dequantize(digits, 17, generator())
    flow = Flow(StandardNormal(64), [ActNorm(64)]).double()
    flow.initialize(y)
    bits = bits_per_dimension(flow(y).detach(), 64, 17).mean()
    # the fit of a Gaussian: 1/2 log_2 (2 pi e variance) + log_2 17 in each pixel
    expected = (2 * math.pi * math.e * 17**2 * y.var(0, correction=0)).log2().mean() / 2
    torch.testing.assert_close(bits, expected)
    assert bits < math.log2(17)
