"""The window: it finds across pieces, forgets what lies behind, and never looks twice in vain."""

from hypothesis import given
from hypothesis import strategies as st

from mediswift.window import Window


class Counted(bytes):
    """Bytes that count how many of them are searched."""

    length = 0

    def __add__(self, other: bytes) -> "Counted":
        return Counted(bytes(self) + other)

    def __getitem__(self, key: slice) -> "Counted":
        return Counted(bytes(self)[key])

    def find(self, what: bytes, start: int) -> int:
        Counted.length += len(self) - start
        return super().find(what, start)


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=20), st.binary(min_size=1, max_size=3))
def test_it_finds_what_the_whole_has(pieces, what):
    whole, window = b"".join(pieces), Window(iter(pieces), limit=1000)
    assert window.find(what, 0) == whole.find(what)
    window.fill(1000)
    assert window.ahead(1000) == whole and window.offset == 0


def test_it_forgets_what_lies_behind():
    window = Window(iter([b"abcd"] * 100), limit=10)
    while window.grow():
        window.place = len(window.data)
        assert len(window.data) == 4
    assert window.offset == 400 and len(window) == 0


def test_the_limit_ends_a_search_and_memory():
    window = Window(iter(lambda: b"x" * 10, None), limit=50)
    assert window.find(b"y", 0) == -1
    assert len(window.data) <= 70


def test_a_search_in_vain_is_not_made_again():
    window = Window(iter([b"x" * 1000]), limit=5000)
    window.grow()
    window.data = Counted(window.data)
    assert window.find(b"yes", 1) == -1
    for place in range(0, 900, 100):
        window.place = place
        assert window.find(b"yes", 1) == -1
    assert Counted.length < 1000 + 10 * 10
    window.place = 0
    window.data = Counted(b"x" * 50 + b"yes" + b"x" * 50)
    assert window.find(b"yes", 60) == -1 and window.find(b"yes", 1) == 50


def test_an_unfinished_tag_is_kept():
    window = Window(iter([b"text <Pubm", b"edArticle>"]), limit=100)
    window.grow()
    assert window.data[window.last_tag() :] == b"<Pubm"
    window.grow()
    assert window.last_tag() == len(window.data)
