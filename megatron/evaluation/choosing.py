"""What is there to choose from: lm-eval's tasks and those of the user's own directory, and a sentence for a name that is none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.errors import ConfigError
from megatron.evaluation.library import one_line
from megatron.evaluation.selection import Catalogue, is_pattern, select
from megatron.foreign import shortened
from megatron.registry import did_you_mean


def choose(library: Any, include_path: str | None, words: Sequence[str], files: Sequence[str]) -> tuple[Any, list[str]]:
    """What loads the tasks, and the names to load for `words`.

    lm-eval's own 14,000 files are read (seconds) only where something is asked for that the user's directory does not have.
    """
    own = library.TaskManager(include_path=include_path, include_defaults=False)
    catalogue = _catalogue(own)
    plain = not any(is_pattern(word) for word in words)
    _check_no_groups(files)
    if plain and all(catalogue.tasks_of(word) <= catalogue.names for word in words):
        return own, select(catalogue, words)[0]
    manager = library.TaskManager(include_path=include_path)
    catalogue = _catalogue(manager)
    names, unknown = select(catalogue, words)
    if unknown:
        where = f"lm-eval {_version()} ({len(catalogue.names):,} names)"
        raise ConfigError([_unknown(word, catalogue, where, include_path) for word in unknown])
    check_members(manager, catalogue, names)
    return manager, names


def check_members(manager: Any, catalogue: Catalogue, names: Sequence[str]) -> None:
    """Raise ConfigError for groups with names that mean nothing, for which lm-eval would make up tasks."""
    groups = [entry.cfg for entry in manager.task_index.values() if entry.kind.name == "GROUP"]
    listed = {item for group in groups for item in group.get("task") or () if isinstance(item, str)}
    problems = []
    for name in names:
        unknown = sorted((catalogue.tasks_of(name) - catalogue.names) & listed)
        if unknown:
            problems.append(
                f'the group "{name}" in eval_tasks has "{unknown[0]}", which is the name of no task: correct its YAML file'
            )
    if problems:
        raise ConfigError(problems)


def _check_no_groups(files: Sequence[str]) -> None:
    """Raise ConfigError for files of groups: lm-eval finds the tasks of a group, and the group, by their names alone."""
    for file in files:
        content = _content(file)
        if _members(content):
            raise ConfigError(
                [
                    f'"{file}" in eval_tasks holds a group: name it, "{content.get("group")}", and give its directory in '
                    "eval_include_path (--include_path)"
                ]
            )


def _catalogue(manager: Any) -> Catalogue:
    index = manager.task_index
    members = {
        name: sorted(entry.tags) if entry.kind.name == "TAG" else _members(entry.cfg) for name, entry in index.items()
    }
    tags = frozenset(name for name, entry in index.items() if entry.kind.name == "TAG")
    return Catalogue(frozenset(index), {name: names for name, names in members.items() if names}, tags)


def _members(content: Mapping[str, Any] | None) -> list[str]:
    """The names in the list of a group's YAML file; none for a task."""
    listed = (content or {}).get("task")
    if not isinstance(listed, list):
        return []
    return [item if isinstance(item, str) else str(item.get("group") or item.get("task")) for item in listed]


def _content(file: str) -> Mapping[str, Any]:
    """A YAML file of a task, the functions it names left alone. Raises ConfigError when it cannot be read."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        content: dict[str, Any] = load_yaml(file, resolve_func=False)
    except Exception as error:
        raise ConfigError([f'"{file}" in eval_tasks is no task: {one_line(error)}']) from error
    return content


def _unknown(word: str, catalogue: Catalogue, where: str, include_path: str | None) -> str:
    if include_path is not None:
        where += f" and {include_path}{unreadable(Path(include_path))}"
    what = "matches no name" if is_pattern(word) else "is the name of no task, group or tag"
    hint = did_you_mean(word, sorted(catalogue.names)) or "; correct it, or give the path of a YAML file"
    return f'"{word}" in eval_tasks {what} in {where}{hint}'


def unreadable(directory: Path) -> str:
    """What in the user's directory is passed over, as the end of a clause."""
    broken = []
    for path in sorted(directory.rglob("*.yaml")):
        try:
            _content(str(path))
        except ConfigError:
            broken.append(path.name)
    if broken:
        return f" (not readable: {shortened(broken)})"
    others = [path.name for path in sorted(directory.rglob("*.yml"))]
    return f" (only files that end in .yaml count, not {shortened(others)})" if others else ""


def _version() -> str:
    import lm_eval

    return str(lm_eval.__version__)
