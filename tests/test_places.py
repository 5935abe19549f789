"""Files of a user, told by place and by name."""

import os

import pytest

from mediswift import places

ENDS = (".xml", ".xml.gz")


def test_files_of_a_folder_and_those_below_it(tmp_path):
    for folder in ("a", ".trash", "a/.git", "folder.xml"):
        (tmp_path / folder).mkdir()
    for name in ("b.xml", "a/c.XML.gz", "a.xml.gz.md5", "._b.xml", "d.jsonl", ".trash/e.xml"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / ".git" / "f.xml").write_bytes(b"")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert [p.name for p in places.find_files(tmp_path, ENDS)] == ["c.XML.gz", "b.xml"]


def test_a_folder_that_cannot_be_read_is_no_smaller_corpus(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.xml").write_bytes(b"")

    def scandir(path, real=os.scandir):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="locked"):
        places.find_files(tmp_path, ENDS)


def test_a_file_is_taken_whatever_its_name(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"")
    assert places.find_files(tmp_path / "mine.txt", ENDS) == [tmp_path / "mine.txt"]


@pytest.mark.parametrize("name", ["none.xml", "empty", "other"])
def test_neither_a_file_nor_a_folder_of_files(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"\.xml, \.xml\.gz files; .*{name}' is neither"):
        places.find_files(tmp_path / name, ENDS)
