"""A configuration on its way to being resolved: typed values, some of them broken, with what was derived and what went wrong.

Rules read a draft like finished arguments (`draft.hidden_size`). Reading a key whose value is broken stops that rule and no other,
so one pass reports every independent problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigValues, quote

WRITTEN_AS: dict[str, tuple[str, ...]] = {
    "zero_stage": ("zero_optimization.stage",),
    "lr": ("optimizer.params.lr",),
    "optimizer_type": ("optimizer.type",),
    "train_micro_batch_size_per_gpu": ("batch_size",),
    "fp16": ("fp16.enabled",),
    "bf16": ("bf16.enabled",),
    "launcher": ("deepspeed_slurm", "deepspeed_mpi", "hostfile"),
    "precision": ("fp16.enabled", "bf16.enabled"),
    "global_num_gpus": ("world_size", "num_gpus", "hostfile"),
}
"""Keys whose value is usually written elsewhere, so that messages point there."""


class BrokenKey(Exception):
    """Internal: a rule read a key that has no usable value; its problem is already reported."""


class Draft:
    """Values by key (`values`), those the user gave (`given`), derivation sentences by key (`rules`), and `problems` so far.

    planning: nothing will run, so only what the arguments themselves say is looked at.
    """

    def __init__(
        self,
        arguments: type[BaseModel],
        values: Mapping[str, Any],
        *,
        given: frozenset[str],
        broken: set[str],
        source: ConfigValues,
    ) -> None:
        self.arguments = arguments
        self.values = dict(values)
        self.given = given
        self.broken = broken
        self.source = source
        self.planning = False
        self.rules: dict[str, str] = {}
        self.problems: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """The value of a key, or of a property of the arguments computed from this draft."""
        if name in self.broken:
            raise BrokenKey(name)
        if name in self.values:
            return self.values[name]
        attribute = getattr(self.arguments, name, None)
        if isinstance(attribute, property) and attribute.fget is not None:
            return attribute.fget(self)
        raise AttributeError(name)

    def default(self, key: str) -> Any:
        """The default of `key`."""
        return self.arguments.model_fields[key].default

    def written(self, key: str) -> Any:
        """The value of `key` when the user gave one, else None."""
        return getattr(self, key) if key in self.given else None

    def derive(self, key: str, value: Any, rule: str | None) -> None:
        """Set `key`. When that changes its value, `rule` is kept for the summary; None keeps quiet about what nobody asks."""
        if self.values.get(key) != value and rule is not None:
            self.rules[key] = rule
        self.values[key] = value

    def run(self, rule: Callable[[Any], None], *, sets: tuple[str, ...] = ()) -> None:
        """Apply one rule; on failure collect its problem and mark the keys it should have set as broken."""
        try:
            rule(cast(Any, self))
        except BrokenKey:
            self.broken.update(sets)
        except Conflict as conflict:
            self.problems.append(self.describe(conflict.keys, conflict.reason))
            self.broken.update(sets)
        except ConfigError as error:
            self.problems.extend(error.problems)
            self.broken.update(sets)

    def describe(self, keys: Sequence[str], reason: str) -> str:
        """A problem: the value and place of every key involved, the reason, and the lines they are written in."""
        names = dict.fromkeys(map(self.written_as, keys))
        places = [self.source.value_origin(name) for name in names if self._is_given(name)]
        return f"{', '.join(map(self.locate, names))}: {reason}{excerpt(self.source.files, places)}"

    def describe_key(self, key: str, reason: str) -> str:
        """A problem with a key itself, whatever its value. reason: goes on behind the place, as in " is not a known key"."""
        origin = self.source.origin(key)
        place = "" if origin is None else f" ({origin})"
        return f'"{key}"{place}{reason}{excerpt(self.source.files, [origin])}'

    def written_as(self, key: str) -> str:
        """The name under which the user gave `key`, which may be another one."""
        if key in self.given:
            return key
        elsewhere = (name for name in WRITTEN_AS.get(key, ()) if self.user_value(name) is not None)
        return next((name for name in elsewhere if self.user_value(name) is not False), key)

    def locate(self, key: str) -> str:
        """`"norm" is "x" (file:line:column)`, saying so when the value is a default or derived."""
        key = self.written_as(key)
        if self._is_given(key):
            origin = self.source.value_origin(key)
            place = "" if origin is None else f" ({origin})"
            return f'"{key}" is {quote(self.user_value(key))}{place}'
        value = self.values.get(key)
        if value is None:
            return f'"{key}" is not given'
        return f'"{key}" is {quote(value)} ({"derived" if key in self.rules else "the default"})'

    def _is_given(self, key: str) -> bool:
        return key in self.source.values or self.user_value(key) is not None

    def user_value(self, key: str) -> Any:
        """What was written for `key` ("norm", "optimizer.params.lr"), before its type was read; None when nothing was."""
        return self.source.value(key)
