import csv
import json

import numpy as np
import pytest
import torch

from protembed.config.embed import EmbedConfig
from protembed.config.finetune import FinetuneConfig
from protembed.config.predict import PredictConfig
from protembed.config.shared import ComputeConfig, ModelConfig
from protembed.errors import OutputExistsError, TableError
from protembed.model.checkpoint import load_checkpoint
from protembed.tasks.embed import embed_fasta
from protembed.tasks.finetune import FinetuneOptions, finetune_model
from protembed.tasks.predict import predict_fasta

PARITY = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def tables(tmp_path_factory, proteins):
    """Tables with a class (rich in leucine or not) and a value (the share of leucine) for real proteins."""
    folder = tmp_path_factory.mktemp("tables")
    leucine = [sequence.count("L") / len(sequence) for sequence in proteins]
    middle = sorted(leucine)[len(leucine) // 2]
    splits = ["train"] * 24 + ["valid"] * 6 + ["test"] * (len(proteins) - 30)
    labels = {
        "classification": ["rich" if share > middle else "poor" for share in leucine],
        "regression": [f"{100 * share:.3f}" for share in leucine],
    }
    for task, column in labels.items():
        with (folder / f"{task}.csv").open("w", newline="") as stream:
            rows = zip([f"p{row}" for row in range(len(proteins))], proteins, column, splits, strict=True)
            csv.writer(stream).writerows([("id", "sequence", "label", "split"), *rows])
    return folder


def options(output, model, **settings):
    return FinetuneOptions(
        finetune=FinetuneConfig(output=output, epochs=2, tokens_per_batch=1024, **settings),
        model=ModelConfig(model=model),
        compute=ComputeConfig(threads=1),
    )


def test_fasta_of(table, path):
    with table.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    path.write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in rows))
    return path


test_fasta_of.__test__ = False


@pytest.fixture(scope="module", params=["frozen", "full"])
def method(request):
    return request.param


@pytest.fixture(scope="module", params=["classification", "regression"])
def task(request):
    return request.param


@pytest.fixture(scope="module")
def finetuned(tables, tiny_model, tmp_path_factory, task, method):
    output = tmp_path_factory.mktemp("finetuned") / f"{task}.model"
    return task, output, finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method))


def test_the_task_is_recognised_and_measured_beside_the_trivial_answer(finetuned):
    task, output, summary = finetuned
    names = {
        "classification": {"accuracy", "macro_f1", "mcc", "auroc"},
        "regression": {"spearman", "rmse", "mse", "r2"},
    }

    assert summary.task == task
    assert summary.test.keys() == summary.baseline.keys() == names[task]
    assert json.loads((output / "metrics.json").read_text())["test"] == summary.test


def test_nothing_of_the_training_is_left_beside_the_model(finetuned):
    _, output, _ = finetuned

    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_predict_reproduces_the_predictions_of_the_test_part(finetuned, tables, tmp_path):
    task, output, _ = finetuned
    fasta = test_fasta_of(tables / f"{task}.csv", tmp_path / "test.fasta")

    predict_fasta([fasta], ModelConfig(model=output), PredictConfig(output=tmp_path / "preds.tsv"))
    with (tmp_path / "preds.tsv").open() as ours, (output / "test_predictions.tsv").open() as recorded:
        predicted, expected = (list(csv.DictReader(stream, delimiter="\t")) for stream in (ours, recorded))

    assert [row["id"] for row in predicted] == [row["id"] for row in expected]
    for mine, theirs in zip(predicted, expected, strict=True):
        for name, value in mine.items():
            if name != "id" and value.replace(".", "").replace("-", "").isdigit():
                assert float(value) == pytest.approx(float(theirs[name]), rel=1e-4, abs=1e-5)
            else:
                assert value == theirs[name]


def assert_the_head_says_of_the_vectors(model, vectors, *tables):
    """Apply a model's head to vectors, and compare with tables of predictions, which have six digits."""
    head = load_checkpoint(model).task_head
    with torch.no_grad():
        said = head.predict(torch.from_numpy(np.load(vectors))).numpy()
    columns = [f"p_{name}" for name in head.classes] if head.classes else ["prediction"]
    for table in tables:
        with table.open() as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        predicted = np.array([[float(row[column]) for column in columns] for row in rows])
        np.testing.assert_allclose(said.reshape(predicted.shape), predicted, rtol=2e-5, atol=1e-6)


def embedded_and_predicted(fasta, model, folder):
    """Embed and predict the same proteins; return the vectors, the table, and how many were longer than a window."""
    vectors, table = folder / "emb.npy", folder / "preds.tsv"
    predict_fasta([fasta], ModelConfig(model=model), PredictConfig(output=table))
    summary = embed_fasta([fasta], ModelConfig(model=model), EmbedConfig(output=vectors))
    return vectors, table, summary.num_windowed


def test_embedding_with_a_finetuned_model_gives_the_vector_that_its_head_sees(finetuned, tables, tmp_path):
    task, output, _ = finetuned
    fasta = test_fasta_of(tables / f"{task}.csv", tmp_path / "test.fasta")

    vectors, predictions, _ = embedded_and_predicted(fasta, output, tmp_path)

    assert_the_head_says_of_the_vectors(output, vectors, predictions, output / "test_predictions.tsv")


def test_so_it_does_of_proteins_longer_than_the_window(tables, windowed_model, task, tmp_path):
    output = tmp_path / "windowed.model"
    finetune_model(tables / f"{task}.csv", options(output, windowed_model, method="frozen"))
    fasta = test_fasta_of(tables / f"{task}.csv", tmp_path / "test.fasta")

    vectors, predictions, num_windowed = embedded_and_predicted(fasta, output, tmp_path)

    assert_the_head_says_of_the_vectors(output, vectors, predictions, output / "test_predictions.tsv")
    assert num_windowed > 5


def test_so_it_does_of_a_protein_longer_than_any_of_the_training(finetuned, proteins, tmp_path):
    _, output, _ = finetuned
    window = load_checkpoint(output).record.window_residues
    fasta = tmp_path / "giant.fasta"
    fasta.write_text(f">giant\n{''.join(proteins)[: 2 * window]}\n")

    vectors, predictions, num_windowed = embedded_and_predicted(fasta, output, tmp_path)

    assert_the_head_says_of_the_vectors(output, vectors, predictions)
    assert num_windowed == 1


def test_whoever_was_trained_on_whole_proteins_computes_such_whole(tables, windowed_model, proteins, tmp_path):
    windows = {}
    for method in ("full", "frozen"):
        output = tmp_path / f"{method}.model"
        finetune_model(tables / "regression.csv", options(output, windowed_model, method=method))
        windows[method] = load_checkpoint(output).record.window_residues

    assert windows == {"full": max(map(len, proteins[:24])), "frozen": 64}


def test_a_frozen_encoder_stays_as_it_was_to_the_bit(finetuned, tiny_model, method):
    _, output, _ = finetuned
    before, after = (load_checkpoint(path).encoder.state_dict() for path in (tiny_model, output))

    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == (method == "frozen")


def test_transformers_loads_the_finetuned_encoder(finetuned, proteins, tmp_path):
    transformers = pytest.importorskip("transformers")
    _, output, _ = finetuned
    fasta = tmp_path / "one.fasta"
    fasta.write_text(f">p\n{proteins[0]}\n")
    embed_fasta([fasta], ModelConfig(model=output), EmbedConfig(output=tmp_path / "emb.npy"))

    encoder = transformers.EsmModel.from_pretrained(output, add_pooling_layer=False).eval()
    tokens = transformers.EsmTokenizer.from_pretrained(output)(proteins[0], return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(**tokens).last_hidden_state[0, 1:-1]

    np.testing.assert_allclose(np.load(tmp_path / "emb.npy")[0], hidden.mean(0).numpy(), **PARITY)


def test_a_stopped_training_is_resumed_bit_for_bit(tables, tiny_model, tmp_path):
    table, seen = tables / "classification.csv", []
    finetune_model(table, options(tmp_path / "whole.model", tiny_model))
    left = finetune_model(
        table, options(tmp_path / "parts.model", tiny_model), on_step=seen.append, stop=lambda: len(seen) == 2
    )
    assert not left.is_finished
    assert not (tmp_path / "parts.model").exists()

    finetune_model(table, options(tmp_path / "parts.model", tiny_model))

    for name in ("model.safetensors", "head.safetensors", "test_predictions.tsv"):
        assert (tmp_path / "parts.model" / name).read_bytes() == (tmp_path / "whole.model" / name).read_bytes()


def test_the_same_command_again_finds_its_work_done(finetuned, tables, tiny_model, method):
    task, output, summary = finetuned

    assert finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method)) == summary


def test_another_result_is_refused(finetuned, tables, tiny_model, method):
    task, output, _ = finetuned

    with pytest.raises(OutputExistsError):
        finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method, seed=1))


def test_the_vector_can_be_pooled_otherwise_and_the_model_remembers_it(tables, tiny_model, tmp_path):
    finetune_model(
        tables / "regression.csv", options(tmp_path / "max.model", tiny_model, method="frozen", pooling="max")
    )

    assert load_checkpoint(tmp_path / "max.model").record.pooling == "max"


def test_a_bad_table_leaves_nothing(tiny_model, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("sequence,label,split\nMKT,a,train\nMKV,a,test\nMKL,a,valid\n")

    with pytest.raises(TableError, match="all training labels are 'a'"):
        finetune_model(table, options(tmp_path / "bad.model", tiny_model))

    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
