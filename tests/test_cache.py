"""What has been read is not read again, and comes to the same."""

import pytest
import torch
from test_likelihood import make_model

from mediswift.cache import Reading, keeping, remembers
from mediswift.likelihood import evaluating

PREFIXES = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3, 5], [8]]


def alone(model, ids):
    """Logits (T, V) of one sequence, read at once."""
    return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("kind", ["gpt2", "biogpt", "llama", "soft prompt"])
def test_going_on_equals_reading_again(kind):
    model = make_model(kind)
    with evaluating(model):
        reading = Reading(model, PREFIXES)
        wanted = [alone(model, prefix)[-1] for prefix in PREFIXES]
        assert torch.allclose(reading.logits, torch.stack(wanted), atol=1e-5)
        first = reading.repeat(2).go_on(torch.tensor([[2, 7], [7, 2]] * 3))
        second = reading.go_on(torch.tensor([[4]] * 6))
        for row, (prefix, more) in enumerate((p, m) for p in PREFIXES for m in ([2, 7], [7, 2])):
            whole = alone(model, [*prefix, *more, 4])
            found = torch.cat([first[row], second[row]])
            assert torch.allclose(found, whole[-3:], atol=1e-5)


def test_who_remembers():
    class Forgetful(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None):
            return None

    assert all(remembers(make_model(kind)) for kind in ("gpt2", "biogpt", "llama", "soft prompt"))
    assert not remembers(Forgetful()) and keeping(Forgetful(), 1) == {}
