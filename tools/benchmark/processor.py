"""Which processor measurements were taken on."""

from __future__ import annotations

import re
from pathlib import Path


def processor() -> str:
    """Its name, as Linux tells it; "cpu" elsewhere."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else "cpu"


def file_name(benchmark: str, device: str = "cpu") -> str:
    """Of a benchmark's results on this processor, or the device of that name: `index_maps_AMD_EPYC.json`."""
    return f"{benchmark}_{re.sub(r'[^A-Za-z0-9]+', '_', processor() if device == 'cpu' else device)}.json"
