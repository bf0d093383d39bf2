"""The page of all keys (configs/neox_arguments.md), as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import get_args

from megatron.neox_arguments.explaining.differences import DIFFERENCES
from megatron.neox_arguments.explaining.field_docs import GROUP_OF, GROUPS, describe_group
from megatron.neox_arguments.explaining.key_state import KeyState, state_of
from megatron.neox_arguments.explaining.section_docs import describe_key, field_of, sub_keys
from megatron.neox_arguments.reading.legacy_rules import RULES, Rule

_TITLES = {
    "checkpoints": "Checkpoint",
    "deepspeed": "DeepSpeed",
    "moe": "Mixture-of-experts",
    "post_training": "Post-training",
}

_OLDER = "Keys of older files"
_DIFFERENCES = "Differences from GPT-NeoX"
_NOT_BUILT = "What is not built yet"
_LISTS = (_OLDER, _DIFFERENCES, _NOT_BUILT)

_HEAD = """\
# Keys of a configuration

Every key that a config file or `key=value` on the command line may hold. `python deepy.py explain KEY` shows the same for one key.

This page is made from `megatron/neox_arguments/` by `python tools/config_reference.py --write`; do not edit it.

* `-` and `_` in keys are the same. Numbers may be written as `1e-4` or `5e8`. `null` means "not given".
* *derived* is what follows from other keys when a key is not given.
* A key that is *not built yet* is refused with a clear message unless it has its default; it is here because existing configs hold it.
* *accepted without effect* means that no number depends on the key.
* Editors with a YAML language server complete and check config files that begin with
  `# yaml-language-server: $schema=neox_arguments.schema.json` (the path from the file to this folder's schema).
"""


def page_text() -> str:
    """The whole page."""
    blocks = [
        _HEAD,
        _contents(),
        *(block for group in GROUPS for block in _group(group)),
        _older_keys(),
        _differences(),
        _not_built(),
    ]
    return "\n".join(block.rstrip() + "\n" for block in blocks)


def _contents() -> str:
    groups = [f"* [{_title(name)}](#{_anchor(_title(name))}): {describe_group(name)}" for name in GROUPS]
    return "\n".join(["## Contents", "", *groups, *(f"* [{title}](#{_anchor(title)})" for title in _LISTS)])


def _title(group: str) -> str:
    # "keys" keeps the anchor of the group `optimizer` apart from that of the key `optimizer`.
    return f"{_TITLES.get(group, group.replace('_', ' ').capitalize())} keys"


def _anchor(title: str) -> str:
    """The fragment that code hosts give a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _group(name: str) -> Iterator[str]:
    keys = [key for key, group in GROUP_OF.items() if group == name]
    yield f"## {_title(name)}\n\n{describe_group(name)}\n\n{_links(keys)}"
    yield from map(_key, keys)


def _key(key: str) -> str:
    lines = [f"### `{key}`", "", _facts(key), "", _with_links(_text(key), inside=key)]
    paths = list(sub_keys(key))
    if paths:
        lines += [
            "",
            *_table(("key", "values", "default", "what it does"), [_row(path, section=key) for path in paths]),
        ]
    return "\n".join(lines)


def _facts(key: str) -> str:
    """Type, range, default and state, on a line."""
    facts = [_values(key), _default(key) or "no default", _state(state_of(key))]
    return " · ".join(fact for fact in facts if fact)


def _row(path: str, *, section: str) -> tuple[str, ...]:
    """A key within a section. What holds for a whole section, and what the text says itself, is not said again."""
    state, text = state_of(path), _text(path)
    is_told = state == state_of(path.rpartition(".")[0]) or text.startswith(("Older", "Accepted"))
    default = _default(path).removeprefix("default").removeprefix(":").strip()
    told = "" if is_told or state.state == "built" else f"{_state(state)}. "
    name = f"`{path.removeprefix(section + '.')}`"
    return name, _values(path), default, _with_links(told + text, inside=section)


def _state(state: KeyState) -> str:
    if state.state == "built":
        return ""
    return f"**{state.state}**{': ' if state.detail else ''}{state.detail}"


def _values(path: str) -> str:
    doc = describe_key(path)
    if doc.type == "true or false" or not doc.allowed:
        return doc.type
    if doc.allowed.startswith(("at ", "above ", "below ")):
        return f"{doc.type}, {doc.allowed}"
    built, _, missing = doc.allowed.removesuffix(")").partition(" (not built yet: ")
    names = _names(built) + (f" (not built yet: {_names(missing)})" if missing else "")
    return f"one of {names}" if doc.type == "name" else f"{doc.type}, types {names}"


def _names(text: str) -> str:
    return ", ".join(f"`{name}`" for name in text.split(", "))


def _default(path: str) -> str:
    doc, field = describe_key(path), field_of(path)
    if field.default is not None:
        return f"default `{doc.default}`"
    if doc.default.startswith("none"):
        return doc.default.replace("none: ", "required: ") if doc.default != "none" else ""
    # A field that can be None is not given then; any other gets a value from what is given.
    word = "default" if type(None) in get_args(field.annotation) else "derived"
    return _with_links(f"{word}: {doc.default}", inside=path)


def _text(path: str) -> str:
    """What the key does, without its default, which stands beside it."""
    doc = describe_key(path)
    return doc.text.replace(f"Default: {doc.default}.", "").strip()


def _with_links(text: str, *, inside: str) -> str:
    """The text with every other key of two words or more linked to its place, except in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _KEY.sub(lambda m: _mention(m[0], inside), part) for part in parts)


def _mention(key: str, inside: str) -> str:
    return f"`{key}`" if key == inside else f"[{key}](#{key})"


_KEY = re.compile(rf"(?<![\w.])(?:{'|'.join(key for key in GROUP_OF if '_' in key)})(?![\w.]*\w)")


def _links(keys: Iterable[str]) -> str:
    return " · ".join(f"[{key}](#{key})" for key in keys)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def _older_keys() -> str:
    """What keys of older files have become, and keys of today some of whose values have."""
    rows = []
    for key, rule in RULES.items():
        values = f": {', '.join(f'`{value}`' for value in rule.older_values)}" if rule.older_values else ""
        if values or not rule.remains:
            rows.append((f"`{key}`{values}", _with_links(_became(rule), inside="")))
    text = "Files written for GPT-NeoX releases of 2021 to 2024 load; what each older key is read as is told when a run starts."
    return "\n".join([f"## {_OLDER}", "", text, "", *_table(("key", "today"), rows)])


def _became(rule: Rule) -> str:
    if rule.new_name:
        return f"{rule.new_name}: {rule.reason}"
    return f"refused where it asks for something: {rule.refusal}" if rule.refusal else rule.reason


def _differences() -> str:
    """Keys that mean something else than in GPT-NeoX, or have another default."""
    rows = [
        (f"[{key}](#{key})", _with_links(difference.given or f"not given: {difference.absent}", inside=key))
        for key, difference in DIFFERENCES.items()
    ]
    text = "Of a key that two files hold the later value counts, where GPT-NeoX refuses both; see strict_merge."
    return "\n".join([f"## {_DIFFERENCES}", "", _with_links(text, inside=""), "", *_table(("key", "here"), rows)])


def _not_built() -> str:
    """Features, and the keys that belong to them."""
    features: dict[str, list[str]] = {}
    for key in GROUP_OF:
        state = state_of(key)
        if state.state == "not built yet":
            features.setdefault(state.detail, []).append(key)
    rows = [(feature, _links(keys)) for feature, keys in features.items()]
    return "\n".join([f"## {_NOT_BUILT}", "", *_table(("feature", "keys"), rows)])
