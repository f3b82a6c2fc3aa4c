import json
import re

import numpy as np
import pytest

from protembed.config.embed import EmbedOptions, JoinOptions
from protembed.embedding.embed import embed_fasta
from protembed.embedding.join import join_embeddings
from protembed.embedding.report import write_report
from protembed.errors import ConfigError, OutputExistsError
from protembed.inference.engine import Engine
from protembed.io.result import META, sidecar

HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}"
FORMATS = {
    "npy": {},
    "npz": {},
    "tsv": {},
    "h5": {},
    "residues.npz": {"per_residue": True},
    "residues.h5": {"per_residue": True},
}


def embed_into(directory, name, fasta, **options):
    return embed_fasta(fasta, EmbedOptions.from_values(output=directory / name, **{"report": True} | options))


@pytest.fixture
def embed(tmp_path, windowed_model, proteins_fasta):
    """Embed forty proteins with a report, and return the summary."""

    def run(name="emb.npy", fasta=proteins_fasta, **options):
        return embed_into(tmp_path, name, fasta, model=windowed_model, **options)

    return run


@pytest.fixture(scope="module")
def summaries(tmp_path_factory, windowed_model, proteins_fasta):
    """A result with a report in every format."""
    directory = tmp_path_factory.mktemp("formats")
    return {
        name: embed_into(directory, f"emb.{name}", proteins_fasta, model=windowed_model, **options)
        for name, options in FORMATS.items()
    }


def text_of(summary):
    return summary.report.read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_report_is_written_beside_a_result_of_any_format(summaries, name):
    summary = summaries[name]

    assert summary.report == sidecar(summary.output, ".report.html")
    page = text_of(summary)
    per_residue = "per_residue" in FORMATS[name]
    assert f"Each {'residue ' if per_residue else ''}of the 40 proteins has a vector of 32 numbers" in page
    assert page.count("<svg") == 6  # lengths, windows, norms, cosines, variance and positions
    assert all(finding in page for finding in summary.findings)


@pytest.mark.parametrize("name", ["npz", "tsv", "h5"])
def test_same_vectors_give_the_same_page_in_any_format_but_for_its_name(summaries, name):
    page = text_of(summaries[name]).replace(f"{name}, 40 ×", "npy, 40 ×")

    assert re.sub("<code>.*?</code>", "", page) == re.sub("<code>.*?</code>", "", text_of(summaries["npy"]))


def test_report_of_a_finished_result_computes_nothing_and_is_the_same(embed, monkeypatch):
    first = embed()
    page = text_of(first)
    first.report.unlink()
    monkeypatch.setattr(Engine, "run", lambda *_: pytest.fail("it computes"))

    again = embed()

    assert again.was_done and again.findings == first.findings
    assert text_of(again) == page


def test_report_changes_no_other_file(embed, tmp_path):
    summary = embed()
    reported = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != summary.report}
    embed(force=True, report=False)

    assert not summary.report.exists()  # it described the result that was replaced
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == reported


def test_shards_have_a_report_each_and_join_one_of_all(embed, tmp_path):
    shards = [embed(f"part{number}.npy", shard=f"{number}/2") for number in (1, 2)]
    whole = embed("whole.npy")
    joined = join_embeddings(
        [shard.output for shard in shards], JoinOptions.from_values(output=tmp_path / "all.npy", report=True)
    )

    assert "<dt>Shard</dt><dd>2/2</dd>" in text_of(shards[1])
    assert joined.report == tmp_path / "all.report.html"
    assert f"Each of the {whole.num_proteins} proteins" in text_of(joined)
    assert "Vectors of part1.npy, part2.npy" in text_of(joined)
    drawn = [re.findall("<svg.*?</svg>", text_of(summary), re.DOTALL) for summary in (whole, joined)]
    assert drawn[0] == drawn[1]


def test_empty_shard_has_a_report(embed, tmp_path):
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">p1\nMKTAYIAKQR\n")

    summary = embed(fasta=fasta, shard="1/2")
    empty = summary if summary.num_proteins == 0 else embed("other.npy", fasta=fasta, shard="2/2")

    assert empty.num_proteins == 0
    assert "holds no protein" in text_of(empty)


@pytest.mark.parametrize(("options", "start"), [({}, "The only"), ({"per_residue": True}, "Each residue of the only")])
def test_result_of_one_protein_has_a_report(embed, tmp_path, options, start):
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">p1\nMKT\n")

    page = text_of(embed("emb.npz", fasta=fasta, **options))

    assert f"{start} protein has a vector of 32 numbers, and nothing speaks against using it." in page
    assert "Fewer than 10 vectors do not show how they spread." in page


def test_page_names_what_was_run_on_what(embed, proteins_fasta, windowed_model):
    page = text_of(embed(layer=1, pooling="mean,std"))

    assert f"<code>protembed embed {proteins_fasta.name}" in page
    assert str(proteins_fasta.parent) not in page and str(windowed_model.parent) not in page
    assert "one per protein (mean, std), layer 1" in page
    assert "not among the 20 standard amino acids: " in page


def test_report_finds_repeated_sequences_and_records_left_out(embed, tmp_path):
    fasta = tmp_path / "a.fasta"
    fasta.write_text(">one\nMKTAYIAKQR\n>two\nMKTAYIAKQR\n>three\nMKT1AY\n>four\nMKKKTAYI\n")

    summary = embed(fasta=fasta, on_illegal="skip")

    assert summary.findings == ["1 protein repeats the sequence of an earlier one", "1 record was left out"]
    page = text_of(summary)
    assert "Repeated sequences" in page and "Records that were left out" in page
    assert "three" in page


def test_hostile_names_enter_the_page_as_text(embed, tmp_path):
    fasta = tmp_path / "<img src=x onerror=alert(1)>.fasta"
    names = [HOSTILE.replace(" ", "_"), "\x1b[31mred", "=cmd()", "\u202eright"]
    fasta.write_text("".join(f">{name}\nMKT{'A' * number}Y\n" for number, name in enumerate(names * 6)))

    page = text_of(embed(fasta=fasta))

    assert page.count("<script") == 1  # of protembed
    assert "<img" not in page
    assert "&lt;script&gt;alert(" in page
    assert "\x1b" not in page and "\u202e" not in page
    assert "{{_7_*_7_}}" in page and ">=cmd()<" in page


def test_report_on_stdout_is_an_error_before_anything_is_read(embed):
    with pytest.raises(ConfigError, match="report is True, but it is written beside the result: name a file"):
        embed_fasta("missing.fasta", EmbedOptions.from_values(output="-", report=True))


def test_page_that_protembed_did_not_write_is_not_replaced(embed, tmp_path):
    (tmp_path / "emb.report.html").write_text("<!doctype html>\nmine")

    with pytest.raises(OutputExistsError, match="was not written by protembed"):
        embed(report=False, force=True)

    assert (tmp_path / "emb.report.html").read_text().endswith("mine")


def test_next_run_removes_a_page_that_a_killed_process_has_not_finished(embed, tmp_path):
    (tmp_path / ".emb.report.html.99.tmp.html").write_text("<!doctype")

    embed(report=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["emb.ids.tsv", "emb.meta.json", "emb.npy"]


def test_report_is_no_setting_of_a_result(embed, tmp_path):
    summary = embed()

    assert "report" not in json.loads(sidecar(summary.output, META).read_text())["options"]


def test_page_of_many_proteins_is_small(store):
    rng = np.random.default_rng(0)
    result = store(rng.normal(size=(5000, 8)), ["M" * number for number in rng.integers(10, 2000, 5000)])

    report = write_report(result.path, EmbedOptions(), [result.path])

    assert report.path.stat().st_size < 600_000
    assert "those of 2,000 vectors, drawn at random from 5,000" in report.path.read_text()
