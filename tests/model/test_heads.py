import pytest
import torch

from protembed.config.common import TASKS
from protembed.data.alphabet import AMINO_ACID_IDS, AMINO_ACIDS, MASK, TOKENS
from protembed.model.checkpoint import load_checkpoint
from protembed.model.encoder import initialise
from protembed.model.heads import ContactHead, MaskedLMHead, TaskHead, average_product_correction


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# Masked-LM head


def test_the_bias_of_the_thirteen_tokens_that_are_no_amino_acid_is_minus_a_hundred(tiny_checkpoint):
    bias = dict(zip(TOKENS, tiny_checkpoint.lm_head.bias.tolist(), strict=True))

    assert {token for token, value in bias.items() if value == -100} == set(TOKENS) - set(AMINO_ACIDS)
    assert {bias[letter] for letter in AMINO_ACIDS} == {0}


def test_a_softmax_over_all_tokens_gives_the_probabilities_of_the_twenty(tiny_checkpoint):
    hidden, embedding = random(5, 32), tiny_checkpoint.encoder.embedding.weight

    of_all = tiny_checkpoint.lm_head(hidden, embedding).softmax(-1)
    of_twenty = tiny_checkpoint.lm_head(hidden, embedding, AMINO_ACID_IDS).softmax(-1)

    assert of_twenty.shape == (5, 20)
    assert torch.allclose(of_all[:, AMINO_ACID_IDS], of_twenty)


def test_the_decoder_is_the_given_embedding():
    head, embedding = MaskedLMHead(8), random(33, 8).requires_grad_()

    head(random(2, 8), embedding).sum().backward()

    assert embedding.grad.abs().sum() > 0
    assert {name for name, _ in head.named_parameters()} == {
        *("dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias", "bias")
    }


@pytest.mark.promise(11)
@torch.no_grad()
def test_logits_equal_those_of_transformers(esm2, whole_batch, proteins):
    model, directory = esm2
    checkpoint = load_checkpoint(directory)
    batch = whole_batch(sorted(proteins, key=len)[::13])
    tokens = batch.tokens.clone()
    tokens[3::9] = MASK

    hidden = checkpoint.encoder(tokens, checkpoint.encoder.layout(batch.offsets))
    logits = checkpoint.lm_head(hidden, checkpoint.encoder.embedding.weight)

    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        expected = model(tokens[None, start:stop]).logits[0]
        torch.testing.assert_close(logits[start:stop], expected, rtol=1e-5, atol=1e-5)


# Contact head


def test_corrected_maps_have_rows_that_sum_to_zero():
    maps = random(3, 6, 6).abs()

    corrected = average_product_correction(maps + maps.mT)

    assert torch.allclose(corrected.sum(-1), torch.zeros(3, 6), atol=1e-5)


def test_the_correction_removes_products_of_row_and_column_effects():
    weights = random(6).abs()

    assert torch.allclose(average_product_correction(torch.outer(weights, weights)), torch.zeros(6, 6), atol=1e-6)


def test_an_unfitted_contact_head_is_not_fitted(tiny_checkpoint):
    assert not tiny_checkpoint.contact_head.is_fitted
    assert tiny_checkpoint.contact_head.weight.shape == (1, 2 * 4)

    tiny_checkpoint.contact_head.weight[0, 3] = -0.1

    assert tiny_checkpoint.contact_head.is_fitted


def test_contacts_are_symmetric_probabilities():
    head = ContactHead(6)
    head.weight.copy_(random(1, 6))

    contacts = head(random(2, 3, 7, 7).softmax(-1))

    assert contacts.shape == (7, 7)
    assert torch.allclose(contacts, contacts.T)
    assert ((contacts > 0) & (contacts < 1)).all()


@pytest.mark.promise(11)
@torch.no_grad()
def test_contacts_equal_those_of_transformers(esm2, whole_batch, proteins):
    model, directory = esm2
    checkpoint = load_checkpoint(directory)
    batch = whole_batch(sorted(proteins, key=len)[:20:9])
    assert checkpoint.contact_head.is_fitted

    layers = list(checkpoint.encoder.attention_maps(batch.tokens, checkpoint.encoder.layout(batch.offsets)))

    for row, (start, stop) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        tokens = batch.tokens[None, start:stop]
        maps = torch.stack([maps[row][:, 1:-1, 1:-1] for maps in layers])
        expected = model.predict_contacts(tokens, torch.ones_like(tokens))[0]
        torch.testing.assert_close(checkpoint.contact_head(maps), expected, rtol=1e-5, atol=1e-5)


# Task heads


def task_head(task="classification", classes=None, num_inputs=8, **kind):
    head = TaskHead(num_inputs, TASKS[task], classes, **kind)
    initialise(head, "gaussian", torch.Generator().manual_seed(1))
    return head


@pytest.mark.parametrize("task", ["classification", "residue-classification"])
def test_a_classifier_predicts_probabilities_of_its_classes(task):
    head = task_head(task, ["membrane", "soluble", "other"])

    probabilities = head.predict(random(5, 8))

    assert probabilities.shape == (5, 3)
    assert torch.allclose(probabilities.sum(-1), torch.ones(5))
    assert torch.allclose(probabilities, head(random(5, 8)).softmax(-1))


def test_each_label_has_an_independent_probability():
    head = task_head("multilabel", ["membrane", "nucleus"])
    with torch.no_grad():
        head.linear.bias.fill_(3.0)

    probabilities = head.predict(random(5, 8))

    assert torch.allclose(probabilities, 1 / (1 + torch.exp(-head(random(5, 8)))))
    assert (probabilities.sum(-1) > 1.5).all()


@pytest.mark.parametrize("task", ["regression", "residue-regression"])
def test_a_regressor_predicts_in_the_units_of_the_labels(task):
    head = task_head(task)
    head.offset.fill_(50.0)
    head.scale.fill_(10.0)

    values = head.predict(random(5, 8))

    assert values.shape == (5,)
    assert torch.allclose(values, 50 + 10 * head(random(5, 8)))


@pytest.mark.parametrize("num_hidden", [None, 6])
def test_a_hidden_layer_applies_a_relu(num_hidden):
    head, vectors = task_head("regression", num_hidden=num_hidden), random(5, 8)

    if num_hidden is not None:
        inside = vectors @ head.hidden.weight.T + head.hidden.bias
        assert (inside < 0).any()
        vectors = inside.where(inside > 0, 0.0)

    expected = (vectors @ head.linear.weight.T + head.linear.bias)[:, 0]
    assert torch.allclose(head(random(5, 8)), expected, atol=1e-6)


@pytest.mark.parametrize("classes", [None, ["a", "b"]])
def test_units_and_threshold_are_stored_with_the_weights(classes):
    task, stored = "regression" if classes is None else "multilabel", {"offset", "scale", "threshold"}

    assert set(task_head(task, classes).state_dict()) == {"linear.weight", "linear.bias", *stored}
    assert set(task_head(task, classes, num_hidden=4, query_dim=8).state_dict()) == {
        *("linear.weight", "linear.bias", "hidden.weight", "hidden.bias", "query"),
        *stored,
    }


def test_a_new_query_is_a_parameter_of_zeros_and_the_threshold_a_buffer():
    head = task_head("multilabel", ["a", "b"], query_dim=5)

    assert head.query.tolist() == [0.0] * 5
    assert head.threshold.item() == 0.5
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias", "query"}


def test_the_steepness_of_a_head_is_the_largest_sum_of_absolute_weights_of_an_output():
    head = task_head("classification", ["a", "b"], num_inputs=3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [4.0, 0.5, -0.25]]))

    assert head.steepness == 6.0


def test_the_steepness_of_a_head_with_a_hidden_layer_sums_over_its_units():
    head = task_head("regression", num_inputs=2, num_hidden=2)
    with torch.no_grad():
        head.hidden.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        head.linear.weight.copy_(torch.tensor([[-2.0, 0.5]]))

    # |-2| · (1 + 2) + |0.5| · 3
    assert head.steepness == 7.5


@pytest.mark.parametrize("num_hidden", [None, 6])
def test_softening_divides_all_predictions_of_a_head_by_one_factor(num_hidden):
    head, vectors = task_head("classification", ["a", "b", "c"], num_hidden=num_hidden), random(5, 8)
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    before, steepness = head(vectors), head.steepness

    head.soften(steepness / 4)

    assert head.steepness == pytest.approx(steepness / 4)
    torch.testing.assert_close(head(vectors), before / 4)


def test_softening_leaves_a_head_below_the_maximum_unchanged():
    head = task_head("regression")
    before = head.linear.weight.clone()

    head.soften(head.steepness)

    assert torch.equal(head.linear.weight, before)
