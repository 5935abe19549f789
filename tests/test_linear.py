"""Tests of mediswift.linear. Run with: pytest tests/test_linear.py."""

import copy

import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import linear
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2LMHeadModel

from mediswift import checkpoints, choice, machine, sparse, train
from mediswift.batches import PackedExamples
from mediswift.linear import SparseLinear
from mediswift.masks import make_mask
from mediswift.schedule import Config
from mediswift.sharding import like

OUTPUTS, INPUTS = 64, 36
PATTERNS = ["unstructured", "16x1", "diagonal:4"]
each_pattern = pytest.mark.parametrize("pattern", PATTERNS)
each_engine = pytest.mark.parametrize("engine", ["masked", "native", "bmm"])
pytestmark = pytest.mark.usefixtures("kernels")


def mask_of(pattern="diagonal:4"):
    return make_mask((OUTPUTS, INPUTS), 0.75, pattern, seed=0, name="w")


def dense(bias=True, **options):
    torch.manual_seed(0)
    return nn.Linear(INPUTS, OUTPUTS, bias=bias, **options)


def layer(engine="masked", pattern="diagonal:4", bias=True, **options):
    plain = dense(bias)
    options = {"engine": engine, "pattern": pattern} | options
    return SparseLinear(plain.weight, plain.bias, mask_of(pattern), **options)


def inputs(*shape):
    return torch.randn(*shape, INPUTS, generator=torch.Generator().manual_seed(1))


def same(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def same_state(one, other):
    assert one.keys() == other.keys()
    for name in one:
        same(one[name], other[name])


def train_a_little(model, x, steps=3, between=lambda model, step: None, forward=None):
    forward = model if forward is None else forward
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        between(model, step)
        forward(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


# It computes what the dense layer computes


@each_engine
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 5), (2, 3, 4), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_those_of_the_dense_layer_without_what_is_removed(engine, shape, bias):
    plain, found = dense(bias), layer(engine, bias=bias)
    x = inputs(*shape).requires_grad_()
    wanted = linear(x, plain.weight * mask_of(), plain.bias)
    y = found(x)
    assert y.shape == (*shape, OUTPUTS) == wanted.shape
    same(y, wanted)
    same(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(wanted.sum(), x)[0])


def test_only_kept_weights_are_held_as_a_matrix():
    found = layer()
    assert [name for name, _ in found.named_parameters()] == ["values", "bias"]
    assert found.values.dim() == 2 and found.values.numel() * 4 == OUTPUTS * INPUTS
    decayed, plain = train.make_optimizer(found, CONFIG).param_groups
    assert decayed["weight_decay"] and [id(p) for p in decayed["params"]] == [id(found.values)]
    assert not plain["weight_decay"] and [id(p) for p in plain["params"]] == [id(found.bias)]


@each_pattern
def test_the_weight_is_the_dense_one_and_differentiable(pattern):
    found = layer(pattern=pattern)
    assert torch.equal(found.weight, dense().weight * mask_of(pattern))
    found.weight.square().sum().backward()
    same(found.values.grad, 2 * found.values)


@each_engine
def test_frozen_weights_get_no_gradient(engine):
    plain = dense().requires_grad_(False)
    found = SparseLinear(plain.weight, plain.bias, mask_of(), engine=engine)
    x = inputs(5).requires_grad_()
    found(x).sum().backward()
    assert x.grad.any() and found.values.grad is found.bias.grad is None


def test_it_says_what_it_is():
    assert repr(layer("native")) == (
        "SparseLinear(in_features=36, out_features=64, bias=True, kept=576, "
        "pattern='diagonal:4', engine='native')"
    )


# To the outside it is a dense one


@each_pattern
@pytest.mark.parametrize("bias", [True, False])
def test_a_state_dict_is_plain_in_and_out(pattern, bias):
    found = layer(pattern=pattern, bias=bias)
    state = found.state_dict()
    wanted = {"weight": dense().weight * mask_of(pattern)} | (
        {"bias": dense().bias} if bias else {}
    )
    same_state(state, {name: tensor.detach() for name, tensor in wanted.items()})
    assert list(state) == list(wanted) and not any(t.requires_grad for t in state.values())
    dense(bias).load_state_dict(state)
    other = layer(pattern=pattern, bias=bias)
    other.values.data.zero_()
    given = dict(state)
    assert str(other.load_state_dict(given)) == "<All keys matched successfully>"
    assert given.keys() == state.keys()
    assert torch.equal(other.values, found.values) and other.values.requires_grad


def test_a_conv1d_is_turned():
    found = layer("native", turned=True)
    state = found.state_dict()
    assert torch.equal(state["weight"], (dense().weight * mask_of()).T)
    assert state["weight"].is_contiguous()  # or safetensors would refuse it
    state["weight"] *= 2
    before = found(inputs(5)) - found.bias
    found.load_state_dict(state)
    same(found(inputs(5)) - found.bias, 2 * before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weight": torch.ones(OUTPUTS, INPUTS)}, "weight has 1728 weights where the mask removes"),
        (
            {"weight": torch.zeros(INPUTS, OUTPUTS)},
            r"weight has shape \(36, 64\): of another layer",
        ),
        ({"weight": None}, r'Missing key\(s\) in state_dict: "0.weight"'),
        ({"bias": None}, r'Missing key\(s\) in state_dict: "0.bias"'),
        ({"bias": torch.zeros(3)}, "size mismatch for 0.bias"),
        ({"other": torch.zeros(3)}, 'Unexpected key.*"0.other"'),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(change, text):
    model = nn.Sequential(layer())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = before | {f"0.{name}": tensor for name, tensor in change.items()}
    given = {name: tensor for name, tensor in given.items() if tensor is not None}
    with pytest.raises(RuntimeError, match=text):
        model.load_state_dict(given)
    same_state(model.state_dict(), before)


def test_a_missing_weight_may_be_allowed():
    found = layer()
    assert found.load_state_dict({"bias": found.bias}, strict=False).missing_keys == ["weight"]


@each_engine
def test_a_copy_shares_nothing(engine):
    found = layer(engine)
    copied, before = copy.deepcopy(found), found.state_dict()
    same(copied(inputs(5)), found(inputs(5)))
    train_a_little(copied, inputs(5))
    same_state(found.state_dict(), before)
    assert not torch.equal(copied.values, found.values) and copied.engine == engine


@each_engine
def test_double_precision_is_kept(engine):
    found = layer(engine).double()
    y = found(inputs(5).double())
    same(y, linear(inputs(5).double(), found.weight, found.bias), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_masked_and_the_others_say_so(dtype):
    found = layer("masked", "unstructured").to(dtype)
    assert found(inputs(5).to(dtype)).dtype == dtype
    with pytest.raises(ValueError, match="engine 'native' cannot compute this layer: "):
        found.use("native")
    with pytest.raises(TypeError, match="use engine='masked'"):
        layer("native", "unstructured").to(dtype)(inputs(5).to(dtype))


@pytest.mark.parametrize(
    ("engine", "pattern", "text"),
    [
        ("fast", "16x1", "one of auto, masked, native, bmm, triton, 2:4; got 'fast'"),
        ("bmm", "16x1", "'bmm' cannot compute this layer: bmm needs pattern='diagonal:GROUPS'"),
        ("triton", "16x1", "'triton' cannot compute this layer: triton needs a GPU"),
        ("2:4", "16x1", "'2:4' cannot compute this layer: 2:4 needs pattern='2:4'"),
    ],
)
def test_an_engine_that_cannot_is_refused_and_the_old_one_stays(engine, pattern, text):
    found = layer("native", pattern)
    with pytest.raises(ValueError, match=text):
        found.use(engine)
    assert found.engine == found.current == "native" and found(inputs(2)).any()


def test_a_layer_for_a_gpu_may_be_made_on_a_cpu():
    mask = make_mask((64, 64), 0.5, "2:4", seed=0, name="w")
    assert SparseLinear(torch.rand(64, 64), None, mask, engine="2:4").current == "2:4"


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(64, 36\) and \(36, 64\)"):
        SparseLinear(torch.rand(INPUTS, OUTPUTS), None, mask_of())


# Engines change, numbers do not


def test_the_engine_may_change_at_every_step():
    wanted = train_a_little(layer("masked"), inputs(17), steps=6)
    order = ["native", "masked", "bmm", "native", "bmm", "masked"]
    found = layer("masked")
    same_state(train_a_little(found, inputs(17), 6, lambda m, step: m.use(order[step])), wanted)
    assert found.use("native") is found and found.engine == found.current == "native"


CONFIG = Config(steps=6, batch=4, micro_batch=4, lr=1e-2, warmup_steps=2, save_every=3)
ROWS = PackedExamples([torch.arange(9).add(i).remainder(32).numpy() for i in range(10)])


def gpt2(engine):
    torch.manual_seed(0)
    size = {"vocab_size": 32, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=None, eos_token_id=None))
    sparse.sparsify(model, 0.75, "16x1", engine=engine)
    return model


class Killed(BaseException):
    pass


class Trap:
    """Examples of which the fifth batch is never made: the checkpoint of step 3 is the last."""

    left = 4

    def __len__(self):
        return len(ROWS)

    def batch(self, indices):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return ROWS.batch(indices)


def test_a_run_goes_on_with_another_engine(tmp_path):
    rows = train.fit(gpt2("masked"), ROWS, CONFIG, tmp_path / "whole")
    with pytest.raises(Killed):
        train.fit(gpt2("masked"), Trap(), CONFIG, tmp_path / "cut")
    model = gpt2("native")
    resumed = train.fit(model, ROWS, CONFIG, tmp_path / "cut")
    assert {each.current for each in sparse.layers(model)} == {"native"}
    assert resumed[-1]["loss"] == pytest.approx(rows[-1]["loss"], rel=1e-4)
    one, two = (checkpoints.read(tmp_path / name)[1] for name in ("whole", "cut"))
    assert one.keys() == two.keys()
    for name in one:
        if "c_attn.bias" not in name:  # of a key it is rounding alone, which Adam scales up
            same(one[name], two[name], 1e-4)


# auto: the first training step chooses


@pytest.fixture
def asked(monkeypatch):
    """What was measured, in order: the number of tokens, and their type."""
    calls = []

    def fastest(layout, pattern, tokens, device, dtype, bias):
        calls.append((pattern, tokens, dtype, bias))
        return "native"

    monkeypatch.setattr(choice, "fastest", fastest)
    return calls


def test_auto_measures_at_the_first_training_step_and_only_there(asked):
    found = layer("auto")
    with torch.no_grad():
        found(inputs(5))
    assert (found.engine, found.current, asked) == ("auto", "masked", [])
    found(inputs(2, 5)), found(inputs(9))
    assert (found.engine, found.current) == ("native", "native")
    assert asked == [("diagonal:4", 10, torch.float32, True)]
    found.use("auto")
    assert (found.engine, found.current) == ("auto", "masked")


def test_auto_measures_what_autocast_computes_in(asked):
    with torch.autocast("cpu", torch.bfloat16):
        layer("auto", bias=False)(inputs(5))
    assert asked == [("diagonal:4", 5, torch.bfloat16, False)]


def test_auto_stays_masked_in_compiled_code(asked):
    found = layer("auto")
    compiled = torch.compile(found, backend="aot_eager", fullgraph=True)
    same(compiled(inputs(5)), layer("masked")(inputs(5)))
    assert (found.engine, found.current, asked) == ("auto", "masked", [])


# With the rest of torch


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # and traces
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@each_engine
def test_compiled_code_trains_to_the_same_weights(engine, backend):
    torch._dynamo.reset()
    wanted = train_a_little(layer(engine), inputs(3, 5))
    found = layer(engine)
    forward = torch.compile(found, backend=backend, fullgraph=True)
    same_state(train_a_little(found, inputs(3, 5), forward=forward), wanted)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("engine", ["masked", "native", "bmm", "auto"])
def test_activations_may_be_computed_again(engine, reentrant):
    wanted = train_a_little(layer("masked"), inputs(5))
    found, x = layer(engine), inputs(5).requires_grad_()

    def forward(x):
        return checkpoint(found, x, use_reentrant=reentrant)

    same_state(train_a_little(found, x, forward=forward), wanted)
    assert found.engine != "auto"


def stack(engine):
    torch.manual_seed(1)
    return nn.Sequential(nn.Sequential(layer(engine), nn.GELU()), nn.Linear(OUTPUTS, 3))


def rank_of_two():
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    machine.join_processes()
    return torch.distributed.get_rank()


def replicated():
    rank, x = rank_of_two(), inputs(8)
    for engine in ("masked", "native"):
        wanted, model = train_a_little(stack(engine), x), stack(engine)
        found = train_a_little(model, x[rank::2], forward=DistributedDataParallel(model))
        same_state(found, wanted)


def sharded():
    rank, x = rank_of_two(), inputs(8)
    mesh = init_device_mesh("cpu", (2,))
    for engine in ("masked", "native"):
        wanted, model = train_a_little(stack(engine), x), stack(engine)
        for part in (model[0], model[1], model):
            fully_shard(part, mesh=mesh)
        found = train_a_little(model, x[rank::2])
        held = model[0][0].values.to_local().numel()
        assert held == model[0][0].values.numel() // 2
        assert isinstance(found["0.0.weight"], torch.Tensor)
        same_state(
            {n: getattr(t, "full_tensor", lambda t=t: t)() for n, t in found.items()}, wanted
        )


def filled():
    rank, x = rank_of_two(), inputs(8)
    torch.manual_seed(2)
    trained = stack("masked")
    train_a_little(trained, x)
    wanted = trained.state_dict()
    mesh = init_device_mesh("cpu", (2,))
    for fill in (by_torch, by_hand):
        model = stack("masked")
        fully_shard(model, mesh=mesh)
        fill(model, wanted)
        assert model[0][0].values.to_local().numel() < trained[0][0].values.numel()
        torch.testing.assert_close(model(x[rank::2]), trained(x[rank::2]))


def by_torch(model, dense):
    set_model_state_dict(model, dense, options=StateDictOptions(full_state_dict=True))


def by_hand(model, dense):
    places = dict(model.named_parameters())
    model.load_state_dict({n: like(t, places.get(n, t)) for n, t in dense.items()})


@pytest.mark.parametrize("work", [replicated, sharded, filled])
def test_two_processes_train_as_one(work):
    debug_launcher(work, num_processes=2)
