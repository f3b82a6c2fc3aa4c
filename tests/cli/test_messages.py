from pathlib import Path

import pytest

from protembed.attention.summary import AttentionSummary, BestContactHead
from protembed.cli.messages import attention_summary_lines, pretrain_summary_lines
from protembed.evaluation.intervals import MetricWithInterval
from protembed.pretraining.report import PretrainSummary


def summary_lines(gains, num_valid_proteins=16):
    summary = PretrainSummary(
        output=Path("a.run"),
        model=Path("a.run/model"),
        num_steps=10,
        num_residues=1000,
        num_skipped=0,
        best_step=10,
        valid_loss=2.88,
        valid_perplexity=17.81,
        references={"unigram": 2.89, "bigram": 2.9},
        num_valid_proteins=num_valid_proteins,
        gains=gains,
        amino_acids=[],
        is_finished=True,
    )
    return list(pretrain_summary_lines(summary))


def test_gain_over_each_baseline_has_an_interval():
    found = summary_lines(
        {
            "unigram": MetricWithInterval(value=0.01, low=0.004, high=0.016),
            "bigram": MetricWithInterval(value=0.02, low=0.01, high=0.03),
        }
    )

    assert found[0].endswith("unigram loss 2.890, 0.010 nats better")
    assert found[1:] == [
        "gain in nats, with 95 % intervals over 16 validation proteins: +0.010 [+0.004, +0.016] over the unigram "
        "model; +0.020 [+0.010, +0.030] over the bigram model"
    ]


def test_gain_with_zero_in_its_interval_is_no_significant_difference():
    found = summary_lines(
        {
            "unigram": MetricWithInterval(value=0.01, low=-0.004, high=0.024),
            "bigram": MetricWithInterval(value=0.02, low=0.01, high=0.03),
        }
    )

    assert found[2:] == ["no significant difference from the unigram model (the interval contains 0)"]


def test_one_validation_protein_is_too_few_for_an_interval():
    found = summary_lines({"unigram": MetricWithInterval(value=0.01, low=None, high=None)}, num_valid_proteins=1)

    assert found[1:] == ["too few validation proteins (1) for an interval of this difference"]


def test_unfinished_run_reports_no_gains():
    assert len(summary_lines({})) == 1


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
