"""What scores need before the model is loaded."""

from protembed.config.common import DEFAULT_MODEL
from protembed.config.score import ScoreOptions
from protembed.scoring.request import ScoringRequest


def test_the_bundled_model_is_said_to_rank_variants_worse_than_blosum62_unless_it_is_named(tiny_model):
    (warning,) = ScoringRequest.make(ScoreOptions()).warnings()

    assert "worse than BLOSUM62 does (Spearman 0.07 against 0.35 with BLAT, -0.01 against 0.17 with GB1)" in warning
    assert "--model esm2_t33_650M" in warning
    for name in (DEFAULT_MODEL, tiny_model):
        assert not list(ScoringRequest.make(ScoreOptions.from_values(model=name)).warnings())
