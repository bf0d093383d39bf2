"""A run keeps its id where its checkpoints are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from megatron.monitor.writers.base import Process
from megatron.monitor.writers.run_id import run_id
from tests.unit.neox_arguments.minimal import build

RESUMED = Process(resumed=True)


def test_a_resumed_run_has_the_id_of_the_run_it_continues(tmp_path: Path) -> None:
    args = build(save=str(tmp_path / "checkpoints"))
    first = run_id(args, Process(), service="wandb")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert run_id(args, RESUMED, service="wandb") == first
    assert run_id(args, RESUMED, service="wandb") == first


def test_a_run_from_the_beginning_is_another_one_which_is_continued_from_then_on(tmp_path: Path) -> None:
    args = build(save=str(tmp_path))
    first = run_id(args, Process(), service="wandb")
    second = run_id(args, Process(), service="wandb")
    assert first != second
    assert run_id(args, RESUMED, service="wandb") == second


def test_a_branch_that_saves_elsewhere_is_another_run(tmp_path: Path) -> None:
    first = run_id(build(save=str(tmp_path / "trunk")), Process(), service="wandb")
    assert run_id(build(save=str(tmp_path / "branch")), RESUMED, service="wandb") != first


def test_ranks_and_services_have_ids_of_their_own(tmp_path: Path) -> None:
    args = build(save=str(tmp_path))
    cases: list[tuple[Any, str]] = [(Process(), "wandb"), (Process(rank=1), "wandb"), (Process(), "comet")]
    ids = [run_id(args, process, service=service) for process, service in cases]
    assert len(set(ids)) == 3
    assert run_id(args, Process(rank=1, resumed=True), service="wandb") == ids[1]


def test_without_checkpoints_nothing_is_kept() -> None:
    assert run_id(build(), RESUMED, service="wandb") != run_id(build(), RESUMED, service="wandb")


def test_an_unreadable_id_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "wandb_run_id").write_bytes(b"\xff\xfe")
    created = run_id(build(save=str(tmp_path)), RESUMED, service="wandb")
    assert (tmp_path / "wandb_run_id").read_text() == f"{created}\n"


def test_a_run_that_saves_into_a_store_keeps_its_id_there() -> None:
    args = build(save="memory://bucket/run")
    first = run_id(args, Process(), service="wandb")
    assert run_id(args, RESUMED, service="wandb") == first
    assert run_id(args, RESUMED, service="comet") != first
