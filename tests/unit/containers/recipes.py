"""How Makefile, Dockerfile and Apptainer definitions install: read far enough to compare them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

DOCKERFILE = REPOSITORY / "containers" / "docker" / "Dockerfile"
DEFINITIONS = sorted((REPOSITORY / "containers" / "apptainer").glob("*.def"))
VARIANTS = ("cpu", "cuda", "rocm")


@dataclass(frozen=True)
class Install:
    """One `pip install`. file: name of the requirement file; isolated: whether builds get an environment of their own."""

    file: str
    isolated: bool


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, on one line, with variables filled in. stage: the name of its stage, None before the first."""

    stage: str | None
    name: str
    text: str


def makefile_installs() -> list[Install]:
    """What `make install` does."""
    recipe = (REPOSITORY / "Makefile").read_text().partition("$(VENV)/.installed:")[2].partition("\n\n")[0]
    return installs(recipe)


def installs(script: str) -> list[Install]:
    """The `pip install`s of a shell script, in their order."""
    found = []
    for command in re.findall(r"(?:\bpip|/pip) install ([^\n&;|]*)", joined(script)):
        words = shlex.split(command)
        found.append(Install(Path(words[words.index("-r") + 1]).name, "--no-build-isolation" not in words))
    return found


def system_packages(script: str) -> set[str]:
    """What `apt-get install` installs in a shell script."""
    commands = re.findall(r"apt-get install ([^\n&;|]*)", joined(script))
    return {word for command in commands for word in shlex.split(command) if not word.startswith("-")}


def joined(script: str) -> str:
    """Without comments, each command on one line."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


@cache
def instructions(variant: str = "cpu") -> tuple[Instruction, ...]:
    """The instructions of the Dockerfile as built with VARIANT=`variant` and no other argument."""
    found: list[Instruction] = []
    stage: str | None = None
    arguments: dict[str, str] = {}
    for line in joined(DOCKERFILE.read_text()).splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name:
            continue
        text = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), " ".join(rest.split()))
        if name == "ARG" and stage is None:
            argument, _, default = text.partition("=")
            arguments[argument] = variant if argument == "VARIANT" else default
        if name == "FROM":
            stage = text.split()[-1]
        found.append(Instruction(stage, name, text))
    return tuple(found)


def base_of(stage: str, variant: str) -> str:
    """What stands behind FROM of a stage: an image or another stage."""
    return next(
        entry.text.split()[0] for entry in instructions(variant) if entry.name == "FROM" and entry.stage == stage
    )


def image_of(stage: str, variant: str) -> str:
    """The image from which a stage comes in the end."""
    stages = {entry.stage for entry in instructions(variant)}
    while stage in stages:
        stage = base_of(stage, variant)
    return stage


def script_of(stage: str, variant: str = "cpu") -> str:
    """The commands of a stage, one RUN a line."""
    return "\n".join(entry.text for entry in instructions(variant) if entry.stage == stage and entry.name == "RUN")


def setting(stage: str, name: str, variant: str) -> str:
    """The value of an ENV that is set in a stage or in those that it builds on."""
    stages = {entry.stage for entry in instructions(variant)}
    while stage in stages:
        for entry in instructions(variant):
            if (entry.stage, entry.name) == (stage, "ENV") and entry.text.startswith(f"{name}="):
                return entry.text.partition("=")[2]
        stage = base_of(stage, variant)
    raise KeyError(name)


def section(definition: Path, name: str) -> str:
    """A section of an Apptainer definition; "" is the head."""
    parts = re.split(r"^%(\w+).*\n", "%\n" + definition.read_text(), flags=re.MULTILINE)
    sections = {"": parts[0].removeprefix("%\n"), **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return sections[name]
