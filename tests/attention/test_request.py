"""What is known of an inspection before the model is loaded."""

from pathlib import Path

import pytest

from protembed.attention.request import InspectionRequest
from protembed.config.common import DEFAULT_MODEL
from protembed.config.inspect_attention import AttentionOptions
from protembed.model.catalog import locate_model


@pytest.fixture
def make_request():
    """Make an inspection with these options."""

    def make(**values):
        options = AttentionOptions.from_values(**values)
        return InspectionRequest(
            model=locate_model(options.model.model), fasta=[], options=options, command="", file_names=["a.fasta"]
        )

    return make


def test_contacts_of_the_bundled_model_are_called_rough_with_their_precision_unless_it_is_named(make_request):
    (warning,) = make_request().warnings()

    assert "are rough: in 24 structures, each predicted by a fit to others, 7.9 % of the likeliest pairs" in warning
    assert "(random pairs: 2.6 %)" in warning
    assert "--model esm2_t33_650M" in warning
    for named in ({"model": DEFAULT_MODEL}, {"structures": [Path("pdb")]}, {"save_maps": 0}):
        assert not list(make_request(**named).warnings())


def test_nothing_is_said_of_a_model_whose_contact_head_was_not_measured(make_request, tiny_model):
    assert make_request(model=tiny_model).recorded_precision is None
