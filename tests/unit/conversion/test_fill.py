"""Tensors of a run filled from a source: exactly the parts that a rank holds, nothing before everything is known to fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.loading.weights import clear_padding, weight_tensors
from megatron.conversion import fill as filling
from megatron.conversion.fill import fill
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from tests.unit.conversion.in_memory import MemorySource, weights_of
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model

WEIGHT = torch.arange(35, dtype=torch.float64).view(7, 5)


def full(*pieces: tuple[tuple[int, int], Tensor]) -> FullTensor:
    return FullTensor((7, 5), tuple(Piece(offsets, tensor) for offsets, tensor in pieces))


def test_pieces_get_their_part_in_their_own_dtype() -> None:
    corner, row, empty = torch.zeros(3, 2, dtype=torch.bfloat16), torch.zeros(1, 5), torch.zeros(0, 5)
    fill(
        {"a/weight": full(((4, 3), corner), ((2, 0), row), ((0, 0), empty))},
        MemorySource({"a/weight": WEIGHT}),
        group=SINGLE,
    )
    assert torch.equal(corner, WEIGHT[4:7, 3:5].bfloat16())
    assert torch.equal(row, WEIGHT[2:3].float())


def test_what_lies_beyond_the_tensor_stays_as_it_is() -> None:
    padded = torch.full((4, 5), -1.0)
    beyond = torch.full((2, 5), -1.0)
    fill({"a/weight": full(((7, 0), beyond), ((5, 0), padded))}, MemorySource({"a/weight": WEIGHT}), group=SINGLE)
    assert torch.equal(padded, torch.cat([WEIGHT[5:].float(), torch.full((2, 5), -1.0)]))
    assert torch.equal(beyond, torch.full((2, 5), -1.0))


def test_only_what_this_rank_holds_is_read_and_once() -> None:
    source = MemorySource({"a/weight": WEIGHT, "b/weight": WEIGHT, "c/weight": WEIGHT})
    upper, lower = torch.zeros(3, 5), torch.zeros(4, 5)
    tensors = {
        "a/weight": full(((0, 0), upper), ((3, 0), lower)),
        "b/weight": full(),
        "c/weight": full(((0, 0), lower)),
    }
    fill(tensors, source, group=SINGLE)
    assert source.reads == ["a/weight", "c/weight"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"b/weight": WEIGHT}, "does not fit the model. 1 parameter in it is not in the model: b. Look there."),
        (
            {"a/weight": WEIGHT.T},
            r"1 parameter has another shape: a is \[5, 7\] in the checkpoint and \[7, 5\] in the model",
        ),
        ({"a/weight": None}, "1 parameter of the model is not in it: a"),
        ({"a/exp_avg": None}, "holds no optimizer state"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_touched(change: dict[str, Tensor | None], sentence: str) -> None:
    held = {"a/weight": WEIGHT, "a/exp_avg": WEIGHT, **change}
    source = MemorySource({name: tensor for name, tensor in held.items() if tensor is not None})
    mine = torch.zeros(7, 5)
    begun: list[str] = []
    with pytest.raises(CheckpointError, match=sentence):
        fill(
            {"a/weight": full(((0, 0), mine)), "a/exp_avg": full(((0, 0), mine))},
            source,
            group=SINGLE,
            advice="Look there.",
            prepare=lambda: begun.append("begun"),
        )
    assert not mine.any()
    assert not begun
    assert not source.reads


def test_a_tied_module_with_padding_is_filled() -> None:
    settings = VARIANTS["gpt2"]
    weights = weights_of(settings)
    model = build_model(build_args(**settings), context=BuildContext(dtype=torch.float32), padded_vocab_size=64)
    fill(weight_tensors(model), MemorySource(weights), group=SINGLE, prepare=lambda: clear_padding(model))
    (embedding,) = (
        p for n, p in model.named_parameters() if n.endswith("word_embeddings.weight") and n.startswith("0.")
    )
    assert torch.equal(embedding[:VOCAB_SIZE], weights["0.word_embeddings.weight/weight"])
    assert not embedding[VOCAB_SIZE:].any()


def test_a_long_load_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(filling, "SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setattr(filling.logger, "info", said.append)
    tensors = {name: full(((0, 0), torch.zeros(7, 5))) for name in ("a/weight", "b/weight")}
    fill(tensors, MemorySource(dict.fromkeys(tensors, WEIGHT)), group=SINGLE)
    assert said == [f"loading a model in memory: {number} of 2 tensors of this rank" for number in (1, 2)]
