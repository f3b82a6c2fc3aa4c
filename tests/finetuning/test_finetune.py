import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS, DeviceConfig, ModelConfig
from protembed.config.embed import EmbedConfig
from protembed.config.finetune import PredictConfig
from protembed.data.fasta import read_fasta
from protembed.embedding.embed import embed_fasta
from protembed.errors import OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta, prediction_header
from protembed.model.checkpoint import load_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}
METRICS = {
    "classification": {"accuracy", "macro_f1", "mcc", "auroc"},
    "multilabel": {"auprc", "fmax"},
    "regression": {"spearman", "rmse", "mse", "r2"},
    "residue-classification": {"accuracy", "macro_f1", "mcc"},
    "residue-regression": {"spearman", "rmse", "mse", "r2"},
}


@pytest.fixture
def fasta_of_test_part(rows_of, tmp_path):
    """Write the test proteins of a table."""

    def write(table):
        rows = [row for row in rows_of(table, ",") if row["split"] == "test"]
        (tmp_path / "test.fasta").write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in rows))
        return tmp_path / "test.fasta"

    return write


@pytest.fixture
def predict(rows_of):
    """Predict proteins, and read what was written."""

    def run(fasta, model, output, **settings):
        predict_fasta([fasta], ModelConfig(model=model), PredictConfig(output=output), **settings)
        return rows_of(output)

    return run


def assert_same_predictions(predicted, expected):
    """Compare tables cell by cell: numbers, alone or in lists, to parity, and all else to the letter."""
    assert [row["id"] for row in predicted] == [row["id"] for row in expected]
    for mine, theirs in zip(predicted, expected, strict=True):
        for name in mine.keys() - {"id"}:
            try:
                ours, others = (np.array(row[name].split(";"), dtype=float) for row in (mine, theirs))
            except ValueError:
                assert mine[name] == theirs[name]
            else:
                np.testing.assert_allclose(ours, others, **PARITY)


@pytest.fixture(scope="module", params=["frozen", "full", "lora"])
def method(request):
    return request.param


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def finetuned(tables, tiny_model, tmp_path_factory, task, method, options):
    output = tmp_path_factory.mktemp("finetuned") / f"{task}.model"
    return task, output, finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method))


# What is left behind


def test_each_task_is_recognised_and_measured_beside_simpler_ways(finetuned, method):
    task, output, summary = finetuned
    simple = ["15 letters"] if TASKS[task].per_residue else ["composition", "k-mers"]
    own = {"frozen": ["frozen"], "full": ["frozen", "fine-tuned"], "lora": ["frozen", "LoRA"]}[method]
    trivial = "mean" if TASKS[task].label_kind == "value" else "majority"

    assert summary.task == TASKS[task]
    assert list(summary.ladder.rungs) == [trivial, *simple, *own]
    assert summary.ladder.figures.keys() == METRICS[task]
    recorded = json.loads((output / "metrics.json").read_text())
    assert recorded["ladder"]["rungs"][own[-1]].keys() == METRICS[task]
    assert sum(band["num_proteins"] for band in recorded["by_similarity"]) == 10
    assert sum(band["num_proteins"] for band in recorded["by_length"]) == 10


def test_nothing_of_the_training_is_left_beside_the_model(finetuned):
    _, output, _ = finetuned

    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert {path.suffix for path in output.iterdir()} == {".json", ".safetensors", ".tsv", ".md", ".txt", ".html"}


def test_predict_reproduces_the_predictions_of_the_test_part(
    finetuned, tables, tmp_path, rows_of, fasta_of_test_part, predict
):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv")

    predicted, recorded = predict(fasta, output, tmp_path / "preds.tsv"), rows_of(output / "test_predictions.tsv")

    labels = {row["id"]: row["label"] for row in rows_of(tables / f"{task}.csv", ",")}
    assert all(row.pop("label") == labels[row["id"]] for row in recorded)
    assert list(predicted[0]) == ["id", *prediction_header(load_checkpoint(output).task_head.classes)]
    assert_same_predictions(predicted, recorded)


@pytest.mark.promise(10)
def test_order_batches_and_threads_do_not_change_predictions(finetuned, tables, tmp_path, fasta_of_test_part, predict):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv")
    records = list(read_fasta([fasta]))
    straight = predict(fasta, output, tmp_path / "straight.tsv", compute=DeviceConfig(threads=1))

    shuffled = [records[row] for row in np.random.default_rng(0).permutation(len(records))]
    (tmp_path / "s.fasta").write_text("".join(f">{one.id}\n{one.sequence}\n" for one in shuffled))
    other = predict(tmp_path / "s.fasta", output, tmp_path / "other.tsv", compute=DeviceConfig(threads=3))

    by_id = {row["id"]: row for row in other}
    assert [row["id"] for row in other] == [record.id for record in shuffled]
    assert_same_predictions([by_id[row["id"]] for row in straight], straight)


def numbers_in(rows, column):
    """Join a column of numbers, or of lists of numbers, of a table of predictions."""
    return np.concatenate([np.array(row[column].split(";"), dtype=float) for row in rows])


def assert_the_head_says_of_the_vectors(model, vectors, *predictions):
    """Apply a model's head to vectors, and compare with tables of predictions, which have six digits."""
    head = load_checkpoint(model).task_head
    with torch.no_grad():
        said = head.predict(torch.from_numpy(vectors)).numpy().reshape(len(vectors), -1)
    columns = [f"p_{name}" for name in head.classes] if head.classes else ["prediction"]
    for rows in predictions:
        predicted = np.stack([numbers_in(rows, column) for column in columns], axis=1)
        np.testing.assert_allclose(said, predicted, rtol=2e-5, atol=1e-6)


def embedded(fasta, model, output):
    """Embed proteins, or their residues; return all vectors, and how many proteins were longer than a window."""
    per_residue = output.suffix == ".npz"
    summary = embed_fasta([fasta], ModelConfig(model=model), EmbedConfig(output=output, per_residue=per_residue))
    if not per_residue:
        return np.load(output), summary.num_windowed
    with np.load(output) as file:
        return file["embeddings"], summary.num_windowed


def test_embedding_with_a_finetuned_model_gives_the_vectors_that_its_head_sees(
    finetuned, tables, tmp_path, rows_of, fasta_of_test_part
):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv")

    vectors, _ = embedded(fasta, output, tmp_path / ("emb.npz" if TASKS[task].per_residue else "emb.npy"))

    assert_the_head_says_of_the_vectors(output, vectors, rows_of(output / "test_predictions.tsv"))


@pytest.mark.parametrize(
    ("method", "pooling", "task"),
    [
        ("frozen", "mean", "regression"),
        ("frozen", "mean,std", "classification"),
        ("frozen", "auto", "residue-classification"),
        ("full", "mean,std", "multilabel"),
        ("full", "attention", "regression"),
        ("full", "mean,attention", "multilabel"),
        ("full", "auto", "residue-regression"),
        ("lora", "attention", "classification"),
    ],
)
def test_long_proteins_are_trained_embedded_and_predicted_in_the_same_windows(
    tables, windowed_model, tmp_path, method, pooling, task, rows_of, options, fasta_of_test_part, predict
):
    output, table = tmp_path / "windowed.model", tables / f"{task}.csv"
    finetune_model(table, options(output, windowed_model, method=method, pooling=pooling))
    fasta = fasta_of_test_part(table)

    predictions = predict(fasta, output, tmp_path / "preds.tsv")
    vectors, num_windowed = embedded(fasta, output, tmp_path / ("e.npz" if TASKS[task].per_residue else "e.npy"))

    record = load_checkpoint(output).metadata
    assert (record.window_residues, record.pooling) == (64, None if pooling == "auto" else pooling)
    assert vectors.shape[1] == 32 * len(pooling.split(","))
    assert_the_head_says_of_the_vectors(output, vectors, predictions, rows_of(output / "test_predictions.tsv"))
    assert num_windowed > 5


def test_only_what_is_trained_changes(finetuned, tiny_model, method):
    _, output, _ = finetuned
    before, after = (load_checkpoint(path).encoder.state_dict() for path in (tiny_model, output))
    changed = {name for name in before if not torch.equal(before[name], after[name])}

    matrices = {name for name in before if name.startswith("layers.") and before[name].ndim == 2}
    if method == "frozen":
        assert changed == set()
    if method == "lora":
        assert changed <= matrices


@pytest.mark.promise(11)
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


@pytest.mark.promise(17)
def test_the_page_escapes_what_a_table_may_hold(tables, tiny_model, tmp_path, rows_of, options):
    rows = rows_of(tables / "classification.csv", ",")
    evil = "<script>alert(1)</script>"
    with (tmp_path / "evil.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "sequence", evil, "split"))
        writer.writerows((row["id"], row["sequence"], f"{evil}{row['label']}", row["split"]) for row in rows)

    evil_options = options(tmp_path / "evil.model", tiny_model, method="frozen", labels={"target": evil})
    finetune_model(tmp_path / "evil.csv", evil_options)

    page = (tmp_path / "evil.model" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_command_again_finds_its_work_done(finetuned, tables, tiny_model, method, options):
    task, output, summary = finetuned

    again = finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method))

    assert again == replace(summary, was_done=True)


def test_another_result_is_refused(finetuned, tables, tiny_model, method, options):
    task, output, _ = finetuned

    with pytest.raises(OutputExistsError):
        finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method, seed=1))


def test_sequences_and_identifiers_of_several_labels_are_told(tables, tiny_model, tmp_path, options):
    header, first, *rows = (tables / "regression.csv").read_text().splitlines()
    identifier, sequence, _, split = first.split(",")
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_text("\n".join([header, first, f"{identifier},{sequence},-5,{split}", *rows]))

    summary = finetune_model(doubtful, options(tmp_path / "x.model", tiny_model, method="frozen"))

    assert "1 identifier of several rows, such as 'p0'" in summary.notes
    assert "1 sequence with labels that differ from row to row, such as 'p0'" in summary.notes
