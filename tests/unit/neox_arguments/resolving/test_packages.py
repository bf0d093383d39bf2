"""Packages of optional components."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.components import NORMS, TOKENIZERS, WRITERS
from megatron.neox_arguments.resolving.checks.packages import PACKAGES, WRITER_KEYS
from tests.conftest import REPOSITORY
from tests.unit.neox_arguments.minimal import build, problem


@pytest.mark.parametrize("registry", [TOKENIZERS, WRITERS], ids=lambda registry: registry.what)
def test_every_component_with_requirements_of_its_own_has_its_package_listed(registry) -> None:
    for name in registry:
        file = registry.requirement(name)
        assert (name in PACKAGES) == (file is not None)
        if file is not None:
            required = (REPOSITORY / "requirements" / file).read_text().lower().replace("-", "_")
            assert PACKAGES[name] in required


def test_every_writer_but_the_one_that_is_always_there_has_its_key() -> None:
    assert set(WRITER_KEYS.values()) == set(WRITERS) - {"jsonl"}


RUN = {"user_script": "train.py", "data_path": "d", "tokenizer_type": "CharLevelTokenizer"}


def test_a_missing_package_is_told_with_its_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fix = "which is not installed; add it with pip install -r requirements/requirements-tensorboard.txt"
    assert problem(**RUN, tensorboard_dir="logs").endswith(f'this needs the package "tensorboard", {fix}')


def test_packages_are_looked_for_when_a_run_needs_them_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert build(**RUN).tensorboard_dir is None
    assert build(tensorboard_dir="logs").tensorboard_dir == "logs"
    generation = {**RUN, "user_script": "generate.py", "load": "hf:organisation/model"}
    assert build(**generation, tensorboard_dir="logs").tensorboard_dir == "logs"


@pytest.mark.parametrize("changes", [{"te_mha": True}, {"norm": "te_rmsnorm"}])
def test_transformer_engine_is_looked_for_where_it_is_asked_for(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert problem(**RUN, **changes).endswith(
        'this needs the package "transformer_engine", which is not installed; add it with '
        "pip install --no-build-isolation -r requirements/requirements-transformer-engine.txt"
    )
    assert NORMS.requirement("te_rmsnorm") == "requirements-transformer-engine.txt"
    assert "\ntransformer-engine" in (REPOSITORY / "requirements/requirements-transformer-engine.txt").read_text()
    generation = {**RUN, "user_script": "generate.py", "load": "hf:organisation/model"}
    assert build(**generation, **changes), "generation computes without it"
