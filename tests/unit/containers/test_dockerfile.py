"""The Dockerfile installs what `make install` does, from pinned images, and leaves neither root nor secrets."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unit.containers.recipes import (
    DOCKERFILE,
    VARIANTS,
    base_of,
    image_of,
    installs,
    instructions,
    makefile_installs,
    script_of,
    setting,
    system_packages,
)

PYTHON_OF = {"debian:12": (3, 11), "ubuntu24.04": (3, 12), "dev-ubuntu-24.04": (3, 12)}
"""Python of the distributions that images are made of."""


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_installs_what_make_does(variant: str) -> None:
    *always, extra = installs(script_of("packages", variant))
    assert always == makefile_installs()
    assert extra.file == "requirements-${extra}.txt"
    assert not extra.isolated


def test_no_version_is_written_twice() -> None:
    assert "==" not in "".join(entry.text for entry in instructions() if entry.name in {"RUN", "ENV"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_are_pinned_by_tag(variant: str) -> None:
    for stage in ("packages", "deepy-neox"):
        name, _, tag = image_of(stage, variant).partition(":")
        assert re.search(r"\d+\.\d+", tag), f"{name} has no exact tag"


@pytest.mark.parametrize("variant", VARIANTS)
def test_python_is_one_that_the_project_allows_and_the_same_where_it_is_built(variant: str) -> None:
    minimum = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    lowest = tuple(map(int, minimum.removeprefix(">=").split(".")))
    versions = {
        next(version for name, version in PYTHON_OF.items() if name in image_of(stage, variant))
        for stage in ("packages", "deepy-neox")
    }
    assert len(versions) == 1
    assert versions.pop() >= lowest


def test_torch_is_built_for_the_cuda_and_rocm_of_the_images() -> None:
    cuda = setting("packages", "TORCH_BUILD", "cuda")
    compiler = image_of("packages", "cuda")
    assert cuda == "cu" + "".join(re.search(r":(\d+)\.(\d+)", compiler).groups())  # type: ignore[union-attr]
    assert image_of("deepy-neox", "cuda").partition(":")[2].split("-")[0] == compiler.partition(":")[2].split("-")[0]
    assert image_of("packages", "rocm").endswith(":" + setting("packages", "TORCH_BUILD", "rocm").removeprefix("rocm"))
    assert setting("packages", "TORCH_BUILD", "cpu") == "cpu"


def test_every_copied_file_exists_in_the_build_context_or_an_earlier_stage() -> None:
    copies = [entry.text.split() for entry in instructions() if entry.name == "COPY"]
    assert copies
    for words in copies:
        *sources, _ = [word for word in words if not word.startswith("--")]
        from_stage = [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
        if from_stage:
            assert from_stage[0] in {entry.stage for entry in instructions()}
            assert any(source in script_of(from_stage[0]) for source in sources)
        else:
            assert all((REPOSITORY / source).exists() for source in sources)


def test_torch_has_a_layer_of_its_own() -> None:
    order = [entry.text for entry in instructions() if entry.stage == "packages" and entry.name in {"COPY", "RUN"}]
    copied_all = next(i for i, text in enumerate(order) if text.startswith("requirements/ "))
    installed_torch = next(i for i, text in enumerate(order) if "-r requirements/requirements-torch.txt" in text)
    assert installed_torch < copied_all


def test_code_is_copied_last() -> None:
    final = [entry for entry in instructions() if entry.stage == "deepy-neox"]
    copied = next(i for i, entry in enumerate(final) if entry.name == "COPY" and entry.text.endswith(". ."))
    assert {entry.name for entry in final[copied + 1 :]} == {"USER", "CMD"}


def test_the_user_is_a_number_and_not_root() -> None:
    """Kubernetes' runAsNonRoot wants a number."""
    final = [entry for entry in instructions() if entry.stage == "deepy-neox"]
    user = [entry.text for entry in final if entry.name == "USER"]
    default = next(entry.text.partition("=")[2] for entry in final if entry.text.startswith("USER_ID="))
    assert user == ["${USER_ID}"]
    assert int(default) > 0


def test_package_lists_and_host_keys_are_not_left_in_a_layer() -> None:
    for entry in instructions():
        if "apt-get install" in entry.text:
            assert "--no-install-recommends" in entry.text
            assert "rm -rf /var/lib/apt/lists/*" in entry.text
        if "openssh-server" in entry.text:
            assert "/etc/ssh/ssh_host_*" in entry.text.partition("rm -rf")[2]
        assert "pip install" not in entry.text or "--no-cache-dir" in entry.text


def test_launchers_find_what_they_need() -> None:
    assert system_packages(script_of("deepy-neox")) >= {"openssh-client", "openssh-server", "pdsh", "iproute2", "rsync"}


def test_all_variants_are_named_by_the_stages() -> None:
    for variant in VARIANTS:
        assert base_of("packages", variant) == f"compiler-{variant}"
        assert base_of("deepy-neox", variant) == f"base-{variant}"
