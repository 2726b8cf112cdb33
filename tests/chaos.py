"""Seeded faults on a real cluster: whatever dies, and whenever, the run ends complete, by itself, with the same bytes.

    python -m tests.chaos --seeds 1-50 [--faults 12]

A seed decides which faults are dealt, to whom and after which pause; what they meet depends on the machine's speed. The
driver never resubmits. It does what those must do who look after a cluster: resume a node that was drained, release a
job that Slurm holds, and after a crash of the controller have it ask the nodes what is still at work on them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cluster import SlurmCluster
from helpers import REPO, assert_whole, launch, make_benchmark, make_config, run_dir

from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.records import manifests, read_records

SAMPLES = 24
# Seconds that a run may take after the last fault.
PATIENCE = 300
# A kill that also hits the last job behind the run is a person's cancel: nobody is left to go on.
SPARES_THE_LAST = "the last job of the run is spared"


class Chaos:
    """One run of SAMPLES samples, and the faults that are dealt to it."""

    def __init__(self, cluster: SlurmCluster, bench: Path, root: Path, seed: int) -> None:
        self.cluster, self.bench, self.root, self.seed = cluster, bench, root, seed
        self.random = random.Random(seed)
        self.dealt = Counter[str]()
        self.killed = Counter[tuple[str, ...]]()
        self.reconciled = time.monotonic()
        # What is dealt the more often the higher its weight, where it finds something to hit.
        self.faults: dict[str, tuple[float, Callable[[], bool]]] = {
            "SIGKILL of a worker": (3, self.kill_worker),
            "SIGKILL of a task": (3, self.kill_task),
            "SIGKILL of a job that follows": (6, self.kill_follower),
            "scancel": (3, self.cancel),
            "requeue": (2, self.requeue),
            "preemption": (2, self.preempt),
            "node down": (1.5, self.take_node_down),
            "controller stopped": (1, self.stop_controller),
            "controller killed": (1, self.kill_controller),
            "torn manifest": (2, self.tear_manifest),
            "garbage in a manifest": (1, self.spoil_manifest),
            "stray copies": (0.5, self.leave_copies),
            "image deleted": (2, self.delete_image),
            "disk full": (2, self.fill_disk),
            "two resubmits at once": (1, self.resubmit_twice),
        }

    def run(self, faults: int) -> None:
        """Raises AssertionError or TimeoutError where the run isn't whole in the end."""
        self.submit()
        for _ in range(faults):
            time.sleep(self.random.uniform(0.2, 3.0))
            if not self.cluster.squeue():
                break
            turn = {kind: self.random.random() ** (1 / weight) for kind, (weight, _) in self.faults.items()}
            for kind in sorted(turn, key=turn.__getitem__, reverse=True):  # the first one that finds something to hit
                if self.faults[kind][1]():
                    self.dealt[kind] += 1
                    self.say(kind)
                    break
        self.cluster.wait_for(self.is_quiet, PATIENCE, f"seed {self.seed}: the end of the run")

    def check(self, undisturbed: Path) -> None:
        assert_whole(self.root, undisturbed)
        assert self.cluster.squeue() == []
        given_up = [r["id"] for r in self.records() if r.get("error", {}).get("type") == "ProcessDied"]
        assert given_up == [], "a random kill convicts no sample"
        scores: dict[tuple[str, str], object] = {}
        for record in self.records("score"):
            if record["status"] == "ok":
                key = record["id"], record["edit_sha256"]
                assert scores.setdefault(key, record["scores"]) == record["scores"], f"{key} has two different scores"

    def submit(self) -> None:
        delay, gpus = self.random.uniform(1, 2.5), self.random.randint(2, 6)
        judge = {"judge": {"class_path": "tests.plugins.Brightness", "params": {"delay": 0.8}}}
        more = {"scorers": judge, "score_batch_size": 2, "score_gpus": self.random.choice((1, 1, 2))}
        config = make_config(self.root.parent / "c.yaml", self.bench, "Tint", {"delay": round(delay, 2)}, **more)
        where = ("--config", config, "--run-dir", self.root, "--partition", "h100", "--gpus", gpus)
        done = launch(*where, env=self.cluster.env)
        assert done.returncode == 0, done.stderr

    def say(self, what: str) -> None:
        print(f"  seed {self.seed}: {time.strftime('%H:%M:%S')} {what}", flush=True)

    def records(self, stage: str = "edit") -> list[dict[str, object]]:
        with suppress(OSError):
            return read_records(run_dir(self.root), stage)
        return []

    # What is there to be hit.

    def running(self) -> list[tuple[str, str]]:
        return [(job, name) for job, name, state in self.cluster.squeue() if state == "RUNNING" and "." in name]

    def followers(self) -> list[str]:
        return [name for _, name, _ in self.cluster.squeue() if name.endswith((".finish", ".standby"))]

    def task_names(self) -> set[str]:
        return {attempt.job_names.array for attempt in read_attempts(run_dir(self.root))}

    def pids(self, words: str) -> list[int]:
        """Processes of this run whose command line has these words."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() if entry.name.isdigit() else ""
                if words in line and str(self.root) in line and line.startswith(sys.executable):
                    found.append(int(entry.name))
        return sorted(found)

    def job_name(self, pid: int) -> str:
        with suppress(OSError):
            for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if word.startswith(b"SLURM_JOB_NAME="):
                    return word.partition(b"=")[2].decode()
        return ""

    def kill(self, pids: list[int]) -> bool:
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(pids), signal.SIGKILL)
        return True

    # The faults. Each says whether it found something to hit.

    def kill_worker(self) -> bool:
        """At most two of a task: a third kill of the same sample is what nobody could tell from the sample's doing."""
        workers = [pid for pid in self.pids("slurm_bench.cluster.worker") if self.killed[self.task_of(pid)] < 2]
        if not workers:
            return False
        pid = self.random.choice(workers)
        self.killed[self.task_of(pid)] += 1
        return self.kill([pid])

    def task_of(self, pid: int) -> tuple[str, ...]:
        with suppress(OSError):
            return tuple(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[4:7])
        return ()

    def kill_task(self) -> bool:
        return self.kill([p for p in self.pids("submitit.core._submit") if self.job_name(p) in self.task_names()])

    def kill_follower(self) -> bool:
        if len(self.followers()) < 2:  # SPARES_THE_LAST
            return False
        jobs = self.pids("submitit.core._submit")
        return self.kill([p for p in jobs if self.job_name(p).endswith((".finish", ".standby"))])

    def cancel(self) -> bool:
        jobs = [(job, name) for job, name, _ in self.cluster.squeue() if "." in name]
        if len(self.followers()) < 2:  # SPARES_THE_LAST
            jobs = [(job, name) for job, name in jobs if not name.endswith((".finish", ".standby"))]
        if not jobs:
            return False
        self.cluster.run("scancel", self.random.choice(jobs)[0], check=False)
        return True

    def requeue(self) -> bool:
        jobs = self.running()
        if not jobs:
            return False
        self.cluster.run("scontrol", "requeue", self.random.choice(jobs)[0], check=False)
        return True

    def preempt(self) -> bool:
        if not self.running():
            return False
        words = ("-p", "urgent", f"--array=0-{self.random.randint(3, 7)}", "--gres=gpu:1", "-o", "/dev/null")
        self.cluster.run("sbatch", *words, "--wrap", "sleep 2", check=False)
        return True

    def take_node_down(self) -> bool:
        node = self.random.choice(("n1", "n2"))
        self.cluster.kill_node(node)
        time.sleep(self.random.uniform(0.5, 3))
        self.cluster.start_node(node)
        return True

    def stop_controller(self) -> bool:
        self.cluster.pause_controller(self.random.uniform(2, 8))
        return True

    def kill_controller(self) -> bool:
        self.cluster.restart_controller(self.random.uniform(0.5, 4))
        return True

    def manifest(self) -> Path | None:
        files = manifests(run_dir(self.root), "edit") + manifests(run_dir(self.root), "score")
        files = [file for file in files if file.stat().st_size]
        return self.random.choice(files) if files else None

    def tear_manifest(self) -> bool:
        file = self.manifest() if self.is_early() else None
        if file is None:
            return False
        os.truncate(file, max(0, file.stat().st_size - self.random.randint(1, 80)))
        return True

    def spoil_manifest(self) -> bool:
        file = self.manifest() if self.is_early() else None
        if file is None:
            return False
        garbage = (b'{"id": "s-1", "status"', b"\0" * 300, self.random.randbytes(50), b"[]\n7\nnull\n", b"\xff\xfe{}\n")
        with suppress(OSError), open(file, "ab") as torn:
            torn.write(self.random.choice(garbage))
        return True

    def leave_copies(self) -> bool:
        """What a file manager or an editor leaves beside a file."""
        files = [file for file in [self.manifest(), *(self.root / "attempts").glob("edit-001.json")] if file]
        for file in files:
            with suppress(OSError):
                (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7" + self.random.randbytes(40))
                (file.parent / f"{file.name}~").write_bytes(file.read_bytes()[:50])
        return bool(files)

    def delete_image(self) -> bool:
        edited = [str(r["image"]) for r in self.records() if r["status"] == "ok"] if self.is_early() else []
        if not edited:
            return False
        with suppress(FileNotFoundError):
            (self.root / self.random.choice(edited)).unlink()
        return True

    def is_early(self) -> bool:
        """Not so late that nobody would look at the records and the images again."""
        return len({r["id"] for r in self.records("score") if r["status"] == "ok"}) < SAMPLES - 6

    def fill_disk(self) -> bool:
        if not os.path.ismount(self.root.parent):
            return False
        ballast = self.root.parent / "ballast"
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(self.random.uniform(1, 5))
        ballast.unlink()
        return True

    def resubmit_twice(self) -> bool:
        """While anything is in the queue both are refused; a run that nobody works on isn't to be helped by it."""
        if not self.followers():
            return False
        words = [sys.executable, "launch.py", "resubmit", str(self.root)]
        both = [
            subprocess.Popen(words, cwd=REPO, env=self.cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        for process in both:
            said = process.communicate(timeout=600)[1].decode()
            assert "Traceback" not in said, said
            assert process.returncode in (0, 1), said
        return True

    # What a person does.

    def is_quiet(self) -> bool:
        self.cluster.resume()
        for job, *reason in self.cluster.squeue("%i %r", "--state=PENDING"):
            if {"requeued", "held"} <= set(" ".join(reason).replace("_", " ").split()):
                self.cluster.run("scontrol", "release", job, check=False)
        for job, name in self.cluster.squeue("%i %j"):
            if name == "wrap":  # has had its time, and a killed controller may have missed its end
                self.cluster.run("scancel", job, check=False)
        if time.monotonic() - self.reconciled > 20:
            self.cluster.run("scontrol", "reconfigure", check=False)
            self.reconciled = time.monotonic()
        self.cluster.hurry()
        guarded = bool(self.pids("slurm_bench.cluster.guard"))  # it may have something to submit again
        return self.cluster.answers() and not guarded and not self.cluster.squeue() and self.cluster.answers()


@contextmanager
def place(folder: Path, small: bool) -> Iterator[Path]:
    """A folder for one run; `small` asks for a file system of its own that can be filled, where one may mount it."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    mounted = small and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def undisturbed_run(folder: Path) -> tuple[Path, Path]:
    """The benchmark, and a run of it that nothing happens to."""
    bench = make_benchmark(folder / "bench", SAMPLES)
    config = make_config(folder / "undisturbed.yaml", bench, gpus=1)
    done = launch("--config", config, "--run-dir", folder / "undisturbed", "--executor", "debug")
    assert done.returncode == 0, done.stderr
    return bench, folder / "undisturbed"


def deal(
    cluster: SlurmCluster,
    bench: Path,
    undisturbed: Path,
    folder: Path,
    seed: int,
    faults: int,
    keep: Path | None = None,
) -> Counter[str]:
    """One seed; gives the faults that the run survived. Every other seed's disk can be filled. A run that failed is
    copied to `keep`."""
    with place(folder, small=seed % 2 == 1) as where:
        chaos = Chaos(cluster, bench, where / "run", seed)
        try:
            chaos.run(faults)
            chaos.check(undisturbed)
        except BaseException:
            if keep is not None:
                shutil.copytree(where, keep / str(seed), dirs_exist_ok=True)
                shutil.copy(cluster.folder / "slurmctld.log", keep / str(seed))
            raise
        return chaos.dealt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-10", help="FIRST-LAST, or one")
    parser.add_argument("--faults", type=int, default=12, help="so many a run")
    parser.add_argument("--keep", type=Path, help="leave the folders of runs that failed here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is to be stopped in order
    first, _, last = options.seeds.partition("-")
    if reason := SlurmCluster.missing():
        parser.error(reason)
    cluster, survived, failed = SlurmCluster(), Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        bench, undisturbed = undisturbed_run(Path(folder))
        cluster.start()
        try:
            for seed in range(int(first), int(last or first) + 1):
                begin, root = time.monotonic(), Path(folder, str(seed))
                try:
                    dealt = deal(cluster, bench, undisturbed, root, seed, options.faults, options.keep)
                    survived += dealt
                    print(
                        f"seed {seed}: whole after {dealt.total()} faults, {time.monotonic() - begin:.0f} s", flush=True
                    )
                except (AssertionError, TimeoutError, OSError, RuntimeError) as error:
                    failed.append(seed)
                    print(f"seed {seed}: FAILED: {str(error)[:600]}", flush=True)
                cluster.clear()
        finally:
            cluster.stop()
    for kind, times in sorted(survived.items()):
        print(f"{times:5}  {kind}")
    print(f"{survived.total():5}  faults survived over {int(last or first) - int(first) + 1 - len(failed)} seeds")
    if failed:
        print(f"not survived: seeds {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
