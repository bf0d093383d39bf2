"""What became of the keys of older GPT-NeoX releases (2021 to 2024): one line a key.

A rule turns a value into today's keys and values. An empty result means that there is nothing to write any more, None that the value
is still right as it is, and `Refused` that the wish cannot be met.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron.neox_arguments.derive import derive_lr_decay_steps
from megatron.neox_arguments.keys.types import read_number

Lookup = Callable[[str], Any]
"""The value of a key ("optimizer.params.lr") in the same configuration, None when it is not given."""

Conversion = Callable[[Any, Lookup], dict[str, Any] | None]


class Refused(Exception):
    """The value asks for something that no key says today; the reason with what to write instead."""


@dataclass(frozen=True)
class Rule:
    """`convert` gives today's keys; `reason` is told with them.

    replaces: the older key outranks today's in the same file. remains: the key itself still exists; older_values: of its values, those
    that are written otherwise today. new_name: the key that has taken the value over unchanged. refusal: what is told about values that
    ask for something.
    """

    convert: Conversion
    reason: str
    replaces: bool = False
    remains: bool = False
    older_values: tuple[Any, ...] = ()
    new_name: str = ""
    refusal: str = ""


def renamed(key: str, reason: str = "the key has a new name") -> Rule:
    """The same value under another key."""
    return Rule(lambda value, _: {key: value}, reason, new_name=key)


def dropped(reason: str) -> Rule:
    """Any value is accepted and means nothing."""
    return Rule(lambda value, _: {}, reason)


def refused_unless(off: tuple[Any, ...], reason: str) -> Rule:
    """Values that ask for nothing are accepted, others refused."""

    def convert(value: Any, _: Lookup) -> dict[str, Any]:
        if read_number(value) in off:
            return {}
        raise Refused(reason)

    return Rule(convert, "this is what happens anyway", refusal=reason)


def changed_values(new: dict[Any, dict[str, Any]], reason: str) -> Rule:
    """Some values of a key that still exists are written otherwise today."""
    return Rule(
        lambda value, _: None if isinstance(value, list | dict) else new.get(read_number(value)),
        reason,
        remains=True,
        older_values=tuple(new),
    )


def _share_of_decay(value: Any, lookup: Lookup) -> dict[str, Any]:
    train_iters, decay_iters = lookup("train_iters"), lookup("lr_decay_iters")
    if not train_iters and not decay_iters:
        raise Refused("give warmup, the share of the decay iterations (it cannot be computed without train_iters)")
    steps = derive_lr_decay_steps(train_iters or 0, decay_iters=decay_iters, decay_fraction=lookup("lr_decay_fraction"))
    return {"warmup": _tidy(read_number(value) / steps)}


def _share_of_peak(value: Any, lookup: Lookup) -> dict[str, Any]:
    peak = lookup("optimizer.params.lr") or lookup("lr")
    if not peak:
        raise Refused("give min_lr, the rate itself (it cannot be computed without optimizer.params.lr)")
    return {"min_lr": _tidy(read_number(value) * peak)}


def _tidy(number: float) -> float:
    """Without the last binary digits, which only come from computing: 6e-05 and not 5.9999999999999995e-05."""
    return float(f"{number:.15g}")


def _key_value_heads(value: Any, lookup: Lookup) -> dict[str, Any]:
    match value:
        case "multiquery":
            return {"num_kv_heads": 1}
        case "multihead":
            return {"num_kv_heads": lookup("num_attention_heads")} if lookup("num_attention_heads") else {}
        case "groupedquery" if lookup("num_kv_heads"):
            return {}
    raise Refused("give num_kv_heads, the number of key/value heads")


_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "relu": "reglu"}


def _llama_mlp(value: Any, lookup: Lookup) -> dict[str, Any]:
    """Widths: the given one, else 8/3 of the hidden size up to a multiple of 256. A gated MLP of width w is written as 3w today."""
    if value == "regular":
        return {}
    activation, hidden = lookup("activation") or "gelu", lookup("hidden_size")
    gated = activation if activation in _GATED.values() else _GATED.get(activation)
    if value != "llama" or gated is None or not hidden:
        raise Refused("give a gated activation such as swiglu, and intermediate_size: 3 times the width of the MLP")
    width = lookup("intermediate_size") or math.ceil(int(8 * hidden / 3) / 256) * 256
    return {"activation": gated, "intermediate_size": 3 * width, "use_bias_in_mlp": False}


def _geglu(value: Any, lookup: Lookup) -> dict[str, Any]:
    if not value:
        return {}
    if not lookup("hidden_size"):
        raise Refused("give activation: geglu and intermediate_size: 12 times hidden_size")
    return {"activation": "geglu", "intermediate_size": 12 * lookup("hidden_size")}


def _sparsity(value: Any, _: Lookup) -> dict[str, Any]:
    layers = {"all": ["sparse_variable"], "interspersed": ["global", "sparse_variable"]}
    if value == "none":
        return {}
    if value not in layers:
        raise Refused("give attention_config, the attention type of each layer")
    return {"attention_config": [[layers[value], "all"]]}


def _one_path(value: Any, _: Lookup) -> dict[str, Any] | None:
    if isinstance(value, list) and len(value) == 1:
        return {"data_path": value[0]}
    if isinstance(value, list):
        raise Refused("give train_data_paths, valid_data_paths and test_data_paths")
    return None


def _one_stage(value: Any, _: Lookup) -> None:
    if isinstance(value, list) or value == "all":
        raise Refused("stages are not compared by themselves here; give one of 0, 1, 2, 3")


def _if_true(**keys: Any) -> Conversion:
    """The dots of key paths are written as double underscores."""
    return lambda value, _: {key.replace("__", "."): new for key, new in keys.items()} if value else {}


def _clipping(value: Any, lookup: Lookup) -> dict[str, Any]:
    return (
        {}
        if lookup("gradient_clipping") is not None or lookup("clip_grad") is not None
        else {"gradient_clipping": value}
    )


_EXPERTS = (
    "mixture of experts is described by moe_num_experts, moe_expert_interval, moe_top_k and moe_router_type; remove it"
)
_ENCODER = "models with an encoder were never released; remove it"
_PARAMS = "optimizer.params decided already then"

RULES: dict[str, Rule] = {
    # names
    "save_interval": renamed("checkpoint_factor", "iterations between checkpoints"),
    "gas": renamed("gradient_accumulation_steps"),
    "wandb_name": renamed("wandb_run_name"),
    "label_data_paths": renamed("train_label_data_paths"),
    "feedforward_size": renamed("intermediate_size"),
    "num_experts": renamed("moe_num_experts"),
    "expert_interval": renamed("moe_expert_interval"),
    "genfile": renamed("sample_output_file"),
    "out_seq_length": renamed("maximum_tokens", "the prompt is not counted any more"),
    # other ways to say it
    "warmup_iters": Rule(_share_of_decay, "warmup is the share of the decay iterations"),
    "decay_lr_to": Rule(_share_of_peak, "min_lr is the rate itself, not its share of the peak"),
    "attention_type": Rule(_key_value_heads, "the number of key/value heads says it"),
    "mlp_type": Rule(_llama_mlp, "a gated activation says it; the same width, without biases", replaces=True),
    "geglu": Rule(_geglu, "an activation; the same width, 4 x hidden_size", replaces=True),
    "openai_gelu": Rule(_if_true(bias_gelu_fusion=True), "bias_gelu_fusion chooses the tanh form", replaces=True),
    "sparsity": Rule(_sparsity, "attention_config says it layer by layer"),
    "greedy": Rule(_if_true(temperature=0.0, top_k=0, top_p=0.0), "temperature 0 takes the likeliest", replaces=True),
    "distribute_checkpointed_activations": Rule(_if_true(partition_activations=True), "partition_activations says it"),
    "cpu_optimizer": Rule(_if_true(optimizer__type="cpu_adam"), "the type of the optimizer says it", replaces=True),
    "cpu_torch_adam": Rule(
        _if_true(optimizer__type="cpu_torch_adam"), "the type of the optimizer says it", replaces=True
    ),
    "onebitadam": Rule(_if_true(optimizer__type="onebitadam"), "the type of the optimizer says it", replaces=True),
    "sm3": Rule(_if_true(optimizer__type="sm3"), "the type of the optimizer says it", replaces=True),
    "optimizer.params.max_grad_norm": Rule(_clipping, "gradient_clipping says it"),
    # values of keys that remain
    "output_layer_parallelism": changed_values(
        {"row": {"output_layer_parallelism": "column"}}, "the numbers are the same, the cut is along the vocabulary"
    ),
    "data_impl": changed_values({"lazy": {"data_impl": "cached"}}, "one format, two ways to read it"),
    "data_path": Rule(_one_path, "a single path is no list", remains=True),
    "model_parallel_size": changed_values({0: {"model_parallel_size": 1}}, "one tensor rank is none"),
    "num_samples": changed_values({0: {"num_samples": 1}}, "at least one sample is drawn"),
    # nothing to say any more
    "adam_beta1": dropped(_PARAMS),
    "adam_beta2": dropped(_PARAMS),
    "adam_eps": dropped(_PARAMS),
    "detect_nvlink_pairs": dropped("the order of devices changes no numbers"),
    "zero_allow_untested_optimizer": dropped("every optimizer here works with ZeRO"),
    "load_universal": dropped("every checkpoint fits every layout"),
    "save_iters": dropped("it follows from checkpoint_scale, checkpoint_factor and extra_save_iters"),
    "create_moe_param_group": dropped("parameters are grouped by themselves"),
    # no longer, unless it asked for nothing
    "momentum": refused_unless((0, 0.0), "sm3 is not here; remove it"),
    "no_adamw": refused_unless((False,), "weight decay is decoupled here, as in AdamW; remove it"),
    "apply_residual_connection_post_layernorm": refused_unless(
        (False,), "BERT's order of norm and residual is gone; remove it"
    ),
    "zero_stage": Rule(_one_stage, "", remains=True),
    "moe_type": refused_unless(("megablocks",), _EXPERTS),
    "use_tutel": refused_unless((False,), _EXPERTS),
    "moe_glu": refused_unless((False,), "the activation decides whether experts are gated; remove it"),
    "moe_use_residual": refused_unless((True, False), _EXPERTS),
    "moe_token_dropping": refused_unless((False,), "no token is dropped; remove it"),
    "moe_loss_coeff": refused_unless((0.1,), _EXPERTS),
    "moe_train_capacity_factor": refused_unless((1.0,), "no token is dropped, experts have no capacity; remove it"),
    "moe_eval_capacity_factor": refused_unless((1.0,), "no token is dropped, experts have no capacity; remove it"),
    "moe_min_capacity": refused_unless((4,), "no token is dropped, experts have no capacity; remove it"),
    "moe_expert_parallel_size": refused_unless((1,), _EXPERTS),
    "moe_deepspeed_expert_parallel_size": refused_unless((1,), _EXPERTS),
    "enable_expert_tensor_parallelism": refused_unless((False,), _EXPERTS),
    "model_arch": refused_unless(("gpt2",), _ENCODER),
    "num_encoder_layers": refused_unless((0,), _ENCODER),
    "decoder_seq_length": refused_unless((), _ENCODER),
    "extra_sentinel_tokens": refused_unless((0,), _ENCODER),
    "masked_lm_prob": refused_unless((0.15,), _ENCODER),
    "mean_noise_span_length": refused_unless((3,), _ENCODER),
    "packing": refused_unless((False,), "documents are packed as pack_impl says; remove it"),
    "loss_on_targets_only": refused_unless(
        (False,), "the loss is taken on every token, except by label data; remove it"
    ),
}
"""Rules by older key, or by a key of today some of whose values are older."""
