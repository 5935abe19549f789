"""Verbs of the command line that train many runs and compare them.

Decisions: as in `verbs`.
"""

from __future__ import annotations

import argparse
import json


def hold_contest(arguments: argparse.Namespace) -> int:
    """Held-out loss of each sparsity pattern."""
    from mediswift import contest

    names = arguments.patterns
    reference = contest.REFERENCE if contest.REFERENCE in names else names[0]
    record = contest.contest(
        _training(arguments, sparsity=arguments.sparsity),
        names,
        range(arguments.seeds),
        arguments.tuning_tokens or arguments.tokens,
        arguments.runs,
    )
    print(json.dumps(contest.differences(record, reference), indent=1))
    print(record.id)
    return 0


def scale(arguments: argparse.Namespace) -> int:
    """Held-out bits of each sparsity, beside its dense rivals."""
    from mediswift import scaling

    record = scaling.study(
        _training(arguments, pattern=arguments.pattern),
        arguments.sparsities,
        range(arguments.seeds),
        arguments.tuning_tokens,
        arguments.smaller,
        arguments.runs,
    )
    print(scaling.told(record), record.id, sep="\n")
    return 0


def densify(arguments: argparse.Namespace) -> int:
    """Sparse runs going on dense."""
    from mediswift import densification

    record = densification.study(
        arguments.sparse, arguments.dense, arguments.tokens, arguments.lr, arguments.runs
    )
    print(densification.told(record), record.id, sep="\n")
    return 0


def _training(arguments: argparse.Namespace, **chosen: object) -> object:
    from mediswift.pretrain import PretrainConfig

    names = "size corpus tokens batch_tokens micro_batch lr precision".split()
    own = {name: getattr(arguments, name) for name in names}
    fixed = {"warmup": 0.1, "validations": 1, "validation_rows": 512}
    return PretrainConfig(**own, **fixed, **chosen)


def _tuning(arguments: argparse.Namespace, **chosen: object) -> object:
    from mediswift.finetune import FinetuneConfig

    names = "parent virtual_tokens loss batch micro_batch lr max_length precision".split()
    return FinetuneConfig(**{name: getattr(arguments, name) for name in names} | chosen)


def run_stages(arguments: argparse.Namespace) -> int:
    """Chains of fine-tuning stages."""
    from mediswift import ablation, stages

    chosen = stages.pqa(
        arguments.labeled, arguments.artificial, arguments.unlabeled, arguments.epochs
    )
    base = _tuning(arguments, questions=arguments.labeled, fold=arguments.fold)
    seeds = range(arguments.seeds)
    record = stages.study(chosen, base, seeds, arguments.teacher, arguments.runs)
    print(ablation.told(record, "chain"), record.id, sep="\n")
    return 0


def ablate(arguments: argparse.Namespace) -> int:
    """One field of fine-tuning, or its parent, varied."""
    from mediswift import ablation

    base = _tuning(
        arguments,
        questions=arguments.labeled,
        epochs=arguments.epochs,
        initialization=arguments.initialization,
        fold=arguments.fold,
    )
    if arguments.of:
        kinds = _kinds(arguments.of)
        record = ablation.parents(base, kinds, arguments.what, arguments.runs)
    else:
        field, *values = arguments.vary
        record = ablation.study(base, field, values, range(arguments.seeds), arguments.runs)
    print(ablation.told(record), record.id, sep="\n")
    return 0


def _kinds(named: list[list[str]]) -> dict[str, list[str]]:
    names = [name for name, *_ in named]
    if len(set(names)) < len(names):
        raise ValueError(f"--of names each kind of parents once, got {', '.join(names)}")
    return {name: own for name, *own in named}


def classify_hallmarks(arguments: argparse.Namespace) -> int:
    """Hallmarks of Cancer by fine-tuning."""
    from mediswift import classify, downstream

    base = _tuning(arguments, questions=arguments.data, setting="document", epochs=arguments.epochs)
    if arguments.of:
        kinds = _kinds(arguments.of)
        record = downstream.study(base, kinds, arguments.what, arguments.runs)
        print(downstream.told(record), record.id, sep="\n")
        return 0
    record = classify.classify(base, range(arguments.seeds), arguments.runs)
    print(classify.told(record), record.id, sep="\n")
    return 0


def fit_law(arguments: argparse.Namespace) -> int:
    """A scaling law through records of `scale`."""
    from mediswift import forecast

    found = [forecast.read(path) for path in arguments.records]
    record = forecast.study(found, arguments.runs, arguments.draws)
    print(forecast.told(record), record.id, sep="\n")
    return 0
