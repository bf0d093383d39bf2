"""What is found out of a config's files and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.data.index_file import MAGIC
from megatron.doctor.facts.checkpoints import checkpoint_needs, checkpoints_at_once
from megatron.doctor.facts.config_files import INDEX_MAGIC, look_at_file, look_at_files
from tests.unit.planning.builders import arguments


def test_the_magic_of_an_index_is_that_of_the_data_room() -> None:
    assert INDEX_MAGIC == MAGIC


def test_both_files_of_every_dataset_are_looked_at(tmp_path: Path) -> None:
    lists = {f"{part}_data_paths": [str(tmp_path / part)] for part in ("train", "valid", "test")}
    args = arguments(**lists, validation_sets={"code": {"paths": [str(tmp_path / "code")]}})
    files = look_at_files(args)
    assert [(file.key, Path(file.path).name) for file in files] == [
        (key, f"{name}{end}")
        for key, name in (
            ("train_data_paths", "train"),
            ("valid_data_paths", "valid"),
            ("test_data_paths", "test"),
            ("validation_sets.code", "code"),
        )
        for end in (".bin", ".idx")
    ]
    assert {file.problem for file in files} == {"does not exist"}


@pytest.mark.parametrize(
    ("content", "problem"), [(INDEX_MAGIC + b"rest", ""), (b"", "is empty"), (b"something", "is no index of a dataset")]
)
def test_an_index_begins_as_one(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.idx").write_bytes(content)
    assert look_at_file("data_path", str(tmp_path / "a.idx"), magic=INDEX_MAGIC).problem == problem


def test_a_folder_in_the_place_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    assert look_at_file("data_path", str(tmp_path)).problem == "cannot be read (is a directory)"


def test_a_checkpoint_takes_twelve_bytes_a_parameter_or_four(tmp_path: Path) -> None:
    (tmp_path / "global_step10").mkdir()
    full = checkpoint_needs(arguments(save=str(tmp_path), checkpoint_factor=10))
    weights = checkpoint_needs(arguments(save=str(tmp_path), checkpoint_factor=10, no_save_optim=True))
    assert full is not None
    assert weights is not None
    assert full.bytes == 3 * weights.bytes
    assert 12 * 600e6 < full.bytes < 12 * 700e6
    assert full.present == 1


@pytest.mark.parametrize("save", [None, "s3://bucket/run"])
def test_what_lies_in_no_folder_needs_no_room(save: str | None) -> None:
    assert checkpoint_needs(arguments(save=save)) is None


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({"checkpoint_factor": 100}, 10),
        ({"checkpoint_factor": 300}, 4),
        ({"checkpoint_factor": 100, "keep_last_n_checkpoints": 3}, 4),
        ({"keep_last_n_checkpoints": 3}, 1),
        ({"checkpoint_factor": 2, "checkpoint_scale": "log", "extra_save_iters": [0]}, 12),
        ({"train_iters": None, "train_epochs": 1, "keep_last_n_checkpoints": 2}, 3),
    ],
)
def test_checkpoints_are_counted_as_they_will_lie_together(keys: dict[str, object], count: int) -> None:
    assert checkpoints_at_once(arguments(**keys)) == count
