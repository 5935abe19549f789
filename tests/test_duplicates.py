"""Duplicates: found, of real likeness only, the same in any order, and one of each stays."""

import random

import numpy as np
import pytest
from datasets import Dataset

from mediswift import duplicates, rows
from mediswift.duplicates import Pair, find_equal, find_near
from mediswift.shingles import shingle


def make(*documents):
    columns = zip(*documents, strict=True)
    return Dataset.from_dict(dict(zip(("pmid", "title", "abstract"), columns, strict=True)))


def text(seed, words=100):
    generator = random.Random(seed)
    return [f"w{generator.randrange(5000)}" for _ in range(words)]


def edit(words, rate, seed):
    generator = random.Random(seed)
    return [f"new{seed}" if generator.random() < rate else word for word in words]


def exact(texts, threshold):
    """All pairs by brute force."""
    found = shingle(texts, duplicates.WORDS)
    sets = [set(found.of(i).tolist()) for i in range(len(texts))]
    pairs = ((i, j) for j in range(len(sets)) for i in range(j))
    return {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in pairs
        if sets[i] | sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    }


@pytest.fixture(scope="module")
def planted():
    """150 texts, each beside itself with some words changed; the likeness varies."""
    rates = [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.2]
    pairs = [(text(i), edit(text(i), rates[i % len(rates)], i)) for i in range(150)]
    return [" ".join(words) for pair in pairs for words in pair]


def test_planted_near_duplicates_are_found_and_nothing_else(planted):
    documents = make(*((str(i), "", each) for i, each in enumerate(planted)))
    pairs = find_near(documents)
    wanted = exact(planted, duplicates.THRESHOLD)
    found = {(min(p.gone, p.stays), max(p.gone, p.stays)): p.similarity for p in pairs}
    assert len(wanted) > 70
    assert found.keys() <= wanted.keys()  # precision is 1 by construction
    assert len(found) >= 0.99 * len(wanted)
    assert all(found[pair] == wanted[pair] for pair in found)


def test_the_outcome_does_not_depend_on_the_order(planted):
    documents = make(*((str(i), "", each) for i, each in enumerate(planted)))
    shuffled = documents.shuffle(seed=1)
    gone = [{rows_["pmid"][p.gone] for p in find_near(rows_)} for rows_ in (documents, shuffled)]
    assert gone[0] == gone[1] and gone[0]


def test_the_longer_stays_then_the_higher_pmid():
    long, short = text(0, 101), text(0, 100)
    assert [
        (p.gone, p.stays)
        for p in find_near(make(("9", "", " ".join(short)), ("1", "", " ".join(long))))
    ] == [(0, 1)]
    same = " ".join(long)
    rows_ = [("7", "A", same), ("30", "B", same), ("", "C", same), ("x", "D", same)]
    assert [(p.gone, p.stays) for p in find_near(make(*rows_))] == [(0, 1), (2, 1), (3, 1)]


def test_there_are_no_chains():
    a = text(3, 200)
    b = a[15:] + [f"b{i}" for i in range(14)]  # like a, and like c
    c = b[15:] + [f"c{i}" for i in range(13)]  # unlike a
    documents = make(*((str(i), "", " ".join(words)) for i, words in enumerate((a, b, c))))
    (pair,) = find_near(documents)
    assert (pair.gone, pair.stays) == (1, 0)
    assert set(exact(documents["abstract"][:], duplicates.THRESHOLD)) == {(0, 1), (1, 2)}


def test_many_that_are_alike_leave_one(monkeypatch):
    monkeypatch.setattr(duplicates, "_PAIRS", 7)
    documents = make(*((str(i), str(i), " ".join(text(0))) for i in range(40)))
    assert [(p.gone, p.stays) for p in find_near(documents)] == [(i, 39) for i in range(39)]


def test_texts_without_shingles_are_no_duplicates():
    assert find_near(make(("1", "", ""), ("2", "", ""), ("3", "", "Four words are few"))) == []


def test_batches_make_no_difference(planted, monkeypatch):
    documents = make(*((str(i), "", each) for i, each in enumerate(planted[:60])))
    whole = find_near(documents)
    monkeypatch.setattr(rows, "BATCH", 7)
    assert find_near(documents) == whole != []


@pytest.mark.parametrize("threshold", [0, 0.69, 1.01])
def test_a_threshold_that_would_miss_many_is_refused(threshold):
    with pytest.raises(ValueError, match="similarity from 0.7 to 1, got threshold"):
        find_near(make(("1", "", "a")), threshold)


def test_the_signatures_estimate_the_similarity():
    words = text(5, 400)
    both = shingle([" ".join(words), " ".join(edit(words, 0.03, 1))], duplicates.WORDS)
    minima = duplicates._minima(both.hashes, both.starts[:-1])
    true = duplicates.jaccard(both.of(0), both.of(1))
    error = (true * (1 - true) / len(minima)) ** 0.5
    assert abs(np.mean(minima[:, 0] == minima[:, 1]) - true) < 4 * error


def test_equal_documents_keep_the_first_of_each():
    documents = make(*((str(n % 7), "T", f"Text {n % 5}.") for n in range(40)))
    gone = set(find_equal(documents))
    kept = documents.select([row for row in range(40) if row not in gone])
    assert kept["pmid"][:] == ["0", "1", "2", "3", "4"]
    assert find_equal(kept) == []
    assert find_equal(make(("", "A", "x"), ("", "A", "y"), ("", "a", "X"))) == [2]


def test_a_full_text_is_no_copy_of_its_abstract():
    rows = make(
        ("1", "T", "Short."), ("1", "T", "In full."), ("1", "T", "Revised."), ("1", "T", "b")
    )
    forms = ["", "body", "", "body"]
    assert find_equal(rows) == [1, 2, 3]
    assert find_equal(rows.add_column("form", forms)) == [2, 3]


def test_a_pair_reads_as_what_it_is():
    assert Pair(gone=1, stays=0, similarity=0.5)._fields == ("gone", "stays", "similarity")
