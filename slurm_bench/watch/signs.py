"""How a kind of fault is told from others by its symptom: the tests that kinds.py puts together."""

from __future__ import annotations

import re
from collections.abc import Callable

from slurm_bench.run.journal import STOPPED
from slurm_bench.watch.symptoms import Symptom

Test = Callable[[Symptom], bool]

# Of torch's words for a lack of GPU memory. Inside a container it may name no process, so that what others hold is what
# is left of the sum.
_LACK = re.compile(
    r"allocate (SIZE)\. GPU \d+ has a total capacity of (SIZE) of which (SIZE) is free\."
    r".* this process has (SIZE) memory in use".replace("SIZE", r"\d+(?:\.\d+)? \w+"),
    re.DOTALL,
)
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
# Less than this share of a GPU is taken by what a desktop or a service keeps there.
MUCH = 0.1


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


def crowded() -> Test:
    """Other processes held much of the GPU's memory, and with theirs the allocation would have been met."""

    def test(symptom: Symptom) -> bool:
        if (found := _LACK.search(symptom.words)) is None:
            return False
        asked, total, free, own = map(_bytes, found.groups())
        return total - free - own >= max(MUCH * total, asked - free)

    return test


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * _UNITS.get(unit, 0)
