"""A configuration as a YAML file in one style: blocks, underscores, today's keys, in groups with one line about each."""

from __future__ import annotations

import re
from typing import Any

import yaml

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.field_docs import GROUPS, describe_group
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.read import read_draft


class _Dumper(yaml.SafeDumper):
    """Sections in blocks, lists in one line, text quoted where our reader would take it for something else."""


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None$"), ["N"])


def rewrite(values: ConfigValues) -> str:
    """The text of a file that means the same as `values`, which must have no problems. Keys keep their order within a group."""
    modern, _ = modernise(values)
    draft = read_draft(NeoXArgs, modern)
    given = sorted(draft.given, key=lambda key: _place(modern, key))
    parts = []
    for group, fields in GROUPS.items():
        chosen = {key: _plain(draft.values[key]) for key in given if key in fields.model_fields}
        if chosen:
            text = yaml.dump(chosen, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
            parts.append(f"# {describe_group(group)}\n{text}")
    return "\n".join(parts)


def _place(values: ConfigValues, key: str) -> tuple[int, int, int]:
    """Where a key stands: number of the file, line and column. The command line comes last."""
    paths = [file.path for file in values.files]
    origin = values.origin(key)
    if origin is None or origin.source not in paths:
        return len(paths), 0, list(values.values).index(key)
    return paths.index(origin.source), origin.line or 0, origin.column or 0


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down, and large whole numbers without a point (500000000, not 500000000.0)."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1e4 else value
