"""The training loop: it learns, and where it stops leaves no trace in the numbers."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel

from mediswift import checkpoints, schedule, sparse, train
from mediswift.batches import AnswerExamples, PackedExamples
from mediswift.schedule import Config, indices_of, learning_rate

ROWS = PackedExamples(list(np.random.default_rng(0).integers(0, 32, (10, 9))))
ANSWERS = AnswerExamples([(list(range(2, 5 + n)), 1 + n // 2) for n in range(8)], vocab_size=32)
# 10 rows in batches of 4: epochs end inside a batch
CONFIG = Config(steps=8, batch=4, micro_batch=4, lr=1e-2, warmup_steps=2, save_every=3, log_every=1)
NOISY = "c_attn.bias"
"""A key's bias has no gradient but rounding, which Adam scales up."""


def make_model(sparsity=0.0, dropout=0.0):
    torch.manual_seed(0)
    drops = dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], dropout)
    size = {"vocab_size": 32, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, **drops, bos_token_id=None, eos_token_id=None))
    if sparsity:
        sparse.sparsify(model, sparsity, engine="masked")
    return model


def state(folder):
    """Parameters, both moments and steps at the end of a run."""
    return checkpoints.read(folder)[1]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curve(rows):
    return [(row["step"], row["loss"], row["gradient_norm"], row["tokens"]) for row in rows]


class Trap:
    """Examples that do something when one batch is asked for."""

    def __init__(self, at, do, examples=ROWS):
        self.left, self.do, self.examples = at, do, examples

    def __len__(self):
        return len(self.examples)

    def batch(self, indices):
        self.left -= 1
        if self.left == 0:
            self.do()
        return self.examples.batch(indices)


class Killed(BaseException):
    """As sudden as kill -9: nothing is saved on the way out."""


def kill():
    raise Killed


# What it learns


def test_one_batch_is_learned_by_heart(tmp_path):
    config = replace(CONFIG, steps=80, batch=10, micro_batch=10, weight_decay=0.0)
    rows = train.fit(make_model(), ROWS, config, tmp_path)
    assert rows[0]["loss"] == pytest.approx(math.log(32), rel=0.05)  # it begins as a guess
    assert rows[-1]["loss"] < 0.2


def test_the_loop_is_adamw_with_clipping(tmp_path):
    config = replace(CONFIG, clip=0.5)
    model, reference = make_model(), make_model()
    rows = train.fit(model, ROWS, config, tmp_path)
    matrices = [p for p in reference.parameters() if p.dim() == 2]
    vectors = [p for p in reference.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    for step in range(config.steps):
        batch = ROWS.batch(indices_of(step, len(ROWS), config))
        logits = reference(input_ids=batch.input_ids).logits
        loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.step()
        optimizer.zero_grad()
        assert rows[step]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, wanted in reference.named_parameters():
        if not name.endswith(NOISY):
            torch.testing.assert_close(model.get_parameter(name), wanted, atol=1e-5, rtol=0)


def test_mean_loss_is_that_of_transformers():
    model = make_model(dropout=0.5).train()
    rows = torch.from_numpy(np.stack(ROWS.rows))
    loss = train.mean_loss(model, ROWS, 3, "no")  # the last is smaller
    assert model.training
    with torch.no_grad():
        assert loss == pytest.approx(model.eval()(input_ids=rows, labels=rows).loss.item())


def test_validation_comes_when_due_and_at_the_end(tmp_path, capsys):
    config = replace(CONFIG, evaluate_every=3, log_every=0)
    model = make_model()
    rows = train.fit(model, ROWS, config, tmp_path, validation=ROWS)
    assert [row["step"] for row in rows] == [3, 6, 8]
    assert rows[-1]["validation_loss"] == train.mean_loss(model, ROWS, config.micro_batch, "no")
    assert f"validation {rows[0]['validation_loss']:.3f}" in capsys.readouterr().out


# However precise


def test_mixed_precision_multiplies_in_bf16_and_sums_in_fp32():
    model, batch = make_model(), ROWS.batch(np.arange(4))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.input_ids).logits
    wanted = cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="sum")
    found = train.summed_loss(model, batch, "bf16")
    assert (found.dtype, found.item()) == (torch.float32, wanted.item())
    plain = train.summed_loss(model, batch).item()
    assert found.item() != plain == pytest.approx(found.item(), rel=1e-2)


def test_sparse_kernels_of_half_precision_train_as_those_of_single(half_kernels, tmp_path):
    losses = {}
    for precision in ("no", "bf16"):
        model = make_model()
        sparse.sparsify(model, 0.75, "16x1", engine="native")
        rows = train.fit(model, ROWS, replace(CONFIG, precision=precision), tmp_path / precision)
        losses[precision] = [row["loss"] for row in rows]
    assert losses["no"] != losses["bf16"] == pytest.approx(losses["no"], rel=5e-3)


def test_an_engine_that_cannot_compute_in_half_precision_is_refused_at_once(half_kernels, tmp_path):
    model = make_model()
    sparse.sparsify(model, 0.75, "unstructured", engine="native")
    with pytest.raises(ValueError, match="engine 'native' cannot .* only where sixteen"):
        train.fit(model, ROWS, replace(CONFIG, precision="bf16"), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_precision_belongs_to_a_run_and_not_to_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "multiplies_bf16", lambda: True)  # most CPUs are refused
    order = ("bf16", "no", "bf16")
    configs = [replace(CONFIG, precision=precision) for precision in order]
    first, plain, again = (
        curve(train.fit(make_model(), ROWS, config, tmp_path / str(i), ROWS))
        for i, config in enumerate(configs)
    )
    assert first == again != plain
    assert plain == curve(train.fit(make_model(), ROWS, CONFIG, tmp_path / "alone"))


def test_mixed_precision_on_most_cpus_is_refused_before_anything_is_written(tmp_path, no_bf16):
    with pytest.raises(ValueError, match="precision='bf16' on a CPU that does not"):
        train.fit(make_model(), ROWS, replace(CONFIG, precision="bf16"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_an_engine_that_the_launcher_brings_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=f"ACCELERATE_USE_{name}=true; leave it out"):
        train.fit(make_model(), ROWS, CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_launcher_chooses_neither_precision_nor_accumulation(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = train.make_accelerator(CONFIG)
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1


# However it is cut


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_equal_the_whole_batch(tmp_path, micro_batch):
    # Answers of unequal length: a mean of means would weigh them wrongly
    config = replace(CONFIG, batch=8, micro_batch=8, lr=1e-3)
    whole = train.fit(make_model(), ANSWERS, config, tmp_path / "whole")
    cut = train.fit(
        make_model(), ANSWERS, replace(config, micro_batch=micro_batch), tmp_path / "cut"
    )
    for one, other in zip(whole, cut, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


def forbid(*_):
    raise AssertionError("masks are equal everywhere and need not be sent")


def fit_in_one_of_two(folder):
    AcceleratorState._reset_state(reset_partial_state=True)  # forked: this is another process
    DistributedDataParallel._sync_buffers = forbid
    train.fit(make_model(sparsity=0.5), ANSWERS, replace(CONFIG, micro_batch=1), folder, ANSWERS)
    assert AcceleratorState().num_processes == 2


def stop_one_of_two(folder):
    AcceleratorState._reset_state(reset_partial_state=True)
    trap = Trap(4, lambda: torch.distributed.get_rank() and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        train.fit(make_model(), trap, replace(CONFIG, micro_batch=1), folder)


def test_two_processes_stop_together(tmp_path):
    debug_launcher(stop_one_of_two, (tmp_path,), num_processes=2)
    assert state(tmp_path)["step/transformer.wte.weight"] == 2


def fit_a_small_batch(folder):
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match="2 processes for a batch of 1; raise the batch"):
        train.fit(make_model(), ROWS, replace(CONFIG, batch=1, micro_batch=1), folder)


def test_a_process_without_examples_is_refused(tmp_path):
    debug_launcher(fit_a_small_batch, (tmp_path,), num_processes=2)


def test_two_processes_equal_one_that_accumulates(tmp_path):
    config = replace(CONFIG, micro_batch=1)
    debug_launcher(fit_in_one_of_two, (tmp_path / "two",), num_processes=2)
    train.fit(make_model(sparsity=0.5), ANSWERS, config, tmp_path / "one", ANSWERS)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        if not name.endswith(NOISY):
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)


# However it stops

KINDS = {
    "plain": {},
    "accumulating": {"micro_batch": 3},
    "dropping out": {"dropout": 0.2},
    "sparse": {"sparsity": 0.75},
    "density scaling": {"sparsity": 0.6, "density_scaling": True},
    "all of it": {"micro_batch": 3, "dropout": 0.2, "sparsity": 0.75, "density_scaling": True},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    """Function that makes a model, and a configuration."""
    options = dict(request.param)
    of_the_loop = options.keys() & {"micro_batch", "density_scaling"}
    chosen = {name: options.pop(name) for name in of_the_loop}
    return lambda: make_model(**options), replace(CONFIG, **chosen)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_it_never_stopped(tmp_path, kind, sent):
    make, config = kind
    rows = train.fit(make(), ROWS, config, tmp_path / "whole")
    handler = signal.getsignal(sent)
    calls = 4 * -(-config.batch // config.micro_batch)
    trap = Trap(calls, lambda: signal.raise_signal(sent))
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4; call again to go on"):
        train.fit(make(), trap, config, tmp_path / "cut")
    assert signal.getsignal(sent) is handler
    resumed = train.fit(make(), ROWS, config, tmp_path / "cut")
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert curve(resumed) == curve(rows)


def test_a_stop_in_the_last_step_is_heard_and_nothing_is_lost(tmp_path):
    rows = train.fit(make_model(), ROWS, CONFIG, tmp_path / "whole")
    calls = CONFIG.steps * -(-CONFIG.batch // CONFIG.micro_batch)
    trap = Trap(calls, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {CONFIG.steps}; call again"):
        train.fit(make_model(), trap, CONFIG, tmp_path / "cut")
    assert curve(train.fit(make_model(), trap, CONFIG, tmp_path / "cut")) == curve(rows)
    assert trap.left == 0  # found, not trained
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


@pytest.mark.parametrize("tail", ["", '{"step": 5, "lo'], ids=["whole lines", "half a line"])
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path, kind, tail):
    make, config = kind
    rows = train.fit(make(), ROWS, config, tmp_path / "whole")
    calls = 5 * -(-config.batch // config.micro_batch)
    with pytest.raises(Killed):
        train.fit(make(), Trap(calls, kill), config, tmp_path / "cut")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    assert len(metrics.read_text().splitlines()) == 4  # ahead of the checkpoint of step 3
    with open(metrics, "a") as file:
        file.write(tail)
    resumed = train.fit(make(), ROWS, config, tmp_path / "cut")
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert curve(resumed) == curve(rows)


def test_a_finished_run_is_not_trained_again(tmp_path):
    rows = train.fit(make_model(), ROWS, CONFIG, tmp_path)
    model = make_model()
    assert train.fit(model, Trap(1, kill), CONFIG, tmp_path) == rows
    assert torch.equal(model.lm_head.weight, state(tmp_path)["parameter/transformer.wte.weight"])


def test_removed_weights_and_their_moments_stay_zero(tmp_path):
    model = make_model(sparsity=0.75)
    train.fit(model, ROWS, CONFIG, tmp_path)
    tensors = state(tmp_path)
    for name, mask in sparse.masks_of(model).masks.items():
        for part in ("parameter", "exp_avg", "exp_avg_sq"):  # a checkpoint has what is kept only
            assert f"{part}/{name}" not in tensors
            held = tensors[f"{part}/{name.replace('.weight', '.values')}"]
            assert held.numel() == int(mask.sum()) and held.all()


# What it refuses


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_a_loss_that_explodes_keeps_the_last_checkpoint(tmp_path, where):
    model = make_model()
    weight = model.transformer.ln_f.weight

    def explode():
        if where == "weight":
            weight.data.fill_(math.nan)
        else:
            weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(FloatingPointError, match=r"step 5 has loss .*: lower lr=0\.01 or raise"):
        train.fit(model, Trap(5, explode), CONFIG, tmp_path / "cut")
    train.fit(make_model(), ROWS, CONFIG, tmp_path / "cut")
    train.fit(make_model(), ROWS, CONFIG, tmp_path / "whole")
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


def test_a_second_job_in_one_folder_is_refused_and_the_first_goes_on(tmp_path):
    def meet():
        with pytest.raises(RuntimeError, match="one job at a time .*: wait for it, or choose ano"):
            train.fit(make_model(), ROWS, CONFIG, tmp_path)

    rows = train.fit(make_model(), Trap(5, meet), CONFIG, tmp_path)
    assert curve(rows) == curve(train.fit(make_model(), ROWS, CONFIG, tmp_path / "alone"))


@pytest.mark.parametrize(
    "change", [{"lr": 1.0}, {"seed": 1}, {"steps": 9}, {"density_scaling": True}]
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, change):
    train.fit(make_model(sparsity=0.5), ROWS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="belongs to a run of .* choose another folder"):
        train.fit(make_model(sparsity=0.5), ROWS, replace(CONFIG, **change), tmp_path)


def test_checkpoints_that_are_older_than_density_scaling_are_gone_on_from():
    assert train._fingerprint(CONFIG, 10, "") == "dc30b8fcd410"
    assert train._fingerprint(replace(CONFIG, density_scaling=True), 10, "") != "dc30b8fcd410"


def test_a_checkpoint_of_other_masks_is_refused(tmp_path):
    train.fit(make_model(sparsity=0.75), ROWS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="belongs to a run of"):
        train.fit(make_model(sparsity=0.5), ROWS, CONFIG, tmp_path)


def test_a_mask_that_does_not_hold_is_noticed_at_once(tmp_path):
    model = make_model(sparsity=0.75)
    masks = sparse.masks_of(model)
    sparse.densify(model).sparse_masks = masks
    with pytest.raises(RuntimeError, match="removed weights stay exactly zero"):
        train.fit(model, Trap(2, kill), CONFIG, tmp_path)


def test_only_what_trains_is_optimized():
    model = make_model()
    model.transformer.wte.requires_grad_(False)
    decayed, plain = train.make_optimizer(model, CONFIG).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (CONFIG.weight_decay, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in plain["params"]} == {1}
    held = {id(p) for p in decayed["params"] + plain["params"]}
    assert held == {id(p) for p in model.parameters()} - {id(model.transformer.wte.weight)}
