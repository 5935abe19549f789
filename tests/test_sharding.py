"""Sharing a model out: each process holds its part, whole again when asked."""

import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from test_train import ANSWERS, make_model

from mediswift import machine, sharding, sparse
from mediswift.loss import summed_loss


def share():
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    process = machine.join_processes()
    plain, model = make_model(sparsity=0.5), make_model(sparsity=0.5)
    assert sharding.shard(model, process.device) is model
    wanted = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        local = parameter.to_local()
        assert torch.equal(sharding.own(parameter), local)
        assert local.numel() <= wanted[name].numel() // 2 + wanted[name][:1].numel()
        assert torch.equal(sharding.whole(parameter), wanted[name])
        assert torch.equal(sharding.like(wanted[name].detach(), parameter).to_local(), local)
    assert sharding.place_of(model) == (process.process_index, 2)
    sparse.masks_of(model).check(model)
    with torch.no_grad():  # no backward follows, which would part them again
        batch = ANSWERS.batch([0, 1])
        assert torch.equal(summed_loss(model, batch), summed_loss(plain, batch))
    held = [type(p) for p in sharding.rest(model).parameters()]
    assert all(issubclass(kind, torch.distributed.tensor.DTensor) for kind in held)


def test_every_process_holds_a_part_and_all_of_it_comes_back():
    debug_launcher(share, num_processes=2)
