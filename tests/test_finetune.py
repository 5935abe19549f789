"""Fine-tuning: what revives, what stays, what alone is trained, and that it can be stopped."""

import shutil
import signal
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from mediswift import finetune, pubmedqa, sparse, train
from mediswift.batches import IGNORED
from mediswift.pretrain import PROFILES as SIZES
from mediswift.runs import load_history, load_model, load_run, load_tokenizer


@pytest.fixture
def config(pretrained):
    """Five steps from the shared pre-training run."""
    return finetune.profile("tiny", parent=pretrained.id, questions="sample:", batch=20)


@pytest.fixture
def copy(runs, pretrained, tmp_path):
    """Folder of runs that holds the parent alone."""
    shutil.copytree(runs / pretrained.id, tmp_path / pretrained.id)
    return tmp_path


def forbid(*_, **__):
    raise AssertionError("it is trained already")


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# What moves


def test_dense_fine_tuning_revives_removed_weights(runs, pretrained, tuned):
    before, after = load_model(pretrained.id, runs), load_model(tuned.id, runs)
    masks = sparse.load_masks(runs / pretrained.id)
    moved = sparse.movement(before, after, masks)
    assert all(row["revived"] > 0 for row in moved)
    assert {row["matrix"] for row in moved} == set(masks.masks)
    assert tuned.mask_digest == ""


@pytest.mark.parametrize("virtual_tokens", [0, 3])
def test_sparse_fine_tuning_keeps_the_zeros(config, copy, pretrained, virtual_tokens):
    config = replace(config, dense=False, virtual_tokens=virtual_tokens)
    record = finetune.finetune(config, copy)
    before, after = load_model(pretrained.id, copy), load_model(record.id, copy)
    after = after.model if virtual_tokens else after
    masks = sparse.load_masks(copy / pretrained.id)
    for name, mask in masks.masks.items():
        assert torch.equal(after.get_parameter(name) != 0, mask)
        assert not torch.equal(after.get_parameter(name), before.get_parameter(name))
    assert record.mask_digest == pretrained.mask_digest


def test_frozen_trains_the_prompt_alone(config, copy, pretrained):
    config = replace(config, virtual_tokens=3, frozen=True)
    drawn = finetune.make_model(config, copy).prompt.detach().clone()
    record = finetune.finetune(config, copy)
    soft = load_model(record.id, copy)
    assert same(soft.model, load_model(pretrained.id, copy))
    assert ((soft.prompt != drawn).any(dim=1)).all()


def test_a_soft_prompt_trains_with_the_model(config, copy, pretrained):
    config = replace(config, virtual_tokens=3)
    drawn = finetune.make_model(config, copy).prompt.detach().clone()
    soft = load_model(finetune.finetune(config, copy).id, copy)
    assert (soft.prompt != drawn).all()
    assert not same(soft.model, load_model(pretrained.id, copy))


# What it reads


@pytest.mark.parametrize("virtual_tokens", [0, 3])
def test_the_loss_is_on_the_answer_alone(config, copy, virtual_tokens):
    config = replace(config, virtual_tokens=virtual_tokens)
    model, tokenizer = finetune.make_model(config, copy), load_tokenizer(config.parent, copy)
    questions = pubmedqa.split(pubmedqa.load("sample:"), "train").select(range(2))
    batch = finetune.make_examples(config, model, tokenizer, questions).batch(np.arange(2))
    for question, targets in zip(questions, batch.targets, strict=True):
        text = tokenizer.decode(targets[targets != IGNORED])
        assert text.startswith(pubmedqa.render(question).target)
    whole = finetune.make_examples(replace(config, loss="sequence"), model, tokenizer, questions)
    assert whole.batch(np.arange(2)).count > batch.count


def test_longer_contexts_are_cut_and_answers_are_not(config, copy):
    config = replace(config, max_length=120)
    model, tokenizer = finetune.make_model(config, copy), load_tokenizer(config.parent, copy)
    questions = pubmedqa.split(pubmedqa.load("sample:"), "train")
    examples = finetune.make_examples(config, model, tokenizer, questions)
    batch = examples.batch(np.arange(len(examples)))
    assert batch.input_ids.shape[1] <= 120
    for question, targets in zip(questions, batch.targets, strict=True):
        said = tokenizer.decode(targets[targets != IGNORED])
        assert said.startswith(pubmedqa.render(question).target)


# What a run is


def test_a_second_call_finds_the_run(runs, pretrained, tuned, monkeypatch):
    monkeypatch.setattr(train, "fit", forbid)
    config = finetune.profile("tiny", parent=pretrained.id, questions="sample:")
    assert finetune.finetune(config, runs) == tuned


def test_the_record_says_what_was_chosen_and_measured(runs, pretrained, tuned):
    questions = pubmedqa.load("sample:")
    config = finetune.profile("tiny", parent=pretrained.id, questions="sample:")
    assert tuned.params == asdict(config)
    assert tuned.parent == pretrained.id
    assert tuned.metrics["train_questions"] == len(pubmedqa.split(questions, "train"))
    assert tuned.metrics["dev_n"] == len(pubmedqa.split(questions, "dev"))
    assert tuned.metrics["train_loss_nats"] == load_history(tuned.id, runs)["loss"].iloc[-1]
    low, accuracy, high = (tuned.metrics[f"dev_{key}"] for key in ("low", "accuracy", "high"))
    assert low <= accuracy <= high


CHANGES = {
    "parent": "pretrain-other", "fold": 1, "setting": "question_only", "dense": False,
    "virtual_tokens": 5, "position": "before", "frozen": True, "loss": "sequence", "epochs": 3,
    "batch": 8, "micro_batch": 2, "lr": 2e-3, "max_length": 256, "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(finetune.FinetuneConfig)])
def test_every_field_makes_another_run(config, pretrained, name):
    config = replace(config, virtual_tokens=3)
    changed = config if name == "questions" else replace(config, **{name: CHANGES[name]})
    data = "other" if name == "questions" else "items"  # an address counts by its items
    ids = [
        finetune._run_id(config, pretrained, "items"),
        finetune._run_id(changed, pretrained, data),
    ]
    assert ids[0] != ids[1]


def test_a_stopped_run_goes_on_as_if_it_never_stopped(config, runs, copy, monkeypatch):
    config = replace(config, virtual_tokens=2)
    whole = finetune.finetune(config, runs)
    make = finetune.make_examples

    def stop_soon(*arguments):
        examples = make(*arguments)
        monkeypatch.setattr(
            type(examples), "batch", lambda *_: signal.raise_signal(signal.SIGINT) or batch(*_)
        )
        return examples

    batch = finetune.AnswerExamples.batch
    monkeypatch.setattr(finetune, "make_examples", stop_soon)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 1"):
        finetune.finetune(config, copy)
    monkeypatch.undo()
    again = finetune.finetune(config, copy)
    assert again.id == whole.id
    assert same(load_model(again.id, copy), load_model(whole.id, runs))


def test_every_profile_of_pre_training_has_one_here():
    assert finetune.PROFILES.keys() == SIZES.keys()
    for name in finetune.PROFILES:
        assert finetune.profile(name, parent="x", questions="sample:").epochs >= 1


# What it refuses


def test_a_missing_parent_is_named_beside_those_there_are(config, runs, pretrained):
    with pytest.raises(FileNotFoundError, match=f"no finished run 'pretrain-x' .*{pretrained.id}"):
        finetune.finetune(replace(config, parent="pretrain-x"), runs)


def test_a_parent_that_is_tuned_already_is_refused(config, runs, pretrained, tuned):
    with pytest.raises(
        ValueError, match=f"is of kind 'finetune'; its own parent is '{pretrained.id}'"
    ):
        finetune.finetune(replace(config, parent=tuned.id), runs)
    assert load_run(tuned.id, runs) == tuned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "answer"}, "loss is one of target, sequence; got 'answer'"),
        ({"frozen": True}, "leaves nothing to train with virtual_tokens=0"),
    ],
)
def test_contradicting_choices_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ValueError, match="a profile is one of tiny, demo, .*; got 'big'"):
        finetune.profile("big", parent="x", questions="sample:")
