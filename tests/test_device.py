import os
from threading import Barrier, Event, current_thread

import pytest
import torch

from protembed.config.common import DeviceConfig
from protembed.device import (
    WorkerPool,
    choose_device,
    choose_precision,
    free_disk,
    load_kernels,
    num_threads,
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
    ("there", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_a_gpu_if_there_is_one(hardware, there, chosen):
    hardware(**there)

    assert choose_device(DeviceConfig()) == torch.device(chosen)


def test_the_cpu_can_be_asked_for_beside_a_gpu(hardware):
    hardware(cuda=True)

    assert choose_device(DeviceConfig(device="cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(hardware, device):
    hardware()

    with pytest.raises(ConfigError, match=f"--device is '{device}'") as caught:
        choose_device(DeviceConfig(device=device))

    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("asked", "slurm", "openmp", "number"),
    [(3, "5", "7", 3), (None, "5", "7", 5), (None, None, "7", 7), (None, "", "7", 7), (None, "0", "7", 7)],
)
def test_threads_are_asked_for_or_granted_by_the_scheduler(monkeypatch, asked, slurm, openmp, number):
    for name, value in (("SLURM_CPUS_PER_TASK", slurm), ("OMP_NUM_THREADS", openmp)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    assert num_threads(DeviceConfig(threads=asked)) == number


@pytest.mark.parametrize("nonsense", ["many", "-2", "4,2"])
def test_threads_are_otherwise_the_cores_that_this_process_may_use(monkeypatch, nonsense):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 11}, raising=False)

    assert num_threads(DeviceConfig()) == 3


def test_packs_are_computed_side_by_side_and_come_in_their_order():
    second_was_seen = Event()

    def compute(number):
        if number == 0:
            assert second_was_seen.wait(timeout=60)
        second_was_seen.set()
        return number

    with WorkerPool(2) as pool:
        assert list(pool.map(compute, range(4))) == [0, 1, 2, 3]


def test_operators_use_one_thread_within_the_pool_and_as_many_as_before_after_it():
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), WorkerPool(2) as pool:
            assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_kernels_are_first_used_by_one_thread_alone_and_once_in_a_process():
    load_kernels.cache_clear()

    for _ in range(2):
        with WorkerPool(2) as pool:
            used_before = list(pool.map(lambda number: load_kernels.cache_info().currsize, range(4)))
            assert used_before == [1, 1, 1, 1]

    assert load_kernels.cache_info().misses == 1


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError), WorkerPool(2) as pool:
        list(pool.map(lambda number: 1 // number, [1, 0]))


def test_an_error_of_the_items_comes_after_the_results_of_those_before_it():
    def items():
        yield from (1, 2)
        raise KeyError("torn")

    taken = []
    with pytest.raises(KeyError, match="torn"), WorkerPool(3) as pool:
        taken.extend(pool.map(abs, ()))
        for result in pool.map(lambda number: 10 * number, items()):
            taken.append(result)

    assert taken == [10, 20]


@pytest.mark.parametrize(("device", "num_workers"), [("cpu", 3), ("cuda", 1), ("mps", 1)])
def test_a_cpu_has_a_worker_for_each_thread_and_a_gpu_one(device, num_workers):
    with worker_pool(DeviceConfig(threads=3), torch.device(device)) as pool:
        together = Barrier(num_workers)
        list(pool.map(lambda _: together.wait(timeout=60), range(num_workers)))
        names = set(pool.map(lambda _: current_thread().name, range(50)))

    assert len(names) <= num_workers


@pytest.mark.parametrize(
    ("granted", "openmp", "num_sharing", "number"), [("8", "1", "4", 2), (None, "1", "4", 1), (None, None, "3", 4)]
)
def test_processes_of_one_machine_share_its_cores(monkeypatch, granted, openmp, num_sharing, number):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", num_sharing)
    for name, value in (("SLURM_CPUS_PER_TASK", granted), ("OMP_NUM_THREADS", openmp)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    assert num_threads(DeviceConfig()) == number


def test_each_process_of_several_takes_a_gpu_of_its_own(hardware, monkeypatch):
    hardware(cuda=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for num_gpus, rank, index in ((2, 1, 1), (1, 2, 0)):  # a scheduler may show each process one GPU alone
        monkeypatch.setattr(torch.cuda, "device_count", lambda number=num_gpus: number)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert choose_device(DeviceConfig()) == torch.device("cuda", index)


def test_a_process_without_a_gpu_of_its_own_is_told(hardware, monkeypatch):
    hardware(cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")

    with pytest.raises(ConfigError, match="process 2 of this machine has none of its own"):
        choose_device(DeviceConfig())


def test_the_single_thread_that_torchrun_sets_is_nobodys_wish(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("OMP_NUM_THREADS", "1"), ("TORCHELASTIC_RUN_ID", "none")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    assert num_threads(DeviceConfig()) == 6


@pytest.mark.parametrize(("num_per_worker", "most"), [(1, 4), (3, 8)])
def test_results_that_wait_to_be_taken_are_no_more_than_the_workers_share(num_per_worker, most):
    begun = []
    with WorkerPool(2) as pool:
        results = pool.map(begun.append, range(20), num_per_worker=num_per_worker)
        next(results)
        assert len(begun) <= most
        assert len(list(results)) == 19


@pytest.mark.parametrize(
    ("asked", "chosen"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_precision_can_be_asked_for(asked, chosen):
    assert choose_precision(asked, torch.device("cpu")) == chosen


def test_a_cpu_trains_in_float32_and_a_gpu_in_bfloat16_where_it_can(monkeypatch):
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    for can, precision in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, can=can: can)
        assert choose_precision("auto", torch.device("cuda")) == precision


def test_free_disk_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.1)
    assert 0 < free_disk(tmp_path) < 1e18


def test_memory_is_counted_in_bytes():
    assert 1e7 < peak_memory(torch.device("cpu")) < total_memory(torch.device("cpu")) < 1e14
