"""Optimizer states of GPT-NeoX 1, whose files do not say what is where; and what is said of states that cannot be had whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.loading.fit import check_fit
from megatron.conversion.legacy.optimizer.source import NeoXState
from megatron.conversion.legacy.source import NeoXSource
from megatron.model.spec import BuildContext
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.legacy.neox_files import cut_for_rank, write_neox
from tests.unit.conversion.legacy.optimizer.zero_states import cut_stages, write_engine_file, write_old_zero
from tests.unit.model.builders import VOCAB_SIZE, build_args, build_model, parameters_by_name
from tests.worlds import error_of

KINDS = ("weight", "exp_avg", "exp_avg_sq")
ROWS = 64  # of the vocabulary, with padding
TIED = {"no_weight_tying": False}
GATED = {"no_weight_tying": True, "mlp_type": "llama", "activation": "swiglu"}
FIRST_OF_SECOND_STAGE = 3

State = dict[str, dict[str, Tensor]]
"""Full tensors by kind and name."""


def full_state(args: NeoXArgs) -> State:
    """Random fp32 weights and moments."""
    model = build_model(args, context=BuildContext(dtype=torch.float32), padded_vocab_size=VOCAB_SIZE)
    generator = torch.Generator().manual_seed(3)
    weights = {name: parameter.detach() for name, parameter in parameters_by_name(model).items()}
    return {
        kind: weights if kind == "weight" else {n: torch.rand(w.shape, generator=generator) for n, w in weights.items()}
        for kind in KINDS
    }


def write_old(
    directory: Path, args: NeoXArgs, state: State, *, tensor_ranks: int = 2, data_ranks: int = 2, run: int = 97
) -> Path:
    """A run of GPT-NeoX 1 on two pipeline stages, in fp16; the folder of its step."""
    halves = {name: weight.half() for name, weight in state["weight"].items()}
    write_neox(directory, args, halves, ranks=tensor_ranks, rows=ROWS, names="dense", step=12)
    folder = directory / "global_step12"
    for rank in range(tensor_ranks):
        cut = {kind: cut_for_rank(args, state[kind], rank, tensor_ranks, rows=ROWS, names="dense") for kind in KINDS}
        names = [name for name in cut["weight"] if not name.endswith("inv_freq")]
        stages = cut_stages(names, FIRST_OF_SECOND_STAGE, tied=not args.no_weight_tying)
        for stage, own in enumerate(stages):
            model_rank = stage * tensor_ranks + rank
            write_engine_file(folder, model_rank, dp_world_size=data_ranks)
            write_old_zero(folder, model_rank, cut, own, data_ranks=data_ranks, run=run)
    return folder


def open_state(directory: Path, args: NeoXArgs) -> NeoXState:
    return NeoXState(NeoXSource(directory, args, vocab_rows=VOCAB_SIZE), args)


@pytest.mark.parametrize("settings", [TIED, GATED], ids=["tied", "gated"])
@pytest.mark.parametrize("tensor_ranks", [1, 2])
def test_states_that_do_not_say_what_is_where_are_read_to_the_bit(
    tmp_path: Path, settings: dict[str, Any], tensor_ranks: int
) -> None:
    args = build_args(**settings)
    state = full_state(args)
    write_old(tmp_path, args, state, tensor_ranks=tensor_ranks, data_ranks=3)
    source = open_state(tmp_path, args)
    expected = {f"{name}/{kind}": value for kind, values in state.items() for name, value in values.items()}
    assert source.shapes == {name: tuple(value.shape) for name, value in expected.items()}
    for name, value in expected.items():
        assert torch.equal(source.read(name), value), name


def test_a_count_of_steps_that_was_lost_follows_from_those_of_the_run(tmp_path: Path) -> None:
    args = build_args()
    write_old(tmp_path, args, full_state(args))
    source = open_state(tmp_path, args)
    assert source.scalars == {
        "optimizer_step": 12,  # one was skipped, and one made in the beginning
        "loss_scale": 4096.0,
        "loss_scale_iteration": 12,
        "loss_scale_last_overflow": 5,
        "loss_scale_hysteresis": 2,
    }
    samples = 12 * args.train_batch_size
    assert source.run_state == {
        "iteration": 12,
        "consumed_samples": samples,
        "consumed_tokens": samples * args.seq_length,
        "skipped_iterations": 1,
    }
    (remark,) = source.remarks
    assert "had skipped 1 of 12 steps. GPT-NeoX does not count these in its learning rates" in remark


def test_a_checkpoint_without_optimizer_has_its_weights(tmp_path: Path) -> None:
    args = build_args()
    weights = full_state(args)["weight"]
    write_neox(tmp_path, args, weights, rows=ROWS)
    source = open_state(tmp_path, args)
    assert set(source.shapes) == {f"{name}/weight" for name in weights}
    assert source.scalars == {}
    assert source.run_state["iteration"] == 7
    assert source.remarks == []


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite what a file says of the optimizer."""
    content = torch.load(folder / name, weights_only=False)
    change(content["optimizer_state_dict"])
    torch.save(content, folder / name)


def second_moments_away(saved: dict[str, Any]) -> None:
    for group in saved["base_optimizer_state"]:
        for run in group:
            del run["exp_avg_sq"]


FIRST, LAST = ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_1_mp_rank_03_optim_states.pt")
WAY_OUT = "The weights can be loaded without it (no_load_optim: true, or finetune: true to begin a new run with them)"
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a data rank": (lambda folder: (folder / LAST).unlink(), f"lacks files of the optimizer's state: {LAST}"),
    "all last data ranks": (
        lambda folder: [path.unlink() for path in folder.glob("zero_pp_rank_1_*")],
        "lacks files of the optimizer's state: zero_pp_rank_1_mp_rank_00_optim_states.pt",
    ),
    "a stage": (
        lambda folder: [path.unlink() for rank in (2, 3) for path in folder.glob(f"*mp_rank_{rank:02d}_*")],
        "does not fit: the groups of pipeline stage 0 have",
    ),
    "a model rank": (lambda folder: (folder / "mp_rank_03_model_states.pt").unlink(), "lacks mp_rank_03_model_states.pt"),
    "of a larger run": (
        lambda folder: [(folder / path.name.replace("rank_1", "rank_2", 1)).write_bytes(path.read_bytes()) for path in folder.glob("zero_pp_rank_1_*")],
        "holds files of the optimizer's state of 3 data-parallel ranks, and there were 2: remove those of another run",
    ),
    "twice": (
        lambda folder: (folder / f"bf16_{FIRST}").write_bytes(b""),
        f"bf16_{FIRST} and {FIRST} hold the optimizer's state of the same rank in two runs: remove those of one",
    ),
    "stage 3": (lambda folder: changed(folder, FIRST, lambda saved: saved.update(zero_stage=3)), "it is of ZeRO stage 3"),
    "another file of the name": (
        lambda folder: torch.save({"module": {}}, folder / FIRST),
        f"{FIRST} holds no optimizer's state",
    ),
    "no values by name": (
        lambda folder: torch.save([1], folder / "mp_rank_01_model_states.pt"),
        "mp_rank_01_model_states.pt holds a list, not values by name",
    ),
    "unknown": (
        lambda folder: changed(folder, FIRST, lambda saved: [saved.clear(), saved.update(worker_error=1)]),
        "it holds none of the fp32 weights that are known (worker_error)",
    ),
    "malformed": (
        lambda folder: changed(folder, FIRST, lambda saved: saved.update(base_optimizer_state=[3])),
        "it is of no known form, TypeError: 'int' object is not iterable",
    ),
    "partial": (
        lambda folder: changed(folder, FIRST, second_moments_away),
        "is not the same for all parameters: of some exp_avg, exp_avg_sq, weight and of others exp_avg, weight",
    ),
    "other steps": (
        lambda folder: [changed(folder, name, lambda saved, n=n: saved["base_optimizer_state"][0][0].update(step=n)) for n, name in enumerate((FIRST, LAST))],
        "were written after different numbers of steps, [0, 1]",
    ),
    "other lengths": (
        lambda folder: changed(folder, FIRST, lambda saved: saved["local_sub_partitions_of_fp32_groups"][0].__setitem__(0, torch.ones(5))),
        "does not say which of its values is of which parameter, and the order in which GPT-NeoX has them does not fit: the groups of "
        "pipeline stage 0 have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_that_is_not_whole_is_refused(tmp_path: Path, fault: str) -> None:
    plant, sentence = FAULTS[fault]
    args = build_args()
    plant(write_old(tmp_path, args, full_state(args)))
    message = error_of(lambda: open_state(tmp_path, args))
    assert sentence in message
    assert message.endswith(WAY_OUT)


def test_another_optimizer_is_told_by_what_it_keeps(tmp_path: Path) -> None:
    args = build_args()
    folder = write_old(tmp_path, args, full_state(args))
    for path in folder.glob("zero_*"):
        changed(folder, path.name, second_moments_away)
    source = open_state(tmp_path, args)
    wanted = {
        f"{name}/{kind}": value.shape for kind, values in full_state(args).items() for name, value in values.items()
    }
    message = error_of(lambda: check_fit(source.shapes, wanted, description=source.description))
    assert (
        "holds the optimizer state exp_avg, and this optimizer needs exp_avg, exp_avg_sq. Use the optimizer it was trained with"
        in message
    )


def test_values_in_another_order_than_expected_are_found(tmp_path: Path) -> None:
    args = build_args()
    state = full_state(args)
    # As if the modules of a block had another order, which no length shows.
    exchanged = {**state["weight"]}
    first, second = "2.input_layernorm.bias", "2.post_attention_layernorm.bias"
    folder = write_old(tmp_path, args, {**state, "weight": exchanged}, tensor_ranks=1, data_ranks=1)
    changed(folder, FIRST, lambda saved: _exchange(saved, state["weight"][first], state["weight"][second]))
    source = open_state(tmp_path, args)
    assert torch.equal(source.read("2.attention.dense.weight/weight"), state["weight"]["2.attention.dense.weight"])
    message = error_of(lambda: source.read(f"{first}/weight"))
    assert f"its fp32 weights of {first}, found by their place, are not those of the model" in message
    assert message.endswith(WAY_OUT)


def _exchange(saved: dict[str, Any], first: Tensor, second: Tensor) -> None:
    """Exchange two vectors in the group of what is not decayed."""
    runs = saved["local_sub_partitions_of_fp32_groups"][1]
    whole = torch.cat(runs)
    begins = [int((whole.unfold(0, len(value), 1) == value).all(dim=1).nonzero()[0]) for value in (first, second)]
    for begin, value in zip(begins, (second, first), strict=True):
        whole[begin : begin + len(value)] = value
    saved["local_sub_partitions_of_fp32_groups"][1] = list(whole.split([len(run) for run in runs]))


def test_biases_that_were_added_up_cannot_go_on(tmp_path: Path) -> None:
    args = build_args(gpt_j_residual=True)
    write_old(tmp_path, args, full_state(args))
    message = error_of(lambda: open_state(tmp_path, args))
    assert "with gpt_j_residual and 2 tensor-parallel ranks GPT-NeoX trained 2 biases" in message
    assert message.endswith(WAY_OUT)


def test_one_tensor_rank_has_no_biases_to_add_up(tmp_path: Path) -> None:
    args = build_args(gpt_j_residual=True)
    state = full_state(args)
    write_old(tmp_path, args, state, tensor_ranks=1)
    assert torch.equal(
        open_state(tmp_path, args).read("2.attention.dense.bias/exp_avg"), state["exp_avg"]["2.attention.dense.bias"]
    )
