"""Measurements that are made once: each is a line of JSON in a file, which a later run reads before it measures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]  # "of": what was measured, "found": the numbers, "seconds": of the process until then


class Lines:
    """The lines of a file, and those that were recorded elsewhere before.

    A line that was cut off in the midst of writing is dropped.
    """

    def __init__(self, file: Path, before: Iterable[Line] = ()) -> None:
        self.file = file
        written = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        whole = [line for line in written if line.endswith("\n")]
        if whole != written:
            file.write_text("".join(whole), encoding="utf-8")
        self.all: list[Line] = []
        for line in [*before, *map(json.loads, whole)]:
            if self.find(line["of"]) is None:
                self.all.append(line)

    def find(self, of: Line) -> Line | None:
        """What was found of it, if it was measured."""
        return next((line["found"] for line in self.all if line["of"] == of), None)

    def once(self, of: Line, measure: Callable[[], Line]) -> Line:
        """What was found of it, or else is found now, and written down."""
        of = json.loads(json.dumps(of))  # as it will be read again
        if (known := self.find(of)) is not None:
            return known
        began = time.process_time()
        found = json.loads(json.dumps(measure()))
        line = {"of": of, "found": found, "seconds": round(time.process_time() - began, 1)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
        self.all.append(line)
        print(json.dumps(line), flush=True)
        return found
