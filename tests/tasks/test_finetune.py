import csv
import json

import numpy as np
import pytest
import torch

from protembed.analysis.model_rungs import Watcher
from protembed.config.embed import EmbedConfig
from protembed.config.finetune import FinetuneConfig, LabelsConfig
from protembed.config.predict import PredictConfig
from protembed.config.shared import ComputeConfig, ModelConfig
from protembed.config.task import TASKS
from protembed.data.fasta import read_fasta
from protembed.data.predictions import prediction_header
from protembed.errors import ConfigError, OutputExistsError, RunInUseError, TableError
from protembed.files import exclusive_lock
from protembed.model.checkpoint import load_checkpoint
from protembed.tasks.embed import embed_fasta
from protembed.tasks.finetune import FinetuneOptions, finetune_model
from protembed.tasks.predict import predict_fasta

PARITY = {"rtol": 1e-5, "atol": 1e-5}
NUM_TRAIN, NUM_VALID = 24, 6
METRICS = {
    "classification": {"accuracy", "macro_f1", "mcc", "auroc"},
    "multilabel": {"auprc", "fmax"},
    "regression": {"spearman", "rmse", "mse", "r2"},
    "residue-classification": {"accuracy", "macro_f1", "mcc"},
    "residue-regression": {"spearman", "rmse", "mse", "r2"},
}


def share_of(letter, sequence):
    return sequence.count(letter) / len(sequence)


def labels_of(proteins, task):
    """Labels that real proteins have indeed, of each kind."""
    shares = {letter: np.array([share_of(letter, protein) for protein in proteins]) for letter in "LGK"}
    middles = {letter: np.median(values[:NUM_TRAIN]) for letter, values in shares.items()}
    if task == "classification":
        return ["rich" if share > middles["L"] else "poor" for share in shares["L"]]
    if task == "regression":
        return [f"{100 * share:.3f}" for share in shares["L"]]
    if task == "multilabel":
        rows = zip(*((shares[letter] > middles[letter]).tolist() for letter in "LGK"), strict=True)
        return [";".join(["all", *(letter for letter, has in zip("LGK", row, strict=True) if has)]) for row in rows]
    if task == "residue-classification":
        return ["".join("H" if letter in "AELKM" else "C" for letter in protein) for protein in proteins]
    return [";".join("nan" if letter == "X" else f"{ord(letter) / 10}" for letter in protein) for protein in proteins]


@pytest.fixture(scope="module")
def tables(tmp_path_factory, proteins):
    """A table of each task, of forty real proteins."""
    folder = tmp_path_factory.mktemp("tables")
    splits = ["train"] * NUM_TRAIN + ["valid"] * NUM_VALID + ["test"] * (len(proteins) - NUM_TRAIN - NUM_VALID)
    for task in TASKS:
        with (folder / f"{task}.csv").open("w", newline="") as stream:
            ids = [f"p{row}" for row in range(len(proteins))]
            rows = zip(ids, proteins, labels_of(proteins, task), splits, strict=True)
            csv.writer(stream).writerows([("id", "sequence", "label", "split"), *rows])
    return folder


def options(output, model, *, labels=None, **settings):
    return FinetuneOptions(
        finetune=FinetuneConfig(output=output, **{"epochs": 2, "tokens_per_batch": 1024, "quick": True} | settings),
        labels=LabelsConfig(**labels or {}),
        model=ModelConfig(model=model),
        compute=ComputeConfig(threads=1),
    )


def rows_of(path, delimiter="\t"):
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def fasta_of_test_part(table, path):
    rows = [row for row in rows_of(table, ",") if row["split"] == "test"]
    path.write_text("".join(f">{row['id']}\n{row['sequence']}\n" for row in rows))
    return path


def predict(fasta, model, output, **settings):
    predict_fasta([fasta], ModelConfig(model=model), PredictConfig(output=output), **settings)
    return rows_of(output)


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
def finetuned(tables, tiny_model, tmp_path_factory, task, method):
    output = tmp_path_factory.mktemp("finetuned") / f"{task}.model"
    return task, output, finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method))


# What is left behind


def test_each_task_is_recognised_and_measured_beside_simpler_ways(finetuned, method):
    task, output, summary = finetuned
    simple = ["15 letters"] if TASKS[task].per_residue else ["composition", "k-mers"]
    own = {"frozen": ["frozen"], "full": ["frozen", "fine-tuned"], "lora": ["frozen", "LoRA"]}[method]
    trivial = "mean" if TASKS[task].answer == "value" else "majority"

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


def test_predict_reproduces_the_predictions_of_the_test_part(finetuned, tables, tmp_path):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv", tmp_path / "test.fasta")

    predicted, recorded = predict(fasta, output, tmp_path / "preds.tsv"), rows_of(output / "test_predictions.tsv")

    labels = {row["id"]: row["label"] for row in rows_of(tables / f"{task}.csv", ",")}
    assert all(row.pop("label") == labels[row["id"]] for row in recorded)
    assert list(predicted[0]) == ["id", *prediction_header(load_checkpoint(output).task_head.classes)]
    assert_same_predictions(predicted, recorded)


def test_order_batches_and_threads_do_not_change_predictions(finetuned, tables, tmp_path):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv", tmp_path / "test.fasta")
    records = list(read_fasta([fasta]))
    straight = predict(fasta, output, tmp_path / "straight.tsv", compute=ComputeConfig(threads=1))

    shuffled = [records[row] for row in np.random.default_rng(0).permutation(len(records))]
    (tmp_path / "s.fasta").write_text("".join(f">{one.id}\n{one.sequence}\n" for one in shuffled))
    other = predict(tmp_path / "s.fasta", output, tmp_path / "other.tsv", compute=ComputeConfig(threads=3))

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


def test_embedding_with_a_finetuned_model_gives_the_vectors_that_its_head_sees(finetuned, tables, tmp_path):
    task, output, _ = finetuned
    fasta = fasta_of_test_part(tables / f"{task}.csv", tmp_path / "test.fasta")

    vectors, _ = embedded(fasta, output, tmp_path / ("emb.npz" if TASKS[task].per_residue else "emb.npy"))

    assert_the_head_says_of_the_vectors(output, vectors, rows_of(output / "test_predictions.tsv"))


@pytest.mark.parametrize(
    ("method", "pooling", "task"),
    [
        ("frozen", "mean", "regression"),
        ("frozen", "mean,std", "classification"),
        ("frozen", "mean", "residue-classification"),
        ("full", "mean,std", "multilabel"),
        ("full", "attention", "regression"),
        ("full", "mean", "residue-regression"),
        ("lora", "attention", "classification"),
    ],
)
def test_long_proteins_are_trained_embedded_and_predicted_in_the_same_windows(
    tables, windowed_model, tmp_path, method, pooling, task
):
    output, table = tmp_path / "windowed.model", tables / f"{task}.csv"
    finetune_model(table, options(output, windowed_model, method=method, pooling=pooling))
    fasta = fasta_of_test_part(table, tmp_path / "test.fasta")

    predictions = predict(fasta, output, tmp_path / "preds.tsv")
    vectors, num_windowed = embedded(fasta, output, tmp_path / ("e.npz" if TASKS[task].per_residue else "e.npy"))

    record = load_checkpoint(output).record
    assert (record.window_residues, record.pooling) == (64, pooling)
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


def test_the_page_escapes_what_a_table_may_hold(tables, tiny_model, tmp_path):
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


# The course


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("num_steps", [2, 6, 9])
def test_a_stopped_training_is_resumed_bit_for_bit(tables, tiny_model, tmp_path, method, num_steps):
    """The last stop falls into the second of two repeats."""
    table, settings, seen = tables / "classification.csv", {"method": method, "repeats": 2, "quick": False}, []
    finetune_model(table, options(tmp_path / "whole.model", tiny_model, **settings))
    watcher = Watcher(on_step=seen.append, stop=lambda: len(seen) == num_steps)
    left = finetune_model(table, options(tmp_path / "parts.model", tiny_model, **settings), watcher=watcher)
    assert (left.is_finished, left.output, left.ladder) == (False, None, None)
    assert not (tmp_path / "parts.model").exists()

    finetune_model(table, options(tmp_path / "parts.model", tiny_model, **settings))

    for path in (tmp_path / "whole.model").iterdir():
        assert (tmp_path / "parts.model" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_same_command_again_finds_its_work_done(finetuned, tables, tiny_model, method):
    task, output, summary = finetuned

    assert finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method)) == summary


def test_another_result_is_refused(finetuned, tables, tiny_model, method):
    task, output, _ = finetuned

    with pytest.raises(OutputExistsError):
        finetune_model(tables / f"{task}.csv", options(output, tiny_model, method=method, seed=1))


def test_two_trainings_cannot_share_a_directory(tables, tiny_model, tmp_path):
    with exclusive_lock(tmp_path / ".x.model.partial.lock", lambda holder: RuntimeError(holder)):
        with pytest.raises(RunInUseError):
            finetune_model(tables / "classification.csv", options(tmp_path / "x.model", tiny_model))


# Splits and repeats


def without_splits(table, path, *, num_copies=1):
    rows = rows_of(table, ",")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "sequence", "label"))
        for copy in range(num_copies):
            writer.writerows((f"{row['id']}.{copy}", row["sequence"], row["label"]) for row in rows)
    return path


def test_in_folds_every_protein_is_predicted_once_by_a_model_that_never_saw_it(tables, tiny_model, tmp_path):
    table = without_splits(tables / "regression.csv", tmp_path / "all.csv")
    kfold = options(tmp_path / "folds.model", tiny_model, method="frozen", labels={"split": "kfold"})

    finetune_model(table, kfold)

    predicted = rows_of(tmp_path / "folds.model" / "test_predictions.tsv")
    assert sorted(row["id"] for row in predicted) == sorted(row["id"] for row in rows_of(table, ","))
    similar = {row["id"]: float(row["similarity"]) for row in rows_of(tmp_path / "folds.model" / "test_similarity.tsv")}
    assert similar.keys() == {row["id"] for row in predicted}
    assert max(similar.values()) < 1


def test_folds_can_be_trained_too(tables, tiny_model, tmp_path):
    table = without_splits(tables / "classification.csv", tmp_path / "all.csv")
    kfold = options(tmp_path / "folds.model", tiny_model, method="full", epochs=1, labels={"split": "kfold"})

    summary = finetune_model(table, kfold)

    assert list(summary.ladder.rungs) == ["majority", "composition", "k-mers", "frozen", "fine-tuned"]
    assert load_checkpoint(tmp_path / "folds.model").task_head.classes == ("poor", "rich")


def test_the_repeat_with_the_lowest_validation_loss_is_kept(tables, tiny_model, tmp_path):
    """Each repeat alone is a training with its own seed; the best of them is what the repeats leave."""
    table, lost = tables / "regression.csv", {}
    settings = {"method": "full", "epochs": 3, "head_rate_factor": 100.0}
    summary = finetune_model(table, options(tmp_path / "two.model", tiny_model, repeats=2, **settings))
    for seed in (0, 1):
        reports = []
        output = tmp_path / f"{seed}.model"
        watcher = Watcher(on_step=reports.append)
        finetune_model(table, options(output, tiny_model, seed=seed, **settings), watcher=watcher)
        lost[seed] = min(report.validation["valid_loss"] for report in reports if report.validation)

    best = min(lost, key=lost.get)
    assert lost[0] != lost[1]
    assert summary.ladder.num_repeats == 2
    kept = load_checkpoint(tmp_path / "two.model").encoder.state_dict()
    alone = load_checkpoint(tmp_path / f"{best}.model").encoder.state_dict()
    assert all(torch.equal(kept[name], alone[name]) for name in kept)


def test_test_proteins_that_were_trained_on_can_be_left_out(tables, tiny_model, proteins, tmp_path):
    table = tmp_path / "shared.csv"
    table.write_text((tables / "regression.csv").read_text() + f"again,{proteins[0]},5.0,test\n")

    dropped = options(tmp_path / "d.model", tiny_model, method="frozen", labels={"drop_shared": True})
    plans = []
    finetune_model(table, dropped, on_plan=plans.append)
    finetune_model(table, options(tmp_path / "k.model", tiny_model, method="frozen"), on_plan=plans.append)

    assert [plan.num_proteins["test"] for plan in plans] == [10, 11]
    assert plans[0].notes[0] == "1 of 11 test proteins were left out: not new sequences"
    assert plans[1].notes[0] == "1 of 11 test sequences also stand in train or valid (--drop-shared)"
    similar = {row["id"]: row for row in rows_of(tmp_path / "k.model" / "test_similarity.tsv")}
    assert (similar["again"]["similarity"], similar["again"]["nearest_training_protein"]) == ("1.000", "p0")


# What is refused


IMPOSSIBLE = {
    "an unknown pooling": ({"pooling": "sum"}, "regression"),
    "a pooling twice": ({"pooling": "mean,mean"}, "regression"),
    "attention over a frozen encoder": ({"pooling": "attention", "method": "frozen"}, "regression"),
    "attention over residues": ({"pooling": "attention"}, "residue-regression"),
    "weights of values": ({"class_weights": True}, "regression"),
    "weights of a frozen encoder's network": (
        {"class_weights": True, "method": "frozen", "head": "mlp"},
        "classification",
    ),
}


@pytest.mark.parametrize(("settings", "task"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_learned_is_a_usage_error_and_leaves_nothing(tables, tiny_model, tmp_path, settings, task):
    with pytest.raises(ConfigError):
        finetune_model(tables / f"{task}.csv", options(tmp_path / "x.model", tiny_model, **settings))

    assert list(tmp_path.iterdir()) == []


def test_a_bad_table_leaves_nothing(tiny_model, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("sequence,label,split\nMKT,a,train\nMKV,a,test\nMKL,a,valid\n")

    with pytest.raises(TableError, match="all training labels are 'a'"):
        finetune_model(table, options(tmp_path / "bad.model", tiny_model))

    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
