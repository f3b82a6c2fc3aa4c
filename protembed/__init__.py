"""Protein language models: vectors, predictions, probabilities and attention of protein sequences.

    >>> import protembed
    >>> model = protembed.load_model()
    >>> model.embed(["MKTAYIAKQR", "MSILVTRPSP"]).shape
    (2, 320)

A model in memory, for sequences in memory:

    load_model          load a model by name; `Model` has embed, embed_residues, log_probs, fill, sample, attention,
                        contacts, predict
    AMINO_ACIDS         the 20 amino acids in the order of the columns of `Model.log_probs`
    read_fasta          read the records of FASTA files
    load_embeddings     load a result of `embed_fasta`: vectors, identifiers, settings
    list_models         list the models that can be named
    recommend_models    recommend one for each purpose on this computer
    load_checkpoint     load a model as torch modules

The commands, each as one function from files to files:

    embed_fasta         protembed embed                 finetune_model      protembed finetune
    check_embeddings    protembed check                 predict_fasta       protembed predict
    join_embeddings     protembed join                  score_variants      protembed score
    search_embeddings   protembed search                score_sequences     protembed score, of FASTA
    pretrain_model      protembed pretrain              score_positions     protembed score --positions
    make_map            protembed map                   score               any, by the content of the input
                                                        scan_proteins       score --scan
                                                        inspect_attention   protembed inspect-attention
    plan_embedding      embed --dry-run                 plan_pretraining    pretrain --dry-run
    fill_fasta          score --fill

Their options are dataclasses, as in `EmbedOptions.from_values(output="emb.npy", layer=3)`; `options_from_record` reads
those of an earlier command from its record. Errors are subclasses of
`ProtembedError`.

The pages in docs/ describe all of them.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from protembed._version import __version__ as __version__


@cache
def _modules() -> dict[str, str]:
    """Read the module of each public name from the stub, which lists them once, for type checkers too."""
    import ast

    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __dir__() -> list[str]:
    return sorted(_modules())


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first used, so that `import protembed` costs nothing."""
    if name == "__all__":
        return __dir__()
    if name not in _modules():
        raise AttributeError(f"module 'protembed' has no attribute {name!r}")
    return getattr(import_module(_modules()[name]), name)
