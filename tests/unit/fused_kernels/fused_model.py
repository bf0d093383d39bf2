"""Small models whose every fusion is switched on, or off, and one training step of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from megatron.model.spec import BuildContext
from tests.unit.model.builders import build_args, build_model, dropout_keys, parameters_by_name, random_batch

FUSION = dict.fromkeys(
    (
        *("layernorm_fusion", "rmsnorm_fusion", "rope_fusion", "use_flashattn_swiglu", "bias_dropout_fusion"),
        *("scaled_upper_triang_masked_softmax_fusion", "scaled_masked_softmax_fusion"),
    ),
    True,
)
# bias_gelu_fusion is another function as well as another way to compute it: on in both.
MODELS: dict[str, dict[str, Any]] = {
    "as NeoX": {
        "pos_emb": "rotary",
        "rotary_pct": 0.5,
        "gpt_j_residual": True,
        "bias_gelu_fusion": True,
        "hidden_dropout": 0.1,
        "apply_query_key_layer_scaling": True,
    },
    "as Mistral": {
        "pos_emb": "rotary",
        "norm": "rmsnorm",
        "activation": "swiglu",
        "use_qk_layernorm": True,
        "num_kv_heads": 2,
        "sliding_window_width": 7,
        "use_bias_in_mlp": False,
        "use_bias_in_attn_linear": False,
    },
}


def training_step(name: str, context: BuildContext, *, fused: bool) -> dict[str, Tensor]:
    """The logits and the gradients of all parameters."""
    model = build_model(build_args(**MODELS[name], **(FUSION if fused else {})), context=context).train()
    tokens, _, _, position_ids = (each.to(context.device) for each in random_batch())
    logits = model(tokens, position_ids, dropout_keys=dropout_keys().keys.to(context.device))
    logits.square().mean().backward()
    gradients = {name: each.grad for name, each in parameters_by_name(model).items() if each.grad is not None}
    return {"logits": logits.detach(), **gradients}
