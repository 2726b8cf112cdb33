"""Wrong usage, exit code 2: the nearest right verb or option is named."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from slurm_bench.command import command


class Parser(argparse.ArgumentParser):
    """Names the nearest right option, the verbs that have it, by `verbs_with`, or the way to hand one to sbatch."""

    verbs_with: Callable[[str], Sequence[str]] = staticmethod(lambda option: ())

    def error(self, message: str) -> NoReturn:
        wrong = [word.partition("=")[0] for word in message.split() if word.startswith("-")]
        if message.startswith("unrecognized arguments") and wrong:
            close = difflib.get_close_matches(wrong[0], self._option_string_actions, n=1, cutoff=0.75)
            sbatch = f"for one of sbatch type slurm.{wrong[0].lstrip('-').replace('-', '_')}=…"
            takes_settings = any(action.dest == "overrides" for action in self._actions)
            ways = [f"did you mean {close[0]}?"] if close else []
            if elsewhere := self.verbs_with(wrong[0]):
                ways += [f"{wrong[0]} is an option of {', '.join(elsewhere)}"]
            elif takes_settings:
                ways += [sbatch]
            message += "".join(f"; {way}" for way in ways)
        super().error(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A choice that there isn't: Python's own words list all of them and name none."""
        if action.choices is not None and value not in action.choices:
            close = difflib.get_close_matches(str(value), map(str, action.choices), n=1)
            known = f"did you mean {close[0]}?" if close else f"there are {', '.join(map(str, action.choices))}"
            raise argparse.ArgumentError(action, f"there is no {value!r}; {known}")


class Once(argparse.Action):
    """An option that can be said once: of two the first would be passed over without a word."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest) not in (self.default, values):
            raise argparse.ArgumentError(self, "said twice, and there can be one; set what differs as key=value")
        setattr(namespace, self.dest, values)


class Several(argparse.Action):
    """What must be there twice at least."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if len(values) < 2:
            raise argparse.ArgumentError(None, f"name two of {self.metavar} or more")
        setattr(namespace, self.dest, values)


def at_home(text: str) -> Path:
    """A path as it was meant. Of `--run-dir=~/a` a shell hands on the `~`, by which a folder would be made here."""
    return Path(os.path.expanduser(text))


def refuse_no_setting(parser: argparse.ArgumentParser, word: str, verbs: Iterable[str]) -> None:
    """A word that is neither a verb nor key=value: a run folder without a verb, or a verb mistyped."""
    verbs = list(verbs)
    if "=" in word:
        return
    if os.path.isfile(Path(word) / "config.yaml"):  # also of a word too long for a path
        ways = ", ".join(command(verb, word) for verb in ("status", "resubmit"))
        parser.error(f"{word!r} is a run folder; say what to do with it: {ways}")
    if word in verbs:
        parser.error(f"{word!r} is a verb, which stands first: {command(word)} …")
    close = difflib.get_close_matches(word, verbs, n=1)
    known = f"did you mean {close[0]}?" if close else f"there are {', '.join(verbs)}"
    parser.error(f"{word!r} is neither a verb nor key=value; {known}")
