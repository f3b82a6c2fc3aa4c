import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from protembed.cli.next_steps import (
    after_attention,
    after_check,
    after_embed,
    after_finetune,
    after_join,
    after_predict,
    after_pretrain,
    after_search,
)
from protembed.config.embed import EmbedOptions
from protembed.config.finetune import PredictOptions

EMBEDDED = SimpleNamespace(output=Path("a b.npy"), report=None)


def test_result_of_embed_is_verified_with_the_same_files_and_model():
    sentence = after_embed(EMBEDDED, [Path("x.fasta")], EmbedOptions.from_values(model="tiny"))

    assert sentence == "`protembed check 'a b.npy' x.fasta -m tiny` verifies the result"


@pytest.mark.parametrize(
    ("output", "fasta"),
    [
        (None, ["x.fasta"]),
        ("a.npy", ["-"]),
        ("a.npy", ["x.fasta", os.devnull]),
        ("a.npy", ["1.fasta", "2.fasta", "3.fasta", "4.fasta"]),
    ],
)
def test_stdout_stdin_and_many_files_have_no_next_step(output, fasta):
    summary = SimpleNamespace(output=output and Path(output), report=None)

    assert after_embed(summary, [Path(name) for name in fasta], EmbedOptions()) is None


def test_page_about_a_result_is_opened():
    summary = SimpleNamespace(output=Path("a.npy"), report=Path("a.report.html"))

    assert after_embed(summary, [Path("x.fasta")], EmbedOptions()) == "open a.report.html in a browser"
    assert after_join(summary) == "open a.report.html in a browser"


def test_a_table_of_hits_is_opened_in_a_spreadsheet():
    sentence = after_search(SimpleNamespace(output=Path("a.hits.tsv")))

    assert sentence == "open a.hits.tsv in a spreadsheet; docs/search.md explains its columns"
    assert after_search(SimpleNamespace(output=None)) is None


def test_shards_are_joined():
    options = EmbedOptions.from_values(shard="1/2")

    assert after_embed(EMBEDDED, [Path("x.fasta")], options) == (
        "when all shards are done, `protembed join` makes one result of them"
    )


def test_checked_result_is_loaded_in_python():
    summary = SimpleNamespace(results=[Path("a.npy")])

    assert after_check(summary) == 'in Python, protembed.load_embeddings("a.npy") loads it'


def test_only_a_finished_run_is_used():
    run = SimpleNamespace(model=Path("a.run/model"), is_finished=True)
    stopped = SimpleNamespace(model=Path("a.run/model"), is_finished=False)

    assert after_pretrain(run, [Path("x.fasta")]) == "`protembed embed x.fasta -m a.run` uses the model"
    assert after_pretrain(stopped, [Path("x.fasta")]) is None


def test_page_of_a_finished_run_is_named_if_there_is_one(tmp_path):
    run = SimpleNamespace(model=tmp_path / "model", is_finished=True)
    (tmp_path / "report.html").touch()

    assert after_pretrain(run, [Path("x.fasta")]).startswith(
        f"open {tmp_path / 'report.html'} in a browser; `protembed"
    )


def test_fine_tuned_model_predicts_unless_the_training_was_stopped():
    stopped = SimpleNamespace(output=Path("a.model"), comparison=None)
    finished = SimpleNamespace(output=Path("a.model"), comparison="metrics")

    assert after_finetune(stopped) is None
    assert "`protembed predict proteins.fasta -m a.model`" in after_finetune(finished)


def test_report_is_named_only_if_the_model_has_one(tmp_path):
    summary, options = SimpleNamespace(output=Path("p.tsv")), PredictOptions.from_values(model=tmp_path)

    assert after_predict(summary, options) == "open p.tsv in a spreadsheet"
    (tmp_path / "report.html").touch()
    assert after_predict(summary, options).endswith("report.html shows how reliable they are")


@pytest.mark.parametrize(("num_maps", "name"), [(1, "report.html in a browser"), (0, "heads.tsv in a spreadsheet")])
def test_attention_without_maps_has_no_page_to_open(num_maps, name):
    sentence = after_attention(SimpleNamespace(output=Path("x.attention"), num_maps=num_maps))

    assert sentence.startswith(f"open x.attention/{name}")
