"""Files that prove themselves: what is written comes back, and nothing else does."""

import pytest
import torch
from safetensors.torch import save_file

from mediswift import parts

TENSORS = {"matrix": torch.arange(6.0).view(3, 2), "count": torch.tensor(7), "none": torch.ones(0)}


def test_what_was_written_proves_itself(tmp_path):
    parts.write(tmp_path / "one", TENSORS, "said")
    assert parts.proved(tmp_path / "one") == "said"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    with parts.opened([tmp_path / "one"]) as whole:
        assert whole.names == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert torch.equal(whole[name], tensor)
            assert whole.shape(name) == tensor.shape


def test_pieces_are_put_together_in_the_order_of_the_processes(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    rows = TENSORS["matrix"].split([2, 1])
    for path, piece in zip(paths, rows, strict=True):
        parts.write(path, TENSORS | {"matrix": piece.contiguous()}, "")
    with parts.opened(paths) as whole:
        assert torch.equal(whole["matrix"], TENSORS["matrix"])
        assert whole.shape("matrix") == (3, 2)
        assert whole["count"] == 7
        assert whole.shape("count") == ()


@pytest.mark.parametrize("about", [None, {"said": ""}, {"sha256": ""}], ids=str)
def test_a_file_without_a_checksum_proves_nothing(tmp_path, about):
    save_file(TENSORS, tmp_path / "one", about)
    with pytest.raises(ValueError, match="it has no checksum"):
        parts.proved(tmp_path / "one")


@pytest.mark.parametrize("change", ["said", "tensor", "shape", "name"])
def test_the_checksum_is_of_everything(tmp_path, change):
    parts.write(tmp_path / "one", TENSORS, "said")
    with parts.safe_open(tmp_path / "one", "pt") as file:
        about = file.metadata()
    others = {
        "tensor": {"matrix": TENSORS["matrix"] + 1},
        "shape": {"matrix": TENSORS["matrix"].view(2, 3)},
        "name": {"matrix2": TENSORS["matrix"].clone()},
        "said": {},
    }
    about |= {"said": "other"} if change == "said" else {}
    save_file(TENSORS | others[change], tmp_path / "one", about)
    with pytest.raises(ValueError, match="not what its sha256 says"):
        parts.proved(tmp_path / "one")


def test_no_room_is_an_error_that_leaves_what_was_there(tmp_path):
    parts.write(tmp_path / "one", TENSORS, "said")
    (tmp_path / ".one").mkdir()  # where the partial file would be
    with pytest.raises(OSError, match="could not be written into .*make room, and call again"):
        parts.write(tmp_path / "one", {}, "other")
    assert parts.proved(tmp_path / "one") == "said"
