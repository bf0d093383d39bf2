"""What a message proposes helps: with the proposed change made, the same problem is not told again."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import deepy
from megatron.errors import ConfigError
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from tests.golden.cases import Case, find_cases
from tests.golden.test_messages import problems_of

Edit = Callable[[dict[str, Any]], None]

KEY = re.compile(r'(?:^|, )"([A-Za-z_][\w.]*)"(?= is | \()')
NAME = r"[a-z_][\w.]*"
VALUE = r'"[^"]*"|\[.*\]|\{.*\}|-?[\w.+]+'
SET = re.compile(rf"(?:\bset|, or) (the stage|it|{NAME}) to (?:at least |at most )?({VALUE})")
WRITE = re.compile(r'\bwrite ("[^"]*"|\[[^.]*\]|\{.*\}|https?://\S+|-?\d[\w.+-]*)$')
USE = re.compile(r"\buse (?:at most )?(\d+)(?: or (\d+))?")
CHOICE = re.compile(r"\bchoose (?:one of|among) ([\w.]+)")
MEANT = re.compile(r'\(did you mean "([^"]+)"\?\)')
REMOVE = re.compile(r"\bremove (?:it|the key|this one|these keys)\b")
KEEP = re.compile(r"\bkeep one of (?:them|the two)|\bleave one of the three out")

FEWEST = 120
"""Proposals that are tried at least, so that a pattern that fits nothing any more is noticed."""


def keys_of(sentence: str) -> list[str]:
    """The keys that a problem is about."""
    return KEY.findall(sentence)


def same_problem(one: str, other: str) -> bool:
    """Whether two sentences tell the same problem, with whatever values and places."""
    return keys_of(one) == keys_of(other) and reason_of(one) == reason_of(other)


def reason_of(sentence: str) -> str:
    """What is said behind keys, values and places, without numbers."""
    return re.sub(r"\d+", "#", sentence.rpartition("): ")[2])


def edits(sentence: str) -> Iterator[tuple[str, Edit]]:
    """(wording, change) of everything that a sentence proposes and that can be done without thinking."""
    keys = keys_of(sentence)
    if not keys or "attention type" in sentence:
        return
    if "is not a known key" in sentence or "no such key" in sentence:
        for match in MEANT.finditer(sentence):
            yield match[0], renamed(keys[0], match[1])
    else:
        for pattern in (MEANT, CHOICE, WRITE):
            for match in pattern.finditer(sentence):
                yield match[0], changed(keys[0], read(match[1]))
    for match in SET.finditer(sentence):
        yield match[0], changed(key_meant(match[1], keys), read(match[2]))
    for match in USE.finditer(sentence):
        for number in filter(None, match.groups()):
            yield match[0], changed(keys[0], int(number))
    if REMOVE.search(sentence):
        yield "remove", removed(*keys)
    if KEEP.search(sentence):
        for key in keys:
            yield f"keep others than {key}", removed(key)


def key_meant(words: str, keys: list[str]) -> str:
    """The key that `it`, `the stage`, or a name without its section stands for."""
    if words == "it":
        return keys[0]
    name = words.removeprefix("the ")
    return next((key for key in keys if key == name or key.endswith((f".{name}", f"_{name}"))), name)


def read(text: str) -> Any:
    """A proposed value."""
    return yaml.safe_load(text)


def changed(key: str, value: Any) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        section, name = place_of(config, key)
        section[name] = value

    return edit


def removed(*keys: str) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        for key in keys:
            section, name = place_of(config, key)
            if isinstance(section, list) or name in section:
                del section[name]

    return edit


def renamed(old: str, new: str) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        section, name = place_of(config, old)
        value = section.pop(name)
        target, inner = place_of(config, new) if "." in new else (section, new)
        target[inner] = value

    return edit


def place_of(config: dict[str, Any], key: str) -> tuple[Any, Any]:
    """The dictionary or list in which a key lies, and its name there."""
    *sections, name = (int(part) if part.isdigit() else part for part in key.split("."))
    place: Any = config
    for section in sections:
        place = place[section] if isinstance(place, list) else place.setdefault(section, {})
    return place, name


def config_of(case: Case) -> dict[str, Any] | None:
    """What a case's files and words say together; None when they cannot be read."""
    words = [word for word in case.words if not word.startswith("-") and not word.endswith(".py")]
    try:
        files, assignments = split_arguments(words)
        return apply_overrides(read_ymls(files), assignments).values
    except ConfigError:
        return None


def sentences(directory: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is told about a configuration, which is run from the working directory."""
    path = directory / "changed.yml"
    path.write_text(yaml.safe_dump(config))
    deepy.main(["train.py", str(path), "--dry-run"])
    return [problem.sentence for problem in problems_of(capsys.readouterr().err)]


def test_after_the_proposed_change_the_problem_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for case in find_cases():
        monkeypatch.chdir(case.directory)
        for name in {*os.environ, *case.variables} - {"PYTEST_CURRENT_TEST"}:
            if name in case.variables:
                monkeypatch.setenv(name, case.variables[name])
            else:
                monkeypatch.delenv(name)
        config = config_of(case)
        if config is None:
            continue
        for told in sentences(tmp_path, config, capsys):
            for wording, edit in edits(told):
                proposed = copy.deepcopy(config)
                edit(proposed)
                tried += 1
                again = [new for new in sentences(tmp_path, proposed, capsys) if same_problem(told, new)]
                assert not again, f"{case.name}: {wording} does not help: {told}"
    assert tried >= FEWEST
