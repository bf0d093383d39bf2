"""What attention keeps for its backward pass, from the fused projection's output to the input of the output projection."""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.memory.kept_by_norms import NormCost, norm_cost
from megatron.planning.memory.sizes import WIDE, Sizes
from megatron.planning.model.recomputation import has_scores, is_selective

SHORT = 8
"""Tokens of a sequence for each channel of a head up to which a CPU keeps weights in training (megatron/model/attention/flash.py)."""
FEWEST_QUERIES, MOST_QUERIES = 128, 512
"""Of a block (megatron/model/attention/blockwise.py)."""


def attention_bytes(args: NeoXArgs, sizes: Sizes, kind: str, *, is_without_scores: bool = False) -> int:
    """What attention of type `kind` keeps: angles, norms of queries and keys, and its core.

    is_without_scores: of a core that writes scores only what it reads is kept, and its output.
    """
    rotated = args.pos_emb == "rotary"
    tables = 2 * WIDE * sizes.tokens * int(sizes.head_dim * args.rotary_pct) if rotated else 0
    norms = _query_key_norm_bytes(args, sizes) if args.use_qk_layernorm else NormCost(False, 0)
    core = _flash_bytes
    if has_scores(args, kind):
        core = _inputs_of_core_bytes if is_without_scores else _global_bytes
    return tables + norms.bytes + core(args, sizes, keeps_fused=norms.keeps_input)


def _is_moved(args: NeoXArgs) -> bool:
    """Whether queries and keys are no longer views of the fused projection."""
    return args.pos_emb == "rotary" or args.use_qk_layernorm


def _is_reordered(args: NeoXArgs) -> bool:
    """Whether queries no longer lie in memory as the fused projection wrote them, by sequence first.

    Products with angles keep that order; putting rotated and other channels together does not, nor does a norm of each head.
    """
    return (args.pos_emb == "rotary" and args.rotary_pct < 1) or (
        args.use_qk_layernorm and args.qk_layernorm_scope == "head"
    )


def _query_key_norm_bytes(args: NeoXArgs, sizes: Sizes) -> NormCost:
    heads = sizes.heads + sizes.kv_heads
    if args.qk_layernorm_scope == "head":
        return norm_cost(args.norm, sizes, vectors=sizes.tokens * heads, width=sizes.head_dim)
    # Over all heads, everything is computed in fp32: what is divided, what comes of it, and two root mean squares.
    wide = WIDE * sizes.tokens * heads * sizes.head_dim
    statistics = 2 * WIDE * sizes.tokens
    is_view = args.norm == "rmsnorm" and not sizes.is_half
    return NormCost(is_view, wide * (1 if is_view else 2) + statistics)


def _flash_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Attention that keeps no scores: fused projection, moved queries and keys, output, and the logarithm of each row's sum.

    The values are a view of the projection, and so are unmoved queries and keys. The output lies in memory as the queries do: where
    they were reordered, the output projection reads a copy. What context ranks have traded is memory of its own, on the way in and out.
    """
    if goes_by_blocks(args, sizes):
        return _inputs_of_core_bytes(args, sizes, keeps_fused=keeps_fused) + _weights_of_blocks_bytes(args, sizes)
    if _is_unfused(args, sizes):
        return _unfused_bytes(args, sizes, keeps_fused=keeps_fused)
    sums = WIDE * sizes.micro_batch * sizes.heads // sizes.context * sizes.sequence
    fused = sizes.query + 2 * sizes.key
    is_repeated = sizes.device == "cuda" and sizes.is_grouped and args.pos_emb == "alibi"
    repeated = 2 * sizes.query if is_repeated else 0
    if sizes.context > 1:
        return (fused if keeps_fused else 0) + sizes.traded + repeated + 2 * sizes.query + sums
    moved = sizes.query + sizes.key if _is_moved(args) else 0
    outputs = (2 if _is_reordered(args) else 1) * sizes.query
    return fused + moved + repeated + outputs + sums


def mask_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """The mask of distances or of a sliding window that `flash` attention keeps without the flash-attn package, and on a CPU `flex`, unless
    they go by blocks: one for all layers."""
    masked = {"flash"} if sizes.device == "cuda" else {"flash", "flex"}
    if args.attention_dropout or masked.isdisjoint(args.attention_config) or goes_by_blocks(args, sizes):
        return 0
    if args.pos_emb == "alibi":
        return _distance_bytes(args, sizes)
    window = args.sliding_window_width
    return 0 if window is None or window >= sizes.sequence else sizes.number * sizes.sequence**2


def goes_by_blocks(args: NeoXArgs, sizes: Sizes) -> bool:
    """Whether `flash` trains by products over blocks of queries: on a CPU (one without AMX; there it may take torch's kernel)."""
    if sizes.device != "cpu" or args.sdpa_backend != "auto" or args.precision == "fp16":
        return False
    window = args.sliding_window_width
    if args.pos_emb == "alibi" or (window is not None and window < sizes.sequence):
        return True
    return args.precision == "bfloat16" and _is_short(sizes)


def _weights_of_blocks_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """The weights of short sequences, of the keys that a block of queries sees; of others they are computed again."""
    if not _is_short(sizes) or (args.checkpoint_activations and is_selective(args)):
        return 0
    length = sizes.sequence
    window = min(args.sliding_window_width or length, length)
    block = min(max(FEWEST_QUERIES, window // 8), MOST_QUERIES, length)
    weights = 0
    for begin in range(0, length, block):
        end = min(begin + block, length)
        weights += (end - begin) * (end - max(begin + 1 - window, 0))
    return sizes.number * sizes.micro_batch * sizes.heads // sizes.context * weights


def _is_short(sizes: Sizes) -> bool:
    return sizes.sequence <= SHORT * sizes.head_dim


def written_bias_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What attention that writes its scores adds to them for distances, in fp32: one tensor for all layers, which no backward pass needs."""
    if args.pos_emb != "alibi" or not any(has_scores(args, kind) for kind in args.attention_config):
        return 0
    return WIDE * (sizes.scores if args.reset_attention_mask else sizes.scores // sizes.micro_batch)


def _distance_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """A CPU takes fp32 masks beside half precision, and of packed documents each a corner of one; a GPU needs one of every row."""
    if sizes.device == "cpu":
        return WIDE * sizes.scores // sizes.micro_batch
    return sizes.number * (sizes.scores if args.reset_attention_mask else sizes.scores // sizes.micro_batch)


def _is_unfused(args: NeoXArgs, sizes: Sizes) -> bool:
    """Whether torch has no kernel without scores, and the flash-attn package is not there to help.

    On a GPU there is none for grouped heads in fp32 or with a mask. For the mask of distances each key and value is there once a query head.
    """
    is_repeated = args.pos_emb == "alibi"
    is_grouped = sizes.device == "cuda" and sizes.is_grouped and not is_repeated
    return is_grouped and (not sizes.is_half or mask_bytes(args, sizes) > 0)


def _unfused_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Queries and keys scaled, every key and value once a query head, and weights, all of it fp32."""
    operand = WIDE * sizes.tokens * sizes.heads * sizes.head_dim
    values_are_view = not sizes.is_half and not sizes.is_grouped
    kept = sizes.traded if values_are_view and sizes.context > 1 else 0
    if keeps_fused or (values_are_view and sizes.context == 1):
        kept += sizes.query + 2 * sizes.key
    return (2 if values_are_view else 3) * operand + kept + WIDE * sizes.scores + sizes.query


def _inputs_of_core_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Queries, keys and values where they lie (see `_flash_bytes`), the words that dropout draws its masks by, and the output."""
    fused = sizes.query + 2 * sizes.key
    words = WIDE * sizes.scores // sizes.sequence if args.attention_dropout else 0
    if sizes.context > 1:
        return (fused if keeps_fused else 0) + sizes.traded + words + sizes.query
    moved = sizes.query + sizes.key if _is_moved(args) else 0
    return fused + moved + words + sizes.query


def _global_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Scaled queries, keys and values as the products keep them, the mask, the weights before and after dropout, and the output.

    Dropout keeps a word for each row of weights, by which it draws their mask again.
    """
    fused = sizes.query + 2 * sizes.key
    # Rows and heads of what was traded, or is grouped, do not lie evenly in memory: of several rows, the products read copies of keys and values.
    if sizes.context > 1:
        traded = sizes.traded if sizes.micro_batch == 1 else sizes.traded - sizes.query
        operands = sizes.query + traded + (fused if keeps_fused else 0)
    elif sizes.is_grouped and sizes.micro_batch > 1:
        operands = sizes.query + 2 * sizes.key + (fused if keeps_fused else 0)
    else:
        operands = sizes.query + fused + (sizes.key if _is_moved(args) else 0)
    weights = sizes.number * sizes.scores
    has_distances = args.pos_emb == "alibi"
    if (args.apply_query_key_layer_scaling or has_distances) and sizes.is_half:
        weights += WIDE * sizes.scores
    if args.attention_dropout:
        weights += sizes.number * sizes.scores + WIDE * sizes.scores // sizes.sequence
    mask = 0 if has_distances else sizes.sequence**2  # of a sum nothing is kept
    return operands + mask + weights + sizes.query
