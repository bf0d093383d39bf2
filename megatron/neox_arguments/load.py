"""YAML files and `key=value` words -> `ConfigValues`, remembering the file, line and column of every key.

Files may be in block or flow style, with `#` comments, trailing commas, `True`/`False`/`None` and `-` or `_` in keys. Later files
override earlier ones key by key (a section is replaced as a whole), words of the command line override files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from megatron.errors import ConfigError
from megatron.neox_arguments.excerpt import excerpt
from megatron.neox_arguments.values import ConfigFile, ConfigValues, KeyPath, Origin, Override

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=", re.ASCII)
_SUFFIXES = (".yml", ".yaml", ".json")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 scalars without dates, and with Python's `None`."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None$"), ["N"])


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The config part of a command line -> (names of config files, `key=value` assignments)."""
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
            path = _find_file(name, directory)
            merged = _merge(merged, parse_yaml(path.read_text(encoding="utf-8"), source=str(path)))
        except ConfigError as error:
            problems.extend(error.problems)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f'config file "{name}" cannot be read: {error}')
    if problems:
        raise ConfigError(problems)
    return merged


def apply_overrides(values: ConfigValues, assignments: Sequence[str], *, source: str = "command line") -> ConfigValues:
    """`values` with every `key=value` or `key.sub=value` applied; the value is read as YAML. Raises ConfigError for malformed words."""
    problems = []
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        path = key.split(".")
        path[0] = path[0].replace("-", "_")
        if not separator or not all(path):
            problems.append(f'"{assignment}" ({source}) is not an assignment: write key=value or key.sub=value')
            continue
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            problems.append(f'"{assignment}" ({source}): the value is not YAML: {getattr(error, "problem", error)}')
            continue
        values = values.with_value(path, value, Origin(source))
    if problems:
        raise ConfigError(problems)
    return values


def parse_yaml(text: str, *, source: str) -> ConfigValues:
    """The values of one YAML text. Raises ConfigError with file:line:column and the line itself when it is not a YAML mapping."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return ConfigValues(files=(ConfigFile(source, text),))
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError([f"{source}:1:1: expected keys and values, found {_kind(node)}"])
        origins: dict[KeyPath, Origin] = {}
        file = ConfigFile(source, text)
        problems = list(_collect_origins(node, (), file, origins))
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, text, source)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError([f"{source} is not YAML: {error}"]) from None
    finally:
        loader.dispose()
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    return ConfigValues(values, origins, files=(file,), problems=tuple(problems))


def _collect_origins(node: yaml.Node, path: KeyPath, file: ConfigFile, origins: dict[KeyPath, Origin]) -> Iterator[str]:
    """Fill `origins` below `node`; yields a problem for each key that a mapping holds twice."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            origins[(*path, position)] = _origin(item, file.path)
            yield from _collect_origins(item, (*path, position), file, origins)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, tuple[str, Origin]] = {}
        for key_node, value_node in node.value:
            written = str(key_node.value)
            key = written.replace("-", "_") if not path else written
            origin = replace(_origin(key_node, file.path), value=_origin(value_node, file.path))
            if key in seen:
                yield _duplicate_problem(written, origin, *seen[key]) + excerpt([file], [seen[key][1], origin])
            seen[key] = (written, origin)
            origins[(*path, key)] = origin
            yield from _collect_origins(value_node, (*path, key), file, origins)


def _duplicate_problem(written: str, origin: Origin, first_written: str, first: Origin) -> str:
    same = "" if written == first_written else f' as "{first_written}"'
    return f'"{written}" ({origin}) is already written{same} at {first}: keep one of the two'


def _origin(node: yaml.Node, source: str) -> Origin:
    """The place of a node; one that goes on over several lines is as wide as its first character."""
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Origin(source, start.line + 1, start.column + 1, max(width, 1))


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{source} is not YAML: {error}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    shown = line.replace("\t", " ")
    hint = " (YAML does not allow tabs here: use spaces)" if "'\\t'" in str(error.problem) else ""
    context = f"{error.context}, " if error.context else ""
    return (
        f"{source}:{mark.line + 1}:{mark.column + 1}: not YAML: {context}{error.problem}{hint}\n"
        f"    {shown}\n    {' ' * mark.column}^"
    )


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


def _find_file(name: str, directory: str | None) -> Path:
    wanted = Path(directory, name) if directory else Path(name)
    for candidate in (wanted, *(wanted.with_name(wanted.name + suffix) for suffix in _SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise ConfigError([f'config file "{wanted}" does not exist{_close_files(wanted)}'])


def _close_files(wanted: Path) -> str:
    """` (did you mean ...?)` naming config files near the wanted one whose names are like its."""
    folder = next((parent for parent in wanted.parents if parent.is_dir()), Path())
    found = [*folder.glob("*.y*ml"), *folder.glob("*/*.y*ml"), *Path("configs").glob("**/*.y*ml")]
    by_stem: dict[str, list[str]] = {}
    for path in found:
        by_stem.setdefault(path.stem, []).append(str(path))
    stem = wanted.stem if wanted.suffix in _SUFFIXES else wanted.name
    close = difflib.get_close_matches(stem, list(by_stem), n=3, cutoff=0.6)
    names = list(dict.fromkeys(name for match in close for name in by_stem[match]))[:3]
    if not names:
        return f": {folder.resolve()} has no config file of a similar name"
    return f" (did you mean {' or '.join(names)}?)"
