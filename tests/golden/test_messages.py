"""What makes a message good: every problem says where, what and how to put it right, whatever `--update-golden` has written."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest

import deepy
from megatron.neox_arguments.resolving.draft import Draft
from megatron.neox_arguments.resolving.resolve import STEPS, STEPS_BEFORE_WORLD
from megatron.neox_arguments.resolving.validate import CHECKS, HOST_CHECKS, RUN_CHECKS
from tests.golden.cases import ERRORS, Case, find_cases

PLACE = re.compile(r"(?P<file>[\w./-]+):(?P<line>\d+):(?P<column>\d+)")

WITHOUT_A_PLACE = re.compile(
    r"\(command line\)|DLTS_HOSTFILE|is missing:|are missing:|no key is given|is not given|\(the default\)|config file|is a folder, not|is a pipe|the script|the hostfile"
)
"""Problems of the command line or of the environment, and of things that are nowhere."""

FIX = re.compile(r"\b(set|use|remove|give|choose|keep|correct|write|did you mean|add|lower|raise|move|exclude|close)\b")

PYTHON = re.compile(r"Traceback|NoneType|\bdict\b|\bint\b|\bstr\b|<class|pydantic|Input should|validation error")

LONGEST_SENTENCE = 420


@dataclass(frozen=True)
class Problem:
    """One printed problem: its sentence, and the (place, line, carets) that follow."""

    sentence: str
    excerpts: tuple[tuple[str, str, str], ...]


def problems_of(text: str) -> list[Problem]:
    """The problems of a printed text. Every line belongs to one."""
    found = []
    for part in re.split(r"^error: ", text, flags=re.MULTILINE)[1:]:
        sentence, *rest = part.rstrip("\n").split("\n")
        assert len(rest) % 2 == 0, f"lines and carets alternate: {rest}"
        excerpts = []
        for shown, below in zip(rest[::2], rest[1::2], strict=True):
            place, _, line = shown.partition(" | ")
            margin = len(place) + len(" | ")
            assert re.fullmatch(r" {4}\S+ *", place), shown
            assert re.fullmatch(r" +\| [ ^]*\^", below), below
            excerpts.append((place.strip(), line, below[margin:]))
        found.append(Problem(sentence, tuple(excerpts)))
    return found


def configuration_cases() -> list[Case]:
    return [case for case in find_cases() if not case.expected.startswith("usage: ")]


@pytest.mark.parametrize("case", configuration_cases(), ids=lambda case: case.name)
def test_every_problem_says_where_what_and_how_to_put_it_right(case: Case) -> None:
    problems = problems_of(case.expected)
    assert problems
    assert case.expected.startswith("error: ")
    assert case.expected.endswith("\n")
    assert len({problem.sentence for problem in problems}) == len(problems)
    for problem in problems:
        assert FIX.search(problem.sentence), problem.sentence
        assert not problem.sentence.endswith((".", " ", ":")), problem.sentence
        assert not PYTHON.search(problem.sentence), problem.sentence
        assert len(problem.sentence) <= LONGEST_SENTENCE, problem.sentence
        places = list(PLACE.finditer(problem.sentence))
        assert places or WITHOUT_A_PLACE.search(problem.sentence), problem.sentence
        for place in places:
            assert_underlined(problem, place, case.directory)


def assert_underlined(problem: Problem, place: re.Match[str], directory: Path) -> None:
    """The line of a place is shown, and a caret stands under the character at its column."""
    text = (directory / place["file"]).read_text(encoding="utf-8-sig", errors="replace")
    lines = text.split("\n")
    number, column = int(place["line"]), int(place["column"])
    if not text.strip() or number > len(lines):
        return  # the end of a file has no line to show
    wanted = lines[number - 1].rstrip("\r")[column - 1 :]
    name = f"{Path(place['file']).name}:{number}"
    shown = [(line, carets) for at, line, carets in problem.excerpts if at in (name, f"{place['file']}:{number}")]
    if not wanted.strip():
        return
    wanted = re.sub(r"[\x00-\x08\x0b-\x1f]", "?", wanted)
    starts = [line[character_at(line, run.start()) :] for line, carets in shown for run in re.finditer(r"\^+", carets)]
    assert any(
        start[:4].rstrip(".") == wanted[:4].replace("\t", " ")[: len(start[:4].rstrip("."))] for start in starts
    ), (place[0], shown)


def character_at(line: str, column: int) -> int:
    """Which character a terminal shows in a column."""
    width = 0
    for position, character in enumerate(line):
        if width >= column and not unicodedata.combining(character):
            return position
        if not unicodedata.combining(character):
            width += 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
    return len(line)


@pytest.mark.parametrize("case", find_cases(), ids=lambda case: case.name)
def test_lines_fit_a_wide_terminal(case: Case) -> None:
    for problem in problems_of(case.expected):
        assert all(len(line) <= 100 and len(carets) <= 100 for _, line, carets in problem.excerpts)


def test_wrong_command_lines_say_what_to_write_instead() -> None:
    texts = [case.expected for case in find_cases() if case.expected.startswith("usage: ")]
    assert texts
    for text in texts:
        last = text.splitlines()[-1]
        assert last.startswith("deepy.py: error: ")
        assert FIX.search(last), last


def test_every_text_belongs_to_a_case() -> None:
    cases = find_cases()
    assert len(cases) >= 80
    assert {case.golden for case in cases} == set(ERRORS.glob("*/*.txt"))


def test_every_rule_of_the_configuration_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: set[str] = set()
    run = Draft.run

    def recorded_run(draft: Draft, rule, *, sets: tuple[str, ...] = ()) -> None:
        before = len(draft.problems)
        run(draft, rule, sets=sets)
        if len(draft.problems) > before:
            broken.add(rule.__name__)

    monkeypatch.setattr(Draft, "run", recorded_run)
    for case in find_cases():
        monkeypatch.chdir(case.directory)
        for name, value in case.variables.items():
            monkeypatch.setenv(name, value)
        for name in ("DLTS_HOSTFILE",):
            if name not in case.variables:
                monkeypatch.delenv(name, raising=False)
        try:
            deepy.main(case.words)
        except SystemExit:
            continue
    rules = {rule.__name__ for rule in (*CHECKS, *RUN_CHECKS)} | {rule.__name__ for rule, _ in HOST_CHECKS}
    steps = {rule.__name__ for rule, _ in (*STEPS_BEFORE_WORLD, *STEPS)} - CANNOT_FAIL
    without = (rules | steps) - broken - {"check_packages"}  # which needs a machine that lacks one: see test_errors.py
    assert not without


CANNOT_FAIL = {
    *("_derive_pipeline", "_derive_key_value_heads", "_derive_head_dim", "_derive_attention_biases"),
    *("_derive_positions", "_derive_softmax", "_derive_generation"),
}
"""Derivations of defaults."""
