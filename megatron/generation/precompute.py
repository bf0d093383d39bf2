"""`text_gen_type: precompute`: how likely a model finds every token of the configured datasets, to which training from preferences
compares the model that it trains.

Beside a dataset PREFIX comes a dataset PREFIX_NAME of fp32 numbers (NAME is `precompute_model_name`) with the same sequences, where
GPT-NeoX looks for it. Number i of a sequence is the log-probability of its token i + 1, given those up to token i: it lies where the loss
of that token does. The last number is 0, since nothing follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.checkpointing.ranks import Ranks
from megatron.data.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetWriter,
    bin_path,
    dataset_prefix,
    idx_path,
    open_tokens,
)
from megatron.errors import DataError
from megatron.generation.model import InferenceModel
from megatron.generation.sequences import score_sequences
from megatron.initialize import World
from megatron.log import get_logger
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size
from megatron.neox_arguments.validation_sets import validation_sets
from megatron.tokenizer.base import Tokenizer

logger = get_logger(__name__)

PROGRESS_SECONDS = 10.0


def precompute(args: NeoXArgs, world: World, tokenizer: Tokenizer, load: Callable[[], InferenceModel]) -> None:
    """Write what is missing beside each of the configured datasets (every rank calls this; the first one writes).

    load: gives the model, and is called when all datasets are found and one of them lacks its log-probabilities.
    Raises DataError when a dataset is missing or does not suit the model, or nothing can be written beside it.
    """
    name = args.precompute_model_name
    assert name
    datasets = {output_of(prefix, name): open_scorable(prefix) for prefix in dataset_prefixes(args)}
    ranks = Ranks(world.groups.world, doing="looking for log-probabilities")
    missing = ranks.first(lambda: [output for output, dataset in datasets.items() if not is_done(output, dataset)])
    if not missing:
        return
    model = load()
    for output in missing:
        found = score_sequences(
            model,
            datasets[output],
            vocab_size=model_vocab_size(args, tokenizer.vocab_size),
            positions=args.max_position_embeddings,
            batch_size=args.generation_batch_size,
        )
        if world.groups.rank == 0:
            write(output, datasets[output], found)
        else:
            for _ in found:
                pass


def dataset_prefixes(args: NeoXArgs) -> list[Path]:
    """Every dataset of a configuration, once: those of training, of all validation sets, and of the final test."""
    given = [args.data_path] if args.data_path else []
    for paths in (args.train_data_paths, args.valid_data_paths, args.test_data_paths):
        given += paths or ()
    for named in validation_sets(args).values():
        given += named.paths
    return list(dict.fromkeys(dataset_prefix(path).absolute() for path in given))


def output_of(dataset: Path, name: str) -> Path:
    """Where the log-probabilities of a dataset lie: what their files begin with."""
    return dataset.with_name(f"{dataset.name}_{name}")


def open_scorable(prefix: Path) -> IndexedDataset:
    """A dataset of tokens. Raises DataError when a sequence is empty: readers of the format expect none, and what is written would lack it."""
    dataset = open_tokens(prefix)
    if len(dataset) and not dataset.sizes.all():
        empty = int((dataset.sizes == 0).argmax())
        raise DataError(
            f"sequence {empty} of {prefix} is empty, so nothing can stand beside it: tokenise the data again."
        )
    return dataset


def is_done(output: Path, dataset: IndexedDataset) -> bool:
    """Whether the log-probabilities of this very dataset are there; says so, or why what is there is written again.

    Raises DataError when it is a dataset of tokens, which must not be lost.
    """
    parts = [path.exists() for path in (bin_path(output), idx_path(output))]
    if not any(parts):
        return False
    if not all(parts):
        logger.warning("%s is written again: one of its two files is missing", output)
        return False
    try:
        there = IndexedDataset(output)
    except DataError as error:
        logger.warning("%s is written again: %s", output, error)
        return False
    if there.dtype.kind != "f":
        raise DataError(
            f"log-probabilities of {dataset.prefix} belong into {output}, which holds {there.dtype.name} numbers: "
            "give another precompute_model_name, or move that dataset away."
        )
    older = idx_path(output).stat().st_mtime < idx_path(dataset.prefix).stat().st_mtime
    if older or there.dtype != np.float32 or not np.array_equal(there.sizes, dataset.sizes):
        logger.warning("%s is written again: it does not belong to what %s is now", output, dataset.prefix.name)
        return False
    logger.info(
        "%s is there already, of whatever model, and stays; remove %s to compute it again", output, idx_path(output)
    )
    return True


def write(output: Path, dataset: IndexedDataset, found: Iterable[NDArray[np.float32]]) -> None:
    """Write the numbers of all sequences, and tell how far it is. The files get their names when all are written."""
    began = told = time.monotonic()
    tokens = 0
    try:
        with IndexedDatasetWriter(output, dtype=np.float32) as writer:
            for number, values in enumerate(found, start=1):
                writer.add_document(values)
                tokens += len(values)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    logger.info("%s: %s of %s sequences", output, f"{number:,}", f"{len(dataset):,}")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from error
    seconds = time.monotonic() - began
    logger.info("%s: log-probabilities of %s tokens in %.0f s", output, f"{tokens:,}", seconds)
