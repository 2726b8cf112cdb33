"""Making a run folder, or going on with one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from slurm_bench.command import command
from slurm_bench.config import PLANNED, Config, differences, dump, load_config, nearest
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.by import config_by_content
from slurm_bench.run.durable import create_once, json_line, write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.plan import Plan, Sample
from slurm_bench.run.provenance import (
    Models,
    create_provenance,
    data_stamp,
    marks_of,
    model_changes,
    read_provenance,
    updated_provenance,
    write_provenance,
)


def new_run_dir(name: str) -> Path:
    """runs/<name>-<time>, made so that two launchers of the same second get two."""
    first = next_run_dir(name)
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = first.with_name(f"{first.name}{suffix}")
        try:
            path.parent.resolve().mkdir(parents=True, exist_ok=True)  # also what a link means, and was cleared away
            path.mkdir()
            return path
        except FileExistsError:
            if not path.exists():
                raise UserError(f"{path.parent}: not a folder; move it away, or set --run-dir") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; launch from a folder you may write, or set --run-dir") from None
    raise UserError(f"{first} and 98 more are there already; name another with --run-dir")


def next_run_dir(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def preview_run(root: Path, config: Config, items: Callable[[], Iterable[Item]], models: Models, force: bool) -> Run:
    """What `create_run` would give, with nothing written. Raises UserError where that would."""
    folder = RunDir(root.resolve())
    _check_name(folder)
    if folder.config.exists() and folder.plan.exists():
        run = open_run(folder.root)
        agreed = _agreed(run.folder, run.config, config, models, force)
        _tell_unknown_facts(agreed, run.samples)
        return replace(run, config=agreed, by=updated_provenance(run.folder, run.config, agreed, models)["by"])
    there = next(path for path in (folder.root, *folder.root.parents) if path.exists())
    if there == folder.root:
        _refuse_strangers(folder)
    elif not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"--run-dir {folder.root}: nothing can be made in {there}")
    plan = Plan(folder, unpack=False)
    plan.add(items(), config.seed, config.repeats)
    _tell_unknown_facts(config, plan.samples)
    return Run(folder, config, plan.samples, marks_of(config, models))


def create_run(root: Path, config: Config, items: Callable[[], Iterable[Item]], models: Models, force: bool) -> Run:
    """A new run in `root`, or the one that is there, which goes on under `config` once it is stored. `items` is called
    only where there is no plan yet: a planned run doesn't need its data file any more. `models` is what the plug-ins
    say of themselves. Raises UserError; then nothing has changed."""
    folder = RunDir(root.resolve())
    _check_name(folder)
    if folder.config.exists() and folder.plan.exists():
        run = reconfigure(open_run(folder.root), config, models, force)
        if not differences(run.config, config, ["data"]):
            _tell_what_changed(run, items)
        return run
    made = _make_folder(folder)
    plan, begun = Plan(folder), False
    try:
        plan.add(items(), config.seed, config.repeats)
        _tell_unknown_facts(config, plan.samples)
        begun = create_once(folder.config, dump(config).encode())
        if not begun:
            config = _agreed(folder, load_config(folder.config), config, models, force)
        samples = plan.freeze()
    except BaseException:
        if begun and not folder.plan.exists():  # the disk had room for the one alone
            folder.config.unlink(missing_ok=True)
        plan.withdraw()
        if made:
            with suppress(OSError):
                folder.root.rmdir()
        raise
    return Run(folder, config, samples, create_provenance(folder, config, models))


def reconfigure(run: Run, config: Config, models: Models, force: bool) -> Run:
    """The same run under a configuration that differs in how and where the work is done, or by `force` in more; on disk
    it is as it was until `store`. Raises UserError."""
    config = _agreed(run.folder, run.config, config, models, force)
    _tell_unknown_facts(config, run.samples)
    facts = updated_provenance(run.folder, run.config, config, models)
    return replace(run, config=config, by=facts["by"], unstored=facts)


def store(run: Run) -> None:
    """Keep what `run` goes on with, for every process that opens it from now on. For who has claimed its work: what a
    launcher wished that is refused must not change what another one's tasks do."""
    if run.unstored is None:
        return
    if run.unstored != read_provenance(run.folder):
        write_provenance(run.folder, run.unstored)
    if run.config != load_config(run.folder.config):
        write_atomic(run.folder.config, dump(run.config).encode())


def _agreed(folder: RunDir, stored: Config, config: Config, models: Models, force: bool) -> Config:
    """The configuration to go on with; its plan never changes (law 1). Raises UserError where another would decide the
    results (law 10)."""
    if config.repeats != stored.repeats:
        raise UserError(
            f"'repeats': the plan of {folder.root} is frozen with {stored.repeats}; for {config.repeats} plan a new "
            f"run that takes over this one's images: --run-dir NEW --reuse {folder.root}"
        )
    before = read_provenance(folder).get("models", {})
    changed = differences(config_by_content(stored, before), config_by_content(config, models))
    changed += model_changes(folder, stored, config, models)
    for key, frozen in (
        ("seed", f"its samples' seeds come from {stored.seed}: for others start a new run folder"),
        ("data", f"with the samples it has: for others plan a new run, --run-dir NEW --reuse {folder.root}"),
    ):
        if differences(stored, config, [key]):
            if force:
                log.warning("'%s': the plan is frozen, %s", key, frozen)
            changed.append(f"the plan is frozen, {frozen}")
    if changed and not force:
        judges = all(change.startswith("scorers.") for change in changed)
        score = f"to judge its images so, type: {command('score', folder.root)} key=value; or " if judges else ""
        raise UserError(
            f"{folder.root} was begun with another configuration ({'; '.join(changed)}); {score}start a new "
            "run folder, or say --force to make by the new one what isn't made yet; what the old one made stays its own"
        )
    return replace(config, **{key: getattr(stored, key) for key in PLANNED})


def _tell_unknown_facts(config: Config, samples: Sequence[Sample]) -> None:
    """A mistyped `report.by` cuts the report by nothing. It is no error: a few samples of a set may lack a fact that
    the whole set has, and a report can be made again."""
    known = {name for sample in samples for name in sample.facts}
    for name in config.report.by:
        if name not in known:
            log.warning("'report.by': no sample has '%s'; %s", name, nearest(name, known))


def _tell_what_changed(run: Run, items: Callable[[], Iterable[Item]]) -> None:
    """A data file that was changed after the plan was frozen may have other samples, or say another thing of these: the
    plan won't."""
    if data_stamp(run.config) in (None, read_provenance(run.folder).get("data")):
        return
    found = Plan(run.folder, unpack=False)
    try:
        found.add(items(), run.config.seed, run.config.repeats)
    except UserError as error:
        log.warning("the data was changed since the run was planned, and can't be read now: %s", error)
        return
    planned, now = ({sample.id: _of_the_data(sample) for sample in samples} for samples in (run.samples, found.samples))
    unlike = {sample.id for sample in found.samples if sample.data_id in found.unlike}
    changes = {
        "new": [i for i in now if i not in planned],
        "gone": [i for i in planned if i not in now],
        "changed": [i for i in now if i in planned and (now[i] != planned[i] or i in unlike)],
    }
    told = [f"{len(ids)} {how} ({ids[0]!r}{', …' if len(ids) > 1 else ''})" for how, ids in changes.items() if ids]
    if told:
        log.warning(
            "the data was changed since the run was planned: %d samples in it, %d in the plan, which is frozen: %s; "
            "for the data as it is now plan a new run that takes over this one's images: --run-dir NEW --reuse %s",
            *(len(now), len(planned), ", ".join(told), run.root),
        )


def _of_the_data(sample: Sample) -> bytes:
    """A sample's line of the plan, but for where it stands."""
    return json_line(sample.to_json() | {"index": 0})


def _check_name(folder: RunDir) -> None:
    """Raises UserError where a job couldn't be told the folder's name."""
    try:
        str(folder.root).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--run-dir {folder.root}: its name or the locale is no UTF-8: choose another, or set LC_ALL=C.UTF-8"
        ) from None
    if "%" in str(folder.root):
        raise UserError(f"{folder.root}: Slurm reads '%' in a path as a pattern; choose another --run-dir")


def _make_folder(folder: RunDir) -> bool:
    """True where this call made it. Raises UserError where the folder can't serve."""
    try:
        folder.root.mkdir(parents=True)
        return True
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"--run-dir {folder.root}: {error.strerror}") from None
    _refuse_strangers(folder)
    return False


def _refuse_strangers(folder: RunDir) -> None:
    """Raises UserError where a folder that is there holds other things than a run."""
    # The listing comes first: another launcher may be making this run right now.
    try:
        strange = [path for path in folder.root.iterdir() if not _of_a_launcher(path.name)]
    except OSError as error:
        raise UserError(f"--run-dir {folder.root}: {error.strerror}") from None
    if strange and not folder.config.exists():
        raise UserError(
            f"--run-dir {folder.root}: this folder has other things in it ({strange[0].name}); "
            "choose a new or an empty one"
        )


def _of_a_launcher(name: str) -> bool:
    """What a launcher leaves in a folder before its configuration is there, also where it was killed."""
    return name == "sources" or (name.startswith(".") and name.endswith(".tmp"))
