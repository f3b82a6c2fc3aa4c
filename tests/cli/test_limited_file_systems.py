"""Every command where a file system has neither locks nor permissions, and files can be neither flushed nor renamed."""

import errno
import os

import pytest

from protembed.io.limitations import Limitation

COMMANDS = {
    "pretrain": "pretrain {fasta} -o {out} --size t4_1M --steps 2 --save-every 1 --batch-tokens 128 --crop-residues 32",
    "embed": "embed {fasta} -m {model} -o {out}.npy",
    "embed --per-residue": "embed {fasta} -m {model} -o {out}.h5 --per-residue",
    "finetune": "finetune {labels} -m {model} -o {out} --method full --epochs 1 --skip-random-baseline",
    "predict": "predict {fasta} -m {model} -o {out}.tsv",
    "score": "score {variants} -m {model} -o {out}.tsv",
    "inspect-attention": "inspect-attention {fasta} -m {model} -o {out} --save-maps 1",
}


@pytest.fixture
def limited(monkeypatch):
    """Refuse what such file systems refuse."""

    def refuse(number):
        def fail(*arguments, **options):
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr("os.fsync", refuse(errno.EINVAL))
    monkeypatch.setattr("fcntl.flock", refuse(errno.ENOLCK))
    monkeypatch.setattr("pathlib.Path.chmod", refuse(errno.EPERM))
    monkeypatch.setattr("os.replace", refuse(errno.EEXIST))
    monkeypatch.setattr("os.rename", refuse(errno.EBUSY))


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_warns_once_of_each_limitation_and_writes_its_result(
    invoke, name, small_fasta, small_table, small_variants, predictor, tmp_path
):
    inputs = {"fasta": small_fasta, "labels": small_table, "variants": small_variants, "model": predictor}
    command = [*COMMANDS[name].format(**inputs, out=tmp_path / "out").split(), "--threads", 1]

    for words in (command, [*command, "--force"]):
        ended = invoke(*words)
        assert ended.exit_code == 0, ended.output
        warnings = [line for line in ended.stderr.splitlines() if "warning: " in line]
        met = [limitation for line in warnings for limitation in Limitation if line.endswith(f": {limitation}")]
        assert len(met) == len(set(met))
        assert {Limitation.LOCKS, Limitation.FLUSHING, Limitation.RENAMING} <= set(met)

    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"] == []
