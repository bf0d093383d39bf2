"""Which files are read, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.data.inputs.paths import find_inputs, split_commas
from megatron.errors import DataError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, which is the current one, with files of all kinds."""
    for name in (
        "d/b.jsonl",
        "d/a/z.txt",
        "d/a.jsonl",
        "d/B.parquet",
        "d/.git/x.txt",
        "d/.x.txt",
        "d/notes.md",
        "d/x.partial/manifest.json",
        "d/x.partial/1f0c/00000000.json",
        "e/1.txt",
        "x,y.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*words: str) -> list[str]:
    return [path.as_posix() for path in find_inputs([part for word in words for part in split_commas(word)]).files]


def test_a_directory_is_searched_in_the_order_of_its_paths(tree: Path) -> None:
    assert names("d") == ["d/B.parquet", "d/a/z.txt", "d/a.jsonl", "d/b.jsonl"]
    assert [path.as_posix() for path in find_inputs(["d"]).left_out] == ["d/notes.md"]


def test_what_a_dataset_beside_the_inputs_says_of_itself_is_no_input(tree: Path) -> None:
    for name in ("d/x_document.sources.json", "d/x_document.idx", "d/other.sources.json"):
        (tree / name).touch()
    assert names("d/*.json") == names("d")[-1:] == ["d/other.sources.json"]


def test_files_come_in_the_order_given_and_globs_in_that_of_their_paths(tree: Path) -> None:
    assert names("d/b.jsonl,e, d/*.jsonl") == ["d/b.jsonl", "e/1.txt", "d/a.jsonl", "d/b.jsonl"]
    assert names("**/*.txt") == ["d/a/z.txt", "e/1.txt", "x,y.txt"]
    assert names("d/[a]*") == ["d/a.jsonl"]
    with pytest.raises(DataError, match="holds no file of a known kind"):
        names("d/**/*.json")  # unfinished output


def test_a_name_with_a_comma_is_one_file(tree: Path) -> None:
    assert names("x,y.txt", "e/1.txt") == ["x,y.txt", "e/1.txt"]


def test_everything_that_is_wrong_is_told_at_once(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        names("absent.jsonl,d/notes.md,empty,d/*.gz")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the input absent.jsonl does not exist."
    assert lines[1].startswith("the input d/notes.md is of an unknown kind: its name must end in .jsonl")
    assert lines[2].startswith("the input empty holds no file of a known kind")
    assert lines[3].startswith("the input d/*.gz holds no file of a known kind")
    with pytest.raises(DataError, match="there is no input"):
        find_inputs([])
