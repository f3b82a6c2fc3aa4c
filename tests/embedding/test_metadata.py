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
# What a result consists of, in the order in which it comes to its place.
NAMES = ("emb.ids.tsv", "emb.failed.tsv", "emb.npy", "emb.meta.json")


def contents(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


def finish(output, *, fingerprint=FINGERPRINT):
    output.write_bytes(b"vectors")
    ids = sidecar(output, ".ids.tsv")
    ids.write_text("\t".join(IDS_HEADER) + "\n0\n1\n")
    said = {**COUNTS, **fingerprint, "ids_sha256": sha256_of_file(ids), "sha256": sha256_of_file(output)}
    sidecar(output, ".meta.json").write_text(json.dumps(said))
    return said


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
def test_what_stands_beside_a_result_is_named_after_it(output, name):
    assert sidecar(Path("folder") / output, ".ids.tsv") == Path("folder") / name


@pytest.mark.parametrize(("num_windows", "agreement", "shown"), [(1, None, ""), (3, 0.98765, "0.9877")])
def test_each_row_has_a_line_that_says_what_it_is(num_windows, agreement, shown):
    record = Record(row=5, id="p1", description="p1 of mouse", sequence="MXXKTA", path="x.fasta", line=2)

    line = dict(zip(IDS_HEADER, ids_line(1, record, num_windows, agreement), strict=True))

    assert line == {
        "row": 1,
        "id": "p1",
        "residues": 6,
        "windows": num_windows,
        "overlap_cosine": shown,
        "unknown_residues": 2,
        "sha256": sequence_sha256("MXXKTA").hex(),
        "description": "p1 of mouse",
    }


# Already done


def test_the_very_same_command_is_already_done(tmp_path):
    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) is None

    said = finish(tmp_path / "emb.npy")

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) == said == read_meta(tmp_path / "emb.npy")


def test_results_of_two_formats_can_stand_side_by_side(tmp_path):
    finish(tmp_path / "emb.npy")
    finish(tmp_path / "emb.h5", fingerprint=FINGERPRINT | {"dtype": "float16"})

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT)
    assert finished_result(tmp_path / "emb.h5", FINGERPRINT | {"dtype": "float16"})


def flip_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "emb.meta.json").unlink(), "has no meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("{"), "has no meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_text("[]"), "has no meta file beside it"),
        (lambda folder: (folder / "emb.meta.json").write_bytes(b"\xff"), "has no meta file beside it"),
        (lambda folder: flip_last_byte(folder / "emb.npy"), "emb.npy is missing or does not match"),
        (lambda folder: flip_last_byte(folder / "emb.ids.tsv"), "emb.ids.tsv is missing or does not match"),
        (lambda folder: (folder / "emb.ids.tsv").unlink(), "emb.ids.tsv is missing or does not match"),
    ],
    ids=["no meta", "torn meta", "foreign meta", "binary meta", "flipped array", "flipped ids", "no ids"],
)
def test_a_result_that_is_not_whole_is_refused(tmp_path, damage, reason):
    finish(tmp_path / "emb.npy")
    damage(tmp_path)

    with pytest.raises(OutputExistsError, match=f"emb.npy exists and {reason}.*--force"):
        finished_result(tmp_path / "emb.npy", FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_sha256": "xyz"}, "was made with another model_sha256;"),
        ({"dtype": "float16", "model_name": "x"}, "was made with another model_name, dtype;"),
        ({"layer": 3}, "was made with another layer;"),
        ({"input_sha256": None}, "was made with another input_sha256;"),
    ],
)
def test_the_result_of_another_command_is_refused_by_the_names_of_its_changes(tmp_path, change, reason):
    finish(tmp_path / "emb.npy")

    with pytest.raises(OutputExistsError, match=reason):
        finished_result(tmp_path / "emb.npy", FINGERPRINT | change)


def test_a_folder_where_the_result_should_be_is_not_replaced_even_by_force(tmp_path):
    (tmp_path / "emb.npy").mkdir()

    with pytest.raises(OutputExistsError, match=r"emb\.npy exists and is not a file.*--force does not replace it"):
        check_replaceable(tmp_path / "emb.npy", [])
    check_replaceable(tmp_path / "another.npy", [])
    check_replaceable(STANDARD_STREAM, [])


def test_a_meta_file_alone_is_no_result(tmp_path):
    finish(tmp_path / "emb.npy")
    (tmp_path / "emb.npy").unlink()

    assert finished_result(tmp_path / "emb.npy", FINGERPRINT) is None


# Coming to its place


def lay_out(folder, *, version, without=()):
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if name not in without:
            (folder / name).write_text(f"{version} {name}")


def new_result(without=()):
    return {name: f"new {name}" for name in sorted(NAMES) if name not in without}


@pytest.mark.parametrize("without", [(), ("emb.failed.tsv",)], ids=["with refused records", "without"])
def test_a_published_result_replaces_an_older_one_with_all_that_stood_beside_it(tmp_path, without):
    lay_out(tmp_path, version="old")
    lay_out(tmp_path / "emb.npy.partial", version="new", without=without)

    publish(tmp_path / "emb.npy.partial", tmp_path / "emb.npy")

    assert contents(tmp_path) == new_result(without)
    assert not (tmp_path / "emb.npy.partial").exists()


def test_the_meta_file_comes_last_and_an_older_one_goes_first(tmp_path, monkeypatch):
    lay_out(tmp_path, version="old")
    lay_out(tmp_path / "emb.npy.partial", version="new")
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
def test_where_a_renaming_fails_the_older_result_is_in_its_place_again(tmp_path, monkeypatch, without, is_moved):
    partial, num_failed = tmp_path / "emb.npy.partial", 0
    for step in range(8):
        lay_out(tmp_path, version="old")
        lay_out(partial, version="new", without=without)
        steps = itertools.count()

        def move(source, target, steps=steps, step=step):
            is_time = next(steps) == step
            if is_moved or not is_time:
                source.replace(target)
            if is_time:
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


def die_at(step, patches):
    """Let the process die instead of the step with this number."""
    steps = itertools.count()

    def mortal(function):
        def call(*arguments):
            if next(steps) == step:
                raise KeyboardInterrupt
            function(*arguments)

        return call

    for name in ("remove", "move_into_place"):
        patches.setattr(metadata, name, mortal(getattr(metadata, name)))


@pytest.mark.promise(1)
@pytest.mark.parametrize("without", [(), ("emb.failed.tsv",)], ids=["with refused records", "without"])
@pytest.mark.parametrize("step", range(6))
def test_a_publishing_that_is_killed_anywhere_is_completed_by_another(tmp_path, monkeypatch, without, step):
    partial, output = tmp_path / "emb.npy.partial", tmp_path / "emb.npy"
    lay_out(tmp_path, version="old")
    lay_out(partial, version="new", without=without)

    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        die_at(step, patches)
        publish(partial, output)
    if (tmp_path / "emb.meta.json").exists():
        assert len({text.split()[0] for text in contents(tmp_path).values()}) == 1
    if (partial / "emb.meta.json").exists():
        publish(partial, output)

    assert contents(tmp_path) == new_result(without)


# What stands there and is not ours


@pytest.mark.parametrize("name", ["emb.ids.tsv", "emb.failed.tsv", "emb.meta.json"])
@pytest.mark.parametrize("content", ["precious", "{}", '{"num_proteins": 3}', "[" * 100_000])
def test_a_strangers_file_beside_a_result_is_never_replaced(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    with pytest.raises(OutputExistsError, match=f"{name} exists and was not written by protembed.*--force does not"):
        check_replaceable(tmp_path / "emb.npy", [])


@pytest.mark.parametrize("name", ["emb.npy", "emb.ids.tsv", "emb.meta.json"])
def test_an_empty_file_makes_room_for_a_result(tmp_path, name):
    (tmp_path / name).touch()

    check_replaceable(tmp_path / "emb.npy", [])


def test_what_is_left_of_a_result_of_ours_may_be_replaced(tmp_path):
    finish(tmp_path / "emb.npy")
    (tmp_path / "emb.failed.tsv").write_text("file\tline\tid\treason\nx.fasta\t3\ta\tlong\n")

    check_replaceable(tmp_path / "emb.npy", [tmp_path / "seqs.fasta"])
    (tmp_path / "emb.npy").unlink()
    check_replaceable(tmp_path / "emb.npy", [])


@pytest.mark.parametrize("name", ["emb.npy", "emb.ids.tsv", "emb.meta.json"])
def test_an_input_is_never_replaced_under_whatever_name(tmp_path, name):
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
def test_a_meta_file_with_an_absurd_value_says_nothing(tmp_path, name, value):
    finish(tmp_path / "emb.npy", fingerprint=FINGERPRINT | {name: value})

    assert read_meta(tmp_path / "emb.npy") is None
