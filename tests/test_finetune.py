"""Fine-tuning: what revives, what stays, what alone is trained, and that it can be stopped."""

import json
import shutil
import signal
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from mediswift import demo, finetune, pubmedqa, records, sparse, train
from mediswift.batches import IGNORED
from mediswift.pretrain import PROFILES as SIZES
from mediswift.runs import lineage, load_history, load_model, load_tokenizer
from mediswift.schedule import indices_of


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


def test_a_second_stage_starts_where_the_first_ended(config, copy, runs, pretrained):
    first = finetune.finetune(replace(config, virtual_tokens=3), copy)
    second = replace(config, parent=first.id, virtual_tokens=3, seed=1)
    assert same(finetune.make_model(second, copy), load_model(first.id, copy))
    record = finetune.finetune(second, copy)
    assert record.parent == first.id
    assert [r.id for r in lineage(record.id, copy)] == [pretrained.id, first.id, record.id]
    assert not same(load_model(record.id, copy), load_model(first.id, copy))
    assert finetune.find(replace(config, parent=""), [first], copy) == [record]


def test_a_second_stage_keeps_the_masks_of_the_first(config, copy, pretrained):
    first = finetune.finetune(replace(config, dense=False), copy)
    second = finetune.finetune(replace(config, dense=False, parent=first.id), copy)
    after, masks = load_model(second.id, copy), sparse.load_masks(copy / pretrained.id)
    assert all(torch.equal(after.get_parameter(n) != 0, m) for n, m in masks.masks.items())
    revived = finetune.finetune(config, copy)
    with pytest.raises(ValueError, match="has none; it is dense"):
        finetune.finetune(replace(config, dense=False, parent=revived.id), copy)


@pytest.mark.parametrize(("words", "ids"), [("text: yes", 1), ("text: yes no", 2)])
def test_a_soft_prompt_starts_from_a_text(config, runs, pretrained, words, ids):
    config = replace(config, virtual_tokens=2, initialization=words)
    soft, tokenizer = finetune.make_model(config, runs), load_tokenizer(pretrained.id, runs)
    wanted = tokenizer(words[5:], add_special_tokens=False).input_ids
    assert len(wanted) == ids
    assert torch.equal(soft.prompt, soft.model.get_input_embeddings().weight[(wanted * 2)[:2]])


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


def test_fields_that_came_later_leave_older_ids_alone(pretrained, monkeypatch):
    monkeypatch.setattr(finetune, "RECIPE", 2)  # of that version
    config = finetune.FinetuneConfig(parent="pretrain-x", questions="sample:")
    # what the version without `part` and `initialization` called this run
    assert (
        finetune._run_id(config, pretrained, "items") == "finetune-tiny-s75-dense-seed0-8d87fc83db"
    )


CHANGES = {
    "parent": "pretrain-other", "part": "all", "initialization": "vocabulary",
    "fold": 1, "setting": "question_only", "dense": False,
    "virtual_tokens": 5, "position": "before", "frozen": True, "loss": "sequence", "epochs": 3,
    "batch": 8, "micro_batch": 2, "lr": 2e-3, "precision": "bf16", "max_length": 256, "seed": 1,
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


def test_padding_is_not_counted(runs, pretrained, tuned):
    config = finetune.profile("tiny", parent=pretrained.id, questions="sample:")
    questions = pubmedqa.split(pubmedqa.load("sample:"), "train")
    model, tokenizer = load_model(pretrained.id, runs), load_tokenizer(pretrained.id, runs)
    examples = finetune.make_examples(config, model, tokenizer, questions)
    loop = finetune._loop(config, len(examples))
    seen = [i for step in range(loop.steps) for i in indices_of(step, len(examples), loop)]
    lengths = [len(ids) - 1 for ids, _ in examples.sequences]  # the last id is read by nobody
    assert len(set(lengths)) > 1
    assert tuned.metrics["tokens_trained"] == sum(lengths[i] for i in seen)


def test_a_finished_run_is_read_where_it_could_not_be_trained(
    config, copy, pretrained, tuned, no_bf16
):
    config = replace(config, precision="bf16")
    with pytest.raises(ValueError, match="precision='bf16' on a CPU that does not"):
        finetune.finetune(config, copy)
    name = finetune._run_id(config, pretrained, tuned.data_fingerprint)
    made = replace(tuned, id=name, params=asdict(config))
    records.write(made, copy / name)
    assert finetune.finetune(config, copy) == made


def test_runs_are_found_at_any_prompt_and_seed_and_by_items(pretrained, tuned, tmp_path):
    shutil.copyfile(demo.DATA / "sample" / "questions.json", tmp_path / "moved.json")
    config = finetune.profile("tiny", parent="", questions=str(tmp_path / "moved.json"))
    prompted = replace(config, parent=pretrained.id, virtual_tokens=3, frozen=True, seed=2)
    name = finetune._run_id(prompted, pretrained, tuned.data_fingerprint)
    other = replace(tuned, id=name, params=asdict(prompted))
    for record in (tuned, other):
        records.write(record, tmp_path / record.id)
    found = finetune.find(config, [pretrained], tmp_path)
    assert found == sorted([tuned, other], key=lambda record: record.id)


def test_runs_of_another_profile_recipe_parent_or_questions_are_not_found(
    runs, pretrained, tuned, tmp_path, monkeypatch
):
    config = finetune.profile("tiny", parent="", questions="sample:")
    assert finetune.find(config, [pretrained], runs) == [tuned]
    assert finetune.find(config, [], runs) == []
    assert finetune.find(replace(config, epochs=7), [pretrained], runs) == []
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    items.popitem()
    (tmp_path / "less.json").write_text(json.dumps(items), encoding="utf-8")
    fewer = replace(config, questions=str(tmp_path / "less.json"))
    assert finetune.find(fewer, [pretrained], runs) == []
    monkeypatch.setattr(finetune, "RECIPE", finetune.RECIPE + 1)
    assert finetune.find(config, [pretrained], runs) == []


def test_every_profile_of_pre_training_has_one_here():
    assert finetune.PROFILES.keys() == SIZES.keys()
    for name in finetune.PROFILES:
        assert finetune.profile(name, parent="x", questions="sample:").epochs >= 1


# What it refuses


def test_a_missing_parent_is_named_beside_those_there_are(config, runs, pretrained):
    with pytest.raises(FileNotFoundError, match=f"no finished run 'pretrain-x' .*{pretrained.id}"):
        finetune.finetune(replace(config, parent="pretrain-x"), runs)


def test_a_parent_without_a_model_is_refused(config, copy, pretrained):
    records.write(replace(pretrained, id="exam-x", kind="exam"), copy / "exam-x")
    with pytest.raises(ValueError, match="a run with a model, exam-x is of kind 'exam'"):
        finetune.finetune(replace(config, parent="exam-x"), copy)


def test_a_soft_prompt_of_the_parent_is_not_replaced(config, copy):
    parent = finetune.finetune(replace(config, virtual_tokens=3), copy)
    for change in ({}, {"virtual_tokens": 2}, {"virtual_tokens": 3, "position": "before"}):
        with pytest.raises(ValueError, match="has a soft prompt already, with .* 3, .*between"):
            finetune.make_model(replace(config, parent=parent.id, **change), copy)


def test_questions_of_an_exam_are_not_trained_on_as_a_whole(config, runs):
    with pytest.raises(ValueError, match="part='all' would train on questions of the exam: 200"):
        finetune.finetune(replace(config, part="all"), runs)


def test_a_fold_without_dev_is_refused_before_training(config, copy, monkeypatch):
    official = json.loads((demo.DATA / "pubmedqa_labels.json").read_text(encoding="utf-8"))
    gone = set(pubmedqa.official_split(official)["folds"][0])
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    left = [pmid for pmid in official if pmid not in gone]
    like_demo = {
        pmid: item | {"final_decision": official[pmid]}
        for pmid, item in zip(left, items.values(), strict=False)
    }
    path = copy / "like_demo.json"
    path.write_text(json.dumps(like_demo), encoding="utf-8")
    monkeypatch.setattr(train, "fit", forbid)
    with pytest.raises(ValueError, match="'dev' of fold 0 holds none of these 200"):
        finetune.finetune(replace(config, questions=str(path)), copy)


def test_masks_that_are_not_there_cannot_be_kept(config, copy, pretrained, monkeypatch):
    monkeypatch.setattr(train, "fit", forbid)
    config = replace(config, dense=False)
    (copy / pretrained.id / sparse.FILE).unlink()
    wanted = f"has other masks than its record says, '{pretrained.mask_digest}'"
    with pytest.raises(ValueError, match=wanted):
        finetune.finetune(config, copy)
    records.write(replace(pretrained, mask_digest=""), copy / pretrained.id)
    with pytest.raises(ValueError, match="dense=False keeps the masks .* has none; it is dense"):
        finetune.finetune(config, copy)


@pytest.mark.parametrize("virtual_tokens", [0, 3])
def test_a_length_above_the_positions_is_refused(config, copy, virtual_tokens):
    config = replace(config, max_length=513, virtual_tokens=virtual_tokens)
    with pytest.raises(ValueError, match="at most the model's 512 positions; got 513"):
        finetune.finetune(config, copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "answer"}, "loss is one of target, sequence; got 'answer'"),
        ({"part": "test"}, "part is one of train, all; got 'test'"),
        ({"frozen": True}, "leaves nothing to train with virtual_tokens=0"),
    ],
)
def test_contradicting_choices_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ValueError, match="a profile is one of tiny, demo, .*; got 'big'"):
        finetune.profile("big", parent="x", questions="sample:")
