"""Words typed → verbs. Progress and complaints go to stderr, results to stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slurm_bench import __version__
from slurm_bench.command import command, program
from slurm_bench.errors import UserError
from slurm_bench.logs import log_to_stderr

if TYPE_CHECKING:
    from slurm_bench.run.plan import Sample

EXECUTORS = ("slurm", "local", "debug")
SLURM_OPTIONS = (
    "partition",
    "account",
    "qos",
    "time",
    "constraint",
    "exclude",
    "nodelist",
    "reservation",
    "mem",
)

VERBS = {
    "run": "edit, score and report (the default verb); on an existing run folder, what is missing",
    "status": "counts by stage and task",
    "resubmit": "submit again what is missing, on any number of GPUs",
    "cancel": "cancel a run's jobs, or stop its local launcher",
    "report": "make the report again from the records",
    "bench": "what this GPU can do, measured without any weights",
}


def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    verb = words.pop(0) if words and words[0] in VERBS else "run"
    options = _parser(verb).parse_intermixed_args(words)
    log_to_stderr()
    try:
        return int(globals()[verb](options))
    except UserError as error:
        print(f"{program()}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"{program()}: interrupted; nothing that was done is lost, type the same again to go on",
            file=sys.stderr,
        )
        return 130


def run(options: argparse.Namespace) -> int:
    from slurm_bench.bundled import bundled, here_or_bundled
    from slurm_bench.cluster.launch import choose_executor, launch
    from slurm_bench.config import load_config
    from slurm_bench.data import read_items
    from slurm_bench.plugins import check_plugins
    from slurm_bench.run.create import make_run_dir, new_run_dir, settle_config, settle_plan
    from slurm_bench.run.layout import RunDir

    stored = RunDir(options.run_dir.resolve()).config if options.run_dir else None
    default = stored if stored and stored.exists() else bundled("default.yaml")
    file = here_or_bundled(options.config) if options.config else default
    config = load_config(file, _overrides(options))
    executor = choose_executor(config.executor)
    models = check_plugins(config)
    run_dir = make_run_dir(options.run_dir or new_run_dir(file.stem))
    config = settle_config(run_dir, config, options.force)
    samples = settle_plan(run_dir, config, read_items(config.data), models)
    _warn(sample for sample in samples if sample.problem)
    return launch(run_dir, executor, force=options.force, wait=options.wait)


def resubmit(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.launch import choose_executor, launch
    from slurm_bench.config import load_config
    from slurm_bench.plugins import check_plugins
    from slurm_bench.run.create import open_run, settle_config

    run_dir = open_run(options.run)
    config = load_config(run_dir.config, _overrides(options))
    executor = choose_executor(config.executor)
    check_plugins(config)
    settle_config(run_dir, config, options.force)
    return launch(run_dir, executor, force=options.force, wait=options.wait)


def status(options: argparse.Namespace) -> int:
    from slurm_bench.config import load_config
    from slurm_bench.run.create import open_run
    from slurm_bench.run.plan import read_plan
    from slurm_bench.watch.status import render_status, status_of

    run_dir = open_run(options.run)
    config, samples = load_config(run_dir.config), read_plan(run_dir)
    while True:
        found = status_of(run_dir, config, samples)
        if options.watch and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        print(json.dumps(found) if options.json else render_status(found), flush=True)
        if not options.watch or not found["counts"]["missing"]:
            return 0
        time.sleep(2)


def cancel(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.cancel import cancel_run
    from slurm_bench.run.create import open_run

    for line in cancel_run(open_run(options.run)) or ["nothing of this run is at work"]:
        print(line)
    return 0


def report(options: argparse.Namespace) -> int:
    from slurm_bench.config import load_config
    from slurm_bench.report.write import print_summary, write_report
    from slurm_bench.run.create import open_run
    from slurm_bench.run.plan import read_plan
    from slurm_bench.run.records import read_state

    run_dir = open_run(options.run)
    config = load_config(run_dir.config)
    counts = write_report(run_dir, config, read_state(run_dir, read_plan(run_dir), config.scorers))["counts"]
    print_summary(run_dir)
    return 0 if counts["scored"] == counts["planned"] else 3


def bench(options: argparse.Namespace) -> int:
    from slurm_bench.bench.run import run_bench

    if options.gpus < 1:
        raise UserError(f"--gpus {options.gpus}: it must be at least 1")
    profiles = options.profiles.split(",") if options.profiles else None
    results = run_bench(options.size, profiles, options.gpus, options.kernels)
    if options.json:
        print(json.dumps(results))
        return 0
    from rich.console import Console

    from slurm_bench.bench.table import render

    render(results, Console(width=None if sys.stdout.isatty() else 140))
    return 0


def _parser(verb: str) -> argparse.ArgumentParser:
    verbs = "".join(f"  {name:9} {what}\n" for name, what in VERBS.items())
    parser = argparse.ArgumentParser(
        prog=command() if verb == "run" else command(verb),
        description=f"verbs:\n{verbs}\n{verb}: {VERBS[verb]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"slurm_bench {__version__}")
    if verb not in ("run", "bench"):
        parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    if verb == "status":
        parser.add_argument("--watch", action="store_true", help="again and again, until nothing is missing")
        parser.add_argument("--json", action="store_true", help="for programs")
    if verb in ("run", "resubmit"):
        _add_submit_options(parser, verb)
    if verb == "bench":
        parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny runs on a CPU in seconds")
        parser.add_argument("--profiles", metavar="A,B", help="of the editor; default: all that can run here")
        parser.add_argument("--gpus", type=int, default=6, metavar="N", help="for the forecast (default: 6)")
        parser.add_argument("--kernels", action="store_true", help="where a forward's milliseconds go")
        parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _add_submit_options(parser: argparse.ArgumentParser, verb: str) -> None:
    if verb == "run":
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="default: default.yaml, a bundled one; so is demo.yaml"
        )
        parser.add_argument("--run-dir", type=Path, metavar="DIR", help="new, or a run to go on with")
    parser.add_argument("--executor", choices=EXECUTORS, help="default: slurm where sbatch is, else local")
    parser.add_argument("--gpus", type=int, metavar="N", help="tasks to edit with, one GPU each")
    parser.add_argument("--score-gpus", type=int, metavar="N", help="tasks to score with")
    parser.add_argument("--strict", action="store_true", default=None, help="score only if every task succeeded")
    parser.add_argument("--wait", action="store_true", help="stay until the run has ended, with progress")
    parser.add_argument("--force", action="store_true", help="go on under another configuration, or beside live jobs")
    for option in SLURM_OPTIONS:
        parser.add_argument(f"--{option}", metavar="X", help=argparse.SUPPRESS if option != "partition" else "of Slurm")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any setting; slurm.<option>=x for sbatch")


def _overrides(options: argparse.Namespace) -> list[str]:
    """Options are short for settings; a `key=value` typed beside them wins."""
    keys = ("executor", "gpus", "score_gpus")
    words = [f"{key}={getattr(options, key)}" for key in keys if getattr(options, key) is not None]
    words += ["strict=true"] if options.strict else []
    for option in SLURM_OPTIONS:
        value = getattr(options, option.replace("-", "_"))
        words += [f"slurm.{option.replace('-', '_')}={value}"] if value is not None else []
    return words + options.overrides


def _warn(troubled: Iterable[Sample]) -> None:
    lines = [f"{program()}: sample {sample.id!r} will fail: {sample.problem}" for sample in troubled]
    for line in lines[:20]:
        print(line, file=sys.stderr)
    if len(lines) > 20:
        print(f"{program()}: and {len(lines) - 20} more", file=sys.stderr)
