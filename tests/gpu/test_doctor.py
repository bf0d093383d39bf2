"""`deepy.py doctor` on a machine with GPUs: the driver's and torch's view agree, and collective operations run over NCCL."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.end_to_end.runs import deepy_command

pytestmark = pytest.mark.gpu


def test_gpus_are_found_by_the_driver_and_by_torch() -> None:
    words = [] if torch.cuda.device_count() == 1 else [f"num_gpus={torch.cuda.device_count()}"]
    done = subprocess.run(
        deepy_command("doctor", "--json", *words),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    facts = json.loads(done.stdout)["facts"]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    assert [device["name"] for device in facts["torch"]["devices"]] == names
    if torch.version.cuda:
        assert [device["name"] for device in facts["machine"]["gpus"]["devices"]] == names
        assert facts["machine"]["gpus"]["driver"]
        assert all(device["temperature"] > 0 for device in facts["machine"]["gpus"]["devices"])
    if words:
        assert facts["bandwidth"]["backend"] == "nccl"
        assert facts["bandwidth"]["wrong"] == {}
