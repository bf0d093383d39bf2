"""What a model is, whatever program holds it: one value for each thing that its weights mean, under the names of our keys.

Keys that are several ways to say the same (`expansion_factor` and `intermediate_size`), or that another key switches off (`rotary_pct`
without rotary positions), are brought to one form, so that two architectures are equal when the models compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from megatron.components import GATED_ACTIVATIONS
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.rope_scaling import defaults_of

_EPSILONS = {"rmsnorm": "rms_norm_epsilon", "scalenorm": "scalenorm_epsilon"}
_SAME_ACTIVATION = {"swish": "silu"}


@dataclass(frozen=True)
class Architecture:
    """Defaults are what a family of models has unless its table says otherwise.

    vocab_size: rows of the vocabulary without padding; mlp_width: inputs of the MLP's second projection; activation: `gelu_tanh` is the
    approximation that `bias_gelu_fusion` asks for; norm_epsilon: of the norm there is.
    """

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    max_position_embeddings: int
    activation: str = "gelu"
    norm: str = "layernorm"
    norm_epsilon: float = 1e-5
    norm_position: str = "pre"
    use_qk_layernorm: bool = False
    qk_layernorm_scope: str = "head"
    gpt_j_residual: bool = False
    gpt_j_tied: bool = False
    pos_emb: str = "rotary"
    rotary_pct: float = 1.0
    rotary_emb_base: int | float = 10000
    rope_scaling: Mapping[str, Any] | None = None
    opt_pos_emb_offset: int = 0
    sliding_window_width: int | None = None
    no_weight_tying: bool = True
    use_bias_in_norms: bool = True
    use_bias_in_attn_linear: bool = False
    use_bias_in_attn_output: bool = False
    use_bias_in_mlp: bool = False
    use_bias_in_output_layer: bool = False
    train_impl: str = "normal"

    @property
    def gated(self) -> bool:
        """Whether the MLP's first projection also gives a gate."""
        return self.activation in GATED_ACTIVATIONS


def architecture_of(args: NeoXArgs, *, vocab_size: int) -> Architecture:
    """The architecture that a configuration asks for. vocab_size: rows of the model's vocabulary, without padding."""
    of_same_name = {field.name for field in fields(Architecture)} & set(type(args).model_fields)
    values = {name: getattr(args, name) for name in of_same_name}
    values |= {"vocab_size": vocab_size, "mlp_width": args.mlp_width, "norm_epsilon": args.norm_epsilon}
    values["train_impl"] = "rm" if args.train_impl == "rm" else "normal"  # all other objectives train a language model
    if args.activation == "gelu" and args.bias_gelu_fusion:
        values["activation"] = "gelu_tanh"
    return _simplified(values)


def build_architecture(values: Mapping[str, Any]) -> Architecture:
    """An architecture from values by name, brought to the one form. Raises CheckpointError when one that has no default is missing, or when no model
    of ours can be so."""
    missing = [name for name in Architecture.__annotations__ if name not in values and not hasattr(Architecture, name)]
    if missing:
        raise CheckpointError(f"the settings of the model lack {', '.join(missing)}")
    architecture = _simplified(values)
    problems = list(_problems(architecture))
    if problems:
        raise CheckpointError(f"this model cannot be built here: {'; '.join(problems)}")
    return architecture


def _problems(architecture: Architecture) -> Iterator[str]:
    """What another program may say and no model of ours can be."""
    heads, kv_heads, window = (
        architecture.num_attention_heads,
        architecture.num_kv_heads,
        architecture.sliding_window_width,
    )
    if kv_heads < 1 or heads % kv_heads:
        yield f"its {kv_heads} key/value heads do not divide its {heads} query heads"
    if window is not None and window < 1:
        yield f"its sliding window is {window} tokens wide"
    rotated = int(architecture.head_dim * architecture.rotary_pct)
    if architecture.head_dim < 1:
        yield f"its {architecture.hidden_size} channels are fewer than its {heads} heads"
    elif architecture.pos_emb == "rotary" and (rotated % 2 or rotated == 0):
        yield f"{rotated} of the {architecture.head_dim} channels of a head are rotated, which must be an even number above 0"


def config_keys(architecture: Architecture) -> dict[str, Any]:
    """The keys of a configuration that ask for this architecture."""
    values = {name: value for name, value in asdict(architecture).items() if value is not None}
    width, epsilon = values.pop("mlp_width"), values.pop("norm_epsilon")
    # Of a gated MLP GPT-NeoX takes a third of the size for each half.
    values["intermediate_size"] = 3 * width if architecture.gated else width
    values[_EPSILONS.get(architecture.norm, "layernorm_epsilon")] = epsilon
    if architecture.activation == "gelu_tanh":
        values |= {"activation": "gelu", "bias_gelu_fusion": True}
    if architecture.rope_scaling is not None:
        values["rope_scaling"] = dict(architecture.rope_scaling)
    return values


def differences(ours: Architecture, theirs: Architecture) -> dict[str, tuple[Any, Any]]:
    """What differs between two architectures, by name."""
    pairs = {field.name: (getattr(ours, field.name), getattr(theirs, field.name)) for field in fields(Architecture)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _simplified(values: Mapping[str, Any]) -> Architecture:
    """The one form of values that may say things which have no effect."""
    kept = dict(values)

    def reset(*names: str) -> None:
        for name in names:
            kept.pop(name, None)

    kept["activation"] = _SAME_ACTIVATION.get(kept.get("activation", "gelu"), kept.get("activation", "gelu"))
    if kept.get("pos_emb", "rotary") != "rotary":
        reset("rotary_pct", "rotary_emb_base", "rope_scaling")
    if kept.get("pos_emb", "rotary") != "learned":
        reset("opt_pos_emb_offset")
    if not kept.get("use_qk_layernorm"):
        reset("qk_layernorm_scope")
    if not kept.get("gpt_j_residual"):
        reset("gpt_j_tied")
    kept["norm"] = kept.get("norm", "layernorm").removeprefix("te_")  # whoever computes it
    if kept["norm"] != "layernorm":
        reset("use_bias_in_norms")  # no other norm has one
    if kept.get("train_impl") == "rm":
        reset("no_weight_tying", "use_bias_in_output_layer")  # there is no output layer
    if kept.get("rope_scaling"):
        defaults = defaults_of(kept["rope_scaling"]["type"])
        kept["rope_scaling"] = {
            key: value for key, value in kept["rope_scaling"].items() if key not in defaults or value != defaults[key]
        }
    else:
        reset("rope_scaling")
    return Architecture(**kept)
