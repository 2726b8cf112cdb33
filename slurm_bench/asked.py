"""What `run`, `plan` and `resubmit` are asked for: words typed → a checked configuration, its plug-ins and executor."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.command import SLURM_OPTIONS, program
from slurm_bench.errors import UserError
from slurm_bench.terminal import one_line

if TYPE_CHECKING:
    from slurm_bench.cluster.chain import Executor
    from slurm_bench.config import Config
    from slurm_bench.data.item import Item
    from slurm_bench.plugins import CheckedPlugins
    from slurm_bench.run.plan import Sample


# Samples, or groups of those that fail alike, about which a launch has a line.
MOST = 20


@dataclass(frozen=True)
class Asked:
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

    def problems_of(self, samples: Sequence[Sample]) -> dict[str, str]:
        known = {sample.id: f"will fail: {sample.problem}" for sample in samples if sample.problem}
        return self.problems or known

    def say(self, samples: Sequence[Sample]) -> None:
        """Which samples will fail, and by which rubric each category is judged."""
        _warn(self.problems_of(samples))
        if self.config.rewriter is not None:
            print(f"rewriter  the editor is given what {self.config.rewriter.class_path} makes of each instruction")
        _say_rubrics(samples, self.plugins.rubrics)

    def to_json(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `say` says, for programs. The samples that will fail go to stderr as well, where a person sees them."""
        from slurm_bench.data.categories import rubrics_by_category

        problems = self.problems_of(samples)
        _warn(problems)
        by_scorer = {
            name: rubrics_by_category({sample.category for sample in samples}, names)
            for name, names in self.plugins.rubrics.items()
        }
        return {
            "problems": problems,
            "rewriter": self.config.rewriter.class_path if self.config.rewriter else None,
            "rubrics": {name: {"by_category": found, "doubts": doubts} for name, (found, doubts) in by_scorer.items()},
        }


def asked(options: argparse.Namespace) -> Asked:
    """Raises UserError; then nothing has changed."""
    from slurm_bench.bundled import bundled, here_or_bundled
    from slurm_bench.config import load_config
    from slurm_bench.plugins import with_absolute_paths
    from slurm_bench.run.layout import RunDir

    folder = RunDir(options.run_dir.resolve()) if options.run_dir else None
    begun = folder if folder is not None and folder.config.exists() else None
    # Without either its launcher was killed while it planned.
    goes_on = begun is not None and (begun.plan.exists() or begun.provenance.exists())
    default = begun.config if begun else bundled("default.yaml")
    file = here_or_bundled(options.config) if options.config else default
    words = overrides(options)
    config = with_absolute_paths(load_config(file, words), file)
    return Asked(file.stem, goes_on, config, *checked(config, words, options.run_dir or Path.cwd()), {})


def checked(config: Config, words: Sequence[str], root: Path) -> tuple[Executor, CheckedPlugins]:
    """The executor, and what the plug-ins say of themselves, once all that was asked for could work: what is refused
    has changed nothing. Raises UserError."""
    from slurm_bench.cluster.launch import choose_executor
    from slurm_bench.cluster.queue import sbatch_options
    from slurm_bench.cluster.sbatch import check_folder, check_options
    from slurm_bench.plugins import check_plugins
    from slurm_bench.report.table import check_headline

    _refuse_slurm_elsewhere(config.executor, words)
    executor = choose_executor(config.executor)
    if executor.name == "slurm":
        check_options(config, sbatch_options())
        check_folder(root.resolve())
    plugins = check_plugins(config)
    check_headline(config, plugins.scores)
    return executor, plugins


def overrides(options: argparse.Namespace) -> list[str]:
    """Options are short for settings; a `key=value` typed beside them wins."""
    keys = ("executor", "gpus", "score_gpus", "slices", "parallel", "pack")
    words = [f"{key}={getattr(options, key)}" for key in keys if getattr(options, key) is not None]
    words += ["strict=true"] if options.strict else []
    for option in SLURM_OPTIONS:
        value = getattr(options, option)
        words += [f"slurm.{option}={value}"] if value is not None else []
    return words + options.overrides


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

    keys = [word.partition("=")[0] for word in words if not word.endswith("=null")]  # which takes one away
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


def _noting_problems(items: Iterable[Item], problems: dict[str, str]) -> Iterator[Item]:
    """The items, with what is wrong with each kept in `problems`: the plan keeps only what can't be mended."""
    for item in items:
        if item.on_storage:
            problems[item.id] = f"will fail unless its file is put right: {item.problem}"
        elif item.problem:
            problems[item.id] = f"will fail: {item.problem}"
        yield item


def _warn(problems: Mapping[str, str]) -> None:
    from slurm_bench.watch.wording import grouped, named

    groups = grouped(problems)
    for ids, problem in groups[:MOST]:
        which = f"{named(ids)}: each" if ids[1:] else f"sample {ids[0]!r}"
        print(f"{program()}: {which} {one_line(problem)}", file=sys.stderr)
    if len(groups) > MOST:
        print(f"{program()}: and {len(groups) - MOST} more", file=sys.stderr)
