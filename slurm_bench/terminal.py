"""The terminal, or whatever a launcher prints to: it may not know a character, and it may go away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slurm_bench.logs import hide_secrets

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def take_any_character() -> None:
    """What an encoding like latin-1 lacks is printed escaped; where there is no stream (`>&-`) it goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def heard_or_not() -> Iterator[None]:
    """What is printed here stops nothing: whoever reads it may have gone (`| head`), or its disk be full."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        stop_printing()


def stop_printing() -> None:
    """What is still to be printed goes nowhere, also what Python has buffered and would complain of in the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def one_line(text: str) -> str:
    """Nothing that a terminal would act on, and no secret: what went wrong may quote a file, or what it was given."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(hide_secrets(text).splitlines()))


def console() -> Console:
    """For tables: as wide as the terminal, and in a file wide enough for them."""
    from rich.console import Console

    class Heard(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit by 1, which says that the user erred

    return Heard(width=None if sys.stdout.isatty() else 400)


def print_table(console: Console, table: Table) -> None:
    """In a terminal too narrow for it a paragraph a row: a number that is cut is another number."""
    from rich.measure import Measurement
    from rich.padding import Padding
    from rich.text import Text

    boundless = console.options.update_width(1 << 16)
    if not table.row_count or Measurement.get(console, boundless, table).maximum <= console.width:
        console.print(table)
        return
    names, *rows = zip(*((column.header, *column.cells) for column in table.columns), strict=True)
    if table.title:
        console.print(table.title, style=table.title_style, highlight=False)
    for first, *rest in rows:
        if first:  # else it goes on
            console.print(Text.from_markup(f"{names[0]} {first}".strip()))
        told = ", ".join(f"{name} {cell}".strip() for name, cell in zip(names[1:], rest, strict=True) if cell)
        console.print(Padding(Text.from_markup(told), (0, 0, 0, 2), expand=False))
