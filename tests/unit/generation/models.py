"""Models to generate with, and a tokenizer for them."""

from __future__ import annotations

import torch

from megatron.generation.model import InferenceModel
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import single_process_groups
from megatron.tokenizer.char_level import CharLevelTokenizer
from tests.unit.model.builders import VOCAB_SIZE


def inference_model(trained: SequentialModel) -> InferenceModel:
    """A model of one process in the form that generates, with the very weights of `trained`."""
    first = next(trained.parameters())
    hidden_size = trained.get_parameter("0.word_embeddings.weight").shape[1]
    context = BuildContext(dtype=first.dtype, device="meta")
    model = InferenceModel(
        trained.specs,
        context,
        groups=single_process_groups(),
        device=torch.device(first.device),
        hidden_size=hidden_size,
    )
    model.borrow_weights(trained)
    return model


class SmallTokenizer(CharLevelTokenizer):
    """As many tokens as the models have rows, none of which ends a document."""

    @property
    def vocab_size(self) -> int:
        return VOCAB_SIZE

    @property
    def eod(self) -> int:
        return -1
