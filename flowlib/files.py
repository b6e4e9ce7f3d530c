"""The file of a training run: read whole or refused, written whole or left alone, by one run at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowlib.checks import require

try:
    import fcntl
except ImportError:  # Windows: two runs may then open one file, and the later one to write it is refused
    fcntl = None  # type: ignore[assignment]

FORMAT = "flowlib.fit 2"  # 1, without settings, said no format


def read(file: Path, notes_only: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and notes of a checkpoint; ValueError if it is not a whole one."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            noted = opened.metadata() or {}
            found = {} if notes_only else {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{file} is not a checkpoint of fit, and is left alone: {error}") from error
    written = noted.get("format", "none")
    require(
        written.startswith("flowlib.fit "),
        f"{file} is not a checkpoint of fit, and is left alone: its metadata have no format of ours",
    )
    if notes_only:
        return {}, {}
    require(
        written == FORMAT,
        f"{file} has format {written!r}, by flowlib {noted.get('flowlib')}: this one reads {FORMAT!r} only",
    )
    try:
        notes = {key: json.loads(noted[key]) for key in ("settings", "optimizer", "complex")}
        found |= {name: torch.view_as_complex(found[name]) for name in notes["complex"]}
        whole = {name: (found[name].dtype, found[name].ndim) for name in ("generator", "history", "seconds")}
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{file} is not a whole checkpoint: {type(error).__name__} {error}") from error
    expected = {"generator": (torch.uint8, 2), "history": (torch.float32, 1), "seconds": (torch.float64, 0)}
    require(whole == expected, f"{file} is not a whole checkpoint: it has {whole}, expected {expected}")
    return found, notes


def size(found: dict[str, Tensor]) -> int:
    """The bytes of these tensors."""
    return sum(x.numel() * x.element_size() for x in found.values())


class Target:
    """A file that one run may write. While it is open a folder beside it, .NAME.flowlib, holds the lock that keeps
    others away, and the file in the making.
    """

    _held: ClassVar[set[Path]] = set()

    def __init__(self, file: Path) -> None:
        busy = f"another run has checkpoint={file} open: name another file, or wait for its end"
        require(file not in self._held, busy)
        self.file, self.folder = file, file.with_name(f".{file.name}.flowlib") if file.name else file
        try:
            require(not file.is_dir(), f"checkpoint={file} is a folder: name a file in it")
            require(
                file.is_file() or not file.exists(),
                f"checkpoint={file} is not a regular file, and is left alone: name another",
            )
            if file.exists():
                read(file, notes_only=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(f"checkpoint={file} cannot be written: {error}") from error
        if fcntl is not None:
            try:
                fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):  # others: a file system without locks
                    os.close(self.lock)
                    raise ValueError(busy) from error
        self._held.add(file)
        for left in self.folder.iterdir():  # by a run that was killed
            if left.name != "lock":
                left.unlink()
        self.seen = self._identity()

    def write(self, found: dict[str, Tensor], notes: dict[str, str], *, replace: bool = True) -> None:
        """Write the tensors and notes, whole or not at all; without `replace` only try."""
        from safetensors.torch import save_file

        made = self.folder / "made"
        try:
            save_file(_alone(found), made, notes)
            shutil.copymode(self.folder / "lock", made)
            with made.open("rb") as written:
                os.fsync(written.fileno())  # a full disk may show only now
            if replace:
                self._unchanged()
                os.replace(made, self.file)
                self.seen = self._identity()
        except Exception as error:
            raise OSError(
                f"checkpoint {self.file} could not be written, and is left as it was: {error} "
                f"({size(found)} bytes to write, {self.free()} free)"
            ) from error
        finally:
            made.unlink(missing_ok=True)

    def free(self) -> int:
        """The bytes that are free beside the file."""
        return shutil.disk_usage(self.file.parent).free

    def close(self) -> None:
        """Let other runs have the file."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)
        self._held.discard(self.file)

    def _unchanged(self) -> None:
        if self._identity() not in (None, self.seen):
            raise FileExistsError("somebody else has written it since this run last did")

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            seen = self.file.stat()
        except FileNotFoundError:
            return None
        return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _alone(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values, contiguous, real, and each in its own memory."""
    seen, ready = set(), {}
    for name, x in found.items():
        require(x.layout == torch.strided, f"{name} is not strided but {x.layout}")
        ready[name] = (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).contiguous()
        storage = (ready[name].untyped_storage().data_ptr(), str(x.device))
        if storage in seen:
            ready[name] = ready[name].clone()
        seen.add(storage)
    return ready
