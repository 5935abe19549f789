"""The CPU kernels, compiled on first use, called with tensors that were checked.

Decisions: C++ without a header of anybody's, so that a compiler is all it needs: `native.cpp` for
float32 and float64, `native_bf16.cpp` for bfloat16 on processors that multiply it. Built for this
machine's own vector registers and kept in a cache folder under a name that hashes source, compiler
and processor. They run on the threads of torch's own OpenMP runtime: a second one beside it would
have the two fight for the cores. Where they cannot run `why_not` says so, and callers use another
engine.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from mediswift.places import cache_dir

FOLDER = Path(__file__).parent
SOURCES = {
    torch.float32: ["native.cpp", "-DREAL=float"],
    torch.float64: ["native.cpp", "-DREAL=double"],
    torch.bfloat16: ["native_bf16.cpp"],
}
"""Kernels of each type, and what they are compiled with."""
HALF = torch.bfloat16
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp"]
"""Never -ffast-math: see the source."""


def multiplies_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX512-BF16); others only imitate it."""
    return torch.cpu.get_capabilities().get("avx512_bf16", False)


@functools.cache
def why_not(dtype: torch.dtype = torch.float32) -> str:
    """Why the kernels cannot run here; "" when they can. The first call compiles, a few seconds."""
    if dtype == HALF and not multiplies_bf16():
        return "this CPU does not multiply bfloat16 (AVX512-BF16)"
    try:
        library(dtype)
    except (OSError, RuntimeError) as error:
        return str(error)
    return ""


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the kernels for a type of `SOURCES`, compiled now or found in the cache folder.

    Raises TypeError for another type, RuntimeError with what the compiler said.
    """
    if dtype not in SOURCES:
        raise TypeError(
            f"the native engine computes in float32, float64 or bfloat16, got {dtype}; use "
            "engine='masked'"
        )
    runtime = _openmp_of_torch()
    return ctypes.CDLL(str(_built(dtype, shared=runtime is not None)))


def name(dtype: torch.dtype) -> str:
    """Name of the kernels for a type: another one for other sources, compiler or processor."""
    return Path(library(dtype)._name).stem


def call(name: str, dtype: torch.dtype, *arguments: int | Tensor | None) -> None:
    """Run a kernel on torch's number of threads: sizes as int64, tensors by address.

    Those of bfloat16 take weights and their gradients in float32. Raises ValueError for a tensor
    that is not contiguous, not on the CPU, or of another type.
    """
    kernel = getattr(library(dtype), name)
    kernel.restype = None
    kernel(torch.get_num_threads(), *[_passed(name, dtype, a) for a in arguments])


def lanes(dtype: torch.dtype = torch.float32) -> int:
    """How many numbers a vector register holds on this machine.

    >>> not why_not() and lanes() in (4, 8, 16) or bool(why_not())
    True
    """
    return library(dtype).lanes()


def _passed(name: str, dtype: torch.dtype, argument: int | Tensor | None) -> object:
    if not isinstance(argument, Tensor):
        return None if argument is None else ctypes.c_int64(argument)
    taken = [dtype, torch.int32, *([torch.float32] if dtype == HALF else [])]
    if argument.dtype not in taken or argument.device.type != "cpu":
        raise ValueError(
            f"{name} takes {dtype} and int32 tensors on the CPU, got {argument.dtype} on "
            f"{argument.device}; use engine='masked' for others"
        )
    if not argument.is_contiguous():
        raise ValueError(f"{name} takes contiguous tensors, got strides {argument.stride()}")
    return ctypes.c_void_p(argument.data_ptr())


def _openmp_of_torch() -> Path | None:
    # Made global, so that our library finds its symbols there and needs no runtime of its own
    folder = Path(torch.__file__).parent
    for path in [*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")]:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return path
    return None


def _built(dtype: torch.dtype, shared: bool) -> Path:
    source, *defined = SOURCES[dtype]
    found = next(filter(shutil.which, ("c++", "g++", "clang++")), "none")
    compiler = shlex.split(os.environ.get("CXX", "")) or [found]  # it may be "ccache g++"
    if not all(map(shutil.which, compiler[:1])):
        raise RuntimeError(
            "the native engine needs a C++ compiler and found none: install g++ or clang, or set "
            "CXX; engine='masked' works without"
        )
    flags = [*FLAGS, *defined]
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    shared = shared and "clang" not in version  # whose calls only its own runtime understands
    text = "".join(path.read_text() for path in (FOLDER / source, *sorted(FOLDER.glob("*.h"))))
    made_of = f"{text}{flags}{shared}{version}{_processor()}"
    name = f"{Path(source).stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.so"
    path = cache_dir() / name
    if not _is_whole(path):
        _compile(compiler, [*flags, "-c", str(FOLDER / source)], shared, path)
    return path


def _is_whole(path: Path) -> bool:
    # A damaged library would crash the process, or compute something else
    told = path.with_suffix(".sha256")
    if not path.exists() or not told.exists():
        return False
    return told.read_text() == hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: list[str], what: list[str], shared: bool, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, "native.o"), Path(folder, "native.so")
        linked = [] if shared else ["-fopenmp"]
        _run([*compiler, *what, "-o", str(made[0])])
        _run([*compiler, "-shared", *linked, str(made[0]), "-o", str(made[1])])
        whole = Path(folder, "sha256")
        whole.write_text(hashlib.sha256(made[1].read_bytes()).hexdigest())
        os.replace(whole, path.with_suffix(".sha256"))
        os.replace(made[1], path)  # whole or not at all, when two processes compile


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"the native engine did not compile; {' '.join(command)} said: {done.stderr[-800:]}\n"
            "Set CXX to GCC 12 or Clang, or use engine='masked'"
        )


def _processor() -> str:
    # A cache folder may be shared by machines whose registers differ
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.machine() + platform.processor()
