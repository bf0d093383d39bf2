"""What Comet is told: by a stand-in that records every call, and by Comet itself, offline."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megatron.monitor.writers.base import Process, WriterFailed
from tests.unit.monitor.writers.recordings import comet_recordings
from tests.unit.neox_arguments.minimal import build

VARIABLES = ("API_KEY", "START_ONLINE", "OFFLINE_DIRECTORY", "EXPERIMENT_KEY", "WORKSPACE", "PROJECT_NAME")
KEYS = {
    "comet_workspace": "w",
    "comet_project": "p",
    "comet_experiment_name": "n",
    "comet_tags": ["small", "trial"],
    "comet_others": {"machine": "laptop"},
}


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"COMET_{name}", raising=False)
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "none"))


class StandIn(ModuleType):
    """The functions of `comet_ml` that are used."""

    def __init__(self) -> None:
        super().__init__("comet_ml")
        self.calls: list[tuple[Any, ...]] = []
        self.settings: dict[str, Any] = {"comet.api_key": "key", "comet.start.online": None}
        self.unreachable = False

    def ExperimentConfig(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings

    def get_config(self, name: str) -> Any:
        return self.settings[name]

    def start(self, **facts: Any) -> Any:
        self.calls.append(("start", facts))
        if self.unreachable and facts["online"]:
            raise ConnectionError("no route to host")
        return SimpleNamespace(
            url="https://www.comet.com/w/p/1",
            log_parameters=lambda values: self.calls.append(("log_parameters", values)),
            log_others=lambda values: self.calls.append(("log_others", values)),
            log_other=lambda key, value: self.calls.append(("log_other", key, value)),
            log_metrics=self._log_metrics,
            end=lambda: self.calls.append(("end",)),
        )

    def _log_metrics(self, values: dict[str, float], *, step: int) -> None:
        if values.get("train/loss") == -1.0:
            raise RuntimeError("the service is gone")
        self.calls.append(("log_metrics", step, values))

    def named(self, name: str) -> list[Any]:
        return [call[1] if len(call) == 2 else call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "comet_ml", stand_in)
    monkeypatch.delitem(sys.modules, "megatron.monitor.writers.comet", raising=False)
    return stand_in


def start(tmp_path: Path, process: Process = Process(), **keys: Any) -> Any:  # noqa: B008
    args = build(log_dir=str(tmp_path / "logs"), save=str(tmp_path / "checkpoints"), use_comet=True, **keys)
    # By name, because the module of the other tests has the other comet_ml.
    return importlib.import_module("megatron.monitor.writers.comet").CometWriter(args, process)


def test_an_experiment_has_its_names_and_the_resolved_configuration(tmp_path: Path, comet: StandIn) -> None:
    start(tmp_path, **KEYS, zero_stage=1)
    (facts,) = comet.named("start")
    assert (facts["workspace"], facts["project_name"], facts["online"]) == ("w", "p", True)
    assert facts["experiment_config"]["name"] == "n"
    assert facts["experiment_config"]["tags"] == ["small", "trial"]
    assert facts["experiment_config"]["offline_directory"] == str(tmp_path / "logs" / "comet")
    assert (tmp_path / "checkpoints" / "comet_run_id").read_text().strip() == facts["experiment_key"]
    (config,) = comet.named("log_parameters")
    assert config["zero_optimization"]["stage"] == 1
    assert comet.named("log_others") == [{"machine": "laptop"}]


def test_metrics_have_the_names_of_tensorboard_and_the_iteration_as_step(tmp_path: Path, comet: StandIn) -> None:
    writer = start(tmp_path)
    writer.write(3, {"loss": 2.5, "skipped": False, "what": "text"})
    writer.write(3, {"validation/loss": 2.0})
    writer.close()
    assert comet.named("log_metrics") == [(3, {"train/loss": 2.5, "train/skipped": 0.0}), (3, {"validation/loss": 2.0})]
    assert comet.calls[-2:] == [("log_other", "exit_code", 0), ("end",)]


def test_an_experiment_that_fails_says_so(tmp_path: Path, comet: StandIn) -> None:
    start(tmp_path).close(failed=True)
    assert comet.calls[-2:] == [("log_other", "exit_code", 1), ("end",)]


def test_a_resumed_run_continues_its_experiment(tmp_path: Path, comet: StandIn) -> None:
    start(tmp_path)
    start(tmp_path, Process(resumed=True))
    first, second = comet.named("start")
    assert second["experiment_key"] == first["experiment_key"]
    assert second["mode"] == "get_or_create"


@pytest.mark.parametrize(
    ("key", "unreachable", "reason"),
    [
        (None, False, "(there is no API key: run comet login, or set COMET_API_KEY)"),
        ("key", True, "(no route to host)"),
    ],
)
def test_without_a_server_the_experiment_is_recorded_on_disk_with_one_warning(
    tmp_path: Path,
    comet: StandIn,
    caplog: pytest.LogCaptureFixture,
    key: str | None,
    unreachable: bool,
    reason: str,
) -> None:
    comet.settings["comet.api_key"], comet.unreachable = key, unreachable
    start(tmp_path).write(1, {"loss": 1.0})
    *attempts, last = comet.named("start")
    assert len(attempts) == int(unreachable)  # Comet itself would ask the server even without a key
    assert last["online"] is False
    assert comet.named("log_metrics") == [(1, {"train/loss": 1.0})]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert reason in warning
    assert str(tmp_path / "logs" / "comet") in warning


def test_comet_that_is_offline_by_its_own_setting_is_no_warning(
    tmp_path: Path, comet: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    comet.settings["comet.start.online"] = False
    start(tmp_path)
    assert [facts["online"] for facts in comet.named("start")] == [False]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_whatever_the_library_raises_ends_the_writer_alone(tmp_path: Path, comet: StandIn) -> None:
    with pytest.raises(WriterFailed, match="the service is gone"):
        start(tmp_path).write(1, {"loss": -1.0})


def test_offline_experiments_hold_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("comet_ml")
    monkeypatch.delitem(sys.modules, "megatron.monitor.writers.comet", raising=False)
    monkeypatch.setenv("COMET_START_ONLINE", "false")
    writer = start(tmp_path, **KEYS)
    writer.write(1, {"loss": 2.0})
    writer.write(2, {"loss": 1.0, "skipped": True})
    writer.write(2, {"validation/loss": 2.0})
    writer.close()

    (recording,) = comet_recordings(tmp_path / "logs" / "comet")
    assert recording.id == (tmp_path / "checkpoints" / "comet_run_id").read_text().strip()
    assert recording.project == "p"
    assert recording.config["hidden_size"] == 64
    assert recording.config["zero_optimization|stage"] == 0
    assert recording.metrics[1] == {"train/loss": 2.0}
    assert recording.metrics[2] == {"train/loss": 1.0, "train/skipped": 1.0, "validation/loss": 2.0}
    assert set(recording.others["tags"]) == {"small", "trial"}
    assert (recording.others["Name"], recording.others["machine"], recording.others["exit_code"]) == ("n", "laptop", 0)
