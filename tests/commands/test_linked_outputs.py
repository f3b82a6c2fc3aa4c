"""Outputs that are links: the link stays, and its target becomes the result."""

import pytest

from protembed.attention.inspect_attention import inspect_attention
from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig, ModelConfig
from protembed.config.embed import CheckOptions, EmbedConfig, EmbedOptions
from protembed.config.finetune import PredictOptions
from protembed.config.inspect_attention import AttentionOptions
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.config.score import ScoreOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.errors import OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.pretraining.pretrain import pretrain_model
from protembed.scoring.score_variants import score_variants

PROTEINS = "".join(f">p{number}\nMKTAYIAKQR{'ACDEFGHIKL'[: number + 1]}\n" for number in range(8))


@pytest.fixture
def fasta(tmp_path):
    (tmp_path / "proteins.fasta").write_text(PROTEINS)
    return tmp_path / "proteins.fasta"


@pytest.fixture
def link(tmp_path):
    """Make a link in one directory to a path in another."""

    def make(name, target):
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "targets").mkdir(exist_ok=True)
        (tmp_path / "links" / name).symlink_to(tmp_path / "targets" / target)
        return tmp_path / "links" / name, tmp_path / "targets" / target

    return make


@pytest.mark.parametrize("per_residue", [False, True], ids=["npy", "h5"])
@pytest.mark.parametrize("is_made_before", [False, True], ids=["dangling", "empty file"])
def test_embed_writes_to_the_target_of_a_link_under_any_name(
    tiny_model, fasta, tmp_path, link, is_made_before, per_residue
):
    suffix = "h5" if per_residue else "npy"
    output, target = link(f"emb.{suffix}", "dataset_1.dat")
    if is_made_before:
        target.touch()
    config, plain = (EmbedConfig(output=path, per_residue=per_residue) for path in (output, tmp_path / f"x.{suffix}"))

    embed_fasta([fasta], EmbedOptions(model=ModelConfig(model=tiny_model), embedding=plain))
    summary = embed_fasta([fasta], EmbedOptions(model=ModelConfig(model=tiny_model), embedding=config))
    again = embed_fasta([fasta], EmbedOptions(model=ModelConfig(model=tiny_model), embedding=config))
    checked = check_embeddings([output, fasta], CheckOptions.from_values(model=tiny_model))

    assert output.is_symlink() and list(output.parent.iterdir()) == [output]
    assert output.read_bytes() == plain.output.read_bytes()
    assert {path.name for path in target.parent.iterdir()} == {
        *("dataset_1.dat", "dataset_1.dat.ids.tsv", "dataset_1.dat.meta.json"),
    }
    assert (summary.output, summary.was_done, again.was_done, checked.num_proteins) == (target, False, True, 8)


def test_embed_resumes_an_interrupted_result_through_a_link(
    windowed_model, proteins_fasta, tmp_path, small_chunks, link
):
    output, target = link("emb.npy", "real.npy")
    done = []

    def interrupt(num_residues):
        done.append(num_residues)
        if len(done) == 20:
            raise KeyboardInterrupt

    model, config = ModelConfig(model=windowed_model), EmbedConfig(output=output)
    with pytest.raises(KeyboardInterrupt):
        embed_fasta([proteins_fasta], EmbedOptions(model=model, embedding=config), Callbacks(on_progress=interrupt))

    assert embed_fasta([proteins_fasta], EmbedOptions(model=model, embedding=config)).num_resumed > 0
    assert output.is_symlink() and target.stat().st_size > 0


def test_the_target_of_a_link_is_replaced_only_with_force(tiny_model, fasta, link):
    output, target = link("emb.npy", "real.npy")
    target.write_text("precious")

    with pytest.raises(OutputExistsError):
        embed_fasta([fasta], EmbedOptions.from_values(model=tiny_model, output=output))
    assert target.read_text() == "precious"

    embed_fasta([fasta], EmbedOptions.from_values(model=tiny_model, output=output, force=True))
    assert output.is_symlink() and target.read_bytes().startswith(b"\x93NUMPY")


def test_an_output_that_is_a_link_to_the_input_is_an_error(tiny_model, fasta, tmp_path):
    (tmp_path / "emb.npy").symlink_to(fasta)

    with pytest.raises(OutputExistsError, match="is read by this command"):
        embed_fasta(
            [fasta],
            EmbedOptions.from_values(model=tiny_model, output=tmp_path / "emb.npy", force=True),
        )
    assert fasta.read_text() == PROTEINS


def test_finetune_and_predict_write_to_the_target_of_a_link(
    labelled_tables, tiny_model, finetune_options, fasta, tmp_path, link
):
    output, target = link("p.tsv", "dataset_2.dat")
    target.touch()
    model, directory = link("m.model", "model")

    finetune_model(labelled_tables / "classification.csv", finetune_options(model, tiny_model, method="frozen"))
    predict_fasta([fasta], PredictOptions.from_values(model=model, output=output))

    assert model.is_symlink() and (directory / "model.safetensors").exists()
    assert output.is_symlink() and len(target.read_text().splitlines()) == 9


def test_score_writes_to_the_target_of_a_link(tiny_model, tmp_path, link):
    output, target = link("s.tsv", "dataset_3.dat")
    (tmp_path / "variants.csv").write_text("sequence,mutant\nMKTAYIAKQR,K2A\n")

    score_variants(tmp_path / "variants.csv", ScoreOptions.from_values(model=tiny_model, output=output))

    assert output.is_symlink() and len(target.read_text().splitlines()) == 3


@pytest.mark.parametrize("is_made_before", [False, True], ids=["dangling", "empty folder"])
def test_pretrain_and_inspect_attention_write_to_the_target_of_a_link(tiny_model, fasta, link, is_made_before):
    run, run_target = link("r.run", "run")
    attention, attention_target = link("a", "attention")
    if is_made_before:
        run_target.mkdir()
    batches = BatchConfig(batch_tokens=256, micro_batch_tokens=128, crop_residues=48)
    config = PretrainConfig(output=run, size="t4_1M", steps=1, valid=[fasta])

    pretrain_model([fasta], PretrainOptions(pretrain=config, batches=batches, compute=DeviceConfig(threads=1)))
    inspect_attention(
        [fasta],
        AttentionOptions.from_values(model=tiny_model, output=attention, save_maps=1),
    )

    assert run.is_symlink() and (run_target / "model" / "model.safetensors").exists()
    assert attention.is_symlink() and (attention_target / "heads.tsv").exists()
