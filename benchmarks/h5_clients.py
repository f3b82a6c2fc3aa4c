"""Whether protspace and biotrainer find every protein of an .h5 file of `protembed embed` and `protembed join`.

    python benchmarks/h5_clients.py [examples/proteins.fasta] [--proteins 300]

Both are installed in an environment of their own, from the package index. biotrainer's reader is the package
biotrainer-core, which needs no torch. The proteins are written as the file has them, and then in lower case, with a
final `*`, with a J, with an identifier that is not a legal name, and twice, because biotrainer hashes what is written.

A cell is the number of proteins whose vector the client returns, bit for bit, under the name by which it looks for
them: protspace by identifier, biotrainer by its hash of the written sequence, everybody else by `file[identifier]`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from itertools import islice
from pathlib import Path

import numpy as np

from protembed import EmbedOptions, JoinOptions, embed_fasta, join_embeddings, load_embeddings, read_fasta

PACKAGES = ("protspace", "biotrainer-core", "h5py")
# What is run in the environment of the clients: it reads one file, and prints how many proteins each client finds.
READ = """
import json, sys
from importlib.metadata import version
from pathlib import Path
import h5py, numpy as np

result, fasta, expected, kind = sys.argv[1:]
ids = [line[1:].split()[0] for line in open(fasta) if line.startswith(">")]
with np.load(expected) as archive:
    vectors = [archive[str(row)] for row in range(len(ids))]
found = {}

def count(client, read):
    found[f"{client} {version(client)}"] = sum(np.array_equal(one, other) for one, other in zip(read, vectors))

def lookup(mapping, name):
    return mapping[name] if name in mapping else None

if kind == "per protein":
    from protspace.data.loaders.h5 import load_h5
    embeddings = load_h5([Path(result)])
    by_id = dict(zip(embeddings.headers, embeddings.data))
    count("protspace", [lookup(by_id, record_id) for record_id in ids])
from biotrainer_core.h5_files.h5_handling import read_id2emb
from biotrainer_core.input_files.fasta import read_FASTA
by_name = read_id2emb(result)
count("biotrainer-core", [lookup(by_name, record.get_hash()) for record in read_FASTA(fasta)])
with h5py.File(result) as file:
    count("h5py", [file[record_id][:] if record_id in file else None for record_id in ids])
    in_order = [dataset[:] for dataset in file.values()]
found["in the order of the input"] = sum(np.array_equal(*pair) for pair in zip(in_order, vectors))
print(json.dumps(found))
"""


def make_environment(folder: Path) -> Path:
    """Install the clients in an environment of their own; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def write_inputs(fasta: Path, num_proteins: int, folder: Path) -> dict[str, Path]:
    """Write the proteins as they are, and as files have them that biotrainer hashes differently than one expects."""
    records = [(record.id, record.sequence) for record in islice(read_fasta(fasta), num_proteins)]
    first, second, third, fourth, *_ = records
    odd = [
        (first[0], first[1].lower()),
        (second[0], second[1] + "*"),
        (third[0], third[1][:20] + "J" + third[1][20:]),
        (f"group/{fourth[0]}", fourth[1]),
        ("twice", first[1]),
        ("twice", second[1]),
    ]
    inputs = {"as they are": records, "odd": odd}
    for name, entries in inputs.items():
        text = "".join(f">{record_id}\n{sequence}\n" for record_id, sequence in entries)
        (folder / f"{name}.fasta").write_text(text)
    return {name: folder / f"{name}.fasta" for name in inputs}


def make_result(fasta: Path, output: Path, **settings: object) -> None:
    """Make an .h5 file in two shards, join them, and compare with the file that is made at once."""
    shards = [output.with_name(f"{output.stem}.{number}.h5") for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        embed_fasta(fasta, EmbedOptions.from_values(output=shard, shard=f"{number}/2", **settings))
    join_embeddings(shards, JoinOptions.from_values(output=output))
    whole = output.with_name(f"{output.stem}.whole.h5")
    embed_fasta(fasta, EmbedOptions.from_values(output=whole, **settings))
    assert whole.read_bytes() == output.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path, nargs="?", default=Path("examples/proteins.fasta"))
    parser.add_argument("--proteins", type=int, default=300)
    parser.add_argument("--python", type=Path, help="Python of an environment that has the clients already.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = arguments.python or make_environment(folder / "clients")
        for what, fasta in write_inputs(arguments.fasta, arguments.proteins, folder).items():
            for kind in ("per protein", "per residue"):
                for names in ("id", "hash"):
                    output = folder / f"{what} {kind} {names}.h5"
                    make_result(fasta, output, per_residue=kind == "per residue", h5_names=names)
                    loaded = load_embeddings(output)
                    expected = folder / "expected.npz"
                    np.savez(expected, **{str(row): vector for row, vector in enumerate(loaded.vectors)})
                    command = [python, "-c", READ, output, fasta, expected, kind]
                    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                    counts = ", ".join(f"{client}: {number}" for client, number in found.items())
                    print(f"{what}, {kind}, names {names}: {len(loaded)} proteins; {counts}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
