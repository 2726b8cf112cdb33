"""What two runs differ in beside what is compared."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping
from typing import Any

from slurm_bench.config import PluginConfig, differences
from slurm_bench.report.side import Side
from slurm_bench.run.beside import BESIDE
from slurm_bench.run.by import by_content, config_by_content, contradictions
from slurm_bench.run.manifest import info_of
from slurm_bench.run.plan import Sample


def differ(a: Side, b: Side, sample_id: str) -> str | None:
    """In what the editor or the judge was given. What a turn has as its source is a run's own work, and no difference:
    the chain is held against the other's, back to the source that it began with."""
    one, two = a.samples[sample_id], b.samples[sample_id]
    if one.instruction != two.instruction:
        return "the instruction differs"
    if (one.description, one.rationale) != (two.description, two.rationale):
        return "what the judge is told differs"
    if one.category != two.category:
        return "the category differs"
    for what in BESIDE:
        if _images_differ(a, b, sample_id, what):
            return f"the {what} image differs"
    while one.follows or two.follows:
        if one.follows != two.follows:
            return "the sample that it follows differs"
        one, two = a.samples[one.follows], b.samples[two.follows]
        if one.instruction != two.instruction:
            return "the instruction of a turn before differs"
    return "the source image differs (sha256)" if _sources_differ(a, b, one.id) else None


def unlike_to_see(a: Side, b: Side, sample_id: str) -> str | None:
    """Why both edits can't be shown beside one source, though they can be compared by their scores."""
    if a.samples[sample_id].follows and _sources_differ(a, b, sample_id):
        return "each run has a turn before of its own as its source"
    return None


def _sources_differ(a: Side, b: Side, sample_id: str) -> bool:
    """None is known of a sample that wasn't edited under any seed."""
    one, two = (
        next((sha for line in side.repeats[sample_id] if (sha := _source(side, line))), None) for side in (a, b)
    )
    return None not in (one, two) and one != two


def _images_differ(a: Side, b: Side, sample_id: str, what: str) -> bool:
    """One file that wasn't written since the scores is no difference, nor is what both have unpacked from one file of
    data. Of others the records tell, or in runs of earlier versions the files; nothing is known of files that are
    gone."""
    one, two = (getattr(side.samples[sample_id], what) for side in (a, b))
    if one is None or two is None:
        return bool(one != two)
    files = a.run.root / one, b.run.root / two
    same = files[0] != files[1] and one == two and _same_data(a, b)
    records = [side.state.scores[side.samples[sample_id].id][side.scorer].ok or {} for side in (a, b)]
    try:
        if same or (files[0] == files[1] and all(r.get("time", 0) > files[0].stat().st_ctime for r in records)):
            return False
        shown = [record.get(f"{what}_sha256") for record in records]
        return shown[0] != shown[1] if None not in shown else not filecmp.cmp(*files, shallow=False)
    except OSError:
        return False


def _same_data(a: Side, b: Side) -> bool:
    stamps = [side.provenance.get("data") for side in (a, b)]
    return stamps[0] is not None and stamps[0] == stamps[1] and a.run.config.data == b.run.config.data


def _source(side: Side, line: Sample) -> Any:
    return (side.state.edits[line.id].ok or {}).get("source_sha256")


def not_comparable(a: Side, b: Side) -> list[str]:
    """What makes two numbers ones of different kinds: another judge, other rubrics, another scale. What only one run
    knows of its judge (a commit, before the download) contradicts nothing."""
    facts = [_flat(by_content(side.run.config.scorers[side.scorer], side.says(side.key))) for side in (a, b)]
    lines = _facts_that_differ("judge", *facts)
    lines += [f"judge {line}" for line in contradictions(a.says(a.key), b.says(b.key))]
    if a.scale is not None and b.scale is not None and a.scale != b.scale:
        lines.append(f"scale: {a.scale} → {b.scale}")
    return lines


def cautions(a: Side, b: Side, same: Iterable[str]) -> list[str]:
    """What else differs than the editors."""
    lines = differences(a.run.config, b.run.config, ("seed", "repeats", "data"))
    seeds = sum(a.samples[i].seed != b.samples[i].seed for i in same)
    if seeds:
        lines.append(f"{seeds} samples have other seeds: a part of the difference is that of two seeds")
    known = [{key for key, fact in side.says(side.key).items() if fact is not None} for side in (a, b)]
    if known[0] != known[1]:
        lines.append(f"the judge: only one run tells its {', '.join(sorted(known[0] ^ known[1]))}")
    said = [sorted(set(_served(side))) for side in (a, b)]
    if said[0] != said[1]:
        lines.append(f"the judge's server answered as {', '.join(said[0]) or '?'} → {', '.join(said[1]) or '?'}")
    git = [str((side.provenance.get("git") or {}).get("revision", "")) for side in (a, b)]
    if all(git) and git[0] != git[1]:
        lines.append(f"slurm_bench: {git[0][:12]} → {git[1][:12]}")
    packages = [side.provenance.get("packages", {}) for side in (a, b)]
    both = packages[0].keys() & packages[1].keys()
    return lines + _facts_that_differ("package", *({key: said[key] for key in sorted(both)} for said in packages))


def _served(side: Side) -> Iterable[str]:
    for by in side.state.scores.values():
        served = info_of(by[side.scorer].ok).get("served_model")
        if isinstance(served, str):
            yield served


def _flat(plugin: PluginConfig) -> dict[str, Any]:
    return {"class_path": plugin.class_path, **{f"params.{key}": value for key, value in plugin.params.items()}}


def editors_differ(a: Side, b: Side) -> list[str]:
    one, two = (config_by_content(side.run.config, side.provenance.get("models", {})) for side in (a, b))
    lines = differences(one, two, ("editor", "rewriter"))
    return lines + [f"editor {line}" for line in contradictions(a.says("editor"), b.says("editor"))]


def _facts_that_differ(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return [f"{what} {key}: {a.get(key)!r} → {b.get(key)!r}" for key in keys]
