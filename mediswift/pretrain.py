"""Sparse pre-training: a configuration in, a trained model and its record out.

Decisions: a run's id is a hash of everything that determines its numbers, so calling `pretrain`
again finds the finished run, and continues an unfinished one. `torchrun --nproc-per-node N -m
mediswift.pretrain CONFIG.json` trains in N processes: a notebook cannot be a rank. What a
configuration is stands in `configs`, whose names are reached from here too.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from mediswift import checkpoints, flops, machine, materials, models, records, sparse, train
from mediswift.batches import Head, PackedExamples
from mediswift.configs import HOW, LATER, PROFILES, RECIPE, PretrainConfig, profile
from mediswift.density import scale_weights
from mediswift.materials import Materials
from mediswift.records import Record
from mediswift.typed import from_json

__all__ = ["HOW", "LATER", "PROFILES", "RECIPE", "PretrainConfig", "profile"]
__all__ += ["find", "load_materials", "main", "make_model", "pretrain"]


def load_materials(config: PretrainConfig, runs: str | Path = "runs") -> Materials:
    """Tokenizer and rows for a run of `config`, made on first use."""
    return materials.prepare(
        config.corpus,
        vocab_size=config.shape.vocab_size,
        context=config.shape.context,
        runs=runs,
        keep_contaminated=config.keep_contaminated,
    )


def make_model(config: PretrainConfig) -> PreTrainedModel:
    """Return the model of `config` before its first step: drawn by its seed, sparse, scaled."""
    model = models.build(config.shape, seed=config.seed)
    sparse.sparsify(model, config.sparsity, config.pattern, config.seed, config.engine)
    return scale_weights(model) if config.density_scaling else model


def pretrain(config: PretrainConfig, runs: str | Path = "runs") -> Record:
    """Record of the run of `config`: trained now, continued, or found finished under `runs`.

    The model lies in `runs/<id>/model`, plain, with its tokenizer; masks and metrics beside it.
    """
    with machine.join_processes().main_process_first():
        ingredients = load_materials(config, runs)
    folder = Path(runs) / _run_id(config, ingredients)
    return machine.once(folder, lambda: _train(config, ingredients, folder))


def find(config: PretrainConfig, runs: str | Path = "runs") -> list[Record]:
    """Records of the finished runs of `config`, at whatever sparsity, pattern and seed.

    Runs of other text, another profile or an older recipe are not among them.
    """
    ingredients = load_materials(config, runs)
    free = ("sparsity", "pattern", "seed")
    found = map(records.load, sorted(Path(runs).glob("pretrain-*/record.json")))
    return [
        record
        for record in found
        if record.id
        == _run_id(replace(config, **{name: record.params[name] for name in free}), ingredients)
    ]


def _train(config: PretrainConfig, ingredients: Materials, folder: Path) -> None:
    process = machine.join_processes()
    process.print(f"{folder.name}: {config.steps:,} steps on {ingredients.train}")
    process.print(f"processes: {process.num_processes}")  # what a launcher was asked for may differ
    model = make_model(config)
    if config.recompute:
        model.activation_checkpointing_enable()
    history = train.fit(
        model,
        PackedExamples(ingredients.train),
        config.loop,
        folder,
        Head(PackedExamples(ingredients.validation), config.validation_rows),
        config.sharded,
    )
    if process.is_main_process:
        if config.sharded:  # what is in a process's hands is a part
            checkpoints.restore(folder, model := make_model(config))
        _finish(config, ingredients, model, history, folder)


def _run_id(config: PretrainConfig, ingredients: Materials) -> str:
    how = ("-scaled" if config.density_scaling else "") + (config.moves and f"-{config.moves}")
    label = f"{config.size}-s{100 * config.sparsity:g}-{config.pattern}{how}-seed{config.seed}"
    # the text counts instead of its address, and engines differ in the last bits alone
    chosen = records.determining(config, LATER, HOW)
    data = [ingredients.train.fingerprint, ingredients.validation.fingerprint]
    determines = chosen | {"data": data, "recipe": RECIPE}
    return records.run_id("pretrain", label.replace(":", "of"), determines)


def _finish(
    config: PretrainConfig,
    ingredients: Materials,
    model: PreTrainedModel,
    history: list[dict[str, Any]],
    folder: Path,
) -> None:
    masks = sparse.masks_of(model)
    model.save_pretrained(folder / "model")
    ingredients.tokenizer.save_pretrained(folder / "model")
    if masks:
        masks.save(folder)
    record = Record(
        id=folder.name,
        kind="pretrain",
        params=asdict(config),
        metrics=_metrics(config, ingredients, model, history),
        data_fingerprint=ingredients.train.fingerprint,
        parent=ingredients.record.id,
        mask_digest=masks.digest if masks else "",
        env=machine.environment(),
    )
    records.write(record, folder)


def _metrics(
    config: PretrainConfig,
    ingredients: Materials,
    model: PreTrainedModel,
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    last = history[-1]
    cost = flops.training(config.shape, last["tokens"], config.sparsity)
    return {
        "validation_loss_nats": last["validation_loss"],
        "bits_per_byte": ingredients.bits_per_byte(last["validation_loss"]),
        "tokens_trained": last["tokens"],
        "seconds": last["seconds"],
        "tokens_per_s": last["tokens_per_s"],
        "non_embedding_parameters": flops.parameters(config.shape),
        "trained_parameters": models.non_embedding_parameters(model),
        "theoretical_flops": cost.total,
        "theoretical_flops_linear": cost.linear,
        "theoretical_flops_attention": cost.attention,
        "theoretical_flops_head": cost.head,
        "theoretical_reduction": flops.reduction(config.shape, config.sparsity),
        "contaminated_documents_removed": ingredients.record.metrics["contaminated"],
    } | machine.peak_memory()


def main(argv: list[str]) -> int:
    """Exit code of the run in a JSON file: `python -m mediswift.pretrain CONFIG.json [RUNS]`."""
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print("usage: python -m mediswift.pretrain CONFIG.json [RUNS]", file=sys.stderr)
        return 2
    process = machine.join_processes()
    try:
        config = from_json(PretrainConfig, argv[0])
        process.print(pretrain(config, *argv[1:]))
    except KeyboardInterrupt as stop:
        process.print(stop)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"mediswift.pretrain: {error}", file=sys.stderr)
        return 1
    finally:
        process.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
