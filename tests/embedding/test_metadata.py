import itertools
import json
from contextlib import suppress
from pathlib import Path

import pytest

from protembed.data.fasta import Record
from protembed.data.hashing import sequence_sha256
from protembed.embedding import metadata
from protembed.embedding.metadata import (
    IDS_HEADER,
    check_replaceable,
    finished_result,
    ids_line,
    publish,
    read_meta,
    sidecar,
)
from protembed.errors import OutputError, OutputExistsError
from protembed.io.reading import STANDARD_STREAM, sha256_of_file

FINGERPRINT = {
    "model_name": "tiny",
    "model_revision": None,
    "model_sha256": "abc",
    "input_sha256": "def",
    "on_illegal": "error",
    "long": "window",
    "window_residues": 1022,
    "shard": None,
    "per_residue": False,
    "layer": [2],
    "pooling": ["mean"],
    "slices": [{"pooling": "mean", "layer": 2, "start": 0, "stop": 3}],
    "precision": "float32",
    "dtype": "float32",
    "format": "npy",
    "dim": 3,
}
COUNTS = {"num_proteins": 2, "num_residues": 9, "num_windowed": 0, "num_refused": 0}
# The files of a result, in the order in which they are published.
NAMES = ("emb.ids.tsv", "emb.failed.tsv", "emb.npy", "emb.meta.json")


def contents(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


def finish(output, *, fingerprint=FINGERPRINT):
    output.write_bytes(b"vectors")
    ids = sidecar(output, ".ids.tsv")
    ids.write_text("\t".join(IDS_HEADER) + "\n0\n1\n")
    meta = {**COUNTS, **fingerprint, "ids_sha256": sha256_of_file(ids), "sha256": sha256_of_file(output)}
    sidecar(output, ".meta.json").write_text(json.dumps(meta))
    return meta


# Names and lines


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("emb.npy", "emb.ids.tsv"),
        ("emb.h5", "emb.h5.ids.tsv"),
        ("emb.tsv", "emb.tsv.ids.tsv"),
        ("emb.npz", "emb.npz.ids.tsv"),
        ("a.b.npy", "a.b.ids.tsv"),
        ("emb", "emb.ids.tsv"),
    ],
)
def test_sidecars_are_named_after_their_result(output, name):
    assert sidecar(Path("folder") / output, ".ids.tsv") == Path("folder") / name


@pytest.mark.parametrize(("num_windows", "agreement", "formatted"), [(1, None, ""), (3, 0.98765, "0.9877")])
def test_a_line_of_the_id_table_describes_its_row(num_windows, agreement, formatted):
    record = Record(row=5, id="p1", description="p1 of mouse", sequence="MXXKTA", path="x.fasta", line=2)

    line = dict(zip(IDS_HEADER, ids_line(1, record, num_windows, agreement), strict=True))

    assert line == {
        "row": 1,
        "id": "p1",
        "residues": 6,
        "windows": num_windows,
        "overlap_cosine": formatted,
        "unknown_residues": 2,
        "sha256": sequence_sha256("MXXKTA").hex(),
        "description": "p1 of mouse",
    }


# Already done


def test_a_finished_result_is_found_by_the_same_command(tmp_path):
    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) is None

    meta = finish(tmp_path / "emb.npy")

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) == meta == read_meta(tmp_path / "emb.npy")


def test_results_in_two_formats_have_separate_sidecars(tmp_path):
    finish(tmp_path / "emb.npy")
    finish(tmp_path / "emb.h5", fingerprint=FINGERPRINT | {"dtype": "float16"})

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT)
    assert finished_result(tmp_path / "emb.h5", FINGERPRINT | {"dtype": "float16"})


def flip_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "emb.meta.json").unlink(), "has no valid meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("{"), "has no valid meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("[]"), "has no valid meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_bytes(b"\xff"), "has no valid meta file beside it"),
        (lambda folder: flip_last_byte(folder / "emb.npy"), "emb.npy is missing or does not match"),
        (lambda folder: flip_last_byte(folder / "emb.ids.tsv"), "emb.ids.tsv is missing or does not match"),
        (lambda folder: (folder / "emb.ids.tsv").unlink(), "emb.ids.tsv is missing or does not match"),
    ],
    ids=["no meta", "incomplete meta", "unrelated meta", "binary meta", "flipped array", "flipped ids", "no ids"],
)
def test_an_incomplete_result_is_an_error(tmp_path, damage, reason):
    finish(tmp_path / "emb.npy")
    damage(tmp_path)

    with pytest.raises(OutputExistsError, match=f"emb.npy exists and {reason}.*`force`"):
        finished_result(tmp_path / "emb.npy", FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_sha256": "xyz"}, "was made with a different model_sha256;"),
        ({"dtype": "float16", "model_name": "x"}, "was made with a different model_name, dtype;"),
        ({"layer": 3}, "was made with a different layer;"),
        ({"input_sha256": None}, "was made with a different input_sha256;"),
    ],
)
def test_the_result_of_another_command_is_an_error_that_names_the_differences(tmp_path, change, reason):
    finish(tmp_path / "emb.npy")

    with pytest.raises(OutputExistsError, match=reason):
        finished_result(tmp_path / "emb.npy", FINGERPRINT | change)


def test_a_directory_is_not_replaced_by_a_result_even_with_force(tmp_path):
    (tmp_path / "emb.npy").mkdir()

    with pytest.raises(OutputExistsError, match=r"emb\.npy exists and is not a file.*`force` does not replace it"):
        check_replaceable(tmp_path / "emb.npy", [])
    check_replaceable(tmp_path / "another.npy", [])
    check_replaceable(STANDARD_STREAM, [])


def test_a_meta_file_without_vectors_is_not_a_result(tmp_path):
    finish(tmp_path / "emb.npy")
    (tmp_path / "emb.npy").unlink()

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) is None


# Publishing


def write_files(folder, *, version, without=()):
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if name not in without:
            (folder / name).write_text(f"{version} {name}")


def new_result(without=()):
    return {name: f"new {name}" for name in sorted(NAMES) if name not in without}


@pytest.mark.parametrize("without", [(), ("emb.failed.tsv",)], ids=["with refused records", "without"])
def test_publishing_replaces_an_older_result_with_all_its_sidecars(tmp_path, without):
    write_files(tmp_path, version="old")
    write_files(tmp_path / "emb.npy.partial", version="new", without=without)

    publish(tmp_path / "emb.npy.partial", tmp_path / "emb.npy")

    assert contents(tmp_path) == new_result(without)
    assert not (tmp_path / "emb.npy.partial").exists()


def test_publishing_moves_the_old_meta_file_first_and_the_new_one_last(tmp_path, monkeypatch):
    write_files(tmp_path, version="old")
    write_files(tmp_path / "emb.npy.partial", version="new")
    moved = []

    def move(source, target):
        assert not (tmp_path / "emb.meta.json").exists() or not moved
        moved.append(source.name if source.parent == tmp_path else target.name)
        source.replace(target)

    monkeypatch.setattr(metadata, "move_into_place", move)
    publish(tmp_path / "emb.npy.partial", tmp_path / "emb.npy")

    assert tuple(moved) == ("emb.meta.json", *NAMES[:3], *NAMES)


@pytest.mark.promise(5)
@pytest.mark.parametrize("without", [(), ("emb.failed.tsv",)], ids=["with refused records", "without"])
@pytest.mark.parametrize("is_moved", [False, True], ids=["before it is moved", "after"])
def test_a_failed_renaming_restores_the_older_result(tmp_path, monkeypatch, without, is_moved):
    partial, num_failed = tmp_path / "emb.npy.partial", 0
    for step in range(8):
        write_files(tmp_path, version="old")
        write_files(partial, version="new", without=without)
        steps = itertools.count()

        def move(source, target, steps=steps, step=step):
            fails = next(steps) == step
            if is_moved or not fails:
                source.replace(target)
            if fails:
                raise OutputError(str(target), "the disk is broken")

        with monkeypatch.context() as patches, suppress(OutputError):
            patches.setattr(metadata, "move_into_place", move)
            publish(partial, tmp_path / "emb.npy")
        if partial.exists():
            num_failed += 1
            assert contents(tmp_path) == {name: f"old {name}" for name in sorted(NAMES)}
            assert contents(partial) == new_result(without)
            publish(partial, tmp_path / "emb.npy")
        assert contents(tmp_path) == new_result(without)
    assert num_failed == 8 - len(without)


def interrupt_at(step, patches):
    """Interrupt the process instead of a step."""
    steps = itertools.count()

    def interruptible(function):
        def call(*arguments):
            if next(steps) == step:
                raise KeyboardInterrupt
            function(*arguments)

        return call

    for name in ("remove", "move_into_place"):
        patches.setattr(metadata, name, interruptible(getattr(metadata, name)))


@pytest.mark.promise(1)
@pytest.mark.parametrize("without", [(), ("emb.failed.tsv",)], ids=["with refused records", "without"])
@pytest.mark.parametrize("step", range(6))
def test_publishing_that_is_killed_at_any_step_is_completed_by_publishing_again(tmp_path, monkeypatch, without, step):
    partial, output = tmp_path / "emb.npy.partial", tmp_path / "emb.npy"
    write_files(tmp_path, version="old")
    write_files(partial, version="new", without=without)

    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        interrupt_at(step, patches)
        publish(partial, output)
    if (tmp_path / "emb.meta.json").exists():
        assert len({text.split()[0] for text in contents(tmp_path).values()}) == 1
    if (partial / "emb.meta.json").exists():
        publish(partial, output)

    assert contents(tmp_path) == new_result(without)


# Files that must not be replaced


@pytest.mark.parametrize("name", ["emb.ids.tsv", "emb.failed.tsv", "emb.meta.json"])
@pytest.mark.parametrize("content", ["precious", "{}", '{"num_proteins": 3}', "[" * 100_000])
def test_an_unknown_file_with_the_name_of_a_sidecar_is_never_replaced(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    with pytest.raises(OutputExistsError, match=f"{name} exists and was not written by protembed.*`force` does not"):
        check_replaceable(tmp_path / "emb.npy", [])


@pytest.mark.parametrize("name", ["emb.npy", "emb.ids.tsv", "emb.meta.json"])
def test_an_empty_file_may_be_replaced_by_a_result(tmp_path, name):
    (tmp_path / name).touch()

    check_replaceable(tmp_path / "emb.npy", [])


def test_the_files_of_an_earlier_result_may_be_replaced(tmp_path):
    finish(tmp_path / "emb.npy")
    (tmp_path / "emb.failed.tsv").write_text("file\tline\tid\treason\nx.fasta\t3\ta\tlong\n")

    check_replaceable(tmp_path / "emb.npy", [tmp_path / "seqs.fasta"])
    (tmp_path / "emb.npy").unlink()
    check_replaceable(tmp_path / "emb.npy", [])


@pytest.mark.parametrize("name", ["emb.npy", "emb.ids.tsv", "emb.meta.json"])
def test_an_input_is_never_replaced_even_through_a_link(tmp_path, name):
    (tmp_path / name).write_text(">a\nMKT\n")
    (tmp_path / "link.fasta").symlink_to(tmp_path / name)

    with pytest.raises(OutputExistsError, match=f"{name} exists and is an input"):
        check_replaceable(tmp_path / "emb.npy", [tmp_path / "link.fasta"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_proteins", "abc"),
        ("num_proteins", None),
        ("num_proteins", 12.5),
        ("num_residues", -1),
        ("shard", 5),
        ("shard", "9/3"),
        ("window_residues", 0),
        ("layer", 4),
        ("layer", []),
        ("pooling", "max"),
        ("slices", []),
        ("dtype", [1]),
        ("format", "exe"),
        ("model_name", 5),
        ("on_illegal", "boo"),
        ("precision", "float64"),
    ],
)
def test_a_meta_file_with_an_invalid_value_is_ignored(tmp_path, name, value):
    finish(tmp_path / "emb.npy", fingerprint=FINGERPRINT | {name: value})

    assert read_meta(tmp_path / "emb.npy") is None
