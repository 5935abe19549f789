"""Made-up input is taken or refused with a message; `make faults` tries thousands."""

import fuzz
import pytest

LARGEST = 500_000_000
"""Bytes that a reader of inputs of a few kilobytes may grow by."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", fuzz.READERS)
def test_whatever_is_read_is_taken_or_refused_with_a_message(reader):
    found = fuzz.feed(reader, 50)
    assert found["taken"] + found["refused"] > 0
    assert found["grown_bytes"] < LARGEST


def test_another_error_is_not_let_pass(monkeypatch):
    def broken(path):
        return {}["nothing"]

    monkeypatch.setitem(fuzz.READERS, "broken", (broken, fuzz.st.binary()))
    with pytest.raises(KeyError):
        fuzz.feed("broken", 3)
