"""The public names, each with the module that holds it; `protembed/__init__.py` reads this file."""

from protembed._version import __version__ as __version__
from protembed.api import Model as Model, ProtembedWarning as ProtembedWarning, load_model as load_model
from protembed.attention.inspect_attention import inspect_attention as inspect_attention
from protembed.callbacks import Callbacks as Callbacks
from protembed.config.common import (
    DeviceConfig as DeviceConfig,
    InputConfig as InputConfig,
    ModelConfig as ModelConfig,
    ModelsConfig as ModelsConfig,
    OptimizerConfig as OptimizerConfig,
)
from protembed.config.embed import (
    CheckConfig as CheckConfig,
    CheckOptions as CheckOptions,
    EmbedConfig as EmbedConfig,
    EmbedOptions as EmbedOptions,
    JoinConfig as JoinConfig,
    JoinOptions as JoinOptions,
)
from protembed.config.fill import FillConfig as FillConfig
from protembed.config.finetune import (
    FinetuneConfig as FinetuneConfig,
    FinetunedModelConfig as FinetunedModelConfig,
    FinetuneOptions as FinetuneOptions,
    LabelTableConfig as LabelTableConfig,
    PredictConfig as PredictConfig,
    PredictOptions as PredictOptions,
)
from protembed.config.inspect_attention import AttentionConfig as AttentionConfig, AttentionOptions as AttentionOptions
from protembed.config.map import MapConfig as MapConfig, MapOptions as MapOptions
from protembed.config.models import ListingConfig as ListingConfig, ListingOptions as ListingOptions
from protembed.config.positions import PositionsConfig as PositionsConfig
from protembed.config.pretrain import (
    BatchConfig as BatchConfig,
    MaskingConfig as MaskingConfig,
    PretrainConfig as PretrainConfig,
    PretrainOptions as PretrainOptions,
)
from protembed.config.recorded import options_from_record as options_from_record
from protembed.config.scan import ScanConfig as ScanConfig
from protembed.config.score import (
    ScoreConfig as ScoreConfig,
    ScoreOptions as ScoreOptions,
    VariantTableConfig as VariantTableConfig,
)
from protembed.config.search import (
    LabelsConfig as LabelsConfig,
    SearchConfig as SearchConfig,
    SearchOptions as SearchOptions,
)
from protembed.data.alphabet import AMINO_ACIDS as AMINO_ACIDS
from protembed.data.fasta import Record as Record, read_fasta as read_fasta
from protembed.embedding.check import check_embeddings as check_embeddings
from protembed.embedding.embed import embed_fasta as embed_fasta
from protembed.embedding.estimate import plan_embedding as plan_embedding
from protembed.embedding.join import join_embeddings as join_embeddings
from protembed.embedding.loading import Embeddings as Embeddings, load_embeddings as load_embeddings
from protembed.embedding.recommendation import recommend_models as recommend_models
from protembed.errors import ProtembedError as ProtembedError
from protembed.finetuning.finetune import finetune_model as finetune_model
from protembed.finetuning.predict import predict_fasta as predict_fasta
from protembed.model.catalog import list_models as list_models
from protembed.model.checkpoint import Checkpoint as Checkpoint, load_checkpoint as load_checkpoint
from protembed.model.encoder import Encoder as Encoder
from protembed.pretraining.pretrain import plan_pretraining as plan_pretraining, pretrain_model as pretrain_model
from protembed.scoring.fill import fill_fasta as fill_fasta
from protembed.scoring.per_position import score_positions as score_positions
from protembed.scoring.scan import scan_proteins as scan_proteins
from protembed.scoring.score import score as score
from protembed.scoring.score_sequences import score_sequences as score_sequences
from protembed.scoring.score_variants import score_variants as score_variants
from protembed.search.map import make_map as make_map
from protembed.search.search import search_embeddings as search_embeddings
