"""One clean document out of a record: worked examples and the errors."""

import gzip

import pytest
import zstandard

from mediswift.documents import clean, make_document, read_jsonl


def test_worked_examples():
    sections = [["AIM", "To  see."], [None, "We\nsaw."], ["END", " "]]
    record = {"PMID": 7, "Title": " On\nrest ", "abstract": sections, "year": 1998, "src": "us"}
    assert make_document(record, "mine") == {
        "pmid": "7",
        "title": "On rest",
        "abstract": "AIM: To see.\nWe saw.",
        "year": "1998",
        "source": "us",
        "form": "",
    }
    assert make_document({"title": "T", "abstract": None}, "mine") == {
        "pmid": "",
        "title": "T",
        "abstract": "",
        "year": "",
        "source": "mine",
        "form": "",
    }


@pytest.mark.parametrize(
    "fields, text, form",
    [
        ({"abstract": "A.", "body": "B.\n\nC."}, "A.\nB.\nC.", ""),
        ({"body": "B."}, "B.", "body"),
        ({"abstract": [["AIM", " "]], "body": "B."}, "B.", "body"),
        ({"abstract": "A.", "body": " "}, "A.", ""),
        ({"text": "T.", "contents": "T. T."}, "T.", ""),
        ({"abstract": "", "contents": "C."}, "C.", ""),
        ({"abstract": "A.", "text": "T."}, "A.", ""),
    ],
)
def test_which_field_is_read(fields, text, form):
    made = make_document(fields, "x")
    assert (made["abstract"], made["form"]) == (text, form)


@pytest.mark.parametrize("pmid", ["123", 123, 123.0, " 0123", "PMID: 123", "pmid123", "123.0"])
def test_one_pmid_has_one_form(pmid):
    assert make_document({"pmid": pmid, "text": "T."}, "x")["pmid"] == "123"


def test_other_pmids_stay_or_are_unknown():
    assert make_document({"pmid": "S000001", "text": "T."}, "x")["pmid"] == "S000001"
    assert make_document({"pmid": float("nan"), "text": "T."}, "x")["pmid"] == ""


def test_clean_is_idempotent_and_keeps_words():
    text = " e\u0301tude\u2009of  α.(ABSTRACT TRUNCATED AT 400 WORDS)\r\n\n(ABSTRACT) stays "
    assert clean(text) == "étude of α.\n(ABSTRACT) stays"
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    "record, said",
    [
        ({"id": 1, "words": "x"}, "this one has 'id', 'words'"),
        ({"abstract": {"a": 1}}, r"text or a list of \[label, text\]; got"),
        ({"abstract": [["A", "b", "c"]]}, r"a section must be \[label, text\]; got"),
        ({"abstract": ["only text"]}, "a section must be"),
    ],
)
def test_other_forms_are_errors(record, said):
    with pytest.raises(ValueError, match=said):
        make_document(record, "x")


LINES = b'{"pmid": "1", "text": "One."}\n\n{"pmid": "2", "text": "Tw\xc3\xb6."}\n'
PACKED = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
}


@pytest.mark.parametrize("name", PACKED)
def test_plain_and_packed_lines_are_equal(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    rows = list(read_jsonl(tmp_path / name, "x"))
    assert [(row["pmid"], row["abstract"]) for row in rows] == [("1", "One."), ("2", "Twö.")]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_file_cut_short_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name][:-9])
    with pytest.raises(ValueError, match=rf"must be whole, and UTF-8; .*{name} is not"):
        list(read_jsonl(tmp_path / name, "x"))


@pytest.mark.parametrize(
    "line, said",
    [
        (b'{"text": "cut', r"a\.jsonl, line 4: each line must be one JSON object; got"),
        (b'["text"]', r"a\.jsonl, line 4: each line must be one JSON object; got"),
        (b'{"words": 1}', r"a\.jsonl, line 4: a document has one of the fields abstract, body"),
        (b'{"text": "\xff"}', "a.jsonl is not"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_bytes(LINES + line)
    with pytest.raises(ValueError, match=said):
        list(read_jsonl(tmp_path / "a.jsonl", "x"))
