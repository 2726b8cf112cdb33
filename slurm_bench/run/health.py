"""Which nodes to leave out of the next attempt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from slurm_bench.run.attempts import Attempt
from slurm_bench.run.journal import DONE, LOST, STOPPED, TaskProcess

# So many tasks have to fail on a node on which others came right before it is held against the node.
REPEATEDLY = 2


def bad_nodes(processes: Iterable[TaskProcess], nodes: Sequence[str]) -> list[str]:
    """Nodes on which tasks failed and none succeeded, though some of that stage did elsewhere; and nodes on which tasks
    failed repeatedly and more often than they succeeded. Never all of them.

    What counts of a task is how its last process ended. One that was asked to stop (preempted, cancelled, at its time
    limit) says nothing against its node, nor does one that died with a sample in hand with which a process died on
    another node; one that was killed, could not load its model, lost its GPU or failed on every sample does.
    """
    processes = list(processes)
    last: Mapping[tuple[str, int, int], TaskProcess] = {(p.stage, p.attempt, p.task): p for p in processes}
    died_on: Mapping[tuple[str, str], set[str]] = defaultdict(set)
    for process in processes:
        if process.end in (None, LOST):
            for sample_id in process.in_hand:
                died_on[process.plugin, sample_id].add(process.node)
    good = [process for process in last.values() if _came_right(process)]
    ill = [process for process in last.values() if not (_came_right(process) or process.end == STOPPED)]
    ill = [p for p in ill if not p.told_early and all(len(died_on[p.plugin, i]) < 2 for i in p.in_hand)]
    failed, succeeded = Counter(process.node for process in ill), Counter(process.node for process in good)
    passed = {process.stage for process in good}
    alone = {process.node for process in ill if process.stage in passed} - succeeded.keys()

    def is_bad(node: str) -> bool:
        return node in alone or (failed[node] >= REPEATEDLY and failed[node] > succeeded[node])

    bad = [node for node in nodes if is_bad(node)]
    return bad if set(nodes) - set(bad) else []


def telling(attempts: Sequence[Attempt], by: Mapping[str, str]) -> set[tuple[str, int]]:
    """The attempts, oldest first, by which a node may be judged: neither of plug-ins that were all replaced since nor
    from before jobs were started otherwise. `by` has the configured plug-ins' marks."""
    since = max((n for n, attempt in enumerate(attempts) if attempt.anew), default=0)
    return {(attempt.stage, attempt.number) for attempt in attempts[since:] if _of_present(attempt, by)}


def _of_present(attempt: Attempt, by: Mapping[str, str]) -> bool:
    prefix = "editor" if attempt.stage == "edit" else "scorers."
    own = {key: mark for key, mark in attempt.by.items() if key.startswith(prefix)}
    return not (own and by) or any(by.get(key) == mark for key, mark in own.items())


def _came_right(process: TaskProcess) -> bool:
    return process.end == DONE and (process.ok > 0 or process.failed < 2)
