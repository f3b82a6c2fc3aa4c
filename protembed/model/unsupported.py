"""Well-known models that protembed does not read, and what to use instead. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protembed.errors import ModelFormatError

# The files in which the packages `esm` and `fair-esm` distribute weights.
_PICKLES = (".pt", ".pth")
_PICKLED = "these are pickled weights, which can run code and are not read"
_WITHOUT_PICKLES = "name the model (`protembed models`), or pass a directory in Hugging Face layout with safetensors"
# The names under which `fair-esm` distributes the models that protembed reads, which are those of the hub.
_FAIR_ESM = re.compile(r"esm(2|1b|1v)_t\d+_\d+[MB]_UR\d+[SD](_[1-5])?")


@dataclass(frozen=True, kw_only=True)
class UnsupportedModel:
    """A model, or a group of models, that protembed does not read.

    Attributes:
        what: A clause that says what the model is.
        use: A clause that says what to use instead.
        name: A pattern of the names on the hub, without the owner, and of the files of weights, in lower case, with
            `_` for `-`; None if the model cannot be recognised by its name.
        fields: Fields of `config.json` by which the model is recognised; empty if it cannot be.
    """

    what: str
    use: str
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


UNSUPPORTED_MODELS = (
    UnsupportedModel(
        what="ESM-3, which generates sequences and structures",
        use="for vectors use -m esmc_300m or esmc_600m, and to generate proteins the package `esm`",
        name=r"esm_?3(_.*)?",
        fields={"model_type": "esm3"},
    ),
    UnsupportedModel(
        what="ESM-C as the package `esm` published it in 2024, with pickled weights",
        use="use -m {esmc}, the model in Hugging Face layout",
        name=r"esmc_(?P<size>300m|600m|6b)_2024.*",
    ),
    UnsupportedModel(
        what="ESMFold, which predicts structures",
        use="for vectors use -m esm2_t36_3B, the encoder that it is built on, and for structures transformers",
        name=r"esmfold(?!2).*",
        fields={"model_type": "esm", "is_folding_model": True},
    ),
    UnsupportedModel(
        what="ESMFold2, which predicts structures",
        use="for vectors use -m esmc_6b, the encoder that it is built on, and for structures transformers",
        name=r"esmfold2.*",
        fields={"model_type": "esmfold2"},
    ),
    UnsupportedModel(
        what="ESM-MSA (MSA Transformer), which reads alignments",
        use="for single sequences use -m esm2_t33_650M, and for alignments the package `fair-esm`",
        name=r"esm_msa.*",
        fields={"model_type": "esm_msa"},
    ),
    UnsupportedModel(
        what="ESM-IF, which designs sequences for structures",
        use="for vectors use -m esm2_t33_650M, and for inverse folding the package `fair-esm`",
        name=r"esm_if.*",
        fields={"model_type": "esm_if"},
    ),
    UnsupportedModel(
        what="SaProt, which reads the structure of each residue as well",
        use="for sequences alone use -m esm2_t33_650M, and for structures SaProt's own code",
        name=r"saprot.*",
        fields={"model_type": "esm", "vocab_size": 446},
    ),
    UnsupportedModel(
        what="ProstT5, which translates between sequences and structures",
        use="for vectors use -m esmc_600m or esm2_t33_650M, and for ProstT5 transformers' `T5EncoderModel`",
        name=r"prostt5.*",
    ),
    UnsupportedModel(
        what="ProtT5, a T5 model",
        use="for vectors use -m esmc_600m or esm2_t33_650M, and for ProtT5 transformers' `T5EncoderModel`",
        name=r"prot_?t5.*",
    ),
    UnsupportedModel(
        what="Ankh, a T5 model",
        use="for vectors use -m esmc_600m or esm2_t33_650M, and for Ankh the package `ankh`",
        name=r"ankh.*",
    ),
    UnsupportedModel(
        what="a T5 model, as are ProtT5, ProstT5 and Ankh",
        use="for vectors use -m esmc_600m or esm2_t33_650M, and for T5 transformers' `T5EncoderModel`",
        fields={"model_type": "t5"},
    ),
)


def check_name(name: str) -> None:
    """Check that a name is not that of a well-known model which protembed does not read.

    Args:
        name: A name on the hub, with or without its owner and revision; or the path of a file of weights.

    Raises:
        ModelFormatError: It is; the error names what to use instead.
    """
    base = name.partition("@")[0].rpartition("/")[2].lower().replace("-", "_")
    for model in UNSUPPORTED_MODELS:
        match = model.name and re.fullmatch(model.name, base.removesuffix(".pth").removesuffix(".pt"))
        if match:
            size = match.groupdict().get("size", "")
            raise ModelFormatError(Path(name), f"this is {model.what}", model.use.format(esmc=f"esmc_{size}"))


def check_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Check that a `config.json` is not that of a well-known model which protembed does not read.

    Raises:
        ModelFormatError: It is, or it describes no model and lies beside pickled weights.
    """
    for model in UNSUPPORTED_MODELS:
        if model.fields and all(config.get(name) == value for name, value in model.fields.items()):
            raise ModelFormatError(directory, f"this is {model.what}", model.use)
    if "model_type" not in config:
        check_pickles(directory)


def check_pickles(path: Path) -> None:
    """Check that a path is not a file of pickled weights, nor a directory of such files.

    Raises:
        ModelFormatError: It is; the error names what to use instead.
    """
    for file in [path] if path.is_file() else _pickles_in(path):
        if file.suffix in _PICKLES:
            check_name(str(file))
            known = _FAIR_ESM.match(file.name)
            advice = f"use -m {known[0]}, the same model on the hub" if known else _WITHOUT_PICKLES
            raise ModelFormatError(file, _PICKLED, advice)


def _pickles_in(directory: Path) -> list[Path]:
    """List the pickled weights of a directory, and of `data/weights/`, where ESM-C's layout of 2024 has them."""
    folders = (directory, directory / "data" / "weights")
    return [file for folder in folders for suffix in _PICKLES for file in sorted(folder.glob(f"*{suffix}"))]
