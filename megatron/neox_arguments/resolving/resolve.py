"""Written values -> finished arguments: read the types, derive what follows, check what must hold, report everything at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.errors import ConfigError, NeoXError
from megatron.neox_arguments import derive
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.keys.types import Group
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.legacy import Translation, modernise, translate
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.checks.curriculum import slow_lengths
from megatron.neox_arguments.resolving.draft import Draft
from megatron.neox_arguments.resolving.origins import origins_of
from megatron.neox_arguments.resolving.read import read_draft
from megatron.neox_arguments.resolving.steps import STEPS, STEPS_BEFORE_WORLD
from megatron.neox_arguments.resolving.unsupported import WITHOUT_EFFECT, NotBuilt, is_off, not_built
from megatron.neox_arguments.resolving.validate import CHECKS, HOST_CHECKS, RUN_CHECKS

REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length")
"""Keys without which there is no model."""


@dataclass(frozen=True)
class Resolution:
    """Finished values by key, the rule behind each derived one, remarks for the user, translations of older keys, (only while
    planning) features that are asked for but missing, and where values come from (see Origins)."""

    values: dict[str, Any]
    rules: dict[str, str]
    notes: tuple[str, ...]
    translations: tuple[Translation, ...]
    not_built: tuple[NotBuilt, ...]
    origins: dict[str, str]


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
    draft, translations, missing = derive_all(arguments, source, world_size=world_size, planning=planning)
    if draft.problems:
        raise ConfigError(draft.problems)
    notes = tuple(_notes(draft, translations))
    return Resolution(draft.values, draft.rules, notes, translations, missing, origins_of(draft))


def derive_all(
    arguments: type[Group],
    source: ConfigValues,
    *,
    world_size: int | Callable[[Any], int] | None,
    planning: bool = False,
) -> tuple[Draft, tuple[Translation, ...], tuple[NotBuilt, ...]]:
    """As `resolve`, raising nothing: all that can be read and derived, with the problems in the draft."""
    refused = {refusal.key for refusal in translate(source)[1]}
    source, translations = modernise(source)
    draft = read_draft(arguments, source)
    draft.broken.update(refused & arguments.model_fields.keys())
    draft.planning = planning
    draft.problems[:0] = [*source.problems, *_refused_overrides(draft)]
    try:
        _require_keys(draft)
    except ConfigError:
        return draft, translations, ()
    for step, sets in STEPS_BEFORE_WORLD if planning else (*HOST_CHECKS, *STEPS_BEFORE_WORLD):
        draft.run(step, sets=sets)
    derived_launcher = () if "launcher" in draft.given else ("launcher",)  # it follows from the hosts
    draft.run(lambda draft: _derive_world(draft, world_size), sets=("global_num_gpus", "world_size", *derived_launcher))
    for step, sets in STEPS:
        draft.run(step, sets=sets)
    missing = not_built(draft)
    if not planning:
        draft.problems += [draft.describe(feature.keys, feature.reason) for feature in missing]
    for check in CHECKS if planning else (*CHECKS, *RUN_CHECKS):
        draft.run(check)
    return draft, translations, missing


def _refused_overrides(draft: Draft) -> list[str]:
    """A problem for each key that two files hold, when the config asks for that. The command line may always override."""
    if draft.values["strict_merge"] is not True:
        return []
    return [
        f'"{override.key}" is written in two files and strict_merge is on: {override}; remove one of them'
        + excerpt(draft.source.files, [override.old_origin, override.new_origin])
        for override in draft.source.overrides
        if override.new_origin is not None and override.new_origin.line is not None
    ]


def _require_keys(draft: Draft) -> None:
    """Refuse a configuration without a model. Raises ConfigError when nothing of one is given: what else is missing follows from that."""
    nulls = [key for key in REQUIRED if key in draft.source.values and key not in draft.given]
    draft.problems += [draft.describe((key,), "every model needs it; give it a value") for key in nulls]
    missing = [key for key in REQUIRED if key not in draft.given and key not in nulls]
    draft.broken.update((*nulls, *missing))
    if not missing:
        return
    names = ", ".join(f'"{key}"' for key in missing)
    what = (
        f"{names} is missing: every model needs it; give it"
        if len(missing) == 1
        else f"{names} are missing: every model needs them; give them"
    )
    where = f" in {', '.join(file.path for file in draft.source.files)}" if draft.source.files else ""
    example = "configs/125M.yml"
    draft.problems.append(
        f"{what}{where}, or add the file of a model, such as {example}"
        if draft.source.values.keys() - {"user_script"}
        else f"no key is given{where}: add the files of a model and of its surroundings, such as {example} configs/local_setup.yml"
    )
    if len(missing) == len(REQUIRED):
        raise ConfigError(draft.problems)


def _notes(draft: Draft, translations: Sequence[Translation]) -> list[str]:
    fields = draft.source.values
    unheard = [
        f"{draft.locate(key)}: accepted without effect; {reason}"
        for key, reason in WITHOUT_EFFECT.items()
        if key in fields and not is_off(draft.values[key], False)
    ]
    return [*map(str, translations), *unheard, *slow_lengths(draft)]


def _derive_world(draft: Draft, world_size: int | Callable[[Any], int] | None) -> None:
    written = derive.derive_alias(
        "global_num_gpus", draft.written("global_num_gpus"), alias="world_size", alias_value=draft.written("world_size")
    )
    rule = "given as world_size"
    if callable(world_size):
        size, rule = _ask_for_world(draft, world_size), "hosts and devices in use"
    elif world_size is not None:
        size, rule = (
            world_size,
            "assumed; counted when a run starts" if draft.planning else "number of processes started",
        )
    else:
        size, rule = written or 1, "one process, unless more are given" if written is None else rule
    if written is not None and written != size:
        raise Conflict(
            ("global_num_gpus",),
            f"{size} {'process' if size == 1 else 'processes'} will run; remove the key, or change hosts, num_nodes or num_gpus",
        )
    draft.derive("global_num_gpus", size, rule)
    draft.derive("world_size", size, "equals global_num_gpus")


def _ask_for_world(draft: Draft, world_size: Callable[[Any], int]) -> int:
    for key in RunnerArgs.model_fields:
        getattr(draft, key)  # a broken key stops this rule here
    try:
        return world_size(draft.arguments.model_construct(**draft.values))
    except ConfigError:
        raise
    except NeoXError as error:
        raise ConfigError([str(error)]) from None
