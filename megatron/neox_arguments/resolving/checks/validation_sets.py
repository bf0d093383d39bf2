"""Named validation sets: names that can be told apart, and datasets for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from megatron.errors import ConfigError
from megatron.neox_arguments.keys.expected import expectation
from megatron.neox_arguments.validation_sets import NAME, TAKEN, ValidationSet
from megatron.registry import did_you_mean

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

SHAPE = "write {paths: [PREFIX]}"


def check_validation_sets(args: Draft) -> None:
    """Every set has a name of its own, datasets, and for each of them a weight and label data, or none."""
    problems = []
    for name, values in (args.validation_sets or {}).items():
        path = f"validation_sets.{name}"
        problems += [args.describe_key(path, reason) for reason in _wrong_name(name)]
        if not isinstance(values, Mapping):
            problems.append(args.describe((path,), f"expected keys and values; {SHAPE}"))
            continue
        unknown = [args.describe_key(f"{path}.{key}", reason) for key, reason in _unknown_keys(values)]
        wrong = [] if unknown else _wrong_values(values)
        problems += [*unknown, *(args.describe((f"{path}.{key}" if key else path,), reason) for key, reason in wrong)]
    if problems:
        raise ConfigError(problems)


def _wrong_name(name: str) -> Iterator[str]:
    if name in TAKEN:
        yield ": this name means something else in metrics; choose another one"
    elif not NAME.fullmatch(name):
        yield ": a name begins with a letter and has only letters, digits and _; choose another one"


def _unknown_keys(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    known = list(ValidationSet.model_fields)
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known) or f"; a set has {', '.join(known)}, remove this one"
            yield key, f" is not a known key{hint}"


def _wrong_values(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """(key, reason) of each value that is missing, of another type, or does not go with the paths."""
    try:
        found = ValidationSet.model_validate(values)
    except ValidationError as error:
        for details in error.errors():
            key = str(details["loc"][0])
            missing = key == "paths" and (details["type"] in ("missing", "too_short") or values.get("paths") is None)
            yield ("" if missing else key), f"a set needs paths; {SHAPE}" if missing else expectation(details, key)
        return
    for key, given in (("weights", found.weights), ("label_paths", found.label_paths)):
        if given is not None and len(given) != len(found.paths):
            yield key, f"there are {len(found.paths)} datasets; give one each"
    if found.weights is not None and not sum(found.weights):
        yield "weights", "one of the weights must be more than 0; raise one"
