"""One YAML text -> `ConfigValues`, with the place of every key and of every value.

Texts may be in block or flow style, with `#` comments, trailing commas, anchors and merge keys (`<<: *name`), `True`/`False`/`None` and `-`
or `_` in keys. Keys are always text, so that `12: 3` and `on: 3` mean what is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from megatron.errors import ConfigError
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigFile, ConfigValues, KeyPath, Origin
from megatron.neox_arguments.reading.yaml_errors import mistake_in, syntax_problem

MAX_DEPTH = 50
"""Levels of sections and lists within each other; far more than any config has, far fewer than Python's stack holds."""

MAX_VALUES = 100_000
"""Values of a file once its anchors are resolved, which can multiply them without end."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without dates, sets and the like, and with Python's `None`."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As inherited, but refuses to go deeper than MAX_DEPTH."""
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] not in ("set", "omap", "pairs", "binary", "timestamp")
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None$"), ["N"])


@dataclass
class _Places:
    """What is collected while walking over the nodes of a file."""

    file: ConfigFile
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    checked: set[int] = field(default_factory=set)


def parse_value(text: str, *, source: str) -> Any:
    """The value of one piece of YAML. Raises ConfigError with what is wrong with it."""
    loader = _Loader(text)
    places = _Places(ConfigFile(source, text))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, (), places)
        value = loader.construct_document(node)
        _collect_origins(node, (), places)
    except yaml.YAMLError as error:
        raise ConfigError([mistake_in(error, text)]) from None
    if places.problems:
        raise ConfigError(["a key is written twice in it; keep one of the two"])
    return value


def parse_yaml(text: str, *, source: str) -> ConfigValues:
    """The values of one YAML text; keys that it holds twice are kept in `.problems`.

    Raises ConfigError with file:line:column, the line itself and the fix when it is not a YAML mapping.
    """
    file = ConfigFile(source, text)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return ConfigValues(files=(file,))
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError([_not_a_mapping(node, file)])
        places = _Places(file)
        _check_keys(node, (), places)
        values = loader.construct_document(node)
        _collect_origins(node, (), places)
    except yaml.YAMLError as error:
        raise ConfigError([syntax_problem(error, file)]) from None
    values = {key.replace("-", "_"): value for key, value in values.items()}
    return ConfigValues(values, places.origins, files=(file,), problems=tuple(places.problems))


def _not_a_mapping(node: yaml.Node, file: ConfigFile) -> str:
    origin = _origin(node, file.path)
    found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
    fix = "write one `key: value` a line"
    if isinstance(node, yaml.ScalarNode) and "=" in node.value:
        fix += ", with a colon in place of ="
    return f"{origin}: expected keys and values, found {found}; {fix}{excerpt([file], [origin])}"


def _check_keys(node: yaml.Node, path: KeyPath, places: _Places) -> None:
    """Make every key below `node` text, and find those that a mapping holds twice. Comes before merge keys are resolved, which may
    legally bring a key that is also written."""
    if id(node) in places.checked:
        return
    places.checked.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _check_keys(item, (*path, position), places)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, yaml.Node] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key_node.start_mark)
        if key_node.tag != _MERGE:
            key_node.tag = _TEXT
            key = key_node.value if path else key_node.value.replace("-", "_")
            if key in seen:
                places.problems.append(_duplicate_problem(seen[key], key_node, places.file))
            seen[key] = key_node
        _check_keys(value_node, (*path, str(key_node.value)), places)


def _duplicate_problem(first: yaml.Node, second: yaml.Node, file: ConfigFile) -> str:
    origins = [_origin(first, file.path), _origin(second, file.path)]
    same = "" if first.value == second.value else f' as "{first.value}"'
    sentence = f'"{second.value}" ({origins[1]}) is already written{same} at {origins[0]}: keep one of the two'
    return sentence + excerpt([file], origins)


def _collect_origins(node: yaml.Node, path: KeyPath, places: _Places) -> None:
    """Fill in the places of keys and values below `node`, in which merge keys are resolved."""
    for key, key_node, value_node in _items(node):
        name = key.replace("-", "_") if isinstance(key, str) and not path else key
        origin = _origin(key_node, places.file.path)
        if key_node is not value_node:
            origin = replace(origin, value=_value_origin(key_node, value_node, places.file.path))
        places.origins[(*path, name)] = origin
        if len(path) > MAX_DEPTH or len(places.origins) > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=key_node.start_mark)
        _collect_origins(value_node, (*path, name), places)


def _items(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node, yaml.Node]]:
    """(key, node of the key, node of the value); an item of a list is its own key."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((position, item, item) for position, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((str(key_node.value), key_node, value_node) for key_node, value_node in node.value)


def _value_origin(key_node: yaml.Node, value_node: yaml.Node, source: str) -> Origin:
    """The place of a value; that of its key when it is a block which begins on a later line."""
    is_block = isinstance(value_node, yaml.CollectionNode) and not value_node.flow_style
    return _origin(key_node if is_block else value_node, source)


def _origin(node: yaml.Node, source: str) -> Origin:
    """The place of a node. One that goes on over several lines has no width, which stands for the rest of its first line."""
    start, end = node.start_mark, node.end_mark
    width = max(end.column - start.column, 1) if end.line == start.line else None
    return Origin(source, start.line + 1, start.column + 1, width)
