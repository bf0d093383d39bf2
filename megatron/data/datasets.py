"""From the configuration to the train, validation and test datasets: one split dataset, or a blend of several for each part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from megatron.data.blendable_dataset import build_blendable_dataset
from megatron.data.document_dataset import build_document_dataset
from megatron.data.gpt_dataset import SampleDataset, build_gpt_dataset
from megatron.data.indexed_dataset import IndexedDataset, open_tokens
from megatron.data.labels import open_labels
from megatron.data.maps.document_maps import Packing, samples_in_passes
from megatron.data.maps.index_maps import samples_in_epochs
from megatron.data.splits import PARTS, split_documents
from megatron.errors import DataError
from megatron.mpu.collectives import barrier
from megatron.mpu.groups import SINGLE, Group
from megatron.neox_arguments.validation_sets import UNNAMED, validation_sets

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs
    from megatron.neox_arguments.batch_schedule import BatchSchedule

# Each dataset of a blend is built a little longer than its share, as GPT-NeoX does: its length decides the order of its samples.
BLEND_MARGIN = 1.005


@dataclass(frozen=True)
class Datasets:
    """The datasets of a run, and by part what they are read from. None where no samples are wanted, or the part holds no documents.

    valid: by name, those that have samples; that of valid_data_paths or split is called "validation".
    """

    train: SampleDataset | None
    valid: Mapping[str, SampleDataset]
    test: SampleDataset | None
    sources: Mapping[str, Sequence[Source]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Some documents of an indexed dataset, which count `weight` in a blend (in any unit), and their label data, if there is some."""

    dataset: IndexedDataset
    documents: range
    weight: float = 1.0
    labels: IndexedDataset | None = None

    @property
    def tokens(self) -> int:
        """Tokens in these documents."""
        return self.dataset.tokens_of(self.documents)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Tokens of each of these documents."""
        return self.dataset.sizes[self.documents.start : self.documents.stop]


def build_datasets(
    args: NeoXArgs,
    *,
    train_samples: int,
    valid_samples: int,
    test_samples: int,
    world: Group = SINGLE,
    local_rank: int = 0,
) -> Datasets:
    """Datasets of at least the given numbers of samples, by `data_path` and `split` or by `train_data_paths` and so on; each validation
    set has `valid_samples`.

    Collective over `world`: its first rank builds the index caches, the others then find them; with `use_shared_fs: false` the first
    one of each machine, the one with `local_rank` 0 there. A part without documents is None,
    but training needs some. Raises DataError when a dataset is missing, damaged or empty, or weights do not fit.
    """
    is_builder = (world.rank if args.use_shared_fs else local_rank) == 0
    if not is_builder:
        barrier(world)
    sources = open_sources(args)
    train = build_part(args, "train", sources["train"], train_samples)
    parts = {UNNAMED: "valid", **{name: part_of_set(name) for name in validation_sets(args)}}
    valid = {name: build_part(args, part, sources[part], valid_samples) for name, part in parts.items()}
    test = build_part(args, "test", sources["test"], test_samples)
    if is_builder:
        barrier(world)
    if train is None and train_samples:
        raise DataError(_no_documents_sentence(args))
    return Datasets(train, {name: dataset for name, dataset in valid.items() if dataset is not None}, test, sources)


def iterations_for_epochs(args: NeoXArgs, *, epochs: int, schedule: BatchSchedule) -> int:
    """How many whole steps of `schedule` `epochs` passes over the training documents give.

    In a blend an epoch is as many tokens as all its datasets hold together, or as many samples of whole documents, whatever the weights.
    Raises DataError when that is not even one batch.
    """
    sources = open_sources(args)["train"]
    tokens = sum(source.tokens for source in sources)
    packing = _packing(args)
    if packing is None:
        samples = samples_in_epochs(epochs, tokens_per_epoch=tokens, seq_length=args.seq_length)
    else:
        samples = sum(samples_in_passes(epochs, source.sizes, packing, seed=args.seed) for source in sources)
    iterations = schedule.steps_within(max(samples, 0))
    if iterations == 0:
        raise DataError(
            f'"train_epochs" is {epochs}: the training data ({tokens} tokens) gives {max(samples, 0)} samples of {args.seq_length} '
            f"tokens, fewer than one batch of {schedule.batch_of(0)}. Lower train_batch_size or seq_length, or train for more epochs."
        )
    return iterations


def open_sources(args: NeoXArgs) -> dict[str, list[Source]]:
    """What each part ("train", "valid", "test", and `part_of_set` of named validation sets) is read from, weights resolved.

    Raises DataError for missing or damaged files.
    """
    named = {
        part_of_set(name): _weighted_sources(
            args, f"validation_sets.{name}.weights", found.paths, found.weights, found.label_paths
        )
        for name, found in validation_sets(args).items()
    }
    if args.data_path:
        dataset = _open(args, args.data_path)
        split = split_documents(args.split, len(dataset)).items()
        return {**{part: [Source(dataset, documents)] for part, documents in split}, **named}
    if not args.train_data_paths:
        raise DataError(
            'neither "data_path" nor "train_data_paths" is set: there is nothing to train on. Set one of them.'
        )
    paths = {"train": args.train_data_paths, "valid": args.valid_data_paths, "test": args.test_data_paths}
    weights = {"train": args.train_data_weights, "valid": args.valid_data_weights, "test": args.test_data_weights}
    labels = {part: getattr(args, f"{part}_label_data_paths") for part in PARTS}
    parts = {
        part: _weighted_sources(args, f"{part}_data_weights", paths[part] or (), weights[part], labels[part])
        for part in PARTS
    }
    return {**parts, **named}


def part_of_set(name: str) -> str:
    """The part that a named validation set is, in messages and in names of cache files."""
    return f"valid_{name}"


def weights_by_documents(documents: Sequence[int], *, alpha: float) -> list[float]:
    """Weights proportional to p^alpha * (1 - p), where p is a dataset's share of all documents; one dataset has weight 1.

    alpha < 1 favours small datasets. Like GPT-NeoX, the second factor takes the share before it is raised to alpha.
    """
    if len(documents) == 1:
        return [1.0]
    total = sum(documents)
    if not total:
        raise DataError('"weight_by_num_documents" is on, but the datasets hold no documents at all.')
    shares = [count / total for count in documents]
    raised = _normalised([share**alpha for share in shares])
    weights = [probability * (1 - share) for probability, share in zip(raised, shares, strict=True)]
    if not any(weights):
        raise DataError(
            f'"weight_by_num_documents" is on, but of the datasets, which have {list(documents)} documents, only one has any: '
            "leave out the empty ones."
        )
    return _normalised(weights)


def _weighted_sources(
    args: NeoXArgs, key: str, paths: Sequence[str], weights: Sequence[float] | None, label_paths: Sequence[str] | None
) -> list[Source]:
    """The datasets of a part, without those of weight 0. key: the one that the weights are written under."""
    datasets = [_open(args, path) for path in paths]
    if args.weight_by_num_documents and datasets:
        weights = weights_by_documents([len(dataset) for dataset in datasets], alpha=args.weighted_sampler_alpha)
    weights = [1.0] * len(datasets) if weights is None else weights
    if len(weights) != len(datasets):
        raise DataError(f'"{key}" has {len(weights)} numbers for {len(datasets)} datasets: give one for each.')
    if datasets and (min(weights) < 0 or not math.isfinite(sum(weights)) or sum(weights) == 0):
        raise DataError(f'"{key}" is {list(weights)}: weights must not be negative, and not all 0.')
    labels: Sequence[str | None] = label_paths or [None] * len(datasets)
    return [
        Source(dataset, range(len(dataset)), weight, labels=_open_labels(args, label_path, dataset))
        for dataset, weight, label_path in zip(datasets, weights, labels, strict=True)
        if weight > 0
    ]


def build_part(args: NeoXArgs, part: str, sources: Sequence[Source], num_samples: int) -> SampleDataset | None:
    """The dataset of one part, of at least `num_samples` samples; None without samples or documents. Builds caches where there are none."""
    if num_samples == 0 or not any(source.documents for source in sources):
        return None
    if args.data_path and part in PARTS:
        return _build_source(args, part, sources[0], num_samples)
    weights = _normalised([source.weight for source in sources])
    datasets = [
        _build_source(args, f"{part}_{number}", source, math.ceil(num_samples * weight * BLEND_MARGIN))
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True))
    ]
    if len(datasets) == 1:
        return datasets[0]
    beside = sources[0].dataset.prefix
    return build_blendable_dataset(datasets, weights, num_samples=num_samples, part=part, beside=beside)


def _packing(args: NeoXArgs) -> Packing | None:
    """How whole documents fill samples; None where documents are cut (`packed`)."""
    if args.pack_impl == "packed":
        return None
    return Packing(args.pack_impl, allow_chopped=args.allow_chopped, seq_length=args.seq_length)


def _build_source(args: NeoXArgs, part: str, source: Source, num_samples: int) -> SampleDataset:
    packing = _packing(args)
    if packing is not None:
        return build_document_dataset(
            source.dataset,
            source.documents,
            packing,
            part=part,
            num_samples=num_samples,
            seed=args.seed,
            labels=source.labels,
        )
    return build_gpt_dataset(
        source.dataset,
        source.documents,
        part=part,
        seq_length=args.seq_length,
        num_samples=num_samples,
        seed=args.seed,
        labels=source.labels,
    )


def _open(args: NeoXArgs, path: str) -> IndexedDataset:
    dataset = open_tokens(path)
    if args.mmap_warmup:
        dataset.warm_up()
    return dataset


def _open_labels(args: NeoXArgs, path: str | None, text: IndexedDataset) -> IndexedDataset | None:
    """The label data at `path`, None without a path. Raises DataError when it does not go with the text."""
    if path is None:
        return None
    labels = open_labels(path, text)
    if args.mmap_warmup:
        labels.warm_up()
    return labels


def _normalised(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _no_documents_sentence(args: NeoXArgs) -> str:
    if not args.data_path:
        return '"train_data_paths" names datasets without a single document: tokenise the data again.'
    documents = len(IndexedDataset(args.data_path))
    return (
        f'"split" is "{args.split}" and {args.data_path} has {documents} documents: that leaves none for training. '
        "Give the first number of split a larger share, or use more data."
    )
