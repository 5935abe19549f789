"""Going on from a pre-trained run: as sparse as it was, or dense, with its removed weights back.

Decisions: the removed weights come back as zeros (SPDF, section 2.2) or with the values that they
were drawn with; Adam starts anew or with the parent's moments, which removed weights have none of.
The learning rate warms up again. Rows come in another order than the parent's, so that it goes on
with text that it has hardly seen; every child of one parent sees the same. Validation is the
parent's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mediswift import checkpoints, flops, machine, models, records, sparse, train
from mediswift.batches import Head, PackedExamples
from mediswift.materials import Materials
from mediswift.pretrain import PretrainConfig, load_materials
from mediswift.records import Record
from mediswift.runs import load_model, load_run
from mediswift.typed import settle

STAY, ZEROS, INITIAL = "stay", "zeros", "initial"
ORDERS = 1_000
"""Added to the parent's seed: another order of the rows."""
RECIPE = 1
"""Raised whenever the same configuration would give other numbers."""


@dataclass(frozen=True, kw_only=True)
class ContinueConfig:
    """Everything that determines a continued pre-training run."""

    parent: str
    """Id of the pre-training run to go on from."""
    tokens: int
    """Tokens to train on; rounded up to whole steps."""
    lr: float
    """Peak learning rate."""
    removed: str = ZEROS
    """Removed weights stay so (stay), or come back as zeros, or with their initial values."""
    moments: bool = False
    """Start with the parent's moments of Adam instead of none."""
    warmup: float = 0.1
    """Fraction of the steps spent warming up again."""

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        settle(self)
        if self.removed not in (STAY, ZEROS, INITIAL):
            raise ValueError(
                f"removed weights {STAY}, or come back as {ZEROS} or {INITIAL} values; "
                f"got removed={self.removed!r}"
            )
        if self.tokens < 1:
            raise ValueError(f"there is nothing to go on with: tokens={self.tokens}")


def go_on(config: ContinueConfig, runs: str | Path = "runs") -> Record:
    """Record of the run of `config`: trained now, continued, or found finished under `runs`.

    The model lies in `runs/<id>/model`, plain, with its tokenizer. Raises FileNotFoundError for a
    parent that is no finished run, ValueError for one that is not pre-trained, that was dense
    already, or whose text is another by now.
    """
    parent = load_run(config.parent, runs)
    if parent.kind != "pretrain":
        raise ValueError(f"what goes on is a pre-training run; {parent.id} is a {parent.kind!r}")
    base = PretrainConfig(**parent.params)
    if config.removed != STAY and not base.sparsity:
        raise ValueError(f"{parent.id} is dense: nothing comes back; take removed={STAY!r}")
    ingredients = load_materials(base, runs)
    if ingredients.train.fingerprint != parent.data_fingerprint:
        raise ValueError(
            f"{parent.id} read {parent.data_fingerprint}, {base.corpus} is "
            f"{ingredients.train.fingerprint} now; go on with the text that it knows"
        )
    folder = Path(runs) / _run_id(config, base)
    return machine.once(folder, lambda: _train(config, base, ingredients, folder))


def make_model(
    config: ContinueConfig, base: PretrainConfig, runs: str | Path = "runs"
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model as it goes on, and the moments that it starts with, {} for none.

    Moments are named as `checkpoints.read` names them.
    """
    folder = Path(runs) / config.parent
    model = load_model(config.parent, runs)
    masks = sparse.load_masks(folder)
    if masks:
        sparse.attach(model, masks, base.engine)
    moments = checkpoints.read(folder)[1] if config.moments else {}
    if config.removed == STAY:
        return model, moments
    moments = spread(moments, model)
    sparse.densify(model)
    if config.removed == INITIAL:
        _bring_back(model, models.build(base.shape, seed=base.seed), masks)
    return model, moments


def spread(moments: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`moments` of a sparse model as those of the dense one: zero where a weight was removed."""
    layers = {f"{name}.values": layer for name, layer in sparse.named_layers(model).items()}
    found = {}
    for key, tensor in moments.items():
        kind, _, name = key.partition("/")
        if name in layers:
            key = f"{kind}/{name.removesuffix('values')}weight"
            tensor = layers[name].spread(tensor) if tensor.dim() else tensor
        found[key] = tensor
    return found


@torch.no_grad()
def _bring_back(model: nn.Module, initial: nn.Module, masks: sparse.Masks) -> None:
    for name, mask in masks.masks.items():
        weight = model.get_parameter(name)
        weight.copy_(torch.where(mask, weight, initial.get_parameter(name)))


def _train(
    config: ContinueConfig, base: PretrainConfig, ingredients: Materials, folder: Path
) -> None:
    process = machine.join_processes()
    loop = _loop(config, base)
    process.print(f"{folder.name}: {loop.steps:,} steps on {ingredients.train}")
    model, moments = make_model(config, base, folder.parent)
    validation = Head(PackedExamples(ingredients.validation), base.validation_rows)
    history = train.fit(
        model, PackedExamples(ingredients.train), loop, folder, validation, moments=moments
    )
    if process.is_main_process:
        _finish(config, base, ingredients, model, history[-1], folder)


def _loop(config: ContinueConfig, base: PretrainConfig) -> train.Config:
    steps = -(-config.tokens // base.batch_tokens)
    return replace(
        base.loop,
        steps=steps,
        lr=config.lr,
        warmup_steps=round(config.warmup * steps),
        evaluate_every=0,
        save_every=max(1, steps // 4),
        seed=base.seed + ORDERS,
        density_scaling=base.density_scaling and config.removed == STAY,
        moves=None,
    )


def _run_id(config: ContinueConfig, base: PretrainConfig) -> str:
    label = f"{base.size}-s{100 * base.sparsity:g}-{config.removed}-seed{base.seed}"
    return records.run_id("continue", label, asdict(config) | {"recipe": RECIPE})


def _finish(
    config: ContinueConfig,
    base: PretrainConfig,
    ingredients: Materials,
    model: nn.Module,
    last: dict[str, Any],
    folder: Path,
) -> None:
    masks, parent = sparse.masks_of(model), load_run(config.parent, folder.parent)
    model.save_pretrained(folder / "model")
    ingredients.tokenizer.save_pretrained(folder / "model")
    sparsity = base.sparsity if config.removed == STAY else 0.0
    own = flops.training(base.shape, last["tokens"], sparsity).total
    loss = last["validation_loss"]
    record = Record(
        id=folder.name,
        kind="continue",
        params=asdict(config),
        metrics={
            "validation_loss_nats": loss,
            "bits_per_byte": ingredients.bits_per_byte(loss),
            "bits_per_byte_before": parent.metrics["bits_per_byte"],
            "tokens_trained": last["tokens"],
            "seconds": last["seconds"],
            "theoretical_flops": own,
            "theoretical_flops_with_parent": own + parent.metrics["theoretical_flops"],
        },
        data_fingerprint=parent.data_fingerprint,
        parent=parent.id,
        mask_digest=masks.digest if masks else "",
        env=machine.environment(),
    )
    records.write(record, folder)
