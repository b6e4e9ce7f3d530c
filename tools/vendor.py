"""Make `book/_vendor/` from pinned npm packages, or check that nobody has touched it.

    python -m tools.vendor            download, verify and write the files again (needs npm and the network)
    python -m tools.vendor --check    compare what lies there with the recorded hashes (needs nothing)

A vendored file is a copy, byte for byte, of one in the published package. To move to another version, change it
below together with its `integrity` (`npm view NAME@VERSION dist.integrity`), run this script and read the diff.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "book" / "_vendor"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Package:
    """A pinned npm package: what it is for, the tarball's hash, and the files to keep (a regular expression)."""

    version: str
    integrity: str
    license: str
    purpose: str
    keep: str


PACKAGES = {
    "katex": Package(
        version="0.19.1",
        integrity="sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
        license="MIT",
        purpose="renders the formulas while the book is built; pages get its fonts and style sheet, no script",
        keep=r"LICENSE|dist/katex\.min\.js|dist/katex-swap\.min\.css|dist/fonts/.*\.woff2",
    ),
}


def download(name: str, package: Package, folder: Path) -> Path:
    """Let npm fetch one tarball into `folder`; return its path. Raises ValueError if the hash is another one."""
    packed = subprocess.run(
        ["npm", "pack", f"{name}@{package.version}", "--json", "--ignore-scripts"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    tarball = folder / json.loads(packed.stdout)[0]["filename"]
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise ValueError(f"{name}@{package.version} has integrity {found}, expected {package.integrity}")
    return tarball


def unpack(tarball: Path, package: Package, target: Path) -> None:
    """Copy the files of `tarball` that the package keeps below `target`, without the leading `package/`, `dist/`."""
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            path = member.name.removeprefix("package/")
            if re.fullmatch(package.keep, path) and (content := archive.extractfile(member)):
                file = target / path.removeprefix("dist/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def describe(vendor: Path) -> dict[str, dict[str, object]]:
    """The manifest of what lies below `vendor`: every package's pin and every file's SHA-256."""
    return {
        name: {
            "version": package.version,
            "integrity": package.integrity,
            "license": package.license,
            "purpose": package.purpose,
            "files": {
                file.relative_to(vendor).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted((vendor / name).rglob("*"))
                if file.is_file()
            },
        }
        for name, package in PACKAGES.items()
    }


def write(vendor: Path = VENDOR) -> None:
    """Replace `vendor` by fresh copies of the pinned packages and their manifest."""
    if shutil.which("npm") is None:
        raise SystemExit("npm is needed to download the pinned packages: install Node.js, or use --check")
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "_vendor"
        for name, package in PACKAGES.items():
            unpack(download(name, package, Path(folder)), package, fresh / name)
        (fresh / MANIFEST).write_text(json.dumps(describe(fresh), indent=2) + "\n")
        shutil.rmtree(vendor, ignore_errors=True)
        shutil.copytree(fresh, vendor)


def check(vendor: Path = VENDOR) -> list[str]:
    """What differs between the files below `vendor` and the manifest beside them, one line each."""
    manifest = vendor / MANIFEST
    if not manifest.is_file():
        return [f"{manifest} is missing"]
    recorded, found = json.loads(manifest.read_text()), describe(vendor)
    differences = []
    for name in sorted(recorded.keys() | found.keys()):
        old, new = recorded.get(name, {"files": {}}), found.get(name, {"files": {}})
        if {**old, "files": 0} != {**new, "files": 0}:
            differences.append(f"{name}: the manifest and the pin in tools/vendor.py differ")
        files, others = old["files"], new["files"]
        differences += [f"{file}: missing" for file in sorted(files.keys() - others.keys())]
        differences += [f"{file}: not in the manifest" for file in sorted(others.keys() - files.keys())]
        differences += [
            f"{file}: changed" for file in sorted(files) if others.get(file, files[file]) != files[file]
        ]
    return differences


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    if not arguments:
        write()
    differences = check()
    print("\n".join(differences) or "book/_vendor is what its manifest says")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
