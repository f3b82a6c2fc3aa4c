"""The files of a model directory, which may come from a stranger: each is looked at before it is opened."""

import stat
from pathlib import Path
from typing import Any

from protembed.errors import ModelFormatError
from protembed.inputs import read_json

_AGAIN = "fetch or make the model again"
# The index of ESM-2's largest model, or the names of all terms of the Gene Ontology, take less than a megabyte; JSON of
# brackets alone takes thirty times its size in memory.
_MOST_JSON_BYTES = 4 << 20


def own_file(path: Path) -> Path:
    """Make sure that a file of a model directory, if it is there, is a plain file and lies in that directory.

    A link that leads out would have protembed read what its owner may not. The cache of the Hugging Face hub is made of
    links, from `snapshots/<commit>/` to `blobs/`; those are followed.

    Raises:
        ModelFormatError: it is a link to elsewhere, or a folder, pipe or device.
    """
    try:
        mode, place = path.stat().st_mode, path.resolve().parent
    except OSError:  # whoever opens it will say so
        return path
    directory = path.parent.resolve()
    in_cache = directory.parent.name == "snapshots" and place == directory.parents[1] / "blobs"
    if place != directory and not in_cache:
        advice = "a model is read from its own directory alone: copy the file into it"
        raise ModelFormatError(path, "this link leads out of the model's directory", advice)
    if not stat.S_ISREG(mode):
        raise ModelFormatError(path, "this is no plain file", _AGAIN)
    return path


def read_model_json(path: Path) -> dict[str, Any]:
    """Read one of a model directory's JSON files.

    Raises:
        ModelFormatError: it is not there, not the directory's own, far too large, no JSON, or no object.
    """
    try:
        num_bytes = own_file(path).stat().st_size
        if num_bytes > _MOST_JSON_BYTES:
            raise ModelFormatError(path, f"it has {num_bytes:,} bytes, which no description of a model needs", _AGAIN)
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelFormatError(path, f"this is no readable JSON ({error})", _AGAIN) from error
    if not isinstance(content, dict):
        raise ModelFormatError(path, "this JSON is no object", _AGAIN)
    return content
