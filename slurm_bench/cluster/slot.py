"""One task of an attempt, worked on by one process after another: what dies is started again in place, until the task
is over or nothing is brought forward any more. The same for an array's task, for local slots, and for the scoring
inside the job that follows an array."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from slurm_bench.errors import storage_problem
from slurm_bench.logs import log
from slurm_bench.marks import process_began
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.journal import DONE, FAILED, LOST, ORDERLY, STOPPED, Journal, TaskProcess, node_name, read_journal
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import manifests, read_manifest, reserve_manifest
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals

PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])

POLL = 0.1
# So many processes in a row may die and bring nothing forward before the task is left to others.
FRUITLESS = 3
# So many processes that fail on a sample say of it what there is to say.
SETTLES = 2
# Seconds that a worker gets to finish what it has in hand when its supervisor has to leave.
GRACE = 40


class Slot:
    """`gpu` is all that the task may see, where not the whole environment's; `output` the file that its processes print
    to, where not this one's streams. `warning` is the time between SIGUSR2 and the kill, in seconds."""

    def __init__(
        self,
        run: RunDir,
        attempt: Attempt,
        task: int,
        environment: Mapping[str, str],
        gpu: str | None = None,
        output: Path | None = None,
        warning: int = 90,
    ) -> None:
        self.gpu = gpu
        self._run, self._attempt, self._task, self._warning = run, attempt, task, warning
        path = os.pathsep.join(filter(None, [PACKAGE_ROOT, environment.get("PYTHONPATH")]))
        only = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        self._environment = {**environment, "PYTHONPATH": path, **only}
        self._output = output
        self._fruitless = 0
        self._told: int | None = None
        self._exit: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._start(first=True)

    def over(self) -> bool:
        """Look at the process; where it died, start the next one, if that may bring the task forward."""
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._end_children()
        self._process = None
        self._exit = code
        if self._told == signal.SIGKILL == -code:  # by `kill`: what it had in hand is no suspect
            self._journal.note("end", how=STOPPED, message="SIGKILL")
        self._journal.note("exit", code=code)
        self._journal.close()
        last = self._last()
        if last.end not in (None, LOST) or self._told is not None:
            return True
        log.warning("%s, task %d: its process was %s", self._attempt.name, self._task, last.how)
        try:
            self._fruitless = 0 if self._brought_forward(last) else self._fruitless + 1
            if self._fruitless >= FRUITLESS:
                log.error("%s, task %d is left to others: its processes die at once", self._attempt.name, self._task)
                return True
            self._start()
        except OSError as error:
            log.error("%s, task %d is left to others: %s", self._attempt.name, self._task, storage_problem(error))
            return True
        return False

    def tell(self, number: int) -> None:
        """Pass a signal on, once of a kind. After it no other process is started."""
        if self._process is not None and self._told != number:
            self._told = number
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._told = signal.SIGKILL  # no other one is started
            self._process.kill()
            self._process.wait()
            self.over()

    @property
    def tally(self) -> Tally:
        """How its last process ended."""
        last = self._last()
        return Tally(ok=last.ok, stopped=last.message if last.end == STOPPED else None)

    @property
    def done(self) -> bool:
        return self._last().end == DONE

    @property
    def failed(self) -> bool:
        """The task's last process didn't come to its end in order."""
        last = self._last()
        return last.end is None or last.end == LOST

    def _start(self, first: bool = False) -> None:
        run, attempt, task = self._run, self._attempt, self._task
        run.check_there()
        self._exit = None
        self._restart = reserve_manifest(run, attempt.stage, attempt.number, task)
        self._journal = Journal(run.journal(attempt.stage, attempt.number, task, self._restart))
        job = os.environ.get("SLURM_JOB_ID")
        since = {"held": round(process_began(), 3)} if job and first else {}  # when the job got its place, nearly
        self._journal.note("spawn", node=node_name(), job=job, **since)
        words = [run.root, attempt.stage, attempt.number, task, self._restart, self._warning, os.getpid()]
        with nullcontext() if self._output is None else open(self._output, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "slurm_bench.cluster.worker", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._environment),
                start_new_session=True,
            )
        self._process, self._group = process, process.pid

    def _end_children(self) -> None:
        """What the plug-in started and left behind would keep the GPU."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)

    def _last(self) -> TaskProcess:
        last = read_journal(self._run, self._attempt.stage, self._attempt.number, self._task, self._restart)
        return replace(last, exit=self._exit, end=FAILED if self._exit == ORDERLY and last.end is None else last.end)

    def _brought_forward(self, died: TaskProcess) -> bool:
        """Whether a process was worth starting: samples are done with; or one has failed that few processes of the task
        had failed with; or one that it had alone in hand is better known now, as something came right on this node."""
        own = self._run.manifest(died.stage, died.attempt, died.task, died.restart)
        files = manifests(self._run, died.stage, died.attempt, died.task)
        new, earlier = read_manifest(own), [record for file in files if file != own for record in read_manifest(file)]
        failed = Counter((record["id"], record.get("scorer")) for record in earlier)
        for record in new:
            if record["status"] == "ok" or record.get("final") or failed[record["id"], record.get("scorer")] < SETTLES:
                return True
        good_nodes = {record.get("node") for record in earlier if record["status"] == "ok"}
        return len(died.in_hand) == 1 and died.node in good_nodes


def wait_for(slots: Sequence[Slot], stop: StopSignals) -> Tally:
    """Until all are over; what tells `stop` to leave is passed on. Gives how they ended, together."""
    while any([not slot.over() for slot in slots]):  # noqa: C419 (each must be looked at)
        for slot in slots if stop.reason is not None else ():
            slot.tell(signal.Signals[str(stop.reason)])
        time.sleep(POLL)
    tallies = [slot.tally for slot in slots]
    return Tally(ok=sum(tally.ok for tally in tallies), stopped=next(filter(None, (t.stopped for t in tallies)), None))
