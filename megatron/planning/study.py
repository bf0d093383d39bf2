"""A configuration on a cluster, studied: what the page of `deepy.py plan` is made from."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.keys.types import whole_number
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.resolve import Resolution
from megatron.planning.hardware.clusters import WORLD_KEYS
from megatron.planning.hardware.devices import DEVICES, Cluster
from megatron.planning.layout import Layout
from megatron.planning.model.vocabulary import Vocabulary, find_vocabulary
from megatron.planning.search.candidates import divisors
from megatron.planning.search.search import Proposal, Search
from megatron.planning.search.words import BATCH_KEYS

LAYOUT_KEYS = (
    *("pipe_parallel_size", "model_parallel_size", "context_parallel_size", "sequence_parallel", "zero_stage"),
    *BATCH_KEYS,
    *WORLD_KEYS,
)
SAMPLES_KEYS = tuple(key for key in BATCH_KEYS if key != "gradient_accumulation_steps")
"""Keys of which any says how many samples a step takes."""
PARALLEL_KEYS = ("pipe_parallel_size", "model_parallel_size")
PROPOSALS = 3
MOST_DOUBLINGS = 10


@dataclass(frozen=True)
class Study:
    """given: the config's layout, None when it is not legal on the cluster, for the reasons in `refusal`; fits: whether it fits;
    proposals: faster first; nearest: the fewest changes with which it fits; larger: clusters on which something fits when nothing does
    here; context: the fewest context ranks with which something does here, None when none do or the config has some."""

    args: NeoXArgs
    cluster: Cluster
    vocabulary: Vocabulary
    resolution: Resolution
    search: Search
    given: Layout | None
    refusal: tuple[str, ...]
    fits: bool
    has_batch: bool
    layouts_wanted: int
    proposals: tuple[Proposal, ...] = ()
    nearest: Proposal | None = None
    larger: tuple[Cluster, ...] = ()
    context: int | None = None


def study(
    values: ConfigValues, cluster: Cluster, *, vocab_size: int | None = None, layouts: int | None = None
) -> Study:
    """Look at a configuration on a cluster. vocab_size: entries of the tokenizer, None = see `vocabulary`; layouts: proposals to make,
    None = three when the config has no parallel sizes, or its layout is not legal or does not fit. Raises ConfigError for everything that
    no layout would repair."""
    resolution, refusal = _resolve(values, cluster)
    args = NeoXArgs.from_resolved(resolution.values)
    given = None if refusal else Layout.of(args)
    vocabulary = find_vocabulary(args, given=vocab_size)
    search = Search(args, values=values, cluster=cluster, vocab_size=vocabulary.size, given=given)
    fits = given is not None and search.fits(given)
    is_open = all(values.values.get(key) is None for key in PARALLEL_KEYS)
    count = layouts if layouts is not None else PROPOSALS if is_open or not fits else 0
    proposals = search.fastest(count) if count else ()
    return Study(
        args=args,
        cluster=cluster,
        vocabulary=vocabulary,
        resolution=resolution,
        search=search,
        given=given,
        refusal=refusal,
        fits=fits,
        layouts_wanted=count,
        has_batch=any(values.values.get(key) is not None for key in SAMPLES_KEYS),
        proposals=proposals,
        nearest=search.nearest(given) if given is not None and not fits else None,
        larger=_larger(search) if count and not proposals else (),
        context=_fewest_context_ranks(search) if count and not proposals and args.context_parallel_size == 1 else None,
    )


def _resolve(values: ConfigValues, cluster: Cluster) -> tuple[Resolution, tuple[str, ...]]:
    """The finished values; when only the layout stands in the way, those without it (one device, the same batch), and the reasons."""
    try:
        return NeoXArgs.resolution(values, world_size=cluster.world_size, planning=True), ()
    except ConfigError as error:
        refusal = error.problems
    written = max(whole_number(values.values.get("context_parallel_size")) or 1, 1)
    for context in (written, 1) if cluster.world_size % written == 0 else (1,):
        with suppress(ConfigError):
            alone = _without_layout(values, cluster, context)
            return NeoXArgs.resolution(alone, world_size=context, planning=True), refusal
    raise ConfigError(refusal)


def _without_layout(values: ConfigValues, cluster: Cluster, context: int) -> ConfigValues:
    """The values for the least devices: as many as there are context ranks, which take the whole batch, with ZeRO 1."""
    written = values.values
    batch = whole_number(written.get("train_batch_size"))
    if batch is None:
        micro = (
            whole_number(written.get("train_micro_batch_size_per_gpu")) or whole_number(written.get("batch_size")) or 1
        )
        passes = whole_number(written.get("gradient_accumulation_steps")) or 1
        sizes = (whole_number(written.get(f"{part}_parallel_size")) or 1 for part in ("pipe", "context", "model"))
        copy = math.prod(sizes)
        batch = micro * passes * max(cluster.world_size // copy, 1)
    nothing = [f"{key}=null" for key in LAYOUT_KEYS if written.get(key) is not None]
    least = ["zero_optimization.stage=1", "train_micro_batch_size_per_gpu=1", f"train_batch_size={batch}"]
    cut = [f"context_parallel_size={context}"] if context > 1 else []
    return apply_overrides(values, [*nothing, *least, *cut])


def _fewest_context_ranks(search: Search) -> int | None:
    """The least context_parallel_size above 1 with which something fits on the same devices; None without any."""
    for context in divisors(search.cluster.world_size, most=search.args.num_attention_heads)[1:]:
        values = apply_overrides(search.values, [f"context_parallel_size={context}"])
        with suppress(ConfigError):
            alone = _without_layout(search.values, search.cluster, context)
            args = NeoXArgs.from_values(alone, world_size=context, planning=True)
            cut = Search(args, values=values, cluster=search.cluster, vocab_size=search.vocab_size, given=None)
            if cut.fastest(1):
                return context
    return None


def _larger(search: Search) -> tuple[Cluster, ...]:
    """The least number of nodes of these devices on which something fits, and the smallest device of which as many would do."""
    here = search.cluster
    more_nodes = (
        Cluster(here.nodes * 2**power, here.devices_per_node, here.device) for power in range(1, MOST_DOUBLINGS + 1)
    )
    by_memory = sorted(DEVICES.values(), key=lambda device: device.memory_bytes)
    more_memory = (
        Cluster(here.nodes, here.devices_per_node, device)
        for device in by_memory
        if device.memory_bytes > here.device.memory_bytes
    )
    found = (
        next((cluster for cluster in clusters if _holds(search, cluster)), None)
        for clusters in (more_nodes, more_memory)
    )
    return tuple(cluster for cluster in found if cluster is not None)


def _holds(search: Search, cluster: Cluster) -> bool:
    elsewhere = Search(search.args, values=search.values, cluster=cluster, vocab_size=search.vocab_size, given=None)
    return bool(elsewhere.fastest(1))
