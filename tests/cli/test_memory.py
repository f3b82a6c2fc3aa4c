import json
import os
import random
import subprocess
import sys

import pytest

from protembed.data.alphabet import AMINO_ACIDS

# Two numbers of proteins; the smaller one fills what the engine reads ahead. By hand, in full:
# PROTEMBED_MEMORY_RECORDS=5000,50000 python -m pytest tests/cli/test_memory.py -s
FEW, MANY = (int(number) for number in os.environ.get("PROTEMBED_MEMORY_RECORDS", "2500,10000").split(","))
# 30 MB between 5,000 and 50,000 proteins are 700 bytes for each; what two processes differ by comes on top.
ALLOWED_MB = 30 * (MANY - FEW) / 45_000 + 3
COMMANDS = {
    "embed": "embed {fasta} -m {model} -o {out}.npy --threads 1",
    "predict": "predict {fasta} -m {model} -o {out}.tsv --threads 1",
    "statistics": "inspect-attention {fasta} -m {model} -o {out} --num-maps 0 --threads 1",
    "corpus": "pretrain {fasta} -o {out} --size t4_1M --steps 1 --crop-residues 8 --tokens-per-batch 32 --threads 1",
}
# Each command in a fork of one process, whose largest extent the kernel tells when it ends.
MEASURE = """
import json, os, sys
import protembed.tasks.inspect_attention, protembed.tasks.predict, protembed.tasks.pretrain
import protembed.cli.app as program
for command in sys.argv[1:]:
    if (child := os.fork()) == 0:
        sys.argv = ["protembed", *command.split(), "--quiet"]
        program.main()
    _, status, usage = os.wait4(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]), flush=True)
"""


def write_fasta(path, num_records):
    """Short proteins without a copy among them, each with a header of two kilobytes: whoever keeps them is found."""
    rng = random.Random(0)
    with path.open("w") as stream:
        for row in range(num_records):
            sequence = "".join(rng.choices(AMINO_ACIDS, k=50 + row % 20))
            stream.write(f">p{row} {'about a protein ' * 120}\n{sequence}\n")


@pytest.mark.promise(21)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel counts in other units")
def test_memory_does_not_grow_with_the_file(predictor, tmp_path):
    commands = []
    for num_records in (FEW, MANY):
        fasta = tmp_path / f"{num_records}.fasta"
        write_fasta(fasta, num_records)
        for name, command in COMMANDS.items():
            commands.append(command.format(fasta=fasta, model=predictor, out=tmp_path / f"{name}-{num_records}"))

    result = subprocess.run([sys.executable, "-c", MEASURE, *commands], capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in result.stdout.splitlines()]

    assert [status for status, _ in told] == [0] * len(commands), result.stderr
    megabytes = [kilobytes / 1024 for _, kilobytes in told]
    few, many = megabytes[: len(COMMANDS)], megabytes[len(COMMANDS) :]
    print(dict(zip(COMMANDS, zip(few, many, strict=True), strict=True)))
    growth = {name: after - before for name, before, after in zip(COMMANDS, few, many, strict=True)}
    assert {name: grown for name, grown in growth.items() if grown > ALLOWED_MB} == {}
