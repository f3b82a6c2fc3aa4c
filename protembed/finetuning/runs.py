"""The run directories of an experiment: its own, and those of its trainings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.io.writing import discard
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup
from protembed.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class TrainingRuns:
    """The run directories of an experiment.

    Attributes:
        directory: Directory of the experiment, which holds those of its trainings.
        fingerprint: What makes two experiments the same, as plain JSON values.
        processes: Processes that train together; the first one writes.
    """

    directory: Path
    fingerprint: Mapping[str, Any]
    processes: ProcessGroup = SINGLE_PROCESS

    def open(self, name: str = "", *, force: bool = False) -> RunDirectory:
        """Begin the run of a training, or of the experiment without a name, or resume it.

        Raises:
            DamagedRunError: Without `force`, there is a run that cannot be read.
        """
        run = RunDirectory(self.directory / name, self.processes)
        run.open(self.fingerprint, lambda directory: None, force=force)
        return run

    def discard(self) -> None:
        """Remove everything, in the first process."""
        if self.processes.is_first:
            discard(self.directory)
