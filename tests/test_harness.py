"""Beside lm-evaluation-harness: its likelihoods are ours. Needs the optional extra `peers`."""

import importlib

import numpy as np
import pytest
from test_contestant import save

from mediswift import contestant, harness, protocols, pubmedqa
from mediswift.runner import ROOT

WHY = 'lm-evaluation-harness is not installed: pip install "mediswift[peers]"'


@pytest.fixture(scope="module")
def peer():
    # Its own imports warn; that is not ours to fix.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lm_eval.models.huggingface", reason=WHY)


@pytest.fixture(scope="module")
def questions():
    return pubmedqa.split(pubmedqa.load("sample:"), "test").select(range(12))


def load(folder, model, kind):
    """A small model; the harness asks for a token that ends a text."""
    found, tokenizer = contestant.load(save(folder, model, kind))
    tokenizer.add_special_tokens({"eos_token": "<s>"})
    return found, tokenizer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bos", "no bos"])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_every_likelihood_is_the_harnesss_to_1e_4(peer, tmp_path, questions, model, kind):
    pair = load(tmp_path, model, kind)
    theirs = harness.their_scores(*pair, questions, batch_size=4)
    ours = harness.our_scores(*pair, questions)
    assert theirs.shape == (12, 3)
    # Where answers share a first token, ours count it with the phrase: it is the same in all.
    apart = (theirs - ours) - (theirs - ours).mean(1, keepdims=True)
    assert np.abs(apart).max() < 1e-4
    single = all(len(ids) == 1 for ids in pubmedqa.answer_ids(pair[1])[1])
    assert not single or np.abs(theirs - ours).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_its_own_prompt_scores_as_in_our_table(peer, tmp_path, questions):
    model, tokenizer = load(tmp_path, "llama", "bos")
    protocol = protocols.PROTOCOLS["lm-eval"]
    report = protocols.prompted(protocol, model, tokenizer, questions)
    ours = np.array([list(row["scores"].values()) for row in report.predictions])
    theirs = harness.their_scores(model, tokenizer, questions, prompt=protocol.prompt)
    apart = (theirs - ours) - (theirs - ours).mean(1, keepdims=True)
    assert np.abs(apart).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["pubmedqa_official", "pubmedqa_local"])
def test_the_task_files_run_in_the_harness_and_give_our_numbers(peer, tmp_path, task):
    model, tokenizer = load(tmp_path, "llama", "bos")
    evaluator = importlib.import_module("lm_eval.evaluator")
    tasks = importlib.import_module("lm_eval.tasks")
    folder = str(ROOT / "data" / "lm_eval")
    manager = tasks.TaskManager(
        include_path=folder, include_defaults=False, metadata={"questions": "sample:"}
    )
    found = evaluator.simple_evaluate(
        model=peer.HFLM(pretrained=model, tokenizer=tokenizer, device="cpu"),
        tasks=[task],
        task_manager=manager,
        bootstrap_iters=0,
    )
    test = pubmedqa.split(pubmedqa.load("sample:"), "test")
    key = {"pubmedqa_official": "ours", "pubmedqa_local": "lm-eval"}[task]
    report = protocols.read(protocols.PROTOCOLS[key], model, tokenizer, test)
    assert found["results"][task]["acc,none"] == pytest.approx(report.accuracy)
    if task == "pubmedqa_official":
        assert found["results"][task]["f1,none"] == pytest.approx(report.macro_f1)
    assert len(found["samples"][task]) == 100


def test_a_race_counts_documents_and_agreement(monkeypatch, tmp_path, questions):
    pair = contestant.load(save(tmp_path, "gpt2", "bos"))
    monkeypatch.setattr(harness, "their_scores", lambda m, t, q, size: harness.our_scores(m, t, q))
    (row,) = harness.race({"tiny": pair}, questions, rounds=2)
    assert row["same_answers"] and row["largest_difference_nats"] == 0
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["our_documents_per_cpu_s"] > 0
