import hashlib
import shutil

import pytest

from protembed.errors import ModelFormatError
from protembed.model import untrusted
from protembed.model.checkpoint import load_checkpoint
from protembed.model.untrusted import model_sha256

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def name_of_blob(content, name):
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def snapshot(tiny_model, tmp_path):
    """The tiny model as huggingface_hub stores it: links to blobs that are named by their hashes."""
    snapshot, blobs = (tmp_path / "models--lab--tiny" / folder for folder in ("snapshots/c0ffee", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in tiny_model.iterdir():
        blob = blobs / name_of_blob(file.read_bytes(), file.name)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def damage(path, index=-40):
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)


def test_an_intact_copy_in_the_cache_is_read(snapshot, tiny_model):
    assert load_checkpoint(snapshot).sha256() == model_sha256(tiny_model)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "protembed.json", "vocab.txt", "tokenizer_config.json"])
def test_a_damaged_copy_in_the_cache_is_an_error_that_names_the_file_to_delete(snapshot, name):
    blob = (snapshot / name).resolve()
    # Within a number or a word: the file is as well-formed as before.
    damage(blob, blob.read_bytes().rindex(b"e") if name != WEIGHTS else -40)

    with pytest.raises(ModelFormatError, match="the hub's cache holds a damaged copy of this file") as caught:
        load_checkpoint(snapshot)

    assert str(caught.value).startswith(str(snapshot / name))
    assert f"delete {blob} and fetch the model again" in str(caught.value)
    assert caught.value.exit_status == 65


def test_a_copy_damaged_after_it_was_read_is_an_error(snapshot):
    checkpoint = load_checkpoint(snapshot)

    damage((snapshot / WEIGHTS).resolve())

    with pytest.raises(ModelFormatError, match="damaged copy"):
        checkpoint.sha256()


def test_cached_weights_are_hashed_once(snapshot, monkeypatch):
    hashed = []
    sha256_of_file = untrusted.sha256_of_file
    monkeypatch.setattr(untrusted, "sha256_of_file", lambda path: hashed.append(path) or sha256_of_file(path))

    for _ in range(2):
        load_checkpoint(snapshot).sha256()

    assert hashed == [(snapshot / WEIGHTS).resolve()]


def test_a_blob_named_by_the_plain_sha1_of_a_proxy_is_read(snapshot):
    blob = (snapshot / CONFIG).resolve()
    renamed = blob.rename(blob.with_name(hashlib.sha1(blob.read_bytes()).hexdigest()))
    (snapshot / CONFIG).unlink()
    (snapshot / CONFIG).symlink_to(f"../../blobs/{renamed.name}")

    assert load_checkpoint(snapshot).encoder.shape.dim == 32


def test_a_folder_of_links_into_the_cache_is_an_error_that_names_the_folder_of_the_cache(snapshot, tmp_path):
    (tmp_path / "local_dir").mkdir()
    for file in snapshot.iterdir():
        (tmp_path / "local_dir" / file.name).symlink_to(file.resolve())

    with pytest.raises(ModelFormatError, match="leads out") as caught:
        load_checkpoint(tmp_path / "local_dir")

    assert str(caught.value).endswith(f"name the folder in the hub's cache, {snapshot}")


def test_links_to_files_in_several_folders_are_an_error_with_the_command_that_copies_them(tiny_model, tmp_path):
    (tmp_path / "staged").mkdir()
    for file in tiny_model.iterdir():
        (tmp_path / f"of-{file.name}").mkdir()
        (tmp_path / "staged" / file.name).symlink_to(shutil.copy(file, tmp_path / f"of-{file.name}" / "x"))

    with pytest.raises(
        ModelFormatError, match=f"copy it .* \\(`cp -rL {tmp_path}/staged FOLDER`\\), and name the copy"
    ):
        load_checkpoint(tmp_path / "staged")


def test_a_link_out_of_the_cache_is_an_error_that_names_its_target(tiny_model, tmp_path):
    (tmp_path / "staged").mkdir()
    for file in tiny_model.iterdir():
        (tmp_path / "staged" / file.name).symlink_to(file)

    with pytest.raises(ModelFormatError, match="leads out") as caught:
        load_checkpoint(tmp_path / "staged")

    assert f"name the folder {tiny_model}" in str(caught.value)
