"""Any causal language model is scored: other tokenizers, no BOS, no padding token."""

import pytest
import torch
from test_pubmedqa import brute_force, make_questions
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from mediswift import contestant, pubmedqa

TEXT = ["question: Does zinc help? context: It helped. We gave it."] * 9
TEXT += ["the answer to the question given the context is yes. no. maybe."] * 9
SMALL = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PLAIN = {"bos_token_id": None, "eos_token_id": None}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=2, n_positions=2048, **PLAIN)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, intermediate_size=64, num_key_value_heads=1, pad_token_id=None)
    ),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, intermediate_size=64)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=384, hidden_size=32, n_layer=2, n_head=2)
    ),
}


def byte_level(front):
    """GPT-2's kind of tokenizer, with a token in front of each text or without."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if front:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return tokenizer


def sentence_piece(front):
    """Llama's kind of tokenizer: it puts a space in front of whatever it is given."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>", "<unk>", *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


TOKENIZERS = {
    "bos": lambda: byte_level(True),
    "no bos": lambda: byte_level(False),
    "sentencepiece": lambda: sentence_piece(True),
}


def save(folder, model, kind, side="right"):
    torch.manual_seed(0)
    MODELS[model]().save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[kind](), padding_side=side)
    assert wrapped.pad_token is None
    wrapped.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_any_model_scores_as_one_unpadded_pass_does(tmp_path, model, kind):
    loaded, tokenizer = contestant.load(save(tmp_path, model, kind))
    questions = make_questions(5)
    report = pubmedqa.evaluate(loaded, tokenizer, questions)
    for question, row in zip(questions, report.predictions, strict=True):
        text = pubmedqa.render(question).source + pubmedqa.PHRASE
        for answer, score in row["scores"].items():
            whole, prefix = tokenizer(f"{text} {answer}").input_ids, tokenizer(text).input_ids
            shared = len(prefix)
            assert whole[:shared] == prefix  # the tokenizer sees one text, and so do we
            logits = lambda x: loaded(input_ids=x).logits  # noqa: E731
            wanted = brute_force(logits, prefix, whole[shared:])
            one = pubmedqa.answer_ids(tokenizer)[0]
            more = len(pubmedqa.continuation_ids(tokenizer, pubmedqa.PHRASE))
            skipped = brute_force(logits, prefix, one[more:]) if len(one) > more else 0.0
            assert score == pytest.approx(wanted - skipped, abs=1e-4)


def test_the_padding_side_changes_nothing(tmp_path):
    pairs = [
        contestant.load(save(tmp_path / side, "gpt2", "bos", side)) for side in ("left", "right")
    ]
    left, right = (pubmedqa.evaluate(*pair, make_questions()) for pair in pairs)
    assert left.predictions == right.predictions


def test_a_model_that_sees_what_follows_is_refused(tmp_path):
    save(tmp_path, "gpt2", "bos")
    torch.manual_seed(0)
    BertLMHeadModel(BertConfig(**SMALL, intermediate_size=64)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not see what follows"):
        contestant.load(tmp_path)


def test_another_models_tokenizer_is_refused(tmp_path):
    save(tmp_path, "gpt2", "bos")
    GPT2LMHeadModel(
        GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, **PLAIN)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="99 embeddings for 3"):
        contestant.load(tmp_path)


def test_a_repository_has_two_words_and_a_path_says_that_it_is_one(tmp_path):
    asked = contestant._is_repository
    assert asked("openai-community/gpt2")
    assert not any(map(asked, (tmp_path, "./a/b", "~/b", "/a/b", "a", "a/b/c")))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        contestant.load(tmp_path / "nowhere")


def head_left_out(folder):
    MODELS["llama"]().model.save_pretrained(folder)


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def exploded(folder):
    model = MODELS["llama"]()
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    model.save_pretrained(folder)


def without_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def with_a_token_too_many(folder):
    tokenizer = TOKENIZERS["no bos"]()
    tokenizer.add_special_tokens(["<new>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<new> $A", special_tokens=[("<new>", tokenizer.token_to_id("<new>"))]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    model = MODELS["llama"]()
    model.resize_token_embeddings(tokenizer.token_to_id("<new>"))
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (head_left_out, "lacks 1, the first is lm_head.weight"),
        (cut_short, "are damaged .*fetch them again"),
        (pickled, "has pytorch_model.bin: a pickle can run code"),
        (exploded, "gives NaN or infinity"),
        (without_tokenizer, "has none that reads text"),
        (with_a_token_too_many, r"has (\d+) embeddings for"),
    ],
)
def test_a_model_whose_numbers_would_mean_nothing_is_refused(tmp_path, harm, said):
    harm(save(tmp_path, "llama", "bos"))
    with pytest.raises(ValueError, match=said):
        contestant.load(tmp_path)
