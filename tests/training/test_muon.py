import pytest
import torch

from protembed.training import muon
from protembed.training.muon import BatchedMuon, Muon, orthogonalise


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(24, 24), (72, 24), (24, 96)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape, generator):
    singular = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)))

    assert singular.min() > 0.3
    assert singular.max() < 1.3


def test_orthogonalising_keeps_the_singular_vectors(generator):
    matrix = torch.randn(20, 12, generator=generator)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)

    turned = left.T @ orthogonalise(matrix) @ right.T

    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_a_gradient_does_not_change_its_update(scale, generator):
    matrix = torch.randn(16, 8, generator=generator)

    assert torch.allclose(orthogonalise(matrix * scale), orthogonalise(matrix), atol=1e-4)


@pytest.mark.parametrize("shape", [(72, 24), (24, 96)])
def test_orthogonalising_in_bfloat16_is_close_to_float32(shape, generator):
    matrix = torch.randn(shape, generator=generator)

    rounded = orthogonalise(matrix, torch.bfloat16)

    assert rounded.dtype == torch.bfloat16
    assert torch.cosine_similarity(rounded.float().flatten(), orthogonalise(matrix).flatten(), dim=0) > 0.998


def test_orthogonalising_zero_gives_zero():
    assert torch.equal(orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_updates_equal_those_of_torch_within_its_precision(generator, pool):
    start = [torch.randn(shape, generator=generator) for shape in ((12, 36), (8, 8))]
    gradients = [[torch.randn(matrix.shape, generator=generator) for matrix in start] for _ in range(3)]
    protembed, reference = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        (protembed, Muon(protembed, 0.1, pool)),
        (reference, torch.optim.Muon(reference, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")),
    )
    for parameters, optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.02
        for step_gradients in gradients:
            for parameter, gradient in zip(parameters, step_gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    for *matrices, before in zip(protembed, reference, start, strict=True):
        moved, expected = ((matrix.detach() - before).flatten() for matrix in matrices)
        assert torch.cosine_similarity(moved, expected, dim=0) > 0.999
        assert moved.norm() == pytest.approx(expected.norm().item(), rel=0.02)


def test_a_matrix_without_a_gradient_is_not_updated(pool):
    matrix = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([matrix], 0.5, pool)
    optimizer.param_groups[0]["lr"] = 0.1

    optimizer.step()

    assert torch.equal(matrix, torch.ones(3, 3))


@pytest.mark.parametrize("max_numbers", [1, 2000, 1 << 28], ids=["one", "some", "all"])
def test_matrices_of_one_shape_at_once_are_updated_to_the_bits_of_torch(generator, monkeypatch, max_numbers):
    monkeypatch.setattr(muon, "_MAX_NUMBERS_AT_ONCE", max_numbers)
    start = [torch.randn(shape, generator=generator) for shape in [(72, 24), (24, 24), (96, 24), (24, 96)] * 3]
    gradients = [[torch.randn(matrix.shape, generator=generator) for matrix in start] for _ in range(4)]
    protembed, reference = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    batched = BatchedMuon(protembed, 0.1)
    of_torch = torch.optim.Muon(reference, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")

    for parameters, optimizer in ((protembed, batched), (reference, of_torch)):
        optimizer.param_groups[0]["lr"] = 0.003
        for step_gradients in gradients:
            for parameter, gradient in zip(parameters, step_gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    for matrix, expected in zip(protembed, reference, strict=True):
        assert torch.equal(matrix, expected)
        assert batched.state[matrix].keys() == of_torch.state[expected].keys()
        assert torch.equal(batched.state[matrix]["momentum_buffer"], of_torch.state[expected]["momentum_buffer"])


def test_matrices_at_once_without_a_gradient_are_not_updated():
    matrices = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    matrices[1].grad = torch.eye(3)
    optimizer = BatchedMuon(matrices, 0.5)
    optimizer.param_groups[0]["lr"] = 0.1

    optimizer.step()

    assert torch.equal(matrices[0], torch.ones(3, 3))
    assert not torch.equal(matrices[1], torch.ones(3, 3))
    assert matrices[0] not in optimizer.state


@pytest.mark.parametrize("shape", [(24, 24), (72, 24), (24, 96), (320, 1280), (960, 320)])
def test_one_matrix_is_orthogonalised_to_the_bits_of_its_norm_over_all_numbers(shape, generator):
    # Checkpoints of runs on CPUs resume to the bit, so the sum over both dimensions must not change.
    matrix = torch.randn(shape, generator=generator)

    assert torch.equal(matrix.norm(), matrix.norm(dim=(-2, -1)))
    assert torch.equal(matrix.T.norm(), matrix.mT.norm(dim=(-2, -1)))
