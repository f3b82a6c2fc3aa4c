from dataclasses import replace

import pytest

import protembed
from protembed.model.card import finetuned_card, pretrained_card
from protembed.model.metadata import TrainingData

FACTS = {"trained on": "40 proteins", "validation": "perplexity 17.20", "a | b": "c | d"}


def table_of(card):
    """Split the card's table into cells at every bar that is not escaped."""
    lines = [line for line in card.splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "\0").strip("|").split("|") for line in lines[2:]]
    return [[cell.strip().replace("\0", "|") for cell in row] for row in cells]


def finetuned(checkpoint, **metadata):
    checkpoint.metadata = replace(checkpoint.metadata, **{"pooling": "mean", **metadata})
    return finetuned_card(checkpoint, FACTS)


def test_a_card_lists_facts_in_order_and_escapes_characters_of_tables(tiny_checkpoint):
    for card in (pretrained_card(tiny_checkpoint, FACTS), finetuned(tiny_checkpoint, target="stability")):
        assert table_of(card) == [list(fact) for fact in FACTS.items()]


def test_a_card_describes_the_model_and_its_use(tiny_checkpoint):
    card = pretrained_card(tiny_checkpoint, FACTS)

    assert card.startswith("# A protein language model\n")
    assert "2 layers of width 32, 4 heads, 0.0 M parameters" in card
    assert "protembed embed seqs.fasta -m DIRECTORY" in card
    assert "EsmForMaskedLM.from_pretrained" in card
    assert f"protembed {protembed.__version__}." in card
    assert "## Limits" in card


@pytest.mark.parametrize(
    ("task", "classes", "what"),
    [
        (None, None, "predicts a value for each protein"),
        ("regression", None, "predicts a value for each protein"),
        ("classification", ("in", "out", "between"), "predicts one of 3 classes for each protein"),
        ("multilabel", ("in", "out"), "predicts any of 2 labels for each protein"),
        ("residue-classification", ("H", "E", "C"), "predicts one of 3 classes for each residue"),
        ("residue-regression", None, "predicts a value for each residue"),
    ],
)
def test_a_finetuned_card_describes_the_prediction(tiny_checkpoint, task, classes, what):
    card = finetuned(tiny_checkpoint, target="stability", task=task, classes=classes)

    assert card.startswith("# Predicts stability\n")
    assert what in card
    assert "protembed predict seqs.fasta -m DIRECTORY" in card
    of_residues = task is not None and task.startswith("residue")
    assert ("the vector of each residue" in card) == of_residues
    assert ("protembed embed seqs.fasta -m DIRECTORY --per-residue" in card) == of_residues
    assert ("the mean of its residues' vectors" in card) == (not of_residues)


def test_a_finetuned_card_names_all_poolings_and_explains_the_metrics(tiny_checkpoint):
    card = finetuned(tiny_checkpoint, target="location", pooling="mean,std")

    assert "on the mean and std of its residues' vectors" in card
    assert "95 % intervals over test proteins" in card
    assert "`report.html`" in card


@pytest.mark.promise(17)
def test_the_name_of_a_column_cannot_become_markup(tiny_checkpoint):
    title = finetuned(tiny_checkpoint, target="<img src=x>[a](b)").splitlines()[0]

    assert "<img" not in title
    assert "[a](b)" not in title


def test_a_card_is_reproducible(tiny_checkpoint):
    assert pretrained_card(tiny_checkpoint, FACTS) == pretrained_card(tiny_checkpoint, FACTS)


@pytest.mark.parametrize(
    ("task", "labels", "row"),
    [
        ("classification", {"class_counts": {"in": 400, "out": 133}, "value_range": None}, "in 400, out 133"),
        ("regression", {"class_counts": None, "value_range": (-1.5, 20.0)}, "-1.50 to 20.0"),
    ],
)
def test_a_finetuned_card_describes_the_training_proteins(tiny_checkpoint, task, labels, row):
    data = TrainingData(
        num_proteins=533,
        lengths=(42, 68, 70, 70, 70),
        shortest=42,
        longest=71,
        num_nonstandard_residues=3,
        highest_nonstandard_fraction=0.02,
        starts_with_met_fraction=0.98,
        kmer_length=7,
        num_tested=300,
        num_tested_related=24,
        **labels,
    )

    card = finetuned(tiny_checkpoint, target="location", task=task, region="1-70", training_data=data)

    assert row in card
    assert "| 1-70 of each protein |" in card
    assert "42 to 70 residues, median 70, nine of ten from 68 to 70" in card
    assert "| 98% |" in card
    assert "24 of 300 share 7 residues in a row" in card
