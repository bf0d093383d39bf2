"""Where a key means something else here than in GPT-NeoX, or where its default does. One table; `deepy.py check` tells what applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """given: what is different when the key has a value that `applies`; absent: what is different when it is not given, in a
    configuration to which that `matters`."""

    given: str = ""
    absent: str = ""
    applies: Callable[[Any], bool] = bool
    matters: Callable[[Mapping[str, Any]], bool] = bool


_SCALED_NOW = "each tensor is scaled to fp8 by its own largest value; GPT-NeoX scales it by those of earlier steps"

DIFFERENCES: dict[str, Difference] = {
    "sliding_window_width": Difference("a token sees this many tokens, itself included; GPT-NeoX lets it see one more"),
    "use_qk_layernorm": Difference(
        "queries and keys each have a norm with weights of its own, over the channels of a head; GPT-NeoX has one for both, over the "
        "heads of a tensor rank"
    ),
    "gpt_j_residual": Difference(
        "output biases are added once in every layout; GPT-NeoX adds them once a tensor rank, and leaves the attention out "
        "when use_bias_in_mlp is false"
    ),
    "te_columnparallel": Difference(_SCALED_NOW),
    "te_rowparallel": Difference(_SCALED_NOW),
    "te_mha": Difference(
        "Transformer Engine multiplies in the linear layers of attention, and its core is that of attention_config; GPT-NeoX takes "
        "Transformer Engine's whole attention, whose parameters have other names"
    ),
    "te_layernorm_mlp": Difference(
        "Transformer Engine multiplies in the linear layers of the MLP; GPT-NeoX takes Transformer Engine's norm and MLP in one, "
        "whose parameters have other names"
    ),
    "pos_emb": Difference(
        "scores lose the same for a distance in all layers; GPT-NeoX multiplies it by the layer's number where "
        "apply_query_key_layer_scaling is true, and rounds it in half precision",
        applies=lambda value: value == "alibi",
    ),
    "load": Difference(
        "a missing checkpoint is an error unless load_if_exists is true; GPT-NeoX starts from random weights without a word"
    ),
    "gradient_clipping": Difference(
        given="gradients are clipped; GPT-NeoX keeps 1.0, its own default, from DeepSpeed and does not clip (write 0 for that)",
        absent="gradients are clipped to a norm of 1.0; GPT-NeoX does not clip by default (write 0 for that)",
        applies=lambda value: value == 1.0,
    ),
    "clip_grad": Difference("gradients are clipped to this norm; GPT-NeoX never reads the key"),
    "data_types": Difference(
        absent="gradients accumulate in fp32; GPT-NeoX takes the model's format ({grad_accum_dtype: bf16} for that)",
        matters=lambda values: values["precision"] != "fp32",
    ),
    "train_label_data_paths": Difference(
        "a label is the token itself or -100, anything else is an error; documents without any token to predict are read like "
        "others, which GPT-NeoX leaves out unless pack_impl is packed"
    ),
    "log_dir": Difference(absent='logs are written to "logs"; GPT-NeoX writes none'),
    "launcher": Difference(absent="local on one machine, pdsh on several; GPT-NeoX always takes pdsh"),
    "use_wandb": Difference(absent="Weights & Biases is off; GPT-NeoX switches it on when it finds an API key"),
}
"""Differences from today's GPT-NeoX by key."""

OLDER_DEFAULTS: dict[str, Any] = {
    "attention_dropout": 0.1,
    "hidden_dropout": 0.1,
    "weight_decay": 0.01,
}
"""Defaults of GPT-NeoX from 2021 to 2023, where today's differ."""
