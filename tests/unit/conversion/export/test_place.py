"""The directory of an exported model: never over something else, whole or not at all whatever interrupts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.checkpointing.files import host_name, temporary_path
from megatron.conversion.export.place import REPORT, directory_to_be, output_directory, report_beside
from megatron.errors import CheckpointError


def test_what_is_there_is_not_replaced_unless_a_conversion_wrote_it(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    assert output_directory(str(directory), overwrite=False) == directory
    directory.mkdir()
    assert output_directory(directory, overwrite=False) == directory
    (directory / REPORT).write_text(json.dumps({"files": {}}))  # of a conversion that failed
    assert output_directory(directory, overwrite=False) == directory
    (directory / REPORT).write_text(json.dumps({"files": {"config.json": {}, "tokenizer/tokenizer.json": {}}}))
    (directory / "tokenizer").mkdir()
    (directory / "config.json").touch()
    with pytest.raises(CheckpointError, match="model holds a converted model: give another directory, or --overwrite"):
        output_directory(directory, overwrite=False)
    assert output_directory(directory, overwrite=True) == directory
    (directory / "global_step8").mkdir()
    with pytest.raises(
        CheckpointError, match="holds global_step8 beside a converted model, and no conversion wrote it"
    ):
        output_directory(directory, overwrite=True)
    (directory / REPORT).unlink()
    with pytest.raises(CheckpointError, match="holds something else than a converted model: give another directory"):
        output_directory(directory, overwrite=True)


def test_only_directories_of_this_machine_are_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="exists and is no directory"):
        output_directory(tmp_path / "file", overwrite=True)
    with pytest.raises(CheckpointError, match="is in a store"):
        output_directory("memory://bucket/model", overwrite=False)


def test_what_cannot_be_replaced_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for text in (".", tmp_path / "here", "..", "/"):
        with pytest.raises(CheckpointError, match="is the directory you are in, one above it, or a mounted disk"):
            output_directory(text, overwrite=True)
    monkeypatch.chdir("/")
    for source in (tmp_path / "here", tmp_path / "here" / "global_step8"):
        with pytest.raises(CheckpointError, match="here holds the model that is to be converted"):
            output_directory(tmp_path / "here", overwrite=True, source=source)
    monkeypatch.setattr(Path, "is_mount", lambda path: True)
    with pytest.raises(CheckpointError, match="or a mounted disk"):
        output_directory(tmp_path / "here", overwrite=True)


def test_a_report_alone_takes_no_place_of_a_model(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    for content, left in (("first", ["model"]), ("second", ["model", f"model.{REPORT}"]), ("third", ["model"])):
        with directory_to_be(directory) as place:
            (place / REPORT).write_text(content)
            if content != "second":
                (place / "weights").write_text(content)
        assert sorted(path.name for path in tmp_path.iterdir()) == left
        if content == "second":
            assert {path.read_text() for path in directory.iterdir()} == {"first"}
            assert report_beside(directory).read_text() == "second"
    assert {path.read_text() for path in directory.iterdir()} == {"third"}


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_between_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "a").touch()
    rename, calls = os.rename, 0

    def interrupted(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), directory_to_be(directory) as place:
        (place / "b").touch()
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [Path("model"), Path("model/a")]


KILLED = """
import os, sys
from pathlib import Path
from megatron.conversion.export.place import directory_to_be
rename, calls = os.rename, 0
def killing(source, target):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os._exit(9)
    rename(source, target)
os.rename = killing
with directory_to_be(Path(sys.argv[1])) as place:
    (place / "b").touch()
"""


@pytest.mark.parametrize("at", ["1", "2"])
def test_what_a_killed_conversion_left_is_put_back_and_removed(tmp_path: Path, at: str) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "a").touch()
    others = [
        temporary_path(tmp_path, "other"),
        tmp_path / f".tmp-model@{host_name()}@{os.getppid()}@ab",
    ]  # of the living
    for other in others:
        other.mkdir()
    assert subprocess.run([sys.executable, "-c", KILLED, str(directory), at], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 4
    output_directory(directory, overwrite=False, begun={"a"})
    assert [path.name for path in directory.iterdir()] == ["a"]
    with directory_to_be(directory) as place:
        (place / "c").touch()
    assert set(tmp_path.rglob("*")) == {*others, directory, directory / "c"}


def test_it_takes_the_place_of_what_is_there_at_the_end(tmp_path: Path) -> None:
    directory = tmp_path / "above" / "model"
    with directory_to_be(directory) as place:
        (place / "a").write_text("1")
        assert not directory.exists()
    with directory_to_be(directory) as place:
        (place / "b").write_text("2")
        assert (directory / "a").exists()
    assert [path.name for path in directory.iterdir()] == ["b"]
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_two_at_once_do_not_disturb_one_another(tmp_path: Path) -> None:
    directory = tmp_path / "model"

    def write() -> None:
        with directory_to_be(directory) as first:
            with directory_to_be(directory) as second:
                (second / "theirs").touch()
            assert first.is_dir()

    with pytest.raises(CheckpointError, match="was changed by somebody else"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "theirs"]


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    directory = tmp_path / "model"

    def write() -> None:
        with directory_to_be(directory) as place:
            (place / "a").touch()
            directory.mkdir()
            (directory / "theirs").touch()

    with pytest.raises(CheckpointError, match="was changed by somebody else meanwhile"):
        write()
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [Path("model"), Path("model/theirs")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_whatever_interrupts_it_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "a").write_text("1")

    def write() -> None:
        with directory_to_be(directory) as place:
            (place / "b").write_text("2")
            raise error

    with pytest.raises(error):
        write()
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [Path("model"), Path("model/a")]
