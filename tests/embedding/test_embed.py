import csv
import gzip
import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from protembed.callbacks import Callbacks
from protembed.config.common import DEFAULT_MODEL, InputConfig, ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.fasta import read_fasta
from protembed.data.windows import window_spans
from protembed.embedding.embed import embed_fasta
from protembed.embedding.estimate import plan_embedding
from protembed.embedding.metadata import FAILED, IDS
from protembed.errors import ConfigError, IllegalResidueError, InputNotFoundError, OutputExistsError, TooLongError
from protembed.io.result import META, sidecar
from protembed.model.checkpoint import load_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}
WINDOW = 64  # of `windowed_model`


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def meta_of(output):
    return json.loads(sidecar(output, META).read_text())


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_row(file):
    """Sort the datasets of an HDF5 file in input order."""
    return sorted(file.values(), key=lambda dataset: dataset.attrs["row"])


@pytest.fixture
def embed(tmp_path, tiny_model, proteins_fasta):
    """Embed with a tiny model into `tmp_path / name`, and return that path."""

    def run(name, fasta=proteins_fasta, model=tiny_model, on_illegal="error", **settings):
        output = tmp_path / name
        config = EmbedConfig(output=output, **settings)
        embed_fasta(
            [fasta],
            EmbedOptions(model=ModelConfig(model=model), embedding=config, reader=InputConfig(on_illegal=on_illegal)),
        )
        return output

    return run


@pytest.fixture(scope="module")
def oracle(tiny_esm, proteins):
    """Compute the last hidden states with transformers, (residues, dim) for each protein."""
    states = []
    for sequence in proteins:
        tokens = torch.tensor([[CLS, *encode(sequence).tolist(), EOS]])
        with torch.no_grad():
            states.append(tiny_esm.esm(tokens, torch.ones_like(tokens)).last_hidden_state[0, 1:-1].numpy())
    return states


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("oracles") / "tiny_esm"
    tiny_esm.save_pretrained(directory)
    return directory


@pytest.mark.promise(10, 11)
def test_rows_equal_the_means_over_residues_in_input_order(embed, esm_directory, oracle):
    rows = np.load(embed("emb.npy", model=esm_directory))

    np.testing.assert_allclose(rows, np.stack([states.mean(0) for states in oracle]), **PARITY)


@pytest.mark.parametrize(("pooling", "rule"), [("max", np.max), ("std", np.std)])
def test_max_and_std_pooling_exclude_special_tokens(embed, esm_directory, oracle, pooling, rule):
    rows = np.load(embed("emb.npy", model=esm_directory, pooling=pooling))

    np.testing.assert_allclose(rows, np.stack([rule(states, axis=0) for states in oracle]), **PARITY)


@pytest.mark.promise(11)
def test_residue_vectors_equal_the_last_hidden_states(embed, esm_directory, oracle):
    with np.load(embed("emb.npz", model=esm_directory, per_residue=True)) as packed:
        offsets = packed["offsets"]
        for row, states in enumerate(oracle):
            np.testing.assert_allclose(packed["embeddings"][offsets[row] : offsets[row + 1]], states, **PARITY)
    with h5py.File(embed("emb.h5", model=esm_directory, per_residue=True)) as file:
        for residues, states in zip(by_row(file), oracle, strict=True):
            np.testing.assert_allclose(residues, states, **PARITY)


def test_the_default_layer_is_the_last_and_another_can_be_chosen(embed):
    default, last, second, embedding = (
        np.load(embed(f"{layer}.npy", layer=layer)) for layer in ("auto", "last", "2", "0")
    )

    np.testing.assert_array_equal(default, last)
    np.testing.assert_array_equal(default, second)
    assert not np.allclose(default, embedding)


def test_float16_storage_rounds_the_float32_result(embed):
    np.testing.assert_array_equal(
        np.load(embed("half.npy", store_dtype="float16")), np.load(embed("full.npy")).astype(np.float16)
    )


def test_the_sidecars_describe_the_rows_and_the_model(embed, tiny_model, proteins_fasta):
    output = embed("emb.npy")
    header, *lines = (output.parent / "emb.ids.tsv").read_text().splitlines()
    meta = json.loads((output.parent / "emb.meta.json").read_text())

    records = list(read_fasta([proteins_fasta]))
    assert header.split("\t") == "row id residues windows overlap_cosine unknown_residues sha256 description".split()
    assert [line.split("\t")[:3] for line in lines] == [
        [str(record.row + 1), record.id, str(len(record.sequence))] for record in records
    ]
    assert meta["model_sha256"] == load_checkpoint(tiny_model).sha256()
    assert (meta["layer"], meta["pooling"], meta["num_proteins"]) == ([2], ["mean"], len(records))


def test_h5_datasets_are_named_by_identifier_or_by_biotrainers_hash(embed, tmp_path):
    written = {"lower": "mktayiakqrw", "stop": "MKTAYIAKQRV*", "unknown": "MKTJYIAKQR", "plain": "MKTAYIAKQR"}
    fasta = tmp_path / "written.fasta"
    fasta.write_text("".join(f">{name}\n{letters}\n" for name, letters in written.items()))

    by_id, by_hash = embed("id.h5", fasta=fasta), embed("hash.h5", fasta=fasta, h5_names="hash")

    with h5py.File(by_id) as ids, h5py.File(by_hash) as hashes:
        assert list(ids) == list(written)
        for name, letters in written.items():
            # The hash that biotrainer computes from the sequence in the file.
            digest = hashlib.sha256(f"{letters}_{len(letters)}".encode()).hexdigest()
            np.testing.assert_array_equal(hashes[digest], ids[name])


@pytest.mark.promise(9)
def test_the_same_command_gives_the_same_bytes(embed):
    first = embed("emb.npy")
    contents = [path.read_bytes() for path in sorted(first.parent.iterdir())]
    embed("emb.npy", force=True)

    assert [path.read_bytes() for path in sorted(first.parent.iterdir())] == contents


def test_running_the_same_command_again_computes_nothing(tmp_path, tiny_model, proteins_fasta):
    config, model = EmbedConfig(output=tmp_path / "emb.npy"), ModelConfig(model=tiny_model)
    embed_fasta([proteins_fasta], EmbedOptions(model=model, embedding=config))
    computed = []

    summary = embed_fasta(
        [proteins_fasta], EmbedOptions(model=model, embedding=config), Callbacks(on_progress=computed.append)
    )

    assert summary.was_done
    assert computed == []


def test_a_result_with_other_settings_is_an_error_and_stays_unchanged(embed):
    output = embed("emb.npy")
    before = output.read_bytes()

    with pytest.raises(OutputExistsError, match="pooling"):
        embed("emb.npy", pooling="max")

    assert output.read_bytes() == before


def test_an_illegal_residue_leaves_no_output(embed, tmp_path):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(">good\nMKTAYIAK\n>bad\nMK1\n")

    with pytest.raises(IllegalResidueError):
        embed("emb.npy", fasta=fasta)

    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


@pytest.mark.promise(10)
def test_records_left_out_on_request_are_listed(embed, tmp_path):
    fasta = tmp_path / "mixed.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMK1\n>c\nMKV\n")

    rows = np.load(embed("emb.npy", fasta=fasta, on_illegal="skip"))

    assert len(rows) == 2
    assert (tmp_path / "emb.failed.tsv").read_text().splitlines()[1].startswith("mixed.fasta\t4\tb\t")


@pytest.mark.promise(10)
@pytest.mark.parametrize("shard", [None, "2/3"])
def test_every_record_is_either_a_row_or_a_listed_failure(embed, tmp_path, windowed_model, proteins, shard):
    fasta, odd = tmp_path / "mixed.fasta", {3: "MK1", 4: "M-K", 17: "MK\xe9"}
    sequences = [odd.get(row, sequence) for row, sequence in enumerate(proteins)]
    fasta.write_text("".join(f">p{row}\n{sequence}\n" for row, sequence in enumerate(sequences)))
    settings = {"fasta": fasta, "model": windowed_model, "on_illegal": "skip", "long_proteins": "skip"}

    parts = [embed(f"{number}.npy", shard=f"{number}/3", **settings) for number in (1, 2, 3)] if shard else []
    outputs = parts or [embed("emb.npy", **settings)]

    embedded = [line["id"] for output in outputs for line in table(sidecar(output, IDS))]
    failed = [line["id"] for output in outputs for line in table(sidecar(output, FAILED))]
    assert sum(len(np.load(output)) for output in outputs) == len(embedded)
    assert sorted(embedded + failed) == sorted(f"p{row}" for row in range(len(proteins)))
    assert embedded == sorted(embedded, key=lambda name: int(name[1:]))
    assert len(failed) > len(odd)


# Unusual input


LAYOUTS = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "no final newline": lambda text: text.rstrip("\n"),
    "blank lines": lambda text: "\n\n" + text.replace("\n", "\n \n\n"),
    "a byte-order mark": lambda text: "\ufeff" + text,
    "lower case": str.lower,
    "a residue a line": lambda text: re.sub(r"([A-Z])(?=[A-Z])", r"\1\n", text),
    "a final star": lambda text: text.replace("\n>", "*\n>"),
    "all at once": lambda text: "\ufeff\r\n" + text.lower().replace("\n", "\r\n\r\n").rstrip(),
}


@pytest.mark.promise(13)
def test_the_layout_of_the_fasta_does_not_change_any_vector(embed, tmp_path, windowed_model, proteins):
    text = "".join(f">{row}\n{sequence}\n" for row, sequence in enumerate(proteins[:6]))
    fasta = tmp_path / "plain.fasta"
    fasta.write_bytes(text.encode())
    expected = np.load(embed("plain.npy", fasta=fasta, model=windowed_model))

    for name, change in LAYOUTS.items():
        fasta.write_bytes(change(text).encode())
        assert fasta.read_bytes() != text.encode()
        np.testing.assert_array_equal(np.load(embed(f"{name}.npy", fasta=fasta, model=windowed_model)), expected)


@pytest.mark.promise(16)
@pytest.mark.parametrize("name", ["emb.npy", "emb.npz", "emb.tsv", "emb.h5"])
def test_records_with_the_same_very_long_header_keep_their_rows(embed, tmp_path, proteins, name):
    header = "same " + "long " * 2000
    fasta = tmp_path / "same.fasta"
    sequences = [*proteins[:3], proteins[0], "M"]
    fasta.write_text("".join(f">{header}\n{sequence}\n" for sequence in sequences))
    alone = [
        np.load(embed(f"{row}.npy", fasta=one_protein(tmp_path, sequence)))[0] for row, sequence in enumerate(sequences)
    ]

    output = embed(name, fasta=fasta, per_residue=name == "emb.h5")

    lines = table(sidecar(output, IDS))
    assert [line["id"] for line in lines] == ["same"] * 5
    assert all(line["description"] == header.strip() for line in lines)
    assert [int(line["residues"]) for line in lines] == list(map(len, sequences))
    np.testing.assert_allclose(vectors_in(output), np.stack(alone), **PARITY)


def one_protein(folder, sequence):
    path = folder / "single.fasta"
    path.write_text(f">single\n{sequence}\n")
    return path


def vectors_in(output):
    """Read one vector per protein from any format."""
    if output.suffix == ".npy":
        return np.load(output)
    if output.suffix == ".npz":
        with np.load(output) as archive:
            return archive["embeddings"]
    if output.suffix == ".tsv":
        return np.array([[float(value) for value in list(line.values())[1:]] for line in table(output)])
    with h5py.File(output) as file:
        return np.stack([dataset[:].mean(0) for dataset in by_row(file)])


@pytest.mark.promise(16)
def test_a_protein_of_a_hundred_thousand_residues_is_one_row(embed, tmp_path, windowed_model, proteins):
    giant = "".join(proteins) * (100_000 // sum(map(len, proteins)) + 1)
    fasta = tmp_path / "giant.fasta"
    fasta.write_text(f">small\n{proteins[0]}\n>giant\n{giant[:100_000]}\n>last\n{proteins[1]}\n")

    output = embed("emb.npy", fasta=fasta, model=windowed_model)

    rows, lines = np.load(output), table(sidecar(output, IDS))
    assert [int(line["residues"]) for line in lines] == [len(proteins[0]), 100_000, len(proteins[1])]
    assert int(lines[1]["windows"]) == len(window_spans(100_000, WINDOW))
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(
        rows[2], np.load(embed("last.npy", fasta=one_protein(tmp_path, proteins[1]), model=windowed_model))[0], **PARITY
    )


@pytest.mark.promise(14)
def test_an_input_removed_during_the_run_is_an_input_error(tmp_path, tiny_model, proteins):
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text(f">a\n{proteins[0]}\n")

    with pytest.raises(InputNotFoundError, match="proteins.fasta: No such file") as caught:
        embed_fasta(
            [fasta],
            EmbedOptions.from_values(model=tiny_model, output=tmp_path / "emb.npy"),
            Callbacks(on_start=lambda _: fasta.unlink()),
        )

    assert caught.value.exit_status == 66
    assert list(tmp_path.iterdir()) == []


def test_without_a_model_the_bundled_one_is_used(proteins_fasta, tmp_path):
    for name, model in (("none.npy", None), ("named.npy", Path(DEFAULT_MODEL))):
        embed_fasta(
            [proteins_fasta],
            EmbedOptions.from_values(model=model, output=tmp_path / name),
        )

    np.testing.assert_array_equal(np.load(tmp_path / "none.npy"), np.load(tmp_path / "named.npy"))


@pytest.mark.promise(10)
def test_five_hundred_proteins_keep_the_input_order(embed, tmp_path, proteins, esm_directory, oracle):
    order = np.random.default_rng(0).integers(len(proteins), size=500)
    fasta = tmp_path / "many.fasta"
    fasta.write_text("".join(f">p{row}\n{proteins[index]}\n" for row, index in enumerate(order)))

    rows = np.load(embed("emb.npy", fasta=fasta, model=esm_directory))

    np.testing.assert_allclose(rows, np.stack([oracle[index].mean(0) for index in order]), **PARITY)


# Long proteins


@pytest.fixture(scope="module")
def lengths(proteins):
    return [len(sequence) for sequence in proteins]


def test_a_long_protein_is_computed_in_windows_whose_agreement_is_recorded(embed, windowed_model, lengths):
    rows = np.load(embed("emb.npy", model=windowed_model))
    lines = table(embed("emb.npy", model=windowed_model).parent / "emb.ids.tsv")

    assert len(rows) == len(lengths)
    assert [int(line["residues"]) for line in lines] == lengths
    assert [int(line["windows"]) for line in lines] == [len(window_spans(length, WINDOW)) for length in lengths]
    assert [line["overlap_cosine"] != "" for line in lines] == [length > WINDOW for length in lengths]
    assert all(0 < float(line["overlap_cosine"] or 1) <= 1 for line in lines)


def test_windows_do_not_change_proteins_that_fit_into_one(embed, windowed_model, lengths):
    whole, windowed = np.load(embed("whole.npy")), np.load(embed("windowed.npy", model=windowed_model))

    fits = np.array(lengths) <= WINDOW
    np.testing.assert_allclose(windowed[fits], whole[fits], **PARITY)
    assert (np.abs(windowed - whole)[~fits].max(1) > 1e-4).all()


def test_the_window_length_can_be_chosen(embed, windowed_model):
    named, whole = np.load(embed("named.npy", model=windowed_model, window_residues=400)), np.load(embed("whole.npy"))

    np.testing.assert_array_equal(named, whole)
    assert meta_of(embed("n.npy", window_residues=WINDOW))["window_residues"] == WINDOW


def test_the_mean_of_residue_vectors_of_a_long_protein_equals_its_vector(embed, windowed_model, lengths):
    rows = np.load(embed("emb.npy", model=windowed_model))

    with h5py.File(embed("emb.h5", model=windowed_model, per_residue=True)) as file:
        assert [len(residues) for residues in by_row(file)] == lengths
        means = [residues[:].mean(0) for residues in by_row(file)]
    np.testing.assert_allclose(rows, means, **PARITY)


def test_long_proteins_error_makes_a_long_protein_a_data_error(
    embed, windowed_model, proteins_fasta, tmp_path, lengths
):
    with pytest.raises(TooLongError, match=f"has {lengths[0]} residues, more than the window of 64") as caught:
        embed("emb.npy", model=windowed_model, long_proteins="error")

    assert caught.value.exit_status == 65
    assert (caught.value.line, caught.value.path) == (1, str(proteins_fasta))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise(10)
def test_long_proteins_skip_leaves_out_and_lists_long_proteins(embed, windowed_model, proteins_fasta, lengths):
    output = embed("emb.npy", model=windowed_model, long_proteins="skip")

    rows, refused = np.load(output), table(output.parent / "emb.failed.tsv")
    records = list(read_fasta([proteins_fasta]))
    short = [record for record in records if len(record.sequence) <= WINDOW]
    assert len(rows) + len(refused) == len(records)
    assert [line["id"] for line in table(output.parent / "emb.ids.tsv")] == [record.id for record in short]
    assert [int(line["line"]) for line in refused] == [
        record.line for record in records if len(record.sequence) > WINDOW
    ]
    assert refused[0]["reason"] == f"{lengths[0]} residues are more than the window of 64"
    np.testing.assert_array_equal(rows, np.load(embed("again.npy", model=windowed_model, long_proteins="skip")))
    np.testing.assert_allclose(rows, np.load(embed("whole.npy"))[np.array(lengths) <= WINDOW], **PARITY)


def test_long_proteins_truncate_embeds_the_beginning_of_long_proteins(
    embed, windowed_model, tmp_path, proteins, proteins_fasta
):
    cut = tmp_path / "cut.fasta"
    cut.write_text("".join(f">p{row}\n{sequence[:WINDOW]}\n" for row, sequence in enumerate(proteins)))

    rows = np.load(embed("emb.npy", model=windowed_model, long_proteins="truncate"))

    np.testing.assert_allclose(rows, np.load(embed("cut.npy", fasta=cut)), **PARITY)
    assert {line["windows"] for line in table(tmp_path / "emb.ids.tsv")} == {"1"}
    assert max(int(line["residues"]) for line in table(tmp_path / "emb.ids.tsv")) == WINDOW


@pytest.mark.parametrize(
    ("policy", "num_rows", "warning"),
    [("window", 40, None), ("truncate", 40, "proteins cut off"), ("skip", None, "records left out")],
)
def test_the_summary_counts_long_proteins_under_every_policy(
    windowed_model, proteins_fasta, tmp_path, lengths, policy, num_rows, warning
):
    config = EmbedConfig(output=tmp_path / "emb.npy", long_proteins=policy)

    summary = embed_fasta([proteins_fasta], EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config))

    num_long = sum(length > WINDOW for length in lengths)
    assert summary.num_proteins == (num_rows or 40 - num_long)
    assert summary.num_proteins + summary.num_refused == 40
    assert summary.num_windowed == (num_long if policy == "window" else 0)
    assert any(f"{num_long} {warning}" in sentence for sentence in summary.warnings) == (warning is not None)


# Poolings, layers, formats


def test_several_poolings_and_layers_are_concatenated_in_the_recorded_slices(embed, windowed_model):
    output = embed("emb.npy", model=windowed_model, pooling="mean,std,cls", layer="2,0")
    rows, meta = np.load(output), meta_of(output)

    assert (meta["dim"], meta["pooling"], meta["layer"]) == (6 * 32, ["mean", "std", "cls"], [2, 0])
    for part in meta["slices"]:
        options = {"pooling": part["pooling"], "layer": str(part["layer"])}
        alone = np.load(embed("{pooling}{layer}.npy".format(**options), model=windowed_model, **options))
        np.testing.assert_allclose(rows[:, part["start"] : part["stop"]], alone, **PARITY)


def test_all_layers_of_residue_vectors_are_concatenated(embed, oracle, esm_directory):
    output = embed("emb.h5", model=esm_directory, per_residue=True, layer="all")

    with h5py.File(output) as file:
        for residues, states in zip(by_row(file), oracle, strict=True):
            assert residues.shape == (len(states), 3 * 32)
            np.testing.assert_allclose(residues[:, 64:], states, **PARITY)
    meta = meta_of(output)
    assert (meta["pooling"], meta["layer"]) == (None, [0, 1, 2])
    assert meta["slices"][1] == {"pooling": None, "layer": 1, "start": 32, "stop": 64}


def test_pooling_with_per_residue_is_a_usage_error(embed):
    with pytest.raises(ConfigError, match="with `per_residue` vectors are not pooled"):
        embed("emb.h5", per_residue=True, pooling="max")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_format_contains_the_same_numbers(embed, windowed_model, proteins_fasta, dtype):
    options = {"model": windowed_model, "store_dtype": dtype, "pooling": "mean,max"}
    rows = np.load(embed("emb.npy", **options))

    with np.load(embed("emb.npz", **options), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["embeddings"], rows)
        assert archive["ids"].tolist() == [record.id for record in read_fasta([proteins_fasta])]
    header, *lines = (line.split("\t") for line in embed("emb.tsv", **options).read_text().splitlines())
    with h5py.File(embed("emb.h5", **options)) as file:
        np.testing.assert_array_equal(np.stack(by_row(file)), rows)
    assert (header[1], header[32], header[33]) == ("mean_layer2_1", "mean_layer2_32", "max_layer2_1")
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], dtype=dtype), rows)
    assert rows.dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_both_formats_of_residue_vectors_contain_the_same_numbers(embed, windowed_model, lengths, dtype):
    options = {"model": windowed_model, "store_dtype": dtype, "per_residue": True}

    with (
        np.load(embed("emb.npz", **options), allow_pickle=False) as archive,
        h5py.File(embed("emb.h5", **options)) as file,
    ):
        assert np.diff(archive["offsets"]).tolist() == lengths
        stacked = np.vstack(by_row(file))
        np.testing.assert_array_equal(archive["embeddings"], stacked)
        assert stacked.dtype == dtype


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_to_float32_and_recorded(embed, windowed_model, precision):
    half, full = (embed(f"{name}.npy", model=windowed_model, precision=name) for name in (precision, "float32"))

    np.testing.assert_allclose(np.load(half), np.load(full), rtol=0, atol=2e-2)
    assert not np.array_equal(np.load(half), np.load(full))
    assert meta_of(half)["precision"] == precision


# Shards


@pytest.mark.promise(10)
@pytest.mark.parametrize("total", [1, 3, 7])
def test_concatenated_shards_equal_the_whole_result(embed, windowed_model, proteins_fasta, total):
    whole = embed("whole.npy", model=windowed_model)
    shards = [embed(f"{number}.npy", model=windowed_model, shard=f"{number}/{total}") for number in range(1, total + 1)]

    np.testing.assert_allclose(np.concatenate(list(map(np.load, shards))), np.load(whole), **PARITY)
    ids = [line["id"] for shard in shards for line in table(shard.with_suffix(".ids.tsv"))]
    assert ids == [record.id for record in read_fasta([proteins_fasta])]


def test_more_shards_than_proteins_leave_some_results_empty(embed, tmp_path):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAKQRQISFVK\n>b\nMKV\n")
    shards = [embed(f"{number}.npy", fasta=fasta, shard=f"{number}/4") for number in range(1, 5)]

    rows = list(map(np.load, shards))
    assert sum(map(len, rows)) == 2
    assert {part.shape[1] for part in rows} == {32}
    np.testing.assert_allclose(np.concatenate(rows), np.load(embed("whole.npy", fasta=fasta)), **PARITY)


def test_shards_have_similar_numbers_of_residues(embed, lengths):
    counts = [meta_of(embed(f"{number}.npy", shard=f"{number}/4"))["num_residues"] for number in range(1, 5)]

    assert sum(counts) == sum(lengths)
    assert max(counts) - min(counts) < 2 * max(lengths)


@pytest.mark.promise(10)
def test_each_skipped_record_is_listed_by_exactly_one_shard(embed, windowed_model):
    options = {"model": windowed_model, "long_proteins": "skip"}
    whole = embed("whole.npy", **options)
    shards = [embed(f"{number}.npy", shard=f"{number}/3", **options) for number in (1, 2, 3)]

    refused = [line for shard in shards for line in table(shard.with_suffix(".failed.tsv"))]
    assert refused == table(whole.with_suffix(".failed.tsv"))
    np.testing.assert_allclose(np.concatenate(list(map(np.load, shards))), np.load(whole), **PARITY)


def test_the_result_of_another_shard_is_an_error(embed):
    assert meta_of(embed("emb.npy", shard="2/3"))["shard"] == "2/3"

    for shard in ("1/3", "2/4", None):
        with pytest.raises(OutputExistsError, match="was made with other settings .`shard` was"):
            embed("emb.npy", shard=shard)


def test_the_default_output_of_a_shard_contains_its_number(tiny_model, proteins_fasta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    summary = embed_fasta([proteins_fasta], EmbedOptions.from_values(model=tiny_model, shard="2/3"))

    assert summary.output == Path("proteins.2-of-3.npy")
    assert summary.output.exists()


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/2", "-1/3", "²/3"])
def test_an_invalid_shard_is_a_usage_error_that_leaves_no_file(embed, tmp_path, shard):
    with pytest.raises(ConfigError, match="shard is .*I/N is expected"):
        embed("emb.npy", shard=shard)

    assert list(tmp_path.iterdir()) == []


# Stdin and dry runs


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_stdin_gives_the_same_vectors_as_a_file(embed, give_stdin, proteins_fasta, compress):
    give_stdin(compress(proteins_fasta.read_bytes()))
    from_stdin = embed("stdin.npy", fasta=Path("-"))

    np.testing.assert_array_equal(np.load(from_stdin), np.load(embed("file.npy")))


@pytest.fixture
def plan_of(monkeypatch, proteins_fasta):
    """Make the plan of a dry run, with a short measurement."""
    monkeypatch.setattr("protembed.embedding.estimate._MIN_SECONDS", 0.01)

    def plan(model, fasta=proteins_fasta, **options):
        config = EmbedConfig(dry_run=True, **options)
        return plan_embedding([fasta], EmbedOptions(model=ModelConfig(model=model), embedding=config))

    return plan


def test_a_dry_run_of_the_function_that_embeds_is_a_usage_error(proteins_fasta):
    with pytest.raises(ConfigError, match="dry_run is True, but an estimate is made by `plan_embedding`"):
        embed_fasta([proteins_fasta], EmbedOptions.from_values(dry_run=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"long_proteins": "truncate"},
        {"long_proteins": "skip"},
        {"shard": "2/3"},
        {"pooling": "mean,std", "layer": "all"},
    ],
    ids=str,
)
def test_a_dry_run_reports_the_counts_of_the_run_and_writes_nothing(
    plan_of, windowed_model, proteins_fasta, tmp_path, options
):
    (tmp_path / "empty").mkdir()
    plan = plan_of(windowed_model, output=tmp_path / "empty" / "emb.npy", **options)
    assert list((tmp_path / "empty").iterdir()) == []

    output = tmp_path / "emb.npy"
    summary = embed_fasta(
        [proteins_fasta],
        EmbedOptions.from_values(model=windowed_model, output=output, **options),
    )
    lines = table(tmp_path / "emb.ids.tsv")

    assert (plan.num_proteins, plan.num_residues, plan.num_windowed, plan.dim) == (
        *(summary.num_proteins, summary.num_residues, summary.num_windowed, summary.dim),
    )
    assert plan.num_windows == sum(int(line["windows"]) for line in lines)
    assert plan.longest == max(int(line["residues"]) for line in lines)
    written = sum(path.stat().st_size for path in (output, output.with_suffix(".ids.tsv")))
    # The files that exist only while the result is made count too.
    assert written < plan.disk_bytes < 2.5 * written
    assert plan.seconds > 0 and plan.memory_bytes > 1e7


def test_a_dry_run_does_not_change_an_existing_result(embed, plan_of, tiny_model, tmp_path):
    output = embed("emb.npy")
    before = contents(tmp_path)

    plan_of(tiny_model, output=output, pooling="max")

    assert contents(tmp_path) == before


def test_a_dry_run_reads_stdin(plan_of, give_stdin, proteins_fasta, tiny_model, tmp_path):
    give_stdin(proteins_fasta.read_bytes())

    plan = plan_of(tiny_model, fasta=Path("-"), output=tmp_path / "emb.npy")

    assert plan.num_proteins == 40
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "per_residue", "rows"), [("h5", True, "num_residues"), ("npz", False, None)])
def test_formats_that_are_converted_at_the_end_need_disk_space_for_both_files(
    plan_of, tiny_model, tmp_path, suffix, per_residue, rows
):
    plan = plan_of(tiny_model, output=tmp_path / f"emb.{suffix}", per_residue=per_residue)

    num_rows = plan.num_residues if rows else plan.num_proteins
    assert plan.disk_bytes >= 2 * num_rows * 32 * 4
