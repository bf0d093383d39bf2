"""A configuration on a cluster, studied: what the page of `deepy.py plan` is made from."""

from __future__ import annotations

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
from megatron.planning.search.search import Proposal, Search
from megatron.planning.search.words import BATCH_KEYS

LAYOUT_KEYS = (
    *("pipe_parallel_size", "model_parallel_size", "sequence_parallel", "zero_stage"),
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
    here."""

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


def study(
    values: ConfigValues, cluster: Cluster, *, vocab_size: int | None = None, layouts: int | None = None
) -> Study:
    """Look at a configuration on a cluster. vocab_size: entries of the vocabulary, None = see `vocabulary`; layouts: proposals to make,
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
    )


def _resolve(values: ConfigValues, cluster: Cluster) -> tuple[Resolution, tuple[str, ...]]:
    """The finished values; when only the layout stands in the way, those without it (one device, the same batch), and the reasons."""
    try:
        return NeoXArgs.resolution(values, world_size=cluster.world_size, planning=True), ()
    except ConfigError as error:
        refusal = error.problems
    try:
        return NeoXArgs.resolution(_without_layout(values, cluster), world_size=1, planning=True), refusal
    except ConfigError:
        raise ConfigError(refusal) from None


def _without_layout(values: ConfigValues, cluster: Cluster) -> ConfigValues:
    """The values for one device that takes the whole batch, with ZeRO 1."""
    written = values.values
    batch = whole_number(written.get("train_batch_size"))
    if batch is None:
        micro = (
            whole_number(written.get("train_micro_batch_size_per_gpu")) or whole_number(written.get("batch_size")) or 1
        )
        passes = whole_number(written.get("gradient_accumulation_steps")) or 1
        copy = max(whole_number(written.get("pipe_parallel_size")) or 1, 1) * (
            whole_number(written.get("model_parallel_size")) or 1
        )
        batch = micro * passes * max(cluster.world_size // copy, 1)
    nothing = [f"{key}=null" for key in LAYOUT_KEYS if written.get(key) is not None]
    one_device = ["zero_optimization.stage=1", "train_micro_batch_size_per_gpu=1", f"train_batch_size={batch}"]
    return apply_overrides(values, [*nothing, *one_device])


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
