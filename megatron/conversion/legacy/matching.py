"""Which tensors in the files of GPT-NeoX hold each parameter of the model that is wanted: everything on both sides has its counterpart, or
the difference is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from megatron.conversion.legacy.layer_files import LayerFiles, Tensors
from megatron.conversion.legacy.merge import their_cut
from megatron.conversion.legacy.mismatches import check_layers, hint
from megatron.conversion.legacy.names import Reading, Traits, find_reading, unused_names
from megatron.conversion.legacy.rank_rows import GroupedRows
from megatron.conversion.mapping.packing import Heads
from megatron.errors import CheckpointError
from megatron.foreign import shortened
from megatron.mpu.shard import ShardInfo
from megatron.neox_arguments import NeoXArgs


@dataclass(frozen=True)
class Match:
    """layer: number; reading: the tensors of its files that hold the parameter; rows: of the vocabulary over all ranks, where it has them, else of
    one rank."""

    layer: int
    reading: Reading
    rows: int


def match_layers(
    files: LayerFiles,
    parameters: Mapping[str, ShardInfo],
    args: NeoXArgs,
    *,
    grouped: GroupedRows,
    saved_ranks: object = None,
) -> dict[str, Match]:
    """The place of each parameter, by name. saved_ranks: of tensor parallelism, as the saved settings say.

    Raises CheckpointError naming what is missing, unknown or of another shape, all of it at once.
    """
    wanted: dict[int, list[ShardInfo]] = {}
    for name, info in parameters.items():
        wanted.setdefault(int(name.partition(".")[0]), []).append(info)
    check_layers(files, sorted(wanted), args)
    matches: dict[str, Match] = {}
    problems: list[str] = []
    for layer in files.layers():
        problems += _match_layer(
            files, layer, wanted.get(layer, []), _traits(args, files.layout.ranks, grouped), matches
        )
    if problems:
        raise CheckpointError(
            f"{files.layout.directory} does not hold this model: {shortened(problems)}; {hint(problems, files, saved_ranks)}"
        )
    return matches


def _traits(args: NeoXArgs, ranks: int, grouped: GroupedRows) -> Traits:
    heads = Heads(args.num_attention_heads // ranks, args.num_kv_heads // ranks, args.head_dim)
    return Traits(heads, args.gated_activation, args.gpt_j_residual, args.gpt_j_residual and args.gpt_j_tied, grouped)


def _match_layer(
    files: LayerFiles, layer: int, wanted: list[ShardInfo], traits: Traits, matches: dict[str, Match]
) -> Iterator[str]:
    """Fills `matches`; yields what does not fit."""
    ranks = files.ranks(layer)
    _check_alike(files, layer, ranks)
    used: set[str] = set()
    for info in wanted:
        path = info.name.partition(".")[2]
        reading = find_reading(path, ranks[0], traits)
        if reading is None:
            yield f"{info.name} is missing"
            continue
        used.update(reading.theirs)
        if _sums_twice(reading, traits, len(ranks)):
            yield f"{layer}.{reading.theirs[0]} is of Transformer Engine, with which gpt_j_residual sums twice over tensor-parallel ranks"
        found = [ranks[0][name].shape for name in reading.theirs]
        rows, rest = sum(size[0] if size else 1 for size in found), tuple(found[0][1:])
        expected = replace(their_cut(info), size=len(ranks)).local_shape
        is_vocabulary = info.valid_rows is not None
        if rest != expected[1:] or (rows != expected[0] and not is_vocabulary):
            yield f"{layer}.{' and '.join(reading.theirs)} {_sizes(found)} where a rank has {list(expected)}"
        matches[info.name] = Match(layer, reading, rows * len(ranks) if is_vocabulary else rows)
    yield from (f"{layer}.{name} is unknown" for name in unused_names(ranks[0], used, traits))


def _sums_twice(reading: Reading, traits: Traits, ranks: int) -> bool:
    of_engine = reading.theirs[0].startswith(("attention.proj.", "mlp.fc2_"))
    return traits.is_parallel and ranks > 1 and of_engine


def _check_alike(files: LayerFiles, layer: int, ranks: list[Tensors]) -> None:
    first = {name: tensor.shape for name, tensor in ranks[0].items()}
    for number, tensors in enumerate(ranks):
        other = {name: tensor.shape for name, tensor in tensors.items()}
        differing = sorted(name for name in set(first) | set(other) if first.get(name) != other.get(name))
        if differing:
            raise CheckpointError(
                f"{files.file(layer, number)} and the file of rank 0 are of different models: {layer}.{differing[0]} is "
                f"{_size_words(other.get(differing[0]))} and {_size_words(first.get(differing[0]))}"
            )


def _size_words(size: torch.Size | None) -> str:
    return "absent" if size is None else str(list(size))


def _sizes(sizes: list[torch.Size]) -> str:
    return f"is {' and '.join(str(list(size)) for size in sizes)}"
