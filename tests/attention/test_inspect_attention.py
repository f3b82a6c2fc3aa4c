import csv
import gzip
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor
from protembed.attention.inspect_attention import inspect_attention
from protembed.attention.summary import KINDS
from protembed.callbacks import Callbacks
from protembed.config.common import ModelConfig
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.fasta import read_fasta
from protembed.data.structures import read_chains
from protembed.device import peak_memory
from protembed.errors import (
    ConfigError,
    IllegalResidueError,
    InsufficientResourcesError,
    NoStructureMatchError,
    OutputExistsError,
    TableError,
)
from protembed.inference.engine import Engine


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("oracles") / "tiny_esm"
    tiny_esm.save_pretrained(directory)
    return directory


@pytest.fixture
def inspect(tmp_path, tiny_model, proteins_fasta):
    def run(fasta=proteins_fasta, model=tiny_model, **settings):
        output = tmp_path / "out.attention"
        inspect_attention(
            [fasta],
            AttentionOptions.from_values(model=model, output=output, **settings),
        )
        return output

    return run


def test_maps_equal_those_of_transformers_without_special_tokens(inspect, tiny_esm, esm_directory, proteins):
    output = inspect(model=esm_directory, save_maps=2)

    for number in (1, 2):
        tokens = torch.tensor([[CLS, *encode(proteins[number - 1]).tolist(), EOS]])
        with torch.no_grad():
            result = tiny_esm(tokens, torch.ones_like(tokens), output_attentions=True)
            contacts = tiny_esm.predict_contacts(tokens, torch.ones_like(tokens))[0].numpy()
        expected = torch.stack(result.attentions)[:, 0, :, 1:-1, 1:-1].numpy()
        with np.load(output / "maps" / f"protein-{number:06d}.npz") as arrays:
            np.testing.assert_allclose(arrays["attention"], expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(arrays["contacts"], contacts, rtol=1e-5, atol=1e-5)


def test_statistics_cover_every_head_and_all_proteins(inspect, proteins):
    output = inspect(save_maps=1)
    with (output / "heads.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))

    assert [(row["layer"], row["head"]) for row in rows] == [(str(i), str(j)) for i in (1, 2) for j in (1, 2, 3, 4)]
    longest = np.log(max(map(len, proteins)) + 2)
    for row in rows:
        assert 0 < float(row["entropy"]) < longest
        assert 0 <= float(row["on_self"]) + float(row["on_neighbours"]) + float(row["on_cls"]) <= 1
        assert row["kind"] in KINDS
        assert row["attends_to"]
        assert 0 <= float(row["strength"]) <= 1
    assert json.loads((output / "meta.json").read_text())["num_proteins"] == len(proteins)


def test_statistics_are_means_over_all_residues_of_all_proteins(inspect, proteins, tmp_path):
    def entropies(*sequences):
        fasta = tmp_path / "some.fasta"
        fasta.write_text("".join(f">p{row}\n{sequence}\n" for row, sequence in enumerate(sequences)))
        rows = read_rows(inspect(fasta=fasta, save_maps=0, force=True) / "heads.tsv")
        return np.array([float(row["entropy"]) for row in rows])

    first, second = proteins[:2]
    sums = len(first) * entropies(first) + len(second) * entropies(second)

    assert entropies(first, second) == pytest.approx(sums / len(first + second), rel=1e-4)


def test_maps_and_figures_of_the_first_proteins_are_saved(inspect, proteins):
    output = inspect(save_maps=3)
    lines = (output / "proteins.tsv").read_text().splitlines()

    assert len(lines) == 1 + len(proteins)
    for folder, suffix, others in (("maps", "npz", []), ("figures", "png", ["heads.png"])):
        names = [path.name for path in sorted((output / folder).iterdir())]
        assert names == [*others, *(f"protein-{number:06d}.{suffix}" for number in (1, 2, 3))]
    assert [line.split("\t")[3] for line in lines[3:5]] == ["maps/protein-000003.npz", ""]
    assert (output / "figures" / "protein-000001.png").read_bytes().startswith(b"\x89PNG")


def test_maps_of_chosen_layers_and_heads_are_saved(inspect):
    whole, chosen = inspect(save_maps=1), None
    with np.load(whole / "maps" / "protein-000001.npz") as arrays:
        whole_maps = arrays["attention"]
    chosen = inspect(save_maps=1, layers="2", heads="1,3-4", store_dtype="float16", force=True)

    with np.load(chosen / "maps" / "protein-000001.npz") as arrays:
        np.testing.assert_array_equal(arrays["attention"], whole_maps[[1]][:, [0, 2, 3]].astype(np.float16))
        assert (arrays["layers"].tolist(), arrays["heads"].tolist()) == ([2], [1, 3, 4])


def test_maps_are_computed_once_unless_a_contact_head_is_fitted(inspect, monkeypatch):
    runs, run = [], Engine.run
    monkeypatch.setattr(Engine, "run", lambda *arguments: runs.append(arguments) or run(*arguments))

    inspect(save_maps=2)

    assert len(runs) == 1


def test_unfitted_contact_head_predicts_no_contacts(inspect):
    with np.load(inspect(save_maps=1) / "maps" / "protein-000001.npz") as arrays:
        assert "contacts" not in arrays.files


# Structures and sites

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
STRUCTURES = sorted((FIXTURES / "structures").glob("*.gz"))
FIXTURE_PROTEINS = FIXTURES / "proteins.fasta"


@pytest.fixture(scope="module")
def matched_fasta(tmp_path_factory):
    """Write the proteins of the structures, a copy of one, and one that matches no structure."""
    chains = [read_chains(path)[0] for path in STRUCTURES]
    sequences = {chain.structure: chain.sequence for chain in chains}
    path = tmp_path_factory.mktemp("matched") / "matched.fasta"
    others = {f"{chains[0].structure}_copy": chains[0].sequence, "unseen": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"}
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in (sequences | others).items()))
    return path


@pytest.fixture
def evaluated(inspect, matched_fasta):
    return inspect(fasta=matched_fasta, structures=STRUCTURES, num_permutations=200, save_maps=2)


@pytest.fixture
def evaluated_with_head(monkeypatch, request):
    """Evaluate with a regression that selects heads, although the maps of the tiny model follow no contacts."""

    def fit(features, proteins):
        return ContactPredictor(weight=np.random.default_rng(0).normal(0, 100, len(features[0])), bias=-2.0)

    monkeypatch.setattr("protembed.attention.contact_predictors.fit_contact_head", fit)
    return request.getfixturevalue("evaluated")


def page_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page).group(1))


def read_rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_each_protein_is_compared_with_its_chain(evaluated):
    rows = read_rows(evaluated / "structures.tsv")

    assert [row["id"] for row in rows] == [row["structure"] for row in rows]
    assert [(row["row"], row["identity"]) for row in rows] == [(str(number), "1") for number in (1, 2, 3)]
    assert all(int(row["contacts"]) > 50 for row in rows)


def test_heads_and_predictors_are_compared_with_chance(evaluated):
    heads, precisions = read_rows(evaluated / "heads.tsv"), read_rows(evaluated / "contacts.tsv")

    for row in heads:
        assert 0 <= float(row["long_range_p_at_l"]) <= 1
        assert 0 < float(row["contact_p"]) <= float(row["contact_q"]) <= 1
    assert "top heads" in {row["predictor"] for row in precisions}
    assert [row["pairs"] for row in precisions[:3]] == ["L", "L/2", "L/5"]
    assert all(0 < float(row["random"]) < 0.3 for row in precisions)


def test_planted_heads_are_named_after_what_they_do(planted_heads, evaluated):
    rows = read_rows(evaluated / "heads.tsv")
    summary = json.loads((evaluated / "meta.json").read_text())["summary"]

    kinds = {(int(row["layer"]), int(row["head"])): row["kind"] for row in rows if row["kind"] != "even"}
    best = summary["best_contact_head"]
    assert kinds == planted_heads | {(2, 1): "none"}  # there are no sites
    assert (best["layer"], best["head"], best["follows_contacts"]) == (2, 3, True)
    assert best["precision"] > 0.5 > 5 * best["random"]
    assert summary["num_heads"] == {"contacts": 1, "offset": 1, "amino acid": 1, "cls": 1, "even": 3, "none": 1}
    assert "Head 3 of layer 2 follows contacts best" in (evaluated / "report.html").read_text()


def test_planted_head_on_annotated_residues_is_named_after_their_label(planted_heads, inspect, matched_fasta, tmp_path):
    lines = [
        f"{record.id}\t{position}\tevery seventh"
        for record in list(read_fasta([matched_fasta]))[:3]
        for position in range(7, len(record.sequence) + 1, 7)
    ]
    (tmp_path / "s.tsv").write_text("\n".join(["protein\tposition\tlabel", *lines]) + "\n")

    output = inspect(fasta=matched_fasta, sites=tmp_path / "s.tsv", num_permutations=500, save_maps=0)

    (row,) = [row for row in read_rows(output / "heads.tsv") if row["kind"] == "sites"]
    assert (row["layer"], row["head"], row["attends_to"]) == ("2", "1", "every seventh")
    assert float(row["strength"]) > 0.9


def test_fitted_contact_head_predicts_the_same_in_transformers(evaluated_with_head, matched_fasta):
    transformers = pytest.importorskip("transformers")
    record = next(read_fasta([matched_fasta]))
    model = transformers.EsmForMaskedLM.from_pretrained(
        evaluated_with_head / "model", attn_implementation="eager"
    ).eval()
    tokens = torch.tensor([[CLS, *encode(record.sequence).tolist(), EOS]])
    with torch.no_grad():
        expected = model.predict_contacts(tokens, torch.ones_like(tokens))[0].numpy()

    rows = read_rows(evaluated_with_head / "contacts" / "protein-000001.tsv")
    assert len(rows) == len(np.triu_indices(len(record.sequence), 6)[0])
    for row in rows[::97]:
        assert float(row["probability"]) == pytest.approx(expected[int(row["i"]) - 1, int(row["j"]) - 1], abs=1e-5)
    probabilities = [float(row["probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > probabilities[-1] + 0.01


def test_rr_file_follows_the_casp_format(evaluated_with_head, matched_fasta):
    record = next(read_fasta([matched_fasta]))
    lines = (evaluated_with_head / "contacts" / "protein-000001.rr").read_text().splitlines()

    assert lines[:3] == ["PFRMAT RR", f"TARGET {record.id}", "MODEL 1"]
    assert "".join(line for line in lines[3:] if line.isalpha()) == record.sequence + "END"
    first, second, low, high, probability = next(line for line in lines if " 0 8 " in line).split()
    assert int(second) - int(first) >= 6
    assert (low, high) == ("0", "8")
    assert 0 < float(probability) < 1


def test_single_protein_is_evaluated_without_fitting_a_head(tiny_model, matched_fasta, tmp_path):
    output = tmp_path / "out"
    config = AttentionConfig(output=output, structures=STRUCTURES[:1], num_permutations=200, save_maps=1)

    summary = inspect_attention(
        [matched_fasta], AttentionOptions(model=ModelConfig(model=tiny_model), attention=config)
    )

    assert (summary.num_structures, summary.precisions) == (1, [])
    assert "fitting a contact head needs two" in summary.warnings[-1]
    assert all(0 <= float(row["long_range_p_at_l"]) <= 1 for row in read_rows(output / "heads.tsv"))
    assert len(read_rows(output / "structures.tsv")) == 1
    assert not (output / "model").exists()


def test_folder_of_structures_gives_the_same_results_as_its_files(evaluated, tiny_model, matched_fasta, tmp_path):
    output = tmp_path / "folder"
    config = AttentionConfig(output=output, structures=[STRUCTURES[0].parent], num_permutations=200, save_maps=2)

    inspect_attention([matched_fasta], AttentionOptions(model=ModelConfig(model=tiny_model), attention=config))

    for name in ("structures.tsv", "contacts.tsv", "heads.tsv"):
        assert (output / name).read_bytes() == (evaluated / name).read_bytes()


def test_structures_of_other_proteins_raise_an_error(inspect, tmp_path):
    with pytest.raises(NoStructureMatchError, match="none of the proteins matches a structure"):
        inspect(structures=STRUCTURES[:2])

    assert list(tmp_path.iterdir()) == []


def test_error_names_a_structure_with_insufficient_coverage(inspect, tmp_path):
    chain = read_chains(STRUCTURES[1])[0]
    (tmp_path / "long.fasta").write_text(f">long\n{chain.sequence}{'W' * 400}\n")

    with pytest.raises(NoStructureMatchError, match=r"1S3P-A chain A covers 109 of 509 residues of 'long'"):
        inspect(fasta=tmp_path / "long.fasta", structures=STRUCTURES[1:2])


def test_warnings_name_unreadable_structures_and_those_of_alpha_carbons(tiny_model, matched_fasta, tmp_path):
    (tmp_path / "folder").mkdir()
    lines = gzip.decompress(STRUCTURES[1].read_bytes()).decode().splitlines()
    alpha = [line for line in lines if line[12:16].strip() == "CA"]
    (tmp_path / "folder" / "alpha.pdb").write_text("\n".join(alpha))
    (tmp_path / "folder" / "bad.pdb").write_text("no structure")
    output = tmp_path / "out"
    config = AttentionConfig(output=output, structures=[tmp_path / "folder"], num_permutations=100, save_maps=0)

    summary = inspect_attention(
        [matched_fasta], AttentionOptions(model=ModelConfig(model=tiny_model), attention=config)
    )

    (row,) = read_rows(output / "structures.tsv")
    assert (row["atoms"], row["virtual_cb"], row["contacts"], row["coverage"]) == ("CA", "0", "130", "1")
    assert "skipped 1 of 2 structures in" in summary.warnings[0]
    assert "contacts are between C-alpha atoms, not C-beta: alpha chain A" in summary.warnings[1]


@pytest.mark.parametrize("finds_in_all", [False, True], ids=["never", "in the fit to all proteins only"])
def test_regression_without_heads_gives_a_warning_and_no_contacts(
    tiny_model, matched_fasta, tmp_path, monkeypatch, finds_in_all
):
    def fit(features, proteins):
        finds = finds_in_all and len(proteins) == len(STRUCTURES)
        return ContactPredictor(weight=np.full(len(features[0]), float(finds)), bias=-3.0)

    monkeypatch.setattr("protembed.attention.contact_predictors.fit_contact_head", fit)
    config = AttentionConfig(output=tmp_path / "out", structures=STRUCTURES, num_permutations=200, save_maps=1)

    summary = inspect_attention(
        [matched_fasta], AttentionOptions(model=ModelConfig(model=tiny_model), attention=config)
    )

    assert "the regression over all heads selected no heads" in summary.warnings[-1]
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / "contacts").exists()
    assert not list((tmp_path / "out" / "figures").glob("*-contacts.*"))
    assert {row["predictor"] for row in read_rows(tmp_path / "out" / "contacts.tsv")} == {"top heads"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page_data(page)["proteins"][0]["contacts"]["predicted"] is False
    assert "The regression over all heads selected no heads" in page
    titles = re.findall("<h2.*?>(.*?)</h2>", page)
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("found", [True, False])
def test_contacts_of_a_predictor_are_written_and_are_drawn_only_if_it_found_any(request, monkeypatch, found):
    monkeypatch.setattr(ContactEvaluation, "found_contacts", found)

    output = request.getfixturevalue("evaluated_with_head")

    names = ["protein-000001-contacts.png", "protein-000002-contacts.png"]
    assert [path.name for path in sorted((output / "figures").glob("*-contacts.png"))] == (names if found else [])
    assert len(list((output / "contacts").glob("*.tsv"))) == 2
    assert (output / "model" / "config.json").exists()
    warnings = json.loads((output / "meta.json").read_text())["summary"]["warnings"]
    assert any("no contacts are drawn, because the regression" in warning for warning in warnings) == (not found)


def test_plan_warns_of_sites_of_unknown_proteins(tiny_model, proteins_fasta, tmp_path):
    record = next(read_fasta([FIXTURE_PROTEINS]))
    (tmp_path / "s.tsv").write_text(f"protein\tposition\tlabel\n{record.id}\t3\tx\nunknown\t1\tx\n")
    config = AttentionConfig(output=tmp_path / "out", sites=tmp_path / "s.tsv", num_permutations=100, save_maps=0)
    plans, done = [], []

    summary = inspect_attention(
        [proteins_fasta],
        AttentionOptions(model=ModelConfig(model=tiny_model), attention=config),
        Callbacks(on_plan=lambda plan: plans.append((plan.warnings, len(done))), on_progress=done.append),
    )

    (((warning,), num_done),) = plans
    assert warning.endswith("s.tsv: 1 of 2 sites name no protein of the input; the first is 'unknown' in line 3")
    assert (num_done, warning in summary.warnings) == (0, True)
    assert summary.num_following.keys() == summary.sites.keys() == {"x"}


def test_summary_counts_the_proteins_and_residues_of_a_label(tiny_model, proteins_fasta, tmp_path):
    record = next(read_fasta([FIXTURE_PROTEINS]))
    (tmp_path / "s.tsv").write_text(
        "protein\tposition\tlabel\n" + "".join(f"{record.id}\t{position}\tx\n" for position in (12, 15, 40))
    )
    config = AttentionConfig(output=tmp_path / "out", sites=tmp_path / "s.tsv", num_permutations=100, save_maps=1)

    summary = inspect_attention(
        [proteins_fasta], AttentionOptions(model=ModelConfig(model=tiny_model), attention=config)
    )

    row = read_rows(tmp_path / "out" / "sites.tsv")[0]
    assert [row[name] for name in ("compared_proteins", "residues", "segments")] == ["1", "3", "2"]
    assert int(row["compared_residues"]) == summary.sites["x"].num_compared <= 3
    assert "the result of 'x' rests on one protein" in summary.warnings[-1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page_data(page)["proteins"][0]["sites"] == [{"label": "x", "residues": [11, 14, 39]}]
    assert "Heads that attend to sites" in page


def test_sites_are_tested_by_label(inspect, proteins, tmp_path):
    lines = ["protein\tposition\tlabel"]
    for record in read_fasta([FIXTURE_PROTEINS]):
        positions = [position for position, letter in enumerate(record.sequence, start=1) if letter == "W"]
        lines += [f"{record.id}\t{position}\ttryptophan" for position in positions]
    (tmp_path / "sites.tsv").write_text("\n".join(lines) + "\n")

    rows = read_rows(inspect(sites=tmp_path / "sites.tsv", num_permutations=200, save_maps=0) / "sites.tsv")

    assert [row["label"] for row in rows] == ["tryptophan"] * 8
    assert {(row["layer"], row["head"]) for row in rows} == {(str(i), str(j)) for i in (1, 2) for j in (1, 2, 3, 4)}
    assert [float(row["p"]) for row in rows] == sorted(float(row["p"]) for row in rows)


def test_sites_of_a_copy_count_if_an_earlier_copy_has_none(inspect, proteins, tmp_path):
    (tmp_path / "twins.fasta").write_text(f">first\n{proteins[0]}\n>second\n{proteins[0]}\n>other\n{proteins[1]}\n")
    (tmp_path / "sites.tsv").write_text("protein\tposition\tlabel\nsecond\t3\tx\nsecond\t20\tx\n")

    output = inspect(fasta=tmp_path / "twins.fasta", sites=tmp_path / "sites.tsv", num_permutations=100, save_maps=0)

    rows = read_rows(output / "sites.tsv")
    assert [(row["label"], row["residues"], row["segments"]) for row in rows] == 8 * [("x", "2", "2")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("unknown\t1\tx", "line 2: no site names a protein of the input"),
        ("{id}\t100000\tx", "line 2: position 100000 of"),
    ],
)
def test_sites_without_residues_raise_an_error_before_the_computation(inspect, tmp_path, monkeypatch, line, message):
    monkeypatch.setattr("protembed.inference.engine.Engine.run", lambda *arguments: pytest.fail("it was computed"))
    record = next(read_fasta([FIXTURE_PROTEINS]))
    (tmp_path / "sites.tsv").write_text("protein\tposition\tlabel\n" + line.format(id=record.id) + "\n")

    with pytest.raises(TableError, match=message):
        inspect(sites=tmp_path / "sites.tsv")


def test_region_of_the_maps_is_saved(inspect):
    with np.load(inspect(save_maps=1) / "maps" / "protein-000001.npz") as arrays:
        whole = arrays["attention"]

    with np.load(
        inspect(save_maps=1, region="5-20", rollout=True, force=True) / "maps" / "protein-000001.npz"
    ) as arrays:
        np.testing.assert_array_equal(arrays["attention"], whole[..., 4:20, 4:20])
        assert arrays["rollout"].shape == (16, 16)


def test_hdf5_maps_equal_npz_maps(inspect):
    with np.load(inspect(save_maps=1, rollout=True) / "maps" / "protein-000001.npz") as arrays:
        expected = dict(arrays)

    with h5py.File(inspect(save_maps=1, rollout=True, format="h5", force=True) / "maps" / "protein-000001.h5") as file:
        assert file.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name][()], array)


def test_copy_of_a_protein_shares_its_maps(inspect, proteins, tmp_path):
    fasta = tmp_path / "twins.fasta"
    fasta.write_text(f">a\n{proteins[0]}\n>b\n{proteins[1]}\n>c\n{proteins[0]}\n")

    output = inspect(fasta=fasta, save_maps=3)

    names = [row["maps"] for row in read_rows(output / "proteins.tsv")]
    assert names == ["maps/protein-000001.npz", "maps/protein-000002.npz", "maps/protein-000001.npz"]
    assert len(list((output / "maps").iterdir())) == 2


def test_page_shows_the_proteins_and_the_tables(evaluated_with_head, matched_fasta):
    page = (evaluated_with_head / "report.html").read_text()

    assert next(read_fasta([matched_fasta])).id in page
    assert "long-range precision at L" in page and "regression" in page
    assert not re.search(r"long_range|on_self|mean_distance|matched_random", page)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_page_shows_a_long_protein_in_blocks_of_residues(inspect, proteins, tmp_path):
    sequence = "".join(proteins)[:700]
    (tmp_path / "long.fasta").write_text(f">long\n{sequence}\n>short\n{sequence[:60]}\n")

    output = inspect(fasta=tmp_path / "long.fasta", save_maps=2)

    page = (output / "report.html").read_text()
    data = page_data(page)
    assert [(protein["id"], protein["sequence"], protein["block"]) for protein in data["proteins"]] == [
        ("long", sequence, 6),
        ("short", sequence[:60], 1),
    ]
    with np.load(output / "maps" / "protein-000001.npz") as arrays:
        expected = [head.max() for layer in arrays["attention"] for head in layer]
    assert [picture["peak"] for picture in data["proteins"][0]["maps"]] == pytest.approx(expected, rel=1e-3)
    assert (output / "figures" / "protein-000001.png").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_page_agrees_with_the_arrays_of_a_real_protein(inspect, tmp_path, decode_intervals, decompress, dtype):
    (tmp_path / "3bkr.fasta").write_text(
        ">3bkr\nALKTDQILDKLNEKLAQVDRSKRSFTVILFVHLRQEGKVVRSVVLDFNDLKISEIELAVTSTADYPAERIDASITIDDNDFYLVATKETSFAALIEQGKV"
        "DITGNKQAFLTLDEKFRNK\n"
    )

    output = inspect(
        fasta=tmp_path / "3bkr.fasta", model=None, save_maps=1, layers="2,6", heads="1,7,14", store_dtype=dtype
    )

    protein = page_data((output / "report.html").read_text())["proteins"][0]
    with np.load(output / "maps" / "protein-000001.npz") as arrays:
        maps = arrays["attention"].reshape(-1, 119, 119).astype(np.float64)
    for picture, values in zip(protein["maps"], maps, strict=True):
        low, high = decode_intervals(picture)
        assert picture["levels"] >= 48
        assert ((low * (1 - 1e-6) <= values) & (values <= high * (1 + 1e-6))).all()
    content, num = decompress(protein["strongest"]), len(maps) * 2 * 10  # all pairs, and those at least 6 apart
    weights = np.frombuffer(content, "<f4", num, 4 * num).reshape(len(maps), 2, 10)
    rounding = 1e-3 if dtype == "float16" else 1e-6
    for strongest, values in zip(weights, maps, strict=True):
        np.testing.assert_allclose(strongest[0], np.sort(values, axis=None)[:-11:-1], rtol=rounding)
        is_apart = ~(np.tri(119, k=5, dtype=bool) & np.tri(119, k=5, dtype=bool).T)
        np.testing.assert_allclose(strongest[1], np.sort(values[is_apart])[:-11:-1], rtol=rounding)


# Resources


def test_plan_is_announced_before_the_computation(tiny_model, proteins_fasta, proteins, tmp_path):
    plans, done = [], []
    summary = inspect_attention(
        [proteins_fasta],
        AttentionOptions.from_values(model=tiny_model, output=tmp_path / "out", save_maps=3),
        Callbacks(on_plan=lambda plan: plans.append((plan, len(done))), on_progress=done.append),
    )

    assert plans == [(summary.plan, 0)]
    plan = summary.plan
    assert (plan.num_proteins, plan.num_residues) == (len(proteins), sum(map(len, proteins)))
    assert plan.longest == max(map(len, proteins))
    assert plan.memory_bytes > peak_memory(torch.device("cpu")) / 2
    assert plan.disk_bytes >= sum(path.stat().st_size for path in (tmp_path / "out" / "maps").iterdir()) * 0.98


@pytest.mark.parametrize(("resource", "amount"), [("total_memory", 1_000_000), ("free_disk", 1000)])
def test_insufficient_resources_raise_an_error_before_the_computation(inspect, monkeypatch, tmp_path, resource, amount):
    monkeypatch.setattr(f"protembed.attention.estimate.{resource}", lambda path: amount)
    monkeypatch.setattr("protembed.inference.engine.Engine.run", lambda *arguments: pytest.fail("it was computed"))

    with pytest.raises(InsufficientResourcesError, match="attention maps need about"):
        inspect()

    assert list(tmp_path.iterdir()) == []


def test_stdin_is_read_twice(tiny_model, proteins_fasta, tmp_path, give_stdin):
    give_stdin(proteins_fasta.read_bytes())

    summary = inspect_attention(
        [Path("-")],
        AttentionOptions.from_values(model=tiny_model, output=tmp_path / "out", save_maps=1),
    )

    assert summary.num_proteins == len(read_rows(tmp_path / "out" / "proteins.tsv")) > 1


# Invalid input


@pytest.mark.promise(17)
def test_identifier_never_becomes_a_path(inspect, tmp_path):
    fasta = tmp_path / "hostile.fasta"
    fasta.write_text(">../../evil\x1b[2J $\\frac{ =cmd()\nMKTAYIAKQR\n")

    output = inspect(fasta=fasta)

    assert {path.name for path in tmp_path.iterdir()} == {"hostile.fasta", "out.attention"}
    assert "\x1b" not in (output / "proteins.tsv").read_text()


def test_invalid_input_or_options_leave_no_files(inspect, tmp_path):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(">a\nMK1\n")

    with pytest.raises(IllegalResidueError):
        inspect(fasta=fasta)
    with pytest.raises(ConfigError, match="heads"):
        inspect(heads="1-9")

    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


# A finished result


def test_same_command_computes_nothing_again(evaluated, tiny_model, matched_fasta, monkeypatch):
    monkeypatch.setattr(Engine, "run", lambda *arguments: pytest.fail("it was computed"))
    before = {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()}

    summary = inspect_attention(
        [matched_fasta],
        AttentionOptions.from_values(
            model=tiny_model, output=evaluated, structures=STRUCTURES, num_permutations=200, save_maps=2
        ),
    )

    assert summary.was_done
    assert (summary.num_proteins, summary.num_maps, summary.num_structures) == (5, 2, 3)
    assert [row["predictor"] for row in summary.precisions] == [
        row["predictor"] for row in read_rows(evaluated / "contacts.tsv")
    ]
    assert {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()} == before
    assert sum(summary.num_heads.values()) == 8
    best, rows = summary.best_contact_head, read_rows(evaluated / "heads.tsv")
    assert best.precision == pytest.approx(max(float(row["long_range_p_at_l"]) for row in rows), rel=1e-5)
    assert (best.follows_contacts, {row["kind"] for row in rows}) == (False, {"even"})


def test_summary_of_an_earlier_version_is_read(evaluated, tiny_model, matched_fasta):
    record = json.loads((evaluated / "meta.json").read_text())
    del record["summary"]["num_heads"], record["summary"]["best_contact_head"]
    (evaluated / "meta.json").write_text(json.dumps(record))

    summary = inspect_attention(
        [matched_fasta],
        AttentionOptions.from_values(
            model=tiny_model, output=evaluated, structures=STRUCTURES, num_permutations=200, save_maps=2
        ),
    )

    assert summary.was_done
    assert (summary.num_heads, summary.best_contact_head) == ({}, None)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 1}, "`seed` was 0, not 1"),
        ({"layers": "2"}, "`layers` was 1,2, not 2"),
        ({"sites": "site.tsv"}, "`sites` differs"),
        ({"structures": STRUCTURES[1:]}, "`structures` differs"),
        ({"region": "1-9"}, "`region` was none, not 1-9"),
    ],
)
def test_result_of_another_command_is_not_replaced_without_force(inspect, matched_fasta, tmp_path, changed, difference):
    options = {"fasta": matched_fasta, "structures": STRUCTURES, "num_permutations": 100, "save_maps": 1}
    output = inspect(**options)
    (tmp_path / "site.tsv").write_text(f"protein\tposition\tlabel\n{next(read_fasta([matched_fasta])).id}\t3\tx\n")
    if "sites" in changed:
        changed = {"sites": tmp_path / "site.tsv"}

    with pytest.raises(OutputExistsError, match=re.escape(difference)):
        inspect(**options | changed)

    assert inspect(**options | changed, force=True) == output


def test_record_of_a_result_names_model_input_and_options(inspect, tiny_model, proteins):
    content = json.loads((inspect(save_maps=1, format="h5") / "meta.json").read_text())

    assert content["model_name"] == Path(tiny_model).name
    assert len(content["model_sha256"]) == len(content["input_sha256"]) == 64
    assert (content["layers"], content["heads"], content["region"]) == ([1, 2], [1, 2, 3, 4], None)
    assert (content["save_maps"], content["format"], content["on_illegal"]) == (1, "h5", "error")
    assert (content["structures"], content["sites"], content["num_proteins"]) == (None, None, len(proteins))


def test_structures_and_sites_are_read_from_pipes(tiny_model, matched_fasta, tmp_path, give_stdin):
    give_stdin(gzip.decompress(STRUCTURES[1].read_bytes()))
    output = tmp_path / "out"

    inspect_attention(
        [matched_fasta],
        AttentionOptions.from_values(
            model=tiny_model, output=output, structures=[Path("-")], num_permutations=100, save_maps=0
        ),
    )

    assert [row["structure"] for row in read_rows(output / "structures.tsv")] == ["stdin"]
    assert len(json.loads((output / "meta.json").read_text())["structures"]) == 64
