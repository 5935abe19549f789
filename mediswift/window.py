"""A window over a stream of bytes, moved along it: search far ahead, hold little.

Decisions. What lies behind `place` is forgotten whenever the window grows. A search that found
nothing is not made twice over the same bytes, so no file can make a reader slow by beginning
something again and again that never ends.
"""

from __future__ import annotations

from collections.abc import Iterator


class Window:
    """Bytes ahead of a place in a stream of `pieces`; at most about `limit` of them are held.

    >>> window = Window(iter([b"one, tw", b"o, three"]), limit=100)
    >>> window.find(b"two", skip=0)
    5
    >>> window.place += 5
    >>> window.ahead(3), window.offset, len(window)
    (b'two', 5, 10)
    """

    def __init__(self, pieces: Iterator[bytes], limit: int):
        self.data, self.place, self.limit = b"", 0, limit
        self._pieces, self._start = pieces, 0
        self._searched: dict[bytes, tuple[int, int]] = {}

    @property
    def offset(self) -> int:
        """Bytes of the stream that lie before the place."""
        return self._start + self.place

    def __len__(self) -> int:
        return len(self.data) - self.place

    def grow(self) -> bool:
        """Whether another piece came. What lies before the place is forgotten."""
        piece = next(self._pieces, None)
        if piece:
            self._start, self.data, self.place = self.offset, self.data[self.place :] + piece, 0
        return piece is not None

    def fill(self, size: int) -> None:
        """Grow until so many bytes lie ahead, or the stream ends."""
        while len(self) < size and self.grow():
            pass

    def ahead(self, size: int) -> bytes:
        """Return the next bytes; the place stays."""
        return self.data[self.place : self.place + size]

    def find(self, what: bytes, skip: int, limit: int = 0) -> int:
        """Distance to the next `what` that is at least `skip` bytes ahead; grows as it must.

        -1 if there is none before the end of the stream, or within the limit.
        """
        first, last = self._searched.get(what, (0, -1))
        begins = self.offset + skip
        at = last - self.offset if first <= begins <= last else skip
        while (found := self.data.find(what, self.place + at)) < 0:
            at = max(at, len(self) - len(what) + 1)
            if at > (limit or self.limit) or not self.grow():
                self._searched[what] = begins, self.offset + at
                return -1
        return found - self.place

    def last_tag(self) -> int:
        """Index in `data` of a `<` near the end that has no `>` yet, or of the end."""
        last = self.data.rfind(b"<", max(self.place, len(self.data) - 4096))
        return len(self.data) if last < 0 or b">" in self.data[last:] else last
