"""Where the value of a key comes from: its default, every file that gave it, the command line, and the rule that derived it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from megatron.errors import ConfigError
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.sections import SECTIONS
from megatron.neox_arguments.reading.aliases import spellings
from megatron.neox_arguments.reading.legacy import Translation
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.reading.yaml_text import parse_yaml
from megatron.neox_arguments.resolving.draft import BrokenKey, Draft

PROPERTIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "pipeline_stages": ("pipe_parallel_size, but at least 1", ("pipe_parallel_size",)),
    "data_parallel_size": (
        "processes / (pipeline stages x context ranks x tensor ranks)",
        ("global_num_gpus", "pipeline_stages", "context_parallel_size", "model_parallel_size"),
    ),
    "gated_activation": ("whether the activation is one of geglu, reglu, swiglu, bilinear, glu", ("activation",)),
    "mlp_width": (
        "the intermediate size, of a gated activation half of two thirds of it, rounded up to a multiple of mlp_multiple_of",
        ("intermediate_size", "expansion_factor", "hidden_size", "gated_activation", "mlp_multiple_of"),
    ),
    "norm_epsilon": (
        "the epsilon of the chosen norm",
        ("norm", "layernorm_epsilon", "rms_norm_epsilon", "scalenorm_epsilon"),
    ),
    "optimizer_params": ("optimizer.params without lr and weight_decay", ("optimizer",)),
    "lr_decay_steps": (
        "lr_decay_iters, else lr_decay_fraction x train_iters, else train_iters",
        ("lr_decay_iters", "lr_decay_fraction", "train_iters"),
    ),
    "warmup_steps": ("warmup x lr_decay_steps", ("warmup", "lr_decay_steps")),
}
"""Values computed from several keys: the rule in words and the keys it reads."""

_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "data_parallel_size")
_INPUTS: dict[str, tuple[str, ...]] = {
    "attention_config": ("num_layers",),
    "train_batch_size": _BATCH,
    "train_micro_batch_size_per_gpu": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "pipe_parallel_size": ("zero_stage",),
    "precision": ("fp16.enabled", "bf16.enabled"),
    "dynamic_loss_scale": ("precision", "loss_scale"),
    "launcher": ("hostfile", "num_nodes", "include"),
    "global_num_gpus": ("pipe_parallel_size", "context_parallel_size", "model_parallel_size"),
}
"""The keys behind rules that do not name them."""


@dataclass(frozen=True)
class Writing:
    """One place that gave a key: the name it used, the value, and a remark."""

    place: str
    name: str
    value: Any
    remark: str = ""


@dataclass(frozen=True)
class Input:
    """A value that a rule read, and the place that gave it (empty for defaults and derived values)."""

    key: str
    value: Any
    place: str


@dataclass(frozen=True)
class Provenance:
    """A value and how it came about: what was written in the order in which it counts, and the rule with the values it read."""

    key: str
    value: Any
    known: bool
    writings: tuple[Writing, ...]
    rule: str
    inputs: tuple[Input, ...]


def trace(key: str, draft: Draft, written: ConfigValues, translations: tuple[Translation, ...]) -> Provenance:
    """How `key` (a key, a key in a section, or a property of NeoXArgs) got its value in `draft`, which was made from `written`."""
    known, value = _value(draft, key)
    if known and value is None:
        value = next(
            (other for _, other in (_value(draft, name) for name in spellings(key)) if other is not None), None
        )
    rule, names = PROPERTIES.get(key) or _rule(draft, key)
    if set(names) & (set(spellings(key)) - {key}):
        rule = ""  # it only repeats what was written under the other name
    inputs = tuple(_input(draft, name) for name in names if name != key) if rule else ()
    return Provenance(key, value, known, tuple(_writings(key, draft, written, translations)), rule, inputs)


def _input(draft: Draft, key: str) -> Input:
    places = (draft.source.origins.get(tuple(name.split("."))) for name in spellings(key))
    return Input(key, _value(draft, key)[1], next((str(place) for place in places if place is not None), ""))


def _value(draft: Draft, key: str) -> tuple[bool, Any]:
    """(whether there is a usable value, the value)."""
    top, *inner = key.split(".")
    try:
        value = getattr(draft, top)
    except (BrokenKey, ConfigError, AttributeError, TypeError, ZeroDivisionError):  # of a part, or a wrong value
        return False, None
    for name in inner:
        value = value.get(name) if isinstance(value, Mapping) else None
    return True, _default(key) if inner and value is None else value


def _default(path: str) -> Any:
    """What a key in a section is while the section does not hold it; None where that follows from something else."""
    section, _, name = path.rpartition(".")
    field = SECTIONS[section].model_fields.get(name) if section in SECTIONS else None
    return None if field is None else field.get_default()


def _rule(draft: Draft, key: str) -> tuple[str, tuple[str, ...]]:
    rule = draft.rules.get(key, "")
    named = [
        name for name in re.findall(r"[a-z_0-9.]+", rule) if name in NeoXArgs.model_fields or "." in name.strip(".")
    ]
    return rule, _INPUTS.get(key) or tuple(dict.fromkeys(name.strip(".") for name in named))


def _writings(
    key: str, draft: Draft, written: ConfigValues, translations: tuple[Translation, ...]
) -> Iterator[Writing]:
    """What each file and then each word of the command line says about the key."""
    given: set[str] = set()
    for part, path in _parts(written):
        inner = ".".join(path)
        if inner.startswith(f"{key}."):
            yield Writing(str(part.origin(path)), inner, part.value(inner))
            continue
        found = [*_in_part(part, spellings(key), translations)]
        yield from found
        for name in spellings(key):
            if name in given and not found and (loss := _loss(part, path, name)) is not None:
                yield loss
                given.discard(name)
        given.update(item.name if item.name in spellings(key) else key for item in found)


def _parts(written: ConfigValues) -> Iterator[tuple[ConfigValues, tuple[str, ...]]]:
    """What was merged, in order, each with the path that it replaces; a file replaces every key that it holds."""
    for file in written.files:
        yield parse_yaml(file.text, source=file.path), ()
    for assignment in written.assignments:
        yield ConfigValues().with_value(assignment.path, assignment.value, assignment.origin), assignment.path


def _in_part(part: ConfigValues, names: tuple[str, ...], translations: tuple[Translation, ...]) -> Iterator[Writing]:
    for name in names:
        value = part.value(name)
        if value is not None:
            yield Writing(str(part.origin(name)), name, value)
    for older in translations:
        if older.origin is not None and older.origin == part.origin(older.key):
            for name in names:
                if name in older.becomes:
                    remark = f"{name} now; {older.reason}"
                    yield Writing(str(older.origin), older.key, older.value, remark)


def _loss(part: ConfigValues, path: tuple[str, ...], name: str) -> Writing | None:
    """How a part without a value for `name` takes away the one of an earlier part; None when it does not."""
    names = tuple(name.split("."))
    if names[0] not in part.values or path != names[: len(path)]:
        return None
    section: Any = part.values
    for depth, inner in enumerate(names, start=1):
        if inner not in section:
            replaced = ".".join(path or names[:1])
            remark = "replaces the whole section, which is without it"
            return Writing(str(part.origin(replaced)), replaced, None, remark)
        section = section[inner]
        if not isinstance(section, Mapping):
            taken = ".".join(names[:depth])
            return Writing(str(part.origin(taken)), taken, None, "null: not given, earlier values do not count")
    return None
