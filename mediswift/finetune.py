"""Dense fine-tuning on a task: a run in, a tuned model and its record out.

Decisions: the parent is a run's id, of pre-training or, for the next of several stages, of
fine-tuning; its removed weights are zeros and, densified, train like all others (SPDF), or keep
their masks (`dense=False`, the ablation). With `virtual_tokens` a soft prompt stands between source
and target (BioGPT). Only training and dev items are seen here: the test waits for `examine`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from mediswift import corpus, lessons, machine, pubmedqa, records, sparse, train
from mediswift.batches import AnswerExamples
from mediswift.lessons import Report
from mediswift.prompts import SoftPrompt
from mediswift.records import Record
from mediswift.runs import lineage, load_model, load_run, load_tokenizer
from mediswift.typed import settle

RECIPE = 3
"""Raised whenever the same configuration would give other numbers."""
LOSSES = ("target", "sequence")
TEXT = "text:"
LATER: dict[str, Any] = {"part": "train", "initialization": "random"}
"""Fields younger than runs that are kept: at these values they are no part of a run's id."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Everything that determines a fine-tuning run."""

    parent: str
    """Id of the run whose model it starts from."""
    questions: str
    """Address of the items: see `lessons`."""
    part: str = "train"
    """What to learn from: train, of the official split | all, of items that no exam holds."""
    fold: int = 0
    """Which tenth of the training half is held back as dev."""
    setting: str = "reasoning_required"
    """What the model may read: see `pubmedqa.render`; "document" for HoC."""
    dense: bool = True
    """Revive removed weights; False keeps the masks."""
    virtual_tokens: int = 0
    """Length of the soft prompt; 0 = none."""
    position: str = "between"
    """Where the soft prompt stands."""
    initialization: str = "random"
    """What the soft prompt starts from: random | vocabulary | text:SOME WORDS."""
    frozen: bool = False
    """Train the soft prompt alone."""
    loss: str = "target"
    """Loss over the target, or over the whole sequence as BioGPT's code has it."""
    epochs: int = 2
    batch: int = 16
    micro_batch: int = 4
    lr: float = 1e-3
    precision: str = "no"
    """Mixed precision: no | bf16 (on a GPU, or a CPU that multiplies it)."""
    max_length: int = 0
    """Longest sequence in tokens; 0 = the model's own limit."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse choices that contradict each other."""
        settle(self)
        if self.loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}; got {self.loss!r}")
        if self.part not in lessons.PARTS:
            raise ValueError(f"part is one of {', '.join(lessons.PARTS)}; got {self.part!r}")
        if self.frozen and not self.virtual_tokens:
            raise ValueError("frozen=True leaves nothing to train with virtual_tokens=0; set one")


PROFILES: dict[str, dict[str, Any]] = {
    "tiny": {"epochs": 1},
    "demo": {"epochs": 1, "batch": 4, "micro_batch": 4},
    "small": {"epochs": 5, "batch": 32, "micro_batch": 16, "lr": 1e-4, "precision": "bf16"},
    "med": {"epochs": 10, "batch": 32, "micro_batch": 8, "lr": 2e-5, "precision": "bf16"},
    "xl": {"epochs": 10, "batch": 32, "micro_batch": 4, "lr": 1e-5, "precision": "bf16"},
}
"""What each profile of `pretrain` means for fine-tuning."""


def profile(name: str, **chosen: Any) -> FinetuneConfig:
    """Return the configuration of a profile, with `chosen` for what it leaves open or to change.

    >>> profile("demo", parent="pretrain-x", questions="demo:", epochs=7).epochs
    7
    """
    if name not in PROFILES:
        raise ValueError(f"a profile is one of {', '.join(PROFILES)}; got {name!r}")
    return FinetuneConfig(**PROFILES[name] | chosen)


def finetune(config: FinetuneConfig, runs: str | Path = "runs") -> Record:
    """Record of the run of `config`: trained now, continued, or found finished under `runs`.

    The model lies in `runs/<id>/model`, with its tokenizer and soft prompt. Raises
    FileNotFoundError for a parent that is no finished run, ValueError for one that is neither
    pre-trained nor fine-tuned or does not have what the configuration asks for.
    """
    parent = load_run(config.parent, runs)
    if parent.kind not in ("pretrain", "continue", "finetune"):
        raise ValueError(
            f"fine-tuning starts from a run with a model, {parent.id} is of kind {parent.kind!r}; "
            f"its own parent is {parent.parent!r}"
        )
    items = lessons.load(config.questions)
    first = lineage(parent.id, runs)[0]
    folder = Path(runs) / _run_id(config, first, corpus.fingerprint(items)[:12])
    return machine.once(folder, lambda: _train(config, parent, items, folder))


def find(config: FinetuneConfig, parents: list[Record], runs: str | Path = "runs") -> list[Record]:
    """Records of the finished runs of `config` from any of `parents`, with any prompt and seed.

    Other questions, another profile or an older recipe are not among them.
    """
    data = corpus.fingerprint(lessons.load(config.questions))[:12]
    known = {parent.id: _first(parent, runs) for parent in parents}
    free = ("parent", "virtual_tokens", "frozen", "seed")
    found = map(records.load, sorted(Path(runs).glob("finetune-*/record.json")))
    return [
        record
        for record in found
        if record.parent in known
        and record.id
        == _run_id(
            replace(config, **{name: record.params[name] for name in free}),
            known[record.parent],
            data,
        )
    ]


def _first(record: Record, runs: str | Path) -> Record:
    return record if record.kind == "pretrain" else lineage(record.parent, runs)[0]


def _train(config: FinetuneConfig, parent: Record, items: Dataset, folder: Path) -> None:
    process = machine.join_processes()
    training, dev = lessons.parts(config.questions, items, config.part, config.fold)
    runs = folder.parent
    model, tokenizer = make_model(config, runs), load_tokenizer(parent.id, runs)
    examples = make_examples(config, model, tokenizer, training)
    loop = _loop(config, len(examples))
    process.print(f"{folder.name}: {loop.steps:,} steps on {len(training)} items")
    history = train.fit(model, examples, loop, folder)
    if not process.is_main_process:
        return
    report = lessons.task_of(config.questions).evaluate(
        model, tokenizer, dev, config.setting, max_length=config.max_length or None
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    record = Record(
        id=folder.name,
        kind="finetune",
        params=asdict(config),
        metrics=_metrics(history, report, len(training)),
        data_fingerprint=corpus.fingerprint(items)[:12],
        parent=config.parent,
        mask_digest="" if config.dense else parent.mask_digest,
        env=machine.environment(),
    )
    records.write(record, folder)


def make_model(config: FinetuneConfig, runs: str | Path = "runs") -> nn.Module:
    """Return the parent's model as it enters fine-tuning: dense or still sparse, prompt attached.

    A soft prompt that the parent has already goes on learning. Raises ValueError when the
    configuration asks for another one, or for masks that the parent does not have.
    """
    model = load_model(config.parent, runs)
    if not config.dense:
        sparse.attach(getattr(model, "model", model), _masks(config.parent, runs))
    if isinstance(model, SoftPrompt):
        return _go_on(model, config)
    if not config.virtual_tokens:
        return model
    start: str | list[int] = config.initialization
    if config.initialization.startswith(TEXT):
        words = config.initialization.removeprefix(TEXT)
        start = load_tokenizer(config.parent, runs)(words, add_special_tokens=False).input_ids
    return SoftPrompt(
        model,
        config.virtual_tokens,
        config.position,
        frozen=config.frozen,
        seed=config.seed,
        initialization=start,
    )


def make_examples(
    config: FinetuneConfig,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Dataset,
) -> AnswerExamples:
    """Source, prompt and target of each item, with a loss where `config.loss` wants it."""
    positions = model.config.max_position_embeddings
    limit = config.max_length or positions
    if limit > positions:
        raise ValueError(f"max_length is at most the model's {positions} positions; got {limit}")
    join = pubmedqa.joiner(model)
    task, sequences = lessons.task_of(config.questions), []
    for item in items:
        source, target, _ = task.encode(
            tokenizer, item, config.setting, limit - config.virtual_tokens
        )
        ids = join(source, target)
        sequences.append((ids, len(ids) - len(target) if config.loss == "target" else 1))
    return AnswerExamples(sequences, model.config.vocab_size)


def _go_on(soft: SoftPrompt, config: FinetuneConfig) -> SoftPrompt:
    has = {"virtual_tokens": soft.num_virtual_tokens, "position": soft.position}
    wanted = {name: getattr(config, name) for name in has}
    if wanted != has or config.initialization != "random":
        raise ValueError(
            f"{config.parent} has a soft prompt already, with {has}, which goes on learning; "
            f"got {wanted} and initialization={config.initialization!r}"
        )
    soft.model.requires_grad_(not config.frozen)
    return soft


def _masks(parent: str, runs: str | Path) -> sparse.Masks:
    masks = sparse.load_masks(Path(runs) / lineage(parent, runs)[0].id)
    wanted = load_run(parent, runs).mask_digest
    if masks is None or masks.digest != wanted:
        raise ValueError(
            f"dense=False keeps the masks of the parent, and {parent} has "
            + (f"other masks than its record says, {wanted!r}" if wanted else "none; it is dense")
        )
    return masks


def _run_id(config: FinetuneConfig, first: Record, data: str) -> str:
    # the items count, not the address they came from; `first` is the pre-training run
    chosen = records.determining(config, LATER, ["questions"])
    prompt = f"-p{config.virtual_tokens}" if config.virtual_tokens else ""
    kind = "frozen" if config.frozen else "dense" if config.dense else "sparse"
    sparsity = f"s{100 * first.params['sparsity']:g}"
    label = f"{first.params['size']}-{sparsity}-{kind}{prompt}-seed{config.seed}"
    return records.run_id("finetune", label, chosen | {"data": data, "recipe": RECIPE})


def _loop(config: FinetuneConfig, examples: int) -> train.Config:
    steps = -(-config.epochs * examples // config.batch)
    return train.Config(
        steps=steps,
        batch=config.batch,
        micro_batch=min(config.micro_batch, config.batch),
        lr=config.lr,
        warmup_steps=steps // 10,
        weight_decay=0.01,
        precision=config.precision,
        save_every=max(1, steps // 4),
        log_every=1,
        seed=config.seed,
    )


def _metrics(history: list[dict[str, Any]], report: Report, items: int) -> dict[str, Any]:
    last, tail = history[-1], history[-max(1, len(history) // 10) :]
    return {
        # one batch is few answers: the mean over the last tenth of the steps
        "train_loss_nats": sum(row["loss"] for row in tail) / len(tail),
        "train_questions": items,
        "tokens_trained": last["tokens"],
        "seconds": last["seconds"],
        **{f"dev_{name}": getattr(report, name) for name in lessons.headline(report)},
    }
