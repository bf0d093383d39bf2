"""The configurations in `configs/`: their files, what the head of each says, and their values with and without companions.

A file starts with comments that people and tests read:

    # yaml-language-server: $schema=PATH           the schema beside the files
    # One to three lines: what it is, its source.
    # N parameters with a vocabulary of V.         models: rows of the embedding, padding included
    # Combine with: FILE...                        the files beside it on a command line
    # Not built yet: FEATURE; FEATURE.             features the program refuses so far

A command line names the file with the model first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import read_ymls
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yml"))
"""Every file, as `pythia/70M.yml`."""

SCHEMA = "# yaml-language-server: $schema="
PARAMETERS = re.compile(r"# ([\d,]+) parameters with a vocabulary of ([\d,]+)\.")
COMBINE, NOT_BUILT = "# Combine with: ", "# Not built yet: "


@dataclass(frozen=True)
class Header:
    """The comments at the head of a file."""

    schema: str
    prose: tuple[str, ...]
    parameters: int | None
    vocabulary: int | None
    companions: tuple[str, ...]
    not_built: tuple[str, ...]


@cache
def header_of(file: str) -> Header:
    """What the comments at the head of a file say."""
    schema, *lines = (CONFIGS / file).read_text().split("\n\n")[0].splitlines()
    lines = [line for line in lines if line.startswith("#")]
    counts = [match for match in map(PARAMETERS.fullmatch, lines) if match]
    combine = [line.removeprefix(COMBINE) for line in lines if line.startswith(COMBINE)]
    not_built = [line.removeprefix(NOT_BUILT) for line in lines if line.startswith(NOT_BUILT)]
    prose = [line for line in lines if not PARAMETERS.fullmatch(line) and not line.startswith((COMBINE, NOT_BUILT))]
    assert max(len(counts), len(combine), len(not_built)) <= 1
    return Header(
        schema=schema,
        prose=tuple(prose),
        parameters=int(counts[0][1].replace(",", "")) if counts else None,
        vocabulary=int(counts[0][2].replace(",", "")) if counts else None,
        companions=tuple(name.removeprefix("configs/") for name in " ".join(combine).split()),
        not_built=tuple(not_built[0].rstrip(".").split("; ")) if not_built else (),
    )


@cache
def read(*files: str) -> ConfigValues:
    """The values of these files, merged."""
    return read_ymls([str(CONFIGS / file) for file in files])


def is_model(file: str) -> bool:
    """Whether a file holds an architecture."""
    return "num_layers" in read(file).values


def command_line(file: str) -> list[str]:
    """A file among its companions, the model first."""
    companions = header_of(file).companions
    return [file, *companions] if is_model(file) else [*companions, file]


def alone(file: str) -> list[str]:
    """What a file needs to be a configuration at all: nothing for a model, its companions for a piece."""
    return [file] if is_model(file) else command_line(file)


def read_shipped(file: str) -> ConfigValues:
    """The values of a file among its companions."""
    return read(*command_line(file))


def read_alone(file: str) -> ConfigValues:
    """The values of what a file needs to be a configuration at all."""
    return read(*alone(file))


def arguments(values: ConfigValues) -> NeoXArgs:
    """The arguments for as few processes as there can be."""
    return NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)


def features_not_built(values: ConfigValues) -> set[str]:
    """Names of the features that are asked for and missing."""
    return {
        missing.feature
        for missing in NeoXArgs.resolution(values, world_size=smallest_world(values), planning=True).not_built
    }


MODELS = [file for file in FILES if is_model(file)]
