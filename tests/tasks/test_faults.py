"""Whatever fails while something is written: the old result stays, status 1, one sentence, nothing stray."""

import errno
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protembed.cli.app import app

LONG = os.environ.get("PROTEMBED_LONG_TESTS") == "1"


def invoke(arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder):
    return {path.relative_to(folder).as_posix(): told(path) for path in folder.rglob("*") if path.is_file()}


def told(path):
    """The bytes of a file, without the pace of a training, which no two runs share."""
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if "per_second" not in name} for line in lines]


class Fault:
    """Lets one operation on a disk fail: the n-th of all that write, flush, sync, rename or make a folder."""

    def __init__(self, number, error=errno.ENOSPC):
        self.number, self.error, self.count = number, error, 0

    def strike(self):
        self.count += 1
        if self.count == self.number:
            raise OSError(self.error, os.strerror(self.error))

    def before(self, function):
        def call(*arguments, **options):
            self.strike()
            return function(*arguments, **options)

        return call

    def open(self, opened):
        def call(path, mode="r", *arguments, **options):
            stream = opened(path, mode, *arguments, **options)
            return stream if set(mode) <= set("rbt") else Stream(stream, self)

        return call


class Stream:
    """A stream of Python's whose writing and flushing may fail."""

    def __init__(self, stream, fault):
        self._stream = stream
        self.write, self.flush = fault.before(stream.write), fault.before(stream.flush)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stream.close()


def under(fault, arguments):
    """Run a command while a fault lies in wait; tell what it said and whether it was struck."""
    with pytest.MonkeyPatch.context() as patches:
        for name in ("fsync", "replace", "rename", "mkdir", "write"):
            patches.setattr(os, name, fault.before(getattr(os, name)))
        patches.setattr(Path, "open", fault.open(Path.open))
        result = invoke(arguments)
    return result, fault.count >= fault.number
