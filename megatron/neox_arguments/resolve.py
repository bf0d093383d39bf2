"""Written values -> finished arguments: read the types, derive what follows, check what must hold, report everything at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.errors import ConfigError, NeoXError
from megatron.neox_arguments import derive
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.draft import Draft
from megatron.neox_arguments.legacy import Translation, modernise
from megatron.neox_arguments.read import read_draft
from megatron.neox_arguments.runner import RunnerArgs
from megatron.neox_arguments.steps import STEPS, STEPS_BEFORE_WORLD
from megatron.neox_arguments.types import Group
from megatron.neox_arguments.unsupported import WITHOUT_EFFECT, NotBuilt, is_off, not_built
from megatron.neox_arguments.validate import CHECKS, HOST_CHECKS, RUN_CHECKS
from megatron.neox_arguments.values import ConfigValues

REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length")
"""Keys without which there is no model."""


@dataclass(frozen=True)
class Resolution:
    """Finished values by key, the rule behind each derived one, remarks for the user, translations of older keys, and (only while
    planning) features that are asked for but missing."""

    values: dict[str, Any]
    rules: dict[str, str]
    notes: tuple[str, ...]
    translations: tuple[Translation, ...]
    not_built: tuple[NotBuilt, ...]


def resolve(
    arguments: type[Group],
    source: ConfigValues,
    *,
    world_size: int | Callable[[Any], int] | None,
    planning: bool = False,
) -> Resolution:
    """Resolve a configuration. Raises one ConfigError with every problem that can be found.

    planning: nothing will run. Features that are not built are remarks then, files and hosts of this machine are not looked at, and
    keys that only a run needs may be missing.
    """
    source, translations = modernise(source)
    draft = read_draft(arguments, source)
    draft.planning = planning
    draft.problems[:0] = [*source.problems, *_refused_overrides(draft)]
    _require_keys(draft)
    for step, sets in STEPS_BEFORE_WORLD if planning else (*HOST_CHECKS, *STEPS_BEFORE_WORLD):
        draft.run(step, sets=sets)
    draft.run(lambda draft: _derive_world(draft, world_size), sets=("global_num_gpus", "world_size"))
    for step, sets in STEPS:
        draft.run(step, sets=sets)
    missing = not_built(draft)
    if not planning:
        draft.problems += [draft.describe(feature.keys, feature.reason) for feature in missing]
    for check in CHECKS if planning else (*CHECKS, *RUN_CHECKS):
        draft.run(check)
    if draft.problems:
        raise ConfigError(draft.problems)
    return Resolution(draft.values, draft.rules, tuple(_notes(draft, translations)), translations, missing)


def _refused_overrides(draft: Draft) -> list[str]:
    """A problem for each key that two files hold, when the config asks for that. The command line may always override."""
    if draft.values["strict_merge"] is not True:
        return []
    return [
        f'"{override.key}" is written in two files and strict_merge is on: {override}; remove one of them'
        for override in draft.source.overrides
        if override.new_origin is not None and override.new_origin.line is not None
    ]


def _require_keys(draft: Draft) -> None:
    for key in REQUIRED:
        if key not in draft.given:
            draft.problems.append(f'"{key}" is missing: every model needs it; give it, or add the file of a model')
            draft.broken.add(key)


def _notes(draft: Draft, translations: Sequence[Translation]) -> list[str]:
    fields = draft.source.values
    return [str(translation) for translation in translations] + [
        f"{draft.locate(key)}: accepted without effect; {reason}"
        for key, reason in WITHOUT_EFFECT.items()
        if key in fields and not is_off(draft.values[key], False)
    ]


def _derive_world(draft: Draft, world_size: int | Callable[[Any], int] | None) -> None:
    written = derive.derive_alias(
        "global_num_gpus", draft.written("global_num_gpus"), alias="world_size", alias_value=draft.written("world_size")
    )
    rule = "given as world_size"
    if callable(world_size):
        size, rule = _ask_for_world(draft, world_size), "hosts and devices in use"
    elif world_size is not None:
        size, rule = world_size, "number of processes started"
    else:
        size, rule = written or 1, "one process, unless more are given" if written is None else rule
    if written is not None and written != size:
        raise Conflict(
            ("global_num_gpus",), f"{size} processes will run; remove the key, or change hosts, num_nodes or num_gpus"
        )
    draft.derive("global_num_gpus", size, rule)
    draft.derive("world_size", size, "equals global_num_gpus")


def _ask_for_world(draft: Draft, world_size: Callable[[Any], int]) -> int:
    for key in RunnerArgs.model_fields:
        getattr(draft, key)  # a broken key stops this rule here
    try:
        return world_size(draft.arguments.model_construct(**draft.values))
    except NeoXError as error:
        raise ConfigError(str(error).splitlines()) from None
