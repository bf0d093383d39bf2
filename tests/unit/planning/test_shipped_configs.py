"""Every config of a model in this repository can be planned, and gets layouts that fit on a large enough cluster."""

from __future__ import annotations

import pytest

from megatron import text
from megatron.planning.hardware.clusters import without_world
from megatron.planning.hardware.devices import parse_gpus
from megatron.planning.page.report import page
from megatron.planning.study import study
from tests.shipped import MODELS, read

TOO_SMALL = ("cpu.yml", "python_10M.yml")
"""Their batches are less than a thousand devices can share out."""


@pytest.mark.parametrize("file", MODELS)
def test_a_shipped_model_is_planned(file: str) -> None:
    values = without_world(read(file))
    found = study(values, parse_gpus("1024xH100"), vocab_size=50257, layouts=2)
    lines = [line for section in page(found) for line in section.lines]
    assert max(map(len, lines)) <= text.WIDTH
    assert found.proposals or "use a batch that is a multiple of 1024" in " ".join(" ".join(lines).split())
    assert bool(found.proposals) == (file not in TOO_SMALL)
