import json

import numpy as np
import pytest

from protembed.callbacks import Callbacks
from protembed.config.embed import EmbedOptions
from protembed.config.search import SearchOptions
from protembed.data.similarity import nearest
from protembed.embedding.embed import embed_fasta
from protembed.errors import (
    ConfigError,
    InputError,
    InputNotFoundError,
    OutputExistsError,
    UnusableResultError,
    VerificationError,
)
from protembed.search.search import search_embeddings
from protembed.search.sides import computes_vectors

HEADER = "query target rank cosine z_score query_residues target_residues kmer_similarity".split()


@pytest.fixture
def sides(store, draw):
    """A result with 12 queries, and one with 30 proteins to search in."""
    queries = store(draw(12), ids=[f"q{number}" for number in range(12)], name="queries")
    return queries.path, store(draw(30, seed=1), name="database").path


@pytest.fixture
def embedded(tiny_model, proteins_fasta, tmp_path):
    """The forty proteins, embedded with the tiny model."""
    options = EmbedOptions.from_values(model=tiny_model, output=tmp_path / "forty.npy", threads=1)
    return embed_fasta(proteins_fasta, options).output


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Hits


def test_hits_are_those_of_a_brute_force_search(sides, find, draw):
    summary, rows = find(*sides, num_neighbours=4)

    cosines = unit(draw(12).astype(np.float64)) @ unit(draw(30, seed=1).astype(np.float64)).T
    order = np.argsort(-cosines, axis=1)[:, :4]
    assert list(rows[0]) == HEADER
    assert [row["target"] for row in rows] == [f"p{index + 1}" for index in order.ravel()]
    assert [row["query"] for row in rows] == [f"q{number}" for number in range(12) for _ in range(4)]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4] * 12
    found = np.array([float(row["cosine"]) for row in rows])
    assert np.abs(found - np.take_along_axis(cosines, order, 1).ravel()).max() < 1e-6
    assert (summary.num_queries, summary.num_database, summary.num_hits, summary.is_same) == (12, 30, 48, False)


@pytest.mark.parametrize("suffix", ["npz", "h5", "tsv"])
def test_all_formats_give_the_same_hits(sides, find, convert, suffix):
    queries, database = sides
    _, expected = find(queries, database, metric="euclidean")

    _, found = find(queries, convert(database, suffix), output="again.tsv", metric="euclidean")

    assert found == expected


def test_float16_vectors_are_searched(store, draw, find):
    result = store(draw(9), dtype="float16").path

    _, rows = find(result, result, num_neighbours=1)

    stored = unit(draw(9).astype(np.float16).astype(np.float64))
    cosines = stored @ stored.T - 2 * np.eye(9)
    assert [row["target"] for row in rows] == [f"p{index + 1}" for index in cosines.argmax(1)]


def test_shards_give_the_hits_of_the_whole(tiny_model, proteins_fasta, embedded, tmp_path, find):
    for number in (1, 2, 3):
        output, shard = tmp_path / f"part.{number}-of-3.npy", f"{number}/3"
        embed_fasta(proteins_fasta, EmbedOptions.from_values(model=tiny_model, output=output, shard=shard, threads=1))
    pattern = tmp_path / "part.*-of-3.npy"
    _, expected = find(embedded, embedded)

    summary, found = find(pattern, pattern, output="again.tsv")

    assert found == expected
    assert summary.is_same


def test_the_same_file_on_both_sides_is_all_against_all_without_the_protein_itself(sides, find):
    database = sides[1]

    summary, rows = find(database, database, num_neighbours=50)

    assert summary.is_same
    assert len(rows) == 30 * 29
    assert all(row["query"] != row["target"] for row in rows)


def test_a_single_protein_has_no_hits_in_itself(store, draw, find):
    result = store(draw(1)).path

    summary, rows = find(result, result)

    assert rows == []
    assert (summary.num_hits, summary.median_cosine) == (0, None)


def test_hits_below_the_least_cosine_are_left_out(sides, find):
    _, every = find(*sides, num_neighbours=30)

    _, rows = find(*sides, output="few.tsv", num_neighbours=30, min_cosine=0.4)

    assert rows == [row for row in every if float(row["cosine"]) >= 0.4]
    assert 0 < len(rows) < len(every)


def test_distances_are_a_column_if_they_order_the_hits(sides, find, draw):
    _, rows = find(*sides, metric="euclidean", num_neighbours=3)

    distances = np.linalg.norm(draw(12)[:, None].astype(np.float64) - draw(30, seed=1)[None], axis=2)
    assert list(rows[0]) == [*HEADER[:5], "distance", *HEADER[5:]]
    assert np.allclose([float(row["distance"]) for row in rows], np.sort(distances, 1)[:, :3].ravel(), rtol=1e-6)


def test_identifiers_that_a_spreadsheet_would_interpret_are_escaped(store, draw, find):
    result = store(draw(2), ids=["=cmd()", "p2"]).path

    _, rows = find(result, result)

    assert [row["query"] for row in rows] == ["'=cmd()", "p2"]


# Sequences


def test_a_fasta_side_is_embedded_kept_and_reused(proteins_fasta, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"model": tiny_model, "threads": 1}
    notes = []

    for number in (5, 6):
        summary = search_embeddings(
            proteins_fasta,
            proteins_fasta,
            SearchOptions.from_values(output=f"{number}.tsv", num_neighbours=number, **options),
            Callbacks(on_note=notes.append),
        )

    assert (summary.num_queries, summary.num_hits) == (40, 240)
    assert [note.rpartition(", ")[2] for note in notes] == ["saved for the next search", "already computed"]
    assert (tmp_path / "proteins.npy").exists()


def test_a_model_beside_two_results_is_warned_of(store, draw, tiny_model, tmp_path):
    result, warnings = store(draw(4)).path, []
    options = SearchOptions.from_values(output=tmp_path / "hits.tsv", model=tiny_model)

    search_embeddings(result, result, options, Callbacks(on_warning=warnings.append))

    assert warnings == ["`model` has no effect, because both sides are results of `embed`"]
    assert not computes_vectors(result, result) and computes_vectors("queries.fasta", result)


def test_other_vectors_under_the_name_of_a_fasta_side_are_named_with_what_to_do(
    proteins_fasta, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    embed_fasta(proteins_fasta, EmbedOptions.from_values(model=tiny_model, output="proteins.npy", pooling="max"))
    message = "`pooling` was max, not mean.; rename it, or pass it in place of the FASTA"

    with pytest.raises(UnusableResultError, match=message) as caught:
        search_embeddings(proteins_fasta, proteins_fasta, SearchOptions.from_values(model=tiny_model))

    assert "force" not in str(caught.value)


@pytest.fixture
def relatives(proteins, mutate, tmp_path, monkeypatch):
    """A FASTA file of proteins that are like some of the forty, and their sequences."""
    monkeypatch.chdir(tmp_path)  # where their vectors are kept
    sequences = [mutate(proteins[0], 0.1), proteins[1][:-10], proteins[2], "MKT"]
    fasta = tmp_path / "relatives.fasta"
    fasta.write_text("".join(f">r{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return fasta, sequences


def test_similarity_by_kmers_is_the_one_of_splits(relatives, embedded, proteins_fasta, proteins, tiny_model, find):
    fasta, sequences = relatives

    _, rows = find(fasta, embedded, sequences=[proteins_fasta], model=tiny_model, num_neighbours=40)

    found = {(row["query"], row["target"]): float(row["kmer_similarity"]) for row in rows}
    indices, similarities = nearest(sequences, proteins)
    for number, similarity in enumerate(similarities):
        of_query = {target: value for (query, target), value in found.items() if query == f"r{number}"}
        assert max(of_query.values()) == pytest.approx(similarity, abs=5e-5)
    assert indices[:3].tolist() == [0, 1, 2]


def test_similarity_is_empty_where_no_sequence_is_known(embedded, find):
    _, rows = find(embedded, embedded)

    assert {row["kmer_similarity"] for row in rows} == {""}


def test_unknown_sequences_are_counted_and_foreign_files_are_errors(embedded, proteins, tmp_path, find):
    fasta, other = tmp_path / "few.fasta", tmp_path / "other.fasta"
    fasta.write_text("".join(f">a{number}\n{sequence}\n" for number, sequence in enumerate(proteins[:10])))
    other.write_text(">b\nMKTAYIAKQR\n")

    summary, rows = find(embedded, embedded, sequences=[fasta])

    assert any("30 of 40 proteins of the queries" in warning for warning in summary.warnings)
    assert sum(row["kmer_similarity"] != "" for row in rows) > 0
    with pytest.raises(InputError, match="none of its sequences is that of a protein of either side"):
        find(embedded, embedded, output="other.tsv", sequences=[other])


# Errors and the life of the table


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_sha256": "b" * 64, "model_name": "other"}, "the model was tiny, not other"),
        ({"layer": [1]}, "`layer` was 2, not 1"),
        ({"pooling": ["max"]}, "`pooling` was mean, not max"),
        ({"region": "1-70"}, "`region` was none, not 1-70"),
    ],
)
def test_sides_with_other_settings_are_refused_by_name(store, draw, find, changes, found):
    queries, database = store(draw(3), name="queries", **changes).path, store(draw(3), name="database").path

    with pytest.raises(VerificationError, match="cannot be compared with") as error:
        find(queries, database)

    assert found in str(error.value)


def test_the_same_weights_under_another_name_are_compared(store, draw, find):
    queries = store(draw(3), name="queries", model_name="/models/tiny").path

    summary, _ = find(queries, store(draw(3), name="database").path)

    assert summary.num_hits == 9


def test_vectors_of_another_width_are_refused(store, draw, find):
    queries = store(draw(3, dim=8), name="queries").path

    with pytest.raises(VerificationError, match="cannot be compared"):
        find(queries, store(draw(3), name="database").path)


def test_vectors_of_residues_and_changed_files_are_refused(store, draw, find):
    database, residues = store(draw(3), name="database").path, store(draw(3), name="residues", per_residue=True).path

    with pytest.raises(VerificationError, match="a vector per residue"):
        find(residues, database)
    np.save(database, draw(3, seed=5))
    with pytest.raises(VerificationError, match="hash differs"):
        find(database, database)


def test_a_side_without_proteins_is_refused(sides, store, find):
    empty = store(np.zeros((0, 16)), name="empty").path

    with pytest.raises(VerificationError, match="it has no proteins"):
        find(empty, sides[1])


def test_missing_sides_pipes_and_tables_of_other_formats_are_refused(sides, find, tmp_path):
    with pytest.raises(InputNotFoundError):
        find(tmp_path / "missing.npy", sides[1])
    with pytest.raises(InputError, match="reads its sides more than once"):
        find("-", sides[1])
    with pytest.raises(ConfigError, match="the table is text"):
        find(*sides, output="hits.npy")


def test_the_same_command_is_done_and_another_needs_force(sides, tmp_path):
    def run(**settings):
        return search_embeddings(*sides, SearchOptions.from_values(output=tmp_path / "hits.tsv", threads=1, **settings))

    first = run()
    table = (tmp_path / "hits.tsv").read_bytes()
    again = run()
    with pytest.raises(OutputExistsError, match="`num_neighbours` was 10, not 3"):
        run(num_neighbours=3)
    forced = run(num_neighbours=3, force=True)

    assert (first.was_done, again.was_done, forced.was_done) == (False, True, False)
    assert (first.num_hits, again.num_hits, forced.num_hits) == (120, 120, 36)
    assert first.median_cosine == again.median_cosine
    assert run(force=True).num_hits == 120
    assert (tmp_path / "hits.tsv").read_bytes() == table


def test_nothing_but_the_table_and_its_record_is_left(sides, find, tmp_path):
    find(*sides)

    assert sorted(path.name for path in tmp_path.glob("*hits*")) == ["hits.tsv", "hits.tsv.meta.json"]
    recorded = json.loads((tmp_path / "hits.tsv.meta.json").read_text())
    assert recorded["command"] == "search"
    assert recorded["num_hits"] == 120


# Approximate search


def test_an_approximate_search_measures_its_recall(store, draw, find):
    pytest.importorskip("faiss")
    database = store(draw(600)).path
    _, exact = find(database, database, num_neighbours=3)

    summary, rows = find(database, database, output="fast.tsv", num_neighbours=3, approximate=True)

    pairs = [{(row["query"], row["target"]) for row in table} for table in (exact, rows)]
    assert summary.recall >= 0.95
    assert len(pairs[0] & pairs[1]) >= 0.9 * len(pairs[0])
    cosines = {(row["query"], row["target"]): row["cosine"] for row in exact}
    assert all(cosines.get((row["query"], row["target"]), row["cosine"]) == row["cosine"] for row in rows)


def test_an_approximate_search_without_its_library_is_an_error(sides, find, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)

    with pytest.raises(ConfigError, match="it needs faiss"):
        find(*sides, approximate=True)
