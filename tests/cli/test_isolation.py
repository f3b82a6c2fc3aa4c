import os
import shutil
import subprocess
import sys

import pytest

SMALL = "--batch-tokens 128 --crop-residues 32 --threads 1"
COMMANDS = (
    f"pretrain small.fasta -o made/a.run --size t4_1M --steps 2 --save-every 1 {SMALL}",
    "embed small.fasta -o made/bundled.npy",
    "embed - -o made/residues.h5 --per-residue -m tiny",
    "embed small.fasta -o - --format npz -m tiny",
    "check made/bundled.npy small.fasta",
    "join made/bundled.npy -o made/joined.h5",
    "search made/bundled.npy made/bundled.npy -o made/hits.tsv",
    "finetune small.csv -m tiny -o made/b.model --method full --epochs 1 --skip-random-baseline --threads 1",
    "predict small.fasta -m made/b.model -o made/p.tsv",
    "score variants.csv -o made/s.tsv",
    "inspect-attention small.fasta -m tiny -o made/c.attention --save-maps 1",
    "models",
)
# All commands in one process, each through the program's entry point: a process for each would import torch ten times.
RUN_ALL = """
import socket, sys
import protembed.cli.app as program

def refuse(*arguments, **options):
    raise AssertionError("something asked for the network")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
for command in sys.argv[1:]:
    sys.argv = ["protembed", *command.split(), "--quiet"]
    stdin, sys.stdin = sys.stdin, open("small.fasta")
    try:
        program.main()
    except SystemExit as end:
        assert end.code == 0, (command, end.code)
"""


def everything(folder):
    """Whatever stands in a folder, with when it was last changed."""
    return {path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def without_network(home):
    """The words before a command that take its network away, and its right to write at home, where that can be done."""
    close = 'mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", close, "sh"]
    environment = {**os.environ, "HOME": str(home)}
    is_allowed = (
        shutil.which("unshare")
        and not subprocess.run([*prefix, "true"], env=environment, capture_output=True, check=False).returncode
    )
    return prefix if is_allowed else []


@pytest.mark.promise(19)
def test_every_command_works_offline_and_writes_only_to_its_output(
    small_fasta, small_table, small_variants, tiny_model, tmp_path
):
    work, home, tmp = (tmp_path / name for name in ("work", "home", "tmp"))
    for folder in (work, home, tmp):
        folder.mkdir()
    for path in (small_fasta, small_table, small_variants):
        shutil.copy(path, work)
    shutil.copytree(tiny_model, work / "tiny")
    (work / "made").mkdir()
    given = everything(work)
    home.chmod(0o500)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "XDG_", "MPL", "TORCH", "TRANSFORMERS"))
    }
    environment |= {"HOME": str(home), "TMPDIR": str(tmp), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*without_network(home), sys.executable, "-c", RUN_ALL, *COMMANDS]

    result = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)

    assert result.returncode == 0, result.stderr.decode()
    # Of warnings there is one: that the validation set of so few proteins is small.
    assert not [line for line in result.stderr.decode().splitlines() if not line.startswith("warning: ")]
    assert everything(home) == {}
    # What torch makes, and leaves, where its optimisers are loaded.
    assert {name for name in everything(tmp) if not name.startswith("torchinductor_")} == set()
    after = everything(work)
    assert {name for name in after if name not in given and not name.startswith("made/")} == set()
    assert {name for name in given if after.get(name) != given[name]} == {"made"}
    made = {"a.run", "bundled.npy", "residues.h5", "b.model", "p.tsv", "s.tsv", "c.attention"}
    assert made <= {path.name for path in (work / "made").iterdir()}
