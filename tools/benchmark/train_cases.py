"""The models that tools/benchmark/train.py trains, in sizes for CPUs, for one GPU, and for tests; and what room a copy of one needs.

Shapes: `b` micro-batch, `s` sequence.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron.conversion.mapping.architecture import Architecture, config_keys
from megatron.conversion.mapping.shapes import parameter_shapes
from megatron.neox_arguments import NeoXArgs
from megatron.planning.model.flops import model_flops_per_token
from tools.benchmark.random_model import pythia

ADAM_BYTES = 16  # of a parameter: fp32 weight, gradient and two moments
LOGIT_BYTES = 16  # of a logit: itself and its gradient, in fp32 and in what they are made of
ACTIVATION_BYTES = 34  # of a hidden value of a block (Korthikanti et al. 2022, without scores)


@dataclass(frozen=True)
class Case:
    """A model and its batch: `rows` sequences (b) of `length` tokens (s), of random tokens."""

    name: str
    architecture: Architecture
    length: int
    rows: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(math.prod(each.shape) for each in parameter_shapes(self.architecture))

    @property
    def flops(self) -> int:
        """Of a step, forward and backward pass, as `megatron.planning.model.flops` counts them."""
        args = NeoXArgs.from_dict({**self.keys(), "precision": "bfloat16"})
        return self.tokens * model_flops_per_token(args, vocab_size=self.architecture.vocab_size)

    @property
    def bytes(self) -> int:
        """About what training it takes in a program that keeps everything, mixed precision and whole logits."""
        size, positions = self.architecture, self.tokens
        blocks = size.num_layers * positions * size.hidden_size * ACTIVATION_BYTES
        return self.parameters * ADAM_BYTES + positions * size.vocab_size * LOGIT_BYTES + blocks

    def keys(self) -> dict[str, Any]:
        """Our keys that say so."""
        return {
            **config_keys(self.architecture),
            "seq_length": self.length,
            "train_micro_batch_size_per_gpu": self.rows,
            "train_iters": 1000,
        }

    def to_json(self) -> dict[str, Any]:
        """What `of_json` reads in another process."""
        return {**asdict(self), "architecture": asdict(self.architecture)}

    def fitting(self, room: int) -> Case:
        """The same with so few rows, one at least, that two copies fit into `room` bytes."""
        rows = self.rows
        while rows > 1 and 2 * replace(self, rows=rows).bytes > room:
            rows //= 2
        return replace(self, rows=rows)


def of_json(values: dict[str, Any]) -> Case:
    """The case that `to_json` gave."""
    return Case(**{**values, "architecture": Architecture(**values["architecture"])})


def llama(layers: int, hidden: int, heads: int, *, kv_heads: int, width: int, rows: int) -> Architecture:
    """The architecture of Llama 3 in a size. width: of the MLP; rows: of the vocabulary."""
    return Architecture(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        mlp_width=width,
        vocab_size=rows,
        max_position_embeddings=8192,
        activation="swiglu",
        norm="rmsnorm",
    )


LLAMA_1B = llama(16, 2048, 32, kv_heads=8, width=8192, rows=128256)
LLAMA_8B_SHAPED = llama(
    8, 4096, 32, kv_heads=8, width=14336, rows=128256
)  # 8 of its 32 layers: one GPU holds their AdamW

CASES = {
    "cpu": (
        Case("NeoX 70M", pythia(6, 512, 8), 512, 4),
        Case("Llama 70M", llama(6, 512, 8, kv_heads=4, width=1408, rows=50304), 512, 4),
    ),
    "cuda": (
        Case("Pythia 1.4B", pythia(24, 2048, 16), 2048, 8),
        Case("Llama 1B", LLAMA_1B, 2048, 8),
        Case("Llama 8B-shaped", LLAMA_8B_SHAPED, 2048, 4),
        Case("Pythia 160M", pythia(12, 768, 12), 2048, 16),
        Case("Llama 1B, 8192", LLAMA_1B, 8192, 2),
        Case("Llama 8B-shaped, 8192", LLAMA_8B_SHAPED, 8192, 1),
    ),
    "tiny": (
        Case("NeoX tiny", pythia(2, 64, 4, rows=512), 64, 2),
        Case("Llama tiny", llama(2, 64, 4, kv_heads=2, width=128, rows=512), 64, 2),
    ),
}
"""By size, those that targets are about first."""
