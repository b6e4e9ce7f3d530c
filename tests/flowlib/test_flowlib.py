"""The library as a whole: its front door, what its rooms may import, devices and processes."""

from __future__ import annotations

import ast
import graphlib
import inspect
import pickle
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import flowlib as fl

ROOT = Path(__file__).resolve().parents[2]
FILES = {file.stem: file for file in (ROOT / "flowlib").glob("*.py") if file.stem != "__init__"}
TREES = {name: ast.parse(file.read_text()) for name, file in FILES.items()}
ROOMS = {name: import_module(f"flowlib.{name}") for name in FILES}
LONG = {"odeint", "fit", "rational_quadratic_spline"}  # may say more than they do


def imports(tree: ast.Module) -> list[tuple[str, str]]:
    """The pairs of a room of flowlib and a name that a file imports from it."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return [
        (node.module.removeprefix("flowlib.") if node.module != "flowlib" else alias.name, alias.name)
        for node in found
        for alias in node.names
        if node.module.split(".")[0] == "flowlib"
    ]


# The front door


def test_everything_public_is_exported_flat_or_serves_another_room():
    names = {
        name
        for module in ROOMS.values()
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
    served = {name for tree in TREES.values() for _, name in imports(tree)}
    served |= {
        node.attr
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ROOMS
    }
    assert names - served <= set(fl.__all__)
    assert all(getattr(fl, name, None) is not None for name in fl.__all__)
    assert len(set(fl.__all__)) == len(fl.__all__)
    assert not set(fl.__all__) & set(ROOMS)  # a name that hides a room could not be imported from it


@pytest.mark.parametrize("name", sorted(n for n in fl.__all__ if callable(getattr(fl, n)) and n[0].islower()))
def test_every_function_is_documented_with_its_types(name: str):
    function = getattr(fl, name)
    if not inspect.isfunction(function):
        return
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty


def test_the_library_alone_brings_no_figures_and_no_widgets():
    heavy = {"matplotlib", "IPython", "ipywidgets", "ot", "flowcourse"}
    code = f"import sys, flowlib; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Rooms


@pytest.mark.parametrize("room", FILES)
def test_a_room_imports_only_what_others_show(room: str):
    assert [pair for pair in imports(TREES[room]) if re.match("_[^_]", pair[1])] == []
    assert "flowcourse" not in FILES[room].read_text()


def test_rooms_depend_on_one_another_one_way():
    graph = {room: {other for other, _ in imports(tree) if other in FILES} for room, tree in TREES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises on a cycle
    assert order[0] == "checks"
    for room in ("training", "nets", "matching"):
        assert not graph["solvers"] & {room}
    assert all("training" not in needed for needed in graph.values())


def lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("room", FILES)
def test_a_docstring_is_no_longer_than_what_it_describes(room: str):
    """Blank lines and examples do not count; four lines are free."""
    long = []
    for node in ast.walk(TREES[room]):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)) and node.name not in LONG:
            told = len([line for line in text.split(">>>")[0].splitlines() if line.strip()])
            if told > max(lines(node) - lines(node.body[0]), 4):
                long.append((node.name, told, lines(node) - lines(node.body[0])))
    assert long == []


LABELS = {
    label
    for source in (ROOT / "book" / "source").glob("*.md")
    for label in re.findall(r"\((eq-[\w-]+)\)|^:label: ([\w-]+)", source.read_text(), re.MULTILINE)
    for label in label
    if label
}
POINTERS = [
    (room, label)
    for room, file in FILES.items()
    for label in re.findall(r"[Dd]erived at ([\w-]+)", file.read_text())
]


def test_code_points_back_at_its_derivation():
    assert len(POINTERS) >= 12
    assert [pointer for pointer in POINTERS if pointer[1] not in LABELS] == []


# Processes

MIXTURE = fl.three_arms()
FIELDS = {
    "linear field": fl.spiral(),
    "vortex": fl.TravelingVortex(),
    "mixture": MIXTURE.marginal_velocity(fl.linear),
    "mixture to mixture": MIXTURE.marginal_velocity(fl.cosine, fl.GaussianMixture([[0.0, 1.0]], [2.0])),
    "finite data": fl.Empirical(torch.tensor([[0.0, 1.0], [1.0, -1.0]])).marginal_velocity(fl.linear),
    "network": fl.VelocityMLP(2, width=8, generator=torch.Generator().manual_seed(0)),
}
PATHS = [fl.linear, fl.cosine, fl.conical(0.1), fl.variance_preserving()]
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FIELDS)
def test_fields_can_be_sent_to_another_process(name: str):
    copy = pickle.loads(pickle.dumps(FIELDS[name]))
    assert torch.equal(copy(X, 0.3), FIELDS[name](X, 0.3))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_paths_and_tables_can_be_sent_to_another_process(path: fl.AffinePath):
    copy = pickle.loads(pickle.dumps(path))
    t = torch.linspace(0, 1, 5)
    for mine, theirs in zip(path.sample(X, X.flip(0), t), copy.sample(X, X.flip(0), t), strict=True):
        assert torch.equal(mine, theirs)
    assert pickle.loads(pickle.dumps(fl.DOPRI5)) == fl.DOPRI5


# Devices, on a machine that has one


def images(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x * fl.expand_time(t, x)


HOT = {
    **{
        f"{name} at {kind}": (lambda x, t, v=v: v(x, t))
        for name, v in FIELDS.items()
        if name != "network"
        for kind in ("a time", "times")
    },
    **{f"{path.name} path": (lambda x, t, path=path: path.sample(x, x.flip(0), t)) for path in PATHS},
    "expand_time": lambda x, t: fl.expand_time(t, x),
    "loss": lambda x, t: fl.cfm_loss(images, x, x_0=x.flip(0), times=lambda n, **_: t.expand(n)),
    "SD3": lambda x, t: fl.to_sd3(fl.from_sd3(images))(x, 1000 * t),
    "converted": lambda x, t: fl.converted(FIELDS["mixture"], fl.linear, given="velocity", wanted="score")(
        x, t
    ),
    "convert": lambda x, t: fl.convert(x, x, t, fl.linear, given="velocity", wanted="data"),
    "fixed steps": lambda x, t: unread(lambda: fl.odeint(images, x, steps=3, method=fl.RK4)),
    "trajectory": lambda x, t: unread(lambda: fl.trajectory(images, x, steps=3)),
    "worst_point": lambda x, t: fl.worst_point(x),
    "root_mean_square": lambda x, t: fl.root_mean_square(x),
}


def unread(solve):
    """The solve, up to the one question that it asks at its end, which meta tensors cannot answer."""
    try:
        return solve()
    except (RuntimeError, NotImplementedError) as error:
        if not re.search(
            r"data.?dependent|meta tensor|_local_scalar_dense|item\(\)", f"{type(error)} {error}", re.I
        ):
            raise
        return None


@pytest.mark.parametrize("name", HOT)
def test_tensors_are_made_on_the_device_of_the_points_and_none_is_read(name: str):
    """A meta tensor has no numbers to read, and raises where it meets a tensor of the CPU."""
    x = torch.empty(5, 2, device="meta")
    t = torch.empty(() if name.endswith("a time") else 5, device="meta")
    with torch.no_grad():
        results = HOT[name](x, t)
    results = results if isinstance(results, tuple) else (results,)
    assert all(r is None or r.device.type == "meta" for r in results)


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor, for which a GPU must be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_a_fixed_solve_is_read_once():
    """Whether all states were finite; nothing else, however many steps."""
    for steps in (1, 20):
        with Reads() as reads:
            fl.odeint(images, X, steps=steps, method=fl.RK4)
        assert reads.calls["_local_scalar_dense"] + reads.calls["is_nonzero"] == 1
