"""Micro-batches of a judge: preprocessed in a thread, also across calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from slurm_bench.scorers.qwen3vl.micro_batches import MicroBatches


@dataclass(frozen=True)
class Word:
    text: str

    @property
    def key(self) -> str:
        return self.text

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def alike(self) -> str:
        """Words that begin with the same letter in capitals are."""
        return self.text[0] if self.text[0].isupper() else self.text


def words(*texts: str) -> list[Word]:
    return [Word(text) for text in texts]


class Kitchen:
    """Notes what was prepared; `broken` can't be, and is only an error where it is asked for."""

    def __init__(self) -> None:
        self.prepared: list[list[str]] = []
        self.seen = threading.Condition()
        self.broken: str | None = None

    def __call__(self, part: Sequence[Word]) -> str:
        texts = [word.text for word in part]
        with self.seen:
            self.prepared.append(texts)
            self.seen.notify_all()
        if self.broken in texts:
            raise MemoryError
        return "+".join(texts)

    def wait_for(self, *texts: str) -> None:
        with self.seen:
            assert self.seen.wait_for(lambda: list(texts) in self.prepared, 120), self.prepared


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


@pytest.fixture
def batches(kitchen: Kitchen) -> Iterator[MicroBatches[Word]]:
    made: MicroBatches[Word] = MicroBatches(kitchen, size=3, first=1)
    yield made
    made.close()


def test_all_come_once_like_with_like_and_the_first_are_few(batches: MicroBatches[Word]) -> None:
    found = list(batches.split(words("ccc", "a", "dddd", "bb", "eeeee")))
    assert [inputs for _, inputs in found] == ["a", "bb+ccc+dddd", "eeeee"]
    assert list(batches.split([])) == []


def test_what_is_alike_comes_together(batches: MicroBatches[Word]) -> None:
    found = list(batches.split(words("Aaaa", "bb", "A", "Ccccc", "dddddd", "Cc", "Aa", "C", "Cccccccc")))
    assert [inputs for _, inputs in found] == ["A+Aa+Aaaa", "C+Cc+Ccccc", "Cccccccc+bb+dddddd"]


def test_the_next_calls_first_are_prepared_while_the_last_of_this_are_at_work(
    batches: MicroBatches[Word], kitchen: Kitchen
) -> None:
    following = words("7777777", "88888888", "666666", "999999999")
    batches.prefetch(lambda: following)
    for _, inputs in batches.split(words("a", "bb")):
        if inputs == "bb":
            kitchen.wait_for("666666", "7777777", "88888888")
    assert [inputs for _, inputs in batches.split(following)] == ["666666+7777777+88888888", "999999999"]
    batches.close()
    assert len(kitchen.prepared) == 4, "nothing twice"


@pytest.mark.parametrize("came", [("a", "bb"), ("7777777",), ()])
def test_what_was_expected_and_does_not_come_is_dropped(batches: MicroBatches[Word], came: tuple[str, ...]) -> None:
    batches.prefetch(lambda: words("7777777", "88888888"))
    list(batches.split(words("x")))
    assert sorted(word.text for part, _ in batches.split(words(*came)) for word in part) == sorted(came)


def test_a_head_start_that_failed_is_no_failure(batches: MicroBatches[Word], kitchen: Kitchen) -> None:
    def unreadable() -> list[Word]:
        raise OSError("gone")

    for coming in (unreadable, lambda: words("broken"), list):
        kitchen.broken = "broken"
        batches.prefetch(coming)
        list(batches.split(words("x")))
        kitchen.broken = None
        assert [inputs for _, inputs in batches.split(words("broken"))] == ["broken"]
