"""Tests of mediswift.batches. Run with: pytest tests/test_batches.py."""

import numpy as np
import pytest
import torch

from mediswift import models
from mediswift.batches import IGNORED, AnswerExamples, Batch, Head, PackedExamples, in_order
from mediswift.flops import Shape
from mediswift.prompts import SoftPrompt

N = IGNORED  # short, so that the rows below stand under each other
ROWS = [np.array([1, 2, 3, 4]), np.array([4, 5, 6, 7]), np.array([7, 8, 9, 1])]


def test_packed_targets_are_the_inputs_one_further_on():
    batch = PackedExamples(ROWS).batch(np.array([2, 0]))
    assert batch.input_ids.tolist() == [[7, 8, 9], [1, 2, 3]]
    assert batch.targets.tolist() == [[8, 9, 1], [2, 3, 4]]
    assert (batch.tokens, batch.count) == (6, 6)


def test_a_target_stands_where_it_is_predicted():
    # ids 3 4 5 6, loss from index 2 on: 5 is predicted at 4, 6 at 5
    batch = AnswerExamples([([3, 4, 5, 6], 2)], vocab_size=10).batch(np.array([0]))
    assert batch.input_ids.tolist() == [[3, 4, 5]]
    assert batch.targets.tolist() == [[N, 5, 6]]


@pytest.mark.parametrize(
    ("start", "targets"),
    [(0, [4, 5, 6]), (1, [4, 5, 6]), (2, [N, 5, 6]), (3, [N, N, 6]), (4, [N, N, N])],
)
def test_the_loss_begins_at_start(start, targets):
    batch = AnswerExamples([([3, 4, 5, 6], start)], vocab_size=10).batch(np.array([0]))
    assert batch.targets.tolist() == [targets]
    assert batch.count == sum(target != N for target in targets)


def test_padding_is_on_the_right_and_never_a_target():
    examples = AnswerExamples([([3, 4, 5, 6], 2), ([7, 8], 1), ([2, 0, 0], 1)], vocab_size=10)
    batch = examples.batch(np.array([0, 1, 2]))
    assert batch.input_ids.tolist() == [[3, 4, 5], [7, 0, 0], [2, 0, 0]]
    assert (batch.padding, batch.tokens) == (3, 6)
    assert batch.targets.tolist() == [[N, 5, 6], [8, N, N], [0, 0, N]]  # 0 is a token as well
    assert (batch.unscored, batch.count) == (4, 5)


def test_virtual_tokens_are_never_targets():
    # source 3 4, virtual 10 11, target 5 6, loss on the whole sequence
    batch = AnswerExamples([([3, 4, 10, 11, 5, 6], 1)], vocab_size=10).batch(np.array([0]))
    assert batch.input_ids.tolist() == [[3, 4, 10, 11, 5]]
    assert batch.targets.tolist() == [[4, N, N, 5, 6]]  # the last virtual token predicts the target


@pytest.mark.parametrize("position", ["between", "before"])
def test_a_soft_prompt_lays_no_loss_on_itself(position):
    shape = Shape(n_layer=1, n_embd=8, n_head=1, context=16, vocab_size=10)
    soft = SoftPrompt(models.build(shape, seed=0), 2, position)
    ids = soft.assemble([3, 4], [5, 6])
    batch = AnswerExamples([(ids, len(ids) - 2)], shape.vocab_size).batch(np.array([0]))
    assert batch.targets.tolist() == [[N, N, N, 5, 6]]
    logits = soft(input_ids=batch.input_ids).logits
    assert logits.shape == (*batch.targets.shape, 10)


def test_in_order_gives_every_example_once():
    examples = PackedExamples(ROWS)
    batches = list(in_order(examples, 2))
    assert [len(batch.input_ids) for batch in batches] == [2, 1] and len(examples) == 3
    assert torch.cat([batch.input_ids for batch in batches])[:, 0].tolist() == [1, 4, 7]


@pytest.mark.parametrize(("size", "firsts"), [(0, [1, 4, 7]), (2, [1, 4]), (9, [1, 4, 7])])
def test_a_head_is_the_first_examples(size, firsts):
    head = Head(PackedExamples(ROWS), size)
    (batch,) = in_order(head, 10)
    assert len(head) == len(firsts) and batch.input_ids[:, 0].tolist() == firsts


def test_a_batch_moves_whole():
    padded = AnswerExamples([([3, 4], 1), ([3, 4, 5], 1)], 10).batch(np.array([0, 1]))
    for batch in (padded, PackedExamples(ROWS).batch(np.array([0]))):
        moved = batch.to(torch.device("meta"))
        assert isinstance(moved, Batch)
        assert moved.input_ids.is_meta and moved.targets.is_meta
        assert (moved.tokens, moved.count) == (batch.tokens, batch.count)
