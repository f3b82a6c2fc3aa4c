import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from protembed.callbacks import Callbacks
from protembed.config.common import ModelConfig
from protembed.config.embed import CheckConfig, CheckOptions, EmbedOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.metadata import IDS
from protembed.errors import ConfigError, InputNotFoundError, VerificationError
from protembed.io.result import META, sidecar
from protembed.model.checkpoint import new_checkpoint, save_checkpoint

KINDS = {
    "npy": {},
    "npz": {},
    "tsv": {},
    "residues.npz": {"per_residue": True},
    "h5": {},
    "residues.h5": {"per_residue": True},
}


@pytest.fixture
def embed(tmp_path, windowed_model, proteins_fasta):
    """Embed into `tmp_path / name` with a model whose window is 64 residues; return that path."""

    def run(name="emb.npy", fasta=proteins_fasta, model=windowed_model, **options):
        embed_fasta([fasta], EmbedOptions.from_values(model=model, output=tmp_path / name, **options))
        return tmp_path / name

    return run


@pytest.fixture
def check(windowed_model, proteins_fasta):
    """Check results against the forty proteins, or another input."""

    def run(*results, fasta=proteins_fasta, model=windowed_model, sample_size=20, seed=0):
        config = CheckConfig(sample_size=sample_size, seed=seed)
        return check_embeddings([*results, fasta], CheckOptions(model=ModelConfig(model=model), check=config))

    return run


@pytest.fixture
def failure(check):
    """Check a result that fails verification; return the message."""

    def run(*results, **options):
        with pytest.raises(VerificationError) as caught:
            check(*results, **options)
        assert caught.value.exit_status == 1
        return str(caught.value)

    return run


def change_meta(output, **changes):
    path = sidecar(output, META)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def accept_changes(output):
    """Write the hashes of the changed files into the meta file, as a careful forger would."""
    hashes = {"sha256": output, "ids_sha256": sidecar(output, IDS)}
    change_meta(output, **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in hashes.items()})


@pytest.fixture
def changed_fasta(proteins_fasta, tmp_path):
    """Write the forty records to a FASTA file after applying a function to their list."""

    def make(change):
        records = proteins_fasta.read_text().split(">")[1:]
        fasta = tmp_path / "changed.fasta"
        fasta.write_text("".join(f">{record}" for record in change(records)))
        return fasta

    return make


# Intact results


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("kind", "options"), KINDS.items(), ids=KINDS)
def test_an_intact_result_is_verified(embed, check, proteins, kind, options, dtype):
    output = embed(f"emb.{kind}", store_dtype=dtype, **options)

    summary = check(output)

    assert summary.results == [output]
    assert (summary.num_proteins, summary.num_residues) == (40, sum(map(len, proteins)))
    assert (summary.num_refused, summary.num_recomputed) == (0, 20)
    assert summary.worst_difference < (1e-4 if dtype == "float32" else 1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"layer": "all"},
        {"layer": "2,0", "pooling": "mean,max,cls"},
        {"long_proteins": "truncate"},
        {"long_proteins": "skip"},
        {"window_residues": 30},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"shard": "2/3"},
        {"per_residue": True, "format": "npz", "layer": "1,2"},
    ],
    ids=str,
)
def test_an_intact_result_is_verified_with_any_options(embed, check, options):
    output = embed("emb.npz" if options.get("per_residue") else "emb.npy", **options)

    summary = check(output, sample_size=1000)

    assert summary.num_recomputed == summary.num_proteins > 0


@pytest.mark.parametrize(("format_name", "per_residue"), [("npy", False), ("tsv", False), ("h5", True)])
def test_a_result_is_verified_under_a_name_without_its_format(embed, check, format_name, per_residue):
    output = embed("dataset_1.dat", format=format_name, per_residue=per_residue)

    assert check(output).num_recomputed == 20


@pytest.mark.parametrize("on_illegal", ["mask", "skip"])
def test_check_applies_the_on_illegal_policy_of_the_result(embed, check, tmp_path, on_illegal):
    fasta = tmp_path / "odd.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMK1\n>c x\ty\nMKVXJ\n>a\nMKV\n")

    summary = check(embed(fasta=fasta, on_illegal=on_illegal), fasta=fasta)

    assert (summary.num_proteins, summary.num_refused) == ((4, 0) if on_illegal == "mask" else (3, 1))


@pytest.mark.promise(17)
def test_hostile_identifiers_are_verified_in_every_format(embed, check, tmp_path):
    fasta = tmp_path / "hostile.fasta"
    fasta.write_text(">=cmd() \x1b[2J\nMKT\n>../../x é\nMKV\n>-1 \u202eevil\nMKL\n>'\" \u2028q\nMKA\n")

    for name in ("emb.npy", "emb.tsv", "emb.npz", "emb.h5"):
        assert check(embed(name, fasta=fasta), fasta=fasta).num_proteins == 4


@pytest.mark.parametrize("per_residue", [False, True])
def test_identifiers_that_name_groups_in_hdf5_are_found_by_their_hash(embed, check, tmp_path, per_residue):
    fasta = tmp_path / "groups.fasta"
    fasta.write_text(">.\nMKT\n>..\nMKV\n>a\nMKL\n>a/.\nMKA\n>a/b\nMKC\n>/\nMKD\n")

    assert check(embed("emb.h5", fasta=fasta, per_residue=per_residue), fasta=fasta).num_recomputed == 6


def test_check_reads_its_input_from_stdin_or_an_archive(embed, check, give_stdin, proteins_fasta, tmp_path):
    output = embed()
    archive = tmp_path / "proteins.fasta.gz"
    archive.write_bytes(gzip.compress(proteins_fasta.read_bytes()))

    assert check(output, fasta=archive).num_recomputed == 20
    give_stdin(archive.read_bytes())
    assert check(output, fasta=Path("-")).num_recomputed == 20


def test_a_result_moved_with_its_files_is_verified(embed, check, tmp_path):
    output = embed()
    (tmp_path / "moved").mkdir()
    for path in (output, sidecar(output, IDS), sidecar(output, META)):
        path.rename(tmp_path / "moved" / path.name)

    assert check(tmp_path / "moved" / "emb.npy").num_proteins == 40


@pytest.mark.parametrize("sample_size", [0, 1, 1000])
def test_the_sample_size_is_the_number_of_recomputed_vectors(embed, windowed_model, proteins_fasta, sample_size):
    computed = []

    summary = check_embeddings(
        [embed(), proteins_fasta],
        CheckOptions.from_values(model=windowed_model, sample_size=sample_size),
        Callbacks(on_progress=computed.append),
    )

    assert len(computed) == min(sample_size, 40)
    assert summary.num_recomputed == len(computed)
    assert (summary.worst_difference is None) == (sample_size == 0)


def test_a_shard_without_proteins_is_verified(embed, check, tmp_path):
    fasta = tmp_path / "long.fasta"
    fasta.write_text(f">a\nMKT\n>b\n{'MKTAYIAKQR' * 10}\n")

    summary = check(embed(fasta=fasta, long_proteins="skip", shard="2/2"), fasta=fasta)

    assert (summary.num_proteins, summary.num_refused, summary.num_recomputed) == (0, 1, 0)


# The files


@pytest.mark.parametrize(("kind", "options"), KINDS.items(), ids=KINDS)
def test_a_flipped_bit_fails_verification(embed, failure, kind, options):
    output = embed(f"emb.{kind}", **options)
    content = bytearray(output.read_bytes())
    content[len(content) // 2] ^= 1
    output.write_bytes(content)

    assert failure(output) == f"{output} is not verified: its hash differs from the one in its meta file"


def test_a_truncated_result_fails_verification(embed, failure):
    output = embed()
    output.write_bytes(output.read_bytes()[:-100])

    assert "its hash differs" in failure(output)


@pytest.mark.parametrize("change", [lambda text: text.replace("\t380\t", "\t381\t", 1), lambda text: text + "40\tx\n"])
def test_a_changed_line_of_the_id_table_fails_verification(embed, failure, change):
    output = embed()
    ids = sidecar(output, IDS)
    ids.write_text(change(ids.read_text()))

    assert "emb.ids.tsv is missing, or its hash differs" in failure(output)


def test_a_missing_id_table_fails_verification(embed, failure):
    output = embed()
    sidecar(output, IDS).unlink()

    assert "emb.ids.tsv is missing" in failure(output)


@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", '{"sha256": "abc"}', '{"slices": []}'])
def test_a_missing_or_invalid_meta_file_fails_verification(embed, failure, content):
    output = embed()
    sidecar(output, META).unlink()
    if content is not None:
        sidecar(output, META).write_text(content)

    assert f"emb.meta.json is {'missing' if content is None else 'damaged'}" in failure(output)


def test_the_meta_file_of_another_result_fails_verification(embed, failure):
    output, other = embed("emb.npy"), embed("other.npy", pooling="max")
    shutil.copy(sidecar(other, META), sidecar(output, META))

    assert "its hash differs from the one in its meta file" in failure(output)


@pytest.mark.parametrize(("kind", "options"), KINDS.items(), ids=KINDS)
def test_a_wrong_number_of_proteins_in_the_meta_file_fails_verification(embed, failure, kind, options):
    output = embed(f"emb.{kind}", **options)
    change_meta(output, num_proteins=41)

    assert "it contains 40 proteins, but its meta file records 41" in failure(output)


@pytest.mark.parametrize("kind", ["npy", "npz", "residues.npz", "residues.h5"])
def test_a_result_that_is_not_an_array_fails_verification(embed, failure, kind):
    output = embed(f"emb.{kind}", **KINDS[kind])
    output.write_bytes(b"not an array")
    accept_changes(output)

    assert "it cannot be read" in failure(output)


FALSE_STATEMENTS = {
    "slices": ({"slices": [{"pooling": "max", "layer": 0, "start": 0, "stop": 32}]}, "the slices or the dim"),
    "dim": ({"dim": 3}, "the slices or the dim"),
    "a missing layer": ({"layer": [99]}, "does not fit the model"),
    "an unknown pooling": ({"pooling": ["m"]}, "does not fit the model"),
    "residues": ({"num_residues": 5}, "which does not match its meta file"),
    "a list in place of a number": ({"window_residues": [64]}, "emb.meta.json is damaged"),
}


@pytest.mark.parametrize(("changes", "sentence"), FALSE_STATEMENTS.values(), ids=FALSE_STATEMENTS)
def test_a_false_statement_in_the_meta_file_fails_verification(embed, failure, changes, sentence):
    output = embed()
    change_meta(output, **changes)

    assert sentence in failure(output)


def test_a_fasta_file_may_have_the_suffix_tsv(embed, check, proteins_fasta, tmp_path):
    fasta = tmp_path / "proteins.tsv"
    fasta.write_bytes(proteins_fasta.read_bytes())

    assert check(embed("emb.tsv"), fasta=fasta).num_proteins == 40


def test_checking_a_missing_result_is_an_input_error_with_status_66(check, tmp_path):
    with pytest.raises(InputNotFoundError, match="this result does not exist") as caught:
        check(tmp_path / "emb.npy")

    assert caught.value.exit_status == 66


@pytest.mark.parametrize("names", [["emb.npy"], ["a.fasta"], ["emb.npy", "emb.h5"]])
def test_checking_without_a_result_or_without_fasta_is_a_usage_error(names):
    with pytest.raises(ConfigError, match="is expected, and then its FASTA") as caught:
        check_embeddings(list(map(Path, names)))

    assert caught.value.exit_status == 2


# The input


CHANGES = {
    "residue": (lambda records: [records[0], records[1].replace("\nM", "\nA", 1), *records[2:]], "row 2, "),
    "identifier": (lambda records: [records[0], "other" + records[1], *records[2:]], "row 2, "),
    "description": (lambda records: [records[0].replace("\n", " new\n", 1), *records[1:]], "row 1, "),
    "swapped": (lambda records: [*records[:5], records[6], records[5], *records[7:]], "row 6, "),
    "inserted": (lambda records: [*records[:3], "new\nMKT\n", *records[3:]], "row 4, "),
    "removed": (lambda records: [*records[:3], *records[4:]], "row 4, "),
    "one more": (lambda records: [*records, "new\nMKT\n"], "it ends before 'new', line "),
    "one fewer": (lambda records: records[:-1], "row 40 and those after it are not in the input"),
    "another": (lambda records: ["new\nMKT\n"], "row 1, "),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
def test_a_changed_input_fails_verification_and_its_row_is_named(embed, failure, changed_fasta, change, sentence):
    message = failure(embed(), fasta=changed_fasta(change))

    assert sentence in message
    assert "emb.npy is not verified" in message


def test_a_line_of_the_id_table_changed_together_with_its_hash_fails_verification(embed, failure):
    output = embed()
    ids = sidecar(output, IDS)
    ids.write_text(ids.read_text().replace("\t380\t", "\t381\t", 1))
    accept_changes(output)

    assert "row 1, " in failure(output)


def test_swapped_identifiers_fail_verification(embed, failure):
    output = embed()
    header, first, second, *rest = sidecar(output, IDS).read_text().splitlines(keepends=True)
    sidecar(output, IDS).write_text("".join([header, second, first, *rest]))
    accept_changes(output)

    assert "row 1, " in failure(output)


def test_a_result_of_an_earlier_version_with_rows_from_0_is_verified(embed, check):
    output = embed("emb.h5", h5_names="hash")
    header, *lines = sidecar(output, IDS).read_text().splitlines()
    earlier = [f"{row}\t{line.split(chr(9), 1)[1]}" for row, line in enumerate(lines)]
    sidecar(output, IDS).write_text("\n".join([header, *earlier]) + "\n")
    with h5py.File(output, "r+") as file:
        for dataset in file.values():
            dataset.attrs["row"] -= 1
    accept_changes(output)
    meta = json.loads(sidecar(output, META).read_text())
    del meta["h5_names"]
    sidecar(output, META).write_text(json.dumps(meta))

    assert check(output).num_proteins == 40


def test_a_wrong_number_of_refused_records_fails_verification(embed, failure, changed_fasta, proteins):
    output = embed(long_proteins="skip")
    more = changed_fasta(lambda records: [*records, f"long\n{proteins[0]}\n"])

    num_long = sum(len(sequence) > 64 for sequence in proteins)
    assert f"{num_long} records were left out, but {num_long + 1} records of its input should be" in failure(
        output, fasta=more
    )


# The model


def test_a_different_model_fails_verification(embed, failure, tmp_path, tiny_checkpoint):
    other = tmp_path / "other"
    save_checkpoint(new_checkpoint(tiny_checkpoint.encoder.shape, "gaussian", seed=1), other, "# other\n")

    message = failure(embed(), model=other)

    assert "it was made with a different model than other (the weights differ); name it with `model`" in message


def test_a_model_with_the_same_weights_and_another_name_is_accepted(embed, check, tiny_model):
    assert check(embed(), model=tiny_model).num_recomputed == 20


def test_without_its_model_a_result_is_verified_only_with_sample_size_0(embed, check, failure, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = embed()

    message = failure(output, model=None)
    assert (
        "its model windowed, which is needed to compute a sample again, is not available; name it with `model`, or pass"
        in message
    )
    summary = check(output, model=None, sample_size=0)
    assert (summary.num_recomputed, summary.worst_difference) == (0, None)


def test_a_different_model_of_the_same_name_fails_verification(
    embed, check, failure, tmp_path, monkeypatch, tiny_checkpoint
):
    save_checkpoint(tiny_checkpoint, tmp_path / "elsewhere" / "windowed", "# same\n")
    other = new_checkpoint(tiny_checkpoint.encoder.shape, "gaussian", seed=1)
    save_checkpoint(other, tmp_path / "here" / "windowed", "# other\n")
    output = embed()

    monkeypatch.chdir(tmp_path / "elsewhere")
    assert check(output, model=None).num_recomputed == 20
    monkeypatch.chdir(tmp_path / "here")
    assert "the weights differ" in failure(output, model=None)


def test_a_result_of_the_bundled_model_is_verified_without_naming_it(embed, check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert check(embed(model=None), model=None).num_recomputed == 20


# The vectors


def alter_array(output, rows, change):
    array = np.load(output)
    array[rows] = change(array[rows])
    np.save(output, array)


def test_a_vector_altered_together_with_its_hash_fails_verification(embed, failure):
    output = embed()
    alter_array(output, 7, lambda vector: vector + 0.01)
    accept_changes(output)

    assert "row 8 ('Q18184') differs from what windowed computes by 0.015 times" in failure(output, sample_size=40)


@pytest.mark.parametrize(
    ("rows", "change"),
    [([3, 4], lambda vectors: vectors[::-1]), (slice(None), lambda vectors: 0 * vectors), (3, lambda vector: np.nan)],
    ids=["swapped", "zeros", "not a number"],
)
def test_swapped_zeroed_or_nan_vectors_fail_verification(embed, failure, rows, change):
    output = embed()
    alter_array(output, rows, change)
    accept_changes(output)

    assert "differs from what windowed computes" in failure(output, sample_size=40)


def test_an_altered_number_in_a_tsv_fails_verification(embed, failure):
    output = embed("emb.tsv")
    header, first, *rest = output.read_text().splitlines(keepends=True)
    record_id, number, *numbers = first.split("\t")
    output.write_text("".join([header, "\t".join([record_id, str(float(number) + 0.1), *numbers]), *rest]))
    accept_changes(output)

    assert "row 1 (" in failure(output, sample_size=40)


@pytest.mark.parametrize("kind", ["residues.npz", "residues.h5"])
def test_an_altered_residue_vector_fails_verification(embed, failure, kind):
    output = embed(f"emb.{kind}", per_residue=True)
    if kind == "residues.h5":
        with h5py.File(output, "r+") as file:
            (sixth,) = (dataset for dataset in file.values() if dataset.attrs["row"] == 6)
            sixth[3, 2] += 0.1
    else:
        with np.load(output) as archive:
            arrays = dict(archive)
        arrays["embeddings"][arrays["offsets"][5] + 3, 2] += 0.1
        np.savez(output, **arrays)
    accept_changes(output)

    assert "row 6 (" in failure(output, sample_size=40)


def test_shifted_protein_offsets_fail_verification(embed, failure):
    output = embed("emb.residues.npz", per_residue=True)
    with np.load(output) as archive:
        arrays = dict(archive)
    arrays["offsets"][1:-1] += 1
    np.savez(output, **arrays)
    accept_changes(output)

    assert "row 1 (" in failure(output, sample_size=40)


def test_the_seed_decides_which_rows_are_recomputed(embed, check):
    output = embed()
    alter_array(output, 7, lambda vector: vector + 1)
    accept_changes(output)
    failed_seeds = []
    for seed in range(12):
        try:
            check(output, sample_size=10, seed=seed)
        except VerificationError:
            failed_seeds.append(seed)

    assert 0 < len(failed_seeds) < 12


# Shards


@pytest.fixture
def shards(embed):
    def make(total=3, **options):
        return [embed(f"{number}.npy", shard=f"{number}/{total}", **options) for number in range(1, total + 1)]

    return make


def test_all_shards_of_a_result_are_verified_together(shards, check):
    summary = check(*shards(), sample_size=40)

    assert (summary.num_proteins, summary.num_recomputed) == (40, 40)


def test_the_refused_records_of_all_shards_are_counted(shards, check, proteins):
    summary = check(*shards(long_proteins="skip"))

    assert summary.num_proteins + summary.num_refused == 40
    assert summary.num_refused == sum(len(sequence) > 64 for sequence in proteins)


def test_a_missing_shard_fails_verification(shards, failure):
    first, second, third = shards()

    assert "it is shard 1/3, and of the other shards these are missing: 3/3" in failure(first, second)
    assert "it is shard 1/3, and of the other shards these are missing: 2/3" in failure(first, third)


def test_shards_are_verified_in_their_order_however_they_are_given(shards, check):
    first, second, third = shards()

    assert check(third, first, second, sample_size=40).num_recomputed == 40


def test_a_shard_given_twice_fails_verification(shards, failure):
    first, second, third = shards()

    assert f"it is shard 1/3, and so is {first}" in failure(first, second, first, third)


def test_results_of_several_inputs_are_verified_together(embed, check, changed_fasta, proteins_fasta, windowed_model):
    fasta = changed_fasta(lambda records: records[3:9])
    options = CheckOptions.from_values(model=windowed_model, sample_size=46)

    summary = check_embeddings([embed(), embed("other.h5", fasta), proteins_fasta, fasta], options)
    assert (summary.num_proteins, summary.num_recomputed) == (46, 46)
    with pytest.raises(VerificationError, match="has a different sequence or description"):
        check_embeddings([embed(), embed("other.h5", fasta), fasta, proteins_fasta], options)


@pytest.mark.parametrize(
    "options", [{"pooling": "max"}, {"window_residues": 50}, {"long_proteins": "truncate"}], ids=str
)
def test_a_shard_with_other_settings_fails_verification(shards, embed, failure, options):
    first, _, third = shards()
    other = embed("other.npy", shard="2/3", **options)

    assert f"{other} cannot be used: it cannot follow {first}, because " in failure(first, other, third)


def test_a_shard_of_another_model_fails_verification(shards, embed, failure, tmp_path, tiny_checkpoint):
    first, _, third = shards()
    checkpoint = new_checkpoint(tiny_checkpoint.encoder.shape, "gaussian", seed=1)
    checkpoint.metadata = replace(checkpoint.metadata, window_residues=64)
    save_checkpoint(checkpoint, tmp_path / "windowed", "# other\n")
    other = embed("other.npy", shard="2/3", model=tmp_path / "windowed")

    assert f"{other} cannot be used: it cannot follow {first}, because " in failure(first, other, third)


def test_a_shard_of_another_input_fails_verification(shards, embed, failure, changed_fasta):
    first, _, third = shards()
    other = embed("other.npy", shard="2/3", fasta=changed_fasta(lambda records: records[::-1]))

    assert f"{other} cannot be used: it is shard 2/3 of another run than {first}, which has another input" in failure(
        first, other, third
    )
