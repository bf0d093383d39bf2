"""Where GPT-NeoX computed something else from the same weights than we do, in words: for the warnings of whoever loads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from megatron.neox_arguments import NeoXArgs

IS_OLD = "mlp_type"
"""A setting that GPT-NeoX had until September 2024: a run that was saved with it is older."""


def differing_computations(
    args: NeoXArgs, saved: Mapping[str, Any], *, ranks: int, has_attention_bias: bool
) -> Iterator[str]:
    """Sentences. saved: the settings that the run was saved with; ranks: of tensor parallelism; has_attention_bias: the output projection of
    attention has one."""
    window = args.sliding_window_width
    if window is not None and saved.get("sliding_window_width", window) == window:
        yield (
            f"GPT-NeoX keeps one key more than sliding_window_width says, and ours as many: set sliding_window_width: {window + 1} "
            "to attend to what this model was trained with"
        )
    if args.gpt_j_residual and ranks > 1 and (has_attention_bias or args.use_bias_in_mlp):
        yield (
            f"with gpt_j_residual GPT-NeoX adds the biases behind attention and MLP once on each of its {ranks} tensor-parallel ranks: their "
            "sum is loaded, which is what the model computed"
        )
    if args.gpt_j_residual and not args.use_bias_in_mlp:
        yield (
            "with gpt_j_residual and use_bias_in_mlp: false GPT-NeoX leaves out the output of attention (a defect of it), so this model was "
            "trained without attention; ours adds it"
        )
    if args.pos_emb == "alibi" and saved.get("apply_query_key_layer_scaling"):
        yield (
            "with apply_query_key_layer_scaling GPT-NeoX multiplies the bias of ALiBi in block l by l, and ours does not: this model "
            "computes something else here than where it was trained"
        )
    if args.norm == "rmsnorm" and IS_OLD in saved:
        yield (
            "GPT-NeoX before April 2025 added rms_norm_epsilon to the root mean square, not to the mean square as ours: an "
            "rms_norm_epsilon of 1e-12 comes closest"
        )


def grouped_rows_remark(args: NeoXArgs, order: str, *, old_mlp: str | None) -> str | None:
    """Which order of queries, keys and values was assumed, where the files are old enough to have the other one. order: a `GroupedRows`; old_mlp:
    the `mlp_type` that names in the files are of, None = of none."""
    if args.num_kv_heads == args.num_attention_heads or old_mlp is None:
        return None
    if order == "blocks":
        return (
            "the rows of query_key_value are taken for [Q | K | V]; if GPT-NeoX of before November 2024 trained this model, each query head is "
            f"followed by its part of the keys and values: add {IS_OLD}: {old_mlp} to the settings in its folder configs to have them read so"
        )
    return f"the saved settings have {IS_OLD}, so GPT-NeoX is from before November 2024: in query_key_value keys and values are taken from between the queries"
