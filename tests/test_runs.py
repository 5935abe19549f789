"""Finding a finished run again by its id."""

from dataclasses import replace

import pytest
import torch
from transformers import BioGptForCausalLM

from mediswift import models, prompts, records
from mediswift import runs as done
from mediswift.prompts import SoftPrompt


def test_a_run_is_found_by_its_id(runs, pretrained):
    assert done.load_run(pretrained.id, runs) == pretrained
    assert type(done.load_model(pretrained.id, runs)) is BioGptForCausalLM
    tokenizer = done.load_tokenizer(pretrained.id, runs)
    assert len(tokenizer) == models.shape("tiny").vocab_size
    assert tokenizer.decode(tokenizer("Zinc heals.", add_special_tokens=False).input_ids) == (
        "Zinc heals."
    )


def test_a_history_has_a_row_a_logged_step(runs, pretrained):
    history = done.load_history(pretrained.id, runs)
    assert history["step"].is_monotonic_increasing
    assert history["tokens"].iloc[-1] == pretrained.metrics["tokens_trained"]
    assert {"loss", "lr", "gradient_norm", "tokens_per_s", "seconds"} <= set(history.columns)
    assert history["validation_loss"].notna().sum() == 5


def test_a_model_comes_with_its_soft_prompt(tmp_path, pretrained):
    soft = SoftPrompt(models.build(models.shape("tiny"), seed=0), 2, "before", seed=3)
    records.write(pretrained, tmp_path / "x")
    soft.save_pretrained(tmp_path / "x" / "model")
    found = done.load_model("x", tmp_path)
    assert isinstance(found, SoftPrompt)
    assert (found.position, found.prompt.tolist()) == ("before", soft.prompt.tolist())
    ids = torch.tensor([found.assemble([5, 6], [7])])
    assert torch.equal(found.eval()(ids).logits, soft.eval()(ids).logits)
    assert isinstance(prompts.load(tmp_path / "x" / "model"), SoftPrompt)


@pytest.mark.parametrize(
    "load", [done.load_run, done.load_model, done.load_tokenizer, done.load_history]
)
def test_a_run_that_is_not_there_is_named_beside_those_that_are(runs, pretrained, load):
    with pytest.raises(FileNotFoundError, match=rf"no finished run 'x' in .*{pretrained.id}"):
        load("x", runs)


@pytest.mark.parametrize("name", ["", "half"])
def test_an_unfinished_run_is_none(tmp_path, name):
    (tmp_path / "half").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no finished run '{name}' in .*; there are none"):
        done.load_run(name, tmp_path)


@pytest.mark.parametrize("name", ["x/../x", "x/model", "/x", "x/"])
def test_a_name_with_a_folder_in_it_is_no_run(tmp_path, pretrained, name):
    records.write(pretrained, tmp_path / "x")
    with pytest.raises(ValueError, match=f"a run is named by its id, got '{name}'"):
        done.load_run(name, tmp_path)


def test_an_examination_says_how_the_first_run_was_scaled(tmp_path, pretrained):
    for name, chosen in {"old": {}, "new": {"density_scaling": True}}.items():
        params = {k: v for k, v in pretrained.params.items() if k != "density_scaling"} | chosen
        records.write(replace(pretrained, id=name, params=params), tmp_path / name)
        exam = replace(pretrained, id=f"exam-{name}", kind="exam", parent=name, params={})
        records.write(exam, tmp_path / exam.id)
    examined = [done.load_run(f"exam-{name}", tmp_path) for name in ("old", "new")]
    assert list(done.exams(examined, tmp_path)["name"]) == ["75% removed", "75% removed scaled"]
