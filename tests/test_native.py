"""Tests of mediswift.native and native.cpp. Run with: pytest tests/test_native.py.

What the kernels compute is compared in test_products.py, and under sanitizers and with other vector
registers here: native_sanitized.cpp.
"""

import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mediswift import choice, native
from mediswift.linear import SparseLinear

DRIVER = Path(__file__).with_name("native_sanitized.cpp")
COMPILER = shutil.which(os.environ.get("CXX", "")) or next(
    filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None
)
needs_compiler = pytest.mark.usefixtures("kernels")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Cache folder without kernels, and a module that knows of none."""
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path))
    native.why_not.cache_clear(), native.library.cache_clear()
    yield tmp_path
    native.why_not.cache_clear(), native.library.cache_clear()


@pytest.fixture
def fake(fresh, monkeypatch):
    """Function that sets CXX to a shell script, which may ask for its arguments."""

    def install(body, version="g++ 12"):
        script = fresh / "compiler"
        script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))

    return install


# Compiling


@needs_compiler
def test_kernels_are_compiled_once_and_found_again(fresh, monkeypatch):
    assert native.why_not() == ""
    told, made = sorted(fresh.iterdir(), key=lambda path: path.suffix)
    assert (told.suffix, made.suffix) == (".sha256", ".so")
    assert made.name.startswith("native-")
    native.library.cache_clear()
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("compiled again"))
    native.library(torch.float32)


@needs_compiler
@pytest.mark.parametrize("harm", ["cut", "flipped", "unsigned"])
def test_a_damaged_library_is_compiled_again(fresh, harm):
    path = native._built(torch.float32, shared=True)
    content = path.read_bytes()
    if harm == "unsigned":  # as one of an earlier version
        path.with_suffix(".sha256").unlink()
    else:
        half = len(content) // 2
        flipped = bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes(content[:half] + (flipped if harm == "flipped" else b""))
    native.library.cache_clear()
    assert native.lanes() in (4, 8, 16)
    assert path.with_suffix(".sha256").exists()
    assert path.stat().st_size == len(content)


@needs_compiler
def test_a_compiler_may_be_several_words(fresh, monkeypatch):
    monkeypatch.setenv("CXX", f"{shutil.which('env')} {COMPILER}")
    assert native.why_not() == ""


@pytest.mark.parametrize(
    "changed", ["native.cpp", "panels.h", "tiles.h", "compiler", "processor", "type"]
)
def test_other_kernels_have_another_name(fresh, fake, monkeypatch, changed):
    monkeypatch.setattr(native, "_compile", lambda compiler, what, shared, path: path.touch())
    fake("")
    first = native._built(torch.float32, shared=True)
    if changed.endswith((".cpp", ".h")):
        for name in ("native.cpp", "panels.h", "tiles.h"):
            shutil.copy(native.FOLDER / name, fresh)
        with open(fresh / changed, "a") as file:
            file.write("// other")
        monkeypatch.setattr(native, "FOLDER", fresh)
    if changed == "compiler":
        fake("", version="g++ 13")
    if changed == "processor":
        monkeypatch.setattr(native, "_processor", lambda: "flags: of another one")
    dtype = torch.float64 if changed == "type" else torch.float32
    assert native._built(dtype, shared=True) != first


RACER = """
import sys, torch
from pathlib import Path
from mediswift import native

print("ready", flush=True)
sys.stdin.readline()
order, given, found = torch.tensor([1, 0], dtype=torch.int32), torch.rand(2), torch.empty(2)
native.call("reorder", torch.float32, 2, order, given, found)
assert torch.equal(found, given.flip(0))
maps = Path("/proc/self/maps")
mapped = [line.split()[-1] for line in maps.read_text().splitlines()] if maps.exists() else []
print(sorted({Path(name).name for name in mapped if "omp" in Path(name).name}))
"""


@needs_compiler
def test_two_processes_may_compile_at_once_and_use_the_threads_of_torch(tmp_path):
    environment = os.environ | {"MEDISWIFT_CACHE": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", RACER]
    racers = [subprocess.Popen(command, env=environment, **pipes) for _ in "ab"]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n", "ready\n"]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    # whole, and nothing half-made
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".sha256", ".so"]
    if sys.platform == "linux":
        assert len(set(said)) == 1 and said[0].count("omp") == 1  # one OpenMP runtime


def test_without_a_compiler_it_says_what_to_do_and_auto_does_without(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("PATH", "")
    why_not = native.why_not()
    assert "needs a C++ compiler and found none: install g++ or clang, or set CXX" in why_not
    layer = SparseLinear(nn.Parameter(torch.rand(32, 16)), None, torch.rand(32, 16) > 0.5)
    layer(torch.rand(64, 16)).sum().backward()
    assert layer.engine == "masked" and layer.values.grad.any()
    with pytest.raises(ValueError, match="'native' cannot compute this layer: .*needs a C"):
        layer.use("native")


@needs_compiler
def test_a_choice_made_with_a_compiler_is_not_one_without(fresh, monkeypatch):
    monkeypatch.setattr(choice, "measure", lambda layout, *_: _won_by_the_last(layout))
    mask = torch.rand(32, 16) > 0.5
    with_one = SparseLinear(nn.Parameter(torch.rand(32, 16)), None, mask)
    with_one.choose(64)
    assert with_one.engine == "native"
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("PATH", "")
    native.why_not.cache_clear(), native.library.cache_clear()
    without = SparseLinear(nn.Parameter(torch.rand(32, 16)), None, mask)
    without(torch.rand(64, 16)).sum().backward()
    assert without.engine == "masked"


def _won_by_the_last(layout):
    names = choice.possible(layout, "cpu", torch.float32)
    return {"dense": 2.0, "masked": 3.0} | {name: 1.0 for name in names if name == "native"}


def test_what_the_compiler_says_is_passed_on(fresh, fake):
    fake("echo unknown register >&2; exit 1")
    why_not = native.why_not()
    assert "did not compile" in why_not and "unknown register" in why_not
    assert "-march=native" in why_not and "Set CXX to GCC 12 or Clang" in why_not
    assert not list(fresh.glob("*.so"))


def test_what_the_loader_says_is_passed_on(fresh, fake):
    fake('while [ "$1" != -o ]; do shift; done; echo no library > "$2"')
    assert ".so" in native.why_not()


@pytest.mark.parametrize(("version", "linked"), [("g++ 12", False), ("clang version 18", True)])
def test_the_runtime_of_torch_is_used_where_the_compiler_knows_it(fresh, fake, version, linked):
    fake(f'echo "$@" >> {fresh}/said; while [ "$1" != -o ]; do shift; done; : > "$2"', version)
    native._built(torch.float32, shared=True)
    _, link = (fresh / "said").read_text().splitlines()
    assert "-shared" in link and ("-fopenmp" in link) == linked


# Calling


@needs_compiler
def test_registers_hold_half_as_many_doubles():
    assert native.lanes(torch.float32) == 2 * native.lanes(torch.float64) >= 4


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_passed_by_address(dtype):
    order, given = torch.tensor([2, 0, 1], dtype=torch.int32), torch.rand(3, dtype=dtype)
    found = torch.zeros(4, dtype=dtype)
    native.call("reorder", dtype, 3, order, given, found)
    assert found.tolist() == [*given[order.long()].tolist(), 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match=f"float64 or bfloat16, got {dtype}; use engine='masked'"):
        native.library(dtype)


GIVEN = torch.rand(4)


@needs_compiler
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (GIVEN.double(), r"torch.float64 on cpu; use engine='masked'"),
        (
            GIVEN.long(),
            r"reorder takes torch.float32 and int32 tensors on the CPU, got torch.int64",
        ),
        (GIVEN.to("meta"), "torch.float32 on meta"),
        (torch.rand(8)[::2], r"contiguous tensors, got strides \(2,\)"),
    ],
)
def test_what_a_kernel_could_misread_is_refused(given, text):
    order, found = torch.zeros(4, dtype=torch.int32), torch.zeros(4)
    with pytest.raises(ValueError, match=text):
        native.call("reorder", torch.float32, 4, order, given, found)


# The kernels alone, for other registers too

SANITIZED = "-march=native -fsanitize=address,undefined -fno-sanitize-recover=all -O1 -g -fopenmp"
BUILDS = {  # flags, what the processor must know, bytes of a register
    "sanitized": (SANITIZED, "", 0),
    "AVX2": ("-O1 -mavx2 -mfma -mno-avx512f", "avx2", 32),
    "SSE2": ("-O1 -march=x86-64", "sse2", 16),
}


@functools.cache
def refused(flags):
    """Why flags do not work here, "" when they do."""
    if not COMPILER:
        return "no C++ compiler"
    command = [COMPILER, *flags.split(), "-x", "c++", "-", "-o", os.devnull]
    done = subprocess.run(command, input="int main() {}", capture_output=True, text=True)
    return f"the compiler refuses {flags}" if done.returncode else ""


def run_driver(folder, *flags):
    """What the kernels' own driver says."""
    command = [COMPILER, "-std=c++17", *flags, "-Wno-psabi", str(DRIVER), "-o", folder / "driver"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    done = subprocess.run([folder / "driver"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("build", BUILDS)
def test_kernels_equal_plain_loops_and_stay_inside_their_arrays(tmp_path, build, real):
    flags, needs, size = BUILDS[build]
    if needs and platform.machine() != "x86_64" or needs not in native._processor():
        pytest.skip(f"the processor has no {build}")
    if refused(flags):
        pytest.skip(refused(flags))
    width = {"float": 4, "double": 8}[real]
    lanes = size // width or native.lanes({4: torch.float32, 8: torch.float64}[width])
    said = run_driver(tmp_path, *flags.split(), f"-DREAL={real}")
    assert said == f"{lanes} numbers of {width} bytes\n"


def test_kernels_of_bfloat16_too(tmp_path):
    if "avx512_bf16" not in native._processor() or refused(SANITIZED):
        pytest.skip(refused(SANITIZED) or "the processor does not multiply bfloat16")
    said = run_driver(tmp_path, *SANITIZED.split(), "-DBF16")
    assert said == "32 numbers of 2 bytes\n"
