import io
import itertools
import json
import shutil
import zipfile
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from protembed.data.fasta import Record, SkippedRecord
from protembed.data.hashing import sequence_sha256
from protembed.embedding import metadata, writer
from protembed.embedding.formats import dataset_name
from protembed.embedding.metadata import finished_result, read_meta, sidecar
from protembed.embedding.writer import (
    clean_up,
    embeddings_writer,
    finish_interrupted,
    unfinished,
)
from protembed.errors import NotFiniteError, OutputError, OutputExistsError, RecordError
from protembed.io.reading import STANDARD_STREAM, sha256_of_file

SEQUENCES = ("MKT", "MXXKTA", "M", "AY")
REFUSED = [SkippedRecord(id="=cmd()", path="folder/x.fasta", line=7, reason="'1' in column 4 is no amino acid")]
RNG = np.random.default_rng(0)
PER_PROTEIN = RNG.normal(size=(4, 3)).astype(np.float32)
PER_RESIDUE = [RNG.normal(size=(len(sequence), 3)).astype(np.float32) for sequence in SEQUENCES]


def record(row):
    return Record(
        row=row, id=f"p{row}", description=f"p{row} of mouse", sequence=SEQUENCES[row], path="x.fasta", line=row + 1
    )


@dataclass(frozen=True)
class Kind:
    """A way to store vectors."""

    format_name: str
    per_residue: bool = False

    def __str__(self):
        return f"{self.format_name}{' per residue' if self.per_residue else ''}"

    def output(self, folder):
        return folder / f"emb.{self.format_name}"

    def fingerprint(self, **changes):
        pooling = None if self.per_residue else "mean"
        return {
            "model_name": "tiny",
            "model_revision": None,
            "model_sha256": "abc",
            "input_sha256": "def",
            "on_illegal": "error",
            "long": "window",
            "window_residues": 1022,
            "shard": None,
            "per_residue": self.per_residue,
            "layer": [2],
            "pooling": None if self.per_residue else ["mean"],
            "precision": "float32",
            "slices": [{"pooling": pooling, "layer": 2, "start": 0, "stop": 3}],
            "dtype": "float32",
            "format": self.format_name,
            **({"h5_names": "hash"} if self.format_name == "h5" else {}),
            "dim": 3,
        } | changes

    @property
    def vectors(self):
        return PER_RESIDUE if self.per_residue else PER_PROTEIN


NPY, NPZ, TSV = Kind("npy"), Kind("npz"), Kind("tsv")
NPZ_RESIDUES, H5 = Kind("npz", per_residue=True), Kind("h5", per_residue=True)
every_kind = pytest.mark.parametrize("kind", [NPY, NPZ, TSV, NPZ_RESIDUES, H5], ids=str)


def add(writer, kind, rows):
    for row in rows:
        writer.add(record(row), kind.vectors[row], num_windows=1 + row % 2, overlap_cosine=0.5 if row % 2 else None)


def write(output, kind, *, num_proteins=4, refused=(), force=False, **changes):
    """Write a result, or what is missing of it, as the command does: in chunks of two proteins."""
    with embeddings_writer(output, kind.fingerprint(**changes), force=force) as writer:
        for start in range(writer.num_committed, num_proteins, 2):
            add(writer, kind, range(start, min(start + 2, num_proteins)))
            writer.commit()
        return writer.finish(list(refused))


def leave(output, kind, **changes):
    """Commit two proteins, write half of a third, and be interrupted."""
    with pytest.raises(KeyboardInterrupt), embeddings_writer(output, kind.fingerprint(**changes)) as writer:
        add(writer, kind, (0, 1))
        writer.commit()
        add(writer, kind, (3,))
        raise KeyboardInterrupt


def table(path):
    return [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in names(folder)}


@pytest.fixture
def undisturbed(tmp_path_factory):
    """Write the result that a disturbed writing must come to, and return its files."""

    def make(kind, **options):
        folder = tmp_path_factory.mktemp("undisturbed")
        write(kind.output(folder), kind, **options)
        return contents(folder)

    return make


@pytest.fixture(autouse=True)
def unflushed(monkeypatch):
    """A process dies here, never the machine: what was written is seen without waiting for a disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


# Round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npy_is_a_plain_array_in_the_order_of_the_input(tmp_path, dtype):
    write(tmp_path / "emb.npy", NPY, dtype=np.dtype(dtype).name)

    array = np.load(tmp_path / "emb.npy", allow_pickle=False)
    assert array.dtype == dtype
    assert np.array_equal(array, PER_PROTEIN.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tsv_reads_back_as_the_same_numbers(tmp_path, dtype):
    write(tmp_path / "emb.tsv", TSV, dtype=np.dtype(dtype).name)

    header, *rows = table(tmp_path / "emb.tsv")
    assert header == ["id", "dim_1", "dim_2", "dim_3"]
    assert [row[0] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert np.array_equal(np.array([row[1:] for row in rows], dtype=dtype), PER_PROTEIN.astype(dtype))
    assert (PER_PROTEIN < 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_h5_has_a_dataset_per_protein_named_after_its_sequence(tmp_path, dtype):
    write(tmp_path / "emb.h5", H5, dtype=np.dtype(dtype).name)

    with h5py.File(tmp_path / "emb.h5") as file:
        assert file.attrs["model_name"] == "tiny"
        assert len(file) == 4
        for row, (sequence, vectors) in enumerate(zip(SEQUENCES, PER_RESIDUE, strict=True)):
            dataset = file[dataset_name(sequence)]
            assert (dataset.attrs["original_id"], dataset.attrs["row"]) == (f"p{row}", row + 1)
            assert dataset.dtype == dtype
            assert np.array_equal(dataset, vectors.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npz_holds_all_residues_one_after_the_other_with_offsets(tmp_path, dtype):
    write(tmp_path / "emb.npz", NPZ_RESIDUES, dtype=np.dtype(dtype).name)

    with np.load(tmp_path / "emb.npz", allow_pickle=False) as archive:
        embeddings, offsets = archive["embeddings"], archive["offsets"]
    assert offsets.tolist() == [0, 3, 9, 10, 12]
    assert (metadata.shape, metadata.dtype) == ((12, 3), dtype)
    assert np.array_equal(embeddings, np.vstack(PER_RESIDUE).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npz_of_proteins_holds_a_row_for_each_and_its_identifier(tmp_path, dtype):
    write(tmp_path / "emb.npz", NPZ, dtype=np.dtype(dtype).name)

    with np.load(tmp_path / "emb.npz", allow_pickle=False) as archive:
        embeddings, ids = archive["embeddings"], archive["ids"]
    assert ids.tolist() == ["p0", "p1", "p2", "p3"]
    assert metadata.dtype == dtype
    assert np.array_equal(embeddings, PER_PROTEIN.astype(dtype))


@every_kind
def test_a_result_without_proteins_is_whole(tmp_path, kind):
    write(kind.output(tmp_path), kind, num_proteins=0, refused=REFUSED)

    said = finished_result(kind.output(tmp_path), kind.fingerprint())
    assert (said["num_proteins"], said["num_residues"], said["num_refused"]) == (0, 0, 1)
    assert len(table(sidecar(kind.output(tmp_path), ".ids.tsv"))) == 1
    match kind:
        case Kind("npy"):
            assert np.load(tmp_path / "emb.npy").shape == (0, 3)
        case Kind("npz"):
            with np.load(tmp_path / "emb.npz") as archive:
                assert archive["embeddings"].shape == (0, 3)
                assert archive["offsets" if kind.per_residue else "ids"].tolist() == ([0] if kind.per_residue else [])
        case Kind("h5"):
            with h5py.File(tmp_path / "emb.h5") as file:
                assert len(file) == 0
        case Kind("tsv"):
            assert table(tmp_path / "emb.tsv") == [["id", "dim_1", "dim_2", "dim_3"]]


@every_kind
def test_the_same_input_gives_the_same_bytes_and_nothing_else(tmp_path, kind, undisturbed):
    write(kind.output(tmp_path / "new folder"), kind, refused=REFUSED)

    written = contents(tmp_path / "new folder")
    assert written == undisturbed(kind, refused=REFUSED)
    stem = "emb" if kind is NPY else f"emb.{kind.format_name}"
    beside = [f"{stem}.failed.tsv", f"{stem}.ids.tsv", f"{stem}.meta.json"]
    assert list(written) == sorted([f"emb.{kind.format_name}", *beside])


@pytest.mark.promise(9)
def test_no_format_keeps_the_time(tmp_path):
    write(tmp_path / "emb.h5", H5)
    write(tmp_path / "emb.npz", NPZ)

    with h5py.File(tmp_path / "emb.h5") as file:
        assert not any(h5py.h5g.get_objinfo(file[name].id).mtime for name in file)
    with zipfile.ZipFile(tmp_path / "emb.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# What stands beside the vectors


@every_kind
def test_each_row_has_a_line_that_says_what_it_is(tmp_path, kind):
    write(kind.output(tmp_path), kind)

    header, *lines = table(sidecar(kind.output(tmp_path), ".ids.tsv"))
    assert header == "row id residues windows overlap_cosine unknown_residues sha256 description".split()
    assert lines[1] == ["2", "p1", "6", "2", "0.5000", "2", sequence_sha256("MXXKTA").hex(), "p1 of mouse"]
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]


@every_kind
def test_the_meta_file_says_what_made_the_result_and_its_hash(tmp_path, kind):
    output = kind.output(tmp_path)

    said = write(output, kind, refused=REFUSED)

    assert said == read_meta(output)
    assert said == {
        **kind.fingerprint(),
        "num_proteins": 4,
        "num_residues": 12,
        "num_windowed": 2,
        "num_refused": 1,
        "ids_sha256": sha256_of_file(sidecar(output, ".ids.tsv")),
        "sha256": sha256_of_file(output),
    }


def test_refused_records_are_listed_and_an_older_list_is_removed(tmp_path):
    write(tmp_path / "emb.npy", NPY, refused=REFUSED)
    assert table(tmp_path / "emb.failed.tsv") == [
        ["file", "line", "id", "reason"],
        ["x.fasta", "7", "'=cmd()", "'1' in column 4 is no amino acid"],
    ]

    write(tmp_path / "emb.npy", NPY)
    assert not (tmp_path / "emb.failed.tsv").exists()


def test_results_of_two_formats_are_written_side_by_side(tmp_path):
    write(tmp_path / "emb.npy", NPY)
    write(tmp_path / "emb.h5", H5)

    assert finished_result(tmp_path / "emb.npy", NPY.fingerprint())
    assert finished_result(tmp_path / "emb.h5", H5.fingerprint())


# Errors


@every_kind
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_ends_before_anything_was_safe_leaves_no_file(tmp_path, kind, error):
    with pytest.raises(error), embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
        add(writer, kind, (0,))
        raise error

    assert names(tmp_path) == []


@pytest.mark.promise(5)
@every_kind
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_older_result_stays_as_it_is_until_the_new_one_is_whole(tmp_path, kind, error):
    output = kind.output(tmp_path)
    write(output, kind, refused=REFUSED)
    before = contents(tmp_path)

    with pytest.raises(error), embeddings_writer(output, kind.fingerprint(model_name="other")) as writer:
        add(writer, kind, (1, 0))
        writer.commit()
        raise error

    shutil.rmtree(unfinished(output))
    assert contents(tmp_path) == before
    assert finished_result(output, kind.fingerprint())


@every_kind
def test_bad_data_leaves_nothing_to_take_up_since_mended_data_are_other_data(tmp_path, kind):
    with (
        pytest.raises(RecordError),
        embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer,
    ):
        add(writer, kind, (0, 1))
        writer.commit()
        raise RecordError("x.fasta", 5, 3, "has no sequence", "complete or remove it")

    assert names(tmp_path) == []


@every_kind
def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, kind):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError):
        write(kind.output(tmp_path / "file"), kind)


@pytest.mark.promise(5)
@every_kind
def test_a_disk_that_fills_up_keeps_what_was_safe(tmp_path, kind, undisturbed, monkeypatch):
    def fill_up(stream):
        raise OSError(28, "disk full")

    with monkeypatch.context() as patches, pytest.raises(OutputError, match=r"emb\..*disk full"):
        with embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
            add(writer, kind, (0, 1))
            writer.commit()
            patches.setattr(writer, "flush_growing", fill_up)
            add(writer, kind, (2,))
            writer.commit()

    with embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
        assert writer.num_committed == 2
        add(writer, kind, (2, 3))
        writer.finish([])
    assert contents(tmp_path) == undisturbed(kind)


# Taking up what was killed


@every_kind
def test_an_interrupted_result_is_taken_up_after_the_last_protein_that_was_safe(tmp_path, kind, undisturbed):
    output = kind.output(tmp_path)
    leave(output, kind)
    assert names(tmp_path) == [f"{output.name}.partial"]

    with embeddings_writer(output, kind.fingerprint()) as writer:
        assert writer.num_committed == 2
        add(writer, kind, (2, 3))
        said = writer.finish(REFUSED)

    assert contents(tmp_path) == undisturbed(kind, refused=REFUSED)
    assert said == read_meta(output)


@every_kind
def test_what_was_written_after_the_last_safe_protein_is_cut_off(tmp_path, kind, undisturbed):
    leave(kind.output(tmp_path), kind)
    partial = unfinished(kind.output(tmp_path))
    sizes = json.loads((partial / "progress.json").read_text())["bytes"].values()
    growing = [path for path in partial.iterdir() if path.suffix != ".json"]
    assert sorted(sizes) < sorted(path.stat().st_size for path in growing)
    for path in growing:
        with path.open("ab") as stream:
            stream.write(b"\x00torn")

    write(kind.output(tmp_path), kind)

    assert contents(tmp_path) == undisturbed(kind)


@every_kind
def test_a_result_that_is_interrupted_again_and_again_comes_to_the_same_bytes(tmp_path, kind, undisturbed):
    output = kind.output(tmp_path)
    for row in range(4):
        with pytest.raises(KeyboardInterrupt), embeddings_writer(output, kind.fingerprint()) as writer:
            assert writer.num_committed == row
            add(writer, kind, (row,))
            writer.commit()
            raise KeyboardInterrupt

    write(output, kind)

    assert contents(tmp_path) == undisturbed(kind)


# Every call by which a result comes to be: a process may die before each of them.
STEPS = [
    *((writer, name) for name in ("flush_growing", "write_json", "write_table", "sha256_of_file")),
    *((writer, name) for name in ("make_npz", "make_h5")),
    *((metadata, name) for name in ("remove", "move_into_place")),
]


def die_at(step, patches, folder, copy):
    """Let the process die instead of the step with this number, and copy what then lies on disk."""
    steps = itertools.count()

    def mortal(function):
        def call(*arguments, **options):
            if next(steps) == step:
                shutil.copytree(folder, copy)
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    for module, name in STEPS:
        patches.setattr(module, name, mortal(getattr(module, name)))


def deaths(tmp_path, monkeypatch, kind, **options):
    """Replace an older result by a new one, dying at each step; yield the folders that kills and interrupts leave."""
    for step in itertools.count():
        folder, copy = tmp_path / f"interrupted {step}", tmp_path / f"killed {step}"
        write(kind.output(folder), kind, num_proteins=1, refused=REFUSED, model_name="older")
        with monkeypatch.context() as patches:
            die_at(step, patches, folder, copy)
            try:
                write(kind.output(folder), kind, **options)
            except KeyboardInterrupt:
                yield from (copy, folder)
            else:
                assert step > 10
                return


every_result = pytest.mark.parametrize(
    "options", [{"refused": REFUSED}, {}, {"num_proteins": 0}], ids=["refused records", "whole", "no proteins"]
)


@pytest.mark.promise(1)
@every_kind
@every_result
def test_a_result_that_is_killed_at_any_step_is_completed_by_the_same_command(
    tmp_path, kind, options, undisturbed, monkeypatch
):
    expected = undisturbed(kind, **options)

    for folder in deaths(tmp_path, monkeypatch, kind, **options):
        output = kind.output(folder)
        if read_meta(output) and read_meta(output)["model_name"] == "tiny":
            clean_up(output, kind.fingerprint())
        elif not finish_interrupted(output, kind.fingerprint()):
            write(output, kind, force=True, **options)
        assert contents(folder) == expected, folder.name


@every_kind
@every_result
def test_a_result_that_is_killed_at_any_step_is_completed_by_a_writer_alone(
    tmp_path, kind, options, undisturbed, monkeypatch
):
    expected = undisturbed(kind, **options)

    for folder in deaths(tmp_path, monkeypatch, kind, **options):
        write(kind.output(folder), kind, **options)
        assert contents(folder) == expected, folder.name


@pytest.mark.promise(1)
@every_kind
def test_whatever_a_kill_leaves_a_meta_file_never_stands_beside_what_it_does_not_describe(tmp_path, kind, monkeypatch):
    for folder in deaths(tmp_path, monkeypatch, kind):
        output = kind.output(folder)
        said = read_meta(output)
        if said is not None:
            assert said["sha256"] == sha256_of_file(output)
            assert said["ids_sha256"] == sha256_of_file(sidecar(output, ".ids.tsv"))
            assert sidecar(output, ".failed.tsv").exists() == (said["num_refused"] > 0)


@every_kind
def test_a_folder_whose_removal_was_killed_halfway_is_no_hindrance(tmp_path, kind, undisturbed, monkeypatch):
    def remove_files_only(path):
        if not path.is_dir():
            path.unlink(missing_ok=True)

    with monkeypatch.context() as patches:
        patches.setattr(metadata, "remove", remove_files_only)
        write(kind.output(tmp_path / "result"), kind)
    left = set(names(unfinished(kind.output(tmp_path / "result"))))
    assert left
    for name in left:
        for number, removed in enumerate([{name}, left - {name}]):
            folder = shutil.copytree(tmp_path / "result", tmp_path / f"{name} {number}")
            for doomed in removed:
                (unfinished(kind.output(folder)) / doomed).unlink()

            write(kind.output(folder), kind)

            assert contents(folder) == undisturbed(kind)


def _raise_interrupt(*_):
    raise KeyboardInterrupt


def test_nothing_is_completed_that_another_command_left_or_that_is_not_whole(tmp_path, monkeypatch):
    output = tmp_path / "emb.npy"
    assert not finish_interrupted(output, NPY.fingerprint())
    leave(output, NPY)
    assert not finish_interrupted(output, NPY.fingerprint())

    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(metadata, "move_into_place", _raise_interrupt)
        write(output, NPY)
    assert not finish_interrupted(output, NPY.fingerprint(model_name="other"))
    assert finish_interrupted(output, NPY.fingerprint())


def test_leftovers_of_another_command_stay(tmp_path):
    leave(tmp_path / "emb.npy", NPY)

    clean_up(tmp_path / "emb.npy", NPY.fingerprint(model_name="other"))
    assert names(tmp_path) == ["emb.npy.partial"]

    clean_up(tmp_path / "emb.npy", NPY.fingerprint())
    assert names(tmp_path) == []


# What another command left


@pytest.mark.promise(8)
def test_an_unfinished_result_of_another_command_is_refused_by_the_names_of_its_differences(tmp_path):
    leave(tmp_path / "emb.npy", NPY)
    before = contents(unfinished(tmp_path / "emb.npy"))

    reason = r"emb\.npy\.partial exists and holds an unfinished result of another model_name, dtype;.*--force"
    with pytest.raises(OutputExistsError, match=reason):
        write(tmp_path / "emb.npy", NPY, dtype="float16", model_name="other")

    assert contents(unfinished(tmp_path / "emb.npy")) == before


@every_kind
def test_force_replaces_an_unfinished_result_of_another_command(tmp_path, kind, undisturbed):
    leave(kind.output(tmp_path), kind, model_name="other")

    with embeddings_writer(kind.output(tmp_path), kind.fingerprint(), force=True) as writer:
        assert writer.num_committed == 0
        add(writer, kind, range(4))
        writer.finish([])

    assert contents(tmp_path) == undisturbed(kind)


def test_force_takes_up_an_unfinished_result_of_the_same_command(tmp_path):
    leave(tmp_path / "emb.npy", NPY)

    with embeddings_writer(tmp_path / "emb.npy", NPY.fingerprint(), force=True) as writer:
        assert writer.num_committed == 2


@pytest.mark.parametrize("content", [None, b"", b'{"model'])
def test_a_folder_that_does_not_say_what_it_is_is_begun_anew(tmp_path, content, undisturbed):
    leave(tmp_path / "emb.npy", NPY)
    fingerprint = unfinished(tmp_path / "emb.npy") / "fingerprint.json"
    fingerprint.unlink() if content is None else fingerprint.write_bytes(content)

    write(tmp_path / "emb.npy", NPY)

    assert contents(tmp_path) == undisturbed(NPY)


# Standard output


@pytest.mark.parametrize("kind", [NPY, NPZ, TSV, NPZ_RESIDUES], ids=str)
def test_stdout_carries_the_bytes_of_the_file_and_has_nothing_beside_it(
    tmp_path, kind, undisturbed, monkeypatch, capfdbinary
):
    monkeypatch.chdir(tmp_path)

    said = write(STANDARD_STREAM, kind, refused=REFUSED)

    assert capfdbinary.readouterr().out == undisturbed(kind)[f"emb.{kind.format_name}"]
    assert names(tmp_path) == []
    assert (said["num_proteins"], said["num_residues"], said["num_windowed"], said["num_refused"]) == (4, 12, 2, 1)


def test_lines_reach_stdout_as_they_come(capfdbinary):
    seen = b""
    with embeddings_writer(STANDARD_STREAM, TSV.fingerprint()) as writer:
        assert writer.num_committed == 0
        for row in range(4):
            add(writer, TSV, (row,))
            writer.commit()
            seen += capfdbinary.readouterr().out
            assert seen.count(b"\n") == row + 2
        writer.finish([])


def test_a_table_without_proteins_is_a_header_on_stdout(capfdbinary):
    write(STANDARD_STREAM, TSV, num_proteins=0)

    assert capfdbinary.readouterr().out == b"id\tdim_1\tdim_2\tdim_3\n"


@pytest.mark.parametrize("kind", [NPY, NPZ, NPZ_RESIDUES], ids=str)
def test_arrays_reach_stdout_at_the_end_or_not_at_all(kind, capfdbinary):
    with pytest.raises(KeyboardInterrupt), embeddings_writer(STANDARD_STREAM, kind.fingerprint()) as writer:
        add(writer, kind, (0, 1))
        writer.commit()
        raise KeyboardInterrupt

    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize(("number", "raised"), [(32, BrokenPipeError), (5, OutputError)])
@pytest.mark.parametrize("kind", [NPY, TSV], ids=str)
def test_a_reader_of_stdout_that_left_is_told_apart_from_a_broken_stdout(kind, number, raised, monkeypatch):
    class Broken(io.RawIOBase):
        def write(self, _):
            raise OSError(number, "broken")

        def flush(self):
            raise OSError(number, "broken")

        def close(self):
            pass

    monkeypatch.setattr("sys.stdout", type("Stdout", (), {"buffer": Broken()}))

    with pytest.raises(raised):
        write(STANDARD_STREAM, kind)


# What must not be stored


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("number", "dtype", "advice"),
    [
        (np.nan, "float32", "the model itself"),
        (np.inf, "float32", "the model itself"),
        (7e4, "float16", "--store-dtype float32"),
    ],
)
@pytest.mark.parametrize("kind", [NPY, NPZ_RESIDUES])
def test_what_is_no_number_is_refused_by_name(tmp_path, kind, number, dtype, advice):
    vectors = np.full_like(kind.vectors[0], number)
    fingerprint = kind.fingerprint(dtype=dtype, precision="float32")

    with (
        pytest.raises(NotFiniteError, match=f"the vectors of 'p0' are not finite .* stored as {dtype}; .*{advice}"),
        embeddings_writer(kind.output(tmp_path), fingerprint) as writer,
    ):
        writer.add(record(0), vectors)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_else_made_is_never_removed(tmp_path):
    thesis = tmp_path / "emb.npy.partial" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")

    with (
        pytest.raises(OutputExistsError, match=r"emb\.npy\.partial exists and holds thesis\.txt.*--force does not"),
        embeddings_writer(tmp_path / "emb.npy", NPY.fingerprint(), force=True),
    ):
        pass
    writer.clean_up(tmp_path / "emb.npy", NPY.fingerprint())

    assert thesis.read_text() == "years of work"


def test_an_unfinished_result_that_lost_bytes_is_begun_anew(tmp_path, undisturbed):
    leave(tmp_path / "emb.npy", NPY)
    partial = tmp_path / "emb.npy.partial" / "emb.npy"
    partial.write_bytes(partial.read_bytes()[:128])

    write(tmp_path / "emb.npy", NPY)

    assert contents(tmp_path) == undisturbed(NPY)
