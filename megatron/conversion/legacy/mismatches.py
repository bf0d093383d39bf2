"""What is probably meant where the files of GPT-NeoX are not those of the model that is wanted, in words."""

from __future__ import annotations

from megatron.conversion.legacy.layer_files import LayerFiles
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs


def check_layers(files: LayerFiles, wanted: list[int], args: NeoXArgs) -> None:
    """Raises CheckpointError when layers of these numbers have no files."""
    absent = sorted(set(wanted) - set(files.layers()))
    if not absent:
        return
    there = f"{files.layout.directory} has no layer {_ranges(absent)}, only {_ranges(files.layers())}"
    if absent == [args.num_layers + 4] and absent > files.layers()[-1:]:
        raise CheckpointError(
            f"{there}: it has no output layer of its own, so set no_weight_tying: false, or copy its files"
        )
    raise CheckpointError(
        f"{there}: a model of num_layers {args.num_layers} has {_ranges(wanted)}; set num_layers to that of the checkpoint, or copy the "
        "files that are missing"
    )


def hint(problems: list[str], files: LayerFiles, saved_ranks: object) -> str:
    """What to do about tensors that do not fit. saved_ranks: of tensor parallelism, as the saved settings say."""
    text, ranks = " ".join(problems), files.layout.ranks
    if isinstance(saved_ranks, int) and saved_ranks > ranks:
        return (
            f"the saved settings have model_parallel_size {saved_ranks}, and there are files of {ranks}: copy all files"
        )
    if "final_linear.weight is unknown" in text:
        return "the checkpoint has an output layer of its own: set no_weight_tying: true"
    if "final_linear.weight is missing" in text:
        return "the checkpoint has no output layer of its own: set no_weight_tying: false"
    if "is [0] " in text:
        return "tensors without elements are what ZeRO stage 3 leaves in these files"
    return "compare the settings of the model with those the checkpoint was trained with"


def _ranges(numbers: list[int]) -> str:
    """`0, 2-45, 47`"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
