from types import SimpleNamespace

import pytest
import torch

from gpu import kernel_time

CPU, CUDA = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA


def event(device, start, end, *, is_annotation=False):
    time_range = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(device_type=device, time_range=time_range, is_user_annotation=is_annotation)


def test_each_kernel_counts_once_and_overlapping_ones_count_their_union():
    events = [
        event(CPU, 0, 900),  # the operator that launches the first kernel
        event(CUDA, 100, 300),
        event(CUDA, 200, 400),  # on another stream
        event(CUDA, 250, 260),  # within both
        event(CUDA, 1000, 1500),
        event(CUDA, 50, 2000, is_annotation=True),  # the range of an optimiser's step
    ]

    num_kernels, seconds = kernel_time(events[::-1])

    assert num_kernels == 4
    assert seconds == pytest.approx(800e-6)


def test_a_profile_without_kernels_has_no_busy_time():
    assert kernel_time([event(CPU, 0, 10)]) == (0, 0.0)
