"""The derivation rules applied to a draft, in order: each reads what was written, calls a pure rule of derive.py, sets the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from megatron.neox_arguments import derive
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.sections import LEGACY
from megatron.neox_arguments.reading.aliases import LOSS_SCALE_ALIASES, ZERO_ALIASES
from megatron.neox_arguments.resolving.checks.run import needs_training_keys
from megatron.neox_arguments.resolving.checks.sections import check_sections
from megatron.neox_arguments.resolving.draft import Draft


def _derive_launcher(draft: Draft) -> None:
    hosts = 0 if draft.planning else _count_hosts(draft.hostfile or os.environ.get("DLTS_HOSTFILE"))
    allocated = 0 if draft.planning or hosts else _allocated_nodes()
    if draft.num_nodes > 0:
        hosts, allocated = min(hosts, draft.num_nodes), min(allocated, draft.num_nodes)
    if draft.include:
        chosen = len(draft.include.split("@"))
        hosts, allocated = (0, chosen) if allocated else (chosen, 0)
    launcher = derive.derive_launcher(
        draft.launcher,
        slurm=draft.deepspeed_slurm,
        mpi=draft.deepspeed_mpi,
        hosts=hosts,
        allocated=allocated,
        several=draft.force_multi or (allocated > 0 and not _on_allocated_machine()),
    )
    if draft.deepspeed_slurm or draft.deepspeed_mpi:
        rule = "an older switch names it"
    elif draft.planning and not draft.include:
        rule = "assumed; the hostfile is looked at when a run starts"
    elif launcher == "slurm":
        rule = f"{allocated} machine{'' if allocated == 1 else 's'} in the Slurm allocation"
    else:
        rule = f"{hosts} hosts in use" if hosts > 1 else "one host in use"
    draft.derive("launcher", launcher, rule)


def _allocated_nodes() -> int:
    """Machines of the Slurm allocation that we are in; 0 outside."""
    text = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or "0"
    return int(text) if "SLURM_JOB_ID" in os.environ and text.isdigit() else 0


def _on_allocated_machine() -> bool:
    """Whether we run on a machine of the allocation: the shell of salloc may be one of the login machine, where no daemon of Slurm sets this."""
    return "SLURMD_NODENAME" in os.environ


def _count_hosts(hostfile: str | None) -> int:
    """Hosts named in a hostfile; 0 when there is none (a missing file is reported by a check)."""
    if hostfile is None or not Path(hostfile).is_file():
        return 0
    lines = Path(hostfile).read_text(encoding="utf-8", errors="replace").splitlines()
    return len({line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")})


def _derive_zero(draft: Draft) -> None:
    section = dict(draft.zero_optimization if "zero_optimization" in draft.given else derive.DEFAULT_ZERO)
    has_section = "zero_optimization" in draft.given
    for alias, key in ZERO_ALIASES.items():
        value = derive.derive_alias(
            f"zero_optimization.{key}",
            section.get(key) if has_section else None,
            alias=alias,
            alias_value=draft.written(alias),
        )
        section[key] = derive.DEFAULT_ZERO[key] if value is None else value
    stage = section["stage"]
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise Conflict(("zero_optimization.stage",), "choose one of 0, 1, 2, 3")
    draft.derive("zero_optimization", section, "defaults for what is not given")
    for alias, key in ZERO_ALIASES.items():
        draft.derive(
            alias,
            section[key],
            f"from zero_optimization.{key}" if alias in draft.given or alias == "zero_stage" else None,
        )


def _derive_pipeline(draft: Draft) -> None:
    if draft.pipe_parallel_size == 1 and draft.zero_stage >= 2:
        draft.derive(
            "pipe_parallel_size",
            0,
            "one stage runs without the pipeline engine, which cannot divide gradients (ZeRO 2, 3)",
        )
    draft.derive("is_pipe_parallel", draft.pipe_parallel_size >= 1, "pipe_parallel_size >= 1")


def _derive_batch(draft: Draft) -> None:
    micro = derive.derive_alias(
        "train_micro_batch_size_per_gpu",
        draft.written("train_micro_batch_size_per_gpu"),
        alias="batch_size",
        alias_value=draft.batch_size,
    )
    train, steps = draft.written("train_batch_size"), draft.written("gradient_accumulation_steps")
    data_parallel_size = derive.derive_data_parallel_size(
        draft.global_num_gpus,
        pipe_parallel_size=draft.pipe_parallel_size,
        model_parallel_size=draft.model_parallel_size,
        context_parallel_size=draft.context_parallel_size,
    )
    if micro is None and train is None and not needs_training_keys(draft):
        micro = 1
    sizes = derive.derive_batch_sizes(train, micro, steps, data_parallel_size=data_parallel_size)
    rule = f"train = micro x accumulation x data-parallel size: {sizes.train} = {sizes.micro} x {sizes.accumulation} x {data_parallel_size}"
    draft.derive("train_batch_size", sizes.train, rule)
    draft.derive("train_micro_batch_size_per_gpu", sizes.micro, rule)
    draft.derive("gradient_accumulation_steps", sizes.accumulation, rule)


def _derive_precision(draft: Draft) -> None:
    precision = derive.derive_precision(draft.precision, fp16=draft.fp16, bf16=draft.bf16)
    draft.derive("precision", precision, "what fp16.enabled or bf16.enabled say, else fp32")
    for section, format_name in (("fp16", "fp16"), ("bf16", "bfloat16")):
        given = {key: value for key, value in (getattr(draft, section) or {}).items() if key not in LEGACY[section]}
        enabled = precision == format_name
        draft.derive(section, {**given, "enabled": enabled}, "agrees with precision" if enabled else None)


def _derive_loss_scale(draft: Draft) -> None:
    section = dict(draft.fp16)
    for alias, key in LOSS_SCALE_ALIASES.items():
        value = derive.derive_alias(f"fp16.{key}", section.get(key), alias=alias, alias_value=draft.written(alias))
        if value is not None:
            section[key] = value
            draft.derive(alias, value, f"from fp16.{key}")
    dynamic = draft.precision == "fp16" and not section.get("loss_scale")
    if draft.precision == "fp16" and draft.written("dynamic_loss_scale") not in (None, dynamic):
        fix = "set loss_scale to a number above 0" if dynamic else "set loss_scale to 0"
        raise Conflict(("dynamic_loss_scale", "loss_scale"), f"these do not agree; {fix}, or remove dynamic_loss_scale")
    draft.derive("dynamic_loss_scale", dynamic, "fp16 without a fixed loss_scale")
    draft.derive("fp16", section, "the loss-scale keys belong to it")


def _derive_optimizer(draft: Draft) -> None:
    section = dict(draft.optimizer if "optimizer" in draft.given else {"params": derive.DEFAULT_OPTIMIZER["params"]})
    params = {key: value for key, value in (section.get("params") or {}).items() if value is not None}
    written_type = section.get("type")
    name = derive.derive_alias(
        "optimizer.type",
        None if written_type is None else written_type.lower(),
        alias="optimizer_type",
        alias_value=draft.written("optimizer_type"),
    )
    name = name or "adam"
    written_lr = params.get("lr") if "optimizer" in draft.given else None
    lr = derive.derive_alias("optimizer.params.lr", written_lr, alias="lr", alias_value=draft.written("lr"))
    lr = derive.DEFAULT_OPTIMIZER["params"]["lr"] if lr is None else lr
    decay = derive.derive_alias(
        "optimizer.params.weight_decay",
        params.get("weight_decay"),
        alias="weight_decay",
        alias_value=draft.written("weight_decay"),
    )
    draft.derive("optimizer_type", name, "optimizer.type in lower case")
    draft.derive("lr", float(lr), "optimizer.params.lr")
    if decay is not None:
        draft.derive("weight_decay", float(decay), "optimizer.params.weight_decay")
    draft.derive(
        "optimizer",
        {"type": written_type or name, "params": {**params, "lr": lr}},
        "defaults for what is not given",
    )


def _derive_clipping(draft: Draft) -> None:
    clipping = derive.derive_alias(
        "gradient_clipping",
        draft.written("gradient_clipping"),
        alias="clip_grad",
        alias_value=draft.written("clip_grad"),
    )
    if clipping is not None:
        draft.derive("gradient_clipping", clipping, "from clip_grad")
        draft.derive("clip_grad", clipping, "from gradient_clipping")


def _derive_key_value_heads(draft: Draft) -> None:
    if draft.num_kv_heads is None:
        draft.derive("num_kv_heads", draft.num_attention_heads, "equals num_attention_heads")


def _derive_head_dim(draft: Draft) -> None:
    if draft.head_dim is None:
        head_dim = derive.derive_head_dim(draft.hidden_size, num_attention_heads=draft.num_attention_heads)
        draft.derive("head_dim", head_dim, "hidden_size / num_attention_heads")


def _derive_attention_biases(draft: Draft) -> None:
    if draft.use_bias_in_attn_output is None:
        draft.derive("use_bias_in_attn_output", draft.use_bias_in_attn_linear, "equals use_bias_in_attn_linear")


def _derive_attention(draft: Draft) -> None:
    types = derive.derive_attention_types(draft.attention_config, num_layers=draft.num_layers)
    draft.derive("attention_config", types, "one type a layer")


def _derive_positions(draft: Draft) -> None:
    if draft.max_position_embeddings is None:
        draft.derive("max_position_embeddings", draft.seq_length, "equals seq_length")


def _derive_softmax(draft: Draft) -> None:
    if draft.apply_query_key_layer_scaling:
        draft.derive("attention_softmax_in_fp32", True, "apply_query_key_layer_scaling needs it")


def _derive_communication(draft: Draft) -> None:
    if draft.fp32_allreduce:
        value = derive.derive_alias(
            "communication_data_type", draft.communication_data_type, alias="fp32_allreduce", alias_value="fp32"
        )
        draft.derive("communication_data_type", value, "fp32_allreduce")


def _derive_generation(draft: Draft) -> None:
    kind = derive.derive_text_gen_type(draft.text_gen_type, sample_input_file=draft.sample_input_file)
    draft.derive("text_gen_type", kind, "input-file when sample_input_file is given, else unconditional")


Step = tuple[Callable[[Draft], None], tuple[str, ...]]
"""A rule, and the keys that have no usable value when it fails."""

STEPS_BEFORE_WORLD: tuple[Step, ...] = ((check_sections, ()), (_derive_launcher, ("launcher",)))
"""What must be known of sections before values are taken from them, and what the search for hosts and devices may need."""

STEPS: tuple[Step, ...] = (
    (_derive_zero, ("zero_optimization", *ZERO_ALIASES)),
    (_derive_pipeline, ("is_pipe_parallel",)),
    (_derive_batch, ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")),
    (_derive_precision, ("precision", "fp16", "bf16")),
    (_derive_loss_scale, ("dynamic_loss_scale", *LOSS_SCALE_ALIASES)),
    (_derive_optimizer, ("optimizer", "optimizer_type", "lr", "weight_decay")),
    (_derive_clipping, ("gradient_clipping", "clip_grad")),
    (_derive_key_value_heads, ("num_kv_heads",)),
    (_derive_head_dim, ("head_dim",)),
    (_derive_attention_biases, ("use_bias_in_attn_output",)),
    (_derive_attention, ("attention_config",)),
    (_derive_positions, ("max_position_embeddings",)),
    (_derive_softmax, ()),
    (_derive_communication, ("communication_data_type",)),
    (_derive_generation, ("text_gen_type",)),
)
