"""Config files and `key=value` words of a command line -> merged `ConfigValues`.

Later files override earlier ones key by key (a section is replaced as a whole), words of the command line override files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from megatron.errors import ConfigError
from megatron.neox_arguments.reading.config_files import read_config_file
from megatron.neox_arguments.reading.values import Assignment, ConfigValues, Origin, Override
from megatron.neox_arguments.reading.yaml_text import parse_value, parse_yaml

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=", re.ASCII)


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The config part of a command line -> (names of config files, `key=value` assignments).

    Raises ConfigError when an assignment is written with spaces.
    """
    if "=" in words:
        at = words.index("=")
        written = " ".join(words[max(at - 1, 0) : at + 2])
        raise ConfigError([f'"{written}" (command line) is not an assignment: write it without spaces, as key=value'])
    files = [word for word in words if not _ASSIGNMENT.match(word)]
    return files, [word for word in words if _ASSIGNMENT.match(word)]


def read_ymls(names: Sequence[str], *, directory: str | None = None) -> ConfigValues:
    """Read and merge config files, in order.

    `configs/125M` means `configs/125M.yml`; `directory` is put before every name. Raises one ConfigError for all files that are
    missing or not YAML; keys written twice in a file are kept in `.problems`, to be reported with everything else.
    """
    merged = ConfigValues()
    problems: list[str] = []
    for name in names:
        try:
            file = read_config_file(name, directory)
            merged = _merge(merged, parse_yaml(file.text, source=file.path))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return merged


def apply_overrides(values: ConfigValues, assignments: Sequence[str], *, source: str = "command line") -> ConfigValues:
    """`values` with every `key=value` or `key.sub=value` applied; the value is read as YAML. Raises ConfigError for malformed words."""
    problems = []
    for word in assignments:
        key, separator, text = word.partition("=")
        path = key.split(".")
        path[0] = path[0].replace("-", "_")
        if not separator or not all(path):
            problems.append(f'"{word}" ({source}) is not an assignment: write key=value or key.sub=value')
            continue
        try:
            value = parse_value(text, source=source)
        except ConfigError as error:
            problems.append(f'"{word}" ({source}): {error}')
            continue
        assignment = Assignment(tuple(path), value, Origin(source))
        values = values.with_value(path, value, assignment.origin)
        values = replace(values, assignments=(*values.assignments, assignment))
    if problems:
        raise ConfigError(problems)
    return values


def _merge(earlier: ConfigValues, later: ConfigValues) -> ConfigValues:
    overrides = [
        Override(key, earlier.values[key], earlier.origin(key), value, later.origin(key))
        for key, value in later.values.items()
        if key in earlier.values
    ]
    kept = {path: origin for path, origin in earlier.origins.items() if path[0] not in later.values}
    return replace(
        earlier,
        values={**earlier.values, **later.values},
        origins={**kept, **later.origins},
        overrides=(*earlier.overrides, *overrides),
        files=(*earlier.files, *later.files),
        problems=(*earlier.problems, *later.problems),
    )
