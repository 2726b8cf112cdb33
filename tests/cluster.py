"""A real Slurm on this one machine: two nodes of four pretend GPUs, arrays of eight jobs at most, and a partition that
preempts.

Needs Debian's slurmctld, slurmd and slurm-client, and no privilege: the daemons run as whoever starts them, without
munge and without accounting. The pretend GPUs are character devices that every Linux has.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ports import free_ports

DAEMONS = ("slurmctld", "slurmd")
NODES = ("n1", "n2")
PRETEND_GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
# What is waited for may take so many times as long on a machine that others load.
LOADED = 4
# A port that was free may have been taken when a daemon comes to it.
STARTS = 3

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
MaxArraySize=8
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MessageTimeout=60
SlurmdTimeout=300
OverTimeLimit=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=16 RealMemory=4000 Gres=gpu:4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=16 RealMemory=4000 Gres=gpu:4
PartitionName=h100 Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=9 PreemptMode=OFF
"""


# The second is for a container without dbus, where slurmd of its own accord refuses to start.
CGROUP_CONFIGURATIONS = ("", "CgroupPlugin=cgroup/v1\n")


class CannotStart(Exception):
    """Slurm isn't installed, or doesn't come up here. Says what is missing, or what the daemons said last."""


class SlurmCluster:
    """`more` are further lines of slurm.conf; of a key that stands twice Slurm takes the last."""

    more = ""

    def __init__(self) -> None:
        # Not in TMPDIR: the daemons' sockets lie in it, and the path of a socket has 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SQUEUE", "SCANCEL"))}
        self.env |= {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def missing() -> str:
        """Why there can be no cluster here, or nothing."""
        lacking = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=PATH) is None]
        if lacking:
            return f"{', '.join(lacking)} not installed (Debian: apt install slurmctld slurmd slurm-client)"
        return ""

    def start(self) -> None:
        ports = free_ports(3)
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        names = ("ctld_port", "port_1", "port_2")
        text = CONFIGURATION.format(
            host=socket.gethostname(), user=user, folder=self.folder, **dict(zip(names, ports, strict=True))
        )
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(text + self.more)
        gres = [f"Name=gpu File={device}" for device in PRETEND_GPUS]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        atexit.register(self.stop)
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for cgroup in CGROUP_CONFIGURATIONS:
            (self.folder / "cgroup.conf").write_text(cgroup)
            if self._start_nodes():
                return
        raise CannotStart(self._last_lines())

    def _start_nodes(self) -> bool:
        """True once both are idle, False as soon as a daemon has ended."""
        for node in NODES:
            self.start_node(node)

        def ended() -> bool:
            return any(daemon.poll() is not None for daemon in self._daemons.values())

        with suppress(TimeoutError):
            self.wait_for(lambda: ended() or self.states() == dict.fromkeys(NODES, "idle"), 60, "both nodes idle")
        if self.states() == dict.fromkeys(NODES, "idle"):
            return True
        for node in NODES:
            self._daemons[node].kill()
            self._daemons[node].wait()
        return False

    def _last_lines(self) -> str:
        """Of each daemon what was fatal, or else the last it said."""
        said = []
        for name in self._daemons:
            lines = (self.folder / f"{name}.out").read_text(errors="replace").splitlines()
            said.append(f"{name}: {([line for line in lines if 'fatal' in line] or lines or ['nothing'])[-1]}")
        return "; ".join(said)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[SlurmCluster]:
        """One that is up, and stopped in the end. Raises CannotStart."""
        if reason := cls.missing():
            raise CannotStart(reason)
        cluster = cls._started(STARTS)
        try:
            yield cluster
        finally:
            cluster.stop()

    @classmethod
    def _started(cls, tries: int) -> SlurmCluster:
        cluster = cls()
        try:
            cluster.start()
            return cluster
        except BaseException as error:
            cluster.stop()
            if tries > 1 and isinstance(error, CannotStart):
                return cls._started(tries - 1)
            raise

    def start_node(self, node: str) -> None:
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._daemon(node, "slurmd", "-D", "-N", node)

    def stop_node(self, node: str) -> None:
        """Its daemon alone; what runs there goes on."""
        self._daemons[node].terminate()
        self._daemons[node].wait()

    def lose_python(self, node: str) -> bool:
        """From now on nothing that this node starts finds the tests' Python. False where that takes rights that aren't
        there. Its file is covered for this node's daemon alone."""
        python = shlex.quote(str(Path(sys.executable).resolve()))
        apart = ("unshare", "--mount", "--propagation=private", "sh", "-c")
        cover = f"mount --bind /dev/null {python}"
        if subprocess.run([*apart, cover], capture_output=True).returncode:
            return False
        self.stop_node(node)
        self._daemon(node, *apart, f"{cover} && exec slurmd -D -N {node}")
        return True

    def kill_node(self, node: str) -> None:
        """As if its power had failed: the daemon and all that ran on it, and the controller is told."""
        self._daemons[node].kill()
        self._daemons[node].wait()
        ran = self.processes(f"SLURMD_NODENAME={node}")
        for pid in [*_step_daemons(ran), *ran]:  # first those that would still tell of the others' ends
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")

    def pause_controller(self, seconds: float) -> None:
        """It answers nobody for a while."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def saved_state(self) -> Path:
        """A copy of all that the controller knows now. It saves that as it ends in order; while it goes on, what it has
        saved may be seconds old, and have jobs of an earlier test at work."""
        controller = self._daemons["slurmctld"]
        controller.terminate()
        controller.wait(240)
        copy = Path(shutil.copytree(self.folder / "state", Path(tempfile.mkdtemp(dir=self.folder)) / "state"))
        self._daemon("slurmctld", "slurmctld", "-D")
        self.wait_for(self.answers, 60, "the controller")
        return copy

    def restart_controller(self, seconds: float, state: Path | None = None) -> None:
        """Killed, and after a while started from the state that it saved, or from one of before."""
        self._daemons["slurmctld"].kill()
        self._daemons["slurmctld"].wait()
        if state:
            shutil.rmtree(self.folder / "state")
            shutil.copytree(state, self.folder / "state")
        time.sleep(seconds)
        self._daemon("slurmctld", "slurmctld", "-D")
        self.wait_for(self.answers, 60, "the controller")

    def answers(self) -> bool:
        return "UP" in self.run("scontrol", "ping", check=False)

    def _daemon(self, name: str, *command: str) -> None:
        log = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115 (the daemon's)
        self._daemons[name] = subprocess.Popen(
            command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
        )

    def stop(self) -> None:
        """Every daemon and every process of a job. Nothing is left, also after a second call."""
        atexit.unregister(self.stop)
        if not self.folder.exists():
            return
        with suppress(subprocess.SubprocessError, OSError, RuntimeError):
            if "slurmctld" in self._daemons and self._daemons["slurmctld"].poll() is None:
                user = f"--user={os.getuid()}"
                self.run("scancel", "--full", "--signal=KILL", "--state=RUNNING", user, timeout=10, check=False)
                self.run("scancel", user, timeout=10, check=False)
                self.wait_idle(20)
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self, *marks: str) -> list[int]:
        """What runs under this cluster's configuration: daemons, steps, jobs; `marks` narrow it by environment, each a
        variable's name, or NAME=VALUE."""
        wanted = {mark.encode() for mark in (f"SLURM_CONF={self.folder}/slurm.conf", *marks)}
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
                named = {*environment, *(variable.partition(b"=")[0] for variable in environment)}
                if wanted <= named and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found

    def kill(self, *marks: str) -> None:
        """All at once, as far as they are there still: one's end may be another's."""
        for pid in self.processes(*marks):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, *command: str, timeout: float = 240, check: bool = True) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-h", "-N", "-p", "h100", "-o", "%N %T", check=False).split("\n")
        return dict(line.split() for line in lines if line.strip())

    def squeue(self, fields: str = "%i %j %T", *options: str) -> list[list[str]]:
        """Asked until there is an answer: none isn't an empty queue."""
        command, deadline = ("squeue", "-h", "-r", "-o", fields, *options), time.monotonic() + LOADED * 60
        while True:
            done = subprocess.run(command, env=self.env, capture_output=True, text=True)
            if done.returncode == 0 or "Invalid job id" in done.stderr:  # a job that is long over
                return [line.split() for line in done.stdout.split("\n") if line.strip()]
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command}: {done.stderr}")
            time.sleep(0.2)

    def wait_for(self, happened: Callable[[], object], timeout: float, what: str) -> None:
        """`timeout` is what a machine at leisure needs at most, in seconds."""
        deadline = time.monotonic() + LOADED * timeout
        while not happened():
            if time.monotonic() > deadline:
                queue = self.run("squeue", "-h", "-r", "-o", "%i %j %T %r %N", check=False).splitlines()
                raise TimeoutError(f"not within {LOADED * timeout:.0f} s: {what}; the queue: {queue}")
            time.sleep(0.2)

    def end_soon(self, array: str) -> None:
        """Its tasks come near their time limit now, however long it took them to be at work. Slurm looks at the clock
        every 30 s and signals one look early: with a signal a minute before the end it comes within 90 s, and leaves
        a minute."""
        for job, start in self.squeue("%i %S", f"--jobs={array}", "--states=RUNNING"):
            seconds = (datetime.now() - datetime.fromisoformat(start)).total_seconds()
            self.run("scontrol", "update", f"jobid={job}", f"TimeLimit={math.ceil((seconds + 90) / 60)}")

    def wait_idle(self, timeout: float) -> None:
        self.wait_for(lambda: not self.squeue(), timeout, "an empty queue")

    def wait_kept(self, log: Path) -> None:
        """Until the guard of a launch, which writes this log, has seen its jobs: those that are held it lets go."""
        self.wait_for(lambda: log.exists() and "knows the jobs" in log.read_text(), 120, "the guard's last word")

    def hurry(self) -> None:
        """Slurm lets a requeued job wait two minutes; tests don't."""
        for job, state in self.squeue("%i %T", "--state=PENDING"):
            if state == "PENDING":
                self.run("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)

    def wait_hurried(self, timeout: float) -> None:
        def idle() -> bool:
            self.hurry()
            return not self.squeue()

        self.wait_for(idle, timeout, "an empty queue")

    def resume(self) -> None:
        """Whichever node is down or drained by now: one may be so long after what did it."""
        for node, state in self.states().items():
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)

    def clear(self) -> None:
        """As before the first job."""

        def is_clear() -> bool:
            self.resume()
            return not self.squeue() and self.states() == dict.fromkeys(NODES, "idle")

        self.run("scancel", f"--user={os.getuid()}", check=False)
        self.wait_for(is_clear, 120, "an empty queue and both nodes idle")


def _step_daemons(pids: Iterable[int]) -> set[int]:
    """The slurmstepd above each of these processes; its own environment doesn't name the node."""
    parents = set()
    for pid in pids:
        with suppress(OSError):
            parents.add(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))
    found = set()
    for parent in parents:
        with suppress(OSError):
            if Path(f"/proc/{parent}/comm").read_text().strip() == "slurmstepd":
                found.add(parent)
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
