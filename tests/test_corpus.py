"""The corpus: addresses, caching, and which documents may be pre-trained on."""

import gzip
import io
import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from mediswift import corpus, demo


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "cache"))


def article(pmid: str, abstract: str = "<AbstractText>It grows.</AbstractText>") -> str:
    return f"""<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article>
      <Journal><JournalIssue><PubDate><Year>2001</Year></PubDate></JournalIssue></Journal>
      <ArticleTitle>On <i>E. coli</i>.</ArticleTitle><Abstract>{abstract}</Abstract>
      <Language>eng</Language></Article></MedlineCitation></PubmedArticle>"""


def xml(*articles: str) -> bytes:
    return f"<PubmedArticleSet>{''.join(articles)}</PubmedArticleSet>".encode()


def make(*rows: tuple[str, str, str]) -> Dataset:
    """Documents of (pmid, title, abstract)."""
    names = ("pmid", "title", "abstract")
    rows = [
        dict(zip(names, row, strict=True)) | {"year": "", "source": "x", "form": ""} for row in rows
    ]
    return Dataset.from_list(rows, features=corpus.FEATURES)


def write(path: Path, *texts: str) -> str:
    lines = [json.dumps({"pmid": str(n), "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return f"jsonl:{path}"


def test_sample_is_synthetic_and_whole():
    documents = corpus.load("sample:")
    assert documents.column_names == ["pmid", "title", "abstract", "year", "source", "form"]
    assert len(documents) > 0 and all(pmid.startswith("S") for pmid in documents["pmid"])
    assert all("SYNTHETIC" in source for source in documents["source"])
    kept, counts = corpus.prepare(documents)
    assert counts["kept"] == len(kept) > 0


def test_jsonl_is_memory_mapped_and_read_once(tmp_path, monkeypatch):
    address = write(tmp_path / "a.jsonl", "One.", "Two.")
    first = corpus.load(address)
    assert first["abstract"][:] == ["One.", "Two."] and first["source"][0] == "a.jsonl"
    assert first.cache_files[0]["filename"].startswith(str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "read_jsonl", lambda *_: pytest.fail("read again"))
    assert corpus.load(address).to_list() == first.to_list()


def test_a_folder_holds_abstracts_and_full_texts_of_one_corpus(tmp_path):
    write(tmp_path / "abstracts.jsonl", "One.", "Two.")
    body = {"pmid": "1", "title": "T", "body": "Introduction\nIn full."}
    with gzip.open(tmp_path / "fulltext.jsonl.gz", "wt") as file:
        file.write(json.dumps(body))
    documents = corpus.load(f"jsonl:{tmp_path}")
    assert documents["pmid"][:] == ["0", "1", "1"]
    assert documents["abstract"][2] == "Introduction\nIn full."
    assert documents["source"][:] == ["abstracts.jsonl", "abstracts.jsonl", "fulltext.jsonl.gz"]
    write(tmp_path / "more.jsonl", "Three.")
    assert len(corpus.load(f"jsonl:{tmp_path}")) == 4


def test_what_holds_no_document_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="a corpus has one document or more, .* has none"):
        corpus.load(f"jsonl:{tmp_path}")
    write(tmp_path / "b.jsonl", "One.")
    assert len(corpus.load(f"jsonl:{tmp_path}")) == 1


def test_an_error_names_the_file_of_a_folder(tmp_path):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "data.jsonl", "One.")
    (tmp_path / "2" / "data.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"2/data\.jsonl, line 1: each line must be"):
        corpus.load(f"jsonl:{tmp_path}")


def test_a_changed_file_is_read_again(tmp_path):
    address = write(tmp_path / "a.jsonl", "One.")
    status = (tmp_path / "a.jsonl").stat()
    assert corpus.load(address)["abstract"][:] == ["One."]
    write(tmp_path / "a.jsonl", "Two.")
    os.utime(tmp_path / "a.jsonl", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert corpus.load(address)["abstract"][:] == ["Two."]


def test_another_schema_is_read_again(tmp_path, monkeypatch):
    address = write(tmp_path / "a.jsonl", "One.")
    corpus.load(address)
    monkeypatch.setattr(corpus, "SCHEMA", corpus.SCHEMA + 1)
    monkeypatch.setattr(corpus, "read_jsonl", lambda *_: iter(make(("1", "", "New.")).to_list()))
    assert corpus.load(address)["abstract"][:] == ["New."]


def test_errors_while_reading_come_through_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "a.jsonl"
    address = write(path, "One.", "Two.")
    good = path.read_text()
    path.write_text(good[:-3])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: each line must be one JSON object"):
        corpus.load(address)
    path.write_text(good)
    assert len(corpus.load(address)) == 2


def test_medline_file_and_folder(tmp_path):
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "a.xml.gz").write_bytes(gzip.compress(xml(article("1"), article("2"))))
    labeled = article("3", '<AbstractText Label="AIM">To see.</AbstractText>')
    (tmp_path / "xml" / "b.xml").write_bytes(xml(labeled))
    rows = corpus.load(f"medline:{tmp_path / 'xml'}").to_list()
    assert [(row["pmid"], row["abstract"], row["source"]) for row in rows] == [
        ("1", "It grows.", "a.xml.gz"),
        ("2", "It grows.", "a.xml.gz"),
        ("3", "AIM: To see.", "b.xml"),
    ]
    assert rows[0]["title"] == "On E. coli." and rows[0]["year"] == "2001"
    assert len(corpus.load(f"medline:{tmp_path / 'xml' / 'b.xml'}")) == 1


def test_demo_reads_all_members_once(monkeypatch):
    files = {"data/b.xml.gz": "1", "data/a.xml.gz": "2"}
    pins = {"medline": {"sha256": "0" * 64, "members": list(files)}}
    opened = []

    def open_member(name, member):
        opened.append((name, member))
        return io.BytesIO(gzip.compress(xml(article(files[member]))))

    monkeypatch.setattr(demo, "load_pins", lambda: pins)
    monkeypatch.setattr(demo, "open_member", open_member)
    rows = corpus.load("demo:").to_list()
    assert [(row["pmid"], row["source"]) for row in rows] == [("1", "b.xml.gz"), ("2", "a.xml.gz")]
    assert corpus.load("demo:").to_list() == rows
    assert opened == [("medline", member) for member in files]


def test_hub_dataset_from_a_local_folder(tmp_path):
    table = Dataset.from_list([{"PMID": 7.0, "title": "T", "contents": "T. C.", "id": "x"}])
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train.parquet")
    rows = corpus.load(f"hf:{tmp_path / 'set'}").to_list()
    assert [(row["pmid"], row["abstract"]) for row in rows] == [("7", "T. C.")]


def test_hub_dataset_that_does_not_fit(tmp_path):
    (tmp_path / "set").mkdir()
    Dataset.from_dict({"pmid": ["7"], "words": ["C."]}).to_parquet(tmp_path / "set" / "a.parquet")
    with pytest.raises(ValueError, match="need a column abstract, body.* has pmid, words. Rename"):
        corpus.load(f"hf:{tmp_path / 'set'}")


@pytest.mark.parametrize(
    "address, nearest",
    [
        ("jsnol:a.jsonl", "jsonl:PATH"),
        ("pubmed:x.xml", "medline:PATH"),
        ("Sample:", "sample:"),
        ("sample", "sample:"),
        ("sample:more", "sample:"),
        ("jsonl:", "jsonl:PATH"),
        ("abstracts.jsonl", "jsonl:PATH"),
        ("", "sample:"),
        (None, "sample:"),
    ],
)
def test_a_wrong_address_names_all_kinds_and_the_nearest(address, nearest):
    with pytest.raises(ValueError) as caught:
        corpus.load(address)
    said = str(caught.value)
    assert all(form in said for form in corpus.KINDS.values()) and repr(address) in said
    assert nearest in said.split("The nearest is")[1] or not address


@pytest.mark.parametrize("address", ["jsonl:none.jsonl", "medline:none.xml", "hf:./none"])
def test_a_missing_path_is_an_error(address):
    with pytest.raises(FileNotFoundError, match="none"):
        corpus.load(address)


def test_hold_out_goes_by_pmid_alone():
    documents = make(*((str(n), "T", f"Text {n}.") for n in range(30_000_000, 30_005_000)))
    train, validation = corpus.hold_out(documents, fraction=0.1)
    held = set(validation["pmid"])
    assert held.isdisjoint(train["pmid"]) and len(train) + len(validation) == 5000
    assert abs(len(validation) - 500) < 4 * (5000 * 0.1 * 0.9) ** 0.5
    other = documents.shuffle(seed=1).select(range(2000))
    assert set(corpus.hold_out(other, fraction=0.1)[1]["pmid"]) == held & set(other["pmid"])
    assert held <= set(corpus.hold_out(documents, fraction=0.2)[1]["pmid"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, 2.0])
def test_hold_out_refuses_an_empty_side(fraction):
    with pytest.raises(ValueError, match="both sides of a hold-out need documents"):
        corpus.hold_out(make(("1", "A", "x"), ("2", "B", "y")), fraction)


def test_fingerprint_is_of_content_only(tmp_path):
    rows = [("1", "A", "x"), ("2", "B", "y")]
    whole = corpus.fingerprint(make(*rows))
    assert corpus.fingerprint(make(*rows, ("3", "C", "z")).select([0, 1])) == whole
    make(*rows).save_to_disk(tmp_path / "saved")
    assert corpus.fingerprint(Dataset.load_from_disk(tmp_path / "saved")) == whole
    others = [rows[::-1], rows[:1], [("1", "A", "x"), ("2", "By", "")]]
    assert len({corpus.fingerprint(make(*other)) for other in others} | {whole}) == 4
