"""Rules by which values follow from one another. Pure functions of plain values; each raises `Conflict` when the values disagree.

`resolving/steps.py` calls them on a configuration; other rooms use those they need (vocabulary padding, checkpoint iterations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.arguments import NeoXArgs

Precision = Literal["fp32", "fp16", "bfloat16"]

DEFAULT_OPTIMIZER: dict[str, Any] = {"type": "Adam", "params": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8}}
DEFAULT_ZERO: dict[str, Any] = {
    "stage": 0,
    "allgather_partitions": True,
    "reduce_scatter": True,
    "allgather_bucket_size": 500_000_000,
    "reduce_bucket_size": 500_000_000,
    "overlap_comm": False,
    "contiguous_gradients": False,
}

MAX_LAYERS = 100_000
"""More than any model has."""

NEAR = 100_000
"""How far a divisor is looked for: a number with a zero too many must not keep anyone waiting."""


@dataclass(frozen=True)
class BatchSizes:
    """train = micro * accumulation * data-parallel size."""

    train: int
    micro: int
    accumulation: int


def derive_data_parallel_size(
    world_size: int, *, pipe_parallel_size: int, model_parallel_size: int, context_parallel_size: int = 1
) -> int:
    """Copies of the model that train on samples of their own: processes divided by those that one takes. Must be whole."""
    copy = max(pipe_parallel_size, 1) * context_parallel_size * model_parallel_size
    if world_size % copy:
        sizes = {
            "pipe_parallel_size": pipe_parallel_size,
            "context_parallel_size": context_parallel_size,
            "model_parallel_size": model_parallel_size,
        }
        factors = "pipeline stages x tensor ranks"
        if context_parallel_size > 1:
            factors = "pipeline stages x context ranks x tensor ranks"
        keys = [key for key, size in sizes.items() if size > 1]
        fix = f"use {nearest_multiples(world_size, copy)} processes"
        fix += f", or set {keys[0]} to {nearest_divisors(copy, world_size)}" if len(keys) == 1 else ", or smaller sizes"
        raise Conflict(
            ("global_num_gpus", *keys),
            f"{world_size} {_plural(world_size, 'process does', 'processes do')} not divide into copies of the model, which take "
            f"{copy} each ({factors}); {fix}",
        )
    return world_size // copy


def derive_batch_sizes(
    train: int | None, micro: int | None, accumulation: int | None, *, data_parallel_size: int
) -> BatchSizes:
    """The three batch sizes from any two of them, or from one (then without accumulation)."""
    keys = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    if train is None and micro is None:
        raise Conflict(keys[:2], "one of the two is needed; give train_micro_batch_size_per_gpu")
    if train is None:
        assert micro is not None
        steps = accumulation or 1
        return BatchSizes(micro * steps * data_parallel_size, micro, steps)
    if micro is None:
        steps = accumulation or 1
        micro = _whole_share(train, steps * data_parallel_size, keys[0], "accumulation steps x data-parallel size")
        return BatchSizes(train, micro, steps)
    steps = _whole_share(train, micro * data_parallel_size, keys[0], "micro-batch x data-parallel size")
    if accumulation is not None and accumulation != steps:
        product = micro * accumulation * data_parallel_size
        raise Conflict(
            keys,
            f"{micro} x {accumulation} x {data_parallel_size} (data-parallel size) is {product}, not {train}; "
            f"set gradient_accumulation_steps to {steps}, or leave one of the three out",
        )
    return BatchSizes(train, micro, steps)


def _whole_share(train: int, divisor: int, key: str, meaning: str) -> int:
    if train % divisor:
        raise Conflict(
            (key,), f"not a multiple of {divisor} ({meaning}); set it to {nearest_multiples(train, divisor)}"
        )
    return train // divisor


def derive_precision(
    precision: Precision | None, *, fp16: Mapping[str, Any] | None, bf16: Mapping[str, Any] | None
) -> Precision:
    """The number format from `precision` and the sections, which must not contradict each other; fp32 when nothing says otherwise."""
    wanted: dict[str, Precision] = {}
    if precision is not None:
        wanted["precision"] = precision
    if fp16 and fp16.get("enabled"):
        wanted["fp16.enabled"] = "bfloat16" if fp16.get("type") == "bfloat16" else "fp16"
    if bf16 and bf16.get("enabled"):
        wanted["bf16.enabled"] = "bfloat16"
    if len(set(wanted.values())) > 1:
        raise Conflict(tuple(wanted), "these ask for different formats; keep one of them")
    for section, given, value in (("fp16", fp16, "fp16"), ("bf16", bf16, "bfloat16")):
        if precision == value and given is not None and given.get("enabled") is False:
            raise Conflict(("precision", f"{section}.enabled"), f'set {section}.enabled to true or precision to "fp32"')
    return next(iter(wanted.values()), "fp32")


def derive_attention_types(config: Sequence[Any] | None, *, num_layers: int) -> tuple[str, ...]:
    """One attention type a layer from `[[[types...], repeat], ...]`, where repeat "all" goes on to the last layer, or a flat list."""
    if config is None:
        return ("global",) * num_layers
    types: list[str] = []
    for position, entry in enumerate(config):
        types.extend(_expand_attention_entry(entry, position, remaining=num_layers - len(types)))
    if len(types) != num_layers:
        raise Conflict(
            ("attention_config", "num_layers"),
            f"describes {len(types)} layers of {num_layers}; "
            f'write [[[types...], repeat], ...] with lengths that add up to {num_layers}, or repeat "all"',
        )
    return tuple(types)


def _expand_attention_entry(entry: Any, position: int, *, remaining: int) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    match entry:
        case [[*pattern], repeat] if pattern and all(isinstance(name, str) for name in pattern):
            if repeat == "all":
                return [pattern[position % len(pattern)] for position in range(max(remaining, 0))]
            if isinstance(repeat, int) and not isinstance(repeat, bool) and repeat >= 0:
                return pattern * min(repeat, MAX_LAYERS)
    raise Conflict((f"attention_config.{position}",), 'write each entry as [[types...], repeat] with a number or "all"')


def derive_padded_vocab_size(vocab_size: int, *, divisible_by: int, model_parallel_size: int) -> int:
    """Rows of the embedding with padding: `vocab_size` rounded up to a multiple of `divisible_by * model_parallel_size`."""
    multiple = divisible_by * model_parallel_size
    return math.ceil(vocab_size / multiple) * multiple


def padded_vocab_size(args: NeoXArgs, vocab_size: int) -> int:
    """Rows of the embedding with padding, for a model with `vocab_size` rows (see `model_vocab_size`)."""
    return derive_padded_vocab_size(
        vocab_size, divisible_by=args.make_vocab_size_divisible_by, model_parallel_size=args.model_parallel_size
    )


def model_vocab_size(args: NeoXArgs, tokenizer_entries: int) -> int:
    """Rows of the vocabulary that the model has without padding: `vocab_size`, else one for each entry of the tokenizer.

    Raises ConfigError when the tokenizer has more entries than `vocab_size`.
    """
    if args.vocab_size is None:
        return tokenizer_entries
    if args.vocab_size < tokenizer_entries:
        raise ConfigError(
            [
                f'"vocab_size" is {args.vocab_size}, but the tokenizer has {tokenizer_entries} entries, each of which needs a row: '
                f"set vocab_size to {tokenizer_entries} or more, remove it, or choose the tokenizer of this model"
            ]
        )
    return args.vocab_size


def derive_fused_head(wanted: bool, *, precision: Precision, train_impl: str) -> bool:
    """Whether the loss is computed in one operation with the head's projection: in predicting the next token, and not in fp16.

    Its gradients are there before the loss scale is, without which small ones are lost in fp16.
    """
    return wanted and precision != "fp16" and train_impl == "normal"


def derive_key_head_copies(num_heads: int, num_kv_heads: int, *, ranks: int) -> int:
    """How often each key/value head is there once the query heads are shared out among `ranks`, so that each rank has equal groups of
    query heads with a key head of their own: 1 where `ranks` divides the key heads. Numbers are those of a tensor rank."""
    together = num_heads // num_kv_heads
    return together // math.gcd(together, num_heads // ranks)


def derive_head_dim(hidden_size: int, *, num_attention_heads: int) -> int:
    """Channels of a head where the heads share out the width; a check sees to it that nothing is left over."""
    return max(hidden_size // num_attention_heads, 1)


def derive_mlp_width(
    hidden_size: int, *, intermediate_size: int | None, expansion_factor: float | None, multiple_of: int, gated: bool
) -> int:
    """Input width of the MLP's second projection.

    Plain: the intermediate size rounded up to a multiple of `multiple_of`. Gated: half of the fused first projection, whose width is
    two thirds of the intermediate size rounded up to a multiple of `2 * multiple_of`.
    """
    wanted = intermediate_size or (int(expansion_factor * hidden_size) if expansion_factor else 4 * hidden_size)
    if gated:
        return math.ceil((wanted * 2 // 3) / (2 * multiple_of)) * multiple_of
    return math.ceil(wanted / multiple_of) * multiple_of


def derive_lr_decay_steps(train_iters: int, *, decay_iters: int | None, decay_fraction: float | None) -> int:
    """Iteration at which the learning rate has reached its end."""
    if decay_iters is not None:
        return decay_iters
    return train_iters if decay_fraction is None else math.floor(train_iters * decay_fraction)


def derive_alias(key: str, value: Any, *, alias: str, alias_value: Any) -> Any:
    """The value of `key` where `alias` is another way to write it: whichever is given (not None); both must agree."""
    if value is not None and alias_value is not None and value != alias_value:
        raise Conflict((key, alias), "these are two ways to write the same thing; keep one of them")
    return alias_value if value is None else value


def derive_text_gen_type(text_gen_type: str | None, *, sample_input_file: str | None) -> str:
    """What generate.py does when the config does not say."""
    return text_gen_type or ("input-file" if sample_input_file else "unconditional")


def derive_launcher(
    launcher: str | None, *, slurm: bool, mpi: bool, hosts: int, allocated: int = 0, several: bool = False
) -> str:
    """The launcher: the one named, that of an older switch, pdsh for several hosts, slurm for an allocation of several, else local.

    hosts: in the hostfile, 0 without one; allocated: machines that Slurm has given us, 0 with a hostfile; several: one host counts as several
    (`force_multi`).
    """
    by_switch = "slurm" if slurm else "openmpi" if mpi else None
    if by_switch and launcher and launcher != by_switch:
        raise Conflict(
            ("launcher", "deepspeed_slurm" if slurm else "deepspeed_mpi"),
            f'the older switch means launcher "{by_switch}"; keep one of the two',
        )
    named = launcher or by_switch
    if named:
        return named
    least = 1 if several else 2
    if allocated >= least:
        return "slurm"
    return "pdsh" if max(hosts, 1) >= least else "local"


def is_checkpoint_iteration(args: NeoXArgs, iteration: int) -> bool:
    """Whether a checkpoint is written once `iteration` steps are done.

    Multiples of checkpoint_factor (linear) or 1, f, f^2, ... rounded down (log), extra_save_iters, and the last iteration.
    """
    if iteration == args.train_iters or iteration in (args.extra_save_iters or ()):
        return True
    if args.checkpoint_factor is None or iteration < 1:
        return False
    if args.checkpoint_scale == "linear":
        return iteration % int(args.checkpoint_factor) == 0
    power = 1.0
    while int(power) < iteration:
        power *= args.checkpoint_factor
    return int(power) == iteration


def nearest_multiples(value: int, of: int) -> str:
    """`"768 or 832"`: the positive multiples of `of` on both sides of `value`."""
    below = value // of * of
    return f"{below} or {below + of}" if below else str(of)


def nearest_divisors(value: int, of: int) -> str:
    """`"3 or 6"`: the divisors of `of` on both sides of `value`."""
    start = min(value, of)
    below = next((divisor for divisor in range(start, max(start - NEAR, 0), -1) if of % divisor == 0), 1)
    above = next((divisor for divisor in range(value + 1, min(value + NEAR, of) + 1) if of % divisor == 0), of)
    return f"{below} or {above}" if below < above else str(below)


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
