"""The progress of a run of `snakepit demo`, and its results."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import attrs

import snakepit_trio as snakepit
from snakepit_trio._processes.proc import stat_of

Record = dict[str, Any]


@attrs.define
class Progress:
    """The progress of a run. A view may read it at any time.

    `records` are the adapter's records, and `failed` the error texts, both by file. `seen` has each worker process that
    was noticed: its pid, and when it started. `began` is a reading of `time.monotonic`. `seconds` is 0 until the last
    file is done.
    """

    root: Path
    files: list[str]
    records: dict[str, Record] = attrs.field(factory=dict)
    failed: dict[str, str] = attrs.field(factory=dict)
    killed: int = 0
    run_again: int = 0
    workers: list[snakepit.WorkerInfo] = attrs.field(factory=list)
    seen: set[tuple[int, int]] = attrs.field(factory=set)
    began: float = 0.0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many files are measured or given up."""
        return len(self.records) + len(self.failed)

    @property
    def elapsed(self) -> float:
        """Seconds since the first file was handed out, until the last was done."""
        return self.seconds or time.monotonic() - self.began

    def left_over(self) -> list[int]:
        """Pids of the seen workers that still exist, even as zombies. A process of the same pid is another one."""
        return sorted(pid for pid, began in self.seen if (found := stat_of(pid)) is not None and found.started == began)

    def totals(self) -> dict[str, int | str]:
        """The totals of all records. They are the same for the same files, however the run went."""
        records = [self._relative(path) for path in sorted(self.records)]
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
        sums = {key: sum(record[key] for record in records) for key in ("lines", "functions", "branches", "complexity")}
        bad = sum("error" in record for record in records)
        return {"files": len(records), **sums, "files that do not parse": bad, "sha256 of the records": digest[:16]}

    def functions(self, key: str, top: int) -> list[tuple[str, Record]]:
        """The `top` functions with the largest `key`, "complexity" or "length", each with the path of its file."""
        found = [(path, function) for path, record in self.records.items() for function in record["measured"]]
        found.sort(key=lambda pair: (-pair[1][key], pair[0], pair[1]["line"]))
        return found[:top]

    def name_of(self, path: str) -> str:
        """A file's path, relative to the root of the tree."""
        return os.path.relpath(path, self.root)

    def _relative(self, path: str) -> Record:
        # So that copies of a tree in different places have the same checksum.
        return {**self.records[path], "path": self.name_of(path)}
