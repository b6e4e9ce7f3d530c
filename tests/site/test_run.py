"""run.py: what it says where something is missing, and when it believes that an environment is complete."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import run

ROOT = Path(run.__file__).parent


def test_an_old_python_is_told_which_version_is_needed():
    fake = "import runpy, sys; sys.version_info = (3, 9, 1, 'final', 0); runpy.run_path('run.py')"
    result = subprocess.run([sys.executable, "-c", fake], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "needs Python 3.11 or newer; this is Python 3.9" in result.stderr
    assert "Traceback" not in result.stderr


def test_old_pythons_can_parse_it():
    """Syntax that Python 2.7 or 3.6 lacks would hide the message behind a SyntaxError."""
    tree = ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 7))
    modern = (
        ast.JoinedStr,
        ast.AnnAssign,
        ast.NamedExpr,
        ast.AsyncFunctionDef,
        ast.Nonlocal,
        ast.YieldFrom,
        ast.Match,
    )
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, modern)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        assert function.returns is None and not any(argument.annotation for argument in arguments), (
            function.name
        )
        assert not function.args.kwonlyargs and not function.args.posonlyargs, function.name
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        starred = [isinstance(argument, ast.Starred) for argument in call.args]
        assert not any(starred[:-1]), f"line {call.lineno}: nothing may follow *arguments"


def test_the_future_import_follows_nothing_that_old_pythons_lack():
    first = [
        node
        for node in ast.parse((ROOT / "run.py").read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    before_the_check = [node for node in first if node.lineno < 20]
    assert [ast.unparse(node) for node in before_the_check] == [
        "from __future__ import print_function",
        "import sys",
    ]


def test_missing_modules_and_space_are_named_with_a_remedy():
    assert run.missing(free=100.0) == []
    [message] = run.missing(find=lambda module: None if module == "ensurepip" else module, free=100.0)
    assert "ensurepip" in message and "apt install python3-venv" in message
    [message] = run.missing(free=1.25)
    assert "1.2 GB are free" in message and "4 GB" in message


def test_linux_is_told_that_its_default_build_of_torch_is_larger():
    assert "wants 12 GB" in (run.caution(free=5.0, system="linux", settings={}) or "")
    assert run.caution(free=50.0, system="linux", settings={}) is None
    assert run.caution(free=5.0, system="darwin", settings={}) is None
    cpu = {"PIP_EXTRA_INDEX_URL": "https://index.example/whl/cpu"}
    assert run.caution(free=5.0, system="linux", settings=cpu) is None
    assert "12 GB" in run.cause("OSError: [Errno 28] No space left on device")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment that holds an interpreter and no stamp."""
    python = run.interpreter(tmp_path)
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path


def test_only_a_matching_stamp_makes_an_environment_complete(environment: Path):
    stamp = environment / "stamp"
    assert run.state(environment / "nowhere", "mark") == "absent"
    assert run.state(environment, "mark") == "outdated"  # somebody's own: completed in place, never deleted
    stamp.touch()
    assert run.state(environment, "mark") == "broken"  # begun, interrupted
    stamp.write_text("another mark")
    assert run.state(environment, "mark") == "outdated"
    stamp.write_text("mark")
    assert run.state(environment, "mark") == "complete"
    run.interpreter(environment).unlink()
    assert run.state(environment, "mark") == "broken"  # its Python was upgraded away


def test_the_mark_changes_with_the_pins_the_metadata_and_the_folder(tmp_path: Path):
    marks = set()
    for folder, pins, metadata in [
        ("a", "x==1", ""),
        ("a", "x==2", ""),
        ("a", "x==2", "y"),
        ("b", "x==2", "y"),
    ]:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        (root / "requirements.txt").write_text(pins)
        (root / "pyproject.toml").write_text(metadata)
        marks.add(run.fingerprint(root))
        assert run.fingerprint(root) in marks
    assert len(marks) == 4


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that `set_up` makes in an empty folder, where installing is pretended and fails on "fail"."""
    calls: list[str] = []

    def pip(*arguments: str) -> None:
        calls.append(arguments[0])
        if "fail" in (tmp_path / "requirements.txt").read_text():
            raise run.Stop("no network")

    def call(command: list[str], **_: object) -> int:
        calls.append("venv" if "venv" in command else "version")
        run.interpreter(tmp_path / ".venv").parent.mkdir(parents=True, exist_ok=True)
        run.interpreter(tmp_path / ".venv").touch()
        return 0

    (tmp_path / "requirements.txt").write_text("x==1")
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(run, "fingerprint", lambda: "mark of " + (tmp_path / "requirements.txt").read_text())
    monkeypatch.setattr(run, "missing", list)
    monkeypatch.setattr(run, "pip", pip)
    monkeypatch.setattr(run.subprocess, "call", call)
    return calls


def test_setting_up_twice_installs_once_and_changed_pins_install_again(
    installation: list[str], tmp_path: Path
):
    run.set_up()
    assert installation == ["venv", "--requirement", "--no-deps"]
    run.set_up()
    assert len(installation) == 3
    (tmp_path / "requirements.txt").write_text("x==2")
    run.set_up()
    assert installation[3:] == ["version", "--requirement", "--no-deps"]


def test_setting_up_after_a_failure_starts_afresh(installation: list[str], tmp_path: Path):
    (tmp_path / "requirements.txt").write_text("fail")
    with pytest.raises(run.Stop, match="no network"):
        run.set_up()
    (tmp_path / ".venv" / "half installed").touch()
    (tmp_path / "requirements.txt").write_text("x==1")
    run.set_up()
    assert installation == ["venv", "--requirement", "venv", "--requirement", "--no-deps"]
    assert not (tmp_path / ".venv" / "half installed").exists()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
            "cannot be reached",
        ),
        ("Read timed out. (read timeout=15)\nNo matching distribution found for a==1", "cannot be reached"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "not trusted"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0 for Python"),
        ("ERROR: something else", "delete .venv"),
    ],
)
def test_the_cause_of_a_failed_installation_is_named(output: str, said: str):
    assert said in run.cause(output)


def test_progress_shows_what_takes_long_and_nothing_else():
    assert (
        run.progress("Collecting torch==2.13.0 (from -r requirements.txt (line 18))")
        == "collecting torch==2.13.0"
    )
    assert (
        run.progress("  Downloading torch-2.13.0-cp311-linux.whl (754.1 MB)")
        == "downloading torch (754.1 MB)"
    )
    assert run.progress("  Downloading zipp-3.20-py3-none-any.whl (9.1 kB)") is None
    assert run.progress("Requirement already satisfied: zipp") is None
    assert run.progress("Installing collected packages: a, b, c") == "installing 3 packages"


def test_counts_come_from_the_report(tmp_path: Path):
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'
    )
    result = run.counts(tmp_path / "report.xml")
    assert result == {"passed": 3, "failed": 3, "skipped": 3}
    assert run.verdict(result) == "3 failed, 3 passed, 3 skipped"


def test_every_check_runs_although_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(run, "set_up", lambda: None)
    monkeypatch.setattr(run, "checks", lambda: [("first", ["first"]), ("second", ["second"])])
    monkeypatch.setattr(run, "python", lambda name: int(name == "first"))
    assert run.main(["test"]) == 1
    printed = capsys.readouterr().out
    assert "[2/3] first" in printed and "[3/3] second" in printed
    assert printed.rstrip().splitlines()[-1].strip("= ").startswith("1 failed, 1 passed in")


def test_a_pytest_that_collects_nothing_has_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "python", lambda *_, **__: 5)
    assert run.check(["-m", "pytest", "nowhere"])["failed"] == 1


@pytest.mark.parametrize(
    "arguments", [[], ["build"], ["book", "extra"], ["repository", "https://github.com/a/b"]]
)
def test_an_unknown_command_shows_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert run.main(arguments) == 2
    assert "python3 run.py test" in capsys.readouterr().out
