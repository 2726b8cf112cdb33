"""Words typed → verbs. Progress and complaints go to stderr, results to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench import __version__
from slurm_bench.command import EXECUTORS, command, program
from slurm_bench.errors import COMPLETE, INCOMPLETE, INTERRUPTED, USER_ERROR, UserError, storage_problem
from slurm_bench.export import FORMATS
from slurm_bench.logs import log_to_stderr
from slurm_bench.terminal import stop_printing, take_any_character
from slurm_bench.usage import Parser, refuse_no_setting

if TYPE_CHECKING:
    from slurm_bench.cluster.chain import Executor
    from slurm_bench.config import Config
    from slurm_bench.data.item import Item
    from slurm_bench.plugins import CheckedPlugins
    from slurm_bench.run.plan import Sample

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


@dataclass(frozen=True)
class Verb:
    """What `python launch.py NAME` does, and the options that it takes beside `--help` and `--version`."""

    help: str
    act: Callable[[argparse.Namespace], int]
    add_options: Callable[[argparse.ArgumentParser], None]


FORECAST_GPUS = 6


def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    name = words.pop(0) if words and words[0] in VERBS else "run"
    parser = _parser(name)
    if words and not words[0].startswith("-") and name == "run":
        refuse_no_setting(parser, words[0], VERBS)
    options = parser.parse_intermixed_args(words)
    for word in getattr(options, "overrides", ()):
        refuse_no_setting(parser, word, VERBS)
    log_to_stderr()
    take_any_character()
    try:
        code = VERBS[name].act(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program()}: {_one_line(str(error))}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:  # whoever read it has seen enough
        stop_printing()
        return COMPLETE
    except OSError as error:
        if error.errno is None:
            raise
        print(f"{program()}: {_one_line(storage_problem(error))}; then type the same again", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(
            f"{program()}: interrupted; nothing that was done is lost, type the same again to go on",
            file=sys.stderr,
        )
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.chain import refuse_at_work
    from slurm_bench.cluster.launch import launch
    from slurm_bench.run.create import create_run, new_run_dir
    from slurm_bench.run.opened import open_run
    from slurm_bench.run.reuse import reuse

    asked = _asked(options)
    if asked.goes_on:
        refuse_at_work(open_run(options.run_dir), options.force)
    root = options.run_dir or new_run_dir(asked.name)
    try:
        planned = create_run(root, asked.config, asked.items, asked.plugins.said, options.force)
    except BaseException:
        if not options.run_dir:  # ours, and still empty
            for folder in (root, root.parent):
                with suppress(OSError):
                    folder.rmdir()
        raise
    asked.say(planned.samples)
    if options.reuse:
        print(f"reused    {reuse(planned, open_run(options.reuse))} images of {options.reuse}")
    return launch(planned, asked.executor, force=options.force, wait=options.wait)


def plan(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.chain import refuse_at_work
    from slurm_bench.cluster.plan import plan_lines
    from slurm_bench.run.create import next_run_dir, preview_run
    from slurm_bench.run.opened import open_run

    asked = _asked(options)
    root = options.run_dir or next_run_dir(asked.name)
    like = open_run(options.like or options.run_dir) if options.like or asked.goes_on else None
    if asked.goes_on:
        refuse_at_work(open_run(options.run_dir), options.force)
    planned = preview_run(root, asked.config, asked.items, asked.plugins.said, options.force)
    asked.say(planned.samples)
    if options.reuse:
        print(f"reuse     what {open_run(options.reuse).root} has of these samples is taken over, and not made again")
    for line in plan_lines(planned, asked.executor, like):
        print(line, flush=True)
    return COMPLETE


def resubmit(options: argparse.Namespace, only_scores: bool = False) -> int:
    from slurm_bench.cluster.chain import refuse_at_work
    from slurm_bench.cluster.launch import launch
    from slurm_bench.config import differences, load_config
    from slurm_bench.run.create import reconfigure
    from slurm_bench.run.opened import open_run

    opened = open_run(options.run)
    words = _overrides(options)
    config = load_config(opened.folder.config, words)
    if only_scores and (others := differences(opened.config, config, ("seed", "data", "editor"))):
        raise UserError(f"score: it changes scorers alone, not {'; '.join(others)}")
    executor, plugins = _checked(config, words)
    refuse_at_work(opened, options.force)
    opened = reconfigure(opened, config, plugins.said, options.force or only_scores)
    return launch(opened, executor, force=options.force, wait=options.wait, only_scores=only_scores)


def score(options: argparse.Namespace) -> int:
    return resubmit(options, only_scores=True)


def verify(options: argparse.Namespace) -> int:
    from slurm_bench.run.images import find_changed
    from slurm_bench.run.opened import open_run
    from slurm_bench.run.records import note_lost

    opened = open_run(options.run)
    edited = {i: outcome.ok for i, outcome in opened.state().edits.items() if outcome.ok is not None}
    lost = find_changed(opened.folder, edited.values())
    if lost:
        note_lost(opened.folder, [edited[sample_id] for sample_id in lost], lost)
    if options.json:
        print(json.dumps({"checked": len(edited), "lost": lost}))
    else:
        for sample_id, problem in lost.items():
            print(f"{sample_id!r}: {problem}")
        print(f"{len(edited)} images checked, {len(lost)} lost")
        if lost:
            print(f"to make them again, type: {command('resubmit', opened.root)}")
    return INCOMPLETE if lost else COMPLETE


def status(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.heard import hear
    from slurm_bench.run.opened import open_run
    from slurm_bench.watch.follow import follow
    from slurm_bench.watch.status import render_status, status_of
    from slurm_bench.watch.wording import columns

    opened = open_run(options.run)
    if options.watch:
        return follow(opened, hear, options.json)
    found = status_of(opened, hear)
    print(json.dumps(found) if options.json else render_status(found, columns()))
    return COMPLETE


def explain(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.heard import hear
    from slurm_bench.run.opened import open_run
    from slurm_bench.watch.explain import read_causes, render, to_json

    seen, causes = read_causes(open_run(options.run), hear)
    print(json.dumps(to_json(seen, causes)) if options.json else render(seen, causes))
    return COMPLETE


def cancel(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.cancel import cancel_run
    from slurm_bench.run.opened import open_run

    for line in cancel_run(open_run(options.run).folder) or ["nothing of this run is at work"]:
        print(line)
    return COMPLETE


def report(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.heard import hear
    from slurm_bench.report.write import print_summary, write_report
    from slurm_bench.run.opened import open_run
    from slurm_bench.watch.explain import one_liners

    opened = open_run(options.run)
    state = opened.state()
    causes = one_liners(opened, hear, state)
    counts = write_report(opened, state, causes, options.single_file)["counts"]
    print_summary(opened.folder)
    if options.single_file:
        print(f"to send {opened.folder.report / 'report-single.html'}")
    return COMPLETE if counts["scored"] == counts["planned"] else INCOMPLETE


def compare(options: argparse.Namespace) -> int:
    from slurm_bench.report.compare import compare_runs, refusals

    compared = compare_runs(options.runs, options.score, options.margin, options.images)
    if (why := refusals(compared)) and not options.force:
        raise UserError(f"not of one kind: {'; '.join(why)}; to compare them all the same, say --force")
    page = _compare_page(compared, options) if options.html else None
    if options.json:
        print(json.dumps(compared))
        return COMPLETE
    from rich.console import Console

    from slurm_bench.report.compare_table import render

    render(compared, Console(width=None if sys.stdout.isatty() else 140))
    if page is not None:
        print(f"page    {page}")
    return COMPLETE


def _compare_page(compared: Mapping[str, Any], options: argparse.Namespace) -> Path:
    from slurm_bench.report.page.assemble import write_page
    from slurm_bench.report.page.compare_page import compare_page
    from slurm_bench.report.side import open_sides, with_score

    sides = with_score(open_sides(options.runs), options.score)
    try:
        return write_page(compare_page(compared, sides, options.html.resolve()))
    except OSError as error:
        raise UserError(f"--html {options.html}: {error.strerror or error}") from None


def export(options: argparse.Namespace) -> int:
    from slurm_bench.export.layout import LIST
    from slurm_bench.export.write import NO_PLACE
    from slurm_bench.export.write import export as write_export
    from slurm_bench.run.opened import open_run

    opened = open_run(options.run)
    done = write_export(opened, options.format, options.out, options.model or opened.root.name)
    for sample_id, why in done.left_out.items():
        print(_one_line(f"left out  {sample_id!r}: {why}"))
    if not all(why.startswith(NO_PLACE) for why in done.left_out.values()):
        print(f"to make them, type: {command('verify', opened.root)}; then: {command('resubmit', opened.root)}")
    print(f"exported  {len(done.samples)} of {len(opened.samples)} samples; {options.out / LIST} says where each is")
    return INCOMPLETE if done.left_out else COMPLETE


def bench(options: argparse.Namespace) -> int:
    from slurm_bench.bench.run import run_bench
    from slurm_bench.bench.table import render, render_run
    from slurm_bench.bench.whole_run import run_whole

    if options.gpus is not None and options.gpus < 1:
        raise UserError(f"--gpus {options.gpus}: it must be at least 1")
    profiles = options.profiles.split(",") if options.profiles else None
    if options.run:
        results = run_whole(options.run.resolve(), options.size, options.gpus, options.executor)
    else:
        results = run_bench(options.size, profiles, options.gpus or FORECAST_GPUS, options.kernels)
    if options.json:
        print(json.dumps(results))
        return COMPLETE
    from rich.console import Console

    (render_run if options.run else render)(results, Console(width=None if sys.stdout.isatty() else 140))
    return COMPLETE


def _parser(name: str) -> argparse.ArgumentParser:
    verbs = "".join(f"  {verb:9} {what.help}\n" for verb, what in VERBS.items())
    parser = Parser(
        prog=command() if name == "run" else command(name),
        description=f"verbs:\n{verbs}\n{name}: {VERBS[name].help}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"slurm_bench {__version__}")
    VERBS[name].add_options(parser)
    return parser


def _run_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")


def _report_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--single-file", action="store_true", help="the page as one file too, to be sent")


def _status_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--watch", action="store_true", help="until the run is over; ends with its exit code")
    parser.add_argument("--json", action="store_true", help="for programs")


def _json_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: default.yaml, a bundled one; so is demo.yaml"
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="new, or a run to go on with")
    parser.add_argument(
        "--reuse", type=Path, metavar="RUN", help="take over what an earlier run made of the same samples"
    )
    _submit_options(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--like", type=Path, metavar="RUN", help="an earlier run, to tell the time by")
    _run_options(parser)


def _resubmit_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    _submit_options(parser)


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two run folders or more; each against the first"
    )
    parser.add_argument("--score", metavar="NAME", help="default: the first run's headline")
    parser.add_argument(
        "--margin", type=float, metavar="X", help="a difference no larger counts as none (default: 5 %% of the scale)"
    )
    parser.add_argument("--images", action="store_true", help="how far the edited images are apart: PSNR and SSIM")
    parser.add_argument("--html", type=Path, metavar="DIR", help="a page there too: all pictures, in step")
    parser.add_argument("--force", action="store_true", help="also where judge, rubrics or scale differ")
    parser.add_argument("--json", action="store_true", help="for programs")


def _export_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    layouts = "; ".join(f"{name}: {layout}" for name, layout in FORMATS.items())
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="NAME", help=layouts)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new, or one of an earlier export")
    parser.add_argument("--model", metavar="NAME", help="as the layout names it; default: the run folder's name")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny runs on a CPU in seconds")
    parser.add_argument("--profiles", metavar="A,B", help="of the editor; default: all that can run here")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help=f"for the forecast (default: {FORECAST_GPUS}), or to run on"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="a whole run on checkpoints written to DIR, 75 GB")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="of that run (default: local)")
    parser.add_argument("--kernels", action="store_true", help="where a forward's milliseconds go")
    parser.add_argument("--json", action="store_true", help="for programs")


def _submit_options(parser: argparse.ArgumentParser) -> None:
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
        value = getattr(options, option)
        words += [f"slurm.{option}={value}"] if value is not None else []
    return words + options.overrides


@dataclass(frozen=True)
class _Asked:
    """What `run` and `plan` were asked for, once it was checked. `problems` of the data are known when its items have
    been read."""

    name: str
    goes_on: bool
    config: Config
    executor: Executor
    plugins: CheckedPlugins
    problems: dict[str, str]

    def items(self) -> Iterator[Item]:
        from slurm_bench.config import with_environment
        from slurm_bench.data import read_items

        data = replace(self.config.data, options=with_environment(self.config, "data.options"))
        return _noting_problems(read_items(data), self.problems)

    def say(self, samples: Sequence[Sample]) -> None:
        """Which samples will fail, and by which rubric each category is judged."""
        known = {sample.id: f"will fail: {sample.problem}" for sample in samples if sample.problem}
        _warn(self.problems or known)
        _say_rubrics(samples, self.plugins.rubrics)


def _asked(options: argparse.Namespace) -> _Asked:
    """Raises UserError; then nothing has changed."""
    from slurm_bench.bundled import bundled, here_or_bundled
    from slurm_bench.config import load_config
    from slurm_bench.run.layout import RunDir

    stored = RunDir(options.run_dir.resolve()).config if options.run_dir else None
    goes_on = stored is not None and stored.exists()
    default = stored if stored and goes_on else bundled("default.yaml")
    file = here_or_bundled(options.config) if options.config else default
    words = _overrides(options)
    config = load_config(file, words)
    return _Asked(file.stem, goes_on, config, *_checked(config, words), {})


def _checked(config: Config, words: Sequence[str]) -> tuple[Executor, CheckedPlugins]:
    """The executor, and what the plug-ins say of themselves, once all that was asked for could work: what is refused
    has changed nothing. Raises UserError."""
    from slurm_bench.cluster.launch import choose_executor
    from slurm_bench.cluster.queue import sbatch_options
    from slurm_bench.cluster.sbatch import check_options
    from slurm_bench.plugins import check_plugins
    from slurm_bench.report.table import check_headline

    _refuse_slurm_elsewhere(config.executor, words)
    executor = choose_executor(config.executor)
    if executor.name == "slurm":
        check_options(config, sbatch_options())
    plugins = check_plugins(config)
    check_headline(config, plugins.scores)
    return executor, plugins


def _say_rubrics(samples: Iterable[Sample], rubrics: Mapping[str, Sequence[str]]) -> None:
    """Which category is judged by which rubric, and what may be mistyped."""
    from slurm_bench.data.categories import rubric_lines
    from slurm_bench.data.text import printable

    counts = Counter(sample.category for sample in samples)
    for name, names in rubrics.items():
        for line in rubric_lines(counts, names):
            print(f"rubrics   {name}: {printable(line)}")


def _refuse_slurm_elsewhere(executor: str | None, words: Sequence[str]) -> None:
    """Who types an option of Slurm means a cluster: nothing is run on a login node instead."""
    from slurm_bench.cluster.queue import has_slurm

    keys = [word.partition("=")[0] for word in words]
    typed = [key for key in keys if key.partition(".")[0] in ("slurm", "score_slurm")]
    if not typed or "executor" in keys or executor == "slurm":
        return
    if executor is not None:
        raise UserError(
            f"'{typed[0]}' is for Slurm, but the configuration says executor: {executor}; add --executor slurm"
        )
    if not has_slurm():
        raise UserError(
            f"'{typed[0]}' is for Slurm, but there is no sbatch on the PATH; load the module, or --executor local"
        )


def _one_line(text: str) -> str:
    """Nothing that a terminal would act on: what went wrong may quote a file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.splitlines()))


def _noting_problems(items: Iterable[Item], problems: dict[str, str]) -> Iterator[Item]:
    """The items, with what is wrong with each kept in `problems`: the plan keeps only what can't be mended."""
    for item in items:
        if item.on_storage:
            problems[item.id] = f"will fail unless its file is put right: {item.problem}"
        elif item.problem:
            problems[item.id] = f"will fail: {item.problem}"
        yield item


def _warn(problems: Mapping[str, str]) -> None:
    lines = [f"{program()}: sample {sample_id!r} {_one_line(problem)}" for sample_id, problem in problems.items()]
    for line in lines[:20]:
        print(line, file=sys.stderr)
    if len(lines) > 20:
        print(f"{program()}: and {len(lines) - 20} more", file=sys.stderr)


VERBS = {
    "run": Verb(
        "edit, score and report (the default verb); on an existing run folder, what is missing", run, _run_options
    ),
    "plan": Verb("what would be submitted, and what it would take; submits and writes nothing", plan, _plan_options),
    "status": Verb("how far it is, by stage and task, and what it waits for", status, _status_options),
    "explain": Verb("why did what fail or wait, and what to type next", explain, _json_options),
    "resubmit": Verb("submit again what is missing, on any number of GPUs", resubmit, _resubmit_options),
    "score": Verb("judge again, or by another scorer too; edits nothing", score, _resubmit_options),
    "verify": Verb("every image against its record; what is lost will be made again", verify, _json_options),
    "cancel": Verb("cancel a run's jobs, or stop its local launcher", cancel, _run_folder),
    "report": Verb("make the report again from the records", report, _report_options),
    "compare": Verb("is one run better than another, sample by sample", compare, _compare_options),
    "export": Verb("the edited images as a benchmark's own scorer reads them", export, _export_options),
    "bench": Verb("what this GPU can do, measured without any weights", bench, _bench_options),
}
