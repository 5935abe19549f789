"""Dense fine-tuning on PubMedQA: a pre-trained run in, a tuned model and its record out.

Decisions: the parent is a run's id; its removed weights are zeros and, densified, train like all
others (SPDF), or keep their masks (`dense=False`, the ablation). With `virtual_tokens` a soft
prompt stands between question and answer (BioGPT). Only training and dev questions are seen here:
the test waits for `examine`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from mediswift import corpus, machine, pubmedqa, records, sparse, train
from mediswift.batches import AnswerExamples
from mediswift.prompts import SoftPrompt
from mediswift.records import Record
from mediswift.runs import load_model, load_run, load_tokenizer

RECIPE = 2
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
    precision: str = "no"
    """Mixed precision: no | bf16 (on a GPU)."""
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
    FileNotFoundError for a parent that is no finished run, ValueError for one that is not
    pre-trained or does not have what the configuration asks for.
    """
    parent = load_run(config.parent, runs)
    if parent.kind != "pretrain":
        raise ValueError(
            f"fine-tuning starts from a pre-training run, {parent.id} is of kind {parent.kind!r}; "
            f"its own parent is {parent.parent!r}"
        )
    questions = pubmedqa.load(config.questions)
    folder = Path(runs) / _run_id(config, parent, corpus.fingerprint(questions)[:12])
    return machine.once(folder, lambda: _train(config, parent, questions, folder))


def find(config: FinetuneConfig, parents: list[Record], runs: str | Path = "runs") -> list[Record]:
    """Records of the finished runs of `config` from any of `parents`, with any prompt and seed.

    Other questions, another profile or an older recipe are not among them.
    """
    data = corpus.fingerprint(pubmedqa.load(config.questions))[:12]
    known = {parent.id: parent for parent in parents}
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


def _train(config: FinetuneConfig, parent: Record, questions: Dataset, folder: Path) -> None:
    process = machine.join_processes()
    training = pubmedqa.split(questions, "train", config.fold)
    dev = pubmedqa.split(questions, "dev", config.fold)
    runs = folder.parent
    model, tokenizer = make_model(config, runs), load_tokenizer(parent.id, runs)
    examples = make_examples(config, model, tokenizer, training)
    loop = _loop(config, len(examples))
    process.print(f"{folder.name}: {loop.steps:,} steps on {len(training)} questions")
    history = train.fit(model, examples, loop, folder)
    if not process.is_main_process:
        return
    report = pubmedqa.evaluate(
        model, tokenizer, dev, config.setting, max_length=config.max_length or None
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    record = Record(
        id=folder.name,
        kind="finetune",
        params=asdict(config),
        metrics=_metrics(history, report, len(training)),
        data_fingerprint=corpus.fingerprint(questions)[:12],
        parent=config.parent,
        mask_digest="" if config.dense else parent.mask_digest,
        env=machine.environment(),
    )
    records.write(record, folder)


def make_model(config: FinetuneConfig, runs: str | Path = "runs") -> nn.Module:
    """Return the parent's model as it enters fine-tuning: dense or still sparse, prompt
    attached."""
    model = load_model(config.parent, runs)
    if not config.dense:
        sparse.attach(model, _masks(config.parent, runs))
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
    positions = model.config.max_position_embeddings
    limit = config.max_length or positions
    if limit > positions:
        raise ValueError(f"max_length is at most the model's {positions} positions; got {limit}")
    join = getattr(model, "assemble", lambda source, target: source + target)
    sequences = []
    for question in questions:
        source, target, _ = pubmedqa.encode(
            tokenizer, question, config.setting, limit - config.virtual_tokens
        )
        ids = join(source, target)
        sequences.append((ids, len(ids) - len(target) if config.loss == "target" else 1))
    return AnswerExamples(sequences, model.config.vocab_size)


def _masks(parent: str, runs: str | Path) -> sparse.Masks:
    masks = sparse.load_masks(Path(runs) / parent)
    wanted = load_run(parent, runs).mask_digest
    if masks is None or masks.digest != wanted:
        raise ValueError(
            f"dense=False keeps the masks of the parent, and {parent} has "
            + (f"other masks than its record says, {wanted!r}" if wanted else "none; it is dense")
        )
    return masks


def _run_id(config: FinetuneConfig, parent: Record, data: str) -> str:
    # the items count, not the address they came from
    chosen = {name: value for name, value in asdict(config).items() if name != "questions"}
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
        precision=config.precision,
        save_every=max(1, steps // 4),
        log_every=1,
        seed=config.seed,
    )


def _metrics(
    history: list[dict[str, Any]], report: pubmedqa.Report, questions: int
) -> dict[str, Any]:
    last, tail = history[-1], history[-max(1, len(history) // 10) :]
    return {
        # one batch is few answers: the mean over the last tenth of the steps
        "train_loss_nats": sum(row["loss"] for row in tail) / len(tail),
        "train_questions": questions,
        "tokens_trained": last["tokens"],
        "seconds": last["seconds"],
        "dev_accuracy": report.accuracy,
        "dev_low": report.low,
        "dev_high": report.high,
        "dev_n": report.n,
    }
