import numpy as np

from protembed.embedding.input_residues import InputResidues
from protembed.embedding.selection import Selection, Shard

SELECTION = {"on_illegal": "skip", "long_proteins": "window", "window_residues": 50}


def read(tmp_path, sample=None, **options):
    fasta = tmp_path / "a.fasta"
    fasta.write_text(">one\nMKB\n>bad\nM1K\n>two\nUXXJ\n>three\nMKT\n")
    return InputResidues.read(Selection(**{**SELECTION, **options}), [fasta], sample)


def test_nonstandard_residues_of_the_embedded_proteins_are_counted(tmp_path):
    found = read(tmp_path)

    assert found.counts == {"B": 1, "U": 1, "X": 3}  # J is read as X
    assert found.num_nonstandard.tolist() == [1, 4, 0]
    assert found.sampled is None


def test_sampled_residues_are_found_in_their_proteins(tmp_path):
    assert "".join(read(tmp_path, np.array([0, 2, 3, 9])).sampled) == "MBUT"


def test_residues_of_a_shard_are_its_own(tmp_path):
    found = read(tmp_path, np.array([2]), shard=Shard(2, 2))

    assert found.num_nonstandard.tolist() == [0]
    assert "".join(found.sampled) == "T"
