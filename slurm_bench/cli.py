"""Words typed → verbs. Progress and complaints go to stderr, results to stdout."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slurm_bench import __version__, verbs
from slurm_bench.cluster.interrupts import remembered
from slurm_bench.command import EXECUTORS, SLURM_OPTIONS, command, program
from slurm_bench.errors import COMPLETE, INTERRUPTED, USER_ERROR, UserError, storage_problem
from slurm_bench.export import FORMATS
from slurm_bench.logs import log_to_stderr
from slurm_bench.terminal import one_line, stop_printing, take_any_character
from slurm_bench.usage import Once, Parser, Several, at_home, refuse_no_setting
from slurm_bench.verbs import DEFAULT_MODEL, FORECAST_GPUS


@dataclass(frozen=True)
class Verb:
    """What `python launch.py NAME` does, and the options that it takes beside `--help` and `--version`."""

    help: str
    act: Callable[[argparse.Namespace], int]
    add_options: Callable[[argparse.ArgumentParser], None]


def main(words: Sequence[str] | None = None) -> int:
    take_any_character()
    try:
        with remembered():
            code = _act(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program()}: {one_line(str(error))}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:  # whoever read it has seen enough
        stop_printing()
        return COMPLETE
    except RuntimeError as error:
        if "Symlink loop" not in str(error):  # pathlib's words
            raise
        print(f"{program()}: {one_line(str(error))}; name another folder", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if error.errno is None:
            raise
        problem = storage_problem(error)
        if not _in_a_folder():
            problem = "the folder that you are in is gone; cd to another one; then type the same again"
        elif not isinstance(error, FileNotFoundError):  # of what isn't there no mend is known
            problem += "; then type the same again"
        print(f"{program()}: {one_line(problem)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{program()}: interrupted; nothing that was done is lost", file=sys.stderr)
        return INTERRUPTED


def _act(words: list[str]) -> int:
    name = words.pop(0) if words and words[0] in VERBS else "run"
    parser = _parser(name)
    if words and not words[0].startswith("-") and name == "run":
        refuse_no_setting(parser, words[0], VERBS)
    options = parser.parse_intermixed_args(words)
    for word in getattr(options, "overrides", ()):
        refuse_no_setting(parser, word, VERBS)
    log_to_stderr()
    return VERBS[name].act(options)


def _in_a_folder() -> bool:
    """False where the shell's own was deleted."""
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _parser(name: str) -> Parser:
    listed = "".join(f"  {verb:9} {what.help}\n" for verb, what in VERBS.items())
    parser = Parser(
        prog=command() if name == "run" else command(name),
        description=f"verbs:\n{listed}\n{name}: {VERBS[name].help}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"slurm_bench {__version__}")
    VERBS[name].add_options(parser)
    parser.verbs_with = _verbs_with
    return parser


def _verbs_with(option: str) -> list[str]:
    parsers = {verb: argparse.ArgumentParser() for verb in VERBS}
    for verb, parser in parsers.items():
        VERBS[verb].add_options(parser)
    return [verb for verb, parser in parsers.items() if option in parser._option_string_actions]


def _run_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=at_home, metavar="RUN", help="the run folder")


def _report_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--single-file", action="store_true", help="the page as one file too, to be sent")
    parser.add_argument(
        "--prompts", action="store_true", help="what the judges were asked, word for word, as a file too"
    )
    parser.add_argument(
        "--marks", type=at_home, metavar="FILE", help="people's, a CSV with id and mark: the judge is held against them"
    )
    parser.add_argument(
        "--width", type=float, metavar="X", help="with --marks: how many marks would give an interval as narrow"
    )


def _status_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--watch", action="store_true", help="until the run is over; ends with its exit code")
    parser.add_argument("--json", action="store_true", help="for programs")


def _json_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=at_home,
        action=Once,
        metavar="FILE",
        help="default: default.yaml, a bundled one; so is demo.yaml",
    )
    parser.add_argument("--run-dir", type=at_home, metavar="DIR", help="new, or a run to go on with")
    parser.add_argument(
        "--reuse", type=at_home, metavar="RUN", help="take over what an earlier run made of the same samples"
    )
    _submit_options(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like",
        type=at_home,
        metavar="RUN",
        help="to tell the time by: an earlier run, or a file of `bench --json`; default: what is found that was alike",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    _run_options(parser)


def _resubmit_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    _submit_options(parser)


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=at_home,
        nargs="+",
        action=Several,
        metavar="RUN",
        help="two run folders or more; each against the first",
    )
    parser.add_argument("--score", metavar="NAME", help="default: the first run's headline")
    parser.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help='"no difference" means: none is seen, and the whole interval lies within X (default: 5 %% of the scale)',
    )
    parser.add_argument("--images", action="store_true", help="how far the edited images are apart: PSNR and SSIM")
    parser.add_argument("--html", type=at_home, metavar="DIR", help="a page there too: all pictures in step")
    parser.add_argument("--single-file", action="store_true", help="with --html: the page as one file too, to be sent")
    parser.add_argument("--force", action="store_true", help="also where judge, rubrics or scale differ")
    parser.add_argument(
        "--judge", type=at_home, metavar="FILE", help="by pairs of images instead of scores: who is asked, and how"
    )
    parser.add_argument("--out", type=at_home, metavar="DIR", help="of --judge: where its judgements are kept")
    parser.add_argument("--json", action="store_true", help="for programs")


def _export_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    layouts = "; ".join(f"{name}: {layout}" for name, layout in FORMATS.items())
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="NAME", help=layouts)
    parser.add_argument("--out", required=True, type=at_home, metavar="DIR", help="new, or one of an earlier export")
    parser.add_argument("--model", metavar="NAME", help="as the layout names it; default: the run folder's name")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny runs on a CPU in seconds")
    parser.add_argument(
        "--model",
        metavar="NAME",
        default=DEFAULT_MODEL,
        help=f"to edit with: {DEFAULT_MODEL} (default), qwen-image-2.1",
    )
    parser.add_argument("--profiles", metavar="A,B", help="of the editor; default: all that can run here")
    parser.add_argument("--parts", metavar="A,B", help="what is measured: editing, batches, scoring; default: all")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help=f"for the forecast (default: {FORECAST_GPUS}), or to run on"
    )
    parser.add_argument("--run", type=at_home, metavar="DIR", help="a whole run on checkpoints written to DIR, 75 GB")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="of that run (default: local)")
    parser.add_argument("--memory", metavar="GIB,…", help="an edit under such caps of GPU memory, like 22,30,38")
    parser.add_argument("--checkpoints", type=at_home, metavar="DIR", help="for --memory, written there once: 58 GB")
    parser.add_argument("--kernels", action="store_true", help="where a forward's milliseconds go")
    parser.add_argument("--json", action="store_true", help="for programs")


def _submit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--executor", choices=EXECUTORS, help="default: slurm where sbatch is, else local")
    parser.add_argument("--gpus", type=int, metavar="N", help="tasks to edit with, one GPU each")
    parser.add_argument("--score-gpus", type=int, metavar="N", help="tasks to score with")
    parser.add_argument("--slices", type=int, metavar="S", help="tasks to edit with, of which --gpus work at once")
    parser.add_argument("--parallel", type=int, metavar="K", help="tasks that may work at once (Slurm: --array=…%%K)")
    parser.add_argument("--pack", type=int, metavar="P", help="tasks that share a job on one node, with P GPUs for it")
    parser.add_argument("--strict", action="store_true", default=None, help="score only if every task succeeded")
    parser.add_argument("--wait", action="store_true", help="stay until the run has ended, with progress")
    parser.add_argument("--force", action="store_true", help="go on under another configuration, or beside live jobs")
    for option in SLURM_OPTIONS:
        shown = "of Slurm; so are --account, --time and others" if option == "partition" else argparse.SUPPRESS
        parser.add_argument(f"--{option}", metavar="X", help=shown)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any setting; slurm.<option>=x for sbatch")


VERBS = {
    "run": Verb(
        "edit, score and report (the default verb); on an existing run folder, what is missing",
        verbs.run,
        _run_options,
    ),
    "plan": Verb(
        "what would be submitted, and what it would take; submits and writes nothing", verbs.plan, _plan_options
    ),
    "rewrite": Verb(
        "rewrite the instructions here and now; plans the run and submits nothing", verbs.rewrite, _run_options
    ),
    "status": Verb("how far it is, by stage and task, and what it waits for", verbs.status, _status_options),
    "explain": Verb("why did what fail or wait, and what to type next", verbs.explain, _json_options),
    "resubmit": Verb("submit again what is missing, on any number of GPUs", verbs.resubmit, _resubmit_options),
    "score": Verb("judge again, or by another scorer too; edits nothing", verbs.score, _resubmit_options),
    "verify": Verb("every image against its record; what is lost will be made again", verbs.verify, _json_options),
    "cancel": Verb("cancel a run's jobs, or stop its local launcher", verbs.cancel, _run_folder),
    "report": Verb("make the report again from the records", verbs.report, _report_options),
    "compare": Verb("is one run better than another, sample by sample", verbs.compare, _compare_options),
    "export": Verb("the edited images as a benchmark's own scorer reads them", verbs.export, _export_options),
    "bench": Verb("what this GPU can do, measured without any weights", verbs.bench, _bench_options),
}
