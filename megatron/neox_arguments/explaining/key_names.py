"""Names of keys as users write them, told apart from config files on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import ConfigError
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.provenance import PROPERTIES
from megatron.neox_arguments.explaining.section_docs import describe_key, sub_keys
from megatron.neox_arguments.keys.sections import SECTIONS
from megatron.neox_arguments.reading.config_files import SUFFIXES
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.reading.load import split_arguments
from megatron.registry import did_you_mean


@dataclass(frozen=True)
class Names:
    """What a command line asks about: keys, config files and `key=value` words."""

    keys: tuple[str, ...]
    files: tuple[str, ...]
    assignments: tuple[str, ...]


def sort_words(words: Sequence[str], *, directory: str | None = None) -> Names:
    """Tell the words of a command line apart. A known key is a key even where a file has the same name.

    Raises ConfigError for words that are neither a key nor a file.
    """
    others, assignments = split_arguments(words)
    keys = {word: find_key(word) for word in others}
    files = [word for word in others if keys[word] is None]
    problems = [_unknown(word) for word in files if not _is_file(word, directory)]
    if problems:
        raise ConfigError(problems)
    return Names(tuple(key for key in keys.values() if key), tuple(files), tuple(assignments))


def find_key(word: str) -> str | None:
    """The key, key in a section, property or older key that a word names, with `-` or `_`; None when it names none."""
    top, dot, rest = word.partition(".")
    key = f"{top.replace('-', '_')}{dot}{rest}"
    if key in PROPERTIES or key in RULES:
        return key
    try:
        return describe_key(key).key
    except KeyError:
        return None


def _is_file(word: str, directory: str | None) -> bool:
    """Whether a word is a config file, or can only be meant as one."""
    path = Path(directory or "", word)
    named = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]
    return any(candidate.is_file() for candidate in named) or word.endswith(SUFFIXES) or "/" in word


def _unknown(word: str) -> str:
    section, _, name = word.rpartition(".")
    names = [path.rpartition(".")[2] for path in sub_keys(section)] if section else []
    if names:
        near = did_you_mean(name, names).replace('mean "', f'mean "{section}.')
        hint = near or f": choose among {', '.join(names)}"
    elif section:
        hint = did_you_mean(word, [path for known in SECTIONS for path in sub_keys(known)])
    else:
        older = [key for key in RULES if "." not in key]
        hint = did_you_mean(word.replace("-", "_"), [*NeoXArgs.model_fields, *PROPERTIES, *older])
    return f'"{word}" is neither a key nor a config file{hint}'
