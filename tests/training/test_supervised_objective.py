import copy
import math

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS, UNKNOWN_CLASS
from protembed.data.alphabet import encode
from protembed.data.windows import window_spans
from protembed.finetuning.batches import LabelledDataset
from protembed.model.encoder import initialise
from protembed.model.heads import TaskHead
from protembed.model.pooling import merge_windows
from protembed.training.objective import SupervisedObjective

CLASSES = {"class": ("a", "b", "c"), "labels": ("a", "b", "c"), "value": None}
NAN = math.nan


@pytest.fixture(scope="session")
def three(proteins):
    """Three proteins of 20, 30 and 25 residues."""
    return [proteins[2][:20], proteins[3][:30], proteins[4][:25]]


@pytest.fixture
def make_head():
    """Make a head with random weights."""

    def make(task, *, dim=32, **kind):
        head = TaskHead(dim, TASKS[task], CLASSES[TASKS[task].label_kind], **kind)
        initialise(head, "gaussian", torch.Generator().manual_seed(1))
        with torch.no_grad():
            head.linear.weight.mul_(20)
        if head.classes is None:
            head.offset.fill_(50.0)
            head.scale.fill_(20.0)
        return head

    return make


def batch_of(sequences, task, labels, window_residues=1022):
    dataset = LabelledDataset(
        residues=[encode(sequence) for sequence in sequences],
        targets=[np.array(label) for label in labels],
        task=TASKS[task],
        window_residues=window_residues,
    )
    (batch,) = dataset.micro_batches(range(len(sequences)))
    return batch


def vectors_of(encoder, batch, layer=-1):
    """Compute the vectors of the residues of each protein, none of them windowed: (residues, dim) each."""
    layout = encoder.layout(batch.offsets)
    hidden = list(encoder.hidden_states(batch.tokens, layout))[layer]
    return [protein[1:-1] for (protein,) in layout.split(hidden)]


def means_of(encoder, batch, layer=-1):
    return torch.stack([vectors.mean(0) for vectors in vectors_of(encoder, batch, layer)])


def costs_of_classes(logits, targets):
    return -(logits - logits.logsumexp(-1, keepdim=True))[range(len(targets)), targets]


# Proteins


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_loss_of_classes_is_their_cross_entropy_from_the_pooled_layer(tiny_encoder, three, make_head, layer):
    head, batch = make_head("classification"), batch_of(three, "classification", [2, 0, 1])

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], layer)(batch)

    logits = head.linear(means_of(tiny_encoder, batch, layer))
    assert loss.count == 3
    assert torch.allclose(loss.sum, costs_of_classes(logits, [2, 0, 1]).sum())
    assert loss.num_correct == (logits.argmax(-1) == torch.tensor([2, 0, 1])).sum()


def test_the_loss_of_labels_counts_each_label_of_each_protein(tiny_encoder, three, make_head):
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    head, batch = make_head("multilabel"), batch_of(three, "multilabel", labels)

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None)(batch)

    yes = 1 / (1 + torch.exp(-head.linear(means_of(tiny_encoder, batch))))
    assert torch.allclose(loss.sum, -torch.where(torch.tensor(labels) == 1, yes, 1 - yes).log().sum())
    assert (loss.count, loss.num_correct) == (9, 0)


def test_the_loss_of_values_is_half_the_squared_error_in_standard_deviations(tiny_encoder, three, make_head):
    head, batch = make_head("regression"), batch_of(three, "regression", [30.0, 50.0, 90.0])

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None)(batch)

    output = head.linear(means_of(tiny_encoder, batch))[:, 0]
    assert torch.allclose(loss.sum, ((output - torch.tensor([-1.0, 0, 2])) ** 2).sum() / 2)
    assert (loss.count, loss.num_correct) == (3, 0)


def test_poolings_are_concatenated_for_the_head(tiny_encoder, three, make_head):
    head, batch = make_head("regression", dim=64, num_hidden=8), batch_of(three, "regression", [30.0, 50.0, 90.0])

    loss = SupervisedObjective(tiny_encoder, head, ["max", "mean"], None)(batch)

    highest = torch.stack([vectors.amax(0) for vectors in vectors_of(tiny_encoder, batch)])
    hidden = head.hidden(torch.cat([highest, means_of(tiny_encoder, batch)], dim=1)).clamp(min=0)
    output = head.linear(hidden)[:, 0]
    assert torch.allclose(loss.sum, ((output - torch.tensor([-1.0, 0, 2])) ** 2).sum() / 2)


# Residues


def test_the_loss_of_residue_classes_ignores_unlabelled_residues(tiny_encoder, three, make_head):
    labels = [np.arange(len(protein)) % 3 for protein in three]
    labels[0][5:], labels[1][:] = UNKNOWN_CLASS, UNKNOWN_CLASS
    head, batch = make_head("residue-classification"), batch_of(three, "residue-classification", labels)

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None)(batch)

    first, _, last = (head.linear(vectors) for vectors in vectors_of(tiny_encoder, batch))
    expected = costs_of_classes(first[:5], labels[0][:5]).sum() + costs_of_classes(last, labels[2]).sum()
    assert loss.count == 5 + 25
    assert torch.allclose(loss.sum, expected)


def test_the_loss_of_residue_values_ignores_unlabelled_residues(tiny_encoder, three, make_head):
    labels = [[NAN, 70.0, *[NAN] * 18], [NAN] * 30, [*[NAN] * 24, 10.0]]
    head, batch = make_head("residue-regression"), batch_of(three, "residue-regression", labels)

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None)(batch)

    first, _, last = (head.linear(vectors)[:, 0] for vectors in vectors_of(tiny_encoder, batch))
    assert loss.count == 2
    assert torch.allclose(loss.sum, ((first[1] - 1) ** 2 + (last[24] + 2) ** 2) / 2)


@pytest.mark.parametrize(
    ("task", "unknown"), [("residue-classification", UNKNOWN_CLASS), ("residue-regression", math.nan)]
)
def test_a_batch_without_labels_has_no_loss(tiny_encoder, three, make_head, task, unknown):
    batch = batch_of(three, task, [np.full(len(protein), unknown) for protein in three])

    loss = SupervisedObjective(tiny_encoder, make_head(task), ["mean"], None)(batch)

    assert (loss.sum, loss.count, loss.num_correct) == (0, 0, 0)


# Long proteins


def merged_one_by_one(encoder, sequence, window_residues):
    """Merge the vectors of `<cls>` and of the residues of a long protein from windows computed one by one."""
    tokens = torch.tensor([0, *encode(sequence).tolist(), 2])
    spans, windows = window_spans(len(sequence), window_residues), []
    for start, stop in spans:
        window = tokens[start + (start > 0) : stop + 1 + (stop == len(sequence))]
        windows.append(encoder(window, encoder.layout(torch.tensor([0, len(window)]))))
    assert len(spans) > 2
    return merge_windows(windows, spans)


@pytest.mark.parametrize("pooling", ["mean", "max", "std", "cls"])
def test_a_long_protein_is_pooled_from_its_merged_windows_as_in_embed(tiny_encoder, proteins, make_head, pooling):
    # The second one fits into a window.
    sequences = [proteins[1], proteins[3][:30]]
    head, batch = make_head("regression"), batch_of(sequences, "regression", [70.0, 50.0], 60)

    loss = SupervisedObjective(tiny_encoder, head, [pooling], None)(batch)

    cls, residues = merged_one_by_one(tiny_encoder, sequences[0], 60)
    pooled = {"mean": residues.mean(0), "max": residues.amax(0), "std": residues.std(0, correction=0), "cls": cls}
    alone = SupervisedObjective(tiny_encoder, head, [pooling], None)(batch_of(sequences[1:], "regression", [50.0]))
    long = (head.linear(pooled[pooling])[0] - 1) ** 2 / 2
    assert loss.count == 2
    assert torch.allclose(loss.sum, long + alone.sum, atol=1e-5)


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
def test_each_residue_of_a_long_protein_counts_once(tiny_encoder, proteins, make_head, task):
    sequence = proteins[1]
    labels = np.arange(len(sequence)) % 3 if task == "residue-classification" else np.linspace(0, 100, len(sequence))
    head, batch = make_head(task), batch_of([sequence], task, [labels], 60)

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None)(batch)

    output = head.linear(merged_one_by_one(tiny_encoder, sequence, 60)[1])
    expected = (
        costs_of_classes(output, labels).sum()
        if task == "residue-classification"
        else ((output[:, 0] - torch.tensor((labels - 50) / 20)) ** 2).sum() / 2
    )
    assert loss.count == len(sequence) == 383
    assert torch.allclose(loss.sum, expected.float(), rtol=1e-4)


def gradients_of(objective, batch):
    loss = objective(batch).mean()
    gradients = torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True)
    return {name: gradient for (name, _), gradient in zip(objective.named_parameters(), gradients, strict=True)}


def test_every_window_of_a_long_protein_receives_a_gradient(tiny_encoder, proteins, make_head):
    batch = batch_of([proteins[1]], "regression", [70.0], 60)
    objective = SupervisedObjective(tiny_encoder, make_head("regression"), ["mean"], None)
    embedded = []
    tiny_encoder.embedding.register_forward_hook(lambda module, tokens, output: embedded.append(output))

    loss = objective(batch)

    (gradient,) = torch.autograd.grad(loss.sum, embedded)
    assert gradient.shape == (batch.num_tokens, 32)
    assert (gradient.abs().sum(1) > 0).all()


# Class weights


def test_class_weights_multiply_the_sum_and_not_the_count(tiny_encoder, three, make_head):
    head, batch = make_head("classification"), batch_of(three, "classification", [2, 0, 2])
    weights = torch.tensor([0.25, 10.0, 3.0])

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None, weights)(batch)

    costs = costs_of_classes(head.linear(means_of(tiny_encoder, batch)), [2, 0, 2])
    assert loss.count == 3
    assert torch.allclose(loss.sum, 3 * costs[0] + 0.25 * costs[1] + 3 * costs[2])


def test_label_weights_multiply_only_the_loss_of_positives(tiny_encoder, three, make_head):
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    head, batch = make_head("multilabel"), batch_of(three, "multilabel", labels)
    weights = torch.tensor([2.0, 5.0, 0.5])

    loss = SupervisedObjective(tiny_encoder, head, ["mean"], None, weights)(batch)

    yes = head.linear(means_of(tiny_encoder, batch)).sigmoid()
    costs = torch.where(torch.tensor(labels) == 1, -weights * yes.log(), -(1 - yes).log())
    assert torch.allclose(loss.sum, costs.sum())


# Attention pooling


def test_attention_pooling_starts_as_the_mean_and_learns_its_query(tiny_encoder, three, make_head):
    batch = batch_of(three, "classification", [2, 0, 1])
    attending, plain = make_head("classification", query_dim=32), make_head("classification")
    objective = SupervisedObjective(tiny_encoder, attending, ["attention"], None)

    mean = SupervisedObjective(tiny_encoder, plain, ["mean"], None)(batch)

    assert torch.allclose(objective(batch).sum, mean.sum, atol=1e-5)
    assert gradients_of(objective, batch)["task_head.query"].abs().sum() > 0
    with torch.no_grad():
        attending.query.normal_(generator=torch.Generator().manual_seed(0)).mul_(10)
    assert not torch.allclose(objective(batch).sum, mean.sum, atol=1e-3)


# Gradient checkpointing


@pytest.mark.parametrize(("task", "window_residues"), [("regression", 1022), ("residue-regression", 20)])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(
    family_encoder, three, make_head, task, window_residues
):
    labels = [30.0, 50.0, 90.0] if task == "regression" else [np.linspace(0, 99, len(protein)) for protein in three]
    batch = batch_of(three, task, labels, window_residues)
    objective = SupervisedObjective(family_encoder, make_head(task), ["mean"], None)
    checkpointed = copy.deepcopy(objective)
    checkpointed.encoder.gradient_checkpointing = True

    stored, recomputed = gradients_of(objective, batch), gradients_of(checkpointed, batch)

    assert torch.equal(objective(batch).sum, checkpointed(batch).sum)
    assert all(torch.allclose(stored[name], recomputed[name], atol=1e-6) for name in stored)


def test_gradient_checkpointing_recomputes_layers_only_if_gradients_are_needed(family_encoder, three, make_head):
    batch = batch_of(three, "regression", [30.0, 50.0, 90.0])
    objective, calls = SupervisedObjective(family_encoder, make_head("regression"), ["mean"], None), []
    for layer in family_encoder.layers:
        layer.attention_norm.register_forward_pre_hook(lambda *call: calls.append(call))
    family_encoder.gradient_checkpointing = True

    gradients_of(objective, batch)
    num_with_gradients = len(calls)
    with torch.no_grad():
        objective(batch)

    assert (num_with_gradients, len(calls) - num_with_gradients) == (4, 2)
