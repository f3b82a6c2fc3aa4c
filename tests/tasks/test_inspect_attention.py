import csv
import json

import numpy as np
import pytest
import torch

from protembed.config.inspect_attention import AttentionConfig
from protembed.config.shared import ModelConfig
from protembed.data.alphabet import CLS, EOS, encode
from protembed.errors import ConfigError, IllegalResidueError, OutputExistsError
from protembed.tasks.inspect_attention import inspect_attention


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("oracles") / "tiny_esm"
    tiny_esm.save_pretrained(directory)
    return directory


@pytest.fixture
def inspect(tmp_path, tiny_model, proteins_fasta):
    def run(fasta=proteins_fasta, model=tiny_model, **settings):
        output = tmp_path / "out.attention"
        inspect_attention([fasta], ModelConfig(model=model), AttentionConfig(output=output, **settings))
        return output

    return run


def test_maps_are_those_of_transformers_without_special_tokens(inspect, tiny_esm, esm_directory, proteins):
    output = inspect(model=esm_directory, num_maps=2)

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
    output = inspect(num_maps=1)
    with (output / "heads.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))

    assert [(row["layer"], row["head"]) for row in rows] == [(str(i), str(j)) for i in (1, 2) for j in (1, 2, 3, 4)]
    longest = np.log(max(map(len, proteins)) + 2)
    for row in rows:
        assert 0 < float(row["entropy"]) < longest
        assert 0 <= float(row["on_self"]) + float(row["on_neighbours"]) + float(row["on_cls"]) <= 1
    assert json.loads((output / "meta.json").read_text())["num_proteins"] == len(proteins)


def test_maps_and_figures_are_kept_of_the_first_proteins_only(inspect, proteins):
    output = inspect(num_maps=3)
    lines = (output / "proteins.tsv").read_text().splitlines()

    assert len(lines) == 1 + len(proteins)
    for folder, suffix in (("maps", "npz"), ("figures", "png")):
        names = [path.name for path in sorted((output / folder).iterdir())]
        assert names == [f"protein-{number:06d}.{suffix}" for number in (1, 2, 3)]
    assert lines[3].endswith("maps/protein-000003.npz\tfigures/protein-000003.png")
    assert (output / "figures" / "protein-000001.png").read_bytes().startswith(b"\x89PNG")


def test_chosen_layers_and_heads_are_kept(inspect):
    whole, chosen = inspect(num_maps=1), None
    with np.load(whole / "maps" / "protein-000001.npz") as arrays:
        whole_maps = arrays["attention"]
    chosen = inspect(num_maps=1, layers="2", heads="1,3-4", dtype="float16", force=True)

    with np.load(chosen / "maps" / "protein-000001.npz") as arrays:
        np.testing.assert_array_equal(arrays["attention"], whole_maps[[1]][:, [0, 2, 3]].astype(np.float16))
        assert (arrays["layers"].tolist(), arrays["heads"].tolist()) == ([2], [1, 3, 4])


def test_an_unfitted_contact_head_predicts_nothing(inspect):
    with np.load(inspect(num_maps=1) / "maps" / "protein-000001.npz") as arrays:
        assert "contacts" not in arrays.files


def test_an_identifier_never_becomes_a_path(inspect, tmp_path):
    fasta = tmp_path / "hostile.fasta"
    fasta.write_text(">../../evil\x1b[2J $\\frac{ =cmd()\nMKTAYIAKQR\n")

    output = inspect(fasta=fasta)

    assert {path.name for path in tmp_path.iterdir()} == {"hostile.fasta", "out.attention"}
    assert "\x1b" not in (output / "proteins.tsv").read_text()


def test_bad_input_or_options_leave_nothing(inspect, tmp_path):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(">a\nMK1\n")

    with pytest.raises(IllegalResidueError):
        inspect(fasta=fasta)
    with pytest.raises(ConfigError, match="--heads"):
        inspect(heads="1-9")

    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


def test_an_existing_directory_is_not_overwritten_unasked(inspect):
    inspect(num_maps=0)

    with pytest.raises(OutputExistsError):
        inspect(num_maps=0)
