import re
from dataclasses import replace

import numpy as np
import pytest

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor
from protembed.attention.contacts import PrecisionRow
from protembed.attention.page import AttentionPage
from protembed.attention.page_content import PageFacts, page_content, page_facts
from protembed.attention.request import InspectionRequest
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import SiteResult
from protembed.attention.tables import STATISTIC_LABELS, Evaluation
from protembed.config.inspect_attention import AttentionOptions
from protembed.data.fasta import ReadStatistics
from protembed.evaluation.intervals import MetricWithInterval
from protembed.model.catalog import locate_model

FACTS = PageFacts(title="Attention", facts={"Command": "protembed inspect-attention x.fasta"})
# The head that is planted, of two layers of three heads.
PLANTED = 4


@pytest.fixture(scope="module")
def planted_test():
    """Test six heads on 40 items, of which the fifth head alone follows the 15 labelled ones."""
    rng = np.random.default_rng(0)
    is_labelled = np.arange(40) < 15
    values = rng.random((6, 40))
    values[PLANTED] += 2 * is_labelled
    scores = [LabelledScores(values=values, is_labelled=is_labelled, strata=np.zeros(40, int))] * 3
    return permutation_test(scores, num_permutations=500)


@pytest.fixture(scope="module")
def statistics(make_statistics):
    """Make the statistics of six heads without any pattern."""
    weights = (np.random.default_rng(1).random((2, 3, 42, 42)) < 0.2) + 1e-6
    return make_statistics({2 * "ACDEFGHIKLMNPQRSTVWY": weights / weights.sum(-1, keepdims=True)})


@pytest.fixture(scope="module")
def contacts(planted_test):
    rows = [
        PrecisionRow(
            range_name=range_name,
            fraction_name=fraction_name,
            precision=MetricWithInterval(value=0.5, low=0.41, high=0.58),
            random=0.04,
            matched_random=0.05,
            num_proteins=3,
        )
        for range_name in ("short", "medium", "long")
        for fraction_name in ("L", "L/2", "L/5")
    ]
    return ContactEvaluation(
        head_precisions=np.where(np.arange(6) == PLANTED, 0.314, 0.05),
        random_precision=0.04,
        significance=planted_test,
        precisions={"top heads": rows, "regression": rows},
        fitted=ContactPredictor(weight=np.ones(6), bias=0.0),
        num_proteins=3,
    )


@pytest.fixture(scope="module")
def evaluation(statistics, contacts):
    return Evaluation(statistics=statistics, contacts=contacts, sites={})


def content_of(evaluation):
    statistics = dict(zip(STATISTIC_LABELS.values(), evaluation.statistics.means, strict=True))
    return page_content(evaluation, FACTS, statistics)


def cards_of(evaluation):
    return {card.name: card for card in content_of(evaluation).cards}


def test_first_sentence_names_the_head_that_follows_contacts_with_its_precision(evaluation):
    finding, groups = content_of(evaluation).summary

    assert finding.startswith("Head 2 of layer 2 follows contacts best: ")
    assert "31 % touch in the structure, and of random pairs 4 %" in finding
    assert groups == "Of the model's 6 heads, 1 follows contacts and 5 attend to no residue in particular."


def test_cards_give_the_precision_of_predicted_contacts_and_count_the_heads_that_follow_them(evaluation):
    cards = cards_of(evaluation)

    assert cards["Predicted contacts"].value == "50 %"
    assert cards["Predicted contacts"].note.endswith("random pairs: 4 %")
    assert cards["Heads that follow contacts"].value == "1 of 6"
    assert "layer 2, head 2" in cards["Heads that follow contacts"].note


def test_head_that_attends_to_sites_is_named_with_their_label(statistics, planted_test):
    sites = {"<binding>": SiteResult(significance=planted_test, num_residues=15, num_segments=3)}
    content = content_of(Evaluation(statistics=statistics, contacts=None, sites=sites))

    assert "Head 2 of layer 2 attends to residues labelled '<binding>'" in content.summary[0]
    assert [card.value for card in content.cards] == ["1 of 6", "5 of 6"]


def test_contacts_that_no_head_follows_are_a_finding(statistics, contacts):
    nothing = replace(contacts, head_precisions=np.full(6, 0.04), fitted=None, precisions={})
    evaluation = Evaluation(statistics=statistics, contacts=nothing, sites={})

    assert content_of(evaluation).summary[0] == "No head follows contacts of these proteins clearly."
    assert cards_of(evaluation)["Heads that follow contacts"].value == "0 of 6"
    assert "Predicted contacts" not in cards_of(evaluation)
    assert content_of(evaluation).contacts == [nothing.finding]


def test_first_sentence_without_comparisons_names_the_clearest_head(make_statistics):
    weights = np.full((6, 42, 42), 1 / 42)
    weights[3] = 0.9 * np.eye(42, k=1) + 0.1 / 42
    weights = (weights / weights.sum(-1, keepdims=True)).reshape(2, 3, 42, 42)
    content = content_of(Evaluation(statistics=make_statistics({40 * "A": weights}), contacts=None, sites={}))

    finding = (
        "Head 1 of layer 2 has the clearest pattern: each residue gives 88 % of its attention to the residue after"
    )
    assert content.summary[0].startswith(finding)
    assert content.contacts == content.sites == []


def test_heads_without_any_pattern_are_a_finding(statistics):
    content = content_of(Evaluation(statistics=statistics, contacts=None, sites={}))

    assert content.summary[0].startswith("No head shows a clear pattern.")
    assert [card.value for card in content.cards] == ["6 of 6"]


def test_tables_of_heads_keep_layer_and_head_in_place_and_show_amino_acids_on_request(evaluation):
    heads, letters = content_of(evaluation).tables

    assert [column.name for column in heads.columns[:4]] == ["layer", "head", "attends to", "strength"]
    assert "long-range precision at L" in [column.name for column in heads.columns]
    assert heads.num_fixed == 2
    assert [column.name for column in letters.body[0].columns[:3]] == ["layer", "head", "Leu (L)"]
    assert len(letters.body[0].columns) == 22


def test_table_of_sites_lists_one_head_of_a_label_that_none_attends_to(statistics):
    scores = LabelledScores(
        values=np.random.default_rng(0).random((6, 40)), is_labelled=np.arange(40) < 9, strata=np.zeros(40, int)
    )
    test = permutation_test([scores], num_permutations=100)
    sites = {label: SiteResult(significance=test, num_residues=9, num_segments=1) for label in ("a", "b")}
    *cautions, table = content_of(Evaluation(statistics=statistics, contacts=None, sites=sites)).sites

    assert table.columns[0].cells == ["a", "b"]
    assert "No head attends significantly to 'a', 'b'" in table.note
    assert cautions[0] == "The result of 'a' rests on one protein, with labelled residues in 1 segment."


def test_precisions_are_shown_with_their_intervals(evaluation):
    sentence, table = content_of(evaluation).contacts

    assert sentence == evaluation.contacts.finding
    columns = {column.name: column for column in table.columns}
    assert columns["precision (fraction of contacts)"].cells[0] == MetricWithInterval(value=0.5, low=0.41, high=0.58)


def test_header_names_command_model_and_input_without_folders():
    options = AttentionOptions.from_values(region="5-20")
    request = InspectionRequest(
        model=locate_model("protembed_t6_8M"),
        fasta=[],
        options=options,
        command="protembed inspect-attention a.fasta b.fasta --region 5-20",
        file_names=["a.fasta", "b.fasta"],
    )
    title, facts, recorded_precision = page_facts(request, ReadStatistics(num_records=3, num_residues=1234), 0)

    assert title == "What the heads of protembed_t6_8M attend to in a.fasta and b.fasta"
    assert facts == {
        "Command": request.command,
        "Model": "protembed_t6_8M, 6 layers of 20 heads",
        "Input": "a.fasta and b.fasta: 3 proteins, 1,234 residues",
        "Region": "residues 5-20 are shown",
    }
    assert recorded_precision == request.recorded_precision


def test_the_page_says_how_precise_an_own_contact_head_was_elsewhere(evaluation):
    without = replace(evaluation, contacts=None)
    content = page_content(without, FACTS._replace(recorded_precision="in 24 structures, 8 %"), {})

    assert content.ranking == "The pairs are ranked by the model's own contact head: in 24 structures, 8 %."
    assert page_content(without, FACTS, {}).ranking == "The pairs are ranked by the model's own contact head."


def test_page_has_a_section_for_each_part_with_content(evaluation, make_displayed, make_contacts):
    page = AttentionPage([1, 2], [1, 2, 3])
    page.add(make_displayed(**make_contacts()))

    titles = re.findall("<h2.*?>(.*?)</h2>", page.render(content_of(evaluation)))
    assert titles == ["The protein", "What each head attends to", "Pairs of residues", "Contacts", "All heads"]
