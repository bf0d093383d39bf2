"""Finds config files by the names given on the command line, and reads them."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from megatron.errors import ConfigError
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.values import ConfigFile, Origin, quote

SUFFIXES = (".yml", ".yaml", ".json")

_NOT_TEXT = 'config file "{}" is not text: give a YAML file'

_ALMOST_ASSIGNMENT = re.compile(r"(?P<key>[\w.-]*)[=:](?P<value>.*)", re.ASCII)


def read_config_file(name: str, directory: str | None = None) -> ConfigFile:
    """The file that `name` stands for: itself, or with a suffix of config files, in `directory` when one is given.

    Raises ConfigError when there is none, or when it is no text.
    """
    path = _find_file(name, directory)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([f'config file "{path}" cannot be read ({reason}): give it the right to be read']) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([_not_text(content, error, str(path))]) from None
    if "\0" in text:
        raise ConfigError([_NOT_TEXT.format(path)])
    return ConfigFile(str(path), text)


def _not_text(content: bytes, error: UnicodeDecodeError, path: str) -> str:
    """A file in another encoding is told with the line; one that is full of other bytes is no config at all."""
    decoded = content.decode("utf-8", errors="replace")
    if b"\0" in content or decoded.count("\ufffd") > len(decoded) / 10:
        return _NOT_TEXT.format(path)
    before = content[: error.start].decode("utf-8", errors="replace")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    origin = Origin(path, line, column)
    sentence = f"{origin}: this character is not UTF-8; write the file in that encoding"
    return sentence + excerpt([ConfigFile(path, decoded)], [origin])


def _find_file(name: str, directory: str | None) -> Path:
    wanted = Path(directory, name) if directory else Path(name)
    try:
        for candidate in (wanted, *(wanted.with_name(wanted.name + suffix) for suffix in SUFFIXES if wanted.name)):
            if candidate.is_file():
                return candidate
        problem = _not_found(name, wanted)
    except OSError as error:  # a name that no file can have
        problem = f'config file "{quote(name)[1:-1]}" does not exist ({(error.strerror or str(error)).lower()}): correct the path'
    raise ConfigError([problem])


def _not_found(name: str, wanted: Path) -> str:
    if wanted.is_dir():
        files = sorted(str(path) for path in wanted.iterdir() if path.suffix in SUFFIXES)
        listed = ", ".join(files[:4]) + (", ..." if len(files) > 4 else "")
        return f'"{wanted}" is a folder, not a config file: ' + (f"choose one of {listed}" if files else "give a file")
    if wanted.exists():
        return f'"{wanted}" is a pipe or a device, not a config file: write its content to a file and give that'
    if wanted.suffix == ".py":
        return f'"{name}" is not a config file: write the script first, as in deepy.py {name} CONFIG'
    almost = _ALMOST_ASSIGNMENT.fullmatch(name)
    if almost:
        return f'"{name}" is neither a config file nor an assignment: write {_assignment(*almost.groups())}'
    parts = name.split(",")
    if len(parts) > 1:
        return f'config file "{wanted}" does not exist: write {" ".join(part for part in parts if part)}, with spaces'
    return f'config file "{wanted}" does not exist{_close_files(wanted)}'


def _assignment(key: str, value: str) -> str:
    """A legal assignment that looks like the one which was tried."""
    return f"{'.'.join(part for part in key.strip('-').split('.') if part) or 'KEY'}={value or 'VALUE'}"


def _close_files(wanted: Path) -> str:
    """` (did you mean ...?)` naming config files near the wanted one whose names are like its; else what there is."""
    folder = next((parent for parent in wanted.parents if parent.is_dir()), Path())
    found = [*folder.glob("*.y*ml"), *folder.glob("*/*.y*ml"), *Path("configs").glob("**/*.y*ml")]
    by_stem: dict[str, list[str]] = {}
    for path in sorted(set(found)):
        by_stem.setdefault(path.stem, []).append(str(path))
    stem = wanted.stem if wanted.suffix in SUFFIXES else wanted.name
    close = difflib.get_close_matches(stem, list(by_stem), n=3, cutoff=0.6)
    near_first = sorted(
        (name for match in close for name in by_stem[match]), key=lambda name: Path(name).parent != folder
    )
    names = list(dict.fromkeys(near_first))[:3]
    if names:
        return f" (did you mean {' or '.join(names)}?)"
    here = "the working directory" if folder == Path() else f'"{folder}"'
    return f": correct the path; {here} has no config file of a similar name"
