"""Names that existing configs may choose but the menu (`megatron/components.py`) does not offer yet: refused as not supported yet."""

from __future__ import annotations

from megatron.neox_arguments.keys.attention_types import SPARSE, WHOLE_BLOCKS

PLANNED: dict[str, tuple[str, ...]] = {
    "pos_emb": ("sinusoidal", "rpe"),
    "optimizer_type": ("onebitadam", "cpu_adam", "cpu_torch_adam", "sm3", "madgrad_wd", "sgd", "lion", "lamb", "muon"),
    "train_impl": ("dpo", "rm", "kto", "reinforce"),
    "attention_config": (*SPARSE, *WHOLE_BLOCKS),
}
