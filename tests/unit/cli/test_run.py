"""What deepy.py says at the end of a run, and what it tells the launcher of it."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.cli.run import build_job, way_on
from megatron.launcher.base import HeadPlace, Host
from megatron.neox_arguments import NeoXArgs
from tests.unit.neox_arguments.minimal import MINIMAL


def arguments(**changes: Any) -> NeoXArgs:
    return NeoXArgs.from_dict({**MINIMAL, "save": "ours", "load": "ours", "load_if_exists": True, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"load": "base", "finetune": True}, " with load=ours finetune=false"),
        ({"load": None, "load_if_exists": False}, " with load=ours"),
        ({"iteration": 100, "no_load_optim": True}, " with iteration=null no_load_optim=false"),
    ],
)
def test_the_way_on_leads_to_what_the_run_has_saved(changes: dict[str, Any], words: str) -> None:
    assert way_on(arguments(**changes)) == f"the same command{words} goes on"


@pytest.mark.parametrize(("script", "expected"), [("train.py", (3, True)), ("generate.py", (0, False))])
def test_only_training_is_started_again_and_can_be_stopped_without_loss(
    script: str, expected: tuple[int, bool]
) -> None:
    job = build_job(arguments(max_restarts=3), script, (Host("localhost", (0,)),), HeadPlace(), grace_seconds=5)
    assert (job.max_restarts, job.saves) == expected
