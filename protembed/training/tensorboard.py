"""Events for TensorBoard: the log of a training as curves over its steps."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protembed.io.writing import output_errors, remove

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SECONDS_BETWEEN_FLUSHES = 10
# What a step and what a validation measures, as two groups of curves; those of a second validation set are a third.
_OF_STEP = (
    *("residues", "train_loss", "mask_token_loss", "learning_rate", "grad_norm"),
    *("residues_per_second", "peak_memory_bytes"),
)


class EventWriter:
    """Writes lines of a log as events; see `event_writer`."""

    def __init__(self, directory: Path, writer: "SummaryWriter") -> None:
        self._directory, self._writer = directory, writer

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one line of `metrics.jsonl`.

        Raises:
            OutputError: The events cannot be written.
        """
        # Earlier versions logged no time.
        time = datetime.fromisoformat(line["time"]).timestamp() if "time" in line else None
        with output_errors(self._directory):
            for key, value in line.items():
                if key not in ("step", "time") and value is not None:
                    group = "training/" if key in _OF_STEP else "" if "/" in key else "validation/"
                    self._writer.add_scalar(f"{group}{key}", value, line["step"], walltime=time)


@contextmanager
def event_writer(directory: Path, lines: Iterable[Mapping[str, Any]]) -> Iterator[EventWriter]:
    """Write the events of a run into a directory, beginning with the lines that its log has already.

    The files of an interrupted run are replaced, so that no reader finds a step twice; a TensorBoard that shows them
    forgets them.

    Raises:
        OutputError: The directory cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    with output_errors(directory):
        remove(directory)
        writer = SummaryWriter(str(directory), purge_step=0, flush_secs=_SECONDS_BETWEEN_FLUSHES)
    try:
        events = EventWriter(directory, writer)
        for line in lines:
            events.add(line)
        yield events
    finally:
        with output_errors(directory):
            writer.close()
