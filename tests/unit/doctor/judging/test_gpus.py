from __future__ import annotations

from typing import Any

import pytest

from megatron.doctor.findings import Level
from megatron.doctor.judging.gpus import judge_gpus
from tests.unit.doctor.builders import GIB, gpu


@pytest.mark.parametrize(
    "changes", [{}, {"throttled": ("sw_power_cap",)}, {"used_bytes": GIB // 2}, {"temperature": None, "hot": None}]
)
def test_a_device_that_is_well_or_works_hard_has_no_finding(changes: dict[str, Any]) -> None:
    assert judge_gpus([gpu(**changes)]) == []


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"uncorrected": 3}, "failure", "3 uncorrected memory errors"),
        ({"repair_failed": True}, "failure", "more errors than it can repair"),
        ({"repair_pending": True}, "warning", "waits for a reset"),
        ({"temperature": 90}, "warning", "90 degrees"),
        ({"temperature": 95, "hot": None}, "warning", "95 degrees"),
        ({"temperature": 85, "hot": 85}, "warning", "85 degrees"),
        ({"throttled": ("hw_thermal_slowdown", "sw_thermal_slowdown")}, "warning", "held down: it is too hot"),
        ({"throttled": ("hw_power_brake_slowdown",)}, "warning", "the power supply holds it down"),
        (
            {"used_bytes": 10 * GIB, "others": ("4711 python",)},
            "warning",
            "10.0 GiB of 80.0 GiB are in use by 4711 python",
        ),
    ],
)
def test_each_illness_is_a_finding_with_a_fix(changes: dict[str, Any], level: Level, text: str) -> None:
    (found,) = judge_gpus([gpu(0), gpu(5, **changes)])
    assert (found.subject, found.level) == ("GPU 5", level)
    assert text in found.text
    assert found.fix
