"""Installed packages against the versions that the project is proven with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from megatron.doctor.facts.installed import Pin, same_version
from megatron.doctor.facts.torch_facts import TorchFacts
from megatron.doctor.findings import Finding
from megatron.doctor.judging.optional import OPTIONAL, Optional

ALSO_PROVEN = {"torch": ("2.11",)}
"""Further releases that work, by the package."""

OWN_FILES = ("requirements.txt", "requirements-torch.txt")
"""What every run needs."""

BUILT_HERE = ("requirements.txt", "requirements-flashattention.txt", "requirements-transformer-engine.txt")
"""Files with packages that build against the torch that is there; in a build environment of their own there is none."""

BUILD_TOOLS = ("setuptools", "wheel")
"""What builds DeepSpeed's package, and no run needs."""

SHOWN_ALONE = ("torch", "deepspeed", "tokenizers")


def judge_packages(installed: Mapping[str, str], pins: Mapping[str, Pin], torch: TorchFacts) -> list[Finding]:
    """All packages but torch itself. torch: which of those built against it can be imported."""
    needed = [name for name, pin in pins.items() if pin.file in OWN_FILES and name not in BUILD_TOOLS]
    findings = [_needed(name, installed, pins, torch.imports) for name in SHOWN_ALONE if name != "torch"]
    findings += _others([name for name in needed if name not in SHOWN_ALONE], installed, pins)
    findings += [_optional(package, installed, pins, torch.imports) for package in OPTIONAL]
    return findings


def version_finding(name: str, version: str, pin: Pin | None, *, more: str = "") -> Finding:
    """An installed package by its version alone. more: what else to say of it."""
    about = f"; {more}" if more else ""
    if pin is None or same_version(version, pin.version):
        return Finding(name, "ok", f"{version}{about}")
    if any(version.startswith(f"{release}.") for release in ALSO_PROVEN.get(name, ())):
        return Finding(name, "ok", f"{version}, which works as well as the pinned {pin.version}{about}")
    text = f"{version} is installed, the project is proven with {pin.version}{about}"
    return Finding(name, "warning", text, install(pin.file))


def install(file: str) -> str:
    """The command that installs what a requirements file names."""
    isolation = " --no-build-isolation" if file in BUILT_HERE else ""
    return f"pip install{isolation} -r requirements/{file}"


def _needed(name: str, installed: Mapping[str, str], pins: Mapping[str, Pin], imports: Mapping[str, str]) -> Finding:
    pin = pins[name]
    if name not in installed:
        return Finding(name, "failure", f"not installed; every run needs {pin.version}", install(pin.file))
    if imports.get(name):
        return Finding(name, "failure", f"{installed[name]} cannot be imported: {imports[name]}", install(pin.file))
    return version_finding(name, installed[name], pin)


def _others(names: list[str], installed: Mapping[str, str], pins: Mapping[str, Pin]) -> Iterator[Finding]:
    """The rest of what every run needs: one line when all is well, else one for each that is not."""
    findings = [_needed(name, installed, pins, {}) for name in names]
    good = [finding for finding in findings if finding.level == "ok"]
    yield from (finding for finding in findings if finding.level != "ok")
    if good:
        what = "all" if len(good) == len(names) else f"{len(good)} of {len(names)}"
        yield Finding(
            "other packages",
            "ok",
            f"{what} that every run needs, as pinned: {', '.join(names)}"
            if what == "all"
            else f"{what} that every run needs are as pinned",
        )


def _optional(
    package: Optional,
    installed: Mapping[str, str],
    pins: Mapping[str, Pin],
    imports: Mapping[str, str],
) -> Finding:
    pin, name = pins.get(package.name), package.name
    fix = install(pin.file) if pin else f"pip install {name}"
    for_what = f"for {package.asked_by}"
    if name not in installed:
        return Finding(name, "absent", f"not installed; {for_what}; without it {package.instead}")
    if imports.get(package.module):
        text = f"{installed[name]} cannot be imported: {imports[package.module]}; without it {package.instead}"
        return Finding(name, "warning", text, fix)
    return version_finding(name, installed[name], pin, more=for_what)
