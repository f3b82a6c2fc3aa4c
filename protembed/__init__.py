"""protembed: protein language models at the command line and in Python.

The public names load their modules only when they are first used, so that `import protembed` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protembed._version import __version__

_PUBLIC = {
    "AttentionConfig": "protembed.config.inspect_attention",
    "AttentionOptions": "protembed.config.inspect_attention",
    "BatchConfig": "protembed.config.pretrain",
    "Callbacks": "protembed.callbacks",
    "CheckConfig": "protembed.config.embed",
    "CheckOptions": "protembed.config.embed",
    "Checkpoint": "protembed.model.checkpoint",
    "DeviceConfig": "protembed.config.common",
    "EmbedConfig": "protembed.config.embed",
    "EmbedOptions": "protembed.config.embed",
    "Encoder": "protembed.model.esm2",
    "FinetuneConfig": "protembed.config.finetune",
    "FinetuneOptions": "protembed.config.finetune",
    "FinetunedModelConfig": "protembed.config.finetune",
    "InputConfig": "protembed.config.common",
    "LabelTableConfig": "protembed.config.finetune",
    "MaskingConfig": "protembed.config.pretrain",
    "ModelConfig": "protembed.config.common",
    "OptimizerConfig": "protembed.config.common",
    "PredictConfig": "protembed.config.finetune",
    "PredictOptions": "protembed.config.finetune",
    "PretrainConfig": "protembed.config.pretrain",
    "PretrainOptions": "protembed.config.pretrain",
    "Record": "protembed.data.fasta",
    "ScoreConfig": "protembed.config.score",
    "ScoreOptions": "protembed.config.score",
    "VariantTableConfig": "protembed.config.score",
    "check_embeddings": "protembed.embedding.check",
    "embed_fasta": "protembed.embedding.embed",
    "finetune_model": "protembed.finetuning.finetune",
    "inspect_attention": "protembed.attention.inspect_attention",
    "list_models": "protembed.model.catalog",
    "load_checkpoint": "protembed.model.checkpoint",
    "predict_fasta": "protembed.finetuning.predict",
    "pretrain_model": "protembed.pretraining.pretrain",
    "read_fasta": "protembed.data.fasta",
    "score_variants": "protembed.scoring.score",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import inspect_attention as inspect_attention
    from protembed.callbacks import Callbacks as Callbacks
    from protembed.config.common import (
        DeviceConfig as DeviceConfig,
        InputConfig as InputConfig,
        ModelConfig as ModelConfig,
        OptimizerConfig as OptimizerConfig,
    )
    from protembed.config.embed import (
        CheckConfig as CheckConfig,
        CheckOptions as CheckOptions,
        EmbedConfig as EmbedConfig,
        EmbedOptions as EmbedOptions,
    )
    from protembed.config.finetune import (
        FinetuneConfig as FinetuneConfig,
        FinetunedModelConfig as FinetunedModelConfig,
        FinetuneOptions as FinetuneOptions,
        LabelTableConfig as LabelTableConfig,
        PredictConfig as PredictConfig,
        PredictOptions as PredictOptions,
    )
    from protembed.config.inspect_attention import (
        AttentionConfig as AttentionConfig,
        AttentionOptions as AttentionOptions,
    )
    from protembed.config.pretrain import (
        BatchConfig as BatchConfig,
        MaskingConfig as MaskingConfig,
        PretrainConfig as PretrainConfig,
        PretrainOptions as PretrainOptions,
    )
    from protembed.config.score import (
        ScoreConfig as ScoreConfig,
        ScoreOptions as ScoreOptions,
        VariantTableConfig as VariantTableConfig,
    )
    from protembed.data.fasta import Record as Record, read_fasta as read_fasta
    from protembed.embedding.check import check_embeddings as check_embeddings
    from protembed.embedding.embed import embed_fasta as embed_fasta
    from protembed.finetuning.finetune import finetune_model as finetune_model
    from protembed.finetuning.predict import predict_fasta as predict_fasta
    from protembed.model.catalog import list_models as list_models
    from protembed.model.checkpoint import Checkpoint as Checkpoint, load_checkpoint as load_checkpoint
    from protembed.model.esm2 import Encoder as Encoder
    from protembed.pretraining.pretrain import pretrain_model as pretrain_model
    from protembed.scoring.score import score_variants as score_variants


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'protembed' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
