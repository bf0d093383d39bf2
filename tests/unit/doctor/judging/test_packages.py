from __future__ import annotations

from dataclasses import replace

from megatron.doctor.facts.installed import Pin
from megatron.doctor.findings import Finding, Level
from megatron.doctor.judging.packages import judge_packages, version_finding
from tests.unit.doctor.builders import TORCH

PINS = {
    "torch": Pin("2.13.0", "requirements-torch.txt"),
    "numpy": Pin("2.4.6", "requirements-torch.txt"),
    "setuptools": Pin("84.2.1", "requirements-torch.txt"),
    "deepspeed": Pin("0.19.8", "requirements.txt"),
    "tokenizers": Pin("0.23.3", "requirements.txt"),
    "tiktoken": Pin("0.14.0", "requirements-tiktoken.txt"),
    "flash-attn": Pin("2.8.3", "requirements-flashattention.txt"),
}
INSTALLED = {"torch": "2.13.0", "numpy": "2.4.6", "deepspeed": "0.19.8", "tokenizers": "0.23.3"}


def judged(name: str, *, imports: dict[str, str] | None = None, **versions: str) -> Finding:
    installed = {**INSTALLED, **{key.replace("_", "-"): value for key, value in versions.items() if value}}
    installed = {key: value for key, value in installed.items() if versions.get(key) != ""}
    findings = judge_packages(installed, PINS, replace(TORCH, imports=imports or {}))
    (found,) = (finding for finding in findings if finding.subject == name)
    return found


def levels(**versions: str) -> set[Level]:
    return {finding.level for finding in judge_packages({**INSTALLED, **versions}, PINS, TORCH)}


def test_what_every_run_needs_is_enough() -> None:
    assert levels() == {"ok", "absent"}, "what builds packages is not needed"


def test_a_needed_package_that_is_missing_is_a_failure_with_the_command_that_installs_it() -> None:
    found = judged("deepspeed", deepspeed="")
    assert found == Finding(
        "deepspeed",
        "failure",
        "not installed; every run needs 0.19.8",
        "pip install --no-build-isolation -r requirements/requirements.txt",
    )


def test_one_that_cannot_be_imported_is_a_failure_with_its_last_words() -> None:
    found = judged("deepspeed", imports={"deepspeed": "ImportError: no op"})
    assert (found.level, found.text) == ("failure", "0.19.8 cannot be imported: ImportError: no op")


def test_another_version_than_the_proven_one_is_a_warning() -> None:
    assert judged("numpy", numpy="1.26.0").level == "warning"
    assert judged("tiktoken", tiktoken="0.12.0").fix == "pip install -r requirements/requirements-tiktoken.txt"


def test_releases_that_are_proven_as_well_are_no_warning() -> None:
    assert version_finding("torch", "2.11.0+cu128", PINS["torch"]).level == "ok"
    assert version_finding("torch", "2.1.0", PINS["torch"]).level == "warning"


def test_an_optional_package_that_is_missing_says_what_is_used_in_its_place() -> None:
    found = judged("flash-attn")
    assert (found.level, found.fix) == ("absent", "")
    assert "scaled dot product attention" in found.text


def test_an_optional_package_that_is_broken_is_a_warning() -> None:
    found = judged("flash-attn", flash_attn="2.8.3", imports={"flash_attn": "undefined symbol: _ZN3c10"})
    assert found.level == "warning"
    assert "undefined symbol" in found.text
