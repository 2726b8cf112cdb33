"""What sbatch is asked for. Pure, so that it can be read, printed and tested without a cluster."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.config import Config
from slurm_bench.errors import UserError

# Options of ours beside Slurm's own; what isn't here goes to sbatch as `--option=value`.
OURS = ("setup", "signal_delay_s", "array_parallelism", "python", "srun_args")
WHOLE_NUMBERS = {"signal_delay_s": 0, "array_parallelism": 1}  # of ours, and the least that each may be
# By these a run finds its jobs, tells them to stop in time, and reads what they said.
RESERVED = ("array", "job_name", "output", "error", "signal", "wait", "wrap", "test_only", "parsable", "quiet", "hold")
# srun starts a job's process so many times, and each would do all of it.
ONCE = ("nodes", "ntasks", "ntasks_per_node", "ntasks_per_gpu")
GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")
SIGNAL_DELAY = 90
# submitit would ask for five minutes and a wckey of its own: what nobody has typed is left to the cluster.
UNASKED = {"time": None, "wckey": None}
# Into the job's log before anything may go wrong: which node it was that failed (watch/job_logs.py reads it).
NODE_LINE = 'echo "job $SLURM_JOB_ID on node $SLURMD_NODENAME" >&2'


def check_options(config: Config, known: Sequence[str]) -> None:
    """Before anything starts. `known` are the cluster's options: what isn't one of them but near to one is mistyped,
    other names are left to sbatch, which has more than it lists. Raises UserError."""
    for section in ("slurm", "score_slurm"):
        for name, value in getattr(config, section).items():
            option, key = name.replace("-", "_"), f"{section}.{name}"
            if option in RESERVED:
                raise UserError(f"'{key}': the run sets this itself, to find and follow its jobs; leave it out")
            if option in ONCE and str(value) not in ("1", "1-1", "None"):
                raise UserError(
                    f"'{key}' is '{value}': a job is one process on one node, and srun would start so many that do the "
                    "same; for more tasks say --gpus N, for several of them in a job --pack P"
                )
            if option == "srun_args":
                _words(value, key)
            least = WHOLE_NUMBERS.get(option)
            if least is not None and value is not None and (not str(value).isdecimal() or int(value) < least):
                raise UserError(f"'{key}' is '{value}'; it must be a whole number, at least {least}")
            names = [*known, *OURS]
            close = [] if option in names or not known else difflib.get_close_matches(option, names, n=1, cutoff=0.8)
            if close:
                raise UserError(f"'{key}': sbatch has no such option; did you mean '{section}.{close[0]}'?")


def _words(said: Any, key: str) -> list[str]:
    """A line as a shell would cut it, or a list as it is. Raises UserError."""
    try:
        return shlex.split(said) if isinstance(said, str) else list(map(str, said or []))
    except ValueError as error:
        raise UserError(f"'{key}' is {said!r}: {error}") from None


def starts_of(config: Config) -> list[Any]:
    """The options that decide whether a job comes as far as Python: where a person has changed one, what failed before
    may have been that."""
    sections = (config.slurm, config.score_slurm)
    return [section.get(key) for section in sections for key in ("setup", "python", "srun_args", "export")]


def gpus_of(options: Mapping[str, Any]) -> int:
    """How many GPUs these options of sbatch ask for: `gres: gpu:h100:4` and `gpus: 4` for 4 each. 1 where they say
    nothing, as we ask for one then."""
    flags = {key.replace("-", "_"): str(value) for key, value in options.items()}
    counts = [1]
    for key in GPU_OPTIONS:
        asked = [part for part in flags.get(key, "").split(",") if key != "gres" or part.startswith("gpu:")]
        numbers = [part.rpartition(":")[2] for part in asked]
        counts.append(sum(int(number) for number in numbers if number.isdecimal()))
    return max(counts)


def check_folder(root: Path) -> None:
    """Raises UserError where a batch script can't name this run folder: sbatch reads options line by line, and drops
    backslashes from the paths of logs."""
    for character, name in (("\n", "a line break"), ("\r", "a line break"), ("\\", "a backslash")):
        if character in str(root):
            raise UserError(f"{root}: sbatch can't be told a path with {name} in it; choose another --run-dir")


def sbatch_parameters(
    options: Mapping[str, Any],
    *,
    job_name: str,
    python_path: str,
    gpus: int = 1,
    at_once: int = 1,
    exclude: Sequence[str] = (),
) -> dict[str, Any]:
    """Parameters for submitit's SlurmExecutor, and `python`, its own argument, where that is set. `options` is the
    configuration's `slurm`, `gpus` what each job asks for, `at_once` how many jobs of an array may run. srun stays in
    between: without it the warning signal never reaches Python."""
    flags = {key.replace("-", "_"): value for key, value in options.items() if value is not None}
    ours = {key: flags.pop(key) for key in OURS if key in flags}
    if not any(key in flags for key in GPU_OPTIONS):
        flags["gres"] = f"gpu:{gpus}"
    if exclude:
        flags["exclude"] = ",".join([*([flags["exclude"]] if "exclude" in flags else []), *exclude])
    python, setup, srun_args = ours.get("python"), ours.get("setup") or [], ours.get("srun_args")
    parameters: dict[str, Any] = {
        "job_name": job_name,
        **UNASKED,
        "signal_delay_s": int(ours.get("signal_delay_s", SIGNAL_DELAY)),
        "array_parallelism": min(at_once, int(ours.get("array_parallelism", at_once))),
        "setup": [
            NODE_LINE,
            f"export PYTHONPATH={shlex.quote(python_path)}${{PYTHONPATH:+:$PYTHONPATH}}",
            *([setup] if isinstance(setup, str) else setup),
        ],
        "additional_parameters": {key.replace("_", "-"): value for key, value in flags.items() if value is not False},
    }
    words = _words(srun_args, "srun_args")
    if "cpus_per_task" in flags:  # since Slurm 22.05 srun doesn't take it over from sbatch
        words = [f"--cpus-per-task={flags['cpus_per_task']}", *words]
    if "export" in flags:  # the batch script's own environment, which srun would hold back too
        words = ["--export=ALL", *words]
    return parameters | ({"srun_args": words} if words else {}) | ({"python": python} if python else {})
