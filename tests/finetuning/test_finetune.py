import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.config.embed import EmbedOptions
from protembed.config.finetune import PredictOptions
from protembed.data.fasta import read_fasta
from protembed.embedding.embed import embed_fasta
from protembed.errors import OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.finetuning.prediction import prediction_header
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
def write_test_fasta(read_rows, tmp_path):
    """Write the test proteins of a table as FASTA."""

    def write(table):
        rows = [row for row in read_rows(table, ",") if row["split"] == "test"]
        (tmp_path / "test.fasta").write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in rows))
        return tmp_path / "test.fasta"

    return write


@pytest.fixture
def predict(read_rows):
    """Predict proteins, and read the table."""

    def run(fasta, model, output, **settings):
        predict_fasta([fasta], PredictOptions.from_values(model=model, output=output, **settings))
        return read_rows(output)

    return run


def assert_same_predictions(predicted, expected):
    """Compare tables cell by cell: numbers and lists of numbers approximately, all other cells exactly."""
    assert [row["id"] for row in predicted] == [row["id"] for row in expected]
    for row, expected_row in zip(predicted, expected, strict=True):
        for name in row.keys() - {"id"}:
            try:
                values, expected_values = (
                    np.array(cells[name].split(";"), dtype=float) for cells in (row, expected_row)
                )
            except ValueError:
                assert row[name] == expected_row[name]
            else:
                np.testing.assert_allclose(values, expected_values, **PARITY)


@pytest.fixture(scope="module", params=["frozen", "full", "lora"])
def method(request):
    return request.param


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def finetuned(labelled_tables, tiny_model, tmp_path_factory, task, method, finetune_options):
    output = tmp_path_factory.mktemp("finetuned") / f"{task}.model"
    return (
        task,
        output,
        finetune_model(labelled_tables / f"{task}.csv", finetune_options(output, tiny_model, method=method)),
    )


# The model directory


def test_each_task_is_inferred_and_compared_with_baselines(finetuned, method):
    task, output, summary = finetuned
    from_sequence = ["15 letters"] if TASKS[task].per_residue else ["composition", "k-mers"]
    from_model = {"frozen": ["frozen"], "full": ["frozen", "fine-tuned"], "lora": ["frozen", "LoRA"]}[method]
    constant = "mean" if TASKS[task].label_kind == "value" else "majority"

    assert summary.task == TASKS[task]
    assert list(summary.comparison.predictors) == [constant, *from_sequence, *from_model]
    assert summary.comparison.model_metrics.keys() == METRICS[task]
    recorded = json.loads((output / "metrics.json").read_text())
    assert recorded["model_name"] and recorded["identity"]["command"] == "finetune"
    assert recorded["comparison"]["predictors"][from_model[-1]].keys() == METRICS[task]
    assert sum(subgroup["num_proteins"] for subgroup in recorded["by_similarity"]) == 10
    assert sum(subgroup["num_proteins"] for subgroup in recorded["by_length"]) == 10
    assert recorded["verdict"] == summary.comparison.verdict()
    assert "| result | " in (output / "README.md").read_text()


def test_the_metrics_hold_the_kept_step_and_the_loss_of_the_frozen_encoder(finetuned, method):
    _, output, _ = finetuned

    training = json.loads((output / "metrics.json").read_text())["training"]

    if method == "frozen":
        assert training == {"kept_step": None, "frozen_valid_loss": None}
        return
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line.get("valid_loss") for line in lines}
    kept = training["frozen_valid_loss"] if training["kept_step"] == 0 else losses[training["kept_step"]]
    assert kept == min(training["frozen_valid_loss"], *(loss for loss in losses.values() if loss is not None))


def test_the_metrics_hold_each_class_the_confusions_and_the_worst_predictions(finetuned, read_rows):
    task, output, _ = finetuned
    recorded, tested = json.loads((output / "metrics.json").read_text()), read_rows(output / "test_predictions.tsv")
    classes = load_checkpoint(output).task_head.classes

    assert {result["name"] for result in recorded["by_class"]} == set(classes or ())
    assert (recorded["confusion_matrix"] is not None) == (TASKS[task].label_kind == "class")
    assert {row["id"] for row in recorded["worst_predictions"]} <= {row["id"] for row in tested}
    if task == "classification":
        wrong = {row["id"] for row in tested if row["label"] != row["prediction"]}
        counts = np.array(recorded["confusion_matrix"]["counts"])
        assert {row["id"] for row in recorded["worst_predictions"]} == wrong
        assert counts.sum() - counts.trace() == len(wrong)


def test_no_file_of_the_training_is_left_beside_the_model(finetuned, method):
    _, output, _ = finetuned
    suffixes = {".json", ".safetensors", ".tsv", ".md", ".txt", ".html"}

    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert {path.suffix for path in output.iterdir()} - {".jsonl"} == suffixes


def test_the_model_holds_the_log_of_its_training_without_what_differs_from_run_to_run(finetuned, method):
    _, output, _ = finetuned
    log = output / "metrics.jsonl"
    if method == "frozen":  # nothing is trained step by step
        assert not log.exists()
        return

    lines = [json.loads(line) for line in log.read_text().splitlines()]

    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0].keys() == {"step", "residues", "train_loss", "learning_rate", "grad_norm"}
    assert "valid_loss" in lines[-1]


def test_predict_reproduces_the_test_predictions(
    finetuned, labelled_tables, tmp_path, read_rows, write_test_fasta, predict
):
    task, output, _ = finetuned
    fasta = write_test_fasta(labelled_tables / f"{task}.csv")

    predicted, recorded = predict(fasta, output, tmp_path / "preds.tsv"), read_rows(output / "test_predictions.tsv")

    labels = {row["id"]: row["label"] for row in read_rows(labelled_tables / f"{task}.csv", ",")}
    assert all(row.pop("label") == labels[row["id"]] for row in recorded)
    assert list(predicted[0]) == ["id", *prediction_header(load_checkpoint(output).task_head.classes)]
    assert_same_predictions(predicted, recorded)


@pytest.mark.promise(10)
def test_order_batches_and_threads_do_not_change_predictions(
    finetuned, labelled_tables, tmp_path, write_test_fasta, predict
):
    task, output, _ = finetuned
    fasta = write_test_fasta(labelled_tables / f"{task}.csv")
    records = list(read_fasta([fasta]))
    expected = predict(fasta, output, tmp_path / "expected.tsv", threads=1)

    shuffled = [records[row] for row in np.random.default_rng(0).permutation(len(records))]
    (tmp_path / "s.fasta").write_text("".join(f">{record.id}\n{record.sequence}\n" for record in shuffled))
    reordered = predict(tmp_path / "s.fasta", output, tmp_path / "reordered.tsv", threads=3)

    by_id = {row["id"]: row for row in reordered}
    assert [row["id"] for row in reordered] == [record.id for record in shuffled]
    assert_same_predictions([by_id[row["id"]] for row in expected], expected)


def numbers_in(rows, column):
    """Join the numbers in a column of a table of predictions."""
    return np.concatenate([np.array(row[column].split(";"), dtype=float) for row in rows])


def assert_head_predicts(model, vectors, *predictions):
    """Apply a model's head to vectors, and compare with tables of predictions, which have six digits."""
    head = load_checkpoint(model).task_head
    with torch.no_grad():
        expected = head.predict(torch.from_numpy(vectors)).numpy().reshape(len(vectors), -1)
    columns = [f"p_{name}" for name in head.classes] if head.classes else ["prediction"]
    for rows in predictions:
        predicted = np.stack([numbers_in(rows, column) for column in columns], axis=1)
        np.testing.assert_allclose(expected, predicted, rtol=2e-5, atol=1e-6)


def embedded(fasta, model, output):
    """Embed proteins or residues; return all vectors, and the number of proteins longer than a window."""
    per_residue = output.suffix == ".npz"
    summary = embed_fasta(
        [fasta],
        EmbedOptions.from_values(model=model, output=output, per_residue=per_residue),
    )
    if not per_residue:
        return np.load(output), summary.num_windowed
    with np.load(output) as file:
        return file["embeddings"], summary.num_windowed


def test_embedding_with_a_finetuned_model_gives_the_vectors_that_its_head_sees(
    finetuned, labelled_tables, tmp_path, read_rows, write_test_fasta
):
    task, output, _ = finetuned
    fasta = write_test_fasta(labelled_tables / f"{task}.csv")

    vectors, _ = embedded(fasta, output, tmp_path / ("emb.npz" if TASKS[task].per_residue else "emb.npy"))

    assert_head_predicts(output, vectors, read_rows(output / "test_predictions.tsv"))


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
    labelled_tables,
    windowed_model,
    tmp_path,
    method,
    pooling,
    task,
    read_rows,
    finetune_options,
    write_test_fasta,
    predict,
):
    output, table = tmp_path / "windowed.model", labelled_tables / f"{task}.csv"
    finetune_model(table, finetune_options(output, windowed_model, method=method, pooling=pooling))
    fasta = write_test_fasta(table)

    predictions = predict(fasta, output, tmp_path / "preds.tsv")
    vectors, num_windowed = embedded(fasta, output, tmp_path / ("e.npz" if TASKS[task].per_residue else "e.npy"))

    metadata = load_checkpoint(output).metadata
    assert (metadata.window_residues, metadata.pooling) == (64, None if pooling == "auto" else pooling)
    assert vectors.shape[1] == 32 * len(pooling.split(","))
    assert_head_predicts(output, vectors, predictions, read_rows(output / "test_predictions.tsv"))
    assert num_windowed > 5


def test_each_method_changes_only_the_weights_that_it_trains(finetuned, tiny_model, method):
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
    embed_fasta([fasta], EmbedOptions.from_values(model=output, output=tmp_path / "emb.npy"))

    encoder = transformers.EsmModel.from_pretrained(output, add_pooling_layer=False).eval()
    tokens = transformers.EsmTokenizer.from_pretrained(output)(proteins[0], return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(**tokens).last_hidden_state[0, 1:-1]

    np.testing.assert_allclose(np.load(tmp_path / "emb.npy")[0], hidden.mean(0).numpy(), **PARITY)


@pytest.mark.promise(17)
def test_the_page_escapes_the_names_in_a_table(labelled_tables, tiny_model, tmp_path, read_rows, finetune_options):
    rows = read_rows(labelled_tables / "classification.csv", ",")
    evil = "<script>alert(1)</script>"
    with (tmp_path / "evil.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "sequence", evil, "split"))
        writer.writerows((row["id"], row["sequence"], f"{evil}{row['label']}", row["split"]) for row in rows)

    evil_options = finetune_options(tmp_path / "evil.model", tiny_model, method="frozen", labels={"target": evil})
    finetune_model(tmp_path / "evil.csv", evil_options)

    page = (tmp_path / "evil.model" / "report.html").read_text()
    assert page.count("<script") == 1  # that of every page
    assert "&lt;script&gt;" in page
    assert not re.search(r"https?:(?!//www\.w3\.org/)", page)


def test_repeating_a_finished_command_returns_the_same_summary(
    finetuned, labelled_tables, tiny_model, method, finetune_options
):
    task, output, summary = finetuned

    again = finetune_model(labelled_tables / f"{task}.csv", finetune_options(output, tiny_model, method=method))

    assert again == replace(summary, was_done=True)


def test_a_result_with_the_former_keys_is_read(labelled_tables, tiny_model, tmp_path, finetune_options):
    table, settings = (
        labelled_tables / "regression.csv",
        finetune_options(tmp_path / "x.model", tiny_model, method="frozen"),
    )
    summary = finetune_model(table, settings)
    metrics = json.loads((tmp_path / "x.model/metrics.json").read_text())
    metrics["ladder"] = metrics.pop("comparison")
    metrics["ladder"]["rungs"] = metrics["ladder"].pop("predictors")
    (tmp_path / "x.model/metrics.json").write_text(json.dumps(metrics))

    assert finetune_model(table, settings) == replace(summary, was_done=True)


def test_the_result_of_another_seed_is_not_overwritten(
    finetuned, labelled_tables, tiny_model, method, finetune_options
):
    task, output, _ = finetuned

    with pytest.raises(OutputExistsError, match=r"was made with other settings \(`seed` was 0, not 1\)"):
        finetune_model(labelled_tables / f"{task}.csv", finetune_options(output, tiny_model, method=method, seed=1))


def test_sequences_and_identifiers_with_several_labels_are_noted(
    labelled_tables, tiny_model, tmp_path, finetune_options
):
    header, first, *rows = (labelled_tables / "regression.csv").read_text().splitlines()
    identifier, sequence, _, split = first.split(",")
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_text("\n".join([header, first, f"{identifier},{sequence},-5,{split}", *rows]))

    summary = finetune_model(doubtful, finetune_options(tmp_path / "x.model", tiny_model, method="frozen"))

    assert "1 identifier used by several rows, such as 'p0'" in summary.notes
    assert "1 sequence with different labels in different rows, such as 'p0'" in summary.notes
