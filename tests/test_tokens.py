"""Tests of mediswift.tokens. Run with: pytest tests/test_tokens.py."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from mediswift import tokens

TEXTS = [
    "Does zinc shorten the common cold?\nRESULTS: Zinc lozenges helped 12 of 25 patients (48 %).",
    "Background: TNF-\N{GREEK SMALL LETTER ALPHA} rose 3.5-fold; p < 0.001.",
    "",
    "The answer to the question given in the abstract is yes.",
    "A document that spells <|endoftext|> and <|pad|> is still one document.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train_tokenizer(TEXTS * 3, 320)


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def stream_of(rows):
    """All tokens that the rows hold, put back in line: inputs of each, last target of the last."""
    inputs = [row[:-1] for row in rows]
    return np.concatenate([*inputs, rows[len(rows) - 1][-1:]]).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "plain English, with commas .",
        " it 's n't  two   spaces\t\ttabs\r\n\n",
        "TNF-α, β₂ ≥ 5 µg/m² — Ångström",
        "🧬🩺👩‍⚕️",
        "中文 и русский עברית",
        "\N{COMBINING ACUTE ACCENT}e\u0301 is not \N{LATIN SMALL LETTER E WITH ACUTE}",
        "\x00\x1f\ufffd",
    ],
)
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text
    assert ids_of(tokenizer, text) == tokenizer.encode(text)[1:]


def test_a_text_is_opened_by_one_end_of_text(tokenizer):
    assert tokenizer.encode("zinc")[0] == tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.pad_token_id == 1 and len(tokenizer) == 320


@pytest.mark.parametrize("answer", [" yes", " no", " maybe"])
def test_answers_are_single_tokens(tokenizer, answer):
    (token,) = ids_of(tokenizer, answer)
    assert tokenizer.decode([token]) == answer
    assert ids_of(tokenizer, f"abstract is{answer}.")[-2] == token


def test_it_travels_with_a_model(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, " it 's  α 🧬"]:
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(ids_of(loaded, text)) == text
    assert loaded.pad_token_id == 1 and loaded.eos_token_id == 0


def test_the_same_texts_train_the_same_tokenizer(tokenizer):
    again = tokens.train_tokenizer(iter(TEXTS * 3), 320)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_vocabulary_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="vocab_size=9000 was asked for and the corpus gave"):
        tokens.train_tokenizer(TEXTS, 9000)
    with pytest.raises(ValueError, match="answers must be single tokens"):
        tokens.train_tokenizer(TEXTS, 262)


@pytest.mark.parametrize("context", [1, 7, 16])
def test_packing_loses_and_doubles_nothing(tokenizer, tmp_path, context):
    rows = tokens.pack(TEXTS, tokenizer, tmp_path / "rows", context)
    backend = tokens._literal(tokenizer)
    wanted = [0, *(i for t in TEXTS for i in (*backend.encode(t, add_special_tokens=False).ids, 0))]
    wanted = wanted[:-1]  # each document is opened, none is closed
    tail = (len(wanted) - 1) % context
    assert rows.tokens.tolist() == wanted
    assert stream_of(rows) == wanted[: len(wanted) - tail]
    assert {len(row) for row in rows} == {context + 1}
    assert all(rows[i][-1] == rows[i + 1][0] for i in range(len(rows) - 1))
    assert f"{tail} tokens fill no row" in str(rows)
    assert rows.info["tokens"] == len(wanted) and rows.info["documents"] == len(TEXTS)
    assert rows.info["bytes"] == sum(len(text.encode()) for text in TEXTS)
    assert rows.bytes_per_token == pytest.approx(rows.info["bytes"] / len(wanted))


def test_special_tokens_inside_a_document_stay_text(tokenizer, tmp_path):
    rows = tokens.pack([TEXTS[-1]] * 2, tokenizer, tmp_path / "rows", 4)
    stream = rows.tokens.tolist()
    assert stream.count(0) == 2 and 1 not in stream
    assert tokenizer.decode(stream[1 : len(stream) // 2]) == TEXTS[-1]
    assert ids_of(tokenizer, "<|pad|>") == [1]  # the caller's tokenizer is as it was


def test_many_documents_cross_the_chunks_in_order(tokenizer, tmp_path):
    rows = tokens.pack((f"no {i}" for i in range(2500)), tokenizer, tmp_path / "rows", 64)
    text = tokenizer.decode(rows.tokens.tolist()).split("<|endoftext|>")
    assert text == ["", *(f"no {i}" for i in range(2500))]


def test_rows_are_counted_from_both_ends(tokenizer, tmp_path):
    rows = tokens.pack(TEXTS, tokenizer, tmp_path / "rows", 8)
    for row in (-1, len(rows)):
        with pytest.raises(IndexError, match=f"rows go from 0 to {len(rows) - 1}, got {row}"):
            rows[row]
    assert len(tokens.load_rows(tmp_path / "rows", 10_000)) == 0
    assert rows[0].dtype == np.int64 and not rows.tokens.flags.writeable
    nothing = tokens.pack([], tokenizer, tmp_path / "nothing", 8)
    assert len(nothing) == 0


def test_the_fingerprint_is_the_tokens(tokenizer, tmp_path):
    one = tokens.pack(TEXTS, tokenizer, tmp_path / "one", 8)
    same = tokens.pack(iter(TEXTS), tokenizer, tmp_path / "same", 16)
    other = tokens.pack(TEXTS[::-1], tokenizer, tmp_path / "other", 8)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert tokens.load_rows(tmp_path / "one", 8).fingerprint == one.fingerprint


def test_rows_may_be_read_by_whoever_may_read_their_place(tokenizer, tmp_path):
    tokens.pack(["iron is safe"], tokenizer, tmp_path / "rows", context=1)
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "rows").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_rows_are_never_overwritten(tokenizer, tmp_path):
    tokens.pack(TEXTS, tokenizer, tmp_path / "rows", 8)
    before = (tmp_path / "rows" / "tokens.bin").read_bytes()
    with pytest.raises(FileExistsError, match="rows are never overwritten: .* load or delete it"):
        tokens.pack(TEXTS[:1], tokenizer, tmp_path / "rows", 8)
    assert (tmp_path / "rows" / "tokens.bin").read_bytes() == before


def test_a_broken_stream_leaves_nothing_behind(tokenizer, tmp_path):
    def texts():
        yield "one"
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        tokens.pack(texts(), tokenizer, tmp_path / "rows", 8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda b: b[:-2], lambda b: b"\x05" + b[1:], lambda b: b""])
def test_a_damaged_file_is_refused(tokenizer, tmp_path, damage):
    tokens.pack(TEXTS, tokenizer, tmp_path / "rows", 8)
    file = tmp_path / "rows" / "tokens.bin"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="damaged or changed; delete the folder and pack again"):
        tokens.load_rows(tmp_path / "rows", 8)


def test_missing_rows_say_how_to_make_them(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"packed rows are .* make them with tokens\.",
    ):
        tokens.load_rows(tmp_path, 8)
