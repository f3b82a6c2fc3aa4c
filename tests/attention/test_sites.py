import numpy as np
import pytest
import torch

from protembed.attention.maps import AttentionExtractor, MapRequest
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import Site, SiteTable, SiteTests, residue_strata, site_warnings
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.errors import TableError
from protembed.inference.computation import run_to_end
from protembed.model.checkpoint import load_checkpoint

# Rat parvalbumin with a mutated loop (PDB 1S3P, chain A) and the ten side chains that bind its two calcium ions.
PARVALBUMIN = (
    "SMTDLLSAEDIKKAIGAFTAADSFDHKKFFQMVGLKKKSADDVKKVFHILDKDKDGFIDEDELGSILKGFSSDARDLSAKETKTLMAAGDKDGDGKIGVEEFSTLVAES"
)
CALCIUM = [51, 53, 55, 57, 62, 90, 92, 94, 96, 101]
OTHER_ACIDS = [
    position for position, letter in enumerate(PARVALBUMIN, start=1) if letter in "DE" and position not in CALCIUM
]


def record(sequence=PARVALBUMIN, id="P02625", row=0):
    return Record(row=row, id=id, description=id, sequence=sequence, path="x.fasta", line=1 + 2 * row)


def make_sites(positions, protein="P02625", label="calcium"):
    return [
        Site(protein=protein, position=position, label=label, line=line)
        for line, position in enumerate(positions, start=2)
    ]


def site_tests(sites):
    return SiteTests(SiteTable(path="sites.tsv", sites=sites))


def evaluate(positions, received, num_permutations=1000):
    tests = site_tests(make_sites(positions))
    tests.add(record(), received)
    return tests.evaluate(num_permutations=num_permutations, seed=0)["calcium"]


def num_found_among_all_residues(positions, received):
    """Count the heads that are significant in a comparison with all residues of the protein."""
    is_labelled = np.isin(np.arange(1, len(PARVALBUMIN) + 1), positions)
    values = LabelledScores(values=received, is_labelled=is_labelled, strata=np.zeros(len(is_labelled), int))
    return (permutation_test([values], num_permutations=1000).q_values <= 0.05).sum()


@pytest.fixture(scope="module")
def received():
    """Compute the attention that each residue of parvalbumin receives from the 120 heads of the bundled model."""
    encoder = load_checkpoint().encoder
    tokens = torch.tensor([CLS, *encode(PARVALBUMIN).tolist(), EOS])
    batch = Batch(tokens=tokens, offsets=torch.tensor([0, len(tokens)]), rows=torch.tensor([0]))
    extractor = AttentionExtractor(encoder=encoder, layers=[0], heads=[0])
    with torch.no_grad():
        return run_to_end(extractor.extract(batch, [MapRequest(received=True)]))[0].received


@pytest.fixture
def synthetic():
    """Make ten heads that depend on amino acids alone, half of them mostly on acids."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(PARVALBUMIN.encode(), np.uint8)
    preference = rng.random((10, 128))
    preference[:5, list(b"DE")] += 1
    return preference[:, letters].astype(np.float32)


# Significant heads


def test_calcium_sites_are_the_ligands_of_both_loops():
    assert "".join(PARVALBUMIN[position - 1] for position in CALCIUM) == "DDDFEDDDKE"
    assert {PARVALBUMIN[position - 1] for position in OTHER_ACIDS} == {"D", "E"}


def test_at_most_one_head_in_the_mean_attends_to_random_acids(received):
    rng = np.random.default_rng(0)
    decoys = [rng.choice(OTHER_ACIDS, 10, replace=False).tolist() for _ in range(10)]

    assert np.mean([num_found_among_all_residues(positions, received) for positions in decoys]) > 10
    assert np.mean([evaluate(positions, received).num_following for positions in decoys]) <= 1


def test_head_that_depends_on_amino_acids_alone_does_not_attend_to_a_site_of_acids(synthetic):
    assert num_found_among_all_residues(CALCIUM, synthetic) >= 3
    assert evaluate(CALCIUM, synthetic).num_following == 0


def test_head_that_depends_on_the_site_beyond_its_amino_acids_is_significant(synthetic):
    synthetic[7, np.array(CALCIUM) - 1] += 0.5

    result = evaluate(CALCIUM, synthetic, num_permutations=5000)

    assert np.flatnonzero(result.significance.q_values <= 0.05).tolist() == [7]
    assert result.significance.effects[7] > 0.99


def test_heads_that_attend_to_a_part_of_the_chain_are_not_significant_for_a_site_in_it():
    # Each head attends to one part; a site of twelve neighbours lies in some of these parts by chance.
    rng = np.random.default_rng(0)
    residues = np.arange(len(PARVALBUMIN))
    centres = rng.integers(0, len(residues), (60, 1))
    received = np.exp(-(((residues - centres) / 12) ** 2)) + 0.1 * rng.random((60, len(residues)))

    is_labelled = np.isin(residues, range(40, 52))
    within = LabelledScores(values=received, is_labelled=is_labelled, strata=residue_strata(PARVALBUMIN))

    assert (permutation_test([within], num_permutations=1000).q_values <= 0.05).sum() > 5
    assert evaluate(range(41, 53), received.astype(np.float32)).num_following == 0


def test_heads_that_attend_to_the_start_of_all_proteins_are_not_significant_for_a_site_there():
    rng = np.random.default_rng(0)
    tests = site_tests([site for name in "abcdef" for site in make_sites(range(1, 10), protein=name)])
    for name in "abcdef":
        sequence = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 150))
        received = np.exp(-np.arange(150) / 20) + 0.1 * rng.random((20, 150))
        tests.add(record(sequence, id=name), received.astype(np.float32))

    assert tests.evaluate(num_permutations=500, seed=0)["calcium"].num_following == 0


# Amount of data


def test_residues_with_a_unique_amino_acid_are_not_compared():
    sequence = 20 * "A" + "MKK" + 20 * "A"  # the only M; one of two K
    tests = site_tests(make_sites([21, 22]))
    tests.add(record(sequence), np.random.default_rng(0).random((3, 43)).astype(np.float32))

    result = tests.evaluate(num_permutations=100, seed=0)["calcium"]

    assert (result.num_residues, result.significance.num_labelled, result.num_segments) == (2, 1, 1)
    assert site_warnings([("calcium", result)]) == [
        "the result of 'calcium' rests on one protein, with labelled residues in 1 segment"
    ]


def test_label_on_all_residues_of_an_amino_acid_gives_a_warning():
    sequence = 20 * "A" + "WGGW" + 20 * "A"
    tests = site_tests(make_sites([21, 24], label="trp"))
    tests.add(record(sequence), np.random.default_rng(0).random((3, 44)).astype(np.float32))

    result = tests.evaluate(num_permutations=100, seed=0)["trp"]

    assert result.significance.num_labelled == 0
    assert result.significance.p_values.tolist() == [1, 1, 1]
    assert site_warnings([("trp", result)]) == [
        "cannot test 'trp', because the proteins have no unlabelled residues of the same amino acids"
    ]


def test_copies_of_a_protein_count_once(synthetic):
    tests = site_tests(make_sites(CALCIUM) + make_sites(CALCIUM, protein="copy"))
    for row, name in enumerate(["P02625", "copy"]):
        tests.add(record(id=name, row=row), synthetic)

    result = tests.evaluate(num_permutations=100, seed=0)["calcium"]

    assert (result.num_residues, result.significance.num_proteins) == (10, 1)


def test_ends_of_a_chain_are_separate_strata():
    strata = residue_strata(30 * "A")

    assert [np.flatnonzero(strata == number).tolist() for number in np.unique(strata)] == [
        list(range(10, 20)),
        list(range(10)),
        list(range(20, 30)),
    ]
    assert len(np.unique(residue_strata(12 * "A"))) == 2


# Proteins with sites


@pytest.mark.parametrize("name", ["sp|P00698|LYSC_CHICK", "P00698", "LYSC_CHICK"])
def test_uniprot_protein_matches_by_identifier_accession_or_entry_name(name):
    tests = site_tests(make_sites([3], protein=name))

    assert tests.match(record("MKTAY", id="sp|P00698|LYSC_CHICK"))
    assert tests.check_matched() == []
    assert tests.labelled(record("MKTAY", id="sp|P00698|LYSC_CHICK")) == {"calcium": [2]}


@pytest.mark.parametrize("id", ["gi|P00698|x", "sp|P00698", "sp|P006981|LYSC", "p00698"])
def test_parts_of_other_identifiers_do_not_match(id):
    assert not site_tests(make_sites([3], protein="P00698")).match(record("MKTAY", id=id))


def test_some_unknown_proteins_give_a_warning_and_all_unknown_an_error():
    tests = site_tests(make_sites([3]) + make_sites([1, 2], protein="unknown"))
    with pytest.raises(TableError, match="line 2: no site names a protein of the input; the first names"):
        tests.check_matched()
    tests.match(record("MKTAY"))

    assert tests.check_matched() == [
        "sites.tsv: 2 of 3 sites name no protein of the input; the first is 'unknown' in line 2"
    ]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([5, 6], "line 3: position 6 of 'P02625', which has 5 residues; correct the position"),
        ([6, 7], "2 faults: line 2: position 6 of .*; line 3: position 7 of .*; correct the position"),
    ],
)
def test_positions_beyond_a_protein_raise_an_error_with_their_lines(positions, message):
    tests = site_tests(make_sites(positions))
    tests.match(record("MKTAY"))

    with pytest.raises(TableError, match=message):
        tests.check_matched()


def test_a_position_whose_residue_is_another_raises_an_error_with_its_line():
    sites = [
        Site(protein="P02625", position=2, label="x", line=line, residue=letter)
        for line, letter in [(2, "K"), (3, "R")]
    ]
    tests = site_tests(sites)
    tests.match(record("MKTAY"))

    with pytest.raises(
        TableError, match="line 3: the table names R2, and residue 2 of 'P02625' is K; correct the position"
    ):
        tests.check_matched()
