"""The directory of an exported model: never over something else, whole or not at all whatever interrupts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.conversion.export.place import REPORT, directory_to_be, output_directory
from megatron.errors import CheckpointError


def test_what_is_there_is_not_replaced_unless_a_conversion_wrote_it(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    assert output_directory(str(directory), overwrite=False) == directory
    directory.mkdir()
    assert output_directory(directory, overwrite=False) == directory
    (directory / REPORT).touch()  # of a conversion that failed
    assert output_directory(directory, overwrite=False) == directory
    (directory / "config.json").touch()
    with pytest.raises(CheckpointError, match="model holds a converted model: give another directory, or --overwrite"):
        output_directory(directory, overwrite=False)
    assert output_directory(directory, overwrite=True) == directory
    (directory / REPORT).unlink()
    with pytest.raises(CheckpointError, match="holds something else than a converted model: give another directory"):
        output_directory(directory, overwrite=True)


def test_only_directories_of_this_machine_are_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="exists and is no directory"):
        output_directory(tmp_path / "file", overwrite=True)
    with pytest.raises(CheckpointError, match="is in a store"):
        output_directory("memory://bucket/model", overwrite=False)


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
