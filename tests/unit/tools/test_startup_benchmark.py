"""The benchmark of starting: what a command took, with a stand-in for deepy.py; and what it makes of the times."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron.neox_arguments import NeoXArgs
from tools.benchmark import startup
from tools.benchmark.startup import Measured, measure, show, starts, until, write_config

STAND_IN = """
import os, sys, time
from pathlib import Path
words = sys.argv[1:]
print("words", *words)
if "--help" in words:
    sys.exit(0)
if "no_such_key=1" in words:
    sys.exit(1)
(log,) = (Path(word.partition("=")[2]) for word in words if word.startswith("log_dir="))
log.mkdir()
(log / "metrics.jsonl").write_text(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "") + chr(10))
deadline = time.monotonic() + 20
while "wait" in words and not (log / "seen").exists() and time.monotonic() < deadline:
    time.sleep(0.005)
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "deepy.py").write_text(STAND_IN)
    monkeypatch.setattr(startup, "REPOSITORY", tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path


class Clock:
    """A second passes with each look; the stand-in may end when its line has been there for a few of them."""

    def __init__(self, file: Path) -> None:
        self.now, self.file, self.looks = 0.0, file, 0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self.now += 1
        if self.file.exists() and self.file.stat().st_size:
            self.looks += 1
            if self.looks == 4:
                (self.file.parent / "seen").touch()


def test_what_counts_is_the_first_line_and_not_the_end(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = repository / "log" / "metrics.jsonl"
    for looked_for in (file, None):
        shutil.rmtree(file.parent, ignore_errors=True)
        clock = Clock(file)
        monkeypatch.setattr(startup, "time", clock)
        took = until(looked_for, ["train.py", f"log_dir={file.parent}", "wait"])
        assert clock.looks >= 4
        assert took.seconds == clock.now if looked_for is None else 0 < took.seconds <= clock.now - 3
        assert took.processor_seconds > 0


def test_another_exit_status_shows_what_was_written(repository: Path) -> None:
    assert until(None, ["no_such_key=1"], status=1).seconds > 0
    with pytest.raises(RuntimeError, match=r"deepy.py --help ended with 0:\nwords --help"):
        until(None, ["--help"], status=1)


def test_compiled_blocks_start_with_an_empty_cache_and_then_with_what_that_left(repository: Path) -> None:
    things = starts(repository / "config.yml", repository)
    log, cache = repository / "log" / "metrics.jsonl", repository / "compiled"
    cache.mkdir()
    things["first step, compile: true, compiled before"]()
    assert cache.exists()
    assert log.read_text() == f"{cache}\n"
    things["first step, compile: true, nothing compiled before"]()
    assert not cache.exists()
    assert log.read_text() == f"{cache}\n"
    things["first step"]()
    assert log.read_text() == "\n"


def test_the_median_of_rounds_in_turn_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns: list[str] = []
    seconds = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

    def take(name: str) -> Measured:
        turns.append(name)
        value = next(seconds)
        return Measured(value, value / 10)

    def two(config: Path, directory: Path) -> dict[str, Any]:
        return {name: lambda name=name: take(name) for name in ("help", "step")}

    monkeypatch.setattr(startup, "write_config", lambda directory: directory)
    monkeypatch.setattr(startup, "starts", two)
    results = measure(tmp_path, rounds=3)
    assert turns == ["help", "step"] * 3
    assert results == {
        "help": {"seconds": 2.0, "processor_seconds": 0.2},
        "step": {"seconds": 20.0, "processor_seconds": 2.0},
    }
    show(results)
    assert "20.00" in capsys.readouterr().out


def test_the_config_is_one_that_a_run_takes(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    args = NeoXArgs.from_dict(yaml.safe_load(config.read_text()))
    assert args.train_iters == 1
    assert Path(f"{args.data_path}.bin").stat().st_size > 1000
