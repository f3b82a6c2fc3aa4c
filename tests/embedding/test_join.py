import json
import shutil
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from protembed.callbacks import Callbacks
from protembed.config.common import ModelConfig
from protembed.config.embed import CheckConfig, CheckOptions, EmbedOptions, JoinOptions
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.join import join_embeddings
from protembed.embedding.loading import load_embeddings
from protembed.embedding.metadata import FAILED, IDS
from protembed.errors import ConfigError, InputNotFoundError, OutputExistsError, VerificationError
from protembed.io.result import META, sidecar
from protembed.model.checkpoint import new_checkpoint, save_checkpoint

# Identifiers that are not unique in the whole input, illegal as names, or escaped in tables; sequences that are not
# written as they are read; and records that are left out.
ODD = """>twice of the first kind
MKTAYIAKQRQISFVK
>=cmd() formula
mktayiakqrqisfvks*
>'-1
MKTAYIAKQRQISF
>bad
MK1
>a/b slash
MKTAYIAKQRQISFVKJ
>tab\x1b[2Jbell
MKTAYIAKQ
>worse
MKTAY2
>twice of the second kind
mktayiakqrqisfvkshf
>.
MKTAYIAKQRQISFVKSHF
>same
MKTAYIAKQRQ
>same
MKTAYIAKQRQ
>last
M1
"""
PER_PROTEIN = ["npy", "npz", "tsv", "h5"]
KINDS = [(suffix, False) for suffix in PER_PROTEIN] + [("npz", True), ("h5", True)]
every_kind = pytest.mark.parametrize(("suffix", "per_residue"), KINDS)


def files_of(output):
    """Read the files of a result, by the ends of their names."""
    paths = {"": output, **{end: sidecar(output, end) for end in (IDS, META, FAILED)}}
    return {end: path.read_bytes() for end, path in paths.items() if path.exists()}


@pytest.fixture
def odd_fasta(tmp_path):
    path = tmp_path / "odd.fasta"
    path.write_text(ODD)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of results, and what each was made from: tests that need the same share it."""
    return tmp_path_factory.mktemp("made"), {}


@pytest.fixture
def embed(made, tmp_path, windowed_model, proteins_fasta):
    """Embed into `tmp_path / name` with a model whose window is 64 residues; return that path."""
    folder, results = made

    def run(name, fasta=proteins_fasta, model=windowed_model, **settings):
        output = tmp_path / name
        key = (output.suffix, fasta.read_bytes(), model, *sorted(settings.items()))
        if key not in results:
            results[key] = folder / f"{len(results)}{output.suffix}"
            embed_fasta(fasta, EmbedOptions.from_values(model=model, output=results[key], **settings))
        output.parent.mkdir(exist_ok=True)
        for end, content in files_of(results[key]).items():
            (sidecar(output, end) if end else output).write_bytes(content)
        return output

    return run


@pytest.fixture
def shards(embed):
    """Embed the shards of an input, `emb.I-of-N.SUFFIX`."""

    def run(total, suffix="npy", stem="emb", **settings):
        numbers = range(1, total + 1)
        return [embed(f"{stem}.{n}-of-{total}.{suffix}", shard=f"{n}/{total}", **settings) for n in numbers]

    return run


@pytest.fixture
def join(tmp_path):
    """Join results into `tmp_path / name`; return the summary."""

    def run(results, name="joined.npy", callbacks=None, **settings):
        return join_embeddings(results, JoinOptions.from_values(output=tmp_path / name, **settings), callbacks)

    return run


@pytest.fixture
def failure(join):
    """Join results that do not belong together; return the message."""

    def run(results, **settings):
        with pytest.raises(VerificationError) as caught:
            join(results, **settings)
        assert caught.value.exit_status == 1
        return str(caught.value)

    return run


# Shards


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_shards_of_a_run_make_the_files_of_the_run_without_shards(
    embed, shards, join, tmp_path, suffix, per_residue, dtype
):
    settings = {"per_residue": per_residue, "store_dtype": dtype}
    whole = embed(f"whole/emb.{suffix}", **settings)

    summary = join(shards(3, suffix, **settings), f"joined/emb.{suffix}")

    assert files_of(tmp_path / f"joined/emb.{suffix}") == files_of(whole)
    assert (summary.num_proteins, summary.is_sharded, summary.was_done) == (40, True, False)
    assert sorted(path.name for path in (tmp_path / "joined").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


@pytest.mark.parametrize(
    ("suffix", "per_residue", "settings"),
    [(*kind, {}) for kind in KINDS]
    + [("h5", is_per_residue, {"h5_names": "hash"}) for is_per_residue in (False, True)],
)
def test_odd_identifiers_sequences_and_skipped_records_are_joined_to_the_same_bytes(
    embed, shards, join, odd_fasta, tmp_path, suffix, per_residue, settings
):
    settings = {**settings, "per_residue": per_residue, "fasta": odd_fasta, "on_illegal": "skip"}
    whole = embed(f"whole/emb.{suffix}", **settings)

    summary = join(shards(4, suffix, **settings), f"joined/emb.{suffix}")

    assert files_of(tmp_path / f"joined/emb.{suffix}") == files_of(whole)
    assert files_of(whole)[FAILED].count(b"\n") == 4
    assert summary.num_refused == 3
    assert list(summary.warnings) == ["2 proteins with an identifier used before; rows are identified by number"]


def test_more_shards_than_proteins_are_joined(embed, shards, join, tmp_path, odd_fasta):
    settings = {"fasta": odd_fasta, "on_illegal": "skip"}
    whole = embed("whole/emb.npy", **settings)

    join(shards(25, **settings), "joined/emb.npy")

    assert files_of(tmp_path / "joined/emb.npy") == files_of(whole)


@pytest.mark.parametrize("suffix", PER_PROTEIN)
@pytest.mark.parametrize("target", PER_PROTEIN)
def test_the_result_may_have_another_format_than_the_shards(embed, shards, join, tmp_path, suffix, target):
    whole = embed(f"whole/emb.{target}")

    join(shards(2, suffix), f"joined/emb.{target}")

    assert files_of(tmp_path / f"joined/emb.{target}") == files_of(whole)


def test_shards_may_have_different_formats(embed, join, tmp_path):
    whole = embed("whole/emb.npy")
    parts = [embed(f"emb.{number}.{suffix}", shard=f"{number}/4") for number, suffix in enumerate(PER_PROTEIN, start=1)]

    join(parts, "joined/emb.npy")

    assert files_of(tmp_path / "joined/emb.npy") == files_of(whole)


def test_shards_are_joined_in_their_order_however_they_are_given(shards, join, tmp_path):
    parts = shards(12)
    expected = [str(part) for part in parts]

    for number, given in enumerate((parts[::-1], sorted(parts), str(tmp_path / "emb.*-of-12.npy"))):
        summary = join(given, f"{number}.npy")
        assert [str(path) for path in summary.parts] == expected
    assert len({(tmp_path / f"{number}.npy").read_bytes() for number in range(3)}) == 1


@pytest.mark.parametrize("suffix", PER_PROTEIN)
def test_check_verifies_what_was_joined(shards, join, windowed_model, tmp_path, odd_fasta, suffix):
    join(shards(3, suffix, fasta=odd_fasta, on_illegal="skip"), f"joined.{suffix}")
    options = CheckOptions(model=ModelConfig(model=windowed_model), check=CheckConfig(sample_size=40))

    summary = check_embeddings([tmp_path / f"joined.{suffix}", odd_fasta], options)

    assert (summary.num_proteins, summary.num_recomputed, summary.num_refused) == (9, 9, 3)


def test_one_shard_of_one_is_joined(embed, join, tmp_path):
    join([embed("emb.npy", shard="1/1")])

    assert files_of(tmp_path / "joined.npy") == files_of(embed("whole.npy"))


# Results of several inputs


@pytest.fixture
def three_fasta(proteins_fasta, tmp_path):
    """The forty proteins, and eight of them under other or the same identifiers."""
    first = tmp_path / "first.fasta"
    first.write_text("".join(f">{record}" for record in proteins_fasta.read_text().split(">")[1:9]))
    second = tmp_path / "second.fasta"
    second.write_text(first.read_text().replace(">", ">other"))
    return [proteins_fasta, first, second]


@every_kind
def test_results_of_several_inputs_are_joined_in_the_order_given(
    embed, join, windowed_model, three_fasta, tmp_path, suffix, per_residue
):
    parts = [embed(f"{fasta.stem}.{suffix}", fasta, per_residue=per_residue) for fasta in three_fasta]

    summary = join(parts, f"joined.{suffix}")

    loaded, of_parts = load_embeddings(tmp_path / f"joined.{suffix}"), [load_embeddings(part) for part in parts]
    assert loaded.ids == [record_id for part in of_parts for record_id in part.ids]
    pairs = zip(loaded.vectors, [vector for part in of_parts for vector in part.vectors], strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)
    assert (summary.num_proteins, summary.is_sharded) == (56, False)
    assert list(summary.warnings) == ["8 proteins with an identifier used before; rows are identified by number"]
    options = CheckOptions(model=ModelConfig(model=windowed_model), check=CheckConfig(sample_size=56))
    assert check_embeddings([tmp_path / f"joined.{suffix}", *three_fasta], options).num_recomputed == 56


def test_datasets_of_an_identifier_in_several_results_are_named_by_a_hash(embed, join, three_fasta, tmp_path):
    parts = [embed(f"{fasta.stem}.h5", fasta) for fasta in three_fasta]

    join(parts, "joined.h5")

    with h5py.File(tmp_path / "joined.h5") as file:
        named = [name == dataset.attrs["original_id"] for name, dataset in file.items()]
        assert [dataset.attrs["row"] for dataset in file.values()] == list(range(1, 57))
    assert named == [False] * 8 + [True] * 32 + [False] * 8 + [True] * 8


def test_joined_results_are_joined_again(embed, join, three_fasta, tmp_path):
    parts = [embed(f"{fasta.stem}.npy", fasta) for fasta in three_fasta]
    join(parts[:2], "two.npy")

    assert join([tmp_path / "two.npy", parts[2]], "three.npy").num_proteins == 56
    join(parts, "joined.npy")
    assert (tmp_path / "three.npy").read_bytes() == (tmp_path / "joined.npy").read_bytes()


# What does not belong together


def test_missing_shards_are_named(shards, failure):
    parts = shards(14)

    assert "emb.2-of-14.npy cannot be used: it is shard 2/14, and of the other shards these are missing: 1/14" in (
        failure(parts[1:])
    )
    assert failure(parts[2:3]).endswith(
        "these are missing: 1/14, 2/14, 4/14, 5/14, 6/14, 7/14, 8/14, 9/14, 10/14, 11/14 and 3 more"
    )


def test_a_repeated_shard_is_named(shards, failure):
    first, second, third = shards(3)
    copy = shutil.copy(second, second.with_name("copy.npy"))
    for end in (IDS, META):
        shutil.copy(sidecar(second, end), sidecar(second.with_name("copy.npy"), end))

    assert f"{copy} cannot be used: it is shard 2/3, and so is {second}" in failure([first, second, copy, third])


def test_shards_of_different_runs_are_named(shards, failure, three_fasta, embed):
    first, second = shards(2)
    other = embed("other.npy", three_fasta[1], shard="2/2")
    of_three = embed("three.npy", shard="2/3")

    assert f"{other} cannot be used: it is shard 2/2 of another run than {first}, which has another input" in failure(
        [first, other]
    )
    assert f"{of_three} cannot be used: it is shard 2/3 of another run" in failure([first, of_three])
    assert f"it is a whole result, but {first} is shard 1/2: join the shards of each run first" in failure(
        [embed("whole.npy"), first, second]
    )


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"layer": 1}, "`layer` was 2, not 1"),
        ({"pooling": "max"}, "`pooling` was mean, not max"),
        ({"precision": "bfloat16"}, "`precision` was float32, not bfloat16"),
        ({"store_dtype": "float16"}, "`store_dtype` was float32, not float16"),
        ({"window_residues": 50}, "`window_residues` was 64, not 50"),
        ({"region": "1-10"}, "`region` was none, not 1-10"),
        ({"long_proteins": "truncate"}, "`long_proteins` was window, not truncate"),
    ],
)
@pytest.mark.parametrize("shard", [None, "2/2"])
def test_results_with_other_settings_are_not_joined(embed, failure, three_fasta, settings, difference, shard):
    first = embed("first.npy", shard=shard and "1/2")
    other = embed("other.npy", three_fasta[0] if shard else three_fasta[1], shard=shard, **settings)

    assert f"{other} cannot be used: it cannot follow {first}, because {difference}" in failure([first, other])


def test_results_of_different_models_are_not_joined(embed, failure, tmp_path, tiny_checkpoint, three_fasta):
    model = tmp_path / "windowed"
    save_checkpoint(new_checkpoint(tiny_checkpoint.encoder.shape, "gaussian", seed=1), model, "# other\n")
    first, other = embed("first.npy"), embed("other.npy", three_fasta[1], model=model, window_residues=64)

    assert f"it cannot follow {first}, because the model differs" in failure([first, other])


def test_results_of_the_same_model_under_different_names_are_joined(embed, join, tmp_path, windowed_model, three_fasta):
    model = shutil.copytree(windowed_model, tmp_path / "renamed")

    assert join([embed("first.npy"), embed("other.npy", three_fasta[1], model=model)]).num_proteins == 48


def test_vectors_of_proteins_and_of_residues_are_not_joined(embed, failure, three_fasta):
    first, other = embed("first.npz"), embed("other.npz", three_fasta[1], per_residue=True)

    assert "because `per_residue` was off, not on" in failure([first, other], name="joined.npz")


def test_two_results_of_the_same_input_are_not_joined(embed, failure):
    first, other = embed("first.npy"), embed("other.npz")

    assert f"{other} cannot be used: it is a result of the same input as {first}" in failure([first, other])


# Damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "its hash differs from the one in its meta file"),
        (lambda path: sidecar(path, IDS).unlink(), "emb.2-of-2.ids.tsv is missing, or its hash differs"),
        (lambda path: sidecar(path, META).unlink(), "emb.2-of-2.meta.json is missing, which `embed` writes"),
        (lambda path: sidecar(path, FAILED).unlink(), "2 records were left out, but emb.2-of-2.failed.tsv lists 0"),
    ],
    ids=["vectors", "ids", "meta", "failed"],
)
def test_a_damaged_result_is_not_joined_and_nothing_is_left(shards, failure, odd_fasta, tmp_path, damage, message):
    parts = shards(2, fasta=odd_fasta, on_illegal="skip")
    damage(parts[1])
    before = sorted(tmp_path.iterdir())

    assert message in failure(parts)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unfinished_part_is_named_with_the_way_to_finish_it(join, embed, tmp_path):
    (tmp_path / "part.npy.partial").mkdir()
    whole = embed("emb.npy")

    with pytest.raises(
        InputNotFoundError, match="part.npy: this result is unfinished; wait for its command, or run it"
    ):
        join([whole, tmp_path / "part.npy"])
    with pytest.raises(
        VerificationError, match="part.npy.partial cannot be used: it is unfinished; wait for its command"
    ):
        join([whole, tmp_path / "part.npy.partial"])


@pytest.mark.parametrize(
    ("name", "found"),
    [("emb.ids.tsv", "a file beside a result"), ("emb.meta.json", "a file beside a result"), (".", "a directory")],
)
def test_a_part_that_is_no_result_is_named_for_what_it_is(join, embed, tmp_path, name, found):
    embed("emb.npy")

    with pytest.raises(VerificationError, match=f"it is {found}; name the file with the vectors"):
        join([tmp_path / name])


def test_a_result_that_does_not_exist_is_named(join, embed, tmp_path):
    with pytest.raises(InputNotFoundError, match="none.npy: this result does not exist"):
        join([embed("emb.npy"), tmp_path / "none.npy"])
    with pytest.raises(InputNotFoundError, match="no file matches this pattern"):
        join([tmp_path / "none.*.npy"])


# The life of the result


def test_a_result_that_is_up_to_date_is_not_written_again(shards, join, tmp_path):
    parts = shards(2)
    join(parts)
    written = (tmp_path / "joined.npy").stat().st_mtime_ns

    assert join(parts).was_done
    assert (tmp_path / "joined.npy").stat().st_mtime_ns == written


def test_a_run_without_shards_finds_the_joined_result_up_to_date(
    shards, join, tmp_path, windowed_model, proteins_fasta
):
    join(shards(2))
    written = (tmp_path / "joined.npy").stat().st_mtime_ns

    embed_fasta(proteins_fasta, EmbedOptions.from_values(model=windowed_model, output=tmp_path / "joined.npy"))

    assert (tmp_path / "joined.npy").stat().st_mtime_ns == written


def test_a_different_result_is_replaced_only_on_request(shards, join, embed, tmp_path, three_fasta):
    other = embed("joined.npy", three_fasta[1])
    before, parts = files_of(other), shards(2)

    with pytest.raises(OutputExistsError, match="was made with other settings"):
        join(parts)
    assert files_of(other) == before
    assert join(parts, force=True).num_proteins == 40


def test_an_interrupted_run_without_shards_is_replaced(
    shards, join, embed, tmp_path, windowed_model, proteins_fasta, small_chunks
):
    def interrupt(num_residues):
        raise KeyboardInterrupt

    options = EmbedOptions.from_values(model=windowed_model, output=tmp_path / "joined.npz")
    with pytest.raises(KeyboardInterrupt):
        embed_fasta(proteins_fasta, options, Callbacks(on_progress=interrupt))
    assert (tmp_path / "joined.npz.partial").exists()

    join(shards(3, "npz"), "joined.npz")

    assert files_of(tmp_path / "joined.npz") == files_of(embed("whole.npz"))
    assert not (tmp_path / "joined.npz.partial").exists()


def test_an_input_is_not_replaced(shards, join):
    parts = shards(2)

    with pytest.raises(OutputExistsError, match="is read by this command"):
        join(parts, parts[1].name, force=True)


def test_the_output_is_named_after_the_shards(shards, embed, monkeypatch, tmp_path, three_fasta):
    parts, others = shards(2, stem="data.v1.2"), [embed("a.h5", three_fasta[0]), embed("b.h5", three_fasta[1])]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    assert str(join_embeddings(parts).output) == "data.v1.2.npy"
    assert str(join_embeddings(parts, JoinOptions.from_values(format="tsv")).output) == "data.v1.2.tsv"
    assert str(join_embeddings(others).output) == "joined.h5"


def test_a_format_that_cannot_hold_the_vectors_is_a_usage_error(shards, join):
    with pytest.raises(ConfigError, match="one vector per residue is written as npz or h5"):
        join(shards(2, "npz", per_residue=True), "joined.npy")


@pytest.mark.parametrize("suffix", ["npy", "tsv"])
def test_a_result_is_written_to_stdout(shards, embed, suffix, capfdbinary):
    join_embeddings(shards(2), JoinOptions.from_values(output="-", format=suffix))

    assert capfdbinary.readouterr().out == embed(f"whole.{suffix}").read_bytes()


def test_progress_counts_the_residues_of_each_protein(shards, join, proteins):
    totals, residues = [], []

    join(shards(2), callbacks=Callbacks(on_start=totals.append, on_progress=residues.append))

    assert totals == [sum(map(len, proteins))]
    assert residues == list(map(len, proteins))


@pytest.mark.parametrize(("suffix", "per_residue"), [("npy", False), ("npz", False), ("tsv", False), ("npz", True)])
def test_memory_does_not_grow_with_the_number_of_proteins(embed, join, tmp_path, suffix, per_residue, monkeypatch):
    monkeypatch.setattr("protembed.embedding.stored_vectors._BLOCK", 1 << 12)
    monkeypatch.setattr("protembed.data.protein_rows._COPY_BLOCK", 1 << 12)
    peaks = []
    for number in (200, 2000):
        fasta = tmp_path / f"{number}.fasta"
        fasta.write_text("".join(f">p{row}\nMKTAYIAKQR\n" for row in range(number)))
        part = embed(f"{number}.{suffix}", fasta, per_residue=per_residue)
        tracemalloc.start()
        join([part], f"{number}.joined.{suffix}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] - peaks[0] < 1800 * 32  # a fourth of the vectors; identifiers take some bytes each


def test_joining_imports_neither_torch_nor_the_code_of_models(shards, tmp_path):
    parts = shards(2)
    code = (
        "import sys; from protembed.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'sklearn', 'scipy', 'h5py') "
        "or name.startswith('protembed.model')])"
    )
    command = [sys.executable, "-c", code, "join", *parts, "-o", tmp_path / "joined.npy", "--quiet"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.stdout, result.stderr) == ("[]\n", "")
    assert json.loads(sidecar(tmp_path / "joined.npy", META).read_text())["num_proteins"] == 40
