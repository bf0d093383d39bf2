"""The model on the page of `deepy.py plan`: parameters, architecture, vocabulary, and what of it is not built."""

from __future__ import annotations

from collections import Counter

from megatron import text
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import padded_rows, stage_layers, stage_tensors
from megatron.planning.model.flops import WITH_MLP
from megatron.planning.model.parameters import count_parameters, layer_shapes
from megatron.planning.study import Study


def model_lines(study: Study) -> list[str]:
    """The section as lines."""
    args, vocabulary = study.args, study.vocabulary
    total = count_parameters(args, vocab_size=vocabulary.size)
    without = total - embedding_parameters(args, vocab_size=vocabulary.size)
    rows = padded_vocab_size(args, vocabulary.size)
    padded = count_parameters(args, vocab_size=rows)
    padding = f"; {padded:,} with padding" if padded != total else ""
    parameters = f"{text.count(total)} ({total:,}{padding}), {text.count(without)} without embeddings"
    if study.given is not None:
        on_rank = parameters_per_rank(args, study.given, vocab_size=vocabulary.size)
        parameters += f", {text.count(on_rank)} in the fullest rank"
    hint = "; give --vocab-size if it is another" if vocabulary.is_assumed else ""
    pairs = [
        ("parameters", parameters),
        ("architecture", architecture(args)),
        ("vocabulary", f"{vocabulary.size:,} entries ({vocabulary.source}), padded to {rows:,} rows{hint}"),
    ]
    if study.resolution.not_built:
        features = ", ".join(dict.fromkeys(missing.feature for missing in study.resolution.not_built))
        pairs.append(("not built yet", f"{features}: train.py refuses this config today, the numbers are for planning"))
    return text.facts(pairs)


def architecture(args: NeoXArgs) -> str:
    """The shape of the model in words."""
    mixers = Counter(args.attention_config)
    types = " and ".join(f"{name} x {number}" if len(mixers) > 1 else name for name, number in mixers.items())
    parts = [f"{args.num_layers} layers", f"hidden {args.hidden_size}", _mixing(args, types)]
    if set(mixers) & set(WITH_MLP):
        experts = f", {args.moe_num_experts} experts ({args.moe_top_k} a token)" if args.moe_num_experts > 1 else ""
        parts.append(f"MLP {args.mlp_width} {args.activation}{experts}")
    parts += [
        args.norm,
        f"{args.pos_emb} positions" if args.pos_emb != "none" else "no positions",
        f"{'untied' if args.no_weight_tying else 'tied'} head",
        f"sequences of {args.seq_length}",
        args.precision,
    ]
    return ", ".join(parts)


def _mixing(args: NeoXArgs, types: str) -> str:
    if not set(args.attention_config) & set(WITH_MLP):
        return f"{types} blocks"
    window = f" in a window of {args.sliding_window_width}" if args.sliding_window_width else ""
    grouped = f" ({args.num_kv_heads} for keys and values)" if args.num_kv_heads != args.num_attention_heads else ""
    return f"{types} attention{window} with {args.num_attention_heads} heads of {args.head_dim}{grouped}"


def embedding_parameters(args: NeoXArgs, *, vocab_size: int) -> int:
    """Parameters of the embedding (with a learned position table) and of an output layer that has its own."""
    ends = [layer for layer in layer_shapes(args, vocab_size=vocab_size) if layer.name in ("embedding", "head")]
    return sum(tensor.elements for layer in ends if layer.tied_to is None for tensor in layer.tensors)


def parameters_per_rank(args: NeoXArgs, layout: Layout, *, vocab_size: int) -> int:
    """Parameters of the rank with most of them, before ZeRO divides any; a tied head on another stage than the embedding is a copy."""
    stages = stage_layers(args, layout, padded_rows(args, layout, vocab_size))
    return max(sum(tensor.local_elements(layout.tensor) for tensor in stage_tensors(layers)) for layers in stages)
