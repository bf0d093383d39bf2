"""What is kept for the backward pass under each kind of recomputation, and that none changes a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.model.attention import base
from megatron.model.attention.explicit import explicit_attention
from megatron.model.sequential import SequentialModel
from megatron.planning.model.flops import hardware_flops_per_token, model_flops_per_token
from tests.memory_census import count_saved
from tests.unit.model.builders import build_args, build_model, dropout_keys, parameters_by_name, random_batch

SELECTIVE = {"checkpoint_activations": True, "recompute_granularity": "selective"}
FLASH = {"attention_config": [[["flash"], "all"]]}
DROPOUT = {"attention_dropout": 0.2}
CORES: dict[str, dict[str, Any]] = {
    "explicit": {},
    "grouped, dropping weights": {"num_kv_heads": 2, **DROPOUT},
    "flash, dropping weights": {**FLASH, **DROPOUT},
    "scaled by the layer, in a window": {"apply_query_key_layer_scaling": True, "sliding_window_width": 5},
    "alibi, dropping weights": {"pos_emb": "alibi", **DROPOUT},
    "rotary, apart by documents": {"pos_emb": "rotary", "reset_attention_mask": True, **DROPOUT},
}


def logits_of(model: SequentialModel) -> Tensor:
    tokens, _, _, position_ids = random_batch()
    documents = (position_ids > 6).int()
    logits: Tensor = model(tokens, position_ids, document_ids=documents, dropout_keys=dropout_keys().keys)
    return logits


@pytest.mark.parametrize("core", CORES)
def test_scores_computed_again_are_the_same(core: str) -> None:
    found = []
    for recomputation in ({}, SELECTIVE):
        model = build_model(build_args(**CORES[core], **recomputation))
        logits = logits_of(model)
        logits.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in parameters_by_name(model).items()}
        found.append({"logits": logits.detach(), **gradients})
    expected, again = found
    assert all(torch.equal(again[name], value) for name, value in expected.items())


@pytest.mark.parametrize("core", CORES)
def test_nothing_as_large_as_the_scores_is_kept(core: str) -> None:
    """Two layers of weights (fp64) at least, and before dropping as well as after it."""
    plain, again = (build_model(build_args(**CORES[core], **kind)) for kind in ({}, SELECTIVE))
    scores = 2 * 2 * 4 * 16 * 16 * 8
    kept = count_saved(lambda: logits_of(plain), plain) - count_saved(lambda: logits_of(again), again)
    assert kept >= scores * (2 if "dropping" in core else 1)


def test_only_training_and_only_scores_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(*values: Any, **options: Any) -> Tensor:
        calls.append(1)
        return explicit_attention(*values, **options)

    monkeypatch.setattr(base, "explicit_attention", count)

    def cores(model: SequentialModel) -> int:
        calls.clear()
        logits_of(model).sum().backward()
        return len(calls)

    model = build_model(build_args(**SELECTIVE))
    assert (cores(model), cores(model.eval())) == (4, 2)
    whole = build_args(**{**SELECTIVE, "recompute_granularity": "full"})
    assert cores(build_model(whole)) == 2  # a model is told by its engine to compute blocks again
    assert cores(build_model(build_args(**SELECTIVE, **FLASH))) == 0


def test_the_work_counted_for_it_is_the_work_done() -> None:
    args = build_args(**SELECTIVE)
    done = [flops_of(build_model(build_args(**kind))) for kind in ({}, SELECTIVE)]
    again = hardware_flops_per_token(args, vocab_size=64) - model_flops_per_token(args, vocab_size=64)
    assert done[1] - done[0] == again * 2 * 16


def flops_of(model: SequentialModel) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        logits_of(model).sum().backward()
    return counter.get_total_flops()
