import json
import os
import re
import signal
import subprocess
import sys

import pytest

from protembed.cli.app import main
from protembed.cli.process import STATUS_OF_SIGNAL

# Whatever writes data or words to stdout, however little.
DATA = (
    "--help",
    "--version",
    "embed --help",
    "models",
    "embed small.fasta -m predictor -o -",
    "embed small.fasta -m predictor -o - --format tsv",
    "predict small.fasta -m predictor -o -",
    "score variants.csv -m predictor -o -",
)
READ = ("--help", "models", *DATA[5:7])
SUMMARIES = (
    "models --json",
    "embed small.fasta -m predictor -o {made}.npy --json",
    "check emb.npy small.fasta -m predictor --json --sample-size 0",
    "predict small.fasta -m predictor -o {made}.tsv --json",
    "score variants.csv -m predictor -o {made}.tsv --json",
    "pretrain small.fasta -o {made} --size t4_1M --steps 1 --batch-tokens 128 --crop-residues 32 --json --dry-run",
    "finetune small.csv -m predictor -o {made} --method frozen --skip-random-baseline --json",
    "inspect-attention small.fasta -m predictor -o {made} --save-maps 0 --json",
)
# Each command as a shell would start it, but torch is imported once for all: they are forks.
RUN_EACH = """
import json, os, sys, tempfile, traceback
import protembed.cli.app as program
import protembed.embedding.job, protembed.embedding.writer, protembed.finetuning.prediction

def run(command, stdout, stderr):
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    sys.argv = ["protembed", *command.split()]
    try:
        program.main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        sys.stdout.flush()
    except OSError:
        status = 120  # as the interpreter ends then, which takes a second to take torch apart
    os._exit(status)

for command in sys.argv[1:]:
    reading, writing = os.pipe()
    os.close(reading)
    with tempfile.TemporaryFile() as stderr:
        if (child := os.fork()) == 0:
            run(command, writing, stderr.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stderr.seek(0)
        status = 128 - status if status < 0 else status  # as a shell reports the end by a signal
        print(json.dumps([command, status, stderr.read().decode()]), flush=True)
"""


@pytest.fixture(scope="module")
def place(small_fasta, small_table, small_variants, predictor, invoke, tmp_path_factory):
    """A folder of inputs, a model with a head, and a result."""
    folder = tmp_path_factory.mktemp("streams")
    for path in (small_fasta, small_table, small_variants):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "predictor").symlink_to(predictor)
    result = invoke("embed", small_fasta, "-m", predictor, "-o", folder / "emb.npy")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run_as_program(place, monkeypatch, capsys):
    """Run a command through the program's entry point, with a separate stdout; return its status and stderr."""
    handlers = {number: signal.getsignal(number) for number in (*STATUS_OF_SIGNAL, signal.SIGPIPE)}
    monkeypatch.chdir(place)
    monkeypatch.setenv("MPLCONFIGDIR", str(place))

    def run(command, stdout):
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "argv", ["protembed", *command.split()])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, capsys.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.promise(20)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [*DATA, *SUMMARIES])
def test_full_stdout_exits_1_with_one_sentence(command, run_as_program, tmp_path):
    full = open("/dev/full", "w")

    status, stderr = run_as_program(command.format(made=tmp_path / "made"), full)

    assert status == 1
    assert stderr.splitlines()[-1].startswith("protembed: cannot write <stdout> (No space left on device)")
    full.close()  # what is left of it goes nowhere by now


@pytest.mark.promise(20)
def test_closed_pipe_exits_141_silently(place):
    command = [sys.executable, "-c", RUN_EACH, *READ]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)

    assert [json.loads(line) for line in result.stdout.splitlines()] == [[command, 141, ""] for command in READ]


# Terminals

SHOWN = ("--help", "models", "embed missing.fasta -m predictor", "embed small.fasta -m predictor -o {made}.npy")
RUN_SHOWN = """
import sys
import protembed.cli.app as program
for number, command in enumerate(sys.argv[1:]):
    sys.argv = ["protembed", *command.format(made=f"shown{number}").split()]
    try:
        program.main()
    except SystemExit:
        pass
for path in __import__("pathlib").Path().glob("shown*"):
    path.unlink()
"""
COLOUR = re.compile(rb"\x1b\[[\d;]*m")


def on_a_terminal(place, commands, **variables):
    """What a terminal is sent by some commands, one after the other."""
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100"} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_SHOWN, *commands],
        cwd=place,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                block = terminal.read(65536)
            except OSError:  # Linux says so where all writers have left
                break
            if not block:
                break
            sent += block
    assert process.wait() == 0
    return sent


@pytest.mark.promise(20)
def test_terminal_gets_colours_unless_no_color_is_set(place):
    assert COLOUR.search(on_a_terminal(place, SHOWN[:1]))

    plain = on_a_terminal(place, SHOWN, NO_COLOR="1")

    colours = {code for codes in COLOUR.findall(plain) for code in re.findall(rb"\d+", codes)}
    assert colours <= {b"0", b"1", b"2", b"3", b"4", b"7"}  # bold and the like are no colours
    assert b"12 proteins" in plain


@pytest.mark.promise(20)
def test_pipes_and_files_get_no_control_codes(place):
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "GITHUB_ACTIONS")}

    result = subprocess.run(
        [sys.executable, "-c", RUN_SHOWN, *SHOWN],
        cwd=place,
        env=environment | {"TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert "12 proteins" in result.stderr and "Usage" in result.stdout
    for text in (result.stdout, result.stderr):
        assert {letter for letter in text if not letter.isprintable()} == {"\n"}
