"""How long a step takes in a layout, estimated: good for comparing layouts of one model on one cluster, not for promises.

The step of the slowest pipeline stage is a sum of causes, each from arithmetic on the config and the constants of `devices`:

    compute         forward and twice as much backward: FLOPs / (tensor ranks x peak x EFFICIENCY), a block never faster than its kernels
                    can be started
    recomputation   the blocks' forward pass again, or the scores of attention alone
    tensor          all-reduces (or their halves, gathers and reduce-scatters) of activations inside the node, part of which the
                    backward pass runs beside its products
    context         queries, keys, values and the results of attention traded among the context ranks, forward and backward
    pipeline        activations and their gradients sent between stages, and the bubble: (stages - 1) micro-batches of idle time
    data            gradients reduced and weights gathered over replicas (data x context ranks): once a step under ZeRO 0 and 1, gradients in every
                    micro-batch under ZeRO 2, weights twice and gradients once in every micro-batch under ZeRO 3; with overlap_comm
                    beside the backward pass

A collective over n ranks sends (n - 1) / n of the data over the slowest link of its ring at COLLECTIVE_EFFICIENCY of its speed; ZeRO 3
has one for every block, of n - 1 steps that take RING_STEP_SECONDS at least. What runs beside products costs what exceeds them, and
BESIDE_PRODUCTS of the rest, because it takes units and memory bandwidth from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox_arguments.derive import derive_key_head_copies
from megatron.planning.hardware.devices import Cluster
from megatron.planning.layout import Layout
from megatron.planning.search.work import Work

EFFICIENCY = 0.6
"""Share of the peak that large matrix products, with the element-wise kernels between them, reach."""

COLLECTIVE_EFFICIENCY = 0.7
"""Share of a link's speed that large collectives reach."""

BLOCK_START_SECONDS = 1e-4
"""Time to start the kernels of one block's forward pass: about 20 of 5 microseconds."""

RING_STEP_SECONDS = 1e-5
"""Latency of one step of a ring between nodes."""

BESIDE_PRODUCTS = 0.2
"""What a second of communication beside products costs."""

HALF_PER_SINGLE = 16
"""How much faster half precision is than fp32 without TF32 (A100: 312 to 19.5 TFLOP/s, H100: 989 to 67)."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step by cause."""

    compute: float
    recomputation: float
    tensor: float
    pipeline: float
    data: float
    context: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.recomputation + self.tensor + self.context + self.pipeline + self.data

    def shares(self) -> dict[str, float]:
        """Cause -> share of the step, in the order of the fields."""
        return {name: getattr(self, name) / self.total for name in self.__dataclass_fields__}


def step_time(work: Work, layout: Layout, cluster: Cluster) -> StepTime:
    """The time of one step of this layout on the cluster."""
    blocks, head = _slowest_stage(work, layout.stages)
    tokens = work.seq_length * layout.micro_batch // layout.context
    rate = flops_per_second(cluster, number_bytes=work.number_bytes) * EFFICIENCY * layout.tensor
    in_blocks = blocks * max(work.block_flops * tokens / rate, BLOCK_START_SECONDS)
    forward = in_blocks + head * work.head_flops * tokens / rate
    repeated = in_blocks * work.repeated if layout.recompute else 0.0
    tensor = _tensor_seconds(work, layout, cluster, blocks=blocks, tokens=tokens, backward=2 * forward)
    context = blocks * _context_seconds(work, layout, cluster, tokens=tokens)
    sent = _stage_seconds(work, layout, cluster, tokens=tokens)
    idle = (layout.stages - 1) * (3 * forward + repeated + tensor + context + sent)
    passes = layout.accumulation
    return StepTime(
        compute=passes * 3 * forward,
        recomputation=passes * repeated,
        tensor=passes * tensor,
        pipeline=passes * sent + idle,
        data=_data_seconds(work, layout, cluster, backward=2 * forward),
        context=passes * context,
    )


def flops_per_second(cluster: Cluster, *, number_bytes: int) -> float:
    """The peak of one device for numbers of this size."""
    return cluster.device.peak_flops / (HALF_PER_SINGLE if number_bytes == 4 else 1)


def _slowest_stage(work: Work, stages: int) -> tuple[int, int]:
    """Blocks of the stage with most work, and whether (1 or 0) that is the last one, which has the head; it gets no more than its share."""
    most, least = -(-work.blocks // stages), work.blocks // stages
    with_head = least * work.block_flops + work.head_flops
    return (least, 1) if stages == 1 or with_head >= most * work.block_flops else (most, 0)


def _tensor_seconds(
    work: Work, layout: Layout, cluster: Cluster, *, blocks: int, tokens: int, backward: float
) -> float:
    """Communication of one micro-batch over tensor ranks that nothing hides, in halves of an all-reduce: each of the two
    column-parallel layers of a block reduces or gathers once, each reduction after the row-parallel ones is whole or a scatter."""
    if layout.tensor == 1:
        return 0.0
    share = (layout.tensor - 1) / layout.tensor
    link = cluster.device.link_bytes_per_second
    if layout.tensor > cluster.devices_per_node:
        link = min(link, cluster.device.network_bytes_per_second)
    half = tokens * work.hidden_size * work.number_bytes * share / (link * COLLECTIVE_EFFICIENCY)
    forward = 2 + work.reductions if layout.sequence_parallel else 2 * work.reductions
    exposed = forward * (2 if layout.recompute and work.repeats_blocks else 1) + (
        work.reductions if layout.sequence_parallel else 0
    )
    beside_products = 4
    return blocks * half * exposed + _beside(blocks * half * beside_products, backward)


def _context_seconds(work: Work, layout: Layout, cluster: Cluster, *, tokens: int) -> float:
    """Trading one micro-batch of a block among context ranks: queries, keys, values and results, forward, backward and, where they are
    computed again, forward once more. Attention waits for it."""
    if layout.context == 1:
        return 0.0
    heads, kv_heads = work.heads // layout.tensor, max(work.kv_heads // layout.tensor, 1)
    copies = derive_key_head_copies(heads, kv_heads, ranks=layout.context)
    width = (2 * heads + 2 * copies * kv_heads) * work.head_dim
    device = cluster.device
    link = device.link_bytes_per_second
    if layout.context * layout.tensor > cluster.devices_per_node:
        link = min(link, device.network_bytes_per_second)
    share = (layout.context - 1) / layout.context
    passes = 3 if layout.recompute and work.repeats_blocks else 2
    return passes * tokens * width * work.number_bytes * share / (link * COLLECTIVE_EFFICIENCY)


def _stage_seconds(work: Work, layout: Layout, cluster: Cluster, *, tokens: int) -> float:
    """Sending one micro-batch's activations on and their gradients back."""
    if layout.stages == 1:
        return 0.0
    neighbours = layout.replicas * layout.tensor < cluster.devices_per_node
    device = cluster.device
    speed = device.link_bytes_per_second if neighbours else device.network_bytes_per_second
    pieces = layout.tensor if layout.sequence_parallel else 1
    return 2 * tokens * work.hidden_size * work.number_bytes / pieces / (speed * COLLECTIVE_EFFICIENCY)


def _data_seconds(work: Work, layout: Layout, cluster: Cluster, *, backward: float) -> float:
    """Communication of one step over replicas that nothing hides."""
    if layout.replicas == 1:
        return 0.0
    weights = work.parameters / (layout.stages * layout.tensor) * work.number_bytes
    passes = layout.accumulation
    traffic = {2: (passes + 1) * weights, 3: 3 * passes * weights}.get(layout.zero_stage, 2 * weights)
    share = (layout.replicas - 1) / layout.replicas
    seconds = traffic * share / (_data_speed(layout, cluster) * COLLECTIVE_EFFICIENCY)
    if layout.zero_stage == 3:
        seconds += 3 * passes * work.blocks * (layout.replicas - 1) * RING_STEP_SECONDS
    products = backward * (passes if layout.zero_stage >= 2 else 1)
    return _beside(seconds, products) if work.overlaps else seconds


def _beside(communication: float, products: float) -> float:
    """What communication adds to the products that run at the same time."""
    hidden = min(communication, products)
    return communication - hidden + BESIDE_PRODUCTS * hidden


def _data_speed(layout: Layout, cluster: Cluster) -> float:
    """Bytes a second of a ring of replicas: inside a node, or over the share of its network that the rings leave to one."""
    device = cluster.device
    if layout.replicas * layout.tensor <= cluster.devices_per_node:
        return device.link_bytes_per_second
    rings = min(layout.tensor, cluster.devices_per_node)
    return min(device.link_bytes_per_second, device.network_bytes_per_second * cluster.devices_per_node / rings)
