"""A study's file as checked data; what is wrong with one is in tests/test_runner.py, too."""

from pathlib import Path

import pytest

from mediswift.study import read_study


def test_what_is_left_out_is_empty(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("notebooks: [01_corpus]", encoding="utf-8")
    content = read_study(path)
    assert content == {"notebooks": ["01_corpus"], "parameters": {}, "grid": {}, "gpus": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebooks: [../../elsewhere]", "names of notebooks, without folders"),
        ("notebooks: []", "one notebook or more; .* lists none"),
        ("notebooks: [04_finetune, 03_pretrain]", "in their order, .*: write 03_pretrain, 04_fine"),
        ("notebooks: [one]\ngpus: -1", "0 or more; .* has -1"),
        ("notebooks: [one]\ngrid: {seed: 1}", "none: \\['seed'\\]"),
        ("notebooks: [one]\ngrid: {seed: []}", "none: \\['seed'\\]"),
        ("notebooks: [one]\nparameters: {a: [1]}", "one text, number, true or false"),
        ("notebooks: [one]\nnodes: 2", "a study has the keys"),
        ("notebooks: [one", "a study is YAML"),
        ("[" * 5000, "YAML"),
    ],
)
def test_what_is_no_study_is_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "one.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_study(path)


def test_notebooks_without_a_number_stand_where_they_are_listed(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("notebooks: [zero, 03_pretrain, a_look, 04_finetune]", encoding="utf-8")
    listed = ["zero", "03_pretrain", "a_look", "04_finetune"]
    assert read_study(path)["notebooks"] == listed


def test_a_missing_study_is_named_beside_those_there_are():
    with pytest.raises(FileNotFoundError, match="no study none.yaml; there are .*'tiny.yaml'"):
        read_study(Path("none.yaml"))
