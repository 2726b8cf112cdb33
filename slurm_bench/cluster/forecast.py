"""What samples will take: told by an earlier run's journals and records, or by what the bench measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slurm_bench.config import Config, load_config
from slurm_bench.data.text import printable
from slurm_bench.editors.qwen import QwenImageEditor
from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.profiles import profile_named
from slurm_bench.editors.qwen21 import QwenImage21Editor
from slurm_bench.errors import UserError
from slurm_bench.machine import visible_gpu
from slurm_bench.plugins import make_editor, make_scorer
from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.hours import BEFORE, by_stage, hours_of
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.shapes import Count, Seconds
from slurm_bench.run.timeline import read_timeline
from slurm_bench.scorers.qwen3vl import Qwen3VLScorer

# What the bench measured and the project keeps; an installed package has none of it.
MEASURED = Path(__file__).parents[2] / "docs" / "benchmarks"
# So many of the folder's newest runs are looked at for one that is alike.
NEWEST = 30

# Of the models that the bench measures.
BENCHED: dict[str, type[Any]] = {"qwen-image-edit": QwenImageEditor, "qwen-image-2.1": QwenImage21Editor}


class EditingRow(msgspec.Struct):
    profile: str
    steps: Count
    guidance: bool
    seconds: Seconds


class ScoringRow(msgspec.Struct):
    mode: str
    ms_from_files: Seconds
    aspects: Annotated[int, Meta(ge=1)] = 1
    profile: str = "exact"


class Figures(msgspec.Struct):
    """What of `bench --json` a forecast hangs on. Its first versions measured one model, one aspect and one profile of
    the judge, and named none of them."""

    machine: dict[str, Any]
    editing: list[EditingRow]
    scoring: list[ScoringRow]
    model: str = "qwen-image-edit"
    size: Literal["full"] = "full"


@dataclass(frozen=True)
class Pace:
    """How fast one stage goes: a task's seconds a sample, and before its first one; bytes an image where they are
    known; and where all that is from."""

    seconds: float
    start: float
    image_bytes: float | None
    source: str


@dataclass(frozen=True)
class Told:
    """A run, or figures of the bench, to tell the time by."""

    source: str
    run: Run | None = None
    figures: Figures | None = None

    def pace(self, config: Config, stage: str) -> Pace | None:
        if self.run is not None:
            return _of_run(self.run, stage)
        found = (_edit_seconds if stage == "edit" else _score_seconds)(self.figures, config) if self.figures else None
        return None if found is None else Pace(found, 0.0, None, f"{self.source}, loading not counted")


def told_by(like: Path) -> Told:
    """What a person named. Raises UserError."""
    if like.is_dir():
        return Told(str(like), run=open_run(like))
    try:
        figures = msgspec.convert(json.loads(like.read_bytes()), Figures)
    except msgspec.ValidationError as error:
        raise UserError(f"--like {like}: not what `bench --json` printed of full size ({error})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--like {like}: neither a run folder nor what `bench --json` printed ({error})") from None
    return _bench(figures, str(like))


def known_to_us(config: Config, root: Path, on_cluster: bool) -> Iterator[tuple[tuple[str, ...], Told]]:
    """What was measured before, the best first, each with the stages that it can tell of: the run itself, where it is
    gone on with; those beside it with the same plug-ins, the newest first; then the bench's figures of this machine's
    GPU, or on a cluster of any."""
    for folder in (root, *_newest(root.parent)):
        with suppress(UserError, OSError):
            other = load_config(RunDir(folder).config)
            same = {"edit": other.editor == config.editor, "score": other.scorers == config.scorers}
            if stages := tuple(stage for stage, is_same in same.items() if is_same):
                yield stages, Told(str(folder), run=open_run(folder))
    gpu = visible_gpu()
    for file in sorted(MEASURED.glob("*.json"), key=lambda file: file.stem, reverse=True):
        with suppress(msgspec.ValidationError):  # other measurements lie there too
            figures = msgspec.convert(json.loads(file.read_bytes()), Figures)
            if figures.machine.get("device") == gpu.name if gpu else on_cluster:
                yield ("edit", "score"), _bench(figures, file.name)


def paces(config: Config, likes: Iterator[tuple[tuple[str, ...], Told]], stages: Sequence[str]) -> dict[str, Pace]:
    """The pace of each stage, by the first of `likes` that knows it."""
    found: dict[str, Pace] = {}
    for known, told in likes:
        for stage in known:
            if stage in stages and stage not in found and (pace := told.pace(config, stage)):
                found[stage] = pace
        if len(found) == len(stages):
            break
    return found


def _newest(folder: Path) -> list[Path]:
    """The run folders in it."""
    dated = []
    with suppress(OSError):  # no folder, or one that may be gone through and not listed
        for root in folder.iterdir():
            with suppress(OSError):
                dated.append((RunDir(root).config.stat().st_mtime, root))
    return [root for _, root in sorted(dated, reverse=True)[:NEWEST]]


def _of_run(run: Run, stage: str) -> Pace | None:
    """None where it has brought nothing forward in that stage. Where its logs are gone, its records tell of the work
    alone."""
    state = run.state()
    tasks = hours_of(read_attempts(run.folder), read_timeline(run.folder), run.folder)
    rows = [row for row in tasks if row.stage == stage]
    whole = by_stage(rows, state).get(stage)
    sizes = [o.ok["bytes"] for o in state.edits.values() if o.ok is not None and o.ok.get("bytes") is not None]
    size = fmean(sizes) if sizes else None
    source = printable(str(run.root)) + (f" on {whole.gpu}" if whole and whole.gpu else "")
    if whole and whole.samples:
        before = sum(whole.by_kind.get(kind, 0.0) for kind in BEFORE)
        return Pace((whole.held - before) / whole.samples, before / whole.tasks, size, source)
    by_plugin = [state.edits] if stage == "edit" else state.by_scorer().values()
    of_each = zip(*(outcomes.values() for outcomes in by_plugin), strict=True)
    seconds = [[outcome.ok and outcome.ok.get("seconds") for outcome in of_one] for of_one in of_each]
    sums = [math.fsum(of_one) for of_one in seconds if None not in of_one]
    return Pace(fmean(sums), 0.0, size, f"{source}, loading not counted") if sums else None


def _bench(figures: Figures, name: str) -> Told:
    return Told(f"the bench on {figures.machine.get('device')} ({name})", figures=figures)


def _edit_seconds(figures: Figures, config: Config) -> float | None:
    """A sample's seconds: of the figures' rows of the same model and profile, with or without guidance as asked for, on
    the line through their steps."""
    editor: Any = make_editor(config)
    kind = BENCHED.get(figures.model)
    if kind is None or not isinstance(editor, kind):
        return None
    settings = editor.settings
    if settings.device == "cpu" or settings.max_pixels != MEGAPIXEL:
        return None
    profile, guidance = profile_named(settings.profile, cuda=True).name, settings.guided_by is not None
    seconds = {row.steps: row.seconds for row in figures.editing if row.profile == profile and row.guidance == guidance}
    steps = editor.planned_steps() if seconds else None
    return None if steps is None else _on_the_line(seconds, steps)


def _score_seconds(figures: Figures, config: Config) -> float | None:
    """A sample by all scorers: of rows of the same mode and profile, on the line through their aspects."""
    found = []
    for name in config.scorers:
        scorer = make_scorer(config, name)
        if not isinstance(scorer, Qwen3VLScorer):
            return None
        milliseconds = {
            row.aspects: row.ms_from_files
            for row in figures.scoring
            if row.mode == scorer.mode and row.profile == scorer.profile
        }
        if len(milliseconds) == 1:
            ((aspects, one),) = milliseconds.items()
            milliseconds = {len(scorer.aspects): one * len(scorer.aspects) / aspects}
        if (found_one := _on_the_line(milliseconds, len(scorer.aspects))) is None:
            return None
        found.append(found_one / 1000)
    return math.fsum(found)


def _on_the_line(known: Mapping[int, float], at: int) -> float | None:
    """Through the two that are nearest. None of fewer."""
    if at in known or len(known) < 2:
        return known.get(at)
    (low, first), (high, second) = sorted(known.items(), key=lambda each: abs(each[0] - at))[:2]
    return max(0.0, first + (at - low) * (second - first) / (high - low))
