import io
import itertools
import json
import zipfile

import h5py
import numpy as np
import pytest

from protembed.data.embeddings import choose_format, companion, embeddings_file, finished_result
from protembed.data.fasta import Record, RefusedRecord
from protembed.data.splits import sequence_sha256
from protembed.errors import ConfigError, OutputError, OutputExistsError
from protembed.inputs import STANDARD_STREAM, sha256_of_file

META = {"model_name": "tiny", "model_sha256": "abc", "input_sha256": "def", "dtype": "float32", "dim": 3}
FORMATS = ("npy", "tsv", "h5", "npz")
HOSTILE = ("../../x", "=cmd()", "a\x1b[2Jb", "a/b", ".", "a\u202eb", "-1+1", "'", "a,b", '"', "é")
SEQUENCES = ("MKT", "MXXKTA", "M", "AY")


def record(row, sequence="MKT", record_id=None, description=None):
    record_id = record_id or f"p{row}"
    description = description or f"{record_id} of mouse"
    return Record(row=row, id=record_id, description=description, sequence=sequence, path="x.fasta", line=row + 1)


RECORDS = [record(row, sequence) for row, sequence in enumerate(SEQUENCES)]
RNG = np.random.default_rng(0)
PER_PROTEIN = RNG.normal(size=(4, 3)).astype(np.float32)
PER_RESIDUE = [RNG.normal(size=(len(sequence), 3)).astype(np.float32) for sequence in SEQUENCES]


def vectors_for(format_name):
    return PER_RESIDUE if format_name in ("h5", "npz") else PER_PROTEIN


def write(output, records=RECORDS, *, meta=META, refused=(), format_name=None):
    format_name = format_name or output.suffix[1:]
    with embeddings_file(output, meta | {"format": format_name}, list(refused)) as vectors:
        for one, vector in zip(records, itertools.cycle(vectors_for(format_name)), strict=False):
            vectors.add(one, vector)


def table(path):
    return [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


def arrays(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Round trips


def test_npy_is_a_plain_array_in_the_order_of_the_input(tmp_path):
    write(tmp_path / "emb.npy")

    array = np.load(tmp_path / "emb.npy", allow_pickle=False)
    assert array.dtype == np.float32
    assert np.array_equal(array, PER_PROTEIN)


def test_tsv_reads_back_as_the_same_numbers(tmp_path):
    write(tmp_path / "emb.tsv")

    header, *rows = table(tmp_path / "emb.tsv")
    assert header == ["id", "dim_1", "dim_2", "dim_3"]
    assert [row[0] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert np.array_equal(np.array([row[1:] for row in rows], dtype=np.float32), PER_PROTEIN)
    assert (PER_PROTEIN < 0).any()


def test_h5_has_a_dataset_per_protein_named_by_its_row(tmp_path):
    write(tmp_path / "emb.h5")

    with h5py.File(tmp_path / "emb.h5") as file:
        assert file.attrs["model_name"] == "tiny"
        assert sorted(file) == ["0", "1", "2", "3"]
        for row, vectors in enumerate(PER_RESIDUE):
            assert file[str(row)].attrs["original_id"] == f"p{row}"
            assert file[str(row)].dtype == np.float32
            assert np.array_equal(file[str(row)], vectors)


def test_npz_holds_all_residues_one_after_the_other_with_offsets(tmp_path):
    write(tmp_path / "emb.npz")

    embeddings, offsets = arrays(tmp_path / "emb.npz").values()
    assert offsets.tolist() == [0, 3, 9, 10, 12]
    assert (embeddings.shape, embeddings.dtype) == ((12, 3), np.float32)
    assert all(map(np.array_equal, np.split(embeddings, offsets[1:-1]), PER_RESIDUE))


@pytest.mark.parametrize("format_name", FORMATS)
def test_numbers_can_be_stored_in_half_the_space(tmp_path, format_name):
    output = tmp_path / f"emb.{format_name}"
    write(output, meta=META | {"dtype": "float16"})

    expected = np.vstack(vectors_for(format_name)).astype(np.float16)
    match format_name:
        case "npy":
            stored = np.load(output)
        case "npz":
            stored = arrays(output)["embeddings"]
        case "h5":
            with h5py.File(output) as file:
                stored = np.vstack([file[str(row)] for row in range(4)])
        case "tsv":
            stored = np.array([row[1:] for row in table(output)[1:]], dtype=np.float16)
    assert stored.dtype == np.float16
    assert np.array_equal(stored, expected)


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_result_without_proteins_is_whole(tmp_path, format_name):
    write(tmp_path / f"emb.{format_name}", [], refused=[RefusedRecord(id="a", path="x", line=2, reason="bad")])

    if format_name == "npy":
        assert np.load(tmp_path / "emb.npy").shape == (0, 3)
    if format_name == "npz":
        assert arrays(tmp_path / "emb.npz")["offsets"].tolist() == [0]
    assert json.loads(companion(tmp_path / f"emb.{format_name}", ".meta.json").read_text())["num_proteins"] == 0


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_input_gives_the_same_bytes(tmp_path, format_name):
    for folder in ("one", "other"):
        write(tmp_path / folder / f"emb.{format_name}")

    stem = "emb" if format_name == "npy" else f"emb.{format_name}"
    assert names(tmp_path / "one") == sorted([f"emb.{format_name}", f"{stem}.ids.tsv", f"{stem}.meta.json"])
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_no_format_keeps_the_time(tmp_path):
    write(tmp_path / "emb.h5")
    write(tmp_path / "emb.npz")

    with h5py.File(tmp_path / "emb.h5") as file:
        assert not any(h5py.h5g.get_objinfo(file[name].id).mtime for name in file)
    with zipfile.ZipFile(tmp_path / "emb.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("format_name", ["npy", "tsv", "npz"])
def test_stdout_carries_the_bytes_of_the_file_and_has_nothing_beside_it(tmp_path, format_name, monkeypatch):
    write(tmp_path / f"emb.{format_name}")
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.chdir(tmp_path)
    before = names(tmp_path)

    write(STANDARD_STREAM, format_name=format_name)

    assert stdout.buffer.getvalue() == (tmp_path / f"emb.{format_name}").read_bytes()
    assert names(tmp_path) == before


def test_h5_cannot_go_to_stdout():
    with pytest.raises(ConfigError, match="HDF5 cannot be written to stdout"):
        write(STANDARD_STREAM, format_name="h5")


# What stands beside the array


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_row_has_a_line_that_says_what_it_is(tmp_path, format_name):
    write(tmp_path / f"emb.{format_name}")

    header, *lines = table(companion(tmp_path / f"emb.{format_name}", ".ids.tsv"))
    assert header == "row id residues windows overlap_cosine unknown_residues sha256 description".split()
    assert lines[1] == ["1", "p1", "6", "1", "", "2", sequence_sha256("MXXKTA").hex(), "p1 of mouse"]
    assert [line[0] for line in lines] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_meta_file_says_what_made_the_result_and_its_hash(tmp_path, format_name):
    output = tmp_path / f"emb.{format_name}"
    write(output)

    assert json.loads(companion(tmp_path / f"emb.{format_name}", ".meta.json").read_text()) == {
        **META,
        "num_proteins": 4,
        "num_residues": 12,
        "dim": 3,
        "num_refused": 0,
        "format": format_name,
        "sha256": sha256_of_file(output),
    }


def test_the_meta_file_comes_last_and_an_older_one_goes_first(tmp_path, monkeypatch):
    write(tmp_path / "emb.npy", RECORDS[:1])

    def fail(path, value):
        assert names(tmp_path) == ["emb.failed.tsv", "emb.ids.tsv", "emb.npy"]
        raise KeyboardInterrupt

    monkeypatch.setattr("protembed.data.embeddings.write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "emb.npy", refused=[RefusedRecord(id="a", path="x", line=2, reason="bad")])
    with pytest.raises(OutputExistsError, match="has no meta file"):
        finished_result(tmp_path / "emb.npy", META)


def test_refused_records_are_listed_and_an_older_list_is_removed(tmp_path):
    refused = [RefusedRecord(id="=cmd()", path="x.fasta", line=7, reason="'1' in column 4 is no amino acid")]

    write(tmp_path / "emb.npy", refused=refused)
    line = ["x.fasta", "7", "'=cmd()", "'1' in column 4 is no amino acid"]
    assert table(tmp_path / "emb.failed.tsv")[1] == line

    write(tmp_path / "emb.npy")
    assert not (tmp_path / "emb.failed.tsv").exists()


def test_results_of_two_formats_can_stand_side_by_side(tmp_path):
    write(tmp_path / "emb.npy")
    write(tmp_path / "emb.h5", meta=META | {"pooling": None})

    assert finished_result(tmp_path / "emb.npy", META)


# Failures


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_error_on_the_way_leaves_no_file(tmp_path, format_name):
    with (
        pytest.raises(ZeroDivisionError),
        embeddings_file(tmp_path / f"x.{format_name}", META | {"format": format_name}, []) as v,
    ):
        v.add(RECORDS[0], vectors_for(format_name)[0])
        raise ZeroDivisionError

    assert names(tmp_path) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_error_on_the_way_keeps_the_older_result(tmp_path, format_name):
    output = tmp_path / f"x.{format_name}"
    write(output, refused=[RefusedRecord(id="a", path="x", line=2, reason="bad")])
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    with pytest.raises(ZeroDivisionError), embeddings_file(output, META | {"format": format_name}, []) as vectors:
        vectors.add(RECORDS[1], vectors_for(format_name)[1])
        raise ZeroDivisionError

    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    assert finished_result(output, META)


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, format_name):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError):
        write(tmp_path / "file" / f"x.{format_name}")


# Hostile identifiers


@pytest.mark.parametrize("format_name", FORMATS)
def test_hostile_identifiers_stay_text(tmp_path, format_name):
    records = [record(row, record_id=name, description=f"{name}\t=x \x9b31m") for row, name in enumerate(HOSTILE)]
    output = tmp_path / "folder" / f"emb.{format_name}"
    write(output, records)

    ids = table(companion(output, ".ids.tsv"))[1:]
    shown = [line[1] for line in ids]
    assert names(tmp_path) == ["folder"]
    assert all(len(line) == 8 and line[0] == str(row) for row, line in enumerate(ids))
    assert all(cell.isprintable() for line in ids for cell in line)
    assert shown[:6] == ["../../x", "'=cmd()", "a\\x1b[2Jb", "a/b", ".", "a\\u202eb"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in shown)
    if format_name == "tsv":
        assert [row[0] for row in table(output)[1:]] == shown
    if format_name == "h5":
        with h5py.File(output) as file:
            assert [file[str(row)].attrs["original_id"] for row in range(len(HOSTILE))] == list(HOSTILE)


def test_an_identifier_with_a_nul_does_not_stop_h5(tmp_path):
    write(tmp_path / "emb.h5", [record(0, record_id="a\x00b")])

    with h5py.File(tmp_path / "emb.h5") as file:
        assert file["0"].attrs["original_id"].startswith("a")


# Choosing a format


@pytest.mark.parametrize(
    ("name", "requested", "per_residue", "expected"),
    [
        ("x.npy", None, False, "npy"),
        ("x.tsv", None, False, "tsv"),
        ("x.h5", None, True, "h5"),
        ("a.b.npz", None, True, "npz"),
        ("-", None, False, "npy"),
        ("-", "tsv", False, "tsv"),
        ("-", "npz", True, "npz"),
        ("x.dat", "npy", False, "npy"),
        ("x.npy", "tsv", False, "tsv"),
    ],
)
def test_the_name_chooses_the_format_where_none_was_requested(tmp_path, name, requested, per_residue, expected):
    output = STANDARD_STREAM if name == "-" else tmp_path / name

    assert choose_format(output, requested, per_residue=per_residue) == expected


@pytest.mark.parametrize(
    ("name", "requested", "per_residue", "message"),
    [
        ("x.h5", None, False, "--output is .*, but one vector per protein is written as npy or tsv"),
        ("x.npy", None, True, "--output is .*, but one vector per residue is written as h5 or npz"),
        ("x", None, False, "--output"),
        ("x.pt", None, False, "--output"),
        ("x.npy", "h5", False, "--format is 'h5'"),
        ("x.h5", "npy", True, "--format is 'npy'"),
        ("-", None, True, "--output"),
    ],
)
def test_a_format_that_does_not_fit_is_a_usage_error(tmp_path, name, requested, per_residue, message):
    output = STANDARD_STREAM if name == "-" else tmp_path / name

    with pytest.raises(ConfigError, match=message):
        choose_format(output, requested, per_residue=per_residue)


# Already done


def test_the_very_same_command_is_already_done(tmp_path):
    assert not finished_result(tmp_path / "emb.npy", META)

    write(tmp_path / "emb.npy")

    assert finished_result(tmp_path / "emb.npy", META)


def flip_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "emb.meta.json").unlink(), "has no meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("{"), "has no meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("[]"), "has no meta file beside it"),
        (lambda folder: flip_last_byte(folder / "emb.npy"), "does not match its meta file"),
    ],
    ids=["no meta", "torn meta", "foreign meta", "flipped array"],
)
def test_a_result_that_is_not_whole_is_refused(tmp_path, damage, reason):
    write(tmp_path / "emb.npy")
    damage(tmp_path)

    with pytest.raises(OutputExistsError, match=f"emb.npy exists and {reason}.*--force"):
        finished_result(tmp_path / "emb.npy", META)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_sha256": "xyz"}, "was made with another model_sha256"),
        ({"dtype": "float16", "model_name": "x"}, "was made with another model_name, dtype"),
        ({"layer": 3}, "was made with another layer"),
        ({"input_sha256": None}, "was made with another input"),
    ],
)
def test_the_result_of_another_command_is_refused_by_the_names_of_its_changes(tmp_path, change, reason):
    write(tmp_path / "emb.npy")

    with pytest.raises(OutputExistsError, match=reason):
        finished_result(tmp_path / "emb.npy", META | change)


def test_input_from_stdin_is_never_the_same(tmp_path):
    write(tmp_path / "emb.npy", meta=META | {"input_sha256": None})

    with pytest.raises(OutputExistsError, match="was made with another input"):
        finished_result(tmp_path / "emb.npy", META | {"input_sha256": None})
