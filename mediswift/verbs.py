"""What each verb of the command line does: a thin door to one function, which prints its answer.

Decisions: modules are imported inside the verbs, so that `--help` and a mistyped word answer at
once. Each function takes the parsed words and gives the exit code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import fields

from mediswift import flops, records
from mediswift.machine import fastest_device
from mediswift.models import shape


def count_flops(arguments: argparse.Namespace) -> int:
    """Theoretical FLOPs of a size, dense and sparse."""
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


def plan_run(arguments: argparse.Namespace) -> int:
    """Memory, FLOPs, hours, energy and disk of a run."""
    from mediswift import plan

    chosen = {f.name: getattr(arguments, f.name) for f in fields(plan.PlanConfig)}
    needed = plan.plan(plan.PlanConfig(**chosen), arguments.results)
    print(json.dumps(needed) if arguments.json else plan.told(needed))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Score one model on PubMedQA."""
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


def compare(arguments: argparse.Namespace) -> int:
    """Two kept scores, question by question."""
    from mediswift import scoring

    print(scoring.compare(arguments.one, arguments.other))
    return 0


def summarize(arguments: argparse.Namespace) -> int:
    """Kept scores of several seeds or folds as one."""
    from mediswift import examine, folds

    reports = [examine.read_report(folder) for folder in arguments.folders]
    if arguments.pool:
        print(folds.pooled(reports))
        return 0
    print(summary := folds.summarize(reports))
    if arguments.out:
        exams = [records.load(folder / "record.json") for folder in arguments.folders]
        print(folds.keep(exams, summary, arguments.out).id)
    return 0


def compare_protocols(arguments: argparse.Namespace) -> int:
    """One model under five protocols of PubMedQA."""
    from mediswift import contestant, protocols, pubmedqa

    model, tokenizer = contestant.load(arguments.model)
    questions = pubmedqa.load(arguments.data)
    table = protocols.compare(model.to(fastest_device()), tokenizer, questions, arguments.limit)
    print(table.to_json(orient="index") if arguments.json else table.round(1).to_string())
    if arguments.out:
        chosen = {name: getattr(arguments, name) for name in ("model", "data", "limit")}
        print(protocols.keep(table, questions, chosen, arguments.out).id, file=sys.stderr)
    return 0


def make_questions(arguments: argparse.Namespace) -> int:
    """PQA-A or PQA-U out of abstracts."""
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


def pack_corpus(arguments: argparse.Namespace) -> int:
    """A corpus, made or found, in one file."""
    from mediswift import materials, parcel

    sizes = shape(arguments.size)
    made = materials.prepare(
        arguments.corpus,
        vocab_size=sizes.vocab_size,
        context=sizes.context,
        runs=arguments.runs,
        keep_contaminated=arguments.keep_contaminated,
    )
    path = parcel.pack(arguments.runs / made.record.id, arguments.out)
    print(made.train)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; its address is {parcel.START}{path}")
    return 0


def time_steps(arguments: argparse.Namespace) -> int:
    """Seconds of dense and sparse training steps."""
    from mediswift import bench

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


def run_notebook(arguments: argparse.Namespace) -> int:
    """One notebook, executed strictly."""
    from mediswift import runner

    chosen = dict(arguments.parameter)
    name = f"{runner.label(arguments.notebook, chosen)}.ipynb"
    output = arguments.output or runner.ROOT / "runs" / "notebooks" / name
    seconds = runner.run(arguments.notebook, chosen, output)
    print(f"{output} ({seconds:.0f} s)")
    return 0


def run_study(arguments: argparse.Namespace) -> int:
    """A grid of notebooks."""
    from mediswift import runner

    todo = runner.run_study(arguments.study, arguments.cores, profile=arguments.profile)
    for job in todo:
        failed = runner.failed(job.output)
        why = f"failed: see {failed}" if failed.exists() else "not reached"
        print(f"{job.name}: {why}", file=sys.stderr)
    if todo:
        return 1
    for job in runner.jobs(arguments.study):
        print(f"{runner.seconds_of(job.output):6.0f} s  {job.output.relative_to(runner.ROOT)}")
    return 0


def make_book(arguments: argparse.Namespace) -> int:
    """A study, and the book from it."""
    from mediswift import book

    if status := run_study(arguments):
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
