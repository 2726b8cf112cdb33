"""Which nodes to leave out of the next attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from slurm_bench.run.journal import DONE, STOPPED, TaskProcess

# So many tasks have to fail on a node on which others came right before it is held against the node.
REPEATEDLY = 2


def bad_nodes(processes: Iterable[TaskProcess], nodes: Sequence[str]) -> list[str]:
    """Nodes on which tasks failed and none succeeded, though some did elsewhere; and nodes on which tasks failed
    repeatedly and more often than they succeeded. Never all of them.

    What counts of a task is how its last process ended. One that was asked to stop (preempted, cancelled, at its time
    limit) says nothing against its node; one that was killed, could not load its model, lost its GPU or failed on
    every sample does.
    """
    last: Mapping[tuple[str, int, int], TaskProcess] = {(p.stage, p.attempt, p.task): p for p in processes}
    failed, succeeded = Counter[str](), Counter[str]()
    for process in last.values():
        if process.end == DONE and (process.ok or process.failed < 2):
            succeeded[process.node] += 1
        elif process.end != STOPPED and not process.told_early:
            failed[process.node] += 1

    def is_bad(node: str) -> bool:
        if not succeeded[node] and succeeded.total():
            return failed[node] > 0
        return failed[node] >= REPEATEDLY and failed[node] > succeeded[node]

    bad = [node for node in nodes if is_bad(node)]
    return bad if set(nodes) - set(bad) else []
