"""Which nodes to leave out of the next attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from slurm_bench.run.journal import DONE, STOPPED, TaskEnd

# So many tasks have to die on a node before it is held against the node.
REPEATEDLY = 2


def bad_nodes(ends: Iterable[TaskEnd], nodes: Sequence[str]) -> list[str]:
    """Nodes on which tasks failed repeatedly and more often than they succeeded, unless no other would be left.

    A task that was asked to stop (preempted, cancelled, at its time limit) says nothing against its node; one
    that was killed, could not load its model or lost its GPU does.
    """
    failed, succeeded = Counter[str](), Counter[str]()
    for end in ends:
        if end.end == DONE:
            succeeded[end.node] += 1
        elif end.end != STOPPED or "context is lost" in end.message:
            failed[end.node] += 1
    bad = sorted(n for n in failed if n in nodes and failed[n] >= REPEATEDLY and failed[n] > succeeded[n])
    return bad if set(nodes) - set(bad) else []
