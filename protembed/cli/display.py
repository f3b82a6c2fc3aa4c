"""What users see: progress and messages on stderr and in the log file, a machine-readable summary on stdout."""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console

from protembed._version import __version__
from protembed.callbacks import Callbacks
from protembed.cli.layout import Table, wrapped
from protembed.cli.messages import fault_lines, up_to_date
from protembed.cli.process import STATUS_OF_SIGNAL, is_first_process
from protembed.cli.progress import Progress
from protembed.config.base import Options, flags_in
from protembed.config.common import DEFAULT_MODEL, ConsoleConfig, DeviceConfig, ModelConfig, ModelsConfig
from protembed.errors import FaultyRowsError
from protembed.text import pluralize, printable, reason_of


class Display:
    """Shows the progress and the result of a command.

    Args:
        show: Options of the console.
        command: Name of the command, for the machine-readable summary.
        data_on_stdout: Whether stdout carries data; the machine-readable summary then goes to stderr, alone.
        console: Console of messages and progress; stderr if None.

    Attributes:
        options: All other options of the command; None as long as they are not known.
    """

    def __init__(
        self,
        show: ConsoleConfig,
        *,
        command: str = "",
        data_on_stdout: bool = False,
        console: Console | None = None,
    ) -> None:
        self._show, self._command = show, command
        self.options: Options | None = None
        self._data_on_stdout = data_on_stdout
        # FORCE_COLOR colours what is written to a file too; the lines of protembed have no colours.
        self._console = console or Console(
            stderr=True, highlight=False, markup=False, force_terminal=sys.stderr.isatty()
        )
        # Of the processes that torchrun starts, only the first prints.
        self._is_json_alone = show.json and data_on_stdout
        self._is_silent = not is_first_process() or self._is_json_alone
        self._printed: set[str] = set()
        self._has_printed_json = False
        self._warnings: list[str] = []
        self._log: BinaryIO | None = None
        self._began = time.monotonic()

    @property
    def is_json(self) -> bool:
        """Whether the user asked for a machine-readable summary."""
        return self._show.json

    # Lines

    def open_log(self, files: ExitStack, first_line: str) -> None:
        """Append this and all following lines to the log file, if the user named one, until `files` is closed.

        Raises:
            OutputError: The log file cannot be written.
        """
        from protembed.io.writing import open_log

        if self._show.log_file is not None and is_first_process():
            self._log = files.enter_context(open_log(self._show.log_file))
            self._write_log(first_line)

    def _write_log(self, line: str) -> None:
        if self._log is None:
            return
        try:
            self._log.write(f"{_now()} {printable(line)}\n".encode())
        except OSError as error:  # a full disk must not end a run
            self._log = None
            self.warn(f"cannot write {self._show.log_file} ({reason_of(error)}); this and later lines are not logged")

    def _print(self, line: str) -> None:
        text = wrapped(printable(line), self._console.width) if self._console.is_terminal else printable(line)
        self._console.print(text, soft_wrap=True)

    def say(self, *lines: str | Table) -> None:
        """Print sentences and tables, unless the user asked for quiet: with the time, unless stderr is a terminal."""
        width = self._console.width if self._console.is_terminal else None
        for line in lines:
            in_full = line.lines() if isinstance(line, Table) else [line]
            self._printed.update(in_full)
            for text in in_full:
                self._write_log(text)
            if not self._show.quiet and not self._is_silent:
                for text in line.lines(width) if isinstance(line, Table) else [line]:
                    self._print(text if self._console.is_terminal else f"{_now()} {text}")

    def say_unless_live(self, sentence: str) -> None:
        """Print what a live display shows anyway; the log file has it in any case."""
        if self._is_live:
            self._write_log(sentence)
        else:
            self.say(sentence)

    @property
    def _is_live(self) -> bool:
        """Whether a live display can be drawn."""
        is_able = self._console.is_terminal and not self._console.is_dumb_terminal
        return is_able and not self._show.quiet and not self._is_silent

    @property
    def data_width(self) -> int | None:
        """The columns of the terminal that stdout is; None if it is none, and lines may have any length."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def print_data(self, lines: Iterable[str]) -> None:
        """Print lines on stdout, broken between words if it is a terminal."""
        for line in lines:
            print(line if self.data_width is None else wrapped(line, self.data_width))

    def warn(self, *sentences: str) -> None:
        """Print warnings that were not printed before, even with --quiet; options in backticks become flags."""
        for sentence in self.unprinted(map(flags_in, sentences)):
            self._printed.add(sentence)
            self._warnings.append(sentence)
            self._write_log(f"warning: {sentence}")
            if not self._is_silent:
                self._print(f"warning: {sentence}")

    def unprinted(self, sentences: Iterable[str]) -> list[str]:
        """List the sentences that were not printed before."""
        return [sentence for sentence in sentences if sentence not in self._printed]

    def error(self, sentence: str, error: Exception, status: int) -> None:
        """Print an error, and with --json as JSON too."""
        self._write_log(f"protembed: {sentence}")
        if not self._is_json_alone:
            lines = [sentence]
            if isinstance(error, FaultyRowsError) and self._console.is_terminal:
                lines = [*fault_lines(error)]
            for prefix, line in zip_longest(["protembed: "], lines, fillvalue=""):
                self._print(prefix + line)
        self.print_error_json(sentence, error, status)

    def print_error_json(self, sentence: str, error: Exception, status: int) -> None:
        """Print an error with --json: its exit status, its class, its sentence, its file and line if it has them."""
        if self._show.json:
            content = {"status": status, "type": type(error).__name__, "message": sentence, **_place(error)}
            if isinstance(error, FaultyRowsError):
                content["faults"] = [{**_place(fault), "message": flags_in(fault.found)} for fault in error.errors]
            self._print_json({"error": content})

    @contextmanager
    def report_signals(self) -> Iterator[None]:
        """Print with --json that a signal has ended the command, unless its summary says so."""
        try:
            yield
        except SystemExit as end:
            if self._show.json and not self._has_printed_json and end.code in STATUS_OF_SIGNAL.values():
                message = "ended by a signal; run the same command again"
                self._print_json({"error": {"status": end.code, "type": "SystemExit", "message": message}})
            raise

    # What a command is about to do

    def callbacks(self, **functions: Callable[..., Any]) -> Callbacks:
        """Make the callbacks of a task that print its warnings and notes, and call the functions given."""
        return Callbacks(on_warning=self.warn, on_note=self.say, **functions)

    def announce_model(self) -> None:
        """Print once which model is used if none was named, and where larger ones are listed."""
        model = self._model_config()
        sentence = f"using the bundled model {DEFAULT_MODEL} (small); `protembed models` lists larger ones"
        if model is not None and model.names == [None]:
            self.say(*self.unprinted([sentence]))

    def announce_download(self) -> None:
        """Print that a model on the hub may have to be downloaded."""
        from protembed.model.catalog import hub_name

        model = self._model_config()
        for name in filter(None, map(hub_name, [] if model is None else model.names)):
            self.say(f"downloading {name} from the Hugging Face hub, unless it is in the cache")

    def plan(self, plan: Any, lines: Iterable[str]) -> None:
        """Print what a command is about to do, and the warnings about it."""
        self.say(*lines)
        self.warn(*plan.warnings)

    # What a command has done

    def summary(
        self, summary: Any, lines: Iterable[str | Table], *, next_step: str | None = None, is_dry_run: bool = False
    ) -> None:
        """Print the result of a command in a few lines and its warnings, and with --json all of it as JSON.

        Args:
            summary: Dataclass or mapping; a field `was_done` means that the result was complete before.
            lines: What the command has done or found.
            next_step: What the user may do next.
            is_dry_run: Whether the summary is a plan, and nothing was computed.
        """
        self.warn(*getattr(summary, "warnings", ()))
        if getattr(summary, "was_done", False):
            self.say(up_to_date(summary.output))
        self.say(*lines)
        if next_step is not None:
            self.say(f"next: {next_step}")
        if self._show.json:
            content = dict(summary) if isinstance(summary, Mapping) else _plain(summary)
            model = self._model_config()
            self._print_json(
                {
                    "model": None if model is None else _model_names(model),
                    "device": None if is_dry_run or content.get("was_done") else self._device(),
                    "files": [] if is_dry_run else _files_of(content.get("output")),
                    **content,
                    "warnings": [*dict.fromkeys([*content.get("warnings", ()), *self._warnings])],
                }
            )

    def _print_json(self, content: Mapping[str, Any]) -> None:
        if not is_first_process():
            return
        self._has_printed_json = True
        seconds = round(time.monotonic() - self._began, 3)
        content = {"command": self._command, "version": __version__, "seconds": seconds, **content}
        print(json.dumps(content, default=_plain), file=sys.stderr if self._data_on_stdout else sys.stdout)

    def _config(self, kind: type[Any]) -> Any:
        """Return the config of a kind among the options; None if there is none."""
        configs = () if self.options is None else vars(self.options).values()
        return next((config for config in configs if isinstance(config, kind)), None)

    def _model_config(self) -> ModelConfig | ModelsConfig | None:
        found: ModelConfig | ModelsConfig | None = self._config(ModelConfig) or self._config(ModelsConfig)
        return found

    def _device(self) -> str | None:
        device = self._config(DeviceConfig)
        if device is None:
            return None
        from protembed.device import choose_device

        return str(choose_device(device))

    # While a command works

    def progress(self, what: str = "", noun: str = "protein", part: str = "residue") -> Progress:
        """Make the display of a task's progress, a context manager; the arguments are those of `Progress`."""
        return Progress(self._console, self.say, is_live=self._is_live, what=what, noun=noun, part=part)

    @contextmanager
    def resume_hint(self, progress: Progress, *, is_always_resumable: bool = True) -> Iterator[None]:
        """Print how to resume when the command is interrupted.

        Args:
            progress: Display that counts the proteins or samples that are saved.
            is_always_resumable: Whether the command resumes whatever it does; otherwise only once a protein is saved.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            number = progress.num_finished
            if not self._data_on_stdout and number:
                saved = f"{pluralize(number, f'more {progress.noun}')} {'is' if number == 1 else 'are'} saved"
                self.say(f"interrupted: {saved}; run the same command to resume")
            elif not self._data_on_stdout and is_always_resumable:
                self.say("interrupted before another protein was saved; run the same command to resume")
            raise


def _place(error: Exception) -> dict[str, Any]:
    return {name: getattr(error, name) for name in ("path", "line") if getattr(error, name, None) is not None}


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")


def _model_names(config: ModelConfig | ModelsConfig) -> str | list[str]:
    from protembed.model.catalog import model_name

    names = list(map(model_name, config.names))
    return names[0] if len(names) == 1 else names


def _files_of(output: Path | None) -> list[Path]:
    from protembed.io.result import files_of

    return [] if output is None else files_of(output)


def _plain(value: Any) -> Any:
    """Convert a path, or else a dataclass, to a value that JSON can hold."""
    if isinstance(value, Path):
        return str(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
