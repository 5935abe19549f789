"""The command line: `python -m mediswift VERB`; each verb is a thin door to one function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mediswift import studies, verbs
from mediswift.jobs import answer
from mediswift.models import SIZES


def main(argv: list[str] | None = None) -> int:
    """Exit code of the command: 0 done, 1 something failed, 2 wrong words, 130 interrupted."""
    arguments = make_parser().parse_args(argv)
    return answer("mediswift", lambda: arguments.run(arguments))


def make_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="mediswift", description=__doc__.splitlines()[0])
    doors = parser.add_subparsers(required=True, metavar="VERB")
    verb = _verb(doors, "flops", verbs.count_flops, "theoretical FLOPs of a size at a sparsity")
    verb.add_argument("--size", choices=SIZES, required=True)
    verb.add_argument("--sparsity", type=float, default=0.75)
    verb.add_argument("--json", action="store_true")
    verb = _verb(doors, "plan", verbs.plan_run, "what a run will need, before it is paid for")
    verb.add_argument("--size", choices=SIZES, required=True)
    verb.add_argument("--tokens", type=float, required=True)
    verb.add_argument("--sparsity", type=float, default=0.75)
    verb.add_argument("--pattern", default="unstructured")
    verb.add_argument("--engine", default="masked")
    verb.add_argument("--device", default="h200", help="h200, h100, a100 or cpu")
    verb.add_argument("--gpus", type=int, default=1)
    verb.add_argument("--sharded", action="store_true", help="FSDP2")
    verb.add_argument("--recompute", action="store_true", help="activations, instead of keeping")
    _precision(verb, "bf16")
    verb.add_argument("--batch-tokens", type=int, default=524_288)
    verb.add_argument("--micro-batch", type=int, default=0, help="rows; 0 = the most that fit")
    verb.add_argument("--gflops", type=float, default=0.0, help="measured, of a dense step")
    verb.add_argument("--speedup", type=float, default=0.0, help="measured, of the sparse step")
    verb.add_argument("--results", type=Path, default=Path("results"), help="folder of records")
    verb.add_argument("--json", action="store_true")
    verb = _verb(doors, "evaluate", verbs.evaluate, "score a Hugging Face causal LM on PubMedQA")
    _model_and_data(verb)
    verb.add_argument("--split", choices=("train", "dev", "test", "all"), default="test")
    verb.add_argument("--fold", default="0", help="0 to 9; all (with --split dev): all ten")
    verb.add_argument("--setting", default="reasoning_required")
    verb.add_argument(
        "--prior", default="none", help="none, content_free, marginal: correct for it"
    )
    verb.add_argument("--generate", action="store_true", help="read generated text, as BioGPT does")
    verb.add_argument("--out", type=Path, help="folder that gets record and predictions")
    verb = _verb(doors, "compare", verbs.compare, "two kept scores, question by question")
    verb.add_argument("one", type=Path, help="folder that evaluate --out or chapter 6 made")
    verb.add_argument("other", type=Path)
    verb = _verb(doors, "summary", verbs.summarize, "kept scores of several seeds or folds as one")
    verb.add_argument("folders", type=Path, nargs="+")
    kind = verb.add_mutually_exclusive_group()
    kind.add_argument("--pool", action="store_true", help="each answered questions of its own")
    kind.add_argument("--out", type=Path, help="folder that gets a record")
    verb = _verb(
        doors, "protocols", verbs.compare_protocols, "one model under five protocols of PubMedQA"
    )
    _model_and_data(verb)
    verb.add_argument("--out", type=Path, help="folder that gets a record")
    verb = _verb(doors, "questions", verbs.make_questions, "make PQA-A or PQA-U out of abstracts")
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
    verb = _verb(
        doors, "pack", verbs.pack_corpus, "a corpus in one file, for a machine that only trains"
    )
    verb.add_argument("--corpus", required=True, help="address of the documents")
    verb.add_argument("--size", choices=SIZES, required=True, help="whose vocabulary it gets")
    verb.add_argument("--keep-contaminated", action="store_true", help="leave exam texts in")
    verb.add_argument("--out", type=Path, required=True, help="file, NAME.tar.xz")
    verb.add_argument("--runs", type=Path, default=Path("runs"))
    verb = _verb(
        doors, "bench", verbs.time_steps, "seconds of a dense and of sparse training steps"
    )
    verb.add_argument("--device", default="cpu", help="cpu or cuda")
    _precision(verb, "")
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
    verb = _verb(
        doors, "contest", studies.hold_contest, "what each sparsity pattern costs in held-out loss"
    )
    _training_words(verb)
    text = "dense, unstructured, 16x1 ...; +scaled, +set, +rigl, +bf16 after one"
    verb.add_argument("--patterns", nargs="+", required=True, help=text)
    verb.add_argument("--sparsity", type=float, default=0.75)
    verb = _verb(
        doors, "scale", studies.scale, "what each sparsity costs at equal tokens and at equal FLOPs"
    )
    _training_words(verb)
    verb.add_argument("--sparsities", nargs="+", type=float, default=[0.0, 0.5, 0.75])
    verb.add_argument("--pattern", default="unstructured")
    verb.add_argument("--smaller", choices=SIZES, default="", help="size of a dense rival")
    verb = _verb(
        doors, "densify", studies.densify, "sparse runs go on dense, beside runs dense all along"
    )
    verb.add_argument("--sparse", nargs="+", required=True, help="ids of runs, one a seed")
    verb.add_argument("--dense", nargs="+", required=True, help="ids of the same seeds' dense runs")
    verb.add_argument("--tokens", type=int, required=True, help="to go on with")
    verb.add_argument("--lr", type=float, default=1e-3, help="the first learning rate tried")
    verb.add_argument("--runs", type=Path, default=Path("runs"))
    verb = _verb(
        doors, "stages", studies.run_stages, "fine-tune in stages A, U, L, each on and off"
    )
    _tuning_words(verb)
    verb.add_argument("--labeled", required=True, help="address of PQA-L, the last stage")
    verb.add_argument("--artificial", default="", help="address of PQA-A")
    verb.add_argument("--unlabeled", default="", help="address of PQA-U")
    verb.add_argument("--epochs", nargs=3, type=int, default=[1, 1, 5], metavar=("A", "U", "L"))
    verb.add_argument("--teacher", default="reasoning_free", help="setting in which U is labeled")
    verb.add_argument("--fold", type=int, default=0)
    verb = _verb(doors, "ablate", studies.ablate, "fine-tune with one choice varied, and test each")
    _tuning_words(verb, parent=False)
    verb.add_argument("--parent", default="", help="id of the run to start from, with --vary")
    verb.add_argument("--labeled", required=True, help="address of PQA-L")
    choice = verb.add_mutually_exclusive_group(required=True)
    choice.add_argument("--vary", nargs="+", metavar=("FIELD", "VALUE"), help="of FinetuneConfig")
    _parents_words(verb, choice)
    verb.add_argument("--initialization", default="random", help="of the soft prompt")
    verb.add_argument("--epochs", type=int, default=5)
    verb.add_argument("--fold", type=int, default=0)
    verb = _verb(
        doors, "hoc", studies.classify_hallmarks, "fine-tune on HoC, and test beside the baselines"
    )
    _tuning_words(verb, parent=False)
    choice = verb.add_mutually_exclusive_group(required=True)
    choice.add_argument("--parent", default="", help="id of the run to start from")
    _parents_words(verb, choice)
    verb.add_argument("--data", required=True, help="hoc:PATH of the corpus, an archive")
    verb.add_argument("--epochs", type=int, default=5)
    verb = _verb(
        doors, "law", studies.fit_law, "a scaling law through records of scale, and how sure it is"
    )
    verb.add_argument("records", type=Path, nargs="+", help="folders of scaling records, or files")
    verb.add_argument("--draws", type=int, default=400, help="resamples behind the intervals")
    verb.add_argument("--runs", type=Path, default=Path("runs"), help="folder that gets the record")
    verb = _verb(doors, "run", verbs.run_notebook, "execute one notebook, strictly")
    verb.add_argument("notebook", type=Path)
    verb.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("N", "V"))
    verb.add_argument("--output", type=Path)
    for name, function, text in (
        ("study", verbs.run_study, "execute a study's grid of notebooks; what is done is skipped"),
        ("book", verbs.make_book, "execute a study and render the book from it"),
    ):
        verb = _verb(doors, name, function, text)
        verb.add_argument("study", type=Path)
        place = verb.add_mutually_exclusive_group()
        place.add_argument("--cores", type=int, default=1, help="notebooks at a time, here")
        place.add_argument("--profile", type=Path, help="of a cluster: profiles/slurm")
    verb.add_argument("--picture", type=Path, help="also save the front page's figure as PNG here")
    return parser


def _training_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--corpus", required=True, help="address of the documents")
    verb.add_argument("--size", choices=SIZES, default="mini")
    verb.add_argument("--tokens", type=int, default=1_228_800)
    verb.add_argument("--tuning-tokens", type=int, default=0, help="of the tuning; 0 = as many")
    verb.add_argument("--batch-tokens", type=int, default=4_096)
    verb.add_argument("--micro-batch", type=int, default=16)
    verb.add_argument("--lr", type=float, default=4e-3, help="the first learning rate tried")
    _precision(verb, "no")
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--runs", type=Path, default=Path("runs"))


def _precision(verb: argparse.ArgumentParser, default: str) -> None:
    text = "bf16 on a GPU, or a CPU that multiplies it"
    text += f"; default {default or 'what the device is usually trained in'}"
    verb.add_argument("--precision", choices=("no", "bf16"), default=default, help=text)


def _tuning_words(verb: argparse.ArgumentParser, parent: bool = True) -> None:
    if parent:
        verb.add_argument("--parent", required=True, help="id of the run to start from")
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--virtual-tokens", type=int, default=0, help="length of the soft prompt")
    verb.add_argument("--loss", choices=("target", "sequence"), default="target")
    verb.add_argument("--batch", type=int, default=16)
    verb.add_argument("--micro-batch", type=int, default=8)
    verb.add_argument("--lr", type=float, default=1e-3)
    verb.add_argument("--max-length", type=int, default=0, help="tokens; 0 = the model's limit")
    _precision(verb, "no")
    verb.add_argument("--runs", type=Path, default=Path("runs"))


def _parents_words(verb: argparse.ArgumentParser, choice: object) -> None:
    choice.add_argument(
        "--of", nargs="+", action="append", metavar=("NAME", "RUN"), help="parents, one a seed"
    )
    verb.add_argument("--what", default="parent", help="in what the parents of --of differ")


def _model_and_data(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", required=True, help="folder, or OWNER/NAME on the hub")
    verb.add_argument("--data", required=True, help="path of ori_pqal.json, sample:, demo: or hf:")
    verb.add_argument(
        "--limit", type=int, default=0, help="stratified draw of so many questions; 0 = all"
    )
    verb.add_argument("--json", action="store_true")


def _verb(doors: object, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    verb = doors.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


if __name__ == "__main__":
    sys.exit(main())
