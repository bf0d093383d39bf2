"""The Apptainer definitions install what `make install` does, from the same images as the Dockerfile."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unit.containers.recipes import (
    DEFINITIONS,
    image_of,
    installs,
    makefile_installs,
    script_of,
    section,
    setting,
    system_packages,
)

each = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.stem)


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [definition.stem for definition in DEFINITIONS] == ["cpu", "cuda"]


@each
def test_it_installs_what_make_does(definition: Path) -> None:
    assert installs(section(definition, "post")) == makefile_installs()


@each
def test_it_starts_from_the_image_of_the_dockerfile(definition: Path) -> None:
    head = dict(re.findall(r"^(\w+): (.*)$", section(definition, ""), re.MULTILINE))
    assert head == {"Bootstrap": "docker", "From": image_of("packages", definition.stem)}


@each
def test_it_takes_the_torch_of_the_dockerfile(definition: Path) -> None:
    build = setting("packages", "TORCH_BUILD", definition.stem)
    assert f"/whl/{build} " in section(definition, "post")
    assert f"endswith('+{build}')" in section(definition, "post")


@each
def test_it_has_the_system_packages_of_the_dockerfile_but_for_the_server(definition: Path) -> None:
    """Who may log in to a machine of a cluster is not decided in an image of Apptainer, which runs as its user."""
    assert system_packages(section(definition, "post")) == system_packages(script_of("deepy-neox")) - {"openssh-server"}


@each
def test_it_copies_files_that_exist(definition: Path) -> None:
    for line in section(definition, "files").split("\n"):
        assert not line or (REPOSITORY / line.split()[0]).exists()


@each
def test_its_scripts_are_scripts(definition: Path) -> None:
    for name in ("post", "environment", "runscript"):
        subprocess.run(["sh", "-n"], input=section(definition, name), text=True, check=True)


def test_they_differ_in_nothing_but_image_and_torch() -> None:
    first, second = (re.sub(r"\bcu130\b|\bcpu\b", "BUILD", section(definition, "post")) for definition in DEFINITIONS)
    assert first == second
