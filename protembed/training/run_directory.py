"""The run directory: the command that it belongs to, the decisions of the run, and the log of its steps."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protembed._version import __version__
from protembed.errors import DamagedRunError
from protembed.io.reading import read_json
from protembed.io.result import IDENTITY, RUN
from protembed.io.writing import append_json_line, atomic_directory, write_json, write_json_lines
from protembed.text import reason_of
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

LOG = "metrics.jsonl"


class RunDirectory:
    """The files of a run other than its checkpoints.

    `run.json` holds the fingerprint of the command and the decisions of the run; `metrics.jsonl` has a line per step.

    Args:
        directory: Path of the directory, which need not exist.
        processes: Processes of the run; the others receive what the first one decides.

    Attributes:
        facts: Contents of `run.json`, available once the run is open.
        is_new: Whether this process began the run.
    """

    def __init__(self, directory: Path, processes: ProcessGroup = SINGLE_PROCESS) -> None:
        self._directory, self._processes = directory, processes
        self.facts: Mapping[str, Any] = {}
        self.is_new = False

    def open(self, fingerprint: Mapping[str, Any], fill: Callable[[Path], None], *, force: bool = False) -> None:
        """Begin a run, or read what an existing one has recorded, which `Result.claim` found to be of the same command.

        Args:
            fingerprint: What makes two runs the same, as plain JSON values.
            fill: Function that writes the initial files of a new run; if it fails, there is no directory.
            force: Whether to replace an existing run.

        Raises:
            DamagedRunError: If `run.json` cannot be read.
            OutputError: If the directory cannot be written.
            ProtembedError: If `fill` raises it.
        """
        if self._processes.is_first:
            if force or not self.path(RUN).exists():
                with atomic_directory(self._directory) as temporary:
                    fill(temporary)
                    write_json(temporary / RUN, {"protembed_version": __version__, IDENTITY: dict(fingerprint)})
                self.is_new = True
            try:
                self.facts = dict(read_json(self.path(RUN)))
            except (OSError, ValueError, TypeError) as error:
                raise DamagedRunError(self.path(RUN), f"this is not readable JSON ({reason_of(error)})") from error
        self.facts = self._processes.broadcast_object(self.facts)

    def path(self, name: str) -> Path:
        """Return the path of a file in the directory."""
        return self._directory / name

    def load_or_compute(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the value that the run stored under this name; compute and store it if there is none.

        All processes must call this method, and all compute the value, because they may have to measure together; that
        of the first process is stored.
        """
        if name not in self.facts:
            self.store(name, compute())
        return self.facts[name]

    def store(self, name: str, value: Any) -> None:
        """Store the value of the first process, replacing an earlier one."""
        self.facts = {**self.facts, name: self._processes.broadcast_object(value)}
        if self._processes.is_first:
            write_json(self.path(RUN), self.facts)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        if self._processes.is_first:
            append_json_line(self.path(LOG), line)

    def read_log(self) -> list[dict[str, Any]]:
        """Read all complete lines of the log.

        Raises:
            DamagedRunError: If a line is not JSON.
        """
        if not self.path(LOG).exists():
            return []
        lines = self.path(LOG).read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError as error:
            found = f"this is not a log of training steps ({reason_of(error)})"
            raise DamagedRunError(self.path(LOG), found) from error

    def truncate_log(self, step: int) -> None:
        """Remove the lines after a step, which the resumed run will write again."""
        if not self._processes.is_first:
            return
        remaining = [line for line in self.read_log() if line["step"] <= step]
        write_json_lines(self.path(LOG), remaining)
