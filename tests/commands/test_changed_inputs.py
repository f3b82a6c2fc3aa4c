"""Inputs that change while a command reads them: no command writes a result."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

import protembed.io.reading
from protembed.attention.inspect_attention import inspect_attention
from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig, ModelConfig
from protembed.config.embed import CheckOptions, EmbedConfig, EmbedOptions
from protembed.config.finetune import PredictConfig, PredictOptions
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.config.score import ScoreOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.errors import ChangedInputError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.pretraining.pretrain import pretrain_model
from protembed.scoring.fill import fill_fasta
from protembed.scoring.score_variants import score_variants

RECORDS = [f">p{number}\nMKTAYIAKQR{'ACDEFGHIKL'[: number + 1]}\n".encode() for number in range(8)]
WHOLE = b"".join(RECORDS)


def grow(path):
    path.write_bytes(path.read_bytes() + b">late\nMKV\n")


def shrink(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


def replace(path):
    """Replace a file by another one of the same size and time."""
    new, times = path.with_name(".new"), path.stat()
    new.write_bytes(path.read_bytes().replace(b"K", b"R", 1))
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.rename(path)


CHANGES = {"grows": grow, "shrinks": shrink, "is emptied": empty, "is replaced": replace}
changing = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def folder(tmp_path):
    """Make an empty directory for results, outside of which the inputs are."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def fasta(tmp_path):
    (tmp_path / "proteins.fasta").write_bytes(WHOLE)
    return tmp_path / "proteins.fasta"


@pytest.fixture
def change_before_opening(monkeypatch):
    """Change a file just before it is opened for the n-th time."""

    def prepare(path, number, change):
        openings = []

        @contextmanager
        def open_bytes(opened, original=protembed.io.reading.open_bytes):
            openings.append(opened)
            if opened == path and openings.count(path) == number:
                change(path)
            with original(opened) as stream:
                yield stream

        monkeypatch.setattr("protembed.io.reading.open_bytes", open_bytes)

    return prepare


@contextmanager
def change_error(path):
    with pytest.raises(ChangedInputError) as caught:
        yield
    assert caught.value.exit_status == 65
    assert str(caught.value).startswith(f"{path}: it changed while it was read, so no result was written; ")


# embed

FORMATS = {
    "npy": {},
    "npz": {},
    "tsv": {},
    "h5": {},
    "residues.npz": {"per_residue": True},
    "residues.h5": {"per_residue": True},
}


@changing
@pytest.mark.parametrize(("name", "options"), FORMATS.items(), ids=FORMATS)
def test_embed_leaves_nothing_if_its_input_changes_after_it_was_counted(
    tiny_model, fasta, folder, change, name, options
):
    config = EmbedConfig(output=folder / f"emb.{name}", **options)
    with change_error(fasta):
        embed_fasta(
            [fasta],
            EmbedOptions(model=ModelConfig(model=tiny_model), embedding=config),
            Callbacks(on_start=lambda num_residues: change(fasta)),
        )

    assert list(folder.iterdir()) == []


@changing
@pytest.mark.parametrize(("shard", "opening"), [(None, 2), (None, 3), ("2/3", 2), ("2/3", 3), ("1/3", 4), ("3/3", 5)])
def test_embed_detects_a_change_before_any_of_its_readings(
    tiny_model, fasta, folder, change_before_opening, change, shard, opening
):
    change_before_opening(fasta, opening, change)

    with change_error(fasta):
        embed_fasta(
            [fasta],
            EmbedOptions.from_values(model=tiny_model, output=folder / "emb.npy", shard=shard),
        )

    assert list(folder.iterdir()) == []


@changing
def test_embed_does_not_resume_rows_of_a_changed_input(windowed_model, proteins_fasta, tmp_path, small_chunks, change):
    fasta, output, settings = tmp_path / "p.fasta", tmp_path / "emb.npy", ModelConfig(model=windowed_model)
    fasta.write_bytes(proteins_fasta.read_bytes())
    embed_fasta([fasta], EmbedOptions(model=settings, embedding=EmbedConfig(output=tmp_path / "expected.npy")))
    done = []

    def on_protein(num_residues):
        done.append(num_residues)
        if len(done) == 20:
            change(fasta)

    with change_error(fasta):
        embed_fasta(
            [fasta],
            EmbedOptions(model=settings, embedding=EmbedConfig(output=output)),
            Callbacks(on_progress=on_protein),
        )
    fasta.write_bytes(proteins_fasta.read_bytes())
    summary = embed_fasta([fasta], EmbedOptions(model=settings, embedding=EmbedConfig(output=output)))

    assert len(done) < 40  # detected at the next chunk, not at the end
    assert (summary.was_done, summary.num_resumed, summary.num_proteins) == (False, 0, 40)
    assert output.read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_embed_removes_resumed_rows_if_the_input_changes(windowed_model, proteins_fasta, tmp_path, small_chunks):
    fasta, config = tmp_path / "p.fasta", EmbedConfig(output=tmp_path / "emb.npy")
    fasta.write_bytes(proteins_fasta.read_bytes())
    done = []

    def interrupt(num_residues):
        done.append(num_residues)
        if len(done) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_fasta(
            [fasta],
            EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config),
            Callbacks(on_progress=interrupt),
        )
    assert (tmp_path / "emb.npy.partial").is_dir()

    with change_error(fasta):
        embed_fasta(
            [fasta],
            EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config),
            Callbacks(on_start=lambda num_residues: grow(fasta)),
        )
    assert list(tmp_path.iterdir()) == [fasta]


@pytest.mark.parametrize("touch", [os.utime, lambda path: path.write_bytes(WHOLE)], ids=["touched", "rewritten"])
def test_embed_accepts_an_input_that_is_rewritten_with_the_same_bytes(tiny_model, fasta, folder, touch):
    settings = ModelConfig(model=tiny_model)
    embed_fasta([fasta], EmbedOptions(model=settings, embedding=EmbedConfig(output=folder / "expected.npy")))

    embed_fasta(
        [fasta],
        EmbedOptions(model=settings, embedding=EmbedConfig(output=folder / "emb.npy")),
        Callbacks(on_progress=lambda _: touch(fasta)),
    )

    assert (folder / "emb.npy").read_bytes() == (folder / "expected.npy").read_bytes()
    assert (folder / "emb.meta.json").read_bytes() == (folder / "expected.meta.json").read_bytes()


def test_embed_accepts_an_input_that_is_removed_after_it_was_read(tiny_model, fasta, folder):
    embed_fasta([fasta], EmbedOptions.from_values(model=tiny_model, output=folder / "a.npy"))
    done = []

    def remove(num_residues):
        done.append(num_residues)
        fasta.unlink(missing_ok=True)

    embed_fasta(
        [fasta],
        EmbedOptions.from_values(model=tiny_model, output=folder / "b.npy"),
        Callbacks(on_progress=remove),
    )

    np.testing.assert_array_equal(np.load(folder / "b.npy"), np.load(folder / "a.npy"))


# The other commands


@pytest.fixture(scope="module")
def classifier(labelled_tables, tiny_model, finetune_options, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "rich.model"
    finetune_model(labelled_tables / "classification.csv", finetune_options(output, tiny_model, method="frozen"))
    return output


@changing
def test_predict_writes_nothing_if_its_input_changes(classifier, fasta, folder, change):
    config = PredictConfig(output=folder / "p.tsv")
    with change_error(fasta):
        predict_fasta(
            [fasta],
            PredictOptions(model=ModelConfig(model=classifier), prediction=config),
            Callbacks(on_progress=lambda _: change(fasta)),
        )

    assert list(folder.iterdir()) == []


@changing
@pytest.mark.parametrize("role", ["train", "valid"])
def test_pretrain_writes_nothing_if_an_input_changes_before_training(
    fasta, tmp_path, folder, change_before_opening, change, role
):
    files = {"train": fasta, "valid": tmp_path / "valid.fasta"}
    files["valid"].write_bytes(WHOLE.replace(b"AYI", b"GGG"))
    change_before_opening(files[role], 2, change)
    config = PretrainConfig(output=folder / "r.run", size="t4_1M", steps=1, valid=[files["valid"]])
    batches = BatchConfig(batch_tokens=256, micro_batch_tokens=128, crop_residues=48)

    with change_error(files[role]):
        pretrain_model([fasta], PretrainOptions(pretrain=config, batches=batches, compute=DeviceConfig(threads=1)))

    assert list(folder.iterdir()) == []


@changing
def test_finetune_writes_nothing_if_its_table_changes(
    labelled_tables, tiny_model, finetune_options, tmp_path, folder, change_before_opening, change
):
    table = tmp_path / "labels.csv"
    table.write_bytes((labelled_tables / "classification.csv").read_bytes())
    change_before_opening(table, 2, change)

    with change_error(table):
        finetune_model(table, finetune_options(folder / "m.model", tiny_model, method="frozen"))

    assert list(folder.iterdir()) == []


@changing
@pytest.mark.parametrize("role", ["table", "wild type"])
def test_score_writes_nothing_if_an_input_changes(tiny_model, tmp_path, folder, change, role):
    files = {"table": tmp_path / "variants.csv", "wild type": tmp_path / "wild.fasta"}
    files["table"].write_text("mutant\nM1A\nK2A\nT3A\n")
    files["wild type"].write_text(">wild\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDG\n")

    with change_error(files[role]):
        score_variants(
            files["table"],
            ScoreOptions.from_values(model=tiny_model, wild_type=files["wild type"], output=folder / "s.tsv"),
            Callbacks(on_start=lambda num_tokens: change(files[role])),
        )

    assert list(folder.iterdir()) == []


@changing
@pytest.mark.parametrize("samples", [None, 2])
def test_fill_writes_nothing_if_the_input_changes(tiny_model, tmp_path, folder, change, samples):
    path = tmp_path / "masked.fasta"
    path.write_bytes(WHOLE.replace(b"Y", b"?"))
    name = "f.tsv" if samples is None else "f.fasta"

    with change_error(path):
        fill_fasta(
            path,
            ScoreOptions.from_values(model=tiny_model, fill=True, samples=samples, output=folder / name),
            Callbacks(on_start=lambda num_tokens: change(path)),
        )

    assert list(folder.iterdir()) == []


@changing
@pytest.mark.parametrize("role", ["fasta", "sites"])
def test_inspect_attention_writes_nothing_if_an_input_changes(tiny_model, fasta, tmp_path, folder, change, role):
    files = {"fasta": fasta, "sites": tmp_path / "sites.tsv"}
    rows = "".join(f"p{row}\t{row + 2}\tMKT\n" for row in range(8))
    files["sites"].write_text(f"protein\tposition\tlabel\n{rows}")
    config = AttentionConfig(output=folder / "a", save_maps=0, num_permutations=100, sites=files["sites"])

    with change_error(files[role]):
        inspect_attention(
            [fasta],
            AttentionOptions(model=ModelConfig(model=tiny_model), attention=config),
            Callbacks(on_plan=lambda plan: change(files[role])),
        )

    assert list(folder.iterdir()) == []


@changing
def test_check_reports_a_changed_input_and_not_an_invalid_result(
    tiny_model, fasta, folder, change_before_opening, change
):
    config = EmbedConfig(output=folder / "part.npy", shard="1/2")
    embed_fasta([fasta], EmbedOptions(model=ModelConfig(model=tiny_model), embedding=config))
    change_before_opening(fasta, 2, change)

    with change_error(fasta):
        check_embeddings([folder / "part.npy", fasta], CheckOptions.from_values(model=tiny_model))
