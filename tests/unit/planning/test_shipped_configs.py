"""Every config of a model in this repository can be planned, and gets layouts that fit on a large enough cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox_arguments.reading.load import read_ymls
from megatron.planning import text
from megatron.planning.clusters import without_world
from megatron.planning.devices import parse_gpus
from megatron.planning.report import page
from megatron.planning.study import study
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
MODELS = [path for path in sorted(CONFIGS.rglob("*.yml")) if "num_layers" in read_ymls([str(path)]).values]

TOO_SMALL = ("cpu.yml", "python_10M.yml")
"""Their batches are less than a thousand devices can share out."""


@pytest.mark.parametrize("path", MODELS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_shipped_model_is_planned(path: Path) -> None:
    values = without_world(read_ymls([str(path)]))
    found = study(values, parse_gpus("1024xH100"), vocab_size=50257, layouts=2)
    lines = [line for section in page(found) for line in section.lines]
    assert max(map(len, lines)) <= text.WIDTH
    assert found.proposals or "use a batch that is a multiple of 1024" in " ".join(" ".join(lines).split())
    assert bool(found.proposals) == (path.name not in TOO_SMALL)
