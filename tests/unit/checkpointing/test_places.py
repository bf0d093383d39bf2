"""Directories and URLs become paths, and what a URL lacks is said."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest

from megatron.checkpointing.places import is_local, place
from megatron.errors import MissingRequirement, NeoXError


def test_directories_and_file_urls_are_paths_of_this_machine(tmp_path: Path) -> None:
    assert place("runs/a") == Path("runs/a")
    assert place(f"file://{tmp_path}/run") == tmp_path / "run"
    assert place(tmp_path) is tmp_path
    assert is_local(place("runs/a"))


def test_urls_are_paths_in_a_store() -> None:
    directory = place("memory://bucket/run/")
    assert str(directory) == "memory://bucket/run"
    assert str(directory / "global_step3") == "memory://bucket/run/global_step3"
    assert not is_local(directory)
    assert place(directory) is directory
    assert pickle.loads(pickle.dumps(directory)) == directory


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(NeoXError, match=r'^ftps3://a/b cannot be opened: "ftps3" is none of the protocols that fsspec'):
        place("ftps3://a/b")


@pytest.mark.parametrize(
    ("url", "package", "advice"),
    [
        ("s3://bucket/run", "s3fs", "pip install -r requirements/requirements-s3.txt"),
        ("gs://bucket/run", "gcsfs", "pip install -r requirements/requirements-gcs.txt"),
        ("abfs://bucket/run", "adlfs", "adlfs"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    url: str, package: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(known._registry, url.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingRequirement, match=f"^{url} needs a package that is not installed: .*{advice}"):
        place(url)
