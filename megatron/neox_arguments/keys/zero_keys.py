"""The keys of `zero_optimization`, as DeepSpeed 0.19.8 reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Section, Texts


class OffloadOptimizerKeys(Group):
    """Where optimizer states are kept instead of on the device."""

    device: Literal["none", "cpu", "nvme"] = "none"
    """Where optimizer states lie: `none` is the device itself, `cpu` host memory, where torch's optimizer then updates them (nothing is
    compiled); `nvme`, a disk, is not supported."""

    nvme_path: str | None = None
    """Directory of the disk, for device nvme."""

    buffer_count: Integer = Field(4, ge=0)
    """Buffers for transfers from and to the disk: at least as many as a parameter has states (4 with Adam)."""

    pin_memory: bool = True
    """Keep host copies in page-locked memory: faster transfers, memory that cannot be swapped out."""

    pipeline_read: bool = False
    """Read the next piece from the disk while the present one is computed."""

    pipeline_write: bool = False
    """Write the previous piece to the disk while the present one is computed."""

    fast_init: bool = False
    """Set the states on the disk up faster at the start."""

    ratio: Number = Field(1.0, ge=0, le=1)
    """Share of the states that is moved (stage 3 only)."""

    super_offload: bool = False
    """Use the variant for CPUs and GPUs on one chip (stage 3 only)."""

    cpuadam_cores_perc: Number = Field(0.8, ge=0, le=1)
    """With super_offload: share of the CPU cores that the step may use."""


class OffloadParamKeys(Group):
    """Where weights are kept instead of on the device (stage 3 only)."""

    device: Literal["none", "cpu", "nvme"] = "none"
    """Where weights lie between their uses: `none` is the device itself, `cpu` host memory, `nvme` a disk."""

    nvme_path: str | None = None
    """Directory of the disk, for device nvme."""

    buffer_count: Integer = Field(5, ge=0)
    """Buffers for transfers from and to the disk."""

    buffer_size: Integer = Field(100_000_000, ge=0)
    """Elements of one such buffer."""

    max_in_cpu: Integer = Field(1_000_000_000, ge=0)
    """With device nvme: elements that stay in host memory."""

    pin_memory: bool = True
    """Keep host copies in page-locked memory: faster transfers, memory that cannot be swapped out."""


class ZeroKeys(Group):
    """What data-parallel ranks divide among themselves, and how they exchange it."""

    stage: Integer = Field(0, ge=0, le=3)
    """0 keeps everything on every data-parallel rank, 1 divides optimizer states, 2 also gradients, 3 also weights. Each step saves memory;
    3 sends the weights around in every pass. DeepSpeed runs 0 as 1, which gives the same numbers. 2 and 3 do not work with more than one
    pipeline stage, nor without DeepSpeed."""

    reduce_bucket_size: Integer = Field(500_000_000, ge=1)
    """Gradient elements reduced at a time. Smaller needs less memory for the buffer, and more messages. Without DeepSpeed the default is
    40,000,000, there is no buffer, and smaller ones set out earlier in the backward pass."""

    allgather_bucket_size: Integer = Field(500_000_000, ge=1)
    """Weight elements gathered at a time after a step. Smaller needs less memory for the buffer, and more messages."""

    overlap_comm: bool = Field(DERIVED)
    """Reduce gradients while the backward pass still runs: faster, and a second buffer. Default: only at stage 3,
    and always without DeepSpeed, which then needs no buffer."""

    contiguous_gradients: bool = False
    """Copy gradients into one buffer as they appear, against fragmented memory. Needed when memory is nearly full."""

    reduce_scatter: bool = True
    """Send every rank only the gradients it updates instead of all of them."""

    allgather_partitions: bool = True
    """Collect updated weights in one gathering instead of one broadcast from each rank."""

    use_multi_rank_bucket_allreduce: bool = True
    """Reduce the buckets of several ranks in one message: good for small models on many devices."""

    round_robin_gradients: bool = False
    """Spread the copying of gradients to host memory over the ranks, when optimizer states are offloaded."""

    compute_grad_norm: bool = True
    """Compute the norm of all gradients in a step. Clipping and the log need it."""

    parameter_alignment: bool = False
    """Start every weight at a multiple of 16 bytes in the flat buffers, which makes them longer."""

    ignore_unused_parameters: bool = True
    """Go on when a weight gets no gradient (stage 2) instead of stopping."""

    load_from_fp32_weights: bool = True
    """Start the optimizer's fp32 copies from those of a checkpoint of DeepSpeed's instead of from the weights."""

    elastic_checkpoint: bool = False
    """A format of DeepSpeed's own checkpoints, which are not used here."""

    offload_optimizer: Section | None = None
    """Keep optimizer states, and the gradients they are updated by, in host memory: much less memory of the device, slower steps. Works
    at every stage, with pipelines and in every precision; checkpoints are the same."""

    offload_param: Section | None = None
    """Keep weights in host memory or on a disk (stage 3)."""

    sub_group_size: Integer = Field(1_000_000_000, ge=0)
    """Stage 3: elements updated at a time."""

    stage3_prefetch_bucket_size: Integer = Field(50_000_000, ge=0)
    """Stage 3: elements fetched ahead of their use. Larger hides more of the exchange and takes more memory."""

    stage3_param_persistence_threshold: Integer = Field(100_000, ge=0)
    """Stage 3: weights with fewer elements stay whole on every rank, which saves many small messages."""

    stage3_model_persistence_threshold: Integer = Field(9_223_372_036_854_775_807, ge=0)
    """Stage 3: elements that may stay whole in all."""

    stage3_max_live_parameters: Integer = Field(1_000_000_000, ge=0)
    """Stage 3: elements that may lie gathered on a device at a time."""

    stage3_max_reuse_distance: Integer = Field(1_000_000_000, ge=0)
    """Stage 3: keep gathered weights that are used again within this many elements."""

    stage3_module_granularity_threshold: Integer = Field(0, ge=0)
    """Stage 3: gather modules as a whole when their weights have on average fewer elements than this; 0 never does."""

    stage3_use_all_reduce_for_fetch_params: bool = False
    """Stage 3: gather by a sum over ranks, which spares copies on the host."""

    stage3_allgather_sequential: bool = False
    """Stage 3: gather weights one by one without a bucket: less memory, more messages."""

    stage3_gather_16bit_weights_on_model_save: bool = False
    """Stage 3: collect whole weights for DeepSpeed's own checkpoints, which are not used here."""

    stage3_gather_fp16_weights_on_model_save: bool = False
    """Older spelling of stage3_gather_16bit_weights_on_model_save."""

    zero_hpz_partition_size: Integer = Field(1, ge=0)
    """Stage 3: ranks of a second group (usually those of one machine) that hold a whole copy of the weights; 1 switches it off."""

    zero_quantized_weights: bool = False
    """Stage 3: exchange weights in 8 bits: half the traffic, rounded weights."""

    zero_quantized_nontrainable_weights: bool = False
    """Stage 3: keep and exchange weights that are not trained in 8 bits."""

    zero_quantized_gradients: bool = False
    """Stage 3: exchange gradients in 8 bits: less traffic, rounded gradients."""

    memory_efficient_linear: bool = True
    """Stage 3: linear layers that do not keep gathered weights for the backward pass."""

    pipeline_loading_checkpoint: bool = False
    """Stage 3: load DeepSpeed's own checkpoints piece by piece."""

    override_module_apply: bool = True
    """Stage 3: let initialisation see gathered weights."""

    log_trace_cache_warnings: bool = False
    """Stage 3: warn when modules run in another order than before."""

    enable_sanity_checks: bool = False
    """Let DeepSpeed check its own invariants, which costs time."""

    save_muon_momentum_buffer_in_memory: bool = False
    """Stage 3 with Muon: keep its momentum off the disk."""

    leaf_module: Section | None = None
    """Stage 3: modules that are gathered as a whole, by class or name."""

    zenflow: Section | None = None
    """DeepSpeed's ZenFlow: update important gradients at once, others later on the CPU."""

    cpu_offload: bool | None = None
    """Older spelling of offload_optimizer: {device: cpu}."""

    cpu_offload_param: bool | None = None
    """Older spelling of offload_param: {device: cpu}."""

    cpu_offload_use_pin_memory: bool | None = None
    """Accepted and not used: belonged to cpu_offload, which offload_optimizer replaced."""

    legacy_stage1: bool = False
    """Accepted and not used: DeepSpeed has only one implementation of stage 1."""


class LeafModuleKeys(Group):
    """Modules that stage 3 gathers as a whole."""

    classes: Texts = Field(DERIVED)
    """Full names of classes. Default: mixture-of-experts blocks of the transformers package."""

    names: Texts = ()
    """Full names of modules."""

    name_suffixes: Texts = ()
    """Ends of names of modules."""
