from threading import Barrier, Event, current_thread

import pytest
import torch

from protembed.config.common import DeviceConfig
from protembed.device import (
    WorkerPool,
    choose_device,
    choose_precision,
    has_amx,
    has_varlen_attention,
    load_kernels,
    peak_memory,
    total_memory,
    worker_pool,
)
from protembed.errors import ConfigError


@pytest.fixture
def hardware(monkeypatch):
    def pretend(cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("available", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_chooses_a_gpu_if_there_is_one(hardware, available, chosen):
    hardware(**available)

    assert choose_device(DeviceConfig()) == torch.device(chosen)


def test_the_cpu_can_be_requested_on_a_machine_with_a_gpu(hardware):
    hardware(cuda=True)

    assert choose_device(DeviceConfig(device="cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_requesting_a_missing_device_is_a_usage_error(hardware, device):
    hardware()

    with pytest.raises(ConfigError, match=f"device is '{device}'") as caught:
        choose_device(DeviceConfig(device=device))

    assert caught.value.exit_status == 2


def test_a_pool_computes_items_in_parallel_and_yields_results_in_order():
    second_was_started = Event()

    def compute(number):
        if number == 0:
            assert second_was_started.wait(timeout=60)
        second_was_started.set()
        return number

    with WorkerPool(2) as pool:
        assert list(pool.map(compute, range(4))) == [0, 1, 2, 3]


def test_operators_use_one_thread_within_the_pool_and_the_former_number_after_it():
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), WorkerPool(2) as pool:
            assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_pools_load_kernels_once_per_process_before_their_threads_start():
    load_kernels.cache_clear()

    for _ in range(2):
        with WorkerPool(2) as pool:
            num_loads = list(pool.map(lambda number: load_kernels.cache_info().currsize, range(4)))
            assert num_loads == [1, 1, 1, 1]

    assert load_kernels.cache_info().misses == 1


def test_an_error_in_a_worker_is_raised_in_the_caller():
    with pytest.raises(ZeroDivisionError), WorkerPool(2) as pool:
        list(pool.map(lambda number: 1 // number, [1, 0]))


def test_an_error_of_the_iterable_is_raised_after_the_results_of_the_items_before_it():
    def items():
        yield from (1, 2)
        raise KeyError("incomplete")

    results = []
    with pytest.raises(KeyError, match="incomplete"), WorkerPool(3) as pool:
        results.extend(pool.map(abs, ()))
        for result in pool.map(lambda number: 10 * number, items()):
            results.append(result)

    assert results == [10, 20]


@pytest.mark.parametrize(("device", "num_workers"), [("cpu", 3), ("cuda", 1), ("mps", 1)])
def test_a_pool_has_one_worker_per_cpu_thread_and_one_for_a_gpu(device, num_workers):
    with worker_pool(DeviceConfig(threads=3), torch.device(device)) as pool:
        barrier = Barrier(num_workers)
        list(pool.map(lambda _: barrier.wait(timeout=60), range(num_workers)))
        names = set(pool.map(lambda _: current_thread().name, range(50)))

    assert len(names) <= num_workers


def test_each_of_several_processes_uses_a_different_gpu(hardware, monkeypatch):
    hardware(cuda=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for num_gpus, rank, index in ((2, 1, 1), (1, 2, 0)):  # a scheduler may make only one GPU visible to each process
        monkeypatch.setattr(torch.cuda, "device_count", lambda number=num_gpus: number)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert choose_device(DeviceConfig()) == torch.device("cuda", index)


def test_a_process_for_which_no_gpu_is_left_is_a_usage_error(hardware, monkeypatch):
    hardware(cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")

    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU: there are only 2"):
        choose_device(DeviceConfig())


@pytest.mark.parametrize(("num_per_worker", "max_begun"), [(1, 4), (3, 8)])
def test_a_pool_runs_ahead_of_its_caller_by_num_per_worker_items_per_worker(num_per_worker, max_begun):
    begun = []
    with WorkerPool(2) as pool:
        results = pool.map(begun.append, range(20), num_per_worker=num_per_worker)
        next(results)
        assert len(begun) <= max_begun
        assert len(list(results)) == 19


@pytest.mark.parametrize(
    ("requested", "chosen"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_requested_precision_is_used(requested, chosen):
    assert choose_precision(requested, torch.device("cpu")) == chosen


def test_auto_precision_is_bfloat16_on_gpus_that_support_it_and_float32_elsewhere(monkeypatch):
    monkeypatch.setattr("protembed.device.has_amx", lambda: True)

    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    for is_supported, precision in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, value=is_supported: value)
        assert choose_precision("auto", torch.device("cuda")) == precision


@pytest.mark.parametrize(("has_amx", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_of_training_is_bfloat16_on_cpus_with_amx(monkeypatch, has_amx, precision):
    monkeypatch.setattr("protembed.device.has_amx", lambda: has_amx)

    assert choose_precision("auto", torch.device("cpu"), is_training=True) == precision
    assert choose_precision("float32", torch.device("cpu"), is_training=True) == torch.float32
    assert choose_precision("auto", torch.device("mps"), is_training=True) == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "has_onednn", "expected"),
    [
        ({"amx_bf16": True}, True, True),
        ({"amx_bf16": False}, True, False),
        ({}, True, False),
        ({"amx_bf16": True}, False, False),
    ],
)
def test_amx_is_used_if_the_processor_has_it_and_torch_has_onednn(monkeypatch, capabilities, has_onednn, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)

    assert has_amx() == expected


def test_torch_without_capabilities_is_asked_for_tiles(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for is_supported in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=is_supported: value)
        assert has_amx() == is_supported


@pytest.mark.parametrize(("head_dim", "is_supported"), [(16, True), (64, True), (256, True), (10, False), (264, False)])
def test_one_kernel_computes_the_attention_of_heads_whose_width_it_takes(monkeypatch, head_dim, is_supported):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))

    assert has_varlen_attention(torch.device("cuda"), head_dim) == is_supported
    assert not has_varlen_attention(torch.device("cpu"), head_dim)


def test_memory_is_measured_in_bytes():
    assert 1e7 < peak_memory(torch.device("cpu")) < total_memory(torch.device("cpu")) < 1e14
