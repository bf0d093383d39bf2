"""Pages as rocm-smi prints them."""

from __future__ import annotations

import json

import pytest

from megatron.doctor.facts.amd import parse_rocm_smi
from megatron.doctor.facts.gpus import Gpu

CARD = {
    "Temperature (Sensor edge) (C)": "41.0",
    "Temperature (Sensor junction) (C)": "47.0",
    "Temperature (Sensor memory) (C)": "N/A",
    "VRAM Total Memory (B)": "68702699520",
    "VRAM Total Used Memory (B)": "10960896",
    "Card Series": "AMD Instinct MI250X",
}
PAGE = {
    "card10": {**CARD, "Card Series": "last"},
    "card0": CARD,
    "system": {"Driver version": "6.10.5", "PID812": "python, 1, 24, 0, 0"},
}


def test_cards_are_read_in_their_order_with_what_the_system_says() -> None:
    gpus = parse_rocm_smi(json.dumps(PAGE))
    first, last = gpus.devices
    assert (first.index, first.name, last.index, last.name) == (0, "AMD Instinct MI250X", 10, "last")
    assert (first.memory_bytes, first.used_bytes) == (68702699520, 10960896)
    assert first.temperature == 47, "the hottest place counts"
    assert first.others == ("812 python",)
    assert gpus.driver == "6.10.5"


def test_warnings_before_the_page_do_not_harm() -> None:
    assert (
        len(parse_rocm_smi("WARNING: AMD GPU device(s) is/are in a low-power state.\n" + json.dumps(PAGE)).devices) == 2
    )


@pytest.mark.parametrize("page", ["", "no devices", "{broken"])
def test_what_is_no_page_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rocm_smi(page)


def test_what_is_no_object_is_no_card() -> None:
    assert parse_rocm_smi('{"card0": "N/A", "system": null, "card1": {}}').devices == (
        Gpu(index=1, name="unknown", memory_bytes=0, used_bytes=0),
    )
