import shutil

import h5py
import numpy as np
import pytest

from protembed.config.embed import EmbedOptions
from protembed.data.fasta import read_fasta
from protembed.embedding.embed import embed_fasta
from protembed.embedding.loading import load_embeddings
from protembed.errors import InputNotFoundError, VerificationError


@pytest.fixture(scope="module")
def embed(tiny_model, proteins_fasta, tmp_path_factory):
    """Embed the forty proteins with the tiny model."""
    folder = tmp_path_factory.mktemp("embeddings")

    def run(name, fasta=proteins_fasta, **settings):
        output = folder / name
        embed_fasta([fasta], EmbedOptions.from_values(model=tiny_model, output=output, **settings))
        return output

    return run


@pytest.fixture(scope="module")
def ids(proteins_fasta):
    return [record.id for record in read_fasta(proteins_fasta)]


@pytest.fixture(scope="module")
def matrix(embed):
    """The vectors of the forty proteins."""
    return np.load(embed("reference.npy"))


@pytest.fixture(scope="module")
def shards(embed):
    return [embed(f"emb.{number}-of-3.npy", shard=f"{number}/3") for number in (1, 2, 3)]


@pytest.mark.parametrize("suffix", ["npy", "npz", "tsv", "h5"])
@pytest.mark.parametrize("as_name", [str, lambda path: path, lambda path: [path]], ids=["text", "path", "list"])
def test_vectors_identifiers_and_settings_of_each_format_are_loaded(embed, ids, matrix, suffix, as_name):
    loaded = load_embeddings(as_name(embed(f"emb.{suffix}")))

    assert np.array_equal(loaded.vectors, matrix)
    assert loaded.ids == ids
    assert loaded.meta["model_name"] == "tiny"
    assert repr(loaded) == "<Embeddings of 40 proteins: dim 32 per protein, by tiny>"


def test_datasets_of_h5_are_loaded_in_the_order_of_their_rows(embed, ids, matrix):
    path = embed("named.h5")
    with h5py.File(path) as file:
        vectors = {name: (file[name][:], dict(file[name].attrs)) for name in file}
    with h5py.File(path, "w") as file:  # without an order of creation, as in earlier versions
        for name in sorted(vectors):
            file.create_dataset(name, data=vectors[name][0]).attrs.update(vectors[name][1])

    loaded = load_embeddings(path)

    assert sorted(ids) != ids
    assert np.array_equal(loaded.vectors, matrix)


def test_datasets_of_h5_in_another_order_than_that_of_their_rows_are_an_error(embed):
    path = embed("swapped.h5", per_residue=True)
    with h5py.File(path, "r+") as file:
        first, second, *_ = file
        for name, row in ((first, 2), (second, 1)):
            file[name].attrs["row"] = row

    loaded = load_embeddings(path)

    for rows in (0, 1, slice(0, 2)):
        with pytest.raises(ValueError, match="its datasets are not in the order of their rows"):
            loaded.vectors[rows]


def test_identifiers_are_loaded_as_they_were_in_the_input(embed, tmp_path):
    fasta = tmp_path / "formulas.fasta"
    fasta.write_text(">=cmd()\nMKTAYI\n>@P1\nMKTA\n>'quoted'\nMKT\n")

    assert load_embeddings(embed("formulas.npy", fasta)).ids == ["=cmd()", "@P1", "'quoted'"]


def test_a_result_equals_itself_alone(embed):
    loaded = load_embeddings(embed("emb.npy"))

    assert loaded == loaded
    assert loaded != load_embeddings(embed("emb.npy"))


def test_an_array_stays_on_disk_until_it_is_used(embed):
    assert isinstance(load_embeddings(embed("emb.npy")).vectors, np.memmap)
    assert isinstance(load_embeddings(embed("emb.npz")).vectors, np.memmap)


def test_a_result_is_a_mapping_from_identifiers_to_vectors(embed, ids, matrix):
    loaded = load_embeddings(embed("emb.npy"))

    assert len(loaded) == 40
    assert list(loaded) == ids
    assert ids[3] in loaded and "no such protein" not in loaded
    assert np.array_equal(loaded[ids[3]], matrix[3])
    assert np.array_equal(np.stack([*dict(loaded).values()]), matrix)
    with pytest.raises(KeyError, match="no such protein"):
        loaded["no such protein"]


def test_an_identifier_of_several_rows_is_not_looked_up(embed, tmp_path):
    fasta = tmp_path / "twice.fasta"
    fasta.write_text(">a\nMKT\n>b\nAYI\n>a\nAKQ\n")
    loaded = load_embeddings(embed("twice.npy", fasta))

    assert loaded.ids == ["a", "b", "a"]
    with pytest.raises(KeyError, match="'a' is the identifier of the rows 0, 2 of `vectors`"):
        loaded["a"]


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_vectors_of_residues_are_read_protein_by_protein(embed, ids, proteins, suffix):
    loaded = load_embeddings(embed(f"residues.{suffix}", per_residue=True))

    assert [array.shape for array in loaded.vectors] == [(len(protein), 32) for protein in proteins]
    assert [len(array) for array in loaded.vectors[2:4]] == [len(protein) for protein in proteins[2:4]]
    assert np.array_equal(loaded[ids[3]], loaded.vectors[3])
    assert loaded.meta["per_residue"]


def test_both_formats_of_residues_hold_the_same_vectors(embed):
    one, other = (load_embeddings(embed(f"residues.{suffix}", per_residue=True)).vectors for suffix in ("npz", "h5"))

    assert all(np.array_equal(*arrays) for arrays in zip(one, other, strict=True))


def test_shards_are_joined_in_their_order_however_they_are_given(shards, ids, matrix):
    pattern = str(shards[0]).replace("1-of", "*-of")

    for files in (shards, shards[::-1], pattern, [str(shard) for shard in shards]):
        loaded = load_embeddings(files)
        assert np.array_equal(loaded.vectors, matrix)
        assert loaded.ids == ids
        assert (loaded.meta["num_proteins"], loaded.meta["shard"]) == (40, None)


def test_a_shard_is_loaded_alone(shards, matrix):
    loaded = load_embeddings(shards[1])

    assert loaded.meta["shard"] == "2/3"
    assert 0 < len(loaded) < 40
    assert set(map(bytes, loaded.vectors)) <= set(map(bytes, matrix))


def test_shards_of_residue_vectors_are_joined(embed, ids):
    shards = [embed(f"residues.{number}-of-2.h5", shard=f"{number}/2", per_residue=True) for number in (1, 2)]
    whole, joined = load_embeddings(embed("residues.h5", per_residue=True)), load_embeddings(shards)

    assert joined.ids == ids
    assert all(np.array_equal(*arrays) for arrays in zip(whole.vectors, joined.vectors, strict=True))


def test_results_of_several_inputs_are_joined_in_the_order_given(embed, tmp_path, matrix):
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">one\nMKTAYIAKQR\n")
    loaded = load_embeddings([embed("one.npy", fasta), embed("emb.npy")])

    assert loaded.ids[0] == "one"
    assert np.array_equal(loaded.vectors[1:], matrix)


def test_a_missing_or_repeated_shard_is_an_error(shards):
    with pytest.raises(VerificationError, match="it is shard 1/3, and of the other shards these are missing: 2/3"):
        load_embeddings(shards[::2])
    with pytest.raises(VerificationError, match="it is shard 1/3, and so is .*emb.1-of-3.npy"):
        load_embeddings([*shards, shards[0]])


def test_shards_of_different_inputs_are_not_loaded_as_one(shards, embed, proteins_fasta, tmp_path):
    fasta = tmp_path / "other.fasta"
    fasta.write_text(proteins_fasta.read_text() + ">one\nMKTAYIAKQR\n")

    with pytest.raises(VerificationError, match="it is shard 3/3 of another run than .*, which has another input"):
        load_embeddings([*shards[:2], embed("other.3-of-3.npy", fasta, shard="3/3")])


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_vectors_of_residues_stay_on_disk_until_they_are_used(embed, ids, suffix, monkeypatch):
    shards = [embed(f"lazy.{number}-of-2.{suffix}", shard=f"{number}/2", per_residue=True) for number in (1, 2)]
    whole = load_embeddings(embed(f"lazy.{suffix}", per_residue=True)).vectors
    joined = load_embeddings(shards).vectors

    assert not isinstance(joined, np.ndarray | list)
    assert len(joined) == 40
    for rows in (slice(None), slice(3, -2, 5), slice(50, 60)):
        pairs = zip(joined[rows], whole[rows], strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
    assert all(np.array_equal(joined[row], whole[row]) for row in (0, 20, 39, -1, -40))
    with pytest.raises(IndexError):
        joined[40]


def test_an_h5_file_of_residue_vectors_is_loaded_without_reading_them(embed, ids, monkeypatch):
    path = embed("unread.h5", per_residue=True)
    read = []
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: read.append(self.name) or get(self, key))

    loaded = load_embeddings(path)
    assert read == []
    loaded[ids[7]]
    assert read == [f"/{ids[7]}"]


@pytest.mark.parametrize("suffix", ["npy", "npz", "tsv", "h5"])
def test_an_empty_shard_is_loaded_with_the_others(embed, tmp_path, suffix):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nMKV\n")
    shards = [embed(f"two.{number}-of-4.{suffix}", fasta, shard=f"{number}/4") for number in (1, 2, 3, 4)]

    loaded = load_embeddings(shards)

    assert min(len(load_embeddings(shard)) for shard in shards) == 0
    assert loaded.ids == ["a", "b"]
    assert loaded.vectors.shape == (2, 32)


def test_results_with_other_settings_are_not_joined(embed):
    with pytest.raises(
        VerificationError, match="cannot follow .*emb.npy, because `layer` was .*; `pooling` was mean, not "
    ):
        load_embeddings([embed("emb.npy"), embed("first.npy", layer=1, pooling="max")])


def test_an_unfinished_result_is_an_error(embed, tmp_path):
    alone = shutil.copy(embed("emb.npy"), tmp_path / "alone.npy")

    with pytest.raises(VerificationError, match="alone.npy cannot be used: alone.meta.json is missing"):
        load_embeddings(alone)


def test_a_damaged_result_is_an_error(embed):
    broken, other = embed("broken.npy"), embed("broken.h5")
    broken.write_bytes(broken.read_bytes()[:1000])
    with h5py.File(other, "a") as file:
        del file[next(iter(file))]

    with pytest.raises(VerificationError, match="it cannot be read"):
        load_embeddings(broken)
    with pytest.raises(VerificationError, match="39 proteins and 40 identifiers, but its meta file records 40"):
        load_embeddings(other)


@pytest.mark.parametrize("files", ["none.npy", "none-*.npy"])
def test_a_result_that_does_not_exist_is_an_error(tmp_path, files):
    with pytest.raises(InputNotFoundError, match=r"does not exist|no file matches this pattern"):
        load_embeddings(tmp_path / files)
