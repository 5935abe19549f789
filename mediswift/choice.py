"""Which engine is the fastest for a matrix on this machine: measured once, remembered on disk.

Decisions: what is timed is what training does, one forward and both gradients, the candidates
interleaved so that a busy machine disturbs all alike. Medians are compared. The dense layer runs
along, and an engine that does not beat it is not chosen: then it is `masked`, the dense product.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable

import torch
from filelock import FileLock
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import linear

import mediswift
from mediswift import native
from mediswift.engines import ENGINES, possible
from mediswift.layouts import Layout
from mediswift.places import cache_dir
from mediswift.records import write_json

FILE = "engines.json"
ROUNDS = 5
MOST_TOKENS = 4096
"""Tokens of a measurement: more change the seconds, not the order."""
log = logging.getLogger("mediswift")


def fastest(
    layout: Layout,
    pattern: str,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
) -> str:
    """Name of the engine that trains this matrix fastest with about `tokens` tokens a call.

    Measured at the power of two at or below `tokens`; later calls, of any process, find the answer.
    """
    tokens = min(MOST_TOKENS, 1 << max(4, tokens.bit_length() - 1))
    key = _key(layout, pattern, tokens, device, dtype)
    known = _known()
    if key not in known:
        known = _remember(key, measure(layout, tokens, device, dtype, bias))
        log.info("%s: %s", key, told(known[key]))
    return chosen(known[key])


def _remember(key: str, seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    # Who measured at the same time and was first is right: a run that goes on finds his answer
    path = cache_dir() / FILE
    with FileLock(path.with_name(f".{FILE}.lock")):
        known = {key: seconds} | _known()
        write_json(path, known)
    return known


def chosen(seconds: dict[str, float]) -> str:
    """Fastest engine of a measurement, `masked` when none beats the dense layer.

    >>> chosen({"dense": 2.0, "masked": 2.1, "native": 1.0}), chosen({"dense": 1.0, "masked": 2.0})
    ('native', 'masked')
    """
    best = min((name for name in seconds if name != "dense"), key=seconds.__getitem__)
    return best if seconds[best] < seconds["dense"] else "masked"


def told(seconds: dict[str, float]) -> str:
    """One line on a measurement: the choice, and each engine's time against dense.

    >>> told({"dense": 2.0, "masked": 2.5, "native": 1.0})
    'native (speed-up over dense: native 2.00, masked 0.80)'
    """
    names = sorted((n for n in seconds if n != "dense"), key=seconds.__getitem__)
    each = ", ".join(f"{n} {seconds['dense'] / seconds[n]:.2f}" for n in names)
    return f"{chosen(seconds)} (speed-up over dense: {each})"


def measure(
    layout: Layout, tokens: int, device: torch.device, dtype: torch.dtype, bias: bool = True
) -> dict[str, float]:
    """Median seconds of forward and both gradients: of each engine, and of a dense layer."""
    times = race(layout, tokens, device, dtype, bias)
    return {name: statistics.median(taken) for name, taken in times.items()}


def race(
    layout: Layout, tokens: int, device: torch.device, dtype: torch.dtype, bias: bool = True
) -> dict[str, list[float]]:
    """Seconds of forward and both gradients, round by round, of the dense layer and each engine."""
    return interleaved(candidates(layout, tokens, device, dtype, bias), device)


def interleaved(
    steps: dict[str, Callable[[], object]], device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step, round by round, the steps in turns; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(1 + ROUNDS):
        for name, step in steps.items():
            with saved_tensors_hooks(_itself, _itself):  # activation checkpointing must not see it
                seconds = timed(step, device)
            if turn:  # the first one compiles and warms up
                times[name].append(seconds)
    return times


def candidates(
    layout: Layout, tokens: int, device: torch.device, dtype: torch.dtype, bias: bool = True
) -> dict[str, Callable[[], None]]:
    """A training step of this matrix alone for each engine that can, and for a dense layer.

    Of half a precision are inputs and products alone, as under autocast; weights are float32.
    """
    outputs, inputs = layout.mask.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, grad = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
        weight = torch.randn(outputs, inputs) / inputs**0.5
    x, grad = x.to(device, dtype).requires_grad_(), grad.to(device, dtype)
    held = {"device": device, "dtype": torch.promote_types(dtype, torch.float32), "copy": True}
    added = torch.zeros(outputs).to(**held).requires_grad_() if bias else None
    full = weight.to(**held).requires_grad_()
    steps = {"dense": _trained(lambda: linear(x, full, added), grad, x, full, added)}
    for name in possible(layout, device.type, dtype):
        values = weight.flatten()[layout.order()].to(**held).requires_grad_()
        product = _product(name, x, values, added, layout)
        steps[name] = _trained(product, grad, x, values, added)
    return steps


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds that `step` takes, until the device is done with it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _product(
    name: str, x: Tensor, values: Tensor, bias: Tensor | None, layout: Layout
) -> Callable[[], Tensor]:
    engine = ENGINES[name]
    index = [tensor.to(x.device) for tensor in engine.index(layout)]
    return lambda: engine.product(x, values, bias, index, len(layout.mask))


def _trained(
    product: Callable[[], Tensor], grad: Tensor, x: Tensor, *of: Tensor | None
) -> Callable[[], None]:
    half = torch.promote_types(x.dtype, torch.float32) != x.dtype

    def step() -> None:
        with torch.autocast(x.device.type, x.dtype if half else None, enabled=half):
            y = product()
        _step(y, grad, x, *of)

    return step


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _step(y: Tensor, grad: Tensor, *of: Tensor | None) -> None:
    torch.autograd.grad(y, [tensor for tensor in of if tensor is not None], grad)


def _key(
    layout: Layout, pattern: str, tokens: int, device: torch.device, dtype: torch.dtype
) -> str:
    outputs, inputs = layout.mask.shape
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else ""
    kept = f"{int(layout.mask.sum())} of {outputs}x{inputs} kept"
    versions = f"torch {torch.__version__}, mediswift {mediswift.__version__}"
    # What cannot run here, without a compiler or by another mask, was not measured for here
    engines = possible(layout, device.type, dtype)
    kernels = native.name(dtype) if "native" in engines else ""  # other ones are measured anew
    about = [kept, pattern, " or ".join(engines), f"{tokens} tokens", str(dtype), where, threads]
    about += [versions, kernels]
    return ", ".join(filter(None, about))


def _known() -> dict[str, dict[str, float]]:
    try:
        known = json.loads((cache_dir() / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # of JSON or of UTF-8
        known = None
    return known if isinstance(known, dict) else {}  # only remembered measurements: made again
