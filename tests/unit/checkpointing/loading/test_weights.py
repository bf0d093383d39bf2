"""Weights into a plain module, at any tensor-parallel size and vocabulary padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from megatron.checkpointing.loading.weights import load_weights
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group
from megatron.mpu.shard import set_shard, shard_of, sharded_parameter
from tests.unit.checkpointing.fakes import fake_engine, full_values

VOCABULARY, HIDDEN = 13, 4
PARTS = (8, 4, 4)
SHAPES = {
    f"{name}/{kind}": shape
    for name, shape in {
        "0.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "2.query_key_value.weight": (sum(PARTS), HIDDEN),
        "2.dense.weight": (HIDDEN, 8),
        "2.norm.scale": (HIDDEN,),
    }.items()
    for kind in ("weight", "exp_avg")
}


class Model(nn.Module):
    """The kinds of parameters there are: padded vocabulary (twice, tied), fused parts, cut in dimension 1, replicated."""

    def __init__(self, rank: int, size: int, *, padded_vocabulary: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        group = Group(rank, size, tuple(range(size)))

        def parameter(name: str, shape: tuple[int, ...], **options: object) -> nn.Parameter:
            made = sharded_parameter(shape, init=lambda tensor, generator: None, group=group, dtype=dtype, **options)  # type: ignore[arg-type]
            set_shard(made, replace(shard_of(made), name=name))
            made.data.fill_(7)
            return made

        vocabulary = ("0.word_embeddings.weight", (padded_vocabulary, HIDDEN))
        self.embedding = parameter(*vocabulary, dim=0, valid_rows=VOCABULARY)
        self.head = parameter(*vocabulary, dim=0, valid_rows=VOCABULARY)
        self.query_key_value = parameter("2.query_key_value.weight", (sum(PARTS), HIDDEN), dim=0, parts=PARTS)
        self.dense = parameter("2.dense.weight", (HIDDEN, 8), dim=1)
        self.norm = parameter("2.norm.scale", (HIDDEN,))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    values = {name: torch.nan_to_num(tensor, 0.5) for name, tensor in full_values(4, SHAPES).items()}
    save_checkpoint(tmp_path, fake_engine(SHAPES, seed=1).fill(values), iteration=6, run_state={"iteration": 6})
    return tmp_path, values


@pytest.mark.parametrize("padded_vocabulary", [14, 16, 32])
@pytest.mark.parametrize("size", [1, 2])
def test_every_shard_gets_its_rows_and_padding_is_zero(
    saved: tuple[Path, dict[str, torch.Tensor]], size: int, padded_vocabulary: int
) -> None:
    directory, values = saved
    for rank in range(size):
        model = Model(rank, size, padded_vocabulary=padded_vocabulary)
        loaded = load_weights(directory, model)
        assert (loaded.iteration, loaded.run_state) == (6, {"iteration": 6})
        for parameter in model.parameters():
            info = shard_of(parameter)
            logical = values[f"{info.name}/weight"]
            full = torch.zeros(info.full_shape)
            full[: logical.shape[0]] = logical
            assert torch.equal(parameter, info.cut(full))


def test_an_unpadded_vocabulary_loads_as_it_is(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    directory, values = saved
    model = Model(0, 1, padded_vocabulary=VOCABULARY)
    load_weights(directory, model)
    assert torch.equal(model.head, values["0.word_embeddings.weight/weight"])


def test_weights_are_rounded_to_the_dtype_of_the_module(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    directory, values = saved
    model = Model(0, 1, padded_vocabulary=16, dtype=torch.bfloat16)
    load_weights(directory, model)
    assert torch.equal(model.dense, values["2.dense.weight/weight"].bfloat16())


def test_a_module_that_does_not_fit_is_untouched(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    directory, _ = saved
    model = Model(0, 1, padded_vocabulary=16)
    set_shard(model.embedding, replace(shard_of(model.embedding), valid_rows=15))
    set_shard(model.head, replace(shard_of(model.head), valid_rows=15))
    with pytest.raises(
        CheckpointError, match=r"word_embeddings.weight is \[13, 4\] in the checkpoint and \[15, 4\] in the model"
    ):
        load_weights(directory, model)
    assert all(torch.all(parameter == 7) for parameter in model.parameters())
    with pytest.raises(CheckpointError, match="no checkpoint of iteration 5"):
        load_weights(directory, model, iteration=5)


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(
    saved: tuple[Path, dict[str, torch.Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    directory, values = saved
    path = save_checkpoint(directory, fake_engine(SHAPES, seed=2), iteration=7, run_state={}) / "__0_0.distcp"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    model = Model(0, 1, padded_vocabulary=16)
    assert load_weights(directory, model, verification="full").iteration == 6
    assert torch.equal(model.head[:VOCABULARY], values["0.word_embeddings.weight/weight"])
    assert f"{path} has changed since it was written" in caplog.text
