"""The command line: `python -m mediswift VERB`; each verb is a thin door to one function."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from mediswift import flops
from mediswift.machine import fastest_device
from mediswift.models import SIZES, shape


def main(argv: list[str] | None = None) -> int:
    """Exit code of the command: 0 done, 1 something failed, 2 wrong words, 130 interrupted."""
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"mediswift: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"mediswift: {stop or 'interrupted'}", file=sys.stderr)
        return 130


def _flops(arguments: argparse.Namespace) -> int:
    chosen = shape(arguments.size)
    dense = flops.forward(chosen)
    sparse = flops.forward(chosen, arguments.sparsity)
    if arguments.json:
        content = {
            "dense": dense.total * (1 + flops.BACKWARD),
            "sparse": sparse.total * (1 + flops.BACKWARD),
            "reduction": dense.total / sparse.total,
            "terms": {
                "linear": sparse.linear * (1 + flops.BACKWARD),
                "attention": sparse.attention * (1 + flops.BACKWARD),
                "head": sparse.head * (1 + flops.BACKWARD),
            },
        }
        print(json.dumps(content))
        return 0
    print(f"{arguments.size}: {flops.parameters(chosen):,} non-embedding parameters")
    print(f"theoretical training FLOPs of one row of {chosen.context} tokens")
    for name, terms in (("dense", dense), (f"sparsity {arguments.sparsity:g}", sparse)):
        print(f"\n{name}\n{terms * (1 + flops.BACKWARD)}")
    print(f"\nreduction {dense.total / sparse.total:.2f}x (theory: seconds are another matter)")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from mediswift import scoring

    names = [f.name for f in fields(scoring.ScoreConfig)]
    config = scoring.ScoreConfig(**{name: getattr(arguments, name) for name in names})
    report = scoring.score(config)
    kept = scoring.keep(config, report, arguments.out) if arguments.out else None
    if arguments.json:
        print(scoring.as_json([report]))
        return 0
    print(report)
    found, missing = scoring.yardsticks(config)
    print(*missing, sep="\n", end="\n" if missing else "")
    for yardstick in found:
        print(f"{report.name} - {yardstick.name}: {report.difference(yardstick)}")
        print(f"{yardstick.name}, on the same questions: {yardstick.accuracy:.1%}")
    if kept:
        print(f"kept in {kept}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from mediswift import scoring

    print(scoring.compare(arguments.one, arguments.other))
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    from mediswift import examine, folds

    reports = [examine.read_report(folder) for folder in arguments.folders]
    print(folds.pooled(reports) if arguments.pool else folds.summarize(reports))
    return 0


def _protocols(arguments: argparse.Namespace) -> int:
    from mediswift import contestant, protocols, pubmedqa

    model, tokenizer = contestant.load(arguments.model)
    questions = pubmedqa.load(arguments.data)
    table = protocols.compare(model.to(fastest_device()), tokenizer, questions, arguments.limit)
    print(table.to_json(orient="index") if arguments.json else table.round(1).to_string())
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from mediswift import bench, records

    chosen = {f.name: getattr(arguments, f.name) for f in fields(bench.BenchConfig)}
    config = bench.BenchConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}
    )
    record = bench.bench(config)
    if arguments.out:
        records.write(record, arguments.out / record.id)
    if arguments.json:
        print(json.dumps(record.metrics["rows"]))
    else:
        print(bench.told(record))
    return 0


def _contest(arguments: argparse.Namespace) -> int:
    from mediswift import contest, pretrain

    base = pretrain.PretrainConfig(
        size=arguments.size,
        corpus=arguments.corpus,
        tokens=arguments.tokens,
        batch_tokens=arguments.batch_tokens,
        micro_batch=arguments.micro_batch,
        lr=arguments.lr,
        sparsity=arguments.sparsity,
        warmup=0.1,
        validations=1,
        validation_rows=512,
    )
    record = contest.contest(
        base,
        arguments.patterns,
        range(arguments.seeds),
        arguments.tuning_tokens or arguments.tokens,
        arguments.runs,
    )
    print(json.dumps(contest.differences(record), indent=1))
    print(record.id)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from mediswift import runner

    chosen = dict(arguments.parameter)
    name = f"{runner.label(arguments.notebook, chosen)}.ipynb"
    output = arguments.output or runner.ROOT / "runs" / "notebooks" / name
    seconds = runner.run(arguments.notebook, chosen, output)
    print(f"{output} ({seconds:.0f} s)")
    return 0


def _study(arguments: argparse.Namespace) -> int:
    from mediswift import runner

    todo = runner.run_study(arguments.study, arguments.cores)
    for job in todo:
        failed = job.output.with_suffix(".failed.ipynb")
        why = f"failed: see {failed}" if failed.exists() else "not reached"
        print(f"{job.name}: {why}", file=sys.stderr)
    if todo:
        return 1
    for job in runner.jobs(arguments.study):
        print(f"{runner.seconds_of(job.output):6.0f} s  {job.output.relative_to(runner.ROOT)}")
    return 0


def _book(arguments: argparse.Namespace) -> int:
    from mediswift import book

    if status := _study(arguments):
        return status
    began = time.perf_counter()
    changed = book.collect(arguments.study)
    page = book.render()
    print(f"{time.perf_counter() - began:6.0f} s  the book, {len(changed)} chapters new in it")
    if arguments.picture:
        shutil.copyfile(book.FRONT, arguments.picture)
        print(f"{arguments.picture}: the figure of the front page")
    print(f"\nopen {page}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="mediswift", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = _verb(verbs, "flops", _flops, "theoretical FLOPs of a size at a sparsity")
    verb.add_argument("--size", choices=SIZES, required=True)
    verb.add_argument("--sparsity", type=float, default=0.75)
    verb.add_argument("--json", action="store_true")
    verb = _verb(verbs, "evaluate", _evaluate, "score a Hugging Face causal LM on PubMedQA")
    _model_and_data(verb)
    verb.add_argument("--split", choices=("train", "dev", "test", "all"), default="test")
    verb.add_argument("--fold", default="0", help="0 to 9; all (with --split dev): all ten")
    verb.add_argument("--setting", default="reasoning_required")
    verb.add_argument(
        "--prior", default="none", help="none, content_free, marginal: correct for it"
    )
    verb.add_argument("--generate", action="store_true", help="read generated text, as BioGPT does")
    verb.add_argument("--out", type=Path, help="folder that gets record and predictions")
    verb = _verb(verbs, "compare", _compare, "two kept scores, question by question")
    verb.add_argument("one", type=Path, help="folder that evaluate --out or chapter 6 made")
    verb.add_argument("other", type=Path)
    verb = _verb(verbs, "summary", _summary, "kept scores of several seeds or folds as one")
    verb.add_argument("folders", type=Path, nargs="+")
    verb.add_argument("--pool", action="store_true", help="each answered questions of its own")
    verb = _verb(verbs, "protocols", _protocols, "one model under five protocols of PubMedQA")
    _model_and_data(verb)
    verb = _verb(verbs, "bench", _bench, "seconds of a dense and of sparse training steps")
    verb.add_argument("--device", default="cpu", help="cpu or cuda")
    verb.add_argument("--sizes", nargs="+", default=["d512", "d1024"])
    verb.add_argument(
        "--patterns", nargs="+", default=["unstructured", "16x1", "16x16", "diagonal:4"]
    )
    verb.add_argument("--sparsities", nargs="+", type=float, default=[0.75])
    verb.add_argument("--tokens", type=int, default=1024, help="of one step")
    verb.add_argument("--rounds", type=int, default=7)
    verb.add_argument("--engine", default="auto")
    verb.add_argument("--no-peers", dest="peers", action="store_false")
    verb.add_argument("--json", action="store_true", help="rows as JSON")
    verb.add_argument("--out", type=Path, help="folder that gets a record of all")
    verb = _verb(verbs, "contest", _contest, "what each sparsity pattern costs in held-out loss")
    verb.add_argument("--corpus", required=True, help="address of the documents")
    verb.add_argument("--patterns", nargs="+", required=True, help="dense, unstructured, 16x1 ...")
    verb.add_argument("--size", choices=SIZES, default="mini")
    verb.add_argument("--tokens", type=int, default=1_228_800)
    verb.add_argument("--tuning-tokens", type=int, default=0, help="of the tuning; 0 = as many")
    verb.add_argument("--batch-tokens", type=int, default=4_096)
    verb.add_argument("--micro-batch", type=int, default=16)
    verb.add_argument("--lr", type=float, default=4e-3, help="the first learning rate tried")
    verb.add_argument("--sparsity", type=float, default=0.75)
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--runs", type=Path, default=Path("runs"))
    verb = _verb(verbs, "run", _run, "execute one notebook, strictly")
    verb.add_argument("notebook", type=Path)
    verb.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("N", "V"))
    verb.add_argument("--output", type=Path)
    for name, function, text in (
        ("study", _study, "execute a study's grid of notebooks; what is done is skipped"),
        ("book", _book, "execute a study and render the book from it"),
    ):
        verb = _verb(verbs, name, function, text)
        verb.add_argument("study", type=Path)
        verb.add_argument("--cores", type=int, default=1, help="notebooks at a time")
    verb.add_argument("--picture", type=Path, help="also save the front page's figure as PNG here")
    return parser


def _model_and_data(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", required=True, help="folder, or OWNER/NAME on the hub")
    verb.add_argument("--data", required=True, help="path of ori_pqal.json, sample:, demo: or hf:")
    verb.add_argument("--limit", type=int, default=0, help="stratified draw of so many questions")
    verb.add_argument("--json", action="store_true")


def _verb(verbs: object, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


if __name__ == "__main__":
    sys.exit(main())
