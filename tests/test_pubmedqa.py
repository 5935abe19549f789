"""Tests of mediswift.pubmedqa. Run with: pytest tests/test_pubmedqa.py."""

import json
import os
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mediswift import pubmedqa

QUESTION = {
    "pmid": "S1",
    "question": "Does zinc\u2009 help? ",
    "contexts": [" We gave zinc.\n", "It  helped."],
    "section_labels": ["METHODS", "RESULTS"],
    "long_answer": "Zinc helps.",
    "label": "maybe",
}
SOURCE = "question: Does zinc help? context: We gave zinc. It helped."
TARGET = " the answer to the question given the context is maybe."


def make_tokenizer(vocab_size=400):
    """A byte-level BPE; at 258 it has no merge, so each answer is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<start>", "<end>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    text = [SOURCE + TARGET, " yes no maybe yes no maybe yes no maybe"] * 3
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_model(positions=256):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400,
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def make_questions(n=7):
    rows = [
        QUESTION
        | {
            "pmid": f"S{i}",
            "contexts": ["It helped. " * (i + 1)],
            "label": ("yes", "no", "maybe")[i % 3],
        }
        for i in range(n)
    ]
    return Dataset.from_list(rows)


def brute_force(logits_of, prefix, answer):
    """Log p(answer | prefix) from one unpadded pass over both."""
    with torch.no_grad():
        steps = logits_of(torch.tensor([[*prefix, *answer]]))[0].log_softmax(-1)
    steps = steps[len(prefix) - 1 : -1]
    return sum(float(step[token]) for step, token in zip(steps, answer, strict=True))


def texts(tokenizer, question):
    """Prefix and answers in ids, said once more in the plainest way."""
    source, target = pubmedqa.render(question)

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    answers = {a: ids(f" {a}") for a in ("yes", "no", "maybe")}
    return [0, *ids(source)], ids(target.rsplit(" ", 1)[0]), answers


def test_render_is_biogpts_wording_with_single_spaces():
    assert pubmedqa.render(QUESTION) == (SOURCE, TARGET)
    free = pubmedqa.render(QUESTION, "reasoning_free")
    assert free.source == "question: Does zinc help? context: Zinc helps."
    assert pubmedqa.render(QUESTION, "question_only") == ("question: Does zinc help?", TARGET)


def test_render_refuses_another_setting_and_a_missing_conclusion():
    with pytest.raises(ValueError, match="question_only, got 'closed_book'"):
        pubmedqa.render(QUESTION, "closed_book")
    with pytest.raises(ValueError, match="PMID S1 has none"):
        pubmedqa.render(QUESTION | {"long_answer": " "}, "reasoning_free")


def test_the_answer_is_a_token_of_its_own():
    tokenizer = make_tokenizer()
    for answer in ("yes", "no", "maybe"):
        ids = pubmedqa.encode(tokenizer, QUESTION | {"label": answer}).target
        assert tokenizer.convert_ids_to_tokens(ids[-2:]) == [f"Ġ{answer}", "."]


def test_encode_opens_as_the_tokenizer_does_and_does_not_end():
    tokenizer = make_tokenizer()
    source, target, truncated = pubmedqa.encode(tokenizer, QUESTION)
    assert source[0] == 0 and 1 not in source + target and not truncated
    assert tokenizer.decode(source[1:] + target) == SOURCE + TARGET


def test_encode_cuts_the_end_of_the_context_and_nothing_else():
    tokenizer = make_tokenizer()
    whole = pubmedqa.encode(tokenizer, QUESTION)
    length = len(whole.source) + len(whole.target)
    assert pubmedqa.encode(tokenizer, QUESTION, max_length=length) == whole
    cut = pubmedqa.encode(tokenizer, QUESTION, max_length=length - 3)
    assert cut == (whole.source[:-3], whole.target, True)


def test_the_cut_does_not_tell_the_answer():
    tokenizer = make_tokenizer(258)  # "maybe" is longer than "no" here
    sources = {
        tuple(pubmedqa.encode(tokenizer, QUESTION | {"label": a}, max_length=100).source)
        for a in ("yes", "no", "maybe")
    }
    assert len(sources) == 1


def test_a_question_that_is_too_long_by_itself_is_refused_by_name():
    tokenizer = make_tokenizer()
    head = tokenizer("question: Does zinc help? context:", add_special_tokens=False).input_ids
    least = 1 + len(head) + len(pubmedqa.encode(tokenizer, QUESTION).target)
    assert pubmedqa.encode(tokenizer, QUESTION, max_length=least).source == [0, *head]
    with pytest.raises(ValueError, match="fit into max_length, PMID S1 is 1 tokens too long;"):
        pubmedqa.encode(tokenizer, QUESTION, max_length=least - 1)


@pytest.mark.parametrize("vocab_size", [258, 400])
@pytest.mark.parametrize("batch_tokens", [1, 300, 8192])
def test_scores_equal_brute_force(vocab_size, batch_tokens):
    tokenizer, model, questions = make_tokenizer(vocab_size), make_model(), make_questions()
    report = pubmedqa.evaluate(model, tokenizer, questions, batch_tokens=batch_tokens)
    for question, row in zip(questions, report.predictions, strict=True):
        source, phrase, answers = texts(tokenizer, question)
        # Without merges the three answers share their space: it then belongs to the prefix.
        shared = 0 if vocab_size == 400 else 1
        for answer, ids in answers.items():
            prefix = source + phrase + ids[:shared]
            wanted = brute_force(lambda x: model(x).logits, prefix, ids[shared:])
            assert row["scores"][answer] == pytest.approx(wanted, abs=1e-5)
        assert row["prediction"] == max(row["scores"], key=row["scores"].get)
    assert [row["pmid"] for row in report.predictions] == questions["pmid"]


class Prompted(torch.nn.Module):
    """The least soft prompt: ids from 400 on are virtual tokens between source and target."""

    def __init__(self, model, n):
        super().__init__()
        self.model, self.n, self.config = model, n, model.config
        self.rows = torch.nn.Parameter(torch.randn(n, 32, generator=torch.manual_seed(1)))

    def assemble(self, source_ids, target_ids):
        return [*source_ids, *range(400, 400 + self.n), *target_ids]

    def forward(self, input_ids, attention_mask=None):
        table = torch.cat([self.model.transformer.wte.weight, self.rows])
        return self.model(inputs_embeds=table[input_ids], attention_mask=attention_mask)


def test_a_soft_prompt_is_scored_with_its_virtual_tokens():
    tokenizer, questions = make_tokenizer(), make_questions()
    model = Prompted(make_model(), 5)
    report = pubmedqa.evaluate(model, tokenizer, questions)
    for question, row in zip(questions, report.predictions, strict=True):
        source, phrase, answers = texts(tokenizer, question)
        prefix = model.assemble(source, phrase)
        for answer, ids in answers.items():
            wanted = brute_force(lambda x: model(x).logits, prefix, ids)
            assert row["scores"][answer] == pytest.approx(wanted, abs=1e-5)


def test_the_model_bounds_the_length_and_virtual_tokens_count():
    tokenizer, questions = make_tokenizer(), make_questions(3)
    whole = pubmedqa.encode(tokenizer, questions[2])
    length = len(whole.source) + len(whole.target)
    fits = make_model(positions=length)
    assert pubmedqa.evaluate(fits, tokenizer, questions).truncated == 0
    assert pubmedqa.evaluate(Prompted(fits, 1), tokenizer, questions).truncated == 1
    assert pubmedqa.evaluate(fits, tokenizer, questions, max_length=length - 1).truncated == 1


def test_a_tie_goes_to_the_first_answer_and_nan_is_refused_by_name():
    tokenizer, model, questions = make_tokenizer(), make_model(), make_questions(2)
    torch.nn.init.zeros_(model.lm_head.weight)
    tied = pubmedqa.evaluate(model, tokenizer, questions)
    assert tied.answers == ["yes", "yes"]
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match=r"PMID S0 got \[nan, nan, nan\]"):
        pubmedqa.evaluate(model, tokenizer, questions)


def test_a_tokenizer_that_knows_no_answer_is_refused():
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(ValueError, match="must tell yes, no and maybe apart"):
        pubmedqa.evaluate(make_model(), tokenizer, make_questions())


@pytest.mark.skipif("MEDISWIFT_DATA" not in os.environ, reason="needs the official file")
def test_humans_score_as_published():
    path = Path(os.environ["MEDISWIFT_DATA"]) / "pubmedqa" / "ori_pqal.json"
    required, free = pubmedqa.humans(path), pubmedqa.humans(path, "reasoning_free")
    figures = [round(100 * x, 1) for r in (required, free) for x in (r.accuracy, r.macro_f1)]
    assert figures == [78.0, 72.2, 90.4, 84.2]


def test_humans_are_read_from_the_test_half(tmp_path):
    items = {
        f"S{i}": {
            "final_decision": ("yes", "no", "maybe")[i % 3],
            "reasoning_required_pred": "yes",
            "reasoning_free_pred": ("yes", "no", "maybe")[i % 3],
        }
        for i in range(60)
    }
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(items), encoding="utf-8")
    assert pubmedqa.humans(path).n == 30
    assert pubmedqa.humans(path).accuracy == pytest.approx(1 / 3)
    assert pubmedqa.humans(path, "reasoning_free").accuracy == 1.0
