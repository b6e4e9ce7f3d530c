"""Where this copy of the course is hosted, found when it is asked for and written nowhere."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def normalized(address: str) -> str | None:
    """`https://HOST/OWNER/NAME` of what git calls a remote, without user, token, port and `.git`; None for a folder.

    >>> normalized("git@github.com:someone/flow-models.git")
    'https://github.com/someone/flow-models'
    """
    found = re.fullmatch(
        r"(?:(?:https?|ssh|git)://)?(?:[^@/\s]+@)?([\w-]+(?:\.[\w-]+)+)(?::\d+(?=/))?[:/]/?((?:[\w.~-]+/)+[\w.~-]+?)"
        r"(?:\.git)?/*",
        address.strip(),
    )
    return f"https://{found[1]}/{found[2]}" if found else None


def origin(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the repository: the workflow's if one runs, else that of the remote `origin`, else None."""
    if "GITHUB_REPOSITORY" in environment:
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return normalized(f"{server}/{environment['GITHUB_REPOSITORY']}")
    if not (root / ".git").exists():
        return None  # a copy without history is not the repository that happens to lie around it
    try:
        asked = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, no checkout or no remote
    return normalized(asked.stdout)


def on_github(url: str | None) -> bool:
    """Whether Colab can open its notebooks, and pages link to its files, in the way of github.com."""
    return bool(url and re.fullmatch(r"https://github\.com/[^/]+/[^/]+", url))
