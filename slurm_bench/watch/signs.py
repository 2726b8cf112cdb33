"""How a kind of fault is told from others by its symptom: the tests that kinds.py puts together."""

from __future__ import annotations

import re
from collections.abc import Callable

from slurm_bench.run.journal import STOPPED
from slurm_bench.watch.symptoms import Symptom

Test = Callable[[Symptom], bool]


def at(*where: str) -> Test:
    return lambda symptom: symptom.where in where


def says(pattern: str) -> Test:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda symptom: found.search(symptom.words) is not None


def slurm_says(pattern: str) -> Test:
    """Slurm itself said it of what it did to a job. A plug-in's own words (`ReadTimeout`) tell nothing of that."""
    found = re.compile(pattern)
    return lambda symptom: found.search(symptom.slurm) is not None


def ended(how: str) -> Test:
    return lambda symptom: symptom.end == how


def signalled(name: str = "SIG") -> Test:
    """It left as a signal told it to."""
    return every(ended(STOPPED), says(f"^{name}"))


def left(*codes: int) -> Test:
    """The process left with one of these exit statuses (negative: a signal)."""
    return lambda symptom: symptom.end is None and symptom.exit in codes


def died(pattern: str) -> Test:
    """A sample was given up because its processes ended so. What a plug-in says of a program of its own (`ffmpeg left
    with exit code 1`) tells nothing of that."""
    return every(at("sample", "systematic"), says(f"^(its process died .*)?({pattern})"))


def every(*tests: Test) -> Test:
    return lambda symptom: all(test(symptom) for test in tests)


def any_of(*tests: Test) -> Test:
    return lambda symptom: any(test(symptom) for test in tests)


def no(test: Test) -> Test:
    return lambda symptom: not test(symptom)


def waits(pattern: str) -> Test:
    return every(at("waiting"), says(pattern))
