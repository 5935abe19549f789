"""Dense fine-tuning on PubMedQA: a pre-trained run in, a tuned model and its record out.

Decisions: the parent is a run's id; its removed weights are zeros and, densified, train like all
others (SPDF), or keep their masks (`dense=False`, the ablation). With `virtual_tokens` a soft
prompt stands between question and answer (BioGPT). Only training and dev questions are seen here:
the test waits for `examine`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from mediswift import corpus, pubmedqa, records, sparse, train
from mediswift.batches import AnswerExamples
from mediswift.prompts import SoftPrompt
from mediswift.records import Record
from mediswift.runs import load_model, load_run, load_tokenizer

RECIPE = 1
"""Raised whenever the same configuration would give other numbers."""
LOSSES = ("target", "sequence")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Everything that determines a fine-tuning run."""

    parent: str
    """Id of the pre-training run."""
    questions: str
    """Address of the PubMedQA items."""
    fold: int = 0
    """Which tenth of the training half is held back as dev."""
    setting: str = "reasoning_required"
    """What the model may read: see `pubmedqa.render`."""
    dense: bool = True
    """Revive removed weights; False keeps the masks."""
    virtual_tokens: int = 0
    """Length of the soft prompt; 0 = none."""
    position: str = "between"
    """Where the soft prompt stands."""
    frozen: bool = False
    """Train the soft prompt alone."""
    loss: str = "target"
    """Loss over the target, or over the whole sequence as BioGPT's code has it."""
    epochs: int = 2
    batch: int = 16
    micro_batch: int = 4
    lr: float = 1e-3
    max_length: int = 0
    """Longest sequence in tokens; 0 = the model's own limit."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse choices that contradict each other."""
        if self.loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}; got {self.loss!r}")
        if self.frozen and not self.virtual_tokens:
            raise ValueError("frozen=True leaves nothing to train with virtual_tokens=0; set one")


PROFILES: dict[str, dict[str, Any]] = {
    "tiny": {"epochs": 1},
    "demo": {"epochs": 1, "batch": 4, "micro_batch": 4},
    "small": {"epochs": 5, "batch": 32, "micro_batch": 16, "lr": 1e-4},
    "med": {"epochs": 10, "batch": 32, "micro_batch": 8, "lr": 2e-5},
    "xl": {"epochs": 10, "batch": 32, "micro_batch": 4, "lr": 1e-5},
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
    FileNotFoundError for a parent that is no finished run, ValueError for one that is not
    pre-trained.
    """
    parent = load_run(config.parent, runs)
    if parent.kind != "pretrain":
        raise ValueError(
            f"fine-tuning starts from a pre-training run, {parent.id} is of kind {parent.kind!r}; "
            f"its own parent is {parent.parent!r}"
        )
    questions = pubmedqa.load(config.questions)
    name = _run_id(config, parent, corpus.fingerprint(questions)[:12])
    folder = Path(runs) / name
    if (folder / "record.json").exists():
        return records.load(folder / "record.json")
    model, tokenizer = make_model(config, runs), load_tokenizer(config.parent, runs)
    training = pubmedqa.split(questions, "train", config.fold)
    examples = make_examples(config, model, tokenizer, training)
    loop = _loop(config, len(examples))
    print(f"{name}: {loop.steps:,} steps on {len(training)} questions")
    history = train.fit(model, examples, loop, folder)
    dev = pubmedqa.split(questions, "dev", config.fold)
    report = pubmedqa.evaluate(
        model, tokenizer, dev, config.setting, max_length=config.max_length or None
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    record = Record(
        id=name,
        kind="finetune",
        params=asdict(config),
        metrics=_metrics(history, report, len(training)),
        data_fingerprint=corpus.fingerprint(questions)[:12],
        parent=config.parent,
        mask_digest="" if config.dense else parent.mask_digest,
    )
    records.write(record, folder)
    return record


def make_model(config: FinetuneConfig, runs: str | Path = "runs") -> nn.Module:
    """Return the parent's model as it enters fine-tuning: dense or still sparse, prompt
    attached."""
    model = load_model(config.parent, runs)
    masks = sparse.load_masks(Path(runs) / config.parent)
    if masks and not config.dense:
        sparse.attach(model, masks)
    if not config.virtual_tokens:
        return model
    return SoftPrompt(
        model, config.virtual_tokens, config.position, frozen=config.frozen, seed=config.seed
    )


def make_examples(
    config: FinetuneConfig,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
) -> AnswerExamples:
    """Question, prompt and answer of each item, with a loss where `config.loss` wants it."""
    limit = config.max_length or model.config.max_position_embeddings
    join = getattr(model, "assemble", lambda source, target: source + target)
    sequences = []
    for question in questions:
        source, target, _ = pubmedqa.encode(
            tokenizer, question, config.setting, limit - config.virtual_tokens
        )
        ids = join(source, target)
        sequences.append((ids, len(ids) - len(target) if config.loss == "target" else 1))
    return AnswerExamples(sequences, model.config.vocab_size)


def _run_id(config: FinetuneConfig, parent: Record, data: str) -> str:
    chosen = {
        k: v for k, v in asdict(config).items() if k != "questions"
    }  # its items count instead
    prompt = f"-p{config.virtual_tokens}" if config.virtual_tokens else ""
    kind = "frozen" if config.frozen else "dense" if config.dense else "sparse"
    sparsity = f"s{100 * parent.params['sparsity']:g}"
    label = f"{parent.params['size']}-{sparsity}-{kind}{prompt}-seed{config.seed}"
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
        save_every=max(1, steps // 4),
        log_every=1,
        seed=config.seed,
    )


def _metrics(
    history: list[dict[str, Any]], report: pubmedqa.Report, questions: int
) -> dict[str, Any]:
    last = history[-1]
    return {
        "train_loss_nats": last["loss"],
        "train_questions": questions,
        "tokens_trained": last["tokens"],
        "seconds": last["seconds"],
        "dev_accuracy": report.accuracy,
        "dev_low": report.low,
        "dev_high": report.high,
        "dev_n": report.n,
    }
