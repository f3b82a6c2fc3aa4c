import json
import os
import random
import subprocess
import sys

import pytest

from protembed.data.alphabet import AMINO_ACIDS

# Two numbers of proteins, and how many tokens are read at a time, so that the smaller number fills what is read ahead.
# By hand, in full, with what is read at a time as it is:
# PROTEMBED_MEMORY_RECORDS=5000,50000 python -m pytest tests/cli/test_memory.py -s
FEW, MANY = (int(number) for number in os.environ.get("PROTEMBED_MEMORY_RECORDS", "1500,3500").split(","))
IN_FULL = FEW >= 5_000
TOKENS_PER_CHUNK = 65_536 if IN_FULL else 2_048
# Few proteins with long headers show that none is kept, as many of ordinary ones do.
HEADER = "about a protein " * (3 if IN_FULL else 250)
# 30 MB between 5,000 and 50,000 proteins are 700 bytes for each; what two processes differ by comes on top.
ALLOWED_MB = 30 * (MANY - FEW) / 45_000 + 4
COMMANDS = {
    "embed": "embed {fasta} -m {model} -o {out}.npy --threads 1 --quiet",
    "predict": "predict {fasta} -m {model} -o {out}.tsv --threads 1 --quiet",
    "statistics": "inspect-attention {fasta} -m {model} -o {out} --save-maps 0 --threads 1 --quiet",
    "corpus": "corpus {fasta} {out}",
}
# Each command runs in a fork of one process, whose peak memory the kernel reports when it ends. Building a corpus is
# the part of `pretrain` that reads the whole file.
MEASURE = """
import json, os, sys
from pathlib import Path
import protembed.inference.engine
import protembed.attention.inspection, protembed.finetuning.prediction
import protembed.embedding.job, protembed.embedding.writer
import protembed.cli.app as program
from protembed.pretraining.corpus import build_corpora
protembed.inference.engine._TOKENS_PER_CHUNK = int(sys.argv[1])
for command in sys.argv[2:]:
    words = command.split()
    if (child := os.fork()) == 0:
        if words[0] == "corpus":
            build_corpora(Path(words[2]), [Path(words[1])], [])
            os._exit(0)
        sys.argv = ["protembed", *words]
        try:
            program.main()
        except SystemExit as end:
            os._exit(end.code or 0)
    _, status, usage = os.wait4(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]), flush=True)
"""


def write_fasta(path, num_records):
    """Short proteins without a copy among them."""
    rng = random.Random(0)
    with path.open("w") as stream:
        for row in range(num_records):
            sequence = "".join(rng.choices(AMINO_ACIDS, k=12 + row % 9))
            stream.write(f">p{row} {HEADER}\n{sequence}\n")


@pytest.mark.promise(21)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel counts in other units")
def test_memory_does_not_grow_with_the_file(predictor, tmp_path):
    commands = []
    for num_records in (FEW, MANY):
        fasta = tmp_path / f"{num_records}.fasta"
        write_fasta(fasta, num_records)
        for name, command in COMMANDS.items():
            commands.append(command.format(fasta=fasta, model=predictor, out=tmp_path / f"{name}-{num_records}"))

    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(TOKENS_PER_CHUNK), *commands], capture_output=True, text=True, check=False
    )
    results = [json.loads(line) for line in result.stdout.splitlines()]

    assert [status for status, _ in results] == [0] * len(commands), result.stderr
    megabytes = [kilobytes / 1024 for _, kilobytes in results]
    few, many = megabytes[: len(COMMANDS)], megabytes[len(COMMANDS) :]
    print(dict(zip(COMMANDS, zip(few, many, strict=True), strict=True)))
    growth = {name: after - before for name, before, after in zip(COMMANDS, few, many, strict=True)}
    assert {name: grown for name, grown in growth.items() if grown > ALLOWED_MB} == {}
