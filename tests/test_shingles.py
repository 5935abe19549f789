"""Shingles: the same for the same words, different for others, whatever lies beside."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediswift import shingles
from mediswift.shingles import shingle


@given(st.lists(st.text("ab c", max_size=12), max_size=5), st.integers(1, 4))
def test_shingles_are_equal_exactly_when_their_words_are(texts, n):
    found = shingle(texts, n)
    wanted = [
        tuple(each[i : i + n])
        for each in map(shingles.words, texts)
        for i in range(len(each) - n + 1)
    ]
    assert len(found.hashes) == len(wanted)
    assert len(set(found.hashes.tolist())) == len(set(wanted))
    assert len(dict(zip(wanted, found.hashes.tolist(), strict=True))) == len(set(wanted))


@pytest.mark.parametrize("texts", [[], [""], ["", "a b"], ["one two three"] * 3, ["", "a b c", ""]])
def test_each_document_is_as_it_is_alone(texts):
    found = shingle(texts, 3)
    assert len(found.starts) == len(texts) + 1 and found.starts[-1] == len(found.hashes)
    for document, text in enumerate(texts):
        alone = shingle([text], 3).hashes
        assert found.hashes[found.owners == document].tolist() == alone.tolist()
        assert found.of(document).tolist() == np.unique(alone).tolist()


def test_capitals_punctuation_and_lines_do_not_matter_and_order_does():
    one, other, third = ("Zinc (Zn)\nHELPS—a lot.", "zinc zn helps a lot", "zn zinc helps a lot")
    found = shingle([one, other, third], 5).hashes
    assert found[0] == found[1] != found[2]


def test_numbers_are_the_same_in_another_process_and_after_forgetting(monkeypatch):
    code = "from mediswift.shingles import shingle; print(shingle(['a b c'], 3).hashes[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == shingle(["a b c"], 3).hashes[0]
    monkeypatch.setattr(shingles, "_REMEMBERED", 1)
    monkeypatch.setattr(shingles, "_HASHES", shingles._Memory())
    assert int(done.stdout) == shingle(["a b c"], 3).hashes[0]
    assert len(shingles._HASHES) == 1
