"""Bytes out of gzip and other encodings, whole and broken."""

import gzip
import io
import random

import pytest

from mediswift import unpack

TEXT = "".join(f"<a>{random.Random(n).random()} é α</a>\n" for n in range(30_000)).encode()


def read(data: bytes) -> tuple[bytes, list[str]]:
    told: list[str] = []
    return b"".join(unpack.read(io.BytesIO(data), told.append)), told


def test_plain_gzipped_and_several_streams():
    packed = gzip.compress(TEXT)
    assert read(TEXT) == read(packed) == read(packed + b"\0" * 100) == (TEXT, [])
    assert read(packed + gzip.compress(b"<b/>")) == (TEXT + b"<b/>", [])
    assert read(gzip.compress(b"")) == read(b"") == (b"", [])


def test_what_follows_is_told():
    found, told = read(gzip.compress(b"<a/>") + b"xyz")
    assert found == b"<a/>" and "follows" in told[0]


@pytest.mark.parametrize("keep", [0.01, 0.5, 0.99])
def test_a_cut_stream_gives_all_before_the_cut(keep):
    packed = gzip.compress(TEXT)
    found, told = read(packed[: int(len(packed) * keep)])
    assert told == ["the gzip stream is cut short"]
    assert TEXT.startswith(found) and len(found) > (keep - 0.03) * len(TEXT)


def test_a_broken_stream_gives_all_before_the_break():
    packed = bytearray(gzip.compress(TEXT))
    middle = len(packed) // 2
    packed[middle : middle + 50] = b"\xff" * 50
    found, told = read(bytes(packed))
    same = next(i for i, (a, b) in enumerate(zip(found, TEXT, strict=False)) if a != b)
    assert len(told) == 1 and "damaged" in told[0] and same > 0.45 * len(TEXT)


def test_a_wrong_checksum_is_told_after_all_text():
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    found, told = read(bytes(packed))
    assert found == TEXT and "damaged" in told[0]


def test_a_bomb_comes_in_small_pieces():
    packed = gzip.compress(b" " * (1 << 26))
    sizes = [len(piece) for piece in unpack.read(io.BytesIO(packed), pytest.fail)]
    assert sum(sizes) == 1 << 26 and max(sizes) <= unpack.MOST


@pytest.mark.parametrize("name", ["utf-8", "iso-8859-1", "windows-1252", "utf-16", "utf-8-sig"])
def test_the_declared_encoding_counts(name):
    text = f'<?xml version="1.0" encoding="{name.removesuffix("-sig")}"?><a>é</a>' + " " * 400
    assert read(text.encode(name)) == (text.encode(), [])


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_wide_characters_are_known_without_a_mark(name):
    assert read("<a>é</a>".encode(name)) == ("<a>é</a>".encode(), [])


def test_one_wrong_byte_does_not_make_characters_wide():
    assert read(b"<\0a>text</a>") == (b"<\0a>text</a>", [])


def test_a_declaration_that_can_be_read_is_not_wide():
    assert read(b'<?xml version="1.0" encoding="UTF-16"?><a/>')[1] == []


@pytest.mark.parametrize("name", ["zlib", "rot13", "utf-7", "klingon", "unicode_escape"])
def test_other_encodings_are_refused(name):
    found, told = read(f'<?xml version="1.0" encoding="{name}"?><a/>'.encode())
    assert found == b"" and len(told) == 1 and "convert it to UTF-8" in told[0]


def test_what_cannot_be_decoded_becomes_what_xml_forbids():
    data = "<a>é</a>".encode("utf-16-le")[:-2] + b"\x00\xd8" + ">".encode("utf-16-le")
    assert b"\0" in read(data)[0]
