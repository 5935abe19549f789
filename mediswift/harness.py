"""Beside lm-evaluation-harness, on one model and the same questions: equal scores, and the clock.

Decisions: the harness is an optional peer (`pip install "mediswift[peers]"`), imported where it is
used. Both sides get a loaded model, tokenizer and questions; a side's time runs from the questions
as text to the scores, in seconds of processor time, the sides in turns. The harness is given the
batch size that serves it best among those named. Models are random, as weights do not change what
a score costs; tokenizers are trained on real text, one in which each answer is a token
and one, ordinary, in which " maybe" may be several.

    python -m mediswift.harness --data ori_pqal.json --corpus ADDRESS --shapes 4x128 --out results
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mediswift import corpus, jobs, machine, materials, models, pubmedqa, records, tokens
from mediswift.flops import Shape
from mediswift.pubmedqa import PHRASE, evaluate, render
from mediswift.questions import ANSWERS
from mediswift.records import Record
from mediswift.stats import spread

BATCH_SIZES = (1, 8)


def their_scores(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    batch_size: int = 1,
    prompt: Callable[[dict[str, Any]], str] | None = None,
) -> np.ndarray:
    """Log-likelihoods in nats, (questions, 3), as the harness computes them after our prompt.

    `prompt` gives another one. Raises ModuleNotFoundError without `lm_eval`.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    device = str(next(model.parameters()).device)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=device)
    asked = prompt or (lambda question: render(question).source + PHRASE)
    requests = [
        Instance("loglikelihood", question, (text, f" {answer}"), i)
        for question in questions
        for text in [asked(question)]
        for i, answer in enumerate(ANSWERS)
    ]
    scores = harness.loglikelihood(requests, disable_tqdm=True)
    return np.array([score for score, _ in scores]).reshape(-1, len(ANSWERS))


def our_scores(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, questions: Dataset
) -> np.ndarray:
    """The same from `pubmedqa.evaluate`."""
    rows = evaluate(model, tokenizer, questions).predictions
    return np.array([[row["scores"][answer] for answer in ANSWERS] for row in rows])


def race(
    pairs: dict[str, tuple[torch.nn.Module, PreTrainedTokenizerBase]],
    questions: Dataset,
    rounds: int = 5,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[dict[str, Any]]:
    """Rows, one a model: documents per processor second of both, their ratio, the agreement."""
    rows = []
    for name, (model, tokenizer) in pairs.items():
        row = {"model": name, "parameters": models.non_embedding_parameters(model)}
        row |= {"vocabulary": model.config.vocab_size}
        rows.append(row | _race(model, tokenizer, questions, rounds, batch_sizes))
        print(rows[-1], flush=True)
    return rows


def contestants(
    shapes: Sequence[str], address: str, vocab_size: int = 16_384, documents: int = 12_000
) -> dict[str, tuple[torch.nn.Module, PreTrainedTokenizerBase]]:
    """Random BioGPT models of shapes such as "4x128" (layers x width), each with two tokenizers.

    Both are trained on the first `documents` at `address`.
    """
    text = list(islice(materials.texts(corpus.load(address)), documents))
    whole = tokens.train_tokenizer(text, vocab_size)
    kinds = {
        "": whole,
        ", answers of several tokens": whole.train_new_from_iterator(text, vocab_size),
    }
    found = {}
    for shape in shapes:
        layers, _, width = shape.partition("x")
        sizes = {"n_layer": int(layers), "n_embd": int(width), "n_head": int(width) // 32}
        model = models.build(Shape(context=1024, vocab_size=vocab_size, **sizes), seed=0)
        found |= {f"{shape}{kind}": (model, tokenizer) for kind, tokenizer in kinds.items()}
    return found


def record(rows: list[dict[str, Any]], questions: Dataset, params: dict[str, Any]) -> Record:
    """Record of kind "peers" of a race."""
    data = corpus.fingerprint(questions)[:12]
    about = params | {"peer": f"lm_eval {metadata.version('lm_eval')}"}
    figures = {"rows": rows, "questions": len(questions)}
    name = records.run_id("peers", "lm-eval", about | {"data": data})
    return Record(
        id=name,
        kind="peers",
        params=about,
        metrics=figures,
        data_fingerprint=data,
        env=machine.environment(),
    )


def main(argv: list[str] | None = None) -> int:
    """Exit code: race, print the rows, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="address of the questions")
    parser.add_argument("--corpus", required=True, help="address of the tokenizers' text")
    parser.add_argument("--shapes", nargs="+", default=["4x128", "4x256"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    questions = pubmedqa.split(pubmedqa.load(given.data), "test")
    rows = race(contestants(given.shapes, given.corpus), questions, given.rounds)
    if given.out:
        kept = record(rows, questions, {"shapes": given.shapes, "rounds": given.rounds})
        print(records.write(kept, given.out / kept.id))
    return 0


def _race(model, tokenizer, questions: Dataset, rounds: int, sizes: Sequence[int]) -> dict:
    sides = {f"lm-eval, batch {size}": (their_scores, (size,)) for size in sizes}
    sides["ours"] = (our_scores, ())
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores = {}
    for _ in range(rounds):
        for name, (side, more) in sides.items():
            began = time.process_time()
            scores[name] = side(model, tokenizer, questions, *more)
            seconds[name].append(time.process_time() - began)
    theirs = min((n for n in sides if n != "ours"), key=lambda n: statistics.median(seconds[n]))
    ratios = [a / b for a, b in zip(seconds[theirs], seconds["ours"], strict=True)]
    return spread("ratio", ratios) | {
        "their_side": theirs,
        "their_documents_per_cpu_s": len(questions) / statistics.median(seconds[theirs]),
        "our_documents_per_cpu_s": len(questions) / statistics.median(seconds["ours"]),
        "largest_difference_nats": float(np.abs(scores[theirs] - scores["ours"]).max()),
        "same_answers": bool((scores[theirs].argmax(1) == scores["ours"].argmax(1)).all()),
    }


if __name__ == "__main__":
    sys.exit(jobs.answer("mediswift.harness", main))
