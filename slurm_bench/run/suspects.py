"""Samples that were in hand when their process died (law 13)."""

from __future__ import annotations

import itertools
import signal
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from slurm_bench.errors import FinalError
from slurm_bench.run.journal import LOST, TaskProcess, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import Record

# So often must a process have died with a sample alone in hand before the sample is given up.
DEATHS = 2
# So often where it may as well have been killed from outside: its supervisor died with it (with its node, or its job),
# or each SIGKILL came after another time. A sample that takes too much memory dies after about the same time each time.
DEATHS_IN_DOUBT = 3
# Two times are about the same that differ by no more than so much of the longer one, or so many seconds.
SAME_TIME, SAME_SECONDS = 0.1, 0.2


@dataclass(frozen=True)
class Suspect:
    """`alone` are the processes that died with this sample alone in hand, where others came right on the same node or
    it died on several nodes: a node on which everything dies says nothing about a sample. `times` counts all of them:
    where nothing has come right yet, the others are tried first."""

    id: str
    alone: tuple[TaskProcess, ...]
    times: int = 0

    @property
    def convicted(self) -> bool:
        seen = [process for process in self.alone if process.exit is not None or process.end == LOST]
        pairs = itertools.combinations(seen, DEATHS)
        return len(self.alone) >= DEATHS_IN_DOUBT or any(_by_its_own_doing(*pair) for pair in pairs)

    @property
    def sentence(self) -> str:
        ways = ", ".join(dict.fromkeys(process.how for process in self.alone))
        return f"its process died {len(self.alone)} times with it alone in hand: {ways}"


def _by_its_own_doing(one: TaskProcess, other: TaskProcess) -> bool:
    """Whether the sample itself explains both deaths: two SIGKILLs at different times may as well come from outside."""
    if one.worked is None or other.worked is None or {one.exit, other.exit} != {-signal.SIGKILL}:
        return True
    return abs(one.worked - other.worked) <= max(SAME_SECONDS, SAME_TIME * max(one.worked, other.worked))


def find_suspects(
    processes: Iterable[TaskProcess],
    records: Sequence[Record],
    plugin: str,
    ids: Collection[str],
    anywhere: bool = False,
) -> list[Suspect]:
    """Those of `ids` that a dead process had in hand for that plug-in, the least suspect first. `processes` are the
    stage's, less the asking one; of these none can still be at work on these ids. With `anywhere` a node on which
    everything dies counts as well.

    A sample that was given up starts anew: what died before its last error record doesn't count again. Nor does what
    died before it came right with that plug-in (its image was lost since): then it wasn't the sample.
    """
    given_up, came_right = dict[str, float](), dict[str, float]()
    for record in records:
        if record.get("error", {}).get("type") == ProcessDied.__name__:
            given_up[record["id"]] = max(given_up.get(record["id"], 0.0), record.get("time", 0.0))
        elif record["status"] == "ok" and record.get("scorer", "editor") == plugin.removeprefix("scorers."):
            came_right[record["id"]] = max(came_right.get(record["id"], 0.0), record.get("time", 0.0))
    good_nodes = {record.get("node") for record in records if record["status"] == "ok"}
    found = []
    for sample_id, all_died in _deaths(processes, plugin).items():
        died = [p for p in all_died if p.started > came_right.get(sample_id, -1.0)]
        if sample_id not in ids or not died:
            continue
        alone = [p for p in died if p.in_hand == (sample_id,) and p.started > given_up.get(sample_id, 0.0)]
        several = len({process.node for process in alone}) > 1
        counted = tuple(p for p in alone if anywhere or several or p.node in good_nodes)
        found.append(Suspect(sample_id, counted, len(alone)))
    return sorted(found, key=lambda suspect: suspect.times)


def died_before(run: RunDir, stage: str, attempt: int, plugin: str) -> Collection[str]:
    """What processes of the attempts before this one had in hand for that plug-in when they died: suspect, whichever
    slice it is in now."""
    earlier = [process for process in read_journals(run, stage, holding=True) if process.attempt < attempt]
    return _deaths(earlier, plugin).keys()


def _deaths(processes: Iterable[TaskProcess], plugin: str) -> Mapping[str, list[TaskProcess]]:
    """Who died with a sample in hand, by its id."""
    found: Mapping[str, list[TaskProcess]] = defaultdict(list)
    for process in processes:
        if process.end in (None, LOST) and process.plugin == plugin:
            for sample_id in process.in_hand:
                found[sample_id].append(process)
    return found


class ProcessDied(FinalError):
    """This sample's process died, more than once, with the sample alone in hand. Only a person has it tried again."""
