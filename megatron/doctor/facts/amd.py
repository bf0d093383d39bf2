"""What `rocm-smi --json` prints: a JSON object with one object a card, whose values are texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from megatron.doctor.facts.gpus import Gpu, Gpus

AMD_QUERY = (
    "rocm-smi",
    "--showproductname",
    "--showtemp",
    "--showmeminfo",
    "vram",
    "--showdriverversion",
    "--showpids",
    "--json",
)


def parse_rocm_smi(page: str) -> Gpus:
    """The devices of a page. Raises ValueError for one that holds no JSON object."""
    begin = page.find("{")  # warnings may stand before it
    try:
        told = json.loads(page[begin:]) if begin >= 0 else None
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    if not isinstance(told, dict):
        raise ValueError("it holds no JSON object")
    objects = {name: value for name, value in told.items() if isinstance(value, dict)}
    system = objects.get("system", {})
    cards = [(int(name[4:]), card) for name, card in objects.items() if re.fullmatch(r"card\d+", name)]
    # Which card a process is on is not told: each of them may be the one.
    others = tuple(
        f"{name[3:]} {str(value).split(',')[0].strip()}" for name, value in system.items() if name.startswith("PID")
    )
    return Gpus(
        tuple(_device(index, card, others) for index, card in sorted(cards, key=lambda each: each[0])),
        str(system.get("Driver version", "")),
    )


def _device(index: int, card: Mapping[str, Any], others: tuple[str, ...]) -> Gpu:
    fields = {name.lower(): str(value) for name, value in card.items()}
    temperatures = {name: _number(value) for name, value in fields.items() if name.startswith("temperature")}
    hottest = max((value for value in temperatures.values() if value is not None), default=None)
    used = int(_number(fields.get("vram total used memory (b)", "")) or 0)
    return Gpu(
        index=index,
        name=next((fields[name] for name in ("card series", "card model", "device name") if name in fields), "unknown"),
        memory_bytes=int(_number(fields.get("vram total memory (b)", "")) or 0),
        used_bytes=used,
        temperature=hottest,
        others=others,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
