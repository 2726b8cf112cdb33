"""The kinds of fault, each told by its symptom and said with its mend. A new one is one entry of KINDS."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from slurm_bench.run.journal import FAILED, LOST, REFUSED, STOPPED
from slurm_bench.watch.signs import (
    Test,
    any_of,
    at,
    crowded,
    died,
    ended,
    every,
    left,
    no,
    says,
    signalled,
    slurm_says,
    waits,
)
from slurm_bench.watch.symptoms import Symptom

# What to type next, filled in by explain.py. Where the run is still at work, most kinds need nothing but patience.
RESUBMIT, WATCH = "{resubmit}", "{watch}"


@dataclass(frozen=True)
class Kind:
    """`says` is the cause in words, with `{detail}`, `{job}` and `{node}` of its symptoms. `now` says that its line is
    typed also while the run is at work. Symptoms are one cause where they have the same detail but for its numbers;
    `together` says that the kind is enough."""

    name: str
    test: Test
    says: str
    next: str = RESUBMIT
    now: bool = False
    together: bool = False


# A process, or a sample that was given up because of its processes.
DIED = at("process", "requeued", "sample", "systematic")
NODE_FAILED = slurm_says("NODE[ _]FAIL|NodeDown|node broken|BootFail|BOOT_FAIL")
ASKED = slurm_says("DUE TO JOB REQUEUE")  # by a person, who typed `scontrol requeue`

# By a person, a terminal or Slurm, to end.
TOLD = left(-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGQUIT)

# The first that fits is the one.
KINDS = (
    Kind(
        "not_submitted",
        every(at("launcher"), says("^void$")),
        "nothing of it was submitted, as sbatch refused it or its launcher was interrupted: {detail}",
    ),
    Kind(
        "launcher_died",
        at("launcher"),
        "the launcher died before it had submitted everything, and nothing of it ever began: {detail}",
    ),
    Kind(
        "never_submitted", every(at("finish"), says("^no attempt$")), "it was planned, and nothing was ever submitted"
    ),
    Kind(
        "strict",
        every(at("finish"), says("^strict")),
        "strict: not every image is there, so none was scored; what failed is said beside this",
    ),
    Kind(
        "dependency_never_satisfied",
        waits("DependencyNeverSatisfied"),
        "job {job} waits for another that did not end as it asks, and would wait for ever",
        "{cancel} && {resubmit}",
        now=True,
    ),
    Kind(
        "nothing_follows",
        at("unfollowed"),
        "the array is in the queue, but no job that would go on after it, and none will score or report: {detail}",
        "{watch}; {resubmit}",
        now=True,
    ),
    Kind(
        "held",
        waits("held"),
        "job {job} is held ({detail}), and stays so until somebody lets it go",
        "scontrol release {job}",
        now=True,
    ),
    Kind(
        "suspended",
        waits("^SUSPENDED$"),
        "job {job} is suspended, by a person or for another job, and does nothing until it is resumed: {detail}",
        "scontrol show job {job}",
        now=True,
    ),
    Kind(
        "pending_partition_down",
        waits("Partition(Down|Inactive)"),
        "job {job} waits: its partition is down ({detail}); wait for it, or cancel and ask for another",
        "sinfo --format='%P %a %l %D %T'",
        now=True,
    ),
    Kind(
        "pending_partition_time_limit",
        waits("PartitionTimeLimit"),
        "job {job} asks for more time than its partition gives, and would wait for ever; cancel it, and resubmit with "
        "a shorter --time, or another --partition",
        "sinfo --format='%P %a %l %D %T'",
        now=True,
    ),
    Kind(
        "pending_qos",
        waits("QOS|Assoc|Account"),
        "job {job} waits for a limit of its QOS or account ({detail})",
        WATCH,
    ),
    Kind(
        "pending_resources",
        waits("Resources|Priority|Nodes|Reserv|Licenses|JobArrayTaskLimit"),
        "job {job} waits for its turn ({detail})",
        WATCH,
    ),
    Kind(
        "run_moved",
        says("StorageFailed: FileNotFoundError"),
        "its jobs look for the run where it was launched: {detail}. Cancel a run before it is moved; what has a record "
        "has its image",
        together=True,
    ),
    Kind(
        "too_many_files",
        every(no(at("sample")), says(r"Too many open files|Errno 2[34]\b")),
        "the process may open no more files (its plug-in leaves them open, or `ulimit -n` is low): {detail}",
        together=True,
    ),
    Kind(
        "disk_full",
        says(r"No space left|Disk quota|StorageFailed|Errno (28|122|30)\b"),
        "the disk is full, or can't be written: {detail}. Make room first; what has a record has its image",
        together=True,
    ),
    Kind(
        "lost_gpu",
        any_of(ended(LOST), says("GpuLost|LostGpu")),
        "the GPU could not be used any more: {detail}",
        together=True,
    ),
    Kind(
        "bad_node",
        at("node"),
        "node {node} fails what others pass ({detail}); the next attempt leaves it out",
        "{resubmit} --exclude {node}",
        together=True,
    ),
    Kind(
        "server_never_up",
        every(at("process"), says("judge's server never came up")),
        "no sample was asked about, as what `serve` starts didn't come up: {detail}. Type that command on such a node",
    ),
    Kind(
        "plugin_import",
        every(at("process"), says(r"cannot import|no module|ModuleNotFoundError|ImportError|class_path'")),
        "a plug-in could not be imported where the task ran: {detail}",
    ),
    Kind(
        "refused",
        ended(REFUSED),
        "the plug-in says that it can't work as things are, so it wasn't tried again: {detail}",
    ),
    Kind(
        "crash",
        any_of(left(-11, -7, -4, -8, -6, 139, 134, 135), died("killed by SIG(SEGV|BUS|ILL|FPE|ABRT)")),
        "the process crashed in native code: {detail}",
        together=True,
    ),
    Kind(
        "gpu_in_use",
        every(at("sample", "systematic", "process"), crowded()),
        "other processes held the GPU's memory: {detail} `nvidia-smi` on node {node} says whose they are: end them, or "
        "leave the node out (--exclude)",
        together=True,
    ),
    Kind(
        "cuda_out_of_memory",
        any_of(
            every(at("sample", "systematic", "process"), says(r"(CUDA|HIP).{0,20}out of memory|OutOfMemoryError")),
            every(at("sample", "systematic", "process"), says("(cublas|cudnn)_status_alloc_failed")),
        ),
        "the GPU's memory was not enough, even for one sample at a time: {detail}. Ask for a larger GPU, or for "
        "settings that need less",
    ),
    Kind(
        "host_out_of_memory",
        any_of(
            slurm_says(r"(?i)OUT[ _]OF[ _]MEMORY|OutOfMemory|oom[-_]kill|OOM Killed|exceeded [a-z ]*memory limit"),
            every(DIED, any_of(left(137), says("MemoryError|exit code 137"))),
        ),
        "the host's memory was not enough: {detail}. Ask for more (--mem), or for fewer loads at once",
        together=True,
    ),
    Kind(
        "time_limit",
        any_of(slurm_says("TIME LIMIT|TIMEOUT|TimeLimit"), signalled("SIGUSR2"), left(-signal.SIGUSR2)),
        "its time was over: {detail}. What is done is kept",
        together=True,
    ),
    Kind(
        "preempted",
        any_of(slurm_says("PREEMPT"), every(at("requeued"), signalled("SIGTERM"), no(NODE_FAILED), no(ASKED))),
        "preempted by another job; Slurm starts a requeued task again after some two minutes: {detail}",
        WATCH,
        together=True,
    ),
    Kind(
        "node_failed",
        NODE_FAILED,
        "node {node} failed under it: {detail}",
        together=True,
    ),
    Kind(
        "requeued",
        any_of(at("requeued"), waits("BeginTime")),
        "Slurm will start it again: {detail}",
        WATCH,
        together=True,
    ),
    Kind(
        "sigkill",
        any_of(left(-9), died("killed by SIGKILL")),
        "something killed the process (SIGKILL): a person, or the kernel where the host's memory ran out: {detail}",
        together=True,
    ),
    Kind(
        "exit_words",
        says(r"called sys\.exit|SystemExit"),
        "the plug-in gave up by itself, in its own words: {detail}",
    ),
    Kind(
        "exit_code",
        any_of(
            every(no(TOLD), lambda symptom: symptom.end is None and symptom.exit is not None),
            died("left with exit code|killed by SIG"),
        ),
        "the process ended without a word of its own: {detail}",
    ),
    Kind(
        "service_down",
        every(at("process"), ended(STOPPED), no(signalled())),
        "a service that the plug-in needs is down, or refuses: {detail}. No sample was failed for it",
    ),
    Kind(
        "cancelled",
        any_of(slurm_says("CANCELLED"), ended(STOPPED), TOLD),
        "it was stopped by somebody, a person or Slurm: {detail}",
        together=True,
    ),
    Kind(
        "systematic",
        any_of(at("systematic"), says("SystematicFailure")),
        "every sample fails alike, so it is none of theirs: {detail}",
    ),
    Kind(
        "not_loaded",
        ended(FAILED),
        "the task could not begin, or go on: {detail}",
    ),
    Kind(
        "died_before_python",
        any_of(every(at("unborn"), says(r"\S")), every(at("finish"), lambda symptom: symptom.node != "")),
        "the job ended before the work could begin (a setup line, the environment, srun, or its node): {detail}. The "
        "next attempt leaves out a node on which nothing else came right",
        together=True,
    ),
    Kind("never_started", at("unborn"), "the task never began, and has no log: {detail}", together=True),
    Kind(
        "killed_with_its_job",
        at("process"),
        "the process ended without a word, and its supervisor too: {detail}",
        together=True,
    ),
    Kind("stuck", at("stuck"), "at work, but silent: {detail}", "tail -n 20 {log}", now=True, together=True),
    Kind("sample_fault", at("sample"), "the sample itself fails: {detail}"),
    Kind(
        "lost_image",
        at("lost"),
        "an edited image is gone, or isn't what was recorded; it will be made again: {detail}",
        together=True,
    ),
    Kind(
        "mixed_makers",
        at("mixed"),
        "not counted, as another plug-in than the configured one made them: {detail}",
        "{report}",
        now=True,
    ),
    Kind("pending", at("waiting"), "job {job} waits: {detail}", "scontrol show job {job}", now=True),
    Kind("nobody", at("finish"), "nobody goes on with the run; what should have done so has ended: {detail}"),
)


def kind_of(symptom: Symptom) -> Kind:
    return next(kind for kind in KINDS if kind.test(symptom))
