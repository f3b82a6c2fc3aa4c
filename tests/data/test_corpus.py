import json

import numpy as np
import pytest

from protembed.data.alphabet import decode, encode
from protembed.data.corpus import Corpus, build_corpora, corpus_writer, open_corpora
from protembed.data.splits import hash_share
from protembed.errors import NothingToLearnError


def sequences_of(corpus):
    return [corpus.sequence(row) for row in range(len(corpus))]


def test_proteins_come_back_as_they_were_added(corpus, proteins):
    assert len(corpus) == len(proteins)
    assert sequences_of(corpus) == proteins
    assert all((corpus[row] == encode(protein)).all() for row, protein in enumerate(proteins))


def test_a_corpus_knows_its_size(corpus, proteins):
    assert corpus.lengths.tolist() == [len(protein) for protein in proteins]
    assert corpus.num_residues == sum(map(len, proteins))
    assert corpus.facts["num_proteins"] == len(proteins)
    assert corpus.facts["num_residues"] == corpus.num_residues


def test_the_fingerprint_tells_corpora_apart_by_residues_order_and_boundaries(make_corpus):
    corpora = [["MKT", "AY"], ["MKT", "AW"], ["AY", "MKT"], ["MK", "TAY"], ["MKTAY"]]

    fingerprints = [make_corpus(sequences).fingerprint for sequences in corpora]

    assert len(set(fingerprints)) == len(corpora)
    assert make_corpus(["MKT", "AY"]).fingerprint == fingerprints[0]


def test_files_are_plain_arrays_and_json(tmp_path):
    with corpus_writer(tmp_path / "corpus") as writer:
        writer.add("MKT")
        writer.add("AY")

    tokens, offsets = (np.load(tmp_path / "corpus" / f"{name}.npy") for name in ("tokens", "offsets"))
    assert (tokens.dtype, decode(tokens)) == (np.uint8, "MKTAY")
    assert (offsets.dtype, offsets.tolist()) == (np.int64, [0, 3, 5])
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["num_proteins"] == 2


def test_tokens_are_read_from_disk_as_they_are_needed(corpus):
    assert isinstance(corpus[0].base, np.memmap) or isinstance(corpus[0], np.memmap)


def test_a_corpus_that_failed_half_way_does_not_appear(tmp_path):
    with pytest.raises(ValueError, match="'1'"), corpus_writer(tmp_path / "corpus") as writer:
        writer.add("MKT")
        writer.add("M1")

    assert list(tmp_path.iterdir()) == []


def test_a_new_corpus_replaces_an_old_one(tmp_path):
    for sequence in ("MKT", "AY"):
        with corpus_writer(tmp_path / "corpus") as writer:
            writer.add(sequence)

    assert Corpus(tmp_path / "corpus").sequence(0) == "AY"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_facts_may_be_asked_for_twice(tmp_path):
    with corpus_writer(tmp_path / "corpus") as writer:
        writer.add("MKT")
        assert writer.facts() == writer.facts()


def test_a_corpus_without_proteins_is_empty(make_corpus):
    corpus = make_corpus([])

    assert (len(corpus), corpus.num_residues) == (0, 0)


# Training and validation


def test_a_twentieth_is_held_out_by_sequence_hash(tmp_path, proteins_fasta, proteins):
    warnings = build_corpora(tmp_path / "corpora", [proteins_fasta], [])

    corpora = open_corpora(tmp_path / "corpora")
    (valid,) = corpora.valid
    held_out = [protein for protein in proteins if hash_share(protein) < 0.05]
    assert 0 < len(held_out) < 8
    assert sequences_of(valid) == held_out
    assert sequences_of(corpora.train) == [protein for protein in proteins if protein not in held_out]
    assert any("held out by sequence hash" in warning for warning in warnings)


def test_the_held_out_proteins_do_not_depend_on_the_order_of_the_files(tmp_path, proteins):
    for name, ordered in (("forward", proteins), ("backward", proteins[::-1])):
        (tmp_path / name).write_text("".join(f">{row}\n{protein}\n" for row, protein in enumerate(ordered)))
        build_corpora(tmp_path / f"{name}.corpora", [tmp_path / name], [])

    forward, backward = (open_corpora(tmp_path / f"{name}.corpora") for name in ("forward", "backward"))
    assert set(sequences_of(forward.valid[0])) == set(sequences_of(backward.valid[0]))


def test_validation_files_are_sets_of_their_own_and_nothing_is_held_out(tmp_path, proteins_fasta, proteins):
    (tmp_path / "one").write_text(">a\nMKTJ\n")
    (tmp_path / "two").write_text(">b\nAYW\n>c\nMKK\n")

    warnings = build_corpora(tmp_path / "corpora", [proteins_fasta], [tmp_path / "one", tmp_path / "two"])

    corpora = open_corpora(tmp_path / "corpora")
    assert sequences_of(corpora.train) == proteins
    assert [sequences_of(valid) for valid in corpora.valid] == [["MKTX"], ["AYW", "MKK"]]
    assert "validation: non-standard residues: 1 J (J is read as X)" in warnings


def test_too_few_proteins_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "one.fasta").write_text(">a\nMKT\n")

    with pytest.raises(NothingToLearnError) as caught:
        build_corpora(tmp_path / "corpora", [tmp_path / "one.fasta"], [])

    assert caught.value.exit_status == 65
    assert [path.name for path in tmp_path.iterdir()] == ["one.fasta"]
