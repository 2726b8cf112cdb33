from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from browser import Browser, chromium
from cluster import CannotStart, SlurmCluster
from helpers import launch, make_benchmark, make_config

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
if "SLURM_BENCH_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PATH"] += os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
# Some processes are killed by signals at which Linux would leave a core file in the checkout.
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
# The same examples on every machine, however long it takes over one: what fails, fails for everybody.
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def _cluster() -> Iterator[SlurmCluster]:
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(SlurmCluster.running())
        except CannotStart as reason:
            pytest.skip(f"no Slurm here: {reason}")
        yield cluster


@pytest.fixture
def slurm(_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """A running cluster with an empty queue, before and after."""
    yield _cluster
    _cluster.clear()


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(_chromium: Any) -> Browser:
    return Browser(_chromium)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 samples, ids s-0 … s-23."""
    return make_benchmark(tmp_path_factory.mktemp("bench"), 24)


@pytest.fixture(scope="session")
def undisturbed(bench: Path) -> Path:
    """A run of those samples that nothing happened to, in one process: what every other run must equal."""
    folder = bench.parent / "undisturbed"
    config = make_config(bench.parent / "undisturbed.yaml", bench, gpus=1)
    done = launch("--config", config, "--run-dir", folder, "--executor", "debug")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def finished_run(undisturbed: Path) -> str:
    return str(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: mounting one needs root ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
