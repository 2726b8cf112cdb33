"""Editors and scorers that misbehave on purpose; each is told how by its params."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageChops

from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import ServiceDown, UserError
from slurm_bench.scorers.base import Scored, ScoreRequest


def once(folder: str, name: str) -> bool:
    """True for the first to ask, of all processes."""
    try:
        Path(folder, name).open("x").close()
    except FileExistsError:
        return False
    return True


class Tint:
    """Adds a colour drawn from the seed, so that a wrong seed shows. `delay` in seconds a sample."""

    def __init__(self, delay: float = 0.0, fail: Sequence[str] = (), strength: int = 1) -> None:
        self.delay, self.fail, self.strength = delay, set(fail), strength

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [self.one(request) for request in batch]

    def one(self, request: EditRequest) -> Edited | Exception:
        time.sleep(self.delay)
        if request.id in self.fail:
            return ValueError(f"{request.id} fails always")
        colour = tuple((request.seed * self.strength >> shift) & 255 for shift in (0, 8, 16))
        image = request.image.convert("RGB")
        facts = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
        return Edited(ImageChops.add_modulo(image, Image.new("RGB", image.size, colour)), facts)


class Parts(Tint):
    """Has a model to load and to prepare, and tells its seconds by part."""

    def load(self) -> None:
        time.sleep(0.02)

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        list(requests)

    def one(self, request: EditRequest) -> Edited | Exception:
        begin = time.monotonic()
        time.sleep(0.01)
        text = time.monotonic() - begin
        done = super().one(request)
        parts = {"text": text, "denoise": time.monotonic() - begin - text}
        return Edited(done.image, {"seconds": parts}) if isinstance(done, Edited) else done


class OneIsSlow(Tint):
    """The first of its tasks takes so many times as long for a sample as the others."""

    def __init__(self, marks: str, delay: float, times: float) -> None:
        super().__init__(delay)
        self.marks, self.times = marks, times

    def load(self) -> None:
        if once(self.marks, "slow"):
            self.delay *= self.times


class DiesOnBothSides(Tint):
    """The task of s-0 is slow and waits at its third sample, so that the other one, which waits for its first, takes of
    its slice; each dies once in that."""

    def __init__(self, marks: str) -> None:
        super().__init__()
        self.marks, self.slices, self.count = marks, set[int](), 0

    def one(self, request: EditRequest) -> Edited | Exception:
        self.slices.add(int(request.id.partition("-")[2]) % 2)
        self.count += 1
        time.sleep(0.6 if self.slices == {0} and self.count < 3 else 0.15)
        if self.slices == {0}:
            Path(self.marks, "begun").touch()
        else:
            self.wait_for("begun", "nobody begins with the slice of s-0")
        if self.slices == {0} and self.count == 3:
            self.wait_for("taker", "nobody takes of this slice")
        if len(self.slices) > 1 and once(self.marks, "taker"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.slices == {0} and Path(self.marks, "taker").exists() and once(self.marks, "owner"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().one(request)

    def wait_for(self, mark: str, complaint: str) -> None:
        patience = time.monotonic() + 600
        while not Path(self.marks, mark).exists():
            assert time.monotonic() < patience, complaint
            time.sleep(0.05)


class Signs(Tint):
    """Needs a key, and tells no more of it than its length."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def one(self, request: EditRequest) -> Edited | Exception:
        done = super().one(request)
        return Edited(done.image, {"key_length": len(self.key)}) if isinstance(done, Edited) else done


class QuotesItsKey(Tint):
    """Says its key in all that it says: in what it raises, in its last words, in its facts, as part of an address."""

    def __init__(self, key: str, fail: Sequence[str] = (), exits: Sequence[str] = (), marks: str | None = None) -> None:
        super().__init__(fail=fail)
        if "," in key:
            raise ValueError(f"the key '{key}' has a comma in it")
        self.key, self.exits, self.marks = key, exits, marks

    def load(self) -> None:
        if self.marks and once(self.marks, "refused"):
            raise RuntimeError(f"no model for {self.key!r}")

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id in self.exits:
            sys.exit(f"please pay for {self.key}")
        if request.id in self.fail:
            raise ValueError(f"the service refused the key {self.key}")
        done = super().one(request)
        facts = {"asked": f"https://example.org/?key={quote(self.key)}", "keys": [self.key]}
        return Edited(done.image, facts) if isinstance(done, Edited) else done


class InHand(Tint):
    """Has done `after` samples, and has the next one in hand until its process is told to leave, or a file is there."""

    def __init__(self, mark: str, after: int = 0, delay: float = 0.0) -> None:
        super().__init__(delay)
        self.mark, self.left, self.told, self.listens = Path(mark), after, False, False

    def one(self, request: EditRequest) -> Edited | Exception:
        if self.left:
            self.left -= 1
            return super().one(request)
        if not self.listens:
            self.listens = True
            for number in (signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, partial(self.hear, signal.getsignal(number)))
        while not self.told and not self.mark.exists():
            time.sleep(0.05)
        return super().one(request)

    def hear(self, others: Any, *given: Any) -> None:
        self.told = True
        others(*given)


class Unlicensed(Tint):
    """As native code that says why, and ends its process."""

    def one(self, request: EditRequest) -> Edited | Exception:
        os.write(2, b"libfoo: no licence for this host\n")
        os._exit(3)


class DiesOnce(InHand):
    """Kills its own process with `number` at sample `at`, once for the whole run."""

    def __init__(
        self,
        marks: str,
        at: str,
        number: int = signal.SIGKILL,
        delay: float = 0.0,
        mark: str = os.devnull,
        after: int = 0,
    ) -> None:
        super().__init__(mark, after, delay)
        self.marks, self.at, self.number = marks, at, number

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == self.at and once(self.marks, "died"):
            os.kill(os.getpid(), self.number)
            time.sleep(5)
        return super().one(request)


class Breaks(Tint):
    """Has a breakpoint in it."""

    def one(self, request: EditRequest) -> Edited | Exception:
        breakpoint()
        return super().one(request)


class WaitsFor(Tint):
    """Edits nothing until a file is there."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = Path(mark)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        while not self.mark.exists():
            time.sleep(0.05)
        return super().edit(batch)


class DiesOnNode(Tint):
    """Kills its process wherever it finds itself on the node of this name."""

    def __init__(self, node: str) -> None:
        super().__init__(0.5)
        self.node = node

    def one(self, request: EditRequest) -> Edited | Exception:
        if os.environ.get("SLURMD_NODENAME") == self.node:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().one(request)


class Starved(Tint):
    """Out of memory beyond `fits` samples at once. Its images must not show it."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        if len(batch) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().edit(batch)


class PoisonedOnce(Tint):
    """Loses its GPU at sample `at`, once for the whole run, as CUDA does: every later call fails too."""

    def __init__(self, marks: str, at: str) -> None:
        super().__init__()
        self.marks, self.at, self.lost = marks, at, False

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        self.lost |= any(r.id == self.at for r in batch) and once(self.marks, "poisoned")
        if self.lost:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().edit(batch)


class FailsOnce(Tint):
    """Each sample's first try fails; the second comes right."""

    def __init__(self, marks: str) -> None:
        super().__init__()
        self.marks = marks

    def one(self, request: EditRequest) -> Edited | Exception:
        if once(self.marks, f"tried-{request.seed}"):
            raise OSError("the network blinked")
        return super().one(request)


class Kills(Tint):
    """Ends its own process at one sample, always: by a signal's number, `exit` (os._exit) or `words` (sys.exit)."""

    def __init__(self, at: str, how: str | int) -> None:
        super().__init__()
        self.at, self.how = at, how

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == self.at:
            if self.how == "exit":
                os._exit(7)
            if self.how == "words":
                sys.exit("please set FOO")
            os.kill(os.getpid(), int(self.how))
        return super().one(request)


class EveryWay(Tint):
    """Each of the first samples fails in its own way; `Kills` and friends in one run."""

    def one(self, request: EditRequest) -> Edited | Exception:
        ways = {
            "s-0": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "s-1": lambda: os.kill(os.getpid(), signal.SIGSEGV),
            "s-2": lambda: os._exit(137),
            "s-3": lambda: os._exit(7),
            "s-4": lambda: sys.exit("please set FOO"),
            "s-5": lambda: bytearray(1 << 60),
            "s-6": lambda: _raise(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
            "s-7": lambda: _raise(ValueError("no \x1b[31mred\r here")),
        }
        if request.id in ways:
            ways[request.id]()
        return super().one(request)


def _raise(error: Exception) -> None:
    raise error


class Away(Tint):
    """Needs a service that is down."""

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [ServiceDown("http://localhost:1 refuses the connection")] * len(batch)


class Fills(Tint):
    """Fills the disk that `file` is on."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def one(self, request: EditRequest) -> Edited | Exception:
        with suppress(OSError), open(self.file, "ab", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        return super().one(request)


class Hoards(Tint):
    """Takes so much host memory, and holds it for a while."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.megabytes = megabytes

    def one(self, request: EditRequest) -> Edited | Exception:
        hoard = b"x" * (self.megabytes << 20)
        time.sleep(20)
        del hoard
        return super().one(request)


class Refuses(Tint):
    """Finds at load that its model isn't there."""

    def load(self) -> None:
        raise UserError("'editor.params.model': no model /nowhere")


class KillsTwo(Tint):
    """Dies at s-0 and at s-3, always."""

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id in ("s-0", "s-3"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().one(request)


class FailsOrDies(Tint):
    """Nothing comes right: s-0 fails, and all others end their process."""

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-0":
            return ValueError("no")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class FailsOnNode(Tint):
    """Every call fails on the node of this name, as with a broken driver."""

    def __init__(self, node: str) -> None:
        super().__init__(0.2)
        self.node = node

    def one(self, request: EditRequest) -> Edited | Exception:
        if os.environ.get("SLURMD_NODENAME") == self.node:
            raise RuntimeError("no kernel image is available for execution on the device")
        return super().one(request)


class LacksAKey(Tint):
    """Its traceback has a line of `^`."""

    def load(self) -> None:
        self.weights = dict[str, str]()["weights"] + "1"


class Unloadable(Tint):
    def load(self) -> None:
        raise RuntimeError("no such weights")


class LoadsAtSecond(Tint):
    """The first task of all can't load its model."""

    def __init__(self, marks: str, delay: float = 0.0) -> None:
        super().__init__(delay)
        self.marks = marks

    def load(self) -> None:
        if once(self.marks, "tried"):
            raise RuntimeError("the file server blinked")


class Loads(Tint):
    """Notes when it began and ended loading."""

    def __init__(self, marks: str, seconds: float, delay: float = 0.0) -> None:
        super().__init__(delay=delay)
        self.marks, self.seconds = marks, seconds

    def load(self) -> None:
        start = time.monotonic()
        time.sleep(self.seconds)
        Path(self.marks, f"load-{os.getpid()}").write_text(f"{start} {time.monotonic()}")


class WrongAnswers(Tint):
    """Each sample gets another kind of nonsense, told by its index in the id."""

    def one(self, request: EditRequest) -> Edited | Exception:
        kinds = [None, "an image", Image.new("RGB", (0, 5)), Edited(request.image, {"bad": float("nan")})]
        n = int(request.id.rsplit("-", 1)[-1])
        return kinds[n] if n < len(kinds) else super().one(request)  # type: ignore[return-value]


class Brightness:
    """The edited image's mean, 0 to 255: equal images, equal scores."""

    score_range = (0, 255)

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float]]:
        time.sleep(self.delay)
        return [{"brightness": _mean(r.edited), "distance": abs(_mean(r.edited) - _mean(r.source))} for r in batch]


class ByRubric(Brightness):
    """Has rubrics, one of them mistyped."""

    rubric_names = ("physical", "casual", "default")


class Judge:
    """Says what it is told to for each sample: a number, NaN, out of range, or nothing that parses."""

    score_range = (0, 10)

    def __init__(self, answers: dict[str, float | str]) -> None:
        self.answers = answers

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored]:
        replies = [self.answers.get(request.id, 5.0) for request in batch]
        return [
            Scored({}, raw=reply, parse="no score in the reply")
            if isinstance(reply, str) and reply != "nan"
            else Scored({"overall": float(reply)}, raw=str(reply))
            for reply in replies
        ]


class NotAnEditor:
    pass


def _mean(image: Image.Image) -> float:
    histogram = image.convert("L").histogram()
    return sum(level * count for level, count in enumerate(histogram)) / sum(histogram)


class AtNight:
    """A rewriter by which the Pillow editor understands whatever a benchmark says."""

    def rewrite(self, request: EditRequest) -> str:
        return f"{request.instruction}, at night"
