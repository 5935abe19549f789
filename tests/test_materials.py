"""What pre-training reads: made once from the text itself, and found again."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mediswift import corpus, demo, materials, records, tokens

SIZES = {"vocab_size": 400, "context": 64}
SAMPLE = demo.DATA / "sample" / "abstracts.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of runs with the materials of the sample in it, and the materials."""
    folder = tmp_path_factory.mktemp("materials")
    return folder, materials.prepare("sample:", runs=folder, **SIZES)


def forbid(*_, **__):
    raise AssertionError("it is made already")


def test_rows_decode_to_the_documents_in_order(made):
    _, found = made
    clean, _ = corpus.prepare(corpus.load("sample:"))
    train, validation = corpus.hold_out(clean, materials.HELD_OUT)
    for rows, documents in ((found.train, train), (found.validation, validation)):
        texts = found.tokenizer.decode(rows.tokens).split(tokens.END_OF_TEXT)[1:]
        assert texts == list(materials.texts(documents))


def test_a_text_is_title_then_abstract():
    documents = [{"title": "T", "abstract": "A: one\nB: two"}, {"title": "", "abstract": "x"}]
    assert list(materials.texts(documents)) == ["T\nA: one\nB: two", "x"]


def test_the_record_counts_what_is_there(made):
    _, found = made
    counts = found.record.metrics
    assert counts["train_tokens"] == len(found.train.tokens)
    assert counts["validation_documents"] == found.validation.info["documents"]
    assert counts["contaminated"] == 0
    assert found.record.params == {"corpus": "sample:", "vocab_size": 400}


def test_a_second_call_makes_nothing(made, monkeypatch):
    folder, found = made
    monkeypatch.setattr(tokens, "train_tokenizer", forbid)
    again = materials.prepare("sample:", runs=folder, **SIZES)
    assert again.record == found.record
    assert again.train.fingerprint == found.train.fingerprint
    assert again.tokenizer.get_vocab() == found.tokenizer.get_vocab()


def test_another_context_cuts_the_same_tokens(made, monkeypatch):
    folder, found = made
    monkeypatch.setattr(tokens, "train_tokenizer", forbid)
    longer = materials.prepare("sample:", vocab_size=400, context=128, runs=folder)
    assert longer.train[0].tolist() == found.train.tokens[:129].tolist()


def test_a_crash_leaves_nothing_under_the_name_and_is_made_good(made, tmp_path, monkeypatch):
    _, found = made
    ours, pack = tmp_path / found.record.id, tokens.pack

    def crash(texts, tokenizer, folder, **options):
        if folder.name == "validation":
            raise KeyboardInterrupt
        return pack(texts, tokenizer, folder, **options)

    monkeypatch.setattr(tokens, "pack", crash)
    with pytest.raises(KeyboardInterrupt):
        materials.prepare("sample:", runs=tmp_path, **SIZES)
    assert not ours.exists()
    (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (partial / "of the crash").touch()
    monkeypatch.undo()
    again = materials.prepare("sample:", runs=tmp_path, **SIZES)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [ours]
    assert not (ours / "of the crash").exists()
    assert again.record.metrics == found.record.metrics
    assert np.array_equal(again.validation.tokens, found.validation.tokens)


def test_of_two_at_once_one_makes_them(made, tmp_path, monkeypatch):
    calls, train_tokenizer = [], tokens.train_tokenizer

    def count(*arguments):
        calls.append(arguments)
        return train_tokenizer(*arguments)

    monkeypatch.setattr(tokens, "train_tokenizer", count)
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(materials.prepare, "sample:", runs=tmp_path, **SIZES) for _ in "ab"]
    one, other = (each.result() for each in both)
    assert len(calls) == 1
    assert one.record == other.record
    assert one.record.metrics == made[1].record.metrics


def test_the_id_follows_the_text_and_not_its_place(made, tmp_path):
    _, found = made
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    same, other = tmp_path / "same.jsonl", tmp_path / "other.jsonl"
    same.write_text("\n".join(lines), encoding="utf-8")
    other.write_text("\n".join(lines[1:]), encoding="utf-8")
    one = materials.prepare(f"jsonl:{same}", runs=tmp_path, **SIZES)
    two = materials.prepare(f"jsonl:{other}", runs=tmp_path, **SIZES)
    assert one.train.fingerprint == found.train.fingerprint
    assert one.record.id != two.record.id


def test_pubmedqas_own_abstracts_are_left_out_and_counted(tmp_path):
    pmid = next(iter(json.loads((demo.DATA / "pubmedqa_labels.json").read_text())))
    leaked = {"pmid": pmid, "title": "Leaked", "abstract": "Xylophones heal. " * 30}
    path = tmp_path / "leaky.jsonl"
    path.write_text(SAMPLE.read_text(encoding="utf-8") + json.dumps(leaked), encoding="utf-8")
    found = materials.prepare(f"jsonl:{path}", runs=tmp_path, **SIZES)
    assert found.record.metrics["contaminated"] == 1
    for rows in (found.train, found.validation):
        assert "Xylophones" not in found.tokenizer.decode(rows.tokens)


def test_a_corpus_without_new_findings_keeps_its_old_id(made):
    data = corpus.fingerprint(corpus.load("sample:"))[:12]
    old = {"data": data, "vocab_size": 400, "recipe": materials.RECIPE}
    assert made[1].record.id == records.run_id("corpus", "sample-v400", old)


def test_what_is_removed_beyond_pmids_makes_another_id(tmp_path):
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    twin = json.loads(lines[0]) | {"pmid": "T1", "title": "Another title"}
    path = tmp_path / "twins.jsonl"
    path.write_text("\n".join([*lines, json.dumps(twin)]), encoding="utf-8")
    found = materials.prepare(f"jsonl:{path}", runs=tmp_path, **SIZES)
    assert found.record.metrics["near_duplicates"] == 1
    data = corpus.fingerprint(corpus.load(f"jsonl:{path}"))[:12]
    old = {"data": data, "vocab_size": 400, "recipe": materials.RECIPE}
    assert found.record.id != records.run_id("corpus", "jsonl-v400", old)


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vocab_size=60000 was asked for and the corpus gave"):
        materials.prepare("sample:", vocab_size=60_000, context=64, runs=tmp_path)


def test_a_corpus_that_fills_no_row_is_refused(made):
    with pytest.raises(
        ValueError, match=r"a row of 8192 tokens each, sample: gives \d+ and 0: read"
    ):
        materials.prepare("sample:", vocab_size=400, context=8_192, runs=made[0])
