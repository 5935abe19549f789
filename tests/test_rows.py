"""Rows: whole and in order, however many batches; keys see letters and digits only."""

from datasets import Dataset

from mediswift import rows


def make(*texts):
    names = {"pmid": [str(i) for i in range(len(texts))], "title": [""] * len(texts)}
    return Dataset.from_dict(names | {"abstract": list(texts)})


def test_rows_cross_batches(monkeypatch):
    monkeypatch.setattr(rows, "BATCH", 2)
    documents = make("a", "b", "c", "d", "e")
    assert list(rows.rows(documents, "abstract", "pmid")) == list(
        zip("abcde", "01234", strict=True)
    )
    assert [len(batch["pmid"]) for batch in rows.batches(documents, "pmid")] == [2, 2, 1]
    assert rows.select(documents, [True, False, False, True, False])["abstract"][:] == ["a", "d"]


def test_keys_ignore_capitals_spaces_and_punctuation():
    one, other, third = (text for _, text in rows.keys(make("It is.", "IT, is", "It was.")))
    assert one == other != third


def test_only_a_full_text_changes_the_fingerprint():
    plain = make("a", "b")
    known = plain.add_column("form", ["", ""])
    assert list(rows.forms(plain)) == list(rows.forms(known)) == ["", ""]
    assert rows.fingerprint(plain) == rows.fingerprint(known)
    assert rows.fingerprint(plain) != rows.fingerprint(plain.add_column("form", ["", "body"]))
