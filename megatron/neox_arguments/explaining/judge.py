"""What becomes of each key of a config here: same, renamed, changed, without effect, not built yet, unsupported, unknown or wrong.

Every key is judged by itself, so this works on parts of a configuration, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.differences import DIFFERENCES
from megatron.neox_arguments.explaining.field_docs import describe_field
from megatron.neox_arguments.keys.sections import LEGACY
from megatron.neox_arguments.keys.types import read_number
from megatron.neox_arguments.reading.legacy import Refusal, Translation, translate
from megatron.neox_arguments.reading.values import ConfigValues, Origin, quote
from megatron.neox_arguments.resolving.checks.sections import check_extra_deepspeed_keys, check_sections
from megatron.neox_arguments.resolving.draft import Draft
from megatron.neox_arguments.resolving.read import read_draft
from megatron.neox_arguments.resolving.unsupported import WITHOUT_EFFECT, check_runtime_keys, is_off, not_built

Kind = Literal["same", "renamed", "changed", "without effect", "not built yet", "unsupported", "unknown", "wrong"]
HARMLESS: tuple[Kind, ...] = ("same", "renamed", "changed", "without effect")
"""What does not keep a run from starting."""

_ACCEPTED = re.compile(r"Accepted(?: without effect so far)?[;:,.] (.+?)(?:\. |\.$)")


@dataclass(frozen=True)
class Verdict:
    """A key (or a key in a section) with its value and place, what becomes of it, and why."""

    key: str
    value: Any
    origin: Origin | None
    kind: Kind
    detail: str = ""


def judge(values: ConfigValues, *, among: ConfigValues | None = None) -> tuple[Verdict, ...]:
    """A verdict for every key in the order of `values`; keys in sections have one of their own when there is something to tell.

    Older keys that are converted with the help of others look these up `among` all values that go together.
    """
    translations, refusals = translate(values, among=among)
    older: dict[str, Translation | Refusal] = {item.key: item for item in translations}
    older.update({item.key: item for item in refusals})
    return tuple(verdict for key in values.values for verdict in _judge_with_section(values, key, older))


def _judge_with_section(
    values: ConfigValues, key: str, older: Mapping[str, Translation | Refusal]
) -> Iterator[Verdict]:
    written = values.values[key]
    within = {path: item for path, item in older.items() if path.startswith(f"{key}.")}
    rest = written
    for path in within:
        rest = _without(rest, path.split(".")[1:])
    yield replace(_judge(key, rest, older.get(key)), value=written, origin=values.origin(key))
    for path, item in within.items():
        yield replace(_judge(path, item.value, item), origin=item.origin)
    for name in _idle_keys(key, written):
        detail = "DeepSpeed does not know it any more"
        yield Verdict(f"{key}.{name}", written[name], values.origin((key, name)), "without effect", detail)


def _idle_keys(section: str, written: Any) -> list[str]:
    """Keys of a section that old files hold and nothing reads."""
    known = LEGACY.get(section, frozenset()) - {"type"}
    names = [name for name in written if name in known] if isinstance(written, Mapping) else []
    return [name for name in names if section != "zero_optimization" or is_off(written[name], None)]


def _without(section: Any, path: list[str]) -> Any:
    """A copy of nested dictionaries that lacks one key."""
    name, *rest = path
    if not isinstance(section, Mapping) or name not in section:
        return section
    if rest:
        return {**section, name: _without(section[name], rest)}
    return {key: value for key, value in section.items() if key != name}


def _judge(key: str, value: Any, older: Translation | Refusal | None) -> Verdict:
    if isinstance(older, Refusal):
        return Verdict(key, value, None, "unsupported", older.reason)
    if isinstance(older, Translation):
        return _judge_translation(key, value, older)
    objection = _objection(key, value) if value is not None or key not in NeoXArgs.model_fields else None
    if objection is not None:
        return Verdict(key, value, None, *objection)
    if (
        value is not None
        and key in DIFFERENCES
        and DIFFERENCES[key].given
        and DIFFERENCES[key].applies(read_number(value))
    ):
        return Verdict(key, value, None, "changed", DIFFERENCES[key].given)
    idle = _without_effect(key, value)
    return Verdict(key, value, None, "without effect" if idle else "same", idle)


def _judge_translation(key: str, value: Any, older: Translation) -> Verdict:
    becomes = ", ".join(f"{name}: {quote(new)}" for name, new in older.becomes.items())
    detail = f"read as {becomes}; {older.reason}" if becomes else older.reason
    nested = {name: _nest(name, new) for name, new in older.becomes.items()}
    for name, (top, content) in nested.items():
        objection = _objection(top, content)
        if objection is not None:
            return Verdict(
                key, value, None, objection[0], f"read as {name}: {quote(older.becomes[name])}; {objection[1]}"
            )
    return Verdict(key, value, None, "renamed" if becomes else "without effect", detail)


def _nest(path: str, value: Any) -> tuple[str, Any]:
    """`("optimizer", {"type": value})` of "optimizer.type"."""
    top, *rest = path.split(".")
    for name in reversed(rest):
        value = {name: value}
    return top, value


def _objection(key: str, value: Any) -> tuple[Kind, str] | None:
    """What keeps this key alone from being used, and the way out."""
    draft = read_draft(NeoXArgs, ConfigValues({key: value}))
    if key not in NeoXArgs.model_fields:
        hint = draft.problems[0].partition(" is not a known key")[2]
        return "unknown", hint.strip("; ()") or "remove it"
    for check in (check_sections, check_extra_deepspeed_keys):
        draft.run(check)
    if draft.problems:
        return "wrong", draft.problems[0].removeprefix(f'"{key}" is {quote(value)}: ')
    draft.run(check_runtime_keys)
    if draft.problems:
        return "unsupported", "only running programs set it; remove it"
    reasons = [feature.reason for feature in not_built(_prepared(draft, key)) if _asks(key, feature.keys[0])]
    return ("not built yet", "; ".join(reasons)) if reasons else None


def _asks(key: str, path: str) -> bool:
    """Whether `path` lies in `key`, or says the same."""
    return path.partition(".")[0] == key or (path == "optimizer_type" and key == "optimizer")


def _prepared(draft: Draft, key: str) -> Draft:
    """The draft of one key with what would be derived from it, as far as features are recognised by that."""
    layers = draft.values["attention_config"] or ()
    draft.values["attention_config"] = tuple(name for name in _texts_within(layers) if name != "all")
    kind = (draft.values["optimizer"] or {}).get("type")
    if isinstance(kind, str):
        draft.values["optimizer_type"] = kind.lower()
    draft.values["user_script"] = "train.py"
    return draft


def _texts_within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_within(item)


def _without_effect(key: str, value: Any) -> str:
    """Why nothing changes by this value; empty when something does, or when the value asks for nothing."""
    if key not in NeoXArgs.model_fields or is_off(value, NeoXArgs.model_fields[key].default):
        return ""
    accepted = _ACCEPTED.search(describe_field(key).text)
    return WITHOUT_EFFECT.get(key) or (accepted.group(1) if accepted else "")
