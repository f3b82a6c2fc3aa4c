"""The public names as a person types them in Python, and the same numbers as from the commands."""

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import protembed
from protembed import AttentionOptions, CheckOptions, EmbedOptions, PredictOptions, ScoreOptions
from protembed.config.common import TASKS
from protembed.model.checkpoint import load_checkpoint, save_checkpoint
from protembed.model.heads import TaskHead

FUNCTIONS = [name for name in dir(protembed) if name.islower() and not name.startswith("_")]


@pytest.fixture(scope="module")
def records(proteins_fasta):
    return list(protembed.read_fasta(proteins_fasta))


@pytest.fixture(scope="module")
def model(windowed_model):
    """A model in whose window of 64 residues most proteins do not fit."""
    return protembed.load_model(windowed_model, threads=1)


@pytest.fixture(scope="module")
def make_finetuned(tiny_model, tmp_path_factory):
    """Save the tiny model with a random head of a task."""

    def make(task, classes=None, region=None):
        checkpoint = load_checkpoint(tiny_model)
        torch.manual_seed(0)
        checkpoint.task_head = TaskHead(checkpoint.encoder.shape.dim, TASKS[task], classes)
        checkpoint.metadata = replace(
            checkpoint.metadata, target="label", task=task, classes=classes, region=region, pooling="mean"
        )
        directory = tmp_path_factory.mktemp("finetuned") / "tiny.model"
        save_checkpoint(checkpoint, directory, "# tiny\n")
        return directory

    return make


# The names


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, protembed; print([name for name in ('torch', 'numpy', 'ast') if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_only_public_names_are_listed_and_all_of_them_exist():
    names = dir(protembed)

    assert {"load_model", "load_checkpoint", "read_fasta", "EmbedConfig", "AMINO_ACIDS"} <= set(names)
    assert not {"Any", "Path", "import_module", "cache"} & set(names)
    assert sorted(protembed.__all__) == names
    assert all(hasattr(protembed, name) for name in names)
    with pytest.raises(AttributeError, match="module 'protembed' has no attribute 'load'"):
        protembed.load  # noqa: B018


def test_the_help_of_the_package_mentions_every_function():
    assert [name for name in FUNCTIONS if name not in protembed.__doc__] == []


@pytest.mark.parametrize("name", dir(protembed))
def test_every_public_name_is_documented(name):
    assert name == "__version__" or getattr(protembed, name).__doc__


# What a person types


def test_the_default_model_gives_a_vector_for_each_sequence():
    model = protembed.load_model()

    assert repr(model) == f"<Model protembed_t6_8M: dim 320, 6 layers, 7.5 M parameters, on {model.checkpoint.device}>"
    assert (model.name, model.dim, model.num_layers, model.classes) == ("protembed_t6_8M", 320, 6, None)
    assert model.embed(["MKTAYIAKQR"]).shape == model.embed("MKTAYIAKQR").shape == (1, 320)
    assert model.embed("MKTAYIAKQR").dtype == np.float32


@pytest.mark.parametrize("as_name", [str, Path], ids=["text", "path"])
def test_a_model_is_loaded_by_path_or_text_with_the_options_of_a_device(tiny_model, as_name):
    model = protembed.load_model(as_name(tiny_model), device="cpu", precision="bfloat16", threads=np.int64(2))

    assert (model.name, model.dim, model.precision) == ("tiny", 32, torch.bfloat16)
    assert not np.array_equal(model.embed("MKTAYIAKQR"), protembed.load_model(tiny_model).embed("MKTAYIAKQR"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "no-such-model"}, protembed.ProtembedError, "no such directory"),
        ({"device": "gpu"}, protembed.ProtembedError, "device is 'gpu', but one of auto, cpu"),
        ({"precision": "int8"}, protembed.ProtembedError, "precision is 'int8', but one of auto, float32"),
        ({"threads": 0}, protembed.ProtembedError, "threads is 0, but a value of at least 1"),
    ],
)
def test_options_of_a_model_that_do_not_exist_are_an_error(options, error, message):
    with pytest.raises(error, match=message):
        protembed.load_model(**options)


def test_sequences_may_be_a_list_an_iterator_records_or_an_array(model, records, proteins):
    expected = model.embed(proteins[:3])

    for sequences in (iter(proteins[:3]), records[:3], tuple(proteins[:3]), np.array(proteins[:3])):
        assert np.array_equal(model.embed(sequences), expected)
    assert np.array_equal(model.embed([f" {proteins[0].lower()}*"]), expected[:1])


def test_no_sequence_gives_no_vector(model):
    assert model.embed([]).shape == (0, 32)
    assert model.embed([], pooling=["mean", "max"]).shape == (0, 64)
    assert model.embed_residues([]) == []


@pytest.mark.parametrize(
    ("layer", "pooling", "dim"),
    [(1, None, 32), (np.int64(0), "cls", 32), ([0, 2], ["mean", "max"], 128), ("all", "std", 96), ("last", None, 32)],
)
def test_layers_and_poolings_may_be_numbers_texts_and_lists(model, proteins, layer, pooling, dim):
    assert model.embed(proteins[:2], layer=layer, pooling=pooling).shape == (2, dim)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, "layer is '3', but this model has layers 0 to 2"),
        ({"layer": -1}, "layer is '-1', but this model has layers 0 to 2"),
        ({"layer": 1.0}, "layer is 1.0, but a text, a whole number"),
        ({"layer": [1, 1]}, "layer is '1,1', but each can be named once"),
        ({"pooling": "median"}, "pooling is 'median', but one of mean"),
        ({"pooling": "attention"}, "pooling is 'attention', but this model has learned none"),
    ],
)
def test_layers_and_poolings_that_do_not_exist_are_an_error(model, options, message):
    with pytest.raises(protembed.ProtembedError, match=message):
        model.embed("MKT", **options)


@pytest.mark.parametrize("method", ["embed", "embed_residues", "log_probs", "attention", "contacts"])
def test_a_sequence_that_is_not_a_protein_is_an_error(model, contact_model, method):
    with pytest.raises(protembed.ProtembedError, match="sequence 1: '1' at position 3 is not an amino acid"):
        getattr(contact_model if method == "contacts" else model, method)("MK1")


@pytest.mark.parametrize("method", ["log_probs", "attention"])
def test_methods_for_one_sequence_reject_several(model, method):
    with pytest.raises(protembed.ProtembedError, match="the sequences: there are 2, not one"):
        getattr(model, method)(["MKT", "AYI"])


def test_a_model_without_the_head_for_a_method_is_an_error(model):
    with pytest.raises(protembed.ProtembedError, match="windowed: this model has no head to predict with"):
        model.predict("MKT")
    with pytest.raises(protembed.ProtembedError, match="windowed: the model has no fitted contact head"):
        model.contacts("MKT")


def test_models_are_listed_with_the_names_that_load_them():
    default = next(entry for entry in protembed.list_models() if entry.is_default)

    assert protembed.load_model(default.name).dim == protembed.load_checkpoint(default.name).encoder.shape.dim == 320


def test_functions_of_commands_take_texts_paths_and_globs(proteins_fasta, tiny_model, tmp_path):
    output = tmp_path / "emb.npy"
    options = EmbedOptions.from_values(model=str(tiny_model), output=str(output))

    for fasta in (str(proteins_fasta), proteins_fasta, proteins_fasta.parent.glob("proteins.fasta")):
        assert protembed.embed_fasta(fasta, options).output == output
    assert protembed.plan_embedding(str(proteins_fasta), options).num_proteins == 40
    checked = protembed.check_embeddings([str(output), proteins_fasta], CheckOptions.from_values(model=tiny_model))
    assert checked.num_proteins == len(protembed.load_embeddings(str(output))) == 40
    assert protembed.plan_pretraining(str(proteins_fasta)).num_parameters > 1e6


@pytest.mark.parametrize("task", ["embed_fasta", "predict_fasta", "inspect_attention", "pretrain_model", "read_fasta"])
def test_a_glob_that_matches_nothing_is_an_error(task, tmp_path):
    with pytest.raises(protembed.ProtembedError, match="at least one file is expected: did a pattern match nothing?"):
        list(getattr(protembed, task)(tmp_path.glob("*.fasta")))


# What is in memory


def matrices_in_float32():
    """Return the matrices and biases that make queries, keys and values in tiny models, and are live in float32."""
    parameters = [value for value in gc.get_objects() if type(value) is torch.nn.Parameter]
    return [value for value in parameters if value.dtype == torch.float32 and value.shape[:1] == (96,)]


def results_of(model):
    sequence = "MKTAYIAKQR" * 8
    return [
        model.embed([sequence, "MKT"], layer="all"),
        model.embed_residues(sequence),
        model.log_probs(sequence),
        model.attention(sequence),
    ]


def assert_same_bits(results, expected):
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_in_half_precision_holds_no_copy_in_float32(family_model):
    before = len(matrices_in_float32())
    model = protembed.load_model(family_model, device="cpu", precision="bfloat16", threads=1)

    model.embed("MKTAYIAKQR")
    assert len(matrices_in_float32()) == before
    matrices = [value for value in model.checkpoint.encoder.layers.parameters() if value.ndim == 2]
    assert {value.dtype for value in matrices} == {torch.bfloat16}

    model.attention("MKTAYIAKQR")
    assert len({id(value) for value in matrices_in_float32()}) <= before + 2  # one layer's, weight and bias
    assert {value.dtype for value in matrices} == {torch.bfloat16}


def test_attention_of_a_model_in_half_precision_is_that_of_float32(family_model):
    half, exact = (
        protembed.load_model(family_model, device="cpu", precision=name, threads=1) for name in ("bfloat16", "float32")
    )

    np.testing.assert_array_equal(half.attention("MKTAYIAKQR"), exact.attention("MKTAYIAKQR"))
    assert not np.array_equal(half.embed("MKTAYIAKQR"), exact.embed("MKTAYIAKQR"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_is_computed_layer_by_layer_has_the_same_bits(family_model, precision):
    usual, offloaded = (
        protembed.load_model(family_model, device="cpu", precision=precision, threads=1, offload=offload)
        for offload in ("never", "always")
    )

    assert repr(offloaded) == repr(usual).replace("on cpu", "on cpu, layer by layer")
    assert_same_bits(results_of(offloaded), results_of(usual))


def test_threads_that_share_a_model_computed_layer_by_layer_get_the_same_bits(tiny_model):
    model = protembed.load_model(tiny_model, device="cpu", threads=1, offload="always")
    expected = results_of(model)

    with ThreadPoolExecutor(3) as threads:
        for results in threads.map(lambda _: results_of(model), range(6)):
            assert_same_bits(results, expected)


def test_predictions_and_contacts_of_a_model_computed_layer_by_layer_have_the_same_bits(make_finetuned, contact_model):
    directory = make_finetuned("regression")
    sequences = ["MKTAYIAKQR" * 8, "MSILVTRPSP"]
    with pytest.warns(protembed.ProtembedWarning, match="does not record its training proteins"):
        usual, offloaded, half = (
            protembed.load_model(directory, device="cpu", **options).predict(sequences)["prediction"]
            for options in ({}, {"offload": "always"}, {"precision": "bfloat16"})
        )
    assert_same_bits([offloaded, half], [usual, usual])

    by_layers = protembed.load_model(contact_model.checkpoint.directory, offload="always")
    assert_same_bits([by_layers.contacts(sequences[0])], [contact_model.contacts(sequences[0])])


# The same numbers as the commands


@pytest.mark.parametrize("settings", [{}, {"layer": [0, 1], "pooling": ["mean", "max"]}], ids=["default", "several"])
def test_vectors_have_the_bits_of_embed(model, records, proteins_fasta, windowed_model, tmp_path, settings):
    options = EmbedOptions.from_values(model=windowed_model, output=tmp_path / "emb.npy", **settings)
    protembed.embed_fasta(str(proteins_fasta), options)

    assert np.array_equal(model.embed(records, **settings), np.load(tmp_path / "emb.npy"))


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_residue_vectors_have_the_bits_of_embed(model, records, proteins_fasta, windowed_model, tmp_path, suffix):
    output = tmp_path / f"emb.{suffix}"
    protembed.embed_fasta(
        [proteins_fasta], EmbedOptions.from_values(model=windowed_model, output=output, per_residue=True)
    )

    stored, vectors = protembed.load_embeddings(output), model.embed_residues(records)
    assert stored.ids == [record.id for record in records]
    assert all(np.array_equal(one, other) for one, other in zip(stored.vectors, vectors, strict=True))
    assert np.array_equal(model.embed_residues(records[0]), vectors[0])


def column_of(letter):
    return protembed.AMINO_ACIDS.index(letter)


@pytest.mark.parametrize("method", ["masked-marginals", "wildtype-marginals"])
def test_log_probabilities_give_the_scores_of_score(model, proteins, windowed_model, tmp_path, method):
    wild_type = next(protein for protein in proteins if len(protein) > 200)
    mutations = [f"{letter}{position}{'G' if letter == 'A' else 'A'}" for position, letter in enumerate(wild_type, 1)]
    mutations = [mutation for mutation in mutations if mutation[0] in protembed.AMINO_ACIDS][::9]
    table = tmp_path / "variants.csv"
    table.write_text("mutant,sequence\n" + "".join(f"{mutation},{wild_type}\n" for mutation in mutations))
    options = ScoreOptions.from_values(model=windowed_model, output=tmp_path / "scores.tsv", method=method)
    protembed.score_variants(str(table), options)

    log_probs = model.log_probs(wild_type, masked=method == "masked-marginals")
    rows = [line.split("\t") for line in (tmp_path / "scores.tsv").read_text().splitlines()[2:]]
    assert log_probs.shape == (len(wild_type), 20)
    for mutation, row in zip(mutations, rows, strict=True):
        wild, mutant = (float(log_probs[int(mutation[1:-1]) - 1, column_of(mutation[end])]) for end in (0, -1))
        assert row[-1] == f"{mutant - wild:.7g}"


def test_probabilities_add_up_to_one_at_every_position(model):
    for sequence in ("MKTXAYB", "M?T<mask>", "????"):
        for masked in (True, False):
            total = np.exp(model.log_probs(sequence, masked=masked)).sum(axis=1)
            assert np.allclose(total, 1, atol=1e-6)


def test_a_masked_position_is_what_the_model_sees_of_a_residue_that_is_predicted(model):
    sequence = "MKTAYIAKQRQISFVK"
    alone = model.log_probs(sequence)

    for position in (0, 5, 15):
        masked = sequence[:position] + "?" + sequence[position + 1 :]
        assert np.allclose(model.log_probs(masked, masked=False)[position], alone[position], atol=1e-6)
        assert np.allclose(model.log_probs(masked)[position], alone[position], atol=1e-6)
        assert not np.allclose(model.log_probs(masked)[position - 1], alone[position - 1], atol=1e-6)
    assert not np.array_equal(model.embed("MK?A"), model.embed("MKXA"))


# Masked positions


def test_fill_gives_the_most_probable_residues_at_masked_positions_in_columns(model, proteins):
    sequence = f"?{proteins[0][1:90]}<mask>{proteins[0][91:]}"  # longer than a window

    filled = model.fill(sequence, top=2)

    log_probs = model.log_probs(sequence, masked=False)[[0, 90]]
    best = np.argsort(-log_probs, axis=1)[:, :2]
    assert filled["position"] == [1, 1, 91, 91]
    assert filled["rank"] == [1, 2, 1, 2]
    assert filled["residue"] == [protembed.AMINO_ACIDS[column] for column in best.flatten()]
    np.testing.assert_allclose(filled["probability"], np.exp(np.take_along_axis(log_probs, best, 1)).flatten())
    assert len(model.fill("MK?")["residue"]) == 5


def test_sample_completes_sequences_and_repeats_each_by_its_seed_and_number(model):
    sequence = "MK??Y<mask>AKQR"

    samples = model.sample(sequence, 4)

    assert len(set(samples)) > 1
    for sample in samples:
        assert (sample[:2], sample[4], sample[6:]) == ("MK", "Y", "AKQR")
        assert set(sample) <= set(protembed.AMINO_ACIDS)
    assert model.sample(sequence, 2) == samples[:2]
    assert model.sample(sequence, 4, seed=1) != samples
    assert len(set(model.sample(sequence, 4, temperature=0))) == 1


def test_sequences_without_a_masked_position_cannot_be_filled_in(model):
    for call in (model.fill, model.sample):
        with pytest.raises(protembed.ProtembedError, match="no position is masked; write . or <mask>"):
            call("MKTAY")


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("fill", {"top": 21}, "top is 21, but a value from 1 to 20"),
        ("sample", {"num_samples": 0}, "samples is 0, but a value of at least 1"),
        ("sample", {"temperature": -0.1}, "temperature is -0.1, but a value from 0 to 100"),
        ("sample", {"seed": -1}, "seed is -1, but a value of at least 0"),
    ],
)
def test_numbers_of_fill_and_sample_that_are_out_of_range_are_errors(model, method, arguments, message):
    with pytest.raises(protembed.ProtembedError, match=message):
        getattr(model, method)("MK?", **arguments)


@pytest.fixture(scope="module")
def contact_model(tiny_model, tmp_path_factory):
    """The tiny model with a contact head of random weights."""
    checkpoint = load_checkpoint(tiny_model)
    checkpoint.contact_head.weight.copy_(torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))
    directory = tmp_path_factory.mktemp("contacts") / "contacts"
    save_checkpoint(checkpoint, directory, "# contacts\n")
    return protembed.load_model(directory)


def test_attention_and_contacts_have_the_bits_of_inspect_attention(contact_model, records, proteins_fasta, tmp_path):
    options = AttentionOptions.from_values(
        model=contact_model.checkpoint.directory, output=tmp_path / "att", save_maps=12
    )
    protembed.inspect_attention(proteins_fasta, options)

    for record, path in zip(records, sorted((tmp_path / "att" / "maps").iterdir()), strict=False):
        saved = np.load(path)
        assert np.array_equal(contact_model.attention(record), saved["attention"])
        assert np.array_equal(contact_model.contacts(record), saved["contacts"])
    assert contact_model.attention("MKTAYI").shape == (2, 4, 6, 6)


CLASSES = {
    "classification": ("cytoplasm", "nucleus", "other"),
    "multilabel": ("a", "b", "c"),
    "regression": None,
    "residue-classification": ("C", "E", "H"),
    "residue-regression": None,
}


def cell(value):
    """Write a value of a column as the table does."""
    if isinstance(value, str | int):
        return str(value)
    return ";".join(f"{number:.6g}" for number in np.atleast_1d(value))


@pytest.mark.parametrize("region", [None, "1-40"])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_the_columns_of_the_table_of_predict(
    make_finetuned, proteins_fasta, records, read_rows, tmp_path, task, region
):
    directory, output = make_finetuned(task, CLASSES[task], region), tmp_path / "table.tsv"
    summary = protembed.predict_fasta(
        str(proteins_fasta), PredictOptions.from_values(model=str(directory), output=output)
    )

    with pytest.warns(protembed.ProtembedWarning, match="does not record its training proteins") as caught:
        columns = protembed.load_model(directory).predict(records)
    assert {str(warning.message) for warning in caught} <= set(summary.warnings)
    assert all(warning.filename == __file__ for warning in caught)
    rows = [dict(zip(columns, map(cell, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    assert rows == read_rows(output)


def test_a_finetuned_model_embeds_the_region_that_it_was_trained_on(make_finetuned, proteins):
    model = protembed.load_model(make_finetuned("regression", region="2-20"))

    with pytest.warns(protembed.ProtembedWarning):
        vectors, residues = model.embed(proteins[:3]), model.embed_residues(proteins[:3])
    assert [len(of_protein) for of_protein in residues] == [19, 19, 19]
    assert np.allclose([of_protein.mean(axis=0) for of_protein in residues], vectors, atol=1e-6)
    with pytest.raises(protembed.ProtembedError, match="1 residues, but the model uses residues 2-20"):
        model.predict("M")


def test_log_probabilities_of_a_finetuned_encoder_come_with_a_warning(make_finetuned):
    with pytest.warns(protembed.ProtembedWarning, match="fine-tuned without its masked-LM head"):
        protembed.load_model(make_finetuned("regression")).log_probs("MKT")


def test_a_model_without_metadata_is_loaded_with_a_warning(tiny_esm, tmp_path):
    tiny_esm.save_pretrained(tmp_path / "foreign")

    with pytest.warns(protembed.ProtembedWarning, match="has no protembed.json"):
        protembed.load_model(tmp_path / "foreign")


def test_calls_leave_no_thread_behind(model, proteins):
    before = threading.active_count()
    for _ in range(3):
        model.embed(proteins[:2])

    assert threading.active_count() == before
    assert torch.get_num_threads() == 1
