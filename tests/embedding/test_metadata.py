import json
from pathlib import Path

import pytest

from protembed.data.fasta import Record
from protembed.data.hashing import sequence_sha256
from protembed.embedding.metadata import COMPANIONS, IDS_HEADER, ids_line, is_meta, read_meta
from protembed.errors import OutputExistsError, VerificationError
from protembed.io.reading import STANDARD_STREAM, sha256_of_file
from protembed.io.result import Result, sidecar

FINGERPRINT = {
    "model_name": "tiny",
    "model_revision": None,
    "model_sha256": "a" * 64,
    "input_sha256": "d" * 64,
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


def check_replaceable(output, inputs):
    """Describe a result, which checks that it may be written."""
    return Result(output, inputs, companions=COMPANIONS, is_record=is_meta)


def finished_result(output, fingerprint):
    with check_replaceable(output, []).claim(fingerprint) as claim:
        return claim.recorded


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
        (lambda folder: flip_last_byte(folder / "emb.npy"), "emb.npy is missing or does not match"),
        (lambda folder: flip_last_byte(folder / "emb.ids.tsv"), "emb.ids.tsv is missing or does not match"),
        (lambda folder: (folder / "emb.ids.tsv").unlink(), "emb.ids.tsv is missing or does not match"),
    ],
    ids=["no meta", "flipped array", "flipped ids", "no ids"],
)
def test_an_incomplete_result_is_an_error(tmp_path, damage, reason):
    finish(tmp_path / "emb.npy")
    damage(tmp_path)

    with pytest.raises(OutputExistsError, match=f"emb.npy exists and {reason}.*`force`"):
        finished_result(tmp_path / "emb.npy", FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_sha256": "b" * 64}, r"\(the model differs\)"),
        (
            {"dtype": "float16", "model_name": "x"},
            r"\(the model was tiny, not x; `store_dtype` was float32, not float16\)",
        ),
        ({"layer": [3], "slices": []}, r"\(`layer` was 2, not 3\)"),
        ({"input_sha256": None}, r"\(the input differs\)"),
        (
            {"pooling": ["mean", "max"], "per_residue": True},
            r"`per_residue` was off, not on; `pooling` was mean, not mean,max",
        ),
        ({"protembed_version": "9.9"}, r"\(the version of protembed was none, not 9.9\)"),
        ({"region": "1-70"}, r"\(`region` was none, not 1-70\)"),
    ],
)
def test_the_result_of_another_command_is_an_error_that_names_the_differences(tmp_path, change, reason):
    finish(tmp_path / "emb.npy")

    with pytest.raises(OutputExistsError, match=f"was made with other settings .*{reason}"):
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


# Files that must not be replaced


@pytest.mark.parametrize("name", ["emb.ids.tsv", "emb.failed.tsv", "emb.meta.json"])
@pytest.mark.parametrize("content", [b"precious", b"{}", b"[]", b"\xff", b'{"num_proteins": 3}', b"[" * 100_000])
def test_an_unknown_file_with_the_name_of_a_sidecar_is_never_replaced(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

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

    with pytest.raises(OutputExistsError, match=f"{name} exists and is read by this command"):
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

    with pytest.raises(VerificationError, match="emb.npy cannot be used: emb.meta.json is damaged"):
        read_meta(tmp_path / "emb.npy")


def test_a_file_that_is_no_result_is_named_as_such(proteins_fasta):
    with pytest.raises(VerificationError, match="proteins.fasta cannot be used: it is not a result of `embed`; embed"):
        read_meta(proteins_fasta)
