"""What each verb does. Heavy imports stand inside: `--help` starts at once, `status` and `report` without torch."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.asked import Asked, asked, checked, overrides
from slurm_bench.command import command
from slurm_bench.errors import COMPLETE, INCOMPLETE, UserError, storage_problem
from slurm_bench.logs import log
from slurm_bench.terminal import console, one_line

if TYPE_CHECKING:
    from slurm_bench.run.opened import Run
    from slurm_bench.run.records import Record

# What `bench` measures, and the GPUs that it tells the time of a benchmark for, unless others are asked for.
DEFAULT_MODEL = "qwen-image-edit"
FORECAST_GPUS = 6


def run(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.launch import launch
    from slurm_bench.run.create import store
    from slurm_bench.run.opened import open_run
    from slurm_bench.run.reuse import reuse

    what = _asked(options)
    earlier = open_run(options.reuse) if options.reuse else None
    planned = _planned(options, what)
    what.say(planned.samples)
    if earlier is not None:
        store(planned)
        print(f"reused    {reuse(planned, earlier)} images of {options.reuse}")
    return launch(planned, what.executor, force=options.force, wait=options.wait)


def rewrite(options: argparse.Namespace) -> int:
    from slurm_bench.run.create import store
    from slurm_bench.stages.beforehand import rewrite_all

    what = _asked(options)
    if what.config.rewriter is None:
        raise UserError("'rewriter' is not set, so there is nothing to rewrite by")
    planned = _planned(options, what)
    what.say(planned.samples)
    store(planned)
    problems = rewrite_all(planned)
    for sample_id, problem in problems.items():
        print(one_line(f"left out  {sample_id!r}: {problem}"))
    print(f"rewritten {len(planned.samples) - len(problems)} of {len(planned.samples)} instructions")
    print(f"to edit by them, type: {command('run', '--run-dir', planned.root)}")
    return INCOMPLETE if problems else COMPLETE


def _asked(options: argparse.Namespace) -> Asked:
    """Raises UserError also where somebody is at work on the run that is to go on."""
    from slurm_bench.cluster.chain import refuse_at_work
    from slurm_bench.run.opened import open_run

    what = asked(options)
    if what.goes_on:
        refuse_at_work(open_run(options.run_dir), options.force)
    return what


def _planned(options: argparse.Namespace, what: Asked) -> Run:
    """The run that was asked for, its plan on disk. Raises UserError; then nothing is left of a new one."""
    from slurm_bench.run.create import create_run, new_run_dir

    root = options.run_dir or new_run_dir(what.name)
    try:
        return create_run(root, what.config, what.items, what.plugins.said, options.force)
    except BaseException:
        if not options.run_dir:  # ours, and still empty
            for folder in (root, root.parent):
                with suppress(OSError):
                    folder.rmdir()
        raise


def plan(options: argparse.Namespace) -> int:
    from slurm_bench.cluster.forecast import told_by
    from slurm_bench.cluster.plan import plan_of, start_of
    from slurm_bench.cluster.plan_text import plan_lines
    from slurm_bench.run.create import next_run_dir, preview_run
    from slurm_bench.run.opened import open_run

    with redirect_stdout(sys.stderr):  # what a plug-in or a reader prints is no result
        what = _asked(options)
        root = options.run_dir or next_run_dir(what.name)
        like = told_by(options.like) if options.like else None
        old = open_run(options.reuse) if options.reuse else None
        planned = preview_run(root, what.config, what.items, what.plugins.said, options.force)
    if options.json:
        said, found = what.to_json(planned.samples), plan_of(planned, what.executor, like, old)
        print(json.dumps({**found, **said, "start": start_of(found.get("scripts", {}))}))
        return COMPLETE
    what.say(planned.samples)
    for line in plan_lines(plan_of(planned, what.executor, like, old)):
        print(line, flush=True)
    return COMPLETE


def resubmit(options: argparse.Namespace, only_scores: bool = False) -> int:
    from slurm_bench.cluster.chain import refuse_at_work
    from slurm_bench.cluster.launch import launch
    from slurm_bench.config import differences, load_config
    from slurm_bench.plugins import with_absolute_paths
    from slurm_bench.run.create import reconfigure
    from slurm_bench.run.opened import open_run

    opened = open_run(options.run)
    words = overrides(options)
    config = with_absolute_paths(load_config(opened.folder.config, words), opened.folder.config)
    if only_scores and (others := differences(opened.config, config, ("seed", "data", "editor", "rewriter"))):
        raise UserError(f"score: it changes scorers alone, not {'; '.join(others)}")
    executor, plugins = checked(config, words, opened.root)
    refuse_at_work(opened, options.force)
    opened = reconfigure(opened, config, plugins.said, options.force or only_scores)
    return launch(opened, executor, force=options.force, wait=options.wait, only_scores=only_scores)


def score(options: argparse.Namespace) -> int:
    return resubmit(options, only_scores=True)


def verify(options: argparse.Namespace) -> int:
    from slurm_bench.run.images import find_changed
    from slurm_bench.run.losses import note_losses
    from slurm_bench.run.opened import open_run

    opened, checked, lost = open_run(options.run), set[str](), dict[str, str]()

    def find(records: Collection[Record]) -> dict[str, str]:
        checked.update(record["id"] for record in records)
        found = find_changed(opened.folder, records)
        lost.update(found)
        return found

    try:
        state, _ = note_losses(opened, find)
    except OSError as error:  # a run of somebody else's, say, or a full disk: it is still said
        if not lost:
            raise
        log.warning("what is lost could not be noted, so others may not know: %s", storage_problem(error))
        state = opened.state()
    for sample_id, outcome in state.edits.items():
        if outcome.lost and outcome.ok is None:
            lost.setdefault(sample_id, "its image was lost before, and isn't made again yet")
    typed = command("resubmit", opened.root) if lost else None
    if options.json:
        print(json.dumps({"run": str(opened.root), "checked": len(checked), "lost": lost, "next": typed}))
    else:
        for sample_id, problem in lost.items():
            print(f"{sample_id!r}: {problem}")
        print(f"{len(checked)} images checked, {len(lost)} lost")
        if typed:
            print(f"to make them again, type: {typed}")
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
    found = status_of(opened, hear, hours=options.json)
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
    from slurm_bench.report.people import read_people
    from slurm_bench.report.prompts import write_prompts
    from slurm_bench.report.write import print_summary, write_report
    from slurm_bench.run.opened import open_run
    from slurm_bench.watch.explain import one_liners

    if options.width is not None and (options.marks is None or not 0 < options.width < math.inf):
        raise UserError(f"--width {options.width}: with --marks, it is the wanted interval's width, above 0")
    opened = open_run(options.run)
    people = read_people(options.marks, [sample.id for sample in opened.samples]) if options.marks else None
    state = opened.state()
    causes = one_liners(opened, hear, lambda: state)
    counts = write_report(opened, state, causes, options.single_file, people, options.width)["counts"]
    if options.prompts:
        write_prompts(opened, state)
    print_summary(opened.folder)
    if options.single_file:
        print(f"to send {opened.folder.report / 'report-single.html'}")
    return COMPLETE if counts["scored"] == counts["planned"] else INCOMPLETE


def compare(options: argparse.Namespace) -> int:
    from slurm_bench.report.compare import compare_runs, refusals

    if options.single_file and not options.html:
        raise UserError("--single-file: say where the page goes, with --html DIR")
    if options.judge or options.out:
        return _compare_by_judge(options)
    compared = compare_runs(options.runs, options.score, options.margin, options.images)
    if (why := refusals(compared)) and not options.force:
        raise UserError(f"not of one kind: {'; '.join(why)}; to compare them all the same, say --force")
    pages = _compare_page(compared, options) if options.html else {}
    if options.json:
        print(json.dumps(compared))
        return COMPLETE
    from slurm_bench.report.compare_table import render

    render(compared, console())
    for what, file in pages.items():
        print(f"{what:7} {file}")
    return COMPLETE


def _compare_by_judge(options: argparse.Namespace) -> int:
    """Exit code 3 where some pairs have no judgement yet."""
    from slurm_bench.report.pairwise import judge_pairs

    if not (options.judge and options.out):
        raise UserError("--judge FILE and --out DIR go together: who judges, and where the judgements are kept")
    if options.score or options.margin is not None or options.images:
        raise UserError("--judge compares images by pairs, so --score, --margin and --images have no meaning")
    judged = judge_pairs(options.runs, options.judge, options.out)
    pages = {}
    if options.html:
        from slurm_bench.report.page.assemble import write_pages
        from slurm_bench.report.page.pairwise_page import pairwise_page

        pages = write_pages(pairwise_page(judged, options.html.resolve()), options.single_file)
    if options.json:
        print(json.dumps(judged.said))
    else:
        from slurm_bench.report.pairwise_table import render

        render(judged.said, console())
        for what, file in {"kept": options.out, **pages}.items():
            print(f"{what:7} {file}")
    return INCOMPLETE if any(row["missing"] for row in judged.said["dimensions"].values()) else COMPLETE


def _compare_page(compared: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Path]:
    from slurm_bench.report.page.assemble import write_pages
    from slurm_bench.report.page.compare_page import compare_page
    from slurm_bench.report.side import open_sides, with_score

    sides = with_score(open_sides(options.runs), options.score)
    return write_pages(compare_page(compared, sides, options.html.resolve()), options.single_file)


def export(options: argparse.Namespace) -> int:
    from slurm_bench.export.layout import LIST
    from slurm_bench.export.write import NO_PLACE, first_repeats
    from slurm_bench.export.write import export as write_export
    from slurm_bench.run.opened import open_run

    opened = open_run(options.run)
    done = write_export(opened, options.format, options.out, options.model or opened.root.name)
    for sample_id, why in done.left_out.items():
        print(one_line(f"left out  {sample_id!r}: {why}"))
    if not all(why.startswith(NO_PLACE) for why in done.left_out.values()):
        print(f"to make them, type: {command('verify', opened.root)}; then: {command('resubmit', opened.root)}")
    planned = len(first_repeats(opened))
    if repeats := len(opened.samples) - planned:
        print(f"left out  {repeats} further seeds of the samples: a layout has one image of each, the first seed's")
    if done.unwanted:
        print(f"left out  {done.unwanted} turns before the last one: {options.format} has no image of them")
    wanted = planned - done.unwanted
    print(f"exported  {len(done.samples)} of {wanted} samples; {options.out / LIST} says where each is")
    return INCOMPLETE if done.left_out else COMPLETE


def bench(options: argparse.Namespace) -> int:
    from slurm_bench.bench.memory import measure_memory
    from slurm_bench.bench.run import run_bench
    from slurm_bench.bench.so_far import tell_last
    from slurm_bench.bench.table import render, render_memory, render_run
    from slurm_bench.bench.whole_run import run_whole

    if options.gpus is not None and options.gpus < 1:
        raise UserError(f"--gpus {options.gpus}: it must be at least 1")
    model, size = options.model, options.size
    profiles, parts = (text.split(",") if text else None for text in (options.profiles, options.parts))
    if parts and (options.memory or options.run):
        raise UserError("--parts says what of a model is measured, so --memory and --run have no meaning with it")
    show: Any = render
    if options.memory:
        growing, show = measure_memory(model, size, options.memory, profiles, options.checkpoints), render_memory
    elif options.run:
        growing, show = run_whole(options.run.resolve(), model, size, options.gpus, options.executor), render_run
    else:
        growing = run_bench(model, size, profiles, parts, options.gpus or FORECAST_GPUS, options.kernels)

    def tell(results: Mapping[str, Any]) -> None:
        if options.json:
            print(json.dumps(results), flush=True)
        else:
            show(results, console())

    tell_last(growing, tell)
    return COMPLETE
