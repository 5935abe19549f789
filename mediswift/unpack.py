"""Bytes of a file as they were before gzip, in UTF-8, as far as they can be read.

Decisions. Memory is flat: at most a few MB are unpacked at a time, however well they were packed.
Where a stream breaks, all that stands before the break is handed out, to the byte, and what was
wrong is told. The encoding is the one that the XML declares, out of those that text uses; whatever
cannot be decoded becomes a character that XML forbids, so that the record it is in is damaged, and
no other.
Refused: guessing an encoding, and Python's codecs that are no text (`zlib`, `rot13`, `utf-7`).
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

STEP = 1 << 18
"""Bytes read at a time."""
MOST = 1 << 22
"""Bytes unpacked at a time."""
GZIP = b"\x1f\x8b"

_DECLARED = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_TEXT = re.compile(
    r"utf-8|ascii|utf-16(-[lb]e)?|iso8859-\d+|cp125\d|koi8-r|gb18030|shift_jis|euc_\w+"
)
_MARKS = {
    re.compile(re.escape(codecs.BOM_UTF8)): "utf-8",
    re.compile(re.escape(codecs.BOM_UTF16_LE) + b"|" + re.escape(codecs.BOM_UTF16_BE)): "utf-16",
    re.compile(rb"<\0[^\0]\0"): "utf-16-le",
    re.compile(rb"\0<\0[^\0]"): "utf-16-be",
}
codecs.register_error("mediswift.forbidden", lambda error: ("\0", error.end))


def read(stream: BinaryIO, tell: Callable[[str], None]) -> Iterator[bytes]:
    """UTF-8 text of a file that may be packed by gzip, which its first bytes say.

    `tell` is called with a sentence for each thing that is wrong.

    >>> import gzip, io
    >>> list(read(io.BytesIO(gzip.compress(b"<a/>")), print))
    [b'<a/>']
    >>> b"".join(read(io.BytesIO(gzip.compress(b"<a/>")[:-4]), print))
    the gzip stream is cut short
    b'<a/>'
    """
    head = stream.read(STEP)
    pieces = _inflate(stream, head, tell) if head.startswith(GZIP) else _plain(stream, head)
    yield from _to_utf8(pieces, tell)


def _plain(stream: BinaryIO, piece: bytes) -> Iterator[bytes]:
    while piece:
        yield piece
        piece = stream.read(STEP)


def _inflate(stream: BinaryIO, piece: bytes, tell: Callable[[str], None]) -> Iterator[bytes]:
    """Gzip may hold several streams one after the other, and zeros after the last."""
    while piece:
        engine = zlib.decompressobj(wbits=31)  # 31: gzip, its checksum and length verified
        ended = False
        while not (engine.eof or ended):
            before = engine.copy()
            try:
                out = engine.decompress(piece, MOST) if piece else engine.flush()
            except zlib.error as error:
                yield from _until_broken(before, piece)
                return tell(f"the gzip stream is damaged ({error})")
            yield out
            ended = not piece
            piece = engine.unconsumed_tail or (b"" if engine.eof else stream.read(STEP))
        if not engine.eof:
            return tell("the gzip stream is cut short")
        piece = (engine.unused_data or stream.read(STEP)).lstrip(b"\0")
        if len(piece) == 1:
            piece += stream.read(STEP)
        if piece and not piece.startswith(GZIP):
            return tell("something that is no gzip follows the gzip stream")


def _until_broken(engine: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    """What comes out before the first byte that cannot be unpacked: asked for byte by byte."""
    found = []
    try:
        for place in range(len(piece)):
            found.append(engine.decompress(piece[place : place + 1]))
    except zlib.error:
        pass
    yield b"".join(found)


def _to_utf8(pieces: Iterator[bytes], tell: Callable[[str], None]) -> Iterator[bytes]:
    head = b""
    while len(head) < 300 and (piece := next(pieces, b"")):
        head += piece
    name = _encoding(head)
    if not _TEXT.fullmatch(name):
        return tell(f"its encoding, {name!r}, is not one that is read here: convert it to UTF-8")
    if name in ("utf-8", "ascii"):
        yield head.removeprefix(codecs.BOM_UTF8)
        yield from pieces
        return None
    decoder = codecs.getincrementaldecoder(name)("mediswift.forbidden")
    yield decoder.decode(head).encode()
    for piece in pieces:
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()
    return None


def _encoding(head: bytes) -> str:
    """Python's name of the encoding, by the mark at the start or by the declaration."""
    for mark, name in _MARKS.items():
        if mark.match(head):
            return name
    declared = _DECLARED.match(head)
    name = declared[1].decode() if declared else "utf-8"
    try:
        known = codecs.lookup(name).name
    except LookupError:
        return name
    return "utf-8" if known.startswith("utf-16") else known  # the declaration was readable as ASCII
