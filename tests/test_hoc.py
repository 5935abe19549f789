"""HoC: reading the archive, our split, the sentence, and what a model writes."""

import io
import tarfile
from dataclasses import replace

import pyarrow
import pytest

from mediswift import finetune, hoc
from mediswift.hallmarks import LABELS
from mediswift.runs import load_model, load_tokenizer


def archive(path, files, kind=tarfile.REGTYPE):
    """A tar of {name: text} at `path`, compressed as its name says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(text.encode()), kind
            tar.addfile(member, io.BytesIO(text.encode()))
    with pyarrow.output_stream(str(path)) as stream:
        stream.write(buffer.getvalue())
    return f"hoc:{path}"


GOOD = [
    ("LICENSE", "GPL"),
    ("text/2.txt", "Cells died .\nWe saw it .\n"),
    ("labels/2.txt", "<Resisting cell death--Apoptosis ANDCellular energetics< NULL"),
    ("text/10.txt", "Nothing here .\n"),
    ("labels/10.txt", "< "),
]


@pytest.fixture
def corpus(tmp_path):
    """A hundred invented abstracts, each of one of two labels."""
    files = []
    for i in range(100):
        label = LABELS[i % 2]
        files.append((f"text/{i}.txt", f"Number {i} is about {label[:9]} .\n"))
        files.append((f"labels/{i}.txt", f"<{label.capitalize()}--X"))
    return archive(tmp_path / "hoc.tar.zst", files)


# Reading


@pytest.mark.parametrize("name", ["hoc.tar", "hoc.tar.gz", "hoc.tar.zst"])
def test_an_abstract_has_the_top_classes_of_its_sentences(tmp_path, name):
    found = hoc.load(archive(tmp_path / name, GOOD))
    assert found.to_list() == [
        {
            "pmid": "2",
            "text": "Cells died . We saw it .",
            "labels": ["resisting cell death", "cellular energetics"],
        },
        {"pmid": "10", "text": "Nothing here .", "labels": []},
    ]


def test_nothing_is_unpacked_wherever_a_name_leads(tmp_path):
    away = [("../text/3.txt", "x"), ("/text/4.txt", "x"), ("text/../../5.txt", "x")]
    folder = tmp_path / "in"
    folder.mkdir()
    assert hoc.load(archive(folder / "hoc.tar.zst", [*away, *GOOD]))["pmid"] == ["2", "10"]
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "hoc.tar.zst"]


def test_a_link_is_not_followed(tmp_path):
    address = archive(tmp_path / "hoc.tar", [("text/2.txt", "")], tarfile.SYMTYPE)
    with pytest.raises(ValueError, match="has 0 and 0"):
        hoc.load(address)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (GOOD[:2], "hoc.tar has 1 and 0, and 2 has one only"),
        ([], "hoc.tar has 0 and 0"),
        ([*GOOD, GOOD[1]], "hoc.tar has 2 twice"),
        ([GOOD[1], ("labels/2.txt", "<Fun--X< ")], "PMID 2 has 2 sentences, 2 .*'fun'"),
        ([GOOD[1], ("labels/2.txt", "< ")], "2 sentences, 1 groups .*no unknown label"),
        ([("text/1.txt", "x" * (hoc.LARGEST + 1))], "text/1.txt has 1,048,577 bytes"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        hoc.load(archive(tmp_path / "hoc.tar", files))


def test_an_archive_cut_short_is_named(tmp_path):
    archive(tmp_path / "hoc.tar.zst", GOOD)
    content = (tmp_path / "hoc.tar.zst").read_bytes()
    (tmp_path / "hoc.tar.zst").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="a whole archive .*Copy or download it again"):
        hoc.load(f"hoc:{tmp_path / 'hoc.tar.zst'}")


@pytest.mark.parametrize("address", ["hoc:", "hoc:nowhere.tar.zst", "pubmedqa:x"])
def test_a_missing_archive_is_named(address):
    with pytest.raises(FileNotFoundError, match="HoC comes from hoc:PATH"):
        hoc.load(address)


# Splitting


def test_a_part_follows_from_the_pmid_alone(corpus):
    items = hoc.load(corpus)
    parts = {name: set(hoc.split(items, name)["pmid"]) for name in ("train", "dev", "test")}
    assert sum(map(len, parts.values())) == len(items) == len(set.union(*parts.values()))
    fewer = items.select(range(len(items) - 1, 5, -1))
    for name, pmids in parts.items():
        assert set(hoc.split(fewer, name)["pmid"]) == pmids & set(fewer["pmid"])


def test_folds_cut_what_is_no_test_into_ten(corpus):
    items = hoc.load(corpus)
    folds = [hoc._part(pmid, fold) for pmid in items["pmid"] for fold in range(10)]
    tests = len(hoc.split(items, "test"))
    assert folds.count("test") == 10 * tests
    assert folds.count("dev") == len(items) - tests


def test_parts_that_are_none_are_refused(corpus):
    items = hoc.load(corpus)
    for name, fold in (("valid", 0), ("dev", 10)):
        with pytest.raises(ValueError, match="train, dev or test of fold 0 to 9"):
            hoc.split(items, name, fold)
    with pytest.raises(ValueError, match="holds none of these 0"):
        hoc.split(items.select([]), "test")


# Words


def test_the_target_is_the_sentence_of_biogpt():
    both = {"text": "It  died .", "labels": ["resisting cell death", "cellular energetics"]}
    assert hoc.render(both).source == "It died ."
    said = " the type of this document is resisting cell death|cellular energetics."
    assert hoc.render(both).target == said
    assert hoc.render({"text": "x", "labels": []}) == ("x.", " the type of this document is empty.")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (" the type of this document is empty. More", []),
        (" the type of this document is cellular energetics.", ["cellular energetics"]),
        ("the type of this document is cellular energetics.", None),
        (" the type of this document is cellular energetics", None),
        (" the type of this document is cellular energetics|empty.", None),
        (" the type of this document is cellular energetics|cellular energetics.", None),
        (" the type of this document is cellular.", None),
        (" the type of this document is .", None),
        (" so the type of this document is empty.", None),
        ("", None),
    ],
)
def test_only_the_whole_sentence_counts(written, names):
    assert hoc.parse(written) == names


def test_a_text_is_cut_and_an_answer_is_not(runs, pretrained):
    tokenizer = load_tokenizer(pretrained.id, runs)
    short, long = ({"text": "word " * n, "labels": [LABELS[0]]} for n in (3, 900))
    room = 512 - hoc.longest(tokenizer)
    assert not hoc.encode(tokenizer, short, max_length=512).truncated
    source, target, truncated = hoc.encode(tokenizer, long, max_length=512)
    assert truncated and len(source) == room
    assert tokenizer.decode(target) == hoc.render(long).target
    assert source[0] == tokenizer.bos_token_id
    with pytest.raises(ValueError, match="must fit into max_length=5, an answer takes up to"):
        hoc.encode(tokenizer, short, max_length=5)
    with pytest.raises(ValueError, match="HoC has one setting, 'document', got 'question_only'"):
        hoc.encode(tokenizer, short, "question_only")


# Learning


def test_a_tuned_model_writes_the_sentence(corpus, runs, pretrained, tmp_path):
    (tmp_path / pretrained.id).symlink_to(runs / pretrained.id)
    config = finetune.profile(
        "tiny", parent=pretrained.id, questions=corpus, setting="document", epochs=12, lr=3e-3,
        virtual_tokens=1,
    )  # fmt: skip
    record = finetune.finetune(config, tmp_path)
    assert {"dev_micro_f1", "dev_low", "dev_high", "dev_n"} <= record.metrics.keys()
    model, tokenizer = load_model(record.id, tmp_path), load_tokenizer(record.id, tmp_path)
    items = hoc.load(corpus)
    report = hoc.evaluate(model, tokenizer, hoc.split(items, "train"))
    assert report.unparsed == 0 and report.exact > 0.9
    untrained = hoc.evaluate(load_model(pretrained.id, runs), tokenizer, hoc.split(items, "test"))
    assert untrained.unparsed == untrained.n and untrained.micro_f1 == 0


def test_the_other_setting_is_refused_before_training(corpus, runs, pretrained):
    config = finetune.profile("tiny", parent=pretrained.id, questions=corpus)
    with pytest.raises(ValueError, match="HoC has one setting"):
        finetune.finetune(config, runs)
    with pytest.raises(ValueError, match="part='all' is for PubMedQA"):
        finetune.finetune(replace(config, part="all", setting="document"), runs)
