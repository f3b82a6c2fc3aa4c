import json
from itertools import islice, product

import numpy as np
import pytest

from protembed.config.common import InputConfig
from protembed.data.alphabet import decode, encode
from protembed.data.hashing import hash_fraction
from protembed.errors import ConfigError, FormatError, TooFewProteinsError
from protembed.pretraining.corpus import Corpus, build_corpora, corpus_writer, open_corpora


def sequences_of(corpus):
    return [corpus.sequence(row) for row in range(len(corpus))]


def test_proteins_come_back_as_they_were_added(corpus, proteins):
    assert len(corpus) == len(proteins)
    assert sequences_of(corpus) == proteins
    assert all((corpus[row] == encode(protein)).all() for row, protein in enumerate(proteins))


def test_a_corpus_reports_its_size(corpus, proteins):
    assert corpus.lengths.tolist() == [len(protein) for protein in proteins]
    assert corpus.num_residues == sum(map(len, proteins))
    assert corpus.facts["num_proteins"] == len(proteins)
    assert corpus.facts["num_residues"] == corpus.num_residues


def test_the_fingerprint_depends_on_residues_order_and_boundaries(make_corpus):
    corpora = [["MKT", "AY"], ["MKT", "AW"], ["AY", "MKT"], ["MK", "TAY"], ["MKTAY"]]

    fingerprints = [make_corpus(sequences).fingerprint for sequences in corpora]

    assert len(set(fingerprints)) == len(corpora)
    assert make_corpus(["MKT", "AY"]).fingerprint == fingerprints[0]


def test_a_corpus_is_stored_as_plain_arrays_and_json(tmp_path):
    with corpus_writer(tmp_path / "corpus") as writer:
        writer.add("MKT")
        writer.add("AY")

    tokens, offsets = (np.load(tmp_path / "corpus" / f"{name}.npy") for name in ("tokens", "offsets"))
    assert (tokens.dtype, decode(tokens)) == (np.uint8, "MKTAY")
    assert (offsets.dtype, offsets.tolist()) == (np.int64, [0, 3, 5])
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["num_proteins"] == 2


def test_a_corpus_is_memory_mapped(corpus):
    assert isinstance(corpus.tokens.base, np.memmap)
    assert isinstance(corpus.offsets.base, np.memmap)
    assert corpus[0].base is corpus.tokens


def test_a_failing_writer_leaves_no_corpus(tmp_path):
    with pytest.raises(ConfigError, match="'1'"), corpus_writer(tmp_path / "corpus") as writer:
        writer.add("MKT")
        writer.add("M1")

    assert list(tmp_path.iterdir()) == []


def test_a_new_corpus_replaces_an_old_one(tmp_path):
    for sequence in ("MKT", "AY"):
        with corpus_writer(tmp_path / "corpus") as writer:
            writer.add(sequence)

    assert Corpus(tmp_path / "corpus").sequence(0) == "AY"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_corpus_without_proteins_is_empty(make_corpus):
    corpus = make_corpus([])

    assert (len(corpus), corpus.num_residues) == (0, 0)


def test_a_corpus_is_named_after_its_directory_unless_it_is_given_a_name(make_corpus, tmp_path):
    with corpus_writer(tmp_path / "corpus", name="held_out"):
        pass

    assert make_corpus([]).name == "corpus"
    assert Corpus(tmp_path / "corpus").name == "held_out"


# Copies


def test_copies_of_a_protein_are_stored_once_where_it_occurs_first(make_corpus):
    corpus = make_corpus(["MKT", "AYW", "MKT", "MKTA", "AYW", "MKT", "C"])

    assert sequences_of(corpus) == ["MKT", "AYW", "MKTA", "C"]
    assert corpus.offsets.tolist() == [0, 3, 6, 10, 11]
    assert (corpus.facts["num_proteins"], corpus.facts["num_residues"], corpus.facts["num_duplicates"]) == (4, 11, 3)


def test_a_corpus_with_copies_has_the_fingerprint_of_the_one_without(make_corpus):
    assert make_corpus(["MKT", "AY", "MKT"]).fingerprint == make_corpus(["MKT", "AY"]).fingerprint


def test_equal_hashes_of_different_proteins_lose_no_protein(make_corpus, monkeypatch):
    monkeypatch.setattr("protembed.data.hashing.sequence_sha256", lambda sequence: bytes([sequence[0] == "M"] * 32))

    corpus = make_corpus(["MKT", "AYW", "MKA", "MKT", "AYW", "MKA", "MK"])

    assert sequences_of(corpus) == ["MKT", "AYW", "MKA", "MK"]


def test_the_corpus_does_not_depend_on_the_sizes_of_blocks(make_corpus, proteins):
    sequences = [*proteins, *proteins[::-1], *proteins[:5], "MKT"]
    expected = make_corpus(sequences)

    corpus = make_corpus(sequences, residues_per_block=300, proteins_per_block=7)

    assert sequences_of(corpus) == sequences_of(expected) == [*proteins, "MKT"]
    assert corpus.facts == expected.facts


# Training and validation


@pytest.mark.promise(16)
def test_a_hundred_thousand_tiny_proteins_are_stored_and_copies_once(tmp_path):
    sequences = ["".join(letters) for letters in islice(product("ACDEFGHIKLMNPQRSTVWY", repeat=4), 99_000)]
    sequences += sequences[:1000]
    fasta = tmp_path / "tiny.fasta"
    fasta.write_text("".join(f">same\n{sequence}\n" for sequence in sequences))

    warnings = build_corpora(tmp_path / "corpora", [fasta], [])

    corpora = open_corpora(tmp_path / "corpora")
    both = [corpora.train, *corpora.valid]
    assert sum(map(len, both)) == 99_000
    assert sum(corpus.num_residues for corpus in both) == 4 * 99_000
    assert any("99,999 records with an identifier used before" in warning for warning in warnings)


def test_a_twentieth_is_held_out_by_sequence_hash(tmp_path, proteins_fasta, proteins):
    warnings = build_corpora(tmp_path / "corpora", [proteins_fasta], [])

    corpora = open_corpora(tmp_path / "corpora")
    (valid,) = corpora.valid
    held_out = [protein for protein in proteins if hash_fraction(protein) < 0.05]
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


@pytest.fixture
def split_of(tmp_path):
    """Build corpora from sequences; return the training proteins, those held out, and the warnings."""

    def build(sequences, name="few"):
        (tmp_path / name).write_text("".join(f">{row}\n{sequence}\n" for row, sequence in enumerate(sequences)))
        warnings = build_corpora(tmp_path / f"{name}.corpora", [tmp_path / name], [])
        corpora = open_corpora(tmp_path / f"{name}.corpora")
        return sequences_of(corpora.train), sequences_of(corpora.valid[0]), warnings

    return build


def by_hash(proteins, *, are_held_out):
    return [protein for protein in proteins if (hash_fraction(protein) < 0.05) == are_held_out]


def test_of_twenty_proteins_with_high_hashes_the_one_with_the_lowest_is_held_out(split_of, proteins):
    twenty = by_hash(proteins, are_held_out=False)[:20]

    train, valid, warnings = split_of(twenty)

    assert valid == [min(twenty, key=hash_fraction)]
    assert train == [protein for protein in twenty if protein not in valid]
    assert any("only 1 of 20 different proteins can be held out; such a validation says" in line for line in warnings)


def test_a_twentieth_of_few_proteins_is_held_out_whatever_their_order_and_copies(split_of, proteins):
    thirty = by_hash(proteins, are_held_out=False)[:30]

    train, valid, _ = split_of(thirty)
    other_train, other_valid, _ = split_of([*thirty[::-1], *thirty], "copies")

    assert sorted(valid, key=hash_fraction) == sorted(thirty, key=hash_fraction)[:2]
    assert (set(other_train), set(other_valid)) == (set(train), set(valid))


def test_proteins_that_all_have_low_hashes_leave_some_to_train_on(split_of, proteins):
    low = by_hash(proteins, are_held_out=True)[:2]

    train, valid, _ = split_of(low)

    assert (len(train), valid) == (1, [min(low, key=hash_fraction)])


def test_many_copies_of_few_sequences_are_not_kept_in_memory(split_of, proteins, monkeypatch):
    monkeypatch.setattr("protembed.pretraining.hold_out._MAX_PENDING", 3)
    trained, held_out = (by_hash(proteins, are_held_out=kind)[0] for kind in (False, True))

    train, valid, warnings = split_of([*[trained] * 5, held_out, trained])

    assert (train, valid) == ([trained], [held_out])
    assert not any("different proteins" in line for line in warnings)


def test_with_validation_files_no_protein_is_held_out(tmp_path, proteins_fasta, proteins):
    (tmp_path / "one").write_text(">a\nMKTJ\n")
    (tmp_path / "two").write_text(">b\nAYW\n>c\nMKK\n")

    warnings = build_corpora(tmp_path / "corpora", [proteins_fasta], [tmp_path / "one", tmp_path / "two"])

    corpora = open_corpora(tmp_path / "corpora")
    assert sequences_of(corpora.train) == proteins
    assert [sequences_of(valid) for valid in corpora.valid] == [["MKTX"], ["AYW", "MKK"]]
    assert [valid.name for valid in corpora.valid] == ["one", "two"]
    assert "validation set one: non-standard residues: 1 J (J is read as X)" in warnings
    assert not any(
        "held out" in warning or "duplicate" in warning or "training data too" in warning for warning in warnings
    )


def test_validation_sets_of_the_same_file_name_are_numbered(tmp_path, proteins_fasta):
    paths = [tmp_path / name for name in ("a/set.fasta", "b/set.fa", "set-2.fasta")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(">a\nMKT\n")

    build_corpora(tmp_path / "corpora", [proteins_fasta], paths)

    assert [valid.name for valid in open_corpora(tmp_path / "corpora").valid] == ["set", "set-2", "set-2-2"]


def test_validation_proteins_that_are_also_in_training_are_counted(tmp_path, proteins_fasta, proteins):
    (tmp_path / "known.fasta").write_text(f">a\n{proteins[3]}\n>b\nMKT\n>c\n{proteins[7]}\n>d\n{proteins[7]}\n")

    warnings = build_corpora(tmp_path / "corpora", [proteins_fasta], [tmp_path / "known.fasta"])

    assert (
        "validation set known: 2 of its proteins are in the training data too; its metrics will be too optimistic"
    ) in warnings
    assert "validation set known: skipped 1 exact duplicate of earlier proteins" in warnings


def test_copies_are_never_divided_between_training_and_validation(tmp_path, proteins):
    doubled = [*proteins, *proteins]
    (tmp_path / "doubled").write_text("".join(f">{row}\n{protein}\n" for row, protein in enumerate(doubled)))

    warnings = build_corpora(tmp_path / "corpora", [tmp_path / "doubled"], [])

    corpora = open_corpora(tmp_path / "corpora")
    (valid,) = corpora.valid
    assert valid.name == "held_out"
    assert sorted(sequences_of(valid) + sequences_of(corpora.train)) == sorted(proteins)
    assert f"training data: skipped {len(corpora.train)} exact duplicates of earlier proteins" in warnings


def test_a_validation_set_whose_records_were_all_skipped_is_refused(tmp_path, proteins_fasta):
    (tmp_path / "odd.fasta").write_text(">a\nM1\n")

    with pytest.raises(FormatError, match="odd.fasta: every record was left out"):
        build_corpora(
            tmp_path / "corpora", [proteins_fasta], [tmp_path / "odd.fasta"], reader=InputConfig(on_illegal="skip")
        )

    assert [path.name for path in tmp_path.iterdir()] == ["odd.fasta"]


def test_too_few_proteins_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "one.fasta").write_text(">a\nMKT\n>b\nMKT\n")

    with pytest.raises(TooFewProteinsError) as caught:
        build_corpora(tmp_path / "corpora", [tmp_path / "one.fasta"], [])

    assert (caught.value.exit_status, caught.value.num_proteins) == (65, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["one.fasta"]
