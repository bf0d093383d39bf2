"""What Weights & Biases is told: by a stand-in that records every call, and by W&B itself, offline."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megatron.monitor.writers.base import Process, WriterFailed
from tests.unit.monitor.writers.recordings import wandb_recordings
from tests.unit.neox_arguments.minimal import build

VARIABLES = ("MODE", "API_KEY", "DIR", "RUN_ID", "BASE_URL", "PROJECT", "NAME", "SILENT", "RESUME", "DISABLED")


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


class StandIn(ModuleType):
    """The functions of `wandb` that are used. mode: of the environment; login: whether there is one; unreachable: the server."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[Any, ...]] = []
        self.mode, self.logged_in, self.unreachable, self.step = "online", True, False, 0

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings

    def setup(self, *, settings: Any) -> Any:
        self.calls.append(("setup", settings))
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, **options: Any) -> bool:
        self.calls.append(("login", options))
        return self.logged_in

    def teardown(self, **options: Any) -> None:
        self.calls.append(("teardown", options))

    def init(self, **facts: Any) -> Any:
        self.calls.append(("init", facts))
        if self.unreachable and facts.get("mode") != "offline":
            raise ConnectionError("no route to host\nand more of that")
        offline = "offline" in (self.mode, facts.get("mode"))
        return SimpleNamespace(
            step=self.step,
            url="https://wandb.ai/team/neox/runs/1",
            offline=offline,
            disabled=False,
            settings=SimpleNamespace(sync_dir="logs/wandb/offline-run-1"),
            log=self._log,
            finish=lambda **options: self.calls.append(("finish", options)),
        )

    def _log(self, values: dict[str, float], *, step: int) -> None:
        if values.get("train/loss") == -1.0:
            raise RuntimeError("the service is gone")
        self.calls.append(("log", step, values))

    def named(self, name: str) -> list[Any]:
        return [call[1] if len(call) == 2 else call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delitem(sys.modules, "megatron.monitor.writers.wandb", raising=False)
    return stand_in


def start(tmp_path: Path, process: Process = Process(), **keys: Any) -> Any:  # noqa: B008
    args = build(log_dir=str(tmp_path / "logs"), save=str(tmp_path / "checkpoints"), use_wandb=True, **keys)
    # By name, because the module of the other tests has the other wandb.
    return importlib.import_module("megatron.monitor.writers.wandb").WandbWriter(args, process)


def test_a_new_run_has_its_names_and_the_resolved_configuration(tmp_path: Path, wandb: StandIn) -> None:
    keys = {"wandb_project": "p", "wandb_team": "t", "wandb_group": "g", "wandb_run_name": "n"}
    start(tmp_path, **keys, zero_stage=1)
    assert [call[0] for call in wandb.calls] == ["setup", "login", "init"]
    (facts,) = wandb.named("init")
    assert {key: facts[key] for key in ("project", "entity", "group", "name")} == {
        "project": "p",
        "entity": "t",
        "group": "g",
        "name": "n",
    }
    assert facts["config"]["zero_optimization"]["stage"] == 1
    assert facts["config"]["train_batch_size"] == 2
    assert (facts["dir"], facts["resume"]) == (str(tmp_path / "logs"), None)
    assert (tmp_path / "checkpoints" / "wandb_run_id").read_text().strip() == facts["id"]


def test_metrics_have_the_names_of_tensorboard_and_the_iteration_as_step(tmp_path: Path, wandb: StandIn) -> None:
    writer = start(tmp_path)
    writer.write(3, {"loss": 2.5, "skipped": False, "what": "text"})
    writer.write(3, {"validation/loss": 2.0})
    writer.close()
    assert wandb.named("log") == [(3, {"train/loss": 2.5, "train/skipped": 0.0}), (3, {"validation/loss": 2.0})]
    assert wandb.calls[-2:] == [("finish", {"exit_code": 0}), ("teardown", {"exit_code": 0})]


def test_a_run_that_fails_is_finished_as_failed(tmp_path: Path, wandb: StandIn) -> None:
    start(tmp_path).close(failed=True)
    assert wandb.calls[-2:] == [("finish", {"exit_code": 1}), ("teardown", {"exit_code": 1})]


def test_a_resumed_run_continues_and_repeats_no_step_that_the_server_has(tmp_path: Path, wandb: StandIn) -> None:
    start(tmp_path)
    wandb.step = 8
    writer = start(tmp_path, Process(resumed=True))
    first, second = wandb.named("init")
    assert (second["id"], second["resume"]) == (first["id"], "allow")
    for iteration in (6, 7, 8):
        writer.write(iteration, {"loss": 1.0})
    assert [step for step, _ in wandb.named("log")] == [8]


@pytest.mark.parametrize(
    ("logged_in", "unreachable", "reason"),
    [
        (False, False, "(nobody is logged in: run wandb login, or set WANDB_API_KEY)"),
        (True, True, "(no route to host)"),
    ],
)
def test_without_a_server_the_run_is_recorded_on_disk_with_one_warning(
    tmp_path: Path,
    wandb: StandIn,
    caplog: pytest.LogCaptureFixture,
    logged_in: bool,
    unreachable: bool,
    reason: str,
) -> None:
    wandb.logged_in, wandb.unreachable = logged_in, unreachable
    start(tmp_path, Process(resumed=True)).write(1, {"loss": 1.0})
    *attempts, last = wandb.named("init")
    assert len(attempts) == int(logged_in)
    assert last["mode"] == "offline"
    assert "resume" not in last  # nothing on disk can be continued
    assert wandb.named("log") == [(1, {"train/loss": 1.0})]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert reason in warning
    assert "wandb sync logs/wandb/offline-run-1" in warning


def test_a_login_is_never_asked_for_at_the_terminal(tmp_path: Path, wandb: StandIn) -> None:
    wandb.logged_in = False
    start(tmp_path)
    assert wandb.named("login") == [{"host": None, "prompt": False, "verify": False}]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_mode_of_the_environment_is_respected(
    tmp_path: Path, wandb: StandIn, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    wandb.mode = mode
    start(tmp_path)
    assert [call[0] for call in wandb.calls] == ["setup", "init"]
    assert "mode" not in wandb.named("init")[0]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_own_server_is_used_for_everything(tmp_path: Path, wandb: StandIn) -> None:
    start(tmp_path, wandb_host="https://wandb.example.org")
    assert wandb.named("setup")[0]["base_url"] == "https://wandb.example.org"
    assert wandb.named("login")[0]["host"] == "https://wandb.example.org"
    assert wandb.named("init")[0]["settings"]["base_url"] == "https://wandb.example.org"


def test_one_run_a_process_shares_the_group_and_nothing_else(
    tmp_path: Path, wandb: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.logged_in = False
    for rank in (0, 1):
        start(tmp_path, Process(rank=rank), wandb_init_all_ranks=True, wandb_run_name="n", wandb_group="g")
    first, second = wandb.named("init")
    assert (first["group"], second["group"]) == ("g", "g")
    assert (first["name"], second["name"]) == ("n-rank0", "n-rank1")
    assert first["id"] != second["id"]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_variables_of_wandb_name_the_run_and_its_folder(
    tmp_path: Path, wandb: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    start(tmp_path)
    (facts,) = wandb.named("init")
    assert (facts["id"], facts["dir"]) == (None, str(tmp_path / "elsewhere"))
    assert not (tmp_path / "checkpoints").exists()


def test_whatever_the_library_raises_ends_the_writer_alone(tmp_path: Path, wandb: StandIn) -> None:
    with pytest.raises(WriterFailed, match="the service is gone"):
        start(tmp_path).write(1, {"loss": -1.0})


@pytest.fixture
def real_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = pytest.importorskip("wandb")
    monkeypatch.delitem(sys.modules, "megatron.monitor.writers.wandb", raising=False)
    yield
    real.teardown()


@pytest.mark.usefixtures("real_wandb")
def test_offline_runs_hold_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    writer = start(tmp_path, wandb_project="p")
    for iteration in (1, 2):
        writer.write(iteration, {"loss": 3.0 - iteration, "grad_norm": float("nan")})
    writer.write(2, {"validation/loss": 2.0})
    writer.close()
    again = start(tmp_path, Process(resumed=True))
    again.write(2, {"loss": 1.0})
    again.write(3, {"loss": 0.0})
    again.close(failed=True)

    first, second = wandb_recordings(tmp_path / "logs")
    assert first.id == second.id == (tmp_path / "checkpoints" / "wandb_run_id").read_text().strip()
    assert first.project == "p"
    assert first.config["hidden_size"] == 64
    assert first.config["zero_optimization"]["stage"] == 0
    assert [first.metrics[step]["train/loss"] for step in (1, 2)] == [2.0, 1.0]
    assert first.metrics[2]["validation/loss"] == 2.0
    assert {step: values["train/loss"] for step, values in second.metrics.items()} == {2: 1.0, 3: 0.0}
    assert (first.exit_code, second.exit_code) == (0, 1)


@pytest.mark.usefixtures("real_wandb")
def test_a_run_without_a_login_is_recorded_as_if_it_were_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = start(tmp_path)
    writer.write(1, {"loss": 3.0})
    writer.close()
    (recording,) = wandb_recordings(tmp_path / "logs")
    assert recording.metrics[1]["train/loss"] == 3.0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "nobody is logged in" in warning
    assert str(next((tmp_path / "logs").rglob("offline-run-*"))) in warning
    assert "".join(capfd.readouterr()) == ""  # W&B itself says nothing
