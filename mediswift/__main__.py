"""The command line: `python -m mediswift VERB`; each verb is a thin door to one function."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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
    from transformers import AutoTokenizer

    from mediswift import prompts, pubmedqa

    questions = pubmedqa.load(arguments.data)
    if arguments.split != "all":
        questions = pubmedqa.split(questions, arguments.split, arguments.fold)
    if arguments.limit:
        questions = pubmedqa.limit(questions, arguments.limit, seed=0)
    model = prompts.load(arguments.model).to(fastest_device())
    tokenizer = AutoTokenizer.from_pretrained(
        arguments.model, local_files_only=True, trust_remote_code=False
    )
    report = pubmedqa.evaluate(model, tokenizer, questions, arguments.setting)
    if arguments.json:
        print(json.dumps(report.metrics()))
        return 0
    print(report)
    if Path(arguments.data).is_file() and arguments.split == "test" and not arguments.limit:
        with suppress(ValueError):  # only the official file knows what humans said
            human = pubmedqa.humans(arguments.data, arguments.setting)
            print(f"humans, on the same questions: {human.accuracy:.1%}")
    return 0


def _questions(arguments: argparse.Namespace) -> int:
    from mediswift import artificial, corpus, evidence, questions, tagger

    began, place = time.perf_counter(), arguments.corpus.partition(":")[2]
    trials = evidence.load(arguments.trials, place) if arguments.trials else None
    exam = questions.load(arguments.exam)["question"] if arguments.exam else ()
    items, counts = artificial.build(
        corpus.load(arguments.corpus),
        tagger.load().tag,
        trials=trials,
        exam=exam,
        last_sentence=arguments.last_sentence,
        without_pmid=arguments.without_pmid,
    )
    path = artificial.write(artificial.part(items, arguments.part), arguments.out)
    if arguments.json:
        table = artificial.summary(items).to_dict("index")
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"documents": counts, "questions": table, "seconds": seconds}))
        return 0
    print(artificial.summary(items).to_string())
    print("\n" + "\n".join(f"{n:8,} {fate}" for fate, n in counts.items()))
    print(f"\n{path}: the {arguments.part} ones ({time.perf_counter() - began:.0f} s)")
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


def _tuning(arguments: argparse.Namespace, **chosen: object) -> object:
    from mediswift.finetune import FinetuneConfig

    names = ("parent", "virtual_tokens", "loss", "batch", "micro_batch", "lr", "max_length")
    return FinetuneConfig(**{name: getattr(arguments, name) for name in names} | chosen)


def _stages(arguments: argparse.Namespace) -> int:
    from mediswift import stages

    chosen = stages.pqa(
        arguments.labeled, arguments.artificial, arguments.unlabeled, arguments.epochs
    )
    base = _tuning(arguments, questions=arguments.labeled, fold=arguments.fold)
    seeds = range(arguments.seeds)
    record = stages.study(chosen, base, seeds, arguments.teacher, arguments.runs)
    print(stages.told(record), record.id, sep="\n")
    return 0


def _hoc(arguments: argparse.Namespace) -> int:
    from mediswift import classify

    base = _tuning(arguments, questions=arguments.data, setting="document", epochs=arguments.epochs)
    record = classify.classify(base, range(arguments.seeds), arguments.runs)
    print(classify.told(record), record.id, sep="\n")
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
    verb.add_argument("--model", type=Path, required=True, help="folder of model and tokenizer")
    verb.add_argument("--data", required=True, help="path of ori_pqal.json, sample:, demo: or hf:")
    verb.add_argument("--split", choices=("train", "dev", "test", "all"), default="test")
    verb.add_argument("--fold", type=int, default=0)
    verb.add_argument("--setting", default="reasoning_required")
    verb.add_argument("--limit", type=int, default=0, help="stratified draw of so many questions")
    verb.add_argument("--json", action="store_true")
    verb = _verb(verbs, "questions", _questions, "make PQA-A or PQA-U out of abstracts")
    verb.add_argument("--corpus", required=True, help="address of the documents")
    verb.add_argument("--out", type=Path, required=True, help="JSON file, as the official one")
    verb.add_argument("--part", choices=("artificial", "unlabeled"), default="artificial")
    verb.add_argument("--trials", type=Path, help="folder of Evidence Inference, for jsonl:PATH")
    verb.add_argument("--exam", help="address of questions that must not be asked")
    verb.add_argument(
        "--last-sentence", action="store_true", help="as conclusion, if none is named"
    )
    verb.add_argument("--without-pmid", action="store_true", help="also take documents without one")
    verb.add_argument("--json", action="store_true")
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
    verb = _verb(verbs, "stages", _stages, "fine-tune in stages A, U, L, each on and off")
    _tuning_words(verb)
    verb.add_argument("--labeled", required=True, help="address of PQA-L, the last stage")
    verb.add_argument("--artificial", default="", help="address of PQA-A")
    verb.add_argument("--unlabeled", default="", help="address of PQA-U")
    verb.add_argument("--epochs", nargs=3, type=int, default=[1, 1, 5], metavar=("A", "U", "L"))
    verb.add_argument("--teacher", default="reasoning_free", help="setting in which U is labeled")
    verb.add_argument("--fold", type=int, default=0)
    verb = _verb(verbs, "hoc", _hoc, "fine-tune on HoC, and test beside the baselines")
    _tuning_words(verb)
    verb.add_argument("--data", required=True, help="hoc:PATH of the corpus, an archive")
    verb.add_argument("--epochs", type=int, default=5)
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


def _tuning_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--parent", required=True, help="id of the run to start from")
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--virtual-tokens", type=int, default=0, help="length of the soft prompt")
    verb.add_argument("--loss", choices=("target", "sequence"), default="target")
    verb.add_argument("--batch", type=int, default=16)
    verb.add_argument("--micro-batch", type=int, default=8)
    verb.add_argument("--lr", type=float, default=1e-3)
    verb.add_argument("--max-length", type=int, default=0, help="tokens; 0 = the model's limit")
    verb.add_argument("--runs", type=Path, default=Path("runs"))


def _verb(verbs: object, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


if __name__ == "__main__":
    sys.exit(main())
