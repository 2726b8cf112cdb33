"""Text files in whatever encoding: UTF-8 unless `data.encoding` says otherwise, and never guessed in silence."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from slurm_bench.data.formats.kinds import no_table
from slurm_bench.errors import UserError

CHUNK = 1024 * 1024
_HEAD = 64 * 1024
_MENDS = {
    "utf-16": "say data.encoding=utf-16, or save it as UTF-8",
    "gb18030": "if it is GBK, say data.encoding=gb18030; else name its encoding, or save it as UTF-8",
}


class OtherEncoding(UserError):
    """The file is text in another encoding than UTF-8."""

    def __init__(self, file: Path, encoding: str, mend: str) -> None:
        super().__init__(f"{file}: it isn't UTF-8 but reads as {encoding.upper()}; {mend}")
        self.encoding = encoding


def utf8_chunks(file: Path, encoding: str | None) -> Iterator[bytes]:
    """The file's bytes as UTF-8, without a byte-order mark. Raises UserError where it is plainly another encoding.

    Bytes that don't fit in are left to whoever decodes an element, so that they spoil no other.
    """
    decoder = decoder_of(encoding) if encoding else None
    try:
        with file.open("rb", buffering=_HEAD) as raw:
            if decoder is None:
                head = raw.peek()  # type: ignore[attr-defined]
                _refuse_foreign(head, file)
                raw.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            mark = "\ufeff"
            while chunk := raw.read(CHUNK):
                if decoder is None:
                    yield chunk
                elif text := decoder.decode(chunk):
                    yield text.removeprefix(mark).encode()
                    mark = ""
            if decoder:
                yield decoder.decode(b"", final=True).encode()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def utf8_lines(file: Path, encoding: str | None) -> Iterator[bytes]:
    """The file's lines as UTF-8, without their newlines, one in memory at a time."""
    begun: list[bytes] = []
    for chunk in utf8_chunks(file, encoding):
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for line in others:
            yield b"".join(begun)
            begun = [line]
    yield b"".join(begun)


def decoder_of(encoding: str) -> codecs.IncrementalDecoder:
    """Bytes that don't fit in become U+FFFD. Raises UserError."""
    try:
        return codecs.getincrementaldecoder(encoding)("replace")
    except LookupError:
        raise UserError(f"'data.encoding': no encoding '{encoding}'; try utf-8, utf-16, gb18030, cp1252") from None


def _refuse_foreign(start: bytes, file: Path) -> None:
    if other := no_table(start):
        raise UserError(f"{file}: it is no text but {other}")
    encoding = _foreign(start)
    if encoding:
        raise OtherEncoding(file, encoding, _MENDS[encoding])


def _foreign(head: bytes) -> str:
    """ "utf-16" or "gb18030" where the text can hardly be anything else, else ""."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head[:64].count(0) * 4 > len(head[:64]):
        return "utf-16"
    lines = [line for line in head.splitlines() if not line.isascii()]
    broken = [line for line in lines if _decoded(line, "utf-8") is None]
    if len(broken) * 2 <= len(lines):
        return ""
    texts = [_decoded(line, "gb18030") for line in broken]
    return "gb18030" if None not in texts and _everyday_chinese("".join(filter(None, texts))) else ""


def _decoded(line: bytes, encoding: str) -> str | None:
    """The text, but for a character cut at its end; None where it isn't in that encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(line)
    except UnicodeDecodeError:
        return None


def _everyday_chinese(text: str) -> bool:
    """Whether most of what isn't ASCII stands in GB 2312's first level or its punctuation. Another encoding's bytes
    read as GBK make rare characters."""
    codes = [char.encode("gb18030") for char in text if not char.isascii()]
    return sum(0xA1 <= code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7 for code in codes) * 4 > len(codes) * 3 > 3
