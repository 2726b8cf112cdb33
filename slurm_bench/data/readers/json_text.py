"""JSON as it is found: one strict decoder for every reader, and lists of any size, an element at a time.

The decoder is Python's compiled one. It keeps a lone surrogate as such, where others write a question mark that then
reads as the author's own. Broken UTF-8 becomes U+FFFD in its own element alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from slurm_bench.data.readers.encoding import utf8_chunks
from slurm_bench.errors import UserError

_MAX_DEPTH = 32
_MAX_ELEMENT = 512 * 1024 * 1024
_STRUCTURE = re.compile(rb'["\[\]{},]')


def decode(text: str, nan: bool = False) -> Any:
    """A JSON value. Raises ValueError in one short line; a key twice in one object is refused too, and so is NaN unless
    `nan` allows it: what pandas writes for an empty cell."""
    try:
        return (_DECODER_WITH_NAN if nan else _DECODER).decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(str(error)[:120]) from None


def stream_list(file: Path, encoding: str | None = None, nan: bool = False) -> Iterator[tuple[int, Any]]:
    """(line, value) of each element of a JSON list, one in memory at a time. Raises UserError."""
    for position, (line, element) in enumerate(_elements(file, encoding), 1):
        try:
            yield line, decode(element.decode("utf-8", "replace"), nan)
        except ValueError as error:
            raise _refusal(file, line, position, str(error)) from None


def read_object(file: Path, encoding: str | None = None) -> dict[str, Any]:
    """The one JSON object that a file is, read whole. Raises UserError."""
    text = bytearray()
    for chunk in utf8_chunks(file, encoding):
        text += chunk
        if len(text) > _MAX_ELEMENT:
            raise UserError(f"{file}: more than {_MAX_ELEMENT} bytes; the reader wants one JSON object")
    if not text.strip():
        raise UserError(f"{file}: not a JSON object: the file is empty")
    try:
        found = decode(text.decode("utf-8", "replace"), nan=True)
    except ValueError as error:
        raise UserError(f"{file}: not a whole JSON object: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds a JSON {type(found).__name__}; the reader wants one object with named entries")
    return found


def _elements(file: Path, encoding: str | None) -> Iterator[tuple[int, bytes]]:
    """(line, text) of each element. Only strings and brackets are looked at, with compiled searches: what stands
    between them is the decoder's to judge."""
    chunks = utf8_chunks(file, encoding)
    text = bytearray()
    line, place = _after_opening(file, chunks, text)
    start, string, depth, position = place, -1, 1, 1  # `string`: where the open string begins, -1 outside of one
    while depth:
        if string >= 0 and (end := _string_end(text, string, place)) >= 0:
            string, place = -1, end
        token = _STRUCTURE.search(text, place) if string < 0 else None
        if token is None:
            chunk = next(chunks, None)
            if chunk is None:
                raise _refusal(file, line, position, "the file ends within it")
            if len(text) - start > _MAX_ELEMENT:
                raise _refusal(file, line, position, f"it has more than {_MAX_ELEMENT} bytes; is a quote missing?")
            string, place = string - start if string >= 0 else -1, len(text) - start
            del text[:start]
            text += chunk
            start = 0
            continue
        place, sign = token.end(), token[0]
        if sign == b'"':
            string = token.start()
        elif sign in b"[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise UserError(f"{file}:{line}: item {position} is nested more than {_MAX_DEPTH} deep")
        elif sign in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and sign == b","):
            element = bytes(text[start : token.start()])
            if position > 1 or sign == b"," or element.strip():
                yield line + element[: len(element) - len(element.lstrip())].count(b"\n"), element
            lines = element.count(b"\n") if b"\n" in element else 0  # `in` is far quicker than `count`
            line, position, start = line + lines, position + 1, place
    for rest in chain((bytes(text[place:]),), chunks):
        if rest.strip():
            raise _refusal(file, line, position, "more text follows the list")


def _after_opening(file: Path, chunks: Iterator[bytes], text: bytearray) -> tuple[int, int]:
    """The line and the place after the list's bracket, with `text` filled until there. Raises UserError."""
    while not text.strip():
        chunk = next(chunks, None)
        if chunk is None:
            raise _refusal(file, 1, 1, "the file is empty")
        text += chunk
    place = len(text) - len(text.lstrip())
    kind = {b"{": "object", b'"': "string"}.get(bytes(text[place : place + 1]))
    if kind:
        mend = " (for one a line say data.reader=jsonl)" if kind == "object" else ""
        raise UserError(f"{file}: it begins with a JSON {kind}; the reader wants a list of objects{mend}")
    if text[place] != ord("["):
        raise _refusal(file, 1, 1, f"it begins with {bytes(text[place : place + 12])!r}")
    return 1 + text.count(b"\n", 0, place), place + 1


def _string_end(text: bytearray, string: int, place: int) -> int:
    """Where the string that began at `string` is over, searched from `place`, or -1. A quote after an odd number of
    backslashes is part of it."""
    while (place := text.find(b'"', max(place, string + 1))) >= 0:
        backslash = place
        while text[backslash - 1] == ord("\\"):
            backslash -= 1
        place += 1
        if (place - 1 - backslash) % 2 == 0:
            return place
    return -1


def _refusal(file: Path, line: int, position: int, detail: str) -> UserError:
    return UserError(f"{file}:{line}: not a whole JSON list: {' '.join(detail.split())} (at item {position})")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice[:40])} stands twice in one object; remove one")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)
_DECODER_WITH_NAN = json.JSONDecoder(object_pairs_hook=_object)
