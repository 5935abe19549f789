"""A corpus in one file: what goes in comes out, and nothing else does."""

import io
import subprocess
import sys
import tarfile
import textwrap

import pytest

from mediswift import materials, parcel, pretrain, records
from mediswift.__main__ import main

SIZES = {"vocab_size": 512, "context": 512}
TINY = pretrain.profile("tiny", tokens=4_096)
BARE = """
    import sys
    from importlib.machinery import PathFinder

    find = PathFinder.find_spec
    HIDDEN = set("datasets pandas pyarrow lxml requests papermill sklearn scipy".split())

    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else find(name, path, target)

    PathFinder.find_spec = staticmethod(find_spec)
    from mediswift.pretrain import main

    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of the sample's corpus, and its parcel."""
    runs = tmp_path_factory.mktemp("corpus")
    found = materials.prepare("sample:", runs=runs, **SIZES)
    folder = runs / found.record.id
    return folder, parcel.pack(folder, runs / "sample.tar.xz")


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rewritten(source, target, change):
    """A parcel whose members are those of `source` after `change`, a function of the list."""
    with tarfile.open(source) as old, tarfile.open(target, "w:xz") as new:
        members = [(member, old.extractfile(member).read()) for member in old.getmembers()]
        for member, content in change(members):
            member.size = len(content)
            new.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return target


def plain(name, content=b"x"):
    return tarfile.TarInfo(name), content


def link(name):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member, b""


def test_what_goes_in_comes_out(made, tmp_path):
    folder, file = made
    out = parcel.unpack(file, tmp_path)
    assert out == tmp_path / folder.name
    assert files(out) == files(folder)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_the_same_rows_give_the_same_file(made, tmp_path):
    folder, file = made
    assert parcel.pack(folder, tmp_path / "again.tar.xz").read_bytes() == file.read_bytes()


def test_a_corpus_that_is_there_is_not_touched(made, tmp_path):
    folder, file = made
    there = parcel.unpack(file, tmp_path) / "train" / "tokens.bin"
    before = there.stat().st_mtime_ns
    assert parcel.unpack(file, tmp_path) == tmp_path / folder.name
    assert there.stat().st_mtime_ns == before


def test_a_run_on_a_parcel_is_the_run_on_its_text(made, tmp_path):
    _, file = made
    packed = pretrain.profile("tiny", tokens=4_096, corpus=f"packed:{file}")
    elsewhere = pretrain.pretrain(packed, tmp_path / "a")
    assert pretrain.pretrain(TINY, tmp_path / "b").id == elsewhere.id


def test_a_machine_that_only_trains_needs_no_library_that_reads_text(made, tmp_path):
    _, file = made
    config = tmp_path / "c.json"
    changes = {"tokens": 1_024, "corpus": f"packed:{file}"}
    records.write_json(config, vars(pretrain.profile("tiny", **changes)))
    words = [sys.executable, "-c", textwrap.dedent(BARE), str(config), str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs").glob("pretrain-tiny-*/record.json"))


def test_no_parcel_is_overwritten(made):
    folder, file = made
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"):
        parcel.pack(folder, file)
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".sample*"))


def test_a_crash_while_packing_leaves_nothing(made, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "add", fail)
    with pytest.raises(OSError, match="No space"):
        parcel.pack(made[0], tmp_path / "new" / "p.tar.xz")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m[1:], "lacks \\['record.json'\\]"),
        (lambda m: [*m, plain("../evil")], "has \\['../evil'\\]"),
        (lambda m: [*m, plain("/tmp/evil.json")], "has \\['/tmp/evil.json'\\]"),
        (lambda m: [*m, plain("tokenizer/../x.json")], "tokenizer/../x.json"),
        (lambda m: [*m, plain("model.bin")], "has \\['model.bin'\\]"),
        (lambda m: [*m, link("tokenizer/more.json")], "has \\['tokenizer/more.json'\\]"),
        (lambda m: [*m, m[0]], "each once"),
    ],
)
def test_only_the_files_of_a_corpus_are_taken_out(made, tmp_path, change, named):
    file = rewritten(made[1], tmp_path / "p.tar.xz", change)
    with pytest.raises(ValueError, match=f"a parcel holds the files of a corpus.*{named}"):
        parcel.unpack(file, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("name", ["../../evil", "pretrain-x", "corpus-../x", ""])
def test_a_parcel_cannot_choose_another_folder(made, tmp_path, name):
    def renamed(members):
        old = made[0].name.encode()
        return [(m, content.replace(old, name.encode())) for m, content in members]

    file = rewritten(made[1], tmp_path / "p.tar.xz", renamed)
    with pytest.raises(ValueError, match="must hold a corpus"):
        parcel.unpack(file, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_parcel_is_refused(made, tmp_path, part):
    file, whole = tmp_path / "p.tar.xz", made[1].read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="is damaged or no parcel"):
        parcel.unpack(file, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_a_parcel_of_another_vocabulary_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="has vocab_size=512 and .*, the run 400 and False"):
        materials.prepare(f"packed:{made[1]}", vocab_size=400, context=64, runs=tmp_path)


def test_a_missing_parcel_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file is at none.tar.xz"):
        parcel.unpack("none.tar.xz", tmp_path)


def test_the_command_line_packs(tmp_path, capsys):
    out = tmp_path / "sample.tar.xz"
    words = ["pack", "--corpus", "sample:", "--size", "tiny", "--out", str(out)]
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 0
    assert f"its address is packed:{out}" in capsys.readouterr().out
    assert parcel.unpack(out, tmp_path / "elsewhere").is_dir()
