"""From a model's name to its directory."""

from pathlib import Path

from protembed.errors import InputNotFoundError
from protembed.model.checkpoint import Checkpoint, load_checkpoint

_HOW_TO_GET_ONE = (
    "pass --model with the run of `protembed pretrain`, or with the directory of an ESM-2 model that you downloaded, "
    "for example by `hf download facebook/esm2_t12_35M_UR50D --local-dir esm2_t12_35M`"
)


def find_model(name: Path | None) -> Path:
    """Find the directory of a model.

    Args:
        name: a model directory, or a run directory, whose finished model is in `model/`.

    Raises:
        InputNotFoundError: no model was named, or none is there.
    """
    if name is None:
        raise InputNotFoundError("--model", "no model was named, and none is bundled yet", _HOW_TO_GET_ONE)
    if (name / "config.json").exists():
        return name
    if (name / "model" / "config.json").exists():
        return name / "model"
    if (name / "run.json").exists():
        raise InputNotFoundError(str(name), "this run has no finished model yet", "repeat its command to resume it")
    found = "there is no config.json in it" if name.is_dir() else "no such directory"
    raise InputNotFoundError(str(name), found, _HOW_TO_GET_ONE)


def open_model(name: Path | None) -> Checkpoint:
    """Find a model and read it; see `find_model` and `load_checkpoint` for what can go wrong."""
    return load_checkpoint(find_model(name))
