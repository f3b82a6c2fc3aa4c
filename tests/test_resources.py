import errno
import os
import resource
import shutil
import sys

import pytest

from protembed import resources
from protembed.config.common import DeviceConfig
from protembed.resources import available_cores, available_memory, free_disk, num_threads

GIB = 1 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Pretend that the machine has twelve cores, 64 GiB and no limits; return its /proc/self."""
    for name in (*resources._GRANTED_CORES, "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}.__getitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(resources, "_PROCESS", tmp_path / "process")
    (tmp_path / "process").mkdir()
    return tmp_path / "process"


@pytest.fixture
def control_groups(machine, tmp_path):
    """Return a function that mounts control groups, and writes the files of each."""

    def mount(own, mounts, files):
        (machine / "cgroup").write_text(own)
        lines = [line.replace(" /sys/", f" {tmp_path}/sys/") for line in mounts]
        ordinary = "22 27 0:21 / /proc rw,relatime - proc proc rw"
        (machine / "mountinfo").write_text("\n".join([ordinary, *lines]) + "\n")
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")

    return mount


VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = [
    "34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
]


# Cores


@pytest.mark.parametrize(
    ("requested", "slurm", "openmp", "number"),
    [(3, "5", "7", 3), (None, "5", "7", 5), (None, None, "7", 7), (None, "", "7", 7), (None, "0", "7", 7)],
)
def test_the_number_of_threads_is_the_requested_or_the_scheduled_one(monkeypatch, requested, slurm, openmp, number):
    for name, value in (("SLURM_CPUS_PER_TASK", slurm), ("OMP_NUM_THREADS", openmp)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    assert num_threads(DeviceConfig(threads=requested)) == number


@pytest.mark.parametrize("invalid", ["many", "-2", "4,2"])
def test_without_a_valid_setting_the_number_of_threads_is_that_of_the_available_cores(monkeypatch, invalid):
    monkeypatch.setenv("OMP_NUM_THREADS", invalid)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 11}, raising=False)

    assert num_threads(DeviceConfig()) == 3


@pytest.mark.parametrize(
    ("granted", "openmp", "num_sharing", "number"), [("8", "1", "4", 2), (None, "1", "4", 1), (None, None, "3", 4)]
)
def test_processes_on_one_machine_share_its_cores(monkeypatch, granted, openmp, num_sharing, number):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", num_sharing)
    for name, value in (("SLURM_CPUS_PER_TASK", granted), ("OMP_NUM_THREADS", openmp)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    assert num_threads(DeviceConfig()) == number


def test_the_single_openmp_thread_that_torchrun_sets_is_ignored(monkeypatch):
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("OMP_NUM_THREADS", "1"), ("TORCHELASTIC_RUN_ID", "none")):
        monkeypatch.setenv(name, value)

    assert num_threads(DeviceConfig()) == 6


SCHEDULERS = ["SLURM_CPUS_PER_TASK", "NSLOTS", "LSB_DJOB_NUMPROC", "LSB_MAX_NUM_PROCESSORS", "NCPUS"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_job_has_as_many_threads_as_its_scheduler_grants_on_this_machine(monkeypatch, name):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for granted, number in (("4", 4), ("96", 12)):
        monkeypatch.setenv(name, granted)
        assert num_threads(DeviceConfig()) == number


def test_lsf_grants_what_it_has_found_and_not_what_was_requested(monkeypatch):
    monkeypatch.setenv("LSB_MAX_NUM_PROCESSORS", "8")
    monkeypatch.setenv("LSB_DJOB_NUMPROC", "6")

    assert num_threads(DeviceConfig()) == 6


@pytest.mark.parametrize(("quota", "number"), [("250000 100000", 3), ("50000 100000", 1), ("max 100000", 12)])
def test_the_quota_of_the_innermost_group_limits_the_cores(control_groups, quota, number):
    control_groups("0::/job/step\n", [VERSION_2], {"sys/fs/cgroup/job/step/cpu.max": quota})

    assert available_cores() == num_threads(DeviceConfig()) == number


def test_the_quota_of_an_outer_group_limits_the_cores_of_all_within_it(control_groups):
    files = {"sys/fs/cgroup/job/step/cpu.max": "600000 100000", "sys/fs/cgroup/job/cpu.max": "400000 100000"}
    control_groups("0::/job/step\n", [VERSION_2], files)

    assert available_cores() == 4


@pytest.mark.parametrize(("quota", "number"), [("200000", 2), ("-1", 12)])
def test_the_quota_of_version_1_limits_the_cores(control_groups, quota, number):
    group = "sys/fs/cgroup/cpu,cpuacct/job"
    files = {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": "100000"}
    control_groups("5:cpu,cpuacct:/job\n4:memory:/other\n", VERSION_1, files)

    assert available_cores() == number


# Memory


def test_without_a_limit_all_memory_of_the_machine_is_available(control_groups):
    assert available_memory() == 64 * GIB

    control_groups("0::/job\n", [VERSION_2], {"sys/fs/cgroup/job/memory.max": "max"})

    assert available_memory() == 64 * GIB


@pytest.mark.parametrize("name", ["job/step/memory.max", "job/memory.max", "job/memory.high", "memory.max"])
def test_the_lowest_limit_of_the_groups_of_version_2_counts(control_groups, name):
    files = {"sys/fs/cgroup/job/step/memory.max": str(8 * GIB), f"sys/fs/cgroup/{name}": str(4 * GIB)}
    control_groups("0::/job/step\n", [VERSION_2], files)

    assert available_memory() == 4 * GIB


def test_the_group_of_version_1_limits_the_memory(control_groups):
    files = {
        "sys/fs/cgroup/memory/slurm/uid_7/job_9/memory.limit_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "9223372036854771712",
    }
    control_groups("4:memory:/slurm/uid_7/job_9\n1:cpu:/\n0::/\n", [*VERSION_1, VERSION_2], files)

    assert available_memory() == 3 * GIB


@pytest.mark.parametrize("own", ["4:memory:/docker/abc\n", "4:memory:/\n", "4:memory:/../../abc\n"])
def test_a_container_sees_its_own_group_as_the_mounted_one(control_groups, own):
    mounted = VERSION_1[1].replace(" / ", " /docker/abc ")
    control_groups(own, [mounted], {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB)})

    assert available_memory() == GIB


def test_groups_are_found_where_their_path_has_a_space(control_groups, tmp_path):
    mounted = VERSION_2.replace("/sys/fs/cgroup", r"/sys/my\040groups")
    control_groups("0::/\n", [mounted], {"sys/my groups/memory.max": str(GIB)})

    assert available_memory() == GIB


@pytest.mark.parametrize(
    ("variables", "memory"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIB),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "3", "SLURM_CPUS_PER_TASK": "1"}, 6 * GIB),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_PER_TASK": "2"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, 64 * GIB),
        ({"SLURM_MEM_PER_NODE": "999999"}, 64 * GIB),
    ],
)
def test_the_memory_that_slurm_grants_counts_in_mebibytes_and_0_is_all(monkeypatch, variables, memory):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert available_memory() == memory


@pytest.mark.parametrize("limited", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_process_limits_its_memory(monkeypatch, limited):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5 * GIB if kind == limited else -1, -1))

    assert available_memory() == 5 * GIB


# Disk


def test_free_disk_is_that_of_the_nearest_existing_folder(tmp_path):
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.1)
    assert 0 < free_disk(tmp_path) < 1e18


def test_a_file_system_that_does_not_know_its_free_space_fits_everything(monkeypatch, tmp_path):
    def fail(path):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for usage in (fail, lambda path: shutil._ntuple_diskusage(0, 0, 0)):
        monkeypatch.setattr(shutil, "disk_usage", usage)
        assert free_disk(tmp_path) == sys.maxsize
