"""Compiled blocks compute what they compute as they are written, by two graphs for all layers of a kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.errors import NeoXError
from megatron.model import compiled
from megatron.model.block import Block, SequentialResidualBlock
from megatron.model.compiled import check_compiler, compile_blocks
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.random_bits import sample_keys
from tests.compiling import GRAPHS_AND_NO_KERNELS, fresh_graphs, graphs, kernels
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model

DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
FLASH = {"attention_config": [[["flash"], "all"]]}
Gradients = dict[str, Tensor]
LONG = pytest.mark.nightly  # C++ is compiled for half a minute

# Rounded once in fp32 and in another order than before: a few units in the last of 24 bits. bf16 has 8, and both ways are as far from what
# the same weights give in fp64.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 0.03}


def variant(name: str, **settings: Any) -> dict[str, Any]:
    return {"num_layers": 3, **VARIANTS[name], **FLASH, **settings}


KERNELS = {
    "NeoX in bf16": (torch.bfloat16, variant("pythia")),
    "Llama with dropout": (torch.float32, variant("llama", **DROPOUT)),
    "norms behind": (torch.float32, variant("olmo2")),
}
CAPTURED = {
    "Llama": (torch.bfloat16, variant("llama")),
    "NeoX with dropout": (torch.float32, variant("pythia", **DROPOUT)),
    "norms behind, over all heads": (torch.float32, variant("olmo2", **DROPOUT)),
    "GPT-J, with one norm": (torch.float32, variant("gpt-j")),
    "ALiBi, explicit": (torch.float32, {"num_layers": 3, **VARIANTS["mpt"], "attention_config": [[["global"], "all"]]}),
    "windows": (torch.float32, variant("sliding window, llama3 scaling, biases of queries, keys and values")),
}


def model_of(settings: dict[str, Any], dtype: torch.dtype, *, compiles: bool) -> SequentialModel:
    recomputes = settings.get("checkpoint_activations", False)
    model = build_model(
        build_args(**settings),
        context=BuildContext(dtype=torch.float32),
        **({"checkpoint_num_layers": 2} if recomputes else {}),
    ).train()
    model = model.to(torch.bfloat16).to(dtype)  # the same weights in every type
    if compiles:
        compile_blocks(model)
    return model


def forward(model: SequentialModel, length: int = 16, document_ids: Tensor | None = None) -> Tensor:
    tokens = torch.arange(2 * length).reshape(2, length) * 7 % VOCAB_SIZE
    positions = torch.arange(length).expand(2, length)
    keys = sample_keys(range(2), seed=1, step=0)
    return model(tokens, positions, document_ids=document_ids, dropout_keys=keys)


def gradients(model: SequentialModel, *lengths: int, **options: Any) -> Gradients:
    """What micro-batches of these lengths add up to."""
    for length in lengths:
        logits = forward(model, length, **options)
        (logits.float() * torch.linspace(-1, 1, logits.shape[-1])).square().mean().backward()
    return {name: weight.grad.double() for name, weight in model.named_parameters() if weight.grad is not None}


def largest_difference(found: Gradients, expected: Gradients) -> float:
    """Of any gradient, as a part of the largest one in its tensor; but for keys' biases, to which softmax is blind."""
    assert found.keys() == expected.keys()
    sizes = {name: float(values.abs().max()) for name, values in expected.items() if "key_layernorm.bias" not in name}
    return max(float((found[name] - expected[name]).abs().max()) / size for name, size in sizes.items())


@pytest.mark.parametrize("name", ["NeoX in bf16", *(pytest.param(name, marks=LONG) for name in list(KERNELS)[1:])])
def test_kernels_give_the_gradients_of_plain_blocks_and_are_found_again(name: str) -> None:
    """Over two micro-batches: gradients that share memory would be added to twice."""
    dtype, settings = KERNELS[name]
    exact = gradients(model_of(settings, torch.float64, compiles=False), 16, 16)
    plain = gradients(model_of(settings, dtype, compiles=False), 16, 16)
    with fresh_graphs():
        found = gradients(model_of(settings, dtype, compiles=True), 16, 16)
        assert graphs() == 2
    assert largest_difference(found, exact) < 1.5 * max(largest_difference(plain, exact), TOLERANCES[torch.float32])
    assert largest_difference(found, plain) < TOLERANCES[dtype]
    with fresh_graphs():  # what another process would find
        again = gradients(model_of(settings, dtype, compiles=True), 16, 16)
        assert kernels() == (0, 4)
    assert all(torch.equal(again[key], found[key]) for key in found)


@pytest.mark.parametrize(
    "name", [*list(CAPTURED)[:3], *(pytest.param(n, marks=pytest.mark.matrix) for n in list(CAPTURED)[3:])]
)
def test_graphs_compute_what_blocks_compute(name: str) -> None:
    dtype, settings = CAPTURED[name]
    plain = gradients(model_of(settings, dtype, compiles=False), 16, 16)
    with fresh_graphs(GRAPHS_AND_NO_KERNELS):
        found = gradients(model_of(settings, dtype, compiles=True), 16, 16)
        assert graphs() == 2, "one in front of the core and one behind it, whatever the number of layers"
    assert largest_difference(found, plain) < TOLERANCES[dtype]


def test_recomputed_blocks_and_documents_need_no_further_graphs() -> None:
    settings = variant("llama", checkpoint_activations=True, **DROPOUT)
    documents = torch.tensor([[0] * 5 + [1] * 11, [0] * 16])
    plain = gradients(model_of(settings, torch.float32, compiles=False), 16, 16, document_ids=documents)
    with fresh_graphs(GRAPHS_AND_NO_KERNELS):
        model = model_of(settings, torch.float32, compiles=True)
        found = gradients(model, 16, 16, document_ids=documents)
        gradients(model, 16, document_ids=documents.flip(0))
        gradients(model, 16)
        assert graphs() == 2
    assert largest_difference(found, plain) < TOLERANCES[torch.float32]


def test_all_lengths_of_a_curriculum_share_a_second_pair_of_graphs() -> None:
    settings, lengths = variant("pythia", num_layers=1, **DROPOUT), (16, 8, 12, 6, 16)
    plain = gradients(model_of(settings, torch.float32, compiles=False), *lengths)
    with fresh_graphs(GRAPHS_AND_NO_KERNELS):
        found = gradients(model_of(settings, torch.float32, compiles=True), *lengths)
        assert graphs() == 4
    assert largest_difference(found, plain) < TOLERANCES[torch.float32]


def test_blocks_run_as_they_are_written_but_in_training() -> None:
    with fresh_graphs(GRAPHS_AND_NO_KERNELS):
        model = model_of(variant("llama"), torch.float32, compiles=True)
        with torch.no_grad():
            forward(model)
            forward(model.eval())
        assert graphs() == 0


def test_a_block_that_is_no_graph_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(self: Block, hidden: Tensor, mixed: Tensor, brought: Any) -> Tensor:
        print("here")
        return hidden + mixed * DropoutKeys(hidden).keys.mean().item()

    monkeypatch.setattr(SequentialResidualBlock, "leave", leave)
    with fresh_graphs(GRAPHS_AND_NO_KERNELS):
        model = model_of(variant("llama"), torch.float32, compiles=True)
        with pytest.raises(
            NeoXError, match=r"^torch cannot compile .*leave of this model \(.+\): set compile to false$"
        ):
            forward(model)


def test_what_torch_compiles_with_is_missed_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        NeoXError, match=r"missing here \(\"no-such-compiler\"\): install g\+\+.* or set compile to false"
    ):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NeoXError, match=r'"triton".*not installed here: pip install triton, or set compile to false'):
        check_compiler(torch.device("cuda"))


def test_a_folder_that_cannot_hold_kernels_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "inside"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        with pytest.raises(
            NeoXError,
            match=rf'cannot keep what it compiles in "{folder}" \(.+\): name a folder .* TORCHINDUCTOR_CACHE_DIR',
        ):
            check_compiler(torch.device("cpu"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new" / "folder"))
    check_compiler(torch.device("cpu"))
