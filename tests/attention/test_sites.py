import numpy as np
import pytest
import torch

from protembed.attention.maps import AttentionExtractor, MapRequest
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import Site, SiteTests, residue_strata, site_warnings
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.errors import TableError
from protembed.model.catalog import find_model
from protembed.model.checkpoint import load_checkpoint

# Rat parvalbumin with a mutated loop (PDB 1S3P, chain A) and the ten side chains that bind its two calcium ions.
PARVALBUMIN = (
    "SMTDLLSAEDIKKAIGAFTAADSFDHKKFFQMVGLKKKSADDVKKVFHILDKDKDGFIDEDELGSILKGFSSDARDLSAKETKTLMAAGDKDGDGKIGVEEFSTLVAES"
)
CALCIUM = [51, 53, 55, 57, 62, 90, 92, 94, 96, 101]
OTHER_ACIDS = [place for place, letter in enumerate(PARVALBUMIN, start=1) if letter in "DE" and place not in CALCIUM]


def record(sequence=PARVALBUMIN, id="P02625", row=0):
    return Record(row=row, id=id, description=id, sequence=sequence, path="x.fasta", line=1 + 2 * row)


def sites_of(places, protein="P02625", label="calcium"):
    return [Site(protein=protein, position=place, label=label, line=line) for line, place in enumerate(places, start=2)]


def weigh(places, received, num_permutations=1000):
    marks = SiteTests(sites_of(places), "sites.tsv")
    marks.take(record(), received)
    return marks.weigh(num_permutations=num_permutations, seed=0)["calcium"]


def found_among_all_residues(places, received):
    """The heads that a comparison with all residues of the protein finds."""
    is_marked = np.isin(np.arange(1, len(PARVALBUMIN) + 1), places)
    values = LabelledScores(values=received, is_marked=is_marked, strata=np.zeros(len(is_marked), int))
    return (permutation_test([values], num_permutations=1000).q_values <= 0.05).sum()


@pytest.fixture(scope="module")
def received():
    """What each residue of parvalbumin receives from the bundled model's 120 heads."""
    encoder = load_checkpoint(find_model(None)).encoder
    tokens = torch.tensor([CLS, *encode(PARVALBUMIN).tolist(), EOS])
    batch = Batch(tokens=tokens, offsets=torch.tensor([0, len(tokens)]), rows=torch.tensor([0]))
    reader = AttentionExtractor(encoder=encoder, layers=[0], heads=[0])
    with torch.no_grad():
        return reader.read(batch, [MapRequest(received=True)])[0].received


@pytest.fixture
def made_up():
    """Ten heads that see nothing but amino acids, half of them mostly acids."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(PARVALBUMIN.encode(), np.uint8)
    liking = rng.random((10, 128))
    liking[:5, list(b"DE")] += 1
    return liking[:, letters].astype(np.float32)


# Which heads are found


def test_the_calcium_sites_are_the_ligands_of_the_two_loops():
    assert "".join(PARVALBUMIN[place - 1] for place in CALCIUM) == "DDDFEDDDKE"
    assert {PARVALBUMIN[place - 1] for place in OTHER_ACIDS} == {"D", "E"}


def test_random_acids_that_bind_nothing_are_attended_to_by_at_most_one_head_in_the_mean(received):
    rng = np.random.default_rng(0)
    decoys = [rng.choice(OTHER_ACIDS, 10, replace=False).tolist() for _ in range(10)]

    assert np.mean([found_among_all_residues(places, received) for places in decoys]) > 10
    assert np.mean([weigh(places, received).num_following for places in decoys]) <= 1


def test_a_head_that_sees_amino_acids_alone_does_not_attend_to_a_site_of_acids(made_up):
    assert found_among_all_residues(CALCIUM, made_up) >= 3
    assert weigh(CALCIUM, made_up).num_following == 0


def test_a_head_that_sees_the_site_beyond_its_amino_acids_is_found(made_up):
    made_up[7, np.array(CALCIUM) - 1] += 0.5

    result = weigh(CALCIUM, made_up, num_permutations=5000)

    assert np.flatnonzero(result.significance.q_values <= 0.05).tolist() == [7]
    assert result.significance.effects[7] > 0.99


def test_heads_that_attend_to_a_part_of_the_chain_do_not_attend_to_a_site_in_it():
    # Each head attends to one part; a site of twelve neighbours lies in some of these parts by chance.
    rng = np.random.default_rng(0)
    places = np.arange(len(PARVALBUMIN))
    centres = rng.integers(0, len(places), (60, 1))
    received = np.exp(-(((places - centres) / 12) ** 2)) + 0.1 * rng.random((60, len(places)))

    marks = np.isin(places, range(40, 52))
    within = LabelledScores(values=received, is_marked=marks, strata=residue_strata(PARVALBUMIN))

    assert (permutation_test([within], num_permutations=1000).q_values <= 0.05).sum() > 5
    assert weigh(range(41, 53), received.astype(np.float32)).num_following == 0


def test_heads_that_attend_to_the_start_of_all_proteins_do_not_attend_to_a_site_there():
    rng = np.random.default_rng(0)
    marks = SiteTests([site for name in "abcdef" for site in sites_of(range(1, 10), protein=name)], "sites.tsv")
    for name in "abcdef":
        sequence = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 150))
        received = np.exp(-np.arange(150) / 20) + 0.1 * rng.random((20, 150))
        marks.take(record(sequence, id=name), received.astype(np.float32))

    assert marks.weigh(num_permutations=500, seed=0)["calcium"].num_following == 0


# On what it rests


def test_residues_without_another_of_their_amino_acid_are_not_compared():
    sequence = 20 * "A" + "MKK" + 20 * "A"  # the only M; one of two K
    marks = SiteTests(sites_of([21, 22]), "sites.tsv")
    marks.take(record(sequence), np.random.default_rng(0).random((3, 43)).astype(np.float32))

    result = marks.weigh(num_permutations=100, seed=0)["calcium"]

    assert (result.num_residues, result.significance.num_marks, result.num_segments) == (2, 1, 1)
    assert site_warnings([("calcium", result)]) == [
        "the result of 'calcium' rests on one protein, on residues in 1 segment of it"
    ]


def test_a_label_on_all_residues_of_an_amino_acid_says_nothing_and_that_is_said():
    sequence = 20 * "A" + "WGGW" + 20 * "A"
    marks = SiteTests(sites_of([21, 24], label="trp"), "sites.tsv")
    marks.take(record(sequence), np.random.default_rng(0).random((3, 44)).astype(np.float32))

    result = marks.weigh(num_permutations=100, seed=0)["trp"]

    assert result.significance.num_marks == 0
    assert result.significance.p_values.tolist() == [1, 1, 1]
    assert site_warnings([("trp", result)]) == [
        "nothing is known of 'trp', because no other residue of the same amino acid is there to compare with"
    ]


def test_copies_of_a_protein_count_once(made_up):
    marks = SiteTests(sites_of(CALCIUM) + sites_of(CALCIUM, protein="copy"), "sites.tsv")
    for row, name in enumerate(["P02625", "copy"]):
        marks.take(record(id=name, row=row), made_up)

    result = marks.weigh(num_permutations=100, seed=0)["calcium"]

    assert (result.num_residues, result.significance.num_proteins) == (10, 1)


def test_the_ends_of_a_chain_are_compared_among_themselves():
    strata = residue_strata(30 * "A")

    assert [np.flatnonzero(strata == number).tolist() for number in np.unique(strata)] == [
        list(range(10, 20)),
        list(range(10)),
        list(range(20, 30)),
    ]
    assert len(np.unique(residue_strata(12 * "A"))) == 2


# Which proteins have sites


@pytest.mark.parametrize("name", ["sp|P00698|LYSC_CHICK", "P00698", "LYSC_CHICK"])
def test_a_protein_of_uniprot_is_found_by_its_header_accession_or_entry_name(name):
    marks = SiteTests(sites_of([3], protein=name), "sites.tsv")

    assert marks.find(record("MKTAY", id="sp|P00698|LYSC_CHICK"))
    assert marks.check_found() == []
    assert marks.labelled(record("MKTAY", id="sp|P00698|LYSC_CHICK")) == {"calcium": [2]}


@pytest.mark.parametrize("id", ["gi|P00698|x", "sp|P00698", "sp|P006981|LYSC", "p00698"])
def test_parts_of_other_identifiers_are_no_names(id):
    assert not SiteTests(sites_of([3], protein="P00698"), "sites.tsv").find(record("MKTAY", id=id))


def test_some_unknown_proteins_are_a_warning_and_all_are_an_error():
    marks = SiteTests(sites_of([3]) + sites_of([1, 2], protein="nobody"), "sites.tsv")
    with pytest.raises(TableError, match="line 2: none of the 3 sites names a protein of the input, the first names"):
        marks.check_found()
    marks.find(record("MKTAY"))

    assert marks.check_found() == ["sites.tsv: 2 of 3 sites name no protein of the input, the first 'nobody' in line 2"]


def test_a_position_beyond_the_protein_is_refused_with_its_line():
    marks = SiteTests(sites_of([5, 6]), "sites.tsv")

    with pytest.raises(TableError, match="line 3: position 6 of 'P02625', which has 5 residues; correct the position"):
        marks.find(record("MKTAY"))
