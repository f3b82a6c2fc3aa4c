"""A run directory: whose it is, what was planned, and the log of its steps."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protembed._version import __version__
from protembed.config.base import with_current_names
from protembed.errors import DamagedRunError, RunInUseError, RunMismatchError
from protembed.io.reading import read_json
from protembed.io.writing import (
    append_json_line,
    atomic_directory,
    exclusive_lock,
    remove_unfinished,
    remove_unfinished_beside,
    write_json,
    write_text,
)
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

_RUN, _LOG = "run.json", "metrics.jsonl"


class RunDirectory:
    """What a run keeps beside its checkpoints.

    `run.json` says which command the run belongs to, and what was decided on its way; `metrics.jsonl` has a line per
    step. Of several processes only the first writes, and the others read what it wrote.

    Args:
        directory: of the run.
        processes: that work on it.
    """

    def __init__(self, directory: Path, processes: ProcessGroup = SINGLE_PROCESS) -> None:
        self._directory, self._processes = directory, processes
        self._facts: dict[str, Any] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out while the block lasts; the lock of a process that died is free.

        Raises:
            RunInUseError: another run holds the directory.
        """
        if not self._processes.is_first:
            yield
            return
        directory = self._directory.resolve()
        lock = directory.parent / f".{directory.name}.lock"
        with exclusive_lock(lock, lambda holder: RunInUseError(self._directory, holder)):
            yield

    def open(self, identity: Mapping[str, Any], fill: Callable[[Path], None], *, force: bool) -> None:
        """Begin a run, or take up the one of the same command.

        Args:
            identity: settings and inputs that make two runs the same; what JSON can hold.
            fill: puts into a new run's directory what it begins with; if that fails, there is no directory.
            force: replace whatever stands there.

        Raises:
            ChangedRunError: the run was begun with other settings or inputs.
            DamagedRunError: the run does not say how it was begun.
            OutputExistsError: something else stands there.
            OutputError: the directory cannot be made.
            ProtembedError: whatever `fill` raises.
        """
        if self._processes.is_first:
            self._open(identity, fill, force=force)
        self._facts = self._processes.broadcast_object(self._read_facts()[0] if self._processes.is_first else None)

    def _open(self, identity: Mapping[str, Any], fill: Callable[[Path], None], *, force: bool) -> None:
        remove_unfinished_beside(self._directory)
        if force or not self.contains(_RUN):
            facts = {"protembed_version": __version__, "identity": dict(identity)}
            with atomic_directory(self._directory, marker=_RUN) as temporary:
                fill(temporary)
                write_json(temporary / _RUN, facts)
            return
        _, begun = self._read_facts()
        changes = [
            f"{name} was {begun.get(name)}, not {identity.get(name)}"
            for name in {**begun, **identity}
            if begun.get(name) != identity.get(name)
        ]
        if changes:
            raise RunMismatchError(self._directory, changes)
        remove_unfinished(self._directory)

    def matches(self, identity: Mapping[str, Any]) -> bool:
        """Tell whether a run of the same command stands here."""
        try:
            return self._read_facts()[1] == dict(identity)
        except DamagedRunError:
            return False

    def path(self, name: str) -> Path:
        """Name something in the directory."""
        return self._directory / name

    def contains(self, name: str) -> bool:
        """Tell whether something is there."""
        return self.path(name).exists()

    def load_or_compute(self, name: str, decide: Callable[[], Any]) -> Any:
        """Return what the run decided at its beginning under this name; decide it now if it is only beginning.

        All processes must call it, and all decide, for they may have to measure together; the first one's word counts.
        """
        if name not in self._facts:
            self.store(name, decide())
        return self._facts[name]

    def store(self, name: str, decision: Any) -> Any:
        """Record a decision in the place of an earlier one, and return what the first process decided."""
        self._facts = {**self._facts, name: self._processes.broadcast_object(decision)}
        if self._processes.is_first:
            write_json(self.path(_RUN), self._facts)
        return self._facts[name]

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line about a step."""
        if self._processes.is_first:
            append_json_line(self.path(_LOG), line)

    def read_log(self) -> list[dict[str, Any]]:
        """Read all complete lines."""
        if not self.contains(_LOG):
            return []
        lines = self.path(_LOG).read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError as error:
            raise DamagedRunError(self.path(_LOG), f"this is no log of steps ({error})") from error

    def _read_facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            facts = read_json(self.path(_RUN))
        except (OSError, ValueError) as error:
            raise DamagedRunError(self.path(_RUN), f"this is no readable JSON ({error})") from error
        if not isinstance(facts, dict) or not isinstance(facts.get("identity"), dict):
            raise DamagedRunError(self.path(_RUN), "it does not say which command the run belongs to")
        return facts, with_current_names(facts["identity"])

    def truncate_log(self, step: int) -> None:
        """Drop the lines after a step, which a resumed run is about to write again."""
        if not self._processes.is_first:
            return
        kept = [line for line in self.read_log() if line["step"] <= step]
        write_text(self.path(_LOG), "".join(json.dumps(line) + "\n" for line in kept))
