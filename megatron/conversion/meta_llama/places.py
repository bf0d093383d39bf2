"""Where the parameters of ours lie in Meta's files of a Llama model.

The ranks have rows of the query, key, value, gate (`w1`), up (`w3`) and output matrices, columns of `wo` and `w2`, and all of the norms.
Rotations there turn neighbouring channels, so queries and keys have their rows in another order than ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron.conversion.mapping.packing import Cut, gate_and_up, separate_interleaved_heads, whole

EMBEDDING, OUTPUT = "tok_embeddings.weight", "output.weight"


@dataclass(frozen=True)
class Place:
    """theirs: tensors that hold one parameter of ours; dim: along which the ranks have parts of them, None: all of it; cut: where our rows are."""

    theirs: tuple[str, ...]
    dim: int | None
    cut: Cut = whole


def places(layers: int, embedding_dim: int, *, is_tied: bool) -> Iterator[tuple[str, Place]]:
    """The place of each parameter. embedding_dim: along which the embedding is cut."""
    yield "0.word_embeddings.weight", Place((EMBEDDING,), embedding_dim)
    for layer in range(layers):
        theirs, ours = f"layers.{layer}", f"{layer + 2}"
        projections = tuple(f"{theirs}.attention.w{which}.weight" for which in "qkv")
        gated = tuple(f"{theirs}.feed_forward.w{which}.weight" for which in "13")
        yield f"{ours}.input_layernorm.scale", Place((f"{theirs}.attention_norm.weight",), None)
        yield f"{ours}.attention.query_key_value.weight", Place(projections, 0, separate_interleaved_heads)
        yield f"{ours}.attention.dense.weight", Place((f"{theirs}.attention.wo.weight",), 1)
        yield f"{ours}.post_attention_layernorm.scale", Place((f"{theirs}.ffn_norm.weight",), None)
        yield f"{ours}.mlp.linear1.weight", Place(gated, 0, gate_and_up)
        yield f"{ours}.mlp.linear2.weight", Place((f"{theirs}.feed_forward.w2.weight",), 1)
    yield f"{layers + 3}.norm.scale", Place(("norm.weight",), None)
    if not is_tied:
        yield f"{layers + 4}.final_linear.weight", Place((OUTPUT,), 0)
