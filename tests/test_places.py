"""Files of a user, told by place and by name."""

import pytest

from mediswift import places

ENDS = (".xml", ".xml.gz")


def test_files_of_a_folder_and_those_below_it(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("b.xml", "a/c.xml.gz", "a.xml.gz.md5", "._b.xml", "d.jsonl"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.xml").mkdir()
    assert [p.name for p in places.find_files(tmp_path, ENDS)] == ["c.xml.gz", "b.xml"]


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
