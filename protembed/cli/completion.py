"""What the shell offers to complete: models, files by their suffixes, choices. No torch.

Where nothing is offered, the shell completes any file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from protembed.config.base import FileKind

Completer = Callable[[str], list[str]]

_SUFFIXES: dict[FileKind, tuple[str, ...]] = {
    "model": (),
    "fasta": (".fasta", ".fa", ".faa", ".fas", ".pep", ".seq"),
    "table": (".csv", ".tsv", ".txt", ".xlsx"),
    "clusters": (".tsv", ".csv", ".txt", ".xlsx", ".clstr"),
    "embeddings": (".npy", ".npz", ".h5", ".tsv"),
    "structures": (".pdb", ".ent", ".cif", ".mmcif"),
    "record": (".json",),
}
_COMPRESSED = (".gz", ".bgz", ".bz2", ".xz", ".zst")
# Shells insert an offered name without quotation marks; they quote the names that they complete themselves.
_UNSAFE = frozenset(" \t\n\"'`$&|;<>()*?[]{}!#\\~")


def choice_completer(choices: Sequence[str]) -> Completer:
    """Make the function that offers the choices of an option."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def file_completer(kinds: Sequence[FileKind]) -> Completer:
    """Make the function that offers files of these kinds, and folders; for models, their names too."""
    suffixes = tuple(suffix for kind in kinds for suffix in _SUFFIXES[kind])

    def complete(incomplete: str) -> list[str]:
        names = [name for name in _model_names() if name.startswith(incomplete)] if "model" in kinds else []
        return names + _matching_files(incomplete, suffixes)

    return complete


def _model_names() -> list[str]:
    from protembed.model.catalog import bundled_models
    from protembed.model.published import PUBLISHED_MODELS

    published = [model.name for model in PUBLISHED_MODELS if model.has_safetensors]
    return [*(path.name for path in bundled_models()), *published]


def _matching_files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """List the files and folders that begin with what was typed; what is in the folder if there is only one."""
    parent, slash, start = incomplete.rpartition("/")
    paths = _list_folder(Path(parent + slash or "."), start, suffixes)
    found = [f"{parent}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in paths]
    if any(_UNSAFE & set(name) for name in found):
        return []
    # A shell ends a word when there is one candidate, but a path may continue after a folder.
    if len(found) == 1 and found[0].endswith("/") and not _is_model(paths[0]):
        return _matching_files(found[0], suffixes)
    return [name.removesuffix("/") if _is_model(path) else name for name, path in zip(found, paths, strict=True)]


def _list_folder(folder: Path, start: str, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.startswith(start))
    except OSError:
        return []
    return [
        path
        for path in paths
        if (start.startswith(".") or not path.name.startswith("."))
        and (path.is_dir() or _without_compression(path.name).endswith(suffixes))
    ]


def _without_compression(name: str) -> str:
    lower = name.lower()
    return next((lower.removesuffix(end) for end in _COMPRESSED if lower.endswith(end)), lower)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / "model" / "config.json").exists()
