import h5py
import numpy as np
import pytest

from protembed.data.protein_rows import ProteinRows, RowGroup, dataset_name
from protembed.embedding.formats import choose_format, column_names, make_h5, make_npz, make_tsv, table_lines
from protembed.embedding.stored_vectors import StoredVectors
from protembed.errors import ConfigError, OutputError
from protembed.io.arrays import array_file
from protembed.io.reading import STANDARD_STREAM

HOSTILE = ("../../x", "=cmd()", "a\x1b[2Jb", "a/b", ".", "a\u202eb", "-1+1", "'", "a,b", '"', "é")
PER_PROTEIN = [("npy", False), ("npz", False), ("tsv", False), ("h5", False)]
ALL_FORMATS = [*PER_PROTEIN, ("npz", True), ("h5", True)]
every_format = pytest.mark.parametrize(("format_name", "per_residue"), ALL_FORMATS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hash_names(rows):
    """Invent a hash for each row as its dataset name; the third and the fourth have the same."""
    return {row: f"{min(row, 2) if row < 4 else row:064x}" for row in rows}


def make_vectors(ids, *, per_residue, dtype=np.float32):
    """Make random vectors for each identifier: one per protein, or 1, 2, 3 … per residue."""
    generator = np.random.default_rng(0)
    counts = [1 + row if per_residue else 1 for row in range(len(ids))]
    return [generator.normal(size=(count, 3)).astype(dtype) for count in counts]


def candidates(rows):
    """List the names that the dataset of each row may have in HDF5."""
    return {row: (f"{name}.{row + 1}", name) for row, name in hash_names(rows).items()}


def store(folder, format_name, ids, *, per_residue=False, dtype="float32", h5_names="hash", **options):
    """Store random vectors for the identifiers as the writer does; return the file and the vectors."""
    vectors = make_vectors(ids, per_residue=per_residue)
    result = folder / f"emb.{format_name}"
    rows = result if format_name == "npy" else folder / "rows.npy"
    with array_file(rows, (3,), dtype) as stream:
        for rows_of_protein in vectors:
            stream.append(rows_of_protein)
    groups = folder / "members.jsonl"
    fields = zip(ids, map(len, vectors), hash_names(range(len(ids))).values(), strict=True)
    groups.write_bytes(b"".join(RowGroup(*values).line() for values in fields))
    grown = ProteinRows(rows, groups, per_residue)
    if format_name == "tsv":
        make_tsv(result, grown, ["dim_1", "dim_2", "dim_3"])
    if format_name == "npz":
        make_npz(result, grown, **options)
    if format_name == "h5":
        make_h5(result, grown, "tiny", names=h5_names)
    return result, vectors


# Choosing a format


@pytest.mark.parametrize(
    ("name", "requested", "per_residue", "expected"),
    [
        ("x.npy", None, False, "npy"),
        ("x.tsv", None, False, "tsv"),
        ("x.npz", None, False, "npz"),
        ("x.h5", None, True, "h5"),
        ("x.h5", None, False, "h5"),
        ("x.npy", "npy", False, "npy"),
        ("-", None, True, "npz"),
        ("a.b.npz", None, True, "npz"),
        ("-", None, False, "npy"),
        ("-", "tsv", False, "tsv"),
        ("-", "npz", False, "npz"),
        ("-", "npz", True, "npz"),
        ("dataset_1.dat", "npy", False, "npy"),
        ("dataset_1.dat", "h5", True, "h5"),
    ],
)
def test_the_suffix_chooses_the_format_if_none_is_requested(tmp_path, name, requested, per_residue, expected):
    output = STANDARD_STREAM if name == "-" else tmp_path / name

    assert choose_format(output, requested, per_residue=per_residue) == expected


@pytest.mark.parametrize(
    ("name", "requested", "per_residue", "message"),
    [
        ("x.h5.gz", None, False, "output is .*, but one vector per protein is written as npy, npz, tsv or h5"),
        ("x.dat", None, False, "written as npy, npz, tsv or h5: name it, for example, x.npy"),
        ("x.csv", "tsv", False, "written as npy, npz, tsv or h5: name it, for example, x.tsv"),
        ("x", "npy", True, "written as npz or h5: name it, for example, x.npz"),
        ("x.npy", None, True, "output is .*, but one vector per residue is written as npz or h5"),
        ("x", None, False, "output is"),
        ("x.pt", None, False, "output is"),
        ("x.h5", "npz", True, "format is 'npz', but the suffix of 'x.h5' means h5"),
        ("x.dat", "npy", True, "output is"),
        ("x", "npy", False, "output is"),
        ("x.npy", "tsv", False, "format is .tsv., but the suffix of .x.npy. means npy"),
        ("-", "npy", True, "format is"),
        ("-", "h5", True, "HDF5 cannot be written to stdout"),
        ("-", "h5", False, "HDF5 cannot be written to stdout"),
    ],
)
def test_a_format_that_contradicts_the_suffix_or_the_vectors_is_a_usage_error(
    tmp_path, name, requested, per_residue, message
):
    output = STANDARD_STREAM if name == "-" else tmp_path / name

    with pytest.raises(ConfigError, match=message):
        choose_format(output, requested, per_residue=per_residue)


def test_a_directory_as_the_output_is_an_error_with_an_example(tmp_path):
    with pytest.raises(ConfigError, match=r"this is a directory: name a file, such as .*embeddings\.npy"):
        choose_format(tmp_path, None, per_residue=False)


def test_columns_of_several_layers_or_poolings_are_named_after_them():
    slices = [
        {"pooling": "mean", "layer": 3, "start": 0, "stop": 2},
        {"pooling": "mean", "layer": 6, "start": 2, "stop": 4},
        {"pooling": "std", "layer": 6, "start": 4, "stop": 5},
    ]

    assert column_names(slices[:1]) == ["dim_1", "dim_2"]
    assert column_names(slices) == [
        "mean_layer3_1",
        "mean_layer3_2",
        "mean_layer6_1",
        "mean_layer6_2",
        "std_layer6_1",
    ]


# Numbers as text


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_in_a_tsv_are_read_back_with_the_same_bits(dtype):
    extreme = np.array([[1 / 3, -0.0, 6e-8], [65504, np.nan, -np.inf]], np.float32).astype(dtype)

    lines = b"".join(table_lines("p", extreme)).decode().splitlines()

    numbers = np.array([line.split("\t")[1:] for line in lines], dtype=dtype)
    assert numbers.tobytes() == extreme.tobytes()


# Round trips


@every_format
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [0], []], ids=["all", "some", "first", "none"])
def test_vectors_of_selected_proteins_are_read_back_from_every_format(tmp_path, format_name, per_residue, dtype, rows):
    path, vectors = store(tmp_path, format_name, ["a", "b", "b", "c"], per_residue=per_residue, dtype=dtype)

    stored = StoredVectors(path, format_name, per_residue).read(candidates(rows))

    assert list(stored) == rows
    for row in rows:
        expected = vectors[row].astype(dtype)
        # A TSV does not record the dtype; its numbers are read as float32.
        assert np.array_equal(stored[row].astype(dtype), expected if per_residue else expected[0])


@every_format
@pytest.mark.parametrize("num_proteins", [0, 1, 5])
def test_proteins_are_counted_from_the_file_in_every_format(tmp_path, format_name, per_residue, num_proteins):
    path, _ = store(tmp_path, format_name, list("abcde")[:num_proteins], per_residue=per_residue)

    assert StoredVectors(path, format_name, per_residue).count() == num_proteins


@pytest.mark.parametrize(("format_name", "per_residue"), [pair for pair in ALL_FORMATS if pair[0] != "tsv"])
@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: b"hello", lambda content: content[: len(content) // 2]]
)
def test_a_damaged_result_raises_an_error_when_counted_or_read(tmp_path, format_name, per_residue, damage):
    path, _ = store(tmp_path, format_name, ["a", "b"], per_residue=per_residue)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises((OSError, ValueError, KeyError)):
        StoredVectors(path, format_name, per_residue).count()
    with pytest.raises((OSError, ValueError, KeyError)):
        StoredVectors(path, format_name, per_residue).read(candidates([0]))


@pytest.mark.parametrize("make", [make_npz, lambda target, rows: make_h5(target, rows, "tiny")])
def test_a_failed_conversion_leaves_no_file(tmp_path, make):
    path, _ = store(tmp_path, "npy", ["a", "b"])
    before = names(tmp_path)

    with pytest.raises(OutputError):
        make(path / "result", ProteinRows(path, tmp_path / "members.jsonl", per_residue=False))
    (tmp_path / "members.jsonl").write_text('["a", 1, "0"]\n["b"')
    with pytest.raises(ValueError):
        make(tmp_path / "result", ProteinRows(path, tmp_path / "members.jsonl", per_residue=False))

    assert names(tmp_path) == before


def test_dataset_names_are_those_that_biotrainer_looks_for():
    # The value of biotrainer 1.4's calculate_sequence_hash("MKT").
    assert dataset_name("MKT") == "885f21ab182dd8792f0445e12a7ff564bb97d3d72e66e88dd995539dfe49a219"


# Hostile identifiers


@pytest.mark.promise(17)
@every_format
def test_hostile_identifiers_create_no_files_and_keep_their_vectors(tmp_path, format_name, per_residue):
    (tmp_path / "folder").mkdir()
    path, vectors = store(tmp_path / "folder", format_name, HOSTILE, per_residue=per_residue)

    assert names(tmp_path) == ["folder"]
    assert StoredVectors(path, format_name, per_residue).count() == len(HOSTILE)
    stored = StoredVectors(path, format_name, per_residue).read(candidates(range(len(HOSTILE))))
    assert all(np.array_equal(np.atleast_2d(stored[row]), vectors[row]) for row in range(len(HOSTILE)))


def test_hostile_identifiers_are_escaped_in_a_tsv(tmp_path):
    path, _ = store(tmp_path, "tsv", HOSTILE)

    cells = [line.split("\t")[0] for line in path.read_text().splitlines()[1:]]
    assert cells[:6] == ["../../x", "'=cmd()", "a\\x1b[2Jb", "a/b", ".", "a\\u202eb"]
    assert all(cell.isprintable() and not cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_hostile_identifiers_are_stored_unchanged_in_h5_and_npz(tmp_path):
    path, _ = store(tmp_path, "h5", HOSTILE, per_residue=True)
    with h5py.File(path) as file:
        by_row = sorted(file.values(), key=lambda dataset: dataset.attrs["row"])
        assert [dataset.attrs["original_id"] for dataset in by_row] == list(HOSTILE)

    path, _ = store(tmp_path, "npz", HOSTILE)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["ids"].tolist() == list(HOSTILE)


def test_datasets_of_identical_sequences_are_named_with_their_row(tmp_path):
    path, _ = store(tmp_path, "h5", list("abcde"), per_residue=True)

    with h5py.File(path) as file:
        names_by_row = sorted(file, key=lambda name: file[name].attrs["row"])
    first = list(hash_names(range(5)).values())
    assert names_by_row == [*first[:3], f"{first[2]}.4", first[4]]


def test_datasets_are_named_by_unique_legal_identifiers_in_input_order(tmp_path):
    ids = ["z", "sp|P1|X", "twice", "a/b", "twice", ".", "a"]
    path, vectors = store(tmp_path, "h5", ids, h5_names="id")

    hashes = hash_names(range(len(ids)))
    with h5py.File(path) as file:
        assert list(file) == ["z", "sp|P1|X", hashes[2], hashes[3] + ".4", hashes[4], hashes[5], "a"]
        assert [dataset.attrs["original_id"] for dataset in file.values()] == ids
        assert [dataset.attrs["row"] for dataset in file.values()] == list(range(1, 8))
        np.testing.assert_array_equal(np.stack([dataset[:] for dataset in file.values()]), np.vstack(vectors))


def test_an_identifier_equal_to_the_hash_of_another_protein_does_not_replace_its_dataset(tmp_path):
    hashes = hash_names(range(3))
    path, vectors = store(tmp_path, "h5", [hashes[1], "a/b", "c"], h5_names="id")

    with h5py.File(path) as file:
        assert list(file) == [hashes[1], f"{hashes[1]}.2", "c"]
        np.testing.assert_array_equal(file[f"{hashes[1]}.2"], vectors[1][0])


def test_one_very_long_identifier_does_not_widen_the_others(tmp_path):
    ids = ["é" * 10_000, *(f"p{row}" for row in range(200))]
    path, vectors = store(tmp_path, "npz", ids, small_array=0)

    assert path.stat().st_size < 40_000
    with np.load(path, allow_pickle=False) as archive:
        offsets, letters = archive["id_offsets"], archive["ids_utf8"].tobytes()
        assert "ids" not in archive
    spans = zip(offsets[:-1], offsets[1:], strict=True)
    assert [letters[start:stop].decode() for start, stop in spans] == ids
    assert StoredVectors(path, "npz", False).count() == 201
    assert np.array_equal(StoredVectors(path, "npz", False).read(candidates([200]))[200], vectors[200][0])


@pytest.mark.promise(17)
def test_an_identifier_with_a_nul_is_escaped_in_h5(tmp_path):
    path, _ = store(tmp_path, "h5", ["a\x00b"], per_residue=True)

    with h5py.File(path) as file:
        assert file[hash_names([0])[0]].attrs["original_id"] == "a\\x00b"


def test_any_identifier_is_read_back_from_the_file_beside_growing_rows(tmp_path):
    path, _ = store(tmp_path, "npy", [*HOSTILE, "a\x00b", "a\\nb", "a\u2028b"])

    rows = ProteinRows(path, tmp_path / "members.jsonl", per_residue=False)
    assert [group.record_id for group in rows.groups()] == [
        *HOSTILE,
        "a\x00b",
        "a\\nb",
        "a\u2028b",
    ]
