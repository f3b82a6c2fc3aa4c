"""What torch's compiler makes of the layers in training; no kernel is generated, so no C compiler is needed."""

import copy
import os
import stat
from dataclasses import replace

import pytest
import torch
from varlen_attention import varlen_attention as varlen_attention

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.device import WorkerPool
from protembed.errors import TooLongForMemoryError
from protembed.pretraining import compilation
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.compilation import compile_training
from protembed.training.compilation import compile_layers, compiler_directory
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.objective import evaluate
from protembed.training.optimizer import make_optimizers, set_learning_rate

# The compiler looks at the gradient of each input, and keeps torch's warning about that from being shown, not raised.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

# A layer that computes all tokens, and the last one, which computes the masked tokens alone.
NUM_GRAPHS = 2


@pytest.fixture
def counter():
    """A backend of the compiler that counts its graphs, and runs them as they are."""
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    yield CompileCounter()
    torch.compiler.reset()


@pytest.fixture
def executor():
    with WorkerPool(1) as pool:
        yield Executor(pool=pool, precision=torch.bfloat16)


@pytest.fixture
def batches(corpus):
    """Steps of two or three micro-batches of at most 170 tokens, of unlike proteins."""
    return PretrainingBatches(corpus, BatchConfig(batch_tokens=400, crop_residues=64), 170, MaskingConfig(), seed=0)


def make_setup(objective, micro_batches, executor):
    optimizers = make_optimizers(objective, "muon", 0.01, executor)
    set_learning_rate(optimizers, 0.003)
    return TrainingSetup(objective=objective, micro_batches=micro_batches, optimizers=optimizers, executor=executor)


def is_compiled(objective):
    (compiled,) = {layer.compiled is not None for layer in objective.encoder.layers}
    return compiled


def test_twenty_micro_batches_of_unlike_proteins_train_by_the_graphs_of_the_first(
    masked_lm, batches, executor, counter, varlen_attention
):
    warning = compile_layers(masked_lm, batches.shape.dummy(), executor, counter)
    setup = make_setup(masked_lm, batches.fixed_micro_batches, executor)
    num_micro_batches = step = 0
    while num_micro_batches < 20:
        micro_batches = batches.fixed_micro_batches(step)
        assert take_step(setup, micro_batches, 1.0).is_finite
        num_micro_batches, step = num_micro_batches + len(micro_batches), step + 1

    assert warning is None
    assert counter.frame_count == NUM_GRAPHS


def test_a_copy_of_the_model_and_a_validation_make_no_graphs(
    masked_lm, batches, executor, counter, varlen_attention, three_masked
):
    compile_layers(masked_lm, batches.shape.dummy(), executor, counter)
    trained = copy.deepcopy(masked_lm)

    take_step(make_setup(trained, batches.fixed_micro_batches, executor), batches.fixed_micro_batches(0), 1.0)
    evaluate(trained, [three_masked], executor)

    assert counter.frame_count == NUM_GRAPHS
    assert counter.op_count > 0
    pairs = zip(masked_lm.encoder.layers.parameters(), trained.encoder.layers.parameters(), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)


def test_compiled_layers_take_the_steps_of_layers_that_are_not(masked_lm, batches, executor, counter, varlen_attention):
    plain = copy.deepcopy(masked_lm)
    compile_layers(masked_lm, batches.shape.dummy(), executor, counter)

    compiled_step = take_step(
        make_setup(masked_lm, batches.fixed_micro_batches, executor), batches.fixed_micro_batches(0), 1.0
    )
    plain_step = take_step(make_setup(plain, batches.micro_batches, executor), batches.micro_batches(0), 1.0)

    assert compiled_step.num_residues == plain_step.num_residues
    assert compiled_step.loss == pytest.approx(plain_step.loss, rel=1e-3)  # in bfloat16
    assert compiled_step.mask_token_loss == pytest.approx(plain_step.mask_token_loss, rel=1e-3)
    assert compiled_step.grad_norm == pytest.approx(plain_step.grad_norm, rel=1e-2)


def test_a_trial_leaves_no_gradients(masked_lm, batches, executor, counter, varlen_attention):
    compile_layers(masked_lm, batches.shape.dummy(), executor, counter)

    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def failing(error):
    def backend(graph, inputs):
        raise error

    return backend


def test_layers_that_cannot_be_compiled_stay_as_they_were_and_a_warning_says_why(
    masked_lm, batches, executor, counter, varlen_attention
):
    error = RuntimeError("No working C++ compiler found in the path\nhelp: ...")

    warning = compile_layers(masked_lm, batches.shape.dummy(), executor, failing(error))

    assert warning == (
        "the layers are not compiled, and training takes longer: torch's compiler needs Triton and a C compiler such "
        "as gcc, and failed (No working C++ compiler found in the path)"
    )
    assert not is_compiled(masked_lm)
    assert take_step(make_setup(masked_lm, batches.micro_batches, executor), batches.micro_batches(0), 1.0).is_finite


def test_layers_are_compiled_in_all_processes_or_in_none(
    masked_lm, batches, executor, counter, varlen_attention, monkeypatch
):
    others = replace(executor, processes=type("Processes", (), {"any": lambda self, flag: True})())

    warning = compile_layers(masked_lm, batches.shape.dummy(), others, counter)

    assert "another process" in warning
    assert not is_compiled(masked_lm)


def test_a_micro_batch_too_large_for_memory_is_named_and_not_blamed_on_the_compiler(
    masked_lm, batches, executor, counter, varlen_attention
):
    micro_batch = batches.shape.dummy()

    with pytest.raises(TooLongForMemoryError):
        compile_layers(masked_lm, micro_batch, executor, failing(MemoryError()))


# What a run decides


def test_training_on_a_cpu_is_not_compiled_and_its_micro_batches_are_not_padded(masked_lm, batches, executor):
    micro_batches, warnings = compile_training(masked_lm, batches, executor, "auto")

    assert micro_batches == batches.micro_batches
    assert (warnings, is_compiled(masked_lm)) == ([], False)


@pytest.fixture
def on_gpu(monkeypatch):
    """Let a model on a CPU seem to be on a GPU, and its layers compile or not."""

    def make(failure):
        monkeypatch.setattr(compilation, "compile_layers", lambda *_: failure)
        return type("OnGPU", (), {"device": torch.device("cuda")})()

    return make


@pytest.mark.parametrize(
    ("failure", "option", "name", "warnings"),
    [
        (None, "auto", "fixed_micro_batches", []),
        (None, "never", "micro_batches", []),
        ("it failed", "auto", "micro_batches", ["it failed"]),
    ],
)
def test_training_in_bfloat16_on_a_gpu_has_micro_batches_of_one_shape_if_its_layers_are_compiled(
    on_gpu, batches, executor, failure, option, name, warnings
):
    chosen = compile_training(on_gpu(failure), batches, executor, option)

    assert chosen == (getattr(batches, name), warnings)


def test_training_in_float32_on_a_gpu_is_not_compiled(on_gpu, batches, executor):
    exact = replace(executor, precision=torch.float32)

    assert compile_training(on_gpu("tried"), batches, exact, "auto") == (batches.micro_batches, [])


# The directory of the compiler


@pytest.mark.promise(18)
def test_the_compiler_reads_and_writes_in_a_directory_that_only_its_user_can_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/of/another/user")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)

    with compiler_directory(torch.device("cuda")):
        (scratch,) = tmp_path.iterdir()
        within = [os.environ[name] for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")]
        mode = stat.S_IMODE(scratch.stat().st_mode)

    assert within == [str(scratch / "inductor"), str(scratch / "triton")]
    assert mode == 0o700
    assert list(tmp_path.iterdir()) == []
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/of/another/user"
    assert "TRITON_CACHE_DIR" not in os.environ


def test_training_on_a_cpu_makes_no_directory_for_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with compiler_directory(torch.device("cpu")):
        assert list(tmp_path.iterdir()) == []
