"""What `nvidia-smi -q -x` prints: one XML page with all that the driver knows of its devices. Names of fields changed over the years."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from megatron.doctor.facts.gpus import Gpu, Gpus

NVIDIA_QUERY = ("nvidia-smi", "-q", "-x")

HARMLESS = ("gpu_idle", "applications_clocks_setting", "display_clocks_setting", "sync_boost")
"""Reasons for lower clocks that are none to worry: nothing to do, or somebody wants it so."""

_MIB = 2**20


def parse_nvidia_smi(page: str) -> Gpus:
    """The devices of a page. Raises ValueError for one that is not XML."""
    try:
        root = ElementTree.fromstring(page)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    devices = tuple(_device(index, gpu) for index, gpu in enumerate(root.findall("gpu")))
    return Gpus(devices, (root.findtext("driver_version") or "").strip())


def _device(index: int, gpu: ElementTree.Element) -> Gpu:
    remapped = gpu.find("remapped_rows")
    return Gpu(
        index=index,
        name=(gpu.findtext("product_name") or "unknown").strip(),
        memory_bytes=int(_number(gpu.findtext("fb_memory_usage/total")) or 0) * _MIB,
        used_bytes=int(_number(gpu.findtext("fb_memory_usage/used")) or 0) * _MIB,
        temperature=_number(gpu.findtext("temperature/gpu_temp")),
        hot=_number(gpu.findtext("temperature/gpu_temp_slow_threshold")),
        uncorrected=_uncorrected(gpu.find("ecc_errors/volatile")),
        repair_pending=_says_yes(remapped, "remapped_row_pending")
        or _says_yes(gpu.find("retired_pages"), "pending_retirement"),
        repair_failed=_says_yes(remapped, "remapped_row_failure"),
        throttled=tuple(_throttled(gpu)),
        others=tuple(_process(process) for process in gpu.findall("processes/process_info")),
    )


def _number(text: str | None) -> float | None:
    """Of `34 C`, `81559 MiB`; None of `N/A`."""
    match = re.match(r"\s*(-?\d+(?:\.\d+)?)", text or "")
    return float(match[1]) if match else None


def _uncorrected(counts: ElementTree.Element | None) -> int | None:
    """Since Ampere there is a count for each kind of memory, before that a total of double bit errors."""
    if counts is None:
        return None
    kinds = [element for element in counts.iter() if "uncorrectable" in element.tag]
    numbers = [_number(element.text) for element in kinds] or [_number(counts.findtext("double_bit/total"))]
    known = [number for number in numbers if number is not None]
    return int(sum(known)) if known else None


def _says_yes(parent: ElementTree.Element | None, name: str) -> bool:
    return parent is not None and (parent.findtext(name) or "").strip().lower() == "yes"


def _throttled(gpu: ElementTree.Element) -> list[str]:
    """Reasons that are active now: `hw_thermal_slowdown`. Older drivers call them throttle reasons, newer ones event reasons."""
    reasons = []
    for parent in (gpu.find("clocks_event_reasons"), gpu.find("clocks_throttle_reasons")):
        for element in parent if parent is not None else ():
            name = re.sub(r"^clocks_(throttle|event)_reason_", "", element.tag)
            if (element.text or "").strip() == "Active" and name not in HARMLESS:
                reasons.append(name)
    return list(dict.fromkeys(reasons))


def _process(process: ElementTree.Element) -> str:
    name = (process.findtext("process_name") or "").strip()
    return f"{(process.findtext('pid') or '?').strip()} {name}".strip()
