"""The one training loop, for pre-training and fine-tuning alike, on Accelerate.

Decisions: every step is a function of (config, step): which examples it sees, in which order, at
which learning rate. So resuming needs no state of a data loader, and a resumed run equals an
uninterrupted one, bit by bit. The loss of a step is the mean over all its target tokens, however
they are cut into micro-batches and processes. (Bit by bit holds for a CPU and one thread count; a
GPU's sums may differ in the last bits.) Ctrl-C and SIGTERM end the run after the current
step with a checkpoint. Metrics leave as JSON lines, never as text to be parsed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mediswift import checkpoints, dynamic
from mediswift.batches import Examples
from mediswift.checkpoints import Progress
from mediswift.density import values_by_factor
from mediswift.engines import AUTO
from mediswift.jobs import sole_job, stop_politely
from mediswift.loss import mean_loss, summed_loss
from mediswift.machine import join_processes, keep_memory, reset_peak_memory
from mediswift.metrics import Log
from mediswift.records import determining
from mediswift.schedule import Config, check_machine, indices_of, is_due, learning_rate
from mediswift.sharding import rest, shard, whole
from mediswift.sparse import choose_engines, layers, masks_of

FOREIGN = [f"ACCELERATE_USE_{name}" for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM")]


def fit(
    model: nn.Module,
    examples: Examples,
    config: Config,
    folder: str | Path,
    validation: Examples | None = None,
    sharded: bool = False,
    moments: Mapping[str, Tensor] | None = None,
) -> list[dict[str, Any]]:
    """History of the run: one row of metrics every `log_every` steps, also in `metrics.jsonl`.

    Trains `model` in place. Continues from the checkpoint in `folder` when there is one, and
    leaves one at the end; else Adam starts with `moments`, as `checkpoints.read` names them, or
    with none. With `sharded`, several processes hold a part of the model each, also
    afterwards: `checkpoints.restore` has it whole. Losses are in nats a token. Raises
    KeyboardInterrupt after a checkpoint when asked to stop, RuntimeError when a removed weight
    moved or another job trains in `folder`, FloatingPointError when the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reset_peak_memory()
    keep_memory()
    accelerator = make_accelerator(config)
    sharded = sharded and accelerator.num_processes > 1
    if sharded and config.moves:
        raise ValueError("masks that move need whole matrices: leave out moves, or sharded=True")
    if sharded:
        shard(model, accelerator.device)
    optimizer = make_optimizer(model, config)
    checkpoints.carry(moments or {}, model, optimizer)
    masks = masks_of(model)
    fingerprint = _fingerprint(config, len(examples), masks.digest if masks else "")
    if sharded:
        optimizer = accelerator.prepare(optimizer)
    else:
        model, optimizer = accelerator.prepare(model, optimizer)
    if isinstance(model, DistributedDataParallel):
        # an engine's index is buffers, equal everywhere: they need not be sent round at every step
        model.broadcast_buffers = False
    plain = accelerator.unwrap_model(model)
    with sole_job(folder, accelerator.is_main_process), stop_politely() as asked:
        with accelerator.main_process_first():  # what it sets aside is not there for the others
            progress = checkpoints.load(folder, plain, optimizer.optimizer, fingerprint)
        _choose_engines(accelerator, plain, examples, config)
        log = Log(folder, progress.step, speaks=accelerator.is_main_process)
        while progress.step < config.steps:
            began = time.perf_counter()
            with dynamic.moving(
                plain, optimizer.optimizer, config, progress.step + 1, accelerator.reduce
            ):
                row = _step(accelerator, model, optimizer, examples, config, progress.step)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + row["tokens"],
                seconds=progress.seconds + time.perf_counter() - began,
            )
            done = progress.step == config.steps
            if masks and (progress.step == 1 or done):
                masks_of(plain).check(plain)
            if validation and (done or is_due(progress.step, config.evaluate_every)):
                row["validation_loss"] = mean_loss(
                    model, validation, config.micro_batch, config.precision
                )
                _refuse_infinity(progress.step, config, validation_loss=row["validation_loss"])
                rest(model)
            if done or is_due(progress.step, config.log_every) or "validation_loss" in row:
                log.write(_timed(row, progress), config.steps)
            stop = _any(accelerator, asked.is_set())
            if done or stop or is_due(progress.step, config.save_every):
                log.sync()
                _save(accelerator, folder, plain, optimizer.optimizer, progress, sharded)
            if stop:  # at the last step too, or whoever trains a series would start the next run
                raise KeyboardInterrupt(f"stopped after step {progress.step}; call again to go on")
        return log.end(config.steps)


def _save(
    accelerator: Accelerator,
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    sharded: bool,
) -> None:
    if sharded or accelerator.is_main_process:
        checkpoints.save(folder, model, optimizer, progress)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoints.tidy(folder)


def make_accelerator(config: Config) -> Accelerator:
    """Return Accelerate's hold on device and processes.

    Raises ValueError for what `schedule.check_machine` refuses, and for an engine of `accelerate
    launch` that would train another way.
    """
    process = join_processes()
    if asked := [name for name in FOREIGN if os.environ.get(name, "").lower() == "true"]:
        raise ValueError(
            "what `accelerate launch` starts is plain processes, with no engine of its own, got "
            f"{asked[0]}=true; leave it out, and let the configuration say sharded: true"
        )
    check_machine(config, process.device.type, process.num_processes)
    # precision and micro-batches are the run's own, whatever `accelerate launch` says
    return Accelerator(
        cpu=process.device.type == "cpu",
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def _choose_engines(
    accelerator: Accelerator, model: nn.Module, examples: Examples, config: Config
) -> None:
    # Before the clock starts; one process measures, the others read what it found
    if not any(layer.engine == AUTO for layer in layers(model)):
        choose_engines(model, 0, config.dtype)  # one that was named may not compute in it
        return
    first = examples.batch(indices_of(0, len(examples), config)[: config.micro_batch])
    with accelerator.main_process_first():
        told = choose_engines(model, first.input_ids.numel(), config.dtype)
    accelerator.print(told)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters; weight decay on matrices only.

    With `config.density_scaling`, kept weights of sparse layers are groups of their own, one a
    density, and `factor` says what their rate is of everyone's. Raises ValueError when there are
    no sparse layers then.
    """
    groups = [group for group in _groups(model, config) if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def _groups(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    scaled = values_by_factor(model) if config.density_scaling else {}
    apart = {id(p) for values in scaled.values() for p in values}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    matrices = [p for p in trained if p.dim() > 1]
    vectors = [p for p in trained if p.dim() <= 1]
    decay = {"weight_decay": config.weight_decay}
    return [
        {"params": matrices} | decay,
        {"params": vectors, "weight_decay": 0.0},
        *(
            {"params": values, "lr": config.lr * factor, "factor": factor} | decay
            for factor, values in scaled.items()
        ),
    ]


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    config: Config,
    step: int,
) -> dict[str, Any]:
    torch.manual_seed(config.seed * 1_000_003 + step)  # dropout, the same after a resume
    model.train()
    mine = indices_of(step, len(examples), config)[
        accelerator.process_index :: accelerator.num_processes
    ]
    cuts = range(0, len(mine), config.micro_batch)
    batches = [examples.batch(mine[cut : cut + config.micro_batch]) for cut in cuts]
    targets = sum(batch.count for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    counts = torch.tensor([targets, tokens], device=accelerator.device)
    targets, tokens = accelerator.reduce(counts, "sum").tolist()
    loss = torch.zeros((), device=accelerator.device)
    for batch in batches:
        last = batch is batches[-1]
        with nullcontext() if last else accelerator.no_sync(model):
            share = summed_loss(model, batch.to(accelerator.device), config.precision) / targets
            # processes average their gradients; the step wants their sum
            accelerator.backward(share * accelerator.num_processes)
        loss += share.detach()
    norm = float(whole(accelerator.clip_grad_norm_(model.parameters(), config.clip)))
    loss = accelerator.reduce(loss, "sum").item()
    _refuse_infinity(step + 1, config, loss=loss, gradient_norm=norm)
    rate = learning_rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss, "lr": rate, "gradient_norm": norm, "tokens": tokens}


def _refuse_infinity(step: int, config: Config, **numbers: float) -> None:
    if not all(map(math.isfinite, numbers.values())):
        has = " and ".join(f"{n.replace('_', ' ')} {value:g}" for n, value in numbers.items())
        raise FloatingPointError(
            f"step {step} has {has}: lower lr={config.lr:g} or raise warmup_steps; what was saved "
            "before is untouched"
        )


def _timed(row: dict[str, Any], progress: Progress) -> dict[str, Any]:
    rate = progress.tokens / progress.seconds
    total = {"tokens": progress.tokens, "tokens_per_s": rate, "seconds": progress.seconds}
    return {"step": progress.step} | row | total


def _any(accelerator: Accelerator, flag: bool) -> bool:
    # Processes stop after the same step, or one would wait for the others forever
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), "sum"))


def _fingerprint(config: Config, examples: int, mask_digest: str) -> str:
    chosen = determining(config, {"density_scaling": False, "moves": None})
    text = json.dumps([chosen, examples, mask_digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
