"""What only a cluster with accounting, limits and a guard of host memory does to a run. It takes slurmdbd and MariaDB,
which the suite doesn't install: `apt install slurmdbd mariadb-server` lets these tests run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from accounting import ONE_AT_A_TIME, AccountingCluster
from cluster import CannotStart, SlurmCluster
from helpers import attempts, run_dir
from test_explain_cluster import Bed


@pytest.fixture(scope="module")
def accounting() -> Iterator[SlurmCluster]:
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(AccountingCluster.running())
        except CannotStart as reason:
            pytest.skip(f"no accounting here: {reason}")
        yield cluster


@pytest.fixture
def bed(accounting: SlurmCluster, tmp_path: Path) -> Iterator[Bed]:
    yield Bed(accounting, tmp_path)
    for log in tmp_path.glob("*/logs/*-submit.log"):  # this controller forgets at once what is cancelled
        accounting.wait_kept(log)
    accounting.clear()


def test_a_limit_of_a_qos_is_named(bed: Bed) -> None:
    root = bed.submit("limited", f"slurm.qos={ONE_AT_A_TIME}", editor="WaitsFor", params={"mark": "/no"})
    bed.waits_with(attempts(root)[0]["job_id"], "QOSMaxJobsPerUserLimit")
    cause = bed.explain(root)["pending_qos"]
    assert "QOSMaxJobsPerUserLimit" in cause["what"]
    assert len(cause["samples"]) == 3, "one of two tasks waits"


def test_a_job_that_took_more_memory_than_it_asked_for(bed: Bed) -> None:
    root = bed.submit("large", "slurm.mem=300M", editor="Hoards", params={"megabytes": 900})
    job = attempts(root)[0]["job_id"]
    bed.slurm.wait_for(lambda: not bed.slurm.squeue("%i", f"--jobs={job}"), 90, "the end of the array")
    told = [cause for cause in bed.told(root) if cause["kind"] == "host_out_of_memory"]
    assert {sample for cause in told for sample in cause["samples"]} == {f"s-{n}" for n in range(6)}
    assert "--mem" in told[0]["what"]


def test_what_the_controller_has_forgotten_accounting_tells(bed: Bed) -> None:
    root = bed.submit("forgotten", "slurm.begin=now+1hour")
    job = attempts(root)[0]["job_id"]
    bed.slurm.wait_kept(run_dir(root).submit_log("edit", 1))
    bed.slurm.run("scancel", *(attempts(root)[0][name] for name in ("standby_job_id", "finish_job_id", "job_id")))
    bed.slurm.wait_for(lambda: job not in bed.slurm.run("squeue", "--states=all", "-h", "-o", "%A"), 60, "oblivion")
    time.sleep(1)
    cause = bed.explain(root)["cancelled"]
    assert len(cause["samples"]) == 6
    assert "CANCELLED" in cause["what"]
