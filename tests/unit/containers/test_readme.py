"""containers/README.md names files, arguments, requirements and scripts that there are."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.unit.containers.recipes import VARIANTS, instructions

TEXT = (REPOSITORY / "containers" / "README.md").read_text()


def test_named_files_exist() -> None:
    named = set(re.findall(r"(?:configs|containers|tools|requirements)/[\w./-]*\w", TEXT))
    assert named >= {"containers/docker/compose.yml", "containers/docker/serve_ssh.sh", "tools/slurm/torchrun.sbatch"}
    assert all((REPOSITORY / name).exists() for name in named)


def test_named_arguments_are_those_of_the_dockerfile() -> None:
    told = {name for row in re.findall(r"^\| (`[A-Z_`, ]+) \|", TEXT, re.MULTILINE) for name in re.findall(r"\w+", row)}
    taken = {entry.text.partition("=")[0] for entry in instructions() if entry.name == "ARG"}
    assert told == taken


def test_every_variant_is_built_and_extras_exist() -> None:
    assert set(re.findall(r"-t deepy-neox:(\w+)", TEXT)) == set(VARIANTS)
    for extra in re.findall(r"`\"([\w ]+)\"`", TEXT)[0].split():
        assert (REPOSITORY / "requirements" / f"requirements-{extra}.txt").exists()
