import io
import itertools
import json
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from protembed.data.fasta import Record, SkippedRecord
from protembed.data.hashing import sequence_sha256
from protembed.data.protein_rows import dataset_name
from protembed.embedding import formats, writer
from protembed.embedding.metadata import COMPANIONS, is_meta, read_meta
from protembed.embedding.writer import embedding_writer
from protembed.errors import NotFiniteError, OutputError, RecordError, RunMismatchError
from protembed.inference.embedding import Embedding
from protembed.io import growing, result
from protembed.io.reading import STANDARD_STREAM, sha256_of_file
from protembed.io.result import META, Result, sidecar

SEQUENCES = ("MKT", "MXXKTA", "M", "AY")
REFUSED = [SkippedRecord(id="=cmd()", path="folder/x.fasta", line=7, reason="'1' in column 4 is not an amino acid")]
RNG = np.random.default_rng(0)
PER_PROTEIN = RNG.normal(size=(4, 3)).astype(np.float32)
PER_RESIDUE = [RNG.normal(size=(len(sequence), 3)).astype(np.float32) for sequence in SEQUENCES]


def record(row):
    return Record(
        row=row, id=f"p{row}", description=f"p{row} of mouse", sequence=SEQUENCES[row], path="x.fasta", line=row + 1
    )


@dataclass(frozen=True)
class Kind:
    """A format of a result, per protein or per residue."""

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


def claim(output, fingerprint, *, force=False):
    described = Result(output, [], force=force, companions=COMPANIONS, is_record=is_meta)
    return described.claim(fingerprint)


@contextmanager
def embeddings_writer(output, fingerprint, **options):
    """Claim a result that is not finished, and open its writer."""
    with claim(output, fingerprint, **options) as claimed, embedding_writer(claimed, fingerprint) as writer:
        assert claimed.recorded is None
        yield writer


def finished_result(output, fingerprint):
    with claim(output, fingerprint) as claimed:
        return claimed.recorded


def partial_path(output):
    return output.with_name(f"{output.name}.partial")


def add(writer, kind, rows):
    for row in rows:
        embedding = Embedding(
            values=kind.vectors[row], num_windows=1 + row % 2, overlap_cosine=0.5 if row % 2 else None
        )
        writer.add(record(row), embedding)


def write(output, kind, *, num_proteins=4, refused=(), force=False, **changes):
    """Write a result, or its missing rest, in chunks of two proteins, as the command does."""
    fingerprint = kind.fingerprint(**changes)
    with claim(output, fingerprint, force=force) as claimed:
        if claimed.recorded is not None:
            return claimed.recorded
        with embedding_writer(claimed, fingerprint) as writer:
            for start in range(writer.num_committed, num_proteins, 2):
                add(writer, kind, range(start, min(start + 2, num_proteins)))
                writer.commit()
            return writer.publish(list(refused))


def interrupt(output, kind, *, force=False, **changes):
    """Commit two proteins, add another one, and be interrupted."""
    fingerprint = kind.fingerprint(**changes)
    with pytest.raises(KeyboardInterrupt), embeddings_writer(output, fingerprint, force=force) as writer:
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
def uninterrupted(tmp_path_factory):
    """Write a result without interruption, and return the contents of its files."""

    def make(kind, **options):
        folder = tmp_path_factory.mktemp("uninterrupted")
        write(kind.output(folder), kind, **options)
        return contents(folder)

    return make


@pytest.fixture(autouse=True)
def without_fsync(monkeypatch):
    """Skip fsync: the tests kill processes, not machines, so that written bytes are visible without it."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


# Round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npy_is_a_plain_array_in_input_order(tmp_path, dtype):
    write(tmp_path / "emb.npy", NPY, dtype=np.dtype(dtype).name)

    array = np.load(tmp_path / "emb.npy", allow_pickle=False)
    assert array.dtype == dtype
    assert np.array_equal(array, PER_PROTEIN.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_numbers_in_a_tsv_are_read_back_unchanged(tmp_path, dtype):
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
def test_npz_of_residues_contains_all_residues_with_offsets(tmp_path, dtype):
    write(tmp_path / "emb.npz", NPZ_RESIDUES, dtype=np.dtype(dtype).name)

    with np.load(tmp_path / "emb.npz", allow_pickle=False) as archive:
        embeddings, offsets = archive["embeddings"], archive["offsets"]
    assert offsets.tolist() == [0, 3, 9, 10, 12]
    assert (embeddings.shape, embeddings.dtype) == ((12, 3), dtype)
    assert np.array_equal(embeddings, np.vstack(PER_RESIDUE).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npz_of_proteins_contains_vectors_with_identifiers(tmp_path, dtype):
    write(tmp_path / "emb.npz", NPZ, dtype=np.dtype(dtype).name)

    with np.load(tmp_path / "emb.npz", allow_pickle=False) as archive:
        embeddings, ids = archive["embeddings"], archive["ids"]
    assert ids.tolist() == ["p0", "p1", "p2", "p3"]
    assert embeddings.dtype == dtype
    assert np.array_equal(embeddings, PER_PROTEIN.astype(dtype))


@every_kind
def test_a_result_without_proteins_is_complete(tmp_path, kind):
    write(kind.output(tmp_path), kind, num_proteins=0, refused=REFUSED)

    meta = finished_result(kind.output(tmp_path), kind.fingerprint())
    assert (meta["num_proteins"], meta["num_residues"], meta["num_refused"]) == (0, 0, 1)
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
def test_the_same_input_gives_the_same_bytes_and_no_other_files(tmp_path, kind, uninterrupted):
    write(kind.output(tmp_path / "new folder"), kind, refused=REFUSED)

    written = contents(tmp_path / "new folder")
    assert written == uninterrupted(kind, refused=REFUSED)
    stem = "emb" if kind is NPY else f"emb.{kind.format_name}"
    sidecars = [f"{stem}.failed.tsv", f"{stem}.ids.tsv", f"{stem}.meta.json"]
    assert list(written) == sorted([f"emb.{kind.format_name}", *sidecars])


@pytest.mark.promise(9)
def test_no_format_stores_the_time(tmp_path):
    write(tmp_path / "emb.h5", H5)
    write(tmp_path / "emb.npz", NPZ)

    with h5py.File(tmp_path / "emb.h5") as file:
        assert not any(h5py.h5g.get_objinfo(file[name].id).mtime for name in file)
    with zipfile.ZipFile(tmp_path / "emb.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# The files beside the vectors


@every_kind
def test_each_row_has_a_line_in_the_id_table(tmp_path, kind):
    write(kind.output(tmp_path), kind)

    header, *lines = table(sidecar(kind.output(tmp_path), ".ids.tsv"))
    assert header == "row id residues windows overlap_cosine unknown_residues sha256 description".split()
    assert lines[1] == ["2", "p1", "6", "2", "0.5000", "2", sequence_sha256("MXXKTA").hex(), "p1 of mouse"]
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]


@every_kind
def test_the_meta_file_contains_the_fingerprint_the_counts_and_the_hashes(tmp_path, kind):
    output = kind.output(tmp_path)

    meta = write(output, kind, refused=REFUSED)

    assert meta == read_meta(output)
    assert meta == {
        **kind.fingerprint(),
        "num_proteins": 4,
        "num_residues": 12,
        "num_windowed": 2,
        "num_refused": 1,
        "ids_sha256": sha256_of_file(sidecar(output, ".ids.tsv")),
        "sha256": sha256_of_file(output),
    }


def test_refused_records_are_listed_and_an_outdated_list_is_removed(tmp_path):
    write(tmp_path / "emb.npy", NPY, refused=REFUSED)
    assert table(tmp_path / "emb.failed.tsv") == [
        ["file", "line", "id", "reason"],
        ["x.fasta", "7", "'=cmd()", "'1' in column 4 is not an amino acid"],
    ]

    write(tmp_path / "emb.npy", NPY, force=True)
    assert not (tmp_path / "emb.failed.tsv").exists()


def test_results_of_two_formats_are_written_side_by_side(tmp_path):
    write(tmp_path / "emb.npy", NPY)
    write(tmp_path / "emb.h5", H5)

    assert finished_result(tmp_path / "emb.npy", NPY.fingerprint())
    assert finished_result(tmp_path / "emb.h5", H5.fingerprint())


# Errors


@every_kind
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_before_the_first_commit_leaves_no_file(tmp_path, kind, error):
    with pytest.raises(error), embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
        add(writer, kind, (0,))
        raise error

    assert names(tmp_path) == []


@pytest.mark.promise(5)
@every_kind
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_older_result_stays_unchanged_until_the_new_one_is_complete(tmp_path, kind, error):
    output = kind.output(tmp_path)
    write(output, kind, refused=REFUSED)
    before = contents(tmp_path)

    with pytest.raises(error), embeddings_writer(output, kind.fingerprint(model_name="other"), force=True) as writer:
        add(writer, kind, (1, 0))
        writer.commit()
        raise error

    shutil.rmtree(partial_path(output))
    assert contents(tmp_path) == before
    assert finished_result(output, kind.fingerprint())


@every_kind
def test_a_data_error_leaves_no_unfinished_result(tmp_path, kind):
    with (
        pytest.raises(RecordError),
        embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer,
    ):
        add(writer, kind, (0, 1))
        writer.commit()
        raise RecordError("x.fasta", 5, 3, "has no sequence", "complete or remove it")

    assert names(tmp_path) == []


@every_kind
def test_a_directory_that_cannot_be_created_is_an_output_error(tmp_path, kind):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError):
        write(kind.output(tmp_path / "file"), kind)


@pytest.mark.promise(5)
@every_kind
def test_a_full_disk_keeps_committed_proteins(tmp_path, kind, uninterrupted, monkeypatch):
    def fill_up(stream):
        raise OSError(28, "disk full")

    with monkeypatch.context() as patches, pytest.raises(OutputError, match=r"emb\..*disk full"):
        with embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
            add(writer, kind, (0, 1))
            writer.commit()
            patches.setattr("protembed.io.growing.flush_to_disk", fill_up)
            add(writer, kind, (2,))
            writer.commit()

    with embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer:
        assert writer.num_committed == 2
        add(writer, kind, (2, 3))
        writer.publish([])
    assert contents(tmp_path) == uninterrupted(kind)


@every_kind
def test_unfinished_files_that_were_removed_are_an_output_error(tmp_path, kind):
    with (
        pytest.raises(OutputError, match=r"cannot write .*emb\..* \(No such file or directory\)"),
        embeddings_writer(kind.output(tmp_path), kind.fingerprint()) as writer,
    ):
        add(writer, kind, (0, 1))
        writer.commit()
        shutil.rmtree(tmp_path / f"{kind.output(tmp_path).name}.partial")
        writer.publish([])


# Resuming


@every_kind
def test_an_interrupted_result_is_resumed_after_the_last_committed_protein(tmp_path, kind, uninterrupted):
    output = kind.output(tmp_path)
    interrupt(output, kind)
    assert names(tmp_path) == [f"{output.name}.partial"]

    with embeddings_writer(output, kind.fingerprint()) as writer:
        assert writer.num_committed == 2
        add(writer, kind, (2, 3))
        meta = writer.publish(REFUSED)

    assert contents(tmp_path) == uninterrupted(kind, refused=REFUSED)
    assert meta == read_meta(output)


@every_kind
def test_bytes_written_after_the_last_commit_are_cut_off(tmp_path, kind, uninterrupted):
    interrupt(kind.output(tmp_path), kind)
    partial = partial_path(kind.output(tmp_path))
    sizes = json.loads((partial / "progress.json").read_text())["bytes"].values()
    growing = [path for path in partial.iterdir() if path.suffix != ".json"]
    assert sorted(sizes) < sorted(path.stat().st_size for path in growing)
    for path in growing:
        with path.open("ab") as stream:
            stream.write(b"\x00incomplete")

    write(kind.output(tmp_path), kind)

    assert contents(tmp_path) == uninterrupted(kind)


@every_kind
def test_a_repeatedly_interrupted_result_has_the_same_bytes(tmp_path, kind, uninterrupted):
    output = kind.output(tmp_path)
    for row in range(4):
        with pytest.raises(KeyboardInterrupt), embeddings_writer(output, kind.fingerprint()) as writer:
            assert writer.num_committed == row
            add(writer, kind, (row,))
            writer.commit()
            raise KeyboardInterrupt

    write(output, kind)

    assert contents(tmp_path) == uninterrupted(kind)


# All calls that change files of a result: a process may be killed before each of them.
STEPS = [
    *((growing, name) for name in ("flush_to_disk", "write_json")),
    (writer, "write_table"),
    *((formats, name) for name in ("make_tsv", "make_npz", "make_h5")),
    *((result, name) for name in ("write_json", "sha256_of_file", "move_into_place", "discard")),
]


def interrupt_at(step, patches, folder, copy):
    """Interrupt the process instead of a step, and copy the files that a kill would leave."""
    steps = itertools.count()

    def interruptible(function):
        def call(*arguments, **options):
            if next(steps) == step:
                shutil.copytree(folder, copy)
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    for module, name in STEPS:
        patches.setattr(module, name, interruptible(getattr(module, name)))


def interruptions(tmp_path, monkeypatch, kind, **options):
    """Replace an older result, interrupted at each step; yield the directories after a kill and after an interrupt."""
    for step in itertools.count():
        folder, copy = tmp_path / f"interrupted {step}", tmp_path / f"killed {step}"
        write(kind.output(folder), kind, num_proteins=1, refused=REFUSED, model_name="older")
        with monkeypatch.context() as patches:
            interrupt_at(step, patches, folder, copy)
            try:
                write(kind.output(folder), kind, force=True, **options)
            except KeyboardInterrupt:
                yield from (copy, folder)
            else:
                assert step > 10
                return


every_result = pytest.mark.parametrize(
    "options", [{"refused": REFUSED}, {}, {"num_proteins": 0}], ids=["refused records", "complete", "no proteins"]
)


@pytest.mark.promise(1)
@every_kind
@every_result
def test_a_result_that_is_killed_at_any_step_is_completed_by_the_same_command(
    tmp_path, kind, options, uninterrupted, monkeypatch
):
    expected = uninterrupted(kind, **options)

    for folder in interruptions(tmp_path, monkeypatch, kind, **options):
        write(kind.output(folder), kind, force=True, **options)
        assert contents(folder) == expected, folder.name


@pytest.mark.promise(1)
@every_kind
def test_after_a_kill_at_any_step_a_meta_file_always_matches_its_result(tmp_path, kind, monkeypatch):
    for folder in interruptions(tmp_path, monkeypatch, kind):
        output = kind.output(folder)
        if sidecar(output, META).exists():
            meta = read_meta(output)
            assert meta["sha256"] == sha256_of_file(output)
            assert meta["ids_sha256"] == sha256_of_file(sidecar(output, ".ids.tsv"))
            assert sidecar(output, ".failed.tsv").exists() == (meta["num_refused"] > 0)


def _raise_interrupt(*_):
    raise KeyboardInterrupt


def test_a_complete_result_is_published_only_by_the_same_command(tmp_path, monkeypatch):
    output = tmp_path / "emb.npy"
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(result, "move_into_place", _raise_interrupt)
        write(output, NPY)

    with pytest.raises(RunMismatchError):
        finished_result(output, NPY.fingerprint(model_name="other"))
    assert finished_result(output, NPY.fingerprint())


def test_the_unfinished_result_of_another_command_outlives_a_finished_one(tmp_path):
    write(tmp_path / "emb.npy", NPY)
    interrupt(tmp_path / "emb.npy", NPY, force=True, model_name="other")

    assert finished_result(tmp_path / "emb.npy", NPY.fingerprint())
    with embeddings_writer(tmp_path / "emb.npy", NPY.fingerprint(model_name="other"), force=True) as writer:
        assert writer.num_committed == 2


# Unfinished results of other commands


@pytest.mark.promise(8)
def test_an_unfinished_result_of_another_command_is_an_error_that_names_the_differences(tmp_path):
    interrupt(tmp_path / "emb.npy", NPY)
    before = contents(partial_path(tmp_path / "emb.npy"))

    reason = (
        r"emb\.npy\.partial was begun with other settings \(the model was tiny, not other; "
        r"`store_dtype` was float32, not float16\); run the first command again to resume it, .*`force`"
    )
    with pytest.raises(RunMismatchError, match=reason):
        write(tmp_path / "emb.npy", NPY, dtype="float16", model_name="other")

    assert contents(partial_path(tmp_path / "emb.npy")) == before


@every_kind
def test_force_replaces_an_unfinished_result_of_another_command(tmp_path, kind, uninterrupted):
    interrupt(kind.output(tmp_path), kind, model_name="other")

    with embeddings_writer(kind.output(tmp_path), kind.fingerprint(), force=True) as writer:
        assert writer.num_committed == 0
        add(writer, kind, range(4))
        writer.publish([])

    assert contents(tmp_path) == uninterrupted(kind)


def test_force_resumes_an_unfinished_result_of_the_same_command(tmp_path):
    interrupt(tmp_path / "emb.npy", NPY)

    with embeddings_writer(tmp_path / "emb.npy", NPY.fingerprint(), force=True) as writer:
        assert writer.num_committed == 2


@pytest.mark.parametrize("content", [None, b"", b'{"model'])
def test_an_unfinished_result_without_a_valid_fingerprint_is_replaced(tmp_path, content, uninterrupted):
    interrupt(tmp_path / "emb.npy", NPY)
    fingerprint = partial_path(tmp_path / "emb.npy") / "fingerprint.json"
    fingerprint.unlink() if content is None else fingerprint.write_bytes(content)

    write(tmp_path / "emb.npy", NPY)

    assert contents(tmp_path) == uninterrupted(NPY)


# Standard output


@pytest.mark.parametrize("kind", [NPY, NPZ, TSV, NPZ_RESIDUES], ids=str)
def test_stdout_receives_the_bytes_of_the_file_and_no_other_file_is_written(
    tmp_path, kind, uninterrupted, monkeypatch, capfdbinary
):
    monkeypatch.chdir(tmp_path)

    meta = write(STANDARD_STREAM, kind, refused=REFUSED)

    assert capfdbinary.readouterr().out == uninterrupted(kind)[f"emb.{kind.format_name}"]
    assert names(tmp_path) == []
    assert (meta["num_proteins"], meta["num_residues"], meta["num_windowed"], meta["num_refused"]) == (4, 12, 2, 1)


def test_lines_are_written_to_stdout_at_each_commit(capfdbinary):
    output = b""
    with embeddings_writer(STANDARD_STREAM, TSV.fingerprint()) as writer:
        assert writer.num_committed == 0
        for row in range(4):
            add(writer, TSV, (row,))
            writer.commit()
            output += capfdbinary.readouterr().out
            assert output.count(b"\n") == row + 2
        writer.publish([])


def test_a_tsv_without_proteins_on_stdout_is_only_a_header(capfdbinary):
    write(STANDARD_STREAM, TSV, num_proteins=0)

    assert capfdbinary.readouterr().out == b"id\tdim_1\tdim_2\tdim_3\n"


@pytest.mark.parametrize("kind", [NPY, NPZ, NPZ_RESIDUES], ids=str)
def test_arrays_are_written_to_stdout_only_when_complete(kind, capfdbinary):
    with pytest.raises(KeyboardInterrupt), embeddings_writer(STANDARD_STREAM, kind.fingerprint()) as writer:
        add(writer, kind, (0, 1))
        writer.commit()
        raise KeyboardInterrupt

    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize(("number", "raised"), [(32, BrokenPipeError), (5, OutputError)])
@pytest.mark.parametrize("kind", [NPY, TSV], ids=str)
def test_writing_to_stdout_distinguishes_a_closed_pipe_from_a_write_error(kind, number, raised, monkeypatch):
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


# Vectors that must not be stored


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("number", "dtype", "advice"),
    [
        (np.nan, "float32", "the model itself"),
        (np.inf, "float32", "the model itself"),
        (7e4, "float16", "`store_dtype` float32"),
    ],
)
@pytest.mark.parametrize("kind", [NPY, NPZ_RESIDUES])
def test_vectors_with_infinities_or_nan_are_an_error_that_names_the_protein(tmp_path, kind, number, dtype, advice):
    vectors = np.full_like(kind.vectors[0], number)
    fingerprint = kind.fingerprint(dtype=dtype, precision="float32")

    with (
        pytest.raises(NotFiniteError, match=f"the vectors of 'p0' are not finite .* stored as {dtype}; .*{advice}"),
        embeddings_writer(kind.output(tmp_path), fingerprint) as writer,
    ):
        writer.add(record(0), Embedding(values=vectors))

    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_result_that_lost_bytes_is_started_over(tmp_path, uninterrupted):
    interrupt(tmp_path / "emb.npy", NPY)
    rows = tmp_path / "emb.npy.partial" / "emb.npy"
    rows.write_bytes(rows.read_bytes()[:128])

    write(tmp_path / "emb.npy", NPY)

    assert contents(tmp_path) == uninterrupted(NPY)
