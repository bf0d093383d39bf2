"""Weights written as Hugging Face transformers keeps them: exact, complete, in files of a wanted size, one tensor in memory."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.conversion.export.shards import INDEX, ShardReader
from megatron.conversion.export.weights import export_weights, stored_dtype
from megatron.conversion.mapping.choose import family_for
from megatron.conversion.opening import OpenedModel
from megatron.errors import CheckpointError
from tests.unit.conversion.in_memory import MemorySource, opened, weights_of


def export(model: OpenedModel, directory: Path, *, dtype: torch.dtype = torch.float32, shard_bytes: int = 10**9) -> int:
    family = family_for(model.architecture)
    return export_weights(model.source, model.architecture, family, directory, dtype=dtype, shard_bytes=shard_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_files_hold_the_weights_under_their_names(tmp_path: Path, dtype: torch.dtype) -> None:
    model = opened("llama")
    export(model, tmp_path, dtype=dtype)
    written = ShardReader(tmp_path)
    fused = model.source.read("2.attention.query_key_value.weight/weight").to(
        dtype
    )  # [q; k; v], rows of 4, 2 and 2 heads
    for part, rows in {"q": slice(0, 32), "k": slice(32, 48), "v": slice(48, 64)}.items():
        assert torch.equal(written[f"model.layers.0.self_attn.{part}_proj.weight"], fused[rows])
    up, gate = model.source.read("3.mlp.linear1.weight/weight").to(dtype).chunk(2)
    assert torch.equal(written["model.layers.1.mlp.gate_proj.weight"], gate)
    assert torch.equal(written["model.layers.1.mlp.up_proj.weight"], up)
    assert torch.equal(written["lm_head.weight"], model.source.read("6.final_linear.weight/weight").to(dtype))


def test_a_tied_head_is_written_once(tmp_path: Path) -> None:
    model = opened("llama", no_weight_tying=False)
    size = export(model, tmp_path)
    assert "lm_head.weight" not in ShardReader(tmp_path)
    assert size == sum(4 * tensor.numel() for tensor in model.source.tensors.values())


def test_what_is_larger_than_a_file_may_be_is_split_and_indexed(tmp_path: Path) -> None:
    model = opened("llama")
    limit = 20_000
    total = export(model, tmp_path, shard_bytes=limit)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 3
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == total
    assert {name: path.name for name, path in ShardReader(tmp_path)._files.items()} == index["weight_map"]
    for path in tmp_path.glob("*.safetensors"):
        content = path.read_bytes()
        assert len(content) - 8 - int.from_bytes(content[:8], "little") <= limit


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    model = opened("llama")
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    class Counting(MemorySource):
        def read(self, name: str) -> Tensor:
            nonlocal most
            tensor = self.tensors[name].clone()
            alive.add(tensor)
            most = max(most, len(alive))
            return tensor

    export(replace(model, source=Counting(model.source.tensors)), tmp_path, shard_bytes=20_000)
    assert most == 1


def test_each_weight_is_read_once_and_optimizer_state_never(tmp_path: Path) -> None:
    model = opened("llama")
    tensors = dict(model.source.tensors)
    source = MemorySource({**tensors, "2.attention.dense.weight/exp_avg": torch.zeros(32, 32)})
    export(replace(model, source=source), tmp_path)
    assert sorted(source.reads) == sorted(tensors)


def test_a_value_that_half_precision_cannot_hold_is_named(tmp_path: Path) -> None:
    model = opened("llama")
    model.source.tensors["2.mlp.linear1.weight/weight"][-1, 3] = -70000.0
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.mlp\.gate_proj\.weight has a value of 70000, beyond"):
        export(model, tmp_path, dtype=torch.float16)
    with pytest.raises(CheckpointError, match="choose another --precision, such as bf16"):
        export(model, tmp_path, dtype=torch.float16)
    export(model, tmp_path, dtype=torch.bfloat16)


def test_weights_that_are_infinite_already_are_kept(tmp_path: Path) -> None:
    model = opened("llama")
    model.source.tensors["5.norm.scale/weight"][:2] = torch.tensor([float("inf"), float("nan")])
    export(model, tmp_path, dtype=torch.float16)
    assert ShardReader(tmp_path)["model.norm.weight"][:2].isfinite().sum() == 0


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("2.attention.dense.bias/weight", (32,), "has 2.attention.dense.bias, which the settings know nothing of"),
        ("6.final_linear.weight/weight", None, "lacks 6.final_linear.weight, which the settings ask for"),
        ("6.final_linear.weight/weight", (64, 32), r"of shape \[64, 32\], and the settings ask for \[59, 32\]"),
    ],
)
def test_tensors_that_are_not_those_of_the_settings_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    model = opened("llama")
    tensors = {**model.source.tensors, name: torch.zeros(shape or ())}
    if shape is None:
        del tensors[name]
    with pytest.raises(CheckpointError, match=message):
        export(replace(model, source=MemorySource(tensors)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ShardReader.__getitem__

    def damaged(self: ShardReader, name: str) -> Tensor:
        tensor = read(self, name)
        if name == "model.layers.1.self_attn.k_proj.weight":
            tensor.view(-1)[5] = torch.nextafter(tensor.view(-1)[5], torch.tensor(9.0))
        return tensor

    monkeypatch.setattr(ShardReader, "__getitem__", damaged)
    with pytest.raises(CheckpointError, match=r"3\.attention\.query_key_value\.weight is read back otherwise"):
        export(opened("llama"), tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match=r"needs 77,184 bytes for the weights, and its disk has 1,000 left"):
        export(opened("llama"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_stored_dtype_is_that_of_matrices() -> None:
    tensors = {name: tensor.half() if tensor.dim() == 2 else tensor for name, tensor in weights_of({}).items()}
    assert stored_dtype(MemorySource(tensors)) == torch.float16
