"""Files of tensors that prove themselves: safetensors with a checksum, one from each process.

Decisions: the header holds what is said about the tensors and a checksum of it and of all of them,
so that a file is moved into place whole and needs no other to be trusted. A sharded tensor lies in
one file for each process, its rows in the order of the processes, so that any number of processes
has it whole again by putting the pieces one after the other. Read one tensor at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(path: Path, tensors: dict[str, Tensor], said: str) -> None:
    """Write `tensors`, and what is `said` about them, whole, with a checksum.

    Raises OSError when there is no room; then nothing has changed.
    """
    partial = path.with_name(f".{path.name}")
    about = {"said": said, "sha256": _checksum(sorted(tensors.items()), said)}
    try:
        save_file(tensors, partial, metadata=about)
        _to_disk(partial)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):  # what is half written takes the room that is missing
            partial.unlink()
        raise OSError(
            f"the checkpoint could not be written into {path.parent} ({error}); the last one is "
            "untouched: make room, and call again to go on from it"
        ) from error
    os.replace(partial, path)
    _to_disk(path.parent)


def proved(path: Path) -> str:
    """What is said in a file whose content is what its checksum says.

    Raises ValueError for any other file, with what is wrong.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if {"said", "sha256"} - about.keys():
                raise ValueError("it has no checksum")
            tensors = ((name, file.get_tensor(name)) for name in sorted(file.keys()))
            if _checksum(tensors, about["said"]) != about["sha256"]:
                raise ValueError("its content is not what its sha256 says")
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return about["said"]


class Whole:
    """Tensors of several files, each put together when it is asked for."""

    def __init__(self, files: list[safe_open]) -> None:
        """Take the open files, in the order of the processes."""
        self.files = files
        self.names = set(files[0].keys())

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        """Return one tensor; a scalar is every process's own, and the same."""
        pieces = [file.get_tensor(name) for file in self.files]
        return torch.cat(pieces) if len(pieces) > 1 and pieces[0].dim() else pieces[0]

    def shape(self, name: str) -> torch.Size:
        """Shape of one tensor, without reading it."""
        shapes = [file.get_slice(name).get_shape() for file in self.files]
        return torch.Size([sum(s[0] for s in shapes), *shapes[0][1:]] if shapes[0] else [])


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[Whole]:
    """Tensors of the files, which are proved already, as long as the context holds."""
    with ExitStack() as stack:
        yield Whole([stack.enter_context(safe_open(path, "pt")) for path in paths])


def _checksum(tensors: Iterator[tuple[str, Tensor]], said: str) -> str:
    digest = hashlib.sha256(said.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    # A folder too: a name that was moved is safe only then
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
