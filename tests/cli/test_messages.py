from dataclasses import replace
from pathlib import Path

import pytest

from protembed.attention.summary import AttentionSummary, BestContactHead
from protembed.cli.layout import Table
from protembed.cli.messages import (
    attention_summary_lines,
    finetune_summary_lines,
    pretrain_summary_lines,
)
from protembed.cli.search_messages import search_summary_lines
from protembed.config.common import TASKS
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import ClassMetrics
from protembed.finetuning.comparison import Comparison
from protembed.finetuning.finetune import FinetuneSummary
from protembed.pretraining.report import PretrainSummary
from protembed.search.search import SearchSummary

SUMMARY = PretrainSummary(
    output=Path("a.run"),
    model=Path("a.run/model"),
    num_steps=10,
    num_residues=1000,
    num_skipped=0,
    best_step=10,
    valid_loss=2.88,
    valid_perplexity=17.81,
    references={"unigram": 2.89, "bigram": 2.9},
    num_valid_proteins=16,
    gains={},
    amino_acids=[],
    is_finished=True,
)


def summary_lines(gains, num_valid_proteins=16):
    summary = replace(SUMMARY, gains=gains, num_valid_proteins=num_valid_proteins)
    lines = list(pretrain_summary_lines(summary))
    return [text for line in lines for text in (line.lines() if isinstance(line, Table) else [line])]


GAINS = {
    "unigram": MetricWithInterval(value=0.01, low=0.004, high=0.016),
    "bigram": MetricWithInterval(value=-0.02, low=-0.03, high=-0.01),
}


def test_pretraining_is_summarised_by_a_table_and_its_gain_over_each_baseline():
    assert summary_lines(GAINS) == [
        "validation      loss  perplexity",
        "unigram model  2.890       17.99",
        "bigram model   2.900       18.17",
        "this model     2.880       17.81",
        "the model is better than the unigram model: +0.010 [+0.004, +0.016] nats",
        "the model is worse than the bigram model: -0.020 [-0.030, -0.010] nats",
        "gains are differences in loss, with 95 % intervals over 16 validation proteins",
        "a.run/model: validation loss 2.880, perplexity 17.81",
    ]


def test_gain_with_zero_in_its_interval_is_no_significant_difference():
    found = summary_lines({"unigram": MetricWithInterval(value=0.01, low=-0.004, high=0.024)})

    assert "no significant difference between the model and the unigram model: +0.010 [-0.004, +0.024] nats" in found


def test_one_validation_protein_is_too_few_for_an_interval():
    found = summary_lines({"unigram": MetricWithInterval(value=0.01, low=None, high=None)}, num_valid_proteins=1)

    assert found[4:-1] == ["too few validation proteins (1) to compare with the unigram model: +0.010 nats"]


def test_unfinished_run_reports_no_gains():
    assert summary_lines({})[4:] == ["a.run/model: validation loss 2.880, perplexity 17.81"]


@pytest.mark.parametrize(
    ("follows_contacts", "sentence"),
    [
        (True, "layer 4 head 12 follows contacts best (long-range precision at L 0.310, random pairs 0.040)"),
        (
            False,
            "no head follows contacts; the most precise is layer 4 head 12 (long-range precision at L 0.310, random "
            "pairs 0.040)",
        ),
    ],
)
def test_summary_of_attention_names_what_heads_attend_to_and_the_best_contact_head(follows_contacts, sentence):
    summary = AttentionSummary(
        output=Path("a.attention"),
        num_proteins=300,
        num_maps=3,
        num_structures=3,
        num_refused=0,
        has_contacts=False,
        precisions=[],
        warnings=[],
        num_heads={"none": 57, "offset": 14, "amino acid": 22},
        best_contact_head=BestContactHead(
            layer=4, head=12, precision=0.31, random=0.04, follows_contacts=follows_contacts
        ),
        num_following={},
        sites={},
        plan=None,
    )

    assert list(attention_summary_lines(summary))[1:] == [
        "heads.tsv: what 93 heads attend to: a fixed offset 14, an amino acid 22, no clear pattern 57",
        "3 proteins matched to a structure",
        sentence,
    ]


def test_amino_acids_fit_a_terminal_of_40_columns():
    amino_acid = ClassMetrics(name="L", count=1234, loss=2.5061, accuracy=0.225, top_confusion="R")
    absent = ClassMetrics(name="C", count=0, loss=None, accuracy=None, top_confusion=None)

    table = next(pretrain_summary_lines(replace(SUMMARY, amino_acids=[amino_acid, absent])))

    assert table.lines(40) == [
        "residue   loss  accuracy  top confusion",
        "L        2.506     22.5%  R",
        "C",
    ]


def test_columns_of_a_fine_tuning_have_the_same_decimals():
    metrics = {
        "spearman": MetricWithInterval(value=0.5),
        "rmse": MetricWithInterval(value=12.345, low=9.9, high=14.2),
    }
    mean = {
        "spearman": MetricWithInterval(value=None),
        "rmse": MetricWithInterval(value=20.0, low=17.123, high=22.0),
    }
    comparison = Comparison(
        task=TASKS["regression"],
        model="frozen",
        num_repeats=None,
        num_proteins=100,
        averages={},
        predictors={"mean": mean, "frozen": metrics},
        differences={"mean": MetricWithInterval(value=None)},
    )
    summary = FinetuneSummary(output=Path("a.model"), task=TASKS["regression"], comparison=comparison)

    table, *_, verdict, last = finetune_summary_lines(summary, [])

    assert table.lines() == [
        "         Spearman  RMSE",
        "mean    undefined  20.0 [17.1, 22.0]",
        "frozen      0.500  12.3 [9.9, 14.2]",
    ]
    assert verdict == "whether the language model was worth it is not known: Spearman of all baselines is undefined"
    assert last == "a.model: the model, its metrics and report.html"


HITS = SearchSummary(
    output=Path("a.hits.tsv"),
    num_queries=1,
    num_database=40,
    num_hits=10,
    metric="cosine",
    is_same=False,
    median_cosine=0.9314,
    median_z_score=3.26,
)


def test_search_reports_the_hits_and_the_recall_of_an_approximate_search():
    hits = "a.hits.tsv: 10 hits of 1 protein in a database of 40 proteins; the nearest have a median cosine of 0.931, "
    hits += "3.3 standard deviations above the query's mean"

    assert list(search_summary_lines(HITS)) == [hits]
    recall = "approximate search: 97 % of the exact neighbours of a sample of the queries were found"
    assert list(search_summary_lines(replace(HITS, recall=0.97))) == [recall, hits]
    assert list(search_summary_lines(replace(HITS, was_done=True))) == []


def test_search_reports_what_was_measured_of_transferred_labels():
    summary = replace(HITS, median_reliability=0.98, findings=["vectors add nothing"])

    assert list(search_summary_lines(summary)) == [
        "vectors add nothing",
        "a.hits.tsv: labels of 1 protein, with a median reliability of 0.98",
    ]
