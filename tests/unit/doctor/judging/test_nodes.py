from __future__ import annotations

from dataclasses import replace

import pytest

from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.gpus import Gpus
from megatron.doctor.facts.node import NodeReport
from megatron.doctor.findings import Finding, Level, worst
from megatron.doctor.judging.nodes import judge_nodes, nodes_section
from tests.unit.doctor.builders import MACHINE, gpu, node, with_gpus

PORT = 29500


def judged(*reports: NodeReport) -> list[Finding]:
    return judge_nodes(reports, wanted_port=PORT)


def bad(*reports: NodeReport) -> list[Finding]:
    return [finding for finding in judged(*reports) if finding.level in ("warning", "failure")]


def test_machines_that_are_alike_and_reach_each_other_are_well() -> None:
    findings = judged(node("a", peers={"b": ""}), node("b", peers={"a": ""}))
    assert worst(findings) == "ok"
    assert [finding.subject for finding in findings] == ["versions", "network", "folders"]


OLD = replace(MACHINE, packages={**MACHINE.packages, "torch": "2.11.0"})
SICK = replace(MACHINE, gpus=Gpus((gpu(0, uncorrected=4), gpu(1))))


@pytest.mark.parametrize(
    ("second", "subject", "level", "text"),
    [
        (
            NodeReport("b", (0, 1), problem="Connection refused"),
            "b",
            "failure",
            "could not be examined: Connection refused",
        ),
        (node("b", skew=-12.3), "b", "warning", "its clock is 12.3 s behind this machine's"),
        (node("b", skew=301.0), "b", "failure", "301.0 s ahead of this machine's: munge"),
        (node("b", machine=OLD), "versions", "failure", "torch differs: 2.13.0 on a; 2.11.0 on b"),
        (
            node("b", machine=replace(MACHINE, python="3.11.7")),
            "versions",
            "failure",
            "Python differs: 3.12.3 on a; 3.11.7 on b",
        ),
        (
            node("b", machine=replace(MACHINE, source="ba9876543210")),
            "versions",
            "failure",
            "project differs: 0123456789ab on a",
        ),
        (
            node("b", shared={"save": "No such file or directory"}),
            "b",
            "failure",
            "save: /shared/run is not the folder that",
        ),
        (node("b", folders={"save": Disk("/x", True, 0, 9, "read-only")}), "b", "failure", "save: /x: read-only"),
        (node("b", meeting_place="a:29500 did not answer"), "b", "failure", "where the ranks will meet: a:29500"),
        (
            node("b", peers={"a": "a:40000: No route to host"}),
            "b",
            "failure",
            "does not reach a: a:40000: No route to host",
        ),
    ],
)
def test_what_is_wrong_with_a_machine_is_a_finding_with_a_fix(
    second: NodeReport, subject: str, level: Level, text: str
) -> None:
    (found,) = bad(node("a"), second)
    assert (found.subject, found.level) == (subject, level)
    assert text in found.text
    assert found.fix


def test_a_clock_is_judged_by_what_is_certain() -> None:
    assert bad(node("a", skew=1.5, round_trip=2.0)) == []


def test_a_log_folder_of_its_own_costs_little() -> None:
    folders = {"log_dir": Disk("/local/logs", True, 9, 9)}
    (found,) = bad(node("a"), node("b", folders=folders, shared={"save": "", "log_dir": "another file"}))
    assert found.level == "warning"


def test_folders_that_all_machines_share_are_told_without_the_others() -> None:
    shared = {"save": "", "log_dir": "another file"}
    findings = judged(node("a", shared={"save": "", "log_dir": ""}), node("b", shared=shared))
    assert findings[-1].text.startswith("save: a file written here")


def test_a_network_with_a_gap_is_not_called_well() -> None:
    findings = judged(node("a"), node("b", peers={"a": "a:40000: No route to host"}))
    assert "network" not in [finding.subject for finding in findings]


def test_a_port_that_is_taken_is_a_warning_and_where_a_run_would_insist_on_it_a_failure() -> None:
    reports = [node("a", meeting_port=40000), node("b", meeting_port=40000)]
    (found,) = bad(*reports)
    assert found.text == "master_port 29500 is taken on the first machine; 40000 was used in its place"
    insisting = nodes_section(reports, wanted_port=PORT, port_is_fixed=True)
    (found,) = (finding for finding in insisting.findings if finding.fix)
    assert (found.level, found.text) == (
        "failure",
        "master_port 29500 is taken on the first machine, and the config asks for this one",
    )


@pytest.mark.parametrize(
    ("second", "subject", "text"),
    [
        (node("b", machine=with_gpus(1)), "b", "has 1 GPU, and slot 1 is wanted there"),
        (node("b"), "b", "has 0 GPUs, and slot 1 is wanted there"),
        (
            node("b", machine=with_gpus(2, name="NVIDIA A100")),
            "GPUs",
            "not all the same: NVIDIA H100 on a; NVIDIA A100 on b",
        ),
        (node("b", machine=SICK), "b", "GPU 0: 4 uncorrected memory errors"),
        (
            node("b", machine=replace(with_gpus(2), gpus=Gpus(with_gpus(2).gpus.devices, problem="nvidia-smi failed"))),
            "b",
            "nvidia-smi failed",
        ),
    ],
)
def test_devices_are_counted_compared_and_looked_at(second: NodeReport, subject: str, text: str) -> None:
    found = bad(node("a", machine=with_gpus(2)), second)[0]
    assert found.subject == subject
    assert text in found.text


def test_a_slot_is_the_number_of_a_device() -> None:
    second = replace(node("b", machine=with_gpus(2)), slots=(3,))
    (found,) = bad(node("a", machine=with_gpus(2)), second)
    assert found.text == "has 2 GPUs, and slot 3 is wanted there"


def test_devices_that_lack_the_precision_are_a_failure() -> None:
    reports = [node("a", machine=with_gpus(2, name="Tesla V100-SXM2-32GB"))]
    assert worst(judge_nodes(reports, wanted_port=PORT, precision="fp16")) == "ok"
    (found,) = (finding for finding in judge_nodes(reports, wanted_port=PORT, precision="bfloat16") if finding.fix)
    assert (found.level, found.text) == ("failure", "Tesla V100-SXM2-32GB cannot compute bfloat16")


def test_a_sick_device_that_is_not_used_does_not_count() -> None:
    assert bad(node("a", slots=1, machine=replace(MACHINE, gpus=Gpus((gpu(0), gpu(1, uncorrected=4)))))) == []


def test_the_table_has_a_row_for_every_machine_with_its_verdict() -> None:
    section = nodes_section(
        [node("a", machine=with_gpus(2)), NodeReport("b", (0, 1), problem="gone")], wanted_port=PORT
    )
    head, first, second = section.table
    assert dict(zip(head, first, strict=True)) == {
        "machine": "a",
        "verdict": "ok",
        "reached": "1.2 s",
        "calls itself": "a",
        "clock": "+2 ms",
        "cores": "8",
        "memory": "64.0 GiB",
        "GPUs": "2 x NVIDIA H100",
        "slots": "2",
        "save: free": "500.0 GiB",
    }
    assert second[:3] == ["b", "failure", "no"]
