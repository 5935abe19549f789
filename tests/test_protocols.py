"""Five protocols: the prompts as their repositories have them, and how answers are read."""

import pytest
from test_pubmedqa import make_model, make_tokenizer

from mediswift import protocols, pubmedqa
from mediswift.protocols import PROTOCOLS

ITEM = {
    "pmid": "1",
    "question": "Does it?",
    "contexts": ["We looked.", "It's so."],
    "section_labels": ["PATIENTS AND METHODS", "RESULTS"],
    "long_answer": "Yes.",
    "label": "yes",
}


def test_prompts_are_as_they_were_read():
    texts = {key: protocol.prompt(ITEM) for key, protocol in PROTOCOLS.items()}
    assert texts["ours"].endswith("It's so. the answer to the question given the context is")
    assert texts["lm-eval"] == "Abstract: We looked.\nIt's so.\nQuestion: Does it?\nAnswer:"
    assert texts["helm"].endswith(
        "on a single line.\n\nQuestion: Context: Patients And Methods. We looked.\nResults. "
        "It's so.\n\nQuestion: Does it?\n\nA. yes\nB. no\nC. maybe\nAnswer:"
    )
    assert texts["lighteval"] == "Does it?\n['We looked.', \"It's so.\"]\nAnswer: "
    assert texts["inspect"].endswith(
        "LETTER is one of A,B,C.\n\n**Context:** We looked. It's so.\n\n**Question:** Does it?\n\n"
        "A) yes\nB) no\nC) maybe\n\n"
    )


@pytest.mark.parametrize(
    ("key", "text", "answer"),
    [
        ("helm", " B", "no"),
        ("helm", "B.", ""),
        ("helm", "yes", ""),
        ("lighteval", "maybe", "maybe"),
        ("lighteval", " Yes", ""),
        ("inspect", "ANSWER: C", "maybe"),
        ("inspect", "I think\nanswer: a.", "yes"),
        ("inspect", "ANSWER: A\nANSWER: B", "no"),
        ("inspect", "ANSWER: Although", ""),
        ("inspect", "B", ""),
    ],
)
def test_answers_are_read_as_strictly_as_there(key, text, answer):
    assert PROTOCOLS[key].read(text) == answer


@pytest.fixture(scope="module")
def parts():
    return make_model(2048), make_tokenizer(), pubmedqa.load("sample:")


def test_rows_prompt_and_reading_are_changed_one_at_a_time(parts):
    model, tokenizer, questions = parts
    table = protocols.compare(model, tokenizer, questions)
    assert list(table["rows"]) == ["test", "test", "all", "all", "test"]
    assert list(table["n"]) == [100, 100, 200, 200, 100]
    test = pubmedqa.evaluate(model, tokenizer, pubmedqa.split(questions, "test"))
    assert table.loc["lm-evaluation-harness", "ours"] == 100 * test.accuracy
    every = pubmedqa.evaluate(model, tokenizer, questions)
    assert table.loc["HELM", "ours"] == 100 * every.accuracy
    first = table.iloc[0]
    assert first["ours"] == first["likeliest"] == first["read"] and first["unread"] == 0
    assert (table["read_low"] <= table["read"]).all() and (
        table["read"] <= table["read_high"]
    ).all()


def test_a_limit_is_drawn_from_each_protocols_own_rows(parts):
    table = protocols.compare(*parts, limit=20)
    assert set(table["n"]) == {20}


def test_what_is_written_is_read(parts, monkeypatch):
    model, tokenizer, questions = parts
    said = tokenizer(" A", add_special_tokens=False).input_ids
    monkeypatch.setattr(protocols, "greedy", lambda model, prefixes, n: [said] * len(prefixes))
    report = protocols.read(PROTOCOLS["helm"], model, tokenizer, questions)
    assert set(report.answers) == {"yes"} and report.unanswered == 0


def test_a_prompt_that_does_not_fit_loses_its_beginning(parts):
    _, tokenizer, questions = parts
    model = make_model(96)
    report = protocols.prompted(PROTOCOLS["lm-eval"], model, tokenizer, questions.select([0]))
    ids = tokenizer(PROTOCOLS["lm-eval"].prompt(questions[0]), add_special_tokens=False).input_ids
    _, answers = pubmedqa.answer_ids(tokenizer, "", pubmedqa.ANSWERS)
    from mediswift.likelihood import log_likelihoods

    kept = 96 - max(map(len, answers))
    wanted = log_likelihoods(model, [ids[-kept:]], answers)[0]
    assert list(report.predictions[0]["scores"].values()) == pytest.approx(wanted.tolist())
