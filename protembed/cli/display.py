"""What users see: progress and messages on stderr, a machine-readable summary on stdout."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from protembed.callbacks import Callbacks
from protembed.cli.messages import up_to_date
from protembed.cli.process import is_first_process
from protembed.cli.progress import Progress
from protembed.config.common import DEFAULT_MODEL, ConsoleConfig, ModelConfig
from protembed.text import pluralize, printable


class Display:
    """Shows the progress and the result of a command.

    Args:
        show: Options of the console.
        data_on_stdout: Whether stdout carries data; the machine-readable summary goes to stderr then.
        console: Console of messages and progress; stderr if None.
    """

    def __init__(self, show: ConsoleConfig, *, data_on_stdout: bool = False, console: Console | None = None) -> None:
        # Of the processes that torchrun starts, only the first prints.
        self._show = show if is_first_process() else ConsoleConfig(quiet=True)
        self._data_on_stdout = data_on_stdout
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._printed: set[str] = set()

    def say(self, *sentences: str) -> None:
        """Print lines, unless the user asked for quiet."""
        self._printed.update(sentences)
        if not self._show.quiet:
            for sentence in sentences:
                self._console.print(printable(sentence))

    def warn(self, *sentences: str) -> None:
        """Print warnings that were not printed before, even with --quiet."""
        for sentence in self.unprinted(sentences):
            self._printed.add(sentence)
            if is_first_process():
                self._console.print(f"warning: {printable(sentence)}")

    def unprinted(self, sentences: Iterable[str]) -> list[str]:
        """List the sentences that were not printed before."""
        return [sentence for sentence in sentences if sentence not in self._printed]

    def callbacks(self, **functions: Callable[..., Any]) -> Callbacks:
        """Make the callbacks of a task that print its warnings and notes, and call the functions given."""
        return Callbacks(on_warning=self.warn, on_note=self.say, **functions)

    def announce_model(self, config: ModelConfig) -> None:
        """Print which model is used if none was named, and where larger ones are listed."""
        if config.model is None:
            self.say(f"using the bundled model {DEFAULT_MODEL} (small); `protembed models` lists larger ones")

    def announce_download(self, config: ModelConfig) -> None:
        """Print that a model on the hub may have to be downloaded."""
        from protembed.model.catalog import hub_name

        name = hub_name(config.model)
        if name is not None:
            self.say(f"downloading {name} from the Hugging Face hub, unless it is in the cache")

    def plan(self, plan: Any, lines: Iterable[str]) -> None:
        """Print what a command is about to do, and the warnings about it."""
        self.say(*lines)
        self.warn(*plan.warnings)

    def summary(self, summary: Any, lines: Iterable[str]) -> None:
        """Print the result of a command in a few lines and its warnings, and with --json all of it as JSON.

        Args:
            summary: Dataclass or mapping; a field `was_done` means that the result was complete before.
            lines: What the command has done or found.
        """
        self.warn(*getattr(summary, "warnings", ()))
        if getattr(summary, "was_done", False):
            self.say(up_to_date(summary.output))
        self.say(*lines)
        if self._show.json:
            print(json.dumps(summary, default=_plain), file=sys.stderr if self._data_on_stdout else sys.stdout)

    def progress(self, what: str = "", noun: str = "protein", part: str = "residue") -> Progress:
        """Make the display of a task's progress, a context manager; the arguments are those of `Progress`."""
        is_live = self._console.is_terminal and not self._show.quiet
        return Progress(self._console, self.say, is_live=is_live, what=what, noun=noun, part=part)

    @contextmanager
    def resume_hint(self, progress: Progress) -> Iterator[None]:
        """Print how to resume when the command is interrupted."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            number = progress.num_finished
            if not self._data_on_stdout and number:
                saved = f"{pluralize(number, 'more protein')} {'is' if number == 1 else 'are'} saved"
                self.say(f"interrupted: {saved}; run the same command to resume")
            elif not self._data_on_stdout:
                self.say("interrupted before another protein was saved; run the same command to resume")
            raise


def _plain(value: Any) -> Any:
    """Convert a path, or else a dataclass, to a value that JSON can hold."""
    if isinstance(value, Path):
        return str(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
