"""The life of a result on disk: may it be written, is it done, can it be resumed, who writes it, how is it published.

A result is a file with its record beside it, such as `emb.npy` with `emb.meta.json`, or a directory with its record in
it, such as `a.attention/meta.json`. The record is JSON with the fingerprint of the command: what makes two results the
same. It is written last; without it nothing is a result.

A result grows in `NAME.partial/`, where the fingerprint is from the beginning, and is then renamed. The kinds:

    Result(output, fasta, companions=…)                   a file that can be resumed, with tables beside it (embed)
    Result.table(output, [*fasta, model])                 a text file that is written once (predict, score, search)
    Result(output, fasta, record="meta.json")             a directory that is written once (inspect-attention)
                                                          or after rows that can be resumed (a scan)
    Result(output, …, record="metrics.json", run=RUN)     a directory after a training that can be resumed (finetune)
    Result(output, fasta, run=RUN)                        a training that is resumed in its own directory (pretrain)

All are used alike, and stdout (`-`) like a file:

    result = Result.table(output, [*fasta, model], force=options.force)
    with result.claim(fingerprint, callbacks) as claim:
        if claim.recorded is not None:
            return summary_of(claim.recorded)
        with atomic_file(claim.path) as stream:
            stream.writelines(lines)
        claim.publish({**fingerprint, "num_proteins": num_proteins})

A directory is filled in `claim.create_directory()`. The files of a training, with its fingerprint in `run.json`, are in
`claim.directory`; `claim.is_resumed` says whether they are there, from the same command. A training in its own
directory is never published.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.errors import (
    ConfigError,
    DamagedRunError,
    DataError,
    OutputError,
    OutputExistsError,
    RunInUseError,
    RunMismatchError,
)
from protembed.io.fingerprint import RECORDED_IF_SET, Fingerprint, differences
from protembed.io.limitations import report_limitations
from protembed.io.output_paths import (
    check_contents,
    check_directory,
    check_has_name,
    check_not_a_device,
    check_not_an_input,
    check_parent,
    is_vacant,
)
from protembed.io.reading import STANDARD_STREAM, follow_link, read_json, sha256_of_file
from protembed.io.writing import (
    check_temporary_directory,
    copy_to_stdout,
    create_directory,
    discard,
    exclusive_lock,
    existing_directory,
    flush_directory,
    move_into_place,
    output_errors,
    remove_unfinished,
    remove_unfinished_beside,
    scratch_directory,
    write_json,
)
from protembed.text import format_row

# The file with the fingerprint of a training, and the key under which it and the records of trainings hold it.
RUN, IDENTITY = "run.json", "identity"
# In the directory of other unfinished results: their fingerprint, and how far they have come, if they can be resumed.
_FINGERPRINT, PROGRESS = "fingerprint.json", "progress.json"
META, UNFINISHED = ".meta.json", ".partial"
_MAX_HEADER = 1000
_OTHER_FORMATS = (".xlsx", ".json", ".npy", ".npz", ".h5", ".parquet", ".gz", ".bz2", ".xz", ".zip")


# Files that may be written beside a file.
_COMPANIONS = (".ids.tsv", ".failed.tsv", ".report.html", META)


# Records and paths


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record; None if it is missing or damaged."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def recorded_values(summary: type[Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Select the values of a record that are attributes of a dataclass; records of earlier versions may lack some."""
    return {spec.name: recorded[spec.name] for spec in fields(summary) if spec.name in recorded}


def sidecar(output: Path, suffix: str) -> Path:
    """Return the path of a file beside a result: `emb.ids.tsv` for `emb.npy`, but `emb.h5.ids.tsv` for `emb.h5`.

    One input may have a result per protein and one per residue, and each has separate files.
    """
    stem = output.with_suffix("") if output.suffix == ".npy" else output
    return stem.with_name(stem.name + suffix)


def unfinished(output: Path) -> Path:
    """Return the path of the directory in which a result grows."""
    return output.with_name(output.name + UNFINISHED)


def files_of(output: Path) -> list[Path]:
    """List the files of a finished result: the file and what was written beside it, or all files in the directory."""
    if output.is_dir():
        return sorted(path for path in output.rglob("*") if path.is_file())
    return [path for path in (output, *(sidecar(output, end) for end in _COMPANIONS)) if path.exists()]


# Results


class Result:
    """A result on disk.

    Args:
        output: Path of the result; if it is a link, its target is replaced. `-` is stdout.
        inputs: Paths of the files and directories that are read.
        force: Whether to replace another finished or unfinished result.
        record: Name of the record in a directory; None for a file, whose record is beside it.
        run: Name of the file that holds the fingerprint of a training; None if there is no training.
        companions: Header of each table beside a file, or first line of a page, by the end of its name, in the order
            of publication.
        contents: Patterns of all files that protembed writes into a directory; others prevent its replacement.
        is_record: Function that checks the content of a record.

    Attributes:
        path: Path of the result, with links followed; `-` is stdout.
        is_directory: Whether the result is a directory.
        record: Path of the record, relative to the directory in which the result is.

    Raises:
        OutputExistsError: Something is there that even `force` does not replace: an input, a device, or something that
            protembed did not write.
        ConfigError: The path of a directory is `-`, the path has no name, or more than one directory above the result
            does not exist.
    """

    def __init__(
        self,
        output: Path,
        inputs: Iterable[Path],
        *,
        force: bool = False,
        record: str | None = None,
        run: str | None = None,
        companions: Mapping[str, Sequence[str]] | None = None,
        contents: Sequence[str] = ("*",),
        is_record: Callable[[Mapping[str, Any]], bool] = lambda content: True,
    ) -> None:
        check_has_name(output)
        self.path, self._force, self._is_record = follow_link(output), force, is_record
        self.is_directory, self._in_place = bool(record or run), record is None and run is not None
        self._begun, self._progress = run or _FINGERPRINT, run or PROGRESS
        self._record = self.path / (record or run or "") if self.is_directory else sidecar(self.path, META)
        self.record = self._record.relative_to(self.path.parent)
        self._companions = {sidecar(self.path, end): header for end, header in (companions or {}).items()}
        # Paths that are published, in their order; the last one completes the result.
        self._files = [self.path] if self.is_directory else [*self._companions, self.path, self._record]
        self._directory = self.path if self._in_place else unfinished(self.path)
        if self.path == STANDARD_STREAM and self.is_directory:
            raise ConfigError("output", str(self.path), "a directory is expected")
        if self.path != STANDARD_STREAM:
            check_not_a_device(self.path)
            check_parent(self.path)
            self._check_replaceable(inputs)
            if self.is_directory and force:
                check_contents(self.path, contents)

    @classmethod
    def table(cls, output: Path, inputs: Iterable[Path], *, force: bool = False) -> "Result":
        """Describe a table or FASTA file, whose name must not promise another format than text.

        Raises:
            ConfigError: The name has the suffix of another format, or is that of a directory.
        """
        if os.path.isdir(output) and force:
            expected = f"this is a directory: name a file, such as {output / 'table.tsv'}"
            raise ConfigError("output", str(output), expected)
        result = cls(output, inputs, force=force, is_record=lambda content: "sha256" in content)
        if output.suffix.lower() in _OTHER_FORMATS:  # after the inputs, one of which may be the wrong table
            raise ConfigError("output", str(output), "the table is text: name it .tsv or .csv")
        return result

    def _check_replaceable(self, inputs: Iterable[Path]) -> None:
        """Check that nothing is replaced but a result of protembed."""
        inputs = list(inputs)
        for file in self._files:
            check_not_an_input(file, inputs)
            if self.is_directory:
                check_directory(file, self._record.name)
            elif not is_vacant(file):
                if not file.is_file():
                    raise OutputExistsError(file, "is not a file", is_replaceable=False)
                if not self._is_ours(file):
                    raise OutputExistsError(file, "was not written by protembed", is_replaceable=False)

    def _is_ours(self, file: Path) -> bool:
        """Return whether protembed wrote a file beside the result, by its content; the result itself may be any."""
        if file in self._companions:
            with file.open("rb") as stream:
                return stream.readline(_MAX_HEADER) == format_row(self._companions[file])
        return file == self.path or self._read_record() is not None

    @property
    def output(self) -> Path | None:
        """Path of the result, with links followed; None for stdout."""
        return None if self.path == STANDARD_STREAM else self.path

    def resolved(self, option: str, given: str) -> Any:
        """Return what an option meant when the result was begun or finished with the same option; None if it was not.

        With `force` a result starts over, and nothing is returned.
        """
        for content in () if self._force else (self._read_record(), self._read_begun()):
            if content is not None and content.get("options", {}).get(option) == given:
                return content.get(option)
        return None

    def read_run(self) -> dict[str, Any] | None:
        """Read what a training has recorded in its own directory; None if there is nothing that can be read."""
        return _read(self._directory / self._begun) if self._in_place else None

    # Claiming

    @contextmanager
    def claim(self, fingerprint: Fingerprint, callbacks: Callbacks | None = None) -> Iterator["Claim"]:
        """Find out what there is of a result, and let no other process write it during the block.

        First the temporary files of killed processes are removed, and an interrupted renaming is completed. At the end
        of the block, what was neither published nor can be resumed is removed. After a DataError nothing can, because a
        corrected input is a different input.

        Args:
            fingerprint: What makes two results the same.
            callbacks: Functions that receive a warning about what the file system cannot do, and a note about a
                directory that was created for the result.

        Raises:
            RunInUseError: Another process is writing the result.
            OutputExistsError: Without `force`, there is the finished result of another command, or a damaged one.
            RunMismatchError: Without `force`, there is the unfinished result of another command.
            DamagedRunError: Without `force`, there is a training whose fingerprint cannot be read.
            OutputError: The directory, or temporary files that are needed, cannot be written.
        """
        if self.path == STANDARD_STREAM:
            with scratch_directory() as directory:
                yield Claim(self, directory)
            return
        if (recorded := self._read_finished_elsewhere(fingerprint)) is not None:
            yield Claim(self, self._directory, recorded=recorded)
            return
        target = self.path.resolve()  # the same lock through every link
        lock, callbacks = target.with_name(f".{target.name}.lock"), callbacks or Callbacks()
        with (
            report_limitations(self.path, callbacks.on_warning),
            existing_directory(self.path.parent, lambda path: callbacks.on_note(f"created the directory {path}")),
            exclusive_lock(lock, lambda holder: RunInUseError(self.path, holder), output=self.path),
        ):
            for file in (self.path, *self._companions):
                remove_unfinished_beside(file)
            begun = self._read_begun()
            is_same = begun is not None and not differences(begun, fingerprint)
            recorded = self._read_finished(fingerprint, is_same=is_same)
            if recorded is not None:
                yield Claim(self, self._directory, recorded=recorded)
                return
            if begun is not None and not is_same and not self._force and self._is_worth_keeping():
                raise RunMismatchError(self._directory, differences(begun, fingerprint))
            if self.is_directory:  # with figures, and from a training
                check_temporary_directory()
            is_resumed = is_same and self._is_worth_keeping() and not (self._in_place and self._force)
            with self._unfinished(fingerprint, is_resumed=is_resumed):
                yield Claim(self, self._directory, is_resumed=is_resumed)

    def _read_finished_elsewhere(self, fingerprint: Fingerprint) -> dict[str, Any] | None:
        """Read the record of a finished result in a read-only directory, where no lock can be made; None elsewhere."""
        is_closed = os.path.isdir(self.path.parent) and not os.access(self.path.parent, os.W_OK)
        return self._read_finished(fingerprint, is_same=False) if is_closed else None

    def _read_record(self) -> dict[str, Any] | None:
        """Read the record of the finished result; None if it is missing or invalid."""
        content = _read(self._record)
        return content if content is not None and self._is_record(content) else None

    def _read_begun(self) -> Fingerprint | None:
        """Read the fingerprint of the unfinished result; None if there is none, or one that may be replaced."""
        path = self._directory / self._begun
        content = _read(path)
        begun: Any = content if content is None or self._begun == _FINGERPRINT else content.get(IDENTITY)
        if isinstance(begun, dict):
            return begun
        if self._begun != _FINGERPRINT and os.path.exists(path) and not self._force:
            raise DamagedRunError(path, "the settings of the run cannot be read")
        return None

    def _read_finished(self, fingerprint: Fingerprint, *, is_same: bool) -> dict[str, Any] | None:
        """Read the record of the finished result of the same command, and check its files; None if there is none."""
        if is_same and self._is_complete():
            self.rename_files()
        elif self._force:
            return None
        if self._in_place or (not os.path.exists(self._record) if self.is_directory else is_vacant(self.path)):
            return None
        recorded = self._read_record()
        if recorded is None:
            record = f"valid {self._record.name}" if self.is_directory else "valid meta file beside it"
            raise OutputExistsError(self.path, f"has no {record}")
        names = (*fingerprint, *RECORDED_IF_SET)
        made_with = recorded.get(IDENTITY) or {name: recorded[name] for name in names if name in recorded}
        if found := differences(made_with, fingerprint):
            raise OutputExistsError(self.path, f"was made with other settings ({'; '.join(found)})")
        for file in self._files[:-1]:
            name = self._hash_name(file)
            if name in recorded and not (file.exists() and recorded[name] == sha256_of_file(file)):
                raise OutputExistsError(self.path, f"{file.name} is missing or does not match the meta file beside it")
        if is_same:
            discard(self._directory)
        return recorded

    def _hash_name(self, file: Path) -> str:
        """Name the hash of a file in the record: `ids_sha256` for `emb.ids.tsv`."""
        return "sha256" if file == self.path else f"{file.suffixes[-2].removeprefix('.')}_sha256"

    def _is_complete(self) -> bool:
        """Return whether everything is written, so that at most the renaming is left to do."""
        return not self._in_place and os.path.exists(self._directory / self.record)

    def _is_worth_keeping(self) -> bool:
        """Return whether unfinished work can be resumed, or is complete."""
        return os.path.exists(self._directory / self._progress) or self._is_complete()

    @contextmanager
    def _unfinished(self, fingerprint: Fingerprint, *, is_resumed: bool) -> Iterator[None]:
        """Begin unfinished work, or resume it; at the end remove what is of no use to the next command."""
        is_worthless = False
        if not self._in_place:
            check_directory(self._directory, self._begun, self._progress)
        try:
            if is_resumed:
                remove_unfinished(self._directory)
            elif not self._in_place:
                discard(self._directory)
                if self._begun == _FINGERPRINT:
                    write_json(self._directory / _FINGERPRINT, fingerprint)
            yield
        except DataError:
            is_worthless = True
            raise
        finally:
            if not self._in_place and (is_worthless or not self._is_worth_keeping()):
                discard(self._directory)

    # Publishing

    def rename_files(self) -> None:
        """Rename the finished files to their final names; after a kill, the same call completes it.

        An older result is moved away first, beginning with its record, without which it is not a result any more.

        Raises:
            OutputError: A file cannot be renamed; the older result is restored.
        """
        directory, files = self._directory, self._files
        new = [file for file in files if os.path.exists(directory / file.name)]
        older = {file: directory / f".{file.name}.0.old" for file in (files[-1], *files[:-1])}
        is_begun = files[0] not in new  # a killed process has already moved the older result away
        try:
            if not is_begun:
                for file, backup in older.items():
                    _move(file, backup)
            for file in new:
                move_into_place(directory / file.name, file)
        except OutputError:
            if not is_begun:
                _roll_back(directory, new, older)
            raise
        discard(directory)


def _move(source: Path, target: Path) -> None:
    if os.path.exists(source):
        move_into_place(source, target)


def _roll_back(directory: Path, new: Sequence[Path], older: dict[Path, Path]) -> None:
    for file in reversed(new):
        if not os.path.exists(directory / file.name):
            move_into_place(file, directory / file.name)
    for file in reversed(older):  # the record last
        _move(older[file], file)


@dataclass(frozen=True)
class Claim:
    """A result that no other process may write, and what there is of it.

    Attributes:
        directory: Directory in which the unfinished result grows.
        recorded: Content of the record, if the same command has finished the result before; else None.
        is_resumed: Whether the directory holds unfinished work of the same command.
    """

    _result: Result
    directory: Path
    recorded: dict[str, Any] | None = None
    is_resumed: bool = False

    @property
    def output(self) -> Path:
        """Final path of the result, for messages; `-` is stdout."""
        return self._result.path

    @property
    def path(self) -> Path:
        """Path at which the file or directory is to be written before it is published."""
        return self.directory / self.output.name

    def growing(self, end: str) -> Path:
        """Return the path of a file of unfinished work, by the end of its name, which is never that of the result."""
        return self.directory / f"{self.output.name}.{end}"

    def companion(self, end: str) -> Path:
        """Return the path at which a table beside the file is to be written before it is published."""
        return self.directory / sidecar(self.output, end).name

    def create_directory(self) -> Path:
        """Create the directory to be filled, without what an interrupted process left in it."""
        create_directory(self.path)
        return self.path

    def publish(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write the record, and rename everything to its final name; copy a result for stdout there.

        An older result is replaced only when the new one is in its place.

        Args:
            record: Fingerprint and whatever else describes the result, as plain JSON values; the hash of a file is
                added.

        Returns:
            The content of the record.

        Raises:
            OutputError: A file cannot be written or renamed; an older result is unchanged.
        """
        result, content = self._result, dict(record)
        if result.is_directory:
            with output_errors(self.output):
                flush_directory(self.path)
        else:
            content["sha256"] = sha256_of_file(self.path)
        if self.output == STANDARD_STREAM:
            with self.path.open("rb") as stream:
                copy_to_stdout(stream)
        else:
            write_json(self.directory / result.record, content)
            result.rename_files()
        return content
