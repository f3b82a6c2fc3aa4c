import errno
import gzip
import os
import shutil
import signal
from types import SimpleNamespace

import pytest

from protembed.cli.process import STATUS_OF_SIGNAL, exit_on_signals

DOCUMENTED = {0, 1, 2, 65, 66, 130, 141, 143}
SHORT = "--steps 1 --batch-tokens 128 --crop-residues 32 --threads 1"
COMMANDS = {
    "pretrain": f"pretrain {{input}} -o {{out}} --size t4_1M {SHORT}",
    "pretrain --init-from": f"pretrain {{input}} -o {{out}} --init-from {{model}} {SHORT}",
    "embed": "embed {input} -m {model} -o {out}",
    "check": "check {result} {input} -m {model}",
    "join": "join {result} -o {out}",
    "search": "search {result} {result} -o {out}",
    "map": "map {result} -o {out}",
    "finetune": "finetune {input} -m {model} -o {out} --method frozen --skip-random-baseline --threads 1",
    "predict": "predict {input} -m {model} -o {out}",
    "score": "score {input} -m {model} -o {out}",
    "inspect-attention": "inspect-attention {input} -m {model} -o {out} --save-maps 0",
    "models": "models",
}
WITH_INPUT = [name for name in COMMANDS if name not in ("models", "join", "search", "map")]
WITH_MODEL = [name for name in WITH_INPUT if name != "pretrain"]
WITH_OUTPUT = [name for name in COMMANDS if name not in ("models", "check")]
NAMES = {"finetune": "small.csv", "score": "variants.csv"}
CREATED = "created the directory "
FASTQ = "@r1\nMKTAYIAKQR\n+\nIIIIIIIIII\n"


@pytest.fixture(scope="module")
def originals(small_fasta, small_table, small_variants, predictor, invoke, tmp_path_factory):
    """A folder of inputs and a model, and beside them a result that is true to them."""
    folder = tmp_path_factory.mktemp("originals")
    for path in (small_fasta, small_table, small_variants):
        shutil.copy(path, folder)
    shutil.copytree(predictor, folder / "model")
    result = invoke("embed", folder / "small.fasta", "-m", folder / "model", "-o", folder / "true.npy")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def place(originals, tmp_path, monkeypatch):
    """The work folder of one command, which may spoil what it finds there."""
    folder = shutil.copytree(originals, tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(place, invoke):
    """Run a command; whatever its end, nothing unfinished is left and there is no traceback."""

    def run_one(name, *more, out="made", **changes):
        places = {"input": place / NAMES.get(name, "small.fasta"), "model": place / "model", "result": "true.npy"}
        suffix = {"embed": ".npy", "join": ".npy", "predict": ".tsv", "score": ".tsv", "search": ".tsv"}.get(name, "")
        words = COMMANDS[name].format(**places | {"out": f"{out}{suffix}"} | changes).split()
        result = invoke(*words, *more)
        assert result.exit_code in DOCUMENTED, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert [path for path in place.rglob(".*") if ".tmp" in path.name or ".old" in path.name] == []
        return SimpleNamespace(status=result.exit_code, stderr=result.stderr, place=place)

    return run_one


def is_one_sentence(stderr):
    return stderr.startswith("protembed: ") and stderr.count("\n") == 1


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", COMMANDS)
def test_success_exits_0(run, name):
    assert run(name).status == 0


# Usage


def test_an_unknown_command_exits_2(invoke):
    assert invoke("frobnicate").exit_code == 2


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_exits_2_and_leaves_no_file(run, name, invoke):
    before = sorted(os.listdir())

    assert run(name, "--frobnicate").status == 2
    if name != "models":
        assert run(name, "--threads", 0).status == 2
        assert run(name, "--threads", "many").status == 2
        assert run(name, "--device", "abacus").status == 2
        assert invoke(name.split()[0]).exit_code == 2

    assert sorted(os.listdir()) == before


# Inputs


def empty(path):
    path.write_bytes(b"")


def without_end(path):
    path.write_bytes(gzip.compress(path.read_bytes())[:-9])


def binary(path):
    path.write_bytes(bytes(range(256)) * 20)


def illegal(path):
    path.write_bytes(path.read_bytes().replace(b"M", b"?"))


def fastq(path):
    path.write_text(FASTQ)


@pytest.mark.promise(23)
@pytest.mark.parametrize("spoil", [empty, without_end, binary, illegal, fastq])
@pytest.mark.parametrize("name", WITH_INPUT)
def test_bad_data_exit_65_and_leave_no_file(run, name, spoil, place):
    spoil(place / NAMES.get(name, "small.fasta"))
    before = sorted(os.listdir())

    ended = run(name, out="new/made")

    assert ended.status == 65
    assert is_one_sentence("".join(line for line in ended.stderr.splitlines(keepends=True) if CREATED not in line))
    assert sorted(os.listdir()) == before


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", WITH_INPUT)
def test_missing_input_or_a_folder_exits_66(run, name, place):
    (place / "folder").mkdir()
    before = sorted(os.listdir())

    for path in (place / "missing.fasta", place / "folder", place / ("x" * 300)):
        ended = run(name, input=path)
        assert ended.status == 66
        assert is_one_sentence(ended.stderr)

    assert sorted(os.listdir()) == before


# Models


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", WITH_MODEL)
def test_missing_model_exits_66_and_damaged_model_65(run, name, place):
    (place / "empty").mkdir()
    for path in (place / "missing", place / "empty", place / "small.fasta"):
        ended = run(name, model=path)
        assert ended.status == 66
        assert is_one_sentence(ended.stderr)

    (place / "model" / "model.safetensors").write_bytes(b"damaged")
    ended = run(name)
    assert ended.status == (1 if name == "check" else 65)  # the result may be true, but not of this model
    assert is_one_sentence(ended.stderr)


# Outputs


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_existing_or_unwritable_output_exits_1(run, name, place):
    (place / "file").write_text("precious")
    for output in ("precious", "precious.npy", "precious.tsv"):
        (place / output).mkdir()
        (place / output / "thesis.txt").write_text("precious")

    for out in ("precious", "file/deeper/made", "x" * 300):
        ended = run(name, out=out)
        assert ended.status == 1
        assert is_one_sentence(ended.stderr.splitlines(keepends=True)[-1])  # finetune has printed its plan before

    assert (place / "file").read_text() == "precious"
    assert [path.read_text() for path in place.rglob("thesis.txt")] == ["precious"] * 3


@pytest.mark.promise(23)
@pytest.mark.parametrize("name", ["check", "join", "search"])
def test_a_wrong_result_exits_1_and_a_missing_one_66(run, place, name):
    content = (place / "true.npy").read_bytes()
    (place / "true.npy").write_bytes(content[:-1] + b"\x01")
    assert run(name).status == 1

    (place / "true.npy").unlink()
    assert run(name).status == 66
    assert not (place / "made.npy").exists()


# Ends from outside


@pytest.fixture
def terminable():
    """Treat signals as the program does that a shell has started."""
    before = {number: signal.getsignal(number) for number in STATUS_OF_SIGNAL}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    exit_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def reader_left(*unused):
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def signalled(number):
    def send(*unused):
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 1)  # the handler's exception ends it
        pytest.fail("the signal was lost")

    return send


ENDS = {
    "SIGINT": (signalled(signal.SIGINT), 130),
    "SIGTERM": (signalled(signal.SIGTERM), 143),
    "SIGUSR1": (signalled(signal.SIGUSR1), 143),
    "the reader of stdout": (reader_left, 141),
}


@pytest.mark.promise(23)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_signals_have_their_own_status_and_leave_no_unfinished_file(run, name, end, monkeypatch, terminable):
    happen, status = ENDS[end]
    monkeypatch.setattr("protembed.io.reading.decompressed", happen)
    monkeypatch.setattr("protembed.model.catalog.list_models", happen)
    monkeypatch.setattr("protembed.embedding.join.convert", happen)
    monkeypatch.setattr("protembed.search.job.in_parts", happen)
    monkeypatch.setattr("protembed.search.map_result.project", happen)
    monkeypatch.setattr("protembed.cli.process.redirect_stdout_to_null", lambda: None)  # the stdout of the tests

    ended = run(name)

    assert ended.status == status
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_an_error_of_the_machine_exits_1_with_its_path(run, monkeypatch, number):
    def fail(*unused):
        raise OSError(number, os.strerror(number), "there")

    monkeypatch.setattr("protembed.model.catalog.list_models", fail)

    ended = run("models")

    assert (ended.status, ended.stderr) == (1, f"protembed: there: {os.strerror(number)}\n")
