"""A checkpoint that GPT-NeoX wrote, as full tensors under our names, whatever its tensor- and pipeline-parallel sizes were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from megatron.checkpointing.names import WEIGHT, is_weight, parameter_of
from megatron.checkpointing.state_file import Shapes
from megatron.conversion.legacy.layer_files import LayerFiles
from megatron.conversion.legacy.layout import find_layout, saved_values
from megatron.conversion.legacy.matching import match_layers
from megatron.conversion.legacy.merge import (
    are_equal,
    common,
    deviation,
    is_second_bias,
    merged,
    merged_rows,
    summed,
    their_cut,
)
from megatron.conversion.legacy.names import OLD_MLPS
from megatron.conversion.legacy.rank_rows import GroupedRows
from megatron.conversion.legacy.remarks import IS_OLD, differing_computations, grouped_rows_remark
from megatron.conversion.legacy.vocabulary import check_rows, padding_remark, padding_step
from megatron.conversion.mapping.shapes import model_parameters
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.neox_arguments import NeoXArgs

logger = get_logger(__name__)

_DRIFT = 0.25
"""Copies of one bias that differ by more than this part of it did not drift apart: they are parts of a sum."""


class NeoXSource:
    """`TensorSource` of one step's directory, or of the directory above (`iteration`: which step, None = the latest).

    args: the model that is wanted; vocab_rows: its rows of vocabulary without padding; trusted: build whatever the files name; grouped: the
    order of rows where heads share keys, None = what the files and settings tell. Only shapes are read here. Raises CheckpointError when the
    checkpoint is incomplete, holds another model, or tensors that nothing is known of.
    """

    def __init__(
        self,
        directory: str | Path,
        args: NeoXArgs,
        *,
        vocab_rows: int,
        trusted: bool = False,
        iteration: int | None = None,
        grouped: GroupedRows | None = None,
    ) -> None:
        self.layout = find_layout(Path(directory), iteration)
        self.saved_values: Mapping[str, Any] = saved_values(self.layout.directory)
        self.files = LayerFiles(self.layout, trusted=trusted)
        self._args = args
        self._parameters = model_parameters(args, vocab_size=vocab_rows)
        self._grouped = grouped or ("query_heads" if IS_OLD in self.saved_values else "blocks")
        saved_ranks = self.saved_values.get("model_parallel_size")
        self._matches = match_layers(self.files, self._parameters, args, grouped=self._grouped, saved_ranks=saved_ranks)
        self._rows = self._check_vocabulary(vocab_rows)
        self._vocab_rows = vocab_rows
        self._has_warned = False

    @property
    def iteration(self) -> int:
        """How many steps the run had made; -1 when the directory's name does not say."""
        return self.layout.iteration

    @property
    def description(self) -> str:
        """For messages."""
        return f"{self.layout.directory} (GPT-NeoX, {self.layout.ranks} tensor-parallel rank{'s' * (self.layout.ranks != 1)})"

    @property
    def shapes(self) -> Shapes:
        """Of the weights, without vocabulary padding."""
        return {f"{name}/{WEIGHT}": info.logical_shape for name, info in self._parameters.items()}

    def remarks(self, args: NeoXArgs) -> list[str]:
        """What a model of these arguments computes otherwise than GPT-NeoX did, and what is not taken over: sentences for warnings."""
        has_bias = any(name.endswith(".attention.dense.bias") for name in self._parameters)
        found = [
            *differing_computations(args, self.saved_values, ranks=self.layout.ranks, has_attention_bias=has_bias),
            grouped_rows_remark(args, self._grouped, old_mlp=self._old_mlp()),
        ]
        if self._rows is not None:
            found.append(padding_remark(self.description, self._rows, self._vocab_rows))
        return [sentence for sentence in found if sentence]

    def read(self, name: str) -> Tensor:
        """A weight as it is stored: fp16, bf16 or fp32. Raises KeyError when there is none of this name, CheckpointError when it is damaged."""
        parameter = parameter_of(name)
        if not is_weight(name) or parameter not in self._parameters:
            raise KeyError(name)
        return self.assemble(parameter, self.files.shards)

    def assemble(self, parameter: str, shards: Callable[[str], Sequence[Tensor]], *, kind: str = WEIGHT) -> Tensor:
        """A full tensor of one parameter of ours: its weight, or what an optimizer keeps of it.

        shards: what the tensor-parallel ranks have of a tensor of theirs ("2.mlp.w1.weight").
        """
        match = self._matches[parameter]
        by_name = [shards(f"{match.layer}.{name}") for name in match.reading.theirs]
        parts = [match.reading.join(tensors) for tensors in zip(*by_name, strict=True)]
        info = their_cut(self._parameters[parameter])
        if info.valid_rows is not None:
            return merged_rows(parts, self._vocab_rows)
        if info.dim is not None:
            return merged(parts, info)
        if is_second_bias(parameter) and self._args.gpt_j_residual and kind == WEIGHT:
            return summed(parts)
        return self._of_copies(parameter, parts, kind)

    def _of_copies(self, parameter: str, copies: Sequence[Tensor], kind: str) -> Tensor:
        if are_equal(copies):
            return copies[0]
        apart = deviation(copies)
        is_sum = is_second_bias(parameter) and kind == WEIGHT and apart > _DRIFT
        if kind == WEIGHT and not self._has_warned:
            self._has_warned = True
            logger.warning(
                f"{self.description}: the tensor-parallel ranks have other values of {parameter} (by up to {apart:.1e} of it), and perhaps of more: "
                f"{'their sum' if is_sum else 'the mean'} is loaded"
            )
        return summed(copies) if is_sum else common(copies)

    def _old_mlp(self) -> str | None:
        names = (match.reading.theirs[0] for match in self._matches.values())
        return next((OLD_MLPS[name] for name in names if name in OLD_MLPS), None)

    def _check_vocabulary(self, wanted: int) -> int | None:
        rows = {match.rows for name, match in self._matches.items() if self._parameters[name].valid_rows is not None}
        if not rows:
            return None
        if len(rows) > 1:
            raise CheckpointError(
                f"{self.description} has {' and '.join(map(str, sorted(rows)))} rows of one vocabulary: files of several models lie there"
            )
        (found,) = rows
        check_rows(self.description, found, wanted, padding_step(self.saved_values, self.layout.ranks))
        return found
