"""Checkpoints of GPT-NeoX of every generation and layout give back the tensors that they were made of, and models that compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import yaml
from torch import Tensor

from megatron.conversion.legacy import layer_files
from megatron.conversion.legacy.source import NeoXSource
from megatron.model.gpt import build_layer_specs
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.legacy.neox_files import Names, write_neox
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model, parameters_by_name
from tests.unit.model.test_oracle import MODELS, PATHS

FP32 = BuildContext(dtype=torch.float32)
LLAMA = VARIANTS["llama"]


def full_tensors(args: NeoXArgs, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of a model, without padding."""
    model = build_model(args, context=BuildContext(dtype=dtype), padded_vocab_size=VOCAB_SIZE)
    return {name: parameter.detach() for name, parameter in parameters_by_name(model).items()}


def read_all(source: NeoXSource) -> dict[str, Tensor]:
    return {name.removesuffix("/weight"): source.read(name) for name in source.shapes}


def assert_same(read: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(read) == set(expected)
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def filled_model(source: NeoXSource, args: NeoXArgs, rows: int, context: BuildContext = FP32) -> SequentialModel:
    model = SequentialModel(build_layer_specs(args, vocab_size=rows, padded_vocab_size=rows), context, seed=None)
    with torch.no_grad():
        for name, parameter in parameters_by_name(model).items():
            parameter.copy_(source.read(f"{name}/weight"))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_what_gpt_neox_saved_computes_what_it_computed(oracle: Path, name: str) -> None:
    folder = oracle / "models" / name
    values = yaml.safe_load((folder / "config.yml").read_text())
    args = NeoXArgs.from_dict({key: value for key, value in values.items() if key not in PATHS})
    sibling = folder / "CKPT_SAME_AS"
    checkpoint = folder / (sibling.read_text().strip() if sibling.exists() else "ckpt")
    source = NeoXSource(checkpoint, args, vocab_rows=1024)
    expected = {key: torch.from_numpy(value) for key, value in numpy.load(folder / "oracle.npz").items()}
    with torch.no_grad():
        logits = filled_model(source, args, 1024)(expected["tokens"], expected["position_ids"])
    torch.testing.assert_close(logits[:2], expected["logits"], atol=1e-5, rtol=0)
    mask = expected["loss_mask"]
    loss = masked_loss_sum(logits, expected["labels"], mask, SINGLE, 1024) / mask.sum()
    torch.testing.assert_close(loss, expected["loss"], atol=2e-6, rtol=0)
    assert source.iteration == 0
    assert source.saved_values["hidden_size"] == 64
    assert source.remarks(args) == []


CASES: list[tuple[str, int, Names, bool]] = [
    ("gpt2", 4, "linear", False),
    ("gpt2", 2, "dense", True),
    ("gpt2 with no biases", 2, "dense", False),
    ("llama", 1, "linear", True),
    ("llama", 2, "linear", False),
    ("llama", 2, "w", True),
    ("llama", 1, "w", False),
    ("llama", 2, "dense", False),
    ("scalenorm, gated with biases", 4, "linear", False),
    ("scalenorm, gated with biases", 2, "w", False),
    ("scalenorm, gated with biases", 4, "engine", True),
    ("pythia", 1, "engine", False),
    ("opt", 4, "engine", False),
]


@pytest.mark.parametrize(("variant", "ranks", "names", "sequential"), CASES)
def test_every_generation_of_names_and_every_layout_is_read_to_the_bit(
    tmp_path: Path, variant: str, ranks: int, names: Names, sequential: bool
) -> None:
    args = build_args(**VARIANTS[variant])
    tensors = full_tensors(args)
    write_neox(tmp_path, args, tensors, ranks=ranks, names=names, rows=64, sequential=sequential)
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    assert source.shapes == {f"{name}/weight": tuple(value.shape) for name, value in tensors.items()}
    assert_same(read_all(source), tensors)
    assert source.iteration == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_stay_as_they_are_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    args = build_args(**LLAMA)
    tensors = full_tensors(args, dtype)
    write_neox(tmp_path, args, tensors, ranks=2, rows=64)
    assert_same(read_all(NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)), tensors)


def test_the_reward_head_is_cut_along_its_inputs(tmp_path: Path) -> None:
    args = build_args(**LLAMA, train_impl="rm")
    tensors = full_tensors(args)
    assert "6.rm_linear.weight" in tensors
    write_neox(tmp_path, args, tensors, ranks=2, rows=64)
    assert_same(read_all(NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)), tensors)


def test_keys_and_values_between_the_queries_are_found(tmp_path: Path) -> None:
    args = build_args(**LLAMA)
    tensors = full_tensors(args)
    old = {"mlp_type": "llama"}
    write_neox(tmp_path / "old", args, tensors, ranks=2, names="w", rows=60, by_query_head=True, settings=old)
    source = NeoXSource(tmp_path / "old", args, vocab_rows=VOCAB_SIZE)
    assert_same(read_all(source), tensors)
    assert any("from between the queries" in remark for remark in source.remarks(args))
    write_neox(tmp_path / "new", args, tensors, names="w")
    remarks = NeoXSource(tmp_path / "new", args, vocab_rows=VOCAB_SIZE).remarks(args)
    assert any("add mlp_type: llama" in remark for remark in remarks)


def test_groups_of_transformer_engine_are_taken_apart(tmp_path: Path) -> None:
    args = build_args(**LLAMA)  # 4 query heads of 8 channels, 2 key heads
    tensors = full_tensors(args)
    of_rank = write_neox(tmp_path, args, tensors, names="engine")[0]
    for layer in (2, 3):
        query, key, value = tensors[f"{layer}.attention.query_key_value.weight"].split((32, 16, 16))
        grouped = torch.cat([query[:16], key[:8], value[:8], query[16:], key[8:], value[8:]])
        content = {name.partition(".")[2]: part for name, part in of_rank.items() if name.startswith(f"{layer}.")}
        content["attention.qkv.weight"] = grouped
        torch.save(content, tmp_path / "global_step7" / f"layer_{layer:02d}-model_00-model_states.pt")
    assert_same(read_all(NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)), tensors)


def test_the_norm_that_gpt_j_tied_leaves_unused_is_no_unknown_tensor(tmp_path: Path) -> None:
    with_both = {**VARIANTS["gpt-j"], "gpt_j_tied": False}
    tensors = full_tensors(build_args(**with_both))
    write_neox(tmp_path, build_args(**with_both), tensors)
    args = build_args(**VARIANTS["gpt-j"])
    used = {name: value for name, value in tensors.items() if "post_attention" not in name}
    assert_same(read_all(NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)), used)


def test_files_of_one_layer_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = build_args(**LLAMA)
    write_neox(tmp_path, args, full_tensors(args), ranks=2, rows=64)
    opened: list[str] = []
    read_pickled = layer_files.read_pickled

    def recording(path: Path, *, trusted: bool) -> Any:
        opened.append(path.name)
        return read_pickled(path, trusted=trusted)

    monkeypatch.setattr(layer_files, "read_pickled", recording)
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    opened.clear()
    for name in source.shapes:
        source.read(name)
    in_order = [(layer, rank) for layer in (0, 2, 3, 5, 6) for rank in (0, 1)]
    assert opened == [f"layer_{layer:02d}-model_{rank:02d}-model_states.pt" for layer, rank in in_order]


def test_names_that_are_not_weights_are_no_tensors(tmp_path: Path) -> None:
    args = build_args()
    write_neox(tmp_path, args, full_tensors(args))
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    for name in ("2.attention.dense.weight/exp_avg", "9.attention.dense.weight/weight"):
        with pytest.raises(KeyError):
            source.read(name)
