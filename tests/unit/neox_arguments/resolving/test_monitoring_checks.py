"""Where metrics go is checked before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.neox_arguments.minimal import build, problem

RUN = {"user_script": "train.py", "data_path": "d", "tokenizer_type": "CharLevelTokenizer"}


@pytest.mark.parametrize(
    ("key", "package", "requirement"), [("use_wandb", "wandb", "wandb"), ("use_comet", "comet_ml", "comet")]
)
def test_a_service_needs_its_package(monkeypatch: pytest.MonkeyPatch, key: str, package: str, requirement: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fix = f"which is not installed; add it with pip install -r requirements/requirements-{requirement}.txt"
    assert problem(**RUN, **{key: True}) == f'"{key}" is true: this needs the package "{package}", {fix}'


def test_a_folder_that_wandb_left_is_not_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    assert 'needs the package "wandb"' in problem(**RUN, use_wandb=True)


def test_the_server_of_weights_and_biases_is_a_web_address() -> None:
    assert "write https://wandb.example.org" in problem(use_wandb=True, wandb_host="wandb.example.org")
    assert build(use_wandb=True, wandb_host="http://localhost:8080").use_wandb
    assert build(wandb_host="wandb.example.org").use_wandb is None
