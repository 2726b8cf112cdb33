"""How the tasks of an attempt share its samples: each does its own slice from the front, and whoever is done takes what
the others have not begun, from the end of the slice that has most of it, so that no GPU is idle while samples wait.

A slice's own task claims nothing until somebody else has; from then on it asks for each block before it begins it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from slurm_bench.config import Config
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.claims import Claims, Holder, blocks_of
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.stages.peer import Peer

# So many slices a task looks at; in a larger array each looks at others, by chance, or all would ask for all.
LOOKS_AT = 64
# Seconds of work that a slice's own task must still have before it for others to take of it: less is done before
# anybody would gain by it, and in a small run every sample stays in its slice.
WORTH = 1.0


# Ids of other slices → those of their samples that have to be done.
Picker = Callable[[Sequence[str]], Sequence[Sample]]


def may_share(config: Config, attempt: Attempt, plugin: object) -> bool:
    """Is there anybody to share with, and may this plug-in's samples change hands? In one process, task after task,
    the first would do all of it."""
    others = attempt.slices > 1 and attempt.executor != "debug"
    return others and config.takeover != "never" and bool(getattr(plugin, "takes_over", True))


def window_of(attempt: Attempt, task: int) -> list[int]:
    """The tasks whose slices a task looks at: from the next one on, or some by chance."""
    count = attempt.slices
    others = [(task + n) % count for n in range(1, count)]
    return random.Random(task).sample(others, LOOKS_AT) if len(others) > LOOKS_AT else others


class Share:
    """One process's part of an attempt, for one plug-in. Without `on` it is the task's slice, and nothing else.
    `died_before` is what a process of an earlier attempt had in hand when it died: each stays in its slice, whose task
    does it last and alone."""

    def __init__(
        self,
        folder: RunDir,
        config: Config,
        attempt: Attempt,
        me: Holder,
        plugin: str,
        pick: Picker,
        on: bool,
        died_before: Collection[str] = (),
    ) -> None:
        self._folder, self._attempt, self._me, self._pick, self._on = folder, attempt, me, pick, on
        self._plugin, self._same_card = plugin, config.takeover == "auto"
        self._died_before = frozenset(died_before)
        self._batch_size = config.batch_size if attempt.stage == "edit" else config.score_batch_size
        self._cut: dict[int, list[Sequence[str]]] = {}
        self._tasks: dict[int, Peer] = {}
        self._claims: dict[int, Claims] = {}
        # Slice → how many samples of it are free at most: others take of it too, and nothing is ever put back.
        self._window = window_of(attempt, me.task) if on else []
        self._free = {task: len(attempt.slice(task)) for task in self._window}
        if on:
            folder.check_there()  # the plug-in's import took its time
            folder.slice_claims(attempt.stage, attempt.number, plugin, me.task).mkdir(parents=True, exist_ok=True)

    def wanted(self) -> bool:
        """Does anybody take of this task's slice, or this one of another's? What it holds back is then waited for."""
        return self._on and (bool(self._of(self._me.task).turns()) or len(self._claims) > 1)

    def own(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Those of the task's slice that nobody else has taken by the time that they are asked for: for the first one,
        a model was loaded since this task last looked."""
        block_of = {
            sample_id: n for n, block in enumerate(self._blocks(self._me.task)) for sample_id in block if self._on
        }
        latest, mine = -1, True
        for sample in samples:
            block = block_of.get(sample.id, latest)
            if block != latest:
                latest, mine = block, self._is_mine(block, now=latest < 0)
            if mine:
                yield sample

    def left(self, samples: Iterable[Sample]) -> list[Sample]:
        """Those of the task's slice that nobody else has taken yet; takes none."""
        if not self._on:
            return list(samples)
        claims = self._of(self._me.task)
        claims.look(now=True)
        taken = {
            sample_id
            for n in claims.turns()
            if not self._was_mine(claims, n)
            for sample_id in self._blocks(self._me.task)[n]
        }
        return [sample for sample in samples if sample.id not in taken]

    def kept(self) -> list[Sample]:
        """Samples of other slices that an earlier process of this task had in hand when it died: suspects."""
        if not self._on:
            return []
        task = self._look(self._me.task)
        own = {sample_id for block in self._blocks(self._me.task) for sample_id in block}
        kept = sorted(task.in_hand - own - task.recorded)
        return list(self._pick(kept)) if kept else []

    def others_wait(self) -> bool:
        """Is there anything in other slices that nobody has begun?"""
        return self._richest() is not None or self._abandoned() is not None

    def others(self) -> Iterator[Sample]:
        """Samples of other slices, each taken when it is asked for."""
        try:
            while (found := self._take() or self._take_again()) is not None:
                task, ids = found
                if samples := self._pick(ids):
                    log.info("takes over %d samples of task %d's slice: %s", len(samples), task, samples[0].id)
                    yield from samples
        except OSError as error:
            log.warning("takes over no more of other tasks' samples: %s", error)

    def _take(self) -> tuple[int, Sequence[str]] | None:
        while (found := self._richest()) is not None:
            task, blocks = found
            for block in reversed(blocks):
                if self._claim(task, block):
                    return task, self._blocks(task)[block]
        return None

    def _richest(self) -> tuple[int, list[int]] | None:
        """The slice that has most that nobody has begun, and these blocks of it. What a slice had at the last look is
        the most that it can have, so that few are looked at."""
        fresh: dict[int, list[int]] = {}
        while self._free:
            task = max(self._free, key=lambda task: self._free[task])
            if task in fresh:
                return task, fresh[task]
            fresh[task] = self._unbegun(task)
            self._free[task] = sum(len(self._blocks(task)[block]) for block in fresh[task])
            if not fresh[task]:
                del self._free[task]
        return None

    def _unbegun(self, task: int) -> list[int]:
        """A slice's blocks behind all that its own task has recorded, but for what is claimed or in hand."""
        owner, claims = self._look(task), self._of(task)
        if self._same_card and owner.cards and owner.cards != self._cards():
            return []  # the last bits of its images would tell who made them
        claims.look(now=True)
        blocks, begun = self._blocks(task), owner.recorded
        first = next((n + 1 for n in range(len(blocks) - 1, -1, -1) if not begun.isdisjoint(blocks[n])), 0)
        hand, claimed = owner.in_hand | self._died_before, claims.turns()
        free = [n for n in range(first, len(blocks)) if n not in claimed and hand.isdisjoint(blocks[n])]
        free = [n for n in free if self._pick(blocks[n])]
        return free if self._is_worth(owner, sum(len(blocks[n]) for n in free)) else []

    def _is_worth(self, owner: Peer, count: int) -> bool:
        """Would its own task need so long for them that somebody else gains time? One that is dead does none; and one
        that hasn't started, and of which some were taken, had better not load a model for the last ones."""
        pace = owner.pace if owner.pace is not None else self._look(self._me.task).pace
        spared = not owner.processes and bool(self._of(owner.number).turns())
        return pace is None or pace * count > WORTH or spared or owner.is_dead()

    def _take_again(self) -> tuple[int, Sequence[str]] | None:
        while (found := self._abandoned()) is not None:
            task, block, ids = found
            if self._claim(task, block, self._of(task).turns()[block] + 1):
                return task, ids
        return None

    def _abandoned(self) -> tuple[int, int, Sequence[str]] | None:
        """A claimed block whose holder died before it was done, and what is left of it. What the holder had in hand
        is suspect, and stays with its task."""
        if not self._on:
            return None
        everyone = (self._me.task, *self._window)
        recorded = set[str]().union(*(self._look(task).recorded for task in everyone))
        for task in everyone:
            claims = self._of(task)
            claims.look(now=True)
            for block in claims.turns():
                left = [sample_id for sample_id in self._blocks(task)[block] if sample_id not in recorded]
                holders = claims.holders(block) if left else []
                if not holders or holders[-1] == self._me:
                    continue
                theirs = [self._look(number) for number in {holder.task for holder in holders}]
                last = self._tasks[holders[-1].task]
                # A slice's own task goes on with what an earlier process of its claimed.
                if last.is_dead(-1 if last.number == task else holders[-1].restart):
                    begun = self._died_before.union(
                        self._tasks[task].in_hand, *(t.recorded | t.in_hand for t in theirs)
                    )
                    left = [sample_id for sample_id in left if sample_id not in begun]
                    if self._pick(left):
                        return task, block, left
        return None

    def _is_mine(self, block: int, now: bool) -> bool:
        """A block of the task's own slice. Where the storage fails it is: what is done twice comes out the same."""
        claims = self._of(self._me.task)
        try:
            return not claims.look(now) or self._claim(self._me.task, block) or self._was_mine(claims, block)
        except OSError as error:
            log.warning("goes on without knowing what others take of this slice: %s", error)
            return True

    def _claim(self, task: int, block: int, turn: int = 0) -> bool:
        self._folder.check_there()
        return self._of(task).take(block, turn)

    def _was_mine(self, claims: Claims, block: int) -> bool:
        """Claimed by this process, or by an earlier one of its task."""
        holders = claims.holders(block)
        return bool(holders) and holders[-1].task == self._me.task

    def _cards(self) -> set[str]:
        own = self._tasks.get(self._me.task) or self._look(self._me.task)
        return own.cards

    def _of(self, task: int) -> Claims:
        if task not in self._claims:
            folder = self._folder.slice_claims(self._attempt.stage, self._attempt.number, self._plugin, task)
            self._claims[task] = Claims(folder, self._me)
        return self._claims[task]

    def _look(self, task: int) -> Peer:
        if task not in self._tasks:
            self._tasks[task] = Peer(self._folder, self._attempt, task, self._plugin)
        self._tasks[task].look()
        return self._tasks[task]

    def _blocks(self, task: int) -> list[Sequence[str]]:
        if task not in self._cut:
            self._cut[task] = blocks_of(self._attempt.units(task), self._batch_size)
        return self._cut[task]
