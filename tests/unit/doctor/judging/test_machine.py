from __future__ import annotations

from dataclasses import replace

import pytest

from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.machine import Limits, Machine
from megatron.doctor.findings import Finding, worst
from megatron.doctor.judging.machine import judge_compilers, judge_folders, judge_machine
from tests.unit.doctor.builders import GIB, LIMITS, MACHINE, without_limits


def only(findings: list[Finding], subject: str) -> Finding:
    (found,) = (finding for finding in findings if finding.subject == subject)
    return found


def limited(**changes: object) -> Machine:
    return replace(MACHINE, limits=Limits(**{**vars(LIMITS), **changes}))  # type: ignore[arg-type]


def test_a_machine_that_is_well_has_no_warning() -> None:
    assert worst(judge_machine(MACHINE)) == "ok"


@pytest.mark.parametrize(
    ("machine", "subject", "text", "fix"),
    [
        (limited(shared_memory=64 * 2**20), "/dev/shm", "64 MiB: loader processes", "--shm-size=1g"),
        (limited(open_files=(256, 4096)), "open files", "at most 256", "ulimit -n 4096"),
        (limited(open_files=(256, -1)), "open files", "at most 256", "ulimit -n 1024"),
        (replace(MACHINE, rdma=("mlx5_0",)), "locked memory", "mlx5_0 need locked memory", "ulimit -l unlimited"),
    ],
)
def test_a_limit_that_is_too_low_is_a_warning_with_its_fix(machine: Machine, subject: str, text: str, fix: str) -> None:
    found = only(judge_machine(machine), subject)
    assert found.level == "warning"
    assert text in found.text
    assert fix in found.fix


def test_open_files_without_a_limit_are_well() -> None:
    assert only(judge_machine(limited(open_files=(-1, -1))), "open files") == Finding("open files", "ok", "no limit")


def test_locked_memory_without_a_limit_suits_adapters_that_need_it() -> None:
    assert only(judge_machine(without_limits(replace(MACHINE, rdma=("mlx5_0",)))), "locked memory").level == "ok"


def test_cores_that_a_container_withholds_are_told() -> None:
    assert only(judge_machine(replace(MACHINE, cores=2)), "cores").text.startswith("2 of 8")


def test_a_folder_that_cannot_be_written_names_the_variable_that_gives_another() -> None:
    disks = {
        "/tmp": Disk("/tmp", True, 0, GIB, "it cannot be written"),
        "/home/cache": Disk("/home/cache", True, GIB, GIB),
    }
    findings = judge_folders({"temporary files": "/tmp", "downloaded models": "/home/cache"}, disks)
    assert findings == [Finding("temporary files", "warning", "/tmp: it cannot be written", "give another with TMPDIR")]


def test_a_compiler_is_asked_for_only_where_something_needs_it() -> None:
    assert judge_compilers(MACHINE, needed=[])[0].level == "absent"
    assert judge_compilers(MACHINE, needed=[("cc", "Triton")])[0].level == "warning"
    assert judge_compilers(replace(MACHINE, programs={"cc": "/usr/bin/cc"}), needed=[("cc", "Triton")])[0].level == "ok"
