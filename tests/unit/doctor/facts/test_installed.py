from __future__ import annotations

from pathlib import Path

import pytest

from megatron.components import STORES, TOKENIZERS, WRITERS
from megatron.doctor.facts.installed import Pin, installed_versions, normal_name, read_pins, same_version
from megatron.doctor.judging.optional import OPTIONAL
from megatron.doctor.judging.packages import OWN_FILES


def test_pins_are_read_with_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# text\n-r other.txt\nPyYAML==6.0.3  # parser\nxtra[all]==1.2;python_version>'3'\nloose>=3\n"
    )
    (tmp_path / "requirements-dev.txt").write_text("pytest==9\n")
    (tmp_path / "requirements-benchmark.txt").write_text("peer==1\n")
    assert read_pins(tmp_path) == {"pyyaml": Pin("6.0.3", "requirements.txt"), "xtra": Pin("1.2", "requirements.txt")}


def test_every_optional_package_of_ours_is_described() -> None:
    """A requirements file for a new feature needs a line that says what asks for it, and what happens without it."""
    pinned = {name for name, pin in read_pins().items() if pin.file not in OWN_FILES}
    assert pinned == {package.name for package in OPTIONAL} - {"triton", "flash-attn-3"}, "with torch, from source"


def test_every_package_of_the_menus_is_described() -> None:
    files = {registry.requirement(name) for registry in (TOKENIZERS, WRITERS) for name in registry} - {None}
    files |= {store.requirement for store in STORES.values()}
    pins = read_pins()
    assert files <= {pins[package.name].file for package in OPTIONAL if package.name in pins}


@pytest.mark.parametrize(
    ("installed", "same"), [("2.13.0", True), ("2.13.0+cu130", True), ("2.13.1", False), ("2.11.0+cpu", False)]
)
def test_the_build_of_a_version_does_not_count(installed: str, same: bool) -> None:
    assert same_version(installed, "2.13.0") is same


def test_names_are_compared_as_indexes_do() -> None:
    assert normal_name("Comet_ML") == "comet-ml"
    assert set(installed_versions(["pyyaml", "no-such-package"])) == {"pyyaml"}
